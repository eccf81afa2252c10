"""Route queue: concurrency, rate, pause and end; each delivery in flight is recorded, given back or sent, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.core.clock import SystemClock
from flashflow.backend.delivery.outbox import Outbox
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.domain.channel import BaseChannel, TargetThrottled, Throttled, Transient
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome
from tests.support.outbox_driver import SENT, Hands
from tests.support.server_process import eventually

TIME_LIMIT_S = 10.0


class Gate(BaseChannel):
    """A channel whose sends wait for ``go_on``; ``closed`` counts how often it was closed."""

    name = "gate"

    def __init__(self, *, is_open: bool = False) -> None:
        self.inside, self.go_on = threading.Semaphore(0), threading.Semaphore(10**6 if is_open else 0)
        self.asked: list[str] = []
        self.most = self.closed = 0
        self.answer: Outcome | Exception = SENT
        self._now = 0
        self._lock = threading.Lock()

    def _send(self, notice: DeliveryMessage) -> Outcome:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.asked.append(notice.title)
        self.inside.release()
        assert self.go_on.acquire(timeout=TIME_LIMIT_S)
        with self._lock:
            self._now -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def _probe(self) -> str:
        return "a fake"

    def close(self) -> None:
        self.closed += 1

    def entered(self, count: int) -> None:
        for _ in range(count):
            assert self.inside.acquire(timeout=TIME_LIMIT_S)


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    hands = Hands(tmp_path)
    yield hands
    hands.service.close()


@pytest.fixture
def stands_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is claimed ahead stays in hand for long."""
    monkeypatch.setattr("flashflow.backend.delivery.dispatcher.STANDBY_S", TIME_LIMIT_S)


@contextmanager
def running(hands: Hands, route_queues: dict[str, RouteQueue], clock: Any = None, **options: Any) -> Iterator[Outbox]:
    outbox = Outbox(hands.table, route_queues, clock or hands.clock, **options)
    unsubscribe = hands.service.bus.subscribe(lambda events: outbox.wake())
    outbox.start()
    try:
        yield outbox
    finally:
        unsubscribe()
        outbox.stop(TIME_LIMIT_S)


def statuses(hands: Hands) -> dict[str, int]:
    return dict(hands.rows("SELECT status, COUNT(*) FROM deliveries GROUP BY status"))


@pytest.mark.usefixtures("stands_by")
def test_no_more_tries_run_side_by_side_than_there_are_connections(hands: Hands) -> None:
    gate = Gate()
    for number in range(8):
        hands.send(str(number), channel="email")
    with running(hands, {"email": RouteQueue(gate, connections=2, ahead=3)}):
        gate.entered(2)
        eventually(lambda: statuses(hands) == {"sending": 5, "pending": 3})
        for _ in range(8):
            gate.go_on.release()
        eventually(lambda: statuses(hands) == {"sent": 8})
    assert gate.most == 2
    assert sorted(gate.asked) == sorted(map(str, range(8)))


