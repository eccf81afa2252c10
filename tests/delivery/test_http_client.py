"""The client that asks providers, against real sockets: one deadline for everything, and nobody else's address."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx  # noqa: F401 beforehand, since the client would import it within its first deadline
import pytest

from flashflow.backend.delivery.net.http_client import Answer, HttpClient, provider_message
from flashflow.backend.domain.channel import ChannelError, Permanent, Throttled, Transient
from tests.support.fixed_clock import StillClock
from tests.support.provider_servers import (
    DEADLINE,
    Asked,
    Provider,
    Reply,
    certificate,
    h2_server,
    http_server,
    raw_server,
)

SHORT = 0.3
"""Seconds that a server which never answers is waited for."""
SOON = 5.0
"""Seconds within which something ends that would otherwise hang for DEADLINE."""

Serve = Callable[[socket.socket, threading.Event], None]


@contextmanager
def client(**options: Any) -> Iterator[HttpClient]:
    made = HttpClient(**{"deadline_s": DEADLINE, **options})
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    with http_server(made):
        yield made


def post(sending: HttpClient, url: str, content: bytes = b"x", /, **headers: str) -> Answer:
    return sending.post(url, headers=headers, content=content)


def failure(sending: HttpClient, url: str, **headers: str) -> ChannelError:
    with pytest.raises(ChannelError) as caught:
        post(sending, url, b"x", **headers)
    return caught.value


def test_an_answer_comes_back_whole_whatever_its_status(provider: Provider) -> None:
    provider.answers = [Reply(418, b"short and stout", {"X-Kind": "Pot"})]
    with client() as sending:
        answer = sending.post(f"{provider.base_url}/brew?n=1", headers={"X-Ask": "tea"}, content=b"water")
    assert (answer.status, answer.body, answer.headers["x-kind"]) == (418, b"short and stout", "Pot")
    (asked,) = provider.asked
    assert (asked.path, asked.body, asked.headers["x-ask"]) == ("/brew?n=1", b"water", "tea")
    assert asked.headers["user-agent"] == "FlashFlow"
    assert asked.headers["accept-encoding"] == "identity"


def test_a_connection_is_kept_for_the_next_request_and_a_lost_one_replaced(provider: Provider) -> None:
    with client(connections=1) as sending:
        for _ in range(3):
            assert post(sending, provider.base_url).status == 200
        assert provider.connections == 1
        provider.answers = [Reply(200, b"", {"Connection": "close"})]
        post(sending, provider.base_url)
        assert post(sending, provider.base_url).status == 200
        assert provider.connections == 2


def test_a_connection_that_the_server_ended_meanwhile_is_not_used_again() -> None:
    ended_it = threading.Event()

    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        ended_it.set()

    with raw_server(serve) as port, client(connections=1) as sending:
        for _ in range(3):
            assert post(sending, f"http://127.0.0.1:{port}/").status == 200
            assert ended_it.wait(DEADLINE)
            ended_it.clear()


def test_a_redirect_is_an_answer_and_is_not_followed(provider: Provider) -> None:
    provider.answers = [Reply(307, b"", {"Location": f"{provider.base_url}/elsewhere"})]
    with client() as sending:
        assert post(sending, provider.base_url).status == 307
    assert len(provider.asked) == 1


def test_the_environment_and_netrc_change_nothing(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password lovelace\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with client() as sending:
        assert post(sending, provider.base_url).status == 200
    assert "authorization" not in provider.asked[0].headers


def test_a_cookie_is_not_kept(provider: Provider) -> None:
    provider.answers = [Reply(200, b"", {"Set-Cookie": "session=1"})]
    with client() as sending:
        post(sending, provider.base_url)
        post(sending, provider.base_url)
    assert "cookie" not in provider.asked[1].headers


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "//127.0.0.1/",
        "nonsense",
        "",
        "http://",
        "http:///path",
        "https://ada:lovelace@127.0.0.1/",
        "https://ada@127.0.0.1/",
        "http://127.0.0.1:99999/",
        "http://[::1/",
        "http://127.0.0.1/\x00",
        "http://a\ud800/",
        "http://" + "x" * 70_000,
    ],
)
def test_what_is_no_plain_http_url_is_refused_without_a_connection(url: str) -> None:
    with client() as sending:
        error = failure(sending, url)
    assert (type(error), error.code) == (Permanent, "bad_url")
    assert "lovelace" not in error.text


@pytest.mark.parametrize(
    ("name", "value"), [("x-a", "1\r\nx-b: 2"), ("x-a", "é"), ("x a", "1"), ("x:a", "1"), ("", "")]
)
def test_a_header_that_would_be_two_is_refused(provider: Provider, name: str, value: str) -> None:
    with client() as sending:
        assert failure(sending, provider.base_url, **{name: value}).code == "bad_header"
    assert provider.asked == []


def test_a_body_is_read_to_64_kib_and_no_further() -> None:
    got_through = threading.Event()

    def large(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(2_000):  # 128 MiB: more than any buffer between us takes
            connection.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        got_through.set()

    with raw_server(large) as port, client() as sending:
        assert post(sending, f"http://127.0.0.1:{port}/").body == b"x" * 65_536
    assert not got_through.is_set()


def test_a_body_that_unpacks_to_more_stays_packed(provider: Provider) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    provider.answers = [Reply(200, bomb, {"Content-Encoding": "gzip"})]
    with client() as sending:
        assert post(sending, provider.base_url).body == bomb[:65_536]


def test_an_http2_body_is_read_to_64_kib_and_the_client_goes_on() -> None:
    provider = Provider()
    tls = certificate("127.0.0.1")
    with h2_server(provider, tls.server("h2")), client(http2=True, verify=tls.client(), connections=1) as sending:
        provider.answers = [Reply(200, b"x" * 300_000)]
        assert len(post(sending, provider.base_url).body) == 65_536
        assert post(sending, provider.base_url).status == 200
        assert provider.connections == 2  # the first still has the rest of it to say


def drip(connection: socket.socket, ended: threading.Event, first: bytes, then: bytes) -> None:
    """``first``, then ``then`` again and again, slower than any read would time out."""
    connection.recv(65_536)
    connection.sendall(first)
    while not ended.wait(SHORT / 10):
        connection.sendall(then)


HANGING: dict[str, Serve] = {
    "says nothing": lambda connection, ended: drip(connection, ended, b"", b""),
    "trickles headers": lambda connection, ended: drip(connection, ended, b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
    "trickles a body": lambda connection, ended: drip(
        connection, ended, b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"b"
    ),
    "is for ever about to answer": lambda connection, ended: drip(
        connection, ended, b"", b"HTTP/1.1 100 Continue\r\n\r\n"
    ),
}


@pytest.mark.parametrize("how", HANGING)
def test_a_server_that_does_not_come_to_an_end_is_left_at_the_deadline(how: str) -> None:
    started = time.monotonic()
    with raw_server(HANGING[how]) as port, client(deadline_s=SHORT) as sending:
        error = failure(sending, f"http://127.0.0.1:{port}/")
    assert (type(error), error.code) == (Transient, "timeout")
    assert SHORT <= time.monotonic() - started < SOON


def test_a_handshake_that_hangs_is_left_at_the_deadline() -> None:
    with raw_server(HANGING["says nothing"]) as port, client(deadline_s=SHORT) as sending:
        assert failure(sending, f"https://127.0.0.1:{port}/").code == "timeout"


def test_an_http2_server_that_says_nothing_is_left_at_the_deadline() -> None:
    tls = certificate("127.0.0.1")
    sending = HttpClient(http2=True, verify=tls.client(), deadline_s=SHORT)
    with closing(sending), raw_server(HANGING["says nothing"], tls.server("h2")) as port:
        assert failure(sending, f"https://127.0.0.1:{port}/").code == "timeout"


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port where nobody picks up: its queue is full, and Linux leaves further connections unanswered."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        waiting = []
        for _ in range(4):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(listening.getsockname())
        try:
            yield listening.getsockname()[1]
        finally:
            for one in waiting:
                one.close()


def test_a_connection_that_is_not_picked_up_is_left_at_the_deadline() -> None:
    with deaf_port() as port, client(deadline_s=SHORT) as sending:
        assert failure(sending, f"http://127.0.0.1:{port}/").code == "timeout"


@contextmanager
def hung_look_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A resolver that hangs until the end; the event says that it was asked."""
    asked, ended = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        asked.set()
        ended.wait(DEADLINE)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", hang)
        try:
            yield asked
        finally:
            ended.set()


