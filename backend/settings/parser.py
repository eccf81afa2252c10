"""Convert the tables of ``flashflow.toml`` to Settings: resolve references, report every error with its place.

A string may contain references: ``${NAME}`` is the environment variable NAME, ``${keyring:email.password}`` a secret
of the keyring, ``$${`` a literal ``${``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from flashflow.backend.core.errors import FieldError, ValidationError
from flashflow.backend.settings.keyring import SecretStore, SecretsUnavailable
from flashflow.backend.settings.model import (
    ApnsSettings,
    AppriseSettings,
    ChannelSettings,
    DeliverySettings,
    DesktopSettings,
    EmailSettings,
    FcmSettings,
    PrivacySettings,
    PushSettings,
    RetentionSettings,
    Settings,
    SmsSettings,
    WebPushSettings,
    secret_fields,
)

CHANNELS: Mapping[str, type[msgspec.Struct]] = {"email": EmailSettings, "sms": SmsSettings}
PUSH: Mapping[str, type[msgspec.Struct]] = {
    "fcm": FcmSettings,
    "apns": ApnsSettings,
    "webpush": WebPushSettings,
    "desktop": DesktopSettings,
}
PLAIN: Mapping[str, type[msgspec.Struct]] = {
    "delivery": DeliverySettings,
    "privacy": PrivacySettings,
    "retention": RetentionSettings,
}
"""Tables outside ``[channels]``."""
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
"""Pattern of the owner's channel names."""
TAKEN = frozenset({"in_app", "push", *CHANNELS, *PUSH})
"""Reserved channel names."""
SET = "set"
"""Placeholder shown for an existing secret."""

