"""What an answer promises survives the worst end of the process, and every other end is clean."""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess, flashflow, free_port, serving

WRITERS = 16
ROUNDS = 4
READER = "ada"
STOP_LIMIT = 3.0


class Writers:
    """Sixteen connections that post activities and notifications, each with an id of its own, until the server dies.

    ``acknowledged`` maps what was sent to the id it was given, once a 2xx said so; ``sent`` is all that went out.
    """

    def __init__(self, server: ServerProcess, label: str, enough: int) -> None:
        self.server = server
        self.sent: set[str] = set()
        self.acknowledged: dict[str, str] = {}
        self.refused: list[str] = []
        self._label = label
        self._enough = enough
        self._key = server.key
        self._lock = threading.Lock()

    def run_until_killed(self) -> None:
        """Returns when the server is gone: killed at the ``enough``-th answer, the other writers in mid-request."""
        threads = [threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)

    def _write(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        turn = 0
        try:
            while True:
                turn += 1
                self._post(connection, f"{self._label}-{number}-{turn}", sends=(number + turn) % 2 == 0)
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()

    def _post(self, connection: http.client.HTTPConnection, name: str, *, sends: bool) -> None:
        path, body = request(name, sends=sends)
        with self._lock:
            self.sent.add(name)
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", "Idempotency-Key": name}
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        payload = json.loads(answer.read())
        with self._lock:
            if answer.status != 201:
                self.refused.append(f"{answer.status} {payload}")
                return
            self.acknowledged[name] = payload["notification_id" if sends else "activity_id"]
            enough = len(self.acknowledged) == self._enough
        if enough:
            self.server.process.kill()


def request(name: str, *, sends: bool) -> tuple[str, str]:
    """The path and body that carry ``name``: an activity's id, or a notification's title."""
    if sends:
        return "/api/notifications/send", json.dumps({"user_id": READER, "title": name, "message": "kept"})
    return "/api/activity/track", json.dumps({"user_id": READER, "activity_type": "write", "activity_id": name})


def stored(server: ServerProcess) -> dict[str, list[str]]:
    """Everything the server lists, as name → the ids it stands under."""
    found: dict[str, list[str]] = {}
    for row in server.everything("/api/activity", "activities", user_id=READER):
        found.setdefault(row["id"], []).append(row["id"])
    for row in server.everything(f"/api/notifications/user/{READER}", "notifications"):
        found.setdefault(row["title"], []).append(row["id"])
    return found


def test_what_was_acknowledged_survives_kill_9_and_stands_there_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    acknowledged: dict[str, str] = {}
    sent: set[str] = set()
    for turn in range(ROUNDS):
        with serving(tmp_path) as server:
            writers = Writers(server, f"round{turn}", enough=chance.randrange(50, 600))
            writers.run_until_killed()
            server.kill()
        assert writers.refused == []
        acknowledged |= writers.acknowledged
        sent |= writers.sent

        with serving(tmp_path) as server:
            found = stored(server)
        lost = {name: given for name, given in acknowledged.items() if given not in found.get(name, [])}
        assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged writes are gone"
        twice = [name for name, ids in found.items() if len(ids) > 1]
        assert not twice, "stored more than once"
        assert found.keys() <= sent, "rows that nobody sent"


def test_a_write_sent_again_after_a_kill_stands_there_once(tmp_path: Path) -> None:
    """A caller that got no answer repeats its request; with its id or its Idempotency-Key that is always safe."""
    with serving(tmp_path) as server:
        writers = Writers(server, "first", enough=200)
        writers.run_until_killed()
        server.kill()
    with serving(tmp_path) as server:
        for name in sorted(writers.sent):
            number, turn = map(int, name.split("-")[1:])
            path, body = request(name, sends=(number + turn) % 2 == 0)
            headers = {"Content-Type": "application/json", "Idempotency-Key": name}
            answer = server.api("POST", path, content=body, headers=headers)
            assert answer.status_code in {200, 201}, answer.text
        found = stored(server)
    assert Counter({name: len(ids) for name, ids in found.items()}) == Counter(writers.sent)
    assert {name: ids[0] for name, ids in found.items() if name in writers.acknowledged} == writers.acknowledged


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("ui", [False, True], ids=["without UI", "with UI"])
def test_asked_to_stop_it_ends_within_three_seconds_and_leaves_no_wal(
    tmp_path: Path, how: signal.Signals, ui: bool
) -> None:
    with serving(tmp_path, ui=ui) as server, socket.create_connection(("127.0.0.1", server.port)) as half_open:
        half_open.sendall(b"POST /api/activity/track HTTP/1.1\r\n")
        follow = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        follow.request("GET", f"/api/stream?user_id={READER}", headers={"Authorization": f"Bearer {server.key}"})
        stream = follow.getresponse()
        assert stream.status == 200
        assert server.api("POST", "/api/activity/track", {"user_id": READER, "activity_type": "x"}).status_code == 201

        began = time.monotonic()
        code = server.stop(how)
        took = time.monotonic() - began
        stream.close()
        follow.close()
        log = server.log
    assert code == 0, log
    assert took < STOP_LIMIT, log
    assert "Traceback" not in log
    assert {path.name: path.stat().st_size for path in tmp_path.glob("*-wal") if path.stat().st_size} == {}


def test_a_second_instance_on_the_same_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        second = flashflow(
            "serve", "--no-ui", "--data-dir", str(tmp_path), "--port", str(free_port()), data_dir=tmp_path
        )
        assert server.api("GET", f"/api/analytics/user/{READER}").status_code == 200
    assert second.returncode == 1
    assert len(second.stderr.splitlines()) == 1, second.stderr
    assert str(tmp_path) in second.stderr


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = flashflow("serve", "--no-ui", "--data-dir", str(tmp_path), "--port", port, data_dir=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert port in done.stderr
    assert "Traceback" not in done.stdout


def test_a_port_in_use_leaves_the_folder_free_for_the_next_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        flashflow("serve", "--no-ui", "--data-dir", str(tmp_path), "--port", port, data_dir=tmp_path)
    with serving(tmp_path) as server:
        assert server.api("GET", "/api/activity").status_code == 200
