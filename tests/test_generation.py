"""A trajectory depends on its key alone; a file holds what the contract says; a recipe is data."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pdeforecast import generation, trajectory
from pdeforecast.errors import DataError, DivergedError, UsageError
from pdeforecast.pdes import PDES, NavierStokes, make, parameters

SMALL = NavierStokes(resolution=16, spin_up=0.5, frames=3, interval=0.5, step=0.1)
RECIPES = sorted((Path(__file__).resolve().parents[1] / "datasets").glob("*.toml"))


def bytes_of(found: generation.Trajectory) -> bytes:
    return found.values.tobytes() + b"".join(array.tobytes() for array in found.statics.values())


def test_processes_change_no_byte() -> None:
    alone = [bytes_of(t) for t in generation.generate(SMALL, 3, seed=1)]
    together = [bytes_of(t) for t in generation.generate(SMALL, 3, seed=1, jobs=2)]
    assert alone == together and len(set(alone)) == 3


def test_a_file_is_the_contract(tmp_path) -> None:
    done = []
    path = tmp_path / "train.nc"
    generation.write(SMALL, path, 2, seed=3, split="train", progress=lambda i, n: done.append((i, n)))
    assert done == [(1, 2), (2, 2)]
    with trajectory.open_dataset(path) as ds:
        assert ds.vorticity.dims == ("sample", "time", "y", "x") and ds.vorticity.dtype == np.float32
        assert ds.forcing.dims == ("y", "x")
        assert ds.time.values.tolist() == [0, 0.5, 1.0] and ds.x.values[-1] == 15 / 16
        assert ds.attrs["equation"] == "navier-stokes" and ds.attrs["geometry"] == "periodic_plane"
        assert (ds.attrs["seed"], ds.attrs["split"]) == (3, "train")
        assert make(ds.attrs["equation"], json.loads(ds.attrs["parameters"])) == SMALL
        hashes = [trajectory.state_hash(ds.vorticity.values[i, 0]) for i in range(2)]
        assert ds.state_hash.values.tolist() == hashes and len(set(hashes)) == 2
        trajectory.check(ds, trajectory.geometry_of(ds), SMALL.units, SMALL.statics)


def test_the_same_command_writes_the_same_file(tmp_path) -> None:
    for name in ("a.nc", "b.nc"):
        generation.write(SMALL, tmp_path / name, 2)
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        generation.write(SMALL, tmp_path / "a.nc", 2)


def test_counts_must_make_sense() -> None:
    for wrong in ({"samples": 0}, {"samples": 1, "jobs": 0}, {"samples": 1, "seed": -1}):
        with pytest.raises(UsageError, match="expected"):
            generation.generate(SMALL, **wrong)


def test_a_solution_that_leaves_the_numbers_is_an_error(tmp_path) -> None:
    wild = NavierStokes(resolution=16, spin_up=0, frames=8, interval=50, step=50, forcing=100, viscosity=0)
    with pytest.raises(DivergedError, match="sample 0"):
        generation.write(wild, tmp_path / "wild.nc", 1)
    assert list(tmp_path.iterdir()) == []


def test_an_error_comes_whole_out_of_a_process() -> None:
    error = pickle.loads(pickle.dumps(DivergedError("why", "what to type")))
    assert (str(error), error.exit_code) == ("why\nwhat to type", 5)


# --- from a given state --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file() -> xr.Dataset:
    return generation.assemble(SMALL, list(generation.generate(SMALL, 2)), 0, "train")


def test_solve_continues_a_trajectory(file: xr.Dataset) -> None:
    out = generation.solve_from(SMALL, file, [1.0, 0.0, 0.5])
    np.testing.assert_array_equal(out.lead_time, [1.0, 0.0, 0.5])
    np.testing.assert_allclose(out.vorticity, file.vorticity[:, [2, 0, 1]], atol=1e-5)
    later = generation.solve_from(SMALL, file.isel(time=1), [0.5])
    np.testing.assert_allclose(later.vorticity[:, 0], file.vorticity[:, 2], atol=1e-5)
    assert later.attrs["start_time"] == 0.5 and "forcing" in later


@pytest.mark.parametrize(
    "layout",
    [
        lambda ds: ds.transpose("x", "y", ...),
        lambda ds: ds.isel(y=slice(None, None, -1)),
        lambda ds: ds.assign_coords(x=ds.x.where(ds.x < 0.5, ds.x - 1)),
    ],
)
def test_solve_takes_any_layout(file: xr.Dataset, layout) -> None:
    found = generation.solve_from(SMALL, layout(file), [1.0])
    found = found.assign_coords(x=found.x % 1).sortby("x")
    np.testing.assert_allclose(found.vorticity[:, 0], file.vorticity[:, 2], atol=1e-5)


UNSOLVABLE = {
    "loose": lambda ds: ds.stack(point=("y", "x")).reset_index("point"),
    "gaps": lambda ds: ds.assign(vorticity=ds.vorticity.where(ds.x != 0.5)),
    "part of the plane": lambda ds: ds.isel(x=slice(8)),
    "irregular": lambda ds: ds.assign_coords(x=ds.x**2),
    "oblong": lambda ds: ds.isel(x=slice(None, None, 2)),
    "no forcing": lambda ds: ds.drop_vars("forcing"),
}


@pytest.mark.parametrize("fault", UNSOLVABLE)
def test_what_the_solver_cannot_take_is_told(file: xr.Dataset, fault: str) -> None:
    with pytest.raises(DataError, match="expected"):
        generation.solve_from(SMALL, UNSOLVABLE[fault](file), [1.0])


def test_lead_times_lie_ahead(file: xr.Dataset) -> None:
    for wrong in ([], [-1.0], [float("nan")]):
        with pytest.raises(UsageError, match="lead times"):
            generation.solve_from(SMALL, file, wrong)


# --- parameters and recipes ----------------------------------------------------------------------


def test_parameters_are_parsed_as_typed() -> None:
    pde = make("navier-stokes", {"viscosity": "1e-4", "resolution": "128"})
    assert pde == NavierStokes(viscosity=1e-4, resolution=128)


@pytest.mark.parametrize(
    ("name", "overrides", "cause", "cure"),
    [
        ("navier-stoke", {}, "navier-stoke'", "`navier-stokes`"),
        ("navier-stokes", {"viscosty": "1"}, "length²/time", "--set viscosity=1"),
        ("navier-stokes", {"viscosity": "thick"}, "expected a number", "viscosity=0.001"),
        ("navier-stokes", {"viscosity": "nan"}, "expected a number", "viscosity=0.001"),
        ("navier-stokes", {"resolution": "64.5"}, "whole number", "resolution=64"),
        ("navier-stokes", {"resolution": "0"}, "resolution ≥ 8", "resolution=8"),
        ("navier-stokes", {"interval": "0"}, "interval > 0", "interval=1"),
    ],
)
def test_a_wrong_parameter_is_told_with_its_cure(name, overrides, cause, cure) -> None:
    with pytest.raises(UsageError) as caught:
        make(name, overrides)
    assert cause in caught.value.cause and cure in caught.value.cure


@pytest.mark.parametrize("name", PDES)
def test_every_parameter_is_documented(name: str) -> None:
    assert not [line for line in parameters(PDES[name]).values() if "undocumented" in line]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads(path: Path) -> None:
    recipe = generation.load_recipe(path)
    assert {"train", "validation", "test"} <= set(recipe.splits)
    train, test = recipe.splits["train"].pde, recipe.splits["test"].pde
    assert train.times()[-1] < test.times()[-1]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("equation = 'navier-stokes'\nsplit = 1", "unknown key 'split'"),
        ("equation = 'heat'", "an equation among"),
        ("equation = 'navier-stokes'\n[parameters]\nnu = 1", "no parameter 'nu'"),
        ("equation = 'navier-stokes'\n[splits.train]\nsamples = 3\nseeds = 1", "unknown key 'seeds'"),
        ("equation = 'navier-stokes'\n[splits.train]\nsamples = 3", "splits.train.seed"),
        ("equation =", "expected TOML"),
    ],
)
def test_a_wrong_recipe_is_told(tmp_path, text: str, cause: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=cause):
        generation.load_recipe(path)
    with pytest.raises(UsageError, match="cannot read"):
        generation.load_recipe(tmp_path / "absent.toml")


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    next(iter(generation.generate(SMALL, 1)))
    assert torch.get_num_threads() == before
