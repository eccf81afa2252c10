"""How fast notices go out, beside a limit measured in the same run: ``python tests/benchmarks/delivery_speed.py``.

- E-mail: 10,000 mails from stored notifications to the last recorded outcome, against a bare smtplib loop that sends as
  many ready-made mails over as many connections to the same server (a process of its own).
- Screen: from the POST of a notice to its title in a real browser's window, the median of twenty.
- Claims: claiming and recording with 100,000 deliveries pending, against with 300.
- Neighbours: the e-mail row again while another provider hangs on every try.

Prints one markdown table; asserts nothing about time.
"""

from __future__ import annotations

import argparse
import platform
import re
import smtplib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from flashflow.backend import NotificationService  # noqa: E402
from flashflow.backend.core.clock import SystemClock  # noqa: E402
from flashflow.backend.delivery.email.channel import EmailChannel  # noqa: E402
from flashflow.backend.delivery.outbox import Outbox  # noqa: E402
from flashflow.backend.delivery.route_queue import RouteQueue  # noqa: E402
from flashflow.backend.domain.channel import BaseChannel  # noqa: E402
from flashflow.backend.domain.delivery_messages import AttemptResult, DeliveryMessage, Outcome  # noqa: E402
from flashflow.backend.schemas.requests import SendIn  # noqa: E402
from flashflow.backend.settings.model import EmailSettings  # noqa: E402
from flashflow.backend.store.engine.writer import Tx, Write  # noqa: E402
from flashflow.backend.store.notifications.outbox import OutboxTable  # noqa: E402
from tests.support.outbox_driver import take  # noqa: E402

CONNECTIONS = 4
ROWS: list[str] = []
SEEN = """title => [...document.querySelectorAll('flt-semantics, flt-semantics-host [role]')]
    .some(e => (e.getAttribute('aria-label') || e.innerText || '').includes(title))"""


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--mails", type=int, default=10_000)
    asked.add_argument("--only", nargs="*", default=["email", "screen", "claims", "neighbours"])
    chosen = asked.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}", flush=True)
    if "email" in chosen.only or "neighbours" in chosen.only:
        mails(chosen.mails, "neighbours" in chosen.only)
    if "claims" in chosen.only:
        claims()
    if "screen" in chosen.only:
        screen()
    print("| what | measured | limit, same run | asked for | reached |\n|---|---:|---:|---:|---|")
    print("\n".join(ROWS))


def row(what: str, measured: str, limit: str, asked: str, reached: bool) -> None:
    ROWS.append(f"| {what} | {measured} | {limit} | {asked} | {'yes' if reached else '**no**'} |")
    print(ROWS[-1], flush=True)


# --- e-mail -----------------------------------------------------------------------------------------------------------


