"""Two processes on one file: nobody is turned away, and neither counts on what the other has changed."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend import UserActivityService
from tests.support.server_process import ROOT

ROUNDS = 150

WRITE_MUCH = """
import sys
from backend import UserActivityService
path, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
with UserActivityService(path) as service:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(rounds):
        service.track_activity("ada", "write", activity_id=f"{name}-{number}", page_url=f"/{number % 7}")
        if number % 10 == 0:
            session = service.start_session("ada").session
            service.track_activity("ada", "write", session_id=session.id, activity_id=f"{name}-own-{number}")
            service.end_session(session.id)
"""

OBEY = """
import json, sys
from backend import UserActivityService
with UserActivityService(sys.argv[1]) as service:
    for line in sys.stdin:
        verb, arguments = json.loads(line)
        answer = getattr(service, verb)(**arguments)
        print(getattr(answer, "session_id", None) or json.dumps(None), flush=True)
"""


class Other:
    """A second process with the same file open, that does as it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, verb: str, **arguments: Any) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([verb, arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer, "the other process ended"
        return answer


@contextmanager
def other_process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """It ends by itself when its standard input does."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def counters_are_right(path: Path) -> None:
    """Every counter of a session and of a user equals a recount of the rows."""
    with closing(sqlite3.connect(path)) as conn:
        wrong = conn.execute(
            "SELECT id, activities, pages_visited FROM user_sessions s WHERE activities <> "
            "(SELECT COUNT(*) FROM user_activities a WHERE a.session_id = s.id) OR (end_time IS NOT NULL AND "
            "pages_visited <> (SELECT COUNT(DISTINCT page_url) FROM user_activities a WHERE a.session_id = s.id))"
        ).fetchall()
        assert wrong == []
        for user_id, sessions, activities in conn.execute(
            "SELECT user_id, total_sessions, total_activities FROM user_analytics"
        ).fetchall():
            counted = [
                conn.execute(f"SELECT COUNT(*) FROM {table} WHERE user_id = ?", (user_id,)).fetchone()[0]
                for table in ("user_sessions", "user_activities")
            ]
            assert [sessions, activities] == counted


def test_two_processes_write_one_file_at_once_and_nobody_is_turned_away(path: Path) -> None:
    UserActivityService(path).close()
    with (
        other_process(WRITE_MUCH, str(path), "one", str(ROUNDS)) as one,
        other_process(WRITE_MUCH, str(path), "two", str(ROUNDS)) as two,
    ):
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in (one, two):
            assert process.wait(60) == 0
    with UserActivityService(path) as service:
        figures = service.get_user_analytics("ada")
    each = ROUNDS + ROUNDS // 10
    assert figures.total_activities == 2 * each
    counters_are_right(path)


def test_a_session_that_another_process_changed_is_read_again(path: Path) -> None:
    with UserActivityService(path) as here, other_process(OBEY, str(path)) as process:
        there = Other(process)
        mine = here.track_activity("ada", "one", page_url="/a")
        assert there("track_activity", user_id="ada", activity_type="two", page_url="/b") == mine.session_id
        assert here.track_activity("ada", "three", page_url="/c").session_id == mine.session_id
        (session,) = here.get_user_sessions("ada").sessions
        assert (session.activities, session.pages_visited) == (3, 3)
        there("end_session", session_id=mine.session_id)
        assert here.end_session(mine.session_id).end_reason == "ended"
        after = here.track_activity("ada", "four")
        assert after.session_id != mine.session_id
    counters_are_right(path)


def test_two_services_in_one_process_share_a_file_as_two_processes_do(path: Path) -> None:
    with UserActivityService(path) as one, UserActivityService(path) as two:
        for number in range(20):
            for service in (one, two):
                service.track_activity("ada", "write", activity_id=f"{id(service)}-{number}")
        duplicate = two.track_activity("ada", "write", activity_id=f"{id(one)}-0")
        assert duplicate.duplicate
    counters_are_right(path)
