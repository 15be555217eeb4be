"""Datasets as NetCDF4 files, whole or not at all: read lazily, and written in blocks where they are large.

Zarr stores are read as well; `pdeforecast.trajectory.output` writes them.
"""

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import h5netcdf
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from xarray.backends import BackendArray, H5NetCDFStore
from xarray.core import indexing

from pdeforecast.errors import DataError, UsageError, nearest
from pdeforecast.replacing import replacing
from pdeforecast.trajectory.blocks import BLOCK, blocks
from pdeforecast.trajectory.layout import TIMES
from pdeforecast.trajectory.seal import is_intact, write_seal

ENGINE: Literal["h5netcdf"] = "h5netcdf"
_CHUNK = 2**18
"""About how many bytes have one checksum: as many are read at least."""


def open_dataset(path: str | os.PathLike[str]) -> xr.Dataset:
    """The Dataset of a NetCDF4 file or a Zarr store, read lazily: values come from it whenever they are
    asked for.

    Raises:
        DataError: if there is no such file, or it is cut short, damaged, or something else; of damaged
            numbers, when they are read.
        UsageError: if it is a Zarr store, and there is no zarr.
    """
    path = Path(path)
    ds = _open_zarr(path) if path.is_dir() else _open_netcdf(path)
    _check_said(ds, path)
    guarded = {name: _guarded(array.variable, path) for name, array in ds.items()}
    loose = {
        name: _guarded(array.variable, path)
        for name, array in ds.coords.items()
        if not isinstance(array.variable, xr.IndexVariable)
    }
    told = ds.assign(guarded).assign_coords(loose)
    told.set_close(ds.close)
    return told


def _open_netcdf(path: Path) -> xr.Dataset:
    if not path.is_file():
        names = [file.name for file in path.parent.glob("*.nc")] if path.parent.is_dir() else []
        near = nearest(path.name, names)
        cure = (
            f"Did you mean {path.parent / near}?"
            if near
            else "Check the path, or make one with `pdeforecast generate`."
        )
        raise DataError(f"expected a NetCDF file; there is no file {path}.", cure)
    if not is_intact(path):
        raise _unreadable(path, ValueError("its sha256 is another"))
    try:
        return xr.open_dataset(path, engine=ENGINE, decode_times=False, decode_timedelta=False, cache=False)
    except Exception as error:  # the engine raises OSError, KeyError, ValueError … by the kind of damage
        raise _unreadable(path, error) from error


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup"))


