"""Measure a trained run on unseen flows, write its card, and put it among the shipped models.

    python benchmarks/ship.py RUN_DIR navier-stokes --samples 32 --seed 1000

The model's errors, at full and partial observation, and its equivariance error go into the checkpoint's
card and into `pdeforecast/pretrained/NAME.md`.
"""

import argparse
from pathlib import Path

import torch
from accuracy import LEADS, SHARES, TEST, forecaster, observed, scores, trajectories
from equivariance import LEADS as SHIFT_LEADS
from equivariance import shifts

import pdeforecast as pf

PRETRAINED = Path(pf.__file__).parent / "pretrained"

CARD = """# {name}

Forecasts {variables} ({equation}) on the geometry `{geometry}`, from a state observed anywhere, at any lead time and any point.

| | |
|---|---|
| training data | `{data_command}`: seed {seed}, split {split}, {samples} trajectories, t = 0 … {horizon:g}, {parameters} |
| training | `{command}` |
| settings | {settings} |
| time and device | {minutes:.0f} minutes on {device}; {note}; {versions} |
| weights | {weights:,} in the dynamics, and a prior over {numbers} numbers per state |

## Measured on {count} unseen trajectories

`python benchmarks/ship.py RUN_DIR {name} --samples {count} --seed {test_seed}`: split `test`, seed {test_seed}, mean square error of vorticity
(its mean square is about 1), over all samples and grid points.

| observed at t = 0 | lead 0 | leads 0 … 9 | leads 10 … 19 | relative L2, leads 1 … 19 (mean) |
|---|---|---|---|---|
{errors}

Lead 4 / 4.5 / 5: {between}. Root mean square at lead 50 over the truth's: {alive:.2f}.

Relative L2 between the moved forecast and the forecast of the moved state, at leads {shift_leads}:
a shift by lattice cells {lattice}; any other shift {any_shift}.

## Limits

- Trained at one viscosity and one forcing amplitude; other forcing phases are inside its symmetry, other viscosities are not.
- Errors grow about ×4 in five time units, as those of the equation itself do; beyond lead time {horizon:g} it extrapolates.
- It needs the static field `forcing` in the state's Dataset, on any grid.
"""


def main() -> None:
    """Measure and ship."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1000)
    options = parser.parse_args()
    model = pf.load(options.run)
    predict = forecaster(str(options.run))
    test = trajectories(TEST, options.samples, options.seed, "test")
    truth = test["vorticity"].sel(time=LEADS).transpose("sample", "time", "y", "x").values
    rows = {}
    for share in SHARES:
        state = observed(test, share, options.seed)
        rows[share] = scores(predict(state, LEADS, truth.shape[-1]), truth)
        print(f"{share:.0%}", {key: f"{value:.3g}" for key, value in rows[share].items()}, flush=True)
    errors = shifts(model, test.isel(time=0), options.seed)
    moved = dict(zip(("lattice", "any_shift"), errors.values(), strict=True))
    model.card |= {"errors": {f"{share:g}": row for share, row in rows.items()}, "test_seed": options.seed}
    model.card["equivariance"] = {key: [float(v) for v in values] for key, values in moved.items()}
    model.card["summary"] = [
        f"{share:.0%} observed: MSE {row['lead_0_mse']:.1e} at lead 0, {row['t_in_mse']:.1e} over leads 0 … 9, "
        f"{row['t_out_mse']:.1e} over 10 … 19"
        for share, row in rows.items()
    ]
    PRETRAINED.mkdir(exist_ok=True)
    pf.save(model, PRETRAINED / f"{options.name}.safetensors")
    (PRETRAINED / f"{options.name}.md").write_text(card(model, options, rows, moved))


def card(model: pf.Forecaster, options: argparse.Namespace, rows: dict, moved: dict) -> str:
    """The model card, in Markdown."""
    known, full = model.card, rows[1.0]
    data = known["data"]
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
        parameters=data["parameters"],
        command=known["command"],
        minutes=known["seconds"] / 60,
        device=known["device"],
        note=known.get("note", "uninterrupted"),
        settings=", ".join(f"{key} {value}" for key, value in known["training"].items()),
        versions=known["versions"],
        weights=sum(p.numel() for p in model.dynamics.parameters()),
        numbers=model.config.field.latents * model.field.context_dim,
        count=options.samples,
        test_seed=options.seed,
        errors="\n".join(
            f"| {share:.0%} | {row['lead_0_mse']:.1e} | {row['t_in_mse']:.1e} | {row['t_out_mse']:.1e} "
            f"| {row['relative_l2_mean']:.3f} |"
            for share, row in rows.items()
        ),
        between=" / ".join(f"{full[key]:.1e}" for key in ("lead_4_mse", "lead_4.5_mse", "lead_5_mse")),
        alive=full["rms_50"],
        shift_leads=", ".join(f"{lead:g}" for lead in SHIFT_LEADS),
        **{key: ", ".join(f"{v:.0e}" for v in values) for key, values in moved.items()},
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
