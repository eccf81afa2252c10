"""The queue file: private, bounded, and never lost to damage, a newer version or a folder that cannot be used."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from flashflow.client import Client, ClientError, QueueError, QueueFull, queue_states
from tests.support.client_servers import KEY, server
from tests.support.real_parts import give_up, require

URL = "http://127.0.0.1:1"


def away(folder: Path, **options: object) -> Client:
    """A client whose server is away, and that does not try."""
    client = Client(app="todo", user_id="ada", url=URL, key=KEY, data_dir=folder, **options)  # type: ignore[arg-type]
    client._start = lambda: None  # type: ignore[method-assign]
    return client


def queue(folder: Path) -> Path:
    return folder / "client" / "todo.queue"


def delivered(folder: Path) -> list[str]:
    """The activities that a new client of the folder delivers, in order."""
    with server() as running, Client(app="todo", url=running.url, key=KEY, data_dir=folder) as client:
        assert client.flush(10) == 0
        return running.activities


def test_only_its_user_can_read_the_files(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        away(tmp_path / "data").track("export")
    finally:
        os.umask(mask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").rglob("*")}
    assert modes == {"client": 0o700, "todo.queue": 0o600, "todo.queue-wal": 0o600, "todo.queue-shm": 0o600}
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_every_cut_of_the_file_is_set_aside_and_new_rows_arrive(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = away(tmp_path / "0")
    ids = [client.track("export", {"text": "x" * 300}) for _ in range(60)]
    client.close(0)
    whole = queue(tmp_path / "0").read_bytes()
    for size in [1, 50, 99, 100, 2_000, 4_096, 8_192, 16_384, 20_480, len(whole) - 4_096, len(whole) - 100]:
        folder = tmp_path / str(size)
        queue(folder).parent.mkdir(mode=0o700, parents=True)
        queue(folder).write_bytes(whole[:size])
        queue(folder).chmod(0o600)
        caplog.clear()
        client = away(folder)
        new = client.track("export")
        client.close(0)
        rows = delivered(folder)
        assert rows[-1] == new
        assert rows[:-1] == [each for each in ids if each in rows]
        asides = [path for path in queue(folder).parent.iterdir() if ".damaged-" in path.name]
        assert len(asides) == 1
        assert asides[0].stat().st_size == size
        assert asides[0].name in caplog.text
    assert len(rows) > 50, "a cut within a page costs the rows of that page"


@pytest.mark.parametrize("content", [b"SQLite format 3\0" + b"\xff" * 5_000, b"no database" * 500])
def test_a_file_that_is_no_queue_is_set_aside(tmp_path: Path, content: bytes) -> None:
    queue(tmp_path).parent.mkdir(mode=0o700)
    queue(tmp_path).write_bytes(content)
    queue(tmp_path).chmod(0o600)
    client = away(tmp_path)
    wanted = client.track("export")
    client.close(0)
    assert delivered(tmp_path) == [wanted]
    (aside,) = [path for path in queue(tmp_path).parent.iterdir() if ".damaged-" in path.name]
    assert aside.read_bytes() == content


def test_a_database_of_another_program_is_set_aside(tmp_path: Path) -> None:
    queue(tmp_path).parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(queue(tmp_path))) as other:
        other.execute("CREATE TABLE queue(x)")
    queue(tmp_path).chmod(0o600)
    client = away(tmp_path)
    wanted = client.track("export")
    client.close(0)
    assert delivered(tmp_path) == [wanted]


def test_damage_while_the_file_is_open_loses_no_new_row(tmp_path: Path) -> None:
    client = away(tmp_path)
    ids = [client.track("export", {"text": "x" * 300}) for _ in range(500)]
    client._queue.close(checkpoint=True)
    with queue(tmp_path).open("r+b") as file:
        file.seek(queue(tmp_path).stat().st_size - 40_000)
        file.write(b"\xff" * 40_000)
    ids.append(client.track("export"))
    client.close(0)
    rows = delivered(tmp_path)
    assert rows == [*ids[: len(rows) - 1], ids[-1]]
    assert len(rows) > 100


def test_a_file_of_a_newer_version_is_not_touched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    queue(tmp_path).parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(queue(tmp_path))) as newer:
        newer.execute("CREATE TABLE queue(something TEXT, newer TEXT)")
        newer.execute("PRAGMA user_version = 2")
    queue(tmp_path).chmod(0o600)
    content = queue(tmp_path).read_bytes()
    client = away(tmp_path)
    wanted = client.track("export")
    assert client.pending == 1
    client.close(0)
    assert queue(tmp_path).read_bytes() == content
    assert sorted(path.name for path in queue(tmp_path).parent.iterdir()) == ["todo.queue", "todo.queue.v1"]
    assert "newer version" in caplog.text
    assert queue_states(queue(tmp_path).parent) == [
        ("todo.queue", True, "of a newer version"),
        ("todo.queue.v1", True, "1 pending, 0 rejected"),
    ]
    assert delivered(tmp_path) == [wanted]


@pytest.mark.parametrize(
    "kind", ["read-only", "a file", "a link", "another user's", "writable by all", "a folder", "a pipe"]
)
def test_where_no_file_can_be_used_rows_are_kept_in_memory_and_the_client_says_so(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"
    (folder / "client").mkdir(mode=0o700, parents=True)
    if kind == "read-only":
        folder = Path("/proc")  # even for root
    elif kind == "a file":
        folder = tmp_path / "file"
        folder.write_text("")
    elif kind == "a link":
        (tmp_path / "target").write_text("")
        queue(folder).symlink_to(tmp_path / "target")
    elif kind == "another user's":
        if os.geteuid():
            give_up("only root can give a file away")
        queue(folder).write_text("")
        os.chown(queue(folder), 12_345, -1)
    elif kind == "writable by all":
        (folder / "client").chmod(0o777)
    elif kind == "a folder":
        queue(folder).mkdir()
    else:
        os.mkfifo(queue(folder), 0o600)
    with server() as running, Client(app="todo", url=running.url, key=KEY, data_dir=folder) as client:
        wanted = client.track("export")
        assert not client.is_durable
        assert client.flush() == 0
        assert running.activities == [wanted]
    assert caplog.text.count("in memory only") == 1
    if kind == "a link":
        assert (tmp_path / "target").read_text() == ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    require("mount", "umount")
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        give_up(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_loses_only_the_rows_that_are_counted(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 400_000)
    client = away(small_disk)
    ids = [client.track("export", {"text": "x" * 5_000}) for _ in range(300)]
    assert 0 < client.lost < 300
    assert caplog.text.count("disk is full") == 1
    assert client.pending == 300 - client.lost
    client.close(0)
    strict = away(small_disk, strict=True)
    with pytest.raises(QueueError, match="full"):
        strict.track("export", {"text": "x" * 50_000})
    strict.close(0)
    with server() as running, Client(app="todo", url=running.url, key=KEY, data_dir=small_disk) as sending:
        sending.flush(0.5)
        ballast.unlink()
        assert sending.flush() == 0
        kept = list(dict.fromkeys(running.activities))
    assert kept == ids[: len(kept)]
    assert len(kept) == 300 - client.lost


def test_a_send_on_a_full_disk_returns_the_servers_answer(small_disk: Path) -> None:
    with server() as running, Client(app="todo", url=running.url, key=KEY, data_dir=small_disk) as client:
        client._start = lambda: None  # type: ignore[method-assign]
        client.track("export")
        (small_disk / "ballast").write_bytes(b"x" * 10_000)
        with suppress(OSError), (small_disk / "ballast").open("ab", buffering=0) as ballast:
            while ballast.write(b"x" * 1_000):
                pass
        for _ in range(20):
            client.track("export", {"text": "x" * 5_000})
        assert client.lost
        assert client.send("Title", "Message").status == "delivered"
        (small_disk / "ballast").unlink()


def test_a_full_queue_drops_the_oldest_rows_and_counts_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    client = away(tmp_path, most_rows=100)
    ids = [client.track("export") for _ in range(1_000)]
    assert client.pending <= 110
    assert client.dropped == 1_000 - client.pending
    assert "dropped" in caplog.text
    client.close(0)
    assert delivered(tmp_path) == ids[-(1_000 - client.dropped) :]


def test_a_strict_client_raises_when_the_queue_is_full(tmp_path: Path) -> None:
    client = away(tmp_path, most_rows=10, strict=True)
    for _ in range(10):
        client.track("export")
    with pytest.raises(QueueFull):
        client.track("export")
    assert client.close(0) == 10


def test_delivered_rows_leave_no_large_file(tmp_path: Path) -> None:
    client = away(tmp_path)
    for _ in range(40):
        client.track("export", {"text": "x" * 100_000})
    client.close(0)
    assert queue(tmp_path).stat().st_size > 3_000_000
    delivered(tmp_path)
    assert queue(tmp_path).stat().st_size < 2_000_000


def test_a_closed_client_refuses_calls_and_may_be_closed_again(tmp_path: Path) -> None:
    client = away(tmp_path)
    client.track("export")
    assert client.close(0) == 1
    assert client.close(0) == 0
    with pytest.raises(ClientError):
        client.track("export")


def test_a_clock_that_is_set_back_delays_nothing(tmp_path: Path) -> None:
    client = away(tmp_path)
    wanted = client.track("export")
    far = 10**15
    client._queue.run(lambda found: found.execute("UPDATE queue SET due = ?", (far,)))
    client._queue.run(lambda found: found.execute("INSERT INTO state VALUES('sender', '1 x', ?)", (far,)))
    client.close(0)
    assert delivered(tmp_path) == [wanted]
