"""What a file says of where it comes from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pdeforecast.pdes import PDE


def provenance_of(pde: PDE) -> dict[str, Any]:
    """What a file says of its equation: name, parameters (as JSON) and the version of the package."""
    try:
        release = version("pdeforecast")
    except PackageNotFoundError:
        release = "unknown"
    return {
        "title": f"trajectories of {pde.name}",
        "equation": pde.name,
        "parameters": json.dumps(asdict(pde)),
        "pdeforecast_version": release,
    }


def stream_of(pde: PDE, seed: int, split: str) -> dict[str, Any]:
    """All on which a sample depends but its index: a stream of samples."""
    return {**provenance_of(pde), "seed": seed, "split": split}


def digest(content: Mapping[str, Any]) -> str:
    """The SHA-256 of `content` as canonical JSON: its keys in order, without spaces."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
