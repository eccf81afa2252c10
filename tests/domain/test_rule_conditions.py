"""Whether an activity makes a rule fire: conditions, counts within a time, cool-downs; and texts filled in."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashflow.backend import ValidationError
from flashflow.backend.core.clock import MINUTE_MS
from flashflow.backend.domain.rule_conditions import ActivityFacts, conditions_of
from flashflow.backend.domain.rule_firing import (
    LATE_MS,
    NONE_YET,
    RuleState,
    Terms,
    after_firing,
    match,
    terms_of,
    useful_until,
)
from flashflow.backend.rules.messages import activity_data, check_texts, request
from flashflow.backend.schemas.requests import build
from flashflow.backend.schemas.rules import OnIn, RuleIn, WhereIn, check_rule
from tests.support.examples import examples

SEND = {"title": "t", "message": "m"}
NOON = 1_781_092_800_000


def activity(metadata: Any = None, **fields: Any) -> ActivityFacts:
    plain: dict[str, Any] = {
        "seq": 1, "id": "a1", "user_id": "ada", "activity_type": "checkout", "session_id": "s1", "app": "shop",
        "at_ms": NOON, "received_ms": NOON, "page_url": None, "referrer": None, "user_agent": None,
    }  # fmt: skip
    return ActivityFacts(**plain | fields, metadata_json=None if metadata is None else json.dumps(metadata))


def holds(field: str, op: str, value: Any, metadata: Any = None, **fields: Any) -> bool:
    where = build(WhereIn, field=field, op=op, value=value)
    (condition,) = conditions_of([where])
    return condition.holds(activity(metadata, **fields))


# --- conditions -------------------------------------------------------------------------------------------------------

CART = {
    "plan": "pro",
    "total": 12.5,
    "items": 3,
    "gift": True,
    "tags": ["new", 7],
    "cart": {"id": {"no": 9}},
    "nil": None,
}


@pytest.mark.parametrize(
    ("field", "op", "value", "expected"),
    [
        ("metadata.plan", "eq", "pro", True),
        ("metadata.plan", "eq", "Pro", False),
        ("metadata.plan", "ne", "free", True),
        ("metadata.plan", "in", ["free", "pro"], True),
        ("metadata.plan", "in", ["free", 1], False),
        ("metadata.plan", "contains", "r", True),
        ("metadata.plan", "contains", "x", False),
        ("metadata.plan", "contains", 1, False),
        ("metadata.plan", "gt", "abc", True),
        ("metadata.items", "eq", 3, True),
        ("metadata.items", "eq", 3.0, True),
        ("metadata.items", "eq", "3", False),
        ("metadata.items", "gte", 3, True),
        ("metadata.items", "gt", 3, False),
        ("metadata.items", "lt", "4", False),
        ("metadata.total", "lt", 13, True),
        ("metadata.total", "lte", 12.5, True),
        ("metadata.gift", "eq", True, True),
        ("metadata.gift", "eq", 1, False),
        ("metadata.gift", "ne", 1, True),
        ("metadata.gift", "gte", 0, False),
        ("metadata.items", "in", [True, 3], True),
        ("metadata.tags", "contains", "new", True),
        ("metadata.tags", "contains", "ne", False),
        ("metadata.tags", "contains", 7, True),
        ("metadata.tags", "eq", "new", False),
        ("metadata.tags", "gt", 0, False),
        ("metadata.cart.id.no", "eq", 9, True),
        ("metadata.cart.id", "eq", 9, False),
        ("metadata.cart.id", "contains", "no", False),
        ("metadata.plan.length", "eq", 3, False),
        ("metadata.tags.0", "eq", "new", False),
        ("metadata.nil", "exists", True, False),
        ("metadata.nil", "exists", False, True),
        ("metadata.plan", "exists", None, True),
        ("metadata.plan", "exists", False, False),
        ("metadata.none", "exists", None, False),
        ("metadata.none", "eq", "x", False),
        ("metadata.none", "ne", "x", True),
        ("metadata.none", "lt", 5, False),
        ("metadata.none", "in", ["x"], False),
        ("app", "eq", "shop", True),
        ("user_id", "in", ["ada"], True),
        ("page_url", "exists", False, True),
        ("session_id", "eq", "s1", True),
    ],
)
def test_a_condition_compares_like_with_like(field: str, op: str, value: Any, expected: bool) -> None:
    assert holds(field, op, value, CART) is expected


def test_a_condition_reads_the_fields_of_the_activity_itself() -> None:
    assert holds("page_url", "contains", "/pricing", page_url="https://x.example/pricing?a=1")
    assert holds("referrer", "eq", "r", referrer="r")
    assert holds("user_agent", "contains", "Firefox", user_agent="Firefox/1")


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
ANY_JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@given(
    found=ANY_JSON,
    op=st.sampled_from(["eq", "ne", "lt", "lte", "gt", "gte", "contains", "in"]),
    value=SCALARS.filter(lambda v: v is not None),
)
def test_no_metadata_makes_a_condition_stumble(found: Any, op: str, value: Any) -> None:
    wanted = [value] if op == "in" else value
    (condition,) = conditions_of([WhereIn(field="metadata.x", op=op, value=wanted)])  # type: ignore[arg-type]
    assert condition.holds(activity({"x": found})) in {True, False}


@given(found=SCALARS, value=SCALARS.filter(lambda v: v is not None))
def test_equal_and_unequal_are_each_others_opposite(found: Any, value: Any) -> None:
    same, other, among = (
        conditions_of([WhereIn(field="metadata.x", op=op, value=v)])[0].holds(activity({"x": found}))  # type: ignore[arg-type]
        for op, v in (("eq", value), ("ne", value), ("in", [value]))
    )
    assert same is not other
    assert same is among


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "field"),
    [
        ({"field": "metadata.a", "op": "eq"}, "on.where.0.value"),
        ({"field": "metadata.a", "op": "eq", "value": [1]}, "on.where.0.value"),
        ({"field": "metadata.a", "op": "in", "value": 1}, "on.where.0.value"),
        ({"field": "metadata.a", "op": "in", "value": []}, "on.where.0.value"),
        ({"field": "metadata.a", "op": "in", "value": [[1]]}, "on.where.0.value.0"),
        ({"field": "metadata.a", "op": "gt", "value": True}, "on.where.0.value"),
        ({"field": "metadata.a", "op": "exists", "value": 1}, "on.where.0.value"),
        ({"field": "metadata.a", "op": "contains", "value": ""}, "on.where.0.value"),
        ({"field": "metadata.a", "op": "eq", "value": 2**63}, "on.where.0.value"),
        ({"field": "metadata.a", "op": "eq", "value": {"a": 1}}, "on.where.0.value"),
        ({"field": "metadata.a", "op": "eq", "value": "x" * 1001}, "on.where.0.value"),
        ({"field": "metadata.a", "op": "matches", "value": "x"}, "on.where.0.op"),
        ({"field": "metadata", "op": "exists"}, "on.where.0.field"),
        ({"field": "metadata.", "op": "exists"}, "on.where.0.field"),
        ({"field": "metadata.a..b", "op": "exists"}, "on.where.0.field"),
        ({"field": "metadata" + ".a" * 9, "op": "exists"}, "on.where.0.field"),
        ({"field": "ip_address", "op": "exists"}, "on.where.0.field"),
        ({"field": "__class__", "op": "exists"}, "on.where.0.field"),
        ({"field": "metadata.a", "op": "exists", "also": 1}, "on.where.0.also"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_refused_by_its_name(where: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        check_rule(build(RuleIn, name="r", on={"activity_type": "x", "where": [where]}, send=SEND))
    assert [error.field for error in refusal.value.errors] == [field]


@pytest.mark.parametrize(
    ("change", "fields_at_fault"),
    [
        ({"on": None}, "on"),
        ({"alert": {"metric": "sessions", "change_percent": -50}}, "on to"),
        ({"on": None, "alert": {"metric": "sessions", "change_percent": -50}}, "to"),
        ({"on": None, "alert": {"metric": "sessions", "change_percent": 0}, "to": ["a"]}, "alert.change_percent"),
        ({"on": None, "alert": {"metric": "money", "change_percent": 5}, "to": ["a"]}, "alert.metric"),
        ({"on": None, "alert": {"metric": "sessions", "change_percent": -101}, "to": ["a"]}, "alert.change_percent"),
        ({"on": None, "alert": {"metric": "sessions", "change_percent": 5, "check_at": "9"}, "to": ["a"]},
         "alert.check_at"),
        ({"on": {"activity_type": "x", "times": 2}}, "on.within_minutes"),
        ({"on": {"activity_type": "x", "within_minutes": 2}}, "on.within_minutes"),
        ({"on": {"activity_type": "x", "times": 0}}, "on.times"),
        ({"on": {"activity_type": "x", "times": 1001, "within_minutes": 1}}, "on.times"),
        ({"on": {"activity_type": "x", "times": 2, "within_minutes": 10081}}, "on.within_minutes"),
        ({"on": {"activity_type": "x", "where": [{"field": "app", "op": "exists"}] * 11}}, "on.where"),
        ({"to": "everyone"}, "to"),
        ({"to": []}, "to"),
        ({"to": ["a"] * 101}, "to"),
        ({"send": {"title": "t"}}, "send.message"),
        ({"send": {}}, "send.title send.message"),
        ({"name": "dry-run"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"cooldown_minutes": -1}, "cooldown_minutes"),
        ({"cooldown_minutes": 43_201}, "cooldown_minutes"),
        ({"regex": "x"}, "regex"),
    ],
)  # fmt: skip
def test_an_invalid_rule_is_refused_with_every_field_at_fault(change: dict[str, Any], fields_at_fault: str) -> None:
    fields = {"name": "r", "on": {"activity_type": "x"}, "send": SEND} | change
    with pytest.raises(ValidationError) as refusal:
        check_rule(build(RuleIn, **fields))
    assert [error.field for error in refusal.value.errors] == fields_at_fault.split()


# --- so many times, and not too often ---------------------------------------------------------------------------------


def fires(terms: Terms, times: list[int], late: int = 0) -> list[int]:
    """The matches, each judged ``late`` ms after it happened, with which the rule fires."""
    uses, fired = NONE_YET, []
    for at in times:
        yes, uses = match(terms, uses, at, at + late)
        if yes:
            fired.append(at)
            uses = after_firing(at + late)
    return fired


def test_the_third_within_ten_minutes_fires_and_begins_the_count_anew() -> None:
    terms = terms_of(OnIn(activity_type="x", times=3, within_minutes=10), 0)
    minutes = [0, 6, 11, 16, 17, 18, 19]
    assert fires(terms, [m * MINUTE_MS for m in minutes]) == [16 * MINUTE_MS, 19 * MINUTE_MS]


def test_exactly_within_is_within_and_a_millisecond_more_is_not() -> None:
    terms = Terms(2, 1000, 0)
    assert fires(terms, [0, 1000]) == [1000]
    assert fires(terms, [0, 1001]) == []


def test_a_rule_that_cools_down_is_silent_and_goes_on_counting() -> None:
    once = Terms(1, 0, 1000)
    assert fires(once, [0, 1, 999, 1000, 1999, 2000]) == [0, 1000, 2000]
    thrice = Terms(3, 100, 1000)
    assert fires(thrice, [0, 1, 2, 950, 960, 970, 1001, 1002]) == [2, 1002]
    assert match(once, after_firing(5000), 4500, 4500)[0] is False, "a clock set back a little changes nothing"
    assert match(once, after_firing(5_000_000), 4500, 4500)[0], "one set back far does not silence it for ever"


def test_what_happened_more_than_a_day_ago_counts_and_tells_nobody() -> None:
    terms = Terms(2, 3 * LATE_MS, 0)
    assert match(Terms(1, 0, 0), NONE_YET, 0, LATE_MS)[0]
    assert not match(Terms(1, 0, 0), NONE_YET, 0, LATE_MS + 1)[0]
    yes, uses = match(terms, NONE_YET, 0, 2 * LATE_MS)
    assert (yes, uses) == (False, RuleState((0,), None))
    assert match(terms, uses, 2 * LATE_MS, 2 * LATE_MS)[0]


def test_a_late_match_counts_where_it_happened() -> None:
    terms = Terms(3, 100, 0)
    uses = NONE_YET
    for at in (1000, 1090):
        _, uses = match(terms, uses, at, 1200)
    assert match(terms, uses, 880, 1200) == (False, uses), "too long before the newest"
    assert match(terms, uses, 1050, 1200)[0]


class History:
    """The rule as it is said, over every match that ever was."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.since: list[int] = []
        self.fired_at: int | None = None

    def judge(self, at: int, now: int) -> bool:
        times, within, cooldown = self.terms
        self.since.append(at)
        window = sorted(one for one in self.since if max(self.since) - one <= within)
        cooling = self.fired_at is not None and abs(now - self.fired_at) < cooldown
        enough = times == 1 or (len(window) >= times and at >= window[-times])
        if enough and not cooling and now - at <= LATE_MS:
            self.since, self.fired_at = [], now
            return True
        return False


