"""Templates: texts with named variables, filled in strictly and without evaluating anything.

A variable is written ``{name}``, ``{{name}}``, ``$name`` or ``${name}``; ``$$`` is a dollar sign, and what looks like
none of these is left as it stands. There are no attributes, indices or formats: caller data can only ever be text.
"""

from __future__ import annotations

import re
import string
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from flashflow.backend.core.errors import FieldError, ValidationError
from flashflow.backend.schemas.records import Rendered

TITLE_LIMIT = 300
MESSAGE_LIMIT = 10_000
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+")


class _Text(string.Template):
    pattern = r"""
        (?P<escaped>\$\$)
      | \$(?P<named>[A-Za-z_][A-Za-z0-9_]{0,63})
      | \$?\{(?P<double>\{)?\s*(?P<braced>[A-Za-z_][A-Za-z0-9_]{0,63})\s*\}(?(double)\})
      | (?P<invalid>(?!))
    """  # type: ignore[assignment]  # the documented way to extend Template


def variables(*texts: str) -> tuple[str, ...]:
    """Return the names that ``texts`` use, in order, each once."""
    return tuple(dict.fromkeys(name for text in texts for name in _Text(text).get_identifiers()))


def render(title: str, message: str, data: Mapping[str, Any], *, fallback: str | None = None) -> Rendered:
    """Return both texts with their variables filled in.

    Raises ValidationError naming each variable that is missing, is not text, a number or true/false, or that makes a
    text too long.

    With a ``fallback`` the values are made to fit: cleaned of control characters and cut, and a text that shows nothing
    then is the fallback.
    """
    errors = [
        FieldError(f"data.{name}", "is missing" if name not in data else "must be text, a number or true/false")
        for name in variables(title, message)
        if not isinstance(data.get(name), str | int | float)
    ]
    if errors:
        raise ValidationError("; ".join(f"{e.field} {e.message}" for e in errors), tuple(errors))
    values = {name: _as_text(data[name]) for name in variables(title, message)}
    if fallback is not None:
        cleaned = {name: _CONTROLS.sub(" ", value) for name, value in values.items()}
        one_line = {name: " ".join(value.split()) for name, value in cleaned.items()}
        filled = " ".join(_Text(title).substitute(_cut_to_fit(title, one_line, TITLE_LIMIT)).split())
        body = _Text(message).substitute(_cut_to_fit(message, cleaned, MESSAGE_LIMIT))
        return Rendered(
            title=_cut(filled or fallback, TITLE_LIMIT), message=_cut(body if body.strip() else fallback, MESSAGE_LIMIT)
        )
    filled = _filled("title", " ".join(_Text(title).substitute(values).split()), TITLE_LIMIT)
    if _length(message, values) > MESSAGE_LIMIT:  # before it is put together: ten thousand characters may become 33 M
        raise _too_long("message", MESSAGE_LIMIT)
    return Rendered(title=filled, message=_filled("message", _Text(message).substitute(values), MESSAGE_LIMIT))


def _as_text(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[: MESSAGE_LIMIT + 1]


def _length(text: str, values: Mapping[str, str]) -> int:
    """Return the length of ``text`` with its variables filled in."""
    length = len(text)
    for match in _Text.pattern.finditer(text):  # type: ignore[attr-defined]
        name = match["named"] or match["braced"]
        length += (len(values[name]) if name else 1) - len(match[0])
    return length


def _cut_to_fit(text: str, values: Mapping[str, str], limit: int) -> Mapping[str, str]:
    """Cut the longest values, all to one length, so that ``text`` filled in has ``limit`` characters at most (where it
    is not longer by itself)."""
    if _length(text, values) <= limit:
        return values

    def length_at(longest: int) -> int:
        return _length(text, {name: _cut(value, longest) for name, value in values.items()})

    longest = max(0, bisect_right(range(limit + 1), limit, key=length_at) - 1)
    return {name: _cut(value, longest) for name, value in values.items()}


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(0, length - 1)] + "…"[:length]


def _too_long(field: str, limit: int) -> ValidationError:
    return ValidationError.of(field, f"is longer than {limit} characters once the variables are filled in")


def _filled(field: str, text: str, limit: int) -> str:
    if not text.strip() or "\0" in text:
        raise ValidationError.of(field, "is empty or unprintable once the variables are filled in")
    if len(text) > limit:
        raise _too_long(field, limit)
    return text
