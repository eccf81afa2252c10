"""Apple's push service, against an HTTP/2 server over TLS that checks tokens, headers and sizes as APNs does."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from flashflow.backend.delivery.net.http_client import HttpClient
from flashflow.backend.delivery.push.apns import ApnsChannel
from flashflow.backend.domain.delivery_messages import Outcome
from flashflow.backend.settings.model import ApnsSettings
from tests.support.fixed_clock import StillClock
from tests.support.notices import notice
from tests.support.provider_servers import (
    DEADLINE,
    Apns,
    Reply,
    TwoClocks,
    apns,
    certificate,
    h2_server,
    key_file,
    p256_key,
    private_pem,
    rsa_key,
)

DEVICE = "5ecde7" * 10 + "beef"
REGISTERED = datetime(2026, 6, 1, tzinfo=UTC)
REGISTERED_MS = int(REGISTERED.timestamp() * 1000)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def provider(clock: StillClock) -> Iterator[Apns]:
    with apns(clock) as running:
        yield running


@pytest.fixture
def channel(provider: Apns, clock: StillClock, tmp_path: Path) -> Iterator[ApnsChannel]:
    made = apns_channel(provider, clock, key_file(tmp_path))
    yield made
    made.close()


def apns_channel(provider: Apns, clock: StillClock, key: Path, **options: Any) -> ApnsChannel:
    settings = ApnsSettings(
        key_file=str(key),
        key_id=provider.key_id,
        team_id=provider.team_id,
        topic=options.pop("topic", provider.topic),
        base_url=f"{provider.base_url}/",
    )
    verify = certificate("127.0.0.1").client()
    return ApnsChannel(settings, clock, client=HttpClient(http2=True, verify=verify, **options))


def send(channel: ApnsChannel, *texts: str, **changes: Any) -> Outcome:
    fields = {"target": DEVICE, "platform": "ios", "registered_at": REGISTERED_MS}
    return channel.send(notice(*texts, **{**fields, **changes}))


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_a_notice_is_accepted_under_its_apns_id(provider: Apns, channel: ApnsChannel) -> None:
    outcome = send(channel, "Build finished", "All 312 tests passed\nin 4 min", data={"order": {"id": 7}})
    (asked,) = provider.asked
    assert (outcome.outcome, outcome.code) == ("sent", "accepted")
    assert outcome.text == f"accepted as {asked.headers['apns-id']}"
    assert asked.path == f"/3/device/{DEVICE}"
    assert provider.pushes == [
        {
            "aps": {
                "alert": {"title": "Build finished", "body": "All 312 tests passed\nin 4 min"},
                "thread-id": "ci",
                "interruption-level": "active",
                "sound": "default",
            },
            "notification_id": "n1",
            "data": {"order": {"id": 7}},
        }
    ]
    headers = {name: value for name, value in asked.headers.items() if name.startswith("apns-") and name != "apns-id"}
    assert headers == {
        "apns-topic": provider.topic,
        "apns-push-type": "alert",
        "apns-priority": "10",
        "apns-collapse-id": "n1",
    }


@pytest.mark.parametrize(
    ("priority", "sent_with", "level", "sound"),
    [
        ("low", "5", "passive", None),
        ("normal", "10", "active", "default"),
        ("high", "10", "active", "default"),
        ("urgent", "10", "time-sensitive", "default"),
    ],
)
def test_priorities_are_told_in_apples_words(
    provider: Apns, channel: ApnsChannel, priority: str, sent_with: str, level: str, sound: str | None
) -> None:
    assert send(channel, priority=priority, critical=True).outcome == "sent"
    shown = provider.pushes[0]["aps"]
    assert provider.asked[0].headers["apns-priority"] == sent_with
    assert (shown["interruption-level"], shown.get("sound")) == (level, sound)


def test_a_notice_expires_where_it_says(provider: Apns, channel: ApnsChannel, clock: StillClock) -> None:
    send(channel, expires_at=clock.now_ms() + 90_999)
    send(channel, expires_at=0)
    assert provider.asked[0].headers["apns-expiration"] == str(clock.now_ms() // 1000 + 90)
    assert provider.asked[1].headers["apns-expiration"] == "1"


@pytest.mark.parametrize("long", ["n" * 65, "n 1", "ñ", "a\r\nb"])
def test_an_id_that_no_header_can_carry_is_hashed(provider: Apns, channel: ApnsChannel, long: str) -> None:
    assert send(channel, notification_id=long).outcome == "sent"
    assert provider.asked[0].headers["apns-collapse-id"] == hashlib.sha256(long.encode()).hexdigest()
    send(channel, notification_id="n" * 64)
    assert provider.asked[1].headers["apns-collapse-id"] == "n" * 64


def test_each_try_of_a_delivery_has_the_same_id_and_another_delivery_another(
    provider: Apns, channel: ApnsChannel
) -> None:
    given = "019737A1-0000-7000-8000-000000000001"
    for delivery in ("d1", "d1", "d2", given):
        assert send(channel, delivery_id=delivery).outcome == "sent"
    ids = [asked.headers["apns-id"] for asked in provider.asked]
    assert ids[0] == ids[1] != ids[2]
    assert ids[3] == given.lower()
    assert all(str(uuid.UUID(each)) == each for each in ids)


@pytest.mark.parametrize("token", [None, "", "xyz", "abc", DEVICE + "\n", "../" + DEVICE, f"{DEVICE}?a=b", "ab" * 101])
def test_a_token_that_is_not_hexadecimal_is_refused_unsent(
    provider: Apns, channel: ApnsChannel, token: str | None
) -> None:
    outcome = send(channel, target=token)
    assert (outcome.outcome, outcome.code) == ("permanent", "bad_token")
    assert provider.asked == []


@pytest.mark.parametrize("letter", ["x", "ж", "😀", '"', "你"])
def test_a_long_message_is_cut_to_the_limit_and_no_further(provider: Apns, channel: ApnsChannel, letter: str) -> None:
    outcome = send(channel, "Title", letter * 10_000, data={"order": 7})
    assert outcome.text.endswith("; the message was cut")
    assert 4090 <= len(provider.asked[0].body) <= 4096
    assert provider.pushes[0]["data"] == {"order": 7}


def test_data_that_would_crowd_out_the_message_are_left_out(provider: Apns, channel: ApnsChannel) -> None:
    outcome = send(channel, "Title", "word " * 900, data={"big": "x" * 5_000})
    assert outcome.text.endswith("; the message was cut and the data was left out")
    assert "data" not in provider.pushes[0]
    assert "the data was left out" in send(channel, data={"half": "\ud800"}).text


def test_data_cannot_pass_for_apples_words(provider: Apns, channel: ApnsChannel) -> None:
    send(channel, data={"aps": {"alert": "gotcha", "badge": 9}, "notification_id": "other"})
    push = provider.pushes[0]
    assert push["aps"].keys() == {"alert", "thread-id", "interruption-level", "sound"}
    assert (push["notification_id"], push["aps"]["alert"]["title"]) == ("n1", "Build finished")


@pytest.mark.parametrize("text", ["--version", "It's", "<b>x</b>", "%@ %s {x.__class__}", "\x00\x1b[31m", "\ud83d"])
def test_hostile_texts_arrive_as_texts(provider: Apns, channel: ApnsChannel, text: str) -> None:
    assert send(channel, f"T {text}", f"M {text}").outcome == "sent"
    assert "\\u0000" not in json.dumps(provider.pushes)


# --- what APNs answers ------------------------------------------------------------------------------------------------


def refused(status: int, reason: str, **headers: str) -> Reply:
    return Reply(status, {"reason": reason}, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("reply", "outcome", "code"),
    [
        (refused(400, "BadDeviceToken"), "permanent", "bad_device_token"),
        (refused(400, "DeviceTokenNotForTopic"), "permanent", "device_token_not_for_topic"),
        (refused(400, "BadTopic"), "permanent", "bad_topic"),
        (refused(400, "IdleTimeout"), "transient", "idle_timeout"),
        (refused(403, "InvalidProviderToken"), "permanent", "unauthorized"),
        (refused(403, "Forbidden"), "permanent", "unauthorized"),
        (refused(404, "BadPath"), "permanent", "bad_path"),
        (refused(405, "MethodNotAllowed"), "permanent", "method_not_allowed"),
        (refused(413, "PayloadTooLarge"), "permanent", "payload_too_large"),
        (refused(429, "TooManyRequests"), "throttled", "too_many_requests"),
        (refused(429, "TooManyProviderTokenUpdates"), "throttled", "too_many_provider_token_updates"),
        (refused(500, "InternalServerError"), "transient", "internal_server_error"),
        (refused(503, "ServiceUnavailable"), "transient", "service_unavailable"),
        (refused(503, "Shutdown"), "transient", "shutdown"),
        (Reply(502, b"<html>"), "transient", "http_502"),
        (Reply(301, b"", {"location": "/elsewhere"}), "permanent", "http_301"),
        (Reply(400, {"reason": "not a\nreason"}), "permanent", "http_400"),
        (Reply(400, {"reason": 7}), "permanent", "http_400"),
        (Reply(410, b""), "permanent", "http_410"),
        (Reply(410, {"reason": "Unregistered"}), "permanent", "unregistered"),
        (Reply(410, {"reason": "Unregistered", "timestamp": "1"}), "permanent", "unregistered"),
        (Reply(410, {"reason": "Unregistered", "timestamp": True}), "permanent", "unregistered"),
        (Reply(410, {"reason": "Unregistered", "timestamp": 10**20}), "permanent", "unregistered"),
    ],
)
def test_each_answer_has_its_class(provider: Apns, channel: ApnsChannel, reply: Reply, outcome: str, code: str) -> None:
    provider.answers = [reply]
    got = send(channel)
    assert (got.outcome, got.code) == (outcome, code)
    assert got.text.startswith(f"APNs answered {reply.status}")
    assert send(channel).outcome == "sent"
    assert len(provider.tokens) == 1


def test_retry_after_is_obeyed(provider: Apns, channel: ApnsChannel) -> None:
    provider.answers = [
        refused(429, "TooManyRequests", retry_after="3"),
        refused(503, "Shutdown", retry_after="Wed, 10 Jun 2026 12:00:07 GMT"),
    ]
    assert [send(channel).retry_after_s for _ in range(2)] == [3.0, 7.0]


def test_too_much_for_one_device_asks_no_other_to_wait(provider: Apns, channel: ApnsChannel) -> None:
    provider.answers = [
        refused(429, "TooManyRequests", retry_after="3"),
        refused(429, "TooManyProviderTokenUpdates", retry_after="3"),
    ]
    assert [send(channel).alone for _ in range(2)] == [True, False]


@pytest.mark.parametrize("after_ms", [0, 1])
def test_a_token_that_died_after_its_registration_is_dead(provider: Apns, channel: ApnsChannel, after_ms: int) -> None:
    provider.dead[DEVICE] = REGISTERED_MS + after_ms
    outcome = send(channel)
    assert (outcome.outcome, outcome.code) == ("token_dead", "unregistered")


def test_a_token_that_died_before_it_was_registered_again_lives(provider: Apns, channel: ApnsChannel) -> None:
    provider.dead[DEVICE] = REGISTERED_MS - 1
    outcome = send(channel)
    assert (outcome.outcome, outcome.code) == ("transient", "unregistered_before")
    assert "2026-05-31T23:59:59.999Z" in outcome.text
    assert "registered again at 2026-06-01T00:00:00.000Z" in outcome.text


def test_a_token_whose_registration_is_unknown_is_not_called_dead(provider: Apns, channel: ApnsChannel) -> None:
    provider.dead[DEVICE] = REGISTERED_MS
    outcome = send(channel, registered_at=None)
    assert (outcome.outcome, outcome.code) == ("permanent", "unregistered")


# --- the provider token -----------------------------------------------------------------------------------------------


def test_one_provider_token_serves_for_forty_minutes(provider: Apns, channel: ApnsChannel, clock: StillClock) -> None:
    send(channel)
    clock.go(minutes=39, seconds=59)
    send(channel)
    assert len(provider.tokens) == 1
    clock.go(seconds=1)
    assert send(channel).outcome == "sent"
    assert len(provider.tokens) == 2


def test_a_clock_that_was_set_back_makes_a_new_token(provider: Apns, channel: ApnsChannel, clock: StillClock) -> None:
    send(channel)
    clock.go(hours=-3)
    assert send(channel).outcome == "sent"


def test_a_token_grows_old_while_a_laptop_sleeps_and_while_its_wall_clock_stands(
    provider: Apns, clock: StillClock, tmp_path: Path
) -> None:
    sleepy = TwoClocks()
    channel = apns_channel(provider, sleepy, key_file(tmp_path))
    send(channel)
    sleepy.now = clock.go(minutes=41)
    send(channel)
    assert len(provider.tokens) == 2
    sleepy.awake_s += 41 * 60
    send(channel)
    assert len(provider.tokens) == 3
    channel.close()


def test_eight_threads_at_once_share_one_provider_token(provider: Apns, clock: StillClock, tmp_path: Path) -> None:
    channel = apns_channel(provider, clock, key_file(tmp_path), connections=8)
    ready = threading.Barrier(8, timeout=DEADLINE)

    def one(n: int) -> Outcome:
        ready.wait()
        return send(channel, delivery_id=f"d{n}")

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(one, range(8)))
    channel.close()
    assert {outcome.outcome for outcome in outcomes} == {"sent"}
    assert len(provider.tokens) == 1
    assert len({asked.headers["apns-id"] for asked in provider.asked}) == 8


def test_a_provider_token_that_expired_is_replaced_once(
    provider: Apns, channel: ApnsChannel, clock: StillClock
) -> None:
    send(channel)
    clock.go(seconds=1)
    provider.answers = [refused(403, "ExpiredProviderToken")]
    assert send(channel).outcome == "sent"
    assert len(provider.tokens) == 2


def test_a_token_that_is_always_expired_is_not_made_again_and_again(
    provider: Apns, channel: ApnsChannel, clock: StillClock
) -> None:
    provider.answers = [refused(403, "ExpiredProviderToken")] * 6
    send(channel, delivery_id="d0")
    clock.go(seconds=1)
    for _ in range(3):
        outcome = send(channel)
        assert (outcome.outcome, outcome.code) == ("permanent", "unauthorized")
        clock.go(seconds=1)
    assert len(provider.tokens) == 2
    clock.go(minutes=20)
    provider.answers = [refused(403, "ExpiredProviderToken")]
    assert send(channel).outcome == "sent"
    assert len(provider.tokens) == 3


def test_another_teams_key_is_unauthorized(provider: Apns, clock: StillClock, tmp_path: Path) -> None:
    channel = apns_channel(provider, clock, key_file(tmp_path, private_pem(p256_key("another team"))))
    outcome = send(channel)
    channel.close()
    assert (outcome.code, outcome.text) == ("unauthorized", "APNs answered 403: InvalidProviderToken.")


def test_a_topic_that_is_not_ours_is_refused(provider: Apns, clock: StillClock, tmp_path: Path) -> None:
    channel = apns_channel(provider, clock, key_file(tmp_path), topic="org.example.other")
    outcome = send(channel)
    channel.close()
    assert (outcome.outcome, outcome.code) == ("permanent", "topic_disallowed")


SECRET = "c2VjcmV0LWtleS1tYXRlcmlhbA"


def bad_keys() -> dict[str, bytes]:
    return {
        "nothing": b"",
        "no PEM": SECRET.encode(),
        "a broken PEM": f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n".encode(),
        "an RSA key": private_pem(rsa_key()),
        "another curve": private_pem(ec.generate_private_key(ec.SECP384R1())),
        "no text": b"\xff\x00" + SECRET.encode(),
    }


def test_a_bad_key_is_told_without_a_word_of_it(
    provider: Apns, clock: StillClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for what, pem in bad_keys().items():
        channel = apns_channel(provider, clock, key_file(tmp_path, pem))
        outcome, health = send(channel), channel.health()
        channel.close()
        assert (outcome.outcome, outcome.code, health.works) == ("permanent", "bad_credentials", False), what
        for said in (outcome.text, health.detail, caplog.text):
            assert SECRET not in said, what
    assert provider.asked == []


def test_a_key_that_is_put_there_later_is_taken(provider: Apns, clock: StillClock, tmp_path: Path) -> None:
    path = tmp_path / "AuthKey.p8"
    channel = apns_channel(provider, clock, path)
    assert send(channel).text == "The APNs key cannot be used: its file cannot be read: No such file or directory."
    key_file(tmp_path)
    assert send(channel).outcome == "sent"
    assert (channel.health().works, channel.health().detail) == (True, f"{provider.topic} through 127.0.0.1")
    channel.close()


def test_no_secret_is_in_any_text_or_log(
    provider: Apns, channel: ApnsChannel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    provider.answers = [refused(400, "BadDeviceToken"), Reply(200, b"", {"apns-id": "x" * 900})]
    outcomes = [send(channel) for _ in range(3)]
    assert len(outcomes[1].text) <= 300
    (token,) = provider.tokens
    for said in (*(outcome.text for outcome in outcomes), caplog.text, repr(channel), channel.health().detail):
        for secret in (token, token.rpartition(".")[2], DEVICE):
            assert secret not in said


# --- the connection ---------------------------------------------------------------------------------------------------


def test_the_connection_is_kept_and_replaced_when_apns_says_goodbye(
    provider: Apns, clock: StillClock, tmp_path: Path
) -> None:
    channel = apns_channel(provider, clock, key_file(tmp_path), connections=1)
    for _ in range(3):
        assert send(channel).outcome == "sent"
    assert provider.connections == 1
    provider.go_away = True
    send(channel)
    outcomes = [send(channel).outcome for _ in range(2)]
    channel.close()
    assert outcomes[-1] == "sent"
    assert provider.connections == 2


def test_a_server_that_does_not_speak_http2_is_told(clock: StillClock, tmp_path: Path) -> None:
    provider = Apns(clock)
    with h2_server(provider, certificate("127.0.0.1").server("http/1.1")):
        channel = apns_channel(provider, clock, key_file(tmp_path))
        outcome = send(channel)
        channel.close()
    assert (outcome.outcome, provider.asked) == ("transient", [])


def test_a_server_whose_certificate_is_not_trusted_gets_nothing(
    provider: Apns, clock: StillClock, tmp_path: Path
) -> None:
    settings = ApnsSettings(
        key_file=str(key_file(tmp_path)),
        key_id=provider.key_id,
        team_id=provider.team_id,
        topic=provider.topic,
        base_url=provider.base_url,
    )
    channel = ApnsChannel(settings, clock)
    outcome = send(channel)
    channel.close()
    assert (outcome.outcome, outcome.code) == ("transient", "tls_failed")
    assert provider.asked == []


def test_a_server_that_hangs_is_left_at_the_deadline(provider: Apns, clock: StillClock, tmp_path: Path) -> None:
    channel = apns_channel(provider, clock, key_file(tmp_path), deadline_s=0.5)
    provider.hold()
    outcome = send(channel)
    channel.close()
    assert (outcome.outcome, outcome.code) == ("transient", "timeout")


def test_close_ends_a_send_that_hangs(provider: Apns, channel: ApnsChannel) -> None:
    provider.hold()
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(send, channel)
        assert provider.arrived.wait(DEADLINE)
        channel.close()
        assert hanging.result(5.0).code == "stopping"
    channel.close()
    assert send(channel).code == "stopping"
