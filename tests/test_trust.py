"""A forecast says when it is asked for more than the model can give, and only then."""

import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pdeforecast import checkpoint, cli, generation
from pdeforecast.calibration import calibrate
from pdeforecast.familiarity import CARD, Familiarity, Fit, Limits, _coverages, coverage, examine
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.pdes import NavierStokes
from pdeforecast.trajectory import default_axes, grid_dims, grid_points, open_dataset, save_dataset
from pdeforecast.trust import TrustWarning, doubts


def fit(
    misfit: float, departures: list[float], variations: list[float], counts: list[int], covered: float = 1.0
) -> Fit:
    """That of one state."""
    sizes = torch.tensor([departures]), torch.tensor([variations])
    return Fit(torch.tensor([misfit]), *sizes, torch.tensor([counts]), torch.full((1, len(counts)), covered))


FIT = fit(1.0, [1.0], [1.0], [100])


@pytest.mark.parametrize("count", [5, 40, 144])
def test_the_misfit_is_the_energy_under_the_prior(model: Forecaster, count: int) -> None:
    """(y − f₀)ᵀ (A S Aᵀ + R)⁻¹ (y − f₀) / M, with dense matrices, gaps, variances and measures."""
    draw = torch.Generator().manual_seed(count)
    encoder = model.encoder
    points = model.geometry.random_points(count, draw)
    values = torch.randn(2, count, 1, generator=draw, dtype=torch.float64)
    values[1, ::3] = torch.nan
    variance = 0.1 * torch.rand(2, count, 1, generator=draw, dtype=torch.float64)
    measure = 0.5 + torch.rand(count, generator=draw, dtype=torch.float64)
    inputs = points, values, variance, measure
    fit = examine(encoder, encoder(*inputs), *inputs)
    design = encoder.field.design(points, encoder.poses, encoder.windows).to_dense()
    factor = encoder.prior_factor(0)
    start = design @ encoder.initial[0, encoder.orbit].flatten()
    for i in range(2):
        known = ~values[i, :, 0].isnan()
        error = encoder.noise / measure + variance[i, :, 0]
        shown = design[known] @ factor
        full = shown @ shown.T + error[known].diag()
        left = values[i, known, 0] - start[known]
        energy = left @ torch.linalg.solve(full, left) / known.sum()
        assert fit.counts[i, 0] == known.sum() and float(fit.misfit[i]) == pytest.approx(
            float(energy), rel=1e-6
        )


def known(counts: list[float], parts: list[float]) -> Familiarity:
    """Of two variables, with limits 2 and 8 as counts or parts grow tenfold; without them, none holds."""
    rows = [[2.0, 20.0], [8.0, 80.0]], [[0.2, 1.0], [0.8, 4.0]]
    never = [[1e-9, 1e-9]] * 2, [[1e9, 1e9]] * 2
    one = Limits(counts, [2.0, 8.0], *rows) if counts else Limits([10, 100], [1e-9, 1e-9], *never)
    other = Limits(parts, [2.0, 8.0], *rows) if parts else Limits([0.05, 0.5], [1e-9, 1e-9], *never)
    return Familiarity(one, other, 1e-3, 9, "mine")


@pytest.mark.parametrize(("count", "limit"), [(5, 2), (16, 4), (50, 8), (10**5, 8)])
def test_limits_between_and_beyond_the_measured_counts(count: int, limit: float) -> None:
    """Linear in logarithms; a variable counts as if others were observed as often."""
    times = known([10, 100], []).excess(fit(16.0, [16.0, 16.0], [0.1, 0.1], [count, count]))
    assert times[0] == pytest.approx([16 / limit, 16 / limit, 1.6 / limit, limit, 5 * limit], rel=0.02)


@pytest.mark.parametrize(("covered", "limit"), [(0.05, 2), (0.158, 4), (0.5, 8), (0.8, 8)])
def test_limits_between_and_beyond_the_measured_coverages(covered: float, limit: float) -> None:
    times = known([], [0.05, 0.5]).excess(fit(16.0, [16.0, 16.0], [0.1, 0.1], [50, 50], covered))
    assert times[0, :3] == pytest.approx([16 / limit, 16 / limit, 1.6 / limit], rel=0.02)


