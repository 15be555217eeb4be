"""Files as others write them, made here small and true to their layouts, and what becomes of them."""

import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import xarray as xr

from pdeforecast import cli
from pdeforecast.convert import detect, open_source
from pdeforecast.trajectory import check, geometry_of, open_dataset, trajectory_values

RANDOM = np.random.default_rng(0)
S, T, X, Y = 3, 4, 8, 6


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def centres(low: float, high: float, count: int) -> np.ndarray:
    return low + (high - low) * (np.arange(count) + 0.5) / count


# --- files ---------------------------------------------------------------------------------------


def the_well(path: Path, kinds: dict[str, str] | None = None, grid_type: str = "cartesian") -> None:
    kinds = kinds or {"x": "PERIODIC", "y": "PERIODIC"}
    axes = {name: np.arange(n) / n * 2 for name, n in zip(kinds, (X, Y), strict=True)}
    if grid_type == "spherical":
        axes = {"theta": centres(0, math.pi, X), "phi": np.arange(Y) / Y * 2 * math.pi}
    with h5py.File(path, "w") as file:
        file.attrs.update(dataset_name="some_flow", grid_type=grid_type, n_spatial_dims=2, n_trajectories=S)
        file.attrs["simulation_parameters"] = ["Re"]
        file.attrs["Re"] = 50.0
        dims = file.create_group("dimensions")
        dims.attrs["spatial_dims"] = list(axes)
        dims["time"] = np.arange(T) * 0.5
        dims["time"].attrs["sample_varying"] = False
        for name, nodes in axes.items():
            dims[name] = nodes.astype(np.float32)
        for name, kind in kinds.items():
            condition = file.create_group(f"boundary_conditions/{name}_boundary")
            condition.attrs.update(associated_dims=[name], bc_type=kind)
        file.create_group("scalars")["Re"] = 50.0
        fields: dict[str, tuple[np.ndarray, bool, bool, list[bool]]] = {
            "t0_fields/tracer": (numbers(S, T, X, Y), True, True, [True, True]),
            "t0_fields/mask": (numbers(X, Y), False, False, [True, True]),
            "t0_fields/depth": (numbers(S, X), True, False, [True, False]),
            "t1_fields/momentum": (numbers(S, T, X, Y, 2), True, True, [True, True]),
            "t2_fields/strain": (numbers(S, T, X, Y, 2, 2), True, True, [True, True]),
        }
        for name, (values, sampled, timed, along) in fields.items():
            file[name] = values
            file[name].attrs.update(sample_varying=sampled, time_varying=timed, dim_varying=along)


