"""Cosine series on an interval, for fields whose slope vanishes at both ends (no flux through walls).

Reflected at the ends, such a field is even and periodic: its modes are cos k(x − low) with
k = πj/(high − low), and whatever commutes with translations and reflections multiplies each by a number.
"""

import math

import torch
from torch import Tensor

from pdeforecast.errors import DataError


class Interval:
    """The cosines on n regular nodes of [low, high], by an FFT of the reflected field.

    The nodes are the centres of n equal cells (the cosine transform DCT-II), or they include both ends
    (DCT-I); ascending or descending.

    Attributes:
        wavenumbers: k of the modes, angular, from 0.
        mean: the weights (n,), of sum 1, with which values on the nodes make the mean over the interval.

    Raises:
        DataError: if the nodes are neither.
    """

    def __init__(self, nodes: Tensor, low: float, high: float) -> None:
        n, length = len(nodes), high - low
        nodes = nodes.double().sort().values
        count = torch.arange(n, dtype=torch.float64, device=nodes.device)
        centres, ends = low + (count + 0.5) * length / n, low + count * length / max(n - 1, 1)
        self.has_ends = n > 1 and bool(torch.allclose(nodes, ends, rtol=0, atol=1e-4 * length / n))
        if not self.has_ends and not torch.allclose(nodes, centres, rtol=0, atol=1e-4 * length / n):
            raise DataError(
                f"expected the centres of {n} equal cells of [{low:g}, {high:g}], or equal steps from end to "
                f"end; came nodes from {float(nodes[0]):g} to {float(nodes[-1]):g}.",
                f"Interpolate to nodes from {float(centres[0]):g} to {float(centres[-1]):g}.",
            )
        modes = n if self.has_ends else n + 1
        self.wavenumbers = math.pi / length * torch.arange(modes, dtype=torch.float64, device=nodes.device)
        self.mean = torch.ones_like(nodes)
        if self.has_ends:
            self.mean[[0, -1]] = 0.5
        self.mean /= self.mean.sum()

    def multiply(self, field: Tensor, factor: Tensor, dim: int) -> Tensor:
        """The field with the amplitude of each cosine along `dim` multiplied by factor (modes,)."""
        field = field.movedim(dim, -1)
        n = field.shape[-1]
        image = field.flip(-1)[..., 1:-1] if self.has_ends else field.flip(-1)
        even = torch.cat([field, image], dim=-1)
        spectrum = torch.fft.rfft(even) * factor
        return torch.fft.irfft(spectrum, n=even.shape[-1])[..., :n].movedim(-1, dim)
