"""GET /api/metrics: valid Prometheus text with correct values."""

from __future__ import annotations

import re
import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from flashflow.backend import NotificationService, UserActivityService
from flashflow.backend.api.http.prometheus import Sample, gauge, text
from flashflow.backend.core.config import VERSION
from flashflow.backend.core.counters import Counter
from flashflow.backend.store.file_metrics import measure_activities, measure_notifications
from tests.support.api_client import BATCH, SEND, START, App, fresh, ok, problem, send, track
from tests.support.query_plans import with_table
from tests.support.server_process import ServerProcess, eventually, serving
from tests.support.smtp_server import SmtpServer, smtp_server

METRICS = "/api/metrics"
LATER = "451 4.3.0 Try again later"
NAME = re.compile(r"flashflow(_[a-z0-9]+)+")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,(?=.)|$)')
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.+)\})? (\S+)")
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


class Told(NamedTuple):
    """A parsed response: the type of each name, and each sample by name and labels."""

    types: dict[str, str]
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[f"flashflow_{name}", frozenset(labels.items())]


def parsed(body: str) -> Told:
    """Parse strictly by the format's page; any deviation fails."""
    assert body.endswith("\n")
    told = Told({}, {})
    helped, name = "", ""
    for line in body.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            helped, _, words = line.removeprefix("# HELP ").partition(" ")
            assert words.strip()
        elif line.startswith("# TYPE "):
            name, _, kind = line.removeprefix("# TYPE ").partition(" ")
            assert name == helped, "HELP and TYPE stand together"
            assert NAME.fullmatch(name)
            assert name not in told.types, "a family stands in one place"
            assert (kind == "counter") == name.endswith("_total")
            told.types[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            assert match[1] in {name + suffix for suffix in SUFFIXES[told.types[name]]}, line
            assert NUMBER.fullmatch(match[3]), line
            place = match[1], labels_of(match[2] or "")
            assert place not in told.samples, f"twice: {line}"
            told.samples[place] = float(match[3])
    return told


def labels_of(words: str) -> frozenset[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(words):
        match = LABEL.match(words, at)
        assert match is not None, words
        found.append((match[1], re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], match[2])))
        at = match.end()
    assert len({name for name, _ in found}) == len(found), f"a label twice: {words}"
    return frozenset(found)


@pytest.fixture(scope="module")
def mail() -> Iterator[SmtpServer]:
    with smtp_server() as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, mail: SmtpServer) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("metrics")
    (folder / "flashflow.toml").write_text(
        f'[channels.email]\nhost = "{mail.host}"\nport = {mail.port}\nsecurity = "none"\nfrom = "hub@example.org"\n'
        "[delivery]\nbase_delay = 3600\nmax_delay = 86400\n",
        encoding="utf-8",
    )
    with serving(folder) as running:
        yield running


def told_by(caller: ServerProcess | App) -> Told:
    answer = caller.api("GET", METRICS)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(answer.text)


# --- the format


def test_it_is_prometheus_text_with_the_expected_families(server: ServerProcess) -> None:
    told = told_by(server)
    assert told("build_info", version=VERSION) == 1
    health = server.api("GET", "/api/health").json()
    started = told("process_start_time_seconds")
    assert abs(started + health["uptime_seconds"] - float(told_time(server))) < 5
    for file in ("activities", "notifications"):
        assert told("database_size_bytes", database=file) > 4096
        assert told("database_wal_size_bytes", database=file) >= 0
        assert told("writer_queue_length", database=file) >= 0
        assert told("database_fault", database=file) == 0
    assert told("http_connections") >= 1
    for channel in ("desktop", "email"):
        assert told("deliveries_waiting", channel=channel) == 0
        assert told("deliveries_overdue_seconds", channel=channel) == 0
        assert told("delivery_attempts_total", channel=channel, outcome="permanent") == 0


def told_time(server: ServerProcess) -> float:
    return parsedate_to_datetime(server.api("GET", "/api/health").headers["date"]).timestamp()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells it cheaply")
