"""Kriging: the most probable field, given its values at some points and the covariance of training states.

With Y the harmonics at the observed points and S the covariance of their coefficients c about the mean μ,

    c − μ = S Yᵀ (Y S Yᵀ + N)⁻¹ (y − Y μ),        N = diag(1e-8 of the variance + that of the observation)

S is estimated from the first frames of training trajectories as a covariance that no motion of the space
changes (`harmonics.py`): a function of the displacement on the torus, of the distance on the sphere and
on the plane (between reflecting walls), of the difference of longitudes and both latitudes on the
rotating sphere, and of the angle and both radii in the ball. Every field is kriged by itself.

This is how all gridded baselines fill gaps and take in loose sensors (`read`), and, followed by the
equation's own solver, it is the floor for sparse observations. Source: N. Cressie, Statistics for Spatial
Data (1993), ch. 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor

from pdeforecast.bench.contract import Axes, Layout, Request, gridded, statics_of
from pdeforecast.bench.harmonics import Harmonics, harmonics, resample, same_axes
from pdeforecast.errors import DataError
from pdeforecast.geometry import Geometry
from pdeforecast.trajectory import Samples

NUGGET = 1e-8
"""The variance of an exact observation, in units of the field's."""
_NEGLIGIBLE = 1e-15
"""Modes of less variance, in units of the field's, are left out: the nugget hides them."""
_MOST = 4096
"""Modes that are kept; more would take minutes and gigabytes a state. What is left out counts as noise."""
_CHUNK = 1024
"""Points at which modes are evaluated at once."""


