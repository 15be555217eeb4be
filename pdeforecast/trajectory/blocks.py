"""Arrays larger than memory, a block at a time."""

import itertools
from collections.abc import Iterator, Sequence

import xarray as xr
from numpy.typing import NDArray

from pdeforecast.trajectory.layout import TIMES

BLOCK = 2**24
"""Bytes of a block."""


def blocks(
    array: xr.Variable, limit: int = BLOCK, *, split: Sequence[str] = ("sample", *TIMES)
) -> Iterator[tuple[dict[str, slice], NDArray]]:
    """Where each block lies along the dimensions `split`, and its values, in their order.

    The first of them is cut until a block holds no more than `limit` bytes, then the next: by default a
    block holds whole samples, or, where one is larger, some of its frames.
    """
    steps, left = {}, array.nbytes
    for dim in split:
        if dim in array.dims:
            part = max(1, left // array.sizes[dim])
            steps[dim] = min(array.sizes[dim], max(1, limit // part))
            left = steps[dim] * part
    starts = (range(0, array.sizes[dim], step) for dim, step in steps.items())
    for corner in itertools.product(*starts):
        where = {dim: slice(at, at + step) for (dim, step), at in zip(steps.items(), corner, strict=True)}
        yield where, array.isel(where).values
