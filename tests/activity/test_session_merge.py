"""Activities without a session id have the same sessions in whatever order they come."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashflow.backend import Session, UserActivityService
from flashflow.backend.core.events import Event
from flashflow.backend.store.activity import session_cache, session_merge, sessionizer
from flashflow.backend.store.analytics import key_activities
from flashflow.backend.store.engine.writer import Write
from tests.support.examples import examples
from tests.support.fixed_clock import StillClock

IDLE, LONGEST = 30 * 60, 24 * 3600
KEY = "buy"
PAGES = (None, "/a", "/b", "/c")


class Made(NamedTuple):
    """An activity: seconds after START, who, where, on which page, and whether it is a key activity."""

    second: int
    user: str = "ada"
    app: str = "shop"
    page: str | None = None
    is_key: bool = False

    def row(self, clock: StillClock) -> dict[str, Any]:
        return {
            "user_id": self.user,
            "app": self.app,
            "activity_type": KEY if self.is_key else "look",
            "page_url": self.page,
            "timestamp": timestamp(self.second, clock),
        }


def timestamp(second: int, clock: StillClock) -> datetime:
    return clock.at(days=-8, seconds=second)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def service(tmp_path: Path, clock: StillClock) -> Iterator[UserActivityService]:
    with UserActivityService(tmp_path / "a.db", clock=clock) as service:
        yield service


def runs(made: Iterable[Made], day: int = LONGEST) -> list[list[Made]]:
    """The sessions by the words of DEFINITIONS.md: a new one after 30 minutes without activity, or after 24 hours."""
    found: list[list[Made]] = []
    places: dict[tuple[str, str], list[Made]] = {}
    for one in sorted(made, key=lambda m: m.second):
        place = (one.user, one.app)
        session = places.get(place)
        if session is None or one.second - session[-1].second > IDLE or one.second - session[0].second >= day:
            session = places[place] = []
            found.append(session)
        session.append(one)
    return found


def stored(service: UserActivityService) -> list[Session]:
    return [s for user in ("ada", "bob") for s in service.get_user_sessions(user, limit=10_000).sessions]


def hold_to(service: UserActivityService, clock: StillClock, made: Sequence[Made], day: int = LONGEST) -> None:
    """Every figure and field of the sessions is what ``made`` says, and every activity is in its session."""
    expected_runs = runs(made, day)
    expected = sorted(
        (run[0].user, run[0].app, timestamp(run[0].second, clock), timestamp(run[-1].second, clock), len(run),
         len({m.page for m in run} - {None}), timestamp(run[-1].second, clock), "timeout")
        for run in expected_runs
    )  # fmt: skip
    assert [
        (s.user_id, s.app, s.start_time, s.last_seen, s.activities, s.pages_visited, s.end_time, s.end_reason)
        for s in sorted(stored(service), key=lambda s: (s.user_id, s.app, s.start_time))
    ] == expected
    within: dict[str, list[tuple[str, str, datetime]]] = defaultdict(list)
    for activity in service.list_activities(limit=10_000).activities:
        within[str(activity.session_id)].append((activity.user_id, activity.app, activity.timestamp))
    by_run = [[(m.user, m.app, timestamp(m.second, clock)) for m in run] for run in expected_runs]
    assert sorted(sorted(rows) for rows in within.values()) == sorted(by_run)
    for session in stored(service):
        rows = service.list_activities(session_id=session.id, limit=10_000).activities
        assert len(rows) == session.activities
    for user in {m.user for m in made}:
        figures = service.get_user_analytics(user)
        assert figures.total_sessions == sum(run[0].user == user for run in expected_runs)
        assert figures.total_activities == sum(m.user == user for m in made)
    assert service.rollups.verify() == ()


def keyed(service: UserActivityService, made: Sequence[Made], day: int) -> None:
    """The sessions know their key activities."""
    rows = service.store.read(
        lambda conn: conn.execute("SELECT user_id, app, start_time, key_activities FROM user_sessions").fetchall()
    )
    assert sorted(count for *_, count in rows) == sorted(sum(m.is_key for m in run) for run in runs(made, day))


GAPS = st.sampled_from([0, 1, 60, 600, 1500, IDLE - 1, IDLE, IDLE + 1, 2 * IDLE, 3 * 3600])
MADE = st.builds(
    Made,
    second=st.integers(0, 0),
    user=st.sampled_from(["ada", "ada", "ada", "bob"]),
    app=st.sampled_from(["shop", "shop", "shop", "blog"]),
    page=st.sampled_from(PAGES),
    is_key=st.booleans(),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Made]:
    second, made = 0, []
    for one, gap in draw(st.lists(st.tuples(MADE, GAPS), min_size=1, max_size=30)):
        second += gap
        made.append(one._replace(second=second))
    return draw(st.permutations(made))


STEPS = st.lists(st.sampled_from(["one", "some", "close", "fold", "again", "mark", "count"]), min_size=1, max_size=20)


@settings(max_examples=examples(150), deadline=None)
@given(made=histories(), steps=STEPS, day=st.sampled_from([LONGEST, 2 * 3600]), tail=st.sampled_from([0, 256]))
def test_any_order_gives_the_sessions_of_the_right_order(
    tmp_path_factory: pytest.TempPathFactory, made: list[Made], steps: list[str], day: int, tail: int
) -> None:
    path, clock = tmp_path_factory.mktemp("runs") / "a.db", StillClock()
    with pytest.MonkeyPatch.context() as patch:
        for module in (sessionizer, session_merge, session_cache):
            patch.setattr(module, "LONGEST_MS", day * 1000)
        for module in (sessionizer, key_activities):
            patch.setattr(module, "TAIL_TO_COUNT_IN", tail)
        patch.setattr(key_activities, "AT_ONCE", 2)
        service = UserActivityService(path, clock=clock)
        try:
            service.rollups.mark_key_activity(KEY)
            left = list(made)
            for at in range(10_000):
                what = steps[at % len(steps)]
                if what == "close":
                    service.close_idle_sessions()
                elif what == "mark":
                    service.store.run(service.rollups.mark_key_activity_write(KEY, at % 3 > 0))
                elif what == "count":
                    service.store.run(
                        Write(lambda tx, items, s=service: [key_activities.recount(tx, s.cache) for _ in items], None)
                    )
                elif what == "fold":
                    service.rollups.aggregate_pending()
                elif what == "again":
                    service.close()
                    service = UserActivityService(path, clock=clock)
                size = 7 if what == "some" else 1
                if not left:
                    break
                rows = [one.row(clock) for one in left[:size]]
                assert service.track_batch(rows).rejected == ()
                del left[:size]
            service.close_idle_sessions()
            service.rollups.mark_key_activity(KEY)
            hold_to(service, clock, made, day)
            keyed(service, made, day)
        finally:
            service.close()


OWN_IDS = st.sampled_from([None, None, "S1", "S2", "019f0000-0000-7000-8000-000000000001"])


@settings(max_examples=examples(80), deadline=None)
@given(
    made=st.lists(st.tuples(MADE, st.sampled_from([0, 0, 60, 1500, IDLE, IDLE + 1, LONGEST]), OWN_IDS), max_size=25),
    order=st.randoms(use_true_random=False),
    size=st.sampled_from([1, 5]),
    live=st.booleans(),
)
def test_sessions_that_apps_know_keep_what_they_have_among_those_that_are_united(
    tmp_path_factory: pytest.TempPathFactory,
    made: list[tuple[Made, int, str | None]],
    order: random.Random,
    size: int,
    live: bool,
) -> None:
    path, clock = tmp_path_factory.mktemp("mixed") / "a.db", StillClock()
    rows, second = [], 0
    for one, gap, own in made:
        second = min(second + gap, 7 * 86_400)
        rows.append((one._replace(second=second), own and f"{own[:-1]}{one.app}{one.user}"))
    if live:  # the last of them now
        rows = [(one._replace(second=one.second + 8 * 86_400 - second), own) for one, own in rows]
    order.shuffle(rows)
    with UserActivityService(path, clock=clock) as service:
        service.rollups.mark_key_activity(KEY)
        for start in range(0, len(rows), size):
            batch = [one.row(clock) | {"session_id": own} for one, own in rows[start : start + size]]
            assert service.track_batch(batch).rejected == ()
        service.close_idle_sessions()
        for name in {own for _, own in rows if own is not None}:
            held = service.list_activities(session_id=name, limit=1_000).activities
            assert len(held) >= sum(own == name for _, own in rows)
        for session in stored(service):
            held = service.list_activities(session_id=session.id, limit=1_000).activities
            assert (len(held), len({a.page_url for a in held} - {None})) == (session.activities, session.pages_visited)
            assert session.start_time <= min(a.timestamp for a in held)
            assert session.last_seen >= max(a.timestamp for a in held)
        assert sum(s.activities for s in stored(service)) == len(rows)
        for user in ("ada", "bob"):
            sessions_of = service.get_user_sessions(user, limit=1_000).sessions
            assert service.get_user_analytics(user).total_sessions == len(sessions_of)
        assert service.rollups.verify() == ()


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "one by one"])
def test_a_late_activity_between_two_sessions_makes_one_of_them(
    service: UserActivityService, clock: StillClock, together: bool
) -> None:
    made = [Made(0, page="/a"), Made(50 * 60, page="/b"), Made(25 * 60, page="/a")]
    send(service, clock, made, 3 if together else 1)
    service.close_idle_sessions()
    assert [(s.activities, s.pages_visited, s.duration) for s in stored(service)] == [(3, 2, 3000.0)]
    hold_to(service, clock, made)


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_two_thousand_shuffled_are_as_many_sessions_as_in_order(
    service: UserActivityService, clock: StillClock, size: int
) -> None:
    chance = random.Random(size)
    made, second = [], 0
    for _ in range(2_000 if size > 1 else 300):
        second += chance.choice([5, 60, 600, 1500, 1500, 1700, 1900])
        made.append(Made(second % (7 * 24 * 3600), page=chance.choice(PAGES)))
    chance.shuffle(made)
    send(service, clock, made, size)
    service.close_idle_sessions()
    hold_to(service, clock, made)


@pytest.mark.parametrize("first", range(5))
def test_a_day_and_an_hour_without_a_pause_is_two_sessions_in_any_order(
    service: UserActivityService, clock: StillClock, first: int
) -> None:
    made = [Made(minute * 60) for minute in range(0, 25 * 60 + 1, 25)]
    random.Random(first).shuffle(made)
    send(service, clock, made, 4)
    service.close_idle_sessions()
    assert len(stored(service)) == 2
    hold_to(service, clock, made)


def test_what_was_first_moves_the_end_of_every_day_after_it(service: UserActivityService, clock: StillClock) -> None:
    """A machine that reports every ten minutes for six days, and then what it could not send in time."""
    made = [Made(minute * 60) for minute in range(35, 6 * 24 * 60, 10)]
    send(service, clock, made, 500)
    before = {s.id for s in stored(service)}
    made.append(Made(10 * 60))
    send(service, clock, made[-1:], 1)
    service.close_idle_sessions()
    hold_to(service, clock, made)
    assert len({s.id for s in stored(service)} - before) <= 1, "the sessions keep their names where they can"


def test_what_came_late_joins_the_session_that_is_open(service: UserActivityService, clock: StillClock) -> None:
    service.track_activity("ada", "look", page_url="/a")
    clock.go(minutes=50)
    now = service.track_activity("ada", "look", page_url="/b")
    service.track_activity("ada", "look", page_url="/c", timestamp=clock.at(minutes=-25))
    (session,) = service.get_user_sessions("ada").sessions
    assert (session.end_time, session.activities, session.pages_visited) == (None, 3, 3)
    clock.go(minutes=5)
    tracked = service.track_activity("ada", "look", page_url="/d")
    (session,) = service.get_user_sessions("ada").sessions
    assert (tracked.session_id, session.pages_visited) == (session.id, 4)
    assert {a.session_id for a in service.list_activities(user_id="ada").activities} == {session.id}
    assert now.activity_id is not None


def test_an_answer_names_the_session_that_is_left(service: UserActivityService, clock: StillClock) -> None:
    first = service.track_activity("ada", "look", timestamp=timestamp(0, clock))
    service.track_activity("ada", "look", timestamp=timestamp(3000, clock))
    for second in (3001, 3002):
        service.track_activity("ada", "look", timestamp=timestamp(second, clock))
    late = service.track_activity("ada", "look", timestamp=timestamp(1500, clock))
    (session,) = service.get_user_sessions("ada").sessions
    assert late.session_id == session.id
    assert first.session_id != session.id, "the smaller part became one of the larger"


@pytest.mark.parametrize("how", ["start", "end", "beat", "name", "named by another"])
def test_a_session_known_outside_keeps_its_id_and_what_it_has(
    service: UserActivityService, clock: StillClock, how: str
) -> None:
    """Its app means to end it, to keep it alive or to track in it."""
    service.track_activity("ada", "look", timestamp=clock.at(minutes=-50))
    if how == "start":
        known = service.start_session("ada").session.id
    elif how.startswith("name"):
        user = "bob" if how == "named by another" else "ada"
        known = service.track_activity(user, "look", session_id="mine").session_id
        service.track_activity("ada", "look", session_id="mine")
    else:
        known = service.track_activity("ada", "look").session_id
        (service.end_session if how == "end" else service.heartbeat)(str(known))
    before = {s.id: s.activities for user in ("ada", "bob") for s in service.get_user_sessions(user).sessions}
    late = service.track_activity("ada", "look", timestamp=clock.at(minutes=-25))
    after = {s.id: s.activities for user in ("ada", "bob") for s in service.get_user_sessions(user).sessions}
    assert late.session_id != known
    assert after == before | {late.session_id: before[str(late.session_id)] + 1}


def test_a_session_somebody_opened_takes_what_goes_on_from_it(service: UserActivityService, clock: StillClock) -> None:
    opened = service.start_session("ada", {"os": "iOS"}).session.id
    clock.go(minutes=50)
    service.track_activity("ada", "look")
    service.track_activity("ada", "look", timestamp=clock.at(minutes=-25))
    (session,) = service.get_user_sessions("ada").sessions
    assert (session.id, session.activities, session.device_info, session.end_time) == (opened, 2, {"os": "iOS"}, None)


def test_what_comes_late_under_a_sessions_id_takes_what_goes_on_from_it(
    service: UserActivityService, clock: StillClock
) -> None:
    for minutes, name in ((-90, "mine"), (-40, None), (-65, "mine")):
        service.track_activity("ada", "look", session_id=name, timestamp=clock.at(minutes=minutes))
    (session,) = service.get_user_sessions("ada").sessions
    assert (session.id, session.activities, session.duration) == ("mine", 3, 3000.0)


def test_ids_of_both_kinds_at_one_moment_do_no_harm(service: UserActivityService, clock: StillClock) -> None:
    """An id may be text or 16 bytes; the two have no order."""
    for name, minutes in ((None, -200), ("S", -200), (None, -205), (None, -195), (None, -228)):
        service.track_activity("ada", "look", session_id=name, timestamp=clock.at(minutes=minutes))
    service.close_idle_sessions()
    assert sorted(s.activities for s in stored(service)) == [2, 3]
    assert service.rollups.verify() == ()


def test_the_listener_is_told_of_the_session_that_grew(service: UserActivityService, clock: StillClock) -> None:
    told: list[Event] = []
    for second in (0, 3000, 3001):
        service.track_activity("ada", "look", timestamp=timestamp(second, clock))
    service.bus.subscribe(told.extend)
    service.track_activity("ada", "look", timestamp=timestamp(1500, clock))
    (session,) = service.get_user_sessions("ada").sessions
    assert [event.id for event in told if event.kind == "session"] == [session.id]


def send(service: UserActivityService, clock: StillClock, made: Sequence[Made], size: int) -> None:
    for start in range(0, len(made), size):
        result = service.track_batch([one.row(clock) for one in made[start : start + size]])
        assert result.rejected == ()


def test_the_naive_sessions_are_what_they_should_be() -> None:
    minutes = [0, 30, 61, 61 + 24 * 60]
    assert [len(run) for run in runs([Made(m * 60) for m in minutes])] == [2, 1, 1]
    busy = runs([Made(m * 60) for m in range(0, 24 * 60 + 1, 20)])
    assert [len(run) for run in busy] == [72, 1]
    assert all(b[0].second > a[-1].second for a, b in pairwise(busy))
    assert timedelta(seconds=busy[0][-1].second) < timedelta(days=1)
    assert datetime(2026, 6, 10, 12, tzinfo=UTC) == StillClock().now


@pytest.mark.parametrize(
    "statement", [sessionizer._NEAR, session_merge._BEFORE, session_merge._AFTER, session_merge._GIVE]
)  # fmt: skip
def test_what_is_looked_up_of_a_run_goes_by_user_and_time(service: UserActivityService, statement: Any) -> None:
    sql = statement.compiled.sql
    names = ("user", "app", "at", "low", "high", "id", "to", "types")
    values = dict.fromkeys(names, 0) | {"types": "[]"}
    plan = [
        row[3] for row in service.store.read(lambda conn: conn.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall())
    ]
    if "user_activities" in sql:
        assert any("activities_by_user" in step or "SEARCH p USING PRIMARY KEY" in step for step in plan), plan
        assert not [step for step in plan if re.match(r"SCAN (a|p|user_activities)\b", step)], plan
    else:
        assert [
            step for step in plan if "USING INDEX user_sessions_user (<expr>=? AND user_id=? AND start_time" in step
        ], plan
