"""Which layout a file has, from its own signs."""

from collections.abc import Sequence
from pathlib import Path

import h5py

from pdeforecast.convert import arrays, netcdf, pdebench, the_well
from pdeforecast.convert.source import Source
from pdeforecast.errors import DataError
from pdeforecast.trajectory.files import is_zarr

LAYOUTS = ("auto", "pdebench", "the-well", "fno", "netcdf")


def open_source(path: Path, layout: str = "auto", dims: Sequence[str] | None = None) -> Source:
    """The file, opened lazily; close it with `source.ds.close()`.

    Args:
        dims: of bare arrays, in order.

    Raises:
        DataError: if there is no such file, or it has none of the layouts, or not this one.
    """
    if not path.exists():
        raise DataError(f"expected a file to convert; there is no {path}.", "Check the path.")
    layout = detect(path) if layout == "auto" else layout
    if layout == "netcdf":
        return netcdf.read(path)
    if not _is_hdf5(path):
        if layout == "fno" and path.suffix.lower() in arrays.ENDINGS:
            return arrays.read(path, dims)
        raise _unlike(path, layout)
    file = _opened(path)
    try:
        if layout == "fno":
            source = arrays.read_hdf5(file, dims)
        else:
            source = {"pdebench": pdebench, "the-well": the_well}[layout].read(file)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        file.close()
        raise _unlike(path, layout) from error
    source.ds.set_close(file.close)
    return source


def detect(path: Path) -> str:
    """The name of the layout of a file.

    Raises:
        DataError: if it has none of them.
    """
    if path.is_dir():
        if is_zarr(path):
            return "netcdf"
        raise DataError(
            f"expected a file, or a Zarr store; {path} is another folder.", f"Name a file in it: {path}/…."
        )
    if not _is_hdf5(path):
        return "fno" if path.suffix.lower() in arrays.ENDINGS else "netcdf"
    with _opened(path) as file:
        if the_well.recognise(file):
            return "the-well"
        if arrays.recognise(file):
            return "fno"
        if any(part.attrs.get("CLASS") == b"DIMENSION_SCALE" for part in file.values()):
            return "netcdf"
        if pdebench.recognise(file):
            return "pdebench"
        held = ", ".join(_listing(file)[:8]) or "nothing"
    raise DataError(
        f"expected the layout of PDEBench, The Well, NetCDF or bare arrays; {path} holds {held}.",
        "If those are arrays, say which and how: `--layout fno --variable u=… --dims sample,time,y,x`.",
    )


def _is_hdf5(path: Path) -> bool:
    return path.is_file() and bool(h5py.is_hdf5(path))


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(
            f"expected a whole HDF5 file; {path} is cut short or damaged.", "Copy or download it again."
        ) from error


def _listing(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(
        lambda name, part: found.append(f"{name} {part.shape}") if isinstance(part, h5py.Dataset) else None
    )
    return found


def _unlike(path: Path, layout: str) -> DataError:
    return DataError(
        f"expected a file in the layout {layout}; {path} is not.", "Leave `--layout` out to have it detected."
    )
