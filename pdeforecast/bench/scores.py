"""Errors of a forecast against the truth, as rows of a table."""

from collections.abc import Callable

import xarray as xr

from pdeforecast.bench.table import Row
from pdeforecast.errors import ForecastError
from pdeforecast.metrics import score

TRAIN_FRAMES = 10
"""The frames of the window t_in, of every experiment."""


def scored(forecast: Callable[[], xr.Dataset], truth: xr.Dataset) -> list[Row]:
    """A row of errors for each variable; if there is no forecast, one that says why."""
    try:
        return errors_of(forecast(), truth)
    except ForecastError as error:
        return unforeseen(truth, error)


def unforeseen(truth: xr.Dataset, error: ForecastError) -> list[Row]:
    """For each variable, why there is no number."""
    return [{"variable": name, "note": error.cause} for name in evolving(truth)]


def errors_of(forecast: xr.Dataset, truth: xr.Dataset) -> list[Row]:
    """For each variable, the errors of both windows and at every lead time.

    `paper_…` are plain means of squares over all variables, samples and points, with frame 0; `…_l2` are
    weighted relative errors without it.
    """
    found = score(forecast, truth, TRAIN_FRAMES)
    rows = []
    for name, own in found["variables"].items():
        row: Row = {"variable": name}
        for window in ("t_in", "t_out"):
            row |= _known(f"paper_{window}", found["mse"][window])
            row |= _known(f"{window}_mse", own[window]["mse"])
            row |= _known(f"{window}_l2", own[window]["relative_l2"])
            row |= _known(f"{window}_l2_median", own[window]["relative_l2_median"])
        for metric in ("mse", "relative_l2"):
            short = metric.removeprefix("relative_")
            row |= _known(f"lead_0_{short}", own["reconstruction"][metric])
            row[f"{short}_by_lead"] = tuple(lead[metric] for lead in own["per_lead"])
        row["lead_times"] = tuple(lead["lead_time"] for lead in own["per_lead"])
        rows.append(row)
    return rows


def _known(name: str, value: float | None) -> Row:
    return {} if value is None else {name: value}


def evolving(truth: xr.Dataset) -> dict[str, str]:
    """The fields that change in time, and their units."""
    return {
        str(name): str(array.attrs.get("units", "1"))
        for name, array in truth.data_vars.items()
        if {"time", "lead_time"} & set(array.dims) and array.dtype.kind == "f"
    }
