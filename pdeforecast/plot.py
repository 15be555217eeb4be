"""Pictures of forecasts: maps, and error over lead time.

Forecast and truth share one colour scale, taken from the truth, so that a forecast that has left its
range shows as saturated; signed fields are symmetric about 0, in colours that colour-blind readers
tell apart. Where there is a truth, everything is drawn at the places that both have: a grid as an
image, loose points as dots. Of several variables the first is drawn.

All functions build a `Figure` of their own and touch no global state of matplotlib.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from pdeforecast.errors import DataError, UsageError
from pdeforecast.geometry import Geometry
from pdeforecast.metrics import relative_l2
from pdeforecast.trajectory import (
    SAME_TIME,
    check_target,
    geometry_of,
    grid_dims,
    is_grid,
    match,
    samples,
    times_of,
    trajectory_values,
)

Array = NDArray[np.float64]

FORMATS = ("png", "pdf", "svg")
COLUMNS = 5
PANEL = 1.75
"""The side of a map, in inches."""

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_GREY = "#8a8a8a"
_STYLE = {
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
    "ytick.minor.size": 1.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
}

# --- the figures ---------------------------------------------------------------------------------


@rc_context(_STYLE)
def forecast(ds: xr.Dataset, truth: xr.Dataset | None = None, sample: int = 0) -> Figure:
    """One sample at a few lead times; with a truth, also the error, and how it grows with lead time.

    Args:
        sample: which one, counted from 0 among those of `ds`, or those that it shares with `truth`.

    Raises:
        UsageError: if there is no such sample.
        DataError: as `match` does.
    """
    scene = _scene(ds, truth)
    scene.check_sample(sample)
    shown = np.unique(np.linspace(0, len(scene.leads) - 1, COLUMNS).round().astype(int))
    columns, rows = len(shown), len(scene.rows)
    width, height = 1.7 + PANEL * max(columns, 2), 0.5 + (PANEL + 0.22) * rows
    if truth is None:
        figure = Figure((width, height), layout="constrained")
        _maps(figure, scene, sample, shown)
    else:
        figure = Figure((width, height + 2.1), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=(height, 2.1))
        _maps(above, scene, sample, shown)
        _curves(below.subplots(), {"forecast": scene})
    return figure


@rc_context(_STYLE)
def triptych(
    truth: xr.Dataset,
    forecasts: Mapping[str, xr.Dataset],
    lead_time: float,
    sample: int = 0,
    states: Mapping[str, xr.Dataset] | None = None,
) -> Figure:
    """Truth | forecast | error at one lead time; a row for each of several forecasts, by label.

    Args:
        states: what some of the forecasts were made from; observed places are marked on the truth,
            unless all of a grid was observed.

    Raises:
        UsageError: if there is no such lead time or sample, or no forecast.
        DataError: as `match` does.
    """
    scenes = _scenes(truth, forecasts)
    frames = [scene.frame(sample, lead_time) for scene in scenes.values()]
    figure = Figure((3 * (PANEL + 0.3) + 0.4, (PANEL + 0.2) * len(scenes) + 0.75), layout="constrained")
    panels = figure.subplots(len(scenes), 3, squeeze=False, sharex=True, sharey=True)
    scales = _scales([rows for _, rows in frames])
    for line, (label, (scene, rows)) in zip(panels, zip(scenes, frames, strict=True), strict=True):
        for axes, name in zip(line, ("truth", "forecast", "error"), strict=True):
            _map(axes, scene, rows[name], scales[name])
        _row_name(line[0], label)
        line[2].set_title(_percent(_score(scene, rows)), pad=3)
        if states and label in states:
            _mark(line[0], scene.geometry, states[label], scene.name, sample)
    ...
    return figure
