"""Observations at several times → the latents of the first, fitted through the dynamics.

Let c(t; w) be the latents at time t that began as c = c₀ + L w, w ~ N(0, 1), in the prior of the encoder.
Given what was observed at times t₁ < t₂ < …, y_t with error variance R_t and A_t the field at its points, the
most likely w has the least

    J(w) = ½ |w|² + ½ Σ_t |R_t^(−½) (y_t − A_t c(t; w))|²,

which is variational assimilation with a perfect model (4D-Var; O. Talagrand and P. Courtier, Q. J. R.
Meteorol. Soc. 113 (1987) 1311). For one time the encoder's exact step is its minimum, w₀. From there L-BFGS
goes on, by gradients through the roll-out, in coordinates in which what was observed first is as sharp as the
prior,

    w = w₀ + G^(−ᵀ) v,      G Gᵀ = 1 + B₁ᵀ B₁,      B_t = R_t^(−½) A_t L.

What each latent holds for itself beside the modes (`local_prior.py`) stays as the encoder fitted it.

Where the dynamics are linear, w(t) = E_t w + e_t, the minimum is one exact step again: that of all rows
B_t E_t.

Dynamics that remember (`kernel_dynamics.py`) have a prior of their own, and flow without latents. With a₁ the
amplitudes at which the first observations settle, σ the spreads of amplitudes and Φ₀ what leads a state to
remembered ones like it, their state began as Φ₀(a₁ + σ w), and A_t sees amplitudes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import torch
from torch import Tensor

from pdeforecast.kernel_dynamics import KernelDynamics, Told
from pdeforecast.latents import Latents
from pdeforecast.linear_dynamics import LinearDynamics
from pdeforecast.observed import merge_duplicates, observed
from pdeforecast.preconditioner import ExactStep, PreconditionedSGD
from pdeforecast.principal import PrincipalSGD

Carry = Callable[[Latents, int, Sequence[float]], list[Latents]]
"""The latents of one state, and its number, to those at each of several times."""
Encoder = PreconditionedSGD | PrincipalSGD
Progress = Callable[[int, int], None]
"""Hears how many evaluations of J are done, and how many there are at most."""

_ITERATIONS = 80
_EVALUATIONS = 100
"""Of J, at most; a last line search may go on a little."""
_HISTORY = 40
_FLAT = 1e-2
"""The largest component of ∇J in v at which descent ends."""
_STILL = 1e-3
"""The gain in J, or the longest component of a step in v, at which descent ends."""


@dataclass(frozen=True)
class Frame:
    """What was observed of S states at one time, in the units of the networks.

    Attributes:
        time: since the first.
        points: (M, point_dim).
        values: (S, M, V); NaN where not observed.
        variance: of the observations' errors, like `values`; none means exact.
        measure: (M,), the part of the space that each point represents, in units of their mean.
    """

    time: float
    points: Tensor
    values: Tensor
    variance: Tensor | None = None
    measure: Tensor | None = None


@dataclass(frozen=True)
class Seen:
    """What was observed of one state at one time: values (M, V) and R^(−½), zero where not observed."""

    time: float
    points: Tensor
    values: Tensor
    precision: Tensor


class Prior:
    """c = c₀ + L w, for either encoder.

    Attributes:
        size: of w.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        if isinstance(encoder, PreconditionedSGD):
            channels = encoder.field.channels
            self._factors = torch.stack([encoder.prior_factor(v) for v in range(channels)])
            self.size = channels * self._factors.shape[-1]
        else:
            self._reading, self.size = encoder.reading(), encoder.modes.shape[1]

    def latents(self, w: Tensor) -> Latents:
        """The latents of w (batch, size), in float64."""
        encoder = self.encoder
        if isinstance(encoder, PrincipalSGD):
            away = (w @ encoder.modes.double().T).unflatten(1, encoder.centre.shape)
            return Latents(encoder.poses, encoder.centre + away, encoder.windows)
        split = w.unflatten(1, (len(self._factors), -1))
        away = torch.einsum("vij,bvj->bvi", self._factors, split).unflatten(2, (len(encoder.poses), -1))
        start = encoder.initial[:, encoder.orbit]
        return Latents(encoder.poses, (start + away).transpose(1, 2).flatten(2), encoder.windows)

    def coordinates(self, latents: Latents) -> Tensor:
        """w (batch, size) of latents, in the least-squares sense."""
        encoder, contexts = self.encoder, latents.contexts.double()
        if isinstance(encoder, PrincipalSGD):
            return (contexts - encoder.centre).flatten(1) @ self._reading.T
        split = contexts.unflatten(2, (len(self._factors), -1)).transpose(1, 2)
        away = (split - encoder.initial[:, encoder.orbit]).flatten(2).transpose(0, 1)
        # One by one: solutions of several large systems at once fail on several threads (PyTorch, #142815).
        found = [torch.linalg.solve(*pair) for pair in zip(self._factors, away.mT, strict=True)]
        return torch.stack(found).mT.transpose(0, 1).flatten(1)

    def shown(self, points: Tensor) -> Tensor:
        """A L: what each component of w shows at the points, (M, V, size)."""
        encoder = self.encoder
        if isinstance(encoder, PrincipalSGD):
            return encoder.shown(points)
        design = encoder.field.design(points, encoder.poses, encoder.windows)
        parts = [design @ factor for factor in self._factors]
        return torch.stack(
            [torch.block_diag(*(part[i : i + 1] for part in parts)) for i in range(len(points))]
        )


