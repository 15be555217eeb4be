"""The command line as its users meet it: whole stories, and every error as two lines and a code."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

from pdeforecast import Forecaster, checkpoint, cli
from pdeforecast.trajectory import open_dataset

SMALL = "--set field.latents=16 --set field.degree=2 --set dynamics.hidden=16 --set dynamics.step=0.5"
SHORT = "--set training.dynamics_steps=4 --set training.joint_steps=2 --set training.batch=2"


def typed(*words: object) -> subprocess.CompletedProcess[str]:
    """`pdeforecast …` in a process of its own."""
    command = [sys.executable, "-m", "pdeforecast.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ})


def do(line: str, *words: object) -> None:
    """`pdeforecast …` in this process, which must succeed."""
    assert cli.main([*line.split(), *map(str, words)]) == 0


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Checks a command's exit code, that it says one line of cause and one of cure, and some of its words."""

    def check(code: int, words: list[object], *said: str) -> str:
        capsys.readouterr()
        assert cli.main(list(map(str, words))) == code
        out, err = capsys.readouterr()
        cause, cure = err.splitlines()
        assert out == "" and cause.endswith(".") and cure.endswith((".", "?", "`")), err
        assert all(word in err for word in said), err
        return cure

    return check


@pytest.fixture
def files(shared: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A model, a trajectory file, and a folder in which nothing but `out.nc` may appear."""
    return shared / "tiny", shared / "flow.nc", tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def saved(ds: xr.Dataset, path: Path) -> Path:
    ds.to_netcdf(path, engine="h5netcdf")
    return path


# --- whole stories -------------------------------------------------------------------------------


def test_from_nothing_to_a_picture(tmp_path: Path) -> None:
    flow, runs, forecast = tmp_path / "flow.nc", tmp_path / "run", tmp_path / "forecast.nc"
    size = "--set resolution=32 --set spin_up=1 --set frames=4 --set step=0.1"
    story = [
        f"generate navier-stokes --samples 2 --seed 3 --split test {size} --jobs 1 -o {flow}",
        f"train {flow} -o {runs} --preset smoke --budget 0 {SMALL} {SHORT}",
        f"forecast {runs} {flow} -o {forecast} --lead-time 0:3:1 --grid 48x32",
        f"evaluate {forecast} {flow} -o {tmp_path / 'score.json'}",
        f"plot {forecast} --truth {flow} -o {tmp_path / 'picture.png'}",
    ]
    for line in story:
        done = typed(*line.split())
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert names(tmp_path) == ["flow.nc", "forecast.nc", "picture.png", "run", "score.json"]
    assert names(runs) == [".lock", "log.csv", "model.safetensors", "progress.safetensors", "run.json"]
    assert (tmp_path / "picture.png").read_bytes()[1:4] == b"PNG"
    score = json.loads((tmp_path / "score.json").read_text())
    assert score["samples"] == 2 and score["points"] == 32 * 16
    assert 0 < score["variables"]["vorticity"]["t_in"]["relative_l2"] < 1
    card = checkpoint.load(runs).card
    assert card["data"]["split"] == "test" and card["command"].startswith("pdeforecast train ")
    with open_dataset(forecast) as ds:
        assert ds.attrs["command"] == f"pdeforecast {story[2]}"
        assert ds.attrs["model"] == checkpoint.load(runs).identity
        assert "torch " in ds.attrs["versions"] and "pdeforecast " in ds.attrs["versions"]
        assert ds.vorticity.dims == ("sample", "lead_time", "y", "x") and ds.vorticity.dtype == np.float32
        assert ds.sizes == {"sample": 2, "lead_time": 4, "y": 48, "x": 32}
        assert (ds.y.values[-1], ds.x.values[-1]) == (47 / 48, 31 / 32)
        assert {ds[name].attrs["units"] for name in ("vorticity", "x", "y", "lead_time")} == {"1"}
        assert ds.attrs["geometry"] == "periodic_plane" and ds.attrs["start_time"] == 0
        assert ds.lead_time.values.tolist() == [0, 1, 2, 3] and ds.sample.values.tolist() == [0, 1]


def test_errors_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = typed("forecast", tmp_path / "none", tmp_path / "state.nc", "-o", "out.nc", "--lead-time", "1")
    assert done.returncode == 4 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 2 and "Traceback" not in done.stderr


def gaps(ds: xr.Dataset) -> xr.Dataset:
    seen = np.random.default_rng(0).random((32, 32)) < 0.25
    return ds.assign(vorticity=ds.vorticity.where(xr.DataArray(seen, dims=("y", "x"))))


def sensors(ds: xr.Dataset) -> xr.Dataset:
    loose = gaps(ds)[["vorticity"]].isel(sample=0).stack(point=("y", "x")).reset_index("point")
    return loose.dropna("point").assign(forcing=ds.forcing.variable)


@pytest.mark.parametrize("change", [gaps, sensors])
@pytest.mark.parametrize("where", ["--grid 48x48", "--like REF", ""])
def test_states_of_every_kind(
    files: tuple[Path, Path, Path], flow: xr.Dataset, change: Callable[[xr.Dataset], xr.Dataset], where: str
) -> None:
    model, reference, folder = files
    state = saved(change(flow.isel(time=1)), folder / "state.nc")
    where = where.replace("REF", str(reference))
    do(f"forecast {model} {state} -o {folder / 'out.nc'} --lead-time 0,0.5,1,7.3 {where}")
    with open_dataset(folder / "out.nc") as ds, open_dataset(state) as given:
        assert ds.lead_time.values.tolist() == [0, 0.5, 1, 7.3] and ds.attrs["start_time"] == 1
        assert bool(np.isfinite(ds.vorticity).all())
        if where.startswith("--grid"):
            assert (ds.sizes["y"], ds.sizes["x"]) == (48, 48)
        elif where or change is gaps:
            assert (ds.sizes["y"], ds.sizes["x"]) == (32, 32)
            do(f"evaluate {folder / 'out.nc'} {reference} -o {folder / 'score.json'}")
            score = json.loads((folder / "score.json").read_text())
            assert score["samples"] == ds.sizes["sample"]
            assert [row["lead_time"] for row in score["variables"]["vorticity"]["per_lead"]] == [0, 1]
            assert score["variables"]["vorticity"]["reconstruction"]["relative_l2"] < 0.5
        else:
            assert ds.vorticity.dims == ("sample", "lead_time", "point")
            np.testing.assert_array_equal(ds.x, given.x)
    assert set(names(folder)) <= {"state.nc", "out.nc", "score.json"}


def test_an_interrupted_training_goes_on(shared: Path, tmp_path: Path, fails, capsys) -> None:
    flow = shared / "flow.nc"
    begin = f"train {flow} --preset smoke --budget 0 {SMALL} {SHORT} --seed 5 --device cpu -o"
    do(f"{begin} {tmp_path / 'whole'}")
    do(f"{begin} {tmp_path / 'cut'}")
    for name in ("progress.safetensors", "model.safetensors"):
        (tmp_path / "cut" / name).unlink()
    fails(2, f"{begin} {tmp_path / 'cut'}".split(), "holds a run", "--resume")
    for option in ("--set training.seed=3", "--budget 3m", "--preset smoke", "--geometry periodic_plane"):
        fails(2, f"train {flow} --resume -o {tmp_path / 'cut'} {option}".split(), option.split()[0])
    do(f"train {flow} --resume -o {tmp_path / 'cut'}")
    assert "trained: " in capsys.readouterr().out
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    lines = [line.split(",")[:4] for line in (tmp_path / "cut" / "log.csv").read_text().splitlines()]
    assert lines == [
        line.split(",")[:4] for line in (tmp_path / "whole" / "log.csv").read_text().splitlines()
    ]
    do(f"train {flow} --resume -o {tmp_path / 'whole'}")
    assert "--preset smoke" in checkpoint.load(tmp_path / "whole").card["command"]


def test_training_without_symmetry(files: tuple[Path, Path, Path], fails) -> None:
    _, flow, folder = files
    name = "periodic_plane_without_symmetry"
    do(f"train {flow} --preset smoke --budget 0 {SMALL} {SHORT} --geometry {name} -o {folder / 'run'}")
    assert checkpoint.load(folder / "run").config.geometry == name
    do(f"forecast {folder / 'run'} {flow} --lead-time 1 --grid 8x8 -o {folder / 'out.nc'}")
    line = f"train {flow} -o {folder / 'other'} --geometry periodic_plan"
    assert fails(2, line.split(), "'periodic_plan'") == "Type `--geometry periodic_plane`."


def test_training_on_data_that_name_no_geometry(
    files: tuple[Path, Path, Path], flow: xr.Dataset, fails
) -> None:
    _, _, folder = files
    data = saved(flow.drop_attrs(deep=False), folder / "data.nc")
    line = f"train {data} --preset smoke --budget 0 {SMALL} {SHORT} -o {folder / 'run'}"
    assert "--geometry periodic_plane" in fails(3, line.split(), "expected the coordinates of one geometry")
    do(f"{line} --geometry periodic_plane")
    assert checkpoint.load(folder / "run").config.geometry == "periodic_plane"


def test_solve_gives_what_forecast_gives(files: tuple[Path, Path, Path], capsys) -> None:
    model, flow, folder = files
    do(f"solve navier-stokes {flow} -o {folder / 'solved.nc'} --lead-time 0,1 --set step=0.1")
    do(f"forecast {model} {flow} -o {folder / 'out.nc'} --lead-time 0,1")
    with open_dataset(folder / "solved.nc") as a, open_dataset(folder / "out.nc") as b:
        assert a.vorticity.dims == b.vorticity.dims and a.vorticity.shape == b.vorticity.shape
        assert a.attrs["start_time"] == b.attrs["start_time"]
        np.testing.assert_array_equal(a.sample, b.sample)
    capsys.readouterr()
    do(f"evaluate {folder / 'out.nc'} {folder / 'solved.nc'}")
    out, err = capsys.readouterr()
    errors = [row["relative_l2"] for row in json.loads(out)["variables"]["vorticity"]["per_lead"]]
    head, line = err.splitlines()
    assert head.split() == ["variable", "relative", "L2", "at", "0", "at", "1", "mse"]
    assert line.split()[:4] == ["vorticity", *(f"{e:.3g}" for e in (np.mean(errors), *errors))]
    do(f"evaluate {folder / 'out.nc'} {folder / 'solved.nc'} -o {folder / 'score.json'}")
    assert capsys.readouterr() == (err, "") and json.loads((folder / "score.json").read_text())


def test_models_lists_what_is_shipped(monkeypatch, shared: Path, capsys) -> None:
    monkeypatch.setattr(checkpoint, "shipped", lambda: {"tiny": shared / "tiny" / "model.safetensors"})
    do("models")
    assert "vorticity on periodic_plane" in capsys.readouterr().out
    monkeypatch.setattr(checkpoint, "shipped", dict)
    do("models")


# --- exit code 2: what was typed means nothing -----------------------------------------------------

FORECAST = "forecast MODEL FLOW -o OUT --lead-time"
TRAIN = "train FLOW -o OUT"
GENERATE = "generate navier-stokes -o OUT --samples"
TYPED = {
    "": "VERB",
    "forcast": "forcast",
    "forecast MODEL": "required",
    f"{FORECAST} abc": "0:19:1",
    f"{FORECAST} 0:19": "0:19:1",
    f"{FORECAST} 0:19:0": "0:19:1",
    f"{FORECAST} 5:1:1": "0:19:1",
    f"{FORECAST} 0:inf:1": "0:19:1",
    f"{FORECAST} 0:1e9:1e-9": "0:19:1",
    f"{FORECAST} nan": "0:19:1",
    f"{FORECAST} -1": "0:19:1",
    f"{FORECAST} 1,,2": "0:19:1",
    f"{FORECAST} 1 --grid 48": "--grid 128x128",
    f"{FORECAST} 1 --grid 4x4x4": "--grid 128x128",
    f"{FORECAST} 1 --grid 0x4": "--grid 128x128",
    f"{FORECAST} 1 --grid 4*4": "--grid 128x128",
    f"{FORECAST} 1 --grid 4x4 --like FLOW": "not allowed with",
    f"{FORECAST} 1 --device tpu": "tpu",
    f"{FORECAST} 1 --seed x": "seed",
    f"{FORECAST} 1 --seed 99999999999": "seed",
    f"{FORECAST} 1 --gird 4x4": "--gird",
    "forecast MODEL FLOW -o FLOW --lead-time 1": "one of the inputs",
    "forecast MODEL FLOW -o FLOW --lead-time 1 --overwrite": "one of the inputs",
    "forecast MODEL FLOW -o MODEL --lead-time 1 --overwrite": "one of the inputs",
    "forecast MODEL --sensors FLOW -o FLOW --lead-time 1 --overwrite": "one of the inputs",
    "forecast MODEL NONE --at FLOW -o FLOW --lead-time 1 --overwrite": "one of the inputs",
    f"{FORECAST} 1 --like FLOW -o FLOW --overwrite": "one of the inputs",
    f"{FORECAST} 1 -o HERE --overwrite": "is a folder",
    f"{FORECAST} 1 -o OUT.txt": "-o OUT.nc",
    f"{FORECAST} 1 -o OUT.v2": ".nc, .nc4, .zarr, .csv",
    "forecast MODEL FLOW -o OUT/deeper/out.nc --lead-time 1": "mkdir",
    f"{TRAIN} --preset defualt": "--preset default",
    f"{TRAIN} --budget soon": "--budget 20m",
    f"{TRAIN} --budget -3m": "--budget",
    f"{TRAIN} --set hidden=3": "--set dynamics.hidden=3",
    f"{TRAIN} --set training.batsh=3": "--set training.batch=3",
    f"{TRAIN} --set training.batch": "key=value",
    f"{TRAIN} --set training.batch=x": "whole number",
    f"{TRAIN} --set field.latents=17": "Ask for 16 or 25",
    "train FLOW -o FLOW": "is a file",
    f"{GENERATE} 0": "samples",
    f"{GENERATE} x": "samples",
    f"{GENERATE} 1 --jobs 0": "jobs",
    f"{GENERATE} 1 --set viscosty=3": "--set viscosity=3",
    f"{GENERATE} 1 --set resolution=big": "resolution",
    f"{GENERATE} 1 --split tset": "--split test",
    f"{GENERATE} 1 --split Train": "--split train",
    f"{GENERATE} 1 --set resolution=20000": "33.6 GB",
    f"{TRAIN} --preset smoke --set dynamics.hidden=1000000000000": "more memory",
    "generate navier-stoks --samples 1 -o OUT": "navier-stokes",
    "generate navier-stokes --samples 1 -o FLOW": "exists already",
    f"{GENERATE} 1 -o OUT.csv": "-o OUT.nc",
    "solve navier-stokes FLOW -o FLOW --lead-time 1 --overwrite": "one of the inputs",
    "convert FLOW -o FLOW --overwrite": "one of the inputs",
    "convert FLOW -o OUT.zarr": "-o OUT.nc",
    "evaluate FLOW FLOW -o FLOW --overwrite": "one of the inputs",
    "evaluate FLOW FLOW --train-frames -3": "train frames",
    "evaluate FLOW FLOW -o OUT.csv": "-o OUT.json",
    "animate FLOW -o FLOW --overwrite": "an animation",
    "bench horizon MODEL -o FLOW": "is a file",
    "plot FLOW -o OUT.docx": "docx",
    "forcast MODEL FLOW -o OUT": "Type `pdeforecast forecast`.",
    "zzz": "--help",
    "models.": "one of models, generate",
}


@pytest.mark.parametrize("line", TYPED)
def test_what_means_nothing(files: tuple[Path, Path, Path], fails, line: str) -> None:
    model, flow, folder = files
    places = {"MODEL": str(model), "FLOW": str(flow), "OUT": str(folder / "out"), "HERE": str(folder)}
    before, said = flow.stat().st_mtime_ns, TYPED[line]
    for name, place in places.items():
        line, said = line.replace(name, place), said.replace(name, place)
    fails(2, line.split(), said)
    assert names(folder) == [] and flow.stat().st_mtime_ns == before


def test_overwriting_must_be_asked_for(files: tuple[Path, Path, Path], fails) -> None:
    model, flow, folder = files
    out = folder / "out.nc"
    out.write_text("precious")
    line = f"forecast {model} {flow} -o {out} --lead-time 1 --grid 4x4"
    assert "type `--overwrite`" in fails(2, line.split(), "exists already")
    assert out.read_text() == "precious"
    do(f"{line} --overwrite")
    with open_dataset(out) as ds:
        assert ds.sizes["x"] == 4


def test_an_output_is_none_of_the_inputs_by_whatever_name(files: tuple[Path, Path, Path], fails) -> None:
    model, flow, folder = files
    given, before = folder / "given.nc", flow.read_bytes()
    given.write_bytes(before)
    (folder / "soft.nc").symlink_to(given)
    (folder / "hard.nc").hardlink_to(given)
    for name in ("soft.nc", "hard.nc", "./given.nc"):
        line = f"forecast {model} {given} -o {folder / name} --lead-time 1 --overwrite"
        fails(2, line.split(), "one of the inputs")
    assert given.read_bytes() == before


def test_an_empty_output(files: tuple[Path, Path, Path], fails) -> None:
    model, flow, _ = files
    fails(2, ["forecast", model, flow, "--lead-time", "1", "-o", ""], "empty")
    fails(2, ["train", flow, "-o", ""], "empty")


def test_arguments_stand_anywhere_among_options(files: tuple[Path, Path, Path], fails) -> None:
    model, flow, folder = files
    do(f"forecast --grid 4x4 {model} --lead-time 1 {flow} -o {folder / 'out.nc'}")
    do(f"evaluate {flow} -o {folder / 'score.json'} {flow}")
    do(f"generate --samples 1 navier-stokes --jobs 1 --set resolution=8 --set frames=2 -o {folder / 'a.nc'}")
    fails(2, f"forecast {model} --lead-time 1 {flow} {flow} -o {folder / 'b.nc'}".split(), "unrecognized")
    assert names(folder) == ["a.nc", "out.nc", "score.json"]


def test_endings_in_capitals(files: tuple[Path, Path, Path]) -> None:
    model, flow, folder = files
    do(f"forecast {model} {flow} -o {folder / 'OUT.CSV'} --lead-time 1 --grid 4x4")
    assert (folder / "OUT.CSV").read_text().startswith("sample,lead_time,y,x,vorticity\n")


# --- exit code 3: the data ------------------------------------------------------------------------


def closed(ds: xr.Dataset) -> xr.Dataset:
    return xr.concat([ds, ds.isel(x=[0]).assign_coords(x=[1.0])], "x", data_vars="minimal")


def emptied(ds: xr.Dataset, value: float) -> xr.Dataset:
    return ds.assign(vorticity=ds.vorticity.where(ds.x < value))


DATA: dict[str, tuple[Callable[[xr.Dataset], xr.Dataset], list[str]]] = {
    "repeated end": (closed, ["without its end point", "isel(x="]),
    "no variable": (lambda ds: ds.rename(vorticity="w"), ["expected vorticity", "vorticity"]),
    "another spelling": (lambda ds: ds.rename(vorticity="vortictiy"), ["rename(vortictiy='vorticity')"]),
    "no forcing": (lambda ds: ds.drop_vars("forcing"), ["expected forcing"]),
    "no coordinate": (lambda ds: ds.drop_vars("x"), ["expected x", "assign_coords(x="]),
    "all NaN": (lambda ds: emptied(ds, -1), ["NaN everywhere"]),
    "infinite": (lambda ds: ds.assign(vorticity=ds.vorticity / 0), ["infinities", "np.isfinite"]),
    "units": (
        lambda ds: ds.assign(vorticity=ds.vorticity.assign_attrs(units="km")),
        ["'km'", "attrs['units'] = '1'"],
    ),
    "degrees": (lambda ds: ds.assign_coords(x=360 * ds.x), ["beyond the space"]),
    "another geometry": (lambda ds: ds.assign_attrs(geometry="sphere"), ["'sphere'"]),
}


@pytest.mark.parametrize("what", DATA)
def test_states_that_are_refused(files: tuple[Path, Path, Path], flow: xr.Dataset, fails, what: str) -> None:
    model, _, folder = files
    change, said = DATA[what]
    state = saved(change(flow[["vorticity", "forcing"]].isel(time=0)), folder / "state.nc")
    fails(3, ["forecast", model, state, "-o", folder / "out.nc", "--lead-time", "1"], *said)
    assert names(folder) == ["state.nc"]


def test_a_missing_static_field(files: tuple[Path, Path, Path], flow: xr.Dataset, fails) -> None:
    model, _, folder = files
    (folder / "s.csv").write_text("x,y,vorticity\n0.1,0.2,1\n0.4,0.2,2\n")
    bare = saved(flow.drop_vars("forcing"), folder / "bare.nc")
    for given in (["--sensors", folder / "s.csv"], [bare], [bare, "--sensors", folder / "s.csv"]):
        words = ["forecast", model, *given, "--lead-time", 0, "-o", folder / "out.nc"]
        cure = fails(3, words, "expected forcing, a static field")
        assert "STATE.nc" in cure and "column" in cure and "ename" not in cure
    misspelt = saved(flow.rename(forcing="forcng"), folder / "misspelt.nc")
    cure = fails(3, ["forecast", model, misspelt, "--lead-time", 0, "-o", folder / "out.nc"])
    assert "rename(forcng='forcing')" in cure


@pytest.mark.parametrize("share", [None, 0.0, 0.001, 0.3, 0.99, "text", "folder"])
def test_files_that_cannot_be_read(files: tuple[Path, Path, Path], fails, share: float | str | None) -> None:
    model, flow, folder = files
    state, whole = folder / "state.nc", flow.read_bytes()
    if share == "text":
        state.write_text("x,y,vorticity\n0,0,1\n")
    elif share == "folder":
        state.mkdir()
    elif isinstance(share, float):
        state.write_bytes(whole[: int(share * len(whole))])
    before = names(folder)
    fails(3, ["forecast", model, state, "-o", folder / "out.nc", "--lead-time", "1"], str(state))
    fails(3, ["train", state, "-o", folder / "run"], str(state))
    fails(3, ["evaluate", state, flow], str(state))
    fails(3, ["solve", "navier-stokes", state, "-o", folder / "out.nc", "--lead-time", "1"], str(state))
    assert names(folder) == before


def test_a_full_disk_leaves_nothing(files: tuple[Path, Path, Path], fails, monkeypatch) -> None:
    model, flow, folder = files

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    line = f"forecast {model} {flow} -o {folder / 'out.nc'} --lead-time 1 --grid 4x4"
    fails(3, line.split(), "No space left")
    assert names(folder) == []


def test_more_than_the_disk_holds(files: tuple[Path, Path, Path], fails, monkeypatch) -> None:
    model, flow, folder = files
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 10**9))
    for ending in ("nc", "csv"):
        line = f"forecast {model} {flow} -o {folder / 'out'}.{ending} --lead-time 0,1 --grid 50000x50000"
        fails(2, line.split(), "room for 60 GB", "has 5 GB left", "fewer points")
    assert names(folder) == []


def test_nothing_in_common(files: tuple[Path, Path, Path], fails) -> None:
    model, flow, folder = files
    do(f"forecast {model} {flow} -o {folder / 'out.nc'} --lead-time 0.25 --grid 4x4")
    fails(3, ["evaluate", folder / "out.nc", flow], "--lead-time")
    fails(3, ["plot", folder / "out.nc", "--truth", flow, "-o", folder / "out.png"], "--lead-time")
    assert names(folder) == ["out.nc"]


# --- exit codes 4 and 5: the model ----------------------------------------------------------------


def test_models_that_are_refused(files: tuple[Path, Path, Path], fails, monkeypatch) -> None:
    model, flow, folder = files
    path = folder / "mine.safetensors"

    def refuse(name: object, *said: str) -> str:
        return fails(4, ["forecast", name, flow, "-o", folder / "out.nc", "--lead-time", "1"], *said)

    refuse(path, "neither")
    whole = bytearray((model / "model.safetensors").read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    refuse(path, "sha256")
    path.write_bytes(whole[:1000])
    refuse(path, "cannot be read")
    save_file({"weight": torch.zeros(2)}, path)
    refuse(path, "of format")
    torch.save({"weight": torch.zeros(2)}, path)
    refuse(path, "cannot be read")
    monkeypatch.setattr(checkpoint, "shipped", lambda: {"navier-stokes": path})
    assert refuse("navier-stoke", "navier-stokes") == "Type `navier-stokes`."
    assert fails(4, ["inspect", "navier-stoke"], "shipped model") == "Type `navier-stokes`."
    fails(3, ["inspect", "nothing-like-it"], "no file")
    fails(4, ["train", flow, "--resume", "-o", folder / "run"], "run.json", "--resume")
    assert names(folder) == ["mine.safetensors"]


def test_a_forecast_that_diverges(files: tuple[Path, Path, Path], model: Forecaster, fails) -> None:
    _, flow, folder = files
    with torch.no_grad():
        model.dynamics.context_head.weight.fill_(1e38)
    checkpoint.save(model, folder / "wild.safetensors")
    line = ["forecast", folder / "wild.safetensors", flow, "-o", folder / "out.nc", "--lead-time", "9"]
    fails(5, line, "finite", "lead time 9")
    assert names(folder) == ["wild.safetensors"]
