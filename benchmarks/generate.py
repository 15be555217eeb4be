"""What trajectories cost and how right they are: every recipe of datasets/, every equation of the package.

    python benchmarks/generate.py --reference ../reference --budget 10s

One trajectory of each recipe's first split is made on one core of the CPU.

    seconds         CPU time of a trajectory: the random state, its spin-up and all frames
    error           the largest relative L2 from the trusted solution of the equation, up to `until`
    theirs          seconds of a trajectory that the README of the trusted solutions tells of an independent
                    code, whose length, grid and accuracy differ from ours; and theirs / seconds
    GB, hours       of the whole recipe: all splits as float32, on one core

Without the folder of trusted solutions these columns are empty, with the reason.
"""

import argparse
import csv
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pdeforecast.cli.arguments import duration
from pdeforecast.generation import Recipe, Split, load_recipe
from pdeforecast.pdes import (
    PDE,
    PDES,
    Convection,
    DiffusionPlane,
    DiffusionSphere,
    NavierStokes,
    ShallowWater,
)
from pdeforecast.solvers.sphere import Sphere

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "generate.csv"
Data = Mapping[str, Tensor]


@dataclass(frozen=True)
class Problem:
    """A trusted solution as our solver sees it.

    Attributes:
        start: the state at t = 0.
        axes: its nodes.
        times: after the start.
        truth: one variable at those times.
        variable: its name.
        mean: whether the mean of the truth is left out of its norm.
    """

    pde: PDE
    start: dict[str, Tensor]
    axes: dict[str, Tensor] | None
    times: list[float]
    truth: Tensor
    variable: str
    mean: bool = False


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--reference", type=Path, default=ROOT.parent / "shared" / "reference")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="some recipes or equations")
    parser.add_argument("--budget", type=duration, default=60.0, help="wall time after which no row is begun")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    end, rows = time.monotonic() + options.budget, []
    for name, recipe in recipes():
        if options.only and name not in options.only:
            continue
        if time.monotonic() > end:
            print(f"{name}: left out; the budget is spent", flush=True)
            continue
        row = {"recipe": name, **cost(recipe), **accuracy(name, options.reference)}
        if isinstance(row["theirs"], float) and isinstance(row["seconds"], float):
            row["ratio"] = row["theirs"] / row["seconds"]
        rows.append(row)
        print("  ".join(map(text, rows[-1].values())), flush=True)
    if rows:
        report(rows, options.output)


def recipes() -> Iterator[tuple[str, Recipe]]:
    """The recipes of datasets/, and one trajectory of each equation that has none."""
    found = {path.stem: load_recipe(path) for path in sorted((ROOT / "datasets").glob("*.toml"))}
    yield from found.items()
    for name in set(PDES) - {recipe.pde.name for recipe in found.values()}:
        yield name, Recipe(PDES[name](), {"train": Split(1, 0, PDES[name]())})


def cost(recipe: Recipe) -> dict[str, object]:
    """CPU seconds of one trajectory, and what all of them come to by their time spans and frames."""
    name, part = next(iter(recipe.splits.items()))
    begun = time.process_time()
    state = part.pde.initial(part.seed, name, 0)
    first, size = time.process_time() - begun, 0
    times = [t - part.pde.times()[0] for t in part.pde.times()]
    for _ in part.pde.solve(state, times):
        pass
    later = time.process_time() - begun - first
    seconds = 0.0
    for other in recipe.splits.values():
        points = int(np.prod([len(axis) for axis in other.pde.coordinates().values()]))
        size += 4 * other.samples * len(other.pde.times()) * points * len(other.pde.variables)
        span = (other.pde.times()[-1] - other.pde.times()[0]) / (times[-1] or 1.0)
        seconds += other.samples * (first + later * span)
    return {"seconds": first + later, "GB": size / 1e9, "hours": seconds / 3600}


# --- trusted solutions -----------------------------------------------------------------------------


def turned(field: Tensor) -> Tensor:
    """Their dimensions are ours in reverse order, after the time."""
    return field.movedim(tuple(range(1, field.ndim)), tuple(range(field.ndim - 1, 0, -1))).contiguous()


def sphere_axes(data: Data) -> dict[str, Tensor]:
    """Their colatitudes descend, so our latitudes ascend."""
    return {"latitude": 90 - data["theta"].rad2deg(), "longitude": data["phi"].rad2deg()}


def navier_stokes(data: Data) -> Problem:
    """The first of four trajectories."""
    pde, start = NavierStokes(), data["w0_f64"][0].mT.contiguous()
    state = {"vorticity": start, **pde.static()}
    return Problem(pde, state, None, data["t"].tolist(), turned(data["w"][0]), "vorticity")


