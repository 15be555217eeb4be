"""Every field of a configuration changes something, and a slip of the pen is told."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr

from pdeforecast import run
from pdeforecast.between_frames import nodes
from pdeforecast.config import (
    AttentionFieldConfig,
    DynamicsConfig,
    ForecasterConfig,
    KernelDynamicsConfig,
    LinearFieldConfig,
    from_dict,
    override,
    to_dict,
)
from pdeforecast.errors import UsageError
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.kernel_dynamics import KernelDynamics
from pdeforecast.presets import PRESETS, Preset
from pdeforecast.run import Settings
from pdeforecast.training import Progress, TrainingConfig, train

SETTINGS = Settings(LinearFieldConfig(), DynamicsConfig(), TrainingConfig())
GLOBE = {"geometry": "rotating_sphere", "variables": {"height": "m"}, "statics": {}}
TORUS = {"geometry": "periodic_plane", "variables": {"u": "m"}, "statics": {"f": "1"}}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_build_and_survive_json(preset: str) -> None:
    chosen = PRESETS[preset]
    world = GLOBE if isinstance(chosen.dynamics, KernelDynamicsConfig) else TORUS
    config = ForecasterConfig(**world, field=chosen.field, dynamics=chosen.dynamics)
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert Forecaster(config).config == config


def test_settings_are_read_as_their_fields_are() -> None:
    text = {"field.window": "0.75", "dynamics.moving": "true", "training.seed": "7", "field.neighbours": "0"}
    found = override(SETTINGS, text)
    assert found == Settings(
        LinearFieldConfig(window=0.75, neighbours=0), DynamicsConfig(moving=True), TrainingConfig(seed=7)
    )
    assert override(SETTINGS, {}) == SETTINGS


@pytest.mark.parametrize(
    ("key", "cure"),
    [
        ("dynamics.hiden", "--set dynamics.hidden=3"),
        ("latents", "--set field.latents=3"),
        ("training.sed", "--set training.seed=3"),
        ("training.seed.x", "--set training.seed=3"),
        ("training", "--set training."),
        ("training.", "--set training."),
        ("", "--set field.latents=3"),
        ("zzz", "--set "),
        ("training.init_from", "--set training."),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, cure: str) -> None:
    with pytest.raises(UsageError) as caught:
        override(SETTINGS, {key: "3"})
    assert cure in caught.value.cure and repr(key) in caught.value.cause


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("field.latents", "many"),
        ("field.latents", "2.5"),
        ("field.latents", "0"),
        ("field.latents", "-4"),
        ("field.window", "nan"),
        ("training.learning_rate", "inf"),
        ("training.learning_rate", "0"),
        ("training.copies", "0"),
        ("training.seed", "-1"),
        ("dynamics.moving", "perhaps"),
    ],
)
def test_a_value_that_means_nothing_is_refused(key: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"as {key}; came '{text}'"):
        override(SETTINGS, {key: text})


def changed(value: Any, name: str) -> Any:
    """Another sound value."""
    if isinstance(value, bool):
        return not value
    if name == "latents":
        return 9
    if name in ("ema", "horizon"):
        return value / 10 if name == "ema" else 1
    return value + 2 if isinstance(value, int) else value * 1.5


PARTS = {"field": None, "dynamics": DynamicsConfig, "training": TrainingConfig}
KINDS = {"linear": LinearFieldConfig, "attention": AttentionFieldConfig}
CHANGES = [
    (kind, part, field.name)
    for kind, field_config in KINDS.items()
    for part, config in PARTS.items()
    for field in fields(config or field_config)
    # The linear field has nothing for Adam to learn, and its first phase sees all points; its modes are
    # kept where the group does not make all latents of one. What a run starts from, `test_training.py` tests.
    if not (kind == "linear" and field.name in ("points", "field_rate", "rank")) and field.name != "init_from"
]


def after_training(preset: Preset, flow: xr.Dataset) -> dict[str, torch.Tensor]:
    config = ForecasterConfig(
        "periodic_plane", {"vorticity": "1"}, {"forcing": "1"}, "1", preset.field, preset.dynamics
    )
    torch.manual_seed(preset.training.seed)
    model = Forecaster(config)
    losses = [
        report.loss for report in train(Progress(model, preset.training), run.trajectories(flow, model))
    ]
    forecast = torch.from_numpy(model.forecast(flow, [0, 1.3], {"y": 5, "x": 5}).vorticity.values)
    return {**model.state_dict(), "losses": torch.tensor(losses), "forecast": forecast}


@pytest.mark.parametrize("name", [field.name for field in fields(KernelDynamicsConfig)])
def test_every_field_of_remembering_dynamics_changes_something(name: str) -> None:
    known = KernelDynamicsConfig(trajectories=3, frames=6, modes=20, latitudes=8, longitudes=16)
    others = {"cells": 2, "between": True}
    other = replace(known, **{name: others.get(name, getattr(known, name) - 1)})
    states = [
        waves(config).state_dict() | {"path": waves_ahead(config), "width": torch.tensor(waves(config).width)}
        for config in (known, other)
    ]
    assert any(
        states[0][key].shape != states[1][key].shape or not torch.equal(states[0][key], states[1][key])
        for key in states[0]
    )


def waves(config: KernelDynamicsConfig) -> KernelDynamics:
    """Dynamics that remember noise."""
    model = Forecaster(
        ForecasterConfig(**GLOBE, field=LinearFieldConfig(latents=20, degree=1, rank=4), dynamics=config)
    )
    assert isinstance(model.dynamics, KernelDynamics)
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 6, 1, 8, 16, generator=draw, dtype=torch.float64)
    kept = noise[: config.trajectories, : config.frames, :, : config.latitudes, : config.longitudes]
    between = torch.randn(len(kept), kept.shape[1] - 1, len(nodes()), *kept.shape[2:], generator=draw)
    model.dynamics.learn(kept, 1.0, between.double())
    return model.dynamics


def waves_ahead(config: KernelDynamicsConfig) -> torch.Tensor:
    made = waves(config)
    state = 0.9 * made.remembered()[:1, 0]
    return made.path(state, [3.5])


BEFORE: dict[str, dict[str, torch.Tensor]] = {}


@pytest.mark.parametrize(("kind", "part", "name"), CHANGES)
def test_every_field_changes_something(
    kind: str, part: str, name: str, flow: xr.Dataset, tiny: Preset, tiny_paper: Preset
) -> None:
    flow = flow.coarsen(x=2, y=2).mean()
    preset = tiny if kind == "linear" else tiny_paper
    preset = replace(preset, training=replace(preset.training, horizon=3, batch=32))
    config = getattr(preset, part)
    other = replace(preset, **{part: replace(config, **{name: changed(getattr(config, name), name)})})
    if kind not in BEFORE:
        BEFORE[kind] = after_training(preset, flow)
    before = BEFORE[kind]
    after = after_training(other, flow)
    # A field without effect would leave every bit as it is.
    same = before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert not same


def test_a_model_that_cannot_be_built_is_told(
    flow: xr.Dataset, tiny: Preset, tiny_paper: Preset, tmp_path: Path
) -> None:
    for key, text, preset in (("field.latents", "17", tiny), ("field.hidden", "7", tiny_paper)):
        with pytest.raises(UsageError, match=r"Ask for \d+"):
            run.begin(tmp_path / "run", flow, GEOMETRIES["periodic_plane"], preset, {key: text})
    assert not (tmp_path / "run").exists()


def test_defaults_stand() -> None:
    assert isinstance(PRESETS["paper"].field, AttentionFieldConfig) and PRESETS["paper"].dynamics.moving
    assert PRESETS["default"].training == TrainingConfig() and DynamicsConfig().step == 0.25
