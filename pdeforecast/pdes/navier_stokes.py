"""Forced two-dimensional Navier–Stokes flow on the unit torus, in vorticity form.

    ∂t ω + u·∇ω = ν ∇²ω + f,      u = (∂y ψ, −∂x ψ),      −∇²ψ = ω

with the steady forcing f = A (cos 4π(x − a) + cos 4π(y − b)). What you will see: vortices are
stretched into filaments, the forcing keeps feeding four cells, and small errors grow about
fourfold in five time units.

Symmetries: F(g·ω, g·f) = g·F(ω, f) for every translation and quarter turn g; a reflection also
turns the sign of ω and f. Length and time are dimensionless.

Thinner fluids need more points. Ten time units after the random field, the vorticity on 64 × 64 points errs
(relative L2, against 256² points at ν = 1e-4 and 512² at 1e-5) with a solver of

    points per axis       64      128      256
    ν = 1e-4            2e-2     3e-4
    ν = 1e-5            8e-2     2e-2     6e-4

and at ν = 1e-3 64 points agree with 256 to 1e-6.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pdeforecast.pdes.base import PDE, State, generator
from pdeforecast.solvers.stepping import integrate
from pdeforecast.solvers.torus import Torus, check_axes, resample

_COURANT = 2.0
"""The largest speed · wave number · step; the method is stable to about 2.8."""


@dataclass(frozen=True)
class NavierStokes(PDE):
    """Navier–Stokes on T² and the distribution of its initial states.

    Attributes:
        viscosity: ν, in length²/time.
        forcing: the amplitude A of f, in 1/time².
        phase_x: a, in [0, 1).
        phase_y: b, in [0, 1).
        resolution: grid points per axis.
        solver_resolution: the least points per axis of the solver; 0: 128 for ν < 1e-3, 256 for ν < 1e-4.
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
    solver_resolution: int = 0
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
        self.at_least("solver_resolution", 0)
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
        fine = replace(self, resolution=self._solver_points(self.resolution))
        field = resample(torch.fft.ifft2(noise * power).real, fine.resolution)
        (spun_up,) = fine.solve({"vorticity": field, **fine.static()}, [self.spin_up])
        return {"vorticity": resample(spun_up["vorticity"], self.resolution), **self.static()}

    def solve(
        self, state: State, times: Sequence[float], axes: Mapping[str, Tensor] | None = None
    ) -> Iterator[State]:
        """Pseudo-spectral in space (2/3 dealiasing), ETDRK4 in time, float64.

        A step on which fast flow would be unstable is halved; `step` is for accuracy.

        Args:
            axes: nodes 1/n apart along each axis, of any offset.
        """
        if axes is not None:
            check_axes(axes)
        vorticity, forcing = state["vorticity"].double(), state["forcing"].double()
        shape = vorticity.shape[-2:]
        rows, columns = (self._solver_points(n) for n in shape)
        torus = Torus(rows, columns, vorticity.device)
        dealias = torus.alias_free(2)
        source = torus.transform(resample(forcing, rows, columns))
        gradient = torch.stack([torus.dx, torus.dy])
        velocity = torch.stack([-torus.dy, torus.dx]) * torus.inverse_laplacian
        highest = 2 * math.pi * max(rows, columns) / 3

        def nonlinear(w: Tensor) -> Tensor:
            grids = torus.inverse(torch.cat([velocity, gradient]) * w[..., None, :, :])
            u, v, wx, wy = grids.unbind(-3)
            return source - dealias * torus.transform(u * wx + v * wy)

        def longest(w: Tensor) -> float:
            speed = float(torus.inverse(velocity * w[..., None, :, :]).abs().sum(-3).max())
            return _COURANT / (speed * highest) if speed > 0 else math.inf

        start = torus.transform(resample(vorticity, rows, columns))
        rate = self.viscosity * torus.laplacian
        for spectrum in integrate(start, rate, nonlinear, times, self.step, longest):
            yield {"vorticity": resample(torus.inverse(spectrum), *shape), "forcing": state["forcing"]}

    def _solver_points(self, points: int) -> int:
        needed = 1 if self.viscosity >= 1e-3 else 128 if self.viscosity >= 1e-4 else 256
        return max(points, self.solver_resolution or needed)
