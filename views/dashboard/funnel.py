"""Funnel panel: steps chosen from the activity types, users per step and users who dropped out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import NamedTuple

import flet as ft

from flashflow.backend import DEFINITIONS, Funnel, FunnelStep
from flashflow.views.controls.buttons import menu_button, named_button, on_press
from flashflow.views.controls.formatting import one_line, plural
from flashflow.views.controls.layout import column, flow, growing
from flashflow.views.controls.texts import body, caller_text, read_as, small
from flashflow.views.controls.tokens import ACCENT, GRID, TARGET
from flashflow.views.dashboard.date_range import FEWEST_STEPS, MOST_STEPS, WINDOWS, Selection
from flashflow.views.shared.panel import Panel, titled_panel
from flashflow.views.shared.values import duration_text, percent

STEPS_OFFERED = 60
"""Largest number of types in a step's menu."""


class FunnelResult(NamedTuple):
    """The drawn part of a funnel; ``dropped_users`` did not get to step ``dropped_at``."""

    steps: tuple[FunnelStep, ...]
    dropped_at: int | None
    dropped_users: tuple[str, ...]


def funnel_result(funnel: Funnel | None) -> FunnelResult | None:
    """Return the funnel without its timestamp, so that an unchanged funnel is not redrawn."""
    if funnel is None:
        return None
    return FunnelResult(funnel.steps, funnel.dropped_at, funnel.dropped_users)


def step_text(step: FunnelStep, first: bool) -> str:
    """Return the accessible name of a step."""
    text = f"{one_line(step.activity_type, 80)}: {plural(step.users, 'user')}, {percent(step.share)}"
    if first:
        return text
    return (
        f"{text}, {percent(step.of_previous)} of the step before, after {duration_text(step.median_seconds)} (median)"
    )


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class FunnelPanel(Panel):
    """Funnel builder that edits ``chosen``; ``on_change`` requests the result."""

    chosen: Selection = field(metadata={"skip": True})
    on_change: Callable[[], None] = field(metadata={"skip": True})
    open_user: Callable[[str], None] = field(metadata={"skip": True})

    def draw(self, types: tuple[str, ...], funnel: FunnelResult | None, failed: str | None) -> ft.Control:
        content: list[ft.Control] = [self._builder(types)]
        if failed is not None:
            content.append(body(failed))
        elif funnel is None:
            content.append(small("Choose the activity types of the steps, in order."))
        else:
            content += [self._step(step, n) for n, step in enumerate(funnel.steps, 1)]
            if funnel.dropped_at is not None:
                content.append(self._dropped(funnel))
        return titled_panel("Funnel", content, subtitle="users who completed every step", means=DEFINITIONS["funnel"])

    def _builder(self, types: Sequence[str]) -> ft.Control:
        steps = self.chosen.steps
        parts: list[ft.Control] = [self._chooser(n, step, types) for n, step in enumerate(steps)]
        if len(steps) < MOST_STEPS:
            parts.append(ft.TextButton("Add a step", icon=ft.Icons.ADD, height=TARGET, on_click=on_press(self._add)))
        if len(steps) > FEWEST_STEPS:
            last = f"Remove step {len(steps)}"
            parts.append(ft.TextButton(last, icon=ft.Icons.REMOVE, height=TARGET, on_click=on_press(self._remove)))
        items = [
            ft.PopupMenuItem(f"Within {plural(window, 'day')}", on_click=on_press(self._within, window))
            for window in WINDOWS
        ]
        days = plural(self.chosen.window, "day")
        parts.append(menu_button(f"Within {days}", items, name=f"Window of the funnel: within {days}", key="window"))
        return flow(parts)

    def _chooser(self, n: int, step: str | None, types: Sequence[str]) -> ft.Control:
        label = f"{n + 1} · {one_line(step, 30)}" if step is not None else f"{n + 1} · Choose a step"
        items = [ft.PopupMenuItem(one_line(name, 60), on_click=on_press(self._take_step, n, name)) for name in types]
        if not items:
            items = [ft.PopupMenuItem("No activities yet", disabled=True)]
        name = f"Step {n + 1} of the funnel: {one_line(step, 60) if step is not None else 'not chosen'}"
        return menu_button(label, items, name=name, key=f"step-{n}")

    def _step(self, step: FunnelStep, n: int) -> ft.Control:
        name = growing(caller_text(step.activity_type, strong=True))
        head: list[ft.Control] = [name, body(plural(step.users, "user")), small(percent(step.share))]
        line = ft.ProgressBar(value=step.share, bar_height=GRID, border_radius=4, color=ACCENT)
        lines: list[ft.Control] = [ft.Row(head, spacing=GRID), line]
        if n > 1:
            lines.append(
                small(f"{percent(step.of_previous)} of the step before · median {duration_text(step.median_seconds)}")
            )
        read = read_as(step_text(step, n == 1), column(lines, 4))
        if n == 1 or not step.dropped:
            return read
        shown = self.chosen.dropped_at == n
        text = "Hide users" if shown else f"Dropped out: {plural(step.dropped, 'user')}"
        spoken = f"{'Hide' if shown else 'Show'} users who dropped out before step {n}"
        button = named_button(ft.TextButton, text, spoken, on_press(self._show, None if shown else n))
        return column([read, button], key=f"taken-{n}")

    def _dropped(self, funnel: FunnelResult) -> ft.Control:
        of = f"Did not reach step {funnel.dropped_at}"
        gone = funnel.steps[(funnel.dropped_at or 1) - 1].dropped
        if gone > len(funnel.dropped_users):
            of += f": {len(funnel.dropped_users)} of {plural(gone, 'user')}"
        users: list[ft.Control] = [
            named_button(
                ft.TextButton, one_line(user, 30), f"Open {one_line(user, 120)}", on_press(self.open_user, user)
            )
            for user in funnel.dropped_users
        ]
        return column([small(of), flow(users, spacing=0, run_spacing=0)], 10, key="dropped")

    def _take_step(self, n: int, name: str) -> None:
        self.chosen.steps[n] = name
        self._show(None)

    def _add(self) -> None:
        self.chosen.steps.append(None)
        self._show(None)

    def _remove(self) -> None:
        self.chosen.steps.pop()
        self._show(None)

    def _within(self, window: int) -> None:
        self.chosen.window = window
        self._show(None)

    def _show(self, n: int | None) -> None:
        self.chosen.dropped_at = n
        self.redraw()
        self.on_change()
