"""Trajectories of an equation, as files: random initial states, solved, with their provenance.

A sample depends on (equation, parameters, seed, split, index) alone: the same in any order, in any
number of processes. A dataset is stated by a *recipe*, a TOML file that names the equation, its
parameters, and per split the seed, the number of samples and the times.
"""

import json
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pdeforecast.errors import DataError, DivergedError, UsageError, nearest
from pdeforecast.geometry import GEOMETRIES, Geometry
from pdeforecast.pdes import PDE, make
from pdeforecast.trajectory import (
    axes_of,
    check,
    check_target,
    default_axes,
    grid_dims,
    is_grid,
    save_dataset,
    state_hash,
    to_dataset,
    trajectory_values,
)

Progress = Callable[[int, int], None]
"""Called with the number of samples done and the number of all."""


@dataclass(frozen=True)
class Trajectory:
    """One solution of an equation.

    Attributes:
        index: of the sample.
        values: (T, *grid, V), float32.
        statics: the fields that do not change, each (*grid), float32.
    """

    index: int
    values: NDArray[np.float32]
    statics: Mapping[str, NDArray[np.float32]]


def generate(
    pde: PDE, samples: int, seed: int = 0, split: str = "train", jobs: int = 1
) -> Iterator[Trajectory]:
    """One trajectory after another, in the order of their indices.

    Args:
        samples: how many, ≥ 1.
        seed: of the random initial states, ≥ 0; with `split`, it names the stream.
        jobs: processes, one thread each. With more than one, a script needs the guard
            `if __name__ == "__main__":`.

    Raises:
        UsageError: if a count makes no sense.
        DivergedError: if a solution leaves the finite numbers.
    """
    for name, value, least in (("samples", samples, 1), ("jobs", jobs, 1), ("seed", seed, 0)):
        if value < least:
            raise UsageError(
                f"expected {name} ≥ {least}; came {value}.", f"Type `--{name} {max(least, 1)}` or more."
            )
    one = partial(_trajectory, pde, seed, split)
    if jobs == 1:
        return map(one, range(samples))
    return _in_processes(one, samples, min(jobs, samples))


