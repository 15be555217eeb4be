"""The command line: verbs, each a few lines.

Exit codes: 0 fine, 2 usage, 3 data, 4 checkpoint, 5 diverged. Errors go to stderr as one line of cause
and one line of cure.
"""

import argparse
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from tqdm import tqdm

from pdeforecast import assimilation, checkpoint, defaults, generation, metrics, parallel, plot, run
from pdeforecast.bench import report, study, suites
from pdeforecast.bench.equivariance import equivariance
from pdeforecast.bench.methods import Method
from pdeforecast.convert import LAYOUTS, Wishes, convert
from pdeforecast.description import describe, is_model
from pdeforecast.errors import DataError, ForecastError, UsageError, nearest
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.inspection import inspect
from pdeforecast.logs import TensorBoard
from pdeforecast.pdes import PDES, make
from pdeforecast.presets import PRESETS
from pdeforecast.training import Progress, Trajectories
from pdeforecast.trajectory import (
    check_output,
    check_target,
    geometry_of,
    grid_dims,
    open_dataset,
    read_stations,
    save_dataset,
    write,
)
from pdeforecast.trust import TrustWarning


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", TrustWarning)
        told, otherwise = set[str](), warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if not issubclass(category, TrustWarning):
                otherwise(message, category, *rest, **more)
            elif str(message) not in told and parallel.rank() == 0:
                told.add(str(message))
                print(f"warning: {message}", file=sys.stderr)

        warnings.showwarning = show
        return _run(words)


