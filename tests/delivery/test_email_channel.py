"""The e-mail channel against a real SMTP server: what it sends, and what it says became of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.core.clock import SystemClock
from flashflow.backend.delivery.email.channel import EmailChannel
from flashflow.backend.settings.model import EmailSettings
from tests.support.email_sending import ACCEPTED, FLOW, SOON_S, TO_ADA, Trust, channel, said, self_signed
from tests.support.fixed_clock import StillClock
from tests.support.notices import notice
from tests.support.smtp_server import smtp_server

PASSWORD = "pässword-93"


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return self_signed(tmp_path_factory.mktemp("tls"))


# --- what arrives


def test_a_notice_arrives_as_one_mail_to_one_person() -> None:
    with smtp_server() as server, channel(server.port) as sending:
        outcome = sending.send(notice("Build finished", "All passed\n.\n..end", target="ada@example.org"))
        (mail,) = server.mails
    assert (outcome.outcome, outcome.code, outcome.text) == ("sent", "accepted", "250 2.0.0 Ok: queued")
    assert mail.greeting == "[127.0.0.1]"  # a name of ours that the DNS knows is more than we can promise
    assert (mail.sender, mail.recipients) == ("flow@flash.example", ("ada@example.org",))
    message = mail.message
    assert (message["From"], message["To"], message["Subject"]) == (FLOW, "ada@example.org", "Build finished")
    assert message["Message-ID"] == "<d1@flash.example>"
    plain, html = message.iter_parts()
    assert plain.get_content().startswith("All passed\r\n.\r\n..end\r\n")
    assert "All passed<br>\r\n.<br>\r\n..end</p>" in html.get_content()


@pytest.mark.parametrize(
    ("title", "subject"),
    [
        ("--version", "--version"),
        ("It's", "It's"),
        ("a\r\nBcc: eve@example.org\r\n\r\nbody", "a Bcc: eve@example.org  body"),
        ("<script>alert(1)</script> & co", "<script>alert(1)</script> & co"),
        ("x" * 300, "x" * 300),
        ("🚀" * 300, "🚀" * 300),
    ],
)
def test_a_hostile_title_arrives_as_a_subject_and_no_more(title: str, subject: str) -> None:
    with smtp_server() as server, channel(server.port) as sending:
        assert said(sending.send(notice(title, title, target="ada@example.org"))) == ACCEPTED
        (mail,) = server.mails
    assert mail.message["Subject"] == subject
    assert mail.recipients == ("ada@example.org",)
    assert mail.message["Bcc"] is None
    html = mail.message.get_body(("html",))
    assert html is not None
    assert "<script" not in html.get_content()


def test_a_mail_is_dated_when_it_goes_out_however_long_ago_it_was_asked_for() -> None:
    with smtp_server() as server, channel(server.port, clock=StillClock()) as sending:
        for created_at in (0, 1, 10**18):
            assert said(sending.send(notice(target="ada@example.org", created_at=created_at))) == ACCEPTED
        assert {str(mail.message["Date"]) for mail in server.mails} == {"Wed, 10 Jun 2026 12:00:00 +0000"}


@pytest.mark.parametrize(
    "target", [None, "", "ada", "ada@example.org, eve@example.org", "ada@x.org>\r\nRCPT TO:<e@x.org"]
)
def test_what_is_not_one_address_never_reaches_the_server(target: str | None) -> None:
    with smtp_server() as server, channel(server.port) as sending:
        assert said(sending.send(notice(target=target))) == ("permanent", "bad_address")
        assert server.connections == 0


def test_an_address_beyond_ascii_needs_a_server_that_takes_it() -> None:
    given = notice(target="用户@bücher.example")
    with smtp_server() as server, channel(server.port) as sending:
        assert said(sending.send(given)) == ACCEPTED
        assert said(sending.send(TO_ADA)) == ACCEPTED
        first, second = server.mails
    assert first.recipients == ("用户@xn--bcher-kva.example",)
    assert {"SMTPUTF8", "BODY=8BITMIME"} < set(first.options)
    assert "SMTPUTF8" not in second.options
    with smtp_server(smtputf8=False) as server, channel(server.port) as sending:
        assert said(sending.send(TO_ADA)) == ACCEPTED
        assert said(sending.send(given)) == ("permanent", "smtputf8_not_offered")
        assert said(sending.send(TO_ADA)) == ACCEPTED
        assert (server.connections, server.steps["MAIL"]) == (1, 2)


# --- TLS and login


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_and_password_go_encrypted_to_a_server_that_is_trusted(trust: Trust, security: str) -> None:
    with smtp_server(**{security: trust.server}, credentials=("flow", PASSWORD)) as server:  # type: ignore[arg-type]
        login: dict[str, Any] = {"username": "flow", "password": PASSWORD, "security": security}
        with channel(server.port, ssl_context=trust.client, **login) as sending:
            assert [said(sending.send(TO_ADA)) for _ in range(2)] == [ACCEPTED, ACCEPTED]
        assert [(mail.encrypted, mail.login) for mail in server.mails] == [(True, b"flow")] * 2
        assert server.connections == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_that_does_not_hold_gets_neither_mail_nor_password(
    trust: Trust, tmp_path: Path, security: str
) -> None:
    elsewhere = self_signed(tmp_path, "mail.example.org")
    for server_side, client_side, why in (
        (trust.server, None, "self-signed certificate"),
        (elsewhere.server, elsewhere.client, "IP address mismatch"),
    ):
        with smtp_server(**{security: server_side}, credentials=("flow", PASSWORD)) as server:  # type: ignore[arg-type]
            login: dict[str, Any] = {"username": "flow", "password": PASSWORD, "security": security}
            with channel(server.port, ssl_context=client_side, **login) as sending:
                outcome = sending.send(TO_ADA)
            assert said(outcome) == ("transient", "tls_failed")
            assert why in outcome.text
            assert server.steps["AUTH"] + server.steps["MAIL"] == 0


def test_without_starttls_nothing_is_sent_in_the_clear(trust: Trust) -> None:
    with smtp_server() as server, channel(server.port, security="starttls", ssl_context=trust.client) as sending:
        assert said(sending.send(TO_ADA)) == ("permanent", "no_starttls")
        assert server.steps["MAIL"] == 0


@pytest.mark.parametrize(
    ("reply", "expected", "words"),
    [
        ("454 4.7.0 TLS not available", ("transient", "smtp_454"), "454 4.7.0 TLS not available"),
        ("220 ready\r\n250 and a word before TLS", ("transient", "tls_failed"), "sent more after its agreement"),
    ],
)
def test_a_starttls_that_goes_wrong_sends_nothing(
    trust: Trust, reply: str, expected: tuple[str, str], words: str
) -> None:
    with smtp_server(starttls=trust.server) as server:
        server.misbehave("STARTTLS", reply)
        with channel(server.port, security="starttls", ssl_context=trust.client, timeout_s=SOON_S) as sending:
            outcome = sending.send(TO_ADA)
        assert said(outcome) == expected
        assert words in outcome.text
        assert server.steps["MAIL"] == 0


def test_tls_against_a_server_without_it_is_told(trust: Trust) -> None:
    with smtp_server() as server, channel(server.port, security="tls", ssl_context=trust.client) as sending:
        assert said(sending.send(TO_ADA)) == ("transient", "tls_failed")


@pytest.mark.parametrize("without", [(), ("PLAIN",)])
def test_either_way_to_log_in_is_known(without: tuple[str, ...]) -> None:
    with smtp_server(credentials=("flöw", PASSWORD), without_auth=without) as server:
        with channel(server.port, username="flöw", password=PASSWORD) as sending:
            assert said(sending.send(TO_ADA)) == ACCEPTED
        assert server.mails[0].login == "flöw".encode()


def test_a_wrong_password_is_offered_once_and_never_repeated_to_anyone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = "535-5.7.8 No login\r\n535 5.7.8 for flow with {} (AGZsb3cAcMOkc3N3b3JkLTkz)"
    with (
        smtp_server(credentials=("flow", "another")) as server,
        channel(server.port, username="flow", password=PASSWORD) as sending,
    ):
        outcome = sending.send(TO_ADA)
        assert (outcome.outcome, outcome.code) == ("permanent", "smtp_535")
        assert outcome.text == "535 5.7.8 Authentication credentials invalid"
        assert server.steps["AUTH"] == 1
        server.misbehave("AUTH", echo.format(PASSWORD))
        outcome = sending.send(TO_ADA)
        assert outcome.text == "535 5.7.8 No login for flow with … (…)"
        server.misbehave("AUTH", "454 4.7.0 Temporary authentication failure")
        assert said(sending.send(TO_ADA)) == ("transient", "smtp_454")
        assert PASSWORD not in repr(sending.health())
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("backend")]
    assert PASSWORD not in "".join(ours)


def test_a_server_without_a_login_that_we_know_is_refused() -> None:
    with smtp_server(without_auth=("PLAIN", "LOGIN")) as server:
        with channel(server.port, username="flow", password=PASSWORD) as sending:
            assert said(sending.send(TO_ADA)) == ("permanent", "no_login")
        assert server.steps["MAIL"] == 0


@pytest.mark.parametrize("host", ["mail.example.org", "localhost.example.org", "192.0.2.1", "127.0.0.1.example.org"])
def test_a_password_goes_nowhere_else_without_tls(host: str) -> None:
    def resolve(*_given: Any, **_options: Any) -> Any:
        raise AssertionError("it was about to connect")

    with channel(25, host=host, username="flow", password=PASSWORD, resolve=resolve) as sending:
        assert said(sending.send(TO_ADA)) == ("permanent", "insecure_login")
        assert not sending.health().works


# --- what the server answers


@pytest.mark.parametrize(
    ("step", "reply", "outcome"),
    [
        ("GREETING", "421 4.3.2 Too many connections", "throttled"),
        ("GREETING", "554 5.7.1 No service for you", "permanent"),
        ("EHLO", "421 4.3.2 Shutting down", "throttled"),
        ("MAIL", "451 4.3.0 Try again later", "transient"),
        ("MAIL", "550 5.7.1 Sender refused", "permanent"),
        ("RCPT", "450 4.2.0 Greylisted", "transient"),
        ("RCPT", "451 4.7.1 Try again later", "transient"),
        ("RCPT", "452 4.2.2 Mailbox full", "transient"),
        ("RCPT", "550 4.7.1 Greylisted by a server that numbers oddly", "transient"),
        ("RCPT", "550 5.1.1 No such user", "permanent"),
        ("RCPT", "551 5.1.6 Moved", "permanent"),
        ("RCPT", "552 5.2.2 Full for good", "permanent"),
        ("RCPT", "553 5.1.3 Bad name", "permanent"),
        ("RCPT", "421 4.7.0 Enough for now", "throttled"),
        ("DATA", "554 5.5.1 No valid recipients", "permanent"),
        ("DATA", "451 4.3.0 Not now", "transient"),
        ("BODY", "552 5.3.4 Too big", "permanent"),
        ("BODY", "554 5.7.1 Spam", "permanent"),
        ("BODY", "451 4.3.0 Not now", "transient"),
        ("BODY", "421 4.3.0 Going down", "throttled"),
    ],
)
def test_each_refusal_is_classed_and_told_in_the_servers_words(step: str, reply: str, outcome: str) -> None:
    with smtp_server() as server, channel(server.port) as sending:
        server.misbehave(step, reply)
        found = sending.send(TO_ADA)
        assert (found.outcome, found.code, found.text) == (outcome, f"smtp_{reply[:3]}", reply)
        assert server.mails == []
        server.behave()
        assert said(sending.send(TO_ADA)) == ACCEPTED
        reused = step not in {"GREETING", "EHLO"} and not reply.startswith("421")
        assert server.connections == (1 if reused else 2)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("550-5.1.1 The address\r\n550-5.1.1 does not\r\n550 5.1.1 exist", "550 5.1.1 The address does not exist"),
        ("550 5.1.1 bell\x07 tab\t done", "550 5.1.1 bell tab done"),
        ("550 " + "x" * 400, "550 " + "x" * 296),
    ],
)
def test_the_servers_words_are_one_short_line(reply: str, text: str) -> None:
    with smtp_server() as server, channel(server.port) as sending:
        server.misbehave("RCPT", reply)
        assert sending.send(TO_ADA).text == text


@pytest.mark.parametrize(
    "reply", ["hello", "25", "250x what", "-1 no", "350 go on", "250-" + "x" * 70_000, "250-x\r\n" * 20_000 + "250 x"]
)
def test_what_is_not_smtp_is_not_taken_for_a_yes(reply: str) -> None:
    with smtp_server() as server, channel(server.port, timeout_s=SOON_S) as sending:
        server.misbehave("RCPT", reply)
        assert said(sending.send(TO_ADA)) == ("transient", "bad_reply")
        server.behave()
        assert said(sending.send(TO_ADA)) == ACCEPTED
        assert server.connections == 2


def test_a_mail_too_large_for_the_server_is_refused_before_it_is_sent() -> None:
    with smtp_server(size_limit=500) as server, channel(server.port) as sending:
        assert said(sending.send(TO_ADA)) == ("permanent", "smtp_552")
        assert server.steps["DATA"] == 0


@pytest.mark.parametrize("security", ["none", "tls"])
def test_a_mail_that_fits_into_no_buffer_arrives_whole(trust: Trust, security: str) -> None:
    text = "".join(f"Line {number} of a long report.\n" for number in range(100_000))
    tls = trust.server if security == "tls" else None
    with (
        smtp_server(tls=tls) as server,
        channel(server.port, security=security, ssl_context=trust.client) as sending,
    ):
        assert said(sending.send(notice(target="ada@example.org", message=text))) == ACCEPTED
        (mail,) = server.mails
    body = mail.message.get_body(("plain",))
    assert body is not None
    assert body.get_content().replace("\r\n", "\n").startswith(text)


def test_an_old_server_without_ehlo_will_do() -> None:
    with smtp_server() as server, channel(server.port) as sending:
        server.misbehave("EHLO", "502 5.5.1 What?")
        assert said(sending.send(TO_ADA)) == ACCEPTED


# --- health


@pytest.mark.parametrize(
    ("changes", "works", "detail"),
    [
        ({}, True, "mail.example:25 without TLS"),
        ({"security": "starttls"}, True, "mail.example:587 with STARTTLS"),
        ({"security": "tls", "username": "u", "password": "p"}, True, "mail.example:465 with TLS"),
        ({"sender": "nobody"}, False, "The sender is not an e-mail address: not of the form name@host."),
        ({"username": "u"}, False, "A password is sent to another machine only over TLS: set security."),
    ],
)
def test_health_says_what_is_configured_and_asks_nobody(changes: dict[str, Any], works: bool, detail: str) -> None:
    def resolve(*_given: Any, **_options: Any) -> Any:
        raise AssertionError("it was about to connect")

    made = EmailChannel(
        EmailSettings(**{"host": "mail.example", "sender": FLOW, "security": "none", **changes}),
        SystemClock(),
        resolve=resolve,
    )
    health = made.health()
    assert (health.works, health.detail) == (works, detail)
    if not works:
        assert made.send(TO_ADA).outcome == "permanent"
    made.close()
