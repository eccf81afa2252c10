"""Exported sessions put back in: as they were, once, whichever of them and their activities come first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashflow.backend import Backend, Config, Filters, Session, UserActivityService
from flashflow.backend.data.formats import jsonl
from flashflow.backend.data.import_activities import import_activities_write
from flashflow.backend.data.import_sessions import import_sessions_write
from flashflow.backend.schemas.records import BatchResult
from flashflow.backend.store.privacy import export
from flashflow.backend.store.privacy.export import ExportFilter
from tests.support.examples import examples
from tests.support.fixed_clock import StillClock
from tests.support.server_process import flashflow, serving

HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def service(tmp_path: Path, clock: StillClock) -> Iterator[UserActivityService]:
    with UserActivityService(tmp_path / "a.db", clock=clock) as service:
        yield service


def lines(service: UserActivityService, what: str) -> list[bytes]:
    made: Any = export.activities if what == "activities" else export.sessions
    return b"".join(jsonl(made(service.store, ExportFilter()))).splitlines()


def take_in(service: UserActivityService, rows: Sequence[bytes]) -> BatchResult:
    return service.store.run(import_sessions_write(service, rows))


def sessions(service: UserActivityService) -> list[Session]:
    return sorted((s for some in export.sessions(service.store, ExportFilter()) for s in some), key=lambda s: s.id)


def row(clock: StillClock, **other: Any) -> bytes:
    start = clock.at(seconds=-7200)
    told = {"id": "s1", "user_id": "ada", "app": "shop", "start_time": start.isoformat()}
    return json.dumps(told | other).encode()


def refusals(result: BatchResult) -> list[tuple[str, ...]]:
    return [pair for one in result.rejected for pair in one.errors]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["track", "start", "end", "beat"]),
        st.sampled_from(["ada", "bob"]),
        st.sampled_from(["shop", "blog"]),
        st.integers(1, 50),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=examples(40), deadline=None)
@given(steps=STEPS, sessions_first=st.booleans())
def test_another_file_has_the_same_sessions_and_figures_whichever_came_first(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str, int]], sessions_first: bool
) -> None:
    folder, clock = tmp_path_factory.mktemp("sessions"), StillClock()
    with (
        UserActivityService(folder / "here.db", clock=clock) as here,
        UserActivityService(folder / "there.db", clock=clock) as there,
    ):
        opened: list[str] = []
        for what, user, app, minutes in steps:
            clock.go(minutes=minutes)
            if what == "start":
                opened.append(here.start_session(user, {"os": "x"}, app=app, ip_address="192.0.2.1").session.id)
            elif what == "track":
                here.track_activity(user, "page_view", page_url=f"/{minutes % 3}", app=app)
            elif opened and what == "end":
                here.end_session(opened[minutes % len(opened)])
            elif opened:
                session = next(s for s in sessions(here) if s.id == opened[minutes % len(opened)])
                if session.end_time is None and clock.now - session.last_seen < HOUR / 2:
                    here.heartbeat(session.id)
        here.close_idle_sessions()
        for _ in range(2):
            for kind in ("sessions", "activities") if sessions_first else ("activities", "sessions"):
                rows = lines(here, kind)
                if rows:
                    write = (
                        import_sessions_write(there, rows)
                        if kind == "sessions"
                        else import_activities_write(there, rows)
                    )
                    assert there.store.run(write).rejected == ()
        there.close_idle_sessions()
        assert sessions(there) == sessions(here)
        for user in ("ada", "bob"):
            assert there.get_user_analytics(user) == here.get_user_analytics(user)
        assert there.analytics.overview(Filters()) == here.analytics.overview(Filters())
        assert there.rollups.verify() == ()


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_the_command_line_brings_them_back_once(tmp_path: Path, kind: str, running: bool) -> None:
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / f"sessions.{kind}"
    here.mkdir()
    with closing(UserActivityService(here / "user_activities.db")) as service:
        for number in range(3):
            session = service.start_session(f"=user-{number}", {"model": "=1"}, user_agent="'agent", app="shop")
            service.end_session(session.session.id)
        was = sessions(service)
    assert flashflow("export", "--what", "sessions", str(file), data_dir=here).returncode == 0

    def twice() -> None:
        first = flashflow("import", "--what", "sessions", str(file), data_dir=there)
        assert (first.returncode, first.stderr) == (0, "")
        assert first.stdout == "3 imported, 0 were there already, 0 refused.\n"
        assert flashflow("import", "--what", "sessions", str(file), data_dir=there).stdout == (
            "0 imported, 3 were there already, 0 refused.\n"
        )

    if running:
        with serving(there):
            twice()
    else:
        twice()
    with closing(UserActivityService(there / "user_activities.db")) as service:
        assert sessions(service) == was


def test_a_second_import_tells_nobody_anything(service: UserActivityService, clock: StillClock) -> None:
    told: list[Any] = []
    service.bus.subscribe(told.extend)
    assert take_in(service, [row(clock)]).accepted == 1
    first = len(told)
    assert first
    assert take_in(service, [row(clock)]).duplicates == 1
    assert len(told) == first


def test_an_explicit_end_wins_over_silence_and_what_is_missing_is_filled_in(
    service: UserActivityService, clock: StillClock
) -> None:
    take_in(service, [row(clock)])
    assert sessions(service)[0].end_reason == "timeout"
    end = clock.at(seconds=-3600)
    result = take_in(
        service,
        [row(clock, end_time=end.isoformat(), end_reason="ended", device_info={"os": "y"}, user_agent="agent")],
    )
    assert (result.accepted, result.duplicates) == (1, 0)
    (session,) = sessions(service)
    assert (session.end_reason, session.end_time, session.device_info) == ("ended", end, {"os": "y"})
    assert session.user_agent == "agent"
    assert service.rollups.verify() == ()
    assert service.get_user_analytics("ada").total_sessions == 1


def test_an_imported_past_does_not_keep_anybody_from_the_session_they_are_in(
    service: UserActivityService, clock: StillClock
) -> None:
    here = service.track_activity("ada", "x", app="shop").session_id
    past = {"start_time": clock.now.isoformat(), "end_time": clock.now.isoformat(), "end_reason": "ended"}
    take_in(service, [row(clock, **past)])
    clock.go(minutes=1)
    assert service.track_activity("ada", "x", app="shop").session_id == here


def test_one_that_still_goes_on_is_joined(service: UserActivityService, clock: StillClock) -> None:
    take_in(service, [row(clock, start_time=clock.at(seconds=-60).isoformat())])
    assert service.track_activity("ada", "x", app="shop").session_id == "s1"


def test_what_cannot_be_is_refused_and_the_rest_lands(service: UserActivityService, clock: StillClock) -> None:
    later = clock.at(seconds=7200).isoformat()
    before = clock.at(seconds=-9000).isoformat()
    take_in(service, [row(clock)])
    result = take_in(
        service,
        [
            row(clock, id="s2"),
            row(clock, id="s3", start_time=later),
            row(clock, id="s4", last_seen=before),
            row(clock, id="s5", end_time=before, end_reason="ended"),
            row(clock, id="s6", end_reason="ended"),
            row(clock, user_id="bob"),
            row(clock, app="blog"),
            b"[]",
            row(clock, id="s7", sessions=3),
        ],
    )
    assert (result.accepted, result.duplicates) == (1, 0)
    assert [one.index for one in result.rejected] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert refusals(result)[:6] == [
        ("start_time", "is more than an hour in the future"),
        ("last_seen", "is before start_time"),
        ("end_time", "is before start_time"),
        ("end_reason", "and end_time belong together"),
        ("id", "'s1' belongs to another app or user."),
        ("id", "'s1' belongs to another app or user."),
    ]


def test_neither_the_erased_nor_the_pruned_come_back(tmp_path: Path, clock: StillClock) -> None:
    with Backend(Config(data_dir=tmp_path, port=0), clock=clock) as backend:
        service = backend.activity
        service.track_activity("bob", "x", timestamp=clock.at(seconds=-86_400))
        backend.retention.prune(int((clock.now - HOUR).timestamp() * 1000), "activities")
        backend.erasing.erase("ada", even_if_unknown=True)
        result = take_in(service, [row(clock, user_id="cy", start_time=clock.at(seconds=-90_000).isoformat())])
        assert [field for field, _ in refusals(result)] == ["start_time"]
        result = take_in(service, [row(clock, start_time=clock.now.isoformat())])
        assert [field for field, _ in refusals(result)] == ["user_id"]
        assert not [s for s in sessions(service) if s.user_id in ("ada", "cy")]
