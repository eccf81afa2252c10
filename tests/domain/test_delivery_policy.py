"""Who gets what: every decision has its reason, comes in the promised order, and leaves no notice without a way out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashflow.backend.domain.delivery_policy import SYSTEMS, Decision, PolicyInputs, Target, decide
from flashflow.backend.domain.preferences import may_use
from flashflow.backend.domain.quiet_hours import Digest, QuietHours
from tests.support.examples import examples

NOW = 1_780_000_000_000
MINUTE = 60_000
BUILDS, CATEGORY = "builds", "work"
CHANNELS = ("in_app", "push", "email", "sms", "slack")
ROUTES = ("desktop", "fcm", "apns", "webpush", "email", "sms", "slack")
ALIVE = {"pending", "delivered", "held"}
PASSED_BY_CRITICAL = {"throttled", "digest", "do_not_disturb", "quiet_hours"}
ALL_DAY = QuietHours(start="00:00", end="00:00", zone="UTC", days=("mon", "tue", "wed", "thu", "fri"))

channels = st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=6)
places = st.tuples(
    st.sampled_from([BUILDS, "*", f"category:{CATEGORY}"]), st.sampled_from([*CHANNELS, "*"])
)  # fmt: skip
timestamps = st.sampled_from([None, NOW - 1, NOW, NOW + 1, NOW + 10**9])
devices = st.lists(
    st.builds(Target, st.integers(1, 99), st.sampled_from(sorted(SYSTEMS)), st.booleans()),
    max_size=3,
    unique_by=lambda target: target.seq,
)
quiet = st.builds(
    QuietHours,
    start=st.sampled_from(["00:00", "08:30", "22:00"]),
    end=st.sampled_from(["00:00", "07:00", "23:30"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata"]),
    days=st.lists(st.sampled_from(["mon", "thu", "fri", "sun"]), min_size=1, unique=True).map(tuple),
)
digests = st.builds(
    Digest, frequency=st.sampled_from(["hourly", "daily"]), zone=st.just("Europe/Berlin"), at=st.just("08:00")
)
all_facts = st.builds(
    PolicyInputs,
    notification_type=st.just(BUILDS),
    channels=channels,
    choices=st.dictionaries(places, st.booleans(), max_size=5),
    devices=devices,
    category=st.sampled_from([None, CATEGORY]),
    critical=st.booleans(),
    now_ms=st.just(NOW) | st.integers(NOW, NOW + 7 * 24 * 60 * MINUTE),
    expires_at=timestamps,
    routes=st.frozensets(st.sampled_from(ROUTES)),
    addresses=st.frozensets(st.sampled_from(["email", "sms"])),
    throttled=st.dictionaries(st.sampled_from(CHANNELS[1:]), st.just("At most 3."), max_size=2),
    digest=st.none() | digests,
    quiet=st.none() | quiet,
    dnd_until=timestamps,
    failover=st.dictionaries(st.sampled_from(CHANNELS), st.sampled_from([0, 1, 5, 60]), max_size=4),
)


def facts(**changes: Any) -> PolicyInputs:
    """Everything configured, nothing in the way: one phone, one e-mail address, one number."""
    return PolicyInputs(
        **{
            "notification_type": BUILDS,
            "channels": ["push"],
            "choices": {},
            "devices": [Target(1, "android", False)],
            "now_ms": NOW,
            "routes": frozenset(ROUTES),
            "addresses": frozenset({"email", "sms"}),
        }
        | changes
    )


def brief(decisions: tuple[Decision, ...]) -> dict[str, tuple[str, str | None, int | None]]:
    """Channel → status, code, and minutes from now."""
    return {
        d.channel: (d.status, d.code, None if d.due is None else (d.due - NOW) // MINUTE) for d in decisions
    }  # fmt: skip


def way(asked: PolicyInputs, decision: Decision) -> str:
    """The code of what keeps a decision's channel from the user altogether; empty where it can be reached."""
    if decision.channel == "push":
        target = next((t for t in asked.devices if t.seq == decision.device_seq), None)
        if target is None:
            return "no_device"
        if target.platform == "desktop" and not target.is_this_computer:
            return "other_computer"
        systems = {SYSTEMS[target.platform]} | ({"fcm"} if target.platform == "ios" else set())
        return "" if systems & asked.routes else "not_configured"
    if decision.channel not in asked.routes:
        return "not_configured"
    if decision.channel in {"email", "sms"} and decision.channel not in asked.addresses:
        return "no_address"
    return ""


