"""What Prometheus asks: how FlashFlow is doing, in numbers over everything, without a user, a text or a key in them.

Every number is known or stands in an index of what waits, so an answer costs the same over ten million rows.
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
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.file_metrics import Waiting, file_sizes, measure_activities, measure_notifications


async def metrics(call: ApiRequest) -> ApiResponse:
    services = call.services
    served = [*_server(services)]  # counted in this thread, so it is read in it
    kept = await call.read(lambda: [*_process(services), *_stored(services), *_delivery(services), *_files(services)])
    return ApiResponse(200, text([*kept, *served]), ((b"content-type", MEDIA_TYPE.encode()),))


def _process(services: Services) -> Iterator[Family]:
    yield gauge("build_info", "The version that runs; always 1.", Sample(1, {"version": VERSION}))
    yield gauge(
        "process_start_time_seconds", "When it was started, in seconds since 1970.", Sample(services.started_time)
    )
    memory = resident_memory()
    if memory is not None:
        yield gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.", Sample(memory))


_EVER = " since the file was made: a restart does not begin anew, nor is what was erased taken off."


def _stored(services: Services) -> Iterator[Family]:
    now = services.activity.store.read(measure_activities)
    told = services.notifications.store.read(measure_notifications)
    yield counter("activities_stored_total", f"Activities stored{_EVER}", Sample(now.activities))
    yield counter("sessions_started_total", f"Sessions opened{_EVER}", Sample(now.sessions))
    yield counter("notifications_stored_total", f"Notifications stored{_EVER}", Sample(told.notifications))
    yield gauge(
        "activities_unfolded", "Activities that the index by user and the figures have not taken in yet.",
        Sample(now.unfolded),
    )  # fmt: skip
    yield gauge("sessions_open", "Sessions that have not ended.", Sample(now.open_sessions))
    yield gauge("notifications_scheduled", "Notifications that wait for their time.", Sample(told.scheduled))
    yield gauge("notifications_snoozed", "Notifications that a reader put off.", Sample(told.snoozed))
    yield gauge("deliveries_held", "Deliveries held back by quiet hours, a digest or a chain.", Sample(told.held))
    yield gauge("deliveries_sending", "Deliveries that are under way.", Sample(told.sending))
    queues = {route: Waiting(0, 0) for route in services.desk.routes()} | told.waiting
    yield gauge(
        "deliveries_waiting", "Deliveries that wait for their first or next try.",
        *(Sample(queue.deliveries, {"channel": route}) for route, queue in sorted(queues.items())),
    )  # fmt: skip
    clock_ms = services.notifications.store.clock.now_ms()
    yield gauge(
        "deliveries_overdue_seconds", "How long ago the first waiting delivery was due; 0 where none is.",
        *(Sample(_overdue_s(queue, clock_ms), {"channel": route}) for route, queue in sorted(queues.items())),
    )  # fmt: skip


def _overdue_s(queue: Waiting, now_ms: int) -> float:
    return max(0, now_ms - queue.first_at) / 1000 if queue.deliveries else 0


def _delivery(services: Services) -> Iterator[Family]:
    yield counter(
        "delivery_attempts_total", "Tries to deliver, by what came of them.",
        *(
            Sample(count, {"channel": route, "outcome": outcome})
            for (route, outcome), count in sorted(services.desk.attempts().items())
        ),
    )  # fmt: skip


def _files(services: Services) -> Iterator[Family]:
    stores = {"activities": services.activity.store, "notifications": services.notifications.store}
    sizes = {name: file_sizes(store) for name, store in stores.items()}
    yield _by_file("database_size_bytes", "Size of the file.", {name: size.database for name, size in sizes.items()})
    yield _by_file("database_wal_size_bytes", "Size of its WAL.", {name: size.wal for name, size in sizes.items()})
    yield _by_file("writer_queue_length", "Groups of writes that wait for a transaction.", {
        name: store.writer.waiting for name, store in stores.items()
    })  # fmt: skip
    yield _by_file("database_fault", "1 if the storage failed the last write, else 0.", {
        name: _faulty(store) for name, store in stores.items()
    })  # fmt: skip


def _by_file(name: str, help_: str, values: Mapping[str, int]) -> Family:
    return gauge(name, help_, *(Sample(value, {"database": file}) for file, value in values.items()))


def _faulty(store: Store) -> int:
    return int(store.writer.fault is not None)


def _server(services: Services) -> Iterator[Family]:
    requests, watch = services.requests, services.watch
    yield counter(
        "http_requests_total", "Requests that were answered.",
        *(
            Sample(count, {"method": method, "status": status})
            for (method, status), count in sorted(requests.counts().items())
        ),
    )  # fmt: skip
    yield Family(
        "http_request_duration_seconds", "histogram", "From a request's head to the beginning of its answer.",
        [sample for method, (up_to, total) in sorted(requests.durations().items())
         for sample in _histogram(method, up_to, total)],
    )  # fmt: skip
    yield counter(
        "http_requests_unread_total", "Requests refused before they were read.",
        *(Sample(count, {"reason": reason}) for reason, count in sorted(watch.refused.items())),
    )  # fmt: skip
    yield gauge("http_connections", "Open connections.", Sample(len(watch.connections)))
    yield gauge("event_stream_clients", "Clients that hear GET /api/stream now.", Sample(watch.streams.total()))


def _histogram(method: str, up_to: list[int], total: float) -> Iterator[Sample]:
    for bound, count in zip((*map(repr, BOUNDS), "+Inf"), up_to, strict=True):
        yield Sample(count, {"method": method, "le": bound}, "_bucket")
    yield Sample(total, {"method": method}, "_sum")
    yield Sample(up_to[-1], {"method": method}, "_count")


def resident_memory() -> int | None:
    """The process's bytes in RAM, where the system tells them by one small file (Linux, Android); else None."""
    if not sys.platform.startswith(("linux", "android")):
        return None
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


ENDPOINTS = (
    Endpoint(
        method="GET", path="/api/metrics", scope="manage", handler=metrics, media_type="text/plain",
        summary="How FlashFlow is doing, for Prometheus: every app's totals, no user, text or key",
        answer="the text format 0.0.4",
    ),
)  # fmt: skip
