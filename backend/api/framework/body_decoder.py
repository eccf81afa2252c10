"""Queries and bodies into border objects, with the patterns left out where the bytes themselves show that they hold.

Most of our patterns say: no control characters, and not blank. JSON forbids a control character inside a string unless
it is escaped, DEL excepted; and a blank string begins with a space. So where a body has no backslash, no DEL, no string
that begins with a space (and no ``*``, which the name of a type may not have), every one of those patterns matches, and
looking for itself would cost a small request more than all the rest of its decoding.
"""

from __future__ import annotations

import re
import types
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from flashflow.backend.core.errors import FieldError
from flashflow.backend.schemas.requests import NAME, TEXT, TYPE, Input
from flashflow.backend.schemas.validation import Malformed, convert, decode, without_empty

_SHOWN = frozenset({NAME, TEXT, TYPE})
_SUSPECTS = (b"\\", b"\x7f", b'" ', b"*")


class BodyDecoder:
    """Decodes bodies of one kind of Input. ``decode`` raises ValidationError."""

    def __init__(self, kind: type[Input]) -> None:
        self._kind = kind
        self._strict = msgspec.json.Decoder(kind)
        self._plain = msgspec.json.Decoder(_without_patterns(kind))

    def decode(self, body: bytes) -> Any:
        """The body as ``kind``, or as its twin with the same fields."""
        for suspect in _SUSPECTS:
            if suspect in body:
                break
        else:
            try:
                return self._plain.decode(body)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                pass  # the strict way says what is wrong
            if b'""' in body:  # browsers send an empty referrer with every direct visit: no failure, and quick too
                try:
                    return self._plain.decode(msgspec.json.encode(without_empty(msgspec.json.decode(body), self._kind)))
                except (msgspec.MsgspecError, ValueError, RecursionError):
                    pass
        return decode(self._strict, body)


def _without_patterns(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """A twin of ``kind`` whose strings are held to their lengths alone where _SHOWN is all that they are held to."""
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
        return Union[tuple(map(_plain, arguments))]  # noqa: UP007 made of what is only known here
    if origin is list:
        return list[_plain(arguments[0])]  # type: ignore[misc]
    if isinstance(hint, type) and issubclass(hint, Input):
        return _without_patterns(hint)
    return hint


def _bare(note: Any) -> Any:
    if not isinstance(note, Meta) or note.pattern not in _SHOWN:
        return note
    return Meta(min_length=note.min_length, max_length=note.max_length)


_NUMBERS = ("limit", "days", "window_days", "dropped_at")
_NUMBER = re.compile(r"-?\d{1,9}", re.ASCII)


def decode_query(raw: bytes, kind: type[Input]) -> Any:
    """The query string as ``kind``; unknown, doubled and ill-formed parameters are refused.

    All is text but _NUMBERS: msgspec's own lax reading would take ``since=2026`` for a moment in 1970 and ``null`` for
    a filter that was not given.
    """
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
