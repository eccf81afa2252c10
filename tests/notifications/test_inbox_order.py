"""Lists, ``since`` and ``until``, and retention go by the time a notification last reached the inbox."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flashflow.backend import NotificationService
from flashflow.backend.data.import_notifications import import_notifications_write
from flashflow.backend.store.engine.writer import Write
from flashflow.backend.store.notifications.notifications import ListFilter, list_notifications
from flashflow.backend.store.privacy import retention
from flashflow.backend.store.privacy.retention import Slice
from tests.support.api_client import SEND, fresh, ok
from tests.support.old_files import write_old_file
from tests.support.outbox_driver import BUSY, Hands
from tests.support.server_process import ServerProcess, eventually, serving


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    hands = Hands(tmp_path)
    yield hands
    hands.service.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("order")) as running:
        yield running


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A file with 100,000 notifications of one user, half of them listed at the same millisecond."""
    path = tmp_path_factory.mktemp("full") / "n.db"
    NotificationService(path).close()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
            "INSERT INTO notifications (id, user_id, app, title, message, notification_type, channels, priority, "
            "status, inbox, created_at, revision, listed_at) "
            "SELECT CAST('n' || i AS BLOB), 'ada', 'ci', 't', 'm', 'general', '[\"in_app\"]', 'normal', 'delivered', "
            'json_extract(\'["read", "archived", "snoozed", "unread"]\', \'$[\' || (i % 4) || \']\'), '
            "1, i, CASE WHEN i < 50000 THEN 2 ELSE 1800000000000 + i END FROM n"
        )
        yield conn


def titles(hands: Hands, **query: Any) -> list[str]:
    return [n.title for n in hands.service.get_user_notifications("ada", **({"status": "all"} | query)).notifications]


def prune(hands: Hands, **age: float) -> int:
    """How many notifications go when those older than ``age`` may; also holds the dry run to the same number."""
    before = hands.clock.now_ms() - round(timedelta(**age).total_seconds() * 1000)
    would = hands.service.store.read(lambda conn: retention.would_prune_notifications(conn, before))
    done = hands.service.store.run(
        Write(lambda tx, items: [retention.prune_notifications(tx, item) for item in items], Slice(before, 100))
    )
    assert done.notifications == would.notifications
    return done.notifications


# --- the time by which a list goes --------------------------------------------------------------------------------


def scheduled(hands: Hands) -> str:
    return hands.send("moved", scheduled_at=hands.clock.at(days=2))


def snoozed(hands: Hands) -> str:
    id_ = hands.send("moved")
    hands.service.snooze_notification(id_, hands.clock.at(days=2))
    return id_


def put_off(hands: Hands) -> str:
    id_ = hands.send("moved")
    hands.service.snooze_notification(id_, hands.clock.at(days=9))
    return id_


def collapsing(hands: Hands) -> str:
    return hands.send("moved", collapse_key="build")


def mailed(hands: Hands) -> str:
    id_ = hands.send("moved", collapse_key="build", channel="email")
    hands.work("email")
    return id_


Step = Callable[[Hands, str], object]
RELEASED: Step = lambda hands, id_: hands.service.release_due()  # noqa: E731
UNREAD: Step = lambda hands, id_: hands.service.mark_notification_as_unread(id_)  # noqa: E731
READ: Step = lambda hands, id_: hands.service.mark_notification_as_read(id_)  # noqa: E731
UPDATED: Step = lambda hands, id_: hands.send("moved", collapse_key="build")  # noqa: E731

ARRIVALS: list[tuple[Callable[[Hands], str], Step]] = [
    (scheduled, RELEASED),
    (snoozed, RELEASED),
    (put_off, UNREAD),
    (put_off, READ),
    (collapsing, UPDATED),
    (mailed, UPDATED),
]
NAMES = ["scheduled", "snoozed", "woken by hand", "read while snoozed", "updated in place", "added to the inbox"]


