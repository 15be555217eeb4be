"""A file that is there whole, or as it was before; what a killed writer left goes with the next one."""

import contextlib
import fcntl
import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new file beside `path`, for the time of a `with`; then flushed to disk and renamed to `path`.

    If the `with` fails, `path` stays as it was and the new file is removed. What an earlier process left
    beside `path`, because it was killed while it wrote, is removed too.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_strays(target)
    handle, beside = _claimed(target)
    try:
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    finally:
        # Not by closing alone: a process forked meanwhile has the handle too.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def remove_strays(target: Path) -> None:
    """Removes the files beside `target` that nobody writes any more: their locks are free."""
    for stray in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        # Another writer may have finished, or removed it, since the folder was listed.
        with contextlib.suppress(OSError), open(stray, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stray.unlink()


def _claimed(target: Path) -> tuple[int, Path]:
    """A new file beside `target`, and a handle that holds its lock while the process lives."""
    while True:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
        fcntl.flock(handle, fcntl.LOCK_EX)
        beside = Path(name)
        # Another writer may have taken it for a stray before it was locked.
        if beside.exists():
            return handle, beside
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
