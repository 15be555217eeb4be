"""Fields between the nodes of their grid: by the harmonics of their space, and by splines.

Harmonics (`harmonics.py`) are exact for what the grid resolves. Splines are cubic and periodic along each
axis: a field on the plane is reflected at its walls, and over a pole a meridian goes on along the opposite
one.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pdeforecast.bench.harmonics import harmonics, same_axes
from pdeforecast.errors import UsageError
from pdeforecast.geometry import Geometry
from pdeforecast.trajectory import grid_dims, loose_points

Axes = Mapping[str, Tensor]
"""Nodes of a grid by coordinate, slow first; or the coordinates of loose places, all of one length."""

ROUND = ("sphere", "rotating_sphere")
SURFACES = ("periodic_plane", "plane", *ROUND)
"""Domains that have spectra and splines here."""
_FIELDS = 8
"""Fields that are interpolated at once."""
_PLACES = 64
"""Places at which harmonics are evaluated at once."""


def at_nodes(values: Tensor, geometry: Geometry, axes: Axes, targets: Axes) -> Tensor:
    """The spectral interpolant of values (…, *grid) at the nodes of another grid.

    Raises:
        UsageError: if the space has no harmonics.
        DataError: if the grid does not tell them apart.
    """
    if same_axes(axes, targets):
        return values
    basis = harmonics(geometry, {name: len(axis) for name, axis in axes.items()})
    found = basis.analysis(values, axes)
    pieces = [basis.synthesis(part, targets) for part in found.view(-1, basis.count).split(_FIELDS)]
    shown = torch.cat(pieces)
    return shown.view(*found.shape[:-1], *shown.shape[1:])


def at_places(values: Tensor, geometry: Geometry, axes: Axes, places: Axes) -> Tensor:
    """The spectral interpolant of values (…, *grid) at M loose places: (…, M).

    Raises:
        UsageError, DataError: as `at_nodes`.
    """
    basis = harmonics(geometry, {name: len(axis) for name, axis in axes.items()})
    found = basis.analysis(values, axes)
    points = loose_points(geometry, places)
    return torch.cat([found @ basis.at(chunk).T for chunk in points.split(_PLACES)], dim=-1)


def random_places(geometry: Geometry, count: int, seed: int) -> dict[str, Tensor]:
    """The coordinates (count,) of random places, spread as the measure of the space is."""
    draw = torch.Generator().manual_seed(seed)
    places = {}
    for name in grid_dims(geometry):
        low, high = geometry.extent[name]
        share = torch.rand(count, generator=draw, dtype=torch.float64)
        if name == "latitude":
            places[name] = (2 * share - 1).asin().rad2deg()
        else:
            places[name] = low + (high - low) * (share ** (1 / 3) if name == "radius" else share)
    return places


def splined(values: Tensor, geometry: Geometry, axes: Axes, targets: Axes) -> Tensor:
    """The periodic cubic spline of values (…, *grid), nodes ascending, at the nodes of another grid.

    Raises:
        UsageError: if the space is none of `SURFACES`.
    """
    check_surface(geometry)
    slow, fast = grid_dims(geometry)
    field, nodes, period = _periodic(values, geometry, axes)
    across = field @ spline_matrix(nodes[fast], period[fast], targets[fast]).T
    return spline_matrix(nodes[slow], period[slow], targets[slow]) @ across


def check_surface(geometry: Geometry) -> None:
    """Refuse a space without spectra and splines.

    Raises:
        UsageError: if there are none.
    """
    if geometry.domain not in SURFACES:
        raise UsageError(
            f"expected one of the spaces {', '.join(SURFACES)}; came {geometry.domain}.",
            "Measure with another suite: `pdeforecast bench forecast`.",
        )


def _periodic(values: Tensor, geometry: Geometry, axes: Axes) -> tuple[Tensor, Axes, Mapping[str, float]]:
    """The field as one that is periodic along both axes, with its nodes and periods."""
    slow, fast = grid_dims(geometry)
    nodes = {name: axes[name].double() for name in (slow, fast)}
    period = {name: high - low for name, (low, high) in geometry.extent.items()}
    if geometry.domain == "plane":
        for name, dim in ((slow, -2), (fast, -1)):
            values = torch.cat([values, values.flip(dim)], dim=dim)
            nodes[name] = torch.cat([nodes[name], 2 * geometry.extent[name][1] - nodes[name].flip(0)])
            period[name] *= 2
    if geometry.domain in ROUND:
        beyond = values.flip(-2).roll(values.shape[-1] // 2, dims=-1)
        values = torch.cat([values, beyond], dim=-2)
        nodes[slow] = torch.cat([nodes[slow], 180.0 - nodes[slow].flip(0)])
        period[slow] *= 2
    return values, nodes, period


def spline_matrix(nodes: Tensor, period: float, targets: Tensor) -> Tensor:
    """(T, n): the periodic cubic spline through values at n ascending nodes, which may be uneven.

    Its second derivatives M solve hᵢ₋₁Mᵢ₋₁ + 2(hᵢ₋₁ + hᵢ)Mᵢ + hᵢMᵢ₊₁ = 6 (slopeᵢ − slopeᵢ₋₁).
    """
    n = len(nodes)
    h = torch.cat([nodes[1:], nodes[:1] + period]) - nodes
    one = torch.eye(n, dtype=torch.float64)
    after, before = one.roll(1, 1), one.roll(-1, 1)
    last = h.roll(1)[:, None]
    slope = (after - one) / h[:, None]
    bends = last * before + 2 * (last + h[:, None]) * one + h[:, None] * after
    second = torch.linalg.solve(bends, 6 * (slope - slope.roll(1, 0)))
    t = (targets.double() - nodes[0]).remainder(period) + nodes[0]
    i = (torch.searchsorted(nodes.contiguous(), t.contiguous(), right=True) - 1).clamp(0, n - 1)
    j, width = (i + 1) % n, h[i][:, None]
    right = (t - nodes[i])[:, None]
    left = width - right
    curved = second[i] * (left**3 / width - width * left) + second[j] * (right**3 / width - width * right)
    return curved / 6 + (one[i] * left + one[j] * right) / width
