"""`bench sparse`: forecasts from a share of the points of a state, or from as many loose sensors.

A share of 100, 50, 10, 5 and 2 % of the points of the grid is kept, drawn at random for each sample; or the
same number of sensors stands at random places off the grid, the same for all samples of a seed, and reads the
truth's spectral interpolant there. Every method is given the same, and is scored on the whole grid.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from pdeforecast.bench.interpolation import at_places, random_places
from pdeforecast.bench.methods import Method
from pdeforecast.bench.pictures import picture, save, trends
from pdeforecast.bench.scores import evolving, scored
from pdeforecast.bench.study import Study, check_samples, leads_of, state_of
from pdeforecast.bench.table import Case, Row, groups, markdown, number, over_seeds
from pdeforecast.trajectory import axes_of, geometry_of, grid_dims

SHARES = (1.0, 0.5, 0.1, 0.05, 0.02)
KEYS = ("equation", "variable", "observed", "share", "method")
NUMBERS = ("lead_0_mse", "paper_t_in", "paper_t_out", "t_in_l2", "t_out_l2")


def cases(study: Study) -> list[Case]:
    """One for every method, seed, share, and way of observing."""
    made = []
    for share in SHARES:
        for observed in ("grid", "sensors"):
            made += study.cases(_measured(study, share, observed), observed=observed, share=share)
    return made


def _measured(study: Study, share: float, observed: str) -> Callable[[Method, int], list[Row]]:
    see = gaps if observed == "grid" else sensors

    def measure(method: Method, seed: int) -> list[Row]:
        truth = study.truth(seed)
        check_samples(truth)
        full = state_of(truth)
        state = see(full, list(evolving(truth)), share, seed)
        return scored(lambda: method.forecast(state, leads_of(truth), like=full), truth)

    return measure


def gaps(state: xr.Dataset, variables: Sequence[str], share: float, seed: int) -> xr.Dataset:
    """The state with round(share · M) random points of the M of each sample kept, the rest NaN."""
    dims = ("sample", *grid_dims(geometry_of(state)))
    shape = tuple(state.sizes[dim] for dim in dims)
    draw = np.random.default_rng([seed, round(1e6 * share)])
    order = draw.random((shape[0], int(np.prod(shape[1:])))).argsort(axis=1)
    keep = xr.DataArray((order < round(share * order.shape[1])).reshape(shape), dims=dims)
    return state.assign({name: state[name].where(keep) for name in variables})


def sensors(state: xr.Dataset, variables: Sequence[str], share: float, seed: int) -> xr.Dataset:
    """What round(share · M) loose sensors read of the state; static fields stay on their grid."""
    geometry = geometry_of(state)
    dims, axes = grid_dims(geometry), axes_of(state, geometry)
    count = round(share * int(np.prod([len(axis) for axis in axes.values()])))
    places = random_places(geometry, count, seed)
    fields = {}
    for name in variables:
        values = torch.from_numpy(state[name].transpose("sample", *dims).values).double()
        fields[name] = (
            ("sample", "point"),
            at_places(values, geometry, axes, places).numpy(),
            state[name].attrs,
        )
    coords = {
        "sample": state["sample"].values if "sample" in state.coords else np.arange(state.sizes["sample"]),
        **{name: ("point", place.numpy(), state[name].attrs) for name, place in places.items()},
    }
    held = {
        str(name): array.variable for name, array in state.data_vars.items() if set(array.dims) == set(dims)
    }
    attrs = {**state.attrs, "geometry": geometry.domain}
    return xr.Dataset(fields, coords, attrs).assign(held)


def page(rows: Sequence[Row]) -> str:
    """The table, and which method is best at every share."""
    shown = markdown(over_seeds(rows, KEYS, NUMBERS), [*KEYS, "seeds", *NUMBERS])
    return f"{shown}\n\n{best(rows)}"


def best(rows: Sequence[Row]) -> str:
    """In words, the method of the smallest relative L2 over t_in at every share; where it learned nothing, as
    the solver, also the two best of those that did, and for how long they did."""
    lines = []
    for group in groups(rows, ("equation", "variable", "observed", "share")):
        first = group[0]
        means = {
            str(own[0]["method"]): float(np.mean([number(row, "t_in_l2") for row in own]))
            for own in groups(group, ("method",))
        }
        learned = {str(row["method"]): _minutes(str(row["training"])) for row in group if row.get("training")}
        order = sorted((mean, name) for name, mean in means.items() if np.isfinite(mean))
        if not order:
            continue
        words = {name: f"{name}, {mean:.3g}{learned.get(name, '')}" for mean, name in order}
        of_learned = [words[name] for _, name in order if name in learned][:2]
        if order[0][1] not in learned:
            further = [f"of those that learned {'; '.join(of_learned)}"] if of_learned else []
            of_learned = [words[order[0][1]], *further]
        lines.append(
            f"- {first['equation']}, {first['variable']}, {number(first, 'share'):.0%} "
            f"({first['observed']}): {'; '.join(of_learned)}"
        )
    return "Least relative L2 over t_in, with minutes of training:\n\n" + "\n".join(lines)


def _minutes(training: str) -> str:
    """`216 s on cpu` as words in brackets; nothing where it is not told so."""
    told = re.match(r"(\d+) s\b", training)
    return f" ({int(told[1]) / 60:.2g} minutes)" if told else ""


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Error over t_in against the share of points, a picture for each equation and variable."""
    made = []
    for group in groups(rows, ("equation", "variable")):
        path = picture(folder, "sparse", group[0]["equation"], group[0]["variable"])
        labels = ("method", "observed")
        figure = trends(group, "share", "t_in_l2", labels, "share of points observed", "relative $L_2$, t_in")
        if figure is not None:
            save(figure, path)
            made.append(path)
    return made