@dataclass(frozen=True)
class Prior:
    """What is expected of a field before it is seen.

    Attributes:
        basis: K harmonics.
        mean: μ (K,).
        roots: for every group of harmonics, R (copies, rank) with R Rᵀ their covariance.
        noise: the variance at a point that the roots leave out, and the nugget.
    """

    basis: Harmonics
    mean: Tensor
    roots: tuple[Tensor, ...]
    noise: float

    def design(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Y μ (M,) and Y R (M, Q) at points: the field is Y μ + Y R z with z ~ N(0, 1)."""
        trend, design = [], []
        for chunk in points.split(_CHUNK):
            functions = self.basis.at(chunk)
            groups = [
                (i, root) for i, root in zip(self.basis.groups, self.roots, strict=True) if root.numel()
            ]
            trend.append(functions @ self.mean)
            design.append(
                torch.cat(
                    [functions[:, :0], *((functions[:, index] @ root).flatten(1) for index, root in groups)],
                    1,
                )
            )
        return torch.cat(trend), torch.cat(design)

    def coefficients(self, z: Tensor) -> Tensor:
        """μ + R z (…, K) of z (…, Q)."""
        found = self.mean.repeat(*z.shape[:-1], 1)
        widths = [
            len(index) * root.shape[1] for index, root in zip(self.basis.groups, self.roots, strict=True)
        ]
        for index, root, part in zip(self.basis.groups, self.roots, z.split(widths, dim=-1), strict=True):
            found[..., index] += part.unflatten(-1, (len(index), root.shape[1])) @ root.T
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Plain tensors, from which `Prior.built` makes it again."""
        ranks = torch.tensor([root.shape[1] for root in self.roots])
        flat = torch.cat([root.flatten() for root in self.roots])
        return {
            "mean": self.mean,
            "ranks": ranks,
            "roots": flat,
            "noise": torch.tensor(self.noise).double(),
        }

    @classmethod
    def built(cls, basis: Harmonics, tensors: Mapping[str, Tensor]) -> "Prior":
        """The inverse of `tensors`."""
        sizes = [index.shape[1] for index in basis.groups]
        ranks = tensors["ranks"].tolist()
        parts = tensors["roots"].split([n * rank for n, rank in zip(sizes, ranks, strict=True)])
        roots = tuple(part.view(n, rank) for part, n, rank in zip(parts, sizes, ranks, strict=True))
        return cls(basis, tensors["mean"], roots, float(tensors["noise"]))

    def posterior(self, points: Tensor, values: Tensor, variance: Tensor | None = None) -> Tensor:
        """The coefficients (S, K) of the fields that are observed as `values` (S, M), NaN where they are not.

        Args:
            variance: of the errors of the observations, (S, M); none means exact.
        """
        trend, design = self.design(points)
        found = self.mean.new_empty(len(values), self.basis.count)
        error = torch.zeros_like(values) if variance is None else variance
        noise = self.noise + error.double()
        patterns = torch.cat([values.isnan().double(), noise], dim=1)
        for rows in _alike(patterns):
            known = ~values[rows[0]].isnan()
            weight = noise[rows[0], known].rsqrt()
            scaled = weight[:, None] * design[known]
            residual = weight * (values[rows][:, known].double() - trend[known])
            found[rows] = self.coefficients(_regularised(scaled, residual))
        return found


def _regularised(a: Tensor, y: Tensor) -> Tensor:
    """z (S, Q) that minimises ‖a z − y‖² + ‖z‖² for y (S, M), by the smaller of both normal equations."""
    few = a.shape[0] <= a.shape[1]
    gram = a @ a.T if few else a.T @ a
    gram.diagonal().add_(1.0)
    factor = torch.linalg.cholesky(gram)
    if few:
        return torch.cholesky_solve(y.T, factor).T @ a
    return torch.cholesky_solve((y @ a).T, factor).T


def _alike(patterns: Tensor) -> list[Tensor]:
    """The rows that are equal, together: most often all states are observed at the same points."""
    which = torch.unique(patterns, dim=0, return_inverse=True)[1]
    return [torch.nonzero(which == k).flatten() for k in range(int(which.max()) + 1)]


def learn(space: Geometry, states: Tensor, axes: Axes) -> Prior:
    """The prior of states (S, *grid).

    A covariance among copies that fewer draws have seen than it has rows leans towards its diagonal.
    """
    basis = harmonics(space, {name: len(axis) for name, axis in axes.items()})
    c = basis.analysis(states.double(), axes)
    mean = torch.zeros(basis.count, dtype=torch.float64)
    invariant = basis.groups[0]
    mean[invariant] = c[:, invariant].mean(0)
    away = c - mean
    parts = [
        _parts(away[:, index], mean[index], len(c) if index is invariant else 0) for index in basis.groups
    ]
    variances = torch.cat(
        [size.repeat(len(index)) for index, (size, _) in zip(basis.groups, parts, strict=True)]
    )
    total = float(variances.sum()) or 1.0
    least = _NEGLIGIBLE * total
    if len(variances) > _MOST:
        least = max(least, float(variances.topk(_MOST + 1).values[-1]))
    roots, kept_variance = [], 0.0
    for index, (size, vectors) in zip(basis.groups, parts, strict=True):
        kept = (size > least) & ~basis.lonely[index].any()
        roots.append(vectors[:, kept] * size[kept].sqrt())
        kept_variance += len(index) * float(size[kept].sum())
    left_out = max(0.0, float(variances.sum()) - kept_variance)
    return Prior(basis, mean, tuple(roots), NUGGET * total + left_out)


def _parts(away: Tensor, mean: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The principal variances and directions of draws (S, components, copies) of a group of harmonics.

    Args:
        mean: (components, copies), which `count` states made known to 1/count of its size; 0 for a mean of 0.
    """
    draws, copies = away.flatten(0, 1), away.shape[-1]
    covariance = draws.T @ draws / len(draws)
    if count:
        covariance += mean.T @ mean / (count * len(mean))
    share = copies / (copies + len(draws)) if copies > 1 else 0.0
    covariance = (1 - share) * covariance + share * torch.diag(covariance.diagonal())
    size, vectors = torch.linalg.eigh(covariance)
    return size.clamp_min(0), vectors


@dataclass(frozen=True)
class Filling:
    """Reads any state onto any grid: full grids by spectral interpolation, all others by kriging.

    Attributes:
        layout: of the training trajectories.
        priors: of each variable and static field.
    """

    layout: Layout
    priors: Mapping[str, Prior]

    @classmethod
    def learned(cls, training: xr.Dataset, layout: Layout) -> "Filling":
        """From the first frames of trajectories on a full grid.

        Raises:
            DataError: if they are not on one, or have gaps.
        """
        values, statics = gridded(training, layout)
        named = [*zip(layout.variables, values[:, 0].unbind(1), strict=True)]
        named += zip(layout.statics, statics.unbind(1), strict=True)
        return cls(layout, {name: learn(layout.space, states, layout.axes) for name, states in named})

    def tensors(self) -> dict[str, Tensor]:
        """Plain tensors, from which `Filling.built` makes it again."""
        return {
            f"{name}.{key}": value
            for name, prior in self.priors.items()
            for key, value in prior.tensors().items()
        }

    @classmethod
    def built(cls, layout: Layout, tensors: Mapping[str, Tensor]) -> "Filling":
        """The inverse of `tensors`."""
        basis = harmonics(layout.space, {name: len(nodes) for name, nodes in layout.nodes.items()})
        keys = ("mean", "ranks", "roots", "noise")
        return cls(
            layout,
            {
                name: Prior.built(basis, {key: tensors[f"{name}.{key}"] for key in keys})
                for name in (*layout.variables, *layout.statics)
            },
        )

    def read(self, asked: Request, axes: Axes) -> Tensor:
        """The variables of a state (S, V, *grid) on a grid; on its own, observed values stay as they are."""
        return self._onto(list(self.layout.variables), asked.seen, asked.grid, axes)

    def read_statics(self, asked: Request, axes: Axes) -> Tensor:
        """The static fields of a state (1 or S, statics, *grid) on a grid."""
        if not self.layout.statics:
            return torch.zeros(1, 0, *(len(axis) for axis in axes.values()), dtype=torch.float64)
        held, own = statics_of(self.layout, asked)
        return self._onto(list(self.layout.statics), held, own, axes)

    def start_axes(self, asked: Request) -> Axes:
        """A grid for a state: its own, if transforms take that or it is asked for, else the training's."""
        own = asked.grid
        if not own:
            return self.layout.axes
        sizes = {name: len(axis) for name, axis in own.items()}
        if not (asked.on_grid and same_axes(own, asked.target)):
            try:
                harmonics(self.layout.space, sizes).analysis(torch.zeros(*sizes.values()), own)
            except DataError:
                return self.layout.axes
        return own

    def _onto(self, names: list[str], seen: Samples, own: Axes, axes: Axes) -> Tensor:
        """Fields (S, V, *grid), of observations on the grid `own`, or loose if it is empty."""
        if own and seen.variance is None and not bool(seen.values.isnan().any()):
            values = seen.values.movedim(-1, -2).unflatten(-1, [len(axis) for axis in own.values()])
            try:
                return resample(self.layout.space, values.double(), own, axes)
            except DataError:
                pass  # Nodes that no transform takes are observations like any others.
        return torch.stack([self._kriged(name, seen, i, own, axes) for i, name in enumerate(names)], dim=1)

    def _kriged(self, name: str, seen: Samples, i: int, own: Axes, axes: Axes) -> Tensor:
        prior, values = self.priors[name], seen.values[..., i]
        variance = None if seen.variance is None else seen.variance[..., i]
        field = prior.basis.synthesis(prior.posterior(seen.points, values, variance), axes)
        if variance is None and own and same_axes(own, axes):
            known = values.unflatten(-1, field.shape[1:])
            field = torch.where(known.isnan(), field, known.double())
        return field
