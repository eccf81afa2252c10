"""Forms over the channel tables of ``flashflow.toml``: field definitions, input to settings values. No Flet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

SET = "set"
"""Placeholder that the settings show for a stored secret."""
HIDDEN_DEFAULTS: Mapping[str, object] = {
    "connections": 4,
    "rate_per_second": None,
    "connect_timeout": 30.0,
    "greeting_timeout": 300.0,
    "command_timeout": 300.0,
    "data_timeout": 180.0,
    "answer_timeout": 600.0,
}
"""Settings without a form field; a value equal to the default is not written to the file."""
NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""Valid name of a custom channel, here and in a ``send``."""
_KEYRING = re.compile(r"\$\{keyring:[^}]*\}")


class FieldSpec(NamedTuple):
    """One setting. ``default`` applies when the file has no value; a secret is never shown."""

    name: str
    label: str
    helper: str = ""
    secret: bool = False
    number: bool = False
    default: str = ""
    choices: tuple[tuple[str, str, str], ...] = ()
    """Value, label and description of each option."""
    goes_with: str = ""
    """The field that this one depends on: emptying that one empties this one."""


class TableSpec(NamedTuple):
    """One table of the file with the introduction of its form."""

    place: str
    introduction: str
    fields: tuple[FieldSpec, ...]


SECURITIES = (
    ("starttls", "STARTTLS", "The usual choice, on port 587"),
    ("tls", "TLS", "Encrypted from the first byte, on port 465"),
    ("none", "None", "Not encrypted, only for a server on this machine; port 25"),
)

TABLES: Mapping[str, TableSpec] = {
    "email": TableSpec(
        "channels.email",
        "The outgoing mail server that sends your notifications, as in a mail program's settings.",
        (
            FieldSpec("host", "Mail server", "For example smtp.example.org"),
            FieldSpec("port", "Port", "Empty: the default port for the chosen security", number=True),
            FieldSpec("security", "Security", default="starttls", choices=SECURITIES),
            FieldSpec("username", "User name", "Empty if the server requires none"),
            FieldSpec("password", "Password", secret=True, goes_with="username"),
            FieldSpec("from", "Sender", "For example FlashFlow <me@example.org>"),
            FieldSpec("reply_to", "Replies go to", "Address for replies; empty: the sender's address"),
        ),
    ),
    "sms": TableSpec(
        "channels.sms",
        "Twilio or a service with a compatible API. Your provider charges for each message.",
        (
            FieldSpec("account_sid", "Account SID"),
            FieldSpec("auth_token", "Auth token", secret=True),
            FieldSpec("from", "Sender", "A number like +49 30 1234567, or a messaging service SID"),
            FieldSpec("base_url", "Service address", default="https://api.twilio.com"),
        ),
    ),
    "fcm": TableSpec(
        "channels.push.fcm",
        "Firebase Cloud Messaging delivers to Android devices (and, without APNs, to iPhones) that run your own apps.",
        (
            FieldSpec("credentials", "Service account", "Path of the JSON file, or the JSON itself", secret=True),
            FieldSpec("base_url", "Service address", default="https://fcm.googleapis.com"),
        ),
    ),
    "apns": TableSpec(
        "channels.push.apns",
        "Apple's push service delivers to iPhones and iPads that run your app, with a key of your developer account.",
        (
            FieldSpec("key_file", "Key file", "Path of the .p8 file"),
            FieldSpec("key_id", "Key ID"),
            FieldSpec("team_id", "Team ID"),
            FieldSpec("topic", "Topic", "The app's bundle ID"),
            FieldSpec("base_url", "Service address", default="https://api.push.apple.com"),
        ),
    ),
    "webpush": TableSpec(
        "channels.push.webpush",
        "Delivers to browsers that subscribed. FlashFlow generates the keys at first use.",
        (FieldSpec("subject", "Your contact for push services", "For example mailto:me@example.org"),),
    ),
}


def other_table(name: str) -> TableSpec:
    """Return the table of a custom channel."""
    text = "Any service that Apprise supports, by its URL: ntfy, Slack, Telegram, Matrix and a hundred more."
    url = FieldSpec("url", "Apprise URL", "For example ntfy://my-topic or slack://token/channel", secret=True)
    return TableSpec(f"channels.{name}", text, (url,))


def stored_at(tables: Mapping[str, Any], place: str) -> Mapping[str, Any] | None:
    """Return the settings at the dotted path ``place``; None if there are none."""
    found: Any = tables
    for name in place.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def shown_in(spec: FieldSpec, stored: Mapping[str, Any] | None) -> str:
    """Return the initial value of a field."""
    if spec.secret:
        return ""
    value = None if stored is None else stored.get(spec.name)
    return spec.default if value is None else str(value)


def secret_hint(spec: FieldSpec, stored: Mapping[str, Any] | None) -> str:
    """Return the helper text of a secret field, which tells where a stored secret comes from."""
    value = None if stored is None else stored.get(spec.name)
    if value is None:
        return spec.helper
    if value == SET or _KEYRING.fullmatch(str(value)):
        where = " in this computer's keyring" if value != SET else ""
        return f"Stored{where}. Leave empty to keep it."
    return f"Read from {value}. Leave empty to keep it."


def values_of(table: TableSpec, typed: Mapping[str, str], stored: Mapping[str, Any] | None) -> dict[str, object]:
    """Return the values to write: the input, and stored settings that have no form field.

    An empty secret is left out, which keeps the stored one; "" removes a secret whose ``goes_with`` field is empty.
    """
    known = {spec.name for spec in table.fields}
    values: dict[str, object] = {
        name: value
        for name, value in (stored or {}).items()
        if name not in known and value is not None and value != HIDDEN_DEFAULTS.get(name)
    }
    for spec in table.fields:
        text = typed.get(spec.name, "") if spec.secret else typed.get(spec.name, "").strip()
        if spec.goes_with and not typed.get(spec.goes_with, "").strip():
            values[spec.name] = ""
        elif text and not (text == spec.default and not spec.choices):
            values[spec.name] = (
                int(text) if spec.number and text.isascii() and text.isdigit() and len(text) < 10 else text
            )
    return values


def name_error(name: str, taken: Mapping[str, object]) -> str | None:
    """Return the error in a new channel's name; None if it is valid."""
    if not name:
        return "Enter a name."
    if not NAME.fullmatch(name):
        return "The name must start with a letter and have at most 32 lower-case letters, digits, - or _."
    if name in {*taken, "in_app", "fcm", "apns", "webpush", "desktop"}:
        return "A channel with this name already exists."
    return None
