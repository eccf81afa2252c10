"""Time of one command: ``python tests/benchmarks/command_line_speed.py``.

Each command runs beside a server, in turn with two bare interpreters, so that all have the same machine. Prints the
median and the lowest wall time and the mean CPU time (user and system) of a process; asserts nothing about time.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.server_process import environment, serving  # noqa: E402

FLASHFLOW = (sys.executable, "-m", "flashflow")
COMMANDS = {
    "`python -c pass`": (sys.executable, "-c", "pass"),
    "`python -c 'import json, argparse, http.client'`": (sys.executable, "-c", "import json, argparse, http.client"),
    "`flashflow --version`": (*FLASHFLOW, "--version"),
    "`flashflow --help`": (*FLASHFLOW, "--help"),
    "`flashflow key`": (*FLASHFLOW, "key"),
    "`flashflow link`": (*FLASHFLOW, "link"),
    "`flashflow send`": (*FLASHFLOW, "send", "ada", "Build", "green"),
    "`flashflow track`": (*FLASHFLOW, "track", "ada", "export"),
}


def run(command: tuple[str, ...], data_dir: Path) -> tuple[float, float]:
    """Run the command; return its wall time and CPU time in ms."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=environment(data_dir), stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall * 1000, cpu * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}", file=sys.stderr)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="flashflow-command-") as folder, serving(Path(folder), ui=True):
        for number in range(options.rounds + 1):
            for name, command in COMMANDS.items():
                taken = run(command, Path(folder))
                if number:  # the first run stores the bytecode
                    times[name].append(taken)
    print("| command | wall, median | wall, lowest | CPU, mean |", "|---|---:|---:|---:|", sep="\n")
    for name, rows in times.items():
        wall, cpu = zip(*rows, strict=True)
        print(f"| {name} | {statistics.median(wall):.0f} ms | {min(wall):.0f} ms | {statistics.mean(cpu):.0f} ms |")


if __name__ == "__main__":
    main()