def promised(asked: PolicyInputs, decision: Decision) -> tuple[str, str | None]:
    """Status and code by the order of the module's docstring, the chain left aside."""
    may = may_use(asked.choices, BUILDS, decision.channel, asked.category)
    quiet_until = None if asked.quiet is None else asked.quiet.until(asked.now_ms)
    rules: list[tuple[bool, str, str | None]] = [
        (not may.allowed, "suppressed", may.code),
        (asked.expires_at is not None and asked.expires_at <= asked.now_ms, "suppressed", "expired"),
        (decision.channel == "in_app", "delivered", None),
        (bool(missing := way(asked, decision)), "failed", missing),
    ]
    if not asked.critical:
        rules += [
            (decision.channel in asked.throttled, "suppressed", "throttled"),
            (asked.digest is not None, "held", "digest"),
            (asked.dnd_until is not None and asked.dnd_until > asked.now_ms, "held", "do_not_disturb"),
            (quiet_until is not None, "held", "quiet_hours"),
        ]
    rules.append((asked.failover.get(decision.channel, 0) > 0, "held", "failover"))
    return next(((status, code) for applies, status, code in rules if applies), ("pending", "queued"))


@settings(deadline=None, max_examples=examples(600))
@given(asked=all_facts)
def test_every_channel_asked_for_gets_the_first_decision_that_applies(asked: PolicyInputs) -> None:
    decided = decide(asked)
    assert list(dict.fromkeys(d.channel for d in decided)) == list(dict.fromkeys(asked.channels))
    for decision in decided:
        status, code = promised(asked, decision)
        begun = code == "failover" and decision.status == "pending"
        assert (decision.status, decision.code) == ("pending", "queued") if begun else (status, code)
        assert (decision.reason is None) == (decision.status == "delivered")
    pushed = [d.device_seq for d in decided if d.channel == "push"]
    assert pushed in ([], [None], [target.seq for target in asked.devices])


@settings(deadline=None, max_examples=examples(600))
@given(asked=all_facts)
def test_what_is_held_has_its_end_and_what_is_pending_its_route(asked: PolicyInputs) -> None:
    for decision in decide(asked):
        assert decision.status in {"delivered", "pending", "held", "suppressed", "failed"}
        if decision.status == "held":
            assert decision.code in PASSED_BY_CRITICAL | {"failover"}
            assert decision.due is not None
            assert decision.due > asked.now_ms
        elif decision.status == "pending":
            assert decision.due == asked.now_ms
        else:
            assert decision.due is None
        if decision.status in {"held", "pending"}:
            assert decision.route in asked.routes


@settings(deadline=None, max_examples=examples(600))
@given(asked=all_facts)
def test_critical_passes_throttle_digest_and_quiet_and_nothing_else(asked: PolicyInputs) -> None:
    usual = decide(msgspec.structs.replace(asked, critical=False))
    critical = decide(msgspec.structs.replace(asked, critical=True))
    assert not {d.code for d in critical} & PASSED_BY_CRITICAL
    free = {"digest": None, "quiet": None, "dnd_until": None, "throttled": {}}
    assert critical == decide(msgspec.structs.replace(asked, critical=False, **free))
    for before, after in zip(usual, critical, strict=True):
        if before.code not in PASSED_BY_CRITICAL | {"failover", "queued"}:
            assert after == before


@settings(deadline=None, max_examples=examples(300))
@given(asked=all_facts, critical=st.booleans(), off=st.sampled_from(CHANNELS))
def test_an_explicit_off_is_obeyed_by_everything(asked: PolicyInputs, critical: bool, off: str) -> None:
    said = {**asked.choices, ("*", off): False}
    decided = decide(msgspec.structs.replace(asked, choices=said, critical=critical))
    assert {(d.status, d.code) for d in decided if d.channel == off} <= {("suppressed", "channel_off")}


