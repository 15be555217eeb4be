"""A trajectory depends on its key alone; a file holds what the contract says; a recipe is data."""

import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pdeforecast import cli, generation, trajectory
from pdeforecast.errors import DataError, DivergedError, UsageError
from pdeforecast.generation import samples
from pdeforecast.pdes import PDES, NavierStokes, make, parameters

SMALL = NavierStokes(resolution=16, spin_up=0.5, frames=3, interval=0.5, step=0.1)
RECIPES = sorted((Path(__file__).resolve().parents[1] / "datasets").glob("*.toml"))


def bytes_of(found: generation.Trajectory) -> bytes:
    return found.values.tobytes() + b"".join(array.tobytes() for array in found.statics.values())


@pytest.mark.parametrize("start", [0.0, 60.0])
def test_processes_change_no_byte(start: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they are worth their start, as with 0 s, or not."""
    monkeypatch.setattr(samples, "_START", start)
    pools = []
    pool = samples.ProcessPoolExecutor
    monkeypatch.setattr(samples, "ProcessPoolExecutor", lambda *a, **k: pools.append(a) or pool(*a, **k))
    alone = [bytes_of(t) for t in generation.generate(SMALL, 3, seed=1)]
    together = [bytes_of(t) for t in generation.generate(SMALL, 3, seed=1, jobs=2)]
    assert alone == together and len(set(alone)) == 3
    assert pools == ([(2,)] if start == 0 else [])


def test_a_file_is_the_contract(tmp_path) -> None:
    done = []
    path = tmp_path / "train.nc"
    generation.write(SMALL, path, 2, seed=3, split="train", progress=lambda i, n: done.append((i, n)))
    assert done == [(0, 2), (1, 2), (2, 2)]
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


# --- interruptions -------------------------------------------------------------------------------


def partial_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


class Cut(Exception):
    """Stands for whatever ends a process."""


def cut_after(count: int, error: Exception) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= count:
            raise error

    return progress


@pytest.mark.parametrize("damage", ["none", "torn line", "torn record", "wrong byte", "no values"])
def test_an_interrupted_file_goes_on(tmp_path: Path, damage: str) -> None:
    whole, path = tmp_path / "whole.nc", tmp_path / "cut.nc"
    generation.write(SMALL, whole, 4)
    with pytest.raises(Cut):
        generation.write(SMALL, path, 4, progress=cut_after(2, Cut()))
    assert not path.exists()
    values, log = partial_of(path) / "values", partial_of(path) / "done"
    data, kept = values.read_bytes(), 2
    if damage == "torn line":
        log.write_bytes(log.read_bytes()[:-3])
        kept = 1
    elif damage == "torn record":
        values.write_bytes(data[:-1])
        kept = 1
    elif damage == "wrong byte":
        values.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        kept = 1
    elif damage == "no values":
        values.unlink()
        kept = 0
    done: list[tuple[int, int]] = []
    generation.write(SMALL, path, 4, progress=lambda i, n: done.append((i, n)))
    assert done == [(i, 4) for i in range(kept, 5)]
    assert path.read_bytes() == whole.read_bytes()
    assert not partial_of(path).exists()


def test_another_command_does_not_go_on(tmp_path: Path) -> None:
    path = tmp_path / "cut.nc"
    with pytest.raises(Cut):
        generation.write(SMALL, path, 2, seed=1, progress=cut_after(1, Cut()))
    others: dict[str, dict] = {
        "seed = 1, here 2": {"seed": 2},
        "split = train, here test": {"seed": 1, "split": "test"},
        "device = cpu, here meta": {"seed": 1, "device": "meta"},
    }
    for said, other in others.items():
        with pytest.raises(UsageError, match=said):
            generation.write(SMALL, path, 2, **other)
    with pytest.raises(UsageError, match=re.escape("viscosity = 0.001, here 0.002")):
        generation.write(replace(SMALL, viscosity=2e-3), path, 2, seed=1)
    generation.write(SMALL, path, 3, seed=1)
    with trajectory.open_dataset(path) as ds:
        assert ds.sizes["sample"] == 3


def test_two_processes_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "one.nc"

    def again(done: int, total: int) -> None:
        with pytest.raises(UsageError, match="another process"):
            generation.write(SMALL, path, 1)

    generation.write(SMALL, path, 1, progress=again)
    assert path.exists()


def test_a_full_disk_keeps_what_is_whole(tmp_path: Path) -> None:
    """A file may not grow beyond two samples and a half; then the disk is free again."""
    whole, path = tmp_path / "whole.nc", tmp_path / "full.nc"
    generation.write(SMALL, whole, 4)
    record = 4 * 16 * 16 * 4
    size = "--set resolution=16 --set spin_up=0.5 --set frames=3 --set interval=0.5 --set step=0.1"
    words = f"generate navier-stokes --samples 4 {size} --jobs 1 -o {path}".split()
    code = (
        "import resource, signal, sys; from pdeforecast import cli; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({5 * record // 2},) * 2); "
        f"sys.exit(cli.main({words}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3 and len(done.stderr.splitlines()) == 2, done.stderr
    assert "too large" in done.stderr.lower() and not path.exists()
    seen: list[int] = []
    generation.write(SMALL, path, 4, progress=lambda i, n: seen.append(i))
    assert seen == [2, 3, 4]
    with trajectory.open_dataset(path) as ds, trajectory.open_dataset(whole) as expected:
        assert ds.vorticity.values.tobytes() == expected.vorticity.values.tobytes()


LONGER = replace(SMALL, spin_up=3, step=0.01)


def forked(path: Path, samples: int) -> int:
    """`write` in a copy of this process, which a signal may end at any moment; its number."""
    child = os.fork()
    if child == 0:
        try:
            generation.write(LONGER, path, samples)
        finally:
            os._exit(0)
    return child


def typed(path: Path, count: int) -> int:
    """The same by the command line, with processes of its own, however cheap the samples are."""
    size = "--set resolution=16 --set spin_up=3 --set frames=3 --set interval=0.5 --set step=0.01"
    words = f"generate navier-stokes --samples {count} {size} --jobs 2 -o {path}".split()
    code = (
        "from pdeforecast import cli\nfrom pdeforecast.generation import samples\n"
        f"if __name__ == '__main__':\n    samples._START = 0\n    cli.main({words})"
    )
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL).pid


def killed_and_finished(folder: Path, begin: Callable[[Path, int], int], samples: int, rounds: int) -> int:
    """Kills `begin` at random moments, then lets it end; the number of kills that left some samples."""
    path, chance, useful = folder / "cut.nc", random.Random(rounds), 0
    log = partial_of(path) / "done"
    for turn in range(rounds):
        process, end = begin(path, samples), time.monotonic() + 60
        # Every other kill may come before the first sample.
        while time.monotonic() < end and not path.exists():
            if log.exists() and (turn % 2 == 0 or log.stat().st_size):
                break
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        if path.exists():
            with trajectory.open_dataset(path) as ds:
                assert ds.sizes["sample"] == samples
            path.unlink()
        elif log.exists() and log.stat().st_size:
            useful += 1
    generation.write(LONGER, path, samples)
    expected = generation.assemble(LONGER, list(generation.generate(LONGER, samples)), 0, "train")
    with trajectory.open_dataset(path) as ds:
        for name in ("vorticity", "forcing", "state_hash"):
            np.testing.assert_array_equal(ds[name].values, expected[name].values)
    assert list(folder.glob("*.partial")) == []
    return useful


def test_kills_change_no_byte(tmp_path: Path) -> None:
    killed_and_finished(tmp_path, forked, samples=6, rounds=5)


@pytest.mark.slow
@pytest.mark.parametrize(("begin", "samples", "rounds"), [(forked, 6, 50), (typed, 24, 6)])
def test_more_kills_change_no_byte(
    tmp_path: Path, begin: Callable[[Path, int], int], samples: int, rounds: int
) -> None:
    assert killed_and_finished(tmp_path, begin, samples, rounds) > 0


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
    for part in recipe.splits.values():
        assert part.pde.times()[0] == recipe.pde.times()[0]
        assert part.pde.times()[-1] <= recipe.splits["test"].pde.times()[-1]


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


# --- the files of a recipe -----------------------------------------------------------------------

RECIPE = """
equation = "navier-stokes"

[parameters]
resolution = 16
spin_up = 0.5
frames = 3
interval = 0.5
step = 0.1

[splits.train]
samples = 3
seed = 0

[splits.validation]
samples = 1
seed = 0

[splits.test]
samples = 2
seed = 0
"""


@pytest.fixture
def recipe(tmp_path: Path) -> generation.Recipe:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return generation.load_recipe(path)


def test_a_recipe_makes_its_files(recipe: generation.Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    files = generation.write_recipe(recipe, folder)
    assert [path.name for path in files] == ["train.nc", "validation.nc", "test.nc"]
    hashes = []
    for path in files:
        with trajectory.open_dataset(path) as ds:
            assert ds.attrs["recipe_hash"] == recipe.hash and ds.attrs["split"] == path.stem
            assert ds.sizes["sample"] == recipe.splits[path.stem].samples
            hashes += ds.state_hash.values.tolist()
    assert len(set(hashes)) == len(hashes) == 6
    generation.write(SMALL, tmp_path / "alone.nc", 3)
    with trajectory.open_dataset(tmp_path / "alone.nc") as alone, trajectory.open_dataset(files[0]) as ds:
        assert alone.vorticity.values.tobytes() == ds.vorticity.values.tobytes()
    before = [path.stat().st_mtime_ns for path in files]
    files[1].unlink()
    generation.write_recipe(recipe, folder)
    assert [path.stat().st_mtime_ns for path in files[::2]] == before[::2] and files[1].exists()


def test_the_hash_of_a_recipe_is_of_its_content(recipe: generation.Recipe, tmp_path: Path) -> None:
    spelled = tmp_path / "spelled.toml"
    spelled.write_text("# the same\n" + RECIPE.replace("0.5", "5e-1").replace(" = ", "="))
    assert generation.load_recipe(spelled).hash == recipe.hash
    spelled.write_text(RECIPE.replace("samples = 3", "samples = 4"))
    assert generation.load_recipe(spelled).hash != recipe.hash


def test_files_of_another_recipe_are_not_mixed(recipe: generation.Recipe, tmp_path: Path) -> None:
    generation.write_recipe(recipe, tmp_path, ["test"])
    other = tmp_path / "other.toml"
    other.write_text(RECIPE.replace("samples = 2", "samples = 1"))
    with pytest.raises(UsageError, match="of another recipe"):
        generation.write_recipe(generation.load_recipe(other), tmp_path, ["test"])
    generation.write_recipe(generation.load_recipe(other), tmp_path, ["test"], overwrite=True)
    with pytest.raises(UsageError, match="a split among train, validation, test"):
        generation.write_recipe(recipe, tmp_path, ["tests"])


def test_an_initial_state_in_two_splits_is_refused(
    recipe: generation.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = NavierStokes.initial
    monkeypatch.setattr(NavierStokes, "initial", lambda pde, seed, split, i: honest(pde, seed, "same", i))
    with pytest.raises(DataError, match=r"sample 0 of .*validation.nc begins as sample 0 of .*train.nc"):
        generation.write_recipe(recipe, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["train.nc"]
    monkeypatch.setattr(NavierStokes, "initial", lambda pde, seed, split, i: honest(pde, seed, split, 0))
    with pytest.raises(DataError, match=r"sample 1 of .* begins as sample 0"):
        generation.write(SMALL, tmp_path / "twins.nc", 2)
    assert not list(tmp_path.glob("twins*"))


# --- the command line ------------------------------------------------------------------------------

TINY = "--set resolution=16 --set spin_up=0.5 --set frames=3 --set interval=0.5 --set step=0.1 --jobs 1"
WILD = "--set resolution=16 --set spin_up=0 --set interval=50 --set step=50 --set forcing=100"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("heat --samples 1 -o OUT", 2, "an equation among"),
        ("navier-stokes --samples 1 -o OUT --set viscosty=1", 2, "--set viscosity=1"),
        ("navier-stokes --samples 1", 2, "--output"),
        ("navier-stokes -o OUT", 2, "--samples"),
        ("--samples 1 -o OUT", 2, "EQUATION"),
        ("navier-stokes --samples 1 --split a --split b -o OUT", 2, "one split"),
        ("navier-stokes --recipe RECIPE -o OUT", 2, "a recipe alone"),
        ("--recipe RECIPE --split tset -o OUT", 2, "train, validation, test"),
        ("--recipe RECIPE.absent -o OUT", 2, "cannot read"),
        ("navier-stokes --samples 1 -o RECIPE", 2, "ends in .nc"),
        ("--recipe RECIPE -o RECIPE", 2, "is a file"),
        ("navier-stokes --samples 1 -o OUT/deeper/out.nc", 2, "mkdir"),
        (f"navier-stokes --samples 1 --jobs 1 -o OUT {WILD} --set viscosity=0", 5, "sample 0"),
    ],
)
def test_what_cannot_be_generated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, code: int, said: str
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    words = line.replace("RECIPE", str(recipe)).replace("OUT", str(tmp_path / "out")).split()
    assert cli.main(["generate", *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 2 and said in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.toml"]


def test_a_recipe_by_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(RECIPE)
    line = "generate --recipe small.toml --split test --split validation --jobs 1"
    assert cli.main(line.split()) == 0
    assert sorted(path.name for path in Path("small").iterdir()) == ["test.nc", "validation.nc"]
    assert capsys.readouterr().out.splitlines() == [
        "generated: small/validation.nc",
        "generated: small/test.nc",
    ]
    assert cli.main(f"generate navier-stokes --samples 2 --split test {TINY} -o alone.nc".split()) == 0
    with trajectory.open_dataset("alone.nc") as alone, trajectory.open_dataset("small/test.nc") as ds:
        assert alone.vorticity.values.tobytes() == ds.vorticity.values.tobytes()
        assert ds.attrs["command"].startswith("pdeforecast generate --recipe")
