"""Which latents a point attends to, and how near they are: local Gaussian log-windows."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pdeforecast.geometry import Geometry

_FEW = 64
"""So many latents are compared with every point; of more, only candidates."""
_RUN = 8
"""So many consecutive points first try the same latent."""


@dataclass(frozen=True)
class Neighbours:
    """The k latents nearest to each of M points.

    Attributes:
        index: (…, M, k), which latents.
        nearness: (…, M, k), the logarithm of their windows, −d²/2σ² + 2 ln(1 − d²/D²), where D is
            the distance to the (k+1)-th latent: a neighbour has lost all its weight when another
            takes its place, so the field has no jumps. With all N latents, D = ∞.
    """

    index: Tensor
    nearness: Tensor


def nearest(geometry: Geometry, points: Tensor, poses: Tensor, windows: Tensor, k: int) -> Neighbours:
    """The `Neighbours` of points (…, M, point_dim) among poses (…, N, pose_dim); k = 0 means all."""
    index = search(geometry, points, poses, k)
    there = poses[..., None, :, :] if k == 0 or k >= poses.shape[-2] else gather(poses, index)
    chart = geometry.chart(geometry.relative(points[..., :, None, :], there))
    return seen(chart, index, windows, k)


def seen(chart: Tensor, index: Tensor, windows: Tensor, k: int) -> Neighbours:
    """The `Neighbours` that a `search` has found.

    Distances come from the chart, because d has no derivative at the pose itself; d² has two.

    Args:
        chart: (…, M, k + 1, dim), the points in normal coordinates about the latents of `index`.
        index: (…, M, k + 1), of `search`.
        windows: σ (N,).
        k: as given to `search`.
    """
    squared = (chart**2).sum(-1)
    index = index.expand(squared.shape)
    if k == 0 or k >= len(windows):
        return Neighbours(index, -squared / (2 * windows**2))
    near, cut, index = squared[..., :k], squared[..., k:], index[..., :k]
    # The square of the reciprocal, a second derivative of the logarithm, must remain finite.
    fade = (1 - near / cut).clamp_min(torch.finfo(near.dtype).eps ** 2)
    return Neighbours(index, -near / (2 * windows[index] ** 2) + 2 * fade.log())


@torch.no_grad()
def search(geometry: Geometry, points: Tensor, poses: Tensor, k: int) -> Tensor:
    """The k + 1 latents nearest to each point, the nearest first: (…, M, k + 1); all N if k = 0 or k ≥ N.

    Exact. When a batch shares many latents, each point is compared with candidates only, so that its
    cost hardly grows with N. Let a be the nearest to x of some latents, the anchors, and d_m(a) the
    distance of a to its m-th nearest latent. By the triangle inequality, the m latents nearest to x
    are not further from a than d_m(a) + 2 d(x, a). This is used twice: a few anchors tell where to
    look for the one latent that is nearest of all (m = 1), and this one where to look for k + 1.
    """
    count = poses.shape[-2]
    if k == 0 or k >= count:
        return torch.arange(count, device=points.device)
    if points.ndim > 2 or poses.ndim > 2 or count <= max(_FEW, 4 * k) or torch.compiler.is_compiling():
        pieces = points.split(block_size(points.device), dim=-2)
        distances = (geometry.distance(x[..., :, None, :], poses[..., None, :, :]) for x in pieces)
        return torch.cat([d.topk(k + 1, largest=False).indices for d in distances], dim=-2)
    near, radius = _nearest_one(geometry, points, poses)
    return _closest_of_candidates(geometry, points, poses, near, radius, k + 1)[0]


def _nearest_one(geometry: Geometry, points: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
    """A latent near each point, (M,), and its distance.

    It is the nearest one, or not further than nearest ones are from other points: points that come
    in the order of a grid share the work of finding it.
    """
    few = _spread(geometry, poses, 2 * math.isqrt(len(poses)))

    def find(x: Tensor) -> tuple[Tensor, Tensor]:
        anchor, radius = _closest(geometry, x, poses, few)
        near, radius = _closest_of_candidates(geometry, x, poses, anchor, radius, 1)
        return near[:, 0], radius

    near, least = find(points[_RUN // 2 :: _RUN] if len(points) > _RUN else points)
    if len(near) == len(points):
        return near, least
    near = near.repeat_interleave(_RUN)
    near = torch.cat([near, near[-1:].expand(_RUN)])[: len(points)]
    size = block_size(points.device)
    pairs = zip(points.split(size), near.split(size), strict=True)
    radius = torch.cat([geometry.distance(x, poses[i]) for x, i in pairs])
    far = (radius > least.max()).nonzero()[:, 0]
    if len(far):
        near[far], radius[far] = find(points[far])
    return near, radius


def block_size(device: torch.device) -> int:
    """How many points to treat at once: what is computed of them should stay in a core's cache."""
    return 1024 if device.type == "cpu" else 65536


