"""The desktop channel where no notification daemon confirms: Windows, macOS, phones, and before first use."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.delivery.desktop.channel import DesktopChannel
from tests.support.notices import notice


class Plyer:
    """Stands in for plyer's Windows and macOS backends, and like the Windows one works in a thread of its own."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.daemons: list[bool] = []

    def __call__(self, system: str) -> Plyer:
        return self

    def notify(self, **words: Any) -> None:
        self.told.append(words)
        thread = threading.Thread(target=lambda: self.daemons.append(threading.current_thread().daemon))
        thread.start()
        thread.join()


def test_on_windows_a_long_notice_is_cut_to_what_windows_takes_and_called_sent() -> None:
    plyer = Plyer()
    sending = DesktopChannel(platform="win32", plyer=plyer)
    outcome = sending.send(notice("t" * 300, "🚀" * 300))
    (told,) = plyer.told
    assert (outcome.outcome, outcome.code) == ("sent", "handed_over")
    assert told["title"] == "t" * 62 + "…"
    assert told["message"] == "🚀" * 127 + "…"
    assert len(told["message"].encode("utf-16-le")) // 2 <= 256


def test_on_windows_a_short_notice_is_left_whole() -> None:
    plyer = Plyer()
    DesktopChannel(platform="win32", plyer=plyer).send(notice("--version", "<b>It's</b>"))
    assert (plyer.told[0]["title"], plyer.told[0]["message"]) == ("--version", "<b>It's</b>")


def test_a_thread_that_plyer_starts_cannot_hold_up_the_end_of_the_process() -> None:
    plyer = Plyer()
    DesktopChannel(platform="win32", plyer=plyer).send(notice())
    assert plyer.daemons == [True]


def test_on_macos_a_missing_pyobjus_is_said_in_words() -> None:
    def missing(system: str) -> Any:
        raise ImportError("No module named 'pyobjus'")

    sending = DesktopChannel(platform="darwin", plyer=missing)
    outcome = sending.send(notice())
    assert (outcome.outcome, outcome.code) == ("permanent", "needs_pyobjus")
    assert outcome.text == sending.health().detail
    assert "pyobjus" in outcome.text


@pytest.mark.parametrize(
    ("platform", "code"), [("android", "not_on_phones"), ("ios", "not_on_phones"), ("aix", "unsupported_platform")]
)
def test_where_there_is_no_desktop_of_ours_it_is_permanent(platform: str, code: str) -> None:
    sending = DesktopChannel(platform=platform)
    outcome = sending.send(notice())
    assert (outcome.outcome, outcome.code) == ("permanent", code)
    assert not sending.health().works
    assert not sending.dismiss("n1")


def test_importing_the_channel_costs_no_library() -> None:
    program = (
        "import sys, flashflow.backend.delivery.desktop.channel\n"
        "print([m for m in ('plyer', 'jeepney') if m in sys.modules])"
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
