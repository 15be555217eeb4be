"""Spectral calculus on the sphere is exact for the harmonics that a grid can hold."""

import math

import pytest
import torch
from torch import Tensor

from pdeforecast.errors import DataError
from pdeforecast.solvers.jacobi import gauss_legendre, legendre_functions
from pdeforecast.solvers.sphere import Sphere, gauss_axes, regular_axes, resize

N = 16
TURNED = {**regular_axes(N), "longitude": regular_axes(N)["longitude"] - 33.3}
MANY_LONGITUDES = gauss_axes(N, 45)
GRIDS = {"Gauss": gauss_axes(N), "cells": regular_axes(N), "turned": TURNED, "45 longitudes": MANY_LONGITUDES}
EVERY_GRID = pytest.mark.parametrize("axes", GRIDS.values(), ids=GRIDS)


def random_coefficients(degrees: int, *batch: int, seed: int = 0) -> Tensor:
    """Coefficients of real fields: none with l < m, real ones at m = 0."""
    generator = torch.Generator().manual_seed(seed)
    c = torch.randn(*batch, degrees, degrees, dtype=torch.complex128, generator=generator).tril()
    c[..., 0] = c[..., 0].real.to(c.dtype)
    return c


def without_mean(c: Tensor) -> Tensor:
    c = c.clone()
    c[..., 0, :] = 0
    return c


def close(found: Tensor, expected: Tensor, size: float = 1.0) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * size)


