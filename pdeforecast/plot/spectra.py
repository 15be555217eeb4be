"""How the power of a field is spread over scales, where the space and its grid have waves.

    torus    E(k) = Σ |û|² over k − ½ ≤ |k| < k + ½                     (`metrics.spectrum`)
    sphere   E(l) = ½ (|c_l0|² + 2 Σ_{m>0} |c_lm|²)                     (`solvers.sphere`)

Both sum to the mean square of the field. A grid of n nodes per period holds k < n/2, its Nyquist; one of
N latitudes and K longitudes holds the degrees l < min(N, K/2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from pdeforecast.errors import DataError
from pdeforecast.metrics import spectrum
from pdeforecast.plot.colours import CURVES, GREY
from pdeforecast.plot.curves import plain
from pdeforecast.plot.labels import label, squared
from pdeforecast.plot.nodes import Nodes
from pdeforecast.plot.scene import Array, Scene
from pdeforecast.plot.views import SPHERICAL
from pdeforecast.solvers.sphere import Sphere

_COLOURS = {"truth": "black", "forecast": CURVES[0], "error": CURVES[1]}
_FLOOR = 1e-13
"""Nothing is drawn below this share of the greatest power: it would be rounding."""


@dataclass(frozen=True)
class Spectra:
    """The spectra of a scene's fields at one lead time.

    Attributes:
        scales: wave numbers or degrees (K,), from 1.
        powers: (S, K) of each field.
        name: of the scales, and their unit.
        nyquist: the first scale that the training grid does not hold, if it is known.
    """

    scales: Array
    powers: Mapping[str, Array]
    name: str
    unit: str
    nyquist: float | None


def spectra(
    scene: Scene, nodes: Nodes, frame: int, trained_on: Mapping[str, int] | None = None
) -> Spectra | None:
    """The spectra at one frame; None where space or grid have no waves, or where a value is missing.

    Args:
        trained_on: the size of each axis of the grid of the model's training data.
    """
    fields = {name: field[:, frame] for name, field in scene.fields.items()}
    if len(nodes.axes) != 2 or not all(np.isfinite(field).all() for field in fields.values()):
        return None
    grids = {name: torch.from_numpy(field[:, nodes.order.T]) for name, field in fields.items()}
    names = scene.geometry.coordinates
    sizes = [trained_on[name] for name in names] if trained_on and set(names) <= set(trained_on) else None
    if names == SPHERICAL:
        axes = {name: torch.from_numpy(axis) for name, axis in zip(names, nodes.axes, strict=True)}
        try:
            sphere = Sphere(axes)
        except DataError:
            return None
        powers = {name: _by_degree(sphere.analysis(grid)) for name, grid in grids.items()}
        return _cut(powers, "degree", "1", min(sizes[0] / 2, sizes[1]) if sizes else None)
    if not all(_even(axis, period) for axis, period in zip(nodes.axes, nodes.periods, strict=True)):
        return None
    powers = {name: spectrum(grid)[1] for name, grid in grids.items()}
    return _cut(powers, "wave number", "waves per period", min(sizes) / 2 if sizes else None)


def _by_degree(coefficients: torch.Tensor) -> torch.Tensor:
    """E(l) (…, L) of the coefficients (…, l, m ≥ 0) of a real field."""
    power = coefficients.abs().square()
    return power.sum(-1) - 0.5 * power[..., 0]


def _even(axis: Array, period: float) -> bool:
    return bool(period) and np.allclose(np.diff(axis), period / len(axis), rtol=0, atol=1e-6 * period)


def _cut(powers: Mapping[str, torch.Tensor], name: str, unit: str, nyquist: float | None) -> Spectra | None:
    """Without the mean of the field, which has no scale; None if nothing is left."""
    made = {key: np.asarray(power[..., 1:].numpy()) for key, power in powers.items()}
    if not any((power > 0).any() for power in made.values()):
        return None
    count = next(iter(made.values())).shape[-1]
    return Spectra(np.arange(1.0, count + 1), made, name, unit, nyquist)


def draw_spectra(axes: Axes, found: Spectra, scene: Scene, moment: str) -> None:
    """Means over samples, within their range; the training Nyquist as a dotted line."""
    for name, power in found.powers.items():
        colour, dashed = _COLOURS[name], "--" if name == "forecast" else "-"
        above = 3 if name == "forecast" else 2
        look: dict[str, Any] = {"color": colour, "linewidth": 1.2, "zorder": above, "label": scene.word(name)}
        axes.plot(found.scales, power.mean(0), dashed, **look)
        axes.fill_between(found.scales, power.min(0), power.max(0), color=colour, alpha=0.12, linewidth=0)
    if found.nyquist is not None:
        axes.axvline(found.nyquist, color=GREY, linestyle=":", linewidth=1.2, label="training Nyquist")
    axes.set(xscale="log", yscale="log")
    greatest = max(float(power.max()) for power in found.powers.values())
    means = np.stack([power.mean(0) for power in found.powers.values()]) / greatest
    last = max(found.scales[(means > _FLOOR).any(0)].max(), found.nyquist or 0.0)
    axes.set(xlim=(0.95, 1.1 * last), ylim=(greatest * max(means.min() / 3, _FLOOR), 4 * greatest))
    axes.set_xlabel(f"{label(found.name, found.unit)}, at {moment}")
    axes.set_ylabel(label("power", squared(scene.unit)))
    plain(axes)
