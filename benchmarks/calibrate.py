"""Measure on validation states what is usual for a shipped model, and write it into its card.

    python benchmarks/calibrate.py navier-stokes

States are generated (split `validation`) by the equation of the training data, or read with `--states`; those
count that are no later than the training's.
The model is not trained again: weights stay, the card gains `familiarity` and `measured_horizon`.
"""

import argparse
from pathlib import Path

import pdeforecast as pf
from pdeforecast.bench.study import unseen
from pdeforecast.calibration import calibrate
from pdeforecast.familiarity import Familiarity
from pdeforecast.trajectory import open_dataset

SOURCE = "validation states"
UNNOTICED = ", and nothing tells it."


def main() -> None:
    """Calibrate one shipped model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=pf.shipped())
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--states", type=Path, help="trajectories from the distribution of the training data")
    options = parser.parse_args()
    path, model = pf.shipped()[options.name], pf.load(options.name)
    if options.states is None:
        ds = unseen(model, options.samples, options.seed, "validation", frames=10)
    else:
        ds = open_dataset(options.states)
        ds = ds.isel(time=(ds.time - ds.time[0]).values <= model.card["horizon"] * (1 + 1e-9))
    found = calibrate(model, ds, SOURCE)
    model.card.setdefault("measured_horizon", model.card["equivariance"]["lead_times"][-1])
    pf.save(model, path)
    page = path.with_suffix(".md")
    lines = page.read_text().splitlines()
    kept = [line.replace(UNNOTICED, ".") for line in lines if not line.startswith("- It warns of states")]
    page.write_text("\n".join([*kept, f"- {limit(found)}", ""]))
    print(limit(found))


def limit(found: Familiarity) -> str:
    """A line of the card."""
    return (
        f"It warns of states unlike the training data (and of 1 in {1 / found.false_alarms:.0f} others), "
        f"from {found.by_count.at[0]:.0f} observed values on: calibrated on {found.states} {found.source}."
    )


if __name__ == "__main__":
    main()
