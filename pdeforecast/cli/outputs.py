"""Where a verb writes: asked before the work, so that nothing is lost to a slip of the pen."""

import os
from collections.abc import Collection
from pathlib import Path

from pdeforecast.errors import UsageError
from pdeforecast.trajectory import check_target

NETCDF = (".nc", ".nc4")
Input = str | os.PathLike[str] | None


def place(text: str) -> Path:
    """A path; no text is none, as an empty variable of the shell gives."""
    if not text:
        raise UsageError("expected a path after -o; came an empty text.", "Type `-o` and a name.")
    return Path(text)


def check_file(output: Path, overwrite: bool, inputs: Collection[Input], endings: Collection[str]) -> None:
    """Ask whether a verb may write its file.

    Args:
        inputs: what it reads; None where an option is left out.
        endings: that a name may have, if it has one.

    Raises:
        UsageError: if `output` is one of `inputs`, has another ending, is a folder where a file is written
            or the other way round, or as `check_target` does.
    """
    check_other(output, inputs)
    ending = output.suffix.lower()
    if ending and ending not in endings:
        raise UsageError(
            f"expected a name that ends in {', '.join(endings)}; came {output.name!r}.",
            f"Type `-o {output.with_suffix(next(iter(endings)))}`.",
        )
    if output.exists() and output.is_dir() != (ending == ".zarr"):
        came, wanted = ("folder", "file") if output.is_dir() else ("file", "folder")
        raise UsageError(f"expected a {wanted}; {output} is a {came}.", "Give another `-o`.")
    check_target(output, overwrite)


def check_folder(output: Path | None) -> None:
    """Ask whether a verb may write files into a folder, which need not be there."""
    if output is not None and output.exists() and not output.is_dir():
        raise UsageError(f"expected a folder; {output} is a file.", "Give another `-o`.")


def check_other(output: Path, inputs: Collection[Input]) -> None:
    """That `output` is none of `inputs`, which writing it would destroy, by whatever name."""
    for name in inputs:
        if name is not None and os.path.exists(name) and output.exists() and output.samefile(name):
            raise UsageError(
                f"expected another output; {output} is one of the inputs of this command.",
                "Give another `-o`.",
            )
