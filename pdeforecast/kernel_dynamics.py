"""The flow of fields about an axis, by regression on trajectories that are remembered.

Where every trajectory belongs to one family of flows, as those of one unstable jet do, states lie near a
surface of few dimensions, and what followed on similar states tells what follows on this one. With a the
amplitudes of a state in zonal harmonics, f − f̄ = Σ a_mr b_mr(latitude) e^{im longitude}, R_θ the turn of
the world by θ and w_i the remembered states, the flow over a frame is

    Φ(a)_m = L_m a_m + Σ_i K_m(a, w_i) α_im,
    K_m(a, b) = 1/2π ∫ exp(−‖a − R_θ b‖² / 2ℓ²) e^{−imθ} dθ,

a Gaussian process about a linear flow, whose kernel is averaged over the group: Φ(R_θ a) = R_θ Φ(a), and
a trajectory tells of all its turned copies what it tells of itself. Both are in closed form,

    L_m = argmin_L Σ_i ‖(what followed w_i)_m − L w_im‖² + λ ‖L‖²,      with ‖L_m‖ ≤ 1 then,
    (K_m + ρ) α_m = (what followed)_m − L_m w_m.

Far from everything that is remembered, as states are after the last frame of a trajectory, the flow is linear
and enlarges nothing, so forecasts stay bounded. In the norm a variable counts by how slowly it changes, for
what is fast, such as the phase of a gravity wave, would make strangers of states that are alike.
States are read on a grid, that of the training data if they had one, where latents show them, and written
back as latents by the encoder. What lies between frames is in `between_frames.py`.

Where little of a state is observed, the same harmonics are its prior: a turn multiplies a_m by a phase, so a
prior that knows no longitude holds amplitudes of different m independent, a_mr ~ N(0, σ²_mr), and given
observations y = A a with error variance R the most likely ones are one exact step a = A⁺ y, as in
`principal.py`. At loose points the profiles are read by splines that go over the poles. On whole circles of
latitude a Fourier transform parts the step: of n longitudes the wave k shows the modes m = ±k modulo n.
States near what is remembered are known better than by their spreads: Φ₀, the regression of remembered states
on themselves, leads a state to one that is like them, and

    a ← Φ₀(a) + A⁺ (y − A Φ₀(a)),      from a = A⁺ y,

settles where it agrees with both. At last of the correction by A⁺, if it knows spreads alone, min(1, 5ε) is
kept, ε = ‖y − A Φ₀(a)‖ / ‖y − A f̄‖. Φ₀ has no linear part: far from all that is remembered it is the mean
state, and a stays A⁺ y.

Data may be means over cells of c × c nodes of the grid, as a coarse grid holds them (`cells.py`).
Trajectories are then remembered as they are between them (`generation/refinement.py`). Of a state, A is then
the mean over cells, and with all of them A⁺ its inverse by Fourier series: so what is between the cells comes
from states that have the same means. Where some are missing, the others are brought to what the state that
they settle at has at their centres.

Sources: M. Reisert and H. Burkhardt, Learning equivariant functions with matrix valued kernels, JMLR 8 (2007)
385; Z. Zhao and D. Giannakis, Analog forecasting with dynamics-adapted kernels, Nonlinearity 29 (2016) 2888.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from pdeforecast.between_frames import (
    BetweenFrames,
    Beyond,
    KeptTypes,
    cubic,
    drift,
    heeded,
    nodes,
    on_frame,
)
from pdeforecast.cells import means, offsets, shrinks, undone
from pdeforecast.geometry import Geometry, rotation
from pdeforecast.latents import Latents
from pdeforecast.observed import Observations, observed
from pdeforecast.packed import Packed, PackedPaths
from pdeforecast.preconditioner import ExactStep
from pdeforecast.principal import PrincipalSGD

_WIDTH = 0.2
"""ℓ², in units of the mean square of remembered states, about their mean."""
RIDGE = 1e-7
"""ρ; K(a, a) is at most 1. More of it blurs what is small, from noisy starts, too; less is unstable."""
_LINEAR_RIDGE = 0.1
"""λ, in units of the mean variance of an amplitude of the same wave number, times the number of states."""
_TURNS = 64
"""The least over which the kernel is averaged."""
OWN_RIDGE = 1e-3
"""ρ of Φ₀ where little is observed, and it is asked of states that are not known well."""
_ROUNDS = 12
"""After which what is sought from few points is settled."""
_STRANGE = 0.2
"""The share of what is observed, ε, that a remembered state may leave before it is not believed."""
_LEAST_WEIGHT = 1e-3
"""Of a variable, in units of the largest."""
_ROWS = 16
"""Of a kernel that are made at once: what is computed of them stays in a core's cache."""
_BLOCK = 128
"""Rows of a Hermitian kernel that are made together, up to their diagonal."""
_FEW = 64
"""States that tell how well trajectories are told."""
_LOOSE_MODES = 1024
"""Of the largest modes, what loose points are seen through: many points, and all modes, would be dear."""
_GRAIN = 0.5
"""Of amplitudes, in units of the spread of the largest mode that is not kept: rounding then takes less than
what such modes would give."""
_PROFILE_GRAIN = 0.01
"""The same of profiles, each times the spread of its mode: all amplitudes are read through them."""
_BETWEEN_GRAIN = 0.0045
"""What rounding a number makes the path between frames miss, in units of what modes leave of a variable."""
_LEAST_SPREAD = 1e-4
"""Of a mode, in units of that of the largest: finer than of such, grains need not be."""
_POLE = 1e-6
"""Degrees from a pole within which a latitude is the pole."""
_LEAST_LEFT = 1e-6
"""The least that modes are taken to leave of a variable, whose variance is about 1."""
NOISE = 1e-6
"""Error variance with which states are encoded before their noise is learned: the flow reads fields, so
directions of the contexts that no field value shows do no harm, and fine structure is kept."""


