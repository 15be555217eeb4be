"""Training, as loops that yield a report per step.

1. *field*: the encoder learns its prior (linear field: closed form) or the field and the encoder's
   rates are meta-learned (attention field).
2. *dynamics*: on latents encoded once, in the metric of the field, with a growing horizon.
3. *joint*: through decoded frames, from any share of the points of the first frame.

Every random choice depends on (seed, phase, step) alone and the schedule on the step alone, so a
resumed run on a CPU repeats the uninterrupted one bit for bit. Of several processes (`parallel.py`) each
takes its part of a step's batch; what is in closed form each computes for itself.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import Adam, Muon, Optimizer

from pdeforecast import parallel
from pdeforecast.config import DynamicsConfig
from pdeforecast.dynamics import LatentDynamics
from pdeforecast.encoder import MetaSGD
from pdeforecast.errors import DivergedError
from pdeforecast.forecaster import Forecaster
from pdeforecast.kernel_dynamics import KernelDynamics
from pdeforecast.latents import Latents
from pdeforecast.linear_field import LinearField
from pdeforecast.precision import mixed
from pdeforecast.principal import PrincipalSGD
from pdeforecast.rollout import Surroundings
from pdeforecast.trajectory import StreamedValues

PHASES = ("field", "dynamics", "joint")

_PRIOR_STATES = 2048
"""Moved states from which the prior is learned; few states are used under several motions."""
_PRIOR_MOTIONS = 16
"""Motions of the world under which the prior is learned, for each one under which the dynamics are."""
_PRIOR_WORK = 2**18
"""Numbers of all latents, over those motions: what is learned of many latents takes longer under each."""
_MANY = 64
"""Trajectories; fewer are moved up to eight times as often."""
_LINEAR = 1e-6
"""If linear dynamics leave a smaller share of the change from frame to frame, they are all that is needed."""
_JOINT_SHARE = 0.01
"""The joint phase's learning rate in units of the dynamics': it polishes weights that have settled."""


@dataclass(frozen=True)
class TrainingConfig:
    """How long, in which portions, and how boldly.

    Attributes:
        field_steps: optimiser steps of the field phase (attention), or rounds (linear).
        dynamics_steps: optimiser steps of the dynamics phase.
        joint_steps: optimiser steps of the joint phase.
        batch: frames that a step of the last two phases rolls through, over all trajectories (of
            which it takes at least eight).
        horizon: the longest rollout, in frames.
        points: points per state that a step of the field phase sees.
        learning_rate: of the matrices in the dynamics (Muon); decays to zero along a cosine.
        field_rate: of everything in the field phase (Adam).
        ema: decay of the averaged weights, per step.
        copies: how many random motions of the world the cached latents cover.
        mixed_precision: compute the large products of the dynamics in bfloat16 (`precision.py`): for GPUs,
            on which it has not been measured.
        seed: of every random choice.
        init_from: the model whose weights, prior and scales training begins from; empty for none.
    """

    field_steps: int = 3
    dynamics_steps: int = 20000
    joint_steps: int = 1000
    batch: int = 32
    horizon: int = 6
    points: int = 1024
    learning_rate: float = 0.01
    field_rate: float = 1e-3
    ema: float = 0.995
    copies: int = 8
    mixed_precision: bool = False
    seed: int = 0
    init_from: str = ""

    def steps(self, phase: str) -> int:
        """Optimiser steps of a phase."""
        return {"field": self.field_steps, "dynamics": self.dynamics_steps, "joint": self.joint_steps}[phase]

    def trajectories(self, horizon: int) -> int:
        """How many trajectories a step rolls through `horizon` frames."""
        return max(8, self.batch // horizon)

    def rolled_horizon(self, share: float, longest: int) -> int:
        """Frames to roll through after a share of the dynamics phase: 1 at first, all from two thirds."""
        return min(longest, 1 + int(min(1.0, 1.5 * share) * (self.horizon - 1) + 1e-9))

    def within(self, seconds: float, frame: float, longest: int, done: int = 0) -> "TrainingConfig":
        """As many steps as fit into `seconds` after `done` steps of the dynamics phase.

        A step costs in proportion to the frames that it rolls through, `frame` seconds each; the joint
        phase, whose steps cost about three times as much, gets a tenth of the time.
        """
        seconds = max(0.0, seconds)
        first = min(done / self.dynamics_steps, 0.99)
        horizons = [self.rolled_horizon(first + (1 - first) * i / 100, longest) for i in range(100)]
        frames = sum(h * self.trajectories(h) for h in horizons) / 100
        last = min(self.horizon, longest)
        share = 0.1 if self.joint_steps else 0.0
        return replace(
            self,
            dynamics_steps=max(done, 1) + int((1 - share) * seconds / (frames * frame)),
            joint_steps=int(share * seconds / (3 * last * self.trajectories(last) * frame)),
        )


@dataclass(frozen=True)
class Trajectories:
    """Training data.

    Attributes:
        times: of the T frames.
        points: (M, point_dim).
        measure: (M,), the part of the space that each point represents, in units of their mean.
        values: (S, T, M, V), NaN where not observed; read from a file when asked for, if large.
        static_points: (K, point_dim).
        static_measure: (K,), likewise.
        statics: (1 or S, K, statics).
    """

    times: tuple[float, ...]
    points: Tensor
    measure: Tensor
    values: Tensor | StreamedValues
    static_points: Tensor
    static_measure: Tensor
    statics: Tensor


@dataclass(frozen=True)
class Report:
    """What a step of training tells."""

    phase: str
    step: int
    steps: int
    loss: float
    horizon: int


class Progress:
    """Everything beside the model that a resumed run needs: phase, step, optimisers, averages."""

    def __init__(self, model: Forecaster, config: TrainingConfig) -> None:
        self.model = model
        self.config = config
        self.phase = "field"
        self.step = 0
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.optimizers = self._optimizers()

    def to(self, device: str) -> None:
        """Moves model, averages and optimisers to `device`."""
        flat = self.state()
        self.model.to(device)
        self.load(self.phase, self.step, flat)

    def enter(self, phase: str) -> None:
        """Begins `phase` from the averaged weights of the one before."""
        self.phase, self.step = phase, 0
        self.load_average()
        self.optimizers = self._optimizers()

    def load_average(self) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.average[name])

    @contextmanager
    def averaged(self) -> Iterator[Forecaster]:
        """The model with its averaged weights, for the time of a `with`."""
        raw = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.load_average()
        try:
            yield self.model
        finally:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(raw[name])

    def update(self, loss: Tensor) -> None:
        """One optimiser step along the gradient of `loss`."""
        share = self.step / max(self.config.steps(self.phase), 1)
        decay = min(1.0, (self.step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * share))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = decay * group["peak"]
            optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._trained(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        weight = min(self.config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                self.average[name].lerp_(parameter, 1 - weight)

    def shared(self, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`loss`, of a process's part of a batch, as this run computes it and its gradients."""
        if self.config.mixed_precision:
            loss = mixed(self.model, loss)
        return parallel.averaging(self._moved(), loss)

    def agree(self) -> None:
        """Takes over the first process's schedule."""
        config = self.config
        planned = [config.dynamics_steps, config.joint_steps]
        dynamics, joint = parallel.agreed(planned, self.model.mean.device)
        self.config = replace(config, dynamics_steps=dynamics, joint_steps=joint)

    def state(self) -> dict[str, Tensor]:
        """All tensors of this object, flat."""
        flat = {f"average.{name}": value for name, value in self.average.items()}
        flat |= {f"raw.{name}": value.detach() for name, value in self.model.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            for j, slots in optimizer.state_dict()["state"].items():
                flat |= {f"optimizer.{i}.{j}.{slot}": torch.as_tensor(v) for slot, v in slots.items()}
        return {name: value.cpu().clone().contiguous() for name, value in flat.items()}

    def load(self, phase: str, step: int, flat: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.phase, self.step = phase, step
        self.model.load_state_dict(_under("raw.", flat))
        self.average = {k: v.to(self.model.mean.device) for k, v in _under("average.", flat).items()}
        self.optimizers = self._optimizers()
        for i, optimizer in enumerate(self.optimizers):
            slots: dict[int, dict[str, Tensor]] = {}
            for name, value in _under(f"optimizer.{i}.", flat).items():
                index, _, slot = name.partition(".")
                slots.setdefault(int(index), {})[slot] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})

    def _moved(self) -> list[nn.Module]:
        """The parts of the model whose weights the present phase moves."""
        field = [self.model.encoder] if self.phase != "dynamics" else []
        dynamics = [self.model.dynamics] if self.phase != "field" else []
        return [*field, *dynamics]

    def _trained(self) -> list[nn.Parameter]:
        """Their weights."""
        return [parameter for part in self._moved() for parameter in part.parameters()]

    def _optimizers(self) -> list[Optimizer]:
        if self.phase == "field":
            trained = self._trained()
            return [Adam([{"params": trained, "peak": self.config.field_rate}])] if trained else []
        peak = self.config.learning_rate * (1.0 if self.phase == "dynamics" else _JOINT_SHARE)
        moved = list(self.model.dynamics.parameters())
        if not moved:
            return []
        matrices = [p for p in moved if p.ndim == 2]
        rest = [p for p in moved if p.ndim != 2]
        made: list[Optimizer] = [
            Muon(
                [{"params": matrices, "peak": peak}],
                lr=peak,
                weight_decay=0.0,
                adjust_lr_fn="match_rms_adamw",
            ),
            Adam([{"params": rest, "peak": peak}]),
        ]
        coded = list(self.model.encoder.parameters()) if self.phase == "joint" else []
        if coded:
            made.append(Adam([{"params": coded, "peak": 0.1 * self.config.field_rate}]))
        return made


