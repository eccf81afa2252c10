"""A long-lived thread that fails is shown by the health and starts again; what it was for goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from flashflow.backend import Backend, Config
from flashflow.backend.core.errors import StorageError
from flashflow.backend.core.supervised_thread import SupervisedThread
from flashflow.backend.jobs import Jobs
from tests.support.server_process import eventually

PATIENCE = 10.0
FAULTS: dict[str, Callable[[Backend], tuple[Any, str]]] = {
    "flashflow-jobs": lambda backend: (backend.jobs._scheduler, "run_pending"),
    "flashflow-outbox": lambda backend: (backend.outbox, "_round"),
    "flashflow-rules": lambda backend: (backend.rule_worker, "_evaluate"),
    "flashflow-write-user_activities": lambda backend: (backend.activity.store.writer, "_gather"),
    "flashflow-write-notifications": lambda backend: (backend.notifications.store.writer, "_work"),
    "flashflow-write-user_activities-checkpoint": lambda backend: (
        backend.activity.store.writer._checkpointer,
        "_wait_until_due",
    ),
}
"""Each thread by its name, and what of it fails once."""


def health(backend: Backend) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{backend.url}/api/health").json()
    return answer


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("fault", [SystemExit, RuntimeError])
def test_a_thread_that_fails_is_shown_and_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: type[BaseException]
) -> None:
    if (name, fault) == ("flashflow-outbox", RuntimeError):
        fault = KeyboardInterrupt  # it goes on by itself after an Exception
    monkeypatch.setattr("flashflow.backend.core.supervised_thread.SHOWN_S", 3.0)
    with Backend(Config(data_dir=tmp_path, me="ada", port=0)) as backend:
        backend.start()
        backend.activity.track_activity("ada", "before")
        assert health(backend)["threads"] == "ok"
        owner, method = FAULTS[name](backend)
        failed = threading.Event()
        real = getattr(owner, method)

        def fail_once(*arguments: Any, **options: Any) -> Any:
            if failed.is_set() or not threading.current_thread().name.startswith(name):
                return real(*arguments, **options)
            failed.set()
            raise fault("a bug")

        monkeypatch.setattr(owner, method, fail_once)

        def stir() -> bool:
            with suppress(StorageError):  # the one write that the writer had in its hands
                backend.activity.track_activity("ada", "meanwhile")
                backend.notifications.send_notification("ada", "Mean", "while")
            backend.activity.store.writer._checkpointer._due.set()
            backend.outbox.wake()
            backend.rule_worker._wake.set()
            return failed.wait(0.05)

        eventually(stir, what="the fault")
        shown = eventually(lambda: h if (h := health(backend))["threads"] != "ok" else None, what="the health")
        assert (shown["status"], shown["threads"]) == ("degraded", name)
        backend.activity.track_activity("ada", "after")
        sent = backend.notifications.send_notification("ada", "After", "it")
        assert sent.status == "delivered"
        eventually(lambda: health(backend)["status"] == "ok", what="the health again")
        assert getattr(owner, method)


def test_a_job_that_takes_long_holds_up_no_other() -> None:
    jobs, ran, go_on = Jobs(tick_s=0.01), threading.Event(), threading.Event()
    jobs.every(1, lambda: go_on.wait(PATIENCE), long=True)
    jobs.every(1, ran.set)
    jobs.start()
    try:
        assert ran.wait(PATIENCE)
        ran.clear()
        assert ran.wait(PATIENCE), "once more, while the long one is at it"
    finally:
        go_on.set()
        jobs.stop()


def test_work_that_returns_before_its_time_is_begun_again() -> None:
    count, stopping = [0], threading.Event()

    def work() -> None:
        count[0] += 1
        if count[0] == 3:
            stopping.set()

    thread = SupervisedThread("steady", work, stopping.is_set, rest_s=0.01)
    assert not thread.is_failing
    started = time.monotonic()
    thread.start()
    thread.join(PATIENCE)
    assert count == [3]
    assert time.monotonic() - started < PATIENCE
