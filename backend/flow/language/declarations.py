"""Declarations of ``.flow`` files: the checked result that the runtime and the pages read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from flashflow.backend.flow.language.errors import Place
from flashflow.backend.flow.language.schedule import Schedule
from flashflow.backend.schemas.requests import TemplateIn, TypeIn
from flashflow.backend.schemas.rules import OnIn, RuleMessageIn

Scalar = str | int | float | bool | None
Places = tuple[tuple[str, Place], ...]
"""Places of the names in a declaration, for messages."""

# --- expressions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Constant:
    """Text, number, truth value or null."""

    value: Scalar
    place: Place


@dataclass(frozen=True, slots=True)
class Name:
    """Dotted name, such as ``current_user.id``."""

    parts: tuple[str, ...]
    place: Place

    def __str__(self) -> str:
        return ".".join(self.parts)


@dataclass(frozen=True, slots=True)
class Join:
    """Two or more parts joined with ``+``: a sum if all are numbers, else a text."""

    parts: tuple[Expression, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class MapValue:
    """Inline map ``{key: value, …}``."""

    entries: tuple[tuple[str, Expression], ...]
    place: Place


@dataclass(frozen=True, slots=True)
class ListValue:
    """List ``[value, …]``."""

    items: tuple[Expression, ...]
    place: Place


Expression = Constant | Name | Join | MapValue | ListValue
Named = tuple[tuple[str, Expression], ...]
"""Expressions by the name of the field that they fill."""

# --- models -----------------------------------------------------------------------------------------------------------

FieldType = Literal[
    "integer", "string", "text", "decimal", "boolean", "timestamp", "json", "datetime", "date", "time", "email", "url",
    "uuid", "object", "array", "reference",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reference:
    """Field of another model; ``id`` where the file names none."""

    model: str
    field: str


@dataclass(frozen=True, slots=True)
class Field:
    """Field of a model, a request or a response. ``auto``: filled in by FlashFlow. ``default`` None: no default."""

    name: str
    type: FieldType
    place: Place
    required: bool = False
    unique: bool = False
    primary: bool = False
    auto: bool = False
    default: Scalar = None
    choices: tuple[str, ...] = ()
    references: Reference | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """Model of an app's objects. ``singular`` (``product``) names one row in expressions, ``all_<plural>`` is the data
    source of all rows."""

    name: str
    singular: str
    plural: str
    fields: tuple[Field, ...]
    place: Place

    def field(self, name: str) -> Field | None:
        """Return the field with that name."""
        return next((one for one in self.fields if one.name == name), None)


# --- actions ----------------------------------------------------------------------------------------------------------

Group = Literal["admin_users", "all_users"]
Kind = Literal["info", "success", "warning", "error"]


@dataclass(frozen=True, slots=True)
class TrackActivity:
    """Record an activity; ``fields`` have the names of ``ActivityIn``."""

    fields: Named
    place: Place


@dataclass(frozen=True, slots=True)
class SendNotification:
    """Send a notification. ``to`` is a group or an expression of one user id or a list of them; ``fields`` have the
    names of ``SendIn``, without the recipients; ``kind`` is the look of the notification."""

    to: Expression | Group
    fields: Named
    place: Place
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class SendScheduled:
    """The documented SQL that sends scheduled notifications. FlashFlow sends them by itself: there is nothing to do."""

    place: Place


@dataclass(frozen=True, slots=True)
class ForEach:
    """Run actions once for each row of a data source; ``variable`` names the row in expressions."""

    variable: str
    data: DataSource
    actions: tuple[Action, ...]
    place: Place


Action = TrackActivity | SendNotification | SendScheduled | ForEach

# --- pages ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DataSource:
    """Named data source with its arguments (data_sources.py has the table of them). ``model`` is set for the rows of a
    model."""

    name: str
    arguments: Named
    place: Place
    model: str | None = None


@dataclass(frozen=True, slots=True)
class TextElement:
    """Heading or text; ``style`` is CSS as the file has it."""

    kind: Literal["h1", "h2", "h3", "h4", "h5", "h6", "text", "p"]
    text: Expression
    place: Place
    style: str | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """Element with children; ``title`` is the heading of a section."""

    kind: Literal["row", "column", "div", "header", "section"]
    title: str | None
    children: tuple[Element, ...]
    place: Place
    style: str | None = None


@dataclass(frozen=True, slots=True)
class Bell:
    """``notification_bell`` of a user."""

    user_id: Expression
    position: Literal["left", "center", "right"]
    place: Place


@dataclass(frozen=True, slots=True)
class SettingsPanel:
    """``notification_settings`` of a user."""

    user_id: Expression
    place: Place


@dataclass(frozen=True, slots=True)
class Sort:
    """Order of a table's rows."""

    column: str
    descending: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Table over a data source; ``refresh_s`` is None without ``refresh``."""

    name: str
    columns: tuple[str, ...]
    data: DataSource
    place: Place
    title: str | None = None
    refresh_s: int | None = None
    sort: Sort | None = None
    on_row_click: tuple[Action, ...] = ()
    places: Places = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Chart:
    """Chart over a data source. ``x`` and ``y`` are the columns drawn: labels, and numbers."""

    name: str
    type: Literal["line", "bar", "area"]
    data: DataSource
    x: str
    y: tuple[str, ...]
    place: Place
    title: str | None = None
    refresh_s: int | None = None
    places: Places = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Form:
    """Form over fields of a model; submitting it saves a row (``new_<model>``), then runs the actions."""

    name: str
    fields: tuple[str, ...]
    model: str
    place: Place
    title: str | None = None
    on_submit: tuple[Action, ...] = ()
    places: Places = field(default=(), repr=False, compare=False)


Element = TextElement | Container | Bell | SettingsPanel | Table | Chart | Form


@dataclass(frozen=True, slots=True)
class Page:
    """Screen of the app. ``auth``: None, any user; ``admin``, the owner of FlashFlow."""

    name: str
    title: str
    route: str
    auth: Literal["admin"] | None
    elements: tuple[Element, ...]
    place: Place


# --- API, jobs, notifications -----------------------------------------------------------------------------------------

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class Alias:
    """Built-in route that answers an endpoint. ``renamed``: fields and parameters of the endpoint by their name in the
    built-in route."""

    method: Method
    path: str
    renamed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """API endpoint. ``alias_of`` is None where it equals a built-in route."""

    name: str
    path: str
    method: Method
    place: Place
    description: str = ""
    request: tuple[Field, ...] = ()
    query_params: tuple[Field, ...] = ()
    path_params: tuple[Field, ...] = ()
    response: tuple[Field, ...] = ()
    auth: Literal["required", "admin"] = "required"
    alias_of: Alias | None = None
    places: Places = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Job:
    """Actions on a schedule, from ``job`` or ``every``."""

    name: str
    schedule: Schedule
    description: str
    actions: tuple[Action, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class NotificationType:
    """Notification type; ``request`` is the body of ``POST /api/notification-types``."""

    request: TypeIn
    place: Place

    @property
    def name(self) -> str:
        return self.request.name


@dataclass(frozen=True, slots=True)
class Template:
    """Template; ``request`` is the body of ``POST /api/templates``."""

    request: TemplateIn
    place: Place

    @property
    def name(self) -> str:
        return self.request.name


@dataclass(frozen=True, slots=True)
class Rule:
    """Rule over activities, in the parts of a ``RuleIn``; ``to`` may also be a group."""

    name: str
    on: OnIn
    send: RuleMessageIn
    to: Literal["user"] | Group | tuple[str, ...]
    cooldown_minutes: int
    place: Place
    kind: Kind | None = None


Declaration = Model | Page | Endpoint | Job | NotificationType | Template | Rule


@dataclass(frozen=True, slots=True)
class Project:
    """All declarations of one load, in the order of the files. ``files`` are the paths read."""

    files: tuple[str, ...] = ()
    models: tuple[Model, ...] = ()
    pages: tuple[Page, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    jobs: tuple[Job, ...] = ()
    notification_types: tuple[NotificationType, ...] = ()
    templates: tuple[Template, ...] = ()
    rules: tuple[Rule, ...] = ()

    def model(self, name: str) -> Model | None:
        """Return the model with that name."""
        return next((model for model in self.models if model.name == name), None)
