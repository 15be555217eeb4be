"""What is drawn: one variable of a forecast, and of its truth, as plain arrays over places and lead times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pdeforecast.errors import DataError, UsageError, nearest
from pdeforecast.geometry import Geometry
from pdeforecast.metrics import relative_l2
from pdeforecast.plot.labels import label, quantity
from pdeforecast.trajectory import SAME_TIME, geometry_of, match, trajectory_values

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """One variable of a forecast, and of its truth if there is one.

    Attributes:
        geometry: of the places.
        places: (M, d), in the order of the geometry's coordinates.
        leads: the T lead times, ascending.
        fields: `truth`, `forecast`, `error`, each (S, T, M); without a truth, `forecast` only.
        errors: relative L2 (S, T) of `forecast` and of `persistence`; empty without a truth.
        name: of the variable, and its unit; of the time, and its unit.
        what: the word for what is drawn: a forecast, or what nobody forecast, such as a solution.
    """

    geometry: Geometry
    places: Array
    leads: Array
    fields: Mapping[str, Array]
    errors: Mapping[str, Array]
    name: str
    unit: str
    clock: str
    clock_unit: str
    what: str = "forecast"

    @property
    def title(self) -> str:
        return label(self.name, self.unit)

    @property
    def error_title(self) -> str:
        return label("error", self.unit)

    def word(self, field: str) -> str:
        """What a field is called in a picture."""
        return self.what if field == "forecast" else field

    def moment(self, lead_time: float) -> str:
        """The words for a lead time."""
        return f"{self.clock} {quantity(lead_time, self.clock_unit)}"

    def check_sample(self, sample: int) -> None:
        """Raises UsageError if there is no such sample."""
        count = len(self.fields["forecast"])
        if not 0 <= sample < count:
            raise UsageError(
                f"expected a sample from 0 to {count - 1}; came {sample}.", "Type `--sample 0`, or sample=0."
            )

    def index(self, lead_time: float) -> int:
        """The frame at a lead time; raises UsageError if there is none."""
        nearest = int(np.abs(self.leads - lead_time).argmin())
        if abs(self.leads[nearest] - lead_time) > SAME_TIME * max(1.0, abs(lead_time)):
            known = [f"{lead:g}" for lead in self.leads]
            few = known if len(known) <= 12 else [*known[:9], "…", *known[-3:]]
            near = f"{self.leads[nearest]:.9g}"
            raise UsageError(
                f"expected a lead time among those that can be drawn ({', '.join(few)}); came {lead_time:g}.",
                f"Type `--lead-time {near}`, or lead_time={near}; or forecast at {lead_time:g}.",
            )
        return nearest

    def frame(self, sample: int, lead_time: float) -> dict[str, Array]:
        """Each field (M,) of one sample at one lead time."""
        self.check_sample(sample)
        at = self.index(lead_time)
        return {name: field[sample, at] for name, field in self.fields.items()}


def scenes(ds: xr.Dataset, truth: xr.Dataset | None) -> list[Scene]:
    """A scene for each variable that can be drawn, those that evolve first.

    Raises:
        DataError: as `match` does; or if there is no variable.
    """
    return _alone(ds) if truth is None else _compared(ds, truth)


def scene_of(ds: xr.Dataset, truth: xr.Dataset | None = None, variable: str | None = None) -> Scene:
    """The scene of a variable; of the first by default.

    Raises:
        UsageError: if there is no such variable.
        DataError: as `scenes` does.
    """
    known = {scene.name: scene for scene in scenes(ds, truth)}
    if variable is None:
        return next(iter(known.values()))
    if variable not in known:
        raise UsageError(
            f"expected a variable among {', '.join(known)}; came {variable!r}.",
            f"Type `--variable {nearest(variable, known) or next(iter(known))}`.",
        )
    return known[variable]


def scenes_of(truth: xr.Dataset, forecasts: Mapping[str, xr.Dataset]) -> dict[str, Scene]:
    """The first variable of several forecasts of one truth, by label.

    Raises:
        UsageError: if there is no forecast.
        DataError: as `match` does.
    """
    if not forecasts:
        raise UsageError("expected at least one forecast; came none.", "Type forecasts={'label': ds}.")
    return {name: scene_of(ds, truth) for name, ds in forecasts.items()}


def _alone(ds: xr.Dataset) -> list[Scene]:
    geometry, names = geometry_of(ds), _variables(ds)
    units = {name: str(ds[name].attrs.get("units", "1")) for name in names}
    times, _, values = trajectory_values(ds, geometry, units)
    places = _numpy(trajectory_values(*positions(ds, geometry))[2][0, 0])
    order = np.argsort(times)
    leads, clock = np.array(times)[order], _clock(ds, "time" if "time" in ds.dims else "lead_time")
    fields = [{"forecast": _numpy(values[:, order, :, v])} for v in range(len(units))]
    return [
        Scene(geometry, places, leads, fields[v], {}, name, unit, *clock, _what(ds))
        for v, (name, unit) in enumerate(units.items())
    ]


def _what(ds: xr.Dataset) -> str:
    """What a file holds: a model's forecast, a solver's solution, or a trajectory or state of any origin."""
    if "model" in ds.attrs:
        return "forecast"
    if "time" in ds.dims:
        return "trajectory"
    if "lead_time" in ds.coords:
        return "solution" if "equation" in ds.attrs else "forecast"
    return "state"


def _variables(ds: xr.Dataset) -> list[str]:
    """The fields that evolve, else all."""
    fields = [str(name) for name in ds.data_vars if not str(name).endswith("_variance")]
    moving = [name for name in fields if {"time", "lead_time"} & set(ds[name].dims)]
    if not fields:
        raise DataError(
            "expected a variable to draw; this Dataset has none.",
            "Give a file made by `pdeforecast forecast`.",
        )
    return moving or fields


def _compared(ds: xr.Dataset, truth: xr.Dataset) -> list[Scene]:
    _check_same_space(ds, truth)
    pair = match(ds, truth)
    order = np.argsort(pair.lead_times)
    leads, clock = (
        np.array(pair.lead_times)[order],
        _clock(ds if {"time", "lead_time"} & set(ds.coords) else truth, "lead_time"),
    )
    places = _numpy(_common_places(ds, truth, pair.geometry))
    start = _start(ds, truth, pair.truth)
    what = _what(ds) if "equation" in ds.attrs else "forecast"
    made = []
    for v, name in enumerate(pair.variables):
        f, t = pair.forecast[:, order, :, v], pair.truth[:, order, :, v]
        still = start[..., v].expand_as(t)
        errors = {
            "forecast": relative_l2(f, t, pair.weights),
            "persistence": relative_l2(still, t, pair.weights),
        }
        fields = {"truth": t, "forecast": f, "error": f - t}
        unit = str(truth[name].attrs.get("units", "1"))
        made.append(Scene(pair.geometry, places, leads, _all(fields), _all(errors), name, unit, *clock, what))
    return made


def _check_same_space(ds: xr.Dataset, truth: xr.Dataset) -> None:
    theirs = geometry_of(truth).domain
    mine = geometry_of(ds).domain if "geometry" in ds.attrs else theirs
    if mine != theirs:
        raise DataError(
            f"expected two files of one geometry; what is drawn is on the {mine}, its truth on the {theirs}.",
            f"Give `--truth` a file on the {mine}, such as the one with the state that was forecast.",
        )


def _start(ds: xr.Dataset, truth: xr.Dataset, common: Tensor) -> Tensor:
    """The truth at lead time 0 (S, 1, M, V), even where nothing was forecast for it."""
    if "lead_time" not in ds.dims:
        return common[:, :1]
    first = ds.isel(lead_time=[0])
    now = ("lead_time", [0.0], first["lead_time"].attrs)
    try:
        return match(first.assign_coords(lead_time=now), truth).truth
    except DataError:
        return common[:, :1]


def _common_places(ds: xr.Dataset, truth: xr.Dataset, geometry: Geometry) -> Tensor:
    """The places (M, d) that both have, in the order in which `match` gives them."""
    return match(positions(ds, geometry)[0], positions(truth, geometry)[0]).truth[0, 0]


def positions(ds: xr.Dataset, geometry: Geometry) -> tuple[xr.Dataset, Geometry, dict[str, str]]:
    """The coordinates as variables, and how `trajectory_values` reads them."""
    axes = xr.broadcast(*(ds[name].astype(float) for name in geometry.coordinates))
    fields = {f"{axis.name}_position": axis.assign_attrs(units="1") for axis in axes}
    return xr.Dataset(fields, attrs=ds.attrs), geometry, dict.fromkeys(fields, "1")


def _clock(ds: xr.Dataset, name: str) -> tuple[str, str]:
    """The words for the time axis, and its unit."""
    time = next((ds[dim] for dim in ("lead_time", "time") if dim in ds.coords), xr.DataArray())
    unit = "hours" if time.dtype.kind == "m" else str(time.attrs.get("units", "1"))
    return name.replace("_", " "), unit


def _all(values: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: _numpy(tensor) for name, tensor in values.items()}


def _numpy(values: Tensor) -> Array:
    return np.asarray(values.numpy(force=True), dtype=np.float64)


def shown_leads(scene: Scene, most: int, asked: Sequence[float] | None = None) -> NDArray[np.int_]:
    """The frames at the lead times asked for, else at most so many from the first to the last.

    Raises:
        UsageError: if a lead time that was asked for is not there.
    """
    if asked is not None:
        return np.array([scene.index(lead) for lead in asked])
    return np.unique(np.linspace(0, len(scene.leads) - 1, most).round().astype(int))
