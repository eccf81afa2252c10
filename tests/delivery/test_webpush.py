"""Web Push against a push service on loopback over TLS; the test plays the browser and reads what arrived."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashflow.backend.delivery.net.http_client import HttpClient
from flashflow.backend.delivery.net.ssrf_guard import SsrfGuard
from flashflow.backend.delivery.push.vapid import VapidKeys
from flashflow.backend.delivery.push.webpush import (
    LARGEST_CONTENT,
    Subscription,
    WebPushChannel,
    encrypt,
    payload,
    read_subscription,
)
from flashflow.backend.domain.channel import Permanent, Transient
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Link, Outcome
from flashflow.backend.settings.model import WebPushSettings
from tests.support.fixed_clock import StillClock
from tests.support.notices import notice
from tests.support.push_service import NAME, Browser, Certificate, PushService, Reply, b64, push_service, unb64
from tests.support.server_process import ROOT

DEADLINE = 15.0
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine is shared
SUBJECT = "mailto:owner@example.org"
PATH = "/wpush/v2/gAAAAABsecretOfThisBrowser?k=moreSecret123"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def service(certificate: Certificate) -> Iterator[PushService]:
    with push_service(certificate) as running:
        yield running


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def key_path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "webpush-vapid.pem"


@contextmanager
def channel(
    certificate: Certificate, clock: StillClock, key_path: Path, ssrf_guard: SsrfGuard, **options: Any
) -> Iterator[WebPushChannel]:
    client = HttpClient(resolver=ssrf_guard, verify=certificate.for_client(), deadline_s=DEADLINE, **options)
    made = WebPushChannel(
        WebPushSettings(subject=SUBJECT), clock, key_path=key_path, ssrf_guard=ssrf_guard, client=client
    )
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def sending(
    certificate: Certificate, service: PushService, clock: StillClock, key_path: Path
) -> Iterator[WebPushChannel]:
    """A channel whose owner allows the service on loopback."""
    with channel(certificate, clock, key_path, SsrfGuard([service.authority])) as made:
        yield made


@pytest.fixture
def browser() -> Browser:
    return Browser()


@pytest.fixture
def target(browser: Browser, service: PushService) -> str:
    return browser.subscription(service.origin + PATH)


# --- what arrives -----------------------------------------------------------------------------------------------------


def test_a_notice_arrives_encrypted_for_this_browser_alone(
    sending: WebPushChannel, service: PushService, browser: Browser, target: str
) -> None:
    given = notice(
        "Build finished",
        "All 312 tests passed\nin 4 min",
        target=target,
        platform="web",
        priority="high",
        notification_type="ci.build",
        data={"run": 7, "nested": {"über": ["🚀", None, 1.5]}},
        actions=(Link("Open", "https://ci.example.com/7"), Link("Log", "https://ci.example.com/7/log")),
    )
    outcome = sending.send(given)
    assert (outcome.outcome, outcome.code) == ("sent", "accepted")
    [push] = service.received
    assert push.path == PATH
    assert browser.message(push.body) == {
        "title": "Build finished",
        "message": "All 312 tests passed\nin 4 min",
        "notification_id": "n1",
        "type": "ci.build",
        "app": "ci",
        "priority": "high",
        "tag": "n1",
        "count": 1,
        "url": "https://ci.example.com/7",
        "actions": [
            {"label": "Open", "url": "https://ci.example.com/7"},
            {"label": "Log", "url": "https://ci.example.com/7/log"},
        ],
        "data": {"run": 7, "nested": {"über": ["🚀", None, 1.5]}},
    }
    assert b"Build" not in push.body


def test_no_two_pushes_share_a_salt_or_a_key(
    sending: WebPushChannel, service: PushService, target: str, browser: Browser
) -> None:
    for _ in range(4):
        sending.send(notice(target=target))
    assert len({push.body[:16] for push in service.received}) == 4
    assert len({push.body[21:86] for push in service.received}) == 4


def test_another_browser_cannot_read_it(sending: WebPushChannel, service: PushService, target: str) -> None:
    sending.send(notice(target=target))
    with pytest.raises(InvalidTag):
        Browser().read(service.received[0].body)


def test_the_worked_example_of_rfc_8291_comes_out_to_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ec.derive_private_key(
        int.from_bytes(unb64("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"), "big"), ec.SECP256R1()
    )
    theirs = ec.derive_private_key(
        int.from_bytes(unb64("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"), "big"), ec.SECP256R1()
    )
    browser = Browser(theirs, unb64("BTBZMqHH6r4Tts7J_aSIgg"))
    p256dh = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
    assert b64(browser.point) == p256dh
    to = Subscription(endpoint="https://x", origin="https://x", p256dh=unb64(p256dh), auth=browser.auth)
    monkeypatch.setattr("flashflow.backend.delivery.push.webpush.PADDED_TO", 1)
    body = encrypt(b"When I grow up, I want to be a watermelon", to, salt=unb64("DGv6ra1nlYgDCS1FRnbzlw"), sender=ours)
    assert b64(body) == (
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6P"
        "Bru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )
    assert browser.read(body)[0] == b"When I grow up, I want to be a watermelon"


@PATIENT
@given(st.binary(max_size=LARGEST_CONTENT))
def test_every_content_comes_back_and_its_length_is_hidden_in_steps(content: bytes) -> None:
    browser = Browser()
    to = Subscription(endpoint="https://x", origin="https://x", p256dh=browser.point, auth=browser.auth)
    body = encrypt(content, to, salt=bytes(16), sender=ec.generate_private_key(ec.SECP256R1()))
    assert len(body) <= 4096
    read, padded = browser.read(body)
    assert read == content
    assert padded % 256 == 0 or padded == LARGEST_CONTENT + 1


def test_the_largest_content_fills_the_largest_body_exactly() -> None:
    browser = Browser()
    to = Subscription(endpoint="https://x", origin="https://x", p256dh=browser.point, auth=browser.auth)
    body = encrypt(b"x" * LARGEST_CONTENT, to, salt=bytes(16), sender=ec.generate_private_key(ec.SECP256R1()))
    assert len(body) == 4096


# --- the payload ------------------------------------------------------------------------------------------------------

TEXT = st.text(alphabet=st.characters(exclude_categories=()))
LONG = st.builds(lambda text, times: text * times, TEXT, st.integers(0, 2_000))


def long_notice(**changes: Any) -> DeliveryMessage:
    links = tuple(Link("Open", f"https://ci.example.com/{number}/" + "x" * 900) for number in range(3))
    return notice(**{"message": "m" * 9_000, "actions": links, "data": {"k": "d" * 9_000}, **changes})


def test_what_is_too_much_loses_its_data_first() -> None:
    links = (Link("Open", "https://ci.example.com/"),)
    read = json.loads(payload(long_notice(message="m" * 2_000, actions=links)))
    assert read["truncated"] is True
    assert (read["message"], len(read["actions"]), "data" in read) == ("m" * 2_000, 1, False)


def test_a_long_message_is_cut_while_the_buttons_stay() -> None:
    links = (Link("Open", "https://ci.example.com/"),)
    raw = payload(long_notice(actions=links, data=None))
    read = json.loads(raw)
    assert read["message"].strip("m") == "…"
    assert read["url"] == read["actions"][0]["url"] == "https://ci.example.com/"
    assert LARGEST_CONTENT - 3 <= len(raw) <= LARGEST_CONTENT


def test_buttons_go_before_the_heart_of_the_message() -> None:
    links = tuple(Link("Open", "https://ci.example.com/" + "x" * 820) for _ in range(3))
    assert 0 < LARGEST_CONTENT - len(payload(long_notice(message="", actions=links, data=None))) < 500
    read = json.loads(payload(long_notice(actions=links)))
    assert "actions" not in read
    assert read["url"] == links[0].url
    assert len(read["message"]) > 1_000


def test_a_link_goes_before_the_heart_of_the_message() -> None:
    links = (Link("Open", "https://ci.example.com/" + "x" * 3_900),)
    read = json.loads(payload(long_notice(actions=links)))
    assert "url" not in read
    assert len(read["message"]) > 3_000


def test_what_fits_is_never_cut() -> None:
    room = LARGEST_CONTENT - len(payload(notice(message="")))
    for length in (room, room - 1):
        assert json.loads(payload(notice(message="x" * length)))["message"] == "x" * length
    assert json.loads(payload(notice(message="x" * (room + 1))))["truncated"] is True


@PATIENT
@given(
    title=LONG, message=LONG, kind=TEXT, key=st.none() | TEXT, url=LONG, data=st.none() | st.dictionaries(TEXT, LONG)
)
def test_no_notice_makes_a_payload_that_is_too_large_or_not_json(
    title: str, message: str, kind: str, key: str | None, url: str, data: dict[str, str] | None
) -> None:
    given = notice(
        title, message, notification_type=kind, collapse_key=key, data=data, actions=(Link("Open", url), Link("", url))
    )
    raw = payload(given)
    assert len(raw) <= LARGEST_CONTENT
    read = json.loads(raw)
    assert read["notification_id"] == "n1"
    assert read["title"] or not title.strip()


@pytest.mark.parametrize(
    "data",
    [{"x": object()}, {"x": "\ud83d"}, {1: {2, 3}}, {"x": 2**70}],
    ids=["an object", "half a character", "a set", "too large"],
)
def test_data_that_is_not_json_is_left_out_and_the_notice_goes_on(data: dict[str, Any]) -> None:
    read = json.loads(payload(notice(data=data)))
    assert ("data" in read) != read.get("truncated", False)
    assert read["title"] == "Build finished"


def test_names_that_leave_no_room_at_all_are_refused() -> None:
    with pytest.raises(Permanent) as caught:
        payload(notice(notification_type="t" * 5_000))
    assert caught.value.code == "too_large"


def test_control_characters_and_half_surrogates_do_not_travel() -> None:
    read = json.loads(payload(notice("a\nb\x00\x1b[0m", "one\r\ntwo\x07\ud83d")))
    assert (read["title"], read["message"]) == ("a b[0m", "one\ntwo\ufffd")
    assert json.loads(payload(notice("\n\x00")))["title"] == "ci"


def test_the_collapse_key_is_the_tag_and_the_count_comes_with_it() -> None:
    read = json.loads(payload(notice(collapse_key="build-7", count=3)))
    assert (read["tag"], read["count"]) == ("build-7", 3)


# --- the headers ------------------------------------------------------------------------------------------------------


def headers_of(sending: WebPushChannel, service: PushService, given: DeliveryMessage) -> dict[str, str]:
    assert sending.send(given).code == "accepted"
    return dict(service.received[-1].headers)


@pytest.mark.parametrize(
    ("priority", "urgency"),
    [("low", "low"), ("normal", "normal"), ("high", "high"), ("urgent", "high"), ("x", "normal")],
)
def test_the_priority_decides_the_urgency(
    sending: WebPushChannel, service: PushService, target: str, priority: str, urgency: str
) -> None:
    headers = headers_of(sending, service, notice(target=target, priority=priority))
    assert headers["urgency"] == urgency
    assert headers["content-encoding"] == "aes128gcm"
    assert headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("expires", "ttl"),
    [
        (None, 2_419_200),
        ({"days": 90}, 2_419_200),
        ({"minutes": 5}, 300),
        ({"milliseconds": 1_999}, 1),
        ({"seconds": 0.5}, 0),
    ],
    ids=repr,
)
def test_the_service_keeps_a_notice_until_it_expires_and_28_days_at_most(
    sending: WebPushChannel,
    service: PushService,
    target: str,
    clock: StillClock,
    expires: dict[str, float] | None,
    ttl: int,
) -> None:
    at = None if expires is None else round(clock.at(**expires).timestamp() * 1000)
    assert headers_of(sending, service, notice(target=target, expires_at=at))["ttl"] == str(ttl)


def test_an_expired_notice_is_not_sent(
    sending: WebPushChannel, service: PushService, target: str, clock: StillClock
) -> None:
    outcome = sending.send(notice(target=target, expires_at=clock.now_ms()))
    assert (outcome.outcome, outcome.code) == ("permanent", "expired")
    assert service.received == []


def test_updates_in_place_share_a_topic_and_nothing_else_has_one(
    sending: WebPushChannel, service: PushService, target: str
) -> None:
    topics = [
        headers_of(sending, service, notice(target=target, notification_id=number, collapse_key=key)).get("topic", "")
        for number, key in [("a", "k"), ("a", "k"), ("b", "k"), ("c", None)]
    ]
    assert topics[0] == topics[1] != topics[2]
    assert topics[3] == ""
    for topic in topics[:3]:
        assert len(topic) == 32
        assert set(topic) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert topics[0] != b64(hashlib.sha256(b"a").digest())[:32]


def claims_of(header: str, origin: str, clock: StillClock) -> dict[str, Any]:
    """What the service checks: the signature with the very key that comes along, for whom, and until when."""
    token, key = header.removeprefix("vapid t=").split(", k=")
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), unb64(key))
    options: Any = {"verify_exp": False}
    claims: dict[str, Any] = jwt.decode(token, public, algorithms=["ES256"], audience=origin, options=options)
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "JWT"}
    assert 0 < claims["exp"] - clock.now_ms() / 1000 <= 12 * 3600
    return claims


def test_the_service_can_tell_who_sends_and_how_to_reach_the_owner(
    sending: WebPushChannel, service: PushService, target: str, clock: StillClock
) -> None:
    header = headers_of(sending, service, notice(target=target))["authorization"]
    claims = claims_of(header, service.origin, clock)
    assert claims["sub"] == SUBJECT
    assert header.endswith(f", k={sending.public_key}")
    assert len(unb64(sending.public_key)) == 65
    with pytest.raises(jwt.InvalidAudienceError):
        claims_of(header, "https://push.example.org", clock)


def test_a_signature_is_used_again_until_near_its_end(
    sending: WebPushChannel, service: PushService, target: str, clock: StillClock
) -> None:
    seen = []
    for hours in (0, 10.9, 0.2, -24):
        clock.go(hours=hours)
        seen.append(headers_of(sending, service, notice(target=target))["authorization"])
        claims_of(seen[-1], service.origin, clock)
    assert seen[0] == seen[1] != seen[2] != seen[3]


# --- what the service answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_only_what_the_service_took_is_called_sent(
    sending: WebPushChannel, service: PushService, target: str, status: int
) -> None:
    service.replies.append(Reply(status))
    outcome = sending.send(notice(target=target))
    assert (outcome.outcome, outcome.code) == ("sent", "accepted")


@pytest.mark.parametrize(
    ("status", "outcome", "code"),
    [
        (206, "permanent", "http_206"),
        (301, "permanent", "redirected"),
        (302, "permanent", "redirected"),
        (304, "permanent", "redirected"),
        (307, "permanent", "redirected"),
        (400, "permanent", "http_400"),
        (401, "permanent", "http_401"),
        (403, "permanent", "http_403"),
        (404, "token_dead", "gone"),
        (405, "permanent", "http_405"),
        (406, "throttled", "http_406"),
        (408, "transient", "http_408"),
        (410, "token_dead", "gone"),
        (413, "permanent", "http_413"),
        (429, "throttled", "http_429"),
        (500, "transient", "http_500"),
        (502, "transient", "http_502"),
        (503, "transient", "http_503"),
    ],
)
def test_every_refusal_has_its_class(
    sending: WebPushChannel, service: PushService, target: str, status: int, outcome: str, code: str
) -> None:
    service.replies.append(Reply(status))
    answered = sending.send(notice(target=target))
    assert (answered.outcome, answered.code, answered.retry_after_s) == (outcome, code, None)
    assert answered.text
    assert sending.send(notice(target=target)).code == "accepted"


@pytest.mark.parametrize("status", [406, 429, 503])
@pytest.mark.parametrize(("value", "seconds"), [("120", 120.0), ("Wed, 10 Jun 2026 12:02:30 GMT", 150.0), ("x", None)])
def test_a_service_that_asks_to_wait_is_heard(
    sending: WebPushChannel, service: PushService, target: str, status: int, value: str, seconds: float | None
) -> None:
    service.replies.append(Reply(status, {"Retry-After": value}))
    assert sending.send(notice(target=target)).retry_after_s == seconds


@pytest.mark.parametrize("status", [406, 429, 503])
def test_a_service_that_asks_to_wait_speaks_for_no_other(
    sending: WebPushChannel, service: PushService, target: str, status: int
) -> None:
    service.replies.append(Reply(status, {"Retry-After": "86400"}))
    assert sending.send(notice(target=target)).alone


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"code":401,"errno":109,"error":"Unauthorized","message":"Invalid bearer token"}', "Invalid bearer token"),
        (b'{"reason":"VapidPkHashMismatch"}', "VapidPkHashMismatch"),
        (b'{"error":{"code":400,"message":"no such thing"}}', "no such thing"),
        (b"UnauthorizedRegistration", "UnauthorizedRegistration"),
        (b"<html>\n<title>Error 403</title><p>the key does\r\nnot match", "Error 403 the key does not match"),
        (b"\xff\x00\x1b[31mred", "\ufffd[31mred"),
        (b"", "The push service answered 403 without a text."),
        (b"[" * 20_000, "[" * 299 + "…"),
        (b'{"message":{"a":1}}', "{'a': 1}"),
        (b"x" * 70_000, "x" * 299 + "…"),
    ],
    ids=range(10),
)
def test_a_refusal_is_told_in_the_services_own_words(
    sending: WebPushChannel, service: PushService, target: str, body: bytes, text: str
) -> None:
    service.replies.append(Reply(403, body=body))
    assert sending.send(notice(target=target)) == Outcome(outcome="permanent", code="http_403", text=text)


# --- private addresses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::1]",
        "127.0.0.1.",
    ],
)
def test_an_endpoint_on_this_machine_gets_nothing_unless_the_owner_lists_it(
    certificate: Certificate, service: PushService, clock: StillClock, key_path: Path, browser: Browser, host: str
) -> None:
    with channel(certificate, clock, key_path, SsrfGuard(["nas.local"])) as sending:
        outcome = sending.send(notice(target=browser.subscription(f"https://{host}:{service.port}/x")))
    assert (outcome.outcome, outcome.code) == ("permanent", "private_address")
    assert service.connections == 0


@pytest.mark.parametrize("own_client", [True, False])
def test_a_name_that_leads_to_this_machine_gets_nothing(
    certificate: Certificate,
    service: PushService,
    clock: StillClock,
    key_path: Path,
    browser: Browser,
    own_client: bool,
) -> None:
    guard = SsrfGuard(lookup=lambda name, port: ["93.184.216.34", "127.0.0.1"])
    client = None if own_client else HttpClient(resolver=guard, verify=certificate.for_client())
    sending = WebPushChannel(
        WebPushSettings(subject=SUBJECT), clock, key_path=key_path, ssrf_guard=guard, client=client
    )
    try:
        outcome = sending.send(notice(target=browser.subscription(f"https://{NAME}:{service.port}/x")))
    finally:
        sending.close()
    assert (outcome.outcome, outcome.code) == ("permanent", "private_address")
    assert service.connections == 0


def test_a_name_that_changes_its_address_after_the_check_gains_nothing(
    certificate: Certificate, service: PushService, clock: StillClock, key_path: Path, browser: Browser
) -> None:
    """The pinned address is on loopback too, allowed by name, since a test reaches nothing else."""
    answers, asked = [["127.0.0.1"], ["127.0.0.2"]], []

    def lookup(name: str, port: int) -> Sequence[str]:
        asked.append(name)
        return answers[min(len(asked), 2) - 1]

    guard = SsrfGuard([f"{NAME}:{service.port}"], lookup=lookup)
    with (
        push_service(certificate, "127.0.0.2", service.port) as inside,
        channel(certificate, clock, key_path, guard) as sending,
    ):
        target = browser.subscription(f"https://{NAME}:{service.port}/x")
        assert sending.send(notice(target=target)).code == "accepted"
        assert (len(service.received), inside.connections, asked) == (1, 0, [NAME])
        assert service.received[0].headers["host"] == f"{NAME}:{service.port}"


def test_a_redirect_is_not_followed_wherever_it_leads(
    certificate: Certificate, sending: WebPushChannel, service: PushService, target: str
) -> None:
    with push_service(certificate, "127.0.0.2") as inside:
        for status in (301, 302, 303, 307, 308):
            service.replies.append(Reply(status, {"Location": f"{inside.origin}/secret"}))
            assert sending.send(notice(target=target)).code == "redirected"
        assert inside.connections == 0
    assert len(service.received) == 5


def test_a_service_whose_certificate_nobody_vouches_for_gets_nothing(
    service: PushService, clock: StillClock, key_path: Path, target: str
) -> None:
    guard = SsrfGuard([service.authority])
    sending = WebPushChannel(WebPushSettings(subject=SUBJECT), clock, key_path=key_path, ssrf_guard=guard)
    try:
        outcome = sending.send(notice(target=target))
    finally:
        sending.close()
    assert (outcome.outcome, outcome.code) == ("transient", "tls_failed")
    assert service.received == []


def test_plain_http_is_for_hosts_that_the_owner_lists(
    certificate: Certificate, clock: StillClock, key_path: Path, browser: Browser
) -> None:
    with push_service(None) as plain:
        target = browser.subscription(plain.origin + "/x")
        with channel(certificate, clock, key_path, SsrfGuard([plain.authority])) as sending:
            assert sending.send(notice(target=target)).code == "accepted"
        claims_of(plain.received[0].headers["authorization"], plain.origin, clock)
        public = browser.subscription("http://push.example.com/x")
        assert "https" in problem_of(public)


# --- subscriptions ----------------------------------------------------------------------------------------------------

GOOD = "https://push.example.com/" + "x" * 100
P384 = ec.generate_private_key(ec.SECP384R1())
PEM_P384 = P384.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def keys(p256dh: object = None, auth: object = None) -> dict[str, object]:
    return {
        "p256dh": b64(Browser().point) if p256dh is None else p256dh,
        "auth": "AAAAAAAAAAAAAAAAAAAAAA" if auth is None else auth,
    }


BAD_TARGETS = {
    "empty": "",
    "no json": "not JSON",
    "a list": "[]",
    "null": "null",
    "no keys": json.dumps({"endpoint": GOOD}),
    "no endpoint": json.dumps({"keys": keys()}),
    "deep": "[" * 100_000,
    "half a surrogate": '{"endpoint": "\ud83d"}',
    "numbers": json.dumps({"endpoint": 5, "keys": keys()}),
    "endpoint": json.dumps({"endpoint": "push.example.com/x", "keys": keys()}),
    "http": json.dumps({"endpoint": "http://push.example.com/x", "keys": keys()}),
    "file": json.dumps({"endpoint": "file:///etc/passwd", "keys": keys()}),
    "user": json.dumps({"endpoint": "https://a:b@push.example.com/x", "keys": keys()}),
    "fragment": json.dumps({"endpoint": GOOD + "#x", "keys": keys()}),
    "header": json.dumps({"endpoint": "https://push.example.com/x\r\nX: y", "keys": keys()}),
    "unicode": json.dumps({"endpoint": "https://push.example.com/ü", "keys": keys()}),
    "long": json.dumps({"endpoint": GOOD + "x" * 2_000, "keys": keys()}),
    "no point": json.dumps({"endpoint": GOOD, "keys": keys("AAAA")}),
    "point at infinity": json.dumps({"endpoint": GOOD, "keys": keys("AA")}),
    "compressed": json.dumps({"endpoint": GOOD, "keys": keys(b64(b"\x02" + Browser().point[1:33]))}),
    "off the curve": json.dumps({"endpoint": GOOD, "keys": keys(b64(b"\x04" + b"\x01" * 64))}),
    "not uncompressed": json.dumps({"endpoint": GOOD, "keys": keys(b64(b"\x06" + Browser().point[1:]))}),
    "another curve": json.dumps(
        {
            "endpoint": GOOD,
            "keys": keys(b64(P384.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))),
        }
    ),
    "short secret": json.dumps({"endpoint": GOOD, "keys": keys(auth=b64(b"x" * 15))}),
    "long secret": json.dumps({"endpoint": GOOD, "keys": keys(auth=b64(b"x" * 17))}),
    "over padded": json.dumps({"endpoint": GOOD, "keys": keys(auth="AAAAAAAAAAAAAAAAAAAAAA===")}),
    "odd length": json.dumps({"endpoint": GOOD, "keys": keys(auth="AAAAAAAAAAAAAAAAAAAAA")}),
}


@pytest.mark.parametrize("target", BAD_TARGETS.values(), ids=BAD_TARGETS.keys())
def test_what_is_no_subscription_is_never_sent_to(
    certificate: Certificate, clock: StillClock, key_path: Path, target: str
) -> None:
    with channel(certificate, clock, key_path, SsrfGuard(lookup=no_look_up)) as sending:
        assert sending.send(notice(target=target)) == Outcome(
            outcome="permanent", code="bad_subscription", text=problem_of(target)
        )


def problem_of(target: str, ssrf_guard: SsrfGuard | None = None) -> str:
    with pytest.raises(Permanent) as caught:
        read_subscription(target, ssrf_guard or SsrfGuard())
    return caught.value.text


def no_look_up(name: str, port: int) -> Sequence[str]:
    raise AssertionError(f"{name} was looked up")


def test_a_notice_without_a_target_is_refused(sending: WebPushChannel) -> None:
    assert sending.send(notice()).code == "bad_subscription"


def test_what_browsers_give_is_taken_with_padding_and_without() -> None:
    browser = Browser()
    padded = {
        name: base64.urlsafe_b64encode(raw).decode()
        for name, raw in [("p256dh", browser.point), ("auth", browser.auth)]
    }
    assert padded["auth"].endswith("==")
    read = read_subscription(browser.subscription(GOOD, keys=padded, expirationTime=17, extra={}), SsrfGuard())
    assert (read.p256dh, read.auth) == (browser.point, browser.auth)


@pytest.mark.parametrize(
    ("endpoint", "origin"),
    [
        ("https://Push.Example.com/x", "https://push.example.com"),
        ("HTTPS://push.example.com:443/x", "https://push.example.com"),
        ("https://push.example.com:/x", "https://push.example.com"),
        ("https://push.example.com:8443?x", "https://push.example.com:8443"),
        ("https://push.example.com:4430", "https://push.example.com:4430"),
        ("https://[2606:4700::1111]:8443/x", "https://[2606:4700::1111]:8443"),
    ],
)
def test_the_origin_is_written_as_vapid_wants_it(endpoint: str, origin: str) -> None:
    assert read_subscription(Browser().subscription(endpoint), SsrfGuard()).origin == origin


def test_a_private_endpoint_is_refused_unless_the_owner_lists_it() -> None:
    target = Browser().subscription("https://192.168.1.9:8443/x")
    assert "192.168.1.9" in problem_of(target)
    assert read_subscription(target, SsrfGuard(["192.168.1.9:8443"])).origin == "https://192.168.1.9:8443"


# --- the key ----------------------------------------------------------------------------------------------------------


def test_the_channel_signs_with_the_same_key_after_a_restart(
    certificate: Certificate, clock: StillClock, key_path: Path
) -> None:
    seen = set()
    for _ in range(2):
        with channel(certificate, clock, key_path, SsrfGuard()) as made:
            assert made.health().works
            seen.add(made.public_key)
    assert len(seen) == 1
    assert key_path.stat().st_mode & 0o777 == 0o600


def test_without_its_key_the_channel_says_so_and_sends_nothing(
    sending: WebPushChannel, service: PushService, target: str, key_path: Path
) -> None:
    key_path.parent.mkdir()
    key_path.write_text("-----BEGIN PRIVATE KEY-----\nsecret of somebody else\n", "ascii")
    health = sending.health()
    assert not health.works
    assert "somebody" not in health.detail
    outcome = sending.send(notice(target=target))
    assert outcome == Outcome(outcome="permanent", code="vapid_key", text=health.detail)
    assert service.received == []
    key_path.unlink()
    assert sending.send(notice(target=target)).code == "accepted"


def test_health_asks_nobody(sending: WebPushChannel, service: PushService) -> None:
    assert SUBJECT in sending.health().detail
    assert service.connections == 0


def test_the_key_file_is_a_p256_key_that_its_owner_alone_can_read(key_path: Path) -> None:
    made = VapidKeys.load_or_create(key_path)
    key = load_pem_private_key(key_path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert b64(key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)) == made.public_key
    assert key_path.stat().st_mode & 0o777 == 0o600
    key_path.chmod(0o644)
    assert VapidKeys.load_or_create(key_path).public_key == made.public_key
    assert key_path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("linking", [True, False], ids=["links", "no links"])
def test_many_at_once_end_up_with_one_key(key_path: Path, linking: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not linking:
        monkeypatch.delattr(os, "link")
        VapidKeys.load_or_create(key_path)
    start = threading.Barrier(8)

    def load(_: int) -> str:
        start.wait(DEADLINE)
        return VapidKeys.load_or_create(key_path).public_key

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(load, range(8)))) == 1
    assert [path.name for path in key_path.parent.iterdir()] == [key_path.name]


DIE = """
import os, signal, sys
from pathlib import Path
from flashflow.backend.delivery.push.vapid import VapidKeys

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(os, sys.argv[2], die)
VapidKeys.load_or_create(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("call", ["fdopen", "fsync", "link", "unlink"])
def test_a_kill_leaves_a_whole_key_or_none(key_path: Path, call: str) -> None:
    done = subprocess.run([sys.executable, "-c", DIE, str(key_path), call], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -9
    there = key_path.exists()
    assert there == (call == "unlink")
    before = key_path.read_bytes() if there else b""
    assert len(VapidKeys.load_or_create(key_path).public_key) == 87
    assert not there or key_path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no key", PEM_P384], ids=["empty", "no key", "another curve"])
def test_a_file_that_holds_no_key_is_told_and_never_replaced(key_path: Path, content: bytes) -> None:
    key_path.parent.mkdir()
    key_path.write_bytes(content)
    with pytest.raises(Permanent) as caught:
        VapidKeys.load_or_create(key_path)
    assert caught.value.code == "vapid_key"
    assert key_path.read_bytes() == content


def test_a_file_that_cannot_be_used_now_may_be_later(key_path: Path) -> None:
    key_path.mkdir(parents=True)
    with pytest.raises(Transient) as caught:
        VapidKeys.load_or_create(key_path)
    assert caught.value.code == "vapid_key"
    assert "Is a directory" in caught.value.text


def test_signatures_are_not_hoarded_for_services_that_callers_name(key_path: Path) -> None:
    made = VapidKeys.load_or_create(key_path)
    first = made.authorization("https://push0.example.com", SUBJECT, 0)
    for number in range(300):
        made.authorization(f"https://push{number}.example.com", SUBJECT, 0)
    assert len(made._signed) == 256
    assert made.authorization("https://push0.example.com", SUBJECT, 0) != first


# --- threads, closing, secrets ----------------------------------------------------------------------------------------


def test_many_threads_may_send_at_once(
    sending: WebPushChannel, service: PushService, browser: Browser, target: str
) -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda n: sending.send(notice(f"t{n}", target=target)), range(40)))
    assert {outcome.code for outcome in outcomes} == {"accepted"}
    assert {browser.message(push.body)["title"] for push in service.received} == {f"t{n}" for n in range(40)}
    assert service.connections <= 8


