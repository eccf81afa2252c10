"""Templates: filled in strictly, and nothing a caller writes can be more than text."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashflow.backend import Conflict, NotFound, NotificationService, ValidationError
from flashflow.backend.rendering.template_renderer import MESSAGE_LIMIT, TITLE_LIMIT, render, variables
from tests.support.fixed_clock import StillClock


@pytest.fixture
def service(tmp_path: Path) -> Iterator[NotificationService]:
    with NotificationService(tmp_path / "n.db", clock=StillClock()) as service:
        yield service


def filled(text: str, **data: Any) -> str:
    return render("T", text, data).message


# --- filling in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["{name}", "{{name}}", "${name}", "$name", "{ name }", "{{ name }}"])
def test_a_variable_may_be_written_in_any_of_the_usual_ways(written: str) -> None:
    assert filled(f"Hello {written}!", name="Ada") == "Hello Ada!"
    assert variables(written) == ("name",)


@pytest.mark.parametrize("text", ["100 %", "a {", "}", "{}", "{0}", "{1a}", "$ 5", "$5", "{a b}", "{{", "{not closed"])
def test_what_is_no_variable_is_left_as_it_stands(text: str) -> None:
    assert filled(text) == text


def test_only_braces_that_belong_to_a_variable_go_with_it() -> None:
    assert filled('{"user": {name}}', name="Ada") == '{"user": Ada}'
    assert filled("{{{name}}}", name="Ada") == "{Ada}"
    assert filled("{{name}", name="Ada") == "{Ada"
    assert filled("{name}}", name="Ada") == "Ada}"


def test_two_dollars_are_one_and_values_are_written_as_a_person_would() -> None:
    assert filled("$$5 {n} {f} {yes} {no}", n=7, f=1.5, yes=True, no=False) == "$5 7 1.5 true false"


def test_a_title_is_one_line_and_a_message_keeps_its_lines() -> None:
    rendered = render("A {x}", "A\n{x}", {"x": "one\ntwo\t three"})
    assert (rendered.title, rendered.message) == ("A one two three", "A\none\ntwo\t three")


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        ({}, {"data.a": "is missing", "data.b": "is missing"}),
        ({"a": "x"}, {"data.b": "is missing"}),
        ({"a": "x", "b": None}, {"data.b": "must be text, a number or true/false"}),
        ({"a": ["x"], "b": {"c": 1}}, dict.fromkeys(("data.a", "data.b"), "must be text, a number or true/false")),
    ],
)
def test_each_variable_that_is_missing_or_no_text_is_named(data: dict[str, Any], wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as refusal:
        render("{a}", "{b} and {a}", data)
    assert dict(refusal.value.errors) == wrong


# --- hostile ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{x.__class__}",
        "{x.__class__.__mro__}",
        "{x[0]}",
        "{x!r}",
        "{x:>1000000}",
        "${x.__class__}",
        "%(x)s",
        "{% for a in x %}",
        "{{x|upper}}",
    ],
)
def test_attributes_indices_and_formats_are_only_text(text: str) -> None:
    assert filled(text, x="secret") == text


@settings(deadline=None)
@given(value=st.text(min_size=1, max_size=50).filter(lambda text: "\0" not in text and text.strip()))
def test_a_value_is_never_itself_filled_in(value: str) -> None:
    assert filled("[{x}]", x=value, y="other") == f"[{value}]"
    assert filled("[{x}]", x="{y} $y {{y}}", y="other") == "[{y} $y {{y}}]"


def test_a_short_template_cannot_grow_into_a_huge_text() -> None:
    with pytest.raises(ValidationError, match=str(MESSAGE_LIMIT)):
        filled("{x}" * 3000, x="y" * 10_000)
    with pytest.raises(ValidationError, match=str(TITLE_LIMIT)):
        render("{x}", "M", {"x": "y" * 301})
    assert len(filled("{x}", x="y" * MESSAGE_LIMIT)) == MESSAGE_LIMIT


def test_a_huge_text_is_refused_before_it_is_put_together() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValidationError, match=str(MESSAGE_LIMIT)):
            filled("{x}" * 3333, x="\U0001f680" * 10_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_a_text_may_be_exactly_as_long_as_it_may_be() -> None:
    text = "$$" + "{x}" * 10 + "{{ x }}$x${x}"
    assert filled(text + "-" * (MESSAGE_LIMIT - 14), x="y") == "$" + "y" * 13 + "-" * (MESSAGE_LIMIT - 14)
    with pytest.raises(ValidationError, match=str(MESSAGE_LIMIT)):
        filled(text + "-" * (MESSAGE_LIMIT - 13), x="y")


@pytest.mark.parametrize("piece", ["{", "{{", "$", "${", "{a", "{ ", "}", "$$", "{a}"])
def test_no_text_takes_longer_than_its_length_deserves(piece: str) -> None:
    text = (piece * 10_000)[:10_000]
    began = time.process_time()
    variables(text)
    assert time.process_time() - began < 1


def test_a_text_that_comes_out_empty_is_refused() -> None:
    for nothing in ("", "  ", "\n"):
        with pytest.raises(ValidationError, match="empty"):
            filled("{x}", x=nothing)
    with pytest.raises(ValidationError, match="unprintable"):
        filled("{x}", x="a\0b")


def test_a_number_of_five_thousand_digits_is_refused_and_not_counted_out(service: NotificationService) -> None:
    service.create_notification_template("t", "T", "{x}")
    for ask in (
        service.templates.preview,
        lambda name, data: service.send_notification("ada", template=name, data=data),
    ):
        with pytest.raises(ValidationError, match="data"):
            ask("t", {"x": 10**5000})


# --- kept -------------------------------------------------------------------------------------------------------------


def test_a_template_is_kept_changed_listed_and_removed(service: NotificationService) -> None:
    made = service.create_notification_template("build", "{p} built", "{p}: {n}", channels=["in_app"], category="ci")
    assert (made.variables, made.channels, made.category) == (("p", "n"), ("in_app",), "ci")
    with pytest.raises(Conflict):
        service.create_notification_template("build", "x", "y")
    service.create_notification_template("build", "{p} gebaut", "{p}: {n}", locale="de")
    assert [(t.name, t.locale) for t in service.templates.all()] == [("build", ""), ("build", "de")]
    service.store.run(service.templates.remove_write("build", None))
    assert service.templates.all() == ()
    with pytest.raises(NotFound):
        service.templates.get("build")


@pytest.mark.parametrize(
    ("locale", "text"), [("", "Hi"), ("de", "Hallo"), ("de-AT", "Hallo"), ("de-CH", "Grüezi"), ("fr", "Hi")]
)
def test_the_nearest_locale_is_used(service: NotificationService, locale: str, text: str) -> None:
    for made, title in (("", "Hi"), ("de", "Hallo"), ("de-CH", "Grüezi")):
        service.create_notification_template("hello", title, "M", locale=made)
    assert service.templates.preview("hello", {}, locale).title == text


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "no spaces"},
        {"name": ""},
        {"title_template": ""},
        {"title_template": "x" * 301},
        {"message_template": "x" * 10_001},
        {"channels": ["pigeon"]},
        {"locale": "deutsch deutsch"},
        {"data_schema": {"x": object()}},
    ],
)
def test_a_template_that_cannot_be_kept_is_refused_by_its_field(
    service: NotificationService, bad: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError) as refusal:
        service.create_notification_template(**{"name": "t", "title_template": "T", "message_template": "M"} | bad)
    assert refusal.value.errors[0].field.partition(".")[0] == next(iter(bad))
    assert service.templates.all() == ()


def test_what_is_missing_sends_nothing(service: NotificationService) -> None:
    service.create_notification_template("t", "{a}", "{b}")
    with pytest.raises(ValidationError):
        service.send_notification("ada", template="t", data={"a": "x"})
    with pytest.raises(ValidationError, match="no template"):
        service.send_notification("ada", template="unheard-of")
    assert service.get_user_notifications("ada").notifications == ()
    sent = service.send_notification("ada", title="Mine", template="t", data={"b": "y"})
    stored = service.get_notification(sent.notification_id).notification
    assert (stored.title, stored.message) == ("Mine", "y")
