"""Erasing a person: from both files, from what the disk still holds, for good, whatever ends the process meanwhile."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from flashflow.backend import (
    Backend,
    Config,
    ContactsIn,
    DigestIn,
    Event,
    Filters,
    FlashFlowError,
    NotificationService,
    QuietHoursIn,
    SendIn,
    UserActivityService,
    given,
)
from flashflow.backend.core.errors import Erased
from flashflow.backend.store.activity.session_table import SESSION_REVISIONS
from flashflow.backend.store.engine.backup import back_up
from flashflow.backend.store.engine.schema import create
from flashflow.backend.store.engine.writer import Write
from flashflow.backend.store.files import ACTIVITY_SCHEMA
from flashflow.backend.store.notifications.notifications import NOTIFICATION_REVISIONS
from flashflow.backend.store.privacy import tombstones
from tests.support.api_client import BATCH, SCHEDULES, SEND, START, TRACK, fresh, ok, problem, rows_in, send
from tests.support.fixed_clock import StillClock
from tests.support.server_process import ServerProcess, eventually, serving

VICTIM = "victim-7f3a@example.org"
MARK = "only-the-victim-says-this"
FILES = ("user_activities.db", "notifications.db")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("erasing")) as running:
        yield running


def config(tmp_path: Path, me: str = "ada") -> Config:
    return Config(data_dir=tmp_path / "data", port=0, me=me)


def live(backend: Backend, user: str, mark: str = MARK) -> None:
    """Leave something of ``user`` wherever something can be left."""
    activity, told = backend.activity, backend.notifications
    for number in range(60):
        activity.track_activity(user, f"t{number}", page_url=f"/{mark}/{number}", metadata={mark: mark * 3})
    activity.start_session(user, {mark: mark}, session_id=f"session-{mark}")
    activity.end_session(f"session-{mark}")
    activity.store.run(activity.admission.consent_write(user, True))
    for number in range(5):
        told.send_notification(user, f"{mark} {number}", mark, channels=["in_app", "push"], data={mark: mark})
    told.update_notification_preference(user, "general", "push", False)
    told.register_device_token(user, f"token-{mark}-{user}", "android", {mark: mark})
    told.schedules.create(
        f"alone {user}", {"user_id": user, "title": mark, "message": mark}, {"every_minutes": 60}, "local"
    )
    text = {"title": mark, "message": mark}
    backend.rules.create(f"rule-{mark}", on={"activity_type": "never"}, send=text, to=[user])
    circumstances = told.delivery_settings
    told.store.run(circumstances.contact_write(user, given(ContactsIn, email=f"{mark}@example.org")))
    told.store.run(circumstances.quiet_hours_write(user, given(QuietHoursIn, enabled=True)))
    told.store.run(circumstances.digest_write(user, given(DigestIn, notification_type="general", frequency="daily")))


def traces(folder: Path, *marks: str) -> dict[str, int]:
    """Every file under ``folder`` that holds one of ``marks``, and how often."""
    found = {}
    for path in folder.rglob("*"):
        content = b""
        with suppress(FileNotFoundError):  # the daily backup has a thread of its own: its half-made files come and go
            content = path.read_bytes() if path.is_file() else b""
        if count := sum(content.count(mark.encode()) for mark in marks):
            found[path.name] = count
    return found


def everything(data: Path) -> dict[str, list[Any]]:
    """All rows of all tables but those that erasing itself keeps."""
    found = {}
    for name in FILES:
        for (table,) in rows_in(data / name, "SELECT name FROM sqlite_master WHERE type = 'table'"):
            if table not in {"tombstones", "tombstone_salt", "highest_revision", "rollup_state", "rule_mark"}:
                found[f"{name}:{table}"] = sorted(rows_in(data / name, f"SELECT * FROM {table}"), key=repr)
    return found


# --- what goes --------------------------------------------------------------------------------------------------------


def test_nothing_of_the_person_is_left_in_the_folder_and_everyone_else_stays(tmp_path: Path) -> None:
    with Backend(config(tmp_path)) as backend:
        live(backend, "bob", "said-by-bob")
        backend.activity.settle_metrics()
        backend.activity.rollups.aggregate_pending()
        before = everything(backend.data_dir)
        live(backend, VICTIM)
        backend.activity.settle_metrics()
        for name in FILES:
            back_up(backend.data_dir / name, backend.clock, "daily")
        assert {name.split(".")[0] for name in traces(backend.data_dir, VICTIM, MARK)} == {
            "user_activities", "notifications"
        }  # fmt: skip
        erased = backend.erasing.erase(VICTIM)
        assert traces(backend.data_dir, VICTIM, MARK) == {}
        after = everything(backend.data_dir)
        assert erased.swept
    assert after.keys() == before.keys()
    for table, rows in before.items():
        if not table.endswith(("sqlite_sequence", ":notification_types")):
            assert after[table] == rows, table
    assert erased.removed == {
        "activities": 60, "sessions": 2, "consents": 1, "notifications": 5, "deliveries": 10, "attempts": 0,
        "preferences": 1, "contacts": 1, "quiet_hours": 1, "digests": 1, "throttles": 0, "devices": 1, "schedules": 1,
        "rules": 1,
    }  # fmt: skip
    assert erased.backups_removed == 2
    assert len(list((tmp_path / "data" / "backups").glob("*.after-erasure.db"))) == 2


def test_a_persons_export_has_all_that_erasing_them_then_removes(tmp_path: Path) -> None:
    with Backend(config(tmp_path)) as backend:
        live(backend, "bob", "said-by-bob")
        live(backend, VICTIM)
        text = b"".join(backend.exports.user(VICTIM))
        removed = backend.erasing.erase(VICTIM).removed
        nothing = json.loads(b"".join(backend.exports.user(VICTIM)))
    assert b"said-by-bob" not in text
    found = json.loads(text)
    deliveries = [delivery for told in found["notifications"] for delivery in told["deliveries"]]
    counts = {name: len(found[name]) for name in ("activities", "sessions", "notifications", "preferences", "digests",
                                                  "devices", "schedules")}  # fmt: skip
    counts |= {"deliveries": len(deliveries), "attempts": sum(len(one["attempts"]) for one in deliveries)}
    assert counts == {name: removed[name] for name in counts}
    assert found["contacts"]["email"] == f"{MARK}@example.org"
    assert (found["quiet_hours"]["enabled"], found["consent"]["tracking"]) == (True, True)
    assert found["figures"]["total_activities"] == 60
    assert nothing["activities"] == nothing["notifications"] == nothing["devices"] == []
    assert nothing["contacts"] is None


def test_what_an_sqlite_without_secure_delete_left_in_the_pages_goes_too(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    chance = random.Random(7)
    with closing(sqlite3.connect(data / FILES[0], isolation_level=None)) as conn:
        conn.execute("PRAGMA secure_delete = OFF")
        conn.execute("BEGIN")
        create(conn, ACTIVITY_SCHEMA)
        conn.execute(f"PRAGMA user_version = {ACTIVITY_SCHEMA.version}")
        for number in range(40_000):
            user = VICTIM if number % 10 == 0 else f"user-{chance.randrange(500)}"
            at = chance.randrange(10**12)
            conn.execute(
                "INSERT INTO user_activities (id, user_id, activity_type, session_id, app, timestamp, received_at, "
                "metadata) VALUES (?, ?, 't', ?, 'app', ?, 1, ?)",
                (chance.randbytes(16), user, user, at, json.dumps({"x": "y" * chance.randrange(300)})),
            )
        conn.execute("COMMIT")
    with Backend(config(tmp_path)) as backend:
        assert backend.erasing.erase(VICTIM).removed["activities"] == 4_000
        assert traces(data, VICTIM) == {}


def test_a_session_that_two_people_share_stays_with_the_other_one(tmp_path: Path) -> None:
    with Backend(config(tmp_path)) as backend:
        service = backend.activity
        service.track_activity("bob", "before", session_id="shared")
        service.track_activity(VICTIM, "after login", session_id="shared")
        backend.erasing.erase(VICTIM)
        (session,) = service.get_user_sessions("bob").sessions
        assert session.activities == 1
        service.track_activity("bob", "goes on", session_id="shared")
        assert service.get_user_sessions("bob").sessions[0].activities == 2


@pytest.mark.parametrize("is_over", [True, False])
def test_a_shared_session_knows_nothing_of_the_pages_of_who_is_erased(tmp_path: Path, is_over: bool) -> None:
    with Backend(config(tmp_path)) as backend:
        service = backend.activity
        service.rollups.mark_key_activity("buy")
        for user, kind, page in (("bob", "look", "/"), (VICTIM, "buy", "/secret"), (VICTIM, "look", "/other")):
            service.track_activity(user, kind, session_id="shared", page_url=page)
        if is_over:
            service.end_session("shared")
        backend.erasing.erase(VICTIM)
        (session,) = service.get_user_sessions("bob").sessions
        assert (session.activities, session.pages_visited) == (1, 1)
        assert (
            service.store.read(lambda conn: conn.execute("SELECT key_activities FROM user_sessions").fetchone()[0]) == 0
        )
        assert service.rollups.verify() == ()
        service.track_activity("bob", "look", session_id="shared", page_url="/more")
        assert service.get_user_sessions("bob").sessions[0].pages_visited == 2
        assert service.rollups.verify() == ()


def test_whoever_is_left_in_a_shared_session_keeps_it_without_its_owner(tmp_path: Path) -> None:
    with Backend(config(tmp_path)) as backend:
        service, now = backend.activity, datetime.now(UTC)
        service.rollups.mark_key_activity("buy")
        service.start_session(VICTIM, {"device": MARK}, "shared", "10.1.2.3", "agent")
        for user, minutes, kind in ((VICTIM, 50, "buy"), ("bob", 45, "look"), ("cy", 40, "look"), ("bob", 35, "look")):
            service.track_activity(user, kind, session_id="shared", timestamp=now - timedelta(minutes=minutes))
        service.end_session("shared")
        backend.erasing.erase(VICTIM)
        (session,) = service.get_user_sessions("bob").sessions
        assert (session.id, session.activities, session.duration, session.device_info) == ("shared", 3, 600.0, {})
        assert (session.ip_address, session.user_agent) == (None, None)
        assert len(service.list_activities(session_id="shared").activities) == 3
        assert service.get_user_analytics("bob").total_sessions == 1
        figures = service.analytics.overview(Filters()).figures
        assert (figures["sessions"].value, figures["avg_session_duration"].value) == (1, 600.0)
        assert service.rollups.verify() == ()
        backend.erasing.erase("bob")
        backend.erasing.erase("cy")
        assert service.analytics.overview(Filters()).figures["sessions"].value == 0
        assert service.rollups.verify() == ()


@pytest.mark.parametrize("is_over", [True, False])
def test_a_shared_session_reaches_no_further_than_what_is_left_of_it(tmp_path: Path, is_over: bool) -> None:
    with Backend(config(tmp_path)) as backend:
        service, now = backend.activity, datetime.now(UTC) - timedelta(hours=3 if is_over else 0)
        for user, minutes in (("bob", 20), (VICTIM, 29), ("bob", 10), (VICTIM, 0)):
            service.track_activity(user, "x", session_id="shared", timestamp=now - timedelta(minutes=minutes))
        if is_over:
            service.close_idle_sessions()
        backend.erasing.erase(VICTIM)
        (session,) = service.get_user_sessions("bob").sessions
        assert (session.activities, session.duration) == (2, 600.0)
        assert (session.end_time is not None) == is_over
        assert service.rollups.verify() == ()


def test_a_schedule_for_several_goes_on_without_the_person(tmp_path: Path) -> None:
    with Backend(config(tmp_path)) as backend:
        schedules = backend.notifications.schedules
        several = {"user_ids": [VICTIM, "bob"], "title": "t", "message": "m"}
        schedules.create("several", several, {"every_minutes": 60}, "local")
        backend.erasing.erase(VICTIM)
        (left,) = schedules.page().schedules
        assert left.notification["user_ids"] == ["bob"]


def test_the_tokens_of_the_persons_devices_go_from_what_others_were_sent(tmp_path: Path) -> None:
    with Backend(config(tmp_path)) as backend:
        told = backend.notifications
        token, other = f"token-{MARK}", "token-of-bobs-own-device"
        told.register_device_token(VICTIM, token, "ios")
        told.register_device_token("bob", other, "ios")
        several = {"user_ids": [VICTIM, "bob"], "title": "t", "message": "m", "device_tokens": [token, other]}
        told.store.run(told.send_write(SendIn(**several), "local"))
        told.schedules.create("several", several, {"every_minutes": 60}, "local")
        told.schedules.create("bob's", several | {"user_ids": ["bob"]}, {"every_minutes": 60}, "local")
        backend.erasing.erase(VICTIM)
        assert traces(backend.data_dir, VICTIM, MARK) == {}
        assert traces(backend.data_dir, other)
        assert {tuple(s.notification["device_tokens"]) for s in told.schedules.page().schedules} == {(other,)}


def test_files_that_were_set_aside_are_named_since_they_are_never_touched(tmp_path: Path) -> None:
    with Backend(config(tmp_path)) as backend:
        (backend.data_dir / "user_activities.db.damaged-20260101T000000000Z").write_bytes(b"old")
        assert backend.erasing.erase(VICTIM, even_if_unknown=True).remains == (
            "user_activities.db.damaged-20260101T000000000Z",
        )


# --- the tombstone ----------------------------------------------------------------------------------------------------


def writes(user: str) -> list[tuple[str, str, Any]]:
    """Every request that would bring ``user`` back."""
    return [
        ("POST", TRACK, {"user_id": user, "activity_type": "late"}),
        ("POST", START, {"user_id": user}),
        ("POST", SEND, {"user_id": user, "title": "t", "message": "m"}),
        ("POST", f"{SEND}?dry_run=true", {"user_id": user, "title": "t", "message": "m"}),
        ("POST", SEND, {"user_ids": [user], "title": "t", "message": "m"}),
        ("POST", "/api/notifications/preferences",
         {"user_id": user, "notification_type": "*", "channel": "*", "enabled": True}),
        ("POST", "/api/devices/register", {"user_id": user, "token": f"t-{user}", "platform": "ios"}),
        ("POST", f"/api/users/{user}/contacts", {"email": "a@example.org"}),
        ("POST", f"/api/users/{user}/consent", {"tracking": True}),
        ("PUT", f"/api/notifications/quiet-hours/{user}", {"enabled": True}),
        ("POST", f"/api/notifications/do-not-disturb/{user}", {"minutes": 5}),
        ("PUT", f"/api/notifications/digest/{user}", {"notification_type": "*", "frequency": "daily"}),
        ("POST", SCHEDULES, {"name": user, "notification": {"user_ids": ["bob", user], "title": "t", "message": "m"},
                             "rule": {"every_minutes": 5}}),
    ]  # fmt: skip


def test_nothing_brings_an_erased_person_back_until_they_are_readmitted(server: ServerProcess) -> None:
    user = fresh("gone")
    session = ok(server.api("POST", START, {"user_id": user}), 201)["session_id"]
    ok(server.api("DELETE", f"/api/users/{user}"))
    for method, path, body in writes(user):
        problem(server.api(method, path, body), "erased")
    problem(server.api("POST", f"/api/session/heartbeat/{session}"), "not_found")
    assert json.loads(server.api("GET", f"/api/users/{user}/export").text)["activities"] == []
    for name in FILES:
        for (table,) in rows_in(server.data_dir / name, "SELECT name FROM sqlite_master WHERE type = 'table'"):
            assert user not in repr(rows_in(server.data_dir / name, f"SELECT * FROM {table}")), table
    assert ok(server.api("POST", f"/api/users/{user}/readmit"))["readmitted"] is True
    assert ok(server.api("POST", f"/api/users/{user}/readmit"))["readmitted"] is False
    for method, path, body in writes(user):
        assert server.api(method, path, body).status_code in {200, 201}, path


def test_in_a_batch_the_erased_persons_rows_are_named_and_the_rest_lands(server: ServerProcess) -> None:
    user, other = fresh("gone"), fresh()
    ok(server.api("DELETE", f"/api/users/{user}?even_if_unknown=true"))
    rows = [{"user_id": who, "activity_type": "t"} for who in (other, user, other, user)]
    body = ok(server.api("POST", BATCH, {"activities": rows}))
    assert (body["accepted"], [row["index"] for row in body["rejected"]]) == (2, [1, 3])
    assert {error["field"] for row in body["rejected"] for error in row["errors"]} == {"user_id"}


def test_a_notice_for_several_reaches_the_others_and_says_who_was_left_out(server: ServerProcess) -> None:
    user, other = fresh("gone"), fresh()
    ok(server.api("DELETE", f"/api/users/{user}?even_if_unknown=true"))
    body = ok(server.api("POST", SEND, {"user_ids": [user, other], "title": "t", "message": "m"}), 201)
    assert [sent["user_id"] for sent in body["notifications"]] == [other]
    assert body["refused"] == [{"user_id": user, "code": "erased"}]


def test_a_late_retry_under_its_idempotency_key_is_refused_too(server: ServerProcess) -> None:
    user, key = fresh("gone"), {"Idempotency-Key": fresh("key")}
    request = {"user_id": user, "title": "t", "message": "m"}
    ok(server.api("POST", SEND, request, headers=key), 201)
    ok(server.api("DELETE", f"/api/users/{user}"))
    problem(server.api("POST", SEND, request, headers=key), "erased")


def test_erasing_again_answers_zeros_and_keeps_the_first_time(server: ServerProcess) -> None:
    user = fresh("gone")
    send(server, user)
    first = ok(server.api("DELETE", f"/api/users/{user}"))
    again = ok(server.api("DELETE", f"/api/users/{user}"))
    assert first["removed"]["notifications"] == 1
    assert set(again["removed"].values()) == {0}
    assert again["erased_at"] == first["erased_at"]
    assert again["backups_removed"] == 0


def test_whoever_shows_the_person_is_told_once_the_rows_are_gone(tmp_path: Path) -> None:
    with Backend(config(tmp_path)) as backend:
        backend.activity.track_activity(VICTIM, "t")
        left: list[int] = []

        def hear(events: tuple[Event, ...]) -> None:
            if any(event.kind == "erasure" for event in events):
                left.append(len(backend.activity.list_activities(user_id=VICTIM).activities))

        backend.bus.subscribe(hear)
        backend.erasing.erase(VICTIM)
        assert left == [0]


def test_two_files_have_two_salts_and_no_name(tmp_path: Path) -> None:
    with Backend(config(tmp_path)) as backend:
        backend.erasing.erase(VICTIM, even_if_unknown=True)
        stones = [rows_in(backend.data_dir / name, "SELECT * FROM tombstones") for name in FILES]
    assert [len(rows) for rows in stones] == [1, 1]
    assert stones[0][0][0] != stones[1][0][0]
    assert all(row[2:] == (None, None) for rows in stones for row in rows)


def test_services_alone_obey_the_tombstones_of_their_files(tmp_path: Path) -> None:
    with Backend(config(tmp_path)) as backend:
        backend.erasing.erase(VICTIM, even_if_unknown=True)
    with (
        UserActivityService(tmp_path / "data" / FILES[0]) as activity,
        NotificationService(tmp_path / "data" / FILES[1]) as told,
    ):
        with pytest.raises(Erased):
            activity.track_activity(VICTIM, "late")
        with pytest.raises(Erased):
            told.send_notification(VICTIM, "late", "late")


def test_whoever_erased_themselves_still_opens_the_app(tmp_path: Path) -> None:
    mine = config(tmp_path, me=VICTIM)
    with Backend(mine) as backend:
        backend.start(api=False)
        backend.erasing.erase(VICTIM, even_if_unknown=True)
    with Backend(mine) as backend:
        backend.start(api=False)
        assert backend.notifications.get_user_notifications(VICTIM).notifications == ()


# --- numbers that only grow -------------------------------------------------------------------------------------------


def test_a_stream_misses_nothing_of_what_comes_after_the_newest_rows_were_erased(tmp_path: Path) -> None:
    with Backend(config(tmp_path)) as backend:

        def places() -> tuple[int, int]:
            return (
                backend.activity.store.read(SESSION_REVISIONS.last),
                backend.notifications.store.read(NOTIFICATION_REVISIONS.last),
            )

        backend.activity.track_activity("bob", "t")
        backend.notifications.send_notification("bob", "t", "m")
        for _ in range(3):
            backend.activity.start_session(VICTIM)
            backend.notifications.send_notification(VICTIM, "t", "m")
        before = places()
        backend.erasing.erase(VICTIM)
        assert places() == before
        backend.activity.start_session("bob", session_id="new")
        backend.notifications.send_notification("bob", "t", "m")
        assert places() == (before[0] + 1, before[1] + 1)


# --- whatever ends the process ----------------------------------------------------------------------------------------


def test_an_erasure_that_stopped_between_the_two_files_is_finished_at_the_next_start(tmp_path: Path) -> None:
    with Backend(config(tmp_path)) as backend:
        live(backend, VICTIM)
        backend.activity.store.run(
            Write(lambda tx, items: [tombstones.add_tombstone(tx, VICTIM, tombstones.ROWS)], None)
        )
    with Backend(config(tmp_path)) as backend:
        backend.start(api=False)
        assert backend.activity.store.read(tombstones.unfinished) == []
        assert traces(backend.data_dir, VICTIM, MARK) == {}
        with pytest.raises(Erased):
            backend.notifications.send_notification(VICTIM, "late", "late")


def ask_to_erase(server: ServerProcess, user: str) -> None:
    with suppress(httpx.TransportError):
        server.api("DELETE", f"/api/users/{user}")


def begun(data: Path) -> bool:
    return bool(rows_in(data / FILES[0], "SELECT 1 FROM tombstones WHERE left_to_do IS NOT NULL"))


def test_an_erasure_that_is_killed_at_any_moment_is_finished_at_the_next_start(tmp_path: Path, seed: int) -> None:
    data, chance = tmp_path / "data", random.Random(seed)
    with Backend(Config(data_dir=data, port=0, me="ada")) as backend:
        backend.activity.track_activity("bob", "stays")
    for number in range(5):
        user = f"{VICTIM}-{number}"
        with serving(data) as server:
            rows = [{"user_id": user, "activity_type": MARK, "page_url": f"/{MARK}"}] * 1_000
            for _ in range(4):
                ok(server.api("POST", BATCH, {"activities": rows}))
            users = {"user_ids": [user], "title": MARK, "message": MARK}
            for _ in range(40):
                ok(server.api("POST", SEND, users), 201)
            thread = threading.Thread(target=ask_to_erase, args=(server, user))
            thread.start()
            eventually(lambda: begun(data) or not thread.is_alive(), what="the tombstone")  # noqa: B023
            time.sleep(chance.random() * 0.15)  # anywhere in what follows
            server.kill()
            thread.join(10)
        with serving(data) as server:
            problem(server.api("POST", TRACK, {"user_id": user, "activity_type": "late"}), "erased")
            problem(server.api("POST", SEND, users), "erased")
            assert rows_in(data / FILES[0], "SELECT left_to_do, user_id FROM tombstones") == [(None, None)] * (
                number + 1
            )
            assert [row["user_id"] for row in server.everything("/api/activity", "activities")] == ["bob"]
            assert traces(data, MARK, user) == {}


def test_a_writer_beside_an_erasure_brings_nothing_back(tmp_path: Path) -> None:
    with Backend(config(tmp_path)) as backend:
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                with suppress(FlashFlowError):
                    backend.activity.track_activity(VICTIM, "again")
                with suppress(FlashFlowError):
                    backend.notifications.send_notification(VICTIM, "again", "again")

        threads = [threading.Thread(target=write) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(backend.activity.list_activities(user_id=VICTIM).activities) > 20)
        backend.erasing.erase(VICTIM)
        stop.set()
        for thread in threads:
            thread.join()
        assert traces(backend.data_dir, VICTIM) == {}


def test_the_gate_asks_nothing_of_the_rows_where_nobody_was_erased(tmp_path: Path) -> None:
    with UserActivityService(tmp_path / "a.db", clock=StillClock()) as service:
        asked: list[str] = []

        def users() -> Iterator[str]:
            asked.append("asked")
            yield "ada"

        refused = service.store.run(Write(lambda tx, items: [service.admission.refused_users(tx, users())], None))
        assert (refused, asked) == ({}, [])
