"""The settings screen built over a real backend, without a page."""

from __future__ import annotations

import asyncio
from typing import Any

import flet as ft
import pytest

from flashflow.backend import Backend, DigestIn, given
from flashflow.views.controls.protocols import DigestSetting
from flashflow.views.settings.channel_fields import (
    SET,
    TABLES,
    name_error,
    other_table,
    secret_hint,
    shown_in,
    stored_at,
    values_of,
)
from flashflow.views.settings.screen import Settings
from flashflow.views.shared.form import Field
from flashflow.views.shared.live import Live
from flashflow.views.shared.sources import UserPreferences
from tests.support.control_tree import NOW, named, texts, walk

pytestmark = pytest.mark.anyio

EMAIL = TABLES["email"]


def screen_over(backend: Backend) -> Settings:
    live = Live(backend.bus, backend.me, asyncio.get_running_loop())
    return Settings(backend=backend, live=live, go=lambda _: None, wide=True, now=lambda: NOW)


def drawn(screen: Settings) -> ft.Control:
    """Load and draw the screen, as a refresh does."""
    screen.content = screen.render(screen.load())
    return screen.content


def field(control: ft.BaseControl, label: str) -> ft.TextField:
    return next(c for c in walk(control) if isinstance(c, ft.TextField) and c.label == label)


def switch(control: ft.BaseControl, name: str) -> ft.Switch:
    return next(c for c in walk(control) if isinstance(c, ft.Switch) and c.tooltip == name)


class Turned:
    """The event of a switch or a chip."""

    def __init__(self, control: Any) -> None:
        self.control = control


# --- what is written --------------------------------------------------------------------------------------------------


def test_a_form_writes_its_input_and_keeps_settings_without_a_field() -> None:
    stored = {"host": "old", "connections": 9, "rate_per_second": None, "password": SET, "port": None}
    typed = {"host": " smtp.example.org ", "port": "2525", "security": "tls", "username": "ada", "password": ""}
    assert values_of(EMAIL, typed, stored) == {
        "connections": 9,
        "host": "smtp.example.org",
        "port": 2525,
        "security": "tls",
        "username": "ada",
    }


def test_defaults_are_not_written() -> None:
    stored = {"connections": 4, "base_url": "https://api.twilio.com"}
    typed = {"account_sid": "AC1", "auth_token": "t", "from": "+1", "base_url": "https://api.twilio.com"}
    assert values_of(TABLES["sms"], typed, stored) == {"account_sid": "AC1", "auth_token": "t", "from": "+1"}


def test_a_password_needs_its_user_name_and_is_not_stripped() -> None:
    assert values_of(EMAIL, {"username": "", "password": "left over"}, None) == {"password": ""}
    assert values_of(EMAIL, {"username": "ada", "password": " spaced "}, None)["password"] == " spaced "


def test_an_invalid_number_is_left_for_the_settings_to_refuse() -> None:
    assert values_of(EMAIL, {"port": "${PORT}"}, None)["port"] == "${PORT}"
    assert values_of(EMAIL, {"port": "9" * 5000}, None)["port"] == "9" * 5000
    assert values_of(EMAIL, {"port": "٣"}, None)["port"] == "٣"


def test_a_secret_is_never_shown_and_its_field_says_where_it_is() -> None:
    password = next(spec for spec in EMAIL.fields if spec.name == "password")
    for stored in (SET, "${SMTP_PASSWORD}", "${keyring:email.password}"):
        assert shown_in(password, {"password": stored}) == ""
    assert secret_hint(password, {"password": SET}) == "Stored. Leave empty to keep it."
    assert "keyring" in secret_hint(password, {"password": "${keyring:email.password}"})
    assert "${SMTP_PASSWORD}" in secret_hint(password, {"password": "${SMTP_PASSWORD}"})
    assert secret_hint(password, None) == ""


