"""What waits goes out when its time has come, once, as one summary; and whatever the clock does, nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend import Conflict, ValidationError
from flashflow.backend.schemas.requests import SendIn
from flashflow.backend.store.notifications.delivery_state import INTERRUPTED_MOST
from flashflow.backend.store.notifications.outbox import SUMMARY_LINES
from tests.support.fixed_clock import StillClock
from tests.support.outbox_driver import BUSY, DELIVERED, REFUSED, Hands, Stand

EVENING = datetime(2026, 6, 10, 22, 30, tzinfo=UTC)
QUIET = Stand("held", "quiet_hours")
QUEUED = Stand("pending", "queued")
IN_SUMMARY = Stand("pending", "in_summary")
READ_FIRST = Stand("suppressed", "read_first")
CHAIN = [
    {"channel": "push", "after_minutes": 0},
    {"channel": "email", "after_minutes": 5},
    {"channel": "sms", "after_minutes": 15},
]


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    """Half past ten in the evening, in Ada's quiet hours (22:00 to 07:00)."""
    hands = Hands(tmp_path, StillClock(EVENING), "ada", "bob")
    hands.quiet()
    yield hands
    hands.service.close()


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Hands]:
    """By day, with a type “alarm” that goes push, then e-mail, then SMS."""
    hands = Hands(tmp_path)
    hands.service.declare_type("alarm", channels=["in_app"], failover=CHAIN)
    yield hands
    hands.service.close()


def alarm(chain: Hands, **more: Any) -> str:
    return chain.send(**{"notification_type": "alarm"} | more)


# --- quiet hours ------------------------------------------------------------------------------------------------------


def test_quiet_hours_hold_everything_but_the_inbox_until_they_end(hands: Hands) -> None:
    id_ = hands.send(channels=["in_app", "push", "email"])
    assert hands.stands(id_) == {"in_app": Stand("delivered", None), "push": QUIET, "email": QUIET}
    assert [d.release_at for d in hands.deliveries(id_)[1:]] == [datetime(2026, 6, 11, 7, tzinfo=UTC)] * 2
    assert hands.go(hours=8, minutes=29, seconds=59) == 0
    assert hands.work("fcm") == hands.work("email") == []
    hands.go(seconds=1)
    assert [notice.title for notice in hands.work("fcm") + hands.work("email")] == ["T", "T"]
    assert hands.go(days=2) == 0
    assert hands.work("fcm") == hands.work("email") == []


def test_what_was_held_is_one_summary_for_each_person_channel_and_device(hands: Hands) -> None:
    hands.quiet(user="bob")
    hands.service.register_device_token("ada", "ada's tablet", "android")
    for number in range(3):
        hands.send(f"A{number}", channels=["push", "email"])
        hands.send(f"B{number}", user="bob", channels=["push", "email"])
    hands.go(hours=9)
    pushed, mailed = hands.work("fcm"), hands.work("email")
    assert sorted(notice.target or "" for notice in pushed) == ["ada's phone", "ada's tablet", "bob's phone"]
    assert sorted(notice.target or "" for notice in mailed) == ["ada@example.org", "bob@example.org"]
    for notice in pushed + mailed:
        letter = "A" if notice.user_id == "ada" else "B"
        assert notice.title == "3 notifications"
        assert notice.message == f"• {letter}2: M\n• {letter}1: M\n• {letter}0: M"
    assert hands.rows("SELECT DISTINCT status, code FROM deliveries ORDER BY code") == [
        ("sent", "accepted"),
        ("sent", "in_summary"),
    ]
    assert hands.rows("SELECT DISTINCT status FROM notifications") == [("sent",)]


def test_more_than_a_round_takes_is_still_one_summary(hands: Hands) -> None:
    request = SendIn(user_ids=["ada", "bob"], title="T", message="M", channel="email")
    hands.quiet(user="bob")
    for _ in range(400):
        hands.service.store.run(hands.service.send_write(request, "local"))
    assert hands.go(hours=9) == 800
    mailed = hands.work("email")
    assert sorted((notice.user_id, notice.title) for notice in mailed) == [
        ("ada", "400 notifications"),
        ("bob", "400 notifications"),
    ]
    lines = mailed[0].message.splitlines()
    assert len(lines) == SUMMARY_LINES + 1
    assert lines[-1] == f"… and {400 - SUMMARY_LINES} more"


