"""``data_schema``: a template says what data it takes, in JSON Schema draft 2020-12, and every send is held to it.

Schemas and data come from strangers: nothing is ever fetched, and no check costs more than a set amount.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Protocol

from flashflow.backend.core.errors import FieldError, ValidationError
from flashflow.backend.rendering.json_schema_keywords import BUDGET, NEVER, Budget, TooCostly, keywords
from flashflow.backend.rendering.json_schema_rules import check, dotted, faults

LARGEST = 64 * 1024
"""Bytes of a schema as JSON."""
MOST_VALUES = 10_000
"""In data that are checked."""
MOST_COST = 20_000
"""Of one check, in looks at values: about a fifth of a second at the most."""
MOST_ERRORS = 20
"""That are told at once."""


class _Validator(Protocol):
    def iter_errors(self, instance: Any) -> Iterator[Any]: ...


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises ValidationError where ``schema`` is none that can be checked, at its place:
    ``data_schema.properties.x.type: …``."""
    _compiled(_canonical(schema))


def check_data(schema: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Raises ValidationError with what is wrong with ``data``, at most 20 errors: ``data.price must be a number``.

    Raises it for the schema's own mistakes too.
    """
    validator = _compiled(_canonical(schema))
    errors = list(islice(faults(data, "data", MOST_VALUES), MOST_ERRORS)) or _errors(validator, data)
    if errors:
        raise ValidationError("; ".join(f"{error.field} {error.message}" for error in errors), tuple(errors))


def _errors(validator: _Validator, data: Mapping[str, Any]) -> list[FieldError]:
    token = BUDGET.set(Budget(MOST_COST))
    try:
        found = (
            FieldError(dotted("data", *error.absolute_path), error.message)
            for error in validator.iter_errors(dict(data))
        )
        return list(islice(_each_once(found), MOST_ERRORS))
    except (TooCostly, RecursionError):
        return [FieldError("data", "takes too long to be held against data_schema")]
    finally:
        BUDGET.reset(token)


def _each_once(errors: Iterator[FieldError]) -> Iterator[FieldError]:
    seen: set[FieldError] = set()
    for error in errors:
        if error not in seen:
            seen.add(error)
            yield error


def _canonical(schema: Any) -> str:
    """The schema as the JSON text that names it, whatever the order of its keys. Raises ValidationError."""
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
def _compiled(text: str) -> _Validator:
    """What the schema with this canonical text checks. Raises ValidationError."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):  # a number of thousands of digits
        raise ValidationError.of("data_schema", "holds what cannot be read again") from None
    for fault in faults(schema, "data_schema", LARGEST):
        raise ValidationError.of(*fault)
    for at in check(schema):
        _replace(schema, at)
    # They would make jsonschema take another draft's checks, or read references from somewhere else.
    return _validator({key: value for key, value in schema.items() if key not in ("$schema", "$id")})


def _replace(schema: Any, at: tuple[str, ...]) -> None:
    """Write NEVER at a place of the schema."""
    for part in at[:-1]:
        schema = schema[int(part)] if isinstance(schema, list) else schema[part]
    schema[int(at[-1]) if isinstance(schema, list) else at[-1]] = dict(NEVER)


def _validator(schema: Any) -> _Validator:
    try:
        import jsonschema  # type: ignore[import-untyped]
        import referencing
    except ImportError:
        text = "cannot be checked on this device: the package jsonschema is not there"
        raise ValidationError.of("data_schema", text) from None
    draft = jsonschema.Draft202012Validator
    # Python's callers may have tuples where JSON has lists.
    types = draft.TYPE_CHECKER.redefine("array", lambda _, value: isinstance(value, list | tuple))
    kind = jsonschema.validators.create(draft.META_SCHEMA, keywords(draft.VALIDATORS), type_checker=types)
    validator: _Validator = kind(schema, registry=referencing.Registry())  # which fetches nothing
    return validator
