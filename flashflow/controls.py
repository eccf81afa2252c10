"""FlashFlow's controls for any Flet app: a live notification bell, and the notification settings of a user.

    from flashflow.controls import NotificationBell

    page.appbar = ft.AppBar(actions=[NotificationBell(user_id="ada")])

Importing this module loads Flet and nothing of FlashFlow's backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashflow.client import Client
from flashflow.views.controls.http_sources import HttpConnection, local_connection
from flashflow.views.controls.notification_bell import NotificationBell
from flashflow.views.controls.notification_settings import NotificationSettings, PreferenceChange
from flashflow.views.controls.protocols import InboxSource, PreferenceSource
from flashflow.views.controls.translation import TEXTS

if TYPE_CHECKING:
    from flashflow.backend import NotificationService
    from flashflow.views.shared.sources import InProcess

__all__ = [
    "TEXTS",
    "InboxSource",
    "NotificationBell",
    "NotificationSettings",
    "PreferenceChange",
    "PreferenceSource",
    "connect",
    "in_process",
]


def connect(client: Client | None = None) -> HttpConnection:
    """Return sources over HTTP: ``.inbox(user_id)`` and ``.preferences(user_id)``.

    Without ``client`` they use the FlashFlow of this machine and its local key, or ``FLASHFLOW_URL`` and
    ``FLASHFLOW_KEY``. Keep the connection: all its controls share one event stream.
    """
    return HttpConnection(client) if client else local_connection()


def in_process(notifications: NotificationService) -> InProcess:
    """Return the same sources over a service in this process."""
    from flashflow.views.shared.sources import InProcess  # loads the backend

    return InProcess(notifications)
