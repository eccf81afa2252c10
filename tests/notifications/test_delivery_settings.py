"""Contacts, quiet hours, do not disturb and digests: what is taken, what is refused, what a ``send`` asks of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as property_of
from hypothesis import strategies as st

from flashflow.backend import NotificationService, ValidationError
from flashflow.backend.core.clock import to_ms
from flashflow.backend.core.events import Event
from flashflow.backend.core.timezones import DAYS
from flashflow.backend.domain.quiet_hours import Digest, QuietHours
from flashflow.backend.notifications.delivery_settings import UserDeliverySettings
from flashflow.backend.schemas.delivery_settings import ContactsIn, DigestIn, QuietHoursIn, given
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.notifications.delivery_settings import (
    Contact,
    DigestChoice,
    addresses_of,
    contact_of,
    digest_of,
    quiet_of,
)
from tests.support.examples import examples
from tests.support.fixed_clock import StillClock

T = TypeVar("T")


class Desk:
    """A user's circumstances over a file of its own, with what a ``send`` asks of them and what the bus is told."""

    def __init__(self, service: NotificationService, clock: StillClock) -> None:
        self.store: Store = service.store
        self.clock = clock
        self.zone = "Europe/Berlin"
        self.asked = UserDeliverySettings(self.store, lambda: self.zone)
        self.events: list[Event] = []
        service.bus.subscribe(self.events.extend)

    def contacts(self, user_id: str, **fields: str | None) -> Contact:
        return self.store.run(self.asked.contact_write(user_id, given(ContactsIn, **fields)))

    def quiet(self, user_id: str, *, enabled: bool = True, **fields: Any) -> dict[str, Any]:
        write = self.asked.quiet_hours_write(user_id, given(QuietHoursIn, enabled=enabled, **fields))
        return shown(self.store.run(write))

    def quiet_shown(self, user_id: str) -> dict[str, Any]:
        return shown(self.asked.quiet_hours(user_id))

    def disturb_not(self, user_id: str, until: datetime | None) -> datetime | None:
        write = self.asked.do_not_disturb_write(user_id, None if until is None else to_ms(until))
        return self.store.run(write)

    def digest(
        self, user_id: str, kind: str, frequency: str | None, **fields: str
    ) -> dict[str, tuple[str, str | None]]:
        choice = given(DigestIn, notification_type=kind, frequency=frequency, **fields)
        return told(self.store.run(self.asked.digest_write(user_id, choice)))

    def read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        return self.store.read(question)

    def quiet_of(self, user_id: str) -> tuple[QuietHours | None, int | None]:
        return self.read(lambda conn: quiet_of(conn, user_id, self.zone))

    def digest_of(self, user_id: str, kind: str, declared: str | None = None, at: str | None = None) -> Digest | None:
        return self.read(lambda conn: digest_of(conn, user_id, kind, declared, at, self.zone))


def shown(setting: Any) -> dict[str, Any]:
    return {name: getattr(setting, name) for name in setting.__struct_fields__}


def told(choices: dict[str, DigestChoice]) -> dict[str, tuple[str, str | None]]:
    return {kind: (choice.frequency, choice.at) for kind, choice in choices.items()}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    clock = StillClock()
    with NotificationService(tmp_path / "n.db", clock=clock) as service:
        yield Desk(service, clock)


def refused(field: str, act: Callable[[], object]) -> str:
    """The message of the refusal that ``act`` meets, of this field and no other."""
    with pytest.raises(ValidationError) as error:
        act()
    assert [found.field for found in error.value.errors] == [field]
    return error.value.errors[0].message


def named_in_refusal(act: Callable[[], object]) -> list[str]:
    """The fields that a refusal names; none where there is none."""
    try:
        act()
    except ValidationError as error:
        return [found.field for found in error.errors]
    return []


def in_sql(statement: str) -> Write[None, None]:
    """A write past every check, as another version of FlashFlow may have done it."""

    def handle(tx: Tx, items: Sequence[None]) -> list[None]:
        tx.conn.execute(statement)
        return [None] * len(items)

    return Write(handle, None)


# --- contacts ---------------------------------------------------------------------------------------------------------


