"""Conditional neural fields with a latent ODE: DINo and the Functa family. They know no symmetry.

    u(x, t) ≈ F(x; z(t)),      dz/dt = G(z)

A state is held in codes z, one for all space (*global*) or one at each place of a lattice, blended by softmax
windows (*local*). The field F is a network of absolute coordinates without seam, conditioned on its code:

    base             siren: sin; fourier: random Fourier features, then GELU; multiplicative: linear
                     layers, each multiplied by sines of the coordinates
    conditioning     concatenation: z beside the coordinates; film: every layer scaled and shifted;
                     hypernetwork: every layer's matrix and bias linear in z
    encoder          autodecoded: a code per training state, trained with F; of a new state found by descent;
                     meta: a few steps of descent with learned rates from z = 0, through which F is trained;
                     first-order: the same, but gradients do not pass through the steps

F is trained on random points of windows of trajectories, and G, at the same time, to carry the first code
of a window to the others, by what F makes of them there (DINo compares codes; codes that F tells apart
badly count less so). G's last hidden layer is bounded (tanh), so codes run away no faster than linearly:
with DINo's own, the loss of some batches rose by sixteen orders of magnitude. Static fields are not seen:
where they are the same in all samples, they are part of the place.

Sources: DINo: Y. Yin et al., ICLR 2023; Functa: E. Dupont et al., ICML 2022; SIREN: V. Sitzmann et al.,
NeurIPS 2020; multiplicative: R. Fathony et al., ICLR 2021; Fourier features: M. Tancik et al., NeurIPS
2020.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import xarray as xr
from torch import Generator, Tensor, nn
from torchdiffeq import odeint

from pdeforecast.bench.contract import Layout, answer, request
from pdeforecast.bench.training import Learner, Settings
from pdeforecast.errors import UsageError
from pdeforecast.geometry import GEOMETRIES
from pdeforecast.trajectory import measure, times_of, trajectory_values

BASES = ("siren", "fourier", "multiplicative")
CONDITIONINGS = ("concatenation", "film", "hypernetwork")
ENCODERS = ("autodecoded", "meta", "first-order")
_PAIRS = 2**18
"""Pairs of a point and a state that are decoded at once."""
_SUBSTEPS = 2
"""Runge–Kutta steps of the latent ODE per frame."""


@dataclass(frozen=True)
class ImplicitSettings(Settings):
    """The field, its codes, and their training.

    Attributes:
        base: one of `BASES`.
        conditioning: one of `CONDITIONINGS`.
        encoder: one of `ENCODERS`.
        latents: codes per state; 1 is global, more are local.
        code: numbers per code.
        width: hidden channels of the field.
        layers: hidden layers of the field.
        frequency: standard deviation of the coordinates' angular frequencies.
        dynamics: hidden channels of the latent dynamics.
        points: per state and step.
        inner_steps: of descent, while training and for a new state, of `meta` and `first-order`.
        inner_rate: of these steps, at first.
        search_steps: of descent for a new state, of `autodecoded`.
        horizon: frames to which the dynamics carry a code in training, at last.
    """

    rate: float = 3e-3
    base: str = "siren"
    conditioning: str = "film"
    encoder: str = "meta"
    latents: int = 1
    code: int = 128
    width: int = 64
    layers: int = 3
    frequency: float = 5.0
    dynamics: int = 256
    points: int = 512
    inner_steps: int = 3
    inner_rate: float = 1.0
    search_steps: int = 100
    horizon: int = 4

    def __post_init__(self) -> None:
        for name, known in (("base", BASES), ("conditioning", CONDITIONINGS), ("encoder", ENCODERS)):
            if getattr(self, name) not in known:
                raise UsageError(
                    f"expected a {name} among {', '.join(known)}; came {getattr(self, name)!r}.",
                    f"Type `{name}={known[0]}`.",
                )


DINO = ImplicitSettings(base="multiplicative", encoder="autodecoded")
FUNCTA = ImplicitSettings()
VARIANTS: Mapping[str, ImplicitSettings] = {
    "dino": DINO,
    "functa": FUNCTA,
    "functa-concatenation": ImplicitSettings(conditioning="concatenation"),
    "functa-hypernetwork": ImplicitSettings(conditioning="hypernetwork", code=32),
    "functa-fourier": ImplicitSettings(base="fourier"),
    "functa-local": ImplicitSettings(latents=16, code=16),
    "functa-autodecoded": ImplicitSettings(encoder="autodecoded"),
    "functa-first-order": ImplicitSettings(encoder="first-order"),
}
"""DINo, Functa, and Functa with one thing changed at a time; settings make all other combinations."""


@dataclass(frozen=True)
class Clouds:
    """Trajectories at points.

    Attributes:
        times: (T,), in units of their mean interval.
        unit: that interval.
        points: (M, point_dim).
        measure: (M,), the part of the space that each point represents, in units of their mean.
        values: (S, T, M, V), NaN where not observed.
    """

    times: Tensor
    unit: float
    points: Tensor
    measure: Tensor
    values: Tensor


def clouds_of(ds: xr.Dataset, layout: Layout, device: str) -> Clouds:
    """Training data on a grid or at loose points, with or without gaps."""
    times, points, values = trajectory_values(ds, layout.space, layout.variables)
    unit = layout.horizon / (len(times) - 1)
    weights = measure(ds, layout.space).float()
    steps = torch.tensor(times_of(ds)) / unit
    return Clouds(steps - steps[0], unit, *(t.float().to(device) for t in (points, weights, values)))


class Layer(nn.Module):
    """A linear map of hidden values (B, M, I) → (B, M, O), conditioned on codes (B, 1 or M, D).

    Args:
        how: one of `CONDITIONINGS`; empty for a map that no code conditions.
    """

    def __init__(self, inputs: int, outputs: int, code: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.linear = nn.Linear(inputs, outputs)
        if how:
            self.shift = nn.Linear(code, outputs, bias=False)
        if how == "film":
            self.factor = nn.Linear(code, outputs, bias=False)
        if how == "hypernetwork":
            self.matrices = nn.Parameter(torch.randn(code, inputs, outputs) / math.sqrt(code * inputs))

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        y = self.linear(h)
        if not self.how:
            return y
        if self.how == "film":
            y = y * (1 + self.factor(z))
        if self.how == "hypernetwork" and z.shape[1] == 1:
            y = y + h @ torch.einsum("bd,dio->bio", z[:, 0], self.matrices)
        elif self.how == "hypernetwork":
            y = y + (z[..., :, None] * h[..., None, :]).flatten(-2) @ self.matrices.flatten(0, 1)
        return y + self.shift(z)


class Field(nn.Module):
    """F: values (B, M, V) at coordinates (M, C), given codes (B, 1 or M, D)."""

    def __init__(self, coordinates: int, outputs: int, config: ImplicitSettings) -> None:
        super().__init__()
        self.base = config.base
        width, layers, how = config.width, config.layers, config.conditioning
        filters = {"siren": 0, "fourier": 1, "multiplicative": layers + 1}[config.base]
        spread = config.frequency / math.sqrt(max(filters, 1))
        self.frequencies = nn.Parameter(
            spread * torch.randn(filters, coordinates, width), requires_grad=config.base == "multiplicative"
        )
        self.phases = nn.Parameter(
            2 * math.pi * torch.rand(filters, width), requires_grad=config.base == "multiplicative"
        )
        first = coordinates if config.base == "siren" else width
        sizes = [first, *[width] * layers]
        self.layers = nn.ModuleList(
            Layer(sizes[i], width, config.code, how if i == 0 or how != "concatenation" else "")
            for i in range(layers)
        )
        self.head = nn.Linear(width, outputs)
        if config.base == "siren":
            with torch.no_grad():
                for i, layer in enumerate(self.layers):
                    bound = config.frequency if i == 0 else math.sqrt(6 / width)
                    layer.linear.weight.uniform_(-bound, bound)  # type: ignore[union-attr, operator]

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        waves = [(x @ w + b).sin() for w, b in zip(self.frequencies, self.phases, strict=True)]
        h = (waves[0] if waves else x).expand(len(z), -1, -1)
        for i, layer in enumerate(self.layers):
            h = layer(h, z)
            if self.base == "siren":
                h = h.sin()
            elif self.base == "fourier":
                h = nn.functional.gelu(h)
            else:
                h = h * waves[i + 1]
        return self.head(h)


class Implicit(Learner):
    """Field, encoder and latent dynamics.

    Args:
        states: training states, each with a code of its own if these are autodecoded.
    """

    mean: Tensor
    scale: Tensor
    unit: Tensor
    code_scale: Tensor

    def __init__(self, config: ImplicitSettings, layout: Layout, states: int) -> None:
        super().__init__()
        self.config, self.space = config, GEOMETRIES[layout.geometry]
        self.origin = self.space.lattice(1)[0]
        try:
            self.lattice = self.space.lattice(config.latents)
        except ValueError as error:
            raise UsageError(f"expected another number of latents: {error}", "Type `latents=16`.") from error
        some = self.space.relative(self.space.random_points(4096, Generator().manual_seed(0)), self.origin)
        self.size = float(some.abs().max())
        variables = len(layout.variables)
        self.field = Field(self.space.relative_dim, variables, config)
        numbers = config.latents * config.code
        hidden = config.dynamics
        self.dynamics = nn.Sequential(
            *(nn.Linear(numbers, hidden), nn.SiLU()),
            *(nn.Linear(hidden, hidden), nn.Tanh()),
            nn.Linear(hidden, numbers),
        )
        if config.encoder == "autodecoded":
            self.codes = nn.Parameter(torch.zeros(states, config.latents, config.code))
        else:
            self.inner_rates = nn.Parameter(torch.full((config.latents, config.code), config.inner_rate))
        for name, value in (("mean", torch.zeros(variables)), ("scale", torch.ones(variables))):
            self.register_buffer(name, value)
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("code_scale", torch.ones(()))

    def rates(self) -> dict[str, float]:
        """Codes are fewer steps away from where they belong than weights are."""
        return {"codes": 10.0, "inner_rates": 10.0}

    def calibrate(self, data: Clouds) -> None:
        flat = data.values.flatten(0, 2)
        for v, column in enumerate(flat.unbind(-1)):
            known = column[~column.isnan()].double()
            self.mean[v] = known.mean()
            self.scale[v] = known.std() if float(known.std()) > 0 else 1.0
        self.unit.fill_(data.unit)

    def decode(self, points: Tensor, z: Tensor) -> Tensor:
        """Values (B, M, V), in units of `scale`, of codes (B, N, D) at points (M, d)."""
        x = (self.space.relative(points, self.origin.to(points)) / self.size).to(z)
        if self.config.latents > 1:
            width = 0.5 * self.space.spacing(self.config.latents)
            distance = self.space.distance(points[:, None], self.lattice.to(points)).to(z)
            z = torch.softmax(-((distance / width) ** 2) / 2, dim=-1) @ z
        return self.field(x, z)

    def encode(self, points: Tensor, values: Tensor, weights: Tensor) -> Tensor:
        """The codes (B, N, D) of values (B, M, V), NaN where not observed, by descent from zero.

        With learned rates, or, where codes were autodecoded, by Adam.
        """
        config = self.config
        learned = config.encoder != "autodecoded"
        through = config.encoder == "meta" and torch.is_grad_enabled()
        z = values.new_zeros(len(values), config.latents, config.code)
        first, second = torch.zeros_like(z), torch.zeros_like(z)
        for step in range(1, 1 + (config.inner_steps if learned else config.search_steps)):
            with torch.enable_grad():
                if not through:
                    z_here = z.detach().requires_grad_()
                else:
                    z_here = z if z.requires_grad else z.requires_grad_()
                error = misfit(self.decode(points, z_here), values, weights).sum()
                (slope,) = torch.autograd.grad(error, z_here, create_graph=through)
            if learned:
                z = (z_here if through else z) - config.latents * self.inner_rates * slope
            else:
                first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
                size = (second / (1 - 0.99**step)).sqrt() + 1e-8
                z = z - 10 * config.rate * first / (1 - 0.9**step) / size
        return z

    def roll(self, z: Tensor, times: Tensor) -> Tensor:
        """Codes (B, T, N, D) at ascending times ≥ 0, in units of frames, from codes at 0."""
        start = z.flatten(1) / self.code_scale
        grid = torch.cat([times.new_zeros(1), times]) if float(times[0]) > 0 else times
        if len(grid) == 1:
            return z[:, None]
        path = odeint(
            lambda _, y: self.dynamics(y), start, grid, method="rk4", options={"grid_constructor": _steps}
        )
        found = path[len(grid) - len(times) :] * self.code_scale
        return found.transpose(0, 1).unflatten(-1, z.shape[1:])

    def loss(self, data: Clouds, draw: Generator, progress: float) -> Tensor:
        samples, frames, nodes = data.values.shape[:3]
        horizon = min(frames - 1, 1 + int(progress * self.config.horizon))
        batch = max(1, 2 * self.config.batch // (horizon + 1))
        sample = torch.randint(samples, (batch,), generator=draw)
        first = int(torch.randint(frames - horizon, (), generator=draw))
        chosen = torch.randperm(nodes, generator=draw)[: self.config.points]
        window = data.values[sample, first : first + horizon + 1][:, :, chosen]
        values = ((window - self.mean) / self.scale).flatten(0, 1)
        points, weights = data.points[chosen], data.measure[chosen]
        if self.config.encoder == "autodecoded":
            frame = torch.arange(first, first + horizon + 1)
            z = self.codes[(sample[:, None] * frames + frame).flatten()]
        else:
            z = self.encode(points, values, weights)
        fixed = z.detach().unflatten(0, (batch, horizon + 1))
        with torch.no_grad():
            weight = max(0.01, 0.5 * (1 - progress) ** 4)
            self.code_scale.lerp_(fixed.square().mean().sqrt().clamp_min(1e-3), weight)
        times = data.times[first : first + horizon + 1] - data.times[first]
        carried = self.roll(fixed[:, 0], times[1:].to(fixed))
        later = values.unflatten(0, (batch, -1))[:, 1:].flatten(0, 1)
        return (
            misfit(self.decode(points, z), values, weights).mean()
            + misfit(self.decode(points, carried.flatten(0, 1)), later, weights).mean()
        )


def misfit(found: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean square error (B,) over what is observed of values (B, M, V)."""
    known = ~values.isnan()
    weight = weights.to(found)[:, None] * known
    return (weight * (found - values.nan_to_num()).square()).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-9)


