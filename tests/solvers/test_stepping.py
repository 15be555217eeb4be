"""Time stepping: the linear part exactly, the rest to fourth order, every requested time hit."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pdeforecast.solvers.stepping import etdrk4, integrate, propagator


def scalar(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def logistic(u0: float, rate: float, t: float) -> float:
    """The solution of u' = rate·u − u²."""
    growth = math.exp(rate * t)
    return u0 * growth / (1 + u0 * (growth - 1) / rate)


def test_the_linear_part_is_exact_at_any_step() -> None:
    rates = torch.tensor([-3.0, -1e3, 0.0, 0.4], dtype=torch.float64)
    u = etdrk4(torch.ones(4, dtype=torch.float64), propagator(rates, 7.0), torch.zeros_like)
    torch.testing.assert_close(u, (7.0 * rates).exp())


def series(z: float, order: int) -> float:
    """φ_order(z) = Σ z^j / (j + order)!, exact near 0; elsewhere by its recursion."""
    if abs(z) < 2:
        return math.fsum(z**j / math.factorial(j + order) for j in range(40))
    return math.exp(z) if order == 0 else (series(z, order - 1) - 1 / math.factorial(order - 1)) / z


@pytest.mark.parametrize("z", [0.0, 1e-9, -1e-5, 0.02, -0.7, 1.0, -1.0, 3.0, -20.0, 30.0, -1e4, -1e12])
def test_weights_are_those_of_the_series(z: float) -> None:
    weights, h = propagator(scalar(z / 0.3), 0.3), 0.3
    one, two, three = (series(z, order) for order in (1, 2, 3))
    expected = {
        "half": math.exp(z / 2),
        "full": math.exp(z),
        "stage": 0.5 * h * series(z / 2, 1),
        "first": h * (one - 3 * two + 4 * three),
        "middle": h * (2 * two - 4 * three),
        "last": h * (4 * three - two),
    }
    for name, value in expected.items():
        assert float(getattr(weights, name)) == pytest.approx(value, rel=1e-12, abs=1e-15), name


def test_a_constant_source_is_exact_at_any_step() -> None:
    """u′ = −λu + 1 from 0 has u = (1 − e^{−λt})/λ."""
    rates = torch.tensor([1e-3, 1.0, 1e3, 1e8], dtype=torch.float64)
    (u,) = integrate(torch.zeros(4, dtype=torch.float64), -rates, torch.ones_like, [5.0], 5.0)
    torch.testing.assert_close(u, -torch.expm1(-5 * rates) / rates, rtol=1e-12, atol=0)


def test_a_stiff_mode_that_is_driven_is_of_third_order() -> None:
    """v′ = −λv + cos t has v = (λ cos t + sin t)/(λ² + 1); an integrating factor errs by all of it."""
    stiff, errors = 1e4, []
    exact = [(stiff * math.cos(t) + math.sin(t)) / (stiff**2 + 1) for t in (0.0, 2.0)]

    def nonlinear(w: Tensor) -> Tensor:
        c, s, _ = w.unbind(-1)
        return torch.stack([-s, c, c], dim=-1)

    for step in (0.4, 0.2, 0.1):
        start = torch.tensor([1.0, 0.0, exact[0]], dtype=torch.float64)
        rate = torch.tensor([0.0, 0.0, -stiff], dtype=torch.float64)
        *_, w = integrate(start, rate, nonlinear, [2.0], step)
        errors.append(abs(float(w[2]) - exact[1]) / exact[1])
    assert errors[-1] < 1e-4
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) > 2.9


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


def test_a_step_beyond_the_longest_is_halved() -> None:
    """By powers of two; where no step is said to be stable, the state is lost, and time goes on."""
    calls = []

    def nonlinear(w: Tensor) -> Tensor:
        calls.append(1)
        u, v = w.unbind(-1)
        return torch.stack([v, -u], dim=-1)

    start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for longest, parts in ((0.5, 1), (0.4, 1), (0.39, 2), (0.2, 2), (0.11, 4), (math.nan, 1), (0.0, 1)):
        calls.clear()
        (u,) = integrate(start, 0 * start, nonlinear, [2.0], 0.4, lambda u, longest=longest: longest)
        assert len(calls) == 4 * 5 * parts
        assert float(u[0]) == pytest.approx(math.cos(2.0), abs=1e-3 / parts**4)


def test_a_rollout_continues() -> None:
    def run(u: Tensor, times: list[float]) -> Tensor:
        *_, last = integrate(u, scalar(1.0), lambda v: -v * v, times, 0.1)
        return last

    torch.testing.assert_close(run(run(scalar(0.2), [0.7]), [0.5]), run(scalar(0.2), [0.7, 1.2]))


def test_modes_may_oscillate() -> None:
    """u′ = iωu + c is solved exactly in one step however long, u = e^{iωt} + c (e^{iωt} − 1)/(iω)."""
    rate = torch.tensor([3.0j, 1e-9j, -0.1 + 40j, 0.0], dtype=torch.complex128)
    force = torch.tensor([0.7, -2.0, 1.0 + 1.0j, 0.3], dtype=torch.complex128)
    (u,) = integrate(torch.ones_like(rate), rate, lambda v: force + 0 * v, [2.0], 2.0)
    growth = torch.exp(2 * rate)
    still = torch.tensor([0.0, 2.0, 0.0, 2.0])
    expected = growth + force * torch.where(still > 0, still, (growth - 1) / rate)
    torch.testing.assert_close(u, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(u[[0, 2, 3]], expected[[0, 2, 3]], rtol=0, atol=1e-12)
