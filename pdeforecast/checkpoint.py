"""One safetensors file that rebuilds a whole Forecaster, or says why it cannot.

The file holds the weights, the configuration and the model card (JSON in its metadata), and a
*probe*: latents, and the field that the model decodes from them after a short rollout. A loaded
model must forecast its own probe again, so a damaged file or an incompatible version is noticed
before it is trusted. Nothing is unpickled.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pdeforecast.config import from_dict, to_dict
from pdeforecast.errors import CheckpointError, nearest
from pdeforecast.forecaster import Forecaster
from pdeforecast.latents import Latents

_FORMAT = "pdeforecast/1"
_PROBE = "probe."
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
    """A safetensors file, written beside `path`, flushed to disk, then renamed."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        save_file(dict(tensors), beside, metadata=dict(metadata))
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(beside, 0o644)
        os.replace(beside, target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def load(model: str | os.PathLike[str], device: str | torch.device = "cpu") -> Forecaster:
    """A shipped model by its name, or one from a file or a run's folder.

    Raises:
        CheckpointError: if it is unknown, unreadable, damaged, or forecasts otherwise than when it
            was saved.
    """
    path = _find(model)
    tensors, metadata = read_tensors(path, _FORMAT)
    try:
        built = Forecaster(from_dict(json.loads(metadata["config"])))
        built.card = json.loads(metadata["card"])
        probe = {name: tensors.pop(_PROBE + name) for name in ("contexts", "values")}
        built.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"expected a model of this version in {path}; it does not fit: {_first_line(error)}.",
            "Train it again with this version, or install the version named in its card.",
        ) from error
    built.prepare()
    again = _probe(built, probe["contexts"])
    if not torch.allclose(again, probe["values"], atol=_TOLERANCE * float(built.scale.max()), rtol=_TOLERANCE):
        worst = float((again - probe["values"]).abs().max())
        raise CheckpointError(
            f"expected {path} to repeat the probe forecast stored in it; it is off by {worst:.2g}.",
            "The file is damaged, or was written by an incompatible version: fetch or train it again.",
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    built.identity = f"{path.stem if path.stem != 'model' else path.parent.name}@{digest}"
    return built.to(device).eval()


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file of ours.

    Raises:
        CheckpointError: if it is absent, damaged or foreign.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"expected a safetensors file at {path}; it cannot be read: {_first_line(error)}.",
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


def _find(model: str | os.PathLike[str]) -> Path:
    known = shipped()
    if str(model) in known:
        return known[str(model)]
    path = Path(model)
    if path.is_dir():
        path = path / "model.safetensors"
    if path.is_file():
        return path
    near = nearest(str(model), known)
    raise CheckpointError(
        f"expected a shipped model ({', '.join(known) or 'none here'}) or a path; {str(model)!r} is neither.",
        f"Type `{near}`." if near else "Type `pdeforecast models` for the names, or give an existing path.",
    )


def _probe_contexts(model: Forecaster) -> Tensor:
    scale = model.dynamics.context_scale.cpu()
    draw = torch.Generator().manual_seed(0)
    return 0.5 * scale * torch.randn(1, model.config.field.latents, len(scale), generator=draw)


@torch.no_grad()
def _probe(model: Forecaster, contexts: Tensor) -> Tensor:
    """What `model` decodes at fixed points after one step from `contexts`."""
    geometry = model.geometry
    points = geometry.random_points(32, torch.Generator().manual_seed(0))
    start = Latents(model.lattice(), contexts.to(model.mean), model.windows())
    statics = torch.zeros(1, len(points), len(model.config.statics), dtype=torch.float64)
    around = model.surroundings(points, statics)
    return model.decode(points, model.rollout(start, around, [model.config.dynamics.step])).cpu()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
