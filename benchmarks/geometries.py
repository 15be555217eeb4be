"""Does one encoder serve every space? Reconstruction of random smooth fields, with and without symmetry.

    python benchmarks/geometries.py --budget 60s --seed 0

On each space, fields are random band-limited series of that space, seen through a smooth spot. A model is
trained on fields whose spots lie in one half of the space and is judged on unseen fields in that half, and on
the same ones moved to the other half by a motion of the space. Both fields are tried: the linear one, whose
prior is learned in closed form, and the attention field, whose encoder is meta-learned in the given CPU time.

    100 %, 20 %     relative L2 of unseen fields in the same half, from all points and from a fifth
    other half      the error in the other half over that in the same one (from all points, from a fifth):
                    1 means that what was learned of one place is known of every place
"""

import argparse
import csv
import math
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor

from pdeforecast.cli.arguments import duration
from pdeforecast.config import AttentionFieldConfig, DynamicsConfig, ForecasterConfig, LinearFieldConfig
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import GEOMETRIES, SPACES, Geometry
from pdeforecast.training import Progress, TrainingConfig, Trajectories, train

RESULTS = Path(__file__).parent / "results" / "geometries.csv"
POINTS, TRAIN, TEST = 2048, 512, 256
WAVES, BAND = 24, 4
WIDTH = {2: 0.1, 3: 0.15}
"""Of the spots, by dimension, in units of the size of the space."""


def main() -> None:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--budget", type=duration, default=60.0, help="CPU time of each attention field")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = []
    for space in SPACES:
        random = Generator().manual_seed(options.seed)
        points = space.random_points(POINTS, random)
        known, unseen = (fields(space, points, count, random) for count in (TRAIN, TEST))
        there = space.act(exchange(space, points, random), points)
        for geometry in (space, GEOMETRIES[f"{space.name}_without_symmetry"]):
            for kind, config in configs(space).items():
                model, seconds = learn(geometry, config, points, known, options.budget)
                rows.append(row(f"{geometry.name}, {kind}", model, (points, there), unseen, seconds))
                print(
                    "  ".join(
                        f"{value:.3g}" if isinstance(value, float) else value for value in rows[-1].values()
                    ),
                    flush=True,
                )
    report(rows, options)


def configs(space: Geometry) -> dict[str, LinearFieldConfig | AttentionFieldConfig]:
    """Small fields, of about as many latents on each space."""
    latents, degree = (36, 3) if space.dim == 2 else (64, 2)
    rank = latents * (degree + 1) ** space.dim
    return {
        "linear": LinearFieldConfig(latents=latents, degree=degree, rank=rank),
        "attention": AttentionFieldConfig(latents=latents, hidden=48, context_dim=24, value_scale=4.0),
    }


def fields(space: Geometry, points: Tensor, count: int, random: Generator) -> Tensor:
    """(count, 1, M, 1): a series times a spot whose centre lies in one half of the space."""
    waves = torch.stack([series(space, points, random) for _ in range(count)])
    centres = space.random_points(8 * count, random)
    width = WIDTH[space.dim] * space.volume ** (1 / space.dim)
    centres = space.lift(centres[halves(space, centres) > 2 * width][:count])
    spots = (-0.5 * (space.distance(points, centres[:, None]) / width) ** 2).exp()
    return (waves * spots)[:, None, :, None].float()


def exchange(space: Geometry, points: Tensor, random: Generator) -> Tensor:
    """A motion that carries one half of the space to the other, as well as one of a thousand does."""
    motions = space.random_motion(1000, random)
    kept = [float((halves(space, points) * halves(space, space.act(g, points))).mean()) for g in motions]
    return motions[min(range(len(kept)), key=kept.__getitem__)]


def halves(space: Geometry, points: Tensor) -> Tensor:
    """Positive in one half of the space, negative in the other; a motion of the space exchanges them."""
    if space.name in ("periodic_plane", "cylinder"):
        return points[:, 0] - 0.5
    return points[:, 0]


def series(space: Geometry, points: Tensor, random: Generator) -> Tensor:
    """A random band-limited series at points (M, d), (M,), of about unit size."""
    total = torch.zeros(len(points), dtype=torch.float64)
    for _ in range(WAVES):
        amplitude, phase = torch.randn(2, generator=random, dtype=torch.float64)
        wave = PHASE[space.name](points, random)
        total += amplitude * (wave + 10 * phase).cos()
    return total * math.sqrt(2 / WAVES)


