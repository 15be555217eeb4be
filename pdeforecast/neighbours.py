"""Which latents a point attends to, and how near they are: local Gaussian log-windows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pdeforecast.geometry import Geometry


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
    count = poses.shape[-2]
    if k == 0 or k >= count:
        squared = _squared_distance(geometry, points, poses[..., None, :, :])
        return Neighbours(torch.arange(count, device=points.device).expand(squared.shape), -squared / (2 * windows**2))
    with torch.no_grad():
        distance = geometry.distance(points[..., :, None, :], poses[..., None, :, :])
        index = distance.topk(k + 1, dim=-1, largest=False).indices
    squared = _squared_distance(geometry, points, gather(poses, index))
    near, cut, index = squared[..., :k], squared[..., k:], index[..., :k]
    # The square of the reciprocal, a second derivative of the logarithm, must remain finite.
    fade = (1 - near / cut).clamp_min(torch.finfo(near.dtype).eps ** 2)
    return Neighbours(index, -near / (2 * windows[index] ** 2) + 2 * fade.log())


def _squared_distance(geometry: Geometry, points: Tensor, poses: Tensor) -> Tensor:
    """d² between points (…, M, point_dim) and the poses (…, M, k, pose_dim) beside them.

    From the chart, because d has no derivative at the pose itself; d² has two.
    """
    chart = geometry.chart(geometry.relative(points[..., :, None, :], poses))
    return (chart**2).sum(-1)


def gather(values: Tensor, index: Tensor) -> Tensor:
    """Rows of `values` (…, N, D) at `index` (…, M, k), as (…, M, k, D)."""
    if values.ndim == 2 and index.ndim == 2:
        return values.index_select(0, index.reshape(-1)).view(*index.shape, -1)
    lead = torch.broadcast_shapes(values.shape[:-2], index.shape[:-2])
    values = values.expand(*lead, *values.shape[-2:])
    flat = index.expand(*lead, *index.shape[-2:]).flatten(-2)
    rows = values.gather(-2, flat[..., None].expand(*flat.shape, values.shape[-1]))
    return rows.view(*lead, *index.shape[-2:], values.shape[-1])
