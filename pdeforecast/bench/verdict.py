"""What a method does on finer grids than were learned, in words that follow from its numbers.

With K the Nyquist number of the training's grid, and errors below and beyond it (`spectra.Bands`):

    interpolates to F×    up to F its error below K is at most 1.1 times that of the spectral interpolation
    adds true detail      beyond K its error is less than 0.9 of the truth there, all of which is the error of
                          whatever has nothing there; more than 1.1 is false detail, between is none
"""

import math
from collections.abc import Mapping

from pdeforecast.bench.spectra import Bands

SLACK = 0.1
"""Errors are the same when they differ by a smaller share."""
NOTHING = 1e-6
"""A truth with a smaller share of its mean square beyond K has nothing there."""


def verdict(
    direct: Mapping[float, Bands], spectral: Mapping[float, Bands], number: int, letter: str = "k"
) -> str:
    """What a method does on finer grids.

    Args:
        direct: its bands by factor of the grid.
        spectral: those of the spectral interpolation of its own coarse forecast.
        number: K.
        letter: what numbers are called: `k`, or `l` for degrees of harmonics.
    """
    reached, ratio = 1.0, math.nan
    for factor in sorted(direct):
        ratio = _quotient(direct[factor].below, spectral[factor].below)
        if ratio > 1 + SLACK:
            break
        reached = factor
    finest = max(direct)
    if reached > 1:
        words = f"interpolates to {reached:g}×"
        if reached < finest:
            words += (
                f", not to {2 * reached:g}× (there {ratio:.2g} times the error of spectral interpolation)"
            )
    else:
        words = f"does not interpolate (on {min(direct):g}× {ratio:.2g} times the error of its interpolation)"
    return f"{words}; {_detail(direct[finest], number, letter)}"


def _detail(found: Bands, number: int, letter: str) -> str:
    """What is added beyond K."""
    beyond = f"above {letter} = {number}"
    nothing = f"{beyond}, where the truth has nothing ({found.share:.0e} of its mean square)"
    if found.share < NOTHING:
        if found.false > SLACK:
            return f"adds false detail {nothing}"
        return f"adds no detail {nothing}: interpolation is all there is to show"
    why = f"(error there {found.above:.2g} times the truth, {found.share:.1g} of whose mean square is there)"
    if found.above < 1 - SLACK:
        return f"adds true detail {beyond} {why}"
    if found.above > 1 + SLACK:
        return f"adds false detail {beyond} {why}"
    return f"adds no true detail {beyond} {why}"


def _quotient(a: float, b: float) -> float:
    return a / b if b > 0 else 1.0 if a == 0 else math.inf
