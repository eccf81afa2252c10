"""How values stand in the files: ids, JSON, and places in a list."""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, TypeVar

import msgspec

from flashflow.backend.core.errors import ValidationError

log = logging.getLogger(__name__)

D = TypeVar("D")

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)

encode_json = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_list = msgspec.json.Decoder(tuple[str | None, ...]).decode
_decode_strings = msgspec.json.Decoder(tuple[str, ...]).decode


def encode_id(text: str) -> bytes | str:
    """A canonical UUID as its 16 bytes, anything else as it is: ids are looked up by the very text they came as."""
    return bytes.fromhex(text.replace("-", "")) if _UUID.fullmatch(text) else text


def decode_id(stored: bytes | str) -> str:
    """The text that encode_id was given."""
    if isinstance(stored, str):
        return stored
    h = stored.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


@lru_cache(maxsize=1024)
def encode_address(text: str | None) -> bytes | str | None:
    """An IP address in its usual spelling as its 4 or 16 bytes, any other text as it is."""
    try:
        address = None if text is None else ip_address(text)
    except ValueError:
        return text
    return None if address is None else address.packed if str(address) == text else text


@lru_cache(maxsize=1024)
def decode_address(stored: bytes | str | None) -> str | None:
    """The text that encode_address was given."""
    return str(ip_address(stored)) if isinstance(stored, bytes) else stored


def to_json(value: object) -> str:
    """Compact JSON text."""
    return encode_json(value).decode()


DAMAGED = "\N{REPLACEMENT CHARACTER}"
"""Stands where a byte of stored text was not UTF-8."""


def decode_text(stored: bytes) -> str:
    """Stored text; a byte that is not UTF-8 becomes U+FFFD."""
    return str(stored, "utf-8", "replace")


def decode_json(decode: Callable[[str], D], text: str | None, otherwise: D) -> D:
    """Stored JSON by ``decode``; ``otherwise`` where nothing is stored, or damage has left no JSON of that shape."""
    if not text:
        return otherwise
    try:
        return decode(text)
    except msgspec.DecodeError as error:
        log.error("stored JSON does not parse: %s", error)
        return otherwise


def from_object(text: str | None) -> dict[str, Any]:
    """A stored JSON object; nothing stored is an empty one. Text that is none is kept under ``damaged_text``."""
    return decode_json(_decode_object, text, {"damaged_text": text} if text else {})


def from_strings(text: str | None) -> tuple[str, ...]:
    """A stored JSON list of strings."""
    return decode_json(_decode_strings, text, ())


def from_list(text: str) -> tuple[str | None, ...]:
    """A JSON list of texts and nulls, as SQLite makes it."""
    return decode_json(_decode_list, text, ())


def encode_cursor(of: str, *place: int) -> str:
    """An opaque place in a list; ``of``: which list."""
    return base64.urlsafe_b64encode(encode_json((of, *place))).decode().rstrip("=")


def decode_cursor(cursor: str, of: str, length: int) -> tuple[int, ...]:
    """The place that encode_cursor was given for that list. Raises ValidationError for anything else."""
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        made_for, *place = msgspec.json.decode(raw, type=list[str | int])
    except (UnicodeEncodeError, binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise ValidationError.of("cursor", "is not a cursor that this list gave") from error
    numbers = tuple(number for number in place if isinstance(number, int) and -(2**62) < number < 2**62)
    if made_for != of or not len(numbers) == len(place) == length:
        raise ValidationError.of("cursor", "is not a cursor that this list gave")
    return numbers
