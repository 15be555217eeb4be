"""From a given state: any layout that the equation's solver takes in, and the same solution."""

import numpy as np
import pytest
import torch
import xarray as xr

from pdeforecast import generation
from pdeforecast.errors import DataError, DivergedError, UsageError
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.pdes import (
    PDE,
    CahnHilliard,
    Convection,
    DiffusionPlane,
    DiffusionSphere,
    NavierStokes,
    ShallowWater,
)
from pdeforecast.trajectory import grid_dims

FLOW = NavierStokes(resolution=16, spin_up=0.5, frames=3, interval=0.5, step=0.1)
SMALL: dict[str, PDE] = {
    pde.name: pde
    for pde in (
        FLOW,
        CahnHilliard(resolution=16, length=16, spin_up=1, frames=3, interval=0.5),
        DiffusionPlane(resolution=16, frames=3),
        DiffusionSphere(resolution=12, width=0.6, frames=3),
        ShallowWater(resolution=12, start=0, frames=3, interval=0.5),
        Convection(resolution=12, modes=12, start=0.2, frames=3),
    )
}


@pytest.fixture(scope="module")
def made() -> dict[str, xr.Dataset]:
    """Two trajectories of every equation."""
    return {
        name: generation.assemble(pde, list(generation.generate(pde, 2)), 0, "train")
        for name, pde in SMALL.items()
    }


@pytest.fixture
def file(made: dict[str, xr.Dataset]) -> xr.Dataset:
    return made[FLOW.name]


def close(found: xr.DataArray, expected: xr.DataArray, tolerance: float = 1e-5) -> None:
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(found.values, expected.values, atol=tolerance * scale, rtol=0)


