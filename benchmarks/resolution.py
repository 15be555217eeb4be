"""What means over cells can tell of the field between: bounds for zero-shot super-resolution on the sphere.

    python benchmarks/resolution.py data/shallow-water/test_fine.nc

Of the truth on a fine grid the means over 2 × 2 cells are taken, as a coarse data set holds them, and from
these the fine field is sought again, in ways that make no error but this one. A forecast from data on the
coarse grid, with errors of its own on top, can hardly be nearer to the truth than the best of them.

    harmonics        the truth itself, without the harmonics that the coarse grid does not resolve
    spectral         the spectral interpolant of the means
    undone           the same by Fourier series along both axes, each wave divided by what means leave of it
    fitted           the best linear map for each zonal wave number, *learned from fine fields* of the first
                     half of the samples: no zero-shot method knows it

Relative L2 over leads in the training window, without the first, on the second half of the samples.
"""

import argparse

import torch
from torch import Tensor

from pdeforecast.bench.harmonics import harmonics
from pdeforecast.bench.interpolation import at_nodes
from pdeforecast.geometry import GEOMETRIES, Geometry
from pdeforecast.run import fields_of
from pdeforecast.trajectory import axes_of, geometry_of, open_dataset

_RIDGE = 1e-4
"""In units of the mean variance of a wave number."""


def main() -> None:
    """Print a row per variable."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("fine", metavar="FINE.nc")
    parser.add_argument("--frames", type=int, default=10, help="of the training window (10)")
    options = parser.parse_args()
    ds = open_dataset(options.fine).isel(time=slice(1, options.frames))
    space = GEOMETRIES[geometry_of(ds).name]
    axes = axes_of(ds, space)
    names = list(fields_of(ds)[0])
    order = ["sample", "time", *axes]
    fields = [torch.tensor(ds[name].transpose(*order).values).double() for name in names]
    truth = torch.stack(fields, dim=2)
    coarse_axes = {name: nodes.unflatten(0, (-1, 2)).mean(-1) for name, nodes in axes.items()}
    half = len(truth) // 2
    seen, known = truth[half:], truth[:half]
    found = {
        "harmonics": band_limited(seen, space, axes, coarse_axes),
        "spectral": at_nodes(means(seen), space, coarse_axes, axes),
        "undone": undone(means(seen)),
        "fitted": fitted(known, seen),
    }
    weights = space.weights(axes)
    print("variable".ljust(14), *(name.rjust(10) for name in found))
    for v, name in enumerate(names):
        errors = [relative_l2(field[:, :, v], seen[:, :, v], weights) for field in found.values()]
        print(name.ljust(14), *(f"{error:.3g}".rjust(10) for error in errors))


def means(fine: Tensor) -> Tensor:
    """Means over 2 × 2 cells."""
    return fine.unflatten(-1, (-1, 2)).mean(-1).unflatten(-2, (-1, 2)).mean(-2)


def relative_l2(found: Tensor, truth: Tensor, weights: Tensor) -> float:
    """Mean over samples and times of ‖found − truth‖ / ‖truth‖."""
    error, size = ((weights * x.square()).sum((-2, -1)) for x in (found - truth, truth))
    return float((error / size).sqrt().mean())


def band_limited(fine: Tensor, space: Geometry, axes: dict[str, Tensor], coarse: dict[str, Tensor]) -> Tensor:
    """The truth without what lies above the band of the coarse grid."""
    basis = harmonics(space, {name: len(nodes) for name, nodes in coarse.items()})
    return basis.synthesis(basis.analysis(fine, axes), axes)


def undone(coarse: Tensor) -> Tensor:
    """Twice as many nodes, on the torus that meridians make when they go on over the poles."""
    latitudes, longitudes = coarse.shape[-2:]
    torus = torch.cat([coarse, coarse.flip(-2).roll(longitudes // 2, -1)], dim=-2)
    for dim in (-2, -1):
        torus = finer(torus, dim)
    return torus[..., : 2 * latitudes, :]


def finer(means: Tensor, dim: int) -> Tensor:
    """A periodic series at the midpoints of half cells, from its means over pairs of these."""
    n = means.shape[dim]
    waves = torch.fft.rfft(means.movedim(dim, -1))[..., : (n + 1) // 2]
    k = torch.arange(waves.shape[-1]).double()
    # A wave's values at the midpoints of two halves lie π k / 2n to either side of the cell's centre.
    waves = (
        waves / torch.cos(torch.pi * k / (2 * n)) * torch.polar(torch.ones_like(k), -torch.pi * k / (2 * n))
    )
    return (2 * torch.fft.irfft(waves, n=2 * n)).movedim(-1, dim)


def fitted(known: Tensor, seen: Tensor) -> Tensor:
    """Zonal wave numbers of the fine grid, each by the best linear map from that wave of the means."""
    target = torch.fft.rfft(known, norm="forward")
    given, asked = (torch.fft.rfft(means(x), norm="forward").flatten(2, 3) for x in (known, seen))
    spectrum = asked.new_zeros(*seen.shape[:-1], target.shape[-1])
    for m in range(given.shape[-1]):
        a, b = given[..., m].flatten(0, 1), target[..., m].flatten(2, 3).flatten(0, 1)
        scale = a.abs().square().mean(0).sqrt().clamp_min(1e-30)
        a = a / scale
        gram = a.mH @ a + _RIDGE * len(a) * torch.eye(a.shape[1])
        solution = torch.linalg.solve(gram, a.mH @ b)
        spectrum[..., m] = ((asked[..., m] / scale) @ solution).unflatten(-1, spectrum.shape[2:4])
    return torch.fft.irfft(spectrum, n=seen.shape[-1], norm="forward")


if __name__ == "__main__":
    main()
