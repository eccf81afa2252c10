"""Decode query strings and JSON bodies into request objects.

Most patterns in the schemas say: no control characters, not blank. JSON forbids an unescaped control character in a
string, DEL excepted, and a blank string begins with a space. So a body without backslash, DEL, a string that begins
with a space, and ``*`` (forbidden in type names) satisfies these patterns. Matching them costs a small request more
than the rest of its decoding, so such a body is decoded without them.
"""

from __future__ import annotations

import re
import types
from functools import lru_cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from flashflow.backend.core.errors import FieldError
from flashflow.backend.schemas.requests import NAME, TEXT, TYPE, Input
from flashflow.backend.schemas.validation import Malformed, convert, decode, without_empty

_IMPLIED = frozenset({NAME, TEXT, TYPE})
_SUSPECTS = (b"\\", b"\x7f", b'" ', b"*")


class BodyDecoder:
    """Decode the bodies of one Input type. ``decode`` raises ValidationError."""

    def __init__(self, kind: type[Input]) -> None:
        self._kind = kind
        self._strict = msgspec.json.Decoder(kind)
        self._plain = msgspec.json.Decoder(_without_patterns(kind))

    def decode(self, body: bytes) -> Any:
        """Return the body as ``kind``, or as its copy without patterns."""
        for suspect in _SUSPECTS:
            if suspect in body:
                break
        else:
            try:
                return self._plain.decode(body)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                pass  # the strict decoder names the fault
            if b'""' in body:  # common: browsers send an empty referrer with every direct visit
                try:
                    return self._plain.decode(msgspec.json.encode(without_empty(msgspec.json.decode(body), self._kind)))
                except (msgspec.MsgspecError, ValueError, RecursionError):
                    pass
        return decode(self._strict, body)


def _without_patterns(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return a copy of ``kind`` whose fields have no pattern of _IMPLIED, only the lengths."""
    hints = get_type_hints(kind, include_extras=True)
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        hint = _plain(hints[field.name])
        if field.default_factory is not msgspec.NODEFAULT:
            fields.append((field.name, hint, msgspec.field(default_factory=field.default_factory)))
        elif field.default is not msgspec.NODEFAULT:
            fields.append((field.name, hint, field.default))
        else:
            fields.append((field.name, hint))
    return msgspec.defstruct(
        kind.__name__,
        fields,
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
        omit_defaults=True,
        module=kind.__module__,
    )


def _plain(hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner, *notes = arguments
        return Annotated[(_plain(inner), *map(_bare, notes))]
    if origin in {Union, types.UnionType}:
        return Union[tuple(map(_plain, arguments))]  # noqa: UP007 built at run time
    if origin is list:
        return list[_plain(arguments[0])]  # type: ignore[misc]
    if isinstance(hint, type) and issubclass(hint, Input):
        return _without_patterns(hint)
    return hint


def _bare(note: Any) -> Any:
    if not isinstance(note, Meta) or note.pattern not in _IMPLIED:
        return note
    return Meta(min_length=note.min_length, max_length=note.max_length)


_NUMBERS = ("limit", "days", "window_days", "dropped_at")
_NUMBER = re.compile(r"-?\d{1,9}", re.ASCII)


@lru_cache(maxsize=256)  # clients poll a few addresses
def decode_query(raw: bytes, kind: type[Input]) -> Any:
    """Return the query string as ``kind``. Raises Malformed for unknown, repeated and invalid parameters."""
    # Everything but _NUMBERS stays text: msgspec's lax mode reads ``since=2026`` as a time in 1970 and ``null`` as an
    # absent filter.
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=bool(raw), errors="strict", max_num_fields=50
        )
    except (ValueError, UnicodeDecodeError):
        raise Malformed([FieldError("", "The query string is not well formed.")]) from None
    values: dict[str, str | int] = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = [FieldError(name, "is given twice") for name in values if names.count(name) > 1]
        raise Malformed(twice)
    for name in _NUMBERS:
        text = values.get(name)
        if isinstance(text, str) and _NUMBER.fullmatch(text):
            values[name] = int(text)
        elif text == "":
            del values[name]
    return convert(values, kind)
