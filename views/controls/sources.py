"""What the reusable controls need to know, and nothing more: the app satisfies it in process, a client over HTTP.

``subscribe`` calls ``on_change`` in the event loop it was called from, whenever what the source shows may have changed.
Everything else may block (a control calls it in a worker thread) and must be safe to call from several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class Notice(Protocol):
    """One notification as a list shows it; ``inbox`` is "unread", "read" or "archived"."""

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
    def created_at(self) -> datetime: ...


@dataclass(frozen=True)
class Inbox:
    """The newest notices and how many are unread in the whole inbox."""

    notices: Sequence[Notice] = ()
    unread: int = 0


class InboxSource(Protocol):
    """One person's in-app inbox."""

    def newest(self, limit: int) -> Inbox: ...
    def mark_read(self, notification_id: str) -> object: ...
    def mark_unread(self, notification_ids: Sequence[str]) -> object: ...

    def mark_all_read(self) -> Sequence[str]:
        """Marks every unread notice read; returns the ids that changed, so that it can be undone."""
        ...

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]: ...


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
    """The choices made and the rows they lead to."""

    @property
    def preferences(self) -> Sequence[Choice]: ...
    @property
    def types(self) -> Sequence[TypeRow]: ...


class PreferenceSource(Protocol):
    """One person's notification preferences."""

    def matrix(self) -> Matrix: ...
    def set_preference(self, notification_type: str, channel: str, enabled: bool) -> object: ...
    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]: ...
