"""Requests that change a user's delivery settings. An omitted field stays unchanged; ``null`` is a value."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from flashflow.backend.schemas.requests import AT, LOCALE, WEEK_MINUTES, Input, Timestamp, TypeOrAll, row_json
from flashflow.backend.schemas.validation import decode

T = TypeVar("T", bound=Input)

ClockTime = Annotated[str, Meta(pattern=AT, description="HH:MM, 00:00 to 23:59")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Email = Annotated[str, Meta(min_length=1, max_length=254, description="One address")]
Phone = Annotated[str, Meta(min_length=1, max_length=40, description="International: + and 7 to 15 digits (E.164)")]
Locale = Annotated[str, Meta(min_length=2, max_length=35, pattern=LOCALE)]
Zone = Annotated[str, Meta(min_length=1, max_length=64, description="An IANA name like Europe/Berlin")]


class ContactsIn(Input, frozen=True, kw_only=True):
    """A user's contacts and language; ``null`` removes one."""

    email: Email | UnsetType | None = UNSET
    phone: Phone | UnsetType | None = UNSET
    locale: Locale | UnsetType | None = UNSET


class QuietHoursIn(Input, frozen=True, kw_only=True):
    """A user's quiet hours; ``timezone`` null is the workspace's, ``days`` are the days on which they start."""

    enabled: bool
    start: ClockTime | UnsetType = UNSET
    end: ClockTime | UnsetType = UNSET
    timezone: Zone | UnsetType | None = UNSET
    days: Annotated[list[Day], Meta(min_length=1, max_length=7)] | UnsetType = UNSET


class DoNotDisturbIn(Input, frozen=True, kw_only=True):
    """Do not disturb for ``minutes`` or ``until`` a time; ``until`` null ends it."""

    minutes: Annotated[int, Meta(ge=1, le=WEEK_MINUTES)] | UnsetType = UNSET
    until: Timestamp | UnsetType | None = UNSET


class DigestIn(Input, frozen=True, kw_only=True):
    """Whether notifications of a type (``*`` = all) are bundled into an hourly digest or a daily one ``at`` a time;
    ``frequency`` null removes the choice."""

    notification_type: TypeOrAll
    frequency: Literal["off", "hourly", "daily"] | None
    at: ClockTime | UnsetType = UNSET


def given(kind: type[T], **fields: object) -> T:
    """Build a request object from exactly the given arguments, None included. Raises ValidationError."""
    body = row_json(fields)
    return decode(msgspec.json.Decoder(kind), body)
