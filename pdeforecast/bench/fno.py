"""The Fourier neural operator, from the `neuraloperator` library, stepped frame by frame (`stepping.py`).

There is no positional embedding, so on the torus the step commutes with every translation by whole
pixels. Between walls, where no flux passes, fields are continued evenly: reflected they are periodic.
Source: Z. Li et al., Fourier neural operator for parametric partial differential equations, ICLR 2021.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pdeforecast.bench.contract import Layout
from pdeforecast.bench.harmonics import PERIODIC
from pdeforecast.bench.stepping import Stepper, SteppingSettings
from pdeforecast.errors import UsageError


@dataclass(frozen=True)
class FNOSettings(SteppingSettings):
    """The operator and its training.

    Attributes:
        modes: Fourier modes kept per axis (wave numbers up to modes/2); twice as many between walls.
        width: hidden channels.
        layers: Fourier layers.
    """

    modes: int = 16
    width: int = 32
    layers: int = 4


class _Even(nn.Module):
    """An operator on periodic fields, for fields that walls bound along some axes."""

    def __init__(self, operator: nn.Module, dims: list[int]) -> None:
        super().__init__()
        self.operator, self.dims = operator, dims

    def forward(self, fields: Tensor) -> Tensor:
        """(B, C, *grid) → (B, V, *grid)."""
        sizes = fields.shape
        for dim in self.dims:
            fields = torch.cat([fields, fields.flip(dim)], dim=dim)
        fields = self.operator(fields)
        for dim in self.dims:
            fields = fields.narrow(dim, 0, sizes[dim])
        return fields


def default(layout: Layout) -> FNOSettings:
    """On the plane, whose group turns it, quarter turns of the training fields; elsewhere as it is."""
    return FNOSettings(attitudes=4 if layout.space.domain == "plane" else 1)


def build(config: FNOSettings, layout: Layout) -> Stepper:
    """An untrained FNO for the fields of `layout`.

    Raises:
        UsageError: if the library is missing.
    """
    try:
        from neuralop.models import FNO
    except ImportError as error:
        raise UsageError(
            "expected the library neuraloperator, of which the FNO is; it is not installed.",
            "Type `pip install 'pdeforecast[bench]'`.",
        ) from error
    walls = [name not in PERIODIC[layout.space.domain] for name in layout.nodes]
    sizes = [size * (1 + wall) for size, wall in zip(layout.shape, walls, strict=True)]
    operator = FNO(
        n_modes=tuple(min(config.modes * (1 + w), n // 2 * 2) for w, n in zip(walls, sizes, strict=True)),
        in_channels=len(layout.variables) + len(layout.statics),
        out_channels=len(layout.variables),
        hidden_channels=config.width,
        n_layers=config.layers,
        positional_embedding=None,
    )
    dims = [i - len(walls) for i, wall in enumerate(walls) if wall]
    return Stepper(_Even(operator, dims) if dims else operator, config, layout)
