"""How observations at several times improve a forecast: the shipped model from 5 % of the points at each.

    python benchmarks/assimilation.py [--model navier-stokes] [--samples 2] [--seed 1000] [--share 0.05]
    python benchmarks/assimilation.py --model shallow-water

The model is given one observation time, the first, two and four, other points each time, and is scored on the
whole grid by the relative L2 error of vorticity: median and mean over samples.
"""

import argparse
import time
import warnings

import numpy as np
import torch
import xarray as xr

import pdeforecast as pf
from pdeforecast.bench.study import unseen
from pdeforecast.metrics import relative_l2

TIMES = {1: [0], 2: [0, 2], 4: [0, 1, 2, 3]}
"""Numbers of frames, INTERVAL apart."""
LEADS = [0, 2, 4, 10, 18]
INTERVAL = {"navier-stokes": 0.5, "shallow-water": 25 / 3}


def observed(truth: xr.Dataset, times: list[int], share: float, seed: int, names: list[str]) -> xr.Dataset:
    """A share of the points of each sample at each time, drawn anew."""
    frames = truth.isel(time=times)
    draw = np.random.default_rng(seed).random(frames[names[0]].shape)
    return frames.assign({name: frames[name].where(draw < share) for name in names})


def main() -> None:
    """Prints a row per number of times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="navier-stokes", choices=list(INTERVAL))
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--share", type=float, default=0.05)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model = pf.load(options.model)
    interval, names = INTERVAL[options.model], list(model.config.variables)
    settings = {"interval": str(interval)}
    truth = unseen(model, options.samples, options.seed, frames=max(LEADS) + 1, settings=settings)
    leads = [interval * lead for lead in LEADS]
    print(f"| times | {' | '.join(f'lead {lead:.3g}' for lead in leads)} | s per state |")
    print("|" + "---|" * (len(LEADS) + 2))
    for count, times in TIMES.items():
        state = observed(truth, times, options.share, options.seed, names)
        began = time.perf_counter()
        forecast = model.forecast(state, leads, like=truth, assimilate=count > 1)
        spent = (time.perf_counter() - began) / options.samples
        error = relative_l2(forecast, truth)["vorticity"].transpose("sample", "lead_time").values
        cells = [f"{np.median(e):.2g} / {e.mean():.2g}" for e in error.T]
        print(f"| {count} | {' | '.join(cells)} | {spent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
