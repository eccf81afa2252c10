"""Top lists: the pages, features and referrers with the most activities."""

from __future__ import annotations

import flet as ft

from flashflow.backend import Named
from flashflow.views.controls.formatting import grouped, one_line, plural
from flashflow.views.controls.layout import column, growing
from flashflow.views.controls.texts import body, caller_text, read_as, small
from flashflow.views.controls.tokens import ACCENT, MUTED
from flashflow.views.shared.panel import Panel, no_data, titled_panel
from flashflow.views.shared.values import percent

OTHERS = "All others"


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class TopNames(Panel):
    """A titled top list."""

    def draw(self, title: str, names: tuple[Named, ...], means: str) -> ft.Control:
        most = max((named.count for named in names), default=0)
        rows: list[ft.Control] = [_row(named, most) for named in names] or [no_data("None in this period.")]
        return titled_panel(title, rows, means=means)


def _row(named: Named, most: int) -> ft.Semantics:
    """Return a row with a bar relative to ``most``; names beyond the limit are one row, OTHERS."""
    count, share = body(grouped(named.count)), small(percent(named.share))
    share.width, share.text_align = 56, ft.TextAlign.RIGHT
    if named.is_other:
        text, color = OTHERS, MUTED
        name = body(OTHERS, lines=1, color=MUTED)
    else:
        text, color = one_line(named.name, 120), ACCENT
        name = caller_text(text)
    length, none = named.count / most, ft.Colors.TRANSPARENT
    line = ft.ProgressBar(length, bar_height=4, border_radius=2, color=color, bgcolor=none)
    spoken = f"{text}: {plural(named.count, 'activity', 'activities')}, {percent(named.share)}"
    return read_as(spoken, column([ft.Row([growing(name), count, share], spacing=8), line], 2))
