"""Contacts, quiet hours, do not disturb and digests over HTTP, as documented in API.md."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.api_client import JSON, PREFERENCES, TIME, App, contents, fresh, ok, problem, raw
from tests.support.server_process import ServerProcess, serving

NOTIFICATIONS = "/api/notifications"
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
ZONE = "Asia/Kathmandu"
UNSET = {
    "enabled": False,
    "start": "22:00",
    "end": "07:00",
    "timezone": ZONE,
    "days": DAYS,
    "do_not_disturb_until": None,
}
NOBODY = {"email": None, "phone": None, "locale": None, "updated_at": None}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("circumstances"), env={"TZ": ZONE}) as running:
        yield running


def contacts(user: str) -> str:
    return f"/api/users/{quote(user)}/contacts"


def quiet_hours(user: str) -> str:
    return f"{NOTIFICATIONS}/quiet-hours/{quote(user)}"


def do_not_disturb(user: str) -> str:
    return f"{NOTIFICATIONS}/do-not-disturb/{quote(user)}"


def digest(user: str) -> str:
    return f"{NOTIFICATIONS}/digest/{quote(user)}"


def chosen(server: ServerProcess, user: str) -> dict[str, Any]:
    return ok(server.api("GET", f"{PREFERENCES}/{quote(user)}"))


def ahead(text: str) -> timedelta:
    """Return the time until ``text``, which must have the API's format."""
    assert TIME.fullmatch(text)
    return datetime.fromisoformat(text) - datetime.now(UTC)


# --- contacts


def test_contacts_are_set_and_read(server: ServerProcess) -> None:
    user = fresh()
    assert ok(server.api("GET", contacts(user))) == {"success": True, "contacts": NOBODY}
    body = ok(server.api("POST", contacts(user), {"email": "ada@bücher.example", "phone": "+49 (30) 123-4567"}))
    assert set(body) == {"success", "contacts"}
    stored = body["contacts"]
    assert TIME.fullmatch(stored.pop("updated_at"))
    assert stored == {"email": "ada@bücher.example", "phone": "+49301234567", "locale": None}
    changed = ok(server.api("POST", contacts(user), {"phone": None, "locale": "de-AT"}))["contacts"]
    assert (changed["email"], changed["phone"], changed["locale"]) == ("ada@bücher.example", None, "de-AT")
    assert ok(server.api("GET", contacts(user)))["contacts"] == changed
    assert ok(server.api("POST", contacts(user), {}))["contacts"] == changed


@pytest.mark.parametrize(
    "user", ["a/b", "a/contacts", "contacts/contacts", "ada@example.org", "Ærøskøbing & Søn", "a?b#c%2Fd", "..", "a/"]
)
def test_a_user_id_may_be_anything_that_fits_in_an_address(server: ServerProcess, user: str) -> None:
    for number, path in enumerate((contacts(user), f"/api/users/{quote(user, safe='')}/contacts")):
        sent = f'{{"email": "u{number}@example.org"}}'.encode()
        assert raw(server, "POST", path, sent, JSON).status == 200
        read = raw(server, "GET", path)
        assert f'"email":"u{number}@example.org"' in read.text
    for path, put in (
        (quiet_hours(user), b'{"enabled": true}'),
        (digest(user), b'{"notification_type": "*", "frequency": "hourly"}'),
    ):
        assert raw(server, "PUT", path, put, JSON).status == 200
    assert raw(server, "POST", do_not_disturb(user), b'{"minutes": 5}', JSON).status == 200
    shown = raw(server, "GET", f"{PREFERENCES}/{quote(user)}")
    assert '"enabled":true' in shown.text
    assert '"digest":{"*":{"frequency":"hourly","at":null}}' in shown.text


