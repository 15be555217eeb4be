"""An observation counts by the part of the space that it represents, not by how its grid crowds."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pdeforecast.encoder import MetaSGD
from pdeforecast.field import EquivariantField
from pdeforecast.geometry import Geometry, Sphere
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField
from pdeforecast.preconditioner import PreconditionedSGD
from pdeforecast.trajectory import default_axes, grid_points, samples, to_dataset

SPHERE, LATENTS, BATCH = Sphere(), 16, 3
TIMES = 8


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def linear(geometry: Geometry) -> PreconditionedSGD:
    """A field that represents little of what it is shown, and knows that."""
    field = LinearField(geometry, 1, 1, 4, 1.5 * geometry.spacing(LATENTS))
    made = PreconditionedSGD(field, LATENTS, 0.5)
    made.noise.fill_(1.0)
    return made


def attention(geometry: Geometry) -> MetaSGD:
    """One whose field depends on its contexts strongly."""
    field = EquivariantField(geometry, 1, 5, 8, 2, 4, query_scale=1.0, value_scale=2.0)
    made = MetaSGD(field, LATENTS, 1.0, 3, False, context_rate=0.3)
    nn.init.normal_(made.context)
    for parameter in field.parameters():
        parameter.data *= 2 if parameter.ndim == 2 else 1
    return made.double().eval()


Make = Callable[[Geometry], nn.Module]
each_encoder = pytest.mark.parametrize("make", (linear, attention))


def grid() -> tuple[Tensor, Tensor, Tensor]:
    """Points, values and measures of a constant with noise, at longitudes by latitudes."""
    axes = default_axes(SPHERE, {"longitude": 16, "latitude": 8})
    weights = SPHERE.weights({name: torch.from_numpy(axis) for name, axis in axes.items()}).flatten()
    values = 3 + torch.randn(BATCH, len(weights), 1, dtype=torch.float64)
    return grid_points(SPHERE, axes), values, weights / weights.mean()


def crowded(points: Tensor, values: Tensor, measure: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same, every node near a pole as several that say the same and share its measure."""
    near = points[:, 2].abs() > 0.9
    beside = points[near].repeat(TIMES, 1) + 1e-6 * torch.randn(TIMES * int(near.sum()), 3).double()
    beside = beside / beside.norm(dim=-1, keepdim=True)
    return (
        torch.cat([points[~near], beside]),
        torch.cat([values[:, ~near], values[:, near].repeat(1, TIMES, 1)], dim=1),
        torch.cat([measure[~near], measure[near].repeat(TIMES) / TIMES]),
    )


@each_encoder
def test_a_grid_that_crowds_at_its_poles_says_no_more_of_them(make: Make) -> None:
    encoder, x = make(SPHERE), SPHERE.random_points(200)
    plain = grid()
    points, values, measure = crowded(*plain)

    @torch.no_grad()
    def shown(z: Latents) -> Tensor:
        return encoder.field(x, z)

    def size(difference: Tensor) -> float:
        return float(difference.square().mean().sqrt())

    even = shown(encoder(*plain[:2], None, plain[2]))
    weighed = size(shown(encoder(points, values, None, measure)) - even)
    unweighed = size(shown(encoder(points, values)) - shown(encoder(*plain[:2])))
    assert unweighed > 0.02
    assert weighed < 1e-3 * unweighed


@each_encoder
def test_no_measure_is_the_same_measure_everywhere(geometry: Geometry, make: Make) -> None:
    encoder, points = make(geometry), geometry.random_points(60)
    values = torch.randn(BATCH, 60, 1, dtype=torch.float64)
    values[0, ::3] = torch.nan
    alike = encoder(points, values, None, torch.ones(60)).contexts
    torch.testing.assert_close(alike, encoder(points, values).contexts, rtol=0, atol=1e-12)


def test_a_single_number_is_the_mean_over_the_space() -> None:
    """Of one latent and one function, whose prior allows anything."""
    encoder = PreconditionedSGD(LinearField(SPHERE, 1, 0, 0, 1.0), 1, 1.0)
    encoder.covariance *= 1e9
    points, values, measure = grid()
    found = encoder(points, values, None, measure).contexts[:, 0, 0]
    expected = (measure * values[..., 0]).mean(-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert float((expected - values.mean((1, 2))).abs().max()) > 1e-2


def test_the_loss_is_the_mean_over_the_space() -> None:
    encoder = attention(SPHERE)
    points, values, measure = grid()
    z = encoder.initial(values)
    error = (encoder.field(points, z) - values).square()[..., 0]
    loss = encoder.losses(points, values, None, measure)[0]
    torch.testing.assert_close(loss, (measure * error).mean(-1), rtol=0, atol=1e-10)
    # A measure is a share: its unit does not matter to a descent.
    torch.testing.assert_close(encoder.losses(points, values, None, 7 * measure)[0], loss)


@pytest.mark.parametrize("layout", ("as it is", "upside down", "shuffled"))
def test_nodes_represent_the_area_around_them(layout: str) -> None:
    axes = default_axes(SPHERE, {"longitude": 9, "latitude": 6})
    ds = to_dataset(torch.ones(1, 1, 6, 9, 1), SPHERE, {"u": "1"}, axes, [0.0])
    if layout == "upside down":
        ds = ds.isel(latitude=slice(None, None, -1)).transpose(..., "longitude", "latitude")
    if layout == "shuffled":
        ds = ds.isel(latitude=[3, 0, 5, 1, 4, 2], longitude=[8, 2, 0, 1, 7, 6, 5, 4, 3])
    found = samples(ds, SPHERE, {"u": "1"})
    latitude = torch.asin(found.points[:, 2])
    half = math.pi / 12
    expected = 3 * (torch.sin(latitude + half) - torch.sin(latitude - half))
    torch.testing.assert_close(found.measure, expected, rtol=0, atol=1e-10)
    assert float(found.measure.mean()) == pytest.approx(1)


def test_loose_points_count_alike() -> None:
    axes = dict(zip(SPHERE.coordinates, torch.rand(2, 7, dtype=torch.float64), strict=True))
    ds = to_dataset(torch.ones(1, 1, 7, 1), SPHERE, {"u": "1"}, axes, [0.0])
    assert samples(ds, SPHERE, {"u": "1"}).measure.tolist() == [1.0] * 7
