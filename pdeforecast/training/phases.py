"""The phases *dynamics* and *joint*: on latents that were encoded once, then through decoded frames."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pdeforecast import parallel
from pdeforecast.training.closed_form import learn_linear, remember, scales
from pdeforecast.training.config import Report, drawn
from pdeforecast.training.data import Trajectories, mean_square, slowness
from pdeforecast.training.encoded import Encoded, choose, constant, latents_at, metric, rolled
from pdeforecast.training.progress import Progress

_BETWEEN = 0.25
"""The share of the rollouts that also stop somewhere between frames. Where each step spans a frame, a network
learns the step of its integrator and not a flow, and between frames it errs."""


def memory_phase(progress: Progress, data: Trajectories) -> Iterator[Report]:
    """Remembers trajectories; no step is left to take."""
    progress.config = replace(progress.config, dynamics_steps=0, joint_steps=0)
    yield Report("dynamics", 0, 0, remember(progress.model, data), 1)


def dynamics_phase(progress: Progress, data: Trajectories, encoded: list[Encoded]) -> Iterator[Report]:
    """Learns to move latents that were encoded once, judged in the metric of the field."""
    model = progress.model
    distance = metric(model, slowness(model, data))
    # A model that is fine-tuned keeps the scales and the linear part that its network was trained with.
    if progress.step == 0 and not progress.config.init_from:
        if model.linear is not None:
            share = learn_linear(progress, encoded, data.times, distance)
            yield Report("dynamics", 0, progress.config.dynamics_steps, share, 1)
        scales(model, encoded, data.times)
        progress.agree()

    def error(part: Encoded, chosen: Tensor, first: int, horizon: int, between: float) -> Tensor:
        path = rolled(model, part, chosen, first, horizon, data.times, between)
        target = latents_at(part, chosen, range(first + 1, first + horizon + 1), model)
        return torch.stack([distance(z, y) for z, y in zip(path, target, strict=True)]).mean()

    shared = progress.shared(error)
    while progress.step < progress.config.dynamics_steps:
        config = progress.config
        draw = drawn(config, "dynamics", progress.step)
        part = encoded[int(torch.randint(len(encoded), (), generator=draw))]
        horizon = config.rolled_horizon(progress.step / config.dynamics_steps, len(data.times) - 1)
        chosen, first = choose(config, horizon, part, draw)
        between = float(torch.rand((), generator=draw)) / _BETWEEN
        mine = parallel.own(chosen)
        loss = shared(part, mine, first, horizon, between) * (len(mine) * parallel.size() / len(chosen))
        progress.update(loss)
        told = float(parallel.mean(loss.detach()))
        yield Report("dynamics", progress.step, config.dynamics_steps, told, horizon)


def joint_phase(progress: Progress, data: Trajectories, encoded: list[Encoded]) -> Iterator[Report]:
    """Learns through decoded frames, from any share of the points of the first frame.

    Each loss is weighed by what the reconstruction of its first frame leaves, so that states known
    everywhere and states known at a few points count alike.
    """
    model, config = progress.model, progress.config
    measure = data.measure.to(model.mean)
    unit = model.scale / slowness(model, data).to(model.scale).sqrt()

    def error(part: Encoded, chosen: Tensor, first: int, truth: Tensor, known: Tensor) -> Tensor:
        latents = model.encode(part.points[known], truth[:, 0, known], None, measure[known])
        static = part.static[chosen if len(part.static) > 1 else slice(None)]
        elapsed = [data.times[first + i] - data.times[first] for i in range(truth.shape[1])]
        path = model.rollout(latents, constant(static), elapsed)
        guess, aim = model.decode(part.points, path) / unit, truth / unit
        start = parallel.mean(mean_square(guess[:, 0], aim[:, 0], measure).detach())
        return mean_square(guess[:, 1:], aim[:, 1:], measure) / (start + 1e-5)

    shared = progress.shared(error)
    while progress.step < config.joint_steps:
        draw = drawn(config, "joint", progress.step)
        part = encoded[int(torch.randint(len(encoded), (), generator=draw))]
        horizon = min(config.horizon, len(data.times) - 1)
        chosen, first = choose(config, horizon, part, draw)
        chosen = parallel.own(chosen)
        truth = data.values[chosen, first : first + horizon + 1].to(model.mean)
        share = 0.02 ** float(torch.rand((), generator=draw))
        known = torch.randperm(len(part.points), generator=draw)[: max(1, int(len(part.points) * share))]
        loss = shared(part, chosen, first, truth, known)
        progress.update(loss)
        yield Report("joint", progress.step, config.joint_steps, float(parallel.mean(loss.detach())), horizon)
