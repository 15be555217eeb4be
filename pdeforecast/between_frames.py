"""What lies between the frames of a path on the rotating sphere.

Seen from axes that turn with the flow, by θ from frame to frame, fields change slowly, and a cubic through
four frames tells what lies between the inner two. With the zonal amplitudes a_m of frames k − 1, …, k + 2 and
the weights ℓ of Lagrange, at s between frames k and k + 1

    a_m(s) = Σ_j ℓ_j(s) e^{imθ(s − j)} a_m(k + j).

What it misses is faster than frames tell, such as gravity waves, and no interpolation finds it. Solutions of
the equation from each frame (`generation/refinement.py`) show it. For each wave number m it is a linear
function of the four frames, of another jet another one:

    r_m(s) = Σ_pq φ_p τ_q(s) W_pq · (d_m, u ⊗ d_m),

with what the four frames, as they turn, have of the discrete Legendre polynomials (their mean, slope, bend
and twist), d_m, each in units of its size, and the largest amplitudes u of m = 0, which are what the jet is;
u counts for means and slopes of the largest alone. φ are profiles over latitudes, τ courses: polynomials in s
that vanish on frames. Both are the principal directions of all that is told, of all m. W is found by ridge
regression. A turn of the world by α leaves u as it is and multiplies all else by e^{−imα}.

W is kept in whole numbers of grains, each so fine that all of them miss alike; most are zero then. They are
not rounded one by one: each takes over what those before it missed, as far as it tells of the same.

The first interval has no frame before it, and the last may have none after it. The same regression, from the
three frames that are nearest, tells one (`Beyond`).

Source: L. Babai, On Lovász' lattice reduction and the nearest lattice point problem, Combinatorica 6 (1986) 1
(nearest plane).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from pdeforecast.packed import Packed

_NODES = 19
"""Places in an interval that a course is known at."""
_NEAR = 4
"""Frames that tell of an interval."""
_HEEDED = 80
"""Amplitudes of each wave number that tell, the largest."""
_JETS = 4
"""Amplitudes of m = 0 that tell what the jet is."""
_BENT = 32
"""Amplitudes of each wave number, the largest, that count otherwise of another jet."""
_BENT_ORDERS = 2
"""Of them, means and slopes."""
_BEND = 0.3
"""What a jet counts for, where 1 itself counts for 1."""
_RIDGE = 1e-3
"""Of the regression, in units of the mean square of what tells."""
_LEAST_SPREAD = 1e-6
"""Of what frames have of a polynomial, in units of the spread of their amplitudes."""
_ZERO = 0.6
"""Grains: less is rounded to zero, which takes fewer bytes."""
_DIRECTIONS = 128
"""Over latitudes, that profiles are told in."""
_NEWTON = 4
"""Steps to the turn that fits best, from the nearest of many."""
_ON_FRAME = 1e-6
_MOMENTS = ["tjv,tkv->jk", "tjv,tjw->vw"]
"""Of courses and of profiles."""


class KeptTypes(nn.Module):
    """A module whose own buffers keep their types, whatever that of the networks."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "KeptTypes":
        kept = {name: buffer.dtype for name, buffer in self.named_buffers(recurse=False)}
        super()._apply(fn, recurse)
        for name, dtype in kept.items():
            setattr(self, name, getattr(self, name).to(dtype))
        return self