def train(progress: Progress, data: Trajectories) -> Iterator[Report]:
    """All phases from where `progress` stands; yields after every step.

    Raises:
        DivergedError: if the loss is not finite.
    """
    model = progress.model
    if progress.phase == "field" and progress.step == 0 and not progress.config.init_from:
        _normalise(model, data)
    encoded: list[Encoded] = []
    for phase in PHASES[PHASES.index(progress.phase) :]:
        if progress.phase != phase:
            progress.enter(phase)
        if progress.step >= progress.config.steps(phase):
            continue
        parallel.share(model.state_dict().values())
        # A run that is resumed after the field phase must find the encoder as that phase left it.
        model.encoder.train(phase == "field")
        if phase == "field":
            reports = _field(progress, data)
        else:
            model.prepare()
            encoded = encoded or encode_all(model, data, _motions(model, progress.config, len(data.values)))
            reports = (_dynamics if phase == "dynamics" else _joint)(progress, data, encoded)
        for report in reports:
            if not math.isfinite(report.loss):
                raise DivergedError(
                    f"the loss of phase {phase} left the finite numbers at step {report.step}.",
                    "Train anew, in smaller steps: `--set training.learning_rate="
                    f"{0.3 * progress.config.learning_rate:g} --set training.field_rate="
                    f"{0.3 * progress.config.field_rate:g}`.",
                )
            yield report
    progress.load_average()
    model.prepare()


