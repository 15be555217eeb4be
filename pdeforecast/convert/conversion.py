"""From a source to a file of ours."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdeforecast.convert.detection import open_source
from pdeforecast.convert.fit import fit, sides
from pdeforecast.convert.source import Source, lazy, reordered
from pdeforecast.errors import DataError, UsageError, nearest
from pdeforecast.geometry import GEOMETRIES, Geometry
from pdeforecast.trajectory import check_target, grid_dims, save_dataset
from pdeforecast.trajectory.files import Written

_SPLITS = {"train": "train", "valid": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Wishes:
    """What a user says of a file that the file does not.

    Attributes:
        layout: one of `LAYOUTS`.
        geometry: a name of `GEOMETRIES`, or None to find it out.
        variables: by new name, the old one; all variables if empty.
        units: by (new) name.
        coordinates: by new name, the old name of a dimension or coordinate.
        dims: of bare arrays, in order.
    """

    layout: str = "auto"
    geometry: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    coordinates: Mapping[str, str] = field(default_factory=dict)
    dims: Sequence[str] | None = None


@dataclass(frozen=True)
class Conversion:
    """What was understood of a file.

    Attributes:
        layout: of the source.
        geometry: of the result.
        ds: in our convention, lazily.
        notes: what was assumed, changed or left out.
    """

    layout: str
    geometry: Geometry
    ds: xr.Dataset
    notes: Sequence[str]


def convert(
    path: Path,
    output: Path,
    wishes: Wishes | None = None,
    overwrite: bool = False,
    progress: Written | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Conversion:
    """Read a foreign file and write it as ours, a block of samples at a time.

    Args:
        attrs: further provenance, such as the command.

    Raises:
        DataError: if the file cannot be read, or does not say what it must.
        UsageError: if `output` exists and may not be overwritten, or a wish is not of this file.
    """
    check_target(output, overwrite)
    wishes = wishes or Wishes()
    if wishes.dims is not None and len(set(wishes.dims)) < len(wishes.dims):
        raise UsageError(
            f"expected every dimension once; came {','.join(wishes.dims)}.",
            "Type `--dims sample,time,y,x`, in the order of the array.",
        )
    source = open_source(path, wishes.layout, wishes.dims)
    with source.ds:
        made = understand(source, wishes)
        split = {_SPLITS[part.name] for part in path.absolute().parents if part.name in _SPLITS}
        origin = {"source": path.name, "source_layout": made.layout, **(attrs or {})}
        if len(split) == 1:
            origin["split"] = split.pop()
        save_dataset(made.ds.assign_attrs(origin), output, overwrite, progress)
    return made


def understand(source: Source, wishes: Wishes) -> Conversion:
    """The source in our convention, nothing written yet.

    Raises:
        DataError, UsageError: as `convert` does.
    """
    ds = _chosen(source.ds, wishes)
    for dim, size in ds.sizes.items():
        if not size:
            raise DataError(f"expected something along {dim}; the file is empty.", "Give a file of fields.")
    called = {old: new for new, old in wishes.coordinates.items()}
    periodic = {called.get(name, name): said for name, said in source.periodic.items()}
    geometry = _geometry(ds, periodic, wishes)
    _check_axes(ds, geometry)
    ds, dropped = _placed(ds, geometry)
    ds, timed = _timed(ds)
    fitted = fit(ds, geometry)
    ds, named = _units(_numbers(fitted.ds), wishes.units)
    notes = [*source.notes, *dropped, *timed, *fitted.notes, *named]
    if "sample" in ds.dims and "sample" not in ds.coords:
        ds = ds.assign_coords(sample=np.arange(ds.sizes["sample"]))
    plain = {str(key): _attribute(value) for key, value in ds.attrs.items()}
    ds = ds.assign_attrs({**plain, "Conventions": "CF-1.11", "geometry": geometry.domain})
    return Conversion(source.layout, geometry, ds.drop_encoding(), notes)


def _attribute(value: Any) -> Any:
    return value if isinstance(value, str | int | float | np.number | np.ndarray) else json.dumps(str(value))


# --- what the user says --------------------------------------------------------------------------


def _chosen(ds: xr.Dataset, wishes: Wishes) -> xr.Dataset:
    """The wanted variables and coordinates, under their new names."""
    for new, old in {**wishes.variables, **wishes.coordinates}.items():
        known = [*map(str, ds.variables), *(str(dim) for dim in ds.dims if dim not in ds.variables)]
        if old not in known:
            near = nearest(old, known)
            raise UsageError(
                f"expected one of {', '.join(known)}; came {new}={old}.",
                f"Type `{new}={near or known[0]}`.",
            )
    if wishes.variables:
        for old in wishes.variables.values():
            if old in ds.coords:
                ds = ds.reset_coords(old)
        ds = ds[list(wishes.variables.values())]
    names = {old: new for new, old in {**wishes.variables, **wishes.coordinates}.items() if old != new}
    taken = {*map(str, ds.variables), *map(str, ds.dims)} - set(names)
    for old, new in names.items():
        if new in taken:
            raise UsageError(
                f"expected a new name; {new}={old}, but {new} is another one's.",
                f"Exchange them: `--coordinate {new}={old} --coordinate {old}={new}`.",
            )
    # An exchange of two names takes a step between.
    ds = ds.rename({old: f"{new} " for old, new in names.items()})
    ds = ds.rename({f"{new} ": new for new in names.values()})
    along = {new: ds[new].dims for new in wishes.coordinates if new in ds.variables}
    own = {dims[0]: new for new, dims in along.items() if len(dims) == 1 and dims != (new,)}
    # Several coordinates along one dimension are those of loose points.
    alone = {dim: new for dim, new in own.items() if list(along.values()).count((dim,)) == 1}
    return ds.swap_dims(alone)


def _geometry(ds: xr.Dataset, periodic: Mapping[str, bool], wishes: Wishes) -> Geometry:
    """The wanted geometry, or the one that the file declares, or the only one that its sides allow."""
    name = wishes.geometry or ds.attrs.get("geometry")
    if name in GEOMETRIES:
        return GEOMETRIES[str(name)]
    if wishes.geometry is not None:
        raise UsageError(
            f"expected a geometry among {', '.join(GEOMETRIES)}; came {name!r}.",
            f"Type `--geometry {nearest(str(name), GEOMETRIES) or next(iter(GEOMETRIES))}`.",
        )
    here = {*map(str, ds.dims), *map(str, ds.coords)}
    spaces = [space for key, space in GEOMETRIES.items() if space.domain == key]
    fitting = [space for space in spaces if set(space.coordinates) <= here]
    most = max((len(space.coordinates) for space in fitting), default=0)
    fitting = [space for space in fitting if len(space.coordinates) == most]
    told = [space for space in fitting if all(periodic.get(k) == v for k, v in sides(space).items())]
    # With an axis and without, the sphere has the same coordinates; an axis is the lesser claim.
    found = told or fitting
    if not found or ("z" in ds.dims and most < 3):
        dims = ", ".join(f"{dim} ({size})" for dim, size in ds.sizes.items())
        known = "; ".join(f"{space.name} ({', '.join(grid_dims(space))})" for space in spaces)
        raise DataError(
            f"expected the coordinates of a geometry: {known}; this file has the dimensions {dims}.",
            "Name them: `--coordinate x=…`, `--coordinate y=…`; a line and a box have no geometry here.",
        )
    if told or not sides(found[0]):
        return found[-1]
    names = " or ".join(f"`--geometry {space.name}`" for space in found)
    if len(periodic) > 1:
        said = ", ".join(f"{k} {'periodic' if v else 'bounded'}" for k, v in periodic.items())
        raise DataError(
            f"expected sides as one of our geometries has them; the file says {said}.",
            "Exchange the axes: `--coordinate x=y --coordinate y=x`; components keep their names.",
        )
    raise DataError(
        "expected to know whether the box is periodic; the file does not say it.", f"Type {names}."
    )


# --- what the contract asks -----------------------------------------------------------------------


def _check_axes(ds: xr.Dataset, geometry: Geometry) -> None:
    for name in geometry.coordinates:
        if name not in ds.variables and name not in ds.dims:
            dims = ", ".join(f"{dim} ({size})" for dim, size in ds.sizes.items())
            raise DataError(
                f"expected the coordinate {name} of the {geometry.name}; the dimensions are {dims}.",
                f"Name it: `--coordinate {name}=…`, or choose another `--geometry`.",
            )


def _placed(ds: xr.Dataset, geometry: Geometry) -> tuple[xr.Dataset, list[str]]:
    """The fields that have a value at every place, and what happened to the others."""
    notes = []
    axes = {name: ds[name].dims for name in geometry.coordinates if name in ds.variables}
    loose = any(dims != (name,) for name, dims in axes.items())
    places = {dim for dims in axes.values() for dim in dims} if loose else set(geometry.coordinates)
    for name, array in ds.data_vars.items():
        own = set(array.dims)
        extra = sorted(map(str, own - places - {"sample", "time", "lead_time"}))
        if extra and own & places:
            raise DataError(
                f"expected {name} over sample, time and place; it also depends on {', '.join(extra)}.",
                f"Choose others with `--variable`, or one of these: `ds.isel({extra[0]}=0)` in xarray.",
            )
        if not own & places or array.dtype.kind not in "fiub":
            notes.append(f"{name} is left out: it is no field of numbers.")
            ds = ds.drop_vars(str(name))
        elif missing := [dim for dim in grid_dims(geometry) if dim in places - own]:
            sizes = {dim: ds.sizes[dim] for dim in missing} | {str(k): n for k, n in array.sizes.items()}
            ds = ds.assign({str(name): array.variable.set_dims(sizes)})
            notes.append(f"{name} is repeated along {', '.join(missing)}.")
    if not ds.data_vars:
        raise DataError(
            f"expected fields over {', '.join(grid_dims(geometry))}; there is none.", "Give another file."
        )
    order = ["sample", "time", "lead_time", *(sorted(map(str, places)) if loose else grid_dims(geometry))]
    ds = ds.assign({str(k): reordered(array.variable, order) for k, array in ds.items()})
    kept = {*geometry.coordinates, "sample", "time", "lead_time"}
    return ds.drop_vars([name for name in ds.coords if name not in kept]), notes


def _timed(ds: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
    """Times as numbers, in a unit without a date."""
    name = next((dim for dim in ("time", "lead_time") if dim in ds.dims), None)
    if name is None:
        return ds, []
    if name not in ds.variables:
        count = np.arange(ds.sizes[name], dtype=float)
        return ds.assign_coords({name: (name, count, {"units": "1"})}), [
            f"{name}: no times in the file; frames are counted from 0."
        ]
    unit, _, date = str(ds[name].attrs.get("units", "1")).partition(" since ")
    values = ds[name].values
    kept: dict[str, Any] = {"units": unit}
    notes = []
    if date:
        kept["reference_date"] = date
        notes = [f"{name}: in {unit}, as counted from {date}."]
    return ds.assign_coords({name: (name, values.astype(float), kept)}), notes


def _numbers(ds: xr.Dataset) -> xr.Dataset:
    """Whole numbers as floats, lazily."""

    def floats(array: xr.Variable) -> xr.Variable:
        made = lazy(list(map(str, array.dims)), array.shape, "float32", lambda key: array[key].values)
        made.attrs = array.attrs
        return made

    return ds.assign({name: floats(array.variable) for name, array in ds.items() if array.dtype.kind != "f"})


def _units(ds: xr.Dataset, units: Mapping[str, str]) -> tuple[xr.Dataset, list[str]]:
    """With the unit of every variable, and of time."""
    known = [*map(str, ds.data_vars), *(dim for dim in ("time", "lead_time") if dim in ds.coords)]
    for name in units:
        if name not in known:
            near = nearest(name, known)
            raise UsageError(
                f"expected a variable among {', '.join(known)}; came {name!r}.",
                f"Type `--unit {near or known[0]}={units[name]}`.",
            )
    silent = []
    ds = ds.copy()
    for name in known:
        own = ds[name].attrs.get("units")
        if own is None and name not in units:
            silent.append(name)
        attrs = {
            k: v for k, v in ds[name].attrs.items() if k in ("long_name", "standard_name", "reference_date")
        }
        ds[name].attrs = {**attrs, "units": units.get(name, "1" if own is None else str(own))}
    note = f"no units in the file for {', '.join(silent)}: '1' is written; else give `--unit NAME=UNIT`."
    return ds, [note] if silent else []
