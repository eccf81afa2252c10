"""Slow reads end at their deadline; failing reads show in the health; a commit is never reported as failed."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from flashflow.backend import Backend, Config
from flashflow.backend.api.framework import api_request
from flashflow.backend.api.routes import activity
from flashflow.backend.core.errors import StorageError
from flashflow.backend.store.engine.cancellable_read import Cancelled, Reading
from flashflow.backend.store.engine.writer import MAX_BYTES, Bundle, Tx, Write
from tests.support.server_process import eventually

PATIENCE = 10.0
FOREVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with Backend(Config(data_dir=tmp_path, me="ada", port=0)) as made:
        made.start()
        yield made


def ask(backend: Backend, path: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {backend.keys.local_key}"}
    return httpx.get(f"{backend.url}{path}", headers=headers, timeout=30)


def test_two_reads_without_an_end_stop_no_other_read(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_request, "ANSWER_S", 0.5)
    ended = []
    real = activity.activity_rows

    def slow(conn: sqlite3.Connection, **filters: object) -> object:
        try:
            return conn.execute(FOREVER).fetchone()
        finally:
            ended.append(time.monotonic())

    monkeypatch.setattr(activity, "activity_rows", slow)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda path: ask(backend, path), ["/api/activity?user_id=ada"] * 2))
    assert [(a.status_code, a.json()["code"]) for a in answers] == [(504, "timeout")] * 2
    eventually(lambda: len(ended) == 2, what="the end of both")
    monkeypatch.setattr(activity, "activity_rows", real)
    assert ask(backend, "/api/activity?user_id=ada").status_code == 200
    assert ask(backend, "/api/health").json()["status"] == "ok", "a read that was ended is no fault"


def test_a_question_of_many_reads_ends_at_the_next_one(backend: Backend) -> None:
    reading, count, inside = Reading(), [0], threading.Event()

    def question() -> None:
        while True:
            backend.activity.store.read(lambda conn: conn.execute("SELECT 1").fetchone())
            count[0] += 1
            inside.set()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(reading.run, question)
        assert inside.wait(PATIENCE)
        reading.cancel()
        with pytest.raises(Cancelled):
            running.result(PATIENCE)
        pool.submit(backend.activity.store.read, lambda conn: conn.execute("SELECT 1").fetchone()).result(PATIENCE)
    assert count[0] > 0


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_CORRUPT])
def test_a_read_that_fails_is_logged_and_shown(
    backend: Backend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fails(conn: sqlite3.Connection) -> None:
        error = sqlite3.DatabaseError("the disk says no")
        error.sqlite_errorcode = code
        raise error

    with caplog.at_level(logging.WARNING), pytest.raises(StorageError):
        backend.notifications.store.read(fails)
    assert "the disk says no" in caplog.text
    health = ask(backend, "/api/health").json()
    assert (health["status"], health["storage"]) == ("degraded", "storage_unavailable")
    monkeypatch.setattr("flashflow.backend.store.engine.database.FAULT_SHOWN_S", 0.0)
    lasting = code == sqlite3.SQLITE_CORRUPT
    assert (ask(backend, "/api/health").json()["status"] == "degraded") is lasting, "damage stays until the next start"
    assert (backend.data_dir / "notifications.db.suspect").exists() is lasting


def test_a_committed_write_is_never_refused(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(conn: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("no thread can be started")

    monkeypatch.setattr(backend.activity.store.writer._checkpointer, "after_commit", fails)
    assert backend.activity.track_activity("ada", "kept").activity_id
    headers = {"Authorization": f"Bearer {backend.keys.local_key}"}
    body = {"user_id": "ada", "activity_type": "kept"}
    assert httpx.post(f"{backend.url}/api/activity/track", json=body, headers=headers).status_code == 201
    assert len(backend.activity.list_activities().activities) == 2
    assert ask(backend, "/api/health").json()["status"] == "ok"


@pytest.mark.parametrize(("weight", "size"), [(1, MAX_BYTES // 4), (500, 0)])
def test_a_group_is_bounded_by_rows_and_by_bytes(backend: Backend, weight: int, size: int) -> None:
    groups: list[int] = []
    inside, go_on = threading.Event(), threading.Event()

    def handle(tx: Tx, items: Sequence[int]) -> list[int]:
        groups.append(len(items))
        inside.set()
        assert go_on.wait(PATIENCE)
        return list(items)

    writer = backend.activity.store.writer
    done = [threading.Event() for _ in range(9)]
    writer.submit(Bundle([Write(handle, 0, weight, size)], done[0].set))
    assert inside.wait(PATIENCE)
    for event in done[1:]:
        writer.submit(Bundle([Write(handle, 1, weight, size)], event.set))
    go_on.set()
    assert all(event.wait(PATIENCE) for event in done)
    assert groups == [1, 4, 4]


def test_no_large_write_is_done_on_the_loop(backend: Backend) -> None:
    threads: list[str] = []

    def handle(tx: Tx, items: Sequence[int]) -> list[int]:
        threads.append(threading.current_thread().name)
        return list(items)

    async def write() -> None:
        from flashflow.backend.store.engine.writer import LoopWrites

        await LoopWrites(backend.activity.store.writer).run(Write(handle, 1, 1, 900_000))

    asyncio.run(write())
    assert threads == ["flashflow-write-user_activities"]