class BetweenFrames(KeptTypes):
    """The path between frames.

    Args:
        values: V·latitudes, of a profile.
        numbers: wave numbers of the grid.

    Attributes:
        weights: W of each wave number, one after another (courses, profiles, told), real and imaginary parts,
            in whole numbers of grains.
        extent: (wave numbers, 3), how many tell, and of how many courses and profiles.
        grain: (wave numbers, most that tell).
        course: τ (nodes, courses), orthonormal.
        profile: φ (V·latitudes, profiles), likewise but for rounding.
        spread: (wave numbers, 4), of what frames have of each polynomial, in units of σ.
    """

    extent: Tensor
    grain: Tensor
    course: Tensor
    profile: Tensor
    spread: Tensor

    def __init__(self, values: int, numbers: int) -> None:
        super().__init__()
        self.weights = Packed(0, 2)
        self.register_buffer("extent", torch.zeros(numbers, 3, dtype=torch.int16))
        self.register_buffer("grain", torch.ones(numbers, _told_by(_HEEDED), dtype=torch.bfloat16))
        self.register_buffer("course", torch.zeros(_NODES, _NODES))
        self.register_buffer("profile", torch.zeros(values, min(_DIRECTIONS, values), dtype=torch.float16))
        self.register_buffer("spread", torch.ones(numbers, _NEAR))

    @property
    def empty(self) -> bool:
        """Whether nothing is told."""
        return not bool(self.extent.any())

    def learn(
        self, wave: Tensor, frames: Tensor, missed: Iterable[Tensor], angle: Tensor, grain: float
    ) -> None:
        """Learns W.

        Args:
            wave: (modes,), m of each amplitude, in rising order.
            frames: `heeded` of trajectories (S, T, wave numbers, heeded), with one before the first and one
                after the last of which it is known what lies between.
            missed: of each, what lies off the cubic at the nodes (T − 3, nodes, V·latitudes, wave numbers),
                in such units that squares may be added.
            angle: θ.
            grain: what rounding makes one number miss.
        """
        orders = _orders([frames[:, j : frames.shape[1] - _NEAR + 1 + j] for j in range(_NEAR)], angle)
        self.spread[: frames.shape[2]] = _sizes(orders)
        counts = _heeds(wave)
        told = {m: _told_by(count) for m, count in counts.items()}
        values = _NODES * len(self.profile)
        squares = {m: frames.new_zeros(n, n) for m, n in told.items()}
        products = {m: frames.new_zeros(n, values) for m, n in told.items()}
        for path, off in zip(orders, missed, strict=True):
            for m, known in _told(path / self.spread[: path.shape[-3], :, None], counts):
                squares[m] += known.mH @ known
                products[m].addmm_(known.mH, off[..., m].flatten(1))
        factors = {m: torch.linalg.cholesky(_ridged(square)) for m, square in squares.items()}
        for m, factor in factors.items():
            products[m] = torch.linalg.solve_triangular(factor, products[m], upper=False)
        self._keep(factors, products, grain * math.sqrt(orders.shape[0] * orders.shape[1]))

    def _keep(self, factors: dict[int, Tensor], tensors: dict[int, Tensor], missed: float) -> None:
        """W from tensors (told, nodes · V·latitudes), told in units of the factors of squares."""
        parts = [tensor.unflatten(-1, (_NODES, -1)) for tensor in tensors.values()]
        moments = [
            torch.stack([torch.einsum(how, x, x.conj()).real for x in parts]).sum(0) for how in _MOMENTS
        ]
        course, profile = (torch.linalg.eigh(moment)[1].flip(-1) for moment in moments)
        self.course.copy_(course)
        self.profile.copy_(profile[:, : self.profile.shape[1]])
        kept = []
        self.extent.zero_()
        for (m, factor), part in zip(factors.items(), parts, strict=True):
            upper = factor.mH
            exact = torch.einsum("tjv,jc,vp->tcp", part, self.course.to(part), self.profile.to(part))
            weights = torch.linalg.solve_triangular(upper, exact.flatten(1), upper=True)
            self.grain[m, : len(upper)] = missed / upper.diagonal().real
            grain = self.grain[m, : len(upper), None].to(weights.real)
            whole = _rounded(upper, weights, grain).view_as(exact)
            ends = [int(used.nonzero().max()) + 1 for used in _used(whole)] if whole.any() else [0, 0, 0]
            self.extent[m] = torch.tensor(ends)
            used = whole[tuple(slice(end) for end in ends)]
            kept.append(torch.view_as_real(used.permute(1, 2, 0).contiguous()).view(-1, 2))
        self.weights.keep(torch.cat(kept))

    def off(self, wave: Tensor, near: Sequence[Tensor], s: float, angle: Tensor) -> Tensor:
        """r (batch, V·latitudes, wave numbers) from `heeded` of four frames, (batch, wave numbers, heeded).

        Args:
            wave: (modes,), m of each amplitude.
            s: in [0, 1], between the inner two.
            angle: θ.
        """
        orders = _orders(near, angle) / self.spread[: near[0].shape[1], :, None]
        at = self.course.double().mT @ angle.new_tensor(_lagrange([0.0, *nodes(), 1.0], s)[1:-1])
        profile, start = self.profile.to(orders), 0
        stored = self._stored()
        r = orders.new_zeros(len(orders), len(profile), orders.shape[1])
        for m, known in _told(orders, _heeds(wave)):
            told, courses, profiles = self.extent[m].tolist()
            if not told:
                continue
            end = start + told * courses * profiles
            own = stored[start:end].view(courses, -1).to(at)
            weights = torch.view_as_complex((at[:courses] @ own).view(profiles, told, 2)).mT
            r[..., m] = (known[:, :told] * self.grain[m, :told]) @ weights @ profile[:, :profiles].mT
            start = end
        return r

    def _stored(self) -> Tensor:
        """W of all wave numbers, one number after another, (…, 2)."""
        self.weights.shape = (int(self.extent.long().prod(-1).sum()), 2)
        return self.weights.whole()


