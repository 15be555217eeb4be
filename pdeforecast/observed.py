"""What is observed of states, as encoders want it: each point once, states observed alike together."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Observations:
    """What is observed of a batch of states, in float64, once per point and channel.

    Attributes:
        points: (M, point_dim).
        values: (batch, M, channels), NaN where not observed.
        share: (M, 1), the part of the space that each point represents, in units of their mean.
        alike: states observed alike: which of the batch they are, (batch,), and the variance of their
            observations' errors, (M, channels), infinite where nothing is observed.
    """

    points: Tensor
    values: Tensor
    share: Tensor
    alike: list[tuple[Tensor, Tensor]]


def observed(points: Tensor, values: Tensor, variance: Tensor | None, measure: Tensor | None) -> Observations:
    """Observations of many states, as an exact step wants them; arguments are those of an encoder."""
    points, values, variance = merge_duplicates(points, values, variance)
    points, values = points.double(), values.double()
    error = torch.zeros_like(values) if variance is None else variance.double()
    patterns, member = error.where(~values.isnan(), torch.inf).unique(dim=0, return_inverse=True)
    share = torch.ones_like(points[:, :1]) if measure is None else measure.to(points)[:, None]
    return Observations(points, values, share, [(member == i, error) for i, error in enumerate(patterns)])


def merge_duplicates(
    points: Tensor, values: Tensor, variance: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Observations with one value per point and channel, so that saying a thing twice changes nothing.

    Values at the same point become their mean, weighted by 1/variance, and variances the harmonic
    mean, both at the first of these points; the others become NaN. Shapes stay, and nothing is
    copied if no point occurs twice.

    Args:
        points: (M, point_dim), or (batch, M, point_dim).
        values: (batch, M, channels), NaN where not observed.
        variance: shaped as `values`, or None.
    """
    shared = points.ndim == 2
    rows = points if shared else _numbered(points).flatten(0, 1)
    different, place = rows.unique(dim=0, return_inverse=True)
    if len(different) == len(rows):
        return points, values, variance

    def as_rows(x: Tensor) -> Tensor:
        return x.transpose(0, 1) if shared else x.flatten(0, 1)

    def as_given(x: Tensor) -> Tensor:
        return x.transpose(0, 1) if shared else x.view_as(values)

    def sums(x: Tensor) -> Tensor:
        total = x.new_zeros(len(different), *x.shape[1:])
        return total.index_add(0, place, x)[place]

    order = torch.arange(len(rows), device=points.device)
    first = order.new_full((len(different),), len(rows)).scatter_reduce(0, place, order, "amin")
    is_first = (first[place] == order).view(-1, *[1] * (values.ndim - 1 - (not shared)))
    y = as_rows(values)
    seen = ~y.isnan()
    # A variance of 0 is an exact value: its precision must be large, but infinity / infinity is NaN.
    least = torch.finfo(values.dtype).eps ** 2
    precision = torch.where(seen, 1.0 if variance is None else 1 / as_rows(variance).clamp_min(least), 0.0)
    total = sums(precision)
    mean = sums(torch.where(seen, y, 0.0) * precision) / total
    merged = as_given(torch.where(is_first, mean, torch.nan))
    if variance is None:
        return points, merged, None
    return points, merged, as_given(sums(seen.to(y)) / total)


def _numbered(points: Tensor) -> Tensor:
    """(batch, M, point_dim) with the number of the sample before the coordinates."""
    number = torch.arange(points.shape[0], device=points.device)[:, None, None]
    return torch.cat([number.expand(*points.shape[:2], 1).to(points), points], dim=-1)
