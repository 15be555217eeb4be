"""Time stepping: the linear part exactly, the rest to fourth order, every requested time hit."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pdeforecast.solvers.stepping import integrate, lawson4


def scalar(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def logistic(u0: float, rate: float, t: float) -> float:
    """The solution of u' = rate·u − u²."""
    growth = math.exp(rate * t)
    return u0 * growth / (1 + u0 * (growth - 1) / rate)


def test_the_linear_part_is_exact_at_any_step() -> None:
    rates = torch.tensor([-3.0, -1e3, 0.0], dtype=torch.float64)
    u = lawson4(torch.ones(3, dtype=torch.float64), (0.5 * 7.0 * rates).exp(), 7.0, torch.zeros_like)
    torch.testing.assert_close(u, (7.0 * rates).exp())


def test_order_four() -> None:
    errors = []
    for step in (0.1, 0.05, 0.025):
        *_, u = integrate(scalar(0.3), scalar(-0.5), lambda v: 1.5 * v - v * v, [2.0], step)
        errors.append(abs(float(u) - logistic(0.3, 1.0, 2.0)))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(4, abs=0.2)


def test_every_time_is_hit() -> None:
    times = [0.0, 0.013, 0.013, 0.5, math.pi]
    states = integrate(scalar(0.3), scalar(1.0), lambda v: -v * v, times, 0.01)
    for time, u in zip(times, states, strict=True):
        assert float(u) == pytest.approx(logistic(0.3, 1.0, time), abs=1e-9)


def test_steps_are_no_longer_than_asked() -> None:
    calls = []
    list(integrate(scalar(1.0), scalar(0.0), lambda v: calls.append(1) or 0 * v, [1.0, 1.04, 1.1], 0.04))
    assert len(calls) == 4 * (25 + 1 + 2)


def test_a_rollout_continues() -> None:
    def run(u: Tensor, times: list[float]) -> Tensor:
        *_, last = integrate(u, scalar(1.0), lambda v: -v * v, times, 0.1)
        return last

    torch.testing.assert_close(run(run(scalar(0.2), [0.7]), [0.5]), run(scalar(0.2), [0.7, 1.2]))
