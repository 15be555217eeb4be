"""Shallow water on a rotating planet: a jet that a bump makes break into eddies.

    ∂t ζ = −∇·((ζ + f) u) + D₁ζ
    ∂t δ = k·∇×((ζ + f) u) − ∇²(g h + |u|²/2) + D₁δ
    ∂t h = −H δ − ∇·(h u) + D₀h

with the vorticity ζ and the divergence δ of the wind u, the height h above the mean depth H, and
f = 2Ω sin φ at latitude φ. D₀ = −ν∇⁴, and D₁ is −ν∇⁴ of the wind, which is −ν (∇² + 1/R²)² of its
vorticity and divergence. The mean of h is conserved.

The initial state is a balanced zonal jet in northern mid-latitudes with a bump of height in it. What you will
see: gravity waves leave the bump; after four days the jet meanders, rolls up into vortices and draws out
filaments around the whole circle of latitude. The state at 100 hours is the first frame.

Symmetries: rotations about the axis; the mirror at the equator, which turns the sign of vorticity. The
winds follow from vorticity and divergence (`solvers/sphere.py`).

Source: J. Galewsky, R. K. Scott, L. M. Polvani, Tellus A 56 (2004) 429.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from pdeforecast.errors import UsageError
from pdeforecast.pdes.base import PDE, State, generator
from pdeforecast.solvers.jacobi import gauss_legendre
from pdeforecast.solvers.sphere import Sphere, gauss_axes, regular_axes
from pdeforecast.solvers.stepping import integrate

COURANT = 2.0
"""The largest speed · wave number · step; the method is stable to about 2.8."""
HOUR = 3600.0
SOUTH_EDGE, NORTH_EDGE = math.pi / 7, math.pi / 2 - math.pi / 7


@dataclass(frozen=True)
class ShallowWater(PDE):
    """Shallow water on the rotating sphere and the distribution of its initial states.

    Attributes:
        radius: R, in metres.
        gravity: g, in m/s².
        rotation: Ω, in radians/s.
        depth: the mean depth H, in metres.
        viscosity: ν of the hyperdiffusion, in m⁴/s.
        jet: the greatest speed of the initial jet, in m/s.
        resolution: latitudes of the solver's grid; its longitudes are twice as many.
        coarsen: each value of a frame is the mean of this many latitudes and longitudes of that grid.
        start: the time of the first frame after the jet, in hours.
        frames: frames per trajectory.
        interval: time between frames, in hours.
        step: the longest time step of the solver, in hours.
    """

    radius: float = 6.37122e6
    gravity: float = 9.80616
    rotation: float = 7.292e-5
    depth: float = 1e4
    viscosity: float = 1e5 * 6.37122e6**2 / 32**2
    jet: float = 80.0
    resolution: int = 96
    coarsen: int = 1
    start: float = 100.0
    frames: int = 14
    interval: float = 50 / 3
    step: float = 0.25

    name = "shallow-water"
    geometry = "rotating_sphere"
    variables = ("height", "vorticity", "divergence")
    statics = ()
    units: ClassVar[Mapping[str, str]] = {
        "height": "m",
        "vorticity": "s-1",
        "divergence": "s-1",
        "time": "hours",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("radius", "gravity", "depth", "step"):
            self.above_zero(name)
        for name in ("viscosity", "start"):
            self.at_least(name, 0)
        self.at_least("resolution", 8)
        self.at_least("coarsen", 1)
        if self.resolution % self.coarsen:
            raise UsageError(
                f"expected a coarsen that divides resolution = {self.resolution}; came {self.coarsen}.",
                f"Type `--set coarsen={math.gcd(self.resolution, self.coarsen)}`.",
            )

    def times(self) -> list[float]:
        return [self.start + self.interval * i for i in range(self.frames)]

    def coordinates(self) -> dict[str, Tensor]:
        """The centres of equal cells; where `coarsen` is not 1, of the blocks of cells."""
        axes = regular_axes(self.resolution)
        return {name: axis.unflatten(0, (-1, self.coarsen)).mean(-1) for name, axis in axes.items()}

    def initial(self, seed: int, split: str, index: int) -> State:
        """The state at `start` on the solver's grid, `resolution` latitudes, whatever `coarsen` is.

        The bump is hpert cos φ exp(−(λ/α)²) exp(−((π/4 − φ)/β)²) with hpert ~ U[90, 150] m,
        α ~ U[2/9, 4/9] and β ~ U[2/45, 4/45], at a uniform random longitude.
        """
        draw = torch.rand(4, dtype=torch.float64, generator=generator(self.name, seed, split, index))
        height, alpha, beta = 90 + 60 * draw[0], (2 + 2 * draw[1]) / 9, (2 + 2 * draw[2]) / 45
        state = self.jet_with_bump(float(height), float(alpha), float(beta), 360 * float(draw[3]))
        (later,) = self._solve(state, [self.start], regular_axes(self.resolution))
        return later

    def jet_with_bump(self, hpert: float, alpha: float, beta: float, east: float) -> State:
        """The balanced jet, with a bump of height at the longitude `east`, in degrees, at t = 0."""
        axes = regular_axes(self.resolution)
        latitude, longitude = axes["latitude"].deg2rad()[:, None], axes["longitude"]
        away = ((longitude - east + 180) % 360 - 180).deg2rad()
        bump = latitude.cos() * torch.exp(-((away / alpha) ** 2) - ((math.pi / 4 - latitude) / beta) ** 2)
        speed, slope = self._jet(latitude)
        vorticity = (speed * latitude.tan() - slope) / self.radius
        rest = torch.zeros_like(bump)
        return {
            "height": self._balanced(latitude) + hpert * bump,
            "vorticity": vorticity + rest,
            "divergence": rest,
        }

    def _jet(self, latitude: Tensor) -> tuple[Tensor, Tensor]:
        """u(φ) = u_max exp(1/((φ−φ₀)(φ−φ₁)) + 4/(φ₁−φ₀)²) between φ₀ and φ₁, and du/dφ."""
        product = (latitude - SOUTH_EDGE) * (latitude - NORTH_EDGE)
        inside = torch.where(product < 0, product, -1.0)
        speed = self.jet * torch.exp(1 / inside + 4 / (NORTH_EDGE - SOUTH_EDGE) ** 2)
        speed = torch.where(product < 0, speed, 0.0)
        return speed, -speed * (2 * latitude - SOUTH_EDGE - NORTH_EDGE) / inside**2

    def _balanced(self, latitude: Tensor) -> Tensor:
        """h(φ) with g dh/dφ = −(2ΩR sin φ + u tan φ) u, and no mean."""
        nodes, weights = gauss_legendre(256)

        def across(top: Tensor, integrand: Callable[[Tensor], Tensor]) -> Tensor:
            half = 0.5 * (top.clamp(SOUTH_EDGE, NORTH_EDGE) - SOUTH_EDGE)
            return half[..., 0] * (integrand(SOUTH_EDGE + half * (1 + nodes)) @ weights)

        def slope(phi: Tensor) -> Tensor:
            u = self._jet(phi)[0]
            return -u * (2 * self.rotation * self.radius * phi.sin() + u * phi.tan()) / self.gravity

        # The mean of h is ½ ∫ h cos φ dφ, by parts ½ ∫ (1 − sin φ) dh/dφ dφ.
        mean = across(
            torch.full_like(latitude[:1], NORTH_EDGE), lambda phi: 0.5 * (1 - phi.sin()) * slope(phi)
        )
        return (across(latitude, slope) - mean)[:, None]

    def solve(
        self, state: State, times: Sequence[float], axes: Mapping[str, Tensor] | None = None
    ) -> Iterator[State]:
        """Pseudo-spectral (`solvers/sphere.py`, dealiased), ETDRK4 in time, float64.

        Gravity waves on the mean depth are exact, so the wind alone limits the step; one on which it would be
        unstable is halved. `step` is for accuracy: on 96 latitudes 0.25 h errs, relative to 1/12, by 3e-5 in
        vorticity at 100 h and 5e-4 at 317 h, by 8e-5 in height, and by 1e-2 in divergence; the order is four.

        Args:
            axes: Gauss latitudes or the centres of equal steps hold as many degrees as nodes; the solution
                is given on them. None: the state is on the solver's grid, as `initial` gives it, and
                frames are its block means; or it is on `coordinates()`, and is solved there.
        """
        grid = axes or self.coordinates()
        if axes is None and state["height"].shape[-2] == self.resolution:
            return map(self._block_means, self._solve(state, times, regular_axes(self.resolution)))
        return self._solve(state, times, grid)

    def _block_means(self, state: State) -> State:
        cells = (-1, self.coarsen)
        return {
            name: field.unflatten(-2, cells).mean(-2).unflatten(-1, cells).mean(-1)
            for name, field in state.items()
        }

    def _solve(self, state: State, times: Sequence[float], axes: Mapping[str, Tensor]) -> Iterator[State]:
        fields = torch.stack([state[name].double() for name in self.variables], dim=-3)
        nodes = tuple((name, tuple(axis.tolist())) for name, axis in axes.items())
        grid = _grid(nodes, self.radius, fields.device)
        waves = _waves(self, grid.degrees, fields.device)
        begin = waves.amplitudes(grid.analysis(fields))
        seconds = [HOUR * time for time in times]
        step = HOUR * self.step
        for a in integrate(begin, waves.rates, waves.tendency, seconds, step, waves.longest_step):
            yield dict(zip(self.variables, grid.synthesis(waves.fields(a)).unbind(-3), strict=True))


@lru_cache(maxsize=2)
def _grid(axes: tuple[tuple[str, tuple[float, ...]], ...], radius: float, device: torch.device) -> Sphere:
    """The transform on a grid, kept: making it costs as much as some hours of the solution."""
    nodes = {name: torch.tensor(axis, dtype=torch.float64, device=device) for name, axis in axes}
    return Sphere(nodes, radius=radius)


@lru_cache(maxsize=2)
def _waves(pde: ShallowWater, degrees: int, device: torch.device) -> "Waves":
    """The linear waves, likewise."""
    return Waves(pde, degrees, device)


class Waves:
    """The linear waves of water at rest, and their interaction.

    Of every degree, vorticity decays, and δ and h oscillate together; they are sums of two waves.

    Attributes:
        rates: of ζ and of the two waves, in 1/s, complex, (3, L, 1).
    """

    def __init__(self, pde: ShallowWater, degrees: int, device: torch.device) -> None:
        size = -(-3 * degrees // 2)
        axes = {name: axis.to(device) for name, axis in gauss_axes(size).items()}
        self.sphere = Sphere(axes, degrees, pde.radius)
        self.coriolis = 2 * pde.rotation * axes["latitude"].deg2rad().sin()[:, None]
        eigenvalues = self.sphere.eigenvalues
        flow, height = -pde.viscosity * (eigenvalues + pde.radius**-2) ** 2, -pde.viscosity * eigenvalues**2
        # Of δ and h √(g/H)/R, which are of one size; without a wave in the mean.
        speed = math.sqrt(pde.gravity * pde.depth)
        self._swell, self._highest = 0.5 * speed / pde.depth, degrees / pde.radius
        back = -speed / pde.radius * (eigenvalues < 0).to(eigenvalues.dtype)
        rows = [flow, -speed * pde.radius * eigenvalues, back, height]
        rates, vectors = torch.linalg.eig(torch.cat(rows, dim=-1).unflatten(-1, (2, 2)))
        scale = eigenvalues.new_tensor([1.0, math.sqrt(pde.depth / pde.gravity) * pde.radius])
        self.rates = torch.cat([flow.to(rates.dtype), rates], dim=-1).mT[..., None].contiguous()
        self._show = (scale[:, None] * vectors)[..., None].permute(1, 2, 0, 3).contiguous()
        self._read = (torch.linalg.inv(vectors) / scale)[..., None].permute(1, 2, 0, 3).contiguous()

    def fields(self, a: Tensor) -> Tensor:
        """The coefficients (…, 3, l, m) of h, ζ, δ from the amplitudes of ζ and of the two waves."""
        vorticity, first, second = a.unbind(-3)
        divergence, height = (row[0] * first + row[1] * second for row in self._show)
        return torch.stack([height, vorticity, divergence], dim=-3)

    def amplitudes(self, fields: Tensor) -> Tensor:
        """The inverse of `fields`."""
        height, vorticity, divergence = fields.unbind(-3)
        first, second = (row[0] * divergence + row[1] * height for row in self._read)
        return torch.stack([vorticity, first, second], dim=-3)

    def tendency(self, a: Tensor) -> Tensor:
        """All terms but the linear waves, of the amplitudes."""
        fields, sphere = self.fields(a), self.sphere
        u, v = sphere.winds(fields[..., 1, :, :], fields[..., 2, :, :])
        height, vorticity = sphere.synthesis(fields[..., :2, :, :]).unbind(-3)
        carried = torch.stack([height, vorticity + self.coriolis], dim=-3)
        curl, outflow = sphere.curl_and_divergence(carried * u[..., None, :, :], carried * v[..., None, :, :])
        energy = sphere.laplacian(sphere.analysis(0.5 * (u * u + v * v)))
        return self.amplitudes(
            torch.stack([-outflow[..., 0, :, :], -outflow[..., 1, :, :], curl[..., 1, :, :] - energy], dim=-3)
        )

    def longest_step(self, a: Tensor) -> float:
        """How long a step may be, in seconds, for the wind and for waves on water that is not of depth H."""
        fields = self.fields(a)
        u, v = self.sphere.winds(fields[..., 1, :, :], fields[..., 2, :, :])
        height = self.sphere.synthesis(fields[..., 0, :, :])
        speed = float(((u * u + v * v).sqrt() + self._swell * height.abs()).max())
        return COURANT / (speed * self._highest) if speed > 0 else math.inf
