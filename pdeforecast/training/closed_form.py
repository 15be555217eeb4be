"""What of the dynamics is learned without a step: sizes, the linear part, remembered trajectories."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pdeforecast.between_frames import nodes
from pdeforecast.config import DynamicsConfig
from pdeforecast.dynamics import LatentDynamics
from pdeforecast.forecaster import Forecaster
from pdeforecast.kernel_dynamics import KernelDynamics
from pdeforecast.latents import Latents
from pdeforecast.principal import PrincipalSGD
from pdeforecast.training.data import Trajectories
from pdeforecast.training.encoded import Encoded, frames_of
from pdeforecast.training.progress import Progress

_MARGIN = 1.2
"""How far beyond the largest training state rollouts may go, in units of its size."""
_LINEAR = 1e-6
"""If linear dynamics leave a smaller share of the change from frame to frame, they are all that is needed."""


def scales(model: Forecaster, encoded: list[Encoded], times: tuple[float, ...]) -> None:
    """The sizes of contexts, statics and the velocities that are left to the network, from the data."""
    dynamics, contexts = model.dynamics, encoded[0].contexts
    assert isinstance(dynamics, LatentDynamics)
    dynamics.context_scale.copy_(contexts.flatten(0, 2).std(0) + 1e-8)
    if dynamics.modal is None:
        squares = [(e.contexts / dynamics.context_scale).square().mean(-1) for e in encoded]
        largest = torch.stack([torch.stack([x.max(), x.mean(-1).max()]) for x in squares]).amax(0)
        # Where nothing varies, a standard deviation that is only not zero.
        dynamics.reach.copy_(_MARGIN * largest.sqrt().clamp_min(1.0))
    if dynamics.static_scale.numel():
        size = torch.cat([e.static for e in encoded]).square().mean().sqrt() + 1e-8
        dynamics.static_scale.copy_(size.expand_as(dynamics.static_scale))
    gaps = torch.tensor(times).diff().to(contexts)
    before = contexts[:, :-1]
    if model.linear is not None and dynamics.modal is not None:
        carried = model.carried(frames_of(model, encoded[0], slice(-1)), float(gaps.mean())).contexts
        before = carried.view_as(before)
    change = (contexts[:, 1:] - before) / dynamics.context_scale
    dynamics.rate.copy_((change.square().mean((0, 2, 3)).sqrt() / gaps).mean())


def learn_linear(
    progress: Progress,
    encoded: list[Encoded],
    times: tuple[float, ...],
    distance: Callable[[Latents, Latents], Tensor],
) -> float:
    """Learns the linear part of the dynamics, where there is one.

    If that leaves next to nothing of the change from frame to frame, the equation is linear, and no network
    is trained; else the linear part is held to what the network's steps can follow.

    Args:
        distance: between latents, as training has it.

    Returns:
        The share of the mean square change in the fields that is left to the network.
    """
    model = progress.model
    gaps = torch.tensor(times, dtype=torch.float64).diff()
    regular = float(gaps.max() - gaps.min()) <= 1e-6 * float(gaps.max())
    assert isinstance(model.dynamics, LatentDynamics) and isinstance(model.config.dynamics, DynamicsConfig)
    if model.linear is None or model.dynamics.modal is None or not regular:
        return 1.0
    paths = [
        model.modes_of(frames_of(model, e, slice(None))).unflatten(0, e.contexts.shape[:2]) for e in encoded
    ]
    gap = float(gaps.mean())
    model.linear.learn(paths, gap)
    now, after = frames_of(model, encoded[0], slice(-1)), frames_of(model, encoded[0], slice(1, None))
    share = float(distance(model.carried(now, gap), after) / distance(now, after))
    if share < _LINEAR:
        model.linear.sufficient.fill_(True)
        progress.config = replace(progress.config, dynamics_steps=0, joint_steps=0)
    else:
        model.linear.learn(paths, gap, fastest=2 / model.config.dynamics.step)
    model.prepare()
    return share


def remember(model: Forecaster, data: Trajectories) -> float:
    """Gives trajectories to the kernel dynamics; where it is known what they are between their frames, they
    have the one after the last from there.

    Returns:
        The share of the mean square change in the fields, over a frame, that they do not tell.
    """
    dynamics = model.dynamics
    assert isinstance(dynamics, KernelDynamics)
    count, frames = dynamics.trajectories, dynamics.frames
    gap = (data.times[-1] - data.times[0]) / (len(data.times) - 1)
    inner, between = data.between, None
    if inner is None:
        fields = torch.stack([_on_grid(model, data, i, slice(frames)) for i in range(count)])
    else:
        places = len(nodes()) + 1
        all_of_it, last = (
            slice((frames - 1) * places),
            slice((frames - 1) * places - 1, (frames - 1) * places),
        )
        paths = [
            torch.cat([_on_grid(model, data, i, slice(frames - 1)), _on_grid(model, inner, i, last)])
            for i in range(count)
        ]
        fields = torch.stack(paths)
        # One at a time: they are large.
        between = (
            _on_grid(model, inner, i, all_of_it).unflatten(0, (-1, places))[:, :-1] for i in range(count)
        )
    dynamics.learn(fields, gap, between)
    return dynamics.untold(fields)


def _on_grid(model: Forecaster, data: Trajectories, index: int, at: slice) -> Tensor:
    """Frames of a trajectory (T, V, latitudes, longitudes) on the grid of the kernel dynamics: as they are,
    or as latents show them."""
    dynamics, values = model.dynamics, data.values[index : index + 1, at][0].to(model.mean)
    assert isinstance(dynamics, KernelDynamics) and isinstance(model.encoder, PrincipalSGD)
    nodes = dynamics.points()
    if data.points.shape == nodes.shape and torch.allclose(data.points.to(nodes), nodes, atol=1e-6):
        normal = (values.double() - model.mean) / model.scale
        if bool(normal.isfinite().all()):
            return normal.mT.unflatten(-1, (len(dynamics.latitude), len(dynamics.longitude)))
    points = data.points.to(model.mean.device)
    return dynamics.seen(model.encoder, model.encode(points, values, None, data.measure).contexts)
