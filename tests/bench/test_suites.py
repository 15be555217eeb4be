"""The suites on small data: tables that go on, verdicts on known spectra, parts that add up, pages."""

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pdeforecast import Forecaster, checkpoint, cli
from pdeforecast.bench import efficiency, horizon, interpolation, sparse, split, superres
from pdeforecast.bench.methods import Method, Model
from pdeforecast.bench.report import html, latest, published_figures
from pdeforecast.bench.scores import errors_of
from pdeforecast.bench.spectra import Bands, bands, nyquist, power
from pdeforecast.bench.study import Study, state_of
from pdeforecast.bench.suites import SUITES
from pdeforecast.bench.table import Case, Row, complete, curve, markdown, number, over_seeds, read, write
from pdeforecast.bench.verdict import verdict
from pdeforecast.bench.viewer import viewer
from pdeforecast.errors import DivergedError, UsageError
from pdeforecast.generation import assemble, generate
from pdeforecast.generation import write as write_trajectories
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.metrics import score
from pdeforecast.pdes import ShallowWater, make
from pdeforecast.presets import PRESETS, Preset
from pdeforecast.trajectory import default_axes, geometry_of, open_dataset

TORUS, PLANE, SPHERE = (GEOMETRIES[name] for name in ("periodic_plane", "plane", "sphere"))


@pytest.fixture
def known(shared: Path, tmp_path: Path) -> Path:
    """The tiny model, whose card says on what it was trained."""
    model = checkpoint.load(shared / "tiny")
    with open_dataset(shared / "flow.nc") as ds:
        model.card["data"] = {key: str(value) for key, value in ds.attrs.items()}
    checkpoint.save(model, tmp_path / "known.safetensors")
    return tmp_path / "known.safetensors"


def typed(*words: object) -> int:
    return cli.main(["bench", *map(str, words)])


# --- tables --------------------------------------------------------------------------------------


def test_a_table_as_written(tmp_path: Path) -> None:
    rows: list[Row] = [{"a": 1, "b": 0.5, "c": "x, y"}, {"a": 2, "d": (1.0, math.inf, 2e-9)}]
    write(rows, tmp_path / "t.csv")
    assert read(tmp_path / "t.csv") == rows and read(tmp_path / "absent.csv") == []


def test_only_missing_rows_are_computed(tmp_path: Path) -> None:
    asked: list[int] = []

    def case(seed: int) -> Case:
        return Case(
            {"seed": seed, "share": 0.05}, lambda: asked.append(seed) or [{"x": seed / 3}, {"x": 1.0}]
        )

    path = tmp_path / "t.csv"
    first = complete(path, [case(0)], {"commit": "a"})
    both = complete(path, [case(0), case(1)], {"commit": "b"})
    assert asked == [0, 1] and both[:2] == first and [row["commit"] for row in both] == [*"aabb"]
    assert complete(path, [case(1)], {}) == both[2:] and asked == [0, 1]
    assert complete(path, [case(2)], {}, budget=1e-9) == [] and asked == [0, 1]


def test_mean_and_spread_over_seeds() -> None:
    rows: list[Row] = [{"m": "a", "seed": s, "x": x} for s, x in enumerate((1.0, 2.0, 3.0))] + [
        {"m": "b", "x": 5.0}
    ]
    first, second = over_seeds(rows, ["m"], ["x"])
    assert (first["x"], first["seeds"], second["x"]) == ("2 ± 1", 3, "5")
    assert markdown([first, second], ["m", "x", "absent"]).splitlines()[-1] == "| b | 5 |"


# --- fields between nodes, and their scales ------------------------------------------------------


def axes_on(space: object, **sizes: int) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(axis) for name, axis in default_axes(space, sizes).items()}  # type: ignore[arg-type]


def on_torus(axes: Mapping[str, torch.Tensor]) -> torch.Tensor:
    y, x = 2 * math.pi * axes["y"][:, None], 2 * math.pi * axes["x"]
    return (3 * x + 2 * y).sin() + (5 * y).cos()


def on_plane(axes: Mapping[str, torch.Tensor]) -> torch.Tensor:
    y, x = math.pi * (axes["y"][:, None] + 3) / 6, math.pi * (axes["x"] + 3) / 6
    return (3 * x).cos() * (2 * y).cos()


def on_sphere(axes: Mapping[str, torch.Tensor]) -> torch.Tensor:
    up, east = axes["latitude"][:, None].deg2rad(), axes["longitude"].deg2rad()
    return up.sin() ** 2 + up.cos() ** 3 * (3 * east + 0.3).cos() + up.cos() * up.sin() * east.sin()


