"""Request objects with their limits and formats, validated by msgspec.

The HTTP API decodes bodies into them; the services build them from their arguments. Unknown fields, wrong types, empty
or too long strings and times without an offset are refused with the field's path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from flashflow.backend.core.errors import ValidationError
from flashflow.backend.schemas.records import Platform, Priority, Scope
from flashflow.backend.schemas.validation import convert

T = TypeVar("T")

# No control characters: they have no use in an identifier, and NUL ends strings in many libraries.
# END, not "$", which would accept a trailing newline. A look-ahead requires one visible character: the pattern
# `[…]*[…][…]*` takes quadratic time, a second for a message that ends in NUL.
END = r"(?![\s\S])"
NAME = r"^(?=[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])[^\x00-\x1f\x7f]*" + END
TEXT = r"^(?=[^\x00]*[^\x00-\x20])[^\x00]*" + END
TYPE = r"^(?=[^\x00-\x1f\x7f*]*[^\x00-\x20\x7f*])[^\x00-\x1f\x7f*]*" + END
SLUG = r"^[A-Za-z0-9][A-Za-z0-9._-]*" + END
LOCALE = r"^([A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*)?" + END
LINK = r"^https?://[^\s\x00-\x1f\x7f]+" + END

UserId = Annotated[str, Meta(min_length=1, max_length=255, pattern=NAME, description="The caller's own id of a user")]
Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=NAME)]
Id = Annotated[str, Meta(min_length=1, max_length=200, pattern=NAME)]
AppName = Annotated[str, Meta(min_length=1, max_length=64, pattern=SLUG)]
TypeName = Annotated[str, Meta(min_length=1, max_length=100, pattern=TYPE)]
TypeOrAll = Name
Url = Annotated[str, Meta(min_length=1, max_length=2048, pattern=NAME)]
LinkUrl = Annotated[str, Meta(min_length=1, max_length=2048, pattern=LINK)]
Agent = Annotated[str, Meta(min_length=1, max_length=512, pattern=NAME)]
Title = Annotated[str, Meta(min_length=1, max_length=300, pattern=NAME)]
Message = Annotated[str, Meta(min_length=1, max_length=10_000, pattern=TEXT)]
# A browser's subscription may be JSON in several lines.
TOKEN = rf"{NAME}|^\s*\{{[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*{END}"
Token = Annotated[str, Meta(min_length=1, max_length=4096, pattern=TOKEN)]
WEEK_MINUTES = 7 * 24 * 60
CHANNEL = r"^[a-z][a-z0-9_-]*" + END
Channel = Annotated[
    str,
    Meta(
        min_length=1, max_length=32, pattern=CHANNEL,
        description="in_app, push, email, sms, or a channel that the owner named in flashflow.toml",
    ),
]  # fmt: skip
ChannelOrAll = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^(\*|[a-z][a-z0-9_-]*)" + END)]
AT = r"^([01][0-9]|2[0-3]):[0-5][0-9]" + END
TimeOfDay = Annotated[str, Meta(pattern=AT, description="HH:MM")]
Timestamp = Annotated[datetime, Meta(tz=True, description="RFC 3339 with an offset")]


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base class of requests."""


class ActivityIn(Input, frozen=True, kw_only=True):
    """Activity of a user."""

    user_id: UserId
    activity_type: TypeName
    session_id: Id | None = None
    metadata: dict[str, Any] | None = None
    page_url: Url | None = None
    referrer: Url | None = None
    user_agent: Agent | None = None
    timestamp: Timestamp | None = None
    activity_id: Id | None = None
    app: AppName | None = None


class UserPath(Input, frozen=True, kw_only=True):
    """A user id in a path, held to the rules of one in a body."""

    user_id: UserId


class BatchIn(Input, frozen=True, kw_only=True):
    """Batch of up to 1,000 activities; each row is validated separately."""

    activities: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=1000)]
    sent_at: Timestamp | None = None


class ActivityTypeIn(Input, frozen=True, kw_only=True):
    """Whether activities of this type are key activities; a session with one counts as engaged."""

    name: TypeName
    key: bool


class SessionIn(Input, frozen=True, kw_only=True):
    """Start of a session."""

    user_id: UserId
    device_info: dict[str, Any] | None = None
    app: AppName | None = None
    session_id: Id | None = None


class ActionIn(Input, frozen=True, kw_only=True):
    """Button of a notification; http and https links only."""

    label: Annotated[str, Meta(min_length=1, max_length=60, pattern=NAME)]
    url: LinkUrl


class SendIn(Input, frozen=True, kw_only=True):
    """A notification to one user (``user_id``) or up to 1,000 (``user_ids``)."""

    user_id: UserId | None = None
    user_ids: Annotated[list[UserId], Meta(min_length=1, max_length=1000)] | None = None
    title: Title | None = None
    message: Message | None = None
    template: Name | None = None
    locale: Annotated[str, Meta(max_length=35)] | None = None
    notification_type: TypeName = "general"
    channel: Channel | None = None
    channels: Annotated[list[Channel], Meta(min_length=1, max_length=16)] | None = None
    data: dict[str, Any] | None = None
    priority: Priority = "normal"
    scheduled_at: Timestamp | None = None
    expires_at: Timestamp | None = None
    collapse_key: Name | None = None
    actions: Annotated[list[ActionIn], Meta(max_length=3)] | None = None
    device_tokens: Annotated[list[Token], Meta(min_length=1, max_length=100)] | None = None
    app: AppName | None = None


