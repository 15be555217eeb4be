"""The linear part of the latent dynamics, learned in closed form.

Near a state, and for equations such as heat everywhere, latents move linearly. In the principal modes w of
the states, with one more that is always 1, the matrix that best carries each frame to the next,

    M = argmin Σ ‖w(t + Δ) − M w(t)‖²,      G = log M / Δ,      dw/dt = G w,

is dynamic mode decomposition (P. J. Schmid, J. Fluid Mech. 656 (2010) 5); e^{tG} carries to any time. As
frames are moved at random by the group before they are learned from, G commutes with it as well as the
modes do. Eigenvalues that would grow are held: what grows is for the network to say.
"""

import math

import torch
from torch import Tensor, nn

_RIDGE = 1e-13
"""Added to the moments of w, in units of their mean: modes may be fewer than their number."""
_FAST = 30.0
"""Eigenvalues of M smaller than e^{−30} are not told from zero."""


class LinearDynamics(nn.Module):
    """dw/dt = G w for w = (w₁ … w_rank, 1).

    Attributes:
        generator: G (rank + 1, rank + 1), in 1/time; its last row is zero.
        sufficient: whether the equation was found to be linear, so that there is nothing else.
    """

    generator: Tensor
    sufficient: Tensor

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.register_buffer("generator", torch.zeros(rank + 1, rank + 1, dtype=torch.float64))
        self.register_buffer("sufficient", torch.tensor(False))

    def learn(self, paths: list[Tensor], gap: float, fastest: float = math.inf) -> None:
        """Fits G to `paths`, each (S, T, rank), of frames `gap` apart.

        Args:
            fastest: a bound on |eigenvalues of G|, in 1/time.
        """
        size = len(self.generator)
        gram, cross = torch.zeros_like(self.generator), torch.zeros_like(self.generator)
        for path in paths:
            full = _with_one(path)
            now, after = full[:, :-1].flatten(0, 1), full[:, 1:].flatten(0, 1)
            gram += now.T @ now
            cross += after.T @ now
        ridge = _RIDGE * gram.diagonal().mean() * torch.eye(size).to(gram)
        matrix = torch.linalg.solve(gram + ridge, cross.T).T
        values, vectors = torch.linalg.eig(matrix)
        rates = torch.complex(values.abs().clamp_min(math.exp(-_FAST)).log(), values.angle()) / gap
        rates = torch.complex(rates.real.clamp_max(0.0), rates.imag)
        rates = rates * (fastest / rates.abs().clamp_min(1e-30)).clamp_max(1.0)
        self.generator.copy_(torch.linalg.solve(vectors.T, (vectors * rates).T).T.real)
        self.generator[-1] = 0.0

    def flow(self, w: Tensor, time: float) -> Tensor:
        """w (…, rank) after a time, exactly."""
        carry = torch.linalg.matrix_exp(time * self.generator).to(w)
        return w @ carry[:-1, :-1].T + carry[:-1, -1]


def _with_one(path: Tensor) -> Tensor:
    path = path.double()
    return torch.cat([path, torch.ones_like(path[..., :1])], dim=-1)
