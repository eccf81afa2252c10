"""Commands that erase and readmit a user."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from flashflow.backend.api.framework.serializers import to_json_types
from flashflow.backend.app import Backend
from flashflow.backend.cli.process import print_line
from flashflow.backend.cli.server_connection import running
from flashflow.backend.core.config import Config
from flashflow.backend.core.errors import FlashFlowError, NotFound, StorageError
from flashflow.backend.schemas.requests import UserPath, build

ERASE_S = 1_800.0
"""Seconds; an erasure rewrites the files and their backups."""

_KINDS = {
    "activities": ("activity", "activities"),
    "sessions": ("session", "sessions"),
    "consents": ("consent", "consents"),
    "notifications": ("notification", "notifications"),
    "deliveries": ("delivery", "deliveries"),
    "attempts": ("attempt", "attempts"),
    "preferences": ("preference", "preferences"),
    "contacts": ("entry of contacts", "entries of contacts"),
    "quiet_hours": ("entry of quiet hours", "entries of quiet hours"),
    "digests": ("digest", "digests"),
    "throttles": ("throttle", "throttles"),
    "devices": ("device", "devices"),
    "schedules": ("recurring notification", "recurring notifications"),
    "rules": ("rule", "rules"),
}


def erase(config: Config, *, user: str, yes: bool, even_if_unknown: bool) -> None:
    """``flashflow erase``: print what was removed and what remains. Ask on the terminal unless ``yes``."""
    user = _user(user)
    if not yes:
        _confirm(user)
    try:
        result = _erased(config, user, even_if_unknown=even_if_unknown)
    except NotFound as unknown:
        raise NotFound(f"{unknown} --even-if-unknown creates a tombstone anyway.") from None
    removed = [_count(count, kind) for kind, count in result["removed"].items() if count]
    if removed:
        print_line(f"“{user}” is erased. Removed: {', '.join(removed)}.")
    else:
        print_line(f"Nothing was stored of “{user}”.")
    print_line(_SWEPT if result["swept"] else _NOT_SWEPT)
    if backups := result["backups_removed"]:
        print_line(f"Backups removed: {backups:,}; fresh ones took their place.")
    else:
        print_line("No backup had to be removed.")
    print_line(_REMAINS)
    if result["remains"]:
        print_line(f"These are unchanged and may still contain the user: {', '.join(result['remains'])}.")


_SWEPT = "The files' free pages were swept."
_NOT_SWEPT = (
    "The files' free pages could not be swept now, and may still contain erased rows. "
    "The sweep is tried again at the next start, and every minute while FlashFlow runs."
)
_REMAINS = (
    "Remaining: a tombstone, which refuses new data of this user (`flashflow readmit` lifts it), and copies outside "
    "the data folder."
)


def readmit(config: Config, *, user: str) -> None:
    """``flashflow readmit``: lift an erasure; print whether there was one."""
    user = _user(user)
    if server := running(config):
        lifted = bool(server.ask("POST", f"/api/users/{quote(user, safe='')}/readmit")["readmitted"])
    else:
        with Backend(config) as backend:
            lifted = backend.erasing.readmit(user)
    if lifted:
        print_line(f"“{user}” may be stored again; erased data stays erased.")
    else:
        print_line(f"“{user}” is not erased; nothing was changed.")


def _erased(config: Config, user: str, *, even_if_unknown: bool) -> Mapping[str, Any]:
    if server := running(config):
        path = f"/api/users/{quote(user, safe='')}" + ("?even_if_unknown=true" if even_if_unknown else "")
        return server.ask("DELETE", path, timeout=ERASE_S)
    with Backend(config) as backend:
        try:
            return to_json_types(backend.erasing.erase(user, even_if_unknown=even_if_unknown))
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"The erasure is not finished: {error}. The next start goes on with it.") from error


def _user(user: str) -> str:
    """Validate a user id as the API does. Raises ValidationError."""
    return build(UserPath, user_id=user).user_id


def _confirm(user: str) -> None:
    """Ask for confirmation on the terminal. Raises FlashFlowError without a terminal, or without consent."""
    if not sys.stdin.isatty():
        raise FlashFlowError("Nothing was erased: without a terminal, --yes is required.")
    sys.stderr.write(f"Erase everything stored of “{user}”, and all earlier backups, for good? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise FlashFlowError("Nothing was erased.")


def _count(count: int, kind: str) -> str:
    one, many = _KINDS[kind]
    return f"{count:,} {one if count == 1 else many}"
