"""Channels by Apprise address, against HTTP servers on loopback; nothing but the owner's own address is reached."""

from __future__ import annotations

import base64
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import pytest

from flashflow.backend.delivery.apprise import AppriseChannel
from flashflow.backend.domain.delivery_messages import Link, Outcome
from flashflow.backend.settings.model import AppriseSettings
from tests.support.fixed_clock import StillClock
from tests.support.notices import notice

DEADLINE = 15.0
ZERO = "\N{ZERO WIDTH SPACE}"


class Got(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Server:
    """Any web service: keeps what arrives and answers ``status``."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.arrived = threading.Semaphore(0)
        self.may_answer = threading.Event()
        self.may_answer.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append(Got(self.path, dict(self.headers), body))
                outer.arrived.release()
                outer.may_answer.wait(DEADLINE)
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._thread.join(DEADLINE)
        self._server.server_close()

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(got.body) for got in self.got]


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def channel(
    url: str, clock: StillClock | None = None, *, connections: int = 4, **options: Any
) -> Iterator[AppriseChannel]:
    made = AppriseChannel("chat", AppriseSettings(url=url, connections=connections), clock or StillClock(), **options)
    try:
        yield made
    finally:
        made.close()


def test_a_notice_arrives_with_its_title_and_message(server: Server) -> None:
    with channel(f"json://user:pass@{server.address}/hook?+X-Team=blue") as sending:
        outcome = sending.send(notice("Build finished", "All 312 tests passed\nin 4 min"))
    assert outcome == Outcome(outcome="sent", code="accepted", text="JSON accepted it")
    assert len(server.got) == 1
    got = server.got[0]
    assert got.path == "/hook"
    assert got.headers["X-Team"] == "blue"
    assert got.headers["Authorization"] == "Basic " + base64.b64encode(b"user:pass").decode()
    assert got.headers["User-Agent"] == "FlashFlow"
    body = server.bodies()[0]
    assert (body["title"], body["message"], body["type"]) == (
        "Build finished",
        "All 312 tests passed\nin 4 min",
        "info",
    )
    assert body["attachments"] == []


def test_a_form_service_gets_the_same(server: Server) -> None:
    with channel(f"form://{server.address}/") as sending:
        assert sending.send(notice("A & B", "<b>x</b> = ü", priority="urgent")).outcome == "sent"
    form = parse_qs(server.got[0].body.decode())
    assert form["title"] == ["A & B"]
    assert form["message"] == ["<b>x</b> = ü"]
    assert form["type"] == ["warning"]


@pytest.mark.parametrize(
    ("message", "arrives"),
    [
        ("<script>alert(1)</script> & *stars* [a](http://b)", None),
        ("\\n stays \\t as :smile: it is {x.__class__} ${y} %s", None),
        ("file:///etc/passwd", None),
        ("a\x00b\x07c\r\nd", "abc\nd"),
        ("half \ud800 pair", "half \ufffd pair"),
        ("x" * 10_000, None),
        (
            "hello @everyone and <@123>, mail ann@here.example",
            f"hello @{ZERO}everyone and <{ZERO}@123>, mail ann@{ZERO}here.example",
        ),
        ("<!channel> @all", f"<{ZERO}!channel> @{ZERO}all"),
        ("   ", "Build finished"),
    ],
    ids=["markup", "escapes", "path", "controls", "surrogate", "long", "mentions", "slack", "blank"],
)
def test_whatever_a_caller_writes_arrives_as_words(server: Server, message: str, arrives: str | None) -> None:
    with channel(f"json://{server.address}/") as sending:
        assert sending.send(notice(message=message)).outcome == "sent"
    assert server.bodies()[0]["message"] == (message if arrives is None else arrives)


def test_a_service_that_reads_html_gets_it_escaped(server: Server) -> None:
    with channel(f"json://{server.address}/?format=html") as sending:
        assert sending.send(notice("<b>t</b>", "<img src=x onerror=y> & 1 < 2\nnext")).outcome == "sent"
    message = server.bodies()[0]["message"]
    assert "<img" not in message
    assert "&lt;img" in message
    assert "&amp;" in message


def test_a_service_that_reads_markdown_gets_it_escaped(server: Server) -> None:
    with channel(f"json://{server.address}/?format=markdown") as sending:
        assert sending.send(notice("t", "*a* [b](http://c) _d_")).outcome == "sent"
    assert server.bodies()[0]["message"] == r"\*a\* \[b\]\(http://c\) \_d\_"


def test_a_service_without_titles_gets_it_above_the_message(server: Server) -> None:
    with channel(f"json://{server.address}/") as sending:
        sending.health()
        sending._idle[0].apprise[0].title_maxlen = 0  # as a plugin says of a service without titles
        assert sending.send(notice("Build\nfinished", "fine")).outcome == "sent"
    assert server.bodies()[0]["title"] == ""
    assert server.bodies()[0]["message"] == "Build finished\r\nfine"


def test_links_are_listed_below_the_message(server: Server) -> None:
    actions = (Link("Open\nit", "https://ci.example/1"), Link("Logs", "https://ci.example/2"))
    with channel(f"json://{server.address}/") as sending:
        sending.send(notice("t", "m", actions=actions))
    assert server.bodies()[0]["message"] == "m\n\nOpen it: https://ci.example/1\nLogs: https://ci.example/2"


def test_what_is_too_long_for_a_service_is_cut_unless_the_address_says_split(server: Server) -> None:
    for query, expected in (("", [2000]), ("?overflow=split", [2000, 1000])):
        server.got.clear()
        with channel(f"json://{server.address}/{query}") as sending:
            sending.health()
            sending._idle[0].apprise[0].body_maxlen = 2000
            assert sending.send(notice(message="x" * 3000)).outcome == "sent"
        assert [len(body["message"]) for body in server.bodies()] == expected


def test_many_at_once_and_one_after_another_wait_for_no_throttle(server: Server) -> None:
    with channel(f"json://{server.address}/", connections=8) as sending, ThreadPoolExecutor(8) as pool:
        sending.health()
        began = time.monotonic()
        outcomes = list(pool.map(lambda n: sending.send(notice(f"t{n}")), range(40)))
        assert time.monotonic() - began < 5
    assert {outcome.code for outcome in outcomes} == {"accepted"}
    assert {body["title"] for body in server.bodies()} == {f"t{n}" for n in range(40)}


def test_a_service_that_apprise_would_slow_down_is_not(server: Server) -> None:
    with channel(f"ntfy://{server.address}/topic") as sending:
        began = time.monotonic()
        assert [sending.send(notice()).code for _ in range(3)] == ["accepted"] * 3
        assert time.monotonic() - began < 4
        assert len(sending._idle) == 1, "one after another they use the same plugin"


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 400, 401, 404, 410, 429, 500, 503])
def test_a_no_is_transient_and_told_in_apprises_words(server: Server, status: int) -> None:
    server.status = status
    server.headers = {"Location": f"http://{server.address}/elsewhere"}
    with channel(f"json://{server.address}/hunter2secret") as sending:
        outcome = sending.send(notice())
    assert (outcome.outcome, outcome.code) == ("transient", "not_accepted")
    assert outcome.text.startswith(
        "JSON did not accept it; Apprise gives no status: Failed to send JSON POST notification"
    )
    assert f"error={status}" in outcome.text
    assert len(server.got) == 1, "it was sent elsewhere, or again"


def test_a_failure_that_the_address_calls_optional_is_still_one(server: Server) -> None:
    server.status = 500
    with channel(f"json://{server.address}/?optional=yes&retry=3&wait=0.1") as sending:
        assert sending.send(notice()).code == "not_accepted"
    assert len(server.got) == 1, "the outbox tries again, not Apprise"


def test_a_service_that_is_not_there_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with channel(f"json://127.0.0.1:{port}/hunter2secret") as sending:
        outcome = sending.send(notice())
    assert (outcome.outcome, outcome.code) == ("transient", "unreachable")
    assert "Connection error" in outcome.text


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "nope://x/y",
        "json://",
        "json://127.0.0.1:1/?method=nonsense",
        "tgram://nothing",
        "http//x",
        "\x00",
        "json://[::1",
        "x" * 9000,
    ],
)
def test_an_address_that_apprise_does_not_know_is_permanent(url: str) -> None:
    with channel(url) as sending:
        outcome = sending.send(notice())
        health = sending.health()
    assert (outcome.outcome, outcome.code) == ("permanent", "bad_url")
    assert not health.works
    assert health.detail == outcome.text
    assert "Apprise does not know this address" in outcome.text


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with channel("json://127.0.0.1:1/") as sending:
        outcome = sending.send(notice())
        health = sending.health()
    assert (outcome.outcome, outcome.code) == ("permanent", "apprise_missing")
    assert "pip install apprise" in outcome.text
    assert (health.works, health.detail) == (False, outcome.text)


def test_what_has_expired_is_not_sent(server: Server) -> None:
    clock = StillClock()
    with channel(f"json://{server.address}/", clock) as sending:
        assert sending.send(notice(expires_at=clock.now_ms() + 1)).outcome == "sent"
        outcome = sending.send(notice(expires_at=clock.now_ms()))
    assert (outcome.outcome, outcome.code) == ("permanent", "expired")
    assert len(server.got) == 1


def test_health_tells_the_service_and_reaches_nobody(server: Server) -> None:
    with channel(f"json://{server.address}/") as probing:
        health = probing.health()
    assert health.works
    assert health.detail == "JSON through Apprise, which confirms no delivery"
    assert server.got == []


def test_a_plugin_that_breaks_is_transient_and_not_used_again(server: Server) -> None:
    with channel(f"json://{server.address}/?:x=y") as sending:
        sending.health()
        sending._idle[0] = sending._idle[0]._replace(apprise=None)  # type: ignore[arg-type]
        outcome = sending.send(notice())
        assert outcome == Outcome(outcome="transient", code="apprise_failed", text="Apprise failed (AttributeError).")
        assert sending.send(notice()).outcome == "sent"


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_nothing_of_the_address_is_in_any_text_or_log(
    server: Server, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    server.status = 401
    basic = base64.b64encode(b"hunter2u:hunter2 p").decode()
    url = f"json://hunter2u:hunter2%20p@{server.address}/hunter2a/hunter2b?+X-Key=hunter2k&-q=hunter2q"
    with channel(url) as sending:
        outcome = sending.send(notice())
        texts = [outcome.text, sending.health().detail]
        hidden = sending._hidden(
            f"POST {url} Authorization: Basic {basic} Bearer hunter2z HUNTER2A {basic} hunter2 p hunter2k "
            f"https://x.example/botXYZ/send {server.address}\nnext"
        )
    assert server.got[0].path == "/hunter2a/hunter2b?q=hunter2q"
    with channel("tgram://hunter2:hunter2secret/") as broken:
        refused = broken.send(notice())
    assert refused.code == "bad_url"
    texts.append(refused.text)
    written = "\n".join([*texts, hidden, caplog.text, *capfd.readouterr()])
    for secret in ("hunter2", "HUNTER2", basic, "botXYZ"):
        assert secret not in written
    assert hidden.endswith(" next")


def test_none_of_apprises_own_lines_reaches_a_log(server: Server) -> None:
    heard: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.name)

    listening = Listening()
    logging.getLogger().addHandler(listening)
    server.status = 500
    try:
        with channel(f"json://{server.address}/") as sending:
            assert sending.send(notice()).code == "not_accepted"
    finally:
        logging.getLogger().removeHandler(listening)
    assert [name for name in heard if name.startswith(("apprise", "urllib3"))] == []


def test_sends_side_by_side_are_told_their_own_reasons_only(server: Server) -> None:
    other = Server()
    server.status, other.status = 401, 503
    server.may_answer.clear()
    try:
        with (
            channel(f"json://{server.address}/") as one,
            channel(f"json://{other.address}/") as two,
            ThreadPoolExecutor(1) as pool,
        ):
            waiting = pool.submit(one.send, notice())
            assert server.arrived.acquire(timeout=DEADLINE)
            assert "error=503" in two.send(notice()).text
            server.may_answer.set()
            text = waiting.result(DEADLINE).text
    finally:
        other.close()
    assert "error=401" in text
    assert "503" not in text


def test_words_of_the_address_do_not_spoil_the_text(server: Server) -> None:
    server.status = 500
    with channel(f"json://{server.address}/noti/fail") as sending:
        text = sending.send(notice()).text
    assert "Failed to send JSON POST notification: Internal server error" in text


# --- hanging ----------------------------------------------------------------------------------------------------------


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "apprise-chat"]


def test_a_service_that_hangs_costs_one_deadline_each_and_never_more_than_so_many_threads(server: Server) -> None:
    server.may_answer.clear()
    with channel(f"json://{server.address}/?rto={DEADLINE}", connections=1, deadline_s=0.3) as sending:
        sending.health()
        began = time.monotonic()
        outcomes = [sending.send(notice()) for _ in range(6)]
        took = time.monotonic() - began
        assert len(threads()) == 2
        server.may_answer.set()
        for thread in threads():
            thread.join(DEADLINE)
        assert sending.send(notice()).outcome == "sent"
    assert [outcome.code for outcome in outcomes] == ["timeout", "timeout", "busy", "busy", "busy", "busy"]
    assert {outcome.outcome for outcome in outcomes} == {"transient"}
    assert 0.6 <= took < 3
    assert "may still accept it" in outcomes[0].text


def test_closing_answers_whoever_waits_at_once_and_twice_is_fine(server: Server) -> None:
    server.may_answer.clear()
    with channel(f"json://{server.address}/?rto={DEADLINE}") as sending, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sending.send, notice())
        assert server.arrived.acquire(timeout=DEADLINE)
        began = time.monotonic()
        sending.close()
        outcome = waiting.result(DEADLINE)
        assert time.monotonic() - began < 2
        sending.close()
        assert (outcome.outcome, outcome.code) == ("transient", "stopping")
        assert sending.send(notice()).code == "stopping"


def test_importing_the_channel_imports_no_apprise() -> None:
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", "import sys, flashflow.backend.delivery.apprise; print('apprise' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
