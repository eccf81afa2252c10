"""No step of an erasure, of pruning or of one person's export looks through a whole table: each finds its rows by an
index, however many others there are."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend import Backend, Config
from flashflow.backend.store.activity.session_cache import SessionCache
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.privacy import erasure, export, retention
from flashflow.backend.store.privacy.export import ExportFilter
from flashflow.backend.store.privacy.retention import Slice
from tests.support.query_plans import with_table

LARGE = ("user_activities", "user_sessions", "activities_by_user", "notifications", "deliveries", "delivery_attempts",
         "device_tokens", "contacts", "notification_preferences")  # fmt: skip
SCAN = re.compile(rf"SCAN ({'|'.join(LARGE)}|a|d|p)\b(?! USING INDEX notifications_listed)")


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with Backend(Config(data_dir=tmp_path, port=0, me="ada")) as opened:
        for number in range(3):
            opened.activity.track_activity("ada", f"t{number}")
            opened.notifications.send_notification("ada", "t", "m", channels=["in_app", "push"])
        yield opened


@contextmanager
def watched(conn: sqlite3.Connection) -> Iterator[list[str]]:
    """The statements that run meanwhile, values filled in."""
    seen: list[str] = []
    conn.set_trace_callback(seen.append)
    try:
        yield seen
    finally:
        conn.set_trace_callback(None)


def scans(conn: sqlite3.Connection, statements: list[str]) -> list[str]:
    found = []
    asked = [statement for statement in statements if re.match(r"SELECT|WITH|DELETE|UPDATE", statement)]
    assert asked
    for statement in asked:
        for row in conn.execute(f"EXPLAIN QUERY PLAN {statement}"):
            step = with_table(statement, row[3])
            if SCAN.search(step):
                found.append(f"{step}: {statement[:120]}")
    return found


def of_write(backend: Any, step: Callable[[Tx], object]) -> list[str]:
    """What ``step`` scans, run as a write until it has nothing left to do."""

    def handle(tx: Tx, items: Any) -> list[list[str]]:
        with watched(tx.conn) as seen:
            while step(tx):
                pass
        return [scans(tx.conn, seen)]

    found: list[str] = backend.store.run(Write(handle, None))
    return found


def test_an_erasure_finds_its_rows_by_an_index(backend: Backend) -> None:
    cache = SessionCache(backend.activity.local)
    assert of_write(backend.activity, lambda tx: erasure.erase_activities(tx, "ada", cache)) == []
    assert of_write(backend.notifications, lambda tx: erasure.erase_notifications(tx, "ada")) == []


def test_pruning_finds_its_rows_by_an_index(backend: Backend) -> None:
    far, cache = Slice(4_000_000_000_000, 100), SessionCache(backend.activity.local)
    assert of_write(backend.activity, lambda tx: retention.prune_activities(tx, far, cache)) == []
    assert of_write(backend.notifications, lambda tx: retention.prune_notifications(tx, far)) == []


def test_one_persons_export_finds_its_rows_by_an_index(backend: Backend) -> None:
    wanted = ExportFilter(user_id="ada")
    for service, read in (
        (backend.activity, export.activities),
        (backend.activity, export.sessions),
        (backend.notifications, export.notifications),
    ):
        conn: sqlite3.Connection = service.store.read(lambda conn: conn)
        with watched(conn) as seen:
            assert sum(map(len, read(service.store, wanted))) >= 1  # type: ignore[operator]
        assert scans(conn, [s for s in seen if "user_id" in s]) == []
