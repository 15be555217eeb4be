"""Latents → their velocity: equivariant message passing on the graph of the latents.

Every latent sees the others from its own pose. A message is a separable kernel of the relative pose,
and blocks multiply what comes from everywhere with what is near, as u·∇ω does:

    mᵢ = Σⱼ K(pᵢ⁻¹pⱼ) ⊙ hⱼ                                  (one weight per edge and channel)
    h ← h + W [ sat(W_g m_global(h)) ⊙ (W_l m_local(h)) ]
    dcᵢ/dt = Π W_c m_local(h) + … + (A c + b)ᵢ + (c̃ − c)ᵢ/τ,      body-frame dpᵢ/dt = W_p m_local(h)

K is a small network of p⁻¹q, times a Gaussian window for the local messages. The saturation
sat(g) = g / (1 + (g/s)⁴)^¼ is linear up to s to fourth order and bounded by s, so the velocity
grows at most linearly with the state and a rollout cannot reach infinity in finite time. Nor does it in
infinite time: the network sees c̃, the contexts scaled back to the size that training states have at most, so
they are bounded, and what is larger decays with τ. States of that size know nothing of it: c̃ = c. Π
projects onto what the field can see; A c + b, where it is known, is the linear part, learned before in the
modes of the states (`linear_dynamics.py`). Known static fields enter as values read around each pose in its
own frame. Networks see relative poses and nothing else, so F(g z) = F(z) in body frames.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pdeforecast.geometry import Geometry
from pdeforecast.latents import Latents
from pdeforecast.messages import Edges, Kernel, SeparableMessage
from pdeforecast.neighbours import gather

_BOUND = 4.0
"""s: the largest gate, in units of the (about unit) scale of hidden features."""
_RETURN = 2.0
"""1/τ, in units of `rate`: faster than contexts move, slow enough for the steps that resolve them."""
_FEATURES = 64
"""Random Fourier features of a relative pose, and kernel basis functions made of them."""


@dataclass(frozen=True)
class Graph:
    """The latent graph and the kernels on it: all that depends on the poses alone.

    Attributes:
        kernels: one (channels, E) for each message of the network, in the order of their use.
        batch: how many states have nodes in this graph; 1 when a whole batch shares its poses.
    """

    kernels: tuple[Kernel, ...]
    batch: int


@dataclass(frozen=True)
class Modal:
    """Principal modes, c = c₀ + L w, and the linear part of how they move, dw/dt = G w + g.

    Attributes:
        show: L (N·context_dim, rank).
        read: L⁺ (rank, N·context_dim).
        centre: c₀ (N·context_dim,).
        generator: G (rank, rank).
        constant: g (rank,).
    """

    show: Tensor
    read: Tensor
    centre: Tensor
    generator: Tensor
    constant: Tensor

    def velocity(self, contexts: Tensor, change: Tensor) -> Tensor:
        """dc/dt = L (L⁺ change + G w + g), of contexts and change (B, N, context_dim)."""
        w = (contexts.flatten(1) - self.centre) @ self.read.T
        moved = change.flatten(1) @ self.read.T + w @ self.generator.T + self.constant
        return (moved @ self.show.T).view_as(change)


class Product(nn.Module):
    """h ← h + W [sat(W_g g) ⊙ (W_l l)], with g and l the global and the local message of h."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.mix = nn.Linear(hidden, hidden, bias=False)

    def forward(self, h: Tensor, g: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        gate = _pointwise(self.gate, g)
        squared = (gate / _BOUND).square()
        gate = gate * (1 + squared * squared).sqrt().rsqrt()
        return h + _pointwise(self.mix, gate * _pointwise(self.value, l))


class LatentDynamics(nn.Module):
    """dz/dt = F(z, static fields), equivariant.

    Args:
        geometry: the space.
        context_dim: numbers per latent.
        static_dim: numbers per latent read from static fields.
        hidden: channels of the hidden features.
        blocks: how many product blocks.
        spacing: the distance between neighbouring latents: σ of the local windows.
        neighbours: messages come from the k nearest latents; 0 for all.
        moving: whether poses move.

    Attributes:
        context_scale: (context_dim,), the standard deviation of contexts.
        static_scale: (static_dim,), the size of what is read from static fields.
        rate: the size of dc/dt in units of `context_scale`, in 1/time.
        reach: the largest root mean square, in units of `context_scale`, of one latent's contexts and of all
            latents' that training states have, and some more; infinite before anything is learned, and where
            latents move in modes: their linear part is a small difference of large terms, and must stay it.
        visible: Π (channels, N·F, N·F), see `PreconditionedSGD.visible`; None for no projection.
        modal: the modes in which latents move, for which Π = L L⁺; None if they move in all directions.
    """

    context_scale: Tensor
    static_scale: Tensor
    rate: Tensor
    reach: Tensor
    frequencies: Tensor

    def __init__(
        self,
        geometry: Geometry,
        context_dim: int,
        static_dim: int,
        hidden: int,
        blocks: int,
        spacing: float,
        neighbours: int,
        moving: bool,
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.spacing = spacing
        self.neighbours = neighbours
        self.moving = moving
        inputs = context_dim + static_dim
        self.register_buffer("context_scale", torch.ones(context_dim))
        self.register_buffer("static_scale", torch.ones(static_dim))
        self.register_buffer("rate", torch.ones(()))
        self.register_buffer("reach", torch.full((2,), torch.inf))
        self.register_buffer("frequencies", 1.5 * torch.randn(geometry.between_dim, _FEATURES))
        self.visible: Tensor | None = None
        self.modal: Modal | None = None
        self.message = SeparableMessage()
        self.kernel_basis = nn.Sequential(
            nn.Linear(2 * _FEATURES, 2 * _FEATURES), nn.GELU(), nn.Linear(2 * _FEATURES, _FEATURES)
        )
        widths = [hidden] * (2 * blocks + 1) + [inputs]
        kernels = [nn.Linear(_FEATURES, width, bias=False) for width in widths]
        self.kernels = nn.ModuleList(kernels)
        self.stem = nn.Linear(inputs, hidden)
        self.blocks = nn.ModuleList(Product(hidden) for _ in range(blocks))
        self.context_head = nn.Linear(hidden + inputs, context_dim)
        self.pose_head = nn.Linear(hidden + inputs, geometry.velocity_dim) if moving else None
        for kernel in kernels:
            nn.init.normal_(kernel.weight, std=_FEATURES**-0.5)
        for head in filter(None, (self.context_head, self.pose_head)):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def look(self, poses: Tensor) -> Graph:
        """The graph of the latents at `poses` (N, pose_dim), or one of a batch (B, N, pose_dim)."""
        count = poses.shape[-2]
        place = self.geometry.place(poses)
        distance = self.geometry.distance(place[..., None, :, :], poses[..., :, None, :])
        if self.neighbours and self.neighbours < count:
            sources = distance.topk(self.neighbours, dim=-1, largest=False).indices
        else:
            sources = torch.arange(count, device=poses.device).expand(distance.shape)
        between = self.geometry.between(poses[..., :, None, :], gather(poses, sources))
        near = torch.exp(-0.5 * (distance.gather(-1, sources) / self.spacing) ** 2).flatten()
        waves = between.to(self.frequencies) @ self.frequencies
        basis = self.kernel_basis(torch.cat([waves.cos(), waves.sin()], dim=-1)).flatten(0, -2)
        kernels = [kernel.weight @ basis.T for kernel in self.kernels]
        local = [i % 2 == 1 for i in range(len(kernels) - 2)] + [True, True]
        scale = sources.shape[-1] ** -0.5
        weighted = [
            kernel * near.to(kernel) if is_local else kernel * scale
            for kernel, is_local in zip(kernels, local, strict=True)
        ]
        edges = Edges.of(sources, count, max(map(len, weighted)))
        return Graph(
            tuple(Kernel(values, edges) for values in weighted), 1 if poses.ndim == 2 else poses.shape[0]
        )

    def velocity(self, graph: Graph, contexts: Tensor, static: Tensor) -> tuple[Tensor, Tensor]:
        """Body-frame velocities of poses (B, N, velocity_dim) and dc/dt (B, N, context_dim).

        Args:
            graph: from `look`.
            contexts: (B, N, context_dim).
            static: (B or 1, N, static_dim), static fields as read around each pose in its frame.
        """
        static = static.expand(len(contexts), -1, -1)
        given, contexts = contexts, self._within(contexts)
        back = _RETURN * self.rate * (contexts - given)
        x = torch.cat([contexts / self.context_scale, static / self.static_scale], dim=-1)
        x = x.movedim(-1, 0).flatten(1, 2)[..., None] if graph.batch > 1 else x.permute(2, 1, 0)
        x = x.contiguous()
        kernels = iter(graph.kernels)
        h = _pointwise(self.stem, x)
        for block in self.blocks:
            g = self.message(h, next(kernels))
            l = h + self.message(h, next(kernels))  # noqa: E741
            h = block(h, g, l)
        h = h + self.message(h, next(kernels))
        x = x + self.message(x, next(kernels))
        out = torch.cat([h, x])
        shape = contexts.shape[:2]
        change = _nodes(_pointwise(self.context_head, out), shape) * self.context_scale
        if self.pose_head is None:
            drift = contexts.new_zeros(*shape, self.geometry.velocity_dim)
        else:
            drift = _nodes(_pointwise(self.pose_head, out), shape) * self.spacing
        change = self.rate * change
        if self.modal is not None:
            return self.rate * drift, self.modal.velocity(contexts, change) + back
        return self.rate * drift, self._project(change) + back

    def forward(self, latents: Latents, static: Tensor) -> tuple[Tensor, Tensor]:
        """F(z): body-frame pose velocities and context velocities."""
        return self.velocity(self.look(latents.poses), latents.contexts, static)

    def _within(self, contexts: Tensor) -> Tensor:
        """c̃: contexts scaled back to within `reach`, first of each latent, then of all."""
        for dims, reach in (((-1,), self.reach[0]), ((-2, -1), self.reach[1])):
            beyond = (contexts / self.context_scale).square().mean(dims, keepdim=True) / reach**2
            contexts = contexts * beyond.clamp_min(1.0).rsqrt()
        return contexts

    def _project(self, change: Tensor) -> Tensor:
        if self.visible is None:
            return change
        channels = self.visible.shape[0]
        split = change.unflatten(-1, (channels, -1)).movedim(-2, 0).flatten(2)
        seen = split @ self.visible.mT
        return seen.unflatten(-1, (change.shape[1], -1)).movedim(0, -2).flatten(-2)


def _pointwise(layer: nn.Linear, h: Tensor) -> Tensor:
    """A linear layer over the first axis of (channels, nodes, batch)."""
    out = layer.weight @ h.flatten(1)
    if layer.bias is not None:
        out = out + layer.bias[:, None]
    return out.view(-1, *h.shape[1:])


def _nodes(h: Tensor, shape: torch.Size) -> Tensor:
    """(channels, nodes, batch) back to (batch, nodes, channels)."""
    if h.shape[-1] == 1 and shape[0] > 1:
        return h[..., 0].unflatten(-1, shape).movedim(0, -1)
    return h.permute(2, 1, 0)
