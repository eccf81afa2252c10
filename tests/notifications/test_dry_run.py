"""A dry run stores nothing, and says what a ``send`` at that moment then does."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashflow.backend import ValidationError
from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.schemas.records import Decided
from flashflow.backend.schemas.requests import SendIn, build
from tests.support.examples import examples
from tests.support.fixed_clock import StillClock
from tests.support.outbox_driver import BUSY, REFUSED, SENT, Hands

USERS = ("ada", "bob", "eve")
TYPES = ("general", "chat", "alarm", "news", "fire")
CHANNELS = ("in_app", "push", "email", "sms", "slack")
EVENING = StillClock().now.replace(hour=21, minute=30)

minutes = st.sampled_from([None, None, None, 30, 300])
requests = st.fixed_dictionaries(
    {
        "user_ids": st.lists(st.sampled_from(USERS), min_size=1, max_size=3),
        "notification_type": st.sampled_from(TYPES),
        "collapse_key": st.sampled_from([None, "a", "b"]),
        "channels": st.none() | st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=5),
        "text": st.sampled_from(["plain", "template", "translated", "no such template", "bad data"]),
        "scheduled": minutes,
        "expires": minutes,
        "device_tokens": st.sampled_from([None, None, ["ada's phone"], ["nobody's"]]),
    }
)
"""What is asked for; ``text`` says by which way its words come, ``scheduled`` and ``expires`` in how many minutes."""

steps = st.one_of(
    st.tuples(st.just("send"), requests),
    st.tuples(st.just("off"), st.tuples(st.sampled_from(USERS), st.sampled_from([*TYPES, "*", "category:offers"]),
                                        st.sampled_from([*CHANNELS, "*"]), st.booleans())),
    st.tuples(st.just("quiet"), st.sampled_from(USERS)),
    st.tuples(st.just("disturb not"), st.sampled_from(USERS)),
    st.tuples(st.just("digest"), st.tuples(st.sampled_from(USERS), st.sampled_from(["hourly", "daily", "off"]))),
    st.tuples(st.just("nowhere"), st.sampled_from(USERS)),
    st.tuples(st.just("work"), st.tuples(st.sampled_from(["fcm", "email", "sms", "slack"]),
                                         st.sampled_from([SENT, REFUSED, BUSY]))),
    st.tuples(st.just("read"), st.sampled_from(USERS)),
    st.tuples(st.just("go"), st.sampled_from([1, 45, 600])),
)  # fmt: skip
"""What happened before."""


def prepared(folder: Path) -> Hands:
    """A house with a type for everything that a decision can rest on."""
    hands = Hands(folder, StillClock(EVENING), *USERS)
    service = hands.service
    service.declare_type("chat", channels=["in_app", "push"], throttle={"limit": 2, "minutes": 60})
    chain = [{"channel": "push", "after_minutes": 0}, {"channel": "email", "after_minutes": 5}]
    service.declare_type("alarm", channels=["in_app"], failover=chain, category="offers")
    service.declare_type("news", channels=["email"], digest="daily")
    service.declare_type("fire", channels=["push", "sms"], critical=True)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    service.create_notification_template("t", "{n} new", "There are {n}.", category="offers", data_schema=schema)
    service.create_notification_template("t", "{n} neu", "Es gibt {n}.", locale="de", category="offers")
    hands.contact("bob", locale="de")
    service.register_device_token("ada", "ada's computer", "desktop")
    return hands


def asked(hands: Hands, request: dict[str, Any]) -> SendIn:
    fields = {name: request[name] for name in ("user_ids", "notification_type", "channels", "collapse_key")}
    fields["device_tokens"] = request["device_tokens"]
    for name in ("scheduled", "expires"):
        if request[name] is not None:
            fields[f"{name}_at"] = hands.clock.at(minutes=request[name])
    if request["text"] == "plain":
        return build(SendIn, title="T", message="M", **fields)
    template = "unheard-of" if request["text"] == "no such template" else "t"
    locale = "de" if request["text"] == "translated" else None
    data = {"n": "many"} if request["text"] == "bad data" else {"n": 7}
    return build(SendIn, template=template, data=data, locale=locale, **fields)


def happen(hands: Hands, what: str, how: Any) -> None:
    if what == "send":
        with suppress(ValidationError):
            hands.service.store.run(hands.service.send_write(asked(hands, how), "ci"))
    elif what == "off":
        hands.service.update_notification_preference(*how)
    elif what == "quiet":
        hands.quiet("21:00", "07:00", user=how)
    elif what == "disturb not":
        hands.disturb_not(how, hours=2)
    elif what == "digest":
        hands.digest(how[1], user=how[0])
    elif what == "nowhere":
        hands.contact(how, email=None, phone=None)
    elif what == "work":
        hands.work(how[0], how[1], retry_in_s=60 if how[1] is BUSY else None)
    elif what == "read":
        hands.service.mark_all_as_read(how)
    else:
        hands.go(minutes=how)


def dump(path: Path) -> list[str]:
    """Every row of every table."""
    with closing(sqlite3.connect(path)) as conn:
        return list(conn.iterdump())


Answer = list[tuple[str, str, tuple[Decided, ...]]] | str
"""User, status and deliveries of each; or the refusal."""


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(before=st.lists(steps, max_size=12), request=requests, again=requests)
def test_it_stores_nothing_and_says_what_send_then_does(
    tmp_path_factory: pytest.TempPathFactory, before: list[tuple[str, Any]], request: dict[str, Any], again: Any
) -> None:
    hands = prepared(tmp_path_factory.mktemp("dry"))
    try:
        for what, how in before:
            happen(hands, what, how)
        for one in (request, again):
            _compare(hands, one)
    finally:
        hands.service.close()


def _compare(hands: Hands, request: dict[str, Any]) -> None:
    stored, heard = dump(hands.path), []
    unsubscribe = hands.service.bus.subscribe(heard.extend)
    foreseen: Answer
    texts = {}
    try:
        dry_run = hands.service.dry_run(asked(hands, request), "ci")
        foreseen = [(one.user_id, one.status, one.deliveries) for one in dry_run]
        texts = {one.user_id: (one.title, one.message) for one in dry_run}
    except FlashFlowError as refusal:
        foreseen = str(refusal)
    assert dump(hands.path) == stored
    assert heard == []
    unsubscribe()

    happened: Answer
    try:
        sent = hands.service.store.run(hands.service.send_write(asked(hands, request), "ci"))
        happened = [(one.user_id, one.status, one.deliveries) for one in sent]
        for one in sent:
            n = hands.notification(one.notification_id)
            assert (n.title, n.message) == texts[one.user_id]
            assert n.status == one.status
            there = [(d.channel, d.status, d.code, d.reason) for d in hands.deliveries(one.notification_id)]
            for d in one.deliveries:
                if d.status in {"pending", "held"}:
                    assert (d.channel, d.status, d.code, d.reason) in there
    except FlashFlowError as refusal:
        happened = str(refusal)
    assert foreseen == happened


def test_what_would_be_refused_is_refused(tmp_path: Path) -> None:
    hands = prepared(tmp_path)
    for bad in (
        {"template": "unheard-of"},
        {"template": "t", "data": {"n": "many"}},
        {"title": "T", "message": "M", "channel": "pigeon"},
    ):
        before = dump(hands.path)
        with pytest.raises(ValidationError):
            hands.service.dry_run(build(SendIn, user_id="ada", **bad))
        assert dump(hands.path) == before
    hands.service.close()


def test_a_type_that_is_only_tried_is_not_listed(tmp_path: Path) -> None:
    hands = prepared(tmp_path)
    hands.service.dry_run(build(SendIn, user_id="ada", title="T", message="M", notification_type="brand new"))
    assert "brand new" not in {kind.name for kind in hands.service.preferences.types()}
    hands.service.close()
