"""Convection in the ball against closed forms, against what it conserves, and against an independent code."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import spherical_jn
from torch import Tensor

from pdeforecast.errors import DataError
from pdeforecast.pdes import Convection
from pdeforecast.pdes.base import State
from pdeforecast.solvers.ball import Ball, BallGrid, gauss_axes
from pdeforecast.solvers.jacobi import gauss_legendre, gauss_radii

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference"
N = 12
SMALL = Convection(resolution=N, modes=N, start=0.5, step=0.05)


def cartesian(n: int = N) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, y, z, r on the nodes."""
    r, latitude, longitude = torch.meshgrid(*gauss_axes(n).values(), indexing="ij")
    latitude, longitude = latitude.deg2rad(), longitude.deg2rad()
    across = r * latitude.cos()
    return across * longitude.cos(), across * longitude.sin(), r * latitude.sin(), r


def mean(field: Tensor) -> Tensor:
    weights = gauss_radii(field.shape[-3])[1][:, None, None] * gauss_legendre(field.shape[-2])[1][:, None]
    return (field * weights).sum((-3, -2, -1)) / (weights.sum() * field.shape[-1])


def relative(found: Tensor, true: Tensor) -> float:
    return float((mean((found - true) ** 2) / mean(true**2)).sqrt())


def fluctuation(field: Tensor) -> Tensor:
    return field - mean(field)[..., None, None, None]


def last(pde: Convection, state: State, time: float) -> State:
    (found,) = pde.solve(state, [time])
    return found


# --- closed forms --------------------------------------------------------------------------------


def test_conduction_is_steady() -> None:
    r = cartesian()[3]
    found = last(SMALL, {"temperature": 1 - r**2}, 3.0)
    torch.testing.assert_close(found["temperature"], 1 - r**2, rtol=0, atol=1e-12)
    assert float(found["radial_velocity"].abs().max()) < 1e-13


def test_heat_of_a_sphere_diffuses_without_flow() -> None:
    """T = 1 − r² + j₀(kr) e^{−κk²t} with j₀′(k) = 0: buoyancy is a gradient."""
    r, k = cartesian()[3], 4.493409457909064
    bump = torch.tensor(spherical_jn(0, k * r.numpy()))
    pde = replace(SMALL, rayleigh=100.0, prandtl=4.0)
    found = last(pde, {"temperature": 1 - r**2 + 0.3 * bump}, 0.7)
    expected = 1 - r**2 + 0.3 * math.exp(-0.05 * k**2 * 0.7) * bump
    torch.testing.assert_close(found["temperature"], expected, rtol=0, atol=1e-10)


def test_weak_toroidal_flow_decays() -> None:
    """r·∇×u ∝ j₂(kr) Y₂ with no stress, k j₂′(k) = j₂(k), decays as e^{−νk²t}."""
    x, y, _, r = cartesian()
    k = 2.501132776
    for _ in range(3):  # Newton, with j″ from the differential equation
        j, dj = spherical_jn(2, k), spherical_jn(2, k, True)
        k -= (k * dj - j) / (k * ((6 / k**2 - 1) * j - 2 / k * dj))
    start = 1e-8 * torch.tensor(spherical_jn(2, k * r.numpy())) * x * y / r**2
    pde = replace(SMALL, rayleigh=100.0, prandtl=4.0)
    found = last(pde, {"temperature": 1 - r**2, "radial_vorticity": start}, 0.7)
    assert relative(found["radial_vorticity"], math.exp(-0.2 * k**2 * 0.7) * start) < 1e-6


def test_rigid_rotation_lasts() -> None:
    x, y, z, r = cartesian()
    start = 2 * (0.3 * x - 0.5 * y + 0.4 * z)
    found = last(SMALL, {"temperature": 1 - r**2, "radial_vorticity": start}, 2.0)
    torch.testing.assert_close(found["radial_vorticity"], start, rtol=0, atol=1e-11)
    torch.testing.assert_close(found["temperature"], 1 - r**2, rtol=0, atol=1e-11)


