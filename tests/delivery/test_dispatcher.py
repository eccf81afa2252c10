"""Dispatcher: no delivery in flight is lost, repeated or left unrecorded, whatever the store and the senders do."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from flashflow.backend.core.clock import SystemClock
from flashflow.backend.core.counters import Counter
from flashflow.backend.core.errors import FlashFlowError, StorageFull
from flashflow.backend.delivery.dispatcher import Dispatcher
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.domain.channel import BaseChannel
from flashflow.backend.domain.delivery_messages import DeliveryMessage, NextStep, Outcome
from tests.support.outbox_driver import SENT
from tests.support.server_process import eventually

TIME_LIMIT_S = 10.0


class Due(NamedTuple):
    tries: int
    message: DeliveryMessage
    due_at: int = 0
    tried_since: int | None = None
    previous_code: str | None = None


class Book:
    """A store in memory: what is due, what was recorded, in the groups in which it was asked."""

    def __init__(self, count: int = 0) -> None:
        self.due = deque(f"d{number}" for number in range(count))
        self.recorded: list[str] = []
        self.given_back: list[str] = []
        self.groups: list[tuple[int, int]] = []
        """How many were recorded and how many claimed, step by step."""
        self.fault: Callable[[NextStep], BaseException | None] = lambda step: None
        self.most_in_hand = 0
        self._in_hand: set[str] = set()

    def run_steps(self, steps: Sequence[NextStep]) -> Sequence[Due | BaseException | None]:
        before = len(self.recorded)
        answers = [self.fault(step) or self._one(step) for step in steps]
        self.most_in_hand = max(self.most_in_hand, len(self._in_hand))
        self.groups.append((len(self.recorded) - before, sum(isinstance(answer, Due) for answer in answers)))
        return answers

    def give_back(self, delivery_id: str) -> None:
        self._in_hand.remove(delivery_id)
        self.given_back.append(delivery_id)
        self.due.append(delivery_id)

    def _one(self, step: NextStep) -> Due | None:
        if step.tried is not None:
            self._in_hand.remove(step.tried.delivery_id)
            self.recorded.append(step.tried.delivery_id)
        if step.route is None or not self.due:
            return None
        id_ = self.due.popleft()
        self._in_hand.add(id_)
        return Due(1, notice(id_))


def notice(id_: str) -> DeliveryMessage:
    return DeliveryMessage(
        delivery_id=id_, notification_id=id_, user_id="u", app="a", title=id_, message="", priority="normal", target="t"
    )


class Sending(BaseChannel):
    """Sends at once, or as each one is let go."""

    name = "sending"

    def __init__(self, *, is_open: bool = True) -> None:
        self.sent: list[str] = []
        self.let_go = threading.Semaphore(10**6 if is_open else 0)

    def _send(self, notice: DeliveryMessage) -> Outcome:
        assert self.let_go.acquire(timeout=TIME_LIMIT_S)
        self.sent.append(notice.delivery_id)
        return SENT

    def _probe(self) -> str:
        return ""


class Running(NamedTuple):
    """A dispatcher at work."""

    route_queue: RouteQueue
    dispatcher: Dispatcher
    attempts: Counter
    stopping: threading.Event
    thread: threading.Thread

    def over(self) -> None:
        self.thread.join(TIME_LIMIT_S)
        assert not self.thread.is_alive(), "the dispatcher did not come to an end"


@contextmanager
def at_work(book: Book, channel: BaseChannel, *, chance: Any = None, **limits: Any) -> Iterator[Running]:
    route_queue, stopping = RouteQueue(channel, **limits), threading.Event()
    attempts = Counter()
    dispatcher = Dispatcher(
        "r", route_queue, book, SystemClock(), chance=chance or random.Random(0), stopping=stopping,
        recorded=lambda route, tried: attempts.add(route, tried.outcome.outcome), given_back=lambda: None,
    )  # fmt: skip
    assert route_queue.enter(dispatcher.wake)
    running = Running(route_queue, dispatcher, attempts, stopping, threading.Thread(target=dispatcher.run, daemon=True))
    running.thread.start()
    try:
        yield running
    finally:
        stopping.set()
        route_queue.retire()
        if isinstance(channel, Sending):
            channel.let_go.release(1000)
        running.over()


@pytest.fixture(autouse=True)
def stands_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is claimed ahead stays in hand for long, however busy this machine is."""
    monkeypatch.setattr("flashflow.backend.delivery.dispatcher.STANDBY_S", TIME_LIMIT_S)


def test_everything_due_goes_out_once_and_is_recorded_and_then_the_clerk_goes() -> None:
    book, channel = Book(500), Sending()
    with at_work(book, channel, connections=4, ahead=4) as running:
        running.over()
    assert sorted(channel.sent) == sorted(book.recorded) == sorted(f"d{number}" for number in range(500))
    assert (book.most_in_hand, book.given_back) == (8, [])
    assert running.attempts.counts() == {("r", "sent"): 500}


