"""``data_schema``: what a template says about its data, held against schemas and data of people who mean no good."""

from __future__ import annotations

import copy
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jsonschema
import pytest
import referencing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashflow.backend.core.errors import FieldError, ValidationError
from flashflow.backend.rendering import json_schema
from flashflow.backend.rendering.json_schema import MOST_ERRORS, check_data, check_schema
from flashflow.backend.rendering.regex_matcher import REMEMBERED, Pattern, PatternError
from tests.support.examples import examples

BOUND_S = 3.0
"""What no check may take, however busy the machine is; alone each takes a fifth of a second at the most."""

ORDER = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://shop.example/order.json",
    "type": "object",
    "required": ["price", "items"],
    "properties": {
        "price": {"type": "number", "exclusiveMinimum": 0},
        "currency": {"enum": ["EUR", "USD"]},
        "items": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/item"}},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-\\d+$"},
        "when": {"type": "string", "format": "date-time"},
    },
    "additionalProperties": False,
    "$defs": {
        "item": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "maxLength": 9}}}
    },
}


@contextmanager
def bounded() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < BOUND_S


def errors(schema: dict[str, Any], data: Any) -> list[tuple[str, str]]:
    told: tuple[FieldError, ...] = ()
    text = ""
    try:
        check_data(schema, data)
    except ValidationError as error:
        told, text = error.errors, str(error)
    assert text == "; ".join(f"{e.field} {e.message}" for e in told)
    return [(e.field, e.message) for e in told]


def refusal(schema: Any) -> tuple[str, str]:
    with pytest.raises(ValidationError) as caught:
        check_schema(schema)
    (error,) = caught.value.errors
    assert str(caught.value) == f"{error.field}: {error.message}"
    return error.field, error.message


# --- data -------------------------------------------------------------------------------------------------------------


def test_data_that_fit_pass() -> None:
    check_schema(ORDER)
    data = {
        "price": 9.5,
        "currency": "EUR",
        "items": [{"name": "Tea"}],
        "code": "AB-12",
        "when": "2026-06-10T12:00:00Z",
    }
    check_data(ORDER, data)
    check_data({}, data)
    check_data({"properties": {"a": {"type": "array", "items": {"type": "integer"}}}}, {"a": (1, 2)})


def test_each_mistake_is_told_at_its_place_in_words() -> None:
    data = {"price": "9", "currency": "GBP", "items": [{"name": "Tea"}, {"name": "x" * 10}, {}], "code": "ab", "x": 1}
    assert sorted(errors(ORDER, data)) == [
        ("data.code", 'must match the pattern "^[A-Z]{2}-\\\\d+$"'),
        ("data.currency", 'must be one of "EUR", "USD"'),
        ("data.items.1.name", "must have at most 9 characters"),
        ("data.items.2.name", "is missing"),
        ("data.price", "must be a number"),
        ("data.x", "is not allowed here"),
    ]
    assert errors(ORDER, {}) == [("data.price", "is missing"), ("data.items", "is missing")]


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ({"type": ["string", "null"]}, 1, "must be text or null"),
        ({"type": "integer"}, 1.5, "must be a whole number"),
        ({"type": "number"}, True, "must be a number"),
        ({"const": 1}, True, "must be 1"),
        ({"const": {"a": 1}}, {}, "must be a certain object"),
        ({"enum": [1, "x" * 99]}, 2, 'must be one of 1, "' + "x" * 58 + "…"),
        ({"enum": list(range(20))}, "x", "must be one of 0, 1, 2, 3, 4, 5, 6, 7, …"),
        ({"minimum": 5}, 4.9, "must be at least 5"),
        ({"maximum": 5}, 6, "must be at most 5"),
        ({"exclusiveMaximum": 5}, 5, "must be less than 5"),
        ({"exclusiveMinimum": 5}, 5, "must be more than 5"),
        ({"multipleOf": 0.5}, 0.7, "must be a multiple of 0.5"),
        ({"multipleOf": 3}, 10**300 + 1, "must be a multiple of 3"),
        ({"multipleOf": 1e-300}, 1e300, "must be a multiple of 1e-300"),
        ({"minLength": 2.0}, "a", "must have at least 2 characters"),
        ({"format": "email"}, "a@b@c", "must have the format email"),
        ({"minItems": 1}, [], "must have at least 1 items"),
        ({"maxItems": 1}, [1, 2], "must have at most 1 items"),
        ({"uniqueItems": True}, [{"a": 1, "b": [2]}, {"b": [2.0], "a": 1.0}], "must not have the same item twice"),
        ({"contains": {"const": 1}, "minContains": 2}, [1], "must have at least 2 of the items described, and has 1"),
        (
            {"contains": {"const": 1}, "maxContains": 1},
            [1, 1],
            "must have at least 1 and at most 1 of the items described, and has 2",
        ),
        ({"minProperties": 1}, {}, "must have at least 1 values"),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, 1, "must fit at least one of 2 descriptions"),
        ({"oneOf": [{"minimum": 1}, {"maximum": 5}]}, 3, "must fit exactly one of 2 descriptions, and fits 2"),
        ({"not": {"type": "null"}}, None, "must not be as it is"),
        ({"if": {"type": "string"}, "then": {"minLength": 3}, "else": False}, "ab", "must have at least 3 characters"),
        ({"if": {"type": "string"}, "then": {"minLength": 3}, "else": False}, 1, "is not allowed here"),
    ],
)
def test_every_keyword_has_its_words(schema: dict[str, Any], value: Any, message: str) -> None:
    assert errors({"properties": {"x": schema}}, {"x": value}) == [("data.x", message)]


