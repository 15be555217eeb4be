"""The laws of neighbourhoods."""

import pytest
import torch
from torch import Tensor

from pdeforecast.geometry import Geometry
from pdeforecast.neighbours import gather, nearest, search

LATENTS = 16


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def shaken(geometry: Geometry) -> Tensor:
    shake = torch.randn(LATENTS, geometry.velocity_dim, dtype=torch.float64)
    return geometry.exp(geometry.lattice(LATENTS), 0.3 * geometry.spacing(LATENTS) * shake)


def windows(geometry: Geometry) -> Tensor:
    return geometry.spacing(LATENTS) * (1 + torch.rand(LATENTS, dtype=torch.float64))


@pytest.mark.parametrize("k", (1, 4, 9))
def test_nearest_are_nearest(geometry: Geometry, k: int) -> None:
    poses, x = shaken(geometry), geometry.random_points(40)
    near = nearest(geometry, x, poses, windows(geometry), k)
    distance = geometry.distance(x[:, None], poses)
    chosen = torch.zeros_like(distance, dtype=torch.bool).scatter(-1, near.index, True)
    assert (chosen.sum(-1) == k).all()
    furthest = distance.where(chosen, 0).amax(-1)
    assert (furthest <= distance.where(~chosen, torch.inf).amin(-1)).all()


@pytest.mark.parametrize("k", (0, LATENTS, LATENTS + 1))
def test_all_latents_have_plain_gaussian_windows(geometry: Geometry, k: int) -> None:
    poses, x, sigma = shaken(geometry), geometry.random_points(40), windows(geometry)
    near = nearest(geometry, x, poses, sigma, k)
    assert (near.index == torch.arange(LATENTS)).all()
    distance = geometry.distance(x[:, None], poses)
    torch.testing.assert_close(near.nearness.exp(), torch.exp(-(distance**2) / (2 * sigma**2)))


@pytest.mark.parametrize("k", (1, 4, 9))
def test_windows_close_at_the_first_latent_left_out(geometry: Geometry, k: int) -> None:
    poses, x, sigma = shaken(geometry), geometry.random_points(40), windows(geometry)
    near = nearest(geometry, x, poses, sigma, k)
    distance = geometry.distance(x[:, None], poses).sort(-1).values
    fraction = distance[:, :k] / distance[:, k : k + 1]
    gauss = torch.exp(-(distance[:, :k] ** 2) / (2 * sigma[near.index] ** 2))
    torch.testing.assert_close(near.nearness.exp(), gauss * (1 - fraction**2) ** 2)


def test_points_on_poses_and_ties_are_finite(geometry: Geometry) -> None:
    poses = geometry.lattice(LATENTS).requires_grad_()
    x = geometry.place(poses.detach())
    near = nearest(geometry, x, poses, windows(geometry), 4)
    weights = near.nearness.softmax(-1)
    (slope,) = torch.autograd.grad(weights.square().sum(), poses, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), poses)
    assert weights.isfinite().all()
    assert slope.isfinite().all()
    assert curvature.isfinite().all()


@pytest.mark.parametrize("rows", ((), (3,)))
@pytest.mark.parametrize("lead", ((), (3,)))
def test_gather_is_indexing(rows: tuple[int, ...], lead: tuple[int, ...]) -> None:
    values = torch.randn(*rows, 8, 2, dtype=torch.float64)
    index = torch.randint(8, (*lead, 5, 4))
    batch = torch.broadcast_shapes(rows, lead)
    wide, chosen = values.expand(*batch, 8, 2), index.expand(*batch, 5, 4)
    expected = wide[chosen] if not batch else torch.stack([wide[b][chosen[b]] for b in range(3)])
    torch.testing.assert_close(gather(values, index), expected, rtol=0, atol=0)


@pytest.mark.parametrize("k", (1, 9))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("cloud", ("lattice", "random", "clump", "twins"))
def test_candidates_lose_no_neighbour(geometry: Geometry, k: int, dtype: torch.dtype, cloud: str) -> None:
    """Of many latents not all are compared with every point; what is found is what all comparisons find."""
    poses = geometry.lattice(400)
    if cloud == "random":
        poses = geometry.lift(geometry.random_points(400))
    if cloud == "clump":
        step = 0.02 * torch.randn(400, geometry.velocity_dim, dtype=torch.float64) ** 3
        poses = geometry.exp(poses[:1].expand(400, -1), step)
    if cloud == "twins":
        poses = poses[:200].repeat(2, 1)
    way = 0.1 * torch.linspace(-1, 1, 900, dtype=torch.float64)[:, None].expand(-1, geometry.velocity_dim)
    there = geometry.place(geometry.exp(poses[:1], way))
    poses = poses.to(dtype)
    for x in (geometry.random_points(1500).to(dtype), there.to(dtype), there[:3].to(dtype)):
        found = search(geometry, x, poses, k)
        distance = geometry.distance(x[:, None], poses)
        expected = distance.topk(k + 1, largest=False).values
        assert torch.equal(distance.gather(-1, found), expected)
        assert (found.sort(-1).values.diff() > 0).all()
