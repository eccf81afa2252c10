"""The outbox: nothing is lost, nothing is tried twice at once, and a channel that hangs holds up only itself."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend import NotificationService, StorageFull
from flashflow.backend.delivery.outbox import Outbox
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.domain.channel import LEASE_MS, BaseChannel, Permanent, Throttled, TokenDead, Transient
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.notifications.outbox import OutboxTable
from tests.support.fixed_clock import StillClock
from tests.support.outbox_driver import take
from tests.support.server_process import ROOT, eventually

TIME_LIMIT_S = 10.0
SHOWN = Outcome(outcome="delivered", code="shown", text="Shown.")


class Answering(BaseChannel):
    """A channel that answers as it is told: returns an outcome or raises an error, the last one again and again."""

    name = "push"

    def __init__(self, *answers: Outcome | Exception) -> None:
        self.answers = list(answers) or [SHOWN]
        self.asked: list[DeliveryMessage] = []
        self.closed = False

    def _send(self, notice: DeliveryMessage) -> Outcome:
        self.asked.append(notice)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _probe(self) -> str:
        return "a fake"

    def close(self) -> None:
        self.closed = True


class Hanging(Answering):
    """A channel that does not come back until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.go_on = threading.Semaphore(0), threading.Event()

    def _send(self, notice: DeliveryMessage) -> Outcome:
        self.inside.release()
        assert self.go_on.wait(TIME_LIMIT_S)
        return super()._send(notice)


class FailingAtFirst:
    """Fails five times, in two ways, and then does its work."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work, self.left = work, 5

    def __call__(self, *arguments: Any) -> Any:
        if self.left:
            self.left -= 1
            raise StorageFull("full") if self.left % 2 else RuntimeError("unforeseen")
        return self.work(*arguments)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def service(tmp_path: Path, clock: StillClock) -> Iterator[NotificationService]:
    with NotificationService(tmp_path / "n.db", clock=clock) as service:
        service.register_device_token("ada", "here", "desktop")
        service.policy_inputs.this_computer = "here"
        yield service


def send(service: NotificationService, **more: Any) -> str:
    """A push to this computer; returns the notification's id."""
    return service.send_notification("ada", "T", "M", **{"channel": "push"} | more).notification_id


def readdress(service: NotificationService, route: str) -> None:
    """Have all that waits go by another route."""

    def change(tx: Tx, items: Sequence[None]) -> list[None]:
        tx.conn.execute("UPDATE deliveries SET route = ? WHERE status = 'pending'", (route,))
        return list(items)

    service.store.run(Write(change, None))


def delivery(service: NotificationService, id_: str) -> tuple[str, str | None, int]:
    """How the notification's one delivery stands: status, code, attempts."""
    (found,) = service.get_notification(id_).deliveries
    return found.status, found.code, len(found.attempts)


@contextmanager
def running(
    service: NotificationService, clock: StillClock, channels: dict[str, BaseChannel], **options: Any
) -> Iterator[Outbox]:
    """An outbox that hears of new notifications; stopped on the way out."""
    route_queues = {route: RouteQueue(channel) for route, channel in channels.items()}
    outbox = Outbox(OutboxTable(service.store), route_queues, clock, **options)
    unsubscribe = service.bus.subscribe(lambda events: outbox.wake())
    outbox.start()
    try:
        yield outbox
    finally:
        unsubscribe()
        outbox.stop()


# --- claims -----------------------------------------------------------------------------------------------------------


def test_a_claim_is_had_by_one_alone(service: NotificationService, clock: StillClock, tmp_path: Path) -> None:
    ids = {send(service) for _ in range(60)}
    with NotificationService(tmp_path / "n.db", clock=clock) as other, ThreadPoolExecutor(6) as pool:
        tables = [OutboxTable(service.store), OutboxTable(other.store)] * 3
        claims = pool.map(lambda table: [take(table, "desktop") for _ in range(30)], tables)
        claimed = [claim.message.notification_id for made in claims for claim in made if claim is not None]
    assert len(claimed) == 60
    assert set(claimed) == ids
    assert take(OutboxTable(service.store), "desktop") is None


