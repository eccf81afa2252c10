"""Tables of docs/flow.md from the vocabulary of the language. ``python -m tests.support.flow_tables`` renews them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from flashflow.backend.flow.language.data_sources import ARGUMENTS, SOURCES
from flashflow.backend.flow.language.declarations import Alias
from flashflow.backend.flow.language.read_endpoints import KNOWN
from flashflow.backend.flow.language.schedule import WORDS
from flashflow.backend.flow.language.vocabulary import (
    CONSTRUCTS,
    FIELD_TYPES,
    MODIFIERS,
    OTHER_FILES,
    OTHER_WORDS,
    Construct,
)
from tests.support.server_process import ROOT

DOCUMENT = ROOT / "docs" / "flow.md"
_MARKED = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _code(text: str) -> str:
    return text if "`" in text else f"`{text}`"


def _entries(construct: Construct) -> str:
    rows = [
        (f"`{rule.name}`{' *' if rule.required else ''}", _form(rule.form), rule.text) for rule in construct.entries
    ]
    return _table(("entry", "value", "meaning"), rows)


def _form(form: str) -> str:
    return _code(form) if re.search(r'["{\[*]', form) else form


def _summary(names: Iterable[str]) -> str:
    return _table(("example", "meaning"), [(_code(CONSTRUCTS[name].form), CONSTRUCTS[name].text) for name in names])


def _answered(alias: Alias) -> str:
    path = f"`{alias.method} {alias.path}`"
    return f"{path.replace('{status}', 'read')}, or another by `status`" if "{status}" in path else path


def tables() -> dict[str, str]:
    """Return each table by its name in the document."""
    without = [name for name, construct in CONSTRUCTS.items() if not construct.entries and name != "model"]
    sources = [
        (f"`{source.name}`", source.description, ", ".join(name for name, _ in source.columns),
         ", ".join(source.arguments))
        for source in SOURCES.values()
    ]  # fmt: skip
    return {
        "types": _table(("type", "value"), [(f"`{name}`", text) for name, text in FIELD_TYPES.items()]),
        "modifiers": _table(("modifier", "meaning"), [(f"`{name}`", text) for name, text in MODIFIERS.items()]),
        "elements": _summary(name for name in without if name != "for"),
        "sources": _table(("source", "rows", "columns", "arguments"), sources),
        "arguments": _table(("argument", "value"), [(f"`{name}`", text) for name, text in ARGUMENTS.items()]),
        "schedules": _table(("word", "cron"), [(f"`{word}`", f"`{cron}`") for word, cron in WORDS.items()]),
        "paths": _table(
            ("method", "path of the first FlashFlow", "answered by"),
            [(method, f"`{path}`", _answered(alias)) for (method, path), alias in KNOWN.items()],
        ),
        "other": _table(
            ("word", "instead"),
            [(f"`{word}`", text) for word, text in (*OTHER_WORDS.items(), *OTHER_FILES.items())],
        ),
        **{name: _entries(construct) for name, construct in CONSTRUCTS.items() if construct.entries},
    }


def renewed(document: str) -> str:
    """Return the document with its tables made from the vocabulary."""
    found = tables()
    return _MARKED.sub(lambda match: f"{match[1]}\n{found[match[2]]}\n{match[3]}", document)


if __name__ == "__main__":
    DOCUMENT.write_text(renewed(DOCUMENT.read_text("utf-8")), "utf-8")
