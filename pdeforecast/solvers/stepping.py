"""Time stepping for stiff semi-linear equations ∂t u = L u + N(u).

L is diagonal (in a spectral basis) and is integrated exactly; N is integrated by the classical
fourth-order Runge–Kutta method in the variable e^{−Lt} u (Lawson's integrating factor method).
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor


def lawson4(u: Tensor, decay: Tensor, step: float, nonlinear: Callable[[Tensor], Tensor]) -> Tensor:
    """One step of size h of the integrating-factor RK4 method (order 4 in h).

    Args:
        u: the state in the basis in which L is diagonal.
        decay: e^{L h/2}, broadcastable to u.
        step: h.
        nonlinear: N.

    Source: J. D. Lawson, SIAM J. Numer. Anal. 4 (1967) 372.
    """
    full = decay * decay
    k1 = nonlinear(u)
    k2 = nonlinear(decay * (u + 0.5 * step * k1))
    k3 = nonlinear(decay * u + 0.5 * step * k2)
    k4 = nonlinear(full * u + step * decay * k3)
    return full * u + step / 6 * (full * k1 + 2 * decay * (k2 + k3) + k4)


def integrate(
    u: Tensor,
    rate: Tensor,
    nonlinear: Callable[[Tensor], Tensor],
    times: Sequence[float],
    step: float,
) -> Iterator[Tensor]:
    """The state at each of the non-decreasing `times` (the start is at time 0).

    Between two requested times the interval is divided into equal steps no longer than `step`, so
    every requested time is hit exactly.

    Args:
        rate: the diagonal of L, in 1/time, broadcastable to u.
    """
    now = 0.0
    decays: dict[float, Tensor] = {}
    for time in times:
        count = int(-(-(time - now) * (1 - 1e-12) // step))
        if count > 0:
            h = (time - now) / count
            decay = decays.setdefault(round(h, 14), torch.exp(0.5 * h * rate))
            for _ in range(count):
                u = lawson4(u, decay, h, nonlinear)
        now = time
        yield u
