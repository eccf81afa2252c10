"""An erased user's id goes out of rules too, and what may still name them is said."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_client import RULES, SCHEDULES, TEMPLATES, fresh, ok, problem, send, track
from tests.support.server_process import ServerProcess, eventually, serving

SEND = {"title": "Oh", "message": "Something happened."}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("erasing-rules")) as running:
        yield running
        assert "Traceback" not in running.log


def make(server: ServerProcess, *where: dict[str, Any], **more: Any) -> str:
    body = {"name": fresh("rule"), "on": {"activity_type": "x", "where": list(where)}, "send": SEND} | more
    return str(ok(server.api("POST", RULES, body), 201)["rule"]["name"])


def rule(server: ServerProcess, name: str) -> dict[str, Any] | None:
    answer = server.api("GET", f"{RULES}/{name}")
    if answer.status_code == 404:
        return None
    found: dict[str, Any] = ok(answer)["rule"]
    return found


def erase(server: ServerProcess, user: str) -> dict[str, Any]:
    return ok(server.api("DELETE", f"/api/users/{user}"))


def about(op: str, value: Any) -> dict[str, Any]:
    return {"field": "user_id", "op": op, "value": value}


@pytest.fixture
def ada(server: ServerProcess) -> str:
    user = fresh("ada")
    track(server, user)
    return user


def test_an_erased_user_is_taken_out_of_every_rule_and_rules_for_them_alone_end(
    server: ServerProcess, ada: str
) -> None:
    shared = make(server, to=[ada, "bob"])
    watched = make(server, about("in", [ada, "bob"]), about("ne", ada))
    others = make(server, about("eq", "bob"), to=["bob"])
    for_her, about_her, only_her = (
        make(server, to=[ada]),
        make(server, about("eq", ada)),
        make(server, about("in", [ada])),
    )
    alert = {"metric": "active_users", "change_percent": -50}
    body = {"name": fresh("rule"), "alert": alert, "send": SEND, "to": ["bob", ada]}
    alarm = ok(server.api("POST", RULES, body), 201)["rule"]["name"]
    before = rule(server, others)

    erased = erase(server, ada)

    assert (erased["removed"]["rules"], erased["remains"]) == (3, [])
    for name in (for_her, about_her, only_her):
        assert rule(server, name) is None
    for name in (shared, alarm):
        found = rule(server, name)
        assert found is not None
        assert found["to"] == ["bob"]
    found = rule(server, watched)
    assert found is not None
    assert found["on"]["where"] == [about("in", ["bob"])]
    assert rule(server, others) == before
    for path in sorted(server.data_dir.glob("*.db*")):
        assert ada.encode() not in path.read_bytes(), path.name


def test_the_rule_goes_on_for_the_others(server: ServerProcess, ada: str) -> None:
    bob, kind = fresh("bob"), fresh("kind")
    make(server, to=[ada, bob], on={"activity_type": kind})
    erase(server, ada)
    track(server, "carol", kind)
    rows = eventually(lambda: ok(server.api("GET", f"/api/notifications/user/{bob}"))["notifications"])
    assert [row["title"] for row in rows] == ["Oh"]
    problem(server.api("POST", "/api/notifications/send", {"user_id": ada, "title": "t", "message": "m"}), "erased")


def test_an_error_that_names_the_user_goes_with_them(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        track(server, "ada-lovelace")
        name = make(server)
        with_error = "UPDATE rules SET last_error = 'The user ''ada-lovelace'' was erased.', last_error_at = 1"
    change(tmp_path / "notifications.db", with_error)
    with serving(tmp_path) as server:
        found = rule(server, name)
        assert found is not None
        assert "ada-lovelace" in found["last_error"]
        assert erase(server, "ada-lovelace")["remains"] == []
        found = rule(server, name)
        assert found is not None
        assert found["last_error"] is None


def change(path: Path, statement: str) -> None:
    """Change a file that no server has open."""
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute(statement)


def test_texts_that_others_keep_are_named_in_what_remains(server: ServerProcess, ada: str) -> None:
    bob, template, schedule = fresh("bob"), fresh("template"), fresh("schedule")
    saying = make(server, send=SEND | {"message": f"Ask {ada}."})
    valued = make(server, {"field": "metadata.owner", "op": "eq", "value": ada})
    make(server, send=SEND | {"message": f"Ask {ada}x."})
    text = {"name": template, "title_template": "t", "message_template": f"From {ada}"}
    ok(server.api("POST", TEMPLATES, text), 201)
    asked = {"user_id": bob, "title": "t", "message": "m", "data": {"deep": [{"who": ada}]}}
    body = {"name": schedule, "rule": {"every_minutes": 60}, "notification": asked}
    ok(server.api("POST", SCHEDULES, body), 201)
    send(server, bob, data={"user_id": ada})
    send(server, bob, title=f"{ada} follows you")
    send(server, bob, title=f"{ada}x follows you")
    remains = erase(server, ada)["remains"]
    named = {f"the rule “{name}”" for name in (saying, valued)}
    named |= {f"the schedule “{schedule}”", f"the template “{template}”", "2 notifications of other users"}
    assert set(remains) == named


@pytest.mark.parametrize("place", ["to", "where"])
def test_a_user_that_only_a_rule_knows_is_known_and_one_erased_before_is_swept(tmp_path: Path, place: str) -> None:
    with serving(tmp_path) as server:
        conditions = [about("in", ["ada-lovelace", "bob"])] if place == "where" else []
        more = {"to": ["ada-lovelace", "bob"]} if place == "to" else {}
        problem(server.api("DELETE", "/api/users/ada-lovelace"), "not_found")
        name = make(server, *conditions, **more)
        assert erase(server, "ada-lovelace")["removed"]["rules"] == 0
        found = rule(server, name)
        assert found is not None
        # As an older version left it: erased, and still in a rule.
        body = {"on": found["on"], "send": SEND, "to": ["ada-lovelace", "bob"]}
        ok(server.api("PUT", f"{RULES}/{name}", body))
        assert erase(server, "ada-lovelace")["swept"]
        for path in sorted(server.data_dir.glob("*.db*")):
            assert b"ada-lovelace" not in path.read_bytes(), path.name
