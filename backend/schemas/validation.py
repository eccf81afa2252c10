"""Decode requests and report every invalid field.

Valid input takes one msgspec decode. Only after a failure is the value checked field by field: empty optional strings
are dropped, and remaining errors are collected with their paths.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from functools import cache, lru_cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType

from flashflow.backend.core.encoding import decoder_of
from flashflow.backend.core.error_collector import sentence
from flashflow.backend.core.errors import FieldError, ValidationError
from flashflow.backend.core.named_tuple import NamedTuple

T = TypeVar("T")

MOST_ERRORS = 100
"""Field errors in one response."""
MOST_ROW_ERRORS = 12
"""Field errors per row of a batch: 1,000 hostile rows must not block the event loop for seconds."""
ERRORS_A_GUESS = 4
"""One unknown field per so many possible errors gets a suggestion, because comparing names takes time."""
MOST_ITEMS = 1000
"""Items of a list that are checked; no list may have more."""
LONGEST_NAME = 64
"""Characters of an unknown field's name: longer names get no suggestion and are cut in the response."""
NEAR = 0.4
"""Similarity, from 0 to 1, above which a known name is suggested."""


class Malformed(ValidationError):
    """Value that does not match its type.

    ``part`` is built from the valid fields, for checks of rules between fields. An invalid required field is None (an
    object of such fields, or an empty list). ``part`` is None where it cannot be built.
    """

    def __init__(self, errors: Iterable[FieldError], part: Any = None) -> None:
        named = tuple(errors)
        super().__init__(sentence(named), named)
        self.part = part


def decode(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw, what: str = "The body") -> T:
    """Decode ``body``. Raises Malformed with up to MOST_ERRORS fields."""
    return _decode(decoder, body, what, MOST_ERRORS)


def decode_row(kind: type[T], row: bytes | msgspec.Raw) -> T:
    """Decode one row of a batch. Raises Malformed with up to MOST_ROW_ERRORS fields."""
    return _decode(decoder_of(kind), row, "The row", MOST_ROW_ERRORS)


