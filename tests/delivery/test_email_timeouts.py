"""A slow mail server is waited for, step by step, and those that wait for it hold no place that others need."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flashflow.backend.delivery.email.channel import ASIDE_SHARE
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.domain.channel import LEASE_MS
from flashflow.backend.settings.model import EmailSettings
from tests.delivery.test_route_queue import running
from tests.support.email_sending import ACCEPTED, FLOW, HOST, LONG_S, SHORT_S, SOON_S, STEPS, TO_ADA, channel, said
from tests.support.notices import notice
from tests.support.outbox_driver import Hands, Stand
from tests.support.server_process import eventually
from tests.support.smtp_server import HANG, smtp_server

SETTING = {
    "GREETING": "greeting", "EHLO": "command", "MAIL": "command", "RCPT": "command", "DATA": "command",
    "BODY": "answer",
}  # fmt: skip
"""Where a server may take its time, and which setting says how long."""
MAIL_STEPS = ("MAIL", "RCPT", "DATA", "BODY")


def test_a_server_may_take_minutes_for_each_step() -> None:
    """RFC 5321, 4.5.3.2; a lease that ended sooner would send the mail twice."""
    defaults = EmailSettings(host=HOST, sender=FLOW)
    assert defaults.greeting_timeout >= 5 * 60
    assert defaults.command_timeout >= 5 * 60
    assert defaults.data_timeout >= 3 * 60
    assert defaults.answer_timeout >= 10 * 60
    with channel(25, timeout_s=300.0) as sending:
        assert sending.lease_ms >= (len(SETTING) + 2) * 300_000 > LEASE_MS


def test_a_dialogue_may_take_longer_than_any_of_its_steps() -> None:
    with smtp_server() as server, channel(server.port, timeout_s=1.0) as sending:
        server.linger(0.4, *SETTING)
        began = time.monotonic()
        assert said(sending.send(TO_ADA)) == ACCEPTED
        assert time.monotonic() - began > 2.0


@pytest.mark.parametrize("step", SETTING)
def test_each_step_has_a_time_out_of_its_own(step: str) -> None:
    name = f"{SETTING[step]}_timeout"
    with smtp_server() as server:
        server.linger(SHORT_S * 2, step)
        others = {f"{other}_timeout": SHORT_S for other in STEPS}
        with channel(server.port, **others | {name: LONG_S}) as sending:
            assert said(sending.send(TO_ADA)) == ACCEPTED
        server.behave()
        server.misbehave(step, HANG)
        with channel(server.port, **{name: SHORT_S}) as sending:
            code = "no_answer_after_data" if step == "BODY" else "timeout"
            assert said(sending.send(TO_ADA)) == ("transient", code)


def test_a_test_through_the_channel_ends_while_someone_still_waits_for_it() -> None:
    with smtp_server() as server, channel(server.port) as sending:
        server.misbehave("RCPT", HANG)
        given = notice(target=TO_ADA.target, time_limit_s=SHORT_S)
        began = time.monotonic()
        assert said(sending.send(given)) == ("transient", "timeout")
        assert time.monotonic() - began < SOON_S


# --- whose place a waiting mail takes


@pytest.mark.parametrize("step", MAIL_STEPS)
def test_a_mail_that_waits_long_for_a_step_holds_up_no_other(tmp_path: Path, step: str) -> None:
    hands = Hands(tmp_path)
    with smtp_server() as server, channel(server.port, connections=1, slow_s=0.1) as sending:
        server.misbehave(step, HANG, times=1)
        slow = hands.send("slow", channel="email")
        with running(hands, {"email": RouteQueue(sending, connections=1, ahead=1)}):
            server.wait_for(step)
            others = [hands.send(str(number), channel="email") for number in range(5)]
            for id_ in others:
                eventually(lambda id_=id_: hands.stands(id_)["email"].status == "sent")  # type: ignore[misc]
            assert hands.stands(slow)["email"].status == "sending"
            assert server.connections == 2
            sending.close()
            code = "no_answer_after_data" if step == "BODY" else "stopping"
            eventually(lambda: hands.stands(slow)["email"] == Stand("pending", code))
    hands.service.close()


def test_a_slow_greeting_opens_no_further_connection() -> None:
    """It is the same for every mail, and servers count connections."""
    with smtp_server() as server, channel(server.port, connections=1, slow_s=0.05) as sending:
        server.linger(0.5, "GREETING")
        with ThreadPoolExecutor(4) as pool:
            assert {said(outcome) for outcome in pool.map(sending.send, [TO_ADA] * 4)} == {ACCEPTED}
        assert server.connections == 1


def test_only_so_many_mails_wait_beside_the_others() -> None:
    with smtp_server() as server, channel(server.port, connections=1, slow_s=0.05) as sending:
        server.misbehave("RCPT", HANG)
        with ThreadPoolExecutor(8) as pool:
            mails = [pool.submit(sending.send, TO_ADA) for _ in range(8)]
            server.wait_for("RCPT", 1 + ASIDE_SHARE)
            eventually(lambda: sending.aside == ASIDE_SHARE)
            sending.close()
            assert {said(mail.result(SOON_S)) for mail in mails} == {("transient", "stopping")}
        assert server.steps["RCPT"] == 1 + ASIDE_SHARE
        assert sending.aside == 0


def test_mails_that_stood_aside_arrive_and_leave_no_more_connections_than_allowed() -> None:
    with smtp_server() as server, channel(server.port, connections=1, slow_s=0.05) as sending:
        server.linger(0.3, "RCPT")
        with ThreadPoolExecutor(3) as pool:
            assert {said(outcome) for outcome in pool.map(sending.send, [TO_ADA] * 3)} == {ACCEPTED}
        assert len(server.mails) == 3
        server.wait_until(lambda: server.open == 1, "closing the others")
        server.behave()
        assert said(sending.send(TO_ADA)) == ACCEPTED
