"""The models are the schema: a file is created from them and compared with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from flashflow.backend.store.engine.schema import FileSchema, create, describe_differences
from flashflow.backend.store.files import ACTIVITY_SCHEMA, NOTIFICATION_SCHEMA


@pytest.fixture(params=[ACTIVITY_SCHEMA, NOTIFICATION_SCHEMA], ids=["user_activities", "notifications"])
def schema(request: pytest.FixtureRequest) -> FileSchema:
    found: FileSchema = request.param
    return found


@pytest.fixture
def file(schema: FileSchema) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        create(conn, schema)
        yield conn


def test_a_file_created_from_the_models_does_not_differ_from_them(file: sqlite3.Connection, schema: FileSchema) -> None:
    assert describe_differences(file, schema) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("CREATE TABLE extra (x INTEGER)", "The table extra is additional."),
        ("ALTER TABLE idempotency_keys ADD COLUMN extra TEXT", "The column idempotency_keys.extra is additional."),
        ("DROP INDEX idempotency_keys_age", "The index idempotency_keys_age is missing."),
        ("CREATE INDEX extra ON damaged_rows (found_at)", "The index extra is additional."),
        ("DROP TABLE damaged_rows", "The table damaged_rows is missing."),
    ],
)
def test_a_difference_is_named(file: sqlite3.Connection, schema: FileSchema, change: str, line: str) -> None:
    file.execute(change)
    assert [str(difference) for difference in describe_differences(file, schema)] == [line]


def test_a_changed_definition_is_named(file: sqlite3.Connection, schema: FileSchema) -> None:
    if schema is ACTIVITY_SCHEMA:
        changes = {
            "DROP INDEX user_sessions_open; CREATE INDEX user_sessions_open ON user_sessions (user_id, app) "
            "WHERE end_time IS NOT NULL": "The index user_sessions_open is different.",
            "DROP TRIGGER name_blocks_more": "The trigger name_blocks_more is missing.",
            "DROP VIEW user_timeline; CREATE VIEW user_timeline AS SELECT 1": "The view user_timeline is different.",
            "DROP TABLE user_spans; CREATE TABLE user_spans (app INTEGER NOT NULL, user INTEGER NOT NULL, "
            "first_day INTEGER, last_day INTEGER NOT NULL, PRIMARY KEY (app, user)) WITHOUT ROWID": "The column "
            "user_spans.first_day is different: INTEGER instead of INTEGER NOT NULL.",
            "DROP TABLE pruned; CREATE TABLE pruned (before INTEGER NOT NULL UNIQUE)": "The table pruned is "
            "different: (\"UNIQUE ['before']\",) instead of ().",
        }
    else:
        changes = {
            "DROP TABLE rule_uses; CREATE TABLE rule_uses (rule_seq INTEGER NOT NULL, user_id TEXT NOT NULL, times "
            "TEXT NOT NULL, fired_at INTEGER, useful_until INTEGER NOT NULL, PRIMARY KEY (rule_seq, user_id)) WITHOUT "
            "ROWID; CREATE INDEX rule_uses_over ON rule_uses (useful_until); CREATE INDEX rule_uses_user ON rule_uses "
            "(user_id)": "The table rule_uses is different: ('WITHOUT ROWID',) instead of ('WITHOUT ROWID', "
            "\"REFERENCES ('rules', 'rule_seq', 'seq', 'NO ACTION', 'CASCADE', 'NONE')\").",
        }
    expected = []
    for change, line in changes.items():
        file.executescript(change)
        expected.append(line)
    assert sorted(str(difference) for difference in describe_differences(file, schema)) == sorted(expected)
