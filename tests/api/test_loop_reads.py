"""No query without an index-bounded row count runs on an event loop: neither a list nor a write."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from flashflow.backend import NotificationService
from flashflow.backend.notifications import inbox
from flashflow.backend.schemas.records import ListStatus
from flashflow.backend.schemas.requests import SendIn, build
from flashflow.backend.store.engine.step_limit import bounded
from flashflow.backend.store.engine.writer import INLINE_ROWS, LoopWrites, Tx, Write
from flashflow.backend.store.notifications.notifications import ListFilter, list_places
from tests.support.fixed_clock import StillClock

ROWS = 20_000
PAGE_STEPS = 20_000
"""Instructions of SQLite's virtual machine for a page: a scan of all rows takes ten times as many."""
NOW = datetime(2026, 6, 10, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user with many rows in each status of the inbox: delivered by one app, a year ago."""
    path = tmp_path_factory.mktemp("many") / "notifications.db"
    NotificationService(path, clock=StillClock(NOW)).close()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute(
            "INSERT INTO notifications (id, user_id, app, title, message, notification_type, channels, priority, "
            "status, inbox, created_at, listed_at, revision, count) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
            "SELECT i + 1 FROM n WHERE i < ?1) SELECT CAST('n' || i AS BLOB), 'ada', 'app', 't', 'm', 'general', "
            "'[\"in_app\"]', 'normal', 'sent', json_extract(?2, '$[' || (i % 5) || ']'), ?3, ?3, i, 1 FROM n",
            (ROWS, '[null,"unread","read","snoozed","archived"]', NOW.timestamp() * 1000 - 365 * 86_400_000),
        )
        conn.commit()
    return path


@pytest.fixture
def service(file: Path) -> Iterator[NotificationService]:
    with NotificationService(file, clock=StillClock(NOW)) as service:
        yield service


def steps_of(conn: sqlite3.Connection, asked: ListFilter) -> int:
    turns = itertools.count()
    conn.set_progress_handler(lambda: next(turns) < 0, 100)
    list_places(conn, asked)
    conn.set_progress_handler(None, 0)
    return next(turns) * 100


LATE = round(NOW.timestamp() * 1000)
NONE_MATCHES: list[dict[str, Any]] = [
    {"app": "another"}, {"notification_type": "another"}, {"priority": "urgent"}, {"channel": "sms"}, {"q": "nothing"},
    {"since": LATE}, {"until": LATE - 2 * 365 * 86_400_000}, {"cursor": "unknown"}, {},
]  # fmt: skip


@pytest.mark.parametrize("status", [None, *get_args(ListStatus)])
@pytest.mark.parametrize("filters", NONE_MATCHES, ids=lambda filters: "-".join(filters) or "none")
def test_a_list_that_may_be_read_on_a_loop_looks_at_few_rows(
    service: NotificationService, status: str | None, filters: dict[str, Any]
) -> None:
    if "cursor" in filters:
        filters = {"cursor": service.get_user_notifications("ada", status="all", limit=2).next_cursor}
    asked = ListFilter(user_id="ada", status=status, limit=50, **filters)
    assert not asked.is_bounded or service.store.read(lambda conn: steps_of(conn, asked)) < PAGE_STEPS
    assert asked.is_bounded or filters or status not in {None, "unread", "snoozed", "archived", "all"}


def test_the_place_of_an_inbox_page_is_read_from_an_index_alone(service: NotificationService) -> None:
    def plan(conn: sqlite3.Connection) -> list[str]:
        ran: list[str] = []
        conn.set_trace_callback(ran.append)
        list_places(conn, ListFilter(user_id="ada"))
        conn.set_trace_callback(None)
        steps = [row[3] for sql in ran for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}")]
        return [step for step in steps if "notifications" in step or step.startswith(("SCAN t1", "SCAN t3"))]

    by_place = "COVERING INDEX notifications_inbox (user_id=? AND inbox=?)"
    assert service.store.read(plan) == [f"SEARCH t1 USING {by_place}", f"SEARCH t3 USING {by_place}"]


def test_a_write_of_many_rows_leaves_the_loop_and_is_done_once(service: NotificationService) -> None:
    threads: list[str] = []
    undone: list[str] = []

    def read_all(tx: Tx, items: Sequence[Any]) -> Sequence[Any]:
        threads.append(threading.current_thread().name)
        tx.undo.append(lambda: undone.append(threads[-1]))
        return inbox.read_all(tx, items)

    async def ask() -> list[tuple[str, ...]]:
        writes = LoopWrites(service.store.writer, deadline_s=60)
        return [await writes.run(Write(read_all, ("ada", None))) for _ in range(2)]

    first, again = asyncio.run(ask())
    assert (len(first), len(set(first)), again) == (ROWS // 5, ROWS // 5, ())
    here = threading.current_thread().name
    assert undone == [here]
    assert threads[0] == here
    assert threads[1].startswith("flashflow-write-")


def test_as_many_sends_as_a_loop_takes_at_once_are_not_too_many(service: NotificationService) -> None:
    def send(tx: Tx, items: Sequence[Any]) -> Sequence[Any]:
        with bounded(tx.conn, on=True):
            return service.sender.send(tx, items)

    users = [f"user {number}" for number in range(INLINE_ROWS)]
    fields = {"user_ids": users, "title": "T" * 100, "message": "m" * 500, "collapse_key": "key"}
    for _ in range(2):
        order = service.send_write(build(SendIn, **fields), "app").item
        assert len(service.store.run(Write(send, order, INLINE_ROWS))) == INLINE_ROWS
