"""The main job, from nothing: forecast an unseen Navier–Stokes flow with the shipped model.

    python benchmarks/demo.py -o demo [--seed 2026]

A state that no training has seen is generated on 64². From it, and from 5 % of its points, the model
forecasts twenty frames; the first also on 256². All are held against the equation's own solver, beside
persistence and, on 256², beside Fourier interpolation of the model's own 64² forecast. Everything that
is computed is kept in the folder as NetCDF, and drawn.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import pdeforecast as pf
from pdeforecast import plot
from pdeforecast.generation import assemble, generate, solve_from
from pdeforecast.pdes.navier_stokes import NavierStokes
from pdeforecast.solvers.torus import resample
from pdeforecast.trajectory import save_dataset

LEADS = [float(lead) for lead in range(20)]
FINE = 256


def main() -> None:
    """Generate, forecast, solve, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"))
    parser.add_argument("--model", default="navier-stokes")
    parser.add_argument("--seed", type=int, default=2026)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    say("load the model and generate an unseen state")
    model = pf.load(options.model)
    pde = NavierStokes()
    truth = assemble(pde, list(generate(pde, 1, options.seed, "demo")), options.seed, "demo")
    state = truth.isel(time=0)
    sparse = observed(state, 0.05, options.seed)

    say("forecast 20 frames on 64², on 256², and from 5 % of the points")
    started = time.perf_counter()
    coarse = model.forecast(state, LEADS)
    seconds = time.perf_counter() - started
    fine = model.forecast(state, LEADS, grid={"y": FINE, "x": FINE})
    few = model.forecast(sparse, LEADS, like=state)

    say(f"solve the equation on {FINE}² from the same state")
    fine_truth = solve_from(NavierStokes(step=0.01, resolution=FINE), interpolated(state), LEADS)
    interpolation = interpolated(coarse)

    table(
        {
            "64² forecast": (coarse, truth),
            "64² persistence": (persistence(truth), truth),
            f"{FINE}² forecast, from 64²": (fine, fine_truth),
            f"{FINE}² Fourier interpolation of the 64² forecast": (interpolation, fine_truth),
            "64² forecast, from 5 % of the points": (few, truth),
        }
    )
    print(f"\n20 frames on 64² in {seconds:.2f} s, encoding included")
    files = {"truth": truth, "forecast-64": coarse, "forecast-256": fine, "forecast-5-percent": few}
    for name, ds in files.items():
        save_dataset(ds, options.output / f"{name}.nc", overwrite=True)
    plot.save(plot.forecast(coarse, truth), options.output / "forecast-64.png")
    plot.save(plot.forecast(fine, fine_truth), options.output / "forecast-256.png")
    plot.save(plot.forecast(few, truth), options.output / "forecast-5-percent.png")
    both = {"from all points": coarse, "from 5 % of them": few}
    states = dict(zip(both, (state, sparse), strict=True))
    plot.save(plot.triptych(truth, both, 10.0, states=states), options.output / "comparison.png")
    print(f"files and pictures: {options.output}/")


def say(what: str) -> None:
    """Tells what takes the time."""
    print(f"· {what} …", file=sys.stderr, flush=True)


def observed(state: xr.Dataset, share: float, seed: int) -> xr.Dataset:
    """The state with all but a random share of its points missing."""
    known = np.random.default_rng(seed).random(state.vorticity.shape[-2:]) < share
    return state.assign(vorticity=state.vorticity.where(known))


def interpolated(ds: xr.Dataset) -> xr.Dataset:
    """Every field of `ds` on the fine grid, by Fourier interpolation."""
    axis = np.arange(FINE) / FINE
    places = ds.drop_vars(["x", "y"]).drop_dims(["y", "x"])
    fine = {
        name: (array.dims, resample(torch.from_numpy(array.values).double(), FINE).numpy(), array.attrs)
        for name, array in ds.data_vars.items()
        if "x" in array.dims
    }
    return places.assign(fine).assign_coords(y=axis, x=axis)


def persistence(truth: xr.Dataset) -> xr.Dataset:
    """The first frame, for ever."""
    first = truth.vorticity.isel(time=0).expand_dims(time=truth.time).transpose(*truth.vorticity.dims)
    return truth.assign(vorticity=first)


def table(rows: dict[str, tuple[xr.Dataset, xr.Dataset]]) -> None:
    """Prints the mean square error of every (forecast, truth)."""
    print("\nmean square error of vorticity (mean square vorticity ≈ 1)")
    print(f"{'':52s} {'lead 0':>9s} {'0 … 9':>9s} {'10 … 19':>9s}")
    for name, (forecast, truth) in rows.items():
        error = ((forecast.vorticity.values - truth.vorticity.values) ** 2).mean((0, 2, 3))
        print(f"{name:52s} {error[0]:9.1e} {error[:10].mean():9.1e} {error[10:].mean():9.1e}")


if __name__ == "__main__":
    main()
