"""`bench superres`: a state on the training's grid in, forecasts on other grids out, and what they are worth.

The truth is the equation solved on a finer grid; the state that is given is that truth's first frame, brought
to the grid on which a method was trained: its low-pass on the periodic plane, means of blocks on the rotating
sphere, the values at its nodes elsewhere. *The training's grid* is that of the first contestant; one that was
trained on a finer grid is given the finer state, and shows what learning there is worth.

A forecast is asked for on coarser and finer grids and at random places off any grid, and stands beside the
interpolations of the method's *own* forecast on the grid of its state: spectral (trigonometric, cosine or
spherical-harmonic) and cubic splines.

On grids finer than the training's, errors are split at its Nyquist number (`spectra.py`); what follows from
them is said in words (`verdict.py`).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from pdeforecast.bench.interpolation import at_nodes, at_places, check_surface, random_places, splined
from pdeforecast.bench.methods import Method
from pdeforecast.bench.pictures import BESIDE, STYLE, canvas, line, look, picture, ruled, save
from pdeforecast.bench.scores import TRAIN_FRAMES, evolving, unforeseen
from pdeforecast.bench.spectra import Bands, bands, nyquist, power, symbol
from pdeforecast.bench.study import Study, card_of, leads_of
from pdeforecast.bench.table import Case, Row, curve, groups, markdown, number, over_seeds
from pdeforecast.bench.verdict import verdict
from pdeforecast.cells import MEAN, means
from pdeforecast.errors import ForecastError, UsageError
from pdeforecast.geometry import Geometry
from pdeforecast.metrics import relative_l2
from pdeforecast.pdes import PDE
from pdeforecast.solvers.torus import resample
from pdeforecast.trajectory import axes_of, geometry_of, grid_dims, to_dataset

FINEST = {"periodic_plane": 4, "plane": 4, "sphere": 2, "rotating_sphere": 2}
"""The finest grid of each space, in units of the training's; harmonics cost the cube of their number."""
PLACES = 1000
_DRAWN = 1e-14
"""Energies below this share of the largest are not drawn."""
KEYS = ("equation", "variable", "method", "given", "way", "grid")
NUMBERS = ("t_in_l2", "below", "above", "energy", "share")
DIRECT, SPECTRAL, SPLINE = "direct", "spectral interpolation", "spline"

Fields = dict[str, Tensor]
"""Each variable's values (S, T, *grid) or (S, T, M)."""


def cases(study: Study) -> list[Case]:
    """One for every method and seed.

    Raises:
        UsageError: if a file of truth is given, or the equation's space has no spectra.
    """
    if study.data is not None and study.data.is_file():
        raise UsageError(
            "expected a folder for solutions on fine grids, which this suite makes itself; came a file.",
            f"Type `--data {study.data.parent}`, or leave it out.",
        )

    def measure(method: Method, seed: int) -> list[Row]:
        coarse = study.pde()
        coarse = replace(coarse, frames=min(coarse.frames, TRAIN_FRAMES))
        truth = study.truth(seed, finer(coarse, FINEST.get(coarse.geometry, 1)))
        check_surface(geometry_of(truth))
        try:
            return Comparison(method, coarse, trained_on(method, coarse), truth, seed).rows()
        except ForecastError as error:
            return unforeseen(truth, error)

    return study.cases(measure)


