"""“Send a test”: one notice through one channel, now, with the outcome as the channel gave it.

Nothing is stored, but for what the inbox is tested with: that is a notification like any other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.errors import Conflict, NotFound
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome
from flashflow.backend.domain.delivery_policy import SYSTEMS
from flashflow.backend.schemas.records import Record, Sent
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.notifications.delivery_settings import contact_of

TITLE = "A test from FlashFlow"
MESSAGE = "If you can read this, the channel works."
TYPE = "flashflow.test"
PATIENCE_S = 45.0
"""How long a test may take where a channel would wait longer: a request waits for it."""

Address = tuple[str | None, str | None, int | None]
"""Target, platform, and when it was registered in ms."""
Tell = Callable[..., Sent]
"""``send_notification``: stores a notification for a user."""


class ChannelTest(Record, frozen=True, kw_only=True):
    """What became of a test, to one target (a platform or the channel itself)."""

    channel: str
    target: str
    outcome: str
    code: str
    text: str


class ChannelTester:
    """``lanes`` gives the channels as they are configured now, ``this_computer`` the token of the device that this
    process runs on, once it is registered."""

    def __init__(
        self,
        store: Store,
        lanes: Callable[[], Mapping[str, RouteQueue]],
        clock: Clock,
        new_id: Callable[[], str],
        *,
        tell: Tell,
        this_computer: Callable[[], str | None],
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._clock = clock
        self._new_id = new_id
        self._tell = tell
        self._this_computer = this_computer

    def send_test(self, channel: str, user_id: str) -> tuple[ChannelTest, ...]:
        """Test ``channel`` (or one route of push) on every target that ``user_id`` has there; takes as long as the
        providers do. Raises NotFound where it is not configured, Conflict where the user has no address for it."""
        if channel == "in_app":
            sent = self._tell(user_id, TITLE, MESSAGE, notification_type=TYPE, channel=channel, app="flashflow")
            return (_told(sent),)
        lanes = self._lanes()
        routes = [route for route in (SYSTEMS.values() if channel == "push" else [channel]) if route in lanes]
        if not routes:
            raise NotFound(f"The channel {channel!r} is not configured.")
        found = self._store.read(lambda conn: [(route, self._addresses(conn, route, user_id)) for route in routes])
        trials = [self._try(route, lanes[route], user_id, address) for route, there in found for address in there]
        if not trials:
            raise Conflict(f"The user {user_id!r} has no address for this channel.")
        return tuple(trials)

    def _addresses(self, conn: sqlite3.Connection, route: str, user_id: str) -> list[Address]:
        if route in {"email", "sms"}:
            contact = contact_of(conn, user_id)
            found = None if contact is None else contact.email if route == "email" else contact.phone
            return [] if found is None else [(found, None, None)]
        if route not in SYSTEMS.values():
            return [(None, None, None)]
        devices = conn.execute(
            "SELECT token, platform, updated_at FROM device_tokens WHERE user_id = ? AND is_active",
            (user_id,),
        )
        return [
            (token, platform, registered_at)
            for token, platform, registered_at in devices
            if self._goes_by(route, token, platform)
        ]

    def _goes_by(self, route: str, token: str, platform: str) -> bool:
        """Whether this device is reached by that route, by the resolver's rules."""
        if platform == "ios" and "apns" not in self._lanes():
            return route == "fcm"
        if platform == "desktop" and token != self._this_computer():
            return False
        return SYSTEMS.get(platform) == route

    def _try(self, route: str, lane: RouteQueue, user_id: str, address: Address) -> ChannelTest:
        target, platform, registered_at = address
        outcome: Outcome = lane.channel.send(
            DeliveryMessage(
                delivery_id=self._new_id(),
                notification_id=self._new_id(),
                user_id=user_id,
                app="flashflow",
                title=TITLE,
                message=MESSAGE,
                priority="normal",
                target=target,
                platform=platform,
                registered_at=registered_at,
                notification_type=TYPE,
                created_at=self._clock.now_ms(),
                patience_s=PATIENCE_S,
            )
        )
        return ChannelTest(
            channel=route,
            target=platform or route,
            outcome=outcome.outcome,
            code=outcome.code,
            text=outcome.text,
        )


def _told(sent: Sent) -> ChannelTest:
    """What became of the test in the inbox."""
    (stands,) = sent.deliveries
    arrived = stands.status == "delivered"
    return ChannelTest(
        channel="in_app",
        target="in_app",
        outcome="delivered" if arrived else "permanent",
        code=stands.code or "stored",
        text=stands.reason or "It is in the inbox.",
    )
