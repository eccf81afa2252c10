"""Who gets what: the resolver alone, and the preferences as a person sets them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashflow.backend import NotificationService, ValidationError
from flashflow.backend.domain.delivery_policy import PolicyInputs, Target, decide
from flashflow.backend.domain.preferences import may_use
from flashflow.backend.schemas.records import CHANNELS
from tests.support.fixed_clock import StillClock

TYPES = ("builds", "chat")
ANY = "*"

choices = st.dictionaries(st.tuples(st.sampled_from([*TYPES, ANY]), st.sampled_from([*CHANNELS, ANY])), st.booleans())
devices = st.lists(
    st.builds(Target, st.integers(1, 99), st.sampled_from(["ios", "android", "web", "desktop"]), st.booleans()),
    max_size=3,
)
asked = st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=6)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[NotificationService]:
    with NotificationService(tmp_path / "n.db", clock=StillClock()) as service:
        yield service


def facts(kind: str, channels: list[str], made: dict[tuple[str, str], bool], reach: list[Target]) -> PolicyInputs:
    return PolicyInputs(notification_type=kind, channels=channels, choices=made, devices=reach)


# --- the resolver, a pure function ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(made=choices, kind=st.sampled_from(TYPES), channels=asked, reach=devices)
def test_a_channel_that_is_switched_off_is_always_obeyed(
    made: dict[tuple[str, str], bool], kind: str, channels: list[str], reach: list[Target]
) -> None:
    for off in CHANNELS:
        decided = decide(facts(kind, channels, made | {(ANY, off): False}, reach))
        assert {d.status for d in decided if d.channel == off} <= {"suppressed"}
        assert {d.code for d in decided if d.channel == off} <= {"channel_off"}


@settings(deadline=None)
@given(made=choices, kind=st.sampled_from(TYPES), channel=st.sampled_from(CHANNELS))
def test_else_the_most_specific_choice_wins(made: dict[tuple[str, str], bool], kind: str, channel: str) -> None:
    allowed, _, _ = may_use(made, kind, channel)
    if made.get((ANY, channel)) is False:
        assert not allowed
        return
    for place in ((kind, channel), (kind, ANY), (ANY, channel), (ANY, ANY)):
        if place in made:
            assert allowed is made[place]
            return
    assert allowed


@settings(deadline=None)
@given(made=choices, kind=st.sampled_from(TYPES), channels=asked, reach=devices)
def test_every_channel_asked_for_is_answered_and_every_no_has_its_reason(
    made: dict[tuple[str, str], bool], kind: str, channels: list[str], reach: list[Target]
) -> None:
    decided = decide(facts(kind, channels, made, reach))
    assert list(dict.fromkeys(d.channel for d in decided)) == list(dict.fromkeys(channels))
    for decision in decided:
        allowed, code, reason = may_use(made, kind, decision.channel)
        assert (decision.status == "suppressed") is not allowed
        if not allowed:
            assert (decision.code, decision.reason) == (code, reason)
        if decision.status != "delivered":
            assert decision.code
            assert decision.reason
        assert decision.status != "sent"
    assert [d.status for d in decided if d.channel == "in_app"] in ([], ["delivered"], ["suppressed"])


@settings(deadline=None)
@given(made=choices, others=choices, kind=st.sampled_from(TYPES), channel=st.sampled_from(CHANNELS))
def test_choices_about_other_types_and_channels_change_nothing(
    made: dict[tuple[str, str], bool], others: dict[tuple[str, str], bool], kind: str, channel: str
) -> None:
    unrelated = {
        place: choice
        for place, choice in others.items()
        if place not in made and (place[0] not in {kind, ANY} or place[1] not in {channel, ANY})
    }
    assert may_use(made | unrelated, kind, channel) == may_use(made, kind, channel)


@settings(deadline=None)
@given(reach=devices)
def test_push_is_decided_for_each_device_on_its_own(reach: list[Target]) -> None:
    decided = decide(facts("builds", ["push"], {}, reach))
    if not reach:
        assert [(d.status, d.code) for d in decided] == [("failed", "no_device")]
    else:
        assert [d.device_seq for d in decided] == [target.seq for target in reach]
        assert [d.status == "pending" for d in decided] == [
            target.is_this_computer and target.platform == "desktop" for target in reach
        ]


# --- as a person sets them --------------------------------------------------------------------------------------------


def test_the_matrix_shows_what_takes_effect_and_why(service: NotificationService) -> None:
    service.declare_type("builds", label="Builds", channels=["in_app", "push"])
    service.update_notification_preference("ada", "builds", "in_app", False)
    service.update_notification_preference("ada", "*", "sms", False)
    service.update_notification_preference("ada", "builds", "sms", True)
    matrix = service.get_preferences("ada")
    assert [(p.notification_type, p.channel, p.enabled) for p in matrix.preferences] == [
        ("*", "sms", False),
        ("builds", "in_app", False),
        ("builds", "sms", True),
    ]
    rows = {row.name: row for row in matrix.types}
    assert set(rows) == {"general", "builds"}
    assert rows["builds"].channels == {"in_app": False, "push": True, "email": True, "sms": False}
    assert rows["general"].channels == {"in_app": True, "push": True, "email": True, "sms": False}
    assert "turned SMS off" in rows["builds"].reasons["sms"]
    assert rows["general"].reasons["email"] == "On by default."


def test_the_matrix_says_what_sending_does(service: NotificationService) -> None:
    service.update_notification_preference("ada", "*", "*", False)
    service.update_notification_preference("ada", "builds", "*", True)
    service.update_notification_preference("ada", "builds", "email", False)
    for kind in ("builds", "chat"):
        sent = service.send_notification("ada", "T", "M", notification_type=kind, channels=list(CHANNELS))
        row = next(row for row in service.get_preferences("ada").types if row.name == kind)
        assert {d.channel: d.status != "suppressed" for d in sent.deliveries} == row.channels
        assert all(row.reasons[d.channel] == d.reason for d in sent.deliveries if d.status == "suppressed")


def test_the_last_choice_on_a_place_stands_and_is_nobody_elses(service: NotificationService) -> None:
    for enabled in (False, True, False):
        choice = service.update_notification_preference("ada", "builds", "in_app", enabled)
        assert choice.enabled is enabled
    assert [p.enabled for p in service.get_preferences("ada").preferences] == [False]
    assert service.get_preferences("bob").preferences == ()
    assert service.send_notification("bob", "T", "M", notification_type="builds").status == "delivered"
    with pytest.raises(ValidationError):
        service.update_notification_preference("ada", "builds", "pigeon", True)
    with pytest.raises(ValidationError):
        service.update_notification_preference("ada", "builds", "in_app", "no")  # type: ignore[arg-type]


def test_critical_is_kept_but_passes_no_switch(service: NotificationService) -> None:
    service.declare_type("alarm", critical=True)
    service.update_notification_preference("ada", "*", "in_app", False)
    assert service.send_notification("ada", "T", "M", notification_type="alarm").status == "suppressed"
