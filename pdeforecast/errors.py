"""Errors that speak: one line of cause (expected, came) and one line of cure (what to type).

The command line prints them to stderr without a traceback and exits with `exit_code`.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class ForecastError(Exception):
    """What a user can cause and mend; `str(error)` is the cause, a line break, and the cure.

    Attributes:
        cause: what was expected and what came.
        cure: what to type.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(cause, cure)
        self.cause = cause
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.cause}\n{self.cure}"


class UsageError(ForecastError):
    """A command, an argument or a configuration that means nothing."""

    exit_code = 2


class DataError(ForecastError):
    """A file or Dataset that is not what its reader needs."""

    exit_code = 3


class CheckpointError(ForecastError):
    """A model that cannot be found or rebuilt."""

    exit_code = 4


class DivergedError(ForecastError):
    """A training, a rollout or a solver that left the finite numbers."""

    exit_code = 5


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest in spelling to `name`, case aside; None if none is close."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None