FIELDS = {
    "torus": (TORUS, on_torus, {"y": 32, "x": 48}, {"y": 50, "x": 33}, 16),
    "plane": (PLANE, on_plane, {"y": 32, "x": 48}, {"y": 50, "x": 33}, 32),
    "sphere": (SPHERE, on_sphere, {"latitude": 24, "longitude": 48}, {"latitude": 50, "longitude": 30}, 23),
}


@pytest.mark.parametrize(("space", "field", "sizes", "others", "highest"), FIELDS.values(), ids=FIELDS)
def test_interpolants_and_spectra(space, field, sizes, others, highest) -> None:  # type: ignore[no-untyped-def]
    own, other = axes_on(space, **sizes), axes_on(space, **others)
    values = field(own)
    assert torch.allclose(interpolation.at_nodes(values, space, own, other), field(other), atol=1e-10)
    assert torch.allclose(interpolation.splined(values, space, own, own), values, atol=1e-12)
    finer = axes_on(space, **{name: 2 * n for name, n in sizes.items()})
    errors = [
        (interpolation.splined(field(a), space, a, other) - field(other)).abs().max() for a in (own, finer)
    ]
    assert errors[0] / errors[1] > 2**3.5, "cubic splines are of fourth order"
    places = interpolation.random_places(space, 100, 0)
    there = torch.stack([field({k: v[i : i + 1] for k, v in places.items()})[0, 0] for i in range(100)])
    assert torch.allclose(interpolation.at_places(values[None], space, own, places)[0], there, atol=1e-10)
    weights = space.weights(own)
    mean = (weights * values**2).sum() / weights.sum()
    assert float(power(values, space, own).sum()) == pytest.approx(float(mean), rel=3e-3)
    assert nyquist(space, own) == highest


def test_one_harmonic_has_one_degree() -> None:
    axes = axes_on(SPHERE, latitude=16, longitude=32)
    up, east = axes["latitude"][:, None].deg2rad(), axes["longitude"].deg2rad()
    e = power(up.cos() ** 2 * (2 * east).cos(), SPHERE, axes)
    assert float(e[2]) == pytest.approx(4 / 15, rel=1e-10) and float(e.sum() - e[2]) < 1e-20


# --- verdicts ------------------------------------------------------------------------------------

K = 32
SCALES = torch.arange(65, dtype=torch.float64)
TRUTH = (1 + SCALES) ** -3.0
LOW = SCALES <= K


def constructed(below: float, kept: float, added: float) -> Bands:
    """Bands of a forecast with an error `below` K; beyond it `kept` of the truth and `added` of its size."""
    low = below**2 * TRUTH
    error = torch.where(LOW, low, ((1 - kept) ** 2 + added**2) * TRUTH)
    return bands(TRUTH, error, torch.where(LOW, TRUTH + low, (kept**2 + added**2) * TRUTH), K)


INTERPOLATION = {2.0: constructed(0.01, 0, 0), 4.0: constructed(0.01, 0, 0)}


@pytest.mark.parametrize(
    ("fine", "finest", "words"),
    [
        ((0.01, 0, 0), (0.0105, 0, 0), "interpolates to 4×; adds no true detail above k = 32"),
        ((0.01, 0, 0), (0.01, 0.8, 0.1), "interpolates to 4×; adds true detail above k = 32"),
        ((0.01, 0, 0), (0.01, 0, 1.0), "interpolates to 4×; adds false detail above k = 32"),
        ((0.01, 0, 0), (0.05, 0, 0), "interpolates to 2×, not to 4×"),
        ((0.05, 0, 0), (0.05, 0, 0), "does not interpolate"),
    ],
)
def test_the_verdict_on_constructed_spectra(
    fine: tuple[float, ...], finest: tuple[float, ...], words: str
) -> None:
    direct = {2.0: constructed(*fine), 4.0: constructed(*finest)}
    assert verdict(direct, INTERPOLATION, K).startswith(words)


def test_where_the_truth_has_nothing_there_is_nothing_to_show() -> None:
    smooth = torch.where(LOW, TRUTH, 1e-12 * TRUTH)
    silent, loud = (torch.where(LOW, 1e-4 * TRUTH, size * TRUTH) for size in (1e-12, 1e-2))
    made = [bands(smooth, error, smooth + error, K) for error in (silent, loud)]
    still, junk = (verdict({2.0: b}, {2.0: made[0]}, K, "l") for b in made)
    assert "adds no detail above l = 32, where the truth has nothing" in still
    assert "adds false detail above l = 32, where the truth has nothing" in junk


