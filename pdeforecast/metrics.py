"""How far a forecast is from the truth.

With f the forecast, t the truth, and ⟨·⟩ the mean over the space by the geometry's own measure:

    mse           mean (f − t)², unweighted: comparable with the papers
    relative_l2   √(⟨(f − t)²⟩ / ⟨t²⟩)
    vrmse         √(⟨(f − t)²⟩ / ⟨(t − ⟨t⟩)²⟩): 1 is what the mean of the truth would score
    spectrum      E(k) = Σ |û|² over the shell |k| ≈ k; Σₖ E(k) = mean u²

Each takes tensors, with points last, or two Datasets, which are first matched by place, sample and
time. Where the truth is NaN, not observed, nothing is scored.
"""

from collections.abc import Callable, Mapping
from typing import Any, overload

import torch
import xarray as xr
from torch import Tensor

from pdeforecast.trajectory import SAME_TIME, Matched, match

# --- on tensors, and on Datasets through `_framewise` ----------------------------------------------


@overload
def mse(forecast: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor: ...
@overload
def mse(forecast: xr.Dataset, truth: xr.Dataset, weights: None = None) -> xr.Dataset: ...
def mse(forecast: Any, truth: Any, weights: Tensor | None = None) -> Any:
    """The plain mean over points of (f − t)²: (…, M) → (…), or per variable, sample and lead time."""
    if isinstance(forecast, xr.Dataset):
        return _framewise(lambda f, t, _: mse(f, t), forecast, truth)
    return _mean(_error(forecast, truth).square(), _observed(truth, weights))


@overload
def relative_l2(forecast: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor: ...
@overload
def relative_l2(forecast: xr.Dataset, truth: xr.Dataset, weights: None = None) -> xr.Dataset: ...
def relative_l2(forecast: Any, truth: Any, weights: Tensor | None = None) -> Any:
    """The norm of the error over the norm of the truth: (…, M) → (…).

    Of Datasets: per variable, sample and lead time, weighted by the geometry's measure.

    Args:
        weights: the measure of each point, (M,); equal by default.

    Raises:
        DataError: if two Datasets share no place, time or variable.
    """
    if isinstance(forecast, xr.Dataset):
        return _framewise(relative_l2, forecast, truth)
    w = _observed(truth, weights)
    return (_mean(_error(forecast, truth).square(), w) / _mean(truth.nan_to_num().square(), w)).sqrt()


@overload
def vrmse(forecast: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor: ...
@overload
def vrmse(forecast: xr.Dataset, truth: xr.Dataset, weights: None = None) -> xr.Dataset: ...
def vrmse(forecast: Any, truth: Any, weights: Tensor | None = None) -> Any:
    """The error over the standard deviation of the truth in space: (…, M) → (…); see `relative_l2`."""
    if isinstance(forecast, xr.Dataset):
        return _framewise(vrmse, forecast, truth)
    w = _observed(truth, weights)
    known = truth.nan_to_num()
    variance = _mean((known - _mean(known, w)[..., None]).square(), w)
    return (_mean(_error(forecast, truth).square(), w) / variance).sqrt()


def spectrum(field: Tensor) -> tuple[Tensor, Tensor]:
    """The radially summed power spectrum of a field (…, ny, nx) on a regular grid of the unit torus.

    Returns:
        The wave numbers 0, 1, …, K (waves per period), and E(k) (…, K + 1): the sum of |û|² over
        k − ½ ≤ |k| < k + ½, so that the sum over k is the mean of the field's square.
    """
    ny, nx = field.shape[-2:]
    power = (torch.fft.fft2(field) / (ny * nx)).abs().square()
    ky = torch.fft.fftfreq(ny, 1 / ny, dtype=torch.float64, device=field.device)
    kx = torch.fft.fftfreq(nx, 1 / nx, dtype=torch.float64, device=field.device)
    shell = (torch.hypot(ky[:, None], kx[None, :]) + 0.5).floor().long().reshape(-1)
    count = int(shell.max()) + 1
    energy = power.new_zeros(*field.shape[:-2], count)
    return torch.arange(count), energy.index_add(-1, shell, power.flatten(-2))


def _error(forecast: Tensor, truth: Tensor) -> Tensor:
    return torch.where(truth.isnan(), 0.0, forecast - truth)


def _observed(truth: Tensor, weights: Tensor | None) -> Tensor:
    """The weights, zero where the truth is unknown; equal to start with if there are none."""
    known = (~truth.isnan()).to(truth.dtype)
    return known if weights is None else known * weights.to(truth)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum(-1) / weights.sum(-1)


def _framewise(
    metric: Callable[[Tensor, Tensor, Tensor], Tensor], forecast: xr.Dataset, truth: xr.Dataset
) -> xr.Dataset:
    """`metric` of every variable, sample and lead time."""
    pair = match(forecast, truth)
    scores = {
        name: (
            ("sample", "lead_time"),
            metric(pair.forecast[..., v], pair.truth[..., v], pair.weights).numpy(),
        )
        for v, name in enumerate(pair.variables)
    }
    return xr.Dataset(scores, {"sample": list(pair.samples), "lead_time": list(pair.lead_times)})


# --- the score of `evaluate` ---------------------------------------------------------------------


def score(forecast: xr.Dataset, truth: xr.Dataset, train_frames: int = 10) -> dict[str, Any]:
    """All that `evaluate` reports, as plain numbers.

    `t_in` are the truth's first `train_frames` frames and `t_out` those after them. The papers' MSE
    of t_in includes frame 0; relative L2 and VRMSE leave lead time 0 out, and it stands apart as
    `reconstruction`. Means over lead times come first, then mean and median over samples. A window
    without a frame is None.

    Raises:
        DataError: as `match` does.
    """
    pair = match(forecast, truth)
    frames, leads = torch.tensor(pair.frames), torch.tensor(pair.lead_times)
    windows = {"t_in": frames < train_frames, "t_out": frames >= train_frames}
    return {
        "geometry": pair.geometry.name,
        "samples": len(pair.samples),
        "points": pair.truth.shape[-2],
        "train_frames": train_frames,
        "mse": {name: _plain_mse(pair, window) for name, window in windows.items()},
        "variables": {
            name: _variable_score(pair, v, leads, windows) for v, name in enumerate(pair.variables)
        },
    }


def _plain_mse(pair: Matched, window: Tensor) -> float | None:
    """The papers' number: over samples, frames, points and channels at once."""
    if not bool(window.any()):
        return None
    return float(mse(pair.forecast[:, window].flatten(), pair.truth[:, window].flatten()))


def _variable_score(pair: Matched, v: int, leads: Tensor, windows: Mapping[str, Tensor]) -> dict[str, Any]:
    f, t = pair.forecast[..., v], pair.truth[..., v]
    table = {
        "mse": mse(f, t),
        "relative_l2": relative_l2(f, t, pair.weights),
        "vrmse": vrmse(f, t, pair.weights),
    }
    ahead = leads > SAME_TIME
    report: dict[str, Any] = {"reconstruction": _summary(table, {name: ~ahead for name in table})}
    for name, window in windows.items():
        sound = {"mse": window, "relative_l2": window & ahead, "vrmse": window & ahead}
        report[name] = _summary(table, sound)
    report["per_lead"] = [
        {
            "lead_time": float(lead),
            **{metric: float(values[:, i].nanmean()) for metric, values in table.items()},
            "relative_l2_median": float(table["relative_l2"][:, i].nanquantile(0.5)),
        }
        for i, lead in enumerate(pair.lead_times)
    ]
    return report


def _summary(table: Mapping[str, Tensor], windows: Mapping[str, Tensor]) -> dict[str, float | None]:
    """Mean and median over samples of the mean over a window of lead times."""
    summary: dict[str, float | None] = {}
    for metric, values in table.items():
        chosen = values[:, windows[metric]]
        per_sample = chosen.nanmean(dim=1) if chosen.shape[1] else None
        summary[metric] = None if per_sample is None else float(per_sample.nanmean())
        summary[f"{metric}_median"] = None if per_sample is None else float(per_sample.nanquantile(0.5))
    return summary
