"""What a forecast cannot be asked: times beyond what was measured, states unlike the training data.

How unlike a state y is follows from what its encoding leaves. With R the variance of the errors of the
observations, f₀ the field of the mean latents c₀ and f the field of the encoded ones, the exact step makes

    (y − f₀)ᵀ R⁻¹ (y − f)  =  (y − f₀)ᵀ (A S Aᵀ + R)⁻¹ (y − f₀),

the Mahalanobis energy of the observations under the prior, so that no matrix is factorised again. Its mean
over the observations is the *misfit*: about 1 for states of the prior, whatever is observed of them. An
encoder without a prior leaves the mean square of its residual alone.

States are no Gaussian field, so what misfit is usual is measured on states from the training data's
distribution, at several shares of their points (`calibration.py`), and kept in the model's card.
"""

import math
import warnings
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdeforecast.encoder import MetaSGD
from pdeforecast.latents import Latents
from pdeforecast.observed import merge_duplicates
from pdeforecast.preconditioner import PreconditionedSGD
from pdeforecast.principal import PrincipalSGD

CARD = "familiarity"
"""The entry of a model's card that holds a `Familiarity`."""


class TrustWarning(UserWarning):
    """A forecast or a training that is not to be trusted: a line of cause, a line of cure."""


@dataclass(frozen=True)
class Familiarity:
    """The misfit that states like the training data stay below.

    Attributes:
        observations: how many values were observed, ascending.
        threshold: the misfit at each of them.
        false_alarms: the share of states like the training data that is above.
        states: how many states it was learned from.
        source: which states those were.
    """

    observations: list[int]
    threshold: list[float]
    false_alarms: float
    states: int
    source: str

    def limit(self, count: int) -> float:
        """The threshold for `count` observations, linear in logarithms between those that were measured;
        infinite below the fewest of them, where nothing is known."""
        x = [math.log(n) for n in self.observations]
        if count < self.observations[0]:
            return math.inf
        i = min(bisect_right(self.observations, count), len(x) - 1)
        if i == 0 or count >= self.observations[-1]:
            return self.threshold[-1]
        share = (math.log(count) - x[i - 1]) / (x[i] - x[i - 1])
        return self.threshold[i - 1] ** (1 - share) * self.threshold[i] ** share


@torch.no_grad()
def misfit(
    encoder: PreconditionedSGD | PrincipalSGD | MetaSGD,
    latents: Latents,
    points: Tensor,
    values: Tensor,
    variance: Tensor | None = None,
    measure: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The misfit (batch,) of states that were encoded as `latents`, and how many values are observed of each.

    Arguments are those of the encoder.
    """
    points, values, variance = merge_duplicates(points, values, variance)
    kind = torch.float64 if encoder.field.linear else values.dtype
    latents, values = latents.map(lambda tensor: tensor.to(kind)), values.to(kind)
    left = values - encoder.field(points.to(kind), latents)
    innovation, noise = left, values.new_ones(values.shape[-1])
    if not isinstance(encoder, MetaSGD):
        mean = Latents(latents.poses, encoder.centre.to(kind)[None], latents.windows)
        innovation, noise = values - encoder.field(points.to(kind), mean), encoder.noise
    error = noise / (1.0 if measure is None else measure.to(values)[:, None])
    error = error + (0.0 if variance is None else variance.to(kind))
    count = (~values.isnan()).flatten(1).sum(1)
    return (innovation * left / error).nan_to_num().flatten(1).sum(1) / count.clamp_min(1), count


@dataclass(frozen=True)
class Doubts:
    """What is said of a forecast: warnings, each a line of cause and a line of cure, and notes of a line."""

    warnings: list[str]
    notes: list[str]

    def attrs(self) -> dict[str, str]:
        """As attributes of the forecast; none where there is nothing to say."""
        said = {"warnings": "\n".join(self.warnings), "notes": "\n".join(self.notes)}
        return {name: text for name, text in said.items() if text}

    def warn(self) -> None:
        """Raises the Python warnings, at the caller of `Forecaster.forecast`."""
        for text in self.warnings:
            warnings.warn(text, TrustWarning, stacklevel=4)


def doubts(
    card: Mapping[str, Any],
    times: Sequence[float],
    unit: str,
    fit: tuple[Tensor, Tensor],
    by: float = 1.0,
    observed: float = 0.0,
) -> Doubts:
    """What there is to say of a forecast to `times` from states of a misfit and a number of observations.

    Args:
        card: of the model: `horizon`, `measured_horizon` and `familiarity`, as far as they are known.
        fit: what `misfit` returns.
        by: what times in `unit` are multiplied with, for the unit of the model.
        observed: when the state was last observed, after its first time.
    """
    shown = "" if unit == "1" else f" {unit}"
    late, notes = _beyond(card, max(times), shown, by)
    fitted, _ = _beyond(card, observed, shown, by, "observations")
    return Doubts([*late, *fitted, *_unlike(card, *fit)], notes)


def _beyond(
    card: Mapping[str, Any], last: float, unit: str, by: float, what: str = "lead times"
) -> tuple[list[str], list[str]]:
    """A warning beyond what was measured; a note beyond what was trained."""
    trained = float(card.get("horizon", math.inf)) / by
    measured = max(trained, float(card.get("measured_horizon", 0.0)) / by)
    if last > measured * (1 + 1e-6):
        known = "trained and measured" if measured > trained else "trained"
        cause = (
            f"expected {what} up to {measured:g}{unit}, to which the model was {known}; "
            f"came {last:g}{unit}, {last - measured:.4g} beyond."
        )
        cure = {
            "lead times": f"Stop at {measured:g}, or hold what comes later against a solver or observations.",
            "observations": f"Leave out what was observed more than {measured:g} after the first time.",
        }
        return [f"{cause}\n{cure[what]}"], []
    if last > trained * (1 + 1e-6):
        text = f"trained to lead time {trained:g}{unit}; measured, beyond that, up to {measured:g}{unit}."
        return [], [text]
    return [], []


def _unlike(card: Mapping[str, Any], score: Tensor, count: Tensor) -> list[str]:
    """A warning if states are unlike the training data."""
    if not card.get(CARD, {}).get("observations"):
        return []
    known = Familiarity(**card[CARD])
    pairs = zip(score.tolist(), count.tolist(), strict=True)
    excess = [value / known.limit(seen) if seen else 0.0 for value, seen in pairs]
    strange = [i for i, times in enumerate(excess) if not times <= 1]
    if not strange:
        return []
    which = ", ".join(map(str, strange[:5])) + (", …" if len(strange) > 5 else "")
    cause = (
        f"expected states like the training data; {len(strange)} of {len(excess)} (sample {which}) are "
        f"unlike it: a misfit {max(excess):.3g} times the limit for familiar ones."
    )
    cure = (
        "Compare their equation, parameters and units with those that `pdeforecast inspect MODEL` tells, "
        "or train on such states."
    )
    return [f"{cause}\n{cure}"]
