"""Training data: trajectories, and means over what is observed of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pdeforecast import parallel
from pdeforecast.forecaster import Forecaster
from pdeforecast.trajectory import StreamedValues

_LEAST_CHANGE = 1e-3
"""Of a variable, in units of that of the fastest; less counts as this."""


@dataclass(frozen=True)
class Trajectories:
    """Training data.

    Attributes:
        times: of the T frames.
        points: (M, point_dim).
        measure: (M,), the part of the space that each point represents, in units of their mean.
        values: (S, T, M, V), NaN where not observed; read from a file when asked for, if large.
        static_points: (K, point_dim).
        static_measure: (K,), likewise.
        statics: (1 or S, K, statics).
        between: the same trajectories after each frame, at the `between_frames.nodes` and when the next is
            due, if these are known.
    """

    times: tuple[float, ...]
    points: Tensor
    measure: Tensor
    values: Tensor | StreamedValues
    static_points: Tensor
    static_measure: Tensor
    statics: Tensor
    between: "Trajectories | None" = None


def normalise(model: Forecaster, data: Trajectories) -> None:
    """Sets the mean and the scale of every variable."""
    mean = moment(data.values.split(16), data.measure, lambda values: values)
    scale = moment(data.values.split(16), data.measure, lambda values: (values - mean).square()).sqrt()
    model.mean.copy_(mean)
    model.scale.copy_(torch.where(scale > 0, scale, 1.0))


def slowness(model: Forecaster, data: Trajectories) -> Tensor:
    """(V,), with mean 1: how little of its variance each variable changes by, from frame to frame.

    w_v ∝ 1 / mean (f_v(t + 1) − f_v(t))², f in units of the spreads: an error that counts by it is a share of
    the change that is to be told. By spreads alone errors are mostly those of the fastest variable, and what
    is slow, which can be known for longest, is learned least. `KernelDynamics` measures its states likewise.
    """
    change = moment(data.values.split(16), data.measure, lambda values: values.diff(dim=1).square())
    change = change / model.scale.to(change).square()
    slow = 1 / change.clamp_min(_LEAST_CHANGE * float(change.max().clamp_min(1e-30)))
    return slow / slow.mean()


def moment(parts: Iterable[Tensor], measure: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean (V,) of a function of values (…, M, V), given in parts, over what is observed of the space."""
    total, weights = torch.stack([totals(of(part.double()), measure) for part in parts]).sum(0)
    return total / weights


def totals(values: Tensor, measure: Tensor) -> Tensor:
    """The sum of values (…, M, V) over what is observed of the space, and that of its measure, (2, V)."""
    weight = measure.to(values)[:, None] * ~values.isnan()
    return torch.stack([weight * values.nan_to_num(), weight]).flatten(1, -2).sum(1)


def mean_square(guess: Tensor, truth: Tensor, measure: Tensor) -> Tensor:
    """The mean of (guess − truth)² (…, M, V) over what is observed of the space; of several processes, what
    has that as its mean over them.

    Not `nanmean`, whose gradient is NaN where its argument is.
    """
    observed = ~truth.isnan()
    error = torch.where(observed, guess - truth.nan_to_num(), 0.0)
    return (measure[:, None] * error.square()).sum() / parallel.mean((measure[:, None] * observed).sum())
