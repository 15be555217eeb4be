"""Views: what is projected can be inverted, what is behind is not seen, every pixel shows its own place."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.collections import QuadMesh
from matplotlib.image import AxesImage

from pdeforecast import plot
from pdeforecast.geometry import GEOMETRIES, Geometry
from pdeforecast.plot.nodes import nodes_of, period
from pdeforecast.plot.panels import PIXELS, stage_of
from pdeforecast.plot.scene import scene_of
from pdeforecast.plot.views import Chart, Cut, Globe, View, spherical
from pdeforecast.trajectory import geometry_of

RANDOM = np.random.default_rng(0)
EAST = (float(np.cos(1)), float(np.sin(1)), 0.0)
CUT = Cut(EAST, (0.0, 0.0, 1.0), ("a", "z"), "meridian")
DISCS = [Globe(30.0, 40.0), Globe(-100.0, -20.0, 0.8), CUT]
PERIODS = {
    "periodic_plane": (1.0, 1.0),
    "plane": (0.0, 0.0),
    "sphere": (360.0, 0.0),
    "rotating_sphere": (360.0, 0.0),
    "ball": (360.0, 0.0, 0.0),
    "cylinder": (1.0, 0.0),
}


def embed(places: np.ndarray) -> np.ndarray:
    """Coordinates (…, 2 or 3) of a sphere or ball to vectors."""
    space = GEOMETRIES["sphere" if places.shape[-1] == 2 else "ball"]
    return space.embed(torch.from_numpy(places)).numpy()


@pytest.mark.parametrize("view", DISCS, ids=lambda view: type(view).__name__)
def test_what_is_inverted_is_projected_back(view: View) -> None:
    xy = RANDOM.uniform(-1, 1, (200, 2))
    inside = (xy**2).sum(-1) < 1
    places = view.invert(xy)
    assert (np.isfinite(places).all(-1) == inside).all()
    np.testing.assert_allclose(view.project(embed(places[inside]), 1e-9), xy[inside], atol=1e-12)


@pytest.mark.parametrize("view", DISCS[:2])
def test_half_of_the_sphere_is_seen_and_its_middle_lies_in_the_middle(view: Globe) -> None:
    points = RANDOM.normal(size=(400, 3))
    points *= (view.radius or 1.0) / np.linalg.norm(points, axis=-1, keepdims=True)
    seen, opposite = (np.isfinite(view.project(sign * points, 1e-9)).all(-1) for sign in (1, -1))
    assert (seen != opposite).all()
    middle = embed(np.array([view.longitude, view.latitude, view.radius or 1.0]))
    np.testing.assert_allclose(view.project(middle, 1e-9), 0, atol=1e-12)
    north = view.project(np.array([0, 0, view.radius or 1.0]) * np.sign(view.latitude), 1e-9)
    assert north[0] == pytest.approx(0, abs=1e-12) and north[1] * view.latitude > 0


def test_a_point_is_shown_on_a_shell_or_a_cut_only_if_it_is_near() -> None:
    inner = embed(np.array([30.0, 40.0, 0.5]))
    globe = Globe(30.0, 40.0, 0.8)
    assert np.isnan(globe.project(inner, 0.2)).all() and np.isfinite(globe.project(inner, 0.4)).all()
    assert np.isnan(Globe(30.0, 40.0, 0.2).project(inner, 0.2)).all()
    off = np.cross(EAST, (0.0, 0.0, 1.0)) * 0.3
    assert np.isnan(CUT.project(off, 0.2)).all() and np.isfinite(CUT.project(off, 0.4)).all()


def test_longitude_latitude_and_radius_of_vectors() -> None:
    places = np.stack([RANDOM.uniform(*ends, 50) for ends in ((0, 360), (-90, 90), (0.1, 1))], axis=-1)
    np.testing.assert_allclose(spherical(embed(places)), places, atol=1e-10)


def test_periods_are_found_without_asking_for_names(space: Geometry) -> None:
    assert tuple(period(space, name) for name in space.coordinates) == PERIODS[space.name]


def test_a_chart_wraps_what_lies_beyond_a_seam() -> None:
    chart = Chart((-0.05, 0.95, 0.0, 1.0), ("x", "y"), (1.0, 0.0), False)
    np.testing.assert_allclose(
        chart.project(np.array([[0.98, 0.5], [0.2, 1.5]]), 0), [[-0.02, 0.5], [0.2, 1.5]]
    )


def test_every_place_is_its_own_nearest_node_and_what_is_beyond_is_none(
    space: Geometry, pair: Callable[..., tuple[xr.Dataset, xr.Dataset]]
) -> None:
    places = scene_of(*pair(space)).places
    nodes = nodes_of(places, space)
    np.testing.assert_array_equal(nodes.nearest(places), np.arange(len(places)))
    turned = places + np.array(nodes.periods)
    np.testing.assert_array_equal(nodes.nearest(turned), np.arange(len(places)))
    assert (nodes.nearest(np.full((2, len(nodes.axes)), np.nan)) == -1).all()
    free = nodes.periods.index(0.0) if 0.0 in nodes.periods else None
    if free is not None:
        beyond = places.copy()
        beyond[:, free] += 3 * np.ptp(places[:, free])
        assert (nodes.nearest(beyond) == -1).all()


@pytest.mark.parametrize("name", ["sphere", "rotating_sphere", "ball"])
def test_a_pixel_of_a_disc_shows_a_place_that_is_near(
    name: str, pair: Callable[..., tuple[xr.Dataset, xr.Dataset]]
) -> None:
    scene = scene_of(*pair(GEOMETRIES[name], 16))
    stage = stage_of(scene, 0)
    discs = [view for view in stage.views if view.disc]
    assert len(discs) == (1 if name != "ball" else 3)
    for view in discs:
        shown = stage.pixels(view, 60, 60)
        x = (np.arange(60) + 0.5) / 30 - 1
        inside = np.hypot(x, x[:, None]) < 1
        assert (shown[inside] >= 0).all() and (shown[~inside] == -1).all()
        seen = embed(view.invert(np.stack(np.meshgrid(x, x), axis=-1))[inside])
        assert np.linalg.norm(stage.points[shown[inside]] - seen, axis=-1).max() < 0.25


def test_spheres_are_drawn_as_globe_and_map_balls_as_shell_and_cuts(
    space: Geometry, pair: Callable[..., tuple[xr.Dataset, xr.Dataset]]
) -> None:
    figure = plot.forecast(*pair(space), lead_times=[0.5])
    meshes = sum(
        isinstance(a, QuadMesh) and axes.get_label() == "" for axes in figure.axes for a in axes.collections
    )
    images = [image for axes in figure.axes for image in axes.images if isinstance(image, AxesImage)]
    discs = {"ball": 3, "sphere": 1, "rotating_sphere": 1}.get(space.name, 0)
    assert len(images) == 3 * discs and meshes == 3 * (space.name != "ball")
    assert all(image.get_array().shape == (PIXELS, PIXELS) for image in images)
    if images:
        assert len({image.get_clim() for image in images[: 2 * discs]}) == 1


def test_globes_turn_to_where_something_happens(pair: Callable[..., tuple[xr.Dataset, xr.Dataset]]) -> None:
    truth = pair(GEOMETRIES["sphere"], 16)[1]
    bump = xr.where((truth.longitude == 200) & (abs(truth.latitude - 20) < 6), 1.0, 0.0)
    still = truth.assign(u=(0 * truth.u + bump).transpose(*truth.u.dims)).assign_attrs(truth.attrs)
    assert geometry_of(still).name == "sphere" and float(still.u.max()) == 1
    globe = stage_of(scene_of(still), 0).views[0]
    assert isinstance(globe, Globe) and globe.longitude == 200 and 10 < globe.latitude < 30


def test_a_ball_shows_the_shell_where_the_truth_varies_most(
    pair: Callable[..., tuple[xr.Dataset, xr.Dataset]],
) -> None:
    forecast, truth = pair(GEOMETRIES["ball"], 8)
    radius, angle = truth.radius, np.deg2rad(truth.longitude)
    layered = 10 * radius + xr.where(radius == radius[4], 1.0, 0.1) * np.cos(angle)
    truth = truth.assign(u=(0 * truth.u + layered).transpose(*truth.u.dims)).assign_attrs(truth.attrs)
    for scene in (scene_of(truth), scene_of(forecast, truth)):
        globe = stage_of(scene, 0).views[0]
        assert isinstance(globe, Globe) and globe.radius == float(radius[4]) != float(radius.max())
        assert globe.title.startswith(f"shell at radius {globe.radius:.3g}")
    still = truth.assign(u=0 * truth.u).assign_attrs(truth.attrs)
    globe = stage_of(scene_of(still), 0).views[0]
    assert isinstance(globe, Globe) and globe.radius == float(radius.max())