@settings(max_examples=examples(300))
@given(
    times=st.integers(1, 5),
    within=st.integers(0, 60),
    cooldown=st.integers(0, 100),
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(-60, 10)), max_size=60),
)
def test_what_is_remembered_is_enough_to_judge_as_if_all_were(
    times: int, within: int, cooldown: int, steps: list[tuple[int, int]]
) -> None:
    terms, now, uses = Terms(times, within, cooldown), 10_000, NONE_YET
    history = History(terms)
    for wait, late in steps:
        now += wait
        yes, after = match(terms, uses, now + late, now)
        assert yes == history.judge(now + late, now)
        assert len(after.times) <= times
        uses = after_firing(now) if yes else after
        if useful_until(terms, uses) <= now:
            uses = NONE_YET


@given(
    times=st.integers(1, 4),
    cooldown=st.integers(1, 50),
    steps=st.lists(st.integers(0, 20), max_size=60),
)
def test_no_two_firings_lie_closer_than_the_cool_down(times: int, cooldown: int, steps: list[int]) -> None:
    timestamps = [sum(steps[: n + 1]) for n in range(len(steps))]
    fired = fires(Terms(times, 100, cooldown), timestamps)
    assert all(b - a >= cooldown for a, b in pairwise(fired))


# --- what is said -----------------------------------------------------------------------------------------------------


