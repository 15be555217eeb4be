"""Bare arrays, as the literature on Fourier neural operators ships them: `.mat`, `.npy`, `.pt`.

    .mat    u (sample, x, y, time), a (sample, x, y), the state before u, and t (time)
    .npy    one array
    .pt     one tensor, or a dictionary of them

An array has no names for its dimensions: they are guessed from its sizes and said aloud. No file may
run code: `.npy` is mapped without pickles, and of `.pt` the weights alone are read. MATLAB's version
7.3 is HDF5, with MATLAB's dimensions reversed.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import xarray as xr

from pdeforecast.convert.source import Key, Source, components, lazily, lazy
from pdeforecast.errors import DataError

ENDINGS = (".mat", ".npy", ".pt", ".pth")
_CLASHING = {"x": "input", "y": "output"}
"""Pairs of states go by names that are coordinates here."""


def recognise(file: h5py.File) -> bool:
    """Whether an HDF5 file is MATLAB's."""
    return b"MATLAB" in Path(file.filename).open("rb").read(16) or any(
        "MATLAB_class" in array.attrs for array in file.values()
    )


def read_hdf5(file: h5py.File, dims: Sequence[str] | None) -> Source:
    """MATLAB's version 7.3; any other HDF5 file of bare arrays if `dims` names their dimensions."""
    arrays = {name: part for name, part in file.items() if isinstance(part, h5py.Dataset) and part.ndim}
    if recognise(file):
        return _source({name: _reversed(array) for name, array in arrays.items()}, dims, True)
    return _source({name: lazily(_unnamed(array), array) for name, array in arrays.items()}, dims, False)


def read(path: Path, dims: Sequence[str] | None) -> Source:
    """Another file of bare arrays.

    Raises:
        DataError: if it holds code, no arrays, or needs scipy where there is none.
    """
    load = {".npy": _numpy, ".mat": _old_matlab}.get(path.suffix.lower(), _torch)
    arrays = {
        _CLASHING.get(name, name): xr.Variable(_unnamed(array), array)
        for name, array in load(path).items()
        if array.ndim
    }
    return _source(arrays, dims, path.suffix.lower() == ".mat")


def _unnamed(array: Any) -> list[str]:
    return [f"dim{i}" for i in range(array.ndim)]


def _reversed(array: h5py.Dataset) -> xr.Variable:
    """With the dimensions numbered as MATLAB numbers them."""
    return lazily(_unnamed(array)[::-1], array)


