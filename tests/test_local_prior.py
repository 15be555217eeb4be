"""What the modes leave: the exact step against its definition, and where it is of use."""

import pytest
import torch
from torch import Generator, Tensor

from pdeforecast import local_prior
from pdeforecast.geometry import SPACES, Geometry
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField
from pdeforecast.local_prior import LocalPrior, LocalStep
from pdeforecast.preconditioner import FIRST_NOISE, same
from pdeforecast.principal import PrincipalSGD

CHANNELS, LATENTS, BATCH, RANK = 2, 16, 3, 6


@pytest.fixture(params=[space for space in SPACES if space.name != "periodic_plane"], ids=lambda s: s.name)
def geometry(request: pytest.FixtureRequest) -> Geometry:
    return request.param


def random(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def field(geometry: Geometry) -> LinearField:
    return LinearField(geometry, CHANNELS, 1, 4, 1.5 * geometry.spacing(LATENTS))


def local(geometry: Geometry) -> LocalPrior:
    poses = geometry.lattice(LATENTS)
    made = LocalPrior(field(geometry), same(geometry.between(poses, poses)))
    states = torch.randn(40, LATENTS, made.field.context_dim, generator=random(1), dtype=torch.float64)
    made.learn(states)
    return made


def close(actual: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("size", (9, 300))
def test_agrees_with_the_slow_oracle(geometry: Geometry, size: int) -> None:
    """d = D Aᵀ (A D Aᵀ + R)⁻¹ r, with dense matrices, variable by variable."""
    prior = local(geometry)
    poses = geometry.lattice(LATENTS)
    windows = torch.full((LATENTS,), 0.5 * geometry.spacing(LATENTS), dtype=torch.float64)
    points = geometry.random_points(size, random(2))
    residual = torch.randn(BATCH, size, CHANNELS, generator=random(3), dtype=torch.float64)
    error = 0.01 + torch.rand(size, CHANNELS, generator=random(4), dtype=torch.float64)
    error[::4, 0] = torch.inf
    found = prior(points, residual, error, poses, windows).unflatten(-1, (CHANNELS, -1))
    design = prior.field.design(points, poses, windows).to_dense()
    for v in range(CHANNELS):
        blocks = prior.covariance[v][prior.orbit]
        d, seen = torch.block_diag(*blocks), error[:, v].isfinite()
        a, r = design[seen], residual[:, seen, v]
        gram = a @ d @ a.T + error[seen, v].diag()
        expected = (d @ a.T @ torch.linalg.solve(gram, r.T)).T.unflatten(1, (LATENTS, -1))
        close(found[:, :, v], expected, 1e-6)


@pytest.mark.parametrize("dense", (True, False))
@pytest.mark.parametrize("size", (5, 200))
def test_the_sparse_step_solves_its_equations(
    size: int, dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a factor, and where that would be too large by conjugate gradients."""
    monkeypatch.setattr(local_prior, "_EXACT", 1e-13)
    if not dense:
        monkeypatch.setattr(local_prior, "_DENSE", 0)
    rows = torch.randn(size, 40, generator=random(1), dtype=torch.float64)
    rows[torch.rand(size, 40, generator=random(2)) > 0.2] = 0.0
    precision = 0.1 + torch.rand(size, generator=random(3), dtype=torch.float64)
    residual = torch.randn(BATCH, size, generator=random(4), dtype=torch.float64)
    b = precision[:, None] * rows
    expected = torch.linalg.solve(b.T @ b + torch.eye(40), b.T @ (precision * residual).T).T
    step = LocalStep(rows.to_sparse_csr(), precision, 1)
    close(step(residual), expected, 1e-10)
    slope = torch.randn(BATCH, 40, generator=random(5), dtype=torch.float64)
    given = residual.clone().requires_grad_()
    (found,) = torch.autograd.grad(step(given), given, slope)
    back = torch.linalg.solve(b.T @ b + torch.eye(40), slope.T)
    close(found, precision * (b @ back).T, 1e-10)


def test_latents_of_an_orbit_share_a_covariance(geometry: Geometry) -> None:
    prior = local(geometry)
    assert prior.covariance.shape[1] == int(prior.orbit.max()) + 1
    values = torch.linalg.eigvalsh(prior.covariance)
    assert float(values.min()) > 0 and not prior.silent
    prior.be_silent()
    assert prior.silent


def states(
    geometry: Geometry, count: int, fine: float, noise: float = FIRST_NOISE
) -> tuple[PrincipalSGD, Tensor, Tensor]:
    """An encoder and states of a few modes and something fine beside them: points and values."""
    e = PrincipalSGD(field(geometry), LATENTS, 0.5, RANK, first_noise=noise)
    draw = random(5)
    basis = torch.randn(RANK - 1, LATENTS, e.field.context_dim, generator=draw, dtype=torch.float64)
    weights = torch.randn(count, RANK - 1, generator=draw, dtype=torch.float64)
    rest = torch.randn(count, LATENTS, e.field.context_dim, generator=draw, dtype=torch.float64)
    contexts = torch.einsum("sk,knc->snc", weights, basis) + fine * rest
    points = geometry.random_points(1500, random(6))
    values = e.field(points, Latents(e.poses, contexts, e.windows))
    rounds = 0
    while rounds < 2:
        found = e(points, values[:-8])
        left = values[:-8] - e.field(points, found)
        rounds += e.learn_prior(found.contexts, left.square().mean((0, 1)))
    return e, points, values[-8:]


@pytest.mark.parametrize("size", (7, 300))
def test_modes_and_what_they_leave_are_found_together(geometry: Geometry, size: int) -> None:
    """c − c₀ = S Aᵀ (A S Aᵀ + R)⁻¹ (y − A c₀) with S = L Lᵀ + D, for variables that share their modes."""
    e, *_ = states(geometry, 40, 0.3)
    points = geometry.random_points(size, random(2))
    values = torch.randn(BATCH, size, CHANNELS, generator=random(3), dtype=torch.float64)
    values[:, ::4, 0] = torch.nan
    variance = 0.1 * torch.rand(size, CHANNELS, generator=random(4), dtype=torch.float64).expand_as(values)
    measure = 0.1 + torch.rand(size, generator=random(5), dtype=torch.float64)
    found = e(points, values, variance, measure).contexts - e.centre
    index = torch.arange(e.centre.numel()).view(LATENTS, CHANNELS, -1)
    a = torch.zeros(size, CHANNELS, e.centre.numel(), dtype=torch.float64)
    s = e.modes.double() @ e.modes.double().T
    for v in range(CHANNELS):
        own = index[:, v].flatten()
        a[:, v, own] = e.field.design(points, e.poses, e.windows).to_dense()
        s[own[:, None], own] += torch.block_diag(*e.local.covariance[v][e.local.orbit])
    start = e.field(points, Latents(e.poses, e.centre[None], e.windows))
    seen = ~values[0].isnan()
    a, r = a[seen], (values - start)[:, seen]
    gram = a @ s @ a.T + (variance[0] + e.noise / measure[:, None])[seen].diag()
    expected = (s @ a.T @ torch.linalg.solve(gram, r.T)).T.view_as(found)
    close(found, expected, 1e-6 * float(expected.abs().max()))


def test_with_many_points_modes_are_found_before_what_they_leave(
    geometry: Geometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    e, points, values = states(geometry, 40, 0.3)
    together = e(points, values).contexts
    monkeypatch.setattr(local_prior, "_DENSE", 0)
    monkeypatch.setattr(local_prior, "_EXACT", 1e-10)
    e._kept.clear()
    e.local._kept.clear()
    apart = e(points, values).contexts
    assert not torch.equal(apart, together)
    assert float((apart - together).norm() / together.norm()) < 0.05


def test_what_modes_leave_is_fitted_where_it_is_much(geometry: Geometry) -> None:
    e, points, values = states(geometry, 400, 0.3)
    assert not e.local.silent and bool((e.unexplained > 10 * e.noise).all())
    again = e.field(points, e(points, values))
    assert float((again - values).norm() / values.norm()) < 0.02
    some = torch.arange(len(points)) % 8 == 0
    sparse = e.field(points, e(points[some], values[:, some]))
    away = values - e.field(points, Latents(e.poses, e.centre[None], e.windows))
    e.local.be_silent()
    coarse = e.field(points, e(points[some], values[:, some]))
    assert float((sparse - values).norm()) < float((coarse - values).norm()) < float(away.norm())


@pytest.mark.parametrize(("noise", "left"), ((1e-6, 1e-5), (1e-9, 1e-7)))
def test_where_modes_tell_all_there_is_nothing_else(geometry: Geometry, noise: float, left: float) -> None:
    e, points, values = states(geometry, 400, 0.0, noise)
    assert e.local.silent and torch.equal(e.unexplained, e.noise)
    again = e.field(points, e(points, values))
    assert float((again - values).norm() / values.norm()) < left
