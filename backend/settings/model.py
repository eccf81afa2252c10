"""Settings of ``flashflow.toml`` as validated values: channels, delivery, privacy, retention, allowed hosts."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

# \Z, not "$", which would accept a trailing newline.
Text = Annotated[
    str, Meta(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*\Z")
]
Secret = Annotated[str, Meta(min_length=1, max_length=10_000, extra={"secret": True})]
"""Value that never appears in a log, an error, ``/health`` or an export."""
# No user and password: base URLs are shown, so they must not contain secrets.
BaseUrl = Annotated[str, Meta(min_length=8, max_length=2_000, pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?\Z")]
UnsubscribeUrl = Annotated[str, Meta(max_length=500, pattern=r"^https://[A-Za-z0-9.:\[\]-]+([/?][!$-;=?-\[\]-~]*)?\Z")]
Connections = Annotated[int, Meta(ge=1, le=64)]
Rate = Annotated[float, Meta(gt=0, le=10_000)]
StepTimeout = Annotated[float, Meta(gt=0, le=3_600)]
GiveUpAfter = Annotated[float, Meta(ge=0, le=2_592_000)]
BaseDelay = Annotated[float, Meta(gt=0, le=3_600)]
MaxDelay = Annotated[float, Meta(gt=0, le=86_400)]


class ChannelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of every channel: concurrent attempts, attempts started per second, and retries."""

    connections: Connections = 4
    """Attempts at the same time."""
    rate_per_second: Rate | None = None
    """Attempts started per second; without it there is no limit."""
    give_up_after: GiveUpAfter | None = None
    """Seconds from the first attempt to the last; without it that of ``[delivery]`` applies."""
    base_delay: BaseDelay | None = None
    """Seconds before the second attempt; without it that of ``[delivery]`` applies."""
    max_delay: MaxDelay | None = None
    """Longest delay in seconds; without it that of ``[delivery]`` applies."""

    def __repr__(self) -> str:
        """Omit secrets, because a repr appears in logs and tracebacks."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        secrets = secret_fields(type(self))
        values = [(field, getattr(self, field.name)) for field in msgspec.structs.fields(self)]
        return [(f.name, "•••" if f.encode_name in secrets and value is not None else value) for f, value in values]


class EmailSettings(ChannelSettings, frozen=True, kw_only=True):
    """``[channels.email]``: an SMTP server. A ``username`` without TLS is refused unless the host is this machine."""

    host: Text
    """Name or address of the SMTP server."""
    sender: Text = msgspec.field(name="from")
    """Sender of every mail, with or without a name."""
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    """Port of the server; without it 587 for starttls, 465 for tls, 25 for none."""
    security: Literal["none", "starttls", "tls"] = "starttls"
    """Encryption of the connection."""
    username: Text | None = None
    """User name at the server; it requires a password."""
    password: Secret | None = None
    """Password at the server."""
    reply_to: Text | None = None
    """Address for replies and for requests to unsubscribe by mail."""
    unsubscribe_url: UnsubscribeUrl | None = None
    """The owner's own https URL for one-click unsubscription (RFC 8058)."""
    ca_file: Text | None = None
    """Path of a PEM file with the certificates to trust instead of the system's."""
    # Seconds per step of an SMTP dialogue, as RFC 5321, 4.5.3.2 requires: servers delay on purpose.
    connect_timeout: StepTimeout = 30.0
    """Seconds until the connection is open."""
    greeting_timeout: StepTimeout = 300.0
    """Seconds until the server's greeting."""
    command_timeout: StepTimeout = 300.0
    """Seconds until the answer to a command."""
    data_timeout: StepTimeout = 180.0
    """Seconds to send one block of the mail."""
    answer_timeout: StepTimeout = 600.0
    """Seconds until the answer to the complete mail."""


class SmsSettings(ChannelSettings, frozen=True, kw_only=True):
    """``[channels.sms]``: Twilio, or a service with the same API."""

    account_sid: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_-]+\Z")]
    """Account id at the service."""
    auth_token: Secret
    """Token of the account."""
    sender: Text = msgspec.field(name="from")
    """Number of the sender, or the id of a messaging service."""
    base_url: BaseUrl = "https://api.twilio.com"
    """Address of the service."""


