"""Message templates of apps: create, change, preview, delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import Conflict, NotFound
from flashflow.backend.core.events import Event
from flashflow.backend.domain.channel_names import ChannelNames
from flashflow.backend.rendering.json_schema import check_data, check_schema
from flashflow.backend.rendering.template_renderer import render
from flashflow.backend.schemas.records import Rendered, Template
from flashflow.backend.schemas.requests import TemplateChangeIn, TemplateIn
from flashflow.backend.schemas.values import metadata_json
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import Tx, Write, each_item
from flashflow.backend.store.notifications import templates as table

Owned = tuple[TemplateIn, str, str | None]
"""A template body, the writing app, and the only app whose templates may be changed (None: any)."""


class Templates:
    """Templates by name and locale."""

    def __init__(self, store: Store, new_id: Callable[[], str], channels: ChannelNames) -> None:
        self._store = store
        self._channels = channels
        self._new_id = new_id

    def all(self, app: str | None = None) -> tuple[Template, ...]:
        """Every template in every locale, by name."""
        return tuple(self._store.read(lambda conn: table.list_templates(conn, app)))

    def newest(self, app: str | None, before: int, limit: int) -> tuple[list[tuple[int, Template]], bool]:
        """A page of (``seq``, template), newest first, and whether more follow."""
        return self._store.read(lambda conn: table.newest_templates(conn, app, before, limit))

    def get(self, name: str, locale: str = "", app: str | None = None) -> Template:
        """Look up the template in that locale, else the next wider one, else its default. Raises NotFound."""
        found = self._store.read(lambda conn: table.read_template(conn, name, locale, app))
        if found is None:
            raise _missing(name)
        return found

    def preview(self, name: str, data: Mapping[str, Any], locale: str = "", app: str | None = None) -> Rendered:
        """Render the texts as ``send`` would. Raises NotFound, and ValidationError naming missing variables."""
        template = self.get(name, locale, app)
        metadata_json(dict(data), "data")
        if template.data_schema:
            check_data(template.data_schema, dict(data))
        return render(template.title_template, template.message_template, data)

    def create_write(self, text: TemplateIn, app: str) -> Write[Owned, Template]:
        """Build the write that creates a template. Raises ValidationError."""
        self.check(text)
        return Write(self._create, (text, app, None))

    def change_write(self, text: TemplateIn, app: str, owner: str | None) -> Write[Owned, Template]:
        """Build the write that replaces a template in its locale. Raises ValidationError."""
        self.check(text)
        return Write(self._change, (text, app, owner))

    def check(self, text: TemplateIn | TemplateChangeIn) -> None:
        """Raise ValidationError naming every invalid field."""
        faults = ErrorCollector()
        with faults:
            self._channels.check("channels", text.channels)
        with faults:
            metadata_json(text.data_schema, "data_schema")
            if text.data_schema:
                check_schema(text.data_schema)
        faults.done()

    def remove_write(self, name: str, owner: str | None) -> Write[tuple[str, str | None], tuple[Template, ...]]:
        """Build the write that deletes a template in every locale."""
        return Write(self._remove, (name, owner))

    @each_item
    def _create(self, tx: Tx, item: Owned) -> Template:
        text, app, _ = item
        if table.exact_template(tx.conn, text.name, text.locale) is not None:
            raise Conflict(f"There is a template “{text.name}” already; PUT changes it.")
        table.insert_template(tx, self._new_id(), app, text)
        return self._stored(tx, text, app)

    @each_item
    def _change(self, tx: Tx, item: Owned) -> Template:
        text, app, owner = item
        known = table.exact_template(tx.conn, text.name, text.locale)
        if known is None or (owner is not None and known.app != owner):
            raise _missing(text.name)
        table.update_template(tx, known.id, text)
        return self._stored(tx, text, app)

    @each_item
    def _remove(self, tx: Tx, item: tuple[str, str | None]) -> tuple[Template, ...]:
        name, owner = item
        deleted = tuple(t for t in table.list_templates(tx.conn, owner) if t.name == name)
        if not deleted:
            raise _missing(name)
        for template in deleted:
            table.delete_template(tx, template.id)
        tx.events.append(Event("template", name))
        return deleted

    def _stored(self, tx: Tx, text: TemplateIn, app: str) -> Template:
        tx.events.append(Event("template", text.name, "", app))
        template = table.exact_template(tx.conn, text.name, text.locale)
        assert template is not None
        return template


def _missing(name: str) -> NotFound:
    return NotFound(f"There is no template “{name}”.")
