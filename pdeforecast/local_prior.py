"""What the principal modes leave, held by every latent for itself.

Fields with fine structure have more modes than can be learned or stored. Once the large scales are in the
modes (`principal.py`), what is left is taken to be independent from latent to latent,

    d ~ N(0, D),      D = diag(Dᵢ),

with a covariance Dᵢ of the functions of each variable that depends on a latent through what it sees of
itself alone, as an equivariant prior must. Given what observations leave unexplained, r with error
variance R, the most likely d is again one exact step,

    d = D^½ (Bᵀ B + 1)⁻¹ Bᵀ R^(−½) r,      B = R^(−½) A D^½,

for every variable alone. As a point sees few latents, A and B are sparse, and Bᵀ B is nearly so.
"""

import torch
from torch import Tensor, nn

from pdeforecast.kept import Kept
from pdeforecast.linear_field import LinearField
from pdeforecast.preconditioner import means

_JITTER = 1e-9
"""Added to Dᵢ, in units of its mean variance, so that its Cholesky factor exists."""


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
            return LocalStep(rows, error.rsqrt()), factors

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
        rows: A D^½ (M, N·functions), CSR.
        precision: R^(−½), (M,).
    """

    def __init__(self, rows: Tensor, precision: Tensor) -> None:
        counts = rows.crow_indices().diff()
        scaled = rows.values() * precision.repeat_interleave(counts)
        self.precision = precision
        self.b = torch.sparse_csr_tensor(
            rows.crow_indices(), rows.col_indices(), scaled, rows.shape, check_invariants=False
        )
        self.transposed = self.b.to_sparse_coo().t().to_sparse_csr()
        self.many = rows.shape[0] > rows.shape[1]
        pair = (self.transposed, self.b) if self.many else (self.b, self.transposed)
        gram = (pair[0] @ pair[1]).to_dense()
        gram.diagonal().add_(1.0)
        self.gram = torch.linalg.cholesky(gram)

    def __call__(self, residual: Tensor) -> Tensor:
        """w (batch, N·functions) for residuals (batch, M)."""
        white = (self.precision * residual).T.contiguous()
        if self.many:
            return torch.cholesky_solve(self.transposed @ white, self.gram).T
        return (self.transposed @ torch.cholesky_solve(white, self.gram)).T