def test_every_form_fits_its_table(backend: Backend) -> None:
    """A field that the settings do not know would make the whole form unusable."""
    filled = {
        "email": {
            "host": "h", "port": "1", "security": "none", "username": "", "password": "", "from": "a@b.example",
            "reply_to": "c@d.example",
        },
        "sms": {"account_sid": "AC", "auth_token": "t", "from": "+1", "base_url": "http://127.0.0.1:1"},
        "fcm": {"credentials": "/nowhere", "base_url": "http://127.0.0.1:1"},
        "apns": {"key_file": "/x", "key_id": "k", "team_id": "t", "topic": "o", "base_url": "http://127.0.0.1:1"},
        "webpush": {"subject": "mailto:a@b.example"},
    }  # fmt: skip
    assert filled.keys() == TABLES.keys()
    for route, typed in filled.items():
        assert typed.keys() == {spec.name for spec in TABLES[route].fields}
        backend.change_settings(TABLES[route].place, values_of(TABLES[route], typed, None))
        stored = stored_at(backend.settings.shown(), TABLES[route].place)
        assert stored is not None
        again = values_of(TABLES[route], typed, stored)
        assert again.keys() <= typed.keys(), "a default that no form asks for is written into the file"
        backend.change_settings(TABLES[route].place, again)
    backend.change_settings(other_table("ntfy").place, {"url": "json://127.0.0.1:1"})
    assert {state.name for state in backend.channel_states()} >= {*TABLES, "ntfy"}


@pytest.mark.parametrize(
    "name", ["", "My Service", "a.b", "0a", "é", "x" * 33, "email", "push", "in_app", "fcm", "ntfy"]
)
def test_a_name_that_no_channel_can_have_is_refused_at_its_field(name: str) -> None:
    assert name_error(name, {"email": None, "sms": None, "push": {}, "ntfy": {}}) is not None


def test_a_plain_name_is_taken() -> None:
    assert name_error("my-service_2", {"email": None}) is None


# --- fields -----------------------------------------------------------------------------------------------------------


def test_unsaved_input_survives_a_change_elsewhere() -> None:
    line = Field("Host")
    line.set_data("one")
    assert line.text == "one"
    line.set_data("two")
    assert line.text == "two"
    line.control.value = "typing"
    line.set_data("three")
    assert line.text == "typing"
    assert line.is_changed
    line.reset("four")
    assert (line.text, line.is_changed) == ("four", False)


# --- the preferences' source ------------------------------------------------------------------------------------------


async def test_marking_a_type_critical_keeps_the_rest_of_its_declaration(backend: Backend) -> None:
    services = backend.notifications
    services.declare_type(
        "builds", app="ci", label="Builds", description="d", channels=["in_app", "email"], category="dev",
        digest="daily", digest_at="18:00", throttle={"limit": 3, "minutes": 5},
        failover=[{"channel": "email", "after_minutes": 10}],
    )  # fmt: skip
    before = next(kind for kind in services.preferences.types() if kind.name == "builds")
    source = UserPreferences(backend, Live(backend.bus, "ada", asyncio.get_running_loop()))
    source.set_critical("builds", True)
    after = next(kind for kind in services.preferences.types() if kind.name == "builds")
    assert after.critical
    for name in ("label", "description", "channels", "category", "digest", "digest_at", "throttle", "failover", "app"):
        assert getattr(after, name) == getattr(before, name), name
    assert next(row for row in source.matrix().types if row.name == "builds").critical
    source.set_critical("builds", False)
    assert not next(row for row in source.matrix().types if row.name == "builds").critical


async def test_an_undeclared_type_can_be_critical(backend: Backend) -> None:
    source = UserPreferences(backend, Live(backend.bus, "ada", asyncio.get_running_loop()))
    source.set_critical("general", True)
    row = next(row for row in source.matrix().types if row.name == "general")
    assert (row.critical, row.label) == (True, "General")


async def test_a_digest_is_the_users_then_the_one_for_all_then_the_declared_one(backend: Backend) -> None:
    services = backend.notifications
    services.declare_type("weekly", digest="daily", digest_at="18:00")
    source = UserPreferences(backend, Live(backend.bus, "ada", asyncio.get_running_loop()))

    def weekly() -> DigestSetting:
        return next(row.digest for row in source.matrix().types if row.name == "weekly")

    assert weekly() == DigestSetting("daily", "18:00", False)
    source.set_digest("*", "hourly", None)
    assert weekly() == DigestSetting("hourly", None, False)
    source.set_digest("weekly", "daily", "07:15")
    assert weekly() == DigestSetting("daily", "07:15", True)
    source.set_digest("weekly", None, None)
    source.set_digest("*", None, None)
    assert weekly() == DigestSetting("daily", "18:00", False)
    assert source.matrix().digest is None


