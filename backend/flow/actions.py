"""Run the actions of forms, rows and jobs within limits, so that no loop of them goes on for ever."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flashflow.backend.activity.ingest import Origin
from flashflow.backend.core.errors import Conflict, Erased, FlashFlowError, ValidationError
from flashflow.backend.flow.data_reader import Parts, SourceData
from flashflow.backend.flow.language.declarations import (
    Action,
    DataSource,
    ForEach,
    Group,
    SendNotification,
    SendScheduled,
    TrackActivity,
)
from flashflow.backend.flow.language.expressions import as_text, evaluate, evaluate_all
from flashflow.backend.schemas.requests import ActivityIn, SendIn, build

log = logging.getLogger(__name__)

APP = "flow"
"""App of everything that .flow files declare, track and send."""
MOST_ACTIONS = 1_000
"""Actions of one run."""
MOST_RECIPIENTS = 50_000
"""Notifications of one run."""
MOST_A_MINUTE = 5_000
"""Actions of all runs within a minute: more come from a loop, such as a job that reads the activities it tracks."""
BATCH = 500
"""Recipients of one transaction, since other writes wait for it."""
MOST_ERRORS = 20
"""Errors that a result lists; the rest is counted."""

_TRACK_TEXTS = ("user_id", "activity_type", "page_url", "referrer", "session_id", "activity_id")

Trigger = Literal["page", "job"]


@dataclass(frozen=True, slots=True)
class ActionResult:
    """Outcome of a run: the number of activities tracked and of notifications stored, and the errors of the rest."""

    tracked: int = 0
    sent: int = 0
    errors: tuple[str, ...] = ()


class LoopGuardStop(Conflict):
    """Actions beyond a limit of the loop guard; those before were done."""


class LoopGuard:
    """Count the actions of the last minute. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._times: deque[float] = deque()

    def count(self) -> None:
        """Count one action. Raises LoopGuardStop beyond MOST_A_MINUTE."""
        with self._lock:
            now = self._monotonic()
            while self._times and now - self._times[0] >= 60:
                self._times.popleft()
            if len(self._times) >= MOST_A_MINUTE:
                raise LoopGuardStop(
                    f"The loop guard stopped these actions: the .flow files ran {MOST_A_MINUTE:,} within a minute."
                )
            self._times.append(now)


Recipients = Callable[[Group], Sequence[str]]
Read = Callable[[DataSource, Mapping[str, Any]], SourceData]


@dataclass(slots=True)
class ActionRun:
    """One run of actions. ``read``: the rows of a loop; ``is_over``: whether its time is over."""

    parts: Parts
    guard: LoopGuard
    recipients: Recipients
    read: Read
    is_over: Callable[[], bool] = lambda: False
    tracked: int = 0
    sent: int = 0
    _actions: int = 0
    _recipients: int = 0
    _errors: list[str] = field(default_factory=list)
    _unlisted: int = 0

    def run(self, actions: Sequence[Action], scope: Mapping[str, Any]) -> ActionResult:
        """Run the actions in order. An action that fails does not stop the others; a limit of the loop guard does."""
        try:
            self._run(actions, scope)
        except LoopGuardStop as stop:
            log.warning("%s", stop)
            self._errors.append(str(stop))
        more = (f"… and {self._unlisted} more errors",) if self._unlisted else ()
        return ActionResult(self.tracked, self.sent, (*self._errors, *more))

    def _run(self, actions: Sequence[Action], scope: Mapping[str, Any]) -> None:
        for action in actions:
            try:
                self._one(action, scope)
            except LoopGuardStop:
                raise
            except FlashFlowError as refusal:
                self._fail(action, refusal)

    def _one(self, action: Action, scope: Mapping[str, Any]) -> None:
        match action:
            case SendScheduled():
                return
            case ForEach(variable=variable, data=data, actions=inner):
                for row in self.read(data, scope).rows:
                    self._run(inner, {**scope, variable: row})
                return
        self._count()
        match action:
            case TrackActivity():
                self._track(action, scope)
            case SendNotification():
                self._send(action, scope)

    def _count(self) -> None:
        if self._actions >= MOST_ACTIONS:
            raise LoopGuardStop(f"The loop guard stopped these actions after {MOST_ACTIONS:,}.")
        if self.is_over():
            raise LoopGuardStop("These actions took too long; the rest was left out.")
        self.guard.count()
        self._actions += 1

    def _fail(self, action: Action, refusal: FlashFlowError) -> None:
        if isinstance(refusal, Erased):  # its words name the user
            refusal = Conflict("The user was erased.")
        log.info("an action of a .flow file failed: %s: %s", action.place, refusal)
        if len(self._errors) < MOST_ERRORS:
            self._errors.append(f"{action.place}: {refusal}")
        else:
            self._unlisted += 1

    def _track(self, action: TrackActivity, scope: Mapping[str, Any]) -> None:
        values = _texts(evaluate_all(action.fields, scope), _TRACK_TEXTS)
        request = build(ActivityIn, **_given(values))
        activity = self.parts.activity
        answer = activity.store.run(activity.track_write(request, Origin(APP)))
        self.tracked += answer.stored and not answer.duplicate

    def _send(self, action: SendNotification, scope: Mapping[str, Any]) -> None:
        users = self._users(action, scope)
        values = _texts(evaluate_all(action.fields, scope), ("title", "message", "notification_type", "collapse_key"))
        if action.kind is not None:
            values["data"] = {"kind": action.kind, **(values.get("data") or {})}
        if self._recipients + len(users) > MOST_RECIPIENTS:
            raise LoopGuardStop(f"The loop guard stopped these actions: more than {MOST_RECIPIENTS:,} notifications.")
        self._recipients += len(users)
        notifications = self.parts.notifications
        for batch in _batches(users):
            request = build(SendIn, **_given(values), user_ids=batch)
            try:
                self.sent += len(notifications.store.run(notifications.send_write(request, APP)))
            except FlashFlowError as refusal:
                if len(users) <= BATCH:
                    raise
                self._fail(action, refusal)

    def _users(self, action: SendNotification, scope: Mapping[str, Any]) -> list[str]:
        if isinstance(action.to, str):
            return list(dict.fromkeys(self.recipients(action.to)))
        value = evaluate(action.to, scope)
        users = [as_text(one) for one in (value if isinstance(value, list) else [value])]
        if not all(users):
            raise ValidationError.of("to", "is empty")
        return list(dict.fromkeys(users))


def _texts(values: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Make texts of numbers in ``fields``, such as the id of a row."""
    return values | {
        name: as_text(values[name])
        for name in fields
        if isinstance(values.get(name), int | float) and not isinstance(values[name], bool)
    }


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _batches(users: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(users), BATCH):
        yield list(users[start : start + BATCH])
