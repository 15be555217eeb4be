"""Tables of measurements: CSV to go on with and to compute from, Markdown to read.

A row is a mapping from columns to numbers, words, or tuples of numbers (a curve), which CSV shows as
`[1 2 3]`. A *case* is what is computed at once: rows that share their key. `complete` computes those
whose key is not in the file yet, and keeps each as soon as it is known.
"""

import csv
import math
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pdeforecast import logs
from pdeforecast.replacing import replacing

Cell = str | int | float | tuple[float, ...]
Row = dict[str, Cell]


@dataclass(frozen=True)
class Case:
    """What is computed at once.

    Attributes:
        key: columns that tell its rows from all others; they open each of its rows.
        compute: the further columns of its rows.
    """

    key: Mapping[str, Cell]
    compute: Callable[[], Sequence[Mapping[str, Cell]]]


def complete(path: Path, cases: Sequence[Case], stamp: Mapping[str, Cell], budget: float = 0.0) -> list[Row]:
    """The rows of `cases`, of which those that the CSV file `path` lacks are computed and added to it.

    Args:
        stamp: columns that close each new row: where and how it was measured.
        budget: seconds after which no further case is begun; 0 for no limit.
    """
    start = time.monotonic()
    with logs.bar(iterable=cases, unit="case", desc=path.stem) as bar:
        for case in bar:
            shown = [_text(value) for name, value in case.key.items() if name != "identity"]
            bar.set_postfix_str(", ".join(shown), refresh=True)
            if _found(read(path), case):
                continue
            if budget and time.monotonic() - start > budget:
                break
            begun = time.monotonic()
            made = [dict(row) for row in case.compute()]
            seconds = round(time.monotonic() - begun, 2)
            # Read again: another command may have added rows to the same file meanwhile.
            write([*read(path), *({**case.key, **row, "seconds": seconds, **stamp} for row in made)], path)
    rows = read(path)
    return [row for case in cases for row in _found(rows, case)]


def left(rows: Sequence[Row], cases: Sequence[Case]) -> int:
    """How many of `cases` have no row yet."""
    return sum(not _found(rows, case) for case in cases)


def _found(rows: Sequence[Row], case: Case) -> list[Row]:
    key = {name: _text(value) for name, value in case.key.items()}
    return [row for row in rows if all(_text(row.get(name, "")) == value for name, value in key.items())]


# --- files ---------------------------------------------------------------------------------------


def write(rows: Sequence[Mapping[str, Cell]], path: Path) -> None:
    """`rows` as the whole of a CSV file, with every column that one of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _text(value) for name, value in row.items()})


def read(path: Path) -> list[Row]:
    """The rows of a CSV file, numbers as numbers, without empty cells; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: _value(v) for k, v in row.items() if v not in ("", None)} for row in csv.DictReader(file)]


def _text(value: Cell) -> str:
    if isinstance(value, tuple):
        return f"[{' '.join(map(_text, value))}]"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _value(text: str) -> Cell:
    if re.fullmatch(r"\[.*\]", text):
        return tuple(float(word) for word in text[1:-1].split())
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


# --- to read -------------------------------------------------------------------------------------


def markdown(rows: Sequence[Mapping[str, Cell]], columns: Sequence[str]) -> str:
    """A table of some columns of `rows`, without those that no row has."""
    shown = [name for name in columns if any(name in row for row in rows)]
    lines = ["| " + " | ".join(name.replace("_", " ") for name in shown) + " |", "|" + "---|" * len(shown)]
    lines += ["| " + " | ".join(_cell(row.get(name, "")) for name in shown) + " |" for row in rows]
    return "\n".join(lines)


def over_seeds(rows: Sequence[Mapping[str, Cell]], keys: Sequence[str], numbers: Sequence[str]) -> list[Row]:
    """A row per group of `keys`: the mean of each of `numbers` over its seeds, with ± their spread.

    The spread is the standard deviation, where there are two seeds or more; `seeds` counts them.
    """
    made: list[Row] = []
    for group in groups(rows, keys):
        row: Row = {name: group[0][name] for name in keys if name in group[0]}
        row["seeds"] = len({row.get("seed") for row in group})
        for name in numbers:
            values = [number(row, name) for row in group if name in row]
            if values:
                row[name] = spread(values)
        made.append(row)
    return made


def spread(values: Sequence[float]) -> str:
    """`mean ± standard deviation`, or the only value."""
    centre = _cell(sum(values) / len(values))
    if len(values) == 1 or not all(map(math.isfinite, values)):
        return centre
    return f"{centre} ± {statistics.stdev(values):.1g}"


def groups(rows: Sequence[Mapping[str, Cell]], keys: Sequence[str]) -> Iterator[list[Row]]:
    """The rows that agree in `keys`, in the order in which they first come."""
    found: dict[tuple[Cell, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(name, "") for name in keys), []).append(dict(row))
    yield from found.values()


def number(row: Mapping[str, Cell], name: str) -> float:
    """A cell that is a number; NaN where it is missing."""
    value = row.get(name, math.nan)
    return float(value) if isinstance(value, (int, float)) else math.nan


def curve(row: Mapping[str, Cell], name: str) -> tuple[float, ...]:
    """A cell that is a curve; empty where it is missing."""
    value = row.get(name, ())
    return value if isinstance(value, tuple) else ()


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.2e}"
    return _text(value)
