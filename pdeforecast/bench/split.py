"""`bench split`: how much of a forecast's error is decoding, encoding, and latent dynamics.

With u the truth at a lead time, D z what latents z decode to, z_e the encoding of u itself, z the forecast's
latents, and P u the field nearest to u that any latents decode to,

    u − D z  =  (u − P u)  +  (P u − D z_e)  +  (D z_e − D z)
    error    =  decoding   +  encoding       +  dynamics

in the norm of the space, ‖·‖² weighted by its measure. Decoding and encoding together are the *floor*: what
would be left if the dynamics were perfect. The dynamics' part is the distance of latents in the metric of the
field, and has in it what the first encoding did to the forecast. Squares of parts add up to the square of the
error but for their products, which stand in the column `cross`.

P u is a least-squares problem if the field is linear in its contexts; otherwise, or if there are too many of
them, only the floor is given.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from matplotlib import rc_context
from torch import Tensor

from pdeforecast.bench.methods import Method
from pdeforecast.bench.pictures import STYLE, canvas, finished, line, picture, save
from pdeforecast.bench.study import Study, forecaster_of, leads_of, state_of
from pdeforecast.bench.table import Case, Row, curve, groups, markdown, spread
from pdeforecast.cells import means, nodes_of
from pdeforecast.forecaster import Forecaster, static_samples
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField
from pdeforecast.rollout import Surroundings
from pdeforecast.trajectory import axes_of, grid_points, samples

MOST_CONTEXTS = 4096
"""Contexts per variable for which least squares are solved by a dense factor."""
PARTS = ("error", "floor", "decoding", "encoding", "dynamics")
KEYS = ("equation", "variable", "method")


def cases(study: Study) -> list[Case]:
    """One for every model and seed."""

    def measure(method: Method, seed: int) -> list[Row]:
        return parts(forecaster_of(method), study.truth(seed))

    return study.cases(measure)


@torch.no_grad()
def parts(model: Forecaster, truth: xr.Dataset) -> list[Row]:
    """For every variable, the relative L2 of each part at every lead time, root mean square over samples."""
    leads, state = leads_of(truth), state_of(truth)
    first = samples(state, model.geometry, model.config.variables)
    start = model.as_values(truth, first)
    show = _reader(model, truth, means_of_cells=len(start.points) > len(first.points))
    latents = model.encode(start.points, start.values, start.variance, start.measure)
    path = model.rollout(latents, around(model, state), leads)
    nearest = _nearest(model, first.points, first.measure)
    table: dict[str, list[Tensor]] = {name: [] for name in (*PARTS, "cross", "size")}
    for i, z in enumerate(path):
        frame = samples(truth, model.geometry, model.config.variables, i)
        u = frame.values.double()
        here = model.as_values(truth, frame)
        own = model.encode(here.points, here.values, None, here.measure)
        shown, forecast = (show(latents).double().to(u) for latents in (own, z))
        found = {"error": u - forecast, "floor": u - shown, "dynamics": shown - forecast}
        if nearest is not None:
            best = nearest(u)
            found |= {"decoding": u - best, "encoding": best - shown}
        weight = frame.measure.to(u)[:, None] / frame.measure.sum()
        squares = {name: (weight * part.square()).sum(1).mean(0) for name, part in found.items()}
        squares["cross"] = squares["error"] - squares["floor"] - squares["dynamics"]
        squares["size"] = (weight * u.square()).sum(1).mean(0)
        for name, value in squares.items():
            table[name].append(value)
    columns = {name: torch.stack(values) for name, values in table.items() if values}
    return [_row(name, v, leads, columns) for v, name in enumerate(model.config.variables)]


def _reader(model: Forecaster, truth: xr.Dataset, means_of_cells: bool) -> Callable[[Latents], Tensor]:
    """What latents show, (batch, M, V), at the points of the truth or in means over its cells."""
    if not means_of_cells:
        points = samples(truth, model.geometry, model.config.variables, 0).points
        return lambda latents: model.decode(points, [latents])[:, 0]
    axes, cells = axes_of(truth, model.geometry), model.cells
    shape = [cells * len(axis) for axis in axes.values()]
    nodes = grid_points(model.geometry, {name: nodes_of(axis, cells, 0.0) for name, axis in axes.items()})

    def read(latents: Latents) -> Tensor:
        fields = model.decode(nodes, [latents])[:, 0].mT.unflatten(-1, shape)
        return means(fields, cells).flatten(-2).mT

    return read


def _row(name: str, v: int, leads: Sequence[float], columns: dict[str, Tensor]) -> Row:
    size = columns["size"][:, v]
    row: Row = {"variable": name, "lead_times": tuple(leads)}
    for part in PARTS:
        if part in columns:
            row[part] = tuple((columns[part][:, v] / size).sqrt().tolist())
    row["cross"] = tuple((columns["cross"][:, v] / size).tolist())
    return row


def around(model: Forecaster, state: xr.Dataset) -> Surroundings:
    """The static fields of a state, as the poses of a model see them."""
    if not model.config.statics:
        return model.surroundings(torch.empty(0), torch.empty(0))
    held = static_samples(state, model.geometry, model.config.statics)
    return model.surroundings(held.points, held.values, held.measure)


def _nearest(model: Forecaster, points: Tensor, measure: Tensor) -> Callable[[Tensor], Tensor] | None:
    """P, on the points of the states; None if it is out of reach."""
    field = model.field
    if not isinstance(field, LinearField) or field.functions * model.config.field.latents > MOST_CONTEXTS:
        return None
    poses, windows = (u.double() for u in (model.lattice(), model.windows()))
    root = measure.double().sqrt()[:, None]
    design = root * field.design(points.double().to(poses), poses, windows).to_dense().cpu()
    basis = torch.linalg.svd(design, full_matrices=False)
    kept = 1e-10 * basis.S[0] < basis.S
    q = basis.U[:, kept]

    def project(u: Tensor) -> Tensor:
        white = (u - model.mean.cpu().double()) / model.scale.cpu().double()
        near = q @ (q.T @ (root * white)) / root
        return near * model.scale.cpu().double() + model.mean.cpu().double()

    return project


def page(rows: Sequence[Row]) -> str:
    """A table for each model and variable: a line per lead time."""
    pages = []
    for group in groups(rows, KEYS):
        first = group[0]
        lines = []
        for i, lead in enumerate(curve(first, "lead_times")):
            line: dict[str, float | str] = {"lead_time": lead}
            for part in PARTS:
                values = [curve(row, part)[i] for row in group if curve(row, part)]
                if values:
                    line[part] = spread(values)
            lines.append(line)
        title = f"{first['method']}, {first['equation']}, {first['variable']}: relative L2"
        pages.append(f"{title}\n\n{markdown(lines, ['lead_time', *PARTS])}")
    return "\n\n".join(pages)


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """The parts against lead time, a picture for each model and variable."""
    made = []
    for group in groups(rows, KEYS):
        first = group[0]
        with rc_context(STYLE):
            figure, axes = canvas()
            for i, part in enumerate(PARTS):
                own = [curve(row, part) for row in group if curve(row, part)]
                if own:
                    line(axes, np.array(curve(first, "lead_times")), np.array(own), part, i)
            axes.lines[0].set(color="0.75", linewidth=5, marker="")
            axes.set_title(f"{first['method']}, {first['variable']}: parts of the error", loc="left")
            drawn = finished(figure, axes, "lead time", "relative $L_2$")
        if drawn is not None:
            path = picture(folder, "split", first["equation"], first["variable"], first["method"])
            save(drawn, path)
            made.append(path)
    return made