def _spread(geometry: Geometry, poses: Tensor, count: int) -> Tensor:
    """Indices of `count` of the poses (N, pose_dim), each the furthest from those before it."""
    places = geometry.place(poses)
    distance = geometry.distance(places, poses[0])
    chosen = [distance.new_zeros((), dtype=torch.long)]
    while len(chosen) < count:
        chosen.append(distance.argmax())
        distance = distance.minimum(geometry.distance(places, poses[chosen[-1]]))
    return torch.stack(chosen)


def _closest(geometry: Geometry, points: Tensor, poses: Tensor, few: Tensor) -> tuple[Tensor, Tensor]:
    """Which of `few` latents is nearest to each point, (M,), and its distance."""
    parts = [
        geometry.distance(x[:, None], poses[few]).min(-1) for x in points.split(block_size(points.device))
    ]
    return few[torch.cat([part.indices for part in parts])], torch.cat([part.values for part in parts])


def _closest_of_candidates(
    geometry: Geometry, points: Tensor, poses: Tensor, anchor: Tensor, radius: Tensor, m: int
) -> tuple[Tensor, Tensor]:
    """The m latents nearest to each point, (M, m), the nearest first, and the distance of the first.

    Args:
        anchor: (M,), a latent near each point.
        radius: (M,), its distance.
    """
    anchors, cell = anchor.unique(return_inverse=True)
    candidates = _candidates(geometry, poses, anchors, m, radius.max())
    there = poses[candidates]
    size = block_size(points.device)
    parts = []
    # Copied rows meet rows: broadcasting along an axis as short as coordinates are is slow.
    rows = torch.arange(size, device=points.device).repeat_interleave(candidates.shape[1])
    for x, own in zip(points.split(size), cell.split(size), strict=True):
        near = there.index_select(0, own)
        same = x.index_select(0, rows[: near.shape[0] * near.shape[1]]).view(*near.shape[:2], -1)
        distance = geometry.distance(same, near)
        value, which = distance.topk(m, largest=False) if m > 1 else distance.min(-1, keepdim=True)
        parts.append((candidates.index_select(0, own).gather(-1, which), value[:, 0]))
    return torch.cat([i for i, _ in parts]), torch.cat([r for _, r in parts])


def _candidates(geometry: Geometry, poses: Tensor, anchors: Tensor, m: int, radius: Tensor) -> Tensor:
    """The latents within d_m + 2 radius of each anchor, (A, C); further ones where others have more."""
    width, places = 4 * m, geometry.place(poses[anchors])
    # Rounding must not cost a candidate.
    exact = 1 - math.sqrt(torch.finfo(radius.dtype).eps)
    while True:
        width = min(2 * width, len(poses))
        found = [
            geometry.distance(place[:, None], poses).topk(width, largest=False)
            for place in places.split(block_size(poses.device) // 16)
        ]
        distance = torch.cat([f.values for f in found])
        needed = int((exact * distance - distance[:, m - 1 : m] <= 2 * radius).sum(-1).max())
        if needed < width or width == len(poses):
            return torch.cat([f.indices[:, :needed] for f in found])


def gather(values: Tensor, index: Tensor) -> Tensor:
    """Rows of `values` (…, N, D) at `index` (…, M, k), as (…, M, k, D)."""
    if values.ndim == 2 and index.ndim == 2:
        return values.index_select(0, index.reshape(-1)).view(*index.shape, -1)
    lead = torch.broadcast_shapes(values.shape[:-2], index.shape[:-2])
    values = values.expand(*lead, *values.shape[-2:])
    flat = index.expand(*lead, *index.shape[-2:]).flatten(-2)
    rows = values.gather(-2, flat[..., None].expand(*flat.shape, values.shape[-1]))
    return rows.view(*lead, *index.shape[-2:], values.shape[-1])
