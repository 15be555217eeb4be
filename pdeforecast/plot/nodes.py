"""Places as the nodes of a grid, if they are one, and which of them is nearest."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pdeforecast.geometry import Geometry
from pdeforecast.plot.scene import Array
from pdeforecast.trajectory.layout import SAME_PLACE, seen

Indices = NDArray[np.int_]


@dataclass(frozen=True)
class Nodes:
    """The places (M, d) of a scene.

    Attributes:
        places: (M, d), in the order of the geometry's coordinates.
        axes: ascending, one per coordinate; empty if the places are not all the nodes of a grid.
        order: which of the M places is which node, of the shape of `axes`.
        periods: of each coordinate; 0 where it has none.
    """

    places: Array
    axes: tuple[Array, ...]
    order: Indices
    periods: tuple[float, ...]

    @property
    def shells(self) -> Indices:
        """The places (R, L) of each node of a third axis, the radius; all in one row where there is none."""
        if len(self.axes) < 3:
            return np.arange(len(self.places))[None]
        return self.order.reshape(-1, len(self.axes[2])).T

    def nearest(self, places: Array) -> Indices:
        """The node (…) in whose cell each place (…, d) lies; −1 where it is NaN or beyond the grid."""
        found = [
            _nearest(axis, places[..., i], period)
            for i, (axis, period) in enumerate(zip(self.axes, self.periods, strict=True))
        ]
        inside = np.all([index >= 0 for index in found], axis=0)
        return np.where(inside, self.order[tuple(found)], -1)


def nodes_of(places: Array, geometry: Geometry) -> Nodes:
    """The places (M, d) of a space."""
    periods = tuple(period(geometry, name) for name in geometry.coordinates)
    pairs = [np.unique(axis, return_inverse=True) for axis in places.T]
    shape = tuple(len(axis) for axis, _ in pairs)
    if min(shape[:2]) < 2 or np.prod(shape) != len(places):
        return Nodes(places, (), np.arange(len(places)), periods)
    order = np.full(shape, -1)
    order[tuple(index for _, index in pairs)] = np.arange(len(places))
    return Nodes(places, tuple(axis for axis, _ in pairs), order, periods)


def period(geometry: Geometry, name: str) -> float:
    """The period of a coordinate: its whole extent, if both ends are one place; else 0."""
    low, high = geometry.extent[name]
    middle = torch.tensor([sum(geometry.extent[other]) / 2 for other in geometry.coordinates])
    ends = middle.double().repeat(2, 1)
    ends[:, geometry.coordinates.index(name)] = torch.tensor([low, high], dtype=torch.float64)
    first, last = seen(geometry, geometry.embed(ends))
    return high - low if bool((first - last).abs().max() < SAME_PLACE) else 0.0


def _nearest(axis: Array, x: Array, period: float) -> Indices:
    """The index of the nearest node, −1 where x is NaN or further from it than its neighbours are."""
    steps = np.diff(axis) if len(axis) > 1 else np.array([np.inf])
    reach = float(steps.max()) * (1 + 1e-9)
    nodes = axis
    if period and axis[-1] + reach * 1.5 > axis[0] + period:
        x, nodes = axis[0] + (x - axis[0]) % period, np.append(axis, axis[0] + period)
    known = np.nan_to_num(x, nan=np.inf)
    above = np.searchsorted((nodes[1:] + nodes[:-1]) / 2, known)
    return np.where(np.abs(nodes[above] - known) <= reach, above % len(axis), -1)
