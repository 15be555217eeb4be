"""Error over lead time, with its spread over samples."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, StrMethodFormatter

from pdeforecast.plot.colours import CURVES, GREY
from pdeforecast.plot.labels import label
from pdeforecast.plot.scene import Scene


def error_over_lead_time(axes: Axes, scenes: Mapping[str, Scene]) -> None:
    """The mean over samples within the range from the least to the greatest; persistence in grey."""
    for i, (name, scene) in enumerate(scenes.items()):
        errors, colour = scene.errors["forecast"], CURVES[i % len(CURVES)]
        axes.plot(scene.leads, errors.mean(0), ".-", color=colour, markersize=4, linewidth=1.2, label=name)
        axes.fill_between(scene.leads, errors.min(0), errors.max(0), color=colour, alpha=0.15, linewidth=0)
    longest = max(scenes.values(), key=lambda scene: len(scene.leads))
    still = longest.errors["persistence"].mean(0)
    axes.plot(longest.leads, still, ".--", color=GREY, markersize=3, linewidth=1.2, label="persistence")
    if len(errors) > 1:
        axes.fill_between(
            [], [], color=GREY, alpha=0.25, linewidth=0, label=f"range of {len(errors)} samples"
        )
    _error_scale(axes)
    axes.set_xlabel(label(longest.clock, longest.clock_unit))
    axes.set_ylabel(label("relative $L_2$ error", "1"))
    axes.margins(x=0.02)
    plain(axes)


def plain(axes: Axes) -> None:
    """Two spines, and the legend above."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=4,
        borderaxespad=0.2,
        columnspacing=1.2,
        handlelength=1.6,
    )


def _error_scale(axes: Axes) -> None:
    """Logarithmic where errors span more than a decade."""
    errors = np.concatenate([np.asarray(line.get_ydata()) for line in axes.lines])
    known = errors[np.isfinite(errors) & (errors > 0)]
    if known.size and known.max() > 10 * known.min():
        many = known.max() > 1000 * known.min()
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if many else (1, 2, 5), numticks=8))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.minorticks_off()
    else:
        axes.set_ylim(bottom=0)
