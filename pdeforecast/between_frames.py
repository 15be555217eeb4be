"""What lies between the frames of a path on the rotating sphere.

Seen from axes that turn with the flow, by θ from frame to frame, fields change slowly, and a cubic through
four frames tells what lies between them. With the zonal amplitudes a_m of frames 0, 1, … at a place x among
them and the weights ℓ of Lagrange,

    a_m(x) = Σ_k ℓ_k(x) e^{imθ(x − k)} a_m(k).

What it misses is faster than frames tell, such as gravity waves, and no interpolation finds it. Solutions of
the equation from each frame (`generation/refinement.py`) show it. For each wave number m it is a linear
function of the two frames beside, of another jet another one: at s between frames k and k + 1

    r_m(s) = Σ_q φ_q τ_q(s) ψ_q · (d_m, u ⊗ d_m),

with the mean and the difference d_m of the amplitudes a_m(k), a_m(k + 1), as they turn, and the largest
amplitudes u of m = 0, which are what the jet is, each in units of its spread; u counts for the largest of d_m
alone. Waves q have a profile φ over latitudes and a course τ, a polynomial in s that vanishes on frames.
Ridge regression gives one tensor (amplitudes, courses, profiles) for each m; the terms of its canonical
polyadic decomposition, by alternating least squares from Jennrich's algorithm, are the waves. A turn of the
world by α leaves u as it is and multiplies all else by e^{−imα}.

Profiles of all m lie near one space of few directions over latitudes, and are told there. ψ and φ are whole
numbers of grains, each so fine that all of them miss alike. They are not rounded one by one: each takes over
what those before it missed, as far as it tells of the same, and φ is sought anew for the ψ that came out.

The first interval has no frame before it, and the last may have none after it. The cubic through the four
nearest then goes on, and how far the frame beyond lies off it, over 16, is one more number of a course, for
either end, learned from intervals where that frame is known.

Sources: S. E. Leurgans, R. T. Ross and R. B. Abel, A decomposition for three-way arrays, SIAM J. Matrix Anal.
Appl. 14 (1993) 1064 (Jennrich's algorithm); T. G. Kolda and B. W. Bader, Tensor decompositions and
applications, SIAM Review 51 (2009) 455 (section 3.4, alternating least squares); M. Rajih, P. Comon and
R. A. Harshman, Enhanced line search, SIAM J. Matrix Anal. Appl. 30 (2008) 1128 (extrapolation, by the cube
root of the sweep); L. Babai, On Lovász' lattice reduction and the nearest lattice point problem,
Combinatorica 6 (1986) 1 (nearest plane).
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from pdeforecast.packed import Packed

_NODES = 11
"""Places in an interval that a course is known at."""
_HEEDED = 80
"""Amplitudes of each wave number that waves are told by, the largest."""
_JETS = 4
"""Amplitudes of m = 0 that tell what the jet is."""
_BENT = 32
"""Amplitudes of each wave number, the largest, that count otherwise of another jet."""
_BEND = 0.3
"""What a jet counts for, where 1 itself counts for 1."""
_RIDGE = 1.5e-3
"""Of the regression, in units of the mean square of what tells."""
_LEAST_SPREAD = 1e-6
"""Of a mean or a difference, in units of the spread of its amplitude."""
_GRAIN = 0.05
"""What rounding a number makes a wave miss, in units of the least of the singular values that waves have."""
_LEAST_SIZE = 1e-4
"""Of a wave, in units of the largest."""
_JITTER = 1e-9
"""Of normal equations, in units of their largest diagonal element."""
_DIRECTIONS = 128
"""Over latitudes, that profiles are told in."""
_SWEEPS = 150
"""Of alternating least squares."""
_SETTLED = 20
"""After so many, every third is begun from where the ones before it lead."""
_WIDER = 2
"""Directions of amplitudes and of profiles that they are sought in, for each term."""
_NEWTON = 4
"""Steps to the turn that fits best, from the nearest of many."""
FAR = 16
"""By which frames beyond the first and the last are brought near in courses: they count for as little between
frames."""
_ENDS = [-1.0, 2.0]
"""Where these are, seen from the interval."""
ENDS = 2
"""Intervals at either end of a trajectory that they cannot be learned from."""
_ON_FRAME = 1e-6


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
        waves: Q.
        values: V·latitudes, of a profile.
        numbers: wave numbers of the grid.

    Attributes:
        wave: (Q,), m.
        heed: ψ (Q, told, 2), real and imaginary parts, in whole numbers of grains.
        grain: (wave numbers, told), of ψ.
        course: τ (Q, 2 + nodes, 2): how far the frames beyond the first and the last lie off, over 16, and at
            the nodes.
        profile: φ (Q, directions, 2), likewise in whole numbers.
        direction: (V·latitudes, directions), orthonormal.
        strength: (Q,), the grain of φ.
        spread: (wave numbers, 2, heeded), of the means and the differences, in units of σ.
    """

    wave: Tensor
    grain: Tensor
    course: Tensor
    direction: Tensor
    strength: Tensor
    spread: Tensor

    def __init__(self, waves: int, values: int, numbers: int) -> None:
        super().__init__()
        told = 2 * (_HEEDED + _JETS * _BENT)
        directions = min(_DIRECTIONS, values)
        self.register_buffer("wave", torch.zeros(waves, dtype=torch.int16))
        self.heed = Packed(waves, told, 2)
        self.register_buffer("grain", torch.ones(numbers, told, dtype=torch.bfloat16))
        self.register_buffer("course", torch.zeros(waves, len(_ENDS) + _NODES, 2, dtype=torch.float16))
        self.profile = Packed(waves, directions, 2)
        self.register_buffer("direction", torch.zeros(values, directions, dtype=torch.float16))
        self.register_buffer("strength", torch.zeros(waves))
        self.register_buffer("spread", torch.ones(numbers, 2, _HEEDED))

    def learn(self, frames: Tensor, missed: Iterable[Tensor], angle: Tensor) -> None:
        """Finds the waves that matter most.

        Args:
            frames: `heeded` of trajectories (S, T, wave numbers, heeded).
            missed: of each, what lies off the cubic, as a course has it (intervals, 2 + nodes, V·latitudes,
                wave numbers), in such units that squares may be added. Of `ENDS` intervals at either end no
                frames beyond; of the outermost what lies off the cubic through the four frames there are.
            angle: θ.
        """
        pairs = _pairs(frames[:, :-1], frames[:, 1:], angle)
        self.spread[: len(pairs[0, 0])] = pairs.abs().square().mean((0, 1)).sqrt().clamp_min(_LEAST_SPREAD)
        outer, inner = [*range(ENDS), *range(-ENDS, 0)], slice(ENDS, -ENDS)
        numbers, told = frames.shape[2], self.heed.shape[1]
        values = (len(_ENDS) + _NODES) * len(self.direction)
        squares, products = frames.new_zeros(numbers, told, told), frames.new_zeros(numbers, told, values)
        ends = []
        for path, off in zip(frames, missed, strict=True):
            known, sought = self._told(path[:-1], path[1:], angle).transpose(0, 1), off.permute(3, 0, 1, 2)
            squares += known[:, inner].mH @ known[:, inner]
            products.baddbmm_(known[:, inner].mH, sought[:, inner].flatten(2))
            ends.append((known[:, outer], sought[:, outer]))
        known, sought = (torch.stack(parts, dim=1) for parts in zip(*ends, strict=True))
        beyond = _weights(squares, products[..., : len(_ENDS) * sought.shape[-1]])
        sought[:, :, :, : len(_ENDS)] = (known.flatten(1, 2) @ beyond).view_as(sought[:, :, :, : len(_ENDS)])
        wave = torch.arange(numbers).to(angle)
        for end, interval in enumerate((0, -1)):
            turned = _beyond(wave, angle, nodes(), end)[:, None, :, None]
            sought[:, :, interval, len(_ENDS) :] -= turned * sought[:, :, interval, end, None]
        known = known.flatten(1, 2)
        squares += known.mH @ known
        products.baddbmm_(known.mH, sought.flatten(1, 2).flatten(2))
        factors = torch.linalg.cholesky(_ridged(squares))
        for factor, tensor in zip(factors, products, strict=True):
            tensor.copy_(torch.linalg.solve_triangular(factor, tensor, upper=False))
        self._keep(factors, products.unflatten(-1, (len(_ENDS) + _NODES, -1)))

    def _keep(self, factors: Tensor, tensors: Tensor) -> None:
        """The waves of tensors (wave numbers, told, 2 + nodes, V·latitudes), told in units of the factors of
        squares; of each wave number as many as it has of the largest singular values."""
        moments = torch.stack([(x.mH @ x).real for x in tensors.flatten(1, 2)]).sum(0)
        direction = torch.linalg.eigh(moments)[1].flip(-1)[:, : self.direction.shape[1]]
        self.direction.copy_(direction)
        tensors = tensors @ direction.to(tensors)
        sizes = torch.stack([torch.linalg.svdvals(tensor.flatten(1)) for tensor in tensors])
        threshold = sizes.flatten().sort(descending=True).values[: len(self.wave)][-1]
        threshold = threshold.clamp_min(max(_LEAST_SIZE * float(sizes.max()), 1e-12))
        ranks = (sizes >= threshold).sum(-1).clamp_max(self.profile.shape[1])
        missed = _GRAIN * threshold
        heeds, profiles = (torch.zeros(part.shape).to(factors.real) for part in (self.heed, self.profile))
        start = 0
        for m, wanted in enumerate(ranks.tolist()):
            # Sizes may be alike.
            rank = min(wanted, len(self.wave) - start)
            if not rank:
                continue
            heed, course, profile = decomposed(tensors[m], rank)
            own = slice(start, start + rank)
            self.wave[own] = m
            self.course[own] = torch.view_as_real(course.T.contiguous())
            course = torch.view_as_complex(self.course[own].double()).T
            upper = factors[m].mH
            size = profile.abs().square().sum(0).sqrt()
            self.grain[m] = missed / upper.diagonal().real
            grain = self.grain[m].to(missed)[:, None]
            heed = _rounded(upper, torch.linalg.solve_triangular(upper, heed * size, upper=True), grain)
            known = upper @ (heed * grain)
            length = known.abs().square().sum(0).sqrt().clamp_min(1e-300)
            known = known / length
            profile = _solved(tensors[m].movedim(2, 0).flatten(1), known, course).T
            upper = torch.linalg.cholesky(_normal(known, course)).mH
            grain = missed / upper.diagonal().real
            profile = _rounded(upper, profile, grain[:, None])
            self.strength[own] = grain / length
            heeds[own], profiles[own] = torch.view_as_real(heed.T), torch.view_as_real(profile)
            start += rank
        self.heed.keep(heeds)
        self.profile.keep(profiles)

    def off(self, before: Tensor, after: Tensor, place: float, ends: Sequence[bool], angle: Tensor) -> Tensor:
        """r (batch, V·latitudes, wave numbers) from `heeded` of two frames, (batch, wave numbers, heeded).

        Args:
            place: s, in [0, 1].
            ends: whether no frame lies before, and whether none lies after.
            angle: θ.
        """
        heed, course, profile = (
            torch.view_as_complex(part)
            for part in (self.heed.numbers(), self.course.double(), self.profile.numbers())
        )
        weights = course.new_tensor(_lagrange([0.0, *nodes(), 1.0], place)[1:-1])
        size = course[:, len(_ENDS) :] @ weights
        for end, here in enumerate(ends):
            if here:
                size = size + _beyond(self.wave, angle, [place], end)[:, 0] * course[:, end]
        own = self.wave.long()
        told = (self._told(before, after, angle) * self.grain[: before.shape[1]])[:, own]
        size = torch.einsum("bqt,qt->bq", told, heed) * (size * self.strength)
        waves = size[..., None] * profile
        r = waves.new_zeros(len(before), before.shape[1], profile.shape[1])
        return self.direction.to(waves) @ r.index_add(1, own, waves).mT

    def _told(self, before: Tensor, after: Tensor, angle: Tensor) -> Tensor:
        """d of two frames and, of the largest amplitudes, u ⊗ d, (…, wave numbers, told)."""
        d = _pairs(before, after, angle) / self.spread[: before.shape[-2]]
        u = _BEND * d[..., 0, 0, :_JETS].real
        bent = u[..., None, :, None] * d[..., :_BENT].flatten(-2)[..., None, :]
        return torch.cat([d.flatten(-2), bent.flatten(-2)], dim=-1)


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


