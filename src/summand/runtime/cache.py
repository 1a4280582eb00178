"""Compiled programs on disk, for the next process.

    store = default()
    store.save(key, payload)        # key: hex digest of everything that the payload depends on
    store.load(key)  ->  payload, or None where there is none that is whole

An entry is one file: a line with a magic word, the key, the length and SHA-256 of the rest; then
the payload. It is written beside its place and renamed, so a reader sees all of it or nothing. One
that is truncated, altered, or of another key is deleted and reported as absent: it never runs.

The folder belongs to its user alone (mode 0700); one that others can write to is not used. Whatever
goes wrong with the disk, programs run without the cache, and one warning says so.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import stat
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from summand.runtime import machine

LIMIT = 512 << 20  # bytes of all entries; beyond it the least recently used go
MAGIC = b"summand-cache-1"
SUFFIX = ".entry"
UNFINISHED = ".new-"  # how the names of files begin that are still being written
ABANDONED = 3600.0  # seconds after which nobody can be writing any more


class CacheWarning(UserWarning):
    """Compiled programs cannot be kept on disk."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the store: its path, bytes, and time of last use."""

    path: Path
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of entries, bounded in size. All methods work without the folder, too."""

    folder: Path
    limit: int = LIMIT

    def load(self, key: str) -> bytes | None:
        """The payload saved under a key, if its entry is whole."""
        path = self._path(key)
        try:
            if not self._is_private():
                return None
            data = path.read_bytes()
        except OSError:
            return None
        payload = _open(data, key)
        if payload is None:
            _remove(path)
            return None
        with contextlib.suppress(OSError):  # its time of use is only for eviction
            os.utime(path)
        return payload

    def save(self, key: str, payload: bytes) -> None:
        """Keep a payload; where that is impossible, warn once and go on."""
        data = _seal(payload, key)
        if len(data) > self.limit:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_private():
                _warn(self.folder, "others may write to it, or it belongs to another user")
                return
            self._remove_abandoned()
            self._make_room(len(data))
            _write(self.folder, self._path(key), data)
        except OSError as error:
            _warn(self.folder, error.strerror or str(error))

    def discard(self, key: str) -> None:
        """Delete an entry that turned out to be of no use."""
        _remove(self._path(key))

    def entries(self) -> list[Entry]:
        """All entries, least recently used first."""
        found = []
        try:
            files = list(os.scandir(self.folder))
        except OSError:
            return []
        for file in files:
            if file.name.endswith(SUFFIX):
                try:
                    info = file.stat()
                except OSError:
                    continue  # another process deleted it just now
                found.append(Entry(Path(file.path), info.st_size, info.st_mtime))
        return sorted(found, key=lambda e: (e.used, e.path))

    def clear(self) -> int:
        """Delete all entries; how many there were."""
        entries = self.entries()
        for entry in entries:
            _remove(entry.path)
        return len(entries)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _remove_abandoned(self) -> None:
        """Delete half-written files of processes that were killed while they wrote."""
        for path in self.folder.glob(f"{UNFINISHED}*"):
            with contextlib.suppress(OSError):  # another process was faster
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()

    def _make_room(self, nbytes: int) -> None:
        entries = self.entries()
        excess = sum(e.size for e in entries) + nbytes - self.limit
        for entry in entries:
            if excess <= 0:
                return
            _remove(entry.path)
            excess -= entry.size

    def _is_private(self) -> bool:
        """True where nobody but this user can have written into the folder."""
        if not hasattr(os, "getuid"):
            return True
        info = os.stat(self.folder)
        return info.st_uid == os.getuid() and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def digest(*parts: str) -> str:
    """A key for everything that a payload depends on; no two lists of parts share one."""
    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode()
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return hasher.hexdigest()


def default() -> Store:
    """The user's store, in the folder that `machine.cache_folder` names."""
    return Store(machine.cache_folder())


def _seal(payload: bytes, key: str) -> bytes:
    check = hashlib.sha256(payload).hexdigest()
    return b"%s %s %d %s\n" % (MAGIC, key.encode(), len(payload), check.encode()) + payload


def _open(data: bytes, key: str) -> bytes | None:
    """The payload of an entry's bytes, if they are exactly what was saved under this key."""
    _, newline, payload = data.partition(b"\n")
    return payload if newline and data == _seal(payload, key) else None


def _write(folder: Path, path: Path, data: bytes) -> None:
    unfinished = folder / f"{UNFINISHED}{secrets.token_hex(8)}"  # named before it exists
    try:
        with open(unfinished, "xb", opener=_open_private) as file:
            file.write(data)
        os.replace(unfinished, path)
    except BaseException:  # Ctrl-C as well, wherever it falls: leave no half-written file
        _remove(unfinished)
        raise


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # gone already, or not ours to delete
        path.unlink(missing_ok=True)


def _warn(folder: Path, why: str) -> None:
    _warn_once(
        f"Compiled programs cannot be kept in {folder}: {why}. Programs run all the same, "
        "but each process compiles anew. SUMMAND_CACHE_DIR names another folder."
    )


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, CacheWarning, stacklevel=4)
