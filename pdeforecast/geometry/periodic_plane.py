"""The periodic plane T² = [0, 1)², moved by translations.

A pose is an *unwrapped* position, so that it may wander through the seam during integration; all
that is measured from it is periodic. a(x, p) = (cos 2π(x − p), sin 2π(x − p)) per axis.
"""

import math
from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from pdeforecast.geometry.base import Geometry, length


class PeriodicPlane(Geometry):
    """The flat torus with unit periods; points and poses are (x, y)."""

    name = "periodic_plane"
    coordinates = ("x", "y")
    units = dict.fromkeys(coordinates, "1")
    dim = 2
    point_dim = 2
    pose_dim = 2
    relative_dim = 4
    volume = 1.0

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

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        return (x + g).remainder(1.0)

    def act_pose(self, g: Tensor, p: Tensor) -> Tensor:
        return p + g

    def random_element(self, count: int, generator: Generator | None = None) -> Tensor:
        return torch.rand(count, 2, generator=generator, dtype=torch.float64)

    def random_points(self, count: int, generator: Generator | None = None) -> Tensor:
        return torch.rand(count, 2, generator=generator, dtype=torch.float64)

    def lattice(self, count: int) -> Tensor:
        n = self._side(count)
        axis = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        return torch.stack([x, y], dim=-1).reshape(count, 2)

    def spacing(self, count: int) -> float:
        return 1.0 / self._side(count)

    def axis(self, name: str, count: int) -> Tensor:
        return torch.arange(count, dtype=torch.float64) / count

    def weights(self, axes: Mapping[str, Tensor]) -> Tensor:
        x, y = axes["x"], axes["y"]
        return _cells(y)[:, None] * _cells(x)[None, :]

    @staticmethod
    def _side(count: int) -> int:
        n = math.isqrt(count)
        if n * n != count or n < 1:
            raise ValueError(
                f"the periodic plane has square lattices only; {count} latents is none. "
                f"Ask for {max(n, 1) ** 2} or {(n + 1) ** 2}."
            )
        return n

    @staticmethod
    def _short_way(displacement: Tensor) -> Tensor:
        return displacement - displacement.round()


def _cells(axis: Tensor) -> Tensor:
    """The length of the Voronoi cell of each node on the unit circle; they sum to 1."""
    order = axis.argsort()
    nodes = axis[order]
    gaps = torch.cat([nodes[1:] - nodes[:-1], nodes[:1] + 1 - nodes[-1:]])
    cells = torch.empty_like(axis)
    cells[order] = 0.5 * (gaps + gaps.roll(1))
    return cells