def test_an_address_without_a_user_leads_nowhere(server: ServerProcess) -> None:
    problem(server.api("POST", "/api/users//contacts", {}), "not_found")
    problem(server.api("POST", "/api/users/contacts", {}), "method_not_allowed")  # the user “contacts”
    long = "u" * 256
    problem(server.api("GET", contacts(long)), "validation_error", "user_id")
    problem(server.api("PUT", quiet_hours(long), {"enabled": True}), "validation_error", "user_id")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"email": "a@b.de, c@d.de"}, "email"),
        ({"email": "a@b.de\r\nBcc: c@d.de"}, "email"),
        ({"email": "x" * 65 + "@b.de"}, "email"),
        ({"email": "a@" + "b" * 300 + ".de"}, "email"),
        ({"email": 1}, "email"),
        ({"email": ["a@b.de"]}, "email"),
        ({"phone": "030 1234567"}, "phone"),
        ({"phone": "+49 (0)30 1234567"}, "phone"),
        ({"phone": 49301234567}, "phone"),
        ({"phone": "+" + "1" * 50}, "phone"),
        ({"locale": "de_AT"}, "locale"),
        ({"locale": False}, "locale"),
        ({"e_mail": "a@b.de"}, "e_mail"),
        ({"user_id": "someone-else"}, "user_id"),
        ([], ""),
        ("ada@example.org", ""),
    ],
)
def test_contacts_that_cannot_be_used_are_refused_with_their_field(
    server: ServerProcess, body: Any, field: str
) -> None:
    user = fresh()
    answer = problem(server.api("POST", contacts(user), body), "validation_error", field)
    for value in body.values() if isinstance(body, dict) else ():
        assert not isinstance(value, str) or len(value) < 4 or value not in answer["detail"]
    assert ok(server.api("GET", contacts(user)))["contacts"] == NOBODY


def test_a_contact_that_is_refused_changes_none_of_the_others(server: ServerProcess) -> None:
    user = fresh()
    problem(server.api("POST", contacts(user), {"email": "a@b.de", "phone": "1"}), "validation_error", "phone")
    assert ok(server.api("GET", contacts(user)))["contacts"] == NOBODY


# --- quiet hours


def test_quiet_hours_start_with_the_defaults(server: ServerProcess) -> None:
    user = fresh()
    assert chosen(server, user)["quiet_hours"] == UNSET
    body = ok(server.api("PUT", quiet_hours(user), {"enabled": True}))
    assert body == {"success": True, "quiet_hours": UNSET | {"enabled": True}}
    assert chosen(server, user)["quiet_hours"] == body["quiet_hours"]


def test_quiet_hours_are_set_and_omitted_fields_stay(server: ServerProcess) -> None:
    user = fresh()
    wanted = {"enabled": True, "start": "21:15", "end": "06:45", "timezone": "Europe/Berlin", "days": ["sun", "fri"]}
    first = ok(server.api("PUT", quiet_hours(user), wanted))["quiet_hours"]
    assert first == wanted | {"days": ["fri", "sun"], "do_not_disturb_until": None}
    second = ok(server.api("PUT", quiet_hours(user), {"enabled": False, "end": "08:00"}))["quiet_hours"]
    assert second == first | {"enabled": False, "end": "08:00"}
    third = ok(server.api("PUT", quiet_hours(user), {"enabled": True, "timezone": None}))["quiet_hours"]
    assert third == second | {"enabled": True, "timezone": ZONE}
    assert chosen(server, user)["quiet_hours"] == third


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("enabled", "true", "enabled"),
        ("enabled", 1, "enabled"),
        ("start", "24:00", "start"),
        ("start", "9:00", "start"),
        ("start", None, "start"),
        ("end", "07:00\n", "end"),
        ("end", 700, "end"),
        ("timezone", "Mars/Olympus", "timezone"),
        ("timezone", "../../etc/passwd", "timezone"),
        ("timezone", "/etc/localtime", "timezone"),
        ("timezone", "right/Europe/Berlin", "timezone"),
        ("timezone", "UTC\0", "timezone"),
        ("timezone", "Europe", "timezone"),
        ("timezone", "x" * 10_000, "timezone"),
        ("days", [], "days"),
        ("days", ["mon", "mon"], "days"),
        ("days", ["Monday"], "days.0"),
        ("days", "mon", "days"),
        ("days", None, "days"),
        ("do_not_disturb_until", None, "do_not_disturb_until"),
        ("user_id", "x", "user_id"),
    ],
)
def test_quiet_hours_that_cannot_be_meant_are_refused_with_their_field(
    server: ServerProcess, field: str, value: Any, named: str
) -> None:
    user = fresh()
    problem(server.api("PUT", quiet_hours(user), {"enabled": True} | {field: value}), "validation_error", named)
    assert chosen(server, user)["quiet_hours"] == UNSET


