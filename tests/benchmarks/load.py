"""A lean HTTP/1.1 load generator, so that the server is what is measured.

Raw asyncio protocols on keep-alive connections, one request outstanding on each, nothing pipelined. Bodies are built
before the start but for their running number. Run as a process of its own: ``api_speed.py`` gives it one ``Job`` as
JSON on stdin and reads one ``Result`` as JSON from stdout.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, cast

USERS = 1000
BATCH = 500
DIGITS = b"%012d"
STUCK_AFTER = 15.0


@dataclass(frozen=True)
class Job:
    """What to send where. ``run`` makes ids unique across jobs; it ends after ``seconds`` or ``count`` requests."""

    workload: str
    port: int
    run: str
    key: str = ""
    user: str = ""
    connections: int = 32
    seconds: float = 4.0
    warm_up: float = 0.5
    count: int = 10**9


@dataclass
class Result:
    """What came of it, over the measured part only. Latencies in milliseconds; ``bad`` counts unexpected answers."""

    requests: int = 0
    per_second: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    worst: float = 0.0
    bad: int = 0
    first_bad: str = ""
    cpu: float = 0.0


@dataclass(frozen=True)
class Workload:
    """``request(n)`` gives the bytes of the n-th request; an answer is good with ``status`` and ``proof`` in it."""

    request: Callable[[int], bytes]
    status: bytes
    proof: bytes = b""


def head(job: Job, method: str, path: str, length: int | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{job.port}", "Accept: application/json"]
    if job.key:
        lines.append(f"Authorization: Bearer {job.key}")
    if length is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def numbered(job: Job, path: str, bodies: list[bytes]) -> Callable[[int], bytes]:
    """POSTs of ``bodies`` in turn, each with one ``%012d`` in it for the request's number."""
    ready = [head(job, "POST", path, len(body % 0)) + body for body in bodies]
    return lambda n: ready[n % len(ready)] % n


def activity(job: Job, user: int) -> bytes:
    text = json.dumps(
        {
            "user_id": f"user-{user:04d}",
            "activity_type": ("page_view", "click", "search", "purchase")[user % 4],
            "session_id": f"{job.run}-session-{user:04d}",
            "page_url": f"/projects/{user % 40}/board",
            "metadata": {"feature": f"feature-{user % 12}", "price": 12.5, "tags": ["a", "b"], "ok": True},
            "activity_id": f"{job.run}-NUMBER",
        }
    )
    return text.encode().replace(b"%", b"%%").replace(b"NUMBER", DIGITS)


def notice(job: Job, user: str) -> bytes:
    text = json.dumps(
        {
            "user_id": user,
            "title": f"Build finished {job.run}-NUMBER",
            "message": "All 312 tests passed on main in 4 min 12 s.",
            "notification_type": "build",
            "channel": "in_app",
            "data": {"url": "/builds/312", "passed": 312},
        }
    )
    return text.encode().replace(b"%", b"%%").replace(b"NUMBER", DIGITS)


def echo(job: Job) -> Workload:
    """The same requests as ``track``, which the echo gives back."""
    return Workload(numbered(job, "/api/activity/track", [activity(job, user) for user in range(USERS)]), b"200")


def track(job: Job) -> Workload:
    """One activity a request, an id of its own each, over 1,000 users."""
    return Workload(numbered(job, "/api/activity/track", [activity(job, user) for user in range(USERS)]), b"201")


def send(job: Job) -> Workload:
    """One in-app notification a request, over 1,000 users or all to ``job.user``."""
    users = [job.user] if job.user else [f"user-{user:04d}" for user in range(USERS)]
    return Workload(numbered(job, "/api/notifications/send", [notice(job, user) for user in users]), b"201")


def inbox(job: Job) -> Workload:
    """The newest 50 notifications of ``job.user``."""
    request = head(job, "GET", f"/api/notifications/user/{job.user}?limit=50")
    return Workload(lambda n: request, b"200", b'"next_cursor":"')


