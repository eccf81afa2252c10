"""An HTTP/1.0 client gets no chunks: a body without a length ends with the connection. With either parser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from flashflow.backend.api.http.limits import Limits
from tests.support import raw_http
from tests.support.api_client import ok
from tests.support.raw_http import Peer, Running
from tests.support.server_process import ServerProcess, serving


@pytest.fixture(params=["httptools", "h11"], scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    with raw_http.serving(request.param, Limits()) as server:
        server.app.go.set()
        yield server


def answer_to(peer: Peer, request: str, body: bytes = b"") -> tuple[dict[str, str], bytes]:
    """The headers and all bytes up to the end of the connection."""
    head, _, rest = peer.send(request.encode() + body).file.read().partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0].split()[1] == "200", head
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}, rest


@pytest.mark.parametrize("more", ["", "Connection: keep-alive\r\n"])
@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [("GET", "/stream", b"firstlast"), ("HEAD", "/stream", b""), ("GET", "/early", b"too much")],
)
def test_a_body_of_unknown_length_ends_with_the_connection(
    running: Running, method: str, path: str, expected: bytes, more: str
) -> None:
    request = f"{method} {path} HTTP/1.0\r\nHost: x\r\n{more}\r\n"
    head, _, body = running.peer().send(request.encode()).file.read().partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert body == expected


def test_the_expectation_of_a_100_is_ignored(running: Running) -> None:
    request = "POST /echo HTTP/1.0\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    headers, body = answer_to(running.peer(), request, b"ab")
    assert json.loads(body)["body"] == 2
    assert "transfer-encoding" not in headers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("http10")) as product:
        rows = [{"user_id": "ada", "activity_type": "x", "metadata": {"text": "x" * 5_000}} for _ in range(150)]
        ok(product.api("POST", "/api/activity/batch", {"activities": rows}))
        yield product
        assert "Traceback" not in product.log


@pytest.mark.parametrize("path", ["/api/export/activities", "/api/users/ada/export", "/api/metrics", "/openapi.json"])
def test_every_answer_of_the_product_is_whole(server: ServerProcess, path: str) -> None:
    host = f"Host: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.key}\r\n"
    with closing(Peer(server.port)) as peer:
        headers, body = answer_to(peer, f"GET {path} HTTP/1.0\r\n{host}\r\n")
    assert "transfer-encoding" not in headers
    assert headers["connection"] == "close"
    if path == "/api/export/activities":
        rows: list[Any] = [json.loads(line) for line in body.splitlines()]
        assert len(rows) == 150
    elif "metrics" not in path:
        assert json.loads(body)


def test_an_event_stream_comes_as_plain_lines(server: ServerProcess) -> None:
    host = f"Host: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {server.key}\r\n"
    with closing(Peer(server.port)) as peer:
        peer.send(f"GET /api/stream HTTP/1.0\r\n{host}\r\n".encode())
        lines = [peer.file.readline() for _ in range(10)]
    assert b"\r\n" in lines
    assert not any(line.lower().startswith(b"transfer-encoding") for line in lines)
    assert lines[lines.index(b"\r\n") + 1].startswith((b"retry:", b"id:", b":"))
