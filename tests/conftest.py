"""Fixtures and settings of every test: the seed, Hypothesis profiles, tests that run alone."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.examples import FACTORS, examples

SEED = "FLASHFLOW_TEST_SEED"
LOCKS = "FLASHFLOW_TEST_LOCKS"
MEMORY = Path("/dev/shm")
MEMORY_NEEDED = 4 * 1024**3
"""Free bytes of MEMORY that a run needs."""
SLOW = ("tests/browser", "hostile_environment", "tests/store", "rendering", "tests/data", "tests/cli", "tests/api")

for _name in FACTORS:
    settings.register_profile(
        _name, deadline=None, print_blob=True, max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "serial: measures time, so no other test runs beside it")
    # Workers inherit both: one seed, one pair of locks for the whole run.
    os.environ.setdefault(SEED, str(secrets.randbelow(2**32)))
    # Hundreds of processes start: without stored bytecode each one compiles every module, 0.3 s.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if "TMPDIR" not in os.environ and _has_room(MEMORY):
        # Each commit waits for the disk twice, and no test cuts the power: SIGKILL loses nothing that is in memory.
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None
    if LOCKS not in os.environ:
        os.environ[LOCKS] = tempfile.mkdtemp(prefix="flashflow-tests-")
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = int(os.environ[SEED])


def _has_room(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= MEMORY_NEEDED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The slowest files first: one of them left for the end would run beside an idle worker.
    items.sort(key=lambda item: next((n for n, part in enumerate(SLOW) if part in str(item.path)), len(SLOW)))


def pytest_xdist_auto_num_workers() -> int:
    # Half of a worker's time is waiting: for processes, pages and deadlines.
    return 2 * (os.cpu_count() or 1)


def pytest_report_header() -> str:
    return f"seed: {os.environ[SEED]} (repeat this run with {SEED}={os.environ[SEED]})"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with _turn(alone=item.get_closest_marker("serial") is not None):
        return (yield)


@contextmanager
def _turn(*, alone: bool) -> Iterator[None]:
    """Share the machine with the other workers' tests, or have it alone.

    Everyone passes the gate first, so that a test which wants to be alone is not overtaken for ever.
    """
    folder = Path(os.environ[LOCKS])
    with (folder / "gate").open("w") as gate, (folder / "running").open("w") as running:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run, for ``random.Random(seed)``."""
    return int(os.environ[SEED])