def test_the_wider_of_two_limits_holds_in_a_part() -> None:
    both = known([10, 100], [0.05, 0.5])
    assert both.excess(fit(16.0, [1.0, 1.0], [9.0, 9.0], [50, 50], 0.05))[0, 0] == pytest.approx(2)
    assert both.excess(fit(16.0, [1.0, 1.0], [9.0, 9.0], [5, 5], 0.5))[0, 0] == pytest.approx(2)
    assert both.excess(fit(16.0, [1.0, 1.0], [9.0, 9.0], [5, 5], 0.05))[0, 0] == pytest.approx(8)
    assert both.excess(fit(16.0, [1.0, 1.0], [9.0, 9.0], [5, 5], 0.95))[0, 0] == pytest.approx(8)  # the whole


def test_nothing_is_exceeded_where_nothing_is_known() -> None:
    """Fewer observations than were measured, of a variable or in all; a smaller part; none measured."""
    both = known([10, 100], [0.05, 0.5])
    for counts, judged in (([2, 2], []), ([2, 8], [0, 2, 4]), ([0, 50], [0, 2, 4])):
        times = both.excess(fit(99.0, [99.0, 99.0], [0.0, 0.0], counts))[0]
        assert np.flatnonzero(times > 1).tolist() == np.flatnonzero(times).tolist() == judged
    assert not both.excess(fit(99.0, [99.0, 99.0], [0.0, 0.0], [50, 50], 0.04)).any()
    none = Limits([], [], [], [])
    assert not Familiarity(none, none, 1e-3, 0, "none").excess(fit(9.0, [9.0], [0.0], [100])).any()


def test_a_warning_names_what_is_unlike_and_nothing_else() -> None:
    card = {CARD: asdict(known([10, 100], [0.05, 0.5]))}
    cases = {
        "a misfit 2 times": fit(16.0, [1.0, 1.0], [9.0, 9.0], [50, 50]),
        "height lies 3 times": fit(1.0, [24.0, 1.0], [9.0, 9.0], [50, 50]),
        "wind lies 2 times": fit(1.0, [1.0, 160.0], [9.0, 9.0], [50, 50]),
        "height varies 4 times": fit(1.0, [1.0, 1.0], [0.2, 9.0], [50, 50]),
        "wind does not vary": fit(1.0, [1.0, 1.0], [9.0, 0.0], [50, 50]),
    }
    for text, found in cases.items():
        said = doubts(card, [0.0], "1", found, ["height", "wind"]).warnings
        assert (
            len(said) == 1
            and f"unlike it: {text}" in said[0]
            and "," not in said[0].split("unlike it")[1].split("\n")[0]
        )
    assert not doubts(
        card, [0.0], "1", fit(1.0, [1.0, 1.0], [9.0, 9.0], [50, 50]), ["height", "wind"]
    ).warnings


def test_departures_and_variations_are_those_of_weighted_values(model: Forecaster) -> None:
    """The closed forms, of what is observed; errors of the observations are no departure."""
    draw = torch.Generator().manual_seed(5)
    points, shape = model.geometry.random_points(60, draw), (2, 60, 1)
    values = 1 + torch.randn(shape, generator=draw, dtype=torch.float64)
    values[0, ::4] = torch.nan
    share = 0.5 + torch.rand(60, generator=draw, dtype=torch.float64)
    inputs = points, values, torch.full_like(values, 0.3), share
    latents = model.encoder(*inputs)
    found = examine(model.encoder, latents, *inputs)
    mean = model.encoder.field(points, replace(latents, contexts=model.encoder.centre[None]))[0, :, 0]
    for i in range(2):
        seen = ~values[i, :, 0].isnan()
        y, w = values[i, seen, 0], share[seen] / share[seen].sum()
        departure = float((w * (y - mean[seen]) ** 2).sum() - 0.3) ** 0.5
        variation = float((w * (y - (w * y).sum()) ** 2).sum()) ** 0.5
        assert float(found.departure[i, 0]) == pytest.approx(departure, rel=1e-12)
        assert float(found.variation[i, 0]) == pytest.approx(variation, rel=1e-12)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_coverage_is_the_part_of_the_space_that_is_seen(name: str) -> None:
    """All of it by random points and by grids; of dense ones in a part of it, that part and its rim."""
    geometry, draw = GEOMETRIES[name], torch.Generator().manual_seed(3)
    for count in (40, 400, 4000):
        assert coverage(geometry, geometry.random_points(count, draw)) > 0.9
    for size in (8, 16):
        axes = default_axes(geometry, {dim: size for dim in grid_dims(geometry)})
        assert coverage(geometry, grid_points(geometry, axes)) > 0.9
    points = geometry.random_points(4000, draw)
    order = geometry.distance(points, geometry.lift(points[:1])).argsort()
    found = [coverage(geometry, points[order[: round(share * 4000)]]) for share in (0.05, 0.2, 0.5, 0.8)]
    for share, part in zip((0.05, 0.2, 0.5, 0.8), found, strict=True):
        assert share - 0.06 < part < share + 0.25
    assert found == sorted(found) and coverage(geometry, points[:0]) == 0


