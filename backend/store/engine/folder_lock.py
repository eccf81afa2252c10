"""One FlashFlow per data folder, by a lock the operating system drops when the process ends, however it ends."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from flashflow.backend.core.errors import AlreadyRunning, StorageError

LOCK_FILE = "flashflow.lock"


class FolderLock:
    """Holds ``folder`` until ``release``. Raises AlreadyRunning when another process holds it, StorageError when the
    folder cannot be made or written."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(folder, 0o700)
            self._handle: int | None = os.open(folder / LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise StorageError(f"The data folder {folder} cannot be used: {error.strerror}.") from error
        if not _lock_in_time(self._handle):
            os.close(self._handle)
            self._handle = None
            raise AlreadyRunning(f"FlashFlow is already running on {folder}.")

    def release(self) -> None:
        """Give the folder back. Safe to call twice."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def is_locked(folder: Path) -> bool:
    """Whether a process holds ``folder``: false for whatever a process that was killed left behind."""
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDWR)
    except OSError:
        return False
    try:
        _lock(handle)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _lock_in_time(handle: int) -> bool:
    """Lock, waiting for as long as ``is_locked`` in another process may hold it."""
    for _ in range(20):
        try:
            _lock(handle)
        except OSError:
            time.sleep(0.01)
        else:
            return True
    return False


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
