"""One safetensors file that rebuilds a whole Forecaster, or says why it cannot.

The file holds the weights, the configuration and the model card (JSON in its metadata), a *seal*
(the SHA-256 of all tensors and of the rest of the metadata) and a *probe*: latents, and the field
that the model decodes from them after a short rollout. The seal tells a damaged file; a loaded model
must forecast its own probe again, which tells an incompatible version. Nothing is unpickled.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from pdeforecast.config import KernelDynamicsConfig, from_dict, to_dict
from pdeforecast.errors import CheckpointError, nearest
from pdeforecast.forecaster import Forecaster
from pdeforecast.kernel_dynamics import KernelDynamics
from pdeforecast.latents import Latents
from pdeforecast.replacing import replacing

_FORMAT = "pdeforecast/1"
_PROBE = "probe."
_SEAL = "sha256"
_TOLERANCE = 1e-3


def save(model: Forecaster, path: str | os.PathLike[str]) -> None:
    """Writes `model` to `path`: beside it, flushed, then renamed, so never half a file."""
    model.prepare()
    metadata = {
        "format": _FORMAT,
        "config": json.dumps(to_dict(model.config)),
        "card": json.dumps(model.card),
    }
    contexts = _probe_contexts(model)
    tensors = {
        **{name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()},
        f"{_PROBE}contexts": contexts.cpu(),
        f"{_PROBE}values": _probe(model, contexts).cpu(),
    }
    write_tensors(tensors, metadata, path)


def write_tensors(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: str | os.PathLike[str]
) -> None:
    """A sealed safetensors file, whole or not at all."""
    sealed = {**metadata, _SEAL: _seal(tensors, metadata)}
    with replacing(path) as beside:
        # As bytes: on a full disk the library's own writing fails with an error that is no OSError.
        beside.write_bytes(serialised(dict(tensors), sealed))


def write_plain(said: Mapping[str, Any], path: Path) -> None:
    """Plain data as sealed JSON, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(json.dumps({**said, _SEAL: _plain_seal(said)}, indent=1))


def read_plain(path: Path) -> dict[str, Any]:
    """What `write_plain` wrote; JSON without a seal as it is.

    Raises:
        CheckpointError: if it is absent or damaged.
    """
    try:
        said = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"expected a run in {path.parent}; its {path.name} cannot be read: {_in_a_line(error)}.",
            "Give the folder of a run to `--resume`, or begin one in another folder without it.",
        ) from error
    if said.pop(_SEAL, None) not in (None, _plain_seal(said)):
        raise CheckpointError(
            f"expected {path} as it was written; it does not fit its {_SEAL}, so it was damaged or changed.",
            "Begin a run in another folder without `--resume`.",
        )
    return said