def pdebench_groups(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for i in range(S):
            group = file.create_group(f"{i:04d}")
            group["data"] = numbers(S, T, X, Y, 2)[i]
            group["grid/x"], group["grid/y"] = centres(-1, 1, X), centres(-1, 1, Y)
            group["grid/t"] = np.linspace(0, 5, T)


def pdebench_batch(path: Path, names: tuple[str, ...] = ("density", "pressure", "Vx", "Vy")) -> None:
    with h5py.File(path, "w") as file:
        for i, name in enumerate(names):
            file[name] = numbers(S, T, X, Y) + i
        file["x-coordinate"], file["y-coordinate"] = centres(0, 1, X), centres(0, 1, Y)
        file["t-coordinate"] = np.arange(T + 1) * 0.05


def pdebench_bare(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["particles"] = numbers(S, T, X, Y, 1)
        file["flow"] = numbers(S, T, X, Y, 2)
        file["force"] = numbers(S, X, Y, 2)
        file["t"] = np.tile(np.arange(T) * 0.1, (S, 1))


def matlab(path: Path, first: bool = True) -> None:
    """u (sample, x, y, time), as MATLAB writes it: reversed, and after 512 bytes of its own."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["u"] = numbers(S, X, X, T).transpose()
        file["t"] = np.arange(1.0, T + 1)[:, None]
        if first:
            file["a"] = numbers(S, X, X).transpose()
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file")


def old_matlab(path: Path) -> None:
    pytest.importorskip("scipy.io").savemat(path, {"coeff": numbers(S, X, X), "sol": numbers(S, X, X) + 1})


def netcdf(path: Path) -> None:
    ds = xr.Dataset(
        {"t2m": (("number", "valid_time", "lat", "lon"), numbers(S, T, X, Y), {"units": "K"})},
        {
            "lat": ("lat", np.linspace(90, -90, X), {"units": "degrees_north"}),
            "lon": ("lon", np.linspace(0, 360, Y), {"units": "degrees_east"}),
            "valid_time": ("valid_time", np.arange(T) * 6, {"units": "hours since 2000-01-01"}),
        },
    )
    ds["t2m"][..., -1] = ds["t2m"][..., 0]
    ds["code"] = (("number", "lat", "lon"), np.ones((S, X, Y), dtype=np.int16))
    ds.to_netcdf(
        path,
        engine="h5netcdf",
        encoding={"t2m": {"dtype": "i2", "scale_factor": 1e-3, "_FillValue": -(2**15)}},
    )


def mine(folder: Path, write: Callable[..., None], name: str, *words: object, **options: Any) -> xr.Dataset:
    """The file, converted through the command line, loaded."""
    write(folder / name, **options)
    assert cli.main(["convert", str(folder / name), "-o", str(folder / "out.nc"), *map(str, words)]) == 0
    with open_dataset(folder / "out.nc") as ds:
        geometry = geometry_of(ds)
        check(ds, geometry, {str(k): str(v.attrs["units"]) for k, v in ds.data_vars.items()})
        return ds.load()


def same(found: xr.DataArray, expected: np.ndarray, *dims: str) -> None:
    np.testing.assert_allclose(found.transpose(*dims).values, expected, rtol=1e-6)
    assert found.dtype == np.float32


# --- The Well ------------------------------------------------------------------------------------


def test_the_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ds = mine(tmp_path, the_well, "flow.hdf5", "--unit", "tracer=kg", "--unit", "time=s")
    said = capsys.readouterr().out
    assert "layout: the-well" in said and "domain: periodic_plane" in said
    assert "period [0, 2) becomes [0, 1)" in said and "keep their numbers" in said and "Re" in said
    assert (
        ds.attrs["geometry"] == "periodic_plane"
        and ds.attrs["Re"] == 50
        and ds.attrs["source"] == "flow.hdf5"
    )
    dims = ("sample", "time", "x", "y")
    same(ds.tracer, numbers(S, T, X, Y), *dims)
    same(ds.mask, numbers(X, Y), "x", "y")
    same(ds.depth, np.repeat(numbers(S, X)[..., None], Y, axis=-1), "sample", "x", "y")
    for i, c in enumerate("xy"):
        same(ds[f"momentum_{c}"], numbers(S, T, X, Y, 2)[..., i], *dims)
        for j, d in enumerate("xy"):
            same(ds[f"strain_{c}_{d}"], numbers(S, T, X, Y, 2, 2)[..., i, j], *dims)
    np.testing.assert_allclose(ds.x, np.arange(X) / X, atol=1e-6)
    np.testing.assert_allclose(ds.time, np.arange(T) * 0.5)
    assert (
        ds.tracer.attrs["units"] == "kg" and ds.time.attrs["units"] == "s" and ds.mask.attrs["units"] == "1"
    )
    assert ds.x.attrs["source_maximum"] == pytest.approx(2)


@pytest.mark.parametrize(
    ("kinds", "name"),
    [({"x": "PERIODIC", "y": "WALL"}, "cylinder"), ({"x": "OPEN", "y": "WALL"}, "plane")],
)
def test_boundaries_say_the_domain(tmp_path: Path, kinds: dict[str, str], name: str) -> None:
    assert mine(tmp_path, the_well, "flow.hdf5", kinds=kinds).attrs["geometry"] == name


def test_a_channel_that_stands_upright(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    the_well(tmp_path / "flow.hdf5", {"x": "WALL", "y": "PERIODIC"})
    line = ["convert", str(tmp_path / "flow.hdf5"), "-o", str(tmp_path / "out.nc")]
    assert cli.main(line) == 3
    cure = capsys.readouterr().err.splitlines()[1]
    ds = mine(
        tmp_path, the_well, "flow.hdf5", *cure.split("`")[1].split(), kinds={"x": "WALL", "y": "PERIODIC"}
    )
    assert ds.attrs["geometry"] == "cylinder"
    same(ds.tracer, numbers(S, T, X, Y), "sample", "time", "y", "x")


def test_a_planet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ds = mine(
        tmp_path, the_well, "planet.hdf5", grid_type="spherical", kinds={"phi": "PERIODIC", "theta": "OPEN"}
    )
    assert ds.attrs["geometry"] == "rotating_sphere"
    np.testing.assert_allclose(ds.latitude, 90 - np.rad2deg(centres(0, math.pi, X)), atol=1e-4)
    np.testing.assert_allclose(ds.longitude, np.arange(Y) * 360 / Y, atol=1e-4)
    same(ds.tracer, numbers(S, T, X, Y), "sample", "time", "latitude", "longitude")
    assert "colatitudes become latitudes" in capsys.readouterr().out


# --- PDEBench ------------------------------------------------------------------------------------


def test_pdebench_in_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ds = mine(tmp_path, pdebench_groups, "2D_reaction.h5", "--variable", "activator=u_0")
    assert ds.attrs["geometry"] == "plane" and list(ds.data_vars) == ["activator"]
    same(ds.activator, numbers(S, T, X, Y, 2)[..., 0], "sample", "time", "x", "y")
    np.testing.assert_allclose(ds.x, centres(-3, 3, X), atol=1e-6)
    np.testing.assert_allclose(ds.time, np.linspace(0, 5, T))
    assert "window [-1, 1] becomes [-3, 3]" in capsys.readouterr().out


def test_pdebench_in_batches(tmp_path: Path) -> None:
    ds = mine(tmp_path, pdebench_batch, "2D_CFD_periodic_Train.hdf5")
    assert ds.attrs["geometry"] == "periodic_plane" and ds.sizes["time"] == T
    for i, name in enumerate(("density", "pressure", "Vx", "Vy")):
        same(ds[name], numbers(S, T, X, Y) + i, "sample", "time", "x", "y")
    np.testing.assert_allclose(ds.x, centres(0, 1, X), atol=1e-6)
    np.testing.assert_allclose(ds.time, np.arange(T) * 0.05)


def test_pdebench_without_coordinates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ds = mine(tmp_path, pdebench_bare, "ns_incom-1.h5")
    assert ds.attrs["geometry"] == "plane" and "regular nodes are assumed" in capsys.readouterr().out
    same(ds.particles, numbers(S, T, X, Y, 1)[..., 0], "sample", "time", "x", "y")
    same(ds.flow_y, numbers(S, T, X, Y, 2)[..., 1], "sample", "time", "x", "y")
    same(ds.force_x, numbers(S, X, Y, 2)[..., 0], "sample", "x", "y")
    np.testing.assert_allclose(ds.x, centres(-3, 3, X))


def test_a_name_that_says_too_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pdebench_batch(tmp_path / "data.hdf5")
    line = ["convert", str(tmp_path / "data.hdf5"), "-o", str(tmp_path / "out.nc")]
    assert cli.main(line) == 3
    cause, cure = capsys.readouterr().err.splitlines()
    assert "periodic" in cause and "`--geometry plane`" in cure and "`--geometry periodic_plane`" in cure
    assert cli.main([*line, "--geometry", "periodic_plane"]) == 0


def test_one_dimension_has_no_geometry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(tmp_path / "1D.hdf5", "w") as file:
        file["tensor"], file["x-coordinate"] = numbers(S, T, X), centres(0, 1, X)
    assert cli.main(["convert", str(tmp_path / "1D.hdf5"), "-o", str(tmp_path / "out.nc")]) == 3
    assert "expected the coordinates of a geometry" in capsys.readouterr().err


# --- bare arrays ---------------------------------------------------------------------------------


def test_matlab_with_its_first_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ds = mine(tmp_path, matlab, "flow.mat", "--geometry", "periodic_plane")
    assert detect(tmp_path / "flow.mat") == "fno" and "a is put before u" in capsys.readouterr().out
    whole = np.concatenate([numbers(S, X, X)[..., None], numbers(S, X, X, T)], axis=-1)
    same(ds.u, whole, "sample", "x", "y", "time")
    np.testing.assert_allclose(ds.time, np.arange(T + 1))
    with open_source(tmp_path / "flow.mat").ds as lazy:
        same(lazy.u.isel(time=2), whole[..., 2], "sample", "x", "y")
        same(lazy.u.isel(time=slice(3, 0, -1), x=3), whole[:, 3, :, 3:0:-1], "sample", "y", "time")


def test_matlab_without_it(tmp_path: Path) -> None:
    ds = mine(tmp_path, matlab, "flow.mat", "--geometry", "periodic_plane", first=False)
    same(ds.u, numbers(S, X, X, T), "sample", "x", "y", "time")


def test_old_matlab(tmp_path: Path) -> None:
    ds = mine(tmp_path, old_matlab, "darcy.mat", "--geometry", "plane")
    same(ds.sol, numbers(S, X, X) + 1, "sample", "x", "y")


def test_old_matlab_without_scipy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old_matlab(tmp_path / "darcy.mat")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert cli.main(["convert", str(tmp_path / "darcy.mat"), "-o", str(tmp_path / "out.nc")]) == 3
    assert capsys.readouterr().err.splitlines()[1] == "Type `pip install scipy`."


ARRAYS: dict[str, tuple[tuple[int, ...], str, tuple[str, ...]]] = {
    "time before space": ((S, T, X, X), "", ("sample", "time", "y", "x")),
    "time behind space": ((S, X, X, T), "", ("sample", "x", "y", "time")),
    "states": ((S, X, X), "", ("sample", "y", "x")),
    "one state": ((X, Y), "", ("y", "x")),
    "named": ((T, X, Y), "--dims time,x,y", ("time", "x", "y")),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("ending", [".npy", ".pt"])
def test_arrays(tmp_path: Path, kind: str, ending: str) -> None:
    shape, words, dims = ARRAYS[kind]
    values = numbers(*shape)
    write = np.save if ending == ".npy" else lambda path, array: torch.save(torch.from_numpy(array), path)
    ds = mine(
        tmp_path,
        lambda path: write(path, values),
        f"u{ending}",
        "--geometry",
        "periodic_plane",
        *words.split(),
    )
    same(ds.u, values, *dims)


def test_channels_and_pairs(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        torch.save(
            {"x": torch.from_numpy(numbers(S, X, X)), "y": torch.from_numpy(numbers(S, X, X) + 1)}, path
        )

    ds = mine(tmp_path, write, "pairs.pt", "--geometry", "plane")
    same(ds.output, numbers(S, X, X) + 1, "sample", "y", "x")
    channels = numbers(S, T, 2, X, X)
    ds = mine(
        tmp_path, lambda path: np.save(path, channels), "c.npy", "--geometry", "plane", "--overwrite",
        "--variable", "w=u_1",
    )  # fmt: skip
    same(ds.w, channels[:, :, 1], "sample", "time", "y", "x")


class Trap:
    """Code that a pickle would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["pt", "old pt", "npy"])
def test_code_in_a_file_is_not_run(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    trap, path = Trap(tmp_path / "sprung"), tmp_path / f"u.{kind.split()[-1]}"
    if kind == "npy":
        np.save(path, np.array([trap], dtype=object), allow_pickle=True)
    else:
        torch.save({"u": trap}, path, _use_new_zipfile_serialization=kind == "pt")
    for line in (["convert", str(path), "-o", str(tmp_path / "out.nc")], ["inspect", str(path)]):
        assert cli.main(line) == 3
        cause, cure = capsys.readouterr().err.splitlines()
        assert "Python objects" in cause and cure
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# --- NetCDF and Zarr -----------------------------------------------------------------------------


def test_any_netcdf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ds = mine(tmp_path, netcdf, "era.nc")
    said = capsys.readouterr().out
    assert "lat is called latitude" in said and "repeats the first, is cut" in said
    assert ds.attrs["geometry"] == "rotating_sphere" and ds.sizes["longitude"] == Y - 1
    assert ds.time.attrs == {"units": "hours", "reference_date": "2000-01-01"}
    assert ds.t2m.dims == ("sample", "time", "latitude", "longitude") and ds.t2m.attrs["units"] == "K"
    np.testing.assert_allclose(ds.t2m, numbers(S, T, X, Y)[..., :-1], atol=1e-3)
    assert ds.code.dtype == np.float32


def test_our_own_files_stay_as_they_are(tmp_path: Path, shared: Path) -> None:
    assert cli.main(["convert", str(shared / "flow.nc"), "-o", str(tmp_path / "out.nc")]) == 0
    with open_dataset(tmp_path / "out.nc") as found, open_dataset(shared / "flow.nc") as expected:
        for name in ("vorticity", "forcing"):
            np.testing.assert_array_equal(found[name], expected[name])
        assert found.attrs["equation"] == expected.attrs["equation"]
        np.testing.assert_array_equal(found.x, expected.x)


@pytest.mark.skipif(importlib.util.find_spec("zarr") is None, reason="zarr is not installed")
def test_zarr(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        netcdf(path.with_suffix(".nc"))
        with xr.open_dataset(path.with_suffix(".nc"), engine="h5netcdf", decode_times=False) as ds:
            ds.load().drop_encoding().to_zarr(path)

    ds = mine(tmp_path, write, "era.zarr")
    np.testing.assert_allclose(ds.t2m, numbers(S, T, X, Y)[..., :-1], atol=1e-3)


def test_zarr_where_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "era.zarr").mkdir()
    (tmp_path / "era.zarr" / "zarr.json").write_text("{}")
    monkeypatch.setattr("pdeforecast.trajectory.files.find_spec", lambda name: None)
    assert cli.main(["convert", str(tmp_path / "era.zarr"), "-o", str(tmp_path / "out.nc")]) == 2
    assert "pip install 'pdeforecast[zarr]'" in capsys.readouterr().err


# --- coordinates ---------------------------------------------------------------------------------

WINDOWS: dict[str, tuple[np.ndarray, str, np.ndarray]] = {
    "0 … 1 without end": (np.arange(8) / 8, "periodic_plane", np.arange(8) / 8),
    "cells of [0, 1]": (centres(0, 1, 8), "periodic_plane", centres(0, 1, 8)),
    "0 … 2π without end": (np.arange(8) * math.pi / 4, "periodic_plane", np.arange(8) / 8),
    "−1 … 1 without end": (np.arange(8) / 4 - 1, "periodic_plane", np.arange(8) / 8),
    "pixels": (np.arange(8.0), "periodic_plane", np.arange(8) / 8),
    "descending": ((np.arange(8) / 4)[::-1], "periodic_plane", (np.arange(8) / 8)[::-1]),
    "cells of [−1, 1]": (centres(-1, 1, 8), "plane", centres(-3, 3, 8)),
    "nodes of [0, 1]": (np.linspace(0, 1, 9), "plane", np.linspace(-3, 3, 9)),
    "cells of [0, 50]": (centres(0, 50, 25), "plane", centres(-3, 3, 25)),
    "our own cells": (centres(-3, 3, 8), "plane", centres(-3, 3, 8)),
    "our own nodes": (np.linspace(-3, 3, 8), "plane", np.linspace(-3, 3, 8)),
}


@pytest.mark.parametrize("kind", WINDOWS)
def test_windows(tmp_path: Path, kind: str) -> None:
    nodes, geometry, expected = WINDOWS[kind]
    ds = xr.Dataset(
        {"u": (("time", "y", "x"), numbers(T, len(nodes), len(nodes)))},
        {"x": nodes, "y": nodes, "time": range(T)},
    )
    ds = mine(tmp_path, lambda path: ds.to_netcdf(path, engine="h5netcdf"), "u.nc", "--geometry", geometry)
    np.testing.assert_allclose(ds.x, expected, atol=1e-6)
    np.testing.assert_allclose(ds.y, expected, atol=1e-6)
    np.testing.assert_array_equal(ds.u, numbers(T, len(nodes), len(nodes)))


def test_a_repeated_end_is_seen_in_the_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """linspace(0, 1, 9) is a period of 8 nodes and their end if the values close, else one of 9 nodes."""
    nodes = np.linspace(0, 1, 9)
    wave = np.sin(2 * np.pi * nodes)[:, None] + np.cos(4 * np.pi * nodes)
    for values, count in ((wave, 8), (numbers(9, 9), 9)):
        data = xr.Dataset({"u": (("y", "x"), values)}, {"x": nodes, "y": nodes})
        words = ("--geometry", "periodic_plane", "--overwrite")
        ds = mine(tmp_path, lambda path, data=data: data.to_netcdf(path, engine="h5netcdf"), "u.nc", *words)
        assert ds.sizes == {"y": count, "x": count}
        np.testing.assert_allclose(ds.x, np.arange(count) / count, atol=1e-6)
        assert ("repeats the first, is cut" in capsys.readouterr().out) == (count == 8)


def test_unequal_sides_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ds = xr.Dataset({"u": (("y", "x"), numbers(8, 8))}, {"x": np.arange(8.0), "y": np.arange(8) * 2.0})
    mine(tmp_path, lambda path: ds.to_netcdf(path, engine="h5netcdf"), "u.nc", "--geometry", "periodic_plane")
    assert "the sides differ (y 16, x 8)" in capsys.readouterr().out


def test_walls_with_uneven_nodes(tmp_path: Path) -> None:
    cheb = 0.5 - 0.5 * np.cos(np.pi * (np.arange(16) + 0.5) / 16)
    ds = xr.Dataset({"u": (("y", "x"), numbers(16, 8))}, {"x": np.arange(8) / 8, "y": cheb})
    found = mine(
        tmp_path, lambda path: ds.to_netcdf(path, engine="h5netcdf"), "u.nc", "--geometry", "cylinder"
    )
    assert abs(found.y.values - cheb).max() < 0.02


def test_loose_points_stay(tmp_path: Path) -> None:
    places = np.random.default_rng(0).uniform(size=(2, 5))
    ds = xr.Dataset(
        {"u": (("time", "station"), numbers(T, 5))},
        {"x": ("station", places[0]), "y": ("station", places[1]), "time": range(T)},
    )
    found = mine(tmp_path, lambda path: ds.to_netcdf(path, engine="h5netcdf"), "u.nc", "--geometry", "plane")
    assert found.u.dims == ("time", "point")
    np.testing.assert_array_equal(found.x, places[0])


def test_a_swath_stays_and_is_understood(tmp_path: Path) -> None:
    latitude, longitude = np.meshgrid(np.linspace(-30, 30, 4), np.linspace(100, 140, 6))
    ds = xr.Dataset(
        {"u": (("time", "scan", "pixel"), numbers(T, 6, 4))},
        {"lat": (("scan", "pixel"), latitude), "lon": (("scan", "pixel"), longitude), "time": range(T)},
    )
    renamed = ("--coordinate", "latitude=lat", "--coordinate", "longitude=lon", "--geometry", "sphere")
    found = mine(tmp_path, lambda path: ds.to_netcdf(path, engine="h5netcdf"), "u.nc", *renamed)
    _, points, values = trajectory_values(found, geometry_of(found), {"u": "1"})
    np.testing.assert_array_equal(values[0, :, :, 0], ds.u.values.reshape(T, -1))
    np.testing.assert_allclose(points[:, 2], np.sin(np.deg2rad(latitude.ravel())), atol=1e-6)


# --- what is told --------------------------------------------------------------------------------


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["deep/down"] = numbers(S, X, Y)


def cut(write: Callable[[Path], None], path: Path) -> None:
    write(path)
    path.write_bytes(path.read_bytes()[:3000])


WRONG: dict[str, tuple[Callable[[Path], object], str, str, int, tuple[str, ...]]] = {
    "nothing": (lambda path: None, "none.h5", "", 3, ("there is no",)),
    "a folder": (lambda path: path.mkdir(), "folder", "", 3, ("another folder",)),
    "text": (lambda path: path.write_text("1,2"), "u.csv", "", 3, ("something else",)),
    "other HDF5": (hdf5, "u.h5", "", 3, ("deep/down (3, 8, 6)", "--dims")),
    "not that layout": (hdf5, "u.h5", "--layout the-well", 3, ("layout the-well", "--layout")),
    "unknown sizes": (
        lambda path: np.save(path, numbers(5, 6, 7)), "u.npy", "", 3, ("5 x 6 x 7", "--dims sample,time,y,x"),
    ),
    "too few": (lambda path: np.save(path, numbers(5)), "u.npy", "", 3, ("two dimensions", "u (5)")),
    "other dimensions": (
        lambda path: np.save(path, numbers(S, T, 6, 6)), "u.npy", "--dims time,y,x", 3,
        ("time, y, x; came", "6 x 6"),
    ),
    "a dimension twice": (
        lambda path: np.save(path, numbers(3, 3)), "u.npy", "--dims x,x", 2, ("every dimension once",),
    ),
    "no samples": (
        lambda path: np.save(path, numbers(0, T, 6, 6)), "u.npy", "--geometry plane", 3, ("along sample",),
    ),
    "cut short": (lambda path: cut(pdebench_groups, path), "u.h5", "", 3, ("cut short or damaged",)),
    "a unit of a place": (pdebench_groups, "u.h5", "--unit x=m", 2, ("'x'",)),
    "a name twice": (pdebench_groups, "u.h5", "--coordinate x=y", 2, ("--coordinate y=x",)),
    "a unit of nothing": (pdebench_groups, "u.h5", "--unit w=m", 2, ("'w'", "--unit u_0=m")),
    "another variable": (pdebench_groups, "u.h5", "--variable w=u_7", 2, ("u_7", "w=u_")),
    "another geometry": (pdebench_groups, "u.h5", "--geometry plain", 2, ("--geometry plane",)),
    "another layout": (pdebench_groups, "u.h5", "--layout matlab", 2, ("matlab",)),
    "no pair": (pdebench_groups, "u.h5", "--unit m", 2, ("`--unit m=…`",)),
    "a coordinate too few": (pdebench_groups, "u.h5", "--geometry sphere", 3, ("longitude", "--coordinate")),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    write, name, words, code, said = WRONG[what]
    write(tmp_path / name)
    before = sorted(file.name for file in tmp_path.iterdir())
    assert cli.main(["convert", str(tmp_path / name), "-o", str(tmp_path / "out.nc"), *words.split()]) == code
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 2 and all(word in err for word in said), err
    assert sorted(file.name for file in tmp_path.iterdir()) == before


def test_in_a_process_of_its_own_and_on_to_training(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    pdebench_batch(tmp_path / "train" / "2D_periodic.hdf5", ("density",))
    words = ["convert", tmp_path / "train" / "2D_periodic.hdf5", "-o", tmp_path / "out.nc"]
    command = [sys.executable, "-m", "pdeforecast.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and "converted" in done.stdout and "Traceback" not in done.stderr
    with open_dataset(tmp_path / "out.nc") as ds:
        assert ds.attrs["split"] == "train" and ds.attrs["command"].startswith("pdeforecast convert")
        times, points, values = trajectory_values(ds, geometry_of(ds), {"density": "1"})
        assert len(times) == T and values.shape == (S, T, len(points), 1)


def test_large_files_are_converted_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pdebench_groups(tmp_path / "data.h5")
    read: list[int] = []
    once = h5py.Dataset.__getitem__

    def counted(self: h5py.Dataset, key: Any, **options: Any) -> Any:
        found = once(self, key, **options)
        read.append(np.asarray(found).nbytes)
        return found

    sample = T * X * Y * 4
    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    monkeypatch.setattr("pdeforecast.trajectory.blocks.blocks.__defaults__", (sample,))
    monkeypatch.setattr("pdeforecast.trajectory.files.BLOCK", sample)
    assert cli.main(["convert", str(tmp_path / "data.h5"), "-o", str(tmp_path / "out.nc")]) == 0
    assert max(read) == sample
    monkeypatch.undo()
    with open_dataset(tmp_path / "out.nc") as ds:
        same(ds.u_1, numbers(S, T, X, Y, 2)[..., 1], "sample", "time", "x", "y")
