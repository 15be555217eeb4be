"""A training run: a folder that survives interruptions.

run.json                what was asked for, and the grid on which states are remembered, if they are
progress.safetensors    everything a resumed run needs
model.safetensors       the averaged model so far: usable at any time
log.csv                 a row per step: phase, step, frames rolled through, loss, seconds
"""

import fcntl
import json
import math
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from pdeforecast import parallel
from pdeforecast.calibration import usual_in_training
from pdeforecast.checkpoint import (
    load,
    read_plain,
    read_tensors,
    save,
    shipped,
    write_plain,
    write_tensors,
)
from pdeforecast.config import (
    DynamicsConfig,
    ForecasterConfig,
    KernelDynamicsConfig,
    LinearFieldConfig,
    from_dict,
    override,
    to_dict,
)
from pdeforecast.errors import CheckpointError, DataError, DivergedError, UsageError
from pdeforecast.familiarity import CARD
from pdeforecast.forecaster import Forecaster, static_samples
from pdeforecast.generation.refinement import CELLS
from pdeforecast.geometry import Geometry
from pdeforecast.kernel_dynamics import KernelDynamics, waves_on
from pdeforecast.presets import Preset
from pdeforecast.replacing import replacing
from pdeforecast.training import PHASES, Progress, Report, TrainingConfig, Trajectories, train
from pdeforecast.trajectory import (
    axes_of,
    is_grid,
    measure,
    stream,
    times_of,
    trajectory_values,
    unit_of_times,
)
from pdeforecast.trust import TrustWarning

_FORMAT = "pdeforecast-run/1"
_IN_MEMORY = 2**32
"""Bytes of trajectories that are read at once; larger ones are read from their file while training."""
_HEAD = "phase,step,frames,loss,seconds\n"
"""The first line of log.csv."""
_SAVE_EVERY = 60.0
_MEASURED_STEPS = 20
_RECENT = 100
"""Losses of which the median is taken; a quarter of them is enough."""
_FAR = 30
_PATIENCE = 10
"""Steps above `_FAR` medians after which training is said to diverge."""
_GENTLE = 0.1
"""The learning rates of fine-tuning, in units of those of training."""
_PLAN_EVERY = 60.0


@dataclass(frozen=True)
class Settings:
    """What `--set` reaches: `field.…`, `dynamics.…` and `training.…`."""

    field: Any
    dynamics: Any
    training: TrainingConfig


