"""A command does its work or ends in one clear line, with any environment, streams, locale and paths."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.real_parts import give_up
from tests.support.server_process import ROOT, environment, eventually, flashflow, serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix streams, locales and paths")

NOT_TEXT = "\udcff"
"""A byte that is not UTF-8, as Python hands it over in arguments and the environment."""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN = {"PYTHONIOENCODING": "latin-1"}
CLOSED, FULL = "closed", "/dev/full"


def run(
    folder: Path,
    *arguments: str,
    env: Mapping[str, str | None] | None = None,
    streams: Mapping[int, str] | None = None,
    stdin: bytes = b"",
    before: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """One command; ``streams`` says of a standard stream that it is closed, or where it goes."""
    whole = environment(folder / "data") | (env or {})

    def prepare() -> None:
        for number, place in (streams or {}).items():
            if place == CLOSED:
                os.close(number)
            else:
                os.dup2(os.open(place, os.O_WRONLY), number)
        if before is not None:
            before()

    return subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        cwd=ROOT,
        env={name: value for name, value in whole.items() if value is not None},
        input=stdin,
        capture_output=True,
        preexec_fn=prepare,
        timeout=30,
        check=False,
    )


def one_line(done: subprocess.CompletedProcess[bytes], code: int = 1) -> str:
    """The single line of a refusal."""
    text = done.stderr.decode()
    assert "Traceback" not in text, text
    assert (done.returncode, len(text.splitlines())) == (code, 1), text
    return text


# --- locale


@pytest.mark.parametrize("env", [ASCII, LATIN], ids=["C", "latin-1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "add", "api", "--scope", "send"),
        ("erase", "ada", "--yes"),
        ("send", "ada", "Title", "Message", "--channel", "in_app"),
        ("export", "--help"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_locale_without_our_characters_gets_plain_ones(
    tmp_path: Path, env: dict[str, str], arguments: tuple[str, ...]
) -> None:
    assert run(tmp_path, "track", "ada", "click").returncode == 0
    done = run(tmp_path, *arguments, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    if arguments[0] == "keys":
        first, key = done.stdout.splitlines()
        assert first.startswith(b'The key of "api" (send).')
        assert key.startswith(b"ff_")


@pytest.mark.parametrize("env", [ASCII, LATIN], ids=["C", "latin-1"])
def test_a_refusal_is_readable_in_any_locale(tmp_path: Path, env: dict[str, str]) -> None:
    assert one_line(run(tmp_path, "keys", "revoke", "api", env=env)) == 'flashflow: There is no key "api" in use.\n'


# --- standard streams


@pytest.mark.parametrize("place", [CLOSED, FULL])
@pytest.mark.parametrize(
    "arguments", [("key",), ("--version",), ("track", "ada", "click"), ("doctor",)], ids=lambda arguments: arguments[0]
)
def test_output_that_cannot_be_written_is_said_in_one_line(
    tmp_path: Path, place: str, arguments: tuple[str, ...]
) -> None:
    assert "Standard output cannot be written" in one_line(run(tmp_path, *arguments, streams={1: place}))


def test_an_export_to_a_full_output_says_so(tmp_path: Path) -> None:
    assert run(tmp_path, "track", "ada", "click").returncode == 0
    assert "Standard output cannot be written" in one_line(run(tmp_path, "export", "-", streams={1: FULL}))


@pytest.mark.parametrize("place", [CLOSED, FULL])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a server"])
def test_a_key_that_could_not_be_shown_is_revoked_again(tmp_path: Path, place: str, beside: bool) -> None:
    def check() -> None:
        done = run(tmp_path, "keys", "add", "api", "--scope", "send", streams={1: place})
        assert "revoked again" in one_line(done)
        assert "api\tsend\trevoked" in flashflow("keys", "list", data_dir=tmp_path / "data").stdout

    if not beside:
        check()
        return
    with serving(tmp_path / "data"):
        check()


@pytest.mark.parametrize("streams", [{2: FULL}, {2: CLOSED}, {0: CLOSED, 1: CLOSED, 2: CLOSED}], ids=str)
def test_without_a_place_to_complain_the_exit_code_says_it(tmp_path: Path, streams: dict[int, str]) -> None:
    done = run(tmp_path, "keys", "revoke", "api", streams=streams)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_with_every_stream_closed_no_file_gets_what_is_printed(tmp_path: Path) -> None:
    """A file that is opened takes the number of a closed stream."""
    done = run(tmp_path, "track", "ada", "click", streams={0: CLOSED, 1: CLOSED, 2: CLOSED})
    assert done.returncode == 1
    with serving(tmp_path / "data") as server:
        assert len(server.api("GET", "/api/activity").json()["activities"]) == 1


@pytest.mark.parametrize("place", [CLOSED, FULL])
def test_a_server_serves_without_an_output(tmp_path: Path, place: str) -> None:
    output = "&-" if place == CLOSED else place
    command = [
        "bash",
        "-c",
        f'exec "$@" >{output}',
        "bash",
        sys.executable,
        "main.py",
        "serve",
        "--no-ui",
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(tmp_path), stderr=subprocess.PIPE)
    try:
        eventually((tmp_path / "server.json").exists, 20, "the server")
        assert flashflow("track", "ada", "click", data_dir=tmp_path).returncode == 0
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert b"Traceback" not in errors


@pytest.mark.parametrize(
    ("stdin", "streams"),
    [(b"\xff\xfe", {}), (b"a\0b", {}), (b"", {}), (b"", {0: CLOSED})],
    ids=["bytes", "NUL", "empty", "closed"],
)
def test_a_message_from_an_odd_input_is_refused_in_one_line(
    tmp_path: Path, stdin: bytes, streams: dict[int, str]
) -> None:
    one_line(run(tmp_path, "send", "ada", "Title", "-", stdin=stdin, streams=streams))


@pytest.mark.parametrize("arguments", [("send", "ada", "Title", "-"), ("import", "-", "--format", "csv")], ids=str)
def test_an_input_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    import resource

    def endless() -> None:
        os.dup2(os.open("/dev/zero", os.O_RDONLY), 0)
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))

    one_line(run(tmp_path, *arguments, before=endless))


# --- arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ("track", NOT_TEXT, "click"),
        ("track", "ada", NOT_TEXT),
        ("track", "ada", "click", "--metadata", f'{{"a": "{NOT_TEXT}"}}'),
        ("track", "ada", "click", "--metadata", '{"a": "\\ud800"}'),
        ("track", "ada", "click", "--metadata", '{"a": ' * 20_000),
        ("send", "ada", "Title", NOT_TEXT),
        ("keys", "add", NOT_TEXT, "--scope", "send"),
        ("erase", NOT_TEXT, "--yes"),
        ("export", "-", "--user", NOT_TEXT),
        ("export", "-", "--since", "0001-01-01"),
        ("prune", "--before", "9999-12-31T23:59:59-14:00"),
        ("import", f"{NOT_TEXT}.csv"),
        ("serve", "--host", "a" * 300),
        ("serve", "--host", "a..b"),
    ],
    ids=lambda arguments: " ".join(arguments).encode("ascii", "backslashreplace").decode()[:40],
)
def test_an_argument_that_cannot_be_meant_is_refused_in_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    one_line(run(tmp_path, *arguments))


# --- environment and paths


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"FLASHFLOW_DATA_DIR": "~nosuch/data"}, "FLASHFLOW_DATA_DIR"),
        ({"FLASHFLOW_DATA_DIR": f"/tmp/{NOT_TEXT}"}, "FLASHFLOW_DATA_DIR"),
        ({"FLASHFLOW_DATA_DIR": "/dev/null/data"}, "/dev/null/data"),
        ({"FLASHFLOW_DATA_DIR": "/proc/data"}, "/proc/data"),
        ({"FLASHFLOW_DATA_DIR": None, "HOME": ""}, "HOME"),
        ({"FLASHFLOW_DATA_DIR": None, "HOME": "home"}, "HOME"),
        ({"FLASHFLOW_PORT": "tcp://10.0.0.1:8750"}, "FLASHFLOW_PORT"),
        ({"FLASHFLOW_USER": "a\nb"}, "FLASHFLOW_USER"),
        ({"FLASHFLOW_USER": NOT_TEXT}, "FLASHFLOW_USER"),
        ({"FLASHFLOW_USER": "a" * 256}, "FLASHFLOW_USER"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_an_odd_setting_is_named_in_one_line(tmp_path: Path, env: dict[str, str | None], named: str) -> None:
    assert named in one_line(run(tmp_path, "key", env=env))


def test_a_user_without_a_home_gets_the_option_that_names_a_folder(tmp_path: Path) -> None:
    if os.getuid() != 0:
        give_up("only root can run as a user that does not exist")
    # The modules are loaded first: that user may read none of root's files.
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import main\n"
        "import locale, logging, pwd, shutil, flashflow.backend.cli.process, flashflow.backend.core.errors\n"
        f"os.setgid({unused()}); os.setuid({unused()}); sys.exit(main.main(['key']))"
    )
    env = {name: value for name, value in environment(tmp_path).items() if name not in {"HOME", "FLASHFLOW_DATA_DIR"}}
    command = [sys.executable, "-c", code, str(ROOT)]
    done = subprocess.run(command, cwd="/", env=env, capture_output=True, timeout=30, check=False)
    assert "--data-dir" in one_line(done)


def unused() -> int:
    """A user id that belongs to no account."""
    import pwd  # Unix only, as the next one

    taken = {entry.pw_uid for entry in pwd.getpwall()}
    return next(number for number in range(20_000, 60_000) if number not in taken)


def test_a_working_folder_that_was_removed_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"

    def leave() -> None:
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()

    done = run(tmp_path, "key", env={"FLASHFLOW_DATA_DIR": "data"}, before=leave)
    assert "FLASHFLOW_DATA_DIR" in one_line(done)


@pytest.mark.parametrize("place", ["/dev/null", "/proc/copies", "loop/copies", "x" * 300], ids=lambda place: place[:12])
def test_a_backup_that_cannot_be_made_is_said_in_one_line(tmp_path: Path, place: str) -> None:
    assert run(tmp_path, "track", "ada", "click").returncode == 0
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "The backup could not be made" in one_line(run(tmp_path, "backup", str(tmp_path / place)))


# --- files to import


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"], ids=ascii)
def test_a_csv_file_may_end_its_lines_in_any_way(tmp_path: Path, end: str) -> None:
    rows = ["user_id,activity_type,timestamp", "ada,click,2026-01-01T00:00:00Z", '"b,ob",click,2026-01-02T00:00:00Z']
    (tmp_path / "rows.csv").write_bytes("".join(row + end for row in ["\ufeff" + rows[0], *rows[1:]]).encode())
    done = run(tmp_path, "import", str(tmp_path / "rows.csv"))
    assert done.stdout.startswith(b"2 imported, 0 were there already, 0 refused."), done.stderr


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
@pytest.mark.parametrize("content", [b"\xff\xfeu\0s\0", b"PK\3\4", b"x" * 2_000_000], ids=["UTF-16", "zip", "huge"])
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "Unexpected" not in one_line(run(tmp_path, "import", str(tmp_path / name)))


def test_a_line_that_is_too_long_is_refused_alone(tmp_path: Path) -> None:
    good = b'{"user_id": "ada", "activity_type": "click", "timestamp": "2026-01-01T00:00:00Z"}\n'
    long = b'{"user_id": "ada", "metadata": "' + b"x" * 5_000_000 + b'"}\n'
    (tmp_path / "rows.jsonl").write_bytes(good + long + good.replace(b"ada", b"bob"))
    done = run(tmp_path, "import", str(tmp_path / "rows.jsonl"))
    assert one_line(done).startswith("line 2: is larger")
    assert done.stdout.startswith(b"2 imported, 0 were there already, 1 refused.")


def test_a_row_that_is_not_utf_8_is_named_and_the_others_land(tmp_path: Path) -> None:
    good = b"ada,click,2026-01-01T00:00:00Z,\n"
    bad = b'ada,click,2026-01-01T00:00:00Z,"{""a"": ""\xff""}"\n'
    (tmp_path / "rows.csv").write_bytes(b"user_id,activity_type,timestamp,metadata\n" + good + bad)
    done = run(tmp_path, "import", str(tmp_path / "rows.csv"))
    assert one_line(done).startswith("line 3: ")
    assert done.stdout.startswith(b"1 imported, 0 were there already, 1 refused.")