LAYOUTS = {
    "as it is": lambda ds, dims: ds,
    "one sample": lambda ds, dims: ds.isel(sample=[1]),
    "turned dimensions": lambda ds, dims: ds.transpose(*dims[::-1], ...),
    "backwards": lambda ds, dims: ds.isel({name: slice(None, None, -1) for name in dims[-2:]}),
    "float64": lambda ds, dims: ds.drop_vars("state_hash").astype(float),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_state_in_any_layout_goes_on_as_its_trajectory(
    made: dict[str, xr.Dataset], name: str, layout: str
) -> None:
    pde, ds = SMALL[name], made[name]
    given = LAYOUTS[layout](ds, grid_dims(GEOMETRIES[pde.geometry])).isel(time=1)
    out = generation.solve_from(pde, given, [pde.interval, 0.0])
    dims = grid_dims(GEOMETRIES[pde.geometry])
    for axis in dims:
        np.testing.assert_array_equal(out[axis], given[axis])
    expected = ds.sel({axis: given[axis].values for axis in (*dims, "sample")})
    for variable in pde.variables:
        assert out[variable].dims == ("sample", "lead_time", *dims) and out[variable].dtype == np.float32
        assert out[variable].attrs["units"] == pde.units[variable]
        tolerance = 1e-3 if name == "shallow-water" else 1e-5
        close(out[variable][:, 0], expected[variable].isel(time=2), tolerance)
        close(out[variable][:, 1], expected[variable].isel(time=1), tolerance)
    assert out.attrs["start_time"] == float(ds.time[1]) and "absent_variables" not in out.attrs
    assert out.lead_time.attrs["units"] == pde.units.get("time", "1")
    assert out.sample.values.tolist() == given.sample.values.tolist()


@pytest.mark.parametrize("name", ["diffusion-sphere", "shallow-water", "convection"])
def test_longitude_may_be_wrapped(made: dict[str, xr.Dataset], name: str) -> None:
    pde, ds = SMALL[name], made[name].isel(time=0)
    wrapped = ds.assign_coords(longitude=(ds.longitude + 180) % 360 - 180).sortby("longitude")
    plain, turned = (generation.solve_from(pde, state, [pde.interval]) for state in (ds, wrapped))
    assert float(turned.longitude[0]) == -180
    back = turned.assign_coords(longitude=turned.longitude % 360).sortby("longitude")
    for variable in pde.variables:
        close(back[variable], plain[variable])


def test_times_are_relative_and_in_any_order(file: xr.Dataset) -> None:
    out = generation.solve_from(FLOW, file, [1.0, 0.0, 0.5])
    np.testing.assert_array_equal(out.lead_time, [1.0, 0.0, 0.5])
    close(out.vorticity, file.vorticity[:, [2, 0, 1]])
    assert out.forcing.dims == ("y", "x")


def test_a_forecast_goes_on(file: xr.Dataset) -> None:
    first = generation.solve_from(FLOW, file.isel(time=1), [0.0, 0.25])
    later = generation.solve_from(FLOW, first.isel(lead_time=1), [0.25])
    close(later.vorticity[:, 0], file.vorticity[:, 2])
    assert later.attrs["start_time"] == 0.75


def test_a_state_without_sample_or_time(file: xr.Dataset) -> None:
    out = generation.solve_from(FLOW, file.isel(sample=1, time=0, drop=True), [1.0])
    close(out.vorticity[0, 0], file.vorticity[1, 2])
    assert "start_time" not in out.attrs


def test_an_oblong_grid(file: xr.Dataset) -> None:
    out = generation.solve_from(FLOW, file.isel(x=slice(None, None, 2)), [0.0])
    assert out.vorticity.shape == (2, 1, 16, 8)


def test_the_solution_does_not_depend_on_the_device_by_name(file: xr.Dataset) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    here, there = (generation.solve_from(FLOW, file, [1.0], device=name) for name in ("cpu", "cuda"))
    close(there.vorticity, here.vorticity)


# --- what may be left out, and other units ---------------------------------------------------------


def test_fluid_without_a_velocity_is_at_rest(made: dict[str, xr.Dataset]) -> None:
    pde, ds = SMALL["convection"], made["convection"].isel(time=0)
    flow = ["radial_velocity", "radial_vorticity"]
    bare = generation.solve_from(pde, ds.drop_vars(flow), [0.2])
    rest = generation.solve_from(pde, ds.assign({name: 0 * ds[name] for name in flow}), [0.2])
    assert bare.attrs["absent_variables"] == ", ".join(flow) and "absent_variables" not in rest.attrs
    for name in pde.variables:
        close(bare[name], rest[name])


@pytest.mark.parametrize(
    ("equation", "missing"),
    [
        ("navier-stokes", "vorticity"),
        ("navier-stokes", "forcing"),
        ("convection", "temperature"),
        ("shallow-water", "divergence"),
        ("shallow-water", "height"),
    ],
)
def test_what_an_equation_cannot_do_without(made: dict[str, xr.Dataset], equation: str, missing: str) -> None:
    with pytest.raises(DataError, match=f"expected {missing}"):
        generation.solve_from(SMALL[equation], made[equation].drop_vars(missing), [0.5])


def test_units_are_converted_and_given_back(made: dict[str, xr.Dataset]) -> None:
    pde, ds = SMALL["shallow-water"], made["shallow-water"].isel(time=0)
    plain = generation.solve_from(pde, ds, [0.5])
    other = ds.assign(
        height=(ds.height.dims, ds.height.values / 1e3, {"units": "km"}),
        vorticity=(ds.height.dims, ds.vorticity.values * 86400, {"units": "1/day"}),
    ).assign_coords(latitude=("latitude", np.deg2rad(ds.latitude.values), {"units": "radians"}))
    other = other.assign_coords(time=((), 60.0, {"units": "minutes"}))
    out = generation.solve_from(pde, other, [30])
    assert (out.lead_time.attrs["units"], out.lead_time.item(), out.start_time) == ("minutes", 30, 60)
    assert (out.height.attrs["units"], out.vorticity.attrs["units"]) == ("km", "1/day")
    np.testing.assert_array_equal(out.latitude, other.latitude)
    close(1e3 * out.height, plain.height)
    close(out.vorticity / 86400, plain.vorticity)
    with pytest.raises(DataError, match="'furlong'"):
        generation.solve_from(pde, ds.assign(height=ds.height.assign_attrs(units="furlong")), [0.5])


# --- what is refused -------------------------------------------------------------------------------

UNSOLVABLE = {
    "loose": lambda ds: ds.stack(point=("y", "x")).reset_index("point"),
    "gaps": lambda ds: ds.assign(vorticity=ds.vorticity.where(ds.x != 0.5)),
    "part of the plane": lambda ds: ds.isel(x=slice(8)),
    "irregular": lambda ds: ds.assign_coords(x=ds.x**2),
    "both ends": lambda ds: ds.assign_coords(x=np.linspace(0, 1, 16)),
}


@pytest.mark.parametrize("fault", UNSOLVABLE)
def test_what_the_solver_cannot_take_is_told(file: xr.Dataset, fault: str) -> None:
    with pytest.raises(DataError, match="expected"):
        generation.solve_from(FLOW, UNSOLVABLE[fault](file), [1.0])


@pytest.mark.parametrize("name", SMALL)
def test_uneven_nodes_are_refused(made: dict[str, xr.Dataset], name: str) -> None:
    pde, ds = SMALL[name], made[name]
    axis = grid_dims(GEOMETRIES[pde.geometry])[-1]
    nodes = ds[axis].values.copy()
    nodes[3] += 0.4 * (nodes[4] - nodes[3])
    with pytest.raises(DataError, match="expected"):
        generation.solve_from(pde, ds.assign_coords({axis: nodes}), [0.5])


def test_lead_times_lie_ahead(file: xr.Dataset) -> None:
    for wrong in ([], [-1.0], [float("nan")]):
        with pytest.raises(UsageError, match="lead times"):
            generation.solve_from(FLOW, file, wrong)


def test_a_solution_that_leaves_the_numbers_is_an_error(file: xr.Dataset) -> None:
    wild = NavierStokes(resolution=16, step=50, viscosity=0)
    with pytest.raises(DivergedError, match="not finite"):
        generation.solve_from(wild, file.assign(vorticity=1e6 * file.vorticity), [400.0])
