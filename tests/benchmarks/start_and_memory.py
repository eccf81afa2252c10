"""Start and idle memory of ``serve --no-ui``: ``python tests/benchmarks/start_and_memory.py``.

Start is from the process's creation to the first answered ``GET /api/health``, the median of five, once over a fresh
folder (which makes the files and the key) and once over a used one. Memory is read from ``/proc`` (Linux) after five
idle seconds. Prints one markdown table; asserts nothing about time.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.server_process import START_DEADLINE, environment, free_port  # noqa: E402

START_LIMIT = 0.8
MEMORY_LIMIT = 70.0


def answers(port: int) -> bool:
    """One cheap request, so that asking costs the starting server little."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().status == 200
        except OSError:
            return False


@contextmanager
def started(folder: Path) -> Iterator[tuple[int, float]]:
    """A server over ``folder``: its pid and the seconds until it answered."""
    port = free_port()
    command = [sys.executable, "main.py", "serve", "--no-ui", "--data-dir", str(folder), "--port", str(port)]
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(folder), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        while not answers(port):
            if process.poll() is not None or time.perf_counter() - began > START_DEADLINE:
                raise SystemExit(f"the server did not start: exit code {process.poll()}")
            time.sleep(0.002)
        yield process.pid, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(10)


def median_start(folders: list[Path]) -> float:
    times = []
    for folder in folders:
        with started(folder) as (_, seconds):
            times.append(seconds)
    return statistics.median(times)


def memory(pid: int) -> dict[str, float]:
    """Resident and proportional memory in MiB, as far as this system tells."""
    found = {}
    for name, file in (("VmRSS", "status"), ("Pss", "smaps_rollup")):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
                if line.startswith(f"{name}:"):
                    found[name] = int(line.split()[1]) / 1024
    return found


def row(what: str, value: float | None, unit: str, limit: float) -> str:
    if value is None:
        return f"| {what} | not known on this system | {limit:g} {unit} | |"
    return f"| {what} | {value:.2f} {unit} | {limit:g} {unit} | {'yes' if value < limit else '**no**'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--idle", type=float, default=5.0, help="seconds before memory is read")
    options = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="flashflow-start-") as name:
        folders = [Path(name) / str(number) for number in range(options.starts)]
        fresh = median_start(folders)
        used = median_start([folders[0]] * options.starts)
        with started(folders[0]) as (pid, _):
            time.sleep(options.idle)
            resident = memory(pid)
    print(
        "| `serve --no-ui` | measured | limit | reached |",
        "|---|---:|---:|---|",
        row("start to the first answer, fresh data folder", fresh, "s", START_LIMIT),
        row("start to the first answer, used data folder", used, "s", START_LIMIT),
        row(f"resident memory (RSS) after {options.idle:g} s idle", resident.get("VmRSS"), "MiB", MEMORY_LIMIT),
        row(f"of it its own share (PSS) after {options.idle:g} s idle", resident.get("Pss"), "MiB", MEMORY_LIMIT),
        sep="\n",
    )


if __name__ == "__main__":
    main()
