"""What a reader may expect of a Dataset, and what a user is told where it is otherwise.

Every fault is a `DataError`: a line of what was expected and what came, a line of what to type.
`check` raises the first, `faults` finds them all. Values are read a block at a time.

No check names a geometry. That an axis is too long, or meets its own beginning, the geometry says
itself, through its extent and through what its poses see.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pdeforecast.errors import DataError, nearest
from pdeforecast.geometry import Geometry
from pdeforecast.trajectory.blocks import blocks
from pdeforecast.trajectory.layout import (
    SAME_PLACE,
    TIMES,
    axes_of,
    beyond,
    grid_dims,
    grid_points,
    is_grid,
    listing,
    periodic,
    seen,
    signature,
    times_of,
)
from pdeforecast.trajectory.units import factor


def check(
    ds: xr.Dataset, geometry: Geometry, variables: Mapping[str, str], statics: Sequence[str] = ()
) -> None:
    """Hold a Dataset against the convention.

    Args:
        variables: the unit of every field that is needed.
        statics: the fields that must not depend on time; they may also stand in `variables`.

    Raises:
        DataError: with what was expected, what came, and what to type.
    """
    for fault in faults(ds, geometry, variables, statics):
        raise fault


def faults(
    ds: xr.Dataset, geometry: Geometry, variables: Mapping[str, str], statics: Sequence[str] = ()
) -> Iterator[DataError]:
    """All that `check` has to say, in the order in which it looks; what follows from a fault is not told."""
    yield from _told(_check_space, ds, geometry)
    needed = [*geometry.coordinates, *variables, *statics]
    lost = [
        fault for name in geometry.coordinates for fault in _told(_check_axis, ds, name, geometry, needed)
    ]
    yield from lost
    if lost:
        return
    lost = _told(_check_shape, ds, geometry)
    yield from lost
    if lost:
        return
    for name in grid_dims(geometry):
        yield from _told(_check_nodes, ds, name, geometry)
    for name in dict.fromkeys([*variables, *statics]):
        lost = _told(_check_field, ds, name, geometry, variables.get(name), name in statics, needed)
        yield from lost or _told(_check_values, ds[name].variable, name)
    yield from _told(times_of, ds)


def _told(question: Callable[..., Any], *about: Any) -> list[DataError]:
    try:
        question(*about)
    except DataError as fault:
        return [fault]
    return []


def _check_space(ds: xr.Dataset, geometry: Geometry) -> None:
    declared = str(ds.attrs.get("geometry", geometry.domain))
    if declared != geometry.domain:
        raise DataError(
            f"expected a state on the {geometry.domain}; this Dataset says geometry = {declared!r}.",
            f"Choose a model of the {declared}, or type `ds.attrs['geometry'] = {geometry.domain!r}`.",
        )
    for name, size in ds.sizes.items():
        if size == 0:
            raise DataError(
                f"expected values; the dimension {name} is empty.", f"Select at least one {name}."
            )


def _check_axis(ds: xr.Dataset, name: str, geometry: Geometry, needed: Collection[str]) -> None:
    _require(ds, name, f"a coordinate of the {geometry.name}", needed)
    check_numbers(ds[name])
    _check_unit(ds[name], geometry.units[name])


def _check_field(
    ds: xr.Dataset, name: str, geometry: Geometry, unit: str | None, static: bool, needed: Collection[str]
) -> None:
    _require(ds, name, "a variable", needed)
    check_numbers(ds[name])
    if unit is not None:
        _check_unit(ds[name], unit)
    check_dims(ds, name, geometry, static)


def _require(ds: xr.Dataset, name: str, role: str, others: Collection[str]) -> None:
    """That `name` is there; if not, a variable that is none of the `others` may be meant."""
    if name in ds.variables:
        return
    if name in ds.dims:
        raise DataError(
            f"expected {name}, {role}; it is a dimension without values.",
            f"Give it its positions: `ds = ds.assign_coords({name}=np.arange(n) / n)`.",
        )
    near = nearest(name, [str(known) for known in ds.variables if known not in others])
    cure = f"Rename it: `ds = ds.rename({near}={name!r})`." if near else f"Add it: `ds[{name!r}] = …`."
    raise DataError(f"expected {name}, {role}; this Dataset has {listing(ds)}.", cure)


def check_numbers(array: xr.DataArray) -> None:
    """Real numbers, neither complex nor text."""
    if array.dtype.kind in "fiu":
        return
    cure = (
        f"Keep the real part: `ds[{array.name!r}] = ds[{array.name!r}].real`."
        if array.dtype.kind == "c"
        else f"Convert it: `ds[{array.name!r}] = ds[{array.name!r}].astype(float)`."
    )
    raise DataError(f"expected real numbers in {array.name}; it holds {array.dtype}.", cure)


def _check_unit(array: xr.DataArray, expected: str) -> None:
    unit = array.attrs.get("units")
    if unit is None or factor(str(unit), expected) == 1:
        return
    raise DataError(
        f"expected {array.name} in the unit {expected!r}; it says {unit!r}.",
        f"Convert the values, then type `ds[{array.name!r}].attrs['units'] = {expected!r}`, or call the "
        f"column of a table `{array.name} [{expected}]`.",
    )


def _check_shape(ds: xr.Dataset, geometry: Geometry) -> None:
    """One axis per dimension, or all on the same ones, which have no names of ours if they are several."""
    names = grid_dims(geometry)
    dims = {name: ds[name].dims for name in names}
    first, *others = (set(own) for own in dims.values())
    ours = first & {"sample", *TIMES, *names} if len(first) > 1 else None
    if not is_grid(ds, geometry) and (not first or ours or any(own != first for own in others)):
        raise DataError(
            f"expected {signature({n: (n,) for n in names})} on a grid or "
            f"{signature(dict.fromkeys(names, ('point',)))}; came {signature(dims)}.",
            f"Type `{_layout_cure(dims)}`.",
        )


def _check_nodes(ds: xr.Dataset, name: str, geometry: Geometry) -> None:
    """Finite positions within the space, and on a grid no place twice."""
    if not np.isfinite(ds[name].values).all():
        dims = ds[name].dims
        raise DataError(
            f"expected finite positions; {name} holds NaN or infinities.",
            f"Drop them: `ds = {_stacked(dims)}.dropna({_one(dims)!r}, subset=[{name!r}])`.",
        )
    _check_extent(ds[name], geometry)
    if is_grid(ds, geometry):
        _check_distinct(ds, name, geometry)


def _layout_cure(dims: Mapping[str, tuple[Hashable, ...]]) -> str:
    single = [name for name, own in dims.items() if not own]
    if single:
        return f"ds = ds.expand_dims({single})"
    if per_sample := {"sample", *TIMES}.intersection(*dims.values()):
        return f"ds = ds.isel({min(map(str, per_sample))}=0)"
    if all(len(own) == 1 for own in dims.values()):
        swaps = ", ".join(f"{own[0]}={name!r}" for name, own in dims.items() if own != (name,))
        return f"ds = ds.swap_dims({swaps})"
    stacked = tuple(dict.fromkeys(dim for own in dims.values() for dim in own))
    return f"ds = {_stacked(stacked)}"


def _stacked(dims: tuple[Hashable, ...]) -> str:
    """What to type for a Dataset whose places have one dimension, in place of these."""
    return f"ds.stack(point={dims}).reset_index('point')" if len(dims) > 1 else "ds"


def _one(dims: tuple[Hashable, ...]) -> Hashable:
    """The dimension that is then theirs."""
    return "point" if len(dims) > 1 else dims[0]


def _check_extent(axis: xr.DataArray, geometry: Geometry) -> None:
    """No more than a period; between the limits where there is none."""
    name, unit = str(axis.name), geometry.units[str(axis.name)]
    low, high = float(axis.min()), float(axis.max())
    first, last = geometry.extent[name]
    came = f"it runs from {low:g} to {high:g}, beyond the space."
    if beyond(axis.values, name, geometry).any():
        stack = f"ds = {_stacked(axis.dims)}; " if axis.ndim > 1 else ""
        keep = f"ds = ds.isel({_one(axis.dims)}=(ds.{name} >= {first:g}) & (ds.{name} <= {last:g}))"
        raise DataError(
            f"expected {name} from {first:g} to {last:g} in the unit {unit!r} of the {geometry.name}; {came}",
            f"Keep those inside: `{stack}{keep}`; or have `pdeforecast convert` fit a grid to its space.",
        )
    if periodic(name, geometry) and high - low > (1 + 1e-12) * (last - first):
        period = (high - low) * axis.size / (axis.size - 1) / (last - first)
        raise DataError(
            f"expected {name} in the unit {unit!r} of the {geometry.name}; {came}",
            f"If that is one period, type `ds = ds.assign_coords({name}=ds.{name} / {period:g})`.",
        )


def _check_distinct(ds: xr.Dataset, name: str, geometry: Geometry) -> None:
    nodes = ds[name].values
    if nodes.size < 2:
        return
    seen = _axis_seen(ds, name, geometry)
    order = torch.from_numpy(np.argsort(nodes, kind="stable"))
    gap = (seen[order] - seen[order.roll(-1)]).abs().amax(-1)
    if bool((gap[:-1] < SAME_PLACE).any()):
        at = nodes[int(order[int(gap[:-1].argmin())])]
        raise DataError(
            f"expected every place once; {name} holds {at:g} twice.",
            f"Drop the repetition: `ds = ds.drop_duplicates({name!r})`.",
        )
    if float(gap[-1]) < SAME_PLACE:
        first, last = nodes[int(order[0])], nodes[int(order[-1])]
        keep = "slice(None, -1)" if nodes[-1] == last else f"ds.{name}.argsort()[:-1]"
        raise DataError(
            f"expected a periodic grid without its end point; {name} = {first:g} and {name} = {last:g} "
            "are one place.",
            f"Drop the repeated end: `ds = ds.isel({name}={keep})`.",
        )


def _axis_seen(ds: xr.Dataset, name: str, geometry: Geometry) -> Tensor:
    """The nodes of one axis, the others held at a middle node, as seen from a fixed pose."""
    axes = {
        other: axis if other == name else axis[len(axis) // 2 :][:1]
        for other, axis in axes_of(ds, geometry).items()
    }
    return seen(geometry, grid_points(geometry, axes))


def check_dims(ds: xr.Dataset, name: str, geometry: Geometry, static: bool) -> None:
    """A value at every place, perhaps for every sample and time, and over nothing else."""
    places = {dim for coordinate in geometry.coordinates for dim in ds[coordinate].dims}
    dims = set(ds[name].dims)
    if missing := sorted(map(str, places - dims)):
        raise DataError(
            f"expected {name}({', '.join(map(str, places))}); it has no {', '.join(missing)}.",
            f"Give it a value everywhere, for instance with `ds[{name!r}].broadcast_like(…)`.",
        )
    time = set(TIMES) & dims
    if static and time:
        raise DataError(
            f"expected {name} without time, for it is static; it depends on {time.pop()}.",
            f"Keep one frame: `ds[{name!r}] = ds[{name!r}].isel(time=0, drop=True)`.",
        )
    if extra := sorted(map(str, dims - places - {"sample", *TIMES})):
        raise DataError(
            f"expected {name} over sample, time and place; it also depends on {', '.join(extra)}.",
            f"Choose one: `ds = ds.isel({extra[0]}=0)`, or rename it: `ds.rename({extra[0]}='sample')`.",
        )
    if len(time) > 1:
        raise DataError(
            f"expected {name} over time or lead_time; it depends on both.",
            f"Choose one: `ds = ds.isel({TIMES[0]}=0)`.",
        )


def _check_values(array: xr.Variable, name: str) -> None:
    rows = array.sizes.get("sample", 1)
    observed, infinite = np.zeros(rows, dtype=np.int64), 0
    for where, values in blocks(array):
        infinite += int(np.isinf(values).sum())
        known = ~np.isnan(values)
        others = tuple(i for i, dim in enumerate(array.dims) if dim != "sample")
        observed[where.get("sample", slice(None))] += known.sum(axis=others)
    if infinite:
        raise DataError(
            f"expected finite values or NaN; {name} holds {infinite} infinities.",
            f"If they mean 'not observed': `ds[{name!r}] = ds[{name!r}].where(np.isfinite)`.",
        )
    empty = np.flatnonzero(observed == 0)
    if len(empty):
        sampled = "sample" in array.dims
        where_empty = f" in sample {empty[0]}" if sampled else ""
        cure = (
            f"Drop it: `ds = ds.drop_isel(sample={empty.tolist()[:8]})`."
            if sampled and len(empty) < rows
            else f"Put the observed numbers into {name}; one observed point is enough to begin."
        )
        raise DataError(f"expected at least one observed value; {name} is NaN everywhere{where_empty}.", cure)
