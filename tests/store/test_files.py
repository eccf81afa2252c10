"""The files: private, durable, versioned, and rescued when they are damaged."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from peewee import TextField

from flashflow.backend import (
    AlreadyRunning,
    Backend,
    Config,
    NotificationService,
    SchemaTooNew,
    StorageError,
    UserActivityService,
)
from flashflow.backend.core.config import ACTIVITY_FILE, NOTIFICATION_FILE, default_data_dir, load_config
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.models import BaseModel
from flashflow.backend.store.engine.open import open_store
from flashflow.backend.store.engine.schema import FileSchema, Step
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.files import ACTIVITY_SCHEMA, NOTIFICATION_SCHEMA
from tests.support.fixed_clock import StillClock
from tests.support.server_process import ROOT, eventually

HOLD_THE_FOLDER = """
import sys
from pathlib import Path
from flashflow.backend.store.engine.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def open_mask() -> Iterator[None]:
    """A umask that protects nothing: what is private is so on purpose."""
    before = os.umask(0)
    yield
    os.umask(before)


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


# --- who may read them ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "environ", "folder"),
    [
        ("linux", {}, "HOME/.local/share/flashflow"),
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/flashflow"),
        ("linux", {"XDG_DATA_HOME": "data"}, "HOME/.local/share/flashflow"),
        ("darwin", {}, "HOME/Library/Application Support/FlashFlow"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/FlashFlow"),
        ("win32", {}, "HOME/AppData/Local/FlashFlow"),
        ("android", {"FLET_APP_STORAGE_DATA": "/app/files"}, "/app/files"),
        ("linux", {"FLET_APP_STORAGE_DATA": "/app/files", "FLASHFLOW_DATA_DIR": "/mine"}, "/mine"),
        ("linux", {"FLASHFLOW_DATA_DIR": "~/mine"}, "HOME/mine"),
    ],
)
def test_the_data_folder_is_the_one_asked_for_or_the_platforms_own(
    platform: str, environ: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_data_dir(environ) == Path(folder.replace("HOME", "/home/ada"))
    assert load_config(environ, data_dir="/asked").data_dir == Path("/asked")


@pytest.mark.usefixtures("open_mask")
def test_everything_in_the_data_folder_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with Backend(Config(data_dir=folder, port=0, me="ada")) as backend:
        backend.start()
        backend.activity.track_activity("ada", "page_view")
        eventually(lambda: len(list((folder / "backups").glob("*.daily.db"))) == 2, what="the first backups")
        modes = {
            path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode)
            for path in (folder, *folder.rglob("*"))
        }
    assert {name for name, mode in modes.items() if mode == 0o700} == {"data", "data/backups"}
    assert {name for name, mode in modes.items() if mode == 0o600} == modes.keys() - {"data", "data/backups"}
    names = {Path(name).name for name in modes}
    assert {"local.key", "computer.id", "server.json", "flashflow.lock"} <= names
    assert {f"{ACTIVITY_FILE}{end}" for end in ("", "-wal", "-shm")} <= names
    assert {f"{NOTIFICATION_FILE}{end}" for end in ("", "-wal", "-shm")} <= names


