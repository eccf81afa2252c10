"""SMS channel through Twilio or any service with the API of Twilio's Messages resource.

The provider accepts a message and sends it later, so the best result is "sent".
"""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import urlencode, urlsplit

from flashflow.backend.core.clock import Clock
from flashflow.backend.delivery.net.http_client import Answer, HttpChannel, HttpClient, provider_message
from flashflow.backend.delivery.net.text import ELLIPSIS, lines, one_line, utf16_units
from flashflow.backend.domain.channel import ChannelError, Permanent, Throttled, Transient, accepted
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome
from flashflow.backend.settings.model import SmsSettings

MAX_BODY = 1_600
"""Twilio's limit in characters, applied to UTF-16 units, of which there are at least as many."""
MAX_LINK = 800
"""UTF-16 units; a longer link is left out in favour of the message."""

# The GSM 7-bit alphabet (3GPP TS 23.038); segments are those of TS 23.040.
BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
"""Characters of one septet (6.2.1, without the escape itself)."""
EXTENSION = frozenset("\f^{}\\[~]|€")
"""Characters of two septets: the escape and one more (6.2.1.1)."""

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_BAD_CREDENTIALS = 20003
_TOO_MANY_REQUESTS = 20429


class SmsChannel(HttpChannel):
    """Send each notification as one text message to the number in ``target``. Thread-safe."""

    name = "sms"

    def __init__(self, settings: SmsSettings, clock: Clock, *, client: HttpClient | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._client = client or HttpClient(connections=settings.connections)
        self._url = f"{settings.base_url.rstrip('/')}/2010-04-01/Accounts/{settings.account_sid}/Messages.json"
        pair = f"{settings.account_sid}:{settings.auth_token}".encode("utf-8", "replace")
        self._basic = base64.b64encode(pair).decode()

    def _probe(self) -> str:
        """Return provider and sender from the settings, without a request."""
        host = urlsplit(self._settings.base_url).hostname
        return f"text messages through {host}, from {one_line(self._settings.sender)}"

    def _send(self, notification: DeliveryMessage) -> Outcome:
        if not _E164.fullmatch(notification.target or ""):
            raise Permanent("bad_number", "The phone number is not in international form: + and 7 to 15 digits.")
        body = text_of(notification)
        headers = {
            "authorization": f"Basic {self._basic}",
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
        }
        answer = self._client.post(self._url, headers=headers, content=self._form(notification, body))
        return self._outcome(answer, body)

    def _form(self, notification: DeliveryMessage, body: str) -> bytes:
        sender = self._settings.sender
        field = "MessagingServiceSid" if sender.startswith("MG") else "From"
        form = {"To": notification.target, field: sender, "Body": body}
        return urlencode(form, errors="replace").encode("ascii")

    def _outcome(self, answer: Answer, body: str) -> Outcome:
        reply = answer.json_object()
        if not 200 <= answer.status < 300:
            raise self._refused(answer, reply)
        if reply.get("status") in ("failed", "undelivered", "canceled"):
            code, words = reply.get("error_code"), self._clean(reply.get("error_message"))
            raise Permanent(
                _code(code) or "not_sent", words or "The provider accepted the message but will not send it."
            )
        sid = self._clean(reply.get("sid"))
        if not sid:
            raise Transient("bad_answer", f"The provider answered {answer.status} without a message SID.")
        count = segment_count(body)
        return accepted(provider_message(f"accepted as {sid}, {count} segment{'' if count == 1 else 's'}"))

    def _refused(self, answer: Answer, reply: dict[str, Any]) -> ChannelError:
        number = reply.get("code")
        code = _code(number) or f"http_{answer.status}"
        text = self._clean(reply.get("message")) or f"The provider answered {answer.status}."
        if answer.status == 401 or number == _BAD_CREDENTIALS:
            return Permanent("unauthorized", text)
        if number == _TOO_MANY_REQUESTS:
            return Throttled(code, text, answer.retry_after_s(self._clock))
        return answer.refusal(self._clock, code, text)

    def _clean(self, words: object) -> str:
        return provider_message(words, self._basic, self._settings.auth_token)


def text_of(notification: DeliveryMessage) -> str:
    """Return title, message and first link on separate lines, at most MAX_BODY UTF-16 units.

    A title that the message begins with is not repeated.
    """
    title, message = one_line(notification.title), lines(notification.message).strip()
    text = message if message.startswith(title) else f"{title}\n{message}"
    url = one_line(notification.actions[0].url) if notification.actions else ""
    link = f"\n{url}" if url and len(url) <= MAX_LINK else ""
    return shortened(text.strip(), MAX_BODY - utf16_units(link)) + link


def shortened(text: str, units: int) -> str:
    """Cut to at most ``units`` UTF-16 units, after a word if possible.

    The ellipsis is three dots where "…" would take the text out of the GSM alphabet and so double its price.
    """
    if utf16_units(text) <= units:
        return text
    dots = "..." if is_gsm(text) else ELLIPSIS
    kept = text.encode("utf-16-le")[: 2 * (units - len(dots))].decode("utf-16-le", "ignore")
    words = re.match(r"(.*\S)\s", kept + text[len(kept)], re.DOTALL)
    if words and len(words[1]) > len(kept) // 2:  # otherwise: one long word, or a language without spaces
        kept = words[1]
    return kept.rstrip() + dots


def is_gsm(text: str) -> bool:
    """Whether the GSM 7-bit alphabet has every character."""
    return all(char in BASIC or char in EXTENSION for char in text)


def segment_count(text: str) -> int:
    """Count the segments of ``text``, each of which is charged.

    140 bytes hold 160 septets or 70 UTF-16 units. In a longer text each segment spends 6 bytes on a header, leaving 153
    and 67. An escape sequence or surrogate pair is not split, so a segment may be one unit short.
    """
    gsm = is_gsm(text)
    alone, room = (160, 153) if gsm else (70, 67)
    widths = [1 if (char in BASIC if gsm else char <= "\uffff") else 2 for char in text]
    if sum(widths) <= alone:
        return 1
    count, left = 1, room
    for width in widths:
        if width > left:
            count, left = count + 1, room
        left -= width
    return count


def _code(number: object) -> str:
    return f"twilio_{number}" if isinstance(number, int) and not isinstance(number, bool) else ""