def test_a_user_never_seen_has_no_contacts(desk: Desk) -> None:
    assert desk.asked.contact("ada") == Contact()
    assert desk.read(lambda conn: contact_of(conn, "ada")) is None
    assert desk.read(lambda conn: addresses_of(conn, "ada")) == frozenset()


def test_contacts_are_kept_a_field_not_given_stays_and_none_removes(desk: Desk) -> None:
    desk.contacts("ada", email="ada@example.org", locale="de-AT")
    changed = desk.contacts("ada", phone="+49 (30) 123-45.67")
    assert changed == Contact(email="ada@example.org", phone="+49301234567", locale="de-AT", updated_at=desk.clock.now)
    assert desk.asked.contact("ada") == changed
    assert desk.read(lambda conn: contact_of(conn, "ada")) == changed
    assert desk.read(lambda conn: addresses_of(conn, "ada")) == {"email", "sms"}
    moved = desk.clock.go(minutes=1)
    assert desk.contacts("ada", email=None) == Contact(phone="+49301234567", locale="de-AT", updated_at=moved)
    assert desk.read(lambda conn: addresses_of(conn, "ada")) == {"sms"}
    desk.contacts("ada", phone=None, locale=None)
    assert desk.read(lambda conn: addresses_of(conn, "ada")) == frozenset()
    assert desk.asked.contact("bob") == Contact()


def test_nothing_given_changes_nothing(desk: Desk) -> None:
    assert desk.contacts("ada") == Contact()
    assert desk.read(lambda conn: contact_of(conn, "ada")) is None
    before = desk.contacts("ada", email="ada@example.org")
    desk.clock.go(hours=1)
    assert desk.contacts("ada") == before


@pytest.mark.parametrize(
    "email",
    [
        "a@b.de", "ada@localhost", "Ada.Lovelace+news@mail.example.org", "o'brien@example.org", "ada@bücher.example",
        "ада@пример.рф", "x" * 64 + "@example.org", "a@" + "b" * 63 + ".example",
    ],
)  # fmt: skip
def test_one_address_is_taken_as_it_is_written(desk: Desk, email: str) -> None:
    assert desk.contacts("ada", email=email).email == email


@pytest.mark.parametrize(
    "email",
    [
        " ", "ada", "@", "ada@", "@example.org", "a@b@c.de", "a@b.de, c@d.de", "a@b.de;c@d.de", "a@b.de c@d.de",
        "a@b.de,", " a@b.de", "a@b.de ", "a b@c.de", "a@b c.de", "a@b.de\n", "a@b.de\r\nBcc: c@d.de",
        "a@b.de\0", "a\t@b.de",
        "Ada <ada@b.de>", "<ada@b.de>", '"a b"@c.de', '"a@b.de"@c.de', '"a,b"@c.de', "a\\@b@c.de",
        "(x)a@b.de", "a@b.de(x)",
        "a:b@c.de", "a@[127.0.0.1]", "a@127.0.0.1", ".a@b.de", "a.@b.de", "a..b@c.de", "a@.de", "a@b..de", "a@-b.de",
        "a@b-.de", "a@b_c.de", "a@b.de.", "x" * 65 + "@example.org", "ü" * 33 + "@example.org",
        "a@" + "b" * 64 + ".de", "a@" + ".".join(["b" * 60] * 5), "a@" + "ü" * 80 + ".de", "\u202ea@b.de",
        "a\u200b@b.de",
        "a@b\u3000.de", "mailto:a@b.de", "a@b.de?subject=x", "=?utf-8?q?a?=@b.de,c@d.de",
    ],
)  # fmt: skip
def test_what_is_not_exactly_one_address_is_refused(desk: Desk, email: str) -> None:
    message = refused("email", lambda: desk.contacts("ada", email=email, phone="+49301234567"))
    assert len(email) < 4 or email not in message  # what is personal stays out of errors
    assert desk.asked.contact("ada") == Contact()


