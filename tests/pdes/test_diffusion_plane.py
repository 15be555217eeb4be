"""Heat in a square against its closed form, against what it conserves, and against an independent code."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pdeforecast.errors import DataError, UsageError
from pdeforecast.pdes import DiffusionPlane

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference" / "diffusion_plane.npz"
PDE = DiffusionPlane()


def lead_times(pde: DiffusionPlane) -> list[float]:
    return [time - pde.start for time in pde.times()]


def solve(pde: DiffusionPlane, start: Tensor, times: list[float], *axes: Tensor) -> list[Tensor]:
    nodes = dict(zip(("y", "x"), axes, strict=True)) if axes else None
    return [frame["temperature"] for frame in pde.solve({"temperature": start}, times, nodes)]


def test_frames_are_those_of_the_experiment() -> None:
    assert PDE.times() == [3.5 + 0.5 * i for i in range(20)] and PDE.times()[-1] == 13.0


@pytest.mark.parametrize(("x0", "y0"), [(0.0, 0.0), (-1.3, 0.4), (2.0, 2.0), (2.9, -2.9)])
def test_a_point_source_between_mirrors(x0: float, y0: float) -> None:
    frames = solve(PDE, PDE.source(5.2, x0, y0, PDE.start), lead_times(PDE))
    for time, found in zip(PDE.times(), frames, strict=True):
        torch.testing.assert_close(found, PDE.source(5.2, x0, y0, time), rtol=0, atol=1e-12)


def cosines(nodes: Tensor, place: float, time: float) -> Tensor:
    """One axis by another route: Σ cos k(x+3) cos k(x0+3) e^{−Dk²t} (2 − [k = 0])/6, k = πj/6."""
    k = math.pi / 6 * torch.arange(60, dtype=torch.float64)
    size = (2 - (k == 0).double()) / 6 * torch.exp(-PDE.diffusivity * k**2 * time)
    return (torch.cos(k * (nodes[:, None] + 3)) * torch.cos(k * (place + 3)) * size).sum(-1)


def test_images_agree_with_the_series_of_cosines() -> None:
    x = PDE.coordinates()["x"]
    expected = 2 * cosines(x, 0.7, 3.5)[:, None] * cosines(x, -1.1, 3.5)
    torch.testing.assert_close(PDE.source(2.0, -1.1, 0.7, 3.5), expected, rtol=0, atol=1e-13)


def test_mass_is_conserved_and_spreads_evenly() -> None:
    start = PDE.initial(0, "train", 0)["temperature"]
    for frame in solve(PDE, start, [0.0, 0.3, 9.5, 1e4]):
        assert float(frame.mean()) == pytest.approx(float(start.mean()), abs=1e-13)
    torch.testing.assert_close(frame, start.mean().expand_as(start), rtol=0, atol=1e-12)
    assert 5 <= 36 * float(start.mean()) <= 5.5


def test_heat_never_falls_below_nor_rises_above_what_it_was() -> None:
    frames = [PDE.initial(0, "train", 3)["temperature"]]
    frames += solve(PDE, frames[0], lead_times(PDE))
    for before, after in pairwise(frames):
        assert before.min() - 1e-14 <= after.min() and after.max() <= before.max() + 1e-14


def test_a_wave_between_the_walls_decays() -> None:
    pde = DiffusionPlane(resolution=12, diffusivity=0.2)
    y, x = torch.meshgrid(*pde.coordinates().values(), indexing="ij")
    k, m = 2 * math.pi / 6, 5 * math.pi / 6
    wave = torch.cos(k * (x + 3)) * torch.cos(m * (y + 3))
    (found,) = solve(pde, wave, [0.7])
    torch.testing.assert_close(found, math.exp(-0.14 * (k**2 + m**2)) * wave, rtol=0, atol=1e-14)


def test_solutions_converge_exponentially_in_space() -> None:
    """Errors fall as e^{−(πn/6)² Dt} of n points per axis."""
    errors = []
    for n in (12, 24, 36, 48):
        pde = DiffusionPlane(resolution=n)
        (found,) = solve(pde, pde.source(1.0, 0.4, -0.9, 0.5), [0.2])
        errors.append(float((found - pde.source(1.0, 0.4, -0.9, 0.7)).abs().max()))
    assert errors[1] < errors[0] / 30 and errors[2] < errors[1] / 1e3 and errors[3] < 1e-11


def test_grids_of_any_size_with_and_without_the_walls() -> None:
    """Rectangles of cells, nodes from wall to wall, and descending ones."""
    cells = DiffusionPlane(resolution=40).coordinates()["y"]
    walls = torch.linspace(-3, 3, 33, dtype=torch.float64)
    for y, x in (
        (cells, cells[::2] + 0.075),
        (cells, walls),
        (walls, cells),
        (walls, walls),
        (-cells, walls),
    ):
        start, end = (cosines(y, -1.0, time)[:, None] * cosines(x, 0.5, time) for time in (3.5, 5.5))
        (found,) = solve(PDE, start, [2.0], y, x)
        torch.testing.assert_close(found, end, rtol=0, atol=1e-12)
    with pytest.raises(DataError):
        solve(PDE, end, [2.0], y, x + 0.1)


@pytest.mark.parametrize(("split", "sign"), [("train", 1), ("validation", 1), ("test", -1)])
def test_the_test_has_the_mirrored_half(split: str, sign: int) -> None:
    pde = replace(PDE, resolution=16, start=0.5)
    x, y = pde.coordinates()["x"], pde.coordinates()["y"][:, None]
    places = []
    for index in range(64):
        field = pde.initial(0, split, index)["temperature"]
        places.append([float((field * axis).sum() / field.sum()) for axis in (x, y)])
    centres = torch.tensor(places)
    assert bool((sign * centres[:, 1] > -1e-3).all()) and bool((centres.abs() < 2.1).all())
    assert float(centres[:, 0].mean()) == pytest.approx(0, abs=0.4)
    assert float(centres[:, 1].mean()) == pytest.approx(sign, abs=0.2)


def test_sources_stay_between_the_walls() -> None:
    for changes in ({"x_most": 3.5}, {"y_most": 4.0}, {"y_least": 2.5}, {"start": 0.0}, {"mass_most": 4.0}):
        with pytest.raises(UsageError):
            DiffusionPlane(**changes)


# --- against an independent code -----------------------------------------------------------------


def test_reference() -> None:
    if not REFERENCE.is_file():
        pytest.skip("the reference solution diffusion_plane.npz is not beside this repository")
    with np.load(REFERENCE) as file:
        data = {name: file[name] for name in ("t", "x", "u_exact", "u_pypde", "seed_x_y_value")}
    pde = replace(PDE, frames=len(data["t"]))
    np.testing.assert_allclose(pde.times(), data["t"])
    np.testing.assert_allclose(pde.coordinates()["x"].numpy(), data["x"])
    for (_, x0, y0, mass), exact in zip(data["seed_x_y_value"], data["u_exact"], strict=True):
        truth = torch.tensor(exact, dtype=torch.float64).mT  # their axes are (x, y), ours (y, x)
        for time, frame in zip(pde.times(), truth, strict=True):
            found = pde.source(float(mass), float(x0), float(y0), time)
            assert float((found - frame).norm() / frame.norm()) <= 5e-3
        for found, frame in zip(solve(pde, truth[0], lead_times(pde)), truth, strict=True):
            assert float((found - frame).norm() / frame.norm()) <= 5e-3
