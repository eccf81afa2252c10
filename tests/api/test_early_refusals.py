"""A refusal reaches a client that is still sending, instead of a broken pipe."""

from __future__ import annotations

import http.client
import json
import select
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from flashflow.backend.api.http.connection_limits import Limits
from tests.support.api_client import JSON, SEND, TRACK, Raw, problem
from tests.support.raw_http import PATIENCE, Running, head
from tests.support.raw_http import serving as serving_raw
from tests.support.server_process import ServerProcess, serving

MIB = 1024 * 1024
PIECE = b"b" * 65_536


@pytest.fixture(params=["httptools", "h11"], scope="module")
def parser(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def running(parser: Any) -> Iterator[Running]:
    with serving_raw(parser, Limits(request_deadline_s=2.0)) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("refusals")) as running:
        yield running
        assert "Traceback" not in running.log


REFUSED = {
    "declared": (b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 1048616\r\n\r\n", 413),
    "chunked": (b"POST /refuse HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n", 413),
    "HTTP/1.0": (b"POST /refuse HTTP/1.0\r\nHost: x\r\nContent-Length: 1048616\r\n\r\n", 413),
    "headers": (head(17_000)[:-4], 431),
    "no request": (b"nonsense\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nContent-Length: 8\r\n\r\n", 400),
    "bad chunk": (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "bad chunk of a second request": (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        200,
    ),
    "slow": (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1048616\r\n\r\n", 408),
}


@pytest.mark.parametrize(("start", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_who_sends_on_after_a_refusal_reads_it(running: Running, start: bytes, status: int) -> None:
    peer = running.peer().send(start)
    assert select.select([peer.socket], [], [], PATIENCE)[0]  # the answer is here, and nothing is read yet
    for _ in range(MIB // len(PIECE)):
        peer.send(PIECE)
    assert peer.read().status == status
    rest = peer.file.read()  # to the end of the connection
    assert rest == b"" or rest.startswith(b"HTTP/1.1 400")


def test_who_never_stops_sending_is_cut_off_soon(running: Running) -> None:
    flood = PIECE * 1_024  # more than the buffers between here and there hold
    peer = running.peer().send(REFUSED["declared"][0])
    started = time.monotonic()
    with pytest.raises(OSError, match=r"pipe|reset|aborted"):
        peer.send(flood)
    assert time.monotonic() - started < 5


def test_a_refused_client_that_is_done_is_not_kept(running: Running) -> None:
    peer = running.peer().send(REFUSED["declared"][0])
    assert peer.read().status == 413
    started = time.monotonic()
    assert peer.is_closed()  # the server stops writing with its answer, and does not wait for the body
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize(
    ("path", "headers", "code"),
    [
        (TRACK, {}, "payload_too_large"),
        (SEND, {"Content-Type": "text/plain"}, "payload_too_large"),
        (TRACK, {"Content-Encoding": "gzip"}, "payload_too_large"),
        (TRACK, {"Authorization": "Bearer wrong"}, "payload_too_large"),
        (TRACK, {"Origin": "http://evil.example"}, "forbidden"),
        (TRACK, {"Host": "evil.example"}, "forbidden"),
        ("/api/nothing", {}, "not_found"),
        ("/api/activity", {}, "method_not_allowed"),
        ("/api/stream", {}, "method_not_allowed"),
        ("/openapi.json", {}, "method_not_allowed"),
        ("/launch/x", {}, "unauthorized"),
    ],
)
@pytest.mark.parametrize("size", [MIB + 40, 2 * MIB - 1])
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_every_refusal_of_a_large_body_reaches_a_client_that_sends_first(
    server: ServerProcess, path: str, headers: dict[str, str], code: str, size: int, chunked: bool
) -> None:
    sent = {"Authorization": f"Bearer {server.key}"} | JSON | headers
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.putrequest("POST", path, skip_host="Host" in sent, skip_accept_encoding=True)
        for name, value in sent.items():
            connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
            body: Any = [b"x" * size]
        else:
            connection.putheader("Content-Length", str(size))
            body = b"x" * size
        connection.endheaders(body, encode_chunked=chunked)
        answer = connection.getresponse()
        raw = Raw(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode())
    problem(raw, code)
    assert json.loads(raw.text)["detail"]
