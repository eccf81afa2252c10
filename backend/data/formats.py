"""Export formats: JSON Lines, CSV, and Parquet if pyarrow is installed.

JSON Lines is exact: each line is the object of the API. In CSV and Parquet an object is JSON text; an empty object or
null is an empty cell (CSV) or null (Parquet).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from flashflow.backend.core.clock import rfc3339_of
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.schemas.records import Activity, Notification, Record, Session

Format = Literal["jsonl", "csv", "parquet"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet")
What = Literal["activities", "sessions", "notifications"]
RECORDS: Mapping[What, type[Record]] = {"activities": Activity, "sessions": Session, "notifications": Notification}
MEDIA_TYPES: Mapping[Format, str] = {
    "jsonl": "application/jsonl",
    "csv": "text/csv; charset=utf-8; header=present",
    "parquet": "application/vnd.apache.parquet",
}

_RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
"""First characters of cells that a spreadsheet may run as a formula (OWASP, CSV injection). The apostrophe is among
them so that ``unguarded`` is exact."""
encode = msgspec.json.Encoder().encode


class NoParquet(ValidationError):
    """pyarrow is not installed."""

    def __init__(self) -> None:
        super().__init__("Parquet needs pyarrow: pip install pyarrow, or choose jsonl or csv.")


def fields_of(record: Record) -> dict[str, Any]:
    """A record's fields as the API writes them: times as RFC 3339 in UTC with ``Z``."""
    return {name: _plain(getattr(record, name)) for name in record.__struct_fields__}


def _plain(value: Any) -> Any:
    return rfc3339_of(value) if isinstance(value, datetime) else value


def line_safe(json: bytes) -> bytes:
    """Escape U+2028, U+2029 and U+0085 in ``json``: many line readers split there."""
    for character, escaped in _SEPARATORS:
        json = json.replace(character, escaped)
    return json


_SEPARATORS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))
"""UTF-8 and JSON escape of each. These bytes occur only as that character, and only inside JSON strings."""


def jsonl(slices: Iterable[Sequence[Record]]) -> Iterator[bytes]:
    """One line for each record."""
    for rows in slices:
        yield b"".join(line_safe(encode(fields_of(row))) + b"\n" for row in rows)


def csv_file(record: type[Record], slices: Iterable[Sequence[Record]]) -> Iterator[bytes]:
    """A header and one line for each record."""
    names = record.__struct_fields__
    yield csv_lines([names])
    for rows in slices:
        yield csv_lines([cell_of(getattr(row, name)) for name in names] for row in rows)


def csv_lines(rows: Iterable[Sequence[str]]) -> bytes:
    """Rows as RFC 4180 lines in UTF-8, safe to open in a spreadsheet."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows([[guarded(cell) for cell in row] for row in rows])
    return text.getvalue().encode()


def cell_of(value: Any) -> str:
    """A value as the text of one cell."""
    if value is None or value in ({}, ()):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return str(_plain(value))
    return value if isinstance(value, str) else encode(value).decode()


def guarded(cell: str) -> str:
    """Prefix ``cell`` with an apostrophe if a spreadsheet might run it."""
    return f"'{cell}" if cell.startswith(_RISKY) else cell


def unguarded(cell: str) -> str:
    """Undo ``guarded``."""
    return cell[1:] if cell.startswith("'") else cell


def format_of(name: str, given: str | None) -> Format:
    """Return the given format, else the one of the file name's extension. Raises ValidationError."""
    kind = given or {"jsonl": "jsonl", "ndjson": "jsonl", "csv": "csv", "parquet": "parquet"}.get(
        name.rpartition(".")[2].lower(), "jsonl" if name == "-" else ""
    )
    for known in FORMATS:
        if kind == known:
            return known
    raise ValidationError.of("format", f"cannot be derived from the name {name!r}; give --format jsonl, csv or parquet")
