"""Foreign coordinates into those of a geometry: degrees, one period, one window, no end point twice."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pdeforecast.errors import DataError
from pdeforecast.geometry import Geometry
from pdeforecast.trajectory import grid_dims
from pdeforecast.trajectory.layout import periodic

_REPEATED = 1e-5
"""Two columns are one if they differ by less than this share of the field's range."""


@dataclass(frozen=True)
class Fitted:
    """A Dataset in the coordinates of a geometry, and what was done to it."""

    ds: xr.Dataset
    notes: list[str]


def fit(ds: xr.Dataset, geometry: Geometry) -> Fitted:
    """The grid of `ds` in the coordinates of `geometry`; loose points stay as they are.

    Angles become degrees, and a colatitude a latitude. Lengths are carried, affinely, to the extent of
    the geometry: a period from its first node on, a window from edge to edge. A node that repeats the
    first one of a period is cut. Coordinates that are absent become the geometry's own grid.

    Raises:
        DataError: if a periodic coordinate is irregular.
    """
    notes: list[str] = []
    lengths: dict[str, float] = {}
    for name in grid_dims(geometry):
        if name in ds.variables and ds[name].dims != (name,):
            continue
        if name not in ds.variables:
            ds = _assumed(ds, name, geometry)
            notes.append(f"{name}: no coordinates in the file; {ds.sizes[name]} regular nodes are assumed.")
            continue
        if name in ds.sizes and ds.sizes[name] > 1:
            step = _angle if geometry.units[name].startswith("degrees") else _length
            fitted = step(ds, name, geometry)
            ds = fitted.ds
            notes += fitted.notes
            if "source_minimum" in ds[name].attrs:
                lengths[name] = ds[name].attrs["source_maximum"] - ds[name].attrs["source_minimum"]
    if len(lengths) > 1 and max(lengths.values()) > (1 + 1e-6) * min(lengths.values()):
        sizes = ", ".join(f"{name} {length:g}" for name, length in lengths.items())
        notes.append(f"the sides differ ({sizes}): no rotation or exchange of axes is a symmetry any more.")
    return Fitted(ds, notes)


def _assumed(ds: xr.Dataset, name: str, geometry: Geometry) -> xr.Dataset:
    nodes = geometry.axis(name, ds.sizes[name]).numpy()
    return ds.assign_coords({name: (name, nodes, {"units": geometry.units[name]})})


# --- angles --------------------------------------------------------------------------------------


def _angle(ds: xr.Dataset, name: str, geometry: Geometry) -> Fitted:
    """In degrees, latitudes from −90 to 90, longitudes without the end of their circle."""
    notes, nodes = [], ds[name].values.astype(float)
    low, high = geometry.extent[name]
    unit = str(ds[name].attrs.get("units", "")).lower()
    if unit.startswith("rad") or (not unit.startswith("deg") and np.abs(nodes).max() <= 2 * math.pi + 1e-6):
        nodes = np.rad2deg(nodes)
        notes.append(f"{name}: radians become degrees.")
    colatitude = low < 0 and (
        nodes.max() > high + 1e-3 or ds[name].attrs.get("standard_name") == "colatitude"
    )
    if colatitude and nodes.min() > -1e-3:
        nodes = high - nodes
        notes.append(f"{name}: colatitudes become latitudes.")
    # Rounded radians may end beyond a pole.
    nodes = np.clip(nodes, low, high) if low < 0 else nodes
    ds = ds.assign_coords({name: (name, nodes, {"units": geometry.units[name]})})
    if periodic(name, geometry) and abs(np.ptp(nodes) - (high - low)) < 1e-3:
        return _cut(ds, name, notes)
    return Fitted(ds, notes)


def _cut(ds: xr.Dataset, name: str, notes: list[str]) -> Fitted:
    end = f"{name}: the node at {float(ds[name][-1]):g}, which repeats the first, is cut."
    return Fitted(ds.isel({name: slice(None, -1)}), [*notes, end])


# --- lengths -------------------------------------------------------------------------------------


