"""Pictures of forecasts: maps, and error over lead time.

Forecast and truth share one colour scale, taken from the truth, so that a forecast that leaves its
range shows as saturated. Signed fields are symmetric about 0, in colours that colour-blind readers
tell apart. With a truth, everything is drawn at the places that both have: a grid as an image, loose
points as dots. Of several variables the first is drawn.

Every function builds a `Figure` of its own and leaves matplotlib's global state alone.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MultipleLocator, StrMethodFormatter
from numpy.typing import NDArray
from torch import Tensor

from pdeforecast.errors import DataError, UsageError
from pdeforecast.geometry import Geometry
from pdeforecast.metrics import relative_l2
from pdeforecast.trajectory import (
    SAME_TIME,
    check_target,
    geometry_of,
    is_grid,
    match,
    samples,
    trajectory_values,
)

Array = NDArray[np.float64]
Panels = NDArray[np.object_]

FORMATS = ("png", "pdf", "svg")
COLUMNS = 5
"""At most so many lead times in one picture."""
PANEL = 1.7
"""The width of a map, in inches."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 0.75, 0.75, 0.3, 0.5
_BESIDE, _BETWEEN, _BAR, _CURVES = 0.12, 0.22, 0.09, 1.3

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_GREY = "#8c8c8c"
_OFFSET: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 9}
_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
}


# --- the figures ---------------------------------------------------------------------------------


@rc_context(_STYLE)
def forecast(ds: xr.Dataset, truth: xr.Dataset | None = None, sample: int = 0) -> Figure:
    """One sample at a few lead times; with a truth, also its error, and the error over lead time.

    Args:
        sample: which one, counted from 0 among those of `ds`, or those that it shares with `truth`.

    Raises:
        UsageError: if there is no such sample.
        DataError: as `match` does.
    """
    scene = _alone(ds) if truth is None else _compared(ds, truth)
    scene.check_sample(sample)
    shown = np.unique(np.linspace(0, len(scene.leads) - 1, COLUMNS).round().astype(int))
    below = 0.0 if truth is None else _CURVES + _BOTTOM + _TOP
    figure, panels = _canvas(scene, len(scene.fields), len(shown), below=below)
    _film(panels, scene, sample, shown)
    if truth is not None:
        width, height = figure.get_size_inches()
        across = (1 - (_LEFT + _RIGHT) / width, _CURVES / height)
        axes = figure.add_axes((_LEFT / width, _BOTTOM / height, *across))
        _error_over_lead_time(axes, {"forecast": scene})
    return figure


@rc_context(_STYLE)
def triptych(
    truth: xr.Dataset,
    forecasts: Mapping[str, xr.Dataset],
    lead_time: float,
    sample: int = 0,
    states: Mapping[str, xr.Dataset] | None = None,
) -> Figure:
    """Truth | forecast | error at one lead time, a row for each of several forecasts.

    Args:
        forecasts: by label.
        states: what forecasts were made from, by label. The observed places are marked on the
            truth, unless they are the whole of a grid.

    Raises:
        UsageError: if there is no forecast, or none of this sample or lead time.
        DataError: as `match` does.
    """
    scenes = _scenes(truth, forecasts)
    rows = [scene.frame(sample, lead_time) for scene in scenes.values()]
    scales = _scales({name: [row[name] for row in rows] for name in rows[0]})
    scene = next(iter(scenes.values()))
    figure, panels = _canvas(scene, len(rows), 3, above=0.35, below=0.4)
    for line, row, (label, own) in zip(panels, rows, scenes.items(), strict=True):
        for axes, name in zip(line, ("truth", "forecast", "error"), strict=True):
            _map(axes, own, row[name], scales[name])
        _beside(line[0], label)
        _note(line[2], own.errors["forecast"][sample, own.index(lead_time)])
        if states and label in states:
            _mark(line[0], own, states[label], sample)
    moment = f"{scene.clock} {_quantity(lead_time, scene.clock_unit)}"
    for axes, title in zip(panels[0], (f"truth at {moment}", "forecast", "forecast − truth"), strict=True):
        _above(axes, title)
    _label_axes(panels, scene.geometry)
    _bar_below(scales["truth"], panels[:, :2], scene.title)
    _bar_below(scales["error"], panels[:, 2:], "error")
    return figure


