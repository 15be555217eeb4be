"""The verbs and their options."""

import argparse
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pdeforecast import plot
from pdeforecast.bench import suites
from pdeforecast.cli.arguments import duration, lead_times, seed, seeds, sizes, words
from pdeforecast.cli.benching import bench
from pdeforecast.cli.data import convert_file, generate, inspect_file, solve
from pdeforecast.cli.forecasting import animate, draw, evaluate, forecast, models
from pdeforecast.cli.outputs import place
from pdeforecast.cli.training import train
from pdeforecast.convert import LAYOUTS
from pdeforecast.errors import UsageError, nearest
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.pdes import PDES
from pdeforecast.presets import PRESETS


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours: one line of cause, one of cure."""

    def error(self, message: str) -> Any:
        raise UsageError(f"{self.prog}: {message}.", f"Type `{self.prog} --help` for the options.")


Verb = Callable[[str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]
"""Adds a verb by its name, what it does and its help; the parser of its options."""


def understood(words: Sequence[str]) -> argparse.Namespace:
    """What the words of a command mean: the options of a verb, and the verb itself."""
    made, verbs = _parsers()
    own = verbs.choices.get(words[0]) if words else None
    if words and own is None and not words[0].startswith("-"):
        near = nearest(words[0], verbs.choices)
        raise UsageError(
            f"expected one of {', '.join(verbs.choices)}; came {words[0]!r}.",
            f"Type `pdeforecast {near}`." if near else "Type `pdeforecast --help` for what they do.",
        )
    # Asked through the parser above it, that of a verb takes arguments only directly after one another.
    return made.parse_args(words) if own is None else own.parse_intermixed_args(words[1:])


def _parsers() -> tuple[_Parser, Any]:
    """What `pdeforecast` understands, and in it the verbs."""
    made = _Parser(prog="pdeforecast", description="Forecast fields in space and time.")
    made.add_argument("--version", action="version", version=version("pdeforecast"))
    verbs = made.add_subparsers(title="verbs", required=True, metavar="VERB", parser_class=_Parser)

    def verb(name: str, function: Callable[[argparse.Namespace], None], help: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=help, description=help)
        made.set_defaults(verb=function)
        made.add_argument("--seed", type=seed, default=0, help="of every random choice (0)")
        made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
        return made

    verb("models", models, "List the shipped models: equation, geometry, size, measured errors.")
    for add in (_data, _training, _forecasts, _pictures, _bench):
        add(verb)
    return made, verbs


def _output(made: argparse.ArgumentParser, what: str, required: bool = True) -> None:
    made.add_argument("-o", "--output", type=place, required=required, metavar=what)
    made.add_argument("--overwrite", action="store_true", help=f"replace an existing {what}")


def _data(verb: Verb) -> None:
    """Where data come from, and what they are."""
    made = verb("generate", generate, "Generate trajectories of an equation.")
    made.add_argument("equation", nargs="?", help=", ".join(PDES))
    made.add_argument("--samples", type=int, help="how many; needed without a recipe")
    made.add_argument(
        "--split",
        action="append",
        default=[],
        help="train, validation, test or another: streams that share nothing",
    )
    made.add_argument("--recipe", type=Path, metavar="RECIPE.toml", help="instead of EQUATION; see datasets/")
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    _settings(made)
    _output(made, "FILE.nc|FOLDER", required=False)

    made = verb("solve", solve, "Integrate an equation from a given state with its own solver.")
    made.add_argument("equation", help=", ".join(PDES))
    made.add_argument("state", metavar="STATE.nc")
    made.add_argument("--lead-time", type=lead_times, required=True, metavar="0:19:1")
    _settings(made)
    _output(made, "OUT.nc")

    made = verb("convert", convert_file, "Bring a file of others into our NetCDF.")
    made.add_argument("source", type=Path, metavar="SOURCE", help="HDF5, .mat, .npy, .pt, NetCDF or Zarr")
    made.add_argument("--layout", choices=LAYOUTS, default="auto", help="of SOURCE (detected)")
    made.add_argument("--geometry", metavar="NAME", help=f"{', '.join(GEOMETRIES)} (as SOURCE says)")
    for option, help in (
        ("--variable", "convert this one only, under a new name: u=tensor"),
        ("--unit", "of a variable, or of time: u=m"),
        ("--coordinate", "which dimension or coordinate it is: y=z"),
    ):
        made.add_argument(option, action="append", default=[], metavar="name=value", help=help)
    made.add_argument("--dims", type=words, metavar="sample,time,y,x", help="of bare arrays, in order")
    _output(made, "OUT.nc")

    made = verb(
        "inspect", inspect_file, "Say what a model is, or what is understood of data and wrong with it."
    )
    made.add_argument("file", type=Path, metavar="MODEL|FILE")


def _training(verb: Verb) -> None:
    """A model from trajectories."""
    made = verb("train", train, "Train a model on trajectories.")
    made.add_argument("data", metavar="DATA.nc")
    made.add_argument("--preset", help=f"{', '.join(PRESETS)} (default)")
    made.add_argument("--budget", type=duration, help="such as 20m or 2h; 0 for the preset's steps")
    made.add_argument("--geometry", metavar="NAME", help=f"{', '.join(GEOMETRIES)} (that of DATA.nc)")
    made.add_argument("--resume", action="store_true", help="go on with the run in RUN_DIR, as it was begun")
    made.add_argument("--init-from", metavar="MODEL", help="begin from its weights and prior: fine-tune it")
    made.add_argument("--tensorboard", action="store_true", help="write losses for TensorBoard, too")
    _settings(made)
    made.add_argument("-o", "--output", type=place, required=True, metavar="RUN_DIR")


def _forecasts(verb: Verb) -> None:
    """Forecasts and their scores."""
    made = verb("forecast", forecast, "Forecast from a state: a full grid, one with NaN gaps, or sensors.")
    made.add_argument("model", metavar="MODEL", help="a shipped model's name, a run's folder, or a file")
    made.add_argument("state", metavar="STATE.nc", nargs="?", help="beside --sensors: of static fields alone")
    made.add_argument("--sensors", type=Path, metavar="STATIONS.csv", help="observations, a row for each")
    help = "fit all times of STATE.nc, not the first alone; --sensors always does"
    made.add_argument("--assimilate", action="store_true", help=help)
    made.add_argument("--lead-time", type=lead_times, required=True, metavar="0:19:1")
    where = made.add_mutually_exclusive_group()
    where.add_argument("--grid", type=sizes, metavar="128x128", help="sizes, in the order of the dimensions")
    where.add_argument("--like", metavar="REF.nc", help="forecast at the points of this file")
    where.add_argument("--at", type=Path, metavar="STATIONS.csv", help="forecast at the places of this table")
    _output(made, "OUT.nc|OUT.csv|OUT.zarr")

    made = verb("evaluate", evaluate, "Score a forecast against the truth.")
    made.add_argument("forecast", metavar="FORECAST.nc")
    made.add_argument("truth", metavar="TRUTH.nc")
    made.add_argument("--train-frames", type=int, default=10, help="frames of the window t_in (10)")
    _output(made, "SCORE.json", required=False)


def _pictures(verb: Verb) -> None:
    """What people look at."""

    def picture(made: argparse.ArgumentParser, what: str) -> None:
        made.add_argument("forecast", metavar="FORECAST.nc")
        made.add_argument("--truth", metavar="TRUTH.nc", help="beside which it is drawn, with its error")
        made.add_argument("--model", metavar="MODEL", help="whose latent poses are drawn over the forecast")
        made.add_argument("--sample", type=int, default=0, help="counted from 0 (0)")
        made.add_argument("--variable", metavar="NAME", help="(the first)")
        _output(made, what)

    made = verb("plot", draw, "Draw a forecast: fields, error over lead time, spectra.")
    made.add_argument("--lead-time", type=lead_times, metavar="0,5,10", help="those drawn (a few of all)")
    picture(made, f"FILE.{'|'.join(plot.FORMATS)}")

    made = verb("animate", animate, "Animate a forecast: a film, or a page with a time slider.")
    picture(made, f"FILE.{'|'.join(plot.ANIMATIONS)}")


def _bench(verb: Verb) -> None:
    """Measurements."""
    made = verb("bench", bench, "Measure models on unseen states, and report what was measured.")
    made.add_argument("suite", metavar="SUITE", help=_suites())
    made.add_argument(
        "model",
        metavar="MODEL",
        nargs="*",
        help="shipped models' names, runs' folders, or files; for efficiency presets or kinds to train; "
        "for report the folder of tables",
    )
    made.add_argument("--baselines", metavar="DIR", nargs="+", type=Path, default=[], help="trained ones")
    made.add_argument("--data", metavar="FOLDER|FILE", type=Path, help="truth, or where to keep it")
    made.add_argument("--train", metavar="TRAIN.nc", type=Path, help="trajectories to train or take means on")
    made.add_argument("--samples", type=int, default=8, help="newly generated states per seed (8)")
    made.add_argument("--seeds", type=seeds, default=[1000], metavar="1000,1001", help="of states (1000)")
    made.add_argument("--budget", type=duration, default=0.0, help="to measure, or of each training (none)")
    made.add_argument("--jobs", type=int, default=1, help="processes that generate truth (1)")
    _settings(made)
    made.add_argument("--view", metavar="FILE.nc", nargs=2, action="append", default=[], type=Path,
                      help="report: a forecast and its truth to look at")  # fmt: skip
    made.add_argument("--state", metavar="STATE.nc", help="equivariance: states (newly generated ones)")
    made.add_argument("--motions", type=int, help="equivariance: motions of the world (4)")
    made.add_argument("--lead-time", type=lead_times, metavar="0,1,5", help="equivariance: (0,1,5,10,19)")
    made.add_argument("-o", "--output", type=place, metavar="FOLDER", help="of tables and pictures (bench)")


def _suites() -> str:
    """The suites with what they measure."""
    about = {name: suite.about for name, suite in suites.SUITES.items()}
    return "; ".join(f"{name}: {words}" for name, words in {**about, "report": "a page of tables"}.items())


def _settings(made: argparse.ArgumentParser) -> None:
    made.add_argument("--set", action="append", default=[], metavar="key=value", help="change a parameter")
