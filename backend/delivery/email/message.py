"""E-mail message: strict addresses, headers safe from injection, a plain-text and an HTML body of equal content.

It does not use ``email.message.EmailMessage``, which took 1 ms per mail (measured with Python 3.11.7) and altered some
titles: its folding loses spaces between encoded words and decodes text that looks like one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from email.utils import format_datetime
from functools import lru_cache
from html import escape
from urllib.parse import quote, urlencode

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.delivery.net.text import printable
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Link

LINE = 78
LONGEST_LINE = 998
"""Recommended and hard limit of a line in characters, without its CRLF (RFC 5322, section 2.1.1)."""
ENCODED_BYTES = 39
"""Most UTF-8 bytes in one encoded word: as base64 and after ``Subject: `` they fit into the 76 characters allowed in a
line with an encoded word (RFC 2047, section 2)."""

_ATOM = r"""[^\x00-\x20"(),.:;<>@[\\\]\x7f]+"""
"""RFC 5321's atom with RFC 6531's letters. A class of all of these letters would take 3 ms to compile."""
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*(?!\d+\Z)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)
_DEVIATING = re.compile("[\u00df\u1e9e\u03c2\u200c\u200d]")
"""Letters that IDNA 2003, as implemented by Python, maps to others, which may be another domain (RFC 5894, 7.2)."""
_SENDER = re.compile(r"(?P<name>[^<>]*)<(?P<address>[^<>]*)>")
_WORDS = re.compile(r"[!-~]+(?: [!-~]+)*")
_LABELS = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_QUOTED, _BACKSLASHED = re.compile(r'(["\\])'), r"\\\1"
_HTTP = re.compile(r"https?://[^\s\x00-\x20\x7f]+", re.IGNORECASE)
_NOT_ONE_LINE = re.compile("\r\n|[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_FOR_PRIORITY = {
    "high": "X-Priority: 2 (High)\r\nImportance: high\r\n",
    "urgent": "X-Priority: 1 (Highest)\r\nImportance: high\r\n",
}

# The only colour is a grey readable on white and on black: the client's light or dark theme stays.
_HTML = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>{title}</title></head>
<body style="margin:0;padding:24px;font:16px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif">
<div style="max-width:36em;margin:0 auto">
<p dir="auto" style="margin:0 0 20px">{message}</p>
{links}<p dir="auto" style="margin:0;font-size:13px;color:#767676">{footer}</p>
</div></body></html>
"""
_LINK = (
    '<p dir="auto" style="margin:0 0 20px"><a href="{url}" style="display:inline-block;padding:8px 16px;'
    'border:1px solid #767676;border-radius:6px;text-decoration:none">{label}</a></p>\n'
)


class Address(NamedTuple):
    """A mailbox. ``domain`` is ASCII (punycode if needed); ``local`` may be any Unicode."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


class Sender(NamedTuple):
    """A mailbox of the owner and its header line."""

    address: Address
    header: str


class Letterhead(NamedTuple):
    """Header data of every mail of a channel: sender, reply address, one-click unsubscribe URL."""

    sender: Sender
    reply_to: Sender | None = None
    unsubscribe_url: str | None = None
    """https URL of the owner that accepts a one-click POST (RFC 8058)."""


def parse_address(text: str) -> Address:
    """Parse exactly one address: dot-atom, ``@``, host name (RFC 5321, 4.1.2).

    Quoted local parts and address literals are refused. Raises ValueError with a text for users.
    """
    if len(text) > 254:
        raise ValueError("longer than 254 characters")
    local, at, domain = text.rpartition("@")
    if not at or not local or not domain:
        raise ValueError("not of the form name@host")
    if not _LOCAL.fullmatch(local) or any(unicodedata.category(char)[0] in "CZ" for char in local):
        raise ValueError("the part before the @ has invalid characters")
    if len(local.encode()) > 64:
        raise ValueError("the part before the @ is longer than 64 bytes")
    address = Address(local, _ascii_domain(domain))
    if len(str(address).encode()) > 254:
        raise ValueError("longer than 254 bytes")
    return address


