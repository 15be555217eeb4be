"""What every geometry promises. A new one is in `GEOMETRIES`, and has no place to hide."""

import math
import re
from collections.abc import Mapping

import pytest
import torch
from torch import Generator, Tensor

from pdeforecast.geometry import GEOMETRIES, Geometry, NoSymmetry, PeriodicPlane
from pdeforecast.latents import Latents
from pdeforecast.testing import (
    LAWS,
    assert_equivariant,
    assert_geometry,
    assert_invariant,
    assert_law,
    lattice_size,
)
from pdeforecast.trajectory import default_axes

each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=lambda g: g.name)
PLANE = PeriodicPlane()


@each_geometry
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("seed", (0, 1))
def test_law(law: str, geometry: Geometry, seed: int) -> None:
    assert_law(law, geometry, seed)


@each_geometry
def test_names_fit_dimensions(geometry: Geometry) -> None:
    assert GEOMETRIES[geometry.name] is geometry
    assert geometry.embed(torch.zeros(5, len(geometry.coordinates))).shape == (5, geometry.point_dim)
    assert set(geometry.units) == set(geometry.coordinates)


@pytest.mark.parametrize(
    "geometry", [g for g in GEOMETRIES.values() if lattice_size(g, 17) < 17], ids=lambda g: g.name
)
def test_a_lattice_that_is_none_names_two_that_are(geometry: Geometry) -> None:
    with pytest.raises(ValueError, match=r"\d+ or \d+") as error:
        geometry.lattice(17)
    sizes = [int(n) for n in re.findall(r"\d+", str(error.value).split("Ask for")[1])]
    assert [len(geometry.lattice(n)) for n in sizes] == sizes


@each_geometry
def test_random_is_seeded(geometry: Geometry) -> None:
    for draw in (geometry.random_points, geometry.random_element):
        first, again, other = (draw(5, Generator().manual_seed(seed)) for seed in (3, 3, 4))
        assert torch.equal(first, again) and not torch.equal(first, other)


@each_geometry
def test_default_axes_are_the_axes_of_the_geometry(geometry: Geometry) -> None:
    sizes = {name: 5 + i for i, name in enumerate(geometry.coordinates)}
    axes = default_axes(geometry, sizes)
    assert tuple(axes) == geometry.coordinates[::-1]
    for name, axis in axes.items():
        assert axis.tolist() == geometry.axis(name, sizes[name]).tolist()


def test_periodic_axis_is_half_open() -> None:
    assert PLANE.axis("x", 4).tolist() == [0, 0.25, 0.5, 0.75]


def test_cells_of_irregular_nodes_are_halfway_to_their_neighbours() -> None:
    axes = {"x": torch.tensor([0.9, 0.1, 0.5]).double(), "y": torch.tensor([0.3]).double()}
    torch.testing.assert_close(PLANE.weights(axes), torch.tensor([[0.3, 0.3, 0.4]]).double())


def test_the_seam_is_no_place() -> None:
    x, p = torch.tensor([0.99, 0.5]).double(), torch.tensor([0.01, 0.5]).double()
    assert float(PLANE.distance(x, p)) == pytest.approx(0.02)
    torch.testing.assert_close(PLANE.chart(PLANE.relative(x, p)), torch.tensor([-0.02, 0.0]).double())


def test_without_symmetry_a_network_knows_where_it_is() -> None:
    geometry = NoSymmetry(PLANE)
    g, x, p = PLANE.random_element(1), PLANE.random_points(9), PLANE.lattice(9)
    a, moved = geometry.relative(x, p), geometry.relative(PLANE.act(g, x), PLANE.act_pose(g, p))
    assert float((a - moved).abs().max()) > 0.1
    torch.testing.assert_close(geometry.chart(a), geometry.chart(moved), rtol=0, atol=1e-10)


class _Seam(PeriodicPlane):
    def relative(self, x: Tensor, p: Tensor) -> Tensor:
        return torch.cat([x - p, x + p], dim=-1)

    def chart(self, a: Tensor) -> Tensor:
        return a[..., :2]


class _Drift(PeriodicPlane):
    def carry(self, p: Tensor, v: Tensor) -> Tensor:
        return v + 0.01 * p


class _Kink(PeriodicPlane):
    def chart(self, a: Tensor) -> Tensor:
        u = super().chart(a)
        return u * u.norm(dim=-1, keepdim=True).pow(-0.5)


class _Closed(PeriodicPlane):
    def axis(self, name: str, count: int) -> Tensor:
        return torch.linspace(0, 1, count, dtype=torch.float64)


class _Heavy(PeriodicPlane):
    def weights(self, axes: Mapping[str, Tensor]) -> Tensor:
        return torch.full((len(axes["y"]), len(axes["x"])), 1 / axes["x"].numel() ** 2).double()


class _Clustered(PeriodicPlane):
    def lattice(self, count: int) -> Tensor:
        return super().lattice(count) ** 2


class _Turned(PeriodicPlane):
    def log(self, p: Tensor, q: Tensor) -> Tensor:
        return super().log(q, p)


@pytest.mark.parametrize("broken", (_Seam, _Drift, _Kink, _Closed, _Heavy, _Clustered, _Turned))
def test_a_broken_promise_is_found(broken: type[PeriodicPlane]) -> None:
    with pytest.raises(AssertionError, match="periodic_plane: "):
        assert_geometry(broken())


@pytest.mark.parametrize("shared", (True, False), ids=("shared", "per-sample"))
def test_invariance_and_equivariance_are_told_from_their_absence(shared: bool) -> None:
    poses = PLANE.lattice(9) if shared else PLANE.lattice(9).expand(3, -1, -1)
    z = Latents(poses, torch.randn(3, 9, 2).double(), torch.ones(9).double())
    x = PLANE.random_points(7)

    def seen(x: Tensor, z: Latents) -> Tensor:
        return PLANE.distance(x[..., None, :, :], z.poses[..., :, None, :])

    def pushed(z: Latents) -> Latents:
        return Latents(PLANE.exp(z.poses, z.contexts), z.contexts, z.windows)

    def centred(z: Latents) -> Latents:
        return Latents(z.poses, z.contexts * torch.cos(2 * math.pi * z.poses), z.windows)

    assert_invariant(PLANE, seen, z, x)
    assert_equivariant(PLANE, pushed, z)
    with pytest.raises(AssertionError):
        assert_invariant(PLANE, lambda x, z: seen(x, z) + x.sum(), z, x)
    with pytest.raises(AssertionError):
        assert_equivariant(PLANE, centred, z)