def periodic(points: Tensor, random: Generator) -> Tensor:
    """The phase of a plane wave of whole wave numbers."""
    k = torch.randint(-BAND, BAND + 1, (2,), generator=random)
    return 2 * math.pi * (points * k).sum(-1)


def plane(points: Tensor, random: Generator) -> Tensor:
    """The phase of a plane wave in any direction, at most BAND of them across the window."""
    angle, number = torch.rand(2, generator=random, dtype=torch.float64)
    direction = torch.stack([(2 * math.pi * angle).cos(), (2 * math.pi * angle).sin()])
    return 2 * math.pi * BAND * number / 6 * (points @ direction)


def space_wave(points: Tensor, random: Generator) -> Tensor:
    """The phase of a plane wave through space, of which sphere and ball show a part."""
    direction = torch.randn(3, generator=random, dtype=torch.float64)
    number = torch.rand((), generator=random, dtype=torch.float64)
    return 2 * BAND * number * (points @ (direction / direction.norm()))


PHASE: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "periodic_plane": periodic,
    "plane": plane,
    "cylinder": periodic,
    "sphere": space_wave,
    "rotating_sphere": space_wave,
    "ball": space_wave,
}


def learn(
    geometry: Geometry,
    field: LinearFieldConfig | AttentionFieldConfig,
    points: Tensor,
    values: Tensor,
    budget: float,
) -> tuple[Forecaster, float]:
    """A trained encoder and its CPU time."""
    torch.manual_seed(0)
    linear = isinstance(field, LinearFieldConfig)
    config = ForecasterConfig(geometry.name, {"u": "1"}, {}, field=field, dynamics=DynamicsConfig(hidden=1))
    training = TrainingConfig(
        field_steps=3 if linear else 10**6, batch=8, points=512, copies=8 if geometry.dim == 2 else 2
    )
    alike = torch.ones(len(points))
    data = Trajectories((0.0,), points, alike, values, points[:0], alike[:0], torch.zeros(1, 0, 0))
    progress = Progress(Forecaster(config), replace(training, dynamics_steps=0, joint_steps=0))
    start = time.process_time()
    for report in train(progress, data):
        if not linear and report.step % 20 == 5:
            spent = time.process_time() - start
            left = int((budget - spent) * report.step / spent)
            progress.config = replace(progress.config, field_steps=report.step + max(left, 1))
        if report.step == progress.config.field_steps:
            break
    progress.load_average()
    return progress.model.eval(), time.process_time() - start


@torch.no_grad()
def error(model: Forecaster, points: Tensor, values: Tensor, share: float) -> float:
    """Relative L2 of fields (count, 1, M, 1) encoded from a share of their points."""
    known = torch.randperm(len(points), generator=Generator().manual_seed(1))[: int(share * len(points))]
    latents = model.encode(points[known], values[:, 0, known])
    guess = model.decode(points, [latents])[:, 0]
    return float((guess - values[:, 0]).square().mean().sqrt() / values.square().mean().sqrt())


def row(
    name: str, model: Forecaster, places: tuple[Tensor, Tensor], unseen: Tensor, seconds: float
) -> dict[str, str | float]:
    """What is printed of one model: unseen fields where they are, and moved to the other half."""
    here, there = ([error(model, points, unseen, share) for share in (1.0, 0.2)] for points in places)
    return {
        "model": name,
        "100%": here[0],
        "20%": here[1],
        "other half, 100%": there[0] / here[0],
        "other half, 20%": there[1] / here[1],
        "cpu_seconds": seconds,
    }


def report(rows: list[dict[str, str | float]], options: argparse.Namespace) -> None:
    """Prints a Markdown table, and writes it as CSV."""
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    text = [{k: v if isinstance(v, str) else f"{v:.3g}" for k, v in each.items()} for each in rows]
    for each in text:
        print("| " + " | ".join(each.values()) + " |")
    command = f"python benchmarks/{shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}"
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with open(options.output, "w", newline="") as file:
        out = csv.DictWriter(file, [*text[0], "command"])
        out.writeheader()
        out.writerows({**each, "command": command} for each in text)


if __name__ == "__main__":
    main()
