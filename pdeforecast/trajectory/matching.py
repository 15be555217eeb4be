"""Two Datasets, made to speak of the same places, times and samples."""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pdeforecast.errors import DataError
from pdeforecast.geometry import Geometry
from pdeforecast.trajectory.checks import check
from pdeforecast.trajectory.layout import (
    SAME_PLACE,
    axes_of,
    geometry_of,
    grid_dims,
    grid_points,
    is_grid,
    loose_points,
    place_dims,
    seen,
)
from pdeforecast.trajectory.tensors import trajectory_values
from pdeforecast.trajectory.units import times_in, unit_of_times

SAME_TIME = 1e-6
"""Two lead times are one when they differ by less, relative to their size beyond 1."""


@dataclass(frozen=True)
class Matched:
    """What a forecast and its truth have in common.

    Attributes:
        forecast: (S, T, M, V), float64.
        truth: the same.
        weights: the measure of each point, (M,).
        variables: the V names.
        lead_times: the T lead times, in the forecast's unit.
        frames: for each of them, the index of its frame in the truth.
        samples: the labels of the samples.
        geometry: of both.
    """

    forecast: Tensor
    truth: Tensor
    weights: Tensor
    variables: tuple[str, ...]
    lead_times: tuple[float, ...]
    frames: tuple[int, ...]
    samples: tuple[int, ...]
    geometry: Geometry


def match(forecast: xr.Dataset, truth: xr.Dataset) -> Matched:
    """Forecast and truth at the places, times and samples that both have.

    A `time` becomes a lead time by taking away the time of the state: the forecast's attribute
    `start_time` if it has one, else the truth's first time. The truth's times are converted to the unit of
    the forecast's.

    Raises:
        DataError: if they lie on two geometries, if they have no variable, place, time or sample in common,
            if their units differ (those of times by more than a factor), or if the forecast is NaN where the
            truth is known.
    """
    geometry = geometry_of(truth)
    said = forecast.attrs.get("geometry", geometry.domain)
    if said != geometry.domain:
        raise DataError(
            f"expected a forecast and its truth on one geometry; came {said} and {geometry.domain}.",
            "Give the truth of this forecast.",
        )
    units = _common_variables(forecast, truth)
    check(truth, geometry, units)
    check(forecast, geometry, units)
    labels, forecast, truth = _common_samples(forecast, truth)
    forecast, truth = _common_places(geometry, forecast, truth)
    leads, mine, theirs = _common_times(forecast, truth)
    known = trajectory_values(truth, geometry, units)[2][:, theirs].double()
    guess = trajectory_values(forecast, geometry, units)[2][:, mine].double()
    if bool((guess.isnan() & ~known.isnan()).any()):
        raise DataError(
            "expected a forecast without gaps; it is NaN where the truth is known.",
            "Forecast again, and compare the files the other way round if you swapped them.",
        )
    if is_grid(truth, geometry):
        weights = geometry.weights(axes_of(truth, geometry)).reshape(-1)
    else:
        weights = torch.full((known.shape[-2],), geometry.volume / known.shape[-2], dtype=torch.float64)
    return Matched(guess, known, weights, tuple(units), leads, tuple(theirs), labels, geometry)


def _common_variables(forecast: xr.Dataset, truth: xr.Dataset) -> dict[str, str]:
    """The evolving variables of both, with the truth's units."""
    moving = [str(name) for name in forecast.data_vars if {"time", "lead_time"} & set(forecast[name].dims)]
    candidates = moving or [str(name) for name in forecast.data_vars]
    common = {
        name: str(truth[name].attrs.get("units", forecast[name].attrs.get("units", "1")))
        for name in candidates
        if name in truth.data_vars and truth[name].dtype.kind == "f" and not name.endswith("_variance")
    }
    if not common:
        raise DataError(
            f"expected a variable in common; the forecast has {', '.join(candidates) or 'none'}, "
            f"the truth {', '.join(map(str, truth.data_vars)) or 'none'}.",
            "Compare files of one equation, or rename: `ds.rename(old='new')`.",
        )
    return common


