"""Servers that die, hang, refuse, lie or are another program: no row is lost, none is doubled, no key is shown."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flashflow import client as module
from flashflow.client import Client, NotProven, Refused, Unreachable
from tests.support.client_servers import KEY, Plan, Request, Server, accept, http, problem, server
from tests.support.provider_servers import certificate
from tests.support.server_process import eventually

Make = Callable[..., Client]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"FIRST_RETRY_S": 0.01, "LAST_RETRY_S": 0.05, "HOLD_S": 0.05, "ASK_S": 0.5}.items():
        monkeypatch.setattr(module, name, seconds)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Client] = []

    def client(running: Server, **options: Any) -> Client:
        given: dict[str, Any] = {"app": "todo", "user_id": "ada", "url": running.url, "key": KEY, "data_dir": tmp_path}
        made.append(Client(**given | options))
        return made[-1]

    yield client
    for each in made:
        each.close(timeout=0)


def hang(request: Request) -> None:
    request.end.wait()


def die(_: Request) -> None:
    return


def half(request: Request) -> bytes | None:
    request.socket.sendall(accept(request)[:60])
    return None


def drip(request: Request) -> None:
    """Send a header byte by byte, faster than any time-out of a single read."""
    for byte in http(200, b" " * 5_000):
        if request.end.wait(0.02):
            return
        request.socket.sendall(bytes([byte]))


def huge(request: Request) -> None:
    request.socket.sendall(b"HTTP/1.1 200 X\r\nContent-Length: 99999999999\r\n\r\n")
    while not request.end.is_set():
        request.socket.sendall(b"x" * 65_536)


def endless_header(request: Request) -> None:
    request.socket.sendall(b"HTTP/1.1 200 X\r\n")
    while not request.end.is_set():
        request.socket.sendall(b"X-Fill: " + b"x" * 1_000 + b"\r\n")


def deep(_: Request) -> bytes:
    return http(200, b"[" * 100_000)


TRANSIENT: dict[str, Plan] = {
    "hangs": hang,
    "dies": die,
    "dies in the middle": half,
    "a drip": drip,
    "huge": huge,
    "an endless header": endless_header,
    "deep JSON": deep,
    "no HTTP": lambda _: b"SSH-2.0-OpenSSH_9\r\n",
    "empty": lambda _: http(200, b""),
    "HTML": lambda _: http(200, b"<html>Log in</html>"),
    "a list": lambda _: http(200, b"[]"),
    "no success": lambda _: http(200, {"accepted": 1}),
    "404 of another program": lambda _: http(404, b"<html>Not found</html>"),
    "400 of another program": lambda _: http(400, {"error": "bad"}),
    "408": lambda _: problem(408, "timeout"),
    "425": lambda _: problem(425, "too_early"),
    "429": lambda _: problem(429, "rate_limited"),
    "500": lambda _: problem(500, "error"),
    "503": lambda _: problem(503, "stopping"),
    "504": lambda _: problem(504, "timeout"),
    "507": lambda _: problem(507, "storage_full"),
    "401": lambda _: problem(401, "unauthorized"),
    "403": lambda _: problem(403, "forbidden"),
    "409": lambda _: problem(409, "conflict"),
}


@pytest.mark.parametrize("plan", TRANSIENT.values(), ids=TRANSIENT)
def test_every_row_waits_and_arrives_once_the_server_is_well(plan: Plan, make: Make) -> None:
    with server() as running:
        running.plans = [plan] * 2
        client = make(running)
        ids = [client.track("export") for _ in range(3)]
        client.send("Title", "Message", wait=0)
        eventually(lambda: client.pending == 0)
        assert not running.plans
        delivered = [r for r in running.requests if r.path.endswith("/send")]
        assert sorted(running.activities[-3:]) == sorted(ids)
        assert len({request.headers["Idempotency-Key"] for request in delivered}) == 1
        assert client.rejected == []


@pytest.mark.parametrize("plan", TRANSIENT.values(), ids=TRANSIENT)
def test_a_send_returns_in_time_and_is_delivered_later_under_the_same_key(plan: Plan, make: Make) -> None:
    with server() as running:
        running.plans = [plan]
        client = make(running)
        began = time.monotonic()
        assert client.send("Title", "Message", wait=0.3).status == "queued"
        assert time.monotonic() - began < 10
        eventually(lambda: client.pending == 0)
        first, *_, last = running.requests
        assert first.headers["Idempotency-Key"] == last.headers["Idempotency-Key"]
        assert first.body == last.body


@pytest.mark.parametrize(
    "name", ["hangs", "dies", "a drip", "huge", "an endless header", "deep JSON", "HTML", "no HTTP"]
)
def test_a_read_fails_in_time(name: str, make: Make) -> None:
    with server(TRANSIENT[name]) as running:
        client = make(running)
        began = time.monotonic()
        with pytest.raises(Unreachable):
            client.inbox(timeout=0.3)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("header", ["Retry-After: 2\r\n", "Retry-After: Fri, 01 Jan 2100 00:00:00 GMT\r\n"])
def test_retry_after_is_obeyed_even_by_flush(header: str, make: Make) -> None:
    with server(lambda _: problem(503, "stopping", header)) as running:
        client = make(running)
        client.track("export")
        eventually(lambda: running.requests)
        assert client.flush(0.2) == 1
        assert client.send("Title", "Message").status == "queued"
        assert len(running.requests) == 1


@pytest.mark.parametrize("text", ["", "-5", "nan", "inf", "²", "9" * 400, "soon", "Fri, 99 Jan 2100 00:00:00 GMT"])
def test_a_malformed_or_endless_retry_after_is_bounded(text: str) -> None:
    assert 0 <= module._retry_after(text) <= module.LONGEST_RETRY_AFTER_S


def test_a_bad_row_is_found_in_a_batch_that_is_refused_as_a_whole(make: Make) -> None:
    bad = "bad-row"

    def picky(request: Request) -> bytes:
        return problem(400, "validation_error") if bad in request.ids else accept(request)

    with server(picky) as running:
        client = make(running)
        client._start = lambda: None  # type: ignore[method-assign]
        good = [client.track("export") for _ in range(20)]
        client.track("export", activity_id=bad)
        good += [client.track("export") for _ in range(20)]
        assert client.flush() == 0
        accepted = [each for request in running.requests if bad not in request.ids for each in request.ids]
        assert sorted(accepted) == sorted(good)
        (row,) = client.rejected
        assert (row.body["activity_id"], row.status, row.message) == (bad, 400, "It is validation_error.")


def test_a_row_that_the_server_cannot_handle_holds_up_no_other(make: Make) -> None:
    def buggy(request: Request) -> bytes:
        return problem(500, "error") if "poison" in request.ids else accept(request)

    with server(buggy) as running:
        client = make(running)
        client.track("export", activity_id="poison")
        good = [client.track("export") for _ in range(10)]
        eventually(lambda: set(good) <= {e for r in running.requests if "poison" not in r.ids for e in r.ids})
        assert client.pending == 1


def test_a_conflict_that_never_ends_is_rejected(make: Make) -> None:
    with server(lambda r: problem(409, "conflict") if r.path.endswith("/send") else accept(r)) as running:
        client = make(running)
        client.send("Title", "Message", wait=0)
        eventually(lambda: client.rejected)
        assert client.pending == 0


def test_malformed_rejections_of_a_batch_are_ignored(make: Make) -> None:
    rejected = [None, {}, {"index": -1}, {"index": 99}, {"index": "0"}, {"index": 0, "errors": [7, {"field": "x"}]}]
    with server(lambda _: http(200, {"success": True, "rejected": rejected})) as running:
        client = make(running)
        first = client.track("export")
        client.track("export")
        assert client.flush() == 0
        assert [row.body["activity_id"] for row in client.rejected] == [first]


def test_on_reject_may_fail_and_may_call_the_client(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def react(_: object) -> None:
        client.flush()
        raise RuntimeError("a fault of the app")

    with server(lambda _: problem(400, "validation_error")) as running:
        client = make(running, on_reject=react)
        client.track("export")
        client.track("export")
        eventually(lambda: len(client.rejected) == 2)
        eventually(lambda: "on_reject failed" in caplog.text)


@pytest.mark.parametrize(("late_s", "paths"), [(59, 3), (61, 1)])
def test_the_ends_of_a_session_are_sent_within_a_minute_only(
    make: Make, monkeypatch: pytest.MonkeyPatch, late_s: int, paths: int
) -> None:
    with server() as running:
        client = make(running)
        client._start = lambda: None  # type: ignore[method-assign]
        with client.session():
            activity = client.track("export")
        now_ms = module._now_ms
        monkeypatch.setattr(module, "_now_ms", lambda: now_ms() + late_s * 1_000)
        assert client.flush(5) == 0
        assert running.activities == [activity]
        assert len({request.path for request in running.requests}) == paths


def test_no_batch_is_longer_than_the_server_allows(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_S", 20.0)  # a batch that is sent again would count twice
    with server() as running:
        client = make(running)
        client._start = lambda: None  # type: ignore[method-assign]
        large = [client.track("export", {"text": "é" * 100_000}) for _ in range(12)]
        small = [client.track("export") for _ in range(2_100)]
        assert client.flush(20) == 0
        assert running.activities == large + small
        assert max(len(request.body) for request in running.requests) <= 1024 * 1024
        assert max(len(request.ids) for request in running.requests) == 1_000


# --- the key


def test_the_key_is_sent_only_after_the_proof_once_a_connection(make: Make) -> None:
    with server() as running:
        client = make(running)
        client.track("export")
        client.flush()
        client.track("export")
        client.flush()
        client.inbox()
        assert (running.connections, len(running.proofs)) == (1, 1)
        assert all("Authorization" not in proof.headers for proof in running.proofs)
        assert {request.headers["Authorization"] for request in running.requests} == {f"Bearer {KEY}"}


LIARS: dict[str, Plan] = {
    "any proof": lambda _: http(200, {"success": True, "proof": "0" * 64}),
    "no text": lambda _: http(200, {"success": True, "proof": 7}),
    "not ASCII": lambda _: http(200, {"success": True, "proof": "é" * 64}),
    "echo": lambda request: http(200, request.body),
    "redirect": lambda _: http(307, b"", "Location: http://127.0.0.1:1/api/proof\r\n"),
    "empty": lambda _: http(200, b""),
    **{
        name: TRANSIENT[name]
        for name in ("hangs", "dies", "a drip", "huge", "an endless header", "deep JSON", "no HTTP")
    },
}


@pytest.mark.parametrize("plan", LIARS.values(), ids=LIARS)
def test_another_program_on_the_port_gets_no_key_and_no_row(plan: Plan, make: Make) -> None:
    with server(plan, proves=False) as running:
        client = make(running)
        client.track("secret-activity")
        assert client.send("Title", "secret-message", wait=0.3).status == "queued"
        with pytest.raises(Unreachable):
            client.inbox(timeout=0.3)
        assert client.flush(0.3) == 2
        seen = "".join(f"{r.path} {r.headers} {r.body!r}" for r in running.requests)
        assert running.requests
        assert {request.path for request in running.requests} == {"/api/proof"}
        assert "Bearer" not in seen
        assert KEY not in seen
        assert "secret" not in seen


def test_a_relay_on_another_port_proves_nothing(make: Make) -> None:
    with server() as real:

        def relay(request: Request) -> bytes:
            answer = real._answer(request._replace(headers=request.headers))
            assert answer is not None
            return answer

        def forward(request: Request) -> bytes:
            """Ask the real server with the Host that it expects."""
            request.headers.replace_header("Host", f"127.0.0.1:{real.port}")
            return relay(request)

        with server(forward, proves=False) as squatter:
            client = make(squatter)
            with pytest.raises(NotProven):
                client.inbox()
            assert [request.path for request in squatter.requests] == ["/api/proof"]


def test_a_connection_that_ends_after_its_proof_is_not_opened_again_with_the_key(make: Make) -> None:
    """The next connection may be another program's."""

    def end(request: Request) -> bytes:
        return http(200, {"success": True, "proof": running._proof(request)}, "Connection: close\r\n")

    with server(end, proves=False) as running:
        client = make(running)
        with pytest.raises(Unreachable):
            client.inbox(timeout=1)
        assert {request.path for request in running.requests} == {"/api/proof"}


