"""Training learns, survives interruption bit for bit, and takes whatever the convention allows."""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file
from torch import Tensor

from pdeforecast import checkpoint, cli, metrics, run
from pdeforecast.config import LinearFieldConfig
from pdeforecast.errors import CheckpointError, DataError, DivergedError, UsageError
from pdeforecast.forecaster import Forecaster
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.pdes.diffusion_plane import DiffusionPlane
from pdeforecast.presets import Preset
from pdeforecast.training import PHASES, Progress, Report, TrainingConfig, Trajectories, encoded
from pdeforecast.training.data import normalise, slowness
from pdeforecast.trajectory import open_dataset, save_dataset, to_dataset
from pdeforecast.trust import TrustWarning

TORUS = GEOMETRIES["periodic_plane"]


@pytest.fixture(params=["linear", "attention"])
def preset(request: pytest.FixtureRequest, tiny: Preset, tiny_paper: Preset) -> Preset:
    return tiny if request.param == "linear" else tiny_paper


@pytest.fixture
def coarse(flow: xr.Dataset) -> xr.Dataset:
    """A quarter of the points, for speed."""
    return flow.coarsen(x=2, y=2).mean()


def smooth(samples: int = 2, frames: int = 3, size: int = 12, seed: int = 0) -> xr.Dataset:
    """Random smooth fields of two variables that no equation made, and nothing static."""
    draw = np.random.default_rng(seed)
    axis = np.arange(size) / size
    waves = np.exp(2j * np.pi * axis[:, None] * np.arange(3))
    modes = draw.normal(size=(2, samples, frames, 3, 3))
    fields = np.einsum("vstab,ya,xb->vstyx", modes, waves, waves).real
    dims = ("sample", "time", "y", "x")
    return xr.Dataset(
        {"u": (dims, fields[0], {"units": "m s-1"}), "v": (dims, fields[1], {"units": "K"})},
        {"x": axis, "y": axis, "time": ("time", 0.5 * np.arange(frames), {"units": "hours"})},
        {"geometry": "periodic_plane"},
    )


def train(
    folder: Path, ds: xr.Dataset, preset: Preset, steps: int | None = None, budget: float = 0
) -> list[Report]:
    """Begins or resumes a run; stops it after some steps, as a crash would."""
    begun = (folder / "run.json").exists()
    progress = run.resume(folder) if begun else run.begin(folder, ds, TORUS, preset, {})
    reports: list[Report] = []
    for report in run.go(progress, run.trajectories(ds, progress.model), folder, budget):
        reports.append(report)
        if len(reports) == steps:
            break
    return reports


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def log(folder: Path) -> list[tuple[str, int]]:
    lines = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()[1:]]
    return [(phase, int(step)) for phase, step, *_ in lines]


def test_every_phase_leaves_a_better_model(flow: xr.Dataset, tiny: Preset, tmp_path: Path) -> None:
    preset = replace(tiny, training=replace(tiny.training, dynamics_steps=60, joint_steps=0, batch=8))
    reports = train(tmp_path / "run", flow, preset)
    losses = {phase: [r.loss for r in reports if r.phase == phase] for phase in PHASES}
    assert [len(losses[phase]) for phase in PHASES] == [2, 60, 0]
    first, last = np.mean(losses["dynamics"][:5]), np.mean(losses["dynamics"][-5:])
    assert last < 0.7 * first
    assert {r.horizon for r in reports if r.phase == "dynamics"} == {1, 2}


