"""Fourier operators on the unit torus [0, 1)², for fields sampled on a regular (y, x) grid."""

import math

import torch
from torch import Tensor


class Torus:
    """Spectral calculus of real fields on an n × n grid without its end points.

    A field f[y, x] is held as its real FFT over the last two axes; wave numbers are angular,
    k = 2π · integer, and the Nyquist mode of an odd derivative is zero.
    """

    def __init__(self, n: int, device: torch.device | str = "cpu") -> None:
        k = 2 * math.pi * torch.fft.fftfreq(n, 1 / n, dtype=torch.float64, device=device)
        m = 2 * math.pi * torch.fft.rfftfreq(n, 1 / n, dtype=torch.float64, device=device)
        odd_k = k.where(k.abs() < math.pi * n, torch.zeros_like(k))
        odd_m = m.where(m.abs() < math.pi * n, torch.zeros_like(m))
        self.n = n
        self.dx = 1j * odd_m[None, :].expand(n, -1)
        self.dy = 1j * odd_k[:, None].expand(-1, n // 2 + 1)
        self.laplacian = -(k[:, None] ** 2 + m[None, :] ** 2)
        self.inverse_laplacian = torch.where(self.laplacian == 0, 0.0, 1 / self.laplacian)
        third = 2 * math.pi * (n / 3)
        self.dealias = ((k[:, None].abs() < third) & (m[None, :] < third)).to(torch.float64)

    def transform(self, field: Tensor) -> Tensor:
        """The spectrum (…, n, n // 2 + 1) of a field (…, n, n)."""
        return torch.fft.rfft2(field)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """The field of a spectrum."""
        return torch.fft.irfft2(spectrum, s=(self.n, self.n))


def resample(field: Tensor, n: int) -> Tensor:
    """The trigonometric interpolant of `field` (…, m, m) on an n × n grid; low-passed if n < m.

    The Nyquist mode of an even m is real on its own grid: it is split evenly between ±m/2 on the
    way up and folded on the way down, so that resample(resample(f, n), m) = f for n ≥ m.
    """
    m = field.shape[-1]
    if n == m:
        return field
    spectrum = torch.fft.fft2(field)
    for dim in (-2, -1):
        spectrum = _resize(spectrum.movedim(dim, -1), n).movedim(-1, dim)
    return torch.fft.ifft2(spectrum).real * (n / m) ** 2


def _resize(modes: Tensor, n: int) -> Tensor:
    """The Fourier modes (…, m), in the order of the FFT, padded or cut to n."""
    m = modes.shape[-1]
    kept = min(m, n)
    count = (kept - 1) // 2
    positive, negative = modes[..., : count + 1], modes[..., m - count :]
    if kept % 2 == 1:
        upper = lower = modes[..., :0]
    elif n > m:
        upper = lower = 0.5 * modes[..., m // 2, None]
    else:
        upper, lower = modes[..., n // 2, None] + modes[..., m - n // 2, None], modes[..., :0]
    gap = modes.new_zeros(*modes.shape[:-1], n - 2 * count - 1 - upper.shape[-1] - lower.shape[-1])
    return torch.cat([positive, upper, gap, lower, negative], dim=-1)


def translate(field: Tensor, shift_y: float, shift_x: float) -> Tensor:
    """The field moved by (shift_y, shift_x): result(y, x) = field(y − shift_y, x − shift_x)."""
    n = field.shape[-1]
    k = torch.fft.fftfreq(n, 1 / n, dtype=field.dtype, device=field.device)
    m = torch.fft.rfftfreq(n, 1 / n, dtype=field.dtype, device=field.device)
    phase = -2 * math.pi * (k[:, None] * shift_y + m[None, :] * shift_x)
    return torch.fft.irfft2(torch.fft.rfft2(field) * torch.polar(torch.ones_like(phase), phase), s=(n, n))
