"""The laws as functions, for a geometry or a network of your own.

    assert_geometry(MyGeometry())
    assert_invariant(geometry, lambda x, z: field(x, z), latents, points)
    assert_equivariant(geometry, lambda z: rollout(dynamics, z, …)[-1], latents)

Inputs are random but seeded. Each function raises an AssertionError that names the law.
"""

import math
from collections.abc import Callable, Mapping
from itertools import permutations

import torch
from torch import Generator, Tensor

from pdeforecast.geometry import Geometry
from pdeforecast.latents import Latents

Law = Callable[[Geometry, Generator], None]

_EXACT = 1e-10
_COUNT = 24


def assert_geometry(geometry: Geometry, seed: int = 0) -> None:
    """Holds `geometry` to every one of `LAWS`."""
    for name in LAWS:
        assert_law(name, geometry, seed)


def assert_law(name: str, geometry: Geometry, seed: int = 0) -> None:
    """Holds `geometry` to one of `LAWS`."""
    try:
        LAWS[name](geometry, Generator().manual_seed(seed))
    except AssertionError as error:
        raise AssertionError(f"{geometry.name}: {name}\n{error}") from error


def assert_invariant(
    geometry: Geometry,
    function: Callable[[Tensor, Latents], Tensor],
    latents: Latents,
    points: Tensor,
    tolerance: float = _EXACT,
    seed: int = 0,
) -> None:
    """f(gx, gz) = f(x, z) for random g; one for each state if poses are per state.

    Args:
        function: of points and latents, a field or (velocities in body frames) a dynamics.
        points: (M, point_dim), or (batch, M, point_dim).
        tolerance: absolute.
    """
    g = _elements(geometry, latents, seed)
    here = function(points, latents)
    there = function(geometry.act(g.to(points), points), moved(geometry, g, latents))
    _close(there, here, tolerance)


def assert_equivariant(
    geometry: Geometry,
    function: Callable[[Latents], Latents],
    latents: Latents,
    tolerance: float = _EXACT,
    seed: int = 0,
) -> None:
    """f(gz) = g f(z) for random g; one for each state if poses are per state.

    Args:
        function: from latents to latents, as a rollout is.
        tolerance: absolute, of contexts and of distances.
    """
    g = _elements(geometry, latents, seed)
    here = moved(geometry, g, function(latents))
    there = function(moved(geometry, g, latents))
    _close(there.contexts, here.contexts, tolerance)
    _same_pose(geometry, there.poses, here.poses, tolerance)


def moved(geometry: Geometry, g: Tensor, latents: Latents) -> Latents:
    """g z: poses move, contexts (in the frames of their poses) do not."""
    return Latents(geometry.act_pose(g.to(latents.poses), latents.poses), latents.contexts, latents.windows)


def lattice_size(geometry: Geometry, most: int = 64) -> int:
    """The largest size ≤ `most` of which `geometry` has a lattice."""
    for count in range(most, 0, -1):
        try:
            geometry.lattice(count)
        except ValueError:
            continue
        return count
    raise AssertionError(f"{geometry.name} has no lattice of at most {most} poses")


def _relative_is_invariant(geometry: Geometry, random: Generator) -> None:
    g, x, p, _ = _some(geometry, random)
    q = p.flip(0)
    gx, gp, gq = geometry.act(g, x), geometry.act_pose(g, p), geometry.act_pose(g, q)
    a = geometry.relative(x, p)
    assert a.shape == (_COUNT, geometry.relative_dim), f"a(x, p) has shape {tuple(a.shape)}"
    _close(geometry.relative(gx, gp), a)
    b = geometry.between(p, q)
    assert b.shape == (_COUNT, geometry.between_dim), f"p⁻¹q has shape {tuple(b.shape)}"
    _close(geometry.between(gp, gq), b)
    _close(b[..., : geometry.relative_dim], geometry.relative(geometry.place(q), p))


def _poses_may_wander(geometry: Geometry, random: Generator) -> None:
    """After a long way, through seams and round the world, a pose is as good as at home."""
    _, _, p, v = _some(geometry, random)
    far = geometry.exp(p, 40 * v / v.norm(dim=-1, keepdim=True))
    _close(geometry.log(far, geometry.exp(far, v)), v)
    _close(geometry.distance(geometry.place(far), far), torch.zeros(_COUNT).double())


