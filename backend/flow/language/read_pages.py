"""Read pages and their elements."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, cast

from flashflow.backend.flow.language.declarations import (
    Action,
    Bell,
    Chart,
    Constant,
    Container,
    Element,
    Expression,
    Form,
    Name,
    Page,
    Places,
    SettingsPanel,
    Sort,
    Table,
    TextElement,
)
from flashflow.backend.flow.language.read_actions import read_actions, read_data_source
from flashflow.backend.flow.language.read_models import singular
from flashflow.backend.flow.language.reader import IDENTIFIER, Reader
from flashflow.backend.flow.language.syntax import Block, Declared, Entry, Word
from flashflow.backend.flow.language.syntax import Element as Node
from flashflow.backend.flow.language.vocabulary import CONSTRUCTS, CONTAINERS, ELEMENTS, OTHER_WORDS, TEXT_ELEMENTS

MOST_REFRESH_S = 86_400
_ATTRIBUTES = ("style", "class")
_ROUTE = r"/[A-Za-z0-9._~/-]*"


def read_page(reader: Reader, declared: Declared, name: str) -> Page | None:
    """Read a page."""
    entries = reader.entries(CONSTRUCTS["page"], declared.block, declared)
    if "route" in entries and "path" in entries:
        reader.fail(entries["path"], "“path” and “route” are the same", "Remove one of them.")
    title = reader.text(entries["title"]) if "title" in entries else name
    route_entry = entries.get("route") or entries.get("path")
    route = f"/{singular(name).replace('_', '-')}" if route_entry is None else _route(reader, route_entry)
    auth = reader.word(entries["auth"], ("admin", "required")) if "auth" in entries else None
    if title is not None and not 1 <= len(title.strip()) <= 100:
        reader.fail(entries["title"].values[0], "this title is empty or too long", "Write 1 to 100 characters.")
    elements = _elements(reader, declared.block)
    if title is None or route is None:
        return None
    level: Literal["admin"] | None = "admin" if auth == "admin" else None
    return Page(name, title, route, level, elements, reader.place(declared.heads[0]))


def _route(reader: Reader, entry: Entry) -> str | None:
    route = reader.text(entry)
    if route is not None and (not re.fullmatch(_ROUTE, route) or len(route) > 200):
        hint = 'Write a path such as "/dashboard": letters, digits, “-”, “_”, “.” and “/”.'
        reader.fail(entry.values[0], "this is not a route", hint)
        return None
    return route


def _elements(reader: Reader, block: Block) -> tuple[Element, ...]:
    """Read the elements of a block; entries are left to the caller."""
    found: list[Element] = []
    for statement in block.statements:
        if isinstance(statement, Node):
            element = _element(reader, statement)
            found += [] if element is None else [element]
        elif not isinstance(statement, Entry):
            reader.misplaced(statement, "a page")
    return tuple(found)


def _element(reader: Reader, node: Node) -> Element | None:
    kind = node.keyword.text
    if kind in TEXT_ELEMENTS:
        return _text(reader, node, _style(reader, node))
    if kind in CONTAINERS:
        return _container(reader, node, _style(reader, node))
    if kind in _READ:
        return _data_element(reader, node, kind)
    hint = OTHER_WORDS.get(kind) or reader.suggest(kind, ELEMENTS, "Elements are")
    reader.fail(node, f"“{kind}” is not an element", hint)
    return None


def _data_element(reader: Reader, node: Node, kind: str) -> Element | None:
    _style(reader, node)
    if node.label is not None:
        reader.fail(node.label, f"“{kind}” has no text", f'Write `title: "…"` within its block, or `{kind} name {{`.')
    if node.block is None:
        reader.fail(node, f"“{kind}” has no block", f"Write `{CONSTRUCTS[kind].form}`.")
        return None
    reader.only_entries(CONSTRUCTS[kind], node.block)
    return _READ[kind](reader, node, reader.entries(CONSTRUCTS[kind], node.block, node))


def _style(reader: Reader, node: Node) -> str | None:
    """Return the attribute ``style``; ``class`` is accepted and has no effect."""
    style = None
    for attribute in node.attributes:
        if attribute.name not in _ATTRIBUTES:
            hint = f"Attributes are {' and '.join(_ATTRIBUTES)}."
            reader.fail(attribute, f"“{attribute.name}” is not an attribute", hint)
        elif attribute.name == "style":
            style = reader.unquote(attribute.value)
    return style


def _text(reader: Reader, node: Node, style: str | None) -> TextElement | None:
    kind = node.keyword.text
    if node.label is None:
        reader.fail(node, f"“{kind}” has no text", f'Write `{kind} "…"`.')
        return None
    if node.block is not None:
        reader.fail(node, f"“{kind}” has no block", "Write the block after an element such as `section`.")
    text = reader.expression(node.label)
    if text is None:
        return None
    return TextElement(
        cast(Literal["h1", "h2", "h3", "h4", "h5", "h6", "text", "p"], kind), text, reader.place(node), style
    )


def _container(reader: Reader, node: Node, style: str | None) -> Container | None:
    kind = node.keyword.text
    title = reader.expression(node.label) if node.label is not None else None
    if title is not None and not isinstance(title, Constant):
        reader.fail_at(title.place, f"the title of “{kind}” needs a text", f'Write `{kind} "…" {{ … }}`.')
    if node.block is None:
        reader.fail(node, f"“{kind}” has no block", f"Write `{kind} {{ … }}`.")
        return None
    for statement in node.block.statements:
        if isinstance(statement, Entry):
            hint = OTHER_WORDS.get(statement.key, 'Write elements: `text "…"`, `table name { … }`.')
            reader.fail(statement, f"“{statement.key}” is not an entry of {kind}", hint)
    heading = str(title.value) if isinstance(title, Constant) else None
    children = _elements(reader, node.block)
    names = cast(Literal["row", "column", "div", "header", "section"], kind)
    return Container(names, heading, children, reader.place(node), style)


def _user(reader: Reader, node: Node, entries: dict[str, Entry]) -> Expression:
    entry = entries.get("user_id")
    value = None if entry is None else reader.expression(reader.single(entry))
    return Name(("current_user", "id"), reader.place(node)) if value is None else value


def _bell(reader: Reader, node: Node, entries: dict[str, Entry]) -> Bell:
    position = reader.word(entries["position"], ("left", "center", "right")) if "position" in entries else None
    side = cast(Literal["left", "center", "right"], position or "right")
    return Bell(_user(reader, node, entries), side, reader.place(node))


def _settings(reader: Reader, node: Node, entries: dict[str, Entry]) -> SettingsPanel:
    return SettingsPanel(_user(reader, node, entries), reader.place(node))


def _named(reader: Reader, node: Node) -> str:
    """Return the name of a table, chart or form; by default its kind."""
    name = node.name or node.keyword
    if not IDENTIFIER.fullmatch(name.text):
        reader.fail(name, f"“{name.text}” is not a name", f"Write `{CONSTRUCTS[node.keyword.text].form}`.")
    return name.text


def _refresh(reader: Reader, entries: dict[str, Entry]) -> int | None:
    return reader.integer(entries["refresh"], 1, MOST_REFRESH_S) if "refresh" in entries else None


def _title(reader: Reader, entries: dict[str, Entry]) -> str | None:
    return reader.text(entries["title"]) if "title" in entries else None


def _names(reader: Reader, entries: dict[str, Entry], key: str) -> Places:
    return (reader.names(entries[key]) if key in entries else None) or ()


def _texts(places: Places) -> tuple[str, ...]:
    return tuple(name for name, _ in places)


def _place_of(reader: Reader, entries: dict[str, Entry], key: str, name: str | None) -> Places:
    """Return the place of the entry's first value under ``name``."""
    return ((name, reader.place(entries[key].values[0])),) if name is not None and key in entries else ()