def _common_samples(
    forecast: xr.Dataset, truth: xr.Dataset
) -> tuple[tuple[int, ...], xr.Dataset, xr.Dataset]:
    """By label where both have labels, each once, else by order."""
    forecast, truth = (ds if "sample" in ds.dims else ds.expand_dims("sample") for ds in (forecast, truth))
    labelled = all("sample" in ds.indexes and ds.indexes["sample"].is_unique for ds in (forecast, truth))
    if labelled:
        labels = np.intersect1d(forecast["sample"].values, truth["sample"].values)
        if len(labels):
            return tuple(labels.tolist()), forecast.sel(sample=labels), truth.sel(sample=labels)
    sizes = [ds.sizes["sample"] for ds in (forecast, truth)]
    if labelled or sizes[0] != sizes[1]:
        raise DataError(
            f"expected the same samples; the forecast has {sizes[0]}, the truth {sizes[1]}, no label shared.",
            "Choose those that were forecast: `truth = truth.isel(sample=[…])`.",
        )
    return tuple(range(sizes[0])), forecast, truth


def _common_places(
    geometry: Geometry, forecast: xr.Dataset, truth: xr.Dataset
) -> tuple[xr.Dataset, xr.Dataset]:
    """Grid with grid axis by axis; otherwise point by point."""
    if is_grid(forecast, geometry) and is_grid(truth, geometry):
        mine, theirs = axes_of(forecast, geometry), axes_of(truth, geometry)
        for name in grid_dims(geometry):
            # All other coordinates are held at one value, so that only this one is compared.
            fixed = {other: axis[len(axis) // 2 :][:1] for other, axis in theirs.items()}
            a, b = (grid_points(geometry, {**fixed, name: axes[name]}) for axes in (mine, theirs))
            i, j = _pairs(geometry, a, b)
            forecast, truth = forecast.isel({name: i}), truth.isel({name: j})
        return forecast, truth
    forecast, truth = _loosened(forecast, geometry), _loosened(truth, geometry)
    a, b = (loose_points(geometry, axes_of(ds, geometry)) for ds in (forecast, truth))
    i, j = _pairs(geometry, a, b)
    return forecast.isel(point=i), truth.isel(point=j)


def _loosened(ds: xr.Dataset, geometry: Geometry) -> xr.Dataset:
    """The same field at loose points."""
    dims = place_dims(ds, geometry)
    if len(dims) > 1:
        return ds.stack(point=dims, create_index=False)
    return ds.rename({dims[0]: "point"})


def _pairs(geometry: Geometry, a: Tensor, b: Tensor) -> tuple[list[int], list[int]]:
    """Indices with a[i] and b[j] one place, in the order of b."""
    a, b = seen(geometry, a), seen(geometry, b)
    i, j = [], []
    for start in range(0, len(b), 1024):
        gap, nearest = torch.cdist(b[start : start + 1024], a, p=float("inf")).min(dim=1)
        for row in torch.nonzero(gap < 10 * SAME_PLACE).flatten().tolist():
            i.append(int(nearest[row]))
            j.append(start + row)
    if not j:
        raise DataError(
            f"expected places in common; none of the truth's {len(b)} is among the forecast's {len(a)}.",
            "Forecast on the truth's own grid: `pdeforecast forecast … --like TRUTH.nc`.",
        )
    return i, j


def _common_times(forecast: xr.Dataset, truth: xr.Dataset) -> tuple[tuple[float, ...], list[int], list[int]]:
    """The lead times in common, and their indices in the forecast and in the truth."""
    mine, theirs = _lead_times(forecast, forecast), _lead_times(truth, forecast)
    gaps = np.abs(mine[:, None] - theirs[None, :])
    nearest = gaps.argmin(axis=1)
    chosen = [i for i in range(len(mine)) if gaps[i, nearest[i]] <= SAME_TIME * max(1.0, abs(mine[i]))]
    if not chosen:
        raise DataError(
            f"expected times in common; the forecast has lead times {_span(mine)}, "
            f"the truth {_span(theirs)}.",
            f"Forecast at the truth's: `--lead-time {','.join(f'{t:g}' for t in theirs[:8])}`.",
        )
    return tuple(float(mine[i]) for i in chosen), chosen, [int(nearest[i]) for i in chosen]


def _lead_times(ds: xr.Dataset, forecast: xr.Dataset) -> NDArray[np.float64]:
    """The lead times of `ds` in the unit of the forecast's."""
    times = np.array(times_in(ds, unit_of_times(forecast, unit_of_times(ds, "1"))))
    if "time" not in ds.dims:
        return times
    return times - float(forecast.attrs.get("start_time", times[0]))


def _span(times: NDArray[np.float64]) -> str:
    return f"{times.min():g} … {times.max():g} ({len(times)})"
