"""The equivariant field: bi-invariant cross-attention from a point to the latents around it.

For a point x and a latent i = (pᵢ, cᵢ, σᵢ), seen through a = a(x, pᵢ) alone,

    q  = W_Q RFFNet_q(a)      k = W_K LN(stem cᵢ)      v = W_V LN(stem cᵢ)
    v ← v ⊙ (1 + γ) + β,      (γ, β) = film(RFFNet_v(a))
    f(x; z) = head(block(concat over heads of Σᵢ softmaxᵢ(⟨q, k⟩/√h + ln windowᵢ(x)) mixer(v)))

The query depends on geometry only, the key on content only. Between two non-linearities all maps
are linear, so they are multiplied out before they meet the (point, latent) pairs: the same
function, of the same parameters, with less work. With e and n the last non-linear features of the
query's and the value's geometry,

    ⟨q, k⟩ = ⟨e, W₂ᵀW_Qᵀk⟩ + const,     mixer₁(v ⊙ (1 + γ) + β) = Mᵢ n + mᵢ,     Mᵢ = W₁(diag(v) Γ + Β)

and the mixer's last layer commutes with the attention sum. `look` is all that depends on geometry;
`read` is what remains to be done for given contexts.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdeforecast.geometry import Geometry
from pdeforecast.latents import Latents
from pdeforecast.neighbours import gather, nearest


class FeedForward(nn.Module):
    """last(GELU(first(x)))."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.gelu(self.first(x)))


