"""Find out whether ``.flow`` files have changed: by name, time, size and content."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from flashflow.backend.flow.language.source import files_in

MOST_BYTES = 8 * 1024 * 1024
"""Bytes of a file that its digest covers; a larger one is refused when it is read."""
_TICK_NS = 2_000_000_000
"""A file written so recently may change again without a new time: some file systems count in seconds."""

_Signature = tuple[int, int, int]
_State = dict[Path, tuple[_Signature, bytes]]


class FileWatch:
    """The files of given paths and folders. A missing file counts as removed at the second look, because an editor may
    be replacing it."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._state: _State = {}
        self._missing: set[Path] = set()
        self._unread = False

    def present(self) -> list[Path]:
        """Return the given paths that exist, without folders that have no file."""
        return [path for path in self._paths if (_files(path) if path.is_dir() else path.exists())]

    def changed(self) -> bool:
        """Whether a file has changed, come or gone since the last call that returned True; the first returns True.

        Costs a ``stat`` of each file while nothing changes.
        """
        before, now = self._state, self._look()
        missing = before.keys() - now.keys()
        if missing - self._missing and self._state:
            self._missing = missing
            return False
        self._missing = set()
        first, self._state = not self._unread, now
        self._unread = True
        return first or {path: digest for path, (_, digest) in before.items()} != {
            path: digest for path, (_, digest) in now.items()
        }

    def _look(self) -> _State:
        found: _State = {}
        for given in self._paths:
            for path in _files(given) if given.is_dir() else [given]:
                try:
                    found[path] = self._entry(path)
                except OSError:
                    if path.exists():  # unreadable: a change of its own
                        found[path] = ((0, 0, 0), b"")
        return found

    def _entry(self, path: Path) -> tuple[_Signature, bytes]:
        status = os.stat(path)
        signature = (status.st_mtime_ns, status.st_size, status.st_ino)
        known = self._state.get(path)
        if known is not None and known[0] == signature and time.time_ns() - status.st_mtime_ns > _TICK_NS:
            return known
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its other end; loading refuses it
            return signature, b""
        with open(path, "rb") as file:
            return signature, hashlib.sha256(file.read(MOST_BYTES)).digest()


def _files(folder: Path) -> list[Path]:
    try:
        return files_in(folder)
    except OSError:  # loading says so
        return []
