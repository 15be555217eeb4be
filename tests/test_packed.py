"""Numbers in few bytes come back as they were, from any module, file and type, or their damage is told."""

import copy
import io

import pytest
import torch
from torch import Generator, Tensor, nn

from pdeforecast.packed import Packed, PackedPaths


def random(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def drawn(seed: int, *shape: int, spread: float) -> Tensor:
    return (spread * torch.randn(*shape, generator=random(seed), dtype=torch.float64)).round()


@pytest.mark.parametrize("spread", [0.0, 0.3, 40.0, 127.0, 1e4, 1e8])
@pytest.mark.parametrize("shape", [(1,), (7, 3, 2), (0, 4), (200, 30)])
def test_numbers_come_back(shape: tuple[int, ...], spread: float) -> None:
    packed, numbers = Packed(*shape), drawn(0, *shape, spread=spread)
    assert torch.equal(packed.numbers(), torch.zeros(shape, dtype=torch.float64))
    packed.keep(numbers)
    assert torch.equal(packed.numbers(), numbers)
    assert torch.equal(copy.deepcopy(packed).float().numbers(), numbers)


def test_at_the_ends_of_a_byte() -> None:
    packed, numbers = Packed(1025), torch.arange(-512.0, 513.0, dtype=torch.float64)
    packed.keep(numbers)
    assert torch.equal(packed.numbers(), numbers)
    packed.keep(numbers + 0.4)
    assert torch.equal(packed.numbers(), numbers)


def test_few_bytes_are_near_the_entropy() -> None:
    """Of numbers whose spread falls from place to place, log₂ (σ √(2πe)) bits each."""
    spread = torch.logspace(3, 0.3, 1000, dtype=torch.float64)[:, None]
    packed, numbers = Packed(1000, 400), (spread * drawn(1, 1000, 400, spread=1e6) / 1e6).round()
    packed.keep(numbers)
    entropy = float((spread * (2 * torch.pi * torch.e) ** 0.5).log2().mean()) * numbers.numel() / 8
    assert entropy < len(packed.bytes) < 1.1 * entropy


def test_a_state_brings_as_many_bytes_as_it_has() -> None:
    one, other = nn.ModuleDict({"a": Packed(50)}), nn.ModuleDict({"a": Packed(50)})
    one["a"].keep(drawn(2, 50, spread=30.0))
    other["a"].keep(drawn(3, 50, spread=3e5))
    assert not torch.equal(other["a"].numbers(), one["a"].numbers())
    stored = io.BytesIO()
    torch.save(one.state_dict(), stored)
    stored.seek(0)
    other.load_state_dict(torch.load(stored, weights_only=True))
    assert torch.equal(other["a"].numbers(), one["a"].numbers())
    with pytest.raises(RuntimeError, match="Missing"):
        other.load_state_dict({})


def test_another_length_is_kept() -> None:
    packed, numbers = Packed(4, 3), drawn(4, 2, 3, spread=9.0)
    packed.keep(numbers)
    assert packed.shape == (2, 3) and torch.equal(packed.numbers(), numbers)


@pytest.mark.parametrize("harm", ["shorter", "other", "more"])
def test_damage_is_told(harm: str) -> None:
    packed = Packed(300)
    packed.keep(drawn(5, 300, spread=50.0))
    stored = packed.bytes.clone()
    packed = Packed(300 if harm != "more" else 299)
    packed.bytes = {"shorter": stored[: len(stored) // 2], "other": stored.flip(0), "more": stored}[harm]
    with pytest.raises(ValueError, match="packed numbers"):
        packed.numbers()


@pytest.mark.parametrize("size", [1e12, float("nan"), float("inf")])
def test_what_is_no_number_is_not_kept(size: float) -> None:
    packed = Packed(3)
    with pytest.raises(ValueError, match="smaller than"):
        packed.keep(torch.tensor([1.0, size, 0.0]))
    assert not packed.numbers().any()


GROUPS = [slice(0, 3), slice(3, 4), slice(4, 9)]


def paths(seed: int, frames: int = 20, count: int = 6, size: float = 300.0) -> Tensor:
    """Amplitudes (modes, frames, paths, 2) in whole numbers, of oscillations that modes of a group share."""
    draw = random(seed)
    found = torch.zeros(9, frames, count, dtype=torch.complex128)
    for own in GROUPS:
        for rate in (0.3, 1.1):
            across = torch.randn(own.stop - own.start, 1, 1, generator=draw, dtype=torch.complex128)
            start = torch.randn(1, 1, count, generator=draw, dtype=torch.complex128)
            found[own] += size * across * start * torch.exp(1j * rate * torch.arange(frames))[:, None]
    return torch.view_as_real(found).round()


@pytest.mark.parametrize("size", [0.0, 0.4, 300.0, 1e6])
@pytest.mark.parametrize("frames", [1, 2, 3, 20])
def test_paths_come_back(frames: int, size: float) -> None:
    packed, numbers = PackedPaths(9, frames, 6), paths(0, frames, size=size)
    assert packed.empty and packed.shape == numbers.shape
    assert torch.equal(packed.numbers(GROUPS), torch.zeros_like(numbers))
    packed.keep(numbers + 0.3, GROUPS)
    assert not packed.empty
    other = PackedPaths(9, frames, 6)
    other.load_state_dict(packed.state_dict())
    for found in (packed, copy.deepcopy(packed).float(), other):
        assert torch.equal(found.numbers(GROUPS), numbers)


def test_of_paths_only_what_frames_before_do_not_tell_takes_bytes() -> None:
    numbers, plain, packed = paths(1, 60, 40), Packed(9, 60, 40, 2), PackedPaths(9, 60, 40)
    plain.keep(numbers)
    packed.keep(numbers, GROUPS)
    assert sum(len(part.bytes) for part in (packed.left, packed.weights)) < 0.45 * len(plain.bytes)


def test_fewer_paths_are_kept() -> None:
    packed, numbers = PackedPaths(9, 20, 6), paths(2)
    packed.keep(numbers, GROUPS)
    packed.keep(packed.numbers(GROUPS)[:, :, :2], GROUPS)
    assert packed.shape == (9, 20, 2, 2) and torch.equal(packed.numbers(GROUPS), numbers[:, :, :2])


@pytest.mark.parametrize("part", ["left", "weights"])
def test_damage_to_paths_is_told(part: str) -> None:
    packed = PackedPaths(9, 20, 6)
    packed.keep(paths(3), GROUPS)
    stored = getattr(packed, part).bytes
    getattr(packed, part).bytes = stored[: len(stored) // 2]
    packed._apply(lambda buffer: buffer)
    with pytest.raises(ValueError, match="packed numbers"):
        packed.numbers(GROUPS)


@pytest.mark.parametrize("size", [1e12, float("nan"), float("inf")])
def test_paths_of_no_numbers_are_not_kept(size: float) -> None:
    packed, numbers = PackedPaths(9, 20, 6), paths(4)
    numbers[5, 7, 2, 0] = size
    with pytest.raises(ValueError, match="smaller than"):
        packed.keep(numbers, GROUPS)
    assert packed.empty and not packed.fine.any()
