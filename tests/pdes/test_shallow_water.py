"""Shallow water against exact solutions, against what it conserves, and against an independent code."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pdeforecast.errors import DataError, UsageError
from pdeforecast.pdes import ShallowWater
from pdeforecast.pdes.base import State
from pdeforecast.solvers.jacobi import gauss_legendre
from pdeforecast.solvers.sphere import Sphere, gauss_axes, regular_axes, resize

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference"
N = 24
SMALL = ShallowWater(resolution=N, viscosity=0.0, start=1.0)


def nodes(axes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Latitudes and longitudes in radians."""
    return axes["latitude"].deg2rad()[:, None], axes["longitude"].deg2rad()


def mean(field: Tensor) -> Tensor:
    """Over the sphere, from Gauss latitudes."""
    return (field * gauss_legendre(field.shape[-2])[1][:, None]).sum((-2, -1)) / (2 * field.shape[-1])


def relative(found: Tensor, true: Tensor) -> float:
    return float((mean((found - true) ** 2) / mean(true**2)).sqrt())


def last(pde: ShallowWater, state: State, time: float, axes: dict[str, Tensor] | None = None) -> State:
    *_, found = pde.solve(state, [time], axes)
    return found


def energy(pde: ShallowWater, state: State, axes: dict[str, Tensor]) -> Tensor:
    """½⟨(H + h)|u|² + g h²⟩, from Gauss latitudes."""
    sphere = Sphere(axes, radius=pde.radius)
    u, v = sphere.winds(*(sphere.analysis(state[name]) for name in ("vorticity", "divergence")))
    return 0.5 * mean((pde.depth + state["height"]) * (u * u + v * v) + pde.gravity * state["height"] ** 2)


# --- exact solutions -----------------------------------------------------------------------------


def test_a_steady_zonal_flow_stays() -> None:
    """Williamson's second case: u = u₀ cos φ, g h = −(R Ω u₀ + u₀²/2) sin² φ, for two days."""
    phi, east = nodes(SMALL.coordinates())
    speed, rest = 2 * math.pi * SMALL.radius / (12 * 86400), 0 * phi * east
    height = (
        -(SMALL.radius * SMALL.rotation * speed + speed**2 / 2) / SMALL.gravity * (phi.sin() ** 2 - 1 / 3)
    )
    start = {
        "height": height + rest,
        "vorticity": 2 * speed / SMALL.radius * phi.sin() + rest,
        "divergence": rest,
    }
    found = last(replace(SMALL, step=0.5), start, 48.0)
    for name, size in (("height", 1e3), ("vorticity", 1e-5)):
        torch.testing.assert_close(found[name], start[name], rtol=0, atol=1e-10 * size)
    assert float(found["divergence"].abs().max()) < 1e-17


def test_without_rotation_a_tilted_flow_stays() -> None:
    """The same about an axis through 20° N 50° E, on a planet that does not rotate."""
    pde = replace(SMALL, rotation=0.0, step=0.5)
    phi, east = nodes(pde.coordinates())
    a, b = math.radians(20), math.radians(50)
    along = math.sin(a) * phi.sin() + math.cos(a) * phi.cos() * (east - b).cos()
    speed = 40.0
    start = {
        "height": -(speed**2) / 2 / pde.gravity * (along**2 - 1 / 3),
        "vorticity": 2 * speed / pde.radius * along,
        "divergence": torch.zeros_like(along),
    }
    found = last(pde, start, 24.0)
    for name, size in (("height", 1e2), ("vorticity", 1e-5)):
        torch.testing.assert_close(found[name], start[name], rtol=0, atol=1e-10 * size)


@pytest.mark.parametrize("ell", [1, 2, 5])
def test_small_gravity_waves_oscillate(ell: int) -> None:
    """h ∝ cos ωt with ω² = gH l(l+1)/R², on a planet that does not rotate."""
    pde = replace(SMALL, rotation=0.0)
    phi, east = nodes(pde.coordinates())
    start = 1e-6 * phi.cos() ** ell * (ell * east).cos()
    rest = torch.zeros_like(start)
    found = last(pde, {"height": start, "vorticity": rest, "divergence": rest}, 7.3)
    omega = math.sqrt(pde.gravity * pde.depth * ell * (ell + 1)) / pde.radius
    expected = start * math.cos(omega * 7.3 * 3600)
    torch.testing.assert_close(found["height"], expected, rtol=0, atol=1e-15)
    rising = start * omega * math.sin(omega * 7.3 * 3600) / pde.depth
    torch.testing.assert_close(found["divergence"], rising, rtol=0, atol=1e-23)


