"""Four weeks at once: long ranges are the sums of their days, and stay so whatever is taken out or put in."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from flashflow.backend import Filters, NotificationService, UserActivityService
from flashflow.backend.data.erasure import Erasure
from flashflow.backend.store.rollups import four_week_blocks
from tests.support.fixed_clock import StillClock
from tests.support.naive_metrics import Naive

NOW = datetime(2026, 11, 3, 15, 20, tzinfo=UTC)
DAYS = 230


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def service(path: Path) -> Iterator[UserActivityService]:
    with UserActivityService(path, clock=StillClock(NOW), zone=ZoneInfo("Europe/Berlin")) as service:
        fill(service)
        yield service


def fill(service: UserActivityService) -> None:
    """What ten people did in three apps, a little of everything on most days; a third of it arrives in disorder."""
    chance = random.Random(11)
    rows = [
        {
            "user_id": f"u{chance.randrange(10)}",
            "activity_type": chance.choice(("view", "view", "buy", "share")),
            "app": chance.choice(("shop", "blog", "desk")),
            "page_url": chance.choice((None, "/a", "/b", f"/{chance.randrange(40)}")),
            "timestamp": NOW - timedelta(minutes=chance.randrange(DAYS * 24 * 60)),
        }
        for _ in range(3_000)
    ]
    rows[:2_000] = sorted(rows[:2_000], key=lambda row: row["timestamp"])
    for start in range(0, len(rows), 500):
        service.track_batch(rows[start : start + 500])
        service.rollups.aggregate_pending()


def hold_to_the_days(service: UserActivityService, zone: str | None = None) -> None:
    asked_in = None if zone is None else ZoneInfo(zone)
    rows = [a for n in range(10) for a in service.list_activities(user_id=f"u{n}", limit=10_000).activities]
    naive = Naive(tuple(rows), asked_in or service.analytics.zone)
    today, chance = NOW.date(), random.Random(5)
    ranges = [(today - timedelta(days=364), today), (today - timedelta(days=DAYS + 9), today - timedelta(days=1))]
    for _ in range(12):
        last = today - timedelta(days=chance.randrange(120))
        ranges.append((last - timedelta(days=chance.randrange(50, 200)), last))
    for first, last in ranges:
        for scope in ({}, {"app": "shop"}, {"activity_type": "buy"}, {"app": "blog", "activity_type": "view"}):
            asked = Filters(first=first, last=last, zone=asked_in, **scope)
            found = service.analytics.top(asked, "pages", 100)
            assert [(n.name, n.count) for n in found.names] == naive.names(first, last, lambda a: a.page_url, **scope)
            assert found.total == sum(n.count for n in found.names)
            figures = service.analytics.overview(asked, "none").figures
            assert figures["activities"].value == len(naive.within(first, last, **scope))
            heat = [[0] * 24 for _ in range(7)]
            for a in naive.within(first, last, **scope):
                local = a.timestamp.astimezone(naive.zone)
                heat[local.weekday()][local.hour] += 1
            assert [list(hours) for hours in service.analytics.heatmap(asked).hours] == heat
            if "activity_type" not in scope:
                kinds = service.analytics.top(asked, "types", 100).names
                assert [(n.name, n.count) for n in kinds] == naive.names(
                    first, last, lambda a: a.activity_type, **scope
                )


@pytest.mark.parametrize("zone", [None, "Asia/Kathmandu"])
def test_long_ranges_are_the_sums_of_their_days(service: UserActivityService, zone: str | None) -> None:
    hold_to_the_days(service, zone)


def test_long_ranges_are_read_by_blocks(service: UserActivityService, path: Path) -> None:
    """By the file itself: what stands in the blocks is what is told."""
    year = Filters(first=NOW.date() - timedelta(days=300), last=NOW.date())
    service.close()
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("UPDATE name_blocks SET activities = 1000000 WHERE app = 0 AND type = 0 AND kind = 3")
        conn.execute("UPDATE hour_blocks SET activities = 1000000 WHERE app = 0 AND type = 0")
    with UserActivityService(path, clock=StillClock(NOW), zone=ZoneInfo("Europe/Berlin")) as again:
        assert again.analytics.top(year, "pages", 3).names[0].count >= 1_000_000
        assert again.analytics.heatmap(year).most >= 1_000_000
        assert {d.table for d in again.rollups.verify()} == {"name_blocks", "hour_blocks"}
        again.rollups.rebuild()
        assert again.rollups.verify() == ()
        again.track_activity("u1", "view", page_url="/late", timestamp=NOW - timedelta(days=100))
        assert again.rollups.verify() == (), "they are kept again"
        hold_to_the_days(again)


def test_whoever_is_erased_is_no_longer_in_a_block(service: UserActivityService, path: Path) -> None:
    service.track_activity("u3", "view", page_url="/only-u3", timestamp=NOW - timedelta(days=90))
    service.rollups.aggregate_pending()
    with NotificationService(path.parent / "n.db", clock=service.clock) as notifications:
        assert Erasure(service, notifications).erase("u3").removed["activities"] > 200
    assert service.rollups.verify() == ()
    hold_to_the_days(service)
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("SELECT COUNT(*) FROM name_blocks WHERE activities <= 0").fetchone() == (0,)
        assert conn.execute("SELECT COUNT(*) FROM hour_blocks WHERE activities <= 0").fetchone() == (0,)
        kept = conn.execute("SELECT COUNT(*) FROM dimensions WHERE name = '/only-u3'").fetchone()
        assert kept == (0,)


@pytest.mark.parametrize(
    ("days", "there", "expected"),
    [
        ((0, 54), (0, 54), None),  # too few to be worth it
        ((0, 55), (0, 55), (0, 1)),
        ((1, 60), (0, 90), (1, 1)),
        ((1, 60), (1, 60), (0, 2)),  # nothing is outside, so the outer blocks are whole
        ((1, 60), (5, 90), (0, 1)),
        ((28, 111), (0, 200), (1, 3)),
        ((27, 112), (0, 200), (1, 3)),
        ((29, 110), (0, 200), (2, 2)),
        ((29, 84), (0, 200), (2, 2)),
        ((30, 90), (0, 20), None),
        ((30, 90), (100, 120), None),
        ((0, 90), (None, None), None),
    ],
)
def test_a_range_is_cut_into_whole_blocks_and_the_days_around_them(
    days: tuple[int, int], there: tuple[int | None, int | None], expected: tuple[int, int] | None
) -> None:
    found = four_week_blocks.blocks_within(*days, *there)
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert (found.first, found.last) == expected
    (early, before), (after, late) = found.left_over
    assert (early, late) == days
    assert (before + 1, after) == (expected[0] * 28, expected[1] * 28 + 28)
