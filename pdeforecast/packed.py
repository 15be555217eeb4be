"""Whole numbers in few bytes.

What is remembered is rounded to whole numbers of one grain, for it is the sum of their errors that counts,
and most of these numbers are small. Written as bytes, and a second time for what is beyond a byte, they are
compressed without loss (LZMA, whose adaptive range coder comes near their entropy).
"""

import lzma
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_MOST = 2**30
"""Numbers are smaller than that."""
_BYTE = 2**7
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
        if not bool((numbers.abs() < _MOST).all()):
            raise ValueError(f"expected numbers smaller than {_MOST}; came {float(numbers.abs().max()):.3g}.")
        self.shape = tuple(numbers.shape)
        self.bytes = _packed(numbers).to(self.bytes.device)
        self._numbers = None

    def numbers(self) -> Tensor:
        """In float64.

        Raises:
            ValueError: if what is stored is damaged.
        """
        if not len(self.bytes):
            return torch.zeros(self.shape, dtype=torch.float64, device=self.bytes.device)
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
    small, beyond = np.frombuffer(found[:count], "<i1"), np.frombuffer(found[count:], "<i4")
    whole = small.astype(np.float64) + 2.0 * _BYTE * beyond
    return torch.from_numpy(whole).to(stored.device)
