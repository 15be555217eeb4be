"""Where a model's latents stand, over the field: places, directions of their frames, trails if they move."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from pdeforecast.errors import DataError
from pdeforecast.forecaster import Forecaster, static_samples
from pdeforecast.plot.scene import Array
from pdeforecast.plot.views import View
from pdeforecast.trajectory import (
    SAME_TIME,
    geometry_of,
    samples,
    time_factor,
    time_unit,
    times_in,
    unit_of_times,
)

_ARROW = 0.4
"""The length of an arrow, in spacings of the lattice."""
_DEPTH = 0.6
"""How far from a shell or a cut a pose is still shown on it, in spacings of the lattice."""
_TRAIL = 24
"""At least so many places make a trail."""
_FEW = 64
"""So many poses are drawn in full; of more, each the smaller, so that the field stays visible."""


@dataclass(frozen=True)
class Poses:
    """The poses of one forecast.

    Attributes:
        leads: (T,), ascending.
        places: (T, N, point_dim).
        tips: the same, where the arrows end; None if the poses have no frames.
        moving: whether they move.
        spacing: of the latents.
    """

    leads: Array
    places: Array
    tips: Array | None
    moving: bool
    spacing: float


@torch.no_grad()
def poses_of(
    model: Forecaster, ds: xr.Dataset, truth: xr.Dataset | None, leads: Sequence[float], sample: int
) -> Poses:
    """The poses at some lead times, and between them if they move.

    Poses that a state moves are found by encoding it again: the truth at lead time 0, or, without a
    truth, the forecast's own reconstruction of it.

    Raises:
        DataError: if the model is of another space, or poses move and there is no state to encode.
    """
    geometry = geometry_of(ds if truth is None else truth)
    if model.geometry.domain != geometry.domain:
        raise DataError(
            f"expected a model of the {geometry.domain}; this one forecasts on the {model.geometry.domain}.",
            "Give `--model` the model that made the forecast.",
        )
    moving = model.config.moving
    if moving or getattr(model.config.field, "fit_poses", False):
        times = sorted({*np.linspace(0, max(leads), _TRAIL).tolist(), *leads} if moving else {*leads})
        own = model.config.time_unit
        by = time_factor(ds, own)
        path = _rolled(model, _state(model, ds, truth, sample), [by * time for time in times])
    else:
        times, path = sorted(set(leads)), [model.lattice()] * len(set(leads))
    poses = torch.stack(path).double()
    spacing = model.geometry.spacing(model.config.field.latents)
    ahead = poses.new_zeros(model.geometry.velocity_dim)
    ahead[0] = _ARROW * spacing
    framed = model.geometry.velocity_dim > model.geometry.dim
    tips = model.geometry.place(model.geometry.exp(poses, ahead)) if framed else None
    places = np.asarray(model.geometry.place(poses).numpy(force=True))
    ends = None if tips is None else np.asarray(tips.numpy(force=True))
    return Poses(np.array(times), places, ends, moving, spacing)


def _state(model: Forecaster, ds: xr.Dataset, truth: xr.Dataset | None, sample: int) -> xr.Dataset:
    """One sample at lead time 0."""
    known = ds if truth is None else truth
    time = next((name for name in ("time", "lead_time") if name in known.dims), None)
    if time is not None:
        there = times_in(known, time_unit(ds, unit_of_times(known, "1")))
        start = float(ds.attrs.get("start_time", there[0])) if time == "time" else 0.0
        gaps = np.abs(np.array(there) - start)
        if gaps.min() > SAME_TIME * max(1.0, abs(start)):
            raise DataError(
                f"expected the state at {time} {start:g}, from which poses set out; it is not there.",
                "Give `--truth` a file with it, or forecast lead time 0 as well.",
            )
        known = known.isel({time: int(gaps.argmin())})
    missing = [name for name in model.config.statics if name not in known.data_vars]
    if missing:
        raise DataError(
            f"expected {', '.join(missing)}, which moves the poses; this Dataset does not hold it.",
            "Give the file that does: `--truth TRUTH.nc`.",
        )
    if "sample" not in known.dims:
        return known
    label = ds["sample"].values[sample] if {"sample"} <= set(ds.coords) & set(known.coords) else None
    return known.isel(sample=[sample]) if label is None else known.sel(sample=[label])


def _rolled(model: Forecaster, state: xr.Dataset, times: Sequence[float]) -> list[torch.Tensor]:
    seen = samples(state, model.geometry, model.config.variables)
    latents = model.encode(seen.points, seen.values, seen.variance, seen.measure)
    if model.config.statics:
        held = static_samples(state, model.geometry, model.config.statics)
        around = model.surroundings(held.points, held.values, held.measure)
    else:
        around = model.surroundings(torch.empty(0), torch.empty(0))
    path = model.rollout(latents, around, times)
    return [step.poses if step.shared else step.poses[0] for step in path]


def draw_poses(axes: Axes, view: View, poses: Poses, lead: float) -> list[Artist]:
    """Draws the poses at a lead time, with the way that they have come; returns what it drew."""
    at = int(np.abs(poses.leads - lead).argmin())
    depth = _DEPTH * poses.spacing
    xy = view.project(poses.places, depth)
    share = _share(xy)
    drawn: list[Artist] = []
    if poses.moving:
        look: dict[str, Any] = {"color": "0.1", "linewidth": 0.5 * share, "alpha": 0.7, "zorder": 6}
        drawn += axes.plot(*_unbroken(xy[: at + 1], view), **look)
    if poses.tips is not None:
        drawn.append(_arrows(axes, view, xy[at], view.project(poses.tips[at], 2 * depth), share))
    x, y = xy[at].T
    drawn.append(
        axes.scatter(x, y, 7 * share**2, "white", linewidths=0.6 * share, edgecolors="0.1", zorder=8)
    )
    return drawn


def _share(xy: Array) -> float:
    """The size of a mark where so many poses (T, N, 2) are seen, in that of one among few."""
    seen = np.isfinite(xy).all(-1).sum(-1).max()
    return float(np.sqrt(_FEW / max(_FEW, seen)))


def _arrows(axes: Axes, view: View, start: Array, end: Array, share: float) -> Artist:
    """Arrows (N, 2) to (N, 2), where both ends are seen on one side of a seam."""
    step = end - start
    seen = np.isfinite(step).all(-1) & (np.abs(np.nan_to_num(step)).max(-1) < 0.25 * _size(view))
    (x, y), (u, v) = start[seen].T, step[seen].T
    shape: Any = {"width": 0.008 * share, "headwidth": 4, "headlength": 4, "headaxislength": 3.5}
    return axes.quiver(x, y, u, v, angles="xy", scale_units="xy", scale=1, color="0.1", zorder=7, **shape)


def _unbroken(xy: Array, view: View) -> tuple[Array, Array]:
    """Trails (T, N, 2) as columns x and y, cut where they leave the panel and come back across it."""
    x, y = np.moveaxis(xy, -1, 0).copy()
    jumps = np.abs(np.diff(xy, axis=0)).max(-1) > 0.4 * _size(view)
    x[1:][jumps] = np.nan
    return x, y


def _size(view: View) -> float:
    left, right, bottom, top = view.extent
    return min(right - left, top - bottom)
