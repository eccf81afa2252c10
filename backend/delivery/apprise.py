"""Channel for any service with an Apprise address, under the name that the settings give it.

Apprise reports only success or failure. A failure counts as transient, since its cause is unknown, and carries the text
that Apprise logged. An address consists of secrets: they are removed from that text, and Apprise's own log is off.
"""

from __future__ import annotations

import base64
import inspect
import logging
import re
import threading
import warnings
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.deadline import DeadlineCalls, Reason
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.delivery.net.text import cut, lines, one_line
from flashflow.backend.domain.channel import BaseChannel, Permanent, Transient, accepted
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome
from flashflow.backend.settings.model import AppriseSettings

if TYPE_CHECKING:
    from apprise import Apprise

log = logging.getLogger(__name__)

MAX_TEXT = 300
HIDDEN = "[…]"
SHORTEST_SECRET = 3
"""Characters; shorter parts of the address occur in any text and are not hidden."""
WORD = 8
"""Characters; parts of the address up to this length are hidden only as whole words."""

# Settings that the installed version does not know are left out.
_ASSET: dict[str, Any] = {
    "app_id": "FlashFlow",
    "app_desc": "FlashFlow",
    "app_url": "",
    "async_mode": False,
    "interpret_emojis": False,
    "interpret_escapes": False,
    "http_redirects": False,  # a redirected POST becomes a GET, whose 200 would count as accepted
    "image_url_mask": "",  # otherwise services fetch pictures from a third-party site
    "image_url_logo": "",
    "secure_logging": True,
    "pgp_autogen": False,
    "pem_autogen": False,
    "storage_mode": "memory",
    "service_timeout": 0,  # the channel has its own deadline
}
_ADDRESS = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{0,31}://\S+")
_AUTHORIZATION = re.compile(r"\b(Basic|Bearer|Token)\s+\S+", re.IGNORECASE)
_BETWEEN_PARTS = re.compile(r"[\s/?#&=@:;,+]+")
_MENTION = re.compile(r"(@(?=(?:everyone|here|channel|all)\b)|<(?=[@!#&]))", re.IGNORECASE)
_NOT_A_MENTION = "\\1\N{ZERO WIDTH SPACE}"

_opening = threading.Lock()


class AppriseChannel(BaseChannel):
    """Send to one Apprise address. Thread-safe: each send in progress has its own plugin object.

    ``deadline_s``: seconds for a whole send. Apprise cannot be interrupted, so an overdue send keeps its thread; once
    twice ``settings.connections`` threads run, further sends fail as ``busy``.
    """

    def __init__(self, name: str, settings: AppriseSettings, clock: Clock, *, deadline_s: float = 30.0) -> None:
        self.name = name
        self._url = settings.url
        self._clock = clock
        self._secrets = _secrets_pattern(settings.url)
        self._deadline_s = deadline_s
        self._calls = DeadlineCalls(deadline_s, f"apprise-{name}", self._no_answer, limit=2 * settings.connections)
        self._idle: list[_Sender] = []

    def close(self) -> None:
        """End waiting and later sends as ``stopping``."""
        self._calls.close()
        self._idle.clear()

    def _send(self, notification: DeliveryMessage) -> Outcome:
        if notification.expires_at is not None and notification.expires_at <= self._clock.now_ms():
            raise Permanent("expired", "It expired before it could be sent.")
        return self._calls.run(lambda: self._deliver(notification))

    def _probe(self) -> str:
        """Check that Apprise is installed and accepts the address."""
        try:
            sender = self._take()
        except Permanent:
            raise
        except Exception as error:  # noqa: BLE001 a plugin may raise anything, and its text may contain the address
            log.warning("the channel %s could not be probed: %s", self.name, type(error).__name__)
            raise Transient("apprise_failed", type(error).__name__) from None
        self._idle.append(sender)
        return f"{sender.service} through Apprise, which confirms no delivery"

    def _deliver(self, notification: DeliveryMessage) -> Outcome:
        sender = self._take()
        try:
            with _Reasons() as reasons:
                taken = sender.notify(notification)
        except Exception as error:  # noqa: BLE001 a plugin may raise anything
            # The exception's text may contain the address. The broken plugin is not used again.
            raise Transient("apprise_failed", f"Apprise failed ({type(error).__name__}).") from None
        if not taken:
            words = self._hidden(" ".join(reasons.messages))
            text = f"{sender.service} did not accept it; Apprise gives no status" + (f": {words}" if words else ".")
            # Every plugin logs this sentence when its service is unreachable.
            unreachable = "connection error occurred" in words.lower()
            raise Transient("unreachable" if unreachable else "not_accepted", cut(text, MAX_TEXT))
        self._idle.append(sender)
        return accepted(f"{sender.service} accepted it")

    def _no_answer(self, reason: Reason) -> Transient:
        texts: dict[Reason, str] = {
            "busy": "Earlier sends to this service still hang.",
            "timeout": f"The service did not answer within {self._deadline_s:g} seconds but may still accept it.",
            "stopping": "FlashFlow is stopping.",
        }
        return Transient(reason, texts[reason])

    def _take(self) -> _Sender:
        try:
            return self._idle.pop()
        except IndexError:
            return _open(self._url)

    def _hidden(self, words: str) -> str:
        """Return ``words`` as one line with every part of the address replaced."""
        words = _AUTHORIZATION.sub(rf"\1 {HIDDEN}", _ADDRESS.sub(HIDDEN, one_line(words)))
        return self._secrets.sub(HIDDEN, words) if self._secrets else words


