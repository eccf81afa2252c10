"""Rules: what happens, and who is told of it then; switched, tried, removed, and a form for the plain ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import flet as ft

from flashflow.backend import FlashFlowError, RuleIn, RuleRef, build
from flashflow.views.controls.refresher import Refresher
from flashflow.views.controls.tokens import GRID, URGENT, Handler, body, hairline, hint, named_button, small
from flashflow.views.settings.rule_labels import fired, name_for, then, tried, when
from flashflow.views.shared.form import HALF, QUARTER, WHOLE, Field, Options, Saving, attempt, grid
from flashflow.views.shared.formatting import ago, exact, one_line
from flashflow.views.shared.widgets import card

if TYPE_CHECKING:
    from flashflow.backend import Rule
    from flashflow.views.shared.screen_base import Screen

MOST_SHOWN = 200
REST = 1.0
"""Seconds between two looks: a rule may fire many times in one."""
DEFAULT_COOLDOWN = 60
REQUIRED = ("on.activity_type", "send.title", "send.message")
WHOLE_NUMBERS = ("on.times", "on.within_minutes", "cooldown_minutes")


class RuleList:
    """Every rule with its switch, its dry run and its end; below them the form."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self._rules: Sequence[Rule] = ()
        self._asking: str | None = None
        self._told: dict[str, RuleSummary] = {}
        self._rows = ft.Column(spacing=12, tight=True)
        self._form = RuleForm(self)
        self._refresher = Refresher(self._refresh, REST)
        self.control = card(ft.Column([self._rows, self._form.control], spacing=12, tight=True), key="rules")

    @property
    def names(self) -> frozenset[str]:
        """The names that are taken; other apps' too, so that the person can tell them apart."""
        return frozenset(rule.name for rule in self._rules)

    def load(self) -> Sequence[Rule]:
        """Ask for the rules. Runs in a worker thread."""
        return self.screen.backend.rules.page(None, MOST_SHOWN).rules

    def take(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._draw()

    def ask(self) -> None:
        """Look again soon: a rule was changed or has fired."""
        self._refresher.ask()

    def cancel(self) -> None:
        self._refresher.cancel()

    async def _refresh(self) -> None:
        try:
            rules = await asyncio.to_thread(self.load)
        except FlashFlowError:  # the whole screen says it, when it looks next
            self.screen.ask()
            return
        self.take(rules)
        self.screen.redraw()

    def _draw(self) -> None:
        rows: list[ft.Control] = []
        for rule in self._rules:
            rows += [self._row(rule), hairline()]
        if not rows:
            rows = [small("No rule yet. Apps make theirs by POST /api/rules."), hairline()]
        self._rows.controls = rows

    def _row(self, rule: Rule) -> ft.Control:
        now, me = self.screen.now(), self.screen.backend.me
        origin = f" · from {one_line(rule.app, 60)}" if rule.app != "local" else ""
        history = small(f"{fired(rule, now)} · {rule.name}{origin}")
        if rule.last_fired_at is not None:
            history.tooltip = hint(exact(rule.last_fired_at, now))
        texts: list[ft.Control] = [body(when(rule), strong=True), body(then(rule, me)), history]
        if rule.last_error:
            when_failed = f" {ago(rule.last_error_at, now)}" if rule.last_error_at is not None else ""
            words = f"A notification could not be sent{when_failed}: {one_line(rule.last_error)}"
            texts.append(small(words, color=URGENT))
        if told := self._told.get(rule.id):
            texts.append(body(told.words, color=URGENT if told.bad else None))
        buttons = ft.Row(self._buttons(rule), wrap=True, spacing=GRID, run_spacing=GRID)
        texts.append(ft.Container(buttons, padding=ft.Padding.only(top=GRID)))
        switch = ft.Switch(value=rule.enabled, tooltip=f"Rule {rule.name}", on_change=self._switcher(rule))
        return ft.Row(
            [ft.Column(texts, spacing=2, expand=True, tight=True), switch],
            key=f"rule-{rule.id}",
            spacing=12,
            vertical_alignment=ft.CrossAxisAlignment.START,
        )

    def _buttons(self, rule: Rule) -> list[ft.Control]:
        name = rule.name
        if self._asking == rule.id:
            return [
                named_button(
                    ft.FilledTonalButton, "Delete", f"Delete for good: {name}", self._remover(rule), key="sure"
                ),
                named_button(ft.TextButton, "Keep", f"Keep: {name}", self._asker(None), key="keep"),
            ]
        dismiss = named_button(
            ft.TextButton, "Dismiss the error", f"Dismiss the error: {name}", self._dismisser(rule), key="dismiss"
        )
        return [
            named_button(ft.OutlinedButton, "Dry run", f"Dry run: {name}", self._tryer(rule), key="try"),
            *([dismiss] if rule.last_error else []),
            named_button(ft.TextButton, "Delete…", f"Delete: {name}", self._asker(rule.id), key="ask"),
        ]

    def _asker(self, rule_id: str | None) -> Handler:
        async def ask(_: object) -> None:
            self._asking = rule_id
            self._draw()
            self.screen.redraw()

        return ask

    def _remover(self, rule: Rule) -> Handler:
        async def remove(_: object) -> None:
            self._asking = None
            services = self.screen.backend
            await self.screen.act(lambda: services.notifications.store.run(services.rules.delete_write(_ref(rule))))

        return remove

    def _dismisser(self, rule: Rule) -> Handler:
        async def dismiss(_: object) -> None:
            services = self.screen.backend
            write = services.rules.dismiss_error_write(_ref(rule))
            await self.screen.act(lambda: services.notifications.store.run(write))

        return dismiss

    def _switcher(self, rule: Rule) -> Handler:
        async def switch(event: ft.Event[ft.Switch]) -> None:
            services, on = self.screen.backend, bool(event.control.value)
            write = services.rules.enable_write(_ref(rule), on)
            await self.screen.act(lambda: services.notifications.store.run(write))
            self.ask()  # where it was refused the switch goes back

        return switch

    def _tryer(self, rule: Rule) -> Handler:
        async def run(_: object) -> None:
            try:
                found = await asyncio.to_thread(self.screen.backend.rules.dry_run_of, _ref(rule))
                self._told[rule.id] = RuleSummary(tried(found), bad=False)
            except FlashFlowError as refusal:
                self._told[rule.id] = RuleSummary(f"It could not be tried: {refusal}", bad=True)
            self._draw()
            self.screen.redraw()

        return run


class RuleForm:
    """A new rule over one type of activity, for me or for who did it."""

    def __init__(self, owner: RuleList) -> None:
        self._owner = owner
        self._fields = {
            "on.activity_type": Field("Activity type", helper="As the app names it, like checkout_failed", col=HALF),
            "on.times": Field("Times", helper="How often it must happen", keyboard=ft.KeyboardType.NUMBER, col=QUARTER),
            "on.within_minutes": Field(
                "Within minutes", helper="For more than once", keyboard=ft.KeyboardType.NUMBER, col=QUARTER
            ),
            "send.title": Field("Title", col=HALF),
            "send.message": Field(
                "Message", helper="{user_id}, {page_url} and {metadata_plan} are filled in", col=HALF
            ),
            "cooldown_minutes": Field(
                "Minutes between notices",
                helper="At most one in that time for each user; 0: every time",
                keyboard=ft.KeyboardType.NUMBER,
                col=HALF,
            ),
        }
        self._whom = Options(
            "Who is told",
            [("me", "Me", "Whoever did it, you are told."), ("user", "The user", "Whoever did it is told.")],
            "me",
        )
        cancel = named_button(ft.TextButton, "Cancel", "Cancel the new rule", self._shower(False))
        self._saving = Saving("Save the new rule", self._save, cancel)
        self._body = ft.Container(
            ft.Column(
                [
                    grid([*(field.control for field in self._fields.values()), self._whom.control]),
                    self._saving.control,
                ],
                spacing=2 * GRID,
                tight=True,
            ),
            visible=False,
        )
        self._open = named_button(ft.OutlinedButton, "Add a rule", "Add a rule", self._shower(True), key="add")
        self.control = ft.Column([ft.Row([self._open], wrap=True), self._body], spacing=12, tight=True, col=WHOLE)
        self._empty()

    def _empty(self) -> None:
        start = {"on.times": "1", "cooldown_minutes": str(DEFAULT_COOLDOWN)}
        for name, field in self._fields.items():
            field.reset("")
            field.control.value = start.get(name, "")

    def _shower(self, shown: bool) -> Handler:
        async def show(_: object) -> None:
            self._show(shown)
            self._owner.screen.redraw()

        return show

    def _show(self, shown: bool) -> None:
        self._body.visible, self._open.visible = shown, not shown
        self._saving.say(None)
        self._empty()

    async def _save(self, _: object) -> None:
        screen, texts = self._owner.screen, {name: field.text for name, field in self._fields.items()}
        numbers, whole = self._numbers(texts), self._all_given(texts)
        if numbers is None or not whole:
            self._saving.say("Nothing was saved.", good=False)
            screen.redraw()
            return

        def write() -> None:
            wanted = screen.backend.rules.create_write(self._asked(texts, numbers), "local", None)
            screen.backend.notifications.store.run(wanted)

        refusal = await attempt(write, self._fields)
        if refusal is None:
            self._show(False)
        else:
            self._saving.say(refusal or "Nothing was saved.", good=False)
        screen.redraw()

    def _asked(self, texts: dict[str, str], numbers: dict[str, int]) -> RuleIn:
        """What was filled in as a rule. Raises ValidationError."""
        on: dict[str, object] = {"activity_type": texts["on.activity_type"], "times": numbers.get("on.times", 1)}
        if "on.within_minutes" in numbers:
            on["within_minutes"] = numbers["on.within_minutes"]
        return build(
            RuleIn,
            name=name_for(texts["on.activity_type"], self._owner.names),
            on=on,
            send={"title": texts["send.title"], "message": texts["send.message"]},
            to=[self._owner.screen.backend.me] if self._whom.text == "me" else "user",
            cooldown_minutes=numbers.get("cooldown_minutes", DEFAULT_COOLDOWN),
        )

    def _all_given(self, texts: dict[str, str]) -> bool:
        """Whether nothing that a rule needs is left empty; what is, is told at its field."""
        for name in REQUIRED:
            self._fields[name].complain(None if texts[name] else "This is required.")
        return all(texts[name] for name in REQUIRED)

    def _numbers(self, texts: dict[str, str]) -> dict[str, int] | None:
        """The numbers that were typed; None where one is none, which is said at its field."""
        numbers: dict[str, int] = {}
        good = True
        for name in WHOLE_NUMBERS:
            text = texts[name]
            self._fields[name].complain(None)
            if text and text.isascii() and text.isdigit() and len(text) < 10:
                numbers[name] = int(text)
            elif text:
                self._fields[name].complain("This must be a whole number.")
                good = False
        return numbers if good else None


class RuleSummary(NamedTuple):
    """What a dry run said."""

    words: str
    bad: bool


def _ref(rule: Rule) -> RuleRef:
    return RuleRef(rule.name, rule.app)
