"""A geometry is a space, the group that moves it, and what the group leaves unchanged.

After Klein. A *pose* p is an element of the group or of one of its homogeneous spaces; it is held
in ambient coordinates in which the group acts linearly or affinely, so that Runge–Kutta steps of
ṗ = `carry(p, v)` commute with the group exactly. A point x is seen from a pose as

    a(x, p) = p⁻¹x        (`relative`)

which is *bi-invariant*, a(gx, gp) = a(x, p). Networks receive a(x, p) and nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Generator, Tensor


class Geometry(ABC):
    """The promise that every space makes; `tests/geometry/test_laws.py` holds it to its word.

    All methods broadcast over leading dimensions. A *pose* has `pose_dim` ambient numbers, a
    *point* `point_dim`, a body-frame velocity v `dim`, and a(x, p) `relative_dim`.

    Attributes:
        name: the `geometry` attribute of a Dataset.
        coordinates: names of the Dataset coordinates, in the order of a point's components.
        units: of each coordinate.
        dim: the dimension of the space.
        volume: its total measure.
    """

    name: str
    coordinates: tuple[str, ...]
    units: Mapping[str, str]
    dim: int
    point_dim: int
    pose_dim: int
    relative_dim: int
    volume: float

    @abstractmethod
    def relative(self, x: Tensor, p: Tensor) -> Tensor:
        """a(x, p): the point as seen from the pose, (…, relative_dim)."""

    @abstractmethod
    def chart(self, a: Tensor) -> Tensor:
        """Normal coordinates (…, dim) about the pose of a point given by a(x, p)."""

    def between(self, p: Tensor, q: Tensor) -> Tensor:
        """p⁻¹q: the pose q as seen from the pose p, invariant when both are moved."""
        return self.relative(self.place(q), p)

    @abstractmethod
    def distance(self, x: Tensor, p: Tensor) -> Tensor:
        """The geodesic distance from the point x to the place of the pose p."""

    @abstractmethod
    def exp(self, p: Tensor, v: Tensor) -> Tensor:
        """The pose reached from p by the body-frame velocity v (…, dim) in unit time."""

    @abstractmethod
    def log(self, p: Tensor, q: Tensor) -> Tensor:
        """The shortest v with exp(p, v) = q."""

    @abstractmethod
    def carry(self, p: Tensor, v: Tensor) -> Tensor:
        """The ambient velocity ṗ (…, pose_dim) of a pose with body-frame velocity v."""

    @abstractmethod
    def project(self, p: Tensor) -> Tensor:
        """The pose nearest to ambient coordinates that have drifted off the manifold."""

    @abstractmethod
    def place(self, p: Tensor) -> Tensor:
        """The point (…, point_dim) at which a pose stands."""

    @abstractmethod
    def act(self, g: Tensor, x: Tensor) -> Tensor:
        """g x: the point moved by the group element g (a pose)."""

    @abstractmethod
    def act_pose(self, g: Tensor, p: Tensor) -> Tensor:
        """g p: the pose moved by the group element g."""

    @abstractmethod
    def random_element(self, count: int, generator: Generator | None = None) -> Tensor:
        """`count` elements of the group, spread as its invariant measure is."""

    @abstractmethod
    def random_points(self, count: int, generator: Generator | None = None) -> Tensor:
        """`count` points, spread as the measure of the space is."""

    @abstractmethod
    def lattice(self, count: int) -> Tensor:
        """`count` poses (count, pose_dim) spread as the measure is.

        Raises:
            ValueError: if the space has no lattice of that size; the message names two that exist.
        """

    @abstractmethod
    def spacing(self, count: int) -> float:
        """The typical distance between neighbours of `lattice(count)`."""

    @abstractmethod
    def axis(self, name: str, count: int) -> Tensor:
        """The `count` nodes (float64) of the regular grid along the coordinate `name`.

        A periodic coordinate does not repeat its first node.
        """

    @abstractmethod
    def weights(self, axes: Mapping[str, Tensor]) -> Tensor:
        """The measure (area, volume) that each node of a grid represents.

        Its dimensions are the coordinates reversed, whatever the order of `axes`; the nodes of an
        axis may be irregular and in any order.
        """


def length(v: Tensor) -> Tensor:
    """‖v‖ over the last dimension, whose gradient at v = 0 is 0.

    Written out per component: a reduction over an axis as short as this one is three times slower.
    """
    first, *others = v.unbind(-1)
    squared = first.square()
    for component in others:
        squared = squared + component.square()
    return squared.clamp_min(torch.finfo(v.dtype).tiny).sqrt()
