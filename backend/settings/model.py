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
    rate_per_second: Rate | None = None
    give_up_after: GiveUpAfter | None = None
    """Seconds, as are both delays; None: the value of ``[delivery]``."""
    base_delay: BaseDelay | None = None
    max_delay: MaxDelay | None = None

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
    sender: Text = msgspec.field(name="from")
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    """Default: 587 for starttls, 465 for tls, 25 for none."""
    security: Literal["none", "starttls", "tls"] = "starttls"
    username: Text | None = None
    password: Secret | None = None
    reply_to: Text | None = None
    """Address for replies and for requests to unsubscribe by mail."""
    unsubscribe_url: UnsubscribeUrl | None = None
    """The owner's own https URL for one-click unsubscription (RFC 8058)."""
    ca_file: Text | None = None
    """Path of a PEM file with the certificates to trust instead of the system's."""
    # Seconds per step of an SMTP dialogue, as RFC 5321, 4.5.3.2 requires: servers delay on purpose.
    connect_timeout: StepTimeout = 30.0
    greeting_timeout: StepTimeout = 300.0
    command_timeout: StepTimeout = 300.0
    data_timeout: StepTimeout = 180.0
    answer_timeout: StepTimeout = 600.0


class SmsSettings(ChannelSettings, frozen=True, kw_only=True):
    """``[channels.sms]``: Twilio, or a service with the same API."""

    account_sid: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_-]+\Z")]
    auth_token: Secret
    sender: Text = msgspec.field(name="from")
    base_url: BaseUrl = "https://api.twilio.com"


class FcmSettings(ChannelSettings, frozen=True, kw_only=True):
    """``[channels.push.fcm]``: ``credentials`` is the path of a service account's JSON file, or that JSON itself."""

    credentials: Secret
    base_url: BaseUrl = "https://fcm.googleapis.com"


class ApnsSettings(ChannelSettings, frozen=True, kw_only=True):
    """``[channels.push.apns]``: token authentication with a ``.p8`` key; ``topic`` is the app's bundle id."""

    key_file: Text
    key_id: Text
    team_id: Text
    topic: Text
    base_url: BaseUrl = "https://api.push.apple.com"


class WebPushSettings(ChannelSettings, frozen=True, kw_only=True):
    """``[channels.push.webpush]``: ``subject`` is the owner's contact for push services (RFC 8292)."""

    subject: Annotated[str, Meta(max_length=500, pattern=r"^(mailto:[^\s@]+@[^\s@]+|https://\S+)\Z")]


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


class DeliverySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[delivery]``: exponential back-off up to an age, in seconds; ``max_attempts`` may end it earlier."""

    give_up_after: GiveUpAfter = 86_400.0
    base_delay: BaseDelay = 1.0
    max_delay: MaxDelay = 900.0
    max_attempts: Annotated[int, Meta(ge=1, le=100)] | None = None


class PrivacySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[privacy]``: which activities are stored. A user's refusal applies to "all" too; "none" stores nothing."""

    mask_ip: bool = False
    """Whether the last 8 bits of IPv4 and 80 bits of IPv6 addresses are cleared before they are stored."""
    tracking: Literal["all", "consented", "none"] = "all"


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[retention]``: age and size limits of stored rows; None: no limit."""

    activities_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    notifications_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
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
