"""Build the controls of a page from its elements."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import flet as ft

from flashflow.backend import FlashFlowError, declarations, evaluate
from flashflow.views.controls.formatting import one_line, paragraphs, reads_rtl
from flashflow.views.controls.layout import card, column, flow, growing, hairline
from flashflow.views.controls.notification_bell import NotificationBell
from flashflow.views.controls.notification_settings import NotificationSettings
from flashflow.views.controls.texts import body, small
from flashflow.views.controls.tokens import BODY, GRID, SMALL, TITLE, URGENT
from flashflow.views.flow.cells import plain
from flashflow.views.flow.chart import ChartPart
from flashflow.views.flow.context import PageContext
from flashflow.views.flow.data_part import DataPart
from flashflow.views.flow.form import FormPart
from flashflow.views.flow.style import parse_style
from flashflow.views.flow.table import TablePart
from flashflow.views.shared.panel import titled_panel
from flashflow.views.shared.sources import UserInbox, UserPreferences
from flashflow.views.shared.widgets import section

log = logging.getLogger(__name__)

LEVELS = {"h1": (TITLE, True), "h2": (16, True), "h3": (BODY, True), "h4": (BODY, True), "h5": (SMALL, True),
          "h6": (SMALL, True)}  # fmt: skip
"""Size and weight of headings."""
LONGEST_TEXT = 5_000
"""Characters of a text; further ones are cut."""
GAP = 2 * GRID
COLUMNS: dict[int, ft.ResponsiveNumber] = {
    1: {"xs": 12}, 2: {"xs": 12, "md": 6}, 3: {"xs": 12, "md": 6, "lg": 4}, 4: {"xs": 12, "md": 6, "xl": 3},
}  # fmt: skip
"""Columns of twelve for each child of a row, by the number of children; more than four wrap."""
POSITIONS = {
    "left": ft.MainAxisAlignment.START, "center": ft.MainAxisAlignment.CENTER, "right": ft.MainAxisAlignment.END
}  # fmt: skip

Part = DataPart | FormPart
PartKey = tuple[str, str, int]
"""Kind, name and place among the parts of both."""
P = TypeVar("P", DataPart, FormPart)


class PageLayout:
    """The controls of one page. ``parts``: tables, charts and forms by key; each takes over the state of the part with
    its key in ``before``."""

    def __init__(
        self,
        context: PageContext,
        project: declarations.Project,
        page: declarations.Page,
        open_notification: Callable[[str], Any],
        open_all: Callable[[], Any],
        before: dict[PartKey, Part] | None = None,
    ) -> None:
        self._context = context
        self._project = project
        self._open_notification = open_notification
        self._open_all = open_all
        self._before = before or {}
        self.parts: dict[PartKey, Part] = {}
        self.controls = [self._element(element) for element in page.elements]

    def _element(self, element: declarations.Element, *, framed: bool = True) -> ft.Control:
        """Return the control of an element. ``framed``: a table, chart or form has a card of its own."""
        match element:
            case declarations.TextElement():
                control = self._text(element)
            case declarations.Container():
                control = self._container(element, framed=framed)
            case declarations.Bell():
                control = ft.Row([self._bell(element)], alignment=POSITIONS[element.position])
            case declarations.SettingsPanel():
                control = self._settings(element)
            case declarations.Table():
                table = TablePart(declared=element, context=self._context, framed=framed)
                control = self._adopting("table", element.name, table)
            case declarations.Chart():
                chart = ChartPart(declared=element, context=self._context, framed=framed)
                control = self._adopting("chart", element.name, chart)
            case declarations.Form():
                control = self._form(element, framed=framed)
        return control

    def _adopting(self, kind: str, name: str, part: P) -> P:
        """Register a part, and let it take over the state of the one it replaces."""
        same = sum(1 for known in self.parts if known[:2] == (kind, name))
        key = (kind, name, same)
        before = self._before.get(key)
        if before is not None:
            part.adopt(before)  # type: ignore[arg-type]  # of the same kind
        self.parts[key] = part
        return part

    # --- texts ----------------------------------------------------------------------------------------------------

    def _value(self, expression: declarations.Expression) -> Any:
        return evaluate(expression, self._context.scope)

    def _text(self, element: declarations.TextElement) -> ft.Control:
        try:
            text = plain(self._value(element.text))
        except FlashFlowError as error:
            return small(one_line(str(error)), color=URGENT)
        text = paragraphs(text[:LONGEST_TEXT])
        style = parse_style(element.style)
        size, heavy = LEVELS.get(element.kind, (BODY, False))
        bold = heavy if style.bold is None else style.bold
        control = ft.Text(
            text,
            size=style.size or size,
            weight=ft.FontWeight.W_600 if bold else ft.FontWeight.W_400,
            italic=style.italic,
            color=style.color,
            text_align=style.align or ft.TextAlign.LEFT,
            rtl=reads_rtl(text),
            style=ft.TextStyle(decoration=ft.TextDecoration.UNDERLINE) if style.underline else None,
        )
        if element.kind in LEVELS:
            level = int(element.kind[1])
            return ft.Semantics(
                label=text, header=True, heading_level=min(6, level + 1), exclude_semantics=True, content=control
            )
        return control

    # --- containers -----------------------------------------------------------------------------------------------

    def _container(self, element: declarations.Container, *, framed: bool) -> ft.Control:
        if element.kind == "section":
            return self._section(element, framed=framed)
        if element.kind == "header" or _is_line_with_bell(element):
            return self._line(element)
        children = [self._element(child, framed=framed) for child in element.children]
        if element.kind == "row":
            return _row(children, element.children)
        only_texts = all(isinstance(child, declarations.TextElement) for child in element.children)
        return column(children, 4 if only_texts else GAP, stretch=True)

    def _section(self, element: declarations.Container, *, framed: bool) -> ft.Control:
        """Return a titled card; a section within a card is a part of it with a heading."""
        title = one_line(element.title or "", 120)
        if framed and any(isinstance(child, declarations.SettingsPanel) for child in element.children):
            # The panel is made of cards: no card around cards.
            parts = [self._element(child) for child in element.children]
            return section(title, parts) if title else column(parts, 12, stretch=True)
        children: list[ft.Control] = []
        for n, child in enumerate(element.children):
            control = self._element(child, framed=False)
            if n and _is_bare(child) and _is_bare(element.children[n - 1]):
                children.append(hairline())
            if not _is_bare(child):
                control = ft.Container(control, padding=ft.Padding.only(left=GAP, right=GAP, top=GAP if n else 0))
            children.append(control)
        content = ft.Container(column(children, stretch=True), padding=_around(element.children))
        if framed and title:
            return titled_panel(title, [content], padded=False)
        if framed:
            return card(content, padding=0)
        return column([body(title, strong=True), content] if title else [content], GRID, stretch=True)

    def _line(self, element: declarations.Container) -> ft.Control:
        """Return a line with the bells at their side and everything else below each other beside them."""
        bells = [child for child in element.children if isinstance(child, declarations.Bell)]
        others = [self._element(child) for child in element.children if child not in bells]
        at_start = [self._bell(bell) for bell in bells if bell.position == "left"]
        at_end = [self._bell(bell) for bell in bells if bell.position != "left"]
        return ft.Row([*at_start, growing(column(others, GRID, stretch=True)), *at_end], spacing=GRID)

    # --- notifications --------------------------------------------------------------------------------------------

    def _user_id(self, expression: declarations.Expression) -> str:
        """Return the user of an element. Raises FlashFlowError."""
        value = self._value(expression)
        return self._context.user_id if value is None else plain(value)

    def _bell(self, element: declarations.Bell) -> ft.Control:
        try:
            user_id = self._user_id(element.user_id)
        except FlashFlowError as error:
            return small(one_line(str(error)), color=URGENT)
        source = UserInbox(self._context.backend, self._context.live, user_id)
        return NotificationBell(source=source, open_notification=self._open_notification, open_all=self._open_all)

    def _settings(self, element: declarations.SettingsPanel) -> ft.Control:
        try:
            user_id = self._user_id(element.user_id)
        except FlashFlowError as error:
            return small(one_line(str(error)), color=URGENT)
        source = UserPreferences(self._context.backend, self._context.live, user_id)
        return NotificationSettings(source=source, wide=self._context.wide)

    # --- forms ----------------------------------------------------------------------------------------------------

    def _form(self, element: declarations.Form, *, framed: bool) -> ft.Control:
        model = self._project.model(element.model)
        if model is None:
            return small(f"There is no model {one_line(element.model, 80)}.", color=URGENT)
        part = FormPart(declared=element, model=model, context=self._context, framed=framed)
        return self._adopting("form", element.name, part)


def substance(value: Any) -> Any:
    """Return declarations without their places in the file: equal values draw equal pages."""
    if is_dataclass(value):
        inner = tuple(
            substance(getattr(value, one.name)) for one in fields(value) if one.name not in {"place", "places"}
        )
        return (type(value).__name__, *inner)
    if isinstance(value, tuple):
        return tuple(substance(one) for one in value)
    return value


def _row(controls: Sequence[ft.Control], children: Sequence[declarations.Element]) -> ft.Control:
    """Return children side by side where the page is wide, else below each other. Texts share a line."""
    if all(isinstance(child, declarations.TextElement | declarations.Bell) for child in children):
        return flow(controls, spacing=GAP)
    columns = COLUMNS.get(len(controls), {"xs": 12, "md": 6, "lg": 4})
    cells: list[ft.Control] = [ft.Container(control, col=columns) for control in controls]
    return ft.ResponsiveRow(cells, spacing=GAP, run_spacing=GAP)


def _is_bare(element: declarations.Element) -> bool:
    """Whether an element in a card goes from edge to edge: tables, charts and forms have their own padding."""
    if isinstance(element, declarations.Container):
        return element.kind in {"row", "column", "div"} and all(map(_is_bare, element.children))
    return isinstance(element, declarations.Table | declarations.Chart | declarations.Form)


def _is_line_with_bell(element: declarations.Container) -> bool:
    """Whether a container is a line of texts with a bell."""
    bells = [child for child in element.children if isinstance(child, declarations.Bell)]
    texts = [child for child in element.children if isinstance(child, declarations.TextElement)]
    return element.kind in {"row", "div"} and bool(bells) and len(bells) + len(texts) == len(element.children)


def _around(children: Sequence[declarations.Element]) -> ft.Padding:
    """Return the padding above and below the content of a section."""
    if not children:
        return ft.Padding.all(GRID)
    first, last = (0 if _is_bare(child) else GAP for child in (children[0], children[-1]))
    return ft.Padding.only(top=first, bottom=last)