@rc_context(_STYLE)
def curves(truth: xr.Dataset, forecasts: Mapping[str, xr.Dataset]) -> Figure:
    """Error over lead time of several forecasts, by label.

    Raises:
        UsageError: if there is no forecast.
        DataError: as `match` does.
    """
    figure = Figure((6.0, 2.6), layout="constrained")
    _error_over_lead_time(figure.subplots(), _scenes(truth, forecasts))
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a picture in the format that its name ends in, beside its place, and rename it.

    Raises:
        UsageError: if the ending is none of `FORMATS`, or the folder is missing.
    """
    path = Path(path)
    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise UsageError(
            f"expected a picture as {', '.join(FORMATS)}; came {path.name!r}.",
            f"Name it {path.with_suffix('.png').name!r}.",
        )
    check_target(path, overwrite=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        figure.savefig(beside, format=kind, dpi=200, bbox_inches="tight", pad_inches=0.08)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


# --- what is drawn -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scene:
    """One variable of a forecast, and of its truth if there is one.

    Attributes:
        geometry: of the points.
        points: (M, 2), as the geometry's first two coordinates.
        leads: the T lead times, ascending.
        fields: `forecast`, `truth`, `error`, each (S, T, M); without a truth, `forecast` only.
        errors: relative L2 (S, T) of `forecast` and of `persistence`; empty without a truth.
        name: of the variable, and its unit; of the time, and its unit.
        section: where, of further coordinates, the points lie.
    """

    geometry: Geometry
    points: Array
    leads: Array
    fields: Mapping[str, Array]
    errors: Mapping[str, Array]
    name: str
    unit: str
    clock: str
    clock_unit: str
    section: str = ""

    @property
    def angular(self) -> bool:
        """Whether the map's axes are angles."""
        return all(self.geometry.units[name].startswith("degrees") for name in self.geometry.coordinates[:2])

    @property
    def title(self) -> str:
        return _label(self.name, self.unit) + self.section

    def check_sample(self, sample: int) -> None:
        count = len(self.fields["forecast"])
        if not 0 <= sample < count:
            raise UsageError(
                f"expected a sample from 0 to {count - 1}; came {sample}.", "Type `--sample 0`, or sample=0."
            )

    def index(self, lead_time: float) -> int:
        nearest = int(np.abs(self.leads - lead_time).argmin())
        if abs(self.leads[nearest] - lead_time) > SAME_TIME * max(1.0, abs(lead_time)):
            known = ", ".join(f"{lead:g}" for lead in self.leads[:12])
            raise UsageError(
                f"expected a lead time that forecast and truth share ({known}); came {lead_time:g}.",
                f"Type lead_time={self.leads[nearest]:g}, or forecast at {lead_time:g}.",
            )
        return nearest

    def frame(self, sample: int, lead_time: float) -> dict[str, Array]:
        self.check_sample(sample)
        at = self.index(lead_time)
        return {name: field[sample, at] for name, field in self.fields.items()}


def _scenes(truth: xr.Dataset, forecasts: Mapping[str, xr.Dataset]) -> dict[str, _Scene]:
    if not forecasts:
        raise UsageError("expected at least one forecast; came none.", "Type forecasts={'label': ds}.")
    return {label: _compared(ds, truth) for label, ds in forecasts.items()}


def _alone(ds: xr.Dataset) -> _Scene:
    geometry, name = geometry_of(ds), _first_variable(ds)
    unit = str(ds[name].attrs.get("units", "1"))
    times, _, values = trajectory_values(ds, geometry, {name: unit})
    places = trajectory_values(*_positions(ds, geometry))[2][0, 0]
    order = np.argsort(times)
    fields = {"forecast": _numpy(values[:, order, :, 0])}
    clock = "time" if "time" in ds.dims else "lead_time"
    leads = np.array(times)[order]
    return _flat(_Scene(geometry, _numpy(places), leads, fields, {}, name, unit, *_clock(ds, clock)))


