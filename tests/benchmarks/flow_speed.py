"""Time of the example .flow file: ``python tests/benchmarks/flow_speed.py``.

Reads, checks and applies it, and tracks activities with and without a check by a model, in turn with a bare
interpreter, so that all have the same machine. Prints CPU times and their ratio to the bare interpreter's; asserts
nothing about time.
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
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from flashflow.backend.activity.ingest import Origin  # noqa: E402
from flashflow.backend.flow.language.declarations import Project  # noqa: E402
from flashflow.backend.flow.project import FlowProject, load_files  # noqa: E402
from flashflow.backend.schemas.requests import ActivityIn  # noqa: E402
from tests.support.flow_parts import Parts  # noqa: E402

EXAMPLE = ROOT / "examples" / "user_tracking_notifications.flow"
ACTIVITIES = 5_000
FREE = {"name": "Lamp", "price": 40}
CHECKED = {"model": "Product", **FREE}


def cpu_ms(work: Callable[[], object]) -> float:
    """Return the CPU time of ``work`` in this process and its children."""
    before = os.times()
    work()
    after = os.times()
    return sum(getattr(after, name) - getattr(before, name) for name in CLOCKS) * 1000


CLOCKS = ("user", "system", "children_user", "children_system")


def precise_ms(work: Callable[[], object]) -> float:
    """Return the CPU time of ``work`` in this process, without the children."""
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def bare() -> None:
    subprocess.run([sys.executable, "-I", "-c", "pass"], check=True)


def prepare(parts: Parts, metadata: dict[str, object]) -> Callable[[], None]:
    """Return the conversion of activities with this metadata to rows, which includes every check."""
    activity = ActivityIn(user_id="ada", activity_type="view", metadata=metadata)

    def work() -> None:
        for _ in range(ACTIVITIES):
            parts.activity.track_write(activity, Origin())

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}", file=sys.stderr)
    times: dict[str, list[float]] = {}

    def note(name: str, ms: float) -> None:
        times.setdefault(name, []).append(ms)

    for number in range(options.rounds + 1):
        with tempfile.TemporaryDirectory(prefix="flashflow-flow-") as folder:
            parts = Parts(Path(folder))
            read: list[Project] = []
            round_: dict[str, float] = {"`python -c pass`": cpu_ms(bare)}
            round_["read and check the example"] = precise_ms(lambda found=read: found.append(load_files([EXAMPLE])[0]))
            project = read[0]
            flow = FlowProject(parts, [EXAMPLE], lambda paths, project=project: (project, ()))
            round_["apply it"] = precise_ms(flow.load)
            again = FlowProject(parts, [EXAMPLE], lambda paths, project=project: (project, ()))
            round_["apply it unchanged"] = precise_ms(again.load)
            per_call = 1000 / ACTIVITIES
            round_["an activity that names a model, µs"] = precise_ms(prepare(parts, CHECKED)) * per_call
            round_["any other activity, µs"] = precise_ms(prepare(parts, FREE)) * per_call
            parts.activity.check_models({})
            round_["an activity without models, µs"] = precise_ms(prepare(parts, FREE)) * per_call
            parts.close()
        if number:  # the first round loads the libraries
            for name, ms in round_.items():
                note(name, ms)
    unit = statistics.median(times["`python -c pass`"])
    print("| work | CPU, median | CPU, lowest | of `python -c pass` |", "|---|---:|---:|---:|", sep="\n")
    for name, found in times.items():
        middle = statistics.median(found)
        ratio = "" if "µs" in name else f"{middle / unit:.2f}"
        print(f"| {name} | {middle:.2f} | {min(found):.2f} | {ratio} |")


if __name__ == "__main__":
    main()