def test_names_that_need_or_are_refused_are_told_where_they_stand() -> None:
    schema = {
        "propertyNames": {"maxLength": 3},
        "dependentRequired": {"a": ["b"]},
        "patternProperties": {"^n": {"type": "number"}},
        "additionalProperties": {"type": "string"},
        "properties": {"a": True, "b": False},
    }
    assert sorted(errors(schema, {"a": 1, "long": "", "n1": "", "z": 1})) == [
        ("data.b", 'is missing, and "a" needs it'),
        ("data.long", "is not a name that is allowed here"),
        ("data.n1", "must be a number"),
        ("data.z", "must be text"),
    ]
    assert errors(schema, {"b": 1}) == [("data.b", "is not allowed here")]


def test_at_most_twenty_errors_are_told_each_once_and_each_readable() -> None:
    schema = {"additionalProperties": {"type": "null"}, "allOf": [{"additionalProperties": {"type": "null"}}]}
    hostile = {f"\n{n}\x1b[31m" + "k" * 500: 1 for n in range(50)}
    told = errors(schema, hostile)
    assert len(told) == MOST_ERRORS == len(set(told))
    for field, message in told:
        assert field.isprintable()
        assert message.isprintable()
        assert len(field) <= 300
        assert len(message) <= 300


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", ["2024-02-29"], ["2023-02-29", "20240229", "2024-2-9", "２０２４-02-29", ""]),
        ("time", ["12:00:00Z", "23:59:59.123456789+05:30"], ["12:00", "25:00:00Z", "12:00:00", "12:00:00+5"]),
        ("date-time", ["2026-06-10T12:00:00Z", "2026-06-10t12:00:00.5-08:00"], ["2026-06-10", "2026-06-10T12:00:00"]),
        ("email", ["a@b.example"], ["a", "a b@c", "a@", "@b", "a@b" * 1000]),
        ("uuid", ["0190A8F0-0000-7000-8000-000000000000"], ["0190a8f0", "x" * 36]),
        ("uri", ["https://a.example/b?c#d", "mailto:a@b"], ["a", "//a/b", "http://a b", "https://<x>"]),
        ("ipv4", ["127.0.0.1"], ["127.1", "256.0.0.1", "01.2.3.4"]),
        ("ipv6", ["::1", "fe80::1"], ["::g", "fe80::1%eth0", "1"]),
        ("regex", ["(", "anything"], []),
        ("made-up", ["anything"], []),
    ],
)
def test_formats_that_cost_little_are_checked(name: str, good: list[str], bad: list[str]) -> None:
    schema = {"properties": {"x": {"format": name}}}
    assert [errors(schema, {"x": value}) for value in [*good, 5]] == [[]] * (len(good) + 1)
    assert [errors(schema, {"x": value}) for value in bad] == [[("data.x", f"must have the format {name}")]] * len(bad)


