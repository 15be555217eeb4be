"""Encoding: samples of a state → latents, in a few learned gradient steps (Meta-SGD).

From latents on a lattice, all with one learned context, the encoder descends the mean square error
of the field at the observed points,

    c ← c − r_c ⊙ ∇_c L,      p ← exp(p, −r_p ∇_v L(exp(p, v))|_{v = 0}),
    L = Σ w (f(x; z) − y)²,   w ∝ measure / (variance + noise), Σ w = 1 over what is observed,

where the rates r_c (a vector) and r_p are learned *through* the steps. Gradients of contexts are
plain vectors and those of poses live in body frames, so each step commutes with the group. Encoding
as a whole does so up to the lattice that it starts from.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import grad, vjp, vmap

from pdeforecast.field import EquivariantField, Seen
from pdeforecast.latents import Latents
from pdeforecast.observed import merge_duplicates


class MetaSGD(nn.Module):
    """An encoder by a few steps of gradient descent with learned rates.

    While training, the steps are differentiable to second order. In evaluation they keep no graph.

    Args:
        field: what is fitted; `look` and `read` are used.
        latents: N, a size of the geometry's lattice.
        window: σ of the latents' windows, in units of the lattice's spacing.
        steps: the number of steps.
        fit_poses: whether poses move from the lattice, too.
        context_rate: the initial r_c, per latent: the step is N times that, since a latent is
            responsible for about one N-th of the mean.
        pose_rate: the initial r_p, likewise.
        noise: added to the given variances, in squared units of the values; it bounds how much more
            one observation may count than another.
    """

    lattice: Tensor

    def __init__(
        self,
        field: EquivariantField,
        latents: int,
        window: float,
        steps: int,
        fit_poses: bool,
        context_rate: float = 1.0,
        pose_rate: float = 1e-3,
        noise: float = 1e-3,
    ) -> None:
        super().__init__()
        self.field = field
        self.latents = latents
        self.window = window * field.geometry.spacing(latents)
        self.steps = steps
        self.fit_poses = fit_poses
        self.noise = noise
        self.register_buffer("lattice", field.geometry.lattice(latents), persistent=False)
        self.context = nn.Parameter(torch.zeros(field.context_dim))
        self.context_rate = nn.Parameter(torch.full((field.context_dim,), context_rate))
        if fit_poses:
            # Learned as a logarithm: an optimiser's first steps would be larger than the rate itself.
            self.log_pose_rate = nn.Parameter(torch.tensor(pose_rate).log())

    def forward(
        self,
        points: Tensor,
        values: Tensor,
        variance: Tensor | None = None,
        measure: Tensor | None = None,
    ) -> Latents:
        """The latents of states.

        Args:
            points: (M, point_dim), or (batch, M, point_dim).
            values: (batch, M, channels); NaN where not observed, which has no influence. A state
                without any observation is given the initial latents.
            variance: of the observations' errors, shaped as `values`; None if all are alike.
                Observations at the same point are merged in evaluation; see `merge_duplicates`.
            measure: (M,), the part of the space that each point represents; None if all are alike.
        """
        if not self.training:
            points, values, variance = merge_duplicates(points, values, variance)
        return self.fit(self.initial(values), points, values, variance, measure)

    def initial(self, values: Tensor) -> Latents:
        """The latents, as of one state, that every state starts from, in the type of the values."""
        contexts = self.context.expand(1, self.latents, -1)
        windows = torch.full((self.latents,), self.window, dtype=values.dtype, device=values.device)
        return Latents(self.lattice.to(values), contexts, windows)

    def fit(
        self,
        start: Latents,
        points: Tensor,
        values: Tensor,
        variance: Tensor | None = None,
        measure: Tensor | None = None,
    ) -> Latents:
        """The latents after all steps from `start`; arguments otherwise as in `forward`."""
        end = self._descend(start, points, values, variance, measure)[-1]
        return Latents(end.poses, end.contexts.expand(len(values), -1, -1), end.windows)

    def losses(
        self,
        points: Tensor,
        values: Tensor,
        variance: Tensor | None = None,
        measure: Tensor | None = None,
    ) -> Tensor:
        """L (steps + 1, batch) before the first and after every step."""
        states = self._descend(self.initial(values), points, values, variance, measure)
        values, weights = _weighted(values, variance, measure, self.noise)
        return torch.stack([(weights * (self.field(points, z) - values) ** 2).sum((1, 2)) for z in states])

    def _descend(
        self,
        start: Latents,
        points: Tensor,
        values: Tensor,
        variance: Tensor | None,
        measure: Tensor | None,
    ) -> list[Latents]:
        """The latents before the first and after every step."""
        values, weights = _weighted(values, variance, measure, self.noise)

        def loss(contexts: Tensor, seen: Seen) -> Tensor:
            return (weights * (self.field.read(seen, contexts) - values) ** 2).sum()

        def pull(prediction: Tensor) -> Tensor:
            return 2 * weights * (prediction - values)

        alike = start.shared and len(start.contexts) == 1 and points.ndim == 2
        batch = len(values)
        with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
            states = [start]
            slopes = self._moving(loss, points) if self.fit_poses else self._holding(loss, points, start)
            for i in range(self.steps):
                z = states[-1]
                if i == 0 and alike:
                    slope = self._first(pull, points, z)
                else:
                    contexts = z.contexts.expand(batch, -1, -1)
                    slope = slopes(Latents(z.poses, contexts, z.windows))
                states.append(self._stepped(z, *slope))
        return states

    def _first(self, pull: Callable[[Tensor], Tensor], points: Tensor, z: Latents) -> tuple[Tensor, ...]:
        """The slopes where all states have the same latents: the field is read once for all.

        Args:
            pull: the slopes of the losses of all states in the values of the field.
        """
        geometry, rest = self.field.geometry, z.contexts.new_zeros(z.count, self.field.geometry.velocity_dim)

        def field(contexts: Tensor, velocity: Tensor) -> Tensor:
            poses = geometry.exp(z.poses, velocity) if self.fit_poses else z.poses
            return self.field.read(self.field.look(points, poses, z.windows), contexts)

        prediction, back = vjp(field, z.contexts, rest)[:2]
        slope, force = vmap(back)(pull(prediction)[:, None])
        return (slope[:, 0], force) if self.fit_poses else (slope[:, 0],)

    def _holding(
        self, loss: Callable, points: Tensor, start: Latents
    ) -> Callable[[Latents], tuple[Tensor, ...]]:
        """The slopes in the contexts alone: geometry is looked at once for all steps."""
        seen = self.field.look(points, start.poses, start.windows)

        def slopes(z: Latents) -> tuple[Tensor, ...]:
            # `torch.autograd.grad` inside `torch.compile` would drop the second order silently.
            return (grad(loss)(z.contexts, seen),)

        return slopes

    def _moving(self, loss: Callable, points: Tensor) -> Callable[[Latents], tuple[Tensor, ...]]:
        """The slopes in contexts and poses, in their frames."""
        geometry = self.field.geometry

        def moved(contexts: Tensor, velocity: Tensor, z: Latents) -> Tensor:
            seen = self.field.look(points, geometry.exp(z.poses, velocity), z.windows)
            return loss(contexts, seen)

        def slopes(z: Latents) -> tuple[Tensor, ...]:
            rest = z.contexts.new_zeros(*z.contexts.shape[:-1], geometry.velocity_dim)
            return grad(moved, argnums=(0, 1))(z.contexts, rest, z)

        return slopes

    def _stepped(self, z: Latents, slope: Tensor, force: Tensor | None = None) -> Latents:
        """One step down."""
        contexts = z.contexts - self.latents * self.context_rate * slope
        if force is None:
            return Latents(z.poses, contexts, z.windows)
        poses = self.field.geometry.exp(z.poses, -self.latents * self.log_pose_rate.exp() * force)
        return Latents(poses, contexts, z.windows)


def _weighted(
    values: Tensor, variance: Tensor | None, measure: Tensor | None, noise: float
) -> tuple[Tensor, Tensor]:
    """Values with 0 for NaN, and weights that sum to 1 over what is observed of each state."""
    observed = ~values.isnan()
    weights = observed.to(values)
    if variance is not None:
        # Not `weights / variance`: a NaN variance of an absent value must not become NaN · 0.
        weights = torch.where(observed, 1 / (variance + noise), 0.0)
    if measure is not None:
        weights = weights * measure.to(weights)[:, None]
    total = weights.sum((1, 2), keepdim=True)
    return torch.where(observed, values, 0.0), weights / torch.where(total > 0, total, 1.0)
