"""What is queued is held to what its reader wants now: between the decision and a try may lie a day of waiting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flashflow.backend.domain.channel import LEASE_MS
from tests.support.outbox_driver import BUSY, SENT, Hands, Stand


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    hands = Hands(tmp_path, None, "ada", "bob")
    hands.service.declare_type("builds", category="ci", channels=["email"])
    yield hands
    hands.service.close()


def turn_off(hands: Hands, kind: str = "*", channel: str = "email", user: str = "ada") -> None:
    hands.service.update_notification_preference(user, kind, channel, False)


def waiting(hands: Hands, **more: object) -> str:
    """An e-mail that was tried in vain and waits for its next try."""
    id_ = hands.send(**{"channel": "email", "notification_type": "builds"} | more)  # type: ignore[arg-type]
    claim = hands.claim("email")
    assert claim is not None
    hands.record(claim, BUSY, retry_in_s=3_600)
    return id_


@pytest.mark.parametrize(
    ("kind", "channel", "code"),
    [
        ("*", "email", "channel_off"),
        ("builds", "email", "type_channel_off"),
        ("builds", "*", "type_off"),
        ("category:ci", "email", "category_channel_off"),
        ("*", "*", "everything_off"),
    ],
)
def test_an_off_is_obeyed_by_what_waits_for_its_next_try(hands: Hands, kind: str, channel: str, code: str) -> None:
    id_, bobs = waiting(hands), waiting(hands, user="bob")
    turn_off(hands, kind, channel)
    assert hands.stands(id_)["email"] == Stand("suppressed", code)
    assert hands.notification(id_).status == "suppressed"
    assert hands.stands(bobs)["email"].status == "pending"
    hands.clock.go(hours=2)
    assert [notice.user_id for notice in hands.work("email")] == ["bob"]


def test_another_off_ends_nothing(hands: Hands) -> None:
    id_ = waiting(hands)
    turn_off(hands, "chat", "email")
    turn_off(hands, "*", "sms")
    assert hands.stands(id_)["email"].status == "pending"


@pytest.mark.parametrize("how", ["it fails", "its worker is lost"])
def test_turned_off_on_its_way_it_is_not_tried_again(hands: Hands, how: str) -> None:
    id_ = hands.send(channel="email")
    claim = hands.claim("email")
    assert claim is not None
    turn_off(hands)
    assert hands.stands(id_)["email"].status == "sending"
    if how == "it fails":
        hands.record(claim, BUSY, retry_in_s=1)
    else:
        hands.clock.go(milliseconds=LEASE_MS)
        hands.table.recover(all_leases=False)
    assert hands.stands(id_)["email"] == Stand("suppressed", "channel_off")
    assert hands.notification(id_).status == "suppressed"


def test_turned_off_on_its_way_it_has_arrived_all_the_same(hands: Hands) -> None:
    id_ = hands.send(channel="email")
    claim = hands.claim("email")
    assert claim is not None
    turn_off(hands)
    hands.record(claim, SENT)
    assert hands.stands(id_)["email"] == Stand("sent", "accepted")


def test_a_category_that_its_type_is_given_later_counts_at_the_next_try(hands: Hands) -> None:
    turn_off(hands, "category:noise", "*")
    id_ = hands.send(channel="email", notification_type="chat")
    hands.service.declare_type("chat", category="noise")
    assert hands.work("email") == []
    assert hands.stands(id_)["email"] == Stand("suppressed", "category_off")


@pytest.mark.parametrize("which", ["the carrier", "the carried"])
@pytest.mark.parametrize("under_way", [False, True])
def test_a_summary_goes_out_without_what_was_turned_off(hands: Hands, which: str, under_way: bool) -> None:
    hands.disturb_not(hours=1)
    kinds = ["chat", "builds"] if which == "the carrier" else ["builds", "chat"]
    first, second = (hands.send(kind, channel="email", notification_type=kind) for kind in kinds)
    off, on = (second, first) if which == "the carrier" else (first, second)
    hands.go(minutes=61)
    claim = hands.claim("email") if under_way else None
    turn_off(hands, "builds", "email")
    if claim is not None:
        assert claim.message.title == "2 notifications"
        hands.record(claim, BUSY, retry_in_s=0)
    assert hands.stands(off)["email"] == Stand("suppressed", "type_channel_off")
    (notice,) = hands.work("email")
    assert (notice.notification_id, notice.title) == (on, "chat")


def test_the_next_stage_of_a_chain_begins_where_this_one_was_turned_off(hands: Hands) -> None:
    stages = [{"channel": "email"}, {"channel": "sms", "after_minutes": 60}]
    hands.service.declare_type("alarm", channels=["in_app"], failover=stages)
    id_ = hands.send(notification_type="alarm")
    turn_off(hands)
    hands.go()
    assert hands.stands(id_)["sms"].status == "pending"


@pytest.mark.parametrize(("channel", "field"), [("email", "email"), ("sms", "phone")])
def test_without_its_address_it_says_so(hands: Hands, channel: str, field: str) -> None:
    id_ = hands.send(channel=channel)
    hands.contact("ada", **{field: None})
    assert hands.stands(id_)[channel] == Stand("failed", "no_address")
    assert hands.work(channel) == []
    hands.contact("ada")
    hands.service.retry_notification(id_)
    assert len(hands.work(channel)) == 1


def test_another_address_is_the_one_it_goes_to(hands: Hands) -> None:
    id_ = waiting(hands)
    hands.contact("ada", email="ada@example.net", phone=None)
    assert hands.stands(id_)["email"].status == "pending"
    hands.clock.go(hours=2)
    assert [notice.target for notice in hands.work("email")] == ["ada@example.net"]


def test_what_is_still_scheduled_is_decided_in_its_own_time(hands: Hands) -> None:
    id_ = hands.send(channel="email", scheduled_at=hands.clock.at(hours=1))
    turn_off(hands)
    assert hands.stands(id_)["email"] == Stand("pending", "scheduled")
    hands.go(hours=1)
    assert hands.stands(id_)["email"] == Stand("suppressed", "channel_off")
