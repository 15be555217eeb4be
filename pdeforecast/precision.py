"""Mixed precision: the large products of the dynamics in bfloat16, everything else as it was.

`torch.autocast` surrounds the messages, product blocks and kernels of the dynamics. Weights, optimisers, the
integration, geometry, the exact encoder and all that is learned in closed form keep their types. So does the
attention field: through its encoder's gradients of gradients autocast does not pass.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from pdeforecast.dynamics import LatentDynamics
from pdeforecast.forecaster import Forecaster


def mixed(model: Forecaster, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`loss`, with the networks of the dynamics in bfloat16 while it is computed."""
    dynamics = model.dynamics
    if not isinstance(dynamics, LatentDynamics):
        return loss
    networks: list[nn.Module] = [dynamics.message, dynamics.kernel_basis, *dynamics.blocks]

    @wraps(loss)
    def computed(*parts: Any) -> Tensor:
        for network in networks:
            network.forward = _reduced(network.forward, model.mean.device.type)  # type: ignore[method-assign]
        try:
            return loss(*parts)
        finally:
            for network in networks:
                del network.forward

    return computed


def _reduced(function: Callable[..., Tensor], device: str) -> Callable[..., Tensor]:
    """`function` in bfloat16, its result in float32."""

    def called(*parts: Any) -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            return function(*parts).float()

    return called