class KernelDynamics(KeptTypes):
    """Latents on the lattice, at any times.

    Args:
        geometry: the rotating sphere.
        channels: V.
        latitudes, longitudes: of the grid.
        trajectories: S that are remembered.
        frames: T of each.
        modes: zonal harmonics that are kept, with the profiles b in which states vary most.
        cells: c, nodes along each axis that are a cell of the data; 1 where they are values at nodes.
        between: whether it is told what lies between frames.

    Raises:
        ValueError: on another geometry.

    Attributes:
        latitude, longitude: of the grid, in degrees.
        gap: the time from frame to frame.
        wave: (modes,), the wave number m of each, in rising order.
        profile: σ b (modes, V, latitudes, 2), in cosines along latitudes, real and imaginary parts, in whole
            numbers of grains.
        size: (modes,), σ, the spread of each amplitude.
        left: (V,), the variance of what the modes leave.
        weight: (V,), how much each variable counts: the largest is 1.
        mean: f̄ (V·latitudes,).
        memory: (modes, T, S, 2), what is remembered, in whole numbers of grains.
        grain: of amplitudes, where those of m and −m count in one.
    """

    latitude: Tensor
    longitude: Tensor
    gap: Tensor
    wave: Tensor
    size: Tensor
    left: Tensor
    weight: Tensor
    mean: Tensor
    grain: Tensor

    def __init__(
        self,
        geometry: Geometry,
        channels: int,
        latitudes: int,
        longitudes: int,
        trajectories: int,
        frames: int,
        modes: int,
        cells: int = 1,
        between: bool = False,
    ) -> None:
        super().__init__()
        if geometry.domain != "rotating_sphere":
            raise ValueError(
                f"the preset `memory` serves the rotating sphere; these data are on {geometry.name}."
            )
        self.geometry = geometry
        self.channels = channels
        self.cells = cells
        values = channels * latitudes
        self.register_buffer("latitude", geometry.axis("latitude", latitudes))
        self.register_buffer("longitude", geometry.axis("longitude", longitudes))
        self.register_buffer("gap", torch.ones((), dtype=torch.float64))
        self.register_buffer("wave", torch.zeros(modes, dtype=torch.long))
        self.profile = Packed(modes, channels, latitudes, 2)
        self.register_buffer("size", torch.ones(modes))
        self.register_buffer("left", torch.zeros(channels))
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("mean", torch.zeros(values))
        self.memory = PackedPaths(modes, frames, trajectories)
        self.register_buffer("grain", torch.ones((), dtype=torch.float64))
        self.between = BetweenFrames(values, waves_on(longitudes)) if between else None
        self._weights: _Solved | None = None
        self._profiles: Tensor | None = None
        self._outer: dict[int, Beyond] = {}
        self._drift: Tensor | None = None

    @property
    def trajectories(self) -> int:
        """S."""
        return self.memory.shape[2]

    @property
    def frames(self) -> int:
        """T."""
        return self.memory.shape[1]

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered yet."""
        return self.memory.empty

    @property
    def turns(self) -> int:
        """θ over which the kernel is averaged: enough that turns by other angles tell the same."""
        return max(4 * int(self.wave[-1]), _TURNS)

    @property
    def profiles(self) -> Tensor:
        """b (modes, V·latitudes), complex, orthonormal when weighted by area, whatever rounding did to it."""
        if self._profiles is None:
            rounded = self.profile.numbers()
            across = torch.einsum("fl,kvfc->kvlc", _cosines(rounded.shape[2]).to(rounded), rounded).flatten(
                1, 2
            )
            self._profiles = torch.cat(
                [
                    _orthonormal(torch.view_as_complex(across[start:end].contiguous()))
                    for _, (start, end) in self._waves()
                ]
            )
        return self._profiles

    @property
    def width(self) -> tuple[float, float]:
        """Of the cells of the data in latitude and longitude, in degrees."""
        return self.cells * 180 / len(self.latitude), self.cells * 360 / len(self.longitude)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_weights": None, "_profiles": None, "_outer": {}, "_drift": None}

    def _forget_solved(self) -> None:
        """What follows from the buffers."""
        self._weights, self._profiles, self._outer, self._drift = None, None, {}, None

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._forget_solved()
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "KernelDynamics":
        self._forget_solved()
        super()._apply(fn, recurse)
        return self

    def lie_on(self, latitude: Tensor, longitude: Tensor) -> None:
        """Takes another grid of the same size, in degrees."""
        self.latitude.copy_(latitude)
        self.longitude.copy_(longitude)

    def learn(self, fields: Tensor, gap: float, between: Iterable[Tensor] | None = None) -> None:
        """Remembers trajectories (S, T, V, latitudes, longitudes) of frames `gap` apart.

        Args:
            between: of each trajectory, (T − 1, nodes, V, latitudes, longitudes), what it is at the `nodes`
                between frames, if that is to be told.
        """
        mean = fields.mean((0, 1, 4))
        self.weight.copy_(self._slowness(fields, fields - mean[..., None]))
        spectrum = torch.fft.rfft(self._weighed(fields - mean[..., None]), norm="forward").flatten(2, 3)
        found = []
        for m in range(waves_on(len(self.longitude))):
            part = spectrum[..., m].flatten(0, 1)
            moments = part.T @ part.conj() / len(part)
            energy, profiles = torch.linalg.eigh(moments if m else moments.real)
            found += [(float(_both(m) * e), m, b + 0j) for e, b in zip(energy, profiles.T, strict=True)]
        found = sorted(found, key=lambda mode: -mode[0])
        lost = max([0.0, *(energy for energy, *_ in found[len(self.wave) :])]) ** 0.5
        found = sorted(found[: len(self.wave)], key=lambda mode: mode[1])
        self.gap.fill_(gap)
        self.mean.copy_(mean.flatten())
        self.wave.copy_(torch.tensor([m for _, m, _ in found]))
        spread = mean.new_tensor([energy for energy, *_ in found]).clamp_min(0).sqrt()
        least = max(lost, _LEAST_SPREAD * float(spread.max()), 1e-12)
        across = torch.view_as_real(spread[:, None] * torch.stack([b for *_, b in found]))
        across = across.unflatten(1, mean.shape)
        cosines = _cosines(mean.shape[1]).to(mean)
        self.profile.keep(torch.einsum("fl,kvlc->kvfc", cosines, across) / (_PROFILE_GRAIN * least))
        self._forget_solved()
        amplitudes = self._amplitudes(fields)
        self.size.copy_(amplitudes.abs().square().mean((0, 1)).sqrt().clamp_min(1e-12))
        self.grain.fill_(_GRAIN * least)
        counted = amplitudes.permute(2, 1, 0) * (_both(self.wave).sqrt() / self.grain).view(-1, 1, 1)
        self.memory.keep(torch.view_as_real(counted), self._groups())
        rest = self._area() * (fields - self._fields(amplitudes)).square()
        self.left.copy_(rest.sum(-2).mean((0, 1, 3)))
        if self.between is not None and between is not None and fields.shape[1] > 3:
            # As a path has them: what rounding took must tell nothing, and what it blurred little.
            angle, rounded = self._angle(), self.remembered()
            first = self._beyond(1)(rounded[:, :3].unbind(1))
            last = self._beyond(-1)(rounded[:, -3:].flip(1).unbind(1))
            paths = torch.cat([first[:, None], rounded, last[:, None]], dim=1)
            seen = heeded(self.wave, self.size.double(), paths)
            off = map(self._off, paths, between, repeat(angle))
            self.between.learn(self.wave, seen, off, angle, _BETWEEN_GRAIN)

    def _off(self, amplitudes: Tensor, between: Tensor, angle: Tensor) -> Tensor:
        """What `BetweenFrames.learn` takes of a path (T + 2, modes) and of what is between its frames but the
        outer ones, (T − 1, nodes, V, latitudes, longitudes)."""
        turn, frames = angle * self.wave, list(amplitudes)
        path = [torch.stack([cubic(frames, 1 + k + s, turn) for s in nodes()]) for k in range(len(between))]
        off = (between - self._fields(torch.stack(path))) * self._fine()
        spectrum = torch.fft.rfft(off, norm="forward").flatten(-3, -2)
        both = _both(torch.arange(int(self.wave[-1]) + 1)).to(off).sqrt()
        return spectrum[..., : len(both)] * both

    def _beyond(self, way: int) -> Beyond:
        """What tells of the frame before the first three or, backwards, −1, of the one after the last."""
        if way not in self._outer:
            paths = self.remembered() if way > 0 else self.remembered().flip(1)
            self._outer[way] = Beyond(self.wave, self.size.double(), paths, way * self._angle())
        return self._outer[way]

    def untold(self, fields: Tensor) -> float:
        """The share of the mean square change over a frame of trajectories that the flow does not tell."""
        before, after = fields[:, :-1].flatten(0, 1), fields[:, 1:].flatten(0, 1)
        few = torch.linspace(0, len(before) - 1, min(_FEW, len(before)), device=fields.device).long()
        told = self._fields(self.carried(self._amplitudes(before[few])))
        area = self._area()
        missed, change = ((area * (x - after[few]).square()).mean() for x in (told, before[few]))
        return float(missed / change)

    def forget(self, count: int) -> None:
        """All but the first `count` trajectories."""
        self.memory.keep(self.memory.numbers(self._groups())[:, :, :count], self._groups())
        self._weights, self._outer, self._drift = None, {}, None

    def strangeness(self, encoder: PrincipalSGD, latents: Latents) -> Tensor:
        """‖f − Φ₀(f)‖ / ‖f − f̄‖ (batch,) of the fields f that latents show: the share of a state that nothing
        remembered tells, in the norm of the amplitudes."""
        fields = self.seen(encoder, latents.contexts)
        like = self._fields(self._like(self._amplitudes(fields), self._solved().doubt))
        mean = self.mean.double().view(self.channels, -1, 1)
        left, away = (self._weighed(part).square().sum((1, 2, 3)) for part in (fields - like, fields - mean))
        return (left / away.clamp_min(1e-30)).sqrt()

    def rollout(self, encoder: PrincipalSGD, latents: Latents, times: Sequence[float]) -> list[Latents]:
        """The latents at each of the non-decreasing `times`.

        Args:
            encoder: whose field shows the latents, in their own frame, and which writes them.
        """
        if not len(times) or times[-1] == 0:
            return [latents for _ in times]
        path = self.path(self._amplitudes(self.seen(encoder, latents.contexts)), times)
        written = self._written(encoder, path.flatten(0, 1))
        later = iter(written.contexts.unflatten(0, path.shape[:2]).unbind(1))
        return [
            latents if time == 0 else replace(latents, contexts=next(later).to(latents.contexts))
            for time in times
        ]

    def encode(
        self,
        encoder: PrincipalSGD,
        points: Tensor,
        values: Tensor,
        variance: Tensor | None = None,
        measure: Tensor | None = None,
    ) -> Latents:
        """Latents of states of which little is observed; arguments are those of `encoder`."""
        seen = observed(points, values, variance, measure)
        amplitudes = self.size.new_zeros(len(values), len(self.wave), dtype=torch.complex128)
        for part in self.told(encoder, seen):
            amplitudes[part.these] = self.likely(part.step, part.values)
        return self.written(encoder, seen, amplitudes)

    def written(self, encoder: PrincipalSGD, seen: Observations, amplitudes: Tensor) -> Latents:
        """Latents of states a (batch, modes) of which something is observed, with what tells beside a."""
        # All at once: the encoder keeps its factors for the points that it saw last.
        found = self._written(encoder, self._fields(amplitudes))
        if self.cells > 1:
            # Latents lie closer than observations, and would fit each by itself what is between them, too.
            return found
        residual, contexts = seen.values - encoder.field(seen.points, found), found.contexts.clone()
        for these, error in seen.alike:
            rest = error + encoder.noise / seen.share
            contexts[these] += encoder.local(
                seen.points, residual[these], rest, encoder.poses, encoder.windows
            )
        return Latents(encoder.poses, contexts, encoder.windows)

    def undone(self, points: Tensor, values: Tensor) -> Tensor | None:
        """Values (batch, M', V) at the nodes of the grid, from the means (batch, M, V) over all of its cells,
        with what remembered states like these have between them.

        Args:
            points: (M, 3), the centres of the cells in any order, turned by any angle; None comes back if
                they are others.
        """
        axes = {"latitude": self.latitude, "longitude": self.longitude}
        centres = {name: axis.unflatten(0, (-1, self.cells)).mean(-1) for name, axis in axes.items()}
        own, none = self._place(centres), torch.zeros_like(points[:, :1])
        if points.shape != own.shape or bool(values.isnan().any()):
            return None
        here, there = _circles(points, none), _circles(own, none)
        if here is None or there is None:
            return None
        turn = _longitude(points[here[0, 0]]) - _longitude(own[there[0, 0]])
        turned = self.geometry.act(rotation.exp(turn * points.new_tensor([0.0, 0.0, 1.0])), own[there])
        if not torch.allclose(points[here], turned, atol=1e-6):
            return None
        grid = torch.empty_like(values)
        grid[:, there.flatten()] = values[:, here.flatten()]
        seen = grid.mT.unflatten(-1, (len(centres["latitude"]), -1))

        def corrected(like: Tensor) -> Tensor:
            fields = self._fields(like)
            return fields + undone(seen - means(fields, self.cells), self.cells)

        first = self._amplitudes(undone(seen, self.cells))
        own = self._solved().own
        settled = self._settled(first, own, lambda like: self._amplitudes(corrected(like)))
        fields = corrected(self._like(settled, own))
        waves = torch.arange(len(self.longitude) // 2 + 1).to(fields)
        spectrum = torch.fft.rfft(fields) * torch.polar(torch.ones_like(waves), -turn * waves)
        return torch.fft.irfft(spectrum, n=len(self.longitude)).flatten(-2).mT

    def at_centres(
        self,
        encoder: PrincipalSGD,
        points: Tensor,
        values: Tensor,
        variance: Tensor | None,
        measure: Tensor | None,
        width: tuple[float, float],
    ) -> Tensor:
        """Values (batch, M, V) at the centres of cells, from the means over them.

        Args:
            points, values, variance, measure: those of `encoder`, at the centres.
            width: of the cells in latitude and longitude, in degrees.
        """
        seen = observed(points, values, variance, measure)
        found = seen.values.clone()
        for part in self.told(encoder, seen, width):
            between = found.new_zeros(len(part.values), *found.shape[1:])
            between[:, part.known] = part.step.between(self.likely(part.step, part.values))
            found[part.these] += between
        return found

    def told(
        self, encoder: PrincipalSGD, seen: Observations, width: tuple[float, float] | None = None
    ) -> Iterator["Told"]:
        """What is known of states, those together that are observed alike, if anything is."""
        for these, error in seen.alike:
            known = error.isfinite().any(1)
            if known.any():
                coarse = (error + encoder.noise / seen.share)[known]
                step = self._step(seen.points[known], coarse, seen.share[known], width)
                values = seen.values[these][:, known]
                error = coarse + self.left / seen.share[known]
                yield Told(these, known, step, values, error)

    def likely(self, step: "_LooseStep | _CircleStep", values: Tensor) -> Tensor:
        """a (batch, modes), at which observations (batch, M, V) settle."""
        own = self._solved().doubt

        def corrected(like: Tensor) -> Tensor:
            return like + step.amplitudes(values - step.shown(like))

        settled = self._settled(step.amplitudes(values), own, corrected)
        return self.believed(step, values, self._like(settled, own), 1)

    def believed(self, step: "_LooseStep | _CircleStep", values: Tensor, like: Tensor, power: int) -> Tensor:
        """States a (batch, modes) like remembered ones, with the share min(1, 5ε)^power of the correction by
        A⁺ of what they leave of observations (batch, M, V)."""
        left, all_of_it = (step.left(values, a).square().sum((1, 2)) for a in (like, 0 * like))
        strange = ((left / all_of_it.clamp_min(1e-30)).sqrt() / _STRANGE).clamp_max(1.0)
        return like + strange[:, None] ** power * step.amplitudes(values - step.shown(like))

    def like(self, amplitudes: Tensor) -> Tensor:
        """Φ₀(a), (batch, modes), of states that are in doubt."""
        return self._like(amplitudes, self._solved().doubt)

    def _settled(self, amplitudes: Tensor, own: Tensor, corrected: Callable[[Tensor], Tensor]) -> Tensor:
        """a ← corrected(Φ₀(a)), some times, with α (n, modes) of Φ₀."""
        for _ in range(_ROUNDS):
            amplitudes = corrected(self._like(amplitudes, own))
        return amplitudes

    def _like(self, amplitudes: Tensor, own: Tensor) -> Tensor:
        """Φ₀(a), (batch, modes)."""
        return self._told_by(amplitudes, own)

    def _step(
        self, points: Tensor, error: Tensor, share: Tensor, width: tuple[float, float] | None = None
    ) -> "_LooseStep | _CircleStep":
        """The exact step for observations with errors of variance (M, V), infinite where not observed."""
        circles = _circles(points, error)
        if circles is not None:
            return _CircleStep(self, points, error + self.left / share, circles, width)
        kept = self._by_size()[:_LOOSE_MODES].sort().values
        lost = torch.ones_like(self.size).index_fill(0, kept, 0.0)
        return _LooseStep(self, points, error + (self.left + self._spread(lost)) / share, kept, width)

    def precision(self) -> Tensor:
        """(modes,): what amplitudes are multiplied by, that their x and y be ~ N(0, 1)."""
        return _both(self.wave).double().sqrt() / self.size.double()

    def _spread(self, modes: Tensor) -> Tensor:
        """(V,): the variance of each variable that some modes have, those where `modes` is one."""
        squares = self.profiles.abs().square().unflatten(1, (self.channels, -1))
        own = modes.double() * _both(self.wave) * self.size.double().square()
        return (own @ squares.sum(-1)) / self.weight.double()

    def _profiles_at(self, latitude: Tensor, width: tuple[float, float] | None) -> Tensor:
        """q (L, V, modes): what each mode, as it is spread, shows at latitudes (L,), or of means over cells.

        With w = x + iy, x and y ~ N(0, 1), a state is f̄ + Re Σ w q e^{imλ}, λ from the first of the grid.
        """
        wave, scales = self.wave, self._scales()[..., 0]
        known = self.profiles.unflatten(1, scales.shape) / scales
        found = known.new_zeros(len(latitude), self.channels, len(wave))
        for parity in (1, -1):
            these = wave % 2 == (parity < 0)
            across = self._across(latitude, width, parity).to(known)
            found[..., these] = torch.einsum("xl,kvl->xvk", across, known[these])
        # A complex amplitude is two real ones of half its variance; that of m = 0 is real.
        spread = self.size.double() * _both(wave).double().sqrt()
        if width is not None:
            spread = spread * shrinks(wave.double(), math.radians(width[1]), self.cells)
        return found * spread

    def _mean_at(self, latitude: Tensor, width: tuple[float, float] | None) -> Tensor:
        """f̄ (L, V) at latitudes (L,), or its means over cells."""
        across = self._across(latitude, width, 1)
        return across @ self.mean.double().view(self.channels, -1).T

    def _across(self, latitude: Tensor, width: tuple[float, float] | None, parity: int) -> Tensor:
        if width is None:
            return _across(self.latitude, latitude, parity)
        parts = [
            _across(self.latitude, (latitude + width[0] * x).clamp(-90, 90), parity)
            for x in offsets(self.cells)
        ]
        return torch.stack(parts).mean(0)

    def path(self, amplitudes: Tensor, times: Sequence[float]) -> Tensor:
        """Fields (batch, times, V, latitudes, longitudes) at those of `times` that are not zero."""
        angle, among = self._angle(), self._among(amplitudes, times)
        fields = self._fields(torch.stack([cubic(near, x, angle * self.wave) for near, x in among], dim=1))
        for i, (near, x) in enumerate(among):
            if self.tells_between and not on_frame(x):
                fields[:, i] += self.off_cubic(near, x - 1)
        return fields

    def followed(self, amplitudes: Tensor, times: Sequence[float]) -> list[Tensor]:
        """Amplitudes (batch, modes) at each of `times` > 0, by the cubic alone."""
        turn = self._angle() * self.wave
        return [cubic(near, x, turn) for near, x in self._among(amplitudes, times)]

    def _among(self, amplitudes: Tensor, times: Sequence[float]) -> list[tuple[Sequence[Tensor], float]]:
        """Of those of `times` that are not zero, the frames that tell of them, and the place among these."""
        at = [time / float(self.gap) for time in times if time > 0]
        if not at:
            return []
        frames, end = [amplitudes], self.frames
        while len(frames) <= max(3, math.ceil(at[-1]) + 1):
            frames.append(self.carried(frames[-1]))
        # After the last frame of a trajectory nothing is remembered that what is before it could lean on.
        return [self.near(frames[:end] if x < end - 1 else frames, x) for x in at]

    @property
    def tells_between(self) -> bool:
        """Whether it is told what lies between frames."""
        return self.between is not None and not self.between.empty

    def near(self, frames: Sequence[Tensor], x: float) -> tuple[Sequence[Tensor], float]:
        """Which of consecutive frames (batch, modes), and of those just beyond them, tell of a place x among
        them, and the place among these."""
        if on_frame(x) or not self.tells_between:
            return frames, x
        k = math.floor(x)
        these = list(frames[max(k - 1, 0) : k + 3])
        if k == 0:
            these = [self._beyond(1)(frames[:3]), *these]
        if len(these) < 4:
            these = [*these, self._beyond(-1)(list(reversed(frames[-3:])))]
        return these, x - k + 1

    def _angle(self) -> Tensor:
        """θ, by which what is remembered turns from frame to frame."""
        if self._drift is None:
            self._drift = drift(self.wave, self.remembered(), len(self.longitude))
        return self._drift

    def off_cubic(self, near: Sequence[Tensor], s: float) -> Tensor:
        """What lies off the cubic at s between the inner two of four frames, (batch, V, latitudes,
        longitudes)."""
        assert self.between is not None
        seen = [heeded(self.wave, self.size.double(), frame) for frame in near]
        off = self.between.off(self.wave, seen, s, self._angle())
        spectrum = off / _both(torch.arange(off.shape[-1])).to(off).sqrt()
        fields = torch.fft.irfft(spectrum, n=len(self.longitude), norm="forward")
        return fields.unflatten(1, (self.channels, -1)) / self._fine()

    def _fine(self) -> Tensor:
        """(V, latitudes, 1): what fields are multiplied by, that squares be in units of what modes leave."""
        return self._area().sqrt() / (self.left.double() + _LEAST_LEFT).sqrt()[:, None, None]

    def carried(self, amplitudes: Tensor) -> Tensor:
        """Φ(a) (batch, modes), a frame later."""
        solved = self._solved()
        return self._linearly(amplitudes, solved.linear) + self._told_by(amplitudes, solved.off)

    def _linearly(self, amplitudes: Tensor, linear: Sequence[Tensor]) -> Tensor:
        """L a (batch, modes)."""
        parts = [
            amplitudes[:, start:end] @ own
            for (_, (start, end)), own in zip(self._waves(), linear, strict=True)
        ]
        return torch.cat(parts, dim=-1)

    def _told_by(self, amplitudes: Tensor, weights: Tensor) -> Tensor:
        """Σ K_m(a, w_i) α_im (batch, modes), of α (n, modes)."""
        kernel = self._kernel(amplitudes, self._solved().known)
        found = torch.cat([kernel[m] @ weights[:, start:end] for m, (start, end) in self._waves()], dim=-1)
        return torch.where(self.wave == 0, found.real + 0j, found)

    def _solved(self) -> "_Solved":
        if self._weights is None:
            memory = self.remembered()
            known, after = memory[:, :-1].flatten(0, 1), memory[:, 1:].flatten(0, 1)
            linear = self._linear(known, after)
            rows = torch.arange(len(known), device=known.device).split(_BLOCK)
            kernel = [self._kernel(known[own], known[: int(own[-1]) + 1]) for own in rows]
            off = torch.stack([after - self._linearly(known, linear), known], dim=1)
            off, own = self._regressed(kernel, off, RIDGE).unbind(1)
            doubt = self._regressed(kernel, known[:, None], OWN_RIDGE)[:, 0]
            self._weights = _Solved(known, linear, off, own, doubt)
        return self._weights

    def _linear(self, known: Tensor, after: Tensor) -> list[Tensor]:
        """L of each wave number, (its modes, its modes), from states (n, modes) and what followed them."""
        found = []
        for _, (start, end) in self._waves():
            own = known[:, start:end]
            moments = own.mH @ own / len(own)
            ridge = _LINEAR_RIDGE * moments.diagonal().real.mean().clamp_min(1e-30)
            moments.diagonal().add_(ridge)
            likely = torch.linalg.solve(moments, own.mH @ after[:, start:end] / len(own))
            left, gain, right = torch.linalg.svd(likely, full_matrices=False)
            found.append((left * gain.clamp_max(1.0).to(left)) @ right)
        return found

    def _regressed(self, kernel: Sequence[Tensor], after: Tensor, ridge: float) -> Tensor:
        """α (n, j, modes), with which the regression leads from states to others (n, j, modes).

        Args:
            kernel: blocks of rows of Hermitian matrices, up to their diagonals.
        """
        weights = torch.empty_like(after)
        lower = after.new_zeros(len(after), len(after))
        for m, (start, end) in self._waves():
            for block in kernel:
                last = block.shape[2]
                lower[last - block.shape[1] : last, :last] = block[m]
            lower.diagonal().add_(ridge)
            factor = torch.linalg.cholesky(lower)
            solved = torch.cholesky_solve(after[..., start:end].flatten(1), factor)
            weights[..., start:end] = solved.unflatten(1, (after.shape[1], -1))
        return weights

    def remembered(self) -> Tensor:
        """w (S, T, modes), the amplitudes of the trajectories."""
        counted = torch.view_as_complex(self.memory.numbers(self._groups())).permute(2, 1, 0)
        return counted * (self.grain / _both(self.wave).sqrt())

    def _by_size(self) -> Tensor:
        """(modes,): the modes, those of the largest variance first."""
        return self.size.square().mul(_both(self.wave)).argsort(descending=True, stable=True)

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """K_m(a, b), (waves, len(a), len(b)), for every m up to the largest that has modes."""
        turns, both, waves = self.turns, _both(self.wave), int(self.wave[-1]) + 1
        size_a, size_b = [(both * part.abs().square()).sum(-1) for part in (a, b)]
        width = _WIDTH * (both * self.size.double().square()).sum()
        kernel = a.new_empty(waves, len(a), len(b))
        for rows in torch.arange(len(a), device=a.device).split(_ROWS):
            products = a.new_zeros(turns // 2 + 1, len(rows), len(b))
            for m, (start, end) in self._waves():
                products[m] = a[rows, start:end] @ b[:, start:end].mH
            turned = torch.fft.irfft(products, n=turns, dim=0, norm="forward")
            distance = size_a[rows, None] + size_b - 2 * turned
            across = torch.fft.rfft((-0.5 * distance / width).exp(), dim=0, norm="forward")
            kernel[:, rows] = across[:waves]
        return kernel

    def _waves(self) -> list[tuple[int, tuple[int, int]]]:
        """Each wave number that has modes, and where they begin and end."""
        numbers, counts = self.wave.unique_consecutive(return_counts=True)
        ends = counts.cumsum(0).tolist()
        return [
            (m, (end - n, end)) for m, n, end in zip(numbers.tolist(), counts.tolist(), ends, strict=True)
        ]

    def _groups(self) -> list[slice]:
        """The modes of each wave number."""
        return [slice(start, end) for _, (start, end) in self._waves()]

    def _amplitudes(self, fields: Tensor) -> Tensor:
        """a (…, modes) of fields (…, V, latitudes, longitudes)."""
        mean = self.mean.double().view(self.channels, -1, 1)
        spectrum = torch.fft.rfft(self._weighed(fields - mean), norm="forward").flatten(-3, -2)
        profiles = self.profiles
        parts = [spectrum[..., m] @ profiles[start:end].mH for m, (start, end) in self._waves()]
        return torch.cat(parts, dim=-1)

    def _fields(self, amplitudes: Tensor) -> Tensor:
        """The inverse of `_amplitudes`."""
        profiles = self.profiles
        shape = (*amplitudes.shape[:-1], profiles.shape[1], len(self.longitude) // 2 + 1)
        spectrum = amplitudes.new_zeros(shape)
        for m, (start, end) in self._waves():
            spectrum[..., m] = amplitudes[..., start:end] @ profiles[start:end]
        values = torch.fft.irfft(spectrum, n=len(self.longitude), norm="forward")
        values = values.unflatten(-2, (self.channels, -1))
        return values / self._scales() + self.mean.double().view(*values.shape[-3:-1], 1)

    def _weighed(self, fields: Tensor) -> Tensor:
        return fields * self._scales()

    def _scales(self) -> Tensor:
        """(V, latitudes, 1): what fields are multiplied by, that the sum of squares be the norm."""
        return self._area().sqrt() * self.weight.double()[:, None, None]

    def _slowness(self, fields: Tensor, away: Tensor) -> Tensor:
        """(V,): of each variable, the inverse share of its variance that changes within a frame."""
        area = self._area()
        change = (area * fields.diff(dim=1).square()).sum((-2, -1)).mean((0, 1))
        slow = (area * away.square()).sum((-2, -1)).mean((0, 1)) / change.clamp_min(1e-30)
        return (slow / slow.max()).clamp_min(_LEAST_WEIGHT)

    def _area(self) -> Tensor:
        """(latitudes, 1): the share of the sphere that a circle of the grid stands for."""
        cells = self.geometry.weights({"latitude": self.latitude, "longitude": self.longitude})
        return (cells.sum(1) / cells.sum())[:, None]

    def measure(self) -> Tensor:
        """(latitudes · longitudes,): the part of the sphere of each point, in units of their mean.

        To the last bit as `trajectory.measure` has it: the encoder keeps its factors for what it has seen.
        """
        cells = self.geometry.weights({"latitude": self.latitude, "longitude": self.longitude}).flatten()
        return cells / cells.mean()

    def points(self) -> Tensor:
        """(latitudes · longitudes, 3), of the grid."""
        return self._place({"latitude": self.latitude, "longitude": self.longitude})

    def _place(self, axes: Mapping[str, Tensor]) -> Tensor:
        latitude, longitude = torch.meshgrid(axes["latitude"], axes["longitude"], indexing="ij")
        return self.geometry.embed(torch.stack([longitude, latitude], dim=-1)).flatten(0, 1)

    def _written(self, encoder: PrincipalSGD, fields: Tensor) -> Latents:
        """Latents that show fields (batch, V, latitudes, longitudes)."""
        return encoder(self.points(), fields.flatten(-2).mT, None, self.measure())

    def seen(self, encoder: PrincipalSGD, contexts: Tensor) -> Tensor:
        """Fields (batch, V, latitudes, longitudes) that contexts (batch, N, context_dim) show."""
        latents = Latents(encoder.poses, contexts.double(), encoder.windows)
        values = encoder.field(self.points(), latents)
        return values.movedim(-1, 1).unflatten(-1, (len(self.latitude), len(self.longitude)))


@dataclass(frozen=True)
class _Solved:
    """What follows from the remembered states alone.

    Attributes:
        known: w (n, modes).
        linear: L of each wave number, (its modes, its modes).
        off: α of Φ, (n, modes).
        own: α of Φ₀, (n, modes).
        doubt: the same, of states in doubt.
    """

    known: Tensor
    linear: list[Tensor]
    off: Tensor
    own: Tensor
    doubt: Tensor


@dataclass(frozen=True)
class Told:
    """What is known of states that are observed alike.

    Attributes:
        these: which of the batch they are, (batch,).
        known: at which points something of them is observed, (all points,).
        step: the exact step for these M points.
        values: what is observed there, (states, M, V), NaN where nothing is.
        error: its variance, with what neither latents nor modes can hold, (M, V); infinite where nothing is
            observed.
    """

    these: Tensor
    known: Tensor
    step: "_LooseStep | _CircleStep"
    values: Tensor
    error: Tensor


class _LooseStep:
    """The most likely state, given observations anywhere: dense, of some of the modes."""

    def __init__(
        self,
        flow: KernelDynamics,
        points: Tensor,
        error: Tensor,
        kept: Tensor,
        width: tuple[float, float] | None,
    ) -> None:
        latitude, longitude = _degrees(flow, points)
        self._flow, self._kept, self._known = flow, kept, error.isfinite()
        self._mean = flow._mean_at(latitude, width)
        self._rows = self._read(latitude, longitude, width)
        self._centres = self._rows if width is None else self._read(latitude, longitude, None)
        self._at_centres = self._mean if width is None else flow._mean_at(latitude, None)
        parts = torch.cat([kept, kept + len(flow.wave)])
        self._exact = ExactStep(self._rows[self._known][:, parts], error[self._known].rsqrt())

    def _read(self, latitude: Tensor, longitude: Tensor, width: tuple[float, float] | None) -> Tensor:
        """A (M, V, 2 modes): what x and y show."""
        profiles, wave = self._flow._profiles_at(latitude, width), self._flow.wave
        shown = profiles * _turns(longitude, wave)[:, None]
        return torch.cat([shown.real, torch.where(wave > 0, -shown.imag, 0.0)], dim=-1)

    def amplitudes(self, values: Tensor) -> Tensor:
        """a (batch, modes) from values (batch, M, V)."""
        x, y = self._exact((values - self._mean)[:, self._known]).chunk(2, dim=-1)
        found = x.new_zeros(len(x), len(self._flow.wave), dtype=torch.complex128)
        found[:, self._kept] = torch.complex(x, y)
        return found / self._flow.precision()

    def shown(self, amplitudes: Tensor) -> Tensor:
        """What amplitudes show beside the mean, (batch, M, V)."""
        return self._applied(self._rows, amplitudes)

    def left(self, values: Tensor, amplitudes: Tensor) -> Tensor:
        """What amplitudes leave of the values that are observed, (batch, M, V)."""
        return torch.where(self._known, values - self._mean - self.shown(amplitudes), 0.0)

    def between(self, amplitudes: Tensor) -> Tensor:
        """(batch, M, V): what a state has at centres more than its means over cells."""
        return self._applied(self._centres - self._rows, amplitudes) + (self._at_centres - self._mean)

    def _applied(self, rows: Tensor, amplitudes: Tensor) -> Tensor:
        w = amplitudes * self._flow.precision()
        return torch.einsum("mvr,br->bmv", rows, torch.cat([w.real, w.imag], dim=-1))


class _CircleStep:
    """The most likely state, given observations all along some circles of latitude: a step for each wave."""

    def __init__(
        self,
        flow: KernelDynamics,
        points: Tensor,
        error: Tensor,
        circles: Tensor,
        width: tuple[float, float] | None,
    ) -> None:
        latitude, longitude = _degrees(flow, points[circles])
        self._flow, self._circles, self._count = flow, circles, circles.shape[1]
        self._start = longitude[:, 0]
        rings = latitude[:, 0]
        self._mean = flow._mean_at(rings, width)
        self._at_centres = flow._mean_at(rings, None)
        turned = _turns(self._start, flow.wave)[:, None]
        self._seen = flow._profiles_at(rings, width) * turned
        self._centres = flow._profiles_at(rings, None) * turned if width is not None else self._seen
        self._error = error[circles[:, 0]]

    def amplitudes(self, values: Tensor) -> Tensor:
        """a (batch, modes) from values (batch, M, V)."""
        flow = self._flow
        found = values.new_zeros(len(values), len(flow.wave), dtype=torch.complex128)
        for _, these, w in self._waves(values):
            x, y = w.chunk(2, dim=-1)
            found[:, these] = torch.complex(x, y)
        found = torch.where(flow.wave > 0, found, found.real + 0j)
        return found / flow.precision()

    def shown(self, amplitudes: Tensor) -> Tensor:
        """What amplitudes show beside the mean, (batch, M, V)."""
        return self._applied(self._seen, amplitudes, torch.zeros_like(self._mean))

    def left(self, values: Tensor, amplitudes: Tensor) -> Tensor:
        """What amplitudes leave of the values, (batch, M, V)."""
        return values - self._applied(self._seen, amplitudes, self._mean)

    def between(self, amplitudes: Tensor) -> Tensor:
        """(batch, M, V): what a state has at centres more than its means over cells."""
        return self._applied(self._centres - self._seen, amplitudes, self._at_centres - self._mean)

    def _applied(self, profiles: Tensor, amplitudes: Tensor, mean: Tensor) -> Tensor:
        flow = self._flow
        w = amplitudes * flow.precision()
        around = torch.arange(self._count).to(mean) * (2 * torch.pi / self._count)
        fields = mean[:, None].expand(len(w), -1, self._count, -1).clone()
        for m, (start, end) in flow._waves():
            wave = torch.einsum("lvk,bk->blv", profiles[..., start:end], w[:, start:end])
            fields += (wave[:, :, None] * torch.polar(torch.ones_like(around), m * around)[:, None]).real
        found = torch.empty(len(w), self._circles.numel(), fields.shape[-1]).to(fields)
        found[:, self._circles.flatten()] = fields.flatten(1, 2)
        return found

    def _waves(self, values: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Of every wave k: which modes it shows, and their most likely x and y (batch, 2 modes)."""
        away = values[:, self._circles] - self._mean[:, None]
        spectrum = torch.fft.rfft(away, dim=2, norm="forward")
        for k in range(self._count // 2 + 1):
            rest = self._flow.wave % self._count
            these = ((rest == k) | (rest == (self._count - k) % self._count)).nonzero().flatten()
            if not len(these):
                continue
            alone = 2 * k % self._count == 0
            error = (self._error / self._count) * (1.0 if alone else 0.5)
            part = spectrum[:, :, k].flatten(1)
            known = part.real if alone else torch.cat([part.real, part.imag], dim=-1)
            precision = error.flatten().rsqrt().repeat(1 if alone else 2)
            yield k, these, ExactStep(self._rows(self._seen, k, these), precision)(known)

    def _rows(self, profiles: Tensor, k: int, these: Tensor) -> Tensor:
        """What x and y of the modes `these` show of the wave k on all circles, its real and imaginary part.

        f = Re Σ w q e^{imλ} has there ½ Σ w q over m = k and ½ Σ (w q)* over m = −k, modulo n.
        """
        rest = self._flow.wave[these] % self._count
        q = 0.5 * profiles[..., these].flatten(0, 1)
        plus, minus = (rest == k).to(q.real), (rest == (self._count - k) % self._count).to(q.real)
        real = torch.cat([(plus + minus) * q.real, -(plus + minus) * q.imag], dim=-1)
        if 2 * k % self._count == 0:
            return real
        return torch.cat([real, torch.cat([(plus - minus) * q.imag, (plus - minus) * q.real], dim=-1)])


def _degrees(flow: KernelDynamics, points: Tensor) -> tuple[Tensor, Tensor]:
    """Latitudes in degrees, and longitudes from the first of the grid in radians, of points (…, 3)."""
    latitude = points[..., 2].clamp(-1, 1).asin().rad2deg()
    return latitude, _longitude(points) - flow.longitude[0].deg2rad()


def _turns(longitude: Tensor, wave: Tensor) -> Tensor:
    """e^{imλ}, (M, modes), of longitudes λ (M,) in radians and wave numbers m (modes,)."""
    angle = longitude[:, None] * wave
    return torch.polar(torch.ones_like(angle), angle)


def _longitude(points: Tensor) -> Tensor:
    """Of points (…, 3), in radians."""
    return torch.atan2(points[..., 1], points[..., 0])


def _circles(points: Tensor, error: Tensor) -> Tensor | None:
    """Which points (circles, n) go around the world on each circle of latitude, eastward at equal distances,
    all of them observed, on each circle alike; None if they do not."""
    latitude, longitude = points[:, 2], _longitude(points)
    _, ring, counts = latitude.mul(1e9).round().unique(return_inverse=True, return_counts=True)
    count = int(counts[0])
    if count < 4 or not bool((counts == count).all()) or not bool(error.isfinite().all()):
        return None
    order = longitude.argsort()
    order = order[ring[order].argsort(stable=True)].view(-1, count)
    gaps = longitude[order].diff(dim=1)
    even = bool(((gaps - 2 * torch.pi / count).abs() < 1e-6).all())
    alike = bool(torch.isclose(error[order], error[order[:, :1]], rtol=1e-6, atol=0).all())
    return order if even and alike else None


def _across(latitude: Tensor, x: Tensor, parity: int) -> Tensor:
    """(M, latitudes): values at latitudes x (M,) from those of a grid, in degrees, by the cubic spline.

    Along a meridian, over the pole and down the opposite one, the profile of an even wave number goes on as
    itself, that of an odd one with its sign turned: the spline is periodic on that circle.

    Args:
        parity: 1 of an even wave number, −1 of an odd one.
    """
    south = latitude.sort().values
    values = torch.eye(len(south)).to(latitude)[latitude.argsort()]
    # A pole lies on that circle once, and odd waves vanish there.
    polar = south.abs() > 90 - _POLE
    values[polar] *= (1 + parity) / 2
    back = ~polar.flip(0)
    nodes = torch.cat([south, (180 - south.flip(0))[back]])
    values = torch.cat([values, parity * values.flip(0)[back]])
    count = len(nodes)
    step = torch.cat([nodes, nodes[:1] + 360]).diff()
    before, after = step.roll(1), step
    slopes = (values.roll(-1, 0) - values) / step[:, None]
    equal = torch.diag(2 * (before + after))
    ring = torch.arange(count, device=latitude.device)
    equal[ring, (ring - 1) % count] += before
    equal[ring, (ring + 1) % count] += after
    bends = torch.linalg.solve(equal, 6 * (slopes - slopes.roll(1, 0)))
    first = torch.searchsorted(south.contiguous(), x.contiguous()).sub(1) % count
    gap, b = step[first][:, None], ((x - nodes[first]) % 360)[:, None] / step[first][:, None]
    a, later = 1 - b, (first + 1) % count
    bent = (a**3 - a) * bends[first] + (b**3 - b) * bends[later]
    return a * values[first] + b * values[later] + gap**2 / 6 * bent


def _cosines(count: int) -> Tensor:
    """The orthogonal matrix (frequencies, places) of the cosine transform at the middles of equal cells."""
    place = torch.arange(count, dtype=torch.float64)
    cosines = (math.pi / count * place[:, None] * (place + 0.5)).cos() * (2 / count) ** 0.5
    cosines[0] *= 0.5**0.5
    return cosines


def _orthonormal(rows: Tensor) -> Tensor:
    """Rows (k, n), k ≤ n, made orthonormal one after the other."""
    found, triangle = torch.linalg.qr(rows.T)
    signs = triangle.diagonal().sgn()
    return (found * torch.where(signs == 0, 1.0, signs)).T


def waves_on(longitudes: int) -> int:
    """How many wave numbers m = 0, 1, … so many longitudes tell from one another, phase and all."""
    return (longitudes + 1) // 2


def _both(wave: Any) -> Any:
    """How often a wave number counts in a sum over all of them, negative ones as well."""
    return 2.0 - 1.0 * (wave == 0)
