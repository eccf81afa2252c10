"""The e-mail channel's connections to a real SMTP server: deadlines, finding the server, using them again, the end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.core.clock import SystemClock
from flashflow.backend.delivery.email.channel import MAILS_EACH, EmailChannel, Pool
from flashflow.backend.delivery.email.smtp_connection import CHECK_AFTER_S
from flashflow.backend.delivery.email.timeouts import Deadline
from flashflow.backend.domain.channel import Transient
from flashflow.backend.domain.delivery_messages import Outcome
from tests.support.email_sending import ACCEPTED, LONG_S, SHORT_S, SOON_S, TO_ADA, channel, said, self_signed, settings
from tests.support.fixed_clock import StillClock
from tests.support.notices import notice
from tests.support.smtp_server import DROP, HANG, HOST, TRICKLE, smtp_server

# --- silence


@pytest.mark.parametrize("how", [HANG, TRICKLE])
@pytest.mark.parametrize("step", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "BODY"])
def test_a_server_that_hangs_or_trickles_is_left_at_the_deadline(step: str, how: str) -> None:
    with smtp_server() as server, channel(server.port, timeout_s=SHORT_S) as sending:
        server.misbehave(step, how)
        began = time.monotonic()
        outcome = sending.send(TO_ADA)
        assert time.monotonic() - began < SOON_S / 2
        assert said(outcome) == ("transient", "no_answer_after_data" if step == "BODY" else "timeout")
        assert f"{SHORT_S:g} seconds" in outcome.text
        server.behave()
        assert said(sending.send(TO_ADA)) == ACCEPTED


@pytest.mark.parametrize("step", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA"])
def test_a_connection_that_breaks_before_the_end_is_a_passing_fault(step: str) -> None:
    with smtp_server() as server, channel(server.port) as sending:
        server.misbehave(step, DROP, times=1)
        assert said(sending.send(TO_ADA)) == ("transient", "connection_lost")
        assert said(sending.send(TO_ADA)) == ACCEPTED
        assert len(server.mails) == 1


def test_a_break_after_the_last_dot_may_have_arrived_and_the_repeat_is_the_same_mail() -> None:
    with smtp_server() as server, channel(server.port) as sending:
        server.misbehave("BODY", DROP, times=1)
        outcome = sending.send(TO_ADA)
        assert said(outcome) == ("transient", "no_answer_after_data")
        assert "may have arrived" in outcome.text
        assert said(sending.send(TO_ADA)) == ACCEPTED
        assert len(server.mails) == 2
        assert server.mails[0].raw == server.mails[1].raw


# --- finding the server


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listening:
        return int(listening.getsockname()[1])


def at(*ports: int) -> Callable[..., list[Any]]:
    return lambda *_given, **_options: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (HOST, port)) for port in ports]


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with channel(free_port()) as sending:
        assert said(sending.send(TO_ADA)) == ("transient", "unreachable")


def test_every_address_of_the_name_is_tried() -> None:
    with smtp_server() as server, channel(1, host="mail.example", resolve=at(free_port(), server.port)) as sending:
        assert said(sending.send(TO_ADA)) == ACCEPTED


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), UnicodeError("label too long")]
)
def test_a_name_that_is_not_found_is_unreachable(error: Exception) -> None:
    def resolve(*_given: Any, **_options: Any) -> Any:
        raise error

    with channel(1, host="mail.example", resolve=resolve) as sending:
        assert said(sending.send(TO_ADA)) == ("transient", "unreachable")


class SlowNames:
    """A resolver that answers once it is let."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.times = 0
        self.go = threading.Event()

    def __call__(self, *_given: Any, **_options: Any) -> list[Any]:
        self.times += 1
        self.asked.release()
        assert self.go.wait(SOON_S)
        return []


def test_a_name_service_that_hangs_holds_one_thread_and_nobody_past_the_deadline() -> None:
    names = SlowNames()
    with channel(1, host="mail.example", resolve=names, timeout_s=0.1) as sending:
        assert [said(sending.send(TO_ADA)) for _ in range(3)] == [("transient", "timeout")] * 3
        assert names.times == 1
        names.go.set()