class PreferenceIn(Input, frozen=True, kw_only=True):
    """A user's choice: whether a notification type (``*`` = all) may use a channel (``*`` = all)."""

    user_id: UserId
    notification_type: TypeOrAll
    channel: ChannelOrAll
    enabled: bool


class PreferencesIn(Input, frozen=True, kw_only=True):
    """One choice in the body, or a list of them."""

    user_id: UserId | None = None
    notification_type: TypeOrAll | None = None
    channel: ChannelOrAll | None = None
    enabled: bool | None = None
    preferences: Annotated[list[PreferenceIn], Meta(min_length=1, max_length=1000)] | None = None


class TemplateChangeIn(Input, frozen=True, kw_only=True):
    """New content of a template."""

    title_template: Title
    message_template: Message
    channels: list[Channel] = []
    category: Name | None = None
    data_schema: dict[str, Any] | None = None
    locale: Annotated[str, Meta(max_length=35, pattern=LOCALE)] = ""


class TemplateIn(TemplateChangeIn, frozen=True, kw_only=True):
    """Template with variables (``{name}``)."""

    name: Annotated[str, Meta(min_length=1, max_length=100, pattern=SLUG)]


class PreviewIn(Input, frozen=True, kw_only=True):
    """Variables for a preview of a template."""

    data: dict[str, Any] = {}
    locale: Annotated[str, Meta(max_length=35)] = ""


class ThrottleIn(Input, frozen=True, kw_only=True):
    """Throttle: at most ``limit`` notifications to one user by one channel within ``minutes``."""

    limit: Annotated[int, Meta(ge=1, le=100)]
    minutes: Annotated[int, Meta(ge=1, le=WEEK_MINUTES)] = 60


class StageIn(Input, frozen=True, kw_only=True):
    """Stage of a fail-over chain: used while the notification is unread after ``after_minutes`` (0: at once)."""

    channel: Channel
    after_minutes: Annotated[int, Meta(ge=0, le=WEEK_MINUTES)] = 0


class TypeIn(Input, frozen=True, kw_only=True):
    """Notification type that an app declares. Only an admin key grants ``critical``; from another key it is a request,
    shown as ``asks_critical``."""

    name: TypeName
    label: Name | None = None
    description: Annotated[str, Meta(max_length=500)] = ""
    channels: Annotated[list[Channel], Meta(max_length=16)] = msgspec.field(default_factory=lambda: ["in_app"])
    critical: bool = False
    category: Name | None = None
    digest: Literal["hourly", "daily"] | None = None
    digest_at: TimeOfDay | None = None
    throttle: ThrottleIn | None = None
    failover: Annotated[list[StageIn], Meta(max_length=8)] = []


class SnoozeIn(Input, frozen=True, kw_only=True):
    """End of a snooze."""

    until: Timestamp


class RescheduleIn(Input, frozen=True, kw_only=True):
    """New send time."""

    scheduled_at: Timestamp


class SendQuery(Input, frozen=True, kw_only=True):
    """Options of send; ``dry_run=true`` reports the result without storing anything."""

    dry_run: Literal["true", "false"] = "false"


class DeviceIn(Input, frozen=True, kw_only=True):
    """Device registration for push."""

    user_id: UserId
    token: Token
    platform: Platform
    device_info: dict[str, Any] | None = None


class KeyIn(Input, frozen=True, kw_only=True):
    """New API key of an app."""

    name: AppName
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=5)]


class ProofIn(Input, frozen=True, kw_only=True):
    """Challenge to the server, sent by a client before it sends its key."""

    key_id: Annotated[
        str,
        Meta(
            pattern=r"^[0-9A-Fa-f]{16}" + END,
            description='First 16 hexadecimal digits of SHA-256("id" + SHA-256(key))',
        ),
    ]
    nonce: Annotated[str, Meta(pattern=r"^[0-9A-Fa-f]{64}" + END, description="32 random bytes in hexadecimal")]


def build(kind: type[T], **fields: object) -> T:
    """Build a request object from arguments; None means omitted. Raises ValidationError."""
    given = {name: value for name, value in fields.items() if value is not None}
    for name, value in given.items():
        if not isinstance(value, datetime):
            _as_json(name, value)
    return convert(given, kind)


def row_json(row: Mapping[str, Any]) -> bytes:
    """Encode a row of a batch as the JSON of a request. Raises ValidationError."""
    return _as_json("", row)


def _as_json(name: str, value: object) -> bytes:
    """Encode as JSON. Raises ValidationError for values without a JSON form (NaN, a lone surrogate, a set)."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, default=_encode_time).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError.of(name, f"is not plain JSON: {error}") from None


def _encode_time(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