def test_texts_are_filled_in_from_the_activity_and_the_rules_own_data() -> None:
    rule = build(
        RuleIn, name="r", on={"activity_type": "checkout"},
        send={"title": "{user_id}: {rule}", "message": "{metadata_plan} {times} {greeting} {app}",
              "data": {"greeting": "hi", "app": "mine"}},
    )  # fmt: skip
    check_texts(rule)
    asked = request(rule.send, ["bob"], activity_data("r", 3, activity({"plan": "pro", "x": {"y": 1}})))
    assert (asked.title, asked.message, asked.user_ids) == ("ada: r", "pro 3 hi mine", ["bob"])
    assert asked.data is not None
    assert asked.data["metadata"] == {"plan": "pro", "x": {"y": 1}}
    assert not [name for name in asked.data if name.startswith("metadata_")]


def test_values_are_only_ever_text() -> None:
    rule = build(RuleIn, name="r", on={"activity_type": "x"}, send={"title": "t", "message": "{metadata_a}"})
    for hostile in ("{user_id}", "$user_id", "{metadata_a.__class__}", "%s %(x)s", "{0}"):
        asked = request(rule.send, ["bob"], activity_data("r", 1, activity({"a": hostile})))
        assert asked.message == hostile


def test_what_is_missing_is_named() -> None:
    rule = build(RuleIn, name="r", on={"activity_type": "x"}, send={"title": "t", "message": "{metadata_a} {page_url}"})
    check_texts(rule)
    with pytest.raises(ValidationError) as refusal:
        request(rule.send, ["bob"], activity_data("r", 1, activity()))
    assert [error.field for error in refusal.value.errors] == ["data.metadata_a", "data.page_url"]


def test_a_text_that_names_what_there_never_is_is_refused_at_once() -> None:
    rule = build(RuleIn, name="r", on={"activity_type": "x"}, send={"title": "{nobody}", "message": "m"})
    with pytest.raises(ValidationError) as refusal:
        check_texts(rule)
    assert [error.field for error in refusal.value.errors] == ["send.title"]


def test_metadata_that_is_large_or_deep_does_not_go_along() -> None:
    deep: Any = 1
    for _ in range(90):
        deep = {"d": deep}
    assert "metadata" not in activity_data("r", 1, activity({"a": deep, "b": 1}))
    assert "metadata" not in activity_data("r", 1, activity({"a": "x" * 20_000}))
    many = activity_data("r", 1, activity({f"k{n}": "y" * 5000 for n in range(500)}))
    flat = {name: value for name, value in many.items() if name.startswith("metadata_")}
    assert len(flat) == 50
    assert {len(value) for value in flat.values()} == {1000}
