"""Another workspace time zone for an open service."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from flashflow.backend import UserActivityService


def use_zone(service: UserActivityService, name: str) -> None:
    """Let ``service`` go on as if it had been opened in that time zone."""
    service.local.__init__(ZoneInfo(name))  # type: ignore[misc]
    service.rollups.apply_zone()