@contextmanager
def mail_server() -> Iterator[int]:
    """A counting SMTP server in a process of its own; its port."""
    command = [sys.executable, "-m", "tests.support.smtp_server", "--port", "0"]
    with subprocess.Popen(command, cwd=HERE.parents[1], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()
            process.stdout.read()  # the count it ends with


def mails(count: int, with_neighbour: bool) -> None:
    with mail_server() as port, tempfile.TemporaryDirectory() as folder:
        rounds = []
        for number in range(3):
            bare = bare_loop(port, count)
            ours = outbox_run(Path(folder) / f"{number}.db", port, count)
            rounds.append((ours / bare, ours, bare))
            print(f"e-mail {ours:,.0f}/s beside {bare:,.0f}/s", flush=True)
        ratio, ours, bare = sorted(rounds)[1]
        row(f"{count:,} e-mails over {CONNECTIONS} connections", f"{ours:,.0f}/s = {ratio:.2f}",
            f"bare smtplib {bare:,.0f}/s", "0.5", ratio >= 0.5)  # fmt: skip
        if with_neighbour:
            beside = outbox_run(Path(folder) / "neighbour.db", port, count, hanging=True)
            row("… while another provider hangs", f"{beside:,.0f}/s = {beside / ours:.2f}", f"without {ours:,.0f}/s",
                "costs nothing (0.9)", beside >= 0.9 * ours)  # fmt: skip


def bare_loop(port: int, count: int) -> float:
    """Mails a second."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "hub@example.org", "ada@example.org", "Build finished"
    message.set_content("All 312 tests passed.\n")
    raw = message.as_bytes()

    def work() -> None:
        with smtplib.SMTP("127.0.0.1", port) as client:
            for _ in range(count // CONNECTIONS):
                client.sendmail("hub@example.org", ["ada@example.org"], raw)

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count / (time.perf_counter() - started)


class Hanging(BaseChannel):
    """Holds every try until it is closed."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def _send(self, notice: DeliveryMessage) -> Outcome:
        self._closed.wait()
        return Outcome(outcome="transient", code="closed", text="")

    def _probe(self) -> str:
        return ""

    def close(self) -> None:
        self._closed.set()


def outbox_run(path: Path, port: int, count: int, *, hanging: bool = False) -> float:
    """Mails a second from the first claim to the last recorded outcome."""
    settings = EmailSettings(host="127.0.0.1", port=port, security="none", sender="FlashFlow <hub@example.org>")
    with NotificationService(path) as service:
        queue = OutboxTable(service.store)
        route_queues = {
            "email": RouteQueue(EmailChannel(settings, service.clock), connections=CONNECTIONS, ahead=CONNECTIONS)
        }
        if hanging:
            route_queues["stuck"] = RouteQueue(Hanging(), connections=CONNECTIONS)
        service.policy_inputs.routes = frozenset(route_queues)
        service.channels.named = ("stuck",)
        service.store.run(Write(_address, None))
        for channel, number in (("email", count), ("stuck", 100 if hanging else 0)):
            for start in range(0, number, 1000):
                users = [f"user-{n}" for n in range(start, min(start + 1000, number))]
                text = "All 312 tests passed."
                request = SendIn(user_ids=users, title="Build finished", message=text, channel=channel)
                service.store.run(service.send_write(request, "ci"))
        outbox = Outbox(queue, route_queues, service.clock)
        started = time.perf_counter()
        outbox.start()
        while service.store.read(_left):
            time.sleep(0.02)
        took = time.perf_counter() - started
        failed = service.store.read(
            lambda conn: conn.execute(
                "SELECT COUNT(*) FROM deliveries WHERE route = 'email' AND status <> 'sent'"
            ).fetchone()[0]
        )
        outbox.stop(0.2)
        assert failed == 0, f"{failed} mails were not sent"
    return count / took


def _address(tx: Tx, items: object) -> list[None]:
    tx.conn.executemany(
        "INSERT INTO contacts (user_id, email, updated_at) VALUES (?, 'ada@example.org', 0)",
        [(f"user-{number}",) for number in range(10_000)],
    )
    return [None]


def _left(conn: object) -> bool:
    sql = "SELECT EXISTS (SELECT 1 FROM deliveries WHERE route = 'email' AND status IN ('pending', 'sending'))"
    return bool(conn.execute(sql).fetchone()[0])  # type: ignore[attr-defined]


# --- claims -----------------------------------------------------------------------------------------------------------


def claims() -> None:
    with tempfile.TemporaryDirectory() as folder:
        few, many = (claim_rate(Path(folder) / f"{pending}.db", pending) for pending in (300, 100_000))
    row("claim and record with 100,000 pending", f"{many:,.0f}/s = {many / few:.2f}", f"with 300: {few:,.0f}/s",
        "no full scan (0.8)", many >= 0.8 * few)  # fmt: skip


def claim_rate(path: Path, pending: int) -> float:
    with NotificationService(path) as service:
        service.policy_inputs.routes = frozenset({"email"})
        service.store.run(Write(_address, None))
        for start in range(0, pending, 1000):
            users = [f"user-{n % 10_000}" for n in range(start, min(start + 1000, pending))]
            service.store.run(
                service.send_write(SendIn(user_ids=users, title="T", message="M", channel="email"), "ci")
            )  # fmt: skip
        queue, clock = OutboxTable(service.store), SystemClock()
        tried = None
        started = time.perf_counter()
        for _ in range(250):
            claim = take(queue, "email", tried)
            assert claim is not None
            tried = AttemptResult(
                delivery_id=claim.message.delivery_id,
                started_at=clock.now_ms(),
                duration_ms=1,
                outcome=Outcome(outcome="sent", code="accepted", text="ok"),
                retry=None,
            )
        return 250 / (time.perf_counter() - started)


# --- the screen -------------------------------------------------------------------------------------------------------


def screen() -> None:
    from tests.support.browser import browsing
    from tests.support.server_process import serving

    times = []
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "data", ui=True, env={"FLASHFLOW_USER": "ada"}) as server,
        browsing() as window,
    ):
        window.open(server.launch_link)
        window.click("button", re.compile("^Notifications(?!,)"))
        for _ in range(20):
            title = f"Seen {uuid.uuid4().hex[:12]}"
            started = time.perf_counter()
            server.api("POST", "/api/notifications/send", {"user_id": "ada", "title": title, "message": "M"})
            window.page.wait_for_function(SEEN, arg=title, polling=5, timeout=10_000)
            times.append((time.perf_counter() - started) * 1000)
    median = statistics.median(times)
    row("a notice on screen after its POST (median of 20)", f"{median:.0f} ms", f"slowest {max(times):.0f} ms",
        "150 ms", median <= 150)  # fmt: skip


if __name__ == "__main__":
    main()
