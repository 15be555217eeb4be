"""The laws of a rollout, over geometries, methods of integration, and poses that move or do not."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from pdeforecast.config import AttentionFieldConfig, DynamicsConfig, ForecasterConfig, LinearFieldConfig
from pdeforecast.dynamics import LatentDynamics
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import Geometry, NoSymmetry, PeriodicPlane
from pdeforecast.latents import Latents
from pdeforecast.preconditioner import PreconditionedSGD
from pdeforecast.rollout import rollout
from pdeforecast.testing import assert_equivariant, moved

LATENTS, CONTEXT, STATIC, BATCH = 9, 5, 3, 2
ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4}

each_method = pytest.mark.parametrize("method", (*ORDERS, "dopri5"))
each_moving = pytest.mark.parametrize("moving", (True, False), ids=("moving", "held"))
each_batching = pytest.mark.parametrize("shared", (True, False), ids=("shared", "per-sample"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def dynamics(geometry: Geometry, moving: bool) -> LatentDynamics:
    """Float64, with random heads, and smooth: short steps are in the asymptotic range."""
    spacing = geometry.spacing(LATENTS)
    made = LatentDynamics(geometry, CONTEXT, STATIC, 8, 1, spacing, 0, moving).double()
    made.frequencies *= 0.3
    return with_random_heads(made)


def with_random_heads(made: LatentDynamics) -> LatentDynamics:
    """Poses drift together further than apart: the distance of antipodes is not smooth."""
    for head, size in ((made.context_head, 0.3), (made.pose_head, 0.02)):
        if head is not None:
            nn.init.normal_(head.weight, std=size / math.sqrt(head.in_features))
            nn.init.normal_(head.bias, std=0.3)
    return made


def latents(geometry: Geometry, shared: bool = True) -> Latents:
    shape = (LATENTS,) if shared else (BATCH, LATENTS)
    shake = 0.1 * geometry.spacing(LATENTS) * torch.randn(*shape, geometry.velocity_dim, dtype=torch.float64)
    poses = geometry.exp(geometry.lattice(LATENTS), shake)
    contexts = torch.randn(BATCH, LATENTS, CONTEXT, dtype=torch.float64)
    return Latents(poses, contexts, torch.ones(LATENTS, dtype=torch.float64))


def world(geometry: Geometry, g: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """Static fields as poses see them: functions of p⁻¹q of a landmark q, which g moves."""
    landmark = geometry.lattice(1)[0]
    landmark = landmark if g is None else geometry.act_pose(g, landmark)
    return lambda poses: geometry.between(poses, landmark)[..., :STATIC].expand(BATCH, -1, -1)


def run(f: LatentDynamics, z: Latents, times: Sequence[float], **options: object) -> list[Latents]:
    around = options.pop("around", world(f.geometry))
    return rollout(f, z, around, times, **options)  # type: ignore[arg-type]


def close(actual: Latents, expected: Latents, atol: float = 1e-10) -> None:
    torch.testing.assert_close(actual.contexts, expected.contexts, rtol=0, atol=atol)
    shape = torch.broadcast_shapes(actual.poses.shape, expected.poses.shape)
    poses = actual.poses.expand(shape), expected.poses.expand(shape)
    torch.testing.assert_close(*poses, rtol=0, atol=atol)


@each_method
@each_moving
@each_batching
def test_moving_the_world_moves_the_rollout(space: Geometry, method: str, moving: bool, shared: bool) -> None:
    f, z = dynamics(space, moving), latents(space, shared)
    nowhere = torch.randn(BATCH, LATENTS, STATIC, dtype=torch.float64)
    with torch.no_grad():
        assert_equivariant(space, lambda z: run(f, z, [1.7], method=method, around=lambda _: nowhere)[0], z)
        g = space.random_element(1)
        here = run(f, z, [0.4, 1.7], method=method)
        there = run(f, moved(space, g, z), [0.4, 1.7], method=method, around=world(space, g))
    for a, b in zip(there, here, strict=True):
        close(a, moved(space, g, b))


def test_adaptive_steps_do_not_depend_on_where_the_world_lies() -> None:
    """An unwrapped position may be large; that makes an error of it no smaller."""
    geometry = PeriodicPlane()
    f, z = dynamics(geometry, True), latents(geometry)
    assert f.pose_head is not None
    f.pose_head.weight.data *= 10
    nn.init.zeros_(f.context_head.weight)
    far = torch.tensor([1000.0, -700.0], dtype=torch.float64)
    with torch.no_grad():
        (here,) = run(f, z, [2.0], method="dopri5", tolerance=1e-7)
        (there,) = run(f, moved(geometry, far, z), [2.0], method="dopri5", tolerance=1e-7)
    close(there, moved(geometry, far, here), 1e-9)


def test_poses_travel(geometry: Geometry) -> None:
    """The laws above are about something."""
    f, z = dynamics(geometry, True), latents(geometry)
    with torch.no_grad():
        (end,) = run(f, z, [2.0])
    way = geometry.distance(geometry.place(end.poses), z.poses)
    assert float(way.median()) > 0.1 * geometry.spacing(LATENTS)
    (held,) = run(dynamics(geometry, False), z, [2.0])
    assert held.poses is z.poses


@pytest.mark.parametrize("method", ORDERS)
@each_moving
def test_a_rollout_continues(geometry: Geometry, method: str, moving: bool) -> None:
    f, z = dynamics(geometry, moving), latents(geometry)
    with torch.no_grad():
        (half,) = run(f, z, [0.75], method=method)
        (rest,) = run(f, half, [1.25], method=method)
        (whole,) = run(f, z, [2.0], method=method)
    close(rest, whole)


@each_moving
def test_adaptive_rollouts_continue_within_their_tolerance(geometry: Geometry, moving: bool) -> None:
    f, z = dynamics(geometry, moving), latents(geometry)
    options = {"method": "dopri5", "tolerance": 1e-8}
    with torch.no_grad():
        (half,) = run(f, z, [0.77], **options)
        (rest,) = run(f, half, [1.23], **options)
        (whole,) = run(f, z, [2.0], **options)
    close(rest, whole, 1e-5)


@pytest.mark.parametrize(("method", "order"), ORDERS.items())
@each_moving
def test_order_of_accuracy(geometry: Geometry, method: str, order: int, moving: bool) -> None:
    f, z = dynamics(geometry, moving), latents(geometry)
    finest = 1 / 64 if order < 4 else 1 / 32
    with torch.no_grad():
        a, b, c = (run(f, z, [1.0], method=method, step=finest * s)[0] for s in (4, 2, 1))
    observed = math.log2(float((a.contexts - b.contexts).norm() / (b.contexts - c.contexts).norm()))
    assert observed == pytest.approx(order, abs=0.2)
    if moving:
        observed = math.log2(float((a.poses - b.poses).norm() / (b.poses - c.poses).norm()))
        assert observed == pytest.approx(order, abs=0.2)


@each_method
@each_moving
def test_times_are_hit_in_any_order_and_repeated(geometry: Geometry, method: str, moving: bool) -> None:
    f, z = dynamics(geometry, moving), latents(geometry)
    sorted_times = [0.0, 0.3, 0.75, 1.1]
    with torch.no_grad():
        ordered = dict(zip(sorted_times, run(f, z, sorted_times, method=method), strict=True))
        asked = [1.1, 0.3, 0.0, 1.1, 0.75]
        for time, state in zip(asked, run(f, z, asked, method=method), strict=True):
            close(state, ordered[time], 0)
    close(ordered[0.0], z, 0)


@each_method
def test_a_time_is_what_it_is_whatever_else_is_asked(geometry: Geometry, method: str) -> None:
    """A time between other requested ones is exact for a known solution: dc/dt = b, dp/dt = v."""
    f, z = dynamics(geometry, True), latents(geometry)
    assert f.pose_head is not None
    for head in (f.context_head, f.pose_head):
        nn.init.zeros_(head.weight)
    times = [0.1, 1 / 3, 0.7, 5.9]
    with torch.no_grad():
        for time, state in zip(times, run(f, z, times, method=method), strict=True):
            velocity = (time * f.spacing * f.pose_head.bias).expand(LATENTS, -1)
            end = geometry.exp(z.poses, velocity).expand(BATCH, -1, -1)
            close(state, Latents(end, z.contexts + time * f.context_head.bias, z.windows), 1e-9)


def test_lead_zero_is_the_start(geometry: Geometry) -> None:
    f, z = dynamics(geometry, True), latents(geometry)
    assert all(state is z for state in run(f, z, [0.0, 0.0]))
    assert run(f, z, []) == []


def test_the_past_is_not_known(geometry: Geometry) -> None:
    with pytest.raises(ValueError, match=r"-0\.5"):
        run(dynamics(geometry, True), latents(geometry), [1.0, -0.5])


@each_method
@each_moving
def test_gradients_flow(geometry: Geometry, method: str, moving: bool) -> None:
    """To the start and to every parameter, as finite differences say."""
    f, z = dynamics(geometry, moving), latents(geometry)
    push, move = (
        torch.randn(LATENTS, geometry.velocity_dim, dtype=torch.float64),
        torch.randn_like(z.contexts),
    )
    turn = torch.randn_like(f.stem.weight)

    def output(t: Tensor) -> Tensor:
        start = Latents(geometry.exp(z.poses, 0.01 * t * push), z.contexts + t * move, z.windows)
        nudged = torch.func.functional_call(
            Rollout(f), {"f.stem.weight": f.stem.weight + t * turn}, (start, method)
        )
        return nudged.contexts.square().sum() + nudged.poses.square().sum()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    slope, *others = torch.autograd.grad(output(t), (t, *f.parameters()))
    with torch.no_grad():
        step = torch.tensor(1e-4, dtype=torch.float64)
        difference = (output(step) - output(-step)) / (2 * step)
    assert float(slope) == pytest.approx(float(difference), rel=1e-3 if method == "dopri5" else 1e-5)
    assert all(bool(other.isfinite().all() and other.abs().max() > 0) for other in others)


class Rollout(nn.Module):
    """A rollout as a function of its parameters."""

    def __init__(self, f: LatentDynamics) -> None:
        super().__init__()
        self.f = f

    def forward(self, z: Latents, method: str) -> Latents:
        return run(self.f, z, [1.0], method=method, tolerance=1e-8)[0]


LINEAR = LinearFieldConfig(latents=16, degree=1, neighbours=4)
ATTENTION = AttentionFieldConfig(latents=16, context_dim=4, hidden=8, heads=2, neighbours=4, steps=2)
FIELDS = {"linear": LINEAR, "attention": ATTENTION}


def forecaster(geometry: Geometry, field: str, moving: bool) -> Forecaster:
    config = ForecasterConfig(
        geometry.name,
        {"one": "1", "other": "1"},
        {"ground": "1"},
        field=FIELDS[field],
        dynamics=DynamicsConfig(hidden=8, moving=moving),
    )
    made = Forecaster(config)
    made.mean.uniform_(-1, 1)
    made.scale.uniform_(0.5, 2)
    for encoder in (made.encoder, made.static_encoder):
        if isinstance(encoder, PreconditionedSGD):
            encoder.noise.fill_(1e-2)
    with_random_heads(made.dynamics)
    return made.eval()


def smooth(geometry: Geometry, points: Tensor, batch: int, channels: int) -> Tensor:
    """Fields (batch, M, channels) that are linear in what one pose sees."""
    seen = geometry.relative(points, geometry.lattice(1)[0])
    return seen @ torch.randn(batch, seen.shape[-1], channels, dtype=torch.float64)


@pytest.mark.parametrize("field", FIELDS)
@each_moving
@pytest.mark.parametrize(("dtype", "tolerance"), ((torch.float64, 1e-8), (torch.float32, 1e-4)))
def test_moving_state_and_statics_moves_the_forecast(
    geometry: Geometry, field: str, moving: bool, dtype: torch.dtype, tolerance: float
) -> None:
    """F(g·u, g·f) = g·F(u, f), for the g that move the lattice onto itself."""
    model = forecaster(geometry, field, moving)
    model = (model.double() if dtype == torch.float64 else model).prepare()
    sensors, ground, where = (geometry.random_points(n) for n in (60, 80, 30))
    values = smooth(geometry, sensors, BATCH, 2).to(dtype)
    values[0, :20] = torch.nan
    statics = smooth(geometry, ground, BATCH, 1).to(dtype)
    lattice = geometry.lattice(16)
    g = geometry.log(lattice[0], lattice[6])

    def forecast(move: Callable[[Tensor], Tensor]) -> Tensor:
        start = model.encode(move(sensors), values)
        path = model.rollout(start, model.surroundings(move(ground), statics), [0.0, 0.6, 1.2])
        return model.decode(move(where), path)

    with torch.no_grad():
        here, there = forecast(lambda x: x), forecast(lambda x: geometry.act(g, x))
    assert here.shape == (BATCH, 3, 30, 2) and here.dtype == dtype
    assert float((here[:, 2] - here[:, 0]).norm() / here[:, 0].norm()) > 1e-4
    assert float((there - here).abs().max() / here.abs().max()) < tolerance


@pytest.mark.parametrize("field", FIELDS)
def test_a_model_without_symmetry_does_not_move_with_the_world(geometry: Geometry, field: str) -> None:
    model = forecaster(NoSymmetry(geometry), field, moving=False)
    lattice = geometry.lattice(16)
    g = geometry.log(lattice[0], lattice[6])
    sensors, where = geometry.random_points(60), geometry.random_points(30)
    values, statics = smooth(geometry, sensors, 1, 2).float(), smooth(geometry, sensors, 1, 1).float()
    with torch.no_grad():

        def forecast(move: Callable[[Tensor], Tensor]) -> Tensor:
            around = model.surroundings(move(sensors), statics)
            return model.decode(
                move(where), model.rollout(model.encode(move(sensors), values), around, [1.2])
            )

        here, there = forecast(lambda x: x), forecast(lambda x: geometry.act(g, x))
    assert float((there - here).norm() / here.norm()) > 1e-3