def test_closing_ends_a_send_that_hangs_and_may_be_done_twice(
    sending: WebPushChannel, service: PushService, target: str
) -> None:
    service.replies.append(Reply(hang=True))
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(sending.send, notice(target=target))
        assert service.asked.wait(DEADLINE)
        sending.close()
        assert hanging.result(DEADLINE).code == "stopping"
    sending.close()
    assert sending.send(notice(target=target)).code == "stopping"


def test_a_service_that_hangs_costs_one_deadline(
    certificate: Certificate, service: PushService, clock: StillClock, key_path: Path, target: str
) -> None:
    service.replies.append(Reply(hang=True))
    guard = SsrfGuard([service.authority])
    client = HttpClient(resolver=guard, verify=certificate.for_client(), deadline_s=0.3)
    sending = WebPushChannel(
        WebPushSettings(subject=SUBJECT), clock, key_path=key_path, ssrf_guard=guard, client=client
    )
    try:
        assert sending.send(notice(target=target)).code == "timeout"
    finally:
        sending.close()


def test_a_service_that_hangs_takes_one_connection_at_most_from_then_on(
    certificate: Certificate, service: PushService, clock: StillClock, key_path: Path, target: str
) -> None:
    service.replies.extend([Reply(hang=True)] * 2)
    guard = SsrfGuard([service.authority])
    client = HttpClient(resolver=guard, verify=certificate.for_client(), deadline_s=0.3)
    sending = WebPushChannel(
        WebPushSettings(subject=SUBJECT), clock, key_path=key_path, ssrf_guard=guard, client=client
    )
    with ThreadPoolExecutor(1) as pool:
        assert sending.send(notice(target=target)).code == "timeout"
        service.asked.clear()
        hanging = pool.submit(sending.send, notice(target=target))
        assert service.asked.wait(DEADLINE)
        refused = sending.send(notice(target=target))
        assert (refused.outcome, refused.code) == ("transient", "not_asked")
        assert hanging.result(DEADLINE).code == "timeout"
        assert sending.send(notice(target=target)).code == "accepted"
    sending.close()
    assert len(service.received) == 3