def _steps(function: Any, start: Tensor, times: Tensor) -> Tensor:
    """A grid through all times, with at least `_SUBSTEPS` equal steps per frame between neighbours."""
    pieces = []
    for a, b in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        count = max(1, math.ceil(_SUBSTEPS * (b - a) - 1e-6))
        pieces.append(torch.linspace(a, b, count + 1, dtype=times.dtype, device=times.device)[:-1])
    return torch.cat([*pieces, times[-1:]])


@dataclass(frozen=True)
class LatentFields:
    """A trained field with its dynamics as a method.

    Attributes:
        name: of the method.
        learner: field, encoder and dynamics.
        layout: of the training data.
        identity: its name and hash.
        card: what is known of data and training.
    """

    name: str
    learner: Implicit
    layout: Layout
    identity: str = ""
    card: Mapping[str, Any] = field(default_factory=dict)

    @torch.no_grad()
    def forecast(
        self,
        state: xr.Dataset,
        lead_time: Sequence[float],
        grid: Mapping[str, int] | None = None,
        like: xr.Dataset | None = None,
    ) -> xr.Dataset:
        """As `Method.forecast`; gaps and loose sensors need no filling."""
        asked, learner = request(self.layout, state, lead_time, grid, like), self.learner
        like_weights = learner.mean
        seen, places = asked.seen.points.to(like_weights), asked.points.to(like_weights)
        values = (asked.seen.values.to(like_weights) - learner.mean) / learner.scale
        weights = asked.seen.measure.to(like_weights)
        order = sorted(set(asked.times))
        times = torch.tensor(order, dtype=torch.float64) / float(learner.unit)
        parts = []
        for part in values.split(max(1, _PAIRS // len(seen))):
            path = learner.roll(learner.encode(seen, part, weights), times.to(like_weights))
            codes = path[:, [order.index(time) for time in asked.times]].flatten(0, 1)
            pieces = places.split(max(1, _PAIRS // len(codes)))
            found = torch.cat([learner.decode(piece, codes) for piece in pieces], dim=1)
            parts.append((found * learner.scale + learner.mean).unflatten(0, (len(part), -1)))
        return answer(self.layout, asked, torch.cat(parts).movedim(-1, 2).cpu(), self.name)
