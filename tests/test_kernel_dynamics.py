"""Dynamics that remember: equivariance, a slow oracle, closed forms, and bounds."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from pdeforecast.geometry import GEOMETRIES
from pdeforecast.kernel_dynamics import _RIDGE, _WIDTH, KernelDynamics, _both, _cubic
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField

SPACE = GEOMETRIES["rotating_sphere"]
LATENTS, CHANNELS, TRAJECTORIES, FRAMES = 80, 2, 3, 7


def random(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def untaught(trajectories: int = TRAJECTORIES, stride: int = 2, modes: int = 48) -> KernelDynamics:
    spacing = SPACE.spacing(LATENTS)
    field = LinearField(SPACE, CHANNELS, 2, 9, 1.5 * spacing)
    windows = torch.full((LATENTS,), 0.5 * spacing, dtype=torch.float64)
    return KernelDynamics(field, SPACE.lattice(LATENTS), windows, trajectories, FRAMES, stride, modes)


def waves(made: KernelDynamics, seed: int, count: int, frames: int) -> Tensor:
    """Contexts (count, frames, N, context_dim) of smooth waves that travel and grow."""
    draw = random(seed)
    longitude = torch.arange(made.longitudes, dtype=torch.float64) * (2 * math.pi / made.longitudes)
    latitude = (torch.arange(made.latitudes, dtype=torch.float64) + 0.5) * (math.pi / made.latitudes)
    shape = (count, frames, CHANNELS, made.latitudes, made.longitudes)
    fields = torch.zeros(shape, dtype=torch.float64)
    time = torch.arange(frames, dtype=torch.float64)[:, None, None, None]
    for m in range(4):
        for c in range(count):
            speed, phase, height = torch.rand(3, generator=draw, dtype=torch.float64)
            across = (latitude.sin() ** max(m, 1)).view(-1, 1) * (1 + torch.arange(CHANNELS)).view(-1, 1, 1)
            wave = (m * (longitude - 0.3 * speed * time - 6 * phase)).cos()
            fields[c] += (0.5 + height) * (1 + 0.1 * time) * across * wave
    return contexts(made, fields)


def contexts(made: KernelDynamics, fields: Tensor) -> Tensor:
    """By least squares."""
    design = made.field.design(made.points(), made.poses, made.windows).to_dense()
    columns = torch.linalg.lstsq(design, fields.flatten(-2).flatten(0, 2).T, driver="gelsd").solution.T
    split = columns.view(*fields.shape[:3], LATENTS, -1)
    return split.movedim(2, 3).flatten(3)


@pytest.fixture(scope="module")
def taught() -> KernelDynamics:
    made = untaught()
    made.learn(waves(made, 1, TRAJECTORIES, FRAMES), 0.5)
    return made


def amplitudes(made: KernelDynamics, seed: int, count: int = 4) -> Tensor:
    """Of states that were not learned."""
    return made._amplitudes(made._seen(waves(made, seed, count, 1)[:, 0]))


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("steps", (1, 7, 20))
def test_the_flow_turns_with_the_world(taught: KernelDynamics, steps: int) -> None:
    a = amplitudes(taught, 2)
    turn = torch.exp(2j * math.pi * steps / taught.longitudes * taught.wave.double())
    for moved, rested in zip(taught.carried(a * turn), taught.carried(a), strict=True):
        close(moved, rested * turn, 1e-10)


def test_it_turns_by_any_angle_for_smooth_states(taught: KernelDynamics) -> None:
    a = amplitudes(taught, 3)
    turn = torch.exp(0.377j * taught.wave.double())
    for moved, rested in zip(taught.carried(a * turn), taught.carried(a), strict=True):
        close(moved, rested * turn, 1e-7)


def test_a_forecast_from_moved_latents_is_the_moved_forecast(taught: KernelDynamics) -> None:
    z = Latents(taught.poses, waves(taught, 4, 2, 1)[:, 0], taught.windows)
    g = SPACE.random_element(1, random(5))[0]
    moved = replace(z, poses=SPACE.act_pose(g, z.poses))
    times = [0.0, 0.7, 2.0]
    for here, there in zip(taught.rollout(z, times), taught.rollout(moved, times), strict=True):
        close(there.contexts, here.contexts, 1e-10)
        close(there.poses, SPACE.act_pose(g, here.poses), 1e-10)


def test_agrees_with_regression_on_all_turned_copies(taught: KernelDynamics) -> None:
    """The averaged kernel is ordinary kernel ridge regression on every copy that the grid has."""
    known, _ = taught._solved()
    memory = torch.view_as_complex(taught.memory.double()) * taught.size
    starts = list(range(0, FRAMES - taught.stride, taught.stride))
    after = memory[:, [start + 1 for start in starts]].flatten(0, 1)
    turns = torch.exp(
        2j * math.pi / taught.longitudes * torch.arange(taught.longitudes)[:, None] * taught.wave.double()
    )
    copies = (turns[:, None] * known).flatten(0, 1)
    targets = (turns[:, None] * after).flatten(0, 1)
    both = _both(taught.wave)
    real = torch.view_as_real(both.sqrt() * copies).flatten(1)
    width = _WIDTH * float((both * taught.size.double().square()).sum())

    def kernel(a: Tensor) -> Tensor:
        other = torch.view_as_real(both.sqrt() * a).flatten(1)
        return (-0.5 * torch.cdist(other, real).square() / width).exp()

    ridge = _RIDGE * taught.longitudes * torch.eye(len(copies), dtype=torch.float64)
    weights = torch.linalg.solve(kernel(copies) + ridge, torch.view_as_real(targets).flatten(1))
    a = amplitudes(taught, 6)
    expected = torch.view_as_complex((kernel(a) @ weights).unflatten(1, (-1, 2)))
    close(taught.carried(a)[0], expected, 1e-6)


def test_what_followed_is_remembered(taught: KernelDynamics) -> None:
    path = taught._amplitudes(taught._seen(waves(taught, 1, TRAJECTORIES, FRAMES).flatten(0, 1)))
    path = path.unflatten(0, (TRAJECTORIES, FRAMES))
    found = taught.path(path[:, 0], [0.5 * i for i in range(1, FRAMES)])
    close(found, path[:, 1:], 0.02)


def test_a_pattern_that_drifts_goes_on_drifting() -> None:
    """One trajectory of a wave in solid rotation tells all: any phase, any time, on frames and between."""
    made = untaught(trajectories=1)
    longitude = torch.arange(made.longitudes, dtype=torch.float64) * (2 * math.pi / made.longitudes)
    latitude = (torch.arange(made.latitudes, dtype=torch.float64) + 0.5) * (math.pi / made.latitudes)

    def wave(phase: Tensor) -> Tensor:
        angle = longitude - phase[..., None, None]
        pattern = (2 * angle).cos() + 0.5 * (3 * angle + 1).cos()
        return (latitude.sin() ** 3).view(-1, 1) * torch.stack([pattern, -pattern], dim=-3)

    time = torch.arange(FRAMES, dtype=torch.float64)
    made.learn(contexts(made, wave(0.25 * time)[None]), 1.0)
    z = Latents(made.poses, contexts(made, wave(torch.tensor([[1.234]])))[0], made.windows)
    times = [0.0, 0.5, 1.0, 2.0, 7.3, 40.0]
    for at, latents in zip(times, made.rollout(z, times), strict=True):
        found = made._seen(latents.contexts)[0]
        close(found, wave(torch.tensor(1.234 + 0.25 * at)), 2e-2)


def test_far_from_everything_the_flow_leads_to_the_mean(taught: KernelDynamics) -> None:
    far = 50 * amplitudes(taught, 8)
    assert float(taught.carried(far)[0].abs().max()) < 1e-6 * float(far.abs().max())
    assert bool(torch.isfinite(taught.path(far, [500.0])).all())


def test_states_survive_the_grid(taught: KernelDynamics) -> None:
    a = amplitudes(taught, 9)
    close(taught._amplitudes(taught._fields(a)), a, 2e-3)
    close(taught._amplitudes(taught._seen(taught._written(a[:, None])[:, 0])), a, 1e-2)


def test_between_frames_lies_a_cubic() -> None:
    frames = [torch.tensor([(i - 2.0) ** 3, 1.0 + i]) for i in range(7)]
    for x in (0.0, 0.3, 1.5, 2.0, 3.99, 5.5):
        close(_cubic(frames, x), torch.tensor([(x - 2.0) ** 3, 1.0 + x]), 1e-5)
