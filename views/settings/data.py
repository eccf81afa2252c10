"""Data card: location and size, export, backup, retention rules and erasure of a user."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import flet as ft

from flashflow.views.controls.formatting import exact, one_line
from flashflow.views.controls.tokens import GOOD, GRID, URGENT, body, copyable, hairline, named_button, silent, small
from flashflow.views.settings import data_labels
from flashflow.views.shared.form import Field, grid, submit
from flashflow.views.shared.widgets import card, command

if TYPE_CHECKING:
    from flashflow.backend import ErasedUser, PrivacySettings, RetentionSettings, RetentionStatus
    from flashflow.views.shared.screen_base import Screen

ERASURE_SCOPE = (
    "Removes the user's activities, sessions and metrics, notifications with all deliveries, preferences, contacts, "
    "devices and schedules from both files, and replaces every backup in the data folder by one without them. Later "
    "activities and notifications of this user are refused. This cannot be undone. Copies elsewhere are not changed."
)


class YourData:
    """The data card; erasing a user needs a confirmation."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._confirming: str | None = None
        self._busy = False
        self._where = ft.Column(spacing=2, tight=True)
        self._rules = ft.Column(spacing=2, tight=True)
        self._field = Field("User id", helper="The id that your apps use for the user")
        self._erasing = ft.Column(spacing=12, tight=True)
        self._message = ft.Column(spacing=0, tight=True)
        self.control = card(
            ft.Column(
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
                spacing=2 * GRID,
                tight=True,
            ),
            key="data",
        )
        self._draw()

    def set_data(self, stored: RetentionStatus, privacy: PrivacySettings, retention: RetentionSettings) -> None:
        """Set the stored sizes and the rules."""
        total = stored.activity_bytes + stored.notification_bytes
        sizes = (
            f"{data_labels.size_text(total)}: activities {data_labels.size_text(stored.activity_bytes)}, "
            f"notifications {data_labels.size_text(stored.notification_bytes)}"
        )
        self._where.controls = [
            copyable(body(str(self._screen.backend.data_dir), strong=True)),
            small(sizes),
        ]
        rules: list[ft.Control] = [
            body(data_labels.retention_text(retention)),
            body(data_labels.tracking_text(privacy)),
        ]
        if stored.pruned_before is not None:
            rules.append(small(f"Activities before {exact(stored.pruned_before, self._screen.now())} were deleted."))
        rules.append(small("Set in [retention] and [privacy] of flashflow.toml; see docs/data.md."))
        self._rules.controls = rules

    def _draw(self) -> None:
        head = ft.Column(
            [silent(body("Erase a user", strong=True)), small("Delete everything stored about a user, permanently.")],
            spacing=2,
            tight=True,
        )
        if self._confirming is None:
            ask = named_button(
                ft.OutlinedButton, "Erase a user…", "Erase a user", self._confirm_erasure, key="ask-erase"
            )
            self._erasing.controls = [head, grid([self._field.control]), ask]
            return
        name = one_line(self._confirming, 120)
        sure = named_button(
            ft.FilledButton, "Erase for good", f"Erase for good: {name}", self._erase, disabled=self._busy, key="erase"
        )
        keep = named_button(ft.TextButton, "Keep", f"Keep: {name}", self._keep, disabled=self._busy, key="keep-user")
        self._erasing.controls = [
            head,
            body(f"Erase “{name}”?", strong=True, color=URGENT),
            body(ERASURE_SCOPE),
            ft.Row([sure, keep], wrap=True, spacing=GRID, run_spacing=GRID),
        ]

    def _show_message(self, text: str | None, *, good: bool = True) -> None:
        self._message.controls = [] if text is None else [body(text, color=GOOD if good else URGENT)]

    async def _confirm_erasure(self, _: object) -> None:
        self._show_message(None)
        if not self._field.text:
            self._field.show_error("Enter a user id.")
        else:
            self._field.show_error(None)
            self._confirming = self._field.text
        self._draw()
        self._screen.redraw()

    async def _keep(self, _: object) -> None:
        self._confirming = None
        self._draw()
        self._screen.redraw()

    async def _erase(self, _: object) -> None:
        user = self._confirming
        if user is None or self._busy:
            return
        self._busy = True
        self._draw()
        self._screen.redraw()
        done: list[ErasedUser] = []
        refusal = await submit(lambda: done.append(self._screen.backend.erasing.erase(user)), {})
        self._busy, self._confirming = False, None
        if refusal is None:
            self._field.reset()
            self._show_message(data_labels.erasure_text(one_line(user, 120), done[0].removed))
        else:
            self._show_message(refusal or "Nothing was erased.", good=False)
        self._draw()
        self._screen.redraw()
