"""The suites, and what all of them do: go on with a table, print it, keep it as Markdown, draw it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from pdeforecast.bench import efficiency, equivariance, forecast, horizon, latents, sparse, split, superres
from pdeforecast.bench.methods import Method
from pdeforecast.bench.study import Study
from pdeforecast.bench.table import Case, Row, complete, left
from pdeforecast.errors import UsageError
from pdeforecast.replacing import replacing


@dataclass(frozen=True)
class Suite:
    """One kind of measurement.

    Attributes:
        about: what it measures, for the command line.
        cases: what there is to compute for a study.
        page: rows as Markdown.
        draw: writes pictures of rows into a folder.
        inside: whether it looks into latents, which only this package's models have.
        trains: whether it trains: then it is given names of presets and kinds, and the budget is that of each
            training.
    """

    about: str
    cases: Callable[[Study], list[Case]]
    page: Callable[[Sequence[Row]], str]
    draw: Callable[[Sequence[Row], Path], list[Path]]
    inside: bool = False
    trains: bool = False


SUITES = {
    "forecast": Suite("t_in and t_out, of every variable", forecast.cases, forecast.page, forecast.draw),
    "sparse": Suite("from a share of the points", sparse.cases, sparse.page, sparse.draw),
    "superres": Suite("on finer grids than were learned", superres.cases, superres.page, superres.draw),
    "horizon": Suite("to five times the trained horizon", horizon.cases, horizon.page, horizon.draw),
    "equivariance": Suite(
        "whether the forecast moves with the world",
        equivariance.cases,
        equivariance.page,
        equivariance.draw,
    ),
    "split": Suite(
        "what decoding, encoding and dynamics contribute", split.cases, split.page, split.draw, inside=True
    ),
    "latents": Suite("how states are best encoded", latents.cases, latents.page, latents.draw, inside=True),
    "efficiency": Suite(
        "from how many trajectories", efficiency.cases, efficiency.page, efficiency.draw, trains=True
    ),
}


def go(name: str, study: Study) -> tuple[str, list[Path]]:
    """The page of a suite, after computing what its table lacks, and the files that were written."""
    suite = SUITES[name]
    cases = suite.cases(study)
    study.check()
    study.folder.mkdir(parents=True, exist_ok=True)
    table = study.folder / f"{name}.csv"
    rows = complete(table, cases, study.stamp(), 0.0 if suite.trains else study.budget)
    missing = left(rows, cases)
    told = f"\nThe budget left {missing} of {len(cases)} cases; the same command goes on." if missing else ""
    if not rows:
        return f"nothing was measured within the budget{told}", []
    page = f"{suite.page(rows)}\n\n{provenance(rows)}\n"
    with replacing(study.folder / f"{name}.md") as beside:
        beside.write_text(page, encoding="utf-8")
    return f"{page}{told}", [table, table.with_suffix(".md"), *suite.draw(rows, study.folder)]


@dataclass(frozen=True)
class ToTrain:
    """A preset or a kind that a suite trains itself, by its name."""

    name: str

    def forecast(
        self,
        state: xr.Dataset,
        lead_time: Sequence[float],
        grid: Mapping[str, int] | None = None,
        like: xr.Dataset | None = None,
    ) -> xr.Dataset:
        """Nothing yet: it is trained first."""
        raise UsageError(f"expected a trained method; {self.name} is none yet.", "Train it first.")


def to_train(name: str) -> Method:
    """What `bench efficiency` is given.

    Raises:
        UsageError: if it is neither a preset nor a kind.
    """
    efficiency.check_name(name)
    return ToTrain(name)


def provenance(rows: Sequence[Row]) -> str:
    """A line for every way in which rows were measured: seeds, samples, device, commit and command."""
    lines = []
    for command in dict.fromkeys(str(row.get("command", "")) for row in rows):
        own = [row for row in rows if str(row.get("command", "")) == command]
        said = {
            name: ", ".join(dict.fromkeys(str(row[name]) for row in own if name in row))
            for name in ("seed", "samples", "device", "commit")
        }
        trained = dict.fromkeys(f"{row['method']} {row['training']}" for row in own if "training" in row)
        said["training"] = ", ".join(trained)
        known = "; ".join(f"{name} {value}" for name, value in said.items() if value)
        lines.append(f"`{command}`: {known}")
    return "\n".join(lines)
