"""Forks, kills, exits, threads and several processes: each row that ``track`` acknowledged arrives exactly once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from flashflow import client as module
from flashflow.client import Client
from tests.support.client_servers import KEY, Request, Server, server
from tests.support.server_process import ROOT, environment, eventually, serving

PREFIX = f"""
import os, sys, signal, threading, time
sys.path.insert(0, {str(ROOT)!r})
from flashflow.client import Client
def say(line): os.write(1, (line + '\\n').encode())  # in one piece: other threads write too
"""


def hang(request: Request) -> None:
    request.end.wait()


def start(folder: Path, script: str, running: Server | None = None) -> subprocess.Popen[str]:
    target = {"FLASHFLOW_URL": running.url, "FLASHFLOW_KEY": KEY} if running else {}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PREFIX + script],
        env=environment(folder, target),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> list[str]:
    """The lines that it printed."""
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, ""), err
    return out.split()


def deliver(folder: Path, running: Server) -> None:
    with Client(app="todo", url=running.url, key=KEY, data_dir=folder) as client:
        assert client.flush(20) == 0


def assert_each_once(running: Server, ids: list[str]) -> None:
    assert Counter(running.activities) == Counter(ids)
    assert len(set(ids)) == len(ids)


TRACK = "client = Client(app='todo', user_id='ada')\nfor n in range(50): say(client.track('export'))\n"


def test_rows_survive_kill_9_and_arrive_once_with_the_next_start(tmp_path: Path) -> None:
    ids = finish(start(tmp_path, TRACK + "os.kill(os.getpid(), signal.SIGKILL)"), -signal.SIGKILL)
    with server() as running:
        deliver(tmp_path, running)
        assert_each_once(running, ids)
    assert len(ids) == 50


def test_a_process_killed_while_it_sends_leaves_every_row_to_the_next(tmp_path: Path) -> None:
    """Its lease ends with it, and a batch that arrived without an answer arrives again under the same ids."""
    with server(hang) as hanging:
        process = start(tmp_path, TRACK + "time.sleep(60)", hanging)
        eventually(lambda: hanging.requests)
        process.kill()
        ids = finish(process, -signal.SIGKILL)
    with serving(tmp_path) as real:
        with Client(app="todo", data_dir=tmp_path) as client:
            assert client.flush(5) == 0
        rows = [row["id"] for row in real.everything("/api/activity", "activities")]
    assert sorted(rows) == sorted(ids)


@pytest.mark.parametrize(
    "end",
    [
        "",
        "sys.exit(0)",
        "def late():\n  for n in range(2): time.sleep(0.1); say(client.track('late'))\n"
        "threading.Thread(target=late).start()",
        "import atexit; atexit.register(lambda: say(client.track('last')))",
        "client.session().__enter__()",
        "class Last:\n    def __del__(self): say(client.track('last'))\nlast = Last(); last.me = last",
        "client.close()",
    ],
    ids=["end", "exit", "threads", "atexit", "open session", "a finaliser", "closed"],
)
@pytest.mark.parametrize("up", [True, False], ids=["server up", "server away"])
def test_an_exit_without_close_loses_nothing(tmp_path: Path, end: str, up: bool) -> None:
    with server() as running:
        ids = finish(start(tmp_path, TRACK + end, running if up else None))
        if up:
            assert set(running.activities) >= set(ids[:50]), "delivered at exit"
        deliver(tmp_path, running)
        assert_each_once(running, ids)


def test_an_exit_waits_for_no_hanging_server(tmp_path: Path) -> None:
    with server(hang) as hanging:
        ids = finish(start(tmp_path, "import time; began = time.monotonic()\n" + TRACK, hanging))
    with server() as running:
        deliver(tmp_path, running)
        assert_each_once(running, ids)


FORK = """
client = Client(app='todo', user_id='ada')
def go(name):
    for n in range(100): say(client.track(name))
go('before')
{warm}
children = []
for n in range(4):
    pid = os.fork()
    if not pid:
        go('child')
        {child}
        os._exit(0)
    children.append(pid)
    go('parent')
