"""Trajectories larger than memory, as what looks like their tensor.

`StreamedValues` answers to the ways in which training asks a tensor of values (S, T, M, V),

    values[samples, first:stop]      values[samples, frames]      values.split(16)

by reading the frames that are asked for. Frames once read are kept, the latest used, within a
bounded number of bytes. What is returned depends on the file and the question alone.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping

import torch
import xarray as xr
from torch import Tensor

from pdeforecast.geometry import Geometry
from pdeforecast.trajectory.checks import check
from pdeforecast.trajectory.layout import TIMES, times_of
from pdeforecast.trajectory.tensors import points_of, values_of


class StreamedValues:
    """The values (S, T, M, V) of a file's trajectories; statics are repeated.

    Attributes:
        shape: (S, T, M, V).
        dtype: float32 if every variable is, else float64.

    Args:
        ds: read lazily, as `open_dataset` gives it; it stays open.
        names: of the V variables.
        limit: bytes of frames that are kept.
    """

    def __init__(self, ds: xr.Dataset, geometry: Geometry, names: list[str], limit: int = 2**30) -> None:
        self._ds = ds[names]
        self._geometry = geometry
        self._names = names
        self._time = next((name for name in TIMES if name in self._ds.dims), TIMES[0])
        first = self._read(0, slice(0, 1))
        sizes = (self._ds.sizes.get(dim, 1) for dim in ("sample", self._time))
        self.shape = torch.Size((*sizes, *first.shape[1:]))
        self.dtype = first.dtype
        self._room = limit // (first.numel() * first.element_size())
        self._kept: OrderedDict[tuple[int, int], Tensor] = OrderedDict()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: tuple[Tensor | slice, Tensor | slice]) -> Tensor:
        """`[samples, first:stop]` is (B, stop − first, M, V); `[samples, frames]`, pairwise, (B, M, V)."""
        samples, frames = index
        rows = list(range(len(self)))[samples] if isinstance(samples, slice) else samples.tolist()
        if isinstance(frames, slice):
            columns = range(self.shape[1])[frames]
            found = self._frames([(row, column) for row in rows for column in columns])
            return found.unflatten(0, (len(rows), len(columns)))
        return self._frames(list(zip(rows, frames.tolist(), strict=True)))

    def split(self, size: int) -> Iterator[Tensor]:
        """The trajectories in order, (size, T, M, V) at a time, without keeping them."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield torch.stack([self._read(row, slice(0, self.shape[1])) for row in range(start, stop)])

    def _frames(self, asked: list[tuple[int, int]]) -> Tensor:
        """Frames (len(asked), M, V), those that are missing read in runs."""
        out = torch.empty(len(asked), *self.shape[2:], dtype=self.dtype)
        places: dict[tuple[int, int], list[int]] = {}
        for i, key in enumerate(asked):
            places.setdefault(key, []).append(i)
        for key in [key for key in places if key in self._kept]:
            self._kept.move_to_end(key)
            out[places.pop(key)] = self._kept[key]
        for row, run in _runs(sorted(places)):
            for column, frame in zip(run, self._read(row, slice(run.start, run.stop)), strict=True):
                out[places[row, column]] = frame
                self._keep((row, column), frame)
        return out

    def _keep(self, key: tuple[int, int], frame: Tensor) -> None:
        if self._room < 1:
            return
        while len(self._kept) >= self._room:
            self._kept.popitem(last=False)
        # A copy, since a view would keep the whole run that it was read with.
        self._kept[key] = frame.clone()

    def _read(self, row: int, run: slice) -> Tensor:
        """Some frames (n, M, V) of one trajectory, from the file."""
        part = {"sample": slice(row, row + 1), self._time: run}
        here = self._ds.isel({dim: at for dim, at in part.items() if dim in self._ds.dims})
        return values_of(here, self._geometry, self._names)[0]


def stream(
    ds: xr.Dataset, geometry: Geometry, variables: Mapping[str, str], limit: int = 2**30
) -> tuple[list[float], Tensor, StreamedValues]:
    """What `trajectory_values` gives, with values that are read when they are asked for.

    Args:
        limit: bytes of frames that are kept.

    Raises:
        DataError: as `check` does.
    """
    check(ds, geometry, variables)
    return times_of(ds), points_of(ds, geometry), StreamedValues(ds, geometry, list(variables), limit)


def _runs(keys: list[tuple[int, int]]) -> Iterator[tuple[int, range]]:
    """(row, first … last) of keys (row, column) in order, where columns follow one another."""
    start = 0
    for i in range(1, len(keys) + 1):
        if i == len(keys) or keys[i] != (keys[i - 1][0], keys[i - 1][1] + 1):
            yield keys[start][0], range(keys[start][1], keys[i - 1][1] + 1)
            start = i