@pytest.mark.parametrize(
    ("data", "field", "message"),
    [
        ({"x": float("inf")}, "data.x", "is not a number that JSON knows"),
        ({"x": [float("nan")]}, "data.x.0", "is not a number that JSON knows"),
        ({"x": 1 << 1024}, "data.x", "is a number out of range"),
        ({"x": {1: 2}}, "data.x", "has a name that is not text"),
        ({"x": {1, 2}}, "data.x", "is not plain JSON"),
        ({"x": object()}, "data.x", "is not plain JSON"),
        ({"x": [0] * 10_001}, "data", "has more than 10,000 values"),
    ],
)
def test_data_that_are_no_json_are_told_so(data: Any, field: str, message: str) -> None:
    assert errors({}, data) == [(field, message)]


def test_data_nested_too_deeply_are_refused() -> None:
    data: Any = 1
    for _ in range(32):
        data = {"a": data}
    assert errors({}, data) == []
    assert errors({}, {"a": data}) == [("data.a.a", "is nested more than 32 levels deep")]
    endless: dict[str, Any] = {}
    endless["a"] = endless
    assert errors({}, endless) == [("data.a.a", "is nested more than 32 levels deep")]


# --- schemas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "place", "words"),
    [
        ({"type": "strin"}, "type", "must be one of array,"),
        ({"type": []}, "type", "must be one of"),
        ({"type": ["string", "string"]}, "type", "twice"),
        ({"type": [["string"]]}, "type", "must be one of"),
        ({"properties": {"x": {"type": 5}}}, "properties.x.type", "must be one of"),
        ({"properties": []}, "properties", "an object of schemas"),
        ({"properties": {"x": 1}}, "properties.x", "must be a schema"),
        ({"properties": {"x": {"items": [{}]}}}, "properties.x.items", "must be a schema"),
        ({"allOf": []}, "allOf", "at least one"),
        ({"anyOf": [True, {"not": None}]}, "anyOf.1.not", "must be a schema"),
        ({"required": "x"}, "required", "list of names"),
        ({"required": ["x", "x"]}, "required", "twice"),
        ({"dependentRequired": {"a": [1]}}, "dependentRequired.a", "list of names"),
        ({"minLength": -1}, "minLength", "0 or more"),
        ({"minLength": 1.5}, "minLength", "0 or more"),
        ({"maximum": "5"}, "maximum", "must be a number"),
        ({"maximum": True}, "maximum", "must be a number"),
        ({"exclusiveMinimum": True}, "exclusiveMinimum", "must be a number"),
        ({"multipleOf": 0}, "multipleOf", "more than 0"),
        ({"enum": 5}, "enum", "must be a list"),
        ({"uniqueItems": "yes"}, "uniqueItems", "true or false"),
        ({"format": 5}, "format", "must be text"),
        ({"title": 5}, "title", "must be text"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "$schema", "2020-12"),
        (
            {"items": {"$schema": "https://json-schema.org/draft/2020-12/schema"}},
            "items.$schema",
            "only stand at the top",
        ),
        ({"items": {"$id": "x"}}, "items.$id", "only stand at the top"),
        ({"unevaluatedProperties": False}, "unevaluatedProperties", "cannot be checked"),
        ({"dependencies": {}}, "dependencies", "not of draft 2020-12"),
        ({"$dynamicRef": "#a"}, "$dynamicRef", "begin with #/"),
        ({"a\nb": {}, "properties": {"a\nb" * 100: 1}}, "properties." + "a\\nb" * 14 + "a\\n…", "must be a schema"),
    ],
)
def test_a_mistake_in_a_schema_is_told_at_its_place(schema: dict[str, Any], place: str, words: str) -> None:
    field, message = refusal(schema)
    assert field == f"data_schema.{place}"
    assert words in message


