"""What a forecast cannot be asked: times beyond what was measured, states unlike the training data."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdeforecast.familiarity import Familiarity, Fit

_FLAT = 1e6
"""What varies so many times less does not vary."""


class TrustWarning(UserWarning):
    """A forecast or a training that is not to be trusted: a line of cause, a line of cure."""


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
    fit: Fit,
    variables: Sequence[str],
    by: float = 1.0,
    observed: float = 0.0,
) -> Doubts:
    """What there is to say of a forecast to `times` from states that look as `fit` says.

    Args:
        card: of the model: `horizon`, `measured_horizon` and `familiarity`, as far as they are known.
        fit: what `examine` returns.
        variables: their names.
        by: what times in `unit` are multiplied with, for the unit of the model.
        observed: when the state was last observed, after its first time.
    """
    shown = "" if unit == "1" else f" {unit}"
    late, notes = _beyond(card, max(times), shown, by)
    fitted, _ = _beyond(card, observed, shown, by, "observations")
    return Doubts([*late, *fitted, *_unlike(card, fit, variables)], notes)


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


def _unlike(card: Mapping[str, Any], fit: Fit, variables: Sequence[str]) -> list[str]:
    """A warning if states are unlike the training data."""
    known = Familiarity.of(card)
    if known is None:
        return []
    excess = known.excess(fit)
    strange = [i for i, times in enumerate(excess) if not (times <= 1).all()]
    if not strange:
        return []
    which = ", ".join(map(str, strange[:5])) + (", …" if len(strange) > 5 else "")
    cause = (
        f"expected states like the training data; {len(strange)} of {len(excess)} (sample {which}) are "
        f"unlike it: {', '.join(_reasons(excess.max(0), variables))}."
    )
    cure = (
        "Compare their equation, parameters, units and signs with those that `pdeforecast inspect MODEL` "
        "tells, or train on such states."
    )
    return [f"{cause}\n{cure}"]


def _reasons(excess: np.ndarray, variables: Sequence[str]) -> Iterator[str]:
    """Which limits are exceeded, and how many times (1 + 2 V,)."""
    misfit, departures, variations = excess[0], *excess[1:].reshape(2, -1)
    if not misfit <= 1:
        yield f"a misfit {misfit:.3g} times the limit for familiar ones"
    for name, far, flat in zip(variables, departures, variations, strict=True):
        if not far <= 1:
            yield f"{name} lies {far:.3g} times as far from the mean state as familiar ones do"
        if not flat <= 1:
            by = f"varies {flat:.3g} times less than" if flat < _FLAT else "does not vary as"
            yield f"{name} {by} familiar ones do"
