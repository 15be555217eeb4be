"""What long work tells of itself: a bar, and losses for TensorBoard, beside log.csv."""

import sys
import time
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from pdeforecast.errors import UsageError
from pdeforecast.training import Report

_MINUTE = 60.0
_UP = "\x1b[A"
"""How a bar within a bar returns to the line of the outer one."""


def bar(**options: Any) -> tqdm:
    """A tqdm bar; where standard error is no terminal, what it would show, as a line per minute.

    Args:
        options: of tqdm.
    """
    if sys.stderr.isatty():
        return tqdm(**options)
    return tqdm(file=_Lines(sys.stderr), ncols=100, **options)


class _Lines:
    """Text that would overwrite lines of a terminal, as lines of `file`: one a minute, none in the first."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._next = time.monotonic() + _MINUTE

    def write(self, text: str) -> None:
        line = text.replace(_UP, "").strip()
        if line and time.monotonic() >= self._next:
            self._file.write(f"{line}\n")
            self._next = time.monotonic() + _MINUTE

    def flush(self) -> None:
        self._file.flush()


class TensorBoard:
    """Writes what training tells, a curve per phase, in RUN_DIR/tensorboard; of an interrupted
    run it replaces what came after the last save.

    Args:
        folder: of the event files; it appears with the first report.

    Raises:
        UsageError: if TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                "expected TensorBoard to be installed; it is not.",
                "Type `pip install 'pdeforecast[logs]'`, or go without `--tensorboard`: log.csv is there.",
            ) from error
        self._open: Any = SummaryWriter
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def see(self, report: Report) -> None:
        """`report` came."""
        if report.phase not in self._writers:
            self.close()
            path = self._folder / report.phase
            self._writers = {report.phase: self._open(str(path), purge_step=report.step)}
        writer = self._writers[report.phase]
        writer.add_scalar("loss", report.loss, report.step)
        writer.add_scalar("horizon", report.horizon, report.step)

    def close(self) -> None:
        """Writes what is left."""
        for writer in self._writers.values():
            writer.close()
