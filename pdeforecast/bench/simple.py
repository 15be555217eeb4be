"""Baselines that are not trained: what they know is a mean, a covariance, or the equation itself.

    persistence         the state, for ever
    climatology         the mean over samples and frames of the training trajectories
    kriging + solver    the state, kriged where it has gaps, then the equation's own solver
    interpolated        another method's forecast on the training grid, by spectral interpolation anywhere

Gaps and loose sensors are filled by kriging (`kriging.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import xarray as xr
from torch import Tensor

from pdeforecast.bench.contract import Axes, Layout, Request, answer, gridded, layout_of, request
from pdeforecast.bench.harmonics import resample
from pdeforecast.bench.kriging import Filling
from pdeforecast.pdes import PDE
from pdeforecast.trajectory import to_dataset


@dataclass(frozen=True)
class Persistence:
    """Nothing changes."""

    filling: Filling
    name: str = "persistence"

    def forecast(
        self,
        state: xr.Dataset,
        lead_time: Sequence[float],
        grid: Mapping[str, int] | None = None,
        like: xr.Dataset | None = None,
    ) -> xr.Dataset:
        """As `Method.forecast`."""
        asked = request(self.filling.layout, state, lead_time, grid, like)
        axes = self.filling.start_axes(asked)
        start = self.filling.read(asked, axes)
        values = at_target(self.filling.layout, start[:, None], axes, asked)
        return answer(self.filling.layout, asked, values.expand(-1, len(asked.times), -1, -1), self.name)


@dataclass(frozen=True)
class Climatology:
    """It is always as it is on average.

    Attributes:
        mean: (V, *grid), on the training grid.
    """

    layout: Layout
    mean: Tensor
    name: str = "climatology"

    def forecast(
        self,
        state: xr.Dataset,
        lead_time: Sequence[float],
        grid: Mapping[str, int] | None = None,
        like: xr.Dataset | None = None,
    ) -> xr.Dataset:
        """As `Method.forecast`."""
        asked = request(self.layout, state, lead_time, grid, like)
        values = at_target(self.layout, self.mean[None, None], self.layout.axes, asked)
        shape = (len(asked.seen.values), len(asked.times), -1, -1)
        return answer(self.layout, asked, values.expand(shape), self.name)


@dataclass(frozen=True)
class KrigedSolution:
    """The equation's own solution from the kriged state: the floor for sparse observations."""

    filling: Filling
    pde: PDE
    name: str = "kriging + solver"

    def forecast(
        self,
        state: xr.Dataset,
        lead_time: Sequence[float],
        grid: Mapping[str, int] | None = None,
        like: xr.Dataset | None = None,
    ) -> xr.Dataset:
        """As `Method.forecast`; solved on the grid of the state, for loose sensors on the training grid."""
        layout = self.filling.layout
        asked = request(layout, state, lead_time, grid, like)
        axes = self.filling.start_axes(asked)
        ascending = {name: axis.sort().values for name, axis in axes.items()}
        fields = zip(layout.variables, self.filling.read(asked, ascending).unbind(1), strict=True)
        statics = self.filling.read_statics(asked, ascending)
        count = len(asked.seen.values)
        start = dict(fields) | {
            name: statics[:, i].expand(count, *layout_shape(ascending))
            for i, name in enumerate(layout.statics)
        }
        order = sorted(set(asked.times))
        frames = [
            torch.stack([frame[name] for name in layout.variables], dim=1)
            for frame in self.pde.solve(start, order, ascending)
        ]
        values = torch.stack([frames[order.index(t)] for t in asked.times], dim=1)
        return answer(layout, asked, at_target(layout, values, ascending, asked), self.name)


class _Forecasts(Protocol):
    name: str

    def forecast(
        self, state: xr.Dataset, lead_time: Sequence[float], grid: None = None, like: xr.Dataset | None = None
    ) -> xr.Dataset: ...


@dataclass(frozen=True)
class Interpolated:
    """A method that forecasts on the training grid, and spectral interpolation to all other places."""

    layout: Layout
    method: _Forecasts

    @property
    def name(self) -> str:
        """Of the method, with a note."""
        return f"{self.method.name}, interpolated"

    def forecast(
        self,
        state: xr.Dataset,
        lead_time: Sequence[float],
        grid: Mapping[str, int] | None = None,
        like: xr.Dataset | None = None,
    ) -> xr.Dataset:
        """As `Method.forecast`."""
        layout, axes = self.layout, self.layout.axes
        asked = request(layout, state, lead_time, grid, like)
        empty = to_dataset(torch.empty(1, 1, *layout_shape(axes), 0), layout.space, {}, axes, [0.0])
        found = self.method.forecast(state, lead_time, like=empty)
        dims = ("sample", "lead_time", *axes)
        fields = [torch.from_numpy(found[name].transpose(*dims).values) for name in layout.variables]
        return answer(layout, asked, at_target(layout, torch.stack(fields, dim=2), axes, asked), self.name)


def at_target(layout: Layout, values: Tensor, axes: Axes, asked: Request) -> Tensor:
    """Fields (S, T, V, *grid) at the points (S, T, V, M) of a request, by spectral interpolation."""
    if asked.on_grid:
        return resample(layout.space, values, axes, asked.target).flatten(3)
    return resample(layout.space, values, axes, asked.points)


def layout_shape(axes: Axes) -> list[int]:
    """The number of nodes along each axis."""
    return [len(axis) for axis in axes.values()]


def climatology(training: xr.Dataset) -> Climatology:
    """The mean of trajectories on a full grid.

    Raises:
        DataError: if they are not on one, or have gaps.
    """
    layout = layout_of(training)
    return Climatology(layout, gridded(training, layout)[0].double().mean((0, 1)))
