"""Every forecaster behind one interface: ours, and the baselines that it is measured against.

    for report in fit("functa", trajectories, folder, budget=1200): …
    load(folder).forecast(state, lead_time=[0, 1, 2.5])

A trained method is one of `KINDS`, learned by `fit` and read by `load`; those that need no training take
trajectories or an equation (`untrained`).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import xarray as xr

from pdeforecast import checkpoint, run
from pdeforecast.bench import fno, implicit, spherical
from pdeforecast.bench.contract import Layout, attributes, layout_of
from pdeforecast.bench.kriging import Filling
from pdeforecast.bench.simple import KrigedSolution, Persistence, climatology
from pdeforecast.bench.stepping import Stepped, Stepper, SteppingSettings, frames_of
from pdeforecast.bench.training import FILE, Learner, Report, Run, Settings, go, stored, with_settings
from pdeforecast.errors import CheckpointError, UsageError, nearest
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import GEOMETRIES, SPACES, Geometry
from pdeforecast.pdes import PDE
from pdeforecast.presets import PRESETS
from pdeforecast.training import Progress, train
from pdeforecast.trajectory import geometry_of

_OURS = {
    "model": ("", "default"),
    "without-symmetry": ("_without_symmetry", "default"),
    "published": ("", "paper"),
}
"""What is added to the name of the geometry, and the preset, as `pdeforecast train` takes them."""
_TRIAL = 10
"""Steps by which the plan of a meta-learned field is made; it gets half of the budget."""
_FLAT = ("periodic_plane", "plane", "cylinder")
_ROUND = ("sphere", "rotating_sphere")


class Method(Protocol):
    """Whatever forecasts as a `Forecaster` does."""

    @property
    def name(self) -> str: ...

    def forecast(
        self,
        state: xr.Dataset,
        lead_time: Sequence[float],
        grid: Mapping[str, int] | None = None,
        like: xr.Dataset | None = None,
    ) -> xr.Dataset:
        """The forecast over (sample, lead_time, *grid) or (sample, lead_time, point).

        Args and errors are those of `Forecaster.forecast`.
        """
        ...


@dataclass(frozen=True)
class Model:
    """A Forecaster under a name.

    Attributes:
        name: as it was asked for.
        model: the Forecaster.
    """

    name: str
    model: Forecaster

    @property
    def card(self) -> Mapping[str, Any]:
        """What is known of its training."""
        return self.model.card

    @property
    def identity(self) -> str:
        """Its name and hash."""
        return self.model.identity

    def forecast(
        self,
        state: xr.Dataset,
        lead_time: Sequence[float],
        grid: Mapping[str, int] | None = None,
        like: xr.Dataset | None = None,
    ) -> xr.Dataset:
        """As `Forecaster.forecast`."""
        return self.model.forecast(state, lead_time, grid, like)


@dataclass(frozen=True)
class Family:
    """How one kind is built, fed and used.

    Attributes:
        serves: the domains it can be trained on.
        default: its settings for a layout.
        build: the learner, for settings, a layout and the number of training states.
        data: training data as the learner takes it.
        method: the learner of a run as a method, under a name and with an identity.
    """

    serves: tuple[str, ...]
    default: Callable[[Layout], Any]
    build: Callable[[Any, Layout, int], Learner]
    data: Callable[[xr.Dataset, Layout, str], Any]
    method: Callable[[Run, str, str], Method]


def _stepped(run: Run, name: str, identity: str) -> Method:
    assert isinstance(run.learner, Stepper)
    filling = Filling.built(run.layout, run.known)
    return Stepped(name, run.learner, filling, run.kind == "fno", identity, run.card)


def _steppers(
    serves: tuple[str, ...],
    default: Callable[[Layout], SteppingSettings],
    build: Callable[[Any, Layout], Stepper],
) -> Family:
    return Family(serves, default, lambda config, layout, _: build(config, layout), frames_of, _stepped)


def _latent_field(run: Run, name: str, identity: str) -> Method:
    assert isinstance(run.learner, implicit.Implicit)
    return implicit.LatentFields(name, run.learner, run.layout, identity, run.card)


def _field(settings: implicit.ImplicitSettings) -> Family:
    return Family(
        tuple(space.domain for space in SPACES),
        lambda _: settings,
        implicit.Implicit,
        implicit.clouds_of,
        _latent_field,
    )


FAMILIES: dict[str, Family] = {
    "fno": _steppers(_FLAT, fno.default, fno.build),
    "spherical": _steppers(_ROUND, lambda _: spherical.SphericalSettings(), spherical.build),
    **{kind: _field(settings) for kind, settings in implicit.VARIANTS.items()},
}


KINDS = (*_OURS, *FAMILIES)
"""What `fit` can train: this package's model, with symmetry, without it and as published; neural operators on
the torus and plane, and on the sphere; neural fields with a latent ODE."""


def kinds_on(geometry: Geometry) -> tuple[str, ...]:
    """Those of `KINDS` that can be trained on a geometry."""
    return tuple(kind for kind in KINDS if kind in _OURS or geometry.domain in FAMILIES[kind].serves)


def fit(
    kind: str,
    ds: xr.Dataset,
    folder: Path,
    budget: float,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Iterator[Report]:
    """Trains a method on trajectories, in a folder; goes on with the run that it holds, if there is one.

    Args:
        kind: one of `KINDS`.
        ds: trajectories.
        budget: seconds of CPU time for the whole run; of wall-clock time on a GPU and for this package's
            models.
        seed: of the weights and of the batches.
        settings: other values of the kind's settings, by their names; `steps` asks for exactly so many.
            Those of this package's models are what `pdeforecast train --set` takes, and `preset`.

    Raises:
        UsageError: if the kind is unknown, does not serve the geometry or lacks a library, or the folder
            holds another run.
        CheckpointError: if the run in the folder is damaged.
        DataError: if there is nothing to learn.
        DivergedError: if the loss leaves the finite numbers.
    """
    space = geometry_of(ds)
    if kind not in kinds_on(space):
        near = nearest(kind, kinds_on(space))
        raise UsageError(
            f"expected a method among {', '.join(kinds_on(space))} on the {space.name}; came {kind!r}.",
            f"Type `{near or 'functa'}`.",
        )
    if kind in _OURS:
        return _fit_ours(kind, ds, folder, budget, seed, dict(settings or {}), device)
    family = FAMILIES[kind]
    if (folder / FILE).exists():
        training, _ = _restored(folder)
        _check_same(training, kind, layout_of(ds), seed, folder)
        training.budget = budget
    else:
        training = _begun(kind, ds, budget, seed, settings or {})
    data = family.data(ds, training.layout, device)
    if training.step == 0:
        training.learner.calibrate(data)
    training.to(device)
    return go(training, data, folder)


def _begun(kind: str, ds: xr.Dataset, budget: float, seed: int, settings: Mapping[str, Any]) -> Run:
    layout, family = layout_of(ds), FAMILIES[kind]
    config: Settings = with_settings(family.default(layout), settings)
    known = Filling.learned(ds, layout).tensors() if isinstance(config, SteppingSettings) else {}
    states = ds.sizes.get("sample", 1) * ds.sizes.get("time", ds.sizes.get("lead_time", 1))
    card = {
        "kind": kind,
        "settings": {name: str(value) for name, value in settings.items()},
        "data": attributes(ds),
        "samples": ds.sizes.get("sample", 1),
        "states": states,
        "horizon": layout.horizon,
    }
    learner = _built(kind, config, layout, states, seed)
    return Run(kind, config, layout, seed, budget, learner, card, known=known)


def _built(kind: str, config: Settings, layout: Layout, states: int, seed: int) -> Learner:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FAMILIES[kind].build(config, layout, states)


def _restored(folder: Path) -> tuple[Run, str]:
    """The run in a folder, and its hash."""
    said, tensors, seal = stored(folder)
    try:
        kind, layout = said["kind"], said["layout"]
        config = with_settings(FAMILIES[kind].default(layout), said.pop("config"))
        learner = _built(kind, config, layout, said["card"]["states"], said["seed"])
        known = {name.removeprefix("known."): t for name, t in tensors.items() if name.startswith("known.")}
        training = Run(config=config, learner=learner, known=known, **said)
        training.restore(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"expected a baseline of this version in {folder}; it does not fit ({error}).", "Train it again."
        ) from error
    return training, seal


def _check_same(training: Run, kind: str, layout: Layout, seed: int, folder: Path) -> None:
    """Refuse to go on with another run than the one that is asked for."""
    for what, is_there, asked in (
        ("method", training.kind, kind),
        ("seed", training.seed, seed),
        ("training data", training.layout.plain(), layout.plain()),
    ):
        if is_there != asked:
            detail = "" if what == "training data" else f", {is_there}"
            raise UsageError(
                f"expected {folder} to hold a run of the same {what}; it holds another{detail}.",
                "Give another folder.",
            )


def load(folder: Path, device: str = "cpu") -> Method:
    """The method that `fit`, or `pdeforecast train`, has trained in a folder, by whose name it goes.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    folder = Path(folder)
    if not (folder / FILE).exists():
        return Model(folder.name, checkpoint.load(folder, device))
    training, seal = _restored(folder)
    training.learner.to(device).eval()
    return FAMILIES[training.kind].method(training, folder.name, f"{folder.name}@{seal[:12]}")


