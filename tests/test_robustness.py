"""What may go wrong outside: kills, full disks, damaged files, strange data. Nothing is lost, nothing silent.

Every law has a short version, and under `slow` the long one, which `make test-long` runs.
"""

import contextlib
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file
from torch import Tensor

from pdeforecast import checkpoint, cli, run
from pdeforecast.errors import CheckpointError, DataError
from pdeforecast.forecaster import Forecaster
from pdeforecast.trajectory import open_dataset, save_dataset

SMALL = "--set field.latents=16 --set field.degree=2 --set dynamics.hidden=16 --set dynamics.step=0.5"
SHORT = "--set training.dynamics_steps=6 --set training.joint_steps=3 --set training.batch=2"
TRAIN = f"train FLOW -o OUT --preset smoke --budget 0 --device cpu {SMALL} {SHORT}"
RUN = [".lock", "log.csv", "model.safetensors", "progress.safetensors", "run.json"]


def long(value: Any) -> Any:
    """A parameter of the long version of a law."""
    return pytest.param(value, marks=pytest.mark.slow)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def forked(work: Callable[[], int], said: int | None = None) -> int:
    """Begins `work` in a copy of this process, which a signal may end at any moment; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        sys.stderr = sys.stdout if said is None else open(said, "w")  # noqa: SIM115
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """The exit code of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def alone(work: Callable[[], int]) -> tuple[int, str]:
    """The exit code of `work` in a copy of this process, and what it said to stderr."""
    read, write = os.pipe()
    child = forked(work, write)
    os.close(write)
    with open(read) as said:
        text = said.read()
    return ended(child), text


def check_error(err: str) -> None:
    """One line of cause and one of cure; a warning or the bar of an earlier stage may stand before."""
    lines = [line for line in err.splitlines() if line and "\r" not in line]
    assert "Traceback" not in err and "Exception ignored" not in err, err
    assert len(lines) >= 2 and lines[-2].endswith(".") and lines[-1].endswith((".", "?", "`")), err


# --- kills ------------------------------------------------------------------------------------------


def tensors(folder: Path) -> dict[str, Tensor]:
    """The weights, and all else that a run keeps."""
    files = [load_file(folder / f"{name}.safetensors") for name in ("model", "progress")]
    return {f"{i}.{name}": tensor for i, file in enumerate(files) for name, tensor in file.items()}


def training(flow: Path, folder: Path) -> Callable[[], int]:
    """`train`, begun or resumed, which saves at every step."""
    line = f"train {flow} -o {folder} --resume" if (folder / "run.json").exists() else TRAIN
    words = line.replace("FLOW", str(flow)).replace("OUT", str(folder)).split()

    def work() -> int:
        run._SAVE_EVERY = 0.0
        return cli.main(words)

    return work


@pytest.mark.parametrize("kills", [2, long(50)])
def test_a_killed_training_ends_as_an_undisturbed_one(shared: Path, tmp_path: Path, kills: int) -> None:
    flow, whole, chance = shared / "flow.nc", tmp_path / "whole", random.Random(kills)
    begun = time.monotonic()
    assert ended(forked(training(flow, whole))) == 0
    usual, expected = time.monotonic() - begun, tensors(whole)
    done = resumed = 0
    for turn in count():
        folder = tmp_path / f"cut{turn}"
        while done < kills:
            resumed += (folder / "progress.safetensors").exists()
            child = forked(training(flow, folder))
            time.sleep(chance.uniform(0, usual))
            os.kill(child, signal.SIGKILL)
            if (code := ended(child)) == 0:
                break
            assert code == -signal.SIGKILL
            done += 1
        assert ended(forked(training(flow, folder))) == 0
        found = tensors(folder)
        assert found.keys() == expected.keys() and all(torch.equal(found[n], expected[n]) for n in found)
        assert names(folder) == RUN
        if done == kills:
            break
    assert resumed or kills < 50


