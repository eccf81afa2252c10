"""JSON Schema's keywords as jsonschema calls them, each counting what it costs and saying what is wrong in a few words.

jsonschema's own have the whole value in every message, look for patterns with ``re``, and compare each item with each.
``data_rules`` has made sure that every keyword holds what it should, and the schema ``false`` is written ``NEVER``.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import ContextVar
from datetime import date, datetime
from typing import Any

from flashflow.backend.rendering.json_schema_rules import pattern

NEVER: Mapping[str, Any] = {"not": {}}
"""What nothing fits. Of ``false`` jsonschema itself says so, with the whole value in its message."""

Problems = Iterator[Any]
"""jsonschema's ValidationErrors."""
Keyword = Callable[[Any, Any, Any, Any], Problems]
"""Given jsonschema's validator, what the keyword holds, the value, and the schema around."""

_TYPE_WORDS = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "text",
}
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_EMAIL = re.compile(r"[^\s@]{1,64}@[^\s@]{1,255}")
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[^\s<>\"{}|\\^`]+", re.IGNORECASE)
_LONGEST_FORMAT = 2_048


class TooCostly(Exception):
    """The schema asks more of this value than one check may cost."""


class Budget:
    """What one check may still cost, in looks at values."""

    def __init__(self, most: int) -> None:
        self.left = most

    def spend(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise TooCostly


BUDGET: ContextVar[Budget] = ContextVar("budget")


def keywords(originals: Mapping[str, Keyword]) -> dict[str, Keyword]:
    """All that are checked: ours, and of jsonschema's ``originals`` those that only lead on to other schemas."""
    leading = ("$ref", "allOf", "dependentSchemas", "if", "items", "prefixItems", "properties")
    return {name: _counted(keyword) for name, keyword in {**{n: originals[n] for n in leading}, **_OURS}.items()}


def _counted(keyword: Keyword) -> Keyword:
    def counted(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
        cost = 1
        for each in (said, value):
            if isinstance(each, dict | list | tuple):
                cost += len(each) // 4
        BUDGET.get().spend(cost)
        yield from keyword(validator, said, value, schema)

    return counted


def _problem(message: str, *path: object) -> Any:
    from jsonschema import ValidationError  # type: ignore[import-untyped]

    return ValidationError(message, path=path)


def _fits(validator: Any, value: Any, schema: Any) -> bool:
    return next(validator.descend(value, schema), None) is None


def _found(text: str, said: str) -> bool:
    return pattern(said).found_in(text, BUDGET.get().spend)


def _key(value: Any) -> Hashable:
    """What two values have in common if and only if JSON Schema calls them equal: 1 and 1.0 are, 1 and true are not."""
    BUDGET.get().spend(1)
    if isinstance(value, dict):
        return "object", frozenset((name, _key(inner)) for name, inner in value.items())
    if isinstance(value, list | tuple):
        return "array", tuple(map(_key, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return type(value).__name__, value
    return "number", value


def _written(value: Any) -> str:
    """A value of the schema's, short and on one line, at a cost that does not grow with it."""
    if isinstance(value, dict | list):
        return "a certain object" if isinstance(value, dict) else "a certain list"
    text = json.dumps(value[:61] if isinstance(value, str) else value)
    return text if len(text) <= 60 else text[:59] + "…"


# --- any value ---


def _type(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    several = [said] if isinstance(said, str) else said
    if not any(validator.is_type(value, each) for each in several):
        yield _problem("must be " + " or ".join(_TYPE_WORDS[each] for each in several))


def _enum(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    wanted = _key(value)
    if all(_key(each) != wanted for each in said):
        more = ", …" if len(said) > 8 else ""
        yield _problem("must be one of " + ", ".join(_written(each) for each in said[:8]) + more)


def _const(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    if _key(value) != _key(said):
        yield _problem(f"must be {_written(said)}")


def _any_of(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    if not any(_fits(validator, value, each) for each in said):
        yield _problem(f"must fit at least one of {len(said)} descriptions")


def _one_of(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    fitting = sum(_fits(validator, value, each) for each in said)
    if fitting != 1:
        yield _problem(f"must fit exactly one of {len(said)} descriptions, and fits {fitting}")


def _not(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    if _fits(validator, value, said):
        yield _problem("must not be as it is" if said != {} else "is not allowed here")


# --- numbers ---


def _bound(words: str, holds: Callable[[Any, Any], bool]) -> Keyword:
    def bound(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
        if validator.is_type(value, "number") and not holds(value, said):
            yield _problem(f"must be {words} {_written(said)}")

    return bound


def _is_multiple(value: Any, said: Any) -> bool:
    if isinstance(value, int) and isinstance(said, int):
        return value % said == 0
    try:
        quotient = value / said
        return bool(quotient == int(quotient))
    except OverflowError:  # beyond what a float holds nobody can tell
        return False


# --- text ---


def _pattern(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    if isinstance(value, str) and not _found(value, said):
        yield _problem(f"must match the pattern {_written(said)}")


def _format(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    check = _FORMATS.get(said)
    if isinstance(value, str) and check and not (len(value) <= _LONGEST_FORMAT and check(value)):
        yield _problem(f"must have the format {said}")


def _parses(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _is_date(text: str) -> bool:
    return bool(_DATE.fullmatch(text)) and _parses(date.fromisoformat, text)


def _is_time(text: str) -> bool:
    """RFC 3339's full-time, an offset included."""
    return bool(_TIME.fullmatch(text)) and _parses(datetime.fromisoformat, "2000-01-01T" + _to_the_microsecond(text))


def _is_moment(text: str) -> bool:
    return text[10:11] in ("T", "t", " ") and _is_date(text[:10]) and _is_time(text[11:])


def _to_the_microsecond(text: str) -> str:
    return re.sub(r"(\.\d{6})\d+", r"\1", text).upper()


_FORMATS: Mapping[str, Callable[[str], bool]] = {
    "date": _is_date,
    "time": _is_time,
    "date-time": _is_moment,
    "email": lambda text: bool(_EMAIL.fullmatch(text)),
    "uuid": lambda text: bool(_UUID.fullmatch(text)),
    "uri": lambda text: bool(_URI.fullmatch(text)),
    "ipv4": lambda text: _parses(ipaddress.IPv4Address, text),
    "ipv6": lambda text: "%" not in text and _parses(ipaddress.IPv6Address, text),
}
"""Those that cost little. Others are told to people and not checked, as the draft allows."""


def _size(kind: str, words: str, holds: Callable[[int, Any], bool]) -> Keyword:
    """How long a text, a list or an object is."""

    def size(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
        if validator.is_type(value, kind) and not holds(len(value), said):
            yield _problem(words.format(int(said)))

    return size


# --- lists ---


def _unique(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    if said and validator.is_type(value, "array") and len({_key(each) for each in value}) < len(value):
        yield _problem("must not have the same item twice")


def _contains(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    if not validator.is_type(value, "array"):
        return
    least, most = schema.get("minContains", 1), schema.get("maxContains")
    fitting = sum(_fits(validator, each, said) for each in value)
    if fitting < least or (most is not None and fitting > most):
        bounds = f"at least {int(least)}" + ("" if most is None else f" and at most {int(most)}")
        yield _problem(f"must have {bounds} of the items described, and has {fitting}")


# --- objects ---


def _required(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    if validator.is_type(value, "object"):
        for name in said:
            if name not in value:
                yield _problem("is missing", name)


def _dependent_required(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    if validator.is_type(value, "object"):
        for name, needed in said.items():
            if name in value:
                BUDGET.get().spend(len(needed) // 4)
                yield from (_problem(f"is missing, and {_written(name)} needs it", n) for n in needed if n not in value)


def _pattern_properties(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    if validator.is_type(value, "object"):
        for expression, inner in said.items():
            for name, each in value.items():
                if _found(name, expression):
                    yield from validator.descend(each, inner, path=name, schema_path=expression)


def _additional_properties(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    if validator.is_type(value, "object"):
        known, expressions = schema.get("properties", {}), schema.get("patternProperties", {})
        for name, each in value.items():
            if name not in known and not any(_found(name, expression) for expression in expressions):
                yield from validator.descend(each, said, path=name)


def _property_names(validator: Any, said: Any, value: Any, schema: Any) -> Problems:
    if validator.is_type(value, "object"):
        for name in value:
            if not _fits(validator, name, said):
                yield _problem("is not a name that is allowed here", name)


_OURS: Mapping[str, Keyword] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "minimum": _bound("at least", lambda value, said: value >= said),
    "maximum": _bound("at most", lambda value, said: value <= said),
    "exclusiveMinimum": _bound("more than", lambda value, said: value > said),
    "exclusiveMaximum": _bound("less than", lambda value, said: value < said),
    "multipleOf": _bound("a multiple of", _is_multiple),
    "pattern": _pattern,
    "format": _format,
    "minLength": _size("string", "must have at least {} characters", lambda length, said: length >= said),
    "maxLength": _size("string", "must have at most {} characters", lambda length, said: length <= said),
    "minItems": _size("array", "must have at least {} items", lambda length, said: length >= said),
    "maxItems": _size("array", "must have at most {} items", lambda length, said: length <= said),
    "minProperties": _size("object", "must have at least {} values", lambda length, said: length >= said),
    "maxProperties": _size("object", "must have at most {} values", lambda length, said: length <= said),
    "uniqueItems": _unique,
    "contains": _contains,
    "required": _required,
    "dependentRequired": _dependent_required,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "propertyNames": _property_names,
}
