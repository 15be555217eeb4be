"""Animations as files: a film (GIF, MP4), or a page to play with (HTML)."""

import os
from collections.abc import Callable

import xarray as xr

from pdeforecast.forecaster import Forecaster
from pdeforecast.plot.files import kind_of
from pdeforecast.plot.movie import check_writer, movie, write_movie
from pdeforecast.plot.page import page
from pdeforecast.replacing import replacing_by_name
from pdeforecast.trajectory import check_target

ANIMATIONS = ("gif", "mp4", "html")


def check_animation(path: str | os.PathLike[str]) -> str:
    """The kind of animation that a name ends in, before any work.

    Raises:
        UsageError: if it is none of `ANIMATIONS`, or if what writes it is missing.
    """
    kind = kind_of(path, ANIMATIONS, "an animation")
    check_writer(kind)
    return kind


def animate(
    ds: xr.Dataset,
    path: str | os.PathLike[str],
    truth: xr.Dataset | None = None,
    sample: int = 0,
    variable: str | None = None,
    model: Forecaster | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write an animation of one sample, in the format that its name ends in, whole or not at all.

    Args:
        variable: which one; in a page, the one shown first.
        model: whose latent poses are drawn over the forecast.
        progress: called with the number of frames written, and of all.

    Raises:
        UsageError: as `check_animation` does, or if there is no such sample or variable.
        DataError: as `match` does, or if the model is of another space.
    """
    kind = check_animation(path)
    check_target(path, overwrite=True)
    with replacing_by_name(path) as beside:
        if kind == "html":
            beside.write_text(page(ds, truth, sample, variable, model), encoding="utf-8")
        else:
            write_movie(movie(ds, truth, sample, variable, model), beside, kind, progress)
