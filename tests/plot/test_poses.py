"""Latent poses over the field: where they stand, where they look, where they came from."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

from pdeforecast import Forecaster, plot
from pdeforecast.config import ForecasterConfig
from pdeforecast.errors import DataError
from pdeforecast.geometry import GEOMETRIES, Geometry
from pdeforecast.plot.poses import Poses, draw_poses, poses_of
from pdeforecast.plot.views import Chart

Pairs = Callable[..., tuple[xr.Dataset, xr.Dataset]]
VIEWS = {"sphere": 2, "rotating_sphere": 2, "ball": 3}
Models = Callable[[Geometry, bool], Forecaster]


def test_poses_that_stay_are_the_lattice(space: Geometry, pair: Pairs, random_model: Models) -> None:
    model = random_model(space, False)
    poses = poses_of(model, pair(space)[0], None, [0.0, 1.0], 0)
    lattice = space.place(space.lattice(16)).numpy()
    assert not poses.moving and poses.places.shape[0] == 2
    np.testing.assert_allclose(poses.places[1], lattice, atol=1e-6)
    assert (poses.tips is not None) == (space.velocity_dim > space.dim)
    if poses.tips is not None:
        away = np.linalg.norm(poses.tips[0] - poses.places[0], axis=-1)
        assert (away > 0.3 * poses.spacing).all() and (away < 0.5 * poses.spacing).all()


def test_poses_that_move_are_those_of_the_rollout(space: Geometry, pair: Pairs, random_model: Models) -> None:
    forecast, truth = pair(space)
    model = random_model(space, True)
    poses = poses_of(model, forecast, truth, [0.0, 0.5, 1.0], 1)
    assert poses.moving and {0.0, 0.5, 1.0} <= set(poses.leads)
    np.testing.assert_allclose(poses.places[0], space.place(space.lattice(16)).numpy(), atol=1e-5)
    start = torch.from_numpy(poses.places[0])
    moved = space.distance(torch.from_numpy(poses.places[-1]), space.lift(start))
    assert float(moved.max()) > 1e-4
    alone = poses_of(model, forecast.assign(u=truth.u.values * forecast.u / forecast.u), None, [1.0], 1)
    np.testing.assert_allclose(alone.places[-1], poses.places[-1], atol=1e-4)


@pytest.mark.parametrize("moving", [False, True])
def test_every_space_is_drawn_with_its_poses(
    space: Geometry, pair: Pairs, random_model: Models, moving: bool
) -> None:
    forecast = pair(space)[0]
    bare = plot.forecast(forecast, lead_times=[0.0, 1.0]).axes
    drawn = plot.forecast(forecast, lead_times=[0.0, 1.0], model=random_model(space, moving)).axes
    marked = 2 if space.velocity_dim > space.dim else 1
    shown = {
        i: len(a.collections) - len(b.collections) for i, (a, b) in enumerate(zip(drawn, bare, strict=True))
    }
    maps = [i for i, more in shown.items() if more]
    assert len(maps) == 2 * VIEWS.get(space.name, 1) and {shown[i] for i in maps} == {marked}
    arrows = [a for axes in drawn for a in axes.collections if isinstance(a, Quiver)]
    assert len(arrows) == len(maps) * (marked - 1)
    assert {len(drawn[i].lines) - len(bare[i].lines) for i in maps} == ({16} if moving else {0})


def test_many_poses_hide_no_more_of_the_field_than_a_few() -> None:
    chart = Chart((0.0, 1.0, 0.0, 1.0), ("x", "y"), (1.0, 1.0), False)

    def drawn(across: int) -> tuple[float, float]:
        at = (np.arange(across) + 0.5) / across
        places = np.stack(np.meshgrid(at, at), axis=-1).reshape(1, -1, 2)
        poses = Poses(np.zeros(1), places, places + 0.4 / across, False, 1 / across)
        arrows, dots = draw_poses(Figure().subplots(), chart, poses, 0.0)
        return dots.get_sizes()[0] * across**2, arrows.width * across

    few, some, many = drawn(4), drawn(8), drawn(24)
    assert some == pytest.approx((448, 0.064)) and many == pytest.approx(some)
    assert few == pytest.approx((7 * 16, 0.008 * 4))


def test_a_model_of_another_space_is_refused(pair: Pairs, random_model: Models) -> None:
    forecast, truth = pair(GEOMETRIES["plane"])
    with pytest.raises(DataError, match=r"a model of the plane; .* cylinder\.\nGive `--model`"):
        plot.forecast(forecast, truth, model=random_model(GEOMETRIES["cylinder"], False))


def test_poses_that_move_need_the_state_they_set_out_from(pair: Pairs, random_model: Models) -> None:
    torus = GEOMETRIES["periodic_plane"]
    forecast, truth = pair(torus)
    model = random_model(torus, True)
    with pytest.raises(DataError, match="state at lead_time 0, from which poses set out"):
        poses_of(model, forecast.isel(lead_time=[1, 2]), None, [1.0], 0)
    pushed = Forecaster(ForecasterConfig(**{**vars(model.config), "statics": {"hill": "1"}}))
    with pytest.raises(DataError, match=r"expected hill, .*\n.*--truth TRUTH\.nc"):
        poses_of(pushed, forecast, truth, [1.0], 0)
    hill = truth.u.isel(time=0, sample=0, drop=True).assign_attrs(units="1")
    assert poses_of(pushed, forecast, truth.assign(hill=hill), [1.0], 0).moving