def test_one_alone_is_no_summary(hands: Hands) -> None:
    hands.send("Alone", "It is.", channel="email", actions=[{"label": "Open", "url": "https://example.org"}])
    hands.go(hours=9)
    (notice,) = hands.work("email")
    assert (notice.title, notice.message, len(notice.actions)) == ("Alone", "It is.", 1)


def test_who_gets_what_was_held_is_decided_when_it_is_let_go(hands: Hands) -> None:
    off = hands.send(notification_type="chat", channel="email")
    nowhere, gone = hands.send(channel="sms"), hands.send(channel="push")
    late = hands.send(channel="email", expires_at=hands.clock.at(hours=2))
    hands.service.update_notification_preference("ada", "chat", "*", False)
    hands.contact("ada", phone=None)
    phone = hands.service.list_devices("ada")[0]
    hands.service.store.run(hands.service.devices.remove_write(phone.id, None))
    hands.go(hours=9)
    assert hands.stands(off)["email"] == Stand("suppressed", "type_off")
    assert hands.stands(nowhere)["sms"] == Stand("failed", "no_address")
    assert hands.stands(gone)["push"] == Stand("failed", "no_device")
    assert hands.stands(late)["email"] == Stand("suppressed", "expired")
    assert [hands.notification(id_).status for id_ in (off, nowhere, gone, late)] == [
        "suppressed",
        "failed",
        "failed",
        "expired",
    ]
    assert hands.work("email") == hands.work("sms") == hands.work("fcm") == []


def test_read_in_the_quiet_it_does_not_go_out_after_it(hands: Hands) -> None:
    read, archived, snoozed, told = (hands.send(str(n), channels=["in_app", "email"]) for n in range(4))
    hands.service.mark_notification_as_read(read)
    hands.service.archive_notification(archived)
    hands.service.snooze_notification(snoozed, hands.clock.at(days=1))
    hands.go(hours=9)
    assert [notice.notification_id for notice in hands.work("email")] == [told]
    assert hands.stands(read)["email"] == READ_FIRST
    assert {hands.stands(id_)["email"].status for id_ in (archived, snoozed)} == {"suppressed"}


def test_quiet_hours_that_are_given_up_are_over_at_their_old_end_and_longer_ones_are_obeyed(hands: Hands) -> None:
    hands.send(channel="email")
    hands.quiet(end="08:00")
    hands.go(hours=8, minutes=30)
    assert hands.work("email") == []
    hands.go(hours=1)
    assert len(hands.work("email")) == 1


def test_what_is_critical_is_not_held(hands: Hands) -> None:
    hands.service.declare_type("fire", critical=True)
    id_ = hands.send(notification_type="fire", channel="email")
    assert hands.stands(id_)["email"] == QUEUED


# --- summaries and what becomes of their carrier ----------------------------------------------------------------------


def held(hands: Hands, *titles: str, **more: Any) -> list[str]:
    """Let go of these together, in the morning; the last carries the others."""
    ids = [hands.send(title, **{"channel": "email"} | more) for title in titles]
    hands.go(hours=9)
    assert [hands.stands(id_)["email"] for id_ in ids] == [IN_SUMMARY] * (len(ids) - 1) + [QUEUED]
    return ids


@pytest.mark.parametrize(
    ("outcome", "status"), [(DELIVERED, "delivered"), (REFUSED, "failed"), (BUSY, "failed")], ids=lambda o: str(o)[:30]
)
def test_what_is_in_a_summary_takes_its_fate(hands: Hands, outcome: Any, status: str) -> None:
    ids = held(hands, "a", "b", "c")
    for id_ in ids:
        assert hands.notification(id_).status == "pending"
    assert len(hands.work("email", outcome)) == 1
    for id_ in ids:
        assert hands.notification(id_).status == status
        assert hands.stands(id_)["email"].status == ("dead" if outcome is BUSY else status)


def test_a_summary_that_is_tried_again_still_carries_them_all(hands: Hands) -> None:
    ids = held(hands, "a", "b")
    claim = hands.claim("email")
    assert claim is not None
    hands.record(claim, BUSY, retry_in_s=60)
    assert [hands.stands(id_)["email"].status for id_ in ids] == ["pending", "pending"]
    hands.go(minutes=1)
    (notice,) = hands.work("email")
    assert notice.title == "2 notifications"


