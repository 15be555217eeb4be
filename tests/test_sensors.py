"""From stations to stations: tables in and out, units that come back, forecasts larger than memory."""

import csv
import resource
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pdeforecast import Forecaster, cli
from pdeforecast.errors import DataError, DivergedError, UsageError
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.trajectory import (
    check_output,
    converted,
    factors,
    open_dataset,
    read_stations,
    save_dataset,
    to_dataset,
    write,
)
from pdeforecast.trajectory import files as files_module
from pdeforecast.trust import TrustWarning

PLANE, ROTATING = GEOMETRIES["periodic_plane"], GEOMETRIES["rotating_sphere"]


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def stations(ds: xr.Dataset, path: Path, count: int = 200, statics: bool = True) -> xr.Dataset:
    """Some nodes of a state as a table, and as a Dataset of loose sensors."""
    chosen = np.random.default_rng(0).permutation(ds.sizes["y"] * ds.sizes["x"])[:count]
    names = ["vorticity", "forcing"] if statics else ["vorticity"]
    loose = ds[names].stack(point=("y", "x")).reset_index("point").isel(point=chosen)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["station", "y", "x", *names])
        for i in range(count):
            values = [repr(float(loose[name][i])) for name in ("y", "x", *names)]
            rows.writerow([f"station {i}", *values])
    return loose


def test_a_table_is_the_same_as_its_dataset(model: Forecaster, flow: xr.Dataset, tmp_path: Path) -> None:
    state = flow.isel(time=0, sample=0, drop=True)
    loose = stations(state, tmp_path / "s.csv")
    read = read_stations(tmp_path / "s.csv", PLANE, ["vorticity"], ["forcing"])
    a, b = (model.forecast(ds, [0, 1], {"y": 8, "x": 8}) for ds in (read, loose))
    np.testing.assert_allclose(a.vorticity, b.vorticity, atol=1e-5)


