"""How the figures stand at a million activities and at ten: ``python tests/benchmarks/analytics_speed.py``.

A made-up year of 20,000 users (``analytics_data.py``) is tracked through the service in batches of a thousand. Idle
sessions are closed and users' figures settled once a made-up day; the app does that beside the tracking, so it is timed
by itself. Three tables: what tracking costs as the file grows, what an activity takes on disk, and how long each
question of the dashboard takes (the median of nine), beside one ``COUNT(DISTINCT user_id)`` over the bare rows of the
same year. The rates by tenth are of different days: more and more users come, with fewer activities each. So the same
days are tracked into a copy of the full file and into an empty one, batch by batch in turn: that is how much slower it
is. ``--roaming`` has users go from app to app. ``--keep FOLDER`` keeps the files and takes them again. Prints; asserts
nothing about time.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from flashflow.backend import Filters, UserActivityService  # noqa: E402
from flashflow.backend.core.clock import SystemClock  # noqa: E402
from tests.benchmarks.analytics_data import DAY_MS, Shape, rows  # noqa: E402

USERS = 20_000
DAYS = 365
BATCH = 1_000
PARTS = 10
BESIDE = 600_000
LIMIT_MS = 100
GRID_LIMIT_MS = 300


class Driven(SystemClock):
    """The wall clock of the made-up year."""

    ms = 0

    def now_ms(self) -> int:
        return self.ms


class Made(NamedTuple):
    """Activities a second in each tenth of the file, without making them up."""

    rates: tuple[float, ...]


def fill(path: Path, activities: int, until_ms: int, *, roaming: bool = False) -> Made:
    clock = Driven()
    clock.ms = until_ms - (DAYS + 1) * DAY_MS
    rates: list[float] = []
    waiting = 0
    with UserActivityService(path, clock=clock) as service:
        made = batches(Shape(activities, USERS, DAYS, until_ms, roaming))
        for _ in range(PARTS):
            spent, maintenance, count = 0.0, 0.0, 0
            for batch, at in islice(made, activities // PARTS // BATCH):
                clock.ms = max(clock.ms, at)
                started = time.perf_counter()
                service.track_batch(batch)
                spent += time.perf_counter() - started
                count += len(batch)
                waiting += len(batch)
                if waiting >= activities // DAYS:
                    waiting = 0
                    started = time.perf_counter()
                    service.close_idle_sessions()
                    maintenance += time.perf_counter() - started
            rates.append(count / spent)
            words = f"{rates[-1]:,.0f} activities/s, beside {maintenance:.0f} s of maintenance"
            print(f"  {activities:,}: {words}", file=sys.stderr, flush=True)
        clock.ms = until_ms
        while service.close_idle_sessions():
            pass
        service.settle_metrics()
    return Made(tuple(rates))


def beside_an_empty_one(path: Path, until_ms: int, folder: Path) -> tuple[float, float]:
    """Activities a second into an empty file and into a copy of ``path``, whose last day is over."""
    clock = Driven()
    clock.ms = until_ms
    copy = folder / "full.db"
    shutil.copy(path, copy)
    spent = [0.0, 0.0]
    with (
        UserActivityService(folder / "empty.db", clock=clock) as empty,
        UserActivityService(copy, clock=clock) as full,
    ):
        shape = Shape(BESIDE, USERS, BESIDE * DAYS // 10_000_000, until_ms + BESIDE * DAYS // 10_000_000 * DAY_MS)
        for number, (batch, at) in enumerate(batches(shape)):
            clock.ms = max(clock.ms, at)
            for which in (0, 1) if number % 2 else (1, 0):
                started = time.perf_counter()
                (empty, full)[which].track_batch(batch)
                spent[which] += time.perf_counter() - started
            if number % 27 == 26:
                empty.close_idle_sessions()
                full.close_idle_sessions()
    return BESIDE / spent[0], BESIDE / spent[1]


def batches(shape: Shape) -> Iterator[tuple[list[dict[str, object]], int]]:
    """Rows as ``track_batch`` takes them, a thousand at a time, and the time of the last."""
    from flashflow.backend.core.clock import to_datetime

    source = rows(shape)
    while batch := list(islice(source, BATCH)):
        last = batch[-1]["timestamp"]
        yield [row | {"timestamp": to_datetime(row["timestamp"])} for row in batch], last


def took(question: Callable[[], object], times: int = 9) -> float:
    """Milliseconds, the median."""
    question()
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        question()
        spent.append((time.perf_counter() - started) * 1000)
    return statistics.median(spent)


def questions(service: UserActivityService, today: date) -> Iterator[tuple[str, float, float]]:
    """(what, its limit in ms, what it took) of every question over a week, a month and a year."""
    ask = service.analytics
    steps = ["page_view", "add_to_cart", "purchase"]
    for days, words in ((7, "7 days"), (28, "28 days"), (DAYS, "a year")):
        over = Filters(first=today - timedelta(days=days - 1), last=today)
        of_app, of_type = (
            Filters(first=over.first, last=over.last, app="shop"),
            Filters(first=over.first, last=over.last, activity_type="purchase"),
        )
        for name, question in (
            ("overview, with the period before", lambda f=over: ask.overview(f)),
            ("overview by weekday", lambda f=over: ask.overview(f, "weekday")),
            ("overview of one app", lambda f=of_app: ask.overview(f)),
            ("overview of one type", lambda f=of_type: ask.overview(f)),
            ("trend, with the period before", lambda f=over: ask.trend(f)),
            ("top pages", lambda f=over: ask.top(f, "pages")),
            ("top features", lambda f=over: ask.top(f, "features")),
            ("top referrers", lambda f=over: ask.top(f, "referrers")),
            ("heat map", lambda f=over: ask.heatmap(f)),
            ("funnel of three steps", lambda f=over: ask.funnel(f, steps, dropped_at=2)),
            ("users, 50 with their scores", lambda f=over: ask.user_list(f)),
        ):
            yield f"{name}, {words}", LIMIT_MS, took(question)
        for mode in ("on", "on_or_after"):
            limit = GRID_LIMIT_MS if days == DAYS else LIMIT_MS
            yield f"retention {mode}, {words}", limit, took(lambda f=over, d=days, m=mode: ask.retention(f, d, m))
    yield "one user's figures", LIMIT_MS, took(lambda: service.get_user_analytics("user-7"))
    yield "one user's timeline, the newest 50", LIMIT_MS, took(lambda: service.list_activities(user_id="user-7"))


def bytes_by_table(path: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(path)) as conn:
        return conn.execute("SELECT name, SUM(pgsize) FROM dbstat GROUP BY 1 ORDER BY 2 DESC").fetchall()


def report(path: Path, activities: int, made: Made | None) -> None:
    print(f"\n## {activities:,} activities, {USERS:,} users, {DAYS} days\n")
    if made is not None:
        first, last = made.rates[0], made.rates[-1]
        print(
            f"Tracking: {first:,.0f}/s in the first tenth, {last:,.0f}/s in the last ({1 - last / first:+.0%} slower)."
        )
        print(f"By tenth: {', '.join(f'{rate:,.0f}' for rate in made.rates)}.\n")
    with tempfile.TemporaryDirectory(prefix="flashflow-beside-") as folder:
        empty, full = beside_an_empty_one(path, int(time.time() * 1000), Path(folder))
    print(f"The same {BESIDE:,} in turn: {empty:,.0f}/s into an empty file, {full:,.0f}/s into this one: ", end="")
    print(f"{1 - full / empty:+.0%} slower (asked for: under 20 %).\n")
    tables = bytes_by_table(path)
    whole = path.stat().st_size / activities
    print(f"On disk: {whole:.0f} bytes an activity (asked for: 220 at most).")
    print(", ".join(f"{name} {size / activities:.1f}" for name, size in tables[:12]) + "\n")
    with closing(sqlite3.connect(path)) as conn:
        started = time.perf_counter()
        conn.execute("SELECT COUNT(DISTINCT user_id) FROM user_activities").fetchone()
        bare = (time.perf_counter() - started) * 1000
    print("| question | ms | asked for | of one COUNT(DISTINCT) over the bare rows | reached |")
    print("| --- | ---: | ---: | ---: | --- |")
    print(f"| COUNT(DISTINCT user_id), bare rows | {bare:,.0f} | | 1.0000 | |")
    with UserActivityService(path) as service:
        today = date.today()  # noqa: DTZ011 the workspace's own day
        for name, limit, ms in questions(service, today):
            print(
                f"| {name} | {ms:.1f} | {limit} | {ms / bare:.4f} | {'yes' if ms <= limit else '**no**'} |", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--activities", nargs="*", type=int, default=[1_000_000, 10_000_000])
    parser.add_argument("--keep", type=Path, help="where the files are kept, and taken again if they are there")
    parser.add_argument("--roaming", action="store_true", help="users go from app to app")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flashflow-figures-") as folder:
        for activities in options.activities:
            path = (options.keep or Path(folder)) / f"activities-{activities}{'-roaming' * options.roaming}.db"
            made = None
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                made = fill(path, activities, int(time.time() * 1000), roaming=options.roaming)
            report(path, activities, made)


if __name__ == "__main__":
    main()
