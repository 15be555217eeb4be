"""Where a run stands: weights, their average, optimisers, phase and step."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Adam, Muon, Optimizer

from pdeforecast import parallel
from pdeforecast.forecaster import Forecaster
from pdeforecast.precision import mixed
from pdeforecast.training.config import TrainingConfig

_JOINT_SHARE = 0.01
"""The joint phase's learning rate in units of the dynamics': it polishes weights that have settled."""


class Progress:
    """Everything beside the model that a resumed run needs: phase, step, optimisers, averages.

    Attributes:
        kept: the folder that holds the run, if one does.
    """

    def __init__(self, model: Forecaster, config: TrainingConfig, kept: Path | None = None) -> None:
        self.model = model
        self.kept = kept
        self.config = config
        self.phase = "field"
        self.step = 0
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.optimizers = self._optimizers()

    def to(self, device: str) -> None:
        """Moves model, averages and optimisers to `device`."""
        flat = self.state()
        self.model.to(device)
        self.load(self.phase, self.step, flat)

    def enter(self, phase: str) -> None:
        """Begins `phase` from the averaged weights of the one before."""
        self.phase, self.step = phase, 0
        self.load_average()
        self.optimizers = self._optimizers()

    def load_average(self) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.average[name])

    @contextmanager
    def averaged(self) -> Iterator[Forecaster]:
        """The model with its averaged weights, for the time of a `with`."""
        raw = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.load_average()
        try:
            yield self.model
        finally:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(raw[name])

    def update(self, loss: Tensor) -> None:
        """One optimiser step along the gradient of `loss`."""
        share = self.step / max(self.config.steps(self.phase), 1)
        decay = min(1.0, (self.step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * share))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = decay * group["peak"]
            optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._trained(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        weight = min(self.config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                self.average[name].lerp_(parameter, 1 - weight)

    def shared(self, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`loss`, of a process's part of a batch, as this run computes it and its gradients."""
        if self.config.mixed_precision:
            loss = mixed(self.model, loss)
        return parallel.averaging(self._moved(), loss)

    def agree(self) -> None:
        """Takes over the first process's schedule."""
        config = self.config
        planned = [config.dynamics_steps, config.joint_steps]
        dynamics, joint = parallel.agreed(planned, self.model.mean.device)
        self.config = replace(config, dynamics_steps=dynamics, joint_steps=joint)

    def state(self) -> dict[str, Tensor]:
        """All tensors of this object, flat."""
        flat = {f"average.{name}": value for name, value in self.average.items()}
        flat |= {f"raw.{name}": value.detach() for name, value in self.model.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            for j, slots in optimizer.state_dict()["state"].items():
                flat |= {f"optimizer.{i}.{j}.{slot}": torch.as_tensor(v) for slot, v in slots.items()}
        return {name: value.cpu().clone().contiguous() for name, value in flat.items()}

    def load(self, phase: str, step: int, flat: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.phase, self.step = phase, step
        self.model.load_state_dict(_under("raw.", flat))
        self.average = {k: v.to(self.model.mean.device) for k, v in _under("average.", flat).items()}
        self.optimizers = self._optimizers()
        for i, optimizer in enumerate(self.optimizers):
            slots: dict[int, dict[str, Tensor]] = {}
            for name, value in _under(f"optimizer.{i}.", flat).items():
                index, _, slot = name.partition(".")
                slots.setdefault(int(index), {})[slot] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})

    def _moved(self) -> list[nn.Module]:
        """The parts of the model whose weights the present phase moves."""
        field = [self.model.encoder] if self.phase != "dynamics" else []
        dynamics = [self.model.dynamics] if self.phase != "field" else []
        return [*field, *dynamics]

    def _trained(self) -> list[nn.Parameter]:
        """Their weights."""
        return [parameter for part in self._moved() for parameter in part.parameters()]

    def _optimizers(self) -> list[Optimizer]:
        if self.phase == "field":
            trained = self._trained()
            return [Adam([{"params": trained, "peak": self.config.field_rate}])] if trained else []
        peak = self.config.learning_rate * (1.0 if self.phase == "dynamics" else _JOINT_SHARE)
        moved = list(self.model.dynamics.parameters())
        if not moved:
            return []
        matrices = [p for p in moved if p.ndim == 2]
        rest = [p for p in moved if p.ndim != 2]
        made: list[Optimizer] = [
            Muon(
                [{"params": matrices, "peak": peak}],
                lr=peak,
                weight_decay=0.0,
                adjust_lr_fn="match_rms_adamw",
            ),
            Adam([{"params": rest, "peak": peak}]),
        ]
        coded = list(self.model.encoder.parameters()) if self.phase == "joint" else []
        if coded:
            made.append(Adam([{"params": coded, "peak": 0.1 * self.config.field_rate}]))
        return made


def _under(prefix: str, flat: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in flat.items() if name.startswith(prefix)}