@pytest.mark.parametrize(("make", "step"), ARRIVALS, ids=NAMES)
def test_a_notification_is_new_when_it_reaches_the_inbox(
    hands: Hands, make: Callable[[Hands], str], step: Step
) -> None:  # fmt: skip
    id_ = make(hands)
    made = hands.notification(id_)
    assert made.listed_at == made.created_at
    hands.clock.go(days=1)
    hands.send("between")
    since = hands.clock.go(days=1)
    assert titles(hands) == ["between", "moved"]
    step(hands, id_)
    moved = hands.notification(id_)
    assert (moved.listed_at, moved.created_at) == (since, made.created_at)
    assert moved.inbox in {"unread", "read"}
    assert titles(hands) == ["moved", "between"]
    assert titles(hands, since=since) == ["moved"]
    assert titles(hands, until=since) == ["between"]
    assert prune(hands, hours=12) == 1, "only the one in between is that old"
    assert titles(hands) == ["moved"]
    hands.clock.go(days=2)
    assert prune(hands, hours=36) == 1


@pytest.mark.parametrize("step", ["mark_notification_as_read", "mark_notification_as_unread", "archive_notification"])
def test_a_readers_hand_moves_nothing_that_is_in_the_inbox(hands: Hands, step: str) -> None:
    id_ = hands.send("first")
    hands.clock.go(hours=1)
    hands.send("second")
    getattr(hands.service, step)(id_)
    hands.service.snooze_notification(hands.send("third"), hands.clock.at(hours=1))
    assert titles(hands) == ["third", "second", "first"]


