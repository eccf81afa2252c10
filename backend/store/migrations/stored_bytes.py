"""SQL of frozen steps that stores ids and addresses as bytes."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

Report = Callable[[str], None]
"""Called with the current work of a step, for messages about its progress."""
AT_ONCE = 100_000
"""Rows of one statement, so that its progress can be reported."""


def is_text(column: str) -> str:
    """Build the condition that a value is text."""
    return f"typeof({column}) = 'text'"


def as_bytes(column: str) -> str:
    """Build SQL for an id: a UUID is 16 bytes already; text becomes UTF-8, followed by 0xFF if that has 16 bytes."""
    return _encoded(column, "16")


def address_as_bytes(column: str) -> str:
    """Build SQL for an address: an IP address is 4 or 16 bytes already, other text is encoded as in ``as_bytes``."""
    return _encoded(column, "4, 16")


def packed_address(utf8: bytes) -> bytes:
    """Encode an address given as UTF-8: an IP address in canonical form as 4 or 16 bytes, other text as in
    ``address_as_bytes``."""
    try:
        text = utf8.decode()
        address = ip_address(text)
    except ValueError:  # of ``UnicodeDecodeError`` too
        address = None
    if address is not None and str(address) == text:
        return address.packed
    return utf8 + b"\xff" if len(utf8) in (4, 16) else utf8


def _encoded(column: str, lengths: str) -> str:
    utf8 = f"CAST({column} AS BLOB)"
    return (
        f"CASE WHEN NOT {is_text(column)} THEN {column} WHEN length({utf8}) IN ({lengths}) "
        f"THEN CAST({utf8} || X'FF' AS BLOB) ELSE {utf8} END"
    )
