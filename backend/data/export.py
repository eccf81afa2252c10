"""Exports of one kind of row or of one user, produced while they are sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.core.clock import rfc3339
from flashflow.backend.data.formats import RECORDS, Format, What, csv_file, fields_of, jsonl
from flashflow.backend.data.parquet import parquet
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.schemas.records import Notification, Record
from flashflow.backend.store.flow.rows import rows_of_user
from flashflow.backend.store.notifications import delivery_settings, devices, preferences, rule_state, schedules
from flashflow.backend.store.notifications.deliveries import deliveries_by_notification
from flashflow.backend.store.notifications.rule_state import NamedState
from flashflow.backend.store.notifications.schedules import Schedule
from flashflow.backend.store.privacy import export
from flashflow.backend.store.privacy.export import ExportFilter

encode = msgspec.json.Encoder().encode
DETAILED = 50
"""Notifications whose deliveries and attempts are read together."""


class Export:
    """Each export is an iterator of bytes for any thread; it holds one slice of rows in memory."""

    def __init__(self, activity: UserActivityService, notifications: NotificationService) -> None:
        self._activity = activity
        self._notifications = notifications

    def rows(self, what: What, kind: Format, where: ExportFilter) -> Iterator[bytes]:
        """Export the rows that match ``where``. Raises NoParquet before the first byte."""
        slices = self._slices(what, where)
        if kind == "jsonl":
            return jsonl(slices)
        return (csv_file if kind == "csv" else parquet)(RECORDS[what], slices)

    def _slices(self, what: What, where: ExportFilter) -> Iterator[Sequence[Record]]:
        if what == "notifications":
            return export.notifications(self._notifications.store, where)
        read = export.activities if what == "activities" else export.sessions
        return read(self._activity.store, where)

    def user(self, user_id: str) -> Iterator[bytes]:
        """Export everything stored of the user as one JSON document. Device tokens are masked."""
        where = ExportFilter(user_id=user_id)
        now_ms = self._activity.clock.now_ms()
        yield b'{"user_id":%s,"exported_at":%s' % (encode(user_id), encode(rfc3339(now_ms)))
        for name, value in self._profile(user_id, now_ms).items():
            yield b",%s:%s" % (encode(name), encode(value))
        yield from _array("activities", _plain(export.activities(self._activity.store, where)))
        yield from _array("sessions", _plain(export.sessions(self._activity.store, where)))
        notifications = export.notifications(self._notifications.store, where)
        yield from _array("notifications", (self._detailed(some) for rows in notifications for some in _parts(rows)))
        yield from _array("rows", self._rows_of(user_id))
        yield b"}\n"

    def _rows_of(self, user_id: str) -> Iterator[list[dict[str, Any]]]:
        """Rows of models: those that the user created, and the row of the model User with their id."""
        after, more = 0, True
        while more:
            rows, more = self._notifications.store.read(
                lambda conn, after=after: rows_of_user(conn, user_id, after, DETAILED)  # type: ignore[misc]
            )
            after = rows[-1].seq if rows else after
            yield [{"model": row.model, "fields": row.body, "created_at": rfc3339(row.created_at)} for row in rows]

    def _profile(self, user_id: str, now_ms: int) -> dict[str, Any]:
        """Return the parts of bounded size: metrics, preferences, contacts, devices, rule states, schedules."""
        store, zone = self._notifications.store, self._notifications.zone
        consent = self._activity.admission.consent(user_id)
        metrics = self._activity.get_user_analytics(user_id)

        def query(conn: Any) -> dict[str, Any]:
            contact = delivery_settings.contact_of(conn, user_id)
            quiet = delivery_settings.quiet_setting(conn, user_id, zone, now_ms)
            return {
                "preferences": [fields_of(choice) for choice in preferences.preferences_of(conn, user_id)],
                "contacts": None if contact is None else fields_of(contact),
                "quiet_hours": fields_of(quiet),
                "digests": {kind: fields_of(c) for kind, c in delivery_settings.digests_of(conn, user_id).items()},
                "devices": [fields_of(device) for device in devices.list_devices(conn, user_id, None)],
                "rules": [_rule_state(state) for state in rule_state.states_of_user(conn, user_id)],
                "schedules": [_redacted(schedule, user_id) for schedule in schedules.with_recipient(conn, user_id)],
            }

        return {"consent": fields_of(consent), "figures": fields_of(metrics), **store.read(query)}

    def _detailed(self, rows: Sequence[Notification]) -> list[dict[str, Any]]:
        ids = [row.id for row in rows]
        deliveries = self._notifications.store.read(lambda conn: deliveries_by_notification(conn, ids))
        return [
            fields_of(row)
            | {
                "deliveries": [
                    fields_of(delivery) | {"attempts": [fields_of(attempt) for attempt in delivery.attempts]}
                    for delivery in deliveries.get(row.id, ())
                ]
            }
            for row in rows
        ]


def _rule_state(state: NamedState) -> dict[str, Any]:
    """A rule's state for a user: the times of the counted activities and of the last firing."""
    return {
        "rule": state.name,
        "app": state.app,
        "times": [rfc3339(ms) for ms in state.times],
        "last_fired_at": None if state.fired_at is None else rfc3339(state.fired_at),
    }


def _redacted(schedule: Schedule, user_id: str) -> dict[str, Any]:
    """A schedule without other users' ids and without device tokens."""
    notification = {
        name: value for name, value in schedule.notification.items() if name not in {"user_ids", "device_tokens"}
    }
    return fields_of(schedule) | {"notification": notification | {"user_id": user_id}}


def _parts(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), DETAILED):
        yield rows[start : start + DETAILED]


def _plain(slices: Iterable[Sequence[Record]]) -> Iterator[list[dict[str, Any]]]:
    for rows in slices:
        yield [fields_of(row) for row in rows]


def _array(name: str, slices: Iterable[list[dict[str, Any]]]) -> Iterator[bytes]:
    before = b",%s:[" % encode(name)
    for rows in slices:
        if rows:
            yield before + b",".join(map(encode, rows))
            before = b","
    yield b"]" if before == b"," else before + b"]"