def begin(
    folder: Path,
    ds: xr.Dataset,
    geometry: Geometry,
    preset: Preset,
    settings: Mapping[str, str],
    init_from: str | None = None,
) -> Progress:
    """A new run in `folder` on the trajectories `ds`, from random weights or from those of a model.

    Raises:
        UsageError: if the folder holds a run already, a setting is unknown or means nothing, or the model
            `init_from` is of another kind.
        DataError: if `ds` has nothing to learn.
        CheckpointError: if there is no such model.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"expected a folder; {folder} is a file.", "Give another folder with `-o`.")
    check_new(folder)
    variables, statics = fields_of(ds)
    if init_from is not None:
        return _continued(init_from, geometry, {**variables, **statics}, preset.training, settings)
    chosen = override(Settings(preset.field, preset.dynamics, preset.training), settings)
    times = times_of(ds)
    dynamics, grid = chosen.dynamics, None
    field = chosen.field
    if isinstance(dynamics, KernelDynamicsConfig):
        grid = _even_grid(ds, geometry)
        cells = int(ds.attrs.get(CELLS, 1))
        # What lies between the cells needs more latents, that hold more, and more modes.
        if cells > 1:
            field = replace(field, latents=field.latents * cells, degree=field.degree + 1)
        between = dynamics.between and cells > 1
        dynamics = replace(dynamics, cells=cells, between=between, modes=dynamics.modes * cells)
        dynamics = _remembering(dynamics, field, ds, grid)
    elif "dynamics.step" not in settings and len(times) > 1 and times[1] > times[0]:
        dynamics = replace(dynamics, step=times[1] - times[0])
    config = ForecasterConfig(
        geometry=geometry.name,
        variables=variables,
        statics=statics,
        time_unit=unit_of_times(ds, "1"),
        field=field,
        dynamics=dynamics,
    )
    try:
        model = _initial(config, chosen.training)
    except ValueError as error:
        raise UsageError(
            f"expected a model that can be built; {error}", "Mend that `--set`, or choose another preset."
        ) from error
    if grid and isinstance(model.dynamics, KernelDynamics):
        model.dynamics.lie_on(*grid)
    return Progress(model, chosen.training)


def check_new(folder: Path) -> None:
    """That `folder` holds no run.

    Raises:
        UsageError: if it does.
    """
    if (folder / "run.json").exists():
        raise UsageError(
            f"expected a new folder; {folder} holds a run.", "Add `--resume`, or give another folder."
        )


def _even_grid(ds: xr.Dataset, geometry: Geometry) -> tuple[Tensor, Tensor] | None:
    """Latitudes and longitudes of data on a grid of the sphere whose longitudes are even; else none."""
    if not is_grid(ds, geometry) or set(geometry.coordinates) != {"latitude", "longitude"}:
        return None
    axes = axes_of(ds, geometry)
    longitude = axes["longitude"]
    even = torch.allclose(longitude.diff(), longitude.new_tensor(360.0 / len(longitude)), rtol=0, atol=1e-4)
    return (axes["latitude"], longitude) if even else None


def _remembering(
    dynamics: KernelDynamicsConfig,
    field: LinearFieldConfig,
    ds: xr.Dataset,
    grid: tuple[Tensor, Tensor] | None,
) -> KernelDynamicsConfig:
    """Kernel dynamics that remember no more than there is, on the grid of the data if they have one.

    Raises:
        UsageError: if the frames are not evenly spaced, or too few.
    """
    times = times_of(ds)
    gaps = [b - a for a, b in pairwise(times)]
    frames = min(dynamics.frames or len(times), len(times))
    if frames < 2 or max(gaps) - min(gaps) > 1e-6 * max(gaps):
        raise UsageError(
            "expected two or more evenly spaced frames to remember; "
            f"came {frames}, {min(gaps, default=0):g} … {max(gaps, default=0):g} apart.",
            "Train a network, without `--preset memory`.",
        )
    # Without a grid, as many values as the latents hold numbers.
    rows = round(math.sqrt(field.latents * (field.degree + 1) ** 2 / 2))
    latitudes, longitudes = (len(axis) for axis in grid) if grid else (rows, 2 * rows)
    return replace(
        dynamics,
        trajectories=min(dynamics.trajectories, ds.sizes.get("sample", 1)),
        # What is between frames is told by the one after the last, too.
        frames=frames + dynamics.between,
        modes=min(dynamics.modes, len(fields_of(ds)[0]) * latitudes * waves_on(longitudes)),
        latitudes=latitudes,
        longitudes=longitudes,
    )


def _continued(
    init_from: str,
    geometry: Geometry,
    fields: Mapping[str, str],
    training: TrainingConfig,
    settings: Mapping[str, str],
) -> Progress:
    """A run that fine-tunes a model, in smaller steps than one that begins anew."""
    known = load(init_from)
    config = known.config
    steps = 0 if known.field.linear else training.field_steps
    rate = _GENTLE * training.learning_rate
    training = replace(
        training, learning_rate=rate, field_rate=_GENTLE * training.field_rate, field_steps=steps
    )
    chosen = override(Settings(config.field, config.dynamics, training), settings)
    sizes = config.dynamics
    if isinstance(sizes, DynamicsConfig):
        sizes = replace(sizes, step=chosen.dynamics.step)
    for what, own, other in (
        ("geometry", config.geometry, geometry.name),
        ("fields", ", ".join(sorted({**config.variables, **config.statics})), ", ".join(sorted(fields))),
        ("sizes of the field", config.field, chosen.field),
        ("sizes of the dynamics", sizes, chosen.dynamics),
    ):
        if own != other:
            raise UsageError(
                f"expected the {what} of {init_from}, {own}; came {other}.",
                "Train without `--init-from`, or give data and settings like the model's.",
            )
    if known.remembers or (known.linear is not None and known.linear.sufficient):
        raise UsageError(
            f"expected a model with a network to fine-tune; {init_from} was learned in closed form.",
            "Train anew without `--init-from`: that takes minutes.",
        )
    place = init_from if init_from in shipped() else str(Path(init_from).absolute())
    training = replace(chosen.training, init_from=place)
    progress = Progress(_initial(replace(config, dynamics=chosen.dynamics), training), training)
    progress.model.card["init_from"] = known.identity
    return progress


def _initial(config: ForecasterConfig, training: TrainingConfig) -> Forecaster:
    """The model before its first step: random weights that depend on the seed alone, or a model's."""
    torch.manual_seed(training.seed)
    model = Forecaster(config)
    if training.init_from:
        model.load_state_dict(load(training.init_from).state_dict())
    return model


