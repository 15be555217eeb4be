"""`models`, `forecast`, `evaluate`, `plot` and `animate`: what a model is used for."""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

import xarray as xr

from pdeforecast import assimilation, checkpoint, logs, metrics, plot
from pdeforecast.cli.arguments import counting, device_of, provenance_of
from pdeforecast.cli.outputs import NETCDF, check_file
from pdeforecast.errors import UsageError
from pdeforecast.forecaster import Forecaster
from pdeforecast.pdes import PDES, make
from pdeforecast.replacing import replacing
from pdeforecast.trajectory import (
    check_output,
    grid_dims,
    open_dataset,
    read_stations,
    write,
)


def models(options: argparse.Namespace) -> None:
    """The list of shipped models."""
    for name, path in checkpoint.shipped().items():
        model = checkpoint.load(name)
        print(f"{name}  ({path.stat().st_size / 1e6:.1f} MB)")
        equation = model.card.get("data", {}).get("equation", "unknown equation")
        print(f"  {equation}: {', '.join(model.config.variables)} on {model.config.geometry}")
        for line in model.card.get("summary", []):
            print(f"  {line}")


def forecast(options: argparse.Namespace) -> None:
    """A forecast, written block by block."""
    read = (options.model, options.state, options.sensors, options.like, options.at)
    check_file(options.output, options.overwrite, read, (*NETCDF, ".zarr", ".csv"))
    check_output(options.output, options.overwrite)
    if options.state is None and options.sensors is None:
        raise UsageError(
            "the following arguments are required without --sensors: STATE.nc.",
            "Type `pdeforecast forecast MODEL STATE.nc -o OUT.nc --lead-time 0:19:1`.",
        )
    model = checkpoint.load(options.model, device_of(options))
    state = statics = None if options.state is None else open_dataset(options.state)
    if options.sensors is not None:
        own = [] if statics is not None else list(model.config.statics)
        state = read_stations(options.sensors, model.geometry, list(model.config.variables), own)
    assert state is not None
    fitting = options.assimilate or options.sensors is not None
    with (
        logs.bar(desc="fitting", unit="evaluation", disable=not fitting, leave=False) as bar,
        assimilation.watched(counting(bar)),
    ):
        places = _grid(options, model), _places(options, model)
        forecast = model.forecast(state, options.lead_time, *places, statics, fitting, lazy=True)
    with logs.bar(unit="B", unit_scale=True) as bar:
        write(forecast.assign_attrs(provenance_of(options)), options.output, options.overwrite, counting(bar))


def _grid(options: argparse.Namespace, model: Forecaster) -> dict[str, int] | None:
    """The size of each axis of the grid that is asked for."""
    if options.grid is None:
        return None
    dims = grid_dims(model.geometry)
    if len(options.grid) != len(dims):
        raise UsageError(
            f"expected a size for each of {', '.join(dims)}; came {'x'.join(map(str, options.grid))}.",
            f"Type `--grid {'x'.join(['128'] * len(dims))}`.",
        )
    return dict(zip(dims, options.grid, strict=True))


def _places(options: argparse.Namespace, model: Forecaster) -> xr.Dataset | None:
    """The file or table at whose points the forecast is asked for."""
    if options.at is not None:
        return read_stations(options.at, model.geometry, [])
    return None if options.like is None else open_dataset(options.like)


def evaluate(options: argparse.Namespace) -> None:
    """The score of a forecast: JSON, and a few numbers of it for the eye."""
    if options.train_frames < 0:
        raise UsageError(
            f"expected train frames ≥ 0; came {options.train_frames}.", "Type `--train-frames 10`."
        )
    if options.output is not None:
        read = (options.forecast, options.truth)
        check_file(options.output, options.overwrite, read, (".json",))
    score = metrics.score(open_dataset(options.forecast), open_dataset(options.truth), options.train_frames)
    text = json.dumps(_with_gaps(score), indent=1)
    table = "\n".join(_table(score))
    if options.output is None:
        print(text)
        print(table, file=sys.stderr)  # standard output is JSON and nothing else
    else:
        with replacing(options.output) as beside:
            beside.write_text(text + "\n")
        print(table)


def _table(score: Mapping[str, Any]) -> Iterator[str]:
    """The errors of a score, a line for each variable: means over samples, of all leads and of two."""
    leads = [row["lead_time"] for row in next(iter(score["variables"].values()))["per_lead"]]
    heads = ("relative L2", f"at {leads[0]:g}", f"at {leads[-1]:g}", "mse")
    width = max(map(len, ("variable", *score["variables"])))
    yield "  ".join(["variable".ljust(width), *(head.rjust(11) for head in heads)])
    for name, told in score["variables"].items():
        errors = [row["relative_l2"] for row in told["per_lead"]]
        squares = [row["mse"] for row in told["per_lead"]]
        numbers = (fmean(errors), errors[0], errors[-1], fmean(squares))
        yield "  ".join([name.ljust(width), *(f"{number:11.3g}" for number in numbers)])


def _with_gaps(score: Any) -> Any:
    """A score in which null stands for what has no value, such as an error relative to a truth of zero."""
    if isinstance(score, dict):
        return {key: _with_gaps(value) for key, value in score.items()}
    if isinstance(score, list | tuple):
        return [_with_gaps(value) for value in score]
    return None if isinstance(score, float) and not math.isfinite(score) else score


def draw(options: argparse.Namespace) -> None:
    """A picture of a forecast."""
    _check_picture(options, plot.check_picture(options.output))
    model, truth = _drawn_beside(options)
    grid = {} if model is None else _training_grid(model)
    ds = open_dataset(options.forecast)
    figure = plot.forecast(ds, truth, options.sample, options.variable, options.lead_time, model, grid)
    plot.save(figure, options.output)


def animate(options: argparse.Namespace) -> None:
    """A film or a page of a forecast."""
    kind = plot.check_animation(options.output)
    _check_picture(options, kind)
    model, truth = _drawn_beside(options)
    with logs.bar(unit="frame", disable=kind == "html") as bar:
        ds = open_dataset(options.forecast)
        plot.animate(ds, options.output, truth, options.sample, options.variable, model, counting(bar))


def _check_picture(options: argparse.Namespace, kind: str) -> None:
    """Ask whether a picture of a kind may be written."""
    read = (options.forecast, options.truth, options.model)
    check_file(options.output, options.overwrite, read, [f".{kind}"])


def _drawn_beside(options: argparse.Namespace) -> tuple[Forecaster | None, xr.Dataset | None]:
    """The model and the truth of a picture, where they are given."""
    model = None if options.model is None else checkpoint.load(options.model, device_of(options))
    return model, None if options.truth is None else open_dataset(options.truth)


def _training_grid(model: Forecaster) -> dict[str, int]:
    """The size of each axis of the grid that a model learned on, as far as its card tells."""
    data = model.card.get("data", {})
    if "grid" in model.card or data.get("equation") not in PDES:
        return dict(model.card.get("grid", {}))
    settings = {key: str(value) for key, value in json.loads(data.get("parameters", "{}")).items()}
    return {name: len(axis) for name, axis in make(data["equation"], settings).coordinates().items()}