@dataclass(frozen=True)
class Oracle:
    """Knows the solution on the finest grid, and returns what of it a way of failing leaves."""

    truth: xr.Dataset
    detail: float
    name: str = "oracle"

    def forecast(
        self,
        state: xr.Dataset,
        lead_time: Sequence[float],
        grid: Mapping[str, int] | None = None,
        like: xr.Dataset | None = None,
    ) -> xr.Dataset:
        values = torch.from_numpy(self.truth["vorticity"].values).double()
        own = {name: torch.tensor(self.truth[name].values) for name in ("y", "x")}
        low = superres.resample(values, 16)
        coarse = axes_on(TORUS, y=16, x=16)
        if grid is not None:
            there = axes_on(TORUS, **grid)
            parts = [interpolation.at_nodes(u, TORUS, a, there) for u, a in ((values, own), (low, coarse))]
            dims: tuple[str, ...] = ("sample", "lead_time", "y", "x")
            coords = {name: (name, axis) for name, axis in there.items()}
        else:
            assert like is not None
            places = {name: torch.from_numpy(like[name].values) for name in ("y", "x")}
            parts = [interpolation.at_places(u, TORUS, a, places) for u, a in ((values, own), (low, coarse))]
            dims, coords = ("sample", "lead_time", "point"), {k: ("point", v) for k, v in places.items()}
        field = parts[1] + self.detail * (parts[0] - parts[1])
        coords["lead_time"] = ("lead_time", list(lead_time))  # type: ignore[assignment]
        return xr.Dataset({"vorticity": (dims, field.numpy(), {"units": "1"})}, coords, state.attrs)


def rough(seed: int) -> xr.Dataset:
    """Trajectories on 64² points with detail at all scales."""
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=draw)
    k = torch.fft.fftfreq(64, 1 / 64).double()
    field = torch.fft.ifft2(torch.fft.fft2(noise) / (1 + torch.hypot(k[:, None], k)) ** 1.5).real
    axes = axes_on(TORUS, y=64, x=64)
    coords = {"time": [0.0, 1.0, 2.0], "sample": [0], **{k: (k, v) for k, v in axes.items()}}
    dims = ("sample", "time", "y", "x")
    return xr.Dataset({"vorticity": (dims, field, {"units": "1"})}, coords, {"geometry": "periodic_plane"})


@pytest.mark.parametrize(
    ("detail", "words"), [(0.0, "no true detail"), (1.0, "true detail"), (-1.0, "false detail")]
)
def test_the_verdict_on_forecasts(detail: float, words: str) -> None:
    truth = rough(0)
    coarse = make("navier-stokes", {"resolution": 16, "frames": 3})
    rows = superres.Comparison(Oracle(truth, detail), coarse, coarse, truth, 0).rows()
    keyed = [{**row, "method": "oracle", "equation": "-"} for row in rows]
    (line,) = superres.verdicts(keyed)
    assert f"interpolates to 4×; adds {words} above k = 8" in line
    by = {(row["way"], row["grid"]): row for row in rows}
    fine = by["direct", "64×64"]
    assert number(fine, "above") == pytest.approx(abs(1 - detail), rel=0.06, abs=1e-9)
    assert {grid for way, grid in by if way == "spline"} == {"32×32", "64×64"}
    assert {"8×8", "16×16", "random places"} <= {grid for _, grid in by}
    assert 1e-3 < number(fine, "share") < 1 and len(curve(fine, "spectrum_truth")) == 46


def test_finer_equations_start_from_the_same_states() -> None:
    assert superres.finer(make("navier-stokes", {"resolution": 32}), 4) == make(
        "navier-stokes", {"resolution": 128}
    )
    own = ShallowWater(resolution=96, coarsen=2)
    assert superres.finer(own, 2) == replace(own, coarsen=1)
    assert superres.finer(own, 4) == replace(own, coarsen=1, resolution=192)


SMALL = {
    "navier-stokes": {"resolution": 32, "spin_up": 1, "frames": 2, "step": 0.1},
    "diffusion-plane": {"resolution": 16, "frames": 2},
    "diffusion-sphere": {"resolution": 16, "frames": 2},
    "shallow-water": {"resolution": 16, "coarsen": 2, "start": 0, "frames": 2, "interval": 1},
}