def finer(pde: PDE, factor: int) -> PDE:
    """The equation on `factor` times as many points per axis, from the same initial states."""
    own: Any = pde
    blocks = getattr(pde, "coarsen", 1)
    if blocks > 1 and blocks % factor == 0:
        return replace(own, coarsen=blocks // factor)
    return replace(
        own, resolution=own.resolution * factor // blocks, **({"coarsen": 1} if blocks > 1 else {})
    )


def trained_on(method: Method, pde: PDE) -> PDE:
    """The equation on the grid on which a method was trained, if its card tells; else as it is."""
    own: Any = pde
    known = json.loads(card_of(method).get("data", {}).get("parameters", "{}"))
    told = {name: known[name] for name in ("resolution", "coarsen") if name in known and hasattr(pde, name)}
    return replace(own, **told)


class Comparison:
    """One method's forecasts on several grids, from one state, against one solution on a fine grid.

    Args:
        coarse: the equation on the training's grid, in units of which grids are told.
        own: the equation on the grid of the state that the method is given.
    """

    def __init__(self, method: Method, coarse: PDE, own: PDE, truth: xr.Dataset, seed: int) -> None:
        self.method, self.seed = method, seed
        self.geometry = geometry_of(truth)
        self.dims = grid_dims(self.geometry)
        self.axes, self.coarse = axes_of(truth, self.geometry), coarse.coordinates()
        self.given = own.coordinates()
        self.leads = leads_of(truth)
        self.truth = fields_of(truth, self.dims)
        self.state = restricted(truth, self.geometry, self.given)
        self.number = nyquist(self.geometry, self.coarse)
        self.own = self.forecast({name: len(axis) for name, axis in self.given.items()})[0]

    def forecast(self, sizes: Mapping[str, int]) -> tuple[Fields, Mapping[str, Tensor]]:
        """The method's forecast on a grid of these sizes, and its axes."""
        ds = self.method.forecast(self.state, self.leads, grid=sizes)
        return fields_of(ds, self.dims), axes_of(ds, self.geometry)

    def shape(self, axes: Mapping[str, Tensor]) -> str:
        """The sizes of a grid, in words."""
        return "×".join(str(len(axes[name])) for name in self.dims)

    def rows(self) -> list[Row]:
        """All rows: every grid, way and variable."""
        made: list[Row] = []
        finest = round(len(self.axes[self.dims[0]]) / len(self.coarse[self.dims[0]]))
        factors = [0.5, *(2.0**i for i in range(1 + round(math.log2(finest))))]
        for factor in factors:
            direct, axes = self.forecast({name: round(factor * len(a)) for name, a in self.coarse.items()})
            ways = {DIRECT: lambda name, d=direct: d[name]}
            if all(len(axes[name]) > len(own) for name, own in self.given.items()):
                ways |= {
                    SPECTRAL: lambda name, a=axes: at_nodes(self.own[name], self.geometry, self.given, a),
                    SPLINE: lambda name, a=axes: splined(self.own[name], self.geometry, self.given, a),
                }
            for name, truth in self.truth.items():
                there = self.seen(truth, axes)
                made += [self.row(name, way, factor, axes, f(name), there) for way, f in ways.items()]
        return [*made, *self.off_grid()]

    def seen(self, truth: Tensor, axes: Mapping[str, Tensor]) -> Tensor:
        """The truth at the nodes of a grid."""
        return at_nodes(truth, self.geometry, self.axes, axes)

    def row(
        self, name: str, way: str, factor: float, axes: Mapping[str, Tensor], f: Tensor, truth: Tensor
    ) -> Row:
        """The errors of one variable on one grid."""
        weights = self.geometry.weights(axes).flatten()
        row = self.errors(name, way, self.shape(axes), f, truth, weights)
        row |= {"factor": factor, "nyquist": self.number, "numbers": symbol(self.geometry)}
        if factor > 1:
            spectra = [power(u[:, 1:], self.geometry, axes).mean((0, 1)) for u in (truth, f - truth, f)]
            truth_power, error_power, own_power = spectra
            split = bands(truth_power, error_power, own_power, self.number)
            row |= {field.name: getattr(split, field.name) for field in fields(split)}
            for label, e in zip(("truth", "error", "forecast"), spectra, strict=True):
                row[f"spectrum_{label}"] = tuple(e.tolist())
        return row

    def errors(
        self, name: str, way: str, grid: str, f: Tensor, truth: Tensor, weights: Tensor | None = None
    ) -> Row:
        """Relative L2, at every lead and over all but the first."""
        error = relative_l2(f.flatten(2), truth.flatten(2), weights).mean(0)
        return {
            "variable": name,
            "given": self.shape(self.given),
            "way": way,
            "grid": grid,
            "t_in_l2": float(error[1:].mean()),
            "lead_times": tuple(self.leads),
            "l2_by_lead": tuple(error.tolist()),
        }

    def off_grid(self) -> list[Row]:
        """Errors at random places."""
        places = random_places(self.geometry, PLACES, self.seed)
        like = to_dataset(
            torch.zeros(1, 1, PLACES, 1), self.geometry, {"place": "1"}, places, [0.0], time_name="time"
        ).isel(time=0, sample=0)
        found = fields_of(self.method.forecast(self.state, self.leads, like=like), ("point",))
        rows = []
        for name, truth in self.truth.items():
            there = at_places(truth, self.geometry, self.axes, places)
            between = at_places(self.own[name], self.geometry, self.given, places)
            for way, f in ((DIRECT, found[name]), (SPECTRAL, between)):
                rows.append(self.errors(name, way, "random places", f, there))
        return rows


def fields_of(ds: xr.Dataset, places: Sequence[str]) -> Fields:
    """The evolving variables of trajectories or forecasts, float64."""
    order = ("sample", "time" if "time" in ds.dims else "lead_time", *places)
    return {name: torch.from_numpy(ds[name].transpose(*order).values).double() for name in evolving(ds)}


def restricted(truth: xr.Dataset, geometry: Geometry, axes: Mapping[str, Tensor]) -> xr.Dataset:
    """The first frame on the nodes of a coarser grid, as the training's grid saw it; static fields, too."""
    first = truth.isel(time=0)
    own, dims = axes_of(truth, geometry), grid_dims(geometry)

    def lowered(values: Tensor) -> Tensor:
        if geometry.domain == "periodic_plane":
            return resample(values, *(len(axes[name]) for name in dims))
        if geometry.domain == "rotating_sphere":
            return means(values, len(own[dims[0]]) // len(axes[dims[0]]))
        return at_nodes(values, geometry, own, axes)

    variables = {}
    blocks = geometry.domain == "rotating_sphere" and len(own[dims[0]]) > len(axes[dims[0]])
    kind = {"cell_methods": MEAN} if blocks else {}
    for name, array in first.data_vars.items():
        if set(dims) <= set(array.dims):
            kept = tuple(dim for dim in array.dims if dim not in dims)
            values = torch.from_numpy(array.transpose(*kept, *dims).values).double()
            variables[name] = ((*kept, *dims), lowered(values).numpy(), array.attrs | kind)
    coords = {name: (name, axis.numpy(), truth[name].attrs) for name, axis in axes.items()}
    return xr.Dataset(variables, {**coords, "sample": truth["sample"].values}, truth.attrs)


# --- in words ------------------------------------------------------------------------------------


def verdicts(rows: Sequence[Row]) -> list[str]:
    """A line for every method, equation and variable, from bands that are means over seeds."""
    lines = []
    for group in groups([row for row in rows if "below" in row], ("equation", "variable", "method")):
        by_way = {way: _bands(group, way) for way in (DIRECT, SPECTRAL)}
        first = group[0]
        if by_way[DIRECT].keys() != by_way[SPECTRAL].keys():
            lines.append(
                f"{first['method']}, {first['equation']}, {first['variable']}: was given {first['given']} "
                f"points; what it shows there is no super-resolution"
            )
            continue
        words = verdict(
            by_way[DIRECT], by_way[SPECTRAL], int(number(first, "nyquist")), str(first["numbers"])
        )
        lines.append(f"{first['method']}, {first['equation']}, {first['variable']}: {words}")
    return lines


def _bands(rows: Sequence[Row], way: str) -> dict[float, Bands]:
    names = [field.name for field in fields(Bands)]
    return {
        number(own[0], "factor"): Bands(**{n: float(np.mean([number(row, n) for row in own])) for n in names})
        for own in groups([row for row in rows if row["way"] == way], ("factor",))
    }


def page(rows: Sequence[Row]) -> str:
    """The verdicts and the table."""
    shown = markdown(over_seeds(rows, KEYS, NUMBERS), [*KEYS, "seeds", *NUMBERS])
    return "\n".join(f"- {line}" for line in verdicts(rows)) + f"\n\n{shown}"


# --- in pictures ---------------------------------------------------------------------------------


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Spectra with the training's Nyquist number, and error against lead time: a picture for each method."""
    made = []
    for group in groups([row for row in rows if "lead_times" in row], ("equation", "variable", "method")):
        first = group[0]
        path = picture(folder, "superres", first["equation"], first["variable"], first["method"])
        save(drawn(group), path)
        made.append(path)
    return made


@rc_context(STYLE)
def drawn(rows: Sequence[Row]) -> Figure:
    """One method and variable: spectra on the finest grid, and errors of every grid."""
    figure, (left, right) = canvas(2)
    highest = max(number(row, "factor") for row in rows if "factor" in row)
    finest = [row for row in rows if number(row, "factor") == highest]
    spectra: dict[str, tuple[Row, str, dict[str, str]]] = {
        f"error, {row['way']}": (row, "spectrum_error", {}) for row in finest
    }
    spectra["truth"] = (finest[0], "spectrum_truth", {"color": "black", "linestyle": "-"})
    spectra["forecast"] = (finest[0], "spectrum_forecast", {"color": "black", "linestyle": ":"})
    for i, (label, (row, name, own_look)) in enumerate(spectra.items()):
        e = np.array(curve(row, name))
        left.plot(np.arange(1, len(e)), e[1:], label=label, **{**look(i), "marker": "", **own_look})
    known = np.array(curve(finest[0], "spectrum_truth"))
    left.axvline(number(finest[0], "nyquist"), color="0.4", linewidth=0.8, linestyle="--")
    place, below = (number(finest[0], "nyquist"), 0.03), {"xytext": (-3, 0), "textcoords": "offset points"}
    words: Any = {"xycoords": ("data", "axes fraction"), "fontsize": 7, "ha": "right", **below}
    left.annotate("training's\nNyquist", place, **words)
    left.set(xscale="log", yscale="log", ylim=(_DRAWN * known.max(), 3 * known.max()))
    left.set(xlabel=f"number {finest[0]['numbers']}", ylabel="energy E")
    left.set_title(f"{finest[0]['grid']}, from the state on the training's grid", loc="left")
    for i, on_grid in enumerate(groups(rows, ("grid",))):
        for own in groups(on_grid, ("way",)):
            y = np.array([curve(row, "l2_by_lead") for row in own])
            line(right, curve(own[0], "lead_times"), y, f"{own[0]['grid']}, {own[0]['way']}", i)
            right.lines[-1].set_linestyle({DIRECT: "-", SPECTRAL: "--", SPLINE: ":"}[str(own[0]["way"])])
    right.set(xlabel="lead time", ylabel="relative $L_2$ error")
    right.set_title(f"{rows[0]['method']}, {rows[0]['variable']}", loc="left")
    left.grid(alpha=0.25, linewidth=0.5)
    ruled(right)
    left.legend(loc="upper left", bbox_to_anchor=(-0.05, -0.16), ncols=2)
    right.legend(**BESIDE)
    return figure
