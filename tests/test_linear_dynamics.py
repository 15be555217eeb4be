"""The linear part of the dynamics is found exactly, carries to any time, and never grows."""

import math

import pytest
import torch
from torch import Generator, Tensor

from pdeforecast.linear_dynamics import LinearDynamics

RANK = 6


def random(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def system(seed: int = 0) -> tuple[Tensor, Tensor]:
    """dw/dt = A w + b: one mode at rest, two that turn, three that decay, in a slanted basis."""
    rates = torch.zeros(RANK, RANK, dtype=torch.float64)
    rates[1:3, 1:3] = torch.tensor([[-0.1, 1.3], [-1.3, -0.1]])
    rates[3:, 3:] = torch.diag(torch.tensor([-0.4, -1.1, -2.0], dtype=torch.float64))
    slant = torch.eye(RANK).double() + 0.3 * torch.randn(RANK, RANK, generator=random(seed)).double()
    force = torch.zeros(RANK, dtype=torch.float64)
    force[3:] = torch.tensor([0.5, -1.0, 0.2])
    return slant @ rates @ slant.inverse(), slant @ force


def path(matrix: Tensor, force: Tensor, start: Tensor, times: list[float]) -> Tensor:
    """The solution (S, T, RANK), from a Taylor series in quarters of a time step."""
    full = torch.zeros(RANK + 1, RANK + 1, dtype=torch.float64)
    full[:-1, :-1], full[:-1, -1] = matrix, force
    states = []
    for time in times:
        carry, term = torch.eye(RANK + 1).double(), torch.eye(RANK + 1).double()
        for k in range(1, 60):
            term = term @ full * (time / k)
            carry = carry + term
        states.append(torch.cat([start, torch.ones(len(start), 1).double()], 1) @ carry.T)
    return torch.stack(states, 1)[..., :-1]


def learned(gap: float = 0.5, **options: float) -> tuple[LinearDynamics, Tensor]:
    starts = torch.randn(2, 20, RANK, generator=random(1), dtype=torch.float64)
    times = [gap * i for i in range(6)]
    linear = LinearDynamics(RANK)
    linear.learn([path(*system(), start, times) for start in starts], gap, **options)
    return linear, torch.randn(5, RANK, generator=random(2), dtype=torch.float64)


@pytest.mark.parametrize("time", (0.0, 0.13, 0.5, 4.7))
def test_a_linear_system_is_found_and_carried_to_any_time(time: float) -> None:
    linear, start = learned()
    torch.testing.assert_close(
        linear.flow(start, time), path(*system(), start, [time])[:, 0], rtol=0, atol=1e-6
    )


def test_two_steps_are_one() -> None:
    linear, start = learned()
    twice = linear.flow(linear.flow(start, 0.7), 1.1)
    torch.testing.assert_close(twice, linear.flow(start, 1.8), rtol=0, atol=1e-10)


def test_what_would_grow_is_held() -> None:
    matrix, force = system()
    starts = torch.randn(30, RANK, generator=random(1), dtype=torch.float64)
    linear = LinearDynamics(RANK)
    linear.learn([path(matrix + 0.3 * torch.eye(RANK).double(), force, starts, [0.0, 0.5, 1.0])], 0.5)
    assert float(torch.linalg.eigvals(linear.generator).real.max()) < 1e-9
    assert float(linear.flow(starts, 1e3).abs().max()) < 1e3


@pytest.mark.parametrize("fastest", (0.3, 1.0))
def test_no_rate_is_faster_than_allowed(fastest: float) -> None:
    linear, _ = learned(fastest=fastest)
    assert float(torch.linalg.eigvals(linear.generator).abs().max()) < fastest * (1 + 1e-6)


def test_modes_that_are_not_there_do_no_harm() -> None:
    """Two of eight coordinates are always zero."""
    starts = torch.randn(20, RANK, generator=random(1), dtype=torch.float64)
    states = path(*system(), starts, [0.0, 0.5, 1.0])
    padded = torch.cat([states, torch.zeros(*states.shape[:2], 2).double()], -1)
    linear = LinearDynamics(RANK + 2)
    linear.learn([padded], 0.5)
    carried = linear.flow(padded[:, 0], 1.0)
    torch.testing.assert_close(carried, padded[:, 2], rtol=0, atol=1e-6)
    assert math.isfinite(float(linear.generator.abs().max()))
