"""How equivariant a forecast is: move the world, and see whether the forecast moves along.

With u the state, Φ the forecast, g a random element of the group and ‖·‖ over the whole space, for every
variable

    whole pipeline     ‖Φ(g u) − g Φ(u)‖ / ‖Φ(u)‖
    from the latents   the same, with g z in place of what the encoder makes of g u

Of this package's models the observed points, static fields and asked points are all moved, so nothing is
interpolated. Dynamics and field commute with the group exactly, so the second is rounding and, where there
are static fields, their encoding. The first is what the encoder adds, which starts from a fixed lattice.

Other methods hold no latents, and many of them a grid. Their states and forecasts are moved on it by the
harmonics of the space, which is exact for what the grid resolves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
import xarray as xr
from torch import Tensor

from pdeforecast.bench.harmonics import harmonics
from pdeforecast.bench.methods import Method, Model
from pdeforecast.bench.pictures import by_lead_time, picture, save
from pdeforecast.bench.scores import evolving, unforeseen
from pdeforecast.bench.study import Study, leads_of, state_of
from pdeforecast.bench.table import Case, Row, curve, groups, markdown, spread
from pdeforecast.errors import ForecastError
from pdeforecast.forecaster import Forecaster, static_samples
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.latents import Latents
from pdeforecast.trajectory import axes_of, geometry_of, grid_points, samples

Move = Callable[[Tensor], Tensor]
"""What is done to points."""

MOTIONS = 4
FRAMES = (0, 1, 5, 10, -1)
"""Of the truth, whose lead times are asked for."""
PARTS = {"whole pipeline": "pipeline_by_lead", "from the latents": "latents_by_lead"}


def cases(study: Study) -> list[Case]:
    """One for every method and seed."""

    def measure(method: Method, seed: int) -> list[Row]:
        truth = study.truth(seed)
        known, state = leads_of(truth), state_of(truth)
        leads = sorted({known[i] for i in FRAMES if i < len(known)})
        draw = torch.Generator().manual_seed(seed)
        motions = GEOMETRIES[geometry_of(state).domain].random_motion(MOTIONS, draw)
        try:
            found = measured(method, state, leads, motions)
        except ForecastError as error:
            return unforeseen(truth, error)
        shared: Row = {"motions": MOTIONS, "lead_times": tuple(leads)}
        return [{"variable": name, **shared, **found.curves(name)} for name in found.pipeline]

    return study.cases(measure)


def measured(
    method: Method, state: xr.Dataset, lead_times: Sequence[float], motions: Tensor
) -> "Equivariance":
    """The errors of any method; from its latents, too, if it has such."""
    if isinstance(method, Model):
        return equivariance(method.model, state, lead_times, motions)
    return on_its_grid(method, state, lead_times, motions)


def page(rows: Sequence[Row]) -> str:
    """A table for each equation: a line for each method, variable and part, a column for each lead time."""
    pages = []
    for group in groups([row for row in rows if curve(row, "lead_times")], ("equation", "lead_times")):
        names = [f"lead {lead:g}" for lead in curve(group[0], "lead_times")]
        lines: list[Row] = []
        for own in groups(group, ("method", "variable")):
            for part, column in PARTS.items():
                known = [curve(row, column) for row in own if curve(row, column)]
                if known:
                    shown = dict(zip(names, map(spread, zip(*known, strict=True)), strict=True))
                    said = {"method": own[0]["method"], "variable": own[0]["variable"], "relative_L2": part}
                    lines.append({**said, **shown})
        pages.append(markdown(lines, ["method", "variable", "relative_L2", *names]))
    return "\n\n".join(pages)


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """All parts against lead time, a picture for each equation and variable."""
    made = []
    for group in groups(rows, ("equation", "variable")):
        parts = [
            {**row, "error_by_lead": row[column], "label": f"{row['method']}, {part}"}
            for row in group
            for part, column in PARTS.items()
            if column in row
        ]
        title = "relative $L_2$, moved against forecast of the moved"
        figure = by_lead_time(parts, "error_by_lead", "label", title)
        if figure is not None:
            path = picture(folder, "equivariance", group[0]["equation"], group[0]["variable"])
            save(figure, path)
            made.append(path)
    return made


Curves = Mapping[str, tuple[float, ...]]
"""Of every variable, a number at each lead time."""


@dataclass(frozen=True)
class Equivariance:
    """Relative L2 errors of every variable at each lead time, root mean square over states and motions.

    Attributes:
        lead_times: T numbers.
        pipeline: of encoding, rollout and decoding, T numbers for each variable.
        latents: of rollout and decoding alone; empty where a method has no latents.
    """

    lead_times: tuple[float, ...]
    pipeline: Curves
    latents: Curves = field(default_factory=dict)

    def curves(self, variable: str) -> Row:
        """The columns of a variable in a table."""
        parts = zip(PARTS.values(), (self.pipeline, self.latents), strict=True)
        return {column: part[variable] for column, part in parts if variable in part}

    def markdown(self) -> str:
        """A table."""
        head = ["moved forecast against forecast of the moved", *(f"lead {t:g}" for t in self.lead_times)]
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for variable in self.pipeline:
            for part, column in PARTS.items():
                if errors := curve(self.curves(variable), column):
                    cells = [f"{variable}, {part}", *(f"{error:.1e}" for error in errors)]
                    lines.append("| " + " | ".join(cells) + " |")
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
    whole, inner = [], []
    for g in motions:
        moved = Latents(space.act_pose(g.to(start.poses), start.poses), start.contexts, start.windows)
        move = partial(space.act, g)
        whole.append(forecast(latents(move), move) - still)
        inner.append(forecast(moved, move) - still)
    curves = [_curves(parts, still, seen.measure, list(model.config.variables)) for parts in (whole, inner)]
    return Equivariance(tuple(leads), *curves)


@torch.no_grad()
def on_its_grid(
    method: Method, state: xr.Dataset, lead_times: Sequence[float], motions: Tensor
) -> Equivariance:
    """The errors of a method without latents: states on a full grid, moved on it as x ↦ u(g x).

    Raises:
        DataError: if the nodes of the grid do not tell its harmonics apart.
    """
    space, leads = GEOMETRIES[geometry_of(state).domain], sorted(lead_times)
    axes = axes_of(state, space)
    points, shape = grid_points(space, axes), [len(axis) for axis in axes.values()]
    basis = harmonics(space, dict(zip(axes, shape, strict=True)))

    def fields(ds: xr.Dataset) -> dict[str, tuple[list[str], Tensor]]:
        own = {str(n): a.transpose(..., *axes) for n, a in ds.data_vars.items() if set(axes) <= set(a.dims)}
        return {n: ([str(d) for d in a.dims], torch.from_numpy(a.values).double()) for n, a in own.items()}

    def moved(ds: xr.Dataset, there: Tensor) -> xr.Dataset:
        made = {}
        for name, (dims, values) in fields(ds).items():
            elsewhere = (basis.analysis(values, axes) @ there.T).unflatten(-1, shape)
            made[name] = (dims, elsewhere.numpy(), ds[name].attrs)
        return ds.assign(made)

    def shown(ds: xr.Dataset) -> Tensor:
        own = [ds[name].transpose("sample", "lead_time", *axes).values for name in names]
        return torch.stack([torch.from_numpy(values).double().flatten(2) for values in own], dim=-1)

    still = method.forecast(state, leads, like=state)
    names = list(evolving(still))
    parts = []
    for g in motions:
        there = basis.at(space.act(g, points))
        parts.append(
            shown(method.forecast(moved(state, there), leads, like=state)) - shown(moved(still, there))
        )
    return Equivariance(tuple(leads), _curves(parts, shown(still), space.weights(axes).flatten(), names))


def _curves(errors: Sequence[Tensor], still: Tensor, measure: Tensor, names: Sequence[str]) -> Curves:
    """Relative L2 of errors (S, T, M, V), one for each motion."""
    weight = measure.to(still)[:, None]
    size = (weight * still.square()).sum((0, 2))
    squares = torch.stack([(weight * error.square()).sum((0, 2)) / size for error in errors]).mean(0)
    return {name: tuple(squares[:, v].sqrt().tolist()) for v, name in enumerate(names)}
