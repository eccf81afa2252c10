"""Translation of the controls, and the handlers that a host app gives them."""

from __future__ import annotations

import ast
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flashflow.views.controls.badge import bell_name
from flashflow.views.controls.notification_row import PRIORITIES
from flashflow.views.controls.notification_settings import CHANNEL_LABELS, NotificationSettings, PreferenceChange
from flashflow.views.controls.relative_time import ago, exact, upcoming
from flashflow.views.controls.translation import TEXTS, Translation
from tests.support.control_tree import NOW, named, sample_notification, texts
from tests.views.test_controls import BUILDS, Choice, FakeInbox, FakeMatrix, FakePreferences, bell_over

CONTROLS = Path(__file__).parent.parent.parent / "views" / "controls"

pytestmark = pytest.mark.anyio


def keys_in_code() -> set[str]:
    """Every constant text that the controls translate: the first argument of ``t(…)`` and ``self._t(…)``."""
    found: set[str] = set()
    for path in CONTROLS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in ("t", "_t"):
                found |= {part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)}
    return {key for key in found if isinstance(key, str)}


def test_the_list_of_texts_has_every_text_of_the_controls() -> None:
    keys = keys_in_code()
    assert len(keys) > 40
    assert keys - set(TEXTS) == set()
    # Texts that reach the translation in a variable: channels, priorities, states, days, months, reasons, constants.
    assert len(set(TEXTS)) == len([text for text in TEXTS if text != "May"]) + 1, "only “May” stands twice"
    assert {*CHANNEL_LABELS.values(), *(word for word, _, _ in PRIORITIES.values())} <= set(TEXTS)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"View everything": "Alles"}, "The controls have no text 'View everything'"),
        ({"{count} min ago": "vor {minutes} min"}, "has {minutes}, which the text has not"),
        ({"{count} min ago": "vor {count.real} min"}, "Write a name in braces"),
        ({"{count} min ago": "vor {0} min"}, "Write a name in braces"),
        ({"{count} min ago": "vor {count min"}, "expected '}'"),
    ],
)
def test_a_wrong_translation_is_refused_when_the_control_is_made(texts: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Translation(texts)


def test_times_and_names_are_translated() -> None:
    t = Translation(
        {
            "{count} min ago": "vor {count} min",
            "tomorrow": "morgen",
            "{day} {month} {year}": "{day}. {month} {year}",
            "{weekday} {day} {month} {year}, {time}": "{weekday}, {day}. {month} {year}, {time}",
            "Sunday": "Sonntag",
            "Notifications, {unread:,} unread": "Mitteilungen, {unread} ungelesen",
        }
    )
    assert ago(NOW - timedelta(minutes=4), NOW, t) == "vor 4 min"
    assert upcoming(NOW + timedelta(days=1), NOW, t).startswith("morgen, ")
    assert ago(NOW.replace(year=2020, month=3, day=1), NOW, t) == "1. Mar 2020"
    assert exact(NOW.replace(year=2026, month=11, day=22), NOW, t).startswith("Sonntag, 22. November 2026, ")
    assert bell_name(3, t=t) == "Mitteilungen, 3 ungelesen"


async def test_the_bell_speaks_the_host_apps_language() -> None:
    words = {
        "View all": "Alle anzeigen", "Mark all read": "Alle gelesen", "{title}, {state}, from {app}": "{app}: {title}",
        "Do not disturb 1 h": "1 h Ruhe", "{count} min ago": "vor {count} min", "Urgent": "Dringend",
    }  # fmt: skip
    source = FakeInbox([sample_notification(1, priority="urgent")])
    bell = await bell_over(source, texts=words)
    panel = bell.panel_content()
    assert {"Alle anzeigen", "Alle gelesen", "1 h Ruhe", "vor 1 min", "Dringend"} <= set(texts(panel))
    assert named(panel, "ci: Build 1") is not None


async def test_the_settings_speak_the_host_apps_language() -> None:
    off = FakeMatrix((Choice("*", "sms", False),), (BUILDS,))
    words = {"E-mail": "Post", "Off for all": "Für alle aus", "All notifications": "Alle", "How often": "Wie oft"}
    settings = NotificationSettings(source=FakePreferences(off), texts=words, wide=True)
    await settings.refresh()
    assert {"Post", "Für alle aus", "Alle", "Wie oft", "SMS"} <= set(texts(settings))


async def test_braces_in_the_texts_of_callers_are_shown_as_they_are() -> None:
    hostile = sample_notification(1, title="{0.__class__}", app="{count}")
    bell = await bell_over(FakeInbox([hostile]))
    assert named(bell.panel_content(), "{0.__class__}, unread, from {count}") is not None
    matrix = FakeMatrix(types=(BUILDS,))
    settings = NotificationSettings(source=FakePreferences(matrix), labels={"{x}": "{x}", **CHANNEL_LABELS})
    await settings.refresh()


async def test_the_bell_reports_reading_and_counts() -> None:
    source = FakeInbox([sample_notification(1), sample_notification(2), sample_notification(3, inbox="read")])
    read: list[Any] = []
    counts: list[int] = []

    async def on_change(unread: int) -> None:
        counts.append(unread)

    bell = await bell_over(source, on_mark_read=read.append, on_change=on_change)
    await named(bell.panel_content(), "Build 1, unread, from ci").on_click(None)
    await bell.refresh()
    await bell.refresh()
    await bell.mark_all()
    await bell.refresh()
    assert [tuple(ids) for ids in read] == [("n1",), ("n2",)]
    assert counts == [2, 1, 0]
    source.broken = True
    await bell.mark_all()
    assert len(read) == 2, "nothing was marked"


async def test_the_settings_report_what_was_saved() -> None:
    saved: list[PreferenceChange] = []
    source = FakePreferences(FakeMatrix(types=(BUILDS,)))
    settings = NotificationSettings(source=source, on_change=saved.append)
    await settings.refresh()
    await settings.choose("builds", "sms", False)
    await settings.choose_digest("builds", "daily", "08:00")
    await settings.choose_digest("builds", None, None)
    await settings.mark_critical("builds", True)
    source.broken = True
    await settings.choose("builds", "sms", True)
    assert saved == [
        PreferenceChange("builds", "sms", False),
        PreferenceChange("builds", "digest", "daily 08:00"),
        PreferenceChange("builds", "digest", None),
        PreferenceChange("builds", "critical", True),
    ]


async def test_a_handler_that_fails_does_not_break_the_bell(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("the host's own")

    source = FakeInbox([sample_notification(1)])
    bell = await bell_over(source, on_change=fail)
    assert bell.unread == 1
    assert "a handler of the host app failed" in caplog.text


async def test_a_bell_without_a_place_for_the_list_has_no_button_to_it() -> None:
    bell = await bell_over(FakeInbox([sample_notification(1)]), open_all=None)
    assert "View all" not in texts(bell.panel_content())
