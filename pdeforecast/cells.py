"""Means over the cells of a grid of the sphere, and the field that they are the means of.

A number of a grid may be the value at its node, or the mean over the cell about it; CF conventions tell which
by the attribute `cell_methods`, as in `area: mean`. A cell is taken as its c × c nodes at the centres of
equal parts; along an axis with n cells the mean multiplies the wave of number k by

    a_k = sin(πk / n) / (c sin(πk / cn)).

Source: Climate and Forecast conventions 1.11, section 7.3.
"""

import re
from collections.abc import Iterable

import torch
import xarray as xr
from torch import Tensor

MEAN = "area: mean"
"""What `cell_methods` says of means over cells."""
_MEANS = re.compile(r"\b(area|latitude: longitude|longitude: latitude|lat: lon|lon: lat): mean\b")


def holds_means(ds: xr.Dataset, variables: Iterable[str]) -> bool:
    """Whether every one of the variables is a mean over cells by its `cell_methods`."""
    names = [name for name in variables if name in ds.variables]
    return bool(names) and all(_MEANS.search(str(ds[name].attrs.get("cell_methods", ""))) for name in names)


def means(fine: Tensor, cells: int) -> Tensor:
    """Means over cells of c × c nodes: (…, c·latitudes, c·longitudes) → (…, latitudes, longitudes)."""
    return fine.unflatten(-1, (-1, cells)).mean(-1).unflatten(-2, (-1, cells)).mean(-2)


def undone(coarse: Tensor, cells: int) -> Tensor:
    """The smoothest field with these means, on c times as many nodes: the inverse of `means`.

    Each wave up to the grid's Nyquist number is divided by what means leave of it, on the torus that
    meridians make when they go on over the poles.

    Args:
        coarse: (…, latitudes, longitudes), at the centres of equal cells from pole to pole and all around.
    """
    latitudes, longitudes = coarse.shape[-2:]
    torus = torch.cat([coarse, coarse.flip(-2).roll(longitudes // 2, -1)], dim=-2)
    for dim in (-2, -1):
        torus = _finer(torus, dim, cells)
    return torus[..., : cells * latitudes, :]


def offsets(cells: int) -> Tensor:
    """(c,): where the nodes of a cell lie about its centre, in units of its width."""
    return (torch.arange(cells, dtype=torch.float64) + 0.5) / cells - 0.5


def widths(axis: Tensor, alone: float) -> Tensor:
    """(n,): the widths of the cells about the nodes of an axis, with their sign; of a single one, `alone`."""
    if len(axis) < 2:
        return torch.full_like(axis, alone)
    step = axis.diff()
    return torch.cat([step[:1], 0.5 * (step[1:] + step[:-1]), step[-1:]])


def nodes_of(axis: Tensor, cells: int, alone: float) -> Tensor:
    """(c n,): the nodes that the cells about the nodes of an axis (n,) are made of."""
    return (axis[:, None] + widths(axis, alone)[:, None] * offsets(cells)).flatten()


def shrinks(wave: Tensor, width: float, cells: int) -> Tensor:
    """What means leave of e^{iwave·x} over cells of `width`, in radians."""
    return torch.cos(wave[..., None] * width * offsets(cells).to(wave.device)).mean(-1)


def _finer(coarse: Tensor, dim: int, cells: int) -> Tensor:
    n = coarse.shape[dim]
    waves = torch.fft.rfft(coarse.movedim(dim, -1))[..., : (n + 1) // 2]
    k = torch.arange(waves.shape[-1], device=coarse.device).double()
    width = 2 * torch.pi / n
    # The first node lies beside the centre of the first cell.
    phase = torch.polar(torch.ones_like(k), k * width * float(offsets(cells)[0]))
    waves = waves / shrinks(k, width, cells) * phase
    return (cells * torch.fft.irfft(waves, n=cells * n)).movedim(-1, dim)
