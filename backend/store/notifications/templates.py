"""The ``notification_templates`` table."""

from __future__ import annotations

import sqlite3
from typing import Any

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import decode_id, encode_id, from_object, from_strings, to_json
from flashflow.backend.rendering import json_schema
from flashflow.backend.rendering.template_renderer import variables
from flashflow.backend.schemas.records import Template
from flashflow.backend.schemas.requests import TemplateIn
from flashflow.backend.store.engine.sql import take
from flashflow.backend.store.engine.writer import Tx

_COLUMNS = (
    "id, name, locale, title_template, message_template, channels, category, data_schema, app, created_at, updated_at"
)


def read_template(conn: sqlite3.Connection, name: str, locale: str, owner: str | None) -> Template | None:
    """Look up the template in ``locale``, else the next wider one, else its default text; of one app (``owner``
    None: any)."""
    found = (exact_template(conn, name, candidate, owner) for candidate in wider_locales(locale))
    return next((template for template in found if template is not None), None)


def exact_template(conn: sqlite3.Connection, name: str, locale: str, owner: str | None = None) -> Template | None:
    """Read the template's text in this locale alone, in any letter case."""
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM notification_templates WHERE name = ? AND locale = ? COLLATE NOCASE "
        "AND (? IS NULL OR app = ?) ORDER BY locale = ? DESC, seq LIMIT 1",  # older files may hold two letter cases
        (name, locale, owner, owner, locale),
    ).fetchone()
    return None if row is None else to_template(row)


def wider_locales(locale: str) -> list[str]:
    """Return ``locale`` and what it falls back to, the default ("") last (RFC 4647, 3.4: look-up).

    ``zh-Hant-TW`` falls back to ``zh-Hant`` and ``zh``. An underscore, as in POSIX names, counts as a hyphen.
    """
    subtags = locale.replace("_", "-").split("-")
    found = []
    while subtags and subtags[0]:
        found.append("-".join(subtags))
        subtags.pop()
        if len(subtags) > 1 and len(subtags[-1]) == 1:  # a singleton only introduces the removed subtags
            subtags.pop()
    return [*found, ""]


def list_templates(conn: sqlite3.Connection, app: str | None) -> list[Template]:
    """Every template in every locale, by name."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM notification_templates WHERE ? IS NULL OR app = ? ORDER BY name, locale",
        (app, app),
    )
    return [to_template(row) for row in rows]


def newest_templates(
    conn: sqlite3.Connection, app: str | None, before: int, limit: int
) -> tuple[list[tuple[int, Template]], bool]:
    """(``seq``, template) pairs below ``before``, newest first, and whether more follow. At most ``limit``, fewer once
    they exceed PAGE_BYTES."""
    rows, more = take(
        conn.execute(
            f"SELECT seq, {_COLUMNS} FROM notification_templates "
            "WHERE seq < ? AND (? IS NULL OR app = ?) ORDER BY seq DESC",
            (before, app, app),
        ),
        limit,
    )
    return [(row[0], to_template(row[1:])) for row in rows], more


def insert_template(tx: Tx, template_id: str, app: str, text: TemplateIn) -> None:
    """Insert a template of ``app``."""
    tx.conn.execute(
        "INSERT INTO notification_templates (id, app, name, created_at, locale, title_template, message_template, "
        "channels, category, data_schema, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (encode_id(template_id), app, text.name, tx.now_ms, *_content(text), tx.now_ms),
    )


def update_template(tx: Tx, template_id: str, text: TemplateIn) -> None:
    """Replace everything but the name and the app."""
    tx.conn.execute(
        "UPDATE notification_templates SET locale = ?, title_template = ?, message_template = ?, channels = ?, "
        "category = ?, data_schema = ?, updated_at = ? WHERE id = ?",
        (*_content(text), tx.now_ms, encode_id(template_id)),
    )


def _content(text: TemplateIn) -> tuple[str | None, ...]:
    """Locale, title, message, channels (JSON), category and schema of the data (JSON)."""
    channels = to_json(tuple(dict.fromkeys(text.channels)))
    schema = to_json(text.data_schema) if text.data_schema else None
    return text.locale, text.title_template, text.message_template, channels, text.category, schema


def delete_template(tx: Tx, template_id: str) -> None:
    """Delete a template in its locale."""
    tx.conn.execute("DELETE FROM notification_templates WHERE id = ?", (encode_id(template_id),))


def variables_of(conn: sqlite3.Connection, name: str) -> tuple[str, ...]:
    """The variables of a template in all its locales."""
    rows = conn.execute("SELECT title_template, message_template FROM notification_templates WHERE name = ?", (name,))
    return variables(*(text for row in rows for text in row))


def to_template(row: tuple[Any, ...]) -> Template:
    """Convert a row of _COLUMNS."""
    id_, name, locale, title, message, channels, category, schema, app, created, updated = row
    return Template(
        id=decode_id(id_),
        name=name,
        locale=locale,
        title_template=title,
        message_template=message,
        channels=from_strings(channels),
        category=category,
        data_schema=from_object(schema) if schema else None,
        data_schema_checked=bool(schema) and json_schema.available(),
        variables=variables(title, message),
        app=app,
        created_at=to_datetime(created),
        updated_at=to_datetime(updated),
    )