_watcher: ContextVar[Progress] = ContextVar("watcher", default=lambda done, total: None)


@contextmanager
def watched(progress: Progress) -> Iterator[None]:
    """Lets `progress` follow what is fitted in a `with`, however deep inside a forecast."""
    token = _watcher.set(progress)
    try:
        yield
    finally:
        _watcher.reset(token)


@torch.no_grad()
def assimilate(
    encoder: Encoder, carry: Carry, frames: Sequence[Frame], linear: LinearDynamics | None = None
) -> Latents:
    """The most likely latents at the first of several times, in float64; every state by itself.

    Args:
        carry: the dynamics.
        frames: in the order of their times; the first is at time 0, and saw something of every state.
        linear: the dynamics in w, where they are nothing else.
    """
    prior = Prior(encoder)
    first = frames[0]
    encoded = encoder(first.points, first.values, first.variance, first.measure)
    if len(frames) == 1:
        return encoded
    start = prior.coordinates(encoded)
    rest = encoded.contexts.double() - prior.latents(start).contexts
    noise = encoder.unexplained if isinstance(encoder, PrincipalSGD) else encoder.noise
    fitted, progress, total = [], _watcher.get(), len(start) * _EVALUATIONS
    for i in range(len(start)):
        told = partial(_told, progress, i, total)
        told(0)
        seen = [part for frame in frames if len((part := _seen(frame, i, noise)).points)]
        if linear is not None:
            fitted.append(_exact(prior, seen, linear))
        else:
            fitted.append(_descended(prior, seen, start[i : i + 1], rest[i : i + 1], i, carry, told))
    progress(total, total)
    found = prior.latents(torch.cat(fitted))
    return replace(found, contexts=found.contexts + rest)


@torch.no_grad()
def assimilate_remembered(flow: KernelDynamics, encoder: PrincipalSGD, frames: Sequence[Frame]) -> Latents:
    """`assimilate` for dynamics that remember."""
    found, progress, states = [], _watcher.get(), len(frames[0].values)
    for i in range(states):
        told = partial(_told, progress, i, states * _EVALUATIONS)
        told(0)
        parts = []
        for frame in frames:
            variance = None if frame.variance is None else frame.variance[i : i + 1]
            seen = observed(frame.points, frame.values[i : i + 1], variance, frame.measure)
            parts += [(frame.time, part) for part in flow.told(encoder, seen)]
        found.append(_settled(flow, parts, told))
    first = frames[0]
    seen = observed(first.points, first.values, first.variance, first.measure)
    latents = flow.written(encoder, seen, torch.cat(found))
    progress(states * _EVALUATIONS, states * _EVALUATIONS)
    return latents


def _settled(
    flow: KernelDynamics, parts: Sequence[tuple[float, Told]], told: Callable[[int], None]
) -> Tensor:
    """a (1, modes) of one state at the first of the times at which it was seen."""
    times, first = [time for time, _ in parts[1:]], parts[0][1]
    likely = flow.likely(first.step, first.values)

    def begun(w: Tensor) -> Tensor:
        return flow.like(likely + torch.view_as_complex(w) / flow.precision())

    def cost(w: Tensor) -> Tensor:
        a, total = begun(w), 0.5 * w.square().sum()
        for (_, part), state in zip(parts, [a, *flow.followed(a, times)], strict=True):
            total = total + 0.5 * (part.step.left(part.values, state).square() / part.error).sum()
        return total

    w = torch.zeros(*likely.shape, 2, dtype=torch.float64, device=likely.device, requires_grad=True)
    _descend(cost, w, told)
    # Squared: what several times agree on is believed more.
    return flow.believed(first.step, first.values, begun(w.detach()), 2)


