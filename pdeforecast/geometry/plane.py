"""The plane, moved by translations and rotations, SE(2), and seen through the window [−3, 3]².

A pose is a position and a direction, (t, cos θ, sin θ), and a(x, p) = R(θ)ᵀ(x − t). The literature's
other choices are here, too: without rotations (a = x − t), and with distances alone (a = ‖x − t‖²),
which is invariant under reflections as well.
"""

import math
from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from pdeforecast.geometry.base import Geometry
from pdeforecast.geometry.measures import cell_edges, centres, length, square_side, uniform

_EDGE = 3.0


class Plane(Geometry):
    """Points are (x, y); poses (x, y, cos θ, sin θ); velocities (forward, left, turn)."""

    name = domain = "plane"
    coordinates = ("x", "y")
    units = dict.fromkeys(coordinates, "1")
    extent = dict.fromkeys(coordinates, (-_EDGE, _EDGE))
    dim = chart_dim = point_dim = relative_dim = 2
    velocity_dim = 3
    pose_dim = between_dim = 4
    volume = (2 * _EDGE) ** 2

    def embed(self, coordinates: Tensor) -> Tensor:
        return coordinates

    def relative(self, x: Tensor, p: Tensor) -> Tensor:
        return _turned(_opposite(p[..., 2:]), x - p[..., :2])

    def chart(self, a: Tensor) -> Tensor:
        return a

    def between(self, p: Tensor, q: Tensor) -> Tensor:
        direction = _turned(_opposite(p[..., 2:]), q[..., 2:])
        seen = self.relative(q[..., :2], p)
        return torch.cat([seen, direction.expand(*seen.shape[:-1], 2)], dim=-1)

    def distance(self, x: Tensor, p: Tensor) -> Tensor:
        return length(x - p[..., :2])

    def exp(self, p: Tensor, v: Tensor) -> Tensor:
        angle = v[..., 2:]
        direction = _turned(torch.cat([angle.cos(), angle.sin()], dim=-1), p[..., 2:])
        return torch.cat([p[..., :2] + _turned(p[..., 2:], v[..., :2]), direction], dim=-1)

    def log(self, p: Tensor, q: Tensor) -> Tensor:
        step = _turned(_opposite(p[..., 2:]), q[..., :2] - p[..., :2])
        cos, sin = _turned(_opposite(p[..., 2:]), q[..., 2:]).unbind(-1)
        return torch.cat([step, torch.atan2(sin, cos)[..., None]], dim=-1)

    def carry(self, p: Tensor, v: Tensor) -> Tensor:
        cos, sin = p[..., 2:3], p[..., 3:]
        turn = v[..., 2:]
        return torch.cat([_turned(p[..., 2:], v[..., :2]), -sin * turn, cos * turn], dim=-1)

    def project(self, p: Tensor) -> Tensor:
        direction = p[..., 2:]
        return torch.cat([p[..., :2], direction / length(direction)[..., None]], dim=-1)

    def place(self, p: Tensor) -> Tensor:
        return p[..., :2]

    def lift(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.ones_like(x[..., :1]), torch.zeros_like(x[..., :1])], dim=-1)

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        return _turned(g[..., 2:], x) + g[..., :2]

    def act_pose(self, g: Tensor, p: Tensor) -> Tensor:
        return torch.cat([self.act(g, p[..., :2]), _turned(g[..., 2:], p[..., 2:])], dim=-1)

    def random_element(self, count: int, generator: Generator | None = None) -> Tensor:
        angle = uniform((count, 1), 0.0, 2 * math.pi, generator)
        shift = uniform((count, 2), -_EDGE, _EDGE, generator)
        return torch.cat([shift, angle.cos(), angle.sin()], dim=-1)

    def random_motion(self, count: int, generator: Generator | None = None) -> Tensor:
        """Quarter turns, which carry the window onto itself."""
        turns = torch.randint(4, (count,), generator=generator)
        directions = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)[turns]
        return torch.cat([torch.zeros_like(directions), directions], dim=-1)

    def random_points(self, count: int, generator: Generator | None = None) -> Tensor:
        return uniform((count, 2), -_EDGE, _EDGE, generator)

    def lattice(self, count: int) -> Tensor:
        axis = centres(square_side(count, "plane"), -_EDGE, _EDGE)
        return self.lift(torch.cartesian_prod(axis, axis).flip(-1))

    def spacing(self, count: int) -> float:
        return 2 * _EDGE / square_side(count, "plane")

    def axis(self, name: str, count: int) -> Tensor:
        return centres(count, -_EDGE, _EDGE)

    def weights(self, axes: Mapping[str, Tensor]) -> Tensor:
        (left, right), (low, high) = (cell_edges(axes[name], -_EDGE, _EDGE) for name in ("x", "y"))
        return (high - low)[:, None] * (right - left)


class TranslatedPlane(Plane):
    """The plane moved by translations only: directions are absolute."""

    name = "plane_translations"

    def relative(self, x: Tensor, p: Tensor) -> Tensor:
        return x - p[..., :2]

    def random_element(self, count: int, generator: Generator | None = None) -> Tensor:
        return self.lift(super().random_element(count, generator)[..., :2])

    def random_motion(self, count: int, generator: Generator | None = None) -> Tensor:
        return self.lift(torch.zeros(count, 2, dtype=torch.float64))


class DistancePlane(Plane):
    """The plane moved by E(2): of a point, only its distance is seen."""

    name = "plane_distances"
    chart_dim = relative_dim = between_dim = 1
    between = Geometry.between

    def relative(self, x: Tensor, p: Tensor) -> Tensor:
        return (x - p[..., :2]).square().sum(-1, keepdim=True)

    def chart(self, a: Tensor) -> Tensor:
        return length(a)[..., None].sqrt()


def _turned(direction: Tensor, x: Tensor) -> Tensor:
    """x turned by the angle of the unit vector `direction`."""
    cos, sin = direction[..., :1], direction[..., 1:]
    return torch.cat([cos * x[..., :1] - sin * x[..., 1:], sin * x[..., :1] + cos * x[..., 1:]], dim=-1)


def _opposite(direction: Tensor) -> Tensor:
    """The direction of the opposite angle."""
    return torch.cat([direction[..., :1], -direction[..., 1:]], dim=-1)
