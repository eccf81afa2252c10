"""Data card: location and size, export, backup, retention rules and erasure of a user."""

from __future__ import annotations

import shlex

import flet as ft

from flashflow.backend import ErasedUser, RetentionStatus
from flashflow.views.controls.buttons import named_button, on_press
from flashflow.views.controls.formatting import one_line
from flashflow.views.controls.layout import card, column, flow, hairline
from flashflow.views.controls.relative_time import exact
from flashflow.views.controls.texts import body, copyable, silent, small
from flashflow.views.controls.tokens import GOOD, GRID, URGENT
from flashflow.views.settings import data_labels
from flashflow.views.settings.part import SettingsPart
from flashflow.views.shared.form import Field, grid, submit
from flashflow.views.shared.screen_base import Screen
from flashflow.views.shared.widgets import command

ERASURE_SCOPE = (
    "Removes the user's activities, sessions and metrics, notifications with all deliveries, preferences, contacts, "
    "devices and schedules from both files, and replaces every backup in the data folder by one without them. Later "
    "activities and notifications of this user are refused. This cannot be undone. Copies elsewhere are not changed."
)


class YourData(SettingsPart):
    """The data card; erasing a user needs a confirmation."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(screen)
        self._busy = False
        self._where, self._rules = column([], 2), column([], 2)
        self._field = Field("User id", helper="The id that your apps use for the user")
        self._erasing, self._message = column([], 12), column([])
        self.control = card(
            column(
                [
                    self._where,
                    small("Export your activities as csv, jsonl or parquet; flashflow import reads them back"),
                    command("flashflow export activities.csv", "export the activities"),
                    small("Back up both files; FlashFlow may be running"),
                    command(shlex.join(["flashflow", "backup", "FOLDER"]), "back up"),
                    hairline(),
                    self._rules,
                    hairline(),
                    self._erasing,
                    self._message,
                ],
                2 * GRID,
            ),
            key="data",
        )
        self.draw()

    def load(self) -> RetentionStatus:
        return self.backend.retention.status()

    def set_data(self, stored: RetentionStatus) -> None:
        size, settings = data_labels.size_text, self.backend.settings.settings
        parts = f"activities {size(stored.activity_bytes)}, notifications {size(stored.notification_bytes)}"
        total = size(stored.activity_bytes + stored.notification_bytes)
        self._where.controls = [
            copyable(body(str(self.backend.data_dir), strong=True)),
            small(f"{total}: {parts}"),
        ]
        rules: list[ft.Control] = [
            body(data_labels.retention_text(settings.retention)),
            body(data_labels.tracking_text(settings.privacy)),
        ]
        if stored.pruned_before is not None:
            rules.append(small(f"Activities before {exact(stored.pruned_before, self.screen.now())} were deleted."))
        rules.append(small("Set in [retention] and [privacy] of flashflow.toml; see docs/data.md."))
        self._rules.controls = rules

    def draw(self) -> None:
        text = small("Delete everything stored about a user, permanently.")
        head = column([silent(body("Erase a user", strong=True)), text], 2)
        if self._confirming is None:
            ask = named_button(
                ft.OutlinedButton, "Erase a user…", "Erase a user", on_press(self._confirm_erasure), key="ask-erase"
            )
            self._erasing.controls = [head, grid([self._field.control]), ask]
            return
        name, busy = one_line(self._confirming, 120), self._busy
        erase = on_press(self._erase, self._confirming)
        sure = named_button(
            ft.FilledButton, "Erase for good", f"Erase for good: {name}", erase, disabled=busy, key="erase"
        )
        self._erasing.controls = [
            head,
            body(f"Erase “{name}”?", strong=True, color=URGENT),
            body(ERASURE_SCOPE),
            flow([sure, self.keep_button(name, disabled=busy, key="keep-user")]),
        ]

    def _show_message(self, text: str | None, *, good: bool = True) -> None:
        self._message.controls = [] if text is None else [body(text, color=GOOD if good else URGENT)]

    async def _confirm_erasure(self) -> None:
        self._show_message(None)
        user = self._field.text
        self._field.show_error(None if user else "Enter a user id.")
        await self.confirm(user or None)

    async def _erase(self, user: str) -> None:
        if self._busy:
            return
        self._busy = True
        self.redraw()
        done: list[ErasedUser] = []
        refusal = await submit(lambda: done.append(self.backend.erasing.erase(user)), {})
        self._busy, self._confirming = False, None
        if refusal is None:
            self._field.reset()
            self._show_message(data_labels.erasure_text(one_line(user, 120), done[0].removed))
        else:
            self._show_message(refusal or "Nothing was erased.", good=False)
        self.redraw()
