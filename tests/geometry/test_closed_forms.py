"""Each space against what is known of it by formula."""

import math

import pytest
import torch
from torch import Generator, Tensor

from pdeforecast.geometry import Ball, Cylinder, Plane, RotatingSphere, Sphere
from pdeforecast.testing import assert_geometry

SPHERE, ROTATING, BALL = Sphere(), RotatingSphere(), Ball()
COUNT = 40


def random(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def places(count: int = COUNT, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random coordinates (longitude, latitude) in degrees, and their points."""
    uniform = torch.rand(count, 2, generator=random(seed), dtype=torch.float64)
    coordinates = torch.stack([360 * uniform[:, 0], 180 * uniform[:, 1] - 90], dim=-1)
    return coordinates, SPHERE.embed(coordinates)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor, expected: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def test_coordinates_are_where_they_should_be() -> None:
    names = torch.tensor([[0, 0], [90, 0], [180, 0], [10, 90], [70, -90]], dtype=torch.float64)
    expected = torch.tensor([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    close(SPHERE.embed(names), expected)
    radius = torch.tensor([[0.0], [0.2], [0.5], [1.0], [1.0]], dtype=torch.float64)
    close(BALL.embed(torch.cat([names, radius], dim=-1)), radius * expected)


def test_distances_are_those_of_the_haversine_formula() -> None:
    (here, x), (there, y) = places(seed=1), places(seed=2)
    (a, b), (c, d) = here.deg2rad().T, there.deg2rad().T
    haversine = torch.sin((d - b) / 2) ** 2 + b.cos() * d.cos() * torch.sin((c - a) / 2) ** 2
    expected = 2 * haversine.sqrt().asin()
    for space in (SPHERE, ROTATING):
        close(space.distance(x, space.lift(y)), expected)


def test_areas_of_latitude_bands() -> None:
    """2π (sin φ₂ − sin φ₁), whatever the longitudes."""
    longitude = numbers(0.0, 10.0, 200.0, 359.0)
    latitude = numbers(-80.0, -60.0, 10.0, 20.0, 90.0)
    edges = numbers(-90.0, -70.0, -25.0, 15.0, 55.0, 90.0).deg2rad()
    for space in (SPHERE, ROTATING):
        bands = space.weights({"longitude": longitude, "latitude": latitude}).sum(1)
        close(bands, 2 * math.pi * edges.sin().diff())


def test_volumes_of_shells() -> None:
    """4π/3 (r₂³ − r₁³)."""
    axes = {name: BALL.axis(name, 7) for name in BALL.coordinates[:2]}
    radius = numbers(0.1, 0.5, 0.7, 1.0)
    edges = numbers(0.0, 0.3, 0.6, 0.85, 1.0)
    close(BALL.weights({**axes, "radius": radius}).sum((1, 2)), 4 * math.pi / 3 * (edges**3).diff())


def test_areas_of_strips() -> None:
    nodes = numbers(0.2, 0.4, 0.9)
    close(Cylinder().weights({"x": nodes, "y": nodes}).sum(1), numbers(0.3, 0.35, 0.35))
    nodes = numbers(-2.0, 0.0, 1.0)
    close(Plane().weights({"x": nodes, "y": nodes}).sum(1), 6 * numbers(2.0, 1.5, 2.5))


@pytest.mark.parametrize("axis", ((0.0, 0.0, 1.0), (0.6, 0.0, -0.8)))
def test_a_planet_sees_both_latitudes_and_the_difference_of_longitudes(
    axis: tuple[float, float, float],
) -> None:
    """About any axis; the frame of a pose may be turned as it likes."""
    planet, tilt = RotatingSphere(axis), SPHERE.lift(numbers(*axis))
    (there, x), (here, y) = places(seed=1), places(seed=2)
    turn = 6 * torch.rand(COUNT, 3, generator=random(3), dtype=torch.float64) * numbers(0, 0, 1)
    p = SPHERE.exp(SPHERE.lift(y), turn)
    seen, pole = planet.relative(SPHERE.act(tilt, x), SPHERE.act_pose(tilt, p)).split(3, dim=-1)
    (lambda_x, phi_x), (lambda_p, phi_p) = there.deg2rad().T, here.deg2rad().T
    across = phi_x.cos() * phi_p.cos()
    close((seen * pole).sum(-1), phi_x.sin())
    close(pole[:, 2], phi_p.sin())
    close((seen[:, 2] - phi_x.sin() * phi_p.sin()) / across, (lambda_x - lambda_p).cos())
    east = torch.linalg.cross(numbers(0, 0, 1).expand_as(seen), seen)
    close((pole * east).sum(-1) / across, (lambda_x - lambda_p).sin())


def test_tilting_world_and_axis_together_changes_nothing() -> None:
    (_, x), (_, y) = places(seed=1), places(seed=2)
    p, q = SPHERE.lift(x), SPHERE.random_element(COUNT, random(3))
    for g in SPHERE.random_element(5, random(4)):
        n = SPHERE.act(g, ROTATING.axis_vector)
        there = RotatingSphere(tuple(n.tolist()))
        gy, gp, gq = SPHERE.act(g, y), SPHERE.act_pose(g, p), SPHERE.act_pose(g, q)
        close(there.relative(gy, gp), ROTATING.relative(y, p))
        close(there.between(gp, gq), ROTATING.between(p, q))
        turn = there.random_element(3, random(6))
        close(SPHERE.act(turn, n.expand(3, -1)), n.expand(3, -1))


def test_a_tilted_planet_keeps_the_promise() -> None:
    assert_geometry(RotatingSphere((0.6, 0.0, -0.8)))


def test_a_tilt_of_the_world_alone_is_seen() -> None:
    (_, x), (_, y) = places(seed=1), places(seed=2)
    g = SPHERE.random_element(1, random(4))
    a = ROTATING.relative(x, SPHERE.lift(y))
    there = ROTATING.relative(SPHERE.act(g, x), SPHERE.act_pose(g, SPHERE.lift(y)))
    close(there[:, :3], a[:, :3])
    assert float((there - a).abs().max()) > 0.1


def test_a_pose_in_the_ball_sees_its_radius() -> None:
    x, y = BALL.random_points(2 * COUNT, random(1)).split(COUNT)
    frames = SPHERE.random_element(COUNT, random(2))
    for p in (torch.cat([y, frames], dim=-1), BALL.lift(y)):
        a = BALL.relative(x, p)
        close(a[:, 3:].norm(dim=-1), y.norm(dim=-1))
        close((a[:, :3] + a[:, 3:]).norm(dim=-1), x.norm(dim=-1))
        close(a[:, :3].norm(dim=-1), (x - y).norm(dim=-1))


def test_nothing_is_singular_at_the_centre() -> None:
    """A pose that crosses it moves and sees evenly, there and beside it, and gradients are finite."""
    frame, way = SPHERE.random_element(1, random(1))[0], numbers(0.3, -0.2, 0.1)
    x = BALL.random_points(COUNT, random(2))

    def seen(t: Tensor) -> Tensor:
        return BALL.relative(x, torch.cat([t * way, frame]))

    centre = torch.zeros((), dtype=torch.float64)
    slopes = torch.autograd.functional.jacobian(seen, centre)
    close(seen(centre)[:, 3:], torch.zeros(COUNT, 3).double())
    for t in (-1.0, -1e-9, 1e-12, 0.5):
        close(seen(torch.tensor(t, dtype=torch.float64)), seen(centre) + t * slopes)
    p = torch.cat([torch.zeros(3).double(), frame]).requires_grad_()
    for measured in (BALL.chart(BALL.relative(x, p)), BALL.distance(x, p), BALL.between(p, p)):
        (slope,) = torch.autograd.grad(measured.sum(), p, retain_graph=True)
        assert slope.isfinite().all()


def test_great_circles_close() -> None:
    """Once round the world, a frame is as it was; a quarter round, it stands where north pointed."""
    p = SPHERE.random_element(COUNT, random(1))
    ahead = numbers(0.0, 2 * math.pi, 0.0).expand(COUNT, 3)
    close(SPHERE.exp(p, ahead), p)
    quarter = SPHERE.exp(p, ahead / 4)
    close(SPHERE.place(quarter), p.unflatten(-1, (3, 3))[..., 1])
