"""Data sources of the reusable controls. The app implements them in process, a client over HTTP.

``subscribe`` calls ``on_change``, in the event loop it was called from, whenever the source's data may have changed.
Every other method may block (controls call it in a worker thread) and must be thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

ALL = "*"
"""Every type, or every channel, in a preference or digest."""


class InboxNotification(Protocol):
    """A notification in a list.

    ``inbox``: "unread", "read", "snoozed" or "archived". ``count``: times it was sent under its collapse key.
    ``listed_at``: time it last entered the inbox, the sort key of lists.
    """

    @property
    def id(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def app(self) -> str: ...
    @property
    def priority(self) -> str: ...
    @property
    def inbox(self) -> str | None: ...
    @property
    def listed_at(self) -> datetime: ...
    @property
    def count(self) -> int: ...


@dataclass(frozen=True)
class Inbox:
    """The newest notifications, the unread count of the whole inbox, and the end of do not disturb (None: off).

    ``may_pause``: whether the user may set do not disturb.
    """

    notifications: Sequence[InboxNotification] = ()
    unread: int = 0
    quiet_until: datetime | None = None
    may_pause: bool = True


class InboxSource(Protocol):
    """One user's in-app inbox."""

    def newest(self, limit: int) -> Inbox: ...
    def mark_read(self, notification_id: str) -> object: ...
    def mark_unread(self, notification_ids: Sequence[str]) -> object: ...

    def mark_all_read(self) -> Sequence[str]:
        """Mark every unread notification read; return the changed ids, for undo."""
        ...

    def set_do_not_disturb(self, minutes: int | None) -> object:
        """Hold all but critical notifications for ``minutes``; None ends it."""
        ...

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]: ...


@dataclass(frozen=True)
class DigestSetting:
    """A digest setting: ``frequency`` is "off" (no digest), "hourly" or "daily"; ``at`` is the time ("HH:MM") of daily.

    ``chosen``: the user set it for this type.
    """

    frequency: str
    at: str | None
    chosen: bool


@dataclass(frozen=True)
class TypeRow:
    """A notification type; ``channels`` tells whether it may use each channel.

    ``asks_critical``: its app requests that the type be critical.
    """

    name: str
    label: str
    description: str
    app: str
    critical: bool
    asks_critical: bool
    digest: DigestSetting
    channels: Mapping[str, bool]


class Choice(Protocol):
    """A preference that the user set; ``*`` stands for every type or every channel."""

    @property
    def notification_type(self) -> str: ...
    @property
    def channel(self) -> str: ...
    @property
    def enabled(self) -> bool: ...


@dataclass(frozen=True)
class Matrix:
    """The user's preferences and their effect on each type.

    ``digest``: the user's setting for all types, None if not set. ``may_mark_critical``: whether the user may set it.
    """

    preferences: Sequence[Choice]
    types: Sequence[TypeRow]
    digest: DigestSetting | None
    may_mark_critical: bool


class PreferenceSource(Protocol):
    """One user's notification preferences."""

    def matrix(self) -> Matrix: ...
    def set_preference(self, notification_type: str, channel: str, enabled: bool) -> object: ...

    def set_digest(self, notification_type: str, frequency: str | None, at: str | None) -> object:
        """Save the digest setting of a type (``*`` = all); a ``frequency`` of None resets it."""
        ...

    def set_critical(self, notification_type: str, critical: bool) -> object: ...
    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]: ...