# --- the screen -------------------------------------------------------------------------------------------------------


async def test_contacts_are_saved_and_an_error_is_shown_at_its_field(backend: Backend) -> None:
    screen = screen_over(backend)
    page = drawn(screen)
    email, phone = field(page, "My e-mail address"), field(page, "My phone number")
    email.value, phone.value = "ada", "+49 (30) 123-4567"
    save = named(page, "Save my addresses").on_click
    await save(None)
    assert str(email.error).startswith("This is not one e-mail address")
    assert phone.error is None
    assert backend.notifications.delivery_settings.contact("ada").phone is None, "nothing is kept of a refused form"
    email.value = "ada@example.test"
    await save(None)
    assert (email.error, phone.value) == (None, "+49301234567")
    assert "Saved" in texts(page)
    contact = backend.notifications.delivery_settings.contact("ada")
    assert (contact.email, contact.phone) == ("ada@example.test", "+49301234567")
    email.value = ""
    await save(None)
    assert backend.notifications.delivery_settings.contact("ada").email is None


async def test_quiet_hours_are_saved_field_by_field(backend: Backend) -> None:
    screen = screen_over(backend)
    page = drawn(screen)
    settings = backend.notifications.delivery_settings
    start, zone = field(page, "From"), field(page, "Time zone")
    start.value = "7.30"
    await start.on_blur(None)  # type: ignore[misc, operator]
    assert start.value == settings.quiet_hours("ada").start == "07:30"
    start.value = "25:00"
    await start.on_blur(None)  # type: ignore[misc, operator]
    assert start.error == "Enter a time of day, for example 22:00."
    zone.value = "Mars/One"
    await zone.on_blur(None)  # type: ignore[misc, operator]
    assert str(zone.error).startswith("This is not an IANA time zone")
    on = switch(page, "Quiet hours")
    on.value = True
    await on.on_change(Turned(on))  # type: ignore[misc, operator, arg-type]
    setting = settings.quiet_hours("ada")
    assert (setting.enabled, setting.start) == (True, "07:30")


async def test_the_last_day_of_quiet_stays(backend: Backend) -> None:
    screen = screen_over(backend)
    page = drawn(screen)
    chips = {c.label: c for c in walk(page) if isinstance(c, ft.Chip)}
    assert list(chips) == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    for label in list(chips)[1:]:
        chips[label].selected = False
        await chips[label].on_select(Turned(chips[label]))  # type: ignore[misc, operator, arg-type]
    assert backend.notifications.delivery_settings.quiet_hours("ada").days == ("mon",)
    chips["Mon"].selected = False
    await chips["Mon"].on_select(Turned(chips["Mon"]))  # type: ignore[misc, operator, arg-type]
    assert chips["Mon"].selected
    assert backend.notifications.delivery_settings.quiet_hours("ada").days == ("mon",)
    assert "Select at least one day, or turn quiet hours off." in texts(page)


async def test_the_screen_shows_the_current_outcome_of_each_channel(backend: Backend) -> None:
    screen = screen_over(backend)
    words = texts(drawn(screen))
    assert {"In app reaches you", "E-mail does not reach you", "E-mail is not configured."} <= set(words)
    backend.change_settings("channels.email", {"host": "127.0.0.1", "security": "none", "from": "me@example.test"})
    backend.notifications.update_notification_preference("ada", "*", "sms", False)
    words = texts(drawn(screen))
    assert {"You have no e-mail address.", "SMS is not used", "You turned SMS off."} <= set(words)


