"""A forecast as one HTML file that needs nothing else: a time slider, and values under the pointer.

The file holds, for every view, which place each of its pixels shows, and for every variable and lead time
the values at the places, as base64 of little-endian unsigned 16-bit integers n:

    value = offset + scale · n,      n = 65535 where nothing is known

so a value is off by no more than scale / 2. Errors are differences of what is decoded.
"""

import base64
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from numpy.typing import NDArray

from pdeforecast.errors import UsageError
from pdeforecast.forecaster import Forecaster
from pdeforecast.plot.colours import scales
from pdeforecast.plot.labels import pretty
from pdeforecast.plot.panels import Stage, stage_of
from pdeforecast.plot.poses import Poses, poses_of
from pdeforecast.plot.scene import Array, Scene, scenes
from pdeforecast.plot.views import Chart, View

UNKNOWN = 65535
"""The code of what is not known."""
_PIXELS, _DOTTED = 220, 320
"""Across a disc or a chart of uneven axes, and where places are loose."""
_LARGEST = 2**26
"""Bytes of values in one page; a browser would not open many more."""


def page(
    ds: xr.Dataset,
    truth: xr.Dataset | None = None,
    sample: int = 0,
    variable: str | None = None,
    model: Forecaster | None = None,
) -> str:
    """The HTML of one sample, with all of its variables.

    Args and errors are those of `plot.forecast`; `variable` is the one that is shown first.

    Raises:
        UsageError: if it would be too large to open.
    """
    known = {scene.name: scene for scene in scenes(ds, truth)}
    first = known[_chosen(known, variable)]
    first.check_sample(sample)
    size = 2 * len(known) * (1 if truth is None else 2) * first.fields["forecast"][0].size
    if size > _LARGEST:
        raise UsageError(
            f"expected a page of at most {_LARGEST >> 20} MB; these values take {size >> 20} MB.",
            "Forecast on a coarser grid or fewer lead times, or write a film: `-o NAME.mp4`.",
        )
    stage = stage_of(first, sample)
    poses = None if model is None else poses_of(model, ds, truth, first.leads.tolist(), sample)
    content = {
        "sample": sample,
        "clock": {"name": first.clock, "unit": _unit(first.clock_unit)},
        "leads": first.leads.tolist(),
        "unknown": UNKNOWN,
        "start": first.name,
        "coordinates": [
            {"name": name, "unit": _unit(first.geometry.units[name]), **encoded(first.places[:, i])}
            for i, name in enumerate(first.geometry.coordinates)
        ],
        "views": [_view(stage, view, poses, first.leads) for view in stage.views],
        "variables": [_variable(scene, sample) for scene in known.values()],
        "colours": {name: _colours(name) for name in ("RdBu_r", "PuOr_r", "viridis")},
    }
    text = json.dumps(content, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    template = files("pdeforecast.plot").joinpath("page.html").read_text(encoding="utf-8")
    return template.replace("__CONTENT__", text)


def _chosen(known: Mapping[str, Scene], variable: str | None) -> str:
    if variable is not None and variable not in known:
        raise UsageError(
            f"expected a variable among {', '.join(known)}; came {variable!r}.",
            f"Type `--variable {next(iter(known))}`.",
        )
    return variable or next(iter(known))


def encoded(values: Array) -> dict[str, Any]:
    """Values of any shape as scale, offset and data."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    scale = (high - low) / (UNKNOWN - 1) or 1.0
    codes = np.where(np.isfinite(values), np.round((np.nan_to_num(values) - low) / scale), UNKNOWN)
    return {"scale": scale, "offset": low, "data": _base64(codes.astype("<u2"))}


def decoded(coded: Mapping[str, Any]) -> Array:
    """What the page's own program makes of `encoded` values, flat."""
    codes = np.frombuffer(base64.b64decode(coded["data"]), "<u2")
    return np.where(codes == UNKNOWN, np.nan, coded["offset"] + coded["scale"] * codes)


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _view(stage: Stage, view: View, poses: Poses | None, leads: Array) -> dict[str, Any]:
    width, height = _resolution(stage, view)
    pixels = stage.pixels(view, width, height)
    made: dict[str, Any] = {
        "title": view.title.replace("\n", ", "),
        "labels": list(view.labels),
        "extent": list(view.extent),
        "disc": view.disc,
        "width": width,
        "height": height,
        "pixels": _base64(pixels.astype("<i4")),
    }
    if poses is not None:
        left, right, bottom, top = view.extent
        at = [int(np.abs(poses.leads - lead).argmin()) for lead in leads]
        xy = view.project(poses.places[at], 0.6 * poses.spacing)
        share = (xy - [left, bottom]) / [right - left, top - bottom]
        made["poses"] = [
            [[round(x, 4), round(y, 4)] for x, y in frame[np.isfinite(frame).all(-1)].tolist()]
            for frame in share
        ]
    return made


def _resolution(stage: Stage, view: View) -> tuple[int, int]:
    """A pixel for each node of an even grid, otherwise as many as a screen shows."""
    if isinstance(view, Chart) and stage.nodes.axes:
        x, y = stage.nodes.axes[:2]
        if all(np.allclose(np.diff(axis), np.diff(axis).mean(), rtol=1e-4) for axis in (x, y)):
            return len(x), len(y)
    width = _PIXELS if stage.nodes.axes else _DOTTED
    return width, max(1, round(width / view.aspect))


def _variable(scene: Scene, sample: int) -> dict[str, Any]:
    fields = {name: field[sample] for name, field in scene.fields.items()}
    return {
        "name": scene.name,
        "unit": _unit(scene.unit),
        "what": scene.what,
        "colours": {
            name: {"limits": list(scale.get_clim()), "map": scale.cmap.name}
            for name, scale in scales({name: list(field) for name, field in fields.items()}).items()
        },
        "fields": {name: encoded(fields[name]) for name in ("truth", "forecast") if name in fields},
        "errors": [_number(error) for error in scene.errors["forecast"][sample]] if scene.errors else [],
    }


def _number(value: float) -> float | None:
    """A number that JSON can hold."""
    return float(value) if np.isfinite(value) else None


def _unit(unit: str) -> str:
    return "" if unit in ("1", "") else pretty(unit)


def _colours(name: str) -> str:
    table = colormaps[name](np.arange(256), bytes=True)[:, :3]
    return _base64(np.asarray(table, dtype=np.uint8))
