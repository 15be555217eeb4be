"""Imports point down only; the model knows no equation, equations no network, networks no geometry."""

import ast
import re
from itertools import chain
from pathlib import Path

import pytest

from pdeforecast.geometry import GEOMETRIES
from pdeforecast.pdes import PDES

ROOT = Path(__file__).parents[1]
LAYERS = (
    {"packed"},
    {"errors", "kept", "replacing", "observed", "cells", "between_frames"},
    {"config", "geometry", "solvers", "parallel"},
    {"latents", "neighbours", "trajectory", "messages"},
    {"field", "linear_field", "dynamics", "linear_dynamics"},
    {"encoder", "rollout", "decoding"},
    {"preconditioner"},
    {"local_prior"},
    {"principal"},
    {"kernel_dynamics"},
    {"familiarity", "assimilation"},
    {"trust"},
    {"forecaster", "pdes"},
    {"precision"},
    {"generation", "checkpoint", "metrics", "training", "testing", "convert", "inspection"},
    {"plot", "presets", "calibration", "description", "defaults", "logs"},
    {"run", "bench"},
    {"cli", "__init__", "__main__"},
)
AMBIGUOUS = {"height"}
"""Fields whose name is a word for other things as well: the sizes of cylinders and of pictures."""
DEPTH = {part: depth for depth, layer in enumerate(LAYERS) for part in layer}
EQUATIONS = {"pdes", "solvers", "generation"}
BLIND = {
    "packed",
    "kept",
    "observed",
    "field",
    "linear_field",
    "neighbours",
    "encoder",
    "preconditioner",
    "local_prior",
    "principal",
    "messages",
    "dynamics",
}
BLIND |= {"linear_dynamics", "rollout", "forecaster", "assimilation", "decoding"}

FILES = {path.relative_to(ROOT / "pdeforecast"): path for path in (ROOT / "pdeforecast").rglob("*.py")}
MODULES = {".".join(("pdeforecast", *p.with_suffix("").parts)).removesuffix(".__init__"): p for p in FILES}
EVERYTHING = [*FILES.values(), *(ROOT / "benchmarks").rglob("*.py")]


def part(file: Path) -> str:
    """The name in LAYERS of a file: its folder, else itself."""
    return file.parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """All that a file names in imports, wherever they stand; `from a import b` is a.b, module or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they point"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(file: Path) -> set[Path]:
    """The files of the package that a file imports; a package itself only for what is no module."""
    names = imports(FILES[file])
    modules = {name if name in MODULES else name.rpartition(".")[0] for name in names}
    return {MODULES[name] for name in modules if name in MODULES} - {file}


def mentions(file: Path, words: set[str]) -> set[str]:
    return {word for word in words if re.search(rf"(?<![a-z]){word}", FILES[file].read_text(), re.IGNORECASE)}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_point_down(file: Path) -> None:
    up = {other for other in own(file) if DEPTH[part(other)] > DEPTH[part(file)]}
    assert not up, f"{file} imports {', '.join(map(str, up))} from above"


def test_no_cycles() -> None:
    waiting = {file: own(file) for file in FILES}
    while free := {file for file, needs in waiting.items() if not needs & waiting.keys()}:
        waiting = {file: needs for file, needs in waiting.items() if file not in free}
    assert not waiting, f"a cycle among {', '.join(map(str, waiting))}"


@pytest.mark.parametrize("file", [f for f in FILES if DEPTH[part(f)] < len(LAYERS) - 1], ids=str)
def test_the_model_names_no_equation(file: Path) -> None:
    if part(file) not in EQUATIONS:
        fields = chain.from_iterable((*pde.variables, *pde.statics) for pde in PDES.values())
        names = {name.split("-")[0] for name in PDES} | set(fields)
        assert not mentions(file, names - AMBIGUOUS)


@pytest.mark.parametrize("file", [f for f in FILES if part(f) in {"pdes", "solvers"}], ids=str)
def test_equations_and_solvers_hold_no_networks(file: Path) -> None:
    assert not {name for name in imports(FILES[file]) if name.startswith("torch.nn")}


@pytest.mark.parametrize("file", [f for f in FILES if part(f) in BLIND], ids=str)
def test_networks_know_no_geometry_by_name(file: Path) -> None:
    kinds = {word for g in GEOMETRIES.values() for word in (g.name, type(g).__name__)}
    assert not mentions(file, kinds | {"torus", "sphere"})


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda p: str(p.relative_to(ROOT)))
def test_nobody_pickles(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] in {"pickle", "dill", "joblib"}}
