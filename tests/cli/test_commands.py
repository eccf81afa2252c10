"""The command line, with a server beside it and without."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess, environment, flashflow, serving


@pytest.fixture(params=["alone", "beside a server"])
def folder(request: pytest.FixtureRequest, tmp_path: Path):
    """A data folder, once without a server on it and once with one."""
    if request.param == "alone":
        yield tmp_path
        return
    with serving(tmp_path):
        yield tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("data")) as running:
        yield running


def test_key_prints_the_local_key_and_nothing_else(tmp_path: Path) -> None:
    first = flashflow("key", data_dir=tmp_path)
    assert first.returncode == 0
    assert re.fullmatch(r"ff_[\w-]{43}\n", first.stdout)
    assert flashflow("key", data_dir=tmp_path).stdout == first.stdout
    assert (tmp_path / "local.key").stat().st_mode & 0o777 == 0o600


def test_the_printed_key_opens_the_api(server: ServerProcess) -> None:
    key = flashflow("key", data_dir=server.data_dir).stdout.strip()
    answer = server.api("GET", "/api/activity", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200


def test_a_new_key_is_printed_once_alone_on_the_last_line_and_can_be_revoked(folder: Path) -> None:
    made = flashflow("keys", "add", "todo-app", "--scope", "send,track", data_dir=folder)
    assert made.returncode == 0, made.stderr
    key = made.stdout.splitlines()[-1]
    assert re.fullmatch(r"ff_[\w-]{43}", key)
    listed = flashflow("keys", "list", data_dir=folder).stdout
    assert "todo-app\ttrack,send\tin use" in listed
    assert key not in listed
    kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"todo-app" in kept, "this is where the keys are"
    assert key.encode() not in kept, "but for its hash it is known to its app alone"
    again = flashflow("keys", "add", "todo-app", "--scope", "send", data_dir=folder)
    assert again.returncode == 1
    assert len(again.stderr.splitlines()) == 1
    assert flashflow("keys", "revoke", "todo-app", data_dir=folder).returncode == 0
    assert "revoked" in flashflow("keys", "list", data_dir=folder).stdout
    assert flashflow("keys", "revoke", "todo-app", data_dir=folder).returncode == 1


@pytest.mark.parametrize("name", ["api?", "api#", "api/", "a%70i", "../keys/api", "api?x=1", " api"])
def test_revoking_a_name_that_no_key_has_revokes_no_other(server: ServerProcess, name: str) -> None:
    flashflow("keys", "add", "api", "--scope", "send", data_dir=server.data_dir)
    done = flashflow("keys", "revoke", name, data_dir=server.data_dir)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "api\tsend\tin use" in flashflow("keys", "list", data_dir=server.data_dir).stdout


def test_a_key_made_beside_a_running_server_works_at_once_and_a_revoked_one_no_more(server: ServerProcess) -> None:
    key = flashflow("keys", "add", "ci", "--scope", "send", data_dir=server.data_dir).stdout.splitlines()[-1]
    headers = {"Authorization": f"Bearer {key}"}
    body = {"user_id": "ada", "title": "Hi", "message": "there"}
    assert server.api("POST", "/api/notifications/send", body, headers=headers).status_code == 201
    flashflow("keys", "revoke", "ci", data_dir=server.data_dir)
    assert server.api("POST", "/api/notifications/send", body, headers=headers).status_code == 401


def test_send_says_the_id_and_what_became_of_each_delivery(folder: Path) -> None:
    sent = flashflow(
        "send", "ada", "Build", "all", "green", "--channel", "in_app", "--channel", "email", data_dir=folder
    )
    assert sent.returncode == 0, sent.stderr
    lines = sent.stdout.splitlines()
    assert re.fullmatch(r"[0-9a-f-]{36}", lines[0])
    assert lines[1:] == ["  in_app: delivered", "  email: failed (E-mail is not configured.)"]


def test_send_reads_the_message_from_standard_input(server: ServerProcess) -> None:
    sent = flashflow("send", "bob", "Log", "-", data_dir=server.data_dir, stdin="line one\nline two\n")
    found = server.api("GET", f"/api/notifications/{sent.stdout.splitlines()[0]}").json()["notification"]
    assert found["message"] == "line one\nline two"


def test_track_stores_the_activity(folder: Path) -> None:
    done = flashflow(
        "track", "ada", "export", "--metadata", '{"feature": "csv"}', "--page-url", "/files", data_dir=folder
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[0-9a-f-]{36}\n", done.stdout)
    with serving(folder) if not (folder / "server.json").exists() else _none() as server:
        if server is not None:
            row = server.api("GET", "/api/activity").json()["activities"][0]
            assert (row["metadata"], row["page_url"]) == ({"feature": "csv"}, "/files")


class _none:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "ada", "Title", " "),
        ("track", "ada", "x", "--metadata", "not json"),
        ("keys", "add", "a b", "--scope", "send"),
        ("keys", "add", "app", "--scope", "fly"),
        ("keys", "revoke", "nobody"),
    ],
)
def test_what_is_refused_ends_with_one_line_and_exit_code_1(folder: Path, arguments: tuple[str, ...]) -> None:
    done = flashflow(*arguments, data_dir=folder)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("flashflow: ")
    assert not done.stdout


@pytest.mark.parametrize("arguments", [("fly",), ("send",), ("--port", "70000"), ("keys",), ("serve", "--port", "x")])
def test_wrong_usage_ends_with_exit_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert flashflow(*arguments, data_dir=tmp_path).returncode == 2


def test_link_lets_a_browser_in_once(tmp_path: Path) -> None:
    assert flashflow("link", data_dir=tmp_path).returncode == 1
    with serving(tmp_path, ui=True) as server:
        link = flashflow("link", data_dir=tmp_path).stdout.strip().removeprefix(server.url)
        assert server.api("GET", link).status_code == 303
        assert server.api("GET", link).status_code == 401


def test_doctor_says_line_by_line_what_works(folder: Path) -> None:
    done = flashflow("doctor", data_dir=folder)
    assert done.returncode == 0
    lines = {line[5:].split(":")[0]: line[:3].strip() for line in done.stdout.splitlines()}
    assert lines["display"] == "no"
    assert lines["native notifications"] == "no"
    assert lines["storage"] == "ok"
    assert set(lines) >= {"display", "storage", "port", "native notifications"}


def test_doctor_fails_where_the_storage_cannot_be_used(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "notifications.db")) as newer:
        newer.execute("PRAGMA user_version = 999")
    done = flashflow("doctor", data_dir=tmp_path)
    assert done.returncode == 1
    assert "no  storage: notifications.db was written by a newer FlashFlow" in done.stdout


def test_version(tmp_path: Path) -> None:
    done = flashflow("--version", data_dir=tmp_path)
    assert re.fullmatch(r"flashflow \d+\.\d+\.\d+\n", done.stdout)


def test_the_option_for_the_next_free_port_takes_it(server: ServerProcess, tmp_path: Path) -> None:
    with serving(tmp_path, "--port", str(server.port), "--next-free-port") as second:
        assert second.port > server.port
        assert json.loads((tmp_path / "server.json").read_text())["url"] == second.url


@pytest.mark.parametrize("before", [True, False], ids=["before the command", "after it"])
def test_the_data_folder_may_be_named_before_the_command_and_after_it(tmp_path: Path, before: bool) -> None:
    option, command = ("--data-dir", str(tmp_path / "named")), ("key",)
    done = flashflow(
        *((*option, *command) if before else (*command, *option)), data_dir=tmp_path / "by the environment"
    )
    assert done.stdout == flashflow("key", data_dir=tmp_path / "named").stdout
    assert not (tmp_path / "by the environment").exists()


def test_the_port_and_the_folder_before_serve_are_taken(tmp_path: Path) -> None:
    named = tmp_path / "named"
    arguments = ["--data-dir", str(named), "--port", "0", "serve", "--no-ui"]
    server = ServerProcess(named, arguments, environment(tmp_path / "by the environment"), tmp_path)
    try:
        server.wait_until_healthy()
        assert (named / "notifications.db").exists()
    finally:
        server.close()
