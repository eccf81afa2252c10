"""The frozen step of ``device_tokens`` that identifies devices by their provider address. It is never edited."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_URL = re.compile(r"https?://", re.IGNORECASE)
_BASE64 = re.compile(r"([A-Za-z0-9+/]*)={0,2}")
_APNS = re.compile(r"(?:[0-9a-f]{2}){1,100}")
_LONGEST_URL = 2_000
_PARTS = {"subscription", "endpoint", "expirationTime", "keys", "p256dh", "auth"}
# The curve P-256, y² = x³ - 3x + b over the integers modulo p.
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def devices_by_identity(conn: sqlite3.Connection) -> None:
    """Merge registrations that are spellings of one device.

    The latest registration stays and takes over the deliveries of the others, unless it has one of the same
    notification.
    """
    conn.execute("ALTER TABLE device_tokens ADD COLUMN identity TEXT NOT NULL DEFAULT ''")
    conn.execute("DROP INDEX device_tokens_token")  # the updates below may produce equal tokens for a while
    rows = conn.execute(
        "SELECT seq, token, platform, device_info FROM device_tokens ORDER BY updated_at DESC, seq DESC"
    ).fetchall()
    kept: dict[str, int] = {}
    merged: dict[int, int] = {}
    for seq, token, platform, text in rows:
        device = _device(token, platform, _stored_object(text))
        if kept.setdefault(device.identity, seq) == seq:
            conn.execute(
                "UPDATE device_tokens SET identity = ?, token = ?, device_info = ? WHERE seq = ?",
                (device.identity, device.token, _to_json(device.info) if device.info else None, seq),
            )
        else:
            merged[seq] = kept[device.identity]
            conn.execute("DELETE FROM device_tokens WHERE seq = ?", (seq,))
    moved = conn.execute(
        "SELECT seq, notification_seq, device_seq FROM deliveries WHERE device_seq IN (SELECT value FROM json_each(?))",
        (_to_json(list(merged)),),
    ).fetchall()
    for seq, notification_seq, device_seq in moved:
        conn.execute(
            "UPDATE deliveries SET device_seq = ?1 WHERE seq = ?2 AND NOT EXISTS "
            "(SELECT 1 FROM deliveries WHERE notification_seq = ?3 AND device_seq = ?1)",
            (merged[device_seq], seq, notification_seq),
        )
    conn.execute("CREATE UNIQUE INDEX device_tokens_identity ON device_tokens (identity)")


class _Device(NamedTuple):
    identity: str
    token: str
    info: dict[str, Any]


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _stored_object(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = {"damaged_text": text}
    return found if isinstance(found, dict) else {"damaged_text": text}


def _device(given: str, platform: str, info: dict[str, Any]) -> _Device:
    """Return the canonical address; a subscription that is not valid keeps its token."""
    token = given.strip()
    if platform != "web":
        plain = token.translate(str.maketrans("", "", "<> ")).lower()
        text = plain if platform == "ios" and _APNS.fullmatch(plain) else token
        return _Device(text, text, info)
    sources = [*_sources(token, info)]
    endpoint = _endpoint(token, sources)
    keys = [_key(sources, name) for name in ("p256dh", "auth")]
    if not (token.startswith("{") or endpoint is not None or any(key is not None for key in keys)):
        return _Device(token, token, info)
    identity = None if endpoint is None else _identity(endpoint)
    point, secret = (_decoded(key) for key in keys)
    broken = token.startswith("{") and _object(token) is None
    if broken or identity is None or not endpoint or not endpoint.isascii() or not _is_point(point) or not secret:
        return _Device(identity or token, given, info)
    if len(secret) != 16:
        return _Device(identity, given, info)
    p256dh, auth = (base64.urlsafe_b64encode(raw or b"").decode().rstrip("=") for raw in (point, secret))
    text = _to_json({"endpoint": endpoint, "keys": {"p256dh": p256dh, "auth": auth}})
    return _Device(identity, text, {name: value for name, value in info.items() if name not in _PARTS})


def _sources(token: str, info: Mapping[str, Any]) -> Iterator[tuple[bool, Mapping[str, Any]]]:
    """Yield the objects that may hold a part of the subscription, and whether they come from the token."""
    whole = _object(token) or {}
    for of_token, value in (
        (True, whole),
        (True, whole.get("subscription")),
        (False, info.get("subscription")),
        (False, info),
    ):
        found = _object(value)
        if found is not None:
            yield of_token, found


def _object(value: object) -> Mapping[str, Any] | None:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _endpoint(token: str, sources: list[tuple[bool, Mapping[str, Any]]]) -> str | None:
    for of_token, source in sources:
        value = source.get("endpoint")
        if isinstance(value, str) and (_URL.match(value) or of_token):
            return value
    return token if _URL.match(token) else None


def _key(sources: list[tuple[bool, Mapping[str, Any]]], name: str) -> object:
    for _, source in sources:
        keys = _object(source.get("keys"))
        if keys is not None and name in keys:
            return keys[name]
        if name in source and (name == "p256dh" or "p256dh" in source):
            return source[name]
    return None


def _identity(url: str) -> str | None:
    """Return the URL in canonical form; None if it cannot be one of a push service."""
    if len(url) > _LONGEST_URL or not url.isprintable() or any(char.isspace() or char == "\\" for char in url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in {"https", "http"} or not host or port == 0 or "@" in parts.netloc or "#" in url:
        return None
    usual = "443" if parts.scheme == "https" else "80"
    place = re.sub(f"(:0*{usual}|:)$", "", parts.netloc.lower())
    return f"{parts.scheme}://{place}{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"


def _decoded(value: object) -> bytes | None:
    if not isinstance(value, str):
        return None
    match = _BASE64.fullmatch("".join(value.split()).replace("-", "+").replace("_", "/"))
    if match is None or len(match[1]) % 4 == 1:
        return None
    return base64.b64decode(match[1] + "=" * (-len(match[1]) % 4))


def _is_point(raw: bytes | None) -> bool:
    if raw is None or len(raw) != 65 or raw[0] != 4:
        return False
    x, y = int.from_bytes(raw[1:33], "big"), int.from_bytes(raw[33:], "big")
    return x < _P and y < _P and (y * y - (x * x * x - 3 * x + _B)) % _P == 0
