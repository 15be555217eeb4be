"""What a forecast is asked for: when, where, and from what time on."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pdeforecast.errors import UsageError
from pdeforecast.geometry import Geometry
from pdeforecast.trajectory.checks import check
from pdeforecast.trajectory.layout import axes_of, default_axes, is_grid
from pdeforecast.trajectory.units import times_in


def lead_times(asked: Iterable[float] | float) -> list[float]:
    """One or several lead times as plain numbers.

    Raises:
        UsageError: unless there are some, all finite numbers ≥ 0.
    """
    plain: Any = asked
    if isinstance(asked, Iterable) and not isinstance(asked, str) and not hasattr(asked, "dtype"):
        plain = list(asked)
    try:
        given = np.atleast_1d(np.asarray(plain))
    except ValueError:  # lists of several lengths
        given = np.empty((0, 0))
    if given.ndim > 1 or given.dtype.kind not in "fiu":
        raise UsageError(
            f"expected numbers as lead times; came {type(asked).__name__} of {given.ndim}-d {given.dtype}.",
            "Give them in the time unit of the state, such as `lead_time=[0.5, 1.0]`.",
        )
    times = [float(t) for t in given]
    if not times or any(not 0 <= t < float("inf") for t in times):
        raise UsageError(
            f"expected one or more finite lead times ≥ 0; came {times}.",
            "Type `--lead-time 0:19:1`, or a comma list such as `0.5,1,7.3`.",
        )
    return times


def target(
    state: xr.Dataset, geometry: Geometry, grid: Mapping[str, int] | None, like: xr.Dataset | None
) -> tuple[dict[str, Tensor], bool]:
    """The axes of the answer, and whether they span a grid: those of `like` or of default axes of the sizes
    `grid`, by default those of `state`; in the geometry's units.

    Raises:
        UsageError: if both `grid` and `like` are given, or a size means nothing.
        DataError: if `like` has no place in the geometry.
    """
    if grid is not None and like is not None:
        raise UsageError("expected `grid` or `like`; came both.", "Leave one of them out.")
    if grid is not None:
        return {name: torch.as_tensor(axis) for name, axis in default_axes(geometry, grid).items()}, True
    if like is not None:
        check(like, geometry, {})
    chosen = state if like is None else like
    return dict(axes_of(chosen, geometry)), is_grid(chosen, geometry)


def start_time(state: xr.Dataset, unit: str) -> dict[str, float]:
    """The time of a state in `unit`, as the attribute that `match` reads; none if it has no time."""
    time = state.coords.get("time")
    if time is None or time.dims not in ((), ("time",)) or time.dtype.kind not in "fium":
        return {}
    alone = xr.Dataset(coords={"time": ("time", np.atleast_1d(time.values), time.attrs)})
    return {"start_time": times_in(alone, unit)[0]}
