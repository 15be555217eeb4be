"""How a space lies on paper: charts, an orthographic globe, and cuts through a ball.

A view takes points of the space to the plane of a panel (`project`) and a place of the panel back to
coordinates (`invert`). Which views a space has follows from its coordinates: longitude and latitude make
a globe and a map, a radius as well makes a shell and two cuts, all others a chart of the first two.

The globe is an orthographic projection, as seen from far away: with the frame (e, n, o) at the middle of
the disc, eastward, northward and outward, a unit vector v lies at (v·e, v·n), and is seen if v·o > 0.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from pdeforecast.geometry import Geometry
from pdeforecast.plot.canvas import PANEL
from pdeforecast.plot.labels import bearing, label, quantity
from pdeforecast.plot.nodes import Nodes
from pdeforecast.plot.scene import Array

SPHERICAL = ("longitude", "latitude")
_HIGHEST = 40.0
"""Globes are seen from no higher latitude than this, in degrees."""


class View(ABC):
    """A panel's plane.

    Attributes:
        title: what is shown; empty if it goes without saying.
        extent: left, right, bottom and top of the panel.
        labels: of the axes, with units; empty if a view has no axes.
        disc: whether the view is the disc of radius 1.
    """

    title: str
    extent: tuple[float, float, float, float]
    labels: tuple[str, str]
    disc: bool

    @property
    def aspect(self) -> float:
        """Width over height."""
        left, right, bottom, top = self.extent
        return (right - left) / (top - bottom)

    @property
    def high(self) -> float:
        """The height in inches of a panel of the usual width."""
        return PANEL * float(np.clip(1 / self.aspect, 0.25, 2))

    @abstractmethod
    def project(self, points: Array, depth: float) -> Array:
        """Points (…, point_dim) to the panel (…, 2); NaN where not seen.

        Args:
            depth: how far from a surface or a cut a point of a ball may lie to be shown on it.
        """

    @abstractmethod
    def invert(self, xy: Array) -> Array:
        """Places (…, 2) of the panel to coordinates (…, d); NaN where the view shows nothing."""


@dataclass(frozen=True)
class Chart(View):
    """The first two coordinates as x and y; any others are held."""

    extent: tuple[float, float, float, float]
    labels: tuple[str, str]
    periods: tuple[float, ...]
    spherical: bool
    held: tuple[float, ...] = ()
    title: str = ""
    disc = False

    def project(self, points: Array, depth: float) -> Array:
        xy = spherical(points)[..., :2] if self.spherical else points[..., :2].copy()
        for i, period in enumerate(self.periods[:2]):
            if period:
                low = self.extent[2 * i]
                xy[..., i] = low + (xy[..., i] - low) % period
        return xy

    def invert(self, xy: Array) -> Array:
        held = [np.full(xy.shape[:-1], value) for value in self.held]
        return np.stack([xy[..., 0], xy[..., 1], *held], axis=-1)


@dataclass(frozen=True)
class Globe(View):
    """The sphere, or a shell of the ball, from far above a place."""

    longitude: float
    latitude: float
    radius: float | None = None
    title: str = ""
    extent = (-1.0, 1.0, -1.0, 1.0)
    labels = ("", "")
    disc = True

    @property
    def frame(self) -> Array:
        """The rows eastward, northward, outward, at the middle of the disc."""
        lon, lat = np.deg2rad([self.longitude, self.latitude])
        out = [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]
        north = [-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)]
        return np.array([[-np.sin(lon), np.cos(lon), 0.0], north, out])

    def project(self, points: Array, depth: float) -> Array:
        seen = points @ self.frame.T
        hidden = seen[..., 2] <= 0
        if self.radius is not None:
            hidden |= np.abs(np.linalg.norm(points, axis=-1) - self.radius) > depth
            seen = seen / max(self.radius, 1e-9)
            hidden |= (seen[..., :2] ** 2).sum(-1) > 1 + 1e-9
        return np.where(hidden[..., None], np.nan, seen[..., :2])

    def invert(self, xy: Array) -> Array:
        beyond = (xy**2).sum(-1) > 1
        out = np.sqrt(np.clip(1 - (xy**2).sum(-1), 0, 1))
        places = spherical(np.concatenate([xy, out[..., None]], axis=-1) @ self.frame)
        places[..., 2] = np.nan if self.radius is None else self.radius
        places[beyond] = np.nan
        return places[..., : 2 if self.radius is None else 3]


@dataclass(frozen=True)
class Cut(View):
    """A plane through the centre of the unit ball, spanned by two unit vectors."""

    across: tuple[float, float, float]
    up: tuple[float, float, float]
    labels: tuple[str, str]
    title: str
    extent = (-1.0, 1.0, -1.0, 1.0)
    disc = True

    def project(self, points: Array, depth: float) -> Array:
        xy = points @ np.array([self.across, self.up]).T
        off = np.abs(points @ np.cross(self.across, self.up)) > depth
        return np.where(off[..., None], np.nan, xy)

    def invert(self, xy: Array) -> Array:
        places = spherical(xy @ np.array([self.across, self.up]))
        places[(xy**2).sum(-1) > 1] = np.nan
        return places


def spherical(points: Array) -> Array:
    """Longitude and latitude in degrees, and radius, (…, 3) of vectors (…, 3)."""
    x, y, z = np.moveaxis(points, -1, 0)
    longitude = np.rad2deg(np.arctan2(y, x)) % 360
    return np.stack(
        [longitude, np.rad2deg(np.arctan2(z, np.hypot(x, y))), np.linalg.norm(points, axis=-1)], -1
    )


def views_of(geometry: Geometry, nodes: Nodes, towards: Array) -> list[View]:
    """The views of a space.

    Args:
        towards: the coordinates (d,) of a place that globes should turn to the reader; of a ball, its
            shell is drawn.
    """
    if geometry.coordinates[:2] != SPHERICAL:
        return [_chart(geometry, nodes)]
    longitude, latitude = round(float(towards[0])), float(np.clip(round(towards[1]), -_HIGHEST, _HIGHEST))
    from_where = f"from {bearing(longitude, latitude)}"
    if len(geometry.coordinates) == 2:
        return [Globe(longitude, latitude, title=from_where), _chart(geometry, nodes)]
    radius = float(towards[2])
    name, unit = geometry.coordinates[2], geometry.units[geometry.coordinates[2]]
    turn = np.deg2rad(longitude)
    across = (float(np.cos(turn)), float(np.sin(turn)), 0.0)
    shell = f"shell at {name} {quantity(round(radius, 3), unit)}" if nodes.axes else "front half"
    return [
        Globe(longitude, latitude, radius if nodes.axes else 1.0, f"{shell}\n{from_where}"),
        Cut((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (label("x", unit), label("y", unit)), "equator"),
        Cut(across, (0.0, 0.0, 1.0), (label(f"towards {longitude}° E", unit), label("z", unit)), "meridian"),
    ]


def _chart(geometry: Geometry, nodes: Nodes) -> Chart:
    names = geometry.coordinates
    across, up = (label(name, geometry.units[name]) for name in names[:2])
    held = tuple(float(axis[len(axis) // 2]) for axis in _axes(nodes)[2:])
    where = [
        f"{name} {quantity(value, geometry.units[name])}" for name, value in zip(names[2:], held, strict=True)
    ]
    title = "at " + ", ".join(where) if where else ""
    left, right = _span(geometry, nodes, 0)
    bottom, top = _span(geometry, nodes, 1)
    angles = names[:2] == SPHERICAL
    return Chart((left, right, bottom, top), (across, up), nodes.periods, angles, held, title)


def _axes(nodes: Nodes) -> list[Array]:
    return list(nodes.axes) or [np.unique(axis) for axis in nodes.places.T]


def _span(geometry: Geometry, nodes: Nodes, i: int) -> tuple[float, float]:
    """From edge to edge of the cells of a grid; of loose places, all of the space."""
    if nodes.axes:
        axis = nodes.axes[i]
        return float(1.5 * axis[0] - 0.5 * axis[1]), float(1.5 * axis[-1] - 0.5 * axis[-2])
    low, high = geometry.extent[geometry.coordinates[i]]
    places = nodes.places[:, i]
    if nodes.periods[i]:
        return low, high
    return float(min(low, places.min())), float(max(high, places.max()))