def test_localhost_means_the_address_that_flashflow_listens_on(make: Make) -> None:
    with server() as running:
        client = make(running, url=f"http://localhost:{running.port}/")
        client.inbox()
        assert {r.headers["Host"] for r in running.proofs} == {f"127.0.0.1:{running.port}"}


def test_a_redirect_is_not_followed(make: Make) -> None:
    with server() as target, server(lambda _: http(307, b"", f"Location: {target.url}/api\r\n")) as running:
        client = make(running)
        client.track("export")
        with pytest.raises(Unreachable):
            client.inbox()
        assert client.flush(0.3) == 1
        assert target.connections == 0


def test_a_changed_local_key_is_found_and_the_rows_arrive(
    tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with server() as running:
        for name, text in {"server.json": json.dumps({"url": running.url, "pid": 1}), "local.key": "ff_old\n"}.items():
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o600)
        client = make(running, url=None, key=None)
        wanted = client.track("export")
        eventually(lambda: "did not prove" in caplog.text)
        assert client.flush(0.3) == 1
        assert running.requests == []
        (tmp_path / "local.key").write_text(KEY)
        eventually(lambda: client.pending == 0)
        assert running.activities == [wanted]
        assert running.requests[0].json["activities"][0]["app"] == "todo"
        assert caplog.text.count("did not prove") == 1, "said once"


