"""The documents: what they tell to type works, their links lead somewhere, no option is left out.

On the pages of `docs/guide`, blocks marked ```console and ```python are run from top to bottom, each page in
a folder of its own; a block with a file's name after its language is that file, and one marked `slow` is run
by `make test-long`. In a console block, what follows `$ ` is typed and the rest is what comes, where any
number stands for a number, and `…` for anything.
"""

import ast
import os
import re
import runpy
import shlex
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import pdeforecast
from pdeforecast import cli

ROOT = Path(__file__).parents[1]
PACKAGE = Path(pdeforecast.__file__).parent
PAGES = sorted((ROOT / "docs" / "guide").glob("*.md"))
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the other words of that line, its text, and its first line's number."""

    language: str
    words: list[str]
    text: str
    line: int

    @property
    def slow(self) -> bool:
        return "slow" in self.words


def blocks(text: str) -> Iterator[Block]:
    for found in re.finditer(r"^```(\w+)[ ]*([^\n`]*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        yield Block(found[1], found[2].split(), found[3], text.count("\n", 0, found.start()) + 2)


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that are said to come."""
    for part in re.split(r"^\$ ", text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        first, *rest = part.splitlines()
        yield first, [line for line in rest if line.strip()]


def typed(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints; ours runs in this process, which is quicker. `|| true` permits an error."""
    may_fail = command.endswith(" || true")
    words = shlex.split(command.removesuffix(" || true"), comments=True)
    if words[0] != "pdeforecast":
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout + done.stderr
    capsys.readouterr()
    code = cli.main(words[1:])
    out, err = capsys.readouterr()
    assert code == 0 or may_fail, f"{command}\n{out}{err}"
    return out + err


def pattern(line: str) -> str:
    """A regular expression for a line of output."""
    parts = re.split(r"(\d[\d.e+-]*|…)", line.rstrip())
    return "".join(
        ".*" if part == "…" else r"[\d.e+-]+" if part[:1].isdigit() else re.escape(part) for part in parts
    )


def check_output(command: str, expected: list[str], output: str) -> None:
    """That the lines said to come do come, in their order; others may come between."""
    lines = iter(output.splitlines())
    for line in expected:
        matching = re.compile(pattern(line) + r"\s*$")
        assert any(matching.match(other) for other in lines), f"$ {command}\n{line!r} is not in\n{output}"


def run(page: Path, capsys: pytest.CaptureFixture[str], slow: bool) -> None:
    """The blocks of a page, in the working folder."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page.read_text()):
        if block.slow and not slow:
            continue
        if block.words and "." in block.words[0]:
            Path(block.words[0]).write_text(block.text)
        elif block.language == "console":
            for command, expected in commands(block.text):
                check_output(command, expected, typed(command, capsys))
        elif block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    run(page, capsys, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(b.slow for b in blocks(p.read_text()))], ids=lambda page: page.stem
)
def test_a_page_runs_whole(
    page: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    run(page, capsys, slow=True)


def test_outputs_are_compared_by_their_words() -> None:
    check_output(
        "c", ["states 3, seed 7", "cause …"], "before\nstates 12, seed 1e-05\nbetween\ncause is this\n"
    )
    for expected in (["states x"], ["cause …", "states 1, seed 2"]):
        with pytest.raises(AssertionError):
            check_output("c", expected, "states 3, seed 7\ncause is this\n")


# --- links and completeness ----------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", plain, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", document.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        there = (document.parent / target).resolve() if target else document
        assert there.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(there.read_text()), f"{target}#{anchor} is not there"


def test_every_page_and_notebook_is_in_the_contents() -> None:
    contents = (ROOT / "docs" / "README.md").read_text()
    for path in (*PAGES, *NOTEBOOKS):
        assert f"({path.relative_to(ROOT / 'docs')})" in contents, f"{path.name} is not in docs/README.md"


@pytest.mark.parametrize("picture", sorted((ROOT / "docs").rglob("*.png")), ids=lambda path: path.stem)
def test_a_picture_is_small(picture: Path) -> None:
    assert picture.stat().st_size < 300_000


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        cli.main([*words, "--help"])
    return capsys.readouterr().out


def test_every_verb_and_option_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    told = "\n".join(path.read_text() for path in DOCUMENTS)
    verbs = re.findall(r"^    (\w+) ", help_of([], capsys).split("VERB\n")[-1], flags=re.MULTILINE)
    assert len(verbs) > 5
    for verb in verbs:
        assert f"pdeforecast {verb}" in told, f"`{verb}` is nowhere"
        for option in set(re.findall(r"--[a-z][a-z-]*", help_of([verb], capsys))):
            assert re.search(rf"{option}(?![\w-])", told), f"`{verb} {option}` is nowhere"


# --- reference -----------------------------------------------------------------------------------


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if not path.stem.startswith("_")]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_module_says_what_it_is(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text())), f"{module} has no docstring"


def test_the_reference_is_rendered(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="the reference needs pdoc: pip install 'pdeforecast[docs]'")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        runpy.run_path(str(ROOT / "docs" / "reference.py"))["render"](tmp_path)
    for module in MODULES:
        page = tmp_path / module.relative_to(PACKAGE.parent).with_suffix(".html")
        assert page.exists(), f"{module} is not in the reference"


# --- notebooks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    nbformat = pytest.importorskip(
        "nbformat", reason="notebooks need nbformat: pip install 'pdeforecast[dev]'"
    )
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("nbformat", "nbclient", "ipykernel"):
        pytest.importorskip(name, reason=f"notebooks need {name}: pip install 'pdeforecast[dev]'")
    import nbclient
    import nbformat

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    places = {"metadata": {"path": str(tmp_path)}}
    # A kernel starts slowly on a busy machine.
    nbclient.NotebookClient(notebook, timeout=600, startup_timeout=300, resources=places).execute()
