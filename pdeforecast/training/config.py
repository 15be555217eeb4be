"""How a model is trained, and what a step of it tells."""

from dataclasses import dataclass, replace

import torch

PHASES = ("field", "dynamics", "joint")


@dataclass(frozen=True)
class TrainingConfig:
    """How long, in which portions, and how boldly.

    Attributes:
        field_steps: optimiser steps of the field phase (attention), or rounds (linear).
        dynamics_steps: optimiser steps of the dynamics phase.
        joint_steps: optimiser steps of the joint phase.
        batch: frames that a step of the last two phases rolls through, over all trajectories (of
            which it takes at least eight).
        horizon: the longest rollout, in frames.
        points: points per state that a step of the field phase sees.
        learning_rate: of the matrices in the dynamics (Muon); decays to zero along a cosine.
        field_rate: of everything in the field phase (Adam).
        ema: decay of the averaged weights, per step.
        copies: how many random motions of the world the cached latents cover.
        mixed_precision: compute the large products of the dynamics in bfloat16 (`precision.py`): for GPUs,
            on which it has not been measured.
        seed: of every random choice.
        init_from: the model whose weights, prior and scales training begins from; empty for none.
    """

    field_steps: int = 3
    dynamics_steps: int = 20000
    joint_steps: int = 1000
    batch: int = 32
    horizon: int = 6
    points: int = 1024
    learning_rate: float = 0.01
    field_rate: float = 1e-3
    ema: float = 0.995
    copies: int = 8
    mixed_precision: bool = False
    seed: int = 0
    init_from: str = ""

    def steps(self, phase: str) -> int:
        """Optimiser steps of a phase."""
        return {"field": self.field_steps, "dynamics": self.dynamics_steps, "joint": self.joint_steps}[phase]

    def trajectories(self, horizon: int) -> int:
        """How many trajectories a step rolls through `horizon` frames."""
        return max(8, self.batch // horizon)

    def rolled_horizon(self, share: float, longest: int) -> int:
        """Frames to roll through after a share of the dynamics phase: 1 at first, all from two thirds."""
        return min(longest, 1 + int(min(1.0, 1.5 * share) * (self.horizon - 1) + 1e-9))

    def within(self, seconds: float, frame: float, longest: int, done: int = 0) -> "TrainingConfig":
        """As many steps as fit into `seconds` after `done` steps of the dynamics phase.

        A step costs in proportion to the frames that it rolls through, `frame` seconds each; the joint
        phase, whose steps cost about three times as much, gets a tenth of the time.
        """
        seconds = max(0.0, seconds)
        first = min(done / self.dynamics_steps, 0.99)
        horizons = [self.rolled_horizon(first + (1 - first) * i / 100, longest) for i in range(100)]
        frames = sum(h * self.trajectories(h) for h in horizons) / 100
        last = min(self.horizon, longest)
        share = 0.1 if self.joint_steps else 0.0
        return replace(
            self,
            dynamics_steps=max(done, 1) + int((1 - share) * seconds / (frames * frame)),
            joint_steps=int(share * seconds / (3 * last * self.trajectories(last) * frame)),
        )


@dataclass(frozen=True)
class Report:
    """What a step of training tells."""

    phase: str
    step: int
    steps: int
    loss: float
    horizon: int


def drawn(config: TrainingConfig, phase: str, step: int) -> torch.Generator:
    """The random choices of a step of a phase."""
    return torch.Generator().manual_seed((config.seed * 3 + PHASES.index(phase)) * 10**9 + step)
