"""Number of SMS segments of a text, by 3GPP TS 23.038 (alphabets) and TS 23.040 (concatenation header)."""

from __future__ import annotations

BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
"""Characters of one septet (6.2.1, without the escape itself)."""
EXTENSION = frozenset("\f^{}\\[~]|€")
"""Characters of two septets: the escape and one more (6.2.1.1)."""


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
