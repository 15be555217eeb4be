"""A geometry of a user's own, in a few lines: it keeps the promise, and networks ask for no more."""

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Generator, Tensor, nn

from pdeforecast.dynamics import LatentDynamics
from pdeforecast.field import EquivariantField
from pdeforecast.geometry import Geometry
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField
from pdeforecast.preconditioner import PreconditionedSGD
from pdeforecast.rollout import rollout
from pdeforecast.testing import assert_equivariant, assert_geometry, assert_invariant


class Circle(Geometry):
    """Points and poses are angles in turns, moved by rotations."""

    name = domain = "circle"
    coordinates = ("angle",)
    units: Mapping[str, str] = {"angle": "1"}
    extent: Mapping[str, tuple[float, float]] = {"angle": (0.0, 1.0)}
    dim = chart_dim = velocity_dim = point_dim = pose_dim = 1
    relative_dim = between_dim = 2
    volume = 1.0

    def embed(self, coordinates: Tensor) -> Tensor:
        return coordinates

    def relative(self, x: Tensor, p: Tensor) -> Tensor:
        angle = 2 * math.pi * (x - p)
        return torch.cat([angle.cos(), angle.sin()], dim=-1)

    def chart(self, a: Tensor) -> Tensor:
        return torch.atan2(a[..., 1:], a[..., :1]) / (2 * math.pi)

    def distance(self, x: Tensor, p: Tensor) -> Tensor:
        return self.log(p, x).abs()[..., 0]

    def exp(self, p: Tensor, v: Tensor) -> Tensor:
        return p + v

    def log(self, p: Tensor, q: Tensor) -> Tensor:
        return q - p - (q - p).round()

    def carry(self, p: Tensor, v: Tensor) -> Tensor:
        return v

    def project(self, p: Tensor) -> Tensor:
        return p

    def place(self, p: Tensor) -> Tensor:
        return p.remainder(1.0)

    def lift(self, x: Tensor) -> Tensor:
        return x

    def act(self, g: Tensor, x: Tensor) -> Tensor:
        return (x + g).remainder(1.0)

    def act_pose(self, g: Tensor, p: Tensor) -> Tensor:
        return p + g

    def random_element(self, count: int, generator: Generator | None = None) -> Tensor:
        return self.random_points(count, generator)

    def random_points(self, count: int, generator: Generator | None = None) -> Tensor:
        return torch.rand(count, 1, generator=generator, dtype=torch.float64)

    def lattice(self, count: int) -> Tensor:
        return self.axis("angle", count)[:, None]

    def spacing(self, count: int) -> float:
        return 1.0 / count

    def axis(self, name: str, count: int) -> Tensor:
        return torch.arange(count, dtype=torch.float64) / count

    def weights(self, axes: Mapping[str, Tensor]) -> Tensor:
        nodes, order = axes["angle"].sort()
        gaps = torch.cat([nodes[1:], nodes[:1] + 1]) - nodes
        return torch.empty_like(nodes).index_copy(0, order, (gaps + gaps.roll(1)) / 2)


CIRCLE = Circle()
LATENTS, BATCH = 12, 3


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def encoder() -> PreconditionedSGD:
    field = LinearField(CIRCLE, 1, 3, 4, 1.5 / LATENTS)
    return PreconditionedSGD(field, LATENTS, 0.5)


def wave(x: Tensor) -> Tensor:
    """Values (batch, M, 1) of smooth functions."""
    frequency = torch.arange(1, BATCH + 1, dtype=torch.float64)[:, None, None]
    return torch.sin(2 * math.pi * frequency * x + 1)


def test_it_keeps_the_promise() -> None:
    assert_geometry(CIRCLE)


def test_it_can_be_encoded_on() -> None:
    e = encoder()
    assert e.initial.shape[1] == 1 and e.covariance.shape[1] == LATENTS
    seen, asked = CIRCLE.random_points(80), CIRCLE.random_points(50)
    error = e.field(asked, e(seen, wave(seen))) - wave(asked)
    assert float(error.abs().max()) < 0.02


@pytest.mark.parametrize("moving", (True, False), ids=("moving", "held"))
def test_it_can_be_forecast_on(moving: bool) -> None:
    e = encoder()
    x = CIRCLE.random_points(80)
    z = e(x, wave(x))
    f = LatentDynamics(CIRCLE, e.field.context_dim, 0, 8, 1, 1 / LATENTS, 5, moving).double()
    for head in filter(None, (f.context_head, f.pose_head)):
        nn.init.normal_(head.weight, std=0.1)

    def forecast(z: Latents) -> Latents:
        nothing = torch.zeros(1, LATENTS, 0, dtype=torch.float64)
        return rollout(f, z, lambda poses: nothing, [1.0])[0]

    with torch.no_grad():
        assert float((forecast(z).contexts - z.contexts).norm()) > 1e-3
        assert_equivariant(CIRCLE, forecast, z)
        assert_invariant(CIRCLE, e.field, z, x)


def test_its_fields_may_be_of_attention() -> None:
    field = EquivariantField(CIRCLE, 1, 5, 8, 2, 4, query_scale=1.0, value_scale=2.0).double()
    z = Latents(
        CIRCLE.lattice(LATENTS), torch.randn(BATCH, LATENTS, 5).double(), torch.full((LATENTS,), 0.1).double()
    )
    assert_invariant(CIRCLE, field, z, CIRCLE.random_points(30))
