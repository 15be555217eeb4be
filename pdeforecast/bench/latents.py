"""`bench latents`: how states are best encoded, and by how many latents.

The first frames of unseen states, from all and from 5 % of their points, are encoded by

    learned         the model's own encoder: one preconditioned step, or its few meta-learned ones
    k steps         a meta-learned encoder that is asked for k steps instead
    least squares   the contexts of least error at the observed points, without a prior (linear fields)
    auto-decoding   k steps of L-BFGS down the error at the observed points, from the encoder's start

and are scored on all points. With a file of trajectories, fields of fewer and of more latents learn to encode
from it, in otherwise the model's configuration.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from pdeforecast import checkpoint, run
from pdeforecast.bench.methods import Method
from pdeforecast.bench.pictures import picture, save, trends
from pdeforecast.bench.sparse import gaps
from pdeforecast.bench.study import Study, forecaster_of, state_of
from pdeforecast.bench.table import Case, Row, groups, markdown, number, over_seeds
from pdeforecast.encoder import MetaSGD
from pdeforecast.errors import ForecastError, UsageError
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField
from pdeforecast.metrics import mse, relative_l2
from pdeforecast.presets import Preset
from pdeforecast.training import TrainingConfig
from pdeforecast.trajectory import Samples, open_dataset, samples

SHARES = (1.0, 0.05)
STEPS = (1, 3, 10, 40)
SIZES = (0.25, 1.0, 4.0)
"""Numbers of latents, in units of the model's."""
MOST_CONTEXTS = 4096
"""Contexts per variable for which least squares are solved."""
KEYS = ("equation", "variable", "method", "latents", "share", "encoder", "steps")
NUMBERS = ("mse", "l2", "cpu_seconds")

Encode = Callable[[Samples], Latents]


def cases(study: Study) -> list[Case]:
    """One for every model, seed and share; and for every number of latents."""
    made = []
    for share in SHARES:

        def measure(method: Method, seed: int, share: float = share) -> list[Row]:
            return encoded(forecaster_of(method), state_of(study.truth(seed)), share, seed)

        made += study.cases(measure, size="its own", share=share)
    for size in SIZES if study.train is not None else ():

        def sized(method: Method, seed: int, size: float = size) -> list[Row]:
            model = resized(forecaster_of(method), size, study)
            state = state_of(study.truth(seed))
            return [
                {**row, "share": share}
                for share in SHARES
                for row in scores(
                    model, state, share, seed, {("learned anew", _own_steps(model)): _learned(model)}
                )
            ]

        made += study.cases(sized, size=f"times {size:g}")
    return made


def encoded(model: Forecaster, state: xr.Dataset, share: float, seed: int) -> list[Row]:
    """The errors of every way to encode."""
    ways: dict[tuple[str, int], Encode] = {("learned", _own_steps(model)): _learned(model)}
    if isinstance(model.encoder, MetaSGD):
        ways |= {("learned, k steps", k): _stepped(model, k) for k in STEPS}
    elif isinstance(model.field, LinearField) and _contexts(model) <= MOST_CONTEXTS:
        ways[("least squares", 1)] = _least_squares(model)
    ways |= {("auto-decoding", k): _descended(model, k) for k in STEPS}
    return scores(model, state, share, seed, ways)


def scores(
    model: Forecaster, state: xr.Dataset, share: float, seed: int, ways: dict[tuple[str, int], Encode]
) -> list[Row]:
    """A row for every way and variable."""
    names = list(model.config.variables)
    full = samples(state, model.geometry, model.config.variables)
    seen = samples(gaps(state, names, share, seed), model.geometry, model.config.variables)
    rows: list[Row] = []
    for (encoder, steps), encode in ways.items():
        begun = time.process_time()
        latents = encode(seen)
        spent = time.process_time() - begun
        with torch.no_grad():
            shown = model.decode(full.points, [latents])[:, 0].double().cpu()
        for v, name in enumerate(names):
            f, t = shown[..., v], full.values[..., v].double()
            errors = {"mse": mse(f, t), "l2": relative_l2(f, t, full.measure)}
            row: Row = {
                "variable": name,
                "latents": model.config.field.latents,
                "encoder": encoder,
                "steps": steps,
            }
            rows.append({**row, **{k: float(e.mean()) for k, e in errors.items()}, "cpu_seconds": spent})
    return rows


# --- ways to encode ------------------------------------------------------------------------------


def _contexts(model: Forecaster) -> int:
    """Numbers per variable of a state's latents."""
    return model.config.field.latents * model.field.context_dim // len(model.config.variables)


def _own_steps(model: Forecaster) -> int:
    return model.encoder.steps if isinstance(model.encoder, MetaSGD) else 1


def _learned(model: Forecaster) -> Encode:
    def encode(seen: Samples) -> Latents:
        with torch.no_grad():
            return model.encode(seen.points, seen.values, seen.variance, seen.measure)

    return encode


