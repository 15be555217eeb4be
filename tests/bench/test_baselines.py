"""Every baseline keeps the contract on every space it serves; kriging and symmetries keep their laws."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Generator, Tensor

from pdeforecast.bench import methods, training
from pdeforecast.bench.contract import layout_of
from pdeforecast.bench.harmonics import harmonics, resample
from pdeforecast.bench.kriging import NUGGET, Filling, learn
from pdeforecast.bench.methods import KINDS, Method, kinds_on
from pdeforecast.bench.simple import Interpolated
from pdeforecast.bench.spherical import SphericalOperator, SphericalSettings
from pdeforecast.errors import CheckpointError, DataError, DivergedError, UsageError
from pdeforecast.geometry import GEOMETRIES, SPACES, Geometry
from pdeforecast.metrics import relative_l2
from pdeforecast.pdes import PDE, DiffusionPlane, DiffusionSphere, NavierStokes
from pdeforecast.solvers.sphere import gauss_axes
from pdeforecast.trajectory import default_axes, grid_points, to_dataset

TIMES = [0.0, 0.5, 1.0, 1.5]
SIZES = {"y": 12, "x": 12, "latitude": 8, "longitude": 16, "radius": 6}
OURS = KINDS[:3]
needs_library = pytest.mark.skipif(
    importlib.util.find_spec("neuralop") is None, reason="the library neuraloperator is not installed"
)
SMALL = {
    "fno": {"modes": 4, "width": 4, "layers": 2, "batch": 4},
    "spherical": {"degrees": 6, "width": 4, "layers": 2, "batch": 4},
    "functa": {"width": 16, "code": 8, "layers": 2, "points": 48, "batch": 2, "dynamics": 16},
}


def grid(space: Geometry) -> dict[str, Tensor]:
    sizes = {name: SIZES[name] for name in reversed(space.coordinates)}
    return {name: torch.as_tensor(axis) for name, axis in default_axes(space, sizes).items()}


def trajectories(space: Geometry, samples: int = 6, seed: int = 0) -> xr.Dataset:
    """Smooth fields of two variables that decay, beside a static one, on a small grid of the space."""
    axes = grid(space)
    seen = space.relative(grid_points(space, axes)[:, None], space.lattice(4)).flatten(1)
    waves = torch.cat([seen, seen**2], dim=-1)
    draw = Generator().manual_seed(seed)
    mix = torch.randn(2, samples, waves.shape[1], generator=draw, dtype=torch.float64)
    start = mix @ waves.T / waves.std()
    values = torch.stack([start * np.exp(-t) for t in TIMES], dim=2).movedim(0, -1)
    shape = [len(axis) for axis in axes.values()]
    ds = to_dataset(values.unflatten(2, shape).float(), space, {"u": "1", "v": "K"}, axes, TIMES, "time")
    return ds.assign(hill=(tuple(axes), waves[:, 0].view(shape).float().numpy()))


def small(kind: str, **others: object) -> dict[str, object]:
    return {**SMALL.get(kind, SMALL["functa"]), **others}


def variants(space: Geometry) -> list[object]:
    marks = {"fno": [needs_library]}
    return [
        pytest.param(space, kind, id=f"{kind}-{space.name}", marks=marks.get(kind, [])) for kind in own(space)
    ]


def own(space: Geometry) -> Sequence[str]:
    """The kinds that are trained here, without this package's models, which have tests of their own."""
    return [kind for kind in kinds_on(space) if kind not in OURS]


def gaps(state: xr.Dataset, share: float = 0.6) -> xr.Dataset:
    draw = np.random.default_rng(0)
    keep = xr.DataArray(draw.random(state.u.shape) < share, dims=state.u.dims)
    return state.assign(u=state.u.where(keep), v=state.v.where(keep))


def loose(state: xr.Dataset, space: Geometry) -> xr.Dataset:
    dims = space.coordinates[::-1]
    sensors = state[["u", "v"]].stack(point=dims).reset_index("point").isel(point=slice(None, None, 2))
    return sensors.assign(hill=state.hill.variable)


