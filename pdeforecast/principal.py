"""Encoding by one exact step, where the group does not make all latents of one.

On a homogeneous lattice every latent is every other one, moved; `preconditioner.py` learns how two of them
are related as they see each other. Elsewhere, where space has walls or latents have frames of their own,
hardly two pairs see each other alike, and what is learned of the states is their *principal modes*,
common to all variables, from states that were moved at random by the group:

    c = c₀ + L w,      w ~ N(0, 1) in `rank` dimensions,      f = A c.

Given observations y with error variance r, the most likely state is again one exact step,

    w = (Bᵀ B + 1)⁻¹ Bᵀ R^(−½) (y − A c₀),      B = R^(−½) A L,

for any share of the points of any of the variables: what is seen of one of them tells of the others as the
modes do. R holds, as there, the variance of what the field cannot represent, over the part of the space that
an observation represents. What the modes leave, d ~ N(0, D), each latent holds for itself (`local_prior.py`):
then A D Aᵀ + R stands in place of R, and d is found from y − A (c₀ + L w), which together is the most likely
c₀ + L w + d. Where points and functions are too many for a dense factor of that, w takes what the modes leave
for errors that no two places share; among so many points they hardly matter.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pdeforecast.kept import Kept
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField
from pdeforecast.local_prior import LocalPrior
from pdeforecast.observed import observed
from pdeforecast.preconditioner import FIRST_NOISE, ExactStep, means, same

FINE_NOISE = 1e-3
"""The first where modes do not tell all. With less, contexts grow along directions that no field value
shows, which a network then has to tell from the others."""
_LEAST_NOISE = 1e-12
_LEAST_SHARE = 1e-13
"""Modes whose variance is a smaller share of the largest one's are rounding errors of the states."""
_LEAST_SPREAD = 0.01
"""The least variance of a mode's field, in units of the noise: few states tell too little of small modes."""
_NEGLIGIBLE = 1e-3
"""If modes leave a smaller share of the variance of every variable, states are their modes and no more."""
_MANY_ORBITS, _BANDS = 1024, 8
"""Of more orbits than that, those beside one another share what a latent holds by itself, in such bands."""
_PLACES = 4
"""Places per function of a latent at which fields are compared while modes are learned."""

Step = Callable[[Tensor], Tensor]
"""w (batch, rank) from residuals (batch, M, channels)."""


