"""Device addresses: parse the push registrations of apps, in all their spellings, to one canonical target."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from flashflow.backend.core.errors import FieldError, ValidationError
from flashflow.backend.core.named_tuple import NamedTuple

LONGEST_URL = 2_000

_URL = re.compile(r"https?://", re.IGNORECASE)
_BASE64 = re.compile(r"([A-Za-z0-9+/]*)={0,2}")
_APNS = re.compile(r"(?:[0-9a-f]{2}){1,100}")
_DESCRIPTION = str.maketrans("", "", "<> ")
"""Characters of an iOS token's description (``<740f4707 bebcf74f>``), which many apps send."""
_ADDRESS_FIELDS = frozenset({"subscription", "endpoint", "expirationTime", "keys", "p256dh", "auth"})

# The curve P-256, y² = x³ - 3x + b over the integers modulo p (FIPS 186-5, SP 800-186, 3.2.1.3).
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


class DeviceAddress(NamedTuple):
    """Canonical push address of a device."""

    identity: str
    """Equal for two registrations exactly if the provider reaches the same device."""
    token: str
    """Target in canonical form: a browser's subscription as JSON, else the token."""
    info: dict[str, Any]
    """The registration's ``device_info`` without the parts of a subscription."""


class WebPushAddress(NamedTuple):
    """Web Push subscription: the push service's URL, a P-256 point (65 bytes) and a secret (16 bytes)."""

    endpoint: str
    p256dh: bytes
    auth: bytes


def device_address(token: str, platform: str, info: Mapping[str, Any] | None = None) -> DeviceAddress:
    """Read a registration. Raises ValidationError naming each field of a web subscription that is wrong.

    A web token that is neither JSON nor a URL, with no keys beside it, is kept as it is.
    """
    given, token = dict(info or {}), token.strip()
    if platform != "web":
        text = _apns_token(token) if platform == "ios" else token
        return DeviceAddress(text, text, given)
    sources = _sources(token, given)
    if not _is_subscription(token, sources):
        return DeviceAddress(token, token, given)
    found = _web_push_address(token, sources)
    rest = {name: value for name, value in given.items() if name not in _ADDRESS_FIELDS}
    return DeviceAddress(_endpoint_identity(found.endpoint), _subscription_json(found), rest)


def identity_of(token: str, platform: str, info: Mapping[str, Any] | None = None) -> str:
    """Return the identity of a registration that may be invalid, such as one stored before validation existed."""
    try:
        return device_address(token, platform, info).identity
    except ValidationError:
        endpoint = _endpoint(token, _sources(token, dict(info or {})))
    try:
        return token.strip() if endpoint is None else _endpoint_identity(endpoint[1])
    except ValueError:
        return token.strip()


def identities(token: str) -> frozenset[str]:
    """Return every identity that ``token`` may have, whatever its platform."""
    return frozenset({token, identity_of(token, "ios"), identity_of(token, "web")})


def web_push_address(token: str) -> WebPushAddress:
    """Read a subscription from JSON text. Raises ValidationError naming each wrong field."""
    return _web_push_address(token, _sources(token, {}))


def parse_url(url: str) -> SplitResult:
    """Split a caller's URL. Raises ValueError with a text for users.

    URLs that parsers may interpret differently are refused: user names, fragments, backslashes, white space and
    invisible characters. Whether the host is public is checked when the connection is made.
    """
    if len(url) > LONGEST_URL:
        raise ValueError(f"is longer than {LONGEST_URL} characters")
    if not url.isprintable() or any(char.isspace() or char == "\\" for char in url):
        raise ValueError("contains white space, control characters or backslashes")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a valid URL") from None
    if parts.scheme not in {"https", "http"}:
        raise ValueError("does not begin with https:// or http://")
    if not host or port == 0:
        raise ValueError("has no host, or an invalid port")
    if "@" in parts.netloc:
        raise ValueError("contains a user name")
    if "#" in url:
        raise ValueError("has a fragment")
    return parts


def origin_of(parts: SplitResult) -> str:
    """Return scheme and host in lower case, and the port unless it is the scheme's default."""
    usual = "443" if parts.scheme == "https" else "80"
    return f"{parts.scheme}://{re.sub(f'(:0*{usual}|:)$', '', parts.netloc.lower())}"


def _apns_token(token: str) -> str:
    """Return an APNs token's bytes as lower-case hex. Any other text stays: it may be a Firebase token."""
    text = token.translate(_DESCRIPTION).lower()
    return text if _APNS.fullmatch(text) else token


Source = tuple[str, Mapping[str, Any]]
"""A request field and the object in it that may hold a subscription or a part of one."""