@pytest.mark.parametrize(("name", "parameters"), SMALL.items(), ids=SMALL)
def test_a_finer_truth_seen_on_the_grid_of_the_training(name: str, parameters: dict[str, float]) -> None:
    own = make(name, parameters)
    coarse, fine = (
        assemble(pde, list(generate(pde, 1, 3, "test")), 3, "test") for pde in (own, superres.finer(own, 2))
    )
    seen = superres.restricted(fine, geometry_of(fine), own.coordinates())
    for field in (*own.variables, *own.statics):
        first = coarse[field].isel(time=0) if "time" in coarse[field].dims else coarse[field]
        assert seen[field].dims == first.dims
        assert float(np.abs(seen[field] - first).max()) < 2e-3 * float(np.abs(first).max())


def test_untrained_methods_on_a_rotating_sphere(tmp_path: Path) -> None:
    pde = make("shallow-water", SMALL["shallow-water"])
    write_trajectories(pde, tmp_path / "train.nc", 3)
    asked = [
        "--train",
        tmp_path / "train.nc",
        "--samples",
        1,
        "--seeds",
        0,
        "--set",
        "frames=2",
        "-o",
        tmp_path,
    ]
    assert typed("superres", *asked) == 0
    rows = read(tmp_path / "superres.csv")
    assert {row["variable"] for row in rows} == set(pde.variables)
    assert {row["method"] for row in rows} == {"persistence", "climatology", "kriging + solver"}
    assert {row["numbers"] for row in rows if "numbers" in row} == {"l"} and not any(
        "note" in row for row in rows
    )
    assert (tmp_path / "superres_shallow-water-start-0_height_kriging-solver.png").exists()


def test_superres_on_the_command_line(
    known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(superres.FINEST, "periodic_plane", 2)
    words = f"superres {known} --samples 1 --seeds 3 --set frames=3 -o {tmp_path / 'out'}".split()
    assert typed(*words) == 0
    rows = read(tmp_path / "out" / "superres.csv")
    assert {row["way"] for row in rows} == {superres.DIRECT, superres.SPECTRAL, superres.SPLINE}
    assert re.search(
        r"known, navier-stokes spin_up=1, vorticity: (interpolates|does not)", capsys.readouterr().out
    )
    before = (tmp_path / "out" / "superres.csv").read_bytes()
    assert typed(*words) == 0 and (tmp_path / "out" / "superres.csv").read_bytes() == before
    assert typed("superres", known, "--data", known, "-o", tmp_path / "out") == 2
    (truth,) = (tmp_path / "out" / "truth").glob("*.nc")
    with open_dataset(truth) as ds:
        assert (ds.sizes["x"], ds.sizes["time"], ds.attrs["split"]) == (64, 3, "test")


# --- forecast and sparse -------------------------------------------------------------------------


def test_forecast_goes_on(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["forecast", shared / "tiny", "--data", shared / "flow.nc", "--samples", 2, "-o", tmp_path]
    assert typed(*asked, "--seeds", "0") == 0
    first = read(tmp_path / "forecast.csv")
    assert typed(*asked, "--seeds", "0,1") == 0
    rows = read(tmp_path / "forecast.csv")
    assert rows[:1] == first and [row["seed"] for row in rows] == [0, 1]
    columns = {"equation", "method", "identity", "samples", "variable", "paper_t_in", "lead_0_mse", "t_in_l2"}
    assert columns | {"t_in_l2_median", "lead_times", "device", "commit", "command"} <= set(rows[0])
    with open_dataset(shared / "flow.nc") as ds:
        truth = ds.isel(sample=slice(2)).load()
    forecast = checkpoint.load(shared / "tiny").forecast(truth.isel(time=0), [0, 1, 2, 3])
    whole = score(forecast, truth)
    assert rows[0]["paper_t_in"] == pytest.approx(whole["mse"]["t_in"], rel=1e-4)
    assert rows[0]["t_in_l2"] == pytest.approx(
        whole["variables"]["vorticity"]["t_in"]["relative_l2"], rel=1e-4
    )
    assert (tmp_path / "forecast_navier-stokes-spin_up-1_vorticity.png").stat().st_size > 1000
    assert (tmp_path / "forecast.md").read_text() in capsys.readouterr().out


def test_what_cannot_be_forecast_says_why(shared: Path, tmp_path: Path) -> None:
    class Blind:
        name = "blind"

        def forecast(self, *_: object, **__: object) -> xr.Dataset:
            raise DivergedError("it left the finite numbers.", "Do not ask.")

    study = Study([Blind()], tmp_path, data=shared / "flow.nc", samples=1)  # type: ignore[list-item]
    rows = complete(tmp_path / "f.csv", SUITES["forecast"].cases(study), {})
    assert rows[0]["note"] == "it left the finite numbers." and "t_in_l2" not in rows[0]
    assert "blind" in SUITES["forecast"].page(rows)


def test_states_seen_in_part(flow: xr.Dataset) -> None:
    state = state_of(flow)
    seen = sparse.gaps(state, ["vorticity"], 0.1, 0)
    assert (seen.vorticity.notnull().sum(("y", "x")) == round(0.1 * 32 * 32)).all()
    assert not (seen.vorticity.isnull() == seen.vorticity.isel(sample=0).isnull()).all()
    loose = sparse.sensors(state, ["vorticity"], 0.1, 0)
    assert loose.sizes["point"] == round(0.1 * 32 * 32) and loose.forcing.dims == ("y", "x")
    again = sparse.sensors(state, ["vorticity"], 0.1, 0)
    assert again.identical(loose) and not sparse.sensors(state, ["vorticity"], 0.1, 1).x.equals(loose.x)


def test_sparse_on_the_command_line(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "SHARES", (1.0, 0.05))
    asked = [
        "sparse",
        shared / "tiny",
        "--data",
        shared / "flow.nc",
        "--samples",
        1,
        "--seeds",
        0,
        "-o",
        tmp_path,
    ]
    assert typed(*asked) == 0
    errors = {
        (row["observed"], row["share"]): number(row, "lead_0_mse") for row in read(tmp_path / "sparse.csv")
    }
    assert len(errors) == 4 and errors["grid", 1] < errors["grid", 0.05]
    assert errors["sensors", 1] == pytest.approx(errors["grid", 1], rel=0.5)
    assert "5% (sensors): tiny" in (tmp_path / "sparse.md").read_text()


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ({"ours": 0.1, "solver": 0.2, "theirs": 0.3}, "ours, 0.1 (9 minutes); theirs, 0.3 (9 minutes)"),
        (
            {"ours": 0.1, "solver": 0.01, "theirs": 0.3, "a third": 0.4},
            "solver, 0.01; of those that learned ours, 0.1 (9 minutes); theirs, 0.3 (9 minutes)",
        ),
        (
            {"ours": 0.1, "solver": 0.01, "theirs": 0.05},
            "solver, 0.01; of those that learned theirs, 0.05 (9 minutes); ours, 0.1 (9 minutes)",
        ),
        ({"ours": float("nan"), "solver": 0.2}, "solver, 0.2"),
    ],
)
def test_the_best_of_those_that_learned_is_named_beside_the_best(errors: dict[str, float], said: str) -> None:
    known = {"equation": "heat", "variable": "temperature", "observed": "grid", "share": 0.5}
    rows: list[Row] = [
        known | {"method": name, "t_in_l2": error, "training": "" if name == "solver" else "540 s on cpu"}
        for name, error in errors.items()
    ]
    assert sparse.best(rows).endswith(f"- heat, temperature, 50% (grid): {said}")


