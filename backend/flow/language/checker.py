"""Checks between declarations: names, references, data sources, columns, the names in expressions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from flashflow.backend.core.errors import ValidationError
from flashflow.backend.flow.language.data_sources import SOURCES, Arguments, Source, Unit, check_arguments, columns_of
from flashflow.backend.flow.language.declarations import (
    Action,
    Chart,
    Container,
    DataSource,
    Declaration,
    Element,
    Endpoint,
    Expression,
    ForEach,
    Form,
    Job,
    Join,
    ListValue,
    MapValue,
    Model,
    Name,
    NotificationType,
    Page,
    Project,
    Rule,
    SendNotification,
    SendScheduled,
    Table,
    Template,
    TextElement,
    TrackActivity,
)
from flashflow.backend.flow.language.errors import FlowError, Place
from flashflow.backend.flow.language.read_actions import is_constant
from flashflow.backend.flow.language.read_endpoints import Route, resolve
from flashflow.backend.flow.language.reader import as_plain, worded
from flashflow.backend.flow.language.vocabulary import GROUPS
from flashflow.backend.schemas.validation import convert, nearest

MOST_ELEMENTS = 500
"""Elements of one page."""

Columns = Mapping[str, bool]
"""Names of a value's parts; true: it may have parts of its own."""
Scope = Mapping[str, Columns]
"""Names that an expression may use, with their parts; without parts for a plain value."""
Routes = Callable[[], Sequence[Route]]
D = TypeVar("D", bound=Declaration)
USER_MODEL = "User"
"""Model whose fields ``current_user`` has too."""
_USER: Columns = {"id": False, "name": False, "role": False}
_PAGE_NAMES = frozenset({"current_user", "now", "row"})
"""Names on every page; in the actions of a row its model's name stands beside them."""
_DEEP_TYPES = frozenset({"json", "object"})


def check(
    files: Sequence[str], declarations: Sequence[Declaration], routes: Routes | None, *, complete: bool = True
) -> tuple[Project, list[FlowError]]:
    """Return the project of all declarations, completed, and the errors between them. ``routes`` returns the built-in
    routes of the API; without it endpoints are not compared. Unless ``complete``, declarations with errors were left
    out, and a reference to a missing model is no further error."""
    return _Checker(files, declarations, routes, complete).run()


