"""How unlike the training data a state is.

How unlike a state y is follows from what its encoding leaves. With R the variance of the errors of the
observations, f₀ the field of the mean latents c₀ and f the field of the encoded ones, the exact step makes

    (y − f₀)ᵀ R⁻¹ (y − f)  =  (y − f₀)ᵀ (A S Aᵀ + R)⁻¹ (y − f₀),

the Mahalanobis energy of the observations under the prior, so that no matrix is factorised again. Its mean
over the observations is the *misfit*: about 1 for states of the prior, whatever is observed of them. An
encoder without a prior leaves the mean square of its residual alone.

A prior that can hold much takes a variable in the wrong unit, or of the wrong sign, for a rare state. So each
variable is judged for itself, too, by two root mean squares over what is observed of it, weighted by area or
volume: its *departure*, y − f₀, which may be too large, and its *variation*, y − ȳ, which may be too small.

States are no Gaussian field, so what is usual is measured on states from the training data's distribution
(`calibration.py`): for each number of observations, and apart for those that are scattered over the whole
space and those that are gathered in a part of it, where a field may well vary less, or depart more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdeforecast.encoder import MetaSGD
from pdeforecast.geometry import Geometry
from pdeforecast.latents import Latents
from pdeforecast.observed import merge_duplicates
from pdeforecast.preconditioner import PreconditionedSGD
from pdeforecast.principal import PrincipalSGD

LEAST = 1e-30
"""Of a measured quantity, and of a limit."""
_GATHERED = 1.5
"""So many times as far are places from the nearest observation as observations are from one another."""
_PLACES = 512
"""Of the space, and at most of the observations, that tell how far apart they are."""


@dataclass(frozen=True)
class Fit:
    """How states look beside the mean state and their own encoding, in units of the variables' spreads.

    Attributes:
        misfit: (batch,).
        departure: (batch, V), 0 where nothing is observed.
        variation: (batch, V), likewise.
        counts: (batch, V), how many values are observed.
        gathered: (batch,), whether they lie in a part of the space.
    """

    misfit: Tensor
    departure: Tensor
    variation: Tensor
    counts: Tensor
    gathered: Tensor

    def __getitem__(self, which: Tensor) -> "Fit":
        """That of some of the states."""
        return Fit(*(getattr(self, field.name)[which] for field in fields(self)))

    @staticmethod
    def concatenate(parts: Sequence["Fit"]) -> "Fit":
        """That of all of them, one after another."""
        return Fit(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Fit)))


@dataclass(frozen=True)
class Limits:
    """What familiar states stay within.

    Attributes:
        observations: how many values were observed, ascending.
        misfit: the largest, at each of them.
        departure: the largest, at each of them, of each variable.
        variation: the least, likewise.
    """

    observations: list[int]
    misfit: list[float]
    departure: list[list[float]]
    variation: list[list[float]]

    def excess(self, fit: Fit) -> np.ndarray:
        """How many times each limit is exceeded, (batch, 1 + 2 V): by misfit, departures and variations.

        Limits are linear in logarithms between the counts of observations that were measured; below the
        fewest of them nothing is known, and nothing exceeded.
        """
        counts, variables = fit.counts.cpu().numpy(), fit.counts.shape[1]
        # Of a variable, as if others were observed as often.
        seen = np.array([counts.sum(1), *2 * list(variables * counts.T)])
        if not self.observations:
            return np.zeros(seen.T.shape)
        x, known = np.log(seen.clip(1)), np.log(self.observations)
        levels = [self.misfit, *zip(*self.departure, strict=True), *zip(*self.variation, strict=True)]
        limits = [np.exp(np.interp(at, known, np.log(level))) for at, level in zip(x, levels, strict=True)]
        found = [fit.misfit, *fit.departure.unbind(1), *fit.variation.unbind(1)]
        times = np.array([value.clamp_min(LEAST).cpu().numpy() for value in found]) / limits
        times[1 + variables :] = 1 / times[1 + variables :]
        return np.where(seen >= self.observations[0], times, 0.0).T


@dataclass(frozen=True)
class Familiarity:
    """What states like the training data stay within, as a model's card holds it.

    Attributes:
        scattered: where observations lie all over the space.
        gathered: where they lie in a part of it.
        false_alarms: the share of states like the training data that is outside.
        states: how many states it was learned from.
        source: which states those were.
    """

    scattered: Limits
    gathered: Limits
    false_alarms: float
    states: int
    source: str

    @classmethod
    def read(cls, card: Mapping[str, Any]) -> "Familiarity":
        """What `dataclasses.asdict` made."""
        limits = {name: Limits(**card[name]) for name in ("scattered", "gathered")}
        return cls(**{**card, **limits})

    def excess(self, fit: Fit) -> np.ndarray:
        """How many times each limit is exceeded, (batch, 1 + 2 V): see `Limits.excess`."""
        gathered = fit.gathered.cpu().numpy()[:, None]
        return np.where(gathered, self.gathered.excess(fit), self.scattered.excess(fit))


@torch.no_grad()
def examine(
    encoder: PreconditionedSGD | PrincipalSGD | MetaSGD,
    latents: Latents,
    points: Tensor,
    values: Tensor,
    variance: Tensor | None = None,
    measure: Tensor | None = None,
) -> Fit:
    """How states look that were encoded as `latents`; arguments are those of the encoder."""
    points, values, variance = merge_duplicates(points, values, variance)
    kind = torch.float64 if encoder.field.linear else values.dtype
    latents, values = latents.map(lambda tensor: tensor.to(kind)), values.to(kind)
    given = torch.zeros_like(values) if variance is None else variance.to(kind).expand_as(values)
    share = values.new_ones(values.shape[-2], 1) if measure is None else measure.to(values)[:, None]
    left = values - encoder.field(points.to(kind), latents)
    if isinstance(encoder, MetaSGD):
        away, energy = values, left.square() / (1 / share + given)
    else:
        mean = Latents(latents.poses, encoder.centre.to(kind)[None], latents.windows)
        away = values - encoder.field(points.to(kind), mean)
        energy = away * left / (encoder.noise / share + given)
    known = ~values.isnan()
    counts = known.sum(1)
    weight = share * known
    weight = weight / weight.sum(1, keepdim=True).clamp_min(torch.finfo(kind).tiny)

    def average(x: Tensor) -> Tensor:
        return (weight * x.nan_to_num()).sum(1, keepdim=True)

    # Errors of the observations add to a departure what is none.
    departure = (average(away.square()) - average(given)).clamp_min(0).sqrt()
    variation = average((values - average(values)).square()).sqrt()
    misfit = energy.nan_to_num().flatten(1).sum(1) / counts.sum(1).clamp_min(1)
    patterns, which = known.any(-1).unique(dim=0, return_inverse=True)
    parts = [
        gathered(encoder.field.geometry, _of(points, which == i)[seen]) for i, seen in enumerate(patterns)
    ]
    return Fit(misfit, departure[:, 0], variation[:, 0], counts, torch.tensor(parts)[which.cpu()])


def _of(points: Tensor, which: Tensor) -> Tensor:
    """The points (M, point_dim) of the first of some states."""
    return points if points.ndim == 2 else points[which][0]


def gathered(geometry: Geometry, points: Tensor) -> bool:
    """Whether points (M, point_dim) lie in a part of the space: places of it are on average further from the
    nearest of them, by much, than they are from one another."""
    if len(points) < 2:
        return True
    draw = torch.Generator().manual_seed(0)
    some = points[torch.randperm(len(points), generator=draw)[:_PLACES].to(points.device)]
    places = geometry.random_points(_PLACES, draw).to(some)
    there = geometry.lift(some)
    apart = geometry.distance(some[:, None], there)
    apart.fill_diagonal_(torch.inf)
    away = geometry.distance(places[:, None], there)
    return bool(away.min(1).values.mean() > _GATHERED * apart.min(1).values.mean())
