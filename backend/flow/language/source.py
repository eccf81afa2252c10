"""Source of one ``.flow`` file: reading within limits, places, and the parts that hold one declaration each."""

from __future__ import annotations

import re
import stat
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.flow.language.errors import FlowError, Place
from flashflow.backend.flow.language.vocabulary import DECLARATIONS

SUFFIX = ".flow"
LARGEST_FILE = 1_000_000
"""Bytes of a file."""
MOST_DECLARATIONS = 2_000
"""Declarations of a file, and of a project."""
MOST_ERRORS = 1_000
"""Errors that are collected of a file."""
MOST_DEPTH = 32
"""Braces and brackets within each other."""

_SIGNS = re.compile(
    r'(?P<text>"(?:\\.|[^"\\\n])*")|(?P<open_text>"[^\n]*)|(?P<comment>\#[^\n]*)'
    rf"|(?P<top>^(?:{'|'.join(DECLARATIONS)})\b(?=[ \t]+[\w\"][^\n{{}}:=]*\{{))"
    r"|(?P<open>[{\[])|(?P<close>[}\]])",
    re.MULTILINE,
)
_BLANKS = re.compile(r"[ \t]{0,200}")
_FILLING = re.compile(r"(?:\s|#[^\n]*(?:\n|\Z))*")
_YAML = re.compile(r"---|-\s|[^\W\d][\w-]*[ \t]*:|[^\W\d]\w*[ \t]+[^\W\d]\w*[ \t]*:[ \t]*$", re.MULTILINE)


class Part(NamedTuple):
    """Part of a file that holds one declaration, by its offsets."""

    start: int
    end: int


