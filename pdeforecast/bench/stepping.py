"""Forecasting on a grid, a frame at a time: what neural operators on all spaces have in common.

    u(t + Δ) = u(t) + δ G((u(t) − μ)/σ, (f − μ_f)/σ_f),        Δ the interval of the training frames

with the variables u, the static fields f, their means μ and standard deviations σ, and the standard
deviation δ of what changes in one frame. Trained on windows of trajectories; the horizon of the free
rollout in the loss, which is the square error in units of δ, weighted by area, grows. Times between
frames are read from the cubic through the nearest four. Gaps and loose sensors are filled by kriging
(`kriging.py`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import xarray as xr
from torch import Generator, Tensor, nn

from pdeforecast.bench.contract import Axes, Layout, answer, gridded, request
from pdeforecast.bench.harmonics import same_axes
from pdeforecast.bench.kriging import Filling
from pdeforecast.bench.simple import at_target, layout_shape
from pdeforecast.bench.training import Learner, Settings
from pdeforecast.errors import DataError
from pdeforecast.trajectory import default_axes

_TOGETHER = 8
"""States that are stepped at once."""


@dataclass(frozen=True)
class SteppingSettings(Settings):
    """What operators that step frame by frame ask for.

    Attributes:
        horizons: shares of the steps after which the rollout in the loss has 1, 2, 4, … frames.
        attitudes: 4 trains on fields in all quarter turns, 8 on their reflections as well, which turn the
            sign (of what turns about an axis); 1 on fields as they are.
    """

    rate: float = 6e-3
    horizons: tuple[float, ...] = (0.0, 0.6, 0.9)
    attitudes: int = 1

    def horizon(self, progress: float, longest: int) -> int:
        """The number of rollout steps in the loss after a share `progress` of the steps."""
        reached = sum(progress >= share for share in self.horizons)
        return min(longest, 2 ** (reached - 1))


@dataclass(frozen=True)
class Frames:
    """Trajectories on a grid.

    Attributes:
        values: (S, T, V, *grid).
        statics: (1 or S, P, *grid).
        weights: of the nodes, of mean 1, (*grid).
    """

    values: Tensor
    statics: Tensor
    weights: Tensor


def frames_of(ds: xr.Dataset, layout: Layout, device: str) -> Frames:
    """Training data on a full grid, at even times.

    Raises:
        DataError: if it is otherwise.
    """
    if layout.interval == 0:
        raise DataError(
            "expected frames at even times; these are not.", "Choose even ones: `ds.isel(time=[…])`."
        )
    values, statics = gridded(ds, layout)
    weights = layout.space.weights(layout.axes)
    return Frames(*(t.to(device) for t in (values, statics, (weights / weights.mean()).float())))


class Stepper(Learner):
    """One frame of all variables.

    Args:
        operator: (B, V + P, *grid) → (B, V, *grid), of fields of unit variance.
    """

    mean: Tensor
    scale: Tensor
    change: Tensor
    static_mean: Tensor
    static_scale: Tensor

    def __init__(self, operator: nn.Module, config: SteppingSettings, layout: Layout) -> None:
        super().__init__()
        self.operator, self.config = operator, config
        rank = len(layout.nodes)
        variables = torch.ones(len(layout.variables), *[1] * rank)
        statics = torch.ones(len(layout.statics), *[1] * rank)
        for name, value in (
            ("mean", 0 * variables),
            ("scale", variables),
            ("change", variables),
            ("static_mean", 0 * statics),
            ("static_scale", statics),
        ):
            self.register_buffer(name, value.clone())

    def calibrate(self, data: Frames) -> None:
        change = data.values[:, 1:] - data.values[:, :-1]
        for name, values in (("scale", data.values), ("change", change), ("static_scale", data.statics)):
            moved = values.movedim(-self.mean.ndim, 0).flatten(1)
            if not moved.numel():
                continue
            spread = moved.double().std(1).float() if moved.shape[1] > 1 else moved.new_ones(len(moved))
            getattr(self, name).copy_(torch.where(spread > 0, spread, 1.0).view_as(getattr(self, name)))
            if name != "change":
                centre = moved.double().mean(1).float()
                target = self.mean if name == "scale" else self.static_mean
                target.copy_(centre.view_as(target))

    def forward(self, values: Tensor, statics: Tensor) -> Tensor:
        """The next frame (B, V, *grid) of values and static fields (B or 1, P, *grid)."""
        around = ((statics - self.static_mean) / self.static_scale).expand(len(values), *statics.shape[1:])
        inputs = torch.cat([(values - self.mean) / self.scale, around], dim=1)
        return values + self.change * self.operator(inputs)

    def loss(self, data: Frames, draw: Generator, progress: float) -> Tensor:
        samples, frames = data.values.shape[:2]
        horizon = self.config.horizon(progress, frames - 1)
        sample = torch.randint(samples, (self.config.batch,), generator=draw)
        first = torch.randint(frames - horizon, (self.config.batch,), generator=draw)
        attitude = torch.randint(self.config.attitudes, (), generator=draw).item()
        at = first[:, None] + torch.arange(horizon + 1)
        window = turned(data.values[sample[:, None], at], int(attitude))
        statics = turned(data.statics[sample if len(data.statics) > 1 else slice(None)], int(attitude))
        state, losses = window[:, 0], []
        for step in range(horizon):
            state = self(state, statics)
            error = (state - window[:, step + 1]) / self.change
            losses.append((data.weights * error.square()).mean())
        return torch.stack(losses).mean()


def turned(fields: Tensor, attitude: int) -> Tensor:
    """Fields (…, y, x) after a quarter turn (attitude % 4 times) and a reflection that turns signs (≥ 4)."""
    fields = fields.rot90(attitude % 4, (-2, -1)) if attitude else fields
    return -fields.transpose(-2, -1) if attitude >= 4 else fields


@dataclass(frozen=True)
class Stepped:
    """A trained stepper as a method.

    Attributes:
        name: of the method.
        stepper: a frame at a time.
        filling: how states are read.
        free_grid: whether it steps on a finer grid than that of its training if one is asked for.
        identity: its name and hash.
        card: what is known of data and training.
    """

    name: str
    stepper: Stepper
    filling: Filling
    free_grid: bool = False
    identity: str = ""
    card: Mapping[str, Any] = field(default_factory=dict)

    @torch.inference_mode()
    def forecast(
        self,
        state: xr.Dataset,
        lead_time: Sequence[float],
        grid: Mapping[str, int] | None = None,
        like: xr.Dataset | None = None,
    ) -> xr.Dataset:
        """As `Method.forecast`."""
        layout = self.filling.layout
        asked = request(layout, state, lead_time, grid, like)
        axes = self._axes(asked.target if asked.on_grid else {})
        device = self.stepper.mean.device
        start, statics = (
            fields.float().to(device)
            for fields in (self.filling.read(asked, axes), self.filling.read_statics(asked, axes))
        )
        count = max(3, math.ceil(max(asked.times) / layout.interval - 1e-9))
        parts = zip(
            start.split(_TOGETHER),
            statics.expand(len(start), *statics.shape[1:]).split(_TOGETHER),
            strict=True,
        )
        path = torch.cat([self._rolled(part, around, count) for part, around in parts])
        values = torch.stack([between(path, time / layout.interval) for time in asked.times], dim=1)
        return answer(layout, asked, at_target(layout, values.cpu(), axes, asked), self.name)

    def _axes(self, target: Axes) -> Axes:
        layout, own = self.filling.layout, self.filling.layout.axes
        sizes = dict(zip(target, layout_shape(target), strict=True))
        if self.free_grid and list(target) == list(own) and all(sizes[n] >= len(own[n]) for n in own):
            even = {n: torch.as_tensor(axis) for n, axis in default_axes(layout.space, sizes).items()}
            if same_axes(even, target):
                return even
        return own

    def _rolled(self, start: Tensor, statics: Tensor, count: int) -> Tensor:
        frames = [start]
        for _ in range(count):
            frames.append(self.stepper(frames[-1], statics))
        return torch.stack(frames, dim=1)


def between(frames: Tensor, time: float) -> Tensor:
    """`frames` (S, T, …) at any time in units of their interval: the cubic through the nearest four."""
    if abs(time - round(time)) < 1e-9:
        return frames[:, round(time)]
    first = min(max(math.floor(time) - 1, 0), frames.shape[1] - 4)
    nodes = range(first, first + 4)
    weights = [math.prod((time - b) / (a - b) for b in nodes if b != a) for a in nodes]
    return torch.einsum("t,st...->s...", frames.new_tensor(weights), frames[:, first : first + 4])