class _Checker:
    def __init__(
        self, files: Sequence[str], declarations: Sequence[Declaration], routes: Routes | None, complete: bool
    ) -> None:
        self._files = files
        self._declarations = declarations
        self._routes = routes
        self._complete = complete
        self._errors: list[FlowError] = []
        self._models: dict[str, Model] = {}
        self._admin = False
        """Whether the page or job being checked may read data of all users."""

    def run(self) -> tuple[Project, list[FlowError]]:
        models = self._unique(Model, lambda one: one.name, "model")
        self._models = {model.name: model for model in models}
        self._distinct(models, lambda one: one.plural, "model", lambda one: f"data source “all_{one.plural}”")
        for model in models:
            self._references(model)
            if model.singular in _PAGE_NAMES:
                self._fail(model.place, f"a row of {model.name} would hide “{model.singular}”", "Rename the model.")
        pages = [self._page(page) for page in self._unique(Page, lambda one: one.name, "page")]
        self._distinct(pages, lambda one: one.route, "page", lambda one: f"route “{one.route}”")
        endpoints = self._unique(Endpoint, lambda one: one.name, "endpoint")
        self._distinct(endpoints, _path_key, "endpoint", lambda one: f"{one.method} {one.path}")
        jobs = self._unique(Job, lambda one: one.name, "job")
        self._admin = True
        jobs = [replace(job, actions=self._actions(job.actions, {"now": {}}, in_job=True)) for job in jobs]
        project = Project(
            files=tuple(self._files), models=tuple(models), pages=tuple(pages),
            endpoints=tuple(self._endpoints(endpoints)), jobs=tuple(jobs),
            notification_types=tuple(self._unique(NotificationType, lambda one: one.name, "notification type")),
            templates=tuple(self._unique(Template, lambda one: (one.name, one.request.locale), "template")),
            rules=tuple(self._unique(Rule, lambda one: one.name, "rule")),
        )  # fmt: skip
        return project, self._errors

    def _fail(self, place: Place, message: str, hint: str) -> None:
        self._errors.append(FlowError(place, message, hint))

    def _unknown(self, place: Place, message: str, name: str, known: Iterable[str], listed: str) -> None:
        """Add the error of an unknown name, with the nearest known one."""
        names = tuple(known)
        near = nearest(name, names)
        hint = f"Did you mean “{near}”?" if near else f"{listed} {', '.join(names)}." if names else "There are none."
        self._fail(place, message, hint)

    # --- names ----------------------------------------------------------------------------------------------------

    def _unique(self, kind: type[D], key: Callable[[D], Hashable], noun: str) -> list[D]:
        """Return the declarations of a kind; the same name twice is an error."""
        found = [one for one in self._declarations if isinstance(one, kind)]
        return self._distinct(found, key, noun, lambda one: f"{noun} “{_name_of(one)}”")

    def _distinct(
        self, found: Sequence[D], key: Callable[[D], Hashable], noun: str, shown: Callable[[D], str]
    ) -> list[D]:
        first: dict[Hashable, D] = {}
        for one in found:
            known = first.setdefault(key(one), one)
            if known is not one:
                way = "give one of them a `name:`" if isinstance(one, Rule | Job) else "rename or remove one of them"
                hint = f"{way[0].upper()}{way[1:]}."
                self._fail(one.place, f"{shown(one)} is declared in {known.place} already", hint)
        return list(first.values())

    def _references(self, model: Model) -> None:
        for field in model.fields:
            if field.references is None:
                continue
            target = self._models.get(field.references.model)
            if target is None:
                self._no_model(field.place, field.references.model)
            elif field.references.field != "id" and target.field(field.references.field) is None:
                message = f"model {target.name} has no field “{field.references.field}”"
                self._unknown(field.place, message, field.references.field, _parts(target), "It has")

    def _no_model(self, place: Place, name: str) -> None:
        if self._complete:
            self._unknown(place, f"there is no model “{name}”", name, self._models, "Models are")

    def _endpoints(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        if self._routes is None or not endpoints:
            return list(endpoints)
        routes = self._routes()
        return [resolve(endpoint, routes, self._errors) for endpoint in endpoints]

    # --- pages ----------------------------------------------------------------------------------------------------

    def _page(self, page: Page) -> Page:
        count = _count(page.elements)
        if count > MOST_ELEMENTS:
            hint = f"A page has at most {MOST_ELEMENTS}; split it into several."
            self._fail(page.place, f"this page has {count} elements", hint)
            return page
        self._admin = page.auth == "admin"
        return replace(page, elements=self._elements(page.elements, {}))

    def _elements(self, elements: tuple[Element, ...], names: dict[str, Place]) -> tuple[Element, ...]:
        return tuple(self._element(element, names) for element in elements)

    def _element(self, element: Element, names: dict[str, Place]) -> Element:
        user = self._models.get(USER_MODEL)
        scope: Scope = {"current_user": {**({} if user is None else _parts(user)), **_USER}, "now": {}}
        if isinstance(element, Table | Chart | Form):
            known = names.setdefault(element.name, element.place)
            if known is not element.place:
                message = f"“{element.name}” is declared in line {known.line} of this page already"
                self._fail(element.place, message, "Give each table, chart and form a name of its own.")
        match element:
            case TextElement(text=text):
                self._expression(text, scope)
            case Container(children=children):
                return replace(element, children=self._elements(children, names))
            case Table():
                return self._table(element, scope)
            case Chart():
                return self._chart(element, scope)
            case Form():
                return self._form(element, scope)
            case _:
                self._expression(element.user_id, scope)
        return element

    def _table(self, table: Table, scope: Scope) -> Table:
        data, columns = self._source(table.data, scope)
        if columns is None:
            return table
        for column in table.columns:
            if column not in columns:
                self._no_column(table, data, column, columns)
        shown = table.columns or tuple(columns)
        if table.sort is not None and table.sort.column not in columns:
            self._no_column(table, data, table.sort.column, columns)
        actions = self._actions(table.on_row_click, {**scope, **self._row_scope(data)}, in_job=False)
        return replace(table, data=data, columns=shown, on_row_click=actions)

    def _chart(self, chart: Chart, scope: Scope) -> Chart:
        data, columns = self._source(chart.data, scope)
        if columns is None:
            return chart
        for column in (*([chart.x] if chart.x else []), *chart.y):
            if column not in columns:
                self._no_column(chart, data, column, columns)
        x = chart.x or next(iter(columns))
        numbers = [name for name, unit in columns.items() if unit in {"number", "share", "seconds"} and name != x]
        for column in chart.y:
            if column in columns and column not in numbers:
                place = _place_in(chart, column)
                self._unknown(place, f"column “{column}” has no numbers", "", numbers, "Numbers are in")
        if not numbers:
            self._fail(chart.place, f"{data.name} has no numbers to draw", "Show it in a table.")
            return chart
        y = chart.y or tuple(name for name in numbers if columns[name] == columns[numbers[0]])
        return replace(chart, data=data, x=x, y=y)

    def _no_column(self, element: Table | Chart, data: DataSource, column: str, columns: Iterable[str]) -> None:
        message = f"{data.name} has no column “{column}”"
        self._unknown(_place_in(element, column), message, column, columns, "It has")

    def _form(self, form: Form, scope: Scope) -> Form:
        model = self._models.get(form.model)
        if model is None:
            self._no_model(_place_in(form, form.model), form.model)
            return form
        own = tuple(field.name for field in model.fields if not field.primary and not field.auto)
        for name in form.fields:
            field = model.field(name)
            if field is None:
                message = f"model {model.name} has no field “{name}”"
                self._unknown(_place_in(form, name), message, name, own, "It has")
            elif name not in own:
                self._fail(_place_in(form, name), f"FlashFlow fills in “{name}” by itself", "Remove it from `fields`.")
        shown = form.fields or own
        for field in model.fields:
            if field.required and field.default is None and field.name in own and field.name not in shown:
                hint = "Add it to `fields`, or give it a default in the model."
                self._fail(form.place, f"the form lacks “{field.name}”, which the model requires", hint)
        actions = self._actions(form.on_submit, {**scope, f"new_{model.singular}": _parts(model)}, in_job=False)
        return replace(form, fields=shown, on_submit=actions)

    # --- data sources ---------------------------------------------------------------------------------------------

    def _source(
        self, data: DataSource, scope: Scope, *, in_job: bool = False
    ) -> tuple[DataSource, dict[str, Unit] | None]:
        """Return the data source with its model, and its columns; None for an unknown one, which is an error."""
        source = SOURCES.get(data.name)
        model = self._model_of(data.name)
        if model is not None:
            source = Source(data.name, "", columns_of(model), ("limit",))
            data = replace(data, model=model.name)
        if source is None:
            known = (*SOURCES, *(f"all_{model.plural}" for model in self._models.values()))
            rows = data.name.startswith("all_")
            message = f"there is no data source “{data.name}”{': no model has these rows' if rows else ''}"
            if rows and self._complete and not self._models:
                self._fail(data.place, message, "Declare the model: `model Product { name: string }`.")
            elif self._complete or not rows:
                self._unknown(data.place, message, data.name, known, "Sources are")
            return data, None
        self._arguments(data, source, scope)
        if not self._admin and model is None:
            self._own_data(data, source)
        if in_job and source.scope == "user" and "user_id" not in dict(data.arguments):
            hint = f'Name the user: `{data.name} {{user_id: "…"}}`.'
            self._fail(data.place, f"a job has no current user for {data.name}", hint)
        return data, dict(source.columns)

    def _own_data(self, data: DataSource, source: Source) -> None:
        """Check that a page for every user has data of the current user only."""
        user = dict(data.arguments).get("user_id")
        other = user is not None and not (isinstance(user, Name) and user.parts == ("current_user", "id"))
        if source.scope == "all" or other:
            hint = "Add `auth: admin` to the page, or show recent_user_activities or user_activity_trends."
            self._fail(data.place, f"{data.name} has data of other users, and this page is for every user", hint)

    def _model_of(self, name: str) -> Model | None:
        return next((model for model in self._models.values() if name == f"all_{model.plural}"), None)

    def _arguments(self, data: DataSource, source: Source, scope: Scope) -> None:
        constants = {}
        for name, value in data.arguments:
            if name not in source.arguments:
                message = f"{data.name} has no argument “{name}”"
                self._unknown(value.place, message, name, source.arguments, "It has")
            elif is_constant(value):
                constants[name] = as_plain(value)
            else:
                self._expression(value, scope)
        if "steps" in source.arguments and "steps" not in dict(data.arguments):
            self._fail(data.place, f"{data.name} needs “steps”", "Write `funnel {steps: [signup, first_order]}`.")
        try:
            check_arguments(convert(constants, Arguments))
        except ValidationError as refusal:
            for field, message in refusal.errors:
                place = dict(data.arguments)[field.partition(".")[0]].place
                self._fail(place, f"“{field}” {worded(message)}", "See the arguments of data sources in docs/flow.md.")

    def _row_scope(self, data: DataSource) -> dict[str, Columns]:
        """Return the names of a row of ``data``."""
        model = self._models.get(data.model or "")
        if model is not None:
            return {"row": _parts(model), model.singular: _parts(model)}
        source = SOURCES.get(data.name)
        columns = {} if source is None else {name: False for name, _ in source.columns}
        return {"row": columns}

    # --- actions and expressions ----------------------------------------------------------------------------------

    def _actions(self, actions: Sequence[Action], scope: Scope, *, in_job: bool) -> tuple[Action, ...]:
        """Check actions; return them with the models of their data sources."""
        return tuple(self._action(action, scope, in_job) for action in actions)

    def _action(self, action: Action, scope: Scope, in_job: bool) -> Action:
        match action:
            case TrackActivity(fields=fields):
                self._fields(fields, scope)
            case SendNotification(to=to, fields=fields):
                self._fields(fields, scope)
                if not isinstance(to, str):
                    self._expression(to, scope)
            case ForEach(variable=variable, data=data, actions=inner):
                data, columns = self._source(data, scope, in_job=in_job)
                if variable in scope:
                    self._fail(action.place, f"“{variable}” has a value already", "Use another name.")
                if columns is not None:
                    inner = self._actions(inner, {**scope, variable: self._row_scope(data)["row"]}, in_job=in_job)
                return replace(action, data=data, actions=inner)
            case SendScheduled():
                pass
        return action

    def _fields(self, fields: Iterable[tuple[str, Expression]], scope: Scope) -> None:
        for _, value in fields:
            self._expression(value, scope)

    def _expression(self, expression: Expression, scope: Scope) -> None:
        match expression:
            case Name():
                self._name(expression, scope)
            case Join(parts=parts) | ListValue(items=parts):
                for part in parts:
                    self._expression(part, scope)
            case MapValue(entries=entries):
                self._fields(entries, scope)

    def _name(self, name: Name, scope: Scope) -> None:
        first, *rest = name.parts
        columns = scope.get(first)
        if columns is None:
            message = f"there is no “{first}” here"
            if first in GROUPS:
                self._fail(name.place, f"“{first}” is a recipient only", f"Write `to: {first}`.")
            elif first == "current_user":
                self._fail(name.place, "a job has no current user", "Write a user id, or loop over a data source.")
            elif rest:
                self._unknown(name.place, message, first, scope, "Names are")
            else:
                self._fail(
                    name.place, message, f'Put a text in double quotes: "{first}". Names are {", ".join(scope)}.'
                )
        elif rest and rest[0] not in columns:
            self._unknown(name.place, f"“{first}” has no “{rest[0]}”", rest[0], columns, "It has")
        elif len(rest) > 1 and not columns[rest[0]]:
            self._fail(name.place, f"“{first}.{rest[0]}” has no parts", f"Write `{first}.{rest[0]}`.")


def _place_in(element: Table | Chart | Form, name: str) -> Place:
    """Return the place of a name in an element."""
    return dict(element.places).get(name, element.place)


def _name_of(declaration: Declaration) -> str:
    return declaration.name


def _path_key(endpoint: Endpoint) -> tuple[str, str]:
    path = endpoint.path
    for field in endpoint.path_params:
        path = path.replace(f"{{{field.name}}}", "{}")
    return endpoint.method, path


def _parts(model: Model) -> Columns:
    """Return the parts of a row of a model."""
    deep = {field.name for field in model.fields if field.type in _DEEP_TYPES}
    return {name: name in deep for name, _ in columns_of(model)}


def _count(elements: Iterable[Element]) -> int:
    return sum(1 + (_count(one.children) if isinstance(one, Container) else 0) for one in elements)
