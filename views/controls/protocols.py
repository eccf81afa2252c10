"""What the reusable controls need to know, and nothing more: the app satisfies it in process, a client over HTTP.

``subscribe`` calls ``on_change`` in the event loop it was called from, whenever what the source shows may have changed.
Everything else may block (a control calls it in a worker thread) and must be safe to call from several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class InboxNotification(Protocol):
    """One notification as a list shows it; ``inbox`` is "unread", "read", "snoozed" or "archived", ``count`` how often
    it was updated in place, ``listed_at`` when it last reached the inbox: lists go by that time."""

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
    """The newest notices, how many are unread in the whole inbox, and until when the person is not to be disturbed."""

    notices: Sequence[InboxNotification] = ()
    unread: int = 0
    quiet_until: datetime | None = None


class InboxSource(Protocol):
    """One person's in-app inbox."""

    def newest(self, limit: int) -> Inbox: ...
    def mark_read(self, notification_id: str) -> object: ...
    def mark_unread(self, notification_ids: Sequence[str]) -> object: ...

    def mark_all_read(self) -> Sequence[str]:
        """Marks every unread notice read; returns the ids that changed, so that it can be undone."""
        ...

    def disturb_not(self, minutes: int | None) -> object:
        """Keeps everything but what is critical from reaching the person for so long; None ends it."""
        ...

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]: ...


class DigestSetting(Protocol):
    """Whether notices are collected: ``frequency`` is "off" (every one by itself), "hourly" or "daily", then ``at`` a
    time ("HH:MM"); ``chosen`` where the person said so for this very type."""

    @property
    def frequency(self) -> str: ...
    @property
    def at(self) -> str | None: ...
    @property
    def chosen(self) -> bool: ...


class TypeRow(Protocol):
    """One type of notice and, per channel, whether it may be used."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def app(self) -> str: ...
    @property
    def critical(self) -> bool: ...
    @property
    def asks_critical(self) -> bool:
        """Whether the app that sends it wishes it to be critical."""
        ...

    @property
    def rhythm(self) -> DigestSetting: ...
    @property
    def channels(self) -> Mapping[str, bool]: ...


class Choice(Protocol):
    """A choice the person made; ``*`` stands for every type or every channel."""

    @property
    def notification_type(self) -> str: ...
    @property
    def channel(self) -> str: ...
    @property
    def enabled(self) -> bool: ...


class Matrix(Protocol):
    """The choices made and the rows they lead to; ``rhythm`` is what the person chose for every type at once,
    ``may_mark_critical`` whether it is theirs to say what is critical."""

    @property
    def preferences(self) -> Sequence[Choice]: ...
    @property
    def types(self) -> Sequence[TypeRow]: ...
    @property
    def rhythm(self) -> DigestSetting | None: ...
    @property
    def may_mark_critical(self) -> bool: ...


class PreferenceSource(Protocol):
    """One person's notification preferences."""

    def matrix(self) -> Matrix: ...
    def set_preference(self, notification_type: str, channel: str, enabled: bool) -> object: ...

    def set_rhythm(self, notification_type: str, frequency: str | None, at: str | None) -> object:
        """Keeps a choice for a type (``*`` = all); ``frequency`` None takes it back."""
        ...

    def set_critical(self, notification_type: str, critical: bool) -> object: ...
    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]: ...