def test_a_lease_that_ran_out_is_claimed_again_and_counts_as_a_try_whose_outcome_nobody_knows(
    service: NotificationService, clock: StillClock
) -> None:
    table = OutboxTable(service.store)
    id_ = send(service)
    first = take(table, "desktop")
    assert first is not None
    assert first.tries == 1
    assert table.next_lease() == clock.now_ms() + LEASE_MS
    clock.go(milliseconds=LEASE_MS - 1)
    assert table.recover(all_leases=False) == 0
    assert take(table, "desktop") is None
    clock.go(milliseconds=1)
    assert table.recover(all_leases=False) == 1
    assert delivery(service, id_) == ("pending", "interrupted", 1)
    again = take(table, "desktop")
    assert again is not None
    assert (again.tries, again.message) == (2, first.message)
    table.give_back(again.message.delivery_id)
    last = take(table, "desktop")
    assert last is not None
    assert last.tries == 2


def test_a_delivery_that_every_try_was_interrupted_of_is_dead_at_last(
    service: NotificationService, clock: StillClock
) -> None:
    table = OutboxTable(service.store)
    id_ = send(service)
    for tries in range(1, 9):
        claim = take(table, "desktop")
        assert claim is not None
        assert claim.tries == tries
        assert table.recover(all_leases=True) == 1
    assert delivery(service, id_) == ("dead", "interrupted", 8)
    assert take(table, "desktop") is None


def test_what_a_crash_left_under_way_is_sent_by_the_next_start(service: NotificationService, clock: StillClock) -> None:
    id_ = send(service)
    take(OutboxTable(service.store), "desktop")
    channel = Answering()
    assert delivery(service, id_)[0] == "sending"
    with running(service, clock, {"desktop": channel}):
        eventually(lambda: delivery(service, id_) == ("delivered", "shown", 2))
    assert len(channel.asked) == 1
    lost, shown = service.get_notification(id_).deliveries[0].attempts
    assert (lost.outcome, lost.code) == ("transient", "interrupted")
    assert shown.code == "shown"


# --- what becomes of a try --------------------------------------------------------------------------------------------


def test_what_was_delivered_says_so_with_its_attempt(service: NotificationService, clock: StillClock) -> None:
    channel = Answering()
    with running(service, clock, {"desktop": channel}):
        id_ = send(service, data={"x": 1}, priority="high")
        eventually(lambda: delivery(service, id_) == ("delivered", "shown", 1))
    (notice,) = channel.asked
    assert (notice.user_id, notice.title, notice.message, notice.priority, notice.target) == (
        "ada", "T", "M", "high", "here",
    )  # fmt: skip
    detail = service.get_notification(id_)
    assert (detail.notification.status, detail.notification.delivered_at) == ("delivered", clock.now)
    (attempt,) = detail.deliveries[0].attempts
    assert (attempt.outcome, attempt.code, attempt.text) == ("delivered", "shown", "Shown.")
    assert service.list_devices("ada")[0].last_used_at == clock.now


@pytest.mark.parametrize(
    ("error", "code"), [(Permanent("refused", "No."), "refused"), (TokenDead("gone", "Gone."), "gone")]
)
def test_what_cannot_help_is_not_tried_again(
    service: NotificationService, clock: StillClock, error: Exception, code: str
) -> None:
    with running(service, clock, {"desktop": Answering(error)}):
        id_ = send(service)
        eventually(lambda: delivery(service, id_) == ("failed", code, 1))
        assert service.get_notification(id_).notification.status == "failed"
        assert OutboxTable(service.store).next_due(["desktop"]) == {}
    assert service.list_devices("ada")[0].is_active is not isinstance(error, TokenDead)


def test_after_a_bad_moment_it_is_tried_again(service: NotificationService, clock: StillClock) -> None:
    channel = Answering(Transient("busy", "Later."), RuntimeError("unforeseen"), SHOWN)
    with running(service, clock, {"desktop": channel}) as outbox:
        id_ = send(service)
        for tries, code in ((1, "busy"), (2, "internal_error")):
            eventually(lambda tries=tries, code=code: delivery(service, id_) == ("pending", code, tries))
            (waits,) = service.get_notification(id_).deliveries
            assert waits.attempts[-1].next_try_at == waits.next_attempt_at is not None
            assert service.get_notification(id_).notification.status == "pending"
            clock.go(seconds=2**tries)
            outbox.wake()
        eventually(lambda: delivery(service, id_) == ("delivered", "shown", 3))
        assert service.get_notification(id_).deliveries[0].attempts[-1].next_try_at is None


def test_a_provider_that_asks_to_wait_is_obeyed(service: NotificationService, clock: StillClock) -> None:
    with running(service, clock, {"desktop": Answering(Throttled("slow down", "Wait.", 120), SHOWN)}) as outbox:
        id_ = send(service)
        eventually(lambda: delivery(service, id_)[2] == 1)
        assert OutboxTable(service.store).next_due(["desktop"]) == {"desktop": clock.now_ms() + 120_000}
        clock.go(seconds=120)
        outbox.wake()
        eventually(lambda: delivery(service, id_)[0] == "delivered")


