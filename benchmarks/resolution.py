"""What means over cells can tell of the field between: bounds for zero-shot super-resolution on the sphere.

    python benchmarks/resolution.py data/shallow-water/test_fine.nc

Of the truth on a fine grid the means over 2 × 2 cells are taken, as a coarse data set holds them, and from
these the fine field is sought again, in ways that make no error but this one: from every frame alone, or,
by its equation, from the series of frames up to it (`generation/refinement.py`). Beside them a model that was
trained on other trajectories of such means, asked for the fine grid at lead 0.

    harmonics        the truth itself, without the harmonics that the coarse grid does not resolve
    spectral         the spectral interpolant of the means
    undone           the same by Fourier series along both axes, each wave divided by what means leave of it
    series           the equation, solved on the fine grid and given at every frame what its means lack
    model            the fine field that it tells from every frame alone
    fitted           the best linear map for each zonal wave number, *learned from fine fields* of the first
                     half of the samples: no zero-shot method knows it

Relative L2 over leads in the training window, without the first, on the second half of the samples. Last
comes the ratio of two errors, that on the fine grid to that of the means, of two forecasts that lose nothing
between the cells on their way: one is off by no more than a turn of half a degree about the axis, an error of
place alone; the other is the equation's own solution on the fine grid, from what the model forecasts for the
second frame.
"""

import argparse
import os
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pdeforecast import load
from pdeforecast.bench.harmonics import harmonics
from pdeforecast.bench.interpolation import at_nodes
from pdeforecast.bench.study import equation_of
from pdeforecast.cells import means, undone
from pdeforecast.generation.provenance import stream_of
from pdeforecast.generation.refinement import refined
from pdeforecast.generation.samples import dataset_of
from pdeforecast.generation.solving import solve_from
from pdeforecast.geometry import GEOMETRIES, Geometry
from pdeforecast.run import fields_of
from pdeforecast.trajectory import axes_of, geometry_of, open_dataset

CELLS = 2
"""Nodes of the fine grid, along each axis, that are a cell of the coarse one."""
_TURN = 0.5
"""Degrees, of the forecast that is right but for its place."""
_RIDGE = 1e-4
"""In units of the mean variance of a wave number."""


