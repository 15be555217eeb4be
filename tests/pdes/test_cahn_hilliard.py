"""Cahn–Hilliard against closed forms, its free energy, and itself at shorter steps and on finer grids."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pdeforecast.errors import DataError, UsageError
from pdeforecast.pdes import CahnHilliard
from pdeforecast.solvers.torus import Torus, resample

PDE = CahnHilliard(length=32.0, resolution=32, spin_up=10.0)


def solve(pde: CahnHilliard, start: Tensor, times: list[float]) -> list[Tensor]:
    return [frame["concentration"] for frame in pde.solve({"concentration": start}, times)]


def energy(pde: CahnHilliard, c: Tensor) -> float:
    """The mean of ¼(c² − 1)² + ½|∇c|², exact for what the grid resolves."""
    fine = resample(c, 2 * c.shape[-2], 2 * c.shape[-1])
    torus = Torus(*fine.shape[-2:])
    slopes = [torus.inverse(d * torus.transform(fine)) / pde.length for d in (torus.dx, torus.dy)]
    return float((0.25 * (fine**2 - 1) ** 2 + 0.5 * (slopes[0] ** 2 + slopes[1] ** 2)).mean())


def relative(found: Tensor, true: Tensor) -> float:
    return float((found - true).norm() / true.norm())


# --- closed forms --------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0.0, 0.4, -0.8])
@pytest.mark.parametrize(("ky", "kx"), [(0, 1), (2, 3), (5, -4)])
def test_a_weak_wave_grows_or_decays(mean: float, ky: int, kx: int) -> None:
    """c = m + ε cos k·x e^{σt}, σ = k²(1 − 3m²) − k⁴, up to ε²."""
    axis = 2 * math.pi * PDE.coordinates()["x"]
    wave = torch.cos(ky * axis[:, None] + kx * axis)
    k2 = (2 * math.pi / PDE.length) ** 2 * (kx**2 + ky**2)
    growth = math.exp(3.0 * (k2 * (1 - 3 * mean**2) - k2**2))
    (found,) = solve(replace(PDE, step=0.01), mean + 1e-7 * wave, [3.0])
    torch.testing.assert_close((found - mean) / 1e-7, growth * wave, rtol=0, atol=1e-5)


@pytest.mark.parametrize("level", [-1.0, 0.0, 0.3, 1.0])
def test_a_uniform_mixture_stays(level: float) -> None:
    start = torch.full((32, 32), level, dtype=torch.float64)
    torch.testing.assert_close(solve(PDE, start, [50.0])[0], start, rtol=0, atol=1e-12)


def test_walls_between_phases_come_to_rest_as_hyperbolic_tangents() -> None:
    pde = CahnHilliard(length=40.0, resolution=64, step=0.5)
    y = pde.length * pde.coordinates()["y"]
    wall = torch.tanh((y - 10) / math.sqrt(2)) * torch.tanh((30 - y) / math.sqrt(2))
    start = wall[:, None].expand(64, 8)
    for frame in solve(pde, start, [5.0, 100.0]):
        torch.testing.assert_close(frame, start, rtol=0, atol=1e-4)


# --- what is conserved and what only falls -------------------------------------------------------


@pytest.mark.parametrize("step", [0.05, 0.25, 1.0, 2.5])
def test_the_energy_never_increases_at_any_step(step: float) -> None:
    pde = replace(PDE, step=step)
    start = replace(pde, spin_up=0.0).initial(0, "train", 0)["concentration"]
    count = min(round(60 / step), 120)
    energies = [energy(pde, c) for c in solve(pde, start, [step * i for i in range(count + 1)])]
    assert all(after <= before + 1e-14 for before, after in pairwise(energies))
    assert energies[-1] < energies[0] - 1e-3


def test_the_energy_never_increases_from_frame_to_frame() -> None:
    pde = CahnHilliard(spin_up=30.0, frames=10)
    state = pde.initial(1, "train", 0)["concentration"]
    energies = [energy(pde, c) for c in solve(pde, state, pde.times())]
    assert all(after < before for before, after in pairwise(energies))


def test_the_mean_is_conserved() -> None:
    start = PDE.initial(0, "train", 2)["concentration"]
    for frame in solve(PDE, start, [1.0, 30.0, 100.0]):
        assert float(frame.mean()) == pytest.approx(float(start.mean()), abs=1e-13)


def test_the_phases_may_be_exchanged() -> None:
    start = PDE.initial(0, "train", 0)["concentration"]
    torch.testing.assert_close(solve(PDE, -start, [8.0])[0], -solve(PDE, start, [8.0])[0], rtol=0, atol=1e-12)


def test_phases_separate() -> None:
    (end,) = solve(PDE, PDE.initial(0, "train", 0)["concentration"], [150.0])
    assert float(end.max()) > 0.9 and float(end.min()) < -0.9
    assert float(end.abs().max()) < 1.3


# --- accuracy ------------------------------------------------------------------------------------


def test_order_of_accuracy_in_time() -> None:
    """Four once step · 3c² k² is small for all modes; longer steps, still stable, are of third order."""
    start = PDE.initial(0, "train", 0)["concentration"]
    a, b, c = (solve(replace(PDE, step=step), start, [2.0])[0] for step in (0.01, 0.005, 0.0025))
    assert math.log2(float((a - b).norm() / (b - c).norm())) == pytest.approx(4, abs=0.2)


def test_the_default_step_is_accurate() -> None:
    start = PDE.initial(0, "train", 0)["concentration"]
    found, true = (solve(replace(PDE, step=step), start, [20.0])[0] for step in (PDE.step, PDE.step / 8))
    assert relative(found, true) < 5e-6


def test_solutions_converge_exponentially_in_space() -> None:
    pde = CahnHilliard(length=20.0, resolution=16)
    start = resample(pde.initial(0, "train", 0)["concentration"], 80)
    ends = [resample(solve(pde, resample(start, n), [5.0])[0], 80) for n in (16, 24, 36, 54, 80)]
    errors = [relative(end, ends[-1]) for end in ends[:-1]]
    assert all(fine < coarse / 5 for coarse, fine in pairwise(errors)) and errors[-1] < 1e-6


def test_a_field_that_varies_along_x_only_may_have_few_rows() -> None:
    start = PDE.initial(0, "train", 0)["concentration"][:1].expand(32, 32)
    whole, strip = (solve(PDE, field, [20.0])[0] for field in (start, start[:6]))
    torch.testing.assert_close(strip, whole[:6], rtol=0, atol=1e-11)


def test_nodes_may_be_shifted_but_not_uneven() -> None:
    start = PDE.initial(0, "train", 0)
    axes = {name: axis + 0.3 for name, axis in PDE.coordinates().items()}
    (shifted,), (found,) = PDE.solve(start, [2.0], axes), PDE.solve(start, [2.0])
    assert torch.equal(shifted["concentration"], found["concentration"])
    with pytest.raises(DataError, match="1/32 of the period"):
        next(iter(PDE.solve(start, [2.0], {**axes, "x": torch.linspace(0, 1, 32)})))


def test_the_random_states() -> None:
    pde = CahnHilliard(spin_up=0.0)
    fields = torch.stack([pde.initial(0, "train", i)["concentration"] for i in range(32)])
    means = fields.mean((-2, -1))
    assert float(fields.std((-2, -1)).mean()) == pytest.approx(0.05, abs=0.002)
    assert float(means.abs().max()) < 0.31 and float(means.std()) == pytest.approx(
        0.3 / math.sqrt(3), abs=0.05
    )
    for changes in ({"length": 0.0}, {"noise": -1.0}, {"step": 0.0}, {"resolution": 2}):
        with pytest.raises(UsageError):
            CahnHilliard(**changes)
