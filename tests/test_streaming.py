"""A stream is the tensor that does not fit into memory: equal to it, whatever is asked, in whatever order."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from pdeforecast.geometry import GEOMETRIES
from pdeforecast.trajectory import (
    StreamedValues,
    default_axes,
    open_dataset,
    save_dataset,
    stream,
    to_dataset,
    trajectory_values,
)
from pdeforecast.trajectory import blocks as blocks_module
from pdeforecast.trajectory.blocks import blocks

PLANE = GEOMETRIES["periodic_plane"]
UNITS = {"u": "1", "v": "1", "mask": "1"}


def dataset(samples: int = 6, times: int = 5) -> xr.Dataset:
    axes = default_axes(PLANE, {"y": 4, "x": 6})
    values = np.random.default_rng(0).normal(size=(samples, times, 4, 6, 2)).astype(np.float32)
    values[1, 2, 0] = np.nan
    ds = to_dataset(values, PLANE, {"u": "1", "v": "1"}, axes, range(times), "time")
    return ds.assign(mask=(("sample", "y", "x"), values[:, 0, ..., 0] > 0)).astype(np.float32)


@pytest.fixture(params=["as generated", "transposed"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Tensor, xr.Dataset]:
    ds = dataset() if request.param == "as generated" else dataset().transpose("x", "time", "sample", "y")
    save_dataset(ds, tmp_path / "data.nc")
    return trajectory_values(ds, PLANE, UNITS)[2], open_dataset(tmp_path / "data.nc")


@pytest.mark.parametrize("kept", [0, 3, 10**6])
def test_a_stream_equals_the_tensor(both: tuple[Tensor, xr.Dataset], kept: int) -> None:
    whole, ds = both
    with ds:
        times, points, values = stream(ds, PLANE, UNITS, kept * whole[0, 0].nbytes)
        expected = trajectory_values(ds, PLANE, UNITS)
        assert times == expected[0] and torch.equal(points, expected[1])
        assert values.shape == whole.shape and values.dtype == whole.dtype and len(values) == len(whole)
        draw = torch.Generator().manual_seed(0)
        for _ in range(20):
            samples = torch.randint(6, (8,), generator=draw)
            frames = torch.randint(5, (8,), generator=draw)
            first = int(frames[0])
            for found, asked in (
                (values[samples, frames], whole[samples, frames]),
                (values[samples, first : first + 3], whole[samples, first : first + 3]),
                (values[1:4, first:], whole[1:4, first:]),
            ):
                torch.testing.assert_close(found, asked, rtol=0, atol=0, equal_nan=True)
            assert len(values._kept) <= kept
        parts = list(values.split(4))
        assert [len(part) for part in parts] == [4, 2]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=0, equal_nan=True)


def test_what_is_kept_is_not_read_again(
    both: tuple[Tensor, xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    with both[1] as ds:
        values = stream(ds, PLANE, UNITS)[2]
        read: list[tuple[int, int]] = []
        once = StreamedValues._read

        def counted(self: StreamedValues, row: int, run: slice) -> Tensor:
            read.append((row, run.stop - run.start))
            return once(self, row, run)

        monkeypatch.setattr(StreamedValues, "_read", counted)
        values[torch.tensor([2, 2, 0]), 1:4]
        assert read == [(0, 3), (2, 3)]
        values[torch.tensor([2]), 0:4]
        assert read[2:] == [(2, 1)]


def test_nothing_whole_is_ever_read(both: tuple[Tensor, xr.Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening, checking and asking for one frame read at most a block at a time."""
    whole, ds = both
    frame = ds["u"][0, 0].nbytes if ds["u"].dims[0] == "sample" else 4 * 24
    sizes: list[int] = []
    once = xr.Variable.values.fget  # type: ignore[attr-defined]

    def counted(self: xr.Variable) -> np.ndarray:
        if self.ndim > 2:
            sizes.append(self.nbytes)
        return once(self)

    monkeypatch.setattr(xr.Variable, "values", property(counted, xr.Variable.values.fset))
    monkeypatch.setattr(blocks_module.blocks, "__defaults__", (2 * frame,))
    with ds:
        values = stream(ds, PLANE, UNITS)[2]
        values[torch.tensor([3]), torch.tensor([2])]
    assert sizes and max(sizes) <= 2 * frame < whole[..., 0].nbytes / 10


@pytest.mark.parametrize("limit", [1, 100, 300, 1000, 10**9])
def test_blocks_are_bounded_and_cover_everything_once(limit: int) -> None:
    array = xr.Variable(("time", "y", "sample"), np.arange(5 * 6 * 7.0).reshape(5, 6, 7))
    seen = np.zeros(array.shape)
    for where, values in blocks(array, limit):
        assert values.nbytes <= max(limit, 6 * 8)
        at = tuple(where.get(str(dim), slice(None)) for dim in array.dims)
        seen[at] += 1
        np.testing.assert_array_equal(array.values[at], values)
    assert bool((seen == 1).all())
