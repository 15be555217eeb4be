"""Truth | forecast | error, and errors over lead time, of several forecasts side by side."""

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdeforecast.plot.canvas import BETWEEN, BOTTOM, CAPTIONED, PANEL, STYLE, canvas
from pdeforecast.plot.colours import scales
from pdeforecast.plot.curves import error_over_lead_time
from pdeforecast.plot.panels import SLAB, draw, label_axes, stage_of
from pdeforecast.plot.scene import Scene, positions, scenes_of
from pdeforecast.plot.views import View
from pdeforecast.trajectory import is_grid, samples, trajectory_values


@rc_context(STYLE)
def triptych(
    truth: xr.Dataset,
    forecasts: Mapping[str, xr.Dataset],
    lead_time: float,
    sample: int = 0,
    states: Mapping[str, xr.Dataset] | None = None,
) -> Figure:
    """Truth | forecast | error at one lead time, a row for each view of each of several forecasts.

    Args:
        forecasts: by label.
        states: what forecasts were made from, by label. The observed places are marked on the
            truth, unless they are the whole of a grid.

    Raises:
        UsageError: if there is no forecast, or none of this sample or lead time.
        DataError: as `match` does.
    """
    scenes = scenes_of(truth, forecasts)
    frames = {name: scene.frame(sample, lead_time) for name, scene in scenes.items()}
    first = next(iter(scenes.values()))
    colours = scales({field: [frame[field] for frame in frames.values()] for field in first.fields})
    stages = {name: stage_of(scene, sample) for name, scene in scenes.items()}
    rows = [(name, view) for name, stage in stages.items() for view in stage.views]
    several = len(rows) > len(stages)
    bar = BOTTOM + 0.15 * rows[-1][1].disc
    between = CAPTIONED if several else BETWEEN
    page = canvas([PANEL] * 3, [view.high for _, view in rows], above=0.35, below=bar, between=between)
    for i, (name, view) in enumerate(rows):
        line = page.panels[i : i + 1]
        for j, field in enumerate(first.fields):
            draw(line[0, j], stages[name], view, frames[name][field], colours[field])
            label_axes(line[0, j], view, below=view.disc or i == len(rows) - 1, left=j == 0)
        if states and name in states:
            _mark(line[0, 0], view, scenes[name], states[name], sample)
        if view is stages[name].views[0]:
            error = scenes[name].errors["forecast"][sample, scenes[name].index(lead_time)]
            page.over(line[:, 2:], f"relative $L_2$ {error:.2g}")
            page.beside(line, name)
    titles = (f"truth at {first.moment(lead_time)}", "forecast", "forecast − truth")
    for j, title in enumerate(titles):
        page.over(page.panels[:1, j : j + 1], title, gap=0.22, fontsize=9)
    page.bar_below(colours["truth"], page.panels[:, :2], first.title, bar)
    page.bar_below(colours["error"], page.panels[:, 2:], first.error_title, bar)
    return page.figure


@rc_context(STYLE)
def curves(truth: xr.Dataset, forecasts: Mapping[str, xr.Dataset]) -> Figure:
    """Error over lead time of several forecasts, by label.

    Raises:
        UsageError: if there is no forecast.
        DataError: as `match` does.
    """
    figure = Figure((6.0, 2.6), layout="constrained")
    error_over_lead_time(figure.subplots(), scenes_of(truth, forecasts))
    return figure


def _mark(axes: Axes, view: View, scene: Scene, state: xr.Dataset, sample: int) -> None:
    """Dots where a state was observed."""
    unit = str(state[scene.name].attrs.get("units", "1"))
    seen = samples(state, scene.geometry, {scene.name: unit})
    observed = ~seen.values[sample if len(seen.values) > 1 else 0, :, 0].isnan()
    if not (is_grid(state, scene.geometry) and bool(observed.all())):
        places = trajectory_values(*positions(state, scene.geometry))[2][0, 0][observed]
        points = scene.geometry.embed(torch.as_tensor(places, dtype=torch.float64))
        x, y = view.project(np.asarray(points.numpy()), SLAB).T
        axes.scatter(x, y, 2.5, "black", linewidths=0)
