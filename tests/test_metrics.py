"""Scores follow from their formulas, whatever the layout, the grid or the order of the files."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from pdeforecast import metrics, trajectory
from pdeforecast.errors import DataError
from pdeforecast.geometry import PeriodicPlane

PLANE = PeriodicPlane()
UNITS = {"vorticity": "1"}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dataset(values: torch.Tensor, times: list[float], name: str, n: int = 8, m: int = 6) -> xr.Dataset:
    axes = trajectory.default_axes(PLANE, {"y": n, "x": m})
    ds = trajectory.to_dataset(values[..., None], PLANE, UNITS, axes, times, name)
    return ds.assign_coords(sample=range(len(values)))


def pair() -> tuple[xr.Dataset, xr.Dataset]:
    truth = random(3, 4, 8, 6)
    forecast = truth + 0.1 * random(3, 4, 8, 6, seed=1)
    return dataset(forecast, [0, 1, 2, 3], "lead_time"), dataset(truth, [5, 6, 7, 8], "time")


# --- formulas ------------------------------------------------------------------------------------


def test_metrics_of_a_loop_over_points() -> None:
    f, t, w = random(5), random(5, seed=1), random(5, seed=2).abs()
    error = sum(float(w[i]) * float(f[i] - t[i]) ** 2 for i in range(5))
    power = sum(float(w[i]) * float(t[i]) ** 2 for i in range(5))
    mean = sum(float(w[i] * t[i]) for i in range(5)) / float(w.sum())
    spread = sum(float(w[i]) * (float(t[i]) - mean) ** 2 for i in range(5))
    assert float(metrics.relative_l2(f, t, w)) == pytest.approx(math.sqrt(error / power), rel=1e-12)
    assert float(metrics.vrmse(f, t, w)) == pytest.approx(math.sqrt(error / spread), rel=1e-12)
    assert float(metrics.mse(f, t)) == pytest.approx(float(((f - t) ** 2).mean()), rel=1e-12)


@pytest.mark.parametrize("metric", [metrics.mse, metrics.relative_l2, metrics.vrmse])
def test_perfection_is_zero_and_unknown_truth_is_left_out(metric) -> None:
    t, f, w = random(2, 30), random(2, 30, seed=1), random(30, seed=2).abs()
    assert not bool(metric(t, t).any())
    gaps = torch.where(torch.arange(30) % 3 == 0, torch.nan, t)
    known = torch.arange(30) % 3 != 0
    torch.testing.assert_close(metric(f, gaps, w), metric(f[:, known], t[:, known], w[known]))


def test_relative_errors_do_not_see_the_unit() -> None:
    f, t = random(2, 9), random(2, 9, seed=1)
    for metric in (metrics.relative_l2, metrics.vrmse):
        torch.testing.assert_close(metric(1e3 * f, 1e3 * t), metric(f, t))
    torch.testing.assert_close(metrics.vrmse(f + 5, t + 5), metrics.vrmse(f, t))
    mean = t.mean(-1, keepdim=True).expand_as(t)
    torch.testing.assert_close(metrics.vrmse(mean, t), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize(("ny", "nx"), [(8, 8), (9, 7), (16, 6)])
def test_spectrum_sums_to_the_mean_square(ny: int, nx: int) -> None:
    field = random(3, ny, nx)
    k, energy = metrics.spectrum(field)
    assert len(k) == energy.shape[-1]
    torch.testing.assert_close(energy.sum(-1), field.square().mean((-2, -1)))


def test_spectrum_of_a_wave_is_in_its_shell_and_does_not_move() -> None:
    axis = torch.arange(16, dtype=torch.float64) / 16
    wave = torch.cos(2 * math.pi * (3 * axis[None, :] + 4 * axis[:, None]))
    _, energy = metrics.spectrum(wave)
    assert float(energy[5]) == pytest.approx(0.5) and float(energy.sum()) == pytest.approx(0.5)
    field = random(16, 16)
    torch.testing.assert_close(metrics.spectrum(field)[1], metrics.spectrum(field.roll((3, 5), (0, 1)))[1])


# --- matching ------------------------------------------------------------------------------------


def test_datasets_agree_with_tensors() -> None:
    forecast, truth = pair()
    f, t = (torch.tensor(ds.vorticity.values).flatten(2) for ds in (forecast, truth))
    for metric in (metrics.mse, metrics.relative_l2, metrics.vrmse):
        found = metric(forecast, truth)
        assert found.vorticity.dims == ("sample", "lead_time")
        np.testing.assert_allclose(found.vorticity, metric(f, t), rtol=1e-12)


LAYOUTS = {
    "transposed": lambda ds: ds.transpose("x", ..., "y"),
    "reversed": lambda ds: ds.isel(y=slice(None, None, -1)),
    "wrapped": lambda ds: ds.assign_coords(x=ds.x.where(ds.x < 0.5, ds.x - 1)),
    "samples in another order": lambda ds: ds.isel(sample=[2, 0, 1]),
    "loose": lambda ds: ds.stack(point=("x", "y")).reset_index("point"),
    "a swath": lambda ds: (
        ds.rename_dims(x="i", y="j")
        .drop_indexes(["x", "y"])
        .assign_coords(x=lambda d: d.x.broadcast_like(d.y), y=lambda d: d.y.broadcast_like(d.x))
    ),
    "rounded coordinates": lambda ds: ds.assign_coords(x=ds.x.astype("f4"), y=ds.y + 1e-9),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("side", [0, 1])
def test_layout_changes_no_score(layout: str, side: int) -> None:
    files = list(pair())
    expected = metrics.relative_l2(*files)
    files[side] = LAYOUTS[layout](files[side])
    xr.testing.assert_allclose(metrics.relative_l2(*files).sortby("sample"), expected, rtol=1e-12)


def test_common_nodes_times_and_samples_are_scored() -> None:
    forecast, truth = pair()
    coarse = truth.isel(x=slice(None, None, 2), y=slice(None, None, 4))
    np.testing.assert_allclose(
        metrics.mse(forecast, coarse).vorticity,
        ((forecast.vorticity.values - truth.vorticity.values)[..., ::4, ::2] ** 2).mean((-2, -1)),
    )
    whole = metrics.relative_l2(forecast, truth)
    part = metrics.relative_l2(forecast.isel(lead_time=[1, 3], sample=[2]), truth)
    xr.testing.assert_allclose(part, whole.isel(lead_time=[1, 3], sample=[2]))


def test_one_sample_is_found_by_its_label() -> None:
    forecast, truth = pair()
    whole = metrics.relative_l2(forecast, truth)
    alone = metrics.relative_l2(forecast.isel(sample=1), truth)
    xr.testing.assert_allclose(alone, whole.isel(sample=[1]))
    nameless = [ds.isel(sample=1, drop=True) for ds in (forecast, truth)]
    np.testing.assert_allclose(metrics.relative_l2(*nameless).vorticity, alone.vorticity)


def test_a_forecast_from_a_later_frame_says_so() -> None:
    forecast, truth = pair()
    whole = metrics.relative_l2(forecast, truth)
    later = forecast.isel(lead_time=slice(2, None)).assign_coords(lead_time=[0.0, 1.0])
    found = metrics.relative_l2(later.assign_attrs(start_time=7.0), truth)
    np.testing.assert_allclose(found.vorticity, whole.vorticity[:, 2:])


def test_times_in_another_unit_are_converted() -> None:
    forecast, truth = pair()
    whole = metrics.relative_l2(forecast, truth)
    forecast = forecast.assign_coords(lead_time=("lead_time", forecast.lead_time.values, {"units": "min"}))
    hours = truth.assign_coords(time=("time", truth.time.values / 60, {"units": "hours since 2000-01-01"}))
    found = metrics.relative_l2(forecast, hours)
    xr.testing.assert_allclose(found, whole)
    found = metrics.relative_l2(forecast, hours.assign_coords(time=("time", truth.time.values)))
    xr.testing.assert_allclose(found, whole)


NOTHING = {
    "geometry": (lambda ds: ds.assign_attrs(geometry="plane"), "plane and periodic_plane"),
    "unit of times": (
        lambda ds: ds.assign_coords(lead_time=ds.lead_time.assign_attrs(units="min")),
        "expected time in the unit 'min'",
    ),
    "variable": (lambda ds: ds.rename(vorticity="height"), "variable in common"),
    "place": (lambda ds: ds.assign_coords(x=ds.x + 0.01), "places in common"),
    "time": (lambda ds: ds.assign_coords(lead_time=ds.lead_time + 0.5), "times in common"),
    "sample": (lambda ds: ds.assign_coords(sample=ds.sample + 10), "same samples"),
    "number of samples": (lambda ds: ds.isel(sample=[0]).drop_vars("sample"), "same samples"),
    "unit": (lambda ds: ds.assign(vorticity=ds.vorticity.assign_attrs(units="1/s")), "unit"),
    "diverged": (lambda ds: ds.where(ds.x < 0.5), "without gaps"),
}


@pytest.mark.parametrize("fault", NOTHING)
def test_nothing_in_common_is_an_error(fault: str) -> None:
    spoil, cause = NOTHING[fault]
    forecast, truth = pair()
    with pytest.raises(DataError, match=cause):
        metrics.relative_l2(spoil(forecast), truth)


# --- the score -----------------------------------------------------------------------------------


def test_score_splits_at_the_training_window() -> None:
    forecast, truth = pair()
    report = metrics.score(forecast, truth, train_frames=2)
    error = forecast.vorticity.values - truth.vorticity.values
    scores = report["variables"]["vorticity"]
    sound = metrics.relative_l2(forecast, truth).vorticity.values
    assert report["mse"]["t_in"] == pytest.approx((error[:, :2] ** 2).mean())
    assert report["mse"]["t_out"] == pytest.approx((error[:, 2:] ** 2).mean())
    assert scores["reconstruction"]["relative_l2"] == pytest.approx(sound[:, 0].mean())
    assert scores["t_in"]["relative_l2"] == pytest.approx(sound[:, 1].mean())
    assert scores["t_out"]["relative_l2_median"] == pytest.approx(np.median(sound[:, 2:].mean(1)))
    assert [row["lead_time"] for row in scores["per_lead"]] == [0.0, 1.0, 2.0, 3.0]
    assert scores["per_lead"][3]["relative_l2"] == pytest.approx(sound[:, 3].mean())


def test_an_empty_window_is_none() -> None:
    forecast, truth = pair()
    report = metrics.score(forecast, truth, train_frames=10)
    assert report["mse"]["t_out"] is None and report["variables"]["vorticity"]["t_out"]["mse"] is None
