"""What a first forecast costs, and what the next ones save, observed at the same points or at others.

    python benchmarks/repeats.py shallow-water --states TEST.nc

CPU seconds of one thread for a state, three lead times (the first of them 0) and the grid of the state. These
are first frames of a file or newly generated ones (split `test`).
"""

import argparse
import time
import warnings
from pathlib import Path

import torch

import pdeforecast as pf
from pdeforecast.bench.scores import evolving
from pdeforecast.bench.sparse import gaps
from pdeforecast.bench.study import unseen
from pdeforecast.trajectory import open_dataset
from pdeforecast.trust import TrustWarning

FEW = 0.05
"""The share of the points that is observed where it is not all of them."""


def main() -> None:
    """Print the time of six forecasts, one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=pf.shipped())
    parser.add_argument("--states", type=Path, help="trajectories, three at least")
    options = parser.parse_args()
    warnings.simplefilter("ignore", TrustWarning)
    torch.set_num_threads(1)
    model = pf.load(options.name)
    ds = unseen(model, 3, 1000) if options.states is None else open_dataset(options.states)
    leads = [0.0, model.card["horizon"] / 2, model.card["horizon"]]
    full = [ds.isel(sample=[i], time=0, drop=True).load() for i in range(3)]
    few = [gaps(state, list(evolving(ds)), FEW, seed) for seed, state in enumerate(full)]
    asked = {
        "all points": full[0],
        "all points, another state": full[1],
        "all points, a third": full[2],
        f"{FEW:.0%} of the points": few[0],
        f"another {FEW:.0%}": few[1],
        f"a third {FEW:.0%}": few[2],
    }
    for what, state in asked.items():
        start = time.process_time()
        model.forecast(state, leads, like=full[0])
        print(f"{what:28}{time.process_time() - start:6.2f} s", flush=True)


if __name__ == "__main__":
    main()
