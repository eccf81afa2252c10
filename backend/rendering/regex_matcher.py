"""Regular expressions of strangers: matched in a time that their text and their pattern bound, whatever they say.

Python's ``re`` tries one way through a pattern after the other, so that ``(a+)+$`` can take longer than the universe
has. Here all ways are followed at once, as Thompson described in 1968: each character costs at most one look at each
state of the pattern. Only whether there is a match somewhere is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from flashflow.backend.rendering.regex_syntax import WORD, Alt, Chars, Here, Node, PatternError, Repeat, Seq, Test, tree

__all__ = ["Pattern", "PatternError", "Spend"]

MOST_STATES = 1_500
"""What a pattern may come to once its repetitions are written out."""
REMEMBERED = 4_000
"""States in the steps that a pattern remembers, some 250 KB; beyond, it begins anew."""

Spend = Callable[[int], None]
"""Told how many states were looked at; may raise to end a match that costs too much."""


_Key = tuple[frozenset[int], bool, bool, str]
"""States, whether at the start, whether after a word's character, and the character that follows."""


class Pattern:
    """A pattern ready to be looked for. Raises PatternError. Thread-safe."""

    def __init__(self, text: str) -> None:
        program = _Program(tree(text))
        self._start = frozenset({program.start})
        self._states = program.states
        self.size = len(program.states)
        self._minds_words = program.minds_words
        self._steps: dict[_Key, tuple[bool, frozenset[int]]] = {}
        self._remembered = 0

    def found_in(self, text: str, spend: Spend = lambda _: None) -> bool:
        """Whether it matches anywhere in ``text``."""
        spend(1 + len(text) // 16)
        current, after_word = self._start, False
        for place in range(len(text) + 1):
            char = text[place : place + 1]  # "" at the end
            key = (current, place == 0, after_word, char)
            step = self._steps.get(key)
            if step is None:
                step = self._step(*key, spend)
                self._remember(key, step)
            matched, current = step
            if matched:
                return True
            after_word = self._minds_words and char in WORD
        return False

    def _remember(self, key: _Key, step: tuple[bool, frozenset[int]]) -> None:
        self._remembered += 4 + len(step[1])
        if self._remembered > REMEMBERED:
            self._steps, self._remembered = {}, 0
        self._steps[key] = step

    def _step(
        self, current: frozenset[int], at_start: bool, after_word: bool, char: str, spend: Spend
    ) -> tuple[bool, frozenset[int]]:
        """Whether the match is complete before ``char``, and else the states after it; another may always begin."""
        here = {"^": at_start, "$": not char, "b": after_word != (char in WORD if char else False)}
        here["B"] = not here["b"]
        seen: set[int] = set()
        waiting = list(current)
        following = set(self._start)
        while waiting:
            number = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            state = self._states[number]
            if state.test is not None:
                if char and state.test(char):
                    following.add(state.ways[0])
            elif state.here is None or here[state.here]:
                if not state.ways:
                    return True, self._start
                waiting.extend(state.ways)
        spend(len(seen))
        return False, frozenset(following)


class _State(NamedTuple):
    """Goes on to each of ``ways``: past a character that passes ``test``, or at once (where ``here`` holds). Without
    ways it is the end of a match."""

    ways: tuple[int, ...]
    test: Test | None = None
    here: str | None = None


class _Program:
    """A pattern's states, written from its end to its beginning."""

    def __init__(self, node: Node) -> None:
        self.states: list[_State] = [_State(())]
        self.minds_words = False
        self._visits = 0
        self.start = self._write(node, 0)

    def _add(self, state: _State) -> int:
        self.states.append(state)
        return len(self.states) - 1

    def _write(self, node: Node, then: int) -> int:
        """The state that ``node`` begins with when it goes on to ``then``."""
        self._visits += 1
        if self._visits > MOST_STATES:  # visits, since a repeated nothing has no states
            raise PatternError("repeats too much")
        match node:
            case Chars(test):
                return self._add(_State((then,), test))
            case Here(kind):
                self.minds_words |= kind in "bB"
                return self._add(_State((then,), None, kind))
            case Seq(parts):
                for part in reversed(parts):
                    then = self._write(part, then)
                return then
            case Alt(ways):
                return self._add(_State(tuple(self._write(way, then) for way in ways)))
            case Repeat(part, least, most):
                return self._repeat(part, least, most, then)

    def _repeat(self, part: Node, least: int, most: int | None, then: int) -> int:
        end = then
        if most is None:
            loop = self._add(_State(()))
            self.states[loop] = _State((self._write(part, loop), end))
            then = loop
        for _ in range(0 if most is None else most - least):
            then = self._add(_State((self._write(part, then), end)))
        for _ in range(least):
            then = self._write(part, then)
        return then