def test_what_is_recorded_together_leaves_room_for_as_many_in_the_same_turn() -> None:
    """Else every second turn would claim nothing, and the senders would wait for the store."""
    book, channel = Book(40), Sending(is_open=False)
    with at_work(book, channel, connections=2, ahead=2):
        eventually(lambda: book.groups == [(0, 4)])
        channel.let_go.release(2)
        eventually(lambda: len(book.recorded) == 2)
        assert all(recorded == claimed for recorded, claimed in book.groups[1:])


def test_results_wait_for_others_only_while_the_senders_have_something_to_take_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flashflow.backend.delivery.dispatcher.GATHER_S", TIME_LIMIT_S)
    book, channel = Book(4), Sending(is_open=False)
    with at_work(book, channel, connections=2, ahead=2):
        eventually(lambda: book.groups == [(0, 4)])
        channel.let_go.release(2)
        eventually(lambda: book.groups[1:] == [(2, 0)])
        channel.let_go.release()  # nobody stands behind it: it goes alone, and at once
        eventually(lambda: book.groups[2:] == [(1, 0)])


def test_a_full_disk_while_a_result_is_recorded_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashflow.backend.delivery.dispatcher.FAULT_S", 0.01)
    book, channel, faults = Book(20), Sending(), iter(range(10))

    def full(step: NextStep) -> FlashFlowError | None:
        return StorageFull("full") if step.tried is not None and next(faults, None) is not None else None

    book.fault = full
    with at_work(book, channel, connections=2, ahead=2) as running:
        running.over()
    assert len(channel.sent) == len(book.recorded) == 20
    assert running.attempts.counts() == {("r", "sent"): 20}, "counted when it is recorded, not before"
    assert next(faults, None) is None


def test_a_disk_that_stays_full_holds_up_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    book, channel = Book(1), Sending()
    book.fault = lambda step: StorageFull("full") if step.tried is not None else None
    with at_work(book, channel) as running:
        eventually(lambda: channel.sent == ["d0"])
        running.stopping.set()
        running.over()
    assert book.recorded == []


def test_a_store_that_can_claim_nothing_sends_the_clerk_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashflow.backend.delivery.dispatcher.FAULT_S", 0.01)
    book = Book(1)
    book.fault = lambda step: RuntimeError("unforeseen")
    with at_work(book, Sending()) as running:
        running.over()
    assert list(book.due) == ["d0"]


def test_a_turn_that_fails_in_an_unforeseen_way_is_left_to_its_lease_and_the_others_land(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flashflow.backend.delivery.dispatcher.FAULT_S", 0.01)
    book, channel = Book(6), Sending()
    book.fault = lambda step: (
        RuntimeError("unforeseen") if step.tried is not None and step.tried.delivery_id == "d3" else None
    )
    with at_work(book, channel, connections=2, ahead=2) as running:
        running.over()
    assert sorted(book.recorded) == ["d0", "d1", "d2", "d4", "d5"]
    assert running.attempts.counts() == {("r", "sent"): 5}
    assert len(channel.sent) == 6


def test_a_sender_that_fails_leaves_its_delivery_to_the_lease_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashflow.backend.delivery.dispatcher.FAULT_S", 0.01)
    book, channel = Book(3), Sending()

    class Failing(random.Random):
        failed = False

        def random(self) -> float:
            if not self.failed:
                self.failed = True
                raise RuntimeError("unforeseen")
            return 0.5

    with at_work(book, channel, chance=Failing(0), connections=1) as running:
        running.over()
    assert len(channel.sent) == 3
    assert sorted(book.recorded) == sorted(channel.sent[1:])


def test_what_came_due_meanwhile_is_claimed_while_another_is_under_way() -> None:
    book, channel = Book(1), Sending(is_open=False)
    with at_work(book, channel, connections=2) as running:
        eventually(lambda: book.groups == [(0, 1)])
        book.due.append("new")
        running.route_queue.wake()
        eventually(lambda: book.groups[1:] == [(0, 1)])
        channel.let_go.release(2)
        running.over()
    assert sorted(book.recorded) == ["d0", "new"]


def test_while_the_senders_hang_what_was_given_back_is_not_claimed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashflow.backend.delivery.dispatcher.STANDBY_S", 0.05)
    book, channel = Book(3), Sending(is_open=False)
    with at_work(book, channel, connections=1, ahead=2) as running:
        eventually(lambda: sorted(book.given_back) == ["d1", "d2"])
        running.route_queue.wake()
        running.route_queue.wake()
        eventually(running.dispatcher._finished.empty)
        assert len(book.groups) == 1
        channel.let_go.release(1000)
        running.over()
    assert sorted(book.recorded) == ["d0", "d1", "d2"]
    assert channel.sent[0] == "d0"
