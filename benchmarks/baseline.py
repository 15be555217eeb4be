"""Train a baseline on a file of trajectories, or go on with the run in its folder.

    python benchmarks/baseline.py KIND DATA.nc -o DIR --budget 20m --set key=value

KIND is one of `pdeforecast.bench.methods.KINDS`; DIR is what `methods.load` and `accuracy.py --fno` read. The
FNO of Navier–Stokes wants `--set attitudes=8`: vorticity turns its sign when its flow is reflected.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from pdeforecast.bench.methods import KINDS, fit
from pdeforecast.cli.arguments import duration
from pdeforecast.trajectory import open_dataset


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("data", metavar="DATA.nc")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--budget", type=duration, default=1200.0, help="CPU time, as in 20m (default)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="key=value")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    settings = dict(setting.split("=", 1) for setting in options.set)
    data = open_dataset(options.data)
    with tqdm(unit="step", disable=None) as bar:
        average = None
        for report in fit(
            options.kind, data, options.output, options.budget, options.seed, settings, options.device
        ):
            average = report.loss if average is None else 0.98 * average + 0.02 * report.loss
            bar.total, bar.n = report.steps, report.step
            bar.set_postfix(loss=f"{average:.3g}", refresh=False)
            bar.update(0)
    print(f"trained: {options.output}")


if __name__ == "__main__":
    main()
