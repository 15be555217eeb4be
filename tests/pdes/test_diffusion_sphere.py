"""Heat on the sphere against its Legendre series, on several grids, and against independent codes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pdeforecast.errors import DataError
from pdeforecast.pdes import DiffusionSphere
from pdeforecast.pdes.diffusion_sphere import great_circle
from pdeforecast.solvers.jacobi import gauss_legendre
from pdeforecast.solvers.sphere import gauss_axes, regular_axes

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference"
TIMES = [0.0, 0.5, 5.0, 50.0, 95.0]


def legendre(degrees: int, x: Tensor) -> Tensor:
    """The Legendre polynomials P_l(x), l < degrees, along a new first dimension."""
    p = [torch.ones_like(x), x]
    for n in range(1, degrees - 1):
        p.append(((2 * n + 1) * x * p[-1] - n * p[-2]) / (n + 1))
    return torch.stack(p[:degrees])


def series(pde: DiffusionSphere, distance: Tensor, times: list[float]) -> Tensor:
    """Σ_l (l + ½) ∫ u₀ P_l d(cos d) · e^{−l(l+1)Dt} P_l(cos d)."""
    x, weights = gauss_legendre(400)
    ell = torch.arange(120, dtype=torch.float64)
    start = torch.exp(-(x.acos() ** 2) / (2 * pde.width**2))
    amplitudes = (ell + 0.5) * (legendre(120, x) @ (weights * start))
    decay = torch.exp(-pde.diffusivity * ell * (ell + 1) * torch.tensor(times).double()[:, None])
    return torch.einsum("tl,lij->tij", decay * amplitudes, legendre(120, distance.cos()))


def solve(pde: DiffusionSphere, start: Tensor, times: list[float], axes: dict[str, Tensor] | None) -> Tensor:
    return torch.stack([f["temperature"] for f in pde.solve({"temperature": start}, times, axes)])


OFFSET = {**regular_axes(64), "longitude": regular_axes(64)["longitude"] - 170.3}


@pytest.mark.parametrize("axes", [gauss_axes(64), regular_axes(64), regular_axes(51), OFFSET])
@pytest.mark.parametrize("centre", [(0.0, 0.0), (63.4, 201.0), (-90.0, 7.0)])
def test_a_spot_spreads_as_its_series_says(axes: dict[str, Tensor], centre: tuple[float, float]) -> None:
    pde = DiffusionSphere()
    start = pde.spot(*centre, axes)["temperature"]
    expected = series(pde, great_circle(*centre, axes), TIMES)
    torch.testing.assert_close(solve(pde, start, TIMES, axes), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("ell", "m"), [(1, 0), (3, 2), (9, 9)])
def test_a_harmonic_decays_at_its_rate(ell: int, m: int) -> None:
    """(cos φ)^m e^{imλ} P(sin φ) with e^{−l(l+1)Dt}."""
    pde = DiffusionSphere(resolution=16, diffusivity=0.03)
    axes = pde.coordinates()
    phi, east = axes["latitude"].deg2rad()[:, None], axes["longitude"].deg2rad()
    zonal = {(1, 0): phi.sin(), (3, 2): phi.sin() * phi.cos() ** 2, (9, 9): phi.cos() ** 9}[ell, m]
    start = zonal * torch.cos(m * east + 0.4)
    (found,) = solve(pde, start, [2.5], None)
    torch.testing.assert_close(found, math.exp(-0.03 * ell * (ell + 1) * 2.5) * start, rtol=0, atol=1e-13)


def test_the_mean_is_conserved() -> None:
    pde = DiffusionSphere()
    axes, weights = gauss_axes(64), gauss_legendre(64)[1][:, None]
    frames = solve(pde, pde.spot(30.0, 50.0, axes)["temperature"], TIMES, axes)
    means = (frames * weights).sum((-2, -1)) / 256
    torch.testing.assert_close(means, means[:1].expand(len(TIMES)), rtol=0, atol=1e-14)


def test_centres_are_uniform_on_the_sphere() -> None:
    pde = DiffusionSphere(resolution=32, width=0.15)
    axes = pde.coordinates()
    points = []
    for index in range(400):
        hottest = int(pde.initial(0, "train", index)["temperature"].argmax())
        phi, east = axes["latitude"][hottest // 64].deg2rad(), axes["longitude"][hottest % 64].deg2rad()
        points.append(torch.stack([phi.cos() * east.cos(), phi.cos() * east.sin(), phi.sin()]))
    x = torch.stack(points)
    assert float(x.mean(0).abs().max()) < 0.12
    torch.testing.assert_close(x.mT @ x / 400, torch.eye(3).double() / 3, rtol=0, atol=0.08)


def test_nodes_that_say_too_little_are_refused() -> None:
    axes = regular_axes(32)
    with pytest.raises(DataError):
        solve(DiffusionSphere(), torch.zeros(32, 64), [1.0], {**axes, "latitude": 0.1 * axes["latitude"]})
    with pytest.raises(DataError):
        solve(DiffusionSphere(), torch.zeros(32, 64), [1.0], {**axes, "longitude": 0.5 * axes["longitude"]})


def test_reference() -> None:
    path = REFERENCE / "diffusion_sphere.npz"
    if not path.is_file():
        pytest.skip(f"the reference solution {path.name} is not beside this repository")
    with np.load(path) as file:
        data = {key: torch.tensor(file[key]).double() for key in file.files if file[key].dtype.kind == "f"}
    axes = {"latitude": 90 - data["theta"].rad2deg(), "longitude": data["phi"].rad2deg()}
    weights = gauss_legendre(64)[1][:, None]

    def error(found: Tensor, true: Tensor) -> float:
        return (
            float((((found - true) ** 2 * weights).sum((-2, -1)) / (true**2 * weights).sum((-2, -1))).max())
            ** 0.5
        )

    pde = DiffusionSphere()
    for i, (_, longitude, colatitude) in enumerate(data["seed_phi0_theta0"].rad2deg().tolist()):
        start = pde.spot(90 - colatitude, longitude, axes)["temperature"]
        found = solve(pde, start, data["t"].tolist(), axes)
        assert error(found, data["h_exact"][i].mT) <= 1e-6
        if i < len(data["h_dedalus_peer"]):
            assert error(found, data["h_dedalus_peer"][i].mT) <= 5e-4
