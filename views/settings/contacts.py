"""Form for the local user's e-mail address and phone number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flet as ft

from flashflow.backend import ContactsIn, given
from flashflow.views.controls.tokens import GRID
from flashflow.views.shared.form import Field, SaveBar, grid, submit
from flashflow.views.shared.widgets import card

if TYPE_CHECKING:
    from flashflow.backend import Contact
    from flashflow.views.shared.screen_base import Screen


class Contacts:
    """The contacts form; it sends only changed fields."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._fields = {
            "email": Field("My e-mail address", keyboard=ft.KeyboardType.EMAIL, on_done=self._edited),
            "phone": Field(
                "My phone number",
                helper="For SMS, for example +49 30 1234567",
                keyboard=ft.KeyboardType.PHONE,
                on_done=self._edited,
            ),
        }
        self._saving = SaveBar("Save my addresses", self._save)
        fields = grid([field.control for field in self._fields.values()])
        self.control = card(ft.Column([fields, self._saving.control], spacing=2 * GRID, tight=True), key="contacts")

    def set_data(self, contact: Contact) -> None:
        """Show the stored contacts, except in fields with unsaved input."""
        self._show(contact, reset=False)

    def _show(self, contact: Contact, *, reset: bool) -> None:
        for name, stored in (("email", contact.email), ("phone", contact.phone)):
            field = self._fields[name]
            if reset:
                field.reset(stored)
            else:
                field.set_data(stored)

    async def _edited(self, _: object) -> None:
        """Hide the result of the last save after new input."""
        if any(field.is_changed for field in self._fields.values()):
            self._saving.show_result(None)
            self._screen.redraw()

    async def _save(self, _: object) -> None:
        changes = {name: field.text or None for name, field in self._fields.items() if field.is_changed}
        services, me = self._screen.backend.notifications, self._screen.backend.me
        stored: list[Contact] = []

        def write() -> None:
            stored.append(
                services.store.run(services.delivery_settings.contact_write(me, given(ContactsIn, **changes)))
            )

        refusal = await submit(write, self._fields)
        if refusal is None:
            self._show(stored[0], reset=True)
        self._saving.show_result("Saved" if refusal is None else refusal or "Nothing was saved.", good=refusal is None)
        self._screen.redraw()
