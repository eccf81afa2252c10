"""What a ``data_schema`` may say: JSON Schema draft 2020-12, less what could reach out or never end.

References lead only into the schema itself and never in a circle that takes no step into the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from flashflow.backend.core.errors import FieldError, ValidationError
from flashflow.backend.rendering.regex_matcher import Pattern, PatternError

DEEPEST = 32
"""Objects and lists inside each other."""
MOST_IN_PLACE = 64
"""Schemas that may follow from each other for one and the same value."""
MOST_PATTERNS = 100
MOST_STATES = 5_000
"""Of all patterns of a schema together."""
LARGEST_BITS = 1_024
"""Of a whole number: about what a float can reach."""
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
DRAFT = "https://json-schema.org/draft/2020-12/schema"

Pointer = tuple[str, ...]

_REFUSED = {
    "$anchor": "only references that begin with #/ are followed",
    "$dynamicAnchor": "only references that begin with #/ are followed",
    "$dynamicRef": "only references that begin with #/ are followed",
    "$recursiveRef": "only references that begin with #/ are followed",
    "$vocabulary": "is not for a schema of data",
    "additionalItems": "is not of draft 2020-12: items and prefixItems are",
    "dependencies": "is not of draft 2020-12: dependentRequired and dependentSchemas are",
    "unevaluatedItems": "cannot be checked here; items after prefixItems can",
    "unevaluatedProperties": "cannot be checked here; additionalProperties can",
}


def check(schema: Any) -> tuple[Pointer, ...]:
    """Where in it the schema ``false`` stands. Raises ValidationError with the place of the first mistake:
    ``data_schema.properties.x.type: …``."""
    walk = _Walk()
    walk.schema(schema, (), 0)
    walk.follow()
    return tuple(walk.nevers)


@lru_cache(maxsize=128)
def pattern(text: str) -> Pattern:
    """Raises PatternError."""
    return Pattern(text)


def parts_of(pointer: str) -> Pointer:
    """A reference's parts (RFC 6901), without their escapes."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in unquote(pointer).split("/")[1:])


def dotted(*parts: object) -> str:
    """A place as it may be shown: one line, cut to what a person can read."""
    named = (str(part) if str(part).isprintable() else ascii(part)[1:-1] for part in parts)
    return ".".join(part if len(part) <= 60 else part[:59] + "…" for part in named)[:300]


