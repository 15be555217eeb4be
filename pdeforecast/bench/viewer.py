"""A forecast beside its truth, as the data of an interactive picture that needs nothing from outside.

Truth and error on a grid are held in 16-bit steps of their ranges and written as base64; `page/viewer.js`
draws them, and the forecast as their sum, in the truth's colours. Of a space of three coordinates the middle
of the third is shown.
"""

import base64
import json
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor

from pdeforecast.errors import DataError
from pdeforecast.metrics import relative_l2
from pdeforecast.trajectory import Matched, axes_of, geometry_of, grid_dims, is_grid, match

STEPS = 65535


def viewer(forecast: xr.Dataset, truth: xr.Dataset, title: str, sample: int = 0) -> str:
    """The HTML of a viewer; it comes to life with `page/viewer.js`.

    Raises:
        DataError: if the two have no grid or nothing else in common.
    """
    geometry = geometry_of(truth)
    if not (is_grid(forecast, geometry) and is_grid(truth, geometry)):
        raise DataError(
            "expected a forecast and a truth on a grid; came loose points.",
            "Forecast on a grid: `pdeforecast forecast … --grid 64x64`.",
        )
    # Fields are flattened in the order of the truth's dimensions; rows must ascend for the picture.
    truth = truth.sortby(list(grid_dims(geometry)))
    pair = match(forecast, truth)
    shape = _shape(forecast, truth, pair)
    fields = [_slices(u[sample], shape) for u in (pair.forecast, pair.truth)]
    order = np.argsort(pair.lead_times)
    data = {
        "leads": [round(float(pair.lead_times[i]), 6) for i in order],
        "clock": _clock(forecast),
        "rows": shape[-2],
        "columns": shape[-1],
        "aspect": _aspect(truth),
        "variables": [
            _variable(name, str(truth[name].attrs.get("units", "1")), *(u[order, ..., v] for u in fields))
            | {"errors": _errors(pair, v, sample, order)}
            for v, name in enumerate(pair.variables)
        ],
    }
    packed = json.dumps(data).replace("</", "<\\/")
    return (
        f'<h3>{escape(title)}</h3>\n<div class="viewer">'
        f'<script type="application/json">{packed}</script></div>'
    )


def _shape(forecast: xr.Dataset, truth: xr.Dataset, pair: Matched) -> list[int]:
    """The sizes of the grid that both have."""
    own, other = axes_of(truth, pair.geometry), axes_of(forecast, pair.geometry)
    shape = [min(len(own[name]), len(other[name])) for name in grid_dims(pair.geometry)]
    if int(np.prod(shape)) != pair.truth.shape[-2]:
        raise DataError(
            f"expected a grid in common; forecast and truth share {pair.truth.shape[-2]} places.",
            "Forecast on the truth's own grid: `pdeforecast forecast … --like TRUTH.nc`.",
        )
    return shape


def _slices(values: Tensor, shape: Sequence[int]) -> NDArray[Any]:
    """Fields (T, M, V) as pictures (T, rows, columns, V)."""
    fields = values.numpy().reshape(len(values), *shape, -1)
    return fields[:, shape[0] // 2] if len(shape) == 3 else fields


def _variable(name: str, unit: str, forecast: NDArray[Any], truth: NDArray[Any]) -> dict[str, Any]:
    known = truth[np.isfinite(truth)]
    low, high = float(known.min()), float(known.max())
    signed = low < 0 < high
    if signed:
        high = max(-low, high)
        low = -high
    error = np.nan_to_num(forecast - truth)
    most = float(np.abs(error).max()) or 1.0
    return {
        "name": name,
        "unit": unit,
        "range": [low, high if high > low else low + 1],
        "error_range": [-most, most],
        "colours": table("RdBu_r" if signed else "viridis"),
        "error_colours": table("PuOr_r"),
        "truth": packed(truth, low, high),
        "error": packed(error, -most, most),
    }


def packed(values: NDArray[Any], low: float, high: float) -> str:
    """Values as 16-bit little-endian steps from `low` to `high`, in base64; beyond them, the ends."""
    share = np.clip((np.nan_to_num(values) - low) / ((high - low) or 1.0), 0, 1)
    return base64.b64encode(np.round(STEPS * share).astype("<u2").tobytes()).decode()


def table(name: str) -> str:
    """The 256 colours of a colour map, six hexadecimal digits each."""
    return "".join(f"{round(255 * c):02x}" for rgba in colormaps[name](np.arange(256)) for c in rgba[:3])


def _errors(pair: Matched, v: int, sample: int, order: NDArray[Any]) -> list[float]:
    errors = relative_l2(pair.forecast[sample, ..., v], pair.truth[sample, ..., v], pair.weights)
    return [float(error) for error in torch.nan_to_num(errors)[torch.from_numpy(order)]]


def _clock(forecast: xr.Dataset) -> str:
    name = "lead_time" if "lead_time" in forecast.coords else "time"
    return str(forecast[name].attrs.get("units", "1"))


def _aspect(truth: xr.Dataset) -> str:
    """Width over height of the picture."""
    geometry = geometry_of(truth)
    across, up = (high - low for low, high in (geometry.extent[name] for name in geometry.coordinates[:2]))
    return f"{across:g} / {up:g}"
