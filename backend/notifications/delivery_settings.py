"""A user's delivery settings: contacts, quiet hours, do not disturb, digests."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import FlashFlowError, ValidationError
from flashflow.backend.core.events import Event
from flashflow.backend.core.timezones import DAYS, UNKNOWN_ZONE, is_zone
from flashflow.backend.delivery.email.message import parse_address
from flashflow.backend.schemas.delivery_settings import ContactsIn, DigestIn, QuietHoursIn
from flashflow.backend.schemas.requests import Input
from flashflow.backend.schemas.values import LATEST_MS
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import Handler, Tx, Write
from flashflow.backend.store.notifications import delivery_settings as table
from flashflow.backend.store.notifications.delivery_settings import Contact, DigestChoice, QuietSetting
from flashflow.backend.store.notifications.delivery_state import re_evaluate_held, re_evaluate_queued
from flashflow.backend.store.privacy.tombstones import unless_erased

Changes = dict[str, Any]
C = TypeVar("C")
R = TypeVar("R")

# Separators between digits, including the no-break spaces and hyphens of typeset text.
_BETWEEN_DIGITS = re.compile(r"[ ().\u00a0\u202f\u2010\u2011-]+")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")


class UserDeliverySettings:
    """Read and change delivery settings; preferences by type and channel are in ``preferences``.

    ``zone`` names the workspace's time zone, the default for users who have set none.
    """

    def __init__(self, store: Store, zone: Callable[[], str]) -> None:
        self._store = store
        self._zone = zone

    # --- contacts -------------------------------------------------------------------------------------------------

    def contact(self, user_id: str) -> Contact:
        """The user's addresses and language; every field is None for an unknown user."""
        return self._store.read(lambda conn: table.contact_of(conn, user_id)) or Contact()

    def contact_write(self, user_id: str, changes: ContactsIn) -> Write[tuple[str, Changes], Contact]:
        """Build the write that changes contacts; a phone number is stored as E.164. Raises ValidationError."""
        fields = _changed_fields(changes)
        faults = ErrorCollector()
        with faults:
            if fields.get("email") is not None:
                _check_email(fields["email"])
        with faults:
            if fields.get("phone") is not None:
                fields["phone"] = _as_e164(fields["phone"])
        faults.done()
        return Write(_handler(self._contact), (user_id, fields))

    def _contact(self, tx: Tx, user_id: str, fields: Changes) -> Contact:
        contact = table.save_contact(tx, user_id, fields)
        if None in (fields.get("email", ""), fields.get("phone", "")):
            re_evaluate_queued(tx, [user_id])
        return contact

    # --- quiet hours and do not disturb ---------------------------------------------------------------------------

    def quiet_hours(self, user_id: str) -> QuietSetting:
        """The quiet hours as set, or the defaults."""
        zone, now_ms = self._zone(), self._store.clock.now_ms()
        return self._store.read(lambda conn: table.quiet_setting(conn, user_id, zone, now_ms))

    def quiet_hours_write(self, user_id: str, changes: QuietHoursIn) -> Write[tuple[str, Changes], QuietSetting]:
        """Build the write that changes quiet hours. Raises ValidationError."""
        fields = _changed_fields(changes)
        faults = ErrorCollector()
        if fields.get("timezone") is not None and not is_zone(fields["timezone"]):
            faults.add("timezone", UNKNOWN_ZONE)
        if "days" in fields:
            days = fields["days"]
            if len(set(days)) != len(days):
                faults.add("days", "names a day twice")
            fields["days"] = tuple(day for day in DAYS if day in days)
        faults.done()
        return Write(_handler(self._quiet), (user_id, fields))

    def _quiet(self, tx: Tx, user_id: str, fields: Changes) -> QuietSetting:
        table.save_quiet(tx, user_id, fields)
        re_evaluate_held(tx, user_id, "quiet_hours")
        return table.quiet_setting(tx.conn, user_id, self._zone(), tx.now_ms)

    def do_not_disturb_write(
        self, user_id: str, until_ms: int | None
    ) -> Write[tuple[str, int | None], datetime | None]:
        """Build the write that holds all but critical deliveries until ``until_ms`` (milliseconds since 1970); None
        ends it. Raises ValidationError."""
        if until_ms is not None and not self._store.clock.now_ms() < until_ms <= LATEST_MS:
            raise ValidationError.of("until", "must lie in the future, and before 2200")
        return Write(_handler(self._do_not_disturb), (user_id, until_ms))

    def _do_not_disturb(self, tx: Tx, user_id: str, until_ms: int | None) -> datetime | None:
        table.save_dnd(tx, user_id, until_ms)
        re_evaluate_held(tx, user_id, "do_not_disturb")
        return None if until_ms is None else to_datetime(until_ms)

    # --- digests --------------------------------------------------------------------------------------------------

    def digests(self, user_id: str) -> dict[str, DigestChoice]:
        """The user's digest choices by type, ``*`` for every type; the defaults declared by types are not included."""
        return self._store.read(lambda conn: table.digests_of(conn, user_id))

    def digest_write(self, user_id: str, choice: DigestIn) -> Write[tuple[str, DigestIn], dict[str, DigestChoice]]:
        """Build the write that stores or deletes a choice and returns all of the user's. Raises ValidationError."""
        if choice.frequency is None and choice.at is not UNSET:
            raise ValidationError.of("at", "goes with a frequency")
        return Write(_handler(self._digest), (user_id, choice))

    def _digest(self, tx: Tx, user_id: str, choice: DigestIn) -> dict[str, DigestChoice]:
        at = None if choice.at is UNSET else choice.at
        table.save_digest(tx, user_id, choice.notification_type, choice.frequency, at)
        if choice.frequency in {None, "off"}:
            re_evaluate_held(tx, user_id, "digest")
        return table.digests_of(tx.conn, user_id)


def _handler(change: Callable[[Tx, str, C], R]) -> Handler[tuple[str, C], R]:
    """Make a handler that applies ``change`` to (user, choice), publishes it, and refuses erased users."""

    def apply(tx: Tx, item: tuple[str, C]) -> R:
        result = change(tx, *item)
        tx.events.append(Event("preference", item[0], item[0]))
        return result

    def handle(tx: Tx, items: Sequence[tuple[str, C]]) -> list[R | FlashFlowError]:
        return unless_erased(tx, items, lambda item: (item[0],), lambda good: [apply(tx, item) for item in good])

    return handle


def _changed_fields(changes: Input) -> Changes:
    return {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not UNSET}


def _check_email(text: str) -> None:
    """Accept only addresses that the e-mail channel can send to."""
    try:
        parse_address(text)
    except ValueError as error:
        raise ValidationError.of("email", f"is not one e-mail address: {error}") from None


def _as_e164(text: str) -> str:
    if "(0)" in text:  # dropping the brackets would make it another number
        raise ValidationError.of("phone", "has a (0), which is not dialled from abroad: leave it out")
    number = _BETWEEN_DIGITS.sub("", text)
    if not _E164.fullmatch(number):
        raise ValidationError.of("phone", "must be international, + and 7 to 15 digits, like +49 30 1234567")
    return number