# --- split, horizon, efficiency, latents ---------------------------------------------------------


def test_the_parts_of_an_error_add_up(model: Forecaster, flow: xr.Dataset) -> None:
    (row,) = split.parts(model, flow)
    e, floor, decoding, encoding, dynamics, cross = (np.array(curve(row, n)) for n in (*split.PARTS, "cross"))
    assert np.allclose(e**2, floor**2 + dynamics**2 + cross, atol=1e-10)
    # What no latents can show is orthogonal to what they can.
    assert np.allclose(floor**2, decoding**2 + encoding**2, rtol=1e-3)
    assert dynamics[0] < 1e-5 and (decoding <= floor + 1e-9).all()
    forecast = model.forecast(flow.isel(time=0), [0.0, 1.0, 2.0, 3.0])
    assert e[1:].mean() == pytest.approx(number(errors_of(forecast, flow)[0], "t_in_l2"), rel=0.1)


def test_split_on_the_command_line(shared: Path, tmp_path: Path) -> None:
    asked = ["split", shared / "tiny", "--data", shared / "flow.nc", "--seeds", "0,1", "-o", tmp_path]
    assert typed(*asked) == 0
    assert (
        "| lead time | error | floor | decoding | encoding | dynamics |"
        in (tmp_path / "split.md").read_text()
    )


