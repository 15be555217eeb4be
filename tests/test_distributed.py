"""Processes that train together take the steps of one, and no error of one leaves the others waiting."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import xarray as xr
from safetensors.torch import load_file
from torch import distributed

from pdeforecast import checkpoint, cli, parallel
from pdeforecast.errors import UsageError
from pdeforecast.trajectory import save_dataset

SHORT = "--budget 0 --device cpu --set training.dynamics_steps=5 --set training.joint_steps=2"
SHORT += " --set training.batch=6 --set training.horizon=2"
FIELDS = {
    "linear": "--preset smoke --set field.latents=16 --set field.degree=2 --set dynamics.hidden=16"
    " --set dynamics.step=0.5",
    "attention": "--preset paper --set field.latents=16 --set field.context_dim=4 --set field.hidden=16"
    " --set field.value_scale=2 --set field.fit_poses=false --set dynamics.hidden=8 --set dynamics.step=1"
    " --set training.field_steps=40 --set training.field_rate=0.01 --set training.points=64",
}


def two(line: str) -> subprocess.CompletedProcess[str]:
    """`pdeforecast …` in two processes."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*start, "-m", "pdeforecast", *line.split()]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)


@pytest.fixture
def data(flow: xr.Dataset, tmp_path: Path) -> Path:
    """A quarter of the points, some of them unobserved at times."""
    coarse = flow.coarsen(x=2, y=2).mean()
    gaps = coarse.assign(vorticity=coarse.vorticity.where(coarse.x + coarse.time % 3 != 0.53125))
    save_dataset(gaps, tmp_path / "data.nc")
    return tmp_path / "data.nc"


def log(folder: Path) -> list[tuple[list[str], float]]:
    lines = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()[1:]]
    return [(words[:3], float(words[3])) for words in lines]


def alike(data: Path, field: str) -> None:
    """Two processes and one give the same losses, and models alike."""
    line, one, both = f"train {data} {FIELDS[field]} {SHORT} -o", data.parent / "one", data.parent / "both"
    done = two(f"{line} {both}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained: ") == 1 and "Warning" not in done.stderr, done.stderr
    assert cli.main(f"{line} {one}".split()) == 0
    a, b = log(one), log(both)
    assert [place for place, _ in a] == [place for place, _ in b]
    assert {place[0] for place, _ in a} == {"field", "dynamics", "joint"}
    for (place, x), (_, y) in zip(a, b, strict=True):
        assert y == pytest.approx(x, rel=1e-5), place
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in both.iterdir())
    weights, others = (load_file(folder / "model.safetensors") for folder in (one, both))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=1e-3, atol=1e-4)


def test_two_processes_take_the_steps_of_one(data: Path) -> None:
    alike(data, "linear")


@pytest.mark.slow
def test_two_processes_meta_learn_as_one(data: Path) -> None:
    alike(data, "attention")


@pytest.mark.slow
def test_a_budget_is_shared_and_any_number_of_processes_resumes(data: Path, tmp_path: Path) -> None:
    line = f"train {data} {FIELDS['linear']} --device cpu -o {tmp_path / 'run'}"
    done = two(f"{line} --budget 8s")
    assert done.returncode == 0, done.stderr
    card = checkpoint.load(tmp_path / "run").card["training"]
    ends = {place[0]: int(place[1]) for place, _ in log(tmp_path / "run")}
    assert checkpoint.load(tmp_path / "run").card["planned"] and 20 <= card["dynamics_steps"] < 20000
    assert (ends["dynamics"], ends.get("joint", 0)) == (card["dynamics_steps"], card["joint_steps"])
    (tmp_path / "run" / "progress.safetensors").unlink()
    assert cli.main(["train", str(data), "-o", str(tmp_path / "run"), "--resume"]) == 0
    before = log(tmp_path / "run")
    done = two(f"train {data} --resume --device cpu -o {tmp_path / 'run'}")
    assert done.returncode == 0 and log(tmp_path / "run") == before, done.stderr


def test_an_error_of_one_process_ends_all(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = two(f"train {data} {FIELDS['linear']} {SHORT} -o {folder}")
    assert done.returncode != 0 and "another process trains in it" in done.stderr
    assert "[rank" not in done.stderr, "a traceback of ours"
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_alone_nothing_is_done() -> None:
    x, loss = torch.arange(5.0), torch.nn.Linear(1, 1)
    assert parallel.own(x)[0].equal(x[0]) and len(parallel.own(x)) == 5 and parallel.mean(x) is x
    assert parallel.averaging([loss], loss) is loss and parallel.agreed([3, 4], x.device) == [3, 4]
    with parallel.together("cpu"):
        parallel.wait()
        assert (parallel.rank(), parallel.size()) == (0, 1) and not distributed.is_initialized()


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.int64, torch.bfloat16, torch.float64])
def test_tensors_of_every_type_are_shared(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    def broadcast(tensor: torch.Tensor, source: int) -> None:
        assert source == 0 and tensor.dtype != torch.int16, "which no backend sends"
        tensor.add_(3)

    monkeypatch.setattr(parallel, "size", lambda: 2)
    monkeypatch.setattr(distributed, "broadcast", broadcast)
    ours = torch.arange(4).to(dtype)
    parallel.share([ours])
    assert ours.equal((torch.arange(4) + 3).to(dtype))


def test_the_parts_of_a_batch_make_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, parts = torch.randperm(8), []
    monkeypatch.setattr(parallel, "size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        parts.append(parallel.own(chosen))
    assert torch.cat(parts).equal(chosen) and min(map(len, parts)) == 2
    with pytest.raises(UsageError, match="at most 2 processes"):
        parallel.own(chosen[:2])


def test_every_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    with pytest.raises(UsageError, match="2 processes and 1 GPUs"), parallel.together("cuda"):
        pass
