"""``data_schema``: errors and their places, bounds, and hostile schemas and data within time limits."""

from __future__ import annotations

import copy
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashflow.backend import NotificationService
from flashflow.backend.core.errors import FieldError, ValidationError
from flashflow.backend.rendering import json_schema
from flashflow.backend.rendering.json_schema import MOST_ERRORS, available, check_data, check_schema
from tests.support.examples import examples

BOUND_S = 3.0
"""Longest time of one check on a busy machine; alone it takes a third of a second at most."""

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


CONTAINS = "has too few or too many of the items that contains describes"
ONE_OF = "must fit exactly one of the descriptions in oneOf"


@contextmanager
def bounded() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < BOUND_S


def errors(schema: dict[str, Any], data: Any) -> list[tuple[str, str]]:
    reported: tuple[FieldError, ...] = ()
    text = ""
    try:
        check_data(schema, data)
    except ValidationError as error:
        reported, text = error.errors, str(error)
    assert text == "; ".join(f"{e.field} {e.message}" for e in reported)
    return [(e.field, e.message) for e in reported]


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
        ({"type": ["string", "null"]}, 1, "must be null or text"),
        ({"type": "integer"}, 1.5, "must be a whole number"),
        ({"type": "number"}, True, "must be a number"),
        ({"const": 1}, True, "must be 1"),
        ({"const": {"a": 1}}, {}, "must be a certain object"),
        ({"enum": [1, "x" * 99]}, 2, 'must be one of 1, "' + "x" * 58 + "…"),
        ({"enum": []}, 2, "must be one of an empty list"),
        ({"enum": list(range(20))}, "x", "must be one of 0, 1, 2, 3, 4, 5, 6, 7, …"),
        ({"minimum": 5}, 4.9, "must be at least 5"),
        ({"maximum": 5}, 6, "must be at most 5"),
        ({"exclusiveMaximum": 5}, 5, "must be less than 5"),
        ({"exclusiveMinimum": 5}, 5, "must be more than 5"),
        ({"multipleOf": 0.5}, 0.7, "must be a multiple of 0.5"),
        ({"multipleOf": 3}, 10**300 + 1, "must be a multiple of 3"),
        ({"multipleOf": 1e-300}, 1.5e-300, "must be a multiple of 1e-300"),
        ({"minLength": 2.0}, "a", "must have at least 2 characters"),
        ({"format": "email"}, "a@b@c", "must have the format email"),
        ({"minItems": 1}, [], "must have at least 1 items"),
        ({"maxItems": 1}, [1, 2], "must have at most 1 items"),
        ({"uniqueItems": True}, [{"a": 1, "b": [2]}, {"b": [2.0], "a": 1.0}], "must not have the same item twice"),
        ({"contains": {"const": 1}, "minContains": 2}, [1], CONTAINS),
        ({"contains": {"const": 1}, "maxContains": 1}, [1, 1], CONTAINS),
        ({"minProperties": 1}, {}, "must have at least 1 values"),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, 1, "must fit at least one of the descriptions in anyOf"),
        ({"oneOf": [{"minimum": 1}, {"maximum": 5}]}, 3, f"{ONE_OF}, and fits several"),
        ({"oneOf": [{"minimum": 5}, {"type": "null"}]}, 3, f"{ONE_OF}, and fits none"),
        ({"not": {"type": "null"}}, None, "must not fit the description in not"),
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
        ("data.b", "is missing"),
        ("data.long", "is not a name that is allowed here"),
        ("data.n1", "must be a number"),
        ("data.z", "must be text"),
    ]
    assert errors(schema, {"b": 1}) == [("data.b", "is not allowed here")]