@pytest.mark.parametrize(
    ("phone", "number"),
    [
        ("+4930123456", "+4930123456"),
        ("+1 (415) 555-2671", "+14155552671"),
        ("+44 20.7946.0958", "+442079460958"),
        (" +49 30 1234567 ", "+49301234567"),
        ("+49\u00a030\u202f12\u201134567", "+49301234567"),
        ("+1234567", "+1234567"),
        ("+123456789012345", "+123456789012345"),
    ],
)
def test_a_phone_number_is_stored_as_e164(desk: Desk, phone: str, number: str) -> None:
    assert desk.contacts("ada", phone=phone).phone == number


@pytest.mark.parametrize(
    "phone",
    [
        "+", "030 1234567", "0049301234567", "49301234567", "+0301234567", "+123456",
        "+1234567890123456", "++49301234567",
        "+49 30 12345x7", "+4930123456 ext 7", "+49301234567,+49301234568", "+49301234567\n+49301234568",
        "+49301234567\0",
        "tel:+49301234567", "+\u0664\u0669\u0663\u0660\u0661\u0662\u0663", "+49/30/1234567", "+49;30",
        "+1" + "-" * 39 + "2",
    ],
)  # fmt: skip
def test_what_is_no_international_number_is_refused(desk: Desk, phone: str) -> None:
    refused("phone", lambda: desk.contacts("ada", phone=phone, email="ada@example.org"))
    assert desk.asked.contact("ada") == Contact()


def test_a_zero_in_brackets_is_not_taken_for_a_digit(desk: Desk) -> None:
    assert "(0)" in refused("phone", lambda: desk.contacts("ada", phone="+49 (0)30 1234567"))


@pytest.mark.parametrize("locale", ["en", "de-AT", "zh-Hant-TW", "sr-Latn"])
def test_a_locale_is_taken(desk: Desk, locale: str) -> None:
    assert desk.contacts("ada", locale=locale).locale == locale


@pytest.mark.parametrize("locale", ["d", "de_AT", "de-", "-de", "de\n", "../de", "d e", "a" * 9, "de" + "-abcd" * 7])
def test_what_is_no_locale_is_refused(desk: Desk, locale: str) -> None:
    refused("locale", lambda: desk.contacts("ada", locale=locale))


