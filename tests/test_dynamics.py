"""The laws of the latent dynamics, over geometries, neighbourhoods and batches."""

from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor, nn

from pdeforecast.dynamics import LatentDynamics
from pdeforecast.geometry import SPACES, Geometry, NoSymmetry
from pdeforecast.latents import Latents
from pdeforecast.rollout import rollout
from pdeforecast.testing import assert_invariant, moved

LATENTS, CONTEXT, STATIC, BATCH = 16, 6, 3, 3

each_k = pytest.mark.parametrize("k", (0, 5, 9, LATENTS))
each_batching = pytest.mark.parametrize("shared", (True, False), ids=("shared", "per-sample"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def dynamics(geometry: Geometry, k: int, blocks: int = 2, moving: bool = True) -> LatentDynamics:
    """Float64, with random heads, scales and projection: nothing is zero, nothing is one."""
    made = LatentDynamics(geometry, CONTEXT, STATIC, 8, blocks, geometry.spacing(LATENTS), k, moving).double()
    for head in filter(None, (made.context_head, made.pose_head)):
        nn.init.normal_(head.weight, std=0.2)
        nn.init.normal_(head.bias, std=0.2)
    made.context_scale.uniform_(0.5, 2)
    made.static_scale.uniform_(0.5, 2)
    made.rate.fill_(0.7)
    return made


def latents(geometry: Geometry, shared: bool) -> Latents:
    """Poses off the lattice, so that no two distances are alike."""
    shape = (LATENTS,) if shared else (BATCH, LATENTS)
    shake = 0.3 * geometry.spacing(LATENTS) * torch.randn(*shape, geometry.velocity_dim, dtype=torch.float64)
    poses = geometry.exp(geometry.lattice(LATENTS), shake)
    contexts = torch.randn(BATCH, LATENTS, CONTEXT, dtype=torch.float64)
    return Latents(poses, contexts, torch.ones(LATENTS, dtype=torch.float64))


def static() -> Tensor:
    return torch.randn(BATCH, LATENTS, STATIC, dtype=torch.float64)


def close(actual: Tensor, expected: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def oracle(f: LatentDynamics, z: Latents, around: Tensor) -> Tensor:
    """Body-frame velocities and dc/dt (batch, N, dim + context), a pair of latents at a time."""
    geometry, out = f.geometry, []

    def neighbourhoods(poses: Tensor) -> list[list[tuple[int, Tensor, Tensor]]]:
        """For each i, its k nearest j with their kernel basis and window."""
        away = geometry.distance(geometry.place(poses), poses[:, None])
        rows: list[list[tuple[int, Tensor, Tensor]]] = []
        for i in range(LATENTS):
            rows.append([])
            for j in away[i].argsort()[: f.neighbours or LATENTS].tolist():
                waves = geometry.between(poses[i], poses[j]) @ f.frequencies
                basis = f.kernel_basis(torch.cat([waves.cos(), waves.sin()]))
                rows[i].append((j, basis, torch.exp(-((away[i, j] / f.spacing) ** 2) / 2)))
        return rows

    for b in range(BATCH):
        rows = neighbourhoods(z.poses if z.shared else z.poses[b])

        def send(h: Tensor, number: int, local: bool, rows: list = rows) -> Tensor:
            received = torch.zeros_like(h)
            for i, row in enumerate(rows):
                for j, basis, window in row:
                    received[i] += f.kernels[number](basis) * h[j] * (window if local else len(row) ** -0.5)
            return received

        x = torch.cat([z.contexts[b] / f.context_scale, around[b] / f.static_scale], -1)
        h = f.stem(x)
        for n, block in enumerate(f.blocks):
            gate = block.gate(send(h, 2 * n, local=False))
            gate = gate / (1 + (gate / 4) ** 4) ** 0.25
            h = h + block.mix(gate * block.value(h + send(h, 2 * n + 1, local=True)))
        last = 2 * len(f.blocks)
        features = torch.cat([h + send(h, last, local=True), x + send(x, last + 1, local=True)], -1)
        pose = f.pose_head(features) * f.spacing
        out.append(f.rate * torch.cat([pose, f.context_head(features) * f.context_scale], -1))
    return torch.stack(out)


def joined(f: LatentDynamics, z: Latents, around: Tensor) -> Tensor:
    return torch.cat(f(z, around), dim=-1)


@each_k
@each_batching
def test_agrees_with_the_slow_oracle(geometry: Geometry, k: int, shared: bool) -> None:
    f, z, around = dynamics(geometry, k), latents(geometry, shared), static()
    with torch.no_grad():
        close(joined(f, z, around), oracle(f, z, around))


@each_k
@each_batching
@pytest.mark.parametrize(
    ("dtype", "tolerance"), ((torch.float64, 1e-10), (torch.float32, 1e-4)), ids=("double", "single")
)
def test_velocities_in_body_frames_are_invariant(
    space: Geometry, k: int, shared: bool, dtype: torch.dtype, tolerance: float
) -> None:
    f, z, around = dynamics(space, k).to(dtype), latents(space, shared), static().to(dtype)
    z, points = z.map(lambda t: t.to(dtype)), space.random_points(1)
    for seed in range(3):
        assert_invariant(space, lambda _, z: joined(f, z, around), z, points, tolerance, seed)


def has_whole_shells(geometry: Geometry, k: int) -> bool:
    """Whether of no latent on the lattice the k-th nearest is as far as the next one."""
    poses = geometry.lattice(LATENTS)
    distance = geometry.distance(geometry.place(poses), poses[:, None]).sort(-1).values
    return k == 0 or float((distance[:, k] - distance[:, k - 1]).min()) > 1e-6


@pytest.mark.parametrize(
    ("space", "k"),
    [(space, k) for space in SPACES for k in (0, 5, 9) if has_whole_shells(space, k)],
    ids=lambda given: getattr(given, "name", str(given)),
)
def test_the_lattice_is_as_good_as_any_place(space: Geometry, k: int) -> None:
    """Many latents are equally far there: whole shells of neighbours, so that ties decide nothing."""
    f, z, around = dynamics(space, k), latents(space, True), static()
    z = Latents(space.lattice(LATENTS), z.contexts, z.windows)
    assert_invariant(space, lambda _, z: joined(f, z, around), z, space.random_points(1))


@each_batching
def test_without_symmetry_velocities_depend_on_the_place(space: Geometry, shared: bool) -> None:
    f, z, around = dynamics(NoSymmetry(space), 0), latents(space, shared), static()
    g = space.random_element(1)
    with torch.no_grad():
        here, there = joined(f, z, around), joined(f, moved(space, g, z), around)
    assert float((there - here).norm() / here.norm()) > 0.1


@each_k
@each_batching
def test_the_order_of_latents_changes_nothing(geometry: Geometry, k: int, shared: bool) -> None:
    f, z, around = dynamics(geometry, k), latents(geometry, shared), static()
    order = torch.randperm(LATENTS, generator=Generator().manual_seed(1))
    shuffled = Latents(z.poses[..., order, :], z.contexts[:, order], z.windows[order])
    close(joined(f, shuffled, around[:, order]), joined(f, z, around)[:, order])


@each_k
def test_shared_poses_and_poses_per_sample_agree(geometry: Geometry, k: int) -> None:
    """The dense product, the edge list of all pairs and the disjoint union are one sum."""
    f, z, around = dynamics(geometry, k), latents(geometry, True), static()
    own = Latents(z.poses.expand(BATCH, -1, -1), z.contexts, z.windows)
    close(joined(f, own, around), joined(f, z, around))


def test_all_neighbours_are_all(geometry: Geometry) -> None:
    f, z, around = dynamics(geometry, 0), latents(geometry, True), static()
    for k in (LATENTS, LATENTS + 5):
        f.neighbours = k
        close(joined(f, z, around), joined(dynamics_like(f, 0), z, around), 0)


def dynamics_like(f: LatentDynamics, k: int) -> LatentDynamics:
    twin = dynamics(f.geometry, k)
    twin.load_state_dict(f.state_dict())
    return twin


def test_only_neighbours_of_neighbours_are_heard(geometry: Geometry) -> None:
    """Without blocks, dc/dt of a latent depends on its k nearest alone."""
    f, z, around = dynamics(geometry, 5, blocks=0), latents(geometry, True), static()
    away = geometry.distance(geometry.place(z.poses), z.poses[:, None])
    near = away.topk(5, largest=False).indices
    contexts = z.contexts.clone()
    contexts[:, 3] += 1
    with torch.no_grad():
        change = joined(f, Latents(z.poses, contexts, z.windows), around) - joined(f, z, around)
    change = change.abs().amax((0, 2))
    hears = (near == 3).any(-1)
    assert bool((change[hears] > 0).all()) and float(change[~hears].max()) < 1e-12


@each_batching
def test_states_of_a_batch_do_not_mix(geometry: Geometry, shared: bool) -> None:
    f, z, around = dynamics(geometry, 5), latents(geometry, shared), static()
    together = joined(f, z, around)
    for b in range(BATCH):
        poses = z.poses if shared else z.poses[b : b + 1]
        one = Latents(poses, z.contexts[b : b + 1], z.windows)
        close(joined(f, one, around[b : b + 1])[0], together[b])
    close(joined(f, z, around[:1]), joined(f, z, around[:1].expand(BATCH, -1, -1)))


@pytest.mark.parametrize("blocks", (1, 3))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32))
def test_velocities_grow_at_most_linearly(geometry: Geometry, blocks: int, dtype: torch.dtype) -> None:
    f, z = dynamics(geometry, 0, blocks).to(dtype), latents(geometry, True).map(lambda t: t.to(dtype))
    around = static().to(dtype)
    sizes = []
    for scale in (1e3, 1e6):
        velocity = joined(f, Latents(z.poses, scale * z.contexts, z.windows), around)
        assert bool(velocity.isfinite().all())
        sizes.append(float(velocity.detach().norm()) / scale)
    assert max(sizes) < 2 * min(sizes)


def confined(f: LatentDynamics, local: float, all_of_them: float) -> LatentDynamics:
    twin = deepcopy(f)
    twin.reach.copy_(torch.tensor([local, all_of_them], dtype=torch.float64))
    return twin


@each_batching
@pytest.mark.parametrize("reach", ((0.8, 9.0), (9.0, 0.8), (0.9, 0.7)))
def test_beyond_their_reach_states_are_drawn_back(
    space: Geometry, shared: bool, reach: tuple[float, float]
) -> None:
    """F(c̃) + 2 rate (c̃ − c), with c̃ a latent at a time; and in body frames that is invariant."""
    f, z, around = dynamics(space, 5), latents(space, shared), static()
    held = z.contexts / f.context_scale
    for b in range(BATCH):
        for i in range(LATENTS):
            held[b, i] *= min(1.0, reach[0] / float(held[b, i].square().mean().sqrt()))
        held[b] *= min(1.0, reach[1] / float(held[b].square().mean().sqrt()))
    held = held * f.context_scale
    assert float((held - z.contexts).norm()) > 0.1
    back = torch.zeros_like(joined(f, z, around))
    back[..., -CONTEXT:] = 2 * f.rate * (held - z.contexts)
    near = confined(f, *reach)
    close(joined(near, z, around), joined(f, Latents(z.poses, held, z.windows), around) + back)
    assert_invariant(space, lambda _, z: joined(near, z, around), z, space.random_points(1))


def test_within_their_reach_states_know_nothing_of_it(geometry: Geometry) -> None:
    f, z, around = dynamics(geometry, 5), latents(geometry, True), static()
    sizes = (z.contexts / f.context_scale).square().mean(-1)
    reach = 1.001 * sizes.max().sqrt(), 1.001 * sizes.mean(-1).max().sqrt()
    close(joined(confined(f, *map(float, reach)), z, around), joined(f, z, around), 0)


def test_no_rollout_leaves_its_reach_far_behind(geometry: Geometry) -> None:
    """A network that makes states grow without end makes them grow no more."""
    f, z, around = dynamics(geometry, 0, moving=False), latents(geometry, True), static()

    def size(f: LatentDynamics, time: float) -> float:
        late = rollout(f, z, lambda _: around, [time])[0].contexts
        return float((late / f.context_scale).square().mean().sqrt())

    with torch.no_grad():
        nn.init.normal_(f.context_head.weight, std=1.0)
        assert not size(f, 60.0) < 1e3, "without it, the state grows"
        near = confined(f, 3.0, 2.0)
        assert max(size(near, time) for time in (20.0, 60.0, 300.0)) < 20


def test_small_states_meet_a_product_and_not_a_saturation(geometry: Geometry) -> None:
    """One block and no biases: a part of first degree and a part of second, to fourth order."""
    f, z = dynamics(geometry, 0, blocks=1), latents(geometry, True)
    for layer in (f.stem, f.blocks[0].gate, f.blocks[0].value, f.context_head, f.pose_head):
        nn.init.zeros_(layer.bias)

    def even(scale: float) -> Tensor:
        plus, minus = (Latents(z.poses, s * z.contexts, z.windows) for s in (scale, -scale))
        none = torch.zeros(1, LATENTS, STATIC, dtype=torch.float64)
        return (joined(f, plus, none) + joined(f, minus, none)).detach() / scale**2

    small = even(1e-3)
    assert float(small.norm()) > 0.01
    assert float((even(2e-3) - small).norm() / small.norm()) < 1e-8


@each_batching
def test_the_projection_keeps_changes_visible(geometry: Geometry, shared: bool) -> None:
    f, z, around = dynamics(geometry, 0, moving=False), latents(geometry, shared), static()
    channels, functions = 2, CONTEXT // 2
    _, free = f(z, around)
    basis = torch.linalg.qr(torch.randn(channels, LATENTS * functions, 5, dtype=torch.float64))[0]
    f.visible = basis @ basis.mT
    still, seen = f(z, around)
    assert float(still.abs().max()) == 0
    for v in range(channels):
        part = free.unflatten(-1, (channels, functions))[:, :, v].flatten(1)
        projected = seen.unflatten(-1, (channels, functions))[:, :, v].flatten(1)
        close(projected, part @ f.visible[v].T)


@each_batching
def test_derivatives_are_exact(geometry: Geometry, shared: bool) -> None:
    """By contexts, by statics, and by poses away from ties."""
    f, z, around = dynamics(geometry, 9), latents(geometry, shared), static()
    push = torch.randn(*z.poses.shape[:-1], geometry.velocity_dim, dtype=torch.float64)
    move, shift = torch.randn_like(z.contexts), torch.randn_like(around)

    def output(t: Tensor) -> Tensor:
        poses = geometry.exp(z.poses, 0.01 * t * push)
        return joined(f, Latents(poses, z.contexts + t * move, z.windows), around + t * shift).square().sum()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(output(t), t)
    with torch.no_grad():
        step = torch.tensor(1e-5, dtype=torch.float64)
        difference = (output(step) - output(-step)) / (2 * step)
    assert float(slope) == pytest.approx(float(difference), rel=1e-5)


def test_an_untrained_dynamics_stands_still(geometry: Geometry) -> None:
    f = LatentDynamics(geometry, CONTEXT, STATIC, 8, 1, geometry.spacing(LATENTS), 0, True).double()
    assert not joined(f, latents(geometry, True), static()).any()
