"""Messages and their gradients, against sums over edges; over graphs, batches and channels."""

import pytest
import torch
from torch import Generator, Tensor

from pdeforecast.messages import Edges, Kernel, SeparableMessage

CHANNELS = 5
SHAPES = ((9, 9, 3), (9, 4, 3), (9, 1, 3), (12, 5, 1))
"""Nodes, neighbours, states."""


def drawn(nodes: int, k: int, states: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sources (nodes, k), features, and a kernel for fewer channels than the graph has room for."""
    draw = Generator().manual_seed(seed)
    sources = torch.rand(nodes, nodes, generator=draw).argsort(-1)[:, :k]
    if k == nodes:
        sources = torch.arange(nodes).expand(nodes, nodes)
    h = torch.randn(CHANNELS, nodes, states, generator=draw, dtype=torch.float64)
    kernel = torch.randn(CHANNELS, nodes * k, generator=draw, dtype=torch.float64)
    return sources, h, kernel


def summed(h: Tensor, kernel: Tensor, sources: Tensor) -> Tensor:
    return (kernel.unflatten(1, sources.shape)[..., None] * h[:, sources]).sum(2)


def sent(h: Tensor, kernel: Tensor, sources: Tensor, count: int) -> Tensor:
    return SeparableMessage()(h, Kernel(kernel, Edges.of(sources, count, CHANNELS + 2)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_messages_and_their_gradients_are_those_of_the_sum(shape: tuple[int, int, int], seed: int) -> None:
    sources, h, kernel = drawn(*shape, seed)
    both, gradients = [], []
    for send in (
        lambda h, kernel: sent(h, kernel, sources, len(sources)),
        lambda h, k: summed(h, k, sources),
    ):
        given = h.clone().requires_grad_(), kernel.clone().requires_grad_()
        message = send(*given)
        (message.sin() + message**2).sum().backward()
        both.append(message.detach())
        gradients.append([g.grad for g in given])
    torch.testing.assert_close(both[0], both[1], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("which", (0, 1), ids=("features", "kernel"))
def test_what_needs_no_gradient_gets_none(which: int) -> None:
    sources, *given = drawn(9, 4, 3, 0)
    given[which].requires_grad_()
    sent(*given, sources, 9).sum().backward()
    assert given[which].grad is not None and given[1 - which].grad is None


def test_a_batch_of_graphs_is_their_union() -> None:
    parts = [drawn(9, 4, 1, seed) for seed in range(3)]
    sources = torch.stack([s for s, _, _ in parts])
    together = sent(
        torch.cat([h for _, h, _ in parts], 1), torch.cat([k for _, _, k in parts], 1), sources, 9
    )
    apart = torch.cat([sent(h, k, s, 9) for s, h, k in parts], 1)
    torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-10)
