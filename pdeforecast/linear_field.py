"""The equivariant field that is linear in its contexts.

    f(x; z) = Σᵢ wᵢ(x) φ(a(x, pᵢ))ᵀ cᵢ,      w = softmax over the k nearest latents of ln windowᵢ(x)

It is the bi-invariant cross-attention of `field.py` with the content taken out of queries, keys and
FiLM: attention comes from geometry alone. φ are products of Chebyshev polynomials in the normal
coordinates of x about the pose, so a context holds the local expansion of the state as its pose
sees it. Because f is linear in c, encoding is a least-squares problem with an exact answer.
"""

import warnings

import torch
from torch import Tensor, nn

from pdeforecast.geometry import Geometry
from pdeforecast.kept import Kept
from pdeforecast.latents import Latents
from pdeforecast.neighbours import block_size, gather, search, seen

# What is used of it, products with dense matrices and their gradients, is covered by our tests.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")

_KEPT, _KEPT_POINTS = 4, 2**14
"""Searches whose answers are kept, and of how many points at most."""


class LinearField(nn.Module):
    """A field with (degree + 1)^chart_dim local functions per latent and channel.

    Args:
        geometry: the space.
        channels: the number of variables.
        degree: the highest degree of a polynomial along each axis of the chart.
        neighbours: k, how many latents a point attends to; 0 for all.
        radius: the scale of the charts: the distance at which the polynomials' argument is 1.
    """

    linear = True

    def __init__(
        self, geometry: Geometry, channels: int, degree: int, neighbours: int, radius: float
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.channels = channels
        self.degree = degree
        self.neighbours = neighbours
        self.radius = radius
        self.functions = (degree + 1) ** geometry.chart_dim
        self.context_dim = channels * self.functions
        self._kept: Kept[Tensor] = Kept(_KEPT)

    def basis(self, a: Tensor) -> Tensor:
        """φ(a): (…, functions), products of Chebyshev polynomials T_n(chart / radius)."""
        return self._polynomials(self.geometry.chart(a))

    def rows(self, points: Tensor, poses: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
        """The non-zero entries of the design matrix: neighbours (…, M, k) and wᵢφ (…, M, k, F)."""
        return self._rows(points, poses, windows, self._search(points, poses))

    def design(self, points: Tensor, poses: Tensor, windows: Tensor, factors: Tensor | None = None) -> Tensor:
        """A (M, N·functions), sparse (CSR): values at the points are A times one channel's contexts.

        Args:
            factors: (N, F, F), by which each latent's functions are multiplied; none means one.
        """
        index, values = self.rows(points, poses, windows)
        if factors is not None:
            values = torch.einsum("mkf,mkfg->mkg", values, factors[index])
        order = index.argsort(-1)
        values = values.gather(-2, order[..., None].expand_as(values))
        return _sparse(index.gather(-1, order), values, poses.shape[-2])

    def forward(self, points: Tensor, latents: Latents) -> Tensor:
        """f at points (M, point_dim) or (batch, M, point_dim): (batch, M, channels)."""
        points, batch = points.to(latents.contexts), latents.contexts.shape[0]
        if latents.shared and points.ndim == 2:
            columns = self.columns(latents.contexts)
            values = torch.cat(self._products(points, latents, columns))
            return values.view(-1, batch, self.channels).transpose(0, 1)
        index, values = self.rows(points, latents.poses, latents.windows)
        contexts = gather(latents.contexts, index).unflatten(-1, (self.channels, self.functions))
        return torch.einsum("...mkf,...mkcf->...mc", values, contexts)

    def _products(self, points: Tensor, z: Latents, columns: Tensor) -> list[Tensor]:
        """A @ columns, a block of rows at a time: their entries stay in the cache."""
        index = self._search(points, z.poses)
        size = block_size(points.device)
        per_point = index.split(size) if index.ndim == 2 else [index] * len(points.split(size))
        products = []
        for x, i in zip(points.split(size), per_point, strict=True):
            neighbours, values = self._rows(x, z.poses, z.windows, i)
            products.append(_sparse(neighbours, values, z.count) @ columns)
        return products

    def _search(self, points: Tensor, poses: Tensor) -> Tensor:
        """`search`; answers are kept, for a state is encoded, carried and shown at the same points."""
        if points.ndim > 2 or poses.ndim > 2 or len(points) > _KEPT_POINTS:
            return search(self.geometry, points, poses, self.neighbours)
        key = points.detach(), poses.detach()
        return self._kept(key, lambda: search(self.geometry, points, poses, self.neighbours))

    def _rows(self, points: Tensor, poses: Tensor, windows: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        there = poses[..., None, :, :] if found.ndim == 1 else gather(poses, found)
        chart = self.geometry.chart(self.geometry.relative(points[..., :, None, :], there))
        near = seen(chart, found, windows, self.neighbours)
        weights = near.nearness.softmax(-1)[..., None]
        return near.index, weights * self._polynomials(chart[..., : weights.shape[-2], :])

    def _polynomials(self, chart: Tensor) -> Tensor:
        """Products of T_n(chart / radius), (…, functions)."""
        u = chart / self.radius
        powers = [torch.ones_like(u), u]
        while len(powers) <= self.degree:
            powers.append(2 * u * powers[-1] - powers[-2])
        axes = torch.stack(powers[: self.degree + 1], dim=-1).unbind(-2)
        product = axes[0]
        for axis in axes[1:]:
            product = (product[..., :, None] * axis[..., None, :]).flatten(-2)
        return product

    def columns(self, contexts: Tensor) -> Tensor:
        """Contexts (batch, N, channels·F) as the right-hand sides (N·F, batch·channels) of A."""
        split = contexts.unflatten(-1, (self.channels, self.functions))
        return split.permute(1, 3, 0, 2).flatten(2).flatten(0, 1)


def _sparse(index: Tensor, values: Tensor, latents: int) -> Tensor:
    """The CSR matrix (M, N·F) with values (M, k, F) in the columns of the latents `index` (M, k)."""
    m, k, f = values.shape
    columns = index[..., None] * f + torch.arange(f, device=index.device)
    starts = torch.arange(m + 1, device=index.device) * (k * f)
    return torch.sparse_csr_tensor(
        starts, columns.reshape(-1), values.reshape(-1), (m, latents * f), check_invariants=False
    )
