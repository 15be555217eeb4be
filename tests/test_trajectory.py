"""A field is a function of position: whatever the layout of a file, the same points and values."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr

from pdeforecast import trajectory
from pdeforecast.errors import DataError, UsageError
from pdeforecast.geometry import GEOMETRIES, PeriodicPlane

PLANE = PeriodicPlane()
UNITS = {"vorticity": "1", "forcing": "1"}


def field(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * x) + 0.5 * np.cos(4 * np.pi * y + 1) + 0.2 * np.sin(2 * np.pi * (x - y))


def dataset(samples: int = 2, times: int = 3, ny: int = 8, nx: int = 12) -> xr.Dataset:
    axes = trajectory.default_axes(PLANE, {"y": ny, "x": nx})
    grid = field(axes["x"][None, :], axes["y"][:, None])
    scale = np.arange(1, samples * times + 1).reshape(samples, times, 1, 1)
    values = (scale * grid)[..., None].astype(np.float32)
    ds = trajectory.to_dataset(values, PLANE, {"vorticity": "1"}, axes, range(times), "time")
    return ds.assign(forcing=(("y", "x"), grid.astype(np.float32), {"units": "1"}))


def swath(ds: xr.Dataset) -> xr.Dataset:
    """The places as an instrument scans them: x and y both over dimensions of other names."""
    bare = ds.rename_dims(x="i", y="j").drop_indexes(["x", "y"])
    return bare.assign_coords(x=bare.x.broadcast_like(bare.y), y=bare.y.broadcast_like(bare.x))


def as_function(found: trajectory.Samples) -> list[list[float]]:
    """Points, wrapped, with the values found there: sorted, so that no order remains."""
    rows = torch.cat([found.points.remainder(1.0), found.values[0].double()], dim=-1)
    return sorted([round(number, 5) % 1 for number in row[:2]] + row[2:] for row in rows.tolist())


LAYOUTS: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "transposed": lambda ds: ds.transpose("x", "time", "y", "sample"),
    "descending y": lambda ds: ds.isel(y=slice(None, None, -1)),
    "shuffled x": lambda ds: ds.isel(x=[3, 1, 2, 0, *range(4, 12)]),
    "wrapped": lambda ds: ds.assign_coords(x=ds.x.where(ds.x < 0.5, ds.x - 1)),
    "one sample": lambda ds: ds.isel(sample=0),
    "one time": lambda ds: ds.isel(time=0),
    "lead time": lambda ds: ds.rename(time="lead_time"),
    "loose points": lambda ds: ds.stack(point=("x", "y")).reset_index("point"),
    "loose, another dimension": lambda ds: ds.stack(station=("y", "x")).reset_index("station"),
    "a swath": lambda ds: swath(ds),
    "a swath with numbered scans": lambda ds: swath(ds).assign_coords(i=range(12)),
    "float64": lambda ds: ds.astype(float),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_free(layout: str) -> None:
    ds = dataset()
    expected = trajectory.samples(ds, PLANE, UNITS)
    found = trajectory.samples(LAYOUTS[layout](ds), PLANE, UNITS)
    np.testing.assert_allclose(as_function(found), as_function(expected), atol=1e-6)


def test_points_follow_the_coordinates_of_the_geometry() -> None:
    found = trajectory.samples(dataset(), PLANE, UNITS)
    x, y = found.points.numpy().T
    np.testing.assert_allclose(found.values[0, :, 0], field(x, y), atol=1e-6)
    np.testing.assert_allclose(found.values[1, :, 0], 4 * field(x, y), atol=1e-5)
    assert found.points.dtype == torch.float64 and found.variance is None


def test_trajectory_has_times_and_repeats_statics() -> None:
    times, points, values = trajectory.trajectory_values(dataset(), PLANE, UNITS)
    assert times == [0.0, 1.0, 2.0]
    assert values.shape == (2, 3, len(points), 2)
    assert bool((values[..., 1] == values[:1, :1, :, 1]).all())


def test_time_index_chooses_a_frame() -> None:
    ds = dataset()
    found = trajectory.samples(ds, PLANE, UNITS, time_index=2)
    expected = trajectory.samples(ds.isel(time=2), PLANE, UNITS)
    torch.testing.assert_close(found.values, expected.values)


def test_nan_is_kept_and_variance_is_read() -> None:
    ds = dataset()
    ds["vorticity"] = ds.vorticity.where(ds.x < 0.5)
    ds["vorticity_variance"] = xr.full_like(ds.vorticity.isel(sample=0, time=0), 0.01).fillna(0.01)
    found = trajectory.samples(ds, PLANE, UNITS)
    assert found.variance is not None
    observed = ~found.values[..., 0].isnan()
    assert int(observed.sum()) == 2 * 8 * 6
    torch.testing.assert_close(found.variance[..., 0], 0.01 * observed.float())
    assert not bool(found.variance[..., 1].any())


def test_decoded_hours_are_hours() -> None:
    ds = dataset()
    ds = ds.assign_coords(time=np.array([0, 1000, 2000], "timedelta64[m]").astype("timedelta64[ns]"))
    np.testing.assert_allclose(trajectory.times_of(ds), [0, 100 / 6, 200 / 6])


def test_file_round_trip_keeps_everything(tmp_path) -> None:
    ds = dataset().assign_attrs(equation="navier-stokes")
    path = tmp_path / "state.nc"
    trajectory.save_dataset(ds.astype(float), path)
    with trajectory.open_dataset(path) as found:
        assert found.vorticity.dtype == np.float32
        assert found.attrs == ds.attrs and found.vorticity.attrs == ds.vorticity.attrs
        xr.testing.assert_equal(found.load(), ds)
    assert [file.name for file in tmp_path.iterdir()] == ["state.nc"]


def test_a_file_is_not_overwritten_unless_asked(tmp_path) -> None:
    path = tmp_path / "state.nc"
    trajectory.save_dataset(dataset(), path)
    with pytest.raises(UsageError, match="exists already"):
        trajectory.save_dataset(dataset(), path)
    trajectory.save_dataset(dataset(samples=1), path, overwrite=True)
    assert trajectory.open_dataset(path).sizes["sample"] == 1
    with pytest.raises(UsageError, match="mkdir"):
        trajectory.save_dataset(dataset(), tmp_path / "absent" / "state.nc")


def test_a_failed_write_leaves_nothing(tmp_path) -> None:
    with pytest.raises(TypeError):
        trajectory.save_dataset(dataset().assign_attrs(bad=object()), tmp_path / "state.nc")
    assert list(tmp_path.iterdir()) == []


def damaged(path, kind: str) -> None:
    trajectory.save_dataset(dataset(), path)
    content = path.read_bytes()
    path.unlink()
    parts = {"cut short": content[:5000], "something else": b"hello", "NetCDF 3": b"CDF\x01" + content[4:]}
    if kind in parts:
        path.write_bytes(parts[kind])


@pytest.mark.parametrize("kind", ["cut short", "something else", "NetCDF 3", "no file"])
def test_an_unreadable_file_says_why(tmp_path, kind: str) -> None:
    damaged(tmp_path / "state.nc", kind)
    with pytest.raises(DataError, match=kind) as caught:
        trajectory.open_dataset(tmp_path / "state.nc")
    assert_speaks(caught.value)


def test_a_misspelt_file_is_guessed(tmp_path) -> None:
    trajectory.save_dataset(dataset(), tmp_path / "states.nc")
    with pytest.raises(DataError, match=r"states\.nc"):
        trajectory.open_dataset(tmp_path / "state.nc")


def repeat_end(ds: xr.Dataset, dim: str) -> xr.Dataset:
    end = ds.isel({dim: [0]}).assign_coords({dim: [1.0]})
    return xr.concat([ds, end], dim, data_vars="minimal")


WRONG: dict[str, tuple[Callable[[xr.Dataset], xr.Dataset], str, str]] = {
    "repeated end": (lambda ds: repeat_end(ds, "x"), "without its end point", r"isel\(x=slice\(None, -1\)\)"),
    "repeated end of y": (lambda ds: repeat_end(ds, "y"), "without its end point", r"isel\(y="),
    "repeated node": (lambda ds: ds.isel(x=[0, 1, 1, 2, 3]), "every place once", "drop_duplicates"),
    "pixels": (lambda ds: ds.assign_coords(x=np.arange(12)), "from 0 to 11", r"ds\.x / 12"),
    "degrees": (lambda ds: ds.assign_coords(y=ds.y * 360), "beyond the space", r"ds\.y / 360"),
    "radians": (lambda ds: ds.assign_coords(y=ds.y * 2 * np.pi), "beyond the space", r"ds\.y / 6\.28"),
    "declared degrees": (
        lambda ds: ds.assign_coords(x=ds.x.assign_attrs(units="degrees")),
        "degrees",
        "units",
    ),
    "unit": (lambda ds: ds.assign(vorticity=ds.vorticity.assign_attrs(units="1/s")), "1/s", "Convert"),
    "misspelt variable": (lambda ds: ds.rename(vorticity="vorticty"), "expected vorticity", "vorticty="),
    "misspelt coordinate": (lambda ds: ds.rename(x="X"), "expected x", "X='x'"),
    "no coordinate": (lambda ds: ds.drop_vars("x"), "dimension without values", "assign_coords"),
    "static missing": (lambda ds: ds.drop_vars("forcing"), "expected forcing", "Add it"),
    "all NaN": (lambda ds: ds.assign(vorticity=ds.vorticity * np.nan), "NaN everywhere", "observed"),
    "one sample NaN": (
        lambda ds: ds.assign(vorticity=ds.vorticity.where(ds.sample_index != 1)),
        "in sample 1",
        r"drop_isel\(sample=\[1\]\)",
    ),
    "infinity": (lambda ds: ds.assign(vorticity=ds.vorticity / 0), "infinities", "np.isfinite"),
    "empty": (lambda ds: ds.isel(x=slice(0)), "x is empty", "at least one"),
    "complex": (lambda ds: ds.assign(vorticity=ds.vorticity * 1j), "complex", "real"),
    "string": (lambda ds: ds.assign(vorticity=ds.vorticity.astype(str)), "real numbers", "astype"),
    "static in time": (
        lambda ds: ds.assign(forcing=ds.forcing.expand_dims(time=ds.time)),
        "static",
        r"isel\(time=0",
    ),
    "another dimension": (lambda ds: ds.expand_dims(member=2), "member", "isel"),
    "not everywhere": (
        lambda ds: ds.assign(vorticity=ds.vorticity.isel(x=0, drop=True)),
        "no x",
        "broadcast",
    ),
    "NaN position": (
        lambda ds: ds.assign_coords(x=ds.x.where(ds.x < 0.9)),
        "finite positions",
        "dropna",
    ),
    "NaN position of a swath": (
        lambda ds: swath(ds).assign_coords(x=lambda d: d.x.where(d.x < 0.9)),
        "finite positions",
        r"stack\(point=\('j', 'i'\)\)",
    ),
    "another geometry": (lambda ds: ds.assign_attrs(geometry="sphere"), "sphere", "periodic_plane"),
    "other dimensions": (
        lambda ds: ds.rename_dims(x="i", y="j").reset_coords(drop=True),
        "came",
        "swap_dims",
    ),
    "curved coordinates": (
        lambda ds: (
            ds.rename_dims(x="i", y="j")
            .drop_indexes(["x", "y"])
            .assign_coords(y=lambda d: d.y.broadcast_like(d.x))
        ),
        "came y(i, j), x(i)",
        r"stack\(point=\('i', 'j'\)\)",
    ),
    "one line": (lambda ds: ds.isel(x=3), "came y(y), x()", "expand_dims"),
    "a moving swath": (
        lambda ds: swath(ds).assign_coords({k: swath(ds)[k].expand_dims(time=3) for k in ("x", "y")}),
        "came y(time",
        r"isel\(time=0\)",
    ),
    "moving sensors": (
        lambda ds: (
            ds.stack(point=("y", "x"))
            .reset_index("point")
            .assign_coords(x=lambda d: d.x.expand_dims(sample=2), y=lambda d: d.y.expand_dims(sample=2))
        ),
        "came y(sample, point)",
        r"isel\(sample=0\)",
    ),
    "time without values": (lambda ds: ds.drop_vars("time"), "times along time", "assign_coords"),
}


def assert_speaks(error: DataError) -> None:
    cause, cure = str(error).split("\n")
    assert cause and cure and error.exit_code == 3


@pytest.mark.parametrize("fault", WRONG)
def test_a_fault_is_told_with_its_cure(fault: str) -> None:
    spoil, cause, cure = WRONG[fault]
    ds = dataset().assign_coords(sample_index=("sample", [0, 1]))
    with np.errstate(all="ignore"):
        ds = spoil(ds)
    with pytest.raises(DataError) as caught:
        trajectory.check(ds, PLANE, UNITS, statics=["forcing"])
    assert_speaks(caught.value)
    why, what_to_type = str(caught.value).split("\n")
    assert cause in why
    assert re.search(cure, what_to_type)


@pytest.mark.parametrize(
    "fault",
    [
        "repeated end",
        "pixels",
        "degrees",
        "misspelt variable",
        "other dimensions",
        "curved coordinates",
        "NaN position of a swath",
        "one line",
    ],
)
def test_the_cure_cures(fault: str) -> None:
    spoiled = WRONG[fault][0](dataset())
    with pytest.raises(DataError) as caught:
        trajectory.check(spoiled, PLANE, UNITS)
    command = str(caught.value).split("`")[1]
    scope = {"ds": spoiled}
    exec(command, scope)
    trajectory.check(scope["ds"], PLANE, UNITS)


@pytest.mark.parametrize("change", [lambda ds: ds, swath], ids=["grid", "swath"])
def test_places_beyond_walls_are_cut_by_the_cure(change: Callable[[xr.Dataset], xr.Dataset]) -> None:
    plane = GEOMETRIES["plane"]
    ds = dataset().assign_coords(x=np.arange(12) - 4.0, y=np.arange(8) / 4).drop_attrs(deep=False)
    with pytest.raises(DataError, match="x from -3 to 3") as caught:
        trajectory.check(change(ds), plane, UNITS)
    scope = {"ds": change(ds)}
    exec(str(caught.value).split("`")[1], scope)
    trajectory.check(scope["ds"], plane, UNITS)
    assert float(scope["ds"].x.min()) == -3 and float(scope["ds"].x.max()) == 3


def test_sensors_in_pixels_are_refused_too() -> None:
    ds = dataset().stack(point=("y", "x")).reset_index("point")
    with pytest.raises(DataError, match="beyond the space"):
        trajectory.check(ds.assign_coords(x=ds.x * 64), PLANE, UNITS)


def test_negative_variance_is_refused() -> None:
    ds = dataset()
    with pytest.raises(DataError, match="vorticity_variance"):
        trajectory.samples(ds.assign(vorticity_variance=-abs(ds.vorticity)), PLANE, UNITS)


def test_standard_deviations_are_refused_with_their_cure() -> None:
    ds = dataset()
    scope = {"ds": ds.assign(vorticity_error=0.1 + 0 * ds.vorticity)}
    with pytest.raises(DataError, match="has vorticity_error") as caught:
        trajectory.samples(scope["ds"], PLANE, UNITS)
    exec(str(caught.value).split("`")[1], scope)
    seen = trajectory.samples(scope["ds"], PLANE, UNITS)
    assert seen.variance is not None and float(seen.variance[..., 0].min()) == pytest.approx(0.01)


@pytest.mark.parametrize("spelling", ["1", "", "dimensionless", " 1 "])
def test_a_unit_may_be_spelt_in_several_ways(spelling: str) -> None:
    ds = dataset()
    trajectory.check(ds.assign(vorticity=ds.vorticity.assign_attrs(units=spelling)), PLANE, UNITS)


FACTORS = {
    ("kilometres", "m"): 1e3,
    ("Kilometers", "metres"): 1e3,
    ("feet", "m"): 0.3048,
    ("m", "km"): 1e-3,
    ("hours", "min"): 60,
    ("min", "hours since 2000-01-01"): 1 / 60,
    ("days", "s"): 86400,
    ("hr-1", "s-1"): 1 / 3600,
    ("/h", "1/s"): 1 / 3600,
    ("hour**-1", "per second"): 1 / 3600,
    ("per day", "h^-1"): 1 / 24,
    ("Hz", "s-1"): 1,
    ("%", "1"): 0.01,
    ("rad", "degrees_north"): 180 / np.pi,
    ("m s-1", "m  S-1"): 1,
    ("min", "m"): None,
    ("degrees_north", "degrees_east"): None,
    ("1", "s"): None,
    ("degC", "K"): None,
}


@pytest.mark.parametrize("units", FACTORS, ids=" to ".join)
def test_units_that_differ_by_a_factor(units: tuple[str, str]) -> None:
    expected = FACTORS[units]
    assert trajectory.factor(*units) == (None if expected is None else pytest.approx(expected))


def test_geometry_is_named_or_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    ds = dataset()
    assert trajectory.geometry_of(ds) is GEOMETRIES["periodic_plane"]
    with pytest.raises(DataError, match="periodic_plane"):
        trajectory.geometry_of(ds.assign_attrs(geometry="periodic-plane"))
    ds.attrs.clear()
    with pytest.raises(DataError, match=r"plane \(x, y\), .*, cylinder \(x, y\)"):
        trajectory.geometry_of(ds)
    monkeypatch.setattr(trajectory.layout, "GEOMETRIES", {"periodic_plane": PLANE})
    assert trajectory.geometry_of(ds) is PLANE
    with pytest.raises(DataError, match="coordinates of one geometry"):
        trajectory.geometry_of(ds.rename(x="u"))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_default_grid_covers_its_space_once(name: str) -> None:
    geometry = GEOMETRIES[name]
    axes = trajectory.default_axes(geometry, dict.fromkeys(geometry.coordinates, 12))
    assert tuple(axes) == trajectory.grid_dims(geometry)
    shape = (1, 1, *(len(axis) for axis in axes.values()), 1)
    ds = trajectory.to_dataset(np.ones(shape), geometry, {"u": "1"}, axes, [0.0])
    trajectory.check(ds, geometry, {"u": "1"})
    weights = geometry.weights(trajectory.axes_of(ds, geometry))
    assert float(weights.sum()) == pytest.approx(geometry.volume, rel=1e-10)


def test_the_first_axis_varies_slowest() -> None:
    axes = trajectory.default_axes(PLANE, {"x": 6, "y": 4})
    assert list(axes) == ["y", "x"]
    points = trajectory.grid_points(PLANE, axes)
    assert points.shape == (24, 2)
    np.testing.assert_allclose(points[:6, 0], np.arange(6) / 6)
    assert bool((points[:6, 1] == 0).all())
    with pytest.raises(UsageError, match="y, x"):
        trajectory.default_axes(PLANE, {"x": 6})


def test_loose_points_become_a_dataset_again() -> None:
    points = PLANE.random_points(5, torch.Generator().manual_seed(0))
    axes = {"x": points[:, 0], "y": points[:, 1]}
    ds = trajectory.to_dataset(torch.ones(1, 2, 5, 1), PLANE, {"vorticity": "1"}, axes, [0.0, 0.5])
    assert ds.vorticity.dims == ("sample", "lead_time", "point")
    times, found, values = trajectory.trajectory_values(ds, PLANE, {"vorticity": "1"})
    torch.testing.assert_close(found, points)
    assert times == [0.0, 0.5] and values.shape == (1, 2, 5, 1)


def test_state_hash_is_of_what_a_file_holds() -> None:
    state = np.random.default_rng(0).normal(size=(4, 4))
    single = state.astype(np.float32)
    assert trajectory.state_hash(state) == trajectory.state_hash(torch.tensor(single))
    assert trajectory.state_hash(single) == trajectory.state_hash(np.asfortranarray(single))
    assert trajectory.state_hash(single) != trajectory.state_hash(single.T)
