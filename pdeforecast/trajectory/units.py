"""Units that differ by a factor, converted on the way in and given back on the way out."""

import math
import re
from collections.abc import Mapping

import numpy as np
import xarray as xr

from pdeforecast.errors import DataError
from pdeforecast.trajectory.layout import TIMES, times_of


def _sizes(*rows: tuple[float, str]) -> dict[str, float]:
    return {word: size for size, words in rows for word in words.split()}


_RADIANS = (180 / math.pi, "rad radian radians")
_SIZES = (
    {"": 1.0} | _sizes((1.0, "1 - none dimensionless m^0"), (0.01, "% percent")),
    _sizes(
        (1.0, "m meter meters metre metres"),
        (1e3, "km kilometer kilometers kilometre kilometres"),
        (10.0, "dam"),
        (1e-2, "cm centimeter centimeters centimetre centimetres"),
        (1e-3, "mm millimeter millimeters millimetre millimetres"),
        (0.3048, "ft foot feet"),
    ),
    _sizes(
        (1.0, "s sec secs second seconds"),
        (60.0, "min mins minute minutes"),
        (3600.0, "h hr hrs hour hours"),
        (86400.0, "d day days"),
    ),
    _sizes((1.0, "degrees degree deg °"), _RADIANS),
    _sizes((1.0, "degrees_north degree_north"), _RADIANS),
    _sizes((1.0, "degrees_east degree_east"), _RADIANS),
)
"""For each kind of quantity, the size of its units by every spelling."""
_RATE = re.compile(r"(?:1/|/|per)([a-z]+)|([a-z]+)(?:-1|\^-1|\*\*-1|⁻¹)|(hz)")


def factor(unit: str, into: str) -> float | None:
    """What one of `unit` is in the unit `into`; none where no factor is known to be between."""
    unit, into = _word(unit), _word(into)
    if unit == into:
        return 1.0
    for sizes in _SIZES:
        if unit in sizes and into in sizes:
            return sizes[unit] / sizes[into]
    once, other = _RATE.fullmatch(unit), _RATE.fullmatch(into)
    return factor(_time_of(other), _time_of(once)) if once and other else None


def _word(unit: str) -> str:
    return "".join(unit.partition(" since ")[0].lower().split())


def _time_of(rate: re.Match[str]) -> str:
    """The unit of time that a rate is per."""
    return rate[1] or rate[2] or "s"


def unit_of(ds: xr.Dataset, name: str, default: str) -> str:
    """The unit that a variable says it is in, else `default`."""
    return str(ds[name].attrs.get("units", default)) if name in ds.variables else default


def factors(ds: xr.Dataset, units: Mapping[str, str]) -> dict[str, float]:
    """What to multiply the variables and coordinates of `ds` with, where they are in another known unit."""
    found = {name: factor(unit_of(ds, name, unit), unit) for name, unit in units.items()}
    return {name: by for name, by in found.items() if by not in (None, 1.0)}


def converted(ds: xr.Dataset, by: Mapping[str, float], units: Mapping[str, str]) -> xr.Dataset:
    """`ds` in `units`: its values multiplied with the factors `by`, error variances with their squares."""
    for name, size in by.items():
        ds = _multiplied(ds, name, size, units[name])
        if f"{name}_variance" in ds.variables:
            ds = _multiplied(ds, f"{name}_variance", size**2)
    return ds


def _multiplied(ds: xr.Dataset, name: str, by: float, unit: str | None = None) -> xr.Dataset:
    attrs = {} if unit is None else {"units": unit}
    made = (ds[name].dims, by * ds[name].values.astype(np.float64), attrs)
    return ds.assign_coords({name: made}) if name in ds.coords else ds.assign({name: made})


def time_unit(ds: xr.Dataset, default: str) -> str:
    """The unit in which `ds` says that it counts times, without the date they are counted from, else
    `default`: a Dataset whose times xarray has decoded says none."""
    name = _time_name(ds)
    unit = default if name is None else unit_of(ds, name, default)
    return unit.partition(" since ")[0].strip()


def unit_of_times(ds: xr.Dataset, default: str) -> str:
    """The unit of the numbers that `times_of` gives: hours where xarray has decoded them."""
    name = _time_name(ds)
    return time_unit(ds, "hours" if name is not None and ds[name].dtype.kind == "m" else default)


def time_factor(ds: xr.Dataset, unit: str) -> float:
    """What times in the unit that `ds` says are in `unit`; 1 if it says none.

    Raises:
        DataError: if no factor is known to be between the units.
    """
    return _time_factor(time_unit(ds, unit), unit, str(_time_name(ds)))


def times_in(ds: xr.Dataset, unit: str) -> list[float]:
    """The times of `ds` in `unit`.

    Raises:
        DataError: as `times_of` and `time_factor` do.
    """
    times = times_of(ds)
    by = _time_factor(unit_of_times(ds, unit), unit, str(_time_name(ds)))
    return [by * time for time in times]


def _time_factor(unit: str, into: str, name: str) -> float:
    by = factor(unit, into)
    if by is None:
        raise DataError(
            f"expected {name} in the unit {into!r}, or in one that differs by a factor; it is in {unit!r}.",
            f"Convert it, then type `ds[{name!r}].attrs['units'] = {into!r}`; in a table, call the column "
            f"`{name} [{into}]`.",
        )
    return by


def _time_name(ds: xr.Dataset) -> str | None:
    """Which coordinate tells times: that of a dimension, else any."""
    known = [name for name in TIMES if name in ds.variables]
    return next((name for name in known if name in ds.dims), next(iter(known), None))
