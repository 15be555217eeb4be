"""Fields that are decoded when they are asked for, so that a forecast may be larger than memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from xarray.backends import BackendArray
from xarray.core import indexing

from pdeforecast.geometry import Geometry
from pdeforecast.latents import Latents
from pdeforecast.trajectory import grid_points, loose_points

Decode = Callable[[Tensor, Sequence[Latents]], Tensor]
"""Points (M, d) and T states of a batch to values (batch, T, M, V)."""

_POINTS = 2**20
"""About how many points are laid out at once."""


class Decoded:
    """The values (S, T, *places, V) of a forecast.

    Args:
        decode: reads states at points.
        path: the latents of S samples at each of the T times.
        axes: of a grid, slow first, or the coordinates of loose points, each (M,).
        channels: V.
        cells: where it is not 1, values are means over blocks of so many nodes of each axis of the grid.
    """

    def __init__(
        self,
        decode: Decode,
        geometry: Geometry,
        path: Sequence[Latents],
        axes: Mapping[str, Any],
        on_grid: bool,
        channels: int,
        cells: int = 1,
    ) -> None:
        self._cells = cells
        self._decode, self._geometry, self._path = decode, geometry, path
        nodes = {name: torch.as_tensor(axis, dtype=torch.float64) for name, axis in axes.items()}
        self._axes = {name: axis.numpy(force=True) for name, axis in nodes.items()}
        self._on_grid = on_grid
        self._channels = channels
        places = [len(axis) // cells for axis in self._axes.values()]
        self.shape = (path[0].contexts.shape[0], len(path), *(places if on_grid else places[:1]))
        self._last: tuple[Any, NDArray[np.float32]] | None = None

    def variable(self, dims: Sequence[str], v: int, attrs: Mapping[str, Any]) -> xr.Variable:
        """The field of one channel, read lazily."""
        return xr.Variable(dims, indexing.LazilyIndexedArray(_Channel(self, v)), attrs)

    def read(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        """The values (S′, T′, *places′, V) at an index along every dimension, each a slice or indices.

        The last ones are kept, for the other channels.
        """
        which = tuple(np.arange(size)[index] for size, index in zip(self.shape, key, strict=True))
        asked = tuple(index.tobytes() for index in which)
        if self._last is None or self._last[0] != asked:
            self._last = None  # before others are made
            self._last = asked, self._made(which)
        return self._last[1]

    @torch.no_grad()
    def _made(self, which: tuple[NDArray[np.int64], ...]) -> NDArray[np.float32]:
        samples, times, *places = which
        values = np.empty((*map(len, which), self._channels), dtype=np.float32)
        if not values.size:
            return values
        states = [_chosen(self._path[t], torch.from_numpy(samples)) for t in times]
        rest = int(np.prod([len(index) for index in places[1:]]))
        size = max(1, _POINTS // rest)
        for start in range(0, len(places[0]), size):
            part = [places[0][start : start + size], *places[1:]]
            values[:, :, start : start + size] = self._block(part, states).numpy(force=True)
        return values

    def _block(self, places: Sequence[NDArray[np.int64]], states: Sequence[Latents]) -> Tensor:
        """Values (S′, T′, *places′, V) at some places."""
        nodes = [(self._cells * index[:, None] + np.arange(self._cells)).reshape(-1) for index in places]
        found = self._decode(self._points(nodes), states)
        found = found.reshape(*found.shape[:2], *map(len, nodes), self._channels)
        if self._cells > 1:
            for dim in range(2, 2 + len(places)):
                found = found.unflatten(dim, (-1, self._cells)).mean(dim + 1)
        return found

    def _points(self, places: Sequence[NDArray[np.int64]]) -> Tensor:
        if self._on_grid:
            chosen = zip(self._axes.items(), places, strict=True)
            return grid_points(self._geometry, {name: axis[index] for (name, axis), index in chosen})
        return loose_points(self._geometry, {name: axis[places[0]] for name, axis in self._axes.items()})


class _Channel(BackendArray):
    """One channel of a forecast, as xarray asks for it."""

    def __init__(self, whole: Decoded, v: int) -> None:
        self.shape, self.dtype = whole.shape, np.dtype(np.float32)
        self._whole, self._v = whole, v

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        outer = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, outer, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        wide = tuple(slice(i, i + 1) if isinstance(i, int | np.integer) else i for i in key)
        values = self._whole.read(wide)[..., self._v]
        return values[tuple(0 if isinstance(i, int | np.integer) else slice(None) for i in key)]


def _chosen(states: Latents, samples: Tensor) -> Latents:
    """The latents of some samples."""
    index = samples.to(states.contexts.device)
    poses = states.poses if states.shared else states.poses[index]
    return replace(states, poses=poses, contexts=states.contexts[index])
