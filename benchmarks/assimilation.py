"""How observations at several times improve a forecast: the shipped model from 5 % of the points at each.

    python benchmarks/assimilation.py [--model navier-stokes] [--samples 2] [--seed 1000] [--share 0.05]

The model is given one observation time (lead 0), two (0 and 1) and four (0, 0.5, 1, 1.5), other points each
time, and is scored on the whole grid by the relative L2 error: median and mean over samples.
"""

import argparse
import time
import warnings

import numpy as np
import torch
import xarray as xr

import pdeforecast as pf
from pdeforecast import generation
from pdeforecast.pdes import NavierStokes

TIMES = {1: [0.0], 2: [0.0, 1.0], 4: [0.0, 0.5, 1.0, 1.5]}
LEADS = [0.0, 1.0, 2.0, 5.0, 9.0]


def observed(truth: xr.Dataset, times: list[float], share: float, seed: int) -> xr.Dataset:
    """A share of the points of each sample at each time, drawn anew."""
    frames = truth.sel(time=float(truth.time[0]) + np.array(times), method="nearest")
    draw = np.random.default_rng(seed).random(frames["vorticity"].shape)
    return frames.assign(vorticity=frames["vorticity"].where(draw < share))


def main() -> None:
    """Prints a row per number of times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="navier-stokes")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--share", type=float, default=0.05)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model = pf.load(options.model)
    pde = NavierStokes(frames=19, interval=0.5)
    made = list(generation.generate(pde, options.samples, options.seed, "test"))
    truth = generation.assemble(pde, made, options.seed, "test")
    print(f"| times | {' | '.join(f'lead {lead:g}' for lead in LEADS)} | s per state |")
    print("|" + "---|" * (len(LEADS) + 2))
    for count, times in TIMES.items():
        state = observed(truth, times, options.share, options.seed)
        began = time.perf_counter()
        forecast = model.forecast(state, LEADS, like=truth, assimilate=count > 1)
        spent = (time.perf_counter() - began) / options.samples
        known = truth["vorticity"].sel(time=float(truth.time[0]) + np.array(LEADS), method="nearest").values
        error = ((forecast["vorticity"].values - known) ** 2).mean((2, 3)) / (known**2).mean((2, 3))
        cells = [f"{np.median(e):.2g} / {e.mean():.2g}" for e in np.sqrt(error).T]
        print(f"| {count} | {' | '.join(cells)} | {spent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
