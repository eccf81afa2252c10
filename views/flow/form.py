"""Forms of pages: they save a row of a model and run the actions of the file."""

from __future__ import annotations

from dataclasses import field
from functools import partial
from typing import Any

import flet as ft

from flashflow.backend import declarations
from flashflow.views.controls.formatting import one_line
from flashflow.views.controls.layout import column
from flashflow.views.controls.refresher import is_mounted
from flashflow.views.controls.texts import small
from flashflow.views.controls.tokens import GRID
from flashflow.views.flow.cells import title_of
from flashflow.views.flow.context import PageContext, Submitted, result_text
from flashflow.views.flow.data_part import framed_or_not
from flashflow.views.flow.inputs import Input, label_of, make_input
from flashflow.views.shared.form import SaveBar, grid, submit


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class FormPart(ft.Container):
    """A form of a page. Input stays after an error, and is cleared after it was saved."""

    declared: declarations.Form = field(metadata={"skip": True})
    model: declarations.Model = field(metadata={"skip": True})
    context: PageContext = field(metadata={"skip": True})
    framed: bool = field(default=True, metadata={"skip": True})

    def init(self) -> None:
        fields = [found for name in self.declared.fields if (found := self.model.field(name)) is not None]
        self._inputs: dict[str, Input] = {found.name: make_input(found, self._submit) for found in fields}
        self._saving = False
        self._bar = SaveBar(f"Save: {self.title}", self._submit)
        parts: list[ft.Control] = [grid([one.control for one in self._inputs.values()]), self._bar.control]
        if any(label_of(found).endswith("*") for found in fields):
            parts.insert(1, small("* required"))
        content = ft.Container(column(parts, 2 * GRID, stretch=True), padding=2 * GRID)
        self.content = framed_or_not(self.declared.title, self.title, content, framed=self.framed)

    @property
    def title(self) -> str:
        return one_line(self.declared.title or title_of(self.declared.name), 120)

    @property
    def typed(self) -> dict[str, Any]:
        """Input of each field, as the user sees it."""
        return {name: one.typed for name, one in self._inputs.items()}

    def adopt(self, before: FormPart) -> None:
        """Take over the input of ``before``, the same form of an earlier version of the file."""
        for name, typed in before.typed.items():
            if name in self._inputs and type(self._inputs[name]) is type(before._inputs[name]):
                self._inputs[name].typed = typed

    async def _submit(self, _: object) -> None:
        if self._saving:  # a second press before the page has shown that the button is off
            return
        self._saving = True
        self._bar.busy()
        self._redraw()
        values = {name: value for name, one in self._inputs.items() if (value := one.value) is not None}
        saved: list[Submitted] = []
        run = partial(self.context.flow.submit, self.declared, values, self.context.user_id)
        refusal = await submit(lambda: saved.append(run()), self._inputs)
        self._saving = False
        if refusal is None:
            for one in self._inputs.values():
                one.reset()
            result = saved[0].result
            self._bar.show_result(f"Saved. {result_text(result)}".strip(), good=not result.errors)
            self.context.refresh_page()
        else:
            self._bar.show_refusal(refusal)
        self._redraw()

    def _redraw(self) -> None:
        if is_mounted(self):
            self.update()
