"""Build the configured channels and their route queues; rebuild them when the settings change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flashflow.backend.core.clock import Clock
from flashflow.backend.delivery.back_off import BackOff
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.domain.channel import BaseChannel, Health
from flashflow.backend.schemas.records import Record
from flashflow.backend.settings import model
from flashflow.backend.settings.model import ChannelSettings, DeliverySettings, Settings

VAPID_FILE = "vapid.pem"
DESKTOP_AT_ONCE = 2

LABELS = {
    "in_app": "In app",
    "desktop": "This computer",
    "email": "E-mail",
    "sms": "SMS",
    "fcm": "Android (FCM)",
    "apns": "iPhone and iPad (APNs)",
    "webpush": "Browsers (Web Push)",
}
"""Label of each built-in route; routes through Apprise are named in the settings."""


class ChannelState(Record, frozen=True, kw_only=True):
    """Whether a channel works on this machine now, and if not, why."""

    name: str
    label: str
    works: bool
    detail: str


class ChannelRegistry:
    """Channels and route queues by route; a channel is rebuilt only when its settings change.

    ``desktop``: the channel of this computer. ``data_dir``: folder of the Web Push key.
    """

    def __init__(self, data_dir: Path, clock: Clock, desktop: BaseChannel) -> None:
        self._data_dir = data_dir
        self._clock = clock
        self._desktop = desktop
        self._built: dict[str, tuple[Any, RouteQueue]] = {}
        """Route → what its channel was made of, and its queue."""

    @property
    def route_queues(self) -> Mapping[str, RouteQueue]:
        """Route queues by route, as last built."""
        return {route: route_queue for route, (_, route_queue) in self._built.items()}

    def build(self, settings: Settings) -> Mapping[str, RouteQueue]:
        """Return a route queue for each configured channel. A channel with unchanged settings stays the same object."""
        built = {}
        for route, table in _tables(settings).items():
            made_of = (table, settings.allow_hosts) if route == "webpush" else (table,)
            known = self._built.get(route)
            back_off = back_off_of(table, settings.delivery)
            if known is not None and known[0] == made_of:
                known[1].back_off = back_off
                built[route] = known
                continue
            here = route == "desktop"
            route_queue = RouteQueue(
                self._channel(route, table, settings.allow_hosts),
                connections=min(table.connections, DESKTOP_AT_ONCE) if here else table.connections,
                ahead=0 if here else table.connections,
                rate_per_second=table.rate_per_second,
                back_off=back_off,
            )
            built[route] = (made_of, route_queue)
        self._built = built
        return self.route_queues

    def states(self, missing: str = "Not configured.") -> tuple[ChannelState, ...]:
        """Return the state of every channel. Probes the desktop, so it may block for seconds.

        ``missing``: ``detail`` of the channels that were not built.
        """
        route_queues = self.route_queues
        states = [ChannelState(name="in_app", label=LABELS["in_app"], works=True, detail="The inbox in this window.")]
        for route in dict.fromkeys((*LABELS, *route_queues)):
            if route == "in_app":
                continue
            route_queue = route_queues.get(route)
            health = Health(works=False, detail=missing) if route_queue is None else route_queue.channel.health()
            states.append(
                ChannelState(name=route, label=LABELS.get(route, route), works=health.works, detail=health.detail)
            )
        return tuple(states)

    def _channel(self, route: str, table: ChannelSettings, allow_hosts: Sequence[str]) -> BaseChannel:
        # Imports are local: httpx and cryptography take 30 MiB that an app without these channels need not pay.
        made: BaseChannel
        match table:
            case model.DesktopSettings():
                made = self._desktop
            case model.EmailSettings():
                from flashflow.backend.delivery.email.channel import EmailChannel

                made = EmailChannel(table, self._clock)
            case model.SmsSettings():
                from flashflow.backend.delivery.sms import SmsChannel

                made = SmsChannel(table, self._clock)
            case model.FcmSettings():
                from flashflow.backend.delivery.push.fcm import FcmChannel

                made = FcmChannel(table, self._clock)
            case model.ApnsSettings():
                from flashflow.backend.delivery.push.apns import ApnsChannel

                made = ApnsChannel(table, self._clock)
            case model.WebPushSettings():
                from flashflow.backend.delivery.net.ssrf_guard import SsrfGuard
                from flashflow.backend.delivery.push.webpush import WebPushChannel

                key_path = self._data_dir / VAPID_FILE
                made = WebPushChannel(table, self._clock, key_path=key_path, ssrf_guard=SsrfGuard(allow_hosts))
            case _:
                from flashflow.backend.delivery.apprise import AppriseChannel

                assert isinstance(table, model.AppriseSettings)
                made = AppriseChannel(route, table, self._clock)
        return made


def _tables(settings: Settings) -> dict[str, ChannelSettings]:
    """Return the settings of each configured channel by route."""
    push = settings.push
    tables: dict[str, ChannelSettings | None] = {
        "desktop": push.desktop,
        "email": settings.email,
        "sms": settings.sms,
        "fcm": push.fcm,
        "apns": push.apns,
        "webpush": push.webpush,
        **settings.others,
    }
    return {route: table for route, table in tables.items() if table is not None}


def back_off_of(channel: ChannelSettings, delivery: DeliverySettings) -> BackOff:
    """Merge a channel's back-off settings with the defaults of ``[delivery]``.

    If the channel sets one of the two delays and it conflicts with the default of the other, the channel's own wins.
    """
    base = delivery.base_delay if channel.base_delay is None else channel.base_delay
    longest = delivery.max_delay if channel.max_delay is None else channel.max_delay
    if channel.base_delay is None:
        base = min(base, longest)
    end = delivery.give_up_after if channel.give_up_after is None else channel.give_up_after
    return BackOff(base_s=base, max_s=max(base, longest), give_up_after_s=end, max_tries=delivery.max_attempts)
