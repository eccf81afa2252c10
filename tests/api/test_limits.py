"""Limits of one connection, over a real uvicorn on a real port, with either parser."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import connect

from flashflow.backend.api.http.connection_limits import Limits
from flashflow.backend.api.http.problem_json import problem_bytes, problem_of
from flashflow.backend.core.errors import NotFound, ValidationError
from tests.support.raw_http import PATIENCE, Running, head, serving

TIGHT = Limits(request_deadline_s=0.4, write_deadline_s=0.4, max_connections=8)
PATIENT = Limits()


@pytest.fixture(params=["httptools", "h11"], scope="module")
def parser(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def tight(parser: Any) -> Iterator[Running]:
    with serving(parser, TIGHT) as running:
        yield running


@pytest.fixture(scope="module")
def shared(parser: Any) -> Iterator[Running]:
    with serving(parser, TIGHT) as running:
        yield running


@pytest.fixture
def patient(parser: Any) -> Iterator[Running]:
    with serving(parser, PATIENT) as running:
        yield running


# --- bytes of header


def test_a_head_of_exactly_the_limit_is_served(patient: Running) -> None:
    assert patient.peer().send(head(16384)).read().status == 200


def test_a_head_one_byte_over_the_limit_is_431_and_the_connection_ends(patient: Running) -> None:
    peer = patient.peer().send(head(16385))
    answer = peer.read()
    assert (answer.status, answer.problem["code"]) == (431, "headers_too_large")
    assert peer.is_closed()
    assert patient.app.bodies == []


@pytest.mark.parametrize("start", [b"GET /echo HTTP/1.1\r\nHost: x\r\nX-Fill: ", b"GET /", b"A"])
def test_a_head_that_never_ends_is_refused(patient: Running, start: bytes) -> None:
    peer = patient.peer().send(start)
    peer.send(b"a" * 70_000)
    answer = peer.read()
    assert answer.status in (431, 400)
    assert answer.problem
    assert peer.is_closed()


def test_a_long_head_is_431_on_a_kept_alive_and_on_a_pipelined_request_too(patient: Running) -> None:
    peer = patient.peer().send(head(200))
    assert peer.read().status == 200
    assert peer.send(head(17_000)).read().problem["code"] == "headers_too_large"
    pipelined = patient.peer().send(head(200) + head(17_000))
    assert pipelined.read().status == 200
    assert pipelined.is_closed() or pipelined.file.readline().startswith(b"TTP/1.1 431")


def test_a_large_body_in_the_same_segment_is_not_taken_for_header(patient: Running) -> None:
    peer = patient.peer().send(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b"b" * 60_000 + head(300)
    )
    assert json.loads(peer.read().body)["body"] == 60_000
    assert peer.read().status == 200


# --- the deadline of a request


def test_a_connection_that_says_nothing_is_answered_408_and_closed(tight: Running) -> None:
    started = time.monotonic()
    peer = tight.peer()
    answer = peer.read()
    assert (answer.status, answer.problem["code"]) == (408, "request_timeout")
    assert peer.is_closed()
    assert 0.35 < time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nX-Fill: ", b"a" * 400),
        (b"", b"\r\n" * 200),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n", b"b" * 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nb\r\n" * 66),
    ],
    ids=["head", "empty lines", "body", "chunks"],
)
@pytest.mark.parametrize("before", [b"", head(200)], ids=["new", "kept alive"])
def test_dripping_does_not_extend_the_deadline(tight: Running, before: bytes, start: bytes, rest: bytes) -> None:
    peer = tight.peer()
    if before:
        assert peer.send(before).read().status == 200
    tight.app.bodies.clear()
    started = time.monotonic()
    peer.drip(start, rest)
    assert peer.read().status in (408, 400)  # h11 takes empty lines for a bad request at once
    assert time.monotonic() - started < 3
    assert peer.is_closed()
    assert tight.app.bodies == []


def test_a_request_answered_before_its_body_came_gets_no_second_answer(tight: Running) -> None:
    peer = tight.peer().send(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\nx")
    assert peer.read().status == 413
    assert peer.is_closed()


def test_the_rest_of_a_body_answered_early_is_not_read_as_a_request(patient: Running) -> None:
    peer = patient.peer().send(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 300\r\n\r\n")
    assert peer.read().status == 413
    peer.send(head(300) + b"GET /after HTTP/1.1\r\nHost: x\r\n\r\n")
    assert json.loads(peer.read().body)["path"] == "/after"


@pytest.mark.parametrize(
    ("request_", "late", "status"),
    [
        (head(200), b"", 200),
        (b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n", b"abc", 413),
    ],
    ids=["served", "answered early"],
)
def test_an_idle_connection_is_closed_by_keep_alive_and_not_by_the_deadline(
    parser: Any, request_: bytes, late: bytes, status: int
) -> None:
    with serving(parser, TIGHT, keep_alive=1) as running:
        peer = running.peer().send(request_)
        assert peer.read().status == status
        started = time.monotonic()
        assert peer.send(late).is_closed()
        assert 0.9 < time.monotonic() - started < 3


def test_a_stream_outlives_the_deadline(tight: Running) -> None:
    stream = tight.peer().send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    assert stream.read().body == b"first"
    later = tight.peer()
    assert later.read().status == 408
    assert later.is_closed()
    tight.app.go.set()
    assert stream.read_chunk() == b"last"


def test_a_websocket_outlives_the_deadline_and_holds_a_place(parser: Any) -> None:
    limits = Limits(request_deadline_s=0.4, max_connections=2)
    with serving(parser, limits) as running, connect(f"ws://127.0.0.1:{running.port}/", proxy=None) as websocket:
        first, second = running.peer(), running.peer()
        assert (first.read().status, second.read().status) == (503, 408)  # the second took the first one's place
        assert second.is_closed()
        websocket.send("still here")
        assert websocket.recv(PATIENCE) == "still here"


# --- peers that do not read, and too many of them


def test_a_peer_that_does_not_read_its_answer_is_cut_off(tight: Running) -> None:
    tight.peer(receive_buffer=4096).send(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
    assert tight.app.ended.wait(PATIENCE)


def test_the_connection_above_the_limit_is_503_and_a_place_that_is_left_is_free(parser: Any) -> None:
    with serving(parser, Limits(max_connections=2)) as running:
        held = [running.peer().send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(2)]
        assert [peer.read().body for peer in held] == [b"first", b"first"]
        above = running.peer()
        assert above.read().problem["code"] == "too_many_connections"
        assert above.is_closed()
        running.app.go.set()
        assert [held[0].read_chunk(), held[0].read_chunk()] == [b"last", b""]
        assert running.get().status == 200


# --- one shape


@pytest.mark.parametrize("path", ["/fail", "/silent"])
def test_an_application_that_fails_is_a_500_in_the_one_shape(
    patient: Running, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = patient.get(path)
    assert (answer.status, answer.problem["code"]) == (500, "internal_error")
    assert b"secret" not in answer.body
    assert any(record.levelno == logging.ERROR for record in caplog.records)


def test_an_error_of_ours_becomes_a_problem_with_its_fields() -> None:
    status, body = problem_of(ValidationError.of("metadata.price", "must be a number"))
    problem = json.loads(body)
    assert (status, problem["code"]) == (400, "validation_error")
    assert problem["errors"] == [{"field": "metadata.price", "message": "must be a number"}]
    assert "errors" not in json.loads(problem_of(NotFound("no such session"))[1])
    assert json.loads(problem_bytes(400, "c", "t", "\ud800"))["detail"] == "?"


# --- what is not a request

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
WEIRD = {
    "bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes in the query": b"GET /?q=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute form": b"GET http://evil.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "authority form": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect with a path": b"CONNECT /x HTTP/1.1\r\nHost: x\r\n\r\n",
    "empty target": b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
    "no slash": b"GET echo HTTP/1.1\r\nHost: x\r\n\r\n",
    "null escape": b"GET /a%00b HTTP/1.1\r\nHost: x\r\n\r\n",
    "bad escape": b"GET /a%zz HTTP/1.1\r\nHost: x\r\n\r\n",
    "cut escape": b"GET /a% HTTP/1.1\r\nHost: x\r\n\r\n",
    "escape that is no text": b"GET /a%ff HTTP/1.1\r\nHost: x\r\n\r\n",
    "20 KB path": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/0.9, one line": b"GET /\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(range(200)),
    "nothing but zeros": bytes(300),
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "one length twice": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "length and chunks": CHUNKED.replace(b"Host", b"Content-Length: 4\r\nHost") + b"0\r\n\r\n",
    "chunks and length": CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\n") + b"0\r\n\r\n",
    "chunked twice": CHUNKED.replace(b"Host", b"Transfer-Encoding: identity\r\nHost") + b"0\r\n\r\n",
    "chunks in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
    "chunk garbage": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "chunk of endless length": CHUNKED + b"f" * 40 + b"\r\nabc",
    "negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "length with a sign": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
    "endless length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "header with a zero": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
}


@pytest.mark.parametrize("weird", WEIRD.values(), ids=WEIRD.keys())
def test_bytes_that_are_no_request_get_a_4xx_and_a_closed_connection(
    shared: Running, weird: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    peer = shared.peer().send(weird)
    answer = peer.read()
    assert 400 <= answer.status < 500
    assert answer.problem["detail"]
    assert peer.is_closed()
    assert shared.app.bodies == []
    assert shared.get("/early").status == 413
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
    shared.leave()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01garbage\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"0\r\n\r\n" + CHUNKED + b"zz\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
    ids=["no request", "bad body", "bad body after a good one", "upgrade"],
)
def test_garbage_behind_a_request_does_not_take_its_answer(
    tight: Running, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    peer = tight.peer().send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n" + garbage)
    assert peer.read().body == b"first"
    tight.app.go.set()
    assert peer.read_chunk() == b"last"
    assert peer.read_chunk() == b""
    rest = peer.file.read()  # to the end of the connection
    assert rest == b"" or rest.startswith(b"HTTP/1.1 ")
    assert not [record for record in caplog.records if record.exc_info]


def test_an_offer_of_http2_is_ignored_and_the_body_arrives(patient: Running) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
    peer = patient.peer().send(
        b"POST /a HTTP/1.1\r\nHost: x\r\n" + offer + b"Content-Length: 300\r\n\r\n" + head(300)[:9]
    )
    peer.send(head(300)[9:] + head(200))
    assert json.loads(peer.read().body)["body"] == 300
    assert json.loads(peer.read().body)["path"] == "/echo"
    assert patient.app.bodies == [head(300), b""]


def test_trailers_do_not_join_the_headers(patient: Running) -> None:
    peer = patient.peer().send(CHUNKED + b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\n\r\n")
    assert "authorization" not in json.loads(peer.read().body)["headers"]