calm_facts = st.builds(
    msgspec.structs.replace,
    all_facts,
    channels=st.permutations(CHANNELS),
    choices=st.dictionaries(st.tuples(st.just("*"), st.sampled_from(CHANNELS)), st.just(False), max_size=2),
    expires_at=st.none(),
    digest=st.none(),
    quiet=st.none(),
    dnd_until=st.none(),
)
"""Nothing holds all the channels back, so that what is left is the chain."""


@settings(deadline=None, max_examples=examples(300))
@given(asked=calm_facts | all_facts)
def test_a_chain_is_never_a_dead_end(asked: PolicyInputs) -> None:
    decided = decide(asked)
    waiting = [d for d in decided if d.code == "failover"]
    before = [d for d in decided if d.code != "failover"]
    elsewhere = [d for d in before if d.channel != "in_app"] or before
    if waiting:
        assert any(d.status in ALIVE for d in elsewhere), "every stage waits for one that never begins"
    for decision in waiting:
        minutes = asked.failover[decision.channel]
        assert decision.due == asked.now_ms + minutes * MINUTE
        begun = [d for d in decided if d.status == "pending" and asked.failover.get(d.channel, 0) > minutes]
        assert not begun, "a later stage began first"


# --- the order, line by line ------------------------------------------------------------------------------------------

HOURLY = Digest(frequency="hourly", zone="UTC")
EVERYTHING: dict[str, Any] = {
    "choices": {("*", "push"): False},
    "expires_at": NOW,
    "devices": [],
    "throttled": {"push": "At most 1 of “builds” in 60 minutes."},
    "digest": HOURLY,
    "dnd_until": NOW + MINUTE,
    "quiet": ALL_DAY,
    "failover": {"in_app": 0, "push": 5},
}
"""All that can stand in the way at once, the strongest first."""


@pytest.mark.parametrize(
    ("left", "status", "code"),
    [
        (8, "suppressed", "channel_off"),
        (7, "suppressed", "expired"),
        (6, "failed", "no_device"),
        (5, "suppressed", "throttled"),
        (4, "held", "digest"),
        (3, "held", "do_not_disturb"),
        (2, "held", "quiet_hours"),
        (1, "held", "failover"),
        (0, "pending", "queued"),
    ],
)
def test_of_several_reasons_the_strongest_is_given(left: int, status: str, code: str) -> None:
    these = dict(list(EVERYTHING.items())[len(EVERYTHING) - left :])
    decided = decide(facts(channels=["in_app", "push"], **these))
    assert decided[1][2:4] == (status, code)


@pytest.mark.parametrize("at", ["type", "channel"])
def test_the_more_specific_choice_wins_but_not_over_a_channel_that_is_off(at: str) -> None:
    ladder = [
        ((BUILDS, "push"), "type_channel"),
        ((BUILDS, "*"), "type"),
        ((f"category:{CATEGORY}", "push"), "category_channel"),
        ((f"category:{CATEGORY}", "*"), "category"),
        (("*", "push"), "channel"),
        (("*", "*"), "everything"),
    ]
    for step, (place, code) in enumerate(ladder):
        for choice in (True, False):
            below = {lower: not choice for lower, _ in ladder[step + 1 :] if (lower, choice) != (("*", "push"), True)}
            verdict = may_use({**below, place: choice}, BUILDS, "push", CATEGORY)
            if place == ("*", "push") and not choice:
                code = "channel_off"  # noqa: PLW2901
            assert verdict[:2] == (choice, code if code == "channel_off" else f"{code}_{'on' if choice else 'off'}")
    assert may_use({("*", "push"): False, (BUILDS, "push"): True}, BUILDS, "push").code == "channel_off"
    assert may_use({}, BUILDS, "push") == (True, "default_on", "On by default.")
    assert may_use({(f"category:{CATEGORY}", "*"): False}, BUILDS, "push", None).allowed


