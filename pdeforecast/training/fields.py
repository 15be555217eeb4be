"""The phase *field*: how to encode is learned in closed form, or by descent through descent."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pdeforecast import parallel
from pdeforecast.encoder import MetaSGD
from pdeforecast.principal import PrincipalSGD
from pdeforecast.training.config import Report, drawn
from pdeforecast.training.data import Trajectories, mean_square, totals
from pdeforecast.training.progress import Progress

_PRIOR_STATES = 2048
"""Moved states from which the prior is learned where the group makes all latents of one, and each state tells
of as many as it has; few states are used under several motions."""
_PRIOR_PART = 128
"""States under each motion, elsewhere, where modes are known as well as states are many."""
_PRIOR_MOTIONS = 16
"""Motions of the world under which the prior is learned, for each one under which the dynamics are."""
_REFINED_STATES, _REFINED_MOTIONS = 128, 4
"""The same where latents are many, and their prior holds only what harmonics leave."""
_PRIOR_WORK = 2**18
"""Numbers of all latents, over those motions: what is learned of many latents takes longer under each."""


def field_phase(progress: Progress, data: Trajectories) -> Iterator[Report]:
    """Learns to encode."""
    linear = progress.model.field.linear
    yield from _learn_prior(progress, data) if linear else _meta_learn(progress, data)


def _learn_prior(progress: Progress, data: Trajectories) -> Iterator[Report]:
    """The prior of a linear field, by alternately encoding states and taking their moments.

    Each part of the states is moved by its own element of the group, so what is learned of one place
    is known of all that the group makes of it.
    """
    model, config = progress.model, progress.config
    assert not isinstance(model.encoder, MetaSGD)
    samples, times = data.values.shape[:2]
    order = torch.randperm(samples * times, generator=drawn(config, "field", 0))
    numbers = model.encoder.poses.shape[0] * model.field.context_dim
    several = max(_PRIOR_MOTIONS, min(_PRIOR_MOTIONS * config.copies, _PRIOR_WORK // numbers))
    if model.cells > 1:
        several, count = _REFINED_MOTIONS, _REFINED_STATES
    elif isinstance(model.encoder, PrincipalSGD):
        count = several * min(_PRIOR_PART, len(order))
    else:
        count = _PRIOR_STATES
    chosen = order.repeat(-(-count // len(order)))[:count].tensor_split(several)
    motions = model.geometry.random_motion(several, drawn(config, "field", 10**8))
    while progress.step < config.field_steps:
        contexts, errors = [], []
        for g, part in zip(motions, chosen, strict=True):
            values = (data.values[part // times, part % times].to(model.mean) - model.mean) / model.scale
            points = model.geometry.act(g, data.points).to(model.mean.device)
            latents = model.encoder(points, values, None, data.measure)
            left = values - model.field(points, latents.map(lambda t: t.to(model.mean.dtype)))
            contexts.append(latents.contexts)
            errors.append(totals(left.double().square(), data.measure))
        total, weights = torch.stack(errors).sum(0)
        noise = (total / weights).to(model.mean)
        progress.step += model.encoder.learn_prior(torch.cat(contexts), noise)
        yield Report("field", progress.step, config.field_steps, float(noise.mean()), 0)


def _meta_learn(progress: Progress, data: Trajectories) -> Iterator[Report]:
    """A nonlinear field and its encoder: fit some points of a state, be judged on others."""
    model, config = progress.model, progress.config
    samples, times = data.values.shape[:2]

    def error(normal: Tensor, points: Tensor, measure: Tensor, given: Tensor, asked: Tensor) -> Tensor:
        latents = model.encoder(points[given], normal[:, given], None, measure[given])
        return mean_square(model.field(points[asked], latents), normal[:, asked], measure[asked])

    shared = progress.shared(error)
    while progress.step < progress.config.field_steps:
        draw = drawn(config, "field", progress.step)
        chosen = parallel.own(torch.randint(samples * times, (config.batch,), generator=draw))
        values = data.values[chosen // times, chosen % times].to(model.mean)
        order = torch.randperm(len(data.points), generator=draw)[: 2 * config.points]
        share = 0.02 ** float(torch.rand((), generator=draw))
        given = order[: max(8, int(config.points * share))]
        normal = (values - model.mean) / model.scale
        points, measure = data.points.to(model.mean), data.measure.to(model.mean)
        loss = shared(normal, points, measure, given, order[len(order) // 2 :])
        progress.update(loss)
        yield Report("field", progress.step, config.field_steps, float(parallel.mean(loss.detach())), 0)
