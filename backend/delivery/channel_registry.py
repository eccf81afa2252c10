"""Build the configured channels and their route queues; rebuild them when the settings change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flashflow.backend.core.clock import Clock
from flashflow.backend.delivery.back_off import BackOff
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.domain.channel import BaseChannel, Health
from flashflow.backend.schemas.records import Record
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
        self._route_queues: dict[str, RouteQueue] = {}

    @property
    def route_queues(self) -> Mapping[str, RouteQueue]:
        """Route queues by route, as last built."""
        return self._route_queues

    def build(self, settings: Settings) -> Mapping[str, RouteQueue]:
        """Return a route queue for each configured channel. A channel with unchanged settings stays the same object."""
        wanted: dict[str, tuple[Any, ChannelSettings, Callable[[], BaseChannel]]] = {}
        push = settings.push
        wanted["desktop"] = (push.desktop, push.desktop, lambda: self._desktop)
        if settings.email is not None:
            wanted["email"] = (settings.email, settings.email, lambda: self._email(settings))
        if settings.sms is not None:
            wanted["sms"] = (settings.sms, settings.sms, lambda: self._sms(settings))
        if push.fcm is not None:
            wanted["fcm"] = (push.fcm, push.fcm, lambda: self._fcm(settings))
        if push.apns is not None:
            wanted["apns"] = (push.apns, push.apns, lambda: self._apns(settings))
        if push.webpush is not None:
            made_of = (push.webpush, settings.allow_hosts)
            wanted["webpush"] = (made_of, push.webpush, lambda: self._webpush(settings))
        for name, other in settings.others.items():
            wanted[name] = (other, other, lambda name=name: self._apprise(name, settings))  # type: ignore[misc]
        built = {}
        for route, (made_of, limits, make) in wanted.items():
            known = self._built.get(route)
            back_off = back_off_of(limits, settings.delivery)
            if known is not None and known[0] == made_of:
                known[1].back_off = back_off
                built[route] = known
                continue
            here = route == "desktop"
            route_queue = RouteQueue(
                make(),
                connections=min(limits.connections, DESKTOP_AT_ONCE) if here else limits.connections,
                ahead=0 if here else limits.connections,
                rate_per_second=limits.rate_per_second,
                back_off=back_off,
            )
            built[route] = (made_of, route_queue)
        self._built = built
        self._route_queues = {route: route_queue for route, (_, route_queue) in built.items()}
        return self._route_queues

    def states(self, missing: str = "Not configured.") -> tuple[ChannelState, ...]:
        """Return the state of every channel. Probes the desktop, so it may block for seconds.

        ``missing``: ``detail`` of the channels that were not built.
        """
        route_queues = dict(self._route_queues)
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

    # Imports are local: httpx and cryptography take 30 MiB that an app without these channels need not pay.

    def _email(self, settings: Settings) -> BaseChannel:
        from flashflow.backend.delivery.email.channel import EmailChannel

        assert settings.email is not None
        return EmailChannel(settings.email, self._clock)

    def _sms(self, settings: Settings) -> BaseChannel:
        from flashflow.backend.delivery.sms.channel import SmsChannel

        assert settings.sms is not None
        return SmsChannel(settings.sms, self._clock)

    def _fcm(self, settings: Settings) -> BaseChannel:
        from flashflow.backend.delivery.push.fcm import FcmChannel

        assert settings.push.fcm is not None
        return FcmChannel(settings.push.fcm, self._clock)

    def _apns(self, settings: Settings) -> BaseChannel:
        from flashflow.backend.delivery.push.apns import ApnsChannel

        assert settings.push.apns is not None
        return ApnsChannel(settings.push.apns, self._clock)

    def _webpush(self, settings: Settings) -> BaseChannel:
        from flashflow.backend.delivery.net.ssrf_guard import SsrfGuard
        from flashflow.backend.delivery.push.webpush import WebPushChannel

        assert settings.push.webpush is not None
        ssrf_guard = SsrfGuard(settings.allow_hosts)
        return WebPushChannel(
            settings.push.webpush, self._clock, key_path=self._data_dir / VAPID_FILE, ssrf_guard=ssrf_guard
        )  # fmt: skip

    def _apprise(self, name: str, settings: Settings) -> BaseChannel:
        from flashflow.backend.delivery.apprise import AppriseChannel

        return AppriseChannel(name, settings.others[name], self._clock)


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
