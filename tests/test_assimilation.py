"""Latents fitted through the dynamics: what was observed later tells of what was before."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Generator, Tensor

from pdeforecast import Forecaster
from pdeforecast.assimilation import Frame, Prior, _seen, assimilate, cost
from pdeforecast.errors import DataError, UsageError
from pdeforecast.geometry import PeriodicPlane
from pdeforecast.latents import Latents
from pdeforecast.linear_dynamics import LinearDynamics
from pdeforecast.linear_field import LinearField
from pdeforecast.preconditioner import PreconditionedSGD
from pdeforecast.principal import PrincipalSGD

Encoder = PreconditionedSGD | PrincipalSGD
GEOMETRY = PeriodicPlane()
MIX = 0.4 * torch.randn(18, 18, dtype=torch.float64, generator=Generator().manual_seed(9))
TIMES = (0.0, 0.5, 1.0, 2.0)


@pytest.fixture(params=["torus", "principal"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """Either prior, of two variables, with something learned."""
    field = LinearField(GEOMETRY, 2, 2, 9, 1.5 * GEOMETRY.spacing(9))
    random = Generator().manual_seed(0)
    states = torch.randn(40, 9, 18, dtype=torch.float64, generator=random)
    noise = torch.tensor([1e-2, 4e-2])
    made = (
        PreconditionedSGD(field, 9, 0.5)
        if request.param == "torus"
        else PrincipalSGD(field, 9, 0.5, 12).double()
    )
    while not made.learn_prior(states + 1.0, noise):
        pass
    if isinstance(made, PrincipalSGD):
        made.local.be_silent()
        made.unexplained.copy_(made.noise)
    return made


@pytest.mark.parametrize("encoder", ["principal"], indirect=True)
def test_what_latents_hold_for_themselves_stays(encoder: PrincipalSGD) -> None:
    """Beside few modes each latent fits the first observations; later ones still improve the modes."""
    random = Generator().manual_seed(2)
    rest = 0.05 * torch.randn(40, 9, 18, dtype=torch.float64, generator=random)
    encoder.local.learn(rest)
    encoder.unexplained.mul_(2)
    w = drawn(encoder, 3)
    truth, points = Prior(encoder).latents(w), GEOMETRY.random_points(200, random)
    errors = []
    for times in ([0.0], TIMES):
        frames = observed(encoder, w, times, 12)
        fitted = assimilate(encoder, carry, frames)
        errors.append(float((encoder.field(points, fitted) - encoder.field(points, truth)).square().mean()))
        encoded = encoder(frames[0].points, frames[0].values, frames[0].variance, frames[0].measure)
        prior = Prior(encoder)
        held = [z.contexts - prior.latents(prior.coordinates(z)).contexts for z in (fitted, encoded)]
        torch.testing.assert_close(*held, atol=1e-8, rtol=1e-6)
    assert errors[1] < 0.5 * errors[0]


def carry(latents: Latents, sample: int, times: Sequence[float]) -> list[Latents]:
    """Some dynamics, not linear, that differ by sample."""
    turned = torch.tanh(latents.contexts @ MIX) * (1 + sample)
    return [Latents(latents.poses, latents.contexts + t * turned, latents.windows) for t in times]


def observed(encoder: Encoder, w: Tensor, times: Sequence[float], count: int, seed: int = 0) -> list[Frame]:
    """What `count` sensors read of the states that begin as w, with gaps."""
    random, prior = Generator().manual_seed(seed), Prior(encoder)
    frames = []
    for time in times:
        points = GEOMETRY.random_points(count, random)
        rows = [carry(prior.latents(w[i : i + 1]), i, [time])[0] for i in range(len(w))]
        values = torch.cat([encoder.field(points, row) for row in rows])
        values[torch.rand(values.shape, generator=random) < 0.2] = torch.nan
        frames.append(Frame(time, points, values, torch.full_like(values, 1e-3)))
    return frames


def drawn(encoder: Encoder, count: int = 2, seed: int = 1) -> Tensor:
    size = Prior(encoder).size
    return torch.randn(count, size, dtype=torch.float64, generator=Generator().manual_seed(seed))


def test_coordinates_of_the_prior(encoder: Encoder) -> None:
    prior, w = Prior(encoder), drawn(encoder)
    back = prior.latents(prior.coordinates(prior.latents(w)))
    torch.testing.assert_close(back.contexts, prior.latents(w).contexts, atol=1e-8, rtol=1e-8)
    points = GEOMETRY.random_points(7, Generator().manual_seed(0))
    mean = encoder.field(points, prior.latents(torch.zeros_like(w)))
    shown = mean + torch.einsum("mvn,bn->bmv", prior.shown(points), w)
    torch.testing.assert_close(encoder.field(points, prior.latents(w)), shown)


def test_coordinates_of_many_latents_on_several_threads(two_threads: None) -> None:
    """Of several systems with more than 150 unknowns each."""
    encoder = PreconditionedSGD(LinearField(GEOMETRY, 2, 2, 9, 1.5 * GEOMETRY.spacing(25)), 25, 0.5)
    prior, w = Prior(encoder), drawn(encoder)
    assert prior.size > 2 * 150
    torch.testing.assert_close(prior.coordinates(prior.latents(w)), w, atol=1e-8, rtol=1e-8)


def test_the_gradient_through_the_dynamics(encoder: Encoder) -> None:
    prior, w = Prior(encoder), drawn(encoder, 1)
    seen = [_seen(frame, 0, encoder.noise) for frame in observed(encoder, w, TIMES, 10)]
    at = (0.3 * drawn(encoder, 1, 5)).requires_grad_()
    slope = torch.autograd.grad(cost(prior, seen, at, 0, carry), at)[0]
    for seed in range(3):
        away = 1e-5 * drawn(encoder, 1, 10 + seed)
        with torch.no_grad():
            up, down = (cost(prior, seen, at + sign * away, 0, carry) for sign in (1, -1))
        torch.testing.assert_close((up - down) / 2, (slope * away).sum(), rtol=1e-5, atol=1e-9)


def test_one_time_is_the_exact_step(encoder: Encoder) -> None:
    """Also if the other times saw nothing, when L-BFGS has nowhere to go."""
    (first,) = observed(encoder, drawn(encoder), [0.0], 30)
    encoded = encoder(first.points, first.values, first.variance).contexts
    blind = Frame(1.0, first.points, torch.full_like(first.values, torch.nan))
    for frames in ([first], [first, blind]):
        fitted = assimilate(encoder, carry, frames).contexts
        torch.testing.assert_close(fitted, encoded, atol=1e-5, rtol=1e-5)


def test_later_observations_tell_of_the_beginning(encoder: Encoder) -> None:
    w = drawn(encoder, 3)
    truth, points = Prior(encoder).latents(w), GEOMETRY.random_points(200, Generator().manual_seed(3))
    errors = []
    for times in ([0.0], [0.0, 0.5], TIMES):
        fitted = assimilate(encoder, carry, observed(encoder, w, times, 12))
        errors.append(float((encoder.field(points, fitted) - encoder.field(points, truth)).square().mean()))
    assert errors[1] < 0.8 * errors[0] and errors[2] < 0.8 * errors[1]


def test_states_together_as_one_by_one(encoder: Encoder) -> None:
    w = drawn(encoder, 2)
    frames = observed(encoder, w, TIMES[:2], 12)
    both = assimilate(encoder, carry, frames).contexts
    first = [Frame(f.time, f.points, f.values[:1], f.variance[:1]) for f in frames if f.variance is not None]
    torch.testing.assert_close(assimilate(encoder, carry, first).contexts, both[:1], atol=1e-8, rtol=1e-8)


def test_linear_dynamics_are_solved_exactly() -> None:
    field = LinearField(GEOMETRY, 1, 2, 9, 1.5 * GEOMETRY.spacing(9))
    encoder = PrincipalSGD(field, 9, 0.5, 8).double()
    random = Generator().manual_seed(0)
    encoder.learn_prior(torch.randn(40, 9, 9, dtype=torch.float64, generator=random), torch.tensor([1e-2]))
    linear, prior = LinearDynamics(8), Prior(encoder)
    linear.generator[:-1].copy_(0.5 * torch.randn(8, 9, generator=random))

    def flow(latents: Latents, sample: int, times: Sequence[float]) -> list[Latents]:
        return [prior.latents(linear.flow(prior.coordinates(latents), time)) for time in times]

    points = [GEOMETRY.random_points(6, random) for _ in TIMES]
    w = drawn(encoder)
    states = [prior.latents(w), *flow(prior.latents(w), 0, TIMES[1:])]
    frames = [
        Frame(time, at, field(at, state)) for time, at, state in zip(TIMES, points, states, strict=True)
    ]
    exact = prior.coordinates(assimilate(encoder, flow, frames, linear))
    descended = prior.coordinates(assimilate(encoder, flow, frames))
    for i in range(2):
        at = exact[i : i + 1].clone().requires_grad_()
        seen = [_seen(frame, i, encoder.noise) for frame in frames]
        slope = torch.autograd.grad(cost(prior, seen, at, i, flow), at)[0]
        assert float(slope.abs().max()) < 1e-6
        worse = cost(prior, seen, descended[i : i + 1], i, flow) - cost(prior, seen, at, i, flow)
        assert 0 <= worse.item() < 0.1


def gaps(flow: xr.Dataset, share: float) -> xr.Dataset:
    keep = np.random.default_rng(0).random(flow.vorticity.shape) < share
    return flow.assign(vorticity=flow.vorticity.where(keep))


def test_a_forecast_from_several_times(model: Forecaster, flow: xr.Dataset) -> None:
    """In any order of times and samples; without being asked, the first time is read alone."""
    state = gaps(flow.isel(time=[1, 2], sample=[0, 2]), 0.2)
    grid = {"y": 8, "x": 8}
    plain = model.forecast(state, [0, 1], grid)
    fitted = model.forecast(state, [0, 1], grid, assimilate=True)
    turned = model.forecast(state.isel(time=[1, 0]), [0, 1], grid, assimilate=True)
    first = model.forecast(state.isel(time=0), [0, 1], grid)
    np.testing.assert_array_equal(plain.vorticity, first.vorticity)
    np.testing.assert_array_equal(turned.vorticity, fitted.vorticity)
    assert fitted.attrs["start_time"] == 1 and fitted.sample.values.tolist() == [0, 2]
    assert float(abs(fitted.vorticity - plain.vorticity).max()) > 1e-3
    alone = model.forecast(state.isel(time=[0]), [0, 1], grid, assimilate=True)
    np.testing.assert_array_equal(alone.vorticity, first.vorticity)


def test_times_of_observations_are_converted(model: Forecaster, flow: xr.Dataset) -> None:
    state = gaps(flow.isel(time=[1, 2], sample=[0]), 0.2)
    model.config = replace(model.config, time_unit="h")
    hours, minutes = (
        state.assign_coords(time=("time", by * state.time.values, {"units": unit}))
        for by, unit in ((1, "hour"), (60, "minutes"))
    )
    a = model.forecast(hours, [0, 1], {"y": 8, "x": 8}, assimilate=True)
    b = model.forecast(minutes, [0, 60], {"y": 8, "x": 8}, assimilate=True)
    np.testing.assert_allclose(a.vorticity, b.vorticity, atol=1e-5)


def test_times_at_which_nothing_was_observed(model: Forecaster, flow: xr.Dataset) -> None:
    """They are left out, if only of one sample, too; the first is that of the state."""
    grid = {"y": 8, "x": 8}
    state = gaps(flow.isel(time=[0, 1, 2], sample=[0, 2]), 0.2)
    blind = state.assign(vorticity=state.vorticity.where(state.time != 1))
    a, b = (model.forecast(ds, [0], grid, assimilate=True) for ds in (blind, state.isel(time=[0, 2])))
    np.testing.assert_array_equal(a.vorticity, b.vorticity)
    partly = state.assign(vorticity=state.vorticity.where((state.time != 1) | (state.sample == 0)))
    c, d = (model.forecast(ds, [0], grid, assimilate=True) for ds in (partly, state))
    np.testing.assert_allclose(c.vorticity[0], d.vorticity[0], atol=1e-6)
    np.testing.assert_allclose(c.vorticity[1], b.vorticity[1], atol=1e-6)
    for late in (state.time != 0, (state.time != 0) | (state.sample == 0)):
        spoilt = state.assign(vorticity=state.vorticity.where(late))
        with pytest.raises(DataError, match=r"first time, .*; there are none at 0.\n.*dropna") as caught:
            model.forecast(spoilt, [0], grid, assimilate=True)
        scope = {"ds": spoilt}
        exec(str(caught.value).split("`")[1], scope)
        assert scope["ds"].time.values.tolist() == [1, 2]
        model.forecast(scope["ds"], [0], grid, assimilate=True)


def test_a_model_that_cannot(
    train: Callable[..., Forecaster], tiny_paper, flow: xr.Dataset, tmp_path
) -> None:
    model = train(tmp_path, flow, tiny_paper)
    with pytest.raises(UsageError, match="assimilate"):
        model.forecast(flow, [0], assimilate=True)
