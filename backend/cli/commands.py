"""Commands of the command line. They call the server that runs on the data folder, or open the folder without one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flashflow.backend.cli.process import complain, print_line, read_input
from flashflow.backend.cli.server_connection import running
from flashflow.backend.core.config import Config
from flashflow.backend.core.errors import FlashFlowError, ValidationError

if TYPE_CHECKING:
    from flashflow.backend.app import Backend

VERIFY_S = 1_800.0
DELIVER_S = 8.0


def send(
    config: Config,
    *,
    user: str,
    title: str,
    message: list[str],
    type: str | None,
    priority: str | None,
    channel: list[str] | None,
    data: str | None,
) -> None:
    """``flashflow send``: print the notification's id and the status of each delivery."""
    options = {
        "notification_type": type,
        "priority": priority,
        "channels": channel,
        "data": _parse_object(data, "--data"),
    }
    words = " ".join(message)
    body: dict[str, Any] = {
        "user_id": user,
        "title": title,
        "message": read_input().strip() if words == "-" else words,
        **_given(options),
    }
    if server := running(config):
        answer = server.ask("POST", "/api/notifications/send", body)
        deliveries = [(d["channel"], d["status"], d["reason"]) for d in answer["deliveries"]]
        print_line(str(answer["notification_id"]))
    else:
        with _open(config) as backend:
            backend.start(api=False)
            sent = backend.notifications.send_notification(**body)
            print_line(sent.notification_id)
            deliveries = _delivered(backend, sent.notification_id)
    for name, status, reason in deliveries:
        print_line(f"  {name}: {status}{f' ({reason})' if reason else ''}")


def _open(config: Config) -> Backend:
    """Open the data folder. The services are imported here, because a command beside a running server needs none."""
    from flashflow.backend.app import Backend

    return Backend(config)


def _delivered(backend: Backend, notification_id: str) -> list[tuple[str, str, str | None]]:
    """Wait until each delivery was attempted, DELIVER_S seconds at most; return (channel, status, reason)."""
    deadline = time.monotonic() + DELIVER_S
    while True:
        deliveries = backend.notifications.get_notification(notification_id).deliveries
        open_ = any(d.status in {"pending", "sending"} and d.code != "scheduled" and not d.attempts for d in deliveries)
        if not open_ or time.monotonic() > deadline:
            return [(d.channel, d.status, d.reason) for d in deliveries]
        time.sleep(0.05)


def track(
    config: Config, *, user: str, type: list[str], session: str | None, page_url: str | None, metadata: str | None
) -> None:
    """``flashflow track``: record an activity of each type; print their ids."""
    options = {"session_id": session, "page_url": page_url, "metadata": _parse_object(metadata, "--metadata")}
    for activity_type in type:
        body: dict[str, Any] = {"user_id": user, "activity_type": activity_type, **_given(options)}
        if server := running(config):
            activity_id = server.ask("POST", "/api/activity/track", body)["activity_id"]
        else:
            with _open(config) as backend:
                activity_id = backend.activity.track_activity(**body).activity_id
        if activity_id is None:
            raise FlashFlowError(f"Nothing was stored: there is no consent to track {user!r}.")
        print_line(str(activity_id))


def _parse_object(text: str | None, option: str) -> dict[str, Any] | None:
    """Parse a JSON object from the command line. Raises ValidationError."""
    if text is None:
        return None
    import msgspec

    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValidationError.of(option, f"is not a JSON object: {error}") from None


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def keys_add(config: Config, *, name: str, scope: str) -> None:
    """``flashflow keys add``: print the new key alone on the last line."""
    scopes = [each.strip() for each in scope.split(",") if each.strip()]
    if server := running(config):
        key = str(server.ask("POST", "/api/keys", {"name": name, "scopes": scopes})["key"])
    else:
        with _open(config) as backend:
            key, _ = backend.keys.add(name, scopes)
    try:
        print_line(f"The key of “{name}” ({', '.join(scopes)}). It is shown only now:\n{key}")
    except (FlashFlowError, BrokenPipeError) as error:
        _revoke(config, name)
        raise FlashFlowError(f"{error} The key “{name}” was never shown, so it is revoked again.") from error


def keys_list(config: Config) -> None:
    """``flashflow keys list``: print one key per line."""
    if server := running(config):
        rows = [(k["name"], k["scopes"], k["revoked_at"]) for k in server.ask("GET", "/api/keys")["keys"]]
    else:
        with _open(config) as backend:
            rows = [(k.name, list(k.scopes), k.revoked_at) for k in backend.keys.list()]
    print_line("local\tadmin\tin use")
    for name, scopes, revoked in rows:
        print_line(f"{name}\t{','.join(scopes)}\t{'revoked' if revoked else 'in use'}")


def keys_revoke(config: Config, *, name: str) -> None:
    """``flashflow keys revoke``: revoke a key."""
    _revoke(config, name)
    print_line(f"The key “{name}” is revoked.")


def _revoke(config: Config, name: str) -> None:
    if server := running(config):
        server.ask("DELETE", f"/api/keys/{quote(name, safe='')}")
    else:
        with _open(config) as backend:
            backend.keys.revoke(name)


def verify(config: Config, *, rebuild: bool) -> int:
    """``flashflow verify``: compare the rollups with the raw rows. Return 0 if they match or were rebuilt, else 1."""
    if server := running(config):
        answer = server.ask("POST", "/api/analytics/verify", {"rebuild": rebuild}, timeout=VERIFY_S)
        differences = [(d["table"], d["missing"], d["surplus"]) for d in answer["differences"]]
    else:
        with _open(config) as backend:
            rollups = backend.activity.rollups
            differences = [(d.table, d.missing, d.surplus) for d in rollups.verify()]
            if differences and rebuild:
                rollups.rebuild()
    for table, missing, surplus in differences:
        print_line(f"{table}: {missing} rows missing, {surplus} surplus")
    if not differences:
        print_line("All rollups match the activities.")
    elif rebuild:
        print_line("The rollups were recalculated from the activities.")
    else:
        complain("Some rollups differ; `flashflow verify --rebuild` recalculates them.")
        return 1
    return 0


def link(config: Config) -> None:
    """``flashflow link``: print an address that opens the running FlashFlow in a browser, once."""
    server = running(config)
    if server is None:
        raise FlashFlowError("FlashFlow is not running here. Start it with `flashflow serve`.")
    print_line(str(server.ask("POST", "/api/launch")["url"]))