def test_a_revoked_key_keeps_the_rows_and_says_so_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with server(lambda _: problem(401, "unauthorized")) as running:
        client = make(running)
        client.track("export")
        eventually(lambda: len(running.requests) >= 3)
        assert client.pending == 1
        assert caplog.text.count("It is unauthorized.") == 1
        running.plan = accept
        eventually(lambda: client.pending == 0)


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1", "127.0.0.1:8750", "http://", "http://x:99999", "http://127.0.0.1:1"]
)
def test_a_wrong_address_is_unreachable(url: str, tmp_path: Path) -> None:
    with Client(app="x", url=url, key=KEY, data_dir=tmp_path) as client, pytest.raises(Unreachable):
        client.inbox(timeout=1)


@pytest.mark.parametrize("key", ["a b", "a\r\nX: y", "é", "\n"])
def test_a_key_that_is_no_header_value_is_refused_at_once(key: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="key"):
        Client(app="x", key=key, data_dir=tmp_path)


# --- the stream


def event(number: int, text: str = '{"n": 1}') -> bytes:
    return b"id: %d-0-0-0\nevent: activity\ndata: %s\n\n" % (number, text.encode())


def streaming(*parts: bytes) -> Plan:
    def plan(request: Request) -> None:
        request.socket.sendall(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n")
        for part in parts:
            request.socket.sendall(part)

    return plan


def test_a_stream_continues_after_each_break_with_the_last_id(make: Make) -> None:
    with server(hang) as running:
        running.plans = [
            streaming(b"retry: 1000\n: FlashFlow\nid: 0-0-0-0\n\n", event(1)),
            die,
            lambda _: problem(503, "stopping"),
            lambda _: problem(401, "unauthorized"),
            streaming(event(2), event(3)[:-3]),
            streaming(event(3, "no JSON")),
            streaming(event(3, "7"), b"id: 4-0-0-0\n\n"),
            streaming(b"data: " + b"x" * 5_000_000),
            streaming(event(5, '{"text": "\\u2028"}').replace(b"\n", b"\r\n")),
        ]
        found = make(running).stream("ada")
        assert [next(found).id for _ in range(3)] == ["1-0-0-0", "2-0-0-0", "5-0-0-0"]
        heard = [request.headers["Last-Event-ID"] for request in running.requests]
        assert heard == [None, *["1-0-0-0"] * 4, *["2-0-0-0"] * 2, *["4-0-0-0"] * 2]
        assert running.requests[0].path == "/api/stream?user_id=ada"


def test_a_silent_stream_is_opened_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.1)

    def silent(request: Request) -> None:
        streaming(event(1))(request)
        request.end.wait()

    with server(streaming(event(2))) as running:
        running.plans = [silent]
        found = make(running).stream()
        assert [next(found).id, next(found).id] == ["1-0-0-0", "2-0-0-0"]