def _ascii_domain(domain: str) -> str:
    if not domain.isascii():
        if _DEVIATING.search(domain):
            raise ValueError("a letter of the host name is ambiguous: write the name in its xn-- form")
        try:
            domain = domain.encode("idna").decode("ascii")
        except UnicodeError:
            raise ValueError("the part after the @ is not a host name") from None
    if len(domain) > 253 or not _DOMAIN.fullmatch(domain):
        raise ValueError("the part after the @ is not a host name")
    return domain


def parse_sender(text: str, header: str = "From") -> Sender:
    """Parse ``Name <address>`` or an address alone. Raises ValueError with a text for users."""
    match = _SENDER.fullmatch(text.strip())
    if match is None:
        address = parse_address(text.strip())
        return Sender(address, f"{header}: {address}\r\n")
    address, name = parse_address(match["address"].strip()), match["name"].strip()
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    name = one_line(name)
    if not name:
        return Sender(address, f"{header}: {address}\r\n")
    phrase = f'"{_QUOTED.sub(_BACKSLASHED, name)}"' if _is_plain(name) else _encoded(name)
    fold = "\r\n" if len(phrase.rpartition("\n")[2]) + len(str(address)) + len(header) + 5 > LINE else ""
    return Sender(address, f"{header}: {phrase}{fold} <{address}>\r\n")


def compose(notification: DeliveryMessage, letterhead: Letterhead, target: Address, created_ms: int) -> bytes:
    """Return the whole message with CRLF line ends, identical for identical arguments.

    It is 7-bit, except for headers with an address that needs SMTPUTF8.
    """
    shown = notification.title, notification.message, notification.actions
    letter = _letter(*shown, notification.app, notification.notification_type, notification.priority)
    sender, reply_to, _ = letterhead
    head = (
        f"{sender.header}{reply_to.header if reply_to else ''}To: {target}\r\n{letter.subject}"
        f"Date: {format_datetime(to_datetime(created_ms))}\r\n"
        f"{_identity(notification, sender.address.domain)}"
        f"{letter.headers}"
        f"{'' if notification.critical else _list_headers(notification, letterhead)}"
        f"{_header('X-FlashFlow-Notification', one_line(notification.notification_id))}"
        f"{letter.opening}"
    )
    return head.encode() + letter.body


class _Letter(NamedTuple):
    """The part of a mail that does not depend on the recipient."""

    subject: str
    headers: str
    opening: str
    body: bytes


@lru_cache(maxsize=8)  # one notification to many recipients is rendered once
def _letter(title: str, message: str, actions: tuple[Link, ...], app: str, kind: str, priority: str) -> _Letter:
    links = [Link(one_line(link.label), link.url) for link in actions if _HTTP.fullmatch(link.url)]
    title, message = one_line(title) or "FlashFlow", printable(message).strip("\n")
    footer = f"Sent by FlashFlow for {one_line(app)} ({one_line(kind)})."
    plain = _part("plain", _plain(message, links, footer))
    html = _part("html", _html(title, message, links, footer))
    # A hash of both bodies, so that neither can contain it.
    boundary = "=_" + hashlib.blake2b(plain + html, digest_size=16).hexdigest()
    cut = f"--{boundary}".encode()
    return _Letter(
        subject=_header("Subject", title),
        headers=(
            "Auto-Submitted: auto-generated\r\n"  # RFC 3834: no out-of-office reply to this
            f"{_FOR_PRIORITY.get(priority, '')}"
        ),
        opening=f'MIME-Version: 1.0\r\nContent-Type: multipart/alternative;\r\n boundary="{boundary}"\r\n\r\n',
        body=b"".join((cut, b"\r\n", plain, cut, b"\r\n", html, cut, b"--\r\n")),
    )


def one_line(text: str) -> str:
    """Replace every control character and line end by a space."""
    return printable(_NOT_ONE_LINE.sub(" ", text)).strip()


def _identity(notification: DeliveryMessage, domain: str) -> str:
    """Return the Message-ID, the same for every try so that duplicates are recognised, and the thread headers.

    An update of a collapsed notification gets its own Message-ID in the same thread.
    """
    update = f".{notification.count}" if notification.count > 1 else ""
    found = f"Message-ID: <{_id(notification.delivery_id)}{update}@{domain}>\r\n"
    if notification.collapse_key:
        thread = f"<{_id(notification.notification_id)}.thread@{domain}>"
        found += f"In-Reply-To: {thread}\r\nReferences: {thread}\r\n"
    return found