def keeps_the_contract(method: Method, ds: xr.Dataset, space: Geometry) -> None:
    state = ds.isel(time=0).assign_coords(sample=np.arange(6) + 3)
    dims = space.coordinates[::-1]
    whole = method.forecast(state, [0.0, 0.5, 0.8, 1.5])
    assert whole.u.dims == ("sample", "lead_time", *dims) and list(whole.data_vars) == ["u", "v"]
    assert whole.lead_time.values.tolist() == [0.0, 0.5, 0.8, 1.5]
    assert whole.sample.values.tolist() == [3, 4, 5, 6, 7, 8] and whole.v.attrs["units"] == "K"
    assert whole.attrs["geometry"] == space.domain and whole.attrs["model"] == method.name
    assert whole.attrs["start_time"] == 0.0
    for name in dims:
        np.testing.assert_array_equal(whole[name], state[name])
    sizes = {name: 5 + i for i, name in enumerate(dims)}
    other = method.forecast(gaps(state), [0.7], grid=sizes)
    assert dict(other.sizes) == {"sample": 6, "lead_time": 1, **sizes}
    sensors = loose(state, space)
    there = method.forecast(sensors, [1.0, 0.25])
    assert there.u.dims == ("sample", "lead_time", "point")
    turned = method.forecast(sensors.isel(sample=0), [1.0], like=state.isel({dims[0]: slice(None, None, -1)}))
    assert turned[dims[0]].values.tolist() == state[dims[0]].values[::-1].tolist()
    for answer in (whole, other, there, turned):
        assert bool(np.isfinite(answer.u).all() and np.isfinite(answer.v).all())
    again = method.forecast(state, [0.8], like=sensors)
    chosen = whole.sel(lead_time=[0.8]).stack(point=dims).isel(point=slice(None, None, 2))
    np.testing.assert_allclose(again.u, chosen.u, atol=2e-4)


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_untrained_methods_keep_the_contract(space: Geometry) -> None:
    ds = trajectories(space)
    found = methods.untrained(ds)
    assert list(found) == ["persistence", "climatology"]
    for method in (*found.values(), Interpolated(layout_of(ds), found["persistence"])):
        keeps_the_contract(method, ds, space)


@pytest.mark.parametrize(("space", "kind"), [v for space in SPACES for v in variants(space)])
def test_trained_methods_keep_the_contract(space: Geometry, kind: str, tmp_path: Path) -> None:
    ds = trajectories(space)
    settings = small(kind, steps=2, **({"search_steps": 3} if kind not in ("fno", "spherical") else {}))
    reports = list(methods.fit(kind, ds, tmp_path / kind, 0, settings=settings))
    assert [report.step for report in reports] == [1, 2]
    keeps_the_contract(methods.load(tmp_path / kind), ds, space)


TORUS, SPHERE = GEOMETRIES["periodic_plane"], GEOMETRIES["sphere"]
LEARNED = [
    pytest.param(TORUS, "fno", marks=needs_library),
    (SPHERE, "spherical"),
    (TORUS, "dino"),
    (SPHERE, "functa"),
    (SPHERE, "functa-local"),
]


@pytest.mark.parametrize(("space", "kind"), LEARNED)
def test_the_loss_falls(space: Geometry, kind: str, tmp_path: Path) -> None:
    """On the same twenty batches, one frame ahead, before and after forty steps."""
    ds = trajectories(space)
    family = methods.FAMILIES[kind]
    layout = layout_of(ds)
    data = family.data(ds, layout, "cpu")
    after = {}
    for steps in (1, 40):
        settings = small(kind, steps=steps, width=16, batch=8, rate=1e-2)
        list(methods.fit(kind, ds, tmp_path / str(steps), 0, settings=settings))
        method = methods.load(tmp_path / str(steps))
        learner = getattr(method, "stepper", None) or method.learner  # type: ignore[attr-defined]
        draws = [Generator().manual_seed(i) for i in range(20)]
        after[steps] = np.mean([float(learner.loss(data, draw, 0.0).detach()) for draw in draws])
    assert after[40] < (0.7 if kind in ("fno", "spherical") else 0.9) * after[1], after