def resume(folder: Path) -> Progress:
    """The run in `folder`, as it was last saved.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    try:
        stored = read_plain(folder / "run.json")
        config = TrainingConfig(**stored["training"])
        begun = (folder / "progress.safetensors").exists()
        model = _initial(from_dict(stored["model"]), replace(config, init_from="") if begun else config)
        if isinstance(model.dynamics, KernelDynamics):
            model.dynamics.lie_on(*(torch.tensor(axis, dtype=torch.float64) for axis in stored["grid"]))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"expected a run of this version in {folder}; its run.json does not fit ({error}).",
            "Begin a run in another folder without `--resume`, or install the version that began it.",
        ) from error
    progress = Progress(model, config, kept=folder)
    if (folder / "progress.safetensors").exists():
        tensors, metadata = read_tensors(folder / "progress.safetensors", _FORMAT)
        try:
            progress.config = TrainingConfig(**json.loads(metadata["training"]))
            model.card = json.loads(metadata["card"])
            progress.load(metadata["phase"], int(metadata["step"]), tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"expected the progress of the run in {folder}; it does not fit its run.json.",
                "Train anew in another folder, or with the version that began the run.",
            ) from error
    return progress


def budget_of(folder: Path) -> float:
    """The seconds that the run in `folder` was given; 0 for exactly the steps of its configuration."""
    return float(read_plain(folder / "run.json").get("budget", 0.0))


def trajectories(ds: xr.Dataset, model: Forecaster, between: xr.Dataset | None = None) -> Trajectories:
    """The training data of `model` in `ds`, and what they are `between` frames, where that is known."""
    config = model.config
    large = sum(ds[name].nbytes for name in config.variables if name in ds) > _IN_MEMORY
    times, points, values = (stream if large else trajectory_values)(ds, model.geometry, config.variables)
    if len(times) < 2:
        raise DataError(
            f"expected trajectories of at least two times; came {len(times)}.",
            "Give a file with a time dimension, such as `pdeforecast generate` writes.",
        )
    if any(after <= before for before, after in pairwise(times)):
        raise DataError(
            "expected times in ascending order, each once; these are not.",
            "Sort them: `ds = ds.sortby('time').drop_duplicates('time')`.",
        )
    static_points, statics, static_measure = points[:0], torch.zeros(1, 0, 0), torch.zeros(0)
    if config.statics:
        held = static_samples(ds, model.geometry, config.statics)
        static_points, statics, static_measure = held.points, held.values.double(), held.measure
    return Trajectories(
        tuple(times),
        points,
        measure(ds, model.geometry),
        values,
        static_points,
        static_measure,
        statics,
        None if between is None else trajectories(between, model),
    )


def fields_of(ds: xr.Dataset) -> tuple[dict[str, str], dict[str, str]]:
    """Evolving variables and static fields of `ds`, with their units."""
    evolving: dict[str, str] = {}
    static: dict[str, str] = {}
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

    Of several processes that train together the first one keeps the folder and decides what `budget` allows.

    Args:
        budget: seconds for the whole run, to which the number of steps is fitted while it goes on;
            0 for the steps of the configuration.

    Raises:
        UsageError: if another process trains in the folder, or has begun a run there meanwhile.
        DivergedError: as `train` does.
    """
    # What the folder held is by now known to all of them.
    parallel.wait()
    if parallel.rank() > 0:
        yield from _followed(progress, data, folder, budget)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _prepare(folder, progress, budget)
        before = progress.model.card.get("seconds", 0.0)
        start = saved = time.monotonic()
        planner = _Planner(progress, budget - before, len(data.times) - 1) if budget else None
        watch = _Watch(folder)
        with open(folder / "log.csv", "a", buffering=1) as log:
            for report in train(progress, data):
                now = time.monotonic()
                spent = before + now - start
                log.write(f"{report.phase},{report.step},{report.horizon},{report.loss:.8g},{spent:.1f}\n")
                if planner is not None:
                    planner.see(report, now - start)
                    progress.agree()
                watch.see(report)
                if now - saved > _SAVE_EVERY and not watch.above:
                    _save(progress, data, folder, spent)
                    saved = time.monotonic()
                yield report
        watch.finish()
        # What is usual may take as long to measure as all before, and may be stopped.
        _save(progress, data, folder, before + time.monotonic() - start)
        progress.model.card[CARD] = asdict(usual_in_training(progress.model, data))
        _save(progress, data, folder, before + time.monotonic() - start)