def test_hyperdiffusion_is_exact() -> None:
    """Vorticity decays as e^{−ν(l(l+1) − 1)²t/R⁴}; rest otherwise, hence so small."""
    pde = replace(SMALL, rotation=0.0, viscosity=1e20)
    phi, east = nodes(pde.coordinates())
    start = 1e-14 * phi.cos() ** 3 * (3 * east).cos()
    found = last(pde, {"height": 0 * start, "vorticity": start, "divergence": 0 * start}, 10.0)
    decay = math.exp(-1e20 * (11 / pde.radius**2) ** 2 * 36000)
    torch.testing.assert_close(found["vorticity"], decay * start, rtol=0, atol=1e-24)


def test_a_rossby_haurwitz_wave_travels() -> None:
    """In water so deep that it cannot diverge, the wave keeps its shape and turns at a known rate.

    ψ = −R²ω sin φ + R²K cos⁴φ sin φ cos 4λ is carried eastward at ω − 2(Ω + ω)/(l(l+1)), l = 5.
    """
    pde = replace(SMALL, depth=1e8, step=1 / 6)
    phi, east = nodes(pde.coordinates())
    omega = strength = 2e-6

    def vorticity(turned: float) -> Tensor:
        wave = phi.cos() ** 4 * phi.sin() * (4 * (east - turned)).cos()
        return 2 * omega * phi.sin() - 30 * strength * wave

    rest = torch.zeros_like(vorticity(0.0))
    height = balanced(pde, vorticity(0.0))
    found = last(pde, {"height": height, "vorticity": vorticity(0.0), "divergence": rest}, 24.0)
    rate = omega - 2 * (pde.rotation + omega) / 30
    error = (found["vorticity"] - vorticity(rate * 86400)).norm() / vorticity(0.0).norm()
    assert float(error) < 2e-3
    assert float((vorticity(rate * 86400) - vorticity(0.0)).norm() / vorticity(0.0).norm()) > 0.3