@pytest.mark.usefixtures("open_mask")
def test_a_file_that_others_could_read_is_made_private_when_it_is_opened(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.db", "one")
    path.chmod(0o644)
    with UserActivityService(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


# --- durable on every connection --------------------------------------------------------------------------------------


def test_every_connection_has_wal_and_full_sync_in_force(tmp_path: Path) -> None:
    with UserActivityService(tmp_path / "a.db") as service:
        answers = [service.store.read(pragmas)]
        reader = threading.Thread(target=lambda: answers.append(service.store.read(pragmas)))
        reader.start()
        reader.join()

        def ask(tx: Tx, items: Sequence[None]) -> list[tuple[str, int, int]]:
            return [pragmas(tx.conn) for _ in items]

        answers.append(service.store.run(Write(ask, None)))
    assert answers == [("wal", 2, 1)] * 3


def pragmas(conn: sqlite3.Connection) -> tuple[str, int, int]:
    return tuple(
        conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "foreign_keys")
    )


def test_a_clean_close_folds_the_wal_into_the_file(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.db", "one", "two")
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]
    assert stored(path) == ["one", "two"]


# --- versions ---------------------------------------------------------------------------------------------------------


def opened(path: Path, schema: FileSchema, told: list[str] | None = None) -> Store:
    return open_store(path, schema, StillClock(), lambda events: None, [].append if told is None else told.append)


def version_and_schema(path: Path) -> tuple[int, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(path)) as conn:
        schema = conn.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        return conn.execute("PRAGMA user_version").fetchone()[0], schema


def test_opening_a_file_again_changes_nothing_of_its_schema(tmp_path: Path) -> None:
    for service, name in ((UserActivityService, "a.db"), (NotificationService, "n.db")):
        service(tmp_path / name).close()
        first = version_and_schema(tmp_path / name)
        service(tmp_path / name).close()
        assert version_and_schema(tmp_path / name) == first
        assert first[0] == (ACTIVITY_SCHEMA if name == "a.db" else NOTIFICATION_SCHEMA).version
    assert not (tmp_path / "backups").exists()


class Note(BaseModel):
    """A table of a newer version."""

    text = TextField(null=True)

    class Meta:
        table_name = "notes"
        primary_key = False


def with_notes(*runs: Callable[[sqlite3.Connection], Any]) -> FileSchema:
    """The schema of a version that has notes, and the step to it."""

    def run(conn: sqlite3.Connection, report: Any) -> None:
        for one in runs:
            one(conn)

    now = ACTIVITY_SCHEMA.version
    return ACTIVITY_SCHEMA._replace(
        models=(*ACTIVITY_SCHEMA.models, Note), version=now + 1, steps=(*ACTIVITY_SCHEMA.steps, Step(now, now + 1, run))
    )


def add_notes(conn: sqlite3.Connection) -> None:
    conn.execute("CREATE TABLE notes (text TEXT)")


def test_a_file_with_data_is_backed_up_before_it_is_migrated(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.db", "one")
    opened(path, with_notes(add_notes)).close()

    now = ACTIVITY_SCHEMA.version
    assert version_and_schema(path)[0] == now + 1
    (backup,) = (tmp_path / "backups").iterdir()
    assert f".before-schema-{now + 1}." in backup.name
    assert version_and_schema(backup)[0] == now
    assert stored(backup) == ["one"]


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.db", "one")
    before = version_and_schema(path)

    def fails(conn: sqlite3.Connection) -> None:
        conn.execute("DELETE FROM user_activities")
        conn.execute("SELECT no_such_column FROM user_activities")

    with pytest.raises(StorageError):
        opened(path, with_notes(add_notes, fails))
    assert version_and_schema(path) == before
    assert stored(path) == ["one"]
    assert not list(tmp_path.glob("*.damaged-*"))


def test_a_file_of_a_newer_flashflow_is_refused_in_one_line_and_left_as_it_is(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.db", "one")
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA user_version = 999")
    content = path.read_bytes()
    with pytest.raises(SchemaTooNew) as refusal:
        UserActivityService(path)
    assert "newer FlashFlow" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]


# --- one FlashFlow per folder -----------------------------------------------------------------------------------------


def test_a_second_backend_on_the_folder_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path, me="ada")
    with Backend(config), pytest.raises(AlreadyRunning, match=str(tmp_path)):
        Backend(config)
    Backend(config).close()


def test_a_process_that_was_killed_holds_the_folder_no_longer(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_FOLDER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(AlreadyRunning):
            Backend(Config(data_dir=tmp_path, me="ada"))
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    Backend(Config(data_dir=tmp_path, me="ada")).close()


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as refusal:
        Backend(Config(data_dir=tmp_path / "file" / "data", me="ada"))
    assert "\n" not in str(refusal.value)
