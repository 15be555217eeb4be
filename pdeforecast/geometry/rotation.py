"""Rotations of three-dimensional space, as matrices held in nine numbers, row by row."""

import torch
from torch import Generator, Tensor

from pdeforecast.geometry.measures import length

_SMALL = 0.01
"""Below this sin²θ, θ / sin θ comes from its series, whose derivatives have no 0 / 0."""
_SERIES = (1.0, 1 / 6, 3 / 40, 15 / 336, 105 / 3456, 945 / 42240, 10395 / 599040, 135135 / 9676800)
"""Of arcsin(s) / s in powers of s²."""


def matrix(q: Tensor) -> Tensor:
    """Nine numbers as a matrix (…, 3, 3)."""
    return q.unflatten(-1, (3, 3))


def compose(q: Tensor, r: Tensor) -> Tensor:
    """The product q r."""
    return (matrix(q) @ matrix(r)).flatten(-2)


def turn(q: Tensor, x: Tensor) -> Tensor:
    """q x, for vectors x (…, 3)."""
    return torch.stack([(q[..., 3 * i : 3 * i + 3] * x).sum(-1) for i in range(3)], dim=-1)


def turn_back(q: Tensor, x: Tensor) -> Tensor:
    """qᵀ x, for vectors x (…, 3): what a frame q sees of them."""
    return x[..., :1] * q[..., :3] + x[..., 1:2] * q[..., 3:6] + x[..., 2:] * q[..., 6:]


def hat(v: Tensor) -> Tensor:
    """The matrix (…, 9) with hat(v) x = v × x."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=-1)


def exp(v: Tensor) -> Tensor:
    """The rotation about the axis v by the angle ‖v‖ (Rodrigues), smooth also at v = 0."""
    angle = length(v)[..., None]
    first = hat(v)
    sine, cosine = torch.sinc(angle / torch.pi), 0.5 * torch.sinc(angle / (2 * torch.pi)) ** 2
    identity = torch.eye(3, dtype=v.dtype, device=v.device).flatten()
    return identity + sine * first + cosine * compose(first, first)


def log(q: Tensor) -> Tensor:
    """The v with exp(v) = q, for turns by less than half a circle."""
    m = matrix(q)
    sine = 0.5 * torch.stack(
        [m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], dim=-1
    )
    cosine = 0.5 * (m.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) - 1)
    return sine * angle_over_sine(sine, cosine)


def angle_over_sine(sine: Tensor, cosine: Tensor) -> Tensor:
    """θ / sin θ (…, 1), of a vector of length sin θ and of cos θ (…, 1); smooth also at θ = 0."""
    squared = sine.square().sum(-1, keepdim=True)
    near = (squared < _SMALL) & (cosine > 0)
    series = torch.zeros_like(squared)
    for coefficient in reversed(_SERIES):
        series = series * squared + coefficient
    s = torch.where(near, 1.0, squared).clamp_min(torch.finfo(sine.dtype).tiny).sqrt()
    return torch.where(near, series, torch.atan2(s, cosine) / s)


def nearest(q: Tensor) -> Tensor:
    """The rotation nearest to a matrix that is almost one: Newton's iteration of the polar factor.

    It commutes with rotations on either side, and has a gradient where a singular value
    decomposition has none.
    """
    m = matrix(q)
    for _ in range(6):
        m = 0.5 * (m + torch.linalg.inv(m).mT)
    return m.flatten(-2)


def random(count: int, generator: Generator | None = None) -> Tensor:
    """`count` rotations, spread as the invariant measure is: unit quaternions."""
    q = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    w, v = (q / length(q)[:, None]).tensor_split((1,), dim=-1)
    first = hat(v)
    return torch.eye(3, dtype=torch.float64).flatten() + 2 * w * first + 2 * compose(first, first)


def upright(x: Tensor) -> Tensor:
    """The frame (east, north, x) of unit vectors x; at a pole, east is the second axis."""
    across = torch.stack([-x[..., 1], x[..., 0], torch.zeros_like(x[..., 0])], dim=-1)
    size = length(across)[..., None]
    pole = x.new_tensor([0.0, 1.0, 0.0])
    east = torch.where(size > torch.finfo(x.dtype).eps, across / size, pole)
    north = torch.linalg.cross(x, east)
    return torch.stack([east, north, x], dim=-1).flatten(-2)
