"""The Fourier neural operator, the forecaster to beat on full grids, from the `neuraloperator` library.

    ω(t + 1) = ω(t) + δ FNO(ω(t)/s, f/s_f)

s, s_f and δ are the standard deviations of the state, of the forcing and of the change in one time
unit. There is no positional embedding and no padding, so the step commutes with every translation
by whole pixels: that symmetry is exact and needs no augmentation. The four quarter turns and the
four reflections (which turn the sign of ω and f) are drawn at random while training.

    python benchmarks/fno.py train DATA.nc -o DIR --budget 20m [--resume]

trains on all pairs (t, t + 1) of the file with Adam; the rate warms up and falls as a cosine to
zero over the budget, and the horizon of the free rollout in the loss grows, 1 → 2 → 4 steps.
Needs `pip install neuraloperator`.
"""

import argparse
import json
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from neuralop.models import FNO
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Settings:
    """What is trained, and how.

    Attributes:
        modes: Fourier modes kept per axis (wave numbers up to modes/2).
        width: hidden channels.
        rate: the peak learning rate of Adam.
        batch: states per step.
        warm_up: the share of the budget in which the rate rises.
        horizons: (share of the budget, steps of free rollout from then on).
        seed: of the initial weights and of the batches.
    """

    modes: int = 16
    width: int = 32
    rate: float = 6e-3
    batch: int = 8
    warm_up: float = 0.03
    horizons: tuple[tuple[float, int], ...] = ((0.0, 1), (0.6, 2), (0.9, 4))
    seed: int = 0

    def learning_rate(self, progress: float) -> float:
        """The rate after a share `progress` of the budget."""
        rise = min(1.0, (progress + 1e-3) / self.warm_up)
        return self.rate * rise * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def horizon(self, progress: float) -> int:
        """The number of rollout steps in the loss after a share `progress` of the budget."""
        return max(steps for start, steps in self.horizons if progress >= start)


class Stepper(nn.Module):
    """One time unit of vorticity."""

    state_scale: Tensor
    forcing_scale: Tensor
    change_scale: Tensor

    def __init__(self, settings: Settings) -> None:
        """An untrained step, with scales of 1."""
        super().__init__()
        self.operator = FNO(
            n_modes=(settings.modes, settings.modes),
            in_channels=2,
            out_channels=1,
            hidden_channels=settings.width,
            positional_embedding=None,
        )
        for name in ("state_scale", "forcing_scale", "change_scale"):
            self.register_buffer(name, torch.ones(()))

    def forward(self, vorticity: Tensor, forcing: Tensor) -> Tensor:
        """ω(t + 1) (batch, y, x) from ω(t) and f, both of that shape."""
        inputs = torch.stack([vorticity / self.state_scale, forcing / self.forcing_scale], dim=1)
        return vorticity + self.change_scale * self.operator(inputs)[:, 0]

    def rollout(self, vorticity: Tensor, forcing: Tensor, steps: int) -> Iterator[Tensor]:
        """The states after 1 … `steps` time units."""
        for _ in range(steps):
            vorticity = self(vorticity, forcing)
            yield vorticity


