"""The workspace's time zone, an IANA name: the machine's own unless ``TZ`` says another."""

from __future__ import annotations

import os
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_LINKS = (Path("/etc/localtime"), Path("/var/db/timezone/localtime"))


def workspace_zone() -> ZoneInfo:
    """The zone of this machine; UTC where it cannot be told."""
    for name in _names():
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
    return ZoneInfo("UTC")


def _names() -> list[str]:
    names = [os.environ.get("TZ", "").removeprefix(":")]
    for link in _LINKS:
        _, found, name = str(link.resolve()).partition("zoneinfo/")
        if found:
            names.append(name)
    timezone = Path("/etc/timezone")
    if timezone.is_file():
        names.append(timezone.read_text(encoding="utf-8").strip())
    return [name for name in names if name]