def _numpy(path: Path) -> dict[str, Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise DataError(
            f"expected an array of numbers; {path} holds Python objects or is damaged.",
            f'Write it again: `np.save("{path}", np.asarray(array, dtype="float32"))`.',
        ) from error
    return {"u": array}


def _torch(path: Path) -> dict[str, Any]:
    try:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the format before 2020 cannot be mapped
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler and the archive raise their own by the kind of damage
        raise DataError(
            f"expected tensors and nothing else; {path} holds other Python objects, which would run code, "
            "or is damaged.",
            'Where you trust it, save its tensors: `torch.save({"u": tensor}, …)`.',
        ) from error
    tensors = found if isinstance(found, dict) else {"u": found}
    return {str(k): v.detach().numpy() for k, v in tensors.items() if isinstance(v, torch.Tensor)}


def _old_matlab(path: Path) -> dict[str, Any]:
    try:
        scipy_io = import_module("scipy.io")
    except ImportError as error:
        raise DataError(
            f"expected MATLAB's version 7.3; {path} is older, and reading it needs scipy.",
            "Type `pip install scipy`.",
        ) from error
    found = scipy_io.loadmat(path)
    return {k: v for k, v in found.items() if isinstance(v, np.ndarray) and v.dtype.kind in "fiu"}


def _source(arrays: dict[str, xr.Variable], dims: Sequence[str] | None, matlab: bool) -> Source:
    """The arrays of a file, their dimensions `dim0`, `dim1`, … called by their names."""
    times = arrays.pop("t", None)
    if not arrays:
        raise DataError("expected arrays; this file holds none.", "Give another file.")
    ds, notes = xr.Dataset(), []
    for name, array in arrays.items():
        names = _names(name, [array.sizes[f"dim{i}"] for i in range(array.ndim)], dims, matlab)
        if names is None:
            notes.append(f"{name} is left out: it has {array.ndim} dimensions.")
            continue
        called = (
            xr.Dataset({name: array}).rename({f"dim{i}": dim for i, dim in enumerate(names)})[name].variable
        )
        count = called.sizes.get("component", 1)
        labels = {"component": [str(i) for i in range(count)]} if "component" in names else {}
        ds = ds.assign(components(name, called, labels))
        notes.append(f"{name} is taken as ({', '.join(names)}); else give `--dims`.")
    if not ds.data_vars:
        sizes = ", ".join(f"{name} ({' x '.join(map(str, array.shape))})" for name, array in arrays.items())
        wanted = "two dimensions at least" if dims is None else f"the dimensions {', '.join(dims)}"
        raise DataError(
            f"expected an array of {wanted}; came {sizes}.",
            "Name them all in order: `--dims sample,time,y,x` (or `component`).",
        )
    if times is not None and times.size == ds.sizes.get("time"):
        ds = ds.assign_coords(time=np.ravel(times.values).astype(float))
        ds, said = _with_first(ds)
        notes += said
    return Source("fno", ds, {}, notes)


def _names(name: str, sizes: list[int], dims: Sequence[str] | None, matlab: bool) -> list[str] | None:
    """The dimensions of an array of these sizes."""
    if dims is not None:
        return list(dims) if len(dims) == len(sizes) else None
    match sizes:
        case [] | [_]:
            return None
        case [_, _]:
            return ["y", "x"]
        case [_, b, c] if b == c:
            return ["sample", "x", "y"] if matlab else ["sample", "y", "x"]
        case [_, b, c, d] if b == c and (matlab or c != d):
            return ["sample", "x", "y", "time"]
        case [_, _, c, d] if c == d:
            return ["sample", "time", "y", "x"]
        case [_, _, c, d, _] if c == d:
            return ["sample", "time", "y", "x", "component"]
        case [_, _, _, d, e] if d == e:
            return ["sample", "time", "component", "y", "x"]
    raise DataError(
        f"expected an array whose dimensions can be told from their sizes; {name} is "
        f"{' x '.join(map(str, sizes))}.",
        "Name them in order: `--dims sample,time,y,x` (or `component`).",
    )


def _with_first(ds: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
    """With a, the state one step before u, put before it."""
    known = {"a", "u"} <= set(ds.data_vars)
    if not known or {"time", *ds["a"].dims} != set(ds["u"].dims):
        return ds, []
    before, after = ds["a"].variable, ds["u"].variable
    times = ds["time"].values
    step = times[1] - times[0] if len(times) > 1 else times[0]
    if abs(times[0] - step) > 1e-3 * abs(step):
        note = f"a is left out: u begins at {times[0]:g}, not one step after time 0."
        return ds.drop_vars("a"), [note]
    axis = after.dims.index("time")
    shape = [size + (i == axis) for i, size in enumerate(after.shape)]

    def read(key: Key) -> Any:
        places = {dim: at for dim, at in zip(after.dims, key, strict=True) if dim != "time"}
        later = after.isel(places)
        first = before.isel({dim: at for dim, at in places.items() if dim in before.dims}).set_dims(
            {dim: later.sizes[dim] if dim != "time" else 1 for dim in later.dims}
        )
        both = xr.Variable.concat([first, later], "time")
        return both.isel(time=key[axis]).values

    joined = lazy([str(dim) for dim in after.dims], shape, after.dtype, read)
    ds = ds.drop_dims("time").drop_vars("a").assign_coords(time=np.concatenate([[0.0], times]))
    return ds.assign(u=joined), ["a is put before u, as its state at time 0."]
