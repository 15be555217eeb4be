"""Pictures of tables: curves of several methods, with the range of their seeds.

Every function returns a `Figure` of its own, or None where there is nothing to draw.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from pdeforecast import plot
from pdeforecast.bench.table import Row, curve, groups, number
from pdeforecast.replacing import replacing

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c8c")
_DASHES = ("-", "--", ":", "-.")
_MARKS = "os^Dvp"
_SHADES = 64
"""Colours of a picture: eight, and their shades at edges."""
_DEEP = 1e-12
"""Of the largest number: what is smaller, mostly rounding, would leave the others no room."""
_TICKS = 8
"""As many places on a logarithmic axis are named one by one."""
BESIDE: Any = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
"""Where a legend covers no curve."""
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def picture(folder: Path, *words: object) -> Path:
    """The file of a picture: `suite_equation_variable….png`, without blanks."""
    return folder / ("_".join(re.sub(r"[^\w.-]+", "-", str(word)) for word in words) + ".png")


def save(figure: Figure, path: Path) -> None:
    """Writes a picture in few colours, a third of the size, and makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plot.save(figure, path)
    with Image.open(path) as full:
        few = full.convert("RGB").quantize(_SHADES)
    with replacing(path) as beside:
        few.save(beside, "PNG", optimize=True)


def look(index: int) -> dict[str, Any]:
    """Colour, dashes and mark of the curve of that index."""
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "linestyle": _DASHES[index // len(_COLOURS) % len(_DASHES)],
        "marker": _MARKS[index % len(_MARKS)],
        "markersize": 3.5,
        "linewidth": 1.2,
    }


@rc_context(STYLE)
def by_lead_time(rows: Sequence[Row], name: str, label: str, title: str) -> Figure | None:
    """A curve cell against its lead times, one line per value of the column `label`, over seeds."""
    figure, axes = canvas()
    for i, group in enumerate(groups([row for row in rows if curve(row, name)], (label,))):
        shared = [row for row in group if curve(row, "lead_times") == curve(group[0], "lead_times")]
        y = np.array([curve(row, name) for row in shared])
        line(axes, np.array(curve(group[0], "lead_times")), y, str(group[0][label]), i)
    named(axes, rows)
    return finished(figure, axes, "lead time", title)


@rc_context(STYLE)
def trends(
    rows: Sequence[Row], x: str, y: str, labels: Sequence[str], x_title: str, y_title: str
) -> Figure | None:
    """A number against another, both logarithmic, one line per value of the columns `labels`, over seeds: the
    first of these has colours, the second, if there is one, dashes."""
    figure, axes = canvas()
    known = [row for row in rows if np.isfinite(number(row, y))]
    kinds = [list(dict.fromkeys(str(row[label]) for row in known)) for label in labels]
    for group in groups(known, tuple(labels)):
        words = [str(group[0][label]) for label in labels]
        colour, *dashes = (kind.index(word) for kind, word in zip(kinds, words, strict=True))
        own = look(colour) | ({"linestyle": _DASHES[dashes[0]]} if dashes else {})
        places = sorted({number(row, x) for row in group})
        seeds = [[number(row, y) for row in group if number(row, x) == place] for place in places]
        mean = np.array([np.mean(values) for values in seeds])
        low, high = ([pick(values) for values in seeds] for pick in (min, max))
        axes.plot(places, mean, label=", ".join(words), **own)
        axes.fill_between(places, low, high, color=own["color"], alpha=0.15, linewidth=0)
    named(axes, rows)
    drawn = finished(figure, axes, x_title, y_title)
    if drawn is None:
        return None
    if len(labels) == 2:
        axes.legend(handles=_keys(*kinds), **BESIDE)
    axes.set_xscale("log")
    known_places = sorted({float(place) for own in axes.lines for place in np.asarray(own.get_xdata())})
    if len(known_places) <= _TICKS:
        axes.set_xticks(known_places, [f"{place:g}" for place in known_places])
        axes.minorticks_off()
    return drawn


def _keys(coloured: Sequence[str], dashed: Sequence[str]) -> list[Line2D]:
    """What colours mean, and then what dashes do: not every pair of them."""
    plain: list[Any] = [{"color": "0.3", "linewidth": 1.2, "linestyle": dashes} for dashes in _DASHES]
    return [
        *(Line2D([], [], label=word, **{**look(i), "linestyle": "-"}) for i, word in enumerate(coloured)),
        *(Line2D([], [], label=word, **plain[i]) for i, word in enumerate(dashed)),
    ]


def canvas(columns: int = 1) -> Any:
    """A figure and its axes."""
    figure = Figure((6.2 if columns == 1 else 4.6 * columns, 3.4), layout="constrained")
    return figure, figure.subplots(1, columns)


def line(axes: Axes, x: Any, y: Any, label: str, index: int) -> None:
    """The mean of the rows of y (S, T) within their range."""
    axes.plot(x, y.mean(0), label=label, **look(index))
    if len(y) > 1:
        axes.fill_between(x, y.min(0), y.max(0), color=look(index)["color"], alpha=0.15, linewidth=0)


def named(axes: Axes, rows: Sequence[Row]) -> None:
    """Says of which equation and variable rows are."""
    told = dict.fromkeys(str(row[key]) for row in rows for key in ("equation", "variable") if key in row)
    axes.set_title(", ".join(told), loc="left")


def finished(figure: Figure, axes: Axes, x: str, y: str) -> Figure | None:
    """The figure with its words, or None if nothing was drawn."""
    if not axes.lines:
        return None
    ruled(axes)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(**BESIDE)
    return figure


def ruled(axes: Axes) -> None:
    """Logarithmic upwards where curves span more than a decade, else from 0; with faint lines."""
    drawn = np.concatenate([np.asarray(own.get_ydata(), dtype=float) for own in axes.lines])
    known = drawn[np.isfinite(drawn) & (drawn > 0)]
    if known.size and known.max() > 10 * known.min():
        axes.set_yscale("log", nonpositive="mask")
        if known.min() < _DEEP * known.max():
            axes.set_ylim(bottom=_DEEP * float(known.max()))
    else:
        axes.set_ylim(0, 1.1 * float(known.max()) if known.size else 1)
    axes.grid(alpha=0.25, linewidth=0.5)
