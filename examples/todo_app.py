"""A sibling app in thirty lines, without any package: it finds the local key and the address by itself.

python examples/todo_app.py          (with FlashFlow running on the same machine, for the same user)
"""

from __future__ import annotations

import getpass
import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend.config import default_data_dir

DATA = default_data_dir(os.environ)
API = json.loads((DATA / "server.json").read_text())["url"] + "/api"
KEY = (DATA / "local.key").read_text().strip()


def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One call of FlashFlow's API; raises urllib.error.HTTPError with a problem+json body when it is refused."""
    request = urllib.request.Request(  # noqa: S310 our own loopback address
        API + path,
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
    return found


if __name__ == "__main__":
    me = getpass.getuser()
    post("/activity/track", {"user_id": me, "activity_type": "task_done", "metadata": {"feature": "checklist"}})
    sent = post(
        "/notifications/send",
        {"user_id": me, "title": "All done", "message": "Nothing is left for today.", "channels": ["in_app", "push"]},
    )
    print(sent["status"], [(d["channel"], d["status"]) for d in sent["deliveries"]])  # noqa: T201
