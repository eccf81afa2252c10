"""Vocabulary of ``.flow`` files: constructs, entries, field types, modifiers; for checks and docs/flow.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from flashflow.backend.schemas.records import CHANNELS, Priority

KINDS = ("info", "success", "warning", "error")
PRIORITIES = get_args(Priority)
GROUPS = ("admin_users", "all_users")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
TEXT_ELEMENTS = ("h1", "h2", "h3", "h4", "h5", "h6", "text", "p")
CONTAINERS = ("header", "section", "row", "column", "div")

FIELD_TYPES = {
    "integer": "whole number",
    "decimal": "number",
    "boolean": "`true` or `false`",
    "string": "text of one line",
    "text": "text of several lines",
    "timestamp": "time with an offset",
    "datetime": "the same as `timestamp`",
    "date": "day, such as 2026-12-24",
    "time": "time of day, such as 18:30",
    "email": "e-mail address",
    "url": "http or https address",
    "uuid": "UUID",
    "json": "any JSON value",
    "object": "JSON object",
    "array": "JSON list",
    "reference": "id of a row of another model: `reference Product`",
}

MODIFIERS = {
    "required": "must be given",
    "unique": "no two rows have the same value",
    "primary": "identifies the row; filled in by FlashFlow. Also written `primary_key`",
    "auto": "filled in: the time, a new id, for a primary field the next number. Also written `auto_increment`",
    "references": "`references User.id`: a value of another model's field",
    "enum": "`enum:a,b,c`: one of these words, written without spaces",
    "default": '`default:5`, `default:"a text"`: the value where none is given',
}
SAME_MODIFIERS = {"primary_key": "primary", "auto_increment": "auto"}


@dataclass(frozen=True, slots=True)
class Rule:
    """Entry of a construct: the form of its value, and its meaning."""

    name: str
    form: str
    text: str
    required: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Construct:
    """Declaration, element, action or statement: an example of its first line, and its entries."""

    name: str
    form: str
    text: str
    entries: tuple[Rule, ...] = ()

    def entry(self, name: str) -> Rule | None:
        """Return the rule of an entry; None for an unknown one."""
        return next((rule for rule in self.entries if rule.name == name), None)


_DESCRIPTION = Rule("description", '"text"', "for people who read the file")
_ACTIONS = (
    Rule("track_activity", "{ … }", "action, see below", repeated=True),
    Rule("send_notification", "{ … }", "action, see below", repeated=True),
)
_TITLE = Rule("title", '"text"', "heading")
_DATA = Rule("data", "source, `source {argument: value}`", "data source, see below", required=True)
_REFRESH = Rule("refresh", "1 to 86400", "seconds between two readings of the data")

_DECLARATIONS = (
    Construct("model", "model Product { … }", "Kind of object. Each entry is a field: `name: type modifier…`."),
    Construct(
        "page", "page Dashboard { … }", "Screen of the app, with elements.",
        (
            Rule("title", '"text"', "title in the navigation; by default the name"),
            Rule("route", '"/path"', "address of the page; by default from the name"),
            Rule("path", '"/path"', "the same as `route`"),
            Rule("auth", "admin, required", "`admin`: only for the owner; by default for every user"),
        ),
    ),
    Construct(
        "endpoint", "endpoint Track { … }", "Route of the API: a built-in one, or another path for one.",
        (
            Rule("path", '"/api/…"', "path, with parameters in braces: `{id}`", required=True),
            Rule("method", ", ".join(METHODS), "by default GET"),
            _DESCRIPTION,
            Rule("request", "{ field: type … }", "fields of the body"),
            Rule("query_params", "{ field: type … }", "parameters after the “?”"),
            Rule("path_params", "{ field: type … }", "parameters of the path"),
            Rule("response", "{ field: type … }", "fields of the answer"),
            Rule("auth", "required, admin", "each route needs a key; `admin`: one with the scope admin"),
            Rule("alias", '"METHOD /api/…"', "built-in route that answers"),
        ),
    ),
    Construct(
        "job", "job Report { … }", "Actions on a schedule.",
        (
            Rule("schedule", '"* * * * *", word', "five cron fields (minute hour day month weekday), or a word"),
            Rule("every", "5 minutes, 1 hour, 2 days", "instead of `schedule`: an interval"),
            _DESCRIPTION,
            Rule("task", "{ action… }", "actions and loops", required=True),
        ),
    ),
    Construct(
        "every", 'every 5 minutes { … }, every monday at "09:00" { … }', "Job in short: actions and loops.",
        (Rule("name", "word", "name of the job; by default the words before the block"), _DESCRIPTION, *_ACTIONS),
    ),
    Construct(
        "notification_type", 'notification_type orders { … }, notification_type "order news" { … }',
        "Notification type, as in `POST /api/notification-types`.",
        (
            Rule("label", '"text"', "name on the settings screen"),
            Rule("description", '"text"', "text on the settings screen"),
            Rule("channels", "[channel, …]", "default channels; by default `[in_app]`"),
            Rule("critical", "true, false", "ignores quiet hours and preferences"),
            Rule("category", '"text"', "group on the settings screen"),
            Rule("digest", "hourly, daily", "bundles notifications"),
            Rule("digest_at", '"HH:MM"', "time of a daily digest"),
            Rule("throttle", "{limit: 3, minutes: 60}", "at most so many to one user"),
            Rule("failover", "[{channel: email, after_minutes: 10}, …]", "channels used while it stays unread"),
        ),
    ),
    Construct(
        "template", "template welcome { … }", "Template, as in `POST /api/templates`. Variables: `{name}`.",
        (
            Rule("title", '"text"', "title, with variables", required=True),
            Rule("message", '"text"', "message, with variables", required=True),
            Rule("channels", "[channel, …]", "default channels"),
            Rule("category", '"text"', "group of templates"),
            Rule("locale", '"de"', "language of this text"),
            Rule("data_schema", "{ … }", "JSON Schema of the data"),
        ),
    ),
    Construct(
        "on", 'on activity "checkout_failed" { … }', "Rule: send a notification when activities match (docs/rules.md).",
        (
            Rule("name", "word", "name of the rule; by default from the activity type"),
            Rule("where", "field == value", "condition; several must all hold", repeated=True),
            Rule("count", "1 to 1000", "activities of one user; by default 1"),
            Rule("within", "10 minutes", "time for `count` activities, up to 1 week"),
            Rule("cooldown", "1 hour, 0", "shortest time between two notifications to one user; by default 1 hour"),
            Rule("send_notification", "{ … }", "action, see below", required=True),
        ),
    ),
)  # fmt: skip

_ELEMENTS = (
    *(Construct(name, f'{name} "text"', "Heading.") for name in TEXT_ELEMENTS[:6]),
    Construct("text", 'text "Hello " + current_user.name', "Text."),
    Construct("p", 'p "text"', "Paragraph."),
    Construct("header", "header { … }", "Head of a page."),
    Construct("section", 'section "title" { … }', "Part of a page with a heading."),
    Construct("row", "row { … }", "Elements side by side."),
    Construct("column", "column { … }", "Elements below each other."),
    Construct("div", 'div class="name" { … }', "Elements below each other."),
    Construct(
        "notification_bell", "notification_bell { … }", "Bell with the number of unread notifications.",
        (
            Rule("user_id", "expression", "by default `current_user.id`"),
            Rule("position", "left, center, right", "by default right"),
        ),
    ),
    Construct(
        "notification_settings", "notification_settings { … }", "Preferences of a user.",
        (Rule("user_id", "expression", "by default `current_user.id`"),),
    ),
    Construct(
        "table", "table products { … }", "Table over a data source.",
        (
            _TITLE,
            Rule("columns", "[name, …]", "by default all columns of the source"),
            _DATA, _REFRESH,
            Rule("sort", "column, column desc", "order of the rows"),
            Rule("on_row_click", "{ action… }", "actions; the row is `row`, and of a model `product`"),
        ),
    ),
    Construct(
        "chart", "chart sales { … }", "Chart over a data source.",
        (
            _TITLE,
            Rule("type", "line, bar, area", "by default line"),
            _DATA, _REFRESH,
            Rule("x", "column", "labels; by default the first column"),
            Rule("y", "column, [column, …]", "numbers; by default those of one unit"),
        ),
    ),
    Construct(
        "form", "form add_product { … }", "Form that saves a row of a model.",
        (
            _TITLE,
            Rule("fields", "[name, …]", "by default all fields that FlashFlow does not fill in"),
            Rule("model", "name", "model of the row", required=True),
            Rule("on_submit", "{ action… }", "actions; the saved row is `new_product`"),
        ),
    ),
)  # fmt: skip

_RECIPIENT = (
    Rule("to", "expression, [id, …], admin_users, all_users", "recipients", required=True),
    Rule("user_id", "the same", "the same as `to`"),
)
_ACTION_TABLE = (
    Construct(
        "track_activity",
        "track_activity: { … }",
        "Record an activity, as `POST /api/activity/track` does.",
        (
            Rule("user_id", "expression", "user", required=True),
            Rule("activity_type", "expression", "type", required=True),
            Rule("page_url", "expression", "page"),
            Rule("metadata", "{key: value, …}", "further values"),
            Rule("session_id", "expression", "session"),
            Rule("referrer", "expression", "page before"),
            Rule("timestamp", "expression", "time with an offset; by default now"),
            Rule("activity_id", "expression", "id of your own: the same id is recorded once"),
        ),
    ),
    Construct(
        "send_notification",
        "send_notification: { … }",
        "Send a notification, as `POST /api/notifications/send` does.",
        (
            *_RECIPIENT,
            Rule("title", "expression", "title; required without `template`"),
            Rule("message", "expression", "message; required without `template`"),
            Rule("template", "name", "template, instead of title and message"),
            Rule("locale", "expression", "language of the template"),
            Rule("type", f"{', '.join(KINDS)}, notification type", "look, or the same as `notification_type`"),
            Rule("notification_type", "name", "notification type; by default `general`"),
            Rule("channel", "channel", f"{', '.join(CHANNELS)}, or one of your own; by default that of the type"),
            Rule("channels", "[channel, …]", "several channels"),
            Rule("priority", ", ".join(PRIORITIES), "by default normal"),
            Rule("data", "{key: value, …}", "values for the template and for programs"),
            Rule("scheduled_at", "expression", "time to send, with an offset"),
            Rule("expires_at", "expression", "time after which it is not sent"),
            Rule("collapse_key", "expression", "replaces the unread notification with this key"),
            Rule("actions", "[{label: …, url: …}, …]", "up to three buttons"),
        ),
    ),
)

RULE_FIELDS = (
    "to", "user_id", "title", "message", "template", "locale", "type", "notification_type", "channel", "channels",
    "priority", "data", "collapse_key", "actions",
)  # fmt: skip
"""Entries of ``send_notification`` in a rule."""

_LOOP = Construct("for", "for row in SOURCE { … }", "Actions for each row of a data source, in a job.")

CONSTRUCTS = {construct.name: construct for construct in (*_DECLARATIONS, *_ELEMENTS, *_ACTION_TABLE, _LOOP)}
DECLARATIONS = tuple(construct.name for construct in _DECLARATIONS)
ELEMENTS = tuple(construct.name for construct in _ELEMENTS)
ACTIONS = tuple(construct.name for construct in _ACTION_TABLE)

OTHER_WORDS = {
    "automl": "FlashFlow has no machine learning; remove this declaration.",
    "federated": "FlashFlow has no machine learning; remove this declaration.",
    "serving": "FlashFlow has no machine learning; remove this declaration.",
    "service": 'A path is answered by a built-in route: `alias: "POST /api/…"`.',
    "countdown_timer": "For a reminder write `every 1 hour { send_notification: { … } }`.",
    "timer_manager": "For a reminder write `every 1 hour { send_notification: { … } }`.",
    "on_notification_click": "The bell opens the link of a notification by itself; remove this entry.",
    "on_mark_as_read": "The bell marks notifications as read by itself; remove this entry.",
    "on_preference_change": "The panel saves preferences by itself; remove this entry.",
    "list": "Write `table name { data: all_products }`.",
    "button": "Write a form, or `on_row_click` in a table.",
    "image": "Pages have texts, tables, charts and forms; remove this element.",
    "input": "Name the fields of a form: `fields: [name, price]`.",
    "body": "Write the elements directly into the page.",
    "given": "Test files are not read; move tests to a test of your program.",
    "when": "Test files are not read; move tests to a test of your program.",
    "then": "Test files are not read; move tests to a test of your program.",
    "theme": "FlashFlow follows the theme of the system; remove this declaration.",
}
"""Words of other dialects, and the way out."""

OTHER_FILES = {
    ".liveflow": "Move its pages into a .flow file; tables and charts update by `refresh`.",
    ".jobflow": "Move its jobs into a .flow file.",
    ".testflow": "Test files are not read; `flashflow check` checks .flow files.",
}
"""Related kinds of files, and the way out."""
