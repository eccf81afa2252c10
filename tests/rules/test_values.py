"""Rules meet values of any kind: a long or odd one is told all the same, any key can be named, no error is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.api_client import RULES, TEMPLATES, App, fresh, ok, problem, track
from tests.support.server_process import ServerProcess, eventually, serving

LONG = "https://shop.example/" + "x" * 1_900
KEY = "k" * 55
TITLE_LIMIT, MESSAGE_LIMIT = 300, 10_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("values")) as running:
        yield running
        assert "Traceback" not in running.log


@pytest.fixture
def app(server: ServerProcess) -> App:
    return App(server, "manage", "send", "track", "read")


def make(app: App, send: dict[str, Any], *where: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A rule over a type of its own."""
    on = {"activity_type": fresh("kind"), "where": list(where)}
    body = {"name": fresh("rule"), "on": on, "send": send, "cooldown_minutes": 0} | more
    made: dict[str, Any] = ok(app.api("POST", RULES, body), 201)["rule"]
    return made


def now(app: App, made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = ok(app.api("GET", f"{RULES}/{made['name']}"))["rule"]
    return found


def told(app: App, made: dict[str, Any], **activity: Any) -> dict[str, Any]:
    """The notification that comes of one activity."""
    user = fresh()
    track(app, user, made["on"]["activity_type"], **activity)
    eventually(lambda: now(app, made)["fired"] or now(app, made)["last_error"])
    assert now(app, made)["last_error"] is None
    (row,) = ok(app.api("GET", f"/api/notifications/user/{user}"))["notifications"]
    assert 0 < len(row["title"].strip()) <= len(row["title"]) <= TITLE_LIMIT
    assert 0 < len(row["message"].strip()) <= len(row["message"]) <= MESSAGE_LIMIT
    assert not set(row["title"] + row["message"]) & set(map(chr, range(9)))
    found: dict[str, Any] = row
    return found


ODD = [
    pytest.param({"page_url": LONG}, "Failed: {page_url} (pro)", "https://shop", id="a long URL"),
    pytest.param({"metadata": {"error": "z" * 60_000}}, "Failed: {metadata_error} (pro)", "zzz", id="a long text"),
    pytest.param({"metadata": {"error": "no\0thing"}}, "Failed: {metadata_error} (pro)", "no thing", id="NUL"),
    pytest.param({"metadata": {"error": "a\x1b[m\x7f\x85b"}}, "Failed: {metadata_error} (pro)", "[m b", id="controls"),
    pytest.param({"metadata": {"error": "a\r\nb"}}, "Failed: {metadata_error} (pro)", "a b", id="lines"),
    pytest.param({"metadata": {"error": ""}}, "{metadata_error}", "", id="nothing at all"),
    pytest.param({"metadata": {"error": " \0\n "}}, "{metadata_error}", "", id="nothing to see"),
    pytest.param({"metadata": {"error": 10**290}}, "Failed: {metadata_error} (pro)", "1000", id="a long number"),
    pytest.param(
        {"metadata": {f"k{number}": number for number in range(900)} | {"error": "last"}},
        "Failed: {metadata_error} (pro)", "last", id="many keys",
    ),
    pytest.param({"metadata": {KEY: "here"}}, f"Failed: {{metadata_{KEY}}} (pro)", "here", id="a long key"),
    pytest.param({"metadata": {"http.code-1": 503}}, "Failed: {metadata_http_code_1} (pro)", "503", id="dots"),
]  # fmt: skip


@pytest.mark.parametrize("by_template", [False, True], ids=["own texts", "a template"])
@pytest.mark.parametrize(("activity", "text", "shown"), ODD)
def test_a_long_or_odd_value_is_cut_and_cleaned_and_told(
    app: App, activity: dict[str, Any], text: str, shown: str, by_template: bool
) -> None:
    send: dict[str, Any] = {"title": text, "message": text}
    if by_template:
        send = {"template": fresh("template")}
        body = {"name": send["template"], "title_template": text, "message_template": text}
        ok(app.api("POST", TEMPLATES, body), 201)
    made = make(app, send)
    row = told(app, made, **activity)
    if not shown:
        assert row["title"] == row["message"] == made["name"]
        return
    for name in ("title", "message"):
        assert row[name].startswith("Failed: ")
        assert row[name].endswith(" (pro)"), "the rule's own words stay whole"
        assert shown in row[name].replace("\r\n", " ")


def test_data_that_an_activity_would_make_too_large_is_left_out(app: App) -> None:
    """32 MiB are the most for all recipients together."""
    users = [fresh() for _ in range(100)]
    own = {"note": "n" * 325_000}
    made = make(app, {"title": "t", "message": "m", "data": own}, to=users)
    track(app, fresh(), made["on"]["activity_type"], metadata={"a": "y" * 15_000})
    eventually(lambda: now(app, made)["fired"])
    (row,) = ok(app.api("GET", f"/api/notifications/user/{users[7]}"))["notifications"]
    assert row["data"]["note"] == own["note"]
    assert "metadata" not in row["data"]


def test_an_error_stays_after_a_success_until_it_is_dismissed(app: App) -> None:
    made, user = make(app, {"title": "t", "message": "{metadata_plan}"}), fresh()
    kind = made["on"]["activity_type"]
    assert (made["last_error"], made["last_error_at"]) == (None, None)
    track(app, user, kind)
    failed = eventually(lambda: (found := now(app, made))["last_error"] and found)
    track(app, user, kind, metadata={"plan": "pro"})
    after = eventually(lambda: (found := now(app, made))["fired"] and found)
    assert after["last_error"] == failed["last_error"] == "data.metadata_plan is missing"
    assert after["last_error_at"] == failed["last_error_at"] is not None
    path = f"{RULES}/{made['name']}/dismiss-error"
    problem(App(app._server, "read", "track", "send").api("POST", path), "forbidden")
    problem(App(app._server, "manage").api("POST", path), "not_found")
    seen = ok(app.api("POST", path))["rule"]
    assert seen == after | {"last_error": None, "last_error_at": None}
    assert now(app, made) == ok(app.api("POST", path))["rule"] == seen


def test_of_several_tries_in_one_transaction_the_error_is_kept(app: App) -> None:
    made, user = make(app, {"title": "t", "message": "{metadata_plan}"}), fresh()
    kind = made["on"]["activity_type"]
    rows = [{"user_id": user, "activity_type": kind, "metadata": data} for data in ({"plan": 1}, {}, {"plan": 2})]
    ok(app.api("POST", "/api/activity/batch", {"activities": rows}))
    found = eventually(lambda: (rule := now(app, made))["fired"] == 2 and rule)
    assert found["last_error"] == "data.metadata_plan is missing"


# --- keys -------------------------------------------------------------------------------------------------------------

HTTP = {"http.status_code": 503}


@pytest.mark.parametrize(
    ("field", "metadata", "found"),
    [
        ("metadata.http.status_code", HTTP, True),
        ('metadata."http.status_code"', HTTP, True),
        ("metadata.http.status_code", {"http": {"status_code": 503}}, True),
        ('metadata."http.status_code"', {"http": {"status_code": 503}}, False),
        ('metadata."http"."status_code"', HTTP, False),
        ("metadata.http.status_code", {"http.status_code": 503, "http": {"status_code": 1}}, True),
        ("metadata.http.status_code", {"http.status_code": 1, "http": {"status_code": 503}}, False),
        ('metadata."http"."status_code"', {"http.status_code": 1, "http": {"status_code": 503}}, True),
        ("metadata.http.status_code", {"http.status_code": None, "http": {"status_code": 503}}, True),
        ("metadata.net.http.code", {"net": {"http.code": 503}}, True),
        ("metadata.net.http.code", {"net.http": {"code": 503}}, True),
        ('metadata.net."http.code"', {"net": {"http.code": 503}}, True),
        ('metadata."a\\"b"', {'a"b': 503}, True),
        ('metadata."line\\nbreak\\u0001"', {"line\nbreak\u0001": 503}, True),
        ('metadata.""', {"": 503}, True),
        ('metadata."in quotes"', {'"in quotes"': 503}, True),
        ('metadata.say "a.b"', {'say "a': {'b"': 503}}, True),
        ("metadata.a.b.c.d.e.f.g.h", {"a.b.c": {"d.e": {"f.g.h": 503}}}, True),
    ],
)  # fmt: skip
def test_a_condition_finds_a_key_whatever_characters_it_has(
    app: App, field: str, metadata: dict[str, Any], found: bool
) -> None:
    made = make(app, {"title": "t", "message": "m"}, {"field": field, "op": "eq", "value": 503})
    user, kind = fresh(), made["on"]["activity_type"]
    track(app, user, kind, metadata=metadata)
    tried = ok(app.api("POST", f"{RULES}/{made['name']}/dry-run"))
    assert tried["would_have_fired"] == found
    if found:
        eventually(lambda: now(app, made)["fired"] == 1)


@pytest.mark.parametrize("field", ["metadata.", 'metadata."a".', 'metadata."\\ud800".x."', "metadata.a..b", "metadata"])
def test_a_field_that_names_no_key_is_refused_or_harmless(app: App, field: str) -> None:
    on = {"activity_type": fresh("kind"), "where": [{"field": field, "op": "eq", "value": 1}]}
    answer = app.api("POST", f"{RULES}/dry-run", {"on": on})
    assert answer.status_code in {200, 400}, answer.text
