"""Datasets as NetCDF4 files, whole or not at all: read lazily, and written in blocks where they are large."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import h5netcdf
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pdeforecast.errors import DataError, UsageError, nearest
from pdeforecast.trajectory.blocks import BLOCK, blocks
from pdeforecast.trajectory.layout import TIMES

ENGINE: Literal["h5netcdf"] = "h5netcdf"


def open_dataset(path: str | os.PathLike[str]) -> xr.Dataset:
    """The Dataset of a NetCDF4 file, read lazily: values come from the file whenever they are asked for.

    Raises:
        DataError: if there is no such file, or it is cut short, or is something else.
    """
    path = Path(path)
    if not path.is_file():
        names = [file.name for file in path.parent.glob("*.nc")] if path.parent.is_dir() else []
        near = nearest(path.name, names)
        cure = (
            f"Did you mean {path.parent / near}?"
            if near
            else "Check the path, or make one with `pdeforecast generate`."
        )
        raise DataError(f"expected a NetCDF file; there is no file {path}.", cure)
    try:
        return xr.open_dataset(path, engine=ENGINE, decode_times=False, decode_timedelta=False, cache=False)
    except Exception as error:  # the engine raises OSError, KeyError, ValueError … by the kind of damage
        raise _unreadable(path, error) from error


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
    flushed to disk and renamed, so that `path` never holds half a Dataset.

    Args:
        split: the dimensions along which large variables are cut into blocks, as `blocks` does.

    Raises:
        UsageError: if `path` exists and may not be overwritten, or its folder is missing.
    """
    path = Path(path)
    check_target(path, overwrite)
    floats = [name for name in ds.data_vars if ds[name].dtype.kind == "f"]
    large = [name for name in floats if ds[name].nbytes > BLOCK]
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(handle)
    try:
        encoding = {name: {"dtype": "float32"} for name in floats if name not in large}
        ds.drop_vars(large).to_netcdf(beside, engine=ENGINE, encoding=encoding)
        _append(ds[large], beside, progress, split)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise


def _append(ds: xr.Dataset, path: str, progress: Written | None, split: Sequence[str]) -> None:
    """Adds the data of `ds` to a file that holds its coordinates, a block at a time."""
    if not ds.data_vars:
        return
    with h5netcdf.File(path, "a") as file:
        for name, array in ds.data_vars.items():
            for dim, size in array.sizes.items():
                if dim not in file.dimensions:
                    file.dimensions[dim] = size
            made = file.create_variable(str(name), array.dims, dtype="<f4", fillvalue=np.float32(np.nan))
            made.attrs.update(array.attrs)
        for name, where, values in each_block(ds, progress, split):
            file[name][where] = values


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
        raise UsageError(f"{path} exists already.", f"Choose another name, or delete it: `rm {path}`.")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}.", f"Make it: `mkdir -p {path.parent}`.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _unreadable(path: Path, error: Exception) -> DataError:
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
