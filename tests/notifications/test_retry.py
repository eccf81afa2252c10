"""“Retry now”: what failed goes out again with all its tries, or says why it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flashflow.backend import Conflict, NotFound
from flashflow.backend.domain.delivery_messages import Outcome
from flashflow.backend.store.notifications.delivery_state import INTERRUPTED_MOST
from tests.support.outbox_driver import BUSY, REFUSED, SENT, Hands, Stand

QUEUED = Stand("pending", "queued")
DEAD_TOKEN = Outcome(outcome="token_dead", code="unregistered", text="Gone.")


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    hands = Hands(tmp_path)
    yield hands
    hands.service.close()


@pytest.mark.parametrize("outcome", [REFUSED, BUSY], ids=["failed", "dead"])
def test_what_failed_goes_out_again_with_all_its_tries(hands: Hands, outcome: Outcome) -> None:
    id_ = hands.send(channel="email")
    for _ in range(3):
        hands.work("email", BUSY, retry_in_s=0.001)
        hands.clock.go(seconds=1)
    hands.work("email", outcome)
    assert hands.notification(id_).status == "failed"
    rung: list[str] = []
    hands.service.bus.subscribe(lambda events: rung.extend(e.kind for e in events))
    assert hands.service.retry_notification(id_).status == "pending"
    assert "outbox" in rung
    assert hands.stands(id_)["email"] == QUEUED
    claim = hands.claim("email")
    assert claim is not None
    assert claim.tries == 1
    hands.record(claim, SENT)
    assert hands.notification(id_).status == "sent"
    assert [a.code for a in hands.deliveries(id_)[0].attempts][-2:] == [outcome.code, "accepted"]


def test_only_what_failed_is_tried_again(hands: Hands) -> None:
    id_ = hands.send(channels=["in_app", "email", "sms", "push"])
    hands.work("email")
    hands.work("sms", REFUSED)
    hands.service.retry_notification(id_)
    assert hands.work("email") == []
    assert len(hands.work("sms")) == 1
    assert len(hands.work("fcm")) == 1
    with pytest.raises(Conflict, match="Nothing"):
        hands.service.retry_notification(id_)


def test_the_wait_between_two_tries_ends_but_its_tries_count(hands: Hands) -> None:
    id_ = hands.send(channel="email")
    hands.work("email", BUSY, retry_in_s=900)
    assert hands.claim("email") is None
    hands.service.retry_notification(id_)
    claim = hands.claim("email")
    assert claim is not None
    assert claim.tries == 2


def test_one_that_waits_in_a_summary_stays_in_it(hands: Hands) -> None:
    hands.quiet("11:00", "13:00")
    ids = [hands.send(title, channel="email") for title in ("a", "b")]
    hands.go(hours=1)
    hands.work("email", BUSY, retry_in_s=900)
    with pytest.raises(Conflict):
        hands.service.retry_notification(ids[0])
    hands.service.retry_notification(ids[1])
    (notice,) = hands.work("email")
    assert notice.title == "2 notifications"


def test_a_summary_that_was_given_up_can_be_had_one_by_one(hands: Hands) -> None:
    hands.quiet("11:00", "13:00")
    ids = [hands.send(title, channel="email") for title in ("a", "b")]
    hands.go(hours=1)
    hands.work("email", BUSY)
    for id_, title in zip(ids, ("a", "b"), strict=True):
        hands.service.retry_notification(id_)
        assert [notice.title for notice in hands.work("email")] == [title]


def test_the_person_who_asks_for_it_is_asked_neither_for_quiet_nor_for_a_digest(hands: Hands) -> None:
    hands.service.declare_type("chat", throttle={"limit": 1, "minutes": 60})
    id_ = hands.send(channel="email", notification_type="chat")
    hands.work("email", REFUSED)
    hands.quiet("11:00", "13:00")
    hands.digest("daily")
    hands.disturb_not(hours=1)
    hands.service.retry_notification(id_)
    assert hands.stands(id_)["email"] == QUEUED


def test_an_off_is_obeyed_even_then(hands: Hands) -> None:
    email, push = hands.send(channel="email"), hands.send(channel="push")
    hands.work("email", REFUSED)
    hands.work("fcm", REFUSED)
    for channel in ("email", "push"):
        hands.service.update_notification_preference("ada", "*", channel, False)
    with pytest.raises(Conflict, match="turned e-mail off"):
        hands.service.retry_notification(email)
    with pytest.raises(Conflict, match="turned push off"):
        hands.service.retry_notification(push)
    assert hands.stands(email)["email"] == Stand("failed", "refused")


@pytest.mark.parametrize("over", ["scheduled", "cancelled", "expired", "nothing failed", "read"])
def test_what_cannot_be_tried_again_says_so_and_stays_as_it_is(hands: Hands, over: str) -> None:
    channels = ["in_app", "push"] if over == "read" else ["email"]
    at = hands.clock.at(hours=1) if over == "scheduled" else None
    id_ = hands.send(channels=channels, scheduled_at=at, expires_at=hands.clock.at(hours=2))
    if over == "cancelled":
        hands.service.cancel_notification(id_)
    elif over == "expired":
        hands.work("email", REFUSED)
        hands.clock.go(hours=3)
    elif over == "read":
        hands.work("fcm", REFUSED)
        hands.service.mark_notification_as_read(id_)
    before = hands.service.get_notification(id_)
    with pytest.raises(Conflict):
        hands.service.retry_notification(id_)
    assert hands.service.get_notification(id_) == before
    with pytest.raises(NotFound):
        hands.service.retry_notification("unheard-of")


def test_whoever_had_no_device_is_reached_on_those_they_have_now(hands: Hands) -> None:
    phone = hands.service.list_devices("ada")[0]
    hands.service.store.run(hands.service.devices.remove_write(phone.id, None))
    id_ = hands.send(channel="push")
    assert hands.stands(id_)["push"] == Stand("failed", "no_device")
    with pytest.raises(Conflict, match="no registered device"):
        hands.service.retry_notification(id_)
    for token in ("new phone", "new tablet"):
        hands.service.register_device_token("ada", token, "android")
    hands.service.retry_notification(id_)
    assert {notice.target for notice in hands.work("fcm")} == {"new phone", "new tablet"}
    assert {(d.channel, d.status) for d in hands.deliveries(id_)} == {("push", "sent")}


def test_what_was_not_configured_goes_out_once_it_is(hands: Hands) -> None:
    hands.service.policy_inputs.routes = frozenset()
    id_ = hands.send(channels=["email", "push"])
    assert set(hands.stands(id_).values()) == {Stand("failed", "not_configured")}
    hands.service.policy_inputs.routes = frozenset({"email", "fcm"})
    hands.service.retry_notification(id_)
    assert len(hands.work("email")) == len(hands.work("fcm")) == 1


def test_a_dead_device_is_not_asked_again(hands: Hands) -> None:
    id_ = hands.send(channel="push")
    hands.work("fcm", DEAD_TOKEN)
    with pytest.raises(Conflict, match="registered"):
        hands.service.retry_notification(id_)
    hands.service.register_device_token("ada", "ada's phone", "android")
    hands.service.retry_notification(id_)
    assert len(hands.work("fcm")) == 1


# --- who is reached meanwhile -----------------------------------------------------------------------------------------


def test_a_device_that_is_somebody_elses_by_now_is_not_told(hands: Hands) -> None:
    """A phone changes hands: the token stays, its user is another."""
    id_ = hands.send("private", channel="push")
    hands.service.register_device_token("bob", "ada's phone", "android")
    assert hands.work("fcm") == []
    assert hands.stands(id_)["push"] == Stand("failed", "no_device")
    assert hands.notification(id_).status == "failed"


def test_a_device_that_another_try_found_dead_is_not_asked(hands: Hands) -> None:
    ids = [hands.send(channel="push") for _ in range(3)]
    assert len(hands.work("fcm", DEAD_TOKEN)) == 1
    assert [hands.stands(id_)["push"].code for id_ in ids] == ["unregistered", "no_device", "no_device"]


def test_a_device_registered_while_its_provider_thought_about_it_stays(hands: Hands) -> None:
    hands.send(channel="push")
    claim = hands.claim("fcm")
    assert claim is not None
    started = hands.clock.now_ms()
    hands.clock.go(seconds=5)
    hands.service.register_device_token("ada", "ada's phone", "android")
    hands.record(claim, DEAD_TOKEN, started_at=started)
    assert hands.service.list_devices("ada")[0].is_active


@pytest.mark.parametrize("how", ["answered", "lost"])
def test_what_was_called_off_on_its_way_is_not_tried_again(hands: Hands, how: str) -> None:
    id_ = hands.send(channel="email")
    claim = hands.claim("email")
    assert claim is not None
    hands.service.cancel_notification(id_)
    if how == "answered":
        hands.record(claim, BUSY, retry_in_s=1)
    else:
        hands.table.recover(all_leases=True)
    assert hands.stands(id_)["email"] == Stand("suppressed", "cancelled")
    hands.clock.go(hours=1)
    assert hands.work("email") == []
    assert hands.notification(id_).status == "cancelled"


@pytest.mark.parametrize("tries", [1, INTERRUPTED_MOST])
def test_a_worker_given_up_too_soon_that_was_accepted_after_all_is_believed(hands: Hands, tries: int) -> None:
    id_ = hands.send(channel="email")
    claim = None
    for _ in range(tries):
        claim = hands.claim("email")
        assert claim is not None
        hands.clock.go(minutes=2)
        assert hands.table.recover(all_leases=False) == 1
    assert claim is not None
    assert hands.stands(id_)["email"] == Stand("pending" if tries == 1 else "dead", "interrupted")
    hands.record(claim, SENT)
    assert hands.stands(id_)["email"] == Stand("sent", "accepted")
    assert hands.work("email") == []


def test_two_workers_at_one_delivery_are_both_recorded(hands: Hands) -> None:
    id_ = hands.send(channel="email")
    first = hands.claim("email")
    hands.clock.go(minutes=2)
    hands.table.recover(all_leases=False)
    second = hands.claim("email")
    assert first is not None
    assert second is not None
    hands.record_together((first, SENT), (second, REFUSED))
    assert hands.stands(id_)["email"] == Stand("sent", "accepted")
    assert [a.code for a in hands.deliveries(id_)[0].attempts] == ["interrupted", "accepted", "refused"]
