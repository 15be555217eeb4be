"""What a training chooses from its data, where it was told nothing, and says before it begins.

The lattice: a linear field of N latents with F functions each is fitted to some points of a few states by
least squares and judged at others. What it leaves of their variance no forecast can win back; so as long as
that is much, and a finer lattice halves it, the finer one is taken. Motions of the world: one where the group
does nothing, and no more than fit into memory.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pdeforecast.config import KernelDynamicsConfig, LinearFieldConfig
from pdeforecast.geometry import Geometry
from pdeforecast.linear_field import LinearField
from pdeforecast.training import Progress, Trajectories, motions_of_the_world

_GOOD = 1e-2
"""The share of the variance that a lattice may leave."""
_FINER = (1.0, 1.25**2, 1.5**2)
"""Sizes of lattices that are tried, in units of the preset's."""
_NUMBERS = 2304
"""N F at most: learning the prior costs its cube."""
_STATES = 8
_JUDGED = 1024
"""Points at which a lattice is judged."""
_RIDGE = 1e-6
_MOTIONS = 16
"""Random elements of the group that tell whether it moves anything."""
_MEMORY = 2**32
"""Bytes of latents that training keeps."""


@dataclass(frozen=True)
class Fit:
    """A lattice, and the share of the states' variance that it leaves."""

    latents: int
    left: float


def lattice(progress: Progress, data: Trajectories, finer: bool) -> Fit | None:
    """The lattice for these data; none if the points are too few to tell, or the field is not linear.

    Args:
        finer: whether another one than that of `progress` may be chosen.
    """
    config, geometry = progress.model.config.field, progress.model.geometry
    if not isinstance(config, LinearFieldConfig):
        return None
    points, values = _judges(data)
    best: Fit | None = None
    for factor in _FINER if finer else _FINER[:1]:
        latents = round(factor * config.latents)
        left = _left(replace(config, latents=latents), geometry, points, values)
        if left is None or (best is not None and left > 0.5 * best.left):
            break
        best = Fit(latents, left)
        if left < _GOOD:
            break
    return best


def motions(progress: Progress, data: Trajectories) -> int:
    """`training.copies` for these data."""
    model, config = progress.model, progress.config
    samples, frames = data.values.shape[:2]
    several = model.geometry.random_motion(_MOTIONS, torch.Generator().manual_seed(0))
    if all(torch.allclose(model.geometry.act(g, data.points), data.points) for g in several):
        return 1
    size = 4 * samples * frames * model.config.field.latents * model.field.context_dim
    repeated = motions_of_the_world(replace(config, copies=1), samples)
    return max(1, min(config.copies, _MEMORY // (size * repeated)))


def told(progress: Progress, data: Trajectories, budget: float, fit: Fit | None) -> list[str]:
    """A training's data, model and schedule, in lines."""
    model, config = progress.model, progress.config
    samples, frames = data.values.shape[:2]
    gaps = [b - a for a, b in zip(data.times, data.times[1:], strict=False)]
    regular = math.isclose(min(gaps), max(gaps), rel_tol=1e-6)
    every = f"{gaps[0]:g} apart" if regular else f"{min(gaps):g} … {max(gaps):g} apart"
    unit = model.config.time_unit
    names = ", ".join(model.config.variables)
    static = f"; static: {', '.join(model.config.statics)}" if model.config.statics else ""
    size = model.config.field.latents
    left = f", which leave {fit.left:.2g} of the variance" if fit and fit.latents == size else ""
    horizon = min(config.horizon, frames - 1)
    if budget:
        schedule = f"as many steps as fit into {budget / 60:.3g} minutes"
    else:
        schedule = f"{config.field_steps} + {config.dynamics_steps} + {config.joint_steps} steps"
    dynamics = model.config.dynamics
    if isinstance(dynamics, KernelDynamicsConfig):
        how = f"{dynamics.trajectories} of the trajectories remembered"
        schedule, horizon = f"{config.field_steps} rounds of the encoder, then in closed form", frames - 1
    else:
        how = f"dynamics of {dynamics.hidden} channels in steps of at most {dynamics.step:g}"
    return [
        f"data      {samples} trajectories of {frames} frames, {every}{'' if unit == '1' else f' ({unit})'}, "
        f"on {model.config.geometry}: {names} at {len(data.points)} points{static}",
        f"model     {size} latents of {model.field.context_dim} numbers{left}; {how}",
        f"training  {schedule}; rollouts of up to {horizon} frames; "
        f"{motions_of_the_world(config, samples)} motions of the world; seed {config.seed}",
    ]


def _judges(data: Trajectories) -> tuple[Tensor, Tensor]:
    """Points and the normalised values (points, n) of a few states there, in random order, as densely as the
    measure; only points that all of the states show."""
    draw = torch.Generator().manual_seed(0)
    samples, frames = data.values.shape[:2]
    chosen = torch.randint(samples * frames, (_STATES,), generator=draw)
    values = data.values[chosen // frames, chosen % frames].double().transpose(0, 1).flatten(1)
    seen = values.isfinite().all(1)
    points, values, measure = data.points[seen], values[seen], data.measure[seen].double()
    if not len(points):
        return points, values
    scale = values.std(0)
    values = (values - values.mean(0)) / torch.where(scale > 0, scale, 1.0)
    most = min(len(points), _JUDGED + 2 * _NUMBERS)
    order = (measure.log() - torch.rand(len(points), generator=draw).log().neg().log()).topk(most).indices
    return points[order], values[order]


def _left(config: LinearFieldConfig, geometry: Geometry, points: Tensor, values: Tensor) -> float | None:
    """The mean square error at some points of a least-squares fit to the others."""
    spacing = geometry.spacing(config.latents)
    field = LinearField(geometry, 1, config.degree, config.neighbours, config.radius * spacing)
    numbers = config.latents * field.functions
    judged = min(_JUDGED, len(points) // 4)
    fitted = min(len(points) - judged, 2 * numbers)
    if numbers > _NUMBERS or judged == 0 or fitted < 1.5 * numbers:
        return None
    poses = geometry.lattice(config.latents)
    windows = torch.full((config.latents,), config.window * spacing, dtype=torch.float64)
    some = points[: judged + fitted].double()
    design = field.design(some, poses, windows).to_dense()
    known = design[judged:]
    gram = known.T @ known
    gram.diagonal().add_(_RIDGE * float(gram.diagonal().mean()))
    factor = torch.linalg.cholesky(gram)
    contexts = torch.cholesky_solve(known.T @ values[judged : judged + fitted], factor)
    return float((design[:judged] @ contexts - values[:judged]).square().mean())