def test_a_variable_seen_in_a_part_is_judged_by_that_part(model: Forecaster) -> None:
    """Coverage is that of each variable; of points of each state's own, that of each state."""
    points = model.geometry.random_points(3000, torch.Generator().manual_seed(4))
    near = model.geometry.distance(points, points[0]) < 0.2
    seen = torch.stack([torch.ones(3000, dtype=torch.bool), near], dim=-1).expand(3, -1, -1)
    found = _coverages(model.geometry, points, seen)
    assert bool((found[:, 0] > 0.97).all()) and bool((found[:, 1] < 0.4).all())
    own = torch.stack([points, points[near].repeat(3000, 1)[:3000]])
    found = _coverages(model.geometry, own, torch.ones(2, 3000, 1, dtype=torch.bool))
    assert float(found[0, 0]) > 0.97 and float(found[1, 0]) < 0.4


@pytest.mark.parametrize(
    ("card", "last", "warned", "noted"),
    [
        ({}, 1e9, None, None),
        ({"horizon": 9.0}, 9.0, None, None),
        ({"horizon": 9.0}, 10.0, "trained; came 10 hours, 1 beyond", None),
        ({"horizon": 9.0, "measured_horizon": 19.0}, 19.0, None, "trained to lead time 9 hours"),
        ({"horizon": 9.0, "measured_horizon": 19.0}, 25.0, "up to 19 hours", None),
    ],
)
def test_lead_times(card: dict[str, float], last: float, warned: str | None, noted: str | None) -> None:
    said = doubts(card, [0.0, last], "hours", FIT, ["height"])
    assert len(said.warnings) == (warned is not None) and len(said.notes) == (noted is not None)
    for text, found in ((warned, said.warnings), (noted, said.notes)):
        assert text is None or (
            text in found[0] and len(found[0].split("\n")) == (2 if text == warned else 1)
        )
    assert ("warnings" in said.attrs(), "notes" in said.attrs()) == (warned is not None, noted is not None)


def test_observations_beyond_what_was_trained(model: Forecaster, flow: xr.Dataset) -> None:
    """In the unit of the state; a warning of its own, beside that of lead times."""
    said = doubts({"horizon": 120.0}, [0.0, 1.0], "hours", FIT, ["height"], by=60.0, observed=5.0)
    assert "observations up to 2 hours" in said.warnings[0] and "came 5 hours" in said.warnings[0]
    assert len(said.warnings) == 1 and len(said.warnings[0].split("\n")) == 2
    model.card.pop(CARD)
    for last, warned in ((3.0, False), (3.5, True)):
        state = flow.isel(time=[0, 1], sample=[0]).assign_coords(time=[2.0, 2.0 + last])
        state = state.assign(vorticity=0 * state.vorticity)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TrustWarning)
            forecast = model.forecast(state, [0], {"y": 4, "x": 4}, assimilate=True)
        assert ("observations up to 3" in forecast.attrs.get("warnings", "")) == warned


def fields(flow: xr.Dataset, shift: int) -> xr.Dataset:
    """Many familiar states, by moving those that are known."""
    return xr.concat([flow[["vorticity"]].roll(x=i, y=2 * i) for i in range(shift)], "sample")


