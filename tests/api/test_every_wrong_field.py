"""A refusal names every invalid field, and for an unknown field the nearest known one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend import NotificationService, UserActivityService, ValidationError
from flashflow.backend.schemas.requests import ActivityIn, SendIn
from flashflow.backend.schemas.validation import nearest
from tests.support.api_client import (
    BATCH,
    KEYS,
    PREFERENCES,
    RULES,
    SCHEDULES,
    SEND,
    TEMPLATES,
    TRACK,
    TYPES,
    App,
    ok,
    problem,
)
from tests.support.server_process import ServerProcess, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("faults")) as running:
        yield running
        assert "Traceback" not in running.log


LATE = "2199-01-01T00:00:00Z"
PAST = "1960-01-01T00:00:00Z"
CASES: dict[str, tuple[str, str, dict[str, Any], set[str]]] = {
    "nothing to track": ("POST", TRACK, {}, {"user_id", "activity_type"}),
    "every kind of fault at once": (
        "POST",
        TRACK,
        {"user_id": "", "activity_typ": "x", "metadata": [], "timestamp": "noon", "page_url": 5, "app": "a b"},
        {"user_id", "activity_typ", "activity_type", "metadata", "timestamp", "page_url", "app"},
    ),
    "a type and a time": (
        "POST",
        TRACK,
        {"user_id": 1, "activity_type": "x", "timestamp": LATE},
        {"user_id", "timestamp"},
    ),
    "nothing to send": ("POST", SEND, {}, {"user_id", "title", "message"}),
    "types, channels and times": (
        "POST",
        SEND,
        {
            "user_id": "ada",
            "title": 5,
            "channel": "pigeon",
            "priority": "asap",
            "scheduled_at": PAST,
            "expires_at": PAST,
        },
        {"title", "message", "channel", "priority", "scheduled_at", "expires_at"},
    ),
    "inside lists": (
        "POST",
        SEND,
        {
            "user_ids": ["ada", "", 7],
            "title": "t",
            "message": "m",
            "channels": ["email", "X"],
            "actions": [{"label": "", "url": "ftp://x"}, {"lable": "ok", "url": "https://x"}],
        },
        {
            "user_ids.1",
            "user_ids.2",
            "channels.1",
            "actions.0.label",
            "actions.0.url",
            "actions.1.lable",
            "actions.1.label",
        },
    ),
    "two of one": ("POST", SEND, {"user_id": "a", "user_ids": ["b"], "title": "t"}, {"user_id", "message"}),
    "a batch's own fields": (
        "POST",
        BATCH,
        {"activities": [], "sent_at": "noon", "colour": 1},
        {"activities", "sent_at", "colour"},
    ),
    "a rule's parts": (
        "POST",
        RULES,
        {
            "name": "dry-run",
            "on": {"activity_type": "x", "times": 2, "where": [{"field": "nope", "op": "eq"}]},
            "send": {"titel": "t"},
            "cooldown_minutes": -1,
        },
        {
            "name",
            "on.where.0.field",
            "on.within_minutes",
            "send.titel",
            "send.title",
            "send.message",
            "cooldown_minutes",
        },
    ),
    "a schedule's parts": (
        "POST",
        SCHEDULES,
        {
            "name": "",
            "notification": {"title": "t", "scheduled_at": LATE},
            "rule": {"every_minutes": 5, "timezone": "X/Y", "days": ["mon", "mon"]},
        },
        {
            "name",
            "notification.scheduled_at",
            "notification.user_id",
            "notification.message",
            "rule.timezone",
            "rule.days",
        },
    ),
    "a template": (
        "POST",
        TEMPLATES,
        {"name": "a b", "title_template": "t", "channels": ["pigeon"], "data_schema": {"type": 5}},
        {"name", "message_template", "channels", "data_schema.type"},
    ),
    "a type": (
        "POST",
        TYPES,
        {"name": "*", "channels": ["pigeon"], "digest": "weekly"},
        {"name", "channels", "digest"},
    ),
    "preferences": ("POST", PREFERENCES, {"channel": "email"}, {"user_id", "notification_type", "enabled"}),
    "a list of preferences": (
        "POST",
        PREFERENCES,
        {
            "preferences": [
                {"user_id": "a", "notification_type": "x", "channel": "pigeon", "enabled": True},
                {"user_id": "a", "notification_type": "x", "channel": "owl", "enabled": False},
            ]
        },
        {"preferences.0.channel", "preferences.1.channel"},
    ),
    "contacts": (
        "POST",
        "/api/users/ada/contacts",
        {"email": "x", "phone": "y", "locale": 5},
        {"email", "phone", "locale"},
    ),
    "quiet hours": (
        "PUT",
        "/api/notifications/quiet-hours/ada",
        {"start": "25:00", "timezone": "X/Y", "days": ["mon", "mon"]},
        {"enabled", "start", "timezone", "days"},
    ),
    "a key": ("POST", KEYS, {"name": "a b", "scopes": ["all", "read"], "scope": 1}, {"name", "scopes.0", "scope"}),
    "body and query": (
        "POST",
        f"{SEND}?dry_run=maybe&colour=1",
        {"title": ""},
        {"user_id", "title", "message", "dry_run", "colour"},
    ),
    "a query": (
        "GET",
        "/api/activity?limit=0&user_id=%00&since=noon&until=1960-01-01T00:00:00Z&usr_id=x",
        {},
        {"limit", "user_id", "since", "until", "usr_id"},
    ),
    "a query's own rules": (
        "GET",
        f"/api/notifications/user/ada?channel=pigeon&until={PAST}&priority=x",
        {},
        {"channel", "until", "priority"},
    ),
    "given twice": ("GET", "/api/activity?user_id=a&user_id=b&limit=1&limit=2", {}, {"user_id", "limit"}),
    "a range that ends before it begins": (
        "GET",
        "/api/analytics/trend?from=2026-05-02&to=2026-05-01&tz=Mars/X&interval=week",
        {},
        {"from", "tz", "interval"},
    ),
    "an object that is none": (
        "POST",
        SCHEDULES,
        {"name": "", "notification": 5, "rule": {"days": ["mon"]}},
        {"name", "notification", "rule.at"},
    ),
    "dates": ("GET", "/api/analytics/trend?from=x&to=y&interval=week", {}, {"from", "to", "interval"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_refusal_names_every_wrong_field_at_once(server: ServerProcess, case: str) -> None:
    method, path, body, fields = CASES[case]
    errors = problem(server.api(method, path, body if method != "GET" else None), "validation_error")["errors"]
    assert {error["field"] for error in errors} == fields
    assert len(errors) == len(fields)


def test_each_row_of_a_batch_names_every_wrong_field(server: ServerProcess) -> None:
    app = App(server, "track")
    rows = [
        {"user_id": "", "activity_type": 5, "timestamp": LATE, "app": "other", "colour": 1},
        {},
        7,
        {"user_id": "a"},
    ]
    rejected = ok(app.api("POST", BATCH, {"activities": rows}))["rejected"]
    assert [{error["field"] for error in row["errors"]} for row in rejected] == [
        {"user_id", "activity_type", "timestamp", "app", "colour"},
        {"user_id", "activity_type"},
        {""},
        {"activity_type"},
    ]


@pytest.mark.parametrize(
    ("path", "body", "field", "known"),
    [
        (SEND, {"user_id": "a", "message": "m", "titel": "t"}, "titel", "title"),
        (SEND, {"userId": "a", "message": "m", "title": "t"}, "userId", "user_id"),
        (TRACK, {"user_id": "a", "activity_type": "x", "referer": "/"}, "referer", "referrer"),
        (TRACK, {"user_id": "a", "type": "x"}, "type", "activity_type"),
        (SEND, {"user_id": "a", "title": "t", "message": "m", "actions": [{"label": "x", "ulr": "y"}]},
         "actions.0.ulr", "url"),
    ],
)  # fmt: skip
def test_an_unknown_field_is_answered_with_the_nearest_known_one(
    server: ServerProcess, path: str, body: dict[str, Any], field: str, known: str
) -> None:
    errors = problem(server.api("POST", path, body), "validation_error")["errors"]
    (message,) = [error["message"] for error in errors if error["field"] == field]
    assert message.endswith(f"did you mean `{known}`?")


def test_an_unknown_field_like_no_other_is_answered_with_all_that_there_are(server: ServerProcess) -> None:
    (error,) = problem(server.api("POST", KEYS, {"name": "x", "scopes": ["read"], "colour": 1}), "validation_error")[
        "errors"
    ]
    assert "`name`, `scopes`" in error["message"]
    (error,) = problem(server.api("GET", "/api/health?verbose=1"), "validation_error")["errors"]
    assert (error["field"], "there is none" in error["message"]) == ("verbose", True)


def test_a_word_that_is_none_of_a_few_is_answered_with_the_few(server: ServerProcess) -> None:
    (error,) = problem(server.api("GET", "/api/notifications/user/ada?priority=asap"), "validation_error")["errors"]
    assert error["message"].endswith("there are low, normal, high, urgent")
    body = {"enabled": True, "days": ["monday"]}
    (error,) = problem(server.api("PUT", "/api/notifications/quiet-hours/ada", body), "validation_error")["errors"]
    assert (error["field"], "mon, tue, wed" in error["message"]) == ("days.0", True)


def test_the_length_of_a_refusal_is_bounded(server: ServerProcess) -> None:
    body = {f"{n}{'x' * 200}": n for n in range(3000)}
    answer = server.api("POST", TRACK, body)
    assert len(problem(answer, "validation_error")["errors"]) == 100
    assert len(answer.content) < 60_000
    rejected = ok(server.api("POST", BATCH, {"activities": [body]}))["rejected"]
    assert len(rejected[0]["errors"]) == 12


def test_the_services_name_every_wrong_argument_too(tmp_path: Path) -> None:
    with UserActivityService(tmp_path / "a.db") as service, pytest.raises(ValidationError) as refusal:
        service.track_activity("", "*", app="a b")
    assert {error.field for error in refusal.value.errors} == {"user_id", "activity_type", "app"}
    with NotificationService(tmp_path / "n.db") as other, pytest.raises(ValidationError) as refusal:
        other.send_notification("x" * 256, "", "m", priority="asap")
    assert {error.field for error in refusal.value.errors} >= {"user_id", "priority"}


@pytest.mark.parametrize(
    ("name", "kind", "known"),
    [
        ("User-ID", ActivityIn, "user_id"), ("usr_id", ActivityIn, "user_id"), ("url", ActivityIn, "page_url"),
        ("meta", ActivityIn, "metadata"), ("mesage", SendIn, "message"), ("deviceToken", SendIn, "device_tokens"),
        ("x", SendIn, None), ("", SendIn, None), ("x" * 1_000_000, SendIn, None),
    ],
)  # fmt: skip
def test_the_nearest_name_is_found_over_case_separators_typos_and_words(
    name: str, kind: Any, known: str | None
) -> None:
    assert nearest(name, kind.__struct_fields__) == known
