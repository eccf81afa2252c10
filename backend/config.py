"""Where FlashFlow lives and listens: read once at start from arguments, the environment and the platform."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from backend.errors import ValidationError

VERSION = "0.1.0"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8750
ACTIVITY_FILE = "user_activities.db"
NOTIFICATION_FILE = "notifications.db"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is decided before anything starts."""

    data_dir: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    next_free_port: bool = False
    allowed_hosts: tuple[str, ...] = ()
    me: str = "me"
    """The user at this machine: whose inbox the bell shows, whose device this computer is."""


def load_config(
    environ: Mapping[str, str],
    *,
    data_dir: str | None = None,
    host: str | None = None,
    port: int | None = None,
    next_free_port: bool = False,
    allowed_hosts: tuple[str, ...] = (),
) -> Config:
    """Arguments win over the environment, the environment over the platform's defaults.

    Raises ValidationError where a value cannot be what it says.
    """
    return Config(
        data_dir=Path(data_dir).expanduser().absolute() if data_dir else default_data_dir(environ),
        host=host or DEFAULT_HOST,
        port=_port(environ) if port is None else port,
        next_free_port=next_free_port,
        allowed_hosts=allowed_hosts,
        me=environ.get("FLASHFLOW_USER") or _login_name(),
    )


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """``FLASHFLOW_DATA_DIR``, on phones and in packaged apps Flet's folder, else the platform's own place."""
    if chosen := environ.get("FLASHFLOW_DATA_DIR"):
        return Path(chosen).expanduser().absolute()
    if packaged := environ.get("FLET_APP_STORAGE_DATA"):
        return Path(packaged)
    home = Path.home()
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "FlashFlow"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "FlashFlow"
    xdg = environ.get("XDG_DATA_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    return (Path(xdg) if os.path.isabs(xdg) else home / ".local" / "share") / "flashflow"


def _port(environ: Mapping[str, str]) -> int:
    text = environ.get("FLASHFLOW_PORT", "")
    if not text:
        return DEFAULT_PORT
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) <= 65535:
        raise ValidationError.of("FLASHFLOW_PORT", "must be a port number from 0 to 65535")
    return int(text)


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "me"