def diffusion_plane(data: Data) -> Problem:
    """From the first frame: theirs is exact for a five-point scheme, ours in space as well."""
    truth = turned(data["u_exact"][0])
    times = (data["t"] - data["t"][0]).tolist()
    return Problem(DiffusionPlane(), {"temperature": truth[0]}, None, times, truth, "temperature")


def diffusion_sphere(data: Data) -> Problem:
    """The spot of their first seed."""
    pde, axes = DiffusionSphere(), sphere_axes(data)
    _, longitude, colatitude = data["seed_phi0_theta0"][0].rad2deg().tolist()
    state = dict(pde.spot(90 - colatitude, longitude, axes))
    return Problem(pde, state, axes, data["t"].tolist(), turned(data["h_exact"][0]), "temperature")


def shallow_water(data: Data) -> Problem:
    """To 100 hours; their second component of the wind is southward."""
    axes = sphere_axes(data)
    pde = ShallowWater(resolution=len(data["theta"]))
    sphere = Sphere(axes, radius=pde.radius)
    u, v = data["u"][0].mT.unbind(0)
    vorticity, divergence = sphere.curl_and_divergence(u.contiguous(), -v.contiguous())
    state = {
        "height": data["h"][0].mT.contiguous(),
        "vorticity": sphere.synthesis(vorticity),
        "divergence": sphere.synthesis(divergence),
    }
    kept = data["t"] <= 100.1 * 3600
    times = (data["t"][kept] / 3600).tolist()
    return Problem(pde, state, axes, times, turned(data["vort"][kept]), "vorticity")


def convection(data: Data) -> Problem:
    """To t = 2, while 24 modes resolve the flow."""
    at = data["t"][data["T_frames"].long()]
    kept = at <= 2.01
    start = {"temperature": turned(data["T0_f64"][None])[0]}
    truth = turned(data["T"][kept])
    return Problem(Convection(modes=24), start, None, at[kept].tolist(), truth, "temperature", mean=True)


TRUSTED: dict[str, tuple[str, Callable[[Data], Problem], str, float]] = {
    "navier-stokes": ("navier_stokes_64.npz", navier_stokes, "first-order reference scheme", 4.2),
    "diffusion-plane": ("diffusion_plane.npz", diffusion_plane, "py-pde", 2.7),
    "diffusion-sphere": ("diffusion_sphere.npz", diffusion_sphere, "Dedalus", 0.9),
    "shallow-water": ("shallow_water_192x96.npz", shallow_water, "Dedalus, Δt = 600 s", 60.0),
    "convection": ("convection_48x24x24.npz", convection, "Dedalus", 13.0),
}
"""By recipe: the file, how to read it, the code whose time the README tells, and that time in seconds."""


def accuracy(name: str, folder: Path) -> dict[str, object]:
    """Our solver from the trusted start, for the recipes with the parameters of the trusted solutions."""
    empty = dict.fromkeys(("error", "until", "theirs", "ratio"), "")
    if name not in TRUSTED:
        return {**empty, "trusted": "there is none"}
    file, read, code, theirs = TRUSTED[name]
    if not (folder / file).is_file():
        return {**empty, "trusted": f"{folder / file} is absent"}
    with np.load(folder / file) as found:
        data = {k: torch.tensor(found[k]).double() for k in found.files if found[k].dtype.kind in "fi"}
    problem = read(data)
    worst = 0.0
    for frame, truth in zip(
        problem.pde.solve(problem.start, problem.times, problem.axes), problem.truth, strict=True
    ):
        scale = (truth - truth.mean() if problem.mean else truth).norm()
        worst = max(worst, float((frame[problem.variable] - truth).norm() / scale))
    return {
        "error": worst,
        "until": problem.times[-1],
        "theirs": theirs,
        "ratio": "",
        "trusted": f"{file}; {code}",
    }


def text(value: object) -> str:
    """Three digits are enough."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def report(rows: list[dict[str, object]], path: Path) -> None:
    """Prints a Markdown table, and writes it as CSV."""
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    lines = [{key: text(value) for key, value in each.items()} for each in rows]
    for each in lines:
        print("| " + " | ".join(each.values()) + " |")
    command = f"python benchmarks/{shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        out = csv.DictWriter(file, [*lines[0], "command"])
        out.writeheader()
        out.writerows({**each, "command": command} for each in lines)


if __name__ == "__main__":
    main()
