"""Check template data against ``data_schema`` (JSON Schema draft 2020-12) with the library jsonschema-rs.

Schemas and data are untrusted. References stay inside the schema, patterns run in linear time, and the cost of a
check is bounded before it starts, because a running check cannot be interrupted.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any
from urllib.parse import quote, unquote

from flashflow.backend.core.errors import FieldError, ValidationError

LARGEST = 64 * 1024
"""Bytes of a schema as JSON."""
DEEPEST = 32
"""Levels of nested objects and lists, in schemas and in data."""
MOST_VALUES = 10_000
"""Values in checked data."""
MOST_SCHEMAS = 1_000
"""Subschemas in one schema. Compiling recurses up to 0.9 KB of stack into each."""
MOST_COST = 1_000_000
"""Upper bound of one check, in units of 0.2 µs at worst."""
MOST_COST_LISTED = 30_000
"""Upper bound of a check that collects every error: an error costs about 12 µs, and the library makes all at once."""
MOST_FRAMES = 256
"""Nested evaluations, about 1 KB of stack each: a stack overflow in the library would end the process."""
MOST_ERRORS = 20
MOST_PATTERNS = 100
PATTERN_BYTES = tuple(1 << n for n in range(11, 20))
"""Sizes of a compiled pattern; one character costs up to 0.2 ns for each byte."""
TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "text",
}
FORMATS = ("date", "date-time", "email", "ipv4", "ipv6", "time", "uri", "uuid")
"""Formats that are checked; others are documentation, as the draft allows."""
DRAFT = "https://json-schema.org/draft/2020-12/schema"

Pointer = tuple[str, ...]

log = logging.getLogger(__name__)

_REFUSED = {"$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$vocabulary", "additionalItems"}
_REFUSED |= {"dependencies", "unevaluatedItems", "unevaluatedProperties"}
_APPLICATORS = {
    **dict.fromkeys(("allOf", "anyOf", "dependentSchemas", "else", "if", "not", "oneOf", "then"), "here"),
    **dict.fromkeys(("additionalProperties", "items", "prefixItems", "properties"), "first_inside"),
    **dict.fromkeys(("contains", "patternProperties", "propertyNames"), "all_inside"),
    **dict.fromkeys(("$defs", "contentSchema", "definitions"), ""),
}
"""Keywords that hold subschemas, and to which values these apply (a list of _Node)."""
_NAMED = {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
"""Keywords of ``_APPLICATORS`` that hold subschemas by name; the others hold one or a list."""
_WORDS = {
    "AnyOf": "must fit at least one of the descriptions in anyOf",
    "Constant": "must be {}",
    "Contains": "has too few or too many of the items that contains describes",
    "ExclusiveMaximum": "must be less than {}",
    "ExclusiveMinimum": "must be more than {}",
    "FalseSchema": "is not allowed here",
    "MaxItems": "must have at most {} items",
    "MaxLength": "must have at most {} characters",
    "MaxProperties": "must have at most {} values",
    "Maximum": "must be at most {}",
    "MinItems": "must have at least {} items",
    "MinLength": "must have at least {} characters",
    "MinProperties": "must have at least {} values",
    "Minimum": "must be at least {}",
    "MultipleOf": "must be a multiple of {}",
    "Not": "must not fit the description in not",
    "OneOfMultipleValid": "must fit exactly one of the descriptions in oneOf, and fits several",
    "OneOfNotValid": "must fit exactly one of the descriptions in oneOf, and fits none",
    "Pattern": "must match the pattern {}",
    "PropertyNames": "is not a name that is allowed here",
    "Required": "is missing",
    "UniqueItems": "must not have the same item twice",
}


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise ValidationError with the place of the first mistake: ``data_schema.properties.x.type: …``.

    Without jsonschema-rs only the size and the JSON form are checked.
    """
    text = _canonical(schema)
    if available():
        _compiled(text)


