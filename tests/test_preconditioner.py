"""The laws of the exact step: it lands on the minimum, from any observations."""

from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor

from pdeforecast.geometry import Geometry, NoSymmetry
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField
from pdeforecast.preconditioner import PreconditionedSGD

LATENTS, CHANNELS, BATCH = 16, 2, 3

each_size = pytest.mark.parametrize("more", (-57, -1, 0, 1, 136))
"""How many points more than N·F, where the step goes over from its dual to its primal form."""


def random(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def encoder(
    geometry: Geometry, noise: float = 1e-3, latents: int = LATENTS, degree: int = 1
) -> PreconditionedSGD:
    """An encoder with a random prior that is positive definite and depends on relative poses."""
    spacing = geometry.spacing(latents)
    made = PreconditionedSGD(LinearField(geometry, CHANNELS, degree, 4, 1.5 * spacing), latents, 0.5)
    functions = made.field.functions
    states = torch.randn(2000, latents, CHANNELS * functions, generator=random(1), dtype=torch.float64)
    noises = torch.full((CHANNELS,), noise, dtype=torch.float64)
    made.learn_prior(0.3 + states + states.roll(1, -1), noises)
    return made


def unknowns(encoder: PreconditionedSGD) -> int:
    """N·F."""
    return len(encoder.poses) * encoder.field.functions


def states(geometry: Geometry, size: int = 65, seed: int = 2) -> tuple[Tensor, Tensor]:
    points = geometry.random_points(size, random(seed))
    return points, torch.randn(BATCH, size, CHANNELS, generator=random(seed + 1), dtype=torch.float64)


def split(encoder: PreconditionedSGD, z: Latents) -> Tensor:
    """Contexts as (batch, N·F, channels)."""
    return z.contexts.unflatten(-1, (CHANNELS, encoder.field.functions)).transpose(-1, -2).flatten(1, 2)


def dense(encoder: PreconditionedSGD, points: Tensor, v: int) -> tuple[Tensor, Tensor, Tensor]:
    """A, S and c₀ of one variable, pair of latents by pair, with the jitter that the encoder adds."""
    design = encoder.field.design(points, encoder.poses, encoder.windows).to_dense()
    n = len(encoder.poses)
    rows = [torch.cat([encoder.covariance[v, encoder.relation[i, j]] for j in range(n)], 1) for i in range(n)]
    prior = torch.cat(rows)
    prior = prior + 1e-9 * prior.diagonal().mean() * torch.eye(len(prior)).double()
    return design, prior, torch.cat([encoder.initial[v, orbit] for orbit in encoder.orbit])


def oracle(
    encoder: PreconditionedSGD, points: Tensor, values: Tensor, variance: Tensor, measure: Tensor
) -> Tensor:
    """c₀ + (AᵀR⁻¹A + S⁻¹)⁻¹AᵀR⁻¹(y − Ac₀), one state and one variable at a time, by explicit inverses."""
    contexts = torch.empty(len(values), unknowns(encoder), CHANNELS).double()
    for b in range(len(values)):
        for v in range(CHANNELS):
            seen = ~values[b, :, v].isnan()
            a, s, c0 = dense(encoder, points[seen], v)
            weighted = a.T / (variance[b, seen, v] + encoder.noise[v] / measure[seen])
            contexts[b, :, v] = c0 + (weighted @ a + s.inverse()).inverse() @ weighted @ (
                values[b, seen, v] - a @ c0
            )
    return contexts


def close(actual: Tensor, expected: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@each_size
def test_agrees_with_the_slow_oracle(geometry: Geometry, more: int) -> None:
    e = encoder(geometry)
    points, values = states(geometry, unknowns(e) + more)
    variance = torch.rand(values.shape, generator=random(5), dtype=torch.float64)
    measure = 0.1 + torch.rand(len(points), generator=random(6), dtype=torch.float64)
    values[1, ::3, 0] = torch.nan
    z = e(points, values, variance, measure)
    close(split(e, z), oracle(e, points, values, variance, measure), 1e-8)


@each_size
def test_the_step_lands_where_the_loss_has_no_slope(geometry: Geometry, more: int) -> None:
    e = encoder(geometry)
    points, values = states(geometry, unknowns(e) + more)
    contexts = split(e, e(points, values))
    for v in range(CHANNELS):
        a, s, c0 = dense(e, points, v)
        c = contexts[..., v].clone().requires_grad_()
        misfit, move = values[..., v] - c @ a.T, c - c0
        loss = 0.5 * (misfit**2).sum() / e.noise[v] + 0.5 * (move * torch.linalg.solve(s, move.T).T).sum()
        (slope,) = torch.autograd.grad(loss, c)
        start = (values[..., v] - c0 @ a.T) @ a / e.noise[v]
        assert float(slope.norm() / start.norm()) < 1e-9


def test_one_more_point_without_weight_changes_from_dual_to_primal_and_nothing_else(
    geometry: Geometry,
) -> None:
    e = encoder(geometry)
    points, values = states(geometry, unknowns(e) + 1)
    variance = torch.ones_like(values)
    variance[:, -1] = 1e13
    dual = e(points[:-1], values[:, :-1], variance[:, :-1])
    close(e(points, values, variance).contexts, dual.contexts)


def test_points_that_are_not_observed_have_no_influence(geometry: Geometry) -> None:
    e = encoder(geometry)
    points, values = states(geometry)
    seen = torch.rand(len(points), generator=random(4)) < 0.5
    masked = values.clone()
    masked[:, ~seen] = torch.nan
    ignored = torch.where(seen[:, None], 0.1, torch.inf).double().expand_as(values)
    expected = e(points[seen], values[:, seen]).contexts
    close(e(points, masked).contexts, expected)
    expected = e(points[seen], values[:, seen], ignored[:, seen]).contexts
    close(e(points, values, ignored).contexts, expected)
    close(e(points, masked, ignored.nan_to_num(posinf=0.1)).contexts, expected)


def test_states_and_variables_are_encoded_by_themselves(geometry: Geometry) -> None:
    e = encoder(geometry)
    points, values = states(geometry)
    hidden = torch.rand(values.shape, generator=random(4)) < 0.3
    values[hidden] = torch.nan
    together = e(points, values)
    for b in range(BATCH):
        close(e(points, values[b : b + 1]).contexts[0], together.contexts[b])
    other = values.clone()
    other[..., 1] = torch.nan
    close(split(e, e(points, other))[..., 0], split(e, together)[..., 0])


@pytest.mark.parametrize("size", (20, 65, 120))
def test_order_and_repetition_of_observations_change_nothing(geometry: Geometry, size: int) -> None:
    e = encoder(geometry)
    points, values = states(geometry, size)
    values[0, 3, 0] = torch.nan
    variance = torch.rand(values.shape, generator=random(5), dtype=torch.float64) + 0.1
    order = torch.randperm(size, generator=random(6))
    order = torch.cat([order, order[: size // 3], order[:2]])
    for given in (None, variance):
        expected = e(points, values, given).contexts
        again = e(points[order], values[:, order], None if given is None else given[:, order]).contexts
        close(again, expected)


def test_exact_observations_are_interpolated(geometry: Geometry) -> None:
    e = encoder(geometry, noise=1e-14)
    points, values = states(geometry, 8)
    close(e.field(points, e(points, values)), values, 1e-6)
    close(e.field(points, e(points, values, torch.full_like(values, 1e-12))), values, 1e-6)
    unsure = e.field(points, e(points, values, torch.full_like(values, 1e12)))
    close(unsure, e.field(points, e(points, values * torch.nan)), 1e-6)


def test_a_state_without_observations_is_the_mean_state(geometry: Geometry) -> None:
    e = encoder(geometry)
    points, values = states(geometry)
    values[1] = torch.nan
    expected = e.initial[:, e.orbit].transpose(0, 1).flatten(1)
    assert torch.equal(e(points, values).contexts[1], expected)
    assert torch.equal(e(points[:0], values[:, :0]).contexts, expected.expand(BATCH, -1, -1))
    assert e(points, values[:0]).contexts.shape == (0, *expected.shape)


def test_a_lattice_shift_of_the_points_permutes_the_latents(periodic: tuple[Geometry, Tensor]) -> None:
    geometry, g = periodic
    e = encoder(geometry)
    points, values = states(geometry, 30)
    target = geometry.distance(geometry.place(geometry.act_pose(g, e.poses))[:, None], e.poses).argmin(-1)
    there = e(geometry.act(g, points), values)
    close(there.contexts[:, target], e(points, values).contexts)


def test_moving_points_and_lattice_changes_no_context(space: Geometry) -> None:
    e = encoder(space)
    points, values = states(space, 30)
    here = e(points, values)
    for g in space.random_element(2, random(3)):
        there = deepcopy(e)
        there.poses = space.act_pose(g, e.poses)
        close(there(space.act(g, points), values).contexts, here.contexts)


ORBITS = {"periodic_plane": 1, "plane": 1, "sphere": 1, "rotating_sphere": 16, "ball": 2, "cylinder": 4}
"""Of the lattice of 16: a whole space, latitudes, radii, heights."""


def test_latents_are_alike_where_the_group_moves_one_to_the_other(space: Geometry) -> None:
    for geometry, expected in ((space, ORBITS[space.name]), (NoSymmetry(space), LATENTS)):
        e = encoder(geometry)
        assert e.initial.shape == (CHANNELS, expected, e.field.functions)
        assert e.orbit.unique().tolist() == list(range(expected))


RELATIONS = {"periodic_plane": 16, "plane": 7**2, "cylinder": 4**3, "rotating_sphere": 16**2}
"""Of the lattice of 16; none of its pairs is another on a space without translations."""


def test_pairs_of_latents_are_alike_where_the_group_moves_one_to_the_other(space: Geometry) -> None:
    for geometry, expected in ((space, RELATIONS.get(space.name)), (NoSymmetry(space), LATENTS**2)):
        relation = encoder(geometry).relation
        assert len(relation.unique()) == expected or expected is None
        poses = geometry.lattice(LATENTS)
        seen = geometry.between(poses[:, None], poses).flatten(0, 1)
        apart = (seen[:, None] - seen).abs().amax(-1)
        assert torch.equal(apart < 1e-5, relation.flatten()[:, None] == relation.flatten())


def test_what_is_learned_is_a_mean_over_all_that_looks_alike(geometry: Geometry) -> None:
    """One relation and one orbit at a time; with few states, so that no two means are alike."""
    e = encoder(geometry, latents=9)
    f, noise = e.field.functions, torch.tensor([0.1, 0.2]).double()
    states = torch.randn(5, 9, CHANNELS * f, generator=random(7), dtype=torch.float64)
    e.learn_prior(states, noise)
    assert torch.equal(e.noise, noise)
    for v in range(CHANNELS):
        own = states.unflatten(-1, (CHANNELS, f))[:, :, v]
        centred = own.clone()
        for orbit in range(e.initial.shape[1]):
            mean = own[:, e.orbit == orbit].mean((0, 1))
            close(e.initial[v, orbit], mean)
            centred[:, e.orbit == orbit] -= mean
        for relation in range(e.covariance.shape[1]):
            pairs = (e.relation == relation).nonzero()
            products = [centred[:, i, :, None] * centred[:, j, None, :] for i, j in pairs]
            close(e.covariance[v, relation], torch.cat(products).mean(0))


def test_the_first_prior_is_the_same_for_every_latent(geometry: Geometry) -> None:
    made = PreconditionedSGD(LinearField(geometry, 1, 1, 4, 0.5), LATENTS, 0.5)
    factor = made.prior_factor(0)
    close(factor, torch.eye(len(factor)).double(), 1e-8)


def test_the_learned_prior_is_a_covariance(geometry: Geometry) -> None:
    e = encoder(geometry)
    for v in range(CHANNELS):
        _, prior, _ = dense(e, geometry.random_points(3, random()), v)
        close(prior, prior.T)
        assert float(torch.linalg.eigvalsh(prior).min()) > 0
        factor = e.prior_factor(v)
        close(factor @ factor.T, prior)


def test_what_is_no_covariance_is_made_one(geometry: Geometry) -> None:
    """A mean over the few pairs of a lattice with edges may be negative somewhere: only there it changes."""
    e = encoder(geometry)
    e.covariance[:, e.relation[0, 1]] += 3
    e.covariance[:, e.relation[1, 0]] += 3
    _, prior, _ = dense(e, geometry.random_points(3, random()), 0)
    values, vectors = torch.linalg.eigh(prior)
    assert float(values.min()) < -0.1
    factor = e.prior_factor(0)
    close(factor @ factor.T, (vectors * values.clamp_min(0)) @ vectors.T, 1e-7)
    points, observed = states(geometry)
    assert e(points, observed).contexts.isfinite().all()


def waves(geometry: Geometry, points: Tensor, count: int, seed: int) -> Tensor:
    """Smooth random fields (count, M, channels): random functions of what fixed poses see."""
    weights = torch.randn(count, 5 * geometry.relative_dim**2, CHANNELS, generator=random(seed)).double()
    a = geometry.relative(points, geometry.lattice(1)[0])
    modes = torch.cat([a[:, :, None] * a[:, None, :]] * 5, 1).flatten(1)
    return torch.einsum("mr,srv->smv", modes, weights) / 5


@pytest.mark.parametrize("size", (20, 48, 90))
def test_a_learned_prior_fills_gaps_of_unseen_fields_better(space: Geometry, size: int) -> None:
    geometry, spacing = space, space.spacing(LATENTS)
    e = PreconditionedSGD(LinearField(geometry, CHANNELS, 2, 9, 1.5 * spacing), LATENTS, 0.5)
    everywhere, some = geometry.random_points(400, random(1)), geometry.random_points(size, random(2))
    unseen = waves(geometry, everywhere, 5, seed=8)
    sparse = waves(geometry, some, 5, seed=8)

    def error() -> float:
        return float((e.field(everywhere, e(some, sparse)) - unseen).norm() / unseen.norm())

    before = error()
    train = waves(geometry, everywhere, 40, seed=9)
    encoded = e(everywhere, train)
    e.learn_prior(encoded.contexts, (train - e.field(everywhere, encoded)).square().mean((0, 1)))
    assert error() < 0.7 * before


def test_a_new_prior_is_used_at_once(geometry: Geometry) -> None:
    one, other = encoder(geometry), encoder(geometry)
    other.covariance *= 0.01
    points, values = states(geometry)
    expected = other(points, values).contexts
    one(points, values)
    one.load_state_dict(other.state_dict())
    close(one(points, values).contexts, expected, 0)
    close(deepcopy(one)(points, values).contexts, expected, 0)


def test_visible_projects_on_what_the_field_sees(geometry: Geometry) -> None:
    e = encoder(geometry, noise=1e-10)
    visible = e.visible()
    points, values = states(geometry, 200)
    contexts = split(e, e(points, values)).movedim(-1, 0)
    seen = contexts @ visible.mT
    design = e.field.design(geometry.random_points(300, random(7)), e.poses, e.windows).to_dense()
    shown = contexts @ design.T
    assert float((seen @ design.T - shown).norm() / shown.norm()) < 1e-4
    assert float((seen @ visible.mT - seen).norm() / seen.norm()) < 1e-4


@pytest.mark.parametrize("size", (20, 90))
def test_values_have_exact_derivatives(geometry: Geometry, size: int) -> None:
    e = encoder(geometry)
    points, values = states(geometry, size)
    values[0, 2, 0] = torch.nan
    repeated = torch.cat([points, points[:4]])
    direction = torch.randn(BATCH, size + 4, CHANNELS, generator=random(3), dtype=torch.float64)
    given = torch.cat([values, values[:, :4] + 1], 1)

    def output(t: Tensor) -> Tensor:
        return e(repeated, given + t * direction).contexts.square().sum()

    compare_with_finite_difference(output, 0.0, 1e-4)


@pytest.mark.parametrize("size", (20, 90))
def test_noise_and_variance_have_exact_derivatives(geometry: Geometry, size: int) -> None:
    e = encoder(geometry)
    points, values = states(geometry, size)
    values[0, 2, 0] = torch.nan

    def of_noise(t: Tensor) -> Tensor:
        e.noise = t * torch.tensor([1.0, 2.0]).double()
        return e(points, values).contexts.square().sum()

    def of_variance(t: Tensor) -> Tensor:
        return e(points, values, t.expand_as(values)).contexts.square().sum()

    def of_prior(t: Tensor) -> Tensor:
        e.covariance = t * covariance
        return e(points, values).contexts.square().sum()

    compare_with_finite_difference(of_noise, 0.3, 1e-4)
    compare_with_finite_difference(of_variance, 0.3, 1e-4)
    covariance = e.covariance
    compare_with_finite_difference(of_prior, 0.9, 1e-4)


def compare_with_finite_difference(f, at: float, step: float) -> None:  # type: ignore[no-untyped-def]
    """f′ by autograd and by central differences; without gradients before, between and after."""
    with torch.no_grad():
        before = f(torch.tensor(at, dtype=torch.float64))
        up, down = (f(torch.tensor(at + h, dtype=torch.float64)) for h in (step, -step))
    t = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    value = f(t)
    (slope,) = torch.autograd.grad(value, t)
    (again,) = torch.autograd.grad(f(t), t)
    close(value.detach(), before, 1e-9 * float(before.abs()))
    close(again, slope, 1e-9 * float(slope.abs()))
    assert float((up - down) / (2 * step)) == pytest.approx(float(slope), rel=1e-5)


def test_single_precision_is_encoded_in_double(geometry: Geometry) -> None:
    e = encoder(geometry)
    points, values = states(geometry)
    z = e(points, values.float())
    assert z.contexts.dtype == torch.float64
    close(z.contexts, e(points, values.float().double()).contexts, 0)
