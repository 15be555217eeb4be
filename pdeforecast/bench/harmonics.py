"""The harmonics of a space: smooth functions of unit mean square that its motions mix in small groups only.

Fourier modes on the torus, cosines between walls, spherical harmonics, and those times Jacobi polynomials
in the ball. A field is Σ_k c_k Y_k(x): from a grid by `analysis`, to a grid or to any points by
`synthesis` and `at`; what lies between is spectral interpolation (`resample`).

`groups` name the irreducible parts: the rows of each (components, copies) table of indices are what
motions mix, its columns are the same part found several times (all radial functions of a degree l, say).
By Schur's lemma a covariance that no motion changes is one matrix among the copies of each group, the
same for all components.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pdeforecast.errors import DataError, UsageError
from pdeforecast.geometry import Geometry
from pdeforecast.solvers.ball import BallGrid
from pdeforecast.solvers.jacobi import legendre_functions, radial_functions, radial_sizes
from pdeforecast.solvers.sphere import Sphere
from pdeforecast.trajectory import grid_dims

PERIODIC: Mapping[str, Sequence[str]] = {"periodic_plane": ("x", "y"), "cylinder": ("x",), "plane": ()}
"""Coordinates that close upon themselves, of spaces whose harmonics are products; walls bound the others."""
_CHUNK = 1024
"""Points at which functions are evaluated at once."""
_LEAST_SINGULAR = 0.1
"""Of the functions on the nodes of an axis, in units of the largest: less means that they are not told
apart."""


class Harmonics(ABC):
    """K real functions on a space.

    Attributes:
        count: K.
        groups: tables (components, copies) of indices; the first is the part that no motion changes.
        lonely: (K,), the functions whose partners under motion no grid of this size can tell from zero: the
            waves of two nodes per period.
    """

    count: int
    groups: Sequence[Tensor]
    lonely: Tensor

    @abstractmethod
    def _at(self, points: Tensor) -> Tensor:
        """`at`, of few points."""

    def at(self, points: Tensor) -> Tensor:
        """The functions (M, K) at points (M, point_dim)."""
        return torch.cat([self._at(chunk) for chunk in points.double().split(_CHUNK)])

    @abstractmethod
    def analysis(self, values: Tensor, axes: Mapping[str, Tensor]) -> Tensor:
        """The coefficients (…, K) of fields (…, *grid).

        Raises:
            DataError: if the nodes do not tell the functions apart.
        """

    @abstractmethod
    def synthesis(self, coefficients: Tensor, axes: Mapping[str, Tensor]) -> Tensor:
        """The fields (…, *grid) of coefficients (…, K) on any axes, in the order of `grid_dims`."""


class Products(Harmonics):
    """Products of Fourier modes along periodic axes and of cosines between walls.

    Args:
        isotropic: whether a group is all that has one eigenvalue of the Laplacian, not one wave number per
            axis.
    """

    def __init__(
        self, space: Geometry, sizes: Mapping[str, int], periodic: Sequence[str], isotropic: bool
    ) -> None:
        self.dims = grid_dims(space)
        self.columns = [space.coordinates.index(name) for name in self.dims]
        self.extent, self.sizes, self.periodic = space.extent, dict(sizes), periodic
        waves = [self._axis(name, torch.zeros(1).double())[1] for name in self.dims]
        self.shape = [len(wave) for wave in waves]
        self.count = math.prod(self.shape)
        mesh = torch.stack(torch.meshgrid(*waves, indexing="ij"), dim=-1).flatten(0, -2)
        labels = mesh.square().sum(-1, keepdim=True) if isotropic else mesh
        halves = torch.tensor(
            [
                len(wave) / 2 if name in periodic else math.inf
                for name, wave in zip(self.dims, waves, strict=True)
            ]
        )
        self.lonely = (mesh == halves).any(-1)
        which = torch.unique(labels, dim=0, return_inverse=True)[1]
        self.groups = [
            index[:, None] for index in which.argsort(stable=True).split(which.bincount().tolist())
        ]

    def _axis(self, name: str, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The functions (n, K') of one axis at nodes (n,), and their wave numbers (K',)."""
        low, high = self.extent[name]
        n = self.sizes[name]
        if name in self.periodic:
            j = torch.arange(n // 2 + 1, dtype=torch.float64)
            angle = 2 * math.pi * (nodes.double()[:, None] - low) / (high - low) * j
            paired = slice(1, (n + 1) // 2)
            size = _either((j == 0) | (2 * j == n), 1.0, math.sqrt(2))
            sines = math.sqrt(2) * angle[:, paired].sin()
            return torch.cat([size * angle.cos(), sines], dim=1), torch.cat([j, j[paired]])
        j = torch.arange(n, dtype=torch.float64)
        waves = (math.pi * (nodes.double()[:, None] - low) / (high - low) * j).cos()
        return _either(j > 0, math.sqrt(2), 1.0) * waves, j

    def _at(self, points: Tensor) -> Tensor:
        product = torch.ones(len(points), 1, dtype=torch.float64)
        for name, column in zip(self.dims, self.columns, strict=True):
            functions = self._axis(name, points[:, column])[0]
            product = (product[:, :, None] * functions[:, None, :]).flatten(1)
        return product

    def analysis(self, values: Tensor, axes: Mapping[str, Tensor]) -> Tensor:
        found = values.double()
        for i, name in enumerate(self.dims):
            functions, waves = self._axis(name, axes[name])
            lonely = (2 * waves == self.sizes[name]) & (name in self.periodic)
            singular = torch.linalg.svdvals(functions[:, ~lonely])
            if len(axes[name]) < functions.shape[1] or singular[-1] < _LEAST_SINGULAR * singular[0]:
                raise DataError(
                    f"expected nodes of {name} that tell {functions.shape[1]} waves apart; these "
                    f"{len(axes[name])} do not.",
                    "Interpolate to an even grid.",
                )
            dim = i - len(self.dims)
            found = (found.movedim(dim, -1) @ torch.linalg.pinv(functions, rtol=1e-6).T).movedim(-1, dim)
        return found.flatten(-len(self.dims))

    def synthesis(self, coefficients: Tensor, axes: Mapping[str, Tensor]) -> Tensor:
        found = coefficients.unflatten(-1, self.shape)
        for i, name in enumerate(self.dims):
            dim = i - len(self.dims)
            found = (found.movedim(dim, -1) @ self._axis(name, axes[name])[0].T).movedim(-1, dim)
        return found


class Spherical(Harmonics):
    """√2 P_l0, 2 P_lm cos mλ and 2 P_lm sin mλ of the degrees l < L.

    Args:
        axial: whether only rotations about the axis are motions; then all l of one m are copies.
    """

    def __init__(self, degrees: int, axial: bool) -> None:
        self.degrees = degrees
        l, m = torch.tril_indices(degrees, degrees)  # noqa: E741
        self.l, self.m = torch.cat([l, l[m > 0]]), torch.cat([m, -m[m > 0]])
        self.count = len(self.l)
        self.lonely = torch.zeros(self.count, dtype=torch.bool)
        if axial:
            self.groups = [
                torch.stack([torch.nonzero(self.m == s).flatten() for s in sorted({k, -k})])
                for k in range(degrees)
            ]
        else:
            self.groups = [torch.nonzero(self.l == k) for k in range(degrees)]

    def _at(self, points: Tensor) -> Tensor:
        up, longitude = points[:, 2].clamp(-1, 1), torch.atan2(points[:, 1], points[:, 0])
        angular = legendre_functions(self.degrees, up)[0][self.m.abs(), :, self.l].T
        return angular * _waves(self.m, longitude)

    def analysis(self, values: Tensor, axes: Mapping[str, Tensor]) -> Tensor:
        found = _ascending(values, axes)
        return self.real(Sphere(found[1], self.degrees).analysis(found[0]))

    def real(self, coefficients: Tensor) -> Tensor:
        """Complex coefficients (…, l, m), of fewer degrees perhaps, as those of the real functions."""
        missing = self.degrees - coefficients.shape[-1]
        whole = torch.nn.functional.pad(coefficients, (0, missing, 0, missing))
        chosen = whole[..., self.l, self.m.abs()]
        part = torch.where(self.m < 0, -chosen.imag, chosen.real)
        return _either(self.m == 0, math.sqrt(0.5), 1.0) * part

    def synthesis(self, coefficients: Tensor, axes: Mapping[str, Tensor]) -> Tensor:
        latitude, longitude = (axes[name].double().deg2rad() for name in ("latitude", "longitude"))
        angular = legendre_functions(self.degrees, latitude.sin())[0][self.m.abs(), :, self.l]
        # One matrix product per function of longitude: first all degrees of each order are summed.
        rows = torch.zeros(*coefficients.shape[:-1], 2 * self.degrees - 1, len(latitude)).double()
        rows.index_add_(-2, self.m + self.degrees - 1, coefficients[..., None] * angular)
        orders = torch.arange(1 - self.degrees, self.degrees)
        return rows.mT @ _waves(orders, longitude).T


class Balls(Harmonics):
    """R_ln(r)/√3 times spherical harmonics of degree l.

    Args:
        modes: N; there are N − ⌊l/2⌋ radial functions of degree l < N.
    """

    def __init__(self, modes: int) -> None:
        self.modes = modes
        self.surface = Spherical(modes, axial=False)
        sizes = radial_sizes(modes, modes)[self.surface.l]
        self.y = torch.repeat_interleave(torch.arange(self.surface.count), sizes)
        self.n = torch.cat([torch.arange(size) for size in sizes.tolist()])
        self.l = self.surface.l[self.y]
        self.count = len(self.n)
        self.lonely = torch.zeros(self.count, dtype=torch.bool)
        self.groups = [
            torch.nonzero(self.l == k).view(2 * k + 1, -1) for k in range(modes)
        ]  # Radial functions are adjacent.

    def _at(self, points: Tensor) -> Tensor:
        radius = points.norm(dim=-1)
        up = torch.tensor([0.0, 0.0, 1.0]).double()
        tiny = radius[:, None] < 1e-12
        angular = self.surface._at(torch.where(tiny, up, points / radius.clamp_min(1e-12)[:, None]))
        return angular[:, self.y] * self._radial(radius)

    def analysis(self, values: Tensor, axes: Mapping[str, Tensor]) -> Tensor:
        found, nodes = _ascending(values, axes)
        coefficients = BallGrid(nodes, self.modes).analysis(found).movedim(-2, -3)  # (…, n, l, m)
        return math.sqrt(3) * self.surface.real(coefficients)[..., self.n, self.y]

    def synthesis(self, coefficients: Tensor, axes: Mapping[str, Tensor]) -> Tensor:
        radial = self._radial(axes["radius"].double())  # (R, K)
        rows = torch.zeros(*coefficients.shape[:-1], len(radial), self.surface.count).double()
        rows.index_add_(-1, self.y, coefficients[..., None, :] * radial)
        return self.surface.synthesis(rows, axes)

    def _radial(self, radius: Tensor) -> Tensor:
        functions = radial_functions(self.modes, self.modes, radius.clamp_min(1e-9))[0]
        return functions[self.l, :, self.n].T / math.sqrt(3)


def _waves(orders: Tensor, longitude: Tensor) -> Tensor:
    """√2, 2 cos mλ for m > 0 and 2 sin |m|λ for m < 0: (M, orders)."""
    angle = longitude[:, None] * orders.abs()
    return _either(orders == 0, math.sqrt(2), 2.0) * torch.where(orders < 0, angle.sin(), angle.cos())


def _either(chosen: Tensor, one: float, other: float) -> Tensor:
    """Two numbers, in float64: `torch.where` would take their type from PyTorch's default."""
    return other + (one - other) * chosen.double()


def _ascending(values: Tensor, axes: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Fields and axes with every axis in ascending order, as solvers take them."""
    found, nodes = values.double(), {}
    for i, (name, axis) in enumerate(axes.items()):
        order = axis.argsort()
        nodes[name] = axis[order].double()
        found = found.index_select(i - len(axes), order)
    return found, nodes


def harmonics(space: Geometry, sizes: Mapping[str, int]) -> Harmonics:
    """The harmonics that a grid of `sizes` on a space can hold.

    Raises:
        UsageError: if none are known for this space.
    """
    if space.domain in PERIODIC:
        # No direction is special between walls on all sides, as on the window onto a plane.
        return Products(space, sizes, PERIODIC[space.domain], isotropic=not PERIODIC[space.domain])
    if {"latitude", "longitude"} <= set(sizes):
        degrees = min(sizes["latitude"], (sizes["longitude"] + 1) // 2)
        if "radius" in sizes:
            return Balls(max(sizes["radius"], degrees))
        return Spherical(degrees, axial=space.domain == "rotating_sphere")
    raise UsageError(
        f"expected a space whose harmonics are known; the {space.domain} is none.",
        "Add them to `pdeforecast/bench/harmonics.py`, or leave the gridded baselines out.",
    )


def resample(
    space: Geometry, values: Tensor, axes: Mapping[str, Tensor], target: Mapping[str, Tensor] | Tensor
) -> Tensor:
    """Fields (…, *grid) on the axes or at the points `target`, by the harmonics that `axes` hold.

    Raises:
        DataError: as `Harmonics.analysis` does.
    """
    if not isinstance(target, Tensor) and same_axes(axes, target):
        return values
    basis = harmonics(space, {name: len(axis) for name, axis in axes.items()})
    coefficients = basis.analysis(values, axes)
    if isinstance(target, Tensor):
        return coefficients @ basis.at(target).T
    return basis.synthesis(coefficients, target)


def same_axes(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two grids have the same nodes in the same order."""
    return list(one) == list(other) and all(
        len(one[name]) == len(other[name])
        and bool(torch.allclose(one[name], other[name].to(one[name]), rtol=0, atol=1e-9))
        for name in one
    )
