"""`train`: a model from trajectories."""

import argparse
import math
import os
import time
from typing import Any

import xarray as xr

from pdeforecast import defaults, logs, parallel, run
from pdeforecast.between_frames import nodes
from pdeforecast.cli.arguments import device_of, one_of, pairs, provenance_of
from pdeforecast.config import KernelDynamicsConfig, override
from pdeforecast.errors import UsageError
from pdeforecast.generation.refinement import equation_of_means, refined, refined_dataset
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.presets import PRESETS, Preset
from pdeforecast.training import Progress, Trajectories
from pdeforecast.trajectory import geometry_of, grid_dims, open_dataset, save_dataset

REFINED = "refined.nc"
"""In the folder of a run: what its training data are between their cells."""
BETWEEN = "between.nc"
"""Likewise: what they are there between their frames."""


def train(options: argparse.Namespace) -> None:
    """A run, begun or resumed, by one process or several."""
    with parallel.together(device_of(options)):
        _trained(options)


def _trained(options: argparse.Namespace) -> None:
    """The training of one process."""
    board = logs.TensorBoard(options.output / "tensorboard") if options.tensorboard else None
    first, start = parallel.rank() == 0, time.monotonic()
    if options.resume:
        progress, budget = _resumed(options)
        ds, between = _to_learn(options, progress.model.config.dynamics, first)
    else:
        run.check_new(options.output)
        ds, between = _to_learn(options, _dynamics(options), first)
        progress, budget = _begun(options, ds)
    refined_in = time.monotonic() - start
    data = run.trajectories(ds, progress.model, between)
    if not options.resume:
        progress, lines = _fitted(options, ds, progress, data, budget)
        if first:
            print("\n".join(lines), flush=True)
    device = device_of(options)
    source = {**_plain(ds.attrs), "samples": ds.sizes.get("sample", 1)}
    grid = {name: ds.sizes[name] for name in grid_dims(progress.model.geometry) if name in ds.sizes}
    card = progress.model.card
    begun = {"command": card["command"]} if options.resume and "command" in card else {}
    # What was refined is part of what training costs.
    card.setdefault("seconds", refined_in)
    card.update({"data": source, "grid": grid, "device": device, **provenance_of(options), **begun})
    progress.to(device)
    with logs.bar(unit="step", disable=not first) as bar:
        average = math.nan
        for report in run.go(progress, data, options.output, budget):
            average = (
                report.loss
                if report.step == 1 or math.isnan(average)
                else 0.98 * average + 0.02 * report.loss
            )
            bar.total = report.steps
            bar.set_description(report.phase, refresh=False)
            bar.set_postfix(loss=f"{average:.3g}", horizon=report.horizon, refresh=False)
            bar.update(report.step - bar.n)
            if board is not None and first:
                board.see(report)
    if board is not None:
        board.close()
    if first:
        for made in (REFINED, BETWEEN):
            (options.output / made).unlink(missing_ok=True)
        print(f"trained: {options.output / 'model.safetensors'}")


def _to_learn(
    options: argparse.Namespace, dynamics: Any, first: bool
) -> tuple[xr.Dataset, xr.Dataset | None]:
    """The training data; for a model that remembers means over cells, as they are between these, and what
    they are between their frames.

    What was refined is kept in the folder of the run until that ends.
    """
    ds = open_dataset(options.data)
    if not isinstance(dynamics, KernelDynamicsConfig) or dynamics.cells == 1:
        return ds, None
    pde = equation_of_means(ds)
    if pde is None and dynamics.cells == 0:
        return ds, None
    held = 1 if pde is None else getattr(pde, "coarsen", 1)
    if pde is None or dynamics.cells not in (0, held):
        raise UsageError(
            f"expected data that are means over cells of {dynamics.cells} × {dynamics.cells} nodes of the "
            f"equation that they name, without gaps; came {held} × {held}.",
            f"Type `--set dynamics.cells={held}`.",
        )
    kept, inner = options.output / REFINED, options.output / BETWEEN
    places = nodes() if dynamics.between else []
    # What another run left is of other data.
    if first and not (options.resume and kept.exists() and (inner.exists() or not places)):
        some = ds.isel(sample=slice(dynamics.trajectories)) if "sample" in ds.dims else ds
        made = []
        with logs.bar(total=some.sizes.get("sample", 1), unit="trajectory", desc="refining") as bar:
            for values in refined(some, pde, os.cpu_count() or 1, places):
                made.append(values)
                bar.update()
        frames, between = zip(*made, strict=True)
        options.output.mkdir(parents=True, exist_ok=True)
        save_dataset(refined_dataset(some, pde, frames), kept, overwrite=True)
        if places:
            save_dataset(refined_dataset(some, pde, between, places), inner, overwrite=True)
    parallel.wait()
    return open_dataset(kept), open_dataset(inner) if places else None


def _dynamics(options: argparse.Namespace) -> Any:
    """The dynamics that were asked for, of a model that begins anew."""
    if options.init_from is not None:
        return None
    preset = _preset(options)
    settings = run.Settings(preset.field, preset.dynamics, preset.training)
    return override(settings, pairs(options.set)).dynamics


def _preset(options: argparse.Namespace) -> Preset:
    return PRESETS[one_of(PRESETS, options.preset or "default", "preset")]


def _begun(options: argparse.Namespace, ds: xr.Dataset) -> tuple[Progress, float]:
    """A new run and its budget."""
    preset = _preset(options)
    return _new(options, ds, {}), preset.budget if options.budget is None else options.budget


def _new(options: argparse.Namespace, ds: xr.Dataset, fitting: dict[str, str]) -> Progress:
    """A new run, with settings that fit its data where there are no others."""
    asked = options.geometry
    geometry = geometry_of(ds) if asked is None else GEOMETRIES[one_of(GEOMETRIES, asked, "geometry")]
    settings = {**fitting, "training.seed": str(options.seed), **pairs(options.set)}
    return run.begin(options.output, ds, geometry, _preset(options), settings, options.init_from)


def _fitted(
    options: argparse.Namespace, ds: xr.Dataset, progress: Progress, data: Trajectories, budget: float
) -> tuple[Progress, list[str]]:
    """A new run as its data suggest, unless a preset or a model was asked for, and what to say of it."""
    fit = None
    if options.preset is None and options.init_from is None:
        fit = defaults.lattice(progress, data, "field.latents" not in pairs(options.set))
        fitting = {"training.copies": str(defaults.motions(progress, data))}
        if fit is not None:
            fitting["field.latents"] = str(fit.latents)
        progress = _new(options, ds, fitting)
    return progress, defaults.told(progress, data, budget, fit)


def _resumed(options: argparse.Namespace) -> tuple[Progress, float]:
    """The run in the output folder and its budget, which no option changes."""
    for name in ("preset", "geometry", "budget", "set", "init-from"):
        if getattr(options, name.replace("-", "_")) not in (None, []):
            raise UsageError(
                f"expected `--resume` without `--{name}`; a run goes on as it was begun.",
                f"Leave out `--{name}`, or begin another run without `--resume`.",
            )
    return run.resume(options.output), run.budget_of(options.output)


def _plain(attrs: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): value.item() if hasattr(value, "item") else value for key, value in attrs.items()}
