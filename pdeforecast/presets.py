"""Named sizes of model and training; `--set` changes any field of them."""

from dataclasses import dataclass

from pdeforecast.config import (
    AttentionFieldConfig,
    DynamicsConfig,
    KernelDynamicsConfig,
    LinearFieldConfig,
)
from pdeforecast.training import TrainingConfig


@dataclass(frozen=True)
class Preset:
    """A model and how to train it.

    Attributes:
        field: how states are represented.
        dynamics: how they move.
        training: how long and how boldly.
        budget: seconds that the training takes unless `--budget` says otherwise; 0 for exactly the
            steps of `training`.
    """

    field: LinearFieldConfig | AttentionFieldConfig
    dynamics: DynamicsConfig | KernelDynamicsConfig
    training: TrainingConfig
    budget: float


PRESETS = {
    "smoke": Preset(
        LinearFieldConfig(),
        DynamicsConfig(hidden=48),
        TrainingConfig(copies=1, horizon=2, batch=16),
        60,
    ),
    "default": Preset(
        LinearFieldConfig(),
        DynamicsConfig(hidden=192),
        TrainingConfig(),
        2 * 3600,
    ),
    "gpu": Preset(
        LinearFieldConfig(degree=4),
        DynamicsConfig(hidden=384),
        TrainingConfig(batch=256, copies=16, horizon=12),
        25 * 60,
    ),
    "memory": Preset(
        LinearFieldConfig(latents=576, degree=2, rank=0),
        KernelDynamicsConfig(between=True),
        TrainingConfig(field_steps=2, copies=1),
        0,
    ),
    "paper": Preset(
        AttentionFieldConfig(
            latents=4,
            context_dim=16,
            hidden=128,
            heads=2,
            neighbours=0,
            window=0.5,
            fit_poses=True,
        ),
        DynamicsConfig(hidden=128, moving=True),
        TrainingConfig(field_steps=20000, points=512, batch=16, horizon=9, copies=1),
        0,
    ),
}
