"""What a Dataset says of itself: its geometry, its places, its times."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pdeforecast.errors import DataError, UsageError, nearest
from pdeforecast.geometry import GEOMETRIES, Geometry

TIMES = ("time", "lead_time")
STATION = "station"
"""The name of each of loose points, where they have names."""
SAME_PLACE = 1e-6
"""Two points are one when they look the same from a fixed pose to this accuracy."""


def geometry_of(ds: xr.Dataset) -> Geometry:
    """The geometry that `ds` names in its attributes, else the only one with its coordinates.

    Raises:
        DataError: if it names an unknown one, or its coordinates fit none, or several.
    """
    name = ds.attrs.get("geometry")
    spaces = {key: space for key, space in GEOMETRIES.items() if space.domain == key}
    if name in spaces:
        return spaces[name]
    if name is not None:
        near = nearest(str(name), spaces)
        raise DataError(
            f"expected a geometry among {', '.join(spaces)}; this Dataset says {name!r}.",
            f"Type `ds.attrs['geometry'] = {near or next(iter(spaces))!r}`.",
        )
    fitting = [key for key, space in spaces.items() if set(space.coordinates) <= set(ds.variables)]
    if len(fitting) == 1:
        return spaces[fitting[0]]
    known = ", ".join(f"{key} ({', '.join(space.coordinates)})" for key, space in spaces.items())
    raise DataError(
        f"expected the coordinates of one geometry of {known}; this Dataset has {listing(ds)}.",
        f"Type `ds.attrs['geometry'] = {(fitting or list(spaces))[0]!r}`, with its coordinates named so; or "
        f"`pdeforecast convert FILE -o OURS.nc --geometry {(fitting or list(spaces))[0]}` names them.",
    )


def is_grid(ds: xr.Dataset, geometry: Geometry) -> bool:
    """Whether `ds` lies on a grid, one dimension per coordinate, rather than at loose points."""
    return all(ds[name].dims == (name,) for name in geometry.coordinates)


def place_dims(ds: xr.Dataset, geometry: Geometry) -> tuple[Hashable, ...]:
    """The dimensions of the places, slow first: a grid's, or those that all coordinates of loose points lie
    on, which are several where an instrument scans."""
    return grid_dims(geometry) if is_grid(ds, geometry) else ds[geometry.coordinates[0]].dims


def flat(ds: xr.Dataset, name: str, geometry: Geometry) -> NDArray[Any]:
    """A coordinate of loose points, (M,)."""
    return ds[name].transpose(*place_dims(ds, geometry)).values.reshape(-1)


def station_names(ds: xr.Dataset, geometry: Geometry) -> NDArray[Any] | None:
    """The names of loose points, (M,) texts, empty where one has none; None if there are no names."""
    dims = place_dims(ds, geometry)
    if STATION not in ds.coords or ds[STATION].dims != dims or len(dims) > 1:
        return None
    return np.array([_name(value) for value in ds[STATION].values.tolist()], dtype=object)


def _name(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None or value != value else str(value)


def axes_of(ds: xr.Dataset, geometry: Geometry) -> dict[str, Tensor]:
    """The axes of a Dataset on a grid, slow first; those of one at loose points, each (M,)."""
    grid = is_grid(ds, geometry)
    return {
        name: _axis(ds[name].values if grid else flat(ds, name, geometry)) for name in grid_dims(geometry)
    }


def times_of(ds: xr.Dataset) -> list[float]:
    """The times (or lead times) of `ds` in its own unit; hours if xarray has decoded them; [0] if none."""
    name = next((name for name in TIMES if name in ds.dims), None)
    if name is None:
        return [0.0]
    if name not in ds.variables:
        raise DataError(
            f"expected times along {name}; the dimension has no coordinate.",
            f"Type `ds = ds.assign_coords({name}=[0.0, 1.0, …])`.",
        )
    values = ds[name].values
    if values.dtype.kind == "m":
        values = values / np.timedelta64(1, "h")
    if values.dtype.kind not in "fiu" or not np.isfinite(values.astype(float)).all():
        raise DataError(
            f"expected finite numbers as {name}; it holds {values.dtype}.",
            f"Open the file with `xr.open_dataset(…, decode_times=False)`, or assign numbers to {name}.",
        )
    return [float(value) for value in values]


def grid_dims(geometry: Geometry) -> tuple[str, ...]:
    """The dimensions of a grid in the order of the files, slow first: the coordinates reversed."""
    return tuple(reversed(geometry.coordinates))


def grid_points(geometry: Geometry, axes: Mapping[str, Tensor | NDArray[Any]]) -> Tensor:
    """The nodes (M, d) of a grid; the first of `axes` varies slowest."""
    nodes = torch.meshgrid(*(_axis(axis) for axis in axes.values()), indexing="ij")
    return loose_points(geometry, {name: node.reshape(-1) for name, node in zip(axes, nodes, strict=True)})


def loose_points(geometry: Geometry, axes: Mapping[str, Tensor | NDArray[Any]]) -> Tensor:
    """The points (M, d) whose coordinates are `axes`, each (M,)."""
    return geometry.embed(torch.stack([_axis(axes[name]) for name in geometry.coordinates], dim=-1))


def _axis(axis: Tensor | NDArray[Any]) -> Tensor:
    # PyTorch cannot share the memory of a reversed or read-only array.
    nodes = axis if isinstance(axis, Tensor) else np.array(axis)
    return torch.as_tensor(nodes, dtype=torch.float64)


def seen(geometry: Geometry, points: Tensor) -> Tensor:
    """a(x, p) from one fixed pose p: coordinates in which a place has one name only."""
    space = GEOMETRIES[geometry.domain]
    return space.relative(points, space.lattice(1)[0].to(points))


def periodic(name: str, geometry: Geometry) -> bool:
    """Whether the end of a coordinate is its beginning."""
    middle = {other: torch.tensor([0.4 * low + 0.6 * high]) for other, (low, high) in geometry.extent.items()}
    ends = grid_points(geometry, {**middle, name: torch.tensor(geometry.extent[name])})
    low, high = seen(geometry, ends.double())
    return float((low - high).abs().max()) < SAME_PLACE


def beyond(nodes: NDArray[Any], name: str, geometry: Geometry) -> NDArray[np.bool_]:
    """Which positions of a coordinate lie beyond its limits; none of a periodic one."""
    low, high = geometry.extent[name]
    rounding = 1e-12 * (high - low)
    outside = (nodes < low - rounding) | (nodes > high + rounding)
    return outside & (not periodic(name, geometry))


def default_axes(geometry: Geometry, sizes: Mapping[str, int]) -> dict[str, NDArray[np.float64]]:
    """The geometry's regular grid of `sizes`, in the order of the files.

    Raises:
        UsageError: if a size is missing, unknown or not positive.
    """
    dims = grid_dims(geometry)
    if set(sizes) != set(dims) or any(size < 1 for size in sizes.values()):
        raise UsageError(
            f"expected a positive size for each of {', '.join(dims)}; came {dict(sizes)}.",
            f"Type `--grid {'x'.join(['64'] * len(dims))}`, or grid={dict.fromkeys(dims, 64)}.",
        )
    return {name: geometry.axis(name, sizes[name]).numpy() for name in dims}


def listing(ds: xr.Dataset) -> str:
    """The variables with their dimensions, as a message shows them."""
    return signature({name: ds[name].dims for name in ds.variables}) or "nothing"


def signature(dims: Mapping[Any, Sequence[Any]]) -> str:
    """Names with their dimensions: "x(x), y(y)"."""
    return ", ".join(f"{name}({', '.join(map(str, own))})" for name, own in dims.items())