def test_quiet_hours_must_say_whether_they_are_enabled(server: ServerProcess) -> None:
    problem(server.api("PUT", quiet_hours(fresh()), {"start": "21:00"}), "validation_error", "enabled")


# --- do not disturb


def test_do_not_disturb_for_some_minutes(server: ServerProcess) -> None:
    user = fresh()
    body = ok(server.api("POST", do_not_disturb(user), {"minutes": 60}))
    assert set(body) == {"success", "do_not_disturb_until"}
    assert timedelta(minutes=59) < ahead(body["do_not_disturb_until"]) <= timedelta(minutes=60)
    shown = chosen(server, user)["quiet_hours"]
    assert shown == UNSET | {"do_not_disturb_until": body["do_not_disturb_until"]}
    put = ok(server.api("PUT", quiet_hours(user), {"enabled": True}))["quiet_hours"]
    assert put["do_not_disturb_until"] == body["do_not_disturb_until"]
    ended = ok(server.api("POST", do_not_disturb(user), {"until": None}))
    assert ended == {"success": True, "do_not_disturb_until": None}
    assert chosen(server, user)["quiet_hours"] == UNSET | {"enabled": True}


def test_do_not_disturb_until_a_time_in_any_offset(server: ServerProcess) -> None:
    user = fresh()
    body = ok(server.api("POST", do_not_disturb(user), {"until": "2150-06-01T12:00:00.5+05:45"}))
    assert body["do_not_disturb_until"] == "2150-06-01T06:15:00.500Z"


def test_a_week_at_most_and_a_minute_at_least(server: ServerProcess) -> None:
    user = fresh()
    for minutes in (1, 10_080):
        body = ok(server.api("POST", do_not_disturb(user), {"minutes": minutes}))
        assert abs(ahead(body["do_not_disturb_until"]) - timedelta(minutes=minutes)) < timedelta(seconds=30)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "until"),
        ({"minutes": 5, "until": None}, "until"),
        ({"minutes": 5, "until": "2150-06-01T12:00:00Z"}, "until"),
        ({"minutes": 0}, "minutes"),
        ({"minutes": -1}, "minutes"),
        ({"minutes": 10_081}, "minutes"),
        ({"minutes": 10**30}, "minutes"),
        ({"minutes": "60"}, "minutes"),
        ({"minutes": 1.5}, "minutes"),
        ({"minutes": True}, "minutes"),
        ({"minutes": None}, "minutes"),
        ({"until": "2026-06-01T12:00:00"}, "until"),
        ({"until": "2001-06-01T12:00:00Z"}, "until"),
        ({"until": "9999-12-31T23:59:59Z"}, "until"),
        ({"until": "0001-01-01T00:00:00+14:00"}, "until"),
        ({"until": "tomorrow"}, "until"),
        ({"until": 4_000_000_000}, "until"),
        ({"hours": 1}, "hours"),
    ],
)
def test_a_do_not_disturb_that_cannot_be_meant_is_refused_with_its_field(
    server: ServerProcess, body: dict[str, Any], field: str
) -> None:
    user = fresh()
    problem(server.api("POST", do_not_disturb(user), body), "validation_error", field)
    assert chosen(server, user)["quiet_hours"] == UNSET


# --- digests


