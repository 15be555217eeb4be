"""Spectral calculus on the torus is exact for the waves that a grid can hold."""

import math

import pytest
import torch
from torch import Tensor

from pdeforecast.errors import DataError
from pdeforecast.solvers.torus import Torus, check_axes, resample, translate

SIZES = [8, 9, 16]


def random(n: int) -> Tensor:
    return torch.randn(2, n, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


def wave(n: int, ky: int, kx: int, shift: float = 0.0) -> Tensor:
    axis = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.sin(ky * axis[:, None] + kx * axis[None, :] + shift)


@pytest.mark.parametrize("n", SIZES)
def test_transform_inverts(n: int) -> None:
    torus = Torus(n)
    torch.testing.assert_close(torus.inverse(torus.transform(random(n))), random(n))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("ky", "kx"), [(1, 0), (0, 2), (-3, 1), (3, 3)])
def test_derivatives_of_a_wave(n: int, ky: int, kx: int) -> None:
    torus, f = Torus(n), wave(n, ky, kx, 0.3)
    slope = wave(n, ky, kx, 0.3 + math.pi / 2)
    for operator, k in ((torus.dx, kx), (torus.dy, ky)):
        found = torus.inverse(operator * torus.transform(f))
        torch.testing.assert_close(found, 2 * math.pi * k * slope, atol=1e-12, rtol=1e-12)
    found = torus.inverse(torus.laplacian * torus.transform(f))
    torch.testing.assert_close(found, -4 * math.pi**2 * (kx**2 + ky**2) * f, atol=1e-10, rtol=1e-12)


@pytest.mark.parametrize("n", SIZES)
def test_inverse_laplacian_inverts_all_but_the_mean(n: int) -> None:
    torus, f = Torus(n), random(n)
    found = torus.inverse(torus.laplacian * torus.inverse_laplacian * torus.transform(f))
    torch.testing.assert_close(found, f - f.mean((-2, -1), keepdim=True))


def test_the_derivative_of_the_nyquist_wave_is_zero() -> None:
    torus = Torus(8)
    f = wave(8, 0, 4, math.pi / 2)
    assert float(f.abs().min()) > 0.5
    assert not bool(torus.inverse(torus.dx * torus.transform(f)).any())


def test_a_dealiased_product_is_the_true_product() -> None:
    n = 18
    torus, coarse = Torus(n), random(11)
    f, fine = resample(coarse, n), resample(coarse, 3 * n)
    found = torus.alias_free(2) * torus.transform(f * f)
    true = torus.alias_free(2) * torus.transform(resample(fine * fine, n))
    torch.testing.assert_close(found, true, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("n", [16, 17, 24])
def test_refining_and_coarsening_returns(m: int, n: int) -> None:
    fine = resample(random(m), n)
    torch.testing.assert_close(resample(fine, m), random(m))
    assert fine.shape == (2, n, n)
    torch.testing.assert_close(fine.mean((-2, -1)), random(m).mean((-2, -1)))


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("n", SIZES)
def test_resampling_a_wave_samples_it(m: int, n: int) -> None:
    torch.testing.assert_close(resample(wave(m, 2, -3, 0.4), n), wave(n, 2, -3, 0.4))


@pytest.mark.parametrize("n", SIZES)
def test_a_shift_by_cells_is_a_roll(n: int) -> None:
    torch.testing.assert_close(translate(random(n), 3 / n, -2 / n), random(n).roll((3, -2), (-2, -1)))


@pytest.mark.parametrize(("rows", "columns"), [(8, 12), (9, 16)])
def test_rectangles(rows: int, columns: int) -> None:
    y = 2 * math.pi * torch.arange(rows, dtype=torch.float64)[:, None] / rows
    x = 2 * math.pi * torch.arange(columns, dtype=torch.float64) / columns
    torus, f = Torus(rows, columns), torch.sin(2 * y - 3 * x)
    slope = 2 * math.pi * torch.cos(2 * y - 3 * x)
    for operator, k in ((torus.dy, 2), (torus.dx, -3)):
        torch.testing.assert_close(torus.inverse(operator * torus.transform(f)), k * slope)
    torch.testing.assert_close(resample(resample(f, 24, 20), rows, columns), f)
    torch.testing.assert_close(resample(f, 18, columns)[::2], resample(f, 9, columns))


def test_a_dealiased_cube_is_the_true_cube() -> None:
    n = 24
    torus, coarse = Torus(n), random(11)
    f, fine = resample(coarse, n), resample(coarse, 4 * n)
    mask = torus.alias_free(3)
    found, true = (mask * torus.transform(cube) for cube in (f**3, resample(fine**3, n)))
    torch.testing.assert_close(found, true, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("nodes", [torch.linspace(0, 1, 8), torch.tensor([0.0]), torch.rand(8)])
def test_uneven_axes_are_refused(nodes: Tensor) -> None:
    check_axes({"x": torch.arange(8) / 8 + 0.3, "y": torch.arange(5) / 5})
    with pytest.raises(DataError):
        check_axes({"x": nodes})


def test_shifts_add_and_move_the_wave() -> None:
    f = wave(9, 2, 1)
    torch.testing.assert_close(translate(f, 0.21, 0.13), wave(9, 2, 1, -2 * math.pi * (2 * 0.21 + 0.13)))
    once, twice = translate(f, 0.5, 0.1), translate(translate(f, 0.2, 0.3), 0.3, -0.2)
    torch.testing.assert_close(once, twice)