@dataclass(frozen=True)
class Growing:
    """The truth, times e^(t/10), until it bursts."""

    truth: xr.Dataset
    bursts: float = math.inf
    name: str = "growing"

    def forecast(
        self,
        state: xr.Dataset,
        lead_time: Sequence[float],
        grid: Mapping[str, int] | None = None,
        like: xr.Dataset | None = None,
    ) -> xr.Dataset:
        if max(lead_time) > self.bursts:
            raise DivergedError("it burst.", "Stop earlier.")
        known = self.truth.sel(time=list(lead_time)).rename(time="lead_time")
        return known.assign(vorticity=known.vorticity * np.exp(known.lead_time / 10))


def test_growth_beyond_the_horizon(flow: xr.Dataset) -> None:
    rows = horizon.rows_of(horizon.reached(Growing(flow), flow, 0.6), flow, 0.6)
    assert curve(rows[0], "rms_by_lead") == pytest.approx(np.exp(np.arange(4) / 10), rel=1e-5)
    assert number(rows[0], "l2_at_5x") == pytest.approx(math.exp(0.3) - 1, rel=1e-5)
    short = horizon.rows_of(horizon.reached(Growing(flow, 1.5), flow, 0.6), flow, 0.6)
    assert np.isfinite(curve(short[0], "l2_by_lead")).tolist() == [True, True, False, False]
    assert horizon.between(range(6), torch.tensor([0.0, 9, 1, 2, 3, 9]), 4.0) == pytest.approx(1.0)
    assert len(horizon.dense(make("navier-stokes", {"interval": 1.0}), 9.0, 1.0).times()) == 91
    assert len(horizon.dense(make("navier-stokes", {"interval": 1.0}), 9.0, 0.25).times()) == 361


def test_horizon_on_the_command_line(known: Path, tmp_path: Path) -> None:
    assert typed("horizon", known, "--samples", 1, "--seeds", 0, "-o", tmp_path / "out") == 0
    (row,) = read(tmp_path / "out" / "horizon.csv")
    assert curve(row, "lead_times")[-1] == 15 and len(curve(row, "lead_times")) == 31
    assert number(row, "between_over_frames") > 0


def test_numbers_of_trajectories() -> None:
    assert [efficiency.counts(n) for n in (3, 10, 16, 100)] == [[3], [4], [4, 16], [4, 16, 32, 64]]
    with pytest.raises(UsageError, match="smoke"):
        efficiency.check_name("smoek")


