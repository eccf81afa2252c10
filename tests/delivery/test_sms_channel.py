"""Text messages, against a server that speaks as Twilio does; and what a text costs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flashflow.backend.delivery.net.http_client import HttpClient
from flashflow.backend.delivery.sms import BASIC, EXTENSION, SmsChannel, is_gsm, segment_count, text_of
from flashflow.backend.domain.delivery_messages import Link, Outcome
from flashflow.backend.settings.model import SmsSettings
from tests.support.fixed_clock import StillClock
from tests.support.notices import notice
from tests.support.provider_servers import DEADLINE, Reply, Twilio, twilio

NUMBER = "+4915112345678"
SENDER = "+15005550006"


@pytest.fixture
def provider() -> Iterator[Twilio]:
    with twilio() as running:
        yield running


@pytest.fixture
def channel(provider: Twilio) -> Iterator[SmsChannel]:
    made = sms_channel(provider)
    yield made
    made.close()


def sms_channel(provider: Twilio, *, client: HttpClient | None = None, **changes: Any) -> SmsChannel:
    settings = {
        "account_sid": provider.sid,
        "auth_token": provider.auth_token,
        "sender": SENDER,
        "base_url": provider.base_url,
        **changes,
    }
    return SmsChannel(SmsSettings(**settings), StillClock(), client=client)


def send(channel: SmsChannel, *texts: str, **changes: Any) -> Outcome:
    return channel.send(notice(*texts, **{"target": NUMBER, **changes}))


def test_a_notice_is_accepted_with_its_sid_and_segments(provider: Twilio, channel: SmsChannel) -> None:
    outcome = send(channel, "Build finished", "All 312 tests passed")
    assert (outcome.outcome, outcome.code) == ("sent", "accepted")
    assert outcome.text == f"accepted as {provider.message_sid}, 1 segment"
    assert provider.asked[0].form == {"To": NUMBER, "From": SENDER, "Body": "Build finished\nAll 312 tests passed"}
    assert send(channel, message="ä" * 160 + "😀").text.endswith(", 3 segments")


def test_a_messaging_service_sends_as_itself(provider: Twilio) -> None:
    channel = sms_channel(provider, sender="MG00000000000000000000000000000003", base_url=f"{provider.base_url}/")
    assert send(channel).outcome == "sent"
    channel.close()
    form = provider.asked[0].form
    assert (form["MessagingServiceSid"], "From" in form) == ("MG00000000000000000000000000000003", False)


@pytest.mark.parametrize(
    "number",
    [
        None,
        "",
        "+",
        "+123456",
        "+1234567890123456",
        "+0151123456",
        "015112345678",
        "+49 151 1234567",
        "+491511234567\n",
        "+49151123456７",
        "+49151123456٣",
        "whatsapp:+4915112345678",
        "+4915112345678,+4915112345679",
        "+4915112345678&Body=x",
    ],
)
def test_a_number_that_is_not_e164_is_refused_unsent(provider: Twilio, channel: SmsChannel, number: str | None) -> None:
    outcome = send(channel, target=number)
    assert (outcome.outcome, outcome.code) == ("permanent", "bad_number")
    assert provider.asked == []


@pytest.mark.parametrize("number", ["+1234567", "+123456789012345"])
def test_the_shortest_and_the_longest_number_are_sent_to(provider: Twilio, channel: SmsChannel, number: str) -> None:
    assert send(channel, target=number).outcome == "sent"
    assert provider.asked[0].form["To"] == number


@pytest.mark.parametrize(
    ("reply", "outcome", "code"),
    [
        (Twilio.error(400, 21211, "Invalid 'To' Phone Number: +1"), "permanent", "twilio_21211"),
        (Twilio.error(400, 21614, "'To' number is not a valid mobile number"), "permanent", "twilio_21614"),
        (Twilio.error(400, 21610, "Attempt to send to unsubscribed recipient"), "permanent", "twilio_21610"),
        (Twilio.error(401, 20003, "Authenticate"), "permanent", "unauthorized"),
        (Twilio.error(403, 20003, "Permission Denied"), "permanent", "unauthorized"),
        (Reply(401, b"<html>no</html>"), "permanent", "unauthorized"),
        (Twilio.error(404, 20404, "The requested resource was not found"), "permanent", "twilio_20404"),
        (Twilio.error(429, 20429, "Too Many Requests"), "throttled", "twilio_20429"),
        (Twilio.error(400, 20429, "Too Many Requests"), "throttled", "twilio_20429"),
        (Reply(429), "throttled", "http_429"),
        (Twilio.error(500, 20500, "Internal Server Error"), "transient", "twilio_20500"),
        (Reply(503, b"<html>"), "transient", "http_503"),
        (Reply(408), "transient", "http_408"),
        (Reply(302, b"", {"Location": "/login"}), "permanent", "http_302"),
        (Reply(400, {"code": "21211", "message": 7}), "permanent", "http_400"),
        (Reply(400, {"code": True}), "permanent", "http_400"),
        (Reply(200, b"<html>Welcome to our Wi-Fi</html>"), "transient", "bad_answer"),
        (Reply(201, {"sid": None}), "transient", "bad_answer"),
        (Reply(201, {"sid": "SM1", "status": "failed", "error_code": 30007}), "permanent", "twilio_30007"),
        (Reply(201, {"sid": "SM1", "status": "failed", "error_code": None}), "permanent", "not_sent"),
    ],
)
def test_each_answer_has_its_class(
    provider: Twilio, channel: SmsChannel, reply: Reply, outcome: str, code: str
) -> None:
    provider.answers = [reply]
    got = send(channel)
    assert (got.outcome, got.code) == (outcome, code)
    assert got.text
    assert send(channel).outcome == "sent"


def test_retry_after_is_obeyed(provider: Twilio, channel: SmsChannel) -> None:
    provider.answers = [
        Twilio.error(429, 20429, "Too Many Requests", Retry_After="17"),
        Twilio.error(503, 20503, "Unavailable", Retry_After="Wed, 10 Jun 2026 12:00:05 GMT"),
    ]
    assert [send(channel).retry_after_s for _ in range(2)] == [17.0, 5.0]


def test_a_redirect_takes_the_credentials_nowhere(provider: Twilio, channel: SmsChannel) -> None:
    provider.answers = [Reply(308, b"", {"Location": f"{provider.base_url}/elsewhere"})]
    assert send(channel).code == "http_308"
    assert len(provider.asked) == 1


def test_the_providers_words_are_told_without_the_secret(
    provider: Twilio, channel: SmsChannel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = provider.auth_token
    provider.answers = [
        Twilio.error(400, 21211, f"no\nway: {token}" + " and so on" * 90),
        Reply(201, {"sid": token}),
        Reply(201, {"sid": "SM1", "status": "failed", "error_message": f"key {token}"}),
    ]
    outcomes = [send(channel) for _ in range(3)]
    assert outcomes[0].text.startswith("no way: […] and so on")
    assert len(outcomes[0].text) <= 300
    basic = provider.asked[0].headers["authorization"].removeprefix("Basic ")
    for said in (*(outcome.text for outcome in outcomes), caplog.text, channel.health().detail, repr(channel)):
        assert token not in said
        assert basic not in said


def test_a_wrong_token_is_unauthorized(provider: Twilio) -> None:
    channel = sms_channel(provider, auth_token="wrong")
    outcome = send(channel)
    channel.close()
    assert (outcome.outcome, outcome.code) == ("permanent", "unauthorized")


def test_a_provider_that_hangs_is_left_at_the_deadline(provider: Twilio) -> None:
    provider.hold()
    channel = sms_channel(provider, client=HttpClient(deadline_s=0.3))
    outcome = send(channel)
    channel.close()
    assert (outcome.outcome, outcome.code) == ("transient", "timeout")


def test_close_ends_a_send_that_hangs(provider: Twilio, channel: SmsChannel) -> None:
    provider.hold()
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(send, channel)
        assert provider.arrived.wait(DEADLINE)
        channel.close()
        assert hanging.result(5.0).code == "stopping"
    channel.close()
    assert send(channel).code == "stopping"


def test_several_threads_send_at_once(provider: Twilio, channel: SmsChannel) -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda n: send(channel, message=f"number {n}"), range(24)))
    assert {outcome.outcome for outcome in outcomes} == {"sent"}
    assert {asked.form["Body"] for asked in provider.asked} == {f"Build finished\nnumber {n}" for n in range(24)}


def test_health_says_where_messages_would_go_and_asks_nobody(provider: Twilio, channel: SmsChannel) -> None:
    health = channel.health()
    assert (health.works, health.detail) == (True, f"text messages through 127.0.0.1, from {SENDER}")
    assert provider.asked == []


# --- the text ---------------------------------------------------------------------------------------------------------


def text(title: str, message: str, *urls: str) -> str:
    return text_of(notice(title, message, actions=tuple(Link("Open", url) for url in urls)))


def test_the_text_is_title_message_and_first_link() -> None:
    assert text("Door", "It is open") == "Door\nIt is open"
    assert text("Door", "Door is open") == "Door is open"
    assert text("Door", "It is open", "https://a.example/1", "https://b.example/2") == (
        "Door\nIt is open\nhttps://a.example/1"
    )


def test_control_characters_do_not_reach_a_phone() -> None:
    assert text("a\x1b[31m\r\nb", "c\x00d\te\r\nf\ud800") == "a[31m b\ncd e\nf\ufffd"


def test_a_long_text_is_cut_after_a_word_and_keeps_its_link() -> None:
    cut = text("Title", "word " * 400, "https://a.example/")
    assert cut.endswith("word...\nhttps://a.example/")
    assert 1590 < len(cut) <= 1600
    assert is_gsm(cut)


@pytest.mark.parametrize(
    "message", ["x" * 5_000, "ж" * 5_000, "😀" * 5_000, "ab " * 533 + "c" * 9_000, "你好 " * 3_000]
)
def test_a_text_never_passes_the_limit_nor_breaks_a_character(message: str) -> None:
    cut = text("T", message)
    units = len(cut.encode("utf-16-le")) // 2
    assert 1590 <= units <= 1600
    assert cut.endswith("..." if is_gsm(cut) else "…")
    assert cut.startswith(f"T\n{message[:700]}")


def test_a_text_of_just_the_limit_is_left_alone() -> None:
    assert text("T", "x" * 1598) == "T\n" + "x" * 1598


def test_a_link_that_would_crowd_out_the_message_is_left_out() -> None:
    assert text("T", "m", "https://a.example/" + "x" * 900) == "T\nm"


# --- segments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "gsm", "count"),
    [
        ("", True, 1),
        ("Hello", True, 1),
        ("x" * 160, True, 1),
        ("x" * 161, True, 2),
        ("x" * 306, True, 2),
        ("x" * 307, True, 3),
        ("€" * 80, True, 1),
        ("€" * 81, True, 2),
        ("€" * 76 + "€", True, 1),
        # 76 pairs and one septet left over in each of two segments: 304 of 306 septets fill them.
        ("€" * 152, True, 2),
        ("€" * 153, True, 3),
        ("x" * 152 + "€" + "x" * 151, True, 2),
        ("x" * 152 + "€" + "x" * 152, True, 3),
        ("ä" * 160, True, 1),
        ("`", False, 1),
        ("ç", False, 1),
        ("Ç", True, 1),
        ("ж" * 70, False, 1),
        ("ж" * 71, False, 2),
        ("ж" * 134, False, 2),
        ("ж" * 135, False, 3),
        ("😀" * 35, False, 1),
        ("😀" * 36, False, 2),
        # 33 pairs a segment, for the 67th unit would part one.
        ("😀" * 66, False, 2),
        ("😀" * 67, False, 3),
        ("x" * 159 + "…", False, 3),
        ("line\nline\r\f", True, 1),
    ],
)
def test_segments_are_counted_as_operators_do(written: str, gsm: bool, count: int) -> None:
    assert (is_gsm(written), segment_count(written)) == (gsm, count)


def test_the_alphabet_has_the_128_places_of_the_standard() -> None:
    assert len(BASIC) == 128 - 1  # one place is the escape
    assert len(EXTENSION) == 10
    assert not BASIC & EXTENSION
