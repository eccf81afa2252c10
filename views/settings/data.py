"""Your data: where it is, how large, how it is taken out, how long it is kept, and how a person is erased."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import flet as ft

from flashflow.views.controls.tokens import GOOD, GRID, URGENT, body, copyable, hairline, named_button, silent, small
from flashflow.views.settings import data_labels
from flashflow.views.shared.form import Field, attempt, grid
from flashflow.views.shared.formatting import exact, one_line
from flashflow.views.shared.widgets import card, command

if TYPE_CHECKING:
    from flashflow.backend import ErasedUser, PrivacySettings, RetentionSettings, RetentionStatus
    from flashflow.views.shared.screen_base import Screen

WHAT_GOES = (
    "Their activities, sessions and figures, their notifications with every delivery, their choices, addresses, "
    "devices and schedules go from both files for good, and every backup in the data folder is replaced by one without "
    "them. Whatever comes of them afterwards is refused. This cannot be undone; copies made elsewhere stay as they are."
)


class YourData:
    """The card, with a second question before a person is erased."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._asking: str | None = None
        self._busy = False
        self._where = ft.Column(spacing=2, tight=True)
        self._rules = ft.Column(spacing=2, tight=True)
        self._field = Field("Whom: the user id", helper="As your apps name them", on_done=None)
        self._erasing = ft.Column(spacing=12, tight=True)
        self._told = ft.Column(spacing=0, tight=True)
        self.control = card(
            ft.Column(
                [
                    self._where,
                    small("Take your activities out; jsonl and parquet work too, and import takes them back in"),
                    command("flashflow export activities.csv", "export the activities"),
                    small("Copy both files, whether FlashFlow runs or not"),
                    command(shlex.join(["flashflow", "backup", "FOLDER"]), "back up"),
                    hairline(),
                    self._rules,
                    hairline(),
                    self._erasing,
                    self._told,
                ],
                spacing=2 * GRID,
                tight=True,
            ),
            key="data",
        )
        self._draw()

    def take(self, kept: RetentionStatus, privacy: PrivacySettings, retention: RetentionSettings) -> None:
        """What is stored now, and by which rules."""
        total = kept.activity_bytes + kept.notification_bytes
        sizes = (
            f"{data_labels.size(total)}: activities {data_labels.size(kept.activity_bytes)}, "
            f"notifications {data_labels.size(kept.notification_bytes)}"
        )
        self._where.controls = [
            copyable(body(str(self._screen.backend.data_dir), strong=True)),
            small(sizes),
        ]
        rules: list[ft.Control] = [body(data_labels.keeping(retention)), body(data_labels.tracking(privacy))]
        if kept.pruned_before is not None:
            rules.append(small(f"Activities from before {exact(kept.pruned_before, self._screen.now())} were let go."))
        rules.append(small("Set under [retention] and [privacy] in flashflow.toml; see docs/data.md."))
        self._rules.controls = rules

    def _draw(self) -> None:
        head = ft.Column(
            [silent(body("Erase a person", strong=True)), small("Everything that is stored of them, for good.")],
            spacing=2,
            tight=True,
        )
        if self._asking is None:
            ask = named_button(ft.OutlinedButton, "Erase a person…", "Erase a person", self._ask, key="ask-erase")
            self._erasing.controls = [head, grid([self._field.control]), ask]
            return
        name = one_line(self._asking, 120)
        sure = named_button(
            ft.FilledButton, "Erase for good", f"Erase for good: {name}", self._erase, disabled=self._busy, key="erase"
        )
        keep = named_button(ft.TextButton, "Keep", f"Keep: {name}", self._keep, disabled=self._busy, key="keep-person")
        self._erasing.controls = [
            head,
            body(f"Erase “{name}”?", strong=True, color=URGENT),
            body(WHAT_GOES),
            ft.Row([sure, keep], wrap=True, spacing=GRID, run_spacing=GRID),
        ]

    def _tell(self, words: str | None, *, good: bool = True) -> None:
        self._told.controls = [] if words is None else [body(words, color=GOOD if good else URGENT)]

    async def _ask(self, _: object) -> None:
        self._tell(None)
        if not self._field.text:
            self._field.complain("Say whom.")
        else:
            self._field.complain(None)
            self._asking = self._field.text
        self._draw()
        self._screen.redraw()

    async def _keep(self, _: object) -> None:
        self._asking = None
        self._draw()
        self._screen.redraw()

    async def _erase(self, _: object) -> None:
        user = self._asking
        if user is None or self._busy:
            return
        self._busy = True
        self._draw()
        self._screen.redraw()
        done: list[ErasedUser] = []
        refusal = await attempt(lambda: done.append(self._screen.backend.erasing.erase(user)), {})
        self._busy, self._asking = False, None
        if refusal is None:
            self._field.reset()
            self._tell(data_labels.erased(one_line(user, 120), done[0].removed))
        else:
            self._tell(refusal or "Nothing was erased.", good=False)
        self._draw()
        self._screen.redraw()
