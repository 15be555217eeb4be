"""Between frames: closed forms, exact recovery, equivariance, and waves that are faster than frames."""

import copy
import math

import pytest
import torch
from torch import Generator, Tensor

from pdeforecast import between_frames
from pdeforecast.between_frames import (
    Beyond,
    _rounded,
    cubic,
    drift,
    heeded,
    nodes,
    on_frame,
    through,
)
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.kernel_dynamics import KernelDynamics

SPACE = GEOMETRIES["rotating_sphere"]
LATITUDES, LONGITUDES, FRAMES, GAP = 12, 24, 9, 1.0
ACROSS = torch.linspace(-1, 1, LATITUDES, dtype=torch.float64)
AROUND = torch.arange(LONGITUDES, dtype=torch.float64) * (2 * math.pi / LONGITUDES)


def random(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def noise(draw: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=draw)


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("alike", [0.0, 0.9, 0.999])
def test_rounded_numbers_take_over_what_others_missed(alike: float) -> None:
    """The more alike what is told by them, the more is gained over rounding each by itself."""
    told = noise(random(0), 300, 1) * alike + noise(random(1), 300, 40) * (1 - alike)
    upper, exact = torch.linalg.cholesky(told.mH @ told).mH, noise(random(2), 40, 6)
    grain = 0.02 * torch.rand(40, 1, generator=random(3), dtype=torch.float64)
    found = _rounded(upper, exact, grain)
    parts = torch.view_as_real(found)
    assert torch.equal(parts, parts.round())
    alone = torch.view_as_complex(torch.view_as_real(exact / grain).round())
    missed, before = ((told @ (grain * whole - exact)).abs().square().sum() for whole in (found, alone))
    assert bool(missed < (1.05 if alike == 0 else 0.5) * before)
    # What is whole already stays as it is.
    close(_rounded(upper, grain * found, grain), found, 1e-10)


@pytest.mark.parametrize("angle", [0.0, 0.0123, -0.4, 2.9])
def test_frames_in_solid_rotation_drift_by_its_angle(angle: float) -> None:
    wave = torch.arange(6).repeat_interleave(2)
    first = noise(random(0), 3, 1, 12)
    turns = torch.exp(1j * angle * wave.double() * torch.arange(5)[:, None])
    close(drift(wave, first * turns, LONGITUDES), torch.tensor(angle, dtype=torch.float64), 1e-10)


def test_what_does_not_turn_does_not_drift() -> None:
    flat = noise(random(0), 3, 4, 5)
    assert float(drift(torch.zeros(5, dtype=torch.long), flat, LONGITUDES)) == 0.0


@pytest.mark.parametrize("x", [0.0, 0.3, 1.5, 2.0, 3.99, 5.5])
def test_between_frames_lies_a_cubic_that_turns(x: float) -> None:
    turn = torch.tensor([0.0, 0.3, 2.5], dtype=torch.float64)
    parts = noise(random(1), 4, 3)

    def at(x: float) -> Tensor:
        return sum(parts[p] * (x - 2) ** p for p in range(4)) * torch.exp(1j * turn * x)

    frames = [at(float(k)) for k in range(7)]
    close(cubic(frames, x, turn), at(x), 1e-12)
    close(through(frames[1:5], x - 1, turn), at(x), 1e-10)


def test_the_largest_amplitudes_are_heeded() -> None:
    wave = torch.cat([torch.zeros(100, dtype=torch.long), torch.ones(3, dtype=torch.long)])
    size = torch.rand(103, generator=random(0)) + 0.1
    told = heeded(wave, size, size * torch.arange(103.0, dtype=torch.float64).to(torch.complex128))
    count = told.shape[-1]
    largest = size[:100].argsort(descending=True)[:count]
    close(told[0].real, largest.double(), 1e-6)
    assert set(told[1, :3].real.round().tolist()) == {100.0, 101.0, 102.0} and not told[1, 3:].any()


def flows(seed: int, count: int, times: Tensor, bend: float = 0.0) -> Tensor:
    """Fields (count, times, 2, latitudes, longitudes): a slow pattern that turns, and waves of one to
    five frames, which two frames tell, but no cubic; between frames a jet makes them stronger."""
    draw = random(seed)
    jet = torch.randn(count, 1, 1, 1, 1, dtype=torch.float64, generator=draw)
    fields = (bend > 0) * jet * (1 - ACROSS**2)[:, None].expand(count, len(times), 2, -1, LONGITUDES)
    for m in range(1, 4):
        ring = torch.exp(1j * m * AROUND)
        shapes = torch.stack([1 - ACROSS**2, ACROSS * (1 - ACROSS**2)]) + 0j
        slow = (noise(draw, count, 2) @ shapes)[:, None, None, :, None]
        turned = torch.exp(-0.2j * m * times)[:, None, None, None]
        fields += (slow * turned * ring).real
        for j, rate in enumerate((1.3, 2.9, -2.1)):
            across = (math.pi * (j + 1) * (ACROSS + 1) / 2).sin()[:, None]
            both = torch.stack([across + 0j, 1j * (across + 0.3)])
            phase = torch.exp(-1j * (rate + 0.7 * m) * times)[:, None, None, None]
            here = 1 + bend * jet * (math.pi * times).sin().square()[:, None, None, None]
            fields += (0.3 * noise(draw, count, 1, 1, 1, 1) * phase * here * both * ring).real
    return fields


def learned(bend: float) -> KernelDynamics:
    made = KernelDynamics(SPACE, 2, LATITUDES, LONGITUDES, 24, FRAMES, 40, between=True)
    frames = torch.arange(FRAMES, dtype=torch.float64)
    inner = (frames[:-1, None] + torch.tensor(nodes(), dtype=torch.float64)).flatten()
    between = flows(0, 24, inner, bend).unflatten(1, (FRAMES - 1, -1))
    made.learn(flows(0, 24, frames, bend), GAP, iter(between))
    return made


def missed(flow: KernelDynamics, x: float, bend: float) -> tuple[float, float]:
    """Relative errors at x among true frames of unseen flows, of the cubic alone and with waves."""
    frames = flow._amplitudes(flows(1, 6, torch.arange(FRAMES, dtype=torch.float64), bend)).unbind(1)
    truth = flows(1, 6, torch.tensor([x], dtype=torch.float64), bend)[:, 0]
    near, place = flow.near(frames, x)
    alone = flow._fields(cubic(near, place, flow._angle() * flow.wave))
    told = alone + flow.off_cubic(near, place - 1)
    alone_off, told_off = (
        float((found - truth).square().mean() / truth.square().mean()) ** 0.5 for found in (alone, told)
    )
    return alone_off, told_off


@pytest.fixture(scope="module")
def taught() -> KernelDynamics:
    return learned(0.0)


@pytest.mark.parametrize("x", [0.04, 0.5, 0.77, 1.25, 4.5, 6.9, 7.2, 7.6])
def test_waves_faster_than_frames_are_told_between_them(taught: KernelDynamics, x: float) -> None:
    """Of unseen flows, also where no frame lies before or after."""
    alone, told = missed(taught, x, 0.0)
    assert told < 0.02 and told < 0.1 * alone + 0.005


def test_waves_run_otherwise_on_another_jet(monkeypatch: pytest.MonkeyPatch) -> None:
    bent = missed(learned(0.1), 4.5, 0.1)[1]
    monkeypatch.setattr(between_frames, "_BEND", 0.0)
    straight = missed(learned(0.1), 4.5, 0.1)[1]
    assert bent < 0.4 * straight


def test_waves_vanish_on_frames(taught: KernelDynamics) -> None:
    frames = taught._amplitudes(flows(1, 2, torch.arange(FRAMES, dtype=torch.float64))).unbind(1)
    size = taught.off_cubic(frames[1:5], 0.5).abs().max()
    for s in (1e-9, 1 - 1e-9):
        assert float(taught.off_cubic(frames[1:5], s).abs().max()) < 1e-6 * float(size)
    assert on_frame(3 - 1e-9) and not on_frame(2.5)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_path_between_frames_turns_with_the_world(taught: KernelDynamics, steps: int) -> None:
    state = taught.remembered()[:2, 0]
    turn = torch.exp(-1j * steps * (2 * math.pi / LONGITUDES) * taught.wave.double())
    times = [0.3, 1.0, 2.6]
    close(taught.path(state * turn, times), taught.path(state, times).roll(steps, -1), 1e-9)


def test_a_path_follows_what_is_remembered_between_frames(taught: KernelDynamics) -> None:
    """To the last frame, though nothing tells what comes after it."""
    times = [0.5, 1.4, 2.0, 3.3, 6.5, 7.5, 8.0]
    truth = flows(0, 24, torch.tensor(times, dtype=torch.float64))[:3]
    found = taught.path(taught.remembered()[:3, 0], times)
    assert float((found - truth).square().mean() / truth.square().mean()) ** 0.5 < 0.03


def test_networks_of_another_type_leave_what_is_remembered(taught: KernelDynamics) -> None:
    types = {name: buffer.dtype for name, buffer in taught.named_buffers()}
    assert {name: buffer.dtype for name, buffer in taught.float().named_buffers()} == types
    assert types["between.weights.bytes"] == torch.uint8 and types["grain"] == torch.float64


def test_the_frame_before_a_path_is_told_by_three_and_backwards_the_one_after() -> None:
    """Of unseen paths of waves that two frames tell; and it turns with the world."""
    wave = torch.tensor([0, 0, 2, 2, 2])
    rates = torch.tensor([0.3, 0.3, 0.8, 0.8, -1.2], dtype=torch.float64)
    mixed, times = noise(random(5), 5, 5), torch.arange(-1, 8)[:, None]

    def drawn(seed: int, count: int) -> Tensor:
        amplitudes = noise(random(seed), count, 1, 5) * torch.exp(1j * rates * times)
        found = torch.cat([amplitudes[..., :2].real + 0j, amplitudes[..., 2:] @ mixed[:3, :3]], dim=-1)
        return found * torch.exp(0.2j * wave * times)

    known, unseen = drawn(6, 60), drawn(7, 4)
    size = known.abs().square().mean((0, 1)).sqrt()
    before = Beyond(wave, size, known, torch.tensor(0.2, dtype=torch.float64))
    after = Beyond(wave, size, known.flip(1), torch.tensor(-0.2, dtype=torch.float64))
    frames = list(unseen.unbind(1))
    close(before(frames[1:4]), frames[0], 0.02)
    close(after(frames[-2:-5:-1]), frames[-1], 0.02)
    turn = torch.exp(1.3j * wave)
    close(before([frame * turn for frame in frames[1:4]]), before(frames[1:4]) * turn, 1e-10)
    assert not before(frames[1:4])[:, :2].imag.any()


def test_what_was_saved_tells_the_same_between_frames(taught: KernelDynamics) -> None:
    state, times = taught.remembered()[:2, 0], [0.3, 1.0, 2.6]
    other = KernelDynamics(SPACE, 2, LATITUDES, LONGITUDES, 24, FRAMES, 40, between=True)
    other.load_state_dict(taught.state_dict())
    for found in (other, copy.deepcopy(taught)):
        assert torch.equal(found.path(state, times), taught.path(state, times))


def test_a_wave_number_of_which_nothing_is_kept_is_left_to_the_cubic(monkeypatch: pytest.MonkeyPatch) -> None:
    """With grains that are coarse for one of three."""
    rounded = between_frames._rounded
    calls = iter(range(100))

    def coarse(upper: Tensor, matrix: Tensor, grain: Tensor) -> Tensor:
        return rounded(upper, matrix, grain) * (next(calls) != 1)

    monkeypatch.setattr(between_frames, "_rounded", coarse)
    made = learned(0.0)
    assert made.tells_between and not made.between.extent[2].any() and made.between.extent[3].all()
    frames = made._amplitudes(flows(1, 2, torch.arange(4.0, dtype=torch.float64))).unbind(1)
    spectrum = torch.fft.rfft(made.off_cubic(frames, 0.5))
    assert not spectrum[..., 2].abs().max() > 1e-9 * spectrum.abs().max()
    assert float(spectrum[..., 3].abs().max()) > 1e-3 * float(spectrum.abs().max())


@pytest.mark.parametrize("frames", [2, 3, 4])
def test_few_frames_are_remembered_too(frames: int) -> None:
    """Of fewer than four nothing tells what lies between, but a cubic or less."""
    made = KernelDynamics(SPACE, 2, LATITUDES, LONGITUDES, 24, frames, 40, between=True)
    places = torch.arange(frames, dtype=torch.float64)
    inner = (places[:-1, None] + torch.tensor(nodes(), dtype=torch.float64)).flatten()
    made.learn(flows(0, 24, places), GAP, iter(flows(0, 24, inner).unflatten(1, (frames - 1, -1))))
    assert made.tells_between == (frames > 3)
    assert bool(made.path(made.remembered()[:2, 0], [0.5, 1.0, 4.7]).isfinite().all())
