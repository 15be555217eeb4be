"""How often a shipped model warns of states unlike its training data, from few points and from many.

    python benchmarks/familiarity.py diffusion-plane --samples 1024                    (normal: 1 in 1,000)
    python benchmarks/familiarity.py navier-stokes --samples 32 --set viscosity=1e-4   (strange ones: all)

States are newly generated first frames (split `test`), each seen at several shares of its points.
"""

import argparse
from pathlib import Path

import torch

import pdeforecast as pf
from pdeforecast import generation
from pdeforecast.bench.study import Model, Study
from pdeforecast.config import override
from pdeforecast.trajectory import measure, trajectory_values
from pdeforecast.trust import CARD, Familiarity

SHARES = (1.0, 0.3, 0.1, 0.05, 0.02)
TOGETHER = 64
"""States that are seen at the same points."""


def main() -> None:
    """Print, for every share, how many warn and by how much at most."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=pf.shipped())
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--seed", type=int, default=777)
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="of the equation")
    options = parser.parse_args()
    model = pf.load(options.name)
    pde = Study([Model("model", model)], Path()).pde(frames=1)
    pde = override(pde, dict(setting.split("=", 1) for setting in options.set))
    made = list(generation.generate(pde, options.samples, options.seed, "test"))
    ds = generation.assemble(pde, made, options.seed, "test")
    _, points, values = trajectory_values(ds, model.geometry, model.config.variables)
    weights, known = measure(ds, model.geometry), Familiarity(**model.card[CARD])
    draw = torch.Generator().manual_seed(5)
    total = 0
    for share in SHARES:
        size, excess = round(share * len(points)), []
        for part in values[:, 0].split(TOGETHER):
            keep = torch.randperm(len(points), generator=draw)[:size].sort().values
            misfit, count = model.examined(points[keep], part[:, keep], None, weights[keep])[1]
            pairs = zip(misfit.tolist(), count.tolist(), strict=True)
            excess += [score / known.limit(seen) for score, seen in pairs]
        warned = sum(times > 1 for times in excess)
        total += warned
        print(f"{share:.0%} of the points: {warned} of {len(excess)} warn; misfits {min(excess):.2g} … "
              f"{max(excess):.2g} times the limit", flush=True)  # fmt: skip
    print(f"in all: {total} of {len(SHARES) * len(values)}")


if __name__ == "__main__":
    main()
