"""An update by ``collapse_key`` reaches its reader: a snoozed notification wakes, a scheduled one becomes an update,
and no delivery names a reason that is not true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.schemas.requests import SendIn
from tests.support.api_client import RULES, SCHEDULES, SEND, fresh, ok, track
from tests.support.outbox_driver import BUSY, DELIVERED, REFUSED, Hands, Stand
from tests.support.server_process import ServerProcess, eventually, serving

ALL = ["in_app", "push", "email"]


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    hands = Hands(tmp_path)
    yield hands
    hands.service.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("collapse")) as running:
        yield running


def tell(hands: Hands, title: str, **more: Any) -> str:
    return hands.send(title, **{"collapse_key": "build", "channels": ALL} | more)


def went_out(hands: Hands) -> list[str]:
    return [notice.title for notice in hands.work("fcm", DELIVERED) + hands.work("email")]


# --- after its reader has dealt with it ---------------------------------------------------------------------------


def snooze(hands: Hands, id_: str) -> None:
    hands.service.snooze_notification(id_, hands.clock.at(hours=5))


def read(hands: Hands, id_: str) -> None:
    hands.service.mark_notification_as_read(id_)


def read_and_snooze(hands: Hands, id_: str) -> None:
    read(hands, id_)
    snooze(hands, id_)


def archive(hands: Hands, id_: str) -> None:
    hands.service.archive_notification(id_)


def snooze_and_archive(hands: Hands, id_: str) -> None:
    snooze(hands, id_)
    archive(hands, id_)


Step = Callable[[Hands, str], None]
WAKING: list[Step] = [snooze, read_and_snooze]
DEALT_WITH: list[Step] = [*WAKING, read, archive, snooze_and_archive]


@pytest.mark.parametrize("went", [True, False], ids=["went out before", "still in the outbox"])
@pytest.mark.parametrize("step", DEALT_WITH)
def test_an_update_of_what_was_dealt_with_goes_out_by_every_channel(hands: Hands, step: Step, went: bool) -> None:
    first = tell(hands, "1")
    if went:
        assert went_out(hands) == ["1", "1"]
    step(hands, first)
    hands.clock.go(minutes=1)
    request = SendIn(user_id="ada", title="2", message="M", collapse_key="build", channels=ALL)
    (result,) = hands.service.dry_run(request)
    sent = hands.sent("2", collapse_key="build", channels=ALL)
    assert (result.status, result.deliveries) == (sent.status, sent.deliveries)
    assert {d.channel: d.status for d in sent.deliveries} == dict.fromkeys(ALL, "pending") | {"in_app": "delivered"}
    assert (sent.notification_id == first) == (step in WAKING)
    n = hands.notification(sent.notification_id)
    assert (n.inbox, n.read_at, n.snoozed_until, n.status) == ("unread", None, None, "delivered")
    assert n.count == (2 if step in WAKING else 1)
    assert hands.service.unread_count("ada") == 1
    out = went_out(hands)
    news = "2 (2)" if step in WAKING else "2"
    assert out.count(news) == 2
    assert set(out) <= {news, "1"}, "an e-mail of the first may still have been in the outbox"
    assert {(d.status, d.code) for d in hands.deliveries(sent.notification_id) if d.status == "suppressed"} == set()
    hands.go(hours=6)
    assert hands.service.unread_count("ada") == 1, "the end of the snooze finds nothing to wake"


def test_a_user_who_turned_the_inbox_off_is_not_woken_but_gets_the_rest(hands: Hands) -> None:
    first = tell(hands, "1")
    went_out(hands)
    snooze(hands, first)
    hands.service.update_notification_preference("ada", "*", "in_app", False)
    second = tell(hands, "2")
    assert second != first
    assert went_out(hands) == ["2", "2"]
    assert (hands.notification(first).inbox, hands.notification(first).title) == ("snoozed", "1")
    assert hands.service.unread_count("ada") == 0


@pytest.mark.parametrize(
    ("step", "code"), [(read, "read_first"), (snooze, "snoozed"), (read_and_snooze, "snoozed"), (archive, "archived")]
)
@pytest.mark.parametrize("when", ["before its try", "during its try"])
def test_a_push_that_is_not_sent_any_more_says_why(hands: Hands, step: Step, code: str, when: str) -> None:
    id_ = hands.send("1", channels=["in_app", "push"])
    claim = hands.claim("fcm") if when == "during its try" else None
    step(hands, id_)
    if claim is not None:
        hands.record(claim, BUSY, retry_in_s=1)
    assert hands.stands(id_)["push"] == Stand(
        "suppressed", "read_first" if step is read_and_snooze and not claim else code
    )
    (push,) = (d for d in hands.deliveries(id_) if d.channel == "push")
    word = {"read_first": "read", "snoozed": "snoozed", "archived": "archived"}[push.code or ""]
    assert push.reason == f"It was {word} first."


def test_an_email_under_way_is_not_called_sent(hands: Hands) -> None:
    tell(hands, "1")
    assert hands.claim("email") is not None
    (email,) = (d for d in hands.sent("2", collapse_key="build", channels=ALL).deliveries if d.channel == "email")
    assert email.code == "collapsed"
    assert email.reason == "Being sent already, and not marked as read yet; the count is 2 now."


# --- by every source ----------------------------------------------------------------------------------------------


def by_send(server: ServerProcess, user: str, body: dict[str, Any]) -> None:
    ok(server.api("POST", SEND, body), 201)


def by_scheduled_send(server: ServerProcess, user: str, body: dict[str, Any]) -> None:
    due = datetime.now(UTC) + timedelta(seconds=1)
    ok(server.api("POST", SEND, body | {"scheduled_at": due.isoformat()}), 201)


def by_schedule(server: ServerProcess, user: str, body: dict[str, Any]) -> None:
    plan = {"name": fresh("plan"), "notification": body, "rule": {"every_minutes": 60}}
    made = ok(server.api("POST", SCHEDULES, plan), 201)["schedule"]
    ok(server.api("POST", f"{SCHEDULES}/{made['id']}/run"), 201)


def by_rule(server: ServerProcess, user: str, body: dict[str, Any]) -> None:
    send = {name: value for name, value in body.items() if name not in {"user_id", "app"}}
    kind = fresh("kind")
    rule = {"name": fresh("rule"), "on": {"activity_type": kind}, "to": [user], "send": send, "cooldown_minutes": 0}
    ok(server.api("POST", RULES, rule), 201)
    track(server, user_id=user, activity_type=kind)


@pytest.mark.parametrize("source", [by_send, by_scheduled_send, by_schedule, by_rule])
@pytest.mark.parametrize("verb", ["snooze", "archive"])
def test_the_api_shows_the_update_at_once(
    server: ServerProcess, source: Callable[[ServerProcess, str, dict[str, Any]], None], verb: str
) -> None:
    user = fresh()
    body = {"user_id": user, "title": "1", "message": "m", "collapse_key": "build"}
    first = ok(server.api("POST", SEND, body), 201)["notification_id"]
    until = {"until": (datetime.now(UTC) + timedelta(hours=1)).isoformat()} if verb == "snooze" else None
    ok(server.api("POST", f"/api/notifications/{verb}/{first}", until))

    def unread() -> list[dict[str, Any]]:
        page = ok(server.api("GET", f"/api/notifications/user/{user}", params={"status": "unread"}))
        assert page["unread_count"] == len(page["notifications"])
        found: list[dict[str, Any]] = page["notifications"]
        return found

    assert unread() == []
    source(server, user, body | {"title": "2"})
    (shown,) = eventually(unread, what="the update in the inbox")
    assert (shown["title"], shown["read_at"], shown["snoozed_until"]) == ("2", None, None)
    assert (shown["id"] == first, shown["count"]) == ((True, 2) if verb == "snooze" else (False, 1))


# --- scheduled ----------------------------------------------------------------------------------------------------


def soon(hands: Hands, title: str, **more: Any) -> str:
    return tell(hands, title, scheduled_at=hands.clock.at(hours=1), **more)


@pytest.mark.parametrize(
    ("before", "count"),
    [(["now", "soon", "soon"], 3), (["soon", "now", "soon"], 3), (["soon", "soon"], 2), (["soon"], 1)],
)
def test_scheduled_notifications_update_the_open_one_when_their_time_comes(
    hands: Hands, before: list[str], count: int
) -> None:
    ids = [tell(hands, "now") if word == "now" else soon(hands, f"soon {at}") for at, word in enumerate(before)]
    first = ids[before.index("now") if "now" in before else 0]
    went_out(hands)
    hands.go(hours=1)
    assert hands.service.unread_count("ada") == 1
    n = hands.notification(first)
    last = max(at for at, word in enumerate(before) if word == "soon")
    assert (n.title, n.count, n.inbox) == (f"soon {last}", count, "unread")
    for id_ in set(ids) - {first}:
        merged = hands.notification(id_)
        assert (merged.status, merged.inbox, merged.listed_at) == ("suppressed", None, merged.created_at)
        assert {d.channel: Stand(d.status, d.code) for d in hands.deliveries(id_)} == dict.fromkeys(
            ALL, Stand("suppressed", "collapsed")
        )
        assert all(first in (d.reason or "") for d in hands.deliveries(id_))
    # The e-mail is sent once until it is read, the push message is replaced.
    assert went_out(hands) == [f"soon {last} ({count})" if count > 1 else "soon 0"] * (1 if "now" in before else 2)
    read(hands, first)
    again = tell(hands, "later")
    assert again not in ids
    assert hands.notification(again).count == 1


@pytest.mark.parametrize("step", DEALT_WITH)
def test_a_scheduled_notification_reaches_a_reader_who_has_dealt_with_the_open_one(hands: Hands, step: Step) -> None:
    first, second = tell(hands, "1"), soon(hands, "2")
    went_out(hands)
    step(hands, first)
    hands.go(hours=1)
    (unread,) = hands.service.get_user_notifications("ada", status="unread").notifications
    assert (unread.id, unread.title) == (first if step in WAKING else second, "2")
    assert len(went_out(hands)) == 2


@pytest.mark.parametrize(
    "other", [{"collapse_key": "deploy"}, {"collapse_key": None}, {"app": "shop"}, {"user": "bob"}]
)
def test_a_scheduled_notification_of_another_key_app_or_user_stands_alone(hands: Hands, other: dict[str, Any]) -> None:
    first, second = tell(hands, "1"), soon(hands, "2", **other)
    hands.go(hours=1)
    assert [hands.notification(id_).count for id_ in (first, second)] == [1, 1]
    assert hands.notification(second).inbox == "unread"


def test_what_was_merged_uses_the_throttle_up_only_for_what_goes_out(hands: Hands) -> None:
    hands.service.declare_type("chat", throttle={"limit": 2, "minutes": 600})
    email = {"channels": ["in_app", "email"], "notification_type": "chat"}
    tell(hands, "1", **email)
    hands.work("email")
    for number in range(3):
        soon(hands, str(number), **email)
    hands.go(hours=1)
    assert hands.work("email") == []
    assert hands.stands(hands.send(channel="email", notification_type="chat"))["email"] == Stand("pending", "queued")


def test_a_scheduled_update_gives_what_failed_another_chance(hands: Hands) -> None:
    first = tell(hands, "1", channels=["email"])
    hands.work("email", REFUSED)
    soon(hands, "2", channels=["email"])
    hands.go(hours=1)
    assert [notice.notification_id for notice in hands.work("email")] == [first]
