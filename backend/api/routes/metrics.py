"""Prometheus metrics: totals over all apps, without user ids, texts or keys.

Every value is a stored counter or comes from an index of waiting rows, so the cost does not grow with the tables.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping

from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.context import Services
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.responses import ApiResponse
from flashflow.backend.api.http.prometheus import MEDIA_TYPE, Family, Sample, counter, gauge, text
from flashflow.backend.api.http.request_metrics import BOUNDS
from flashflow.backend.core.config import VERSION
from flashflow.backend.store.file_metrics import Waiting, file_sizes, measure_activities, measure_notifications


async def get_metrics(call: ApiRequest) -> ApiResponse:
    services = call.services
    served = [*_server(services)]  # RequestMetrics belongs to this thread
    stored = await call.read(lambda: [*_process(services), *_stored(services), *_files(services)])
    return ApiResponse(200, text([*stored, *served]), ((b"content-type", MEDIA_TYPE.encode()),))


def _process(services: Services) -> Iterator[Family]:
    yield gauge("build_info", "The running version, as a label; always 1.", Sample(1, {"version": VERSION}))
    yield gauge(
        "process_start_time_seconds", "Start of the process, in seconds since 1970.", Sample(services.started_time)
    )
    memory = resident_memory()
    if memory is not None:
        yield gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.", Sample(memory))


_EVER = " since the database was created: restarts and erasures do not reduce it."


def _stored(services: Services) -> Iterator[Family]:
    activity = services.activity.store.read(measure_activities)
    delivery = services.notifications.store.read(measure_notifications)
    yield counter("activities_stored_total", f"Activities stored{_EVER}", Sample(activity.activities))
    yield counter("sessions_started_total", f"Sessions opened{_EVER}", Sample(activity.sessions))
    yield counter("notifications_stored_total", f"Notifications stored{_EVER}", Sample(delivery.notifications))
    yield gauge(
        "activities_unfolded", "Activities not yet included in the user index and the rollups.",
        Sample(activity.unfolded),
    )  # fmt: skip
    yield gauge("sessions_open", "Sessions that have not ended.", Sample(activity.open_sessions))
    yield gauge("notifications_scheduled", "Notifications scheduled for later.", Sample(delivery.scheduled))
    yield gauge("notifications_snoozed", "Notifications snoozed by a user.", Sample(delivery.snoozed))
    yield gauge(
        "deliveries_held", "Deliveries held by quiet hours, a digest or a fail-over chain.", Sample(delivery.held)
    )
    yield gauge("deliveries_sending", "Deliveries being sent.", Sample(delivery.sending))
    attempts = sorted(services.backend.attempts().items())
    yield counter(
        "delivery_attempts_total", "Delivery attempts by outcome.",
        *(Sample(count, {"channel": route, "outcome": outcome}) for (route, outcome), count in attempts),
    )  # fmt: skip
    queues = {route: Waiting(0, 0) for route in services.backend.routes()} | delivery.waiting
    yield gauge(
        "deliveries_waiting", "Deliveries waiting for their first or next attempt.",
        *(Sample(queue.deliveries, {"channel": route}) for route, queue in sorted(queues.items())),
    )  # fmt: skip
    clock_ms = services.notifications.store.clock.now_ms()
    yield gauge(
        "deliveries_overdue_seconds", "Seconds since the first waiting delivery was due; 0 if none is.",
        *(Sample(_overdue_s(queue, clock_ms), {"channel": route}) for route, queue in sorted(queues.items())),
    )  # fmt: skip


def _overdue_s(queue: Waiting, now_ms: int) -> float:
    return max(0, now_ms - queue.first_at) / 1000 if queue.deliveries else 0


def _files(services: Services) -> Iterator[Family]:
    stores = {"activities": services.activity.store, "notifications": services.notifications.store}
    sizes = {name: file_sizes(store) for name, store in stores.items()}
    yield _by_file("database_size_bytes", "Size of the file.", {name: size.database for name, size in sizes.items()})
    yield _by_file("database_wal_size_bytes", "Size of its WAL.", {name: size.wal for name, size in sizes.items()})
    yield _by_file("writer_queue_length", "Write groups waiting for a transaction.", {
        name: store.writer.waiting for name, store in stores.items()
    })  # fmt: skip
    yield _by_file("database_fault", "1 if the last write failed, else 0.", {
        name: int(store.writer.fault is not None) for name, store in stores.items()
    })  # fmt: skip


def _by_file(name: str, help_: str, values: Mapping[str, int]) -> Family:
    return gauge(name, help_, *(Sample(value, {"database": file}) for file, value in values.items()))


def _server(services: Services) -> Iterator[Family]:
    requests, watch = services.requests, services.watch
    counts = sorted(requests.counts().items())
    yield counter(
        "http_requests_total", "Requests answered.",
        *(Sample(count, {"method": method, "status": status}) for (method, status), count in counts),
    )  # fmt: skip
    yield Family(
        "http_request_duration_seconds", "histogram", "Seconds from a request's head to the start of its response.",
        [sample for method, (up_to, total) in sorted(requests.durations().items())
         for sample in _histogram(method, up_to, total)],
    )  # fmt: skip
    yield counter(
        "http_requests_unread_total", "Requests refused before they were read.",
        *(Sample(count, {"reason": reason}) for reason, count in sorted(watch.refused.items())),
    )  # fmt: skip
    yield gauge("http_connections", "Open connections.", Sample(len(watch.connections)))
    yield gauge("event_stream_clients", "Clients connected to GET /api/stream.", Sample(watch.streams.total()))


def _histogram(method: str, up_to: list[int], total: float) -> Iterator[Sample]:
    for bound, count in zip((*map(repr, BOUNDS), "+Inf"), up_to, strict=True):
        yield Sample(count, {"method": method, "le": bound}, "_bucket")
    yield Sample(total, {"method": method}, "_sum")
    yield Sample(up_to[-1], {"method": method}, "_count")


def resident_memory() -> int | None:
    """Return the resident memory in bytes; None on systems without /proc (Linux and Android have it)."""
    if not sys.platform.startswith(("linux", "android")):
        return None
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


ENDPOINTS = (
    Endpoint(
        method="GET", path="/api/metrics", scope="manage", handler=get_metrics,
        summary="Metrics for Prometheus: totals over all apps",
        answer="the Prometheus text format 0.0.4", media_types=("text/plain",),
    ),
)  # fmt: skip
