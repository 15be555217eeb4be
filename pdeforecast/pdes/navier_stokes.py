"""Forced two-dimensional Navier–Stokes flow on the unit torus, in vorticity form.

    ∂t ω + u·∇ω = ν ∇²ω + f,      u = (∂y ψ, −∂x ψ),      −∇²ψ = ω

with the steady forcing f = A (cos 4π(x − a) + cos 4π(y − b)). What you will see: vortices are
stretched into filaments, the forcing keeps feeding four cells, and small errors grow about
fourfold in five time units.

Symmetries: F(g·ω, g·f) = g·F(ω, f) for every translation and quarter turn g; a reflection also
turns the sign of ω and f. Length and time are dimensionless.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pdeforecast.pdes.base import PDE, State, generator
from pdeforecast.solvers.stepping import integrate
from pdeforecast.solvers.torus import Torus, resample


@dataclass(frozen=True)
class NavierStokes(PDE):
    """Navier–Stokes on T² and the distribution of its initial states.

    Attributes:
        viscosity: ν, in length²/time.
        forcing: the amplitude A of f, in 1/time².
        phase_x: a, in [0, 1).
        phase_y: b, in [0, 1).
        resolution: grid points per axis.
        spin_up: the time that passes between the random field and t = 0.
        frames: frames per trajectory.
        interval: time between frames.
        step: the longest time step of the solver.
    """

    viscosity: float = 1e-3
    forcing: float = 0.3
    phase_x: float = 0.0
    phase_y: float = 0.0
    resolution: int = 64
    spin_up: float = 28.5
    frames: int = 20
    interval: float = 1.0
    step: float = 0.04

    name = "navier-stokes"
    geometry = "periodic_plane"
    variables = ("vorticity",)
    statics = ("forcing",)
    units: ClassVar[Mapping[str, str]] = {"vorticity": "1", "forcing": "1"}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least("viscosity", 0)
        self.at_least("resolution", 8)
        self.at_least("spin_up", 0)
        self.above_zero("step")

    def coordinates(self) -> dict[str, Tensor]:
        """The nodes i/n of each axis; the end point belongs to the next period."""
        axis = torch.arange(self.resolution, dtype=torch.float64) / self.resolution
        return {"y": axis, "x": axis}

    def static(self) -> State:
        """The forcing f on the grid."""
        c = self.coordinates()
        y, x = c["y"][:, None], c["x"][None, :]
        wave = torch.cos(4 * math.pi * (x - self.phase_x)) + torch.cos(4 * math.pi * (y - self.phase_y))
        return {"forcing": self.forcing * wave}

    def initial(self, seed: int, split: str, index: int) -> State:
        """The state at t = 0: a Gaussian random field, spun up for `spin_up` time units.

        The spectrum is 64² √2 σ (4π²|k|² + τ²)^(−α/2), α = 2.5, τ = 7, σ = τ^(α−1), times a complex
        normal number of unit variance per mode, drawn on 64² modes at every resolution.
        """
        modes, alpha, tau = 64, 2.5, 7.0
        k = 2 * math.pi * torch.fft.fftfreq(modes, 1 / modes, dtype=torch.float64)
        power = (k[:, None] ** 2 + k[None, :] ** 2 + tau**2) ** (-alpha / 2)
        power = modes**2 * math.sqrt(2) * tau ** (alpha - 1) * power
        power[0, 0] = 0
        noise = torch.randn(
            modes, modes, dtype=torch.complex128, generator=generator(self.name, seed, split, index)
        )
        field = resample(torch.fft.ifft2(noise * power).real, self.resolution)
        start = {"vorticity": field, **self.static()}
        return list(self.solve(start, [self.spin_up]))[-1]

    def solve(
        self, state: State, times: Sequence[float], axes: Mapping[str, Tensor] | None = None
    ) -> Iterator[State]:
        """Pseudo-spectral in space (2/3 dealiasing), Lawson's RK4 in time, float64."""
        vorticity, forcing = state["vorticity"].double(), state["forcing"].double()
        torus = Torus(vorticity.shape[-1], vorticity.device)
        source = torus.transform(forcing)
        gradient = torch.stack([torus.dx, torus.dy])
        velocity = torch.stack([-torus.dy, torus.dx]) * torus.inverse_laplacian

        def nonlinear(w: Tensor) -> Tensor:
            grids = torus.inverse(torch.cat([velocity, gradient]) * w[..., None, :, :])
            u, v, wx, wy = grids.unbind(-3)
            return source - torus.dealias * torus.transform(u * wx + v * wy)

        start = torus.transform(vorticity)
        for spectrum in integrate(start, self.viscosity * torus.laplacian, nonlinear, times, self.step):
            yield {"vorticity": torus.inverse(spectrum), "forcing": state["forcing"]}
