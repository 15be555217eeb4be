"""Spectral calculus in the unit ball, of scalars and of divergence-free flow.

A scalar is f = Σ c_lnm R_ln(r) P_lm(cos θ) e^{imφ} (`solvers/jacobi.py`); a flow has two scalars,

    u = ∇×(t r) + ∇×∇×(p r),        r·u = ℒp,   r·∇×u = ℒt,   ℒ Y_lm = l(l+1) Y_lm,

with the position vector r. All of them turn as scalars do. Equations are projected (Galerkin) onto
orthonormal *modes*: those of the Laplacian with no flux through the wall, and those of the Stokes
operator with u_r = 0 and no stress along the wall. Both conditions are natural ones of

    −⟨s, ∇²f⟩ = ⟨∇s, ∇f⟩,        −⟨v, ∇²u⟩ = ⟨∇×v, ∇×u⟩ − 2∮ v·u,

so the mean of a scalar and rigid rotation are kept exactly, and the pressure never appears. Modes are
polynomials: smooth solutions converge exponentially. Products are taken on 3/2 as many points along
every axis, where their projections are exact.

Coefficients are complex, (…, l, n, m) with m ≥ 0; grids are (…, radius, latitude, longitude).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pdeforecast.errors import DataError
from pdeforecast.solvers.jacobi import (
    gauss_legendre,
    gauss_radii,
    legendre_functions,
    radial_functions,
    radial_sizes,
)
from pdeforecast.solvers.sphere import check_even

WORST_CONDITION = 100.0
"""Of the least-squares problems that take grid values to coefficients."""


def gauss_axes(resolution: int) -> dict[str, Tensor]:
    """The nodes that hold N modes: N Gauss radii, N Gauss latitudes, 2N longitudes (in degrees)."""
    return {
        "radius": gauss_radii(resolution)[0],
        "latitude": gauss_legendre(resolution)[0].asin().rad2deg(),
        "longitude": 180.0 * torch.arange(2 * resolution, dtype=torch.float64) / resolution,
    }


Vector = tuple[Tensor, Tensor, Tensor]
"""The components (r, θ, φ) of a vector field, θ southwards, each (…, radius, latitude, longitude)."""


class BallGrid:
    """Scalars on the nodes of a grid: values from coefficients, and back by least squares.

    Args:
        axes: radii in (0, 1], latitudes and longitudes in degrees, ascending; the longitudes divide
            the circle evenly.
        modes: N. The coefficients are (…, N, N, N); those that the nodes cannot tell apart are zero.

    Raises:
        DataError: if the longitudes are uneven, or the nodes tell apart less than a third of their number.
    """

    def __init__(self, axes: Mapping[str, Tensor], modes: int) -> None:
        radius, latitude, longitude = (axes[name].double() for name in ("radius", "latitude", "longitude"))
        x = latitude.deg2rad().sin()
        angle = torch.arange(modes, device=x.device) * longitude.deg2rad()[:, None]
        check_even(longitude)
        self.modes = modes
        self.radial = radial_functions(modes, modes, radius)[0]
        self.legendre = legendre_functions(modes, x)[0]
        self.waves = torch.polar(torch.ones_like(angle), angle)
        areas, volumes = _cells(x, -1.0, 1.0), _cells(radius, 0.0, 1.0) * radius**2
        most = min(modes, len(latitude), (len(longitude) + 1) // 2)
        self.from_latitudes = _invert("latitude", lambda n: self.legendre[:n, :, :n], areas, most)
        self.degrees = len(self.from_latitudes)
        most = min(modes, len(radius))
        self.from_radii = _invert(
            "radius", lambda n: radial_functions(self.degrees, n, radius)[0], volumes, most
        )

    def analysis(self, field: Tensor) -> Tensor:
        """The coefficients (…, N, N, N) of a real field (…, radius, latitude, longitude)."""
        waves = self.waves[:, : self.degrees].conj() / len(self.waves)
        spectrum = along_latitude(self.from_latitudes, (field.to(waves.dtype) @ waves).movedim(-3, -2))
        return resize(along_radius(self.from_radii, spectrum), self.modes)

    def synthesis(self, coefficients: Tensor) -> Tensor:
        """The real field (…, radius, latitude, longitude) of coefficients (…, N, N, N)."""
        spectrum = along_latitude(self.legendre, along_radius(self.radial, coefficients))
        twice = 2 * spectrum.movedim(-3, -2)
        twice[..., 0] *= 0.5
        return twice.real @ self.waves.real.mT - twice.imag @ self.waves.imag.mT


class Ball:
    """Galerkin modes of a scalar and of a flow: their fields, and projections onto them.

    The amplitudes a (…, 3, l, k, m) are those of the Neumann modes of a scalar, and of the poloidal
    and the toroidal modes of a flow.

    Args:
        modes: N, the number of degrees, and of radial functions of degree 0.

    Attributes:
        rates: λ ≥ 0 of every mode under the negative Laplacian or Stokes operator, (3, l, k, 1).
        radius: of the dealiased grid, (R, 1, 1).
    """

    def __init__(self, modes: int, device: torch.device | str = "cpu") -> None:
        size = -(-3 * modes // 2)
        r, volumes = gauss_radii(size)
        x, areas = gauss_legendre(size)
        modes_of = RadialModes(modes)
        legendre, slope, order = legendre_functions(modes, x)
        angular = torch.stack([legendre, 0.5 * (slope + order), 0.5 * (slope - order)])
        self.modes, self.size = modes, size
        self.radius = r[:, None, None].to(device)
        self.rates = torch.stack([rates for _, rates in modes_of.kinds])[..., None].to(device)
        self._vectors, self._duals = (matrix.to(device) for matrix in modes_of.change_of_basis())
        shown, tested = modes_of.profiles(r)
        self._shown = [torch.cat(rows, dim=-2).to(device) for rows in shown]
        self._tested = [torch.cat([volumes[:, None] * f for f in rows], -2).mT.to(device) for rows in tested]
        self._angular = angular.to(device)
        self._angular_tests = (areas[:, None] * angular).mT.to(device)

    def amplitudes(self, coefficients: Tensor) -> Tensor:
        """The modes of a scalar f, of r·u and of r·∇×u, from their coefficients (…, 3, l, n, m).

        The part of r·u that the wall forbids, a harmonic function, is left out.
        """
        return along_radius(self._duals, coefficients)

    def coefficients(self, a: Tensor) -> Tensor:
        """The coefficients of f, r·u and r·∇×u (…, 3, l, n, m)."""
        return along_radius(self._vectors, a)

    def fields(self, a: Tensor) -> tuple[Tensor, Vector, Vector]:
        """f, u and ∇×u on the dealiased grid."""
        f, poloidal, toroidal = (along_radius(s, c) for s, c in zip(self._shown, a.unbind(-4), strict=True))
        up, along, curl = poloidal.unflatten(-2, (3, self.size)).unbind(-3)
        turn, spin, bend = toroidal.unflatten(-2, (3, self.size)).unbind(-3)
        zero, plus, minus = self._angular
        along, turn = torch.stack([along, bend], dim=-4), 1j * torch.stack([turn, curl], dim=-4)
        first, second = along_latitude(plus, along + turn), along_latitude(minus, along - turn)
        f, up, spin = self._on_grid(along_latitude(zero, torch.stack([f, up, spin], dim=-4)))
        south, bent_south = self._on_grid(first + second)
        east, bent_east = self._on_grid(1j * (first - second))
        return f, (up, south, east), (spin, bent_south, bent_east)

    def _on_grid(self, spectrum: Tensor) -> tuple[Tensor, ...]:
        """Fields (…, R, J, K) from stacked spectra (…, fields, J, R, m)."""
        return torch.fft.irfft(spectrum.movedim(-3, -2), n=2 * self.size, norm="forward").unbind(-4)

    def project_gradient(self, flux: Vector) -> Tensor:
        """⟨∇s, flux⟩ for the modes s of a scalar, (…, l, k, m)."""
        radial, along, _ = self._harmonics(flux)
        return along_radius(self._tested[0], torch.cat([radial, along], dim=-2))

    def project_flow(self, force: Vector) -> Tensor:
        """⟨v, force⟩ for the poloidal and the toroidal modes v of a flow, (…, 2, l, k, m)."""
        radial, along, turn = self._harmonics(force)
        poloidal = along_radius(self._tested[1], torch.cat([radial, along], dim=-2))
        return torch.stack([poloidal, along_radius(self._tested[2], turn)], dim=-4)

    def _harmonics(self, vector: Vector) -> Vector:
        """The products with Y r̂, ∇₁Y and ∇₁Y × r̂ on every sphere, each (…, l, R, m)."""
        up, south, east = (
            torch.fft.rfft(part, norm="forward")[..., : self.modes].movedim(-3, -2) for part in vector
        )
        zero, plus, minus = self._angular_tests
        east = 1j * east
        first, second = along_latitude(plus, south - east), along_latitude(minus, south + east)
        return along_latitude(zero, up), first + second, -1j * (first - second)


class RadialModes:
    """The radial parts of the orthonormal modes, as coefficients of R_ln; N_l or N_l − 1 per degree.

    Each kind is a pair: vectors (l, n, k), zero where there is no mode, and λ (l, k). With the energy
    S = ∫ (s′f′ r² + l(l+1) s f) dr of two radial functions, the weak forms above become

        scalar:     λ ∫ s f r² dr = S(s, f)
        poloidal:   λ S(q, p) = ∫ ∇²q ∇²p r² dr − 2 q′(1) p′(1),   p(1) = 0
        toroidal:   λ ∫ s t r² dr = S(s, t) − s(1) t(1)
    """

    def __init__(self, modes: int) -> None:
        r, weights = gauss_radii(-(-3 * modes // 2))
        l = torch.arange(modes, dtype=torch.float64)[:, None, None]  # noqa: E741
        f, slope, laplacian = radial_functions(modes, modes, r)
        value, slope_at_wall, _ = radial_functions(modes, modes, torch.ones(1, dtype=torch.float64))
        exists = torch.arange(modes) < radial_sizes(modes, modes)[:, None]
        moving = exists & (l[:, 0] > 0)
        weights = weights[:, None]
        self.modes, self.eigen = modes, l * (l + 1)
        self.energy = slope.mT @ (weights * slope) + self.eigen * f.mT @ (weights / r[:, None] ** 2 * f)
        bending = laplacian.mT @ (weights * laplacian) - 2 * slope_at_wall.mT @ slope_at_wall
        vectors, rates = _eigenmodes(self.energy - value.mT @ value, moving)
        toroidal = vectors / self.eigen.clamp_min(1).sqrt(), rates
        poloidal = self._still_at_wall(bending, value[:, 0], moving)
        self.kinds = (_eigenmodes(self.energy, exists), poloidal, toroidal)

    def _still_at_wall(self, bending: Tensor, value: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
        """The poloidal modes, made of the functions R_ln / R_ln(1) − R_l,n+1 / R_l,n+1(1)."""
        exists = exists & torch.cat([exists[:, 1:], torch.zeros_like(exists[:, :1])], dim=-1)
        inverse = torch.where(value == 0, 0.0, 1 / value)
        ladder = (torch.diag_embed(inverse) - torch.diag_embed(inverse[:, 1:], -1)) * exists[:, None]
        mass = ladder.mT @ self.energy @ ladder + torch.diag_embed((~exists).double())
        root = torch.linalg.cholesky(mass).mT
        whiten = torch.linalg.solve_triangular(root, ladder, upper=True, left=False)
        vectors, rates = _eigenmodes(whiten.mT @ bending @ whiten, exists)
        return whiten @ vectors / self.eigen.clamp_min(1).sqrt(), rates

    def change_of_basis(self) -> tuple[Tensor, Tensor]:
        """From amplitudes to the coefficients of f, r·u = ℒp and r·∇×u = ℒt, and back, (3, l, ·, ·)."""
        scalar, poloidal, toroidal = (vectors for vectors, _ in self.kinds)
        forward = torch.stack([scalar, self.eigen * poloidal, self.eigen * toroidal])
        return forward, torch.stack([scalar.mT, poloidal.mT @ self.energy, toroidal.mT])

    def profiles(self, r: Tensor) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Radial profiles (l, K, k) of the fields of each kind, and of what they are tested against.

        A vector is a(r) Y r̂ + s(r) ∇₁Y + t(r) ∇₁Y × r̂, with the gradient ∇₁ of the unit sphere. Fields:
        of the scalar f; of poloidal flow the a and s of u and the t of ∇×u; of toroidal flow the t of
        u and the a and s of ∇×u. Tests: the a and s of ∇f, of poloidal u, and the t of toroidal u.
        """
        radial, r = radial_functions(self.modes, self.modes, r), r[:, None]
        (f, df, _), (p, dp, laplacian), (t, dt, _) = (
            [part @ vectors for part in radial] for vectors, _ in self.kinds
        )
        flow = [self.eigen * p / r, dp + p / r]
        return [[f], [*flow, -laplacian], [t, self.eigen * t / r, dt + t / r]], [[df, f / r], flow, [t]]


