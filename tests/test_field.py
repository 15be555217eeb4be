"""The laws of every field, over geometries and numbers of neighbours."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from pdeforecast.field import EquivariantField
from pdeforecast.geometry import GEOMETRIES, SPACES, Geometry, NoSymmetry
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField
from pdeforecast.neighbours import nearest
from pdeforecast.testing import assert_invariant, moved

VARIANTS = [g for g in GEOMETRIES.values() if g not in SPACES and not isinstance(g, NoSymmetry)]
BATCH, LATENTS, CHANNELS = 3, 16, 2


def equivariant(geometry: Geometry, k: int) -> EquivariantField:
    return EquivariantField(geometry, CHANNELS, 5, 8, 2, k, query_scale=1.0, value_scale=2.0).double()


def linear(geometry: Geometry, k: int) -> LinearField:
    return LinearField(geometry, CHANNELS, 2, k, radius=2 * geometry.spacing(LATENTS))


def equivariant_oracle(field: EquivariantField, points: Tensor, z: Latents) -> Tensor:
    """The definition at one state's points (M, d), a pair (point, latent) at a time."""
    near = nearest(field.geometry, points, z.poses, z.windows, field.neighbours)
    heads = (field.heads, field.hidden)
    content = field.norm(field.stem(z.contexts))
    values = []
    for m, x in enumerate(points):
        logits, mixed = [], []
        for i, window in zip(near.index[m], near.nearness[m], strict=True):
            a = field.geometry.relative(x, z.poses[i])
            q = field.query(field.embed_query(a)).view(heads)
            k = field.key(content[i]).view(heads)
            v = field.value(content[i]).view(heads)
            gamma, beta = field.film(field.embed_value(a)).view(2, *heads)
            v = v * (1 + gamma) + beta
            logits.append((q * k).sum(-1) / math.sqrt(field.hidden) + window)
            mixed.append(torch.stack([mixer(head) for mixer, head in zip(field.mixers, v, strict=True)]))
        attention = torch.stack(logits).softmax(0)
        heads_out = (attention[..., None] * torch.stack(mixed)).sum(0).flatten()
        values.append(field.head(field.block(heads_out)))
    return torch.stack(values)


def linear_oracle(field: LinearField, points: Tensor, z: Latents) -> Tensor:
    """Σᵢ wᵢ φᵢᵀcᵢ at one state's points (M, d), a pair (point, latent) at a time."""
    near = nearest(field.geometry, points, z.poses, z.windows, field.neighbours)
    values = []
    for m, x in enumerate(points):
        weights = near.nearness[m].softmax(0)
        phi = [field.basis(field.geometry.relative(x, z.poses[i])) for i in near.index[m]]
        c = [z.contexts[i].view(field.channels, field.functions) for i in near.index[m]]
        values.append(sum(w * (b @ p) for w, p, b in zip(weights, phi, c, strict=True)))
    return torch.stack(values)


EXACT = {torch.float64: 1e-10, torch.float32: 1e-4}
FIELDS = {"equivariant": equivariant, "linear": linear}
ORACLES = {EquivariantField: equivariant_oracle, LinearField: linear_oracle}

each_variant = pytest.mark.parametrize("space", VARIANTS, ids=lambda g: g.name)
each_k = pytest.mark.parametrize("k", (0, 4, 9))
each_field = pytest.mark.parametrize("make", FIELDS.values(), ids=FIELDS)
each_dtype = pytest.mark.parametrize("dtype", EXACT, ids=str)
each_batching = pytest.mark.parametrize("shared", (True, False), ids=("shared", "per-sample"))

Make = Callable[[Geometry, int], nn.Module]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def latents(geometry: Geometry, context_dim: int, shared: bool = True, window: float = 1.0) -> Latents:
    """A lattice, shaken."""
    lattice = geometry.lattice(LATENTS)
    spacing = geometry.spacing(LATENTS)
    lead = () if shared else (BATCH,)
    poses = geometry.exp(lattice, 0.3 * spacing * normal(*lead, LATENTS, geometry.velocity_dim))
    windows = window * spacing * (1 + 0.2 * torch.rand(LATENTS, dtype=torch.float64))
    return Latents(poses, normal(BATCH, LATENTS, context_dim), windows)


def assert_moves_with_the_world(space: Geometry, field: nn.Module, shared: bool, dtype: torch.dtype) -> None:
    field = field.to(dtype)
    z = latents(space, field.context_dim, shared).map(lambda t: t.to(dtype))
    x = space.random_points(30).to(dtype)
    tolerance = EXACT[dtype]
    for seed in range(3):
        assert_invariant(space, field, z, x, tolerance, seed)


@each_dtype
@each_k
@each_field
@each_batching
def test_moving_the_world_moves_the_field(
    space: Geometry, k: int, make: Make, shared: bool, dtype: torch.dtype
) -> None:
    assert_moves_with_the_world(space, make(space, k), shared, dtype)


@each_dtype
@each_field
@each_variant
def test_variants_move_with_the_world_too(space: Geometry, make: Make, dtype: torch.dtype) -> None:
    assert_moves_with_the_world(space, make(space, 4), True, dtype)


@each_k
def test_without_symmetry_it_does_not(space: Geometry, k: int) -> None:
    field = equivariant(NoSymmetry(space), k)
    z = latents(space, field.context_dim)
    x = space.random_points(30)
    g = space.random_element(1)[0]
    there = moved(space, g, z)
    assert (field(space.act(g, x), there) - field(x, z)).abs().max() > 1e-4


