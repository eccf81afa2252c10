"""Commands of the command line. They call the server that runs on the data folder, or open the folder without one."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from flashflow.backend.app import SETTINGS_FILE, Backend
from flashflow.backend.cli.server_connection import NotProven, ask, running
from flashflow.backend.core.clock import SystemClock
from flashflow.backend.core.config import Config
from flashflow.backend.core.errors import AlreadyRunning, FlashFlowError, ValidationError
from flashflow.backend.delivery.channel_registry import ChannelRegistry
from flashflow.backend.settings.file import SettingsFile
from flashflow.backend.settings.keyring import secret_store
from flashflow.backend.settings.model import Settings

Say = Callable[[str], None]
VERIFY_S = 1_800.0
DELIVER_S = 8.0


def send(config: Config, say: Say, user: str, title: str, message: str, options: Mapping[str, Any]) -> None:
    """``flashflow send``: print the notification's id and the status of each delivery."""
    body = {"user_id": user, "title": title, "message": message, **options}
    url = running(config)
    if url is not None:
        answer = ask(config, url, "POST", "/api/notifications/send", body)
        deliveries = [(d["channel"], d["status"], d["reason"]) for d in answer["deliveries"]]
        say(str(answer["notification_id"]))
    else:
        with Backend(config) as backend:
            backend.start(api=False)
            sent = backend.notifications.send_notification(**body)
            say(sent.notification_id)
            deliveries = _delivered(backend, sent.notification_id)
    for channel, status, reason in deliveries:
        say(f"  {channel}: {status}{f' ({reason})' if reason else ''}")


def _delivered(backend: Backend, notification_id: str) -> list[tuple[str, str, str | None]]:
    """Wait until each delivery was attempted, DELIVER_S seconds at most; return (channel, status, reason)."""
    deadline = time.monotonic() + DELIVER_S
    while True:
        deliveries = backend.notifications.get_notification(notification_id).deliveries
        open_ = any(d.status in {"pending", "sending"} and d.code != "scheduled" and not d.attempts for d in deliveries)
        if not open_ or time.monotonic() > deadline:
            return [(d.channel, d.status, d.reason) for d in deliveries]
        time.sleep(0.05)


def track(config: Config, say: Say, user: str, activity_type: str, options: Mapping[str, Any]) -> None:
    """``flashflow track``: print the activity's id."""
    body = {"user_id": user, "activity_type": activity_type, **options}
    url = running(config)
    if url is not None:
        activity_id = ask(config, url, "POST", "/api/activity/track", body)["activity_id"]
    else:
        with Backend(config) as backend:
            activity_id = backend.activity.track_activity(**body).activity_id
    if activity_id is None:
        raise FlashFlowError(f"Nothing was stored: there is no consent to track {user!r}.")
    say(str(activity_id))


def keys_add(config: Config, say: Say, name: str, scopes: Sequence[str]) -> None:
    """``flashflow keys add``: print the new key alone on the last line."""
    url = running(config)
    if url is not None:
        key = str(ask(config, url, "POST", "/api/keys", {"name": name, "scopes": list(scopes)})["key"])
    else:
        with Backend(config) as backend:
            key, _ = backend.keys.add(name, scopes)
    try:
        say(f"The key of “{name}” ({', '.join(scopes)}). It is shown only now:\n{key}")
    except (FlashFlowError, BrokenPipeError) as error:
        _revoke(config, name)
        raise FlashFlowError(f"{error} The key “{name}” was never shown, so it is revoked again.") from error


def keys_list(config: Config, say: Say) -> None:
    """``flashflow keys list``: print one key per line."""
    url = running(config)
    if url is not None:
        rows = [(k["name"], k["scopes"], k["revoked_at"]) for k in ask(config, url, "GET", "/api/keys")["keys"]]
    else:
        with Backend(config) as backend:
            rows = [(k.name, list(k.scopes), k.revoked_at) for k in backend.keys.list()]
    say("local\tadmin\tin use")
    for name, scopes, revoked in rows:
        say(f"{name}\t{','.join(scopes)}\t{'revoked' if revoked else 'in use'}")


def keys_revoke(config: Config, say: Say, name: str) -> None:
    """``flashflow keys revoke``: revoke a key."""
    _revoke(config, name)
    say(f"The key “{name}” is revoked.")


def _revoke(config: Config, name: str) -> None:
    url = running(config)
    if url is not None:
        ask(config, url, "DELETE", f"/api/keys/{quote(name, safe='')}")
    else:
        with Backend(config) as backend:
            backend.keys.revoke(name)


def verify(config: Config, say: Say, *, rebuild: bool) -> bool:
    """``flashflow verify``: compare the rollups with the raw rows. Return whether they match, or were rebuilt."""
    url = running(config)
    if url is not None:
        answer = ask(config, url, "POST", "/api/analytics/verify", {"rebuild": rebuild}, timeout=VERIFY_S)
        differences = [(d["table"], d["missing"], d["surplus"]) for d in answer["differences"]]
    else:
        with Backend(config) as backend:
            rollups = backend.activity.rollups
            differences = [(d.table, d.missing, d.surplus) for d in rollups.verify()]
            if differences and rebuild:
                rollups.rebuild()
    for table, missing, surplus in differences:
        say(f"{table}: {missing} rows missing, {surplus} surplus")
    if not differences:
        say("All rollups match the activities.")
    elif rebuild:
        say("The rollups were recalculated from the activities.")
    return rebuild or not differences


def link(config: Config, say: Say) -> None:
    """``flashflow link``: print an address that opens the running FlashFlow in a browser, once."""
    url = running(config)
    if url is None:
        raise FlashFlowError("FlashFlow is not running here. Start it with `flashflow serve`.")
    say(str(ask(config, url, "POST", "/api/launch")["url"]))


def parse_object(text: str | None, option: str) -> dict[str, Any] | None:
    """Parse a JSON object from the command line. Raises ValidationError."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValidationError.of(option, f"is not a JSON object: {error}") from None


def doctor(config: Config, say: Say, display: str | None) -> bool:
    """``flashflow doctor``: print one line per part of the system. Return whether the storage works."""
    say(_line("display", display is None, display or "a window can be shown"))
    try:
        url = running(config)
    except NotProven as error:
        url = None
        say(_line("server", False, str(error)))
    storage, detail = _storage(config, url)
    say(_line("storage", storage, detail))
    say(_line("port", *_port(config, url)))
    _channels(config, say)
    say(_line("python", True, f"{sys.version.split()[0]} on {sys.platform}"))
    return storage


def _channels(config: Config, say: Say) -> None:
    """Print the state of desktop notifications and of every configured channel; send nothing."""
    from flashflow.backend.delivery.desktop.channel import DesktopChannel

    file = SettingsFile(config.data_dir / SETTINGS_FILE, environ=os.environ, secrets=secret_store(os.environ))
    try:
        settings = file.load()
    except ValidationError as error:
        say(_line(SETTINGS_FILE, False, str(error)))
        settings = Settings()
    channels = ChannelRegistry(config.data_dir, SystemClock(), DesktopChannel())
    queues = channels.build(settings)
    for state in channels.states():
        if state.name in queues:
            name = "native notifications" if state.name == "desktop" else state.label
            say(_line(name, state.works, state.detail))
    for queue in queues.values():
        queue.channel.close()


def _line(name: str, works: bool, detail: str) -> str:
    return f"{'ok' if works else 'no':>3}  {name}: {detail}"


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