def cross(a: Vector, b: Vector) -> Vector:
    """a × b."""
    first, second, third = (
        torch.addcmul(a[i] * b[j], a[j], b[i], value=-1) for i, j in ((1, 2), (2, 0), (0, 1))
    )
    return first, second, third


def resize(coefficients: Tensor, modes: int) -> Tensor:
    """The coefficients (…, l, n, m) cut or padded with zeros to (…, N, N, N), none beyond N_l."""
    kept = coefficients[..., :modes, :modes, :modes]
    missing = [pad for size in reversed(kept.shape[-3:]) for pad in (0, modes - size)]
    exists = torch.arange(modes) < radial_sizes(modes, modes)[:, None]
    return torch.nn.functional.pad(kept, missing) * exists.to(kept.device)[..., None]


def along_radius(matrices: Tensor, c: Tensor) -> Tensor:
    """One matrix (l, A, B) per degree: (…, l, B, m) → (…, l, A, m)."""
    product = matrices @ torch.view_as_real(c).flatten(-2)
    return torch.view_as_complex(product.unflatten(-1, (-1, 2)))


def along_latitude(matrices: Tensor, c: Tensor) -> Tensor:
    """One matrix (m, A, B) per order: (…, B, r, m) → (…, A, r, m)."""
    return along_radius(matrices, c.movedim(-1, -3)).movedim(-3, -1)