def _run(words: list[str]) -> int:
    """Runs the verb that the words ask for; returns the exit code."""
    try:
        options = _parser().parse_args(words)
        options.command = " ".join(["pdeforecast", *words])
        torch.manual_seed(options.seed)
        options.verb(options)
        return 0
    except ForecastError as error:
        print(f"process {parallel.rank()}: {error}" if parallel.rank() else error, file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except KeyboardInterrupt:
        print(
            "interrupted; what was saved is intact.\nType it again (`train`: with `--resume`).",
            file=sys.stderr,
        )
        return 130
    except (MemoryError, torch.OutOfMemoryError):
        print("expected more memory.\nAsk for fewer points, lead times or samples at once.", file=sys.stderr)
        return UsageError.exit_code
    except OSError as error:
        print(
            f"expected to read and write files; {error}.\nFree the disk, or give another path.",
            file=sys.stderr,
        )
        return DataError.exit_code


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours: one line of cause, one of cure."""

    def error(self, message: str) -> Any:
        raise UsageError(f"{self.prog}: {message}.", f"Type `{self.prog} --help` for the options.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="pdeforecast", description="Forecast fields in space and time.")
    parser.add_argument("--version", action="version", version=version("pdeforecast"))
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB", parser_class=_Parser)

    def verb(name: str, function: Any, help: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=help, description=help)
        made.set_defaults(verb=function)
        made.add_argument("--seed", type=seed, default=0, help="of every random choice (0)")
        made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
        return made

    def output(made: argparse.ArgumentParser, what: str, required: bool = True) -> None:
        made.add_argument("-o", "--output", type=Path, required=required, metavar=what)
        made.add_argument("--overwrite", action="store_true", help=f"replace an existing {what}")

    verb("models", _models, "List the shipped models: equation, geometry, size, measured errors.")

    made = verb("generate", _generate, "Generate trajectories of an equation.")
    made.add_argument("equation", nargs="?", help=", ".join(PDES))
    made.add_argument("--samples", type=int, help="how many; needed without a recipe")
    made.add_argument(
        "--split", action="append", default=[], help="train, validation or test: streams that share nothing"
    )
    made.add_argument("--recipe", type=Path, metavar="RECIPE.toml", help="instead of EQUATION; see datasets/")
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    _settings(made)
    output(made, "FILE.nc|FOLDER", required=False)

    made = verb("solve", _solve, "Integrate an equation from a given state with its own solver.")
    made.add_argument("equation", help=", ".join(PDES))
    made.add_argument("state", metavar="STATE.nc")
    made.add_argument("--lead-time", type=lead_times, required=True, metavar="0:19:1")
    _settings(made)
    output(made, "OUT.nc")

    made = verb("convert", _convert, "Bring a file of others into our NetCDF.")
    made.add_argument("source", type=Path, metavar="SOURCE", help="HDF5, .mat, .npy, .pt, NetCDF or Zarr")
    made.add_argument("--layout", choices=LAYOUTS, default="auto", help="of SOURCE (detected)")
    made.add_argument("--geometry", metavar="NAME", help=f"{', '.join(GEOMETRIES)} (as SOURCE says)")
    for option, help in (
        ("--variable", "convert this one only, under a new name: u=tensor"),
        ("--unit", "of a variable, or of time: u=m"),
        ("--coordinate", "which dimension or coordinate it is: y=z"),
    ):
        made.add_argument(option, action="append", default=[], metavar="name=value", help=help)
    made.add_argument("--dims", type=_words, metavar="sample,time,y,x", help="of bare arrays, in order")
    output(made, "OUT.nc")

    made = verb("inspect", _inspect, "Say what a model is, or what is understood of data and wrong with it.")
    made.add_argument("file", type=Path, metavar="MODEL|FILE")

    made = verb("train", _train, "Train a model on trajectories.")
    made.add_argument("data", metavar="DATA.nc")
    made.add_argument("--preset", help=f"{', '.join(PRESETS)} (default)")
    made.add_argument("--budget", type=duration, help="such as 20m or 2h; 0 for the preset's steps")
    made.add_argument("--geometry", metavar="NAME", help=f"{', '.join(GEOMETRIES)} (that of DATA.nc)")
    made.add_argument("--resume", action="store_true", help="go on with the run in RUN_DIR, as it was begun")
    made.add_argument("--init-from", metavar="MODEL", help="begin from its weights and prior: fine-tune it")
    made.add_argument("--tensorboard", action="store_true", help="write losses for TensorBoard, too")
    _settings(made)
    made.add_argument("-o", "--output", type=Path, required=True, metavar="RUN_DIR")

    made = verb("forecast", _forecast, "Forecast from a state: a full grid, one with NaN gaps, or sensors.")
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
    output(made, "OUT.nc|OUT.csv|OUT.zarr")

    made = verb("evaluate", _evaluate, "Score a forecast against the truth.")
    made.add_argument("forecast", metavar="FORECAST.nc")
    made.add_argument("truth", metavar="TRUTH.nc")
    made.add_argument("--train-frames", type=int, default=10, help="frames of the window t_in (10)")
    output(made, "SCORE.json", required=False)

    def picture(made: argparse.ArgumentParser, what: str) -> None:
        made.add_argument("forecast", metavar="FORECAST.nc")
        made.add_argument("--truth", metavar="TRUTH.nc", help="beside which it is drawn, with its error")
        made.add_argument("--model", metavar="MODEL", help="whose latent poses are drawn over the forecast")
        made.add_argument("--sample", type=int, default=0, help="counted from 0 (0)")
        made.add_argument("--variable", metavar="NAME", help="(the first)")
        output(made, what)

    made = verb("plot", _plot, "Draw a forecast: fields, error over lead time, spectra.")
    made.add_argument("--lead-time", type=lead_times, metavar="0,5,10", help="those drawn (a few of all)")
    picture(made, f"FILE.{'|'.join(plot.FORMATS)}")

    made = verb("animate", _animate, "Animate a forecast: a film, or a page with a time slider.")
    picture(made, f"FILE.{'|'.join(plot.ANIMATIONS)}")

    made = verb("bench", _bench, "Measure models on unseen states, and report what was measured.")
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
    made.add_argument("--motions", type=int, default=4, help="equivariance: motions of the world (4)")
    made.add_argument("--lead-time", type=lead_times, default=[0.0, 1.0, 5.0, 10.0, 19.0])
    made.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="of tables and pictures (bench)")
    return parser


def _suites() -> str:
    """The suites with what they measure."""
    about = {name: suite.about for name, suite in suites.SUITES.items()}
    return "; ".join(f"{name}: {words}" for name, words in {**about, "report": "a page of tables"}.items())


def _settings(made: argparse.ArgumentParser) -> None:
    made.add_argument("--set", action="append", default=[], metavar="key=value", help="change a parameter")


_MOST_TIMES = 10**5
"""More lead times than this are a slip of the pen."""


def seed(text: str) -> int:
    """A whole number from 0 to 2³¹ − 1."""
    if not re.fullmatch(r"\d{1,10}", text) or int(text) >= 2**31:
        raise UsageError(f"expected a seed from 0 to {2**31 - 1}; came {text!r}.", "Type `--seed 0`.")
    return int(text)


def seeds(text: str) -> list[int]:
    """A comma list of seeds."""
    return [seed(part) for part in text.split(",")]


def lead_times(text: str) -> list[float]:
    """`start:stop:step` with stop included, or a comma list of real numbers."""
    try:
        if ":" in text:
            start, stop, step = (float(part) for part in text.split(":"))
            count = math.floor((stop - start) / step + 1e-9) + 1
            times = [start + i * step for i in range(count if count <= _MOST_TIMES else 0)]
        else:
            times = [float(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError, OverflowError):
        times = []
    if not times or not all(0 <= t < math.inf for t in times):
        raise UsageError(
            f"expected at most {_MOST_TIMES} lead times ≥ 0, such as 0:19:1 or 0.5,1,7.3; came {text!r}.",
            "Type `--lead-time 0:19:1`: start, stop (included) and step.",
        )
    return times


def sizes(text: str) -> tuple[int, ...]:
    """`128x128`: the size of each axis."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise UsageError(f"expected a grid such as 128x128; came {text!r}.", "Type `--grid 128x128`.")
    return tuple(int(part) for part in text.split("x"))


def duration(text: str) -> float:
    """`90s`, `20m`, `2h` or plain seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise UsageError(f"expected a time such as 20m or 2h; came {text!r}.", "Type `--budget 20m`.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _pairs(settings: Sequence[str], option: str = "--set") -> dict[str, str]:
    for setting in settings:
        if "=" not in setting:
            raise UsageError(f"expected key=value; came {setting!r}.", f"Type `{option} {setting}=…`.")
    return dict(setting.split("=", 1) for setting in settings)


def _device(options: argparse.Namespace) -> str:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("expected a CUDA device; there is none.", "Type `--device cpu`, or leave it out.")
    return "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"


def _provenance(options: argparse.Namespace) -> dict[str, str]:
    packages = ("pdeforecast", "torch", "xarray")
    return {
        "command": options.command,
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
    }


def _models(options: argparse.Namespace) -> None:
    for name, path in checkpoint.shipped().items():
        model = checkpoint.load(name)
        print(f"{name}  ({path.stat().st_size / 1e6:.1f} MB)")
        print(f"  {', '.join(model.config.variables)} on {model.config.geometry}")
        for line in model.card.get("summary", []):
            print(f"  {line}")


def _generate(options: argparse.Namespace) -> None:
    provenance, device = _provenance(options), _solver_device(options)
    if options.recipe is None:
        _need_equation(options)
        pde, split = make(options.equation, _pairs(options.set)), (options.split or ["train"])[0]
        with tqdm(unit="trajectory", disable=None) as bar:
            generation.write(
                pde,
                options.output,
                options.samples,
                options.seed,
                split,
                options.jobs,
                _counted(bar, split),
                options.overwrite,
                provenance,
                device,
            )
        return
    if options.equation is not None or options.samples is not None or options.set or options.seed:
        raise UsageError(
            "expected a recipe alone; an equation, --samples, --seed or --set came beside it.",
            f"Write them into a copy of {options.recipe}, or leave out `--recipe`.",
        )
    with tqdm(unit="trajectory", disable=None) as bar:
        made = generation.write_recipe(
            generation.load_recipe(options.recipe),
            options.output or Path(options.recipe.stem),
            options.split,
            options.jobs,
            lambda name: _counted(bar, name),
            options.overwrite,
            provenance,
            device,
        )
    print("\n".join(f"generated: {path}" for path in made))


def _need_equation(options: argparse.Namespace) -> None:
    """That one file can be made without a recipe."""
    for name, word in (("equation", "EQUATION"), ("samples", "--samples"), ("output", "--output")):
        if getattr(options, name) is None:
            raise UsageError(
                f"the following arguments are required without --recipe: {word}.",
                "Type for instance `pdeforecast generate navier-stokes --samples 8 -o FILE.nc`.",
            )
    if len(options.split) > 1:
        raise UsageError(
            f"expected one split for one file; came {', '.join(options.split)}.", "Give one `--split`."
        )


def _counted(bar: tqdm, name: str) -> generation.Progress:
    """Progress of the split `name`, on a bar whose rate leaves out what was there at the beginning."""
    begun = False

    def progress(done: int, total: int) -> None:
        nonlocal begun
        if not begun:
            bar.reset(total)
            bar.initial = bar.n = done
            bar.set_description(name)
            begun = True
        bar.update(done - bar.n)

    return progress


def _solver_device(options: argparse.Namespace) -> str:
    """The CPU unless another device is asked for: what a solver writes is the same wherever it runs."""
    return "cpu" if options.device == "auto" else _device(options)


def _solve(options: argparse.Namespace) -> None:
    check_target(options.output, options.overwrite)
    pde = make(options.equation, _pairs(options.set))
    solution = generation.solve_from(
        pde, open_dataset(options.state), options.lead_time, _provenance(options), _solver_device(options)
    )
    save_dataset(solution, options.output, options.overwrite)


def _convert(options: argparse.Namespace) -> None:
    named = {key: _pairs(getattr(options, key), f"--{key}") for key in ("variable", "unit", "coordinate")}
    wishes = Wishes(
        options.layout, options.geometry, named["variable"], named["unit"], named["coordinate"], options.dims
    )
    with tqdm(unit="B", unit_scale=True, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        with _foreign(options.source):
            made = convert(
                options.source, options.output, wishes, options.overwrite, progress, _provenance(options)
            )
    print(f"layout: {made.layout}\ndomain: {made.geometry.name}")
    for note in made.notes:
        print(f"note: {note}")
    print(f"converted: {options.output}")


@contextmanager
def _foreign(path: Path) -> Iterator[None]:
    """What the readers of others' formats raise by the kind of damage, as a `DataError`."""
    try:
        yield
    except (ForecastError, OSError, MemoryError):
        raise
    except Exception as error:
        raise DataError(
            f"expected a file of a known layout; {path} cannot be read ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:100]}).",
            "Copy it again, or save it as HDF5 or NetCDF with the program that wrote it.",
        ) from error


def _inspect(options: argparse.Namespace) -> None:
    if is_model(options.file):
        print("\n".join(describe(options.file)))
        return
    with _foreign(options.file):
        found = inspect(options.file)
    print("\n".join(found.lines))
    for problem in found.problems:
        print(f"problem: {problem.cause}\n  cure: {problem.cure}")
    if found.problems:
        raise DataError(
            f"expected a file without problems; {options.file} has {len(found.problems)}.",
            found.problems[0].cure,
        )
    print("no problems")


def _train(options: argparse.Namespace) -> None:
    with parallel.together(_device(options)):
        _trained(options)


def _trained(options: argparse.Namespace) -> None:
    """The training of one process."""
    board = TensorBoard(options.output / "tensorboard") if options.tensorboard else None
    ds, first = open_dataset(options.data), parallel.rank() == 0
    progress, budget = (_resumed if options.resume else _begun)(options, ds)
    data = run.trajectories(ds, progress.model)
    if not options.resume:
        progress, lines = _fitted(options, ds, progress, data, budget)
        if first:
            print("\n".join(lines), flush=True)
    device = _device(options)
    source = {**_plain(ds.attrs), "samples": ds.sizes.get("sample", 1)}
    grid = {name: ds.sizes[name] for name in grid_dims(progress.model.geometry) if name in ds.sizes}
    card = progress.model.card
    begun = {"command": card["command"]} if options.resume and "command" in card else {}
    card.update({"data": source, "grid": grid, "device": device, **_provenance(options), **begun})
    progress.to(device)
    with tqdm(unit="step", disable=None if first else True) as bar:
        average = math.nan
        for report in run.go(progress, data, options.output, budget):
            average = (
                report.loss
                if report.step == 1 or math.isnan(average)
                else 0.98 * average + 0.02 * report.loss
            )
            bar.total, bar.n = report.steps, report.step
            bar.set_description(report.phase, refresh=False)
            bar.set_postfix(loss=f"{average:.3g}", horizon=report.horizon, refresh=False)
            bar.update(0)
            if board is not None and first:
                board.see(report)
    if board is not None:
        board.close()
    if first:
        print(f"trained: {options.output / 'model.safetensors'}")


def _begun(options: argparse.Namespace, ds: xr.Dataset) -> tuple[Progress, float]:
    """A new run and its budget."""
    preset = PRESETS[_one_of(PRESETS, options.preset or "default", "preset")]
    return _new(options, ds, {}), preset.budget if options.budget is None else options.budget


def _new(options: argparse.Namespace, ds: xr.Dataset, fitting: dict[str, str]) -> Progress:
    """A new run, with settings that fit its data where there are no others."""
    geometry = geometry_of(ds)
    if options.geometry is not None:
        geometry = GEOMETRIES[_one_of(GEOMETRIES, options.geometry, "geometry")]
    settings = {**fitting, "training.seed": str(options.seed), **_pairs(options.set)}
    preset = PRESETS[options.preset or "default"]
    return run.begin(options.output, ds, geometry, preset, settings, options.init_from)


def _fitted(
    options: argparse.Namespace, ds: xr.Dataset, progress: Progress, data: Trajectories, budget: float
) -> tuple[Progress, list[str]]:
    """A new run as its data suggest, unless a preset or a model was asked for, and what to say of it."""
    fit = None
    if options.preset is None and options.init_from is None:
        fit = defaults.lattice(progress, data, "field.latents" not in _pairs(options.set))
        fitting = {"training.copies": str(defaults.motions(progress, data))}
        if fit is not None:
            fitting["field.latents"] = str(fit.latents)
        progress = _new(options, ds, fitting)
    return progress, defaults.told(progress, data, budget, fit)


def _resumed(options: argparse.Namespace, ds: xr.Dataset) -> tuple[Progress, float]:
    """The run in the output folder and its budget, which no option changes."""
    for name in ("preset", "geometry", "budget", "set", "init-from"):
        if getattr(options, name.replace("-", "_")) not in (None, []):
            raise UsageError(
                f"expected `--resume` without `--{name}`; a run goes on as it was begun.",
                f"Leave out `--{name}`, or begin another run without `--resume`.",
            )
    return run.resume(options.output), run.budget_of(options.output)


def _one_of(known: Collection[str], name: str, role: str) -> str:
    if name in known:
        return name
    raise UsageError(
        f"expected a {role} among {', '.join(known)}; came {name!r}.",
        f"Type `--{role} {nearest(name, known) or next(iter(known))}`.",
    )


def _plain(attrs: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): value.item() if hasattr(value, "item") else value for key, value in attrs.items()}


