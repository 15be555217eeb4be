"""A seal on a NetCDF file: damage is told, never read as data, and never met by HDF5's parser.

Arrays of numbers are stored in chunks, each with a Fletcher-32 checksum that HDF5 compares whenever it reads
one. Behind the end of the file, where HDF5 does not look, the seal says where they lie, and the SHA-256 of
all other bytes. So a file is examined when it is opened, however large it is, and its numbers as they are
read. A file without a seal, such as others write, is read as it is.

    HDF5 | {"chunks": [[start, stop], …], "sha256": …} | length, 8 bytes | MARK
"""

import hashlib
import json
from pathlib import Path

import h5py

_MARK = b"pdefSEAL"
_LENGTH = 8
_PIECE = 2**20


def write_seal(path: Path) -> None:
    """Seals a file that is complete and has no seal."""
    chunks = _merged(sorted(_checked(path)))
    said = json.dumps({"chunks": chunks, "sha256": _digest(path, chunks, path.stat().st_size)}).encode()
    with path.open("ab") as file:
        file.write(said + len(said).to_bytes(_LENGTH, "little") + _MARK)


def is_intact(path: Path) -> bool:
    """Whether all but the numbers is as it was written; true of a file without a seal."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - len(_MARK) - _LENGTH))
        length, mark = int.from_bytes(file.read(_LENGTH), "little"), file.read()
        end = size - len(_MARK) - _LENGTH - length
        if mark != _MARK:
            return True
        if end < 0:
            return False
        file.seek(end)
        said = file.read(length)
    try:
        seal = json.loads(said)
        return bool(seal["sha256"] == _digest(path, seal["chunks"], end))
    except (ValueError, KeyError, TypeError):
        return False


def _checked(path: Path) -> list[tuple[int, int]]:
    """Where the chunks lie that have a checksum of their own."""
    found: list[tuple[int, int]] = []

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        found.append((chunk.byte_offset, chunk.byte_offset + chunk.size))

    # Its writer may hold a lock on it.
    with h5py.File(path, locking=False) as file:
        for item in file.values():
            if isinstance(item, h5py.Dataset) and item.fletcher32:
                item.id.chunk_iter(note)
    return found


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, those that touch as one."""
    merged: list[tuple[int, int]] = []
    for start, stop in ranges:
        if merged and merged[-1][1] == start:
            start = merged.pop()[0]
        merged.append((start, stop))
    return merged


def _digest(path: Path, chunks: list[tuple[int, int]], end: int) -> str:
    """The SHA-256 of `chunks`, and of all bytes before `end` that are in none of them."""
    digest = hashlib.sha256(json.dumps(chunks).encode())
    starts, stops = [0, *(stop for _, stop in chunks)], [*(start for start, _ in chunks), end]
    with path.open("rb") as file:
        for start, stop in zip(starts, stops, strict=True):
            file.seek(start)
            for at in range(start, stop, _PIECE):
                digest.update(file.read(min(_PIECE, stop - at)))
    return digest.hexdigest()
