"""What the words of a command mean, and what every verb asks of its options."""

import argparse
import math
import re
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import version

import torch
from tqdm import tqdm

from pdeforecast.errors import UsageError, nearest

_MOST_TIMES = 10**5
"""More lead times than this are a slip of the pen."""


def seed(text: str) -> int:
    """A whole number from 0 to 2³¹ − 1."""
    if not re.fullmatch(r"\d{1,10}", text) or int(text) >= 2**31:
        raise UsageError(f"expected a seed from 0 to {2**31 - 1}; came {text!r}.", "Type `--seed 0`.")
    return int(text)


def seeds(text: str) -> list[int]:
    """A comma list of seeds."""
    return [seed(part) for part in text.split(",")]


def lead_times(text: str) -> list[float]:
    """`start:stop:step` with stop included, or a comma list of real numbers."""
    try:
        if ":" in text:
            start, stop, step = (float(part) for part in text.split(":"))
            count = math.floor((stop - start) / step + 1e-9) + 1
            times = [start + i * step for i in range(count if count <= _MOST_TIMES else 0)]
        else:
            times = [float(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError, OverflowError):
        times = []
    if not times or not all(0 <= t < math.inf for t in times):
        raise UsageError(
            f"expected at most {_MOST_TIMES} lead times ≥ 0, such as 0:19:1 or 0.5,1,7.3; came {text!r}.",
            "Type `--lead-time 0:19:1`: start, stop (included) and step.",
        )
    return times


def sizes(text: str) -> tuple[int, ...]:
    """`128x128`: the size of each axis."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise UsageError(f"expected a grid such as 128x128; came {text!r}.", "Type `--grid 128x128`.")
    return tuple(int(part) for part in text.split("x"))


def duration(text: str) -> float:
    """`90s`, `20m`, `2h` or plain seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise UsageError(f"expected a time such as 20m or 2h; came {text!r}.", "Type `--budget 20m`.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def words(text: str) -> list[str]:
    """A comma list of words."""
    return [word.strip() for word in text.split(",")]


def pairs(settings: Sequence[str], option: str = "--set") -> dict[str, str]:
    """`key=value` words as a dictionary."""
    for setting in settings:
        if "=" not in setting:
            raise UsageError(f"expected key=value; came {setting!r}.", f"Type `{option} {setting}=…`.")
    return dict(setting.split("=", 1) for setting in settings)


def one_of(known: Collection[str], name: str, role: str) -> str:
    """`name`, if it is among those known for a role."""
    if name in known:
        return name
    raise UsageError(
        f"expected a {role} among {', '.join(known)}; came {name!r}.",
        f"Type `--{role} {nearest(name, known) or next(iter(known))}`.",
    )


def device_of(options: argparse.Namespace) -> str:
    """Where a verb computes: on a GPU, if there is one and the CPU was not asked for."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("expected a CUDA device; there is none.", "Type `--device cpu`, or leave it out.")
    return "cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu"


def provenance_of(options: argparse.Namespace) -> dict[str, str]:
    """What made a file: the command, and the versions of what counts."""
    packages = ("pdeforecast", "torch", "xarray")
    return {
        "command": options.command,
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
    }


def counting(bar: tqdm) -> Callable[[int, int], None]:
    """Moves a bar: called with how much is done of how much."""

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return progress