class FcmSettings(ChannelSettings, frozen=True, kw_only=True):
    """``[channels.push.fcm]``: Android, through Firebase Cloud Messaging."""

    credentials: Secret
    """Path of a service account's JSON file, or that JSON itself."""
    base_url: BaseUrl = "https://fcm.googleapis.com"
    """Address of the service."""


class ApnsSettings(ChannelSettings, frozen=True, kw_only=True):
    """``[channels.push.apns]``: Apple devices, by token authentication."""

    key_file: Text
    """Path of the ``.p8`` key."""
    key_id: Text
    """Id of the key."""
    team_id: Text
    """Id of the developer team."""
    topic: Text
    """Bundle id of the app."""
    base_url: BaseUrl = "https://api.push.apple.com"
    """Address of the service."""


class WebPushSettings(ChannelSettings, frozen=True, kw_only=True):
    """``[channels.push.webpush]``: browsers; the VAPID keys are made at first use."""

    subject: Annotated[str, Meta(max_length=500, pattern=r"^(mailto:[^\s@]+@[^\s@]+|https://\S+)\Z")]
    """Contact of the owner for push services (RFC 8292): a mailto or https address."""


class DesktopSettings(ChannelSettings, frozen=True, kw_only=True):
    """``[channels.push.desktop]``: this computer."""


class PushSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[channels.push]``."""

    fcm: FcmSettings | None = None
    apns: ApnsSettings | None = None
    webpush: WebPushSettings | None = None
    desktop: DesktopSettings = DesktopSettings()


class AppriseSettings(ChannelSettings, frozen=True, kw_only=True):
    """``[channels.NAME]``: a service by its Apprise URL."""

    url: Secret
    """Apprise address of the service."""


class DeliverySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[delivery]``: retries of every channel, by exponential back-off."""

    give_up_after: GiveUpAfter = 86_400.0
    """Seconds from the first attempt to the last; 0 allows one attempt."""
    base_delay: BaseDelay = 1.0
    """Seconds before the second attempt; each further delay is twice as long."""
    max_delay: MaxDelay = 900.0
    """Longest delay in seconds."""
    max_attempts: Annotated[int, Meta(ge=1, le=100)] | None = None
    """Number of attempts that ends retries earlier; without it only time ends them."""


class PrivacySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[privacy]``: which activities are stored, and which addresses with them."""

    mask_ip: bool = False
    """Whether the last 8 bits of IPv4 and 80 bits of IPv6 addresses are cleared before they are stored."""
    tracking: Literal["all", "consented", "none"] = "all"
    """Users whose activities are stored: all but those who refused, those who agreed, or none."""


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[retention]``: age and size limits of stored rows; without a value rows are stored for ever."""

    activities_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    """Days after which activities and sessions are deleted."""
    notifications_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    """Days after which final notifications are deleted."""
    max_mb: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    """Size limit of both files in megabytes (2**20 bytes); above it the oldest activities are pruned."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of ``flashflow.toml``; a channel that is None is not configured."""

    email: EmailSettings | None = None
    sms: SmsSettings | None = None
    push: PushSettings = PushSettings()
    others: dict[str, AppriseSettings] = {}
    """The owner's own channels, by name."""
    delivery: DeliverySettings = DeliverySettings()
    privacy: PrivacySettings = PrivacySettings()
    retention: RetentionSettings = RetentionSettings()
    allow_hosts: tuple[str, ...] = ()
    """Private hosts (``name``, ``name:port`` or an address) that callers' URLs may reach."""


@cache
def secret_fields(kind: type[msgspec.Struct]) -> frozenset[str]:
    """Return the names, as in the file, of a struct's secret fields."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind) if _is_secret(field.type))


def _is_secret(annotation: Any) -> bool:
    if isinstance(annotation, Meta):
        return bool((annotation.extra or {}).get("secret"))
    return any(_is_secret(part) for part in get_args(annotation))
