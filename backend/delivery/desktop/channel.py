"""Desktop channel: native toasts on this computer.

On Linux the notification daemon confirms each toast, so the result is "delivered" (see ``linux.py``). On Windows and
macOS plyer hands the toast to the system without a confirmation: "sent".
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flashflow.backend.core.deadline import DeadlineCalls, Reason
from flashflow.backend.delivery.net.text import APP_NAME, cut, lines, one_line
from flashflow.backend.domain.channel import BaseChannel, ChannelError, Permanent, Transient
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome

if TYPE_CHECKING:
    from flashflow.backend.delivery.desktop.signals import OnAction

log = logging.getLogger(__name__)

WINDOWS_TITLE = 63
WINDOWS_MESSAGE = 255
"""UTF-16 units in NOTIFYICONDATAW without the NUL; with more, plyer raises in a thread of its own."""
WINDOWS_SHOWN_S = 10

Plyer = Callable[[str], Any]
"""Return plyer's notification facade for ``win`` or ``macosx``. Raises ImportError if a dependency is missing."""


class Native(Protocol):
    """Native toasts of one platform. Calls come one at a time and raise a ChannelError on failure."""

    def show(self, notification: DeliveryMessage) -> Outcome: ...
    def dismiss(self, notification_id: str) -> bool: ...
    def probe(self) -> str: ...
    def close(self) -> None: ...


class DesktopChannel(BaseChannel):
    """Show notifications as toasts on this computer. Thread-safe.

    ``deadline_s``: seconds for one native call. ``platform``: as in ``sys.platform``. ``on_action``: called in a thread
    of its own when a toast was clicked, with the notification's id and the link of the button (http or https), or None
    for the toast itself; Linux only.
    """

    name = "desktop"

    def __init__(
        self,
        *,
        environ: Mapping[str, str] | None = None,
        platform: str | None = None,
        deadline_s: float = 5.0,
        icon: Path | None = None,
        plyer: Plyer | None = None,
        on_action: OnAction | None = None,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._platform = platform or _this_platform()
        self._icon = icon
        self._plyer = plyer or _plyer_facade
        self._on_action = on_action
        self._deadline_s = deadline_s
        self._calls = DeadlineCalls(deadline_s, "desktop-toast", self._no_answer)
        self._native: Native | None = None
        self._closed = False

    def dismiss(self, notification_id: str) -> bool:
        """Dismiss this notification's toast; return whether one was dismissed. Never raises."""
        try:
            return self._calls.run(lambda: self._opened().dismiss(notification_id))
        except ChannelError as error:
            log.info("a toast was not dismissed: %s", error.text)
        except Exception:
            log.exception("a toast was not dismissed")
        return False

    def close(self) -> None:
        """Close the session bus, interrupting a call in progress. Later sends fail as ``stopping``."""
        self._closed = True
        self._close_native()
        if not self._calls.wait_until_idle(1.0):
            log.warning("a native toast call still hangs; its thread ends with the process")
        self._close_native()

    def _send(self, notification: DeliveryMessage) -> Outcome:
        return self._calls.run(lambda: self._opened().show(notification))

    def _probe(self) -> str:
        return self._calls.run(lambda: self._opened().probe())

    def _opened(self) -> Native:
        if self._closed:
            raise Transient("stopping", "FlashFlow is stopping.")
        if self._native is None:
            self._native = self._open()
        return self._native

    def _no_answer(self, reason: Reason) -> Transient:
        if reason == "timeout":
            return Transient(reason, f"The desktop did not answer within {self._deadline_s:g} seconds.")
        return Transient(reason, "The desktop has not answered the previous call yet.")

    def _open(self) -> Native:
        if self._platform in ("android", "ios"):
            raise Permanent("not_on_phones", "On a phone the app itself shows notifications, not this channel.")
        if self._platform == "linux":
            from flashflow.backend.delivery.desktop.linux import LinuxNotification

            return LinuxNotification(self._environ, icon=self._icon, on_action=self._on_action)
        if self._platform in ("win32", "darwin"):
            return PlyerDesktop(self._platform, self._icon, self._plyer)
        raise Permanent("unsupported_platform", f"FlashFlow cannot show native notifications on {self._platform}.")

    def _close_native(self) -> None:
        if self._native is not None:
            self._native.close()


class PlyerDesktop:
    """Toasts on Windows and macOS through plyer, without a confirmation.

    On Windows plyer shows the toast from a thread of its own for ``timeout`` seconds. That thread inherits the daemon
    flag, so calls from a daemon thread cannot delay the end of the process.
    """

    def __init__(self, platform: str, icon: Path | None, plyer: Plyer) -> None:
        self._windows = platform == "win32"
        self._facade = self._load(plyer)
        usable = icon is not None and icon.is_file() and (icon.suffix.lower() == ".ico" or not self._windows)
        self._icon = str(icon) if usable else ""

    def show(self, notification: DeliveryMessage) -> Outcome:
        title, message = one_line(notification.title) or APP_NAME, lines(notification.message).strip()
        if self._windows:
            title, message = cut(title, WINDOWS_TITLE), cut(message, WINDOWS_MESSAGE)
        try:
            self._facade.notify(
                title=title, message=message, app_name=APP_NAME, app_icon=self._icon, timeout=WINDOWS_SHOWN_S
            )
        except Exception as error:
            raise Transient(
                "native_failed", f"The system did not accept the notification ({type(error).__name__})."
            ) from error
        return Outcome(outcome="sent", code="handed_over", text="handed to the system, which does not confirm")

    def dismiss(self, notification_id: str) -> bool:
        """Return False: plyer provides no id to dismiss a toast by."""
        return False

    def probe(self) -> str:
        return "notifications are handed to the system, which does not confirm them"

    def close(self) -> None:
        """Do nothing: no resources are held."""

    def _load(self, plyer: Plyer) -> Any:
        try:
            return plyer("win" if self._windows else "macosx")
        except Exception as error:
            if isinstance(error, ImportError) and not self._windows:
                text = "On macOS native notifications need the package pyobjus, which is not installed."
                raise Permanent("needs_pyobjus", text) from error
            raise Permanent("plyer_unusable", f"plyer cannot show notices here: {error}.") from error


def _this_platform() -> str:
    """Return ``sys.platform``, but "android" also before Python 3.13, which says "linux"."""
    return "android" if hasattr(sys, "getandroidapilevel") else sys.platform


def _plyer_facade(system: str) -> Any:
    """Return plyer's backend. ``plyer.notification`` would print a traceback and substitute an inert one on failure."""
    return importlib.import_module(f"plyer.platforms.{system}.notification").instance()
