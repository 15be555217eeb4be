"""The laws of a rollout, over geometries, methods of integration, and poses that move or do not."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from pdeforecast.config import AttentionFieldConfig, DynamicsConfig, ForecasterConfig, LinearFieldConfig
from pdeforecast.dynamics import LatentDynamics
from pdeforecast.encoder import MetaSGD
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import SPACES, Geometry, NoSymmetry
from pdeforecast.latents import Latents
from pdeforecast.principal import PrincipalSGD
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
    return lambda poses: geometry.between(poses, landmark.to(poses))[..., :STATIC].expand(BATCH, -1, -1)


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
    with torch.no_grad():
        g = space.random_element(1)
        here = run(f, z, [0.4, 1.7], method=method)
        there = run(f, moved(space, g, z), [0.4, 1.7], method=method, around=world(space, g))
    for a, b in zip(there, here, strict=True):
        close(a, moved(space, g, b))


@each_method
@each_moving
def test_moving_the_world_moves_a_rollout_in_single_precision(
    space: Geometry, method: str, moving: bool
) -> None:
    f, z = dynamics(space, moving).float(), latents(space, shared=False).map(Tensor.float)
    nowhere = torch.randn(BATCH, LATENTS, STATIC)

    def rolled(z: Latents) -> Latents:
        return run(f, z, [1.7], method=method, around=lambda _: nowhere)[0]

    with torch.no_grad():
        assert_equivariant(space, rolled, z, 1e-4)


def test_adaptive_steps_do_not_depend_on_where_the_world_lies(space: Geometry) -> None:
    """A position may be a large number; that makes an error of it no smaller.

    The first step is guessed from the size of the state, so results agree as closely as the tolerance
    bids and no better.
    """
    f, z = dynamics(space, True), latents(space)
    assert f.pose_head is not None
    f.pose_head.weight.data *= 10
    nn.init.zeros_(f.context_head.weight)
    g = space.random_element(1)[0]
    if space.pose_dim == space.dim:
        g = g * torch.tensor([1000.0, -700.0], dtype=torch.float64)
    with torch.no_grad():
        (here,) = run(f, z, [2.0], method="dopri5", tolerance=1e-7)
        (there,) = run(f, moved(space, g, z), [2.0], method="dopri5", tolerance=1e-7, around=world(space, g))
    close(there, moved(space, g, here), 1e-9)


def test_poses_travel(space: Geometry) -> None:
    """The laws above are about something."""
    f, z = dynamics(space, True), latents(space)
    with torch.no_grad():
        (end,) = run(f, z, [2.0])
    way = space.log(z.poses, end.poses)
    assert float(way[..., : space.dim].norm(dim=-1).median()) > 0.1 * space.spacing(LATENTS)
    assert space.velocity_dim == space.dim or float(way[..., space.dim :].norm(dim=-1).median()) > 0.01
    (held,) = run(dynamics(space, False), z, [2.0])
    assert held.poses is z.poses


class Drift(nn.Module):
    """Stands for a dynamics: body-frame velocities that never change."""

    moving = True

    def __init__(self, geometry: Geometry, velocity: Tensor) -> None:
        super().__init__()
        self.geometry = geometry
        self.body = velocity

    def look(self, poses: Tensor) -> None:
        return None

    def velocity(self, graph: None, contexts: Tensor, static: Tensor) -> tuple[Tensor, Tensor]:
        return self.body.expand(len(contexts), -1, -1), torch.ones_like(contexts)


def drift(geometry: Geometry) -> Drift:
    """Up to half a radian, or half a spacing, per unit of time."""
    velocity = torch.rand(LATENTS, geometry.velocity_dim, dtype=torch.float64) - 0.5
    velocity[:, : geometry.dim] *= geometry.spacing(LATENTS)
    return Drift(geometry, velocity)


def drifted(geometry: Geometry, poses: Tensor, velocity: Tensor, time: float) -> Tensor:
    """Poses (N, pose_dim) after a time at constant velocities: the exponential of p ↦ carry(p, v)."""
    still = torch.zeros(geometry.pose_dim, dtype=torch.float64)
    ends = []
    for p, v in zip(poses, velocity, strict=True):
        generator = torch.zeros(len(still) + 1, len(still) + 1, dtype=torch.float64)
        generator[:-1, :-1] = torch.autograd.functional.jacobian(lambda p, v=v: geometry.carry(p, v), still)
        generator[:-1, -1] = geometry.carry(still, v)
        ends.append(((time * generator).matrix_exp() @ torch.cat([p, torch.ones(1).double()]))[:-1])
    return torch.stack(ends)


def error_of_steps(velocity: Tensor, time: float, step: float, order: int) -> float:
    """What a method of this order may be off at constant velocities: as many remainders as steps."""
    speed = float(velocity.norm(dim=-1).max())
    return 1e-9 + time * speed * (speed * step) ** order


def can_drift_off(geometry: Geometry) -> bool:
    """Whether there are ambient coordinates of no pose; then projections, though tiny, are no identity."""
    pose = 1.01 * geometry.lattice(1)
    return not torch.equal(geometry.project(pose), pose)


@pytest.mark.parametrize("space", [g for g in SPACES if can_drift_off(g)], ids=lambda g: g.name)
@pytest.mark.parametrize("method", ("euler", "rk4"))
def test_poses_stay_poses_for_a_thousand_steps(space: Geometry, method: str) -> None:
    """While they go once round the world, and turn by up to 25 radians."""
    f, z = drift(space), latents(space)
    with torch.no_grad():
        (end,) = run(f, z, [50.0], method=method, step=0.05)
    torch.testing.assert_close(space.project(end.poses), end.poses, rtol=0, atol=1e-12)
    step = space.log(end.poses, space.exp(end.poses, f.body))
    torch.testing.assert_close(step, f.body.expand(BATCH, -1, -1), rtol=0, atol=1e-6)
    if method == "rk4":
        off = space.log(drifted(space, z.poses, f.body, 50.0), end.poses).norm(dim=-1).max()
        assert float(off) < error_of_steps(f.body, 50.0, 0.05, 4)


@pytest.mark.parametrize("method", ORDERS)
@each_moving
def test_a_rollout_continues(geometry: Geometry, method: str, moving: bool) -> None:
    """Exactly; where poses are projected between the two, within the error of the steps themselves."""
    f, z = dynamics(geometry, moving), latents(geometry)
    with torch.no_grad():
        (half,) = run(f, z, [0.75], method=method)
        (rest,) = run(f, half, [1.25], method=method)
        (whole,) = run(f, z, [2.0], method=method)
        (finer,) = run(f, z, [2.0], method=method, step=0.125)
    if not (moving and can_drift_off(geometry)):
        close(rest, whole)
        return
    error = max(float((finer.contexts - whole.contexts).abs().max()), pose_error(geometry, finer, whole))
    close(rest, whole, error)
    assert error < {"euler": 0.5, "midpoint": 0.02, "rk4": 1e-3}[method]


def pose_error(geometry: Geometry, a: Latents, b: Latents) -> float:
    return float(geometry.log(a.poses, b.poses).norm())


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
    f.spacing *= 0.5  # Of antipodes, whose distance is not smooth, nothing is heard.
    if f.pose_head is not None and order == 1:
        # Euler dilates a frame that turns steadily, and the projection undoes just that: the order
        # shows in velocities that change.
        f.pose_head.weight.data *= 5
    finest = 1 / 64 if order < 4 else 1 / 32
    with torch.no_grad():
        a, b, c = (run(f, z, [1.0], method=method, step=finest * s)[0] for s in (4, 2, 1))
    observed = math.log2(float((a.contexts - b.contexts).norm() / (b.contexts - c.contexts).norm()))
    assert observed == pytest.approx(order, abs=0.2)
    if moving:
        observed = math.log2(pose_error(geometry, a, b) / pose_error(geometry, b, c))
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
    # A projection, even of what is a pose already, rounds.
    close(ordered[0.0], z, 1e-14 if moving and can_drift_off(geometry) else 0)


@each_method
def test_a_time_is_what_it_is_whatever_else_is_asked(geometry: Geometry, method: str) -> None:
    """A time between other requested ones is right for a known solution: constant velocities."""
    f, z = drift(geometry), latents(geometry)
    times = [0.1, 1 / 3, 0.7, 5.9]
    order = ORDERS.get(method, 4)
    with torch.no_grad():
        for time, state in zip(times, run(f, z, times, method=method, tolerance=1e-9), strict=True):
            end = drifted(geometry, z.poses, f.body, time).expand(BATCH, -1, -1)
            torch.testing.assert_close(state.contexts, z.contexts + time, rtol=0, atol=1e-9)
            exact = not can_drift_off(geometry)
            allowed = 1e-9 if exact else error_of_steps(f.body, time, 0.25, order)
            torch.testing.assert_close(state.poses, end, rtol=0, atol=allowed)


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
    turn, weight = torch.randn_like(f.stem.weight), torch.randn_like(z.poses)

    def output(t: Tensor) -> Tensor:
        start = Latents(geometry.exp(z.poses, 0.01 * t * push), z.contexts + t * move, z.windows)
        nudged = torch.func.functional_call(
            Rollout(f), {"f.stem.weight": f.stem.weight + t * turn}, (start, method)
        )
        return nudged.contexts.square().sum() + (weight * nudged.poses).square().sum()

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


LINEAR = LinearFieldConfig(latents=16, degree=1, neighbours=4, rank=24)
ATTENTION = AttentionFieldConfig(latents=16, context_dim=4, hidden=8, heads=2, neighbours=4, steps=2)
FIELDS = {"linear": LINEAR, "attention": ATTENTION}

each_field = pytest.mark.parametrize("field", FIELDS)
each_precision = pytest.mark.parametrize(
    ("dtype", "tolerance"), ((torch.float64, 1e-8), (torch.float32, 1e-4)), ids=("double", "single")
)


@pytest.fixture
def _small_statics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdeforecast.forecaster._STATIC", LinearFieldConfig(latents=16, degree=1))


def forecaster(geometry: Geometry, field: str, moving: bool, dtype: torch.dtype) -> Forecaster:
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
        if not isinstance(encoder, MetaSGD):
            encoder.noise.fill_(1e-2)
    if isinstance(made.encoder, MetaSGD):
        nn.init.normal_(made.encoder.context)
        for parameter in made.field.parameters():
            parameter.data *= 2 if parameter.ndim == 2 else 1
    with_random_heads(made.dynamics)
    return (made.double() if dtype == torch.float64 else made).eval().prepare()


def with_random_modes(model: Forecaster) -> Forecaster:
    """As if its states lay in a few directions, and moved linearly in part."""
    if isinstance(model.encoder, PrincipalSGD) and model.linear is not None:
        model.encoder.modes.normal_(std=0.3)
        model.linear.generator[:-1] = 0.02 * torch.randn_like(model.linear.generator[:-1])
    return model.prepare()


def with_lattice_moved(model: Forecaster, space: Geometry, g: Tensor) -> Forecaster:
    """The model whose latents start from g times its lattice."""
    twin = deepcopy(model)
    for encoder in (twin.encoder, twin.static_encoder):
        name = "lattice" if isinstance(encoder, MetaSGD) else "poses"
        setattr(encoder, name, space.act_pose(g.to(getattr(encoder, name)), getattr(encoder, name)))
    return twin


def smooth(geometry: Geometry, points: Tensor, batch: int, channels: int) -> Tensor:
    """Fields (batch, M, channels) that are linear in what one pose sees."""
    seen = geometry.relative(points, geometry.lattice(1)[0])
    return seen @ torch.randn(batch, seen.shape[-1], channels, dtype=torch.float64)


def forecasts(here: Forecaster, there: Forecaster, space: Geometry, g: Tensor) -> tuple[Tensor, Tensor]:
    """What one model makes of a state with gaps and statics, and another of both moved by g."""
    sensors, ground, where = (space.random_points(n) for n in (60, 80, 30))
    values = smooth(space, sensors, BATCH, 2).to(here.mean)
    values[0, :20] = torch.nan
    statics = smooth(space, ground, BATCH, 1).to(here.mean)

    def forecast(model: Forecaster, move: Callable[[Tensor], Tensor]) -> Tensor:
        start = model.encode(move(sensors), values)
        path = model.rollout(start, model.surroundings(move(ground), statics), [0.0, 0.6, 1.2])
        return model.decode(move(where), path)

    with torch.no_grad():
        return forecast(here, lambda x: x), forecast(there, lambda x: space.act(g, x))


def assert_alike(here: Tensor, there: Tensor, tolerance: float) -> None:
    assert here.shape == (BATCH, 3, 30, 2)
    assert float((here[:, 2] - here[:, 0]).norm() / here[:, 0].norm()) > 1e-4
    assert float((there - here).abs().max() / here.abs().max()) < tolerance


@each_field
@each_moving
@each_precision
@pytest.mark.usefixtures("_small_statics")
def test_moving_state_and_statics_moves_the_forecast(
    periodic: tuple[Geometry, Tensor], field: str, moving: bool, dtype: torch.dtype, tolerance: float
) -> None:
    """F(g·u, g·f) = g·F(u, f), for the g that move the lattice onto itself."""
    space, g = periodic
    model = forecaster(space, field, moving, dtype)
    here, there = forecasts(model, model, space, g)
    assert here.dtype == dtype
    assert_alike(here, there, tolerance)


@each_field
@each_moving
@each_precision
@pytest.mark.usefixtures("_small_statics")
def test_moving_state_statics_and_lattice_moves_the_forecast(
    space: Geometry, field: str, moving: bool, dtype: torch.dtype, tolerance: float
) -> None:
    """For all g."""
    model = with_random_modes(forecaster(space, field, moving, dtype))
    g = space.random_element(1)[0]
    assert_alike(*forecasts(model, with_lattice_moved(model, space, g), space, g), tolerance)


@each_field
@pytest.mark.usefixtures("_small_statics")
def test_a_model_without_symmetry_does_not_move_with_the_world(space: Geometry, field: str) -> None:
    model = forecaster(NoSymmetry(space), field, moving=False, dtype=torch.float32)
    g = space.random_element(1)[0]
    here, there = forecasts(model, with_lattice_moved(model, space, g), space, g)
    assert float((there - here).norm() / here.norm()) > 1e-3
