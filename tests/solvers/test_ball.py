"""Spectral calculus in the ball is exact for polynomials, and its modes are Bessel functions."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import sph_harm_y, spherical_jn
from torch import Tensor

from pdeforecast.errors import DataError
from pdeforecast.solvers.ball import Ball, BallGrid, RadialModes, Vector, cross, gauss_axes, resize
from pdeforecast.solvers.jacobi import (
    gauss_legendre,
    gauss_radii,
    legendre_functions,
    radial_functions,
    radial_sizes,
)

N = 10


def random_coefficients(modes: int, *batch: int, seed: int = 0) -> Tensor:
    """Coefficients of real fields: none with l < m or n ≥ N_l, real ones at m = 0."""
    generator = torch.Generator().manual_seed(seed)
    c = torch.randn(*batch, modes, modes, modes, dtype=torch.complex128, generator=generator)
    ell, m = torch.arange(modes)[:, None, None], torch.arange(modes)
    c = resize(c * (m <= ell), modes)
    c[..., 0] = c[..., 0].real.to(c.dtype)
    return c


def cartesian(axes: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    r, latitude, longitude = torch.meshgrid(*axes.values(), indexing="ij")
    across = r * latitude.deg2rad().cos()
    longitude = longitude.deg2rad()
    return across * longitude.cos(), across * longitude.sin(), r * latitude.deg2rad().sin()


def on_dealiased_grid(modes: int) -> tuple[dict[str, Tensor], Tensor]:
    """Its axes, in the order of increasing cos θ, and its weights."""
    size = -(-3 * modes // 2)
    weights = gauss_radii(size)[1][:, None, None] * gauss_legendre(size)[1][:, None] * math.pi / size
    return gauss_axes(size), weights.expand(-1, -1, 2 * size)


def dot(a: Vector, b: Vector) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


# --- functions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_gauss_rules_integrate_polynomials(count: int) -> None:
    x, weights = gauss_legendre(count)
    r, volumes = gauss_radii(count)
    power = 2 * count - 2
    assert float((weights * x**power).sum()) == pytest.approx(2 / (power + 1), rel=1e-12)
    assert float((volumes * r ** (2 * power)).sum()) == pytest.approx(1 / (2 * power + 3), rel=1e-12)
    assert float(r.min()) > 0 and float(r.max()) < 1


@pytest.mark.parametrize("modes", [1, 5, 40])
def test_radial_functions_are_orthonormal(modes: int) -> None:
    r, weights = gauss_radii(2 * modes)
    f = radial_functions(modes, modes, r)[0]
    exists = torch.arange(modes) < radial_sizes(modes, modes)[:, None]
    torch.testing.assert_close(
        f.mT @ (weights[:, None] * f), torch.diag_embed(exists.double()), atol=1e-12, rtol=0
    )


def test_radial_derivatives() -> None:
    r = torch.linspace(0.05, 1, 7, dtype=torch.float64, requires_grad=True)
    f, slope, laplacian = radial_functions(5, 6, r)
    for ell in range(5):
        for n in range(6 - ell // 2):
            (first,) = torch.autograd.grad(f[ell, :, n].sum(), r, create_graph=True)
            second = torch.autograd.grad(first.sum(), r, retain_graph=True, allow_unused=True)[0]
            found = second + 2 / r * first - ell * (ell + 1) / r**2 * f[ell, :, n]
            torch.testing.assert_close(first, slope[ell, :, n], atol=1e-10, rtol=1e-10)
            torch.testing.assert_close(found, laplacian[ell, :, n], atol=1e-8, rtol=1e-10)


def test_legendre_functions_are_those_of_scipy() -> None:
    x = torch.linspace(-0.98, 0.97, 9, dtype=torch.float64)
    found, slope, order = legendre_functions(12, x)
    theta = torch.acos(x).numpy()
    for m in range(12):
        for ell in range(12):
            y, gradient = sph_harm_y(ell, m, theta, 0.0, diff_n=1)
            scale = (-1) ** m * math.sqrt(2 * math.pi)
            for mine, his in ((found, y), (slope, gradient[..., 0]), (order, m * y / np.sin(theta))):
                expected = torch.tensor(his.real * scale)
                torch.testing.assert_close(mine[m, :, ell], expected, atol=1e-11, rtol=1e-11)


# --- grids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0.0, 3.7])
def test_a_grid_holds_its_modes(first: float) -> None:
    axes = gauss_axes(N)
    grid = BallGrid({**axes, "longitude": axes["longitude"] + first}, N)
    c = random_coefficients(N, 2)
    torch.testing.assert_close(grid.analysis(grid.synthesis(c)), c, atol=1e-12, rtol=0)


def test_polynomials_have_the_values_that_they_should() -> None:
    axes = gauss_axes(N)
    fine = {name: axis for name, axis in gauss_axes(7).items()}
    fine["longitude"] = fine["longitude"] + 11.0
    c = BallGrid(axes, N).analysis(polynomial(*cartesian(axes)))
    torch.testing.assert_close(BallGrid(fine, N).synthesis(c), polynomial(*cartesian(fine)))


def polynomial(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return 1 + x - 2 * y * z + x**3 * z - 0.3 * (x * x + y * y + z * z) ** 2 * y


@pytest.mark.parametrize("poles", [False, True])
def test_cell_centres_and_poles_are_nodes_too(poles: bool) -> None:
    i = torch.arange(16, dtype=torch.float64)
    latitude = -90 + 12 * i if poles else (i + 0.5) * 180 / 16 - 90
    axes = {
        "radius": (i + 0.5) / 16,
        "latitude": latitude,
        "longitude": 360 * torch.arange(32.0).double() / 32,
    }
    grid = BallGrid(axes, 40)
    field = polynomial(*cartesian(axes))
    torch.testing.assert_close(grid.synthesis(grid.analysis(field)), field, atol=1e-10, rtol=0)


def test_nodes_that_say_too_little_are_refused() -> None:
    axes = gauss_axes(12)
    with pytest.raises(DataError, match="nodes of radius"):
        BallGrid({**axes, "radius": 0.9 + 0.1 * axes["radius"]}, 12)
    with pytest.raises(DataError, match="nodes of latitude"):
        BallGrid({**axes, "latitude": 0.1 * axes["latitude"]}, 12)
    with pytest.raises(DataError, match="divide the circle"):
        BallGrid({**axes, "longitude": 0.5 * axes["longitude"]}, 12)


# --- modes ---------------------------------------------------------------------------------------


def wall(kind: str, ell: int, k: float) -> float:
    """What vanishes at the wall for a mode made of j_l(kr)."""
    j, dj = spherical_jn(ell, k), spherical_jn(ell, k, True)
    ddj = (ell * (ell + 1) / k**2 - 1) * j - 2 / k * dj
    return {"scalar": dj, "poloidal": k**2 * ddj - ell * (ell - 1) * j, "toroidal": k * dj - j}[kind]


@pytest.mark.parametrize(("index", "kind"), list(enumerate(["scalar", "poloidal", "toroidal"])))
@pytest.mark.parametrize("ell", [1, 2, 5])
def test_modes_are_bessel_functions(index: int, kind: str, ell: int) -> None:
    """Scalars j_l with ∂r = 0; toroidal, with ∂r(t/r) = 0; poloidal j_l(kr) − j_l(k) r^l with ∂r²p = 0."""
    k = np.linspace(0.5, 25, 500)
    brackets = [(a, b) for a, b in pairwise(k) if wall(kind, ell, a) * wall(kind, ell, b) < 0]
    roots = [brentq(lambda a: wall(kind, ell, a), a, b) for a, b in brackets[:4]]
    rates = RadialModes(24).kinds[index][1][ell]
    rates = rates[rates > 1e-6][: len(roots)]
    torch.testing.assert_close(rates, torch.tensor(roots, dtype=torch.float64) ** 2, rtol=1e-9, atol=0)


def test_what_is_kept_has_no_rate() -> None:
    scalar, poloidal, toroidal = (rates for _, rates in RadialModes(N).kinds)
    assert float(scalar[0, 0]) < 1e-10 and float(toroidal[1, 0]) < 1e-10
    assert float(scalar[1:, 0].min()) > 1 and float(poloidal[1:-1, 0].min()) > 1


# --- fields and projections ----------------------------------------------------------------------


def test_solid_rotation_is_a_toroidal_mode() -> None:
    ball, axes = Ball(N), on_dealiased_grid(N)[0]
    spin = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)
    x, y, z = cartesian(axes)
    vorticity = 2 * (spin[0] * x + spin[1] * y + spin[2] * z)
    c = BallGrid(axes, N).analysis(torch.stack([0 * x, 0 * x, vorticity]))
    f, u, curl = ball.fields(ball.amplitudes(c))
    velocity = cross((spin[0] + 0 * x, spin[1] + 0 * x, spin[2] + 0 * x), (x, y, z))
    torch.testing.assert_close(dot(u, u), dot(velocity, velocity))
    torch.testing.assert_close(dot(curl, curl), 4 * (spin @ spin).expand_as(x))
    assert float(f.abs().max()) < 1e-12 and float(u[0].abs().max()) < 1e-12


def test_amplitudes_and_coefficients_are_inverse() -> None:
    ball = Ball(N)
    a = ball.amplitudes(random_coefficients(N, 2, 3))
    torch.testing.assert_close(ball.amplitudes(ball.coefficients(a)), a, atol=1e-12, rtol=0)


def test_modes_are_orthonormal_on_the_grid() -> None:
    """Hence projection inverts synthesis, and ⟨f, f⟩ and ⟨u, u⟩ are sums of squares."""
    ball, weights = Ball(N), on_dealiased_grid(N)[1]
    a = ball.amplitudes(random_coefficients(N, 3))
    f, u, _ = ball.fields(a)
    torch.testing.assert_close(ball.project_flow(u), a[1:], atol=1e-11, rtol=0)
    squares = (a.abs() ** 2).sum((1, 2)) @ torch.tensor([1.0] + [2.0] * (N - 1)).double() * 2 * math.pi
    assert float((weights * f * f).sum()) == pytest.approx(float(squares[0]), rel=1e-12)
    assert float((weights * dot(u, u)).sum()) == pytest.approx(float(squares[1:].sum()), rel=1e-12)


def test_fields_have_the_given_radial_parts() -> None:
    """f, r·u and r·∇×u on the dealiased grid are those of the coefficients."""
    ball, axes = Ball(N), on_dealiased_grid(N)[0]
    grid = BallGrid(axes, N)
    a = ball.amplitudes(random_coefficients(N, 3))
    f, u, curl = ball.fields(a)
    given = grid.synthesis(ball.coefficients(a))
    for found, expected in zip((f, ball.radius * u[0], ball.radius * curl[0]), given, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_a_gradient_of_a_scalar_moves_no_fluid_and_a_flow_carries_no_mean() -> None:
    """⟨v, ∇g⟩ = 0 for every v; ⟨∇s, u⟩ = 0 for every s."""
    ball, axes = Ball(N), on_dealiased_grid(N)[0]
    x, y, z = cartesian(axes)
    r, latitude, longitude = torch.meshgrid(*axes.values(), indexing="ij")
    sine, cosine = latitude.deg2rad().cos(), latitude.deg2rad().sin()
    east = longitude.deg2rad()
    gradient = (y * z, x * z, x * y)  # of xyz
    up = (gradient[0] * x + gradient[1] * y + gradient[2] * z) / r
    across = gradient[0] * east.cos() + gradient[1] * east.sin()
    south = across * cosine - gradient[2] * sine
    eastwards = gradient[1] * east.cos() - gradient[0] * east.sin()
    assert float(ball.project_flow((up, south, eastwards)).abs().max()) < 1e-13
    u = ball.fields(ball.amplitudes(random_coefficients(N, 3)))[1]
    assert float(ball.project_gradient(u).abs().max()) < 1e-11
