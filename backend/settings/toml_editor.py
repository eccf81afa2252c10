"""The text of ``flashflow.toml``: read strictly, and changed a table at a time with everything else left as it stands.

A table under its own ``[header]`` is cut out and tomlkit sees nothing but its lines: across tables it moves comments
about. Other spellings (inline tables, dotted keys) are left to tomlkit as a whole. Either way the new text is read
again and must say exactly what was meant.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from flashflow.backend.core.errors import ValidationError

Place = tuple[str, ...]
"""A table by its keys: ``("channels", "email")``; none for the top of the file."""
Table = dict[str, Any]

MOST = 1_000_000
"""Characters of a file that are read: what is longer is no settings file."""

_ANY_HEADER = re.compile(r"^[ \t]*\[", re.MULTILINE)


def parsed(text: str) -> Table:
    """The file's tables. Raises ValidationError with the line and column of a mistake."""
    if len(text) > MOST:
        raise ValidationError.of("", f"flashflow.toml is longer than {MOST:,} characters.")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValidationError.of("", f"flashflow.toml is not valid TOML: {error}") from None
    except RecursionError:
        raise ValidationError.of("", "flashflow.toml is nested too deeply.") from None
    except ValueError:  # thousands of digits, a date that is none
        raise ValidationError.of("", "flashflow.toml holds a number or a date out of range.") from None


def table_at(tables: Mapping[str, Any], place: Place) -> Table | None:
    """The table at ``place``, or None where there is none."""
    found: Any = tables
    for key in place:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def with_table(tables: Mapping[str, Any], place: Place, values: Mapping[str, Any] | None) -> Table:
    """A copy of ``tables`` in which ``place`` says ``values``, or is gone for None. At the top only plain values are
    exchanged. Raises ValidationError where something that is no table stands in the way."""
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
    """``text`` with the table at ``place`` saying ``values``, or without it for None.

    Comments, order and what did not change stay. Raises ValidationError where the file is written in a way that
    cannot be changed without harm.
    """
    tables = parsed(text)
    if values is None and table_at(tables, place) is None:
        return text
    meant = _without_bare(with_table(tables, place, values))
    for way in (_edited_section, _edited_whole, _written_anew):
        changed = _tried(way, text, place, values)
        if changed is not None and _says(changed, meant):
            return changed
    raise ValidationError.of(
        ".".join(place), "cannot be changed in the way that flashflow.toml is written; please edit the file by hand"
    )


_Way = Callable[[str, Place, Mapping[str, Any] | None], str | None]


def _tried(way: _Way, text: str, place: Place, values: Mapping[str, Any] | None) -> str | None:
    try:
        return way(text, place, values)
    except Exception:  # noqa: BLE001 tomlkit stumbles over its own tables in many ways; the next way is tried
        return None


def _says(text: str, meant: Table) -> bool:
    try:
        return _same(_without_bare(parsed(text)), meant)
    except ValidationError:
        return False


def _edited_section(text: str, place: Place, values: Mapping[str, Any] | None) -> str | None:
    """By the table's own lines, appended at the end if there are none; None where it is not written like that."""
    newline = "\r\n" if "\r\n" in text else "\n"
    found = _section(text, place)
    if found is None:
        return _appended(text, place, values, newline)
    start, body_start, end = found
    body, tail = _split_tail(text[body_start:end])
    if values is None:
        return text[:start] + tail + text[end:]
    if not place and not body:  # what opens the file stays first, what describes the next table stays with it
        cut = tail.rfind(newline * 2) + len(newline * 2) if newline * 2 in tail else 0
        head, tail = tail[:cut], newline + tail[cut:]
        return text[:start] + head + _edited_lines("", values, newline) + tail + text[end:]
    header = _ended(text[start:body_start], newline) if place else ""
    return text[:start] + header + _edited_lines(body, values, newline) + tail + text[end:]


def _section(text: str, place: Place) -> tuple[int, int, int] | None:
    """Where the table's header and its lines begin and where they end; None where there is not just one header."""
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
    """A table's lines, and the blank lines and comments after its last value: they belong to what follows."""
    each = re.findall(r"[^\n]*\n|[^\n]+", lines)
    tail = list(takewhile(lambda line: not line.strip() or line.lstrip().startswith("#"), reversed(each)))
    split = len(each) - len(tail)
    return "".join(each[:split]), "".join(each[split:])


def _edited_lines(lines: str, values: Mapping[str, Any], newline: str) -> str:
    import tomlkit

    document = tomlkit.parse(_ended(lines, newline))
    known = document.unwrap()
    for key in known.keys() - values.keys():
        del document[key]
    for key, value in values.items():
        if key not in known or not _same(known[key], value):
            document[key] = value
    written = tomlkit.dumps(document)
    return written.replace("\r\n", "\n").replace("\n", newline)


def _appended(text: str, place: Place, values: Mapping[str, Any] | None, newline: str) -> str | None:
    if values is None or table_at(parsed(text), place) is not None:
        return None
    before = text.rstrip()
    gap = newline * 2 if before else ""
    return f"{before}{gap}[{'.'.join(place)}]{newline}{_edited_lines('', values, newline)}"


def _edited_whole(text: str, place: Place, values: Mapping[str, Any] | None) -> str:
    """By tomlkit's view of the whole file."""
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
    table = parent[place[-1]] if place else parent
    for key in [key for key in table if key not in values and (place or not isinstance(table[key], dict))]:
        del table[key]
    for key, value in values.items():
        if key not in table or not _same(table[key], value):
            table[key] = value
    return tomlkit.dumps(document)


def _written_anew(text: str, place: Place, values: Mapping[str, Any] | None) -> str | None:
    """The table taken out by tomlkit and put at the end, without the comments in it."""
    newline = "\r\n" if "\r\n" in text else "\n"
    return _appended(_edited_whole(text, place, None), place, values, newline) if place else None


def _ended(lines: str, newline: str) -> str:
    return lines if not lines or lines.endswith("\n") else lines + newline


def _same(one: Any, other: Any) -> bool:
    """Whether two values are written alike: 1, 1.0 and true are three."""
    one, other = (value.unwrap() if hasattr(value, "unwrap") else value for value in (one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)


def _without_bare(tables: Table) -> Table:
    """Without the tables of tables that are empty: whether ``[channels]`` stands above ``[channels.email]`` makes no
    difference. An empty table of values does: it says that a channel is there."""
    channels = tables.get("channels")
    if not isinstance(channels, dict):
        return tables
    channels = {key: value for key, value in channels.items() if (key, value) != ("push", {})}
    rest = {key: value for key, value in tables.items() if key != "channels"}
    return {**rest, "channels": channels} if channels else rest
