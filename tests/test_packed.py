"""Numbers in few bytes come back as they were, from any module, file and type, or their damage is told."""

import copy
import io

import pytest
import torch
from torch import Generator, Tensor, nn

from pdeforecast.packed import Packed


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
