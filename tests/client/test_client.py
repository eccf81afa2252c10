"""Arguments, the decorator, the logging handler, the module's functions, a disabled client, and the one file alone."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import flashflow
from flashflow import client as module
from flashflow.backend.core.config import default_data_dir
from flashflow.backend.core.errors import ValidationError
from flashflow.client import Client, NotificationHandler, NotProven, Unreachable, data_folder
from tests.support.client_servers import KEY, Request, Server, accept, server
from tests.support.real_parts import give_up
from tests.support.server_process import ROOT, environment, eventually


@pytest.fixture
def running() -> Iterator[Server]:
    with server() as found:
        yield found


@pytest.fixture
def client(running: Server, tmp_path: Path) -> Iterator[Client]:
    with Client(app="todo", user_id="ada", url=running.url, key=KEY, data_dir=tmp_path) as found:
        yield found


def rows(client: Client, running: Server) -> list[dict[str, Any]]:
    """Every activity that the server received."""
    assert client.flush() == 0
    return [
        row for request in running.requests if request.path.endswith("/batch") for row in request.json["activities"]
    ]


def sends(client: Client, running: Server) -> list[dict[str, Any]]:
    assert client.flush() == 0
    return [request.json for request in running.requests if request.path.endswith("/send")]


# --- arguments


@pytest.mark.parametrize(
    "options",
    [
        {"activity_type": ""},
        {"activity_type": " "},
        {"activity_type": "a*"},
        {"activity_type": "x" * 101},
        {"activity_type": 7},
        {"user_id": "a\nb"},
        {"user_id": "x" * 256},
        {"user_id": b"ada"},
        {"user_id": "\ud800"},
        {"session_id": "\0"},
        {"activity_id": "x" * 201},
        {"page_url": "x" * 2_049},
        {"metadata": {"at": datetime.now(UTC)}},
        {"metadata": {"n": float("nan")}},
        {"metadata": {"text": "x" * 1_000_000}},
        {"metadata": ["no mapping"]},
        {"metadata": {(1, 2): 3}},
        {"timestamp": datetime(2026, 1, 1)},  # noqa: DTZ001 without a zone, on purpose
        {"timestamp": "2026-01-01T00:00:00Z"},
    ],
)
def test_a_wrong_argument_raises_at_once_and_stores_nothing(client: Client, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        client.track(**{"activity_type": "export", **options})
    assert client.pending == 0


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {}),
        (("Title",), {}),
        (("Ti\ntle", "Message"), {}),
        (("Title", " "), {}),
        (("Title", "x" * 10_001), {}),
        (("Title", "Message"), {"user_id": "\x7f"}),
        (("Title", "Message"), {"data": {"x": object()}}),
        (("Title", "Message"), {"expires_at": datetime(2026, 1, 1)}),  # noqa: DTZ001
    ],
)
def test_a_wrong_notification_raises_at_once(
    client: Client, arguments: tuple[str, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        client.send(*arguments, **options)
    assert client.pending == 0


def test_a_cycle_in_metadata_is_a_value_error(client: Client) -> None:
    endless: dict[str, Any] = {}
    endless["me"] = endless
    with pytest.raises(ValueError, match="JSON"):
        client.track("export", endless)


@pytest.mark.parametrize("app", ["a/b", "..", "", "x" * 65, "a b", "é"])
def test_an_app_is_a_valid_name_of_a_file(tmp_path: Path, app: str) -> None:
    if app:
        with pytest.raises(ValueError, match="app"):
            Client(app=app, data_dir=tmp_path)
    else:
        assert Client(app=app, data_dir=tmp_path).app == module._program()


def test_every_field_arrives_as_given(client: Client, running: Server) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    given = {
        "session_id": "s",
        "page_url": "/p",
        "referrer": "/r",
        "user_agent": "ua",
        "activity_id": "a",
        "user_id": "b",
    }
    client.track("export", {"ü": [1, None, "\u2028"]}, timestamp=at, **given)  # type: ignore[arg-type]
    (row,) = rows(client, running)
    expected = {
        "activity_type": "export",
        "metadata": {"ü": [1, None, "\u2028"]},
        "timestamp": "2026-01-02T03:04:05.678+00:00",
    }
    assert row == given | expected
    client.send("T", "M", user_ids=["a", "b"], expires_at=at, actions=[{"label": "x", "url": "http://x"}], locale="de")
    (sent,) = sends(client, running)
    assert sent == {
        "user_ids": ["a", "b"], "title": "T", "message": "M", "expires_at": "2026-01-02T03:04:05.678+00:00",
        "actions": [{"label": "x", "url": "http://x"}], "locale": "de",
    }  # fmt: skip


def test_ids_are_sortable_uuids(client: Client) -> None:
    made = [uuid.UUID(module._uuid7()) for _ in range(1_000)]
    assert {(each.version, each.variant) for each in made} == {(7, uuid.RFC_4122)}
    assert len(set(made)) == 1_000


# --- decorator


def test_the_decorator_tracks_calls_their_time_and_their_errors(client: Client, running: Server) -> None:
    @client.tracked("export", {"format": "csv"})
    def export(fails: bool) -> str:
        """Docs."""
        if fails:
            raise KeyError("x")
        return "done"

    @client.tracked()
    async def load() -> int:
        await asyncio.sleep(0)
        return 7

    assert (export(fails=False), asyncio.run(load()), export.__doc__) == ("done", 7, "Docs.")
    with pytest.raises(KeyError):
        export(fails=True)
    found = rows(client, running)
    assert [row["activity_type"] for row in found] == ["export", "load", "export"]
    assert [row["metadata"].get("error") for row in found] == [None, None, "KeyError"]
    assert all(row["metadata"]["duration_ms"] >= 0 for row in found)
    assert found[0]["metadata"]["format"] == "csv"


def test_sessions_of_tasks_do_not_mix(client: Client, running: Server) -> None:
    async def work(user: str) -> None:
        with client.session(user):
            await asyncio.sleep(0)
            client.track("inside")

    async def both() -> None:
        await asyncio.gather(work("ada"), work("bob"))

    asyncio.run(both())
    found = {row["user_id"]: row["session_id"] for row in rows(client, running)}
    assert len(set(found.values())) == 2
    assert set(found) == {"ada", "bob"}
    starts = {r.json["session_id"]: r.json["user_id"] for r in running.requests if r.path.endswith("/start")}
    assert {starts[session]: session for session in starts} == found
    ends = {r.path.rpartition("/")[2] for r in running.requests if "/end/" in r.path}
    assert ends == set(starts)


# --- logging


@pytest.fixture
def logger(client: Client) -> Iterator[logging.Logger]:
    found = logging.getLogger("app.of.the.test")
    handler = NotificationHandler(client)
    found.addHandler(handler)
    logging.getLogger().addHandler(handler)
    yield found
    found.removeHandler(handler)
    logging.getLogger().removeHandler(handler)


def test_an_error_becomes_a_notification_with_its_traceback(
    client: Client, running: Server, logger: logging.Logger
) -> None:
    logger.propagate = False
    logger.warning("not this")
    try:
        raise KeyError("wrong")
    except KeyError:
        logger.exception("Export of %s failed\0\ud800", "x" * 20_000)
    (sent,) = sends(client, running)
    assert sent["title"] == "ERROR: app.of.the.test"
    assert (sent["user_id"], sent["notification_type"], sent["priority"]) == ("ada", "log", "high")
    assert sent["message"].startswith("Export of xxx")
    assert len(sent["message"]) <= 10_000


def test_a_flood_of_errors_is_bounded_and_counted(client: Client, running: Server, tmp_path: Path) -> None:
    handler = NotificationHandler(client, every=3_600, per_minute=5)
    records = [
        logging.LogRecord("app", logging.ERROR, "", 0, text, (n,), None)
        for n in range(300)
        for text in ("One %d", f"Other {n} %d")
    ]
    for record in records:
        handler.handle(record)
    assert len(sends(client, running)) == 5
    handler._recent.clear()
    handler.handle(logging.LogRecord("app", logging.ERROR, "", 0, "Last", (), None))
    found = sends(client, running)
    counted = [re.search(r"(\d+) more were suppressed", each["message"]) for each in found]
    assert counted[-1], "the last one tells of those before"
    assert sum(int(match[1]) for match in counted if match) == 595
    assert len({each["collapse_key"] for each in found}) == 6


def test_the_same_error_updates_one_notification(client: Client, running: Server) -> None:
    handler = NotificationHandler(client, every=0)
    for n in range(3):
        handler.handle(logging.LogRecord("app", logging.ERROR, "", 0, "Row %d", (n,), None))
    assert len({each["collapse_key"] for each in sends(client, running)}) == 1


def test_the_clients_own_errors_become_no_notification(
    client: Client, running: Server, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    def react(_: object) -> None:
        logging.getLogger("app").error("a row was refused")

    client._on_reject = react
    running.plan = lambda request: (
        b"HTTP/1.1 400 X\r\nContent-Length: 49\r\n\r\n" + b'{"success": false, "code": "x", "detail": "no  "}'
        if request.path.endswith("/send")
        else accept(request)
    )
    logging.getLogger("app").error("first")
    eventually(lambda: client.rejected)
    eventually(lambda: "a row was refused" in caplog.text, what="on_reject")
    logging.getLogger(module.LOGGER).error("of the client")
    assert client.flush() == 0
    assert len(sends(client, running)) == 1


# --- the module's functions


def test_the_modules_functions_use_one_client_that_the_environment_describes(
    running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "FLASHFLOW_URL": running.url, "FLASHFLOW_KEY": KEY, "FLASHFLOW_DATA_DIR": str(tmp_path),
        "FLASHFLOW_APP": "from-env", "FLASHFLOW_USER": "eve",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "_default", None)

    @flashflow.tracked()
    def work() -> None: ...

    flashflow.track("export", {"n": 1})
    work()
    with flashflow.session("bob") as session:
        flashflow.track("inside")
    assert flashflow.send("Title", "Message").status == "delivered"
    assert flashflow.inbox().notifications == []
    flashflow.mark_read("n1")
    assert running.requests[-1].path == "/api/notifications/read/n1"
    assert flashflow.flush() == 0
    found = module.default_client()
    assert (found.app, found.user_id) == ("from-env", "eve")
    assert [(row["user_id"], row.get("session_id")) for row in rows(found, running)] == [
        ("eve", None), ("eve", None), ("bob", session),
    ]  # fmt: skip
    found.close()
    other = Client(app="other", data_dir=tmp_path, disabled=True)
    flashflow.configure(other)
    assert module.default_client() is other


def test_a_disabled_client_touches_no_file_and_no_server(
    tmp_path: Path, running: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASHFLOW_OFF", "1")
    with Client(app="todo", url=running.url, key=KEY, data_dir=tmp_path) as client:
        assert client.disabled
        assert client.track("export")
        with client.session():
            assert client.send("Title", "Message").status == "disabled"
        assert client.inbox() == ([], 0, None)
        assert client.mark_read("x") == {}
        assert list(client.stream("ada", durable=True)) == []
        assert (client.pending, client.dropped, client.rejected, client.flush()) == (0, 0, [], 0)
        with pytest.raises(ValueError, match="activity_type"):
            client.track("")
    assert list(tmp_path.iterdir()) == []
    assert running.connections == 0


# --- the data folder


@pytest.mark.parametrize(
    "environ",
    [
        {"HOME": "/home/ada"},
        {"HOME": "/home/ada", "XDG_DATA_HOME": "/data"},
        {"HOME": "/home/ada", "XDG_DATA_HOME": "relative"},
        {"HOME": "/home/ada", "FLET_APP_STORAGE_DATA": "/app"},
        {"HOME": "/home/ada", "FLASHFLOW_DATA_DIR": "~/x", "FLET_APP_STORAGE_DATA": "/app"},
        {"HOME": "/home/ada", "FLASHFLOW_DATA_DIR": "relative"},
        {"HOME": "relative"},
        {"HOME": ""},
        {},
    ],
)
def test_the_data_folder_is_the_one_that_flashflow_uses(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "FLET_APP_STORAGE_DATA", "FLASHFLOW_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    try:
        expected: Path | None = default_data_dir(environ)
    except ValidationError:
        expected = None
    try:
        found: Path | None = data_folder(environ)
    except OSError:
        found = None
    assert found == expected


def place(folder: Path, running: Server) -> None:
    for name, text in {"server.json": json.dumps({"url": running.url, "pid": 1}), "local.key": KEY}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)


def test_the_address_and_the_key_are_found_in_the_data_folder(tmp_path: Path, running: Server) -> None:
    place(tmp_path, running)
    with Client(app="todo", data_dir=tmp_path) as client:
        assert client.inbox().notifications == []
        assert running.requests[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("name", ["server.json", "local.key"])
@pytest.mark.parametrize("fault", ["a link", "readable by all", "another user's", "a pipe", "a folder", "rubbish"])
def test_a_file_that_another_user_may_have_written_is_not_used(
    tmp_path: Path, running: Server, name: str, fault: str
) -> None:
    place(tmp_path, running)
    path = tmp_path / name
    if fault == "a link":
        path.rename(tmp_path / "target")
        path.symlink_to(tmp_path / "target")
    elif fault == "readable by all":
        path.chmod(0o644)
    elif fault == "another user's":
        if os.geteuid():
            give_up("only root can give a file away")
        os.chown(path, 12_345, -1)
    else:
        path.unlink()
        if fault == "a pipe":
            os.mkfifo(path, 0o600)
        elif fault == "a folder":
            path.mkdir(0o700)
        else:
            path.write_bytes(b"\xff[" * 1_000)
            path.chmod(0o600)
    with Client(app="todo", data_dir=tmp_path) as client:
        with pytest.raises(Unreachable) as error:
            client.inbox()
        assert isinstance(error.value, NotProven) or fault == "rubbish"
        client.track("export")
        assert client.flush(0.2) == 1
    assert running.connections == 0


def test_a_folder_that_others_may_change_is_not_used(tmp_path: Path, running: Server) -> None:
    place(tmp_path, running)
    tmp_path.chmod(0o777)
    with Client(app="todo", data_dir=tmp_path) as client, pytest.raises(NotProven, match="777"):
        client.inbox()
    assert running.connections == 0


def test_the_file_alone_works_in_a_project_without_flashflow(tmp_path: Path, running: Server) -> None:
    shutil.copy(ROOT / "flashflow" / "client.py", tmp_path / "ff.py")
    script = "import ff; ff.track('export'); assert ff.flush() == 0; import sys; assert 'flashflow' not in sys.modules"
    env = environment(tmp_path, {"FLASHFLOW_URL": running.url, "FLASHFLOW_KEY": KEY})
    command = [
        sys.executable,
        "-I",
        "-S",
        "-W",
        "error",
        "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {script}",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(running.activities) == 1


def test_the_server_sees_the_local_apps_name(tmp_path: Path, running: Server) -> None:
    place(tmp_path, running)
    with Client(app="todo", user_id="ada", data_dir=tmp_path) as client:
        client.send("Title", "Message", wait=0)
        with client.session():
            client.track("export")
        client.flush()
        named: list[Request] = [request for request in running.requests if request.body]
        bodies = [row for request in named for row in request.json.get("activities", [request.json])]
        assert [body["app"] for body in bodies] == ["todo"] * 3
