"""What every equation promises. A new PDE is one line in `SMALL`, and has no place to hide."""

import math
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

import pdeforecast.geometry.rotation as rotation
from pdeforecast.geometry.sphere import Sphere
from pdeforecast.pdes import (
    PDES,
    CahnHilliard,
    Convection,
    DiffusionPlane,
    DiffusionSphere,
    NavierStokes,
    ShallowWater,
)
from pdeforecast.pdes.base import PDE, State
from pdeforecast.solvers.ball import BallGrid, gauss_axes
from pdeforecast.solvers.jacobi import legendre_functions
from pdeforecast.solvers.sphere import Sphere as Harmonics
from pdeforecast.solvers.sphere import regular_axes
from pdeforecast.solvers.torus import resample, translate
from pdeforecast.trajectory import state_hash

SMALL: dict[str, PDE] = {
    "navier-stokes": NavierStokes(
        resolution=32, solver_resolution=32, spin_up=2.0, step=0.05, phase_x=0.07, phase_y=0.3
    ),
    "diffusion-plane": DiffusionPlane(resolution=16),
    "diffusion-sphere": DiffusionSphere(resolution=16),
    "shallow-water": ShallowWater(resolution=16, viscosity=1e17, start=0.2, step=0.1),
    "convection": Convection(resolution=8, modes=8, start=0.5, step=0.05),
    "cahn-hilliard": CahnHilliard(length=16.0, resolution=16, spin_up=4.0),
}
"""Each equation at a price that a test can pay."""

PSEUDOSCALARS = {
    "navier-stokes": {"vorticity", "forcing"},
    "convection": {"radial_vorticity"},
    "shallow-water": {"vorticity"},
}
"""What turns its sign in a mirror."""

Move = Callable[[Tensor], Tensor]


def quarter_turn(field: Tensor) -> Tensor:
    """(x, y) → (−y, x) about the node at the origin."""
    return field.rot90(1, (-1, -2)).roll(1, -1)


def mirror(field: Tensor) -> Tensor:
    """(x, y) → (−x, y)."""
    return field.flip(-1).roll(1, -1)


def turned_points(axes: dict[str, Tensor]) -> Tensor:
    """g⁻¹x of the nodes x of a grid, for a turn g about a slanted axis."""
    latitude, longitude = torch.meshgrid(axes["latitude"], axes["longitude"], indexing="ij")
    x = Sphere().embed(torch.stack([longitude, latitude], dim=-1).flatten(0, 1))
    return x @ rotation.matrix(rotation.exp(torch.tensor([0.4, -1.1, 0.8], dtype=torch.float64)))


def harmonics(degrees: int, x: Tensor) -> Tensor:
    """What gives the value at each point x from the coefficients of a real field, (points, l, m)."""
    waves = torch.polar(
        torch.ones(len(x), degrees).double(), torch.atan2(x[:, 1:2], x[:, :1]) * torch.arange(degrees)
    )
    values = torch.einsum("mpl,pm->plm", legendre_functions(degrees, x[:, 2])[0].to(waves.dtype), waves)
    values[..., 1:] *= 2
    return values


def turned_ball(field: Tensor) -> Tensor:
    """A field on the Gauss nodes of the ball, turned about a slanted axis: result(x) = field(g⁻¹x)."""
    n = field.shape[-2]
    axes, grid = gauss_axes(n), BallGrid(gauss_axes(n), n)
    spectra = torch.einsum("lrn,...lnm->...rlm", grid.radial.to(torch.complex128), grid.analysis(field))
    values = harmonics(n, turned_points(axes))
    return torch.einsum("plm,...rlm->...rp", values, spectra).real.unflatten(-1, (n, -1)).contiguous()


def turned_sphere(field: Tensor) -> Tensor:
    """A field at the centres of cells of the sphere, turned about a slanted axis."""
    n = field.shape[-2]
    axes = regular_axes(n)
    values, spectrum = harmonics(n, turned_points(axes)), Harmonics(axes).analysis(field)
    return torch.einsum("plm,...lm->...p", values, spectrum).real.unflatten(-1, (n, -1))


def turned_about_axis(field: Tensor, angle: float) -> Tensor:
    """A field on even longitudes, moved eastward by any angle."""
    waves = torch.fft.rfft(field)
    m = torch.arange(waves.shape[-1], dtype=field.dtype)
    return torch.fft.irfft(waves * torch.polar(torch.ones_like(m), -angle * m), n=field.shape[-1])


