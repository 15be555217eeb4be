"""Fourier operators on the unit torus [0, 1)², for fields sampled on a regular (y, x) grid."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pdeforecast.errors import DataError


class Torus:
    """Spectral calculus of real fields on a grid of rows × columns nodes without its end points.

    A field f[y, x] is held as its real FFT over the last two axes; wave numbers are angular,
    k = 2π · integer, and the Nyquist mode of an odd derivative is zero.

    Args:
        columns: as many as rows, if not given.
    """

    def __init__(self, rows: int, columns: int | None = None, device: torch.device | str = "cpu") -> None:
        columns = columns or rows
        k = 2 * math.pi * torch.fft.fftfreq(rows, 1 / rows, dtype=torch.float64, device=device)
        m = 2 * math.pi * torch.fft.rfftfreq(columns, 1 / columns, dtype=torch.float64, device=device)
        odd_k = k.where(k.abs() < math.pi * rows, torch.zeros_like(k))
        odd_m = m.where(m.abs() < math.pi * columns, torch.zeros_like(m))
        self.shape = (rows, columns)
        self.dx = 1j * odd_m[None, :].expand(rows, -1)
        self.dy = 1j * odd_k[:, None].expand(-1, len(m))
        self.laplacian = -(k[:, None] ** 2 + m[None, :] ** 2)
        self.inverse_laplacian = torch.where(self.laplacian == 0, 0.0, 1 / self.laplacian)
        self._k, self._m = k, m

    def alias_free(self, factors: int) -> Tensor:
        """1 for the modes |k| < 2π n/(factors + 1) of each axis, else 0.

        The product of `factors` fields of such modes is exact in such modes: the 2/3 rule for two.
        """
        low_k, low_m = (2 * math.pi * n / (factors + 1) for n in self.shape)
        return ((self._k[:, None].abs() < low_k) & (self._m[None, :] < low_m)).to(torch.float64)

    def transform(self, field: Tensor) -> Tensor:
        """The spectrum (…, rows, columns // 2 + 1) of a field (…, rows, columns)."""
        return torch.fft.rfft2(field)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """The field of a spectrum."""
        return torch.fft.irfft2(spectrum, s=self.shape)


def check_axes(axes: Mapping[str, Tensor]) -> None:
    """Refuse nodes that are not 1/n apart along each periodic axis; their offset is free.

    Raises:
        DataError: if they are not.
    """
    for name, nodes in axes.items():
        n = len(nodes)
        steps = nodes.double().diff().abs()
        if n < 2 or not bool(((steps - 1 / n).abs() < 1e-4 / n).all()):
            raise DataError(
                f"expected {n} nodes of {name} that are 1/{n} of the period apart; came steps from "
                f"{float(steps.min()) if n > 1 else 0:g} to {float(steps.max()) if n > 1 else 0:g}.",
                "Interpolate to a regular grid that leaves out the end point of the period.",
            )


def resample(field: Tensor, rows: int, columns: int | None = None) -> Tensor:
    """The trigonometric interpolant of `field` on a rows × columns grid; low-passed if that is coarser.

    The Nyquist mode of an even n is real on its own grid: it is split evenly between ±n/2 on the
    way up and folded on the way down, so that a finer grid and back again is the identity.

    Args:
        columns: as many as rows, if not given.
    """
    old, new = field.shape[-2:], (rows, columns or rows)
    if old == new:
        return field
    spectrum = torch.fft.fft2(field, norm="forward")
    for dim, n in zip((-2, -1), new, strict=True):
        spectrum = _resize(spectrum.movedim(dim, -1), n).movedim(-1, dim)
    return torch.fft.ifft2(spectrum, norm="forward").real


def _resize(modes: Tensor, n: int) -> Tensor:
    """The Fourier modes (…, m), in the order of the FFT, padded or cut to n."""
    m = modes.shape[-1]
    if n == m:
        return modes
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
