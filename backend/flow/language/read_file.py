"""Read the declarations of one file."""

from __future__ import annotations

import re

from flashflow.backend.flow.language.declarations import Declaration, Endpoint, Model
from flashflow.backend.flow.language.errors import FlowError
from flashflow.backend.flow.language.read_actions import read_every, read_job
from flashflow.backend.flow.language.read_endpoints import read_endpoint
from flashflow.backend.flow.language.read_models import read_model
from flashflow.backend.flow.language.read_notifications import read_notification_type, read_rule, read_template
from flashflow.backend.flow.language.read_pages import read_page
from flashflow.backend.flow.language.reader import IDENTIFIER, Reader
from flashflow.backend.flow.language.source import Part, Source, split
from flashflow.backend.flow.language.syntax import Declared, Quoted, Word
from flashflow.backend.flow.language.vocabulary import CONSTRUCTS, DECLARATIONS, ELEMENTS, OTHER_WORDS

_KEYWORD = re.compile(r"[^\W\d]\w*")
_QUOTED_NAMES = frozenset({"notification_type", "template"})
_NAMED = {
    "model": read_model,
    "page": read_page,
    "endpoint": read_endpoint,
    "job": read_job,
    "notification_type": read_notification_type,
    "template": read_template,
}


def read_file(source: Source, errors: list[FlowError]) -> list[Declaration]:
    """Return the declarations of a file and add their errors. One with errors is returned as far as it could be read,
    so that checks find its other errors; a model or endpoint with errors is left out."""
    from flashflow.backend.flow.language.parser import parse  # loads lark

    reader = Reader(source, errors)
    found: list[Declaration] = []
    parts = [part for part in split(source, errors) if _known(reader, part)]
    for declared in parse(source, parts, errors):
        count = len(errors)
        declaration = _declaration(reader, declared)
        if declaration is not None and (len(errors) == count or not isinstance(declaration, Model | Endpoint)):
            found.append(declaration)
    return found


def _known(reader: Reader, part: Part) -> bool:
    """Whether a part does not begin with an unknown keyword, which is an error whatever follows it."""
    match = _KEYWORD.match(reader.source.text, part.start, part.end)
    if match is None or match[0] in DECLARATIONS:
        return True
    keyword = match[0]
    hint = OTHER_WORDS.get(keyword) or reader.suggest(keyword, DECLARATIONS, "Declarations are")
    if keyword in ELEMENTS:
        hint = "Elements are part of a page: `page Dashboard { … }`."
    place = reader.source.place(match.start(), match.end())
    reader.fail_at(place, f"“{keyword[:40]}” is not a declaration", hint)
    return False


def _declaration(reader: Reader, declared: Declared) -> Declaration | None:
    keyword = declared.keyword.text
    if keyword == "every":
        return read_every(reader, declared)
    if keyword == "on":
        return read_rule(reader, declared)
    name = _name(reader, declared)
    return None if name is None else _NAMED[keyword](reader, declared, name)


def _name(reader: Reader, declared: Declared) -> str | None:
    """Return the name of a declaration."""
    keyword = declared.keyword.text
    hint = f"Write `{CONSTRUCTS[keyword].form.split(',')[0]}`."
    if not declared.heads:
        reader.fail(declared, f"this {keyword} has no name", hint)
        return None
    for surplus in declared.heads[1:]:
        reader.fail(surplus, f"{reader.shown(surplus)} is not expected after the name", hint)
    head = declared.heads[0]
    if isinstance(head, Quoted) and keyword in _QUOTED_NAMES:
        return reader.unquote(head)
    if isinstance(head, Word) and IDENTIFIER.fullmatch(head.text):
        return head.text
    words = "Names have letters, digits and “_”, and begin with a letter, without quotes."
    if isinstance(head, Quoted) and re.fullmatch(r'"\w+"', head.text):
        words = f"Write it without quotes: `{keyword} {head.text[1:-1]} {{ … }}`."
    reader.fail(head, f"{reader.shown(head)} is not the name of a {keyword}", words)
    return None