def _length(ds: xr.Dataset, name: str, geometry: Geometry) -> Fitted:
    """From one period, or one window, to the geometry's."""
    notes: list[str] = []
    low, high = geometry.extent[name]
    if round_trip := periodic(name, geometry):
        if _repeats(ds, name):
            ds, notes = (cut := _cut(ds, name, notes)).ds, cut.notes
        first, last = _period(ds[name].values.astype(float), name)
    else:
        first, last = _window(ds[name].values.astype(float))
    if name == "radius":
        first = 0.0
    nodes = ds[name].values.astype(float)
    if np.allclose((first, last), (low, high), rtol=0, atol=1e-6):
        return Fitted(ds.assign_coords({name: (name, nodes, {"units": geometry.units[name]})}), notes)
    scaled = low + (high - low) * (nodes - first) / (last - first)
    attrs = {
        "units": geometry.units[name],
        "source_minimum": first,
        "source_maximum": last,
        "source_units": str(ds[name].attrs.get("units", "1")),
    }
    kind, close = ("period", ")") if round_trip else ("window", "]")
    notes.append(
        f"{name}: the {kind} [{first:.6g}, {last:.6g}{close} becomes [{low:g}, {high:g}{close}; fields, "
        f"velocities too, keep their numbers."
    )
    return Fitted(ds.assign_coords({name: (name, scaled, attrs)}), notes)


def _repeats(ds: xr.Dataset, name: str) -> bool:
    """Whether the last values along a coordinate are the first ones, in every field, as far as is looked."""
    seen_any = False
    for first, last, between in _ends(ds, name):
        size = np.nanmax(np.abs(between), initial=0.0)
        if np.nanmax(np.abs(first - last), initial=0.0) > _REPEATED * size:
            return False
        seen_any |= bool(
            size > 0 and np.nanmax(np.abs(first - between), initial=0.0) > 100 * _REPEATED * size
        )
    return seen_any


def _ends(ds: xr.Dataset, name: str) -> Iterator[tuple[NDArray[np.float64], ...]]:
    """The first, the last and a quarter's column of each field's first and last sample and time."""
    for array in ds.data_vars.values():
        if name in array.dims and array.dtype.kind == "f":
            for at in (0, -1):
                part = array.isel({dim: at for dim in ("sample", "time") if dim in array.dims}).variable
                whole = part.values.astype(float)
                axis = part.dims.index(name)
                yield tuple(np.take(whole, i, axis=axis) for i in (0, -1, whole.shape[axis] // 4))


def _period(nodes: NDArray[np.float64], name: str) -> tuple[float, float]:
    """Where a regular period begins and ends; with nodes at the beginning or at the centres of cells."""
    ordered = np.sort(nodes)
    steps = np.diff(ordered)
    step = float(steps.mean())
    if not np.allclose(steps, step, rtol=1e-3, atol=0):
        raise DataError(
            f"expected a regular grid along the periodic {name}; its steps go from {steps.min():g} to "
            f"{steps.max():g}.",
            "Choose a geometry with walls, such as `--geometry plane`, or resample it.",
        )
    length = step * len(nodes)
    starts = [ordered[0], ordered[0] - step / 2]
    first = min(starts, key=lambda start: _roundness(start, length))
    return float(first), float(first + length)


def _window(nodes: NDArray[np.float64]) -> tuple[float, float]:
    """The edges of an interval: the outermost nodes, or half a cell beyond, whichever are rounder."""
    ordered = np.sort(nodes)
    at_nodes = (float(ordered[0]), float(ordered[-1]))
    beyond = (
        float(1.5 * ordered[0] - 0.5 * ordered[1]),
        float(1.5 * ordered[-1] - 0.5 * ordered[-2]),
    )
    return min((beyond, at_nodes), key=lambda ends: sum(_roundness(end, np.ptp(ordered)) for end in ends))


def _roundness(number: float, length: float) -> int:
    """How many digits beyond those of the length a number needs, as it is or in units of π."""
    unit = 10.0 ** math.floor(math.log10(length))
    for digits in range(5):
        for factor in (1.0, math.pi):
            parts = number / factor / unit * 10**digits
            if abs(parts - round(parts)) < 1e-4 * 10**digits:
                return digits
    return 5


def sides(geometry: Geometry) -> Mapping[str, bool]:
    """Of each coordinate that is a length: whether it is periodic."""
    return {
        name: periodic(name, geometry)
        for name in geometry.coordinates
        if not geometry.units[name].startswith("degrees") and name != "radius"
    }