class _Sender(NamedTuple):
    """An Apprise object with one plugin, for one thread at a time, and the name of its service."""

    apprise: Apprise
    service: str

    def notify(self, notification: DeliveryMessage) -> bool:
        """Send; return whether the service accepted."""
        from apprise import NotifyFormat, NotifyType

        urgent = notification.priority in ("high", "urgent")
        return bool(
            self.apprise.notify(
                title=_plain(one_line(notification.title)),
                body=_plain(_body(notification)),
                notify_type=NotifyType.WARNING if urgent else NotifyType.INFO,
                body_format=NotifyFormat.TEXT,
            )
        )


def _open(url: str) -> _Sender:
    """Create a sender for ``url``. Raises Permanent ``apprise_missing`` or ``bad_url``."""
    with _opening, warnings.catch_warnings():  # loads plugins, some with deprecated calls
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            from apprise import Apprise, AppriseAsset, OverflowMode
        except ImportError:
            text = "The package apprise is not installed: pip install apprise"
            raise Permanent("apprise_missing", text) from None
        _mute_logs()
        named = inspect.signature(AppriseAsset).parameters
        known: dict[str, Any] = {
            key: value for key, value in _ASSET.items() if key in named or hasattr(AppriseAsset, key)
        }
        asset = AppriseAsset(**known)
        plugin = Apprise.instantiate(url, asset=asset)
    if plugin is None:
        text = "Apprise does not know this address, finds it incomplete, or lacks a package for it."
        raise Permanent("bad_url", text)
    plugin.request_rate_per_sec = 0
    # The outbox retries. With ``optional`` Apprise would report a failure as a success.
    for name, value in (("retry", 0), ("optional", False)):
        if hasattr(plugin, name):
            setattr(plugin, name, value)
    if "overflow=" not in url.lower():  # a text too long for the service would be refused at each try
        plugin.overflow_mode = OverflowMode.TRUNCATE
    apprise = Apprise(asset=asset)
    apprise.add(plugin)
    return _Sender(apprise, cut(one_line(str(plugin.service_name or "The service")), 60))


def _mute_logs() -> None:
    """Mute the logs of Apprise and urllib3: their lines contain parts of the address."""
    apprise = logging.getLogger("apprise")
    apprise.propagate = False
    apprise.setLevel(logging.WARNING)
    if not apprise.handlers:
        apprise.addHandler(logging.NullHandler())
    logging.getLogger("urllib3").setLevel(logging.ERROR)


class _Reasons(logging.Handler):
    """Collect the warnings that Apprise logs in this thread while the context is open."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and len(self.messages) < 5:
            self.messages.append(record.getMessage()[: 20 * MAX_TEXT])

    def __enter__(self) -> _Reasons:
        logging.getLogger("apprise").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("apprise").removeHandler(self)


def _body(notification: DeliveryMessage) -> str:
    links = [f"{one_line(link.label)}: {one_line(link.url)}" for link in notification.actions]
    text = lines(notification.message).strip() or one_line(notification.title)
    return "\n\n".join([text, "\n".join(links)] if links else [text])


def _plain(text: str) -> str:
    """Escape mentions (``@everyone``, ``<@…>``), which chat services would resolve."""
    return _MENTION.sub(_NOT_A_MENTION, text)


def _secrets_pattern(url: str) -> re.Pattern[str] | None:
    """Return a pattern for every part of the address that may be secret: as written, percent-decoded, and as HTTP basic
    authentication."""
    _, _, rest = url.partition("://")
    found = {rest, unquote_plus(rest)}
    for text in tuple(found):
        found.update(_BETWEEN_PARTS.split(text))
    userinfo = rest.rpartition("@")[0]
    found.update(base64.b64encode(text.encode()).decode() for text in (userinfo, unquote_plus(userinfo)))
    secrets = sorted((part for part in found if len(part) >= SHORTEST_SECRET), key=len, reverse=True)
    patterns = [re.escape(part) if len(part) > WORD else rf"(?<!\w){re.escape(part)}(?!\w)" for part in secrets]
    return re.compile("|".join(patterns), re.IGNORECASE) if patterns else None
