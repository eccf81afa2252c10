"""FlashFlow: the notification centre and activity log of one machine or a small team.

``from flashflow import UserActivityService, NotificationService`` gives the two services, ``flashflow.track`` and the
other names those of ``flashflow.client``; they load at first use.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flashflow.backend import Backend, NotificationService, UserActivityService
    from flashflow.client import (
        Client,
        NotificationHandler,
        configure,
        flush,
        inbox,
        mark_read,
        send,
        session,
        stream,
        track,
        tracked,
    )

__all__ = [
    "Backend", "Client", "NotificationHandler", "NotificationService", "UserActivityService", "configure", "flush",
    "inbox", "mark_read", "send", "session", "stream", "track", "tracked",
]  # fmt: skip

_HOMES = {
    "Backend": "backend.app",
    "NotificationService": "backend.notifications.service",
    "UserActivityService": "backend.activity.service",
}
"""Each name's module below ``flashflow``, so that a service loads without the other; the client has the other names."""

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "main.py").is_file() and (_ROOT / "backend" / "core").is_dir():
    # A checkout or a Flet build of the folder: `backend`, `views` and `assets` stand beside this package. An installed
    # wheel has them inside it. Either way each module has one name, `flashflow.backend...`, and is loaded once.
    __path__.append(str(_ROOT))


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module(f"flashflow.{_HOMES.get(name, 'client')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
