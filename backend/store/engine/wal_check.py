"""Whether a WAL is damaged: SQLite reads it up to the first frame that fails its checksum, and says nothing.

The format: https://www.sqlite.org/fileformat.html#walformat. A frame that fails is usual at the end, where a power cut
tore the last transaction, and what is left of an earlier, longer WAL has other salts. It is damage where the header
fails, or where another transaction follows the one that fails: that one was synced before the other began.
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
    """Copy the damaged WAL of ``path`` aside before SQLite overwrites it; return the copy's name.

    None where the WAL is sound or empty, or another process has the file open and so reads what it reads.
    """
    wal = path.with_name(path.name + "-wal")
    try:
        if not wal.exists() or wal.stat().st_size <= _HEADER:
            return None
        with closing(sqlite3.connect(path, timeout=timeout_s, isolation_level=None)) as conn:
            conn.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
            conn.execute("BEGIN EXCLUSIVE")  # alone with the file: no other process appends to the WAL meanwhile
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
    """Whether ``wal``, of which SQLite read ``frames``, has transactions behind them that were committed."""
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
    """SQLite's checksum of a WAL's header, in words of the byte order that its magic number names."""
    order = ">" if header[3] & 1 else "<"
    words = struct.unpack(f"{order}6I", header)
    one = two = 0
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return struct.pack(">2I", one, two)
