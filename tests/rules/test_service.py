"""Rules at work over both files: each activity is judged once, whatever the process, a template or the clock does."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend import (
    Backend,
    Bus,
    Config,
    Conflict,
    Event,
    NotFound,
    NotificationService,
    UserActivityService,
    ValidationError,
)
from flashflow.backend.core.clock import rfc3339, to_datetime
from flashflow.backend.core.errors import FlashFlowError, StorageError
from flashflow.backend.data.export import Export
from flashflow.backend.notifications.orders import Order
from flashflow.backend.rules.evaluator import BATCH, FAULT, MOST_RECIPIENTS, SAVE_POSITION_AFTER
from flashflow.backend.rules.service import Rule, RuleRef, Rules
from flashflow.backend.rules.worker import RuleWorker
from flashflow.backend.schemas.records import Notification, Sent
from flashflow.backend.schemas.requests import build
from flashflow.backend.schemas.rules import RuleChangeIn, RuleIn
from flashflow.backend.store.activity import rule_queries
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.notifications.rule_state import mark
from tests.support.fixed_clock import StillClock
from tests.support.server_process import ROOT, eventually

HELLO = {"title": "Hello", "message": "{user_id} did {activity_type}"}
X = {"activity_type": "x"}


class Figures:
    """Metrics that a test sets: what today's and any other day's figure is."""

    def __init__(self) -> None:
        self.today = self.before = 0
        self.asked: list[tuple[str, int, int, str | None]] = []
        self.failure: Exception | None = None

    def value(self, metric: str, start_ms: int, end_ms: int, app: str | None) -> int:
        if self.failure is not None and app == "broken":
            raise self.failure
        self.asked.append((metric, start_ms, end_ms, app))
        return self.today if len(self.asked) % 2 else self.before


class Parts:
    """Both services on a still clock, the rules between them, and a way to make sending fail."""

    def __init__(self, folder: Path) -> None:
        self.clock = StillClock()
        self.bus = Bus()
        self.activity = UserActivityService(folder / "a.db", clock=self.clock, bus=self.bus)
        self.service = NotificationService(folder / "n.db", clock=self.clock, bus=self.bus)
        self.failure: Exception | None = None
        self.figures = Figures()
        self.rules = self.over()

    def over(self) -> Rules:
        """As the Backend makes its own."""
        return Rules(self.activity, self.service, send=self.send, metrics=self.figures)

    def send(self, tx: Tx, orders: Sequence[Order]) -> Sequence[tuple[Sent, ...] | FlashFlowError]:
        answers = self.service.sender.send(tx, orders)
        if self.failure is not None and any(order.title == "Bad" for order in orders):
            raise self.failure
        return answers

    def make(self, name: str = "hello", app: str = "shop", owner: str | None = None, **more: Any) -> Rule:
        fields: dict[str, Any] = {"on": X, "send": HELLO, "cooldown_minutes": 0} | more
        asked = build(RuleIn, name=name, **{key: value for key, value in fields.items() if value is not None})
        return self.service.store.run(self.rules.create_write(asked, app, owner))

    def change(self, which: str = "hello", owner: str | None = None, **more: Any) -> Rule:
        fields: dict[str, Any] = {"on": X, "send": HELLO, "cooldown_minutes": 0} | more
        asked = build(RuleChangeIn, **{key: value for key, value in fields.items() if value is not None})
        return self.service.store.run(self.rules.change_write(RuleRef(which, None, "shop"), asked, owner))

    def enable(self, enabled: bool, name: str = "hello") -> Rule:
        return self.service.store.run(self.rules.enable_write(RuleRef(name), enabled))

    def now(self, name: str = "hello", app: str | None = None) -> Rule:
        return self.rules.get(RuleRef(name, app, "shop"))

    def did(self, user: str = "ada", kind: str = "x", app: str = "shop", **more: Any) -> str:
        return self.activity.track_activity(user, kind, app=app, **more).activity_id

    def judge(self) -> int:
        return self.rules.evaluator.evaluate_new()

    def notices(self, user: str = "ada") -> list[Notification]:
        """What the user was told, oldest first."""
        found: list[Notification] = []
        cursor: str | None = None
        while True:
            page = self.service.get_user_notifications(user, limit=200, cursor=cursor)
            found += page.notifications
            if (cursor := page.next_cursor) is None:
                return found[::-1]

    def messages(self, user: str = "ada") -> list[str]:
        return [notice.message for notice in self.notices(user)]

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.service.store.read(lambda conn: conn.execute(sql, values).fetchall())

    def close(self) -> None:
        self.activity.close()
        self.service.close()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path)
    try:
        yield made
    finally:
        made.close()


# --- kept -------------------------------------------------------------------------------------------------------------


def test_a_rule_is_kept_as_it_was_given(parts: Parts) -> None:
    where = [{"field": "metadata.plan", "op": "in", "value": ["pro", 3, True]}]
    on = {"activity_type": "checkout_failed", "where": where, "times": 3, "within_minutes": 10}
    asked = build(RuleIn, name="r", on=on, send=HELLO, to=["eve", "bob"], cooldown_minutes=60, enabled=False)
    made = parts.service.store.run(parts.rules.create_write(asked, "shop", "shop"))
    assert (made.on, made.send, made.to, made.cooldown_minutes) == (asked.on, asked.send, ["eve", "bob"], 60)
    assert (made.name, made.app, made.watches, made.enabled, made.alert) == ("r", "shop", "shop", False, None)
    assert (made.fired, made.last_fired_at, made.last_error, made.created_at) == (0, None, None, parts.clock.now)
    assert parts.now("r") == made


def test_two_apps_may_use_one_name_and_one_app_may_not_use_it_twice(parts: Parts) -> None:
    parts.make(app="shop")
    with pytest.raises(Conflict):
        parts.make(app="shop")
    parts.make(app="blog")
    assert parts.now(app="blog").app == "blog"
    assert parts.rules.get(RuleRef("hello", None, "blog")).app == "blog", "one's own comes first"
    with pytest.raises(Conflict, match="blog, shop"):
        parts.rules.get(RuleRef("hello", None, "office"))
    with pytest.raises(NotFound):
        parts.rules.get(RuleRef("hello", "office", "office"))


def test_an_app_has_two_hundred_rules_at_most(parts: Parts) -> None:
    for number in range(200):
        parts.make(f"r{number}")
    with pytest.raises(Conflict, match="200"):
        parts.make("one-more")
    parts.make("one-more", app="blog")
    page = parts.rules.page("shop", 150)
    rest = parts.rules.page("shop", 150, page.next_cursor)
    names = [rule.name for rule in (*page.rules, *rest.rules)]
    assert names == [f"r{number}" for number in reversed(range(200))]
    assert rest.next_cursor is None


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"send": {"template": "none"}}, "send.template"),
        ({"send": HELLO | {"channels": ["carrier-pigeon"]}}, "send.channels"),
        ({"send": HELLO | {"message": "{nonsense}"}}, "send.message"),
        ({"on": {"activity_type": "x", "times": 3}}, "on.within_minutes"),
    ],
)
def test_what_can_be_known_to_be_wrong_is_refused_when_it_is_made(
    parts: Parts, more: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as refusal:
        parts.make(**more)
    assert [error.field for error in refusal.value.errors] == [field]
    parts.make()
    with pytest.raises(ValidationError) as refusal:
        parts.change(**more)
    assert [error.field for error in refusal.value.errors] == [field]


def test_a_rule_can_be_renamed_but_not_to_a_name_that_is_taken(parts: Parts) -> None:
    made = parts.make()
    parts.make("other")
    with pytest.raises(Conflict):
        parts.change(name="other")
    changed = parts.change(name="new")
    assert (changed.id, changed.name) == (made.id, "new")
    with pytest.raises(NotFound):
        parts.now()


def test_a_removed_rule_is_gone_with_all_it_remembered(parts: Parts) -> None:
    parts.make(cooldown_minutes=60)
    parts.did()
    assert parts.judge() == 1
    assert parts.rows("SELECT COUNT(*) FROM rule_uses") == [(1,)]
    removed = parts.service.store.run(parts.rules.delete_write(RuleRef("hello")))
    assert removed.fired == 1
    assert parts.rows("SELECT COUNT(*) FROM rule_uses") == [(0,)]
    parts.did()
    assert parts.judge() == 0
    assert len(parts.notices()) == 1


def test_a_persons_export_says_which_rules_remember_them(parts: Parts) -> None:
    parts.make(cooldown_minutes=60)
    parts.make("often", on=X | {"times": 3, "within_minutes": 10})
    parts.did()
    parts.did("bob")
    parts.judge()
    timestamp = rfc3339(parts.clock.now_ms())
    person = json.loads(b"".join(Export(parts.activity, parts.service).user("ada")))
    assert person["rules"] == [
        {"rule": "hello", "app": "shop", "times": [], "last_fired_at": timestamp},
        {"rule": "often", "app": "shop", "times": [timestamp], "last_fired_at": None},
    ]


# --- judged -----------------------------------------------------------------------------------------------------------


def test_who_did_it_is_told_with_the_activity_as_data(parts: Parts) -> None:
    parts.make(send=HELLO | {"data": {"extra": 1}, "priority": "high", "notification_type": "oops"})
    activity_id = parts.did(metadata={"plan": "pro"}, page_url="/pay")
    assert parts.judge() == 1
    (notice,) = parts.notices()
    assert (notice.title, notice.message, notice.app) == ("Hello", "ada did x", "shop")
    assert (notice.priority, notice.notification_type) == ("high", "oops")
    assert notice.data["activity_id"] == activity_id
    assert (notice.data["metadata"], notice.data["page_url"], notice.data["extra"]) == ({"plan": "pro"}, "/pay", 1)
    now = parts.now()
    assert (now.fired, now.last_fired_at, now.last_error) == (1, parts.clock.now, None)


def test_a_template_is_filled_in_from_the_activity(parts: Parts) -> None:
    parts.service.create_notification_template("sorry", "Sorry {user_id}", "{metadata_plan} on {page_url}", app="shop")
    parts.make(owner="shop", send={"template": "sorry"})
    parts.did(metadata={"plan": "pro"}, page_url="/pay")
    assert parts.judge() == 1
    (notice,) = parts.notices()
    assert (notice.title, notice.message) == ("Sorry ada", "pro on /pay")


def test_named_users_are_told_of_whoever_did_it(parts: Parts) -> None:
    parts.make(to=["eve", "bob", "eve"])
    parts.did("ada")
    parts.did("cem")
    assert parts.judge() == 2
    assert parts.messages("eve") == parts.messages("bob") == ["ada did x", "cem did x"]
    assert parts.messages("ada") == []


def test_only_what_meets_the_conditions_counts_and_each_user_counts_alone(parts: Parts) -> None:
    where = [{"field": "metadata.plan", "op": "eq", "value": "pro"}, {"field": "app", "op": "eq", "value": "shop"}]
    parts.make(on={"activity_type": "x", "where": where, "times": 3, "within_minutes": 10})
    for user in ("ada", "bob"):
        for plan in ("pro", "free", "pro"):
            parts.did(user, metadata={"plan": plan})
    parts.did("ada", "y", metadata={"plan": "pro"})
    parts.did("ada", app="blog", metadata={"plan": "pro"})
    assert parts.judge() == 0
    parts.did("bob", metadata={"plan": "pro"})
    assert parts.judge() == 1
    assert (len(parts.notices("ada")), len(parts.notices("bob"))) == (0, 1)


def test_every_field_of_an_activity_can_be_asked_about(parts: Parts) -> None:
    asked = {
        "app": "shop",
        "user_id": "ada",
        "session_id": "s1",
        "page_url": "/p",
        "referrer": "/r",
        "user_agent": "Fox",
    }
    where = [{"field": field, "op": "eq", "value": value} for field, value in asked.items()]
    parts.make(on={"activity_type": "x", "where": where})
    for _ in range(3):
        parts.did(session_id="s1", page_url="/p", referrer="/r", user_agent="Fox")
        parts.did(session_id="s1", page_url="/p", referrer="/r", user_agent="Bear")
        parts.activity.settle_metrics()
    assert parts.judge() == 3


def test_the_count_goes_on_from_one_look_to_the_next_and_over_a_restart(parts: Parts) -> None:
    parts.make(on=X | {"times": 3, "within_minutes": 10})
    for _ in range(2):
        parts.did()
        assert parts.judge() == 0
        parts.rules = parts.over()
        parts.clock.go(minutes=5)
    parts.did()
    assert parts.judge() == 1
    parts.did()
    assert parts.judge() == 0, "the count begins anew"


def test_a_cool_down_holds_for_each_user_and_over_a_restart(parts: Parts) -> None:
    parts.make(cooldown_minutes=60)
    for user in ("ada", "ada", "bob"):
        parts.did(user)
    assert parts.judge() == 2
    parts.rules = parts.over()
    parts.clock.go(minutes=59)
    parts.did()
    assert parts.judge() == 0
    parts.clock.go(minutes=1)
    parts.did()
    assert parts.judge() == 1
    assert [len(parts.notices(user)) for user in ("ada", "bob")] == [2, 1]


def test_a_rule_begins_with_the_present_and_not_with_history(parts: Parts) -> None:
    for _ in range(5):
        parts.did()
    parts.make(on=X | {"times": 2, "within_minutes": 60})
    assert parts.judge() == 0
    parts.did()
    assert parts.judge() == 0
    parts.did()
    assert parts.judge() == 1


def test_a_rule_is_at_work_from_the_moment_it_is_made_whether_its_event_was_heard_or_not(parts: Parts) -> None:
    parts.make()
    parts.did()
    assert parts.judge() == 1
    parts.make("other", on={"activity_type": "y"})
    parts.did(kind="y")
    assert parts.judge() == 1


def test_a_rule_that_was_off_knows_nothing_of_that_time(parts: Parts) -> None:
    parts.make(on=X | {"times": 2, "within_minutes": 60})
    other = parts.make("other", on=X | {"times": 4, "within_minutes": 60})
    parts.did()
    parts.judge()
    assert not parts.enable(False).enabled
    parts.did()
    assert parts.judge() == 0
    assert parts.enable(True).enabled
    parts.did()
    assert parts.judge() == 0
    parts.did()
    assert parts.judge() == 2
    assert (parts.now().fired, parts.now("other").fired) == (1, 1)
    assert parts.now("other").created_at == other.created_at


def test_a_rule_that_watches_for_something_else_counts_anew_and_one_with_another_text_does_not(parts: Parts) -> None:
    twice = X | {"times": 2, "within_minutes": 60}
    parts.make(on=twice)
    parts.did()
    parts.judge()
    parts.change(on=twice, send=HELLO | {"title": "Hi"})
    parts.did()
    assert parts.judge() == 1
    parts.did()
    parts.judge()
    parts.change(on=twice | {"where": [{"field": "app", "op": "exists"}]})
    parts.did()
    assert parts.judge() == 0
    parts.did()
    assert parts.judge() == 1


def test_what_came_while_nobody_judged_is_judged_at_the_next_start(parts: Parts) -> None:
    parts.make()
    for _ in range(BATCH + 10):
        parts.did()
    parts.rules = parts.over()
    assert parts.judge() == BATCH + 10
    parts.rules = parts.over()
    assert parts.judge() == 0


def test_what_happened_over_a_day_ago_counts_and_tells_nobody(parts: Parts) -> None:
    parts.make()
    parts.make("thrice", on=X | {"times": 3, "within_minutes": 7 * 24 * 60})
    parts.did(timestamp=parts.clock.at(hours=-25))
    parts.did(timestamp=parts.clock.at(days=-30))
    assert parts.judge() == 0
    parts.did(timestamp=parts.clock.at(hours=-23))
    assert parts.judge() == 1
    parts.did()
    assert parts.judge() == 2
    assert parts.now("thrice").fired == 1


def test_an_app_s_rule_sees_its_own_activities_only_and_fills_in_its_own_templates_only(parts: Parts) -> None:
    parts.make("own", owner="shop")
    parts.make("all", owner=None)
    parts.did(app="blog")
    assert parts.judge() == 1
    assert (parts.now("own").fired, parts.now("all").fired) == (0, 1)
    parts.service.create_notification_template("secret", "T", "M", app="office")
    with pytest.raises(ValidationError, match="no template"):
        parts.make("spy", owner="shop", send={"template": "secret"})
    parts.make("boss", owner=None, send={"template": "secret"})


def test_a_change_keeps_or_narrows_what_a_rule_may_see_and_never_widens_it(parts: Parts) -> None:
    parts.make("own", owner="shop")
    parts.make("all", owner=None)
    assert parts.change("own", owner=None).watches == "shop"
    assert parts.change("all", owner="shop").watches == "shop"


# --- refused and failed -----------------------------------------------------------------------------------------------


def test_a_rule_that_cannot_tell_says_why_keeps_no_other_and_tells_once_it_can(parts: Parts) -> None:
    parts.service.create_notification_template("sorry", "Sorry", "About {metadata_plan}", app="shop")
    parts.make("bad", send={"template": "sorry"}, cooldown_minutes=60)
    parts.make("good")
    parts.did()
    assert parts.judge() == 1
    bad = parts.now("bad")
    assert (bad.fired, bad.last_fired_at) == (0, None)
    assert bad.last_error == "data.metadata_plan is missing"
    parts.service.store.run(parts.service.templates.remove_write("sorry", None))
    parts.did(metadata={"plan": "pro"})
    assert parts.judge() == 1
    assert parts.now("bad").last_error == "template: there is no template “sorry”"
    parts.service.create_notification_template("sorry", "Sorry", "About {metadata_plan}", app="shop")
    parts.did(metadata={"plan": "pro"})
    assert parts.judge() == 2
    now = parts.now("bad")
    assert (now.fired, now.last_error) == (1, "template: there is no template “sorry”"), "its owner has not seen it"
    assert parts.now("good").fired == 3


@pytest.mark.parametrize("failure", [ZeroDivisionError("a bug"), sqlite3.IntegrityError("a bug")])
def test_a_fault_of_our_own_is_logged_counts_as_a_refusal_and_stops_no_other_rule(
    parts: Parts, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    parts.make("bad", send=HELLO | {"title": "Bad"})
    parts.make("good")
    heard: list[Event] = []
    parts.bus.subscribe(heard.extend)
    parts.did()
    parts.did("bob")
    parts.failure = failure
    assert parts.judge() == 2
    assert "a bug" in caplog.text
    assert (parts.now("bad").fired, parts.now("bad").last_error) == (0, FAULT)
    assert [notice.title for notice in parts.notices()] == ["Hello"]
    assert len([event for event in heard if event.kind == "notification"]) == 2
    parts.failure = None
    assert parts.judge() == 0


def test_a_fault_of_the_storage_undoes_all_and_is_tried_again(parts: Parts) -> None:
    parts.make("bad", send=HELLO | {"title": "Bad"}, cooldown_minutes=60)
    parts.make("good", cooldown_minutes=60)
    parts.did()
    parts.failure = sqlite3.OperationalError("disk I/O error")
    for _ in range(2):
        with pytest.raises(StorageError):
            parts.judge()
        assert parts.notices() == []
        assert parts.now("good").fired == 0
    parts.failure = None
    assert parts.judge() == 2
    assert len(parts.notices()) == 2


def test_a_fault_after_sending_takes_the_notice_back_with_it(parts: Parts) -> None:
    parts.make()
    parts.did()
    parts.service.store.run(
        Write(ddl, "CREATE TRIGGER no BEFORE UPDATE OF evaluated_to ON rule_mark BEGIN SELECT RAISE(ABORT, '');END")
    )
    with pytest.raises(StorageError):
        parts.judge()
    assert parts.notices() == []
    parts.service.store.run(Write(ddl, "DROP TRIGGER no"))
    assert parts.judge() == 1
    assert len(parts.notices()) == 1


def ddl(tx: Tx, items: Sequence[str]) -> list[None]:
    return [tx.conn.execute(item) and None for item in items]


def test_rules_that_change_while_they_judge_lose_and_repeat_nothing(parts: Parts) -> None:
    parts.make()
    done = threading.Event()

    def meddle() -> None:
        for number in range(60):
            parts.change(send=HELLO | {"title": f"Hello {number}"})
        done.set()

    meddler = threading.Thread(target=meddle)
    meddler.start()
    judged = 0
    while not done.is_set():
        for _ in range(5):
            parts.did()
        judged += parts.judge()
    meddler.join()
    judged += parts.judge()
    rows = parts.activity.store.read(lambda conn: conn.execute("SELECT COUNT(*) FROM user_activities").fetchone())
    assert judged == rows[0] == len(parts.notices())


def test_a_rule_that_is_switched_off_between_the_look_and_the_step_tells_nobody(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.make()
    parts.make("other")
    parts.did()
    real = rule_queries.activities_since

    def meddling(*asked: Any) -> rule_queries.ActivityBatch:
        monkeypatch.undo()
        parts.enable(False)
        return real(*asked)

    monkeypatch.setattr(rule_queries, "activities_since", meddling)
    assert parts.judge() == 1
    assert (parts.now().fired, parts.now("other").fired) == (0, 1)


def test_four_judges_at_once_tell_each_thing_once(parts: Parts) -> None:
    parts.make()
    judges = [parts.over().evaluator for _ in range(4)]
    for _ in range(300):
        parts.did()
    threads = [threading.Thread(target=judge.evaluate_new) for judge in judges]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [notice.data["activity_id"] for notice in parts.notices()]
    assert len(told) == len(set(told)) == 300


def test_an_activities_file_that_went_back_to_a_backup_silences_no_rule(parts: Parts, tmp_path: Path) -> None:
    parts.make()
    for _ in range(20):
        parts.did()
    assert parts.judge() == 20
    parts.make("late")
    parts.activity.close()
    parts.activity = UserActivityService(tmp_path / "older.db", clock=parts.clock, bus=parts.bus)
    parts.did()
    parts.rules = parts.over()
    assert parts.judge() == 0, "it cannot be told apart from what was judged"
    parts.did()
    assert parts.judge() == 2


def test_a_step_that_would_tell_very_many_ends_early_and_goes_on(parts: Parts) -> None:
    crowd = [f"u{number}" for number in range(100)]
    parts.make(to=crowd)
    for _ in range(MOST_RECIPIENTS // 100 + 3):
        parts.did()
    marks: list[int] = []
    parts.bus.subscribe(
        lambda events: marks.append(len(events)) if any(e.kind == "notification" for e in events) else None
    )
    assert parts.judge() == MOST_RECIPIENTS // 100 + 3
    assert len(marks) == 2
    assert [len(parts.notices(user)) for user in (crowd[0], crowd[-1])] == [8, 8]


def test_a_judge_that_is_to_end_does_so_after_its_step_and_the_next_start_goes_on(parts: Parts) -> None:
    parts.make()
    for _ in range(2 * BATCH):
        parts.did()
    judge = parts.rules.evaluator
    ending = parts.bus.subscribe(lambda _: judge.stop())
    assert parts.judge() == BATCH
    ending()
    parts.rules = parts.over()
    assert parts.judge() == BATCH
    assert len(parts.notices()) == 2 * BATCH


# --- cheap ------------------------------------------------------------------------------------------------------------


def test_activities_that_concern_no_rule_cost_no_write_until_there_are_very_many(parts: Parts) -> None:
    parts.make()
    parts.did()
    assert parts.judge() == 1
    place = parts.service.store.read(mark).evaluated_to
    for _ in range(SAVE_POSITION_AFTER // 1000):
        parts.activity.track_batch([{"user_id": "ada", "activity_type": "other"}] * 1000)
    parts.judge()
    assert parts.service.store.read(mark).evaluated_to == place
    parts.activity.track_batch([{"user_id": "ada", "activity_type": "other"}])
    parts.judge()
    assert parts.service.store.read(mark).evaluated_to == place + SAVE_POSITION_AFTER + 1
    parts.activity.track_batch([{"user_id": "ada", "activity_type": "other"}])
    parts.judge()
    parts.rules.evaluator.save_position()
    assert parts.service.store.read(mark).evaluated_to == place + SAVE_POSITION_AFTER + 2


def test_what_cannot_matter_any_more_is_forgotten(parts: Parts) -> None:
    parts.make("twice", on=X | {"times": 2, "within_minutes": 10})
    parts.make("rarely", cooldown_minutes=120)
    parts.make("always")
    parts.did()
    assert parts.judge() == 2
    assert parts.rows("SELECT COUNT(*) FROM rule_uses") == [(2,)]
    parts.clock.go(minutes=121)
    assert parts.rules.delete_expired_state() == 1
    parts.clock.go(days=1)
    assert parts.rules.delete_expired_state() == 1


def test_what_is_remembered_of_a_user_is_bounded(parts: Parts) -> None:
    parts.make(on=X | {"times": 1000, "within_minutes": 10_080}, cooldown_minutes=43_200)
    rows = [{"user_id": "ada", "activity_type": "x", "app": "shop"}] * 1000
    for _ in range(3):
        parts.activity.track_batch(rows)
    assert parts.judge() == 1
    ((longest,),) = parts.rows("SELECT MAX(json_array_length(times)) FROM rule_uses")
    assert longest == 1000


def test_what_arrived_is_read_by_its_number(parts: Parts) -> None:
    plan = parts.activity.store.read(
        lambda conn: conn.execute(
            f"EXPLAIN QUERY PLAN {rule_queries.SINCE.compiled.sql}",
            {"after": 1, "until": 2, "since": 3, "types": '["x"]', "limit": 5},
        ).fetchall()
    )
    assert plan[0][3] == "SEARCH t1 USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
    plan = parts.activity.store.read(
        lambda conn: conn.execute(
            f"EXPLAIN QUERY PLAN {rule_queries.DURING.compiled.sql}", {"since": 1, "type": "x", "app": "a"}
        ).fetchall()
    )
    assert plan[0][3] == "SEARCH t1 USING INDEX user_activities_time (timestamp>?)"
    assert not [row[3] for row in plan if "TEMP B-TREE" in row[3]], "it is read as it is asked for"


# --- the thread -------------------------------------------------------------------------------------------------------


@pytest.fixture
def watch(parts: Parts) -> Iterator[RuleWorker]:
    made = RuleWorker(parts.rules.evaluator)
    parts.bus.subscribe(made.on_events)
    made.start()
    yield made
    made.stop()


def test_what_arrives_is_told_at_once_and_rules_may_come_and_go(parts: Parts, watch: RuleWorker) -> None:
    parts.did()
    parts.make()
    first = parts.did()
    eventually(lambda: len(parts.notices()) == 1)
    assert parts.notices()[0].data["activity_id"] == first
    parts.enable(False)
    parts.did("bob")
    parts.enable(True)
    second = parts.did()
    eventually(lambda: len(parts.notices()) == 2)
    assert parts.notices()[1].data["activity_id"] == second
    watch.stop()
    assert parts.notices("bob") == []


class Counting:
    """An evaluator that counts its rounds."""

    def __init__(self, is_watching: bool) -> None:
        self.is_watching = is_watching
        self.rounds = threading.Semaphore(0)
        self.failures: list[Exception] = []

    def invalidate(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def evaluate_new(self) -> int:
        self.rounds.release()
        if self.failures:
            raise self.failures.pop()
        return 0

    def save_position(self) -> None:
        pass


def test_without_a_rule_an_activity_wakes_nobody() -> None:
    evaluator = Counting(is_watching=False)
    worker = RuleWorker(evaluator, pause_s=0)
    worker.start()
    assert evaluator.rounds.acquire(timeout=5), "once at the start"
    worker.on_events((Event("activity", "a"), Event("session", "s")))
    worker.on_events((Event("notification", "n"),))
    worker.on_events((Event("rule", "r"),))
    assert evaluator.rounds.acquire(timeout=5)
    worker.stop()
    assert not evaluator.rounds.acquire(blocking=False), "the activity and the notification woke it too"


@pytest.mark.parametrize("failure", [StorageError("The disk is full."), ZeroDivisionError("a bug")])
def test_a_thread_that_failed_tries_again(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    evaluator = Counting(is_watching=True)
    evaluator.failures = [failure]
    worker = RuleWorker(evaluator, pause_s=0)
    worker.start()
    for _ in range(2):
        assert evaluator.rounds.acquire(timeout=5)
    worker.stop()
    assert "retrying" in caplog.text


# --- figures ----------------------------------------------------------------------------------------------------------

FALL = {"metric": "active_users", "change_percent": -50, "check_at": "hourly"}
FELL: dict[str, Any] = {
    "on": None, "alert": FALL, "to": ["eve"],
    "send": {"title": "{metric}", "message": "{now} after {before}: {change_percent} %"},
}  # fmt: skip


def test_a_figure_that_fell_is_told_once_a_day(parts: Parts) -> None:
    parts.make("fell", owner="shop", **FELL)
    check = parts.rules.evaluator.check_alerts
    parts.figures.today, parts.figures.before = 40, 100
    assert check() == 0, "it has only just been made"
    parts.clock.go(hours=1)
    assert check() == 1
    assert parts.messages("eve") == ["40 after 100: -60.0 %"]
    assert parts.notices("eve")[0].data["now"] == 40
    assert {(name, app) for name, _, _, app in parts.figures.asked} == {("active_users", "shop")}
    assert check() == 0
    asked = len(parts.figures.asked)
    assert check() == 0
    assert len(parts.figures.asked) == asked, "it is looked at once an hour"
    for _ in range(24):
        parts.clock.go(hours=1)
        check()
    assert len(parts.messages("eve")) == 2
    assert parts.now("fell").fired == 2


def test_a_figure_that_is_as_it_was_is_not_told_and_an_alert_that_is_off_not_looked_at(parts: Parts) -> None:
    parts.make("fell", **FELL)
    parts.figures.today, parts.figures.before = 60, 100
    parts.clock.go(hours=1)
    assert parts.rules.evaluator.check_alerts() == 0
    parts.enable(False, "fell")
    parts.figures.today = 0
    parts.clock.go(hours=1)
    asked = len(parts.figures.asked)
    assert parts.rules.evaluator.check_alerts() == 0
    assert len(parts.figures.asked) == asked


def test_without_alerts_no_figure_is_asked_and_nothing_is_read(parts: Parts) -> None:
    parts.make()
    parts.judge()
    reads: list[int] = []
    real: Callable[..., Any] = parts.service.store.read
    parts.service.store.read = lambda question: reads.append(1) or real(question)  # type: ignore[assignment, method-assign, func-returns-value]
    assert parts.rules.evaluator.check_alerts() == 0
    assert reads == []


def test_an_alert_that_fails_keeps_no_other_from_being_looked_at(parts: Parts) -> None:
    parts.make("bad", **FELL | {"send": {"title": "Bad", "message": "m"}})
    parts.make("good", **FELL)
    parts.figures.today, parts.figures.before = 40, 100
    parts.clock.go(hours=1)
    parts.failure = ZeroDivisionError("a bug")
    assert parts.rules.evaluator.check_alerts() == 1
    assert (parts.now("bad").last_error, parts.now("good").fired) == (FAULT, 1)
    parts.clock.go(days=1)
    parts.failure = StorageError("The disk is full.")
    with pytest.raises(StorageError):
        parts.rules.evaluator.check_alerts()
    assert parts.now("good").fired == 2
    parts.failure = None
    assert parts.rules.evaluator.check_alerts() == 1
    assert parts.now("bad").fired == 1


@pytest.mark.parametrize("failure", [ZeroDivisionError("a bug"), StorageError("The disk is full.")])
def test_a_figure_that_cannot_be_had_keeps_no_other_alert_from_being_looked_at(
    parts: Parts, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    parts.make("bad", app="broken", owner="broken", **FELL)
    parts.make("good", **FELL)
    parts.figures.today, parts.figures.before, parts.figures.failure = 40, 100, failure
    parts.clock.go(hours=1)
    with suppress(StorageError):
        parts.rules.evaluator.check_alerts()
    assert (parts.now("bad").fired, parts.now("good").fired) == (0, 1)
    assert isinstance(failure, StorageError) or "a bug" in caplog.text
    parts.figures.failure = None
    assert parts.rules.evaluator.check_alerts() == 1, "it was not looked at, so it still is to be"


def test_the_figures_are_those_of_the_dashboard(tmp_path: Path) -> None:
    clock = StillClock()
    with Backend(Config(data_dir=tmp_path, me="eve"), clock=clock) as backend:
        alert = {"metric": "active_users", "change_percent": -50, "min_before": 10}
        text = {"title": "Quiet", "message": "{now} after {before}: {change_percent} %"}
        backend.rules.create("quiet", alert=alert, send=text, to=["eve"])
        for days, users in ((7, 12), (6, 30), (0, 3)):
            when = clock.at(days=-days, minutes=-30)
            rows = [{"user_id": f"u{n}", "activity_type": "x", "timestamp": when} for n in range(users)]
            backend.activity.track_batch(rows)
        clock.go(hours=1)
        assert backend.rules.evaluator.check_alerts() == 1
        (notice,) = backend.notifications.get_user_notifications("eve").notifications
        assert notice.message == "3 after 12: -75.0 %"
        assert backend.dashboard.today().active_users == 3


# --- tried ------------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_how_often_it_would_have_fired_and_changes_nothing(parts: Parts) -> None:
    ids = [
        parts.did(user, timestamp=parts.clock.at(days=-day), metadata={"n": day})
        for day in range(9, -1, -1)
        for user in ("ada", "bob")
    ]
    parts.make(cooldown_minutes=60)
    parts.judge()
    before = parts.rows("SELECT * FROM rules"), parts.rows("SELECT * FROM rule_uses"), parts.notices()
    found = parts.rules.dry_run_of(RuleRef("hello"))
    assert (found.would_have_fired, found.judged, found.days, found.complete) == (16, 16, 7, True)
    assert [one.activity_id for one in found.examples] == ids[:-11:-1]  # type: ignore[union-attr]
    assert found.examples[0].at == parts.clock.now
    draft = {"on": X | {"where": [{"field": "metadata.n", "op": "lt", "value": 3}], "times": 3, "within_minutes": 4320}}
    assert parts.rules.dry_run(draft).would_have_fired == 2
    assert parts.rules.dry_run(draft, "blog").judged == 0
    assert parts.rules.dry_run({"on": {"activity_type": "y"}}).would_have_fired == 0
    assert (parts.rows("SELECT * FROM rules"), parts.rows("SELECT * FROM rule_uses"), parts.notices()) == before


def test_a_dry_run_fires_as_the_rule_itself_then_does(parts: Parts) -> None:
    on = X | {"times": 2, "within_minutes": 10}
    parts.make(on=on, cooldown_minutes=30)
    for minute in (0, 4, 5, 20, 29, 36, 37, 90, 101, 102, 103):
        parts.clock.now = parts.clock.now.replace(hour=12, minute=0) + (to_datetime(minute * 60_000) - to_datetime(0))
        parts.did()
        parts.judge()
    assert parts.rules.dry_run_of(RuleRef("hello")).would_have_fired == parts.now().fired == len(parts.notices()) > 2


# --- the worst end ----------------------------------------------------------------------------------------------------

UNTIL_KILLED = """
import sys
from pathlib import Path
from tests.rules.test_service import Parts

