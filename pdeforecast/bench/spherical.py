"""A convolution network on the sphere, stepped by frames (`stepping.py`): the forecast turns with the world.

A convolution with a filter of one angle multiplies all harmonics of degree l by one number, here by one
matrix W_l among the channels, which commutes with every rotation:

    x ← x + GELU(Σ_lm Y_lm W_l x̂_lm + A x)

Hidden fields are cut to the degrees l < D (spectral pooling) and held on 3D/2 Gauss latitudes, where
products of two of them are exact; the GELU is not band-limited, and what is cut of it is the error of the
symmetry. On the rotating sphere the sine of the latitude φ, to which the Coriolis parameter is
proportional, and its square are two more channels: this is the spherical Fourier neural operator. Source:
B. Bonev et al., Spherical Fourier neural operators, ICML 2023; C. Esteves et al., Learning SO(3)
equivariant representations, ECCV 2018.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pdeforecast.bench.contract import Layout
from pdeforecast.bench.stepping import Stepper, SteppingSettings
from pdeforecast.solvers.sphere import Sphere, gauss_axes, resize


@dataclass(frozen=True)
class SphericalSettings(SteppingSettings):
    """The network and its training.

    Attributes:
        degrees: D of the hidden fields; no more than the grid holds.
        width: hidden channels.
        layers: convolutions.
    """

    rate: float = 3e-3
    degrees: int = 32
    width: int = 32
    layers: int = 4


class Convolution(nn.Module):
    """Coefficients (B, C, l, m) → (B, C', l, m), by a matrix for each degree."""

    def __init__(self, inputs: int, outputs: int, degrees: int) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(degrees, inputs, outputs) / math.sqrt(inputs))

    def forward(self, coefficients: Tensor) -> Tensor:
        return torch.einsum("bclm,lco->bolm", coefficients, self.filters.to(coefficients))


class SphericalOperator(nn.Module):
    """Fields (B, V + P, latitude, longitude) → (B, V, latitude, longitude).

    Args:
        axes: of the grid.
        axial: whether the sphere has an axis that the fields may know of.
    """

    def __init__(
        self, inputs: int, outputs: int, axes: Mapping[str, Tensor], axial: bool, config: SphericalSettings
    ) -> None:
        super().__init__()
        order = {name: axis.argsort() for name, axis in axes.items()}
        self.order, self.back = (
            [o[name] for name in axes] for o in (order, {n: o.argsort() for n, o in order.items()})
        )
        self.axes = {name: axis[order[name]] for name, axis in axes.items()}
        self.degrees = min(config.degrees, Sphere(self.axes).degrees)
        self.axial = axial
        width = config.width
        self.lift = nn.Linear(inputs + 2 * axial, width)
        self.convolutions = nn.ModuleList(
            Convolution(width, width, self.degrees) for _ in range(config.layers)
        )
        self.local = nn.ModuleList(nn.Linear(width, width) for _ in range(config.layers))
        self.nonlinearity: nn.Module = nn.GELU()
        self.project = Convolution(width, outputs, self.degrees)
        self._spheres: dict[torch.device, tuple[Sphere, Sphere]] = {}

    def forward(self, fields: Tensor) -> Tensor:
        outer, inner = self._transforms(fields.device)
        rows, columns = (order.to(fields.device) for order in self.order)
        coefficients = outer.analysis(fields[..., rows, :][..., columns].double())
        x = inner.synthesis(resize(coefficients, self.degrees)).to(fields.dtype)
        if self.axial:
            sine = gauss_axes(x.shape[-2])["latitude"].deg2rad().sin().to(x)[:, None]
            known = torch.stack([sine, sine**2]).expand(len(x), 2, *x.shape[-2:])
            x = torch.cat([x, known], dim=1)
        x = _pointwise(self.lift, x)
        for convolution, local in zip(self.convolutions, self.local, strict=True):
            far = inner.synthesis(convolution(inner.analysis(x.double()))).to(x.dtype)
            x = x + self.nonlinearity(far + _pointwise(local, x))
        found = outer.synthesis(resize(self.project(inner.analysis(x.double())), outer.degrees))
        rows, columns = (back.to(fields.device) for back in self.back)
        return found[..., rows, :][..., columns].to(fields.dtype)

    def _transforms(self, device: torch.device) -> tuple[Sphere, Sphere]:
        """Of the grid, and of the hidden fields."""
        if device not in self._spheres:
            outer = Sphere({name: axis.to(device) for name, axis in self.axes.items()})
            gauss = gauss_axes(-(-3 * self.degrees // 2))
            inner = Sphere({name: axis.to(device) for name, axis in gauss.items()}, self.degrees)
            self._spheres[device] = outer, inner
        return self._spheres[device]


def _pointwise(linear: nn.Module, x: Tensor) -> Tensor:
    """A linear map of the channels (B, C, …)."""
    return linear(x.movedim(1, -1)).movedim(-1, 1)


def build(config: SphericalSettings, layout: Layout) -> Stepper:
    """An untrained network for the fields of `layout`."""
    inputs = len(layout.variables) + len(layout.statics)
    axial = layout.space.domain == "rotating_sphere"
    operator = SphericalOperator(inputs, len(layout.variables), layout.axes, axial, config)
    return Stepper(operator, config, layout)
