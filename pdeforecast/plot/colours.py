"""Colours that colour-blind readers tell apart: red–blue and orange–purple where signed, else viridis."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from pdeforecast.plot.scene import Array

CURVES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of Okabe and Ito."""
GREY = "#8c8c8c"
UNKNOWN = "0.85"
"""Where nothing is known."""
_SIGNED = 0.2
"""A field has a sign if it reaches so far to its other side, in units of its largest size: what goes from
0 to 1 and falls short of 0 in places has none, and half of a symmetric scale would be left unused."""
_CONSTANT = 1e-6
"""A field is constant if it varies by no more than rounding, in units of its largest size."""


def scales(fields: Mapping[str, Sequence[Array]]) -> dict[str, ScalarMappable]:
    """The colours of each field: one scale for forecast and truth, another for the error."""
    flat = {name: np.concatenate([np.ravel(frame) for frame in frames]) for name, frames in fields.items()}
    shared = _scale(flat.get("truth", flat["forecast"]), flat["forecast"], "RdBu_r")
    made = {"truth": shared, "forecast": shared}
    if "error" in flat:
        made["error"] = _scale(np.concatenate([flat["error"], -flat["error"]]), flat["error"], "PuOr_r")
    return made


def _scale(reference: Array, drawn: Array, diverging: str) -> ScalarMappable:
    """From the range of `reference`; with arrows on the bar if what is drawn exceeds it."""
    low, high = _range(reference)
    least, greatest = _range(np.concatenate([reference, drawn]))
    if _constant(low, high):
        low, high = least, greatest
    signed = min(-least, greatest) > _SIGNED * max(-least, greatest)
    if _constant(low, high):
        low, high = min(0.0, 2 * low), max(0.0, 2 * high)  # in the middle of the colours
    if signed or low == high:
        signed, high = True, max(-low, high) or 1.0
        low = -high
    below, above = least < low, greatest > high
    colours = colormaps[diverging if signed else "viridis"]
    extend = "both" if below and above else "min" if below else "max" if above else "neither"
    colours.colorbar_extend = extend  # type: ignore[assignment]  # matplotlib's stub says bool
    return ScalarMappable(Normalize(low, high), colours)


def _range(values: Array) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)


def _constant(low: float, high: float) -> bool:
    return high - low <= _CONSTANT * max(-low, high)
