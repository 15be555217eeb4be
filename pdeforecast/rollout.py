"""Latents at any times: the latent ODE, integrated by torchdiffeq on the manifold of poses.

Poses are integrated in ambient coordinates, in which the group acts affinely, with ṗ the body-frame
velocity carried there; so every Runge–Kutta step commutes with the group exactly, and poses are
projected back onto their manifold at the requested times, and seen so at every stage between. An adaptive
method chooses its steps by the absolute error of poses, for their size depends on where the world lies.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchdiffeq import odeint

from pdeforecast.dynamics import LatentDynamics
from pdeforecast.latents import Latents

Surroundings = Callable[[Tensor], Tensor]
"""Static fields as read around poses (…, N, pose_dim) in their frames: (B or 1, N, static_dim)."""

_ADAPTIVE = {"dopri5", "dopri8", "bosh3", "tsit5", "fehlberg2", "adaptive_heun"}


def rollout(
    dynamics: LatentDynamics,
    latents: Latents,
    surroundings: Surroundings,
    times: Sequence[float],
    method: str = "rk4",
    step: float = 0.25,
    tolerance: float = 1e-6,
) -> list[Latents]:
    """The latents at each of `times`, in any order; `latents` are at time 0.

    Args:
        surroundings: reads static fields at poses.
        method: any of torchdiffeq's; fixed-step methods divide each interval between requested
            times into equal steps no longer than `step`, so requested times are hit exactly.
        step: the longest step of a fixed-step method, in time units.
        tolerance: relative and absolute tolerance of an adaptive method.

    Raises:
        ValueError: if a time is negative.
    """
    if min(times, default=0.0) < 0:
        raise ValueError(f"latents are rolled out to times ≥ 0; {min(times)} is none.")
    grid = sorted({0.0, *times})
    if len(grid) == 1:
        return [latents for _ in times]
    moving = dynamics.moving
    graph = None if moving else dynamics.look(latents.poses)
    static = None if moving else surroundings(latents.poses)

    def velocity(_: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if graph is not None and static is not None:
            return (dynamics.velocity(graph, state[0], static)[1],)
        contexts, poses = state[0], dynamics.geometry.project(state[1])
        body, change = dynamics.velocity(dynamics.look(poses), contexts, surroundings(poses))
        return change, dynamics.geometry.carry(poses, body)

    batch = latents.contexts.shape[0]
    start: tuple[Tensor, ...] = (latents.contexts,)
    if moving:
        start = (latents.contexts, latents.poses.to(latents.contexts).expand(batch, -1, -1))
    relative = (tolerance, 0.0)[: len(start)]
    options = {} if method in _ADAPTIVE else {"grid_constructor": lambda f, y, t: _steps(t, step)}
    at = torch.tensor(grid, dtype=torch.float64, device=latents.contexts.device)
    path = odeint(velocity, start, at, method=method, rtol=relative, atol=tolerance, options=options)
    where = {time: i for i, time in enumerate(grid)}
    poses = dynamics.geometry.project(path[1]) if moving else None
    return [
        Latents(latents.poses if poses is None else poses[where[t]], path[0][where[t]], latents.windows)
        for t in times
    ]


def _steps(times: Tensor, step: float) -> Tensor:
    """A grid through all of `times` with equal steps no longer than `step` between neighbours."""
    pieces = []
    for a, b in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        count = max(1, int(-(-(b - a) * (1 - 1e-9) // step)))
        pieces.append(torch.linspace(a, b, count + 1, dtype=times.dtype, device=times.device)[:-1])
    return torch.cat([*pieces, times[-1:]])
