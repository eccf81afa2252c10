"""Number of SMS segments of a text, by 3GPP TS 23.038 (alphabets) and TS 23.040 (concatenation header)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
"""Characters of one septet (6.2.1, without the escape itself)."""
EXTENSION = frozenset("\f^{}\\[~]|€")
"""Characters of two septets: the escape and one more (6.2.1.1)."""


class Segments(msgspec.Struct, frozen=True):
    """Size of a text; ``units`` are septets (GSM-7) or UTF-16 code units (UCS-2), ``count`` the segments charged."""

    encoding: Literal["GSM-7", "UCS-2"]
    units: int
    count: int


def is_gsm(text: str) -> bool:
    """Whether the GSM 7-bit alphabet has every character."""
    return all(char in BASIC or char in EXTENSION for char in text)


def segments(text: str) -> Segments:
    """Count the segments of ``text``.

    140 bytes hold 160 septets or 70 UTF-16 units. In a longer text each segment spends 6 bytes on a header, leaving 153
    and 67. An escape sequence or surrogate pair is not split, so a segment may be one unit short.
    """
    if is_gsm(text):
        return _counted("GSM-7", [1 if char in BASIC else 2 for char in text], 160, 153)
    return _counted("UCS-2", [1 if char <= "\uffff" else 2 for char in text], 70, 67)


def _counted(encoding: Literal["GSM-7", "UCS-2"], widths: list[int], alone: int, joined: int) -> Segments:
    units = sum(widths)
    return Segments(encoding, units, 1 if units <= alone else _packed(widths, joined))


def _packed(widths: Iterable[int], room: int) -> int:
    count, left = 1, room
    for width in widths:
        if width > left:
            count, left = count + 1, room
        left -= width
    return count