def cartesian(axes: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    phi, east = axes["latitude"].deg2rad()[:, None], axes["longitude"].deg2rad()
    return phi.cos() * east.cos(), phi.cos() * east.sin(), phi.sin() + 0 * east


def tangent(axes: dict[str, Tensor], vector: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The eastward and northward components of a Cartesian vector field."""
    phi, east = axes["latitude"].deg2rad()[:, None], axes["longitude"].deg2rad()
    x, y, z = vector
    out = x * east.cos() + y * east.sin()
    return y * east.cos() - x * east.sin(), z * phi.cos() - out * phi.sin()


# --- transforms ----------------------------------------------------------------------------------


@EVERY_GRID
def test_a_grid_of_n_latitudes_holds_n_degrees(axes: dict[str, Tensor]) -> None:
    sphere, c = Sphere(axes), random_coefficients(N, 2, 3)
    assert sphere.degrees == N
    close(sphere.analysis(sphere.synthesis(c)), c)


@EVERY_GRID
def test_so_it_does_of_winds(axes: dict[str, Tensor]) -> None:
    sphere = Sphere(axes, radius=3.0)
    vorticity, divergence = without_mean(random_coefficients(N, 2, 2)).unbind(1)
    found = sphere.curl_and_divergence(*sphere.winds(vorticity, divergence))
    close(found[0], vorticity, 10)
    close(found[1], divergence, 10)


@pytest.mark.parametrize("n", [48, 96])
def test_so_it_does_at_the_sizes_that_are_used(n: int) -> None:
    sphere, c = Sphere(regular_axes(n)), random_coefficients(n)
    close(sphere.analysis(sphere.synthesis(c)), c)


@EVERY_GRID
def test_polynomials_have_their_values_on_any_grid(axes: dict[str, Tensor]) -> None:
    def polynomial(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return 1 + x - 2 * y * z + x**3 * z - 0.3 * y * (x * x - z) ** 2

    c = Sphere(axes).analysis(polynomial(*cartesian(axes)))
    other = {**gauss_axes(9), "longitude": gauss_axes(9)["longitude"] + 11.0}
    close(Sphere(other).synthesis(resize(c, 9)), polynomial(*cartesian(other)), 10)


def test_poles_are_nodes_too() -> None:
    """N + 1 latitudes from pole to pole hold N degrees."""
    axes = {**regular_axes(N), "latitude": torch.linspace(-90, 90, N + 1, dtype=torch.float64)}
    sphere = Sphere(axes)
    c = without_mean(random_coefficients(N, 2))
    assert sphere.degrees == N
    close(sphere.analysis(sphere.synthesis(c)), c)
    close(sphere.curl_and_divergence(*sphere.winds(c[0], c[1]))[1], c[1], 10)


def test_few_longitudes_hold_few_orders() -> None:
    assert Sphere(gauss_axes(N, 20)).degrees == 10
    assert Sphere(gauss_axes(N), 7).degrees == 7


def test_nodes_that_say_too_little_are_refused() -> None:
    axes = regular_axes(N)
    with pytest.raises(DataError, match="expected latitudes"):
        Sphere({**axes, "latitude": 0.1 * axes["latitude"]})
    with pytest.raises(DataError, match="divide the circle"):
        Sphere({**axes, "longitude": 0.5 * axes["longitude"]})


def test_parseval() -> None:
    """∮ f² = 2π Σ |c|², orders m > 0 counted twice."""
    axes, weights = gauss_axes(N), gauss_legendre(N)[1][:, None]
    c = random_coefficients(N)
    field = Sphere(axes).synthesis(c)
    power = 2 * c.abs().square().sum() - c[:, 0].abs().square().sum()
    assert float((weights * field**2).sum() * math.pi / N) == pytest.approx(2 * math.pi * float(power))


def test_products_are_projected_exactly_on_half_as_many_more_points() -> None:
    a, b = random_coefficients(N, 2)
    found, true = (
        resize(sphere.analysis(sphere.synthesis(a) * sphere.synthesis(b)), N)
        for sphere in (Sphere(gauss_axes(size), N) for size in (3 * N // 2, 4 * N))
    )
    close(found, true, 10)


def test_smooth_functions_converge_exponentially() -> None:
    def f(axes: dict[str, Tensor]) -> Tensor:
        x, y, z = cartesian(axes)
        return torch.exp(x - 2 * y * z)

    errors = []
    for n in (8, 12, 16, 24):
        axes = regular_axes(n)
        c = resize(Sphere(axes).analysis(f(axes)), 30)
        shown = Sphere(gauss_axes(30)).synthesis(c)
        errors.append(float((shown - f(gauss_axes(30))).abs().max()))
    assert errors[1] < errors[0] / 20 and errors[2] < errors[1] / 20 and errors[3] < 1e-8


def test_a_field_turns_with_its_grid() -> None:
    shifted = {**gauss_axes(N), "longitude": gauss_axes(N)["longitude"] + 3 * 360 / (2 * N)}
    c = random_coefficients(N)
    close(Sphere(shifted).synthesis(c), Sphere(gauss_axes(N)).synthesis(c).roll(-3, -1), 10)


# --- operators -----------------------------------------------------------------------------------


@EVERY_GRID
@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_the_laplacian_of_harmonics(axes: dict[str, Tensor], radius: float) -> None:
    sphere = Sphere(axes, radius=radius)
    x, y, z = cartesian(axes)
    harmonics = {1: x - 2 * z, 2: x * y + 3 * y * z, 3: x * y * z, 4: (x * x - y * y) * (7 * z * z - 1)}
    for ell, f in harmonics.items():
        c = sphere.analysis(f)
        close(sphere.synthesis(sphere.laplacian(c)), -ell * (ell + 1) / radius**2 * f, 100)
        close(sphere.synthesis(sphere.inverse_laplacian(c)), -(radius**2) / (ell * (ell + 1)) * f, 10)


@EVERY_GRID
def test_the_gradient_of_a_polynomial(axes: dict[str, Tensor]) -> None:
    """∇(x y z) and ∇(x² z), by hand."""
    sphere = Sphere(axes, radius=2.0)
    x, y, z = cartesian(axes)
    gradients = {"xyz": (x * y * z, (y * z, x * z, x * y)), "x²z": (x * x * z, (2 * x * z, 0 * x, x * x))}
    for f, vector in gradients.values():
        for found, expected in zip(sphere.gradient(sphere.analysis(f)), tangent(axes, vector), strict=True):
            close(found, expected / 2)


@EVERY_GRID
def test_rigid_rotation_about_any_axis(axes: dict[str, Tensor]) -> None:
    """u = Ω × x has ζ = 2 Ω·x/R and no divergence."""
    sphere = Sphere(axes, radius=2.0)
    x, y, z = cartesian(axes)
    spin = (0.3, -1.0, 0.5)
    velocity = (spin[1] * z - spin[2] * y, spin[2] * x - spin[0] * z, spin[0] * y - spin[1] * x)
    u, v = tangent(axes, velocity)
    vorticity, divergence = sphere.curl_and_divergence(u, v)
    close(sphere.synthesis(vorticity), spin[0] * x + spin[1] * y + spin[2] * z, 10)
    close(divergence, torch.zeros_like(divergence))
    for found, expected in zip(sphere.winds(vorticity, divergence), (u, v), strict=True):
        close(found, expected)


def test_winds_are_those_of_stream_function_and_potential() -> None:
    axes = gauss_axes(N)
    sphere = Sphere(axes, radius=1.7)
    psi, chi = random_coefficients(N, 2)
    u, v = sphere.winds(sphere.laplacian(psi), sphere.laplacian(chi))
    (psi_x, psi_y), (chi_x, chi_y) = sphere.gradient(psi), sphere.gradient(chi)
    close(u, chi_x - psi_y, 100)
    close(v, chi_y + psi_x, 100)


def test_the_mean() -> None:
    axes = regular_axes(N)
    x, y, z = cartesian(axes)
    sphere = Sphere(axes)
    found = sphere.mean(sphere.analysis(torch.stack([2 + x, z * z, x * x * y * y])))
    close(found, torch.tensor([2, 1 / 3, 1 / 15], dtype=torch.float64))


def test_legendre_functions_at_the_poles() -> None:
    """Only P_l0, the slope of P_l1 and P_l1 / sin θ differ from zero there."""
    p, slope, order = legendre_functions(6, torch.tensor([-1.0, 1.0], dtype=torch.float64))
    ell = torch.arange(6, dtype=torch.float64)
    close(p[0, 1], (ell + 0.5).sqrt(), 10)
    close(slope[1, 1], 0.5 * ((ell + 0.5) * ell * (ell + 1)).sqrt(), 10)
    close(order[1, 1], slope[1, 1], 10)
    for functions, at in ((p, 0), (slope, 1), (order, 1)):
        assert not bool(functions[[m for m in range(6) if m != at]].any())
