"""The Cahn–Hilliard equation on the torus: a mixture of two substances comes apart.

    ∂t c = ∇²(c³ − c − ∇²c)

c = ±1 are the pure phases. What you will see: noise about the mean is smoothed, waves of a length near 9
grow into drops or a maze with walls of width √2, and the larger drops then grow slowly at the cost of the
smaller. The free energy ∫ ¼(c² − 1)² + ½|∇c|² never increases, and the mean of c is conserved.

Symmetries: F(g·c) = g·F(c) for every translation, quarter turn and mirror g, and F(−c) = −F(c). Lengths
are in units of √κ (the coefficient of |∇c|² is ½κ), the period has `length` of them, and coordinates count
periods: x, y in [0, 1). At 64 points for a period of 64, as by default, a unit is one cell. Time is in
units of κ over the mobility.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pdeforecast.pdes.base import PDE, State, generator
from pdeforecast.solvers.stepping import integrate
from pdeforecast.solvers.torus import Torus, check_axes, resample


@dataclass(frozen=True)
class CahnHilliard(PDE):
    """Phase separation on T² and the distribution of its initial states.

    Attributes:
        length: the period, in units of √κ.
        mean_most: the largest |mean| of c, dimensionless; noise grows if it is below 0.577.
        noise: the standard deviation of the initial noise at each of 64 × 64 points, dimensionless.
        resolution: grid points per axis.
        spin_up: the time that passes between the noise and the first frame.
        frames: frames per trajectory.
        interval: time between frames.
        step: the longest time step of the solver.
    """

    length: float = 64.0
    mean_most: float = 0.3
    noise: float = 0.05
    resolution: int = 64
    spin_up: float = 40.0
    frames: int = 20
    interval: float = 5.0
    step: float = 0.125

    name = "cahn-hilliard"
    geometry = "periodic_plane"
    variables = ("concentration",)
    statics = ()
    units: ClassVar[Mapping[str, str]] = {"concentration": "1"}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("length", "step"):
            self.above_zero(name)
        for name in ("mean_most", "noise", "spin_up"):
            self.at_least(name, 0)
        self.at_least("resolution", 8)

    def coordinates(self) -> dict[str, Tensor]:
        """The nodes i/n of each axis; the end point belongs to the next period."""
        axis = torch.arange(self.resolution, dtype=torch.float64) / self.resolution
        return {"y": axis, "x": axis}

    def initial(self, seed: int, split: str, index: int) -> State:
        """The state at the first frame: a mean ~ U[−mean_most, mean_most] with noise, left to itself.

        The noise is normal at each of 64 × 64 points at every resolution.
        """
        random = generator(self.name, seed, split, index)
        mean = self.mean_most * (2 * torch.rand((), dtype=torch.float64, generator=random) - 1)
        noise = self.noise * torch.randn(64, 64, dtype=torch.float64, generator=random)
        start = {"concentration": resample(mean + noise, self.resolution)}
        return list(self.solve(start, [self.spin_up]))[-1]

    def solve(
        self, state: State, times: Sequence[float], axes: Mapping[str, Tensor] | None = None
    ) -> Iterator[State]:
        """Galerkin in space (all modes of the grid, their cube without aliasing), ETDRK4 in time, float64.

        ∇⁴ is the stiff part; c³ − c, whose growth and decay balance inside the phases, is the other.

        Args:
            axes: nodes 1/n apart along each axis, of any offset.
        """
        if axes is not None:
            check_axes(axes)
        concentration = state["concentration"].double()
        rows, columns = concentration.shape[-2:]
        torus = Torus(2 * rows, 2 * columns, concentration.device)
        laplacian = torus.laplacian / self.length**2
        outward = torus.alias_free(3) * laplacian

        def nonlinear(spectrum: Tensor) -> Tensor:
            c = torus.inverse(spectrum)
            return outward * torus.transform(c**3 - c)

        start = torus.transform(resample(concentration, 2 * rows, 2 * columns))
        for spectrum in integrate(start, -(laplacian**2), nonlinear, times, self.step):
            yield {"concentration": resample(torus.inverse(spectrum), rows, columns)}
