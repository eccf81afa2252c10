"""This computer as a device of its owner, and what the start of FlashFlow owes the files."""

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
    notifications: NotificationService, folder: Path, user_id: str, tell: Callable[[str], None]
) -> None:
    """Make this computer a device of ``user_id``: the push channel reaches it natively. Raises StorageError."""
    name = socket.gethostname() or "this computer"

    def create() -> bytes:
        # Under the id that it had, where that is known: a second device row would get a failed push each time.
        known = notifications.store.read(lambda conn: desktop_tokens(conn, user_id, name))
        return (known[0] if len(known) == 1 and _ID.fullmatch(known[0]) else f"computer:{uuid.uuid4()}").encode()

    token = read_or_create(folder / ID_FILE, _parse, create, tell)
    notifications.sender.this_computer = token
    with suppress(Erased):  # its owner was erased: then this computer belongs to no user
        notifications.register_device_token(user_id, token, "desktop", {"name": name})


def _parse(content: bytes) -> str | None:
    token = content.decode("ascii", "replace").strip()
    return token if _ID.fullmatch(token) else None


class StartWrites:
    """The writes that a start owes, in order. One that the storage refuses waits, with those after it, for ``run``."""

    def __init__(self) -> None:
        self._left: list[Callable[[], object]] = []
        self._one = threading.Lock()

    def add(self, write: Callable[[], object]) -> None:
        """Queue ``write``; it is called until it raises no StorageError."""
        self._left.append(write)

    def run(self) -> None:
        """Do the queued writes, up to the first that is refused."""
        with self._one:
            while self._left:
                try:
                    self._left[0]()
                except StorageError as error:
                    log.warning("a write of the start waits for the storage: %s", error)
                    return
                del self._left[0]