@contextmanager
def deaf_port() -> Iterator[int]:
    """One whose queue is full: a connect to it waits without end."""
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        listening.listen(0)
        address = listening.getsockname()
        waiting = []
        for _ in range(3):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(address)
        try:
            yield address[1]
        finally:
            for one in waiting:
                one.close()


def test_a_connect_that_hangs_ends_at_the_deadline_and_leaves_time_for_the_next_address() -> None:
    with deaf_port() as deaf, channel(deaf, timeout_s=SHORT_S) as sending:
        assert said(sending.send(TO_ADA)) == ("transient", "timeout")
    with (
        deaf_port() as deaf,
        smtp_server() as server,
        channel(1, host="mail.example", resolve=at(deaf, server.port), timeout_s=2.0) as sending,
    ):
        assert said(sending.send(TO_ADA)) == ACCEPTED


# --- connections used again


def test_connections_are_used_again_and_are_never_more_than_the_settings_allow() -> None:
    with smtp_server() as server, channel(server.port, connections=3) as sending, ThreadPoolExecutor(8) as pool:
        given = [notice(target=f"u{number}@example.org", delivery_id=f"d{number}") for number in range(60)]
        assert {said(outcome) for outcome in pool.map(sending.send, given)} == {ACCEPTED}
        assert 1 <= server.connections <= 3
        assert {mail.recipients[0] for mail in server.mails} == {str(one.target) for one in given}
        assert {str(mail.message["To"]) == mail.recipients[0] for mail in server.mails} == {True}


def test_a_connection_retires_after_a_hundred_mails_with_a_goodbye() -> None:
    with smtp_server() as server, channel(server.port) as sending:
        for _ in range(MAILS_EACH + 1):
            assert said(sending.send(TO_ADA)) == ACCEPTED
        server.wait_for("QUIT")
        server.wait_until(lambda: server.open == 1, "closing the first")
        assert [mail.connection for mail in server.mails] == [1] * MAILS_EACH + [2]


def test_idle_connections_are_closed_by_themselves() -> None:
    with smtp_server() as server, channel(server.port, idle_s=0.05) as sending:
        for _ in range(2):
            assert said(sending.send(TO_ADA)) == ACCEPTED
            server.wait_until(lambda: server.open == 0, "closing the idle connection")
        assert server.steps["QUIT"] == server.connections == 2


@pytest.mark.parametrize("last_words", ["", "421 4.4.2 Timeout"])
def test_a_connection_that_the_server_closed_while_idle_is_replaced_without_a_failure(last_words: str) -> None:
    with smtp_server() as server, channel(server.port) as sending:
        assert said(sending.send(TO_ADA)) == ACCEPTED
        server.hang_up(last_words)
        assert said(sending.send(TO_ADA)) == ACCEPTED
        assert server.connections == 2


def test_a_server_that_came_back_is_used_again() -> None:
    with smtp_server() as first, channel(first.port) as sending:
        assert said(sending.send(TO_ADA)) == ACCEPTED
        first.stop()
        assert said(sending.send(TO_ADA)) == ("transient", "unreachable")
        with smtp_server(port=first.port):
            assert said(sending.send(TO_ADA)) == ACCEPTED


@pytest.mark.parametrize("reply", ["421 4.7.0 Enough", "452 4.5.3 Too many mails on this connection", DROP])
def test_a_server_that_has_enough_of_a_connection_gets_another_at_once(reply: str) -> None:
    with smtp_server() as server, channel(server.port) as sending:
        assert said(sending.send(TO_ADA)) == ACCEPTED
        server.misbehave("MAIL", reply, times=1)
        assert said(sending.send(TO_ADA)) == ACCEPTED
        assert [mail.connection for mail in server.mails] == [1, 2]


def test_a_connection_that_is_out_of_step_is_not_used_again() -> None:
    with smtp_server() as server, channel(server.port) as sending:
        server.misbehave("BODY", "250 taken\r\n250 and once more", times=1)
        assert sending.send(TO_ADA).text == "250 taken"
        assert said(sending.send(TO_ADA)) == ACCEPTED
        assert server.connections == 2