# --- what is conserved ---------------------------------------------------------------------------


def test_mean_temperature_is_conserved() -> None:
    state = SMALL.initial(0, "train", 0)
    for frame in SMALL.solve(state, [1.0, 3.0]):
        assert float(mean(frame["temperature"])) == pytest.approx(
            float(mean(state["temperature"])), abs=1e-12
        )


def test_an_ideal_fluid_keeps_its_energy() -> None:
    """½⟨u²⟩ − ½⟨r² T⟩ is constant when nothing diffuses."""
    x, y, z, r = cartesian()
    pde = Convection(resolution=N, modes=N, rayleigh=1e30, step=0.02)
    ball, grid = Ball(N), BallGrid(pde.coordinates(), N)
    start = {
        "temperature": 1 - r**2 + 0.3 * x * y + 0.2 * z,
        "radial_velocity": 0.3 * (1 - r**2) * (x + y * z),
        "radial_vorticity": 0.5 * (x * z + y),
    }

    def energies(state: State) -> tuple[float, float]:
        fields = torch.stack([state[name] for name in pde.variables])
        flow = ball.amplitudes(grid.analysis(fields))[1:].abs().square().sum((0, 1, 2))
        kinetic = 2 * math.pi * float(0.5 * flow[0] + flow[1:].sum())
        return kinetic, kinetic - 2 * math.pi / 3 * float(mean(r**2 * state["temperature"]))

    (first, total), (second, later) = energies(start), energies(last(pde, start, 1.0))
    assert abs(second - first) > 1e-3
    assert later == pytest.approx(total, abs=1e-8)


# --- states and grids ----------------------------------------------------------------------------


def test_a_state_without_velocity_is_at_rest() -> None:
    start = {"temperature": SMALL.initial(0, "train", 0)["temperature"]}
    rest = {name: torch.zeros_like(start["temperature"]) for name in SMALL.variables[1:]}
    for name, field in last(SMALL, start, 0.5).items():
        assert torch.equal(field, last(SMALL, {**start, **rest}, 0.5)[name])


def test_other_nodes_hold_the_same_solution() -> None:
    i = torch.arange(16, dtype=torch.float64)
    axes = {
        "radius": (i + 0.5) / 16,
        "latitude": 11.25 * (i + 0.5) - 90,
        "longitude": 11.25 * torch.arange(32.0).double(),
    }

    def start(nodes: dict[str, Tensor]) -> State:
        r, latitude, longitude = torch.meshgrid(*nodes.values(), indexing="ij")
        x = r * latitude.deg2rad().cos() * longitude.deg2rad().cos()
        return {"temperature": 1 - r**2 + 0.2 * x}

    (there,) = SMALL.solve(start(axes), [0.5], axes)
    gauss = SMALL.coordinates()
    found = BallGrid(axes, N).synthesis(
        BallGrid(gauss, N).analysis(last(SMALL, start(gauss), 0.5)["temperature"])
    )
    torch.testing.assert_close(there["temperature"], found, rtol=0, atol=1e-10)
    with pytest.raises(DataError):
        next(iter(SMALL.solve(start(axes), [0.5], {**axes, "radius": 0.9 + 0.1 * axes["radius"]})))


def test_solutions_converge_exponentially_in_space() -> None:
    x, y, z, r = cartesian(24)
    start = {"temperature": 1 - r**2 + 0.2 * (x + y * z)}
    pde = Convection(step=0.1, rayleigh=1e4)
    solutions = [last(replace(pde, modes=n), start, 2.0)["temperature"] for n in (6, 9, 12, 18)]
    errors = [relative(f, solutions[-1]) for f in solutions[:-1]]
    assert errors[1] < errors[0] / 4 and errors[2] < errors[1] / 4 and errors[2] < 1e-5