@pytest.mark.parametrize(
    "reference",
    [
        "https://evil.example/x.json",
        "http://127.0.0.1:1/x",
        "file:///etc/passwd",
        "other.json",
        "#anchor",
        "",
        "//x",
        "https://json-schema.org/draft/2020-12/schema",
        5,
    ],
)
def test_a_reference_leads_only_into_the_schema_itself(reference: Any) -> None:
    field, message = refusal({"properties": {"x": {"$ref": reference}}})
    assert field == "data_schema.properties.x.$ref"
    assert "must begin with #/" in message


@pytest.mark.parametrize(
    "reference",
    ["#/nothing", "#/properties", "#/enum/0", "#/x-hidden", "#/", "#/allOf/00", "#/allOf/9", "#/$defs/a/type"],
)
def test_a_reference_leads_only_to_what_was_checked(reference: str) -> None:
    schema = {
        "$ref": reference,
        "properties": {"type": {}},
        "enum": [{"pattern": "("}],
        "x-hidden": {"$ref": "https://evil.example/"},
        "allOf": [{}],
        "$defs": {"a": {"type": "object"}},
    }
    assert refusal(schema) == ("data_schema.$ref", "leads to no schema in this one")


def test_references_are_followed_where_they_may_lead() -> None:
    schema = {
        "$ref": "#/$defs/a~1b%20~0",
        "$defs": {"a/b ~": {"properties": {"x": {"$ref": "#/definitions/n"}, "me": {"$ref": "#"}}}},
        "definitions": {"n": {"type": "number"}},
    }
    check_data(schema, {"x": 1, "me": {"x": 1, "me": {}}})
    assert errors(schema, {"me": {"me": {"x": ""}}}) == [("data.me.me.x", "must be a number")]


def test_a_schema_that_names_its_draft_is_checked_no_differently_where_it_refers_to_itself() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://shop.example/tree.json",
        "properties": {"me": {"$ref": "#"}, "price": {"type": "number"}, "x": {"$ref": "#/properties/price"}},
    }
    assert errors(schema, {"me": {"me": {"price": ""}}, "x": ""}) == [
        ("data.me.me.price", "must be a number"),
        ("data.x", "must be a number"),
    ]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"not": {"anyOf": [{"if": {"$ref": "#/not"}}]}},
        {"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"dependentSchemas": {"x": {"oneOf": [{"$ref": "#"}]}}},
    ],
)
def test_references_that_go_round_without_a_step_into_the_data_are_refused(schema: dict[str, Any]) -> None:
    assert "refers back to itself" in refusal(schema)[1]


def test_a_long_chain_of_references_is_refused() -> None:
    chain = {f"{n}": {"$ref": f"#/$defs/{n + 1}"} for n in range(100)}
    assert "64" in refusal({"$defs": {**chain, "100": {}}})[1]


def nested(levels: int) -> Any:
    schema: Any = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (nested(33), "nested more than 32 levels deep"),
        (nested(5_000), "nested"),
        ({"const": nested(40)}, "nested more than 32"),
        ({"description": "x" * 65_536}, "larger than 64 KiB"),
        ({"description": "ä" * 32_768}, "larger than 64 KiB"),
        ({"maximum": float("inf")}, "not plain JSON"),
        ({"default": [float("nan")]}, "not plain JSON"),
        ({"maximum": 10**400}, "out of range"),
        ({"maximum": 10**5_000}, ""),
        ({"default": {1, 2}}, "not plain JSON"),
        ({"title": "\ud800"}, "not plain JSON"),
        ({"pattern": "("}, "not closed"),
        ({"patternProperties": {"[": {}}}, "ends too early"),
        ({"patternProperties": {f"a{n}": {} for n in range(101)}}, "one pattern more"),
        ({"allOf": [{"pattern": f"a{{0,700}}{n}"} for n in range(9)]}, "one pattern more"),
        ([], "must be an object"),
        (True, "must be an object"),
        (None, "must be an object"),
    ],
)
def test_a_schema_out_of_bounds_is_refused(schema: Any, words: str) -> None:
    with bounded():
        field, message = refusal(schema)
    assert field.startswith("data_schema")
    assert words in message
    assert len(message) <= 300