def _actions(reader: Reader, entries: dict[str, Entry], key: str) -> tuple[Action, ...]:
    if key not in entries:
        return ()
    block = reader.single(entries[key])
    if not isinstance(block, Block):
        reader.fail(block, f"“{key}” needs a block", f"Write `{key}: {{ track_activity: {{ … }} }}`.")
        return ()
    return read_actions(reader, block, key)


def _table(reader: Reader, node: Node, entries: dict[str, Entry]) -> Table | None:
    name, data = _named(reader, node), read_data_source(reader, entries["data"]) if "data" in entries else None
    columns = _names(reader, entries, "columns")
    sort = _sort(reader, entries["sort"]) if "sort" in entries else None
    title, refresh = _title(reader, entries), _refresh(reader, entries)
    actions = _actions(reader, entries, "on_row_click")
    if data is None:
        return None
    places = (*columns, *_place_of(reader, entries, "sort", sort.column if sort else None))
    return Table(name, _texts(columns), data, reader.place(node), title, refresh, sort, actions, places)


def _sort(reader: Reader, entry: Entry) -> Sort | None:
    match entry.values:
        case [Word(text=column)]:
            return Sort(column, descending=False)
        case [Word(text=column), Word(text="asc" | "desc" as order)]:
            return Sort(column, order == "desc")
    reader.fail(entry.values[-1], "this is not an order", "Write `sort: column`, or `sort: column desc`.")
    return None


def _chart(reader: Reader, node: Node, entries: dict[str, Entry]) -> Chart | None:
    name, data = _named(reader, node), read_data_source(reader, entries["data"]) if "data" in entries else None
    kind = reader.word(entries["type"], ("line", "bar", "area")) if "type" in entries else "line"
    x = reader.name(entries["x"]) if "x" in entries else None
    y = _names(reader, entries, "y")
    title, refresh = _title(reader, entries), _refresh(reader, entries)
    if data is None or kind is None:
        return None
    drawn = cast(Literal["line", "bar", "area"], kind)
    places = (*y, *_place_of(reader, entries, "x", x))
    return Chart(name, drawn, data, x or "", _texts(y), reader.place(node), title, refresh, places)


def _form(reader: Reader, node: Node, entries: dict[str, Entry]) -> Form | None:
    name, fields = _named(reader, node), _names(reader, entries, "fields")
    model = reader.name(entries["model"]) if "model" in entries else None
    title, actions = _title(reader, entries), _actions(reader, entries, "on_submit")
    if model is None:
        return None
    places = (*fields, *_place_of(reader, entries, "model", model))
    return Form(name, _texts(fields), model, reader.place(node), title, actions, places)


_READ: dict[str, Callable[[Reader, Node, dict[str, Entry]], Element | None]] = {
    "notification_bell": _bell,
    "notification_settings": _settings,
    "table": _table,
    "chart": _chart,
    "form": _form,
}
