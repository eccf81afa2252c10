"""Clean untrusted text for display: no control characters, no markup, limited length."""

from __future__ import annotations

import re

APP_NAME = "FlashFlow"
ELLIPSIS = "…"
LONGEST_LINK = 2048

_WEB_LINK = re.compile(r"https?://[^\s\x00-\x1f\x7f]+", re.IGNORECASE)

_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_ENDS = {ord(mark): "\n" for mark in "\r\v\f\x85\u2028\u2029"}


def printable(text: str) -> str:
    """Remove control characters except tabs and line ends, which become ``\\n``; replace lone surrogates by U+FFFD.

    No encoding can carry a lone surrogate, and D-Bus closes the connection on one and on a NUL.
    """
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", text.replace("\r\n", "\n").translate(_LINE_ENDS)))


def lines(text: str) -> str:
    """Apply ``printable`` and replace each tab by a space."""
    return printable(text).replace("\t", " ")


def one_line(text: str) -> str:
    """Apply ``lines`` and replace every run of white space by a single space."""
    return " ".join(lines(text).split())


def escaped(text: str) -> str:
    """Escape ``&``, ``<`` and ``>`` for a notification daemon that reads markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def cut(text: str, units: int) -> str:
    """Cut to at most ``units`` UTF-16 code units (as Windows counts), with an ellipsis if something was removed."""
    if utf16_units(text) <= units:
        return text
    kept = text.encode("utf-16-le", "surrogatepass")[: 2 * (units - utf16_units(ELLIPSIS))]
    return kept.decode("utf-16-le", "ignore").rstrip() + ELLIPSIS  # "ignore" drops half of a surrogate pair


def utf16_units(text: str) -> int:
    """Return the number of UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def bare_host(host: str) -> str:
    """Remove the brackets of an IPv6 address."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def is_web_link(text: str) -> bool:
    """Whether the text is an http or https URL that is safe to open in a browser."""
    return len(text) <= LONGEST_LINK and _WEB_LINK.fullmatch(text) is not None
