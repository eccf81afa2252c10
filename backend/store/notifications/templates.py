"""The ``notification_templates`` table."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.rendering import json_schema
from flashflow.backend.rendering.template_renderer import variables
from flashflow.backend.schemas.records import Template
from flashflow.backend.schemas.requests import TemplateIn
from flashflow.backend.store.engine.statement import Statement, any_or_same, columns, slot, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import models


class _Row(NamedTuple):
    """A row of the table."""

    seq: int
    id: str
    name: str
    locale: str
    title_template: str
    message_template: str
    channels: tuple[str, ...]
    category: str | None
    data_schema: dict[str, Any]
    app: str
    created_at: int
    updated_at: int


def read_template(conn: sqlite3.Connection, name: str, locale: str, owner: str | None) -> Template | None:
    """Look up the template in ``locale``, else the next wider one, else its default text; of one app (``owner``
    None: any)."""
    found = (exact_template(conn, name, candidate, owner) for candidate in wider_locales(locale))
    return next((template for template in found if template is not None), None)


def exact_template(conn: sqlite3.Connection, name: str, locale: str, owner: str | None = None) -> Template | None:
    """Read the template's text in this locale alone, in any letter case."""
    row = _EXACT.one(conn, name=name, locale=locale, app=owner)
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
    return [to_template(row) for row in _LIST.each(conn, app=app)]


def newest_templates(
    conn: sqlite3.Connection, app: str | None, before: int, limit: int
) -> tuple[list[tuple[int, Template]], bool]:
    """(``seq``, template) pairs below ``before``, newest first, and whether more follow. At most ``limit``, fewer once
    they exceed PAGE_BYTES."""
    rows, more = _NEWEST.page(conn, limit, before=before, app=app)
    return [(row.seq, to_template(row)) for row in rows], more


def insert_template(tx: Tx, template_id: str, app: str, text: TemplateIn) -> None:
    """Insert a template of ``app``."""
    _INSERT.run(tx.conn, id=template_id, app=app, created_at=tx.now_ms, **_values(text, tx.now_ms))


def update_template(tx: Tx, template_id: str, text: TemplateIn) -> None:
    """Replace everything but the name and the app."""
    _UPDATE.run(tx.conn, id=template_id, **_values(text, tx.now_ms))


def _values(text: TemplateIn, now_ms: int) -> dict[str, Any]:
    channels = list(dict.fromkeys(text.channels))
    return msgspec.structs.asdict(text) | {"channels": channels, "updated_at": now_ms}


def delete_template(tx: Tx, template_id: str) -> None:
    """Delete a template in its locale."""
    _DELETE.run(tx.conn, id=template_id)


def variables_of(conn: sqlite3.Connection, name: str) -> tuple[str, ...]:
    """The variables of a template in all its locales."""
    return variables(*(text for row in _TEXTS.each(conn, name=name) for text in row))


def to_template(row: _Row) -> Template:
    """Convert a row."""
    return Template(
        id=row.id,
        name=row.name,
        locale=row.locale,
        title_template=row.title_template,
        message_template=row.message_template,
        channels=row.channels,
        category=row.category,
        data_schema=row.data_schema or None,
        data_schema_checked=bool(row.data_schema) and json_schema.available(),
        variables=variables(row.title_template, row.message_template),
        app=row.app,
        created_at=to_datetime(row.created_at),
        updated_at=to_datetime(row.updated_at),
    )


class _Texts(NamedTuple):
    title_template: str
    message_template: str


_T = models.NotificationTemplate
_ROWS = _T.select(*columns(_T, _Row))
_EXACT = Statement(
    lambda: (
        _ROWS.where(_T.name == slot("name"), _T.locale.collate("NOCASE") == slot("locale"), any_or_same(_T.app))
        .order_by((_T.locale == slot("locale")).desc(), _T.seq)  # older files may hold two letter cases
        .limit(1)
    ),
    _Row,
)
_LIST = Statement(lambda: _ROWS.where(any_or_same(_T.app)).order_by(_T.name, _T.locale), _Row)
_NEWEST = Statement(lambda: _ROWS.where(_T.seq < slot("before"), any_or_same(_T.app)).order_by(_T.seq.desc()), _Row)
_TEXTS = Statement(lambda: _T.select(*columns(_T, _Texts)).where(_T.name == slot("name")), _Texts)
_CONTENT = (
    _T.locale, _T.title_template, _T.message_template, _T.channels, _T.category, _T.data_schema, _T.updated_at,
)  # fmt: skip
_INSERT = Statement(lambda: _T.insert(slots(_T.id, _T.app, _T.name, _T.created_at, *_CONTENT)))
_UPDATE = Statement(lambda: _T.update(slots(*_CONTENT)).where(_T.id == slot("id", _T.id)))
_DELETE = Statement(lambda: _T.delete().where(_T.id == slot("id", _T.id)))