@dataclass(frozen=True)
class Trajectories:
    """Training data.

    Attributes:
        vorticity: (sample, frame, y, x).
        forcing: (y, x).
        stride: frames per time unit.
    """

    vorticity: Tensor
    forcing: Tensor
    stride: int

    def batch(self, count: int, horizon: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` windows (count, horizon + 1, y, x), and their forcings, each in a random attitude."""
        samples, frames = self.vorticity.shape[:2]
        sample = torch.randint(samples, (count, 1), generator=generator)
        first = torch.randint(frames - self.stride * horizon, (count, 1), generator=generator)
        states = self.vorticity[sample, first + self.stride * torch.arange(horizon + 1)]
        forcing = self.forcing.expand(count, 1, -1, -1)
        attitude = torch.randint(8, (count,), generator=generator).tolist()
        both = [turn(pair, a) for pair, a in zip(torch.cat([states, forcing], 1), attitude, strict=True)]
        return torch.stack(both).split([horizon + 1, 1], dim=1)


def turn(fields: Tensor, attitude: int) -> Tensor:
    """Vorticity and forcing (…, y, x) after a quarter turn (attitude % 4 times) and a reflection (≥ 4)."""
    fields = fields.rot90(attitude % 4, (-2, -1))
    return -fields.transpose(-2, -1) if attitude >= 4 else fields


def read(path: Path) -> Trajectories:
    """The trajectories of a file with `vorticity` (sample, time, y, x) and `forcing` (y, x).

    Raises:
        ValueError: if no whole number of frames makes one time unit.
    """
    with xr.open_dataset(path, engine="h5netcdf") as ds:
        interval = float(ds["time"][1] - ds["time"][0])
        stride = round(1 / interval)
        if stride < 1 or abs(stride * interval - 1) > 1e-9:
            raise ValueError(
                f"the FNO steps by 1 time unit, and frames of {path} are {interval} apart. "
                f"Generate a file with an interval of 1, 0.5 or 0.25."
            )
        vorticity = ds["vorticity"].transpose("sample", "time", "y", "x").astype(np.float32)
        forcing = ds["forcing"].transpose("y", "x").astype(np.float32)
        return Trajectories(torch.from_numpy(vorticity.values), torch.from_numpy(forcing.values), stride)


def scaled(stepper: Stepper, data: Trajectories) -> Stepper:
    """`stepper` with the three scales of `data` (of every eighth sample: they need no more)."""
    states = data.vorticity[::8]
    stepper.state_scale.copy_(states.std())
    stepper.forcing_scale.copy_(data.forcing.std())
    stepper.change_scale.copy_((states[:, data.stride :] - states[:, : -data.stride]).std())
    return stepper


def save(directory: Path, stepper: Stepper, optimiser: torch.optim.Adam, record: Mapping[str, Any]) -> None:
    """Weights, optimiser and record, each written beside and renamed; the record last."""
    moments = {
        f"{index}.{name}": value
        for index, entry in optimiser.state_dict()["state"].items()
        for name, value in entry.items()
    }
    weights = {name: value.contiguous() for name, value in stepper.state_dict().items() if _is_tensor(value)}
    for name, tensors in (("fno", weights), ("optimiser", moments)):
        partial = directory / f"{name}.partial"
        save_file({key: _real(value) for key, value in tensors.items()}, partial)
        os.replace(partial, directory / f"{name}.safetensors")
    partial = directory / "fno.partial"
    partial.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(partial, directory / "fno.json")


def settings_of(directory: Path) -> Settings:
    """The settings that the run in `directory` was started with."""
    return Settings(**json.loads((directory / "fno.json").read_text())["settings"])


def load(directory: Path) -> Stepper:
    """The trained step in `directory`, ready to forecast."""
    stepper = Stepper(settings_of(directory))
    stored = load_file(directory / "fno.safetensors")
    own = {name: value for name, value in stepper.state_dict().items() if _is_tensor(value)}
    stepper.load_state_dict({name: _like(stored[name], own[name]) for name in own}, strict=False)
    return stepper.eval()


def load_optimiser(directory: Path, optimiser: torch.optim.Adam) -> None:
    """The moments of Adam as they were saved."""
    stored = load_file(directory / "optimiser.safetensors")
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in stored.items():
        index, name = key.split(".")
        parameter = optimiser.param_groups[0]["params"][int(index)]
        state.setdefault(int(index), {})[name] = value if name == "step" else _like(value, parameter)
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def _is_tensor(value: object) -> bool:
    """Modules of the library keep a `_metadata` entry, which is not a tensor, in their state dict."""
    return isinstance(value, Tensor)


def _real(value: Tensor) -> Tensor:
    value = value.detach()
    return (torch.view_as_real(value) if value.is_complex() else value).contiguous()


def _like(stored: Tensor, target: Tensor) -> Tensor:
    return torch.view_as_complex(stored) if target.is_complex() else stored


def train(data: Trajectories, directory: Path, budget: float, settings: Settings, resume: bool) -> None:
    """Train for `budget` CPU seconds in all (they do not run while others hold the core).

    A resumed run goes on where it was saved; `settings` are then those that it was started with.
    """
    torch.manual_seed(settings.seed)
    stepper = load(directory).train() if resume else scaled(Stepper(settings), data)
    optimiser = torch.optim.Adam(stepper.parameters())
    record: dict[str, Any] = {
        "settings": asdict(settings),
        "parameters": sum(p.numel() * (1 + p.is_complex()) for p in stepper.parameters()),
        "samples": len(data.vorticity),
        "steps": 0,
        "one_step_mse": 0.0,
        "seconds": 0.0,
        "cpu_seconds": 0.0,
    }
    if resume:
        load_optimiser(directory, optimiser)
        record |= json.loads((directory / "fno.json").read_text())
    record |= {"budget": budget, "command": shlex.join(["python", *sys.argv])}
    clock = time.monotonic() - record["seconds"]
    cpu_clock = time.process_time() - record["cpu_seconds"]
    shown = saved = record["seconds"]
    while record["cpu_seconds"] < budget:
        progress = record["cpu_seconds"] / budget
        horizon = settings.horizon(progress)
        generator = torch.Generator().manual_seed(1_000_003 * settings.seed + record["steps"])
        window, forcing = data.batch(settings.batch, horizon, generator)
        states = stepper.rollout(window[:, 0], forcing[:, 0], horizon)
        losses = [(state - window[:, i + 1]).square().mean() for i, state in enumerate(states)]
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate(progress)
        optimiser.zero_grad()
        (torch.stack(losses).mean() / stepper.change_scale**2).backward()
        torch.nn.utils.clip_grad_norm_(stepper.parameters(), 1.0)
        optimiser.step()
        record["steps"] += 1
        weight = max(0.02, 1 / record["steps"])
        record["one_step_mse"] += weight * (losses[0].item() - record["one_step_mse"])
        record["seconds"] = time.monotonic() - clock
        record["cpu_seconds"] = time.process_time() - cpu_clock
        if record["seconds"] - shown > 10:
            shown = record["seconds"]
            print(progress_line(record, horizon), flush=True)
        if record["seconds"] - saved > 60:
            saved = record["seconds"]
            save(directory, stepper, optimiser, record)
    save(directory, stepper, optimiser, record)


def progress_line(record: Mapping[str, Any], horizon: int) -> str:
    """Loss, rate, and an estimate of what is left."""
    return (
        f"step {record['steps']}  horizon {horizon}  one-step mse {record['one_step_mse']:.2e}  "
        f"{record['steps'] / record['seconds']:.2f} steps/s  "
        f"{max(0.0, record['budget'] - record['cpu_seconds']) / 60:.1f} min left"
    )


def seconds(text: str) -> float:
    """'90s', '20m' or '1.5h' in seconds."""
    match = re.fullmatch(r"([\d.]+)([smh])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"a budget is a number and s, m or h, as in 20m; got {text!r}")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("train", help="train on a file of trajectories")
    verb.add_argument("data", type=Path, metavar="DATA.nc")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    verb.add_argument("--budget", type=seconds, default=1200.0, help="CPU time, as in 20m (default)")
    verb.add_argument("--resume", action="store_true", help="go on with the run saved in DIR")
    arguments = parser.parse_args()
    directory = arguments.output
    exists = (directory / "fno.json").exists()
    if exists != arguments.resume:
        found, cure = ("a run", "add --resume") if exists else ("no run", "leave --resume out")
        parser.error(f"{directory} holds {found}; {cure}, or choose another directory")
    directory.mkdir(parents=True, exist_ok=True)
    settings = settings_of(directory) if arguments.resume else Settings()
    train(read(arguments.data), directory, arguments.budget, settings, arguments.resume)


if __name__ == "__main__":
    main()
