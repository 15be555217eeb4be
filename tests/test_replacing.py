"""Outputs are there whole, or as they were before, whenever their writer is killed."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pdeforecast import replacing as module
from pdeforecast.replacing import remove_strays, replacing, replacing_by_name


def put_file(path: Path, text: str) -> None:
    path.write_text(text)


def put_folder(path: Path, text: str) -> None:
    path.mkdir()
    (path / "part").write_text(text)


def got(path: Path) -> str:
    return (path / "part" if path.is_dir() else path).read_text()


WRITERS = [(replacing, put_file), (replacing_by_name, put_file), (replacing_by_name, put_folder)]


def killed(work: Callable[[], None]) -> None:
    """Does the work in another process, which kills itself at its end."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize(("writer", "put"), WRITERS)
def test_a_killed_writer_changes_nothing_and_its_rest_goes_with_the_next(
    writer: Callable, put: Callable[[Path, str], None], tmp_path: Path
) -> None:
    target = tmp_path / "out.csv"

    def write(text: str, end: bool) -> None:
        with writer(target) as beside:
            put(beside, text)
            if end:
                os.kill(os.getpid(), signal.SIGKILL)

    killed(lambda: write("never", end=True))
    assert not target.exists() and len(list(tmp_path.iterdir())) == 1
    write("first", end=False)
    assert got(target) == "first" and list(tmp_path.iterdir()) == [target]
    killed(lambda: write("never", end=True))
    assert got(target) == "first" and len(list(tmp_path.iterdir())) == 2
    write("second", end=False)
    assert got(target) == "second" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("writer", "put"), WRITERS)
def test_a_writer_that_fails_leaves_nothing(
    writer: Callable, put: Callable[[Path, str], None], tmp_path: Path
) -> None:
    target = tmp_path / "out.csv"
    put(target, "kept")
    with pytest.raises(RuntimeError), writer(target) as beside:
        put(beside, "never")
        raise RuntimeError
    assert got(target) == "kept" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("writer", "put"), WRITERS)
def test_what_another_writes_is_no_stray(
    writer: Callable, put: Callable[[Path, str], None], tmp_path: Path
) -> None:
    target = tmp_path / "out.csv"
    with writer(target) as first:
        put(first, "first")
        with writer(target) as second:
            put(second, "second")
        assert got(target) == "second"
        remove_strays(target)
    assert got(target) == "first" and list(tmp_path.iterdir()) == [target]


def test_a_folder_is_put_back_if_the_new_one_cannot_be(tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    put_folder(target, "old")
    with pytest.raises(FileNotFoundError), replacing_by_name(target):
        pass
    assert got(target) == "old" and list(tmp_path.iterdir()) == [target]


def test_a_folder_that_was_taken_away_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the old folder has left and before the new one is there."""
    target = tmp_path / "out.zarr"
    put_folder(target, "old")
    monkeypatch.setattr(module.os, "replace", lambda *_: os.kill(os.getpid(), signal.SIGKILL))

    def write() -> None:
        with replacing_by_name(target) as beside:
            put_folder(beside, "new")

    killed(write)
    assert not target.exists()
    remove_strays(target)
    assert got(target) == "old" and list(tmp_path.iterdir()) == [target]


def test_a_file_does_not_take_the_place_of_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    put_folder(target, "kept")
    with pytest.raises(IsADirectoryError), replacing_by_name(target) as beside:
        put_file(beside, "never")
    assert got(target) == "kept" and list(tmp_path.iterdir()) == [target]


def test_what_lies_beside_another_output_is_left(tmp_path: Path) -> None:
    stray = tmp_path / ".out.zarr.12345678.partial"
    put_folder(stray, "of another")
    (stray / "old").mkdir()
    remove_strays(tmp_path / "out")
    assert got(stray) == "of another" and (stray / "old").exists()


def test_folders_that_meet_are_both_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer puts its folder there after the old one has left: the last to come stays."""
    target, rename = tmp_path / "out.zarr", os.rename
    put_folder(target, "old")

    def meet(*paths: Path) -> None:
        monkeypatch.setattr(module.os, "rename", rename)
        rename(*paths)
        put_folder(target, "other")

    monkeypatch.setattr(module.os, "rename", meet)
    with replacing_by_name(target) as beside:
        put_folder(beside, "new")
    assert got(target) == "new" and list(tmp_path.iterdir()) == [target]
