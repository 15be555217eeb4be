"""What the principal modes leave, held by every latent for itself.

Fields with fine structure have more modes than can be learned or stored. Once the large scales are in the
modes (`principal.py`), what is left is taken to be independent from latent to latent,

    d ~ N(0, D),      D = diag(Dᵢ),

with a covariance Dᵢ of the functions of each variable that depends on a latent through what it sees of
itself alone, as an equivariant prior must. Given what observations leave unexplained, r with error
variance R, the most likely d is again one exact step,

    d = D^½ (Bᵀ B + 1)⁻¹ Bᵀ R^(−½) r,      B = R^(−½) A D^½,

for every variable alone. As a point sees few latents, A and B are sparse, and Bᵀ B is nearly so. Where points
and functions are too many for a dense factor, the step is taken by conjugate gradients, with the diagonal
blocks of Bᵀ B + 1, one for each latent, as their preconditioner (J. R. Shewchuk, An introduction to the
conjugate gradient method, 1994).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pdeforecast.kept import Kept
from pdeforecast.linear_field import LinearField
from pdeforecast.preconditioner import means

_JITTER = 1e-9
"""Added to Dᵢ, in units of its mean variance, so that its Cholesky factor exists."""
_DENSE = 8192
"""The most rows of a matrix that is factorised."""
_EXACT = 3e-4
"""Conjugate gradients end at this residual, in units of the right-hand side, in the preconditioner's norm."""
_DESCENTS = 400
"""And after so many steps at the latest."""


class LocalPrior(nn.Module):
    """Deviations from the modes, by the exact step above, in float64.

    Args:
        field: the field, linear in its contexts.
        orbit: (N,), which latents the group makes of one another.

    Attributes:
        covariance: Dᵢ in blocks (channels, orbits, functions, functions); one before anything is learned,
            zero where the modes tell all.
    """

    covariance: Tensor
    orbit: Tensor

    def __init__(self, field: LinearField, orbit: Tensor) -> None:
        super().__init__()
        shape = (field.channels, int(orbit.max()) + 1, 1, 1)
        self.field = field
        self.register_buffer("orbit", orbit, persistent=False)
        self.register_buffer("covariance", torch.eye(field.functions, dtype=torch.float64).repeat(shape))
        self._kept: Kept[tuple[LocalStep, Tensor]] = Kept(2 * field.channels)

    @property
    def silent(self) -> bool:
        """Whether there is nothing but the modes."""
        return not self.covariance.any()

    def forward(
        self, points: Tensor, residual: Tensor, error: Tensor, poses: Tensor, windows: Tensor
    ) -> Tensor:
        """d (batch, N, context_dim) from the residual (batch, M, channels).

        Args:
            error: (M, channels), the variance of the residual's errors; infinite where nothing is observed.
        """
        parts = []
        for v in range(self.field.channels):
            seen = error[:, v].isfinite()
            if seen.any():
                step, factors = self._step(v, points[seen], error[seen, v], poses, windows)
                white = step(residual[:, seen, v]).unflatten(1, (len(poses), -1))
                parts.append(torch.einsum("nfg,bng->bnf", factors, white))
            else:
                parts.append(residual.new_zeros(len(residual), len(poses), self.field.functions))
        return torch.cat(parts, dim=-1)

    def factorised(self, error: Tensor) -> bool:
        """Whether observations with such errors (M, channels) are few enough, or the functions are."""
        return min(int(error.isfinite().sum(0).max()), len(self.orbit) * self.field.functions) <= _DENSE

    def weighed(
        self, points: Tensor, residual: Tensor, error: Tensor, poses: Tensor, windows: Tensor
    ) -> Tensor:
        """(A D Aᵀ + R)⁻¹ r (batch, M, channels): residuals in units of what d and errors explain; zero where
        nothing is observed. Arguments are those of `forward`."""
        found = torch.zeros_like(residual)
        for v in range(self.field.channels):
            seen = error[:, v].isfinite()
            if seen.any():
                step, _ = self._step(v, points[seen], error[seen, v], poses, windows)
                found[:, seen, v] = step.left(residual[:, seen, v])
        return found

    def _step(
        self, v: int, points: Tensor, error: Tensor, poses: Tensor, windows: Tensor
    ) -> tuple["LocalStep", Tensor]:
        """Step and D^½ for observations at `points`; each variable's last two are kept, for states in series
        that are observed at some points and written at others."""

        def make() -> tuple[LocalStep, Tensor]:
            blocks = self.covariance[v]
            jitter = _JITTER * blocks.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] + 1e-30
            factors = torch.linalg.cholesky(blocks + jitter * torch.eye(blocks.shape[-1]).to(blocks))
            factors = factors[self.orbit]
            rows = self.field.design(points, poses, windows, factors)
            return LocalStep(rows, error.rsqrt(), self.field.functions), factors

        return self._kept((points, error, self.covariance[v]), make)

    def learn(self, deviations: Tensor) -> None:
        """Sets D from the deviations (states, N, context_dim) of training states."""
        split = deviations.unflatten(-1, (self.field.channels, -1))
        moments = torch.einsum("snvf,snvg->nvfg", split, split) / len(split)
        self.covariance.copy_(means(moments, self.orbit, self.covariance.shape[1]).transpose(0, 1))
        self._kept.clear()

    def be_silent(self) -> None:
        """The modes tell all."""
        self.covariance.zero_()
        self._kept.clear()