def _forecast(options: argparse.Namespace) -> None:
    check_output(options.output, options.overwrite)
    if options.state is None and options.sensors is None:
        raise UsageError(
            "the following arguments are required without --sensors: STATE.nc.",
            "Type `pdeforecast forecast MODEL STATE.nc -o OUT.nc --lead-time 0:19:1`.",
        )
    model = checkpoint.load(options.model, _device(options))
    state = statics = None if options.state is None else open_dataset(options.state)
    if options.sensors is not None:
        own = [] if statics is not None else list(model.config.statics)
        state = read_stations(options.sensors, model.geometry, list(model.config.variables), own)
    assert state is not None
    fitting = options.assimilate or options.sensors is not None
    with tqdm(desc="fitting", unit="evaluation", disable=None if fitting else True, leave=False) as bar:

        def evaluated(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        with assimilation.watched(evaluated):
            places = _grid(options, model), _places(options, model)
            forecast = model.forecast(state, options.lead_time, *places, statics, fitting, lazy=True)
    with tqdm(unit="B", unit_scale=True, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        write(forecast.assign_attrs(_provenance(options)), options.output, options.overwrite, progress)


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


def _evaluate(options: argparse.Namespace) -> None:
    if options.output is not None:
        check_target(options.output, options.overwrite)
    score = metrics.score(open_dataset(options.forecast), open_dataset(options.truth), options.train_frames)
    text = json.dumps(_with_gaps(score), indent=1)
    if options.output is None:
        print(text)
    else:
        with checkpoint.replacing(options.output) as beside:
            beside.write_text(text + "\n")


def _with_gaps(score: Any) -> Any:
    """A score in which null stands for what has no value, such as an error relative to a truth of zero."""
    if isinstance(score, dict):
        return {key: _with_gaps(value) for key, value in score.items()}
    if isinstance(score, list | tuple):
        return [_with_gaps(value) for value in score]
    return None if isinstance(score, float) and not math.isfinite(score) else score


def _plot(options: argparse.Namespace) -> None:
    check_target(options.output, options.overwrite)
    plot.check_picture(options.output)
    model, truth = _drawn_beside(options)
    grid = {} if model is None else _training_grid(model)
    ds = open_dataset(options.forecast)
    figure = plot.forecast(ds, truth, options.sample, options.variable, options.lead_time, model, grid)
    plot.save(figure, options.output)


def _animate(options: argparse.Namespace) -> None:
    check_target(options.output, options.overwrite)
    kind = plot.check_animation(options.output)
    model, truth = _drawn_beside(options)
    with tqdm(unit="frame", disable=True if kind == "html" else None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        ds = open_dataset(options.forecast)
        plot.animate(ds, options.output, truth, options.sample, options.variable, model, progress)


def _drawn_beside(options: argparse.Namespace) -> tuple[Forecaster | None, xr.Dataset | None]:
    """The model and the truth of a picture, where they are given."""
    model = None if options.model is None else checkpoint.load(options.model, _device(options))
    return model, None if options.truth is None else open_dataset(options.truth)


def _training_grid(model: Forecaster) -> dict[str, int]:
    """The size of each axis of the grid that a model learned on, as far as its card tells."""
    data = model.card.get("data", {})
    if "grid" in model.card or data.get("equation") not in PDES:
        return dict(model.card.get("grid", {}))
    settings = {key: str(value) for key, value in json.loads(data.get("parameters", "{}")).items()}
    return {name: len(axis) for name, axis in make(data["equation"], settings).coordinates().items()}


def _bench(options: argparse.Namespace) -> None:
    known = (*suites.SUITES, "report")
    if options.suite not in known:
        raise UsageError(
            f"expected a suite among {', '.join(known)}; came {options.suite!r}.",
            f"Type `pdeforecast bench {nearest(options.suite, known) or known[0]} MODEL`.",
        )
    if not (options.model or options.baselines or options.train):
        raise UsageError("expected a model; none came.", f"Type `pdeforecast bench {options.suite} MODEL`.")
    if options.suite == "report":
        folder = Path((options.model or ["bench"])[0])
        print("\n".join(map(str, report.write(folder, options.output or folder, options.view))))
    elif options.suite == "equivariance" and options.output is None:
        _equivariance(options)
    else:
        page, files = suites.go(options.suite, _study(options))
        print("\n".join([page, *(f"written: {file}" for file in files)]))


def _equivariance(options: argparse.Namespace) -> None:
    for name in options.model:
        model = checkpoint.load(name, _device(options))
        state = _unseen(model, options) if options.state is None else open_dataset(options.state)
        random = torch.Generator().manual_seed(options.seed)
        motions = GEOMETRIES[model.geometry.domain].random_motion(options.motions, random)
        print(equivariance(model, state, options.lead_time, motions).markdown())


def _study(options: argparse.Namespace) -> study.Study:
    """What a suite measures."""
    device, suite = _device(options), suites.SUITES[options.suite]
    if suite.trains:
        methods: list[Method] = [suites.to_train(name) for name in options.model]
    else:
        train = None if suite.inside else options.train
        methods = study.contestants(options.model, options.baselines, train, device)
    return study.Study(
        methods,
        options.output or Path("bench"),
        options.seeds,
        options.samples,
        options.data,
        options.train,
        options.budget,
        _pairs(options.set),
        device,
        options.jobs,
        options.command,
    )


def _unseen(model: Forecaster, options: argparse.Namespace) -> xr.Dataset:
    """Newly generated states of the equation that the model has learned."""
    equation = model.card.get("data", {}).get("equation")
    if equation not in PDES:
        raise UsageError(
            f"expected states to measure on; the model's card names no equation, but {equation!r}.",
            "Give some: `--state STATE.nc`.",
        )
    pde = make(equation, {})
    stream = generation.generate(pde, options.samples, options.seed, "test")
    made = list(tqdm(stream, total=options.samples, unit="state", disable=None))
    return generation.assemble(pde, made, options.seed, "test").isel(time=0)


if __name__ == "__main__":
    sys.exit(main())
