"""Users' preferences by type and channel, and the declared types."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import Conflict, FlashFlowError
from flashflow.backend.core.events import Event
from flashflow.backend.domain.channel_names import ChannelNames
from flashflow.backend.domain.preferences import ALL, may_use
from flashflow.backend.schemas.records import (
    NotificationType,
    Preference,
    PreferenceMatrix,
    Stage,
    Throttle,
    TypePreference,
)
from flashflow.backend.schemas.requests import PreferenceIn, TypeIn
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import Tx, Write, each_item
from flashflow.backend.store.notifications import preferences as table
from flashflow.backend.store.notifications import types
from flashflow.backend.store.notifications.delivery_state import re_evaluate_queued
from flashflow.backend.store.privacy.tombstones import unless_erased

GENERAL = NotificationType(
    name="general",
    label="General",
    description="Everything that says no other type",
    channels=("in_app",),
    critical=False,
    digest=None,
    app="",
    created_at=to_datetime(0),
    updated_at=to_datetime(0),
)


class Preferences:
    """Preferences of users, types of apps, and the effective matrix of both."""

    def __init__(self, store: Store, channels: ChannelNames) -> None:
        self._store = store
        self._channels = channels

    def matrix(self, user_id: str) -> PreferenceMatrix:
        """The user's preferences, and the effective setting of every type and channel."""
        return self._store.read(lambda conn: _matrix(conn, user_id, self._channels.all))

    def choose_write(self, choices: Sequence[PreferenceIn]) -> Write[Sequence[PreferenceIn], tuple[Preference, ...]]:
        """Build the write that stores preferences; of several for one type and channel the last wins. Raises
        ValidationError."""
        faults = ErrorCollector()
        for index, choice in enumerate(choices):
            field = "channel" if len(choices) == 1 else f"preferences.{index}.channel"
            with faults:
                self._channels.check(field, [choice.channel] if choice.channel != ALL else [])
        faults.done()
        return Write(self._choose, choices)

    def _choose(self, tx: Tx, items: Sequence[Sequence[PreferenceIn]]) -> list[tuple[Preference, ...] | FlashFlowError]:
        return unless_erased(tx, items, lambda choices: (c.user_id for c in choices), lambda good: _chosen(tx, good))

    def types(self) -> tuple[NotificationType, ...]:
        """Every type declared or used."""
        return self._store.read(types.list_types)

    def numbered_types(self) -> list[tuple[int, NotificationType]]:
        """Every type with its ``seq``, the key of a paged list."""
        return self._store.read(types.numbered_types)

    def declare_write(
        self, declared: TypeIn, app: str, owner: str | None
    ) -> Write[tuple[TypeIn, str, str | None], tuple[NotificationType, bool]]:
        """Build the write that declares a type and returns it with whether it is new.

        ``owner``: the only app whose types may be changed; only None, any app, may make a type critical.
        """
        self.check_type(declared)
        return Write(self._declare, (declared, app, owner))

    def check_type(self, declared: TypeIn) -> None:
        """Raise ValidationError naming every field with an unknown channel."""
        faults = ErrorCollector()
        with faults:
            self._channels.check("channels", declared.channels)
        with faults:
            self._channels.check("failover", [stage.channel for stage in declared.failover])
        faults.done()

    @each_item
    def _declare(self, tx: Tx, item: tuple[TypeIn, str, str | None]) -> tuple[NotificationType, bool]:
        declared, app, owner = item
        known = types.read_type(tx.conn, declared.name)
        if known is not None and owner is not None and known.app != owner:
            raise Conflict(f"The type “{declared.name}” belongs to another app.")
        now = to_datetime(tx.now_ms)
        throttle = declared.throttle
        kind = NotificationType(
            name=declared.name,
            label=declared.label or types.type_label(declared.name),
            description=declared.description,
            channels=tuple(dict.fromkeys(declared.channels)),
            critical=declared.critical if owner is None else known is not None and known.critical,
            asks_critical=declared.critical,
            category=declared.category,
            digest=declared.digest,
            digest_at=declared.digest_at,
            throttle=None if throttle is None else Throttle(limit=throttle.limit, minutes=throttle.minutes),
            failover=tuple(Stage(channel=s.channel, after_minutes=s.after_minutes) for s in declared.failover),
            app=known.app if known is not None and owner is None else app,
            created_at=known.created_at if known else now,
            updated_at=now,
        )
        types.save_type(tx, kind)
        tx.events.append(Event("preference", declared.name))
        return kind, known is None


def _chosen(tx: Tx, items: Sequence[Sequence[PreferenceIn]]) -> list[tuple[Preference, ...]]:
    table.set_preferences(
        tx, [(c.user_id, c.notification_type, c.channel, c.enabled) for choices in items for c in choices]
    )
    if turned_off := {c.user_id for choices in items for c in choices if not c.enabled}:
        re_evaluate_queued(tx, turned_off)
    for user_id in {c.user_id for choices in items for c in choices}:
        tx.events.append(Event("preference", user_id, user_id))
    now = to_datetime(tx.now_ms)
    return [
        tuple(
            Preference(
                user_id=c.user_id,
                notification_type=c.notification_type,
                channel=c.channel,
                enabled=c.enabled,
                updated_at=now,
            )
            for c in choices
        )
        for choices in items
    ]


def _matrix(conn: sqlite3.Connection, user_id: str, channels: Sequence[str]) -> PreferenceMatrix:
    choices, kinds = table.choices_of(conn, user_id), types.list_types(conn)
    if all(kind.name != GENERAL.name for kind in kinds):
        kinds = (GENERAL, *kinds)
    rows = []
    for kind in kinds:
        verdicts = {channel: may_use(choices, kind.name, channel, kind.category) for channel in channels}
        rows.append(
            TypePreference(
                name=kind.name,
                label=kind.label,
                description=kind.description,
                app=kind.app,
                critical=kind.critical,
                channels={channel: verdict[0] for channel, verdict in verdicts.items()},
                reasons={channel: verdict[2] for channel, verdict in verdicts.items()},
            )
        )
    return PreferenceMatrix(user_id=user_id, preferences=table.preferences_of(conn, user_id), types=tuple(rows))