def test_efficiency_trains_once(
    shared: Path,
    tmp_path: Path,
    tiny: Preset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(PRESETS, "smoke", tiny)
    flow = shared / "flow.nc"
    asked = [
        "efficiency",
        "smoke",
        "--train",
        flow,
        "--data",
        flow,
        "--samples",
        1,
        "--seeds",
        0,
        "-o",
        tmp_path,
    ]
    assert typed(*asked) == 0
    (row,) = read(tmp_path / "efficiency.csv")
    assert (row["method"], row["trajectories"]) == ("smoke", 3) and number(row, "t_in_l2") > 0
    assert number(row, "training_seconds") > 0
    made = (tmp_path / "runs" / "smoke-3-seed0" / "model.safetensors").stat().st_mtime_ns
    assert typed(*asked) == 0
    assert (tmp_path / "runs" / "smoke-3-seed0" / "model.safetensors").stat().st_mtime_ns == made
    assert typed("efficiency", "smoke", "-o", tmp_path) == 2 and "--train" in capsys.readouterr().err


def test_ways_to_encode(shared: Path, tmp_path: Path) -> None:
    flow = shared / "flow.nc"
    assert (
        typed("latents", shared / "tiny", "--data", flow, "--samples", 1, "--seeds", 0, "-o", tmp_path) == 0
    )
    rows = {
        (row["encoder"], row["steps"], row["share"]): number(row, "mse")
        for row in read(tmp_path / "latents.csv")
    }
    assert rows["least squares", 1, 1] == min(error for key, error in rows.items() if key[2] == 1)
    assert rows["learned", 1, 0.05] < rows["least squares", 1, 0.05], "a prior helps where little is seen"
    descent = [rows["auto-decoding", k, 1] for k in (1, 3, 10, 40)]
    assert descent == sorted(descent, reverse=True)


# --- the page ------------------------------------------------------------------------------------


def test_the_report_says_what_tables_say(
    shared: Path, tmp_path: Path, model: Forecaster, flow: xr.Dataset
) -> None:
    folder = tmp_path / "results"
    asked = ["--data", shared / "flow.nc", "--samples", 1, "--seeds", 0, "-o", folder]
    assert typed("forecast", shared / "tiny", *asked) == 0
    (row,) = read(folder / "forecast.csv")
    usual: list[Row] = [
        {**row, "equation": "navier-stokes", "seed": seed, "paper_t_in": paper}
        for seed, paper in ((0, 1.5e-5), (1, 1.7e-5))
    ]
    write([row, *usual], folder / "forecast.csv")
    model.forecast(flow.isel(time=0), [0.0, 1.0, 3.0]).to_netcdf(tmp_path / "forecast.nc", engine="h5netcdf")
    views = ["--view", tmp_path / "forecast.nc", shared / "flow.nc"]
    for drawn in folder.glob("*.png"):
        drawn.unlink()
    assert typed("report", folder, *views, "-o", tmp_path) == 0
    text, shown = (tmp_path / "README.md").read_text(), (tmp_path / "report.html").read_text()
    for known in (
        f"{number(row, 't_in_l2'):.3g}",
        str(row["commit"]),
        str(row["device"]),
        "seed 0",
        "seed 0, 1",
    ):
        assert known in text and known in shown
    line = next(line for line in text.splitlines() if line.startswith("| 100% of the state, t_in |"))
    assert line.endswith("| 0.0111 | 8.44e-05 | 3.15e-05 | 0.00157 | 1.60e-05 ± 1e-06 |")
    assert text.count("Published figures:") == 1, "figures of one equation stand beside no other"
    assert "](results/forecast_navier-stokes-spin_up-1_vorticity.png)" in text
    assert not re.search(r"https?:|@import|url\(|<link|fetch\(|XMLHttp|(src|href)=\"(?!data:)", shown)
    assert shown.count("data:image/png;base64,") == 2, "drawn anew: one of the run, one of the other rows"


def test_the_viewer_holds_the_fields(
    shared: Path, tmp_path: Path, model: Forecaster, flow: xr.Dataset
) -> None:
    forecast = model.forecast(flow.isel(time=0), [0.0, 1.0, 3.0])
    upside_down = flow.isel(y=slice(None, None, -1))
    packed = re.search(
        r"<script type=\"application/json\">(.*)</script>", viewer(forecast, upside_down, "a < b")
    )
    assert packed is not None
    data = json.loads(packed[1])
    (field,) = data["variables"]
    low, high = field["range"]
    raw = np.frombuffer(base64.b64decode(field["truth"]), "<u2").reshape(3, 32, 32)
    assert np.allclose(
        low + (high - low) * raw / 65535, flow.vorticity.values[0, [0, 1, 3]], atol=(high - low) / 65535
    )
    assert data["leads"] == [0, 1, 3] and len(field["errors"]) == 3 and len(field["colours"]) == 6 * 256


def test_the_latest_rows_of_a_method() -> None:
    rows: list[Row] = [
        {"method": "a", "identity": i, "samples": 8, "x": x} for i, x in (("old", 1), ("new", 2), ("new", 3))
    ]
    assert [row["x"] for row in latest(rows)] == [2, 3]


def test_one_method_in_two_folders_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing tells which of two measurements holds, and their mean is none."""
    for i, name in enumerate(("a", "b")):
        write([{"method": "m", "identity": i, "samples": 8, "t_in_l2": i}], tmp_path / name / "forecast.csv")
    assert typed("report", tmp_path, "-o", tmp_path / "page") == 2
    assert "expected one measurement of m" in capsys.readouterr().err and not (tmp_path / "page").exists()


def test_the_report_replaces_no_page_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known: Row = {"equation": "-", "variable": "u", "method": "m", "samples": 8, "t_in_l2": 0.5}
    write([known], tmp_path / "bench" / "forecast.csv")
    monkeypatch.chdir(tmp_path)
    assert typed("report") == 0 and typed("report") == 0
    (tmp_path / "README.md").write_text("# Mine")
    assert typed("report", "bench", "-o", ".") == 2
    assert "did not make" in capsys.readouterr().err and (tmp_path / "README.md").read_text() == "# Mine"


def test_published_figures_are_those_of_the_paper() -> None:
    rows = published_figures()
    assert {row["source"] for row in rows} == {"arXiv 2406.06660"} and len(rows) == 29
    (found,) = [
        r for r in rows if r["equation"] == "navier-stokes" and r["share"] == 0.05 and r["method"] == "ENF"
    ]
    assert found["mse"] == 3.44e-2


def test_markdown_as_html(tmp_path: Path) -> None:
    made = html("# A & B\n\n| a | b |\n|---|---|\n| `x` | <2> |\n\n- one\n- two\n\nwords\nmore", tmp_path)
    assert made[0] == "<h1>A &amp; B</h1>" and "<td><code>x</code></td><td>&lt;2&gt;</td>" in made[1]
    assert made[2] == "<ul><li>one</li><li>two</li></ul>" and made[3] == "<p>words<br>more</p>"


def test_slips_of_the_pen(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("forcast", shared / "tiny") == 2
    assert "Type `pdeforecast bench forecast" in capsys.readouterr().err
    assert typed("forecast") == 2 and "none came" in capsys.readouterr().err
    assert typed("report", tmp_path) == 2 and "expected tables" in capsys.readouterr().err
    assert typed("forecast", shared / "tiny", shared / "tiny", "--data", shared / "flow.nc") == 2
    assert typed("forecast", shared / "tiny", "-o", tmp_path) == 2 and "--data" in capsys.readouterr().err


def test_methods_keep_their_promise(model: Forecaster, flow: xr.Dataset) -> None:
    method: Method = Model("tiny", model)
    found = method.forecast(state_of(flow), [0.0, 1.0], like=flow)
    assert found.identical(model.forecast(state_of(flow), [0.0, 1.0], like=flow))


def test_equivariance_as_a_table(shared: Path, tmp_path: Path) -> None:
    asked = ["--data", shared / "flow.nc", "--samples", 1, "--seeds", "0,1", "-o", tmp_path]
    assert typed("equivariance", shared / "tiny", *asked) == 0
    rows = read(tmp_path / "equivariance.csv")
    assert curve(rows[0], "lead_times") == (0, 1, 3) and len(rows) == 2
    text = (tmp_path / "equivariance.md").read_text()
    for part in ("whole pipeline", "from the latents"):
        assert f"| tiny | vorticity | {part} |" in text


def test_a_contestant_of_a_finer_grid_is_given_the_finer_state() -> None:
    truth = rough(0)
    coarse = make("navier-stokes", {"resolution": 16, "frames": 3})
    told = Known(Oracle(truth, 1.0), {"data": {"parameters": json.dumps({"resolution": 64, "step": 0.1})}})
    own = superres.trained_on(told, coarse)
    assert own == replace(coarse, resolution=64) and superres.trained_on(Oracle(truth, 1.0), coarse) == coarse
    rows = superres.Comparison(told, coarse, own, truth, 0).rows()
    assert {row["given"] for row in rows} == {"64×64"} and {row["grid"] for row in rows} >= {"8×8", "32×32"}
    assert {row["way"] for row in rows if row["grid"] != "random places"} == {superres.DIRECT}
    fine = next(row for row in rows if row["grid"] == "64×64")
    assert number(fine, "below") < 1e-9 and number(fine, "nyquist") == 8
    keyed = [{**row, "method": "fine", "equation": "-"} for row in rows]
    assert superres.verdicts(keyed) == [
        "fine, -, vorticity: was given 64×64 points; what it shows there is no super-resolution"
    ]


@dataclass(frozen=True)
class Known:
    """A method with a card."""

    method: Method
    card: Mapping[str, object]
    name: str = "known"

    def forecast(self, *asked: object, **named: object) -> xr.Dataset:
        return self.method.forecast(*asked, **named)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["--state x.nc", "--motions 2", "--lead-time 0,1"])
@pytest.mark.parametrize("suite", ["equivariance", "forecast"])
def test_what_a_table_would_pass_over_is_refused(
    suite: str, option: str, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(suite, shared / "tiny", "-o", tmp_path / "out", *option.split()) == 2
    assert option.split()[0] in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_truth_that_is_not_there_is_refused(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("forecast", shared / "tiny", "--data", tmp_path / "flwo.nc", "-o", tmp_path / "out") == 2
    assert "flwo.nc is not there" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_truth_of_another_equation_is_refused(
    known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trajectories(make("diffusion-plane", SMALL["diffusion-plane"]), tmp_path / "heat.nc", 1)
    asked = ["forecast", known, "--data", tmp_path / "heat.nc", "-o", tmp_path / "out"]
    assert typed(*asked) == 2 and not (tmp_path / "out").exists()
    assert "navier-stokes (known), diffusion-plane (the truth)" in capsys.readouterr().err


def test_what_a_budget_left_is_told(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["forecast", shared / "tiny", "--data", shared / "flow.nc", "--samples", 1, "-o", tmp_path]
    assert typed(*asked, "--seeds", "0") == 0
    assert typed(*asked, "--seeds", "0,1", "--budget", "0.000001s") == 0
    assert "left 1 of 2 cases" in capsys.readouterr().out
    assert typed(*asked, "--seeds", "0,1") == 0 and "The budget left" not in capsys.readouterr().out
