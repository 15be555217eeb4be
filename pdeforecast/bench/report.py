"""`bench report`: the tables of a folder as one page, the published figures beside ours.

Read are all CSV files that suites have left in the folder and below; of a method that was measured anew, with
other weights or on another number of samples, the latest rows. Pictures are drawn anew, with all methods of
their table. Written are `README.md` and `report.html`; the
latter holds all it needs (pictures, data, script) and refers to nothing outside. The published figures are
those of `page/published.csv`: mean square errors in raw units, transcribed, with their source.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from os import path
from pathlib import Path
from string import Template

from pdeforecast.bench.pictures import picture
from pdeforecast.bench.suites import SUITES, provenance
from pdeforecast.bench.table import Cell, Row, groups, markdown, number, over_seeds, read
from pdeforecast.bench.viewer import viewer
from pdeforecast.errors import DataError, UsageError
from pdeforecast.replacing import replacing
from pdeforecast.trajectory import open_dataset

TITLE = "Results"
ABOUT = "Written by `pdeforecast bench report` from the CSV files beside it."
PUBLISHED_NOTE = (
    "Published figures: arXiv 2406.06660 (transcribed, without their spread; its ENF is the reference of "
    "this package). All numbers are mean square errors in raw units over samples, points, variables and "
    "frames, frame 0 included. The published data differ from ours where they were at fault."
)

Tables = Mapping[str, Sequence[Row]]
"""The rows of every suite that has any."""


def write(folder: Path, output: Path, views: Sequence[Sequence[Path]] = ()) -> list[Path]:
    """Writes the pages of the tables in `folder` to `output`; the paths of both.

    Args:
        views: pairs of a forecast and its truth, as files, to look at in the page.

    Raises:
        UsageError: if the folder has no tables, or two for one method; if `output` holds a `README.md` that
            this did not write.
    """
    tables = tables_of(folder)
    if not tables:
        raise UsageError(
            f"expected tables of suites in {folder}; there are none.",
            f"Make one: `pdeforecast bench forecast MODEL -o {folder}`.",
        )
    made = [output / "README.md", output / "report.html"]
    if made[0].exists() and ABOUT not in made[0].read_text(encoding="utf-8"):
        raise UsageError(
            f"expected to write {made[0]}; there is one that `bench report` did not make.",
            "Give another folder: `-o results`.",
        )
    for name, suite in SUITES.items():
        for file in folder.rglob(f"{name}.csv"):
            suite.draw(latest(read(file)), file.parent)
    pictures = sorted(folder.rglob("*.png"))
    text = page(tables, pictures, output)
    output.mkdir(parents=True, exist_ok=True)
    with replacing(made[0]) as beside:
        beside.write_text(text, encoding="utf-8")
    with replacing(made[1]) as beside:
        beside.write_text(self_contained(text, output, views), encoding="utf-8")
    return made


def tables_of(folder: Path) -> dict[str, list[Row]]:
    """The rows of every suite, from all CSV files of its name in `folder` and below.

    Raises:
        UsageError: if a method was measured in two versions, in two folders.
    """
    found = {}
    for name in SUITES:
        tables = {file: latest(read(file)) for file in sorted(folder.rglob(f"{name}.csv"))}
        _check_once(tables)
        if rows := [row for own in tables.values() for row in own]:
            found[name] = rows
    return found


def _check_once(tables: Mapping[Path, Sequence[Row]]) -> None:
    """That no method was measured in two versions, in two folders: nothing tells which one holds."""
    known: dict[tuple[Cell, ...], tuple[Path, tuple[Cell, ...]]] = {}
    for file, rows in tables.items():
        for row in rows:
            other, version = known.setdefault(_contestant(row), (file, _version(row)))
            if version != _version(row):
                raise UsageError(
                    f"expected one measurement of {row.get('method', '-')} on {row.get('equation', '-')}; "
                    f"{other} and {file} have two, of other weights or numbers of samples.",
                    f"Remove one of them, such as `rm {other}`.",
                )


def latest(rows: Sequence[Row]) -> list[Row]:
    """Of every method on every equation, the rows of the weights and samples that were measured last."""
    last = {_contestant(row): _version(row) for row in rows}
    return [row for row in rows if last[_contestant(row)] == _version(row)]


def _contestant(row: Row) -> tuple[Cell, ...]:
    return row.get("equation", "-"), row.get("method", "-"), row.get("trajectories", "")


def _version(row: Row) -> tuple[Cell, ...]:
    return row.get("identity", "-"), row.get("samples", "")


# --- the page ------------------------------------------------------------------------------------


def page(tables: Tables, pictures: Sequence[Path], output: Path) -> str:
    """The page as Markdown: a chapter for each equation, a section for each suite."""
    equations = dict.fromkeys(str(row.get("equation", "-")) for rows in tables.values() for row in rows)
    parts = [f"# {TITLE}", ABOUT]
    for equation in equations:
        parts += [f"## {equation}", *_beside(tables, equation)]
        for name, rows in tables.items():
            own = [row for row in rows if str(row.get("equation", "-")) == equation]
            if own:
                prefix = picture(Path(), name, equation, "").stem
                shown = [file for file in pictures if file.name.startswith(prefix)]
                links = [f"![{file.stem}]({path.relpath(file, output)})" for file in shown]
                title = f"### {name}: {SUITES[name].about}"
                parts += [title, SUITES[name].page(own), *links, provenance(own)]
    return "\n\n".join(parts) + "\n"


def _beside(tables: Tables, equation: str) -> list[str]:
    """The published figures of an equation beside ours."""
    published = [row for row in published_figures() if row["equation"] == equation]
    if not published:
        return []
    ours = measured(tables, equation)
    methods = [*dict.fromkeys(str(row["method"]) for row in published)]
    own = list(dict.fromkeys(str(row["method"]) for row in ours))
    lines = []
    for group in groups(published, ("share", "trajectories", "window")):
        setting = group[0]
        line: Row = {"setting": _setting(setting)}
        line |= {f"{row['method']} (published)": number(row, "mse") for row in group}
        line |= {str(row["method"]): row["mse"] for row in ours if _agree(row, setting)}
        lines.append(line)
    columns = ["setting", *(f"{name} (published)" for name in methods), *own]
    return ["### Published figures beside ours", PUBLISHED_NOTE, markdown(lines, columns)]


def published_figures() -> list[Row]:
    """The figures of the paper, as rows with the equation, what was given, the window and the method."""
    with_path = files("pdeforecast.bench") / "page" / "published.csv"
    return read(Path(str(with_path)))


def measured(tables: Tables, equation: str) -> list[Row]:
    """Ours in the same terms: mean and spread over seeds, by share and number of trajectories."""
    found: list[Row] = []
    sources: Sequence[tuple[str, Row]] = (
        ("sparse", {}),
        ("forecast", {"share": 1}),
        ("efficiency", {"share": 1}),
    )
    for name, given in sources:
        rows = [
            {**row, **given}
            for row in tables.get(name, ())
            if row.get("equation") == equation and row.get("observed", "grid") == "grid"
        ]
        # A paper's number is over all variables at once, and stands in the row of each.
        first = [row for row in rows if row.get("variable") == rows[0].get("variable")]
        for window in ("t_in", "t_out"):
            means = over_seeds(first, ("method", "share", "trajectories"), (f"paper_{window}",))
            found += [
                {**row, "window": window, "mse": row[f"paper_{window}"]}
                for row in means
                if f"paper_{window}" in row
            ]
    unique = {
        tuple(row.get(k, "") for k in ("method", "share", "trajectories", "window")): row for row in found
    }
    return list(unique.values())


def _agree(row: Row, setting: Row) -> bool:
    """Whether ours was measured as the published figure was; a model's own training data count as any."""
    same = all(row.get(key) == setting.get(key) for key in ("share", "window"))
    return same and row.get("trajectories", setting.get("trajectories")) == setting.get("trajectories")