def _plain_seal(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The SHA-256 of names, types, shapes and bytes of all tensors, and of the metadata but the seal."""
    digest = hashlib.sha256()
    said = sorted((key, value) for key, value in metadata.items() if key != _SEAL)
    digest.update(json.dumps(said).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load(model: str | os.PathLike[str], device: str | torch.device = "cpu") -> Forecaster:
    """A shipped model by its name, or one from a file or a run's folder.

    Raises:
        CheckpointError: if it is unknown, unreadable, damaged, not yet trained, or forecasts otherwise than
            when it was saved.
    """
    path = find(model)
    tensors, metadata = read_tensors(path, _FORMAT)
    try:
        built = Forecaster(from_dict(json.loads(metadata["config"])))
        built.card = json.loads(metadata["card"])
        probe = {name: tensors.pop(_PROBE + name) for name in ("contexts", "values")}
        built.load_state_dict(tensors)
        # Not of the card, which tells of measurements of the same weights.
        weights = _seal(tensors, {})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"expected a model of this version in {path}; it does not fit: {_in_a_line(error)}.",
            "Train it again with this version, or install the version that wrote it.",
        ) from error
    if isinstance(built.dynamics, KernelDynamics) and built.dynamics.empty:
        raise CheckpointError(
            f"expected a trained model in {path}; its training was stopped before it remembered anything.",
            "Let it go on: give the command that began it, with `--resume`.",
        )
    built.prepare()
    again = _probe(built, probe["contexts"])
    pair = again / built.scale, probe["values"] / built.scale
    # A model that diverges in its probe is still the model that was saved.
    if not torch.allclose(*pair, atol=_TOLERANCE, rtol=_TOLERANCE, equal_nan=True):
        worst = float((pair[0] - pair[1]).abs().max())
        raise CheckpointError(
            f"expected {path} to repeat the probe forecast stored in it; it is off by {worst:.2g} scales.",
            "It was written by an incompatible version: fetch or train it again.",
        )
    name = path.stem if path.stem != "model" else path.absolute().parent.name
    built.identity = f"{name}@{weights[:12]}"
    # What `prepare` computes does not follow the module to a device.
    return built.to(device).prepare().eval()


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file of ours.

    Raises:
        CheckpointError: if it is absent, damaged or foreign.
    """
    tensors, metadata = _unverified(path, kind)
    if metadata.get(_SEAL) != _seal(tensors, metadata):
        raise CheckpointError(
            f"expected {path} as it was written; its {_SEAL} is "
            f"{'another' if _SEAL in metadata else 'missing'}, so it was damaged or changed.",
            "Fetch or train it again.",
        )
    return tensors, metadata


def _unverified(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `read_tensors` returns, from a file whose seal has not been looked at."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"expected a safetensors file at {path}; it cannot be read: {_in_a_line(error)}.",
            "Give the path of a model.safetensors, or the name of a model that `pdeforecast models` lists.",
        ) from error
    if metadata.get("format") != kind:
        raise CheckpointError(
            f"expected {path} to be of format {kind}; it says {metadata.get('format')!r}.",
            "Give a file written by `pdeforecast train`.",
        )
    return tensors, metadata


def shipped() -> dict[str, Path]:
    """The models in the package, by name."""
    folder = Path(str(files("pdeforecast") / "pretrained"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find(model: str | os.PathLike[str]) -> Path:
    """The file of a model: a shipped name, a file, or a run's folder.

    Raises:
        CheckpointError: if there is none.
    """
    known = shipped()
    if str(model) in known:
        return known[str(model)]
    path = Path(model)
    if path.is_dir():
        if not (path / "model.safetensors").exists():
            raise CheckpointError(
                f"expected a run's folder; {path} holds no model.safetensors.",
                "Wait until the run has saved one (after a minute), or give another folder.",
            )
        path = path / "model.safetensors"
    if path.is_file():
        return path
    near = nearest(str(model), known)
    raise CheckpointError(
        f"expected a shipped model ({', '.join(known) or 'none here'}) or a path; {str(model)!r} is neither.",
        f"Type `{near}`." if near else "Type `pdeforecast models` for the names, or give an existing path.",
    )


def _probe_contexts(model: Forecaster) -> Tensor:
    shape, draw = (1, model.config.field.latents, model.field.context_dim), torch.Generator().manual_seed(0)
    if isinstance(model.dynamics, KernelDynamics):
        # What remembers writes its latents anew, so one context serves all of them.
        return torch.randn(1, 1, shape[2], generator=draw)
    return 0.5 * model.dynamics.context_scale.cpu() * torch.randn(shape, generator=draw)


@torch.no_grad()
def _probe(model: Forecaster, contexts: Tensor) -> Tensor:
    """What `model` decodes at fixed points after one step from `contexts`."""
    geometry = model.geometry
    points = geometry.random_points(32, torch.Generator().manual_seed(0))
    start = Latents(
        model.lattice(), contexts.to(model.mean).expand(1, len(model.lattice()), -1), model.windows()
    )
    statics = torch.zeros(1, len(points), len(model.config.statics), dtype=torch.float64)
    around = model.surroundings(points, statics)
    # Dynamics that remember solve for their weights first, which takes seconds; the seal covers their memory.
    own = model.config.dynamics
    step = 0.0 if isinstance(own, KernelDynamicsConfig) else own.step
    return model.decode(points, model.rollout(start, around, [step])).cpu()


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