def test_frames_are_encoded_alike_in_any_portions(
    coarse: xr.Dataset, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(preset.training, points=40)
    model = run.begin(tmp_path, coarse, TORUS, replace(preset, training=config), {}).model.eval()
    data = run.trajectories(coarse, model)
    motions = TORUS.random_motion(2, torch.Generator().manual_seed(0))
    (once, other) = encoded.encode_all(model, data, motions, config)
    monkeypatch.setattr(encoded, "_PAIRS", 1)
    again = encoded.encode_all(model, data, motions, config)
    for a, b in zip((once, other), again, strict=True):
        assert torch.allclose(a.contexts, b.contexts, atol=1e-5) and a.points.equal(b.points)
        assert len(a.points) == len(data.points) and a.contexts.shape[:2] == data.values.shape[:2]
    assert not torch.allclose(once.contexts, other.contexts, atol=1e-5)


def test_what_is_slow_counts_by_how_slow_it_is(preset: Preset, tmp_path: Path) -> None:
    ds = smooth(frames=4)
    still, moving = ds.u.values[:, :1] / ds.u.values.std(), ds.v.values / ds.v.values.std()
    # Down to a thousandth of the fastest; units and gaps change nothing.
    for factor in (1.0, 0.1, 1e-6, 0.0):
        slow = still + factor * moving
        known = slow * np.where(np.random.default_rng(0).random(slow.shape) < 0.1, np.nan, 1.0)
        made = ds.assign(u=ds.u.copy(data=1e6 * known), v=ds.v.copy(data=1e-3 * moving))
        model = run.begin(tmp_path, made, TORUS, preset, {}).model
        data = run.trajectories(made, model)
        normalise(model, data)
        weight = slowness(model, data)
        assert float(weight.mean()) == pytest.approx(1.0)
        share = factor**2 / slow.var()
        assert float(weight[0] / weight[1]) == pytest.approx(1 / max(share, 1e-3), rel=0.1)


def test_variables_count_by_their_weights(preset: Preset, tmp_path: Path) -> None:
    ds = smooth()
    model = run.begin(tmp_path, ds, TORUS, preset, {}).model.eval()
    data = run.trajectories(ds, model)
    normalise(model, data)
    motions = TORUS.random_motion(1, torch.Generator().manual_seed(0))
    (part,) = encoded.encode_all(model, data, motions, preset.training)
    chosen = torch.arange(2)
    z, y = (encoded.latents_at(part, chosen, range(t, t + 1), model)[0] for t in (0, 1))
    with torch.no_grad():
        each = [float(encoded.metric(model, torch.eye(2)[v])(z, y)) for v in range(2)]
        together = float(encoded.metric(model, torch.tensor([3.0, 0.5]))(z, y))
        error = (model.decode(part.points, [z]) - model.decode(part.points, [y])) / model.scale
    assert together == pytest.approx(3.0 * each[0] + 0.5 * each[1], rel=1e-5)
    # One variable's part of the mean over both.
    assert each == pytest.approx((error.square().mean((0, 1, 2)) / 2).tolist(), rel=0.1)


def test_a_stop_between_frames_divides_a_step(preset: Preset, tmp_path: Path) -> None:
    ds = smooth(frames=4)
    model = run.begin(tmp_path, ds, TORUS, preset, {}).model.eval()
    data = run.trajectories(ds, model)
    normalise(model, data)
    (part,) = encoded.encode_all(
        model, data, TORUS.random_motion(1, torch.Generator().manual_seed(0)), preset.training
    )
    chosen = torch.arange(2)
    for parameter in model.dynamics.parameters():
        torch.nn.init.normal_(parameter, std=0.1)

    def rolled(between: float) -> list[Tensor]:
        with torch.no_grad():
            path = encoded.rolled(model, part, chosen, 0, 3, data.times, between)
        return [z.contexts for z in path]

    (start,) = encoded.latents_at(part, chosen, range(1), model)
    plain = model.rollout(start, encoded.constant(part.static), [0.5, 1.0, 1.5])
    assert all(a.equal(b.contexts) for a, b in zip(rolled(1.5), plain, strict=True))
    # In the second interval: the first is as it was, the others differ by the error of a step alone.
    first, *others = rolled(0.5)
    assert first.equal(plain[0].contexts)
    halves = model.rollout(start, encoded.constant(part.static), [0.5, 0.75, 1.0, 1.5])
    for a, b, c in zip(others, halves[2:], plain[1:], strict=True):
        assert a.equal(b.contexts) and not a.equal(c.contexts)


def test_the_attention_field_learns(coarse: xr.Dataset, tiny_paper: Preset, tmp_path: Path) -> None:
    training = replace(tiny_paper.training, field_steps=60, dynamics_steps=0, joint_steps=0, field_rate=3e-3)
    progress = run.begin(
        tmp_path, coarse, TORUS, replace(tiny_paper, training=replace(training, batch=8)), {}
    )
    model = progress.model
    data = run.trajectories(coarse, model)
    frames = (data.values[:, 0] - data.values.mean()) / data.values.std()

    def error() -> float:
        model.encoder.eval()
        with torch.no_grad():
            return float(
                (model.field(data.points.float(), model.encode(data.points, frames)) - frames).square().mean()
            )

    before = error()
    list(run.go(progress, data, tmp_path, 0))
    model.mean.zero_(), model.scale.fill_(1)
    assert error() < 0.98 * before


@pytest.mark.parametrize("every", [0.0, math.inf], ids=["saved at every step", "never saved"])
def test_a_resumed_run_is_the_uninterrupted_one(
    coarse: xr.Dataset, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: float
) -> None:
    whole = train(tmp_path / "whole", coarse, preset)
    monkeypatch.setattr(run, "_SAVE_EVERY", every)
    ends = np.cumsum([preset.training.steps(phase) for phase in PHASES]).tolist()
    stops = (
        [1, ends[0], ends[0] + 1, ends[1] - 1, ends[1], ends[1] + 1, ends[2] - 1] if every == 0 else [3, 8]
    )
    interrupted, before = tmp_path / "interrupted", 0
    for stop in stops:
        done = before if every == 0 else 0
        train(interrupted, coarse, preset, stop - done)
        torch.rand(3)
        before = stop
    rest = train(interrupted, coarse, preset)
    assert [r.loss for r in rest] == [r.loss for r in whole[before if every == 0 else 0 :]]
    assert equal(tensors(interrupted), tensors(tmp_path / "whole"))
    assert log(interrupted) == log(tmp_path / "whole") == [(r.phase, r.step) for r in whole]
    assert train(interrupted, coarse, preset) == []
    assert equal(tensors(interrupted), tensors(tmp_path / "whole"))


def test_a_log_cut_in_the_middle_of_a_line(
    coarse: xr.Dataset, tiny: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_SAVE_EVERY", 0.0)
    reports = train(tmp_path, coarse, tiny, 4)
    monkeypatch.undo()
    (tmp_path / ".model.safetensors.12345678.partial").touch()
    with open(tmp_path / "log.csv", "a") as file:
        file.write("dynamics,3,1,0.5,9\ndynam")
    reports += train(tmp_path, coarse, tiny)
    assert log(tmp_path) == [(r.phase, r.step) for r in reports]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [".lock", "log.csv", "model.safetensors", "progress.safetensors", "run.json"]
    )


def test_one_process_per_folder(coarse: xr.Dataset, tiny: Preset, tmp_path: Path) -> None:
    progress = run.begin(tmp_path, coarse, TORUS, tiny, {})
    data = run.trajectories(coarse, progress.model)
    going = run.go(progress, data, tmp_path, 0)
    next(going)
    with pytest.raises(UsageError, match="holds a run"):
        run.begin(tmp_path, coarse, TORUS, tiny, {})
    with pytest.raises(UsageError, match="another process"):
        next(run.go(run.resume(tmp_path), data, tmp_path, 0))
    going.close()
    assert train(tmp_path, coarse, tiny)[-1].phase == "joint"


def test_a_damaged_run_is_not_resumed(coarse: xr.Dataset, tiny: Preset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run\.json"):
        run.resume(tmp_path)
    train(tmp_path, coarse, tiny)
    whole = (tmp_path / "progress.safetensors").read_bytes()
    (tmp_path / "progress.safetensors").write_bytes(whole[:-10] + bytes(10))
    with pytest.raises(CheckpointError, match="sha256"):
        run.resume(tmp_path)
    (tmp_path / "progress.safetensors").write_bytes(whole)
    text = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(text.replace('"hidden": 16', '"hidden": 8'))
    with pytest.raises(CheckpointError, match="does not fit"):
        run.resume(tmp_path)
    (tmp_path / "run.json").write_text(text[:50])
    with pytest.raises(CheckpointError, match=r"run\.json"):
        run.resume(tmp_path)


def test_a_budget_plans_the_steps(coarse: xr.Dataset, tiny: Preset, tmp_path: Path) -> None:
    preset = replace(tiny, training=replace(tiny.training, dynamics_steps=10**6, joint_steps=10**6))
    reports = train(tmp_path, coarse, preset, budget=3)
    card = checkpoint.load(tmp_path).card
    assert card["planned"] and 20 <= card["training"]["dynamics_steps"] < 10**5
    done = max(report.step for report in reports if report.phase == "dynamics")
    assert done == card["training"]["dynamics_steps"]
    assert run.budget_of(tmp_path) == 3


def test_a_budget_that_leaves_the_dynamics_no_time_is_told(
    coarse: xr.Dataset, tiny: Preset, tmp_path: Path
) -> None:
    preset = replace(tiny, training=replace(tiny.training, dynamics_steps=100, joint_steps=0))
    with pytest.warns(TrustWarning, match="all of the budget of 0 s"):
        reports = train(tmp_path, coarse, preset, budget=1e-3)
    assert reports[-1].step == 20


@pytest.mark.parametrize("seconds", [-5, 0, 1, 100])
def test_plans_are_possible(seconds: float) -> None:
    planned = TrainingConfig().within(seconds, 0.01, 5)
    assert planned.dynamics_steps >= 1 and planned.joint_steps >= 0
    assert TrainingConfig().within(200, 0.01, 5).dynamics_steps > planned.dynamics_steps


def test_any_smooth_fields_will_do(preset: Preset, tmp_path: Path) -> None:
    ds = smooth()
    train(tmp_path, ds, preset)
    model = checkpoint.load(tmp_path)
    assert model.config.variables == {"u": "m s-1", "v": "K"} and model.config.statics == {}
    forecast = model.forecast(ds, [0, 0.7], {"y": 5, "x": 7})
    assert forecast.lead_time.attrs["units"] == "hours" and forecast.v.attrs["units"] == "K"
    assert bool(np.isfinite(forecast.u).all())


VARIANTS: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "gaps": lambda ds: ds.assign(vorticity=ds.vorticity.where(ds.x + ds.time % 3 != 0.5)),
    "gaps that stay": lambda ds: ds.assign(vorticity=ds.vorticity.where(ds.x + ds.y > 0.4)),
    "loose sensors": lambda ds: (
        ds[["vorticity"]]
        .stack(point=("y", "x"))
        .reset_index("point")
        .isel(point=slice(None, None, 2))
        .assign(forcing=ds.forcing.variable)
    ),
    "a forcing each": lambda ds: ds.assign(forcing=ds.forcing * (1 + ds.sample)),
    "a constant": lambda ds: ds.assign(vorticity=0 * ds.vorticity + 3),
    "one sample": lambda ds: ds.isel(sample=0),
    "two times": lambda ds: ds.isel(time=[0, 2]),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_whatever_the_convention_allows(
    coarse: xr.Dataset, tiny: Preset, tmp_path: Path, variant: str
) -> None:
    ds = VARIANTS[variant](coarse[["vorticity", "forcing"]])
    reports = train(tmp_path, ds, tiny)
    assert all(math.isfinite(report.loss) for report in reports) and reports[-1].phase == "joint"
    forecast = checkpoint.load(tmp_path).forecast(ds, [0, 1], {"y": 4, "x": 4})
    assert bool(np.isfinite(forecast.vorticity).all())


def test_without_symmetry(coarse: xr.Dataset, preset: Preset, tmp_path: Path) -> None:
    geometry = GEOMETRIES["periodic_plane_without_symmetry"]
    progress = run.begin(tmp_path, coarse, geometry, preset, {})
    reports = list(run.go(progress, run.trajectories(coarse, progress.model), tmp_path, 0))
    model = checkpoint.load(tmp_path)
    assert model.geometry is geometry and reports[-1].phase == "joint"
    forecast = model.forecast(coarse, [0, 1.5], like=coarse)
    assert forecast.attrs["geometry"] == "periodic_plane"
    if model.field.linear:
        error = (forecast.vorticity[:, 0] - coarse.vorticity[:, 0]).std() / coarse.vorticity.std()
        assert float(error) < 0.1


DATA: dict[str, tuple[Callable[[xr.Dataset], xr.Dataset], str]] = {
    "a state": (lambda ds: ds.isel(time=0), "time dimension"),
    "one time": (lambda ds: ds.isel(time=[0]), "at least two times"),
    "times twice": (lambda ds: ds.isel(time=[0, 1, 1]), "ascending"),
    "times backwards": (lambda ds: ds.isel(time=[2, 1]), "ascending"),
    "no numbers": (lambda ds: ds[["state_hash"]], "time dimension"),
}


@pytest.mark.parametrize("what", DATA)
def test_what_cannot_be_learned_from(coarse: xr.Dataset, tiny: Preset, tmp_path: Path, what: str) -> None:
    change, words = DATA[what]
    with pytest.raises(DataError, match=words):
        train(tmp_path / "run", change(coarse), tiny)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_leaves_the_numbers_is_told(coarse: xr.Dataset, tiny: Preset, tmp_path: Path) -> None:
    progress = run.begin(tmp_path, coarse, TORUS, tiny, {})
    with torch.no_grad():
        # A phase begins from the averages of the one before.
        progress.average["dynamics.context_head.weight"].fill_(1e38)
    with pytest.raises(DivergedError, match="phase dynamics") as caught:
        list(run.go(progress, run.trajectories(coarse, progress.model), tmp_path, 0))
    assert "training.learning_rate=0.003" in caught.value.cure


def test_trajectories_larger_than_memory_train_alike(
    coarse: xr.Dataset, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", coarse, preset)
    save_dataset(coarse, tmp_path / "data.nc")
    monkeypatch.setattr(run, "_IN_MEMORY", 0)
    with open_dataset(tmp_path / "data.nc") as ds:
        assert train(tmp_path / "streamed", ds, preset) == whole
    assert equal(tensors(tmp_path / "streamed"), tensors(tmp_path / "whole"))


def heat(pde: DiffusionPlane, split: str, samples: int) -> xr.Dataset:
    leads = [time - pde.times()[0] for time in pde.times()]
    states = [pde.initial(0, split, index) for index in range(samples)]
    frames = [torch.stack([f["temperature"] for f in pde.solve(state, leads)]) for state in states]
    values = torch.stack(frames)[..., None].float()
    plane = GEOMETRIES["plane"]
    return to_dataset(values, plane, {"temperature": "1"}, pde.coordinates(), pde.times(), "time")


def test_a_linear_equation_is_learned_in_closed_form(tiny: Preset, tmp_path: Path) -> None:
    """Heat in a square, learned from sources in one half: as good in the other half, and at any time."""
    pde = DiffusionPlane(resolution=20, frames=5)
    preset = replace(
        tiny,
        field=LinearFieldConfig(latents=16, degree=3, rank=80),
        training=replace(tiny.training, dynamics_steps=50, joint_steps=5, copies=4),
    )
    ds = heat(pde, "train", 40)
    progress = run.begin(tmp_path, ds, GEOMETRIES["plane"], preset, {})
    data = run.trajectories(ds, progress.model)
    phases = [report.phase for report in run.go(progress, data, tmp_path, 0)]
    assert phases == ["field", "field", "dynamics"]
    assert list(run.go(run.resume(tmp_path), data, tmp_path, 0)) == []
    test = heat(replace(pde, frames=30, interval=0.25), "test", 4)
    assert float(test["temperature"].isel(time=0).where(test["y"] > 1.5).max()) < 0.2
    forecast = checkpoint.load(tmp_path).forecast(test.isel(time=0), [0.25 * i for i in range(30)])
    assert float(metrics.relative_l2(forecast, test)["temperature"].max()) < 5e-3


def test_of_two_that_begin_in_one_folder_the_later_refuses(
    coarse: xr.Dataset, tiny: Preset, tmp_path: Path
) -> None:
    """Both found it empty; the one that comes second to its lock finds the other's run."""
    one, two = (run.begin(tmp_path, coarse, TORUS, tiny, {"training.seed": seed}) for seed in "01")
    data = run.trajectories(coarse, one.model)
    list(run.go(one, data, tmp_path, 0))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="holds a run"):
        list(run.go(two, data, tmp_path, 0))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_two_runs_are_alike_and_two_seeds_are_not(coarse: xr.Dataset, tiny: Preset, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tmp_path / name, coarse, replace(tiny, training=replace(tiny.training, seed=seed)))
    assert equal(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
    assert not equal(tensors(tmp_path / "a"), tensors(tmp_path / "c"))


def test_the_model_holds_the_averages(coarse: xr.Dataset, tiny: Preset, tmp_path: Path) -> None:
    train(tmp_path, coarse, tiny)
    model = checkpoint.load(tmp_path)
    progress = run.resume(tmp_path)
    assert isinstance(model, Forecaster)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, progress.average[name]), name


def test_fine_tuning_begins_from_a_model(
    shared: Path, coarse: xr.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_dataset(coarse, tmp_path / "data.nc")
    words = ["train", str(tmp_path / "data.nc"), "-o", str(tmp_path / "run"), "--budget", "0"]
    words += ["--init-from", str(shared / "tiny")]
    few = ["--set", "training.dynamics_steps=0", "--set", "training.joint_steps=0"]
    assert cli.main([*words, *few]) == 0
    before, after = tensors(shared / "tiny"), tensors(tmp_path / "run")
    assert equal(before, after)
    card = checkpoint.load(tmp_path / "run").card
    assert card["init_from"] == checkpoint.load(shared / "tiny").identity
    assert card["training"]["learning_rate"] == pytest.approx(0.1 * TrainingConfig().learning_rate)
    words[3] = str(tmp_path / "tuned")
    assert cli.main([*words, "--set", "training.dynamics_steps=3", "--set", "training.joint_steps=0"]) == 0
    tuned = tensors(tmp_path / "tuned")
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, tuned[name])}
    assert moved and all(name.startswith(("dynamics.", "probe.")) for name in moved)
    capsys.readouterr()
    save_dataset(smooth(), tmp_path / "other.nc")
    for data, setting, said in (
        ("other.nc", "training.seed=0", "fields"),
        ("data.nc", "field.degree=3", "sizes of the field"),
        ("data.nc", "dynamics.hidden=8", "sizes of the dynamics"),
    ):
        refused = [*words[:1], str(tmp_path / data), "-o", str(tmp_path / "no"), *words[4:], "--set", setting]
        assert cli.main(refused) == 2 and not (tmp_path / "no").exists()
        err = capsys.readouterr().err
        assert said in err and len(err.splitlines()) == 2 and "Traceback" not in err
    closed = ["--init-from", "diffusion-plane", "--geometry", "plane"]
    assert cli.main(["train", str(tmp_path / "data.nc"), "-o", str(tmp_path / "no"), *closed]) == 2


def test_a_fine_tuning_is_resumed_from_where_it_stands(
    shared: Path, coarse: xr.Dataset, tiny: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path / "whole", tmp_path / "cut"):
        progress = run.begin(folder, coarse, TORUS, tiny, {}, str(shared / "tiny"))
        going = run.go(progress, run.trajectories(coarse, progress.model), folder, 0)
        if folder.name == "cut":
            next(going), going.close()
        list(going)
    train(tmp_path / "cut", coarse, tiny)
    assert equal(tensors(tmp_path / "whole"), tensors(tmp_path / "cut"))


def test_a_training_that_begins_to_diverge_is_told_once_and_keeps_the_last_good_model(
    coarse: xr.Dataset, tiny: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_SAVE_EVERY", 0.0)
    good = run.train
    kept: list[dict[str, Tensor]] = []

    def wild(progress: Progress, data: Trajectories) -> Iterator[Report]:
        yield from good(progress, data)
        for step in range(80):
            if step == 41:
                kept.append(tensors(tmp_path))
            if step > 40:
                with torch.no_grad():
                    progress.average["dynamics.context_head.weight"].add_(1.0)
            yield Report("joint", 10 + step, 90, 1.0 if step < 40 else 31.0 + step, 1)

    monkeypatch.setattr(run, "train", wild)
    with pytest.warns(TrustWarning) as told, pytest.raises(DivergedError, match="joint"):
        train(tmp_path, coarse, tiny)
    [warning] = [w for w in told if w.category is TrustWarning]
    cause, cure = str(warning.message).split("\n")
    assert "30 times" in cause and "diverges" in cause and f"--init-from {tmp_path}" in cure
    assert equal(kept[0], tensors(tmp_path))


def test_a_loss_that_jumps_for_a_few_steps_is_no_divergence(tmp_path: Path) -> None:
    watch = run._Watch(tmp_path)
    for step in range(200):
        watch.see(Report("dynamics", step, 200, 100.0 if step % 20 < 9 and step > 50 else 1.0, 1))
    watch.finish()
    assert not watch.warned


def test_mixed_precision_is_near_and_leaves_closed_forms_alone(
    coarse: xr.Dataset, preset: Preset, tmp_path: Path
) -> None:
    mixed = replace(preset, training=replace(preset.training, mixed_precision=True))
    whole, reduced = train(tmp_path / "float32", coarse, preset), train(tmp_path / "bfloat16", coarse, mixed)
    assert [(r.phase, r.step) for r in whole] == [(r.phase, r.step) for r in reduced]
    assert all(math.isfinite(report.loss) for report in reduced)
    before, after = tensors(tmp_path / "float32"), tensors(tmp_path / "bfloat16")
    assert {name: t.dtype for name, t in before.items()} == {name: t.dtype for name, t in after.items()}
    assert not equal(before, after)
    if isinstance(preset.field, LinearFieldConfig):
        exact = [name for name in before if name.startswith(("encoder.", "linear.")) or "scale" in name]
        assert exact and all(torch.equal(before[name], after[name]) for name in exact)
        pairs = [(a, b) for a, b in zip(whole, reduced, strict=True) if a.phase != "joint"]
    else:
        # Its tiny latents hardly move: the losses of its dynamics are rounding errors.
        pairs = [(a, b) for a, b in zip(whole, reduced, strict=True) if a.phase != "dynamics"]
    for a, b in pairs:
        assert b.loss == pytest.approx(a.loss, rel=0.02), (a, b)


def test_losses_for_tensorboard(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = "--set training.dynamics_steps=3 --set training.joint_steps=2 --budget 0 --tensorboard"
    size = "--preset smoke --set field.latents=16 --set field.degree=2 --set dynamics.hidden=16"
    words = f"train {shared / 'flow.nc'} -o {tmp_path / 'run'} {size} {few}".split()
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "torch.utils.tensorboard", None)
        assert cli.main(words) == 2
        err = capsys.readouterr().err
        assert "pdeforecast[logs]" in err and len(err.splitlines()) == 2 and not (tmp_path / "run").exists()
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert cli.main(words) == 0
    for phase in PHASES:
        found = (
            events.EventAccumulator(str(tmp_path / "run" / "tensorboard" / phase)).Reload().Scalars("loss")
        )
        lines = [line.split(",") for line in (tmp_path / "run" / "log.csv").read_text().splitlines()]
        told = [(int(words[1]), float(words[3])) for words in lines if words[0] == phase]
        assert [event.step for event in found] == [step for step, _ in told]
        assert [event.value for event in found] == pytest.approx([loss for _, loss in told], rel=1e-6)
