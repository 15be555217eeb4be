"""The laws of encoding by Meta-SGD."""

import shutil

import pytest
import torch
from torch import Tensor

from pdeforecast.encoder import MetaSGD
from pdeforecast.field import EquivariantField
from pdeforecast.geometry import SPACES, Geometry
from pdeforecast.latents import Latents
from pdeforecast.observed import merge_duplicates
from pdeforecast.testing import moved

PLANE = SPACES[0]
BATCH, POINTS, LATENTS, CHANNELS = 3, 40, 16, 2

each_k = pytest.mark.parametrize("k", (0, 4, 9))
held_or_fitted = pytest.mark.parametrize("fit_poses", (False, True), ids=("held", "fitted"))
each_batching = pytest.mark.parametrize("shared", (True, False), ids=("shared", "per-sample"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def encoder(geometry: Geometry, k: int = 4, fit_poses: bool = False) -> MetaSGD:
    """One whose field depends on its contexts strongly, so that second order is half of the gradient."""
    field = EquivariantField(geometry, CHANNELS, 5, 8, 2, k, query_scale=1.0, value_scale=2.0)
    made = MetaSGD(field, LATENTS, 1.0, 3, fit_poses, context_rate=0.3, pose_rate=0.003)
    torch.nn.init.normal_(made.context)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter *= 2 if parameter.ndim == 2 else 1
    return made.double()


def observations(geometry: Geometry, shared: bool = True) -> tuple[Tensor, Tensor]:
    points = geometry.random_points(POINTS if shared else BATCH * POINTS)
    points = points if shared else points.unflatten(0, (BATCH, POINTS))
    return points, torch.randn(BATCH, POINTS, CHANNELS, dtype=torch.float64)


def assert_same(a: Latents, b: Latents, atol: float = 1e-10) -> None:
    torch.testing.assert_close(a.poses.expand_as(b.poses), b.poses, rtol=0, atol=atol)
    torch.testing.assert_close(a.contexts, b.contexts, rtol=0, atol=atol)


def meta_loss(model: MetaSGD, points: Tensor, values: Tensor) -> Tensor:
    """What training descends: the error of the field after encoding, where something was observed."""
    error = model.field(points, model(points, values)) - values.nan_to_num()
    return torch.where(values.isnan(), 0.0, error).square().sum()


def meta_gradient(model: MetaSGD, points: Tensor, values: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(meta_loss(model, points, values), list(model.parameters())))


@each_k
@held_or_fitted
def test_loss_falls_at_every_step(geometry: Geometry, k: int, fit_poses: bool) -> None:
    losses = encoder(geometry, k, fit_poses).losses(*observations(geometry))
    assert losses.shape == (4, BATCH)
    assert (losses.diff(dim=0) < 0).all()


@pytest.mark.parametrize("k", (0, 4))
@held_or_fitted
@each_batching
def test_meta_gradient_is_a_finite_difference(
    geometry: Geometry, k: int, fit_poses: bool, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # ReLU's derivative jumps, and with it the steps of the poses: no difference would converge.
    monkeypatch.setattr("torch.nn.functional.relu", torch.nn.functional.softplus)
    model = encoder(geometry, k, fit_poses)
    points, values = observations(geometry, shared)
    values[:, ::3] = torch.nan
    parameters = list(model.parameters())
    direction = [torch.randn_like(p) for p in parameters]
    gradient = meta_gradient(model, points, values)
    along = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))

    def nudged(by: float) -> Tensor:
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += by * d
            loss = meta_loss(model, points, values)
            for p, d in zip(parameters, direction, strict=True):
                p -= by * d
        return loss

    step = 1e-8
    torch.testing.assert_close(along, (nudged(step) - nudged(-step)) / (2 * step), rtol=1e-5, atol=1e-8)


@held_or_fitted
def test_second_order_is_not_nothing(fit_poses: bool) -> None:
    """What a first-order meta-gradient would leave out is far more than the tolerance of these tests."""
    model = encoder(PLANE, 0, fit_poses)
    points, values = observations(PLANE)
    full = meta_gradient(model, points, values)
    start = model.initial(values)
    z = model.fit(start, points, values)
    assert z.contexts.requires_grad
    first = Latents(z.poses.detach(), start.contexts + (z.contexts - start.contexts).detach(), z.windows)
    loss = (model.field(points, first) - values).square().sum()
    cut = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    error = torch.stack([(a - b).norm() for a, b in zip(full, cut, strict=True)]).norm()
    assert error > 0.1 * torch.stack([a.norm() for a in full]).norm()


inductor = pytest.param(
    "inductor",
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler (g++)"),
    ],
)