def test_no_secret_is_repeated_in_a_text_or_a_log_even_if_the_service_repeats_them(
    sending: WebPushChannel,
    service: PushService,
    browser: Browser,
    target: str,
    key_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    sending.send(notice(target=target))
    header = service.received[0].headers["authorization"]
    secrets = [
        "gAAAAABsecretOfThisBrowser",
        "moreSecret123",
        b64(browser.point),
        b64(browser.auth),
        header.removeprefix("vapid t=").split(",")[0],
    ]
    texts = [repr(read_subscription(target, SsrfGuard([service.authority])))]
    for secret in [*secrets, service.origin + PATH, header]:
        for body in (f"no: {secret}!", json.dumps({"message": f"no: {secret}!"}), f"<p>no: {secret}!</p>"):
            service.replies.append(Reply(400, body=body.encode()))
            texts.append(sending.send(notice(target=target)).text)
            assert texts[-1].startswith("no: ")
    broken = [
        browser.subscription(f"{service.origin}{PATH}", keys={"p256dh": b64(browser.point), "auth": "x"}),
        browser.subscription(f"ftp://{service.authority}{PATH}"),
        browser.subscription(f"https://127.0.0.3:{service.port}{PATH}"),
    ]
    texts += [sending.send(notice(target=target)).text for target in broken]
    service.stop()
    texts.append(sending.send(notice(target=target)).text)
    everything = "\n".join([*texts, caplog.text, repr(sending.__dict__)])
    for secret in [*secrets, *key_path.read_text("ascii").split("\n")[1:-2]]:
        assert secret not in everything


def test_words_about_vapid_are_not_taken_for_a_secret(
    sending: WebPushChannel, service: PushService, target: str
) -> None:
    service.replies.append(Reply(403, body=b"the vapid key does not match"))
    assert sending.send(notice(target=target)).text == "the vapid key does not match"
