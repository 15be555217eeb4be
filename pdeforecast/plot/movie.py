"""A forecast as a film that runs: truth | forecast | error, and where the error stands in time."""

import contextlib
import io
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter
from matplotlib.artist import Artist
from matplotlib.colors import Colormap, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pdeforecast.errors import UsageError
from pdeforecast.forecaster import Forecaster
from pdeforecast.plot.canvas import BESIDE, BOTTOM, CAPTIONED, PANEL, STYLE, TOP, canvas
from pdeforecast.plot.colours import CURVES, GREY, scales
from pdeforecast.plot.curves import error_over_lead_time
from pdeforecast.plot.panels import Update, draw, label_axes, stage_of
from pdeforecast.plot.poses import draw_poses, poses_of
from pdeforecast.plot.scene import scene_of

_LASTS = 6.0
"""About how long a film runs, in seconds."""
_SLOWEST, _FASTEST = 2, 12
"""Frames per second."""
_DPI = 110
_WIDE = 1.25
"""The width of a panel, in those of a picture."""
_CURVES = 1.0
"""The height of the curve beneath the panels, in inches."""
_PALETTE, _GREYS, _SHADES = 256, 32, 8
"""The colours of a GIF; those of them that are greys, and that each curve has on its way to white."""


@dataclass(frozen=True)
class Movie:
    """A figure, how many frames it has, how to turn it to one of them, and the colours of its fields."""

    figure: Figure
    frames: int
    show: Callable[[int], None]
    colours: Sequence[Colormap]


@rc_context(STYLE)
def movie(
    ds: xr.Dataset,
    truth: xr.Dataset | None = None,
    sample: int = 0,
    variable: str | None = None,
    model: Forecaster | None = None,
) -> Movie:
    """One frame for each lead time: a column for each field, a row for each view.

    Args and errors are those of `plot.forecast`.
    """
    scene = scene_of(ds, truth, variable)
    scene.check_sample(sample)
    stage, compared = stage_of(scene, sample), truth is not None
    fields = {name: field[sample] for name, field in scene.fields.items()}
    colours = scales({name: list(field) for name, field in fields.items()})
    columns, heights = len(fields), [_WIDE * view.high for view in stage.views]
    bar = BOTTOM + 0.15 * stage.views[-1].disc
    below = bar + (_CURVES + BOTTOM + TOP if compared else 0.0)
    page = canvas(
        [_WIDE * PANEL] * columns, heights, [2 * BESIDE] * (columns - 1), 0.3, below, 3.6, CAPTIONED
    )
    updates: list[tuple[str, Update]] = []
    for j, (name, field) in enumerate(fields.items()):
        for i, view in enumerate(stage.views):
            axes = page.panels[i, j]
            updates.append((name, draw(axes, stage, view, field[0], colours[name])))
            label_axes(axes, view, below=view.disc or i == len(stage.views) - 1, left=j == 0)
        page.over(page.panels[:1, j : j + 1], scene.word(name), fontsize=9)
    page.bar_below(colours["forecast"], page.panels[:, :2], scene.title, bar)
    if compared:
        page.bar_below(colours["error"], page.panels[:, 2:], scene.error_title, bar)
        axes = page.beneath(0, 1, _CURVES)
        error_over_lead_time(axes, {scene.what: scene})
        now = axes.axvline(scene.leads[0], color="0.1", linewidth=0.8)
    poses = None if model is None else poses_of(model, ds, truth, scene.leads.tolist(), sample)
    under = page.panels[:, list(fields).index("forecast")]
    heading = page.heading("")
    drawn: list[Artist] = []

    def show(frame: int) -> None:
        lead = float(scene.leads[frame])
        heading.set_text(scene.moment(lead))
        for name, update in updates:
            update(fields[name][frame])
        if compared:
            now.set_xdata([lead, lead])
        if poses is not None:
            while drawn:
                drawn.pop().remove()
            for axes, view in zip(under, stage.views, strict=True):
                drawn.extend(draw_poses(axes, view, poses, lead))

    return Movie(
        page.figure, len(scene.leads), show, list({c.cmap.name: c.cmap for c in colours.values()}.values())
    )


class _GifWriter(AbstractMovieWriter):
    """GIF in one palette, of the fields' colours: in every frame a colour means the same."""

    def __init__(self, fps: int, colours: Sequence[Colormap]) -> None:
        super().__init__(fps)
        self._palette = Image.new("P", (1, 1))
        self._palette.putpalette(palette(colours).tobytes())

    def setup(self, fig: Figure, outfile: Any, dpi: float | None = None) -> None:
        super().setup(fig, outfile, dpi)
        self._frames: list[Image.Image] = []

    def grab_frame(self, **how: Any) -> None:
        pixels = io.BytesIO()
        self.fig.savefig(pixels, format="rgba", dpi=self.dpi, **how)
        frame = Image.frombytes("RGBA", self.frame_size, pixels.getvalue()).convert("RGB")
        self._frames.append(frame.quantize(palette=self._palette, dither=Image.Dither.NONE))

    def finish(self) -> None:
        first, *others = self._frames
        first.save(
            self.outfile, "GIF", save_all=True, append_images=others, duration=1000 // self.fps, loop=0
        )


def palette(colours: Sequence[Colormap]) -> NDArray[np.uint8]:
    """Colours (256, 3): greys, those of curves, and as many of each colour map as there is room for."""
    shades = np.linspace(0, 1, _GREYS)[:, None] * np.ones(3)
    fade = np.linspace(0, 1, _SHADES, endpoint=False)[:, None]
    curves = [(1 - fade) * to_rgb(name) + fade for name in (CURVES[0], GREY)]
    room = _PALETTE - _GREYS - len(curves) * _SHADES
    parts = np.array_split(np.arange(room), len(colours))
    maps = [colour(np.linspace(0, 1, len(part)))[:, :3] for colour, part in zip(colours, parts, strict=True)]
    return np.round(255 * np.concatenate([shades, *curves, *maps])).astype(np.uint8)


def check_writer(kind: str) -> None:
    """Raises UsageError if films of this kind cannot be written here."""
    if kind == "mp4" and not FFMpegWriter.isAvailable():
        raise UsageError(
            "expected the program ffmpeg, which writes MP4; there is none on the PATH.",
            "Install it (`apt install ffmpeg`), or ask for a GIF: `-o NAME.gif`.",
        )


def write_movie(
    made: Movie, path: Path, kind: str, progress: Callable[[int, int], None] | None = None
) -> None:
    """Writes every frame to `path`, as GIF or MP4.

    Args:
        progress: called with the number of frames written, and of all.

    Raises:
        UsageError: if ffmpeg is missing, or stops.
    """
    check_writer(kind)
    rate = int(np.clip(round(made.frames / _LASTS), _SLOWEST, _FASTEST))
    writer: AbstractMovieWriter = (
        _GifWriter(rate, made.colours) if kind == "gif" else FFMpegWriter(rate, codec="h264")
    )
    try:
        writer.setup(made.figure, str(path), _DPI)
        try:
            for frame in range(made.frames):
                made.show(frame)
                writer.grab_frame()
                if progress is not None:
                    progress(frame + 1, made.frames)
        except BaseException:
            with contextlib.suppress(Exception):  # ends the program that writes
                writer.finish()
            raise
        writer.finish()
    except (subprocess.CalledProcessError, BrokenPipeError) as error:
        raise UsageError(
            f"expected ffmpeg to write {kind.upper()}; it stopped ({type(error).__name__}).",
            "Free the disk, install an ffmpeg with H.264, or ask for a GIF: `-o NAME.gif`.",
        ) from error
