"""What the package understands of a file, and what is wrong with it.

Everything a reader relies on is said with its reason: the domain, the axes, the times, and of every
variable its unit, type, range and gaps. Values are read a block at a time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pdeforecast.convert import Wishes, detect, open_source, understand
from pdeforecast.errors import DataError, ForecastError
from pdeforecast.geometry import Geometry
from pdeforecast.trajectory import faults, geometry_of, is_grid, open_dataset, times_of
from pdeforecast.trajectory.blocks import blocks
from pdeforecast.trajectory.layout import periodic

_PROVENANCE = ("title", "equation", "parameters", "seed", "split", "source", "model", "command", "versions")
_MODELS = (".safetensors", ".ckpt")


@dataclass(frozen=True)
class Inspection:
    """What was understood, line by line, and what is wrong, in the order in which to mend it."""

    lines: list[str]
    problems: list[DataError]


def inspect(path: Path) -> Inspection:
    """Look at a file of ours, or at a foreign one that `pdeforecast convert` reads.

    Raises:
        DataError: if it cannot be read, or holds no data.
    """
    if path.suffix in _MODELS or (path / "run.json").exists():
        raise DataError(
            f"expected data; {path} is a model.", f"Type `pdeforecast forecast {path} STATE.nc …` to use it."
        )
    if path.is_file() and _foreign(path):
        return _inspect_foreign(path)
    with open_dataset(path) as ds:
        found = inspect_dataset(ds, str(path))
        unknown = not any(line.startswith("domain") for line in found.lines)
    return _with_conversion(found, path) if unknown else found


def inspect_dataset(ds: xr.Dataset, name: str = "dataset") -> Inspection:
    """The same of a Dataset."""
    order = sorted(map(str, ds.sizes), key=lambda dim: (dim != "sample", dim not in ("time", "lead_time")))
    sizes = ", ".join(f"{dim} {ds.sizes[dim]}" for dim in order)
    lines = [_line("file", f"{name}: {sizes}; {_bytes(ds.nbytes)}")]
    problems: list[DataError] = []
    moving, still, others = _sorted(ds)
    try:
        geometry = geometry_of(ds)
        lines += _domain(ds, geometry)
        units = {str(k): str(ds[k].attrs.get("units", "1")) for k in (*moving, *still)}
        problems += faults(ds, geometry, units, still if moving else [])
    except DataError as problem:
        problems.append(problem)
    try:
        lines += _times(ds)
    except DataError as problem:
        problems += [problem] if str(problem) not in map(str, problems) else []
    lines += [_field(ds[k].variable, k, bool(moving) and k in still) for k in (*moving, *still)]
    lines += [_line(str(k), f"{ds[k].dtype}, no field") for k in others]
    if not moving and not still:
        problems.append(
            DataError("expected fields of real numbers; there is none.", "Give it one: `ds['u'] = …`.")
        )
    lines += _provenance(ds)
    problems += _order(ds)
    return Inspection(lines, problems)


def _foreign(path: Path) -> bool:
    """Whether a file is nothing that `open_dataset` reads, or says that it is of another layout."""
    if not h5py.is_hdf5(path):
        return path.suffix in (".npy", ".pt", ".pth", ".mat")
    return detect(path) != "netcdf"


def _inspect_foreign(path: Path) -> Inspection:
    """What a foreign file holds, and the command that converts it."""
    source = open_source(path)
    with source.ds as ds:
        lines = [_line("file", f"{path}: layout {source.layout}, {_bytes(ds.nbytes)}")]
        lines += [_line(k, "periodic" if said else "bounded") for k, said in source.periodic.items()]
        for name, array in {**ds.coords, **ds.data_vars}.items():
            dims = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
            lines.append(_line(str(name), f"({dims}) {array.dtype}"))
        lines += [_line("note", note) for note in source.notes]
    cure = f"Type `pdeforecast convert {path} -o {path.with_suffix('.nc').name}`."
    return Inspection(
        lines, [DataError(f"expected our NetCDF; {path} has the layout {source.layout}.", cure)]
    )


def _with_conversion(found: Inspection, path: Path) -> Inspection:
    """A file in which no domain was found: perhaps one is, once its coordinates are renamed."""
    try:
        source = open_source(path, "netcdf")
        with source.ds:
            made = understand(source, Wishes())
    except ForecastError:
        return found
    cure = f"Type `pdeforecast convert {path} -o {path.stem}-converted.nc`."
    problem = DataError(f"expected our names; `convert` understands those of a {made.geometry.name}.", cure)
    return Inspection(found.lines, [problem, *found.problems[1:]])


# --- lines ---------------------------------------------------------------------------------------


def _line(head: str, text: str) -> str:
    return f"{head:<12} {text}"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def _sorted(ds: xr.Dataset) -> tuple[list[str], list[str], list[str]]:
    """The names of fields in time, of those without, and of what is no field."""
    moving: list[str] = []
    still: list[str] = []
    others: list[str] = []
    for name, array in ds.data_vars.items():
        numbers = array.dtype.kind == "f" and not str(name).endswith("_variance")
        kind = others if not numbers else moving if {"time", "lead_time"} & set(array.dims) else still
        kind.append(str(name))
    return moving, still, others


def _domain(ds: xr.Dataset, geometry: Geometry) -> Iterator[str]:
    how = "the attribute geometry" if "geometry" in ds.attrs else "its coordinates"
    kind = (
        "a grid"
        if all(k in ds.variables for k in geometry.coordinates) and is_grid(ds, geometry)
        else "points"
    )
    yield _line("domain", f"{geometry.name}, by {how}; on {kind}")
    for name in reversed(geometry.coordinates):
        if name in ds.variables and ds[name].dtype.kind in "fiu" and ds[name].size:
            yield _line(name, _axis(ds[name].values.astype(float), geometry, name, kind == "a grid"))


def _axis(nodes: NDArray[np.float64], geometry: Geometry, name: str, grid: bool) -> str:
    unit = geometry.units[name]
    text = f"{nodes.size} nodes from {nodes.min():g} to {nodes.max():g} ({unit})"
    if not grid or nodes.size < 2:
        return text
    ordered = np.sort(nodes)
    steps = np.diff(ordered)
    own = geometry.axis(name, nodes.size).numpy()
    low, high = geometry.extent[name]
    if np.ptp(steps) > 1e-3 * steps.mean():
        return f"{text}, irregular: steps from {steps.min():g} to {steps.max():g}"
    if np.allclose(ordered, own, atol=1e-4 * float(steps.mean())):
        kind = "one period without its end" if periodic(name, geometry) else "cell centres"
        return f"{text}, regular, {kind}"
    inside = ordered[0] - low > steps.mean() or high - ordered[-1] > 1.01 * steps.mean()
    return f"{text}, regular, {'a part of the axis' if inside else 'the whole axis'}"


def _times(ds: xr.Dataset) -> list[str]:
    name = next((k for k in ("time", "lead_time") if k in ds.dims), None)
    if name is None:
        return [_line("time", "none: states, to forecast from; not for training")]
    times, unit = np.array(times_of(ds)), ds[name].attrs.get("units", "1")
    steps = np.diff(times)
    regular = (
        "" if not len(steps) else ", regular" if np.ptp(steps) <= 1e-6 * abs(steps[0]) else ", irregular"
    )
    return [_line(name, f"{len(times)} from {times[0]:g} to {times[-1]:g} ({unit}){regular}")]


def _order(ds: xr.Dataset) -> list[DataError]:
    if "time" not in ds.coords or ds["time"].ndim != 1 or ds["time"].dtype.kind not in "fiu":
        return []
    if (np.diff(ds["time"].values) > 0).all():
        return []
    return [
        DataError(
            "expected times in ascending order, each once; these are not.",
            "Sort them: `ds = ds.sortby('time').drop_duplicates('time')`.",
        )
    ]


def _field(array: xr.Variable, name: str, static: bool) -> str:
    dims = ", ".join(map(str, array.dims))
    unit = array.attrs.get("units", "none given")
    text = f"({dims}) {array.dtype}, unit {unit}, {_range(array)}"
    return _line(name, f"{text}, static" if static else text)


def _range(array: xr.Variable) -> str:
    """The least and the greatest value and the share of gaps."""
    low, high, gaps = np.inf, -np.inf, 0
    for _, values in blocks(array):
        finite = np.isfinite(values)
        gaps += int(np.isnan(values).sum())
        low = min(low, float(values.min(initial=np.inf, where=finite)))
        high = max(high, float(values.max(initial=-np.inf, where=finite)))
    if low > high:
        return "no finite value"
    known = f"always {low:.4g}" if low == high else f"from {low:.4g} to {high:.4g}"
    return f"{known}, {100 * gaps / array.size:.3g} % NaN" if gaps else known


def _provenance(ds: xr.Dataset) -> Iterator[str]:
    attrs: Mapping[str, Any] = {str(key): value for key, value in ds.attrs.items()}
    for key in _PROVENANCE:
        if key in attrs:
            yield _line(key, str(attrs[key]))
    hashes = ds.get("state_hash")
    if hashes is not None:
        distinct = len(set(hashes.values.ravel().tolist()))
        yield _line("states", f"{hashes.size} initial states, {distinct} different")
