"""`generate`, `solve`, `convert` and `inspect`: where data come from, and what they are."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from pdeforecast import generation, logs
from pdeforecast.cli.arguments import counting, device_of, pairs, provenance_of
from pdeforecast.cli.outputs import NETCDF, check_file, check_folder
from pdeforecast.convert import Wishes, convert
from pdeforecast.description import describe, is_model
from pdeforecast.errors import DataError, ForecastError, UsageError, nearest
from pdeforecast.inspection import inspect
from pdeforecast.pdes import make
from pdeforecast.trajectory import open_dataset, save_dataset

_SPLITS = ("train", "validation", "test")


def generate(options: argparse.Namespace) -> None:
    """Trajectories of an equation, by options or by a recipe."""
    provenance, device = provenance_of(options), _solver_device(options)
    if options.recipe is None:
        _need_equation(options)
        check_file(options.output, options.overwrite, [], NETCDF)
        pde, split = make(options.equation, pairs(options.set)), (options.split or ["train"])[0]
        with logs.bar(unit="trajectory") as bar:
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
    check_folder(options.output)
    with logs.bar(unit="trajectory") as bar:
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
    for name in options.split:
        _check_split(name)


def _check_split(name: str) -> None:
    """That a name of a stream is no slip of the pen: any other name is a stream of its own."""
    near = nearest(name, _SPLITS)
    if near is not None and name not in _SPLITS and name.isalpha():
        raise UsageError(
            f"expected {', '.join(_SPLITS)}, or a name unlike them; came {name!r}.",
            f"Type `--split {near}`, or for a stream of its own `--split {name}-1`.",
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
    return "cpu" if options.device == "auto" else device_of(options)


def solve(options: argparse.Namespace) -> None:
    """A given state's future, by the equation's own solver."""
    check_file(options.output, options.overwrite, [options.state], NETCDF)
    pde = make(options.equation, pairs(options.set))
    solution = generation.solve_from(
        pde, open_dataset(options.state), options.lead_time, provenance_of(options), _solver_device(options)
    )
    save_dataset(solution, options.output, options.overwrite)


def convert_file(options: argparse.Namespace) -> None:
    """A file of others, as ours."""
    check_file(options.output, options.overwrite, [options.source], NETCDF)
    named = {key: pairs(getattr(options, key), f"--{key}") for key in ("variable", "unit", "coordinate")}
    wishes = Wishes(
        options.layout, options.geometry, named["variable"], named["unit"], named["coordinate"], options.dims
    )
    with logs.bar(unit="B", unit_scale=True) as bar, _foreign(options.source):
        made = convert(
            options.source,
            options.output,
            wishes,
            options.overwrite,
            counting(bar),
            provenance_of(options),
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


def inspect_file(options: argparse.Namespace) -> None:
    """What a model or a file is."""
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