def test_who_stands_by_too_long_gives_its_delivery_back(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease would run out in its hand, and the delivery would go out twice."""
    monkeypatch.setattr("flashflow.backend.delivery.dispatcher.STANDBY_S", 0.05)
    gate = Gate()
    hands.send("first", channel="email")
    with running(hands, {"email": RouteQueue(gate, connections=1, ahead=1)}):
        gate.entered(1)
        hands.send("second", channel="email")
        claimed = "SELECT COUNT(*) FROM deliveries WHERE status = 'pending' AND updated_at > created_at"
        hands.clock.go(seconds=1)
        eventually(lambda: hands.rows(claimed) == [(1,)])
        for _ in range(2):
            gate.go_on.release()
        eventually(lambda: statuses(hands) == {"sent": 2})
    assert gate.asked == ["first", "second"]
    assert {len(d.attempts) for n in ("1", "2") for d in hands.deliveries(_id(hands, int(n)))} == {1}


def _id(hands: Hands, seq: int) -> str:
    notes = hands.service.get_user_notifications("ada", status="all").notifications
    return notes[len(notes) - seq].id


@pytest.mark.usefixtures("stands_by")
def test_a_pause_asked_for_stops_those_who_stand_by(hands: Hands) -> None:
    gate = Gate()
    gate.answer = Throttled("slow_down", "Wait.", 300)
    for number in range(3):
        hands.send(str(number), channel="email")
    with running(hands, {"email": RouteQueue(gate, connections=1, ahead=2)}):
        gate.entered(1)
        eventually(lambda: statuses(hands) == {"sending": 3})
        gate.go_on.release()
        eventually(lambda: statuses(hands) == {"pending": 3})
    assert len(gate.asked) == 1
    assert hands.rows("SELECT tries FROM deliveries ORDER BY tries") == [(0,), (0,), (1,)]


def test_a_pause_that_one_target_needs_stops_no_other(hands: Hands) -> None:
    gate = Gate(is_open=True)
    gate.answer = TargetThrottled("slow_down", "Wait.", 300)
    for number in range(3):
        hands.send(str(number), channel="email")
    with running(hands, {"email": RouteQueue(gate, connections=1)}):
        eventually(lambda: hands.rows("SELECT DISTINCT code FROM deliveries") == [("slow_down",)])
    assert sorted(gate.asked) == ["0", "1", "2"]
    now = hands.clock.now_ms()
    assert hands.rows("SELECT DISTINCT next_attempt_at FROM deliveries") == [(now + 300_000,)]


@pytest.mark.usefixtures("stands_by")
def test_stopping_gives_back_what_stands_by_and_waits_for_what_is_under_way(hands: Hands) -> None:
    gate = Gate()
    for number in range(3):
        hands.send(str(number), channel="email")
    with running(hands, {"email": RouteQueue(gate, connections=1, ahead=2)}) as outbox:
        gate.entered(1)
        eventually(lambda: statuses(hands) == {"sending": 3})
        stopping = threading.Thread(target=outbox.stop, args=(TIME_LIMIT_S,))
        stopping.start()
        eventually(lambda: statuses(hands) == {"sending": 1, "pending": 2})
        gate.go_on.release()
        stopping.join(TIME_LIMIT_S)
        assert not stopping.is_alive()
    assert statuses(hands) == {"sent": 1, "pending": 2}
    assert gate.closed >= 1


@pytest.mark.usefixtures("stands_by")
def test_a_lane_that_is_replaced_sends_nothing_more_by_the_old_settings(hands: Hands) -> None:
    old, new = Gate(), Gate(is_open=True)
    hands.send("0", channel="email")
    with running(hands, {"email": RouteQueue(old, connections=1, ahead=1)}) as outbox:
        old.entered(1)
        hands.send("1", channel="email")
        eventually(lambda: statuses(hands) == {"sending": 2})
        outbox.configure({"email": RouteQueue(new)})
        new.entered(1)
        assert (new.asked, old.closed) == (["1"], 0)
        old.go_on.release()
        eventually(lambda: statuses(hands) == {"sent": 2})
        eventually(lambda: old.closed == 1)
    assert old.asked == ["0"]


def test_a_channel_that_a_new_lane_still_uses_is_not_closed_with_the_old_one(hands: Hands) -> None:
    """This computer stays the same channel when only its number of connections is changed."""
    desktop = Gate(is_open=True)
    with running(hands, {"desktop": RouteQueue(desktop)}) as outbox:
        outbox.configure({"desktop": RouteQueue(desktop, connections=1)})
        eventually(lambda: not outbox._retired)
        assert desktop.closed == 0
    assert desktop.closed == 1


def test_a_lane_taken_away_while_the_outbox_looked_is_looked_at_again(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands.send(channel="email")
    refuse = hands.table.refuse_routes
    outbox = Outbox(hands.table, {"email": RouteQueue(Gate())}, hands.clock)

    def meanwhile(routes: Any) -> int:
        monkeypatch.setattr(hands.table, "refuse_routes", refuse)
        outbox.configure({})
        return refuse(routes)

    monkeypatch.setattr(hands.table, "refuse_routes", meanwhile)
    outbox.start()
    eventually(lambda: statuses(hands) == {"failed": 1})
    outbox.stop()


def test_a_slow_rate_is_kept_and_every_try_recorded_before_the_wait(hands: Hands) -> None:
    """One an hour: what was accepted must not stand there unrecorded until the next may begin."""
    gate = Gate(is_open=True)
    for number in range(3):
        hands.send(str(number), channel="email")
    with running(hands, {"email": RouteQueue(gate, connections=2, rate_per_second=1 / 3600)}, SystemClock()):
        eventually(lambda: statuses(hands).get("sent") == 1)
        began = time.monotonic()
    assert time.monotonic() - began < 2, "who waits for the next start holds up no stop"
    assert statuses(hands) == {"sent": 1, "pending": 2}
    assert len(gate.asked) == 1


def test_a_rate_lets_so_many_begin_in_a_second(hands: Hands) -> None:
    gate = Gate(is_open=True)
    for number in range(6):
        hands.send(str(number), channel="email")
    began = time.monotonic()
    with running(hands, {"email": RouteQueue(gate, connections=3, rate_per_second=20)}, SystemClock()):
        eventually(lambda: statuses(hands) == {"sent": 6})
    assert time.monotonic() - began >= 5 / 20


def test_a_start_that_nothing_was_due_for_is_not_lost() -> None:
    route_queue = RouteQueue(Gate(), rate_per_second=1)
    assert route_queue.reserve(8, 100.0) == 1
    assert (route_queue.reserve(8, 100.5), route_queue.wait_s(100.5)) == (0, 0.5)
    assert route_queue.reserve(8, 101.0) == 1
    route_queue.unreserve(1)
    assert route_queue.reserve(0, 101.0) == 0
    assert route_queue.reserve(8, 101.0) == 1
    assert route_queue.reserve(8, 101.9) == 0


def test_without_a_rate_everything_may_begin_at_once() -> None:
    assert RouteQueue(Gate()).reserve(8, 100.0) == 8


def test_what_is_cancelled_behind_a_slow_provider_does_not_go_out(hands: Hands) -> None:
    gate = Gate()
    hands.send("first", channel="email")
    second = hands.send("second", channel="email")
    with running(hands, {"email": RouteQueue(gate, connections=1, ahead=1)}):
        gate.entered(1)
        eventually(lambda: statuses(hands) == {"sending": 1, "pending": 1})
        hands.service.cancel_notification(second)
        gate.go_on.release(9)
        eventually(lambda: statuses(hands) == {"sent": 1, "suppressed": 1})
    assert gate.asked == ["first"]


@pytest.mark.parametrize(("alone", "asked"), [(False, 1), (True, 3)])
def test_a_provider_that_is_down_and_says_until_when_is_left_alone_till_then(
    hands: Hands, alone: bool, asked: int
) -> None:
    gate = Gate(is_open=True)
    gate.answer = Transient("http_503", "Back in five minutes.", 300)
    gate.answer.alone = alone
    for number in range(3):
        hands.send(str(number), channel="email")
    with running(hands, {"email": RouteQueue(gate, connections=1)}):
        eventually(lambda: len(gate.asked) == asked)
        eventually(lambda: statuses(hands) == {"pending": 3})
    assert len(gate.asked) == asked


def test_a_stall_does_not_make_the_next_starts_come_all_at_once(hands: Hands) -> None:
    gate = Gate()
    for number in range(8):
        hands.send(str(number), channel="email")
    with running(hands, {"email": RouteQueue(gate, connections=1, ahead=3, rate_per_second=20)}, SystemClock()):
        gate.entered(1)
        time.sleep(1.0)  # twenty starts
        assert statuses(hands) == {"sending": 1, "pending": 7}
        gate.go_on.release(10**6)
        began = time.monotonic()
        gate.entered(7)
    assert time.monotonic() - began >= 6 / 20
