"""A geometry is a space, the group that moves it, and what the group leaves unchanged.

After Klein. A *pose* p is an element of the group or of one of its homogeneous spaces; it is held
in ambient coordinates in which the group acts linearly or affinely, so that Runge–Kutta steps of
ṗ = `carry(p, v)` commute with the group exactly. A point x is seen from a pose as

    a(x, p) = p⁻¹x        (`relative`)

which is *bi-invariant*, a(gx, gp) = a(x, p). Networks receive a(x, p) and nothing else. Where the
group is smaller than the motions of the space, because an axis or a centre is fixed, a(x, p) holds
what the pose sees of that, too.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Generator, Tensor


class Geometry(ABC):
    """The promise that every space makes; `pdeforecast.testing.LAWS` hold it to its word.

    All methods broadcast over leading dimensions. A *pose* has `pose_dim` ambient numbers, a *point*
    `point_dim`, a(x, p) `relative_dim`, and p⁻¹q `between_dim`. A body-frame velocity v has
    `velocity_dim` components: the first `dim` move the place of the pose, the others, if any, turn its
    frame.

    Attributes:
        name: in `GEOMETRIES`.
        domain: the `geometry` attribute of a Dataset on this space; several geometries may share it.
        coordinates: names of the Dataset coordinates; a grid's dimensions are these, reversed.
        units: of each coordinate.
        extent: from where to where each coordinate goes.
        dim: the dimension of the space.
        chart_dim: that of `chart`: `dim`, or 1 if only distances are seen.
        volume: its total measure.
    """

    name: str
    domain: str
    coordinates: tuple[str, ...]
    units: Mapping[str, str]
    extent: Mapping[str, tuple[float, float]]
    dim: int
    chart_dim: int
    velocity_dim: int
    point_dim: int
    pose_dim: int
    relative_dim: int
    between_dim: int
    volume: float

    @abstractmethod
    def embed(self, coordinates: Tensor) -> Tensor:
        """The points (…, point_dim) that have these Dataset coordinates (…, len(coordinates))."""

    @abstractmethod
    def relative(self, x: Tensor, p: Tensor) -> Tensor:
        """a(x, p): the point as seen from the pose, (…, relative_dim)."""

    @abstractmethod
    def chart(self, a: Tensor) -> Tensor:
        """Normal coordinates (…, chart_dim) about the pose of a point given by a(x, p)."""

    def between(self, p: Tensor, q: Tensor) -> Tensor:
        """p⁻¹q: the pose q as seen from the pose p, (…, between_dim); begins with a(place(q), p)."""
        return self.relative(self.place(q), p)

    @abstractmethod
    def distance(self, x: Tensor, p: Tensor) -> Tensor:
        """The geodesic distance from the point x to the place of the pose p."""

    @abstractmethod
    def exp(self, p: Tensor, v: Tensor) -> Tensor:
        """The pose reached from p by the body-frame velocity v (…, velocity_dim) in unit time.

        It moves along a geodesic, taking its frame along, and then turns the frame.
        """

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
    def lift(self, x: Tensor) -> Tensor:
        """A pose that stands at the point x."""

    @abstractmethod
    def act(self, g: Tensor, x: Tensor) -> Tensor:
        """g x: the point moved by the group element g (a pose)."""

    @abstractmethod
    def act_pose(self, g: Tensor, p: Tensor) -> Tensor:
        """g p: the pose moved by the group element g."""

    @abstractmethod
    def random_element(self, count: int, generator: Generator | None = None) -> Tensor:
        """`count` elements of the group, spread as its invariant measure is."""

    def random_motion(self, count: int, generator: Generator | None = None) -> Tensor:
        """`count` random elements of the group that carry the space onto itself.

        Those are all elements, unless the space is a window onto a larger one.
        """
        return self.random_element(count, generator)

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
