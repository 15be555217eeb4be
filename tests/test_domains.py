"""One story on every space: trajectories, training, a forecast on another grid and at loose points."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pdeforecast import Forecaster
from pdeforecast.bench.equivariance import equivariance
from pdeforecast.config import AttentionFieldConfig, DynamicsConfig, LinearFieldConfig
from pdeforecast.geometry import Geometry
from pdeforecast.metrics import relative_l2
from pdeforecast.presets import Preset
from pdeforecast.training import TrainingConfig
from pdeforecast.trajectory import default_axes, grid_points, to_dataset

SHORT = TrainingConfig(
    field_steps=2,
    dynamics_steps=6,
    joint_steps=2,
    batch=2,
    horizon=2,
    points=64,
    copies=1,
    learning_rate=1e-3,
)
Train = Callable[..., Forecaster]
TIMES = [0.0, 0.5, 1.0]


def trajectories(space: Geometry) -> xr.Dataset:
    """Smooth fields that decay, on a small grid of the space."""
    axes = default_axes(space, {name: 10 + i for i, name in enumerate(reversed(space.coordinates))})
    x = grid_points(space, axes)
    seen = space.relative(x[:, None], space.lattice(4))
    waves = torch.cat([seen.flatten(1), seen.flatten(1) ** 2], dim=-1)
    draw = torch.Generator().manual_seed(0)
    mix = torch.randn(12, waves.shape[1], generator=draw, dtype=torch.float64)
    start = torch.tanh(mix @ waves.T / waves.std())
    values = torch.stack([start * np.exp(-t) for t in TIMES], dim=1)
    grid = values.unflatten(-1, [len(axis) for axis in axes.values()])[..., None]
    return to_dataset(grid.float(), space, {"u": "1"}, axes, TIMES, "time")


def linear(space: Geometry) -> Preset:
    field = LinearFieldConfig(latents=16, degree=1)
    return Preset(field, DynamicsConfig(hidden=8, step=0.5), SHORT, 0)


def attention(space: Geometry) -> Preset:
    field = AttentionFieldConfig(
        latents=16, context_dim=4, hidden=8, heads=2, neighbours=4, steps=2, fit_poses=True
    )
    return Preset(field, DynamicsConfig(hidden=8, moving=True, step=0.5), SHORT, 0)


@pytest.mark.parametrize("preset", (linear, attention))
def test_the_same_story_everywhere(
    space: Geometry, preset: Callable[[Geometry], Preset], tmp_path: Path, train: Train
) -> None:
    ds = trajectories(space)
    model = train(tmp_path / "run", ds, preset(space), space.name)
    state = ds.isel(time=0)
    sizes = {name: 7 for name in space.coordinates}
    finer = model.forecast(state, [0.0, 0.25, 2.0], grid=sizes)
    assert dict(finer.sizes) == {"sample": 12, "lead_time": 3, **sizes}
    assert bool(np.isfinite(finer.u).all())
    loose = state.stack(point=space.coordinates[::-1]).reset_index("point")
    here, there = model.forecast(state, [1.0]).u, model.forecast(state, [1.0], like=loose).u
    np.testing.assert_allclose(here.values.reshape(there.shape), there, atol=1e-5)
    assert model.forecast(loose.isel(point=slice(None, None, 3)), [1.0]).u.shape[:2] == (12, 1)


def test_a_forecast_moves_with_the_world(space: Geometry, tmp_path: Path, train: Train) -> None:
    ds = trajectories(space)
    model = train(tmp_path / "run", ds, linear(space), space.name)
    motions = space.random_motion(2, torch.Generator().manual_seed(1))
    found = equivariance(model, ds.isel(time=0), [0.0, 1.0], motions)
    assert max(max(errors) for errors in found.latents.values()) < 1e-4


def test_reconstruction_is_weighed_by_the_measure(space: Geometry, tmp_path: Path, train: Train) -> None:
    ds = trajectories(space)
    model = train(tmp_path / "run", ds, linear(space), space.name)
    state = ds.isel(time=[0])
    forecast = model.forecast(state, [0.0])
    assert float(relative_l2(forecast, state)["u"].mean()) < 0.5
