"""How every baseline is trained: one loop, one schedule, one file that a run is resumed from.

Adam, gradients clipped to norm 1, a rate that warms up and falls as a cosine to zero. The number of steps is
planned from the budget, by what steps have cost so far, and planned again every minute. Every random choice
depends on (seed, step) and the schedule on the step and the plan alone, so a resumed run with the same plan
repeats the uninterrupted one bit for bit on a CPU.

`baseline.safetensors` holds weights and Adam's moments, sealed, with all else as JSON in its metadata.
"""

import json
import math
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn

from pdeforecast.bench.contract import Layout
from pdeforecast.checkpoint import read_tensors, write_tensors
from pdeforecast.errors import CheckpointError, DivergedError, UsageError, nearest

FILE = "baseline.safetensors"
_FORMAT = "pdeforecast-baseline/1"
_SAVE_EVERY = 60.0
_PLAN_EVERY = 60.0
_FIRST_PLAN = 10
"""Steps after which the first plan is made."""


@dataclass(frozen=True)
class Settings:
    """What every baseline's training asks for.

    Attributes:
        rate: the peak learning rate of Adam.
        batch: states or windows of states per step.
        warm_up: the share of the steps in which the rate rises.
        steps: optimiser steps; 0 for as many as the budget allows.
    """

    rate: float = 1e-3
    batch: int = 8
    warm_up: float = 0.03
    steps: int = 0

    def decay(self, progress: float) -> float:
        """The learning rate after a share of the steps, in units of the peak."""
        return min(1.0, (progress + 1e-3) / self.warm_up) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


S = TypeVar("S", bound=Settings)


def with_settings(config: S, chosen: Mapping[str, Any]) -> S:
    """`config` with other values, given as they are or as text.

    Raises:
        UsageError: if a setting is unknown or its value means nothing.
    """
    known = {each.name: getattr(config, each.name) for each in fields(config)}
    values = {}
    for name, value in chosen.items():
        if name not in known:
            raise UsageError(
                f"expected a setting among {', '.join(known)}; came {name!r}.",
                f"Type `--set {nearest(name, known) or next(iter(known))}=…`.",
            )
        try:
            values[name] = _read(value, known[name])
        except ValueError as error:
            raise UsageError(
                f"expected {name} as {known[name]!r} is; came {value!r}.",
                f"Type `--set {name}={known[name]}`.",
            ) from error
    return replace(config, **values)


def _read(value: Any, example: Any) -> Any:
    """What a value or its spelling says, as `example` is; of several numbers, those between commas."""
    if isinstance(example, tuple):
        return tuple(float(part) for part in (value.split(",") if isinstance(value, str) else value))
    return type(example)(value)


@dataclass(frozen=True)
class Report:
    """What a step of training tells.

    Attributes:
        step: steps done.
        steps: planned in all; the plan follows the budget.
        loss: of this step.
        seconds: of the budget that are spent.
    """

    step: int
    steps: int
    loss: float
    seconds: float


class Learner(nn.Module):
    """A network with a loss on training data of its own kind, `data`."""

    @abstractmethod
    def calibrate(self, data: Any) -> None:
        """Takes scales and the like from the data, once."""

    @abstractmethod
    def loss(self, data: Any, draw: Generator, progress: float) -> Tensor:
        """The loss of a batch that `draw` chooses, after a share `progress` of the steps."""

    def rates(self) -> dict[str, float]:
        """Peak rates, in units of the settings', of the parameters whose names begin so."""
        return {}


