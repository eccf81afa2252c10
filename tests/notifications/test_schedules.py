"""Recurring notifications: each time happens once, whatever the clock, the process or a template does."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashflow.backend import Conflict, NotFound, NotificationService, ValidationError
from flashflow.backend.core.clock import to_datetime, to_ms
from flashflow.backend.core.errors import FlashFlowError, StorageError
from flashflow.backend.domain.recurrence import Recurrence
from flashflow.backend.notifications.orders import Order
from flashflow.backend.notifications.schedules import FAULT, ScheduleIn, Schedules
from flashflow.backend.schemas.records import Sent
from flashflow.backend.schemas.requests import build
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.notifications.schedules import Schedule
from tests.support.examples import examples
from tests.support.fixed_clock import StillClock
from tests.support.server_process import ROOT

TEA: dict[str, Any] = {"user_id": "ada", "title": "Tea", "message": "It is time."}
NINE: dict[str, Any] = {"at": "09:00", "timezone": "Europe/Berlin"}


class Parts:
    """A service on a still clock, its schedules, and a way to make sending fail."""

    def __init__(self, folder: Path, timestamp: datetime | None = None) -> None:
        self.clock = StillClock() if timestamp is None else StillClock(timestamp)
        self.service = NotificationService(folder / "n.db", clock=self.clock)
        self.failure: Exception | None = None
        self.schedules = over(self.service, self)

    def send(self, tx: Tx, orders: Sequence[Order]) -> Sequence[tuple[Sent, ...] | FlashFlowError]:
        answers = self.service.sender.send(tx, orders)
        if self.failure is not None and any(order.title == "Bad" for order in orders):
            raise self.failure
        return answers

    def make(self, name: str = "tea", rule: dict[str, Any] = NINE, **more: Any) -> Schedule:
        return self.schedules.create(name, TEA | more, rule, "kitchen")

    def now(self, schedule: Schedule) -> Schedule:
        return self.schedules.get(schedule.id)

    def change(self, schedule: Schedule, owner: str | None = None, **more: Any) -> Schedule:
        asked = {"name": "tea", "notification": TEA, "rule": NINE} | more
        return self.service.store.run(self.schedules.change_write(schedule.id, build(ScheduleIn, **asked), owner))

    def told(self, user: str = "ada") -> list[datetime]:
        """When the user was told what, oldest first."""
        return [n.created_at for n in reversed(self.service.get_user_notifications(user, limit=200).notifications)]

    def tick(self, minutes: int, every: float = 60.0) -> list[datetime]:
        """Let the clock go on, looking every so many seconds; when something was sent."""
        before = len(self.told())
        for _ in range(int(minutes * 60 / every)):
            self.clock.go(seconds=every)
            self.schedules.run_due()
        return self.told()[before:]


def over(service: NotificationService, parts: Parts | None = None, zone: str = "Europe/Berlin") -> Schedules:
    """As NotificationService makes its own."""
    return Schedules(
        service.store,
        service.new_id,
        order=service.order,
        dry_run=service.sender.dry_run,
        send=service.sender.send if parts is None else parts.send,
        zone=lambda: zone,
    )


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path)
    with made.service:
        yield made


def timestamp(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# --- kept -------------------------------------------------------------------------------------------------------------


def test_a_schedule_is_kept_as_it_was_given_with_its_next_time(parts: Parts) -> None:
    notification = TEA | {"data": {"cups": [1, {"sugar": None}]}, "channels": ["in_app"], "priority": "low"}
    rule = {"at": "07:30", "days": ["fri", "mon"], "starts_at": "2026-06-11T00:00:00+02:00"}
    made = parts.schedules.create("tea", notification, rule, "kitchen")
    assert (made.name, made.app, made.notification) == ("tea", "kitchen", notification)
    assert made.rule == Recurrence(
        at="07:30", days=["mon", "fri"], timezone="Europe/Berlin", starts_at=timestamp("2026-06-10 22:00")
    )
    assert made.next_at == timestamp("2026-06-12 05:30")
    assert (made.last_at, made.last_error, made.created_at, made.updated_at) == (None, None, *[parts.clock.now] * 2)
    assert parts.now(made) == made


def test_two_apps_may_use_one_name_and_one_app_may_not_use_it_twice(parts: Parts) -> None:
    made = parts.make()
    with pytest.raises(Conflict):
        parts.make()
    other = parts.schedules.create("tea", TEA, NINE, "office")
    parts.make("coffee")
    with pytest.raises(Conflict):
        parts.change(made, name="coffee")
    assert parts.change(made).name == "tea"
    assert parts.change(other, name="coffee").name == "coffee"


def test_another_apps_schedule_is_not_there(parts: Parts) -> None:
    made, run = parts.make(), parts.service.store.run
    asked = build(ScheduleIn, name="x", notification=TEA, rule=NINE)
    for attempt in (
        lambda: parts.schedules.get(made.id, "office"),
        lambda: run(parts.schedules.change_write(made.id, asked, "office")),
        lambda: run(parts.schedules.remove_write(made.id, "office")),
        lambda: run(parts.schedules.run_write(made, "office")),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert parts.now(made) == made
    assert parts.told() == []
    assert parts.schedules.page("office").schedules == ()
    assert parts.schedules.page("kitchen").schedules == parts.schedules.page().schedules == (made,)
    assert run(parts.schedules.remove_write(made.id, "kitchen")) == made
    with pytest.raises(NotFound):
        parts.now(made)


def test_a_change_keeps_the_next_time_unless_the_rule_changes(parts: Parts) -> None:
    made = parts.make(rule={"every_minutes": 60})
    parts.clock.go(minutes=61)  # due, but the job has not come by yet
    changed = parts.change(made, rule={"every_minutes": 60}, notification=TEA | {"title": "Coffee"})
    assert (changed.next_at, changed.updated_at) == (made.next_at, parts.clock.now)
    assert parts.schedules.run_due() == 1
    assert [n.title for n in parts.service.get_user_notifications("ada").notifications] == ["Coffee"]
    changed = parts.change(made, rule={"every_minutes": 45})
    assert changed.next_at == made.created_at + timedelta(minutes=90)
    assert changed.last_at == parts.clock.now


def test_a_rule_that_never_comes_is_refused(parts: Parts) -> None:
    made, past = parts.make(), {"at": "09:00", "ends_at": "2026-06-10T12:00:00Z"}
    for attempt in (lambda: parts.make("x", past), lambda: parts.change(made, rule=past)):
        with pytest.raises(ValidationError) as refusal:
            attempt()
        assert [error.field for error in refusal.value.errors] == ["rule.ends_at"]
    assert parts.schedules.page().schedules == (made,)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"user_id": None}, "notification.user_id"),
        ({"user_ids": ["b"]}, "notification.user_id"),
        ({"title": None}, "notification.title"),
        ({"title": ""}, "notification.title"),
        ({"channel": "pigeon"}, "notification.channel"),
        ({"data": {"x": 10**5000}}, "notification"),
        ({"data": {"x": float("nan")}}, "notification"),
        ({"template": "unheard-of"}, "notification.template"),
        ({"title": None, "template": "greeting"}, "notification.data.who"),
        ({"scheduled_at": datetime(2027, 1, 1, tzinfo=UTC)}, "notification.scheduled_at"),
        ({"expires_at": datetime(2027, 1, 1, tzinfo=UTC)}, "notification.expires_at"),
    ],
)
def test_what_a_send_would_refuse_is_refused_when_it_is_planned(parts: Parts, bad: dict[str, Any], field: str) -> None:
    parts.service.create_notification_template("greeting", "Hi {who}", "M")
    made = parts.make()
    notification = {name: value for name, value in (TEA | bad).items() if value is not None}
    for attempt in (
        lambda: parts.schedules.create("bad", notification, NINE, "kitchen"),
        lambda: parts.change(made, notification=notification),
    ):
        with pytest.raises(ValidationError) as refusal:
            attempt()
        assert [error.field for error in refusal.value.errors] == [field]
    assert parts.schedules.page().schedules == (made,)
    assert parts.told() == []


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"at": "09:00", "every_minutes": 5}, "rule.at"),
        ({"at": "09:00", "timezone": "Mars/Olympus"}, "rule.timezone"),
        ({"at": "09:00", "timezone": "right/Europe/Berlin"}, "rule.timezone"),
        ({"every_minutes": 5, "starts_at": "2300-01-01T00:00:00Z"}, "rule.starts_at"),
        ({"every_minutes": 5, "ends_at": "1969-01-01T00:00:00Z"}, "rule.ends_at"),
    ],
)
def test_a_rule_that_is_none_is_refused_by_its_field(parts: Parts, bad: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        parts.make(rule=bad)
    assert [error.field for error in refusal.value.errors] == [field]


def test_the_list_is_paged_newest_first_and_stays_stable(parts: Parts) -> None:
    made = [parts.make(f"tea {number}") for number in range(5)]
    first = parts.schedules.page(limit=2)
    parts.make("late")
    second = parts.schedules.page(limit=2, cursor=first.next_cursor)
    third = parts.schedules.page(limit=2, cursor=second.next_cursor)
    assert [*first.schedules, *second.schedules, *third.schedules] == made[::-1]
    assert third.next_cursor is None


# --- due --------------------------------------------------------------------------------------------------------------


def test_it_is_sent_at_its_time_and_only_then(parts: Parts) -> None:
    made = parts.make()
    assert parts.tick(19 * 60 - 1, every=600) == []
    parts.clock.now = timestamp("2026-06-11 06:59:59")
    assert parts.schedules.run_due() == 0
    parts.clock.go(seconds=1)
    assert parts.schedules.run_due() == 1
    assert parts.schedules.run_due() == 0
    assert parts.told() == [timestamp("2026-06-11 07:00")]
    now = parts.now(made)
    assert (now.last_at, now.next_at) == (timestamp("2026-06-11 07:00"), timestamp("2026-06-12 07:00"))
    assert (now.updated_at, now.rule) == (made.updated_at, made.rule)


def test_a_notice_to_many_is_sent_to_each_of_them_by_the_apps_name(parts: Parts) -> None:
    users = [f"user {number}" for number in range(1000)]
    notification = {"user_ids": users, "title": "Tea", "message": "M"}
    parts.schedules.create("all", notification, {"every_minutes": 1}, "kitchen")
    assert parts.tick(1) == []
    for user in (users[0], users[-1]):
        (found,) = parts.service.get_user_notifications(user).notifications
        assert (found.app, found.title, found.status) == ("kitchen", "Tea", "delivered")


def test_what_was_missed_while_the_computer_slept_is_made_up_for_once(parts: Parts) -> None:
    daily, often = parts.make(), parts.make("often", {"every_minutes": 10}, user_id="bob")
    parts.clock.go(days=3, minutes=3)
    assert parts.schedules.run_due() == 2
    assert parts.schedules.run_due() == 0
    assert parts.told() == parts.told("bob") == [parts.clock.now]
    assert parts.now(daily).next_at == timestamp("2026-06-14 07:00")
    assert parts.now(often).next_at == timestamp("2026-06-13 12:10")  # counted from its beginning: no drift


@pytest.mark.parametrize("back", [timedelta(seconds=1), timedelta(hours=1), timedelta(hours=30)])
def test_a_clock_that_is_set_back_sends_nothing_twice(parts: Parts, back: timedelta) -> None:
    parts.make()
    parts.clock.now = timestamp("2026-06-12 07:00")
    assert parts.schedules.run_due() == 1
    parts.clock.now -= back
    sent = [told.replace(second=0) for told in parts.tick(30 * 60)]
    assert sent == ([timestamp("2026-06-13 07:00")] if back < timedelta(hours=6) else [])


def test_a_clock_set_forward_over_the_time_sends_it_at_once(parts: Parts) -> None:
    parts.make()
    parts.clock.now = timestamp("2026-06-11 06:59:59")
    parts.clock.go(hours=1)
    assert parts.schedules.run_due() == 1


@pytest.mark.parametrize(
    ("begin", "at", "expected"),
    [
        ("2026-03-28 12:00", "02:30", ["03-29 01:30", "03-30 00:30"]),
        ("2026-10-24 12:00", "02:30", ["10-25 00:30", "10-26 01:30"]),
    ],
)
def test_across_a_change_of_summer_time_each_day_has_it_once(
    tmp_path: Path, begin: str, at: str, expected: list[str]
) -> None:
    made = Parts(tmp_path, timestamp(begin))
    with made.service:
        made.make(rule={"at": at, "timezone": "Europe/Berlin"})
        assert made.tick(48 * 60, every=300) == [timestamp(f"2026-{one}") for one in expected]


def test_after_its_end_it_stays_and_is_sent_no_more(parts: Parts) -> None:
    made = parts.make(rule={"every_minutes": 60, "ends_at": "2026-06-10T14:00:00Z"})
    assert parts.tick(300) == [timestamp("2026-06-10 13:00"), timestamp("2026-06-10 14:00")]
    now = parts.now(made)
    assert (now.next_at, now.last_at) == (None, timestamp("2026-06-10 14:00"))
    assert parts.change(made, rule={"every_minutes": 60, "ends_at": "2026-06-10T14:00:00Z"}).next_at is None


def test_run_sends_it_once_now_and_leaves_its_time(parts: Parts) -> None:
    made = parts.make()
    ran = parts.service.store.run(parts.schedules.run_write(made, "kitchen"))
    assert [sent.user_id for sent in ran.sent] == ["ada"]
    assert parts.told() == [parts.clock.now]
    assert (ran.schedule.next_at, ran.schedule.last_at) == (made.next_at, parts.clock.now)
    assert parts.now(made) == ran.schedule


def test_more_than_one_handful_due_at_once_are_all_sent(parts: Parts) -> None:
    for number in range(230):
        parts.make(f"tea {number}", {"every_minutes": 5}, user_id=f"user {number}")
    parts.clock.go(minutes=5)
    assert parts.schedules.run_due() == 230
    assert parts.schedules.run_due() == 0
    assert {len(parts.told(f"user {number}")) for number in range(230)} == {1}


@settings(
    deadline=None,
    max_examples=examples(25),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    minutes=st.integers(1, 200),
    jumps=st.lists(st.integers(-180, 600) | st.sampled_from([0, 1, 5]), min_size=5, max_size=40),
)
def test_however_the_clock_jumps_every_time_is_sent_once_or_skipped_and_none_twice(
    tmp_path_factory: pytest.TempPathFactory, minutes: int, jumps: list[int]
) -> None:
    made = Parts(tmp_path_factory.mktemp("jumps"))
    with made.service:
        schedule = made.make(rule={"every_minutes": minutes})
        begin, step = to_ms(schedule.created_at), minutes * 60_000
        due, sent = 1, 0
        for jump in jumps:
            made.clock.go(minutes=jump)
            passed = (made.clock.now_ms() - begin) // step
            assert made.schedules.run_due() == (passed >= due)
            sent, due = sent + (passed >= due), max(due, passed + 1)
            assert made.schedules.run_due() == 0
        assert len(made.told()) == sent
        assert made.now(schedule).next_at == to_datetime(begin + due * step)


# --- refused and failed -----------------------------------------------------------------------------------------------


def test_a_template_that_is_gone_skips_that_time_says_why_and_spoils_nothing(parts: Parts) -> None:
    service = parts.service
    service.create_notification_template("tea", "Tea", "For {who}", app="kitchen")
    told = {"user_id": "ada", "template": "tea", "data": {"who": "Ada"}}
    made = parts.schedules.create("tea", told, NINE, "kitchen")
    other = parts.make("other", user_id="bob")
    service.store.run(service.templates.remove_write("tea", None))
    parts.clock.now = timestamp("2026-06-11 07:00")
    assert parts.schedules.run_due() == 1
    now = parts.now(made)
    assert (now.last_at, now.next_at) == (None, timestamp("2026-06-12 07:00"))
    assert now.last_error == "template: there is no template “tea”"
    assert parts.now(other).last_error is None
    with pytest.raises(ValidationError) as refusal:
        service.store.run(parts.schedules.run_write(made, None))
    assert [error.field for error in refusal.value.errors] == ["notification.template"]
    service.create_notification_template("tea", "Tea", "For {who}", app="kitchen")
    parts.clock.go(days=1)
    assert parts.schedules.run_due() == 2
    assert parts.now(made).last_error is None
    assert parts.told() == [parts.clock.now]
    assert parts.told("bob") == [timestamp("2026-06-11 07:00"), parts.clock.now]


def test_an_apps_schedule_fills_in_its_own_templates_only(parts: Parts) -> None:
    parts.service.create_notification_template("secret", "T", "M", app="office")
    asked = build(ScheduleIn, name="tea", notification={"user_id": "ada", "template": "secret"}, rule=NINE)
    with pytest.raises(ValidationError, match="no template"):
        parts.service.store.run(parts.schedules.create_write(asked, "kitchen", "kitchen"))
    made = parts.service.store.run(parts.schedules.create_write(asked, "kitchen", None))
    parts.clock.go(days=1)
    assert parts.schedules.run_due() == 1
    assert parts.now(made).last_error is None


def test_a_template_that_another_app_makes_in_its_own_ones_place_is_not_filled_in(parts: Parts) -> None:
    service = parts.service
    service.create_notification_template("tea", "T", "M", app="kitchen")
    asked = build(ScheduleIn, name="tea", notification={"user_id": "ada", "template": "tea"}, rule=NINE)
    made = service.store.run(parts.schedules.create_write(asked, "kitchen", "kitchen"))
    service.store.run(service.templates.remove_write("tea", None))
    service.create_notification_template("tea", "T", "M", app="office")
    parts.clock.go(days=1)
    assert parts.schedules.run_due() == 0
    assert "no template" in (parts.now(made).last_error or "")
    assert parts.told() == []


def test_a_fault_between_sending_and_moving_on_undoes_both_and_holds_up_no_other(parts: Parts) -> None:
    bad = parts.make("bad", title="Bad")
    good = parts.make("good", user_id="bob")
    parts.clock.now = timestamp("2026-06-11 07:00")
    parts.failure = StorageError("The disk is full.")
    with pytest.raises(StorageError):
        parts.schedules.run_due()
    assert parts.told() == []
    assert parts.now(bad) == bad
    assert parts.told("bob") == [parts.clock.now]
    assert parts.now(good).next_at == timestamp("2026-06-12 07:00")
    parts.failure = None
    parts.clock.go(seconds=1)
    assert parts.schedules.run_due() == 1
    assert parts.told() == [parts.clock.now]


def test_a_fault_after_sending_takes_the_notice_back_with_it(parts: Parts) -> None:
    made = parts.make()
    heard: list[str] = []
    parts.service.bus.subscribe(lambda events: heard.extend(event.kind for event in events))
    parts.service.store.run(
        Write(sabotage, "CREATE TRIGGER no BEFORE UPDATE ON schedules BEGIN SELECT RAISE(ABORT, '');END")
    )
    parts.clock.now = timestamp("2026-06-11 07:00")
    with pytest.raises(StorageError):
        parts.schedules.run_due()
    assert (parts.told(), heard, parts.now(made)) == ([], [], made)
    parts.service.store.run(Write(sabotage, "DROP TRIGGER no"))
    assert parts.schedules.run_due() == 1
    assert parts.told() == [parts.clock.now]


def sabotage(tx: Tx, statements: Sequence[str]) -> list[None]:
    return [None for statement in statements if tx.conn.execute(statement)]


def test_several_at_once_that_find_it_due_send_it_once(parts: Parts) -> None:
    for number in range(60):
        parts.make(f"tea {number}", {"every_minutes": 5}, user_id=f"user {number}")
    parts.clock.go(minutes=5)
    together = threading.Barrier(4)

    def run(_: int) -> int:
        together.wait(10)
        return parts.schedules.run_due()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(run, range(4))) == 60
    assert {len(parts.told(f"user {number}")) for number in range(60)} == {1}


def test_a_fault_of_our_own_is_logged_once_and_skips_that_time(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    bad, good = parts.make("bad", title="Bad"), parts.make("good", user_id="bob")
    parts.clock.now = timestamp("2026-06-11 07:00")
    parts.failure = ZeroDivisionError("a bug")
    assert parts.schedules.run_due() == 1
    assert "a bug" in caplog.text
    assert parts.told() == []
    now = parts.now(bad)
    assert (now.last_error, now.last_at, now.next_at) == (FAULT, None, timestamp("2026-06-12 07:00"))
    assert parts.now(good).last_error is None
    caplog.clear()
    assert parts.schedules.run_due() == 0
    assert caplog.text == ""


def test_a_zone_that_this_machine_no_longer_knows_stops_it_and_says_so(parts: Parts) -> None:
    made, other = parts.make(), parts.make("other", user_id="bob")
    parts.service.close()
    path = Path(parts.service.store.database.database)
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("UPDATE schedules SET rule = replace(rule, 'Berlin', 'Atlantis') WHERE name = 'tea'")
    with NotificationService(path, clock=parts.clock) as service:
        schedules = over(service)
        parts.clock.go(days=1)
        assert schedules.run_due() == 2
        assert schedules.run_due() == 0
        assert (schedules.get(made.id).next_at, schedules.get(other.id).last_error) == (None, None)
        assert "timezone" in (schedules.get(made.id).last_error or "")


# --- the worst end ----------------------------------------------------------------------------------------------------

UNTIL_KILLED = """
import sys
from datetime import datetime, timedelta
from pathlib import Path
from backend import NotificationService
from tests.support.fixed_clock import StillClock
from tests.notifications.test_schedules import over

