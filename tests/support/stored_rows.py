"""Rows as a file has them, read by the models."""

from __future__ import annotations

from flashflow.backend import UserActivityService
from flashflow.backend.store.activity.models import UserAnalytics


def stored_metrics(service: UserActivityService, user_id: str) -> UserAnalytics:
    """The stored counters and metrics of a user."""
    with service.store.database.bind_ctx([UserAnalytics]):
        return UserAnalytics.get_by_id(user_id)
