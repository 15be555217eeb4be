"""Cosine series on an interval: what a grid holds is held exactly, walls let nothing through."""

import math

import pytest
import torch
from torch import Tensor

from pdeforecast.errors import DataError
from pdeforecast.solvers.interval import Interval

LOW, HIGH = -3.0, 1.5
COUNTS = [2, 5, 8]


def centres(n: int) -> Tensor:
    return LOW + (HIGH - LOW) * (torch.arange(n, dtype=torch.float64) + 0.5) / n


def with_ends(n: int) -> Tensor:
    return torch.linspace(LOW, HIGH, n, dtype=torch.float64)


@pytest.mark.parametrize("nodes", [grid(n) for grid in (centres, with_ends) for n in COUNTS])
def test_each_cosine_is_multiplied_by_its_number(nodes: Tensor) -> None:
    interval = Interval(nodes, LOW, HIGH)
    factor = torch.randn(len(interval.wavenumbers), generator=torch.Generator().manual_seed(0)).double()
    for k, number in list(zip(interval.wavenumbers, factor, strict=True))[: len(nodes)]:
        wave = torch.cos(k * (nodes - LOW))
        torch.testing.assert_close(interval.multiply(wave, factor, -1), number * wave, rtol=0, atol=1e-13)


@pytest.mark.parametrize("nodes", [grid(n) for grid in (centres, with_ends) for n in COUNTS])
def test_any_field_on_either_axis_is_a_cosine_series(nodes: Tensor) -> None:
    interval, n = Interval(nodes, LOW, HIGH), len(nodes)
    field = torch.randn(3, n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ones = torch.ones_like(interval.wavenumbers)
    torch.testing.assert_close(interval.multiply(field, ones, -2), field, rtol=0, atol=1e-14)
    only_mean = (interval.wavenumbers == 0).double()
    means = torch.einsum("snm,n->sm", field, interval.mean)[:, None].expand_as(field)
    torch.testing.assert_close(interval.multiply(field, only_mean, -2), means, rtol=0, atol=1e-14)


@pytest.mark.parametrize("grid", [centres, with_ends])
def test_the_mean_is_that_of_the_series(grid: object) -> None:
    nodes = grid(9)  # type: ignore[operator]
    mean = Interval(nodes, LOW, HIGH).mean
    for j in range(8):
        wave = torch.cos(math.pi * j * (nodes - LOW) / (HIGH - LOW))
        assert float(mean @ wave) == pytest.approx(float(j == 0), abs=1e-14)


def test_a_descending_axis_is_the_same_interval() -> None:
    nodes, field = centres(6), torch.randn(6, dtype=torch.float64)
    up, down = Interval(nodes, LOW, HIGH), Interval(nodes.flip(0), LOW, HIGH)
    damping = torch.exp(-up.wavenumbers)
    torch.testing.assert_close(
        down.multiply(field.flip(0), damping, 0).flip(0), up.multiply(field, damping, 0)
    )


@pytest.mark.parametrize("nodes", [centres(6) + 0.1, centres(6) ** 2, torch.linspace(LOW, HIGH, 7)[:-1]])
def test_other_nodes_are_refused(nodes: Tensor) -> None:
    with pytest.raises(DataError, match="centres of 6 equal cells"):
        Interval(nodes, LOW, HIGH)
