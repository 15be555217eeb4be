"""Spectral calculus on the sphere: scalars, and winds with their vorticity and divergence.

A scalar is f = Σ c_lm P_lm(sin φ) e^{imλ} over degrees l < L, at latitude φ and longitude λ
(`legendre_functions`: ∫ P_lm² dx = 1). A wind with the components u (eastward) and v (northward) has a
stream function and a potential,

    (u, v) = k × ∇ψ + ∇χ,      ∇²ψ = ζ (vorticity),   ∇²χ = δ (divergence),

and u ∓ iv are sums of harmonics of spin ±1, (∂_θ P_lm ± m P_lm / sin θ) e^{imλ}: smooth at the poles, and as
cheap as scalars. Every operator is exact for l < L; nothing is divided by cos φ.

Coefficients are complex, (…, l, m) with m ≥ 0; fields are (…, latitude, longitude).
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pdeforecast.errors import DataError
from pdeforecast.solvers.jacobi import gauss_legendre, legendre_functions

BAND = 16
"""Orders that are transformed together."""
LEAST_PIVOT = 0.1
"""How far, at least, a harmonic is from the span of those of lower degree, in units of its size."""


def gauss_axes(latitudes: int, longitudes: int | None = None) -> dict[str, Tensor]:
    """Gauss latitudes, and even longitudes from 0 (twice as many by default), in degrees."""
    longitudes = longitudes or 2 * latitudes
    return {
        "latitude": gauss_legendre(latitudes)[0].asin().rad2deg(),
        "longitude": 360.0 * torch.arange(longitudes, dtype=torch.float64) / longitudes,
    }


def regular_axes(latitudes: int) -> dict[str, Tensor]:
    """The centres of equal steps of latitude, and twice as many even longitudes from 0, in degrees."""
    steps = torch.arange(2 * latitudes, dtype=torch.float64)
    return {
        "latitude": 180.0 * (steps[:latitudes] + 0.5) / latitudes - 90.0,
        "longitude": 180.0 * steps / latitudes,
    }


class Sphere:
    """Harmonics on the nodes of a grid: values from coefficients, and back by least squares.

    N Gauss latitudes hold the degrees l < N, and so do N centres of equal steps, of scalars and of winds
    (with 2N longitudes; K longitudes hold m < K/2). Weights are those that integrate all polynomials of
    degree < N in sin φ. With more nodes than degrees `analysis` is a projection: if L Gauss harmonics are
    shown on 3L/2 latitudes and 3L longitudes, that of the product of two fields is exact.

    Args:
        axes: latitudes and longitudes in degrees, ascending; the longitudes divide the circle evenly.
        degrees: L, if fewer than the nodes hold.
        radius: of the sphere, in a unit of length.

    Attributes:
        degrees: L.
        eigenvalues: −l(l+1)/radius², of the Laplacian, (L, 1).

    Raises:
        DataError: if the longitudes are uneven, or the latitudes tell apart less than a third of their
            number of degrees.
    """

    def __init__(self, axes: Mapping[str, Tensor], degrees: int | None = None, radius: float = 1.0) -> None:
        latitude, longitude = axes["latitude"].double(), axes["longitude"].double()
        check_even(longitude)
        x = latitude.deg2rad().sin()
        most = min(len(latitude), (len(longitude) + 1) // 2)
        l = torch.arange(min(degrees or most, most), dtype=x.dtype, device=x.device)  # noqa: E741
        p, slope, order = legendre_functions(len(l), x)
        root = (l * (l + 1)).sqrt()
        spin = torch.stack([slope + order, slope - order]) / (2 * root).clamp_min(1)
        inverse = _inverse(torch.cat([p[None], math.sqrt(2) * spin]), _areas(latitude))
        self.degrees = degrees = inverse.shape[-3]
        self.longitudes, self.first = len(longitude), float(longitude[0].deg2rad())
        p, spin, root = p[:degrees, :, :degrees], spin[:, :degrees, :, :degrees], root[:degrees]
        self.eigenvalues = -((root / radius) ** 2)[:, None]
        strength = torch.where(root > 0, -radius / root, 0.0)
        self._show, self._read = _bands(p.mT, -2), _bands(inverse[0].mT, -1)
        self._blow = [_bands((part * strength).mT, -2) for part in spin]
        back = math.sqrt(2) * torch.where(root > 0, 1 / strength, 0.0)
        self._feel = [_bands((back[:, None] * part).mT, -1) for part in inverse[1:]]

    def analysis(self, field: Tensor) -> Tensor:
        """The coefficients (…, L, L) of a real field (…, latitude, longitude)."""
        return _to_degrees(self._read, self._waves(field))

    def synthesis(self, coefficients: Tensor) -> Tensor:
        """The real field (…, latitude, longitude) of coefficients (…, L, L)."""
        return self._field(_to_nodes(self._show, coefficients))

    def winds(self, vorticity: Tensor, divergence: Tensor) -> tuple[Tensor, Tensor]:
        """The fields u and v of a wind, from the coefficients of ζ and δ; their means play no part."""
        turn = 1j * divergence
        first, second = _to_nodes(self._blow[0], vorticity + turn), _to_nodes(self._blow[1], vorticity - turn)
        u, v = self._field(torch.stack([first + second, 1j * (first - second)])).unbind(0)
        return u, v

    def curl_and_divergence(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients of ζ and δ from the fields u and v."""
        u, v = self._waves(torch.stack([u, v])).unbind(0)
        first, second = (
            _to_degrees(self._feel[0], 0.5 * (u - 1j * v)),
            _to_degrees(self._feel[1], 0.5 * (u + 1j * v)),
        )
        return 0.5 * (first + second), -0.5j * (first - second)

    def gradient(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """The fields of ∂f/∂(eastward) and ∂f/∂(northward)."""
        return self.winds(torch.zeros_like(coefficients), self.laplacian(coefficients))

    def laplacian(self, coefficients: Tensor) -> Tensor:
        """The coefficients of ∇²f."""
        return self.eigenvalues * coefficients

    def inverse_laplacian(self, coefficients: Tensor) -> Tensor:
        """The coefficients of the f of zero mean with ∇²f = g − mean(g)."""
        return torch.where(self.eigenvalues < 0, coefficients / self.eigenvalues, 0.0)

    def mean(self, coefficients: Tensor) -> Tensor:
        """The mean of f over the sphere."""
        return math.sqrt(0.5) * coefficients[..., 0, 0].real

    def _field(self, spectrum: Tensor) -> Tensor:
        if self.first != 0.0:
            spectrum = spectrum * self._phase(spectrum)
        return torch.fft.irfft(spectrum, n=self.longitudes, norm="forward")

    def _waves(self, field: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(field, norm="forward")[..., : self.degrees]
        return spectrum if self.first == 0.0 else spectrum * self._phase(spectrum).conj()

    def _phase(self, spectrum: Tensor) -> Tensor:
        angle = self.first * torch.arange(self.degrees, dtype=torch.float64, device=spectrum.device)
        return torch.polar(torch.ones_like(angle), angle)


def resize(coefficients: Tensor, degrees: int) -> Tensor:
    """The coefficients (…, l, m) cut or padded with zeros to (…, degrees, degrees)."""
    kept = coefficients[..., :degrees, :degrees]
    missing = degrees - kept.shape[-1]
    return torch.nn.functional.pad(kept, (0, missing, 0, missing))


def _bands(matrices: Tensor, degree: int) -> list[Tensor]:
    """Matrices (m, A, B), some orders at a time, without the degrees below their first order.

    Args:
        degree: the dimension, −2 or −1, that counts degrees.
    """
    parts = enumerate(matrices.split(BAND))
    return [part.narrow(degree, i * BAND, part.shape[degree] - i * BAND).contiguous() for i, part in parts]


def _to_nodes(bands: list[Tensor], coefficients: Tensor) -> Tensor:
    """One matrix (l, J) per order: (…, l, m) → (…, J, m)."""
    rows = _rows(coefficients).split(BAND)
    products = [
        torch.bmm(row[..., i * BAND :], band) for i, (row, band) in enumerate(zip(rows, bands, strict=True))
    ]
    return _columns(torch.cat(products), coefficients)


def _to_degrees(bands: list[Tensor], waves: Tensor) -> Tensor:
    """One matrix (J, l) per order: (…, J, m) → (…, l, m)."""
    products = [torch.bmm(row, band) for row, band in zip(_rows(waves).split(BAND), bands, strict=True)]
    padded = [torch.nn.functional.pad(product, (i * BAND, 0)) for i, product in enumerate(products)]
    return _columns(torch.cat(padded), waves)


def _rows(c: Tensor) -> Tensor:
    """(…, A, m) → (m, fields, A) real: all fields side by side, so that every matrix is read once."""
    return torch.view_as_real(c.reshape(-1, *c.shape[-2:])).permute(2, 0, 3, 1).flatten(1, 2)


def _columns(product: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_rows`, with the leading dimensions of `like`."""
    c = torch.view_as_complex(product.unflatten(1, (-1, 2)).permute(1, 3, 0, 2).contiguous())
    return c.reshape(*like.shape[:-2], *c.shape[-2:])


def _inverse(functions: Tensor, weights: Tensor) -> Tensor:
    """The weighted least-squares inverses (…, m, l, J) of functions (…, m, J, l), zero where there are none.

    They are cut at the first degree at which, at some order, a function depends on those of lower degree.
    """
    tests = (weights[:, None] * functions).mT
    gram = tests @ functions
    one = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    gram = gram + one * (gram.diagonal(dim1=-2, dim2=-1) == 0)[..., None]
    # Regular enough for the factor to exist where functions depend on each other: pivots of 1e-5.
    pivots = torch.linalg.cholesky(gram + 1e-10 * one).diagonal(dim1=-2, dim2=-1)
    held = (pivots >= LEAST_PIVOT).flatten(0, -2).all(0).cumprod(0).sum()
    count, nodes = int(held), len(weights)
    if 3 * count < min(nodes, functions.shape[-1]):
        raise DataError(
            f"expected latitudes that tell {-(-nodes // 3)} degrees apart; these {nodes} tell {count}.",
            "Interpolate the state onto Gauss latitudes, or onto the centres of equal steps.",
        )
    root = torch.linalg.cholesky(gram[..., :count, :count, :count])
    return torch.cholesky_solve(tests[..., :count, :count, :], root)


def _areas(latitude: Tensor) -> Tensor:
    """Weights that integrate polynomials in x = sin φ of degree below their number, if all are positive.

    ∫ cos kθ sin θ dθ = 2/(1 − k²) for even k, else 0. If one is negative: the areas of Voronoi cells.
    """
    k = torch.arange(len(latitude), dtype=latitude.dtype, device=latitude.device)
    moments = torch.where(k % 2 == 0, 2 / (1 - k**2), 0.0)
    waves = torch.cos(k[:, None] * (90 - latitude).deg2rad())
    weights, singular = torch.linalg.solve_ex(waves, moments)
    if not int(singular) and bool((weights > 0).all()):
        return weights
    edges = torch.cat([latitude.new_tensor([-90.0]), 0.5 * (latitude[1:] + latitude[:-1])])
    edges = torch.cat([edges, latitude.new_tensor([90.0])])
    return edges.deg2rad().sin().diff()


def check_even(longitude: Tensor) -> None:
    """Refuse longitudes, in degrees, that do not divide the circle evenly.

    Raises:
        DataError: if they do not.
    """
    step = 360.0 / len(longitude)
    if not torch.allclose(longitude.diff(), longitude.new_tensor(step), rtol=0, atol=1e-4):
        raise DataError(
            f"expected longitudes that divide the circle evenly, {step:g} degrees apart; these do not.",
            "Interpolate the state onto even longitudes.",
        )