class Beyond:
    """The frame before the first three of a path, by regression from these.

    Args:
        wave, size: (modes,), m and σ of each; m in rising order.
        paths: amplitudes (S, T, modes) of trajectories that tell of it, T at least four. Backwards, with −θ,
            they tell of the frame after the last three.
        angle: θ.
    """

    def __init__(self, wave: Tensor, size: Tensor, paths: Tensor, angle: Tensor) -> None:
        self._wave, self._size, self._angle = wave, size, angle
        seen = heeded(wave, size, paths)
        orders = _orders([seen[:, 1 + j : paths.shape[1] - 2 + j] for j in range(3)], angle)
        self._spread = _sizes(orders)
        sought, self._weights = paths[:, :-3] * self._turn(), {}
        for m, known in self._told(orders):
            known, before = known.flatten(0, 1), sought[..., wave == m].flatten(0, 1)
            self._weights[m] = torch.cholesky_solve(
                known.mH @ before, torch.linalg.cholesky(_ridged(known.mH @ known))
            )

    def __call__(self, near: Sequence[Tensor]) -> Tensor:
        """The frame (…, modes) before three of them, the nearest first."""
        orders = _orders([heeded(self._wave, self._size, frame) for frame in near], self._angle)
        found = torch.empty_like(near[0])
        for m, known in self._told(orders):
            found[..., self._wave == m] = known @ self._weights[m]
        return torch.where(self._wave == 0, found.real + 0j, found) * self._turn().conj()

    def _turn(self) -> Tensor:
        """From before the first of three frames to their middle."""
        return torch.polar(torch.ones_like(self._size), 2 * self._angle * self._wave)

    def _told(self, orders: Tensor) -> Iterator[tuple[int, Tensor]]:
        return _told(orders / self._spread[..., None], _heeds(self._wave))


