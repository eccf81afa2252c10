"""Speed of the Python client: ``python tests/benchmarks/client_speed.py``.

``track`` on the caller's thread with the row on disk, beside a bare SQLite insert and commit in the same run and on the
same disk; then 10,000 rows that were queued while FlashFlow was closed. Prints one markdown table; asserts nothing
about time.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from flashflow.client import Client  # noqa: E402
from tests.support.server_process import serving  # noqa: E402

CALLS = 10_000
MEDIAN_LIMIT_US, DRAIN_LIMIT_S = 50.0, 3.0


def microseconds(call: Callable[[int], object]) -> tuple[float, float]:
    """Median and 99th percentile of CALLS calls."""
    times = []
    for number in range(CALLS):
        began = time.perf_counter_ns()
        call(number)
        times.append((time.perf_counter_ns() - began) / 1_000)
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def bare_insert(file: Path) -> Callable[[int], object]:
    """The least that a durable queue can do: an id, JSON, one insert with its commit."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE queue(id INTEGER PRIMARY KEY, body TEXT)")

    def insert(number: int) -> object:
        row = {"activity_id": str(uuid.uuid4()), "user_id": "ada", "activity_type": "export", "metadata": {"n": number}}
        return connection.execute("INSERT INTO queue(body) VALUES(?)", (json.dumps(row),))

    return insert


def main() -> None:
    with tempfile.TemporaryDirectory(dir=Path.home()) as folder:
        data = Path(folder) / "data"
        client = Client(app="bench", user_id="ada", data_dir=data)
        bare = microseconds(bare_insert(Path(folder) / "bare.db"))
        away = microseconds(lambda number: client.track("export", {"n": number}))
        with serving(data):
            began, cpu = time.perf_counter(), time.process_time()
            left = client.flush(60)
            drained, cpu = time.perf_counter() - began, time.process_time() - cpu
            running = microseconds(lambda number: client.track("export", {"n": number}))
            client.flush(60)
        client.close()
    print("| | median µs | p99 µs | ratio to bare | limit |")
    print("|---|---|---|---|---|")
    print(f"| bare insert and commit | {bare[0]:.1f} | {bare[1]:.1f} | 1.00 | |")
    for name, (median, late) in {"`track`, FlashFlow closed": away, "`track` while rows are sent": running}.items():
        print(f"| {name} | {median:.1f} | {late:.1f} | {median / bare[0]:.2f} | {MEDIAN_LIMIT_US:.0f} |")
    print(f"\n{CALLS:,} queued rows drained in {drained:.2f} s, {cpu:.2f} s of CPU here; limit {DRAIN_LIMIT_S:.0f} s.")
    print(f"{left} left.")


if __name__ == "__main__":
    main()
