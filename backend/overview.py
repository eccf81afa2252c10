"""The dashboard's figures and the machine's abilities, over both files."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from backend.delivery.channel import BaseChannel
from backend.notification_service import NotificationService
from backend.records import TodayFigures
from backend.store.user_figures import today_notifications
from backend.user_activity_service import UserActivityService


class ChannelState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a channel works on this machine now, and in words why not."""

    name: str
    label: str
    works: bool
    detail: str


class Overview:
    """Questions that need activities and notifications together."""

    def __init__(
        self, activity: UserActivityService, notifications: NotificationService, channels: Mapping[str, BaseChannel]
    ) -> None:
        self._activity = activity
        self._notifications = notifications
        self._channels = channels

    def today(self) -> TodayFigures:
        """The local day so far."""
        day, users, sessions, activities = self._activity.analytics.today()
        _, start, end = self._activity.analytics.today_bounds()
        made, delivered, read = self._notifications.store.read(lambda conn: today_notifications(conn, start, end))
        return TodayFigures(
            day=day.isoformat(),
            zone=self._activity.analytics.zone.key,
            active_users=users,
            sessions=sessions,
            activities=activities,
            notifications=made,
            delivered=delivered,
            read=read,
        )

    def channel_states(self) -> tuple[ChannelState, ...]:
        """Channel by channel; probes, so it may take a moment."""
        computer = self._channels["push"].health()
        return (
            ChannelState(name="in_app", label="In app", works=True, detail="The inbox in this window."),
            ChannelState(name="desktop", label="This computer", works=computer.works, detail=computer.detail),
            ChannelState(name="email", label="E-mail", works=False, detail="Not configured."),
            ChannelState(name="sms", label="SMS", works=False, detail="Not configured."),
            ChannelState(name="push", label="Push to phones", works=False, detail="Not configured."),
        )