def test_digests_are_chosen_for_a_type_or_for_all_and_taken_back(server: ServerProcess) -> None:
    user = fresh()
    assert chosen(server, user)["digest"] == {}

    def choose(kind: str, frequency: str | None, **fields: str) -> Any:
        body = ok(server.api("PUT", digest(user), {"notification_type": kind, "frequency": frequency} | fields))
        assert set(body) == {"success", "digest"}
        assert chosen(server, user)["digest"] == body["digest"]
        return body["digest"]

    everything = {"frequency": "daily", "at": "18:30"}
    assert choose("*", "daily", at="18:30") == {"*": everything}
    assert choose("builds", "off") == {"*": everything, "builds": {"frequency": "off", "at": None}}
    assert choose("chat", "hourly")["chat"] == {"frequency": "hourly", "at": None}
    assert choose("chat", "daily")["chat"] == {"frequency": "daily", "at": "08:00"}
    assert choose("builds", None).keys() == {"*", "chat"}
    assert choose("*", None).keys() == {"chat"}
    assert chosen(server, fresh())["digest"] == {}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"notification_type": None}, "notification_type"),
        ({"notification_type": ""}, "notification_type"),
        ({"notification_type": "a\nb"}, "notification_type"),
        ({"notification_type": "x" * 101}, "notification_type"),
        ({"frequency": "weekly"}, "frequency"),
        ({"frequency": True}, "frequency"),
        ({"at": "24:00"}, "at"),
        ({"at": None}, "at"),
        ({"frequency": None, "at": "08:00"}, "at"),
        ({"timezone": "UTC"}, "timezone"),
    ],
)
def test_a_digest_that_cannot_be_meant_is_refused_with_its_field(
    server: ServerProcess, change: dict[str, Any], field: str
) -> None:
    user = fresh()
    body = {"notification_type": "builds", "frequency": "daily"} | change
    problem(server.api("PUT", digest(user), body), "validation_error", field)
    assert chosen(server, user)["digest"] == {}


@pytest.mark.parametrize("missing", ["notification_type", "frequency"])
def test_a_digest_needs_its_type_and_its_frequency(server: ServerProcess, missing: str) -> None:
    body = {"notification_type": "builds", "frequency": "daily"}
    del body[missing]
    problem(server.api("PUT", digest(fresh()), body), "validation_error", missing)


# --- all of them


ROUTES = [
    ("GET", contacts, None),
    ("POST", contacts, {"email": "ada@example.org"}),
    ("PUT", quiet_hours, {"enabled": True}),
    ("POST", do_not_disturb, {"minutes": 5}),
    ("PUT", digest, {"notification_type": "*", "frequency": "hourly"}),
]


@pytest.mark.parametrize(("method", "address", "body"), ROUTES, ids=lambda part: getattr(part, "__name__", None))
def test_only_who_may_manage_gets_in(server: ServerProcess, method: str, address: Any, body: Any) -> None:
    user = fresh()
    before = contents(server)
    for scope in ("send", "read", "track"):
        app = App(server, scope)
        assert "“manage”" in problem(app.api(method, address(user), body), "forbidden")["detail"]
    problem(server.api(method, address(user), body, headers={"Authorization": "Bearer x"}), "unauthorized")
    after = contents(server)
    assert {name: rows for name, rows in after.items() if "api_keys" not in name} == {
        name: rows for name, rows in before.items() if "api_keys" not in name
    }
    ok(App(server, "manage").api(method, address(user), body))


@pytest.mark.parametrize(("method", "address", "body"), ROUTES, ids=lambda part: getattr(part, "__name__", None))
def test_a_body_that_is_not_json_is_refused(server: ServerProcess, method: str, address: Any, body: Any) -> None:
    if body is None:
        return
    for junk in (b"", b"{", b"null", b'{"email": NaN}', b'{"email": "\xff"}', b'{"email": "\\ud800"}', b"[" * 5000):
        answer = raw(server, method, address(fresh()), junk, JSON)
        problem(answer, "validation_error")
    problem(raw(server, method, address(fresh()), b"{}", {"Content-Type": "text/plain"}), "unsupported_media_type")


def test_a_users_circumstances_are_the_users_and_not_an_apps(server: ServerProcess) -> None:
    user, one, other = fresh(), App(server, "manage"), App(server, "manage")
    ok(one.api("POST", contacts(user), {"email": "ada@example.org"}))
    assert ok(other.api("GET", contacts(user)))["contacts"]["email"] == "ada@example.org"


def test_they_are_there_after_a_power_cut(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, user = tmp_path_factory.mktemp("cut"), fresh()
    with serving(folder) as server:
        for method, address, body in ROUTES:
            ok(server.api(method, address(user), body))
        before = chosen(server, user), ok(server.api("GET", contacts(user)))
        server.kill()
    with serving(folder) as server:
        assert (chosen(server, user), ok(server.api("GET", contacts(user)))) == before
