"""Suites of measurements, by what they must say of models that are known."""

from pathlib import Path

import pytest
import torch
import xarray as xr

from pdeforecast import Forecaster, cli
from pdeforecast.bench.equivariance import equivariance
from pdeforecast.geometry import PeriodicPlane

LEADS = (0.0, 1.0, 2.0)
PLANE = PeriodicPlane()


def test_standing_still_changes_nothing(model: Forecaster, flow: xr.Dataset) -> None:
    found = equivariance(model, flow, LEADS, torch.zeros(2, 2).double())
    assert found.lead_times == LEADS and max(*found.pipeline, *found.latents) == 0


def test_a_shift_of_the_lattice_is_exact_and_any_other_is_measured(
    model: Forecaster, flow: xr.Dataset
) -> None:
    cell = PLANE.spacing(model.config.field.latents)
    exact = equivariance(model, flow, LEADS, torch.tensor([[cell, -2 * cell]]).double())
    other = equivariance(model, flow, LEADS, torch.tensor([[0.4 * cell, 0.3 * cell]]).double())
    assert max(*exact.pipeline, *exact.latents) < 1e-4
    assert other.pipeline[0] > 100 * exact.pipeline[0]


def test_a_model_that_looks_at_places_is_found_out(
    model: Forecaster, flow: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = model.decode

    def placed(points: torch.Tensor, states: list) -> torch.Tensor:  # type: ignore[type-arg]
        return decode(points, states) + points[:, :1]

    monkeypatch.setattr(model, "decode", placed)
    found = equivariance(model, flow, LEADS, torch.tensor([[0.25, 0.5]]).double())
    assert min(*found.pipeline, *found.latents) > 0.1


def test_the_table_on_the_command_line(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"bench equivariance {shared / 'tiny'} --state {shared / 'flow.nc'} --lead-time 0,1.5 --motions 2"
    assert cli.main(words.split()) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert "lead 0" in header and "lead 1.5" in header
    assert [row.split("|")[1].strip() for row in rows] == ["whole pipeline", "from the latents"]
    assert all(float(word) >= 0 for row in rows for word in row.split("|")[2:-1])


def test_slips_of_the_pen(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "equivarance", str(shared / "tiny")]) == 2
    assert "Type `pdeforecast bench equivariance" in capsys.readouterr().err
    assert cli.main(["bench", "equivariance", str(shared / "absent")]) == 4
