"""Diffusion of heat in a square with insulating walls.

    ∂t u = D ∇²u on [−3, 3]²,      ∂n u = 0 at the walls

from a point source of mass M at (x0, y0). What you will see: one round bump that widens, leans on the
nearest wall and slowly fills the square.

Closed form: the walls act as mirrors. Along each axis the source and its images, at x0 + 12 j and
6 − x0 + 12 j for all integers j, spread as Gaussians of variance 2Dt; u is M times the product of both sums.

Symmetries: those of the square, F(g·u) = g·F(u) for quarter turns and mirrors. The mean of u is
conserved. Length and time are dimensionless.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pdeforecast.errors import UsageError
from pdeforecast.pdes.base import PDE, State, generator
from pdeforecast.solvers.interval import Interval

_WALL = 3.0


@dataclass(frozen=True)
class DiffusionPlane(PDE):
    """Heat in a square and the distribution of its point sources.

    The sources of the split `test` are in the mirrored half, y0 ~ U[−y_most, −y_least]: a test of
    symmetry, not of memory. All other splits have y0 ~ U[y_least, y_most].

    Attributes:
        diffusivity: D, in length²/time.
        mass_least: the least mass M of a source, in temperature · length².
        mass_most: the largest mass M of a source, in temperature · length².
        x_most: the largest |x0| of a source, in length; the wall is at 3.
        y_least: the least y0 of a source, in length.
        y_most: the largest y0 of a source, in length.
        resolution: grid points (centres of cells) per axis.
        start: the time of the first frame after the point source.
        frames: frames per trajectory.
        interval: time between frames.
    """

    diffusivity: float = 0.1
    mass_least: float = 5.0
    mass_most: float = 5.5
    x_most: float = 2.0
    y_least: float = 0.0
    y_most: float = 2.0
    resolution: int = 64
    start: float = 3.5
    frames: int = 20
    interval: float = 0.5

    name = "diffusion-plane"
    geometry = "plane"
    variables = ("temperature",)
    statics = ()
    units: ClassVar[Mapping[str, str]] = {"temperature": "1"}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("diffusivity", "start"):
            self.above_zero(name)
        self.at_least("resolution", 4)
        self.at_least("mass_most", self.mass_least)
        self.at_least("x_most", 0)
        self.at_least("y_least", -_WALL)
        self.at_least("y_most", self.y_least)
        for name in ("x_most", "y_most"):
            if getattr(self, name) > _WALL:
                raise UsageError(
                    f"expected {name} ≤ {_WALL:g}, the wall; came {getattr(self, name)}.",
                    f"Type `--set {name}=2`.",
                )

    def times(self) -> list[float]:
        return [self.start + self.interval * i for i in range(self.frames)]

    def coordinates(self) -> dict[str, Tensor]:
        """The centres of equal cells."""
        cells = torch.arange(self.resolution, dtype=torch.float64)
        axis = _WALL * ((2 * cells + 1) / self.resolution - 1)
        return {"y": axis, "x": axis}

    def initial(self, seed: int, split: str, index: int) -> State:
        """The state at `start`, exactly: M, x0 and y0 are uniform, the source is as old as `start`."""
        draw = torch.rand(3, dtype=torch.float64, generator=generator(self.name, seed, split, index)).tolist()
        mass = self.mass_least + (self.mass_most - self.mass_least) * draw[0]
        x0 = self.x_most * (2 * draw[1] - 1)
        y0 = self.y_least + (self.y_most - self.y_least) * draw[2]
        return {"temperature": self.source(mass, x0, -y0 if split == "test" else y0, self.start)}

    def source(self, mass: float, x0: float, y0: float, time: float) -> Tensor:
        """The closed form on the grid: the temperature at `time` after a point source at (x0, y0)."""
        axes = self.coordinates()
        variance = 2 * self.diffusivity * time
        return (
            mass
            * _between_mirrors(axes["y"], y0, variance)[:, None]
            * _between_mirrors(axes["x"], x0, variance)
        )

    def solve(
        self, state: State, times: Sequence[float], axes: Mapping[str, Tensor] | None = None
    ) -> Iterator[State]:
        """Exact in time; in space, exact for the cosine series through the nodes.

        Args:
            axes: centres of equal cells, or equal steps from wall to wall, as many as wanted along each axis.
        """
        temperature = state["temperature"].double()
        nodes = self.coordinates() if axes is None else axes
        grid = {
            dim: Interval(nodes[name].to(temperature.device), -_WALL, _WALL)
            for name, dim in (("y", -2), ("x", -1))
        }
        for time in times:
            field = temperature
            for dim, interval in grid.items():
                damping = torch.exp(-self.diffusivity * time * interval.wavenumbers**2)
                field = interval.multiply(field, damping, dim)
            yield {"temperature": field}


def _between_mirrors(x: Tensor, x0: float, variance: float) -> Tensor:
    """The Gaussian about x0 and its images in walls at ±3, whose integral between the walls is 1."""
    period = 4 * _WALL
    count = 1 + math.ceil(10 * math.sqrt(variance) / period)
    shifts = period * torch.arange(-count, count + 1, dtype=torch.float64)
    sources = torch.cat([x0 + shifts, 2 * _WALL - x0 + shifts])
    gaussians = torch.exp(-((x[:, None] - sources) ** 2) / (2 * variance))
    return gaussians.sum(-1) / math.sqrt(2 * math.pi * variance)
