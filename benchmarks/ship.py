"""Measure a trained run on unseen states, write its card, and put it among the shipped models.

    python benchmarks/ship.py RUN_DIR NAME --samples 32 --seed 1000
    python benchmarks/ship.py RUN_DIR NAME --truth TEST.nc
    python benchmarks/calibrate.py NAME                 (then: on validation states, what is usual)

The model's errors, from all points of a state and from few of them, and its equivariance error go into
the checkpoint's card and into `pdeforecast/pretrained/NAME.md`. Truth is generated (split `test`), or read from
a file of trajectories.
"""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xarray as xr

import pdeforecast as pf
from pdeforecast.bench.equivariance import Equivariance, equivariance
from pdeforecast.bench.scores import errors_of, evolving
from pdeforecast.bench.sparse import SHARES, gaps
from pdeforecast.bench.study import Model, Study, leads_of, state_of
from pdeforecast.geometry import GEOMETRIES

PRETRAINED = Path(pf.__file__).parent / "pretrained"
MOTIONS, MOVED = 4, 8

CARD = """# {name}

Forecasts {variables} ({equation}) on the geometry `{geometry}`, from a state observed anywhere, at any lead time and any point.

| | |
|---|---|
| training data | `{data_command}`: seed {seed}, split {split}, {samples} trajectories over {horizon:g} {unit}, {parameters}{recipe} |
| training | `{command}` |
| settings | {settings} |
| time and device | {minutes:.1f} minutes on {device}; {versions} |
| weights | {weights} |

## Measured on {count} unseen trajectories

`{measured}`: {truth}. Mean square error over all variables, samples and grid points, at lead 0, over the first ten frames (in) and
over those after them (out); relative L2 weighted by area or volume, lead 0 apart.

{errors}

## Equivariance

The moved forecast against the forecast of the moved state, relative L2 over {moved} states and {motions} random motions of the world
(by the same command):

{equivariance}

## Limits

{limits}
"""


