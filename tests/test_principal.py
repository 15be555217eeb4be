"""The exact step in principal modes, against its definition, and what the modes are."""

import pytest
import torch
from torch import Generator, Tensor

from pdeforecast.geometry import SPACES, Geometry
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField
from pdeforecast.preconditioner import homogeneous
from pdeforecast.principal import PrincipalSGD

CHANNELS, LATENTS, BATCH, RANK = 2, 16, 3, 20

each_size = pytest.mark.parametrize("size", (7, 60))


@pytest.fixture(params=[space for space in SPACES if space.name != "periodic_plane"], ids=lambda s: s.name)
def geometry(request: pytest.FixtureRequest) -> Geometry:
    return request.param


def random(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def fresh(geometry: Geometry, rank: int = RANK) -> PrincipalSGD:
    field = LinearField(geometry, CHANNELS, 1, 4, 1.5 * geometry.spacing(LATENTS))
    return PrincipalSGD(field, LATENTS, 0.5, rank)


def encoder(geometry: Geometry, states: int = 30, noise: tuple[float, float] = (1e-3, 2e-3)) -> PrincipalSGD:
    made = fresh(geometry)
    contexts = torch.randn(states, LATENTS, made.field.context_dim, generator=random(1), dtype=torch.float64)
    learn(made, 0.3 + contexts, noise)
    return made


def learn(e: PrincipalSGD, contexts: Tensor, noise: tuple[float, float]) -> None:
    """The modes alone; `test_local_prior.py` asks what becomes of the rest."""
    while not e.learn_prior(contexts, torch.tensor(noise).double()):
        pass
    e.local.be_silent()
    e.unexplained.copy_(e.noise)


def observed(geometry: Geometry, size: int) -> tuple[Tensor, Tensor]:
    points = geometry.random_points(size, random(2))
    return points, torch.randn(BATCH, size, CHANNELS, generator=random(3), dtype=torch.float64)


def close(actual: Tensor, expected: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@each_size
def test_agrees_with_the_slow_oracle(geometry: Geometry, size: int) -> None:
    """w = (BᵀB + 1)⁻¹BᵀR^(−½)(y − A c₀), one state and one observation at a time."""
    e = encoder(geometry)
    points, values = observed(geometry, size)
    values[1, ::3, 0] = torch.nan
    variance = torch.rand(values.shape, generator=random(5), dtype=torch.float64)
    measure = 0.1 + torch.rand(size, generator=random(6), dtype=torch.float64)
    found = e(points, values, variance, measure).contexts
    modes = e.modes.double().T.unflatten(1, e.centre.shape)
    for b in range(BATCH):
        rows, rest, weight = [], [], []
        for v in range(CHANNELS):
            for m in range(size):
                if values[b, m, v].isnan():
                    continue
                here = points[m : m + 1]
                shown = e.field(here, Latents(e.poses, modes, e.windows))[:, 0, v]
                start = e.field(here, Latents(e.poses, e.centre[None], e.windows))[0, 0, v]
                rows.append(shown), rest.append(values[b, m, v] - start)
                weight.append(1 / (variance[b, m, v] + e.noise[v] / measure[m]))
        a, r, p = torch.stack(rows), torch.stack(rest), torch.stack(weight)
        w = (a.T * p @ a + torch.eye(RANK)).inverse() @ (a.T * p) @ r
        close(found[b], e.centre + torch.einsum("r,rnc->nc", w, modes), 1e-8)


@each_size
def test_what_is_not_observed_and_what_is_said_twice_have_no_influence(geometry: Geometry, size: int) -> None:
    e = encoder(geometry)
    points, values = observed(geometry, size)
    expected = e(points, values).contexts
    order = torch.randperm(size, generator=random(4))
    close(e(points[order], values[:, order]).contexts, expected)
    close(e(torch.cat([points, points[:3]]), torch.cat([values, values[:, :3]], 1)).contexts, expected)
    absent = torch.full((BATCH, 4, CHANNELS), torch.nan, dtype=torch.float64)
    others = geometry.random_points(4, random(9))
    close(e(torch.cat([points, others]), torch.cat([values, absent], 1)).contexts, expected)
    nothing = e(points, torch.full_like(values, torch.nan)).contexts
    close(nothing, e.centre.expand_as(nothing))


def test_modes_are_what_the_states_are_made_of(geometry: Geometry) -> None:
    """States of five modes: five are found, their fields are orthogonal, and they span the states."""
    e = fresh(geometry)
    basis = torch.randn(5, LATENTS, e.field.context_dim, generator=random(1), dtype=torch.float64)
    weights = torch.randn(200, 5, generator=random(2), dtype=torch.float64)
    weights = weights - weights.mean(0)
    contexts = torch.einsum("sk,knc->snc", weights, basis)
    e.learn_prior(contexts, torch.tensor([1e-6, 1e-6]).double())
    assert int(e.modes.any(0).sum()) == 5
    away = (contexts - e.centre).flatten(1)
    w = away @ e.reading().T
    assert float((w @ e.modes.double().T - away).norm() / away.norm()) < 1e-5
    close(w[:, :5].T @ w[:, :5] / len(w), torch.eye(5).double(), 1e-4)
    points = geometry.place(geometry.lattice(4 * e.field.functions * LATENTS)).double()
    shown = e.shown(points)[..., :5].flatten(0, 1)
    gram = shown.T @ shown
    assert float((gram - gram.diagonal().diag()).norm() / gram.norm()) < 1e-5
    assert bool((gram.diagonal().diff() < 0).all())


def test_states_that_come_often_have_the_modes_of_those_that_come_once(geometry: Geometry) -> None:
    """Few states are compared with one another, many by the numbers that hold them: one law, two ways."""
    once, often = fresh(geometry, 40), fresh(geometry, 40)
    contexts = torch.randn(30, LATENTS, once.field.context_dim, generator=random(1), dtype=torch.float64)
    learn(once, contexts, (1e-6, 1e-6))
    learn(often, contexts.repeat(20, 1, 1), (1e-6, 1e-6))
    assert int(once.modes.any(0).sum()) == int(often.modes.any(0).sum()) <= 30
    close(once.centre, often.centre)
    first, second = once.modes.double(), often.modes.double()
    close(first @ first.T, second @ second.T, 1e-5)


def test_one_variable_tells_of_the_other(geometry: Geometry) -> None:
    """Two variables that are always alike: the second is read from the first alone."""
    e = fresh(geometry)
    half = torch.randn(60, LATENTS, e.field.functions, generator=random(1), dtype=torch.float64)
    learn(e, torch.cat([half, half], -1), (1e-8, 1e-8))
    points, values = observed(geometry, 300)
    w = torch.randn(1, RANK, generator=random(7), dtype=torch.float64)
    values = torch.einsum("mvr,br->bmv", e.shown(points), w)
    values = values + e.field(points, Latents(e.poses, e.centre[None], e.windows))
    blind = values.clone()
    blind[..., 1] = torch.nan
    again = e.field(points, e(points, blind))
    assert float((again - values).norm() / values.norm()) < 1e-3


def test_before_anything_is_learned_a_dense_state_is_fitted(geometry: Geometry) -> None:
    e = fresh(geometry)
    points = geometry.random_points(2000, random(2))
    contexts = torch.randn(BATCH, LATENTS, e.field.context_dim, generator=random(3), dtype=torch.float64)
    values = e.field(points, Latents(e.poses, contexts, e.windows))
    again = e.field(points, e(points, values))
    assert float((again - values).norm() / values.norm()) < 1e-2


def test_where_modes_are_needed() -> None:
    """The group makes all latents of one on the periodic plane only."""
    assert [space.name for space in SPACES if homogeneous(space, LATENTS)] == ["periodic_plane"]
