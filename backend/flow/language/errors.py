"""Errors in ``.flow`` files: file, line, column, the line with a caret, and the way out."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

LINE_SHOWN = 160
"""Columns of a source line that a message shows."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Position in a file; ``line`` and ``column`` count characters from 1, ``length`` is in characters."""

    file: str
    line: int
    column: int
    length: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class FlowError:
    """Error at a place. ``hint`` says how to mend it; ``source_line`` is the line of the place, without its end."""

    place: Place
    message: str
    hint: str
    source_line: str = ""

    def render(self) -> str:
        """Return the error as text of up to four lines, with a caret under the place."""
        lines = [f"{self.place}: {self.message}"]
        if self.source_line.strip():
            lines += _quoted(self.source_line, self.place)
        if self.hint:
            lines.append(f"  {self.hint}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the error as an object for editors."""
        return {
            "file": self.place.file,
            "line": self.place.line,
            "column": self.place.column,
            "length": self.place.length,
            "message": self.message,
            "hint": self.hint,
        }


def render_all(errors: Iterable[FlowError]) -> str:
    """Return the errors as text, with an empty line between them."""
    return "\n\n".join(error.render() for error in errors)


def _quoted(source_line: str, place: Place) -> list[str]:
    """Return the source line and the line with the caret below it."""
    start = max(0, place.column - 1 - LINE_SHOWN // 2) if place.column > LINE_SHOWN else 0
    shown = source_line[start : start + LINE_SHOWN]
    before, marked = (
        _plain(shown[: place.column - 1 - start]),
        _plain(shown[place.column - 1 - start :][: place.length]),
    )
    caret = " " * _width(before) + "^" * max(1, _width(marked))
    number = str(place.line)
    gutter = " " * len(number)
    return [f"  {number} | {_plain(shown)}", f"  {gutter} | {caret}"]


def _plain(text: str) -> str:
    """Replace tabs by four spaces and other control characters, which terminals interpret, by a mark."""
    return "".join(
        "    " if one == "\t" else "\N{REPLACEMENT CHARACTER}" if unicodedata.category(one) in _UNPRINTABLE else one
        for one in text
    )


_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _width(text: str) -> int:
    """Return the number of terminal cells of ``text``: two for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in {"W", "F"} else 1 for one in text
    )
