"""Detect a damaged WAL: SQLite silently ignores everything after the first frame with a wrong checksum.

Format: https://www.sqlite.org/fileformat.html#walformat. A wrong frame at the end is normal (a power cut tore the last
transaction), and frames of an earlier, longer WAL have other salts. A wrong header is damage, and so is a wrong frame
that a committed transaction follows: it had been synced before that one began.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

from flashflow.backend.core.clock import Clock, file_stamp
from flashflow.backend.store.engine.database import create_private

log = logging.getLogger(__name__)

_MAGICS, _VERSION = (0x377F0682, 0x377F0683), 3007000
_HEADER, _FRAME_HEADER = 32, 24


def keep_damaged(path: Path, clock: Clock, timeout_s: float = 2.0) -> str | None:
    """Copy a damaged WAL of ``path`` aside before SQLite overwrites it; return the copy's name.

    Return None if the WAL is sound or empty, or another process has the file open.
    """
    wal = path.with_name(path.name + "-wal")
    try:
        if not wal.exists() or wal.stat().st_size <= _HEADER:
            return None
        with closing(sqlite3.connect(path, timeout=timeout_s, isolation_level=None)) as conn:
            conn.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
            conn.execute("BEGIN EXCLUSIVE")  # no other process may append to the WAL meanwhile
            conn.execute("COMMIT")
            (_, frames, _) = conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if not _is_damaged(wal, frames):
                return None
            stamp = file_stamp(clock.now_ms())
            aside = wal.with_name(f"{path.name}.damaged-{stamp}-wal")
            create_private(aside)
            shutil.copyfile(wal, aside)
    except (OSError, sqlite3.Error) as error:
        log.warning("%s could not be checked: %s", wal.name, error)
        return None
    log.warning("%s was damaged", wal.name)
    return aside.name


def _is_damaged(wal: Path, frames: int) -> bool:
    """Whether ``wal`` has committed transactions after the first ``frames``, which SQLite could read."""
    with wal.open("rb") as file:
        header = file.read(_HEADER)
        magic, version, page_size, _ = struct.unpack(">4I", header[:16])
        if magic not in _MAGICS or version != _VERSION or _checksum(header[:24]) != header[24:]:
            return any(file.read())
        step, commits = _FRAME_HEADER + page_size, 0
        for start in range(_HEADER + frames * step, wal.stat().st_size - step + 1, step):
            file.seek(start)
            head = file.read(_FRAME_HEADER)
            if head[8:16] == header[16:24]:
                commits += head[4:8] != b"\0\0\0\0"
                if commits > 1:
                    return True
    return False


def _checksum(header: bytes) -> bytes:
    """SQLite's checksum of a WAL header; its magic number gives the byte order."""
    order = ">" if header[3] & 1 else "<"
    words = struct.unpack(f"{order}6I", header)
    one = two = 0
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return struct.pack(">2I", one, two)
