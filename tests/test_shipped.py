"""Shipped models are what their cards say: scored again on unseen states that no card has seen."""

import json
from dataclasses import fields

import pytest

from pdeforecast import checkpoint, generation
from pdeforecast.bench.scores import errors_of
from pdeforecast.bench.study import leads_of, state_of
from pdeforecast.config import KernelDynamicsConfig
from pdeforecast.pdes import PDES, make

COSTLY = {"convection", "shallow-water"}
"""Their solvers take too long for every day."""
MODELS = [
    pytest.param(name, marks=pytest.mark.slow) if name in COSTLY else name for name in checkpoint.shipped()
]


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_is_what_its_card_says(name: str) -> None:
    model = checkpoint.load(name)
    data, stated = model.card["data"], model.card["errors"]["1"]
    known = {field.name for field in fields(PDES[data["equation"]])} - {"frames", "interval", "step"}
    pde = make(data["equation"], {k: v for k, v in json.loads(data["parameters"]).items() if k in known})
    made = list(generation.generate(pde, 4, seed=77, split="test"))
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
        told += [f"{model.config.dynamics.waves:,} waves", f"{model.config.dynamics.modes} zonal harmonics"]
    assert [text for text in told if text not in page] == []
