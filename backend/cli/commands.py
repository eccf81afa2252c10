"""Commands of the command line. They call the server that runs on the data folder, or open the folder without one."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from flashflow.backend.app import SETTINGS_FILE, Backend
from flashflow.backend.cli.process import complain, print_line, read_input
from flashflow.backend.cli.server_connection import NotProven, running
from flashflow.backend.core.clock import SystemClock
from flashflow.backend.core.config import Config
from flashflow.backend.core.errors import AlreadyRunning, FlashFlowError, ValidationError
from flashflow.backend.delivery.channel_registry import ChannelRegistry
from flashflow.backend.settings.file import SettingsFile
from flashflow.backend.settings.keyring import secret_store
from flashflow.backend.settings.model import Settings

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
        with Backend(config) as backend:
            backend.start(api=False)
            sent = backend.notifications.send_notification(**body)
            print_line(sent.notification_id)
            deliveries = _delivered(backend, sent.notification_id)
    for name, status, reason in deliveries:
        print_line(f"  {name}: {status}{f' ({reason})' if reason else ''}")


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
            with Backend(config) as backend:
                activity_id = backend.activity.track_activity(**body).activity_id
        if activity_id is None:
            raise FlashFlowError(f"Nothing was stored: there is no consent to track {user!r}.")
        print_line(str(activity_id))


def _parse_object(text: str | None, option: str) -> dict[str, Any] | None:
    """Parse a JSON object from the command line. Raises ValidationError."""
    if text is None:
        return None
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
        with Backend(config) as backend:
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
        with Backend(config) as backend:
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
        with Backend(config) as backend:
            backend.keys.revoke(name)


def verify(config: Config, *, rebuild: bool) -> int:
    """``flashflow verify``: compare the rollups with the raw rows. Return 0 if they match or were rebuilt, else 1."""
    if server := running(config):
        answer = server.ask("POST", "/api/analytics/verify", {"rebuild": rebuild}, timeout=VERIFY_S)
        differences = [(d["table"], d["missing"], d["surplus"]) for d in answer["differences"]]
    else:
        with Backend(config) as backend:
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


def doctor(config: Config, display: str | None) -> int:
    """``flashflow doctor``: print one line per part of the system; ``display`` is the reason why no window can be
    shown. Return 0 if the storage works, else 1."""
    _print_state("display", display is None, display or "a window can be shown")
    url = None
    try:
        if server := running(config):
            url = server.url
    except NotProven as error:
        _print_state("server", False, str(error))
    works, detail = _storage(config, url)
    _print_state("storage", works, detail)
    _print_state("port", *_port(config, url))
    _print_channels(config)
    _print_state("python", True, f"{sys.version.split()[0]} on {sys.platform}")
    if not works:
        complain("flashflow: The storage cannot be used.")
    return 0 if works else 1


def _print_channels(config: Config) -> None:
    """Print the state of desktop notifications and of every configured channel; send nothing."""
    from flashflow.backend.delivery.desktop.channel import DesktopChannel

    file = SettingsFile(config.data_dir / SETTINGS_FILE, environ=os.environ, secrets=secret_store(os.environ))
    try:
        settings = file.load()
    except ValidationError as error:
        _print_state(SETTINGS_FILE, False, str(error))
        settings = Settings()
    channels = ChannelRegistry(config.data_dir, SystemClock(), DesktopChannel())
    queues = channels.build(settings)
    for state in channels.states():
        if state.name in queues:
            name = "native notifications" if state.name == "desktop" else state.label
            _print_state(name, state.works, state.detail)
    for queue in queues.values():
        queue.channel.close()


def _print_state(name: str, works: bool, detail: str) -> None:
    print_line(f"{'ok' if works else 'no':>3}  {name}: {detail}")


def _storage(config: Config, url: str | None) -> tuple[bool, str]:
    if url is not None:
        return True, f"{config.data_dir}, in use by the FlashFlow at {url}"
    try:
        with Backend(config) as backend:
            fault = backend.storage_fault()
            notices = " ".join(backend.notices)
    except AlreadyRunning:
        return True, f"{config.data_dir}, in use by another FlashFlow"
    except FlashFlowError as error:
        return False, str(error)
    if fault is not None:
        return False, f"{config.data_dir}: {fault}"
    return True, f"{config.data_dir}, both files sound and writable{f'. {notices}' if notices else ''}"


def _port(config: Config, url: str | None) -> tuple[bool, str]:
    if url is not None:
        return True, f"FlashFlow answers at {url}"
    with socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET) as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            return False, f"{config.host}:{config.port}: {error.strerror}"
    return True, f"{config.host}:{config.port} is free"
