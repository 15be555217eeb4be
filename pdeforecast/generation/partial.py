"""A file in the making: samples are kept beside it one by one, so that an interruption costs one of them.

`FILE.partial/` holds

    stream.json     all on which the samples depend but their index
    values          one record per sample, in the order of the indices, as bytes
    done            a line per sample that is complete: its index and the SHA-256 of its record

A record counts when its line stands and its hash is right. Whatever is cut off, by a kill, a full disk or a
power failure, is made again.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pdeforecast.errors import UsageError
from pdeforecast.generation.samples import Trajectory
from pdeforecast.trajectory import save_dataset


class Partial:
    """The samples of one stream that are complete.

    Args:
        target: the file that is to be made.
        stream: all on which the samples depend but their index.
        record: the type of a sample, with the fields `values` and every static.
    """

    def __init__(self, target: Path, stream: Mapping[str, Any], record: np.dtype) -> None:
        self._target = target
        self.folder = target.with_name(f"{target.name}.partial")
        self._stream = json.dumps(stream, sort_keys=True)
        self._record = record

    @contextmanager
    def locked(self) -> Iterator[None]:
        """For one process at a time; the folder is made, or is one of the same stream.

        Raises:
            UsageError: if it belongs to another stream, or to a process that runs.
        """
        self.folder.mkdir(exist_ok=True)
        with open(self.folder / "done", "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"{self.folder} is being filled by another process.",
                    "Wait for it, or write another file.",
                ) from None
            self._claim()
            yield

    def _claim(self) -> None:
        path = self.folder / "stream.json"
        if not path.exists():
            beside = path.with_suffix(".new")
            beside.write_text(self._stream)
            os.replace(beside, path)
        elif changed := _differences(json.loads(path.read_text()), json.loads(self._stream)):
            raise UsageError(
                f"{self.folder} holds samples of another command: {changed}.",
                f"Type that command to go on with it, or drop it: `rm -r {self.folder}`.",
            )

    def complete(self) -> set[int]:
        """The indices of the samples that are there, whole."""
        found: set[int] = set()
        log, values = self.folder / "done", self.folder / "values"
        if not values.exists():
            return found
        kept = [line for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        os.truncate(log, sum(map(len, kept)))
        with open(values, "rb") as file:
            for line in kept:
                index, expected = line.decode().split()
                file.seek(int(index) * self._record.itemsize)
                if hashlib.sha256(file.read(self._record.itemsize)).hexdigest() == expected:
                    found.add(int(index))
        return found

    def add(self, trajectory: Trajectory) -> None:
        """Keep a sample; its line in `done`, written last, makes it count."""
        record = np.zeros((), dtype=self._record)
        record["values"] = trajectory.values
        for name, array in trajectory.statics.items():
            record[name] = array
        data = record.tobytes()
        path = self.folder / "values"
        path.touch()
        with open(path, "r+b") as file:
            file.seek(trajectory.index * self._record.itemsize)
            file.write(data)
        with open(self.folder / "done", "ab") as log:
            log.write(f"{trajectory.index} {hashlib.sha256(data).hexdigest()}\n".encode())

    def read(self, samples: int, statics: Sequence[str]) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """The values (S, T, *grid, V), on disk until they are looked at, and the statics of sample 0."""
        records = np.memmap(self.folder / "values", dtype=self._record, mode="r", shape=(samples,))
        return records["values"], {name: records[name][0] for name in statics}

    def finish(self, ds: xr.Dataset) -> None:
        """The target holds `ds`, and the folder is gone; a kill leaves strays in the folder alone."""
        beside = self.folder / self._target.name
        save_dataset(ds, beside, overwrite=True)
        os.replace(beside, self._target)
        self.remove()

    def remove(self) -> None:
        """The folder and all that it holds."""
        shutil.rmtree(self.folder)


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """`seed 1, here 2`, for all that differs; parameters one by one."""
    theirs, ours = ({**side, **json.loads(side["parameters"])} for side in (theirs, ours))
    keys = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key) and key != "parameters"]
    return ", ".join(f"{key} = {theirs.get(key)}, here {ours.get(key)}" for key in keys)