class _Walk:
    """Looks at a schema's every part."""

    def __init__(self) -> None:
        self._onwards: dict[Pointer, list[Pointer]] = {}
        """From each schema to those that the same value must then be held against."""
        self._references: list[tuple[Pointer, Pointer]] = []
        self._pattern_sizes: list[int] = []
        self.nevers: list[Pointer] = []

    def schema(self, value: Any, at: Pointer, depth: int) -> None:
        if depth > DEEPEST:
            raise _wrong(at, f"is nested more than {DEEPEST} levels deep")
        self._onwards[at] = []
        if isinstance(value, bool):
            if not value:
                self.nevers.append(at)
            return
        if not isinstance(value, dict):
            raise _wrong(at, "must be a schema: an object, true or false")
        for key, said in value.items():
            if key in _REFUSED:
                raise _wrong((*at, key), _REFUSED[key])
            if rule := _RULES.get(key):
                rule(self, said, at, key, depth + 1)

    def follow(self) -> None:
        """Where the references lead. Raises ValidationError for one that leads nowhere or round and round."""
        for at, target in self._references:
            if target not in self._onwards:
                raise _wrong((*at, "$ref"), "leads to no schema in this one")
            self._onwards[at].append(target)
        lengths: dict[Pointer, int] = {}
        for at in self._onwards:
            self._length(at, (), lengths)

    def _length(self, at: Pointer, before: tuple[Pointer, ...], lengths: dict[Pointer, int]) -> int:
        """How many schemas follow from ``at`` for one value, one from the other."""
        if at not in lengths:
            if at in before:
                raise _wrong(at, "refers back to itself without a step into the data")
            if len(before) >= MOST_IN_PLACE:
                raise _wrong(at, f"is at the end of more than {MOST_IN_PLACE} schemas that lead to each other")
            lengths[at] = 1 + max((self._length(to, (*before, at), lengths) for to in self._onwards[at]), default=0)
            if lengths[at] > MOST_IN_PLACE:
                raise _wrong(at, f"leads through more than {MOST_IN_PLACE} schemas for one value")
        return lengths[at]

    # --- keywords, by what they hold; the rules of draft 2020-12 ---

    def one(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        self.schema(said, (*at, key), depth)

    def one_here(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        self.one(said, at, key, depth)
        self._onwards[at].append((*at, key))

    def several(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        if not isinstance(said, list) or not said:
            raise _wrong((*at, key), "must be a list of schemas, at least one")
        for index, schema in enumerate(said):
            self.schema(schema, (*at, key, str(index)), depth + 1)

    def several_here(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        self.several(said, at, key, depth)
        self._onwards[at] += [(*at, key, str(index)) for index in range(len(said))]

    def named(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        if not isinstance(said, dict):
            raise _wrong((*at, key), "must be an object of schemas")
        for name, schema in said.items():
            self.schema(schema, (*at, key, name), depth + 1)

    def named_here(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        self.named(said, at, key, depth)
        self._onwards[at] += [(*at, key, name) for name in said]

    def by_pattern(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        self.named(said, at, key, depth)
        for name in said:
            self.regex(name, at, key, depth)

    def regex(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        self.text(said, at, key, depth)
        try:
            self._pattern_sizes.append(pattern(said).size)
        except PatternError as error:
            raise _wrong((*at, key), f"is not a pattern that can be checked: it {error}") from None
        if len(self._pattern_sizes) > MOST_PATTERNS or sum(self._pattern_sizes) > MOST_STATES:
            raise _wrong((*at, key), "is one pattern more than can be checked in one schema")

    def reference(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        if not isinstance(said, str) or not (said == "#" or said.startswith("#/")):
            raise _wrong((*at, key), "must begin with #/ : only references into this schema are followed")
        self._references.append((at, parts_of(said[1:])))

    def only_at_the_top(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        self.text(said, at, key, depth)
        if at:
            raise _wrong((*at, key), "can only stand at the top")
        if key == "$schema" and said.rstrip("#") != DRAFT:
            raise _wrong((*at, key), f"must be {DRAFT}, the draft that is checked here")

    def types(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        several = said if isinstance(said, list) else [said]
        if not several or len(several) > len(TYPES) or any(each not in TYPES for each in several):
            raise _wrong((*at, key), "must be one of " + ", ".join(TYPES) + ", or a list of them")
        if len(set(several)) < len(several):
            raise _wrong((*at, key), "has a type twice")

    def names(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        if not isinstance(said, list) or not all(isinstance(each, str) for each in said):
            raise _wrong((*at, key), "must be a list of names")
        if len(set(said)) < len(said):
            raise _wrong((*at, key), "has a name twice")

    def names_by_name(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        if not isinstance(said, dict):
            raise _wrong((*at, key), "must be an object of lists of names")
        for name, names in said.items():
            self.names(names, (*at, key), name, depth + 1)

    def count(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        self.number(said, at, key, depth)
        if said < 0 or said != int(said):
            raise _wrong((*at, key), "must be a whole number, 0 or more")

    def number(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        if isinstance(said, bool) or not isinstance(said, int | float):
            raise _wrong((*at, key), "must be a number")

    def factor(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        self.number(said, at, key, depth)
        if said <= 0:
            raise _wrong((*at, key), "must be more than 0")

    def flag(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        if not isinstance(said, bool):
            raise _wrong((*at, key), "must be true or false")

    def text(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        if not isinstance(said, str):
            raise _wrong((*at, key), "must be text")

    def listed(self, said: Any, at: Pointer, key: str, depth: int) -> None:
        if not isinstance(said, list):
            raise _wrong((*at, key), "must be a list")


_Rule = Callable[[_Walk, Any, Pointer, str, int], None]

_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(("additionalProperties", "contains", "contentSchema", "items", "propertyNames"), _Walk.one),
    **dict.fromkeys(("else", "if", "not", "then"), _Walk.one_here),
    "prefixItems": _Walk.several,
    **dict.fromkeys(("allOf", "anyOf", "oneOf"), _Walk.several_here),
    **dict.fromkeys(("$defs", "definitions", "properties"), _Walk.named),
    "dependentSchemas": _Walk.named_here,
    "patternProperties": _Walk.by_pattern,
    "pattern": _Walk.regex,
    "$ref": _Walk.reference,
    **dict.fromkeys(("$id", "$schema"), _Walk.only_at_the_top),
    "type": _Walk.types,
    "required": _Walk.names,
    "dependentRequired": _Walk.names_by_name,
    **dict.fromkeys(("maxContains", "maxItems", "maxLength", "maxProperties"), _Walk.count),
    **dict.fromkeys(("minContains", "minItems", "minLength", "minProperties"), _Walk.count),
    **dict.fromkeys(("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"), _Walk.number),
    "multipleOf": _Walk.factor,
    **dict.fromkeys(("deprecated", "readOnly", "uniqueItems", "writeOnly"), _Walk.flag),
    **dict.fromkeys(("$comment", "contentEncoding", "contentMediaType", "description", "format", "title"), _Walk.text),
    **dict.fromkeys(("enum", "examples"), _Walk.listed),
}
"""What is neither here nor refused is no keyword of the draft and means nothing; ``const`` may be anything."""


def faults(value: Any, root: str, most: int) -> Iterator[FieldError]:
    """What in ``value`` JSON cannot say or nobody can check, by its place; at most ``most`` values are looked at."""
    waiting: list[tuple[Any, tuple[object, ...]]] = [(value, (root,))]
    seen = 0
    while waiting:
        value, at = waiting.pop()
        seen += 1
        if seen > most:
            yield FieldError(root, f"has more than {most:,} values")
            return
        if isinstance(value, dict | list | tuple) and len(at) > DEEPEST:
            yield FieldError(dotted(*at[:3]), f"is nested more than {DEEPEST} levels deep")
        elif isinstance(value, dict):
            waiting += [(inner, (*at, key)) for key, inner in value.items()]
            if not all(isinstance(key, str) for key in value):
                yield FieldError(dotted(*at), "has a name that is not text")
        elif isinstance(value, list | tuple):
            waiting += [(inner, (*at, index)) for index, inner in enumerate(value)]
        elif why := _not_json(value):
            yield FieldError(dotted(*at), why)


def _not_json(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a number that JSON knows"
    if isinstance(value, int) and value.bit_length() > LARGEST_BITS:
        return "is a number out of range"
    return "" if isinstance(value, str | int | float | None) else "is not plain JSON"


def _wrong(at: Pointer, message: str) -> ValidationError:
    return ValidationError.of(dotted("data_schema", *at), message)
