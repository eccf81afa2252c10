"""Dashboard tiles: a metric with its change and its definition."""

from __future__ import annotations

from typing import NamedTuple

import flet as ft

from flashflow.backend import Overview, TodayMetrics
from flashflow.views.controls.formatting import grouped, share
from flashflow.views.controls.layout import card, column, growing
from flashflow.views.controls.texts import hint, read_as, small
from flashflow.views.controls.tokens import GRID, METRIC, MUTED, TARGET
from flashflow.views.dashboard import metric_labels
from flashflow.views.dashboard.date_range import Period
from flashflow.views.shared.panel import Panel, about


class Tile(NamedTuple):
    """A metric with its change and definition; ``spoken`` is the detail for screen readers."""

    label: str
    value: str
    detail: str
    means: str
    spoken: str = ""
    arrow: int = 0


METRICS = (
    ("active_users", "Active users"),
    ("sessions", "Sessions"),
    ("activities", "Activities"),
    ("engagement_rate", "Engagement rate"),
)
ARROWS = {1: ft.Icons.NORTH, -1: ft.Icons.SOUTH}
"""Icons, because some fonts lack arrow characters."""


def tiles(overview: Overview, today: TodayMetrics, unread: int, period: Period) -> tuple[Tile, ...]:
    """Return the tiles in display order."""
    return (*(_of_period(overview, period, *row) for row in METRICS), *_of_notifications(today, unread))


def _of_period(overview: Overview, period: Period, name: str, label: str) -> Tile:
    metric = overview.figures[name]
    shown = metric_labels.metric_text(name, metric.value)
    means = overview.definitions[name]
    changed = metric_labels.change(metric)
    if changed is None:
        return Tile(label, shown, period.phrase, means)
    before = f"from {metric_labels.metric_text(name, metric.previous)}" if metric.previous else ""
    detail, spoken = f"{changed.shown} {before}", f"{period.phrase}, {changed.spoken} {before}"
    return Tile(label, shown, detail.strip(), means, spoken.strip(), changed.arrow)


def _of_notifications(today: TodayMetrics, unread: int) -> tuple[Tile, Tile]:
    opened = share(today.read, today.delivered)
    return (
        Tile(
            "Delivered",
            grouped(today.delivered),
            f"today, {opened} opened" if opened else "today",
            "Notifications delivered today to an inbox or a device; opened ones were marked read.",
        ),
        Tile("Unread", grouped(unread), "for you", "All unread notifications in your inbox, of any day."),
    )


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Tiles(Panel):
    """All tiles, two per row on a narrow page."""

    def draw(self, rows: tuple[Tile, ...], changes: str) -> ft.Control:
        return ft.ResponsiveRow([_tile(tile, changes) for tile in rows], spacing=12, run_spacing=12)


def _tile(tile: Tile, changes: str) -> ft.Container:
    """Return a tile with label, value and detail, one accessible name, and a button with the definition."""
    detail: ft.Control = small(tile.detail, lines=2)
    if tile.arrow:
        detail = ft.Row(
            [ft.Icon(ARROWS[tile.arrow], size=12, color=MUTED), growing(small(tile.detail, lines=2))], spacing=2
        )
    label = ft.Container(
        small(tile.label, lines=1),
        height=TARGET - GRID,
        alignment=ft.Alignment.CENTER_LEFT,
        padding=ft.Padding.only(right=TARGET - 2 * GRID),
    )
    value = ft.Text(tile.value, size=METRIC, weight=ft.FontWeight.W_500)
    text = f"{tile.label}: {tile.value} {tile.spoken or tile.detail}"
    read = ft.Container(
        read_as(text, column([label, value, detail], 4)), padding=ft.Padding.only(left=16, right=12, bottom=12)
    )
    meaning = ft.Container(about(tile.label, tile.means, changes if tile.spoken else ""), right=0, top=0)
    box = card(ft.Stack([read, meaning]), key=f"tile-{tile.label}", padding=0)
    box.tooltip = hint(tile.means)
    box.col = {"xs": 6, "md": 4, "xl": 2}
    return box
