"""Preferences, types and devices: what decides how a user is reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import encode_id, to_json
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import Conflict, FlashFlowError, NotFound
from flashflow.backend.core.events import Event
from flashflow.backend.domain.channel_names import ChannelNames
from flashflow.backend.domain.device_address import DeviceAddress, device_address
from flashflow.backend.domain.preferences import ALL, may_use
from flashflow.backend.schemas.records import (
    Device,
    DeviceRegistered,
    NotificationType,
    Preference,
    PreferenceMatrix,
    Stage,
    Throttle,
    TypePreference,
)
from flashflow.backend.schemas.requests import DeviceIn, PreferenceIn, TypeIn
from flashflow.backend.schemas.values import metadata_json
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.models import NotificationModels
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.notifications import preferences as table
from flashflow.backend.store.notifications.re_evaluation import re_evaluate_queued
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
    """What users chose, what apps declared, and the matrix that follows."""

    def __init__(self, store: Store, channels: ChannelNames) -> None:
        self._store = store
        self._channels = channels

    def matrix(self, user_id: str) -> PreferenceMatrix:
        """The choices, and every type with every channel as it takes effect."""
        return self._store.read(
            lambda conn: _matrix(
                user_id,
                table.preferences_of(conn, user_id),
                table.choices_of(conn, user_id),
                table.list_types(conn),
                self._channels.all,
            )
        )

    def choose_write(self, choices: Sequence[PreferenceIn]) -> Write[Sequence[PreferenceIn], tuple[Preference, ...]]:
        """The write that stores choices, the last of several on one place winning. Raises ValidationError."""
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
        """Every type that was declared or used."""
        return self._store.read(table.list_types)

    def numbered_types(self) -> list[tuple[int, NotificationType]]:
        """Every type with its sequence number: the key of a paged list."""
        return self._store.read(table.numbered_types)

    def declare_write(
        self, declared: TypeIn, app: str, owner: str | None
    ) -> Write[tuple[TypeIn, str, str | None], tuple[NotificationType, bool]]:
        """The write that declares a type: what stands, and whether it is new. ``owner``: the only app whose types
        may be changed (None: any); only who may change any decides what is critical."""
        self.check_type(declared)
        return Write(self._declare, (declared, app, owner))

    def check_type(self, declared: TypeIn) -> None:
        """Raise ValidationError for every field that names a channel that does not exist."""
        faults = ErrorCollector()
        with faults:
            self._channels.check("channels", declared.channels)
        with faults:
            self._channels.check("failover", [stage.channel for stage in declared.failover])
        faults.done()

    def _declare(
        self, tx: Tx, items: Sequence[tuple[TypeIn, str, str | None]]
    ) -> list[tuple[NotificationType, bool] | FlashFlowError]:
        answers: list[tuple[NotificationType, bool] | FlashFlowError] = []
        for declared, app, owner in items:
            known = table.read_type(tx.conn, declared.name)
            if known is not None and owner is not None and known.app != owner:
                answers.append(Conflict(f"The type “{declared.name}” belongs to another app."))
                continue
            now = to_datetime(tx.now_ms)
            kind = NotificationType(
                name=declared.name,
                label=declared.label or table.type_label(declared.name),
                description=declared.description,
                channels=tuple(dict.fromkeys(declared.channels)),
                critical=declared.critical if owner is None else known is not None and known.critical,
                asks_critical=declared.critical,
                category=declared.category,
                digest=declared.digest,
                digest_at=declared.digest_at,
                throttle=_throttle(declared),
                failover=tuple(Stage(channel=s.channel, after_minutes=s.after_minutes) for s in declared.failover),
                app=known.app if known is not None and owner is None else app,
                created_at=known.created_at if known else now,
                updated_at=now,
            )
            table.save_type(tx, kind)
            tx.events.append(Event("preference", declared.name))
            answers.append((kind, known is None))
        return answers


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


def _throttle(declared: TypeIn) -> Throttle | None:
    rule = declared.throttle
    return None if rule is None else Throttle(limit=rule.limit, minutes=rule.minutes)


def _matrix(
    user_id: str,
    preferences: tuple[Preference, ...],
    choices: dict[tuple[str, str], bool],
    types: tuple[NotificationType, ...],
    channels: Sequence[str],
) -> PreferenceMatrix:
    if all(kind.name != GENERAL.name for kind in types):
        types = (GENERAL, *types)
    rows = []
    for kind in types:
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
    return PreferenceMatrix(user_id=user_id, preferences=preferences, types=tuple(rows))


Registration = tuple[DeviceIn, DeviceAddress, str]
"""A device, where pushes for it go, and the app that registers it."""


class Devices:
    """The devices that push can reach."""

    def __init__(self, store: Store, models: NotificationModels, new_id: Callable[[], str]) -> None:
        self._store = store
        self._model = models.device
        self._new_id = new_id

    def of(self, user_id: str, app: str | None = None) -> tuple[Device, ...]:
        """A user's devices, newest first, tokens masked."""
        return tuple(self._store.read(lambda conn: table.list_devices(conn, user_id, app)))

    def newest(self, user_id: str, app: str | None, before: int, limit: int) -> tuple[list[tuple[int, Device]], bool]:
        """A page of them with their sequence numbers, the key of a paged list, and whether there are more."""
        return self._store.read(lambda conn: table.newest_devices(conn, user_id, app, before, limit))

    def register_write(self, device: DeviceIn, app: str) -> Write[Registration, DeviceRegistered]:
        """The write that registers a device, or moves a known one to this user. Raises ValidationError."""
        metadata_json(device.device_info, "device_info")
        return Write(self._register, (device, device_address(device.token, device.platform, device.device_info), app))

    def _register(self, tx: Tx, items: Sequence[Registration]) -> list[DeviceRegistered | FlashFlowError]:
        return unless_erased(tx, items, lambda item: (item[0].user_id,), lambda good: self._registered(tx, good))

    def _registered(self, tx: Tx, items: Sequence[Registration]) -> list[DeviceRegistered]:
        answers = []
        for device, address, app in items:
            known = table.device_by_identity(tx.conn, address.identity)
            tx.conn.execute(
                "INSERT INTO device_tokens (id, user_id, token, identity, platform, device_info, is_active, app, "
                "created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT (identity) DO UPDATE SET "
                "user_id = excluded.user_id, token = excluded.token, platform = excluded.platform, "
                "device_info = excluded.device_info, is_active = 1, app = excluded.app, "
                "updated_at = excluded.updated_at",
                (
                    encode_id(self._new_id()), device.user_id, address.token, address.identity, device.platform,
                    to_json(address.info) if address.info else None, app, tx.now_ms, tx.now_ms,
                ),
            )  # fmt: skip
            now = table.device_by_identity(tx.conn, address.identity)
            assert now is not None
            tx.events.append(Event("device", now.id, device.user_id, app))
            answers.append(DeviceRegistered(device=now, created=known is None))
        return answers

    def remove_write(self, device_id: str, app: str | None) -> Write[tuple[str, str | None], Device]:
        """The write that forgets a device; another app's is not found."""
        return Write(self._remove, (device_id, app))

    def _remove(self, tx: Tx, items: Sequence[tuple[str, str | None]]) -> list[Device | FlashFlowError]:
        answers: list[Device | FlashFlowError] = []
        for device_id, app in items:
            row = tx.conn.execute(
                "SELECT identity FROM device_tokens WHERE id = ? AND (? IS NULL OR app = ?)",
                (encode_id(device_id), app, app),
            ).fetchone()
            device = None if row is None else table.device_by_identity(tx.conn, row[0])
            if device is None:
                answers.append(NotFound(f"There is no device {device_id!r}."))
                continue
            tx.conn.execute("DELETE FROM device_tokens WHERE id = ?", (encode_id(device_id),))
            tx.events.append(Event("device", device.id, device.user_id, device.app))
            answers.append(device)
        return answers
