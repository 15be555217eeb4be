"""Encoding by one exact step, where the group does not make all latents of one.

On a homogeneous lattice every latent is every other one, moved; `preconditioner.py` learns how two of them
are related as they see each other. Elsewhere, where space has walls or latents have frames of their own,
hardly two pairs see each other alike, and what is learned of the states is their *principal modes*,
common to all variables, from states that were moved at random by the group:

    c = c₀ + L w,      w ~ N(0, 1) in `rank` dimensions,      f = A c.

Given observations y with error variance r, the most likely state is again one exact step,

    w = (Bᵀ B + 1)⁻¹ Bᵀ R^(−½) (y − A c₀),      B = R^(−½) A L,

for any share of the points of any of the variables: what is seen of one of them tells of the others as the
modes do. R holds, as there, the variance of what the modes leave unexplained, over the part of the space
that an observation represents.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pdeforecast.encoder import merge_duplicates
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField
from pdeforecast.preconditioner import ExactStep, alike, means, same

_LEAST_NOISE = 1e-12
_LEAST_SHARE = 1e-13
"""Modes whose variance is a smaller share of the largest one's are rounding errors of the states."""
_LEAST_SPREAD = 0.01
"""The least variance of a mode's field, in units of the noise: few states tell too little of small modes."""
_ENOUGH = 4
"""Observations per number that are used before anything is learned, when all numbers are unknown."""
_PLACES = 64
"""Places per latent at which fields are compared while modes are learned."""