@pytest.mark.parametrize(
    ("platform", "here", "routes", "route"),
    [
        ("android", False, {"fcm"}, "fcm"),
        ("ios", False, {"fcm", "apns"}, "apns"),
        ("ios", False, {"fcm"}, "fcm"),
        ("web", False, {"webpush"}, "webpush"),
        ("desktop", True, {"desktop"}, "desktop"),
        ("android", False, {"apns", "webpush", "desktop"}, ""),
        ("desktop", False, {"desktop"}, ""),
        ("web", False, {"fcm"}, ""),
    ],
)
def test_each_platform_goes_by_its_own_system(platform: str, here: bool, routes: set[str], route: str) -> None:
    (decided,) = decide(facts(devices=[Target(7, platform, here)], routes=frozenset(routes)))
    assert decided.route == route
    assert decided.status == ("pending" if route else "failed")
    assert decided.device_seq == 7


# --- chains -----------------------------------------------------------------------------------------------------------

CHAIN = {"push": 0, "email": 5, "sms": 15}
ALL_THREE: dict[str, Any] = {"channels": ["push", "email", "sms"], "failover": CHAIN}


def test_a_chain_goes_one_after_the_other() -> None:
    assert brief(decide(facts(**ALL_THREE))) == {
        "push": ("pending", "queued", 0),
        "email": ("held", "failover", 5),
        "sms": ("held", "failover", 15),
    }


@pytest.mark.parametrize(
    "dead",
    [
        {"devices": []},
        {"choices": {("*", "push"): False}},
        {"throttled": {"push": "At most 1."}},
        {"routes": frozenset({"email", "sms"})},
    ],
    ids=["no device", "off", "throttled", "not configured"],
)
@pytest.mark.parametrize("with_inbox", [False, True])
def test_where_the_first_stage_is_dead_the_next_begins_at_once_and_only_the_next(
    dead: dict[str, Any], with_inbox: bool
) -> None:
    asked = {**ALL_THREE, "channels": [*(["in_app"] if with_inbox else []), *ALL_THREE["channels"]]}
    found = brief(decide(facts(**asked, **dead)))
    assert found["email"] == ("pending", "queued", 0)
    assert found["sms"] == ("held", "failover", 15)
    last = brief(decide(facts(**asked, **{**dead, "addresses": frozenset({"sms"})})))
    assert last["sms"] == ("pending", "queued", 0)


def test_one_device_that_can_be_reached_keeps_the_next_stage_waiting() -> None:
    reach = [Target(1, "web", False), Target(2, "android", False)]
    found = decide(facts(**ALL_THREE, devices=reach, routes=frozenset({"fcm", "email", "sms"})))
    assert [(d.channel, d.status) for d in found] == [
        ("push", "failed"),
        ("push", "pending"),
        ("email", "held"),
        ("sms", "held"),
    ]


def test_the_inbox_alone_is_a_stage_to_wait_for_unless_it_is_off() -> None:
    chain = {"channels": ["in_app", "email"], "failover": {"email": 10}}
    assert brief(decide(facts(**chain)))["email"] == ("held", "failover", 10)
    off = {("*", "in_app"): False}
    assert brief(decide(facts(**chain, choices=off)))["email"] == ("pending", "queued", 0)


def test_a_chain_without_a_beginning_begins_with_its_earliest() -> None:
    found = brief(decide(facts(channels=["sms", "email"], failover={"email": 5, "sms": 15})))
    assert found == {"email": ("pending", "queued", 0), "sms": ("held", "failover", 15)}


def test_what_ends_now_is_over() -> None:
    assert brief(decide(facts(dnd_until=NOW)))["push"] == ("pending", "queued", 0)
    assert brief(decide(facts(dnd_until=NOW + 1)))["push"][:2] == ("held", "do_not_disturb")
    assert brief(decide(facts(expires_at=NOW)))["push"][:2] == ("suppressed", "expired")
    assert brief(decide(facts(expires_at=NOW + 1)))["push"] == ("pending", "queued", 0)
