"""Orthogonal functions of the ball: Legendre functions of latitude, Jacobi polynomials of radius.

A smooth function in the unit ball is a sum of r^l P(r²) Y_lm with polynomials P. The functions

    R_ln(r) = √(4n + 2l + 3) r^l P_n^{(0, l+½)}(2r² − 1),        ∫₀¹ R_ln R_lk r² dr = δ_nk

span them, and with N_l = N − ⌊l/2⌋ of them the degree in r is at most 2N − 1 for every l.
Source: G. M. Vasil et al., J. Comput. Phys. X 3 (2019) 100013.
"""

import torch
from torch import Tensor


def gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Nodes in (−1, 1), ascending, and weights that integrate polynomials of degree < 2·count.

    Source: G. H. Golub, J. H. Welsch, Math. Comp. 23 (1969) 221.
    """
    k = torch.arange(1, count, dtype=torch.float64)
    off = k / (4 * k**2 - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    nodes, weights = 0.5 * (nodes - nodes.flip(0)), 2 * vectors[0] ** 2
    return nodes, 0.5 * (weights + weights.flip(0))


def gauss_radii(count: int) -> tuple[Tensor, Tensor]:
    """Nodes in (0, 1), ascending, and weights of ∫₀¹ f(r) r² dr, exact for even f of degree < 4·count.

    They are the positive roots of P_{2·count+1}, hence the roots of P_count^{(0, ½)}(2r² − 1).
    """
    nodes, weights = gauss_legendre(2 * count + 1)
    r = nodes[count + 1 :]
    return r, weights[count + 1 :] * r**2


def radial_sizes(degrees: int, count: int) -> Tensor:
    """N_l = count − ⌊l/2⌋ for each l < degrees."""
    return count - torch.arange(degrees) // 2


def radial_functions(degrees: int, count: int, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R_ln, dR_ln/dr and the radial part of the Laplacian, R″ + 2R′/r − l(l+1)R/r².

    Args:
        degrees: l < degrees.
        count: N.
        r: radii in (0, 1], (K).

    Returns:
        Three tensors (degrees, K, count), zero for n ≥ N_l.
    """
    l = torch.arange(degrees, dtype=r.dtype, device=r.device)[:, None, None]  # noqa: E741
    n = torch.arange(count, dtype=r.dtype, device=r.device)
    scale = (4 * n + 2 * l + 3).sqrt() * (n < radial_sizes(degrees, count).to(r.device)[:, None, None])
    r = r[:, None]
    z, first, second = 2 * r**2 - 1, 0.5 * (n + l + 1.5), 0.25 * (n + l + 1.5) * (n + l + 2.5)
    p = _jacobi(0, l + 0.5, z, count)
    dp = first * _shift(_jacobi(1, l + 1.5, z, count), 1)
    ddp = second * _shift(_jacobi(2, l + 2.5, z, count), 2)
    power = scale * r**l
    slope = power * (l / r * p + 4 * r * dp)
    return power * p, slope, power * (16 * r**2 * ddp + (8 * l + 12) * dp)


def _jacobi(a: int, b: Tensor, z: Tensor, count: int) -> Tensor:
    """P_n^{(a, b)}(z) for n < count, along a new last dimension in place of the last one of z."""
    found = [torch.ones_like(b * z), (a + 1) + 0.5 * (a + b + 2) * (z - 1)]
    for n in range(2, count):
        c = 2 * n + a + b
        linear = (c - 1) * (c * (c - 2) * z + a**2 - b**2)
        constant = 2 * (n + a - 1) * (n + b - 1) * c
        found.append((linear * found[-1] - constant * found[-2]) / (2 * n * (n + a + b) * (c - 2)))
    return torch.cat(found[:count], dim=-1)


def _shift(p: Tensor, count: int) -> Tensor:
    """P_{n − count}, zero where the index is negative."""
    return torch.cat([torch.zeros_like(p[..., :count]), p], dim=-1)[..., : p.shape[-1]]


def legendre_functions(degrees: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """P_lm(x), ∂P_lm/∂θ and m P_lm / sin θ at x = cos θ, with ∫ P_lm² dx = 1.

    All by recurrences that do not divide by sin θ, so a pole is a node like any other.

    Args:
        degrees: l < degrees and 0 ≤ m < degrees.
        x: in [−1, 1], (J).

    Returns:
        Three tensors (m, J, l), zero for l < m.
    """
    m = torch.arange(degrees, dtype=x.dtype, device=x.device)
    sine = ((1 - x) * (1 + x)).sqrt()[:, None]
    ladder = torch.cat([sine.new_full((1,), 0.5).sqrt(), (1 + 0.5 / m[1:]).sqrt()]).cumprod(0)
    sectors = ladder * sine**m
    p, slope, order = (x.new_zeros(degrees, degrees, len(x)) for _ in range(3))  # (l, m, J)
    for l in range(degrees):  # noqa: E741
        up, down = (l - m[:l]) * (l + m[:l]), (l - 1) ** 2 - m[: l - 1] ** 2
        p[l, l] = sectors[:, l]
        if l > 0:
            p[l, :l] = x * p[l - 1, :l] * ((4 * l**2 - 1) / up).sqrt()[:, None]
        if l > 1:
            before = (2 * l + 1) / (2 * l - 3) * down / up[: l - 1]
            p[l, : l - 1] -= before.sqrt()[:, None] * p[l - 2, : l - 1]
        slope[l] = _neighbours(p[l], (l + m) * (l - m + 1), -(l - m) * (l + m + 1))
        if l > 0:
            scale = (2 * l + 1) / (2 * l - 1)
            order[l] = _neighbours(p[l - 1], scale * (l + m) * (l + m - 1), scale * (l - m) * (l - m - 1))
        order[l, 0] = 0
        slope[l, 0] = 0 if l == 0 or degrees == 1 else -((l * (l + 1)) ** 0.5) * p[l, 1]
    return (
        p.permute(1, 2, 0).contiguous(),
        slope.permute(1, 2, 0).contiguous(),
        order.permute(1, 2, 0).contiguous(),
    )


def _neighbours(p: Tensor, below: Tensor, above: Tensor) -> Tensor:
    """½ (√below P_{m−1} ± √above P_{m+1}) of functions (m, J), with the sign of `above`."""
    found = torch.zeros_like(p)
    found[1:] = 0.5 * below[1:].clamp_min(0).sqrt()[:, None] * p[:-1]
    found[:-1] += 0.5 * (above.sign() * above.abs().sqrt())[:-1, None] * p[1:]
    return found
