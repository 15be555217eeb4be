"""Samples of an equation: a random initial state and what the solver makes of it.

Samples are solved one at a time, never as a batch, for a sample must not depend on its company. Measured on
eight states, batch against one by one: a solver that chooses its step by the fastest flow in the batch
(Navier–Stokes, step 0.25, strong forcing) differs by 2e-2; elsewhere matrix products sum in another order,
by 3e-16, which float32 does not always hide.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pdeforecast.cells import MEAN
from pdeforecast.errors import DivergedError, UsageError
from pdeforecast.generation.provenance import stream_of
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.pdes import PDE
from pdeforecast.trajectory import state_hash, to_dataset

Progress = Callable[[int, int], None]
"""Called with the number of samples done and of all: at the beginning, with what is kept, and after each."""
T = TypeVar("T")
_START = 5.0
"""Seconds in which processes are up, about: those of Python and of PyTorch."""


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
    pde: PDE,
    samples: int | Sequence[int],
    seed: int = 0,
    split: str = "train",
    jobs: int = 1,
    device: str = "cpu",
) -> Iterator[Trajectory]:
    """One trajectory after another.

    Args:
        samples: how many, ≥ 1, in the order of their indices; or their indices.
        seed: of the random initial states, ≥ 0; with `split`, it names the stream.
        jobs: processes at most, one thread each: none are started where samples are few and cheap. With
            more than one, a script needs the guard `if __name__ == "__main__":`.
        device: of the solver; initial states are drawn, and spun up, on the CPU. Another device may round
            otherwise than the CPU.

    Raises:
        UsageError: if a count makes no sense, or a process is killed.
        DivergedError: if a solution leaves the finite numbers.
    """
    count = samples if isinstance(samples, int) else max(len(samples), 1)
    for name, value, least in (("samples", count, 1), ("jobs", jobs, 1), ("seed", seed, 0)):
        if value < least:
            raise UsageError(
                f"expected {name} ≥ {least}; came {value}.", f"Type `--{name} {max(least, 1)}` or more."
            )
    indices = range(samples) if isinstance(samples, int) else samples
    one = partial(_trajectory, pde, seed, split, device)
    return map(one, indices) if jobs == 1 or len(indices) < 2 else shared(one, indices, jobs)


def assemble(
    pde: PDE,
    trajectories: Sequence[Trajectory],
    seed: int,
    split: str,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """The Dataset of some trajectories of one stream, with the hash of every initial state."""
    values = np.stack([trajectory.values for trajectory in trajectories])
    indices = [trajectory.index for trajectory in trajectories]
    provenance = {**stream_of(pde, seed, split), **(attrs or {})}
    return dataset_of(pde, indices, values, trajectories[0].statics, provenance)


def dataset_of(
    pde: PDE,
    indices: Sequence[int],
    values: NDArray[np.float32],
    statics: Mapping[str, NDArray[np.float32]],
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """The Dataset of the samples `indices` with values (S, T, *grid, V); the hash of every first frame."""
    units = {name: pde.units[name] for name in pde.variables}
    axes, unit = pde.coordinates(), pde.units.get("time", "1")
    ds = to_dataset(values, GEOMETRIES[pde.geometry], units, axes, pde.times(), "time", unit, attrs)
    if getattr(pde, "coarsen", 1) > 1:
        for name in pde.variables:
            ds[name].attrs["cell_methods"] = MEAN
    for name, array in statics.items():
        ds = ds.assign({name: (tuple(axes), array, {"units": pde.units[name]})})
    hashes = np.array([state_hash(sample[0]) for sample in values], dtype=object)
    note = {"long_name": "SHA-256 of the float32 initial state"}
    return ds.assign_coords(sample=("sample", list(indices))).assign(state_hash=("sample", hashes, note))


def frames(
    pde: PDE,
    state: Mapping[str, Tensor],
    times: Sequence[float],
    axes: Mapping[str, Tensor] | None = None,
) -> Iterator[Tensor]:
    """The evolving fields (…, *grid, V) at each of the `times` after the state.

    Raises:
        DivergedError: if they are not finite.
    """
    for after, frame in zip(times, pde.solve(state, times, axes=axes), strict=True):
        values = torch.stack([frame[name] for name in pde.variables], dim=-1)
        if not bool(values.isfinite().all()):
            raise DivergedError(
                f"the solution of {pde.name} is not finite {after:g} after its start.",
                "Take shorter steps or more points: `--set step=…`, `--set resolution=…`.",
            )
        yield values


@contextmanager
def one_thread() -> Iterator[None]:
    """Fields are small: a second thread costs more than it brings, and might order sums otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _trajectory(pde: PDE, seed: int, split: str, device: str, index: int) -> Trajectory:
    start, *_ = times = pde.times()
    with one_thread():
        state = {name: field.to(device) for name, field in pde.initial(seed, split, index).items()}
        try:
            solved = [values.float().cpu() for values in frames(pde, state, [t - start for t in times])]
        except DivergedError as error:
            raise DivergedError(f"sample {index}: {error.cause}", error.cure) from error
    statics = {name: state[name].float().cpu().numpy() for name in pde.statics}
    return Trajectory(index, torch.stack(solved).numpy(), statics)


def shared(one: Callable[[int], T], indices: Sequence[int], jobs: int) -> Iterator[T]:
    """The first here, to see what one costs; the others in processes, if these save more than they take."""
    begin = time.monotonic()
    yield one(indices[0])
    seconds, rest = time.monotonic() - begin, indices[1:]
    jobs = min(jobs, len(rest))
    if jobs > 1 and seconds * len(rest) * (1 - 1 / jobs) > _START:
        yield from _in_processes(one, rest, jobs)
    else:
        yield from map(one, rest)


def _in_processes(one: Callable[[int], T], indices: Sequence[int], jobs: int) -> Iterator[T]:
    # A forked child would inherit PyTorch's thread pools in an unknown state.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_follow_parent) as pool:
        try:
            yield from pool.map(one, indices)
        except BrokenProcessPool as error:
            raise UsageError(
                f"expected {jobs} processes to run on; one of them was killed, as for lack of memory.",
                f"Type the command again with `--jobs {max(1, jobs // 2)}`.",
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _follow_parent() -> None:
    """A process of the pool ends when its parent is killed, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