_REFERENCE = re.compile(
    r"(?P<plain>\$\$\{)|\$\{(?:keyring:(?P<secret>[A-Za-z0-9_.-]{1,200})|(?P<env>[A-Za-z_][A-Za-z0-9_]*))\}|(?P<broken>\$\{)"
)
_HOST = re.compile(r"(?=.{1,255}\Z)(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z_](?:[0-9A-Za-z_.-]*[0-9A-Za-z_])?)(:[0-9]{1,5})?\Z")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\Z")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_EXPECTED = re.compile(r"Expected `(?P<kind>\w+)[^`]*`(?: of length)?(?P<limit> [<>]=? \S+)?")
_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "object": "a table"}
_LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1|\[::1\]")


class References:
    """Environment and keyring, the sources of references, for one read of the file."""

    def __init__(self, environ: Mapping[str, str], secrets: SecretStore) -> None:
        self.environ = environ
        self.secrets = secrets
        self.refused = False
        """Whether the keyring did not respond."""


def is_reference(text: str) -> bool:
    """Whether ``text`` is exactly one reference."""
    match = _REFERENCE.fullmatch(text)
    return match is not None and bool(match["env"] or match["secret"])


def escaped(text: str) -> str:
    """Escape ``text`` so that it contains no references."""
    return text.replace("${", "$${")


def settings_of(tables: Mapping[str, Any], references: References) -> Settings:
    """Build the settings. Raises one ValidationError with every error at its dotted place, without secret values."""
    return _Reader(references).settings(tables)


def struct_at(place: tuple[str, ...]) -> type[msgspec.Struct] | None:
    """Return the struct of the table at ``place``, or None where no table is allowed."""
    match place:
        case (name,) if name in PLAIN:
            return PLAIN[name]
        case ("channels", "push", name):
            return PUSH.get(name)
        case ("channels", name) if name in CHANNELS:
            return CHANNELS[name]
        case ("channels", name) if NAME.match(name) and name not in TAKEN:
            return AppriseSettings
    return None


def shown(settings: Settings, tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the active settings in the file's structure: a secret as ``"set"`` or None, a reference unresolved, a
    channel that is not configured as None."""
    channels = _table(tables, "channels")
    push = _table(channels, "push")
    return {
        "channels": {
            **{name: _shown(getattr(settings, name), _table(channels, name)) for name in CHANNELS},
            "push": {name: _shown(getattr(settings.push, name), _table(push, name)) for name in PUSH},
            **{name: _shown(struct, _table(channels, name)) for name, struct in settings.others.items()},
        },
        **{name: _shown(getattr(settings, name), _table(tables, name)) for name in PLAIN},
        "allow_hosts": list(tables.get("allow_hosts", ())) or list(settings.allow_hosts),
    }


def _shown(struct: msgspec.Struct | None, table: Mapping[str, Any]) -> dict[str, Any] | None:
    if struct is None:
        return None
    values: dict[str, Any] = msgspec.to_builtins(struct)
    secrets = secret_fields(type(struct))
    for name, value in values.items():
        written = table.get(name)
        if isinstance(written, str) and (is_reference(written) if name in secrets else _REFERENCE.search(written)):
            values[name] = written
        elif name in secrets:
            values[name] = None if value is None else SET
    return values


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = tables.get(name)
    return found if isinstance(found, dict) else {}


class _Reader:
    """Reads one file and collects its errors."""

    def __init__(self, references: References) -> None:
        self._references = references
        self._errors: list[FieldError] = []

    def settings(self, tables: Mapping[str, Any]) -> Settings:
        self._check_names(tables, "", ("channels", *PLAIN, "allow_hosts"))
        channels = self._inner(tables, "channels", "channels")
        push = self._inner(channels, "push", "channels.push")
        self._check_names(push, "channels.push", tuple(PUSH))
        built_in = self._tables(channels, "channels", CHANNELS)
        if email := built_in.get("email"):
            self._check_email(email)
        settings = Settings(
            **built_in,
            push=PushSettings(**self._tables(push, "channels.push", PUSH)),
            others=self._others(channels),
            **self._tables(tables, "", PLAIN),
            allow_hosts=self._allow_hosts(tables.get("allow_hosts", [])),
        )
        if settings.delivery.base_delay > settings.delivery.max_delay:
            settings = msgspec.structs.replace(settings, delivery=self._delivery(settings.delivery, tables["delivery"]))
        if self._errors:
            raise ValidationError("; ".join(f"{e.field}: {e.message}" for e in self._errors), tuple(self._errors))
        return settings

    def _others(self, channels: Mapping[str, Any]) -> dict[str, AppriseSettings]:
        others = {}
        for name in channels:
            if name == "push" or name in CHANNELS:
                continue
            place = f"channels.{_key(name)}"
            if name == "in_app":
                self._wrong(place, "needs no settings: it is always available")
            elif name in TAKEN:
                self._wrong(place, f"is not a channel of its own; did you mean [channels.push.{name}]?")
            elif not NAME.match(name):
                self._wrong(place, "is not a valid channel name: use lower-case letters, digits, _ and -")
            elif isinstance(channels[name], dict) and "url" not in channels[name]:
                near = _did_you_mean(name, (*CHANNELS, "push"))
                self._wrong(place, f"needs a url, like every channel that you name{near}")
            else:
                others.update(self._tables(channels, "channels", {name: AppriseSettings}))
        return others

    def _delivery(self, delivery: DeliverySettings, given: Mapping[str, Any]) -> DeliverySettings:
        """Adjust a default delay to the configured one that conflicts with it."""
        if "base_delay" not in given:
            return msgspec.structs.replace(delivery, base_delay=delivery.max_delay)
        if "max_delay" not in given:
            return msgspec.structs.replace(delivery, max_delay=delivery.base_delay)
        self._wrong("delivery.base_delay", "must not be more than max_delay")
        return delivery

    def _check_email(self, email: EmailSettings) -> None:
        if email.username and email.security == "none" and not _LOOPBACK.fullmatch(email.host.lower()):
            self._wrong("channels.email.security", "a username needs starttls or tls, unless the host is this machine")
        if email.username and email.password is None:
            self._wrong("channels.email.password", "is required with a username")

    def _allow_hosts(self, given: Any) -> tuple[str, ...]:
        if not isinstance(given, list):
            self._wrong("allow_hosts", "must be a list of hosts")
            return ()
        hosts = []
        for index, written in enumerate(given):
            host = self._filled(written, f"allow_hosts.{index}", False)
            if isinstance(host, str) and (_HOST.match(host) or _IPV6.match(host)):
                hosts.append(host)
            elif host is not _BROKEN:
                self._wrong(f"allow_hosts.{index}", "must be a host, as in intranet, intranet:8080 or 192.168.1.5")
        return tuple(hosts)

    def _inner(self, tables: Mapping[str, Any], name: str, place: str) -> Mapping[str, Any]:
        found = tables.get(name, {})
        if isinstance(found, dict):
            return found
        self._wrong(place, "must be a table")
        return {}

    def _tables(
        self, tables: Mapping[str, Any], place: str, kinds: Mapping[str, type[msgspec.Struct]]
    ) -> dict[str, Any]:
        """Read those of the named tables that are there and valid."""
        found = {name: self._struct(tables, place, name, kind) for name, kind in kinds.items() if name in tables}
        return {name: struct for name, struct in found.items() if struct is not None}

    def _struct(
        self, tables: Mapping[str, Any], place: str, name: str, kind: type[msgspec.Struct]
    ) -> msgspec.Struct | None:
        place = f"{place}.{name}" if place else name
        before = len(self._errors)
        table = self._inner(tables, name, place)
        if len(self._errors) > before:
            return None
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        self._check_names(table, place, tuple(fields))
        values = {}
        for key, written in table.items():
            if key in fields:
                secret = key in secret_fields(kind)
                values[key] = self._as_number(written, self._filled(written, f"{place}.{key}", secret), fields[key])
        for field in fields.values():
            if field.required and field.encode_name not in table:
                self._wrong(f"{place}.{field.encode_name}", "is required")
            elif field.encode_name in values and values[field.encode_name] is not _BROKEN:
                self._check(f"{place}.{field.encode_name}", field, values[field.encode_name])
        if len(self._errors) > before:
            return None
        found = msgspec.convert(values, kind)
        if isinstance(found, ChannelSettings) and (found.base_delay or 0.0) > (found.max_delay or math.inf):
            self._wrong(f"{place}.base_delay", "must not be more than max_delay")
        return found

    def _check(self, place: str, field: msgspec.structs.FieldInfo, value: Any) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            self._wrong(place, "must be a finite number")
        elif isinstance(value, str) and not value.isascii() and _HALF_A_PAIR.search(value):
            self._wrong(place, "contains an unpaired surrogate")
        else:
            try:
                msgspec.convert(value, field.type)
            except (msgspec.ValidationError, OverflowError) as error:
                self._wrong(place, _message(str(error), field.type))

    def _as_number(self, written: Any, filled: Any, field: msgspec.structs.FieldInfo) -> Any:
        """Convert the text of a reference to the number that the field requires."""
        kinds = _kinds(field.type)
        if written is filled or not isinstance(filled, str) or str in kinds:
            return filled
        for kind in (int, float):
            if kind in kinds or float in kinds:
                with suppress(ValueError):
                    return kind(filled)
        return filled

    def _filled(self, written: Any, place: str, secret: bool) -> Any:
        """Resolve the references in ``written``; return _BROKEN, and record the error, where one has no value."""
        if not isinstance(written, str) or "${" not in written:
            return written
        before = len(self._errors)
        filled = _REFERENCE.sub(lambda match: self._referred(match, place, secret), written)
        return filled if len(self._errors) == before else _BROKEN

    def _referred(self, match: re.Match[str], place: str, secret: bool) -> str:
        if match["plain"]:
            return "${"
        if name := match["env"]:
            value = self._references.environ.get(name)
            if value is None:
                self._wrong(place, f"the environment variable {name} is not set")
            return value or ""
        if name := match["secret"]:
            return self._from_keyring(name, place, secret)
        self._wrong(place, "has a ${ that is not a reference such as ${NAME}; write $${ for a literal ${")
        return ""

    def _from_keyring(self, name: str, place: str, secret: bool) -> str:
        if not secret:
            self._wrong(place, "is not a secret; only secrets may come from the keyring")
            return ""
        try:
            value = self._references.secrets.get(name)
        except SecretsUnavailable as error:
            self._references.refused = True
            self._wrong(place, str(error))
            return ""
        if value is None:
            self._wrong(place, f"the keyring has no secret named {name}")
        return value or ""

    def _check_names(self, table: Mapping[str, Any], place: str, known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                where = f"{place}.{_key(key)}" if place else _key(key)
                self._wrong(where, f"is not a setting here{_did_you_mean(key, known)}")

    def _wrong(self, place: str, message: str) -> None:
        self._errors.append(FieldError(place, message))


_BROKEN: Any = object()
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")


def _message(text: str, annotation: Any) -> str:
    """Rewrite msgspec's message without the value, which may come from the environment."""
    if "matching regex" in text:
        return "has characters or a form that is not allowed here"
    if text.startswith("Invalid enum value"):
        return "must be one of " + ", ".join(_choices(annotation))
    if match := _EXPECTED.match(text):
        return f"must be {_WORDS.get(match['kind'], match['kind'])}" + (match["limit"] or "").replace(
            " ", " of length " if "of length" in text else " ", 1
        )
    return "is not allowed here"


def _kinds(annotation: Any) -> frozenset[type]:
    """Return the plain types that an annotation accepts."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return frozenset(map(type, get_args(annotation)))
    if args := get_args(annotation):
        return frozenset().union(*map(_kinds, args))
    return frozenset({annotation})


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for part in get_args(annotation) for choice in _choices(part))


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _key(key: str) -> str:
    """Return a key of the file in a form fit for messages: one line of limited length."""
    return key if _BARE_KEY.match(key) else ascii(key[:64])
