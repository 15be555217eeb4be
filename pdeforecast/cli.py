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
from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from tqdm import tqdm

from pdeforecast import checkpoint, generation, metrics, plot, run
from pdeforecast.bench.equivariance import equivariance
from pdeforecast.convert import LAYOUTS, Wishes, convert
from pdeforecast.errors import DataError, ForecastError, UsageError, nearest
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.inspection import inspect
from pdeforecast.pdes import PDES, make
from pdeforecast.presets import PRESETS
from pdeforecast.training import Progress
from pdeforecast.trajectory import check_target, geometry_of, grid_dims, open_dataset, save_dataset


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        options = _parser().parse_args(words)
        options.command = " ".join(["pdeforecast", *words])
        torch.manual_seed(options.seed)
        options.verb(options)
        return 0
    except ForecastError as error:
        print(error, file=sys.stderr)
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
    made.add_argument("equation", help=", ".join(PDES))
    made.add_argument("--samples", type=int, required=True)
    made.add_argument(
        "--split", default="train", help="train, validation or test: streams that share nothing"
    )
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    _settings(made)
    output(made, "FILE.nc")

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

    made = verb("inspect", _inspect, "Say what is understood of a file, and what is wrong with it.")
    made.add_argument("file", type=Path, metavar="FILE")

    made = verb("train", _train, "Train a model on trajectories.")
    made.add_argument("data", metavar="DATA.nc")
    made.add_argument("--preset", help=f"{', '.join(PRESETS)} (default)")
    made.add_argument("--budget", type=duration, help="such as 20m or 2h; 0 for the preset's steps")
    made.add_argument("--geometry", metavar="NAME", help=f"{', '.join(GEOMETRIES)} (that of DATA.nc)")
    made.add_argument("--resume", action="store_true", help="go on with the run in RUN_DIR, as it was begun")
    _settings(made)
    made.add_argument("-o", "--output", type=Path, required=True, metavar="RUN_DIR")

    made = verb("forecast", _forecast, "Forecast from a state: a full grid, one with NaN gaps, or sensors.")
    made.add_argument("model", metavar="MODEL", help="a shipped model's name, a run's folder, or a file")
    made.add_argument("state", metavar="STATE.nc")
    made.add_argument("--lead-time", type=lead_times, required=True, metavar="0:19:1")
    where = made.add_mutually_exclusive_group()
    where.add_argument("--grid", type=sizes, metavar="128x128", help="sizes, in the order of the dimensions")
    where.add_argument("--like", metavar="REF.nc", help="forecast at the points of this file")
    output(made, "OUT.nc")

    made = verb("evaluate", _evaluate, "Score a forecast against the truth.")
    made.add_argument("forecast", metavar="FORECAST.nc")
    made.add_argument("truth", metavar="TRUTH.nc")
    made.add_argument("--train-frames", type=int, default=10, help="frames of the window t_in (10)")
    output(made, "SCORE.json", required=False)

    made = verb("plot", _plot, "Draw a forecast, beside the truth if it is given.")
    made.add_argument("forecast", metavar="FORECAST.nc")
    made.add_argument("--truth", metavar="TRUTH.nc")
    made.add_argument("--sample", type=int, default=0)
    output(made, "FILE.png")

    made = verb("bench", _bench, "Measure a model: equivariance.")
    made.add_argument("suite", metavar="SUITE", help=", ".join(SUITES))
    made.add_argument("model", metavar="MODEL", help="a shipped model's name, a run's folder, or a file")
    made.add_argument("--state", metavar="STATE.nc", help="states to measure on (newly generated ones)")
    made.add_argument("--samples", type=int, default=8, help="newly generated states (8)")
    made.add_argument("--motions", type=int, default=4, help="random motions of the world (4)")
    made.add_argument("--lead-time", type=lead_times, default=[0.0, 1.0, 5.0, 10.0, 19.0])
    return parser


SUITES = ("equivariance",)


def _settings(made: argparse.ArgumentParser) -> None:
    made.add_argument("--set", action="append", default=[], metavar="key=value", help="change a parameter")


_MOST_TIMES = 10**5
"""More lead times than this are a slip of the pen."""


