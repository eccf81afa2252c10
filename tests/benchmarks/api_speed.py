"""How fast the API is beside a bare ASGI echo, in one run on one machine: ``python tests/benchmarks/api_speed.py``.

The echo (``echo_app.py`` on uvicorn) and FlashFlow (``main.py serve --no-ui`` over a fresh folder) are processes of
their own on 127.0.0.1, loaded in turn by a third (``load.py``). Each row is set against the mean of the echo measured
right before and right after it, and the median of three rounds counts, since machines are noisy. The notifications
that the list reads are seeded first, through ``send``, so that every row runs over them. Prints one markdown table;
asserts nothing about time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import httpx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.benchmarks.load import BATCH, Job, Result  # noqa: E402
from tests.support.server_process import eventually, free_port, serving  # noqa: E402

READER = "reader"
JOB_DEADLINE = 600


@dataclass(frozen=True)
class Row:
    """A workload, how many connections load it and what is asked of it (as a share of the echo, or per second)."""

    name: str
    workload: str
    floor: float
    connections: int = 32
    per_request: int = 1
    p99_limit: float | None = None

    @property
    def unit(self) -> str:
        return "activities/s" if self.per_request > 1 else "requests/s"


ROWS = (
    Row("`POST /api/activity/track`", "track", 0.35, p99_limit=5.0),
    Row("`POST /api/notifications/send`", "send", 0.2),
    Row("`GET /api/notifications/user/…` (50 of {stored:,})", "inbox", 0.15),
    Row(f"`POST /api/activity/batch` of {BATCH}", "batch", 20_000, connections=4, per_request=BATCH),
)


@contextmanager
def echo_server() -> Iterator[int]:
    """The yardstick on a free port, with uvicorn's own choice of loop and parser, as FlashFlow has."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "echo_app:app", "--app-dir", str(HERE), "--port", str(port)]
    quiet = ["--no-access-log", "--log-level", "warning", "--lifespan", "off"]
    process = subprocess.Popen([*command, *quiet], stdin=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        eventually(answers, what="the echo server")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def measure(job: Job) -> Result:
    """The job in a load process of its own; anything but good answers is said loudly."""
    done = subprocess.run(
        [sys.executable, str(HERE / "load.py")],
        input=json.dumps(asdict(job)),
        stdout=subprocess.PIPE,
        text=True,
        timeout=JOB_DEADLINE,
        check=True,
    )
    result = Result(**json.loads(done.stdout))
    if result.bad:
        print(f"!!! {job.workload}: {result.bad} BAD ANSWERS, the first: {result.first_bad}", file=sys.stderr)
    if result.cpu > 0.9:
        print(f"!!! {job.workload}: the load process was busy {result.cpu:.0%}: it may be what limits", file=sys.stderr)
    return result


HEADINGS = ("", "per second", "of the echo", "asked for", "p50 ms", "p99 ms", "p99 / echo's", "reached")


def mean(results: Sequence[Result], name: str) -> float:
    return sum(getattr(result, name) for result in results) / len(results)


@dataclass(frozen=True)
class Measured:
    """A row's result and the echo's right before and right after it."""

    row: Row
    result: Result
    echoes: tuple[Result, Result]

    @property
    def share(self) -> float:
        """Its requests a second as a share of the echo's."""
        return self.result.per_second / mean(self.echoes, "per_second")


def middle(rounds: list[Measured]) -> Measured:
    """The round with the median share (of two, the slower); a round with bad answers goes before any other."""
    return next(
        (one for one in rounds if one.result.bad), sorted(rounds, key=lambda one: one.share)[(len(rounds) - 1) // 2]
    )


def cells(measured: Measured, stored: int) -> tuple[str, ...]:
    """One line of the table: a batch is held against activities a second, the rest against the echo."""
    row, result, share = measured.row, measured.result, measured.share
    rate, slower = result.per_second * row.per_request, result.p99 / mean(measured.echoes, "p99")
    batch = row.per_request > 1
    reached = (rate if batch else share) >= row.floor and not result.bad
    limit = ""
    if row.p99_limit is not None:
        reached = reached and slower <= row.p99_limit
        limit = f" (at most {row.p99_limit:g})"
    return (
        row.name.format(stored=stored),
        f"{rate:,.0f} {row.unit}",
        "" if batch else f"{share:.2f}",
        f"{row.floor:,}/s" if batch else f"{row.floor:.2f}",
        f"{result.p50:.1f}",
        f"{result.p99:.1f}",
        "" if batch else f"{slower:.1f}{limit}",
        "yes" if reached else "**no**",
    )


def table(measured: list[Measured], stored: int) -> str:
    """The results as markdown, first the mean of the echoes that they are set against."""
    echoes = [echo for one in measured for echo in one.echoes]
    rate, p50, p99 = mean(echoes, "per_second"), mean(echoes, "p50"), mean(echoes, "p99")
    lines = [
        HEADINGS,
        ("---", *("---:" for _ in HEADINGS[1:-1]), "---"),
        ("bare ASGI echo", f"{rate:,.0f} requests/s", "1.00", "", f"{p50:.1f}", f"{p99:.1f}", "1.0", ""),
        *(cells(one, stored) for one in measured),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="measured time of each row (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="times it is all measured; the median counts (default 3)")
    parser.add_argument("--stored", type=int, default=100_000, help="notifications that the list reads from")
    parser.add_argument("--only", nargs="*", default=[row.workload for row in ROWS], help="these workloads alone")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="flashflow-speed-") as folder,
        echo_server() as echo_port,
        serving(Path(folder) / "data") as server,
    ):
        print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}", file=sys.stderr)
        ours = Job("", server.port, "", key=server.key, seconds=options.seconds)
        yardstick = Job("echo", echo_port, uuid.uuid4().hex, seconds=options.seconds)
        if "inbox" in options.only:
            seed = replace(ours, workload="send", run=uuid.uuid4().hex, user=READER, count=options.stored)
            seeded = measure(replace(seed, warm_up=0.0, seconds=JOB_DEADLINE / 2))
            print(f"seeded {options.stored:,} notifications at {seeded.per_second:,.0f}/s", file=sys.stderr)
        rows = [row for row in ROWS if row.workload in options.only]
        rounds: list[list[Measured]] = []
        for _ in range(options.rounds):
            before = measure(yardstick)
            rounds.append([])
            for row in rows:
                job = replace(ours, workload=row.workload, run=uuid.uuid4().hex, connections=row.connections)
                result = measure(replace(job, user=READER if row.workload == "inbox" else ""))
                after = measure(yardstick)
                rounds[-1].append(Measured(row, result, (before, after)))
                print(
                    f"{row.workload} {result.per_second:,.0f}/s between echoes of {before.per_second:,.0f}/s "
                    f"and {after.per_second:,.0f}/s",
                    file=sys.stderr,
                )
                before = after
        print(table([middle(list(of_row)) for of_row in zip(*rounds, strict=True)], options.stored))


if __name__ == "__main__":
    main()