def _all_broadcasts(geometry: Geometry, random: Generator) -> None:
    _, x, p, _ = _some(geometry, random)
    a = geometry.relative(x[:, None], p[None, :5])
    d = geometry.distance(x[:, None], p[None, :5])
    for i in range(5):
        _close(a[:, i], geometry.relative(x, p[i]))
        _close(d[:, i], geometry.distance(x, p[i]))
    single = geometry.relative(x.float(), p.float())
    assert single.dtype == torch.float32, f"a(x, p) of float32 is {single.dtype}"


def _distance_is_invariant(geometry: Geometry, random: Generator) -> None:
    g, x, p, _ = _some(geometry, random)
    _close(geometry.distance(geometry.act(g, x), geometry.act_pose(g, p)), geometry.distance(x, p))


def _distance_is_a_distance(geometry: Geometry, random: Generator) -> None:
    _, x, p, v = _some(geometry, random)
    q = geometry.exp(p, v)
    _close(geometry.distance(geometry.place(p), p), torch.zeros(_COUNT).double())
    _close(geometry.distance(geometry.place(q), p), v[:, : geometry.dim].norm(dim=-1))
    _close(geometry.distance(geometry.place(p), q), geometry.distance(geometry.place(q), p))
    assert bool((geometry.distance(x, p) > 0).all()), "two places at no distance"


def _chart_is_normal(geometry: Geometry, random: Generator) -> None:
    """Zero at the pose, as long as the distance, twice differentiable and of full rank there."""
    _, _, p, v = _some(geometry, random)
    x = geometry.place(geometry.exp(p, v))
    _close(geometry.chart(geometry.relative(x, p)).norm(dim=-1), geometry.distance(x, p))
    for pose in p[:3]:

        def chart(point: Tensor, pose: Tensor = pose) -> Tensor:
            return geometry.chart(geometry.relative(point, pose))

        place = geometry.place(pose)
        slope = torch.autograd.functional.jacobian(chart, place)
        curvature = torch.autograd.functional.hessian(lambda point: chart(point).square().sum(), place)
        assert bool(slope.isfinite().all() and curvature.isfinite().all()), "no derivative at the pose"
        if geometry.chart_dim == geometry.dim:
            _close(chart(place), torch.zeros(geometry.dim).double())
            assert int(torch.linalg.matrix_rank(slope)) == geometry.dim, "the chart is singular at the pose"


def _exp_is_invariant(geometry: Geometry, random: Generator) -> None:
    g, _, p, v = _some(geometry, random)
    _same_pose(
        geometry, geometry.exp(geometry.act_pose(g, p), v), geometry.act_pose(g, geometry.exp(p, v)), _EXACT
    )


def _log_is_the_inverse_of_exp(geometry: Geometry, random: Generator) -> None:
    _, _, p, v = _some(geometry, random)
    _close(geometry.log(p, geometry.exp(p, v)), v)


def _carry_is_the_velocity_of_exp(geometry: Geometry, random: Generator) -> None:
    _, _, p, v = _some(geometry, random)
    still = torch.zeros_like(v)
    pushed = torch.func.jvp(lambda u: geometry.exp(p, u), (still,), (v,))
    _close(geometry.carry(p, v), pushed[1])


def _group_acts_affinely(geometry: Geometry, random: Generator) -> None:
    """g(p + ṗ) = gp + (gp)˙ in ambient coordinates: a Runge–Kutta step commutes with g."""
    g, _, p, v = _some(geometry, random)
    gp = geometry.act_pose(g, p)
    _close(geometry.act_pose(g, p + geometry.carry(p, v)), gp + geometry.carry(gp, v))


def _places_move_with_poses(geometry: Geometry, random: Generator) -> None:
    g, _, p, _ = _some(geometry, random)
    _same_place(geometry, geometry.place(geometry.act_pose(g, p)), geometry.act(g, geometry.place(p)))


def _a_lifted_point_keeps_its_place(geometry: Geometry, random: Generator) -> None:
    _, x, _, _ = _some(geometry, random)
    pose = geometry.lift(x)
    _same_place(geometry, geometry.place(pose), x)
    _close(geometry.project(pose), pose)