def untrained(training: xr.Dataset, pde: PDE | None = None) -> dict[str, Method]:
    """Persistence, climatology, and, given the equation, kriging with its own solver, by name.

    Args:
        training: trajectories on a full grid, from which the mean and the covariance are taken.

    Raises:
        DataError: if they are not on one, or have gaps.
    """
    filling = Filling.learned(training, layout_of(training))
    found: list[Method] = [Persistence(filling), climatology(training)]
    if pde is not None:
        found.append(KrigedSolution(filling, pde))
    return {method.name: method for method in found}


def _fit_ours(
    kind: str, ds: xr.Dataset, folder: Path, budget: float, seed: int, settings: dict[str, Any], device: str
) -> Iterator[Report]:
    """This package's model: `pdeforecast train DATA.nc -o folder --geometry … --preset …`."""
    suffix, named = _OURS[kind]
    preset = PRESETS[settings.pop("preset", named)]
    geometry = GEOMETRIES[geometry_of(ds).name + suffix]
    if (folder / "run.json").exists():
        progress = run.resume(folder)
    else:
        chosen = {"training.seed": str(seed), **{key: str(value) for key, value in settings.items()}}
        progress = run.begin(folder, ds, geometry, preset, chosen)
        if budget and not progress.model.field.linear and "training.field_steps" not in chosen:
            chosen["training.field_steps"] = str(_field_steps(progress, ds, 0.5 * budget, device))
            progress = run.begin(folder, ds, geometry, preset, chosen)
    progress.model.card["data"] = attributes(ds)
    progress.to(device)
    return _reported(progress, run.go(progress, run.trajectories(ds, progress.model), folder, budget))


def _field_steps(progress: Progress, ds: xr.Dataset, seconds: float, device: str) -> int:
    """How many steps of a meta-learned field fit into some seconds, by a trial that spoils `progress`."""
    progress.to(device)
    reports = train(progress, run.trajectories(ds, progress.model))
    next(reports)
    start = time.monotonic()
    for _, _ in zip(range(_TRIAL), reports, strict=False):
        pass
    return max(1, int(seconds * _TRIAL / (time.monotonic() - start)))


def _reported(progress: Progress, reports: Iterator[Any]) -> Iterator[Report]:
    """Reports as those of baselines."""
    start = time.monotonic() - progress.model.card.get("seconds", 0.0)
    for report in reports:
        yield Report(report.step, report.steps, report.loss, time.monotonic() - start)
