"""The thread that judges activities as they arrive: woken by the bus, idle without rules and without activities."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.core.events import Event
from flashflow.backend.core.supervised_thread import SupervisedThread

log = logging.getLogger(__name__)

REST_S = 0.05
"""Between two rounds: what arrives meanwhile is judged together."""
FAULT_S = 1.0
LONGEST_FAULT_S = 60.0


class Evaluates(Protocol):
    """What the thread does."""

    @property
    def watches(self) -> bool: ...
    def look_again(self) -> None: ...
    def judge_new(self) -> int: ...
    def end(self) -> None: ...
    def keep_place(self) -> None: ...


class RuleWorker:
    """Runs from ``start`` to ``stop``; ``hear`` is for the bus."""

    def __init__(self, judge: Evaluates, rest_s: float = REST_S) -> None:
        self._judge = judge
        self._rest_s = rest_s
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self.thread = SupervisedThread("flashflow-rules", self._run, self._stopping.is_set)

    def start(self) -> None:
        """Judge what came while nobody was there, and then what comes."""
        self._bell.set()
        self.thread.start()

    def hear(self, events: tuple[Event, ...]) -> None:
        """In the thread that committed: ring the bell and be gone."""
        if any(event.kind == "rule" for event in events):
            self._judge.look_again()
            self._bell.set()
        elif self._judge.watches and any(event.kind == "activity" for event in events):
            self._bell.set()

    def stop(self) -> None:
        """Finish the step that is under way."""
        self._judge.end()
        self._stopping.set()
        self._bell.set()
        if self.thread.is_alive():
            self.thread.join(5)

    def _run(self) -> None:
        wait_s = FAULT_S
        self._bell.set()  # after a failure: what came meanwhile
        while self._bell.wait() and not self._stopping.is_set():
            self._bell.clear()
            if self._judged():
                wait_s = FAULT_S
                self._stopping.wait(self._rest_s)
            else:
                self._bell.set()
                self._stopping.wait(wait_s)
                wait_s = min(wait_s * 2, LONGEST_FAULT_S)
        self._end()

    def _judged(self) -> bool:
        try:
            self._judge.judge_new()
        except FlashFlowError as fault:
            log.warning("the rules could not judge what arrived, and will try again: %s", fault)
            return False
        except Exception:
            log.exception("the rules could not judge what arrived, and will try again")
            return False
        return True

    def _end(self) -> None:
        try:
            self._judge.keep_place()
        except FlashFlowError as fault:  # the next start looks again at activities that concern no rule
            log.info("the rules' place was not kept: %s", fault)
