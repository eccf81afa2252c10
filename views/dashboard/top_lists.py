"""Top lists: the pages, features and referrers with the most activities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import flet as ft

from flashflow.backend import Named
from flashflow.views.controls.formatting import grouped, one_line, plural
from flashflow.views.controls.tokens import ACCENT, MUTED, body, caller_text, column, growing, read_as, small
from flashflow.views.dashboard.metric_labels import percent
from flashflow.views.shared.panel import Panel, no_data, titled_panel

OTHERS = "All others"


class Bar(NamedTuple):
    """A row; ``length`` is relative to the longest bar, from 0 to 1."""

    name: str
    activities: str
    share: str
    length: float
    spoken: str
    is_other: bool


def bars(names: Sequence[Named]) -> tuple[Bar, ...]:
    """Return the rows in order; names beyond the limit are one row, OTHERS."""
    most = max((named.count for named in names), default=0)
    return tuple(
        Bar(
            name := OTHERS if named.is_other else one_line(named.name, 120),
            grouped(named.count),
            percent(named.share),
            named.count / most,
            f"{name}: {plural(named.count, 'activity', 'activities')}, {percent(named.share)}",
            named.is_other,
        )
        for named in names
    )


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class TopNames(Panel):
    """A titled top list."""

    def draw(self, title: str, names: tuple[Named, ...], means: str) -> ft.Control:
        rows: list[ft.Control] = [_row(bar) for bar in bars(names)] or [no_data("None in this period.")]
        return titled_panel(title, rows, means=means)


def _row(bar: Bar) -> ft.Semantics:
    name = body(bar.name, lines=1, color=MUTED) if bar.is_other else caller_text(bar.name)
    share = small(bar.share)
    share.width, share.text_align = 56, ft.TextAlign.RIGHT
    color = MUTED if bar.is_other else ACCENT
    line = ft.ProgressBar(bar.length, bar_height=4, border_radius=2, color=color, bgcolor=ft.Colors.TRANSPARENT)
    return read_as(bar.spoken, column([ft.Row([growing(name), body(bar.activities), share], spacing=8), line], 2))
