"""The command line: verbs, each a few lines.

Exit codes: 0 fine, 2 usage, 3 data, 4 checkpoint, 5 diverged. Errors go to stderr as one line of cause
and one line of cure.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from pdeforecast import parallel
from pdeforecast.cli.verbs import understood
from pdeforecast.errors import DataError, ForecastError, UsageError
from pdeforecast.trust import TrustWarning


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", TrustWarning)
        told, otherwise = set[str](), warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if not issubclass(category, TrustWarning):
                otherwise(message, category, *rest, **more)
            elif str(message) not in told and parallel.rank() == 0:
                told.add(str(message))
                print(f"warning: {message}", file=sys.stderr)

        warnings.showwarning = show
        return _run(words)


def _run(words: list[str]) -> int:
    """Runs the verb that the words ask for; returns the exit code."""
    try:
        options = understood(words)
        options.command = " ".join(["pdeforecast", *words])
        torch.manual_seed(options.seed)
        options.verb(options)
        return 0
    except ForecastError as error:
        print(f"process {parallel.rank()}: {error}" if parallel.rank() else error, file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except KeyboardInterrupt:
        print(
            "interrupted; what was saved is intact.\nType it again (`train`: with `--resume`).",
            file=sys.stderr,
        )
        return 130
    except (MemoryError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
        print(
            "expected more memory.\n"
            "Ask for fewer points, lead times or samples at once, or for smaller sizes with `--set`.",
            file=sys.stderr,
        )
        return UsageError.exit_code
    except OSError as error:
        print(
            f"expected to read and write files; {error}.\nFree the disk, or give another path.",
            file=sys.stderr,
        )
        return DataError.exit_code


def _lacks_memory(error: Exception) -> bool:
    """Whether memory ran out. PyTorch raises a bare RuntimeError on the CPU; its words alone tell."""
    words = ("allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