@pytest.mark.parametrize("end", ["cancelled", "expired", "read"])
def test_a_carrier_that_is_over_first_hands_the_summary_to_the_next(hands: Hands, end: str) -> None:
    channel = "push" if end == "read" else "email"
    ids = [hands.send(title, channel=channel) for title in ("a", "b")]
    ids.append(hands.send("c", channel=channel, expires_at=hands.clock.at(hours=10)))
    hands.go(hours=9)
    if end == "cancelled":
        hands.service.cancel_notification(ids[2])
    elif end == "read":
        hands.service.mark_notification_as_read(ids[2])
    else:
        hands.go(hours=2)
    assert hands.stands(ids[2])[channel].status == "suppressed"
    assert hands.stands(ids[0])[channel] == IN_SUMMARY
    assert hands.stands(ids[1])[channel] == QUEUED
    (notice,) = hands.work("fcm" if channel == "push" else "email")
    assert notice.message == "• b: M\n• a: M"
    assert [hands.notification(id_).status for id_ in ids[:2]] == ["sent", "sent"]


def test_the_outbox_is_told_when_another_carries_the_summary(hands: Hands) -> None:
    ids = held(hands, "a", "b")
    rung: list[str] = []
    hands.service.bus.subscribe(lambda events: rung.extend(e.id for e in events if e.kind == "outbox"))
    hands.service.cancel_notification(ids[1])
    assert rung == [hands.deliveries(ids[0])[0].id]


def test_one_that_is_over_leaves_the_summary_without_it(hands: Hands) -> None:
    ids = held(hands, "a", "b", "c")
    hands.service.cancel_notification(ids[1])
    (notice,) = hands.work("email")
    assert notice.message == "• c: M\n• a: M"
    assert hands.notification(ids[1]).status == "cancelled"
    assert hands.stands(ids[1])["email"] == Stand("suppressed", "cancelled")


@pytest.mark.parametrize("how", ["answered", "lost"])
def test_a_carrier_called_off_on_its_way_hands_over_once_it_did_not_arrive(hands: Hands, how: str) -> None:
    ids = held(hands, "a", "b", "c")
    claim = hands.claim("email")
    assert claim is not None
    hands.service.cancel_notification(ids[2])
    if how == "answered":
        hands.record(claim, BUSY, retry_in_s=60)
    else:
        hands.table.recover(all_leases=True)
    assert hands.stands(ids[2])["email"] == Stand("suppressed", "cancelled")
    (notice,) = hands.work("email")
    assert notice.message == "• b: M\n• a: M"
    assert hands.claim("email") is None


def test_a_summary_by_a_channel_that_is_configured_no_more_fails_whole(hands: Hands) -> None:
    ids = held(hands, "a", "b")
    hands.table.refuse_routes(["fcm"])
    assert [hands.notification(id_).status for id_ in ids] == ["failed", "failed"]


def test_what_was_in_a_summary_once_is_not_told_again_with_its_carrier(hands: Hands) -> None:
    ids = [hands.send(title, channel="push", collapse_key=title) for title in ("a", "b")]
    hands.go(hours=9)
    (summary,) = hands.work("fcm")
    assert summary.title == "2 notifications"
    assert hands.send("b again", channel="push", collapse_key="b") == ids[1]
    (update,) = hands.work("fcm")
    assert update.title == "b again (2)"


# --- digests and do not disturb ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frequency", "more", "ends"),
    [
        ("hourly", {}, datetime(2026, 6, 10, 13, tzinfo=UTC)),
        ("daily", {}, datetime(2026, 6, 11, 8, tzinfo=UTC)),
        ("daily", {"at": "18:15"}, datetime(2026, 6, 10, 18, 15, tzinfo=UTC)),
    ],
)
def test_a_digest_collects_and_is_told_at_once(
    tmp_path: Path, frequency: str, more: dict[str, str], ends: datetime
) -> None:
    hands = Hands(tmp_path)
    hands.digest(frequency, "news", **more)
    first = hands.send("a", notification_type="news", channels=["in_app", "email"])
    hands.clock.go(minutes=10)
    hands.send("b", notification_type="news", channel="email")
    assert hands.stands(hands.send("c", channel="email"))["email"] == QUEUED
    assert [notice.title for notice in hands.work("email")] == ["c"]
    (_, delivery) = hands.deliveries(first)
    assert (delivery.status, delivery.code, delivery.release_at) == ("held", "digest", ends)
    hands.clock.now = ends
    assert hands.service.release_due() == 2
    (notice,) = hands.work("email")
    assert notice.message == "• b: M\n• a: M"
    assert hands.go(days=3) == 0
    hands.service.close()


