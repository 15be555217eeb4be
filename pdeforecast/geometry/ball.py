"""The unit ball, moved by all rotations about its centre.

A pose is a position t and a frame q, and sees a point and the centre: a(x, p) = (qᵀ(x − t), qᵀt).
A frame that looks outwards sees the centre at (0, 0, r), so its radius is the second half of what
it sees; but a pose may cross the centre, where no frame looks outwards, and nothing is singular.
"""

import math
from collections.abc import Mapping

import torch
from torch import Generator, Tensor

import pdeforecast.geometry.rotation as rotation
from pdeforecast.geometry.base import Geometry
from pdeforecast.geometry.measures import cell_edges, centres, length, spiral
from pdeforecast.geometry.sphere import Sphere

_SURFACE = Sphere()


class Ball(Geometry):
    """Points are vectors of length ≤ 1; poses a position and a frame, twelve numbers."""

    name = domain = "ball"
    coordinates = ("longitude", "latitude", "radius")
    units: Mapping[str, str] = {**_SURFACE.units, "radius": "1"}
    extent: Mapping[str, tuple[float, float]] = {**_SURFACE.extent, "radius": (0.0, 1.0)}
    dim = chart_dim = point_dim = 3
    velocity_dim = relative_dim = 6
    pose_dim = between_dim = 12
    volume = 4 * math.pi / 3

    def embed(self, coordinates: Tensor) -> Tensor:
        return coordinates[..., 2:] * _SURFACE.embed(coordinates[..., :2])

    def relative(self, x: Tensor, p: Tensor) -> Tensor:
        t, q = p[..., :3], p[..., 3:]
        seen = rotation.turn_back(q, x - t)
        return torch.cat([seen, rotation.turn_back(q, t).expand_as(seen)], dim=-1)

    def chart(self, a: Tensor) -> Tensor:
        return a[..., :3]

    def between(self, p: Tensor, q: Tensor) -> Tensor:
        frame = (rotation.matrix(p[..., 3:]).mT @ rotation.matrix(q[..., 3:]))[..., :2].flatten(-2)
        return torch.cat([self.relative(q[..., :3], p), frame], dim=-1)

    def distance(self, x: Tensor, p: Tensor) -> Tensor:
        return length(x - p[..., :3])

    def exp(self, p: Tensor, v: Tensor) -> Tensor:
        t, q = p[..., :3], p[..., 3:]
        frame = rotation.compose(q, rotation.exp(v[..., 3:]))
        return torch.cat([t + rotation.turn(q, v[..., :3]), frame], dim=-1)

    def log(self, p: Tensor, q: Tensor) -> Tensor:
        step = rotation.turn_back(p[..., 3:], q[..., :3] - p[..., :3])
        turned = (rotation.matrix(p[..., 3:]).mT @ rotation.matrix(q[..., 3:])).flatten(-2)
        return torch.cat([step, rotation.log(turned)], dim=-1)

    def carry(self, p: Tensor, v: Tensor) -> Tensor:
        frame = rotation.compose(p[..., 3:], rotation.hat(v[..., 3:]))
        return torch.cat([rotation.turn(p[..., 3:], v[..., :3]), frame], dim=-1)

    def project(self, p: Tensor) -> Tensor:
        return torch.cat([p[..., :3], rotation.nearest(p[..., 3:])], dim=-1)

    def place(self, p: Tensor) -> Tensor:
        return p[..., :3]

    def lift(self, x: Tensor) -> Tensor:
        radius = length(x)[..., None]
        up = torch.where(radius > torch.finfo(x.dtype).eps, x / radius, x.new_tensor([0.0, 0.0, 1.0]))
        return torch.cat([x, rotation.upright(up)], dim=-1)

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        return rotation.turn(g[..., 3:], x)

    def act_pose(self, g: Tensor, p: Tensor) -> Tensor:
        return torch.cat([self.act(g, p[..., :3]), rotation.compose(g[..., 3:], p[..., 3:])], dim=-1)

    def random_element(self, count: int, generator: Generator | None = None) -> Tensor:
        centre = torch.zeros(count, 3, dtype=torch.float64)
        return torch.cat([centre, rotation.random(count, generator)], dim=-1)

    def random_points(self, count: int, generator: Generator | None = None) -> Tensor:
        radius = torch.rand(count, 1, generator=generator, dtype=torch.float64) ** (1 / 3)
        return radius * _SURFACE.random_points(count, generator)

    def lattice(self, count: int) -> Tensor:
        """Shells of equal thickness, each with as many poses as its share of the volume, in spirals."""
        shells = max(1, round((3 * count / (4 * math.pi)) ** (1 / 3)))
        edges = torch.linspace(0, 1, shells + 1, dtype=torch.float64)
        ends = (count * edges**3).round().long()
        places = []
        for k, size in enumerate(ends.diff().tolist()):
            radius = 0.0 if size == 1 else float((edges[k] + edges[k + 1]) / 2)
            places.append(radius * spiral(size, turn=float(k)))
        return self.lift(torch.cat(places))

    def spacing(self, count: int) -> float:
        return (self.volume / count) ** (1 / 3)

    def axis(self, name: str, count: int) -> Tensor:
        return centres(count, 0.0, 1.0) if name == "radius" else _SURFACE.axis(name, count)

    def weights(self, axes: Mapping[str, Tensor]) -> Tensor:
        low, high = cell_edges(axes["radius"], 0.0, 1.0)
        return ((high**3 - low**3) / 3)[:, None, None] * _SURFACE.weights(axes)
