"""Suites of measurements, by what they must say of models that are known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pdeforecast import Forecaster, cli
from pdeforecast.bench.equivariance import equivariance, on_its_grid
from pdeforecast.bench.harmonics import harmonics
from pdeforecast.geometry import GEOMETRIES, PeriodicPlane
from pdeforecast.trajectory import default_axes, to_dataset

LEADS = (0.0, 1.0, 2.0)
PLANE = PeriodicPlane()


def test_standing_still_changes_nothing(model: Forecaster, flow: xr.Dataset) -> None:
    found = equivariance(model, flow, LEADS, torch.zeros(2, 2).double())
    assert found.lead_times == LEADS and max(*found.pipeline["vorticity"], *found.latents["vorticity"]) == 0


def test_a_shift_of_the_lattice_is_exact_and_any_other_is_measured(
    model: Forecaster, flow: xr.Dataset
) -> None:
    cell = PLANE.spacing(model.config.field.latents)
    exact = equivariance(model, flow, LEADS, torch.tensor([[cell, -2 * cell]]).double())
    other = equivariance(model, flow, LEADS, torch.tensor([[0.4 * cell, 0.3 * cell]]).double())
    assert max(*exact.pipeline["vorticity"], *exact.latents["vorticity"]) < 1e-4
    assert other.pipeline["vorticity"][0] > 100 * exact.pipeline["vorticity"][0]


def test_a_model_that_looks_at_places_is_found_out(
    model: Forecaster, flow: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = model.decode

    def placed(points: torch.Tensor, states: list) -> torch.Tensor:  # type: ignore[type-arg]
        return decode(points, states) + points[:, :1]

    monkeypatch.setattr(model, "decode", placed)
    found = equivariance(model, flow, LEADS, torch.tensor([[0.25, 0.5]]).double())
    assert min(*found.pipeline["vorticity"], *found.latents["vorticity"]) > 0.1


@dataclass(frozen=True)
class Drifting:
    """Decays, and drifts eastward, with which only rotations about the axis commute."""

    speed: float
    name: str = "drifting"

    def forecast(
        self,
        state: xr.Dataset,
        lead_time: Sequence[float],
        grid: Mapping[str, int] | None = None,
        like: xr.Dataset | None = None,
    ) -> xr.Dataset:
        steps = [round(self.speed * lead) for lead in lead_time]
        frames = [np.exp(-lead) * state.roll(longitude=n) for lead, n in zip(lead_time, steps, strict=True)]
        return (
            xr.concat(frames, "lead_time").assign_coords(lead_time=list(lead_time)).assign_attrs(state.attrs)
        )


@pytest.mark.parametrize(("name", "speed", "least", "most"), [
    ("sphere", 0.0, 0.0, 1e-10), ("rotating_sphere", 2.0, 0.0, 1e-10), ("sphere", 2.0, 0.1, 2.0),
])  # fmt: skip
def test_methods_without_latents_are_moved_on_their_grid(
    name: str, speed: float, least: float, most: float
) -> None:
    space = GEOMETRIES[name]
    axes = {n: torch.as_tensor(a) for n, a in default_axes(space, {"latitude": 12, "longitude": 24}).items()}
    basis = harmonics(space, {n: len(a) for n, a in axes.items()})
    draw = torch.Generator().manual_seed(0)
    size = torch.tensor([1.0, 1e-6], dtype=torch.float64)[:, None]
    coefficients = size * torch.randn(3, 2, basis.count, generator=draw, dtype=torch.float64)
    values = basis.synthesis(coefficients, axes).movedim(1, -1)[:, None]
    ds = to_dataset(values, space, {"u": "1", "v": "1"}, axes, [0.0], "time").isel(time=0).astype("float64")
    motions = space.random_motion(3, draw)
    found = on_its_grid(Drifting(speed), ds, (0.0, 1.0), motions)
    assert found.lead_times == (0.0, 1.0) and not found.latents
    for errors in found.pipeline.values():
        assert errors[0] < 1e-10 and least <= errors[1] <= most
    assert "v, whole pipeline" in found.markdown() and "latents" not in found.markdown()


def test_the_table_on_the_command_line(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"bench equivariance {shared / 'tiny'} --state {shared / 'flow.nc'} --lead-time 0,1.5 --motions 2"
    assert cli.main(words.split()) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert "lead 0" in header and "lead 1.5" in header
    assert [row.split("|")[1].strip() for row in rows] == [
        "vorticity, whole pipeline",
        "vorticity, from the latents",
    ]
    assert all(float(word) >= 0 for row in rows for word in row.split("|")[2:-1])


def test_slips_of_the_pen(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "equivarance", str(shared / "tiny")]) == 2
    assert "Type `pdeforecast bench equivariance" in capsys.readouterr().err
    assert cli.main(["bench", "equivariance", str(shared / "absent")]) == 4
