"""At most so many of a type, to one user by one channel, within so many minutes; counted where something goes out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashflow.backend.schemas.requests import SendIn
from tests.support.examples import examples
from tests.support.fixed_clock import StillClock
from tests.support.outbox_driver import Hands, Stand

THROTTLED = Stand("suppressed", "throttled")
LIMIT, MINUTES = 3, 60


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    hands = Hands(tmp_path, None, "ada", "bob")
    hands.service.declare_type("chat", throttle={"limit": LIMIT, "minutes": MINUTES})
    yield hands
    hands.service.close()


def chat(hands: Hands, channel: str = "email", user: str = "ada", kind: str = "chat") -> str | None:
    """Send one; the code of its delivery."""
    id_ = hands.send(user=user, channel=channel, notification_type=kind)
    return hands.stands(id_)[channel].code


def test_the_fourth_within_the_hour_is_kept_back_and_says_by_which_rule(hands: Hands) -> None:
    for _ in range(LIMIT):
        assert chat(hands) == "queued"
        hands.clock.go(minutes=10)
    sent = hands.sent(channel="email", notification_type="chat")
    (delivery,) = sent.deliveries
    assert (sent.status, delivery.status) == ("suppressed", "suppressed")
    assert delivery.reason == "At most 3 of “chat” in 60 minutes."
    assert len(hands.work("email")) == LIMIT


def test_the_window_slides(hands: Hands) -> None:
    for _ in range(LIMIT):
        chat(hands)
        hands.clock.go(minutes=10)
    hands.clock.go(minutes=29, seconds=59)
    assert chat(hands) == "throttled"
    hands.clock.go(seconds=1)
    assert chat(hands) == "queued"
    assert chat(hands) == "throttled"
    hands.clock.go(minutes=10)
    assert chat(hands) == "queued"


def test_every_user_channel_and_type_counts_for_itself_and_the_inbox_never(hands: Hands) -> None:
    hands.service.declare_type("mail", throttle={"limit": LIMIT, "minutes": MINUTES})
    for _ in range(LIMIT):
        chat(hands)
    assert chat(hands) == "throttled"
    assert chat(hands, "sms") == chat(hands, "push") == chat(hands, kind="mail") == chat(hands, user="bob") == "queued"
    assert [chat(hands, "in_app") for _ in range(5)] == [None] * 5


def test_what_does_not_go_out_does_not_count(hands: Hands) -> None:
    hands.contact("ada", email=None)
    for _ in range(5):
        assert chat(hands) == "no_address"
    hands.contact("ada", email="ada@example.org")
    hands.service.update_notification_preference("ada", "chat", "email", False)
    for _ in range(5):
        assert chat(hands) == "type_channel_off"
    hands.service.update_notification_preference("ada", "chat", "email", True)
    assert [chat(hands) for _ in range(4)] == ["queued"] * 3 + ["throttled"]
    hands.clock.go(hours=1)
    assert chat(hands) == "queued", "a refusal is not a use"


def test_what_is_held_counts_once_and_is_not_throttled_when_it_is_let_go(hands: Hands) -> None:
    hands.quiet("11:00", "13:00")
    ids = [hands.send(channel="email", notification_type="chat") for _ in range(4)]
    assert [hands.stands(id_)["email"].code for id_ in ids] == ["quiet_hours"] * 3 + ["throttled"]
    hands.clock.go(minutes=59)
    hands.quiet(on=False)
    hands.go(minutes=1)
    assert [notice.title for notice in hands.work("email")] == ["3 notifications"]


def test_what_is_critical_passes(hands: Hands) -> None:
    hands.service.declare_type("fire", critical=True, throttle={"limit": 1, "minutes": 60})
    assert [chat(hands, kind="fire") for _ in range(4)] == ["queued"] * 4


def test_a_new_rule_counts_from_what_it_knows(hands: Hands) -> None:
    chat(hands)
    chat(hands)
    hands.service.declare_type("chat", throttle={"limit": 1, "minutes": 10})
    assert chat(hands) == "throttled"
    hands.service.declare_type("chat")
    assert chat(hands) == "queued"


def test_of_many_at_once_only_so_many_pass(hands: Hands) -> None:
    hands.service.declare_type("flood", throttle={"limit": LIMIT, "minutes": MINUTES})
    for _ in range(5):
        request = SendIn(user_ids=["ada", "bob"], title="T", message="M", channel="email", notification_type="flood")
        hands.service.store.run(hands.service.send_write(request, "local"))
    assert len(hands.work("email")) == 2 * LIMIT


def test_a_clock_that_was_set_back_throttles_nobody_for_years(hands: Hands) -> None:
    today = hands.clock.now
    hands.clock.now = today.replace(year=2035)
    for _ in range(LIMIT):
        chat(hands)
    assert chat(hands) == "throttled"
    hands.clock.now = today
    assert [chat(hands) for _ in range(4)] == ["queued"] * 3 + ["throttled"]
    hands.clock.go(minutes=-30)
    assert chat(hands) == "throttled", "half an hour back is still the same window"


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 4), minutes=st.integers(1, 60), gaps=st.lists(st.integers(0, 45), min_size=1, max_size=14))
def test_no_window_ever_holds_more_than_the_limit_and_none_is_kept_back_needlessly(
    tmp_path_factory: pytest.TempPathFactory, limit: int, minutes: int, gaps: list[int]
) -> None:
    hands = Hands(tmp_path_factory.mktemp("throttle"), StillClock())
    hands.service.declare_type("chat", throttle={"limit": limit, "minutes": minutes})
    passed: list[object] = []
    window = timedelta(minutes=minutes)
    for gap in gaps:
        hands.clock.go(minutes=gap)
        now = hands.clock.now
        recent = [at for at in passed if now - at < window]  # type: ignore[operator]
        assert (chat(hands) == "queued") is (len(recent) < limit)
        if len(recent) < limit:
            passed.append(now)
    hands.service.close()
