"""The card “Your data” in Settings: sizes, rules and erasure."""

from __future__ import annotations

import asyncio

import flet as ft
import pytest

from flashflow.backend import Backend, PrivacySettings, RetentionSettings
from flashflow.backend.core.errors import Erased
from flashflow.views.settings import data_labels
from flashflow.views.settings.screen import Settings
from flashflow.views.shared.live import Live
from tests.support.control_tree import NOW, named, texts, walk

pytestmark = pytest.mark.anyio


def drawn(backend: Backend) -> ft.Control:
    live = Live(backend.bus, backend.me, asyncio.get_running_loop())
    screen = Settings(backend=backend, live=live, go=lambda _: None, wide=True, now=lambda: NOW)
    return screen.render(screen.load())


def whom(page: ft.Control) -> ft.TextField:
    return next(c for c in walk(page) if isinstance(c, ft.TextField) and c.label == "User id")


async def test_the_card_shows_location_sizes_and_rules(backend: Backend) -> None:
    backend.change_settings("retention", {"activities_days": 90, "max_mb": 500})
    backend.change_settings("privacy", {"mask_ip": True, "tracking": "consented"})
    found = texts(drawn(backend))
    assert str(backend.data_dir) in found
    assert "flashflow export activities.csv" in found
    rules = (
        "Keeps activities for 90 days and notifications without a time limit. "
        "Above 500 MB the oldest are deleted first. Metrics are kept."
    )
    assert rules in found
    assert "Stores activities of users who consented. IP addresses are masked before they are stored." in found


async def test_erasing_a_user_needs_a_confirmation_that_lists_the_effects(backend: Backend) -> None:
    backend.activity.track_activity("bob", "t")
    backend.notifications.send_notification("bob", "t", "m")
    page = drawn(backend)
    await named(page, "Erase a user").on_click(None)
    assert whom(page).error == "Enter a user id."
    whom(page).value = "bob"
    await named(page, "Erase a user").on_click(None)
    assert "Erase “bob”?" in texts(page)
    assert any("every backup" in text and "cannot be undone" in text for text in texts(page))
    assert backend.activity.list_activities(user_id="bob").activities
    await named(page, "Keep: bob").on_click(None)
    assert "Erase “bob”?" not in texts(page)
    await named(page, "Erase a user").on_click(None)
    await named(page, "Erase for good: bob").on_click(None)
    assert "“bob” was erased: 1 activity, 1 session and 1 notification and all related data." in texts(page)
    assert whom(page).value == ""
    with pytest.raises(Erased):
        backend.activity.track_activity("bob", "late")


def test_sizes_and_rules_as_text() -> None:
    assert [data_labels.size_text(n) for n in (1, 1023, 1024, 1536, 12 * 1024**2, 3 * 1024**5)] == [
        "1 byte", "1,023 bytes", "1 KB", "1.5 KB", "12 MB", "3,072 TB",
    ]  # fmt: skip
    assert data_labels.retention_text(RetentionSettings()) == "Keeps everything without a time limit."
    assert data_labels.tracking_text(PrivacySettings(tracking="none")).startswith("Stores no activities.")
    assert data_labels.erasure_text("bob", {"activities": 0}).startswith("Nothing was stored about “bob”.")
