"""How much of a field lies at each scale, and what of it a coarse grid can see.

    periodic plane            E(k): Σ |û|² over the shell |k| ≈ k, in waves per period
    plane                     the same of the cosine series, in half waves per side
    sphere, rotating sphere   E(l): Σₘ |c_lm|² over the orders of the degree l

ΣE is the mean square of the field. The *Nyquist number* K of a grid is the highest k, or l, that it holds in
every direction; what lies beyond it no value on that grid can tell.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pdeforecast.bench.interpolation import Axes, check_surface
from pdeforecast.geometry import Geometry
from pdeforecast.metrics import spectrum
from pdeforecast.solvers.sphere import Sphere
from pdeforecast.trajectory import grid_dims


def power(values: Tensor, geometry: Geometry, axes: Axes) -> Tensor:
    """E (…, numbers) of fields (…, *grid), for the numbers 0, 1, ….

    Raises:
        UsageError: if the space has no spectrum here.
    """
    check_surface(geometry)
    values = values.double()
    if geometry.domain == "plane":
        return spectrum(torch.cat([row := torch.cat([values, values.flip(-1)], -1), row.flip(-2)], -2))[1]
    if geometry.domain == "periodic_plane":
        return spectrum(values)[1]
    c = Sphere(dict(axes)).analysis(values).abs().square()
    # ∫P² dx = 1: the mean of |P e^{imλ}|² over the sphere is ½. And m > 0 stands for −m, too.
    return 0.5 * (2 * c.sum(-1) - c[..., 0])


def nyquist(geometry: Geometry, axes: Axes) -> int:
    """K, the highest number that the grid holds in every direction."""
    if geometry.domain == "periodic_plane":
        return min(len(axes[name]) for name in grid_dims(geometry)) // 2
    if geometry.domain == "plane":
        return min(len(axes[name]) for name in grid_dims(geometry))
    return Sphere(dict(axes)).degrees - 1


def symbol(geometry: Geometry) -> str:
    """What the numbers are called: `l` if they are degrees of harmonics, else `k`."""
    return "k" if geometry.domain in ("periodic_plane", "plane") else "l"


@dataclass(frozen=True)
class Bands:
    """An error, and a truth, below and above the Nyquist number K of the grid that a forecast came from.

    Attributes:
        below: relative L2 error of the numbers up to K.
        above: that of the numbers beyond K; 1 is what a forecast without anything there has.
        energy: what the forecast has beyond K, in units of what the truth has there.
        share: the part of the truth's mean square beyond K.
        false: the error beyond K in units of the error up to K.
    """

    below: float
    above: float
    energy: float
    share: float
    false: float


def bands(truth: Tensor, error: Tensor, forecast: Tensor, number: int) -> Bands:
    """The bands of spectra E (numbers,) of truth, error and forecast, cut at K = `number`."""
    (t_low, t_high), (e_low, e_high), (_, f_high) = (
        (float(e[: number + 1].sum()), float(e[number + 1 :].sum())) for e in (truth, error, forecast)
    )
    return Bands(
        below=_root(e_low, t_low),
        above=_root(e_high, t_high),
        energy=_ratio(f_high, t_high),
        share=_ratio(t_high, t_low + t_high),
        false=_root(e_high, e_low),
    )


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else math.inf if a > 0 else 0.0


def _root(a: float, b: float) -> float:
    return math.sqrt(_ratio(a, b))
