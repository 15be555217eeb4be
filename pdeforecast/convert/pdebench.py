"""PDEBench's HDF5 files, of which there are three kinds.

    0000/data (time, x, y, c)   0000/grid/x, y, t        a group for each trajectory
    tensor, density, … (sample, time, x, y)              with x-coordinate, y-coordinate, t-coordinate
    … (sample, time, x, y, c), … (sample, x, y, c), t (sample, time)       without coordinates

Trajectories in groups, and those without coordinates, lie between walls; of the others only the
file's name says whether they are periodic. Source: github.com/pdebench/PDEBench, data_gen.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import xarray as xr

from pdeforecast.convert.source import Source, components, lazily, stacked

_SPACE = ("x", "y", "z")


def recognise(file: h5py.File) -> bool:
    """Whether a file has this layout."""
    return bool(_groups(file)) or "x-coordinate" in file or "tensor" in file or _bare(file)


def read(file: h5py.File) -> Source:
    """The trajectories of a file."""
    return _grouped(file) if _groups(file) else _batched(file)


def _groups(file: h5py.File) -> list[str]:
    found = [name for name, part in file.items() if isinstance(part, h5py.Group) and "data" in part]
    return sorted(found) if len(found) == len(file) else []


def _bare(file: h5py.File) -> bool:
    """Fields (sample, time, …) beside their times (sample, time)."""
    times = file.get("t")
    return isinstance(times, h5py.Dataset) and any(
        array.ndim == 5 and array.shape[:2] == times.shape for array in _arrays(file).values()
    )


def _arrays(file: h5py.File) -> dict[str, h5py.Dataset]:
    return {name: part for name, part in file.items() if isinstance(part, h5py.Dataset)}


def _grouped(file: h5py.File) -> Source:
    names = _groups(file)
    arrays = [file[name]["data"] for name in names]
    space = _SPACE[: arrays[0].ndim - 2]
    variable = stacked(["sample", "time", *space, "component"], arrays)
    count = arrays[0].shape[-1]
    ds = xr.Dataset(components("u", variable, {"component": [str(i) for i in range(count)]}))
    for name, short in (("time", "t"), *((axis, axis) for axis in space)):
        if f"grid/{short}" in file[names[0]]:
            ds = ds.assign_coords({name: file[names[0]]["grid"][short][:].astype(float)})
    if all(name.isdigit() for name in names):
        ds = ds.assign_coords(sample=[int(name) for name in names])
    notes = [f"grid and times are those of the first of {len(names)} trajectories."]
    return Source("pdebench", ds, dict.fromkeys(space, False), notes)


def _batched(file: h5py.File) -> Source:
    arrays = _arrays(file)
    axes = {name: arrays.pop(f"{name}-coordinate") for name in _SPACE if f"{name}-coordinate" in arrays}
    times = arrays.pop("t-coordinate", None) if axes else arrays.pop("t", None)
    grid = [len(axis) for axis in axes.values()] or _largest(arrays)[2:-1]
    space = _SPACE[: len(grid)]
    ds, notes = xr.Dataset(), []
    for name, array in arrays.items():
        dims = _dims(array.shape, grid, space)
        if dims is None:
            notes.append(f"{name} {array.shape} is left out: its dimensions are unknown.")
            continue
        labels = {
            "component": space if array.shape[-1] == len(space) else [str(i) for i in range(array.shape[-1])]
        }
        called = "u" if name == "tensor" else name
        ds = ds.assign(components(called, lazily(dims, array), labels if "component" in dims else {}))
    ds = ds.assign_coords({name: axis[:].astype(float) for name, axis in axes.items()})
    if times is not None and "time" in ds.dims:
        known = times[(0,) * (times.ndim - 1)].astype(float)
        # Some files give the ends of the intervals between frames, one more than there are frames.
        ds = ds.assign_coords(time=known[: ds.sizes["time"]])
        if times.ndim > 1 and len(times) > 1:
            notes.append("the times of the first trajectory are taken for all.")
    return Source("pdebench", ds, _periodic(file, space, bool(axes)), notes)


def _largest(arrays: Mapping[str, h5py.Dataset]) -> Sequence[int]:
    return max((array.shape for array in arrays.values()), key=len, default=())


def _dims(shape: Sequence[int], grid: Sequence[int], space: Sequence[str]) -> list[str] | None:
    """The dimensions whose sizes along space are those of the grid."""
    for before, after in (
        (["sample", "time"], []),
        (["sample"], []),
        (["sample"], ["component"]),
        (["sample", "time"], ["component"]),
    ):
        inside = tuple(shape[len(before) : len(shape) - len(after)])
        if inside == tuple(grid):
            return [*before, *space, *after]
    return None


def _periodic(file: h5py.File, space: Sequence[str], has_axes: bool) -> dict[str, bool]:
    name = Path(file.filename).name.lower()
    if not has_axes or "trans" in name or "darcy" in name or "decay" in name:
        return dict.fromkeys(space, False)
    return dict.fromkeys(space, True) if "periodic" in name else {}
