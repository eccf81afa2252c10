"""Thread that evaluates activities as they arrive: woken by the bus, idle without rules or activities."""

from __future__ import annotations

import logging
import threading

from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.core.events import Event
from flashflow.backend.core.supervised_thread import SupervisedThread
from flashflow.backend.rules.evaluator import RuleEvaluator

log = logging.getLogger(__name__)

PAUSE_S = 0.05
"""Pause between two rounds: activities that arrive meanwhile share one round."""
FIRST_BACK_OFF_S = 1.0
LONGEST_BACK_OFF_S = 60.0


class RuleWorker:
    """Runs from ``start`` to ``stop``; subscribe ``on_events`` to the bus."""

    def __init__(self, evaluator: RuleEvaluator, pause_s: float = PAUSE_S) -> None:
        self._evaluator = evaluator
        self._pause_s = pause_s
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self.thread = SupervisedThread("flashflow-rules", self._run, self._stopping.is_set)

    def start(self) -> None:
        """Evaluate activities stored since the last stop, then new ones."""
        self._wake.set()
        self.thread.start()

    def on_events(self, events: tuple[Event, ...]) -> None:
        """Wake the thread. Runs in the thread that committed, so it does nothing else."""
        kinds = {event.kind for event in events}
        if "rule" in kinds:
            self._evaluator.invalidate()
            self._wake.set()
        elif self._evaluator.is_watching and "activity" in kinds:
            self._wake.set()

    def stop(self) -> None:
        """Finish the current step and end the thread."""
        self._evaluator.stop()
        self._stopping.set()
        self._wake.set()
        if self.thread.is_alive():
            self.thread.join(5)

    def _run(self) -> None:
        wait_s = FIRST_BACK_OFF_S
        self._wake.set()  # after a restart of this thread, evaluate the activities that arrived meanwhile
        while self._wake.wait() and not self._stopping.is_set():
            self._wake.clear()
            if self._evaluate():
                wait_s = FIRST_BACK_OFF_S
                self._stopping.wait(self._pause_s)
            else:
                self._wake.set()
                self._stopping.wait(wait_s)
                wait_s = min(wait_s * 2, LONGEST_BACK_OFF_S)
        try:
            self._evaluator.save_position()
        except FlashFlowError as fault:  # the next start reads activities without a match again
            log.info("the position of the rules was not saved: %s", fault)

    def _evaluate(self) -> bool:
        """Evaluate new activities; return whether that worked."""
        try:
            self._evaluator.evaluate_new()
        except FlashFlowError as fault:
            log.warning("rules could not be evaluated; retrying: %s", fault)
            return False
        except Exception:
            log.exception("rules could not be evaluated; retrying")
            return False
        return True