class PrincipalSGD(nn.Module):
    """Observations of a state → latents on the lattice, by the exact step above, in float64.

    Args:
        field: the field, linear in its contexts.
        latents: N, the size of the lattice.
        window: σ of the Gaussian windows, in units of the lattice spacing.
        rank: how many modes are kept.

    Attributes:
        initial: c₀ (orbits, context_dim), one per orbit of the group.
        modes: L (N·context_dim, rank); zero before anything is learned, when the prior is N(0, 1) for
            every context, and fewer where the states have fewer.
        noise: (channels,), the variance of what the modes cannot represent.
    """

    poses: Tensor
    windows: Tensor
    orbit: Tensor
    initial: Tensor
    modes: Tensor
    noise: Tensor

    def __init__(self, field: LinearField, latents: int, window: float, rank: int) -> None:
        super().__init__()
        poses = field.geometry.lattice(latents)
        widths = torch.full((latents,), window * field.geometry.spacing(latents), dtype=torch.float64)
        orbit = same(field.geometry.between(poses, poses))
        self.field = field
        self.register_buffer("poses", poses, persistent=False)
        self.register_buffer("windows", widths, persistent=False)
        self.register_buffer("orbit", orbit, persistent=False)
        self.register_buffer(
            "initial", torch.zeros(int(orbit.max()) + 1, field.context_dim, dtype=torch.float64)
        )
        self.register_buffer("modes", torch.zeros(latents * field.context_dim, rank))
        self.register_buffer("noise", torch.full((field.channels,), 1e-6, dtype=torch.float64))
        self._last: tuple[tuple[Tensor, ...], ExactStep] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

    @property
    def centre(self) -> Tensor:
        """c₀ at every latent, (N, context_dim)."""
        return self.initial[self.orbit]

    def forward(
        self,
        points: Tensor,
        values: Tensor,
        variance: Tensor | None = None,
        measure: Tensor | None = None,
    ) -> Latents:
        """The most likely latents of each state of a batch.

        Args:
            points: (M, point_dim), shared by the batch.
            values: (batch, M, channels); NaN where not observed.
            variance: of the observations' errors, like `values`; none means exact observations.
            measure: (M,), the part of the space that each point represents, in units of their mean;
                none means all alike.
        """
        points, values, variance = merge_duplicates(points, values, variance)
        points, values = points.double(), values.double()
        error = self.noise / (1.0 if measure is None else measure.to(points)[:, None])
        error = error + (torch.zeros_like(values) if variance is None else variance.double())
        error = error.where(~values.isnan(), torch.inf)
        contexts = self.centre.expand(len(values), -1, -1).clone()
        patterns, member = error.unique(dim=0, return_inverse=True)
        for i, pattern in enumerate(patterns):
            if pattern.isfinite().any():
                contexts[member == i] += self._fitted(points, values[member == i], pattern)
        return Latents(self.poses, contexts, self.windows)

    def _fitted(self, points: Tensor, values: Tensor, error: Tensor) -> Tensor:
        """c − c₀ (batch, N, context_dim) of states observed alike."""
        seen = error.isfinite()
        start = self.field(points, Latents(self.poses, self.centre[None], self.windows))
        residual = values - start
        if self.modes.any():
            step = self._step(points, error)
            return (step(residual[:, seen]) @ self.modes.double().T).unflatten(1, self.centre.shape)
        parts, last = [], None
        for v in range(self.field.channels):
            chosen = _some(seen[:, v].nonzero()[:, 0], _ENOUGH * self.field.functions * len(self.poses))
            key = chosen, error[chosen, v]
            if last is None or not alike(last[0], key):
                last = key, ExactStep(self._design(points[chosen]).to_dense(), key[1].rsqrt())
            parts.append(last[1](residual[:, chosen, v]).unflatten(1, (len(self.poses), -1)))
        return torch.cat(parts, dim=-1)

    def _step(self, points: Tensor, error: Tensor) -> ExactStep:
        """The step for observations at `points`; the last one is kept, for a series of states."""
        key = (points, error, self.modes)
        if self._last is None or not alike(self._last[0], key):
            step = ExactStep(self.shown(points)[error.isfinite()], error[error.isfinite()].rsqrt())
            self._last = tuple(tensor.clone() for tensor in key), step
        return self._last[1]

    def shown(self, points: Tensor) -> Tensor:
        """A L: what each mode shows at the points, (M, channels, rank)."""
        design = self._design(points)
        columns = self.modes.double().unflatten(0, (len(self.poses), self.field.channels, -1))
        return torch.stack([design @ part.flatten(0, 1) for part in columns.unbind(1)], dim=1)

    def _design(self, points: Tensor) -> Tensor:
        return self.field.design(points, self.poses, self.windows)

    def learn_prior(self, contexts: Tensor, noise: Tensor) -> None:
        """Sets c₀, L and the noise from encoded training states, each moved at random by the group.

        c₀ is their mean, averaged over the latents of an orbit. With C the centred contexts of n states and F
        their fields, F Fᵀ = W Λ Wᵀ, the modes are L = Cᵀ W / √n for the largest Λ: combinations of the states
        whose fields are orthogonal, as large as they vary, or as a hundredth of the noise does.

        Args:
            contexts: (states, N, context_dim).
            noise: (channels,), the mean square of what the modes left unexplained.
        """
        contexts = contexts.double()
        self.initial.copy_(means(contexts.mean(0), self.orbit, len(self.initial)))
        centred = contexts - self.centre
        space = self.field.geometry
        points = space.place(space.lattice(_PLACES * len(self.poses))).to(self.poses)
        fields = self.field(points, Latents(self.poses, centred, self.windows)).flatten(1)
        size, weights = torch.linalg.eigh(fields @ fields.T / (len(fields) * fields.shape[1]))
        kept = size.flip(0)[: self.modes.shape[1]] > _LEAST_SHARE * size[-1]
        size, weights = size.flip(0)[: len(kept)][kept], weights.flip(1)[:, : len(kept)][:, kept]
        wider = (1 + _LEAST_SPREAD * float(noise.mean()) / size).sqrt()
        self.modes.zero_()
        modes = wider * (centred.flatten(1).T @ weights) / len(contexts) ** 0.5
        self.modes[:, : len(wider)] = modes.to(self.modes)
        self.noise.copy_(noise.double().clamp_min(_LEAST_NOISE))

    def reading(self) -> Tensor:
        """L⁺ (rank, N·context_dim): w = L⁺ (c − c₀), in the least-squares sense."""
        return torch.linalg.pinv(self.modes.double(), rtol=1e-9)


def _some(index: Tensor, most: int) -> Tensor:
    """At most `most` of the indices, drawn at random, the same ones every time."""
    if len(index) <= most:
        return index
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))
    return index[order[:most].sort().values.to(index.device)]
