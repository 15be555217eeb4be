"""Recipes: datasets stated so that they can be generated again, as TOML files."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

from pdeforecast.errors import UsageError, nearest
from pdeforecast.generation.provenance import digest
from pdeforecast.pdes import PDE, make


@dataclass(frozen=True)
class Split:
    """One part of a dataset.

    Attributes:
        samples: trajectories.
        seed: of their initial states.
        pde: the equation, with this part's own parameters (its times).
        stream: with the seed, it names the initial states; parts of one stream are the same flows, seen
            otherwise.
    """

    samples: int
    seed: int
    pde: PDE
    stream: str


@dataclass(frozen=True)
class Recipe:
    """A dataset, stated so that it can be generated again.

    Attributes:
        pde: the equation with the parameters common to all splits.
        splits: by name.
    """

    pde: PDE
    splits: Mapping[str, Split]

    @property
    def hash(self) -> str:
        """The SHA-256 of what the recipe says: equation, all parameters, splits; not of its spelling."""
        splits = {
            name: {
                "samples": part.samples,
                "seed": part.seed,
                "stream": part.stream,
                "parameters": asdict(part.pde),
            }
            for name, part in self.splits.items()
        }
        return digest({"equation": self.pde.name, "parameters": asdict(self.pde), "splits": splits})


def load_recipe(path: str | PathLike[str]) -> Recipe:
    """The recipe of a TOML file: `equation`, `[parameters]`, and `[splits.NAME]`.

    A split has `samples`, `seed`, and may set any parameter of the equation anew; its `stream` is its name
    unless it says otherwise.

    Raises:
        UsageError: if the file is missing or not TOML, or a key or a value means nothing.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"expected a recipe; cannot read {path}.", "Look into `datasets/`.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"expected TOML; {path}: {error}.", "Mend that line.") from error
    _known_keys(table, ("equation", "parameters", "splits"), path)
    pde = make(str(table.get("equation", "")), table.get("parameters", {}))
    return Recipe(
        pde, {name: _split(pde, name, part, path) for name, part in table.get("splits", {}).items()}
    )


def _split(pde: PDE, name: str, table: Mapping[str, Any], path: str | PathLike[str]) -> Split:
    own = ("samples", "seed", "stream")
    _known_keys(table, (*own, *(field.name for field in fields(pde))), path)
    for key in ("samples", "seed"):
        if not isinstance(table.get(key), int):
            raise UsageError(
                f"expected a whole number as splits.{name}.{key} in {path}; came {table.get(key)!r}.",
                f"Write `{key} = {64 if key == 'samples' else 0}` below `[splits.{name}]`.",
            )
    changed = make(pde.name, {**asdict(pde), **{k: v for k, v in table.items() if k not in own}})
    return Split(table["samples"], table["seed"], changed, str(table.get("stream", name)))


def _known_keys(table: Mapping[str, Any], known: Sequence[str], path: str | PathLike[str]) -> None:
    for key in table:
        if key not in known:
            near = nearest(key, known)
            raise UsageError(
                f"{path} has an unknown key {key!r}; known are {', '.join(known)}.",
                f"Write `{near}` instead." if near else f"Remove {key!r}.",
            )
