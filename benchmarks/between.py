"""What a model that remembers tells between its frames, of unseen flows.

    python benchmarks/between.py shallow-water --samples 2
    python benchmarks/between.py RUN_DIR/model.safetensors

Twelve intervals of the time between remembered frames are solved on the solver's own grid and kept at every
eighth of an interval. The true frames are read as zonal amplitudes, and what lies between them is told by a
cubic through frames that stand still, through frames that turn with the flow, and, where the model learned
it, with what it tells beside that (`between_frames.py`): nothing is forecast then, so on frames the error is
what the harmonics leave. At last all is forecast from the first frame. Relative L2, weighted by area.
"""

import argparse

import torch
from torch import Tensor

import pdeforecast as pf
from pdeforecast.bench.study import unseen
from pdeforecast.bench.table import Row, markdown
from pdeforecast.between_frames import cubic, on_frame
from pdeforecast.kernel_dynamics import KernelDynamics
from pdeforecast.metrics import relative_l2

PARTS, INTERVALS = 8, 12


def ways(flow: KernelDynamics, frames: list[Tensor], x: float) -> dict[str, Tensor]:
    """Fields (samples, V, latitudes, longitudes) at a place x among frames."""
    near, place = flow.near(frames, x)
    angle = flow._angle()
    told = {
        f"{name} cubic": flow._fields(cubic(near, place, turn * flow.wave))
        for name, turn in (("standing", 0 * angle), ("turning", angle))
    }
    if flow.tells_between and not on_frame(x):
        told["told between frames"] = told["turning cubic"] + flow.off_cubic(near, place - 1)
    return told


def main() -> None:
    """Print a row for every way, on frames and between them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1000)
    options = parser.parse_args()
    model = pf.load(options.model)
    flow = model.dynamics
    if not isinstance(flow, KernelDynamics):
        parser.error(
            f"expected a model that remembers trajectories, such as shallow-water; came {options.model}."
        )
    settings = {"interval": str(float(flow.gap) / PARTS), "coarsen": "1"}
    truth = unseen(model, options.samples, options.seed, frames=PARTS * INTERVALS + 1, settings=settings)
    names = list(model.config.variables)
    values = torch.stack([torch.tensor(truth[name].values) for name in names], dim=-1).double()
    fields = ((values - model.mean) / model.scale).movedim(-1, 2)
    frames = list(flow._amplitudes(fields[:, ::PARTS]).unbind(1))
    weights = flow.measure()
    places = range(PARTS * INTERVALS + 1)
    ahead = flow.path(frames[0], [float(flow.gap) * place / PARTS for place in places])
    errors: dict[tuple[str, str], list[Tensor]] = {}
    for place in places:
        x = place / PARTS
        end = "first interval" if x < 1 else "last interval" if x > INTERVALS - 1 else "in between"
        where = "on frames" if on_frame(x) else end
        of_forecast = {"forecast": ahead[:, place - 1]} if place else {}
        for way, found in (ways(flow, frames, x) | of_forecast).items():
            error = relative_l2(found.flatten(-2), fields[:, place].flatten(-2), weights).mean(0)
            errors.setdefault((way, where), []).append(error)
    rows: list[Row] = []
    for (way, where), several in errors.items():
        mean = torch.stack(several).mean(0).tolist()
        rows.append({"way": way, "where": where, **dict(zip(names, mean, strict=True))})
    print(markdown(rows, ["way", "where", *names]))


if __name__ == "__main__":
    main()
