"""Shipped models are what their cards say: scored again on unseen states that no card has seen."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from pdeforecast import checkpoint, generation
from pdeforecast.bench.report import tables_of
from pdeforecast.bench.scores import errors_of
from pdeforecast.bench.study import leads_of, state_of
from pdeforecast.config import KernelDynamicsConfig
from pdeforecast.pdes import PDES, make

SAMPLES = {"convection": 1, "shallow-water": 1}
"""Of those whose solvers take long; four of the others."""


@pytest.mark.parametrize("name", checkpoint.shipped())
def test_a_shipped_model_is_what_its_card_says(name: str) -> None:
    model = checkpoint.load(name)
    data, stated = model.card["data"], model.card["errors"]["1"]
    known = {field.name for field in fields(PDES[data["equation"]])} - {"frames", "interval", "step"}
    pde = make(data["equation"], {k: v for k, v in json.loads(data["parameters"]).items() if k in known})
    made = list(generation.generate(pde, SAMPLES.get(name, 4), seed=77, split="test"))
    truth = generation.assemble(pde, made, 77, "test")
    found = errors_of(model.forecast(state_of(truth), leads_of(truth)), truth)
    for window in ("t_in", "t_out"):
        assert 0.2 < found[0][f"paper_{window}"] / stated[f"{window}_mse"] < 5
    for row in found:
        assert 0.4 < row["t_in_l2"] / stated["relative_l2"][row["variable"]][0] < 2.5


@pytest.mark.parametrize("name", checkpoint.shipped())
def test_the_page_of_a_card_tells_of_the_weights_beside_it(name: str) -> None:
    model, page = checkpoint.load(name), checkpoint.shipped()[name].with_suffix(".md").read_text()
    card = model.card
    told = [card["command"], card["data"]["command"], f"{card['seconds'] / 60:.1f} minutes"]
    windows = ("lead_0", "t_in", "t_out")
    for share, stated in card["errors"].items():
        errors = " | ".join(f"{stated[f'{window}_mse']:.1e}" for window in windows)
        told.append(f"| {float(share):.0%} | {errors} |")
    if isinstance(model.config.dynamics, KernelDynamicsConfig):
        told += [f"{model.config.dynamics.modes} zonal harmonics", "with what lies between them"]
    assert [text for text in told if text not in page] == []


TABLES = Path(__file__).parents[1] / "benchmarks" / "results" / "suites"


def tables() -> Iterator[tuple[str, str]]:
    for folder in sorted(TABLES.iterdir()):
        yield from ((folder.name, suite) for suite in tables_of(folder))


@pytest.mark.parametrize(("equation", "suite"), list(tables()))
def test_a_table_of_results_is_of_the_weights_that_ship(equation: str, suite: str) -> None:
    rows = [row for row in tables_of(TABLES / equation)[suite] if row["method"] == equation]
    known = {f"{equation}@{row['identity']}" for row in rows}
    assert known == {checkpoint.load(equation).identity} or (suite == "efficiency" and not rows)
