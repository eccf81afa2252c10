"""Firebase Cloud Messaging, against a token service and an FCM that check what they are sent."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.delivery.net.http_client import HttpClient
from flashflow.backend.delivery.push.fcm import FcmChannel
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome
from flashflow.backend.settings.model import FcmSettings
from tests.support.fixed_clock import StillClock
from tests.support.notices import notice
from tests.support.provider_servers import (
    DEADLINE,
    Google,
    Provider,
    Reply,
    TwoClocks,
    certificate,
    google,
    http_server,
    p256_key,
    private_pem,
    rsa_key,
)

DEVICE = "dEvIcE:APA91b-registration_token"


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def provider(clock: StillClock) -> Iterator[Google]:
    with google(clock) as running:
        yield running


@pytest.fixture
def channel(provider: Google, clock: StillClock) -> Iterator[FcmChannel]:
    made = fcm_channel(provider, clock)
    yield made
    made.close()


def fcm_channel(
    provider: Google, clock: StillClock, credentials: str | None = None, *, client: HttpClient | None = None
) -> FcmChannel:
    settings = FcmSettings(credentials=credentials or provider.credentials(), base_url=f"{provider.base_url}/")
    return FcmChannel(settings, clock, client=client)


def device(*texts: str, **changes: Any) -> DeliveryMessage:
    return notice(*texts, **{"target": DEVICE, "platform": "android", **changes})


def send(channel: FcmChannel, *texts: str, **changes: Any) -> Outcome:
    return channel.send(device(*texts, **changes))


def sent(provider: Google, channel: FcmChannel, *texts: str, **changes: Any) -> dict[str, Any]:
    """What FCM took."""
    outcome = send(channel, *texts, **changes)
    assert outcome.outcome == "sent", outcome
    return provider.messages[-1]


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_a_notice_is_accepted_under_the_name_fcm_gave_it(provider: Google, channel: FcmChannel) -> None:
    outcome = send(channel, "Build finished", "All 312 tests passed\nin 4 min")
    assert (outcome.outcome, outcome.code) == ("sent", "accepted")
    assert outcome.text == f"accepted as projects/{provider.project}/messages/0:1"
    assert provider.messages == [
        {
            "token": DEVICE,
            "notification": {"title": "Build finished", "body": "All 312 tests passed\nin 4 min"},
            "data": {"notification_id": "n1"},
            "android": {
                "priority": "NORMAL",
                "notification": {"tag": "n1", "notification_priority": "PRIORITY_DEFAULT"},
            },
        }
    ]


def test_priority_expiry_and_collapsing_are_told_to_android(
    provider: Google, channel: FcmChannel, clock: StillClock
) -> None:
    now = clock.now_ms()
    android = sent(provider, channel, priority="urgent", collapse_key="build", expires_at=now + 90_500)["android"]
    assert (android["priority"], android["ttl"], android["collapse_key"]) == ("HIGH", "90s", "n1")
    assert android["notification"] == {"tag": "n1", "notification_priority": "PRIORITY_MAX"}
    assert sent(provider, channel, expires_at=now + 10**12)["android"]["ttl"] == "2419200s"
    assert sent(provider, channel, expires_at=now - 1)["android"]["ttl"] == "0s"
    low = sent(provider, channel, priority="low")["android"]
    assert (low["priority"], low["notification"]["notification_priority"]) == ("NORMAL", "PRIORITY_LOW")


def test_an_iphone_through_fcm_is_told_in_apples_words(
    provider: Google, channel: FcmChannel, clock: StillClock
) -> None:
    message = sent(provider, channel, platform="ios", priority="urgent", expires_at=clock.now_ms() + 60_000)
    assert "android" not in message
    expiration = str(clock.now_ms() // 1000 + 60)
    assert message["apns"] == {
        "headers": {"apns-priority": "10", "apns-collapse-id": "n1", "apns-expiration": expiration},
        "payload": {"aps": {"thread-id": "ci", "interruption-level": "time-sensitive", "sound": "default"}},
    }


@pytest.mark.parametrize("platform", ["web", "desktop", "toaster"])
def test_other_platforms_are_not_for_fcm(provider: Google, channel: FcmChannel, platform: str) -> None:
    assert send(channel, platform=platform).code == "unsupported_platform"
    assert provider.asked == []


@pytest.mark.parametrize("token", [None, "", "a b", "a\nb", "é", "x" * 2001])
def test_a_token_that_cannot_be_one_is_refused_unsent(provider: Google, channel: FcmChannel, token: str | None) -> None:
    outcome = send(channel, target=token)
    assert (outcome.outcome, outcome.code) == ("permanent", "bad_token")
    assert provider.asked == []


def test_data_become_strings_and_reserved_keys_are_left_out_and_told(provider: Google, channel: FcmChannel) -> None:
    reserved = ["from", "message_type", "collapse_key", "google", "google.sent", "gcm", "gcm.n.e", "notification_id"]
    data = {"order": 7, "paid": True, "note": None, "who": "Ada", "lines": [{"n": 1.5}], "fromage": "brie"}
    outcome = send(channel, data=data | dict.fromkeys(reserved, "x"))
    assert provider.messages[0]["data"] == {
        "order": "7",
        "paid": "true",
        "note": "null",
        "who": "Ada",
        "lines": '[{"n":1.5}]',
        "fromage": "brie",
        "notification_id": "n1",
    }
    assert outcome.text.endswith(f"left out of the data, because the name is reserved: {', '.join(reserved)}")


def test_data_that_json_cannot_carry_do_not_hold_up_the_notice(provider: Google, channel: FcmChannel) -> None:
    outcome = send(channel, data={"half": "\ud800"})
    assert (outcome.outcome, provider.messages[0]["data"]) == ("sent", {"notification_id": "n1"})
    assert "the data was left out" in outcome.text


def size(provider: Google) -> int:
    """Bytes of the last message as they went over the wire."""
    body = provider.asked[-1].body
    return len(body) - len(b'{"message":}')


@pytest.mark.parametrize("letter", ["x", "ж", "😀", '"', "\\", "你"])
def test_a_long_message_is_cut_to_the_limit_and_no_further(provider: Google, channel: FcmChannel, letter: str) -> None:
    outcome = send(channel, "Title", letter * 10_000, data={"order": "7"})
    assert outcome.text.endswith("; the message was cut")
    assert 4090 <= size(provider) <= 4096
    message = provider.messages[0]
    assert message["data"]["order"] == "7"
    body = message["notification"]["body"]
    assert body.strip("…") == letter * (len(body) - 1)


def test_data_that_would_crowd_out_the_message_are_left_out(provider: Google, channel: FcmChannel) -> None:
    outcome = send(channel, "Title", "word " * 100, data={"big": "x" * 3_900})
    assert outcome.text.endswith("; the data was left out")
    assert provider.messages[0]["notification"]["body"] == ("word " * 100).strip()
    assert provider.messages[0]["data"] == {"notification_id": "n1"}
    outcome = send(channel, "Title", "word " * 2_000, data={"big": "x" * 3_900})
    assert outcome.text.endswith("; the message was cut and the data was left out")
    assert size(provider) <= 4096


def test_a_message_of_nothing_but_control_characters_costs_no_data(provider: Google, channel: FcmChannel) -> None:
    assert ";" not in send(channel, "Title", "\x1b", data={"order": "7"}).text
    assert provider.messages[0]["data"]["order"] == "7"


def test_large_data_stay_when_the_shown_part_of_the_message_fits(provider: Google, channel: FcmChannel) -> None:
    outcome = send(channel, "Title", "x" * 10_000, data={"big": "y" * 3_000})
    assert outcome.text.endswith("; the message was cut")
    assert provider.messages[0]["data"]["big"] == "y" * 3_000
    assert size(provider) <= 4096


def test_where_only_the_title_fits_it_is_cut_and_sent(provider: Google, channel: FcmChannel) -> None:
    outcome = send(channel, "😀" * 300, "message", target="t" * 2000, app="a" * 64, notification_id="n" * 800)
    assert outcome.text.endswith("; only the title fitted")
    assert size(provider) <= 4096
    assert send(channel, notification_id="n" * 4_000).code == "too_large"


@pytest.mark.parametrize(
    "text", ["--version", "It's", "<b>x</b> & <img>", "%s %n {x.__class__}", "\x00\x1b[31m", "\ud83d", "a\u2028b"]
)
def test_hostile_texts_arrive_as_texts(provider: Google, channel: FcmChannel, text: str) -> None:
    shown = sent(provider, channel, f"T {text}", f"M {text}")["notification"]
    assert shown["title"].startswith("T")
    assert "\x00" not in json.dumps(shown, ensure_ascii=False)


# --- what FCM answers -------------------------------------------------------------------------------------------------

GONE = Google.error(404, "NOT_FOUND", "Requested entity was not found.", "UNREGISTERED")
BAD_TOKEN = Reply(
    400,
    {
        "error": {
            "code": 400,
            "message": "The registration token is not a valid FCM registration token",
            "status": "INVALID_ARGUMENT",
            "details": [
                {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "INVALID_ARGUMENT"},
                {
                    "@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": [{"field": "message.token", "description": "Invalid registration token"}],
                },
            ],
        }
    },
)
OTHER_DETAIL = Reply(
    404,
    {"error": {"status": "NOT_FOUND", "message": "No", "details": [{"@type": "other", "errorCode": "UNREGISTERED"}]}},
)


@pytest.mark.parametrize(
    ("reply", "outcome", "code"),
    [
        (GONE, "token_dead", "unregistered"),
        (OTHER_DETAIL, "permanent", "not_found"),
        (Google.error(404, "NOT_FOUND", "The project is not there."), "permanent", "not_found"),
        (Reply(404, b"<html>"), "permanent", "http_404"),
        (BAD_TOKEN, "permanent", "invalid_argument"),
        (Google.error(400, "INVALID_ARGUMENT", "Invalid value"), "permanent", "invalid_argument"),
        (Google.error(400, "INVALID_ARGUMENT", "No", "UNREGISTERED"), "permanent", "unregistered"),
        (Google.error(401, "UNAUTHENTICATED", "No", "THIRD_PARTY_AUTH_ERROR"), "permanent", "third_party_auth_error"),
        (Google.error(403, "PERMISSION_DENIED", "No", "SENDER_ID_MISMATCH"), "permanent", "sender_id_mismatch"),
        (Google.error(403, "PERMISSION_DENIED", "No"), "permanent", "permission_denied"),
        (Google.error(429, "RESOURCE_EXHAUSTED", "Slow down", "QUOTA_EXCEEDED"), "throttled", "quota_exceeded"),
        (Reply(429), "throttled", "http_429"),
        (Google.error(500, "INTERNAL", "Oh", "INTERNAL"), "transient", "internal"),
        (Google.error(503, "UNAVAILABLE", "Later", "UNAVAILABLE"), "transient", "unavailable"),
        (Reply(502, b"<!DOCTYPE html>"), "transient", "http_502"),
        (Reply(307, b"", {"Location": "/other"}), "permanent", "http_307"),
        (Reply(400, {"error": "no"}), "permanent", "http_400"),
        (Reply(400, {"error": {"status": 7, "message": [], "details": {"a": 1}}}), "permanent", "http_400"),
        (Reply(400, {"error": {"status": "lower case\n", "details": [1, None]}}), "permanent", "http_400"),
        (Reply(200, b"<html>Welcome</html>"), "transient", "bad_answer"),
        (Reply(200, {"name": ""}), "transient", "bad_answer"),
    ],
)
def test_each_answer_has_its_class(
    provider: Google, channel: FcmChannel, reply: Reply, outcome: str, code: str
) -> None:
    provider.answers = [reply]
    got = send(channel)
    assert (got.outcome, got.code) == (outcome, code)
    assert got.text
    assert send(channel).outcome == "sent"
    assert provider.token_requests() == 1


def test_retry_after_is_obeyed_and_a_quota_waits_a_minute_without_one(provider: Google, channel: FcmChannel) -> None:
    provider.answers = [
        Google.error(503, "UNAVAILABLE", "Later", "UNAVAILABLE", Retry_After="33"),
        Google.error(429, "RESOURCE_EXHAUSTED", "Slow", "QUOTA_EXCEEDED", Retry_After="5"),
        Google.error(429, "RESOURCE_EXHAUSTED", "Slow", "QUOTA_EXCEEDED"),
        Google.error(503, "UNAVAILABLE", "Later", "UNAVAILABLE"),
    ]
    assert [send(channel).retry_after_s for _ in range(4)] == [33.0, 5.0, 60.0, None]


# --- the access token -------------------------------------------------------------------------------------------------


def test_one_token_serves_until_five_minutes_before_its_end(
    provider: Google, channel: FcmChannel, clock: StillClock
) -> None:
    send(channel)
    clock.go(seconds=3599 - 301)
    send(channel)
    assert provider.token_requests() == 1
    clock.go(seconds=2)
    assert send(channel).outcome == "sent"
    assert provider.token_requests() == 2


def test_a_clock_that_was_set_back_asks_again(provider: Google, channel: FcmChannel, clock: StillClock) -> None:
    send(channel)
    clock.go(hours=-2)
    assert send(channel).outcome == "sent"
    assert provider.token_requests() == 2


def test_a_token_grows_old_while_a_laptop_sleeps_and_while_its_wall_clock_stands(
    provider: Google, clock: StillClock
) -> None:
    sleepy = TwoClocks()
    channel = fcm_channel(provider, sleepy)
    send(channel)
    sleepy.now = clock.go(minutes=56)
    send(channel)
    assert provider.token_requests() == 2
    sleepy.awake_s += 56 * 60
    send(channel)
    assert provider.token_requests() == 3
    channel.close()


@pytest.mark.parametrize(("lasts", "good_for_s"), [(60, 30), ("soon", 3300), (-1, 3300), (True, 3300), (10**9, 3300)])
def test_an_odd_lifetime_is_made_sense_of(
    provider: Google, channel: FcmChannel, clock: StillClock, lasts: object, good_for_s: int
) -> None:
    provider.lasts_s = lasts
    send(channel)
    clock.go(seconds=good_for_s - 1)
    send(channel)
    assert provider.token_requests() == 1
    clock.go(seconds=1)
    send(channel)
    assert provider.token_requests() == 2


def test_eight_threads_at_once_ask_for_one_token(provider: Google, clock: StillClock) -> None:
    channel = fcm_channel(provider, clock, client=HttpClient(connections=8))
    provider.hold()
    ready = threading.Barrier(9, timeout=DEADLINE)

    def one(_: int) -> Outcome:
        ready.wait()
        return send(channel)

    with ThreadPoolExecutor(8) as pool:
        sending = [pool.submit(one, n) for n in range(8)]
        ready.wait()
        assert provider.arrived.wait(DEADLINE)
        provider.release()
        outcomes = [each.result(DEADLINE) for each in sending]
    channel.close()
    assert {outcome.outcome for outcome in outcomes} == {"sent"}
    assert provider.token_requests() == 1


def test_a_token_that_was_revoked_is_replaced_once(provider: Google, channel: FcmChannel) -> None:
    send(channel)
    provider.revoke()
    assert send(channel).outcome == "sent"
    assert provider.token_requests() == 2
    assert len(provider.messages) == 2


def test_a_token_that_is_never_good_enough_is_unauthorized(provider: Google, channel: FcmChannel) -> None:
    provider.answers = [Google.error(401, "UNAUTHENTICATED", "Request had invalid credentials.")] * 2
    outcome = send(channel)
    assert (outcome.outcome, outcome.code, outcome.text) == (
        "permanent",
        "unauthorized",
        "Request had invalid credentials.",
    )
    assert provider.token_requests() == 2
    assert provider.messages == []


@pytest.mark.parametrize(
    ("reply", "outcome", "code"),
    [
        (
            Reply(400, {"error": "invalid_grant", "error_description": "Invalid JWT"}),
            "permanent",
            "credentials_refused",
        ),
        (Reply(401, {"error": "invalid_client"}), "permanent", "credentials_refused"),
        (Reply(403, b"<html>"), "permanent", "credentials_refused"),
        (Reply(404), "permanent", "token_http_404"),
        (Reply(302, b"", {"Location": "/"}), "permanent", "token_http_302"),
        (Reply(429, {"error": "slow_down"}), "throttled", "token_http_429"),
        (Reply(500), "transient", "token_http_500"),
        (Reply(503, b"", {"Retry-After": "4"}), "transient", "token_http_503"),
        (Reply(200, b"<html>"), "transient", "token_bad_answer"),
        (Reply(200, {"access_token": 7}), "transient", "token_bad_answer"),
        (Reply(200, {"access_token": "a\r\nb"}), "transient", "token_bad_answer"),
        (Reply(200, {"access_token": " "}), "transient", "token_bad_answer"),
    ],
)
def test_each_answer_of_the_token_service_has_its_class(
    provider: Google, channel: FcmChannel, reply: Reply, outcome: str, code: str
) -> None:
    provider.token_answers = [reply]
    got = send(channel)
    assert (got.outcome, got.code) == (outcome, code)
    assert got.retry_after_s == (4.0 if code == "token_http_503" else None)
    assert send(channel).outcome == "sent"


def test_a_key_that_google_does_not_know_is_refused_without_the_assertion(provider: Google, clock: StillClock) -> None:
    other = private_pem(rsa_key("another")).decode()
    channel = fcm_channel(provider, clock, provider.credentials(private_key=other))
    outcome = send(channel)
    channel.close()
    assert (outcome.outcome, outcome.code) == ("permanent", "credentials_refused")
    assert outcome.text == "Google's token service answered 400: Invalid JWT Signature: […]"


def test_a_token_service_that_is_not_there_is_unreachable(provider: Google, clock: StillClock) -> None:
    channel = fcm_channel(provider, clock, provider.credentials(token_uri="http://127.0.0.1:9/token"))
    outcome = send(channel)
    channel.close()
    assert (outcome.outcome, outcome.code) == ("transient", "unreachable")


def test_those_who_wait_for_a_token_share_its_failure_too(provider: Google, clock: StillClock) -> None:
    channel = fcm_channel(provider, clock, client=HttpClient(connections=4, deadline_s=0.3))
    provider.hold()
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: send(channel), range(4)))
    channel.close()
    assert {(outcome.outcome, outcome.code) for outcome in outcomes} == {("transient", "timeout")}
    assert provider.messages == []


# --- the credentials --------------------------------------------------------------------------------------------------


def test_credentials_are_read_from_a_file_too(provider: Google, clock: StillClock, tmp_path: Path) -> None:
    path = tmp_path / "service-account.json"
    channel = fcm_channel(provider, clock, str(path))
    assert send(channel).code == "bad_credentials"
    assert not channel.health().works
    path.write_text(provider.credentials())
    assert send(channel).outcome == "sent"
    assert (channel.health().works, channel.health().detail) == (True, f"Firebase project {provider.project}")
    channel.close()


SECRET = "c2VjcmV0LWtleS1tYXRlcmlhbA"


def test_a_key_that_is_renewed_under_the_same_name_is_taken_up(
    provider: Google, clock: StillClock, tmp_path: Path
) -> None:
    path = tmp_path / "account.json"
    revoked = private_pem(rsa_key("revoked")).decode()
    path.write_text(provider.credentials(private_key=revoked))
    channel = fcm_channel(provider, clock, str(path))
    assert send(channel).code == "credentials_refused"
    path.write_text(provider.credentials())
    assert send(channel).code == "accepted"
    channel.close()


@pytest.mark.parametrize("how", ["gone", "half written"])
def test_a_file_that_cannot_be_read_meanwhile_changes_nothing(
    provider: Google, clock: StillClock, tmp_path: Path, how: str
) -> None:
    path = tmp_path / "account.json"
    path.write_text(provider.credentials())
    channel = fcm_channel(provider, clock, str(path))
    assert send(channel).code == "accepted"
    if how == "gone":
        path.unlink()
    else:
        path.write_text(provider.credentials()[:100])
    assert send(channel).code == "accepted"
    assert channel.health().works
    channel.close()


def bad_credentials(provider: Google) -> dict[str, str]:
    ec_key = private_pem(p256_key()).decode()
    return {
        "no JSON": f"{{{SECRET}",
        "no path": f"\x00{SECRET}",
        "a path too long": SECRET * 400,
        "a folder": os.sep,
        "no service account": json.dumps({"installed": {"client_secret": SECRET}}),
        "a number for a key": provider.credentials(private_key=7, client_email=SECRET),
        "no key": provider.credentials(private_key=f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----"),
        "a key with letters that no key has": provider.credentials(private_key=f"é{SECRET}"),
        "a key of another kind": provider.credentials(private_key=ec_key),
        "no project": provider.credentials(project_id=None, private_key=SECRET),
    }


def test_bad_credentials_are_told_without_a_word_of_them(
    provider: Google, clock: StillClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for what, given in bad_credentials(provider).items():
        channel = fcm_channel(provider, clock, given)
        outcome, health = send(channel), channel.health()
        channel.close()
        assert (outcome.outcome, outcome.code, health.works) == ("permanent", "bad_credentials", False), what
        for said in (outcome.text, health.detail, caplog.text):
            assert SECRET not in said, what
    assert provider.asked == []


def test_no_secret_is_in_any_text_or_log(
    provider: Google, channel: FcmChannel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    send(channel)
    bearer = provider.asked[-1].headers["authorization"].removeprefix("Bearer ")
    provider.answers = [
        Google.error(400, "INVALID_ARGUMENT", f"bad {DEVICE} for {bearer}"),
        Reply(200, {"name": "projects/p/messages/1"}),
    ]
    outcome = send(channel)
    assert outcome.text == "bad […] for […]"
    key = private_pem(rsa_key()).decode().splitlines()[1]
    for said in (outcome.text, caplog.text, repr(channel), channel.health().detail):
        for secret in (bearer, DEVICE, key):
            assert secret not in said


# --- the connection ---------------------------------------------------------------------------------------------------


def test_a_server_that_hangs_is_left_at_the_deadline(provider: Google, clock: StillClock) -> None:
    channel = fcm_channel(provider, clock, client=HttpClient(deadline_s=0.3))
    send(channel)
    provider.hold()
    outcome = send(channel)
    channel.close()
    assert (outcome.outcome, outcome.code) == ("transient", "timeout")


@pytest.mark.parametrize("first", [False, True])
def test_close_ends_a_send_that_hangs(provider: Google, channel: FcmChannel, first: bool) -> None:
    if not first:
        send(channel)  # then it hangs at FCM, not at the token service
    provider.hold()
    with ThreadPoolExecutor(2) as pool:
        hanging = [pool.submit(send, channel) for _ in range(2)]
        assert provider.arrived.wait(DEADLINE)
        channel.close()
        assert [each.result(5.0).code for each in hanging] == ["stopping"] * 2
    channel.close()
    assert send(channel).code == "stopping"


def test_a_server_whose_certificate_is_not_trusted_gets_no_token(provider: Google, clock: StillClock) -> None:
    impostor = Provider()
    with http_server(impostor, certificate("127.0.0.1").server()):
        settings = FcmSettings(credentials=provider.credentials(), base_url=impostor.base_url)
        channel = FcmChannel(settings, clock)
        outcome = channel.send(device())
        channel.close()
    assert (outcome.outcome, outcome.code) == ("transient", "tls_failed")
    assert impostor.asked == []