def test_close_ends_a_stream_that_waits(make: Make) -> None:
    def wait(request: Request) -> None:
        streaming(event(1))(request)
        request.end.wait()

    with server(wait) as running:
        client = make(running)
        found = client.stream()
        next(found)
        ended: list[list[object]] = []
        thread = threading.Thread(target=lambda: ended.append(list(found)))
        thread.start()
        client.close()
        thread.join(5)
        assert ended == [[]]


def test_a_refused_stream_raises(make: Make) -> None:
    with server(lambda _: problem(403, "forbidden")) as running, pytest.raises(Refused, match="forbidden"):
        next(make(running).stream())


def test_the_client_is_quiet_while_flashflow_is_away(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with server(die) as running:
        client = make(running)
        client.track("export")
        eventually(lambda: len(running.requests) > 3)
        assert caplog.text == ""


# --- TLS --------------------------------------------------------------------------------------------------------------


def test_over_tls_rows_arrive_and_a_drip_ends_at_the_deadline(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = certificate("127.0.0.1")
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(own.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with server(tls=own.server()) as running:
        client = make(running)
        client.track("export")
        assert client.flush() == 0
        assert len(running.activities) == 1
        running.plan = drip
        began = time.monotonic()
        with pytest.raises(Unreachable):
            client.inbox(timeout=0.3)
        assert time.monotonic() - began < 5


def test_a_certificate_that_is_not_trusted_gets_no_proof_and_no_row(make: Make) -> None:
    with server(tls=certificate("127.0.0.1").server()) as running:
        client = make(running)
        client.track("export")
        with pytest.raises(Unreachable, match="certificate"):
            client.inbox(timeout=2)
        assert client.flush(0.1) == 1
        assert (running.proofs, running.requests) == ([], [])
