"""The picture of a forecast: fields at a few lead times, then errors and spectra of all samples."""

from collections.abc import Mapping, Sequence

import xarray as xr
from matplotlib import rc_context
from matplotlib.figure import Figure

from pdeforecast.forecaster import Forecaster
from pdeforecast.plot.canvas import BESIDE, BOTTOM, PANEL, STYLE, TOP, Canvas, Panels, canvas
from pdeforecast.plot.colours import scales
from pdeforecast.plot.curves import error_over_lead_time
from pdeforecast.plot.nodes import Indices
from pdeforecast.plot.panels import Stage, draw, label_axes, stage_of
from pdeforecast.plot.poses import draw_poses, poses_of
from pdeforecast.plot.scene import Scene, scene_of, shown_leads
from pdeforecast.plot.spectra import draw_spectra, spectra

COLUMNS = 5
"""At most so many lead times in one picture, unless they are asked for."""
_WIDEST = 11.5
"""Of all panels of a row together, in inches, unless more lead times are asked for."""
_ROW = {2: 1.1, 3: 1.4}
"""The height of a row by the number of views in it, in inches."""
_GROUP, _TICKS = 0.25, 0.55
"""Room between lead times, and for the ticks of an axis within a row, in inches."""
_CURVES = 1.4
"""The height of the curves under the panels, in inches."""


@rc_context(STYLE)
def forecast(
    ds: xr.Dataset,
    truth: xr.Dataset | None = None,
    sample: int = 0,
    variable: str | None = None,
    lead_times: Sequence[float] | None = None,
    model: Forecaster | None = None,
    trained_on: Mapping[str, int] | None = None,
) -> Figure:
    """One sample at a few lead times; with a truth also its error, and the errors of all samples.

    Args:
        sample: which one, counted from 0 among those of `ds`, or those that it shares with `truth`.
        variable: which one; the first by default.
        lead_times: those shown; a few from the first to the last by default.
        model: whose latent poses are drawn over the forecast.
        trained_on: the size of each axis of the grid that the model learned on, whose Nyquist is drawn.

    Raises:
        UsageError: if there is no such sample, variable or lead time.
        DataError: as `match` does, or if the model is of another space.
    """
    scene = scene_of(ds, truth, variable)
    scene.check_sample(sample)
    stage = stage_of(scene, sample)
    shown = shown_leads(scene, _most(stage), lead_times)
    found = spectra(scene, stage.nodes, int(shown[-1]), trained_on)
    parts = (truth is not None) + (found is not None)
    page = _canvas(scene, stage, len(shown), parts)
    groups = [
        page.panels[:, i : i + len(stage.views)] for i in range(0, page.panels.shape[1], len(stage.views))
    ]
    _draw(page, groups, scene, stage, sample, shown)
    if model is not None:
        row, leads = list(scene.fields).index("forecast"), scene.leads[shown].tolist()
        poses = poses_of(model, ds, truth, leads, sample)
        for group, lead in zip(groups, leads, strict=True):
            for axes, view in zip(group[row], stage.views, strict=True):
                draw_poses(axes, view, poses, lead)
    if truth is not None:
        error_over_lead_time(page.beneath(0, parts, _CURVES), {scene.what: scene})
    if found is not None:
        moment = scene.moment(scene.leads[shown[-1]])
        draw_spectra(page.beneath(parts - 1, parts, _CURVES), found, scene, moment)
    return page.figure


def _most(stage: Stage) -> int:
    """How many lead times fit in a row."""
    if len(stage.views) == 1:
        return COLUMNS
    return max(2, int(_WIDEST // (sum(_widths(stage)) + _GROUP)))


def _widths(stage: Stage) -> list[float]:
    """Of the views of one field at one lead time, in inches."""
    if len(stage.views) == 1:
        return [PANEL]
    return [_ROW[len(stage.views)] * view.aspect for view in stage.views]


def _canvas(scene: Scene, stage: Stage, times: int, parts: int) -> Canvas:
    """A row for each field; for each lead time the views side by side; room for curves beneath."""
    count, gaps = len(stage.views), list[float]()
    for column in range(1, times * count):
        labelled = column < count and any(stage.views[column].labels)
        within = _TICKS if labelled else BESIDE
        gaps.append(within if column % count or count == 1 else _GROUP)
    high = stage.views[0].high if count == 1 else _ROW[count]
    below = 0.15 * (count > 1) + (_CURVES + BOTTOM + TOP if parts else 0.0)
    return canvas(_widths(stage) * times, [high] * len(scene.fields), gaps, below=below, least=3.6 * parts)


def _draw(
    page: Canvas, groups: Sequence[Panels], scene: Scene, stage: Stage, sample: int, shown: Indices
) -> None:
    """Every field at every lead time shown."""
    fields = {name: field[sample, shown] for name, field in scene.fields.items()}
    colours = scales({name: list(field) for name, field in fields.items()})
    for at, group in enumerate(groups):
        for i, (name, field) in enumerate(fields.items()):
            for axes, view in zip(group[i], stage.views, strict=True):
                draw(axes, stage, view, field[at], colours[name])
                label_axes(axes, view, below=i == len(fields) - 1, left=at == 0)
        page.over(group[:1], scene.moment(scene.leads[shown[at]]), fontsize=8)
        if "error" in fields:
            page.over(group[2:], f"relative $L_2$ {scene.errors['forecast'][sample, shown[at]]:.2g}")
    for i, name in enumerate(fields):
        page.beside(page.panels[i : i + 1], scene.word(name))
    page.bar_right(colours["forecast"], page.panels[:2], scene.title)
    if "error" in fields:
        page.bar_right(colours["error"], page.panels[2:], scene.error_title)
