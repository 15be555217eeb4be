"""What a Forecaster is made of: frozen, with no field that changes nothing."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

from pdeforecast.errors import UsageError, nearest


@dataclass(frozen=True)
class LinearFieldConfig:
    """The field that is linear in its contexts, encoded by the exact preconditioned step.

    Attributes:
        latents: N, the size of the lattice.
        degree: of the Chebyshev polynomials, per axis.
        neighbours: k nearest latents per point; 0 for all.
        window: σ of the windows, in lattice spacings.
        radius: of the charts, in lattice spacings.
        rank: principal modes of the prior, where the group does not make all latents of one.
        noise: variance of the observations' errors that the prior is learned with. With less, its modes hold
            more of what the field can, and contexts grow along directions that no field value shows, which a
            network then has to tell from the others.
    """

    latents: int = 64
    degree: int = 3
    neighbours: int = 9
    window: float = 0.5
    radius: float = 1.5
    rank: int = 320
    noise: float = 1e-6


@dataclass(frozen=True)
class AttentionFieldConfig:
    """The field by cross-attention of the paper, encoded by Meta-SGD with learned rates.

    Attributes:
        latents: N, the size of the lattice.
        context_dim: numbers per latent.
        hidden: width of the networks.
        heads: of the attention.
        neighbours: k nearest latents per point; 0 for all.
        window: σ of the windows, in lattice spacings.
        query_scale: standard deviation of the query's Fourier frequencies.
        value_scale: the same for the values.
        steps: of the inner descent.
        fit_poses: whether the descent moves poses, too.
    """

    latents: int = 64
    context_dim: int = 32
    hidden: int = 64
    heads: int = 2
    neighbours: int = 4
    window: float = 0.5
    query_scale: float = 2.0
    value_scale: float = 10.0
    steps: int = 3
    fit_poses: bool = False


@dataclass(frozen=True)
class DynamicsConfig:
    """The latent dynamics and their integration.

    Attributes:
        hidden: channels of the hidden features.
        blocks: product blocks.
        neighbours: messages come from the k nearest latents; 0 for all.
        moving: whether poses move.
        step: the longest Runge–Kutta step, in the dataset's time unit; a run sets it to the interval of its
            frames unless it is told otherwise.
    """

    hidden: int = 128
    blocks: int = 1
    neighbours: int = 0
    moving: bool = False
    step: float = 0.25


@dataclass(frozen=True)
class KernelDynamicsConfig:
    """Dynamics that remember trajectories, on the rotating sphere.

    Attributes:
        trajectories: how many; a run remembers no more than it is given.
        frames: of each that are remembered; 0 for all. With `between`, a run adds one.
        modes: zonal harmonics that are kept.
        latitudes, longitudes: of the grid on which states are read; a run sets them to those of its data, if
            these have a grid of even longitudes, or else to what the latents can show.
        cells: nodes of a solver's grid, along each axis, that are a cell of the data, where these are means
            over cells: trajectories are then refined by their equation. 1 takes them as they are; a run sets
            0 to what the data say.
        between: whether it is learned what lies between frames, where trajectories are refined; elsewhere a
            run sets that it is not.
    """

    trajectories: int = 40
    frames: int = 0
    modes: int = 1024
    latitudes: int = 0
    longitudes: int = 0
    cells: int = 0
    between: bool = False


@dataclass(frozen=True)
class ForecasterConfig:
    """Everything that is needed to rebuild a Forecaster before its weights are read.

    Attributes:
        geometry: a name in GEOMETRIES.
        variables: the forecast fields and their units.
        statics: known static fields and their units.
        time_unit: of lead times.
        field: how states are represented.
        dynamics: how they move.
    """

    geometry: str
    variables: Mapping[str, str]
    statics: Mapping[str, str]
    time_unit: str = "1"
    field: LinearFieldConfig | AttentionFieldConfig = dataclasses.field(default_factory=LinearFieldConfig)
    dynamics: DynamicsConfig | KernelDynamicsConfig = dataclasses.field(default_factory=DynamicsConfig)

    @property
    def moving(self) -> bool:
        """Whether poses move."""
        return isinstance(self.dynamics, DynamicsConfig) and self.dynamics.moving


_FIELDS = {"linear": LinearFieldConfig, "attention": AttentionFieldConfig}
_DYNAMICS = {"network": DynamicsConfig, "kernel": KernelDynamicsConfig}


def to_dict(config: ForecasterConfig) -> dict[str, Any]:
    """`config` as plain data, for JSON."""
    plain = asdict(config)
    for part, kinds in (("field", _FIELDS), ("dynamics", _DYNAMICS)):
        kind = next(name for name, made in kinds.items() if isinstance(getattr(config, part), made))
        plain[part] = {"kind": kind, **plain[part]}
    return plain


def from_dict(plain: Mapping[str, Any]) -> ForecasterConfig:
    """The inverse of `to_dict`.

    Raises:
        KeyError, TypeError: if `plain` was not made by it.
    """
    field, dynamics = dict(plain["field"]), dict(plain["dynamics"])
    made_field = _FIELDS[field.pop("kind")](**field)
    # Models saved before there was another kind have networks, and say nothing.
    made_dynamics = _DYNAMICS[dynamics.pop("kind", "network")](**dynamics)
    return ForecasterConfig(**{**plain, "field": made_field, "dynamics": made_dynamics})


_MAY_BE_ZERO = frozenset(
    {
        "neighbours",
        "degree",
        "blocks",
        "frames",
        "latitudes",
        "longitudes",
        "seed",
        "steps",
        "field_steps",
        "dynamics_steps",
        "joint_steps",
        "ema",
    }
)
"""Settings whose zero means something: all, none."""


def override(config: Any, settings: Mapping[str, str]) -> Any:
    """A dataclass with some fields replaced by parsed `--set key=value` strings.

    Keys of nested configurations are written with dots, as in `dynamics.hidden=96`.

    Raises:
        UsageError: for an unknown key (the nearest one is named) or a value that means nothing.
    """
    known = _leaves(config)
    for key, text in settings.items():
        if key not in known:
            raise UsageError(
                f"expected a setting among {', '.join(known)}; came {key!r}.",
                f"Type `--set {nearest(key, known) or next(iter(known))}={text}`.",
            )
        config = _replaced(config, key.split("."), _parse(key, text, known[key]))
    return config


def _leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every number and every yes or no, with its dotted name; what is a text has an option of its own."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if is_dataclass(value):
            found |= _leaves(value, f"{name}.")
        elif not isinstance(value, str):
            found[name] = value
    return found


def _replaced(config: Any, path: Sequence[str], value: Any) -> Any:
    head, *rest = path
    return replace(config, **{head: _replaced(getattr(config, head), rest, value) if rest else value})


def _parse(key: str, text: str, current: Any) -> Any:
    """`text` as a value of the kind of `current`: true or false, or a number in its range."""
    kind = type(current)
    zero = key.rpartition(".")[2] in _MAY_BE_ZERO
    if kind is bool:
        expected = "true or false"
        value = {"true": True, "false": False, "1": True, "0": False}.get(text.lower())
        sound = value is not None
    else:
        expected = f"a {'whole ' if kind is int else ''}number {'≥' if zero else '>'} 0"
        value = _number(text, kind)
        sound = math.isfinite(value) and (value > 0 or (zero and value == 0))
    if not sound:
        raise UsageError(
            f"expected {expected} as {key}; came {text!r}.", f"Type `--set {key}={current}`, for example."
        )
    return value


def _number(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        return math.nan
