"""Dynamics that remember: equivariance, a slow oracle, closed forms, and bounds."""

import copy
import math
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file
from scipy.interpolate import CubicSpline
from torch import Generator, Tensor

import pdeforecast as pf
from pdeforecast import kernel_dynamics, local_prior
from pdeforecast.assimilation import Frame, assimilate_remembered
from pdeforecast.cells import means, undone
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.kernel_dynamics import (
    _LINEAR_RIDGE,
    _WIDTH,
    NOISE,
    RIDGE,
    KernelDynamics,
    _across,
    _both,
    _CircleStep,
    _LooseStep,
)
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField
from pdeforecast.principal import PrincipalSGD
from pdeforecast.trajectory import grid_points, open_dataset, save_dataset
from pdeforecast.trust import TrustWarning

SPACE = GEOMETRIES["rotating_sphere"]
LATENTS, LATITUDES, CHANNELS, TRAJECTORIES, FRAMES = 80, 16, 2, 3, 7


def random(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def untaught(trajectories: int = TRAJECTORIES, modes: int = 48) -> KernelDynamics:
    return KernelDynamics(SPACE, CHANNELS, LATITUDES, 2 * LATITUDES, trajectories, FRAMES, modes)


@pytest.fixture(scope="module")
def encoder() -> PrincipalSGD:
    field = LinearField(SPACE, CHANNELS, 2, 9, 1.5 * SPACE.spacing(LATENTS))
    return PrincipalSGD(field, LATENTS, 0.5, 4, NOISE)


LONGITUDE = torch.arange(2 * LATITUDES, dtype=torch.float64) * (math.pi / LATITUDES)
COLATITUDE = ((torch.arange(LATITUDES, dtype=torch.float64) + 0.5) * (math.pi / LATITUDES)).view(-1, 1)


def waves(seed: int, count: int, frames: int) -> Tensor:
    """Fields (count, frames, V, latitudes, longitudes) of smooth waves that travel and grow."""
    draw = random(seed)
    fields = torch.zeros(count, frames, CHANNELS, LATITUDES, 2 * LATITUDES, dtype=torch.float64)
    time = torch.arange(frames, dtype=torch.float64)[:, None, None, None]
    for m in range(4):
        for c in range(count):
            speed, phase, height = torch.rand(3, generator=draw, dtype=torch.float64)
            across = COLATITUDE.sin() ** max(m, 1) * (1 + torch.arange(CHANNELS)).view(-1, 1, 1)
            wave = (m * (LONGITUDE - 0.3 * speed * time - 6 * phase)).cos()
            fields[c] += (0.5 + height) * (1 + 0.1 * time) * across * wave
    return fields


@pytest.fixture(scope="module")
def taught() -> KernelDynamics:
    made = untaught()
    made.learn(waves(1, TRAJECTORIES, FRAMES), 0.5)
    return made


def amplitudes(made: KernelDynamics, seed: int, count: int = 4) -> Tensor:
    """Of states that were not learned."""
    return made._amplitudes(waves(seed, count, 1)[:, 0])


def latents(made: KernelDynamics, encoder: PrincipalSGD, fields: Tensor) -> Latents:
    """That show fields (batch, V, latitudes, longitudes)."""
    return encoder(made.points(), fields.flatten(-2).mT)


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("steps", (1, 7, 20))
def test_the_flow_turns_with_the_world(taught: KernelDynamics, steps: int) -> None:
    a = amplitudes(taught, 2)
    turn = torch.exp(2j * math.pi * steps / (2 * LATITUDES) * taught.wave.double())
    close(taught.carried(a * turn), taught.carried(a) * turn, 1e-10)


def test_it_turns_by_any_angle_for_smooth_states(taught: KernelDynamics) -> None:
    a = amplitudes(taught, 3)
    turn = torch.exp(0.377j * taught.wave.double())
    close(taught.carried(a * turn), taught.carried(a) * turn, 1e-10)


def test_a_forecast_from_moved_latents_is_the_moved_forecast(
    taught: KernelDynamics, encoder: PrincipalSGD
) -> None:
    z = latents(taught, encoder, waves(4, 2, 1)[:, 0])
    g = SPACE.random_element(1, random(5))[0]
    moved = replace(z, poses=SPACE.act_pose(g, z.poses))
    times = [0.0, 0.7, 2.0]
    for here, there in zip(
        taught.rollout(encoder, z, times), taught.rollout(encoder, moved, times), strict=True
    ):
        close(there.contexts, here.contexts, 1e-10)
        close(there.poses, SPACE.act_pose(g, here.poses), 1e-10)


@pytest.mark.parametrize("block", (4, 128))
def test_agrees_with_regression_on_all_turned_copies(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ordinary ridge regression on every turned copy: linear, and the rest by the kernel."""
    monkeypatch.setattr(kernel_dynamics, "_BLOCK", block)
    taught = untaught()
    taught.learn(waves(1, TRAJECTORIES, FRAMES), 0.5)
    known = taught._solved().known
    memory = taught.remembered()
    after = memory[:, 1:].flatten(0, 1)
    angles = 2 * math.pi / taught.turns * torch.arange(taught.turns)
    turns = torch.exp(1j * angles[:, None] * taught.wave.double())
    copies = (turns[:, None] * known).flatten(0, 1)
    targets = torch.view_as_real((turns[:, None] * after).flatten(0, 1)).flatten(1)
    both = _both(taught.wave)
    plain = torch.view_as_real(copies).flatten(1)
    spread = [float(known[:, taught.wave == m].abs().square().mean()) for m in taught.wave]
    doubt = _LINEAR_RIDGE * torch.tensor(spread, dtype=torch.float64) / both
    moments = plain.T @ plain / len(plain) + doubt.repeat_interleave(2).diag()
    left, gain, right = torch.linalg.svd(torch.linalg.solve(moments, plain.T @ targets / len(plain)))
    assert float(gain.max()) > 1
    linear = left @ gain.clamp_max(1.0).diag() @ right
    real = torch.view_as_real(both.sqrt() * copies).flatten(1)
    width = _WIDTH * float((both * taught.size.double().square()).sum())

    def kernel(a: Tensor) -> Tensor:
        other = torch.view_as_real(both.sqrt() * a).flatten(1)
        return (-0.5 * torch.cdist(other, real).square() / width).exp()

    ridge = RIDGE * taught.turns * torch.eye(len(copies), dtype=torch.float64)
    weights = torch.linalg.solve(kernel(copies) + ridge, targets - plain @ linear)
    a = amplitudes(taught, 6)
    followed = torch.view_as_real(a).flatten(1) @ linear + kernel(a) @ weights
    expected = torch.view_as_complex(followed.unflatten(1, (-1, 2)))
    close(taught.carried(a), expected, 1e-6)


@pytest.mark.parametrize("modes", (48, 400))
@pytest.mark.parametrize("slope", (0.0, 2.0))
def test_rounding_takes_less_than_modes_that_are_not_kept(modes: int, slope: float) -> None:
    """And what modes are told by is orthonormal, however coarse its grains."""
    made = untaught(modes=modes)
    shape = (TRAJECTORIES, FRAMES, CHANNELS, LATITUDES, LATITUDES + 1)
    falls = (1 + torch.arange(LATITUDES + 1)) ** -slope
    spectrum = torch.randn(shape, generator=random(1), dtype=torch.complex128) * falls
    fields = torch.fft.irfft(spectrum, n=2 * LATITUDES, norm="forward")
    made.learn(fields, 0.5)
    exact, found = made._amplitudes(fields), made.remembered()
    told = made._weighed(made._fields(exact) - fields).square().sum()
    rounded = made._weighed(made._fields(found) - made._fields(exact)).square().sum()
    assert 0 < float(rounded) < 0.1 * float(told)
    for _, (start, end) in made._waves():
        own = made.profiles[start:end]
        close(own @ own.mH, torch.eye(end - start, dtype=torch.complex128), 1e-10)


@pytest.fixture(scope="module")
def fine() -> KernelDynamics:
    """Taught fields whose small scales, which means over cells do not hold, follow from the large ones."""
    made = KernelDynamics(SPACE, CHANNELS, LATITUDES, 2 * LATITUDES, TRAJECTORIES, FRAMES, 300, cells=2)
    made.learn(sharp(1), 0.5)
    return made


def sharp(seed: int) -> Tensor:
    return (0.2 * waves(seed, TRAJECTORIES, FRAMES)).exp()


def between(made: KernelDynamics, seen: Tensor) -> Tensor:
    """What is told of states (batch, V, latitudes, longitudes) of which the means (…) are known."""
    axes = {"latitude": made.latitude, "longitude": made.longitude}
    centres = {name: axis.unflatten(0, (-1, 2)).mean(-1) for name, axis in axes.items()}
    found = made.undone(grid_points(SPACE, centres), seen.flatten(-2).mT)
    assert found is not None
    return found.mT.unflatten(-1, (LATITUDES, 2 * LATITUDES))


@pytest.mark.parametrize("turn", (0, 1, 6))
def test_what_is_between_cells_is_what_states_like_it_have_there(fine: KernelDynamics, turn: int) -> None:
    states = fine._fields(fine.remembered()).flatten(0, 1).roll(turn, -1)
    seen = means(states, 2)
    alone, told = undone(seen, 2), between(fine, seen)
    error, without = ((x - states).square().mean().sqrt() for x in (told, alone))
    assert error < 0.2 * without
    other = means(waves(3, 2, 3).flatten(0, 1), 2)
    close(undone(means(between(fine, other), 2), 2), undone(other, 2), 1e-10)


def test_means_over_turned_cells_are_those_of_the_turned_state(fine: KernelDynamics) -> None:
    axes = {"latitude": fine.latitude, "longitude": fine.longitude}
    centres = {name: axis.unflatten(0, (-1, 2)).mean(-1) for name, axis in axes.items()}
    points, seen = grid_points(SPACE, centres), means(sharp(1)[:, 3], 2).flatten(-2).mT
    rested = fine.undone(points, seen)
    step = 360 / (2 * LATITUDES)
    for nodes in (-40, 1, 5):
        shifted = grid_points(SPACE, {**centres, "longitude": centres["longitude"] + nodes * step})
        moved = fine.undone(shifted, seen)
        assert rested is not None and moved is not None
        expected = rested.mT.unflatten(-1, (LATITUDES, -1)).roll(nodes, -1).flatten(-2).mT
        close(moved, expected, 1e-10)
    assert fine.undone(points.roll(1, -1), seen) is None


def test_of_a_state_unlike_all_that_is_remembered_nothing_is_told(fine: KernelDynamics) -> None:
    seen = 1e3 * means(waves(4, 2, 1)[:, 0], 2)
    mean = fine.mean.view(1, CHANNELS, -1, 1).double().expand(-1, -1, -1, 2 * LATITUDES)
    close(between(fine, seen), mean + undone(seen - means(mean, 2), 2), 1e-10)


@pytest.mark.parametrize("turn", (0, 5))
def test_strange_is_what_nothing_remembered_tells(
    taught: KernelDynamics, encoder: PrincipalSGD, turn: int
) -> None:
    """What is remembered is not, turned or not; what was forgotten is, and so is a negative."""

    def strange(made: KernelDynamics, fields: Tensor) -> Tensor:
        return made.strangeness(encoder, latents(made, encoder, fields.roll(turn, -1)))

    known = waves(1, TRAJECTORIES, FRAMES)[:, 1]
    mean = taught.mean.double().view(1, CHANNELS, -1, 1).expand_as(known)
    lost = copy.deepcopy(taught)
    lost.forget(1)
    near, far = strange(taught, known), strange(taught, 2 * mean - known)
    assert float(near.max()) < 0.02 and bool((far > 5 * near).all())
    kept, forgotten = strange(lost, known[:1]), strange(lost, known[1:])
    assert float(kept) < 0.02 and bool((forgotten > 5 * near[1:]).all())


def test_what_followed_is_remembered(taught: KernelDynamics) -> None:
    path = taught._amplitudes(waves(1, TRAJECTORIES, FRAMES))
    found = taught.path(path[:, 0], [0.5 * i for i in range(1, FRAMES)])
    close(taught._amplitudes(found), path[:, 1:], 0.02)


def test_the_last_frame_is_led_to_though_nothing_before_it_is_like_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel_dynamics, "RIDGE", 1e-9)
    made, fields = untaught(), waves(1, TRAJECTORIES, FRAMES)
    fields[:, -1] = waves(2, TRAJECTORIES, 1)[:, 0]
    made.learn(fields, 0.5)
    path = made._amplitudes(fields)
    found = made.path(path[:, -2], [0.5])
    close(made._amplitudes(found)[:, 0], path[:, -1], 0.05)


def test_a_pattern_that_drifts_goes_on_drifting(encoder: PrincipalSGD) -> None:
    """One trajectory of a wave in solid rotation tells all: any phase, any time, on frames and between."""
    made = untaught(trajectories=1)

    def wave(phase: Tensor) -> Tensor:
        angle = LONGITUDE - phase[..., None, None]
        pattern = (2 * angle).cos() + 0.5 * (3 * angle + 1).cos()
        return COLATITUDE.sin() ** 3 * torch.stack([pattern, -pattern], dim=-3)

    made.learn(wave(0.25 * torch.arange(FRAMES, dtype=torch.float64)[None]), 1.0)
    z = latents(made, encoder, wave(torch.tensor([1.234])))
    times = [0.0, 0.5, 1.0, 2.0, 7.3, 40.0]
    for at, found in zip(times, made.rollout(encoder, z, times), strict=True):
        close(made.seen(encoder, found.contexts)[0], wave(torch.tensor(1.234 + 0.25 * at)).double(), 2e-2)


def test_far_from_everything_the_flow_is_linear_and_enlarges_nothing(taught: KernelDynamics) -> None:
    far = 50 * amplitudes(taught, 8)

    def size(a: Tensor) -> Tensor:
        return (_both(taught.wave) * a.abs().square()).sum(-1)

    once = taught.carried(far)
    close(taught.carried(2 * far), 2 * once, 1e-10)
    assert bool((size(once) <= size(far)).all())
    late = taught.followed(far, [500.0])[0]
    assert bool((size(late) <= size(far)).all())


def test_states_survive_the_grid(taught: KernelDynamics, encoder: PrincipalSGD) -> None:
    a = amplitudes(taught, 9)
    close(taught._amplitudes(taught._fields(a)), a, 2e-3)
    written = latents(taught, encoder, taught._fields(a))
    close(taught._amplitudes(taught.seen(encoder, written.contexts)), a, 1e-2)


def test_it_lies_on_any_even_grid(taught: KernelDynamics) -> None:
    """The same waves on a grid that begins elsewhere and runs from north to south: the same forecast."""
    fields = waves(1, TRAJECTORIES, FRAMES)
    other = untaught()
    other.lie_on(taught.latitude.flip(0), taught.longitude + 3 * 360.0 / len(taught.longitude))
    other.learn(fields.roll(-3, -1).flip(-2), 0.5)
    state = fields[:, 0].roll(5, -1)
    expected = taught.path(taught._amplitudes(state), [1.0, 1.7])
    found = other.path(other._amplitudes(state.roll(-3, -1).flip(-2)), [1.0, 1.7])
    close(found.flip(-2).roll(3, -1), expected, 2e-3)


def likely(made: KernelDynamics, points: Tensor, values: Tensor, error: Tensor) -> Tensor:
    """The most likely fields, given values with errors of variance (M, V)."""
    # What the modes leave is an error, too; here all of it is given.
    step = made._step(points, error - made.left, torch.ones(len(points), 1, dtype=torch.float64))
    return made._fields(step.amplitudes(values))


def by_oracle(made: KernelDynamics, shown: Tensor, values: Tensor, error: Tensor) -> Tensor:
    """S (S + R)⁻¹ (y − f̄) with the covariance S of all values of the grid, from what each amplitude shows.

    Args:
        shown: (M·V, values of the grid), by which observations (batch, M·V) are made of fields.
        error: (M·V,), infinite where not observed.
    """
    units = torch.eye(len(made.wave), dtype=torch.complex128)
    zero = made._fields(0 * units[:1])
    turned = torch.where(made.wave > 0, 1j, 0j)
    features = torch.cat([made._fields(units), made._fields(turned * units)]) - zero
    variance = made.size.double().square() / _both(made.wave)
    rows = features.flatten(1) * torch.cat([variance, variance]).sqrt()[:, None]
    known = error.isfinite()
    seen = rows @ shown[known].T
    gram = seen.T @ seen + error[known].diag()
    away = values[:, known] - zero.flatten() @ shown[known].T
    return zero + (rows.T @ seen @ torch.linalg.solve(gram, away.T)).T.view(len(values), *zero.shape[1:])


def test_the_most_likely_fields_agree_with_the_slow_oracle(taught: KernelDynamics) -> None:
    error = 0.01 + torch.rand(len(taught.points()), CHANNELS, generator=random(1), dtype=torch.float64)
    error[torch.rand(error.shape, generator=random(7)) > 0.2] = torch.inf
    flat = error.T.flatten()
    values = torch.randn(3, len(flat), generator=random(2), dtype=torch.float64)
    expected = by_oracle(taught, torch.eye(len(flat), dtype=torch.float64), values, flat)
    found = likely(taught, taught.points(), values.view(3, CHANNELS, -1).mT, error)
    close(found, expected, 1e-8)


CELLS = 2


@pytest.fixture(scope="module")
def in_cells() -> KernelDynamics:
    """What `taught` is, of data that are means over cells."""
    made = KernelDynamics(SPACE, CHANNELS, LATITUDES, 2 * LATITUDES, TRAJECTORIES, FRAMES, 48, CELLS)
    made.learn(waves(1, TRAJECTORIES, FRAMES), 0.5)
    return made


def centres(made: KernelDynamics) -> Tensor:
    """(M, 3), of the cells."""
    axes = [axis.unflatten(0, (-1, CELLS)).mean(-1) for axis in (made.latitude, made.longitude)]
    return grid_points(SPACE, dict(zip(("latitude", "longitude"), axes, strict=True)))


def of_cells() -> Tensor:
    """(M·V, values of the grid): the means over cells."""
    fields = torch.eye(CHANNELS * LATITUDES * 2 * LATITUDES, dtype=torch.float64)
    return means(fields.view(-1, CHANNELS, LATITUDES, 2 * LATITUDES), CELLS).flatten(1).T


@pytest.mark.parametrize("gaps", [False, True])
def test_from_means_over_cells_the_most_likely_fields_agree_with_the_slow_oracle(
    in_cells: KernelDynamics, gaps: bool
) -> None:
    """On whole circles, where the step is parted by waves, and with gaps, where it is dense."""
    points, shown = centres(in_cells), of_cells()
    error = torch.full((len(points), CHANNELS), 0.01, dtype=torch.float64)
    error[:, 1] = 0.03
    if gaps:
        error[torch.rand(error.shape, generator=random(7)) > 0.5] = torch.inf
    values = torch.randn(3, len(shown), generator=random(2), dtype=torch.float64)
    step = in_cells._step(points, error - in_cells.left, torch.ones(len(points), 1), in_cells.width)
    found = in_cells._fields(step.amplitudes(values.view(3, CHANNELS, -1).mT))
    # The profiles between latitudes are splines: exact at the nodes of the grid, of which cells are made.
    close(found, by_oracle(in_cells, shown, values, error.T.flatten()), 1e-8)


@pytest.mark.parametrize("gaps", [False, True])
def test_means_are_brought_to_the_centres_of_their_cells(
    in_cells: KernelDynamics, encoder: PrincipalSGD, gaps: bool
) -> None:
    fields = in_cells._fields(amplitudes(in_cells, 8))
    points = centres(in_cells)
    given = means(fields, CELLS).flatten(-2).mT
    if gaps:
        given = given.where(torch.rand(given.shape[1], 1, generator=random(9)) > 0.3, torch.nan)
    found = in_cells.at_centres(encoder, points, given, None, None, in_cells.width)
    step = _LooseStep(in_cells, points, torch.ones(len(points), CHANNELS), torch.arange(48), None)
    truth = step.shown(amplitudes(in_cells, 8)) + in_cells._mean_at(points[:, 2].asin().rad2deg(), None)
    seen = ~given.isnan()
    wrong, before = (found - truth)[seen].square().mean(), (given - truth)[seen].square().mean()
    assert bool(found.isnan().eq(given.isnan()).all())
    assert float(wrong) < 1e-3 * float(before)


def test_circles_and_loose_points_are_one_step(in_cells: KernelDynamics) -> None:
    """A coarser grid of few circles, turned, sees waves m and n − m alike; also that of values at points."""
    axes = {"latitude": torch.tensor([-40.0, 10.0, 65.0]), "longitude": 7.0 + 60 * torch.arange(6.0)}
    points = grid_points(SPACE, axes)
    error = torch.full((len(points), CHANNELS), 0.02, dtype=torch.float64)
    values = torch.randn(2, len(points), CHANNELS, generator=random(3), dtype=torch.float64)
    for width in (None, in_cells.width):
        whole = in_cells._step(points, error, torch.ones(len(points), 1), width)
        every = torch.arange(len(in_cells.wave))
        loose = _LooseStep(in_cells, points, error + in_cells.left, every, width)
        assert isinstance(whole, _CircleStep)
        close(whole.amplitudes(values), loose.amplitudes(values), 1e-8)
        a = amplitudes(in_cells, 5)
        close(whole.shown(a), loose.shown(a), 1e-10)
        close(1 + whole.between(a), 1 + loose.between(a), 1e-10)


def test_what_amplitudes_show_is_what_their_fields_have(in_cells: KernelDynamics) -> None:
    """On the nodes of the grid and over its cells."""
    a = amplitudes(in_cells, 6)
    fields = in_cells._fields(a)
    ones = torch.ones(1, CHANNELS, dtype=torch.float64)
    for points, width, expected in (
        (in_cells.points(), None, fields),
        (centres(in_cells), in_cells.width, means(fields, CELLS)),
    ):
        step = in_cells._step(points, 0.1 * ones.expand(len(points), -1), ones[:, :1], width)
        mean = in_cells._mean_at(points[:, 2].asin().rad2deg(), width)
        close(step.shown(a) + mean, expected.flatten(-2).mT, 1e-9)


@pytest.mark.parametrize("circles", [False, True])
def test_what_is_observed_settles_at_a_state_that_is_remembered(fine: KernelDynamics, circles: bool) -> None:
    """On one circle, or a few nodes, of turned states; of values unlike all of them spreads alone tell."""
    states = fine._fields(fine.remembered()[:, 1:4].flatten(0, 1)).roll(3, -1)
    nodes = torch.arange(2 * LATITUDES**2)
    few = nodes[torch.randperm(len(nodes), generator=random(2))[:16]]
    keep = nodes[4 * LATITUDES : 6 * LATITUDES] if circles else few
    points, values = fine.points()[keep], states.flatten(-2).mT[:, keep]
    error = torch.full((len(keep), CHANNELS), 1e-6, dtype=torch.float64)
    step = fine._step(points, error, torch.ones(len(keep), 1))
    linear, settled = (fine._fields(a) for a in (step.amplitudes(values), fine.likely(step, values)))
    before, after = ((x - states).square().mean().sqrt() for x in (linear, settled))
    assert after < 0.5 * before
    strange = 1e3 * torch.randn(values.shape, generator=random(3), dtype=torch.float64)
    close(fine.likely(step, strange), step.amplitudes(strange), 1e-10)


def test_the_most_likely_fields_turn_with_the_points(taught: KernelDynamics) -> None:
    points = SPACE.random_points(60, random(3))
    values = torch.randn(2, 60, CHANNELS, generator=random(4), dtype=torch.float64)
    error = torch.full((60, CHANNELS), 0.1, dtype=torch.float64)
    steps, angle = 5, torch.tensor(5 * math.pi / LATITUDES, dtype=torch.float64)
    turn = torch.eye(3, dtype=torch.float64)
    turn[0, 0], turn[0, 1], turn[1, 0], turn[1, 1] = angle.cos(), -angle.sin(), angle.sin(), angle.cos()
    here, there = (likely(taught, x, values, error) for x in (points, points @ turn.T))
    close(there, here.roll(steps, -1), 1e-10)


def test_few_points_tell_more_with_the_harmonics(taught: KernelDynamics, encoder: PrincipalSGD) -> None:
    fields = waves(1, TRAJECTORIES, FRAMES)[:, 3]
    values = fields.flatten(-2).mT.clone()
    unseen = torch.rand(values.shape[1], generator=random(6)) > 0.08
    values[:, unseen] = torch.nan

    def error(found: Latents) -> float:
        gap = taught.seen(encoder, found.contexts) - fields
        return float(gap.square().mean() / fields.square().mean())

    with_harmonics = error(taught.encode(encoder, taught.points(), values))
    assert with_harmonics < 1e-2 and with_harmonics < 0.1 * error(encoder(taught.points(), values))


def seen_at(truth: Tensor, times: list[float], seed: int) -> list[Frame]:
    """Fields (batch, times, V, latitudes, longitudes) at five points, other ones each time."""
    draw, frames = random(seed), []
    for time, fields in zip(times, truth.unbind(1), strict=True):
        values = torch.full_like(fields.flatten(-2).mT, torch.nan)
        at = torch.randperm(values.shape[1], generator=draw)[:5]
        values[:, at] = fields.flatten(-2).mT[:, at]
        frames.append(Frame(time, GRID, values))
    return frames


GRID = untaught().points()


@pytest.mark.parametrize("turn", (0, 5))
def test_later_observations_tell_of_the_beginning(
    taught: KernelDynamics, encoder: PrincipalSGD, turn: int
) -> None:
    """On frames and between them; and together as one by one."""
    path, times = taught.remembered()[:, 0], [0.0, 0.5, 1.2, 2.0]
    truth = taught._fields(torch.stack([path, *taught.followed(path, times)], 1)).roll(turn, -1)

    def error(found: Latents) -> float:
        return float((taught.seen(encoder, found.contexts) - truth[:, 0]).square().mean().sqrt())

    frames = seen_at(truth, times, 4)
    one, two, four = (assimilate_remembered(taught, encoder, frames[:n]) for n in (1, 2, 4))
    assert error(four) < 0.02 * float(truth[:, 0].std())
    assert error(four) < 0.1 * error(one) and error(two) < 0.2 * error(one)
    alone = [replace(frame, values=frame.values[1:2]) for frame in frames]
    close(assimilate_remembered(taught, encoder, alone).contexts, four.contexts[1:2], 1e-6)


def test_a_later_time_that_saw_nothing_changes_nothing(taught: KernelDynamics, encoder: PrincipalSGD) -> None:
    frames = seen_at(waves(1, TRAJECTORIES, 2), [0.0, 0.5], 4)
    blind = replace(frames[1], values=torch.full_like(frames[1].values, torch.nan))
    expected = assimilate_remembered(taught, encoder, frames[:1]).contexts
    close(assimilate_remembered(taught, encoder, [frames[0], blind]).contexts, expected, 1e-10)


def test_what_the_grid_needs_is_made_once_for_states_observed_elsewhere(
    taught: KernelDynamics, encoder: PrincipalSGD, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new choice of points costs a step (one for both variables), the first that of the grid, too."""
    made, whole = 0, copy.deepcopy(encoder)

    class Counted(local_prior.LocalStep):
        def __init__(self, *args: Tensor) -> None:
            nonlocal made
            made += 1
            super().__init__(*args)

    monkeypatch.setattr(local_prior, "LocalStep", Counted)
    for i in range(1, 4):
        values = torch.randn(2, 30, CHANNELS, generator=random(i), dtype=torch.float64)
        taught.encode(whole, SPACE.random_points(30, random(i)), values)
        assert made == i + 1


@pytest.mark.parametrize("parity", [1, -1])
def test_splines_go_over_the_poles(parity: int) -> None:
    """They agree with a trusted periodic spline on the circle of a meridian, in any order of nodes."""
    nodes = torch.tensor([80.0, 30.0, 41.0, -60.0, -20.0, 5.0, -75.0], dtype=torch.float64)
    values = torch.randn(len(nodes), generator=random(8), dtype=torch.float64)
    x = torch.linspace(-90, 90, 61, dtype=torch.float64)
    order = nodes.argsort()
    circle = torch.cat([nodes[order], 180 - nodes[order].flip(0), nodes[order][:1] + 360])
    there = torch.cat([values[order], parity * values[order].flip(0), values[order][:1]])
    oracle = CubicSpline(circle.numpy(), there.numpy(), bc_type="periodic")
    expected = torch.from_numpy(oracle(torch.where(x < circle[0], x + 360, x).numpy()))
    close(_across(nodes, x, parity) @ values, expected, 1e-12)


@pytest.mark.parametrize("wave", [0, 1, 2, 3])
@pytest.mark.parametrize("poles", [False, True])
def test_splines_across_latitudes_are_of_fourth_order(wave: int, poles: bool) -> None:
    x = torch.linspace(-90, 90, 181, dtype=torch.float64)

    def profile(latitude: Tensor) -> Tensor:
        angle = latitude.deg2rad()
        return angle.cos() ** wave * (3 * angle.sin()).exp()

    def error(latitudes: int) -> float:
        nodes = SPACE.axis("latitude", latitudes)
        if poles:
            nodes = torch.linspace(-90, 90, latitudes + 1, dtype=torch.float64)
        gap = _across(nodes, x, 1 - 2 * (wave % 2)) @ profile(nodes) - profile(x)
        return float(gap.abs().max())

    assert error(96) < error(48) / 14 < 1e-5


def drifting(samples: int, frames: int, seed: int) -> xr.Dataset:
    """A pattern in solid rotation, from random longitudes, on a grid."""
    latitude, longitude = np.linspace(-82.5, 82.5, 12), np.arange(24) * 15.0
    time = np.arange(frames, dtype=float)
    first = np.random.default_rng(seed).uniform(0, 360, samples)
    angle = np.deg2rad(longitude - 10 * time[:, None, None] - first[:, None, None, None])
    across = np.cos(np.deg2rad(latitude))[:, None] ** 3
    height = across * (np.cos(2 * angle) + 0.5 * np.cos(3 * angle + 1))
    dims = ("sample", "time", "latitude", "longitude")
    return xr.Dataset(
        {"height": (dims, height, {"units": "m"})},
        {
            "time": ("time", time, {"units": "hours"}),
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", longitude, {"units": "degrees_east"}),
        },
        {"geometry": "rotating_sphere"},
    )


def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
    typed = [sys.executable, "-m", "pdeforecast", *map(str, arguments)]
    return subprocess.run(typed, capture_output=True, text=True, check=False)


SMALL = ("--preset", "memory", "--set", "field.latents=60")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, with its data beside it."""
    folder = tmp_path_factory.mktemp("memory")
    save_dataset(drifting(3, 9, seed=0), folder / "train.nc")
    said = command("train", folder / "train.nc", "-o", folder / "run", *SMALL)
    assert said.returncode == 0, said.stderr
    assert "3 of the trajectories remembered" in said.stderr + said.stdout
    return folder / "run"


def test_a_training_that_was_stopped_before_it_remembered_is_no_model(trained: Path, tmp_path: Path) -> None:
    pf.save(pf.Forecaster(pf.load(trained).config), tmp_path / "begun.safetensors")
    said = command("inspect", tmp_path / "begun.safetensors")
    assert said.returncode == 4
    assert "before it remembered anything" in said.stderr and "--resume" in said.stderr
    assert len(said.stderr.splitlines()) == 2, said.stderr


def test_a_user_resumes_inspects_and_forecasts(trained: Path, tmp_path: Path) -> None:
    truth = drifting(2, 12, seed=1)
    save_dataset(truth.isel(time=0, drop=True), tmp_path / "state.nc")
    before = load_file(trained / "model.safetensors")
    again = command("train", trained.parent / "train.nc", "-o", trained, "--resume")
    assert again.returncode == 0, again.stderr
    after = load_file(trained / "model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)
    told = command("inspect", trained).stdout
    assert "kernel regression on 3 remembered trajectories of 9 frames" in told
    target = tmp_path / "forecast.nc"
    said = command("forecast", trained, tmp_path / "state.nc", "--lead-time", "0,0.5,3,11", "-o", target)
    assert said.returncode == 0, said.stderr
    with open_dataset(target) as forecast:
        # The last lead time lies beyond all that was remembered, and the pattern has no age.
        for at, frame in ((0, 0), (2, 3), (3, 11)):
            found, expected = forecast.height.isel(lead_time=at), truth.height.isel(time=frame)
            assert float(abs(found - expected).max()) < 0.06 * float(abs(expected).max())


def test_a_state_unlike_what_is_remembered_warns_and_an_unseen_one_does_not(trained: Path) -> None:
    model, states = pf.load(trained), drifting(4, 2, seed=7).isel(time=0, drop=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrustWarning)
        model.forecast(states, [1.0])
    with pytest.warns(TrustWarning, match="4 of 4 .* a misfit"):
        model.forecast(-states, [1.0])


def test_a_run_that_was_killed_at_once_keeps_its_grid(tmp_path: Path) -> None:
    """Of a grid that is not the default one, with poles: nothing but run.json is there."""
    data = drifting(3, 6, seed=0)
    data = data.assign_coords(
        latitude=("latitude", np.linspace(-90, 90, 12), data.latitude.attrs),
        longitude=("longitude", data.longitude.values + 5, data.longitude.attrs),
    )
    save_dataset(data, tmp_path / "train.nc")
    said = command("train", tmp_path / "train.nc", "-o", tmp_path / "whole", *SMALL)
    assert said.returncode == 0, said.stderr
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "run.json").write_bytes((tmp_path / "whole" / "run.json").read_bytes())
    again = command("train", tmp_path / "train.nc", "-o", tmp_path / "killed", "--resume")
    assert again.returncode == 0, again.stderr
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert float(whole["dynamics.latitude"].max()) == 90 and float(whole["dynamics.longitude"][0]) == 5
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_it_is_not_fine_tuned_and_serves_the_rotating_sphere_only(trained: Path, tmp_path: Path) -> None:
    data = drifting(2, 6, seed=0)
    save_dataset(data, tmp_path / "train.nc")
    save_dataset(data.assign_attrs(geometry="sphere"), tmp_path / "other.nc")
    save_dataset(data.isel(time=[0]), tmp_path / "short.nc")
    for data_file, options, cause in (
        ("train.nc", ("--init-from", trained), "expected a model with a network to fine-tune"),
        ("other.nc", SMALL, "serves the rotating sphere; these data are on sphere"),
        ("short.nc", SMALL, "expected two or more evenly spaced frames to remember; came 1"),
    ):
        said = command("train", tmp_path / data_file, "-o", tmp_path / "no", *options)
        assert said.returncode == 2 and cause in said.stderr, said.stderr
        assert "Traceback" not in said.stderr and not (tmp_path / "no").exists()


def test_observations_at_several_times_are_assimilated(trained: Path) -> None:
    """4D-Var through the remembered flow: three sparse frames tell more than one."""
    model = pf.load(trained)
    truth = drifting(1, 9, seed=5)
    seen = np.random.default_rng(0).uniform(size=truth.height.shape) < 0.01
    sparse = truth.assign(height=truth.height.where(seen)).isel(time=[0, 2, 4])

    def error(state: xr.Dataset, assimilate: bool) -> float:
        found = model.forecast(state, [6.0], like=truth.isel(time=0, drop=True), assimilate=assimilate)
        gap = found.height.isel(lead_time=0) - truth.height.isel(time=6)
        return float((gap**2).mean() / (truth.height**2).mean()) ** 0.5

    one, three = error(sparse.isel(time=[0]), False), error(sparse, True)
    assert three < 0.7 * one
