"""What misfit is usual: measured on states from the distribution of the training data.

At each of several shares of the points, drawn at random, states are moved by a random element of the group
and encoded. The largest misfits E are taken to follow a power law, P(E) ∝ E^(−1/γ), with Hill's estimate of
γ, the mean of the logarithms of k of them above the least (Ann. Statist. 3, 1163, 1975), and its standard
error γ/√k beside it, since few states leave it uncertain. The threshold is the quantile of that, or the
largest misfit that was seen, where that is larger. First frames, from which forecasts mostly start, may be
the hardest to encode: where they are many, they and later ones are judged apart, and the larger threshold
holds.
"""

import math
from dataclasses import asdict

import torch
import xarray as xr
from torch import Tensor

from pdeforecast.errors import DataError
from pdeforecast.forecaster import Forecaster
from pdeforecast.training import Trajectories
from pdeforecast.trajectory import measure, trajectory_values
from pdeforecast.trust import CARD, Familiarity

FALSE_ALARMS = 1e-3
"""The share of familiar states that are called unlike the training data."""
_PATTERNS = {1.0: 2, 0.3: 2, 0.1: 8, 0.05: 8, 0.02: 8, 0.01: 8}
"""Shares of the points, and how many choices of points and motions of the world: states are divided among
them. The fewer points, the more the misfit depends on where they lie, and the less an encoding costs."""
_STATES = 1024
"""The most states that are encoded."""
_TAIL = 0.05
"""The share of states, those of the largest misfit, from which the tail is learned."""


def calibrate(model: Forecaster, ds: xr.Dataset, source: str) -> Familiarity:
    """Learns from the states of `ds` which misfit is usual, and writes it into the model's card.

    Args:
        ds: states or trajectories from the distribution of the training data, best such that were not
            trained on.
        source: what they are, in words, for the card.

    Raises:
        DataError: if they are not what the model expects, or too few.
    """
    if not {"time", "lead_time"} & set(ds.dims):
        ds = ds.expand_dims(time=[0.0], axis=1 if "sample" in ds.dims else 0)
    times, points, values = trajectory_values(ds, model.geometry, model.config.variables)
    none, measured = values.new_zeros(1, 0, 0), measure(ds, model.geometry)
    data = Trajectories(tuple(times), points, measured, values, points[:0], measured[:0], none)
    found = usual(model, data, source)
    model.card[CARD] = asdict(found)
    return found


@torch.no_grad()
def usual(model: Forecaster, data: Trajectories, source: str) -> Familiarity:
    """The `Familiarity` of a model with trajectories from the distribution of its training data.

    Raises:
        DataError: if there are fewer than two states.
    """
    draw = torch.Generator().manual_seed(0)
    states, first = _states(data, draw)
    if len(states) < 2:
        raise DataError("expected several states to calibrate on; came one.", "Give a file of more states.")
    limits: dict[int, float] = {}
    for share, patterns in sorted(_PATTERNS.items()):
        size = max(1, round(share * len(data.points)))
        patterns = min(patterns, len(states))
        scores, counts, early = [], [], []
        for part, begins in zip(states.tensor_split(patterns), first.tensor_split(patterns), strict=True):
            keep = torch.randperm(len(data.points), generator=draw)[:size].sort().values
            motion = model.geometry.random_motion(1, draw)[0]
            points = model.geometry.act(motion, data.points[keep])
            values = part[:, keep].to(model.mean.device)
            score, count = model.examined(points, values, None, data.measure[keep])[1]
            early.append(begins[(count > 0).cpu()])
            scores.append(score[count > 0])
            counts.append(count[count > 0].double())
        found = torch.cat(scores).double().cpu()
        begins = torch.cat(early)
        apart = [found[begins], found[~begins]]
        groups = apart if min(map(len, apart)) >= 1 / _TAIL else [found]
        if len(found) > 1:
            limits[round(float(torch.cat(counts).mean()))] = max(map(_limit, groups))
    return Familiarity([*limits], [*limits.values()], FALSE_ALARMS, len(states), source)


def _states(data: Trajectories, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """States (n, M, V), half of them first frames if there are so many, and which of them are, (n,)."""
    samples, frames = data.values.shape[:2]
    first = torch.randperm(samples, generator=draw)[: _STATES // 2] * frames
    order = torch.randperm(samples * frames, generator=draw)
    rest = order[~torch.isin(order, first)][: _STATES - len(first)]
    chosen = torch.cat([first, rest])
    chosen = chosen[torch.randperm(len(chosen), generator=draw)]
    return data.values[chosen // frames, chosen % frames], chosen % frames == 0


def _limit(misfit: Tensor) -> float:
    """The misfit that a share `FALSE_ALARMS` of states exceeds, by the power law of the largest of these."""
    largest = misfit.clamp_min(1e-30).sort(descending=True).values
    count = max(1, round(_TAIL * len(largest)))
    start = largest[min(count, len(largest) - 1)]
    power = float((largest[:count] / start).log().mean())
    power *= 1 + 1 / math.sqrt(count)
    fitted = float(start) * (count / len(largest) / FALSE_ALARMS) ** power
    return max(fitted, float(largest[0]))
