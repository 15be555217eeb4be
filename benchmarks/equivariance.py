"""How equivariant: move state and forcing together, and see whether the forecast moves along.

    python benchmarks/equivariance.py --model navier-stokes --samples 16 --seed 1000

The dynamics and the field commute with every translation exactly. The encoder starts from a fixed
lattice, so the pipeline as a whole commutes exactly with shifts by a lattice cell (up to rounding), and
with other shifts as well as it encodes. Three rows are printed:

    lattice shift     relative L2 between the moved forecast and the forecast of the moved state
    any shift         the same, for random shifts (by Fourier interpolation of the state)
    other phase       error of forecasts under a forcing at another phase, beside the usual phase
"""

import argparse
import csv
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import pdeforecast as pf
from pdeforecast.generation import assemble, generate
from pdeforecast.pdes.navier_stokes import NavierStokes
from pdeforecast.solvers.torus import translate

LEADS = [0.0, 1.0, 5.0, 10.0, 19.0]
RESULTS = Path(__file__).parent / "results" / "equivariance.csv"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="navier-stokes")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    model = pf.load(options.model)
    usual = trajectories(NavierStokes(), options.samples, options.seed)
    state = usual.isel(time=0)
    cell = model.geometry.spacing(model.config.field.latents)
    draw = np.random.default_rng(options.seed)
    rows = {
        "lattice shift (3, −1 cells)": shifted(model, state, -cell, 3 * cell),
        "any shift (mean of 4)": np.mean([shifted(model, state, *draw.random(2)) for _ in range(4)], axis=0),
    }
    for name, pde in {
        "error, usual phase": NavierStokes(),
        "error, other phase": replace(NavierStokes(), phase_x=0.17, phase_y=0.41),
    }.items():
        rows[name] = error(model, trajectories(pde, options.samples, options.seed))
    report(rows, options)


def trajectories(pde: NavierStokes, samples: int, seed: int) -> xr.Dataset:
    """Unseen trajectories."""
    return assemble(pde, list(generate(pde, samples, seed, "test")), seed, "test")


def moved(ds: xr.Dataset, dy: float, dx: float) -> xr.Dataset:
    """Every field of `ds`, translated."""
    return ds.map(
        lambda a: (
            a.copy(data=translate(torch.from_numpy(a.values).double(), dy, dx).numpy())
            if "x" in a.dims
            else a
        )
    )


def shifted(model: pf.Forecaster, state: xr.Dataset, dy: float, dx: float) -> np.ndarray:
    """‖f(g u) − g f(u)‖ / ‖f(u)‖ per lead."""
    before = moved(model.forecast(state, LEADS), dy, dx).vorticity.values
    after = model.forecast(moved(state, dy, dx), LEADS).vorticity.values
    return np.sqrt(((after - before) ** 2).mean((0, 2, 3)) / (before**2).mean((0, 2, 3)))


def error(model: pf.Forecaster, truth: xr.Dataset) -> np.ndarray:
    """‖f(u) − truth‖ / ‖truth‖ per lead."""
    forecast = model.forecast(truth.isel(time=0), LEADS).vorticity.values
    reference = truth.vorticity.sel(time=LEADS).values
    return np.sqrt(((forecast - reference) ** 2).mean((0, 2, 3)) / (reference**2).mean((0, 2, 3)))


def report(rows: dict[str, np.ndarray], options: argparse.Namespace) -> None:
    """Prints a Markdown table, and writes it as CSV."""
    print("| relative L2 | " + " | ".join(f"lead {lead:g}" for lead in LEADS) + " |")
    print("|---|" + "---|" * len(LEADS))
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.1e}" for value in values) + " |")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with open(options.output, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["quantity", *[f"lead_{lead:g}" for lead in LEADS], "samples", "seed", "command"])
        command = f"python benchmarks/{shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}"
        for name, values in rows.items():
            out.writerow([name, *[f"{v:.3e}" for v in values], options.samples, options.seed, command])


if __name__ == "__main__":
    main()
