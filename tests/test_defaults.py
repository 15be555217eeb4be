"""What training chooses from its data where it is told nothing, and what it says of that."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pdeforecast import checkpoint, cli, defaults, run
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.presets import PRESETS
from pdeforecast.training import Progress, Trajectories
from pdeforecast.trajectory import save_dataset

DEFAULT = PRESETS["default"]


def waves(number: int, size: int = 72, samples: int = 2, frames: int = 2) -> xr.Dataset:
    """Random plane waves of up to `number` periods along each axis."""
    draw = np.random.default_rng(0)
    axis = np.arange(size) / size
    powers = np.exp(2j * np.pi * axis[:, None] * np.arange(number + 1))
    modes = draw.normal(size=(samples, frames, number + 1, number + 1))
    fields = np.einsum("stab,ya,xb->styx", modes, powers, powers).real
    return xr.Dataset(
        {"u": (("sample", "time", "y", "x"), fields)},
        {"x": axis, "y": axis, "time": 0.5 * np.arange(frames)},
        {"geometry": "periodic_plane"},
    )


def begun(ds: xr.Dataset, geometry: str = "periodic_plane") -> tuple[Progress, Trajectories]:
    progress = run.begin(Path("never"), ds, GEOMETRIES[geometry], DEFAULT, {})
    return progress, run.trajectories(ds, progress.model)


def test_fine_structure_takes_a_finer_lattice() -> None:
    fits = [defaults.lattice(*begun(waves(number)), True) for number in (2, 10)]
    coarse, fine = (fit for fit in fits if fit is not None)
    assert coarse.latents == 64 and coarse.left < 1e-4
    assert fine.latents > 64 and fine.left < 1e-2
    kept = defaults.lattice(*begun(waves(10)), False)
    assert kept is not None and kept.latents == 64 and kept.left > 2 * fine.left


def test_noise_takes_no_finer_lattice() -> None:
    noise = waves(1)
    noise["u"] = noise["u"].copy(data=np.random.default_rng(0).normal(size=noise["u"].shape))
    fit = defaults.lattice(*begun(noise), True)
    assert fit is not None and fit.latents == 64 and fit.left > 0.5


@pytest.mark.parametrize("count", [40, 300])
def test_of_few_points_nothing_is_said(count: int) -> None:
    ds = waves(2)
    seen = torch.randperm(72 * 72, generator=torch.Generator().manual_seed(0)).view(72, 72).numpy() < count
    known = ds["u"].where(xr.DataArray(seen, dims=("y", "x")))
    known[0, 0] = ds["u"][0, 0]
    assert defaults.lattice(*begun(ds.assign(u=known)), True) is None


def test_motions_are_those_that_move_something() -> None:
    assert defaults.motions(*begun(waves(1))) == DEFAULT.training.copies
    assert defaults.motions(*begun(waves(1), "periodic_plane_without_symmetry")) == 1


def test_motions_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    progress, data = begun(waves(1))
    once = 4 * 2 * 2 * 64 * 16 * 8
    monkeypatch.setattr(defaults, "_MEMORY", 3 * once)
    assert defaults.motions(progress, data) == 3
    monkeypatch.setattr(defaults, "_MEMORY", once // 2)
    assert defaults.motions(progress, data) == 1


def test_choices_are_told_and_settings_win(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_dataset(waves(7, size=36), tmp_path / "data.nc")
    few = "--budget 0 --device cpu --set training.field_steps=1 --set training.dynamics_steps=1"
    few += (
        " --set training.joint_steps=0 --set dynamics.hidden=8 --set training.copies=1 --set field.degree=1"
    )
    for name, more in (("own", ""), ("set", "--set field.latents=16")):
        words = f"train {tmp_path / 'data.nc'} -o {tmp_path / name} {few} {more}".split()
        assert cli.main(words) == 0
        out = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in out] == ["data", "model", "training", "trained:"]
        assert "2 trajectories of 2 frames, 0.5 apart, on periodic_plane: u at 1296 points" in out[0]
        latents = checkpoint.load(tmp_path / name).config.field.latents
        assert latents == 16 if more else latents in (100, 144)
        assert f"{latents} latents of 4 numbers, which leave" in out[1] and "steps of at most 0.5" in out[1]
        assert "1 + 1 + 0 steps; rollouts of up to 1 frames; 8 motions" in out[2]
