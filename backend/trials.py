"""“Send a test”: one notice through one channel, now, with the outcome as the channel gave it. Nothing is stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping

from backend.clock import Clock
from backend.delivery.lane import Lane
from backend.delivery.resolver import SYSTEMS
from backend.errors import Conflict, NotFound
from backend.handover import Notice, Outcome
from backend.records import Record
from backend.store.circumstances import contact_of
from backend.store.database import Store

Address = tuple[str | None, str | None, int | None]
"""Target, platform, and when it was registered in ms."""


class Trial(Record, frozen=True, kw_only=True):
    """What became of a test, to one target (a platform or the channel itself)."""

    channel: str
    target: str
    outcome: str
    code: str
    text: str


class Trials:
    """``lanes`` gives the channels as they are configured now."""

    def __init__(
        self, store: Store, lanes: Callable[[], Mapping[str, Lane]], clock: Clock, new_id: Callable[[], str]
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._clock = clock
        self._new_id = new_id

    def send_test(self, route: str, user_id: str) -> tuple[Trial, ...]:
        """Test ``route`` on every target that ``user_id`` has there; takes as long as the provider does. Raises
        NotFound where the channel is not configured, Conflict where the user has no address for it."""
        lane = self._lanes().get(route)
        if lane is None:
            raise NotFound(f"The channel {route!r} is not configured.")
        addresses = self._store.read(lambda conn: _addresses(conn, route, user_id))
        if not addresses:
            raise Conflict(f"The user {user_id!r} has no address for this channel.")
        return tuple(self._try(route, lane, user_id, address) for address in addresses)

    def _try(self, route: str, lane: Lane, user_id: str, address: Address) -> Trial:
        target, platform, registered_at = address
        outcome: Outcome = lane.channel.send(
            Notice(
                delivery_id=self._new_id(),
                notification_id=self._new_id(),
                user_id=user_id,
                app="flashflow",
                title="A test from FlashFlow",
                message="If you can read this, the channel works.",
                priority="normal",
                target=target,
                platform=platform,
                registered_at=registered_at,
                notification_type="flashflow.test",
                created_at=self._clock.now_ms(),
            )
        )
        return Trial(
            channel=route,
            target=platform or route,
            outcome=outcome.outcome,
            code=outcome.code,
            text=outcome.text,
        )


def _addresses(conn: sqlite3.Connection, route: str, user_id: str) -> list[Address]:
    if route in {"email", "sms"}:
        contact = contact_of(conn, user_id)
        found = None if contact is None else contact.email if route == "email" else contact.phone
        return [] if found is None else [(found, None, None)]
    platforms = [platform for platform, system in SYSTEMS.items() if system == route]
    if not platforms:
        return [(None, None, None)]
    return conn.execute(
        "SELECT token, platform, updated_at FROM device_tokens WHERE user_id = ? AND is_active AND platform = ?",
        (user_id, platforms[0]),
    ).fetchall()
