"""10,000 notices by e-mail with repeated ``kill -9``: ``python tests/benchmarks/delivery_kill.py``.

Eight callers post until each notice is answered; meanwhile the server is killed at random moments of its deliveries and
started again. Prints one markdown table: how many were answered, arrived, were lost and came twice.
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.kill_rounds import WORKERS, post_and_kill
from tests.support.smtp_server import smtp_server


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--posts", type=int, default=10_000)
    asked.add_argument("--kills", type=int, default=25)
    chosen = asked.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, smtp_server() as mail:
        came = post_and_kill(Path(folder), mail, chosen.posts, chosen.kills, random.Random())
    took = time.monotonic() - began
    twice = came.arrivals.total() - len(came.arrivals)
    lost = set(came.answers.values()) - came.arrivals.keys()
    print("| notices | answered | arrived | lost | came twice | at most (a worker each) | kills | seconds |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    print(
        f"| {chosen.posts:,} | {len(came.answers):,} | {len(came.arrivals):,} | {len(lost)} | {twice} "
        f"| {came.kills * WORKERS} | {came.kills} | {took:.0f} |"
    )


if __name__ == "__main__":
    main()
