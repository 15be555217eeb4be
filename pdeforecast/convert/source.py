"""What a foreign file holds, in our words, read lazily.

A layout turns a file into a `Source`: a Dataset whose dimensions are called `sample`, `time` and as
the coordinates of a geometry are, and whose values stay in the file until they are asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

Key = tuple[int | slice, ...]


@dataclass(frozen=True)
class Source:
    """An opened file.

    Attributes:
        layout: its name.
        ds: lazily; coordinates as the file has them, absent where it has none.
        periodic: of each coordinate of which the file says it: whether the end is the beginning.
        notes: what was understood, or left out, and would surprise.
    """

    layout: str
    ds: xr.Dataset
    periodic: Mapping[str, bool] = field(default_factory=dict)
    notes: Sequence[str] = ()


class _Reader(BackendArray):
    """An array for xarray, from a function of whole numbers and slices."""

    def __init__(self, shape: Sequence[int], dtype: Any, read: Callable[[Key], Any]) -> None:
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.read = read

    def __getitem__(self, key: Any) -> Any:
        basic = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, basic, self._read)

    def _read(self, key: Key) -> NDArray[Any]:
        return np.asarray(self.read(key), dtype=self.dtype)


def lazy(dims: Sequence[str], shape: Sequence[int], dtype: Any, read: Callable[[Key], Any]) -> xr.Variable:
    """A variable whose parts come from `read` when they are asked for."""
    return xr.Variable(dims, indexing.LazilyIndexedArray(_Reader(shape, dtype, read)))


def lazily(dims: Sequence[str], array: h5py.Dataset) -> xr.Variable:
    """A dataset of an HDF5 file as a variable."""
    return lazy(dims, array.shape, array.dtype, array.__getitem__)


def stacked(dims: Sequence[str], arrays: Sequence[h5py.Dataset]) -> xr.Variable:
    """Equally large datasets as one variable, along a new first dimension."""

    def read(key: Key) -> NDArray[Any]:
        first, rest = key[0], key[1:]
        if isinstance(first, slice):
            return np.stack([arrays[i][rest] for i in range(*first.indices(len(arrays)))])
        return np.asarray(arrays[first][rest])

    return lazy(dims, (len(arrays), *arrays[0].shape), arrays[0].dtype, read)


def reordered(variable: xr.Variable, dims: Sequence[str]) -> xr.Variable:
    """The variable with its dimensions in this order, still lazily; those that it lacks are passed over."""
    order = [dim for dim in dims if dim in variable.dims]
    if order == list(variable.dims):
        return variable

    def read(key: Key) -> NDArray[Any]:
        part = variable.isel(dict(zip(order, key, strict=True)))
        return part.transpose(*(dim for dim in order if dim in part.dims)).values

    made = lazy(order, [variable.sizes[dim] for dim in order], variable.dtype, read)
    made.attrs = variable.attrs
    return made


def components(
    name: str, variable: xr.Variable, labels: Mapping[str, Sequence[str]]
) -> dict[str, xr.Variable]:
    """The scalar components of a variable: `u_x`, `u_y`; the name alone where there is only one.

    Args:
        labels: of the components, along each dimension of theirs.
    """
    found = {name: variable}
    for dim, words in labels.items():
        found = {
            f"{key}_{word}" if len(words) > 1 else key: whole.isel({dim: i})
            for key, whole in found.items()
            for i, word in enumerate(words)
        }
    return found
