"""“Send a test”: deliver one test message through one channel at once and return its outcome.

Nothing is stored, except by the test of the inbox: that is an ordinary notification.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping

from flashflow.backend.core.errors import Conflict, NotFound
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome
from flashflow.backend.domain.delivery_policy import SYSTEMS
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.schemas.records import Record, Sent
from flashflow.backend.store.notifications.delivery_settings import contact_of
from flashflow.backend.store.notifications.devices import active_devices

TITLE = "A test from FlashFlow"
MESSAGE = "If you can read this, the channel works."
TYPE = "flashflow.test"
TIMEOUT_S = 45.0
"""Longest time a channel may take for a test: an HTTP request waits for the result."""

Address = tuple[str | None, str | None, int | None]
"""Target, platform, and registration time in milliseconds since 1970."""


class ChannelTest(Record, frozen=True, kw_only=True):
    """The outcome of a test on one target (a platform or the channel itself)."""

    channel: str
    target: str
    outcome: str
    code: str
    text: str


class ChannelTester:
    """Send tests through the configured channels.

    ``route_queues`` returns the queues configured now by route.
    """

    def __init__(
        self, notifications: NotificationService, route_queues: Callable[[], Mapping[str, RouteQueue]]
    ) -> None:
        self._notifications = notifications
        self._route_queues = route_queues

    def send_test(self, channel: str, user_id: str) -> tuple[ChannelTest, ...]:
        """Test ``channel`` (or one route of push) on every target of ``user_id``; block until the providers answer.

        Raises NotFound where the channel is not configured, Conflict where the user has no address for it.
        """
        if channel == "in_app":
            sent = self._notifications.send_notification(
                user_id, TITLE, MESSAGE, notification_type=TYPE, channel=channel, app="flashflow"
            )
            return (_inbox_result(sent),)
        queues = self._route_queues()
        routes = [route for route in (SYSTEMS.values() if channel == "push" else [channel]) if route in queues]
        if not routes:
            raise NotFound(f"The channel {channel!r} is not configured.")
        found = self._notifications.store.read(
            lambda conn: [(route, self._addresses(conn, route, user_id)) for route in routes]
        )
        tests = [self._test(route, queues[route], user_id, address) for route, there in found for address in there]
        if not tests:
            raise Conflict(f"The user {user_id!r} has no address for this channel.")
        return tuple(tests)

    def _addresses(self, conn: sqlite3.Connection, route: str, user_id: str) -> list[Address]:
        if route in {"email", "sms"}:
            contact = contact_of(conn, user_id)
            found = None if contact is None else contact.email if route == "email" else contact.phone
            return [] if found is None else [(found, None, None)]
        if route not in SYSTEMS.values():
            return [(None, None, None)]
        return [
            (device.token, device.platform, device.updated_at)
            for device in active_devices(conn, user_id)
            if self._uses_route(route, device.token, device.platform)
        ]

    def _uses_route(self, route: str, token: str, platform: str) -> bool:
        """Whether pushes to this device take that route, by the rules of ``domain.delivery_policy``."""
        if platform == "ios" and "apns" not in self._route_queues():
            return route == "fcm"
        if platform == "desktop" and token != self._notifications.policy_inputs.this_computer:
            return False
        return SYSTEMS.get(platform) == route

    def _test(self, route: str, queue: RouteQueue, user_id: str, address: Address) -> ChannelTest:
        target, platform, registered_at = address
        outcome: Outcome = queue.channel.send(
            DeliveryMessage(
                delivery_id=self._notifications.new_id(),
                notification_id=self._notifications.new_id(),
                user_id=user_id,
                app="flashflow",
                title=TITLE,
                message=MESSAGE,
                priority="normal",
                target=target,
                platform=platform,
                registered_at=registered_at,
                notification_type=TYPE,
                created_at=self._notifications.clock.now_ms(),
                time_limit_s=TIMEOUT_S,
            )
        )
        return ChannelTest(
            channel=route,
            target=platform or route,
            outcome=outcome.outcome,
            code=outcome.code,
            text=outcome.text,
        )


def _inbox_result(sent: Sent) -> ChannelTest:
    """The outcome of a test of the inbox."""
    (delivery,) = sent.deliveries
    arrived = delivery.status == "delivered"
    return ChannelTest(
        channel="in_app",
        target="in_app",
        outcome="delivered" if arrived else "permanent",
        code=delivery.code or "stored",
        text=delivery.reason or "It is in the inbox.",
    )
