"""Laws of `kept`: what is found again is what would be made again, and no more than `count` is held."""

import copy

import pytest
import torch
from torch import Tensor

from pdeforecast.kept import Kept


class Made:
    """A function that counts how often it is evaluated."""

    def __init__(self, count: int) -> None:
        self.kept: Kept[Tensor] = Kept(count)
        self.times = 0

    def __call__(self, *key: Tensor) -> Tensor:
        def make() -> Tensor:
            self.times += 1
            return sum(key, torch.zeros(()))  # type: ignore[return-value]

        return self.kept(key, make)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_only_the_last_are_found_again(count: int) -> None:
    made = Made(count)
    keys = [torch.full((3,), float(i)) for i in range(6)]
    for key in keys:
        assert torch.equal(made(key), key)
    assert made.times == 6
    for key in keys[-count:]:
        assert torch.equal(made(key.clone()), key)
    assert made.times == 6
    made(keys[-count - 1])
    assert made.times == 7


def test_what_is_asked_for_again_stays() -> None:
    made = Made(2)
    a, b, c = (torch.full((3,), float(i)) for i in range(3))
    for key, times in ((a, 1), (b, 2), (a, 2), (c, 3), (a, 3), (b, 4)):
        made(key)
        assert made.times == times


@pytest.mark.parametrize(
    "other",
    [torch.ones(3).index_fill(0, torch.tensor(1), 1 + 1e-7), torch.ones(3).double(), torch.ones(1, 3)],
    ids=["a bit", "type", "shape"],
)
def test_what_differs_is_made_anew(other: Tensor) -> None:
    made = Made(2)
    made(torch.ones(3))
    assert torch.equal(made(other), other) and made.times == 2


def test_a_key_that_changes_later_is_another() -> None:
    made, key = Made(1), torch.ones(3)
    made(key)
    key += 1
    assert torch.equal(made(key), torch.full((3,), 2.0))


def test_gradients_pass_through() -> None:
    made, key = Made(1), torch.ones(3, requires_grad=True)
    for _ in range(2):
        (slope,) = torch.autograd.grad(made(key).sum(), key)
        assert torch.equal(slope, torch.ones(3))
    assert made.times == 2


def test_copies_and_cleared_ones_hold_nothing() -> None:
    made = Made(1)
    made(torch.ones(3))
    again = copy.deepcopy(made)
    again(torch.ones(3))
    made.kept.clear()
    made(torch.ones(3))
    assert made.times == 2 and again.times == 2