class Source:
    """Text of a file and its lines."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, start: int, end: int) -> Place:
        """Return the place of the characters from ``start`` to ``end``, cut at the end of the line."""
        line = bisect_right(self._starts, start) - 1
        stop = min(max(end, start + 1), self._line_end(line + 1))
        return Place(self.file, line + 1, start - self._starts[line] + 1, max(1, stop - start))

    def line(self, number: int) -> str:
        """Return the line ``number``, counted from 1, without its end."""
        return self.text[self._starts[number - 1] : self._line_end(number)] if number <= len(self._starts) else ""

    def indent(self, at: int) -> range:
        """Return the offsets of the blanks at the begin of the line of ``at``, up to 200."""
        start = self._starts[bisect_right(self._starts, at) - 1]
        blanks = _BLANKS.match(self.text, start)
        return range(start, blanks.end() if blanks else start)

    def _line_end(self, number: int) -> int:
        end = self._starts[number] - 1 if number < len(self._starts) else len(self.text)
        return end - 1 if end > self._starts[number - 1] and self.text[end - 1] == "\r" else end


def files_in(folder: Path) -> list[Path]:
    """Return the files of a folder by name, without hidden ones. Raises OSError."""
    return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and not path.name.startswith("."))


def read_source(path: Path, file: str) -> Source | FlowError:
    """Read a file. Return an error where it cannot be read, is too large or is not UTF-8 text."""
    try:
        kind = path.stat()
        if not stat.S_ISREG(kind.st_mode):
            return _unread(file, "this is not a file", "Name a .flow file, or a folder with some.")
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name is not valid"
        return _unread(file, f"the file cannot be read: {reason}", "Check its name and its permissions.")
    if len(raw) > LARGEST_FILE:
        return _unread(
            file,
            f"the file is larger than {LARGEST_FILE // 1_000_000} MB",
            "Split it into several files: a folder is read as one project.",
        )
    return decode_source(raw, file)


def decode_source(raw: bytes, file: str) -> Source | FlowError:
    """Decode the bytes of a file. Return an error where they are not UTF-8 text."""
    try:
        source = Source(file, raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return FlowError(Place(file, line, 1), "the file is not UTF-8", "Save it with the encoding UTF-8.")
    bad = re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", source.text)
    if bad is not None:
        place = source.place(bad.start(), bad.end())
        return FlowError(place, f"the file has a control character, U+{ord(bad[0]):04X}", "Remove it.")
    return source


def _unread(file: str, message: str, hint: str) -> FlowError:
    return FlowError(Place(file, 1, 1), message, hint)


def split(source: Source, errors: list[FlowError]) -> list[Part]:
    """Return the parts of a file with one declaration each; add the errors of quotes and braces.

    A part with such an error is left out. Nothing is returned for the YAML form and for a file nested too deeply.
    """
    beginning = _FILLING.match(source.text)
    start = beginning.end() if beginning else 0
    if _YAML.match(source.text, start):
        line_end = source.text.find("\n", start)
        errors.append(
            FlowError(
                source.place(start, len(source.text) if line_end < 0 else line_end),
                "this file is written in the YAML form, which FlashFlow does not read",
                "Write declarations with braces: `model User { name: string required }` (docs/flow.md).",
            )
        )
        return []
    parts = list(islice(_Splitter(source, errors).parts(), MOST_DECLARATIONS + 1))
    if len(parts) > MOST_DECLARATIONS:
        errors.append(too_many(source.place(*parts.pop())))
    return parts


def too_many(place: Place) -> FlowError:
    """Return the error of the first declaration beyond MOST_DECLARATIONS."""
    return FlowError(place, f"there are more than {MOST_DECLARATIONS:,} declarations", "Remove some.")


class _Splitter:
    def __init__(self, source: Source, errors: list[FlowError]) -> None:
        self._source = source
        self._errors = errors
        self._open: list[int] = []
        self._start = 0
        self._sound = True
        self._doubtful: tuple[int, int] | None = None
        """First brace of this part whose closing one is indented less than its line, and the closing one."""

    def parts(self) -> Iterator[Part]:
        for sign in _SIGNS.finditer(self._source.text):
            match sign.lastgroup:
                case "open_text":
                    self._fail(sign.start(), sign.end(), "this text has no closing quote", 'End it with " on its line.')
                case "top":
                    # These never stand inside another: the block before lacks its end.
                    yield from self._end(sign.start())
                case "open":
                    self._open.append(sign.start())
                    if len(self._open) > MOST_DEPTH:
                        hint = f"At most {MOST_DEPTH} braces and brackets may be within each other."
                        self._fail(sign.start(), sign.end(), "this is nested too deeply", hint)
                        return
                case "close":
                    self._close(sign.start(), sign[0])
                    if not self._open:
                        yield from self._end(sign.end())
            if len(self._errors) > MOST_ERRORS:
                return
        yield from self._end(len(self._source.text))

    def _close(self, at: int, sign: str) -> None:
        if not self._open:
            self._fail(at, at + 1, f"this “{sign}” closes nothing", "Remove it, or add the opening one before it.")
            return
        opened = self._open[-1]
        if (self._source.text[opened] == "{") != (sign == "}"):
            self._unclosed(opened, f"“{sign}” in line {self._source.place(at, at).line}")
            if len(self._open) < 2:
                return
            self._open.pop()
        opened = self._open.pop()
        if self._doubtful is None:
            begin, end = self._source.indent(opened), self._source.indent(at)
            if end.stop == at and end.stop - end.start < begin.stop - begin.start:
                self._doubtful = opened, at

    def _end(self, at: int) -> Iterator[Part]:
        if self._open:
            line = self._source.place(at, at).line
            end = "the end of the file" if at == len(self._source.text) else f"the next declaration in line {line}"
            opened = self._open[-1]
            if self._doubtful is not None:
                opened, end = self._doubtful[0], f"line {self._source.place(self._doubtful[1], at).line}"
            self._unclosed(opened, end)
            self._open.clear()
        filling = _FILLING.match(self._source.text, self._start, at)
        begin = filling.end() if filling else self._start
        if self._sound and begin < at:
            yield Part(begin, at)
        self._start, self._sound, self._doubtful = at, True, None

    def _unclosed(self, opened: int, before: str) -> None:
        if not self._sound:  # an open text hides the signs after it
            return
        sign = self._source.text[opened]
        other = "}" if sign == "{" else "]"
        self._fail(opened, opened + 1, f"this “{sign}” is not closed", f"Write “{other}” before {before}.")

    def _fail(self, start: int, end: int, message: str, hint: str) -> None:
        self._sound = False
        self._errors.append(FlowError(self._source.place(start, end), message, hint))
