"""What a decision rests on, looked up: one user's circumstances and what the owner configured."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import msgspec

from flashflow.backend.domain.delivery_policy import PolicyInputs, Target
from flashflow.backend.domain.device_address import identities
from flashflow.backend.schemas.records import NotificationType
from flashflow.backend.store.notifications.delivery_settings import addresses_of, digest_of, quiet_of
from flashflow.backend.store.notifications.preferences import choices_of, targets_of
from flashflow.backend.store.notifications.throttles import used_up

DESKTOP = frozenset({"desktop"})


class PolicyQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Who is to be told what, by which channels."""

    user_id: str
    notification_type: str
    channels: Sequence[str]
    kind: NotificationType | None = None
    category: str | None = None
    device_tokens: Sequence[str] | None = None
    expires_at: int | None = None
    released: frozenset[str] = frozenset()
    """Of ``digest``, ``failover`` and ``throttle``, what has had its say when the delivery was held."""


class PolicyInputLoader:
    """Gathers the facts inside a transaction or on a reader's snapshot.

    ``routes`` are what is configured, or with ``unread`` what may be; ``this_computer`` is the token of the device this
    process runs on, once it is registered; ``zone`` names the workspace's time zone.
    """

    def __init__(self, zone: Callable[[], str]) -> None:
        self._zone = zone
        self.routes: frozenset[str] = DESKTOP
        self.unread = False
        self.this_computer: str | None = None

    def facts(self, conn: sqlite3.Connection, asked: PolicyQuery, now_ms: int) -> PolicyInputs:
        """Everything ``decide`` wants to know. What goes to the inbox alone is asked no more than the choices."""
        choices = choices_of(conn, asked.user_id)
        kind = asked.kind
        category = kind.category if kind is not None and kind.category else asked.category
        critical = kind is not None and kind.critical
        base = PolicyInputs(
            notification_type=asked.notification_type,
            channels=asked.channels,
            choices=choices,
            devices=(),
            category=category,
            critical=critical,
            now_ms=now_ms,
            expires_at=asked.expires_at,
            routes=self.routes,
            unread=self.unread,
        )
        outward = [channel for channel in asked.channels if channel != "in_app"]
        if not outward:
            return base
        quiet, dnd_until = (None, None) if critical else quiet_of(conn, asked.user_id, self._zone())
        digest = None
        if not critical and "digest" not in asked.released:
            zone = quiet.zone if quiet is not None else self._zone()
            declared, at = (None, None) if kind is None else (kind.digest, kind.digest_at)
            digest = digest_of(conn, asked.user_id, asked.notification_type, declared, at, zone)
        throttled = {}
        if kind is not None and kind.throttle is not None and "throttle" not in asked.released:
            throttled = used_up(conn, asked.user_id, kind, outward, now_ms)
        return msgspec.structs.replace(
            base,
            devices=self._devices(conn, asked) if "push" in outward else (),
            addresses=addresses_of(conn, asked.user_id) if {"email", "sms"} & set(outward) else frozenset(),
            throttled=throttled,
            digest=digest,
            quiet=quiet,
            dnd_until=dnd_until,
            failover=_delays(kind, asked) if "failover" not in asked.released else {},
        )

    def _devices(self, conn: sqlite3.Connection, asked: PolicyQuery) -> list[Target]:
        only = None if asked.device_tokens is None else frozenset().union(*map(identities, asked.device_tokens))
        return [
            Target(seq, platform, identity == self.this_computer)
            for seq, identity, platform in targets_of(conn, asked.user_id)
            if only is None or identity in only
        ]


def _delays(kind: NotificationType | None, asked: PolicyQuery) -> dict[str, int]:
    """Channel → minutes."""
    stages = () if kind is None else kind.failover
    return {stage.channel: stage.after_minutes for stage in stages if stage.channel in asked.channels}
