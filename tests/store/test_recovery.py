"""A damaged file is set aside, never deleted, the newest good backup takes its place, and the person is told."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend import Backend, Config, Event, StorageError, UserActivityService
from flashflow.backend.core.config import ACTIVITY_FILE, NOTIFICATION_FILE
from flashflow.backend.store.engine import open
from flashflow.backend.store.engine.backup import KEEP, back_up, is_sound
from tests.support.fixed_clock import StillClock
from tests.support.server_process import eventually


def stored(path: Path) -> list[str]:
    """The activity types in a file, through the service."""
    with UserActivityService(path) as service:
        return sorted(row.activity_type for row in service.list_activities().activities)


def filled(path: Path, *types: str) -> Path:
    """An activity file that holds these."""
    with UserActivityService(path) as service:
        for activity_type in types:
            service.track_activity("ada", activity_type)
    return path


# --- damage -----------------------------------------------------------------------------------------------------------


def wreck_the_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff" * 100)


def wreck_the_middle(path: Path) -> None:
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\x5a" * 4096)


def wreck_the_rows(path: Path) -> None:
    """The activities alone: the schema, and so the start, reads as before."""
    with closing(sqlite3.connect(path)) as conn:
        pages = conn.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = 'user_activities'").fetchall()
    with path.open("r+b") as file:
        for (page,) in pages:
            file.seek((page - 1) * 4096)
            file.write(b"\x5a" * 4096)


def cut_it_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 77)


def empty_it(path: Path) -> None:
    os.truncate(path, 0)
    path.with_name(path.name + "-wal").write_bytes(b"garbage" * 1000)


WRECKS = [wreck_the_header, wreck_the_middle, cut_it_short, empty_it]


@pytest.mark.parametrize("wreck", WRECKS)
def test_a_damaged_file_is_set_aside_and_the_newest_good_backup_takes_its_place(tmp_path: Path, wreck: Any) -> None:
    clock, told = StillClock(), list[str]()
    path = filled(tmp_path / "a.db", "one")
    back_up(path, clock, "daily")
    filled(path, "two")
    clock.go(days=1)
    good = back_up(path, clock, "before-schema-2")
    filled(path, "three")
    clock.go(days=1)
    wreck(back_up(path, clock, "daily"))
    wreck(path)
    content = path.read_bytes()

    with UserActivityService(path, clock=clock, messages=told) as service:
        assert sorted(row.activity_type for row in service.list_activities().activities) == ["one", "two"]
        service.track_activity("ada", "four")
    (aside,) = [file for file in tmp_path.glob("*.damaged-*") if not file.name.endswith(("-wal", "-shm"))]
    assert aside.read_bytes() == content
    assert told == [f"a.db was damaged. It was set aside as {aside.name}; the backup {good.name} took its place."]
    assert len(list((tmp_path / "backups").glob("*.db"))) == 3
    assert stored(path) == ["four", "one", "two"]


@pytest.mark.parametrize("wreck", WRECKS)
def test_without_a_backup_the_damaged_file_is_kept_and_a_new_one_started(tmp_path: Path, wreck: Any) -> None:
    told: list[str] = []
    path = filled(tmp_path / "a.db", *(f"type {number}" for number in range(50)))
    wreck(path)
    with UserActivityService(path, messages=told) as service:
        assert service.list_activities().activities == ()
    assert len(told) == 1
    assert "no good backup" in told[0]


def test_the_wal_and_shm_of_a_damaged_file_go_with_it(tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    with UserActivityService(live / "a.db") as service:
        for number in range(20):
            service.track_activity("ada", f"type {number}")
        after_a_kill = tmp_path / "after a kill"
        after_a_kill.mkdir()
        for name in ("a.db", "a.db-wal", "a.db-shm"):
            (after_a_kill / name).write_bytes((live / name).read_bytes())
    path = after_a_kill / "a.db"
    wal = path.with_name("a.db-wal")
    os.truncate(path, 0)
    kept = wal.read_bytes()

    UserActivityService(path, messages=[]).close()
    (aside,) = after_a_kill.glob("*.damaged-*-wal")
    assert aside.read_bytes() == kept
    assert len(list(after_a_kill.glob("*.damaged-*-shm"))) == 1


def test_a_file_that_was_emptied_is_restored_and_a_new_one_is_simply_new(tmp_path: Path) -> None:
    told: list[str] = []
    path = filled(tmp_path / "a.db", "one")
    back_up(path, StillClock(), "daily")
    os.truncate(path, 0)
    with UserActivityService(path, messages=told) as service:
        assert [row.activity_type for row in service.list_activities().activities] == ["one"]
    assert len(told) == 1
    (tmp_path / "new.db").touch()
    with UserActivityService(tmp_path / "new.db", messages=told):
        assert len(told) == 1


def test_a_large_file_that_does_not_read_is_rescued_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filled(tmp_path / "a.db", "one")
    back_up(path, StillClock(), "daily")
    wreck_the_header(path)
    monkeypatch.setattr(open, "CHECK_AT_START_BYTES", 100)
    assert stored(path) == ["one"]


def test_a_large_file_found_damaged_while_running_is_rescued_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path / ACTIVITY_FILE, *(f"type {number}" for number in range(50)))
    back_up(path, StillClock(), "daily")
    wreck_the_rows(path)
    for module in ("flashflow.backend.maintenance", "flashflow.backend.store.engine.open"):
        monkeypatch.setattr(f"{module}.CHECK_AT_START_BYTES", 100)
    heard = threading.Event()
    with Backend(Config(data_dir=tmp_path, me="ada")) as backend:
        backend.bus.subscribe(lambda events: heard.set() if events[0] == Event("file.damaged", ACTIVITY_FILE) else None)
        backend.start(api=False)
        assert heard.wait(10)
        assert "Restart FlashFlow" in backend.notices[0]
    with Backend(Config(data_dir=tmp_path, me="ada")) as backend:
        assert "took its place" in backend.notices[0]
        assert len(backend.activity.list_activities().activities) == 50


@pytest.mark.parametrize("name", [ACTIVITY_FILE, NOTIFICATION_FILE])
def test_the_person_is_told_of_a_recovery_and_finds_it_in_the_inbox(tmp_path: Path, name: str) -> None:
    config = Config(data_dir=tmp_path, me="ada")
    with Backend(config) as backend:
        backend.activity.track_activity("ada", "one")
        backend.notifications.send_notification("ada", "Kept", "here")
    wreck_the_header(tmp_path / name)
    with Backend(config) as backend:
        backend.start(api=False)
        (sentence,) = backend.notices
        assert sentence.startswith(f"{name} was damaged.")
        (notice,) = backend.notifications.get_user_notifications(
            "ada", notification_type="flashflow.system"
        ).notifications
        assert (notice.title, notice.message) == ("Your data was recovered", sentence)
        assert notice.inbox == "unread"
    with Backend(config) as backend:
        assert backend.notices == ()


def test_a_lock_is_not_taken_for_damage(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.db", "one")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("flashflow.backend.store.engine.backup.BUSY_TIMEOUT_S", 0.05)
            with pytest.raises(StorageError, match="Another program"):
                UserActivityService(path)
        other.execute("ROLLBACK")
    assert stored(path) == ["one"]
    assert not list(tmp_path.glob("*.damaged-*"))


# --- backups ----------------------------------------------------------------------------------------------------------


def test_a_backup_taken_while_others_write_is_one_consistent_moment(tmp_path: Path) -> None:
    clock = StillClock()
    with UserActivityService(tmp_path / "a.db") as service:
        enough = threading.Event()

        def write() -> None:
            number = 0
            while not enough.is_set():
                number += 1
                service.track_batch([{"user_id": "ada", "activity_type": f"{number}"}] * 10)

        writers = [threading.Thread(target=write) for _ in range(3)]
        for writer in writers:
            writer.start()
        backups = []
        for _ in range(5):
            clock.go(seconds=1)
            backups.append(back_up(tmp_path / "a.db", clock, "daily"))
        enough.set()
        for writer in writers:
            writer.join()
    for backup in backups:
        assert is_sound(backup)
        with closing(sqlite3.connect(backup)) as conn:
            (rows,) = conn.execute("SELECT COUNT(*) FROM user_activities").fetchone()
            counted = conn.execute("SELECT COALESCE(SUM(total_activities), 0) FROM user_analytics").fetchone()
        assert rows % 10 == 0
        assert counted == (rows,)
    assert sorted(file.suffix for file in (tmp_path / "backups").iterdir()) == [".db"] * 5


def test_only_the_newest_seven_backups_of_a_kind_are_kept(tmp_path: Path) -> None:
    clock = StillClock()
    path = filled(tmp_path / "a.db", "one")
    other = back_up(path, clock, "before-schema-2")
    made = []
    for _ in range(KEEP + 3):
        clock.go(days=1)
        made.append(back_up(path, clock, "daily"))
    assert KEEP == 7
    assert sorted((tmp_path / "backups").iterdir()) == sorted([other, *made[-7:]])


def test_a_backup_that_cannot_be_made_leaves_nothing_half_done(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.db", *(f"type {number}" for number in range(50)))
    wreck_the_header(path)
    with pytest.raises(StorageError):
        back_up(path, StillClock(), "daily")
    assert list((tmp_path / "backups").iterdir()) == []


def test_the_app_backs_both_files_up_once_a_day(tmp_path: Path) -> None:
    clock = StillClock()
    with Backend(Config(data_dir=tmp_path, me="ada"), clock=clock) as backend:
        for _ in range(3):
            backend.maintenance.back_up_daily()
        clock.go(days=1)
        backend.maintenance.back_up_daily()
    names = sorted(path.name for path in (tmp_path / "backups").iterdir())
    assert names == [
        "notifications.20260610T120000000Z.daily.db",
        "notifications.20260611T120000000Z.daily.db",
        "user_activities.20260610T120000000Z.daily.db",
        "user_activities.20260611T120000000Z.daily.db",
    ]


def test_a_file_that_cannot_be_backed_up_does_not_keep_the_other_from_it(tmp_path: Path) -> None:
    half = tmp_path / "backups" / f"user_activities.20260610T120000000Z.daily.{os.getpid()}.part"
    half.mkdir(parents=True)
    with (
        Backend(Config(data_dir=tmp_path, me="ada"), clock=StillClock()) as backend,
        pytest.raises(StorageError, match=r"user_activities\.db cannot be backed up"),
    ):
        backend.maintenance.back_up_daily()
    assert [path.name for path in half.parent.glob("*.db")] == ["notifications.20260610T120000000Z.daily.db"]


def test_a_daily_backup_waits_for_an_erasure(tmp_path: Path) -> None:
    with Backend(Config(data_dir=tmp_path, me="ada"), clock=StillClock()) as backend:
        backend.activity.track_activity("bob", "page_view")
        go_on = threading.Event()
        steps = (
            lambda: backend.activity.store.write(lambda tx: go_on.wait(30)),
            lambda: backend.erasing.erase("bob"),
            backend.maintenance.back_up_daily,
        )
        writing, erasing, backing_up = threads = [threading.Thread(target=step) for step in steps]
        try:
            writing.start()
            erasing.start()
            eventually(backend.erasing.lock.locked, what="the erasure")
            backing_up.start()

            def waits_or_is_over() -> bool:
                frame = sys._current_frames().get(backing_up.ident or 0)
                return not backing_up.is_alive() or (frame is not None and frame.f_code.co_name == "back_up_daily")

            eventually(waits_or_is_over, what="the backup")
        finally:
            go_on.set()
            for thread in threads:
                if thread.ident:
                    thread.join(30)
    backups = sorted((tmp_path / "backups").glob("*.daily.db"))
    assert [path.name.split(".")[0] for path in backups] == ["notifications", "user_activities"]
    with closing(sqlite3.connect(backups[1])) as conn:
        assert conn.execute("SELECT COUNT(*) FROM user_activities").fetchone() == (0,)
