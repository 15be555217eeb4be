"""The periodic plane T² = [0, 1)², moved by translations.

A pose is an *unwrapped* position, so that it may wander through the seam during integration; all
that is measured from it is periodic. a(x, p) = (cos 2π(x − p), sin 2π(x − p)) per axis.
"""

import math
from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from pdeforecast.geometry.base import Geometry
from pdeforecast.geometry.measures import centres, length, periodic_cells, square_side, uniform


class PeriodicPlane(Geometry):
    """The flat torus with unit periods; points and poses are (x, y)."""

    name = domain = "periodic_plane"
    coordinates = ("x", "y")
    units = dict.fromkeys(coordinates, "1")
    extent = dict.fromkeys(coordinates, (0.0, 1.0))
    dim = chart_dim = velocity_dim = point_dim = pose_dim = 2
    relative_dim = between_dim = 4
    volume = 1.0

    def embed(self, coordinates: Tensor) -> Tensor:
        return coordinates

    def relative(self, x: Tensor, p: Tensor) -> Tensor:
        angle = 2 * math.pi * (x - p)
        return torch.cat([angle.cos(), angle.sin()], dim=-1)

    def chart(self, a: Tensor) -> Tensor:
        cos, sin = a.chunk(2, dim=-1)
        return torch.atan2(sin, cos) / (2 * math.pi)

    def distance(self, x: Tensor, p: Tensor) -> Tensor:
        return length(self._short_way(x - p))

    def exp(self, p: Tensor, v: Tensor) -> Tensor:
        return p + v

    def log(self, p: Tensor, q: Tensor) -> Tensor:
        return self._short_way(q - p)

    def carry(self, p: Tensor, v: Tensor) -> Tensor:
        return v

    def project(self, p: Tensor) -> Tensor:
        return p

    def place(self, p: Tensor) -> Tensor:
        return p.remainder(1.0)

    def lift(self, x: Tensor) -> Tensor:
        return x

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        return (x + g).remainder(1.0)

    def act_pose(self, g: Tensor, p: Tensor) -> Tensor:
        return p + g

    def random_element(self, count: int, generator: Generator | None = None) -> Tensor:
        return uniform((count, 2), 0.0, 1.0, generator)

    def random_points(self, count: int, generator: Generator | None = None) -> Tensor:
        return uniform((count, 2), 0.0, 1.0, generator)

    def lattice(self, count: int) -> Tensor:
        axis = centres(square_side(count, "periodic plane"), 0.0, 1.0)
        return torch.cartesian_prod(axis, axis).flip(-1)

    def spacing(self, count: int) -> float:
        return 1.0 / square_side(count, "periodic plane")

    def axis(self, name: str, count: int) -> Tensor:
        return torch.arange(count, dtype=torch.float64) / count

    def weights(self, axes: Mapping[str, Tensor]) -> Tensor:
        return periodic_cells(axes["y"], 1.0)[:, None] * periodic_cells(axes["x"], 1.0)

    @staticmethod
    def _short_way(displacement: Tensor) -> Tensor:
        return displacement - displacement.round()