def batch(job: Job) -> Workload:
    """500 activities a request, an id of its own each, over 1,000 users."""
    halves = []
    for first in (0, BATCH):
        body = b'{"activities":[' + b",".join(activity(job, first + row) for row in range(BATCH)) + b"]}"
        halves.append(head(job, "POST", "/api/activity/batch", len(body % ((0,) * BATCH))) + body)
    return Workload(
        lambda n: halves[n % 2] % tuple(range(n * BATCH, (n + 1) * BATCH)), b"200", b'"accepted":%d' % BATCH
    )


WORKLOADS: dict[str, Callable[[Job], Workload]] = {
    "echo": echo,
    "track": track,
    "send": send,
    "inbox": inbox,
    "batch": batch,
}


@dataclass
class Run:
    """What the connections of one job share."""

    job: Job
    workload: Workload
    done: asyncio.Future[None]
    sent: int = 0
    finished: int = 0
    open: int = 0
    measuring: bool = False
    stopping: bool = False
    bad: int = 0
    first_bad: str = ""
    latencies: list[float] = field(default_factory=list)

    def complain(self, what: bytes) -> None:
        self.bad += 1
        self.first_bad = self.first_bad or what[:600].decode("utf-8", "replace")

    def closed(self) -> None:
        self.open -= 1
        if not self.open and not self.done.done():
            self.done.set_result(None)


class Connection(asyncio.Protocol):
    """One keep-alive connection: the next request goes out when the answer to the last one is complete."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.answer = b""
        self.wanted = 0
        self.started = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class is not a subclass
        self.run.open += 1
        self.ask()

    def ask(self) -> None:
        run = self.run
        if run.stopping or run.sent >= run.job.count:
            self.transport.close()
            return
        request = run.workload.request(run.sent)
        run.sent += 1
        self.started = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.answer = answer = self.answer + data if self.answer else data
        if not self.wanted:
            self.wanted = total_length(answer)
        if not self.wanted or len(answer) < self.wanted:
            return
        run = self.run
        if run.measuring:
            run.latencies.append(time.perf_counter() - self.started)
        run.finished += 1
        if answer[9:12] != run.workload.status or run.workload.proof not in answer:
            run.complain(answer)
        self.answer, self.wanted = b"", 0
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.run.stopping and self.run.sent < self.run.job.count:
            self.run.complain(b"connection lost: " + repr(exc).encode())
        self.run.closed()


def total_length(answer: bytes) -> int:
    """The bytes of an answer's head and body together, 0 while the head is not complete."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return 0
    top = answer[:end].lower()
    at = top.find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError(f"an answer without Content-Length: {top!r}")
    stop = top.find(b"\r\n", at + 2)
    return end + 4 + int(top[at + 17 : stop if stop > 0 else len(top)])


async def load(job: Job) -> Result:
    """Run the job: connect, warm up, measure, let the last answers come, add up."""
    loop = asyncio.get_running_loop()
    run = Run(job, WORKLOADS[job.workload](job), loop.create_future())
    gc.disable()
    for _ in range(job.connections):
        await loop.create_connection(lambda: Connection(run), "127.0.0.1", job.port)
    await asyncio.wait([run.done], timeout=job.warm_up)
    run.measuring = True
    began, cpu, before = time.perf_counter(), time.process_time(), run.finished
    await asyncio.wait([run.done], timeout=job.seconds)
    took, finished, burnt = time.perf_counter() - began, run.finished - before, time.process_time() - cpu
    run.measuring, run.stopping = False, True
    finished_in_time, _ = await asyncio.wait([run.done], timeout=STUCK_AFTER)
    if not finished_in_time:
        run.complain(b"%d connections without an answer" % run.open)
    ordered = sorted(run.latencies) or [0.0]
    return Result(
        requests=finished,
        per_second=finished / took,
        p50=1000 * ordered[len(ordered) // 2],
        p99=1000 * ordered[int(len(ordered) * 0.99)],
        worst=1000 * ordered[-1],
        bad=run.bad,
        first_bad=run.first_bad,
        cpu=burnt / took,
    )


def run_here(job: Job) -> Result:
    """The job on uvloop where there is one."""
    loop_factory: Any = None
    try:
        import uvloop
    except ImportError:
        pass
    else:
        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(load(job))


if __name__ == "__main__":
    print(json.dumps(asdict(run_here(Job(**json.load(sys.stdin))))))
