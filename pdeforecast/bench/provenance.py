"""Where and by what something was measured."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch


def machine(device: str) -> str:
    """The processor that computes."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def commit() -> str:
    """The version of the code: the commit of its checkout, with + where files differ; else the release."""
    here = Path(__file__).parent
    try:
        asked = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*"]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)
        return said.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version("pdeforecast")
