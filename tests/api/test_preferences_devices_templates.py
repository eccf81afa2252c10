"""Preferences, types, templates, devices and keys over HTTP, as documented in API.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.api_client import (
    DEVICES,
    KEYS,
    PREFERENCES,
    SEND,
    TEMPLATES,
    TIME,
    TYPES,
    UUID7,
    App,
    fresh,
    ok,
    problem,
)
from tests.support.server_process import ServerProcess, serving

CHANNELS = {"in_app", "push", "email", "sms"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("people")) as running:
        yield running


def choose(server: ServerProcess, user: str, kind: str, channel: str, *, enabled: bool) -> None:
    ok(server.api("POST", PREFERENCES, choice(user, kind, channel, enabled=enabled)))


def choice(user: str, kind: str, channel: str, *, enabled: bool) -> dict[str, Any]:
    return {"user_id": user, "notification_type": kind, "channel": channel, "enabled": enabled}


def chosen(server: ServerProcess, user: str) -> dict[str, Any]:
    return ok(server.api("GET", f"{PREFERENCES}/{user}"))


def effect(server: ServerProcess, user: str, kind: str) -> dict[str, bool]:
    (row,) = [row for row in chosen(server, user)["types"] if row["name"] == kind]
    channels: dict[str, bool] = row["channels"]
    return channels


def template(server: ServerProcess, **fields: Any) -> dict[str, Any]:
    text = {"name": fresh("template"), "title_template": "Hi {who}", "message_template": "$n new"} | fields
    made: dict[str, Any] = ok(server.api("POST", TEMPLATES, text), 201)["template"]
    return made


# --- preferences


def test_one_choice_is_stored_and_answered(server: ServerProcess) -> None:
    user = fresh()
    body = ok(server.api("POST", PREFERENCES, choice(user, "ads", "email", enabled=False)))
    assert set(body) == {"success", "preferences"}
    (stored,) = body["preferences"]
    assert TIME.fullmatch(stored["updated_at"])
    assert stored == choice(user, "ads", "email", enabled=False) | {"updated_at": stored["updated_at"]}
    assert chosen(server, user)["preferences"] == [stored]


def test_a_list_of_choices_is_stored_together_and_the_last_of_a_place_wins(server: ServerProcess) -> None:
    user, other = fresh(), fresh()
    choices = [
        choice(user, "ads", "email", enabled=False),
        choice(user, "ads", "email", enabled=True),
        choice(other, "*", "*", enabled=False),
    ]
    body = ok(server.api("POST", PREFERENCES, {"preferences": choices}))
    assert len(body["preferences"]) == 3
    assert [row["enabled"] for row in chosen(server, user)["preferences"]] == [True]
    assert [row["enabled"] for row in chosen(server, other)["preferences"]] == [False]


def test_a_list_with_one_bad_choice_stores_none_of_it(server: ServerProcess) -> None:
    user = fresh()
    choices = [choice(user, "ads", "email", enabled=False), choice(user, "ads", "pigeon", enabled=False)]
    problem(server.api("POST", PREFERENCES, {"preferences": choices}), "validation_error", "preferences.1.channel")
    assert chosen(server, user)["preferences"] == []


@pytest.mark.parametrize("missing", ["user_id", "notification_type", "channel", "enabled"])
def test_an_incomplete_choice_names_the_missing_fields(server: ServerProcess, missing: str) -> None:
    body = choice(fresh(), "ads", "email", enabled=True)
    del body[missing]
    problem(server.api("POST", PREFERENCES, body), "validation_error", missing)
    problem(server.api("POST", PREFERENCES, {"preferences": [body]}), "validation_error", f"preferences.0.{missing}")


def test_one_choice_and_a_list_contradict_each_other(server: ServerProcess) -> None:
    one = choice(fresh(), "ads", "email", enabled=True)
    problem(server.api("POST", PREFERENCES, one | {"preferences": [one]}), "validation_error", "preferences")


def test_the_matrix_names_every_type_and_channel_with_its_reason(server: ServerProcess) -> None:
    user, kind = fresh(), fresh("type")
    ok(server.api("POST", TYPES, {"name": kind, "label": "Kind", "description": "Of a kind", "critical": True}), 201)
    body = chosen(server, user)
    assert set(body) == {"success", "preferences", "quiet_hours", "digest", "types"}
    assert body["quiet_hours"]["enabled"] is False
    rows = {row["name"]: row for row in body["types"]}
    assert "general" in rows
    row = rows[kind]
    assert set(row) == {"name", "label", "description", "app", "critical", "channels", "reasons"}
    assert (row["label"], row["description"], row["critical"]) == ("Kind", "Of a kind", True)
    assert row["channels"] == dict.fromkeys(CHANNELS, True)
    assert set(row["reasons"]) == CHANNELS
    assert all(row["reasons"].values())


@pytest.mark.parametrize(
    ("choices", "allowed"),
    [
        ([("*", "*", False)], set()),
        ([("*", "*", False), ("KIND", "*", True)], CHANNELS),
        ([("*", "*", False), ("KIND", "push", True)], {"push"}),
        ([("KIND", "*", False), ("KIND", "sms", True)], {"sms"}),
        ([("*", "email", False)], CHANNELS - {"email"}),
        ([("*", "email", False), ("KIND", "email", True)], CHANNELS - {"email"}),
        ([("KIND", "email", False), ("*", "email", True)], CHANNELS - {"email"}),
    ],
)
def test_the_most_specific_choice_wins_but_a_channel_that_is_off_stays_off(
    server: ServerProcess, choices: list[tuple[str, str, bool]], allowed: set[str]
) -> None:
    user, kind = fresh(), fresh("type")
    ok(server.api("POST", TYPES, {"name": kind}), 201)
    for place, channel, enabled in choices:
        choose(server, user, kind if place == "KIND" else place, channel, enabled=enabled)
    assert effect(server, user, kind) == {channel: channel in allowed for channel in CHANNELS}
    asked = {"user_id": user, "title": "t", "message": "m", "notification_type": kind, "channels": sorted(CHANNELS)}
    sent = ok(server.api("POST", SEND, asked), 201)["deliveries"]
    assert {d["channel"] for d in sent if d["status"] == "suppressed"} == CHANNELS - allowed


# --- types


def test_a_type_is_declared_changed_and_listed(server: ServerProcess) -> None:
    name = fresh("type")
    declared = {"name": name, "label": "Label", "description": "Words", "channels": ["email"], "digest": "daily"}
    body = ok(server.api("POST", TYPES, declared), 201)
    assert set(body) == {"success", "notification_type"}
    first = body["notification_type"]
    assert {field: first[field] for field in declared} == declared
    assert (first["app"], first["critical"]) == ("local", False)
    changed = ok(server.api("POST", TYPES, declared | {"label": "Other", "critical": True}))["notification_type"]
    assert (changed["label"], changed["critical"]) == ("Other", True)
    listed = ok(server.api("GET", TYPES))["notification_types"]
    assert [row for row in listed if row["name"] == name] == [changed]
    assert changed["created_at"] == first["created_at"]


def test_a_type_that_was_only_used_is_listed_too(server: ServerProcess) -> None:
    name = fresh("used_type")
    ok(server.api("POST", SEND, {"user_id": fresh(), "title": "t", "message": "m", "notification_type": name}), 201)
    (row,) = [row for row in ok(server.api("GET", TYPES))["notification_types"] if row["name"] == name]
    assert row["channels"] == ["in_app"]
    assert row["label"].startswith("Used type")


# --- templates


def test_a_template_is_created_read_listed_changed_and_deleted(server: ServerProcess) -> None:
    made = template(server, channels=["in_app", "email"], category="builds", data_schema={"type": "object"})
    assert made["data_schema_checked"] is True
    path = f"{TEMPLATES}/{made['name']}"
    assert UUID7.fullmatch(made["id"])
    assert made["variables"] == ["who", "n"]
    assert ok(server.api("GET", path)) == {"success": True, "template": made}
    assert made in ok(server.api("GET", TEMPLATES))["templates"]
    text = {"title_template": "Bye", "message_template": "Gone {when}"}
    changed = ok(server.api("PUT", path, text))["template"]
    expected = made | text | {"channels": [], "category": None, "data_schema": None, "variables": ["when"]}
    expected["data_schema_checked"] = False
    assert changed == expected | {"updated_at": changed["updated_at"]}
    assert ok(server.api("GET", path))["template"] == changed
    assert ok(server.api("DELETE", path)) == {"success": True, "deleted": [changed]}
    for method, body in (("GET", None), ("DELETE", None), ("PUT", text)):
        problem(server.api(method, path, body), "not_found")
    problem(server.api("POST", f"{path}/preview", {}), "not_found")


def test_a_template_that_exists_is_not_overwritten_by_post(server: ServerProcess) -> None:
    made = template(server)
    text = {"name": made["name"], "title_template": "x", "message_template": "x"}
    problem(server.api("POST", TEMPLATES, text), "conflict")
    assert ok(server.api("GET", f"{TEMPLATES}/{made['name']}"))["template"] == made


def test_a_template_speaks_the_language_asked_for_else_its_default(server: ServerProcess) -> None:
    made = template(server, title_template="Hello")
    german = {"name": made["name"], "title_template": "Hallo", "message_template": "x", "locale": "de"}
    ok(server.api("POST", TEMPLATES, german), 201)
    path = f"{TEMPLATES}/{made['name']}"
    titles = {
        locale: ok(server.api("GET", path, params={"locale": locale}))["template"]["title_template"]
        for locale in ("", "de", "de-AT", "fr")
    }
    assert titles == {"": "Hello", "de": "Hallo", "de-AT": "Hallo", "fr": "Hello"}
    assert len(ok(server.api("DELETE", path))["deleted"]) == 2


def test_a_preview_shows_the_texts_or_names_the_missing_variables_and_sends_nothing(server: ServerProcess) -> None:
    path = f"{TEMPLATES}/{template(server)['name']}/preview"
    body = ok(server.api("POST", path, {"data": {"who": "Ada", "n": 3}}))
    assert body == {"success": True, "preview": {"title": "Hi Ada", "message": "3 new"}}
    problem(server.api("POST", path, {"data": {"who": "Ada"}}), "validation_error", "data.n")
    problem(server.api("POST", path, {}), "validation_error", "data.who", "data.n")
    problem(server.api("POST", path, {"data": {"who": {}, "n": []}}), "validation_error", "data.who", "data.n")


@pytest.mark.parametrize("text", ["{who.__class__}", "{0}", "{who!r}", "{who:>9999999}", "%(who)s", "{ }", "$", "{{}}"])
def test_text_that_is_not_a_variable_stays_unchanged(server: ServerProcess, text: str) -> None:
    made = template(server, title_template="t", message_template=text)
    assert made["variables"] == []
    body = ok(server.api("POST", f"{TEMPLATES}/{made['name']}/preview", {"data": {"who": "x"}}))
    assert body["preview"]["message"] == text


def test_a_template_cannot_be_filled_in_beyond_a_notices_limits(server: ServerProcess) -> None:
    made = template(server, title_template="{who}", message_template="{who}" * 100)
    path = f"{TEMPLATES}/{made['name']}/preview"
    problem(server.api("POST", path, {"data": {"who": "x" * 301}}), "validation_error", "title")
    problem(server.api("POST", path, {"data": {"who": "x" * 101}}), "validation_error", "message")
    problem(server.api("POST", path, {"data": {"who": " "}}), "validation_error", "title")


# --- devices


def test_a_token_is_registered_once_and_moves_to_the_new_user(server: ServerProcess) -> None:
    user, other, token = fresh(), fresh(), fresh("a-long-device-token")
    device = {"user_id": user, "token": token, "platform": "android", "device_info": {"model": "X"}}
    body = ok(server.api("POST", DEVICES, device), 201)
    assert set(body) == {"success", "device_token_id"}
    moved = ok(server.api("POST", DEVICES, device | {"user_id": other, "platform": "web"}), 200)
    assert moved == body
    assert ok(server.api("GET", f"/api/devices/user/{user}"))["devices"] == []
    (row,) = ok(server.api("GET", f"/api/devices/user/{other}"))["devices"]
    assert (row["id"], row["platform"], row["is_active"]) == (body["device_token_id"], "web", True)


def test_tokens_are_shown_masked(server: ServerProcess) -> None:
    user, long, short = fresh(), fresh("token-that-is-long"), "short-token"
    for token in (long, short):
        device = {"user_id": user, "token": token, "platform": "desktop", "device_info": {"os": "x"}}
        assert token not in server.api("POST", DEVICES, device).text
    answer = server.api("GET", f"/api/devices/user/{user}")
    rows = ok(answer)["devices"]
    assert [row["token"] for row in rows] == ["…", f"{long[:4]}…{long[-4:]}"]
    assert long not in answer.text
    assert short not in answer.text
    assert [row["device_info"] for row in rows] == [{"os": "x"}] * 2


def test_a_device_is_forgotten_once(server: ServerProcess) -> None:
    user, token = fresh(), fresh("token")
    device = {"user_id": user, "token": token, "platform": "ios"}
    given = ok(server.api("POST", DEVICES, device), 201)["device_token_id"]
    answer = server.api("DELETE", f"/api/devices/{given}")
    assert ok(answer)["device"]["id"] == given
    assert token not in answer.text
    problem(server.api("DELETE", f"/api/devices/{given}"), "not_found")
    assert ok(server.api("GET", f"/api/devices/user/{user}"))["devices"] == []
    assert ok(server.api("POST", DEVICES, device), 201)["device_token_id"] != given


# --- keys


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(server: ServerProcess) -> None:
    name = fresh("app")
    body = ok(server.api("POST", KEYS, {"name": name, "scopes": ["read", "send"]}), 201)
    assert set(body) == {"success", "key", "name", "scopes"}
    assert (body["name"], body["scopes"]) == (name, ["send", "read"])
    answer = server.api("GET", KEYS)
    assert body["key"] not in answer.text
    (row,) = [row for row in ok(answer)["keys"] if row["name"] == name]
    assert (row["scopes"], row["revoked_at"]) == (["send", "read"], None)
    problem(server.api("POST", KEYS, {"name": name, "scopes": ["read"]}), "conflict")
    revoked = ok(server.api("DELETE", f"{KEYS}/{name}"))["key"]
    assert TIME.fullmatch(revoked["revoked_at"])
    problem(server.api("DELETE", f"{KEYS}/{name}"), "not_found")


def test_no_key_is_stored_as_it_is(server: ServerProcess) -> None:
    app = App(server, "read")
    for path in server.data_dir.rglob("*"):
        if path.is_file():
            assert app.key.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "local", "scopes": ["read"]}, "name"),
        ({"name": "a b", "scopes": ["read"]}, "name"),
        ({"name": "ok", "scopes": []}, "scopes"),
        ({"name": "ok", "scopes": ["root"]}, "scopes.0"),
        ({"name": "ok"}, "scopes"),
    ],
)
def test_a_key_needs_a_name_and_scopes_that_exist(server: ServerProcess, body: dict[str, Any], field: str) -> None:
    problem(server.api("POST", KEYS, body), "validation_error", field)
