"""The baseline without symmetry: any space, seen in absolute coordinates that have no seam.

The group is trivial. `relative` tells a network *where* point and pose are, not only how they lie
to one another, so what is learned here is not known there.
"""

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from pdeforecast.geometry.base import Geometry


class NoSymmetry(Geometry):
    """`base` with a(x, p) = (a(x, o), a(p, o), a(x, p)), o a fixed origin.

    a(·, o) are seamless coordinates (on the torus cosines and sines), and a(x, p) is kept so that
    windows and charts stay local; it tells nothing that the first two do not.
    """

    def __init__(self, base: Geometry) -> None:
        self.base = base
        self.name = f"{base.name}_without_symmetry"
        self.domain = base.domain
        self.coordinates = base.coordinates
        self.units = base.units
        self.extent = base.extent
        self.dim = base.dim
        self.chart_dim = base.chart_dim
        self.velocity_dim = base.velocity_dim
        self.point_dim = base.point_dim
        self.pose_dim = base.pose_dim
        self.relative_dim = 3 * base.relative_dim
        self.between_dim = self.relative_dim + base.between_dim
        self.volume = base.volume
        self._origin = base.lattice(1)[0]

    def embed(self, coordinates: Tensor) -> Tensor:
        return self.base.embed(coordinates)

    def relative(self, x: Tensor, p: Tensor) -> Tensor:
        origin = self._origin.to(x)
        here = self.base.relative(x, origin)
        there = self.base.relative(self.base.place(p), origin)
        return torch.cat(torch.broadcast_tensors(here, there, self.base.relative(x, p)), dim=-1)

    def chart(self, a: Tensor) -> Tensor:
        return self.base.chart(a[..., -self.base.relative_dim :])

    def between(self, p: Tensor, q: Tensor) -> Tensor:
        return torch.cat([super().between(p, q), self.base.between(p, q)], dim=-1)

    def distance(self, x: Tensor, p: Tensor) -> Tensor:
        return self.base.distance(x, p)

    def exp(self, p: Tensor, v: Tensor) -> Tensor:
        return self.base.exp(p, v)

    def log(self, p: Tensor, q: Tensor) -> Tensor:
        return self.base.log(p, q)

    def carry(self, p: Tensor, v: Tensor) -> Tensor:
        return self.base.carry(p, v)

    def project(self, p: Tensor) -> Tensor:
        return self.base.project(p)

    def place(self, p: Tensor) -> Tensor:
        return self.base.place(p)

    def lift(self, x: Tensor) -> Tensor:
        return self.base.lift(x)

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        return x

    def act_pose(self, g: Tensor, p: Tensor) -> Tensor:
        return p

    def random_element(self, count: int, generator: Generator | None = None) -> Tensor:
        return self.base.random_element(count, generator)

    def random_points(self, count: int, generator: Generator | None = None) -> Tensor:
        return self.base.random_points(count, generator)

    def lattice(self, count: int) -> Tensor:
        return self.base.lattice(count)

    def spacing(self, count: int) -> float:
        return self.base.spacing(count)

    def axis(self, name: str, count: int) -> Tensor:
        return self.base.axis(name, count)

    def weights(self, axes: Mapping[str, Tensor]) -> Tensor:
        return self.base.weights(axes)
