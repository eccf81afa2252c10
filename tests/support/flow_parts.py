"""Services and declarations of ``.flow`` projects for tests, without files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from flashflow.backend import NotificationService, Rules, UserActivityService
from flashflow.backend.core.events import Bus, Event
from flashflow.backend.flow.language.declarations import (
    Constant,
    DataSource,
    Expression,
    Field,
    Join,
    ListValue,
    MapValue,
    Model,
    Name,
    NotificationType,
    Project,
    SendNotification,
    Template,
    TrackActivity,
)
from flashflow.backend.flow.language.errors import FlowError, Place
from flashflow.backend.flow.project import FlowProject
from flashflow.backend.rules.metrics import AnalyticsMetrics
from flashflow.backend.schemas.requests import TemplateIn, TypeIn
from tests.support.fixed_clock import StillClock

HERE = Place("app.flow", 1, 1)


class Parts:
    """The parts of ``Backend`` that a project runs on, over files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.me = "owner"
        self.alias_routes: Sequence[Any] = ()
        self.clock = StillClock()
        self.bus = Bus()
        self.events: list[Event] = []
        self.bus.subscribe(self.events.extend)
        zone = ZoneInfo("UTC")
        self.activity = UserActivityService(folder / "user_activities.db", bus=self.bus, clock=self.clock, zone=zone)
        self.notifications = NotificationService(folder / "notifications.db", bus=self.bus, clock=self.clock)
        self.rules = Rules(
            self.activity, self.notifications, send=self.notifications.sender.send,
            metrics=AnalyticsMetrics(self.activity.analytics),
        )  # fmt: skip

    def close(self) -> None:
        self.activity.close()
        self.notifications.close()

    def run(self, **declarations: Any) -> FlowProject:
        """Put a project of these declarations in force."""
        return run(self, Project(**declarations))


@contextmanager
def parts_in(folder: Path) -> Iterator[Parts]:
    parts = Parts(folder)
    try:
        yield parts
    finally:
        parts.close()


class Files:
    """A reader of files that returns ``project`` and ``errors``; ``path`` is the file that it seems to read."""

    def __init__(self, path: Path, project: Project) -> None:
        self.path = path
        self.project = project
        self.errors: tuple[FlowError, ...] = ()
        self.fault: Exception | None = None
        self.touch("1")

    def touch(self, text: str) -> None:
        self.path.write_text(text)

    def __call__(self, paths: Sequence[Path]) -> tuple[Project, tuple[FlowError, ...]]:
        if self.fault is not None:
            raise self.fault
        return self.project, self.errors


def run(parts: Parts, project: Project) -> FlowProject:
    flow = FlowProject(parts, [], lambda paths: (project, ()))
    flow.paths = (Path("app.flow"),)
    assert flow.load() == ()
    return flow


# --- declarations -----------------------------------------------------------------------------------------------------


def value(one: Any) -> Expression:
    """An expression of a plain value; a text that starts with ``$`` is a name."""
    if isinstance(one, str) and one.startswith("$"):
        return Name(tuple(one[1:].split(".")), HERE)
    if isinstance(one, dict):
        return MapValue(tuple((name, value(part)) for name, part in one.items()), HERE)
    if isinstance(one, list):
        return ListValue(tuple(map(value, one)), HERE)
    if isinstance(one, tuple):
        return Join(tuple(map(value, one)), HERE)
    return Constant(one, HERE)


def track(user_id: Any, activity_type: Any, **fields: Any) -> TrackActivity:
    given = {"user_id": user_id, "activity_type": activity_type, **fields}
    return TrackActivity(tuple((name, value(one)) for name, one in given.items()), HERE)


def send(to: Any, title: Any = "Title", message: Any = "Message", kind: Any = None, **fields: Any) -> SendNotification:
    given = {"title": title, "message": message, **fields}
    group = to if to in ("admin_users", "all_users") else value(to)
    return SendNotification(group, tuple((name, value(one)) for name, one in given.items()), HERE, kind)


def source(name: str, model: str | None = None, **arguments: Any) -> DataSource:
    return DataSource(name, tuple((name, value(one)) for name, one in arguments.items()), HERE, model)


def field(name: str, type_: Any, **options: Any) -> Field:
    return Field(name, type_, HERE, **options)


def model(name: str, *fields: Field) -> Model:
    return Model(name, name.lower(), f"{name.lower()}s", fields, HERE)


def notification_type(name: str, **fields: Any) -> NotificationType:
    return NotificationType(TypeIn(name=name, **fields), HERE)


def template(name: str, title: str = "Hello", message: str = "World", **fields: Any) -> Template:
    return Template(TemplateIn(name=name, title_template=title, message_template=message, **fields), HERE)


PRODUCT = model(
    "Product",
    field("id", "integer", primary=True, auto=True),
    field("name", "string", required=True),
    field("price", "decimal", required=True),
    field("sku", "string", unique=True),
    field("size", "string", choices=("small", "large"), default="small"),
    field("created_at", "timestamp", auto=True),
)
USER = model(
    "User", field("id", "string", primary=True), field("name", "string"), field("role", "string", default="member")
)