for pid in children: assert os.waitpid(pid, 0)[1] == 0
assert client.flush(20) == 0
"""


@pytest.mark.parametrize("child", ["client.flush(20)", "client.close()", "os.kill(os.getpid(), 0)"])
@pytest.mark.parametrize("warm", ["client.flush(20)", ""], ids=["after delivery", "at once"])
def test_parent_and_forked_children_lose_and_double_nothing(tmp_path: Path, child: str, warm: str) -> None:
    with server() as running:
        ids = finish(start(tmp_path, FORK.format(child=child, warm=warm), running))
        deliver(tmp_path, running)
        assert len(ids) == 900
        assert_each_once(running, ids)


def test_a_parent_that_ends_leaves_its_childs_rows_alone(tmp_path: Path) -> None:
    """An inherited connection would let the parent delete the log that the child writes."""
    script = """
client = Client(app='todo', user_id='ada')
say(client.track('parent'))
if os.fork():
    client.close(0)
    os._exit(0)
say(client.track('child'))
sys.stdin.read()
for n in range(20): say(client.track('child'))
os._exit(0)
"""
    process = start(tmp_path, script)
    assert process.wait(20) == 0
    ids = finish(process)
    with server() as running:
        deliver(tmp_path, running)
        assert_each_once(running, ids)
    assert len(ids) == 22


def test_a_fork_while_other_threads_track_and_send_hangs_nowhere(tmp_path: Path) -> None:
    script = """
client = Client(app='todo', user_id='ada')
stop = threading.Event()
def work():
    while not stop.is_set(): say(client.track('thread'))
threads = [threading.Thread(target=work) for n in range(3)]
for t in threads: t.start()
for n in range(15):
    pid = os.fork()
    if not pid:
        say(client.track('child'))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for t in threads: t.join()
assert client.flush(20) == 0
"""
    with server() as running:
        ids = finish(start(tmp_path, script, running))
        assert_each_once(running, ids)


def test_only_one_client_of_a_file_is_its_sender_even_if_it_read_the_clock_before_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (Client(app="todo", data_dir=tmp_path)._queue for _ in range(2))
    assert first.lease()
    now = module._now_ms()
    monkeypatch.setattr(module, "_now_ms", lambda: now - 500)
    assert not second.lease()
    assert first.lease()
    first.release()
    assert second.lease()
    first.close()
    second.close()


def test_processes_with_one_file_lose_and_double_nothing(tmp_path: Path) -> None:
    with server() as running:
        script = TRACK.replace("range(50)", "range(400)") + "assert client.flush(30) == 0"
        processes = [start(tmp_path, script, running) for _ in range(3)]
        ids = [each for process in processes for each in finish(process)]
        deliver(tmp_path, running)
        assert_each_once(running, ids)


def test_threads_with_one_client_lose_and_double_nothing_and_each_keeps_its_order(tmp_path: Path) -> None:
    rows: dict[int, list[str]] = {}
    with server() as running, Client(app="todo", url=running.url, key=KEY, data_dir=tmp_path) as client:

        def work(number: int) -> None:
            rows[number] = [client.track("export") for _ in range(300)]

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.flush(20) == 0
        assert_each_once(running, [each for found in rows.values() for each in found])
        places = {each: place for place, each in enumerate(running.activities)}
        for found in rows.values():
            assert sorted(found, key=places.__getitem__) == found


def test_a_signal_handler_may_track(tmp_path: Path) -> None:
    script = """
client = Client(app='todo', user_id='ada')
found = []
signal.signal(signal.SIGALRM, lambda *_: found.append(client.track('signal')))
for n in range(300):
    signal.setitimer(signal.ITIMER_REAL, 0.00001 * (n % 10 + 1))
    found.append(client.track('export'))
signal.setitimer(signal.ITIMER_REAL, 0)
print(*found)
assert client.flush(20) == 0
"""
    with server() as running:
        ids = finish(start(tmp_path, script, running))
        assert_each_once(running, ids)


def test_the_sender_thread_ends_when_idle_and_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashflow.client.IDLE_S", 0.01)
    with server() as running, Client(app="todo", url=running.url, key=KEY, data_dir=tmp_path) as client:
        for count in range(1, 6):
            client.track("export")
            eventually(lambda count=count: len(running.activities) == count)  # type: ignore[misc]
            eventually(lambda: client._thread is None)


def test_a_forked_child_may_end_before_it_used_the_client(tmp_path: Path) -> None:
    with server() as running, Client(app="todo", url=running.url, key=KEY, data_dir=tmp_path) as client:
        first = client.track("export")
        pid = os.fork()
        if not pid:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        second = client.track("export")
        client.flush()
        assert running.activities == [first, second]