def seed(text: str) -> int:
    """A whole number from 0 to 2³¹ − 1."""
    if not re.fullmatch(r"\d{1,10}", text) or int(text) >= 2**31:
        raise UsageError(f"expected a seed from 0 to {2**31 - 1}; came {text!r}.", "Type `--seed 0`.")
    return int(text)


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
    pde = make(options.equation, _pairs(options.set))
    with tqdm(total=options.samples, unit="trajectory", disable=None) as bar:
        generation.write(
            pde,
            options.output,
            options.samples,
            options.seed,
            options.split,
            options.jobs,
            lambda done, total: bar.update(done - bar.n) and None,
            options.overwrite,
            _provenance(options),
        )


def _solve(options: argparse.Namespace) -> None:
    check_target(options.output, options.overwrite)
    pde = make(options.equation, _pairs(options.set))
    solution = generation.solve_from(
        pde, open_dataset(options.state), options.lead_time, _provenance(options)
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

        made = convert(
            options.source, options.output, wishes, options.overwrite, progress, _provenance(options)
        )
    print(f"layout: {made.layout}\ndomain: {made.geometry.name}")
    for note in made.notes:
        print(f"note: {note}")
    print(f"converted: {options.output}")


def _inspect(options: argparse.Namespace) -> None:
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
    ds = open_dataset(options.data)
    progress, budget = (_resumed if options.resume else _begun)(options, ds)
    device = _device(options)
    progress.model.card.update({"data": _plain(ds.attrs), "device": device, **_provenance(options)})
    progress.to(device)
    data = run.trajectories(ds, progress.model)
    with tqdm(unit="step", disable=None) as bar:
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
    print(f"trained: {options.output / 'model.safetensors'}")


def _begun(options: argparse.Namespace, ds: xr.Dataset) -> tuple[Progress, float]:
    """A new run and its budget."""
    preset = PRESETS[_one_of(PRESETS, options.preset or "default", "preset")]
    geometry = geometry_of(ds)
    if options.geometry is not None:
        geometry = GEOMETRIES[_one_of(GEOMETRIES, options.geometry, "geometry")]
    settings = {"training.seed": str(options.seed), **_pairs(options.set)}
    progress = run.begin(options.output, ds, geometry, preset, settings)
    return progress, preset.budget if options.budget is None else options.budget


def _resumed(options: argparse.Namespace, ds: xr.Dataset) -> tuple[Progress, float]:
    """The run in the output folder and its budget, which no option changes."""
    for name in ("preset", "geometry", "budget", "set"):
        if getattr(options, name) not in (None, []):
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
    check_target(options.output, options.overwrite)
    model = checkpoint.load(options.model, _device(options))
    state = open_dataset(options.state)
    grid = None
    if options.grid is not None:
        dims = grid_dims(model.geometry)
        if len(options.grid) != len(dims):
            raise UsageError(
                f"expected a size for each of {', '.join(dims)}; came {'x'.join(map(str, options.grid))}.",
                f"Type `--grid {'x'.join(['128'] * len(dims))}`.",
            )
        grid = dict(zip(dims, options.grid, strict=True))
    like = None if options.like is None else open_dataset(options.like)
    forecast = model.forecast(state, options.lead_time, grid, like)
    save_dataset(forecast.assign_attrs(_provenance(options)), options.output, options.overwrite)


def _evaluate(options: argparse.Namespace) -> None:
    if options.output is not None:
        check_target(options.output, options.overwrite)
    score = metrics.score(open_dataset(options.forecast), open_dataset(options.truth), options.train_frames)
    text = json.dumps(score, indent=1)
    if options.output is None:
        print(text)
    else:
        with checkpoint.replacing(options.output) as beside:
            beside.write_text(text + "\n")


def _plot(options: argparse.Namespace) -> None:
    check_target(options.output, options.overwrite)
    truth = None if options.truth is None else open_dataset(options.truth)
    plot.save(plot.forecast(open_dataset(options.forecast), truth, options.sample), options.output)


def _bench(options: argparse.Namespace) -> None:
    if options.suite not in SUITES:
        raise UsageError(
            f"expected a suite among {', '.join(SUITES)}; came {options.suite!r}.",
            f"Type `pdeforecast bench {nearest(options.suite, SUITES) or SUITES[0]} {options.model}`.",
        )
    model = checkpoint.load(options.model, _device(options))
    state = _unseen(model, options) if options.state is None else open_dataset(options.state)
    random = torch.Generator().manual_seed(options.seed)
    motions = GEOMETRIES[model.geometry.domain].random_motion(options.motions, random)
    print(equivariance(model, state, options.lead_time, motions).markdown())


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