def _eigenmodes(form: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal eigenvectors (l, n, k) and eigenvalues (l, k) of symmetric matrices, zero where none are.

    Rows that do not exist get the largest eigenvalues, so that the modes that do come first.
    """
    beyond = 2 * torch.linalg.matrix_norm(form).max()
    values, vectors = torch.linalg.eigh(
        torch.where(exists[:, None], form, 0) + beyond * torch.diag_embed((~exists).double())
    )
    real = torch.arange(exists.shape[-1]) < exists.sum(-1, keepdim=True)
    return vectors * real[:, None], (values * real).clamp_min(0)


def _invert(name: str, functions: Callable[[int], Tensor], weights: Tensor, most: int) -> Tensor:
    """The weighted least-squares inverses (…, n, nodes) for as many functions as the nodes tell apart.

    Args:
        functions: the values (…, nodes, n) of the functions of a given count n ≤ `most`; a column of
            zeros is none.
    """
    scale = weights.sqrt()[:, None]
    for count in range(most, most // 3, -1):
        scaled = scale * functions(count)
        u, s, v = torch.linalg.svd(scaled, full_matrices=False)
        found = torch.arange(s.shape[-1], device=s.device) < (scaled != 0).any(-2).sum(-1, keepdim=True)
        if float((s[..., :1] / s.where(found, s[..., :1])).max()) < WORST_CONDITION:
            return v.mT @ (torch.where(found, 1 / s, 0)[..., None] * u.mT * scale.mT)
    raise DataError(
        f"expected nodes of {name} that tell {most // 3 + 1} functions apart; these {len(weights)} do not.",
        "Interpolate the state onto Gauss nodes, or onto the centres of equal cells.",
    )


def _cells(nodes: Tensor, low: float, high: float) -> Tensor:
    """The lengths of the Voronoi cells of ascending nodes on [low, high]."""
    ends = nodes.new_tensor([low, high])
    return torch.cat([ends[:1], 0.5 * (nodes[1:] + nodes[:-1]), ends[1:]]).diff()
