"""Films: a frame for each lead time, whole files, and a clear word where ffmpeg is missing."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.animation import FFMpegWriter
from PIL import Image

from pdeforecast import plot
from pdeforecast.errors import UsageError
from pdeforecast.geometry import GEOMETRIES, Geometry
from pdeforecast.plot.movie import movie

Pairs = Callable[..., tuple[xr.Dataset, xr.Dataset]]
TORUS = GEOMETRIES["periodic_plane"]


def test_a_gif_has_a_frame_for_each_lead_time(space: Geometry, pair: Pairs, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    forecast, truth = pair(space)
    plot.animate(forecast, tmp_path / "a.gif", truth, progress=lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)] and [path.name for path in tmp_path.iterdir()] == ["a.gif"]
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 3 and film.info["loop"] == 0
        frames = []
        for i in range(3):
            film.seek(i)
            frames.append(np.asarray(film.convert("RGB"), dtype=int))
    assert all(abs(a - b).max() > 30 for a, b in itertools.pairwise(frames))


def test_a_colour_of_a_gif_means_the_same_in_every_frame_and_in_a_picture(
    pair: Pairs, tmp_path: Path
) -> None:
    forecast, truth = pair(TORUS)
    plot.animate(forecast, tmp_path / "a.gif", truth)
    made = movie(forecast, truth)
    made.figure.savefig(tmp_path / "a.png", dpi=110)
    true = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"), dtype=int)
    high, wide, _ = true.shape
    with Image.open(tmp_path / "a.gif") as film:
        for frame in range(3):
            film.seek(frame)
            shown = np.asarray(film.convert("RGB"), dtype=int)
            assert shown.shape == true.shape
            for bar in (axes for axes in made.figure.axes if axes.get_label() == "<colorbar>"):
                box = bar.get_position()
                columns = slice(int(box.x0 * wide) + 4, int(box.x1 * wide) - 4)
                row = int((1 - (box.y0 + box.y1) / 2) * high)
                assert np.ptp(true[row, columns], axis=0).min() > 100
                assert abs(shown[row, columns] - true[row, columns]).max() < 8


def test_a_frame_shows_its_own_values(pair: Pairs, loose: Callable, random_model: Callable) -> None:
    forecast, truth = pair(TORUS)
    made = movie(forecast, truth, 1, "v", random_model(TORUS, True))
    panels = made.figure.axes[:3]
    for frame in (0, 2, 1):
        made.show(frame)
        drawn = [np.asarray(axes.collections[0].get_array()) for axes in panels]
        f, t = (ds.v.values[1, frame] for ds in (forecast, truth))
        for shown, held in zip(drawn, (t, f, f - t), strict=True):
            np.testing.assert_allclose(shown, held, atol=1e-12)
        assert made.figure.texts[-1].get_text() == f"lead time {0.5 * frame:g} hours"
        assert [len(axes.collections) for axes in panels] == [1, 2, 1]
    scales = [axes.collections[0].get_clim() for axes in panels]
    assert scales[0] == scales[1] == (truth.v[1].min(), truth.v[1].max())
    assert scales[2][0] == -scales[2][1]
    alone = movie(loose(forecast))
    alone.show(2)
    assert np.asarray(alone.figure.axes[0].collections[0].get_array()).shape == (20,)


@pytest.mark.skipif(not FFMpegWriter.isAvailable(), reason="ffmpeg is not installed")
def test_an_mp4_is_whole(pair: Pairs, tmp_path: Path) -> None:
    plot.animate(*(pair(TORUS)[0], tmp_path / "a.mp4", pair(TORUS)[1]))
    assert (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_without_ffmpeg_there_is_a_word_before_any_work(pair: Pairs, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(
        UsageError, match=r"ffmpeg, which writes MP4; .*\.\nInstall it .*-o NAME\.gif"
    ) as told:
        plot.animate(xr.Dataset(), tmp_path / "a.mp4")
    assert told.value.exit_code == 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", ["false", "true"])
def test_an_ffmpeg_that_fails_leaves_nothing_behind(
    pair: Pairs, tmp_path: Path, monkeypatch, program: str
) -> None:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no program `{program}` here")
    monkeypatch.setattr(FFMpegWriter, "bin_path", classmethod(lambda _: found))
    with pytest.raises(UsageError, match=r"expected ffmpeg to write MP4"):
        plot.animate(pair(TORUS)[0], tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_what_was_there(pair: Pairs, tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(b"old")

    def interrupted(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plot.animate(pair(TORUS)[0], path, progress=interrupted)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gif, mp4, html; came 'a\.avi'\.\nName it 'a\.gif'"):
        plot.animate(xr.Dataset(), tmp_path / "a.avi")
