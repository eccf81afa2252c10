"""Load the inputs of a delivery decision: the user's settings and the configured channels."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import msgspec

from flashflow.backend.domain.delivery_policy import PolicyInputs, Target
from flashflow.backend.domain.device_address import identities
from flashflow.backend.schemas.records import NotificationType
from flashflow.backend.store.notifications.delivery_settings import addresses_of, digest_of, quiet_of
from flashflow.backend.store.notifications.devices import active_devices
from flashflow.backend.store.notifications.preferences import choices_of
from flashflow.backend.store.notifications.throttles import used_up

DESKTOP = frozenset({"desktop"})


class PolicyQuery(msgspec.Struct, frozen=True, kw_only=True):
    """One notification to decide: its user, type and channels. ``expires_at`` in milliseconds since 1970."""

    user_id: str
    notification_type: str
    channels: Sequence[str]
    kind: NotificationType | None = None
    category: str | None = None
    device_tokens: Sequence[str] | None = None
    expires_at: int | None = None
    released: frozenset[str] = frozenset()
    """Rules among ``digest``, ``failover`` and ``throttle`` that were applied before and must not hold it again."""


class PolicyInputLoader:
    """Load policy inputs inside a transaction or on a reader's snapshot.

    ``routes`` are the configured routes, or every possible one while the settings are ``unread``; ``this_computer`` is
    the token of the device this process runs on, once it is registered; ``zone`` names the workspace's time zone.
    """

    def __init__(self, zone: Callable[[], str]) -> None:
        self._zone = zone
        self.routes: frozenset[str] = DESKTOP
        self.unread = False
        self.this_computer: str | None = None

    def load(self, conn: sqlite3.Connection, query: PolicyQuery, now_ms: int) -> PolicyInputs:
        """Load every input of ``decide``; a notification for the inbox alone needs only the preferences."""
        choices = choices_of(conn, query.user_id)
        kind = query.kind
        category = kind.category if kind is not None and kind.category else query.category
        critical = kind is not None and kind.critical
        base = PolicyInputs(
            notification_type=query.notification_type,
            channels=query.channels,
            choices=choices,
            devices=(),
            category=category,
            critical=critical,
            now_ms=now_ms,
            expires_at=query.expires_at,
            routes=self.routes,
            unread=self.unread,
        )
        external = [channel for channel in query.channels if channel != "in_app"]
        if not external:
            return base
        quiet, dnd_until = (None, None) if critical else quiet_of(conn, query.user_id, self._zone())
        digest = None
        if not critical and "digest" not in query.released:
            zone = quiet.zone if quiet is not None else self._zone()
            declared, at = (None, None) if kind is None else (kind.digest, kind.digest_at)
            digest = digest_of(conn, query.user_id, query.notification_type, declared, at, zone)
        throttled = {}
        if kind is not None and kind.throttle is not None and "throttle" not in query.released:
            throttled = used_up(conn, query.user_id, kind, external, now_ms)
        return msgspec.structs.replace(
            base,
            devices=self._devices(conn, query) if "push" in external else (),
            addresses=addresses_of(conn, query.user_id) if {"email", "sms"} & set(external) else frozenset(),
            throttled=throttled,
            digest=digest,
            quiet=quiet,
            dnd_until=dnd_until,
            failover=_delays(kind, query) if "failover" not in query.released else {},
        )

    def _devices(self, conn: sqlite3.Connection, query: PolicyQuery) -> list[Target]:
        only = None if query.device_tokens is None else frozenset().union(*map(identities, query.device_tokens))
        return [
            Target(device.seq, device.platform, device.identity == self.this_computer)
            for device in active_devices(conn, query.user_id)
            if only is None or device.identity in only
        ]


def _delays(kind: NotificationType | None, query: PolicyQuery) -> dict[str, int]:
    """The delay of each fail-over stage: channel → minutes."""
    stages = () if kind is None else kind.failover
    return {stage.channel: stage.after_minutes for stage in stages if stage.channel in query.channels}
