"""Streams of samples to NetCDF files: resumable, whole or not at all, a sample at a time in memory."""

import math
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdeforecast.errors import DataError, DivergedError, UsageError
from pdeforecast.generation.partial import Partial
from pdeforecast.generation.provenance import stream_of
from pdeforecast.generation.recipes import Recipe, Split
from pdeforecast.generation.samples import Progress, dataset_of, generate
from pdeforecast.pdes import PDE
from pdeforecast.trajectory import check_target, open_dataset

_LARGEST = 2**31 - 1
"""Bytes of a record of NumPy, at most."""


def write(
    pde: PDE,
    path: str | PathLike[str],
    samples: int,
    seed: int = 0,
    split: str = "train",
    jobs: int = 1,
    progress: Progress | None = None,
    overwrite: bool = False,
    attrs: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> None:
    """Generate trajectories and keep them in one NetCDF file, which appears when it is complete.

    Samples are kept in `PATH.partial/` meanwhile; the same call goes on from them after an interruption.

    Args:
        attrs: further provenance, such as the command.
        device: of the solver.

    Raises:
        UsageError: if the file exists, a count makes no sense, or `PATH.partial/` is of another stream.
        DivergedError: if a solution leaves the finite numbers.
        DataError: if two initial states are the same.
    """
    recipe = Recipe(pde, {split: Split(samples, seed, pde, split)})
    _write(recipe, split, Path(path), (), jobs, progress, overwrite, attrs or {}, device)


def write_recipe(
    recipe: Recipe,
    folder: str | PathLike[str],
    splits: Iterable[str] = (),
    jobs: int = 1,
    progress: Callable[[str], Progress] | None = None,
    overwrite: bool = False,
    attrs: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> list[Path]:
    """Generate the splits of a recipe, `FOLDER/NAME.nc` each; those that are there already are kept.

    No initial state of a split is in another file of the recipe in `folder`.

    Args:
        splits: some names; all splits, if none.
        progress: of a split, by its name.

    Returns:
        The files of the splits, in the order of the recipe.

    Raises:
        UsageError: if a split is unknown, or a file exists that is not of this recipe.
        DivergedError: if a solution leaves the finite numbers.
        DataError: if two initial states are the same.
    """
    splits = list(splits)
    if unknown := [name for name in splits if name not in recipe.splits]:
        raise UsageError(
            f"expected a split among {', '.join(recipe.splits)}; came {unknown[0]!r}.",
            f"Type `--split {next(iter(recipe.splits), 'train')}`.",
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.nc" for name in recipe.splits}
    chosen = [name for name in recipe.splits if name in splits or not splits]
    missing = [name for name in chosen if overwrite or not _is_made(recipe, name, files[name])]
    for name in missing:
        others = [path for other, path in files.items() if other != name and path.exists()]
        counted = None if progress is None else progress(name)
        _write(recipe, name, files[name], others, jobs, counted, overwrite, attrs or {}, device)
    return [files[name] for name in chosen]


def _is_made(recipe: Recipe, name: str, path: Path) -> bool:
    """Whether the file of a split is there."""
    if not path.exists():
        return False
    with open_dataset(path) as ds:
        theirs = ds.attrs.get("recipe_hash")
    if theirs != recipe.hash:
        raise UsageError(
            f"{path} exists already, and is of another recipe ({str(theirs)[:12]}, here {recipe.hash[:12]}).",
            f"Type `--overwrite` to replace it, or choose another folder for {name}.",
        )
    return True


def _write(
    recipe: Recipe,
    name: str,
    path: Path,
    others: Iterable[Path],
    jobs: int,
    progress: Progress | None,
    overwrite: bool,
    attrs: Mapping[str, Any],
    device: str,
) -> None:
    """The file of one split, disjoint from `others`."""
    check_target(path, overwrite)
    part = recipe.splits[name]
    pde, samples = part.pde, part.samples
    generate(pde, samples, part.seed, part.stream, jobs)  # refuses bad counts before anything is written
    stream = stream_of(pde, part.seed, part.stream)
    partial = Partial(path, {**stream, "device": device}, _record(pde))
    with partial.locked():
        done = partial.complete()
        indices = [index for index in range(samples) if index not in done]
        if progress is not None:
            progress(samples - len(indices), samples)
        try:
            for count, made in enumerate(
                generate(pde, indices, part.seed, part.stream, jobs, device) if indices else (), start=1
            ):
                partial.add(made)
                if progress is not None:
                    progress(samples - len(indices) + count, samples)
            values, statics = partial.read(samples, pde.statics)
            provenance = {**stream, "recipe_hash": recipe.hash, **attrs}
            ds = dataset_of(pde, range(samples), values, statics, provenance)
            _check_disjoint(path, ds, others)
        except (DivergedError, DataError):
            # The same command would come to the same end.
            partial.remove()
            raise
        partial.finish(ds)


def _record(pde: PDE) -> np.dtype:
    """The type of a sample: its values (T, *grid, V) and its statics.

    Raises:
        UsageError: if a sample is larger than NumPy allows a record to be.
    """
    grid = tuple(len(axis) for axis in pde.coordinates().values())
    values = (len(pde.times()), *grid, len(pde.variables))
    size = 4 * (math.prod(values) + len(pde.statics) * math.prod(grid))
    if size > _LARGEST:
        raise UsageError(
            f"expected samples of at most {_LARGEST / 1e9:.3g} GB; one of this {pde.name} takes "
            f"{size / 1e9:.3g} GB.",
            "Ask for fewer points or fewer times with `--set`.",
        )
    return np.dtype([("values", "<f4", values), *((name, "<f4", grid) for name in pde.statics)])


def _check_disjoint(path: Path, ds: xr.Dataset, others: Iterable[Path]) -> None:
    """No two initial states of a file, or of it and others, are the same."""
    seen: dict[str, str] = {}
    for other in others:
        with open_dataset(other) as file:
            seen |= {str(value): f"sample {i} of {other}" for i, value in enumerate(file.state_hash.values)}
    for i, value in enumerate(map(str, ds.state_hash.values)):
        if value in seen:
            raise DataError(
                f"expected initial states that differ; sample {i} of {path} begins as {seen[value]} does.",
                "Give the splits other seeds or names, and the equation some noise.",
            )
        seen[value] = f"sample {i} of {path}"