def test_a_look_up_that_hangs_is_left_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with hung_look_up(monkeypatch), client(deadline_s=SHORT) as sending:
        assert failure(sending, "http://provider.example/").code == "timeout"


def test_a_request_that_gets_no_connection_in_time_says_so(provider: Provider) -> None:
    with ThreadPoolExecutor(1) as pool, client(connections=1, deadline_s=5 * SHORT) as sending:
        provider.hold()
        first = pool.submit(failure, sending, provider.base_url)
        assert provider.arrived.wait(DEADLINE)
        assert failure(sending, provider.base_url).code == "timeout"
        assert first.result(DEADLINE).code == "timeout"


def refused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


def test_a_port_that_nobody_has_is_unreachable() -> None:
    with client() as sending:
        error = failure(sending, f"http://127.0.0.1:{refused_port()}/secret-path")
    assert (type(error), error.code) == (Transient, "unreachable")
    assert error.text == "127.0.0.1 cannot be reached: Connection refused."


def test_a_name_that_is_not_known_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with client() as sending:
        assert failure(sending, "http://provider.example/").code == "unreachable"


def test_of_several_addresses_the_next_is_taken_when_one_refuses(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(provider.base_url.rpartition(":")[2])
    row = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(*row, ("127.0.0.1", refused_port())), (*row, ("127.0.0.1", port))]
    )
    with client() as sending:
        assert post(sending, f"http://provider.example:{port}/").status == 200