MOVES: dict[str, dict[str, Move]] = {
    "periodic_plane": {
        "shift by cells": lambda f: f.roll((5, -3), (-2, -1)),
        "shift by any length": lambda f: translate(f, 0.123, -0.377),
        "quarter turn": quarter_turn,
        "half turn": lambda f: quarter_turn(quarter_turn(f)),
        "mirror": mirror,
        "mirror and turn": lambda f: quarter_turn(mirror(f)),
    },
    "plane": {
        "turn by 90 degrees": lambda f: f.rot90(1, (-1, -2)),
        "mirror": lambda f: f.flip(-1),
        "mirror and turn": lambda f: f.transpose(-1, -2),
    },
    "sphere": {
        "turn by cells": lambda f: f.roll(3, -1),
        "turn about any axis": turned_sphere,
        "mirror": lambda f: f.flip(-2),
    },
    "rotating_sphere": {
        "turn by cells": lambda f: f.roll(3, -1),
        "turn by any angle": lambda f: turned_about_axis(f, 0.377),
        "mirror": lambda f: f.flip(-2),
    },
    "ball": {
        "turn by cells": lambda f: f.roll(3, -1),
        "turn about any axis": turned_ball,
        "mirror": lambda f: f.flip(-2),
    },
}
STEPPED = [name for name, pde in SMALL.items() if "step" in {field.name for field in fields(pde)}]
"""The equations whose solution is not exact in time."""
CASES = [(name, move) for name, pde in SMALL.items() for move in MOVES[pde.geometry]]


def smooth(pde: PDE, state: State) -> State:
    """The part that the grid resolves without aliasing, where a discrete shift is exact."""
    if pde.geometry != "periodic_plane":
        return state
    return {k: resample(resample(f, f.shape[-1] * 2 // 3 - 1), f.shape[-1]) for k, f in state.items()}


def final(pde: PDE, state: State, time: float = 1.0) -> dict[str, Tensor]:
    *_, last = pde.solve(state, [time])
    return {name: last[name] for name in pde.variables}


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equal, but for a part of the largest value: fields have units."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_every_equation_is_held_to_the_laws() -> None:
    assert set(SMALL) == set(PDES)


def test_the_moves_are_what_they_say() -> None:
    n = 12
    axis = torch.arange(n, dtype=torch.float64) / n
    y, x = torch.meshgrid(axis, axis, indexing="ij")

    def f(x: Tensor, y: Tensor) -> Tensor:
        return torch.sin(2 * math.pi * x) + torch.cos(2 * math.pi * (2 * y + x))

    torch.testing.assert_close(quarter_turn(f(x, y)), f(y, -x))
    torch.testing.assert_close(mirror(f(x, y)), f(-x, y))


@pytest.mark.parametrize(("name", "move"), CASES)
def test_solving_commutes_with_the_symmetries(name: str, move: str) -> None:
    pde = SMALL[name]
    state = smooth(pde, pde.initial(0, "train", 0))
    g = MOVES[pde.geometry][move]

    def moved(state: State) -> dict[str, Tensor]:
        mirrored = {"mirror", "mirror and turn"} & {move}
        return {k: -g(f) if mirrored and k in PSEUDOSCALARS.get(name, ()) else g(f) for k, f in state.items()}

    there, here = final(pde, moved(state)), moved(final(pde, state))
    for variable in pde.variables:
        close(there[variable], here[variable], 1e-10)


@pytest.mark.parametrize("name", STEPPED)
def test_order_of_accuracy_is_four(name: str) -> None:
    pde = SMALL[name]
    state = pde.initial(0, "train", 0)
    results = [final(replace(pde, step=step), state, 2.0) for step in (0.1, 0.05, 0.025)]
    for variable in pde.variables:
        a, b, c = (result[variable] for result in results)
        assert math.log2(float((a - b).norm() / (b - c).norm())) == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("name", SMALL)
def test_a_solution_continues(name: str) -> None:
    pde = SMALL[name]
    state = pde.initial(0, "train", 0)
    first, second = pde.solve(state, [0.5, 1.25])
    again = final(pde, {**state, **first}, 0.75)
    for variable in pde.variables:
        close(again[variable], second[variable], 1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_is_solved_as_its_samples_are(name: str) -> None:
    pde = SMALL[name]
    states = [pde.initial(0, "train", index) for index in range(2)]
    batch = {k: torch.stack([state[k] for state in states]) for k in states[0]}
    together = final(pde, batch)
    for index, state in enumerate(states):
        for variable, field in final(pde, state).items():
            close(together[variable][index], field, 1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_samples_depend_on_their_key_alone(name: str) -> None:
    pde = replace(SMALL[name], frames=1)

    def draw(seed: int, split: str, index: int) -> str:
        return state_hash(torch.stack([pde.initial(seed, split, index)[k] for k in pde.variables]))

    keys = [(seed, split, i) for seed in (0, 1) for split in ("train", "validation", "test") for i in (0, 1)]
    forward = {key: draw(*key) for key in keys}
    backward = {key: draw(*key) for key in reversed(keys)}
    assert forward == backward
    assert len(set(forward.values())) == len(keys)


@pytest.mark.parametrize("name", SMALL)
def test_fields_have_names_units_and_the_shape_of_the_grid(name: str) -> None:
    pde = SMALL[name]
    state = pde.initial(0, "train", 0)
    shape = tuple(len(axis) for axis in pde.coordinates().values())
    assert set(state) == {*pde.variables, *pde.statics} <= set(pde.units)
    for field in state.values():
        assert tuple(field.shape) == shape and field.dtype == torch.float64 and bool(field.isfinite().all())
