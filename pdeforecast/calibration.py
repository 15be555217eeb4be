"""What is usual: measured on states from the distribution of the training data.

At each of several shares of the points, states are moved by a random element of the group, observed at
points that are drawn at random or that lie together, as those of a swath do, and encoded. The largest misfits
E are taken to follow a power law, P(E) ∝ E^(−1/γ), with Hill's estimate of γ, the mean of the logarithms of k
of them above the least (Ann. Statist. 3, 1163, 1975), and its standard error γ/√k beside it, since few states
leave it uncertain. The limit is the quantile of that, or the largest misfit that was seen, where that is
larger. First frames, from which forecasts mostly start, may be the hardest to encode: where they are many,
they and later ones are judged apart, and the larger limit holds. Departures are treated likewise, and
variations by their inverses; half of the false alarms are the misfit's, and theirs the other half.
"""

import copy
import math
from dataclasses import asdict
from typing import cast

import torch
import xarray as xr
from torch import Tensor

from pdeforecast.errors import DataError
from pdeforecast.familiarity import CARD, LEAST, Familiarity, Fit, Limits
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import Geometry
from pdeforecast.kernel_dynamics import KernelDynamics
from pdeforecast.training import Trajectories
from pdeforecast.trajectory import Samples, measure, trajectory_values

FALSE_ALARMS = 1e-3
"""The share of familiar states that are called unlike the training data."""
_SCATTERED = {1.0: 2, 0.3: 2, 0.1: 8, 0.05: 8, 0.02: 8, 0.01: 8}
"""Shares of the points, at random, and how many choices of points and motions of the world: states are
divided among them. The fewer points, the more the misfit depends on where they lie, and the less an encoding
costs."""
_GATHERED = {0.5: 8, 0.2: 16, 0.05: 32, 0.02: 32}
"""The same for points that lie together: more choices, since places differ from one another."""
_STATES = 1024
"""The most states that are encoded."""
_COSTLY_STATES = 48
"""The same where each encoding takes seconds: latents are many, or the field is not linear in them."""
_SLACK = 1.1
"""By which departures and variations may go beyond their limits: these are narrow where all states are much
alike, and other grids see a little more of them, or less."""
_TAIL = 0.05
"""The share of states, those of the largest scores, from which the tail is learned."""


