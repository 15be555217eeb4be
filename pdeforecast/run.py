"""A training run: a folder that survives interruptions.

    run.json                what was asked for, and the schedule that was planned
    progress.safetensors    everything a resumed run needs
    model.safetensors       the averaged model so far: usable at any time
    log.csv                 a line per step
"""

import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from pdeforecast.checkpoint import read_tensors, save, write_tensors
from pdeforecast.config import ForecasterConfig, from_dict, override, to_dict
from pdeforecast.errors import CheckpointError, DataError, UsageError
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import Geometry
from pdeforecast.presets import Preset
from pdeforecast.training import Progress, Report, TrainingConfig, Trajectories, train
from pdeforecast.trajectory import trajectory_values

_FORMAT = "pdeforecast-run/1"
_SAVE_EVERY = 60.0
_MEASURED_STEPS = 20


@dataclass(frozen=True)
class Settings:
    """What `--set` reaches: `field.…`, `dynamics.…` and `training.…`."""

    field: Any
    dynamics: Any
    training: TrainingConfig


def begin(
    folder: Path, ds: xr.Dataset, geometry: Geometry, preset: Preset, settings: Mapping[str, str]
) -> Progress:
    """A new run in `folder` on the trajectories `ds`.

    Raises:
        UsageError: if the folder holds a run already, or a setting is unknown.
    """
    if (folder / "run.json").exists():
        raise UsageError(
            f"expected a new folder; {folder} holds a run.", "Add `--resume`, or give another folder."
        )
    chosen = override(Settings(preset.field, preset.dynamics, preset.training), settings)
    variables, statics = fields_of(ds)
    time_name = "time" if "time" in ds.dims else "lead_time"
    config = ForecasterConfig(
        geometry=geometry.name,
        variables=variables,
        statics=statics,
        time_unit=str(ds[time_name].attrs.get("units", "1")) if time_name in ds.variables else "1",
        field=chosen.field,
        dynamics=chosen.dynamics,
    )
    torch.manual_seed(chosen.training.seed)
    return Progress(Forecaster(config), chosen.training)


def resume(folder: Path) -> Progress:
    """The run in `folder`, as it was last saved.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    try:
        stored = json.loads((folder / "run.json").read_text())
        model = Forecaster(from_dict(stored["model"]))
        config = TrainingConfig(**stored["training"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"expected a run in {folder}; its run.json cannot be read: {error}.",
            "Start without `--resume`, or give the folder of a run.",
        ) from error
    progress = Progress(model, config)
    if (folder / "progress.safetensors").exists():
        tensors, metadata = read_tensors(folder / "progress.safetensors", _FORMAT)
        progress.config = TrainingConfig(**json.loads(metadata["training"]))
        model.card = json.loads(metadata["card"])
        progress.load(metadata["phase"], int(metadata["step"]), tensors)
    return progress


def trajectories(ds: xr.Dataset, model: Forecaster) -> Trajectories:
    """The training data of `model` in `ds`."""
    config = model.config
    times, points, values = trajectory_values(ds, model.geometry, config.variables)
    if len(times) < 2:
        raise DataError(
            f"expected trajectories of at least two times; came {len(times)}.",
            "Give a file with a time dimension, such as `pdeforecast generate` writes.",
        )
    static_points, statics = points[:0], torch.zeros(1, 0, 0)
    if config.statics:
        _, static_points, fields = trajectory_values(
            ds[list(config.statics)], model.geometry, config.statics
        )
        statics = fields[:, 0].double()
    return Trajectories(tuple(times), points, values, static_points, statics)


def fields_of(ds: xr.Dataset) -> tuple[dict[str, str], dict[str, str]]:
    """Evolving variables and static fields of `ds`, with their units."""
    evolving, static = {}, {}
    for name, array in ds.data_vars.items():
        if array.dtype.kind != "f" or str(name).endswith("_variance"):
            continue
        kind = evolving if {"time", "lead_time"} & set(array.dims) else static
        kind[str(name)] = str(array.attrs.get("units", "1"))
    if not evolving:
        raise DataError(
            "expected a variable with a time dimension to learn; there is none.",
            "Give trajectories such as `pdeforecast generate` writes.",
        )
    return evolving, static


def go(progress: Progress, data: Trajectories, folder: Path, budget: float) -> Iterator[Report]:
    """Trains, keeping the run in `folder`; yields every report of `training.train`.

    Args:
        budget: seconds for the whole run, from which the number of steps is planned once, after a
            few steps have been timed; 0 for the steps of the configuration.

    Raises:
        UsageError: if another process trains in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if not (folder / "run.json").exists():
            stored = {"model": to_dict(progress.model.config), "training": asdict(progress.config)}
            (folder / "run.json").write_text(json.dumps(stored, indent=1))
        before = progress.model.card.get("seconds", 0.0)
        start = saved = time.monotonic()
        planned = budget == 0 or progress.model.card.get("planned", False)
        marks: dict[int, float] = {}
        with open(folder / "log.csv", "a", buffering=1) as log:
            for report in train(progress, data):
                now = time.monotonic()
                log.write(f"{report.phase},{report.step},{report.horizon},{report.loss:.6g},{now - start:.1f}\n")
                if report.phase == "dynamics" and not planned:
                    marks[report.step] = now
                    if report.step == _MEASURED_STEPS:
                        first = (now - marks[_MEASURED_STEPS // 2]) / (_MEASURED_STEPS - _MEASURED_STEPS // 2)
                        left = budget - (now - start)
                        progress.config = progress.config.within(left, first, len(data.times) - 1)
                        progress.model.card["planned"] = planned = True
                if now - saved > _SAVE_EVERY:
                    _save(progress, data, folder, before + now - start)
                    saved = time.monotonic()
                yield report
        _save(progress, data, folder, before + time.monotonic() - start)


def _save(progress: Progress, data: Trajectories, folder: Path, seconds: float) -> None:
    card = progress.model.card
    card["horizon"] = data.times[-1] - data.times[0]
    card["training"] = {**asdict(progress.config), "phase": progress.phase, "step": progress.step}
    card["seconds"] = round(seconds, 1)
    metadata = {
        "format": _FORMAT,
        "phase": progress.phase,
        "step": str(progress.step),
        "training": json.dumps(asdict(progress.config)),
        "card": json.dumps(card),
    }
    write_tensors(progress.state(), metadata, folder / "progress.safetensors")
    with progress.averaged() as model:
        save(model, folder / "model.safetensors")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"expected {folder} to be free; another process trains in it.",
                "Wait for it, or give another folder.",
            ) from error
        yield