async def test_a_channel_is_set_up_changed_and_removed(backend: Backend) -> None:
    screen = screen_over(backend)
    page = drawn(screen)
    await named(page, "Set up: E-mail").on_click(None)
    assert field(page, "Password").password
    field(page, "Mail server").value = "127.0.0.1"
    field(page, "Port").value = "no"
    await named(page, "Save: E-mail").on_click(None)
    assert field(page, "Port").error == "This must be a whole number."
    assert field(page, "Sender").error == "This is required."
    field(page, "Port").value = "2525"
    field(page, "Sender").value = "me@example.test"
    field(page, "User name").value = "ada"
    field(page, "Password").value = "secret"
    next(c for c in walk(page) if isinstance(c, ft.RadioGroup)).value = "none"
    await named(page, "Save: E-mail").on_click(None)
    assert backend.settings.settings.email is not None
    assert "E-mail: set up" in texts(drawn(screen))

    await named(page, "Change: E-mail").on_click(None)
    assert field(page, "Password").value == "", "what is kept is not shown"
    field(page, "Mail server").value = "localhost"
    await named(page, "Save: E-mail").on_click(None)
    email = backend.settings.settings.email
    assert (email.host, email.password) == ("localhost", "secret")

    drawn(screen)
    await named(page, "Change: E-mail").on_click(None)
    await named(page, "Remove…").on_click(None)
    assert backend.settings.settings.email is not None, "a second question comes first"
    await named(page, "Remove").on_click(None)
    assert backend.settings.settings.email is None
    assert "E-mail: not set up" in texts(drawn(screen))


async def test_a_channel_test_without_a_contact_says_so(backend: Backend) -> None:
    backend.change_settings("channels.email", {"host": "127.0.0.1", "security": "none", "from": "me@example.test"})
    screen = screen_over(backend)
    page = drawn(screen)
    await named(page, "Send a test: E-mail").on_click(None)
    assert any(text.startswith("You have no e-mail address") for text in texts(page))


async def test_an_invalid_settings_file_is_shown_with_its_path(backend: Backend) -> None:
    screen = screen_over(backend)
    drawn(screen)
    path = backend.data_dir / "flashflow.toml"
    path.write_text("[channels.email]\nhost = 5\n", encoding="utf-8")
    backend.follow_settings()
    warnings = [text for text in texts(drawn(screen)) if str(path) in text]
    assert len(warnings) == 1
    assert "channels.email.host" in warnings[0]
    path.write_text("allow_hosts = []\n", encoding="utf-8")
    backend.follow_settings()
    assert not [text for text in texts(drawn(screen)) if str(path) in text]


async def test_removing_a_device_needs_a_confirmation(backend: Backend) -> None:
    backend.notifications.register_device_token("ada", "t" * 40, "ios", {"name": "Ada's phone"})
    backend.notifications.register_device_token("bob", "b" * 40, "web")
    screen = screen_over(backend)
    page = drawn(screen)
    words = texts(page)
    assert "iPhone · Ada's phone" in words
    assert not any("t" * 9 in word or "bbbb" in word for word in words), "tokens are masked, others' devices not shown"
    await named(page, "Remove: iPhone · Ada's phone").on_click(None)
    assert backend.notifications.list_devices("ada")
    await named(page, "Remove for good: iPhone · Ada's phone").on_click(None)
    assert not backend.notifications.list_devices("ada")
    assert "iPhone · Ada's phone" not in texts(drawn(screen))


async def test_do_not_disturb_is_shown_with_its_end(backend: Backend) -> None:
    screen = screen_over(backend)
    page = drawn(screen)
    await named(page, "Do not disturb for 1 hour").on_click(None)
    assert backend.notifications.delivery_settings.quiet_hours("ada").do_not_disturb_until is not None
    assert any(text.startswith("Do not disturb until ") for text in texts(drawn(screen)))
    await named(page, "End do not disturb").on_click(None)
    assert backend.notifications.delivery_settings.quiet_hours("ada").do_not_disturb_until is None


async def test_a_digest_set_for_all_shows_in_the_source(backend: Backend) -> None:
    services = backend.notifications
    choice = given(DigestIn, notification_type="*", frequency="daily", at="06:45")
    services.store.run(services.delivery_settings.digest_write("ada", choice))
    source = UserPreferences(backend, Live(backend.bus, "ada", asyncio.get_running_loop()))
    assert source.matrix().digest == DigestSetting("daily", "06:45", True)