def test_at_most_twenty_errors_are_told_each_once_and_each_readable() -> None:
    schema = {"additionalProperties": {"type": "null"}, "allOf": [{"additionalProperties": {"type": "null"}}]}
    hostile = {f"\n{n}\x1b[31m" + "k" * 500: 1 for n in range(50)}
    reported = errors(schema, hostile)
    assert len(reported) == MOST_ERRORS == len(set(reported))
    for field, message in reported:
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
        ({"type": ["string", "string"]}, "type", "must be one of"),
        ({"type": [["string"]]}, "type", "must be one of"),
        ({"properties": {"x": {"type": 5}}}, "properties.x.type", "must be one of"),
        ({"properties": []}, "properties", "must be an object"),
        ({"properties": {"x": 1}}, "properties.x", "must be true or false or an object"),
        ({"properties": {"x": {"items": [{}]}}}, "properties.x.items", "must be true or false or an object"),
        ({"allOf": []}, "allOf", "at least 1 items"),
        ({"anyOf": [True, {"not": None}]}, "anyOf.1.not", "must be true or false or an object"),
        ({"required": "x"}, "required", "must be a list"),
        ({"required": ["x", "x"]}, "required", "twice"),
        ({"dependentRequired": {"a": [1]}}, "dependentRequired.a.0", "must be text"),
        ({"minLength": -1}, "minLength", "at least 0"),
        ({"minLength": 1.5}, "minLength", "must be a whole number"),
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
        ({"unevaluatedProperties": False}, "unevaluatedProperties", "is not supported"),
        ({"dependencies": {}}, "dependencies", "is not supported"),
        ({"$dynamicRef": "#a"}, "$dynamicRef", "is not supported"),
        (
            {"a\nb": {}, "properties": {"a\nb" * 100: 1}},
            "properties." + "a\\nb" * 14 + "a\\n…",
            "must be true or false or an object",
        ),
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


