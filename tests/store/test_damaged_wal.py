"""Acknowledged rows that a damaged WAL takes with it are reported: how many, and which backup holds them."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from flashflow.backend.core.clock import SystemClock
from flashflow.backend.core.config import ACTIVITY_FILE, NOTIFICATION_FILE
from flashflow.backend.store.engine.backup import back_up
from tests.support.server_process import ServerProcess, eventually, flashflow, serving

MANY = 500
OURS = {"FLASHFLOW_USER": "ada"}


def batch(server: ServerProcess, start: int, user: str = "bob") -> None:
    rows = [{"user_id": user, "activity_type": "click", "activity_id": f"a{start + n}"} for n in range(MANY)]
    assert server.api("POST", "/api/activity/batch", {"activities": rows}).json()["accepted"] == MANY


def flip(place: Callable[[int], int]) -> Callable[[Path], object]:
    def damage(wal: Path) -> None:
        content = bytearray(wal.read_bytes())
        content[place(len(content))] ^= 4
        wal.write_bytes(content)

    return damage


DAMAGE = {
    "a bit of the header": flip(lambda size: 17),
    "a bit of the first page": flip(lambda size: 100),
    "a bit in the middle": flip(lambda size: size // 2),
    "removed": Path.unlink,
    "emptied": lambda wal: os.truncate(wal, 0),
    "cut": lambda wal: os.truncate(wal, 5000),
}


def stored(path: Path) -> int:
    """How many activities the file holds."""
    with closing(sqlite3.connect(path)) as conn:
        return int(conn.execute("SELECT COUNT(*) FROM user_activities").fetchone()[0])


def sentences(server: ServerProcess) -> list[str]:
    """What the owner's inbox says about the files."""
    inbox = server.everything("/api/notifications/user/ada", "notifications", notification_type="flashflow.system")
    return [row["message"] for row in inbox]


@pytest.mark.parametrize("damage", DAMAGE)
def test_rows_that_a_damaged_wal_takes_are_reported_with_the_backup_that_holds_them(
    tmp_path: Path, damage: str
) -> None:
    live, folder = tmp_path / "live", tmp_path / "data"
    path = live / ACTIVITY_FILE
    with serving(live, env=OURS) as server, closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")  # as long as this is read, nothing that is written now can be folded
        reader.execute("SELECT COUNT(*) FROM user_activities").fetchone()
        batch(server, 0)
        batch(server, MANY)
        backup = back_up(path, SystemClock(), "daily").name
        batch(server, 2 * MANY)
        server.kill()
        shutil.copytree(live, folder, ignore=shutil.ignore_patterns("*-shm"))
    wal = folder / f"{ACTIVITY_FILE}-wal"
    DAMAGE[damage](wal)
    with serving(folder, env=OURS) as server:
        there = len(list(server.everything("/api/activity", "activities", user_id="bob")))
        assert there < 3 * MANY
        (sentence,) = sentences(server)
        assert f" lacks {3 * MANY - there:,} activities" in sentence
        if there < 2 * MANY:
            assert f"The backup {backup} holds {2 * MANY - there:,} activities" in sentence
        else:
            assert "No backup holds any of them" in sentence
        assert len(list(folder.glob("*.damaged-*-wal"))) == damage.startswith("a bit")
        assert server.api("GET", "/api/health").json()["storage"] == "rows_missing"
        assert sentence in server.err
        server.kill()
    with serving(folder, env=OURS) as server:
        assert sentences(server) == [sentence], "it is said once"
        assert server.api("GET", "/api/health").json()["status"] == "ok"


@pytest.mark.parametrize("name", [ACTIVITY_FILE, NOTIFICATION_FILE])
def test_a_file_that_an_older_one_replaced_is_noticed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    with serving(folder, env=OURS) as server:
        server.stop()
    older = (folder / name).read_bytes()
    with serving(folder, env=OURS) as server:
        batch(server, 0)
        body = {"user_id": "bob", "title": "Build", "message": "done"}
        assert server.api("POST", "/api/notifications/send", body).status_code == 201
        server.stop()
    (folder / name).write_bytes(older)
    with serving(folder, env=OURS) as server:
        (sentence,) = sentences(server)
        assert sentence.startswith(f"{name} lacks ")


def test_what_a_command_finds_missing_is_in_the_inbox_too(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with serving(folder, env=OURS) as server:
        server.stop()
    older = (folder / ACTIVITY_FILE).read_bytes()
    with serving(folder, env=OURS) as server:
        batch(server, 0)
        server.stop()
    (folder / ACTIVITY_FILE).write_bytes(older)
    assert flashflow("track", "bob", "click", data_dir=folder, env=OURS).returncode == 0
    with serving(folder, env=OURS) as server:
        (sentence,) = sentences(server)
        assert sentence.startswith(f"{ACTIVITY_FILE} lacks 500 activities")


def test_what_was_acknowledged_is_in_the_file_itself_soon_after(tmp_path: Path) -> None:
    path, alone = tmp_path / "data" / ACTIVITY_FILE, tmp_path / "alone.db"
    with serving(path.parent) as server:
        batch(server, 0)

        def folded() -> bool:
            shutil.copyfile(path, alone)  # without its WAL
            return stored(alone) == MANY

        eventually(folded, what="the fold")


def test_an_end_by_kill_or_an_erasure_is_no_loss(tmp_path: Path) -> None:
    for number in range(3):
        with serving(tmp_path, env=OURS) as server:
            assert sentences(server) == []
            batch(server, number * MANY, f"user {number}")
            assert server.api("DELETE", f"/api/users/user {number}").status_code == 200
            server.kill() if number % 2 else server.stop()
    with serving(tmp_path, env=OURS) as server:
        assert sentences(server) == []
        assert "lacks" not in server.err