def test_send_now_lets_go_of_one_persons_digests_of_one_type(hands: Hands) -> None:
    hands.quiet(on=False)
    for user in ("ada", "bob"):
        hands.digest("daily", user=user)
    ids = {
        (user, kind): hands.send(kind, user=user, notification_type=kind, channel="email")
        for user in ("ada", "bob")
        for kind in ("news", "chat")
    }
    assert hands.service.send_digest_now("ada", "news").released == 1
    assert [(notice.user_id, notice.title) for notice in hands.work("email")] == [("ada", "news")]
    assert hands.service.send_digest_now("ada").released == 1
    assert hands.service.send_digest_now("ada").released == 0
    assert hands.service.send_digest_now("bob").released == 2
    assert [(notice.user_id, notice.title) for notice in hands.work("email")] == [
        ("ada", "chat"),
        ("bob", "2 notifications"),
    ]
    assert {hands.notification(id_).status for id_ in ids.values()} == {"sent"}


def test_a_digest_that_ends_in_quiet_hours_is_told_after_them_and_not_a_day_later(hands: Hands) -> None:
    hands.digest("daily", at="06:00")
    id_ = hands.send(channel="email")
    hands.go(hours=7, minutes=30)
    assert hands.stands(id_)["email"] == QUIET
    hands.go(hours=1)
    assert hands.stands(id_)["email"] == QUEUED


def test_a_digest_and_quiet_hours_that_take_turns_come_to_an_end(hands: Hands) -> None:
    hands.digest("hourly")
    id_ = hands.send(channel="email")
    for _ in range(24):
        hands.go(hours=1)
    assert hands.stands(id_)["email"] == QUEUED


def test_do_not_disturb_holds_until_it_ends_or_is_prolonged(tmp_path: Path) -> None:
    hands = Hands(tmp_path)
    hands.disturb_not(hours=1)
    ids = [hands.send(channel="push") for _ in range(2)]
    assert {hands.stands(id_)["push"] for id_ in ids} == {Stand("held", "do_not_disturb")}
    hands.go(minutes=30)
    hands.disturb_not(hours=1)
    hands.go(minutes=31)
    assert hands.work("fcm") == []
    hands.go(minutes=30)
    assert [notice.title for notice in hands.work("fcm")] == ["2 notifications"]
    hands.service.close()


# --- scheduled --------------------------------------------------------------------------------------------------------


def test_what_was_scheduled_is_held_and_throttled_like_anything_else(hands: Hands) -> None:
    hands.service.declare_type("chat", throttle={"limit": 1, "minutes": 60})
    at = hands.clock.at(hours=1)
    ids = [hands.send(channel="email", notification_type="chat", scheduled_at=at) for _ in range(3)]
    hands.go(hours=1)
    assert [hands.stands(id_)["email"] for id_ in ids] == [QUIET, *[Stand("suppressed", "throttled")] * 2]
    assert hands.stands(hands.send(channel="email", notification_type="chat"))["email"].code == "throttled"


def test_a_category_that_is_off_is_off_for_what_was_scheduled_held_or_failed_too(hands: Hands) -> None:
    hands.service.create_notification_template("t", "A", "B", channels=["email"], category="offers")
    held = hands.service.send_notification("ada", template="t").notification_id
    later = hands.service.send_notification("ada", template="t", scheduled_at=hands.clock.at(hours=1)).notification_id
    failed = hands.service.send_notification("bob", template="t").notification_id
    hands.work("email", REFUSED)
    for user in ("ada", "bob"):
        hands.service.update_notification_preference(user, "category:offers", "*", False)
    hands.go(hours=9)
    assert hands.stands(held)["email"] == hands.stands(later)["email"] == Stand("suppressed", "category_off")
    with pytest.raises(Conflict, match="offers"):
        hands.service.retry_notification(failed)