parts = Parts(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    for number in range(7):
        parts.did(f"user {number % 3}")
    parts.judge()
    print("judged", flush=True)
"""


def test_a_process_killed_at_any_moment_loses_and_repeats_nothing(tmp_path: Path) -> None:
    made = Parts(tmp_path)
    made.make("each")
    made.make("once", cooldown_minutes=60, to=["eve"])
    made.make("thrice", on=X | {"times": 3, "within_minutes": 60}, to=["bob"])
    made.close()
    for round_ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", UNTIL_KILLED, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == "ready\n"
            for _ in range(3 + 5 * round_):
                child.stdout.readline()
            child.send_signal(signal.SIGKILL)
            child.wait(10)
    parts = Parts(tmp_path)
    try:
        parts.judge()
        with closing(sqlite3.connect(tmp_path / "a.db")) as conn:
            did = Counter(user for (user,) in conn.execute("SELECT user_id FROM user_activities"))
        assert sum(did.values()) > 200
        for user, times in did.items():
            told = [notice.data["activity_id"] for notice in parts.notices(user)]
            assert len(told) == len(set(told)) == times
        assert Counter(notice.data["user_id"] for notice in parts.notices("eve")) == dict.fromkeys(did, 1)
        assert Counter(notice.data["user_id"] for notice in parts.notices("bob")) == {
            user: times // 3 for user, times in did.items()
        }
    finally:
        parts.close()