def test_a_schema_that_refers_to_itself_in_memory_is_refused() -> None:
    schema: dict[str, Any] = {}
    schema["not"] = schema
    assert refusal(schema)[0] == "data_schema"


@pytest.mark.parametrize("library", ["jsonschema", "referencing"])
def test_where_the_library_is_not_there_it_is_said(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    json_schema._compiled.cache_clear()
    for call in (lambda: check_schema({}), lambda: check_data({}, {})):
        with pytest.raises(ValidationError, match="data_schema: cannot be checked on this device"):
            call()


def test_importing_it_loads_no_library() -> None:
    program = (
        "import sys, flashflow.backend.rendering.json_schema; print({'jsonschema', 'referencing'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_schema_is_compiled_once_and_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    compile_it = json_schema._validator
    monkeypatch.setattr(json_schema, "_validator", lambda schema: made.append(schema) or compile_it(schema))
    json_schema._compiled.cache_clear()
    schema: dict[str, Any] = {"properties": {"a": False, "b": {"type": "string"}}}
    before = copy.deepcopy(schema)
    check_schema(schema)
    for _ in range(50):
        check_data(schema, {})
        check_data({"properties": {"b": {"type": "string"}, "a": False}}, {})
    assert len(made) == 1
    assert schema == before
    schema["properties"]["b"] = {"type": "number"}
    assert errors(schema, {"b": ""}) == [("data.b", "must be a number")]
    for n in range(200):
        check_schema({"title": str(n)})
    assert json_schema._compiled.cache_info().currsize <= 64


def test_many_threads_may_check_at_once() -> None:
    wrong: list[object] = []

    def check(number: int) -> None:
        for n in range(100):
            schema = {"properties": {"x": {"pattern": f"^(a|b)*{number}$"}}}
            if errors(schema, {"x": "ab" * n + str(number)}) or not errors(schema, {"x": "ab" * n}):
                wrong.append((number, n))

    threads = [threading.Thread(target=check, args=(n % 4,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


# --- cost -------------------------------------------------------------------------------------------------------------

A_AND_B = "".join(random.Random(1).choices("ab", k=10_000))


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "^(a|a)*$",
        "(a*)*b",
        "^(([a-z])+.)+[A-Z]([a-z])+$",
        "(.*)*x",
        "a*a*a*a*a*a*b",
        "(a|b|ab)*c",
        "(a?){50}a{50}",
    ],
)
def test_a_pattern_that_backtracks_for_ever_elsewhere_is_matched_at_once(pattern: str) -> None:
    schema = {"properties": {"x": {"pattern": pattern}}, "patternProperties": {pattern: {}}}
    with bounded():
        check_schema(schema)
        for text in ("a" * 9_999 + "!", "ab" * 5_000, A_AND_B):
            errors(schema, {"x": text, text: 1})


def test_a_pattern_that_would_take_too_long_on_a_text_is_given_up() -> None:
    schema = {"properties": {"x": {"pattern": "(a|b)*a(a|b){30}x"}}}
    assert errors(schema, {"x": A_AND_B[:40] + "x"}) in ([], [("data.x", 'must match the pattern "(a|b)*a(a|b){30}x"')])
    with bounded():
        assert errors(schema, {"x": A_AND_B}) == [("data", "takes too long to be held against data_schema")]


def deep(levels: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for _ in range(levels):
        data = {"a": data}
    return data


TOO_LONG = ("data", "takes too long to be held against data_schema")


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        (
            {
                "$ref": "#/$defs/0",
                "$defs": {**{f"{n}": {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 3} for n in range(20)}, "20": {}},
            },
            {},
        ),
        ({"allOf": [{"properties": {"a": {"$ref": "#"}}}] * 2}, deep(30)),
        ({"anyOf": [{"properties": {"a": {"not": {"$ref": "#"}}}}] * 3}, deep(30)),
        ({"properties": {"a": {"contains": {"contains": {"enum": list(range(500))}}}}}, {"a": [["x"] * 90] * 90}),
        ({"additionalProperties": {"items": {"not": {"required": ["x"]}}}}, {str(n): [{}] * 900 for n in range(10)}),
        ({"properties": {"a": {"items": {"enum": [[[n]] for n in range(500)]}}}}, {"a": [[[-1]]] * 900}),
        ({"items": {}, "properties": {"a": {"items": {"uniqueItems": True}}}}, {"a": [[[n] for n in range(90)]] * 40}),
        (
            {
                "$ref": "#/$defs/0",
                "$defs": {
                    **{f"{n}": {"$ref": f"#/$defs/{n + 1}"} for n in range(60)},
                    "60": {"properties": {"a": {"$ref": "#"}}},
                },
            },
            deep(30),
        ),
    ],
    ids=["laughs", "branches", "any of", "contains", "errors in not", "enum", "unique", "recursion"],
)
def test_a_check_that_would_not_end_is_given_up(schema: dict[str, Any], data: dict[str, Any]) -> None:
    check_schema(schema)
    with bounded():
        told = errors(schema, data)
    assert told in ([], [TOO_LONG])


def test_what_is_wide_costs_as_much_as_it_is_wide() -> None:
    names = [f"p{n}" for n in range(4_000)]
    data = {"a": [{}] * 9_000}
    for inner in (
        {"properties": dict.fromkeys(names, True)},
        {"not": {"dependentRequired": {name: [] for name in names}}},
    ):
        with bounded():
            assert errors({"properties": {"a": {"items": inner}}}, data) == [TOO_LONG]


def test_what_is_given_up_is_not_passed() -> None:
    laughs = {"allOf": [{"properties": {"a": {"$ref": "#"}}}] * 2}
    assert errors(laughs, deep(30)) == [TOO_LONG]
    assert errors(laughs, deep(3)) == []


def test_messages_cost_nothing_that_grows_with_the_data() -> None:
    """jsonschema's own would hold the whole value, once for each of the six thousand."""
    data = {"a": ["x" * 100] * 600}
    for schema in ({"anyOf": [False] * 6_000}, {"allOf": [False] * 6_000}, {"oneOf": [{"type": "null"}] * 2_000}):
        check_schema(schema)
        with bounded():
            assert len(errors(schema, data)) == 1


# --- fuzz -------------------------------------------------------------------------------------------------------------

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.5, 1.0, -2.0, 10**30, 1e308, 1e-320])
    | st.text("ab1\n", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
COUNT = st.integers(0, 3)
REFERENCES = st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/properties/a", "#/items", "#/nowhere"])
PATTERNS = st.sampled_from(["^a", "a|b", "b$", "[ab]+1?", "^(a|b)*$", r"\d", ".", "", "(a+)+$"])


def schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some, named = st.lists(inner, min_size=1, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=2)
    types = st.sampled_from(["object", "array", "string", "integer", "number", "null", "boolean"])
    return st.fixed_dictionaries(
        {},
        optional={
            "type": types | st.lists(types, min_size=1, max_size=3, unique=True),
            "enum": st.lists(JSON, max_size=3),
            "const": JSON,
            **dict.fromkeys(["allOf", "anyOf", "oneOf", "prefixItems"], some),
            **dict.fromkeys(["not", "if", "then", "else", "items", "contains", "additionalProperties"], inner),
            **dict.fromkeys(["properties", "$defs", "dependentSchemas"], named),
            "propertyNames": inner,
            "patternProperties": st.dictionaries(PATTERNS, inner, max_size=2),
            **dict.fromkeys(["minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains"], COUNT),
            **dict.fromkeys(["minProperties", "maxProperties"], COUNT),
            **dict.fromkeys(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"], st.integers(-2, 2)),
            "multipleOf": st.sampled_from([1, 2, 3, 0.5]),
            "uniqueItems": st.booleans(),
            "required": st.lists(st.sampled_from("abc"), unique=True, max_size=2),
            "dependentRequired": st.dictionaries(st.sampled_from("abc"), st.just(["a"]), max_size=2),
            "pattern": PATTERNS,
            "$ref": REFERENCES,
        },
    )


SCHEMAS = st.recursive(st.booleans() | schemas(st.booleans()), schemas, max_leaves=8).filter(
    lambda s: isinstance(s, dict)
)
DATA = st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)


@given(SCHEMAS, DATA)
@settings(max_examples=examples(300), deadline=None, suppress_health_check=list(HealthCheck))
def test_what_fits_and_what_does_not_is_as_the_library_has_it(schema: dict[str, Any], data: dict[str, Any]) -> None:
    try:
        check_schema(schema)
    except ValidationError:
        return
    jsonschema.Draft202012Validator.check_schema(schema)
    theirs = jsonschema.Draft202012Validator(schema, registry=referencing.Registry())
    told = errors(schema, data)
    if told != [TOO_LONG]:
        assert (not told) == theirs.is_valid(data), told


KEYWORDS = sorted(
    {
        "$ref",
        "$schema",
        "$id",
        "$defs",
        "definitions",
        "unevaluatedItems",
        "default",
        "examples",
        "contentSchema",
        "format",
    }
    | {"type", "enum", "const", "allOf", "anyOf", "not", "if", "then", "items", "prefixItems", "contains", "required"}
    | {"properties", "patternProperties", "additionalProperties", "propertyNames", "dependentSchemas", "pattern"}
    | {"dependentRequired", "minLength", "maxItems", "minContains", "maximum", "multipleOf", "uniqueItems", "title"}
)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["object", "string", "#", "#/", "#/not", "#/$defs/a", "(a", "[", r"\1", "(?=a)", "a{9999}", object()]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=5)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=30,
)


