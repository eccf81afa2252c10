"""Helpers for tests of the screens: search a tree of controls, sample records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import flet as ft
import msgspec

from flashflow.backend import Notification

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone(timedelta(hours=1)))


def walk(control: Any) -> Iterator[ft.BaseControl]:
    """Yield a control and all its descendants."""
    yield control
    for name in ("content", "controls", "title", "actions", "items"):
        inner = getattr(control, name, None)
        for child in inner if isinstance(inner, list) else [inner]:
            if isinstance(child, ft.BaseControl):
                yield from walk(child)


def texts(control: ft.BaseControl) -> list[str]:
    """Return every drawn text, button labels too."""
    found = [c.value for c in walk(control) if isinstance(c, ft.Text)]
    return found + [c.content for c in walk(control) if isinstance(getattr(c, "content", None), str)]


def named(control: ft.BaseControl, name: str) -> Any:
    """Return the control that handles the row or button with the accessible name ``name``."""
    for part in walk(control):
        if isinstance(part, ft.Semantics) and part.button and part.label == name:
            return part.content
        if getattr(part, "content", None) == name or getattr(part, "tooltip", None) == name:
            return part
    raise LookupError(name)


def sample_notification(number: int, **changes: Any) -> Notification:
    """Return an unread notification of the app ci, ``number`` minutes old."""
    plain = Notification(
        id=f"n{number}",
        user_id="me",
        app="ci",
        title=f"Build {number}",
        message="All tests passed",
        notification_type="builds",
        channels=("in_app",),
        priority="normal",
        status="delivered",
        inbox="unread",
        data={},
        actions=(),
        collapse_key=None,
        created_at=NOW - timedelta(minutes=number),
        scheduled_at=None,
        expires_at=None,
        sent_at=None,
        delivered_at=None,
        read_at=None,
        archived_at=None,
        listed_at=NOW - timedelta(minutes=number),
    )
    return msgspec.structs.replace(plain, **changes)
