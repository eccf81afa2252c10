"""Texts of strangers made safe to hand to a desktop: always words, never instructions."""

from __future__ import annotations

import unicodedata

ELLIPSIS = "…"

_LINE_ENDS = {ord(mark): "\n" for mark in "\r\v\f\x85\u2028\u2029"}


def lines(text: str) -> str:
    """``text`` without control characters, except that lines stay lines. What no encoding can carry (half a surrogate
    pair) becomes the replacement character; D-Bus would hang up on it, and on a NUL."""
    text = text.replace("\r\n", "\n").translate(_LINE_ENDS).replace("\t", " ")
    return "".join(_harmless(char) for char in text)


def one_line(text: str) -> str:
    """``lines`` as one line, every run of white space a single space."""
    return " ".join(lines(text).split())


def escaped(text: str) -> str:
    """For a daemon that reads markup in bodies: the three characters that begin any."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def cut(text: str, units: int) -> str:
    """At most ``units`` UTF-16 code units (what Windows counts), ending in an ellipsis when something was left out."""
    if _units(text) <= units:
        return text
    room = units - _units(ELLIPSIS)
    end = 0
    while (room := room - _units(text[end])) >= 0:
        end += 1
    return text[:end].rstrip() + ELLIPSIS


def _harmless(char: str) -> str:
    category = unicodedata.category(char)
    if category == "Cs":
        return "\ufffd"
    return char if category != "Cc" or char == "\n" else ""


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
