"""Start configuration (data folder, address, user), from arguments, the environment and platform defaults."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.named_tuple import NamedTuple

VERSION = "0.1.0"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8750
ACTIVITY_FILE = "user_activities.db"
NOTIFICATION_FILE = "notifications.db"


class Config(NamedTuple):
    """Start configuration; it does not change while the process runs."""

    data_dir: Path
    """Folder of the files."""
    host: str = DEFAULT_HOST
    """Address to listen on; another than loopback opens the port to the network."""
    port: int = DEFAULT_PORT
    """Port to listen on; 0 chooses a free one."""
    next_free_port: bool = False
    """Whether the next free port is used if the port is taken."""
    allowed_hosts: tuple[str, ...] = ()
    """Further host names that requests may use, each with or without a port."""
    me: str = "me"
    """Id of the user at this machine: the bell shows their inbox, and this computer is their device."""


def load_config(
    environ: Mapping[str, str],
    *,
    data_dir: str | None = None,
    host: str | None = None,
    port: int | None = None,
    next_free_port: bool = False,
    allowed_hosts: tuple[str, ...] = (),
) -> Config:
    """Build the configuration. Arguments override the environment, which overrides the platform's defaults.

    Raises ValidationError for an invalid value.
    """
    return Config(
        data_dir=_folder("--data-dir", data_dir) if data_dir else default_data_dir(environ),
        host=host or DEFAULT_HOST,
        port=_port(environ) if port is None else port,
        next_free_port=next_free_port,
        allowed_hosts=allowed_hosts,
        me=_user(environ),
    )


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Return ``FLASHFLOW_DATA_DIR``, Flet's folder in packaged apps and on phones, else the platform's data folder.

    Raises ValidationError where none can be determined.
    """
    if chosen := environ.get("FLASHFLOW_DATA_DIR"):
        return _folder("FLASHFLOW_DATA_DIR", chosen)
    if packaged := environ.get("FLET_APP_STORAGE_DATA"):
        return Path(packaged)
    hint = "; name a data folder with --data-dir or FLASHFLOW_DATA_DIR"
    if sys.platform != "win32" and not os.path.isabs(environ.get("HOME", os.sep)):
        # Python would resolve it against the working folder, which differs from start to start.
        raise ValidationError.of("HOME", f"{environ['HOME']!r} is not an absolute path{hint}")
    home = _folder("HOME", "~", hint)
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "FlashFlow"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "FlashFlow"
    xdg = environ.get("XDG_DATA_HOME", "")
    # The XDG specification ignores a relative path.
    return (_folder("XDG_DATA_HOME", xdg) if os.path.isabs(xdg) else home / ".local" / "share") / "flashflow"


def _folder(source: str, text: str, hint: str = "") -> Path:
    """Make ``text`` an absolute path. Raises ValidationError for the field ``source``."""
    try:
        path = Path(text).expanduser().absolute()
    except (RuntimeError, OSError) as error:
        # Unknown user, no home folder, or a working folder that was removed.
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise ValidationError.of(source, f"{text!r} names no folder ({words}){hint}") from None
    if not is_text(str(path)):
        raise ValidationError.of(source, f"the path {str(path)!r} is not UTF-8, which SQLite needs{hint}")
    return path


def _port(environ: Mapping[str, str]) -> int:
    text = environ.get("FLASHFLOW_PORT", "")
    if not text:
        return DEFAULT_PORT
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) <= 65535:
        raise ValidationError.of("FLASHFLOW_PORT", "must be a port number from 0 to 65535")
    return int(text)


def _user(environ: Mapping[str, str]) -> str:
    if chosen := environ.get("FLASHFLOW_USER"):
        if not _is_user_id(chosen):
            raise ValidationError.of("FLASHFLOW_USER", "must be 1 to 255 characters without control characters")
        return chosen
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        return "me"
    return name if _is_user_id(name) else "me"


def _is_user_id(text: str) -> bool:
    return len(text) <= 255 and not text.isspace() and is_text(text) and not any(c < " " or c == "\x7f" for c in text)


def is_text(text: str) -> bool:
    """Whether ``text`` can be encoded as UTF-8; undecodable bytes of an argument or variable cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