class RFFNet(nn.Module):
    """last(ReLU(first(cos aB, sin aB))) with fixed frequencies B ~ N(0, scale²).

    Args:
        inputs: the dimension of a.
        hidden: the width, even.
        scale: standard deviation of the frequencies, in radians per unit of a.
    """

    frequencies: Tensor

    def __init__(self, inputs: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(inputs, hidden // 2))
        self.first = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, hidden)

    def features(self, a: Tensor) -> Tensor:
        """The non-linear part, (…, hidden)."""
        phase = a @ self.frequencies
        return F.relu(self.first(torch.cat([phase.cos(), phase.sin()], dim=-1)))

    def forward(self, a: Tensor) -> Tensor:
        return self.last(self.features(a))


@dataclass(frozen=True)
class Seen:
    """M points as seen from the k latents that they attend to.

    Latents come before points, so that each latent's matrix meets all of its points at once. Z is 1
    where a batch shares the geometry, else it is the batch.

    Attributes:
        index: (Z, k, M), which latents; None if all of them, in order.
        nearness: (Z, k, M), their log-windows.
        query: e, (Z, k, M, hidden).
        value: n, (Z, k, M, hidden), if all; else 1 + γ and mixer₁(β), (Z, k, M, heads, hidden) each,
            because a matrix per (latent, point) would be more than what it is made of.
    """

    index: Tensor | None
    nearness: Tensor
    query: Tensor
    value: tuple[Tensor, ...]


class EquivariantField(nn.Module):
    """f(x; z) for points in any number and latents in any number.

    Args:
        geometry: the space.
        channels: the number of variables.
        context_dim: the dimension of a latent's context.
        hidden: the width h of every layer, and of each head; even.
        heads: the number of attention heads.
        neighbours: k, how many latents a point attends to; 0 for all.
        query_scale: how fast attention can vary with a, see `RFFNet`.
        value_scale: how fast values can vary with a.

    Raises:
        ValueError: if `hidden` is odd.
    """

    linear = False

    def __init__(
        self,
        geometry: Geometry,
        channels: int,
        context_dim: int,
        hidden: int,
        heads: int,
        neighbours: int,
        query_scale: float,
        value_scale: float,
    ) -> None:
        super().__init__()
        if hidden % 2:
            raise ValueError(f"hidden is half cosines, half sines; {hidden} is odd. Ask for {hidden + 1}.")
        self.geometry = geometry
        self.channels = channels
        self.context_dim = context_dim
        self.hidden = hidden
        self.heads = heads
        self.neighbours = neighbours
        self.embed_query = RFFNet(geometry.relative_dim, hidden, query_scale)
        self.embed_value = RFFNet(geometry.relative_dim, hidden, value_scale)
        self.stem = nn.Linear(context_dim, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.query = nn.Linear(hidden, heads * hidden)
        self.key = nn.Linear(hidden, heads * hidden)
        self.value = nn.Linear(hidden, heads * hidden)
        self.film = FeedForward(hidden, hidden, 2 * heads * hidden)
        self.mixers = nn.ModuleList(FeedForward(hidden, hidden, hidden) for _ in range(heads))
        self.block = FeedForward(heads * hidden, hidden, hidden)
        self.head = FeedForward(hidden, hidden, channels)

    def forward(self, points: Tensor, latents: Latents) -> Tensor:
        """f at points (M, point_dim) or (batch, M, point_dim): (batch, M, channels)."""
        return self.read(self.look(points, latents.poses, latents.windows), latents.contexts)

    def look(self, points: Tensor, poses: Tensor, windows: Tensor) -> Seen:
        """All that geometry alone decides, once for a batch that shares points and poses."""
        near = nearest(self.geometry, points, poses, windows, self.neighbours)
        everyone = near.index.shape[-1] == poses.shape[-2]
        there = poses[..., None, :, :] if everyone else gather(poses, near.index)
        a = _latents_first(self.geometry.relative(points[..., :, None, :], there))
        query, value = self.embed_query.features(a), self.embed_value.features(a)
        value = F.gelu(F.linear(value, *_chain(self.film.first, self.embed_value.last)))
        nearness = _latents_first(near.nearness[..., None]).squeeze(-1)
        if everyone:
            return Seen(None, nearness, query, (value,))
        index = _latents_first(near.index[..., None]).squeeze(-1)
        return Seen(index, nearness, query, self._modulation(value))

    def read(self, seen: Seen, contexts: Tensor) -> Tensor:
        """The field that contexts (batch, N, context_dim) give at the points of `seen`."""
        shared = seen.nearness.shape[0] == 1
        contexts = contexts.transpose(0, 1)[None] if shared else contexts[:, :, None]
        content = self.norm(self.stem(contexts))
        key, offset = self._keys(self.key(content).unflatten(-1, (self.heads, -1)))
        value = self.value(content).unflatten(-1, (self.heads, -1))
        mix = self._mix_all
        if seen.index is not None:
            key, offset, value = (_rows(x, seen.index) for x in (key, offset, value))
            mix = self._mix_near
        logits = self._logits(seen.query, key, offset) + seen.nearness[..., None, None]
        attended = (logits.softmax(1)[..., None] * F.gelu(mix(seen.value, value))).sum(1)
        return self._head(attended).transpose(1, 2).flatten(0, 1)

    def _keys(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """W₂ᵀW_Qᵀk/√h (…, heads, hidden) and the constant part of the logits (…, heads)."""
        weight, bias = (x.unflatten(0, (self.heads, -1)) for x in _chain(self.query, self.embed_query.last))
        key = key / math.sqrt(self.hidden)
        return torch.einsum("...xg,xgh->...xh", key, weight), (key * bias).sum(-1)

    def _logits(self, query: Tensor, key: Tensor, offset: Tensor) -> Tensor:
        """⟨q, k⟩/√h, (Z, k, M, S, heads), of keys (Z, N, S, …), or (Z, k, M, S, …) if gathered."""
        if key.ndim == 5:
            logits = query @ key.flatten(2, 3).mT
            return logits.unflatten(-1, offset.shape[2:]) + offset[:, :, None]
        return (key.flatten(3, 4) @ query[..., None]).view(offset.shape) + offset

    def _mixer(self) -> tuple[Tensor, Tensor]:
        """W₁ (heads, hidden, hidden) and bias (heads, hidden) of the mixers' first layers."""
        first = [mixer.first for mixer in cast(Iterable[FeedForward], self.mixers)]
        return torch.stack([x.weight for x in first]), torch.stack([x.bias for x in first])

    def _film(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Γ, Β (heads, hidden, hidden) and γ₀, β₀ (heads, hidden): 1 + γ = Γn + γ₀, β = Βn + β₀."""
        shape = (2, self.heads, self.hidden)
        weight, bias = (x.unflatten(0, shape) for x in (self.film.last.weight, self.film.last.bias))
        return weight[0], weight[1], 1 + bias[0], bias[1]

    def _modulation(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """1 + γ and mixer₁(β), of n (…, hidden): (…, heads, hidden)."""
        first, bias = self._mixer()
        scale, shift, scale0, shift0 = self._film()
        shift0 = torch.einsum("xfg,xg->xf", first, shift0) + bias
        return _heads(value, scale, scale0), _heads(value, first @ shift, shift0)

    def _mix_near(self, seen: tuple[Tensor, ...], value: Tensor) -> Tensor:
        """mixer₁(v ⊙ (1 + γ) + β), (Z, k, M, S, heads, hidden), of v in the same shape."""
        scale, shift = seen
        mixed = torch.einsum("zkmsxg,xfg->zkmsxf", value * scale[:, :, :, None], self._mixer()[0])
        return mixed + shift[:, :, :, None]

    def _mix_all(self, seen: tuple[Tensor, ...], value: Tensor) -> Tensor:
        """Mᵢn + mᵢ (Z, N, M, S, heads, hidden), of n (Z, N, M, hidden) and v (Z, N, S, heads, hidden)."""
        first, bias = self._mixer()
        scale, shift, scale0, shift0 = self._film()
        matrix = first @ (value[..., None] * scale + shift)
        constant = torch.einsum("xfg,znsxg->znsxf", first, value * scale0 + shift0) + bias
        mixed = torch.baddbmm(
            constant.flatten(0, 1).flatten(1)[:, None],
            seen[0].flatten(0, 1),
            matrix.flatten(2, 4).flatten(0, 1).mT,
        )
        return mixed.view(*seen[0].shape[:-1], *value.shape[2:])

    def _head(self, heads: Tensor) -> Tensor:
        """The mixers' last layers, the block and the head, of Σ softmax·GELU(mixer₁), (…, heads, hidden)."""
        block = self.block.first.weight.unflatten(1, (self.heads, -1))
        last = [mixer.last for mixer in cast(Iterable[FeedForward], self.mixers)]
        weight = torch.cat([block[:, x] @ m.weight for x, m in enumerate(last)], dim=1)
        bias = self.block.first(torch.cat([m.bias for m in last]))
        y = F.gelu(F.linear(heads.flatten(-2), weight, bias))
        return self.head.last(F.gelu(F.linear(y, *_chain(self.head.first, self.block.last))))


def _chain(outer: nn.Linear, inner: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of outer ∘ inner."""
    return outer.weight @ inner.weight, outer(inner.bias)


def _heads(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer per head: x (…, hidden), weight (heads, outputs, hidden): (…, heads, outputs)."""
    return F.linear(x, weight.flatten(0, 1), bias.flatten()).unflatten(-1, bias.shape)


def _latents_first(x: Tensor) -> Tensor:
    """(M, k, D) or (Z, M, k, D) as (Z, k, M, D)."""
    return x.expand(1, *x.shape[-3:]).transpose(1, 2) if x.ndim == 3 else x.transpose(1, 2)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows of `values` (Z, N, …) at `index` (Z, k, M): (Z, k, M, …)."""
    first = torch.arange(values.shape[0], device=index.device) * values.shape[1]
    rows = (index + first[:, None, None]).flatten()
    return values.flatten(0, 1).index_select(0, rows).view(*index.shape, *values.shape[2:])
