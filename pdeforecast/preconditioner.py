"""Encoding by one exact step: Meta-SGD with a learned, geometry-aware preconditioner.

For a field that is linear in its contexts, f(x; c) = A(x) c, the loss of observations y with error
variance r and a Gaussian prior c ~ N(c₀, S) is quadratic,

    ℓ(c) = ½ (y − A c)ᵀ R⁻¹ (y − A c) + ½ (c − c₀)ᵀ S⁻¹ (c − c₀),

so the preconditioned step c ← c₀ − P ∇ℓ(c₀), P = (Aᵀ R⁻¹ A + S⁻¹)⁻¹, lands on its minimum from any share
of the points in any pattern. With S = L Lᵀ and B = R^(−½) A L it reads, for many and for few points,

    c − c₀ = L (Bᵀ B + 1)⁻¹ Bᵀ R^(−½) (y − A c₀)  =  L Bᵀ (B Bᵀ + 1)⁻¹ R^(−½) (y − A c₀).

What is learned is c₀, the prior S and the variance of what the field cannot represent, a part of
R, over the part of the space that an observation represents: where a grid crowds, its observations
share one error. c₀ depends on a latent through what it sees of itself, p⁻¹p, and S on two latents
through their relative pose pᵢ⁻¹pⱼ alone, which is all that an equivariant prior may know: on a lattice
that is periodic in every direction, c₀ is one vector and S is block-circulant.
"""

import torch
from torch import Tensor, nn

from pdeforecast.geometry import Geometry
from pdeforecast.kept import Kept
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField
from pdeforecast.observed import merge_duplicates

_JITTER = 1e-9
"""Added to the prior, in units of its mean variance, so that its Cholesky factor exists."""
FIRST_NOISE = 1e-6
"""Before anything is learned."""
_LEAST_NOISE = 1e-12
"""The least learned noise: a field that holds its data exactly must not divide by zero."""


class PreconditionedSGD(nn.Module):
    """Observations of a state → latents on the lattice, by the exact step above, in float64.

    Args:
        field: the field, linear in its contexts.
        latents: N, the size of the lattice.
        window: σ of the Gaussian windows, in units of the lattice spacing.
        noise: with which states are encoded before anything is learned.

    Attributes:
        initial: c₀ in vectors (channels, orbits, functions), one per orbit of the group.
        covariance: S in blocks (channels, relations, functions, functions), one per relative pose.
        noise: (channels,), the variance of what the field cannot represent.
    """

    poses: Tensor
    windows: Tensor
    relation: Tensor
    orbit: Tensor
    initial: Tensor
    covariance: Tensor
    noise: Tensor

    def __init__(self, field: LinearField, latents: int, window: float, noise: float = FIRST_NOISE) -> None:
        super().__init__()
        geometry, v, f = field.geometry, field.channels, field.functions
        self.field = field
        poses = geometry.lattice(latents)
        widths = torch.full((latents,), window * geometry.spacing(latents), dtype=torch.float64)
        relation = same(geometry.between(poses[:, None], poses[None, :]))
        orbit = same(geometry.between(poses, poses))
        blocks = torch.zeros(v, int(relation.max()) + 1, f, f, dtype=torch.float64)
        blocks[:, relation.diagonal()] = torch.eye(f, dtype=torch.float64)
        self.register_buffer("poses", poses, persistent=False)
        self.register_buffer("windows", widths, persistent=False)
        self.register_buffer("relation", relation, persistent=False)
        self.register_buffer("orbit", orbit, persistent=False)
        self.register_buffer("initial", torch.zeros(v, int(orbit.max()) + 1, f, dtype=torch.float64))
        self.register_buffer("covariance", blocks)
        self.register_buffer("noise", torch.full((v,), noise, dtype=torch.float64))
        self._kept: Kept[tuple[Tensor, Tensor, ExactStep]] = Kept(field.channels)

    @property
    def centre(self) -> Tensor:
        """c₀ at every latent, (N, context_dim)."""
        return self.initial[:, self.orbit].transpose(0, 1).flatten(1)

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
        contexts = torch.stack(
            [self._channel(v, points, values[..., v], error[..., v]) for v in range(self.field.channels)],
            dim=-2,
        )
        return Latents(self.poses, contexts.flatten(-2), self.windows)

    def _channel(self, v: int, points: Tensor, values: Tensor, error: Tensor) -> Tensor:
        """Contexts (batch, N, functions); states observed alike share one factorisation."""
        error = error.where(~values.isnan(), torch.inf)
        latents = self.poses.shape[0]
        start = self.initial[v, self.orbit].flatten()
        contexts = start.repeat(len(values), 1)
        if not error.isfinite().any():
            return contexts.unflatten(-1, (latents, -1))
        member = error.detach().unique(dim=0, return_inverse=True)[1]
        for i in range(int(member.max()) + 1):
            pattern = error[member == i][0]
            seen = pattern.isfinite()
            if seen.any():
                design, factor, step = self._step(v, points[seen], pattern[seen])
                residual = values[member == i][:, seen] - design @ start
                contexts[member == i] = start + step(residual) @ factor.T
        return contexts.unflatten(-1, (latents, -1))

    def _step(self, v: int, points: Tensor, error: Tensor) -> tuple[Tensor, Tensor, "ExactStep"]:
        """Design, prior factor and step for observations at `points`; each variable's last are kept, for a
        series of states."""

        def make() -> tuple[Tensor, Tensor, ExactStep]:
            design, factor = self.field.design(points, self.poses, self.windows), self.prior_factor(v)
            return design, factor, ExactStep(design @ factor, error.rsqrt())

        return self._kept((points, error, self.covariance[v]), make)

    def prior_factor(self, v: int) -> Tensor:
        """L (N·F, N·F) with S = L Lᵀ, for one variable.

        Where a lattice has edges, few pairs have a far relative pose, and a mean over them need not be
        a covariance: what is negative of it is then left out.
        """
        blocks = self.covariance[v][self.relation]
        prior = blocks.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
        prior = 0.5 * (prior + prior.T)
        jitter = _JITTER * prior.diagonal().mean() + _LEAST_NOISE**2
        factor, failed = torch.linalg.cholesky_ex(prior + jitter * torch.eye(len(prior)).to(prior))
        if not failed:
            return factor
        values, vectors = torch.linalg.eigh(prior)
        return vectors * (values.clamp_min(0) + jitter).sqrt()

    def learn_prior(self, contexts: Tensor, noise: Tensor) -> bool:
        """Sets c₀, S and the noise from encoded training states, each moved at random by the group.

        c₀ is the mean and S the covariance of the contexts, averaged over all latents of one orbit
        and all pairs with one relative pose.

        Args:
            contexts: (states, N, channels·functions).
            noise: (channels,), the mean square of what the field left unexplained.

        Returns:
            That it is done.
        """
        split = contexts.double().unflatten(-1, (self.field.channels, self.field.functions))
        mean = means(split.mean(0), self.orbit, self.initial.shape[1])
        self.initial.copy_(mean.transpose(0, 1))
        centred = split - mean[self.orbit]
        for v in range(self.field.channels):
            columns = centred[:, :, v].flatten(1)
            full = (columns.T @ columns / len(columns)).unflatten(0, (len(self.poses), -1))
            pairs = full.unflatten(-1, (len(self.poses), -1)).permute(0, 2, 1, 3).flatten(0, 1)
            self.covariance[v].copy_(means(pairs, self.relation.flatten(), self.covariance.shape[1]))
        self.noise.copy_(noise.double().clamp_min(_LEAST_NOISE))
        return True

    def visible(self) -> Tensor:
        """Π (channels, N·F, N·F): encode what the field shows of a context vector.

        The projection onto the directions of context space that the field can see and the prior
        allows; dynamics restricted to them cannot feed on components that no field value depends on.
        """
        geometry = self.field.geometry
        points = geometry.place(geometry.lattice(64 * len(self.poses))).to(self.poses.device)
        design = self.field.design(points, self.poses, self.windows)
        shown = design.to_dense().T
        made = []
        for v, noise in enumerate(self.noise):
            factor = self.prior_factor(v)
            step = ExactStep(design @ factor, noise.rsqrt().expand(len(points)))
            made.append((step(shown) @ factor.T).T)
        return torch.stack(made)


