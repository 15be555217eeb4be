"""Outputs that are there whole, or as they were before; what a killed writer left goes with the next one."""

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_WORD = "?" * 8
"""What `tempfile` puts into a name. Not `*`: `out` must not take the rest of `out.zarr` for its own."""
_OLD = "old"
"""Where a folder is while another takes its place."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new file beside `path`, for the time of a `with`; then flushed to disk and renamed to `path`.

    If the `with` fails, `path` stays as it was and the new file is removed. What an earlier process left
    beside `path`, because it was killed while it wrote, is removed too.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_strays(target)
    handle, beside = _claimed(target, _new_file)
    try:
        yield beside
        _flush(beside)
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    finally:
        # Not by closing alone: a process forked meanwhile has the handle too.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


@contextmanager
def replacing_by_name(path: str | os.PathLike[str]) -> Iterator[Path]:
    """As `replacing`, for a folder, or for a file that is to be written under its own name.

    That path is in a new folder beside `path`. It takes the place of `path` if the `with` succeeds; a file
    does not take that of a folder. The files of a folder are not flushed to disk.
    """
    target = Path(path)
    remove_strays(target)
    handle, folder = _claimed(target, tempfile.mkdtemp)
    try:
        made = folder / target.name
        yield made
        if not made.is_dir():
            _flush(made)
            os.replace(made, target)
            return
        while True:
            if target.is_dir():
                os.rename(target, folder / _OLD)
            try:
                os.replace(made, target)
                return
            except OSError as error:
                # Another writer's folder is there meanwhile: it is the old one now.
                if error.errno != errno.ENOTEMPTY:
                    raise
                shutil.rmtree(folder / _OLD, ignore_errors=True)
    finally:
        _remove_folder(folder, target)
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def remove_strays(target: Path) -> None:
    """Removes what lies beside `target` and nobody writes any more: its lock is free.

    A folder whose writer was killed between taking it away and putting the new one there is put back.
    """
    for stray in target.parent.glob(f".{glob.escape(target.name)}.{_WORD}.partial"):
        # Another writer may have finished, or removed it, since the folder was listed.
        with contextlib.suppress(OSError), _opened(stray) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stray.is_dir():
                _remove_folder(stray, target)
            else:
                stray.unlink()


def _remove_folder(beside: Path, target: Path) -> None:
    """Removes a folder beside `target`, and puts back what was taken away and has no successor."""
    if (beside / _OLD).exists() and not target.exists():
        os.rename(beside / _OLD, target)
    shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = _open(path)
    try:
        yield handle
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    """A handle of a folder, or of a file: one that may write, for network file systems lock no other."""
    return os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)


def _flush(file: Path) -> None:
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())


def _claimed(target: Path, make: Callable[..., str]) -> tuple[int, Path]:
    """What `make` made beside `target`, and a handle that holds its lock while the process lives."""
    while True:
        beside = Path(make(dir=target.parent, prefix=f".{target.name}.", suffix=".partial"))
        # Another writer may take it for a stray before it is locked.
        with contextlib.suppress(FileNotFoundError):
            handle = _open(beside)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if beside.exists():
                return handle, beside
            os.close(handle)


def _new_file(dir: Path, prefix: str, suffix: str) -> str:
    handle, name = tempfile.mkstemp(suffix, prefix, dir)
    os.close(handle)
    return name


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
