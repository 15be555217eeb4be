"""`plot` and `animate` as a user types them: what they write, and what they say when they cannot."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from pdeforecast import cli
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.trajectory import save_dataset

Pairs = Callable[..., tuple[xr.Dataset, xr.Dataset]]


@pytest.fixture
def folder(pair: Pairs, tmp_path: Path) -> Path:
    for name, ds in zip(("forecast", "truth"), pair(GEOMETRIES["periodic_plane"]), strict=True):
        save_dataset(ds, tmp_path / f"{name}.nc")
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def typed(folder: Path, line: str) -> int:
    words = line.replace("F.nc", f"{folder}/forecast.nc").replace("T.nc", f"{folder}/truth.nc").split()
    return cli.main([str(folder / word) if word.startswith("a.") else word for word in words])


@pytest.mark.parametrize(
    ("line", "head"),
    [
        ("plot F.nc -o a.png", b"\x89PNG"),
        ("plot F.nc --truth T.nc --variable v --lead-time 0,1 --sample 1 -o a.pdf", b"%PDF"),
        ("plot F.nc --truth T.nc -o a.svg", b"<?xml"),
        ("animate F.nc -o a.gif", b"GIF8"),
        ("animate F.nc --truth T.nc --variable v -o a.html", b"<!DOCTYPE html>"),
    ],
)
def test_a_line_makes_a_file(folder: Path, capsys, line: str, head: bytes) -> None:
    assert typed(folder, line) == 0 and capsys.readouterr().out == ""
    name = line.split()[-1]
    assert names(folder) == sorted([name, "forecast.nc", "truth.nc"])
    assert (folder / name).read_bytes().startswith(head)
    assert typed(folder, line) == 2 and "exists already" in capsys.readouterr().err
    assert typed(folder, f"{line} --overwrite") == 0


def test_the_shipped_models_poses_and_nyquist(shared: Path, tmp_path: Path) -> None:
    flow, model = shared / "flow.nc", shared / "tiny"
    out = tmp_path / "out.nc"
    assert cli.main([*f"forecast {model} {flow} --lead-time 0:3:1 -o {out}".split()]) == 0
    for line in (f"plot {out} -o {tmp_path / 'a.svg'}", f"animate {out} -o {tmp_path / 'a.html'}"):
        assert cli.main([*line.split(), "--truth", str(flow), "--model", str(model)]) == 0
    assert '"poses":[[[' in (tmp_path / "a.html").read_text()


REFUSED = {
    "plot F.nc -o a.docx": (2, "docx"),
    "plot F.nc -o a.gif": (2, "a.png"),
    "plot F.nc -o a.png --sample 7": (2, "--sample 0"),
    "plot F.nc -o a.png --variable speed": (2, "u, v"),
    "plot F.nc -o a.png --lead-time 0.7": (2, "came 0.7"),
    "plot F.nc -o a.png --model no-such-model": (4, "no-such-model"),
    "plot T.nc --truth missing.nc -o a.png": (3, "missing.nc"),
    "animate F.nc -o a.png": (2, "gif, mp4, html"),
    "animate F.nc -o a.mp4": (2, "ffmpeg"),
    "animate F.nc -o a.gif --sample 7": (2, "--sample 0"),
    "animate F.nc -o a.html --variable speed": (2, "u, v"),
    "animate missing.nc -o a.html": (3, "missing.nc"),
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_line_that_cannot_be_done_says_why(folder: Path, capsys, monkeypatch, line: str) -> None:
    code, said = REFUSED[line]
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert typed(folder, line) == code
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 2 and said in err, err
    assert names(folder) == ["forecast.nc", "truth.nc"]