def test_a_reminder_comes_first_in_the_list_of_the_api(server: ServerProcess) -> None:
    user = fresh()
    due = datetime.now(UTC) + timedelta(seconds=1)

    def send(title: str, **more: Any) -> None:
        ok(server.api("POST", SEND, {"user_id": user, "title": title, "message": "m"} | more), 201)

    def listed(**query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = ok(
            server.api("GET", f"/api/notifications/user/{user}", params={"limit": 1} | query)
        )["notifications"]
        return found

    send("reminder", scheduled_at=due.isoformat())
    send("now")
    eventually(lambda: listed(status="unread")[0]["title"] == "reminder", what="the reminder")
    page = ok(server.api("GET", f"/api/notifications/user/{user}", params={"limit": 1, "status": "unread"}))
    (after,) = listed(status="unread", cursor=page["next_cursor"])
    assert after["title"] == "now"
    (first,) = page["notifications"]
    assert first["listed_at"] >= due.isoformat(timespec="milliseconds").replace("+00:00", "Z") > first["created_at"]
    assert [n["title"] for n in listed(since=due.isoformat(), limit=5)] == ["reminder"]
    assert [n["title"] for n in listed(until=due.isoformat(), limit=5, status="unread")] == ["now"]


# --- pages --------------------------------------------------------------------------------------------------------


def test_pages_over_notifications_of_one_millisecond_repeat_and_miss_none(hands: Hands) -> None:
    ids = [hands.send(str(number), scheduled_at=hands.clock.at(hours=1)) for number in range(7)]
    hands.go(hours=1)
    ids += [hands.send(str(number)) for number in range(7, 9)]
    paged, cursor = [], None
    while True:
        page = hands.service.get_user_notifications("ada", status="unread", limit=2, cursor=cursor)
        paged += [n.id for n in page.notifications]
        if (cursor := page.next_cursor) is None:
            break
        hands.send("arrives meanwhile")
    assert paged == ids[::-1]


@pytest.mark.parametrize("status", [None, "all", "unread", "read", "archived", "snoozed"])
@pytest.mark.parametrize("bounds", [{}, {"since": 1}, {"until": 1_900_000_000_000}, {"since": 1, "until": 3}])
@pytest.mark.parametrize("later_page", [False, True])
def test_a_page_takes_as_few_steps_as_it_has_rows(
    full: sqlite3.Connection, status: str | None, bounds: dict[str, int], later_page: bool
) -> None:
    """A search through the 100,000 rows would take a million."""
    asked = ListFilter(user_id="ada", status=status, limit=10, **bounds)  # type: ignore[arg-type]
    if later_page:
        first = list_notifications(full, asked)
        if first.next_cursor is None:
            return
        asked = msgspec.structs.replace(asked, cursor=first.next_cursor)
    steps = [0]

    def count() -> int:
        steps[0] += 100
        return 0

    full.set_progress_handler(count, 100)
    try:
        list_notifications(full, asked)
    finally:
        full.set_progress_handler(None, 0)
    assert steps[0] <= 10_000


# --- what came from elsewhere -------------------------------------------------------------------------------------


def test_an_export_keeps_its_order_on_the_way_back_in(tmp_path: Path, hands: Hands) -> None:
    hands.send("reminder", scheduled_at=hands.clock.at(hours=2))
    hands.clock.go(hours=1)
    hands.send("now")
    hands.go(hours=1)
    rows = [msgspec.json.encode(n) for n in hands.service.get_user_notifications("ada", status="all").notifications]
    older = [
        msgspec.json.encode({k: v for k, v in msgspec.json.decode(row).items() if k != "listed_at"}) for row in rows
    ]
    for number, exported in enumerate((rows, older)):
        with NotificationService(tmp_path / f"{number}.db", clock=hands.clock) as service:
            assert service.store.run(import_notifications_write(hands.clock, exported)).accepted == 2
            again = service.get_user_notifications("ada", status="all").notifications
            assert [n.title for n in again] == ["reminder", "now"]
            assert again[0].listed_at == hands.clock.now


def test_a_file_of_an_older_version_lists_what_was_scheduled_at_its_time(tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    write_old_file("notifications", path, empty=True)
    conn = sqlite3.connect(path, isolation_level=None)
    for seq, (status, made, due) in enumerate(
        [("delivered", 10, 40), ("delivered", 30, None), ("scheduled", 20, 2**41), ("cancelled", 5, 2**41)], 1
    ):
        conn.execute(
            "INSERT INTO notifications (id, user_id, app, title, message, notification_type, channels, priority, "
            "status, inbox, created_at, scheduled_at, revision) "
            "VALUES (?, 'ada', 'ci', ?, 'm', 'general', '[]', 'normal', ?, NULL, ?, ?, ?)",
            (f"n{seq}", f"{status} {made}", status, made, due, seq),
        )
    conn.close()
    with NotificationService(path) as service:
        listed = service.get_user_notifications("ada", status="all").notifications
        assert [n.title for n in listed] == ["delivered 10", "delivered 30", "scheduled 20", "cancelled 5"]


# --- retention ----------------------------------------------------------------------------------------------------


def held_by_quiet_hours(hands: Hands) -> None:
    hands.quiet("00:00", "23:59")
    hands.send("kept", channels=["in_app", "email"])


def held_by_a_digest(hands: Hands) -> None:
    hands.digest("daily", at="11:00")
    hands.send("kept", channels=["in_app", "email"])


def held_by_a_chain(hands: Hands) -> None:
    stages = [{"channel": "push"}, {"channel": "email", "after_minutes": 7 * 24 * 60}]
    hands.service.declare_type("chat", failover=stages)
    hands.send("kept", channels=["in_app", "push", "email"], notification_type="chat")
    hands.work("fcm")


def waiting_for_its_next_try(hands: Hands) -> None:
    hands.send("kept", channels=["in_app", "email"])
    claim = hands.claim("email")
    assert claim is not None
    hands.record(claim, BUSY, retry_in_s=10**6)


def in_hand(hands: Hands) -> None:
    hands.send("kept", channels=["in_app", "email"])
    assert hands.claim("email") is not None


def carried_by_another(hands: Hands) -> None:
    hands.disturb_not(minutes=1)
    for title in ("kept", "kept"):
        hands.send(title, channels=["in_app", "email"])
    hands.go(minutes=1)


@pytest.mark.parametrize(
    "make",
    [held_by_quiet_hours, held_by_a_digest, held_by_a_chain, waiting_for_its_next_try, in_hand, carried_by_another],
)
def test_pruning_keeps_everything_that_still_goes_out(hands: Hands, make: Callable[[Hands], None]) -> None:
    hands.send("over")
    make(hands)
    kept = [title for title in titles(hands) if title == "kept"]
    hands.clock.go(hours=20)
    assert prune(hands, hours=1) == 1
    assert titles(hands) == kept


def test_a_held_email_goes_out_although_its_inbox_copy_is_old(hands: Hands) -> None:
    hands.disturb_not(days=9)
    hands.send("held", channels=["in_app", "email"])
    hands.clock.go(days=8)
    assert prune(hands, days=1) == 0
    hands.go(days=1)
    assert [notice.title for notice in hands.work("email")] == ["held"]
    assert prune(hands, days=1) == 1