def test_answers_at_the_stations_carry_their_names(
    model: Forecaster, flow: xr.Dataset, tmp_path: Path
) -> None:
    """Each place once, however often it was observed; on a grid there are no names."""
    rows = [
        "station,x,y,vorticity,forcing,time",
        *(f"{name},{x},0.5,1.0,0.1,{t}" for t in (0, 1) for name, x in (("b", 0.2), ("a", 0.7))),
    ]
    read = read_stations(table(tmp_path / "s.csv", "\n".join(rows)), PLANE, ["vorticity"], ["forcing"])
    assert read.station.dims == ("point",) and read.station.values.tolist() == ["b", "a"]
    read = read.assign(forcing=read.forcing.isel(time=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        here, there = model.forecast(read, [0]), model.forecast(read, [0], {"y": 4, "x": 4})
        named = read.assign_coords(station=("point", [b"b", b"a"])).swap_dims(point="station")
        other = read.assign_coords(station=("point", np.array([7, None], dtype=object)))
        spaced, missing = model.forecast(named, [0]), model.forecast(other, [0])
    assert here.station.values.tolist() == ["b", "a"] and "station" not in there.coords
    assert spaced.station.dims == ("point",) and spaced.station.values.tolist() == ["b", "a"]
    assert missing.station.values.tolist() == ["7", ""]


def test_statics_from_another_file(model: Forecaster, flow: xr.Dataset, tmp_path: Path) -> None:
    state = flow.isel(time=0, sample=0, drop=True)
    loose = stations(state, tmp_path / "s.csv", statics=False)
    read = read_stations(tmp_path / "s.csv", PLANE, ["vorticity"], ["forcing"])
    turned = state.isel(y=slice(None, None, -1)).roll(x=3, roll_coords=True)
    own = loose.assign(forcing=(("y", "x"), state.forcing.values))
    a = model.forecast(read, [0, 1], {"y": 8, "x": 8}, statics=turned)
    np.testing.assert_allclose(
        a.vorticity, model.forecast(own, [0, 1], {"y": 8, "x": 8}).vorticity, atol=1e-3
    )


def test_columns_and_rows(tmp_path: Path) -> None:
    text = """name,longitude [rad],latitude,time [h],sample,height [km],height_error,vorticity
a,0.1,10,6,3,0.5,0.01,1e-5
b,0.2,-10,6,3,,0.01,2e-5
a,0.1,10,0,3,0.25,0.02,nan

a,0.1,10,0,3,0.75,0,3e-5
"""
    ds = read_stations(table(tmp_path / "s.csv", text), ROTATING, ["height", "vorticity"])
    assert ds.sizes == {"sample": 1, "time": 2, "point": 3} and ds.time.values.tolist() == [0, 6]
    assert ds.sample.values.tolist() == [3] and ds.time.attrs["units"] == "h"
    assert ds.latitude.values.tolist() == [10, -10, 10]
    np.testing.assert_array_equal(ds.height[0], [[0.25, np.nan, 0.75], [0.5, np.nan, np.nan]])
    np.testing.assert_allclose(ds.height_variance[0], [[4e-4, np.nan, 0], [1e-4, 1e-4, np.nan]])
    units = {**ROTATING.units, "height": "m", "vorticity": "s-1"}
    by = factors(ds, units)
    assert by == {"height": 1e3, "longitude": 180 / np.pi}
    metres = converted(ds, by, units)
    np.testing.assert_allclose(metres.height_variance, 1e6 * ds.height_variance)
    assert metres.height.attrs["units"] == "m" and float(metres.height[0, 1, 0]) == 500
    places = read_stations(tmp_path / "s.csv", ROTATING, [])
    assert places.sizes == {"point": 4} and not places.data_vars


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_separators_comments_and_marks_of_order(tmp_path: Path, mark: str) -> None:
    text = "x,y,vorticity\n0,0.25,1\n0.5,0.75,2\n"
    plain = read_stations(table(tmp_path / "plain.csv", text), PLANE, ["vorticity"])
    told = "\ufeff# buoys, 2026\n" + text.replace(",", mark).replace("\n0.5", "\n# a gap; of a day\n0.5")
    xr.testing.assert_identical(
        plain, read_stations(table(tmp_path / "told.csv", told), PLANE, ["vorticity"])
    )
    wrong = told.replace("0.75", "high")
    with pytest.raises(DataError, match=r"line 5 of .* has 'high'"):
        read_stations(table(tmp_path / "wrong.csv", wrong), PLANE, ["vorticity"])


FAULTS = {
    "": "header",
    "x,y,vorticity\n": "header",
    "x,vorticity\n0,1\n": "expected a column y",
    "x,y,vortictiy\n0,0,1\n": "Rename the column vortictiy to vorticity",
    "x,y,x,vorticity\n0,0,0,1\n": "x twice",
    "x,y,vorticity,vorticity [1]\n0,0,0,1\n": "vorticity twice",
    "x,y,vorticity\n0,0,high\n": "line 2 of .* has 'high'",
    "x,y,vorticity\n0,,1\n": "finite number as y",
    "x,y,vorticity\n0,inf,1\n": "finite number as y",
    "x,y,vorticity\n0,0\n": "3 cells",
    "x;y;vorticity\n0,5;0;1\n": "line 2 of .* has '0,5'",
    "x,y,time,vorticity\n0,0,,1\n": "finite number as time",
    "x,y,vorticity,vorticity_error,vorticity_variance\n0,0,1,1,1\n": "has both",
    "x,y,vorticity\n0,0,inf\n": "finite number as vorticity; line 2 .*\n.*leave the cell empty",
    "x,y,vorticity,vorticity_error\n0,0,1,\n": "vorticity_error ≥ 0 .* line 2 .* has none",
    "x,y,vorticity,vorticity_variance\n0,0,1,0\n0,0,1,-1\n": "vorticity_variance ≥ 0 .* line 3 .* has -1",
    "x,y,vorticity,vortictiy_error\n0,0,1,1\n": "vorticity_error",
    "x,y,vorticity,vorticity_error\n0,0,1,-0.1\n": "vorticity_error ≥ 0",
    "x,y,vorticity,vorticity_error [km]\n0,0,1,1\n": "in the unit of vorticity",
}


@pytest.mark.parametrize("text", FAULTS)
def test_tables_that_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=FAULTS[text]) as caught:
        read_stations(table(tmp_path / "s.csv", text), PLANE, ["vorticity"])
    assert len(str(caught.value).splitlines()) == 2


def test_places_beyond_the_space(tmp_path: Path) -> None:
    """Rows are named; where there is a period, any turn of it will do."""
    text = "x,y,vorticity\n0,0,1\n0.5,2,1\n7,0,1\n"
    with pytest.raises(DataError, match=r"line 4 .* has 7\.\n.* rows with x outside \[-3, 3\]"):
        read_stations(table(tmp_path / "s.csv", text), GEOMETRIES["plane"], ["vorticity"])
    for head, cell in (("latitude", "120"), ("latitude [rad]", "2.1")):
        text = f"{head},longitude\n0,0\n{cell},0\n"
        with pytest.raises(DataError, match=r"line 3 .* has 120.*\n.* latitude outside \[-90, 90\]"):
            read_stations(table(tmp_path / "s.csv", text), ROTATING, [])
    assert read_stations(table(tmp_path / "s.csv", "latitude,longitude\n0,-500\n"), ROTATING, []).sizes


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_bytes(b"\x89HDF\r\n\x1a\n\xff\xfe\x00")
    with pytest.raises(DataError, match="something else"):
        read_stations(tmp_path / "s.csv", PLANE, ["vorticity"])
    with pytest.raises(DataError, match="no file"):
        read_stations(tmp_path / "t.csv", PLANE, ["vorticity"])


@pytest.mark.parametrize("suffix", ["csv", "nc", "zarr"])
def test_the_command_from_stations_to_stations(
    shared: Path, flow: xr.Dataset, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if suffix == "zarr":
        pytest.importorskip("zarr")
    stations(flow.isel(time=0, sample=0, drop=True), tmp_path / "s.csv")
    table(tmp_path / "at.csv", "x,y,station,who\n0.1,0.2,me,0\n0.1,0.2,me again,1\n0.9,0.5,you,2\n")
    out = tmp_path / f"out.{suffix}"
    given = f"--sensors {tmp_path / 's.csv'} --at {tmp_path / 'at.csv'}"
    line = f"forecast {shared / 'tiny'} {given} --lead-time 0,1"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cli.main([*line.split(), "-o", str(out)]) == 0
    if suffix == "csv":
        rows = list(csv.DictReader(out.open()))
        assert list(rows[0]) == ["sample", "lead_time", "station", "y", "x", "vorticity"]
        assert [row["x"] for row in rows] == 2 * ["0.1", "0.1", "0.9"] and rows[3]["lead_time"] == "1.0"
        called = [row["station"] for row in rows[3:]]
        values = np.array([float(row["vorticity"]) for row in rows]).reshape(2, 3)
    else:
        with open_dataset(out) as ds:
            assert ds.vorticity.dims == ("sample", "lead_time", "point")
            values, called = ds.vorticity.values[0], ds.station.values.tolist()
    assert called == ["me", "me again", "you"]
    np.testing.assert_array_equal(values[:, 0], values[:, 1])
    assert np.isfinite(values).all() and sorted(p.name for p in tmp_path.iterdir())[1] == out.name
    assert cli.main([*line.split(), "-o", str(tmp_path / "b.nc"), "--grid", "4x4"]) == 2
    assert cli.main(["forecast", str(shared / "tiny"), "-o", str(tmp_path / "b.nc"), "--lead-time", "1"]) == 2
    assert "--sensors" in capsys.readouterr().err


def test_what_is_lazy_is_the_same(model: Forecaster, flow: xr.Dataset, tmp_path: Path, monkeypatch) -> None:
    whole = model.forecast(flow, [0, 0.5, 1], {"y": 10, "x": 12})
    lazy = model.forecast(flow, [0, 0.5, 1], {"y": 10, "x": 12}, lazy=True)
    part = lazy.isel(sample=[2, 0], lead_time=1, y=slice(2, 7, 2), x=[3, 1]).vorticity
    np.testing.assert_allclose(
        part, whole.vorticity[[2, 0], 1, 2:7:2][..., [3, 1]], atol=1e-5 * float(abs(whole.vorticity).max())
    )
    monkeypatch.setattr(files_module, "BLOCK", 100)
    monkeypatch.setattr(files_module.blocks, "__defaults__", (200,))
    told: list[tuple[int, int]] = []
    write(lazy, tmp_path / "out.nc", progress=lambda done, total: told.append((done, total)))
    assert len(told) > 10 and told[-1][0] == told[-1][1] == whole.vorticity.nbytes
    with open_dataset(tmp_path / "out.nc") as ds:
        assert ds.vorticity.attrs == whole.vorticity.attrs and ds.attrs == whole.attrs
        xr.testing.assert_allclose(ds.load(), whole, atol=1e-4)


@pytest.mark.filterwarnings("error:.*[Cc]onsolidated")
def test_zarr(model: Forecaster, flow: xr.Dataset, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("zarr")
    forecast = model.forecast(flow, [0, 1], {"y": 6, "x": 5}, lazy=True)
    monkeypatch.setattr(files_module.blocks, "__defaults__", (64,))
    for overwrite in (False, True):
        write(forecast, tmp_path / "out.zarr", overwrite)
        with xr.open_dataset(tmp_path / "out.zarr", engine="zarr", decode_timedelta=False) as ds:
            xr.testing.assert_allclose(ds.load(), forecast.load(), atol=1e-4)
            assert ds.attrs == forecast.attrs
    with pytest.raises(UsageError, match="exists already"):
        write(forecast, tmp_path / "out.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_zarr_without_zarr(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(files_module, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pdeforecast\[zarr\]"):
        check_output(tmp_path / "out.zarr")
    (tmp_path / "in.zarr").mkdir()
    with pytest.raises(DataError, match="another folder"):
        open_dataset(tmp_path / "in.zarr")
    (tmp_path / "in.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(UsageError, match=r"pdeforecast\[zarr\]"):
        open_dataset(tmp_path / "in.zarr")


@pytest.mark.filterwarnings("error:.*[Cc]onsolidated")
def test_zarr_is_read_like_a_file(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("zarr")
    flow, first, second = shared / "flow.nc", tmp_path / "a.zarr", tmp_path / "b.nc"
    forecast = f"forecast {shared / 'tiny'} {flow}"
    assert cli.main(f"{forecast} --lead-time 0,1 -o {first}".split()) == 0
    for line in (
        f"{forecast} --lead-time 0,1 --like {first} -o {second}",
        f"evaluate {first} {second}",
        f"plot {first} --truth {second} -o {tmp_path / 'p.png'}",
        f"inspect {first}",
        f"convert {first} -o {tmp_path / 'c.nc'}",
    ):
        assert cli.main(line.split()) == 0, capsys.readouterr().err
    with open_dataset(first) as a, open_dataset(second) as b:
        xr.testing.assert_allclose(a.load(), b.load(), atol=1e-5)
    capsys.readouterr()
    assert cli.main(f"{forecast} --lead-time 0,1 -o {first}".split()) == 2
    assert "`--overwrite`" in capsys.readouterr().err
    (first / "zarr.json").write_text("{")
    assert cli.main(["inspect", str(first)]) == 3
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "nc"])
def test_a_forecast_that_diverges_leaves_nothing(
    model: Forecaster, flow: xr.Dataset, tmp_path: Path, suffix: str, monkeypatch
) -> None:
    monkeypatch.setattr(model, "decode", lambda points, states: torch.full((3, 1, len(points), 1), torch.inf))
    sensors = flow.stack(point=("y", "x")).reset_index("point").isel(time=0)
    forecast = model.forecast(sensors, [3], lazy=True)
    with pytest.raises(DivergedError):
        write(forecast, tmp_path / f"out.{suffix}")
    assert not list(tmp_path.iterdir())


def test_units_come_back(train: Callable[..., Forecaster], tiny, tmp_path: Path) -> None:
    """A state in kilometres and radians is the state in metres and degrees, and its forecast the same."""
    sphere = GEOMETRIES["sphere"]
    axes = {"latitude": np.linspace(-80, 80, 9), "longitude": np.arange(0, 360, 20.0)}
    wave = np.cos(np.radians(axes["latitude"]))[:, None] * np.sin(np.radians(axes["longitude"]))
    size = np.array([1, -1, 2])[:, None] * np.array([1.0, 0.9, 0.8, 0.7])
    values = 3 + wave * size[..., None, None]
    ds = to_dataset(values[..., None].astype("f4"), sphere, {"height": "m"}, axes, [0, 1, 2, 3], "time")
    model = train(tmp_path / "run", ds, tiny, "sphere")
    given = ds.isel(time=0).assign(height=ds.height.isel(time=0) / 1e3)
    given["height"].attrs["units"] = "km"
    for name in axes:
        given = given.assign_coords({name: (name, np.radians(axes[name]), {"units": "radians"})})
    a, b = model.forecast(ds.isel(time=0), [0, 1]), model.forecast(given, [0, 1])
    np.testing.assert_allclose(1e3 * b.height[:, 0], a.height[:, 0], atol=1e-4)
    np.testing.assert_allclose(1e3 * b.height[:, 1], a.height[:, 1], atol=1e-2)
    assert b.height.attrs["units"] == "km" and b.latitude.attrs["units"] == "radians"
    np.testing.assert_array_equal(b.longitude, given.longitude)
    assert model.forecast(given, [0], like=ds).longitude.values[1] == 20


@pytest.mark.slow
def test_ten_million_points_in_bounded_memory(model: Forecaster, flow: xr.Dataset, tmp_path: Path) -> None:
    leads = [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    forecast = model.forecast(flow.isel(sample=[0]), leads, {"y": 3200, "x": 3200}, lazy=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        write(forecast, tmp_path / "out.nc")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    whole = forecast["vorticity"].variable.nbytes
    assert peak < whole / 4 and grown < whole, f"{peak:.2g} and {grown:.2g} B of {whole:.2g}"
    with open_dataset(tmp_path / "out.nc") as ds:
        assert bool(np.isfinite(ds.vorticity[0, 1, ::100, ::100]).all())


def test_saving_what_is_in_memory_is_unchanged(flow: xr.Dataset, tmp_path: Path) -> None:
    save_dataset(flow, tmp_path / "a.nc")
    write(flow, tmp_path / "b.nc")
    with open_dataset(tmp_path / "a.nc") as a, open_dataset(tmp_path / "b.nc") as b:
        xr.testing.assert_identical(a.load(), b.load())