@pytest.mark.parametrize("reference", ["#/$defs/a b", "#/$defs/a%20b", "#/$defs/%C3%A4", "#/$defs/ä", "#/$defs/5%"])
def test_a_reference_may_be_written_with_or_without_percent_signs(reference: str) -> None:
    null = {"type": "null"}
    assert errors({"$ref": reference, "$defs": {"a b": null, "ä": null, "5%": null}}, {}) == [("data", "must be null")]


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
    chain = {f"{n}": {"$ref": f"#/$defs/{n + 1}"} for n in range(300)}
    assert "too complex" in refusal({"$ref": "#/$defs/0", "$defs": {**chain, "300": {}}})[1]


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
        ({"pattern": "("}, "is not a pattern"),
        ({"patternProperties": {"[": {}}}, "is not a pattern"),
        ({"patternProperties": {f"a{n}": {} for n in range(101)}}, "one pattern more"),
        ({"allOf": [{"pattern": f"[^{n}]{{300}}"} for n in range(9)]}, "one pattern more"),
        ({"anyOf": [True] * 1_000}, "more than 1,000 schemas"),
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


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make jsonschema-rs impossible to import, as on a phone."""
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    available.cache_clear()
    yield
    available.cache_clear()


@pytest.mark.usefixtures("without_library")
def test_without_the_library_nothing_is_checked_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    check_schema({"type": "no such type"})
    for _ in range(3):
        check_data(ORDER, {"price": "no number"})
    assert [record.getMessage() for record in caplog.records] == [
        "data_schema is not checked on this device: the package jsonschema-rs is not installed"
    ]
    assert refusal({"title": "x" * 65_536}) == ("data_schema", "is larger than 64 KiB")


@pytest.mark.usefixtures("without_library")
def test_without_the_library_a_template_is_stored_and_says_that_its_data_is_not_checked(tmp_path: Path) -> None:
    with NotificationService(db_path=str(tmp_path / "n.db")) as service:
        service.create_notification_template("plain", "T", "M")
        service.create_notification_template("order", "T", "{price}", data_schema=ORDER)
        checked = {template.name: template.data_schema_checked for template in service.templates.all()}
        assert checked == {"plain": False, "order": False}
        service.send_notification("ada", template="order", data={"price": "no number"})


def test_a_template_says_whether_its_data_is_checked(tmp_path: Path) -> None:
    with NotificationService(db_path=str(tmp_path / "n.db")) as service:
        service.create_notification_template("plain", "T", "M")
        service.create_notification_template("order", "T", "{price}", data_schema=ORDER)
        checked = {template.name: template.data_schema_checked for template in service.templates.all()}
        assert checked == {"plain": False, "order": True}
        with pytest.raises(ValidationError, match=r"data\.price must be a number"):
            service.send_notification("ada", template="order", data={"price": "no number"})


def test_the_library_is_loaded_only_when_something_is_checked() -> None:
    program = "import sys, flashflow.backend.rendering.json_schema; print('jsonschema_rs' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


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


def test_a_pattern_that_would_take_too_long_on_a_text_is_not_matched() -> None:
    pattern = "(a|b)*a(a|b){300}x"
    schema = {"properties": {"x": {"pattern": pattern}}}
    assert errors(schema, {"x": A_AND_B[:400]}) == [("data.x", f'must match the pattern "{pattern}"')]
    with bounded():
        assert errors(schema, {"x": A_AND_B * 10}) == [TOO_LONG]


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("^a$", ["a"], ["a\n", "ba"]),
        (r"^\d$", ["5"], ["٥"]),
        (r"^\w$", ["a"], ["ä"]),
        (r"^\s$", ["\u00a0", "\ufeff", "\u2028"], ["a", "\x1c"]),
        ("^.$", ["ä", "😀"], ["\n", "\u2028", ""]),
        (r"^\p{Lu}\P{L}$", ["Ä1"], ["ä1", "Äb"]),
        (r"^\u0062\x41$", ["bA"], ["b"]),
        ("^(?<year>[0-9]{4})-$", ["2026-"], ["202-"]),
        (r"^[a&&b[]$", ["&", "["], ["c"]),
        (r"^\^\$\.\*\+\?\(\)\[\]\{\}\|\\\-\/$", ["^$.*+?()[]{}|\\-/"], ["x"]),
    ],
)
def test_patterns_are_those_of_ecma_262(pattern: str, fits: list[str], fits_not: list[str]) -> None:
    schema = {"properties": {"x": {"pattern": pattern}}}
    assert [text for text in fits if errors(schema, {"x": text})] == []
    assert [text for text in fits_not if not errors(schema, {"x": text})] == []


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"(a)\1", r"\k<a>", "(?=a)", "(?!a)", "(?<=a)", "(?<!a)", "(", ")", "[a", "\\", "*", "a{3,2}", "[b-a]"),
        *(r"[\d-z]", r"\Z", r"\01", r"\p{Xx}", r"\u{110000}", "((a{50}){50}){50}", "(((a){999}){999}){999}"),
        "(" * 300 + ")" * 300,
    ],
)
def test_a_pattern_that_cannot_be_matched_in_linear_time_is_refused(pattern: str) -> None:
    with bounded():
        field, message = refusal({"properties": {"x": {"pattern": pattern}}})
    assert field == "data_schema.properties.x.pattern"
    assert message.startswith("is not a pattern that can be checked in linear time")


def deep(levels: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for _ in range(levels):
        data = {"a": data}
    return data


TOO_LONG = ("data", "takes too long to be held against data_schema")


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        ({"allOf": [{"properties": {"a": {"$ref": "#"}}}] * 2}, deep(30)),
        ({"anyOf": [{"properties": {"a": {"not": {"$ref": "#"}}}}] * 3}, deep(30)),
        ({"properties": {"a": {"contains": {"contains": {"enum": list(range(500))}}}}}, {"a": [["x"] * 90] * 90}),
        (
            {"additionalProperties": {"items": {"not": {"required": [f"x{n}" for n in range(99)]}}}},
            {str(n): [{}] * 900 for n in range(10)},
        ),
        ({"oneOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]}, deep(30)),
        ({"properties": {"a": {"items": {"enum": [[[n]] for n in range(500)]}}}}, {"a": [[[-1]]] * 900}),
        (
            {
                "properties": {"a": {"$ref": "#/$defs/u"}},
                "$defs": {"u": {"uniqueItems": True, "items": {"$ref": "#/$defs/u"}}},
            },
            {"a": [[[[[[n]]]]] for n in range(1_400)]},
        ),
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
    ids=["branches", "any of", "contains", "errors in not", "one of", "enum", "unique", "recursion"],
)
def test_a_check_that_could_take_too_long_is_refused(schema: dict[str, Any], data: dict[str, Any]) -> None:
    with bounded():
        reported = errors(schema, data)
    assert reported in ([TOO_LONG], [("data", "is nested too deeply for data_schema")])


def test_what_is_wide_costs_as_much_as_it_is_wide() -> None:
    names = [f"p{n}" for n in range(900)]
    data = {"a": [{}] * 9_000}
    for inner in (
        {"properties": dict.fromkeys(names, True)},
        {"not": {"dependentRequired": {name: [] for name in names}}},
    ):
        with bounded():
            assert errors({"properties": {"a": {"items": inner}}}, data) == [TOO_LONG]


def test_a_schema_whose_every_check_could_take_too_long_is_refused() -> None:
    laughs = {f"{n}": {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 3} for n in range(20)}
    with bounded():
        reported = refusal({"$ref": "#/$defs/0", "$defs": {**laughs, "20": {}}})
    assert reported == ("data_schema", "is too complex to be checked")


def test_a_check_that_is_refused_does_not_pass_and_less_data_is_checked() -> None:
    laughs = {"allOf": [{"properties": {"a": {"$ref": "#"}}}] * 2}
    assert errors(laughs, deep(30)) == [TOO_LONG]
    assert errors(laughs, deep(3)) == []


def test_a_tree_is_checked_to_its_full_depth() -> None:
    tree = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "left": {"$ref": "#"}, "right": {"allOf": [{"$ref": "#"}]}},
    }
    data: dict[str, Any] = {"name": 1}
    for n in range(30):
        data = {"name": "x", ("left", "right")[n % 2]: data}
    assert errors(tree, data) == [("data." + "right.left." * 15 + "name", "must be text")]


def test_large_lists_are_compared_in_linear_time() -> None:
    """The library's own uniqueItems hashes numbers above 2**53 to one place, which takes minutes here."""
    schema = {"properties": {"a": {"uniqueItems": True}}}
    with bounded():
        for numbers in (range(2**63, 2**63 + 9_000), range(0, 9_000 * (2**61 - 1), 2**61 - 1)):
            assert errors(schema, {"a": list(numbers)}) == []
            assert errors(schema, {"a": [*numbers, float(2**63), 2**63]}) == [
                ("data.a", "must not have the same item twice")
            ]


