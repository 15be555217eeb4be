"""Which field? Reconstruction of unseen states by the linear field and by the attention field.

    python benchmarks/encoding.py DATA.nc --budget 10m --samples 32 --seed 1000

Both hold a state in 8 × 8 latents. The linear field learns its prior in closed form; the attention field,
with plain learned rates (three steps, 32 numbers a latent, four nearest latents) and, in the published
configuration, with four latents, is meta-learned for the given CPU time each. Printed: mean square
reconstruction error of vorticity (mean square about 1) from a share of the points, and what it took.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
import xarray as xr
from accuracy import SHARES, TEST, observed, table, trajectories, write

from pdeforecast import run
from pdeforecast.cli.arguments import duration
from pdeforecast.config import AttentionFieldConfig, DynamicsConfig, ForecasterConfig, LinearFieldConfig
from pdeforecast.forecaster import Forecaster
from pdeforecast.presets import PRESETS
from pdeforecast.training import Progress, TrainingConfig, Trajectories, train
from pdeforecast.trajectory import geometry_of, open_dataset, samples

FIELDS = {
    "linear, 64 × 16": LinearFieldConfig(),
    "linear, 64 × 25": LinearFieldConfig(degree=4),
    "attention, 64 × 32": AttentionFieldConfig(),
    "attention, published (4 × 16)": PRESETS["paper"].field,
}
RESULTS = Path(__file__).parent / "results" / "encoding.csv"


def main() -> None:
    """Train each field alone, and measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", metavar="DATA.nc")
    parser.add_argument("--budget", type=duration, default=600.0, help="CPU time of each attention field")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    ds = open_dataset(options.data)
    test = trajectories(replace(TEST, frames=1), options.samples, options.seed, "test")
    variables, statics = run.fields_of(ds)
    rows = []
    for name, field in FIELDS.items():
        torch.manual_seed(0)
        config = ForecasterConfig(
            geometry_of(ds).name, variables, statics, field=field, dynamics=DynamicsConfig(hidden=1)
        )
        model = Forecaster(config)
        seconds = learn(model, run.trajectories(ds, model), options.budget)
        errors = {f"{share:.0%}": reconstruction(model, test, share, options.seed) for share in SHARES}
        rows.append({"field": name, **errors, "CPU seconds": seconds, "samples": options.samples})
        print(rows[-1], flush=True)
    write(rows, options.output)
    print(table(rows))


def learn(model: Forecaster, data: Trajectories, budget: float) -> float:
    """The field phase alone; attention fields take `budget` CPU seconds, planned again as they go."""
    linear = isinstance(model.config.field, LinearFieldConfig)
    training = TrainingConfig(field_steps=3 if linear else 10**6, batch=16, points=512, copies=1)
    progress = Progress(model, replace(training, dynamics_steps=0, joint_steps=0))
    start = time.process_time()
    for report in train(progress, data):
        if not linear and report.step % 20 == 5:
            spent = time.process_time() - start
            left = int((budget - spent) * report.step / spent)
            progress.config = replace(progress.config, field_steps=report.step + max(left, 1))
        if report.step == progress.config.field_steps:
            break
    progress.load_average()
    model.eval()
    return time.process_time() - start


@torch.no_grad()
def reconstruction(model: Forecaster, test: xr.Dataset, share: float, seed: int) -> float:
    """The error at all points of what is encoded from a share of them."""
    truth = samples(test, model.geometry, model.config.variables)
    seen = samples(observed(test, share, seed), model.geometry, model.config.variables)
    latents = [model.encode(seen.points, values[None]) for values in seen.values]
    errors = [
        (model.decode(truth.points, [z])[0, 0] - values).square().mean()
        for z, values in zip(latents, truth.values, strict=True)
    ]
    return float(torch.stack(errors).mean())


if __name__ == "__main__":
    main()
