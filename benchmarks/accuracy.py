"""How accurate: Navier–Stokes forecasts of unseen flows, from all or a few of the points of frame 0.

    python benchmarks/accuracy.py --model navier-stokes --fno DIR --samples 32 --seed 1000

Rows are methods × observed share; every method is given the same points, drawn at random for each
sample, and nothing but frame 0 and the forcing.

    persistence        the (filled) state, for ever
    climatology        the mean of 64 training trajectories over frames 0 … 9
    kriging + solver   the observed points kriged, then the true equation's solver: the floor
    FNO                the (filled) state, then the trained neural operator; cubic in time between frames
    the model          as it is loaded; it is given the points

The methods are those of `pdeforecast.bench`; DIR is of `python benchmarks/baseline.py fno DATA.nc -o DIR`.

*Filled*: a piecewise cubic (Clough–Tocher) interpolant of the points, periodic. It is the best for the
FNO of the simple fills; `--fill` shows it beside zero, nearest and linear, and beside the kriging that the
method itself does with what is not filled.

Columns, truth ω and forecast ŵ on 64², mean over samples and grid points unless said otherwise:

    lead 0, T_in, T_out     mean of (ŵ − ω)² at lead 0, over frames 0 … 9, over frames 10 … 19
    rel L2 mean, median     over samples of the mean over leads 1 … 19 of ‖ŵ − ω‖ / ‖ω‖
    4, 4.5, 5               mean of (ŵ − ω)² at a lead between frames and its neighbours
    rms 50                  rms of ŵ over rms of ω at lead 50: 1 is alive, 0 is asleep, inf has blown up
    256²/64²                for full observation, the error of the 256² forecast in the band that 64²
                            resolves over the error of the 64² forecast (leads 1 … 9): 1 is ideal
"""

import argparse
import csv
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from scipy.interpolate import (
    CloughTocher2DInterpolator,
    LinearNDInterpolator,
    NearestNDInterpolator,
)

import pdeforecast as pf
from pdeforecast.bench.methods import Method, Model, load, untrained
from pdeforecast.errors import DivergedError
from pdeforecast.generation import assemble, generate
from pdeforecast.metrics import mse, relative_l2
from pdeforecast.pdes.navier_stokes import NavierStokes
from pdeforecast.solvers.torus import resample

Predict = Callable[[xr.Dataset, Sequence[float], int], np.ndarray]
"""(state, non-decreasing lead times, n) → vorticity (sample, lead, n, n)."""

RESULTS = Path(__file__).parent / "results" / "accuracy.csv"
TEST = NavierStokes(frames=101, interval=0.5)
TRAINING = NavierStokes(frames=10, interval=1.0)
FRAMES = [float(t) for t in range(20)]
LEADS = sorted([*FRAMES, 4.5, 50.0])
CORES = len(os.sched_getaffinity(0))
SHARES = (1.0, 0.5, 0.1, 0.05, 0.02)
FINE = 256
FINE_SAMPLES = 8
TRAINING_SAMPLES = 64


def trajectories(pde: NavierStokes, samples: int, seed: int, split: str) -> xr.Dataset:
    """Generated trajectories, by all cores."""
    return assemble(pde, list(generate(pde, samples, seed, split, CORES)), seed, split)


def observed(trajectory: xr.Dataset, share: float, seed: int) -> xr.Dataset:
    """Frame 0 with round(share · n²) random points of each sample kept, the rest NaN."""
    state = trajectory[["vorticity", "forcing"]].isel(time=0).transpose("sample", "y", "x")
    shape = state["vorticity"].shape
    generator = np.random.default_rng([seed, round(1e6 * share)])
    order = generator.random((shape[0], shape[1] * shape[2])).argsort(axis=1)
    keep = order < round(share * order.shape[1])
    return state.assign(vorticity=state["vorticity"].where(keep.reshape(shape)))


