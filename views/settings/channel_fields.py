"""The tables of ``flashflow.toml`` as forms: the fields there are, and what is written of what was typed. No Flet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

SET = "set"
"""What the settings show for a secret that there is."""
UNSAID: Mapping[str, object] = {
    "connections": 4,
    "rate_per_second": None,
    "connect_timeout": 30.0,
    "greeting_timeout": 300.0,
    "command_timeout": 300.0,
    "data_timeout": 180.0,
    "answer_timeout": 600.0,
}
"""What no form asks for, with the values that need not stand in the file."""
NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""What an owner's channel may be called, here and in a ``send``."""
_KEYRING = re.compile(r"\$\{keyring:[^}]*\}")


class Choice(NamedTuple):
    """One of several values: what it is called, and what it means."""

    value: str
    label: str
    words: str


class FieldSpec(NamedTuple):
    """One setting. ``default`` is in force where the file says nothing; a secret is shown to nobody."""

    name: str
    label: str
    helper: str = ""
    secret: bool = False
    number: bool = False
    default: str = ""
    choices: tuple[Choice, ...] = ()
    goes_with: str = ""
    """The field without which this one has no meaning: emptied with it."""


class TableSpec(NamedTuple):
    """One table of the file, with what the owner should know before filling it in."""

    place: str
    words: str
    fields: tuple[FieldSpec, ...]


SECURITIES = (
    Choice("starttls", "STARTTLS", "The usual, on port 587"),
    Choice("tls", "TLS", "From the first byte, on port 465"),
    Choice("none", "None", "Only for a server on this machine; port 25"),
)

TABLES: Mapping[str, TableSpec] = {
    "email": TableSpec(
        "channels.email",
        "The mail server that your notices leave through, as in a mail program's settings for sending.",
        (
            FieldSpec("host", "Mail server", "As in smtp.example.org"),
            FieldSpec("port", "Port", "Empty: the usual one for the security chosen", number=True),
            FieldSpec("security", "Security", default="starttls", choices=SECURITIES),
            FieldSpec("username", "User name", "Empty where the server asks for none"),
            FieldSpec("password", "Password", secret=True, goes_with="username"),
            FieldSpec("from", "Sender", "As in FlashFlow <me@example.org>"),
            FieldSpec("reply_to", "Replies go to", "An address that someone reads; empty: the sender's"),
        ),
    ),
    "sms": TableSpec(
        "channels.sms",
        "Twilio, or a service that speaks as it does. Each message costs what your provider asks for it.",
        (
            FieldSpec("account_sid", "Account SID"),
            FieldSpec("auth_token", "Auth token", secret=True),
            FieldSpec("from", "Sender", "A number as in +49 30 1234567, or a messaging service's SID"),
            FieldSpec("base_url", "Service address", default="https://api.twilio.com"),
        ),
    ),
    "fcm": TableSpec(
        "channels.push.fcm",
        "Firebase Cloud Messaging reaches the Android devices (and, without APNs, the iPhones) of your own apps.",
        (
            FieldSpec("credentials", "Service account", "The path of its JSON file, or that JSON itself", secret=True),
            FieldSpec("base_url", "Service address", default="https://fcm.googleapis.com"),
        ),
    ),
    "apns": TableSpec(
        "channels.push.apns",
        "Apple's push service reaches the iPhones and iPads of your own app, with a key from your developer account.",
        (
            FieldSpec("key_file", "Key file", "The path of the .p8 file"),
            FieldSpec("key_id", "Key ID"),
            FieldSpec("team_id", "Team ID"),
            FieldSpec("topic", "Topic", "The app's bundle ID"),
            FieldSpec("base_url", "Service address", default="https://api.push.apple.com"),
        ),
    ),
    "webpush": TableSpec(
        "channels.push.webpush",
        "Reaches the browsers that subscribed. Its keys are made at the first use.",
        (FieldSpec("subject", "Your contact for push services", "As in mailto:me@example.org"),),
    ),
}


def other_table(name: str) -> TableSpec:
    """The table of a channel that the owner named."""
    words = "Any service that Apprise knows, by its address: ntfy, Slack, Telegram, Matrix and a hundred more."
    url = FieldSpec("url", "Apprise address", "As in ntfy://my-topic or slack://token/channel", secret=True)
    return TableSpec(f"channels.{name}", words, (url,))


def stored_at(tables: Mapping[str, Any], place: str) -> Mapping[str, Any] | None:
    """What the settings show at ``place``; None where the channel is not set up."""
    found: Any = tables
    for name in place.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def shown_in(spec: FieldSpec, stored: Mapping[str, Any] | None) -> str:
    """What stands in the field when the form opens."""
    if spec.secret:
        return ""
    value = None if stored is None else stored.get(spec.name)
    return spec.default if value is None else str(value)


def secret_hint(spec: FieldSpec, stored: Mapping[str, Any] | None) -> str:
    """What the field says of a secret that it does not show."""
    value = None if stored is None else stored.get(spec.name)
    if value is None:
        return spec.helper
    if value == SET or _KEYRING.fullmatch(str(value)):
        where = " in this computer's keyring" if value != SET else ""
        return f"Kept{where}. Leave it empty to keep it."
    return f"Taken from {value}. Leave it empty to keep that."


def values_of(table: TableSpec, typed: Mapping[str, str], stored: Mapping[str, Any] | None) -> dict[str, object]:
    """What to write: what was typed, and what stands in the file that no form asks for.

    An empty secret is left out and so stays as it is; one whose companion was emptied is taken away ("").
    """
    known = {spec.name for spec in table.fields}
    values: dict[str, object] = {
        name: value
        for name, value in (stored or {}).items()
        if name not in known and value is not None and value != UNSAID.get(name)
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


def name_complaint(name: str, taken: Mapping[str, object]) -> str | None:
    """What is wrong with a new channel's name, for people."""
    if not name:
        return "Give it a name."
    if not NAME.fullmatch(name):
        return "Use small letters, digits, - and _, beginning with a letter, at most 32."
    if name in {*taken, "in_app", "fcm", "apns", "webpush", "desktop"}:
        return "There is a channel of this name."
    return None
