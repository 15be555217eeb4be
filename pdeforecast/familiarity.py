"""How unlike the training data a state is.

How unlike a state y is follows from what its encoding leaves. With R the variance of the errors of the
observations, f₀ the field of the mean latents c₀ and f the field of the encoded ones, the exact step makes

    (y − f₀)ᵀ R⁻¹ (y − f)  =  (y − f₀)ᵀ (A S Aᵀ + R)⁻¹ (y − f₀),

the Mahalanobis energy of the observations under the prior, so that no matrix is factorised again. Its mean
over the observations is the *misfit*: about 1 for states of the prior, whatever is observed of them. An
encoder without a prior leaves the mean square of its residual alone. Dynamics that remember states know
better: their misfit is the share of a state that nothing remembered tells (`KernelDynamics.strangeness`).

A prior that can hold much takes a variable in the wrong unit, or of the wrong sign, for a rare state. So each
variable is judged for itself, too, by two root mean squares over what is observed of it, weighted by area or
volume: its *departure*, y − f₀, which may be too large, and its *variation*, y − ȳ, which may be too small.

States are no Gaussian field, so what is usual is measured on states from the training data's distribution
(`calibration.py`): as the number of observations falls, all over the space, and as the part of the space that
they cover falls, where a field may well vary less, or depart more. In a part, the wider of the two holds.
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

CARD = "familiarity"
"""The entry of a model's card that holds a `Familiarity`."""
LEAST = 1e-30
"""Of a measured quantity, and of a limit."""
_SAME = 1e-6
"""What is below the least that was measured by less, relatively, is that."""
_REACH = 1.5
"""What an observation covers about itself, in units of the spacing of as many all over the space."""
_WHOLE = 0.9
"""What covers so much of the space lies all over it."""
_PLACES, _MOST = 512, 2048
"""Places of the space, and at most so many observations, that tell how much of it is covered."""


@dataclass(frozen=True)
class Fit:
    """How states look beside the mean state and their own encoding, in units of the variables' spreads.

    Attributes:
        misfit: (batch,).
        departure: (batch, V), 0 where nothing is observed.
        variation: (batch, V), likewise.
        counts: (batch, V), how many values are observed.
        coverage: (batch, V), the part of the space about them, of 1.
    """

    misfit: Tensor
    departure: Tensor
    variation: Tensor
    counts: Tensor
    coverage: Tensor

    def __getitem__(self, which: Tensor) -> "Fit":
        """That of some of the states."""
        return Fit(*(getattr(self, field.name)[which] for field in fields(self)))

    @staticmethod
    def concatenate(parts: Sequence["Fit"]) -> "Fit":
        """That of all of them, one after another."""
        return Fit(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Fit)))


@dataclass(frozen=True)
class Limits:
    """What familiar states stay within, as one thing varies.

    Attributes:
        at: its values, ascending.
        misfit: the largest, at each of them.
        departure: the largest, at each of them, of each variable.
        variation: the least, likewise.
    """

    at: list[float]
    misfit: list[float]
    departure: list[list[float]]
    variation: list[list[float]]

    def levels(self, x: np.ndarray) -> np.ndarray:
        """The limits (batch, 1 + 2 V) of misfit, departures and inverse variations where each sees x, shaped
        likewise: linear in logarithms between what was measured, the last beyond, infinite below it."""
        if not self.at:
            return np.full(x.shape, np.inf)
        inverse = [[1 / level for level in row] for row in self.variation]
        rows = [self.misfit, *zip(*self.departure, strict=True), *zip(*inverse, strict=True)]
        known, shown = np.log(self.at), np.log(np.maximum(x, LEAST))
        found = [np.interp(of, known, np.log(row)) for of, row in zip(shown.T, rows, strict=True)]
        return np.where(x < self.at[0] * (1 - _SAME), np.inf, np.exp(found).T)


@dataclass(frozen=True)
class Familiarity:
    """What states like the training data stay within, as a model's card holds it.

    Attributes:
        by_count: as the number of observed values varies.
        by_coverage: as the part of the space that is observed varies.
        false_alarms: the share of states like the training data that is outside.
        states: how many states it was learned from.
        source: which states those were.
    """

    by_count: Limits
    by_coverage: Limits
    false_alarms: float
    states: int
    source: str

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> "Familiarity | None":
        """What a model's card holds, as `dataclasses.asdict` made it; None if it was not calibrated, or was
        before coverage counted."""
        held = card.get(CARD, {})
        if "by_coverage" not in held:
            return None
        return cls(**{**held, **{name: Limits(**held[name]) for name in ("by_count", "by_coverage")}})

    def excess(self, fit: Fit) -> np.ndarray:
        """How many times each limit is exceeded, (batch, 1 + 2 V): by misfit, departures and variations.

        Where less is observed than was ever measured, nothing is known, and nothing exceeded.
        """
        counts, coverage = fit.counts.cpu().numpy(), fit.coverage.cpu().numpy()
        seen = counts > 0
        # Of a variable, as if others were observed as often; of all, as of that which covers least.
        count = np.column_stack([counts.sum(1), *2 * [counts.shape[1] * counts]])
        least = np.where(seen, coverage, np.inf).min(1)
        part = np.column_stack([least, *2 * [coverage]])
        limits = self.by_count.levels(count)
        limits = np.where(part < _WHOLE, np.maximum(limits, self.by_coverage.levels(part)), limits)
        inverse = 1 / fit.variation.clamp_min(LEAST)
        found = torch.column_stack([fit.misfit, fit.departure, inverse]).cpu().numpy()
        return np.where(np.column_stack([seen.any(1), seen, seen]), found / limits, 0.0)


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
    coverage = _coverages(encoder.field.geometry, points, known)
    return Fit(misfit, departure[:, 0], variation[:, 0], counts, coverage.to(counts.device))


def _coverages(geometry: Geometry, points: Tensor, known: Tensor) -> Tensor:
    """The `coverage` (batch, V) of observations at points (M, point_dim), or (batch, M, point_dim), where
    they are known (batch, M, V)."""
    if points.ndim == 3:
        pairs = zip(points, known, strict=True)
        return torch.cat([_coverages(geometry, own, seen[None]) for own, seen in pairs])
    patterns, which = known.mT.flatten(0, 1).unique(dim=0, return_inverse=True)
    found = torch.tensor([coverage(geometry, points[seen]) for seen in patterns])
    return found[which.cpu()].view(len(known), -1)


def coverage(geometry: Geometry, points: Tensor) -> float:
    """The part of the space, of 1, that lies about points (M, point_dim): not further from one of them than
    1.5 times the spacing of as many all over it."""
    if not len(points):
        return 0.0
    draw = torch.Generator().manual_seed(0)
    some = points[torch.randperm(len(points), generator=draw)[:_MOST].to(points.device)]
    places = geometry.random_points(_PLACES, draw).to(some)
    reach = _REACH * (geometry.volume / len(some)) ** (1 / geometry.dim)
    near = geometry.distance(places[:, None], geometry.lift(some)).min(1).values <= reach
    return float(near.double().mean())
