"""Figures of panels in the proportions of what they show, laid out in inches; colour bars and captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

Panels = NDArray[np.object_]

LEFT, RIGHT, TOP, BOTTOM = 0.8, 0.8, 0.35, 0.55
BESIDE, BETWEEN, BAR = 0.12, 0.24, 0.09
"""Between columns, between rows, and the thickness of a colour bar."""
CAPTIONED = 0.72
"""Between rows whose panels have captions."""
PANEL = 1.7
"""The usual width of a panel."""
STYLE: Any = {
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
    "legend.fontsize": 7.5,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Canvas:
    """A figure, and its panels by row and column."""

    figure: Figure
    panels: Panels

    def box(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """New axes; all in inches."""
        across, up = self.figure.get_size_inches()
        return self.figure.add_axes((left / across, bottom / up, width / across, height / up))

    def edges(self, panels: Panels) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of some panels, in inches."""
        across, up = self.figure.get_size_inches()
        first, last = panels[0, 0].get_position(), panels[-1, -1].get_position()
        return first.x0 * across, last.x1 * across, last.y0 * up, first.y1 * up

    def beneath(self, part: int, parts: int, height: float) -> Axes:
        """Axes at the foot of the figure, which is divided into parts from left to right."""
        wide = (self.figure.get_figwidth() - LEFT * parts - RIGHT / 2) / parts
        return self.box(LEFT + part * (wide + LEFT), BOTTOM, wide, height)

    def over(self, panels: Panels, text: str, gap: float = 0.05, fontsize: float = 7.5) -> None:
        """Text above the middle of some panels."""
        left, right, _, top = self.edges(panels)
        self._write((left + right) / 2, top + gap, text, ha="center", va="bottom", fontsize=fontsize)

    def beside(self, panels: Panels, text: str) -> None:
        """Text along the left of some panels."""
        left, _, bottom, top = self.edges(panels)
        self._write(left - 0.56, (bottom + top) / 2, text, ha="right", va="center", rotation=90, fontsize=9)

    def heading(self, text: str) -> Text:
        """Text at the head of the figure."""
        up = self.figure.get_figheight()
        return self.figure.text(0.5, 1 - 0.12 / up, text, ha="center", va="top", fontsize=10)

    def _write(self, left: float, bottom: float, text: str, **how: Any) -> None:
        across, up = self.figure.get_size_inches()
        self.figure.text(left / across, bottom / up, text, **how)

    def bar_right(self, scale: ScalarMappable, panels: Panels, title: str) -> None:
        """A colour bar at the right of some panels."""
        _, right, bottom, top = self.edges(panels)
        axes = self.box(right + BESIDE, bottom, BAR, top - bottom)
        self._bar(scale, axes, title, "vertical")

    def bar_below(self, scale: ScalarMappable, panels: Panels, title: str, below: float) -> None:
        """A colour bar under some panels."""
        left, right, bottom, _ = self.edges(panels)
        self._bar(scale, self.box(left, bottom - below, right - left, BAR), title, "horizontal")

    def _bar(self, scale: ScalarMappable, axes: Axes, title: str, orientation: Any) -> None:
        axes.set_label("<colorbar>")
        bar = self.figure.colorbar(scale, cax=axes, label=title, orientation=orientation)
        bar.ax.locator_params(nbins=5)
        bar.ax.ticklabel_format(useMathText=True, scilimits=(-3, 4))
        bar.outline.set_linewidth(0.6)  # type: ignore[operator]


def canvas(
    widths: Sequence[float],
    heights: Sequence[float],
    gaps: Sequence[float] | None = None,
    above: float = 0.0,
    below: float = 0.0,
    least: float = 0.0,
    between: float = BETWEEN,
) -> Canvas:
    """Panels of these widths and heights in inches.

    Args:
        gaps: to the left of each column but the first.
        above, below: more room than usual, over and under the panels.
        least: the width of the figure at least.
        between: rows.
    """
    beside = [0.0, *(gaps if gaps is not None else [BESIDE] * (len(widths) - 1))]
    width = max(LEFT + sum(widths) + sum(beside) + RIGHT, least)
    height = TOP + above + sum(heights) + between * (len(heights) - 1) + BOTTOM + below
    figure = Figure((width, height))
    panels = np.empty((len(heights), len(widths)), dtype=object)
    y = height - TOP - above
    for i, high in enumerate(heights):
        x, y = LEFT, y - high
        for j, wide in enumerate(widths):
            x += beside[j]
            panels[i, j] = figure.add_axes((x / width, y / height, wide / width, high / height))
            x += wide
        y -= between
    return Canvas(figure, panels)