def _stepped(model: Forecaster, steps: int) -> Encode:
    @contextmanager
    def asked() -> Iterator[None]:
        assert isinstance(model.encoder, MetaSGD)
        own, model.encoder.steps = model.encoder.steps, steps
        try:
            yield
        finally:
            model.encoder.steps = own

    def encode(seen: Samples) -> Latents:
        with asked():
            return _learned(model)(seen)

    return encode


def _least_squares(model: Forecaster) -> Encode:
    """Of least norm where there are fewer points than contexts."""

    @torch.no_grad()
    def encode(seen: Samples) -> Latents:
        field = model.field
        assert isinstance(field, LinearField)
        start, values = _start(model, seen), _normal(model, seen)
        poses, windows = start.poses.double(), start.windows.double()
        design = field.design(seen.points.to(poses), poses, windows).to_dense()
        contexts = values.new_zeros(len(values), len(poses), field.channels, field.functions)
        for s in range(len(values)):
            for v in range(field.channels):
                known = ~values[s, :, v].isnan()
                root = seen.measure.to(values)[known].sqrt()
                solution = torch.linalg.lstsq(
                    root[:, None] * design[known],
                    (root * values[s, known, v])[:, None],
                    rcond=1e-10,
                    driver="gelsd",
                ).solution
                contexts[s, :, v] = solution.view(len(poses), -1)
        return replace(start, contexts=contexts.flatten(2).to(start.contexts))

    return encode


def _descended(model: Forecaster, steps: int) -> Encode:
    """L-BFGS in the contexts, all states at once; poses stay on the lattice."""

    def encode(seen: Samples) -> Latents:
        start, values = _start(model, seen), _normal(model, seen)
        contexts = start.contexts.double().clone().requires_grad_(True)
        field, known = model.field.double(), ~values.isnan()
        weight = seen.measure.to(values)[:, None] * known / known.sum((1, 2), keepdim=True)
        points = seen.points.to(values)
        at = start.map(torch.Tensor.double)
        exactly: Any = {"max_iter": steps, "tolerance_grad": 0.0, "tolerance_change": 0.0}
        optimiser = torch.optim.LBFGS([contexts], history_size=20, line_search_fn="strong_wolfe", **exactly)

        def loss() -> Tensor:
            shown = field(points, replace(at, contexts=contexts))
            total: Tensor = (weight * (shown - values.nan_to_num()).square()).sum()
            contexts.grad = torch.autograd.grad(total, contexts)[0].contiguous()
            return total

        optimiser.step(loss)
        field.to(model.mean.dtype)
        return replace(start, contexts=contexts.detach().to(start.contexts))

    return encode


def _start(model: Forecaster, seen: Samples) -> Latents:
    """What the encoder makes of states of which nothing is seen: where it starts from."""
    nothing = torch.full_like(seen.values, torch.nan)
    with torch.no_grad():
        start = model.encode(seen.points, nothing)
    return replace(start, contexts=start.contexts.expand(len(seen.values), -1, -1))


def _normal(model: Forecaster, seen: Samples) -> Tensor:
    return (seen.values.to(model.mean).double() - model.mean.double()) / model.scale.double()


# --- numbers of latents --------------------------------------------------------------------------


def resized(model: Forecaster, size: float, study: Study) -> Forecaster:
    """A model like `model` of another number of latents, whose field has learned to encode."""
    assert study.train is not None
    config = model.config
    known = model.card.get("training", {})
    own = {key: value for key, value in known.items() if key in TrainingConfig.__dataclass_fields__}
    training = replace(TrainingConfig(**own), dynamics_steps=0, joint_steps=0)
    count = round(size * config.field.latents)
    preset = Preset(replace(config.field, latents=count), config.dynamics, training, 0)
    folder = study.folder / "runs" / picture(Path(), "latents", study.equation, count).stem
    try:
        ds, space = open_dataset(study.train), GEOMETRIES[config.geometry]
        begun = (folder / "run.json").exists()
        progress = run.resume(folder) if begun else run.begin(folder, ds, space, preset, {})
        progress.to(study.device)
        for _ in run.go(progress, run.trajectories(ds, progress.model), folder, 0.0):
            pass
        return checkpoint.load(folder, study.device)
    except ForecastError as error:
        raise UsageError(f"{count} latents: {error.cause}", error.cure) from error


# --- to read -------------------------------------------------------------------------------------


def page(rows: Sequence[Row]) -> str:
    """The table, mean and spread over seeds."""
    return markdown(over_seeds(rows, KEYS, NUMBERS), [*KEYS, "seeds", *NUMBERS])


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Error against CPU time, a picture for each equation and variable."""
    made = []
    for group in groups(rows, ("equation", "variable")):
        labelled = [{**row, "label": _label(row)} for row in group]
        figure = trends(
            labelled, "cpu_seconds", "l2", ("label",), "CPU seconds", "relative $L_2$ of the reconstruction"
        )
        if figure is not None:
            path = picture(folder, "latents", group[0]["equation"], group[0]["variable"])
            save(figure, path)
            made.append(path)
    return made


def _label(row: Row) -> str:
    share = number(row, "share")
    return f"{row['method']}, {row['latents']} latents, {share:.0%}, {row['encoder']}"
