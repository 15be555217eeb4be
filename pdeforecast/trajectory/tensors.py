"""Datasets to tensors and back: between the two, points and values side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pdeforecast.errors import DataError
from pdeforecast.geometry import Geometry
from pdeforecast.trajectory.blocks import blocks
from pdeforecast.trajectory.checks import check, check_dims, check_numbers
from pdeforecast.trajectory.layout import (
    TIMES,
    axes_of,
    grid_points,
    is_grid,
    loose_points,
    place_dims,
    times_of,
)
from pdeforecast.trajectory.units import times_in


@dataclass(frozen=True)
class Samples:
    """Observations of S states at M shared points.

    Attributes:
        points: (M, point_dim), float64.
        values: (S, M, V); NaN where not observed.
        variance: of the observation error, (S, M, V), or None where every value is exact.
        measure: (M,), the part of the space that each point represents, in units of their mean; loose
            points count alike.
    """

    points: Tensor
    values: Tensor
    variance: Tensor | None
    measure: Tensor


def samples(
    ds: xr.Dataset, geometry: Geometry, variables: Mapping[str, str], time_index: int | None = None
) -> Samples:
    """The states of `ds` at one time, as points and values.

    Args:
        variables: the unit of each variable; V is their number, in this order.
        time_index: the frame to read where there are several; the first by default.

    Raises:
        DataError: as `check` does.
    """
    frame = ds.isel({name: time_index or 0 for name in TIMES if ds.sizes.get(name)}, drop=True)
    check(frame, geometry, variables)
    return _seen(frame, geometry, list(variables))


def observations(
    ds: xr.Dataset, geometry: Geometry, variables: Mapping[str, str], time_unit: str
) -> list[tuple[float, Samples]]:
    """The times of `ds` at which something was observed, in `time_unit` and in their order, each with that.

    Raises:
        DataError: as `check` and `times_in` do, or if nothing was observed of a sample at the first time.
    """
    check(ds, geometry, variables)
    times = times_in(ds, time_unit)
    found = []
    for i in sorted(range(len(times)), key=times.__getitem__):
        frame = ds.isel({name: i for name in TIMES if name in ds.dims}, drop=True)
        found.append((times[i], _seen(frame, geometry, list(variables))))
    _check_begun(ds, list(variables), found[0][1], f"{min(times):g} {time_unit}")
    return [(time, seen) for time, seen in found if not bool(seen.values.isnan().all())]


def _check_begun(ds: xr.Dataset, names: list[str], first: Samples, time: str) -> None:
    """That every sample is observed at the first time, which is that of the state."""
    blind = torch.nonzero(first.values.isnan().flatten(1).all(1)).flatten().tolist()
    if not blind:
        return
    name = next(name for name in TIMES if name in ds.dims)
    alone = f"ds.isel(sample=[{blind[0]}])" if len(first.values) > 1 else "ds"
    where = f" of sample {blind[0]}" if len(first.values) > 1 else ""
    raise DataError(
        f"expected observations{where} at the first time, from which lead times count; there are none at "
        f"{time.removesuffix(' 1')}.",
        f"Begin where there are some: `ds = {alone}.dropna({name!r}, how='all', subset={names})`; in a "
        "table, delete the rows without a value.",
    )


def _seen(frame: xr.Dataset, geometry: Geometry, names: Sequence[str]) -> Samples:
    points, values = _tensors(frame, geometry, names)
    variance = _variance(frame, geometry, names, values[:, 0])
    return Samples(points, values[:, 0], variance, measure(frame, geometry))


def measure(ds: xr.Dataset, geometry: Geometry) -> Tensor:
    """The part of the space (M,) that each point of `ds` represents, in units of their mean."""
    axes = axes_of(ds, geometry)
    if not is_grid(ds, geometry):
        return torch.ones(len(next(iter(axes.values()))), dtype=torch.float64)
    weights = geometry.weights(axes).flatten()
    return weights / weights.mean()


def trajectory_values(
    ds: xr.Dataset, geometry: Geometry, variables: Mapping[str, str]
) -> tuple[list[float], Tensor, Tensor]:
    """The times, the points (M, d) and the values (S, T, M, V) of a trajectory; statics are repeated.

    Raises:
        DataError: as `check` does.
    """
    check(ds, geometry, variables)
    return times_of(ds), *_tensors(ds, geometry, list(variables))


def _tensors(ds: xr.Dataset, geometry: Geometry, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Points (M, d) and values (S, T, M, V)."""
    return points_of(ds, geometry), values_of(ds, geometry, names)


