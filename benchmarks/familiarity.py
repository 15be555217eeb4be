"""How often a shipped model warns of states unlike its training data, from few points and from many.

    python benchmarks/familiarity.py diffusion-plane --samples 1024                    (normal: 1 in 1,000)
    python benchmarks/familiarity.py navier-stokes --samples 32 --set viscosity=1e-4   (strange: nearly all)
    python benchmarks/familiarity.py shallow-water --states TEST.nc --times vorticity=-1    (a wrong sign)

States are newly generated first frames (split `test`), or those of a file. Each is seen at several shares of
its points, which are scattered or lie about one of them.
"""

import argparse
from pathlib import Path

import torch

import pdeforecast as pf
from pdeforecast.bench.study import unseen
from pdeforecast.calibration import some
from pdeforecast.familiarity import Familiarity
from pdeforecast.trajectory import Samples, measure, open_dataset, trajectory_values

SHARES = ((1.0, False), (0.3, False), (0.1, False), (0.05, False), (0.02, False), (0.3, True), (0.1, True))
"""Shares of the points, and whether they lie about one of them."""
TOGETHER = 64
"""States that are seen at the same points."""


def main() -> None:
    """Print, for every share, how many warn and by how much at most."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=pf.shipped())
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--seed", type=int, default=777)
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="of the equation")
    parser.add_argument("--states", type=Path, help="trajectories, every frame of which is a state")
    parser.add_argument("--times", action="append", default=[], metavar="variable=factor")
    options = parser.parse_args()
    model = pf.load(options.name)
    if options.states is None:
        settings = dict(setting.split("=", 1) for setting in options.set)
        ds = unseen(model, options.samples, options.seed, settings=settings)
    else:
        ds = open_dataset(options.states).isel(sample=slice(options.samples), missing_dims="ignore")
    by = {name: float(factor) for name, factor in (given.split("=", 1) for given in options.times)}
    ds = ds.assign({name: ds[name] * factor for name, factor in by.items()})
    _, points, values = trajectory_values(ds, model.geometry, model.config.variables)
    weights, known = measure(ds, model.geometry), Familiarity.of(model.card)
    assert known is not None
    draw = torch.Generator().manual_seed(5)
    total, flat = 0, values.flatten(0, 1)
    for share, about_one in SHARES:
        size, excess = round(share * len(points)), []
        for part in flat.split(TOGETHER):
            keep = some(model.geometry, points, size, about_one, draw)
            seen = model.as_values(ds, Samples(points[keep], part[:, keep], None, weights[keep]))
            fit = model.examined(seen.points, seen.values, None, seen.measure)[1]
            excess += known.excess(fit).max(1).tolist()
        warned = sum(times > 1 for times in excess)
        total += warned
        where = "about one of them" if about_one else "scattered"
        print(f"{share:.0%} of the points, {where}: {warned} of {len(excess)} warn; {min(excess):.2g} … "
              f"{max(excess):.2g} times the nearest limit", flush=True)  # fmt: skip
    print(f"in all: {total} of {len(SHARES) * len(flat)}")


if __name__ == "__main__":
    main()
