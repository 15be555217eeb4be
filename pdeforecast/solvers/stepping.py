"""Time stepping for stiff semi-linear equations ∂t u = L u + N(u).

L is diagonal (in a spectral basis) and is integrated exactly; N is integrated by exponential time
differencing, the fourth-order Runge–Kutta method of Cox and Matthews. Modes may decay however fast, or
grow. Unlike an integrating factor (Lawson's method), it does not lose order where step · L is large.
"""

import cmath
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_CONTOUR = 64
"""Points on the circle about z, at which the means of the φ are exact to rounding."""
_MOST_PARTS = 256
"""A state that asks for shorter parts of a step than this is lost; the caller sees it leave the numbers."""


@dataclass(frozen=True)
class Propagator:
    """What a step of size h needs of L, with z = L h; each is broadcastable to u.

    Attributes:
        half: e^{z/2}.
        full: e^z.
        stage: h/2 φ₁(z/2).
        first: h (φ₁ − 3φ₂ + 4φ₃)(z), the weight of N at the beginning of the step.
        middle: h (2φ₂ − 4φ₃)(z), that of each N in the middle.
        last: h (4φ₃ − φ₂)(z), that of N at the end.
    """

    half: Tensor
    full: Tensor
    stage: Tensor
    first: Tensor
    middle: Tensor
    last: Tensor


def propagator(rate: Tensor, step: float) -> Propagator:
    """The weights of `etdrk4` for the diagonal `rate` of L (in 1/time) and the step h.

    φ₁ = (e^z − 1)/z, φ₂ = (φ₁ − 1)/z and φ₃ = (φ₂ − ½)/z cancel near z = 0; each is the mean of itself on
    the circle of radius 1 about z instead.

    Source: A.-K. Kassam and L. N. Trefethen, SIAM J. Sci. Comput. 26 (2005) 1214.
    """
    z = step * rate.to(torch.promote_types(rate.dtype, torch.float64))
    stage = _circle_means(z / 2)[0]
    one, two, three = _circle_means(z)
    return Propagator(
        half=torch.exp(z / 2),
        full=torch.exp(z),
        stage=0.5 * step * stage,
        first=step * (one - 3 * two + 4 * three),
        middle=step * (2 * two - 4 * three),
        last=step * (4 * three - two),
    )


def etdrk4(u: Tensor, weights: Propagator, nonlinear: Callable[[Tensor], Tensor]) -> Tensor:
    """One step (order 4 in h) from u, in the basis in which L is diagonal, with N as `nonlinear`.

    Source: S. M. Cox and P. C. Matthews, J. Comput. Phys. 176 (2002) 430.
    """
    n1 = nonlinear(u)
    a = weights.half * u + weights.stage * n1
    n2 = nonlinear(a)
    b = weights.half * u + weights.stage * n2
    n3 = nonlinear(b)
    c = weights.half * a + weights.stage * (2 * n3 - n1)
    n4 = nonlinear(c)
    return weights.full * u + weights.first * n1 + weights.middle * (n2 + n3) + weights.last * n4


def integrate(
    u: Tensor,
    rate: Tensor,
    nonlinear: Callable[[Tensor], Tensor],
    times: Sequence[float],
    step: float,
    longest: Callable[[Tensor], float] | None = None,
) -> Iterator[Tensor]:
    """The state at each of the non-decreasing `times` (the start is at time 0).

    Between two requested times the interval is divided into equal steps no longer than `step`, so
    every requested time is hit exactly.

    Args:
        rate: the diagonal of L, in 1/time, complex where modes oscillate, broadcastable to u.
        longest: the longest stable step from a state; a step beyond it is halved until it is stable.
    """
    now = 0.0
    known: dict[float, Propagator] = {}
    for time in times:
        count = int(-(-(time - now) * (1 - 1e-12) // step))
        for _ in range(count):
            parts = 1 if longest is None else _parts((time - now) / count, longest(u))
            h = (time - now) / (count * parts)
            key = round(h, 14)
            if key not in known:
                known[key] = propagator(rate, h)
            for _ in range(parts):
                u = etdrk4(u, known[key], nonlinear)
        now = time
        yield u


def _parts(step: float, longest: float) -> int:
    """The power of two by which `step` is divided; 1 for a state that is lost already."""
    ratio = step / longest if longest > 0 else math.inf
    return int(2 ** math.ceil(math.log2(ratio))) if 1 < ratio < _MOST_PARTS else 1


def _circle_means(z: Tensor) -> Tensor:
    """φ₁, φ₂ and φ₃ at z, stacked."""
    total = torch.zeros((3, *z.shape), dtype=torch.complex128, device=z.device)
    for j in range(_CONTOUR):
        around = z + cmath.exp(2j * cmath.pi * (j + 0.5) / _CONTOUR)
        one = (torch.exp(around) - 1) / around
        two = (one - 1) / around
        total += torch.stack([one, two, (two - 0.5) / around]) / _CONTOUR
    return total if z.is_complex() else total.real