@pytest.mark.parametrize("backend", ("aot_eager", inductor))
def test_compiled_meta_gradient_is_the_eager_one(backend: str) -> None:
    model = encoder(PLANE)
    points, values = observations(PLANE)
    eager = meta_gradient(model, points, values)
    compiled = torch.compile(meta_loss, fullgraph=True, backend=backend)(model, points, values)
    gradient = torch.autograd.grad(compiled, list(model.parameters()))
    for a, b in zip(gradient, eager, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@held_or_fitted
@each_batching
def test_masked_points_have_no_influence(geometry: Geometry, fit_poses: bool, shared: bool) -> None:
    model = encoder(geometry, fit_poses=fit_poses)
    points, values = observations(geometry, shared)
    keep = POINTS - 10
    values[:, keep:] = torch.nan
    assert_same(model(points[..., :keep, :], values[:, :keep]), model(points, values))
    with_gaps = meta_gradient(model, points, values)
    for a, b in zip(with_gaps, meta_gradient(model, points[..., :keep, :], values[:, :keep]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@held_or_fitted
def test_half_observed_points_count_half(geometry: Geometry, fit_poses: bool) -> None:
    """A channel is masked alone, and what is under the mask cannot matter."""
    model = encoder(geometry, fit_poses=fit_poses)
    points, values = observations(geometry)
    values[:, :10, 1] = torch.nan
    z = model(points, values)
    observed = ~values.isnan()
    error = (model.field(points, z) - values)[observed].unflatten(0, (BATCH, -1)).square().mean(1)
    torch.testing.assert_close(model.losses(points, values)[-1], error, rtol=0, atol=1e-10)


@held_or_fitted
def test_unobserved_state_is_given_the_initial_latents(geometry: Geometry, fit_poses: bool) -> None:
    model = encoder(geometry, fit_poses=fit_poses)
    points, values = observations(geometry)
    values[1] = torch.nan
    z, start = model(points, values), model.initial(values)
    assert torch.equal(z.contexts[1], start.contexts[0])
    torch.testing.assert_close(z.poses.expand(BATCH, *start.poses.shape)[1], start.poses)
    assert all(g.isfinite().all() for g in meta_gradient(model, points, values))


@held_or_fitted
def test_points_on_poses_are_no_trouble(geometry: Geometry, fit_poses: bool) -> None:
    model = encoder(geometry, fit_poses=fit_poses)
    points = geometry.place(geometry.lattice(LATENTS))
    values = torch.randn(BATCH, LATENTS, CHANNELS, dtype=torch.float64)
    assert all(g.isfinite().all() for g in meta_gradient(model, points, values))


@held_or_fitted
@each_batching
def test_order_and_repetition_change_nothing(geometry: Geometry, fit_poses: bool, shared: bool) -> None:
    model = encoder(geometry, fit_poses=fit_poses).eval()
    points, values = observations(geometry, shared)
    z = model(points, values)
    order = torch.randperm(POINTS)
    assert_same(model(points[..., order, :], values[:, order]), z)
    again = torch.cat([order, order[:15], order[:5]])
    assert_same(model(points[..., again, :], values[:, again]), z)
    variance = torch.rand_like(values)
    twice = model(points[..., again, :], values[:, again], variance[:, again])
    assert_same(twice, model(points, values, variance))


@held_or_fitted
def test_states_do_not_know_of_each_other(geometry: Geometry, fit_poses: bool) -> None:
    model = encoder(geometry, fit_poses=fit_poses).eval()
    points, values = observations(geometry)
    z = model(points, values)
    for b in range(BATCH):
        alone = model(points, values[b : b + 1])
        poses = z.poses[b : b + 1] if fit_poses else z.poses
        assert_same(alone, Latents(poses, z.contexts[b : b + 1], z.windows))


@each_k
@held_or_fitted
def test_steps_commute_with_the_group(space: Geometry, k: int, fit_poses: bool) -> None:
    model = encoder(space, k, fit_poses).eval()
    points, values = observations(space)
    start = model.initial(values)
    z = model.fit(start, points, values)
    for g in space.random_element(2):
        there = model.fit(moved(space, g, start), space.act(g, points), values)
        assert_same(there, moved(space, g, z))


@held_or_fitted
def test_evaluation_is_the_same_without_a_graph(fit_poses: bool) -> None:
    model = encoder(PLANE, fit_poses=fit_poses)
    points, values = observations(PLANE)
    trained = model(points, values)
    z = model.eval()(points, values)
    assert trained.contexts.requires_grad
    assert not z.contexts.requires_grad
    assert not z.poses.requires_grad
    assert_same(z, trained)
    with torch.inference_mode():
        assert_same(model(points, values), z)


def test_only_the_ratio_of_variances_counts() -> None:
    model = encoder(PLANE)
    points, values = observations(PLANE)
    assert_same(model(points, values, torch.full_like(values, 7.0)), model(points, values))
    vague = torch.full_like(values, 0.01)
    vague[:, 30:] = 1e12
    assert_same(model(points, values, vague), model(points[:30], values[:, :30]), atol=1e-8)


def test_variance_of_an_absent_value_may_be_absent() -> None:
    model = encoder(PLANE)
    points, values = observations(PLANE)
    variance = torch.rand_like(values)
    values[:, :5], variance[:, :5] = torch.nan, torch.nan
    assert_same(model(points, values, variance), model(points[5:], values[:, 5:], variance[:, 5:]))
    assert all(g.isfinite().all() for g in meta_gradient(model, points, values))


def test_nothing_is_merged_where_nothing_repeats() -> None:
    points, values = observations(PLANE)
    merged = merge_duplicates(points, values, values)
    assert merged[0] is points
    assert merged[1] is values
    assert merged[2] is values


def test_repeated_points_have_the_mean_value() -> None:
    points = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.1, 0.2], [0.1, 0.2]])
    values = torch.tensor([1.0, 5.0, 3.0, torch.nan])[None, :, None]
    variance = torch.tensor([1.0, 2.0, 3.0, 1.0])[None, :, None]
    nan = torch.nan
    _, plain, none = merge_duplicates(points, values)
    _, merged, harmonic = merge_duplicates(points, values, variance)
    assert none is None
    torch.testing.assert_close(plain.flatten(), torch.tensor([2.0, 5.0, nan, nan]), equal_nan=True)
    torch.testing.assert_close(merged.flatten(), torch.tensor([1.5, 5.0, nan, nan]), equal_nan=True)
    torch.testing.assert_close(harmonic.flatten()[:2], torch.tensor([1.5, 2.0]))
