"""Encode the initial state, roll the latents out to these times, decode at these points."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from pdeforecast import kernel_dynamics
from pdeforecast.assimilation import Frame, assimilate, assimilate_remembered
from pdeforecast.cells import MEAN, holds_means, nodes_of, widths
from pdeforecast.config import (
    AttentionFieldConfig,
    ForecasterConfig,
    KernelDynamicsConfig,
    LinearFieldConfig,
)
from pdeforecast.decoding import Decoded
from pdeforecast.dynamics import LatentDynamics, Modal
from pdeforecast.encoder import MetaSGD
from pdeforecast.errors import DataError, DivergedError, UsageError, nearest
from pdeforecast.familiarity import Fit, examine
from pdeforecast.field import EquivariantField
from pdeforecast.geometry import GEOMETRIES, Geometry
from pdeforecast.kernel_dynamics import KernelDynamics
from pdeforecast.latents import Latents
from pdeforecast.linear_dynamics import LinearDynamics
from pdeforecast.linear_field import LinearField
from pdeforecast.preconditioner import PreconditionedSGD, homogeneous
from pdeforecast.principal import FINE_NOISE, PrincipalSGD
from pdeforecast.rollout import Surroundings, rollout
from pdeforecast.trajectory import (
    STATION,
    TIMES,
    Samples,
    axes_of,
    converted,
    default_axes,
    factors,
    flat,
    grid_dims,
    is_grid,
    lead_times,
    observations,
    samples,
    start_time,
    station_names,
    target,
    time_factor,
    time_unit,
    times_of,
    to_dataset,
    unit_of,
)
from pdeforecast.trust import doubts

_POINTS = 2**16
"""Points decoded at once."""
_PAIRS = {True: 2**22, False: 2**18}
"""Pairs of a point and a state decoded at once, by whether the field is linear (then a pair costs a
number, otherwise networks' hidden values): bounds memory whatever is asked for."""
_STATIC = LinearFieldConfig()
"""How static fields are held, whatever the field of the states."""


class Forecaster(nn.Module):
    """A trained model: states of one set of variables on one geometry, to any time and any point.

    Args:
        config: what it is made of.

    Attributes:
        mean, scale: (V,), of the variables; networks see (value − mean) / scale.
        card: what is known of the model: data, training, measured errors; plain data.
        identity: the name and hash under which it was loaded.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        self.config = config
        self.geometry = GEOMETRIES[config.geometry]
        self.encoder = _encoder(config)
        if config.statics:
            static_field = _linear_field(self.geometry, len(config.statics), _STATIC)
            self.static_encoder = PreconditionedSGD(static_field, _STATIC.latents, _STATIC.window)
        self.dynamics = _dynamics(config, self.encoder)
        self.linear: LinearDynamics | None = None
        if isinstance(self.encoder, PrincipalSGD) and not config.moving and not self.remembers:
            self.linear = LinearDynamics(self.encoder.modes.shape[-1])
        self.register_buffer("mean", torch.zeros(len(config.variables)))
        self.register_buffer("scale", torch.ones(len(config.variables)))
        self.card: dict[str, Any] = {}
        self.identity = ""

    @property
    def field(self) -> LinearField | EquivariantField:
        """How states are represented: the encoder's, whose weights are stored once."""
        return self.encoder.field

    @property
    def remembers(self) -> bool:
        """Whether the dynamics are remembered trajectories, and no network."""
        return isinstance(self.dynamics, KernelDynamics)

    @property
    def cells(self) -> int:
        """How many nodes along each axis, between which it remembers trajectories, are a cell of its data; 1
        where data were taken as they are."""
        return self.dynamics.cells if isinstance(self.dynamics, KernelDynamics) else 1

    def prepare(self) -> "Forecaster":
        """Computes what follows from the weights: the projection and the linear part of the dynamics."""
        if self.config.moving or not isinstance(self.dynamics, LatentDynamics):
            return self
        if isinstance(self.encoder, PreconditionedSGD):
            self.dynamics.visible = self.encoder.visible().to(self.mean)
        if self.linear is not None and self._in_modes():
            assert isinstance(self.encoder, PrincipalSGD)
            self._reading = self.encoder.reading()
            modal = self.encoder.modes, self._reading, self.encoder.centre.flatten()
            generator = self.linear.generator[:-1]
            self.dynamics.modal = Modal(
                *(part.to(self.mean) for part in (*modal, generator[:, :-1], generator[:, -1]))
            )
        return self

    def _in_modes(self) -> bool:
        """Whether states are their principal modes, and nothing else."""
        encoder = self.encoder
        return isinstance(encoder, PrincipalSGD) and encoder.local.silent and bool(encoder.modes.any())

    def lattice(self) -> Tensor:
        """The poses that latents start from."""
        return self.geometry.lattice(self.config.field.latents).to(self.mean)

    def windows(self) -> Tensor:
        """The windows of the latents."""
        width = self.config.field.window * self.geometry.spacing(self.config.field.latents)
        return self.mean.new_full((self.config.field.latents,), width)

    def encode(
        self,
        points: Tensor,
        values: Tensor,
        variance: Tensor | None = None,
        measure: Tensor | None = None,
    ) -> Latents:
        """Observed values (batch, M, V), NaN where not observed, at points (M, d) → latents.

        Args:
            variance: of the observations' errors, shaped as `values`; none means exact.
            measure: (M,), the part of the space that each point represents; none means all alike.
        """
        return self._plain(self._encoded(*self._normal(points, values, variance), measure))

    def examined(
        self,
        points: Tensor,
        values: Tensor,
        variance: Tensor | None = None,
        measure: Tensor | None = None,
    ) -> tuple[Latents, Fit]:
        """The latents that `encode` gives, and how the states look beside those of the training data."""
        inputs = *self._normal(points, values, variance), measure
        latents = self._encoded(*inputs)
        fit = examine(self.encoder, latents, *inputs)
        if isinstance(self.dynamics, KernelDynamics):
            assert isinstance(self.encoder, PrincipalSGD)
            fit = replace(fit, misfit=self.dynamics.strangeness(self.encoder, latents))
        return self._plain(latents), fit

    def _encoded(
        self, points: Tensor, values: Tensor, variance: Tensor | None, measure: Tensor | None
    ) -> Latents:
        """By the encoder, or by the harmonics of dynamics that remember, where less is observed than half of
        what the latents can hold."""
        if isinstance(self.dynamics, KernelDynamics):
            assert isinstance(self.encoder, PrincipalSGD)
            numbers = self.config.field.latents * self.field.context_dim
            if 2 * int((~values.isnan()).sum()) < len(values) * numbers:
                return self.dynamics.encode(self.encoder, points, values, variance, measure)
        return self.encoder(points, values, variance, measure)

    def _normal(
        self, points: Tensor, values: Tensor, variance: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Observations as the encoder sees them."""
        # The exact step works in float64, networks in the type of their weights.
        like = self.mean.double() if self.field.linear else self.mean
        error = None if variance is None else variance.to(like) / self.scale**2
        return points.to(like), (values.to(like) - self.mean) / self.scale, error

    def _plain(self, latents: Latents) -> Latents:
        """Latents in the type of the weights."""
        return latents.map(lambda tensor: tensor.to(self.mean.dtype))

    def surroundings(self, points: Tensor, statics: Tensor, measure: Tensor | None = None) -> Surroundings:
        """Static fields, known as values (batch or 1, M, statics) at points, as poses see them."""
        if not self.config.statics:
            return lambda poses: poses.new_zeros(1, poses.shape[-2], 0).to(self.mean)
        device = self.mean.device
        held = self.static_encoder(points.to(device), statics.to(device), None, measure)
        offsets = _stencil(self.geometry) * self.geometry.spacing(self.config.field.latents)

        def read(poses: Tensor) -> Tensor:
            around = self.geometry.exp(poses.double()[..., :, None, :], offsets.to(poses.device))
            values = self.static_encoder.field(self.geometry.place(around).flatten(-3, -2), held)
            return values.unflatten(-2, (poses.shape[-2], -1)).flatten(-2).to(self.mean)

        return read

    def rollout(self, latents: Latents, surroundings: Surroundings, times: Sequence[float]) -> list[Latents]:
        """The latents at each of the non-decreasing `times`."""
        if self.linear is not None and self.linear.sufficient:
            return [self.carried(latents, time) for time in times]
        if isinstance(self.dynamics, KernelDynamics):
            assert isinstance(self.encoder, PrincipalSGD)
            return self.dynamics.rollout(self.encoder, latents, times)
        assert not isinstance(self.config.dynamics, KernelDynamicsConfig)
        return rollout(self.dynamics, latents, surroundings, times, step=self.config.dynamics.step)

    def modes_of(self, latents: Latents) -> Tensor:
        """w (batch, rank), in float64: how much of each principal mode the latents hold."""
        assert isinstance(self.encoder, PrincipalSGD)
        return (latents.contexts - self.encoder.centre).flatten(1) @ self._reading.T

    def carried(self, latents: Latents, time: float) -> Latents:
        """The latents after a time, by the linear part of the dynamics alone."""
        assert self.linear is not None and isinstance(self.encoder, PrincipalSGD)
        modes = self.linear.flow(self.modes_of(latents), time)
        away = (modes @ self.encoder.modes.double().T).unflatten(1, self.encoder.centre.shape)
        return replace(latents, contexts=(self.encoder.centre + away).to(latents.contexts))

    def decode(self, points: Tensor, states: Sequence[Latents]) -> Tensor:
        """The fields of T × batch states at points (M, d): (batch, T, M, V), in bounded memory."""
        batch = states[0].contexts.shape[0]
        poses = states[0].poses
        if not states[0].shared or any(state.poses is not poses for state in states):
            poses = torch.cat([state.poses.expand(batch, -1, -1) for state in states])
        many = Latents(poses, torch.cat([state.contexts for state in states]), states[0].windows)
        size = max(1, min(_POINTS, _PAIRS[self.field.linear] // len(many.contexts)))
        pieces = [self.field(chunk.to(self.mean), many) for chunk in points.split(size)]
        values = torch.cat(pieces, dim=1) * self.scale + self.mean
        return values.unflatten(0, (len(states), batch)).transpose(0, 1)

    @torch.no_grad()
    def forecast(
        self,
        state: xr.Dataset,
        lead_time: Iterable[float] | float,
        grid: Mapping[str, int] | None = None,
        like: xr.Dataset | None = None,
        statics: xr.Dataset | None = None,
        assimilate: bool = False,
        lazy: bool = False,
    ) -> xr.Dataset:
        """The forecast from `state` at every lead time, as a Dataset.

        It keeps the units of `state`, its samples' labels, and its time, if it has one, as the
        attribute `start_time`. Kilometres, radians, minutes and the like are converted, and given back.

        Args:
            state: a full grid, a grid with NaN gaps, or loose sensors; of several times, the first.
                Static fields lie at the same points, or, beside loose sensors, on the default grid.
            lead_time: one or several real numbers ≥ 0, in the time unit that `state` says, else in that of
                the training data; 0 is the reconstruction.
            grid: the size of each axis of the forecast's grid; by default the points are those of
                `like`, or else those of `state`.
            like: a Dataset whose points are taken.
            statics: a Dataset with the static fields, by default `state`.
            assimilate: fit the latents, through the dynamics, to what `state` holds at *all* of its
                times; lead times count from the first of them.
            lazy: decode values only when they are asked for, as `trajectory.write` does block by block.

        Raises:
            DataError: if `state` is not what the model expects.
            UsageError: if lead times or grid mean nothing, or the model cannot assimilate.
            DivergedError: if the forecast leaves the finite numbers; if `lazy`, when it is read.
        """
        for what, ds in (("state", state), ("like", like), ("statics", statics)):
            _check_dataset(ds, what, self.config.variables)
        times, given = lead_times(lead_time), _in_order(state) if assimilate else _first(state)
        own = self.config.time_unit
        unit = time_unit(given, own)
        by_time = time_factor(given, own)
        state = self._in_units(given)
        seen = samples(state, self.geometry, self.config.variables) if not assimilate else None
        series = observations(state, self.geometry, self.config.variables, own) if assimilate else []
        seen = None if seen is None else self.as_values(given, seen)
        series = [(time, self.as_values(given, at)) for time, at in series]
        start = series[0][1] if seen is None else seen
        around = self._statics(state if statics is None else self._in_units(statics), len(start.values))
        axes, places, on_grid = self._targets(given, grid, like)
        latents, fit = self.examined(start.points, start.values, start.variance, start.measure)
        observed = (series[-1][0] - series[0][0]) / by_time if series else 0.0
        said = doubts(self.card, times, unit, fit, list(self.config.variables), by_time, observed)
        if len(series) > 1:
            latents = self._assimilated(series, around)
        order = sorted(set(times))
        path = self.rollout(latents, around, [by_time * time for time in order])
        for at in path:
            self._check_finite(at.contexts, times, by_time)
        by = factors(given, self.config.variables)
        scale = self.mean.new_tensor([by.get(name, 1.0) for name in self.config.variables])

        def decode(points: Tensor, states: Sequence[Latents]) -> Tensor:
            values = self.decode(points, states)
            self._check_finite(values, times, by_time)
            return values / scale

        states = [path[order.index(t)] for t in times]
        cells = self._cells_of(given if like is None else like) if grid is None else None
        nodes, each = (axes, 1) if cells is None else self._in_cells(axes)
        decoded = Decoded(decode, self.geometry, states, nodes, on_grid, len(self.config.variables), each)
        forecast = to_dataset(
            np.broadcast_to(np.float32(0), (*decoded.shape, len(self.config.variables))),
            self.geometry,
            {name: unit_of(given, name, unit) for name, unit in self.config.variables.items()},
            axes,
            times,
            time_unit=unit,
            attrs={"model": self.identity, **start_time(given, unit), **said.attrs()},
        )
        said.warn()
        kind = {} if cells is None else {"cell_methods": MEAN}
        fields = {
            name: decoded.variable([str(dim) for dim in forecast[name].dims], v, forecast[name].attrs | kind)
            for v, name in enumerate(self.config.variables)
        }
        labels = {"sample": np.atleast_1d(given["sample"].values)} if "sample" in given.coords else {}
        forecast = forecast.assign(fields).assign_coords({**places, **labels})
        return forecast if lazy else forecast.load()

    def _cells_of(self, ds: xr.Dataset) -> tuple[float, float] | None:
        """The width, in degrees of latitude and longitude, of the cells that the numbers of `ds` are means
        over; None where they are values, or the model knows no difference."""
        if not isinstance(self.dynamics, KernelDynamics) or self.dynamics.cells == 1:
            return None
        if not holds_means(ds, self.config.variables) or not is_grid(ds, self.geometry):
            return None
        axes = axes_of(converted(ds, factors(ds, self.geometry.units), self.geometry.units), self.geometry)
        latitude, longitude = (
            float(widths(axis, alone).abs().median())
            for axis, alone in zip(axes.values(), self.dynamics.width, strict=True)
        )
        return latitude, longitude

    def as_values(self, ds: xr.Dataset, seen: Samples) -> Samples:
        """Observations of `ds` as the encoder takes them: means over cells, where a model knows them from
        values, as values between them if all are there, and else at their centres."""
        width = self._cells_of(ds)
        if width is None:
            return seen
        assert isinstance(self.dynamics, KernelDynamics) and isinstance(self.encoder, PrincipalSGD)
        points, values, variance = self._normal(seen.points, seen.values, seen.variance)
        fine = self.dynamics.undone(points, values) if variance is None else None
        if fine is not None:
            measured = self.dynamics.measure()
            return Samples(self.dynamics.points(), fine * self.scale + self.mean, None, measured)
        found = self.dynamics.at_centres(self.encoder, points, values, variance, seen.measure, width)
        return replace(seen, values=found * self.scale + self.mean)

    def _in_cells(self, axes: Mapping[str, Any]) -> tuple[dict[str, Tensor], int]:
        """The axes of the nodes that the cells of a grid are made of, and how many of each a cell has."""
        assert isinstance(self.dynamics, KernelDynamics)
        cells = self.dynamics.cells
        made = {
            name: nodes_of(torch.as_tensor(axis, dtype=torch.float64), cells, alone)
            for (name, axis), alone in zip(axes.items(), self.dynamics.width, strict=True)
        }
        return made, cells

    def _check_finite(self, values: Tensor, times: Sequence[float], by: float) -> None:
        """That a forecast is finite; `by` is what lead times are multiplied with for the model."""
        if not values.isfinite().all():
            horizon = self.card.get("horizon")
            trained = "an unknown time" if horizon is None else f"{horizon / by:g}"
            raise DivergedError(
                f"the forecast left the finite numbers before lead time {max(times):g}.",
                f"Ask for shorter lead times; the model's training data reach to {trained}.",
            )

    def _in_units(self, ds: xr.Dataset) -> xr.Dataset:
        """`ds` in the units of the model, where a factor is all that is between."""
        units = {**self.geometry.units, **self.config.variables, **self.config.statics}
        return converted(ds, factors(ds, units), units)

    def _assimilated(self, series: list[tuple[float, Samples]], around: Surroundings) -> Latents:
        """The latents at the first of several times that all of them make most likely."""
        if isinstance(self.encoder, MetaSGD) or self.config.moving:
            raise UsageError(
                "expected a model with a linear field and resting poses, to assimilate several times.",
                "Choose another model, or forecast from one time.",
            )
        static = around(self.encoder.poses)
        frames = [
            Frame(time - series[0][0], *self._normal(at.points, at.values, at.variance), at.measure)
            for time, at in series
        ]

        if isinstance(self.dynamics, KernelDynamics):
            assert isinstance(self.encoder, PrincipalSGD)
            found = assimilate_remembered(self.dynamics, self.encoder, frames)
            return found.map(lambda tensor: tensor.to(self.mean))

        def carry(latents: Latents, sample: int, times: Sequence[float]) -> list[Latents]:
            held = static if len(static) == 1 else static[sample : sample + 1]
            return self.rollout(latents.map(lambda tensor: tensor.to(self.mean)), lambda _: held, times)

        linear = self.linear if self.linear is not None and self.linear.sufficient else None
        return assimilate(self.encoder, carry, frames, linear).map(lambda tensor: tensor.to(self.mean))

    def _statics(self, state: xr.Dataset, count: int) -> Surroundings:
        """The static fields around `count` states."""
        if not self.config.statics:
            return self.surroundings(torch.empty(0), torch.empty(0))
        for name in self.config.statics:
            if name not in state.variables:
                raise _without(name, state.drop_vars(self.config.variables, errors="ignore"))
        found = static_samples(state, self.geometry, self.config.statics)
        if len(found.values) not in (1, count):
            raise DataError(
                f"expected as many states as static fields; came {count} and {len(found.values)}.",
                f"Choose one: `ds['{next(iter(self.config.statics))}'].isel(sample=0)`.",
            )
        return self.surroundings(found.points, found.values, found.measure)

    def _targets(
        self, state: xr.Dataset, grid: Mapping[str, int] | None, like: xr.Dataset | None
    ) -> tuple[dict[str, Any], dict[str, Any], bool]:
        """The axes of the forecast, its coordinates in the units they were given in, where those are
        others, with the names of its places, and whether it lies on a grid."""
        ds = state if like is None else like
        by = factors(ds, self.geometry.units)
        same = converted(ds, by, self.geometry.units)
        axes, on_grid = target(same, self.geometry, grid, None if like is None else same)
        places = {} if grid is not None else {name: ds[name].variable for name in by}
        if not on_grid:
            places = {
                name: xr.Variable("point", flat(ds, name, self.geometry), place.attrs)
                for name, place in places.items()
            }
            names = station_names(ds, self.geometry)
            places |= {} if names is None else {STATION: xr.Variable("point", names)}
        return axes, places, on_grid


def _check_dataset(ds: Any, what: str, variables: Iterable[str]) -> None:
    """That what is given is a Dataset, since coordinates and units tell what its numbers are."""
    if not isinstance(ds, xr.Dataset) and (ds is not None or what == "state"):
        name = next(iter(variables))
        raise DataError(
            f"expected `{what}` as xarray.Dataset; came {type(ds).__name__}.",
            f"Type `{what}.to_dataset(name={name!r})`."
            if isinstance(ds, xr.DataArray)
            else f"Type `xr.Dataset({{{name!r}: …}}, coords=…)`, with the coordinates of its values.",
        )


_STENCIL = 4
"""Places per axis, within a cell around a pose, at which static fields are read."""


def _stencil(geometry: Geometry) -> Tensor:
    """Velocities (STENCIL^dim, velocity_dim) from a pose, in units of the lattice spacing."""
    axis = (torch.arange(_STENCIL, dtype=torch.float64) + 0.5) / _STENCIL - 0.5
    steps = torch.stack(torch.meshgrid(*[axis] * geometry.dim, indexing="ij"), dim=-1)
    steps = steps.view(-1, geometry.dim)
    turns = steps.new_zeros(len(steps), geometry.velocity_dim - geometry.dim)
    return torch.cat([steps, turns], dim=-1)


def static_samples(ds: xr.Dataset, geometry: Geometry, statics: Mapping[str, str]) -> Samples:
    """Static fields at the points of `ds`, or, beside loose sensors, on a default grid of their own.

    Raises:
        DataError: as `trajectory.check` does.
    """
    dims = grid_dims(geometry)
    own = [name for name in statics if name in ds.data_vars and set(dims) <= set(ds[name].dims)]
    if len(own) == len(statics) and not is_grid(ds, geometry):
        ds = ds[own].drop_vars(dims, errors="ignore")
        ds = ds.assign_coords(default_axes(geometry, {name: ds.sizes[name] for name in dims}))
    return samples(ds, geometry, statics)


def _without(name: str, ds: xr.Dataset) -> DataError:
    """That the static field `name` is not in `ds`; perhaps one of its variables is meant."""
    others = list(map(str, ds.data_vars))
    cause = f"expected {name}, a static field, beside the state; there is {', '.join(others) or 'none'}."
    if near := nearest(name, others):
        return DataError(cause, f"Rename it: `ds = ds.rename({near}={name!r})`.")
    where = "as a variable of STATE.nc, which `--sensors` may stand beside, or as a column of the table"
    return DataError(cause, f"Give {name} {where}.")


def _first(ds: xr.Dataset) -> xr.Dataset:
    """The first frame of a Dataset that has several; one that has none is left to the checks."""
    return ds.isel({name: 0 for name in TIMES if ds.sizes.get(name)})


def _in_order(ds: xr.Dataset) -> xr.Dataset:
    """All frames of a Dataset, in the order of their times."""
    name = next((name for name in TIMES if name in ds.dims), None)
    return ds if name is None else ds.isel({name: np.argsort(times_of(ds), kind="stable")})


def _dynamics(config: ForecasterConfig, encoder: nn.Module) -> LatentDynamics | KernelDynamics:
    """Untrained dynamics.

    Raises:
        ValueError: where those that remember do not serve.
    """
    own, geometry = config.dynamics, GEOMETRIES[config.geometry]
    assert isinstance(encoder, (PreconditionedSGD, PrincipalSGD, MetaSGD))
    if not isinstance(own, KernelDynamicsConfig):
        return LatentDynamics(
            geometry,
            encoder.field.context_dim,
            len(config.statics) * _STENCIL**geometry.dim,
            own.hidden,
            own.blocks,
            geometry.spacing(config.field.latents),
            own.neighbours,
            own.moving,
        )
    if not isinstance(encoder, PrincipalSGD) or config.statics:
        raise ValueError("the preset `memory` serves fields that turn about an axis, without static ones.")
    return KernelDynamics(
        geometry,
        len(config.variables),
        own.latitudes,
        own.longitudes,
        own.trajectories,
        own.frames,
        own.modes,
        max(1, own.cells),
        own.between,
    )


def _linear_field(geometry: Any, channels: int, config: LinearFieldConfig) -> LinearField:
    radius = config.radius * geometry.spacing(config.latents)
    return LinearField(geometry, channels, config.degree, config.neighbours, radius)


def _encoder(config: ForecasterConfig) -> PreconditionedSGD | PrincipalSGD | MetaSGD:
    geometry, channels, chosen = GEOMETRIES[config.geometry], len(config.variables), config.field
    if isinstance(chosen, LinearFieldConfig):
        linear = _linear_field(geometry, channels, chosen)
        if homogeneous(geometry, chosen.latents):
            return PreconditionedSGD(linear, chosen.latents, chosen.window, chosen.noise)
        remembers = isinstance(config.dynamics, KernelDynamicsConfig)
        fine = kernel_dynamics.NOISE if remembers else FINE_NOISE
        return PrincipalSGD(linear, chosen.latents, chosen.window, chosen.rank, fine, chosen.noise)
    assert isinstance(chosen, AttentionFieldConfig)
    field = EquivariantField(
        geometry,
        channels,
        chosen.context_dim,
        chosen.hidden,
        chosen.heads,
        chosen.neighbours,
        chosen.query_scale,
        chosen.value_scale,
    )
    return MetaSGD(field, chosen.latents, chosen.window, chosen.steps, chosen.fit_poses)
