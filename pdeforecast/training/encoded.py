"""Trajectories as latents, encoded once; losses on them in the metric of the field."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pdeforecast.encoder import MetaSGD
from pdeforecast.forecaster import Forecaster
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField
from pdeforecast.rollout import Surroundings
from pdeforecast.training.config import TrainingConfig, drawn
from pdeforecast.training.data import Trajectories

_MANY = 64
"""Trajectories; fewer are moved up to eight times as often."""
_PAIRS = 2**18
"""Pairs of a point and a latent, over all states that a nonlinear field is fitted to at once: 2 GB, about."""


@dataclass(frozen=True)
class Encoded:
    """Trajectories as latents, under one motion g of the world.

    Attributes:
        points: (M, point_dim), g x.
        poses: (N, pose_dim), or (S, T, N, pose_dim) if the encoder fits them.
        contexts: (S, T, N, context_dim).
        static: (1 or S, N, static_dim), at the lattice.
    """

    points: Tensor
    poses: Tensor
    contexts: Tensor
    static: Tensor


@torch.no_grad()
def encode_all(
    model: Forecaster, data: Trajectories, motions: Tensor, config: TrainingConfig
) -> list[Encoded]:
    """Every frame, encoded once under each group element: moving the points moves the world.

    A nonlinear field is given as many random points as it has learned from.
    """
    geometry, made = model.geometry, []
    seen, together = torch.arange(len(data.points)), 16 * len(data.times)
    if not model.field.linear:
        seen = torch.randperm(len(seen), generator=drawn(config, "dynamics", 2 * 10**8))[: config.points]
        together = max(1, _PAIRS // (len(seen) * model.config.field.latents))
    for g in motions:
        points = geometry.act(g, data.points).to(model.mean.device)
        around = geometry.act(g, data.static_points) if len(data.static_points) else data.static_points
        statics = model.surroundings(around, data.statics, data.static_measure)
        pieces = [
            model.encode(points[seen], states[:, seen].to(model.mean), None, data.measure[seen])
            for part in data.values.split(16)
            for states in part.flatten(0, 1).split(together)
        ]
        frames = data.values.shape[:2]
        shared = pieces[0].shared
        poses = pieces[0].poses if shared else torch.cat([z.poses for z in pieces]).unflatten(0, frames)
        contexts = torch.cat([z.contexts for z in pieces]).unflatten(0, frames)
        made.append(Encoded(points, poses, contexts, statics(model.lattice())))
    return made


def motions_of_the_world(config: TrainingConfig, samples: int) -> int:
    """How many motions the cached latents cover; few trajectories are moved more often."""
    return config.copies * max(1, min(8, _MANY // samples))


def elements(model: Forecaster, config: TrainingConfig, samples: int) -> Tensor:
    """Elements of the group that move the data."""
    count = 1 if model.remembers else motions_of_the_world(config, samples)
    return model.geometry.random_motion(count, drawn(config, "dynamics", 10**8))


def frames_of(model: Forecaster, part: Encoded, frames: slice) -> Latents:
    """Some frames of all trajectories, as one batch."""
    poses = part.poses if part.poses.ndim == 2 else part.poses[:, frames].flatten(0, 1)
    return Latents(poses, part.contexts[:, frames].flatten(0, 1), model.windows())


def choose(config: TrainingConfig, horizon: int, part: Encoded, draw: torch.Generator) -> tuple[Tensor, int]:
    """Random trajectories and their common first frame."""
    count, frames = part.contexts.shape[:2]
    chosen = torch.randint(count, (config.trajectories(horizon),), generator=draw)
    return chosen, int(torch.randint(frames - horizon, (), generator=draw))


def latents_at(part: Encoded, chosen: Tensor, frames: range, model: Forecaster) -> list[Latents]:
    """The latents of chosen trajectories at each of some frames."""
    shared = part.poses.ndim == 2
    return [
        Latents(part.poses if shared else part.poses[chosen, t], part.contexts[chosen, t], model.windows())
        for t in frames
    ]


def rolled(
    model: Forecaster,
    part: Encoded,
    chosen: Tensor,
    first: int,
    horizon: int,
    times: tuple[float, ...],
    between: float,
) -> list[Latents]:
    """The latents of the `horizon` frames after frame `first`.

    Args:
        between: a time within the rollout, from 0 to 1, at which a step ends, too; beyond 1 none does.
    """
    start = latents_at(part, chosen, range(first, first + 1), model)[0]
    static = part.static[chosen if len(part.static) > 1 else slice(None)]
    elapsed = [times[first + i] - times[first] for i in range(1, horizon + 1)]
    within = [between * elapsed[-1]] if between < 1 else []
    return model.rollout(start, constant(static), [*elapsed, *within])[:horizon]


def constant(static: Tensor) -> Surroundings:
    """Static fields as read at the lattice, wherever poses have moved meanwhile."""
    return lambda poses: static


def metric(model: Forecaster, weight: Tensor) -> Callable[[Latents, Latents], Tensor]:
    """The mean square difference of the fields of two latents, over the whole space and all variables, of
    which each counts by its `weight` (V,).

    For a linear field that is a quadratic form in the contexts, and no points are needed.
    """
    geometry, field = model.geometry, model.field
    root = weight.sqrt().to(model.mean)
    places = 4 * field.functions if isinstance(field, LinearField) else 64
    points = geometry.place(geometry.lattice(places * model.config.field.latents)).to(model.mean.device)
    if not isinstance(field, LinearField):
        some = points[:: max(1, len(points) // 512)].to(model.mean)

        def sampled(z: Latents, y: Latents) -> Tensor:
            return (root * (field(some, z) - field(some, y))).square().mean()

        return sampled
    assert not isinstance(model.encoder, MetaSGD)
    design = field.design(points, model.encoder.poses, model.encoder.windows)
    gram = (design.to_sparse_coo().t().to_sparse_csr() @ design).to_dense() / len(points)
    jitter = 1e-9 * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    factor = torch.linalg.cholesky(gram + jitter).to(model.mean)

    root = root.repeat_interleave(field.functions)

    def distance(z: Latents, y: Latents) -> Tensor:
        columns = field.columns(root * (z.contexts - y.contexts))
        return (factor.T @ columns).square().sum(0).mean()

    return distance