@settings(deadline=None, max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@property_of(text=st.text(min_size=1, max_size=80) | st.emails() | st.from_regex(r"\+[0-9 ().-]{5,20}", fullmatch=True))
def test_whatever_comes_is_taken_or_refused_with_its_field(desk: Desk, text: str) -> None:
    for field in ("email", "phone", "locale"):
        named = named_in_refusal(lambda field=field: desk.contacts("ada", **{field: text}))  # type: ignore[misc]
        assert named in ([], [field])
        assert named or getattr(desk.asked.contact("ada"), field)
    past_the_types = QuietHoursIn(enabled=True, timezone=text)
    assert named_in_refusal(lambda: desk.asked.quiet_hours_write("ada", past_the_types)) in ([], ["timezone"])


# --- quiet hours ------------------------------------------------------------------------------------------------------


def test_quiet_hours_are_off_until_they_are_set_and_shown_as_they_would_be(desk: Desk) -> None:
    assert desk.quiet_shown("ada") == {
        "enabled": False,
        "start": "22:00",
        "end": "07:00",
        "timezone": "Europe/Berlin",
        "days": DAYS,
        "do_not_disturb_until": None,
    }
    assert desk.quiet_of("ada") == (None, None)


def test_what_is_not_given_keeps_its_value(desk: Desk) -> None:
    first = desk.quiet("ada", start="21:30", days=["sun", "fri"], timezone="Asia/Kathmandu")
    assert first["days"] == ("fri", "sun")
    assert desk.quiet("ada", end="06:15") == first | {"end": "06:15"}
    quiet = QuietHours(start="21:30", end="06:15", zone="Asia/Kathmandu", days=("fri", "sun"))
    assert desk.quiet_of("ada") == (quiet, None)
    off = desk.quiet("ada", enabled=False)
    assert off == first | {"end": "06:15", "enabled": False}
    assert desk.quiet_of("ada") == (None, None)
    assert desk.quiet_shown("ada") == off
    assert desk.quiet_shown("bob")["start"] == "22:00"


def test_who_has_set_no_zone_goes_by_the_workspaces(desk: Desk) -> None:
    desk.quiet("ada")
    desk.zone = "Asia/Tokyo"
    assert desk.quiet_shown("ada")["timezone"] == "Asia/Tokyo"
    quiet, _ = desk.quiet_of("ada")
    assert quiet == QuietHours(start="22:00", end="07:00", zone="Asia/Tokyo")
    assert desk.quiet("ada", timezone="Europe/Paris")["timezone"] == "Europe/Paris"
    assert desk.quiet("ada", timezone=None)["timezone"] == "Asia/Tokyo"


def test_a_zone_that_this_machine_does_not_know_any_more_gives_way_to_the_workspaces(desk: Desk) -> None:
    desk.quiet("ada", timezone="Europe/Paris")
    desk.digest("ada", "*", "hourly")
    desk.store.writer.run(in_sql("UPDATE quiet_hours SET timezone = 'Europe/Atlantis'"))
    quiet, _ = desk.quiet_of("ada")
    assert quiet is not None
    assert quiet.until(desk.clock.now_ms()) is None
    assert quiet.zone == desk.quiet_shown("ada")["timezone"] == "Europe/Berlin"
    assert desk.digest_of("ada", "builds") == Digest(frequency="hourly", zone="Europe/Berlin")


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        *(("start", text, "start") for text in ("24:00", "7:00", "07:60", "0700", "07:00:00", "07:00\n", " 07:00")),
        *(("start", text, "start") for text in ("٠٧:٠٠", "\uff10\uff17:00")),
        *(("end", text, "end") for text in ("-1:00", "noon", "23:5", 700, None)),
        *(
            ("timezone", name, "timezone")
            for name in ("Mars/Olympus", "../UTC", "/etc/passwd", "UTC\0", "Europe", "right/UTC", "x" * 100, 1)
        ),
        ("days", [], "days"),
        ("days", ["mon", "mon"], "days"),
        ("days", ["monday"], "days.0"),
        ("days", [*DAYS, "mon"], "days"),
        ("days", "mon", "days"),
        ("days", None, "days"),
        ("enabled", "yes", "enabled"),
        ("enabled", None, "enabled"),
        ("until", "07:00", "until"),
    ],
)  # fmt: skip
def test_quiet_hours_that_cannot_be_meant_are_refused(desk: Desk, field: str, value: Any, named: str) -> None:
    message = refused(
        named,
        lambda: desk.store.run(
            desk.asked.quiet_hours_write("ada", given(QuietHoursIn, **({"enabled": True} | {field: value})))
        ),
    )
    assert message
    assert desk.quiet_of("ada") == (None, None)


def test_enabled_must_be_said() -> None:
    refused("enabled", lambda: given(QuietHoursIn, start="22:00"))


# --- do not disturb ---------------------------------------------------------------------------------------------------


def test_do_not_disturb_lasts_until_its_moment_and_can_be_ended(desk: Desk) -> None:
    until = desk.clock.at(hours=1)
    assert desk.disturb_not("ada", until) == until
    assert desk.quiet_of("ada") == (None, to_ms(until))
    assert desk.quiet_shown("ada")["do_not_disturb_until"] == until
    assert desk.quiet_shown("ada")["enabled"] is False
    assert desk.disturb_not("ada", None) is None
    assert desk.quiet_of("ada") == (None, None)
    assert desk.disturb_not("bob", None) is None


def test_quiet_hours_and_do_not_disturb_leave_each_other_alone(desk: Desk) -> None:
    until = desk.clock.at(hours=1)
    desk.quiet("ada", start="20:00")
    desk.disturb_not("ada", until)
    assert desk.quiet("ada", end="08:00")["do_not_disturb_until"] == until
    assert desk.quiet_of("ada") == (QuietHours(start="20:00", end="08:00", zone="Europe/Berlin"), to_ms(until))
    desk.disturb_not("ada", None)
    assert desk.quiet_of("ada")[0] == QuietHours(start="20:00", end="08:00", zone="Europe/Berlin")