def _no_place_is_singular(geometry: Geometry, random: Generator) -> None:
    """Among poles, seams, centres and edges, too, the laws hold and gradients are finite."""
    corners = [torch.tensor([low, 0.5 * (low + high), high]) for low, high in geometry.extent.values()]
    x = geometry.embed(torch.cartesian_prod(*corners).view(-1, len(corners)).double())
    for kind, tolerance in ((torch.float64, _EXACT), (torch.float32, 1e-4)):
        points = x.to(kind)[:, None].requires_grad_()
        poses = geometry.lift(x.to(kind)).requires_grad_()
        a = geometry.relative(points, poses)
        distance = geometry.distance(points, poses)
        # Far away, a distance that is known by its cosine only is known to half of the digits.
        loose = tolerance if geometry.chart_dim == geometry.dim else tolerance**0.5
        _close(geometry.chart(a).norm(dim=-1), distance, loose)
        for g in geometry.random_element(3, random).to(kind):
            gx, gp = geometry.act(g, points), geometry.act_pose(g, poses)
            _close(geometry.relative(gx, gp), a, tolerance)
            _close(geometry.distance(gx, gp), distance, 10 * tolerance)
        for seen in (a, geometry.chart(a), distance):
            slopes = torch.autograd.grad(seen.sum(), (points, poses), retain_graph=True, allow_unused=True)
            for slope in slopes:
                assert slope is None or bool(slope.isfinite().all()), "a gradient that is not finite"


def _projection_keeps_poses(geometry: Geometry, random: Generator) -> None:
    _, _, p, _ = _some(geometry, random)
    _close(geometry.project(p), p)


def _weights_sum_to_the_volume(geometry: Geometry, random: Generator) -> None:
    """For regular and irregular axes, with nodes and axes in any order."""
    for axes in (_regular(geometry), _irregular(geometry, random)):
        weights = geometry.weights(axes)
        names = geometry.coordinates[::-1]
        assert weights.shape == tuple(len(axes[name]) for name in names), "weights are not shaped as the grid"
        assert bool((weights >= 0).all()), "a negative weight"
        _close(weights.sum(), torch.tensor(geometry.volume, dtype=torch.float64))
        for order in permutations(axes):
            _close(geometry.weights({name: axes[name] for name in order}), weights)
        for dim, name in enumerate(names):
            shuffle = torch.randperm(len(axes[name]), generator=random)
            shuffled = geometry.weights({**axes, name: axes[name][shuffle]})
            _close(shuffled, weights.index_select(dim, shuffle))


def _axes_never_repeat_a_node(geometry: Geometry, random: Generator) -> None:
    """Not even a periodic one its first; each axis alone, between middle nodes of the others."""
    middle = {name: geometry.axis(name, 5)[2:3] for name in geometry.coordinates}
    for name in geometry.coordinates:
        nodes = geometry.axis(name, 9)
        assert nodes.shape == (9,) and nodes.dtype == torch.float64, f"axis {name} is not 9 float64 numbers"
        places = _nodes(geometry, {**middle, name: nodes})
        apart = geometry.distance(places[:, None], geometry.lift(places)) + torch.eye(9)
        assert float(apart.min()) > 1e-6, f"axis {name} names one place twice"


def _lattice_is_spread_as_the_measure(geometry: Geometry, random: Generator) -> None:
    """Nearest neighbours at like distances, also through a seam, and cells of like measure."""
    count = lattice_size(geometry)
    poses, spacing = geometry.lattice(count), geometry.spacing(count)
    assert poses.shape == (count, geometry.pose_dim), f"lattice({count}) has shape {tuple(poses.shape)}"
    apart = geometry.distance(geometry.place(poses)[:, None], poses).fill_diagonal_(math.inf).amin(-1)
    assert float(apart.min()) > 0.5 * spacing, f"poses {float(apart.min()):.3g} apart, spacing {spacing:.3g}"
    assert float(apart.max()) < 1.5 * spacing, f"a pose {float(apart.max()):.3g} off, spacing {spacing:.3g}"
    axes = _regular(geometry, 1600 if geometry.dim == 1 else 40)
    nearest = geometry.distance(_nodes(geometry, axes)[:, None], poses).argmin(-1)
    cells = torch.zeros(count).double().index_add(0, nearest, geometry.weights(axes).flatten())
    least, most = (float(cell) * count / geometry.volume for cell in cells.aminmax())
    assert least > 0.4 and most < 1.8, f"cells measure {least:.2f} to {most:.2f} of an even share"


