"""Messages between latents: mᵢ = Σⱼ Kᵢⱼ ⊙ hⱼ, one weight per edge and channel.

Of each channel this is the product of a sparse matrix, the kernel, and the features of a batch of states. All
channels together are one block-diagonal sparse matrix, and one call multiplies it: nothing of the size
(channels, edges, batch) is ever formed, neither on the way forth nor, with Kᵀ, on the way back.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch_geometric.nn import MessagePassing


@dataclass(frozen=True)
class Edges:
    """Who hears whom, and the same as `channels` diagonal blocks of one sparse matrix.

    Attributes:
        graph: sparse (nodes, nodes), all of whose rows hold equally many: row i the latents that i hears.
        channels: how many blocks there are at most.
    """

    graph: Tensor
    channels: int

    @classmethod
    def of(cls, sources: Tensor, count: int, channels: int) -> "Edges":
        """Node i hears from sources[…, i, :] (…, N, k), of `count` nodes; a batch is a disjoint union."""
        nodes, k = sources.shape[:-1].numel(), sources.shape[-1]
        offset = torch.arange(0, nodes, count, device=sources.device).repeat_interleave(count * k)
        columns = (sources.flatten() + offset).int()
        with warnings.catch_warnings():
            # "Sparse CSR tensor support is in beta state", told at the first one of a process.
            warnings.simplefilter("ignore", UserWarning)
            return cls(_matrix(_starts(nodes, k, columns), columns, columns.new_ones(len(columns))), channels)

    @property
    def nodes(self) -> int:
        return self.graph.shape[0]

    @property
    def all_pairs(self) -> bool:
        return self.graph.col_indices().numel() == self.nodes**2

    @cached_property
    def blocks(self) -> tuple[Tensor, Tensor]:
        """Where the rows of all channels begin (channels·nodes + 1,), and their columns (channels·E,)."""
        sources = self.graph.col_indices()
        return _starts(self.nodes * self.channels, len(sources) // self.nodes, sources), self._repeated(
            sources
        )

    @cached_property
    def order(self) -> Tensor:
        """Edges (E,) in the order of who is heard."""
        return self.graph.col_indices().argsort()

    @cached_property
    def transposed(self) -> tuple[Tensor, Tensor]:
        """As `blocks`, of the transposed matrix."""
        sources = self.graph.col_indices()
        heard = torch.bincount(sources, minlength=self.nodes).repeat(self.channels).cumsum(0)
        hearers = (self.order // (len(sources) // self.nodes)).int()
        return torch.cat([heard.new_zeros(1), heard]).int(), self._repeated(hearers)

    def _repeated(self, nodes: Tensor) -> Tensor:
        channels = torch.arange(self.channels, device=nodes.device, dtype=nodes.dtype)
        return (channels[:, None] * self.nodes + nodes).flatten()


@dataclass(frozen=True)
class Kernel:
    """K.

    Attributes:
        values: (channels, E).
    """

    values: Tensor
    edges: Edges

    @cached_property
    def transposed(self) -> Tensor:
        """The values of Kᵀ, without a history."""
        return self.values.detach().index_select(1, self.edges.order)


class SeparableMessage(MessagePassing):
    """mᵢ = Σⱼ Kᵢⱼ ⊙ hⱼ for features h (channels, nodes, batch).

    When every pair of nodes is an edge, this is one dense product per channel.
    """

    def __init__(self) -> None:
        super().__init__(aggr="sum", node_dim=-2)

    def forward(self, h: Tensor, kernel: Kernel) -> Tensor:
        return self.propagate(kernel.edges.graph, h=h, kernel=kernel)

    def message_and_aggregate(self, edge_index: Tensor, h: Tensor, kernel: Kernel) -> Tensor:
        if kernel.edges.all_pairs:
            return torch.bmm(kernel.values.unflatten(-1, tuple(edge_index.shape)), h)
        return _SparseProduct.apply(h, kernel.values, kernel)


class _SparseProduct(torch.autograd.Function):
    """m = K h; with the gradient g of m, that of h is Kᵀ g and that of K is g hᵀ at the edges."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, values: Tensor, kernel: Kernel) -> Tensor:
        ctx.kernel = kernel
        ctx.save_for_backward(h)
        return _product(values, kernel.edges.blocks, h)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (h,), kernel = ctx.saved_tensors, ctx.kernel
        slope = slope.contiguous()
        of_h = of_values = None
        if ctx.needs_input_grad[0]:
            of_h = _product(kernel.transposed, kernel.edges.transposed, slope)
        if ctx.needs_input_grad[1]:
            starts, columns = _of_first(kernel.edges.blocks, kernel.values)
            of_values = torch.zeros_like(kernel.values)
            outer = _matrix(starts, columns, of_values.view(-1))
            torch.sparse.sampled_addmm(outer, slope.flatten(0, 1), h.flatten(0, 1).T, beta=0.0, out=outer)
        return of_h, of_values, None


def _product(values: Tensor, blocks: tuple[Tensor, Tensor], h: Tensor) -> Tensor:
    """The block-diagonal sparse matrix of `values` (channels, E), laid out as `blocks`, times h."""
    starts, columns = _of_first(blocks, values)
    rows, weights = h.flatten(0, 1), values.flatten()
    return functional.embedding_bag(
        columns, rows, starts, mode="sum", per_sample_weights=weights, include_last_offset=True
    ).view_as(h)


def _of_first(blocks: tuple[Tensor, Tensor], values: Tensor) -> tuple[Tensor, Tensor]:
    """As many of the blocks as there are channels."""
    starts, columns = blocks
    rows = (len(starts) - 1) * values.numel() // len(columns)
    return starts[: rows + 1], columns[: values.numel()]


def _starts(rows: int, each: int, like: Tensor) -> Tensor:
    return torch.arange(0, rows * each + 1, each, device=like.device, dtype=like.dtype)


def _matrix(starts: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """The square sparse matrix with these rows."""
    size = len(starts) - 1
    return torch.sparse_csr_tensor(starts, columns, values, (size, size), check_invariants=False)