def _told(progress: Progress, fitted: int, total: int, evaluations: int) -> None:
    progress(fitted * _EVALUATIONS + min(evaluations, _EVALUATIONS), total)


def cost(
    prior: Prior, seen: Sequence[Seen], w: Tensor, sample: int, carry: Carry, rest: Tensor | float = 0.0
) -> Tensor:
    """J(w) of one state, w (1, size), whose latents hold `rest` (1, N, context_dim) beside c₀ + L w."""
    begun = prior.latents(w)
    begun = replace(begun, contexts=begun.contexts + rest)
    later = carry(begun, sample, [part.time for part in seen[1:]])
    total = 0.5 * w.square().sum()
    for part, state in zip(seen, [begun, *later], strict=True):
        field = prior.encoder.field(part.points, state.map(torch.Tensor.double))[0]
        total = total + 0.5 * (part.precision * (part.values - field)).square().sum()
    return total


def _seen(frame: Frame, sample: int, noise: Tensor) -> Seen:
    """What one state shows at one time; what no field can represent is an error, too."""
    values = frame.values[sample : sample + 1]
    variance = None if frame.variance is None else frame.variance[sample : sample + 1]
    points, values, variance = merge_duplicates(frame.points, values, variance)
    error = noise / (1.0 if frame.measure is None else frame.measure.to(noise)[:, None])
    error = error + (0.0 if variance is None else variance[0].double())
    known = ~values[0].isnan()
    some = known.any(-1)
    precision = torch.where(known, error.rsqrt(), 0.0)
    return Seen(frame.time, points[some].double(), values[0].double().nan_to_num()[some], precision[some])


def _descended(
    prior: Prior,
    seen: Sequence[Seen],
    start: Tensor,
    rest: Tensor,
    sample: int,
    carry: Carry,
    told: Callable[[int], None],
) -> Tensor:
    """The least J from w₀ = `start` (1, size), by L-BFGS in v; `told` hears how often J was evaluated."""
    rows = (seen[0].precision[..., None] * prior.shown(seen[0].points)).flatten(0, 1)
    gram = torch.linalg.cholesky(rows.T @ rows + torch.eye(prior.size).to(rows))
    v = torch.zeros_like(start, requires_grad=True)

    def w(v: Tensor) -> Tensor:
        return start + torch.linalg.solve_triangular(gram.T, v.T, upper=True).T

    _descend(lambda v: cost(prior, seen, w(v), sample, carry, rest), v, told)
    return w(v).detach()


def _descend(cost: Callable[[Tensor], Tensor], v: Tensor, told: Callable[[int], None]) -> None:
    """Moves v to the least cost, by L-BFGS."""
    descent = torch.optim.LBFGS(
        [v],
        max_iter=_ITERATIONS,
        max_eval=_EVALUATIONS,
        history_size=_HISTORY,
        tolerance_grad=_FLAT,
        tolerance_change=_STILL,
        line_search_fn="strong_wolfe",
    )

    evaluations = count(1)

    def closure() -> Tensor:
        with torch.enable_grad():
            value = cost(v)
            v.grad = torch.autograd.grad(value, v)[0]
        told(next(evaluations))
        return value.detach()

    descent.step(closure)


def _exact(prior: Prior, seen: Sequence[Seen], linear: LinearDynamics) -> Tensor:
    """The least J (1, size) under linear dynamics: one exact step from all that was observed."""
    rows, residual = [], []
    nothing = torch.zeros(1, prior.size).to(prior.encoder.noise)
    for part in seen:
        moved = torch.linalg.matrix_exp(part.time * linear.generator)[:-1]
        shown = prior.shown(part.points)
        mean = prior.encoder.field(part.points, prior.latents(nothing))[0] + shown @ moved[:, -1]
        known = part.precision > 0
        rows.append(part.precision[known][:, None] * (shown[known] @ moved[:, :-1]))
        residual.append(part.precision[known] * (part.values - mean)[known])
    step = ExactStep(torch.cat(rows), torch.ones(sum(map(len, rows))).to(nothing))
    return step(torch.cat(residual)[None])
