"""Encodings of stored values: ids, IP addresses, JSON, list cursors."""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Callable
from functools import cache, lru_cache
from ipaddress import ip_address
from typing import Any, TypeVar, cast

import msgspec

from flashflow.backend.core.errors import ValidationError

log = logging.getLogger(__name__)

D = TypeVar("D")

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)

encode_json = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_list = msgspec.json.Decoder(tuple[str | None, ...]).decode
_decode_strings = msgspec.json.Decoder(tuple[str, ...]).decode


_TEXT = b"\xff"
"""Follows text that has as many bytes as a UUID or an address. UTF-8 has no such byte."""
_UUID_BYTES = 16
_ADDRESS_BYTES = (4, 16)


def encode_id(text: str) -> bytes:
    """Encode a canonical UUID as its 16 bytes and any other text as UTF-8, so that ids are found as they were given."""
    if _UUID.fullmatch(text):
        return bytes.fromhex(text.replace("-", ""))
    stored = text.encode()
    return stored + _TEXT if len(stored) == _UUID_BYTES else stored


def decode_id(stored: bytes) -> str:
    """Decode the result of encode_id."""
    if len(stored) != _UUID_BYTES:
        return decode_text(stored.removesuffix(_TEXT))
    h = stored.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


@lru_cache(maxsize=1024)
def encode_address(text: str | None) -> bytes | None:
    """Encode an IP address in canonical form as its 4 or 16 bytes and any other text as UTF-8."""
    if text is None:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        address = None
    if address is not None and str(address) == text:
        return address.packed
    stored = text.encode()
    return stored + _TEXT if len(stored) in _ADDRESS_BYTES else stored


@lru_cache(maxsize=1024)
def decode_address(stored: bytes | None) -> str | None:
    """Decode the result of encode_address."""
    if stored is None:
        return None
    return str(ip_address(stored)) if len(stored) in _ADDRESS_BYTES else decode_text(stored.removesuffix(_TEXT))


def to_json(value: object) -> str:
    """Encode as compact JSON text."""
    return encode_json(value).decode()


DAMAGED = "\N{REPLACEMENT CHARACTER}"
"""Replacement for a byte of stored text that is not UTF-8."""


def decode_text(stored: bytes) -> str:
    """Decode stored text; a byte that is not UTF-8 becomes U+FFFD."""
    return str(stored, "utf-8", "replace")


def decoder_of(kind: type[D]) -> msgspec.json.Decoder[D]:
    """Return the decoder of ``kind``, made at the first use: it resolves every annotation below ``kind``."""
    decoder: msgspec.json.Decoder[D] = _decoder_of(cast("Any", kind))
    return decoder


@cache
def _decoder_of(kind: Any) -> Any:
    return msgspec.json.Decoder(kind)


def decode_json(decode: Callable[[str], D], text: str | None, otherwise: D) -> D:
    """Decode stored JSON with ``decode``; return ``otherwise`` for no text and, logged, for invalid JSON."""
    if not text:
        return otherwise
    try:
        return decode(text)
    except msgspec.DecodeError as error:
        log.error("stored JSON does not parse: %s", error)
        return otherwise


def from_object(text: str | None) -> dict[str, Any]:
    """Decode a stored JSON object; no text gives ``{}``, invalid text an object with the key ``damaged_text``."""
    return decode_json(_decode_object, text, {"damaged_text": text} if text else {})


def from_strings(text: str | None) -> tuple[str, ...]:
    """Decode a stored JSON list of strings."""
    return decode_json(_decode_strings, text, ())


def from_list(text: str) -> tuple[str | None, ...]:
    """Decode a JSON list of texts and nulls, as SQLite's ``json_group_array`` returns it."""
    return decode_json(_decode_list, text, ())


def encode_cursor(of: str, *place: int) -> str:
    """Encode a position in the list ``of`` as an opaque cursor."""
    return base64.urlsafe_b64encode(encode_json((of, *place))).decode().rstrip("=")


def decode_cursor(cursor: str, of: str, length: int) -> tuple[int, ...]:
    """Decode a cursor of the list ``of`` with ``length`` numbers. Raises ValidationError."""
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        made_for, *place = msgspec.json.decode(raw, type=list[str | int])
    except (UnicodeEncodeError, binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise ValidationError.of("cursor", "is not a cursor that this list gave") from error
    numbers = tuple(number for number in place if isinstance(number, int) and -(2**62) < number < 2**62)
    if made_for != of or not len(numbers) == len(place) == length:
        raise ValidationError.of("cursor", "is not a cursor that this list gave")
    return numbers
