"""Lock the data folder: one FlashFlow per folder. The operating system releases the lock when the process ends."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from flashflow.backend.core.errors import AlreadyRunning, StorageError

LOCK_FILE = "flashflow.lock"


class FolderLock:
    """Holds ``folder`` until ``release``. Raises AlreadyRunning if another process holds it, StorageError if the folder
    cannot be created or written."""

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
        """Release the folder. Safe to call twice."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def is_locked(folder: Path) -> bool:
    """Whether a running process holds ``folder``; a lock file left by a killed process does not count."""
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
    """Lock, retrying for as long as ``is_locked`` in another process may hold the lock."""
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