def balanced(pde: ShallowWater, vorticity: Tensor) -> Tensor:
    """The height that keeps divergence from growing: g∇²h = k·∇×((ζ + f)u) − ∇²|u|²/2."""
    axes = gauss_axes(3 * vorticity.shape[-2] // 2)
    sphere = Sphere(axes, radius=pde.radius)
    small = Sphere(pde.coordinates(), radius=pde.radius)
    c = resize(small.analysis(vorticity), sphere.degrees)
    u, v = sphere.winds(c, 0 * c)
    absolute = sphere.synthesis(c) + 2 * pde.rotation * nodes(axes)[0].sin()
    curl = sphere.curl_and_divergence(absolute * u, absolute * v)[0]
    height = (sphere.inverse_laplacian(curl) - sphere.analysis(0.5 * (u * u + v * v))) / pde.gravity
    height[..., 0, 0] = 0
    return small.synthesis(resize(height, small.degrees))


def test_the_jet_is_balanced() -> None:
    """Its vorticity is that of the wind as declared, its height what the wind asks for; all to 95 degrees."""
    pde = ShallowWater()
    state = pde.jet_with_bump(0.0, 1 / 3, 1 / 15, 0.0)
    sphere = Sphere(pde.coordinates(), radius=pde.radius)
    c = sphere.analysis(torch.stack([state["vorticity"], state["height"]]))
    u, v = sphere.winds(c[0], 0 * c[0])
    south, north = math.pi / 7, math.pi / 2 - math.pi / 7
    phi = nodes(pde.coordinates())[0].clamp(south + 1e-6, north - 1e-6)
    jet = 80 * torch.exp(1 / ((phi - south) * (phi - north)) + 4 / (north - south) ** 2)
    torch.testing.assert_close(u, jet.expand_as(u), rtol=0, atol=3e-3)
    torch.testing.assert_close(state["height"], balanced(pde, state["vorticity"]), rtol=0, atol=3e-3)
    assert float(v.abs().max()) < 1e-12 and abs(float(sphere.mean(c[1]))) < 1e-4


# --- what is conserved ---------------------------------------------------------------------------


def eddies(axes: dict[str, Tensor]) -> State:
    """A flow that is neither steady nor balanced."""
    phi, east = nodes(axes)
    return {
        "height": 100 * phi.sin() * phi.cos() ** 2 * (2 * east).cos() - 30 * phi.cos() * east.sin(),
        "vorticity": 3e-5 * phi.sin() + 2e-5 * phi.cos() ** 3 * (3 * east + 0.3).cos(),
        "divergence": 1e-6 * phi.cos() * (east - 1).cos(),
    }


def test_mass_is_conserved() -> None:
    axes = gauss_axes(N)
    start = eddies(axes)
    start = {**start, "height": start["height"] + 5}
    found = last(replace(SMALL, viscosity=1e16, step=1 / 3), start, 48.0, axes)
    assert float(mean(found["height"])) == pytest.approx(5, abs=1e-11)
    assert abs(float(mean(found["vorticity"]))) < 1e-19
    assert float((found["height"] - start["height"]).abs().max()) > 10


def test_energy_is_conserved_without_viscosity() -> None:
    axes = gauss_axes(N)
    pde = replace(SMALL, step=1 / 12)
    start = eddies(axes)
    before, after = (energy(pde, state, axes) for state in (start, last(pde, start, 24.0, axes)))
    assert float(after / before) == pytest.approx(1, abs=1e-6)


# --- states and grids ----------------------------------------------------------------------------


def test_gauss_nodes_and_cell_centres_hold_the_same_solution() -> None:
    gauss, cells = gauss_axes(N), regular_axes(N)
    there, here = last(SMALL, eddies(gauss), 5.0, gauss), last(SMALL, eddies(cells), 5.0, cells)
    for name, field in here.items():
        shown = Sphere(gauss).synthesis(Sphere(cells).analysis(field))
        size = float(field.abs().max())
        torch.testing.assert_close(there[name], shown, rtol=0, atol=1e-10 * size)
    with pytest.raises(DataError):
        last(SMALL, eddies(cells), 1.0, {**cells, "longitude": 0.5 * cells["longitude"]})


def test_frames_are_block_means_at_their_own_centres() -> None:
    fine, coarse = (
        ShallowWater(resolution=16, viscosity=1e17, start=0.5, coarsen=by, frames=2, interval=0.5)
        for by in (1, 2)
    )
    state = coarse.initial(0, "test", 1)
    assert torch.equal(state["height"], fine.initial(0, "test", 1)["height"])
    for mine, theirs in zip(coarse.solve(state, [0.0, 0.5]), fine.solve(state, [0.0, 0.5]), strict=True):
        for name, field in mine.items():
            assert field.shape == (8, 16)
            torch.testing.assert_close(field[3, 5], theirs[name][6:8, 10:12].mean())
    axes, centres = fine.coordinates(), coarse.coordinates()
    torch.testing.assert_close(centres["latitude"], regular_axes(8)["latitude"])
    torch.testing.assert_close(centres["longitude"][5], axes["longitude"][10:12].mean())


def test_a_stored_coarse_state_is_solved_on_its_own_grid() -> None:
    pde = ShallowWater(resolution=2 * N, coarsen=2, viscosity=0.0)
    axes = pde.coordinates()
    start = eddies(axes)
    found, again = last(pde, start, 5.0), last(pde, start, 5.0, axes)
    expected = last(replace(SMALL, resolution=2 * N), eddies(regular_axes(2 * N)), 5.0)
    sphere = Sphere(regular_axes(2 * N))
    shown = Sphere(axes).synthesis(resize(sphere.analysis(expected["vorticity"]), N))
    assert torch.equal(found["vorticity"], again["vorticity"]) and found["height"].shape == (N, 2 * N)
    assert float((found["vorticity"] - shown).norm() / shown.norm()) < 1e-4


def test_a_step_on_which_the_wind_is_unstable_is_halved() -> None:
    """A jet of 80 m/s on 24 latitudes is stable to about two hours; eight are asked for."""
    pde = ShallowWater(resolution=N, viscosity=1e17, step=8.0)
    start = pde.jet_with_bump(120.0, 1 / 3, 1 / 15, 0.0)
    long, short = last(pde, start, 24.0), last(replace(pde, step=1 / 6), start, 24.0)
    error = (long["vorticity"] - short["vorticity"]).norm() / short["vorticity"].norm()
    assert float(error) < 0.05


def test_the_distribution_of_the_bump() -> None:
    """Its height, widths and longitude are as wide as declared, and it has no seam."""
    pde = ShallowWater(resolution=96)
    axes = pde.coordinates()
    row = int((axes["latitude"] - 45).abs().argmin())
    for east in (0.0, 119.0, 359.0):
        bump = (
            pde.jet_with_bump(120.0, 1 / 3, 1 / 15, east)["height"] - pde.jet_with_bump(0, 1, 1, 0)["height"]
        )
        peak = int(bump[row].argmax())
        assert abs((float(axes["longitude"][peak]) - east + 180) % 360 - 180) < 1
        assert float(bump.max()) == pytest.approx(120 * math.cos(math.pi / 4), rel=0.05)
        turned = bump[row].roll(96 - peak)
        torch.testing.assert_close(turned[60:96], turned[97:133].flip(0), rtol=0, atol=8.0)


def test_parameters_that_no_solver_could_use_are_refused() -> None:
    with pytest.raises(UsageError, match="divides resolution"):
        ShallowWater(resolution=96, coarsen=5)
    with pytest.raises(UsageError):
        ShallowWater(depth=0.0)


def test_frames_begin_after_a_hundred_hours() -> None:
    times = ShallowWater().times()
    assert times[0] == 100 and times[-1] == pytest.approx(316 + 2 / 3) and len(times) == 14


# --- against an independent code -----------------------------------------------------------------


def reference(name: str) -> dict[str, Tensor]:
    path = REFERENCE / name
    if not path.is_file():
        pytest.skip(f"the reference solution {name} is not beside this repository")
    with np.load(path) as file:
        return {key: torch.tensor(file[key]).double() for key in file.files if file[key].dtype.kind == "f"}


def errors(name: str, hours: list[float], step: float) -> Iterator[tuple[float, dict[str, float]]]:
    """Relative errors of h, ζ and the wind; theirs are (longitude, descending colatitude), v southward."""
    data = reference(name)
    axes = {"latitude": 90 - data["theta"].rad2deg(), "longitude": data["phi"].rad2deg()}
    pde = ShallowWater(resolution=len(data["theta"]), step=step)
    sphere = Sphere(axes, radius=pde.radius)
    height, u, v = (
        data["h"].mT.contiguous(),
        data["u"][:, 0].mT.contiguous(),
        -data["u"][:, 1].mT.contiguous(),
    )
    vorticity, divergence = sphere.curl_and_divergence(u[0], v[0])
    start = {"vorticity": sphere.synthesis(vorticity), "divergence": sphere.synthesis(divergence)}
    for hour, frame in zip(hours, pde.solve({"height": height[0], **start}, hours, axes), strict=True):
        at = int((data["t"] / 3600 - hour).abs().argmin())
        wind = sphere.winds(*(sphere.analysis(frame[name]) for name in ("vorticity", "divergence")))
        yield (
            hour,
            {
                "height": relative(frame["height"], height[at]),
                "vorticity": relative(frame["vorticity"], data["vort"][at].mT),
                "wind": relative(torch.cat(wind, dim=-1), torch.cat([u[at], v[at]], dim=-1)),
            },
        )


def test_reference_after_17_hours() -> None:
    ((_, found),) = errors("shallow_water_96x48.npz", [50 / 3], 1 / 3)
    assert max(found.values()) <= 3e-3
    ((_, found),) = errors("shallow_water_192x96.npz", [50 / 3], 1 / 2)
    assert found["vorticity"] <= 5e-4 and found["height"] <= 3e-3 and found["wind"] <= 3e-3


@pytest.mark.slow
def test_reference_at_48() -> None:
    """Its 48 degrees are too few after 60 hours."""
    for hour, found in errors("shallow_water_96x48.npz", [100 / 3, 50.0], 0.25):
        print(f"{hour:.1f} h: " + ", ".join(f"{name} {error:.1e}" for name, error in found.items()))
        assert max(found.values()) <= 1e-2


@pytest.mark.slow
def test_reference_at_96() -> None:
    for hour, found in errors("shallow_water_192x96.npz", [50 / 3, 100.0, 500 / 3], 0.25):
        print(f"{hour:.1f} h: " + ", ".join(f"{name} {error:.1e}" for name, error in found.items()))
        assert found["vorticity"] <= (5e-4 if hour < 20 else 1e-3 if hour <= 100 else 3e-3)
        assert found["height"] <= 3e-3 and found["wind"] <= 3e-3
