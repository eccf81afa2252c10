"""Form for the local user's e-mail address and phone number."""

from __future__ import annotations

import flet as ft

from flashflow.backend import Contact, ContactsIn, given
from flashflow.views.controls.layout import card, column
from flashflow.views.controls.tokens import GRID
from flashflow.views.settings.part import SettingsPart
from flashflow.views.shared.form import Field, SaveBar, grid, submit
from flashflow.views.shared.screen_base import Screen


class Contacts(SettingsPart):
    """The contacts form; it sends only changed fields."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(screen)
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
        self.control = card(column([fields, self._saving.control], 2 * GRID), key="contacts")

    def load(self) -> Contact:
        return self.backend.notifications.delivery_settings.contact(self.backend.me)

    def set_data(self, contact: Contact) -> None:
        """Show the stored contacts, except in fields with unsaved input."""
        for name, field in self._fields.items():
            field.set_data(getattr(contact, name))

    async def _edited(self, _: object) -> None:
        """Hide the result of the last save after new input."""
        if any(field.is_changed for field in self._fields.values()):
            self._saving.show_result(None)
            self.screen.redraw()

    async def _save(self, _: object) -> None:
        changes = {name: field.text or None for name, field in self._fields.items() if field.is_changed}
        services, me = self.backend.notifications, self.backend.me
        stored: list[Contact] = []

        def write() -> None:
            change = services.delivery_settings.contact_write(me, given(ContactsIn, **changes))
            stored.append(services.store.run(change))

        refusal = await submit(write, self._fields)
        if refusal is None:
            for name, field in self._fields.items():
                field.reset(getattr(stored[0], name))
            self._saving.show_result("Saved")
        else:
            self._saving.show_refusal(refusal)
        self.screen.redraw()
