"""The syntax of JSON Schema's patterns, which is ECMA-262's, read into a tree.

What cannot be matched in bounded time (references back, looking around) and what ECMA-262 does not have is refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

LONGEST = 1_000
"""Characters of a pattern."""
MOST_TIMES = 1_000
"""How often something may be repeated."""
DEEPEST = 30
"""Groups inside each other."""

Test = Callable[[str], bool]
"""Whether a character is one of those meant."""

WORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_DIGITS = frozenset("0123456789")
_SPACES = frozenset(
    "\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200B)))
)
_LINE_ENDS = frozenset("\n\r\u2028\u2029")
_CONTROLS = {"t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "0": "\0"}
_CATEGORIES = frozenset("LMNPSZC") | {
    f"{group}{kind}"
    for group, kinds in {
        "L": "ultmo",
        "M": "nce",
        "N": "dlo",
        "P": "cdseifo",
        "S": "mcko",
        "Z": "slp",
        "C": "c",
    }.items()
    for kind in kinds
}

_REPEAT = re.compile(r"\{(\d{1,6})(?:(,)(\d{1,6})?)?\}")
_HEX = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}")
_PROPERTY = re.compile(r"[pP]\{(?:(?:gc|General_Category)=)?(\w{1,2})\}")
_GROUP = re.compile(r"\?(?::|<[A-Za-z_$][\w$]*>)")


class PatternError(ValueError):
    """The pattern is none, or asks for what is not done here."""


class Chars(NamedTuple):
    """One character."""

    test: Test


class Seq(NamedTuple):
    parts: tuple[Node, ...]


class Alt(NamedTuple):
    ways: tuple[Node, ...]


class Repeat(NamedTuple):
    """``most`` is None for any number."""

    part: Node
    least: int
    most: int | None


class Here(NamedTuple):
    """A place between characters: ``^``, ``$``, ``b`` or ``B``."""

    kind: str


Node: TypeAlias = Chars | Seq | Alt | Repeat | Here


def tree(text: str) -> Node:
    """Raises PatternError."""
    if len(text) > LONGEST:
        raise PatternError(f"is longer than {LONGEST:,} characters")
    return _Parser(text).whole()


class _Parser:
    """Reads ECMA-262's syntax, as far as it is done here."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> Node:
        node = self._either()
        if self._at < len(self._text):
            raise PatternError("has a ) that closes nothing")
        return node

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        char = self._peek()
        if not char:
            raise PatternError("ends too early")
        self._at += 1
        return char

    def _eat(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._at)
        if match:
            self._at = match.end()
        return match

    def _either(self) -> Node:
        ways = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            ways.append(self._sequence())
        return Alt(tuple(ways)) if len(ways) > 1 else ways[0]

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated(self._one()))
        return Seq(tuple(parts))

    def _repeated(self, part: Node) -> Node:
        bounds = self._bounds()
        if bounds is None:
            return part
        if isinstance(part, Here):
            raise PatternError("repeats a place, which is not a character")
        if self._peek() == "?":  # as few as possible: the same, where only a match counts
            self._at += 1
        if self._bounds() is not None:
            raise PatternError("repeats a repetition without a group")
        return Repeat(part, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        simple: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if self._peek() in simple:
            return simple[self._take()]
        if not (match := self._eat(_REPEAT)):
            return None
        least = int(match[1])
        most = int(match[3]) if match[3] else None if match[2] else least
        if max(least, most or 0) > MOST_TIMES:
            raise PatternError("repeats too much")
        if most is not None and most < least:
            raise PatternError("has a repetition whose bounds are the wrong way round")
        return least, most

    def _one(self) -> Node:
        char = self._take()
        match char:
            case "(":
                return self._group()
            case "^" | "$":
                return Here(char)
            case "*" | "+" | "?":
                raise PatternError(f"has a {char} with nothing before it")
            case "\\" if self._peek() in ("b", "B"):
                return Here(self._take())
        return Chars(self._char(char))

    def _char(self, char: str) -> Test:
        match char:
            case "[":
                return self._set()
            case ".":
                return lambda c: c not in _LINE_ENDS
            case "\\":
                return self._escape()
        return _is(char)

    def _group(self) -> Node:
        if self._peek() == "?" and not self._eat(_GROUP):
            raise PatternError("looks around or sets flags with (?…, which is not done here")
        self._depth += 1
        if self._depth > DEEPEST:
            raise PatternError("has too many groups inside each other")
        node = self._either()
        self._depth -= 1
        if self._peek() != ")":
            raise PatternError("has a ( that is not closed")
        self._at += 1
        return node

    def _escape(self) -> Test:
        """After a backslash: a character or a class of them."""
        if match := self._eat(_HEX):
            return _is(_char(int(match[1] or match[2] or match[3], 16)))
        if match := self._eat(_PROPERTY):
            return _category(match[1], match[0][0] == "P")
        char = self._take()
        classes = {"w": WORD, "d": _DIGITS, "s": _SPACES}
        if char in classes:
            return classes[char].__contains__
        if char.lower() in classes:
            others = classes[char.lower()]
            return lambda c: c not in others
        if char == "0" and self._peek() in _DIGITS:
            raise PatternError("has an octal escape, which is not done here")
        if char in _CONTROLS:
            return _is(_CONTROLS[char])
        if char in _DIGITS or char == "k":
            raise PatternError("refers back to a group, which is not done here")
        if char in WORD:
            raise PatternError(f"has the escape \\{char}, which there is not")
        return _is(char)

    def _set(self) -> Test:
        negated = self._peek() == "^"
        if negated:
            self._at += 1
        singles: set[str] = set()
        ranges: list[tuple[str, str]] = []
        classes: list[Test] = []
        while self._peek() != "]":
            low = self._member()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]"):
                self._at += 1
                high = self._member()
                if not isinstance(low, str) or not isinstance(high, str) or low > high:
                    raise PatternError("has a range in [] that is none")
                ranges.append((low, high))
            elif isinstance(low, str):
                singles.add(low)
            else:
                classes.append(low)
        self._at += 1
        return _one_of(frozenset(singles), tuple(ranges), tuple(classes), negated)

    def _member(self) -> str | Test:
        char = self._take()
        if char != "\\":
            return char
        if self._peek() == "b":
            self._at += 1
            return "\b"
        test = self._escape()
        return test.char if isinstance(test, _is) else test


class _is:  # noqa: N801 it reads as the function that it is
    """Passes one character."""

    def __init__(self, char: str) -> None:
        self.char = char

    def __call__(self, char: str) -> bool:
        return char == self.char


def _char(number: int) -> str:
    if number > 0x10FFFF:
        raise PatternError("has a character that there is not")
    return chr(number)


def _category(name: str, negated: bool) -> Test:
    if name not in _CATEGORIES:
        raise PatternError(f"has the property {name}, which is not known here")
    return lambda c: unicodedata.category(c).startswith(name) != negated


def _one_of(
    singles: frozenset[str], ranges: tuple[tuple[str, str], ...], classes: tuple[Test, ...], negated: bool
) -> Test:
    def test(char: str) -> bool:
        among = char in singles or any(low <= char <= high for low, high in ranges) or any(t(char) for t in classes)
        return among != negated

    return test