def main() -> None:
    """Print a row per variable."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("fine", metavar="FINE.nc")
    parser.add_argument("--frames", type=int, default=10, help="of the training window (10)")
    parser.add_argument("--model", default="shallow-water", help="trained on means (shallow-water)")
    options = parser.parse_args()
    whole = open_dataset(options.fine).isel(time=slice(options.frames))
    ds = whole.isel(time=slice(1, None))
    space = GEOMETRIES[geometry_of(ds).name]
    axes = axes_of(ds, space)
    names = list(fields_of(ds)[0])
    order = ["sample", "time", *axes]
    fields = [torch.tensor(ds[name].transpose(*order).values).double() for name in names]
    truth = torch.stack(fields, dim=2)
    coarse_axes = {name: nodes.unflatten(0, (-1, 2)).mean(-1) for name, nodes in axes.items()}
    half = len(truth) // 2
    seen, known = truth[half:], truth[:half]
    pde, coarse = as_means(whole.isel(sample=slice(half, None)))
    found = {
        "harmonics": band_limited(seen, space, axes, coarse_axes),
        "spectral": at_nodes(means(seen, CELLS), space, coarse_axes, axes),
        "undone": undone(means(seen, CELLS), CELLS),
        "series": series(coarse, pde)[:, 1:],
        "model": at_once(options.model, coarse.isel(time=slice(1, None)), ds, names),
        "fitted": fitted(known, seen),
    }
    weights = space.weights(axes)
    print("variable".ljust(14), *(name.rjust(10) for name in found))
    for v, name in enumerate(names):
        errors = [relative_l2(field[:, :, v], seen[:, :, v], weights) for field in found.values()]
        print(name.ljust(14), *(f"{error:.3g}".rjust(10) for error in errors))
    coarse_weights = space.weights(coarse_axes)
    ideal = {
        f"turned by {_TURN:g}°": (turned_by(_TURN, seen), seen),
        "solved": (solved(options.model, coarse, whole.isel(sample=slice(half, None)), pde), seen[:, 1:]),
    }
    for how, (forecast, true) in ideal.items():
        print(f"\n{how}: error on the fine grid, of its means, ratio")
        for v, name in enumerate(names):
            there, here = forecast[:, :, v], true[:, :, v]
            fine = relative_l2(there, here, weights)
            held = relative_l2(means(there, CELLS), means(here, CELLS), coarse_weights)
            print(name.ljust(14), *(f"{number:.3g}".rjust(10) for number in (fine, held, fine / held)))


def turned_by(degrees: float, fields: Tensor) -> Tensor:
    """Fields (…, longitudes) turned eastward about the axis."""
    waves = torch.arange(fields.shape[-1] // 2 + 1).to(fields)
    phases = torch.polar(torch.ones_like(waves), -torch.deg2rad(degrees * waves))
    return torch.fft.irfft(torch.fft.rfft(fields) * phases, n=fields.shape[-1])


def as_means(fine: xr.Dataset) -> tuple[Any, xr.Dataset]:
    """The equation that keeps means over cells, and what it would have kept of trajectories `fine`."""
    own: Any = equation_of(fine)
    pde = replace(own, coarsen=CELLS, frames=fine.sizes["time"])
    order = ["sample", "time", *axes_of(fine, geometry_of(fine))]
    fields = [torch.tensor(fine[name].transpose(*order).values).double() for name in pde.variables]
    values = means(torch.stack(fields, dim=2), CELLS).movedim(2, -1).float().numpy()
    return pde, dataset_of(pde, range(len(values)), values, {}, stream_of(pde, 0, "test"))


def series(coarse: xr.Dataset, pde: Any) -> Tensor:
    """Trajectories on the fine grid, from the means over cells alone."""
    found = np.stack([frames for frames, _ in refined(coarse, pde, os.cpu_count() or 1)])
    return torch.from_numpy(found).double().movedim(-1, 2)


def at_once(name: str, coarse: xr.Dataset, fine: xr.Dataset, variables: list[str]) -> Tensor:
    """What a model tells of the fine grid, from every frame alone."""
    model, frames = load(name), []
    for time in range(coarse.sizes["time"]):
        state = coarse.isel(time=time)
        told = model.forecast(state, [0.0], like=fine.isel(sample=0, time=0)).isel(lead_time=0)
        frames.append(torch.stack([torch.tensor(told[name].values).double() for name in variables], dim=1))
    return torch.stack(frames, dim=1)


def solved(name: str, coarse: xr.Dataset, fine: xr.Dataset, pde: Any) -> Tensor:
    """The equation's own solution at the frames from the third on, from what a model forecasts for the second
    on the fine grid, given the first one's means."""
    times = fine.time.values
    second = load(name).forecast(coarse.isel(time=0), [float(times[1] - times[0])], like=fine.isel(time=0))
    path = solve_from(replace(pde, coarsen=1), second, [float(time - times[1]) for time in times[2:]])
    order = ["sample", "lead_time", *axes_of(fine, geometry_of(fine))]
    fields = [torch.tensor(path[name].transpose(*order).values).double() for name in pde.variables]
    return torch.stack(fields, dim=2)


def relative_l2(found: Tensor, truth: Tensor, weights: Tensor) -> float:
    """Mean over samples and times of ‖found − truth‖ / ‖truth‖."""
    error, size = ((weights * x.square()).sum((-2, -1)) for x in (found - truth, truth))
    return float((error / size).sqrt().mean())


def band_limited(fine: Tensor, space: Geometry, axes: dict[str, Tensor], coarse: dict[str, Tensor]) -> Tensor:
    """The truth without what lies above the band of the coarse grid."""
    basis = harmonics(space, {name: len(nodes) for name, nodes in coarse.items()})
    return basis.synthesis(basis.analysis(fine, axes), axes)


def fitted(known: Tensor, seen: Tensor) -> Tensor:
    """Zonal wave numbers of the fine grid, each by the best linear map from that wave of the means."""
    target = torch.fft.rfft(known, norm="forward")
    given, asked = (torch.fft.rfft(means(x, CELLS), norm="forward").flatten(2, 3) for x in (known, seen))
    spectrum = asked.new_zeros(*seen.shape[:-1], target.shape[-1])
    for m in range(given.shape[-1]):
        a, b = given[..., m].flatten(0, 1), target[..., m].flatten(2, 3).flatten(0, 1)
        scale = a.abs().square().mean(0).sqrt().clamp_min(1e-30)
        a = a / scale
        gram = a.mH @ a + _RIDGE * len(a) * torch.eye(a.shape[1])
        solution = torch.linalg.solve(gram, a.mH @ b)
        spectrum[..., m] = ((asked[..., m] / scale) @ solution).unflatten(-1, spectrum.shape[2:4])
    return torch.fft.irfft(spectrum, n=seen.shape[-1], norm="forward")


if __name__ == "__main__":
    main()