@dataclass
class Run:
    """A training as it stands.

    Attributes:
        kind: of the method.
        config: how it is built and trained.
        layout: of the training data.
        seed: of weights and batches.
        budget: seconds for all of it.
        learner: what is trained.
        card: what is known of data and training.
        step: steps done.
        steps: planned.
        seconds: spent.
        known: what the method was given beside the learner, such as a prior.
    """

    kind: str
    config: Settings
    layout: Layout
    seed: int
    budget: float
    learner: Learner
    card: dict[str, Any]
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    known: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        peaks = self.learner.rates()
        groups = []
        for name, parameter in self.learner.named_parameters():
            share = next((rate for prefix, rate in peaks.items() if name.startswith(prefix)), 1.0)
            groups.append({"params": [parameter], "peak": share * self.config.rate})
        self.optimiser = torch.optim.Adam(groups)
        self.steps = self.steps or self.config.steps

    @property
    def progress(self) -> float:
        """The share of the steps that are done; of the budget, before there is a plan."""
        if self.steps:
            return self.step / self.steps
        return self.seconds / self.budget if self.budget > 0 else 1.0

    def to(self, device: str) -> None:
        """Moves the learner and Adam's moments."""
        self.learner.to(device)
        for moments in self.optimiser.state.values():
            for name, value in moments.items():
                if name != "step":
                    moments[name] = value.to(device)

    def update(self, data: Any) -> float:
        """One step; its loss.

        Raises:
            DivergedError: if that is not a finite number.
        """
        draw = Generator().manual_seed(1_000_003 * self.seed + self.step)
        decay = self.config.decay(self.progress)
        for group in self.optimiser.param_groups:
            group["lr"] = decay * group["peak"]
        self.optimiser.zero_grad()
        loss = self.learner.loss(data, draw, self.progress)
        if not bool(loss.isfinite()):
            raise DivergedError(
                f"the loss of {self.kind} left the finite numbers at step {self.step}.",
                f"Train more slowly: `rate={self.config.rate / 3:g}`.",
            )
        loss.backward()
        nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return loss.item()

    def save(self, folder: Path) -> None:
        """All of it, whole or not at all."""
        tensors = {f"weights.{name}": _real(value) for name, value in _tensors(self.learner).items()}
        tensors |= {f"known.{name}": value.contiguous() for name, value in self.known.items()}
        names = [name for name, _ in self.learner.named_parameters()]
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{names[index]}.{key}": _real(value) for key, value in moments.items()}
        said = {
            name: getattr(self, name)
            for name in ("kind", "seed", "budget", "step", "steps", "seconds", "card")
        }
        said |= {"config": asdict(self.config), "layout": self.layout.plain()}
        count = sum(p.numel() * (1 + p.is_complex()) for p in self.learner.parameters() if p.requires_grad)
        learned = {"steps": self.step, "seconds": round(self.seconds, 1), "parameters": count}
        said["card"] = {**self.card, **learned, "training": asdict(self.config)}
        write_tensors(tensors, {"format": _FORMAT, "run": json.dumps(said)}, folder / FILE)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Weights and moments, as `save` named them."""
        own = _tensors(self.learner)
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(_like(tensors[f"weights.{name}"], value))
        state = {}
        for index, (name, parameter) in enumerate(self.learner.named_parameters()):
            if f"adam.{name}.step" in tensors:
                state[index] = {
                    "step": tensors[f"adam.{name}.step"],
                    **{k: _like(tensors[f"adam.{name}.{k}"], parameter) for k in ("exp_avg", "exp_avg_sq")},
                }
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})


def stored(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """What the run in `folder` says of itself, its tensors, and the hash of both.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    tensors, metadata = read_tensors(folder / FILE, _FORMAT)
    try:
        said = json.loads(metadata["run"])
        said["layout"] = Layout(**said["layout"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"expected a baseline of this version in {folder}; it does not fit ({error}).", "Train it again."
        ) from error
    return said, tensors, metadata["sha256"]


def go(run: Run, data: Any, folder: Path) -> Iterator[Report]:
    """Trains to the end of the plan, keeping the run in `folder`.

    Raises:
        DivergedError: as `Run.update` does.
    """
    clock = time.monotonic if next(run.learner.parameters()).is_cuda else time.process_time
    run.learner.train()
    before, start = run.seconds, clock()
    saved = planned = time.monotonic()
    since = (run.step, run.seconds)
    while run.step < run.steps if run.steps else run.seconds < run.budget:
        loss = run.update(data)
        run.seconds = before + clock() - start
        done, now = run.step - since[0], time.monotonic()
        first = run.steps == 0 and done >= _FIRST_PLAN
        if not run.config.steps and (first or (run.steps and now - planned > _PLAN_EVERY)):
            left = max(0.0, run.budget - run.seconds)
            run.steps = run.step + math.ceil(left * done / max(run.seconds - since[1], 1e-9))
            planned, since = now, (run.step, run.seconds)
        if now - saved > _SAVE_EVERY:
            run.save(folder)
            saved = time.monotonic()
        yield Report(run.step, run.steps or run.step, loss, run.seconds)
    run.learner.eval()
    run.save(folder)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    # Modules of others keep entries in their state that are no tensors.
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def _real(value: Tensor) -> Tensor:
    value = value.detach().cpu()
    return (torch.view_as_real(value) if value.is_complex() else value).contiguous()


def _like(value: Tensor, target: Tensor) -> Tensor:
    return torch.view_as_complex(value.contiguous()) if target.is_complex() else value