def _normalise(model: Forecaster, data: Trajectories) -> None:
    mean = _moment(data.values.split(16), data.measure, lambda values: values)
    scale = _moment(data.values.split(16), data.measure, lambda values: (values - mean).square()).sqrt()
    model.mean.copy_(mean)
    model.scale.copy_(torch.where(scale > 0, scale, 1.0))


def _moment(parts: Iterable[Tensor], measure: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean (V,) of a function of values (…, M, V), given in parts, over what is observed of the space."""
    sums = []
    for part in parts:
        values = of(part.double())
        weight = measure.to(values)[:, None] * ~values.isnan()
        sums.append(torch.stack([weight * values.nan_to_num(), weight]).flatten(1, -2).sum(1))
    total, weights = torch.stack(sums).sum(0)
    return total / weights


def _draw(config: TrainingConfig, phase: str, step: int) -> torch.Generator:
    return torch.Generator().manual_seed((config.seed * 3 + PHASES.index(phase)) * 10**9 + step)


def _field(progress: Progress, data: Trajectories) -> Iterator[Report]:
    """Learns to encode."""
    linear = progress.model.field.linear
    yield from _learn_prior(progress, data) if linear else _meta_learn(progress, data)


def _learn_prior(progress: Progress, data: Trajectories) -> Iterator[Report]:
    """The prior of a linear field, by alternately encoding states and taking their moments.

    Each part of the states is moved by its own element of the group, so what is learned of one place
    is known of all that the group makes of it.
    """
    model, config = progress.model, progress.config
    assert not isinstance(model.encoder, MetaSGD)
    samples, times = data.values.shape[:2]
    order = torch.randperm(samples * times, generator=_draw(config, "field", 0))
    chosen = order.repeat(-(-_PRIOR_STATES // len(order)))[:_PRIOR_STATES]
    values = (data.values[chosen // times, chosen % times].to(model.mean) - model.mean) / model.scale
    draw = _draw(config, "field", 10**8)
    numbers = model.encoder.poses.shape[0] * model.field.context_dim
    motions = model.geometry.random_motion(
        max(_PRIOR_MOTIONS, min(_PRIOR_MOTIONS * config.copies, _PRIOR_WORK // numbers)), draw
    )
    while progress.step < config.field_steps:
        contexts, errors = [], []
        for g, part in zip(motions, values.tensor_split(len(motions)), strict=True):
            points = model.geometry.act(g, data.points).to(model.mean.device)
            latents = model.encoder(points, part, None, data.measure)
            contexts.append(latents.contexts)
            errors.append(part - model.field(points, latents.map(lambda t: t.to(values.dtype))))
        residual = torch.cat(errors)
        noise = _moment([residual], data.measure, torch.square).to(residual)
        progress.step += model.encoder.learn_prior(torch.cat(contexts), noise)
        yield Report("field", progress.step, config.field_steps, float(noise.mean()), 0)


def _meta_learn(progress: Progress, data: Trajectories) -> Iterator[Report]:
    """A nonlinear field and its encoder: fit some points of a state, be judged on others."""
    model, config = progress.model, progress.config
    samples, times = data.values.shape[:2]

    def error(normal: Tensor, points: Tensor, measure: Tensor, given: Tensor, asked: Tensor) -> Tensor:
        latents = model.encoder(points[given], normal[:, given], None, measure[given])
        return _mean_square(model.field(points[asked], latents), normal[:, asked], measure[asked])

    shared = progress.shared(error)
    while progress.step < progress.config.field_steps:
        draw = _draw(config, "field", progress.step)
        chosen = parallel.own(torch.randint(samples * times, (config.batch,), generator=draw))
        values = data.values[chosen // times, chosen % times].to(model.mean)
        order = torch.randperm(len(data.points), generator=draw)[: 2 * config.points]
        share = 0.02 ** float(torch.rand((), generator=draw))
        given = order[: max(8, int(config.points * share))]
        normal = (values - model.mean) / model.scale
        points, measure = data.points.to(model.mean), data.measure.to(model.mean)
        loss = shared(normal, points, measure, given, order[len(order) // 2 :])
        progress.update(loss)
        yield Report("field", progress.step, config.field_steps, float(parallel.mean(loss.detach())), 0)


@dataclass(frozen=True)
class Encoded:
    """Trajectories as latents, under one motion g of the world.

    Attributes:
        points: (M, point_dim), g x.
        poses: (N, pose_dim), or (S, T, N, pose_dim) if the encoder fits them.
        contexts: (S, T, N, context_dim).
        static: (1 or S, N, static_dim), at the lattice.
    """

    points: Tensor
    poses: Tensor
    contexts: Tensor
    static: Tensor


@torch.no_grad()
def encode_all(model: Forecaster, data: Trajectories, motions: Tensor) -> list[Encoded]:
    """Every frame, encoded once under each group element: moving the points moves the world."""
    geometry, made = model.geometry, []
    for g in motions:
        points = geometry.act(g, data.points).to(model.mean.device)
        around = geometry.act(g, data.static_points) if len(data.static_points) else data.static_points
        statics = model.surroundings(around, data.statics, data.static_measure)
        pieces = [
            model.encode(points, part.flatten(0, 1).to(model.mean), None, data.measure)
            for part in data.values.split(16)
        ]
        frames = data.values.shape[:2]
        shared = pieces[0].shared
        poses = pieces[0].poses if shared else torch.cat([z.poses for z in pieces]).unflatten(0, frames)
        contexts = torch.cat([z.contexts for z in pieces]).unflatten(0, frames)
        made.append(Encoded(points, poses, contexts, statics(model.lattice())))
    return made


def motions_of_the_world(config: TrainingConfig, samples: int) -> int:
    """How many motions the cached latents cover; few trajectories are moved more often."""
    return config.copies * max(1, min(8, _MANY // samples))


def _motions(model: Forecaster, config: TrainingConfig, samples: int) -> Tensor:
    """Elements of the group that move the data."""
    count = 1 if model.remembers else motions_of_the_world(config, samples)
    return model.geometry.random_motion(count, _draw(config, "dynamics", 10**8))


def _scales(model: Forecaster, encoded: list[Encoded], times: tuple[float, ...]) -> None:
    """The sizes of contexts, statics and the velocities that are left to the network, from the data."""
    dynamics, contexts = model.dynamics, encoded[0].contexts
    assert isinstance(dynamics, LatentDynamics)
    dynamics.context_scale.copy_(contexts.flatten(0, 2).std(0) + 1e-8)
    if dynamics.static_scale.numel():
        size = torch.cat([e.static for e in encoded]).square().mean().sqrt() + 1e-8
        dynamics.static_scale.copy_(size.expand_as(dynamics.static_scale))
    gaps = torch.tensor(times).diff().to(contexts)
    before = contexts[:, :-1]
    if model.linear is not None and dynamics.modal is not None:
        carried = model.carried(_frames(model, encoded[0], slice(-1)), float(gaps.mean())).contexts
        before = carried.view_as(before)
    change = (contexts[:, 1:] - before) / dynamics.context_scale
    dynamics.rate.copy_((change.square().mean((0, 2, 3)).sqrt() / gaps).mean())


def _learn_linear(progress: Progress, encoded: list["Encoded"], times: tuple[float, ...]) -> float:
    """Learns the linear part of the dynamics, where there is one.

    If that leaves next to nothing of the change from frame to frame, the equation is linear, and no network
    is trained; else the linear part is held to what the network's steps can follow.

    Returns:
        The share of the mean square change in the fields that is left to the network.
    """
    model = progress.model
    gaps = torch.tensor(times, dtype=torch.float64).diff()
    regular = float(gaps.max() - gaps.min()) <= 1e-6 * float(gaps.max())
    assert isinstance(model.dynamics, LatentDynamics) and isinstance(model.config.dynamics, DynamicsConfig)
    if model.linear is None or model.dynamics.modal is None or not regular:
        return 1.0
    paths = [
        model.modes_of(_frames(model, e, slice(None))).unflatten(0, e.contexts.shape[:2]) for e in encoded
    ]
    gap = float(gaps.mean())
    model.linear.learn(paths, gap)
    now, after = _frames(model, encoded[0], slice(-1)), _frames(model, encoded[0], slice(1, None))
    distance = _metric(model)
    share = float(distance(model.carried(now, gap), after) / distance(now, after))
    if share < _LINEAR:
        model.linear.sufficient.fill_(True)
        progress.config = replace(progress.config, dynamics_steps=0, joint_steps=0)
    else:
        model.linear.learn(paths, gap, fastest=2 / model.config.dynamics.step)
    model.prepare()
    return share


def _remember(model: Forecaster, encoded: "Encoded", times: tuple[float, ...]) -> float:
    """Gives trajectories to the kernel dynamics.

    Returns:
        The share of the mean square change in the fields, over a frame, that they do not tell.
    """
    dynamics = model.dynamics
    assert isinstance(dynamics, KernelDynamics) and isinstance(model.encoder, PrincipalSGD)
    count, frames = dynamics.memory.shape[:2]
    fields = [dynamics.seen(model.encoder, part[:frames]) for part in encoded.contexts[:count]]
    gap = (times[frames - 1] - times[0]) / (frames - 1)
    dynamics.learn(torch.stack(fields), gap)
    now, after = _frames(model, encoded, slice(-1)), _frames(model, encoded, slice(1, None))
    few = torch.linspace(0, len(now.contexts) - 1, min(64, len(now.contexts))).long()
    now, after = replace(now, contexts=now.contexts[few]), replace(after, contexts=after.contexts[few])
    distance = _metric(model)
    return float(
        distance(model.rollout(now, _constant(encoded.static), [gap])[0], after) / distance(now, after)
    )


def _frames(model: Forecaster, part: Encoded, frames: slice) -> Latents:
    """Some frames of all trajectories, as one batch."""
    poses = part.poses if part.poses.ndim == 2 else part.poses[:, frames].flatten(0, 1)
    return Latents(poses, part.contexts[:, frames].flatten(0, 1), model.windows())


def _dynamics(progress: Progress, data: Trajectories, encoded: list["Encoded"]) -> Iterator[Report]:
    """Learns to move latents that were encoded once, judged in the metric of the field."""
    model = progress.model
    if model.remembers:
        progress.config = replace(progress.config, dynamics_steps=0, joint_steps=0)
        yield Report("dynamics", 0, 0, _remember(model, encoded[0], data.times), 1)
        return
    # A model that is fine-tuned keeps the scales and the linear part that its network was trained with.
    if progress.step == 0 and not progress.config.init_from:
        if model.linear is not None:
            share = _learn_linear(progress, encoded, data.times)
            yield Report("dynamics", 0, progress.config.dynamics_steps, share, 1)
        _scales(model, encoded, data.times)
        progress.agree()
    distance = _metric(model)

    def error(part: Encoded, chosen: Tensor, first: int, horizon: int) -> Tensor:
        path = _roll(model, part, chosen, first, horizon, data.times)
        target = _at(part, chosen, range(first + 1, first + horizon + 1), model)
        return torch.stack([distance(z, y) for z, y in zip(path, target, strict=True)]).mean()

    shared = progress.shared(error)
    while progress.step < progress.config.dynamics_steps:
        config = progress.config
        draw = _draw(config, "dynamics", progress.step)
        part = encoded[int(torch.randint(len(encoded), (), generator=draw))]
        horizon = config.rolled_horizon(progress.step / config.dynamics_steps, len(data.times) - 1)
        chosen, first = _choose(config, horizon, part, draw)
        mine = parallel.own(chosen)
        loss = shared(part, mine, first, horizon) * (len(mine) * parallel.size() / len(chosen))
        progress.update(loss)
        told = float(parallel.mean(loss.detach()))
        yield Report("dynamics", progress.step, config.dynamics_steps, told, horizon)


def _joint(progress: Progress, data: Trajectories, encoded: list["Encoded"]) -> Iterator[Report]:
    """Learns through decoded frames, from any share of the points of the first frame.

    Each loss is weighed by what the reconstruction of its first frame leaves, so that states known
    everywhere and states known at a few points count alike.
    """
    model, config = progress.model, progress.config
    measure = data.measure.to(model.mean)

    def error(part: Encoded, chosen: Tensor, first: int, truth: Tensor, known: Tensor) -> Tensor:
        latents = model.encode(part.points[known], truth[:, 0, known], None, measure[known])
        static = part.static[chosen if len(part.static) > 1 else slice(None)]
        elapsed = [data.times[first + i] - data.times[first] for i in range(truth.shape[1])]
        path = model.rollout(latents, _constant(static), elapsed)
        guess, aim = model.decode(part.points, path) / model.scale, truth / model.scale
        start = parallel.mean(_mean_square(guess[:, 0], aim[:, 0], measure).detach())
        return _mean_square(guess[:, 1:], aim[:, 1:], measure) / (start + 1e-5)

    shared = progress.shared(error)
    while progress.step < config.joint_steps:
        draw = _draw(config, "joint", progress.step)
        part = encoded[int(torch.randint(len(encoded), (), generator=draw))]
        horizon = min(config.horizon, len(data.times) - 1)
        chosen, first = _choose(config, horizon, part, draw)
        chosen = parallel.own(chosen)
        truth = data.values[chosen, first : first + horizon + 1].to(model.mean)
        share = 0.02 ** float(torch.rand((), generator=draw))
        known = torch.randperm(len(part.points), generator=draw)[: max(1, int(len(part.points) * share))]
        loss = shared(part, chosen, first, truth, known)
        progress.update(loss)
        yield Report("joint", progress.step, config.joint_steps, float(parallel.mean(loss.detach())), horizon)


def _mean_square(guess: Tensor, truth: Tensor, measure: Tensor) -> Tensor:
    """The mean of (guess − truth)² (…, M, V) over what is observed of the space; of several processes, what
    has that as its mean over them.

    Not `nanmean`, whose gradient is NaN where its argument is.
    """
    observed = ~truth.isnan()
    error = torch.where(observed, guess - truth.nan_to_num(), 0.0)
    return (measure[:, None] * error.square()).sum() / parallel.mean((measure[:, None] * observed).sum())


def _choose(config: TrainingConfig, horizon: int, part: Encoded, draw: torch.Generator) -> tuple[Tensor, int]:
    """Random trajectories and their common first frame."""
    count, frames = part.contexts.shape[:2]
    chosen = torch.randint(count, (config.trajectories(horizon),), generator=draw)
    return chosen, int(torch.randint(frames - horizon, (), generator=draw))


def _at(part: Encoded, chosen: Tensor, frames: range, model: Forecaster) -> list[Latents]:
    shared = part.poses.ndim == 2
    return [
        Latents(part.poses if shared else part.poses[chosen, t], part.contexts[chosen, t], model.windows())
        for t in frames
    ]


def _roll(
    model: Forecaster, part: Encoded, chosen: Tensor, first: int, horizon: int, times: tuple[float, ...]
) -> list[Latents]:
    """The latents of the `horizon` frames after frame `first`."""
    start = _at(part, chosen, range(first, first + 1), model)[0]
    static = part.static[chosen if len(part.static) > 1 else slice(None)]
    elapsed = [times[first + i] - times[first] for i in range(1, horizon + 1)]
    return model.rollout(start, _constant(static), elapsed)


def _constant(static: Tensor) -> Surroundings:
    """Static fields as read at the lattice, wherever poses have moved meanwhile."""
    return lambda poses: static


def _metric(model: Forecaster) -> Callable[[Latents, Latents], Tensor]:
    """The mean square difference of the fields of two latents, over the whole space.

    For a linear field that is a quadratic form in the contexts, and no points are needed.
    """
    geometry, field = model.geometry, model.field
    places = 4 * field.functions if isinstance(field, LinearField) else 64
    points = geometry.place(geometry.lattice(places * model.config.field.latents)).to(model.mean.device)
    if not isinstance(field, LinearField):
        some = points[:: max(1, len(points) // 512)].to(model.mean)

        def sampled(z: Latents, y: Latents) -> Tensor:
            return (field(some, z) - field(some, y)).square().mean()

        return sampled
    assert not isinstance(model.encoder, MetaSGD)
    design = field.design(points, model.encoder.poses, model.encoder.windows)
    gram = (design.to_sparse_coo().t().to_sparse_csr() @ design).to_dense() / len(points)
    jitter = 1e-9 * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    factor = torch.linalg.cholesky(gram + jitter).to(model.mean)

    def distance(z: Latents, y: Latents) -> Tensor:
        columns = field.columns(z.contexts - y.contexts)
        return (factor.T @ columns).square().sum(0).mean()

    return distance


def _under(prefix: str, flat: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in flat.items() if name.startswith(prefix)}
