"""``collapse_key``: the same told again updates the unread notice in place, and is not e-mailed or texted twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.domain.delivery_messages import Outcome
from flashflow.backend.schemas.requests import SendIn
from flashflow.backend.store.engine.writer import Bundle
from tests.support.api_client import SEND, fresh
from tests.support.outbox_driver import BUSY, DELIVERED, REFUSED, SENT, Hands, Stand
from tests.support.server_process import serving

QUEUED = Stand("pending", "queued")
COLLAPSED = Stand("suppressed", "collapsed")


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    hands = Hands(tmp_path, None, "ada", "bob")
    yield hands
    hands.service.close()


def tell(hands: Hands, title: str = "T", **more: Any) -> str:
    return hands.send(title, **{"collapse_key": "build", "app": "ci"} | more)


def answered(hands: Hands, **more: Any) -> dict[str, Stand]:
    """What ``send`` answers, channel by channel."""
    sent = hands.sent(**{"collapse_key": "build", "app": "ci"} | more)
    return {d.channel: Stand(d.status, d.code) for d in sent.deliveries}


def test_the_same_again_is_the_same_notice_with_a_new_text_and_a_count(hands: Hands) -> None:
    first = tell(hands, "1 failed", message="a", data={"n": 1}, expires_at=hands.clock.at(hours=1))
    later = {"data": {"n": 2}, "priority": "urgent", "actions": [{"label": "Open", "url": "https://example.org"}]}
    revisions = []
    for number in range(2, 5):
        assert tell(hands, f"{number} failed", message="b", **later) == first
        revisions += hands.rows("SELECT revision FROM notifications")
    n = hands.notification(first)
    assert (n.title, n.message, n.count, n.data, n.priority) == ("4 failed", "b", 4, {"n": 2}, "urgent")
    assert (len(n.actions), n.expires_at, n.inbox, n.status) == (1, None, "unread", "delivered")
    assert hands.service.unread_count("ada") == 1
    assert len(hands.deliveries(first)) == 1
    assert revisions == sorted(set(revisions))


@pytest.mark.parametrize(
    "other", [{"app": "shop"}, {"user": "bob"}, {"collapse_key": "deploy"}, {"collapse_key": None}]
)
def test_another_app_user_or_key_is_another_notice(hands: Hands, other: dict[str, Any]) -> None:
    first = tell(hands)
    second = tell(hands, **other)
    assert second != first
    assert hands.notification(first).count == hands.notification(second).count == 1


@pytest.mark.parametrize("step", ["mark_notification_as_read", "archive_notification"])
def test_once_it_was_dealt_with_a_new_one_is_made(hands: Hands, step: str) -> None:
    first = tell(hands, channels=["in_app", "email"])
    hands.work("email")
    getattr(hands.service, step)(first)
    second = tell(hands, channels=["in_app", "email"])
    assert second != first
    assert len(hands.work("email")) == 1
    assert tell(hands) == second


@pytest.mark.parametrize("over", ["cancelled", "expired", "scheduled"])
def test_what_is_over_or_still_to_come_is_not_updated(hands: Hands, over: str) -> None:
    when = {"expires_at": hands.clock.at(hours=1)} if over == "expired" else {}
    when |= {"scheduled_at": hands.clock.at(hours=2)} if over == "scheduled" else {}
    first = tell(hands, channel="email", **when)
    if over == "cancelled":
        hands.service.cancel_notification(first)
    elif over == "expired":
        hands.go(hours=1)
    assert tell(hands, channel="email") != first
    assert hands.notification(first).status == over


def test_a_push_message_is_replaced_and_says_how_often(hands: Hands) -> None:
    first = tell(hands, "1 failed", channel="push")
    (one,) = hands.work("fcm", DELIVERED)
    assert tell(hands, "2 failed", channel="push") == first
    (two,) = hands.work("fcm", DELIVERED)
    assert (one.title, two.title) == ("1 failed", "2 failed (2)")
    assert one.notification_id == two.notification_id == first
    assert (one.delivery_id, one.collapse_key, two.count) == (two.delivery_id, "build", 2)
    assert len(hands.deliveries(first)[0].attempts) == 2


@pytest.mark.parametrize("route", ["email", "sms", "slack"])
def test_what_cannot_be_replaced_goes_out_once_until_it_was_read(hands: Hands, route: str) -> None:
    channels = ["in_app", route]
    first = tell(hands, channels=channels)
    assert answered(hands, channels=channels)[route] == QUEUED, "the first has not gone out yet: it tells the new text"
    assert [notice.count for notice in hands.work(route)] == [2]
    assert answered(hands, channels=channels)[route] == COLLAPSED
    assert hands.work(route) == []
    assert hands.stands(first)[route] == Stand("sent", "accepted")
    assert hands.notification(first).count == 3
    hands.service.mark_notification_as_read(first)
    assert answered(hands, channels=channels)[route] == QUEUED


@pytest.mark.parametrize("outcome", [SENT, BUSY, REFUSED], ids=["accepted", "busy", "refused"])
def test_what_is_on_its_way_meanwhile_is_not_sent_beside_itself(hands: Hands, outcome: Outcome) -> None:
    first = tell(hands, "old", channels=["in_app", "email"])
    claim = hands.claim("email")
    assert claim is not None
    assert answered(hands, title="new", channels=["in_app", "email"])["email"] == COLLAPSED
    assert hands.claim("email") is None
    hands.record(claim, outcome, retry_in_s=1 if outcome is BUSY else None)
    hands.clock.go(seconds=1)
    assert [notice.title for notice in hands.work("email")] == (["new (2)"] if outcome is BUSY else [])
    assert len([d for d in hands.deliveries(first) if d.channel == "email"]) == 1


def test_a_toast_on_its_way_tells_the_old_text_and_another_follows(hands: Hands) -> None:
    first = tell(hands, "old", channel="push")
    claim = hands.claim("fcm")
    assert claim is not None
    assert tell(hands, "new", channel="push") == first
    assert [notice.title for notice in hands.work("fcm", DELIVERED)] == ["new (2)"]
    hands.record(claim, DELIVERED)
    assert tell(hands, "newer", channel="push") == first
    assert [notice.title for notice in hands.work("fcm", DELIVERED)] == ["newer (3)"]


def test_what_failed_has_another_chance(hands: Hands) -> None:
    first = tell(hands, channel="email")
    hands.work("email", REFUSED)
    assert hands.notification(first).status == "failed"
    assert answered(hands, channel="email") == {"email": QUEUED}
    claim = hands.claim("email")
    assert claim is not None
    assert claim.tries == 1


def test_a_channel_that_is_named_only_now_is_added(hands: Hands) -> None:
    first = tell(hands, channel="email")
    hands.work("email")
    assert hands.notification(first).inbox is None
    assert tell(hands, channels=["in_app", "push"]) == first
    n = hands.notification(first)
    assert (n.inbox, n.status, n.channels) == ("unread", "delivered", ("email", "in_app", "push"))
    assert hands.service.unread_count("ada") == 1
    assert len(hands.work("fcm")) == 1
    assert hands.service.get_user_notifications("ada", channel="push").notifications == (hands.notification(first),)


@pytest.mark.parametrize("sooner", ["waits", "held"])
def test_a_channel_switched_off_meanwhile_tells_no_update(hands: Hands, sooner: str) -> None:
    if sooner == "held":
        hands.quiet("11:00", "13:00")
    first = tell(hands, channels=["in_app", "email", "push"])
    for channel in ("email", "in_app"):
        hands.service.update_notification_preference("ada", "*", channel, False)
    found = answered(hands, channels=["in_app", "email", "push"])
    assert found["email"] == found["in_app"] == Stand("suppressed", "channel_off")
    hands.go(hours=1)
    assert hands.work("email") == []
    assert len(hands.work("fcm")) == 1
    # What the inbox has, it has.
    assert hands.stands(first)["in_app"] == Stand("delivered", None)
    assert (hands.notification(first).inbox, hands.notification(first).status) == ("unread", "delivered")


def test_a_carrier_switched_off_by_an_update_hands_its_summary_over(hands: Hands) -> None:
    hands.quiet("11:00", "13:00")
    other, carrier = hands.send("other", channel="email", notification_type="chat"), tell(hands, channel="email")
    hands.go(hours=1)
    hands.service.update_notification_preference("ada", "general", "email", False)
    assert tell(hands, channel="email") == carrier
    assert [notice.notification_id for notice in hands.work("email")] == [other]


def test_what_arrived_once_has_arrived_even_if_the_update_does_not(hands: Hands) -> None:
    hands.service.declare_type("chat", throttle={"limit": 1, "minutes": 60})
    first = tell(hands, channel="push", notification_type="chat")
    hands.work("fcm")
    assert answered(hands, channel="push", notification_type="chat") == {"push": Stand("suppressed", "throttled")}
    assert hands.stands(first)["push"] == Stand("sent", "accepted")
    assert hands.notification(first).status == "sent"


def test_an_update_that_reaches_nobody_uses_no_throttle_up(hands: Hands) -> None:
    hands.service.declare_type("chat", throttle={"limit": 3, "minutes": 60})
    tell(hands, channels=["in_app", "email"], notification_type="chat")
    hands.work("email")
    for _ in range(5):
        tell(hands, channels=["in_app", "email"], notification_type="chat")
    for _ in range(2):
        assert hands.stands(hands.send(channel="email", notification_type="chat"))["email"] == QUEUED
    assert hands.stands(hands.send(channel="email", notification_type="chat"))["email"].code == "throttled"


def test_held_it_is_told_once_and_with_its_last_text(hands: Hands) -> None:
    hands.quiet("11:00", "13:00")
    first = tell(hands, "1", channels=["in_app", "email", "push"])
    for number in (2, 3):
        assert tell(hands, str(number), channels=["in_app", "email", "push"]) == first
    hands.go(hours=1)
    assert [notice.title for notice in hands.work("email") + hands.work("fcm")] == ["3 (3)", "3 (3)"]
    assert len(hands.deliveries(first)) == 3


def test_within_one_transaction_too(hands: Hands) -> None:
    """A hundred callers at once share a commit; those of one key share a notice."""
    done = threading.Event()
    writes = [
        hands.service.send_write(
            SendIn(user_ids=["ada", "bob"], title=f"{n}", message="M", channels=["in_app", "email"],
                   collapse_key="build" if n % 2 else None),
            "ci",
        )
        for n in range(10)
    ]  # fmt: skip
    bundle = Bundle(list(writes), done.set)
    hands.service.store.writer.submit(bundle)
    assert done.wait(10)
    same = {sent[0].notification_id for sent in bundle.results[1::2]}
    assert len(same) == 1
    assert hands.notification(same.pop()).count == 5
    assert (hands.service.unread_count("ada"), hands.service.unread_count("bob")) == (6, 6)
    assert sorted(notice.title for notice in hands.work("email")) == sorted(["0", "2", "4", "6", "8", "9 (5)"] * 2)
    seqs = hands.rows("SELECT seq, revision FROM notifications")
    assert len(set(seqs)) == len({revision for _, revision in seqs}) == 12


def test_a_request_repeated_under_its_idempotency_key_counts_once(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        user, key = fresh(), fresh("key")
        body = {"user_id": user, "title": "T", "message": "M", "collapse_key": "build"}
        answers = [server.api("POST", SEND, body, headers={"Idempotency-Key": key}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [201] * 3
        assert len({answer.text for answer in answers}) == 1
        again = server.api("POST", SEND, body, headers={"Idempotency-Key": fresh("key")})
        assert again.json()["notification_id"] == answers[0].json()["notification_id"]
        (notice,) = server.everything(f"/api/notifications/user/{user}", "notifications")
        assert notice["count"] == 2
