"""``flashflow erase`` and ``flashflow readmit``, with a server beside them and without."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from flashflow.backend import Backend, Config
from flashflow.backend.store.engine.backup import back_up
from tests.support.api_client import rows_in
from tests.support.server_process import ROOT, environment, flashflow, serving

ADA = "ada/../lovelace é"
"""An id that a path has to carry whole."""
FILE = "user_activities.db"


@pytest.fixture(params=["alone", "beside a server"])
def folder(request: pytest.FixtureRequest, tmp_path: Path):
    """A folder in which Ada and Bob left something, with backups; once without a server on it and once with one."""
    with Backend(Config(data_dir=tmp_path, port=0, me="me")) as backend:
        for user in (ADA, ADA, "bob"):
            backend.activity.track_activity(user, "a")
        backend.notifications.send_notification(ADA, "t", "m")
        for name in (FILE, "notifications.db"):  # today's: the server makes no other
            back_up(tmp_path / name, backend.clock, "daily")
    if request.param == "alone":
        yield tmp_path
        return
    with serving(tmp_path):
        yield tmp_path


def users(folder: Path) -> set[str]:
    return {user for (user,) in rows_in(folder / FILE, "SELECT user_id FROM user_activities")}


def on_a_terminal(answer: str, *arguments: str, folder: Path) -> tuple[int, str]:
    """Exit code and standard error of a run whose standard input is a terminal on which somebody types ``answer``."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer.encode())
        done = subprocess.run(
            [sys.executable, "main.py", *arguments], cwd=ROOT, env=environment(folder), stdin=theirs,
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stderr


def test_erase_says_what_was_removed_and_what_remains_and_readmit_lifts_it(folder: Path) -> None:
    (folder / f"{FILE}.damaged-20260101T000000000Z").write_bytes(b"old")
    done = flashflow("erase", ADA, "--yes", data_dir=folder)
    assert (done.returncode, done.stderr) == (0, "")
    first, swept, backups, remains, damaged = done.stdout.splitlines()
    assert first == f"“{ADA}” is erased. Removed: 2 activities, 1 session, 1 notification, 1 delivery."
    assert swept == "The files' free pages were swept."
    assert backups == "Backups removed: 2; fresh ones took their place."
    assert remains.startswith("Remaining: a tombstone")
    assert damaged.endswith(f": {FILE}.damaged-20260101T000000000Z.")
    assert users(folder) == {"bob"}
    late = flashflow("track", ADA, "late", data_dir=folder)
    assert (late.returncode, "was erased" in late.stderr) == (1, True)
    assert (
        flashflow("readmit", ADA, data_dir=folder).stdout == f"“{ADA}” may be stored again; erased data stays erased.\n"
    )
    assert flashflow("track", ADA, "again", data_dir=folder).returncode == 0
    assert rows_in(folder / FILE, "SELECT activity_type FROM user_activities ORDER BY seq") == [("a",), ("again",)]


def test_of_somebody_unknown_it_erases_nothing_unless_it_has_to(folder: Path) -> None:
    lifted = flashflow("readmit", "nobody", data_dir=folder)
    assert (lifted.returncode, lifted.stdout) == (0, "“nobody” is not erased; nothing was changed.\n")
    done = flashflow("erase", "nobody", "--yes", data_dir=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing was changed" in done.stderr
    assert "--even-if-unknown" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = flashflow("erase", "nobody", "--yes", "--even-if-unknown", data_dir=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Nothing was stored of “nobody”.\n")
    assert users(folder) == {ADA, "bob"}
    assert flashflow("track", "nobody", "a", data_dir=folder).returncode == 1  # the tombstone stands


def test_without_a_terminal_it_needs_a_yes(folder: Path) -> None:
    done = flashflow("erase", ADA, data_dir=folder, stdin="y\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "flashflow: Nothing was erased: without a terminal, --yes is required.\n"
    assert users(folder) == {ADA, "bob"}


@pytest.mark.parametrize("answer", ["\n", "n\n", "maybe\n", "\x04"])
def test_on_a_terminal_it_asks_and_anything_but_yes_keeps_the_person(folder: Path, answer: str) -> None:
    code, told = on_a_terminal(answer, "erase", ADA, folder=folder)
    assert code == 1
    assert told.startswith(f"Erase everything stored of “{ADA}”")
    assert told.endswith("flashflow: Nothing was erased.\n")
    assert users(folder) == {ADA, "bob"}


def test_on_a_terminal_a_yes_erases(folder: Path) -> None:
    code, _ = on_a_terminal("y\n", "erase", ADA, folder=folder)
    assert code == 0
    assert users(folder) == {"bob"}


@pytest.mark.parametrize("user", ["", " ", "a\nb", "u" * 256, "\udce9"])
@pytest.mark.parametrize("command", [("erase", "--yes"), ("readmit",)])
def test_what_is_no_user_id_is_refused_in_one_line(tmp_path: Path, command: tuple[str, ...], user: str) -> None:
    done = flashflow(*command, user, data_dir=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(("flashflow: user_id: ", "flashflow: user: "))
    assert len(done.stderr.splitlines()) == 1
