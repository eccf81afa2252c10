"""Evaluation of expressions over a scope of plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flashflow.backend.core.errors import ValidationError
from flashflow.backend.flow.language.declarations import Constant, Expression, Join, ListValue, MapValue, Name, Named

LONGEST_TEXT = 100_000
"""Characters of a joined text."""
MOST_VALUES = 10_000
"""Values in one result, counted through all maps and lists."""


def evaluate(expression: Expression, scope: Mapping[str, Any]) -> Any:
    """Return the JSON value of ``expression``. ``scope`` has the values of the first parts of names.

    A part that a value lacks is null, and null joins as an empty text. Raises ValidationError for a first part that
    ``scope`` lacks, and for a result that is too large.
    """
    return _Evaluator(scope).value(expression)


def evaluate_all(fields: Named, scope: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate each field. Raises ValidationError as ``evaluate`` does."""
    evaluator = _Evaluator(scope)
    return {name: evaluator.value(expression) for name, expression in fields}


class _Evaluator:
    def __init__(self, scope: Mapping[str, Any]) -> None:
        self._scope = scope
        self._values = 0

    def value(self, expression: Expression) -> Any:
        self._count(1)
        match expression:
            case Constant(value=value):
                return value
            case Name():
                return self._lookup(expression)
            case Join(parts=parts):
                return self._join([self.value(part) for part in parts], expression)
            case MapValue(entries=entries):
                return {name: self.value(part) for name, part in entries}
            case ListValue(items=items):
                return [self.value(part) for part in items]

    def _lookup(self, name: Name) -> Any:
        first, *rest = name.parts
        if first not in self._scope:
            raise ValidationError(f"{name.place}: there is no “{first}” here")
        value = self._scope[first]
        for part in rest:
            value = value.get(part) if isinstance(value, Mapping) else None
        self._count(_size(value))
        return value

    def _join(self, values: list[Any], join: Join) -> Any:
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            return sum(values)
        texts = [as_text(value) for value in values]
        if sum(map(len, texts)) > LONGEST_TEXT:
            raise ValidationError(f"{join.place}: the joined text is longer than {LONGEST_TEXT:,} characters")
        return "".join(texts)

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            raise ValidationError(f"the result has more than {MOST_VALUES:,} values")


def as_text(value: Any) -> str:
    """Return a value as it reads within a text: null is empty, ``true`` and numbers as in JSON."""
    match value:
        case None:
            text = ""
        case bool():
            text = "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 1e15:
            text = str(int(value))
        case list():
            text = ", ".join(as_text(item) for item in value)
        case dict():
            text = ", ".join(f"{name}: {as_text(item)}" for name, item in value.items())
        case _:
            text = str(value)
    return text


def _size(value: Any) -> int:
    """Return the number of values in ``value``, without recursion."""
    count, open_ = 0, [value]
    while open_ and count <= MOST_VALUES:
        one = open_.pop()
        if isinstance(one, Mapping):
            open_.extend(one.values())
        elif isinstance(one, list):
            open_.extend(one)
        count += 1
    return count