def test_of_scheduling_and_expiring_whatever_comes_first_happens_once(hands: Hands) -> None:
    hands.quiet(on=False)
    kept = hands.send(channel="email", scheduled_at=hands.clock.at(hours=1), expires_at=hands.clock.at(hours=3))
    missed = hands.send(channel="email", scheduled_at=hands.clock.at(hours=1), expires_at=hands.clock.at(hours=2))
    off = hands.send(channel="email", scheduled_at=hands.clock.at(hours=1))
    hands.service.cancel_notification(off)
    hands.go(hours=2, minutes=30)
    assert [hands.notification(id_).status for id_ in (kept, missed, off)] == ["pending", "expired", "cancelled"]
    assert [notice.notification_id for notice in hands.work("email")] == [kept]
    assert [hands.go(days=1), hands.go(days=1)] == [1, 0]
    assert hands.notification(kept).status == "expired"


def test_what_has_expired_is_not_sent_even_before_anybody_noticed(hands: Hands) -> None:
    hands.quiet(on=False)
    late = hands.send("late", channel="email", expires_at=hands.clock.at(hours=1))
    hands.send("good", channel="email")
    hands.clock.go(hours=2)
    assert [notice.title for notice in hands.work("email")] == ["good"]
    assert hands.stands(late)["email"] == Stand("suppressed", "expired")
    hands.service.release_due()
    assert hands.notification(late).status == "expired"


def test_an_idle_second_writes_nothing(hands: Hands) -> None:
    archived = hands.send(expires_at=hands.clock.at(hours=1))
    read = hands.send(expires_at=hands.clock.at(hours=1))
    hands.service.archive_notification(archived)
    hands.service.mark_notification_as_read(read)
    hands.send(channel="email")
    hands.clock.go(hours=2)
    assert hands.service.store.read(lambda conn: hands.service.due_release.due(conn, hands.clock.now_ms())) == []


# --- fail-over chains -------------------------------------------------------------------------------------------------


def test_a_chain_goes_on_as_long_as_nobody_reads(chain: Hands) -> None:
    id_ = alarm(chain)
    assert chain.stands(id_) == {
        "in_app": Stand("delivered", None),
        "push": QUEUED,
        "email": Stand("held", "failover"),
        "sms": Stand("held", "failover"),
    }
    assert len(chain.work("fcm")) == 1
    chain.go(minutes=4, seconds=59)
    assert chain.work("email") == []
    chain.go(seconds=1)
    assert len(chain.work("email")) == 1
    assert chain.work("sms") == []
    chain.go(minutes=10)
    assert len(chain.work("sms")) == 1
    assert chain.go(days=1) == 0


@pytest.mark.parametrize("how", ["mark_notification_as_read", "archive_notification", "snooze", "all"])
def test_whoever_has_dealt_with_it_is_told_by_no_further_stage(chain: Hands, how: str) -> None:
    id_ = alarm(chain)
    chain.work("fcm")
    chain.go(minutes=5)
    chain.work("email")
    if how == "snooze":
        chain.service.snooze_notification(id_, chain.clock.at(hours=1))
    elif how == "all":
        chain.service.mark_all_as_read("ada")
    else:
        getattr(chain.service, how)(id_)
    assert chain.stands(id_)["sms"].status == "suppressed"
    if how in {"mark_notification_as_read", "all"}:
        assert chain.stands(id_)["sms"] == READ_FIRST
    chain.go(hours=3)
    assert chain.work("sms") == []


def test_a_stage_that_fails_makes_the_next_begin_at_once_and_only_the_next(chain: Hands) -> None:
    id_ = alarm(chain)
    chain.work("fcm", REFUSED)
    chain.go()
    assert chain.stands(id_)["email"] == QUEUED
    assert chain.stands(id_)["sms"] == Stand("held", "failover")
    chain.work("email", BUSY)
    chain.go()
    assert chain.stands(id_)["sms"] == QUEUED


def test_as_long_as_one_of_a_stages_devices_was_reached_the_next_waits(chain: Hands) -> None:
    chain.service.register_device_token("ada", "ada's tablet", "ios")
    id_ = alarm(chain)
    chain.work("fcm")
    chain.work("apns", REFUSED)
    chain.go()
    assert chain.stands(id_)["email"] == Stand("held", "failover")
    chain.go(minutes=5)
    chain.work("email", REFUSED)
    chain.go()
    assert chain.stands(id_)["sms"] == Stand("held", "failover")
    chain.go(minutes=10)
    assert chain.stands(id_)["sms"] == QUEUED