def _decode(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw, what: str, most: int) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        first = str(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise _not_json(what, error) from None
    try:
        value = msgspec.json.decode(body)
    except msgspec.ValidationError:  # a number out of range
        raise Malformed([explain(first)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise _not_json(what, error) from None
    left = without_empty(value, decoder.type)
    if left is not value:
        try:
            return decoder.decode(msgspec.json.encode(left))
        except msgspec.ValidationError as error:
            first = str(error)
    raise _malformed(left, decoder.type, first, most)


def convert(value: Any, kind: type[T]) -> T:
    """Convert plain Python data to ``kind``. Raises Malformed."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        first = str(error)
    except (RecursionError, OverflowError) as error:
        raise _not_json("The value", error) from None
    left = without_empty(value, kind)
    if left is not value:
        try:
            return msgspec.convert(left, kind)
        except msgspec.ValidationError as error:
            first = str(error)
    raise _malformed(left, kind, first)


def _not_json(what: str, error: Exception) -> Malformed:
    if isinstance(error, RecursionError):
        return Malformed([FieldError("", f"{what} is nested too deeply.")])
    if isinstance(error, OverflowError):
        return Malformed([FieldError("", f"{what} holds a number out of range.")])
    return Malformed([FieldError("", f"{what} is not valid JSON: {error}")])


def _malformed(value: Any, kind: Any, first: str, most: int = MOST_ERRORS) -> Malformed:
    """Collect the errors of ``value``. ``first`` is msgspec's message, used where each field by itself is valid (a
    duplicate field)."""
    found = FieldErrors(most)
    part = _check(value, kind, "", found)
    if not found.errors:
        return Malformed([explain(first)])
    return Malformed(found.errors, None if part is UNSET else part)


# --- types ------------------------------------------------------------------------------------------------------------


class _Field(NamedTuple):
    attribute: str
    hint: Any
    required: bool
    empty_is_absent: bool
    """Whether an empty string means absent: the field is optional and does not accept an empty string."""
    holds: type[msgspec.Struct] | None
    """Struct of the field's value, or of the items of its list."""


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, _Field]:
    """Return the fields of ``kind`` by JSON name."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(kind):
        hint = _without_raw(hints[field.name])
        holds = _object(hint) or _object(_item(hint))
        empty_is_absent = not field.required and _is_text(hint) and not _fits("", hint)
        found[field.encode_name] = _Field(field.name, hint, field.required, empty_is_absent, holds)
    return found


def _is_text(hint: Any) -> bool:
    """Whether the JSON value is a string: text, time, date or choice."""
    return any(one in {str, datetime, date} or get_origin(one) is Literal for one in _choices(hint))


def _fits(value: object, hint: Any) -> bool:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    return True


def _without_raw(hint: Any) -> Any:
    """Replace Raw by Any: rows are validated separately."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is msgspec.Raw:
        return Any
    if origin is Annotated:
        return Annotated[(_without_raw(arguments[0]), *arguments[1:])]
    if origin is list:
        return list[_without_raw(arguments[0])]  # type: ignore[misc]  # known only here
    return hint


@cache
def _choices(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union without None, UNSET and limits; else the hint alone, without its limits."""
    if get_origin(hint) is Annotated:
        return _choices(get_args(hint)[0])
    if get_origin(hint) in {Union, types.UnionType}:
        return tuple(one for part in get_args(hint) for one in _choices(part) if one not in {type(None), UnsetType})
    return (hint,)


@cache
def _object(hint: Any) -> type[msgspec.Struct] | None:
    """Return the Struct that ``hint`` accepts, or None."""
    return next((one for one in _choices(hint) if isinstance(one, type) and issubclass(one, msgspec.Struct)), None)


@cache
def _item(hint: Any) -> Any:
    """Return the item type of the list that ``hint`` accepts; UNSET where it accepts none."""
    return next((get_args(one)[0] for one in _choices(hint) if get_origin(one) is list), UNSET)


# --- empty strings ----------------------------------------------------------------------------------------------------


def without_empty(value: Any, kind: Any) -> Any:
    """Return ``value`` without empty optional strings, at every depth; the same object where there are none."""
    if isinstance(value, list):
        items = [without_empty(one, kind) for one in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if not isinstance(value, Mapping):
        return value
    fields = _fields(kind)
    changes: dict[str, Any] = {}
    for name, one in value.items():
        field = fields.get(name)
        if field is None:
            continue
        if one == "":
            if field.empty_is_absent:
                changes[name] = UNSET
        elif field.holds is not None and (left := without_empty(one, field.holds)) is not one:
            changes[name] = left
    if not changes:
        return value
    return {name: one for name, one in {**value, **changes}.items() if one is not UNSET}


# --- faults -----------------------------------------------------------------------------------------------------------


class FieldErrors:
    """Errors of one value, up to ``most``, and the number of name suggestions left."""

    def __init__(self, most: int = MOST_ERRORS) -> None:
        self.guesses = most // ERRORS_A_GUESS
        self.errors: list[FieldError] = []
        self._most = most

    @property
    def full(self) -> bool:
        return len(self.errors) >= self._most

    def add(self, error: FieldError) -> None:
        if not self.full:
            self.errors.append(error)


def _check(value: Any, hint: Any, path: str, found: FieldErrors) -> Any:
    """Collect the errors of ``value``. Return its valid part, UNSET where there is none."""
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        text = str(error)
    kind, item = _object(hint), _item(hint)
    if kind is not None and isinstance(value, Mapping):
        return _check_object(value, kind, path, found)
    if item is not UNSET and isinstance(value, list | tuple):
        return _check_list(value, item, path, found, text)
    fault = explain(text, path)
    if text.startswith("Invalid enum value") and (words := _words(hint)):
        fault = FieldError(fault.field, f"{fault.message}; there are {', '.join(map(str, words))}")
    found.add(fault)
    return UNSET


@cache
def _words(hint: Any) -> tuple[Any, ...]:
    """Return the values that ``hint`` accepts, if it is a choice."""
    return tuple(word for choice in _choices(hint) if get_origin(choice) is Literal for word in get_args(choice))


def _check_object(value: Mapping[str, Any], kind: type[msgspec.Struct], path: str, found: FieldErrors) -> Any:
    fields = _fields(kind)
    part = {}
    for name, one in value.items():
        if found.full:
            return UNSET
        if name not in fields:
            found.guesses -= 1
            words = _unknown(nearest(name, tuple(fields)), tuple(fields)) if found.guesses >= 0 else UNKNOWN
            found.add(FieldError(_join(path, name), words))
            continue
        good = _check(one, fields[name].hint, _join(path, name), found)
        if good is not UNSET:
            part[fields[name].attribute] = good
    for name, field in fields.items():
        if field.required and field.attribute not in part:
            if name not in value:
                found.add(FieldError(_join(path, name), "is required"))
            part[field.attribute] = _blank(field.hint)
    return kind(**part)


def _blank(hint: Any) -> Any:
    """Return the placeholder for a missing or invalid required value."""
    kind = _object(hint)
    if kind is not None:
        return _check_object({}, kind, "", FieldErrors())
    return None if _item(hint) is UNSET else []


def _check_list(value: list[Any] | tuple[Any, ...], item: Any, path: str, found: FieldErrors, text: str) -> Any:
    before = len(found.errors)
    for index, one in enumerate(value[:MOST_ITEMS]):
        if found.full:
            return UNSET
        _check(one, item, _join(path, str(index)), found)
    if len(found.errors) == before:  # each item is valid: the list is too short or too long
        found.add(explain(text, path))
    return UNSET


def _join(path: str, name: str) -> str:
    return f"{path}.{name[:LONGEST_NAME]}".strip(".")


@lru_cache(maxsize=256)
def _unknown(near: str | None, known: tuple[str, ...]) -> str:
    if near is not None:
        return f"{UNKNOWN}; did you mean `{near}`?"
    listed = ", ".join(f"`{name}`" for name in known)
    return f"{UNKNOWN}; there {f'are {listed}' if listed else 'is none'}"


UNKNOWN = "is not a field of this request"


@lru_cache(maxsize=1024)
def nearest(name: str, known: tuple[str, ...]) -> str | None:
    """Return the known name closest to ``name`` (other case or separators, a typo, some of its words), or None."""
    if not name or len(name) > LONGEST_NAME:
        return None
    plain = _plain(name)
    pairs, words = _pairs(plain), set(plain.split("_"))
    best, most = None, NEAR
    for other in known:
        theirs, theirs_words = _pairs(other), set(other.split("_"))
        shared = len(words & theirs_words) / max(len(words), len(theirs_words))
        swapped = 0.9 if sorted(plain) == sorted(other) else 0.0
        likeness = max(2 * len(pairs & theirs) / (len(pairs) + len(theirs)), shared, swapped)
        if likeness > most:
            best, most = other, likeness
    return best


@lru_cache(maxsize=1024)
def _pairs(name: str) -> frozenset[str]:
    """Return the letter pairs of ``name``, ends marked, for Dice similarity."""
    ended = f"^{name}$"
    return frozenset(ended[at : at + 2] for at in range(len(ended) - 1))


def _plain(name: str) -> str:
    """Normalize ``userId``, ``User-ID`` and ``user id`` to ``user_id``."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_NAMED = re.compile(r"^Object (?:contains unknown|missing required) field `(?P<field>.*)`$", re.DOTALL)
_PATTERN = re.compile(r"^Expected `str` matching regex .*$", re.DOTALL)


def explain(text: str, prefix: str = "") -> FieldError:
    """Convert msgspec's message (``Expected `str`, got `int` - at `$.a[0].b```) to an error of the path ``a.0.b``."""
    match = _AT.match(text)
    what, path = (match["what"], match["path"] or "$") if match else (text, "$")
    field = prefix + path.removeprefix("$").replace("[...]", "").replace("[", ".").replace("]", "")
    if named := _NAMED.match(what):
        field = f"{field}.{named['field'][:LONGEST_NAME]}"
        what = "is required" if "missing" in what else UNKNOWN
    elif _PATTERN.match(what):
        what = "has characters or a form that is not allowed here"
    elif "timezone" in what:
        what = "needs a time with an offset, like 2026-11-22T10:15:30Z"
    return FieldError(field.strip("."), what.replace("`", "'"))
