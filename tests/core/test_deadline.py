"""Blocking calls: at most so many at once, none waited for past its deadline."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from flashflow.backend.core.deadline import DeadlineCalls, Reason

DEADLINE = 15.0


class Refused(Exception):
    """A refusal with its reason."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.code = reason


def deadline_calls(deadline_s: float = DEADLINE) -> DeadlineCalls:
    return DeadlineCalls(deadline_s, "test", Refused)


def test_what_the_work_returned_or_raised_comes_back() -> None:
    calls = deadline_calls()
    assert calls.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        calls.run(lambda: 1 // 0)
    assert calls.run(lambda: 8) == 8


def test_a_timeout_that_the_work_raises_is_not_taken_for_its_own() -> None:
    def work() -> None:
        raise TimeoutError("of the work")

    with pytest.raises(TimeoutError, match="of the work"):
        deadline_calls().run(work)


def test_while_a_call_hangs_every_other_is_refused_at_once() -> None:
    calls, released = deadline_calls(0.1), threading.Event()
    with pytest.raises(Refused) as hung:
        calls.run(lambda: released.wait(DEADLINE))
    with pytest.raises(Refused) as next_one:
        calls.run(lambda: None)
    assert (hung.value.code, next_one.value.code) == ("timeout", "busy")
    released.set()
    assert calls.wait_until_idle(DEADLINE)


def test_after_a_hung_call_has_ended_the_others_wait_for_their_turn_again() -> None:
    calls, released = deadline_calls(0.1), threading.Event()
    with pytest.raises(Refused):
        calls.run(lambda: released.wait(DEADLINE))
    released.set()
    assert calls.wait_until_idle(DEADLINE)
    calls._deadline_s = DEADLINE
    running, finish = threading.Event(), threading.Event()

    def long() -> bool:
        running.set()
        return finish.wait(DEADLINE)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(calls.run, long)
        assert running.wait(DEADLINE)
        second = pool.submit(calls.run, lambda: "had its turn")
        assert not wait([second], 0.1).done
        finish.set()
        assert first.result(DEADLINE)
        assert second.result(DEADLINE) == "had its turn"


def test_closing_ends_the_waiting_and_every_later_call() -> None:
    calls, running, released = deadline_calls(), threading.Event(), threading.Event()

    def work() -> None:
        running.set()
        released.wait(DEADLINE)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(calls.run, work)
        assert running.wait(DEADLINE)
        calls.close()
        error = waiting.exception(DEADLINE)
    with pytest.raises(Refused) as later:
        calls.run(lambda: None)
    assert isinstance(error, Refused)
    assert (error.code, later.value.code) == ("stopping", "stopping")
    released.set()
