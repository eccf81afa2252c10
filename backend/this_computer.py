"""Registration of this computer as a device, and the queue of writes at start."""

from __future__ import annotations

import logging
import re
import socket
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flashflow.backend.core.errors import Erased, StorageError
from flashflow.backend.core.private_files import read_or_create
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.store.notifications.devices import desktop_tokens

log = logging.getLogger(__name__)

ID_FILE = "computer.id"
_ID = re.compile(r"computer:[0-9a-f-]{36}")


def register_this_computer(
    notifications: NotificationService, folder: Path, user_id: str, report: Callable[[str], None]
) -> None:
    """Register this computer as a device of ``user_id``, for native notifications. Raises StorageError."""
    name = socket.gethostname() or "this computer"

    def create() -> bytes:
        # Reuse the id of an existing registration: each push to a second device row would fail.
        known = notifications.store.read(lambda conn: desktop_tokens(conn, user_id, name))
        return (known[0] if len(known) == 1 and _ID.fullmatch(known[0]) else f"computer:{uuid.uuid4()}").encode()

    token = read_or_create(folder / ID_FILE, _parse, create, report)
    notifications.policy_inputs.this_computer = token
    with suppress(Erased):  # the owner was erased, so this computer has no user
        notifications.register_device_token(user_id, token, "desktop", {"name": name})


def _parse(content: bytes) -> str | None:
    token = content.decode("ascii", "replace").strip()
    return token if _ID.fullmatch(token) else None


class StartWrites:
    """Queue of writes at start, in order. A write that the storage refuses waits for the next ``run``."""

    def __init__(self) -> None:
        self._queue: list[Callable[[], object]] = []
        self._running = threading.Lock()

    def add(self, write: Callable[[], object]) -> None:
        """Queue ``write``; it is retried while it raises StorageError."""
        self._queue.append(write)

    def run(self) -> None:
        """Run queued writes, up to the first that is refused."""
        with self._running:
            while self._queue:
                try:
                    self._queue[0]()
                except StorageError as error:
                    log.warning("a write at start waits for the storage: %s", error)
                    return
                del self._queue[0]
