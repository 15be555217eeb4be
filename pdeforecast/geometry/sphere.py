"""The sphere S², moved by all rotations, or, as a planet, by those about its axis.

A pose is a frame q ∈ SO(3) that stands at its third axis, and a(x, p) = qᵀx is complete: nothing
but the frame's choice is lost. On the rotating sphere the axis n is part of what a pose sees,
a(x, p) = (qᵀx, qᵀn). Their products are the usual invariants, both latitudes and the cosine and sine
of the difference of longitudes, but nothing here is singular at a pole, and if world and axis are
tilted together, nothing changes.
"""

import math
from collections.abc import Mapping

import torch
from torch import Generator, Tensor

import pdeforecast.geometry.rotation as rotation
from pdeforecast.geometry.base import Geometry
from pdeforecast.geometry.measures import cell_edges, centres, length, periodic_cells, spiral


class Sphere(Geometry):
    """Points are unit vectors; poses frames, nine numbers; velocities (east, north, turn)."""

    name = domain = "sphere"
    coordinates = ("longitude", "latitude")
    units: Mapping[str, str] = {"longitude": "degrees_east", "latitude": "degrees_north"}
    extent: Mapping[str, tuple[float, float]] = {"longitude": (0.0, 360.0), "latitude": (-90.0, 90.0)}
    dim = chart_dim = 2
    velocity_dim = point_dim = relative_dim = 3
    pose_dim = between_dim = 9
    volume = 4 * math.pi

    def embed(self, coordinates: Tensor) -> Tensor:
        longitude, latitude = coordinates.deg2rad().unbind(-1)
        across = latitude.cos()
        return torch.stack([across * longitude.cos(), across * longitude.sin(), latitude.sin()], dim=-1)

    def relative(self, x: Tensor, p: Tensor) -> Tensor:
        return rotation.turn_back(p, x)

    def chart(self, a: Tensor) -> Tensor:
        sine, cosine = a[..., :2], a[..., 2:3]
        # At the antipode all directions are equally short; one is taken, that the distance be right.
        tiny = 8 * torch.finfo(a.dtype).tiny ** 0.5
        opposite = (cosine < 0) & (length(sine)[..., None] < tiny)
        sine = torch.where(opposite, sine.new_tensor([tiny, 0.0]), sine)
        return sine * rotation.angle_over_sine(sine, cosine)

    def between(self, p: Tensor, q: Tensor) -> Tensor:
        columns = (rotation.matrix(p).mT @ rotation.matrix(q)).unbind(-1)
        return torch.cat([columns[2], columns[0], columns[1]], dim=-1)

    def distance(self, x: Tensor, p: Tensor) -> Tensor:
        place = self.place(p)
        return 2 * torch.atan2(length(x - place), length(x + place))

    def exp(self, p: Tensor, v: Tensor) -> Tensor:
        east, north, turn = v.unbind(-1)
        still = torch.zeros_like(turn)
        moved = rotation.compose(p, rotation.exp(torch.stack([-north, east, still], dim=-1)))
        return rotation.compose(moved, rotation.exp(torch.stack([still, still, turn], dim=-1)))

    def log(self, p: Tensor, q: Tensor) -> Tensor:
        step = Sphere.chart(self, Sphere.relative(self, self.place(q), p))
        arrived = self.exp(p, torch.cat([step, torch.zeros_like(step[..., :1])], dim=-1))
        turned = rotation.matrix(arrived).mT @ rotation.matrix(q)
        turn = torch.atan2(turned[..., 1, 0], turned[..., 0, 0])
        return torch.cat([step, turn[..., None]], dim=-1)

    def carry(self, p: Tensor, v: Tensor) -> Tensor:
        east, north, turn = v.unbind(-1)
        return rotation.compose(p, rotation.hat(torch.stack([-north, east, turn], dim=-1)))

    def project(self, p: Tensor) -> Tensor:
        return rotation.nearest(p)

    def place(self, p: Tensor) -> Tensor:
        return p[..., 2::3]

    def lift(self, x: Tensor) -> Tensor:
        return rotation.upright(x)

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        return rotation.turn(g, x)

    def act_pose(self, g: Tensor, p: Tensor) -> Tensor:
        return rotation.compose(g, p)

    def random_element(self, count: int, generator: Generator | None = None) -> Tensor:
        return rotation.random(count, generator)

    def random_points(self, count: int, generator: Generator | None = None) -> Tensor:
        x = torch.randn(count, 3, generator=generator, dtype=torch.float64)
        return x / length(x)[:, None]

    def lattice(self, count: int) -> Tensor:
        return self.lift(spiral(count))

    def spacing(self, count: int) -> float:
        return math.sqrt(4 * math.pi / count)

    def axis(self, name: str, count: int) -> Tensor:
        if name == "longitude":
            return 360.0 * torch.arange(count, dtype=torch.float64) / count
        return centres(count, -90.0, 90.0)

    def weights(self, axes: Mapping[str, Tensor]) -> Tensor:
        south, north = cell_edges(axes["latitude"], -90.0, 90.0)
        bands = north.deg2rad().sin() - south.deg2rad().sin()
        return bands[:, None] * periodic_cells(axes["longitude"], 360.0).deg2rad()


class IsotropicSphere(Sphere):
    """The sphere of which a pose sees the angle to a point only, as its cosine."""

    name = "sphere_angles"
    chart_dim = relative_dim = between_dim = 1
    between = Geometry.between

    def relative(self, x: Tensor, p: Tensor) -> Tensor:
        return (x * self.place(p)).sum(-1, keepdim=True)

    def chart(self, a: Tensor) -> Tensor:
        # Within rounding of ±1 the derivative of the arc cosine is infinite.
        limit = 1 - torch.finfo(a.dtype).eps
        return a.clamp(-limit, limit).acos()


class RotatingSphere(Sphere):
    """The sphere with an axis, moved by the rotations about it.

    Args:
        axis: n, a unit vector.
    """

    name = domain = "rotating_sphere"
    relative_dim = 6
    between_dim = 12

    def __init__(self, axis: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> None:
        self.axis_vector = torch.tensor(axis, dtype=torch.float64)

    def relative(self, x: Tensor, p: Tensor) -> Tensor:
        seen = super().relative(x, p)
        return torch.cat([seen, self._pole(p).expand_as(seen)], dim=-1)

    def chart(self, a: Tensor) -> Tensor:
        return super().chart(a[..., :3])

    def between(self, p: Tensor, q: Tensor) -> Tensor:
        seen = super().between(p, q)
        pole = self._pole(p).expand(*seen.shape[:-1], 3)
        return torch.cat([seen[..., :3], pole, seen[..., 3:]], dim=-1)

    def random_element(self, count: int, generator: Generator | None = None) -> Tensor:
        angle = 2 * math.pi * torch.rand(count, 1, generator=generator, dtype=torch.float64)
        return rotation.exp(angle * self.axis_vector)

    def _pole(self, p: Tensor) -> Tensor:
        return rotation.turn_back(p, self.axis_vector.to(p))
