"""The base class of named tuples behaves like ``typing.NamedTuple``, whose place it takes."""

from __future__ import annotations

import copy
import pickle
import typing
from collections.abc import Callable
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec
import pytest

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.engine.sql import Taken
from tests.support.server_process import ROOT

T = TypeVar("T")


class Place(NamedTuple):
    """A place on a map."""

    x: int
    y: int = 2
    name: str | None = None

    @property
    def sum(self) -> int:
        return self.x + self.y

    @classmethod
    def origin(cls) -> Place:
        return cls(0, 0)

    def __str__(self) -> str:
        return f"{self.x}|{self.y}"


class Typed(typing.NamedTuple):
    """A place on a map."""

    x: int
    y: int = 2
    name: str | None = None


class One(NamedTuple):
    value: int


class OneTyped(typing.NamedTuple):
    value: int


class Page(NamedTuple, Generic[T]):
    rows: list[T]
    more: bool = False


CALLS: list[Callable[[Any], Any]] = [
    lambda kind: tuple(kind(1)),
    lambda kind: tuple(kind(1, name="a")),
    lambda kind: tuple(kind(y=1, x=2)),
    lambda kind: tuple(kind._make([1, 2, 3])),
    lambda kind: tuple(kind(1)._replace(name="b", x=5)),
    lambda kind: kind(1)._asdict(),
    lambda kind: kind(1) == (1, 2, None) and hash(kind(1)) == hash((1, 2, None)),
    lambda kind: (kind(7).x, kind(7).y, kind(7).name),
    lambda kind: repr(kind(1, name="ä")).partition("(")[2],
    lambda kind: (kind._fields, kind._field_defaults, kind.__match_args__, kind.__slots__, kind.__doc__),
    lambda kind: (kind.x.__doc__, kind.__new__.__name__, list(kind.__annotations__)),
    get_type_hints,
    lambda kind: [type(value) is kind for value in (kind(1)._replace(x=2), copy.copy(kind(1)), copy.deepcopy(kind(1)))],
    lambda kind: [pickle.loads(pickle.dumps(kind(1), p)) == kind(1) for p in range(6)],
    lambda kind: msgspec.convert([1], kind) == kind(1),
    lambda kind: msgspec.json.encode(kind(1)),
]
REFUSED: list[Callable[[Any], Any]] = [
    lambda kind: kind(),
    lambda kind: kind(1, 2, 3, 4),
    lambda kind: kind(1, x=1),
    lambda kind: kind(1, z=1),
    lambda kind: kind._make([1]),
    lambda kind: kind(1)._replace(z=1),
    lambda kind: setattr(kind(1), "x", 2),
    lambda kind: setattr(kind(1), "z", 2),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_named_tuple_answers_as_one_of_typing_does(call: Callable[[Any], Any]) -> None:
    assert call(Place) == call(Typed)


@pytest.mark.parametrize("call", REFUSED)
def test_a_named_tuple_refuses_what_one_of_typing_refuses_in_the_same_words(call: Callable[[Any], Any]) -> None:
    with pytest.raises(Exception) as refused:  # noqa: PT011
        call(Place)
    with pytest.raises(refused.type) as expected:
        call(Typed)
    assert str(refused.value).replace("Place", "Typed") == str(expected.value)


def test_instances_are_built_by_the_same_bytecode() -> None:
    for ours, typings in ((Place, Typed), (One, OneTyped)):
        assert ours.__new__.__code__.co_code == typings.__new__.__code__.co_code


def test_a_named_tuple_has_methods_properties_patterns_and_type_parameters() -> None:
    assert (Place(1).sum, str(Place(1)), Place.origin().x) == (3, "1|2", 0)
    match Place(4, 5):
        case Place(x, y):
            assert (x, y) == (4, 5)
    assert Page[int]([1]) == ([1], False)
    assert Taken([], True)._asdict() == {"rows": [], "more": True}


def test_a_subclass_keeps_the_fields_of_its_row_and_may_have_attributes() -> None:
    class Named(Place):
        note: str = "no field"

    named = Named(1)
    named.note = "new"
    assert named == (1, 2, None)
    assert Named._fields == Place._fields


def test_a_field_without_a_default_after_one_with_a_default_is_refused() -> None:
    fields = {"__annotations__": {"a": "int", "b": "int"}, "a": 1}
    with pytest.raises(TypeError, match="without a default"):
        type(NamedTuple)("Wrong", (NamedTuple,), fields)


def test_the_backend_has_no_other_named_tuples() -> None:
    home = ROOT / "backend" / "core" / "named_tuple.py"
    steps = ROOT / "backend" / "store" / "migrations"  # frozen: they import nothing of the product
    others = [
        path
        for path in (ROOT / "backend").rglob("*.py")
        if "NamedTuple" in path.read_text("utf-8") and steps not in path.parents
    ]
    assert [
        str(path.relative_to(ROOT))
        for path in others
        if path != home and "core.named_tuple import NamedTuple" not in path.read_text("utf-8")
    ] == []