@given(st.dictionaries(st.sampled_from(KEYWORDS), ANYTHING, max_size=6), ANYTHING)
@settings(max_examples=examples(500), deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_but_a_validation_error_ever_comes_of_it(schema: Any, data: Any) -> None:
    with bounded():
        try:
            check_schema(schema)
            check_data(schema, data if isinstance(data, dict) else {"a": data})
        except ValidationError as error:
            assert error.errors  # noqa: PT017
            assert all(e.field.isprintable() and len(e.field) <= 300 for e in error.errors)  # noqa: PT017


# --- patterns ---------------------------------------------------------------------------------------------------------

CHARACTERS = st.sampled_from(["a", "b", "1", "_", " ", ".", "{", "}", "]", "ä", "[ab]", "[^a1]", "[a-b-]"])
ESCAPES = st.sampled_from(
    [r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"[\d_]", r"[^\w]", r"\x61", r"\u0062", r"\.", r"\/"]
)
ATOMS = CHARACTERS | ESCAPES | st.sampled_from(["^", "$", r"\b", r"\B"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda ways: "(" + "|".join(ways) + ")"),
        inner.map(lambda part: f"(?:{part})*"),
        st.tuples(inner, st.sampled_from(["+", "?", "*?", "{2}", "{1,2}", "{0,}", "{2,3}?"])).map(
            lambda p: f"({p[0]}){p[1]}"
        ),
    ),
    max_leaves=8,
)