def _id(text: str) -> str:
    if _SAFE_ID.fullmatch(text):
        return text
    return "x-" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def _list_headers(notification: DeliveryMessage, letterhead: Letterhead) -> str:
    """Return the List-Id (RFC 2919) and List-Unsubscribe headers (RFC 2369, RFC 8058).

    Without a reply address there is no ``mailto:``: the sender's own mailbox may be unread.
    """
    sender, reply_to, url = letterhead
    kind = one_line(notification.notification_type)
    found = f"List-Id: <{_label(kind)}.{_label(notification.app)}.{sender.address.domain}>\r\n"
    ways = []
    if url is not None:
        query = {
            "user_id": notification.user_id,
            "notification_type": notification.notification_type,
            "notification_id": notification.notification_id,
        }
        ways.append(f"{url}{'&' if '?' in url else '?'}{urlencode(query, quote_via=quote, errors='replace')}")
    if reply_to is not None:
        ways.append(f"mailto:{quote(str(reply_to.address), safe='@')}?subject={quote(f'unsubscribe {kind}', safe='')}")
    if ways:
        found += f"List-Unsubscribe: {_joined(ways)}\r\n"
    if url is not None:
        found += "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    return found


def _joined(urls: Sequence[str]) -> str:
    """Return URLs in brackets, one per line, folded within the brackets where too long (RFC 2369 allows white space).

    Percent-escapes are lower case: spam filters count upper-case ones as obfuscation.
    """
    bracketed = (f"<{_ESCAPE.sub(lambda match: match[0].lower(), url)}>" for url in urls)
    return ",\r\n ".join("\r\n ".join(url[at : at + 900] for at in range(0, len(url), 900)) for url in bracketed)


def _label(text: str) -> str:
    return text.lower() if len(text) <= 64 and _LABELS.fullmatch(text) else _id(text)


def _header(name: str, text: str) -> str:
    room = LINE - len(name) - 2
    words = text.split(" ")
    if not _is_plain(text) or len(max(words, key=len)) > room:
        return f"{name}: {_encoded(text)}\r\n"
    folded, line = "", f"{name}:"
    for word in words:
        if len(line) + 1 + len(word) > LINE:
            folded, line = f"{folded}{line}\r\n", ""
        line = f"{line} {word}"
    return f"{folded}{line}\r\n"


def _is_plain(text: str) -> bool:
    """Whether the text needs no encoded words in a header."""
    return _WORDS.fullmatch(text) is not None and "=?" not in text


def _encoded(text: str) -> str:
    """Return the text as encoded words (RFC 2047), one per line, split between characters."""
    chunks = [bytearray()]
    for char in text:
        data = char.encode()
        if len(chunks[-1]) + len(data) > ENCODED_BYTES:
            chunks.append(bytearray())
        chunks[-1] += data
    return "\r\n ".join(f"=?utf-8?b?{base64.b64encode(chunk).decode()}?=" for chunk in chunks)


def _plain(message: str, links: Sequence[Link], footer: str) -> str:
    listed = "\n".join(f"{link.label}: {printable(link.url)}" for link in links)
    return "\n\n".join(part for part in (message, listed, f"-- \n{footer}\n") if part)


def _html(title: str, message: str, links: Sequence[Link], footer: str) -> str:
    return _HTML.format(
        title=escape(title),
        message=escape(message).replace("\n", "<br>\n"),
        links="".join(_LINK.format(url=escape(printable(link.url)), label=escape(link.label)) for link in links),
        footer=escape(footer),
    )


def _part(kind: str, text: str) -> bytes:
    data = text.replace("\n", "\r\n").encode()
    encoding = "7bit"
    if not data.isascii() or max(map(len, data.split(b"\r\n"))) > LONGEST_LINE:
        quoted, packed = binascii.b2a_qp(data), base64.encodebytes(data).replace(b"\n", b"\r\n")
        encoding, data = ("quoted-printable", quoted) if len(quoted) <= len(packed) else ("base64", packed)
    head = f"Content-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + data + b"\r\n"