def _setting(row: Row) -> str:
    words = [f"{number(row, 'share'):.0%} of the state"]
    if "trajectories" in row:
        words.append(f"{row['trajectories']} trajectories")
    return ", ".join([*words, str(row["window"])])


# --- one file of HTML ----------------------------------------------------------------------------


def self_contained(text: str, output: Path, views: Sequence[Sequence[Path]]) -> str:
    """The page as HTML, its pictures inside, and viewers after its title."""
    folder = files("pdeforecast.bench") / "page"
    head, about, *rest = html(text, output)
    looks = []
    for forecast, truth in views:
        looks.append(
            viewer(open_dataset(forecast), open_dataset(truth), f"{forecast.stem} beside {truth.stem}")
        )
    if looks:
        looks = ["<h2>Forecasts to look at</h2>", *looks]
    template = Template((folder / "report.html").read_text(encoding="utf-8"))
    body = "\n".join([head, about, *looks, *rest])
    script = (folder / "viewer.js").read_text(encoding="utf-8")
    return template.substitute(title=TITLE, body=body, script=script)


def html(text: str, folder: Path) -> list[str]:
    """Markdown as this package writes it (headings, tables, lists, pictures, paragraphs), as HTML blocks."""
    made = []
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        if heading := re.fullmatch(r"(#+) (.*)", block):
            level = len(heading[1])
            made.append(f"<h{level}>{_inline(heading[2])}</h{level}>")
        elif picture := re.fullmatch(r"!\[(.*)\]\((.*)\)", block):
            made.append(f'<img alt="{escape(picture[1])}" src="{_inside(folder / picture[2])}">')
        elif block.startswith("|"):
            made.append(_table(lines))
        elif all(line.startswith("- ") for line in lines):
            items = "".join(f"<li>{_inline(line[2:])}</li>" for line in lines)
            made.append(f"<ul>{items}</ul>")
        else:
            made.append(f"<p>{'<br>'.join(map(_inline, lines))}</p>")
    return made


def _table(lines: Sequence[str]) -> str:
    cells = [[_inline(cell.strip()) for cell in line.strip("|").split("|")] for line in lines]
    head = "".join(f"<th>{cell}</th>" for cell in cells[0])
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells[2:])
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _inside(file: Path) -> str:
    """A picture as a data address."""
    if not file.is_file():
        raise DataError(f"expected a picture; there is no {file}.", "Measure again, or remove its table.")
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