def zero(points: np.ndarray, values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The fill of the paper's FNO."""
    return lambda gaps: np.zeros(len(gaps))


FILLS = {
    "zero": zero,
    "nearest": NearestNDInterpolator,
    "linear": LinearNDInterpolator,
    "cubic": CloughTocher2DInterpolator,
}


def filled(state: xr.Dataset, fill: str = "cubic") -> xr.Dataset:
    """The state with its gaps interpolated on the torus; observed points stay as they are."""
    fields = state["vorticity"].transpose("sample", "y", "x").copy(deep=True)
    n = fields.shape[-1]
    tiles = np.array([(i, j) for i in (-n, 0, n) for j in (-n, 0, n)])
    for field in fields.values:
        gaps = np.isnan(field)
        if gaps.any():
            known = np.argwhere(~gaps)
            points = (known + tiles[:, None]).reshape(-1, 2).astype(float)
            values = np.tile(field[~gaps], len(tiles))
            near = np.all((points > -n / 2) & (points < 1.5 * n), axis=1)
            field[gaps] = FILLS[fill](points[near], values[near])(np.argwhere(gaps).astype(float))
    return state.assign(vorticity=fields)


def prediction(method: Method, fill: str = "") -> Predict:
    """A method, given the filled state if `fill` is not empty; NaN after the last frame if it diverges."""

    def run(state: xr.Dataset, lead_times: Sequence[float], size: int) -> np.ndarray:
        given = filled(state, fill) if fill else state
        forecast = method.forecast(given, list(lead_times), grid={"y": size, "x": size})
        return forecast["vorticity"].transpose("sample", "lead_time", "y", "x").values

    def predict(state: xr.Dataset, lead_times: Sequence[float], size: int) -> np.ndarray:
        try:
            return run(state, lead_times, size)
        except DivergedError:
            near = run(state, [lead for lead in lead_times if lead <= FRAMES[-1]], size)
            gap = len(lead_times) - near.shape[1]
            return np.pad(near, ((0, 0), (0, gap), (0, 0), (0, 0)), constant_values=np.nan)

    return predict


def scores(forecast: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The columns of one row, but the last; forecast and truth (sample, LEADS, y, x)."""
    f, t = (torch.from_numpy(values).double().flatten(-2) for values in (forecast, truth))
    error = mse(f, t).mean(dim=0)
    relative = relative_l2(f, t)[:, [LEADS.index(lead) for lead in FRAMES[1:]]].mean(dim=1)
    last = LEADS.index(50.0)
    alive = float((f[:, last].square().mean() / t[:, last].square().mean()).sqrt())

    def at(*leads: float) -> float:
        return float(error[[LEADS.index(lead) for lead in leads]].mean())

    return {
        "lead_0_mse": at(0.0),
        "t_in_mse": at(*FRAMES[:10]),
        "t_out_mse": at(*FRAMES[10:]),
        "relative_l2_mean": float(relative.mean()),
        "relative_l2_median": float(relative.quantile(0.5)),
        "lead_4_mse": at(4.0),
        "lead_4.5_mse": at(4.5),
        "lead_5_mse": at(5.0),
        "rms_50": alive if math.isfinite(alive) else math.inf,
    }


def band_ratio(predict: Predict, state: xr.Dataset, coarse: np.ndarray, truth: np.ndarray) -> float:
    """The error of the fine forecast in the band of 64² over that of `coarse`; leads 1 … 9, few samples."""
    leads = FRAMES[1:10]
    at = [LEADS.index(lead) for lead in leads]
    fine = predict(state.isel(sample=slice(FINE_SAMPLES)), leads, FINE)
    truth, coarse = truth[:FINE_SAMPLES, at], coarse[:FINE_SAMPLES, at]
    same = resample(torch.from_numpy(fine), truth.shape[-1]).numpy()
    errors = [np.mean((forecast - truth) ** 2) for forecast in (same, coarse)]
    return float(errors[0] / errors[1])


def table(rows: Sequence[dict[str, object]]) -> str:
    """`rows` as a Markdown table, without the columns that are the same everywhere."""
    names = [name for name in rows[0] if name not in ("samples", "seed", "command")]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = (row[name] for name in names)
        lines.append("| " + " | ".join(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells) + " |")
    return "\n".join(lines)


def write(rows: Sequence[dict[str, object]], path: Path) -> None:
    """`rows` as the whole of a CSV file."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})


def methods(arguments: argparse.Namespace, training: xr.Dataset) -> dict[str, Predict]:
    """The rows of the table, by name; `training` has frames 0 … 9."""
    chosen = {
        name: prediction(method, "cubic" if name == "persistence" else "")
        for name, method in untrained(training, TEST).items()
    }
    if arguments.fno:
        operator = load(arguments.fno)
        for fill in (*FILLS, "") if arguments.fill else ("cubic",):
            name = f"FNO ({fill or 'kriging'} fill)" if arguments.fill else "FNO"
            chosen[name] = prediction(operator, fill)
    if arguments.model:
        chosen[f"pdeforecast {arguments.model}"] = prediction(
            Model(arguments.model, pf.load(arguments.model))
        )
    return chosen


def main() -> None:
    """Score every method at every share; print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", help="a shipped model or a path; no row without it")
    parser.add_argument("--fno", type=Path, metavar="DIR", help="of baseline.py; no row without it")
    parser.add_argument("--fill", action="store_true", help="one FNO row for each way to fill the gaps")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1000, help="of the test flows and of the points")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of points observed")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, metavar="FILE.csv")
    arguments = parser.parse_args()

    print(f"solving {arguments.samples} test and {TRAINING_SAMPLES} training flows …", file=sys.stderr)
    test = trajectories(TEST, arguments.samples, arguments.seed, "test")
    training = trajectories(TRAINING, TRAINING_SAMPLES, 0, "train")
    truth = test["vorticity"].sel(time=LEADS).transpose("sample", "time", "y", "x").values
    rows: list[dict[str, object]] = []
    for name, predict in methods(arguments, training).items():
        for share in arguments.shares:
            state = observed(test, share, arguments.seed)
            start = time.monotonic()
            forecast = predict(state, LEADS, truth.shape[-1])
            print(f"{name}, {share:.0%}: {time.monotonic() - start:.0f} s", file=sys.stderr)
            row = {"method": name, "share": share, **scores(forecast, truth)}
            row["band_256_over_64"] = band_ratio(predict, state, forecast, truth) if share == 1 else math.nan
            rows.append(row)
    settings = {
        "samples": arguments.samples,
        "seed": arguments.seed,
        "command": shlex.join(["python", *sys.argv]),
    }
    rows = [{**row, **settings} for row in rows]
    write(rows, arguments.output)
    print(table(rows))


if __name__ == "__main__":
    main()
