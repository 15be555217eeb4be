"""The Well's HDF5 files.

    @dataset_name, @grid_type, @n_spatial_dims, @simulation_parameters, …
    dimensions/            @spatial_dims, time (T), and per coordinate its nodes
    boundary_conditions/*  @associated_dims, @bc_type: PERIODIC, WALL or OPEN
    scalars/*              numbers of the file, of each trajectory, or of each time
    t0_fields/*            scalars   (sample, time, *space)
    t1_fields/*            vectors   (sample, time, *space, d)
    t2_fields/*            tensors   (sample, time, *space, d, d)

where a field lacks the dimensions along which it does not vary (@sample_varying, @time_varying,
@dim_varying). Source: github.com/PolymathicAI/the_well, docs/data_format.md.
"""

from typing import Any

import h5py
import numpy as np
import xarray as xr

from pdeforecast.convert.source import Source, components, lazily

_ANGLES = {"theta": "latitude", "phi": "longitude", "r": "radius"}
"""Spherical coordinates, which their nodes tell apart from degrees and latitudes."""


def recognise(file: h5py.File) -> bool:
    """Whether a file has this layout."""
    return "dimensions" in file and any(f"t{order}_fields" in file for order in range(3))


def read(file: h5py.File) -> Source:
    """The trajectories of a file."""
    spherical = "spher" in str(_plain(file.attrs.get("grid_type", "")))
    space = [str(_plain(name)) for name in file["dimensions"].attrs["spatial_dims"]]
    called = {name: _ANGLES.get(name, name) if spherical else name for name in space}
    ds = xr.Dataset(attrs=_attributes(file))
    notes: list[str] = []
    for name in space:
        nodes = file["dimensions"][name]
        if nodes.ndim == 1:
            ds = ds.assign_coords({called[name]: (called[name], nodes[:].astype(float))})
    times = file["dimensions"]["time"]
    if times.ndim > 1:
        notes.append("each trajectory has times of its own; those of the first are taken for all.")
    ds = ds.assign_coords(time=times[(0,) * (times.ndim - 1)].astype(float))
    for order in range(3):
        for name, array in file.get(f"t{order}_fields", {}).items():
            ds = ds.assign(_fields(name, array, order, space, called))
    if left := sorted(file.get("scalars", {})):
        notes.append(f"scalars that belong to no place are left out: {', '.join(left)}.")
    return Source("the-well", ds, _periodic(file, called), notes)


def _fields(
    name: str, array: h5py.Dataset, order: int, space: list[str], called: dict[str, str]
) -> dict[str, xr.Variable]:
    varies = array.attrs.get("dim_varying", [True] * len(space))
    dims = [called[dim] for dim, there in zip(space, varies, strict=True) if there]
    dims = ["time"] * bool(array.attrs.get("time_varying", True)) + dims
    dims = ["sample"] * bool(array.attrs.get("sample_varying", True)) + dims
    inner = [f"component{i}" for i in range(order)]
    return components(name, lazily([*dims, *inner], array), dict.fromkeys(inner, space))


def _periodic(file: h5py.File, called: dict[str, str]) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for condition in file.get("boundary_conditions", {}).values():
        kind = str(_plain(condition.attrs.get("bc_type", ""))).upper()
        for name in condition.attrs.get("associated_dims", []):
            found[called.get(str(_plain(name)), str(_plain(name)))] = kind == "PERIODIC"
    return found


def _attributes(file: h5py.File) -> dict[str, Any]:
    """The name and the parameters of the simulation."""
    wanted = ["dataset_name", *map(_plain, file.attrs.get("simulation_parameters", []))]
    return {str(key): _plain(file.attrs[key]) for key in wanted if np.ndim(file.attrs.get(key, [])) == 0}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
