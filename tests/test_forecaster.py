"""A forecast is a function of what was observed and where, and of nothing else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from pdeforecast import Forecaster, forecaster
from pdeforecast.errors import DataError, DivergedError, UsageError
from pdeforecast.latents import Latents
from pdeforecast.trajectory import default_axes, grid_points, match
from pdeforecast.trust import TrustWarning

TIMES = [0, 0.5, 1]
GRID = {"y": 6, "x": 5}


def loose(ds: xr.Dataset, count: int = 300, seed: int = 0) -> xr.Dataset:
    """Some nodes of a grid as sensors; the forcing stays on the grid, without coordinates."""
    chosen = np.random.default_rng(seed).permutation(ds.sizes["y"] * ds.sizes["x"])[:count]
    sensors = ds[["vorticity"]].stack(point=("y", "x")).reset_index("point").isel(point=chosen)
    return sensors.assign(forcing=(("y", "x"), ds.forcing.values, {"units": "1"}))


def swath(ds: xr.Dataset) -> xr.Dataset:
    """The places as an instrument scans them: x and y both over scan and pixel."""
    bare = ds.rename_dims(x="scan", y="pixel").drop_indexes(["x", "y"])
    return bare.assign_coords(x=bare.x.broadcast_like(bare.y), y=bare.y.broadcast_like(bare.x))


def same(a: xr.Dataset, b: xr.Dataset, accuracy: float = 2e-4) -> None:
    scale = float(abs(b.vorticity).max())
    np.testing.assert_allclose(a.vorticity.values, b.vorticity.values, atol=accuracy * scale)


LAYOUTS: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "x before y": lambda ds: ds.transpose("x", "y", ...),
    "reversed": lambda ds: ds.isel(y=slice(None, None, -1), x=slice(None, None, -1)),
    "rolled": lambda ds: ds.roll(x=7, y=3, roll_coords=True),
    "wrapped": lambda ds: ds.assign_coords(x=ds.x.where(ds.x < 0.5, ds.x - 1)),
    "loose, all of them": lambda ds: ds.stack(point=("x", "y")).reset_index("point"),
    "loose, forcing on its grid": lambda ds: loose(ds, 1024),
    "a swath": lambda ds: swath(ds),
    "one time": lambda ds: ds.expand_dims(time=[4.0]),
    "several times": lambda ds: ds.assign(vorticity=xr.concat([ds.vorticity, 3 * ds.vorticity], "time")),
    "double": lambda ds: ds.astype(float),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_free(model: Forecaster, flow: xr.Dataset, layout: str) -> None:
    state = flow[["vorticity", "forcing"]].isel(time=0, drop=True)
    same(model.forecast(LAYOUTS[layout](state), TIMES, GRID), model.forecast(state, TIMES, GRID))


def test_reordered_axes_give_the_forecast_at_their_own_places(model: Forecaster, flow: xr.Dataset) -> None:
    state = flow.isel(time=0)
    turned = model.forecast(state.isel(y=slice(None, None, -1)).transpose("x", ...), [1.0])
    assert turned.vorticity.dims == ("sample", "lead_time", "y", "x")
    assert turned.y.values.tolist() == state.y.values[::-1].tolist()
    same(turned.sortby("y"), model.forecast(state, [1.0]))


def test_what_is_not_observed_has_no_influence(model: Forecaster, flow: xr.Dataset) -> None:
    state = flow.isel(time=0)
    seen = xr.DataArray(np.random.default_rng(0).random((32, 32)) < 0.3, dims=("y", "x"))
    gaps = state.assign(vorticity=state.vorticity.where(seen))
    points = gaps[["vorticity"]].stack(point=("y", "x")).reset_index("point").dropna("point")
    sensors = points.assign(forcing=state.forcing.variable)
    same(model.forecast(gaps, TIMES, GRID), model.forecast(sensors, TIMES, GRID))


def test_states_together_as_one_by_one(model: Forecaster, flow: xr.Dataset) -> None:
    state = flow.isel(time=0)
    state["vorticity"][1, :, :10] = np.nan
    together = model.forecast(state, TIMES)
    alone = [model.forecast(state.isel(sample=[i]), TIMES) for i in range(3)]
    same(together, xr.concat(alone, "sample"))
    single = model.forecast(state.isel(sample=1), TIMES)
    assert single.sample.values.tolist() == [1]
    same(single, alone[1])


def test_lead_time_zero_is_the_reconstruction(model: Forecaster, flow: xr.Dataset) -> None:
    forecast = model.forecast(flow, [0])
    error = forecast.vorticity.isel(lead_time=0) - flow.vorticity.isel(time=0)
    assert float((error**2).mean() / (flow.vorticity**2).mean()) < 1e-2


def test_lead_times_in_any_order_and_number(model: Forecaster, flow: xr.Dataset) -> None:
    mixed = model.forecast(flow, [7.3, 0.5, 1, 0.5], GRID)
    assert mixed.lead_time.values.tolist() == [7.3, 0.5, 1, 0.5]
    same(mixed.isel(lead_time=[1, 2]), model.forecast(flow, [0.5, 1], GRID))
    assert float(abs(mixed.isel(lead_time=1) - mixed.isel(lead_time=3)).vorticity.max()) == 0


def test_the_file_says_where_it_comes_from(model: Forecaster, flow: xr.Dataset) -> None:
    state = flow.isel(time=2).assign_coords(sample=[7, 3, 5])
    state["vorticity"].attrs["units"] = "dimensionless"
    state = state.assign_coords(time=state.time.assign_attrs(units="1"))
    forecast = model.forecast(state, TIMES, GRID)
    assert forecast.sample.values.tolist() == [7, 3, 5]
    assert forecast.vorticity.attrs["units"] == "dimensionless"
    assert forecast.attrs["start_time"] == 2 and forecast.attrs["model"].startswith("tiny@")
    assert "start_time" not in model.forecast(state.drop_vars("time"), [0], GRID).attrs
    pair = match(model.forecast(flow.isel(time=[1, 2]), [0, 1, 2]), flow)
    assert pair.lead_times == (0, 1, 2) and pair.frames == (1, 2, 3)


def test_like_takes_the_places_of_another_file(model: Forecaster, flow: xr.Dataset) -> None:
    sensors = loose(flow.isel(time=0), 11)
    forecast = model.forecast(flow, TIMES, like=sensors)
    assert forecast.vorticity.dims == ("sample", "lead_time", "point") and forecast.sizes["point"] == 11
    whole = model.forecast(flow, TIMES).vorticity
    found = whole.sel(x=sensors.x, y=sensors.y).transpose("sample", "lead_time", "point")
    np.testing.assert_allclose(forecast.vorticity, found, atol=1e-4)
    back = model.forecast(sensors, TIMES)
    np.testing.assert_array_equal(back.x, sensors.x)


@pytest.mark.parametrize("linear", [True, False])
def test_decoding_in_chunks_agrees(
    model: Forecaster, flow: xr.Dataset, monkeypatch: pytest.MonkeyPatch, linear: bool
) -> None:
    points = model.geometry.random_points(100, torch.Generator().manual_seed(0))
    states = [model.encode(*grid_and_values(flow, t)) for t in range(2)]
    once = model.decode(points, states)
    monkeypatch.setattr(model.field, "linear", linear, raising=False)
    monkeypatch.setattr(forecaster, "_POINTS", 7)
    monkeypatch.setattr(forecaster, "_PAIRS", {linear: 18})
    torch.testing.assert_close(model.decode(points, states), once, atol=1e-5, rtol=1e-5)


def grid_and_values(flow: xr.Dataset, time: int) -> tuple[Tensor, Tensor]:
    axes = {"y": flow.y.values, "x": flow.x.values}
    values = torch.from_numpy(flow.vorticity.values[:, time].reshape(3, -1, 1))
    return grid_points(forecaster.GEOMETRIES["periodic_plane"], axes), values


def test_many_points_come_in_pieces(model: Forecaster, monkeypatch: pytest.MonkeyPatch) -> None:
    state = Latents(model.lattice(), torch.zeros(1, 16, 9), model.windows())
    sizes, whole = [], type(model.field).forward

    def counted(self: torch.nn.Module, points: Tensor, latents: Latents) -> Tensor:
        sizes.append(len(points))
        return whole(self, points, latents)  # type: ignore[arg-type]

    monkeypatch.setattr(type(model.field), "forward", counted)
    points = model.geometry.random_points(10**5, torch.Generator().manual_seed(0))
    assert model.decode(points, [state]).shape == (1, 1, 10**5, 1)
    assert max(sizes) <= 2**16 and sum(sizes) == 10**5


def test_forcing_beside_loose_sensors_is_needed(model: Forecaster, flow: xr.Dataset) -> None:
    with pytest.raises(DataError, match="expected forcing"):
        model.forecast(loose(flow.isel(time=0)).drop_vars("forcing"), [0])


def test_as_many_forcings_as_states(model: Forecaster, flow: xr.Dataset) -> None:
    state = flow[["vorticity", "forcing"]].isel(time=0).assign(forcing=flow.vorticity[:, 1].drop_vars("time"))
    assert model.forecast(state, [1], GRID).sizes["sample"] == 3
    with pytest.raises(DataError, match="as many states as static fields"):
        model.forecast(state.assign(vorticity=state.vorticity[0]), [1])


def test_one_lead_time_alone(model: Forecaster, flow: xr.Dataset) -> None:
    for alone in (0.5, np.float32(0.5), np.array(0.5)):
        same(model.forecast(flow, alone, GRID), model.forecast(flow, [0.5], GRID))


def test_lead_times_from_anything_that_holds_numbers(model: Forecaster, flow: xr.Dataset) -> None:
    expected = model.forecast(flow, [0.5, 1], GRID)
    for times in ((0.5, 1), iter([0.5, 1]), np.array([0.5, 1]), expected.lead_time, list(expected.lead_time)):
        same(model.forecast(flow, times, GRID), expected)


@pytest.mark.parametrize(
    "times", ["0:19:1", ["a"], None, np.timedelta64(1, "h"), [[0.0, 1.0]], [[0.0], [1.0, 2.0]]]
)
def test_lead_times_must_be_numbers(model: Forecaster, flow: xr.Dataset, times: Any) -> None:
    with pytest.raises(UsageError, match="lead_time="):
        model.forecast(flow, times, GRID)


def test_states_must_be_datasets(model: Forecaster, flow: xr.Dataset) -> None:
    with pytest.raises(DataError, match=r"to_dataset\(name='vorticity'\)"):
        model.forecast(flow.vorticity, [0.5], GRID)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="ndarray"):
        model.forecast(flow.vorticity.values, [0.5], GRID)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"`like` as xarray.Dataset"):
        model.forecast(flow, [0.5], like=flow.vorticity)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"`statics` as xarray.Dataset"):
        model.forecast(flow, [0.5], statics=flow.forcing)  # type: ignore[arg-type]


@pytest.mark.parametrize("times", [[], [-1], [float("nan")], [float("inf")]])
def test_lead_times_must_mean_something(model: Forecaster, flow: xr.Dataset, times: list[float]) -> None:
    with pytest.raises(UsageError, match="lead times"):
        model.forecast(flow, times)


def test_places_must_mean_something(model: Forecaster, flow: xr.Dataset) -> None:
    with pytest.raises(UsageError, match="came both"):
        model.forecast(flow, [0], GRID, like=flow)
    for grid in ({"y": 3}, {"y": 3, "x": 0}, {"y": 3, "x": 3, "z": 3}):
        with pytest.raises(UsageError, match="--grid"):
            model.forecast(flow, [0], grid)
    with pytest.raises(DataError, match="expected x"):
        model.forecast(flow, [0], like=flow.drop_vars("x"))


def test_a_forecast_that_leaves_the_numbers_says_so(model: Forecaster, flow: xr.Dataset) -> None:
    with torch.no_grad():
        model.dynamics.context_head.weight.fill_(1e38)
    with pytest.raises(DivergedError, match="finite"):
        model.forecast(flow, [3])


def test_default_axes_are_the_contract(model: Forecaster, flow: xr.Dataset) -> None:
    forecast = model.forecast(flow, [0], {"y": 4, "x": 8})
    np.testing.assert_array_equal(forecast.x, default_axes(model.geometry, {"y": 4, "x": 8})["x"])
    assert forecast.x.values[-1] == 7 / 8 and forecast.sizes["y"] == 4


def test_a_static_field_is_encoded_from_what_is_known(model: Forecaster, flow: xr.Dataset) -> None:
    state = flow.isel(time=0)
    known = np.random.default_rng(0).random(state.forcing.shape) < 0.5
    gaps = state.assign(forcing=state.forcing.where(known))
    same(model.forecast(gaps, TIMES, GRID), model.forecast(state, TIMES, GRID), 1e-3)


def in_minutes(model: Forecaster) -> Forecaster:
    """The model, as if the times that it learned from had been minutes."""
    model.config = replace(model.config, time_unit="min")
    model.card["horizon"] = 3.0
    return model


@pytest.mark.parametrize("unit", ["hours", "hours since 2000-01-01"])
def test_lead_times_are_in_the_time_unit_of_the_state(model: Forecaster, flow: xr.Dataset, unit: str) -> None:
    model, state = in_minutes(model), flow.isel(time=2)
    said = state.assign_coords(time=((), 2 / 60, {"units": unit}))
    state.time.attrs.clear()
    plain, other = model.forecast(state, [0, 0.5, 3], GRID), model.forecast(said, [0, 0.5 / 60, 0.05], GRID)
    np.testing.assert_allclose(other.vorticity, plain.vorticity, atol=1e-5)
    assert (plain.lead_time.units, other.lead_time.units) == ("min", "hours")
    assert (plain.start_time, other.start_time) == (2, 2 / 60)
    assert other.lead_time.values.tolist() == [0, 0.5 / 60, 0.05] and "warnings" not in other.attrs
    with pytest.warns(TrustWarning, match="up to 0.05 hours, .*; came 0.5 hours"):
        model.forecast(said, [0.5], GRID)
    found = match(other, plain)
    assert found.lead_times == tuple(other.lead_time.values) and len(found.frames) == 3


def test_times_that_xarray_has_decoded(model: Forecaster, flow: xr.Dataset) -> None:
    """Lead times stay in the unit of the model, since the state no longer says its own."""
    hours = flow.isel(time=[0, 1]).assign_coords(time=("time", [1.0, 1.01], {"units": "hours"}))
    decoded = hours.assign_coords(time=(hours.time.values * 3600e9).astype("timedelta64[ns]"))
    model = in_minutes(model)
    a = model.forecast(decoded, [0, 0.6], GRID, assimilate=True)
    b = model.forecast(hours, [0, 0.01], GRID, assimilate=True)
    np.testing.assert_allclose(a.vorticity, b.vorticity, atol=1e-4)
    assert (a.lead_time.units, a.start_time, b.start_time) == ("min", pytest.approx(60), 1)


@pytest.mark.parametrize("unit", ["1", "K", "months"])
def test_times_that_cannot_be_converted(model: Forecaster, flow: xr.Dataset, unit: str) -> None:
    state = flow.assign_coords(time=flow.time.assign_attrs(units=unit))
    with pytest.raises(DataError, match=r"time in the unit 'min'.*\n.*\['time'\].attrs\['units'\] = 'min'"):
        in_minutes(model).forecast(state, [0], GRID)
