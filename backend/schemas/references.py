"""Id parameters of the services: an id, or an object of this package that has one."""

from __future__ import annotations

from typing import Protocol

from flashflow.backend.core.errors import ValidationError


class HasSessionId(Protocol):
    """Session, or the result of starting one or tracking into one."""

    @property
    def session_id(self) -> str | None: ...


class HasNotificationId(Protocol):
    """Notification, or the result of sending one."""

    @property
    def notification_id(self) -> str: ...


SessionRef = str | HasSessionId
NotificationRef = str | HasNotificationId


def session_id_or_none(reference: SessionRef | None) -> str | None:
    """Return the id; None for None, and for a session that was not opened for lack of consent."""
    return _id("session_id", reference)


def session_id_of(reference: SessionRef) -> str:
    """Return the id. Raises ValidationError for an object without one."""
    return _required("session_id", reference)


def notification_id_of(reference: NotificationRef) -> str:
    """Return the id. Raises ValidationError for an object without one."""
    return _required("notification_id", reference)


def _required(name: str, reference: object) -> str:
    found = _id(name, reference)
    if found is None:
        raise ValidationError.of(name, "is required: this object has none")
    return found


def _id(name: str, reference: object) -> str | None:
    found = reference if reference is None or isinstance(reference, str) else getattr(reference, name, reference)
    if found is not None and not isinstance(found, str):
        raise ValidationError.of(name, f"must be an id or an object with a {name}, not {type(reference).__name__}")
    return found
