"""Format the values of data sources by their unit. Pure functions, no Flet."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

from flashflow.views.controls.formatting import grouped, one_line
from flashflow.views.controls.relative_time import ago, day_month, exact
from flashflow.views.shared.values import NOTHING, Number, duration_text, percent

RIGHT = frozenset({"number", "share", "seconds"})
"""Units whose values are aligned to the right, so that their digits can be compared."""
LONGEST = 300
"""Characters of a cell's text."""
LARGEST = 10**15
"""Numbers from here on are shown with an exponent."""
LONGEST_INTEGER = 10**40

_WORDS = {"id": "ID", "url": "URL", "ip": "IP", "api": "API", "uuid": "UUID"}


class Cell(NamedTuple):
    """Text of a value; ``tooltip`` is the exact value where the text is not."""

    text: str
    tooltip: str = ""


def title_of(name: str) -> str:
    """Return the title of a column or field: "page_url" → "Page URL"."""
    words = [_WORDS.get(word.lower(), word) for word in one_line(name.replace("_", " "), 60).split()]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def cell(value: Any, unit: str, now: datetime, decimals: int | None = None) -> Cell:
    """Format a value; one that does not fit its unit is shown as text. ``decimals``: those of every number of its
    column, so that the digits align."""
    if value is None or value == "":
        return Cell(NOTHING)
    if unit == "time":
        return _time(value, now)
    if unit == "day":
        return Cell(day_label(value, now))
    if unit in RIGHT and (number := as_number(value)) is not None:
        return Cell(number_text(number, decimals)) if unit == "number" else _number(number, unit)
    return Cell(one_line(plain(value), LONGEST))


def plain(value: Any) -> str:
    """Return a value as text: maps and lists as JSON."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int() if abs(value) >= LONGEST_INTEGER:  # Python refuses to write out thousands of digits
            return "∞" if value > 0 else "-∞"
        case float():
            return f"{value:.6g}"
        case Mapping() | list() | tuple():
            return json.dumps(value, ensure_ascii=False, default=str)
        case _:
            return str(value)


def as_number(value: Any) -> Number | None:
    """Return a value as a finite number; None for any other value. Decimals are stored as text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond the floats
        return None


def number_text(number: Number, decimals: int | None = None) -> str:
    """Format a number with thousands separators and ``decimals``, by default as many as it needs, at most two."""
    if abs(number) >= LARGEST:
        return f"{number:.6g}"
    if decimals is not None:
        return f"{number:,.{decimals}f}"
    if isinstance(number, int) or number.is_integer():
        return grouped(int(number))
    if abs(number) < 0.01:
        return f"{number:.2g}"
    return f"{number:,.2f}".rstrip("0").rstrip(".")


def decimals_of(values: Iterable[Any]) -> int | None:
    """Return the decimals that all numbers of a column have; None where one of them needs more than two."""
    numbers = [number for value in values if (number := as_number(value)) is not None]
    if any(0 < abs(number) < 0.01 for number in numbers):
        return None
    return max((len(number_text(number).partition(".")[2]) for number in numbers if abs(number) < LARGEST), default=0)


def value_text(number: Number | None, unit: str) -> str:
    """Format a number of a chart."""
    return NOTHING if number is None else _number(number, unit).text


def day_label(value: Any, now: datetime) -> str:
    """Format a day or an hour: "2026-11-24" → "Tue 24 Nov", "2026-11-24T09" → "24 Nov, 09:00"."""
    text = str(value)
    day, _, hour = text.partition("T")
    try:
        of = date.fromisoformat(day)
    except ValueError:
        return one_line(text, LONGEST)
    if hour[:2].isdigit():
        return f"{day_month(of, now)}, {hour[:2]}:00"
    return f"{of:%a} {day_month(of, now)}"


def _number(number: Number, unit: str) -> Cell:
    if unit == "share":
        return Cell(percent(number) if abs(number) < LARGEST else f"{number:.6g}")
    if unit == "seconds":
        return Cell(duration_text(number) if 0 <= number < LARGEST else number_text(number))
    return Cell(number_text(number))


def _time(value: Any, now: datetime) -> Cell:
    try:
        then = datetime.fromisoformat(str(value))
        then = then if then.tzinfo is not None else then.replace(tzinfo=now.tzinfo)
        return Cell(ago(then, now), exact(then, now))
    except (ValueError, OverflowError):
        return Cell(one_line(str(value), LONGEST))