def _sources(token: str, info: Mapping[str, Any]) -> list[Source]:
    """List the objects that may hold a part of the subscription, in order of precedence."""
    subscription = _object(token) or {}
    places = [
        ("token", subscription),
        ("token.subscription", subscription.get("subscription")),
        ("device_info.subscription", info.get("subscription")),
        ("device_info", info),
    ]
    return [(field, found) for field, value in places if (found := _object(value)) is not None]


def _object(value: object) -> Mapping[str, Any] | None:
    """Return an object that was given as one or as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _is_subscription(token: str, sources: Sequence[Source]) -> bool:
    return (
        token.lstrip().startswith("{")
        or _endpoint(token, sources) is not None
        or any(_key(sources, name) is not None for name in ("p256dh", "auth"))
    )


def _endpoint(token: str, sources: Sequence[Source]) -> tuple[str, str] | None:
    """Return the push service's URL and the field that holds it."""
    for field, source in sources:
        value = source.get("endpoint")
        if isinstance(value, str) and (_URL.match(value) or field.startswith("token")):
            return f"{field}.endpoint", value
    return ("token", token.strip()) if _URL.match(token.strip()) else None


def _key(sources: Sequence[Source], name: str) -> tuple[str, object] | None:
    """Return a key and the field that holds it; a key may stand in ``keys`` or beside them."""
    for field, source in sources:
        keys = _object(source.get("keys"))
        if keys is not None and name in keys:
            return f"{field}.keys.{name}", keys[name]
        if name in source and (name == "p256dh" or "p256dh" in source):  # any app may call something "auth"
            return f"{field}.{name}", source[name]
    return None


def _web_push_address(token: str, sources: Sequence[Source]) -> WebPushAddress:
    is_json = token.lstrip().startswith("{")
    if is_json and _object(token) is None:
        raise ValidationError.of("token", "is not a browser's subscription as JSON")
    home = "token" if is_json else next((field for field, source in sources if source), "device_info")
    errors: list[FieldError] = []
    endpoint = _endpoint(token, sources)
    if endpoint is None:
        errors.append(FieldError("token.endpoint" if is_json else "token", "is not the URL of a push service"))
    elif why := _endpoint_fault(endpoint[1]):
        errors.append(FieldError(endpoint[0], f"is not the URL of a push service: it {why}"))
    keys: dict[str, bytes] = {}
    for name, check, what in (
        ("p256dh", _is_p256_point, "a public key on the curve P-256, in base64url"),
        ("auth", _is_secret, "a secret of 16 bytes, in base64url"),
    ):
        found = _key(sources, name)
        raw = None if found is None else _from_base64(found[1])
        if found is None:
            errors.append(FieldError(f"{home}.keys.{name}", "is missing"))
        elif raw is None or not check(raw):
            errors.append(FieldError(found[0], f"is not {what}"))
        else:
            keys[name] = raw
    if errors or endpoint is None:
        raise ValidationError("; ".join(f"{e.field} {e.message}" for e in errors), tuple(errors))
    return WebPushAddress(endpoint[1], keys["p256dh"], keys["auth"])


def _endpoint_fault(url: str) -> str | None:
    if not url.isascii():
        return "contains letters that a browser would have encoded"
    try:
        parse_url(url)
    except ValueError as error:
        return str(error)
    return None


def _endpoint_identity(url: str) -> str:
    parts = parse_url(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"{origin_of(parts)}{parts.path or '/'}{query}"


def _subscription_json(address: WebPushAddress) -> str:
    keys = {"p256dh": to_base64url(address.p256dh), "auth": to_base64url(address.auth)}
    return msgspec.json.encode({"endpoint": address.endpoint, "keys": keys}).decode()


def to_base64url(raw: bytes) -> str:
    """Encode as base64url without padding (RFC 4648, 5)."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _from_base64(value: object) -> bytes | None:
    """Decode base64 or base64url, with or without padding and line ends (RFC 4648, 4 and 5)."""
    if not isinstance(value, str):
        return None
    match = _BASE64.fullmatch("".join(value.split()).replace("-", "+").replace("_", "/"))
    if match is None or len(match[1]) % 4 == 1:
        return None
    return base64.b64decode(match[1] + "=" * (-len(match[1]) % 4))


def _is_secret(raw: bytes) -> bool:
    return len(raw) == 16


def _is_p256_point(raw: bytes) -> bool:
    """Whether ``raw`` is an uncompressed point of P-256; a point off the curve would leak our keys."""
    if len(raw) != 65 or raw[0] != 4:
        return False
    x, y = int.from_bytes(raw[1:33], "big"), int.from_bytes(raw[33:], "big")
    return x < _P and y < _P and (y * y - (x * x * x - 3 * x + _B)) % _P == 0
