"""NetCDF and Zarr, of any author: coordinates and dimensions are known by their CF attributes or names."""

from pathlib import Path

import xarray as xr

from pdeforecast.convert.source import Source
from pdeforecast.trajectory import open_dataset

_SPELLINGS = {
    "sample": (
        "samples",
        "batch",
        "trajectory",
        "traj",
        "member",
        "ensemble",
        "number",
        "realization",
        "run",
    ),
    "time": ("t", "times", "valid_time", "step"),
    "latitude": ("lat", "nav_lat", "theta", "rlat"),
    "longitude": ("lon", "long", "nav_lon", "phi", "rlon"),
    "radius": ("r", "rad"),
    "x": ("xc", "x-coordinate", "projection_x_coordinate"),
    "y": ("yc", "y-coordinate", "projection_y_coordinate"),
    "lead_time": ("leadtime", "forecast_period"),
    "point": ("points", "station", "stations", "node", "nodes", "sensor", "cell"),
}
_UNITS = {"latitude": "degrees_north", "longitude": "degrees_east"}


def read(path: Path) -> Source:
    """Raises:
    DataError, UsageError: as `open_dataset` does.
    """
    ds, layout = open_dataset(path), "zarr" if path.is_dir() else "netcdf"
    renamed = _renamed(ds)
    notes = [f"{old} is called {new}." for old, new in renamed.items()]
    ds = ds.rename(renamed).squeeze(
        [dim for dim, size in ds.rename(renamed).sizes.items() if size == 1 and dim not in _SPELLINGS],
        drop=True,
    )
    return Source(layout, ds, {}, notes)


def _renamed(ds: xr.Dataset) -> dict[str, str]:
    """Our name for every variable and dimension that goes by another."""
    found: dict[str, str] = {}
    for name in map(str, [*ds.dims, *ds.coords, *ds.variables]):
        ours = _known(ds, name)
        taken = {*map(str, ds.variables), *map(str, ds.dims), *found.values()}
        if ours is not None and ours != name and name not in found and ours not in taken:
            found[name] = ours
    return found


def _known(ds: xr.Dataset, name: str) -> str | None:
    """What a coordinate or a dimension is to us."""
    if name in ds.variables:
        array = ds[name]
        if array.ndim > 1:
            return None
        attrs = {key: str(value).lower() for key, value in array.attrs.items()}
        for ours in ("latitude", "longitude"):
            if attrs.get("standard_name") == ours or attrs.get("units") == _UNITS[ours]:
                return ours
        if name in ds.data_vars and array.dims != (name,):
            return None
    lower = name.lower()
    return next((ours for ours, others in _SPELLINGS.items() if lower == ours or lower in others), None)
