"""The equation's own solution from a given state, in the files in which forecasts are given."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from pdeforecast.errors import DataError, UsageError
from pdeforecast.generation.provenance import provenance_of
from pdeforecast.generation.samples import frames, one_thread
from pdeforecast.geometry import GEOMETRIES, Geometry
from pdeforecast.pdes import PDE
from pdeforecast.trajectory import (
    axes_of,
    check,
    converted,
    factors,
    grid_dims,
    is_grid,
    start_time,
    time_factor,
    time_unit,
    times_in,
    to_dataset,
    trajectory_values,
    unit_of,
)


def solve_from(
    pde: PDE,
    ds: xr.Dataset,
    lead_times: Sequence[float],
    attrs: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> xr.Dataset:
    """The equation's own solution from the first frame of `ds`, as a forecast is given.

    A variable that `ds` lacks is left to the equation: one that does without it says in its docstring what
    it takes instead (convection: a fluid at rest), and the result names it in `absent_variables`.

    Args:
        ds: states on a full grid whose nodes the equation's solver takes in, with the static fields.
            Dimensions may be in any order, axes in any direction and from any origin. Kilometres, radians
            and the like are converted, and given back.
        lead_times: after the state, ≥ 0, in any order; in the time unit that `ds` says, else in that of the
            equation.
        device: of the solver.

    Returns:
        A Dataset over (sample, lead_time, *grid), at the nodes of `ds` in their order and in its units.

    Raises:
        DataError: if the state lacks a variable that is needed, or has gaps, or its grid is not one that
            the solver takes in.
        UsageError: if a lead time is negative or not finite.
        DivergedError: if the solution leaves the finite numbers.
    """
    geometry = GEOMETRIES[pde.geometry]
    if not lead_times or not all(math.isfinite(time) and time >= 0 for time in lead_times):
        raise UsageError(
            f"expected lead times ≥ 0; came {list(lead_times)}.", "Type for instance `--lead-time 0:19:1`."
        )
    needed = {name: pde.units[name] for name in (*pde.variables, *pde.statics)}
    given = ds.isel({name: 0 for name in ("time", "lead_time") if name in ds.dims})
    own = pde.units.get("time", "1")
    unit = time_unit(given, own)
    by_time = time_factor(given, own)
    units = {**geometry.units, **needed}
    by = factors(given, units)
    start = converted(given, by, units)
    present = {name: unit for name, unit in needed.items() if name in start.variables}
    check(start, geometry, present or needed, [name for name in pde.statics if name in present])
    start = _full_grid(start, geometry, list(present))
    axes = axes_of(start, geometry)
    shape = [len(axis) for axis in axes.values()]
    fields = trajectory_values(start, geometry, present)[2][:, 0].double()
    state = {name: fields[..., i].reshape(-1, *shape).to(device, copy=True) for i, name in enumerate(present)}
    asked = [by_time * float(time) for time in lead_times]
    ordered = sorted(set(asked))
    try:
        with one_thread():
            solved = dict(zip(ordered, frames(pde, state, ordered, axes), strict=True))
    except KeyError as error:
        # The equation asked for a variable that is not there.
        if error.args[0] in set(needed) - set(present):
            check(start, geometry, needed, pde.statics)
        raise
    values = torch.stack([solved[time].cpu() for time in asked], dim=1)
    scale = torch.tensor([by.get(name, 1.0) for name in pde.variables], dtype=values.dtype)
    absent = ", ".join(name for name in pde.variables if name not in present)
    provenance = {
        **provenance_of(pde),
        **({"absent_variables": absent} if absent else {}),
        **_start_time(given, unit),
        **(attrs or {}),
    }
    shown = {name: unit_of(given, name, pde.units[name]) for name in pde.variables}
    out = to_dataset(
        (values / scale).float(), geometry, shown, axes, lead_times, "lead_time", unit, provenance
    )
    return _as_given(out, given, start, geometry, pde.statics)


def _as_given(
    out: xr.Dataset, given: xr.Dataset, start: xr.Dataset, geometry: Geometry, statics: Sequence[str]
) -> xr.Dataset:
    """At the nodes of `given`, in their order, with its labels and its static fields."""
    dims = grid_dims(geometry)
    place = {name: np.argsort(np.argsort(given[name].values, kind="stable")) for name in dims}
    out = out.isel(place).assign_coords({name: given[name].variable for name in dims})
    if "sample" in start.coords:
        out = out.assign_coords(sample=np.atleast_1d(start["sample"].values))
    return out.assign({name: given[name].variable.load() for name in statics if name in given.variables})


def _full_grid(ds: xr.Dataset, geometry: Geometry, names: Sequence[str]) -> xr.Dataset:
    """The state in ascending order of its axes, if it is complete on a grid."""
    dims = grid_dims(geometry)
    cure = "Interpolate it first, for instance: `pdeforecast forecast MODEL … --lead-time 0 --grid 64x64`."
    if not is_grid(ds, geometry):
        raise DataError(
            f"expected a state on a full ({', '.join(dims)}) grid; this one is observed at loose points.",
            cure,
        )
    for name in names:
        if missing := int(ds[name].isnull().sum()):
            raise DataError(f"expected a state without gaps; {missing} values of {name} are NaN.", cure)
    return ds.sortby(list(dims))


def _start_time(ds: xr.Dataset, unit: str) -> dict[str, float]:
    """The time of the state in `unit`; of a state in a forecast, the forecast's start and its lead time."""
    if "time" not in ds.coords and "lead_time" in ds.coords and "start_time" in ds.attrs:
        return {"start_time": float(ds.attrs["start_time"]) + times_in(ds.expand_dims("lead_time"), unit)[0]}
    return start_time(ds, unit)
