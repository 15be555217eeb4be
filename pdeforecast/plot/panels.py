"""A field in a view: a grid as an image, loose places as dots."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator, MultipleLocator

from pdeforecast.geometry import Geometry
from pdeforecast.plot.colours import UNKNOWN
from pdeforecast.plot.nodes import Indices, Nodes, nodes_of
from pdeforecast.plot.scene import Array, Scene
from pdeforecast.plot.views import Chart, Cut, Globe, View, views_of

PIXELS = 240
"""Across a disc."""
SLAB = 0.12
"""Loose places no further than this from a cut are shown on it, in radii."""
Update = Callable[[Array], None]
"""Shows other values (M,) in a panel that is drawn already."""


@dataclass(frozen=True)
class Stage:
    """Where a scene's fields are drawn: its places, and the views of them."""

    geometry: Geometry
    nodes: Nodes
    views: tuple[View, ...]

    @property
    def points(self) -> Array:
        """The places as points of the space, (M, point_dim)."""
        return np.asarray(self.geometry.embed(torch.from_numpy(self.nodes.places)).numpy())

    def pixels(self, view: View, width: int, height: int) -> Indices:
        """Which of the M places each pixel (height, width) shows, −1 for none; the first row lies below."""
        left, right, bottom, top = view.extent
        if not self.nodes.axes:
            xy = view.project(self.points, SLAB if isinstance(view, Cut) else np.inf)
            corner = np.array([left, bottom])
            return _dotted((xy - corner) / (np.array([right, top]) - corner), width, height)
        x = left + (np.arange(width) + 0.5) / width * (right - left)
        y = bottom + (np.arange(height) + 0.5) / height * (top - bottom)
        return self.nodes.nearest(view.invert(np.stack(np.meshgrid(x, y), axis=-1)))


def _dotted(xy: Array, width: int, height: int) -> Indices:
    """A dot (radius in pixels) around each of the places (M, 2) in the unit square; NaN is not shown."""
    radius = float(np.clip(0.35 * np.sqrt(width * height / len(xy)), 2, 0.025 * width))
    found = np.full((height, width), -1)
    rows, columns = np.mgrid[:height, :width] + 0.5
    for i in np.flatnonzero(np.isfinite(xy).all(-1)):
        x, y = xy[i] * (width, height)
        low, left = max(0, int(y - radius)), max(0, int(x - radius))
        near = (slice(low, int(y + radius) + 2), slice(left, int(x + radius) + 2))
        found[near][np.hypot(rows[near] - y, columns[near] - x) <= radius] = i
    return found


def stage_of(scene: Scene, sample: int) -> Stage:
    """The stage of one sample; globes turn to where its field is furthest from its mean."""
    reference = scene.fields.get("truth", scene.fields["forecast"])[sample]
    nodes = nodes_of(scene.places, scene.geometry)
    towards = scene.places[_eventful(nodes, reference)]
    return Stage(scene.geometry, nodes, tuple(views_of(scene.geometry, nodes, towards)))


def _eventful(nodes: Nodes, field: Array) -> int:
    """Where a field (T, M) is furthest from its mean; in a ball, on the shell where it varies most."""
    shells = nodes.shells
    values = field[:, shells]
    finite = np.isfinite(values)
    counts = np.maximum(finite.sum((0, 2), keepdims=True), 1)
    squares = (np.nan_to_num(values - np.nansum(values, (0, 2), keepdims=True) / counts) ** 2).sum(0)
    area = np.cos(np.deg2rad(nodes.places[shells, 1])) if len(shells) > 1 else np.ones(1)
    outward = len(shells) - 1 - int((squares * area).sum(1)[::-1].argmax())
    return int(shells[outward, np.where(finite[:, outward].any(0), squares[outward], -1.0).argmax()])


def draw(axes: Axes, stage: Stage, view: View, values: Array, scale: ScalarMappable) -> Update:
    """Draws values (M,) in a view; what is unknown stays grey."""
    colours = {"norm": scale.norm, "cmap": scale.cmap}
    update = (_image if stage.nodes.axes else _dots)(axes, stage, view, values, colours)
    axes.set(xlim=view.extent[:2], ylim=view.extent[2:], aspect="equal")
    if view.disc:
        _frame_disc(axes, view)
    else:
        axes.set_facecolor(UNKNOWN)
    _ticks(axes, view)
    return update