class LocalStep:
    """w = (Bᵀ B + 1)⁻¹ Bᵀ R^(−½) r with a sparse B, as a function of r.

    Args:
        rows: A D^½ (M, N·functions), CSR, with the functions of a latent side by side.
        precision: R^(−½), (M,).
        functions: F.
    """

    def __init__(self, rows: Tensor, precision: Tensor, functions: int) -> None:
        counts = rows.crow_indices().diff()
        scaled = rows.values() * precision.repeat_interleave(counts)
        self.precision = precision
        self.b = _narrow(rows, scaled)
        transposed = self.b.to_sparse_coo().t().to_sparse_csr()
        self.transposed = _narrow(transposed, transposed.values())
        self.many = min(rows.shape) > _DENSE or rows.shape[0] > rows.shape[1]
        self.solve = self._iterative(functions) if min(rows.shape) > _DENSE else self._factorised()

    def __call__(self, residual: Tensor) -> Tensor:
        """w (batch, N·functions) for residuals (batch, M)."""
        white = (self.precision * residual).T.contiguous()
        if self.many:
            return self.solve(self.transposed @ white).T
        return (self.transposed @ self.solve(white)).T

    def left(self, residual: Tensor) -> Tensor:
        """R⁻¹ (r − R^½ B w), (batch, M)."""
        white = (self.precision * residual).T
        return self.precision * (white - self.b @ self(residual).T).T

    def _factorised(self) -> Callable[[Tensor], Tensor]:
        """(Bᵀ B + 1)⁻¹, or (B Bᵀ + 1)⁻¹ if that is smaller, of columns."""
        pair = (self.transposed, self.b) if self.many else (self.b, self.transposed)
        gram = (pair[0] @ pair[1]).to_dense()
        gram.diagonal().add_(1.0)
        factor = torch.linalg.cholesky(gram)
        return lambda columns: torch.cholesky_solve(columns, factor)

    def _iterative(self, functions: int) -> Callable[[Tensor], Tensor]:
        """(Bᵀ B + 1)⁻¹ of columns, by conjugate gradients."""
        parts = self.b.values().view(-1, functions)
        latent = self.b.col_indices().view(-1, functions)[:, 0] // functions
        blocks = parts.new_zeros(self.b.shape[1] // functions, functions, functions)
        blocks.index_add_(0, latent, parts[:, :, None] * parts[:, None, :])
        blocks.diagonal(dim1=-2, dim2=-1).add_(1.0)
        inverse = torch.linalg.inv(blocks)

        def apply(x: Tensor) -> Tensor:
            return self.transposed @ (self.b @ x) + x

        def precondition(r: Tensor) -> Tensor:
            return (inverse @ r.view(len(inverse), functions, -1)).view_as(r)

        return lambda columns: _Solution.apply(columns, apply, precondition)


def _narrow(rows: Tensor, values: Tensor) -> Tensor:
    """A sparse matrix with the pattern of `rows` (CSR), by indices of 32 bits: wider ones would be copied to
    such in every product."""
    crow, col = rows.crow_indices().int(), rows.col_indices().int()
    return torch.sparse_csr_tensor(crow, col, values, rows.shape, check_invariants=False)


class _Solution(torch.autograd.Function):
    """x = G⁻¹ y of a symmetric G, whose gradient by y is G⁻¹ of that by x."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, *of: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.of = of
        return conjugate_gradients(y, *of)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        return conjugate_gradients(slopes[0].contiguous(), *ctx.of), None, None


def conjugate_gradients(
    y: Tensor, apply: Callable[[Tensor], Tensor], precondition: Callable[[Tensor], Tensor]
) -> Tensor:
    """x (n, columns) with G x = y, for a symmetric positive G and the inverse of what is like it."""
    x = torch.zeros_like(y)
    r, z = y, precondition(y)
    p, energy = z, (y * z).sum(0)
    enough = _EXACT**2 * energy
    for _ in range(_DESCENTS):
        if bool((energy <= enough).all()):
            break
        q = apply(p)
        # Of what is solved already, as of a column of zeros, nothing is left to step along.
        step = energy / (p * q).sum(0).clamp_min(torch.finfo(y.dtype).tiny)
        x, r = x + step * p, r - step * q
        z = precondition(r)
        before, energy = energy, (r * z).sum(0)
        p = z + energy / before.clamp_min(torch.finfo(y.dtype).tiny) * p
    return x