def check_data(schema: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Raise ValidationError with at most 20 errors: ``data.price must be a number``; also for a wrong schema.

    Without jsonschema-rs, pass any data.
    """
    if not available():
        return
    compiled = _compiled(_canonical(schema))
    faults, weight, height = _inspect(data, "data", MOST_VALUES)
    if errors := faults or compiled.errors(dict(data), weight, height):
        raise ValidationError("; ".join(f"{error.field} {error.message}" for error in errors), tuple(errors))


@cache
def available() -> bool:
    """Return whether jsonschema-rs is installed; log once if it is not. It has no wheel for Android and iOS."""
    try:
        import jsonschema_rs  # noqa: F401
    except ImportError:
        log.warning("data_schema is not checked on this device: the package jsonschema-rs is not installed")
        return False
    return True


def _canonical(schema: Any) -> str:
    """Return the schema as JSON text with sorted keys. Raise ValidationError."""
    if not isinstance(schema, Mapping):
        raise ValidationError.of("data_schema", "must be an object")
    try:
        text = json.dumps(dict(schema), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except RecursionError:
        raise ValidationError.of("data_schema", "is nested too deeply") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise ValidationError.of("data_schema", f"is not plain JSON: {error}"[:200]) from None
    if size > LARGEST:
        raise ValidationError.of("data_schema", f"is larger than {LARGEST // 1024} KiB")
    return text


@lru_cache(maxsize=64)
def _compiled(text: str) -> _Compiled:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):  # a number with thousands of digits
        raise ValidationError.of("data_schema", "has a number that cannot be read") from None
    for fault in _inspect(schema, "data_schema", LARGEST)[0]:
        raise ValidationError.of(*fault)
    return _Compiled(schema)


@dataclass
class _Node:
    """A subschema: its own cost, and the subschemas that it applies."""

    own: int = 1
    each: int = 1  # for every value inside too: an error copies the value, uniqueItems compares all of it
    names: int = 0  # patterns matched with each name
    here: list[Pointer] = field(default_factory=list)  # to the same value
    first_inside: list[Pointer] = field(default_factory=list)  # at most one of them to each child
    all_inside: list[Pointer] = field(default_factory=list)  # all of them to each child


class _Compiled:
    """A schema ready for checks, with the bounds of their cost. Raise ValidationError. Thread-safe."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._nodes: dict[Pointer, _Node] = {}
        self._references: list[tuple[Pointer, Pointer]] = []
        self._patterns: list[int] = []
        # Either would make the library take another draft or resolve references against another address.
        if str(schema.pop("$schema", DRAFT)).rstrip("#") != DRAFT:
            raise _wrong(("$schema",), f"must be {DRAFT}")
        schema.pop("$id", None)
        self._walk(schema, ())
        for at, target in self._references:
            if target not in self._nodes:
                raise _wrong((*at, "$ref"), "leads to no schema in this one")
            self._nodes[at].here.append(target)
        try:
            self._order = tuple(TopologicalSorter({at: node.here for at, node in self._nodes.items()}).static_order())
        except CycleError as error:
            raise _wrong(error.args[1][0], "refers back to itself without a step into the data") from None
        self._bound = cache(self._bound_for)  # by height
        if self._too_costly(1, 0):
            raise _wrong((), "is too complex to be checked")
        self._validator = _validator(schema)

    def errors(self, data: dict[str, Any], weight: int, height: int) -> list[FieldError]:
        """Return at most 20 errors, each once; only the first where collecting all could take too long."""
        import jsonschema_rs

        if why := self._too_costly(weight, height):
            return [FieldError("data", why)]
        try:
            if self._validator.is_valid(data):
                return []
            if weight * self._bound(height)[0] <= MOST_COST_LISTED:
                return list(dict.fromkeys(map(_data_error, self._validator.iter_errors(data))))[:MOST_ERRORS]
            self._validator.validate(data)
        except jsonschema_rs.ValidationError as error:
            return [_data_error(error)]
        except (ValueError, TypeError):  # a lone surrogate, or a subclass of str that the library does not take
            return [FieldError("data", "is not plain JSON")]
        return []

    def _too_costly(self, weight: int, height: int) -> str:
        cost, frames = self._bound(height)
        if weight * cost > MOST_COST:
            return "takes too long to be held against data_schema"
        return "is nested too deeply for data_schema" if frames > MOST_FRAMES else ""

    def _bound_for(self, height: int) -> tuple[int, int]:
        """Return bounds for a value of that height: the cost for each unit of its weight, and the nested calls.

        A subschema's cost is each + max(own, children's) + those of ``here``: the weight of a value includes that of
        its children, and ``own`` counts once.
        """
        below: dict[Pointer, tuple[int, int]] = {}
        for _ in range(height + 1):
            bounds: dict[Pointer, tuple[int, int]] = {}
            for at in self._order:
                node = self._nodes[at]
                here = [bounds[to] for to in node.here]
                one, every = ([below[to] for to in tos if below] for tos in (node.first_inside, node.all_inside))
                inside = node.names + max((cost for cost, _ in one), default=0) + sum(cost for cost, _ in every)
                cost = node.each + max(node.own, inside) + sum(cost for cost, _ in here)
                frames = 1 + max((frames for _, frames in (*here, *one, *every)), default=0)
                bounds[at] = min(cost, MOST_COST + 1), min(frames, MOST_FRAMES + 1)
            if bounds == below:  # no references in a circle
                break
            below = bounds
        return below[()]

    def _walk(self, schema: Any, at: Pointer) -> None:
        """Note a subschema and those inside it. The library refuses what is malformed, after this."""
        node = self._nodes[at] = _Node()
        if len(self._nodes) > MOST_SCHEMAS:
            raise _wrong((), f"has more than {MOST_SCHEMAS:,} schemas")
        for key, value in list(schema.items()) if isinstance(schema, dict) else ():
            here = (*at, key)
            if key in _REFUSED:
                raise _wrong(here, "is not supported")
            if key in ("$id", "$schema"):
                raise _wrong(here, "can only stand at the top")
            if key == "format" and value not in FORMATS and isinstance(value, str):
                del schema[key]
            if key == "$ref" and isinstance(value, str):
                schema[key] = quote(unquote(value), safe="#/~")  # the library takes no letters beyond ASCII
            if key == "additionalProperties" and value is False:
                value = schema[key] = {"not": {}}  # noqa: PLW2901  so that each property is named, not the object
            self._note_cost(node, key, value, here)
            for place, inner in _subschemas(key, value, here):
                self._walk(inner, place)
                if applied := _APPLICATORS[key]:
                    getattr(node, applied).append(place)

    def _note_cost(self, node: _Node, key: str, value: Any, at: Pointer) -> None:
        """Add the keyword's own cost, its pattern or its reference. Raise ValidationError."""
        node.own += 1 + (len(value) // 4 if isinstance(value, dict | list) else 0)
        if key == "$ref":
            if not isinstance(value, str) or not (value == "#" or value.startswith("#/")):
                raise _wrong(at, "must begin with #/ : only references into this schema are followed")
            parts = (part.replace("~1", "/").replace("~0", "~") for part in unquote(value[1:]).split("/")[1:])
            self._references.append((at[:-1], tuple(parts)))
        elif key in ("enum", "const"):
            node.own += len(json.dumps(value)) // 16
        elif key in ("required", "dependentRequired"):
            node.own += len(json.dumps(value)) // 4  # an error for each name
        elif key in ("anyOf", "oneOf") and isinstance(value, list):
            node.each += 3 * len(value)  # an error for each branch, inside its own
        elif key == "multipleOf":
            node.own += 300  # exact arithmetic
        elif key == "uniqueItems":
            node.each += 20
        elif key == "pattern" and isinstance(value, str):
            node.own += self._pattern(value, at)
        elif key == "patternProperties" and isinstance(value, dict):
            node.names += 2 * sum(self._pattern(name, at) for name in value)  # again for additionalProperties

    def _pattern(self, text: str, at: Pointer) -> int:
        """Return the cost of matching 16 characters. Raise ValidationError."""
        size = _pattern_size(text)
        self._patterns.append(size)
        if not size:
            raise _wrong(at, "is not a pattern that can be checked in linear time, or is too large")
        if len(self._patterns) > MOST_PATTERNS or sum(self._patterns) > 2 * PATTERN_BYTES[-1]:
            raise _wrong(at, "is one pattern more than can be checked in one schema")
        return size // 32


def _subschemas(key: str, value: Any, at: Pointer) -> list[tuple[Pointer, Any]]:
    """Return the subschemas that a keyword holds, each with its place."""
    if key not in _APPLICATORS or (key in _NAMED and not isinstance(value, dict)):
        return []
    if key in _NAMED:
        return [((*at, name), inner) for name, inner in value.items()]
    if isinstance(value, list):
        return [((*at, str(index)), inner) for index, inner in enumerate(value)]
    return [(at, value)]


@lru_cache(maxsize=256)
def _pattern_size(text: str) -> int:
    """Return a bound in bytes for the compiled pattern; 0 if it cannot be matched in linear time or is too large."""
    import jsonschema_rs

    for size in PATTERN_BYTES:
        try:
            options = jsonschema_rs.RegexOptions(size_limit=size)
            jsonschema_rs.Draft202012Validator({"pattern": text}, pattern_options=options, offline=True)
        except jsonschema_rs.ValidationError:
            continue
        return size
    return 0


def _validator(schema: dict[str, Any]) -> Any:
    import jsonschema_rs

    try:
        return jsonschema_rs.Draft202012Validator(
            schema,
            validate_formats=True,
            offline=True,
            mask="value",  # or each error would hold a copy of the value as text
            pattern_options=jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES[-1], dfa_size_limit=1 << 16),
            keywords={"uniqueItems": _UniqueItems},
        )
    except jsonschema_rs.ValidationError as error:
        path, message = _place_and_words(error)
        if path and path[-1] == "type":
            message = "must be one of " + ", ".join(TYPES) + ", or a list of them"
        raise _wrong(tuple(map(str, path)), message) from None


class _UniqueItems:
    """``uniqueItems`` in linear time: the library's own hashes many large numbers to one place."""

    def __init__(self, parent_schema: dict[str, Any], value: Any, schema_path: list[str | int]) -> None:
        self._wanted = value

    def validate(self, instance: Any) -> None:
        """Raise ValueError where two items are equal; 1 and 1.0 are, 1 and true are not."""
        if self._wanted and isinstance(instance, list | tuple):
            texts = {json.dumps(_whole(item), sort_keys=True) for item in instance}
            if len(texts) < len(instance):
                raise ValueError


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _data_error(error: Any) -> FieldError:
    path, message = _place_and_words(error)
    return FieldError(_dotted("data", *path), message)


def _place_and_words(error: Any) -> tuple[list[str | int], str]:
    """Return an error's path and a short sentence without the value."""
    kind, name, path = error.kind, type(error.kind).__name__, list(error.instance_path)
    if name == "Required":
        path.append(kind.property)
    elif name == "PropertyNames":
        path.append(kind.error.instance)
    elif name == "Not" and kind.schema == {}:
        name = "FalseSchema"
    elif name == "Custom":
        name = "UniqueItems"
    if name == "Type":
        return path, "must be " + " or ".join(TYPES[each] for each in kind.types)
    if name == "Format":
        return path, f"must have the format {kind.format}"
    if name == "Enum":
        options = kind.options
        some = ", ".join(map(_written, options[:8])) or "an empty list"
        return path, f"must be one of {some}" + (", …" if len(options) > 8 else "")
    words = _WORDS.get(name, "cannot be checked")
    return path, words.format(_written(kind.value)) if "{}" in words else words


def _written(value: Any) -> str:
    """Return a value of the schema, short and on one line."""
    if isinstance(value, dict | list):
        return "a certain object" if isinstance(value, dict) else "a certain list"
    text = json.dumps(value[:61] if isinstance(value, str) else value)
    return text if len(text) <= 60 else text[:59] + "…"


def _inspect(value: Any, root: str, most: int) -> tuple[list[FieldError], int, int]:
    """Return what is not JSON or out of bounds, the weight (values, and a unit for 16 characters), and the height."""
    waiting: list[tuple[Any, tuple[object, ...]]] = [(value, (root,))]
    faults: list[FieldError] = []
    seen = weight = height = 0
    while waiting and len(faults) < MOST_ERRORS:
        value, at = waiting.pop()
        seen, weight, height = seen + 1, weight + 1, max(height, len(at) - 1)
        if seen > most:
            faults.append(FieldError(root, f"has more than {most:,} values"))
            break
        if isinstance(value, dict | list | tuple) and len(at) > DEEPEST:
            faults.append(FieldError(_dotted(*at[:3]), f"is nested more than {DEEPEST} levels deep"))
        elif isinstance(value, dict):
            waiting += [(inner, (*at, key)) for key, inner in value.items()]
            if not all(isinstance(key, str) for key in value):
                faults.append(FieldError(_dotted(*at), "has a name that is not text"))
            else:
                weight += sum(len(name) // 16 for name in value)
        elif isinstance(value, list | tuple):
            waiting += [(inner, (*at, index)) for index, inner in enumerate(value)]
        elif why := _not_json(value):
            faults.append(FieldError(_dotted(*at), why))
        elif isinstance(value, str):
            weight += len(value) // 16
    return faults, weight, height


def _not_json(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a number that JSON knows"
    if isinstance(value, int) and value.bit_length() > 1024:  # about what a float can hold
        return "is a number out of range"
    return "" if isinstance(value, str | int | float | None) else "is not plain JSON"


def _dotted(*parts: object) -> str:
    """Return a place as one line, cut to a readable length."""
    named = (str(part) if str(part).isprintable() else ascii(part)[1:-1] for part in parts)
    return ".".join(part if len(part) <= 60 else part[:59] + "…" for part in named)[:300]


def _wrong(at: Pointer, message: str) -> ValidationError:
    return ValidationError.of(_dotted("data_schema", *at), message)