def drift(wave: Tensor, amplitudes: Tensor, turns: int) -> Tensor:
    """θ, in radians, by which frames (S, T, modes) of trajectories are best turned onto the ones after them.

    Args:
        wave: (modes,), m of each amplitude.
        turns: longitudes of the grid.
    """
    alike = (amplitudes[:, :-1].conj() * amplitudes[:, 1:]).sum((0, 1)) * (wave > 0)
    count = 16 * turns
    spectrum = alike.new_zeros(count // 2 + 1).index_add(0, wave, alike)
    best = int(torch.fft.irfft(spectrum.conj(), n=count).argmax())
    angle = alike.real.new_tensor(2 * math.pi * (best - count * (best > count // 2)) / count)
    for _ in range(_NEWTON):
        turned = alike * torch.polar(torch.ones_like(alike.real), -angle * wave)
        bend = (wave.square() * turned.real).sum()
        angle = angle + (wave * turned.imag).sum() / bend.clamp_min(1e-300)
    return angle


def heeded(wave: Tensor, size: Tensor, amplitudes: Tensor) -> Tensor:
    """Of amplitudes (…, modes) the largest of every wave number, in units of their spread: (…, wave numbers,
    heeded).

    Args:
        wave, size: (modes,), m and σ of each; m in rising order.
    """
    found = amplitudes.new_zeros(*amplitudes.shape[:-1], int(wave[-1]) + 1, _HEEDED)
    for m in wave.unique().tolist():
        own = (wave == m).nonzero().flatten()
        own = own[size[own].argsort(descending=True, stable=True)][:_HEEDED]
        found[..., m, : len(own)] = amplitudes[..., own] / size[own]
    return found


def nodes() -> list[float]:
    """s of the places in an interval at which courses are known: with its ends, Chebyshev points."""
    return [0.5 - 0.5 * math.cos(math.pi * j / (_NODES + 1)) for j in range(1, _NODES + 1)]


def cubic(frames: Sequence[Tensor], x: float, turn: Tensor) -> Tensor:
    """Amplitudes at a place x among frames 0, 1, …: on a frame that frame, else a cubic through four.

    Args:
        frames: each (…, modes).
        turn: mθ, (modes,).
    """
    if on_frame(x):
        return frames[round(x)]
    first = max(0, min(math.floor(x) - 1, len(frames) - 4))
    return through(frames[first : first + 4], x - first, turn)


def through(frames: Sequence[Tensor], x: float, turn: Tensor) -> Tensor:
    """Amplitudes at x, anywhere, on the polynomial through all frames 0, 1, …; arguments as in `cubic`."""
    weights = _lagrange([float(k) for k in range(len(frames))], x)
    parts = [w * torch.polar(torch.ones_like(turn), turn * (x - k)) for k, w in enumerate(weights)]
    return torch.stack([part * frame for part, frame in zip(parts, frames, strict=True)]).sum(0)


def on_frame(x: float) -> bool:
    """Whether a place among frames is one of them."""
    return abs(x - round(x)) < _ON_FRAME


def _orders(near: Sequence[Tensor], angle: Tensor) -> Tensor:
    """What n frames (…, wave numbers, heeded), turned to half-way between the outer ones, have of each of
    the discrete Legendre polynomials, (…, wave numbers, n, heeded)."""
    count = len(near)
    place = torch.arange(count).to(angle) - (count - 1) / 2
    polynomials, triangle = torch.linalg.qr(torch.stack([place**k for k in range(count)], dim=1))
    polynomials = polynomials * triangle.diagonal().sign()
    turn = torch.arange(near[0].shape[-2]).to(angle)[:, None] * angle
    turned = [
        frame * torch.polar(torch.ones_like(turn), -x * turn) for frame, x in zip(near, place, strict=True)
    ]
    return torch.einsum("j...h,jn->...nh", torch.stack(turned), polynomials.to(turned[0]))


def _sizes(orders: Tensor) -> Tensor:
    """(wave numbers, n), of `_orders` (trajectories, times, wave numbers, n, heeded)."""
    squares = orders.abs().square().mean((0, 1))
    count = (squares > 0).any(1).sum(-1, keepdim=True).clamp_min(1)
    return (squares.sum(-1) / count).sqrt().clamp_min(_LEAST_SPREAD)


def _told(d: Tensor, counts: Mapping[int, int]) -> Iterator[tuple[int, Tensor]]:
    """What tells of each wave number that has modes, (d, u ⊗ d), from d (…, wave numbers, n, heeded).

    Args:
        counts: how many are heeded of each.
    """
    u = _BEND * d[..., 0, 0, :_JETS].real
    for m, count in counts.items():
        own = d[..., m, :, :count]
        bent = u[..., None] * own[..., :_BENT_ORDERS, :_BENT].flatten(-2)[..., None, :]
        yield m, torch.cat([own.flatten(-2), bent.flatten(-2)], dim=-1)


def _told_by(count: int) -> int:
    """How many numbers tell of a wave number, of which so many amplitudes are heeded."""
    return _NEAR * count + _JETS * _BENT_ORDERS * min(count, _BENT)


def _heeds(wave: Tensor) -> dict[int, int]:
    """How many amplitudes are heeded of each wave number that has modes."""
    numbers, counts = wave.unique(return_counts=True)
    return dict(zip(numbers.tolist(), counts.clamp_max(_HEEDED).tolist(), strict=True))


def _used(whole: Tensor) -> list[Tensor]:
    """Along each axis of a tensor, where something is not zero."""
    return [(whole != 0).movedim(i, 0).flatten(1).any(1) for i in range(whole.ndim)]


def _rounded(upper: Tensor, matrix: Tensor, grain: Tensor) -> Tensor:
    """Whole numbers Z, real and imaginary, such that U (g Z) is near U Y, by the nearest plane.

    Args:
        upper: U (n, n), with a positive diagonal.
        matrix: Y (n, k).
        grain: g (n, 1).
    """
    left, whole = upper @ matrix, torch.zeros_like(matrix)
    for i in reversed(range(len(upper))):
        best = torch.view_as_real(left[i] / (upper[i, i] * grain[i]))
        whole[i] = torch.view_as_complex(torch.where(best.abs() < _ZERO, 0.0, best.round()))
        left[: i + 1] -= upper[: i + 1, i, None] * (grain[i] * whole[i])
    return whole


def _lagrange(places: Sequence[float], x: float) -> list[float]:
    return [math.prod((x - k) / (i - k) for k in places if k != i) for i in places]


def _ridged(squares: Tensor) -> Tensor:
    mean = squares.diagonal().real.mean().clamp_min(1e-30)
    return squares + _RIDGE * mean * torch.eye(len(squares)).to(squares)