def test_the_memory_is_the_one_that_the_system_tells_of_the_process(server: ServerProcess) -> None:
    resident = int(re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text("ascii"))[0]) * 1024
    assert told_by(server)("process_resident_memory_bytes") == pytest.approx(resident, rel=0.2)


def test_label_values_and_help_are_escaped() -> None:
    odd = 'a "quoted" \\ back\nslash, {braces} and ü'
    body = text([gauge("odd", "Two\nlines \\ here.", Sample(1.5, {"channel": odd, "other": ""}))]).decode()
    assert body.count("\n") == 3
    assert parsed(body).samples == {("flashflow_odd", frozenset({("channel", odd), ("other", "")})): 1.5}


@pytest.mark.parametrize(
    "body",
    [
        "flashflow_a 1\n",
        "# HELP flashflow_a A.\n# TYPE flashflow_a gauge\nflashflow_b 1\n",
        "# HELP flashflow_a A.\n# TYPE flashflow_a gauge\nflashflow_a 1\nflashflow_a 2\n",
        '# HELP flashflow_a A.\n# TYPE flashflow_a gauge\nflashflow_a{x="a"b"} 1\n',
        "# HELP flashflow_a A.\n# TYPE flashflow_a counter\nflashflow_a 1\n",
        "# HELP flashflow_a A.\n# TYPE flashflow_a gauge\nflashflow_a None\n",
        "# HELP flashflow_a A.\n# TYPE flashflow_a gauge\nflashflow_a 1",
    ],
)
def test_the_parser_of_these_tests_would_notice(body: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        parsed(body)


def test_a_histogram_counts_upwards_to_all_of_them(server: ServerProcess) -> None:
    told = told_by(server)
    name = "flashflow_http_request_duration_seconds"
    assert told.types[name] == "histogram"
    for method in ("GET", "POST"):
        buckets = {
            dict(labels)["le"]: value
            for (of, labels), value in told.samples.items()
            if of == f"{name}_bucket" and ("method", method) in labels
        }
        ends = [float(end) for end in buckets]
        assert ends == sorted(ends)
        assert ends[-1] == float("inf")
        assert list(buckets.values()) == sorted(buckets.values())
        assert buckets["+Inf"] == told("http_request_duration_seconds_count", method=method)
        every = [v for (of, labels), v in told.samples.items() if "http_requests_total" in of and (
            ("method", method) in labels)]  # fmt: skip
        assert sum(every) == buckets["+Inf"]
    assert told("http_request_duration_seconds_sum", method="GET") > 0


# --- what was done is what it says


def test_activities_and_sessions_are_counted_as_they_are_stored(server: ServerProcess) -> None:
    before, user = told_by(server), fresh()
    for _ in range(3):
        track(server, user, activity_id=fresh("a"))
    after = told_by(server)
    assert after("activities_stored_total") - before("activities_stored_total") == 3
    assert after("sessions_started_total") - before("sessions_started_total") == 1
    assert after("sessions_open") - before("sessions_open") == 1
    assert after("activities_unfolded") >= 0
    twice = {"user_id": user, "activity_type": "click", "activity_id": fresh("twice")}
    ok(server.api("POST", BATCH, {"activities": [twice, twice, {"user_id": user}]}))
    assert told_by(server)("activities_stored_total") - after("activities_stored_total") == 1
    session = ok(server.api("POST", START, {"user_id": fresh()}), 201)["session_id"]
    opened = told_by(server)
    assert opened("sessions_open") - after("sessions_open") == 1
    ok(server.api("POST", f"/api/session/end/{session}"))
    assert told_by(server)("sessions_open") == after("sessions_open")


def test_requests_are_counted_by_method_and_class_of_status(server: ServerProcess) -> None:
    def done(told: Told) -> tuple[float, ...]:
        return tuple(
            told("http_requests_total", method=method, status=status)
            for method, status in (("GET", "2xx"), ("GET", "4xx"), ("POST", "2xx"), ("POST", "4xx"))
        )

    before = done(told_by(server))
    assert server.api("GET", "/api/nothing").status_code == 404  # the router's
    assert server.api("GET", "/api/rules/nothing").status_code == 404  # an endpoint's
    assert httpx.get(server.url + METRICS, trust_env=False).status_code == 401
    assert server.api("GET", "/api/health", headers={"Host": "evil.example"}).status_code == 403  # the guard's
    assert server.api("GET", "/docs").status_code == 200
    assert server.api("GET", f"/api/users/{fresh()}/export").status_code == 200  # by the long way
    send(server, fresh())
    assert server.api("POST", SEND, {}).status_code == 400
    assert server.api("POST", "/api/health", {}).status_code == 405
    after = done(told_by(server))
    # Each answer of /api/metrics is in the next one: the first of the two stands among the GETs.
    assert tuple(b - a for a, b in zip(before, after, strict=True)) == (3, 4, 1, 2)


def test_methods_of_a_callers_own_making_share_one_label(server: ServerProcess) -> None:
    before = told_by(server)
    assert server.api("HEAD", METRICS).status_code == 200
    for method in ("PROPFIND", "MKCOL", "REPORT"):
        assert server.api(method, METRICS).status_code == 405
    after = told_by(server)
    assert after("http_requests_total", method="other", status="4xx") == 3
    known = {dict(labels)["method"] for (name, labels) in after.samples if name == "flashflow_http_requests_total"}
    assert known <= {"GET", "HEAD", "POST", "PUT", "DELETE", "other"}
    assert after("http_requests_total", method="HEAD", status="2xx") == 1
    assert ("flashflow_http_requests_total", frozenset({("method", "HEAD"), ("status", "2xx")})) not in before.samples


def test_an_invalid_request_is_counted_by_the_reason_of_its_refusal(server: ServerProcess) -> None:
    before = told_by(server)
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as raw:
        raw.sendall(b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.recv(64).startswith(b"HTTP/1.1 400 ")
    after = told_by(server)
    assert after("http_requests_unread_total", reason="bad_request") == 1 + before(
        "http_requests_unread_total", reason="bad_request"
    )
    assert after("http_requests_unread_total", reason="too_many_connections") == 0


def test_a_delivered_notice_counts_and_one_that_waits_is_seen_to_wait(server: ServerProcess, mail: SmtpServer) -> None:
    user = fresh()
    ok(server.api("POST", f"/api/users/{user}/contacts", {"email": f"{user}@example.org"}))
    before = told_by(server)

    def grew(name: str, by: int = 1, **labels: str) -> Told | None:
        now = told_by(server)
        return now if now(name, **labels) == before(name, **labels) + by else None

    send(server, user, channels=["email"])
    sent = eventually(lambda: grew("delivery_attempts_total", channel="email", outcome="sent"), what="a sent mail")
    assert sent("notifications_stored_total") == before("notifications_stored_total") + 1
    assert sent("deliveries_waiting", channel="email") == 0
    mail.misbehave("RCPT", LATER, times=1)
    send(server, user, channels=["email"])
    late = eventually(lambda: grew("delivery_attempts_total", channel="email", outcome="transient"), what="a retry")
    assert late("delivery_attempts_total", channel="email", outcome="sent") == sent(
        "delivery_attempts_total", channel="email", outcome="sent"
    )
    assert late("deliveries_waiting", channel="email") == 1
    assert late("deliveries_sending") == 0
    assert late("deliveries_overdue_seconds", channel="email") == 0
    send(server, user, scheduled_at="2099-01-01T00:00:00Z")
    assert told_by(server)("notifications_scheduled") == before("notifications_scheduled") + 1


def test_who_hears_the_stream_is_counted_while_they_do(server: ServerProcess) -> None:
    assert told_by(server)("event_stream_clients") == 0
    headers = {"Authorization": f"Bearer {server.key}"}
    with httpx.stream("GET", f"{server.url}/api/stream", headers=headers, trust_env=False, timeout=10) as answer:
        assert answer.status_code == 200
        heard = answer.iter_bytes()  # let go, it would close the connection
        assert next(heard)
        assert told_by(server)("event_stream_clients") == 1
    eventually(lambda: told_by(server)("event_stream_clients") == 0, what="the client's going")


def test_stored_rows_stay_counted_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        track(first, "ada")
        assert told_by(first)("activities_stored_total") == 1
    with serving(tmp_path) as second:
        track(second, "ada")
        told = told_by(second)
        assert told("activities_stored_total") == 2
        assert told("http_requests_total", method="POST", status="2xx") == 1


# --- who may ask


def test_it_is_for_keys_that_manage_and_tells_nothing_of_anybody(server: ServerProcess) -> None:
    user, title = fresh("somebody"), fresh("secret")
    owner = App(server, "track", "send", "read")
    track(owner, user)
    send(owner, user, title=title)
    problem(httpx.get(server.url + METRICS, trust_env=False), "unauthorized")
    problem(owner.api("GET", METRICS), "forbidden")
    problem(server.api("GET", METRICS, params={"app": "x"}), "validation_error")
    answer = App(server, "manage").api("GET", METRICS)
    assert answer.status_code == 200
    for word in (user, title, owner.name, owner.key, server.key, str(server.data_dir), "example.org"):
        assert word not in answer.text


def test_openapi_has_the_media_type_of_the_metrics(server: ServerProcess) -> None:
    document = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()
    operation = document["paths"][METRICS]["get"]
    assert operation["responses"]["200"]["content"] == {"text/plain": {"schema": {"type": "string"}}}
    assert f"GET {METRICS}" in httpx.get(f"{server.url}/docs", trust_env=False).text


# --- it costs the same however much is stored

FEW = re.compile(r"(user_sessions_open|notifications_(scheduled|snoozed)|deliveries_(held|leased|due))$")


def plans(conn: sqlite3.Connection, statements: set[str]) -> Iterator[str]:
    for sql in statements:
        yield from (with_table(sql, row[3]) for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}"))


def test_no_question_goes_through_a_table(tmp_path: Path) -> None:
    with (
        UserActivityService(tmp_path / "a.db") as activities,
        NotificationService(tmp_path / "n.db") as notifications,
    ):
        for store, measure in ((activities.store, measure_activities), (notifications.store, measure_notifications)):
            seen: set[str] = set()

            def traced(conn: sqlite3.Connection, measure=measure, seen=seen) -> list[str]:  # type: ignore[no-untyped-def]
                conn.set_trace_callback(seen.add)
                measure(conn)
                conn.set_trace_callback(None)
                return list(plans(conn, seen))

            steps = store.read(traced)
            assert len(seen) >= 3
            scans = [step for step in steps if step.startswith("SCAN ")]
            small = {"SCAN CONSTANT ROW", "SCAN sqlite_sequence", "SCAN rollup_state"}
            assert [step for step in scans if step not in small and not FEW.search(step)] == []
            assert any(FEW.search(step) for step in scans)


def test_an_answer_costs_the_same_when_a_hundred_times_as_much_is_stored(tmp_path: Path) -> None:
    """SQLite virtual machine steps; no stored row is open, scheduled or waiting."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def cost(service: UserActivityService) -> int:
        nonlocal steps
        steps = 0

        def counted(conn: sqlite3.Connection) -> None:
            conn.set_progress_handler(step, 10)
            measure_activities(conn)
            conn.set_progress_handler(None, 10)

        service.store.read(counted)
        return steps

    with UserActivityService(tmp_path / "a.db") as service:
        service.track_batch([{"user_id": "ada", "activity_type": "x"}] * 10)
        few = cost(service)
        service.track_batch([{"user_id": "ada", "activity_type": "x"}] * 1_000)
        assert cost(service) <= few + 1


def test_a_counter_is_exact_across_threads_and_starts_at_zero() -> None:
    tally = Counter()
    tally.expect([("email", "sent"), ("sms", "sent")])
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda _: [tally.add("email", "sent") for _ in range(500)], range(8)):
            pass
    tally.expect([("email", "sent")])
    assert tally.counts() == {("email", "sent"): 4_000, ("sms", "sent"): 0}