@pytest.mark.parametrize("kills", [8, long(100)])
@pytest.mark.parametrize("kind", ["model", "data"])
def test_a_kill_during_a_write_leaves_the_old_or_the_new(
    model: Forecaster, flow: xr.Dataset, tmp_path: Path, kind: str, kills: int
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    path, chance = folder / {"model": "mine.safetensors", "data": "mine.nc"}[kind], random.Random(kills)
    checkpoint.save(model, tmp_path / "first.safetensors")
    weights, metadata = checkpoint.read_tensors(tmp_path / "first.safetensors", "pdeforecast/1")

    def write(turn: int) -> None:
        if kind == "data":
            save_dataset(flow.assign_attrs(turn=turn % 2), path, overwrite=True)
            return
        card = json.dumps({"turn": turn % 2})
        checkpoint.write_tensors(weights, {**metadata, "card": card}, path)

    def forever() -> int:
        for turn in count():
            write(turn)
        return 0

    def read() -> int:
        if kind == "model":
            return int(checkpoint.load(path).card["turn"])
        with open_dataset(path) as ds:
            xr.testing.assert_identical(ds.load().drop_attrs(deep=False), flow.drop_attrs(deep=False))
            return int(ds.attrs["turn"])

    seen, strays = set(), 0
    for _ in range(kills):
        path.unlink(missing_ok=True)
        child = forked(forever)
        while not path.exists():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
        seen.add(read())
        strays += len(names(folder)) - 1
        assert len(names(folder)) <= 2
    write(0)
    assert (seen == {0, 1} and strays > 0) or kills < 100
    assert names(folder) == [path.name]


def test_one_run_in_a_folder(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow, folder = shared / "flow.nc", tmp_path / "run"
    line = TRAIN.replace("FLOW", str(flow)).replace("OUT", str(folder))
    child = forked(lambda: cli.main(f"{line} --set training.dynamics_steps=100000".split()))
    try:
        while not (folder / "log.csv").exists():
            time.sleep(0.01)
        assert cli.main(f"train {flow} -o {folder} --resume".split()) == 2
        err = capsys.readouterr().err
        check_error(err)
        assert "another process" in err
        assert cli.main(line.split()) == 2
    finally:
        os.kill(child, signal.SIGKILL)
        ended(child)
    both = [forked(training(flow, tmp_path / "both")) for _ in range(2)]
    assert sorted(map(ended, both)) == [0, 2]
    assert names(tmp_path / "both") == RUN


# --- full disks and folders that may not be written -------------------------------------------------

WRITERS = {
    "train": ("run", TRAIN),
    "forecast": ("out.nc", "forecast MODEL FLOW -o OUT --lead-time 0,1"),
    "table": ("out.csv", "forecast MODEL FLOW -o OUT --lead-time 1 --grid 16x16"),
    "generate": (
        "out.nc",
        "generate navier-stokes --samples 1 --jobs 1 -o OUT --set resolution=16 --set frames=2",
    ),
    "solve": ("out.nc", "solve navier-stokes FLOW -o OUT --lead-time 0,0.2 --set step=0.1"),
    "convert": ("out.nc", "convert FLOW -o OUT"),
    "plot": ("out.png", "plot FLOW -o OUT"),
    "animate": ("out.html", "animate FLOW -o OUT"),
    "evaluate": ("out.json", "evaluate FLOW FLOW -o OUT"),
}


def command(name: str, shared: Path, folder: Path) -> list[str]:
    """One that writes into the folder."""
    out, line = WRITERS[name]
    places = {"MODEL": shared / "tiny", "FLOW": shared / "flow.nc", "OUT": folder / out}
    for word, place in places.items():
        line = line.replace(word, str(place))
    return line.split()


def limited(words: list[str], limit: int) -> Callable[[], int]:
    """A command on a disk where no file can grow beyond some bytes."""

    def work() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        return cli.main(words)

    return work


@pytest.mark.parametrize("limits", [1, long(12)])
@pytest.mark.parametrize("name", [long(name) if name == "train" else name for name in WRITERS])
def test_a_full_disk_leaves_nothing_half(shared: Path, tmp_path: Path, name: str, limits: int) -> None:
    chance, folder = random.Random(limits), tmp_path / "disk"
    folder.mkdir()
    words = command(name, shared, folder)
    most = 400 if name == "evaluate" else 20000
    for limit in (int(chance.uniform(0, most)) for _ in range(limits)):
        if (folder / "run" / "run.json").exists():
            words = f"train {shared / 'flow.nc'} -o {folder / 'run'} --resume".split()
        code, err = alone(limited(words, limit))
        check_error(err)
        # HDF5 has words of its own for it.
        assert code == 3 and ("too large" in err.lower() or "past end of allocation" in err), err
        left = [] if name not in ("train", "generate") else [*RUN, "run", "out.nc.partial"]
        assert set(names(folder)) <= set(left)
        assert name != "train" or set(names(folder / "run")) <= set(RUN)
    if name == "train" and (folder / "run" / "run.json").exists():
        words = f"train {shared / 'flow.nc'} -o {folder / 'run'} --resume".split()
    assert alone(lambda: cli.main(words))[0] == 0
    assert names(folder) == [WRITERS[name][0]]


@pytest.mark.slow
def test_a_full_disk_in_a_process_of_its_own(shared: Path, tmp_path: Path) -> None:
    """To its very end, where HDF5 would write again what it could not write before."""
    done = subprocess.run(
        [sys.executable, "-m", "pdeforecast", *command("forecast", shared, tmp_path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10000, resource.RLIM_INFINITY)),
    )
    check_error(done.stderr)
    assert done.returncode == 3 and names(tmp_path) == []


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """As a user whom permissions bind, if this one is not."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_may_not_be_written(
    shared: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    with tempfile.TemporaryDirectory() as place:
        here = Path(place)
        here.chmod(0o755)
        (here / "tiny").mkdir()
        for path in ("flow.nc", "tiny/model.safetensors"):
            (here / path).write_bytes((shared / path).read_bytes())
        folder = here / "folder"
        folder.mkdir(mode=0o555)

        def work() -> int:
            with nobody():
                return cli.main(command(name, here, folder))

        code, err = alone(work)
        check_error(err)
        assert code == 3 and "ermission denied" in err and names(folder) == [], (code, err)


# --- damaged files ----------------------------------------------------------------------------------


def damaged(whole: bytes, lengths: int, flips: int, seed: int = 0) -> Iterator[bytes]:
    """The bytes of a file cut short to some lengths, and with single bits flipped."""
    chance = random.Random(seed)
    for i in range(lengths):
        yield whole[: i * len(whole) // lengths]
    head = min(len(whole), 4096)
    for i in range(flips):
        # Every other in the beginning, where files say what they are.
        place = chance.randrange(8 * (head if i % 2 else len(whole)))
        yield bytes((*whole[: place // 8], whole[place // 8] ^ 1 << place % 8, *whole[place // 8 + 1 :]))


DAMAGES = [(8, 24), long((64, 500))]


@pytest.mark.parametrize("damages", DAMAGES)
def test_a_damaged_model_is_refused(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damages: tuple[int, int]
) -> None:
    path = tmp_path / "model.safetensors"
    line = f"forecast {path} {shared / 'flow.nc'} -o {tmp_path / 'out.nc'} --lead-time 0"
    for data in damaged((shared / "tiny" / path.name).read_bytes(), *damages):
        path.write_bytes(data)
        assert cli.main(line.split()) == 4
        out, err = capsys.readouterr()
        check_error(err)
        assert out == "" and len(err.splitlines()) == 2 and names(tmp_path) == [path.name]


@pytest.mark.parametrize("damages", DAMAGES)
def test_a_damaged_run_is_refused_or_the_same(shared: Path, tmp_path: Path, damages: tuple[int, int]) -> None:
    kept = {name: (shared / "tiny" / name).read_bytes() for name in ("run.json", "progress.safetensors")}
    for name, data in kept.items():
        (tmp_path / name).write_bytes(data)
    before = run.resume(tmp_path)
    for name, whole in kept.items():
        for data in damaged(whole, *damages):
            (tmp_path / name).write_bytes(data)
            try:
                after = run.resume(tmp_path)
            except CheckpointError as error:
                check_error(str(error))
                continue
            assert name == "run.json" and run.budget_of(tmp_path) == 0
            assert (after.config, after.model.config) == (before.config, before.model.config)
        (tmp_path / name).write_bytes(whole)


def content(path: Path) -> tuple[Any, ...]:
    """All that a file says, to the last bit."""
    with open_dataset(path) as ds:
        variables = {
            name: (array.dims, str(array.dtype), array.values.tolist(), str(array.attrs))
            for name, array in ds.variables.items()
        }
        return dict(ds.sizes), str(ds.attrs), repr(variables)


@pytest.mark.parametrize("damages", DAMAGES)
def test_damaged_data_are_refused_or_the_same(
    flow: xr.Dataset, tmp_path: Path, damages: tuple[int, int]
) -> None:
    whole, path = tmp_path / "whole.nc", tmp_path / "damaged.nc"
    save_dataset(flow.isel(sample=slice(2), y=slice(12)), whole)
    expected, refused = content(whole), 0
    for data in damaged(whole.read_bytes(), *damages):
        path.write_bytes(data)
        try:
            assert content(path) == expected
        except DataError as error:
            check_error(str(error))
            refused += 1
    assert refused > 0.8 * sum(damages)


def test_damaged_numbers_are_met_when_they_are_read(
    shared: Path, tmp_path: Path, flow: xr.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line, in the middle of its work."""
    path, whole = tmp_path / "damaged.nc", bytearray((shared / "flow.nc").read_bytes())
    at = whole.index(flow.vorticity.values[-1, -1, 16].astype("<f4").tobytes())
    whole[at + 100] ^= 1
    path.write_bytes(whole)
    for line in (f"evaluate {shared / 'flow.nc'} {path}", f"train {path} -o {tmp_path / 'run'}"):
        assert cli.main(line.split()) == 3
        err = capsys.readouterr().err
        check_error(err)
        assert str(path) in err and len(err.splitlines()) == 2 and names(tmp_path) == [path.name]


def test_files_of_others_need_no_seal(flow: xr.Dataset, tmp_path: Path) -> None:
    save_dataset(flow, tmp_path / "ours.nc")
    with open_dataset(tmp_path / "ours.nc") as ds:
        changed = ds.isel(time=0).assign_attrs(note="mine")
        changed.to_netcdf(tmp_path / "theirs.nc", engine="h5netcdf")
    with open_dataset(tmp_path / "theirs.nc") as ds:
        xr.testing.assert_identical(ds.load(), changed.load())


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def pickled(trap: Trap, path: Path) -> None:
    path.write_bytes(pickle.dumps(trap))


def of_objects(trap: Trap, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([trap], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("write", [pickled, torch.save, of_objects])
def test_nothing_is_unpickled(
    shared: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    write: Callable[[Trap, Path], None],
) -> None:
    sprung, flow = tmp_path / "sprung", shared / "flow.nc"
    lines = {
        "model.safetensors": [
            f"forecast TRAP {flow} -o OUT.nc --lead-time 1",
            f"train {flow} -o OUT --budget 0 --init-from TRAP",
            "inspect TRAP",
        ],
        "progress.safetensors": [f"train {flow} --resume -o {tmp_path}"],
        "run.json": [f"train {flow} --resume -o {tmp_path}"],
    }
    for kind in ("nc", "pt", "npy", "npz", "mat", "h5", "csv"):
        lines[f"data.{kind}"] = [
            "convert TRAP -o OUT.nc --geometry periodic_plane --dims sample,time,y,x",
            "inspect TRAP",
            f"forecast {shared / 'tiny'} TRAP -o OUT.nc --lead-time 1",
            f"forecast {shared / 'tiny'} {flow} --sensors TRAP -o OUT.nc --lead-time 1",
        ]
    (tmp_path / "run.json").write_bytes((shared / "tiny" / "run.json").read_bytes())
    for name, commands in lines.items():
        path = tmp_path / name
        write(Trap(sprung), path)
        for line in commands:
            words = line.replace("TRAP", str(path)).replace("OUT", str(tmp_path / "out")).split()
            assert cli.main(words) in (3, 4), words
            check_error(capsys.readouterr().err)
        path.unlink()
    assert names(tmp_path) == []
    with path.open("wb"):
        pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()


# --- memory -----------------------------------------------------------------------------------------


def peak(work: Callable[[], int]) -> int:
    """By how many bytes some work in a copy of this process goes beyond what that held at its beginning."""

    def status(key: str) -> int:
        text = Path("/proc/self/status").read_text()
        return 1024 * int(text.split(f"{key}:")[1].split()[0])

    def measured() -> int:
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        code = work()
        print("peak", status("VmHWM") - before, file=sys.stderr)
        return code

    code, err = alone(measured)
    assert code == 0, err
    return int(err.split("peak ")[1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of memory")
@pytest.mark.parametrize("side", [1000, long(3163)])
def test_memory_is_bounded_while_many_points_are_decoded(shared: Path, tmp_path: Path, side: int) -> None:
    line = f"forecast {shared / 'tiny'} {shared / 'flow.nc'} --lead-time 0,1"
    few, many = tmp_path / "few.nc", tmp_path / "many.nc"
    least = peak(lambda: cli.main(f"{line} --grid 64x64 -o {few}".split()))
    most = peak(lambda: cli.main(f"{line} --grid {side}x{side} -o {many}".split()))
    assert most < least + 2**29
    with open_dataset(many) as ds:
        assert ds.vorticity.shape == (3, 2, side, side)
        assert bool(np.isfinite(ds.vorticity[-1, -1, -1]).all())


# --- strange data -----------------------------------------------------------------------------------

VALUES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Any]] = {
    "usual": lambda r, shape: r.normal(size=shape),
    "single": lambda r, shape: r.normal(size=shape).astype("f4"),
    "half": lambda r, shape: r.normal(size=shape).astype("f2"),
    "big endian": lambda r, shape: r.normal(size=shape).astype(">f8"),
    "whole": lambda r, shape: r.integers(-3, 3, shape),
    "bytes": lambda r, shape: r.integers(0, 255, shape).astype("u1"),
    "truths": lambda r, shape: r.random(shape) < 0.5,
    "text": lambda r, shape: r.normal(size=shape).astype(str),
    "dates": lambda r, shape: r.integers(0, 9, shape).astype("M8[s]"),
    "zero": lambda r, shape: np.zeros(shape),
    "constant": lambda r, shape: np.full(shape, 3.0),
    "huge": lambda r, shape: 1e30 * r.normal(size=shape),
    "beyond single": lambda r, shape: 1e300 * r.normal(size=shape),
    "tiny": lambda r, shape: 1e-42 * r.normal(size=shape),
    "offset": lambda r, shape: 1e9 + r.normal(size=shape),
    "one huge": lambda r, shape: np.where(
        r.permutation(np.arange(np.prod(shape))).reshape(shape) == 0, 1e38, 1.0
    ),
    "gaps": lambda r, shape: np.where(r.random(shape) < 0.5, np.nan, r.normal(size=shape)),
    "few": lambda r, shape: np.where(r.random(shape) < 0.98, np.nan, r.normal(size=shape)),
    "nothing": lambda r, shape: np.full(shape, np.nan),
    "infinite": lambda r, shape: np.where(r.random(shape) < 0.1, np.inf, r.normal(size=shape)),
}
AXES: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "usual": lambda r, n: np.arange(n) / max(n, 1),
    "single": lambda r, n: (np.arange(n) / max(n, 1)).astype("f4"),
    "random": lambda r, n: r.random(n),
    "backwards": lambda r, n: np.arange(n)[::-1] / max(n, 1),
    "shifted": lambda r, n: 0.5 + np.arange(n) / max(n, 1),
    "crowded": lambda r, n: 1e-5 * np.arange(n),
    "counted": lambda r, n: np.arange(n),
    "closed": lambda r, n: np.linspace(0, 1, n),
    "one place": lambda r, n: np.zeros(n),
    "gaps": lambda r, n: np.where(np.arange(n) == n // 2, np.nan, np.arange(n) / max(n, 1)),
    "infinite": lambda r, n: np.where(np.arange(n) == n // 2, np.inf, np.arange(n) / max(n, 1)),
    "huge": lambda r, n: 1e300 * r.random(n),
    "text": lambda r, n: np.arange(n).astype(str),
}
SPELLED: dict[str, Callable[[xr.Dataset, np.random.Generator], xr.Dataset]] = {
    "another geometry": lambda ds, r: ds.assign_attrs(geometry=r.choice(["sphere", "klein", "", "ball"])),
    "no geometry": lambda ds, r: ds.drop_attrs(deep=False),
    "geometry of numbers": lambda ds, r: ds.assign_attrs(geometry=[1, 2]),
    "another unit": lambda ds, r: ds.assign(
        vorticity=ds.vorticity.assign_attrs(units=r.choice(["km", "", "%"]))
    ),
    "units of numbers": lambda ds, r: ds.assign(vorticity=ds.vorticity.assign_attrs(units=3)),
    "renamed": lambda ds, r: ds.rename(vorticity="vortictiy"),
    "without forcing": lambda ds, r: ds.drop_vars("forcing"),
    "without x": lambda ds, r: ds.drop_vars("x"),
    "forcing in time": lambda ds, r: ds.assign(forcing=ds.vorticity),
    "another dimension": lambda ds, r: ds.expand_dims(member=int(r.integers(3))),
    "of dates": lambda ds, r: (
        ds.assign_coords(time=("time", np.arange(ds.sizes.get("time", 1)).astype("M8[D]")))
        if "time" in ds.dims
        else ds
    ),
    "times twice": lambda ds, r: (
        ds.assign_coords(time=np.zeros(ds.sizes["time"])) if "time" in ds.dims else ds
    ),
    "times backwards": lambda ds, r: ds.isel(time=slice(None, None, -1)) if "time" in ds.dims else ds,
    "no times": lambda ds, r: ds.drop_vars("time", errors="ignore"),
    "variance": lambda ds, r: ds.assign(vorticity_variance=abs(ds.vorticity)),
    "bad variance": lambda ds, r: ds.assign(vorticity_variance=-1.0 + 0 * ds.vorticity),
    "odd variance": lambda ds, r: ds.assign(vorticity_variance=float(r.choice([0, 1e300, np.nan, np.inf]))),
    "only coordinates": lambda ds, r: ds.drop_vars(list(ds.data_vars)),
    "turned": lambda ds, r: ds.transpose(*r.permutation([str(dim) for dim in ds.dims])),
    "labels twice": lambda ds, r: (
        ds.assign_coords(sample=np.zeros(ds.sizes["sample"])) if "sample" in ds.dims else ds
    ),
    "labels of text": lambda ds, r: (
        ds.assign_coords(sample=np.arange(ds.sizes["sample"]).astype(str)) if "sample" in ds.dims else ds
    ),
}


def one_of(random: np.random.Generator, known: dict[str, Any], usual: float) -> Any:
    """Any of `known`, but the first with some probability."""
    names = list(known)
    return known[names[0] if random.random() < usual else names[random.integers(len(names))]]


def strange(random: np.random.Generator) -> xr.Dataset:
    """Anything that someone may take for a state or for trajectories of a flow."""
    y, x = random.choice([0, 1, 2, 3, 8, 17], 2, p=[0.04, 0.1, 0.1, 0.1, 0.33, 0.33]).tolist()
    lead = {}
    if random.random() < 0.6:
        lead["sample"] = int(random.choice([0, 1, 2], p=[0.05, 0.55, 0.4]))
    if random.random() < 0.7:
        lead["time"] = int(random.choice([0, 1, 3], p=[0.05, 0.25, 0.7]))
    grid = random.random() < 0.7
    places = {"y": y, "x": x} if grid else {"point": max(x, y)}
    coords = {}
    for name in ("x", "y"):
        dim = name if grid else "point"
        coords[name] = (dim, one_of(random, AXES, 0.75)(random, places[dim]))
    if "time" in lead:
        coords["time"] = ("time", 1.0 * np.arange(lead["time"]))
    shape = {**lead, **places}
    ds = xr.Dataset(
        {
            "vorticity": (tuple(shape), one_of(random, VALUES, 0.4)(random, tuple(shape.values()))),
            "forcing": (tuple(places), one_of(random, VALUES, 0.8)(random, tuple(places.values()))),
        },
        coords,
        {"geometry": "periodic_plane"},
    )
    for _ in range(int(random.choice([0, 1, 2], p=[0.4, 0.4, 0.2]))):
        with contextlib.suppress(
            KeyError, ValueError, AttributeError, TypeError
        ):  # two that exclude each other
            ds = one_of(random, SPELLED, 0)(ds, random)
    return ds


COMMANDS = {
    "forecast MODEL DATA -o OUT.nc --lead-time 0,1": 5,
    "forecast MODEL DATA -o OUT.nc --lead-time 0,1 --grid 5x4": 2,
    "forecast MODEL DATA -o OUT.csv --lead-time 1": 1,
    "forecast MODEL FLOW -o OUT.nc --lead-time 1 --like DATA": 2,
    "forecast MODEL DATA -o OUT.nc --lead-time 0,0.5 --assimilate": 2,
    "forecast MODEL FLOW -o OUT.nc --lead-time 0,1 --sensors TABLE": 2,
    "forecast MODEL FLOW -o OUT.nc --lead-time 0,1 --at TABLE": 1,
    f"train DATA -o OUT.run --preset smoke --budget 0 --device cpu {SMALL} {SHORT}": 2,
    "evaluate DATA FLOW -o OUT.json": 1,
    "evaluate FLOW DATA -o OUT.json": 1,
    "evaluate DATA DATA -o OUT.json": 1,
    "inspect DATA": 2,
    "convert DATA -o OUT.nc": 2,
    "solve navier-stokes DATA -o OUT.nc --lead-time 0,0.5 --set step=0.1": 2,
    "plot DATA -o OUT.png": 1,
    "animate DATA -o OUT.html": 1,
}


def case(seed: int, shared: Path, folder: Path) -> list[str]:
    """A command on strange data, which are written to the folder."""
    random = np.random.default_rng(seed)
    ds, data, table = strange(random), folder / "data.nc", folder / "table.csv"
    try:
        ds.to_netcdf(data, engine="h5netcdf")
    except Exception:  # not even xarray can write it
        data.unlink(missing_ok=True)
        return case(seed + 10**6, shared, folder)
    ds.to_dataframe().reset_index().to_csv(table, index=False)
    weights = np.array(list(COMMANDS.values()))
    line = list(COMMANDS)[random.choice(len(weights), p=weights / weights.sum())]
    places = {"MODEL": shared / "tiny", "DATA": data, "FLOW": shared / "flow.nc", "TABLE": table}
    places["OUT"] = folder / "out"
    for name, place in places.items():
        line = line.replace(name, str(place))
    return line.split()


def gaps(path: Path) -> int:
    """How many values of a file are NaN or infinite."""
    if path.is_dir():
        files = [load_file(path / f"{name}.safetensors") for name in ("model", "progress")]
        return sum(int((~value.isfinite()).sum()) for file in files for value in file.values())
    if path.suffix == ".nc":
        with open_dataset(path) as ds:
            numbers = [array.values for array in ds.variables.values() if array.dtype.kind == "f"]
        return sum(int((~np.isfinite(array)).sum()) for array in numbers)
    text = path.read_text(errors="ignore") if path.suffix in (".csv", ".json") else ""
    return sum(text.lower().count(word) for word in (",nan", " nan", "inf"))


def judge(words: list[str], code: int, err: str, folder: Path) -> None:
    """Nothing but what is documented comes out."""
    made = [name for name in names(folder) if name not in ("data.nc", "table.csv")]
    assert code in (0, 2, 3, 5), (code, err)
    assert "Traceback" not in err and "Exception ignored" not in err, err
    if code:
        check_error(err)
        if words[0] == "train":
            # A training that leaves the numbers keeps its folder.
            assert made == [] or (code == 5 and made == ["out.run"]), (made, err)
        else:
            assert made == [], made
    elif words[0] != "inspect":
        assert len(made) == 1, made
        allowed = gaps(folder / "data.nc") if words[0] == "convert" else 0
        assert gaps(folder / made[0]) <= allowed, (made, err)


@pytest.mark.parametrize("cases", [20, long(200)])
def test_strange_data_are_used_or_refused(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cases: int
) -> None:
    for seed in range(cases):
        folder = tmp_path / str(seed)
        folder.mkdir()
        words = case(seed, shared, folder)
        capsys.readouterr()
        try:
            code = cli.main(words)
            judge(words, code, capsys.readouterr().err, folder)
        except Exception as error:
            raise AssertionError(f"case {seed}: {' '.join(words)}") from error
