"""Exports over both files, made while they are sent: of one kind of row, or of one person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.core.clock import rfc3339
from flashflow.backend.data.formats import WHAT, Format, What, csv_file, fields_of, jsonl
from flashflow.backend.data.parquet import parquet
from flashflow.backend.domain.rule_conditions import RuleState
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.schemas.records import Notification, Record
from flashflow.backend.store.notifications import delivery_settings, preferences, rule_state, schedules
from flashflow.backend.store.notifications.notifications import deliveries_by_notification
from flashflow.backend.store.notifications.schedules import Schedule
from flashflow.backend.store.privacy import export
from flashflow.backend.store.privacy.export import ExportFilter

encode = msgspec.json.Encoder().encode
DETAILED = 50
"""Notifications whose deliveries and attempts are read at once."""


class Export:
    """Every export is an iterator of bytes that may be driven from any thread; it holds a slice of rows at a time."""

    def __init__(self, activity: UserActivityService, notifications: NotificationService) -> None:
        self._activity = activity
        self._notifications = notifications

    def rows(self, what: What, kind: Format, wanted: ExportFilter) -> Iterator[bytes]:
        """A file of all the rows that are wanted. Raises NoParquet, at once."""
        slices = self._slices(what, wanted)
        if kind == "jsonl":
            return jsonl(slices)
        return (csv_file if kind == "csv" else parquet)(WHAT[what], slices)

    def _slices(self, what: What, wanted: ExportFilter) -> Iterator[Sequence[Record]]:
        if what == "notifications":
            return export.notifications(self._notifications.store, wanted)
        made = export.activities if what == "activities" else export.sessions
        return made(self._activity.store, wanted)

    def person(self, user_id: str) -> Iterator[bytes]:
        """Everything that both files hold of the user, as one JSON document. Device tokens are masked."""
        wanted = ExportFilter(user_id=user_id)
        now_ms = self._activity.clock.now_ms()
        yield b'{"user_id":%s,"exported_at":%s' % (encode(user_id), encode(rfc3339(now_ms)))
        for name, value in self._about(user_id, now_ms).items():
            yield b",%s:%s" % (encode(name), encode(value))
        yield from _array("activities", _plain(export.activities(self._activity.store, wanted)))
        yield from _array("sessions", _plain(export.sessions(self._activity.store, wanted)))
        told = export.notifications(self._notifications.store, wanted)
        yield from _array("notifications", (self._detailed(some) for rows in told for some in _parts(rows)))
        yield b"}\n"

    def _about(self, user_id: str, now_ms: int) -> dict[str, Any]:
        """What is no list that grows: figures, choices, addresses, devices, schedules."""
        store, zone = self._notifications.store, self._notifications.zone
        consent = self._activity.admission.consent(user_id)
        figures = self._activity.get_user_analytics(user_id)

        def ask(conn: Any) -> dict[str, Any]:
            contact = delivery_settings.contact_of(conn, user_id)
            quiet = delivery_settings.quiet_setting(conn, user_id, zone, now_ms)
            return {
                "preferences": [fields_of(choice) for choice in preferences.preferences_of(conn, user_id)],
                "contacts": None if contact is None else fields_of(contact),
                "quiet_hours": fields_of(quiet),
                "digests": {kind: fields_of(c) for kind, c in delivery_settings.digests_of(conn, user_id).items()},
                "devices": [fields_of(device) for device in preferences.list_devices(conn, user_id, None)],
                "rules": [_remembered(*row) for row in rule_state.remembered_of(conn, user_id)],
                "schedules": [_theirs(schedule, user_id) for schedule in schedules.naming(conn, user_id)],
            }

        return {"consent": fields_of(consent), "figures": fields_of(figures), **store.read(ask)}

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


def _remembered(rule: str, app: str, uses: RuleState) -> dict[str, Any]:
    """When what a rule counts happened last, and when it last told somebody of it."""
    return {
        "rule": rule,
        "app": app,
        "times": [rfc3339(ms) for ms in uses.times],
        "last_fired_at": None if uses.fired_at is None else rfc3339(uses.fired_at),
    }


def _theirs(schedule: Schedule, user_id: str) -> dict[str, Any]:
    """A schedule as far as it is this user's: no other user's id, no device's token."""
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
