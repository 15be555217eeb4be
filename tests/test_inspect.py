"""`pdeforecast inspect`: what is understood is said, and every fault with its cure."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr

from pdeforecast import cli, description
from pdeforecast.errors import DataError
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.inspection import inspect, inspect_dataset
from pdeforecast.trajectory import default_axes, save_dataset, to_dataset

PLANE = GEOMETRIES["periodic_plane"]


def dataset() -> xr.Dataset:
    axes = default_axes(PLANE, {"y": 6, "x": 8})
    values = np.random.default_rng(0).normal(size=(3, 4, 6, 8, 1)).astype(np.float32)
    ds = to_dataset(
        values, PLANE, {"u": "m"}, axes, [0, 0.5, 1, 1.5], "time", "s", {"equation": "mine", "seed": 7}
    )
    ds = ds.assign(mask=(("y", "x"), np.ones((6, 8), dtype=np.float32), {"units": "1"}))
    return ds.assign(state_hash=("sample", np.array(["a", "b", "a"], dtype=object)))


def words(lines: list[str], head: str) -> str:
    return next(line for line in lines if line.split()[0] == head)


def test_what_is_understood() -> None:
    ds = dataset()
    ds["u"][1, 0, 0] = np.nan
    found = inspect_dataset(ds)
    assert found.problems == []
    low, high = float(ds.u.min()), float(ds.u.max())
    for head, *said in (
        ("file", "sample 3, time 4, ", "MB"),
        ("domain", "periodic_plane", "the attribute geometry", "on a grid"),
        ("y", "6 nodes from 0 to 0.833333", "regular, one period without its end"),
        ("time", "4 from 0 to 1.5 (s), regular"),
        ("u", "(sample, time, y, x) float32, unit m", f"from {low:.4g} to {high:.4g}, 1.39 % NaN"),
        ("mask", "(y, x) float32, unit 1, always 1, static"),
        ("equation", "mine"),
        ("seed", "7"),
        ("states", "3 initial states, 2 different"),
    ):
        line = words(found.lines, head)
        assert all(word in line for word in said), line


@pytest.mark.parametrize("name", [name for name, space in GEOMETRIES.items() if space.domain == name])
def test_every_domain(name: str) -> None:
    geometry = GEOMETRIES[name]
    axes = default_axes(geometry, dict.fromkeys(geometry.coordinates, 4))
    shape = (1, 1, *(4 for _ in axes), 1)
    found = inspect_dataset(to_dataset(np.ones(shape), geometry, {"u": "1"}, axes, [0.0], "time"))
    assert found.problems == [] and name in words(found.lines, "domain")
    for axis in axes:
        line = words(found.lines, axis)
        assert "regular, cell centres" in line or "regular, one period without its end" in line


def irregular(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign_coords(x=[0, 0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 0.9], time=[0, 1, 3, 4.0])


def test_irregular_is_no_fault() -> None:
    found = inspect_dataset(irregular(dataset()))
    assert found.problems == []
    assert "irregular: steps from 0.1 to 0.2" in words(found.lines, "x")
    assert "irregular" in words(found.lines, "time")


def test_states_and_sensors() -> None:
    ds = dataset()[["u"]].isel(time=0, drop=True).stack(point=("y", "x")).reset_index("point")
    found = inspect_dataset(ds)
    assert found.problems == [] and "on points" in words(found.lines, "domain")
    assert "not for training" in words(found.lines, "time") and "static" not in words(found.lines, "u")


FAULTS: dict[str, tuple[Callable[[xr.Dataset], xr.Dataset], list[str]]] = {
    "end repeated": (
        lambda ds: xr.concat([ds, ds.isel(x=[0]).assign_coords(x=[1.0])], "x", data_vars="minimal"),
        ["without its end point"],
    ),
    "infinite": (lambda ds: ds.assign(u=ds.u / 0), ["infinities"]),
    "a sample empty": (lambda ds: ds.assign(u=ds.u.where(ds.n != 1)), ["NaN everywhere in sample 1"]),
    "times out of order": (lambda ds: ds.isel(time=[1, 0, 2, 3]), ["ascending"]),
    "no times": (lambda ds: ds.drop_vars("time"), ["times along time"]),
    "no domain": (
        lambda ds: ds.drop_attrs().rename(x="east").assign(u=ds.u.rename(x="east") / 0),
        ["coordinates of one geometry"],
    ),
    "no fields": (lambda ds: ds.drop_vars(["u", "mask"]), ["fields of real numbers"]),
    "several at once": (
        lambda ds: ds.assign_coords(x=ds.x * 360, time=-ds.time).assign(u=ds.u / 0, mask=ds.mask * np.nan),
        ["beyond the space", "infinities", "mask is NaN everywhere", "ascending"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_told_once_with_its_cure(
    tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, said = FAULTS[fault]
    with np.errstate(all="ignore"):
        ds = spoil(dataset().assign_coords(n=("sample", range(3))))
    found = inspect_dataset(ds)
    assert len(found.problems) == len(said)
    for problem, text in zip(found.problems, said, strict=True):
        assert text in problem.cause and problem.cure and "\n" not in problem.cure
    save_dataset(ds, tmp_path / "data.nc")
    assert cli.main(["inspect", str(tmp_path / "data.nc")]) == 3
    out, err = capsys.readouterr()
    assert out.count("problem: ") == out.count("  cure: ") == len(said)
    assert len(err.splitlines()) == 2 and "Traceback" not in err


def test_a_good_file_through_the_command_line(shared: Path) -> None:
    command = [sys.executable, "-m", "pdeforecast.cli", "inspect", str(shared / "flow.nc")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.endswith("no problems\n")
    assert "3 initial states, 3 different" in done.stdout and "static" in done.stdout


def test_a_foreign_file_is_told_with_the_command_that_converts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(tmp_path / "2D_periodic.hdf5", "w") as file:
        file["density"] = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
        file["x-coordinate"], file["y-coordinate"] = np.arange(4) / 4, np.arange(5) / 5
        file["t-coordinate"] = np.arange(4.0)
    assert cli.main(["inspect", str(tmp_path / "2D_periodic.hdf5")]) == 3
    out, err = capsys.readouterr()
    assert "layout pdebench" in out and "(sample 2, time 3, x 4, y 5) float64" in out and "periodic" in out
    command = err.split("`")[1].replace("2D_periodic.nc", str(tmp_path / "out.nc"))
    assert cli.main(command.split()[1:]) == 0
    assert inspect(tmp_path / "out.nc").problems == []


def test_a_netcdf_file_with_other_names_is_told_the_command_too(tmp_path: Path) -> None:
    ds = xr.Dataset(
        {"t2m": (("lat", "lon"), np.random.default_rng(0).normal(size=(4, 8)))},
        {"lat": [-60.0, -20, 20, 60], "lon": np.arange(8) * 45.0},
    )
    ds.to_netcdf(tmp_path / "era.nc", engine="h5netcdf")
    [problem] = inspect(tmp_path / "era.nc").problems
    assert "rotating_sphere" in problem.cause and "pdeforecast convert" in problem.cure


@pytest.mark.parametrize("name", ["none.nc", "empty.nc"])
def test_what_is_no_data(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.nc").touch()
    assert cli.main(["inspect", str(tmp_path / name)]) == 3
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 2


@pytest.mark.parametrize("name", ["model.safetensors", "tiny"])
def test_a_model(shared: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = shared / "tiny" if name == "tiny" else shared / "tiny" / name
    assert cli.main(["inspect", str(path)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    for head, said in (
        ("model", "tiny@"),
        ("forecasts", "vorticity, unit 1"),
        ("needs", "forcing, unit 1"),
        ("geometry", "periodic_plane; its group: translations"),
        ("state", "16 latents × 9 numbers"),
        ("horizon", "trained to lead time 3"),
        ("errors", "not measured"),
        ("equivariance", "not measured"),
        ("trust", "training states"),
    ):
        assert said in words(lines, head), head
    with pytest.raises(DataError, match="is a model"):
        inspect(path)


def test_a_shipped_model_and_a_damaged_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "diffusion-plane"]) == 0
    out = capsys.readouterr().out
    for said in (
        "10% observed: MSE",
        "lead 9.5: relative L2",
        "equation diffusion-plane",
        "diffusivity = 0.1",
    ):
        assert said in out
    assert "measured to 9.5" in out and "validation states" in out and "MB" in out
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    assert cli.main(["inspect", str(tmp_path)]) == 4
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_group_of_every_space_has_words() -> None:
    assert {name for name in GEOMETRIES if not name.endswith("without_symmetry")} == set(description._GROUPS)


def test_large_files_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_dataset(dataset(), tmp_path / "data.nc")
    whole = inspect(tmp_path / "data.nc")
    sizes: list[int] = []
    once = xr.Variable.values.fget  # type: ignore[attr-defined]

    def counted(self: xr.Variable) -> np.ndarray:
        if self.ndim == 4:
            sizes.append(self.nbytes)
        return once(self)

    monkeypatch.setattr(xr.Variable, "values", property(counted, xr.Variable.values.fset))
    monkeypatch.setattr("pdeforecast.trajectory.blocks.blocks.__defaults__", (400,))
    assert inspect(tmp_path / "data.nc").lines == whole.lines
    assert sizes and max(sizes) <= 400


def test_torch_files_are_understood_too(tmp_path: Path) -> None:
    torch.save({"u": torch.rand(2, 3, 8, 8)}, tmp_path / "u.pt")
    found = inspect(tmp_path / "u.pt")
    assert "layout fno" in found.lines[0] and "(sample 2, time 3, y 8, x 8)" in words(found.lines, "u")
    assert len(found.problems) == 1
