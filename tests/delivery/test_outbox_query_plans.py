"""However much is pending, the outbox looks only at what is due: every statement it runs is a search by an index."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.schemas.requests import SendIn, build
from flashflow.backend.store.engine.writer import Tx, Write
from tests.support.outbox_driver import BUSY, ROUTES, SENT, Hands
from tests.support.query_plans import with_table

PENDING = 3_000
FEW = "deliveries_(leased|held|carried)|notifications_(scheduled|snoozed|expiring)"
"""Indexes that hold only what waits for something of its own."""
FULL = re.compile(
    rf"SCAN (deliveries|notifications|device_tokens|contacts|delivery_attempts|[dnstckap])\b"
    rf"(?! USING (COVERING )?INDEX ({FEW}))"
)
WORDS = ("SELECT", "UPDATE", "WITH", "DELETE")


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    hands = Hands(tmp_path, None, "ada")
    users = [f"user-{number}" for number in range(1_000)]
    for user in users[:3]:
        hands.contact(user)

    def addressed(tx: Tx, items: Sequence[None]) -> list[None]:
        rows = [(user, f"{user}@example.org") for user in users]
        tx.conn.executemany("INSERT OR REPLACE INTO contacts (user_id, email, updated_at) VALUES (?, ?, 0)", rows)
        return list(items)

    hands.service.store.run(Write(addressed, None))
    for _ in range(PENDING // len(users)):
        order = build(SendIn, user_ids=users, title="T", message="M", channel="email")
        hands.service.store.run(hands.service.send_write(order, "ci"))
    yield hands
    hands.service.close()


def statements(hands: Hands, work: Callable[[], Any]) -> set[str]:
    """Every statement that ``work`` had run, by readers and by the writer."""
    seen: set[str] = set()

    def traced(tx: Tx, items: Sequence[Any]) -> list[None]:
        tx.conn.set_trace_callback(seen.add if items[0] else None)
        return [None] * len(items)

    hands.service.store.run(Write(traced, True))
    read = hands.service.store.read

    def reading(ask: Callable[[sqlite3.Connection], Any]) -> Any:
        def traced_ask(conn: sqlite3.Connection) -> Any:
            conn.set_trace_callback(seen.add)
            try:
                return ask(conn)
            finally:
                conn.set_trace_callback(None)

        return read(traced_ask)

    hands.service.store.read = reading  # type: ignore[assignment, method-assign]
    try:
        work()
    finally:
        hands.service.store.read = read  # type: ignore[method-assign]
        hands.service.store.run(Write(traced, False))
    return {sql for sql in seen if sql.lstrip().startswith(WORDS)}


def full_scans(hands: Hands, sqls: set[str]) -> dict[str, list[str]]:
    """Statement → the steps of its plan that go through a whole table."""
    found = {}
    for sql in sqls:
        steps = [with_table(sql, row[3]) for row in hands.rows(f"EXPLAIN QUERY PLAN {sql}")]
        if bad := [step for step in steps if FULL.match(step)]:
            found[sql] = bad
    return found


def test_claiming_recording_and_putting_back_never_go_through_everything(hands: Hands) -> None:
    def work() -> None:
        assert hands.table.next_due(ROUTES)
        for outcome, wait in ((SENT, None), (BUSY, 60.0)):
            claim = hands.claim("email")
            assert claim is not None
            hands.record(claim, outcome, retry_in_s=wait)
        lost = hands.claim("email")
        assert lost is not None
        hands.table.next_lease()
        hands.clock.go(minutes=2)
        assert hands.table.recover(all_leases=False) == 1

    sqls = statements(hands, work)
    assert any("lease_until" in sql for sql in sqls)
    assert len(sqls) > 10
    assert full_scans(hands, sqls) == {}


def test_a_look_at_what_is_due_never_goes_through_everything(hands: Hands) -> None:
    hands.go()  # the first look of a process goes through what is pending: the clock may have been set back
    sqls = statements(hands, lambda: hands.go(minutes=1))
    assert len(sqls) == 1
    assert full_scans(hands, sqls) == {}


def test_a_change_of_mind_looks_only_at_that_users_notices(hands: Hands) -> None:
    def work() -> None:
        hands.service.update_notification_preference("user-1", "*", "email", False)
        hands.contact("user-2", email=None)

    sqls = statements(hands, work)
    assert full_scans(hands, sqls) == {}
    stands = dict(hands.rows("SELECT status, COUNT(*) FROM deliveries GROUP BY status"))
    assert stands == {"pending": PENDING - 6, "suppressed": 3, "failed": 3}


def test_a_claim_costs_the_same_however_much_waits(hands: Hands) -> None:
    """In steps of SQLite's machine, of which a thousand are a glance and three thousand rows take fifty thousand."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def counted(tx: Tx, items: Sequence[bool]) -> list[None]:
        tx.conn.set_progress_handler(step if items[0] else None, 100)
        return [None] * len(items)

    hands.service.store.run(Write(counted, True))
    claim = hands.claim("email")
    hands.service.store.run(Write(counted, False))
    assert claim is not None
    assert steps < 20, f"{steps} hundred steps for one of {PENDING}"