@pytest.mark.parametrize("end", ["lost", "not configured", "device gone"])
def test_however_a_stage_ends_the_next_begins(chain: Hands, end: str) -> None:
    id_ = alarm(chain)
    if end == "lost":
        for _ in range(INTERRUPTED_MOST):
            assert chain.claim("fcm") is not None
            chain.table.recover(all_leases=True)
    elif end == "not configured":
        chain.table.refuse_routes(["email", "sms"])
    else:
        phone = chain.service.list_devices("ada")[0]
        chain.service.store.run(chain.service.devices.remove_write(phone.id, None))
        assert chain.claim("fcm") is None
    chain.go()
    assert chain.stands(id_)["push"].status in {"failed", "dead"}
    assert chain.stands(id_)["email"] == QUEUED


def test_a_stage_whose_address_is_gone_by_its_time_passes_its_turn_on(chain: Hands) -> None:
    chain.service.store.run(chain.service.devices.remove_write(chain.service.list_devices("ada")[0].id, None))
    id_ = alarm(chain, scheduled_at=chain.clock.at(hours=1))
    chain.quiet("12:00", "14:00")
    chain.go(hours=1)
    assert chain.stands(id_)["email"] == QUIET
    chain.contact("ada", email=None)
    chain.go(hours=1)
    assert chain.stands(id_)["email"] == Stand("failed", "no_address")
    assert chain.stands(id_)["sms"] == QUEUED


def test_a_turn_that_cannot_be_taken_is_the_next_ones(chain: Hands) -> None:
    id_ = alarm(chain)
    chain.work("fcm", REFUSED)
    chain.contact("ada", email=None)
    chain.go()
    assert chain.stands(id_)["email"] == Stand("failed", "no_address")
    assert chain.stands(id_)["sms"] == QUEUED


def test_a_chain_begins_when_the_quiet_is_over(chain: Hands) -> None:
    chain.quiet("11:00", "13:00")
    id_ = alarm(chain)
    assert [chain.stands(id_)[channel] for channel in ("push", "email", "sms")] == [QUIET] * 3
    chain.go(hours=1)
    assert [chain.stands(id_)[channel].code for channel in ("push", "email", "sms")] == [
        "queued",
        "failover",
        "failover",
    ]
    chain.work("fcm")
    chain.go(minutes=5)
    assert [chain.stands(id_)[channel].code for channel in ("email", "sms")] == ["queued", "failover"]


def test_a_turn_that_comes_in_quiet_hours_is_taken_after_them_with_what_else_waited(chain: Hands) -> None:
    chain.quiet("12:03", "13:00")
    ids = [alarm(chain, title="a"), alarm(chain, title="b")]
    chain.work("fcm")
    chain.go(minutes=20)
    assert {chain.stands(id_)["email"].status for id_ in ids} == {"held"}
    chain.go(minutes=40)
    assert [notice.title for notice in chain.work("email")] == ["2 notifications"]
    assert [notice.title for notice in chain.work("sms")] == ["2 notifications"]


@pytest.mark.parametrize("holds", ["digest", "quiet"])
def test_whatever_holds_a_chain_every_stage_has_its_turn(chain: Hands, holds: str) -> None:
    """Neither waits for the other for ever: digest, then chain, then digest; night, then chain, then night."""
    long = [{"channel": "push", "after_minutes": 0}, {"channel": "email", "after_minutes": 15 * 60}]
    chain.service.declare_type("slow", channels=["in_app"], failover=long)
    if holds == "digest":
        chain.digest("hourly")
    else:
        chain.quiet("22:00", "07:00")
        chain.clock.go(hours=11)
    id_ = alarm(chain, notification_type="slow")
    for _ in range(60):
        chain.go(hours=1)
    chain.work("fcm")
    assert len(chain.work("email")) == 1
    assert chain.stands(id_)["email"].status == "sent"


