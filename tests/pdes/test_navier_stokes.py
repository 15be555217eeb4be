"""Navier–Stokes against the pencil, against what it conserves, and against an independent code."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pdeforecast.errors import DataError
from pdeforecast.pdes import NavierStokes
from pdeforecast.solvers.torus import Torus, resample

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference"
N = 32


def grid(n: int = N) -> tuple[Tensor, Tensor]:
    axis = torch.arange(n, dtype=torch.float64) / n
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return y, x


def solve(pde: NavierStokes, vorticity: Tensor, forcing: Tensor, times: list[float]) -> list[Tensor]:
    state = {"vorticity": vorticity, "forcing": forcing}
    return [frame["vorticity"] for frame in pde.solve(state, times)]


def relative(found: Tensor, true: Tensor) -> Tensor:
    return (found - true).norm(dim=(-2, -1)) / true.norm(dim=(-2, -1))


@pytest.mark.parametrize("waves", [1, 2, 5])
def test_taylor_green_vortices_decay(waves: int) -> None:
    y, x = grid()
    k = 2 * math.pi * waves
    start = torch.cos(k * x) * torch.cos(k * y)
    pde = NavierStokes(viscosity=1e-2)
    for time, found in zip([0.5, 3.0], solve(pde, start, 0 * x, [0.5, 3.0]), strict=True):
        torch.testing.assert_close(found, math.exp(-2e-2 * k**2 * time) * start, rtol=0, atol=1e-11)


def test_the_forced_flow_from_rest_has_a_closed_form() -> None:
    """ω = f (1 − e^{−νk²t})/(νk²): f is an eigenfunction of the Laplacian, so u·∇ω = 0."""
    pde = NavierStokes(resolution=N, viscosity=1e-2, phase_x=0.2)
    forcing = pde.static()["forcing"]
    rate = pde.viscosity * (4 * math.pi) ** 2
    (found,) = solve(pde, 0 * forcing, forcing, [2.0])
    torch.testing.assert_close(found, forcing * (1 - math.exp(-rate * 2)) / rate, rtol=0, atol=1e-7)


def test_mean_vorticity_is_conserved() -> None:
    pde = NavierStokes(resolution=N, spin_up=0.0)
    state = pde.initial(0, "train", 0)
    for frame in solve(pde, state["vorticity"] + 0.25, state["forcing"], [1.0, 3.0]):
        assert float(frame.mean()) == pytest.approx(0.25, abs=1e-12)


def test_an_ideal_fluid_keeps_its_energy_and_enstrophy() -> None:
    pde = NavierStokes(resolution=N, solver_resolution=N, viscosity=0.0, spin_up=0.0, step=0.01)
    start = resample(resample(3 * pde.initial(0, "train", 0)["vorticity"], 2 * N // 3), N)
    torus = Torus(N)

    def integrals(w: Tensor) -> tuple[float, float]:
        psi = torus.inverse(-torus.inverse_laplacian * torus.transform(w))
        return float((psi * w).mean()), float((w * w).mean())

    (end,) = solve(pde, start, 0 * start, [2.0])
    assert float((end - start).norm() / start.norm()) > 0.1
    assert integrals(end) == pytest.approx(integrals(start), rel=1e-7)


def test_the_random_field_has_its_declared_size() -> None:
    pde = NavierStokes(spin_up=0.0)
    fields = torch.stack([pde.initial(0, "train", i)["vorticity"] for i in range(16)])
    assert float(fields.std()) == pytest.approx(0.18, abs=0.03)
    assert float(fields.mean((-2, -1)).abs().max()) < 1e-12


def test_a_coarser_grid_holds_the_same_initial_state() -> None:
    fine, coarse = (
        NavierStokes(resolution=n, spin_up=0.5).initial(0, "test", 3)["vorticity"] for n in (128, 64)
    )
    assert float(relative(resample(coarse, 128), fine)) < 1e-2


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (20, 48), (27, 16)])
def test_grids_of_any_size_and_offset(rows: int, columns: int) -> None:
    """A Taylor–Green vortex on nodes anywhere, forced by a wave that moves no vorticity of its own kind."""
    y = (torch.arange(rows, dtype=torch.float64) / rows + 0.013)[:, None]
    x = torch.arange(columns, dtype=torch.float64) / columns - 0.4
    pde, k = NavierStokes(viscosity=1e-2), 2 * math.pi
    wave = torch.cos(k * (x - y)) * torch.cos(k * (x + y))
    state = {"vorticity": 0.4 * wave, "forcing": 0.1 * wave}
    (found,) = pde.solve(state, [2.0], {"y": y[:, 0], "x": x})
    decay = math.exp(-4e-2 * k**2 * 2.0)
    expected = (0.4 * decay + 0.1 * (1 - decay) / (4e-2 * k**2)) * wave
    torch.testing.assert_close(found["vorticity"], expected, rtol=0, atol=1e-9)
    assert found["forcing"] is state["forcing"]


def test_a_rectangle_of_points_holds_the_same_solution() -> None:
    pde = NavierStokes(spin_up=1.0)
    state = pde.initial(0, "train", 0)
    coarse = {name: resample(field, 48, 80) for name, field in state.items()}
    (there,), (here,) = pde.solve(coarse, [2.0]), pde.solve(state, [2.0])
    assert float(relative(resample(there["vorticity"], 64), here["vorticity"])) < 1e-6


def test_uneven_nodes_are_refused() -> None:
    state = NavierStokes(spin_up=0.0).initial(0, "train", 0)
    with pytest.raises(DataError, match="1/64 of the period"):
        next(iter(NavierStokes().solve(state, [1.0], {"y": torch.linspace(0, 1, 64)})))


@pytest.mark.parametrize("viscosity", [1e-4, 1e-5])
def test_thin_fluids_are_stable_at_the_default_step(viscosity: float) -> None:
    """On 64² points of its own a solver in need of more keeps to finite, if not accurate, numbers."""
    pde = NavierStokes(viscosity=viscosity, solver_resolution=64, spin_up=0.0)
    state = pde.initial(0, "train", 0)
    frames = solve(pde, state["vorticity"], state["forcing"], [10.0, 20.0, 30.0])
    assert all(0.5 < float(frame.std()) < 4 for frame in frames)


def test_a_thin_fluid_is_solved_on_more_points_than_it_is_given_on() -> None:
    pde = NavierStokes(viscosity=1e-4, spin_up=5.0)
    found, coarse = (replace(pde, solver_resolution=n).initial(0, "train", 0) for n in (0, 64))
    finer = replace(pde, resolution=160).initial(0, "train", 0)["vorticity"]
    assert found["vorticity"].shape == (64, 64)
    assert float(relative(found["vorticity"], resample(finer, 64))) < 1e-6
    assert float(relative(coarse["vorticity"], resample(finer, 64))) > 1e-4


# --- against an independent code -----------------------------------------------------------------


def reference(name: str) -> dict[str, np.ndarray]:
    path = REFERENCE / name
    if not path.is_file():
        pytest.skip(f"the reference solution {name} is not beside this repository")
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


def turned(field: np.ndarray) -> Tensor:
    """Their axes are (x, y), ours (y, x)."""
    return torch.tensor(field, dtype=torch.float64).transpose(-2, -1)


def test_reference_at_64() -> None:
    data = reference("navier_stokes_64.npz")
    start = turned(data["w0_f64"])
    pde = NavierStokes()
    found = solve(pde, start, pde.static()["forcing"].expand_as(start), data["t"].tolist())
    errors = torch.stack([relative(f, turned(data["w"][:, i])) for i, f in enumerate(found)])
    assert float(errors.max()) <= 1e-6


def test_reference_at_256() -> None:
    data = reference("navier_stokes_256.npz")
    start = turned(reference("navier_stokes_64.npz")["w0_f64"][0])
    pde = NavierStokes(resolution=128, step=0.02)
    *_, found = solve(pde, resample(start, 128), pde.static()["forcing"], [float(data["t"][1])])
    assert float(relative(resample(found, 256), turned(data["w"][0, 1]))) <= 1e-6