def test_a_do_not_disturb_that_is_over_is_not_shown(desk: Desk) -> None:
    desk.disturb_not("ada", desk.clock.at(hours=1))
    desk.clock.go(minutes=59, seconds=59)
    assert desk.quiet_shown("ada")["do_not_disturb_until"] is not None
    desk.clock.go(seconds=1)
    assert desk.quiet_shown("ada")["do_not_disturb_until"] is None
    assert desk.quiet("ada", enabled=False)["do_not_disturb_until"] is None


@pytest.mark.parametrize(
    "ahead", [timedelta(0), timedelta(milliseconds=-1), timedelta(days=-1), timedelta(days=70_000)]
)
def test_do_not_disturb_needs_a_moment_to_come(desk: Desk, ahead: timedelta) -> None:
    refused("until", lambda: desk.disturb_not("ada", desk.clock.now + ahead))
    assert desk.quiet_of("ada") == (None, None)


# --- digests ----------------------------------------------------------------------------------------------------------


def test_without_a_choice_a_type_goes_as_it_declares(desk: Desk) -> None:
    assert desk.digest_of("ada", "builds") is None
    assert desk.digest_of("ada", "builds", "hourly") == Digest(frequency="hourly", zone="Europe/Berlin")
    assert desk.digest_of("ada", "builds", "daily") == Digest(frequency="daily", zone="Europe/Berlin", at="08:00")
    assert desk.digest_of("ada", "builds", "daily", "18:30") == Digest(
        frequency="daily", zone="Europe/Berlin", at="18:30"
    )


def test_the_choice_for_a_type_wins_then_the_one_for_all_then_the_declaration(desk: Desk) -> None:
    desk.digest("ada", "*", "daily", at="19:00")
    assert desk.digest_of("ada", "builds", "hourly") == Digest(frequency="daily", zone="Europe/Berlin", at="19:00")
    desk.digest("ada", "builds", "hourly")
    found = desk.digest_of("ada", "builds", "daily", "06:00")
    assert found is not None
    assert (found.frequency, found.zone) == ("hourly", "Europe/Berlin")
    assert desk.digest_of("bob", "builds") is None
    chosen = desk.digest_of("ada", "chat")
    assert chosen is not None
    assert chosen.at == "19:00"


@pytest.mark.parametrize("kind", ["builds", "*"])
def test_off_chosen_by_the_user_wins_over_the_declaration(desk: Desk, kind: str) -> None:
    desk.digest("ada", kind, "off")
    assert desk.digest_of("ada", "builds", "daily", "06:00") is None
    desk.digest("ada", kind, None)
    assert desk.digest_of("ada", "builds", "daily", "06:00") is not None


def test_off_for_a_type_wins_over_a_digest_of_all(desk: Desk) -> None:
    desk.digest("ada", "*", "hourly")
    desk.digest("ada", "builds", "off")
    assert desk.digest_of("ada", "builds", "daily") is None
    assert desk.digest_of("ada", "chat") is not None


def test_a_digest_goes_by_the_zone_of_the_users_quiet_hours_on_or_off(desk: Desk) -> None:
    desk.quiet("ada", enabled=False, timezone="Asia/Kathmandu")
    assert desk.digest_of("ada", "builds", "hourly") == Digest(frequency="hourly", zone="Asia/Kathmandu")
    desk.quiet("ada", timezone=None)
    assert desk.digest_of("ada", "builds", "hourly") == Digest(frequency="hourly", zone="Europe/Berlin")