def _random_points_follow_the_measure(geometry: Geometry, random: Generator) -> None:
    """The mean of what a pose sees is, over random points, what the measure says."""
    axes = _regular(geometry, 1600 if geometry.dim == 1 else 40)
    pose = geometry.lattice(1)[0]
    grid = geometry.relative(_nodes(geometry, axes), pose)
    exact = (geometry.weights(axes).flatten()[:, None] * grid).sum(0) / geometry.volume
    drawn = geometry.relative(geometry.random_points(20_000, random), pose)
    error = (drawn.mean(0) - exact).abs() / (drawn.std(0) + 1e-9)
    assert float(error.max()) < 0.05, f"means differ by {float(error.max()):.2f} standard deviations"


LAWS: Mapping[str, Law] = {
    "relative(gx, gp) = relative(x, p)": _relative_is_invariant,
    "a pose may wander": _poses_may_wander,
    "all methods broadcast": _all_broadcasts,
    "distance(gx, gp) = distance(x, p)": _distance_is_invariant,
    "distance is zero at the pose only, and symmetric": _distance_is_a_distance,
    "the chart is normal": _chart_is_normal,
    "exp(gp, v) = g exp(p, v)": _exp_is_invariant,
    "log(p, exp(p, v)) = v": _log_is_the_inverse_of_exp,
    "carry(p, v) is the velocity of exp(p, tv)": _carry_is_the_velocity_of_exp,
    "the group acts affinely": _group_acts_affinely,
    "place(gp) = g place(p)": _places_move_with_poses,
    "place(lift(x)) = x": _a_lifted_point_keeps_its_place,
    "no place is singular": _no_place_is_singular,
    "a pose is its own projection": _projection_keeps_poses,
    "weights sum to the volume": _weights_sum_to_the_volume,
    "no axis repeats a node": _axes_never_repeat_a_node,
    "the lattice is spread as the measure is": _lattice_is_spread_as_the_measure,
    "random points follow the measure": _random_points_follow_the_measure,
}
"""What a `Geometry` promises, by name."""


def _some(geometry: Geometry, random: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Elements g, points x, poses p, and velocities v within the injectivity radius."""
    g = geometry.random_element(_COUNT, random)
    x = geometry.random_points(_COUNT, random)
    start = geometry.lattice(lattice_size(geometry))
    pick = torch.randint(len(start), (2, _COUNT), generator=random)
    scale = 0.2 * geometry.spacing(1) / math.sqrt(geometry.dim)
    v = scale * (2 * torch.rand(_COUNT, geometry.velocity_dim, generator=random, dtype=torch.float64) - 1)
    return g, x, geometry.exp(start[pick[0]], v.flip(0)), v


def _elements(geometry: Geometry, latents: Latents, seed: int) -> Tensor:
    """One g for shared poses, else one for each state of the batch."""
    count = 1 if latents.shared else latents.poses.shape[0]
    g = geometry.random_element(count, Generator().manual_seed(seed)).to(latents.poses)
    return g if latents.shared else g[:, None]


def _regular(geometry: Geometry, count: int = 12) -> dict[str, Tensor]:
    return {name: geometry.axis(name, count + i) for i, name in enumerate(geometry.coordinates)}


def _irregular(geometry: Geometry, random: Generator) -> dict[str, Tensor]:
    """A random part of the nodes of a fine regular axis, in random order."""
    fine = {name: geometry.axis(name, 60) for name in geometry.coordinates}
    return {
        name: axis[torch.randperm(60, generator=random)[: 17 + i]]
        for i, (name, axis) in enumerate(fine.items())
    }


def _nodes(geometry: Geometry, axes: Mapping[str, Tensor]) -> Tensor:
    """The points of a grid; the coordinates reversed, as in `Geometry.weights`."""
    names = geometry.coordinates[::-1]
    grid = torch.meshgrid(*(axes[name] for name in names), indexing="ij")
    return geometry.embed(torch.stack([axis.flatten() for axis in reversed(grid)], dim=-1))


def _same_place(geometry: Geometry, x: Tensor, y: Tensor) -> None:
    apart = geometry.distance(x, geometry.lift(y))
    _close(apart, torch.zeros_like(apart))


def _same_pose(geometry: Geometry, p: Tensor, q: Tensor, tolerance: float) -> None:
    step = geometry.log(p, q)
    _close(step, torch.zeros_like(step), tolerance)


def _close(actual: Tensor, expected: Tensor, tolerance: float = _EXACT) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)