def main() -> None:
    """Measure and ship."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--truth", type=Path, help="trajectories to measure on (newly generated ones)")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1000, help="of the states, and of the points observed")
    parser.add_argument("--cache", type=Path, default=Path("truth"), help="where generated truth is kept")
    parser.add_argument("--limit", action="append", default=[], help="a further line of the card's limits")
    options = parser.parse_args()
    model = pf.load(options.run)
    data = options.truth or options.cache
    study = Study([Model(options.name, model)], options.cache, (options.seed,), options.samples, data)
    truth = study.truth(options.seed).load()
    rows = {share: measured(model, truth, share, options.seed) for share in SHARES}
    leads = leads_of(truth)
    moved = equivariance(
        model,
        state_of(truth).isel(sample=slice(MOVED)),
        [leads[i] for i in sorted({0, 1, len(leads) // 4, len(leads) // 2, len(leads) - 1})],
        GEOMETRIES[model.geometry.domain].random_motion(MOTIONS, torch.Generator().manual_seed(options.seed)),
    )
    model.card |= {
        "errors": {f"{share:g}": row for share, row in rows.items()},
        "test_seed": options.seed,
        "measured_horizon": leads[-1],
        "test_samples": truth.sizes["sample"],
        "equivariance": {
            "lead_times": moved.lead_times,
            "pipeline": moved.pipeline,
            "latents": moved.latents,
        },
        "summary": [summary(share, row) for share, row in rows.items()],
    }
    PRETRAINED.mkdir(exist_ok=True)
    pf.save(model, PRETRAINED / f"{options.name}.safetensors")
    text = card(model, options, truth, rows, moved)
    (PRETRAINED / f"{options.name}.md").write_text(text)
    print(text)


def measured(model: pf.Forecaster, truth: xr.Dataset, share: float, seed: int) -> dict[str, Any]:
    """The errors from a share of the points of the first frame."""
    full = state_of(truth)
    state = gaps(full, list(evolving(truth)), share, seed)
    found = errors_of(model.forecast(state, leads_of(truth), like=full), truth)
    plain = {"t_in_mse": found[0]["paper_t_in"], "t_out_mse": found[0].get("paper_t_out")}
    lead_0 = sum(float(row["lead_0_mse"]) for row in found) / len(found)
    l2 = {str(row["variable"]): (row["t_in_l2"], row.get("t_out_l2")) for row in found}
    return {"lead_0_mse": lead_0, **plain, "relative_l2": l2}


def summary(share: float, row: Mapping[str, Any]) -> str:
    """A line for `pdeforecast models`."""
    l2 = ", ".join(f"{name} {pair[0]:.2g}" for name, pair in row["relative_l2"].items())
    return f"{share:.0%} observed: MSE {row['t_in_mse']:.1e} over t_in; relative L2 {l2}"


def table(rows: Mapping[float, Mapping[str, Any]]) -> str:
    """The errors, in Markdown."""
    names = list(rows[1.0]["relative_l2"])
    head = ["observed", "MSE, lead 0", "MSE, in", "MSE, out", *(f"L2 of {name}, in / out" for name in names)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for share, row in rows.items():
        pairs = [" / ".join(shown(value, "#.2g") for value in row["relative_l2"][name]) for name in names]
        plain = [shown(row[key], ".1e") for key in ("lead_0_mse", "t_in_mse", "t_out_mse")]
        lines.append(f"| {share:.0%} | " + " | ".join([*plain, *pairs]) + " |")
    return "\n".join(lines)


def shown(value: float | None, form: str) -> str:
    """A number that may not be known."""
    return "" if value is None else format(value, form)


def card(
    model: pf.Forecaster,
    options: argparse.Namespace,
    truth: xr.Dataset,
    rows: Mapping[float, Mapping[str, Any]],
    moved: Equivariance,
) -> str:
    """The model card, in Markdown."""
    known, data = model.card, model.card["data"]
    hash_of_recipe = f", recipe {data['recipe_hash'][:12]}" if "recipe_hash" in data else ""
    unit = "" if model.config.time_unit == "1" else model.config.time_unit
    return CARD.format(
        name=options.name,
        variables=", ".join(model.config.variables),
        equation=data["equation"],
        geometry=model.config.geometry,
        data_command=data["command"],
        seed=data["seed"],
        split=data["split"],
        samples=data["samples"],
        horizon=known["horizon"],
        unit=unit or "time units",
        parameters=data["parameters"],
        recipe=hash_of_recipe,
        command=known["command"],
        minutes=known["seconds"] / 60,
        device=known["device"],
        settings=", ".join(f"{key} {value}" for key, value in known["training"].items()),
        versions=known["versions"],
        weights=weights(model),
        count=truth.sizes["sample"],
        measured=shlex.join(
            ["python", "benchmarks/ship.py", "RUN_DIR", options.name, *truth_options(options)]
        ),
        truth=f"split {truth.attrs.get('split', '?')}, seed {truth.attrs.get('seed', '?')}",
        errors=table(rows),
        moved=min(MOVED, truth.sizes["sample"]),
        motions=MOTIONS,
        equivariance=moved.markdown(),
        limits="\n".join(f"- {line}" for line in limits(model, unit, options.limit)),
    )


def truth_options(options: argparse.Namespace) -> list[str]:
    """What was typed to say which truth."""
    which = [] if options.truth is None else ["--truth", f"data/{options.name}/{options.truth.name}"]
    return [*which, "--samples", str(options.samples), "--seed", str(options.seed)]


def weights(model: pf.Forecaster) -> str:
    """What was learned."""
    numbers = model.config.field.latents * model.field.context_dim
    if model.linear is not None and model.linear.sufficient:
        modes = int(model.encoder.modes.any(0).sum())
        return f"a prior over {numbers} numbers per state in {modes} modes, which move linearly; no network"
    if model.remembers:
        own = model.config.dynamics
        between = "with what lies between them, " if own.between else ""
        return (
            f"{own.trajectories} trajectories of {own.frames} frames in {own.modes} zonal harmonics, remembered, "
            f"{between}and a prior over {numbers} numbers per state; no network"
        )
    count = sum(p.numel() for p in model.dynamics.parameters())
    return f"{count:,} in the dynamics, and a prior over {numbers} numbers per state"


def limits(model: pf.Forecaster, unit: str, further: Sequence[str]) -> list[str]:
    """What the model cannot be asked."""
    made = [
        "Trained at one set of parameters of the equation; at others its forecasts are wrong, and nothing tells it.",
        f"Beyond lead time {model.card['horizon']:g}{' ' + unit if unit else ''} it extrapolates.",
    ]
    if model.config.statics:
        made.append(f"It needs {', '.join(model.config.statics)} in the state's Dataset, on any grid.")
    return [*made, *further]


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
