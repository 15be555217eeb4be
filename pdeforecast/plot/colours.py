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
_SIGNED = 0.02
"""A field has a sign if it reaches so far to its other side, in units of its largest size."""


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
    reference, drawn = (values[np.isfinite(values)] for values in (reference, drawn))
    low, high = (reference.min(), reference.max()) if reference.size else (0.0, 1.0)
    signed = min(-low, high) > _SIGNED * max(-low, high)
    if signed:
        low, high = -max(-low, high), max(-low, high)
    below, above = bool((drawn < low).any()), bool((drawn > high).any())
    colours = colormaps[diverging if signed or low == high else "viridis"]
    extend = "both" if below and above else "min" if below else "max" if above else "neither"
    colours.colorbar_extend = extend  # type: ignore[assignment]  # matplotlib's stub says bool
    return ScalarMappable(Normalize(low, high if high > low else low + 1), colours)