def label_axes(axes: Axes, view: View, below: bool, left: bool) -> None:
    """Names and numbers along the axes where they are wanted; under a panel also what it shows."""
    across, up = view.labels
    if below:
        axes.set_xlabel("\n".join(part for part in (across, view.title) if part))
    else:
        axes.tick_params(labelbottom=False, bottom=not view.disc)
    if left:
        axes.set_ylabel(up, labelpad=1 if view.disc else 3)
    else:
        axes.tick_params(labelleft=False, left=not view.disc)


def _image(axes: Axes, stage: Stage, view: View, values: Array, colours: dict[str, object]) -> Update:
    if isinstance(view, Chart):
        order = stage.nodes.order.T
        for axis in reversed(stage.nodes.axes[2:]):  # transposed: the last coordinate comes first
            order = order[len(axis) // 2]
        x, y = stage.nodes.axes[:2]
        mesh = axes.pcolormesh(x, y, values[order], shading="nearest", rasterized=True, **colours)  # type: ignore[arg-type]
        return lambda new: mesh.set_array(new[order])
    pixels = stage.pixels(view, PIXELS, PIXELS)
    image = axes.imshow(
        _shown(values, pixels),
        origin="lower",
        extent=view.extent,
        interpolation="nearest",
        **colours,  # type: ignore[arg-type]
    )
    image.set_clip_path(Circle((0, 0), 1, transform=axes.transData))
    return lambda new: image.set_data(_shown(new, pixels))


def _shown(values: Array, pixels: Indices) -> Array:
    return np.where(pixels >= 0, values[pixels], np.nan)


def _dots(axes: Axes, stage: Stage, view: View, values: Array, colours: dict[str, object]) -> Update:
    xy = view.project(stage.points, SLAB if isinstance(view, Cut) else np.inf)
    seen = np.isfinite(xy).all(-1)
    size = np.clip(4000 / len(values), 3, 30)
    dots = axes.scatter(*xy[seen].T, size, values[seen], linewidths=0.3, edgecolors="0.35", **colours)  # type: ignore[arg-type, misc]
    return lambda new: dots.set_array(new[seen])


def _frame_disc(axes: Axes, view: View) -> None:
    """A disc instead of a box; on a globe, meridians and parallels every 30 degrees."""
    axes.add_patch(Circle((0, 0), 1, facecolor=UNKNOWN, edgecolor="none", zorder=-1))
    axes.add_patch(
        Circle((0, 0), 1, facecolor="none", edgecolor="0.2", linewidth=0.7, clip_on=False, zorder=5)
    )
    axes.set_facecolor("none")
    axes.set_frame_on(False)
    if isinstance(view, Globe):
        for line in _graticule():
            axes.plot(
                *view.project(line * (view.radius or 1.0), 1e-6).T, color="0.25", linewidth=0.3, alpha=0.5
            )


def _graticule() -> list[Array]:
    """Meridians and parallels every 30 degrees, as unit vectors (…, 3)."""
    fine = np.deg2rad(np.linspace(-180, 180, 181))
    lines = [(np.full(181, np.deg2rad(longitude)), fine / 2) for longitude in range(0, 360, 30)]
    lines += [(fine, np.full(181, np.deg2rad(latitude))) for latitude in range(-60, 90, 30)]
    return [np.stack([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)], axis=-1) for a, b in lines]


def _ticks(axes: Axes, view: View) -> None:
    left, right, bottom, top = view.extent
    if not any(view.labels):
        axes.set(xticks=[], yticks=[])
    elif isinstance(view, Chart) and view.spherical and right - left > 180 and top - bottom > 90:
        axes.xaxis.set_major_locator(MultipleLocator(90))
        axes.yaxis.set_major_locator(MultipleLocator(45))
    elif view.disc:
        axes.set(xticks=[-0.5, 0, 0.5], yticks=[-0.5, 0, 0.5])
    else:
        # Without the last number along x: the first one of the next panel stands there.
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10], prune="upper"))
        axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