@each_k
@each_field
@each_batching
def test_agrees_with_a_slow_oracle(geometry: Geometry, k: int, make: Make, shared: bool) -> None:
    field = make(geometry, k)
    z = latents(geometry, field.context_dim, shared)
    x = geometry.random_points(7)
    oracle = ORACLES[type(field)]
    slow = torch.stack(
        [
            oracle(field, x, Latents(z.poses if shared else z.poses[b], z.contexts[b], z.windows))
            for b in range(BATCH)
        ]
    )
    torch.testing.assert_close(field(x, z), slow, rtol=0, atol=1e-10)


@each_k
@each_field
def test_shared_geometry_is_only_faster(geometry: Geometry, k: int, make: Make) -> None:
    field = make(geometry, k)
    z = latents(geometry, field.context_dim)
    x = geometry.random_points(20)
    shared = field(x, z)
    assert shared.shape == (BATCH, 20, CHANNELS)
    each = Latents(z.poses.expand(BATCH, -1, -1), z.contexts, z.windows)
    for points, state in ((x.expand(BATCH, -1, -1), z), (x, each), (x.expand(BATCH, -1, -1), each)):
        torch.testing.assert_close(field(points, state), shared, rtol=0, atol=1e-10)


@each_k
@each_field
@each_batching
def test_order_of_latents_changes_nothing(geometry: Geometry, k: int, make: Make, shared: bool) -> None:
    field = make(geometry, k)
    z = latents(geometry, field.context_dim, shared)
    order = torch.randperm(LATENTS)
    x = geometry.random_points(30)
    shuffled = Latents(z.poses[..., order, :], z.contexts[:, order], z.windows[order])
    torch.testing.assert_close(field(x, shuffled), field(x, z), rtol=0, atol=1e-10)


@each_k
@each_field
def test_far_latent_has_no_influence(geometry: Geometry, k: int, make: Make) -> None:
    field = make(geometry, k)
    z = latents(geometry, field.context_dim, window=0.15)
    x = geometry.exp(z.poses[:1], 0.05 * geometry.spacing(LATENTS) * normal(1, geometry.velocity_dim))
    x = geometry.place(x)
    near, far = geometry.distance(x, z.poses).argsort()[[0, -1]]
    changed = z.contexts.clone()
    changed[:, far] += 1
    after = field(x, Latents(z.poses, changed, z.windows))
    torch.testing.assert_close(after, field(x, z), rtol=0, atol=1e-10)
    changed[:, near] += normal(field.context_dim)
    assert (field(x, Latents(z.poses, changed, z.windows)) - after).abs().max() > 1e-4


@each_k
@each_field
@each_batching
def test_decoding_in_chunks_agrees(geometry: Geometry, k: int, make: Make, shared: bool) -> None:
    field = make(geometry, k)
    z = latents(geometry, field.context_dim, shared)
    x = geometry.random_points(31)
    chunks = torch.cat([field(chunk, z) for chunk in x.split(8)], dim=1)
    torch.testing.assert_close(chunks, field(x, z), rtol=0, atol=1e-10)


@pytest.mark.parametrize("k", (4, 9))
@each_field
def test_no_jump_where_neighbours_change(geometry: Geometry, k: int, make: Make) -> None:
    field = make(geometry, k)
    z = latents(geometry, field.context_dim)
    velocity = 2 * geometry.spacing(LATENTS) * normal(geometry.velocity_dim)

    def point(t: float) -> Tensor:
        return geometry.place(geometry.exp(z.poses[0], t * velocity))[None]

    def neighbours(t: float) -> set[int]:
        return set(nearest(geometry, point(t), z.poses, z.windows, k).index[0].tolist())

    changes = [(a, b) for a, b in pairwise(i / 50 for i in range(51)) if neighbours(a) != neighbours(b)]
    assert changes
    for before, after in changes[:3]:
        while after - before > 1e-12:
            middle = (before + after) / 2
            before, after = (middle, after) if neighbours(middle) == neighbours(before) else (before, middle)
        assert (field(point(after), z) - field(point(before), z)).abs().max() < 1e-9


def assert_differentiable_twice(geometry: Geometry, field: nn.Module) -> None:
    """In contexts and in poses, which move and turn."""
    z = latents(geometry, field.context_dim)
    x = geometry.random_points(4)

    def f(contexts: Tensor, velocity: Tensor) -> Tensor:
        return field(x, Latents(geometry.exp(z.poses, velocity), contexts, z.windows))

    rest = torch.zeros(BATCH, LATENTS, geometry.velocity_dim, dtype=torch.float64, requires_grad=True)
    inputs = (z.contexts.requires_grad_(), rest)
    assert torch.autograd.gradcheck(f, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, inputs, fast_mode=True)


@each_k
def test_differentiable_twice(geometry: Geometry, k: int) -> None:
    assert_differentiable_twice(geometry, equivariant(geometry, k))


@each_field
@each_variant
def test_variants_are_differentiable_twice_too(space: Geometry, make: Make) -> None:
    assert_differentiable_twice(space, make(space, 4))


@pytest.mark.parametrize("k", (0, 4))
def test_gathers_nothing_where_all_latents_are_seen(geometry: Geometry, k: int) -> None:
    z = latents(geometry, 5)
    seen = equivariant(geometry, k).look(geometry.random_points(6), z.poses, z.windows)
    assert (seen.index is None) == (k == 0)


def test_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        EquivariantField(SPACES[0], 1, 4, 7, 1, 0, 1.0, 1.0)