def _followed(progress: Progress, data: Trajectories, folder: Path, budget: float) -> Iterator[Report]:
    """What `go` is for the processes that write nothing: the steps of the first one."""
    watch = _Watch(folder)
    for report in train(progress, data):
        if budget:
            progress.agree()
        watch.see(report)
        yield report
    watch.finish()


class _Watch:
    """Tells a training that begins to diverge: its loss stays far above its recent median.

    Attributes:
        above: for how many steps it has done so; while it does, nothing is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.above = 0
        self.warned = False
        self.recent: deque[float] = deque(maxlen=_RECENT)
        self.phase = ""

    def see(self, report: Report) -> None:
        """`report` came; warns once."""
        if report.phase != self.phase:
            self.phase, self.above = report.phase, 0
            self.recent.clear()
        if len(self.recent) < _RECENT // 4 or report.loss <= _FAR * median(self.recent):
            self.recent.append(report.loss)
            self.above = 0
            return
        self.above += 1
        if self.above == _PATIENCE and not self.warned:
            self.warned = True
            text = (
                f"the loss of phase {report.phase} has been over {_FAR} times its recent median for "
                f"{_PATIENCE} steps, at step {report.step}: training diverges; nothing is saved meanwhile."
            )
            warnings.warn(f"{text}\n{self._cure()}", TrustWarning, stacklevel=2)

    def finish(self) -> None:
        """Training is over.

        Raises:
            DivergedError: if the loss was far above its median to the end.
        """
        if self.above >= _PATIENCE:
            raise DivergedError(
                f"the loss of phase {self.phase} ended over {_FAR} times its median.", self._cure()
            )

    def _cure(self) -> str:
        if (self.folder / "model.safetensors").exists():
            return (
                f"The last good model is kept: begin in another folder with `--init-from {self.folder} "
                "--set training.learning_rate=…`, a smaller one."
            )
        return "Train anew in smaller steps: `--set training.learning_rate=…`."


class _Planner:
    """Keeps the number of steps to the budget: plans it from the first steps of the dynamics phase, and
    again every minute from what the steps since then took, since machines and horizons differ."""

    def __init__(self, progress: Progress, budget: float, longest: int) -> None:
        self.progress = progress
        self.budget = budget
        self.longest = longest
        self.since: float | None = None
        self.frames = 0

    def see(self, report: Report, seconds: float) -> None:
        """`report` came after `seconds` of this process."""
        if report.phase != "dynamics":
            return
        if self.since is None:
            self.since = seconds
            return
        config, card = self.progress.config, self.progress.model.card
        self.frames += report.horizon * config.trajectories(report.horizon)
        elapsed = seconds - self.since
        first = not card.get("planned", False) and report.step >= _MEASURED_STEPS
        if first or elapsed > _PLAN_EVERY:
            left = self.budget - seconds
            if first and left <= 0:
                text = (
                    f"the prior and the encoding of the frames took {self.since:.0f} s, all of the budget of "
                    f"{self.budget:.0f} s: the dynamics have learned for {report.step} steps alone."
                )
                cure = "Give a larger `--budget`, fewer trajectories, or `--set training.copies=1`."
                warnings.warn(f"{text}\n{cure}", TrustWarning, stacklevel=2)
            self.progress.config = config.within(left, elapsed / self.frames, self.longest, report.step)
            card["planned"] = True
            self.since, self.frames = seconds, 0


def _prepare(folder: Path, progress: Progress, budget: float) -> None:
    """Writes run.json once, and brings the folder to where `progress` stands."""
    if progress.kept != folder:
        check_new(folder)
        asked = {
            "model": to_dict(progress.model.config),
            "training": asdict(progress.config),
            "budget": budget,
        }
        if isinstance(dynamics := progress.model.dynamics, KernelDynamics):
            asked["grid"] = [dynamics.latitude.tolist(), dynamics.longitude.tolist()]
        write_plain(asked, folder / "run.json")
        progress.kept = folder
    log = folder / "log.csv"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    done = (PHASES.index(progress.phase), progress.step)
    kept = [line for line in lines if _place(line) <= done]
    with replacing(log) as beside:
        beside.write_text("".join([_HEAD, *kept]))


def _place(line: str) -> tuple[float, float]:
    """The phase and the step of a line of log.csv; beyond all others if it is the first, or was cut short."""
    words = line.split(",")
    if len(words) != 5 or not line.endswith("\n") or words[0] not in PHASES:
        return math.inf, math.inf
    return PHASES.index(words[0]), int(words[1])


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
        except BlockingIOError as error:
            raise UsageError(
                f"expected {folder} to be free; another process trains in it.",
                "Wait for it, or give another folder.",
            ) from error
        yield
