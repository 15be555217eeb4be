"""Trajectories on a finer grid than they were kept on, by their equation.

A frame of means over cells says nothing of what is smaller than a cell. A series of frames does, where what
is small follows from what is large: the equation is solved on the finer grid and corrected at every frame by
what its means lack,

    x⁻ₖ = Φ(xₖ₋₁),      xₖ = x⁻ₖ + I (yₖ − M x⁻ₖ),

with the flow Φ over a frame, the means M over cells and their inverse I (`cells.py`), from x₀ = I y₀. What
was not known at first is forgotten, as fast as small scales follow large ones
(`python benchmarks/resolution.py`). What the solution is between frames is kept, too: no frame tells it.
So that the last frame lies between two others, as those before it do, the solution then goes on to one more.

Source: A. Azouani, E. Olson and E. S. Titi, Continuous data assimilation using general interpolant
observables, J. Nonlinear Sci. 24 (2014) 277.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pdeforecast.cells import means, undone
from pdeforecast.errors import ForecastError
from pdeforecast.generation.samples import frames, one_thread, shared
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.pdes import PDE, PDES, make
from pdeforecast.trajectory import grid_dims, times_of, to_dataset

CELLS = "cells"
"""The attribute of refined trajectories that says how many nodes, along each axis, were a cell."""


def equation_of_means(ds: xr.Dataset) -> PDE | None:
    """The equation that made `ds`, if its frames are the means over cells of that equation's own grid."""
    if ds.attrs.get("equation") not in PDES or "time" not in ds.dims:
        return None
    try:
        pde = make(str(ds.attrs["equation"]), json.loads(ds.attrs["parameters"]))
    except (KeyError, ValueError, TypeError, ForecastError):
        return None
    own = pde.coordinates()
    same = all(
        name in ds.coords and ds[name].shape == axis.shape and np.allclose(ds[name].values, axis.numpy())
        for name, axis in own.items()
    )
    whole = same and all(bool(np.isfinite(ds[name].values).all()) for name in pde.variables)
    return pde if whole and getattr(pde, "coarsen", 1) > 1 else None


def refined(
    ds: xr.Dataset, pde: PDE, jobs: int, places: Sequence[float] = ()
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Each trajectory of `ds` on the grid of the solver, one after another: its frames (T, latitudes,
    longitudes, V), and, if there are places, what it is after each frame at these and at last when the next
    is due, (T·(places + 1), latitudes, longitudes, V).

    Args:
        pde: what `equation_of_means` found.
        jobs: processes at most.
        places: in units of the time from frame to frame, below 1, in rising order.

    Raises:
        DivergedError: if a solution leaves the finite numbers.
    """
    ds = ds if "sample" in ds.dims else ds.expand_dims("sample")
    order = ["sample", "time", *grid_dims(GEOMETRIES[pde.geometry])]
    seen = np.stack([ds[name].transpose(*order).values for name in pde.variables], axis=2)
    one = partial(_trajectory, pde, torch.from_numpy(seen), times_of(ds), places)
    return shared(one, range(len(seen)), jobs)


def refined_dataset(
    ds: xr.Dataset, pde: PDE, values: Sequence[NDArray[np.float32]], places: Sequence[float] = ()
) -> xr.Dataset:
    """The refined trajectories, or what they are after each frame at the `places` and when the next is due,
    as `ds` would hold them."""
    own: Any = pde
    units = {name: pde.units[name] for name in pde.variables}
    attrs = {**ds.attrs, CELLS: own.coarsen}
    axes, times = _on_own_grid(pde).coordinates(), times_of(ds)
    if places:
        times = [t + s * gap for t, gap in zip(times, _gaps(times), strict=True) for s in (*places, 1.0)]
    space = GEOMETRIES[pde.geometry]
    fine = to_dataset(np.stack(values), space, units, axes, times, "time", pde.units.get("time", "1"), attrs)
    return fine.assign_coords(sample=ds["sample"]) if "sample" in ds.coords else fine


def _gaps(times: Sequence[float]) -> list[float]:
    """From each frame to the next; the last is followed like the one before."""
    gaps = [after - before for before, after in pairwise(times)]
    return [*gaps, *gaps[-1:]]


def _on_own_grid(pde: PDE) -> PDE:
    own: Any = pde
    return replace(own, coarsen=1)


def _trajectory(
    pde: PDE, seen: Tensor, times: Sequence[float], places: Sequence[float], index: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    own: Any = pde
    axes, names = _on_own_grid(pde).coordinates(), pde.variables
    path, between = [], []
    with one_thread():
        known = seen[index].double()
        state = undone(known[0], own.coarsen)
        path.append(state)
        for told, gap in zip([*known[1:], None] if places else known[1:], _gaps(times), strict=False):
            stops = [s * gap for s in (*places, 1.0)]
            after = [
                frame.movedim(-1, 0)
                for frame in frames(pde, dict(zip(names, state, strict=True)), stops, axes)
            ]
            if places:
                between += after
            if told is not None:
                state = after[-1] + undone(told - means(after[-1], own.coarsen), own.coarsen)
                path.append(state)
    made = (torch.stack(path), torch.stack(between) if between else state.new_zeros(0, *state.shape))
    whole, inside = (part.movedim(1, -1).float().numpy() for part in made)
    return whole, inside
