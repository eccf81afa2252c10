"""Parse and edit the text of ``flashflow.toml``, one table at a time, leaving the rest unchanged.

A table under its own ``[header]`` is cut out and edited by tomlkit alone, because tomlkit moves comments between
tables. Other forms (inline tables, dotted keys) are edited by tomlkit in the whole file. In both cases the new text is
parsed again and must contain exactly the intended values.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any

from flashflow.backend.core.errors import ValidationError

Place = tuple[str, ...]
"""Keys of a table: ``("channels", "email")``; empty for the top level."""
Table = dict[str, Any]

MOST = 1_000_000
"""Limit of the file's length in characters."""

_ANY_HEADER = re.compile(r"^[ \t]*\[", re.MULTILINE)


def parsed(text: str) -> Table:
    """Parse the file. Raises ValidationError with line and column."""
    if len(text) > MOST:
        raise ValidationError.of("", f"flashflow.toml is longer than {MOST:,} characters.")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValidationError.of("", f"flashflow.toml is not valid TOML: {error}") from None
    except RecursionError:
        raise ValidationError.of("", "flashflow.toml is nested too deeply.") from None
    except ValueError:  # thousands of digits, an invalid date
        raise ValidationError.of("", "flashflow.toml holds a number or a date out of range.") from None


def table_at(tables: Mapping[str, Any], place: Place) -> Table | None:
    """Return the table at ``place``, or None."""
    found: Any = tables
    for key in place:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def with_table(tables: Mapping[str, Any], place: Place, values: Mapping[str, Any] | None) -> Table:
    """Return a copy of ``tables`` with ``values`` at ``place``, or without it for None. At the top level only plain
    values are replaced. Raises ValidationError where a parent is not a table."""
    changed: Table = copy.deepcopy(dict(tables))
    if not place:
        kept = {key: value for key, value in changed.items() if isinstance(value, dict)}
        return {**kept, **(values or {})}
    parent = changed
    for depth, key in enumerate(place[:-1], 1):
        parent = parent.setdefault(key, {})
        if not isinstance(parent, dict):
            raise ValidationError.of(".".join(place[:depth]), "must be a table")
    if values is None:
        parent.pop(place[-1], None)
    else:
        parent[place[-1]] = dict(values)
    return changed


def edited(text: str, place: Place, values: Mapping[str, Any] | None) -> str:
    """Return ``text`` with ``values`` in the table at ``place``, or without the table for None.

    Comments, order and unchanged values stay. Raises ValidationError where the file's form cannot be edited safely.
    """
    tables = parsed(text)
    if values is None and table_at(tables, place) is None:
        return text
    meant = _without_bare(with_table(tables, place, values))
    for way in (_edited_section, _edited_whole, _moved_to_end):
        with suppress(Exception):  # tomlkit stumbles over its own tables in many ways; the next way is tried
            changed = way(text, place, values)
            if changed is not None and _same(_without_bare(parsed(changed)), meant):
                return changed
    raise ValidationError.of(
        ".".join(place), "cannot be edited in the form that flashflow.toml has; please edit the file by hand"
    )


def _edited_section(text: str, place: Place, values: Mapping[str, Any] | None) -> str | None:
    """Edit the lines below the table's header, or append the table; None where it has another form."""
    newline = "\r\n" if "\r\n" in text else "\n"
    found = _section(text, place)
    if found is None:
        return _appended(text, place, values, newline)
    start, body_start, end = found
    body, tail = _split_tail(text[body_start:end])
    if values is None:
        return text[:start] + tail + text[end:]
    if not place and not body:  # comments at the top stay first, comments of the next table stay with it
        cut = tail.rfind(newline * 2) + len(newline * 2) if newline * 2 in tail else 0
        head, tail = tail[:cut], newline + tail[cut:]
        return text[:start] + head + _edited_lines("", values, newline) + tail + text[end:]
    header = _ended(text[start:body_start], newline) if place else ""
    return text[:start] + header + _edited_lines(body, values, newline) + tail + text[end:]


