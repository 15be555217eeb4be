"""Convection of an internally heated fluid in the unit ball, in the Boussinesq approximation.

    ∇·u = 0
    ∂t u + (∇×u)×u = −∇p + ν ∇²u + r T            ν = (Ra/Pr)^−½
    ∂t T + u·∇T = κ ∇²T + 6κ                       κ = (Ra Pr)^−½

with the position vector r: hot fluid rises. The wall r = 1 is free of stress, u_r = 0, and lets out
the heat that is made inside, ∂r T = −2; fluid at rest with T = 1 − r² is a steady state. What you will
see: the noise of the initial state is smoothed, then the heavier fluid under the wall sinks in
narrow plumes that fold around each other, after t ≈ 4 finer than 24 modes can show.

The temperature alone does not determine the future. A flow without divergence is determined by two
fields that turn with the ball as temperature does and have no singularity at poles or centre:
`radial_velocity`, r·u, and `radial_vorticity`, r·∇×u (with the position vector, not its direction). Where a
state lacks them, the fluid is at rest.

Symmetries: F(g·T, g·u) = g·F(T, u) for every rotation g about the centre; a reflection also turns the
sign of the radial vorticity. The mean of T is conserved. Length is in radii of the ball, time in units
of free fall, all dimensionless.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from pdeforecast.pdes.base import PDE, State, generator
from pdeforecast.solvers.ball import Ball, BallGrid, cross, gauss_axes, resize
from pdeforecast.solvers.stepping import integrate

_COURANT = 2.0
"""The largest speed · modes · step; the method is stable to about 3."""


@dataclass(frozen=True)
class Convection(PDE):
    """Internally heated convection in the ball and the distribution of its initial states.

    Attributes:
        rayleigh: the Rayleigh number Ra, dimensionless.
        prandtl: the Prandtl number Pr, dimensionless.
        noise: the standard deviation of the initial noise per grid value, in units of temperature.
        resolution: radii and latitudes of the grid (Gauss nodes), and half its longitudes.
        modes: degrees of spherical harmonics, and radial functions, of the solver.
        start: the time of the first frame after the noise.
        frames: frames per trajectory.
        interval: time between frames.
        step: the longest time step of the solver.
    """

    rayleigh: float = 1e6
    prandtl: float = 1.0
    noise: float = 0.1
    resolution: int = 24
    modes: int = 40
    start: float = 3.0
    frames: int = 14
    interval: float = 0.2
    step: float = 0.2

    name = "convection"
    geometry = "ball"
    variables = ("temperature", "radial_velocity", "radial_vorticity")
    statics = ()
    units: ClassVar[Mapping[str, str]] = dict.fromkeys(variables, "1")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rayleigh", "prandtl", "step"):
            self.above_zero(name)
        for name in ("noise", "start"):
            self.at_least(name, 0)
        for name in ("resolution", "modes"):
            self.at_least(name, 4)

    def times(self) -> list[float]:
        return [self.start + self.interval * i for i in range(self.frames)]

    def coordinates(self) -> dict[str, Tensor]:
        """Gauss nodes in radius (none at the centre or the wall) and latitude; even longitudes from 0."""
        return gauss_axes(self.resolution)

    def initial(self, seed: int, split: str, index: int) -> State:
        """The state at `start`: rest, and 1 − r² with noise, left to itself until then.

        The noise is normal at each of 24 × 24 × 48 nodes at every resolution; half the modes, those of
        degree l < 12 and of degree < 24 in r, are kept. The state has only what the grid can hold.
        """
        axes, coarse = gauss_axes(24), 12
        noise = self.noise * torch.randn(
            24, 24, 48, dtype=torch.float64, generator=generator(self.name, seed, split, index)
        )
        smooth = resize(BallGrid(axes, 24).analysis(noise), coarse)
        axes = self.coordinates()
        field = 1 - axes["radius"][:, None, None] ** 2 + BallGrid(axes, coarse).synthesis(smooth)
        (spun_up,) = self.solve({"temperature": field}, [self.start])
        (held,) = replace(self, modes=self.resolution).solve(spun_up, [0.0])
        return held

    def solve(
        self, state: State, times: Sequence[float], axes: Mapping[str, Tensor] | None = None
    ) -> Iterator[State]:
        """Galerkin in space (`solvers/ball.py`, dealiased), ETDRK4 in time, float64.

        The unknown is T − (1 − r²), which has no flux at the wall and no source. With 24 modes a step of 0.1
        errs in T by 2e-7 (relative) at t = 2 and 2e-6 at t = 4. A step on which fast flow would be unstable
        is halved; `step` is for accuracy.

        Args:
            axes: Gauss radii and latitudes hold as many modes as nodes; centres of equal cells as many
                latitudes, but half as many radial functions. Longitudes must be even.
        """
        temperature = state["temperature"].double()
        device = temperature.device
        nodes = {name: axis.to(device) for name, axis in (axes or self.coordinates()).items()}
        conduction = 1 - nodes["radius"].double()[:, None, None] ** 2
        rest = torch.zeros_like(temperature)
        flow = [state.get(name, rest).double() for name in self.variables[1:]]
        grid, ball = BallGrid(nodes, self.modes), Ball(self.modes, device)

        # A step asks for the fields of its first state twice. (Tensors are hashed by identity.)
        fields = lru_cache(maxsize=1)(ball.fields)

        def longest(a: Tensor) -> float:
            speed = float(torch.stack(fields(a)[1]).norm(dim=0).max())
            return _COURANT / (speed * self.modes) if speed > 0 else math.inf

        def nonlinear(a: Tensor) -> Tensor:
            excess, u, vorticity = fields(a)
            hot = excess + (1 - ball.radius**2)
            up, south, east = cross(u, vorticity)
            flux = ball.project_gradient((hot * u[0], hot * u[1], hot * u[2]))
            flow = ball.project_flow((up + ball.radius * hot, south, east))
            return torch.cat([flux[..., None, :, :, :], flow], dim=-4)

        diffusivity = (self.rayleigh * self.prandtl) ** -0.5
        viscosity = (self.rayleigh / self.prandtl) ** -0.5
        coefficients = ball.rates.new_tensor([diffusivity, viscosity, viscosity])[:, None, None, None]
        begin = ball.amplitudes(grid.analysis(torch.stack([temperature - conduction, *flow], dim=-4)))
        for a in integrate(begin, -coefficients * ball.rates, nonlinear, times, self.step, longest):
            excess, velocity, vorticity = grid.synthesis(ball.coefficients(a)).unbind(-4)
            yield {
                "temperature": excess + conduction,
                "radial_velocity": velocity,
                "radial_vorticity": vorticity,
            }