def test_every_choice_is_answered_and_one_can_be_taken_back(desk: Desk) -> None:
    assert desk.asked.digests("ada") == {}
    assert desk.digest("ada", "builds", "daily", at="18:00") == {"builds": ("daily", "18:00")}
    assert desk.digest("ada", "*", "daily") == {"*": ("daily", "08:00"), "builds": ("daily", "18:00")}
    assert desk.digest("ada", "builds", "hourly") == {"*": ("daily", "08:00"), "builds": ("hourly", "18:00")}
    assert desk.digest("ada", "builds", "daily")["builds"] == ("daily", "18:00")
    assert desk.digest("ada", "chat", "off")["chat"] == ("off", None)
    assert desk.digest("ada", "chat", "daily")["chat"] == ("daily", "08:00")
    assert desk.digest("ada", "*", None) == {"builds": ("daily", "18:00"), "chat": ("daily", "08:00")}
    assert desk.digest("ada", "never", None) == told(desk.asked.digests("ada"))
    assert desk.asked.digests("bob") == {}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"frequency": "daily"}, "notification_type"),
        ({"notification_type": "builds"}, "frequency"),
        ({"notification_type": "builds", "frequency": "weekly"}, "frequency"),
        ({"notification_type": "builds", "frequency": "daily", "at": "25:00"}, "at"),
        ({"notification_type": "builds", "frequency": "daily", "at": None}, "at"),
        ({"notification_type": "builds", "frequency": None, "at": "08:00"}, "at"),
        ({"notification_type": "", "frequency": "daily"}, "notification_type"),
        ({"notification_type": "x\n", "frequency": "daily"}, "notification_type"),
        ({"notification_type": "x" * 101, "frequency": "daily"}, "notification_type"),
        ({"notification_type": "builds", "frequency": "daily", "time": "08:00"}, "time"),
    ],
)
def test_a_digest_that_cannot_be_meant_is_refused(desk: Desk, fields: dict[str, Any], field: str) -> None:
    refused(field, lambda: desk.store.run(desk.asked.digest_write("ada", given(DigestIn, **fields))))
    assert desk.asked.digests("ada") == {}


# --- together ---------------------------------------------------------------------------------------------------------


def test_every_change_is_told_to_the_bus(desk: Desk) -> None:
    for change in (
        lambda: desk.contacts("ada", email="ada@example.org"),
        lambda: desk.quiet("ada"),
        lambda: desk.disturb_not("ada", desk.clock.at(hours=1)),
        lambda: desk.digest("ada", "*", "hourly"),
    ):
        desk.events.clear()
        change()
        assert desk.events == [Event("preference", "ada", "ada")]


def test_writes_of_several_users_in_one_group_are_each_their_own(desk: Desk) -> None:
    users = [f"user-{number}" for number in range(20)]
    for user in users:
        desk.contacts(user, email=f"{user}@example.org")
        desk.digest(user, user, "hourly")
    assert [desk.asked.contact(user).email for user in users] == [f"{user}@example.org" for user in users]
    assert [list(desk.asked.digests(user)) for user in users] == [[user] for user in users]


def test_each_question_is_one_search_by_key(desk: Desk) -> None:
    """Asked for every user of every send: none may look through a table."""
    seen: list[str] = []

    def ask(conn: sqlite3.Connection) -> None:
        conn.set_trace_callback(seen.append)
        try:
            contact_of(conn, "ada")
            addresses_of(conn, "ada")
            quiet_of(conn, "ada", "UTC")
            digest_of(conn, "ada", "builds", "daily", None, "UTC")
        finally:
            conn.set_trace_callback(None)

    desk.read(ask)
    selects = [statement for statement in seen if statement.startswith("SELECT")]
    assert len(selects) == 4
    for statement in selects:
        plan = desk.read(lambda conn, sql=statement: conn.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall())  # type: ignore[misc]
        steps = [detail for *_, detail in plan]
        assert {step for step in steps if step.startswith("SCAN")} <= {"SCAN CONSTANT ROW", "SCAN u"}, steps
        assert [step for step in steps if step.startswith("SEARCH")], steps


def test_what_was_set_is_there_after_a_restart(tmp_path: Path) -> None:
    clock = StillClock()
    with NotificationService(tmp_path / "n.db", clock=clock) as service:
        desk = Desk(service, clock)
        desk.contacts("ada", email="ada@example.org", phone="+49301234567", locale="de")
        quiet, digests = desk.quiet("ada", start="21:00"), desk.digest("ada", "*", "daily", at="18:00")
        contact = desk.asked.contact("ada")
    with NotificationService(tmp_path / "n.db", clock=clock) as service:
        desk = Desk(service, clock)
        assert desk.asked.contact("ada") == contact
        assert desk.quiet_shown("ada") == quiet
        assert told(desk.asked.digests("ada")) == digests