def test_the_second_try_is_the_last() -> None:
    with smtp_server() as server, channel(server.port) as sending:
        assert said(sending.send(TO_ADA)) == ACCEPTED
        server.misbehave("MAIL", DROP)
        assert said(sending.send(TO_ADA)) == ("transient", "connection_lost")
        assert server.steps["MAIL"] == 3


def test_only_a_connection_that_was_idle_for_long_is_asked_whether_it_stands() -> None:
    clock = StillClock()
    with smtp_server() as server, channel(server.port, clock=clock) as sending:
        for seconds, asked in ((0.0, 0), (CHECK_AFTER_S - 1, 0), (CHECK_AFTER_S + 1, 1), (1, 1)):
            clock.go(seconds=seconds)
            assert said(sending.send(TO_ADA)) == ACCEPTED
            assert server.steps["RSET"] == asked
        assert server.connections == 1


class SkippingClock(SystemClock):
    """Runs, and can be put forward."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


def test_an_idle_connection_that_went_deaf_is_replaced_in_good_time() -> None:
    clock = SkippingClock()
    with smtp_server() as server, channel(server.port, clock=clock, timeout_s=2.0) as sending:
        assert said(sending.send(TO_ADA)) == ACCEPTED
        clock.ahead_s = CHECK_AFTER_S + 1
        server.misbehave("RSET", HANG)
        assert said(sending.send(TO_ADA)) == ACCEPTED
        assert server.connections == 2


def test_who_finds_every_connection_taken_waits_no_longer_than_its_deadline() -> None:
    clock = SystemClock()
    pool = Pool(settings(25, connections=1), clock, 30.0, 15.0, lambda: None)
    lent = pool.borrow(Deadline(clock, LONG_S))
    with pytest.raises(Transient) as refused:
        pool.borrow(Deadline(clock, 0.05))
    assert refused.value.code == "busy"
    pool.give_back(lent)
    pool.give_back(pool.borrow(Deadline(clock, LONG_S)))
    pool.close()


# --- the end


@contextmanager
def under_way(sending: EmailChannel) -> Iterator[Future[Outcome]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(sending.send, TO_ADA)


@pytest.mark.parametrize("step", ["GREETING", "EHLO", "MAIL", "BODY"])
def test_closing_ends_a_mail_that_hangs(step: str) -> None:
    with smtp_server() as server, channel(server.port) as sending:
        server.misbehave(step, HANG)
        with under_way(sending) as hanging:
            server.wait_for(step)
            sending.close()
            outcome = hanging.result(SOON_S)
        assert said(outcome) == ("transient", "no_answer_after_data" if step == "BODY" else "stopping")
        sending.close()
        assert said(sending.send(TO_ADA)) == ("transient", "stopping")
        server.wait_until(lambda: server.open == 0, "closing")


def test_closing_ends_a_tls_handshake_that_hangs(tmp_path: Path) -> None:
    client = self_signed(tmp_path).client
    with (
        socket.create_server((HOST, 0)) as listening,
        channel(listening.getsockname()[1], security="tls", ssl_context=client) as sending,
        under_way(sending) as hanging,
    ):
        listening.settimeout(SOON_S)
        peer, _ = listening.accept()
        with peer:
            assert peer.recv(1)  # its hello
            sending.close()
            assert said(hanging.result(SOON_S)) == ("transient", "stopping")


def test_closing_ends_a_connect_and_a_question_for_a_name_that_hang() -> None:
    names = SlowNames()
    with channel(1, host="mail.example", resolve=names) as sending, under_way(sending) as hanging:
        assert names.asked.acquire(timeout=SOON_S)
        sending.close()
        assert said(hanging.result(SOON_S)) == ("transient", "stopping")
        names.go.set()
    with deaf_port() as deaf, channel(deaf) as sending, under_way(sending) as hanging:
        sending.close()
        assert said(hanging.result(SOON_S)) == ("transient", "stopping")


def test_closing_ends_the_wait_for_a_connection() -> None:
    with smtp_server() as server, channel(server.port, connections=1) as sending:
        server.misbehave("MAIL", HANG)
        with ThreadPoolExecutor(3) as pool:
            mails = [pool.submit(sending.send, TO_ADA) for _ in range(3)]
            server.wait_for("MAIL")
            sending.close()
            assert {said(mail.result(SOON_S)) for mail in mails} == {("transient", "stopping")}
