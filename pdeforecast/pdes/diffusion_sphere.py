"""Heat on the unit sphere.

    ∂t u = D ∇²u

from a hot spot, u₀ = exp(−d²/(2w²)) at the great-circle distance d from a centre that is uniform on the
sphere. What you will see: the spot widens and fades, the same for every centre, until its heat is spread
evenly.

Symmetries: every rotation and reflection of the sphere. The mean of u is conserved. Length is in radii of the
sphere; length, time and temperature are dimensionless.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pdeforecast.pdes.base import PDE, State, generator
from pdeforecast.solvers.sphere import Sphere, regular_axes


@dataclass(frozen=True)
class DiffusionSphere(PDE):
    """Heat on the sphere and the distribution of its initial states.

    Attributes:
        diffusivity: D, in radii²/time.
        width: w of the initial spot, in radii.
        resolution: latitudes of the grid; its longitudes are twice as many.
        frames: frames per trajectory.
        interval: time between frames.
    """

    diffusivity: float = 0.01
    width: float = 0.25
    resolution: int = 64
    frames: int = 20
    interval: float = 5.0

    name = "diffusion-sphere"
    geometry = "sphere"
    variables = ("temperature",)
    statics = ()
    units: ClassVar[Mapping[str, str]] = {"temperature": "1"}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least("diffusivity", 0)
        self.above_zero("width")
        self.at_least("resolution", 8)

    def coordinates(self) -> dict[str, Tensor]:
        """The centres of equal cells in latitude, even longitudes from 0; in degrees."""
        return regular_axes(self.resolution)

    def initial(self, seed: int, split: str, index: int) -> State:
        """The spot about a centre that is uniform on the sphere, as are sin φ and λ."""
        draw = torch.rand(2, dtype=torch.float64, generator=generator(self.name, seed, split, index))
        return self.spot(float((2 * draw[0] - 1).asin().rad2deg()), float(360 * draw[1]), self.coordinates())

    def spot(self, latitude: float, longitude: float, axes: Mapping[str, Tensor]) -> State:
        """u₀ about a centre, in degrees, on the nodes `axes`."""
        distance = great_circle(latitude, longitude, axes)
        return {"temperature": torch.exp(-(distance**2) / (2 * self.width**2))}

    def solve(
        self, state: State, times: Sequence[float], axes: Mapping[str, Tensor] | None = None
    ) -> Iterator[State]:
        """Exact in time for the spherical harmonics that the grid holds (`solvers/sphere.py`), float64.

        Args:
            axes: N Gauss latitudes or N centres of equal cells hold the degrees l < N; longitudes must
                be even.
        """
        temperature = state["temperature"].double()
        nodes = {name: axis.to(temperature.device) for name, axis in (axes or self.coordinates()).items()}
        sphere = Sphere(nodes)
        spectrum = sphere.analysis(temperature)
        for time in times:
            decay = torch.exp(self.diffusivity * time * sphere.eigenvalues)
            yield {"temperature": sphere.synthesis(decay * spectrum)}


def great_circle(latitude: float, longitude: float, axes: Mapping[str, Tensor]) -> Tensor:
    """The distance of a place, in degrees, to every node of a grid, in radii; accurate near 0 and π too."""
    phi = axes["latitude"].double().deg2rad()[:, None]
    east = (axes["longitude"].double() - longitude).deg2rad()
    centre = torch.tensor(latitude, dtype=torch.float64, device=phi.device).deg2rad()
    haversine = (0.5 * (phi - centre)).sin() ** 2 + phi.cos() * centre.cos() * (0.5 * east).sin() ** 2
    return 2 * torch.atan2(haversine.sqrt(), (1 - haversine).clamp_min(0).sqrt())