def _open_zarr(path: Path) -> xr.Dataset:
    if not is_zarr(path):
        raise DataError(
            f"expected a NetCDF file or a Zarr store; {path} is another folder.",
            f"Name a file in it: {path}/….",
        )
    need_zarr(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # that metadata are not consolidated, or are
            return xr.open_dataset(
                path, engine="zarr", decode_times=False, decode_timedelta=False, cache=False
            )
    except Exception as error:  # the engine raises its own by the kind of damage
        raise _unreadable(path, error) from error


def need_zarr(path: Path) -> None:
    """Raises a `UsageError` if there is no zarr, to read or to write `path`."""
    if find_spec("zarr") is None:
        raise UsageError(
            f"expected the package zarr, for {path}; it is not installed.",
            "Type `pip install 'pdeforecast[zarr]'`, or use NetCDF.",
        )


def _check_said(ds: xr.Dataset, path: Path) -> None:
    """That there is something in every direction, on a space that has a name."""
    if not isinstance(ds.attrs.get("geometry", ""), str):
        raise DataError(
            f"expected the name of a geometry; the attribute geometry of {path} is {ds.attrs['geometry']!r}.",
            "Name it, for instance `ds.attrs['geometry'] = 'sphere'`, or leave the attribute out.",
        )
    for name, size in ds.sizes.items():
        if size == 0:
            raise DataError(
                f"expected values; the dimension {name} of {path} is empty.", f"Select at least one {name}."
            )


class _Stored(BackendArray):
    """A variable as its file holds it; a `DataError` where the file turns out to be damaged."""

    def __init__(self, array: xr.Variable, path: Path) -> None:
        self.shape, self.dtype = array.shape, array.dtype
        self._array, self._path = array, path

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        outer = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, outer, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        try:
            return self._array[key].values
        except Exception as error:  # HDF5 raises OSError, RuntimeError … by the kind of damage
            raise _unreadable(self._path, error) from error


def _guarded(array: xr.Variable, path: Path) -> xr.Variable:
    stored = indexing.LazilyIndexedArray(_Stored(array, path))
    return xr.Variable(array.dims, stored, array.attrs, array.encoding)


Written = Callable[[int, int], None]
"""Called with the number of bytes written and the number of all, where there is more than one block."""


def save_dataset(
    ds: xr.Dataset,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    progress: Written | None = None,
    split: Sequence[str] = ("sample", *TIMES),
) -> None:
    """Write `ds` as NetCDF4: its data in float32, its coordinates and attributes as they are.

    Variables that are read lazily are never whole in memory. The file is written beside its place,
    flushed to disk and renamed, so that `path` never holds half a Dataset. It carries checksums, so that
    `open_dataset` never takes damage for data.

    Args:
        split: the dimensions along which large variables are cut into blocks, as `blocks` does.

    Raises:
        UsageError: if `path` exists and may not be overwritten, or its folder is missing.
        DataError: if numbers are too large for float32.
        OSError: if the disk is full, say; nothing is left then.
    """
    path = Path(path)
    check_target(path, overwrite)
    large = [name for name in _fields(ds) if ds[name].nbytes > BLOCK]
    small = ds.drop_vars(large)
    for name in _fields(small):
        if small[name].dtype.itemsize > 4:
            _check_single(small[name].values, name)
    with replacing(path) as beside, _Disk(beside) as disk:
        with h5netcdf.File(disk, "w") as file:
            numbers = [name for name, array in small.variables.items() if array.dtype.kind in "fiu"]
            encoding = {name: _encoding(small, name, split) for name in numbers}
            small.dump_to_store(H5NetCDFStore(file), encoding=encoding)
            for name in large:
                _create(file, str(name), ds[name].variable, split)
            for name, where, values in each_block(ds[large], progress, split):
                if values.dtype.itemsize > 4:
                    _check_single(values, name)
                file[name][where] = values
                disk.check()
        disk.check()
        write_seal(beside)


class _Disk(io.FileIO):
    """A file whose disk may be full: to HDF5, which would crash, it seems to take everything.

    What it writes after the first error is lost; `check` tells.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+b")
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while len(left) and self._error is None:
                left = left[super().write(left) or 0 :]
        except OSError as error:
            self._error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size) if self._error is None else size or 0
        except OSError as error:
            self._error = error
            return size or 0

    def __exit__(self, *raised: Any) -> None:
        """Closes it. What HDF5 says when it misses what was lost is not the cause: the first error is."""
        super().__exit__(*raised)
        self.check()

    def check(self) -> None:
        """Raises the first error, if there was one."""
        if self._error is not None:
            raise self._error


def _fields(ds: xr.Dataset) -> list[Hashable]:
    """The variables that are written in float32."""
    return [name for name in ds.data_vars if ds[name].dtype.kind == "f"]


def _check_single(values: NDArray[Any], name: Hashable) -> None:
    """That float32 holds numbers, which otherwise would become infinite."""
    largest = float(np.max(np.abs(values), initial=0.0, where=np.isfinite(values)))
    if largest > np.finfo(np.float32).max:
        raise DataError(
            f"expected numbers of less than 3.4e38, which float32 holds; {name} reaches {largest:.2g}.",
            f"Divide {name} by its scale, or remove what is no measurement.",
        )


def _encoding(ds: xr.Dataset, name: Hashable, split: Sequence[str]) -> dict[str, Any]:
    """How numbers are written: fields in float32, and arrays with checksums."""
    array = ds[name].variable
    dtype = np.dtype("<f4") if name in _fields(ds) else array.dtype
    if not array.size or not array.ndim:
        return {"dtype": dtype}
    return {"dtype": dtype, "chunksizes": _chunks(array, dtype, split), "fletcher32": True}


def _create(file: h5netcdf.File, name: str, array: xr.Variable, split: Sequence[str]) -> None:
    """A large field, to be filled a block at a time."""
    for dim, size in array.sizes.items():
        if dim not in file.dimensions:
            file.dimensions[dim] = size
    single = np.dtype("<f4")
    chunks = _chunks(array, single, split)
    made = file.create_variable(
        name, array.dims, single, fillvalue=np.float32(np.nan), chunks=chunks, fletcher32=True
    )
    made.attrs.update(array.attrs)


def _chunks(array: xr.Variable, dtype: np.dtype, split: Sequence[str]) -> tuple[int, ...]:
    """The shape of the parts of a block that have one checksum each: frames, or rows of them."""
    slow = ["sample", *TIMES]
    order = [*slow, *(str(dim) for dim in array.dims if dim not in slow)]
    shape = array.shape
    for limit, dims in ((BLOCK, split), (_CHUNK, order)):
        empty = xr.Variable(array.dims, np.broadcast_to(np.zeros((), dtype), shape))
        shape = next(values.shape for _, values in blocks(empty, limit, split=dims))
    # As even as they can be, since the last of a row is stored as large as the others.
    return tuple(-(-size // -(-size // part)) for size, part in zip(array.shape, shape, strict=True))


def each_block(
    ds: xr.Dataset, progress: Written | None, split: Sequence[str]
) -> Iterator[tuple[str, tuple[slice, ...], NDArray[Any]]]:
    """Name, place and values of each block; fields of one shape take turns, for they are made together."""
    done, total = 0, sum(ds[name].nbytes for name in ds.data_vars)
    shapes: dict[Any, list[Any]] = {}
    for name, array in ds.data_vars.items():
        shapes.setdefault((array.dims, array.shape, array.dtype), []).append(name)
    for (dims, *_), names in shapes.items():
        for parts in zip(*(blocks(ds[name].variable, split=split) for name in names), strict=True):
            for name, (where, values) in zip(names, parts, strict=True):
                yield str(name), tuple(where.get(str(dim), slice(None)) for dim in dims), values
                done += values.nbytes
                if progress is not None:
                    progress(done, total)


def check_target(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Ask whether a file may be written, before the work that fills it.

    Raises:
        UsageError: if `path` exists and may not be overwritten, or its folder is missing.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise UsageError(
            f"{path} exists already.", "Choose another name, or type `--overwrite` to replace it."
        )
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}.", f"Make it: `mkdir -p {path.parent}`.")


def _unreadable(path: Path, error: Exception) -> DataError:
    if path.is_dir():
        return DataError(
            f"expected a whole Zarr store; {path} is cut short or damaged ({_one_line(error)}).",
            "Copy or write it again.",
        )
    head = path.read_bytes()[:4] if path.stat().st_size < 2**20 else path.open("rb").read(4)
    if head[:3] == b"CDF":
        return DataError(
            f"expected NetCDF 4; {path} is NetCDF 3.",
            f"Convert it: `nccopy -k nc4 {path} {path.with_suffix('.nc4')}`.",
        )
    if head == b"\x89HDF":
        return DataError(
            f"expected a whole NetCDF file; {path} is cut short or damaged ({_one_line(error)}).",
            "Copy or generate it again.",
        )
    return DataError(
        f"expected a NetCDF 4 file; {path} is something else.",
        'Write it with xarray: `ds.to_netcdf("state.nc", engine="h5netcdf")`.',
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:100]


def state_hash(state: Tensor | NDArray[Any]) -> str:
    """The SHA-256 of a state as a file holds it: float32, little-endian, slow dimension first."""
    array = state.numpy(force=True) if isinstance(state, Tensor) else np.asarray(state)
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<f4").tobytes()).hexdigest()
