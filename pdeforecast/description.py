"""What a model is, in lines: what it needs, what it gives, where it comes from, how well it does."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pdeforecast import checkpoint
from pdeforecast.config import KernelDynamicsConfig
from pdeforecast.errors import nearest
from pdeforecast.familiarity import Familiarity
from pdeforecast.forecaster import Forecaster

_GROUPS = {
    "periodic_plane": "translations",
    "plane": "translations and rotations, SE(2); of the square, quarter turns",
    "plane_translations": "translations",
    "plane_distances": "translations, rotations and reflections, E(2)",
    "sphere": "all rotations, SO(3)",
    "sphere_angles": "all rotations and reflections, O(3)",
    "rotating_sphere": "rotations about the axis, SO(2)",
    "ball": "all rotations about the centre, SO(3)",
    "cylinder": "rotations about the axis and shifts along it",
}


def is_model(path: Path) -> bool:
    """Whether `path` names a model (shipped, a run's folder, a file of weights), not data.

    A word that names nothing, but nearly a shipped model, is meant for one.
    """
    shipped = checkpoint.shipped()
    if str(path) in shipped or path.suffix == ".safetensors":
        return True
    if not path.exists() and not path.suffix and nearest(str(path), shipped):
        return True
    return any((path / name).exists() for name in ("run.json", "model.safetensors"))


def describe(model: str | os.PathLike[str]) -> list[str]:
    """A model's lines.

    Raises:
        CheckpointError: as `checkpoint.load` does.
    """
    path = checkpoint.find(model)
    made = checkpoint.load(model)
    config, card = made.config, made.card
    group = _GROUPS.get(config.geometry, "the identity alone")
    trained = card.get("horizon", "unknown")
    unit = "" if config.time_unit == "1" else f" {config.time_unit}"
    lines = [
        _line("model", f"{made.identity}: {path}, {path.stat().st_size / 1e6:.3g} MB"),
        *(_line("forecasts", f"{name}, unit {u}") for name, u in config.variables.items()),
        *(
            _line("needs", f"{name}, unit {u}: static, beside the state")
            for name, u in config.statics.items()
        ),
        _line("geometry", f"{config.geometry}; its group: {group}"),
        _line("state", f"{config.field.latents} latents × {made.field.context_dim} numbers"),
        _line("dynamics", _dynamics(made)),
        _line("horizon", f"trained to lead time {trained}{unit}; {_measured(card, unit)}"),
    ]
    return [*lines, *_provenance(card), *_errors(card), *_equivariance(card), _trust(card)]


def _line(head: str, text: str) -> str:
    return f"{head:<12} {text}"


def _dynamics(model: Forecaster) -> str:
    if model.linear is not None and model.linear.sufficient:
        return "linear, in closed form; no network"
    own = model.config.dynamics
    if isinstance(own, KernelDynamicsConfig):
        inside = " and what lies between them" if own.between else ""
        return (
            f"kernel regression on {own.trajectories} remembered trajectories of {own.frames} frames{inside}"
        )
    count = sum(p.numel() for p in model.dynamics.parameters())
    return f"a network of {count:,} weights, steps of at most {own.step:g}"


def _measured(card: Mapping[str, Any], unit: str) -> str:
    if "measured_horizon" in card:
        return f"measured to {card['measured_horizon']:g}{unit}"
    return "not measured on unseen states"


def _provenance(card: Mapping[str, Any]) -> Iterator[str]:
    data = card.get("data", {})
    said = [f"{key} {data[key]}" for key in ("equation", "samples", "seed", "split") if key in data]
    if said:
        yield _line("data", ", ".join(said))
    for name, value in json.loads(data.get("parameters", "{}")).items():
        yield _line("", f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}")
    if "init_from" in card:
        yield _line("began from", str(card["init_from"]))
    if "command" in card:
        yield _line("training", str(card["command"]))
    if "seconds" in card:
        yield _line("", f"{card['seconds'] / 60:.1f} minutes on {card.get('device', 'an unknown device')}")
    if "versions" in card:
        yield _line("versions", str(card["versions"]))


def _errors(card: Mapping[str, Any]) -> Iterator[str]:
    if not card.get("errors"):
        yield _line("errors", "not measured; type `pdeforecast bench forecast MODEL`")
    for share, row in card.get("errors", {}).items():
        late = row.get("t_out_mse")
        l2 = ", ".join(f"{name} {pair[0]:.2g}" for name, pair in row["relative_l2"].items())
        text = f"{float(share):.0%} observed: MSE {row['lead_0_mse']:.1e} at lead 0, {row['t_in_mse']:.1e} in"
        yield _line("errors", f"{text}{'' if late is None else f', {late:.1e} out'}; relative L2 in: {l2}")


def _equivariance(card: Mapping[str, Any]) -> Iterator[str]:
    found = card.get("equivariance")
    if found is None:
        yield _line("equivariance", "not measured; type `pdeforecast bench equivariance MODEL`")
        return
    for name, curve in found["pipeline"].items():
        for lead, whole, latents in zip(found["lead_times"], curve, found["latents"][name], strict=True):
            errors = f"relative L2 {whole:.1e} of the pipeline, {latents:.1e} from the latents"
            yield _line("equivariance", f"{name}, lead {lead:g}: {errors}")


def _trust(card: Mapping[str, Any]) -> str:
    known = Familiarity.of(card)
    if known is None:
        return _line("trust", "not calibrated: a state unlike the training data is not noticed")
    text = f"warns of states unlike the training data, and of 1 in {1 / known.false_alarms:.0f} familiar ones"
    return _line("trust", f"{text} (learned from {known.states} {known.source})")
