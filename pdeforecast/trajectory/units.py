"""Units that differ by a factor, converted on the way in and given back on the way out."""

import math
from collections.abc import Mapping

import numpy as np
import xarray as xr

_FACTORS = {
    "m": {"km": 1e3, "dam": 10.0, "cm": 1e-2, "mm": 1e-3},
    "s-1": {
        unit: 1 / seconds
        for seconds, words in ((60, ("min",)), (3600, ("h", "hour", "hours")), (86400, ("d", "day", "days")))
        for word in words
        for unit in (f"{word}-1", f"1/{word}", f"{word}^-1", f"per {word}")
    },
    "degrees_north": dict.fromkeys(("rad", "radian", "radians"), 180 / math.pi),
    "degrees_east": dict.fromkeys(("rad", "radian", "radians"), 180 / math.pi),
}
"""By unit, what one of another unit is in it."""


def unit_of(ds: xr.Dataset, name: str, default: str) -> str:
    """The unit that a variable says it is in, else `default`."""
    return str(ds[name].attrs.get("units", default)) if name in ds.variables else default


def factors(ds: xr.Dataset, units: Mapping[str, str]) -> dict[str, float]:
    """What to multiply the variables and coordinates of `ds` with, where they are in another known unit."""
    found = {
        name: _FACTORS.get(unit, {}).get(unit_of(ds, name, unit).strip().lower())
        for name, unit in units.items()
    }
    return {name: factor for name, factor in found.items() if factor is not None}


def converted(ds: xr.Dataset, by: Mapping[str, float], units: Mapping[str, str]) -> xr.Dataset:
    """`ds` in `units`: its values multiplied with the factors `by`, error variances with their squares."""
    for name, factor in by.items():
        ds = _multiplied(ds, name, factor, units[name])
        if f"{name}_variance" in ds.variables:
            ds = _multiplied(ds, f"{name}_variance", factor**2)
    return ds


def _multiplied(ds: xr.Dataset, name: str, factor: float, unit: str | None = None) -> xr.Dataset:
    attrs = {} if unit is None else {"units": unit}
    made = (ds[name].dims, factor * ds[name].values.astype(np.float64), attrs)
    return ds.assign_coords({name: made}) if name in ds.coords else ds.assign({name: made})