def test_an_address_that_does_not_pick_up_leaves_time_for_the_next(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    with deaf_port() as deaf, client(deadline_s=2.0) as sending:
        found = [(*row, ("127.0.0.1", deaf)), (*row, ("127.0.0.1", int(provider.base_url.rpartition(":")[2])))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert post(sending, "http://provider.example/").status == 200


BROKEN = {
    "hangs up at once": b"",
    "speaks something else": b"220 smtp.example ESMTP\r\n",
    "breaks off": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf",
    "sends headers without end": b"HTTP/1.1 200 OK\r\n" + b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 5_000,
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_not_http_is_a_protocol_error(how: str) -> None:
    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65_536)
        connection.sendall(BROKEN[how])
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass

    with raw_server(serve) as port, client() as sending:
        error = failure(sending, f"http://127.0.0.1:{port}/")
    assert (type(error), error.code) == (Transient, "protocol_error")


def test_an_http2_server_that_breaks_the_rules_is_a_protocol_error() -> None:
    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65_536)
        connection.sendall(bytes.fromhex("000000 04 00 00000001"))  # SETTINGS, but on a stream (RFC 9113, 6.5)
        while connection.recv(65_536):
            pass

    tls = certificate("127.0.0.1")
    with raw_server(serve, tls.server("h2")) as port, client(http2=True, verify=tls.client()) as sending:
        assert failure(sending, f"https://127.0.0.1:{port}/").code == "protocol_error"


# --- TLS and pinning --------------------------------------------------------------------------------------------------


class Pinned:
    """Every name is at ``address``; keeps what was asked."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self.asked: list[tuple[str, int]] = []

    def pin(self, host: str, port: int) -> str:
        self.asked.append((host, port))
        return self.address


@contextmanager
def named_server(
    provider: Provider, resolver: Pinned, *names: str
) -> Iterator[tuple[int, list[str | None], HttpClient]]:
    """``provider`` with a certificate for ``names``: the port, the names asked for by SNI, and a client that trusts
    this certificate and has one connection at a time."""
    tls, seen = certificate(*names), list[str | None]()
    context = tls.server()
    context.sni_callback = lambda _, name, __: seen.append(name)
    with (
        http_server(provider, context) as port,
        client(resolver=resolver, verify=tls.client(), connections=1) as sending,
    ):
        yield port, seen, sending


def test_a_pinned_name_goes_to_its_address_and_stays_itself() -> None:
    secure, resolver = Provider(), Pinned()
    with named_server(secure, resolver, "push.example") as (port, seen, sending):
        for _ in range(2):
            assert post(sending, f"https://push.example:{port}/x").status == 200
    assert (resolver.asked, seen) == ([("push.example", port)], ["push.example"])
    assert secure.asked[0].headers["host"] == f"push.example:{port}"


def test_a_certificate_for_another_name_is_refused_although_the_address_is_right() -> None:
    secure = Provider()
    with named_server(secure, Pinned(), "push.example", "127.0.0.1") as (port, _, sending):
        error = failure(sending, f"https://other.example:{port}/")
    assert (type(error), error.code) == (Transient, "tls_failed")
    assert "other.example" in error.text
    assert secure.asked == []


def test_two_names_at_one_address_do_not_share_a_connection() -> None:
    secure = Provider()
    with named_server(secure, Pinned(), "push.example") as (port, seen, sending):
        assert post(sending, f"https://push.example:{port}/").status == 200
        assert failure(sending, f"https://other.example:{port}/").code == "tls_failed"
    assert seen == ["push.example", "other.example"]


def test_a_certificate_that_nobody_vouches_for_is_refused_by_default() -> None:
    secure = Provider()
    with named_server(secure, Pinned(), "127.0.0.1") as (port, _, _), client() as sending:
        assert failure(sending, f"https://127.0.0.1:{port}/").code == "tls_failed"
    assert secure.asked == []


def test_a_server_without_tls_is_a_failed_handshake(provider: Provider) -> None:
    with client() as sending:
        assert failure(sending, provider.base_url.replace("http:", "https:")).code == "tls_failed"


def test_what_the_resolver_refuses_is_refused(provider: Provider) -> None:
    class Refusing:
        def pin(self, host: str, port: int) -> str:
            raise Permanent("forbidden_host", f"{host} is private")

    with client(resolver=Refusing()) as sending:
        error = failure(sending, provider.base_url)
    assert (type(error), error.code, error.text) == (Permanent, "forbidden_host", "127.0.0.1 is private")
    assert provider.asked == []


def test_a_resolver_that_answers_with_a_name_reaches_nobody(provider: Provider) -> None:
    with client(resolver=Pinned("localhost")) as sending:
        assert failure(sending, provider.base_url).code == "unreachable"
    assert provider.asked == []


def test_plain_http2_works_with_prior_knowledge() -> None:
    provider = Provider()
    with h2_server(provider), client(http2=True) as sending:
        assert post(sending, provider.base_url).status == 200


# --- close ------------------------------------------------------------------------------------------------------------


def ends_when_closed(sending: HttpClient, url: str, under_way: Callable[[], bool]) -> None:
    with ThreadPoolExecutor(1) as pool:
        hanging: Future[ChannelError] = pool.submit(failure, sending, url)
        assert under_way()
        started = time.monotonic()
        sending.close()
        assert hanging.result(SOON).code == "stopping"
        assert time.monotonic() - started < SOON
    sending.close()
    assert failure(sending, url).code == "stopping"


def test_close_ends_a_request_that_waits_for_its_answer(provider: Provider) -> None:
    provider.hold()
    ends_when_closed(HttpClient(deadline_s=60), provider.base_url, lambda: provider.arrived.wait(DEADLINE))


def test_close_ends_an_http2_request_that_waits_for_its_answer() -> None:
    provider, tls = Provider(), certificate("127.0.0.1")
    with h2_server(provider, tls.server("h2")):
        provider.hold()
        sending = HttpClient(http2=True, verify=tls.client(), deadline_s=60)
        ends_when_closed(sending, provider.base_url, lambda: provider.arrived.wait(DEADLINE))


def test_close_ends_a_handshake() -> None:
    begun = threading.Event()

    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65_536)
        begun.set()
        ended.wait(DEADLINE)

    with raw_server(serve) as port:
        ends_when_closed(HttpClient(deadline_s=60), f"https://127.0.0.1:{port}/", lambda: begun.wait(DEADLINE))


def test_close_ends_a_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with hung_look_up(monkeypatch) as asked:
        ends_when_closed(HttpClient(deadline_s=60), "http://provider.example/", lambda: asked.wait(DEADLINE))


def test_close_ends_a_connection_that_is_not_picked_up() -> None:
    begun = threading.Event()

    class Telling(Pinned):
        def pin(self, host: str, port: int) -> str:
            begun.set()
            return self.address

    with deaf_port() as port:
        sending = HttpClient(deadline_s=60, resolver=Telling())
        ends_when_closed(sending, f"http://127.0.0.1:{port}/", lambda: begun.wait(DEADLINE))


def test_close_ends_those_who_wait_for_a_connection(provider: Provider) -> None:
    provider.hold()
    sending = HttpClient(deadline_s=60, connections=1)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(failure, sending, provider.base_url) for _ in range(4)]
        assert provider.arrived.wait(DEADLINE)
        sending.close()
        assert [each.result(SOON).code for each in waiting] == ["stopping"] * 4


def test_many_threads_get_each_their_own_answer() -> None:
    class Echo(Provider):
        def content(self, asked: Asked) -> Reply:
            return Reply(200, asked.body)

    provider, tls = Echo(), certificate("127.0.0.1")
    bodies = [str(n).encode() * 50 for n in range(60)]
    with (
        h2_server(provider, tls.server("h2")),
        client(http2=True, verify=tls.client(), connections=3) as sending,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda body: post(sending, provider.base_url, body).body, bodies))
    assert answers == bodies
    assert provider.connections <= 3


def test_no_header_or_path_reaches_the_log(provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    two, tls = Provider(), certificate("127.0.0.1")
    caplog.set_level(logging.DEBUG)
    with h2_server(two, tls.server("h2")), client() as one, client(http2=True, verify=tls.client()) as other:
        caplog.clear()
        for sending, url in ((one, provider.base_url), (other, two.base_url)):
            post(sending, f"{url}/device/secret-token", b"secret-body", authorization="secret-key")
            post(sending, f"{url}/device/secret-token", b"secret-body", authorization="secret-key")
    assert "secret" not in caplog.text
    assert two.asked[0].headers["authorization"] == "secret-key"


# --- what an answer means ---------------------------------------------------------------------------------------------


def answer(status: int = 503, body: bytes = b"", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers=named, body=body)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("99999999999999999999", 86_400.0),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        ("Wed, 10 Jun 2026 12:01:30 GMT", 90.0),
        ("Wed, 10 Jun 2026 11:00:00 GMT", 0.0),
        ("Wed, 10 Jun 2126 11:00:00 GMT", 86_400.0),
        ("Wed, 10 Jun 99999 11:00:00 GMT", None),
        ("Wed, 99 Jun 2026 11:00:00 GMT", None),
        ("9" * 5_000, None),
    ],
)
def test_retry_after_is_seconds_between_now_and_a_day(value: str, seconds: float | None) -> None:
    assert answer(retry_after=value).retry_after_s(StillClock()) == seconds
    assert answer().retry_after_s(StillClock()) is None


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/New_York"])
@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        pytest.param("Wed, 10 Jun 2026 12:01:30 GMT", 90, id="IMF-fixdate"),
        pytest.param("Wednesday, 10-Jun-26 12:01:30 GMT", 90, id="RFC 850"),
        pytest.param("Tuesday, 10-Jun-70 12:01:30 GMT", 86_400, id="RFC 850, less than 50 years ahead"),
        pytest.param("Wednesday, 10-Jun-77 12:01:30 GMT", 0, id="RFC 850, more than 50 years ahead"),
        pytest.param("Wed Jun 10 12:01:30 2026", 90, id="asctime"),
        pytest.param("Wed Jul  1 12:01:30 2026", 86_400, id="asctime, day of one digit"),
        pytest.param("Wed, 10 Jun 2026 12:01:30", 90, id="no zone"),
        pytest.param("Wed, 10 Jun 2026 12:01:30 -0000", 90, id="unknown zone"),
        pytest.param("Wed, 10 Jun 2026 14:01:30 +0200", 90, id="offset"),
        pytest.param("Wed, 10 Jun 2026 12:00:60 GMT", 60, id="leap second"),
        pytest.param("Wed, 10 Jun 2026 12:00:61 GMT", None, id="no such second"),
    ],
)
def test_every_form_of_an_http_date_is_read_as_utc_wherever_the_machine_stands(
    monkeypatch: pytest.MonkeyPatch, zone: str, written: str, seconds: float | None
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert answer(retry_after=written).retry_after_s(StillClock()) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


def test_retry_after_reads_the_date_it_was_written_as() -> None:
    clock = StillClock()
    written = format_datetime(clock.now + timedelta(seconds=33), usegmt=True)
    assert answer(retry_after=written).retry_after_s(clock) == 33.0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, Transient) for status in (408, 425, 500, 502, 503, 504, 599)),
        (429, Throttled),
        *((status, Permanent) for status in (300, 301, 307, 400, 401, 403, 404, 410, 413, 451)),
    ],
)
def test_a_status_has_its_class(status: int, kind: type[ChannelError]) -> None:
    error = answer(status, retry_after="9").refusal(StillClock(), "code", "text")
    assert (type(error), error.code, error.text) == (kind, "code", "text")
    assert error.retry_after_s == (None if kind is Permanent else 9.0)


def test_what_a_provider_says_is_one_short_line_without_secrets() -> None:
    assert provider_message("it failed\r\nfor key k-123\x00\x1b[31m", "k-123") == "it failed for key […][31m"
    assert provider_message("a k\x00-1 b", "k-1") == "a […] b"
    assert len(provider_message("word " * 100_000)) <= 300
    assert provider_message(None) == provider_message({"a": 1}) == ""


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'"x"', b"\xff", b"[" * 60_000, b"<html>", b'{"a":"\xed\xa0\x80"}']
)
def test_a_body_that_is_no_json_object_has_no_fields(body: bytes) -> None:
    assert answer(body=body).json_object() == {}


def test_closing_leaves_no_socket_open(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[socket.socket] = []

    class Counted(socket.socket):
        def connect_ex(self, address: Any) -> int:
            opened.append(self)
            return super().connect_ex(address)

    with monkeypatch.context() as patched, client(connections=1) as sending:
        patched.setattr(socket, "socket", Counted)
        post(sending, provider.base_url)
        (ours,) = opened
        assert ours.fileno() > 0
    assert ours.fileno() == -1