@given(EXPRESSIONS, st.text("ab1_ .ä{}]-", min_size=1, max_size=8))  # up to 3.13 Python has no \\B in an empty text
@settings(max_examples=examples(1500), deadline=None, suppress_health_check=list(HealthCheck))
def test_a_pattern_matches_what_pythons_would(expression: str, text: str) -> None:
    ours = Pattern(expression)
    theirs = re.search(re.sub(r"\$", r"\\Z", expression), text, re.ASCII)
    assert ours.found_in(text) == (theirs is not None)
    assert ours.found_in(text) == (theirs is not None), "the second time it remembers"


@pytest.mark.parametrize(
    ("expression", "fits", "fits_not"),
    [
        ("^a$", ["a"], ["a\n", "ba"]),
        (r"^\d$", ["5"], ["٥"]),
        (r"^\w$", ["a"], ["ä"]),
        (r"^\s$", ["\u00a0", "\ufeff", "\u2028"], ["a", "\x1c"]),
        ("^.$", ["ä", "😀"], ["\n", "\u2028", ""]),
        (r"^\p{Lu}\P{L}$", ["Ä1"], ["ä1", "Äb"]),
        (r"^[\p{Ll}\x41-C]+$", ["äAC"], ["D"]),
        (r"^\u{1F600}$", ["😀"], ["x"]),
        (r"^[\b]$", ["\b"], ["b"]),
        (r"^\t\n\v\f\r\0$", ["\t\n\v\f\r\0"], ["t"]),
        ("^(?<year>[0-9]{4})-$", ["2026-"], ["202-"]),
        ("^(?:)*$", [""], ["a"]),
        (r"a\b", ["a", "ba b"], ["ab", ""]),
        (r"a\B", ["ab"], ["a", "a b"]),
        (r"^\b.\B", ["ab"], [" a", "a"]),
        ("a{,3}", ["a{,3}"], ["aaa"]),
        ("^[^]$", ["\n"], [""]),
        (r"^\^\$\.\*\+\?\(\)\[\]\{\}\|\\\-$", ["^$.*+?()[]{}|\\-"], ["x"]),
    ],
)
def test_patterns_are_those_of_ecma_262(expression: str, fits: list[str], fits_not: list[str]) -> None:
    pattern = Pattern(expression)
    assert [text for text in fits if not pattern.found_in(text)] == []
    assert [text for text in fits_not if pattern.found_in(text)] == []


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (r"(a)\1", "refers back"),
        (r"\k<a>", "refers back"),
        ("(?=a)", "looks around"),
        ("(?!a)", "looks around"),
        ("(?<=a)", "looks around"),
        ("(?<!a)", "looks around"),
        ("(?i)a", "looks around or sets flags"),
        ("(", "not closed"),
        (")", "closes nothing"),
        ("[a", "ends too early"),
        ("\\", "ends too early"),
        ("*", "nothing before it"),
        ("a**", "without a group"),
        ("a{2}{3}", "without a group"),
        ("^*", "repeats a place"),
        (r"\b+", "repeats a place"),
        ("a{3,2}", "wrong way round"),
        ("a{1001}", "repeats too much"),
        ("((a{50}){50}){50}", "repeats too much"),
        ("(((){999}){999}){999}", "repeats too much"),
        ("(" * 31 + ")" * 31, "inside each other"),
        ("[b-a]", "a range"),
        (r"[\d-z]", "a range"),
        (r"\A", "there is not"),
        (r"\Z", "there is not"),
        (r"\01", "octal"),
        (r"\p{Greek}", "there is not"),
        (r"\p{Xx}", "not known"),
        (r"\u{110000}", "there is not"),
        ("a" * 1001, "longer than"),
    ],
)
def test_what_is_no_pattern_or_is_not_done_is_refused(expression: str, words: str) -> None:
    with bounded(), pytest.raises(PatternError, match=re.escape(words)):
        Pattern(expression)


def test_a_pattern_remembers_only_so_much() -> None:
    pattern = Pattern("(a|b)*a(a|b){30}x")
    for start in range(0, 10_000, 500):
        pattern.found_in(A_AND_B[start : start + 500])
        assert sum(len(states) for _, states in pattern._steps.values()) <= REMEMBERED


@given(st.text("ab()[]{}*+?|^$\\-,0123dwsbBpuxk<:=!.", max_size=20))
@settings(max_examples=examples(800), deadline=None)
def test_no_text_breaks_the_parser(expression: str) -> None:
    with bounded():
        try:
            pattern = Pattern(expression)
        except PatternError as error:
            assert str(error)  # noqa: PT017
        else:
            pattern.found_in("ab" * 20)
