"""Evaluation of expressions over a scope."""

from __future__ import annotations

from typing import Any

import pytest

from flashflow.backend.core.errors import ValidationError
from flashflow.backend.flow.language.declarations import Constant, Expression, Join, ListValue, MapValue, Name
from flashflow.backend.flow.language.errors import Place
from flashflow.backend.flow.language.expressions import evaluate, evaluate_all

AT = Place("a.flow", 3, 9)
SCOPE = {"user": {"name": "Ada", "age": 36, "tags": ["a", "b"], "price": 5.0, "none": None}}


def constant(value: str | int | float | bool | None) -> Constant:
    return Constant(value, AT)


def name(text: str) -> Name:
    return Name(tuple(text.split(".")), AT)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (constant(3), 3),
        (name("user.name"), "Ada"),
        (name("user.none.deeper"), None),
        (name("user.missing"), None),
        (Join((constant("Dear "), name("user.name"), constant("!")), AT), "Dear Ada!"),
        (Join((constant("/products/"), name("user.age")), AT), "/products/36"),
        (Join((name("user.age"), constant(1)), AT), 37),
        (Join((constant("is "), constant(True), name("user.none")), AT), "is true"),
        (Join((constant("costs "), name("user.price")), AT), "costs 5"),
        (Join((constant(""), name("user.tags")), AT), "a, b"),
        (MapValue((("id", name("user.age")), ("list", ListValue((constant(None), constant("x")), AT))), AT),
         {"id": 36, "list": [None, "x"]}),
    ],
)  # fmt: skip
def test_an_expression_has_its_json_value(expression: Expression, value: Any) -> None:
    assert evaluate(expression, SCOPE) == value


def test_an_unknown_first_name_is_refused_at_its_place() -> None:
    with pytest.raises(ValidationError) as refusal:
        evaluate(name("nobody.id"), SCOPE)
    assert str(refusal.value) == "a.flow:3:9: there is no “nobody” here"


def test_a_text_or_a_value_that_grows_too_large_is_refused() -> None:
    scope = {"long": "x" * 60_000, "many": list(range(6_000))}
    with pytest.raises(ValidationError, match="longer than 100,000 characters"):
        evaluate(Join((name("long"), name("long")), AT), scope)
    with pytest.raises(ValidationError, match="more than 10,000 values"):
        evaluate_all((("a", name("many")), ("b", name("many"))), scope)
