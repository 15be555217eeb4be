"""Spectra: they sum to the variance, pure waves have one scale, and without waves there are none."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from pdeforecast import plot
from pdeforecast.geometry import GEOMETRIES, Geometry
from pdeforecast.plot.nodes import nodes_of
from pdeforecast.plot.scene import Scene, scene_of
from pdeforecast.plot.spectra import Spectra, spectra
from pdeforecast.solvers.jacobi import gauss_legendre
from pdeforecast.solvers.sphere import Sphere, gauss_axes
from pdeforecast.trajectory import to_dataset

Pairs = Callable[..., tuple[xr.Dataset, xr.Dataset]]


def found(scene: Scene, trained_on: dict[str, int] | None = None) -> Spectra | None:
    return spectra(scene, nodes_of(scene.places, scene.geometry), 1, trained_on)


def harmonics(coefficients: torch.Tensor, latitudes: int) -> Scene:
    axes = gauss_axes(latitudes)
    field = Sphere(axes).synthesis(coefficients).expand(1, 2, -1, -1)[..., None]
    return scene_of(to_dataset(field, GEOMETRIES["sphere"], {"u": "K"}, axes, [0.0, 1.0]))


def test_on_the_torus_powers_sum_to_the_variance(pair: Pairs) -> None:
    scene = scene_of(*pair(GEOMETRIES["periodic_plane"], 12))
    made = found(scene)
    assert made is not None and made.nyquist is None and made.unit == "waves per period"
    for name, power in made.powers.items():
        np.testing.assert_allclose(power.sum(-1), scene.fields[name][:, 1].var(-1), rtol=1e-10)


def test_on_the_sphere_powers_sum_to_the_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    coefficients = torch.randn(12, 12, 2, generator=generator, dtype=torch.float64)
    coefficients[:, 0, 1] = 0
    scene = harmonics(torch.view_as_complex(coefficients).tril(), 12)
    made = found(scene)
    assert made is not None and made.name == "degree"
    weights = np.repeat(gauss_legendre(12)[1].numpy(), 24)
    field = scene.fields["forecast"][0, 1]
    mean = np.average(field, weights=weights)
    variance = np.average((field - mean) ** 2, weights=weights)
    np.testing.assert_allclose(made.powers["forecast"].sum(-1), variance, rtol=1e-10)


@pytest.mark.parametrize(("degree", "order"), [(1, 0), (3, 2), (7, 7)])
def test_a_harmonic_has_one_degree(degree: int, order: int) -> None:
    coefficients = torch.zeros(10, 10, dtype=torch.complex128)
    coefficients[degree, order] = 1.0
    made = found(harmonics(coefficients, 10))
    assert made is not None
    power = made.powers["forecast"][0]
    assert made.scales[power.argmax()] == degree and power.sum() == pytest.approx(power.max())


def test_the_training_nyquist_is_drawn_where_it_is_known(pair: Pairs) -> None:
    torus, sphere = (pair(GEOMETRIES[name], 12) for name in ("periodic_plane", "sphere"))
    for (forecast, truth), grid, nyquist in (
        (torus, {"y": 8, "x": 10}, 4.0),
        (sphere, {"latitude": 6, "longitude": 12}, 6.0),
    ):
        figure = plot.forecast(forecast, truth, lead_times=[0.5], trained_on=grid)
        lines = {line.get_label(): line for line in figure.axes[-1].lines}
        assert set(lines["training Nyquist"].get_xdata()) == {nyquist}
        assert {"truth", "forecast", "error"} < set(lines)
        drawn = plot.forecast(forecast, truth, lead_times=[0.5]).axes[-1].lines
        assert "training Nyquist" not in {line.get_label() for line in drawn}


def test_without_waves_there_is_no_spectrum(space: Geometry, pair: Pairs, loose: Callable) -> None:
    forecast, truth = pair(space)
    waves = space.name in ("periodic_plane", "sphere", "rotating_sphere")
    assert (found(scene_of(forecast, truth)) is not None) == waves
    scene = scene_of(forecast, truth)
    gaps = scene.fields["truth"].copy()
    gaps[0, 1, 3] = np.nan
    assert found(replace(scene, fields={**scene.fields, "truth": gaps})) is None
    assert found(scene_of(loose(forecast))) is None
    if waves and len(space.coordinates) == 2:
        name = space.coordinates[0]
        assert found(scene_of(forecast.isel({name: slice(None, -2)}))) is None
