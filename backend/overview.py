"""The dashboard's figures, over both files."""

from __future__ import annotations

from backend.notification_service import NotificationService
from backend.records import TodayFigures
from backend.store.user_figures import today_notifications
from backend.user_activity_service import UserActivityService


class Overview:
    """Questions that need activities and notifications together."""

    def __init__(self, activity: UserActivityService, notifications: NotificationService) -> None:
        self._activity = activity
        self._notifications = notifications

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