def calibrate(model: Forecaster, ds: xr.Dataset, source: str) -> Familiarity:
    """Learns from the states of `ds` what is usual, and writes it into the model's card.

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
    weights, none = measure(ds, model.geometry), values.new_zeros(1, 0, 0)
    seen = [model.as_values(ds, Samples(points, part, None, weights)) for part in values]
    states, measured = torch.stack([part.values for part in seen]).to(values), seen[0].measure
    data = Trajectories(tuple(times), seen[0].points, measured, states, points[:0], measured[:0], none)
    found = usual(model, data, source)
    model.card[CARD] = asdict(found)
    return found


def usual_in_training(model: Forecaster, data: Trajectories) -> Familiarity:
    """The `Familiarity` of a model with its training data.

    What is remembered is familiar as nothing else is. So a model that remembers is asked about the second
    half of its trajectories while it remembers the first half alone, which makes it a little too lenient.
    """
    known = 0
    if isinstance(model.dynamics, KernelDynamics) and model.dynamics.trajectories > 1:
        known = model.dynamics.trajectories // 2
        model = copy.deepcopy(model)
        cast(KernelDynamics, model.dynamics).forget(known)
    return usual(model, data, "training states", known)


@torch.no_grad()
def usual(model: Forecaster, data: Trajectories, source: str, start: int = 0) -> Familiarity:
    """The `Familiarity` of a model with trajectories from the distribution of its training data.

    Args:
        model, data: of which.
        source: what these trajectories are, in words.
        start: the first of them that counts.

    Raises:
        DataError: if there are fewer than two states.
    """
    draw = torch.Generator().manual_seed(0)
    costly = model.cells > 1 or not model.field.linear
    states, first = _states(data, start, _COSTLY_STATES if costly else _STATES, draw)
    if len(states) < 2:
        raise DataError("expected several states to calibrate on; came one.", "Give a file of more states.")

    def seen(shares: dict[float, int], together: bool) -> list[tuple[Fit, Tensor]]:
        chosen = (states, first)
        return [
            _seen(model, data, chosen, share, patterns, together, draw)
            for share, patterns in sorted(shares.items())
        ]

    scattered, gathered = seen(_SCATTERED, together=False), seen(_GATHERED, together=True)
    by_count = _limits([(float(fit.counts.sum(1).double().mean()), fit, begins) for fit, begins in scattered])
    # The fullest states end both series.
    parts = [*gathered, scattered[-1]]
    by_coverage = _limits([(float(fit.coverage.mean()), fit, begins) for fit, begins in parts])
    return Familiarity(by_count, by_coverage, FALSE_ALARMS, len(states), source)


def _seen(
    model: Forecaster,
    data: Trajectories,
    chosen: tuple[Tensor, Tensor],
    share: float,
    patterns: int,
    together: bool,
    draw: torch.Generator,
) -> tuple[Fit, Tensor]:
    """How chosen states look at a share of the points, and which of them are first frames."""
    states, first = chosen
    # Refined states hold more values than what is observed of such states, which comes as cells.
    places = len(data.points) if share == 1 else len(data.points) // model.cells**2
    size, patterns = max(1, round(share * places)), min(patterns, len(states))
    fits, early = [], []
    for part, begins in zip(states.tensor_split(patterns), first.tensor_split(patterns), strict=True):
        among = torch.arange(places)
        if places < len(data.points):
            among = torch.randperm(len(data.points), generator=draw)[:places]
        keep = among[some(model.geometry, data.points[among], size, together, draw)]
        motion = model.geometry.random_motion(1, draw)[0]
        points = model.geometry.act(motion, data.points[keep])
        values = part[:, keep].to(model.mean.device)
        fit = model.examined(points, values, None, data.measure[keep])[1]
        known = (fit.counts > 0).all(1).cpu()
        fits.append(fit[known])
        early.append(begins[known])
    return Fit.concatenate(fits), torch.cat(early)


def some(geometry: Geometry, points: Tensor, size: int, together: bool, draw: torch.Generator) -> Tensor:
    """Indices of `size` of the points (M, point_dim), in order: random ones, or those about a random one."""
    keep = torch.randperm(len(points), generator=draw)[:size]
    if together:
        middle = geometry.lift(points[keep[0]])
        keep = geometry.distance(points, middle).argsort()[:size]
    return keep.sort().values


def _limits(seen: list[tuple[float, Fit, Tensor]]) -> Limits:
    """What familiar states stay within, from how they look at each value of what varies."""
    rows: dict[float, list[float]] = {}
    for at, fit, begins in seen:
        if len(begins) > 1:
            own = [*fit.departure.unbind(1), *(1 / fit.variation).unbind(1)]
            chances = [FALSE_ALARMS / 2, *len(own) * [FALSE_ALARMS / 2 / len(own)]]
            scores = [score.double().cpu() for score in (fit.misfit, *own)]
            rows[at] = [_limit(*pair, begins) for pair in zip(scores, chances, strict=True)]
    levels = [rows[at] for at in sorted(rows)]
    variables = seen[0][1].counts.shape[1]
    return Limits(
        sorted(rows),
        [row[0] for row in levels],
        [[_SLACK * level for level in row[1 : 1 + variables]] for row in levels],
        [[1 / (_SLACK * inverse) for inverse in row[1 + variables :]] for row in levels],
    )


def _states(data: Trajectories, start: int, most: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """States (n, M, V), n ≤ `most`, of the trajectories from `start` on, half of them first frames if there
    are so many, and which are, (n,)."""
    samples, frames = len(data.values) - start, data.values.shape[1]
    first = torch.randperm(samples, generator=draw)[: most // 2] * frames
    order = torch.randperm(samples * frames, generator=draw)
    rest = order[~torch.isin(order, first)][: most - len(first)]
    chosen = torch.cat([first, rest]) + start * frames
    chosen = chosen[torch.randperm(len(chosen), generator=draw)]
    return data.values[chosen // frames, chosen % frames], chosen % frames == 0


def _limit(scores: Tensor, chance: float, first: Tensor) -> float:
    """What a share `chance` of states exceeds, of first frames and of later ones."""
    apart = [scores[first], scores[~first]]
    groups = apart if min(map(len, apart)) >= 1 / _TAIL else [scores]
    return max(_quantile(group, chance) for group in groups)


def _quantile(scores: Tensor, chance: float) -> float:
    """What a share `chance` of states exceeds, by the power law of the largest of these."""
    largest = scores.clamp(LEAST, 1 / LEAST).sort(descending=True).values
    count = max(1, round(_TAIL * len(largest)))
    start = largest[min(count, len(largest) - 1)]
    power = float((largest[:count] / start).log().mean())
    power *= 1 + 1 / math.sqrt(count)
    fitted = math.log(start) + power * math.log(count / len(largest) / chance)
    return max(math.exp(min(fitted, -math.log(LEAST))), float(largest[0]))
