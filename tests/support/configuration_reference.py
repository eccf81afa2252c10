"""docs/configuration.md, made from the settings schema, the start configuration and the command line.

.venv/bin/python -m tests.support.configuration_reference > docs/configuration.md
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from flashflow.backend.core import config
from flashflow.backend.settings import model
from flashflow.backend.settings.parser import CHANNELS, PLAIN, PUSH

INTRODUCTION = """\
# Configuration

This page is made from the settings schema: `python -m tests.support.configuration_reference > docs/configuration.md`.

## Start

A flag wins over the environment variable, the variable over the default.

"""
FILE = """
Three more variables change how the process runs: `FLASHFLOW_DEBUG=1` adds the traceback of an unexpected failure,
`FLASHFLOW_KEYRING=off` keeps secrets out of the operating system's keyring, `TZ` sets the time zone of days.

## flashflow.toml

The file in the data folder. A change applies within two seconds; a file with a mistake changes nothing
([delivery.md](delivery.md)). These settings have no flag. Every text may refer to an environment variable, as in
`host = "${SMTP_HOST}"`; so may a number, as in `port = "${SMTP_PORT}"`. A secret may refer to the keyring, as in
`"${keyring:email.password}"`; `$${` is a literal `${`. Unknown names are refused.
"""
START = {
    "data_dir": ("--data-dir", "FLASHFLOW_DATA_DIR", "the platform's data folder"),
    "host": ("--host", None, None),
    "port": ("--port", "FLASHFLOW_PORT", None),
    "next_free_port": ("--next-free-port", None, None),
    "allowed_hosts": ("--allow-host", None, None),
    "me": (None, "FLASHFLOW_USER", "the name of the logged-in user"),
}
"""Field of Config → flag, environment variable, and the default where it is none of the schema."""
START_LIMITS = {
    "port": "0 to 65535", "host": "an address of this machine", "data_dir": "UTF-8",
    "allowed_hosts": "may be repeated", "me": "1 to 255 characters",
}  # fmt: skip
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}
COMMON = {field.name for field in msgspec.structs.fields(model.ChannelSettings)}


def render() -> str:
    """Return the whole page."""
    return "".join([INTRODUCTION, *_start(), FILE, *_tables()])


def _start() -> Iterator[str]:
    yield "| setting | type | default | limits | variable | flag | |\n|---|---|---|---|---|---|---|\n"
    words = docstrings(config)["Config"]
    hints = get_type_hints(config.Config)
    for name in config.Config._fields:
        flag, variable, default = START[name]
        kind = "texts" if name == "allowed_hosts" else WORDS.get(hints[name], "folder")
        cells = [
            name, kind, default or _value(config.Config._field_defaults[name]), START_LIMITS.get(name, ""),
            f"`{variable}`" if variable else "–", f"`{flag}`" if flag else "–", words[name],
        ]  # fmt: skip
        yield _row(cells)


def _tables() -> Iterator[str]:
    yield from _table("", model.Settings, {"allow_hosts"})
    yield _heading("[channels.*]", "ChannelSettings")
    yield from _rows(model.ChannelSettings, COMMON)
    for name, kind in CHANNELS.items():
        yield from _table(f"[channels.{name}]", kind)
    for name, kind in PUSH.items():
        yield from _table(f"[channels.push.{name}]", kind)
    yield from _table("[channels.NAME]", model.AppriseSettings)
    for name, kind in PLAIN.items():
        yield from _table(f"[{name}]", kind)


def _table(place: str, kind: type[msgspec.Struct], only: set[str] | None = None) -> Iterator[str]:
    own = only or {field.name for field in msgspec.structs.fields(kind)} - (
        COMMON if issubclass(kind, model.ChannelSettings) else set()
    )
    yield _heading(place, kind.__name__)
    if own:
        yield from _rows(kind, own)


def _heading(place: str, name: str) -> str:
    if not place:
        return "\n### At the top\n\n"
    text = inspect.getdoc(getattr(model, name)) or ""
    text = re.sub(r"^``\[[^`]*``:? ?", "", text).replace("``", "`").replace("\n", " ")
    return f"\n### {place}\n\n{text[:1].upper()}{text[1:]}\n\n"


def _rows(kind: type[msgspec.Struct], names: set[str]) -> Iterator[str]:
    yield "| setting | type | default | limits | |\n|---|---|---|---|---|\n"
    words = {name: text for base in reversed(kind.__mro__) for name, text in _words_of(base).items()}
    hints = get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        if field.name in names:
            default = "required" if field.required else _value(field.default)
            hint = hints[field.name]
            yield _row([field.encode_name, _kind(hint), default, _limits(hint), words[field.name]])


def _row(cells: list[str]) -> str:
    first, *others = cells
    return "| " + " | ".join([f"`{first}`", *others]).replace("``", "`") + " |\n"


def _words_of(kind: type) -> dict[str, str]:
    return docstrings(model).get(kind.__name__, {})


@cache
def docstrings(module: ModuleType) -> dict[str, dict[str, str]]:
    """Return the docstrings below the fields of a module's classes: class → field → one line."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            fields = found.setdefault(node.name, {})
            for field, text in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                ):
                    assert isinstance(field.target, ast.Name)
                    fields[field.target.id] = " ".join(str(text.value.value).split())
    return found


def _parts(hint: Any) -> Iterator[Any]:
    """Every plain type, literal and Meta inside an annotation."""
    if get_origin(hint) in {Annotated, Literal} or not get_args(hint):
        yield from get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        yield hint if get_origin(hint) is not Annotated else get_args(hint)[0]
    else:
        for part in get_args(hint):
            yield from _parts(part)


def _kind(hint: Any) -> str:
    parts = list(_parts(hint))
    if get_origin(hint) is tuple:
        return "list of texts"
    if any(isinstance(part, Meta) and (part.extra or {}).get("secret") for part in parts):
        return "secret"
    for part in parts:
        if get_origin(part) is Literal:
            return "one of " + ", ".join(f"`{json.dumps(choice)}`" for choice in get_args(part))
    return next(WORDS[part] for part in parts if part in WORDS)


def _limits(hint: Any) -> str:
    meta = next((part for part in _parts(hint) if isinstance(part, Meta)), None)
    if meta is None:
        return ""
    low, high = meta.ge if meta.gt is None else meta.gt, meta.le
    if high is not None:
        start = f"{low:,}" if meta.gt is None else f"above {low:,}"
        return f"{start} to {high:,}"
    low, high = meta.min_length or 0, meta.max_length
    return f"{low:,} to {high:,} characters" if low else f"up to {high:,} characters"


def _value(value: Any) -> str:
    if value is None or value == ():
        return "–"
    if isinstance(value, float) and value.is_integer():
        return f"`{int(value)}`"
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    print(render(), end="")
