"""A disk that is really full: a small file system of its own, mounted for the test, and the server as a process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.real_parts import give_up, require
from tests.support.server_process import ServerProcess, eventually, flashflow, serving

SIZE, ROOMY = "12m", "48m"
MOST_WRITES = 5_000
"""More than this disk can hold."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of SIZE, unmounted again whatever happens."""
    require("mount", "umount")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        give_up(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        # Lazily: the test may fail with a file still open on it.
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Take every byte that is left; returns the file that has them."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            return ballast


def write_until_full(write: Callable[[int], httpx.Response]) -> tuple[list[int], httpx.Response]:
    """Write numbers until one is refused: those that were acknowledged, and the refusal."""
    acknowledged = []
    for number in range(MOST_WRITES):
        answer = write(number)
        if answer.status_code != 201:
            return acknowledged, answer
        acknowledged.append(number)
    raise AssertionError("the disk never ran full")


def refused_as_full(answer: httpx.Response) -> None:
    assert answer.status_code == 507, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (problem["code"], problem["status"], problem["success"]) == ("storage_full", 507, False)


def track(server: ServerProcess, number: int | str) -> httpx.Response:
    body = {"user_id": "ada", "activity_type": "write", "activity_id": f"a{number}", "metadata": {"blob": "x" * 4000}}
    return server.api("POST", "/api/activity/track", body)


def send(server: ServerProcess, number: int | str) -> httpx.Response:
    return server.api(
        "POST", "/api/notifications/send", {"user_id": "ada", "title": f"n{number}", "message": "x" * 4000}
    )


def activity_ids(server: ServerProcess) -> set[str]:
    return {row["id"] for row in server.everything("/api/activity", "activities", user_id="ada")}


def titles(server: ServerProcess) -> set[str]:
    return {row["title"] for row in server.everything("/api/notifications/user/ada", "notifications")}


def test_on_a_full_disk_writes_say_so_reads_go_on_and_writes_resume_by_themselves(disk: Path) -> None:
    folder = disk / "data"
    with serving(folder) as server:
        assert track(server, "first").status_code == 201
        assert send(server, "first").status_code == 201
        ballast = fill(disk)
        tracked, no_activity = write_until_full(lambda number: track(server, number))
        sent, no_notice = write_until_full(lambda number: send(server, number))
        refused_as_full(no_activity)
        refused_as_full(no_notice)

        kept = {"afirst", *(f"a{number}" for number in tracked)}
        told = {"nfirst", *(f"n{number}" for number in sent)}
        assert activity_ids(server) == kept, "every acknowledged activity, and none that was refused"
        assert titles(server) >= told
        assert server.api("GET", "/api/analytics/user/ada").json()["analytics"]["total_activities"] == len(kept)
        health = server.api("GET", "/api/health")
        assert (health.status_code, health.json()["status"], health.json()["storage"]) == (
            200,
            "degraded",
            "storage_full",
        )
        batch = {"activities": [{"user_id": "ada", "activity_type": "write", "metadata": {"b": "x" * 4000}}] * 50}
        refused_as_full(server.api("POST", "/api/activity/batch", batch))

        ballast.unlink()
        assert track(server, "again").status_code == 201
        assert send(server, "again").status_code == 201
        assert server.api("GET", "/api/health").json()["status"] == "ok"
        server.kill()

    with serving(folder) as server:
        assert activity_ids(server) == {*kept, "aagain"}
        assert titles(server) >= {*told, "nagain"}


def test_a_disk_that_flashflow_filled_itself_is_used_again_when_it_grows(disk: Path) -> None:
    """Nothing but our own files: the WAL is as long as it can be, and cannot be folded for want of room."""
    folder = disk / "data"
    with serving(folder) as server:
        tracked, refusal = write_until_full(lambda number: track(server, number))
        refused_as_full(refusal)
        kept = {f"a{number}" for number in tracked}
        assert activity_ids(server) == kept
        subprocess.run(["mount", "-o", f"remount,size={ROOMY}", str(disk)], check=True)
        assert track(server, "again").status_code == 201
        assert server.stop() == 0
    with serving(folder) as server:
        assert activity_ids(server) == {*kept, "aagain"}


def test_a_write_that_was_refused_for_want_of_room_can_be_sent_again_as_it_was(disk: Path) -> None:
    with serving(disk / "data") as server:
        assert track(server, "first").status_code == 201
        ballast = fill(disk)
        tracked, _ = write_until_full(lambda number: track(server, number))
        refused = len(tracked)
        ballast.unlink()
        again = track(server, refused)
        assert again.status_code == 201, again.text
        assert "duplicate" not in again.json()


@pytest.mark.parametrize(
    ("ending", "left"),
    [("stopped", 0), ("stopped", 40_000), ("stopped", 72_000), ("killed", 4_096), ("killed while full", 0)],
)
def test_a_start_on_a_full_disk_serves_reads_and_makes_up_for_its_writes_when_there_is_room(
    disk: Path, ending: str, left: int
) -> None:
    folder = disk / "data"
    with serving(folder) as server:
        assert track(server, "first").status_code == 201
        assert send(server, "first").status_code == 201
        if ending == "killed while full":
            fill(disk)
            write_until_full(lambda number: track(server, number))
        server.stop() if ending == "stopped" else server.kill()
    (folder / "computer.id").unlink()
    ballast = fill(disk)
    if left:
        os.truncate(ballast, ballast.stat().st_size - left)
    with serving(folder) as server:
        kept = activity_ids(server)
        assert "afirst" in kept
        assert "nfirst" in titles(server)
        tracked, no_activity = write_until_full(lambda number: track(server, f"more{number}"))
        _, no_notice = write_until_full(lambda number: send(server, f"more{number}"))
        refused_as_full(no_activity)
        refused_as_full(no_notice)
        assert server.api("GET", "/api/health").json()["storage"] == "storage_full"
        ballast.unlink(missing_ok=True)
        eventually(lambda: (folder / "computer.id").exists() and (folder / "server.json").exists(), what="the writes")
        assert flashflow("send", "ada", "again", "over the command line", data_dir=folder).returncode == 0
        fill(disk)
        write_until_full(lambda number: track(server, f"last{number}"))
        assert server.stop() == 0
        assert "Traceback" not in server.err
    (disk / "ballast").unlink()
    with serving(folder) as server:
        assert activity_ids(server) >= {*kept, *(f"amore{number}" for number in tracked)}
        assert "again" in titles(server)


def test_the_health_is_ok_again_without_a_write_when_the_disk_has_room(disk: Path) -> None:
    with serving(disk / "data") as server:
        ballast = fill(disk)
        write_until_full(lambda number: track(server, number))
        write_until_full(lambda number: send(server, number))
        assert server.api("GET", "/api/health").json()["storage"] == "storage_full"
        ballast.unlink()
        eventually(lambda: server.api("GET", "/api/health").json()["status"] == "ok", what="the health")


def test_a_first_start_on_a_full_disk_is_refused_in_one_line(disk: Path) -> None:
    ballast = fill(disk)
    folder = disk / "data"
    done = flashflow("serve", "--no-ui", "--data-dir", str(folder), "--port", "0", data_dir=folder)
    assert done.returncode == 1, done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("flashflow: ")
    ballast.unlink()
    with serving(folder) as server:
        assert track(server, "first").status_code == 201
