"""How equivariant a forecast is: move the world, and see whether the forecast moves along.

Observed points, static fields and asked points are all moved by a random element g of the group, so
nothing is interpolated. With u the state, Φ the forecast and ‖·‖ over the whole space,

    whole pipeline     ‖Φ(g u) − g Φ(u)‖ / ‖Φ(u)‖
    from the latents   the same, with g z in place of what the encoder makes of g u

Dynamics and field commute with the group exactly, so the second is rounding and, where there are static
fields, their encoding. The first is what the encoder adds, which starts from a fixed lattice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import xarray as xr
from torch import Tensor

from pdeforecast.bench.methods import Method
from pdeforecast.bench.pictures import by_lead_time, picture, save
from pdeforecast.bench.study import Study, forecaster_of, leads_of, state_of
from pdeforecast.bench.table import Case, Row, curve, groups, markdown, spread
from pdeforecast.forecaster import Forecaster, static_samples
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.latents import Latents
from pdeforecast.trajectory import samples

Move = Callable[[Tensor], Tensor]
"""What is done to points."""

MOTIONS = 4
FRAMES = (0, 1, 5, 10, -1)
"""Of the truth, whose lead times are asked for."""
PARTS = {"whole pipeline": "pipeline_by_lead", "from the latents": "latents_by_lead"}


def cases(study: Study) -> list[Case]:
    """One for every model and seed."""

    def measure(method: Method, seed: int) -> list[Row]:
        model, truth = forecaster_of(method), study.truth(seed)
        known = leads_of(truth)
        leads = sorted({known[i] for i in FRAMES if i < len(known)})
        draw = torch.Generator().manual_seed(seed)
        motions = GEOMETRIES[model.geometry.domain].random_motion(MOTIONS, draw)
        found = equivariance(model, state_of(truth), leads, motions)
        row: Row = {"motions": MOTIONS, "lead_times": tuple(leads)}
        return [{**row, "pipeline_by_lead": found.pipeline, "latents_by_lead": found.latents}]

    return study.cases(measure)


def page(rows: Sequence[Row]) -> str:
    """A table for each equation: a line for each model and part, a column for each lead time."""
    pages = []
    for group in groups(rows, ("equation", "lead_times")):
        names = [f"lead {lead:g}" for lead in curve(group[0], "lead_times")]
        lines: list[Row] = []
        for own in groups(group, ("method",)):
            for part, column in PARTS.items():
                values = zip(*(curve(row, column) for row in own), strict=True)
                shown = dict(zip(names, map(spread, values), strict=True))
                lines.append({"method": own[0]["method"], "relative_L2": part, **shown})
        pages.append(markdown(lines, ["method", "relative_L2", *names]))
    return "\n\n".join(pages)


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Both parts against lead time, a picture for each equation."""
    made = []
    for group in groups(rows, ("equation",)):
        parts = [
            {**row, "error_by_lead": row[column], "label": f"{row['method']}, {part}"}
            for row in group
            for part, column in PARTS.items()
        ]
        title = "relative $L_2$, moved against forecast of the moved"
        figure = by_lead_time(parts, "error_by_lead", "label", title)
        if figure is not None:
            path = picture(folder, "equivariance", group[0]["equation"], "all")
            save(figure, path)
            made.append(path)
    return made


@dataclass(frozen=True)
class Equivariance:
    """Relative L2 errors at each lead time, root mean square over states and motions.

    Attributes:
        lead_times: T numbers.
        pipeline: (T,), of encoding, rollout and decoding.
        latents: (T,), of rollout and decoding alone.
    """

    lead_times: tuple[float, ...]
    pipeline: tuple[float, ...]
    latents: tuple[float, ...]

    def markdown(self) -> str:
        """A table."""
        rows = {"whole pipeline": self.pipeline, "from the latents": self.latents}
        lines = [
            "| moved forecast against forecast of the moved | "
            + " | ".join(f"lead {lead:g}" for lead in self.lead_times)
            + " |",
            "|---|" + "---|" * len(self.lead_times),
        ]
        lines += [f"| {name} | " + " | ".join(f"{e:.1e}" for e in row) + " |" for name, row in rows.items()]
        return "\n".join(lines)


@torch.no_grad()
def equivariance(
    model: Forecaster, state: xr.Dataset, lead_times: Sequence[float], motions: Tensor
) -> Equivariance:
    """The errors of `model` on the states of `state`, over all `motions` (G, pose_dim).

    A model without symmetry is moved by the symmetry of its space: what it lacks is measured.
    """
    space = GEOMETRIES[model.geometry.domain]
    leads = sorted(lead_times)
    seen = samples(state, model.geometry, model.config.variables)
    held = static_samples(state, model.geometry, model.config.statics) if model.config.statics else None

    def latents(move: Move) -> Latents:
        start = model.as_values(state, replace(seen, points=move(seen.points)))
        return model.encode(start.points, start.values, start.variance, start.measure)

    def forecast(start: Latents, move: Move) -> Tensor:
        if held is None:
            around = model.surroundings(torch.empty(0), torch.empty(0))
        else:
            around = model.surroundings(move(held.points), held.values, held.measure)
        return model.decode(move(seen.points), model.rollout(start, around, leads)).double()

    start = latents(lambda x: x)
    still = forecast(start, lambda x: x)
    weight = seen.measure.to(still)[:, None]
    size = (weight * still.square()).sum((0, 2, 3))
    whole, inner = torch.zeros_like(size), torch.zeros_like(size)
    for g in motions:
        moved = Latents(space.act_pose(g.to(start.poses), start.poses), start.contexts, start.windows)
        move = partial(space.act, g)
        for total, z in ((whole, latents(move)), (inner, moved)):
            total += (weight * (forecast(z, move) - still).square()).sum((0, 2, 3)) / size
    error = [tuple((total / len(motions)).sqrt().tolist()) for total in (whole, inner)]
    return Equivariance(tuple(leads), error[0], error[1])
