"""How equivariant: move state and forcing together, and see whether the forecast moves along.

    python benchmarks/equivariance.py --model navier-stokes --samples 16 --seed 1000

The dynamics and the field commute with every translation exactly. The encoder starts from a fixed
lattice, so the pipeline as a whole commutes exactly with shifts by a lattice cell (up to rounding), and
with other shifts as well as it encodes (`pdeforecast bench equivariance` is the same for any geometry).

    lattice shift     relative L2 between the moved forecast and the forecast of the moved state
    any shift         the same, for random shifts
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
from pdeforecast.bench.equivariance import equivariance
from pdeforecast.generation import assemble, generate
from pdeforecast.pdes.navier_stokes import NavierStokes

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
    rows = shifts(model, usual.isel(time=0), options.seed)
    for name, pde in {
        "error, usual phase": NavierStokes(),
        "error, other phase": replace(NavierStokes(), phase_x=0.17, phase_y=0.41),
    }.items():
        rows[name] = error(model, trajectories(pde, options.samples, options.seed))
    report(rows, options)


def trajectories(pde: NavierStokes, samples: int, seed: int) -> xr.Dataset:
    """Unseen trajectories."""
    return assemble(pde, list(generate(pde, samples, seed, "test")), seed, "test")


def shifts(model: pf.Forecaster, state: xr.Dataset, seed: int) -> dict[str, np.ndarray]:
    """‖Φ(g u) − g Φ(u)‖ / ‖Φ(u)‖ per lead, for shifts g by cells of the lattice and by anything."""
    cell = model.geometry.spacing(model.config.field.latents)
    by_cells = torch.tensor([[3 * cell, -cell]], dtype=torch.float64)
    anywhere = model.geometry.random_motion(4, torch.Generator().manual_seed(seed))
    return {
        name: np.array(equivariance(model, state, LEADS, motions).pipeline["vorticity"])
        for name, motions in {
            "lattice shift (3, −1 cells)": by_cells,
            "any shift (4 of them)": anywhere,
        }.items()
    }


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