class ExactStep:
    """w = (Bᵀ B + 1)⁻¹ Bᵀ R^(−½) r with B = R^(−½) A L, as a function of the residual r = y − A c₀.

    Args:
        rows: A L (M, modes): what each mode shows at the observed points.
        precision: R^(−½), (M,).
    """

    def __init__(self, rows: Tensor, precision: Tensor) -> None:
        self.precision = precision
        self.scaled = precision[:, None] * rows
        self.many = len(rows) > rows.shape[1]
        gram = self.scaled.T @ self.scaled if self.many else self.scaled @ self.scaled.T
        self.gram = torch.linalg.cholesky(gram + torch.eye(len(gram)).to(gram))

    def __call__(self, residual: Tensor) -> Tensor:
        """w (batch, modes) for residuals (batch, M)."""
        white = (self.precision * residual).T
        if self.many:
            return torch.cholesky_solve(self.scaled.T @ white, self.gram).T
        return (self.scaled.T @ torch.cholesky_solve(white, self.gram)).T


def homogeneous(geometry: Geometry, latents: int) -> bool:
    """Whether the group makes all latents of a lattice of one: whether each sees the same of the others."""
    poses = geometry.lattice(latents)
    # Two that see the others in different ways are enough to say no, and soon found.
    return all(
        int(same(geometry.between(some[:, None], poses[None, :])).max()) < latents
        for some in (poses[[0, latents // 2]], poses)
    )


def same(between: Tensor) -> Tensor:
    """Which relative poses (…, between_dim) are the same, as numbers (…) from 0."""
    rounded = (between * 1e6).round().flatten(0, -2)
    return rounded.unique(dim=0, return_inverse=True)[1].view(between.shape[:-1])


def means(values: Tensor, member: Tensor, classes: int) -> Tensor:
    """The mean (classes, …) of the values (n, …) of each class."""
    total = values.new_zeros(classes, *values.shape[1:]).index_add_(0, member, values)
    count = member.bincount(minlength=classes).to(values)
    return total / count.view(-1, *[1] * (values.ndim - 1))