def decomposed(tensor: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Factors A (I, R), B (J, R), C (K, R) of a tensor (I, J, K) ≈ Σ_r A_ir B_jr C_kr; those of A and B have
    length 1; R ≤ I, K."""
    rows, small = _shortened(tensor.flatten(1), _WIDER * rank)
    columns, small = _shortened(small.unflatten(1, tensor.shape[1:]).movedim(2, 0).flatten(1), _WIDER * rank)
    a, b, c = _alternating(small.unflatten(1, (-1, tensor.shape[1])).permute(1, 2, 0), rank)
    return rows @ a, b, columns @ c


def _shortened(matrix: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of the largest directions of the columns, and what the matrix is in it."""
    basis = torch.linalg.svd(matrix, full_matrices=False)[0][:, :most]
    return basis, basis.mH @ matrix


def _alternating(tensor: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    courses = tensor.shape[1]
    left, size, right = torch.linalg.svd(tensor.flatten(1), full_matrices=False)
    core = (size[:rank, None] * right[:rank]).unflatten(1, tensor.shape[1:])
    draw = torch.Generator().manual_seed(0)
    mixed = torch.randn(2, courses, dtype=torch.complex128, generator=draw).to(tensor)
    one, other = torch.einsum("xj,rjk->xrk", mixed, core)
    _, turn = torch.linalg.eig(one @ torch.linalg.pinv(other))
    parted = torch.linalg.solve(turn, core.flatten(1)).view_as(core)
    short, value, long = torch.linalg.svd(parted, full_matrices=False)
    a, b, c = left[:, :rank] @ turn, short[:, :, 0].T, (value[:, :1] * long[:, 0]).T
    a_then, b_then = a, b
    by_row, by_course, by_column = (tensor.movedim(i, 0).flatten(1) for i in range(3))
    for sweep in range(1, _SWEEPS + 1):
        if sweep > _SETTLED and sweep % 3 == 0:
            far, wide = (_unit(x + sweep ** (1 / 3) * (x - then)) for x, then in ((a, a_then), (b, b_then)))
            there = far, wide, _solved(by_column, far, wide)
            if _missed(by_column, *there) < _missed(by_column, a, b, c):
                a, b, c = there
        a_then, b_then = a, b
        a = _unit(_solved(by_row, b, c))
        b = _unit(_solved(by_course, a, c))
        c = _solved(by_column, a, b)
    return a, b, c


def _missed(by_column: Tensor, a: Tensor, b: Tensor, c: Tensor) -> float:
    return float((by_column - c @ _products(a, b).mT).abs().square().sum())


def _solved(matrix: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """X of the least squares matrix ≈ X (A ⊙ B)ᵀ, with the column-wise products ⊙ of Khatri and Rao."""
    return torch.linalg.solve(_normal(a, b), _products(a, b).mH @ matrix.mT).mT


def _products(a: Tensor, b: Tensor) -> Tensor:
    """A ⊙ B."""
    return (a[:, None] * b).flatten(0, 1)


def _normal(a: Tensor, b: Tensor) -> Tensor:
    """(A ⊙ B)ᴴ (A ⊙ B), and a little more."""
    normal = (a.mH @ a) * (b.mH @ b)
    return normal + _JITTER * normal.diagonal().real.amax() * torch.eye(len(normal)).to(normal)


def _unit(factor: Tensor) -> Tensor:
    return factor / factor.abs().square().sum(0).sqrt().clamp_min(1e-300)


def _pairs(before: Tensor, after: Tensor, angle: Tensor) -> Tensor:
    """Means and differences of frames, turned to half-way between them, (…, wave numbers, 2, heeded)."""
    turn = torch.arange(before.shape[-2]).to(angle)[:, None] * (angle / 2)
    half = torch.polar(torch.ones_like(turn), turn)
    before, after = before * half, after * half.conj()
    return torch.stack([(before + after) / 2, after - before], dim=-2)


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
        whole[i] = torch.view_as_complex(best.round())
        left[: i + 1] -= upper[: i + 1, i, None] * (grain[i] * whole[i])
    return whole


def _lagrange(places: Sequence[float], x: float) -> list[float]:
    return [math.prod((x - k) / (i - k) for k in places if k != i) for i in places]


def _beyond(wave: Tensor, angle: Tensor, places: Sequence[float], end: int) -> Tensor:
    """What the frame beyond the first or the last, brought near, counts for at places (wave, places)."""
    nearest = [-1.0, 0.0, 1.0, 2.0]
    weights = angle.new_tensor([FAR * _lagrange(nearest, s)[nearest.index(_ENDS[end])] for s in places])
    turns = wave[:, None] * angle * (angle.new_tensor(places) - _ENDS[end])
    return weights * torch.polar(torch.ones_like(turns), turns)


def _ridged(squares: Tensor) -> Tensor:
    mean = squares.diagonal(dim1=-2, dim2=-1).real.mean()
    return squares + _RIDGE * mean * torch.eye(squares.shape[-1]).to(squares)


def _weights(squares: Tensor, products: Tensor) -> Tensor:
    """Of the ridge regression."""
    return torch.cholesky_solve(products, torch.linalg.cholesky(_ridged(squares)))
