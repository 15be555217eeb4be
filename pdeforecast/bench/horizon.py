"""`bench horizon`: rollouts to five times the time that a model was trained on, and times between frames.

At every frame that a contestant was trained on and half-way between these, up to five trained horizons after
the state: the error, and beside the truth's

    rms      the root mean square: 1 is alive, 0 asleep, beyond 2 or not a number has blown up
    mean     in units of the truth's rms; many equations conserve it
    energy   the mean square (of the curl of a flow twice the enstrophy), over the truth's

and, within the trained horizon, the mean square error half-way between frames over that of the frames
beside it: 1 where a model is continuous in time. A forecast that leaves the finite numbers is asked for again
up to an earlier multiple of the horizon; what it never reaches has no number.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib import rc_context
from torch import Tensor

from pdeforecast.bench.methods import Method
from pdeforecast.bench.pictures import BESIDE, STYLE, canvas, line, picture, save
from pdeforecast.bench.scores import unforeseen
from pdeforecast.bench.study import Study, leads_of, state_of
from pdeforecast.bench.table import Case, Row, curve, groups, markdown, over_seeds
from pdeforecast.errors import DivergedError, ForecastError
from pdeforecast.metrics import relative_l2
from pdeforecast.pdes import PDE
from pdeforecast.trajectory import SAME_TIME, match

MULTIPLES = (1, 2, 3, 4, 5)
KEYS = ("equation", "variable", "method")
NUMBERS = (
    *(f"l2_at_{m}x" for m in MULTIPLES),
    "rms_at_5x",
    "mean_drift",
    "energy_at_5x",
    "between_over_frames",
)


def cases(study: Study) -> list[Case]:
    """One for every method and seed."""
    longest = study.horizon()

    def measure(method: Method, seed: int) -> list[Row]:
        truth = study.truth(seed, dense(study.pde(), longest, study.gap()))
        try:
            return rows_of(reached(method, truth, longest), truth, longest)
        except ForecastError as error:
            return unforeseen(truth, error)

    return study.cases(measure, trained=longest)


def dense(pde: PDE, longest: float, gap: float) -> PDE:
    """The equation with frames `gap` apart, and times half-way between them, to five times a horizon."""
    own: Any = pde
    half = gap / 2
    return replace(own, interval=half, frames=1 + math.floor(MULTIPLES[-1] * longest / half + SAME_TIME))


def reached(method: Method, truth: xr.Dataset, longest: float) -> xr.Dataset:
    """The forecast to the largest multiple of the horizon at which it is finite.

    Raises:
        DivergedError: if there is none.
    """
    state, leads = state_of(truth), leads_of(truth)
    for multiple in reversed(MULTIPLES[1:]):
        try:
            near = [lead for lead in leads if lead <= multiple * longest * (1 + SAME_TIME)]
            return method.forecast(state, near, like=state)
        except DivergedError:
            continue
    return method.forecast(state, [lead for lead in leads if lead <= longest * (1 + SAME_TIME)], like=state)


def rows_of(forecast: xr.Dataset, truth: xr.Dataset, longest: float) -> list[Row]:
    """A row for every variable."""
    pair = match(forecast, truth)
    order = np.argsort(pair.lead_times)
    leads, all_leads = np.array(pair.lead_times)[order], leads_of(truth)
    made = []
    for v, name in enumerate(pair.variables):
        f, t = (u[:, order, :, v] for u in (pair.forecast, pair.truth))
        share = pair.weights / pair.weights.sum()
        energy, size = ((share * u.square()).sum(-1) for u in (f, t))
        drift = ((share * f).sum(-1) - (share * t).sum(-1)).abs() / size.sqrt()
        squared = (share * (f - t).square()).sum(-1).mean(0)
        curves = {
            "l2_by_lead": relative_l2(f, t, pair.weights).mean(0),
            "rms_by_lead": (energy / size).sqrt().mean(0),
            "mean_by_lead": drift.mean(0),
            "energy_by_lead": (energy.mean(0) / size.mean(0)),
        }
        row: Row = {"variable": name, "trained": longest, "lead_times": tuple(all_leads)}
        for label, values in curves.items():
            missing = [math.nan] * (len(all_leads) - len(leads))
            row[label] = (*values.tolist(), *missing)
        row |= _summary(row, all_leads, longest)
        row["between_over_frames"] = between(leads.tolist(), squared, longest)
        made.append(row)
    return made


def _summary(row: Row, leads: Sequence[float], longest: float) -> Row:
    """Numbers at multiples of the horizon."""
    at = [int(np.abs(np.array(leads) - multiple * longest).argmin()) for multiple in MULTIPLES]
    numbers: Row = {f"l2_at_{m}x": curve(row, "l2_by_lead")[i] for m, i in zip(MULTIPLES, at, strict=True)}
    numbers["rms_at_5x"] = curve(row, "rms_by_lead")[at[-1]]
    numbers["energy_at_5x"] = curve(row, "energy_by_lead")[at[-1]]
    numbers["mean_drift"] = float(np.max(curve(row, "mean_by_lead")))
    return numbers


def between(leads: Sequence[float], squared: Tensor, longest: float) -> float:
    """The mean square error half-way between frames, over the mean of the frames beside; without lead 0.

    Args:
        leads: alternately frames and times between them.
        squared: the mean square error at each.
    """
    inside = [i for i in range(3, len(leads) - 1, 2) if leads[i + 1] <= longest * (1 + SAME_TIME)]
    if not inside:
        return math.nan
    at = torch.tensor(inside)
    return float(squared[at].sum() / (0.5 * (squared[at - 1] + squared[at + 1])).sum())


def page(rows: Sequence[Row]) -> str:
    """The table, mean and spread over seeds."""
    return markdown(over_seeds(rows, KEYS, NUMBERS), [*KEYS, "seeds", *NUMBERS])


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Growth of the error, and of the energy over the truth's, a picture for each equation and variable."""
    made = []
    for group in groups([row for row in rows if curve(row, "lead_times")], ("equation", "variable")):
        first = group[0]
        with rc_context(STYLE):
            figure, panels = canvas(2)
            for axes, name in zip(panels, ("l2_by_lead", "energy_by_lead"), strict=True):
                for i, own in enumerate(groups(group, ("method",))):
                    same = [row for row in own if curve(row, "lead_times") == curve(own[0], "lead_times")]
                    values = np.array([curve(row, name) for row in same])
                    line(axes, np.array(curve(own[0], "lead_times")), values, str(own[0]["method"]), i)
                    axes.lines[-1].set_marker("")
                axes.axvline(float(str(first["trained"])), color="0.4", linewidth=0.8, linestyle="--")
                axes.set_xlabel("lead time")
                axes.set_yscale("log", nonpositive="mask")
                axes.grid(alpha=0.25, linewidth=0.5)
            panels[0].set_ylabel("relative $L_2$ error")
            panels[1].set_ylabel("mean square of the forecast / of the truth")
            panels[0].set_title(
                f"{first['equation']}, {first['variable']}; trained to the dashes", loc="left"
            )
            panels[1].legend(**BESIDE)
        path = picture(folder, "horizon", first["equation"], first["variable"])
        save(figure, path)
        made.append(path)
    return made
