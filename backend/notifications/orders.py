"""Check requests to send into orders."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.domain.channel_names import ChannelNames
from flashflow.backend.schemas.requests import SendIn
from flashflow.backend.schemas.values import data_json, timestamp_ms


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A checked SendIn. Times in milliseconds since 1970; ``data`` and ``actions`` as JSON text."""

    users: tuple[str, ...]
    app: str
    owner: str | None
    """The only app whose templates may be used; None: any."""
    title: str | None
    message: str | None
    template: str | None
    locale: str
    """Empty: the locale in the user's contacts."""
    notification_type: str
    channels: tuple[str, ...] | None
    data: str | None
    priority: str
    actions: str | None
    collapse_key: str | None
    device_tokens: tuple[str, ...] | None
    scheduled_at: int | None
    expires_at: int | None
    fallback: str | None = None
    """Text in place of a template that renders empty; None: an empty text is refused."""


BuildOrder = Callable[[SendIn, str, str | None], Order]
"""Check a request into an order; the other arguments are the sending app and the only app whose templates may be used
(None: any). Raises ValidationError."""


def check_order(request: SendIn, app: str, owner: str | None, known_channels: ChannelNames, now_ms: int) -> Order:
    """Check a request. ``app`` is the sender unless the request names one; ``owner`` the only app whose templates may
    be used (None: any). Raises ValidationError naming every wrong field."""
    faults = ErrorCollector()
    if (request.user_id is None) == (request.user_ids is None):
        faults.add("user_id", "give either user_id or user_ids", "user_ids")
    if request.channel is not None and request.channels is not None:
        faults.add("channel", "give either channel or channels", "channels")
    if request.template is None:
        for field in ("title", "message"):
            if getattr(request, field) is None:
                faults.add(field, "is required where no template is given", "template")
    channels = _channels(request)
    users = tuple(dict.fromkeys(request.user_ids or [request.user_id or ""]))
    scheduled = expires = data = None
    with faults:
        known_channels.check("channel" if request.channel else "channels", channels or ())
    if request.scheduled_at is not None:
        with faults:
            scheduled = timestamp_ms("scheduled_at", request.scheduled_at)
    if request.expires_at is not None:
        with faults:
            expires = timestamp_ms("expires_at", request.expires_at)
    if expires is not None and expires <= max(now_ms, scheduled or 0):
        faults.add("expires_at", "must be in the future, and after scheduled_at", "scheduled_at")
    with faults:
        data = data_json(request.data, len(users))
    faults.done()
    return Order(
        users=users,
        app=request.app or app,
        owner=owner,
        title=request.title,
        message=request.message,
        template=request.template,
        locale=request.locale or "",
        notification_type=request.notification_type,
        channels=channels,
        data=data,
        priority=request.priority,
        actions=to_json(request.actions) if request.actions else None,
        collapse_key=request.collapse_key,
        device_tokens=tuple(request.device_tokens) if request.device_tokens else None,
        scheduled_at=scheduled,
        expires_at=expires,
    )


def _channels(request: SendIn) -> tuple[str, ...] | None:
    if request.channel is not None:
        return (request.channel,)
    return tuple(dict.fromkeys(request.channels)) if request.channels else None
