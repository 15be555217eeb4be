"""Small analytic fields on every space, as forecasts and their truths."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from pdeforecast.config import AttentionFieldConfig, DynamicsConfig, ForecasterConfig
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import Geometry
from pdeforecast.trajectory import default_axes, grid_points, to_dataset

Pair = tuple[xr.Dataset, xr.Dataset]
TIMES = [0.0, 0.5, 1.0]


def wave(space: Geometry, x: Tensor, time: float) -> Tensor:
    """A smooth field that moves."""
    seen = space.relative(x[:, None], space.lattice(4)).flatten(1)
    mix = torch.randn(seen.shape[1], 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = seen @ mix
    return torch.tanh(parts[:, 0] * np.cos(time) + parts[:, 1] * np.sin(time))


def on(space: Geometry, size: int = 8) -> Pair:
    """A forecast of `u` in K and `v` in m s-1, three frames of two samples, and a truth from time 5."""
    axes = default_axes(space, {name: size + 2 * i for i, name in enumerate(reversed(space.coordinates))})
    x = grid_points(space, axes)
    truth = torch.stack([wave(space, x, time) for time in TIMES])
    forecast = truth + torch.stack([0.1 * (1 + time) * wave(space, x, time + 1) for time in TIMES])

    def dataset(values: Tensor, clock: str, start: float) -> xr.Dataset:
        grid = values.unflatten(-1, [len(axis) for axis in axes.values()])
        both = torch.stack([torch.stack([sign * grid, (sign * grid).exp()], dim=-1) for sign in (1, -1)])
        times = [start + time for time in TIMES]
        return to_dataset(both, space, {"u": "K", "v": "m s-1"}, axes, times, clock, "hours")

    return dataset(forecast, "lead_time", 0.0), dataset(truth, "time", 5.0)


def loosened(ds: xr.Dataset, count: int = 20) -> xr.Dataset:
    """The same at a few loose places."""
    dims = [dim for dim in ds.u.dims if dim not in ("sample", "time", "lead_time")]
    chosen = np.random.default_rng(0).permutation(int(np.prod([ds.sizes[dim] for dim in dims])))[:count]
    return ds.stack(point=dims).reset_index("point").isel(point=chosen)


def untrained(space: Geometry, moving: bool) -> Forecaster:
    """A model with random weights."""
    torch.manual_seed(0)
    field = AttentionFieldConfig(latents=16, context_dim=4, hidden=8, heads=2, neighbours=4, steps=1)
    dynamics = DynamicsConfig(hidden=8, moving=moving, step=0.5)
    model = Forecaster(ForecasterConfig(space.name, {"u": "K"}, {}, "hours", field, dynamics))
    with torch.no_grad():
        for weight in model.dynamics.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return model


@pytest.fixture(scope="session")
def pair() -> Callable[..., Pair]:
    return on


@pytest.fixture(scope="session")
def loose() -> Callable[..., xr.Dataset]:
    return loosened


@pytest.fixture(scope="session")
def random_model() -> Callable[[Geometry, bool], Forecaster]:
    return untrained