def test_a_chain_that_names_no_beginning_begins_with_the_other_channels(chain: Hands) -> None:
    stages = [{"channel": "email", "after_minutes": 10}, {"channel": "sms", "after_minutes": 20}]
    chain.service.declare_type("late", channels=["push"], failover=stages)
    by_push = alarm(chain, notification_type="late")
    assert [chain.stands(by_push)[channel].code for channel in ("push", "email", "sms")] == [
        "queued",
        "failover",
        "failover",
    ]
    alone = alarm(chain, notification_type="late", channels=["email", "sms"])
    assert chain.stands(alone) == {"email": QUEUED, "sms": Stand("held", "failover")}


# --- a clock that jumps -----------------------------------------------------------------------------------------------


def test_days_asleep_and_each_thing_happens_once(hands: Hands) -> None:
    scheduled = hands.send("s", channel="email", scheduled_at=hands.clock.at(hours=1))
    waiting = hands.send("h", channel="email")
    snoozed = hands.send("z")
    hands.service.snooze_notification(snoozed, hands.clock.at(hours=2))
    expired = hands.send("x", expires_at=hands.clock.at(hours=3))
    moved = hands.go(days=5)
    assert moved >= 4
    assert hands.go() == 0
    # Five days on it is again 22:30, and quiet: what was scheduled and what was held are let go together at its end.
    hands.go(hours=9)
    (notice,) = hands.work("email")
    assert notice.message == "• h: M\n• s: M"
    assert [hands.notification(id_).status for id_ in (scheduled, waiting)] == ["sent", "sent"]
    assert hands.notification(snoozed).inbox == "unread"
    assert hands.notification(expired).status == "expired"
    hands.clock.go(days=-5)
    assert hands.service.release_due() == 0
    assert hands.work("email") == []
    assert hands.notification(snoozed).inbox == "unread"


def test_a_snoozed_notice_wakes_once(hands: Hands) -> None:
    id_ = hands.send()
    with pytest.raises(ValidationError):
        hands.service.snooze_notification(id_, hands.clock.now)
    hands.service.snooze_notification(id_, hands.clock.at(hours=1))
    assert (hands.notification(id_).inbox, hands.service.unread_count("ada")) == ("snoozed", 0)
    assert hands.go(minutes=59) == 0
    assert hands.go(minutes=1) == 1
    assert (hands.notification(id_).inbox, hands.service.unread_count("ada")) == ("unread", 1)
    hands.service.mark_notification_as_read(id_)
    hands.clock.go(hours=-2)
    assert hands.service.release_due() == 0
    assert hands.go(hours=9) == 0
    assert hands.notification(id_).inbox == "read"


@pytest.mark.parametrize("again", [False, True], ids=["running", "started again"])
def test_a_clock_that_was_years_ahead_leaves_nothing_behind(hands: Hands, again: bool) -> None:
    """The battery's clock said 2035 until the network set it right."""
    today = hands.clock.now
    hands.quiet(on=False)
    hands.clock.now = today.replace(year=2035, hour=12)
    hands.service.declare_type("alarm", channels=["in_app"], failover=CHAIN)
    busy, under_way, stages = (
        hands.send("b", channel="sms"),
        hands.send("u", channel="slack"),
        hands.send("c", notification_type="alarm"),
    )
    hands.work("sms", BUSY, retry_in_s=60)
    hands.work("fcm")
    assert hands.claim("slack") is not None
    hands.quiet("11:00", "13:00")
    quiet = hands.send("q", channel="email")
    hands.digest("daily")
    digest = hands.send("d", channel="push")
    hands.service.release_due()

    hands.clock.now = today.replace(hour=14)
    if again:
        hands.open_again()
    hands.service.release_due()
    hands.go(minutes=1)
    assert hands.table.recover(all_leases=False) == 1
    assert [notice.notification_id for notice in hands.work("sms")] == [busy]
    assert [notice.notification_id for notice in hands.work("slack")] == [under_way]
    assert [notice.notification_id for notice in hands.work("email")] == [quiet]
    assert hands.stands(stages)["email"] == Stand("held", "failover")
    hands.go(minutes=4)
    assert [notice.notification_id for notice in hands.work("email")] == [stages]
    hands.go(minutes=10)
    assert [notice.notification_id for notice in hands.work("sms")] == [stages]
    hands.go(days=1)
    assert [notice.notification_id for notice in hands.work("fcm")] == [digest]
