"""Whole numbers in few bytes.

What is remembered is rounded to whole numbers of one grain, for it is the sum of their errors that counts,
and most of these numbers are small. Written as bytes, and a second time for what is beyond a byte, they are
compressed without loss (LZMA, whose adaptive range coder comes near their entropy).

Of paths of amplitudes only what the two frames before do not tell is written,

    a(k) − round(P (a(k − 1), a(k − 2))),

with P by least squares, in whole numbers of powers of two, so that sums are exact on every machine.
"""

import lzma
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_MOST = 2**30
"""Numbers are smaller than that."""
_BYTE = 2**7
_FINE = 0.25
"""What rounding one number of P makes an amplitude miss, in whole numbers."""
_RIDGE = 1e-4
"""Of P, in units of the mean square of amplitudes."""
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 0, "pb": 0}]
"""Without context: neighbours tell of each other's size alone, and the coder adapts to that."""


class Packed(nn.Module):
    """A tensor of whole numbers, of one shape; zero before any are kept.

    Attributes:
        bytes: what is stored; none for zeros.
    """

    bytes: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape
        self._numbers: Tensor | None = None
        self.register_buffer("bytes", torch.empty(0, dtype=torch.uint8))

    def keep(self, numbers: Tensor) -> None:
        """Numbers of any type, rounded, of the same shape but for its length.

        Raises:
            ValueError: if one is too large.
        """
        _check(numbers)
        self.shape = tuple(numbers.shape)
        self.bytes = _packed(numbers).to(self.bytes.device)
        self._numbers = None

    def numbers(self) -> Tensor:
        """In float64.

        Raises:
            ValueError: if what is stored is damaged.
        """
        return self.whole().double()

    def whole(self) -> Tensor:
        """In integers of as many bytes as they need.

        Raises:
            ValueError: if what is stored is damaged.
        """
        if not len(self.bytes):
            return torch.zeros(self.shape, dtype=torch.int16, device=self.bytes.device)
        if self._numbers is None:
            self._numbers = _unpacked(self.bytes, math.prod(self.shape)).view(self.shape)
        return self._numbers

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_numbers": None}

    def _load_from_state_dict(self, state_dict: Any, prefix: Any, *args: Any, **kwargs: Any) -> None:
        """However many bytes there are."""
        self._numbers = None
        if (stored := state_dict.get(f"{prefix}bytes")) is not None:
            self.bytes = torch.empty(stored.shape, dtype=torch.uint8, device=self.bytes.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Packed":
        self._numbers = None
        super()._apply(fn, recurse)
        return self


class PackedPaths(nn.Module):
    """Paths of complex amplitudes (modes, frames, paths, 2) in whole numbers.

    Args:
        modes, frames, paths: how many.

    Attributes:
        left: what is not told, (modes, frames, paths, 2).
        weights: P of each group of modes, one after another (n, 2n, 2), in units of 2^−fine.
        fine: (modes,), for the amplitudes that tell.
    """

    fine: Tensor

    def __init__(self, modes: int, frames: int, paths: int) -> None:
        super().__init__()
        self.left = Packed(modes, frames, paths, 2)
        self.weights = Packed(0)
        self.register_buffer("fine", torch.zeros(modes, dtype=torch.int8))
        self._numbers: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(modes, frames, paths, 2)."""
        return self.left.shape

    @property
    def empty(self) -> bool:
        """Whether nothing is kept."""
        return not len(self.left.bytes)

    def keep(self, numbers: Tensor, groups: Sequence[slice]) -> None:
        """Numbers (modes, frames, paths, 2), rounded.

        Args:
            groups: modes that tell of each other.

        Raises:
            ValueError: if one is too large.
        """
        _check(numbers)
        whole = torch.view_as_complex(numbers.double().round().contiguous())
        size = whole.abs().square().mean((1, 2)).sqrt()
        self.fine.copy_(torch.frexp(size / _FINE).exponent.clamp_min(0))
        left, weights = whole.clone(), []
        for own in groups:
            path = whole[own]
            told = torch.cat([path[:, 1:-1], path[:, :-2]]).flatten(1)
            squares = told @ told.mH
            squares.diagonal().add_(_RIDGE * squares.diagonal().real.mean().clamp_min(1e-30))
            likely = torch.linalg.solve(squares, told @ path[:, 2:].flatten(1).mH).mH
            weights.append(torch.view_as_real(likely / self._grain(own)).round())
            left[own, 2:] -= self._told(weights[-1], own, path[:, 1:-1], path[:, :-2])
        self.left.keep(torch.view_as_real(left))
        self.weights.keep(torch.cat([part.flatten() for part in weights]))
        self._numbers = None

    def numbers(self, groups: Sequence[slice]) -> Tensor:
        """What was kept, in float64; arguments as in `keep`.

        Raises:
            ValueError: if what is stored is damaged.
        """
        if self.empty:
            return self.left.numbers()
        if self._numbers is None:
            counts = [4 * (own.stop - own.start) ** 2 for own in groups]
            self.weights.shape = (sum(counts),)
            path = torch.view_as_complex(self.left.numbers())
            for own, part in zip(groups, self.weights.numbers().split(counts), strict=True):
                weights = part.view(own.stop - own.start, -1, 2)
                for k in range(2, path.shape[1]):
                    path[own, k] += self._told(weights, own, path[own, k - 1], path[own, k - 2])
            self._numbers = torch.view_as_real(path)
        return self._numbers

    def _grain(self, own: slice) -> Tensor:
        """(2n,), of the numbers of P."""
        exact = [0.5**fine for fine in self.fine[own].tolist()]
        return torch.tensor(exact, dtype=torch.float64, device=self.fine.device).repeat(2)

    def _told(self, weights: Tensor, own: slice, before: Tensor, last: Tensor) -> Tensor:
        """round(P (a(k − 1), a(k − 2))), of frames (n, …)."""
        told = torch.cat([before, last])
        grain = self._grain(own).view(-1, *[1] * (told.ndim - 1))
        found = torch.view_as_complex(weights) @ (told * grain).flatten(1)
        return torch.view_as_complex(torch.view_as_real(found).round()).view(before.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_numbers": None}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._numbers = None
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedPaths":
        self._numbers = None
        super()._apply(fn, recurse)
        return self


def _check(numbers: Tensor) -> None:
    """That numbers are not too large."""
    if not bool((numbers.abs() < _MOST).all()):
        raise ValueError(f"expected numbers smaller than {_MOST}; came {float(numbers.abs().max()):.3g}.")


def _packed(numbers: Tensor) -> Tensor:
    whole = numbers.detach().round().to("cpu", torch.int32).contiguous().numpy().ravel()
    beyond = (whole + _BYTE) // (2 * _BYTE)
    parts = (whole - 2 * _BYTE * beyond).astype("<i1"), beyond.astype("<i4")
    stored = lzma.compress(b"".join(part.tobytes() for part in parts), lzma.FORMAT_RAW, filters=_FILTERS)
    return torch.frombuffer(bytearray(stored), dtype=torch.uint8)


def _unpacked(stored: Tensor, count: int) -> Tensor:
    try:
        found = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS).decompress(
            stored.cpu().numpy().tobytes(), 5 * count + 1
        )
    except lzma.LZMAError as error:
        raise ValueError(f"expected {count} packed numbers; they cannot be read: {error}.") from error
    if len(found) != 5 * count:
        raise ValueError(f"expected {count} packed numbers; there are others.")
    small, beyond = np.frombuffer(found, "<i1", count), np.frombuffer(found, "<i4", offset=count)
    fits = not beyond.size or int(np.abs(beyond).max()) < _BYTE // 2
    kind = np.int16 if fits else np.int32
    whole = beyond.astype(kind) * kind(2 * _BYTE) + small
    return torch.from_numpy(whole).to(stored.device)