def write(
    pde: PDE,
    path: str | PathLike[str],
    samples: int,
    seed: int = 0,
    split: str = "train",
    jobs: int = 1,
    progress: Progress | None = None,
    overwrite: bool = False,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Generate trajectories and keep them in one NetCDF file, which appears when it is complete.

    Args:
        attrs: further provenance, such as the command.

    Returns:
        The Dataset that was written.

    Raises:
        UsageError: if the file exists, or a count makes no sense.
        DivergedError: if a solution leaves the finite numbers.
    """
    check_target(path, overwrite)
    trajectories = []
    for trajectory in generate(pde, samples, seed, split, jobs):
        trajectories.append(trajectory)
        if progress is not None:
            progress(len(trajectories), samples)
    ds = assemble(pde, trajectories, seed, split, attrs)
    save_dataset(ds, path, overwrite)
    return ds


def assemble(
    pde: PDE,
    trajectories: Sequence[Trajectory],
    seed: int,
    split: str,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """The Dataset of some trajectories of one stream, with the hash of every initial state."""
    values = np.stack([trajectory.values for trajectory in trajectories])
    provenance = {**provenance_of(pde), "seed": seed, "split": split, **(attrs or {})}
    ds = _dataset(pde, values, trajectories[0].statics, pde.coordinates(), pde.times(), "time", provenance)
    hashes = np.array([state_hash(trajectory.values[0]) for trajectory in trajectories], dtype=object)
    note = {"long_name": "SHA-256 of the float32 initial state"}
    ds = ds.assign_coords(sample=("sample", [trajectory.index for trajectory in trajectories]))
    return ds.assign(state_hash=("sample", hashes, note))


def solve_from(
    pde: PDE, ds: xr.Dataset, lead_times: Sequence[float], attrs: Mapping[str, Any] | None = None
) -> xr.Dataset:
    """The equation's own solution from the first frame of `ds`, as a forecast is given.

    Args:
        ds: states on a full regular grid, with the static fields of the equation.
        lead_times: ≥ 0, in any order.

    Returns:
        A Dataset over (sample, lead_time, *grid), on the grid of `ds` in ascending order.

    Raises:
        DataError: if the state has gaps, or its grid is not the solver's.
        UsageError: if a lead time is negative or not finite.
        DivergedError: if the solution leaves the finite numbers.
    """
    geometry = GEOMETRIES[pde.geometry]
    units = {name: pde.units[name] for name in (*pde.variables, *pde.statics)}
    if not lead_times or not all(math.isfinite(time) and time >= 0 for time in lead_times):
        raise UsageError(
            f"expected lead times ≥ 0; came {list(lead_times)}.", "Type for instance `--lead-time 0:19:1`."
        )
    start = ds.isel({name: 0 for name in ("time", "lead_time") if name in ds.dims})
    check(start, geometry, units, pde.statics)
    start = _full_grid(start, geometry, list(units))
    axes = axes_of(start, geometry)
    shape = [len(axis) for axis in axes.values()]
    fields_at_start = trajectory_values(start, geometry, units)[2][:, 0].double()
    state = {name: fields_at_start[..., i].reshape(-1, *shape).clone() for i, name in enumerate(units)}
    ordered = sorted(set(map(float, lead_times)))
    frames = dict(zip(ordered, _frames(pde, state, ordered), strict=True))
    values = torch.stack([frames[float(time)] for time in lead_times], dim=1)
    provenance = {**provenance_of(pde), **_start_time(start), **(attrs or {})}
    out = _dataset(pde, values.float(), {}, axes, lead_times, "lead_time", provenance)
    if "sample" in start.coords:
        out = out.assign_coords(sample=np.atleast_1d(start["sample"].values))
    return out.assign({name: start[name].variable.load() for name in pde.statics})


def provenance_of(pde: PDE) -> dict[str, Any]:
    """What a file says of its equation: name, parameters (as JSON) and the version of the package."""
    try:
        release = version("pdeforecast")
    except PackageNotFoundError:
        release = "unknown"
    return {
        "title": f"trajectories of {pde.name}",
        "equation": pde.name,
        "parameters": json.dumps(asdict(pde)),
        "pdeforecast_version": release,
    }


# --- one sample ----------------------------------------------------------------------------------


def _trajectory(pde: PDE, seed: int, split: str, index: int) -> Trajectory:
    with _one_thread():
        state = pde.initial(seed, split, index)
        try:
            values = torch.stack(list(_frames(pde, state, pde.times())))
        except DivergedError as error:
            raise DivergedError(f"sample {index}: {error.cause}", error.cure) from error
    statics = {name: state[name].float().numpy() for name in pde.statics}
    return Trajectory(index, values.float().numpy(), statics)


def _frames(pde: PDE, state: Mapping[str, Tensor], times: Sequence[float]) -> Iterator[Tensor]:
    """The evolving fields (…, *grid, V) at each time."""
    for time, frame in zip(times, pde.solve(state, times), strict=True):
        values = torch.stack([frame[name] for name in pde.variables], dim=-1)
        if not bool(values.isfinite().all()):
            raise DivergedError(
                f"the solution of {pde.name} is not finite at time {time:g}.",
                "Take shorter steps or more points: `--set step=…`, `--set resolution=…`.",
            )
        yield values


@contextmanager
def _one_thread() -> Iterator[None]:
    """Fields are small: a second thread costs more than it brings, and might order sums otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _in_processes(one: Callable[[int], Trajectory], samples: int, jobs: int) -> Iterator[Trajectory]:
    # A forked child would inherit PyTorch's thread pools in an unknown state.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(one, range(samples))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _dataset(
    pde: PDE,
    values: Tensor | NDArray[Any],
    statics: Mapping[str, NDArray[Any]],
    axes: Mapping[str, Tensor],
    times: Sequence[float],
    time_name: str,
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    geometry = GEOMETRIES[pde.geometry]
    units = {name: pde.units[name] for name in pde.variables}
    ds = to_dataset(values, geometry, units, axes, times, time_name, pde.units.get("time", "1"), attrs)
    return ds.assign(
        {name: (tuple(axes), array, {"units": pde.units[name]}) for name, array in statics.items()}
    )


# --- from a given state --------------------------------------------------------------------------


def _full_grid(ds: xr.Dataset, geometry: Geometry, names: Sequence[str]) -> xr.Dataset:
    """The state in ascending order of its axes, if it is the regular, complete grid of a solver."""
    dims = grid_dims(geometry)
    cure = "Interpolate it first, for instance: `pdeforecast forecast MODEL … --lead-time 0 --grid 64x64`."
    if not is_grid(ds, geometry):
        raise DataError(
            f"expected a state on a full ({', '.join(dims)}) grid; this one is observed at loose points.",
            cure,
        )
    for name in names:
        if missing := int(ds[name].isnull().sum()):
            raise DataError(f"expected a state without gaps; {missing} values of {name} are NaN.", cure)
    ds = ds.sortby(list(dims))
    sizes = {name: ds.sizes[name] for name in dims}
    steps = {name: np.diff(ds[name].values) for name in dims}
    regular = default_axes(geometry, sizes)
    for name in dims:
        expected = np.diff(regular[name])
        if sizes[name] < 2 or not np.allclose(steps[name], expected, atol=1e-6):
            raise DataError(
                f"expected a regular grid over the whole {name}; its {sizes[name]} nodes are not "
                f"{1 / sizes[name]:g} of the period apart.",
                cure,
            )
    if len(set(sizes.values())) > 1:
        raise DataError(f"expected as many points along each of {', '.join(dims)}; came {sizes}.", cure)
    return ds


def _start_time(ds: xr.Dataset) -> dict[str, float]:
    return {"start_time": float(ds["time"])} if "time" in ds.coords and ds["time"].ndim == 0 else {}


# --- recipes -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """One part of a dataset.

    Attributes:
        samples: trajectories.
        seed: of their initial states.
        pde: the equation, with this part's own parameters (its times).
    """

    samples: int
    seed: int
    pde: PDE


@dataclass(frozen=True)
class Recipe:
    """A dataset, stated so that it can be generated again.

    Attributes:
        pde: the equation with the parameters common to all splits.
        splits: by name.
    """

    pde: PDE
    splits: Mapping[str, Split]


def load_recipe(path: str | PathLike[str]) -> Recipe:
    """The recipe of a TOML file: `equation`, `[parameters]`, and `[splits.NAME]`.

    A split has `samples`, `seed`, and may set any parameter of the equation anew.

    Raises:
        UsageError: if the file is missing or not TOML, or a key or a value means nothing.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"expected a recipe; cannot read {path}.", "Look into `datasets/`.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"expected TOML; {path}: {error}.", "Mend that line.") from error
    _known_keys(table, ("equation", "parameters", "splits"), path)
    pde = make(str(table.get("equation", "")), table.get("parameters", {}))
    return Recipe(
        pde, {name: _split(pde, name, part, path) for name, part in table.get("splits", {}).items()}
    )


def _split(pde: PDE, name: str, table: Mapping[str, Any], path: str | PathLike[str]) -> Split:
    _known_keys(table, ("samples", "seed", *(field.name for field in fields(pde))), path)
    for key in ("samples", "seed"):
        if not isinstance(table.get(key), int):
            raise UsageError(
                f"expected a whole number as splits.{name}.{key} in {path}; came {table.get(key)!r}.",
                f"Write `{key} = {64 if key == 'samples' else 0}` below `[splits.{name}]`.",
            )
    own = {key: value for key, value in table.items() if key not in ("samples", "seed")}
    changed = make(pde.name, {**asdict(pde), **own})
    return Split(table["samples"], table["seed"], changed)


def _known_keys(table: Mapping[str, Any], known: Sequence[str], path: str | PathLike[str]) -> None:
    for key in table:
        if key not in known:
            near = nearest(key, known)
            raise UsageError(
                f"{path} has an unknown key {key!r}; known are {', '.join(known)}.",
                f"Write `{near}` instead." if near else f"Remove {key!r}.",
            )
