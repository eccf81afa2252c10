"""Rule list: enable, dry run and delete rules, and a form for simple activity rules."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import flet as ft

from flashflow.backend import FlashFlowError, Rule, RuleIn, RuleRef, build
from flashflow.views.controls.buttons import named_button, on_press, on_switch
from flashflow.views.controls.formatting import one_line
from flashflow.views.controls.layout import card, column, flow, hairline
from flashflow.views.controls.refresher import Refresher
from flashflow.views.controls.relative_time import ago, exact
from flashflow.views.controls.texts import body, hint, small
from flashflow.views.controls.tokens import GRID, URGENT
from flashflow.views.settings.part import SettingsPart
from flashflow.views.settings.rule_labels import action_text, condition_text, dry_run_text, history_text, name_for
from flashflow.views.shared.form import FULL, QUARTER, Field, Options, SaveBar, grid, submit
from flashflow.views.shared.screen_base import Screen

MOST_SHOWN = 200
REST = 1.0
"""Seconds between two refreshes: a rule may fire many times a second."""
DEFAULT_COOLDOWN = 60
REQUIRED = ("on.activity_type", "send.title", "send.message")
WHOLE_NUMBERS = ("on.times", "on.within_minutes", "cooldown_minutes")


class RuleList(SettingsPart):
    """All rules with their actions, and the form for a new rule."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(screen)
        self._rules: Sequence[Rule] = ()
        self._dry_runs: dict[str, tuple[str, ft.ColorValue | None]] = {}
        """Text and colour of the result, by rule."""
        self._rows = column([], 12)
        self._form = RuleForm(self)
        self._refresher = Refresher(self._refresh, REST)
        self.control = card(column([self._rows, self._form.control], 12), key="rules")

    @property
    def names(self) -> frozenset[str]:
        """Names in use, also by other apps' rules, so that names stay distinct on the screen."""
        return frozenset(rule.name for rule in self._rules)

    def load(self) -> Sequence[Rule]:
        """Return the rules. Runs in a worker thread."""
        return self.backend.rules.page(None, MOST_SHOWN).rules

    def set_data(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self.draw()

    def request_refresh(self) -> None:
        """Refresh soon: a rule was changed or has fired."""
        self._refresher.request_refresh()

    def cancel(self) -> None:
        self._refresher.cancel()

    async def _refresh(self) -> None:
        try:
            rules = await asyncio.to_thread(self.load)
        except FlashFlowError:  # the screen shows the error at its next refresh
            self.screen.request_refresh()
            return
        self.set_data(rules)
        self.screen.redraw()

    def draw(self) -> None:
        rows: list[ft.Control] = []
        for rule in self._rules:
            rows += [self._row(rule), hairline()]
        if not rows:
            rows = [small("No rules yet. Apps create rules with POST /api/rules."), hairline()]
        self._rows.controls = rows

    def _row(self, rule: Rule) -> ft.Control:
        now, me = self.screen.now(), self.backend.me
        origin = f" · from {one_line(rule.app, 60)}" if rule.app != "local" else ""
        history = small(f"{history_text(rule, now)} · {rule.name}{origin}")
        if rule.last_fired_at is not None:
            history.tooltip = hint(exact(rule.last_fired_at, now))
        texts: list[ft.Control] = [body(condition_text(rule), strong=True), body(action_text(rule, me)), history]
        if rule.last_error:
            when_failed = f" {ago(rule.last_error_at, now)}" if rule.last_error_at is not None else ""
            text = f"A notification could not be sent{when_failed}: {one_line(rule.last_error)}"
            texts.append(small(text, color=URGENT))
        if rule.id in self._dry_runs:
            text, color = self._dry_runs[rule.id]
            texts.append(body(text, color=color))
        texts.append(ft.Container(flow(self._buttons(rule)), padding=ft.Padding.only(top=GRID)))
        switch = ft.Switch(value=rule.enabled, tooltip=f"Rule {rule.name}", on_change=on_switch(self._enable, rule))
        return ft.Row(
            [ft.Column(texts, spacing=2, expand=True, tight=True), switch],
            key=f"rule-{rule.id}",
            spacing=12,
            vertical_alignment=ft.CrossAxisAlignment.START,
        )

    def _buttons(self, rule: Rule) -> list[ft.Control]:
        name, rules = rule.name, self.backend.rules
        if self._confirming == rule.id:
            sure, delete = f"Delete for good: {name}", on_press(self._delete, rule)
            return [named_button(ft.FilledTonalButton, "Delete", sure, delete, key="sure"), self.keep_button(name)]
        dry_run, ask = on_press(self._dry_run, rule), on_press(self.confirm, rule.id)
        buttons = [named_button(ft.OutlinedButton, "Dry run", f"Dry run: {name}", dry_run, key="try")]
        if rule.last_error:
            dismiss = on_press(self.write, rules.dismiss_error_write, _ref(rule))
            text = "Dismiss the error"
            buttons.append(named_button(ft.TextButton, text, f"{text}: {name}", dismiss, key="dismiss"))
        return [*buttons, named_button(ft.TextButton, "Delete…", f"Delete: {name}", ask, key="ask")]

    async def _delete(self, rule: Rule) -> None:
        self._confirming = None
        await self.write(self.backend.rules.delete_write, _ref(rule))

    async def _enable(self, rule: Rule, on: bool) -> None:
        await self.write(self.backend.rules.enable_write, _ref(rule), on)
        self.request_refresh()  # if the change was refused, the switch returns to the stored state

    async def _dry_run(self, rule: Rule) -> None:
        try:
            result = await asyncio.to_thread(self.backend.rules.dry_run_of, _ref(rule))
            self._dry_runs[rule.id] = (dry_run_text(result), None)
        except FlashFlowError as refusal:
            self._dry_runs[rule.id] = (f"The dry run failed: {refusal}", URGENT)
        self.redraw()


class RuleForm:
    """Form for a rule on one activity type that notifies the local user or the activity's user."""

    def __init__(self, owner: RuleList) -> None:
        self._owner = owner
        number = ft.KeyboardType.NUMBER
        self._fields = {
            "on.activity_type": Field("Activity type", helper="As the app sends it, for example checkout_failed"),
            "on.times": Field("Times", helper="Activities needed", keyboard=number, col=QUARTER),
            "on.within_minutes": Field("Within minutes", helper="If more than one", keyboard=number, col=QUARTER),
            "send.title": Field("Title"),
            "send.message": Field("Message", helper="Placeholders: {user_id}, {page_url}, {metadata_plan}"),
            "cooldown_minutes": Field(
                "Minutes between notifications",
                helper="At most one per user in this time; 0: no limit",
                keyboard=number,
            ),
        }
        recipients = [
            ("me", "Me", "Activities of any user notify you."),
            ("user", "The user", "An activity notifies its own user."),
        ]
        self._recipient = Options("Recipient", recipients, "me")
        cancel = named_button(ft.TextButton, "Cancel", "Cancel the new rule", on_press(self._show, False))
        self._saving = SaveBar("Save the new rule", self._save, cancel)
        fields = grid([*(field.control for field in self._fields.values()), self._recipient.control])
        self._body = ft.Container(column([fields, self._saving.control], 2 * GRID), visible=False)
        self._open = named_button(ft.OutlinedButton, "Add a rule", "Add a rule", on_press(self._show, True), key="add")
        self.control = column([ft.Row([self._open], wrap=True), self._body], 12)
        self.control.col = FULL
        self._empty()

    def _empty(self) -> None:
        start = {"on.times": "1", "cooldown_minutes": str(DEFAULT_COOLDOWN)}
        for name, field in self._fields.items():
            field.reset("")
            field.control.value = start.get(name, "")

    def _show(self, shown: bool) -> None:
        self._body.visible, self._open.visible = shown, not shown
        self._saving.show_result(None)
        self._empty()
        self._owner.screen.redraw()

    async def _save(self, _: object) -> None:
        screen, texts = self._owner.screen, {name: field.text for name, field in self._fields.items()}
        numbers, complete = self._numbers(texts), self._all_given(texts)
        if numbers is None or not complete:
            self._saving.show_refusal("")
            screen.redraw()
            return

        def write() -> None:
            rule = self._rule(texts, numbers)
            screen.backend.notifications.store.run(screen.backend.rules.create_write(rule, "local", None))

        refusal = await submit(write, self._fields)
        if refusal is None:
            self._show(False)
        else:
            self._saving.show_refusal(refusal)
            screen.redraw()

    def _rule(self, texts: dict[str, str], numbers: dict[str, int]) -> RuleIn:
        """Return the input as a rule. Raises ValidationError."""
        on: dict[str, object] = {"activity_type": texts["on.activity_type"], "times": numbers.get("on.times", 1)}
        if "on.within_minutes" in numbers:
            on["within_minutes"] = numbers["on.within_minutes"]
        return build(
            RuleIn,
            name=name_for(texts["on.activity_type"], self._owner.names),
            on=on,
            send={"title": texts["send.title"], "message": texts["send.message"]},
            to=[self._owner.screen.backend.me] if self._recipient.text == "me" else "user",
            cooldown_minutes=numbers.get("cooldown_minutes", DEFAULT_COOLDOWN),
        )

    def _all_given(self, texts: dict[str, str]) -> bool:
        """Return whether every required field is filled; show an error at each empty one."""
        for name in REQUIRED:
            self._fields[name].show_error(None if texts[name] else "This is required.")
        return all(texts[name] for name in REQUIRED)

    def _numbers(self, texts: dict[str, str]) -> dict[str, int] | None:
        """Return the numbers in the input; None if one is invalid, with an error at its field."""
        numbers: dict[str, int] = {}
        good = True
        for name in WHOLE_NUMBERS:
            text = texts[name]
            self._fields[name].show_error(None)
            if text and text.isascii() and text.isdigit() and len(text) < 10:
                numbers[name] = int(text)
            elif text:
                self._fields[name].show_error("This must be a whole number.")
                good = False
        return numbers if good else None


def _ref(rule: Rule) -> RuleRef:
    return RuleRef(rule.name, rule.app)