def points_of(ds: xr.Dataset, geometry: Geometry) -> Tensor:
    """The points (M, d) of a Dataset, on a grid or loose, in the order of its values."""
    make = grid_points if is_grid(ds, geometry) else loose_points
    return make(geometry, axes_of(ds, geometry))


def values_of(ds: xr.Dataset, geometry: Geometry, names: Sequence[str]) -> Tensor:
    """The values (S, T, M, V) of some variables: float32 if all of them are, else float64."""
    places = place_dims(ds, geometry)
    single = all(ds[name].dtype.itemsize <= 4 and ds[name].dtype.kind == "f" for name in names)
    arrays = [ds[name].variable for name in names]
    orders = [("sample", _time(array), *places) for array in arrays]
    sizes = [[a.sizes.get(dim, 1) for dim in order] for a, order in zip(arrays, orders, strict=True)]
    shape = np.broadcast_shapes(*map(tuple, sizes))
    values = np.empty((*shape, len(names)), dtype=np.float32 if single else np.float64)
    for i, (array, order) in enumerate(zip(arrays, orders, strict=True)):
        for where, part in blocks(array):
            # What has one sample or one time only is repeated.
            at = [where[d] if array.sizes.get(d, 1) > 1 and d in where else slice(None) for d in order[:2]]
            values[at[0], at[1], ..., i] = xr.Variable(array.dims, part).set_dims(order).values
    return torch.from_numpy(values.reshape(*shape[:2], -1, len(names)))


def _time(array: xr.Variable) -> str:
    return next((name for name in TIMES if name in array.dims), TIMES[0])


def _variance(ds: xr.Dataset, geometry: Geometry, names: Sequence[str], values: Tensor) -> Tensor | None:
    for name in names:
        if f"{name}_error" in ds.variables:
            raise DataError(
                f"expected errors as {name}_variance; this Dataset has {name}_error.",
                f"Square it: `ds = ds.assign({name}_variance=ds['{name}_error'] ** 2)"
                f".drop_vars('{name}_error')`; a table may have either.",
            )
    known = [name for name in names if f"{name}_variance" in ds.variables]
    if not known:
        return None
    variance = torch.zeros_like(values)
    for name in known:
        array = ds[f"{name}_variance"]
        check_numbers(array)
        check_dims(ds, f"{name}_variance", geometry, static=False)
        column = _tensors(ds, geometry, [f"{name}_variance"])[1][:, 0, :, 0]
        observed = ~values[..., names.index(name)].isnan()
        column = column.expand_as(observed)
        if not bool((column[observed] >= 0).all()):
            raise DataError(
                f"expected {name}_variance ≥ 0 at every observed point; it is negative or NaN at some.",
                f"Set it: `ds['{name}_variance'] = ds['{name}_variance'].clip(min=0).fillna(0)`.",
            )
        variance[..., names.index(name)] = torch.where(observed, column, 0.0).to(values.dtype)
    return variance


def to_dataset(
    values: Tensor | NDArray[Any],
    geometry: Geometry,
    variables: Mapping[str, str],
    axes: Mapping[str, Tensor | NDArray[Any]],
    times: Sequence[float],
    time_name: str = "lead_time",
    time_unit: str = "1",
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Fields with their coordinates.

    Args:
        values: (S, T, *grid, V) with the grid in the order of `axes`; or (S, T, M, V) at loose
            points, where every axis is (M,).
        variables: the unit of each of the V fields.
        times: T numbers, in `time_unit`.
    """
    array = values.numpy(force=True) if isinstance(values, Tensor) else np.asarray(values)
    loose = array.ndim == 4
    places = ("point",) if loose else tuple(axes)
    coords: dict[str, Any] = {
        time_name: (time_name, np.asarray(times, dtype=np.float64), {"units": time_unit})
    }
    for name, axis in axes.items():
        unit = {"units": geometry.units[name]}
        coords[name] = (places if loose else (name,), np.asarray(axis, dtype=np.float64), unit)
    fields = {
        name: (("sample", time_name, *places), array[..., i], {"units": unit})
        for i, (name, unit) in enumerate(variables.items())
    }
    return xr.Dataset(
        fields, coords, {"Conventions": "CF-1.11", "geometry": geometry.domain, **(attrs or {})}
    )
