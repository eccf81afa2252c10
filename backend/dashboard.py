"""Today's metrics for the dashboard, read from both files."""

from __future__ import annotations

from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.schemas.records import TodayMetrics
from flashflow.backend.store.analytics.user_metrics import today_notifications


class DashboardMetrics:
    """Metrics that need activities and notifications together."""

    def __init__(self, activity: UserActivityService, notifications: NotificationService) -> None:
        self._activity = activity
        self._notifications = notifications

    def today(self) -> TodayMetrics:
        """Return the metrics of the local day so far."""
        day, users, sessions, activities = self._activity.analytics.today()
        _, start, end = self._activity.analytics.today_bounds()
        made, delivered, read = self._notifications.store.read(lambda conn: today_notifications(conn, start, end))
        return TodayMetrics(
            day=day.isoformat(),
            zone=self._activity.analytics.zone.key,
            active_users=users,
            sessions=sessions,
            activities=activities,
            notifications=made,
            delivered=delivered,
            read=read,
        )
