"""Pruning: the oldest rows go, by age or size; what was counted stays, and nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from flashflow.backend import Backend, Config, Filters, StorageError, Tracked, ValidationError, build
from flashflow.backend.activity.ingest import Origin
from flashflow.backend.core.clock import DAY_MS, SystemClock, to_datetime
from flashflow.backend.data.import_activities import import_activities_write
from flashflow.backend.schemas.records import RejectedRow
from flashflow.backend.schemas.requests import ActivityIn
from flashflow.backend.settings.model import RetentionSettings
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.activities import NewActivity
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.privacy.retention import Slice
from flashflow.backend.store.rollups.partitions import pruned_before
from tests.data.test_export import fill
from tests.support.api_client import rows_in
from tests.support.fixed_clock import StillClock
from tests.support.server_process import flashflow, serving


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def backend(tmp_path: Path, clock: StillClock) -> Iterator[Backend]:
    with Backend(Config(data_dir=tmp_path / "data", port=0, me="ada"), clock=clock) as opened:
        yield opened


def days(backend: Backend, clock: StillClock, count: int) -> None:
    """An activity, a session that ended and a notification on each of so many days, the last of them today."""
    start = clock.now - timedelta(days=count - 1)
    for number in range(count):
        clock.now = start + timedelta(days=number)
        backend.activity.track_activity("ada", f"day{number}", session_id=f"s{number}", page_url=f"/{number}")
        backend.activity.end_session(f"s{number}")
        backend.notifications.send_notification("ada", f"day{number}", "m")


def test_what_is_older_than_the_days_goes_and_the_figures_stay(backend: Backend, clock: StillClock) -> None:
    days(backend, clock, 10)
    counters = rows_in(
        backend.data_dir / "user_activities.db",
        "SELECT total_sessions, total_activities, last_activity FROM user_analytics",
    )
    backend.retention.settings = RetentionSettings(activities_days=3, notifications_days=5)
    done = backend.retention.enforce()
    assert (done.activities, done.sessions, done.notifications, done.more) == (6, 6, 4, False)
    left = [a.activity_type for a in backend.activity.list_activities().activities]
    assert left == ["day9", "day8", "day7", "day6"]
    assert [a.activity_type for a in backend.activity.list_activities(user_id="ada").activities] == left
    assert [s.id for s in backend.activity.get_user_sessions("ada").sessions] == ["s9", "s8", "s7", "s6"]
    assert [n.title for n in backend.notifications.get_user_notifications("ada").notifications][-1] == "day4"
    assert backend.notifications.unread_count("ada") == 6
    assert (
        rows_in(
            backend.data_dir / "user_activities.db",
            "SELECT total_sessions, total_activities, last_activity FROM user_analytics",
        )
        == counters
    )
    before = to_datetime(backend.activity.store.read(pruned_before))
    assert clock.at(days=-4) < before <= clock.at(days=-3)
    assert backend.retention.status().pruned_before == before
    again = backend.retention.enforce()
    assert (again.activities, again.sessions, again.notifications) == (0, 0, 0)


def test_who_is_erased_from_a_day_that_is_partly_pruned_leaves_what_was_pruned(
    backend: Backend, clock: StillClock
) -> None:
    """What went tells of nobody; what is still there goes with the person."""
    now = clock.now
    for hour, seconds in ((8, 20), (14, 40), (16, 60)):
        clock.now = now.replace(hour=hour) - timedelta(days=3)
        backend.activity.track_activity("ada", "x", session_id=f"s{hour}", page_url="/")
        clock.go(seconds=seconds)
        backend.activity.end_session(f"s{hour}")
    clock.now = now
    day = backend.activity.analytics.today()[0] - timedelta(days=3)

    def counted() -> tuple[float | None, ...]:
        figures = backend.activity.analytics.overview(Filters(first=day, last=day)).figures
        return tuple(figures[name].value for name in ("sessions", "avg_session_duration"))

    backend.retention.settings = RetentionSettings(activities_days=3)
    done = backend.retention.enforce()
    assert (done.activities, done.sessions, counted()) == (1, 1, (3, 40.0))
    backend.erasing.erase("ada")
    assert counted() == (1, 20.0)


def test_another_zones_days_are_refused_where_their_activities_are_gone(backend: Backend, clock: StillClock) -> None:
    """Counted from what is left they would be too few, and everybody new."""
    days(backend, clock, 60)
    backend.retention.settings = RetentionSettings(activities_days=40)
    backend.retention.enforce()
    analytics, zone = backend.activity.analytics, ZoneInfo("Asia/Kathmandu")
    today = analytics.today()[0]
    assert analytics.overview(Filters(zone=zone)).figures["active_users"].value == 1
    with pytest.raises(ValidationError, match=r"tz: .* were pruned before 2026-"):
        analytics.overview(Filters(first=today - timedelta(days=39), zone=zone))
    assert analytics.overview(Filters(first=today - timedelta(days=39))).figures["activities"].value == 40


def test_unset_keeps_everything(backend: Backend, clock: StillClock) -> None:
    days(backend, clock, 3)
    clock.go(days=10_000)
    backend.retention.begin()
    assert backend.retention.enforce().activities == 0
    assert len(backend.activity.list_activities().activities) == 3


def test_activities_that_were_not_counted_yet_are_counted_before_they_go(backend: Backend, clock: StillClock) -> None:
    rows = [{"user_id": f"u{n}", "activity_type": "t", "timestamp": clock.at(days=-9).isoformat()} for n in range(20)]
    assert backend.activity.track_batch(rows).accepted == 20
    assert backend.activity.store.read(user_index.counted_to) is not None
    assert backend.retention.prune(clock.now_ms() - DAY_MS).activities == 20
    counted = "SELECT COUNT(*), SUM(total_activities) FROM user_analytics"
    assert rows_in(backend.data_dir / "user_activities.db", counted) == [(20, 20)]


def test_what_was_pruned_is_not_taken_again_and_counted_twice(backend: Backend, clock: StillClock) -> None:
    early, late = clock.now - timedelta(days=5), clock.now - timedelta(days=1)
    for timestamp in (early, late):
        backend.activity.track_activity("ada", "a", timestamp=timestamp, activity_id=f"of-{timestamp:%d}")
    row = {"user_id": "ada", "activity_type": "a", "timestamp": early.isoformat(), "activity_id": f"of-{early:%d}"}
    backend.retention.settings = RetentionSettings(activities_days=3)
    assert backend.retention.enforce().activities == 1
    total = "SELECT SUM(activities), COUNT(*) FROM activity_hours"
    counted = rows_in(backend.data_dir / "user_activities.db", total)

    def refused() -> None:
        with pytest.raises(ValidationError, match="were pruned"):
            backend.activity.track_activity("ada", "a", timestamp=early, activity_id=f"of-{early:%d}")
        batch = [{**row, "timestamp": early}, {**row, "timestamp": late, "activity_id": f"of-{late:%d}"}]
        answer = backend.activity.track_batch(batch)
        assert (answer.accepted, answer.duplicates, [r.index for r in answer.rejected]) == (0, 1, [0])
        imported = backend.activity.store.run(import_activities_write(backend.activity, [msgspec.json.encode(row)]))
        assert (imported.accepted, len(imported.rejected)) == (0, 1)

    refused()
    backend.activity.admission.pruned_before = None  # as after the next start
    refused()
    backend.activity.store.write(backend.activity.rollups.catch_up)
    assert rows_in(backend.data_dir / "user_activities.db", total) == counted


def test_a_row_repeated_in_the_moment_its_first_copy_is_pruned_is_refused(backend: Backend, clock: StillClock) -> None:
    """Each write is made, which checks it, before the first copies go, and done after."""
    service, origin = backend.activity, Origin()
    early, late = clock.now - timedelta(days=5), clock.now - timedelta(days=1)

    def said(name: str, timestamp: datetime) -> dict[str, Any]:
        return {"user_id": "ada", "activity_type": "a", "timestamp": timestamp, "activity_id": name}

    def one(name: str, timestamp: datetime) -> Write[NewActivity, Tracked]:
        return service.track_write(build(ActivityIn, **said(name, timestamp)), origin)

    rows = [said("early", early), said("new", late), said("late", late)]
    exported = [msgspec.json.encode(row) for row in rows]
    service.track_batch([said("early", early), said("late", late)])
    singles = [one("late", late), one("early", early), one("other", late)]
    batch, imported = service.batch_write(rows, None, origin), import_activities_write(service, exported)
    alone = one("early", early)
    assert backend.retention.prune(clock.now_ms() - 3 * DAY_MS).activities == 1

    with pytest.raises(ValidationError, match=r"^timestamp: is too old: .* were pruned$") as refused:
        service.store.run(alone)
    again, old, other = service.store.writer.run_all(singles)
    assert isinstance(again, Tracked)
    assert again.duplicate
    assert isinstance(old, ValidationError)
    assert old.errors == refused.value.errors
    assert isinstance(other, Tracked)
    assert not other.duplicate
    for write, new in ((batch, 1), (imported, 0)):
        answer = service.store.run(write)
        assert (answer.accepted, answer.duplicates) == (new, 2 - new)
        assert answer.rejected == (RejectedRow(index=0, errors=tuple((f, m) for f, m in refused.value.errors)),)
    with pytest.raises(ValidationError) as at_once:
        one("early", early)
    assert at_once.value.errors == refused.value.errors
    assert rows_in(backend.data_dir / "user_activities.db", "SELECT COUNT(*) FROM user_activities") == [(3,)]


def test_a_row_without_a_time_of_its_own_is_never_too_old(backend: Backend, clock: StillClock) -> None:
    service = backend.activity
    service.track_activity("ada", "a", timestamp=clock.at(minutes=30))
    waiting = service.track_write(ActivityIn(user_id="ada", activity_type="b"), Origin())
    assert backend.retention.prune(clock.now_ms() + DAY_MS).activities == 1
    assert not service.store.run(waiting).duplicate


def test_a_pruning_that_is_undone_refuses_nothing(backend: Backend, clock: StillClock) -> None:
    service, early = backend.activity, clock.now - timedelta(days=5)
    service.track_activity("ada", "a", timestamp=early)

    def prune(tx: Tx, items: Sequence[None]) -> list[None]:
        backend.retention._prune_activities(tx, Slice(clock.now_ms(), 100))
        raise StorageError("in the middle of it")

    with pytest.raises(StorageError):
        service.store.run(Write(prune, None))
    assert not service.track_activity("ada", "a", timestamp=early).duplicate


def test_what_is_still_to_happen_is_not_cut_short(backend: Backend, clock: StillClock) -> None:
    told = backend.notifications
    told.send_notification("ada", "scheduled", "m", scheduled_at=clock.at(days=30))
    told.snooze_notification(told.send_notification("ada", "snoozed", "m").notification_id, clock.at(days=30))
    told.send_notification("ada", "over", "m")
    open_session = backend.activity.start_session("ada").session
    assert open_session is not None
    clock.go(days=20)
    done = backend.retention.prune(clock.now_ms())
    assert (done.notifications, done.sessions) == (1, 0)
    titles = {n.title for n in told.get_user_notifications("ada", status="all").notifications}
    assert titles == {"scheduled", "snoozed"}


def test_a_file_over_its_size_loses_its_oldest_activities_and_no_more_than_it_must(tmp_path: Path) -> None:
    with Backend(Config(data_dir=tmp_path, port=0, me="ada"), clock=StillClock()) as backend:
        fill(tmp_path / "user_activities.db", 60_000)
        full = backend.retention.status().activity_bytes
        most = full * 3 // 4 // (1024 * 1024)
        backend.retention.settings = RetentionSettings(max_mb=most)
        done = backend.retention.enforce()
        kept = backend.retention.status()
        assert kept.activity_bytes + kept.notification_bytes <= most * 1024 * 1024
        assert 0.1 < done.activities / 60_000 < 0.7  # the figures stay whole
        (oldest,) = rows_in(tmp_path / "user_activities.db", "SELECT MIN(timestamp) FROM user_activities")[0]
        assert oldest == 1_700_000_000_000 + (done.activities + 1) * 1000


def test_nobody_waits_for_it(tmp_path: Path) -> None:
    """A hundred thousand rows go while another writes; the longest wait is told apart from the machine's own noise by
    its median neighbour."""
    with Backend(Config(data_dir=tmp_path, port=0, me="ada")) as backend:
        fill(tmp_path / "user_activities.db", 60_000)
        waits: list[float] = []
        pruning = threading.Thread(target=lambda: backend.retention.prune(SystemClock().now_ms(), "activities"))
        pruning.start()
        while pruning.is_alive():
            started = time.perf_counter()
            backend.activity.track_activity("ada", "t")
            waits.append(time.perf_counter() - started)
        pruning.join()
        assert len(waits) > 20
        assert sorted(waits)[len(waits) * 9 // 10] < 0.05


def test_the_command_says_how_much_and_does_it_with_the_server_running_or_not(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Backend(Config(data_dir=data, port=0, me="ada")) as backend:
        fill(data / "user_activities.db", 3_000)
        backend.activity.track_activity("ada", "today")
    would = flashflow("prune", "--keep-days", "30", "--dry-run", data_dir=data)
    assert would.stdout.startswith("Would prune 3,000 activities, 0 sessions, 0 notifications")
    with serving(data):
        would = flashflow("prune", "--before", "2023-11-14T22:30:00Z", "--dry-run", data_dir=data)
        assert would.stdout.startswith("Would prune 999 activities"), would
        done = flashflow("prune", "--before", "2023-11-14T22:30:00Z", data_dir=data)
        assert done.stdout.startswith("Pruned 999 activities"), done
    done = flashflow("prune", "--keep-days", "30", data_dir=data)
    assert done.stdout.startswith("Pruned 2,001 activities"), done
    assert rows_in(data / "user_activities.db", "SELECT activity_type FROM user_activities") == [("today",)]
    assert flashflow("prune", data_dir=data).returncode == 2


def test_a_backup_is_made_with_the_server_running_or_not_and_opens_as_it_was(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    with serving(data) as server:
        assert server.api("POST", "/api/activity/track", {"user_id": "ada", "activity_type": "t"}).status_code == 201
        running = flashflow("backup", str(elsewhere), data_dir=data)
    stopped = flashflow("backup", data_dir=data)
    for done, folder in ((running, elsewhere), (stopped, data / "backups")):
        assert (done.returncode, done.stderr) == (0, "")
        paths = [Path(line) for line in done.stdout.splitlines()]
        assert [path.name.split(".")[0] for path in paths] == ["user_activities", "notifications"]
        assert {path.parent for path in paths} == {folder}
        assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
        assert rows_in(paths[0], "SELECT activity_type FROM user_activities") == [("t",)]
    nothing = flashflow("backup", data_dir=tmp_path / "nothing")
    assert (nothing.returncode, len(nothing.stderr.splitlines())) == (1, 1)
