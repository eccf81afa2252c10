"""Files of older schemas: they become exactly what the models create, or are refused in one clear line."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from flashflow.backend import NotificationService, SchemaTooNew, UserActivityService
from flashflow.backend.core.encoding import decode_address, decode_id
from flashflow.backend.core.errors import SchemaUnknown
from flashflow.backend.store.engine import upgrade
from flashflow.backend.store.engine.schema import FileSchema, Step, create, describe_differences
from flashflow.backend.store.engine.upgrade import bring_up_to_date
from flashflow.backend.store.files import ACTIVITY_SCHEMA, NOTIFICATION_SCHEMA
from tests.support.fixed_clock import StillClock
from tests.support.old_files import write_old_file
from tests.support.server_process import ROOT

Name = Literal["user_activities", "notifications"]
SCHEMAS: dict[Name, FileSchema] = {"user_activities": ACTIVITY_SCHEMA, "notifications": NOTIFICATION_SCHEMA}
IDS: dict[str, dict[str, int]] = {
    "user_activities": {"id": 100, "session_id": 100, "ip_address": 100},
    "user_sessions": {"id": 100, "ip_address": 101},
    "notifications": {"id": 100},
    "deliveries": {"id": 100},
    "notification_templates": {"id": 100},
    "schedules": {"id": 100},
    "rules": {"id": 100},
}
"""Columns of ids and addresses, with the schema since which they are bytes. Devices stand apart: their registrations
are merged."""
DIGESTS = {
    ("user_activities", 15): "9d19db4ddd58c0f8",
    ("user_activities", 100): "b452339a4c78644a",
    ("user_activities", 101): "a419419b35739652",
    ("user_activities", 102): "8a3e81522fe9a335",
    ("notifications", 15): "e64b3417de9bf595",
    ("notifications", 100): "7b358780a8392ba0",
    ("notifications", 101): "3ff788afa933fc79",
    ("notifications", 102): "2c653456af3cf094",
    ("notifications", 103): "189b8a23d7780ca4",
}
"""The schema that each step leads to. A landed step does not change, so neither does its digest."""


@pytest.fixture(params=list(SCHEMAS))
def name(request: pytest.FixtureRequest) -> Name:
    found: Name = request.param
    return found


@pytest.fixture
def source(request: pytest.FixtureRequest) -> str:
    found: str = getattr(request, "param", "324aca6")
    return found


from_every_source = pytest.mark.parametrize("source", ["324aca6", "100"], indirect=True)


@pytest.fixture
def path(tmp_path: Path, name: Name, source: str) -> Path:
    path = tmp_path / f"{name}.db"
    write_old_file(name, path, source=source)
    return path


@pytest.fixture
def new(tmp_path: Path, name: Name) -> Path:
    """A new file."""
    path = tmp_path / f"{name}.db"
    bring_up_to_date(path, SCHEMAS[name], StillClock())
    return path


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        for statement in statements:
            conn.execute(statement)
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as conn:
        return int(conn.execute("PRAGMA user_version").fetchone()[0])


# --- the way up -------------------------------------------------------------------------------------------------------


def old_text(value: Any, *, address: bool) -> str | None:
    """An id or address before schema 100: bytes of a UUID or an address, or text."""
    if value is None or isinstance(value, str):
        return value
    return str(ip_address(value)) if address else str(UUID(bytes=value))


def ids(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every id and address as text, by table."""
    found = {}
    schema = version(path)

    def text(value: Any, column: str, since: int) -> str | None:
        address = column == "ip_address"
        if schema < since:
            return old_text(value, address=address)
        return decode_address(value) if address else decode_id(value)

    with closing(sqlite3.connect(path)) as conn:
        tables = {table for (table,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table, columns in IDS.items():
            if table in tables:
                found[table] = [
                    tuple(text(value, *column) for value, column in zip(row, columns.items(), strict=True))
                    for row in conn.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY seq")
                ]
    return found


RENAMED = {
    "figure_users": "user_keys",
    "figure_names": "dimensions",
    "figures_state": "rollup_state",
    "activity_parts": "activity_partitions",
}
"""Tables by their names before schema 102."""


def counts(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as conn:
        # Without the tables of the search index, which ``search`` makes.
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'notification_search%'"
        tables = [t for (t,) in conn.execute(query)]
        return {
            RENAMED.get(table, table): conn.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables
        }


@from_every_source
def test_an_old_file_becomes_what_the_models_create_and_keeps_every_row(path: Path, name: Name, source: str) -> None:
    before, texts = counts(path), ids(path)
    assert all(before.values()), "a table of the old file has no rows"
    if name == "user_activities":  # ids as long as the bytes of a UUID
        assert {16} <= {len(text.encode()) for text, *_ in texts[name]}
    content = path.read_bytes()
    assert bring_up_to_date(path, SCHEMAS[name], StillClock()) == []
    assert version(path) == SCHEMAS[name].version
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
        assert describe_differences(conn, SCHEMAS[name]) == []
        for table, columns in IDS.items():
            if table in before:
                for column in columns:
                    types = conn.execute(f"SELECT DISTINCT typeof({column}) FROM {table}").fetchall()
                    assert set(types) <= {("blob",), ("null",)}, f"{table}.{column}"
    assert ids(path) == texts
    after = counts(path)
    merged = {"device_tokens": 3} if (name, source) == ("notifications", "324aca6") else {}
    assert {table: before[table] - after[table] for table in before if before[table] != after[table]} == merged
    (backup,) = (path.parent / "backups").iterdir()
    assert f"before-schema-{SCHEMAS[name].version}" in backup.name
    with closing(sqlite3.connect(backup)) as conn, closing(sqlite3.connect(":memory:")) as first:
        first.deserialize(content)
        assert list(conn.iterdump()) == list(first.iterdump())


@from_every_source
def test_the_services_work_on_upgraded_files(tmp_path: Path, source: str) -> None:
    for name in SCHEMAS:
        write_old_file(name, tmp_path / f"{name}.db", source=source)
    with (
        UserActivityService(tmp_path / "user_activities.db", zone=ZoneInfo("UTC")) as activities,
        NotificationService(tmp_path / "notifications.db") as notifications,
    ):
        assert activities.rollups.verify() == ()
        (found,) = activities.list_activities(user_id="ada", limit=200).activities[-1:]
        assert activities.track_activity("ada", "again", activity_id=found.id, app=found.app).duplicate
        sessions = activities.get_user_sessions("ada", limit=200).sessions
        sessions += activities.get_user_sessions("dee").sessions
        assert any(len(session.id) == 16 for session in sessions)
        for session in sessions[:20]:
            assert activities.list_activities(session_id=session.id).activities
        listed = notifications.get_user_notifications("ada", status="all", limit=100).notifications
        assert notifications.get_notification(listed[0].id).notification == listed[0]
        assert {device.id for device in notifications.list_devices("ada")} >= (
            {"device-5"} if source == "324aca6" else set()
        )
        sent = notifications.send_notification("ada", "Title", "Message")
        assert notifications.mark_notification_as_read(sent.notification_id).read_at is not None


def digest(conn: sqlite3.Connection) -> str:
    """SHA-256 of a schema: the SQL of all its parts in order of their names, without the kind of white space."""
    parts = conn.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name")
    text = "\n".join(" ".join([kind, part, *re.findall(r"\w+|[^\w\s]", sql)]) for kind, part, sql in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_landed_step_leads_to_the_same_schema_for_ever(path: Path, name: Name) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        for step in SCHEMAS[name].steps:
            step.run(conn, lambda text: None)
            assert digest(conn) == DIGESTS[name, step.target], f"step to {step.target}"
    assert {step.target for step in SCHEMAS[name].steps} == {target for file, target in DIGESTS if file == name}


def test_steps_call_no_live_code() -> None:
    for module in (ROOT / "backend" / "store" / "migrations").glob("*.py"):
        for line in module.read_text("utf-8").splitlines():
            if line.startswith(("import ", "from ")) and "flashflow" in line:
                assert line.startswith("from flashflow.backend.store.migrations."), f"{module.name}: {line}"


def test_an_upgrade_says_what_it_does_at_least_every_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert upgrade.PROGRESS_S <= 2

    def slow(conn: sqlite3.Connection, report: Any) -> None:
        report("counting")
        time.sleep(0.5)

    path = tmp_path / "x.db"
    bring_up_to_date(path, FileSchema(()), StillClock())
    monkeypatch.setattr(upgrade, "PROGRESS_S", 0.05)
    with caplog.at_level(logging.WARNING):
        bring_up_to_date(path, FileSchema((), version=2, steps=(Step(1, 2, slow),)), StillClock())
    assert caplog.messages[0] == "x.db is upgraded from schema 1 to 2"
    assert sum(message.startswith("upgrading x.db: counting (") for message in caplog.messages) >= 4
    assert re.fullmatch(r"x.db has schema 2 now; x\..*\.before-schema-2\.db is the file before it", caplog.messages[-1])


KILLED = """
import sys
from pathlib import Path
from flashflow.backend.store.engine.upgrade import bring_up_to_date
from flashflow.backend.store import files
from tests.support.fixed_clock import StillClock
schema = getattr(files, sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
bring_up_to_date(Path(sys.argv[1]), schema, StillClock())
print("done", flush=True)
"""


def killed_upgrade(path: Path, schema: str, seconds: float) -> bool:
    """Upgrade in another process, killed after ``seconds``; return whether it had finished."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), schema],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        return "done" in process.stdout.read()


@from_every_source
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_kill_at_any_time_leaves_the_old_or_the_new_file(path: Path, name: Name) -> None:
    chance = random.Random(f"{os.environ['FLASHFLOW_TEST_SEED']} {name}")
    began = version(path)
    if name == "user_activities":
        copies = f"json_each('{list(range(1, 61))}') n"
        id_ = f"CAST('copy-' || seq || '-' || n.value AS {'TEXT' if began < 100 else 'BLOB'})"
        columns = "user_id, activity_type, session_id, app, timestamp, received_at, metadata"
        about = "user_id, app, start_time, last_seen, ip_address"
        change(
            path,
            f"INSERT INTO user_activities (id, {columns}) SELECT {id_}, {columns} FROM user_activities, {copies}",
            f"INSERT INTO user_sessions (id, revision, {about}) SELECT {id_}, revision + 1e6 * n.value, {about} "
            f"FROM user_sessions, {copies}",
        )
    texts = ids(path)
    schema = "ACTIVITY_SCHEMA" if name == "user_activities" else "NOTIFICATION_SCHEMA"
    longest = 0.6
    finished = 0
    for _ in range(8):
        if version(path) == SCHEMAS[name].version:
            break
        finished += killed_upgrade(path, schema, chance.uniform(0, longest))
        assert version(path) in (began, SCHEMAS[name].version)
        assert ids(path) == texts
    bring_up_to_date(path, SCHEMAS[name], StillClock())
    assert ids(path) == texts
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# --- bad input --------------------------------------------------------------------------------------------------------


def refused(path: Path, name: Name, error: type[Exception] = SchemaUnknown) -> str:
    """The line that refuses ``path``, which stays as it is."""
    with closing(sqlite3.connect(path)) as conn:
        before = list(conn.iterdump()), version(path)
    with pytest.raises(error) as refusal:
        bring_up_to_date(path, SCHEMAS[name], StillClock())
    with closing(sqlite3.connect(path)) as conn:
        assert (list(conn.iterdump()), version(path)) == before
    text = str(refusal.value)
    assert "\n" not in text
    assert "Nothing was changed." in text or "Nothing was changed;" in text
    return text


def test_a_newer_schema_is_refused(new: Path, name: Name) -> None:
    newer = SCHEMAS[name].version + 1
    change(new, f"PRAGMA user_version = {newer}")
    assert f"{name}.db was written by a newer FlashFlow (schema {newer}" in refused(new, name, SchemaTooNew)


@pytest.mark.parametrize("number", [0, 1, 12, 14, 99])
def test_a_development_schema_is_refused(path: Path, name: Name, number: int) -> None:
    change(path, f"PRAGMA user_version = {number}")
    text = refused(path, name)
    assert f"{name}.db has schema {number}, which this FlashFlow cannot upgrade" in text
    assert text.endswith("There is no backup of it.")


def test_a_backup_is_named(new: Path, name: Name) -> None:
    (new.parent / "backups").mkdir()
    (new.parent / "backups" / f"{name}.20261101T000000000Z.daily.db").write_bytes(b"x")
    change(new, "PRAGMA user_version = 9")
    assert refused(new, name).endswith(f"Its newest backup is backups/{name}.20261101T000000000Z.daily.db.")


def test_an_older_schema_with_other_tables_is_refused(path: Path, name: Name) -> None:
    if name == "user_activities":
        change(path, "DROP TABLE figures_state")
        text = refused(path, name)
        assert "cannot be upgraded from schema 13, from which it differs: no such table: figures_state" in text
    else:
        change(path, "ALTER TABLE rules RENAME COLUMN last_error TO fault")
        text = refused(path, name)
        assert "cannot be upgraded from schema 7, from which it differs: no such column: last_error" in text
    (backup,) = (path.parent / "backups").iterdir()
    assert backup.name in text


@from_every_source
@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("user_activities", "user_activities.referrer"),
        ("user_activities", "user_sessions.device_info"),
        ("notifications", "contacts.phone"),
    ],
)
def test_a_step_that_leads_elsewhere_is_refused(path: Path, name: Name, column: str) -> None:
    change(path, "DROP VIEW IF EXISTS user_timeline", "ALTER TABLE {} DROP COLUMN {}".format(*column.split(".")))
    text = refused(path, name)
    assert f"The column {column} is missing." in text
    assert f"before-schema-{SCHEMAS[name].version}.db" in text


def test_a_half_upgraded_file_is_refused(path: Path, name: Name) -> None:
    change(path, f"PRAGMA user_version = {SCHEMAS[name].version}")
    text = refused(path, name)
    assert f"{name}.db differs from its schema {SCHEMAS[name].version}: The " in text
    assert "is missing" in text


def test_missing_indexes_triggers_and_views_are_created_again(
    new: Path, name: Name, caplog: pytest.LogCaptureFixture
) -> None:
    index, trigger = (
        ("user_sessions_open", "name_blocks_more")
        if name == "user_activities"
        else ("deliveries_due", "inbox_counts_insert")
    )
    change(new, f"DROP INDEX {index}", f"DROP TRIGGER {trigger}")
    notes = [
        f"{name}.db: The index {index} is missing. It was created again.",
        f"{name}.db: The trigger {trigger} is missing. It was created again.",
    ]
    with caplog.at_level(logging.WARNING):
        assert bring_up_to_date(new, SCHEMAS[name], StillClock()) == notes
    assert caplog.messages == notes
    with closing(sqlite3.connect(new)) as conn:
        assert describe_differences(conn, SCHEMAS[name]) == []
    assert bring_up_to_date(new, SCHEMAS[name], StillClock()) == []


def test_another_index_of_that_name_is_replaced(new: Path, name: Name) -> None:
    change(new, "DROP INDEX idempotency_keys_age", "CREATE INDEX idempotency_keys_age ON idempotency_keys (status)")
    assert bring_up_to_date(new, SCHEMAS[name], StillClock()) == [
        f"{name}.db: The index idempotency_keys_age is different. It was created again."
    ]


def test_a_unique_index_that_rows_contradict_is_refused(new: Path, name: Name) -> None:
    index, table = (
        ("user_sessions_revision", "user_sessions")
        if name == "user_activities"
        else ("notification_types_seq", "notification_types")
    )
    change(new, f"DROP INDEX {index}")
    with closing(sqlite3.connect(new, isolation_level=None)) as conn:
        for number in range(2):
            if name == "user_activities":
                conn.execute(
                    f"INSERT INTO {table} (id, user_id, app, start_time, last_seen, revision) "
                    "VALUES (?, 'ada', 'a', 1, 1, 7)",
                    (bytes([number]),),
                )
            else:
                conn.execute(
                    f"INSERT INTO {table} (name, label, description, channels, critical, app, created_at, updated_at) "
                    "VALUES (?, '', '', '[]', 0, 'a', 1, 1)",
                    (str(number),),
                )
    text = refused(new, name)
    assert f"The index {index} is missing. It cannot be created again: UNIQUE constraint failed" in text


def test_additional_columns_and_tables_are_reported_and_left_alone(new: Path, name: Name) -> None:
    change(new, "ALTER TABLE idempotency_keys ADD COLUMN note TEXT", "CREATE TABLE mine (x)")
    notes = [
        f"{name}.db: The column idempotency_keys.note is additional. It is left alone.",
        f"{name}.db: The table mine is additional. It is left alone.",
    ]
    for _ in range(2):
        assert bring_up_to_date(new, SCHEMAS[name], StillClock()) == notes


@from_every_source
def test_an_upgrade_keeps_additional_columns(path: Path, name: Name) -> None:
    tables = ("user_activities", "user_sessions") if name == "user_activities" else ("notifications", "deliveries")
    change(path, *(f"ALTER TABLE {table} ADD COLUMN note TEXT DEFAULT 'mine'" for table in tables))
    assert bring_up_to_date(path, SCHEMAS[name], StillClock()) == [
        f"{name}.db: The column {table}.note is additional. It is left alone." for table in tables
    ]
    with closing(sqlite3.connect(path)) as conn:
        for table in tables:
            assert conn.execute(f"SELECT DISTINCT note FROM {table}").fetchall() == [("mine",)]


def test_a_file_with_a_search_index_of_another_sqlite_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "notifications.db"
    write_old_file("notifications", path, source="100")
    other = "UPDATE sqlite_master SET sql = replace(sql, 'fts5', 'another') WHERE name = 'notification_search'"
    change(path, "PRAGMA writable_schema = ON", other)
    with closing(sqlite3.connect(path)) as conn, pytest.raises(sqlite3.OperationalError, match="no such module"):
        conn.execute("SELECT * FROM notification_search")
    assert bring_up_to_date(path, NOTIFICATION_SCHEMA, StillClock()) == []
    with closing(sqlite3.connect(path)) as conn:
        triggers = conn.execute("SELECT name FROM sqlite_master WHERE name LIKE 'search!_%' ESCAPE '!' ORDER BY name")
        assert triggers.fetchall() == [("search_delete",), ("search_state",), ("search_update",)]


def test_marks_of_damaged_rows_follow_their_renamed_table(tmp_path: Path) -> None:
    path = tmp_path / "user_activities.db"
    write_old_file("user_activities", path, source="100")
    change(path, "INSERT INTO damaged_rows VALUES ('figure_names', 7, 'name', 1)")
    bring_up_to_date(path, ACTIVITY_SCHEMA, StillClock())
    with closing(sqlite3.connect(path)) as conn:
        found = conn.execute("SELECT row FROM damaged_rows WHERE table_name = 'dimensions'").fetchall()
    assert found == [(7,)]


def test_the_user_is_informed_of_differences(tmp_path: Path) -> None:
    path, told = tmp_path / "a.db", list[str]()
    UserActivityService(path).close()
    change(path, "DROP INDEX user_sessions_open")
    UserActivityService(path, messages=told).close()
    assert told == ["a.db: The index user_sessions_open is missing. It was created again."]


def test_a_new_file_has_the_current_version(new: Path, name: Name) -> None:
    assert version(new) == SCHEMAS[name].version
    with closing(sqlite3.connect(new)) as conn, closing(sqlite3.connect(":memory:")) as created:
        create(created, SCHEMAS[name])
        assert digest(conn) == digest(created)


def test_an_unfinished_backup_of_a_killed_process_is_removed_later(path: Path, name: Name) -> None:
    folder = path.parent / "backups"
    folder.mkdir()
    for label, age in (("old", 7200), ("young", 60)):
        half = folder / f"{name}.{label}.before-schema-{SCHEMAS[name].version}.part"
        half.write_bytes(b"x")
        os.utime(half, (time.time() - age,) * 2)
    bring_up_to_date(path, SCHEMAS[name], StillClock())
    assert [half.name.split(".")[1] for half in folder.glob("*.part")] == ["young"]


def test_two_processes_that_upgrade_at_once_do_it_once(path: Path, name: Name) -> None:
    schema = "ACTIVITY_SCHEMA" if name == "user_activities" else "NOTIFICATION_SCHEMA"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), schema],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")  # both have loaded everything: they begin together
        process.stdin.flush()
    for process in both:
        out, err = process.communicate(timeout=60)
        assert out == "done\n", err
    with closing(sqlite3.connect(path)) as conn:
        assert describe_differences(conn, SCHEMAS[name]) == []
