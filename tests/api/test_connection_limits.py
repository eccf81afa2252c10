"""Neither one key nor clients without a key can hold every connection: requests are always accepted."""

from __future__ import annotations

import json
import resource
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from flashflow.backend.api.http.connection_limits import Limits
from tests.support.api_client import App, fresh, ok
from tests.support.raw_http import Peer, head
from tests.support.raw_http import serving as serving_raw
from tests.support.server_process import ServerProcess, eventually, serving

CROWD = 540
"""More connections than the limit (512)."""
PER_KEY = Limits().streams_per_key
WAITING = {
    "nothing sent": b"",
    "half a head": b"GET /echo HTTP/1.1\r\nHost: x\r\n",
    "half a body": b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
    "kept alive": head(200),
}


@pytest.fixture(params=["httptools", "h11"], scope="module")
def parser(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module", autouse=True)
def room_for_sockets() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def server(tmp_path: Any) -> Iterator[ServerProcess]:
    with serving(tmp_path) as running:
        yield running
        assert "Traceback" not in running.log


def request(server: ServerProcess, path: str, key: str | None, start: str = "GET") -> bytes:
    shown = "" if key is None else f"Authorization: Bearer {key}\r\n"
    return f"{start} {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{shown}\r\n".encode()


def crowd(server: ServerProcess, stack: ExitStack, sent: bytes, count: int = CROWD) -> list[Peer]:
    peers = []
    for _ in range(count):
        peer = stack.enter_context(closing(Peer(server.port)))
        peer.send(sent)
        peers.append(peer)
    return peers


# --- at the connection


@pytest.mark.parametrize("waiting", WAITING.values(), ids=WAITING.keys())
@pytest.mark.parametrize("limits", [Limits(max_connections=4), Limits(max_unknown=4)], ids=["all", "unknown"])
def test_of_too_many_connections_that_wait_the_one_that_waits_longest_ends(
    parser: Any, limits: Limits, waiting: bytes
) -> None:
    with serving_raw(parser, limits) as running:
        held: list[Any] = []
        for _ in range(4):
            held.append(running.peer().send(waiting))
            if waiting.endswith(b"\r\n\r\n"):
                assert held[-1].read().status == 200
        assert running.get().status == 200
        if waiting.endswith(b"\r\n\r\n"):
            assert held[0].is_closed()
            assert held[-1].send(waiting).read().status == 200
        else:
            assert held[0].read().problem["code"] == "too_many_connections"


def test_a_peer_that_does_not_read_makes_room_before_one_that_is_answered(parser: Any) -> None:
    with serving_raw(parser, Limits(max_connections=2)) as running:
        reader = running.peer().send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.read().body == b"first"
        running.peer(receive_buffer=4096).send(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        assert eventually(lambda: running.get().status == 200, what="the flood to be stuck")
        running.app.go.set()
        assert reader.read_chunk() == b"last"


def test_websockets_leave_places_for_requests(parser: Any) -> None:
    with serving_raw(parser, Limits(max_connections=4, max_streams=2)) as running, ExitStack() as stack:
        address = f"ws://127.0.0.1:{running.port}/"
        held = [stack.enter_context(connect(address, proxy=None)) for _ in range(2)]
        with pytest.raises(InvalidStatus) as refused:
            stack.enter_context(connect(address, proxy=None))
        assert refused.value.response.status_code == 503
        assert running.get().status == 200
        held[0].close()
        with connect(address, proxy=None) as again:
            again.send("x")
            assert again.recv(10) == "x"


# --- at the API


@pytest.mark.parametrize("kind", [*WAITING, "kept alive with a key", "half a body with a key"])
def test_a_crowd_of_connections_does_not_keep_a_request_out(server: ServerProcess, kind: str) -> None:
    app = App(server, "read", "track")
    if kind == "kept alive":
        sent = request(server, "/api/health", None)
    elif kind.endswith("with a key"):
        sent = request(server, "/api/activity", app.key)
    else:
        sent = WAITING[kind]
    with ExitStack() as stack, closing(Peer(server.port)) as stream:
        stream.send(request(server, "/api/stream", server.key))
        assert stream.read().status == 200
        peers = crowd(server, stack, sent)
        if kind == "half a body with a key":
            for peer in peers[-300:]:
                assert peer.read().status == 200
                peer.send(b"POST /api/activity/track HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
        for _ in range(3):
            with closing(Peer(server.port)) as newcomer:
                assert newcomer.send(request(server, "/api/activity", server.key)).read().status == 200
        user = fresh()
        ok(server.api("POST", "/api/activity/track", {"user_id": user, "activity_type": "x"}), 201)
        while user.encode() not in stream.read_chunk():  # a stream that was open before goes on
            pass


def test_one_key_may_follow_so_many_streams_and_leaves_the_others_theirs(server: ServerProcess) -> None:
    greedy, other = App(server, "read"), App(server, "read")
    with ExitStack() as stack:
        peers = crowd(server, stack, request(server, "/api/stream", greedy.key), PER_KEY)
        assert [peer.read().status for peer in peers] == [200] * PER_KEY
        (refused,) = crowd(server, stack, request(server, "/api/stream", greedy.key), 1)
        answer = refused.read()
        problem = json.loads(answer.body)
        assert (answer.status, problem["code"], problem["success"]) == (429, "rate_limited", False)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "1"
        refused.send(request(server, "/api/activity", greedy.key))  # the connection and the key are as good as before
        assert refused.read().status == 200
        (allowed,) = crowd(server, stack, request(server, "/api/stream", other.key), 1)
        assert allowed.read().status == 200
        peers[0].socket.shutdown(socket.SHUT_RDWR)

        def again() -> bool:
            with closing(Peer(server.port)) as peer:
                return peer.send(request(server, "/api/stream", greedy.key)).read().status == 200

        assert eventually(again)


def is_without_streams(server: ServerProcess) -> bool:
    return "\nflashflow_event_stream_clients 0" in server.api("GET", "/api/metrics").text


def test_the_streams_of_all_keys_leave_places_for_requests(server: ServerProcess) -> None:
    eventually(lambda: is_without_streams(server), what="the end of the streams of earlier tests")
    keys = [App(server, "read").key for _ in range(4)]
    with ExitStack() as stack:
        peers = [peer for key in keys for peer in crowd(server, stack, request(server, "/api/stream", key), PER_KEY)]
        statuses = [peer.read().status for peer in peers]
        # The loop may read connections in another order than they sent.
        assert Counter(statuses) == {200: Limits().max_streams, 429: len(peers) - Limits().max_streams}
        assert server.api("GET", "/api/activity").status_code == 200
