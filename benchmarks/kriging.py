"""The floor for sparse observations: kriging of the points, then the equation's own solver.

A state is taken as a stationary random field whose covariance C(r) is the Fourier transform of the
mean power spectrum of training states (Wiener–Khinchin), made symmetric under quarter turns and
reflections, which are symmetries of the flow. The field given the observed values y is

    ω(x) = Σ_j C(x − x_j) w_j,      (C(x_i − x_j) + n C(0) δ_ij) w = y,      n = 1e-8.

What follows frame 0 is exact: the solver is the one that made the truth.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
import xarray as xr
from scipy.linalg import cho_factor, cho_solve

from pdeforecast.pdes.navier_stokes import NavierStokes
from pdeforecast.solvers.torus import resample

NUGGET = 1e-8

CORES = len(os.sched_getaffinity(0))

T = TypeVar("T")
R = TypeVar("R")


def on_all_cores(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`function` of each item, in the order of the items, by one single-threaded process per core."""
    # Not forked: a forked child of a process whose OpenMP threads have run may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(CORES, context, torch.set_num_threads, (1,)) as pool:
        return list(pool.map(function, items))


def covariance(states: np.ndarray) -> np.ndarray:
    """C(r) on the grid of displacements, r = (row, column) modulo n, of `states` (sample, n, n)."""
    power = np.mean(np.abs(np.fft.fft2(states.astype(np.float64))) ** 2, axis=0)
    c = np.fft.ifft2(power).real / power.size
    c = (c + np.roll(c[::-1], 1, axis=0)) / 2
    return (c + c.T) / 2


def krige(field: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The field (n, n) whose unobserved points are NaN, filled in; a field without gaps as it is."""
    row, column = np.nonzero(~np.isnan(field))
    if len(row) == field.size:
        return field
    n = len(field)
    between = c[(row[:, None] - row) % n, (column[:, None] - column) % n]
    between[np.diag_indices_from(between)] += NUGGET * c[0, 0]
    weights = np.zeros((n, n))
    weights[row, column] = cho_solve(cho_factor(between), field[row, column])
    return np.fft.ifft2(np.fft.fft2(c) * np.fft.fft2(weights)).real


@dataclass(frozen=True)
class Kriging:
    """A forecast: the points kriged with `covariance`, then `pde.solve`."""

    pde: NavierStokes
    covariance: np.ndarray

    def __call__(self, state: xr.Dataset, lead_times: Sequence[float], size: int) -> np.ndarray:
        """Forecasts (sample, lead, size, size) at non-decreasing leads, solved on the grid of the state."""
        fields = state["vorticity"].transpose("sample", "y", "x").values
        run = partial(self._one, forcing=state["forcing"].transpose("y", "x").values, times=lead_times)
        return resample(torch.from_numpy(np.stack(on_all_cores(run, fields))), size).numpy()

    def _one(self, field: np.ndarray, forcing: np.ndarray, times: Sequence[float]) -> np.ndarray:
        start = {"vorticity": krige(field.astype(np.float64), self.covariance), "forcing": forcing}
        frames = self.pde.solve({name: torch.from_numpy(a) for name, a in start.items()}, times)
        return np.stack([frame["vorticity"].numpy() for frame in frames])