def test_a_delivery_for_a_route_that_is_not_there_any_more_fails_and_says_so(
    service: NotificationService, clock: StillClock
) -> None:
    id_ = send(service)
    readdress(service, "carrier")
    with running(service, clock, {"desktop": Answering()}):
        eventually(lambda: delivery(service, id_) == ("failed", "not_configured", 0))


def test_what_its_reader_has_read_or_the_sender_called_off_stays_so(
    service: NotificationService, clock: StillClock
) -> None:
    channel = Hanging()
    with running(service, clock, {"desktop": channel}):
        read, cancelled = send(service, channel=None, channels=["in_app", "push"]), send(service)
        for _ in range(2):
            assert channel.inside.acquire(timeout=TIME_LIMIT_S)
        service.mark_notification_as_read(read)
        service.cancel_notification(cancelled)
        channel.go_on.set()
        eventually(lambda: all(service.get_notification(id_).deliveries[-1].attempts for id_ in (read, cancelled)))
    assert service.get_notification(read).notification.status == "read"
    assert service.get_notification(cancelled).notification.status == "cancelled"


# --- standing firm ----------------------------------------------------------------------------------------------------


def test_a_channel_that_hangs_holds_up_neither_the_inbox_nor_another_channel(
    service: NotificationService, clock: StillClock
) -> None:
    hanging, quick = Hanging(), Answering()
    ids = [send(service) for _ in range(12)]
    readdress(service, "email")
    with running(service, clock, {"email": hanging, "desktop": quick}):
        for _ in range(2):
            assert hanging.inside.acquire(timeout=TIME_LIMIT_S)
        id_ = send(service)
        eventually(lambda: delivery(service, id_)[0] == "delivered")
        assert service.send_notification("ada", "T", "M").status == "delivered"
        assert not hanging.inside.acquire(blocking=False)
        assert sum(delivery(service, waiting)[0] == "sending" for waiting in ids) == 2
        hanging.go_on.set()
        eventually(lambda: all(delivery(service, waiting)[0] == "delivered" for waiting in ids))
    assert sorted(notice.notification_id for notice in hanging.asked) == sorted(ids)


def test_a_full_disk_does_not_end_the_outbox(
    service: NotificationService, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flashflow.backend.delivery.outbox.FAULT_S", 0.01)
    table = OutboxTable(service.store)
    claim = FailingAtFirst(table.run_steps)
    monkeypatch.setattr(table, "run_steps", claim)
    outbox = Outbox(table, {"desktop": RouteQueue(Answering())}, clock)
    outbox.start()
    id_ = send(service)
    outbox.wake()
    eventually(lambda: delivery(service, id_)[0] == "delivered")
    outbox.stop()
    assert claim.left == 0


def test_stopping_waits_for_what_is_about_to_end_and_records_it(
    service: NotificationService, clock: StillClock
) -> None:
    channel = Hanging()
    outbox = Outbox(OutboxTable(service.store), {"desktop": RouteQueue(channel)}, clock)
    id_ = send(service)
    outbox.start()
    assert channel.inside.acquire(timeout=TIME_LIMIT_S)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(outbox.stop, TIME_LIMIT_S)
        eventually(outbox._stopping.is_set)
        channel.go_on.set()
        stopping.result(TIME_LIMIT_S)
    assert delivery(service, id_) == ("delivered", "shown", 1)
    assert channel.closed


def test_a_channel_that_hangs_holds_up_neither_the_stop_nor_the_end_of_the_process(tmp_path: Path) -> None:
    code = """
import sys, threading
from pathlib import Path
from flashflow.backend import NotificationService
from flashflow.backend.core.clock import SystemClock
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.delivery.outbox import Outbox
from flashflow.backend.store.notifications.outbox import OutboxTable
from tests.delivery.test_outbox import Answering
inside = threading.Event()
class Stuck(Answering):
    def _send(self, notice):
        inside.set()
        threading.Event().wait()
service = NotificationService(sys.argv[1])
service.register_device_token("ada", "here", "desktop")
service.policy_inputs.this_computer = "here"
outbox = Outbox(OutboxTable(service.store), {"desktop": RouteQueue(Stuck())}, SystemClock())
outbox.start()
service.send_notification("ada", "T", "M", channel="push")
outbox.wake()
assert inside.wait(10)
outbox.stop(0.1)
service.close()
print("stopped", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "n.db")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")