def _section(text: str, place: Place) -> tuple[int, int, int] | None:
    """Return the offsets of the table's header, first line and end; None unless there is exactly one header."""
    start = body = 0
    if place:
        names = r"[ \t]*\.[ \t]*".join(re.escape(key) for key in place)
        found = list(re.finditer(rf"^[ \t]*\[[ \t]*{names}[ \t]*\][ \t]*(?:#[^\n]*)?(?:\r?\n|\Z)", text, re.MULTILINE))
        if len(found) != 1:
            return None
        start, body = found[0].span()
    after = _ANY_HEADER.search(text, body)
    return start, body, after.start() if after else len(text)


def _split_tail(lines: str) -> tuple[str, str]:
    """Split a table's lines from the blank lines and comments after its last value, which belong to the next table."""
    each = re.findall(r"[^\n]*\n|[^\n]+", lines)
    tail = list(takewhile(lambda line: not line.strip() or line.lstrip().startswith("#"), reversed(each)))
    split = len(each) - len(tail)
    return "".join(each[:split]), "".join(each[split:])


def _edited_lines(lines: str, values: Mapping[str, Any], newline: str) -> str:
    import tomlkit

    document = tomlkit.parse(_ended(lines, newline))
    _update(document, values, keep_tables=False)
    return tomlkit.dumps(document).replace("\r\n", "\n").replace("\n", newline)


def _update(table: Any, values: Mapping[str, Any], *, keep_tables: bool) -> None:
    """Set the values of a tomlkit table, leaving equal ones as they are written."""
    for key in [key for key in table if key not in values and not (keep_tables and isinstance(table[key], dict))]:
        del table[key]
    for key, value in values.items():
        if key not in table or not _same(table[key], value):
            table[key] = value


def _appended(text: str, place: Place, values: Mapping[str, Any] | None, newline: str) -> str | None:
    if values is None or table_at(parsed(text), place) is not None:
        return None
    before = text.rstrip()
    gap = newline * 2 if before else ""
    return f"{before}{gap}[{'.'.join(place)}]{newline}{_edited_lines('', values, newline)}"


def _edited_whole(text: str, place: Place, values: Mapping[str, Any] | None) -> str:
    """Edit the whole file with tomlkit."""
    import tomlkit
    from tomlkit.items import InlineTable

    document = tomlkit.parse(text)
    parent: Any = document
    for key in place[:-1]:
        if key not in parent:
            parent[key] = tomlkit.inline_table() if isinstance(parent, InlineTable) else tomlkit.table(True)
        parent = parent[key]
    if values is None:
        del parent[place[-1]]
        return tomlkit.dumps(document)
    if place and place[-1] not in parent:
        parent[place[-1]] = tomlkit.inline_table() if isinstance(parent, InlineTable) else tomlkit.table()
    _update(parent[place[-1]] if place else parent, values, keep_tables=not place)
    return tomlkit.dumps(document)


def _moved_to_end(text: str, place: Place, values: Mapping[str, Any] | None) -> str | None:
    """Remove the table with tomlkit and append it at the end, without its comments."""
    newline = "\r\n" if "\r\n" in text else "\n"
    return _appended(_edited_whole(text, place, None), place, values, newline) if place else None


def _ended(lines: str, newline: str) -> str:
    return lines if not lines or lines.endswith("\n") else lines + newline


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal in TOML: 1, 1.0 and true differ."""
    one, other = (value.unwrap() if hasattr(value, "unwrap") else value for value in (one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)


def _without_bare(tables: Table) -> Table:
    """Drop empty parent tables: a ``[channels]`` header above ``[channels.email]`` has no meaning. An empty table of
    values has one: it configures a channel."""
    channels = tables.get("channels")
    if not isinstance(channels, dict):
        return tables
    channels = {key: value for key, value in channels.items() if (key, value) != ("push", {})}
    rest = {key: value for key, value in tables.items() if key != "channels"}
    return {**rest, "channels": channels} if channels else rest
