"""Notices as the outbox hands them to a channel."""

from __future__ import annotations

from typing import Any

from flashflow.backend.domain.delivery_messages import DeliveryMessage


def notice(title: str = "Build finished", message: str = "All 312 tests passed", **changes: Any) -> DeliveryMessage:
    fields = {"delivery_id": "d1", "notification_id": "n1", "user_id": "ada", "app": "ci", "priority": "normal"}
    return DeliveryMessage(**{**fields, "title": title, "message": message, "target": None, **changes})