def _flat(scene: _Scene) -> _Scene:
    """A space of three coordinates is shown on the surface through the middle of the third."""
    if scene.points.shape[1] == 2:
        return scene
    heights = np.unique(scene.points[:, 2])
    height = heights[len(heights) // 2]
    shown = scene.points[:, 2] == height
    name = scene.geometry.coordinates[2]
    return replace(
        scene,
        points=scene.points[shown, :2],
        fields={key: field[..., shown] for key, field in scene.fields.items()},
        section=f" at {name} {_quantity(height, scene.geometry.units[name])}",
    )


def _first_variable(ds: xr.Dataset) -> str:
    """The first field that evolves, else the first."""
    fields = [str(name) for name in ds.data_vars if not str(name).endswith("_variance")]
    moving = [name for name in fields if {"time", "lead_time"} & set(ds[name].dims)]
    if not fields:
        raise DataError(
            "expected a variable to draw; this Dataset has none.",
            "Give a file made by `pdeforecast forecast`.",
        )
    return (moving or fields)[0]


def _compared(ds: xr.Dataset, truth: xr.Dataset) -> _Scene:
    pair = match(ds, truth)
    name, order = pair.variables[0], np.argsort(pair.lead_times)
    f, t = pair.forecast[:, order, :, 0], pair.truth[:, order, :, 0]
    fields = {"forecast": f, "truth": t, "error": f - t}
    still = _start(ds, truth, pair.truth)[..., 0].expand_as(t)
    errors = {"forecast": relative_l2(f, t, pair.weights), "persistence": relative_l2(still, t, pair.weights)}
    return _flat(
        _Scene(
            pair.geometry,
            _numpy(_common_points(ds, truth, pair.geometry)),
            np.array(pair.lead_times)[order],
            {key: _numpy(field) for key, field in fields.items()},
            {key: _numpy(error) for key, error in errors.items()},
            name,
            str(truth[name].attrs.get("units", "1")),
            *_clock(ds if "lead_time" in ds.coords else truth, "lead_time"),
        )
    )


def _start(ds: xr.Dataset, truth: xr.Dataset, common: Tensor) -> Tensor:
    """The truth at lead time 0 (S, 1, M, V), even where nothing was forecast for it."""
    if "lead_time" not in ds.dims:
        return common[:, :1]
    first = ds.isel(lead_time=[0])
    try:
        return match(first.assign_coords(lead_time=first["lead_time"] * 0), truth).truth
    except DataError:
        return common[:, :1]


def _common_points(ds: xr.Dataset, truth: xr.Dataset, geometry: Geometry) -> Tensor:
    """The places (M, d) that both have, in the order in which `match` gives them."""
    return match(_positions(ds, geometry)[0], _positions(truth, geometry)[0]).truth[0, 0]


def _positions(ds: xr.Dataset, geometry: Geometry) -> tuple[xr.Dataset, Geometry, dict[str, str]]:
    """The coordinates as variables, and how to read them."""
    axes = xr.broadcast(*(ds[name].astype(float) for name in geometry.coordinates))
    fields = {f"{axis.name}_position": axis.assign_attrs(units="1") for axis in axes}
    return xr.Dataset(fields, attrs=ds.attrs), geometry, dict.fromkeys(fields, "1")


def _clock(ds: xr.Dataset, name: str) -> tuple[str, str]:
    """The words for the time axis, and its unit."""
    time = next((ds[dim] for dim in ("lead_time", "time") if dim in ds.coords), xr.DataArray())
    unit = "hours" if time.dtype.kind == "m" else str(time.attrs.get("units", "1"))
    return name.replace("_", " "), unit


def _numpy(values: Tensor) -> Array:
    return np.asarray(values.numpy(force=True), dtype=np.float64)


# --- maps ----------------------------------------------------------------------------------------


def _canvas(
    scene: _Scene, rows: int, columns: int, above: float = 0.0, below: float = 0.0
) -> tuple[Figure, Panels]:
    """A figure of maps in the proportions of the space, with room in inches above and below them."""
    x, y = np.ptp(scene.points, axis=0)
    high = PANEL * np.clip(y / x, 0.25, 2) if x * y > 0 else PANEL
    above, below = _TOP + above, _BOTTOM + below
    width = _LEFT + columns * (PANEL + _BESIDE) - _BESIDE + _RIGHT
    height = above + rows * (high + _BETWEEN) - _BETWEEN + below
    edges = {"left": _LEFT / width, "right": 1 - _RIGHT / width, "wspace": _BESIDE / PANEL}
    edges |= {"bottom": below / height, "top": 1 - above / height, "hspace": _BETWEEN / high}
    figure = Figure((width, height))
    shared: Any = {"sharex": True, "sharey": True, "squeeze": False}
    return figure, figure.subplots(rows, columns, **shared, gridspec_kw=edges)


def _film(panels: Panels, scene: _Scene, sample: int, shown: NDArray[np.int_]) -> None:
    """A column for each lead time shown, a row for each field."""
    fields = {name: field[sample, shown] for name, field in scene.fields.items()}
    scales = _scales({name: list(field) for name, field in fields.items()})
    for line, (name, field) in zip(panels, fields.items(), strict=True):
        for axes, frame in zip(line, field, strict=True):
            _map(axes, scene, frame, scales[name])
        _beside(line[0], name)
    for axes, lead in zip(panels[0], scene.leads[shown], strict=True):
        axes.set_title(f"{scene.clock} {_quantity(lead, scene.clock_unit)}", pad=4)
    _label_axes(panels, scene.geometry)
    _bar_right(scales["forecast"], panels[:2], scene.title)
    if "error" in fields:
        _bar_right(scales["error"], panels[2:], "forecast − truth")
        for axes, error in zip(panels[2], scene.errors["forecast"][sample, shown], strict=True):
            _note(axes, error)


def _scales(fields: Mapping[str, Sequence[Array]]) -> dict[str, ScalarMappable]:
    """The colours of each field: one scale for forecast and truth, another for the error."""
    flat = {name: np.concatenate([np.ravel(frame) for frame in frames]) for name, frames in fields.items()}
    shared = _scale(flat.get("truth", flat["forecast"]), flat["forecast"], "RdBu_r")
    scales = {"forecast": shared, "truth": shared}
    if "error" in flat:
        scales["error"] = _scale(np.concatenate([flat["error"], -flat["error"]]), flat["error"], "PuOr_r")
    return scales


def _scale(reference: Array, drawn: Array, diverging: str) -> ScalarMappable:
    """From the range of `reference`; with arrows on the bar if what is drawn exceeds it."""
    reference, drawn = (values[np.isfinite(values)] for values in (reference, drawn))
    low, high = (reference.min(), reference.max()) if reference.size else (0.0, 1.0)
    signed = low < 0 < high
    if signed:
        low, high = -max(-low, high), max(-low, high)
    below, above = bool((drawn < low).any()), bool((drawn > high).any())
    colours = colormaps[diverging if signed or low == high else "viridis"]
    extend = "both" if below and above else "min" if below else "max" if above else "neither"
    colours.colorbar_extend = extend  # type: ignore[assignment]  # matplotlib's stub says bool
    return ScalarMappable(Normalize(low, high if high > low else low + 1), colours)


def _map(axes: Axes, scene: _Scene, values: Array, scale: ScalarMappable) -> None:
    """A grid as an image, loose points as dots; what is unknown stays grey."""
    raster = _raster(scene.points, values)
    colours: Any = {"norm": scale.norm, "cmap": scale.cmap}
    if raster is not None:
        axes.pcolormesh(*raster, shading="nearest", rasterized=True, **colours)
    else:
        x, y = scene.points.T
        axes.scatter(x, y, np.clip(6000 / len(values), 2, 40), values, linewidths=0, **colours)
    axes.set_aspect("equal")
    axes.set_facecolor("0.85")
    if scene.angular:
        axes.xaxis.set_major_locator(MultipleLocator(90))
        axes.yaxis.set_major_locator(MultipleLocator(45))
    else:
        axes.locator_params(nbins=3)
    axes.label_outer()


def _raster(points: Array, values: Array) -> tuple[Array, Array, Array] | None:
    """The axes x, y and the image (y, x), if the points are all the nodes of a grid."""
    (x, column), (y, row) = (np.unique(axis, return_inverse=True) for axis in points.T)
    if min(len(x), len(y)) < 2 or len(x) * len(y) != len(points):
        return None
    image = np.full((len(y), len(x)), np.nan)
    image[row, column] = values
    return x, y, image


def _mark(axes: Axes, scene: _Scene, state: xr.Dataset, sample: int) -> None:
    """Dots where a state was observed."""
    unit = str(state[scene.name].attrs.get("units", "1"))
    seen = samples(state, scene.geometry, {scene.name: unit})
    observed = ~seen.values[sample if len(seen.values) > 1 else 0, :, 0].isnan()
    if not (is_grid(state, scene.geometry) and bool(observed.all())):
        places = trajectory_values(*_positions(state, scene.geometry))[2][0, 0]
        x, y = _numpy(places[observed, :2]).T
        axes.scatter(x, y, 2.5, "black", linewidths=0)


def _bar_right(scale: ScalarMappable, panels: Panels, label: str) -> None:
    figure, first, last = panels[0, 0].figure, panels[0, 0].get_position(), panels[-1, -1].get_position()
    inch = 1 / figure.get_figwidth()
    box = (last.x1 + _BESIDE * inch, last.y0, _BAR * inch, first.y1 - last.y0)
    figure.colorbar(scale, cax=figure.add_axes(box, label="<colorbar>"), label=label)


def _bar_below(scale: ScalarMappable, panels: Panels, label: str) -> None:
    figure, first, last = panels[0, 0].figure, panels[0, 0].get_position(), panels[-1, -1].get_position()
    inch = 1 / figure.get_figheight()
    box = (first.x0, last.y0 - _BOTTOM * inch, last.x1 - first.x0, _BAR * inch)
    figure.colorbar(
        scale, cax=figure.add_axes(box, label="<colorbar>"), label=label, orientation="horizontal"
    )


def _beside(axes: Axes, text: str) -> None:
    axes.annotate(text, (0, 0.5), (-36, 0), **_OFFSET, rotation=90, ha="right", va="center")


def _above(axes: Axes, text: str) -> None:
    axes.annotate(text, (0.5, 1), (0, 16), **_OFFSET, ha="center", va="bottom")


def _note(axes: Axes, error: float) -> None:
    axes.set_title(f"relative $L_2$ {error:.2g}", fontsize=7.5, pad=3)


def _label_axes(panels: Panels, geometry: Geometry) -> None:
    across, up = (_label(name, geometry.units[name]) for name in geometry.coordinates[:2])
    for axes in panels[-1]:
        axes.set_xlabel(across)
    for axes in panels[:, 0]:
        axes.set_ylabel(up)


# --- curves --------------------------------------------------------------------------------------


def _error_over_lead_time(axes: Axes, scenes: Mapping[str, _Scene]) -> None:
    """The mean over samples within the range from the least to the greatest; persistence in grey."""
    for i, (label, scene) in enumerate(scenes.items()):
        errors, colour = scene.errors["forecast"], _COLOURS[i % len(_COLOURS)]
        axes.plot(scene.leads, errors.mean(0), ".-", color=colour, markersize=4, linewidth=1.2, label=label)
        axes.fill_between(scene.leads, errors.min(0), errors.max(0), color=colour, alpha=0.15, linewidth=0)
    longest = max(scenes.values(), key=lambda scene: len(scene.leads))
    still = longest.errors["persistence"].mean(0)
    axes.plot(longest.leads, still, ".--", color=_GREY, markersize=3, linewidth=1.2, label="persistence")
    if len(errors) > 1:
        axes.fill_between(
            [], [], color=_GREY, alpha=0.25, linewidth=0, label=f"range of {len(errors)} samples"
        )
    _error_scale(axes)
    axes.set_xlabel(_label(longest.clock, longest.clock_unit))
    axes.set_ylabel("relative $L_2$ error")
    axes.margins(x=0.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)


def _error_scale(axes: Axes) -> None:
    """Logarithmic where errors span more than a decade."""
    errors = np.concatenate([np.asarray(line.get_ydata()) for line in axes.lines])
    known = errors[np.isfinite(errors) & (errors > 0)]
    if known.size and known.max() > 10 * known.min():
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.minorticks_off()
    else:
        axes.set_ylim(bottom=0)


# --- words ---------------------------------------------------------------------------------------


def _label(name: str, unit: str) -> str:
    unit = "°" if unit.startswith("degrees") else unit
    return name if unit in ("1", "") else f"{name} ({unit})"


def _quantity(number: float, unit: str) -> str:
    return f"{number:g}" if unit in ("1", "") else f"{number:g} {unit}"
