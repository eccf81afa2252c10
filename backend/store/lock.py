"""One FlashFlow per data folder, by a lock the operating system drops when the process ends, however it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from backend.errors import AlreadyRunning, StorageError


class FolderLock:
    """Holds ``folder`` until ``release``. Raises AlreadyRunning when another process holds it, StorageError when the
    folder cannot be made or written."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(folder, 0o700)
            self._handle: int | None = os.open(folder / "flashflow.lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise StorageError(f"The data folder {folder} cannot be used: {error.strerror}.") from error
        try:
            _lock(self._handle)
        except OSError as error:
            os.close(self._handle)
            raise AlreadyRunning(f"FlashFlow is already running on {folder}.") from error

    def release(self) -> None:
        """Give the folder back. Safe to call twice."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