def test_a_message_does_not_grow_with_the_data() -> None:
    data = {"a": ["x" * 100] * 600}
    for schema in ({"anyOf": [False] * 90}, {"allOf": [False] * 90}, {"oneOf": [{"type": "null"}] * 90}):
        with bounded():
            (reported,) = errors(schema, data)
        assert len(reported[1]) < 300


def test_data_with_very_many_errors_gets_the_first() -> None:
    schema = {"properties": {"a": {"items": {"required": ["x", "y"]}}}}
    with bounded():
        assert errors(schema, {"a": [{}] * 9_000}) == [("data.a.0.x", "is missing")]


IN_A_SMALL_THREAD = """
import threading
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.rendering.json_schema import check_data, check_schema

FORMS = {
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), lambda inner: [inner]),
    **dict.fromkeys(("properties", "dependentSchemas"), lambda inner: {"a": inner}),
    **dict.fromkeys(("not", "if", "items", "contains", "additionalProperties", "propertyNames"), lambda inner: inner),
}

def nest(keyword, inner, levels):
    for _ in range(levels):
        inner = {keyword: FORMS[keyword](inner)}
    return inner

def deep(levels):
    data = {}
    for _ in range(levels):
        data = {"a": data}
    return data

def run():
    for keyword in FORMS:
        for levels in (1, 4, 14):
            for links in (10, 990 // (levels + 1)):
                chain = {f"{n}": nest(keyword, {"$ref": f"#/$defs/{n + 1}"}, levels) for n in range(links)}
                loop = {"properties": {"a": {"$ref": "#"}}, "required": ["q"]}
                schema = {"$ref": "#/$defs/0", "$defs": {**chain, f"{links}": loop}}
                for height in (8, 31):
                    try:
                        check_data(schema, deep(height))
                    except ValidationError:
                        pass

threading.stack_size(1024 * 1024)
thread = threading.Thread(target=run)
thread.start()
thread.join()
print("alive")
"""


def test_no_schema_overflows_the_stack_of_a_small_thread() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_SMALL_THREAD], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n")


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
    with bounded():
        reported = errors(schema, data)
    if reported != [TOO_LONG]:
        assert (not reported) == theirs.is_valid(data), reported


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