clock = StillClock(datetime.fromisoformat(sys.argv[2]))
with NotificationService(Path(sys.argv[1]), clock=clock) as service:
    schedules = over(service)
    print("ready", flush=True)
    while True:
        clock.go(minutes=1)
        schedules.run_due()
        print("minute", flush=True)
"""


def test_a_process_killed_at_any_moment_loses_and_repeats_nothing(tmp_path: Path) -> None:
    made = Parts(tmp_path)
    with made.service:
        for number in range(3):
            made.make(f"tea {number}", {"every_minutes": 1}, user_id=f"user {number}")
    path, begin, reached = tmp_path / "n.db", made.clock.now, made.clock.now
    for round_ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", UNTIL_KILLED, str(path), reached.isoformat()],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == "ready\n"
            for _ in range(3 + 5 * round_):
                child.stdout.readline()
            child.send_signal(signal.SIGKILL)
            child.wait(10)
        with closing(sqlite3.connect(path)) as conn:
            # It goes on where the killed one stood: the earliest minute that is not done for all.
            (next_at,) = conn.execute("SELECT min(next_at) FROM schedules").fetchone()
        reached = to_datetime(next_at) - timedelta(minutes=1)
    with NotificationService(path, clock=StillClock(reached)) as service:
        schedules = over(service).page().schedules
        assert {s.last_at for s in schedules} <= {reached, reached + timedelta(minutes=1)}
        for number in range(3):
            told: list[datetime] = []
            cursor: str | None = None
            while True:
                page = service.get_user_notifications(f"user {number}", limit=200, cursor=cursor)
                told += [n.created_at for n in page.notifications]
                if (cursor := page.next_cursor) is None:
                    break
            (last_at,) = {s.last_at for s in schedules if s.name == f"tea {number}"}
            assert last_at is not None
            minutes = round((last_at - begin).total_seconds() / 60)
            assert minutes >= 20
            assert told[::-1] == [begin + timedelta(minutes=n) for n in range(1, minutes + 1)]


def test_what_is_due_is_found_by_its_index(parts: Parts) -> None:
    plan = parts.service.store.read(
        lambda conn: conn.execute(
            "EXPLAIN QUERY PLAN SELECT seq FROM schedules WHERE next_at <= ? ORDER BY next_at LIMIT ?", (1, 1)
        ).fetchall()
    )
    assert [row[3] for row in plan] == ["SEARCH schedules USING COVERING INDEX schedules_due (next_at<?)"]