def test_frames_begin_at_the_start() -> None:
    assert Convection().times()[0] == 3.0 and Convection().times()[-1] == pytest.approx(5.6)


# --- against an independent code -----------------------------------------------------------------


def reference(name: str) -> dict[str, np.ndarray]:
    path = REFERENCE / name
    if not path.is_file():
        pytest.skip(f"the reference solution {name} is not beside this repository")
    with np.load(path) as file:
        return {key: file[key] for key in file.files if file[key].dtype.kind in "fi"}


def turned(field: np.ndarray) -> Tensor:
    """Their axes are (longitude, colatitude descending, radius), ours (radius, latitude, longitude)."""
    return torch.tensor(np.ascontiguousarray(field.T), dtype=torch.float64)


def errors(pde: Convection, start: Tensor, data: dict[str, np.ndarray], until: float) -> dict[float, float]:
    frames = {
        round(float(data["t"][i]), 6): turned(T) for i, T in zip(data["T_frames"], data["T"], strict=True)
    }
    times = [time for time in frames if 0 < time <= until]
    found = {}
    for time, frame in zip(times, pde.solve({"temperature": start}, times), strict=True):
        found[time] = relative(fluctuation(frame["temperature"]), fluctuation(frames[time]))
    return found


def test_the_noise_is_that_of_the_reference() -> None:
    """White on 48 × 24 × 24 nodes, then degrees l < 12 and n < 12 − l/2."""
    r = cartesian(24)[3]
    theirs = turned(reference("convection_48x24x24.npz")["T0_f64"]) - 1 + r**2
    ours = Convection(start=0.0).initial(0, "train", 0)["temperature"] - 1 + r**2
    coarse = BallGrid(gauss_axes(24), 12)
    torch.testing.assert_close(coarse.synthesis(coarse.analysis(theirs)), theirs, rtol=0, atol=1e-10)
    torch.testing.assert_close(coarse.synthesis(coarse.analysis(ours)), ours, rtol=0, atol=1e-10)
    assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.15)


def test_reference_at_24() -> None:
    data = reference("convection_48x24x24.npz")
    found = errors(Convection(modes=24), turned(data["T0_f64"]), data, 2.0)
    assert max(found.values()) <= 1e-3 and set(found) == {1.0, 2.0}


@pytest.mark.slow
def test_reference_at_40() -> None:
    data = reference("convection_80x40x40.npz")
    start = turned(reference("convection_48x24x24.npz")["T0_f64"])
    coefficients = BallGrid(gauss_axes(24), 24).analysis(start)
    padded = BallGrid(gauss_axes(40), 24).synthesis(coefficients)
    pde = Convection(resolution=40)
    found = errors(pde, padded, data, 5.0)
    for time, error in found.items():
        print(f"t = {time:g}: {error:.1e}")
        assert error <= (1e-4 if time <= 2 else 2e-3 if time <= 4 else 3e-2)
    flow = last(pde, {"temperature": padded}, 3.0)["radial_velocity"]
    assert relative(flow, cartesian(40)[3] * turned(data["u"][0, 2])) <= 1e-3


def test_steps_too_long_for_a_fast_flow_are_halved() -> None:
    """A flow of ten times the usual speed, at a step at which it would be unstable."""
    pde = Convection(modes=12, resolution=12)
    axes = pde.coordinates()
    warm = 1 - axes["radius"][:, None, None] ** 2
    shape = (12, 12, 24)
    up = axes["radius"][:, None, None] * (1 - axes["radius"][:, None, None] ** 2)
    tilt = torch.sin(torch.deg2rad(axes["latitude"]))[:, None]
    state = {
        "temperature": warm.expand(shape),
        "radial_velocity": (3 * up * tilt).expand(shape),
    }
    (long,) = replace(pde, step=0.4).solve(state, [0.4])
    (short,) = replace(pde, step=0.01).solve(state, [0.4])
    assert float((long["temperature"] - short["temperature"]).norm() / short["temperature"].norm()) < 1e-3
