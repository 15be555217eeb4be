"""What every baseline reads and writes: trajectories, states, and the Dataset of a forecast."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pdeforecast.errors import DataError, DivergedError
from pdeforecast.forecaster import static_samples
from pdeforecast.geometry import GEOMETRIES, Geometry
from pdeforecast.run import fields_of
from pdeforecast.trajectory import (
    TIMES,
    Samples,
    axes_of,
    default_axes,
    geometry_of,
    grid_dims,
    grid_points,
    is_grid,
    lead_times,
    loose_points,
    samples,
    start_time,
    target,
    times_of,
    to_dataset,
    trajectory_values,
)

Axes = dict[str, Tensor]
"""The nodes of a grid, in the order of its dimensions; or the coordinates of loose points, each (M,)."""


@dataclass(frozen=True)
class Layout:
    """What a method has learned from: fields, places and times. Plain data.

    Attributes:
        geometry: the name of the space.
        variables: the forecast fields and their units.
        statics: known fields that do not change, and their units.
        time_unit: of lead times.
        nodes: of the training grid, by axis; empty where it was none.
        interval: between frames; 0 if they are irregular.
        horizon: between the first frame and the last.
    """

    geometry: str
    variables: Mapping[str, str]
    statics: Mapping[str, str]
    time_unit: str
    nodes: Mapping[str, list[float]]
    interval: float
    horizon: float

    @property
    def space(self) -> Geometry:
        """Where the fields live."""
        return GEOMETRIES[self.geometry]

    @property
    def axes(self) -> Axes:
        """The training grid."""
        return {name: torch.tensor(nodes, dtype=torch.float64) for name, nodes in self.nodes.items()}

    @property
    def shape(self) -> list[int]:
        """The number of nodes along each axis."""
        return [len(nodes) for nodes in self.nodes.values()]

    def plain(self) -> dict[str, Any]:
        """For JSON; `Layout(**plain)` is the inverse."""
        return asdict(self)


def layout_of(ds: xr.Dataset) -> Layout:
    """The layout of trajectories.

    Raises:
        DataError: if they have fewer than two times, or these do not ascend.
    """
    variables, statics = fields_of(ds)
    times = times_of(ds)
    if len(times) < 2 or any(after <= before for before, after in pairwise(times)):
        raise DataError(
            f"expected trajectories of two or more ascending times; came {times[:4]}.",
            "Give a file such as `pdeforecast generate` writes, sorted by time.",
        )
    name = "time" if "time" in ds.dims else "lead_time"
    unit = str(ds[name].attrs.get("units", "1"))
    space = geometry_of(ds)
    axes = axes_of(ds, space) if is_grid(ds, space) else {}
    steps = np.diff(times)
    even = np.allclose(steps, steps.mean(), rtol=1e-6)
    return Layout(
        space.name,
        variables,
        statics,
        unit,
        {name: nodes.tolist() for name, nodes in axes.items()},
        float(steps.mean()) if even else 0.0,
        times[-1] - times[0],
    )


def attributes(ds: xr.Dataset) -> dict[str, Any]:
    """What a Dataset says of itself, as plain data for JSON."""
    return {str(key): value.item() if hasattr(value, "item") else value for key, value in ds.attrs.items()}


def gridded(ds: xr.Dataset, layout: Layout) -> tuple[Tensor, Tensor]:
    """Trajectories on a full grid: values (S, T, V, *grid), and statics (1 or S, statics, *grid), as float32.

    Raises:
        DataError: if they are at loose points or have gaps.
    """
    space = layout.space
    if not layout.nodes:
        raise DataError(
            "expected trajectories on a grid; these are at loose points.",
            "Train a method that needs no grid: `model`, `functa` or `dino`.",
        )
    values = trajectory_values(ds, space, layout.variables)[2]
    held = static_samples(ds, space, layout.statics).values if layout.statics else values[:1, 0, :, :0]
    for what, array in (("variables", values), ("static fields", held)):
        if missing := int(array.isnan().sum()):
            raise DataError(
                f"expected trajectories without gaps; {missing} values of the {what} are NaN.",
                "Train a method that needs no grid: `model`, `functa` or `dino`.",
            )
    fields, constants = (
        array.float().movedim(-1, -2).unflatten(-1, layout.shape) for array in (values, held)
    )
    return fields, constants


@dataclass(frozen=True)
class Request:
    """A state, and where and when it is to be forecast.

    Attributes:
        state: of one time.
        seen: the observations.
        grid: the axes of the observations; empty if they are loose.
        times: lead times.
        target: the axes of the answer.
        points: its places (M, point_dim).
        on_grid: whether they are a grid.
    """

    state: xr.Dataset
    seen: Samples
    grid: Axes
    times: list[float]
    target: Axes
    points: Tensor
    on_grid: bool


def request(
    layout: Layout,
    state: xr.Dataset,
    lead_time: Sequence[float],
    grid: Mapping[str, int] | None,
    like: xr.Dataset | None,
) -> Request:
    """Reads what `Method.forecast` is given.

    Raises:
        DataError: if `state` or `like` is not what was learned from.
        UsageError: if lead times or grid mean nothing.
    """
    times, space = lead_times(lead_time), layout.space
    state = state.isel({name: 0 for name in TIMES if name in state.dims})
    seen = samples(state, space, layout.variables)
    axes, on_grid = target(state, space, grid, like)
    points = (grid_points if on_grid else loose_points)(space, axes)
    own = axes_of(state, space) if is_grid(state, space) else {}
    return Request(state, seen, own, times, axes, points, on_grid)


def statics_of(layout: Layout, asked: Request) -> tuple[Samples, Axes]:
    """The static fields of a state at their points, and their grid; empty axes if they are loose.

    Beside loose sensors they may be on a default grid of their own.

    Raises:
        DataError: if there are neither one nor as many as there are states.
    """
    space, state = layout.space, asked.state
    held = static_samples(state, space, layout.statics)
    count = len(asked.seen.values)
    if len(held.values) not in (1, count):
        raise DataError(
            f"expected as many states as static fields; came {count} and {len(held.values)}.",
            f"Choose one: `ds['{next(iter(layout.statics))}'].isel(sample=0)`.",
        )
    dims = grid_dims(space)
    if asked.grid or not all(set(dims) <= set(state[name].dims) for name in layout.statics):
        return held, asked.grid
    sizes = {name: state.sizes[name] for name in dims}
    return held, {name: torch.as_tensor(axis) for name, axis in default_axes(space, sizes).items()}


def answer(layout: Layout, asked: Request, values: Tensor, name: str) -> xr.Dataset:
    """The Dataset of a forecast of values (S, T, V, M) at the asked points.

    Raises:
        DivergedError: if one of them is not finite.
    """
    if not bool(values.isfinite().all()):
        raise DivergedError(
            f"the forecast of {name} left the finite numbers before lead time {max(asked.times):g}.",
            f"Ask for shorter lead times; what it has learned reaches to {layout.horizon:g}.",
        )
    values = values.movedim(2, -1)
    if asked.on_grid:
        values = values.unflatten(2, [len(axis) for axis in asked.target.values()])
    state, attrs = asked.state, {"model": name, **start_time(asked.state, layout.time_unit)}
    units = {name: state[name].attrs.get("units", unit) for name, unit in layout.variables.items()}
    forecast = to_dataset(
        values, layout.space, units, asked.target, asked.times, time_unit=layout.time_unit, attrs=attrs
    )
    labels = {"sample": np.atleast_1d(state["sample"].values)} if "sample" in state.coords else {}
    return forecast.assign_coords(labels)