class PrincipalSGD(nn.Module):
    """Observations of a state → latents on the lattice, by the exact step above, in float64.

    Args:
        field: the field, linear in its contexts.
        latents: N, the size of the lattice.
        window: σ of the Gaussian windows, in units of the lattice spacing.
        rank: how many modes are kept.
        fine_noise: with which states are encoded anew that modes do not tell.
        first_noise: with which they are encoded before anything is learned.

    Attributes:
        initial: c₀ (orbits, context_dim), one per orbit of the group.
        modes: L (N·context_dim, rank); zero before anything is learned, when the prior is N(0, 1) for
            every context, and fewer where the states have fewer.
        unexplained: (channels,), the variance of what the modes leave.
        noise: (channels,), the variance of what the field cannot represent.
        local: how what the modes leave is held.
    """

    poses: Tensor
    windows: Tensor
    orbit: Tensor
    initial: Tensor
    modes: Tensor
    unexplained: Tensor
    noise: Tensor

    def __init__(
        self,
        field: LinearField,
        latents: int,
        window: float,
        rank: int,
        fine_noise: float = FINE_NOISE,
        first_noise: float = FIRST_NOISE,
    ) -> None:
        super().__init__()
        poses = field.geometry.lattice(latents)
        widths = torch.full((latents,), window * field.geometry.spacing(latents), dtype=torch.float64)
        orbit = same(field.geometry.between(poses, poses))
        self.field = field
        self.fine_noise = fine_noise
        self.register_buffer("poses", poses, persistent=False)
        self.register_buffer("windows", widths, persistent=False)
        self.register_buffer("orbit", orbit, persistent=False)
        self.register_buffer("initial", torch.zeros(int(orbit.max()) + 1, field.context_dim))
        self.register_buffer("modes", torch.zeros(latents * field.context_dim, rank))
        first = first_noise if rank else fine_noise
        self.register_buffer("unexplained", torch.full((field.channels,), first, dtype=torch.float64))
        self.register_buffer("noise", torch.full((field.channels,), first, dtype=torch.float64))
        self.local = LocalPrior(field, _merged(orbit))
        self._kept: Kept[tuple[Step, Tensor]] = Kept(1)

    @property
    def centre(self) -> Tensor:
        """c₀ at every latent, (N, context_dim)."""
        return self.initial.double()[self.orbit]

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
        seen = observed(points, values, variance, measure)
        contexts = self.centre.expand(len(values), -1, -1).clone()
        for these, error in seen.alike:
            if error.isfinite().any():
                contexts[these] += self._fitted(seen.points, seen.values[these], error, seen.share)
        return Latents(self.poses, contexts, self.windows)

    def _fitted(self, points: Tensor, values: Tensor, error: Tensor, share: Tensor) -> Tensor:
        """c − c₀ (batch, N, context_dim) of states observed alike: the modes, then what they leave."""
        start = self.field(points, Latents(self.poses, self.centre[None], self.windows))
        residual, away = values - start, values.new_zeros(())
        error = error + self.noise / share
        if self.modes.any():
            step, shown = self._step(points, error, share)
            w = step(residual)
            away = (w @ self.modes.double().T).unflatten(1, self.centre.shape)
            if self.local.silent:
                return away
            residual = residual - torch.einsum("mvr,br->bmv", shown, w)
        return away + self.local(points, residual, error, self.poses, self.windows)

    def _step(self, points: Tensor, error: Tensor, share: Tensor) -> tuple[Step, Tensor]:
        """The step for observations at `points`, and what modes show there; kept for a series of states."""

        def make() -> tuple[Step, Tensor]:
            shown, seen = self.shown(points), error.isfinite()
            if self.local.silent or not self.local.factorised(error):
                coarse = error + (self.unexplained - self.noise) / share
                exact = ExactStep(shown[seen], coarse[seen].rsqrt())
                return (lambda residual: exact(residual[:, seen])), shown
            weighed = self.local.weighed(points, shown.movedim(2, 0), error, self.poses, self.windows)
            gram = weighed[:, seen] @ shown[seen]
            factor = torch.linalg.cholesky((gram + gram.T) / 2 + torch.eye(len(gram)).to(gram))
            return (lambda r: torch.cholesky_solve(weighed[:, seen] @ r[:, seen].T, factor).T), shown

        return self._kept((points, error, share, self.modes), make)

    def shown(self, points: Tensor) -> Tensor:
        """A L: what each mode shows at the points, (M, channels, rank)."""
        return self._fields(self._design(points), self.modes.double())

    def _design(self, points: Tensor) -> Tensor:
        return self.field.design(points, self.poses, self.windows)

    def learn_prior(self, contexts: Tensor, noise: Tensor) -> bool:
        """Sets c₀, L and the noise from encoded training states, each moved at random by the group.

        c₀ is their mean, averaged over the latents of an orbit. With C the centred contexts of n states and F
        their fields, F Fᵀ/n = W Λ Wᵀ, the modes are L = Cᵀ W / √n for the largest Λ: combinations of the
        states whose fields are orthogonal, as large as they vary, or as a hundredth of the noise does.

        Args:
            contexts: (states, N, context_dim).
            noise: (channels,), the mean square of what the modes left unexplained.

        Returns:
            Whether it is done; else the states are to be encoded anew, for modes do not tell all of them.
        """
        contexts = contexts.double()
        hasty = not self.modes.any() and bool((self.noise < self.fine_noise).all())
        self.initial.copy_(means(contexts.mean(0), self.orbit, len(self.initial)))
        centred = contexts - self.centre
        metric = self._metric(len(contexts))
        seen = self._fields(metric, centred.flatten(1).T).flatten(0, 1) / self.field.channels**0.5
        size, weights = _principal(seen.T)
        kept = size.flip(0)[: self.modes.shape[1]] > _LEAST_SHARE * size[-1]
        size, weights = size.flip(0)[: len(kept)][kept], weights.flip(1)[:, : len(kept)][:, kept]
        wider = (1 + _LEAST_SPREAD * float(noise.mean()) / size).sqrt()
        self.modes.zero_()
        modes = wider * (centred.flatten(1).T @ weights) / len(contexts) ** 0.5
        self.modes[:, : len(wider)] = modes.to(self.modes)
        rest = centred - (weights @ (weights.T @ centred.flatten(1))).view_as(centred)
        left = self._fields(metric, rest.flatten(1).T).square().sum(0).mean(-1)
        self.noise.copy_(noise.double().clamp_min(_LEAST_NOISE))
        self.unexplained.copy_(self.noise + left)
        if bool((left < _NEGLIGIBLE).all()):
            self.unexplained.copy_(self.noise)
            self.local.be_silent()
        elif hasty:
            self.initial.zero_()
            self.modes.zero_()
            self.noise.fill_(self.fine_noise)
            return False
        else:
            self.local.learn(rest)
        return True

    def _metric(self, states: int) -> Tensor:
        """M (K, N·functions): |M c|² is the mean square of a channel's field.

        It is A at many places, or, for more states than a channel has numbers, R of A = Q R.
        """
        space = self.field.geometry
        count = _PLACES * self.field.functions * len(self.poses)
        design = self._design(space.place(space.lattice(count)).to(self.poses)) * count**-0.5
        if states <= design.shape[1]:
            return design
        return torch.linalg.qr(design.to_dense(), mode="r").R

    def _fields(self, design: Tensor, columns: Tensor) -> Tensor:
        """A c of every channel (K, channels, n), for n columns c of contexts (N·context_dim, n)."""
        channels = columns.unflatten(0, (len(self.poses), self.field.channels, -1)).unbind(1)
        return torch.stack([design @ part.flatten(0, 1) for part in channels], dim=1)

    def reading(self) -> Tensor:
        """L⁺ (rank, N·context_dim): w = L⁺ (c − c₀), in the least-squares sense."""
        return torch.linalg.pinv(self.modes.double(), rtol=1e-9)


def _principal(fields: Tensor) -> tuple[Tensor, Tensor]:
    """Λ, rising, and W of F Fᵀ/n = W Λ Wᵀ for fields F (n, K·channels), by the smaller Gram matrix."""
    scaled = fields / len(fields) ** 0.5
    if len(scaled) <= scaled.shape[1]:
        return torch.linalg.eigh(scaled @ scaled.T)
    size, directions = torch.linalg.eigh(scaled.T @ scaled)
    return size, scaled @ directions / size.clamp_min(torch.finfo(size.dtype).tiny).sqrt()


def _merged(orbit: Tensor) -> Tensor:
    """Orbits (N,), or, if they are many, bands of those that follow one another on the lattice."""
    count = int(orbit.max()) + 1
    if count <= _MANY_ORBITS:
        return orbit
    places = torch.arange(len(orbit), device=orbit.device)
    first = places.new_full((count,), len(orbit)).scatter_reduce(0, orbit, places, "amin")
    return first.argsort().argsort()[orbit] * _BANDS // count
