"""Lengths, cells and lattices that several geometries share."""

import math

import torch
from torch import Generator, Tensor


def length(v: Tensor) -> Tensor:
    """‖v‖ over the last dimension, whose gradient at v = 0 is 0.

    Written out per component: a reduction over an axis as short as this one is three times slower.
    """
    first, *others = v.unbind(-1)
    squared = first.square()
    for component in others:
        squared = squared + component.square()
    return squared.clamp_min(torch.finfo(v.dtype).tiny).sqrt()


def periodic_cells(axis: Tensor, period: float) -> Tensor:
    """The length of the Voronoi cell of each node on a circle; they sum to the period."""
    order = axis.argsort()
    nodes = axis[order]
    gaps = torch.cat([nodes[1:] - nodes[:-1], nodes[:1] + period - nodes[-1:]])
    cells = torch.empty_like(axis)
    cells[order] = 0.5 * (gaps + gaps.roll(1))
    return cells


def cell_edges(axis: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Where the Voronoi cell of each node on the interval [low, high] begins and ends."""
    order = axis.argsort()
    nodes = axis[order]
    middles = 0.5 * (nodes[1:] + nodes[:-1])
    first, last = torch.empty_like(axis), torch.empty_like(axis)
    first[order] = torch.cat([nodes.new_tensor([low]), middles])
    last[order] = torch.cat([middles, nodes.new_tensor([high])])
    return first, last


def centres(count: int, low: float, high: float) -> Tensor:
    """The centres of `count` equal cells of [low, high]."""
    return low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count


def square_side(count: int, space: str) -> int:
    """√count.

    Raises:
        ValueError: if that is no whole number.
    """
    n = math.isqrt(count)
    if n * n != count or n < 1:
        raise ValueError(
            f"the {space} has square lattices only; {count} latents is none. "
            f"Ask for {max(n, 1) ** 2} or {(n + 1) ** 2}."
        )
    return n


def spiral(count: int, turn: float = 0.0) -> Tensor:
    """`count` unit vectors spread evenly over the sphere, by the golden angle (Fibonacci lattice)."""
    i = torch.arange(count, dtype=torch.float64)
    z = 1 - (2 * i + 1) / count
    longitude = math.pi * (3 - math.sqrt(5)) * i + turn
    across = (1 - z * z).sqrt()
    return torch.stack([across * longitude.cos(), across * longitude.sin(), z], dim=-1)


def uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator | None) -> Tensor:
    """Uniform random numbers, float64."""
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)
