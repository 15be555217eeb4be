"""A model comes back as it was saved, or not at all."""

import json
import pickle
from pathlib import Path

import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

from pdeforecast import Forecaster, checkpoint
from pdeforecast.errors import CheckpointError
from pdeforecast.replacing import replacing


@pytest.fixture
def saved(model: Forecaster, tmp_path: Path) -> Path:
    model.card["note"] = "é ≥ 1"
    checkpoint.save(model, tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def refused(path: Path, *words: str) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    cause, cure = str(caught.value).split("\n")
    assert cause.endswith(".") and cure.endswith(".") and all(word in cause for word in words), cause
    return caught.value


def test_comes_back_as_it_was(model: Forecaster, saved: Path, flow: xr.Dataset) -> None:
    again = checkpoint.load(saved)
    assert again.config == model.config and again.card["note"] == "é ≥ 1" and not again.training
    assert again.identity.startswith("mine@") and len(again.identity) == len("mine@") + 12
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    xr.testing.assert_equal(again.forecast(flow, [0, 1.5]), model.forecast(flow, [0, 1.5]))
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


def test_a_model_has_one_hash_however_often_it_is_saved(model: Forecaster, tmp_path: Path) -> None:
    found = set()
    for name in ("a", "b", "c"):
        checkpoint.save(model, tmp_path / name / "model.safetensors")
        found.add(checkpoint.load(tmp_path / name).identity.removeprefix(f"{name}@"))
        model.card["measured"] = f"after {name} was saved"
    assert len(found) == 1
    with torch.no_grad():
        model.dynamics.context_head.bias[0] += 1e-6
    checkpoint.save(model, tmp_path / "d.safetensors")
    assert checkpoint.load(tmp_path / "d.safetensors").identity != f"d@{found.pop()}"


def test_a_model_that_diverges_is_still_a_model(model: Forecaster, tmp_path: Path) -> None:
    with torch.no_grad():
        model.dynamics.context_head.weight.fill_(1e38)
    checkpoint.save(model, tmp_path / "wild.safetensors")
    assert checkpoint.load(tmp_path / "wild.safetensors").identity.startswith("wild@")


@pytest.mark.parametrize("share", [0.0, 1e-5, 0.001, 0.1, 0.5, 0.99, 0.9999])
def test_a_file_cut_short_is_refused(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(share * len(whole))])
    refused(saved, str(saved))


def test_every_flipped_bit_is_refused(saved: Path) -> None:
    """In the length of the header, the header, and the tensors, down to the lowest bits of weights."""
    whole, draw = saved.read_bytes(), torch.Generator().manual_seed(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [
        *range(0, 64, 7),
        *torch.randint(64, 8 * header, (120,), generator=draw).tolist(),
        *torch.randint(8 * header, 8 * len(whole), (60,), generator=draw).tolist(),
        *(8 * byte for byte in torch.randint(header, len(whole), (20,), generator=draw).tolist()),
        8 * len(whole) - 1,
    ]
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        saved.write_bytes(damaged)
        refused(saved)


def test_an_unsealed_file_is_refused(saved: Path, model: Forecaster) -> None:
    tensors, metadata = checkpoint.read_tensors(saved, "pdeforecast/1")
    del metadata["sha256"]
    save_file(tensors, saved, metadata)
    refused(saved, "sha256 is missing")
    checkpoint.write_tensors(tensors, metadata, saved)
    assert checkpoint.load(saved).config == model.config


@pytest.mark.parametrize("change", ["geometry", "field", "json", "card", "tensor", "probe", "shape"])
def test_a_sealed_file_of_another_version_is_refused(saved: Path, change: str) -> None:
    tensors, metadata = checkpoint.read_tensors(saved, "pdeforecast/1")
    config = json.loads(metadata["config"])
    if change == "geometry":
        config["geometry"] = "klein_bottle"
    elif change == "field":
        config["field"]["spline"] = 3
    elif change == "card":
        del metadata["card"]
    elif change == "tensor":
        del tensors["mean"]
    elif change == "probe":
        tensors["probe.values"] += 1
    elif change == "shape":
        tensors["mean"] = torch.zeros(7)
    metadata["config"] = "{" if change == "json" else json.dumps(config)
    checkpoint.write_tensors(tensors, metadata, saved)
    # What is missing, or of another shape, is named.
    named = {"probe": ("probe",), "tensor": ("Missing", '"mean"'), "shape": ("size mismatch", "mean")}
    refused(saved, *named.get(change, ()), *() if change == "probe" else ("does not fit",))


def test_a_foreign_file_is_refused(tmp_path: Path, shared: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    refused(tmp_path / "other.safetensors", "of format pdeforecast/1", "None")
    refused(shared / "tiny" / "progress.safetensors", "pdeforecast-run/1")
    refused(shared / "flow.nc", "cannot be read")


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [lambda trap, path: path.write_bytes(pickle.dumps(trap)), torch.save])
def test_a_pickle_is_never_executed(tmp_path: Path, write) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "model.safetensors"
    write(Trap(sprung), path)
    refused(path, "cannot be read")
    refused(tmp_path, "cannot be read")
    assert not sprung.exists()


def test_an_unknown_name_tells_the_nearest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checkpoint, "shipped", lambda: {"navier-stokes": tmp_path / "absent"})
    with pytest.raises(CheckpointError, match="Type `navier-stokes`") as caught:
        checkpoint.load("navierstokes")
    assert "'navierstokes' is neither" in caught.value.cause
    with pytest.raises(CheckpointError, match="pdeforecast models"):
        checkpoint.load(tmp_path / "xyz")
    refused(tmp_path, "holds no model.safetensors")


def test_shipped_models_load() -> None:
    for name in checkpoint.shipped():
        assert checkpoint.load(name).identity.startswith(f"{name}@")


def test_nothing_half_written_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as beside:
        beside.write_text("ne")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
