"""Pictures as files, whole or not at all."""

import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from pdeforecast.errors import UsageError
from pdeforecast.replacing import replacing_by_name
from pdeforecast.trajectory import check_target

FORMATS = ("png", "pdf", "svg")


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a picture in the format that its name ends in, beside its place, and rename it.

    Raises:
        UsageError: if the ending is none of `FORMATS`, or the folder is missing.
    """
    kind = check_picture(path)
    check_target(path, overwrite=True)
    with replacing_by_name(path) as beside:
        figure.savefig(beside, format=kind, dpi=200, bbox_inches="tight", pad_inches=0.08)


def check_picture(path: str | os.PathLike[str]) -> str:
    """The kind of picture that a name ends in; raises UsageError if it is none of `FORMATS`."""
    return kind_of(path, FORMATS, "a picture")


def kind_of(path: str | os.PathLike[str], kinds: Sequence[str], what: str) -> str:
    """The ending of a name; raises UsageError if it is none of `kinds`."""
    path = Path(path)
    kind = path.suffix.lstrip(".").lower()
    if kind not in kinds:
        raise UsageError(
            f"expected {what} as {', '.join(kinds)}; came {path.name!r}.",
            f"Name it {path.with_suffix(f'.{kinds[0]}').name!r}.",
        )
    return kind
