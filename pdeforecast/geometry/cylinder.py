"""The cylinder: periodic along x, with walls at y = 0 and y = 1, moved by translations along x.

The walls are seen as the heights of point and pose: a(x, p) = (cos 2π(x − p), sin 2π(x − p), y, y_p).
"""

import math
from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from pdeforecast.geometry.base import Geometry
from pdeforecast.geometry.measures import cell_edges, centres, length, periodic_cells, square_side, uniform


class Cylinder(Geometry):
    """Points and poses are (x, y), with unit period and height; poses are not wrapped."""

    name = domain = "cylinder"
    coordinates = ("x", "y")
    units = dict.fromkeys(coordinates, "1")
    extent = dict.fromkeys(coordinates, (0.0, 1.0))
    dim = chart_dim = velocity_dim = point_dim = pose_dim = 2
    relative_dim = between_dim = 4
    volume = 1.0

    def embed(self, coordinates: Tensor) -> Tensor:
        return coordinates

    def relative(self, x: Tensor, p: Tensor) -> Tensor:
        angle = 2 * math.pi * (x[..., :1] - p[..., :1])
        heights = torch.broadcast_tensors(x[..., 1:], p[..., 1:])
        return torch.cat([angle.cos(), angle.sin(), *heights], dim=-1)

    def chart(self, a: Tensor) -> Tensor:
        cos, sin, height, own = a.unbind(-1)
        return torch.stack([torch.atan2(sin, cos) / (2 * math.pi), height - own], dim=-1)

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
        return torch.cat([p[..., :1].remainder(1.0), p[..., 1:]], dim=-1)

    def lift(self, x: Tensor) -> Tensor:
        return x

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        return self.place(x + g)

    def act_pose(self, g: Tensor, p: Tensor) -> Tensor:
        return p + g

    def random_element(self, count: int, generator: Generator | None = None) -> Tensor:
        shift = uniform((count, 1), 0.0, 1.0, generator)
        return torch.cat([shift, torch.zeros_like(shift)], dim=-1)

    def random_points(self, count: int, generator: Generator | None = None) -> Tensor:
        return uniform((count, 2), 0.0, 1.0, generator)

    def lattice(self, count: int) -> Tensor:
        axis = centres(square_side(count, "cylinder"), 0.0, 1.0)
        return torch.cartesian_prod(axis, axis).flip(-1)

    def spacing(self, count: int) -> float:
        return 1.0 / square_side(count, "cylinder")

    def axis(self, name: str, count: int) -> Tensor:
        if name == "x":
            return torch.arange(count, dtype=torch.float64) / count
        return centres(count, 0.0, 1.0)

    def weights(self, axes: Mapping[str, Tensor]) -> Tensor:
        low, high = cell_edges(axes["y"], 0.0, 1.0)
        return (high - low)[:, None] * periodic_cells(axes["x"], 1.0)

    @staticmethod
    def _short_way(displacement: Tensor) -> Tensor:
        along, up = displacement[..., :1], displacement[..., 1:]
        return torch.cat([along - along.round(), up], dim=-1)
