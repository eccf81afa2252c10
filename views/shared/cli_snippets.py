"""Terminal commands shown on empty screens. Pure functions, no Flet."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping


def send_command(url: str | None, me: str) -> str:
    """Return a command that sends ``me`` a notification: curl, or the command line when the API is off."""
    if url is None:
        return shlex.join(["flashflow", "send", me, "Hello", "It works"])
    return _post(url, "/api/notifications/send", {"user_id": me, "title": "Hello", "message": "It works"})


def track_command(url: str | None, me: str) -> str:
    """Return a command that records an activity of ``me``."""
    if url is None:
        return shlex.join(["flashflow", "track", me, "page_view"])
    return _post(url, "/api/activity/track", {"user_id": me, "activity_type": "page_view", "page_url": "/"})


def _post(url: str, path: str, body: Mapping[str, str]) -> str:
    return (
        f'curl {shlex.quote(url.rstrip("/") + path)} -H "Authorization: Bearer $(flashflow key)" '
        f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )
