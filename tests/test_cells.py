"""Means over cells: their inverse, and what files and forecasts say of them."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import pdeforecast as pf
from pdeforecast.bench import split
from pdeforecast.bench.table import curve
from pdeforecast.cells import MEAN, holds_means, means, offsets, shrinks, undone, widths
from pdeforecast.cli import main
from pdeforecast.generation import assemble, generate
from pdeforecast.generation.refinement import CELLS, equation_of_means, refined, refined_dataset
from pdeforecast.pdes.shallow_water import ShallowWater
from pdeforecast.trajectory import save_dataset

TINY = ShallowWater(resolution=48, coarsen=2, viscosity=5e16, frames=7, interval=5.0, start=100.0, step=1.25)


def smooth(latitudes: int, highest: int, seed: int) -> torch.Tensor:
    """Random harmonics of degree ≤ `highest`, as polynomials of the place, at the centres of equal cells."""
    draw = torch.Generator().manual_seed(seed)
    latitude = ((torch.arange(latitudes).double() + 0.5) / latitudes - 0.5) * math.pi
    longitude = (torch.arange(2 * latitudes).double() + 0.5) * math.pi / latitudes
    place = torch.stack(
        [
            latitude.cos()[:, None] * longitude.cos(),
            latitude.cos()[:, None] * longitude.sin(),
            latitude.sin()[:, None].expand(-1, 2 * latitudes),
        ]
    )
    powers = torch.randint(0, highest // 3 + 1, (6, 3), generator=draw)
    return sum((place ** p[:, None, None]).prod(0) for p in powers)


@pytest.mark.parametrize("cells", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_what_means_made_of_a_smooth_field_is_undone(cells: int, seed: int) -> None:
    fine = smooth(12 * cells, 9, seed)
    coarse = means(fine, cells)
    assert float((undone(coarse, cells) - fine).abs().max()) < 1e-10
    rough = torch.randn(12, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    again = means(undone(rough, cells), cells)
    torch.testing.assert_close(undone(again, cells), undone(rough, cells), rtol=0, atol=1e-10)


@pytest.mark.parametrize("cells", [2, 3, 4])
def test_a_wave_shrinks_by_the_closed_form(cells: int) -> None:
    n, k = 24, torch.arange(1, 12).double()
    found = shrinks(k, 2 * math.pi / n, cells)
    closed = (math.pi * k / n).sin() / (cells * (math.pi * k / (cells * n)).sin())
    torch.testing.assert_close(found, closed, rtol=0, atol=1e-12)
    assert abs(float(offsets(cells).sum())) < 1e-12


def test_cells_have_the_widths_of_their_axis() -> None:
    axis = torch.tensor([80.0, 70.0, 60.0])
    assert widths(axis, 1.0).tolist() == [-10.0, -10.0, -10.0] and widths(axis[:1], 7.0).tolist() == [7.0]


@pytest.mark.parametrize(
    ("said", "are"),
    [
        (MEAN, True),
        ("time: point area: mean", True),
        ("latitude: longitude: mean (interval: 1 hour)", True),
        ("time: mean", False),
        ("area: maximum", False),
        ("", False),
    ],
)
def test_cell_methods_tell_means_from_values(said: str, are: bool) -> None:
    ds = xr.Dataset({"height": ("x", [1.0], {"cell_methods": said})})
    assert holds_means(ds, ["height", "vorticity"]) is are


@pytest.fixture(scope="module")
def flows() -> tuple[xr.Dataset, xr.Dataset]:
    """Means over cells, and the same flows between them."""
    fine = replace(TINY, coarsen=1)
    return tuple(assemble(pde, list(generate(pde, 2)), 0, "train") for pde in (TINY, fine))


def test_generated_means_say_what_they_are(flows: tuple[xr.Dataset, xr.Dataset]) -> None:
    coarse, fine = flows
    assert holds_means(coarse, TINY.variables) and not holds_means(fine, TINY.variables)
    for name in TINY.variables:
        own = means(torch.from_numpy(fine[name].values).double(), 2)
        torch.testing.assert_close(
            torch.from_numpy(coarse[name].values).double(), own, rtol=1e-5, atol=float(1e-6 * own.abs().max())
        )


def test_a_series_of_means_tells_what_lies_between(flows: tuple[xr.Dataset, xr.Dataset]) -> None:
    """Frame by frame the refined flow comes nearer to the true one, beyond what a frame by itself tells."""
    coarse, fine = flows
    pde = equation_of_means(coarse)
    assert pde == TINY
    found = refined_dataset(coarse, pde, [frames for frames, _ in refined(coarse, pde, 1)])
    assert found.attrs[CELLS] == 2 and found.vorticity.shape == fine.vorticity.shape
    np.testing.assert_array_equal(found.latitude, fine.latitude)
    ((alone, _),) = refined(coarse.isel(sample=1, drop=True), pde, 1)
    np.testing.assert_array_equal(alone[..., 1], found.vorticity.values[1])

    def error(field: np.ndarray) -> np.ndarray:
        gap = ((field - fine.vorticity.values) ** 2).mean((0, 2, 3))
        return np.sqrt(gap / (fine.vorticity.values**2).mean((0, 2, 3)))

    alone = error(undone(torch.from_numpy(coarse.vorticity.values).double(), 2).numpy())
    series = error(found.vorticity.values)
    assert series[0] == pytest.approx(alone[0], rel=1e-3)
    assert series[-1] < 0.2 * alone[-1] and bool((np.diff(series) < 0).all())


def test_between_frames_lies_the_solution_from_the_frame_before(
    flows: tuple[xr.Dataset, xr.Dataset],
) -> None:
    """At the end of an interval it is the next frame, but for what that was told; half-way it is nearer. It
    goes on after the last frame."""
    coarse, _ = flows
    places = (0.5,)
    ((path, between),) = refined(coarse.isel(sample=0, drop=True), TINY, 1, places)
    assert len(between) == 2 * len(path)
    half, end = (torch.from_numpy(between[i::2]).double().movedim(-1, 1) for i in (0, 1))
    frames = torch.from_numpy(path).double().movedim(-1, 1)
    seen = torch.stack([torch.from_numpy(coarse[name].values[0]).double() for name in TINY.variables], dim=1)
    expected = end[:-1] + undone(seen[1:] - means(end[:-1], 2), 2)
    for v in range(3):
        torch.testing.assert_close(
            frames[1:, v], expected[:, v], rtol=0, atol=1e-5 * float(expected[:, v].abs().max())
        )
    ds = refined_dataset(coarse.isel(sample=[0]), TINY, [between], places)
    assert ds.sizes["time"] == len(between) and float(ds.time[0]) == pytest.approx(
        0.5 * float(coarse.time[0] + coarse.time[1])
    )
    assert float(ds.time[-1] - coarse.time[-1]) == pytest.approx(TINY.interval)
    begun, halfway, followed = frames[1:, 1], half[1:, 1], end[1:, 1]
    assert bool((halfway - begun).square().mean() < (followed - begun).square().mean())


@pytest.mark.parametrize("spoilt", ["equation", "parameters", "latitude", "gap", "values at nodes"])
def test_what_its_equation_did_not_make_is_not_refined(
    flows: tuple[xr.Dataset, xr.Dataset], spoilt: str
) -> None:
    coarse, fine = (ds.copy(deep=True) for ds in flows)
    if spoilt == "equation":
        coarse.attrs["equation"] = "weather"
    elif spoilt == "parameters":
        coarse.attrs["parameters"] = "{"
    elif spoilt == "latitude":
        coarse = coarse.isel(latitude=slice(1, None))
    elif spoilt == "gap":
        coarse.height.values[0, 1, 2, 3] = np.nan
    else:
        coarse = fine
    assert equation_of_means(coarse) is None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pf.Forecaster:
    """Trained on means over cells by the command that trains such a model."""
    folder = tmp_path_factory.mktemp("cells")
    data = assemble(TINY, list(generate(TINY, 3)), 0, "train")
    save_dataset(data, folder / "train.nc")
    typed = ["train", str(folder / "train.nc"), "-o", str(folder / "run"), "--preset", "memory"]
    typed += ["--set", "field.latents=96", "--set", "dynamics.modes=200"]
    assert main([*typed, "--set", "dynamics.cells=3"]) == 2
    assert main(typed) == 0
    assert not list((folder / "run").glob("*.nc"))
    return pf.load(folder / "run")


def test_what_lies_between_frames_is_learned_unless_it_is_not_asked_for(
    model: pf.Forecaster, flows: tuple[xr.Dataset, xr.Dataset], tmp_path: Path
) -> None:
    assert bool(model.dynamics.between.extent.any())
    # The one after the last of the data, too, that the last interval lie between frames.
    assert (model.dynamics.trajectories, model.dynamics.frames) == (3, TINY.frames + 1)
    save_dataset(flows[0], tmp_path / "train.nc")
    typed = ["train", str(tmp_path / "train.nc"), "-o", str(tmp_path / "run"), "--preset", "memory"]
    typed += ["--set", "field.latents=96", "--set", "dynamics.modes=200", "--set", "dynamics.between=false"]
    assert main(typed) == 0
    assert pf.load(tmp_path / "run").dynamics.between is None
    assert not list((tmp_path / "run").glob("*.nc"))


def test_a_forecast_of_means_is_means_and_elsewhere_values(
    model: pf.Forecaster, flows: tuple[xr.Dataset, xr.Dataset]
) -> None:
    """A grid of cells in, means over them out; asked for other places, values; at every lead of one flow."""
    coarse, fine = flows
    state, leads = coarse.isel(time=0), [0.0, 5.0, 15.0]
    own = model.forecast(state, leads)
    between = model.forecast(state, leads, grid={"latitude": 48, "longitude": 96})
    for name in TINY.variables:
        assert own[name].attrs["cell_methods"] == MEAN and "cell_methods" not in between[name].attrs
        of_values = means(torch.from_numpy(between[name].values).double(), 2)
        size = float(abs(own[name]).max())
        assert float((torch.from_numpy(own[name].values) - of_values).abs().max()) < 1e-4 * size
    like = model.forecast(state, leads, like=coarse.isel(sample=0, time=0))
    np.testing.assert_allclose(like.height, own.height, rtol=0, atol=1e-4 * float(abs(own.height).max()))

    def error(found: xr.DataArray, truth: xr.DataArray) -> float:
        gap = found.isel(lead_time=2).values - truth.isel(time=3).values
        return float(np.sqrt((gap**2).mean() / (truth.isel(time=3).values ** 2).mean()))

    values = undone(torch.from_numpy(own.vorticity.values).double(), 2).numpy()
    interpolated = error(between.vorticity.copy(data=values), fine.vorticity)
    assert error(between.vorticity, fine.vorticity) < interpolated


def test_values_at_nodes_are_not_taken_for_means(
    model: pf.Forecaster, flows: tuple[xr.Dataset, xr.Dataset]
) -> None:
    """The reconstruction gives back what was given, of either kind."""
    coarse, fine = flows
    nodes = fine.isel(time=0, latitude=slice(0, None, 2), longitude=slice(0, None, 2))
    for state in (coarse.isel(time=0), nodes):
        found = model.forecast(state, [0.0]).isel(lead_time=0)
        gap, size = float(abs(found.vorticity - state.vorticity).max()), float(abs(state.vorticity).max())
        assert gap < 0.05 * size
        assert ("cell_methods" in found.vorticity.attrs) == ("cell_methods" in state.vorticity.attrs)


def test_the_split_of_a_model_of_means_is_that_of_means(
    model: pf.Forecaster, flows: tuple[xr.Dataset, xr.Dataset]
) -> None:
    """The error of the split is that of the forecast; encoding and decoding leave little of it."""
    coarse, _ = flows
    rows = split.parts(model, coarse)
    found = model.forecast(coarse.isel(time=0), list(coarse.time.values - coarse.time.values[0]), like=coarse)
    weights = np.cos(np.deg2rad(coarse.latitude.values))[:, None]
    for row in rows:
        name = str(row["variable"])
        gap, size = found[name].values - coarse[name].values, coarse[name].values
        expected = np.sqrt((weights * gap**2).sum((0, 2, 3)) / (weights * size**2).sum((0, 2, 3)))
        np.testing.assert_allclose(curve(row, "error"), expected, rtol=0.02, atol=1e-4)