@pytest.mark.parametrize(("space", "kind"), LEARNED)
def test_a_resumed_run_is_the_uninterrupted_one(
    space: Geometry, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds, settings = trajectories(space), small(kind, steps=6)
    whole = list(methods.fit(kind, ds, tmp_path / "whole", 0, settings=settings))
    monkeypatch.setattr(training, "_SAVE_EVERY", 0.0)
    parts = []
    for stop in (1, 3, 9):
        torch.rand(3)
        for report in methods.fit(kind, ds, tmp_path / "parts", 0, settings=settings):
            parts.append(report)
            if len(parts) == stop:
                break
    assert [report.loss for report in parts] == [report.loss for report in whole]
    one, other = (training.stored(tmp_path / name)[1] for name in ("whole", "parts"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert list(methods.fit(kind, ds, tmp_path / "parts", 0, settings=settings)) == []


def test_a_budget_is_kept(tmp_path: Path) -> None:
    reports = list(methods.fit("functa", trajectories(TORUS), tmp_path, 1, settings=small("functa")))
    assert reports[-1].step == reports[-1].steps > 10 and reports[-1].seconds < 3


TINY = {
    "dynamics.hidden": 8,
    "training.field_steps": 2,
    "training.dynamics_steps": 2,
    "training.joint_steps": 1,
    "training.batch": 2,
    "training.points": 48,
    "training.copies": 1,
}


@pytest.mark.parametrize("kind", OURS)
def test_our_own_models_keep_the_contract(kind: str, tmp_path: Path) -> None:
    field = {"field.hidden": 8} if kind == "published" else {"field.latents": 16, "field.degree": 1}
    ds = trajectories(TORUS)
    reports = list(methods.fit(kind, ds, tmp_path / kind, 0, settings={**TINY, **field}))
    assert len(reports) >= 3 and all(report.seconds >= 0 for report in reports)
    method = methods.load(tmp_path / kind)
    assert isinstance(method, methods.Model) and method.name == kind
    forecast = method.forecast(gaps(ds.isel(time=0)), [0.5], grid={"y": 5, "x": 4})
    assert dict(forecast.sizes) == {"sample": 6, "lead_time": 1, "y": 5, "x": 4}


def test_neural_fields_learn_from_any_points(tmp_path: Path) -> None:
    ds = trajectories(SPHERE)
    for name, part in (("gaps", gaps(ds)), ("loose", loose(ds, SPHERE).drop_vars("hill"))):
        list(methods.fit("functa", part, tmp_path / name, 0, settings=small("functa", steps=2)))
        answer = methods.load(tmp_path / name).forecast(part.isel(time=0), [0.5], like=ds)
        assert bool(np.isfinite(answer.u).all())


def test_what_is_refused(tmp_path: Path) -> None:
    ds = trajectories(TORUS)
    list(methods.fit("dino", ds, tmp_path, 0, settings=small("dino", steps=1)))
    path = tmp_path / training.FILE
    sound = path.read_bytes()
    path.write_bytes(sound[:-9] + bytes([sound[-9] ^ 1]) + sound[-8:])
    with pytest.raises(CheckpointError, match="sha256"):
        methods.load(tmp_path)
    with pytest.raises(CheckpointError, match="sha256"):
        methods.fit("dino", ds, tmp_path, 0)
    path.write_bytes(sound)
    for message, kind, change in (
        ("same method", "functa", {}),
        ("same seed", "dino", {"seed": 1}),
        ("same training data", "dino", {"ds": ds.isel(time=slice(3))}),
        ("a method among", "spherical", {}),
        ("a setting among", "functa", {"folder": tmp_path / "new", "settings": {"widht": 3}}),
        ("a base among", "functa", {"folder": tmp_path / "new", "settings": {"base": "cosine"}}),
        ("another number of latents", "functa", {"folder": tmp_path / "new", "settings": {"latents": 5}}),
    ):
        with pytest.raises(UsageError, match=message):
            methods.fit(**{"kind": kind, "ds": ds, "folder": tmp_path, "budget": 0, **change})
    with pytest.raises(CheckpointError):
        methods.load(tmp_path / "absent")
    with pytest.raises(DataError, match="without gaps"):
        methods.untrained(gaps(ds))
    with pytest.raises(DataError, match="on a grid"):
        methods.untrained(ds[["u", "v"]].stack(point=("y", "x")).reset_index("point"))


def test_a_missing_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "neuralop.models", None)
    with pytest.raises(UsageError, match="neuraloperator") as caught:
        methods.fit("fno", trajectories(TORUS), tmp_path, 0)
    assert "pip install" in caught.value.cure


def test_a_forecast_that_leaves_the_numbers_is_told(tmp_path: Path) -> None:
    ds = trajectories(SPHERE)
    list(methods.fit("spherical", ds, tmp_path, 0, settings=small("spherical", steps=1)))
    method = methods.load(tmp_path)
    with torch.no_grad():
        method.stepper.change.fill_(1e38)  # type: ignore[attr-defined]
    with pytest.raises(DivergedError, match="finite"):
        method.forecast(ds, [1.0])


# --- symmetries ----------------------------------------------------------------------------------


@needs_library
def test_the_fno_commutes_with_shifts_by_pixels(tmp_path: Path) -> None:
    ds = trajectories(TORUS)
    list(methods.fit("fno", ds, tmp_path, 0, settings=small("fno", steps=3)))
    method, state = methods.load(tmp_path), ds.isel(time=0)
    shifted = method.forecast(state.roll(x=5, y=2), [1.0, 1.25])
    np.testing.assert_allclose(shifted.u, method.forecast(state, [1.0, 1.25]).u.roll(x=5, y=2), atol=1e-5)


def rotated(values: Tensor, axes: dict[str, Tensor], g: Tensor) -> Tensor:
    """(g u)(x) = u(g⁻¹ x), by spherical harmonics."""
    inverse = g.view(3, 3).T.reshape(-1)
    places = SPHERE.act(inverse, grid_points(SPHERE, axes))
    return resample(SPHERE, values, axes, places).view_as(values)


def test_the_spherical_network_commutes_with_rotations() -> None:
    """To rounding without its GELU, and to 2 % with it: what the GELU makes beyond the degrees is cut."""
    axes, degrees = gauss_axes(24), 10
    basis = harmonics(SPHERE, {"latitude": 24, "longitude": 48})
    draw = Generator().manual_seed(0)
    l = torch.empty(basis.count)  # noqa: E741
    for degree, index in enumerate(basis.groups):
        l[index] = degree
    c = (
        torch.randn(1, 2, basis.count, generator=draw, dtype=torch.float64)
        * torch.exp(-l / 3)
        * (l < degrees)
    )
    u = basis.synthesis(c, axes)
    torch.manual_seed(0)
    net = SphericalOperator(2, 1, axes, False, SphericalSettings(degrees=degrees, width=8, layers=3)).double()
    errors = {}
    for what in ("gelu", "linear"):
        for g in SPHERE.random_element(3, draw):
            with torch.no_grad():
                still, moved = rotated(net(u), axes, g), net(rotated(u, axes, g))
            errors[what] = max(errors.get(what, 0.0), float((moved - still).norm() / still.norm()))
        net.nonlinearity = torch.nn.Identity()
    assert errors["linear"] < 1e-10 and 1e-8 < errors["gelu"] < 2e-2


# --- kriging -------------------------------------------------------------------------------------


def kernel(space: Geometry, axes: dict[str, Tensor], states: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    prior = learn(space, states, axes)
    return lambda a, b: prior.design(a)[1] @ prior.design(b)[1].T


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_kriging_is_conditioning_of_a_gaussian(space: Geometry) -> None:
    """Against the textbook formula with a dense covariance, with few and with many observations."""
    ds, axes = trajectories(space, 20), grid(space)
    states = torch.from_numpy(ds.u.values[:, 0]).double()
    prior = learn(space, states, axes)
    draw = Generator().manual_seed(0)
    x = space.random_points(30, draw)
    for count in (20, 2 * prior.basis.count):
        seen = space.random_points(count, draw)
        z = torch.randn(1, prior.design(seen[:1])[1].shape[1], generator=draw, dtype=torch.float64)
        truth = prior.coefficients(z)
        y, hidden = (prior.basis.at(places) @ truth[0] for places in (seen, x))
        found = prior.basis.at(x) @ prior.posterior(seen, y[None])[0]
        (trend, design), noise = prior.design(seen), prior.noise
        among = design @ design.T + noise * torch.eye(count)
        dense = prior.basis.at(x) @ prior.mean + prior.design(x)[1] @ design.T @ torch.linalg.solve(
            among, y - trend
        )
        scale = (prior.noise / NUGGET) ** 0.5
        assert float((found - dense).abs().max()) < 1e-5 * scale
        back = prior.basis.at(seen) @ prior.posterior(seen, y[None])[0]
        assert float((back - y).abs().max()) < 2e-3 * scale
        if count > 20:
            assert float((found - hidden).abs().max()) < 1e-2 * scale


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_the_covariance_knows_no_place(space: Geometry) -> None:
    """It is that of the moved points, for motions that keep the space."""
    axes = grid(space)
    cov = kernel(space, axes, torch.from_numpy(trajectories(space, 20).u.values[:, 0]))
    draw = Generator().manual_seed(1)
    a, b = space.random_points(9, draw), space.random_points(9, draw)
    for g in space.random_motion(3, draw):
        there = cov(space.act(g, a), space.act(g, b))
        torch.testing.assert_close(there, cov(a, b), atol=1e-9 * float(cov(a, a).max()), rtol=0)


def test_the_prior_of_a_known_spectrum() -> None:
    """Of many draws of independent modes, their variances."""
    axes = grid(TORUS)
    basis = harmonics(TORUS, {"y": 12, "x": 12})
    variance = torch.empty(basis.count).double()
    for i, index in enumerate(basis.groups):
        variance[index] = 1 / (1 + i)
    c = torch.randn(4000, basis.count, generator=Generator().manual_seed(0)).double() * variance.sqrt()
    prior = learn(TORUS, basis.synthesis(c, axes), axes)
    for i, root in enumerate(prior.roots):
        if root.numel() == 0:
            assert bool(basis.lonely[basis.groups[i]].any())
            continue
        assert float(root.square()) == pytest.approx(1 / (1 + i), rel=0.12)


def test_priors_survive_their_file() -> None:
    for space in SPACES:
        ds = trajectories(space)
        filling = Filling.learned(ds, layout_of(ds))
        again = Filling.built(filling.layout, filling.tensors())
        points = space.random_points(7, Generator().manual_seed(0))
        assert torch.equal(filling.priors["u"].design(points)[1], again.priors["u"].design(points)[1])


def test_a_noisy_observation_counts_less() -> None:
    ds = trajectories(TORUS, 20)
    prior = learn(TORUS, torch.from_numpy(ds.u.values[:, 0]), grid(TORUS))
    points = torch.tensor([[0.5, 0.5]]).double()
    value = torch.tensor([[3.0]])
    sure = float(prior.basis.at(points) @ prior.posterior(points, value)[0])
    unsure = float(prior.basis.at(points) @ prior.posterior(points, value, torch.full((1, 1), 1e4))[0])
    trend = float(prior.basis.at(points) @ prior.mean)
    assert sure == pytest.approx(3.0, rel=1e-3) and unsure == pytest.approx(trend, abs=0.05)


EXACT: list[tuple[PDE, Callable[[xr.Dataset], xr.Dataset]]] = [
    (DiffusionSphere(resolution=16, frames=3), lambda ds: ds),
    (DiffusionPlane(resolution=16, frames=3), lambda ds: ds),
    (NavierStokes(resolution=16, spin_up=2, frames=3, step=0.2), lambda ds: ds),
]


@pytest.mark.parametrize("pde", [pde for pde, _ in EXACT], ids=lambda p: p.name)
def test_kriging_and_the_solver(pde: PDE) -> None:
    """From the full state the solver's own answer; from half of it, nearly."""
    from pdeforecast.generation import assemble, generate

    ds = assemble(pde, list(generate(pde, 8, 0)), 0, "train")
    method = methods.untrained(ds, pde)["kriging + solver"]
    name = pde.variables[0]
    leads = (ds.time - ds.time[0]).values
    state = ds.isel(time=0)
    assert float(relative_l2(method.forecast(state, leads), ds)[name].max()) < 1e-6
    keep = xr.DataArray(np.random.default_rng(0).random(state[name].shape) < 0.7, dims=state[name].dims)
    some = state.assign({name: state[name].where(keep)})
    found = method.forecast(some, leads)
    assert float(relative_l2(found, ds)[name].max()) < 0.1
    kept = xr.where(keep, state[name], 0).transpose(*state[name].dims)
    np.testing.assert_allclose(xr.where(keep, found[name][:, 0], 0).transpose(*kept.dims), kept, atol=1e-5)