def test_it_fires_on_rough_states_and_not_on_familiar_ones(
    model: Forecaster, flow: xr.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = calibrate(model, fields(flow, 20), "moved states")
    assert model.card[CARD]["states"] == found.states == 240
    assert found.by_count.at == [10, 20, 51, 102, 307, 1024]
    assert len(found.by_coverage.at) == 5 and found.by_coverage.at == sorted(found.by_coverage.at)
    state = flow.isel(time=1, drop=True)
    noise = np.random.default_rng(0).normal(size=state.vorticity.shape)
    rough = state.assign(vorticity=state.vorticity + 0.5 * float(state.vorticity.std()) * noise)
    for share in (1.0, 0.1, 0.05):
        keep = np.random.default_rng(1).random((32, 32)) < share
        with warnings.catch_warnings():
            warnings.simplefilter("error", TrustWarning)
            seen = model.forecast(state.assign(vorticity=state.vorticity.where(keep)), [0, 1], like=state)
        assert "warnings" not in seen.attrs
        with pytest.warns(TrustWarning, match="3 of 3") as caught:
            told = model.forecast(rough.assign(vorticity=rough.vorticity.where(keep)), [0, 1], like=state)
        assert told.attrs["warnings"] == str(caught[0].message) and caught[0].filename == __file__
    checkpoint.save(model, tmp_path / "mine.safetensors")
    save_dataset(rough, tmp_path / "rough.nc")
    words = [
        "forecast",
        str(tmp_path / "mine.safetensors"),
        str(tmp_path / "rough.nc"),
        "--lead-time",
        "0,99",
    ]
    assert cli.main([*words, "-o", str(tmp_path / "out.nc")]) == 0
    err = capsys.readouterr().err
    assert (
        err.count("warning: ") == 2 and len(err.splitlines()) == 4 and "99" in err and "Traceback" not in err
    )
    assert err.replace("warning: ", "").strip() == open_dataset(tmp_path / "out.nc").attrs["warnings"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda y: 0 * y, "vorticity does not vary"),
        (lambda y: 0.01 * y, "vorticity varies"),
        (lambda y: 10 * y, "as far from the mean state"),
        (lambda y: y + 50, "as far from the mean state"),
    ],
)
def test_a_wrong_variable_is_named(
    model: Forecaster, flow: xr.Dataset, wrong: Callable[[xr.DataArray], xr.DataArray], said: str
) -> None:
    """Zero, in another unit, or with an offset: whole, with gaps, or in a part of the plane."""
    calibrate(model, fields(flow, 20), "moved states")
    state = flow.isel(time=1, drop=True)
    for keep in (True, np.random.default_rng(3).random((32, 32)) < 0.1, state.x < 0.4):
        shown = state.assign(vorticity=state.vorticity.where(keep))
        with warnings.catch_warnings():
            warnings.simplefilter("error", TrustWarning)
            model.forecast(shown, [0], like=state)
        with pytest.warns(TrustWarning, match=said):
            model.forecast(shown.assign(vorticity=wrong(shown.vorticity)), [0], like=state)


@pytest.mark.parametrize("copies", [2, 5, 12])
def test_few_first_frames_count_as_well(model: Forecaster, flow: xr.Dataset, copies: int) -> None:
    """Whether they are too few to be judged apart, as later ones may not be, or enough."""
    hard = xr.where(flow.time == flow.time[0], 5.0, 1.0) * fields(flow, copies).vorticity
    ds = hard.astype("float32").to_dataset(name="vorticity").assign_attrs(flow.attrs)
    ds = ds.transpose("sample", "time", "y", "x").assign(forcing=flow.forcing)
    ds.vorticity.attrs.update(flow.vorticity.attrs)
    calibrate(model, ds, "first frames of five times the size")
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrustWarning)
        model.forecast(ds.isel(time=0), [0.0])


def test_a_trained_run_is_calibrated(model: Forecaster) -> None:
    known = model.card[CARD]
    assert known["source"] == "training states"
    for limits in (known["by_count"], known["by_coverage"]):
        assert len(limits["at"]) == len(limits["misfit"]) > 3 and limits["at"] == sorted(limits["at"])


def test_shipped_models_are_calibrated() -> None:
    for name in checkpoint.shipped():
        card = checkpoint.load(name).card
        assert card[CARD]["source"] == "validation states" and card["measured_horizon"] > card["horizon"]


def test_another_viscosity_is_told_and_unseen_states_are_not() -> None:
    """With a short spin-up, so that it is quick: the same random fields, stirred by a thinner fluid."""
    model = checkpoint.load("navier-stokes")
    normal = states(NavierStokes(frames=1), 2)
    thin = states(NavierStokes(frames=1, viscosity=1e-4, spin_up=6.0, solver_resolution=64), 2)
    for share in (1.0, 0.1, 0.05):
        assert not told(model, normal, share)
        assert told(model, thin, share)


def states(pde: NavierStokes, count: int) -> xr.Dataset:
    made = list(generation.generate(pde, count, 21, "test"))
    return generation.assemble(pde, made, 21, "test").isel(time=0)


def told(model: Forecaster, state: xr.Dataset, share: float) -> bool:
    keep = np.random.default_rng(2).random((64, 64)) < share
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        seen = model.forecast(state.assign(vorticity=state.vorticity.where(keep)), [0.0], like=state)
    return "warnings" in seen.attrs
