"""A sibling app without any package: it finds the local key and the address by itself, and has the server prove that
it is FlashFlow before it sends the key.

python examples/todo_app.py          (with FlashFlow running on the same machine, for the same user)
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import json
import os
import secrets
import sys
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flashflow.backend.core.config import default_data_dir

DATA = default_data_dir(os.environ)
API = json.loads((DATA / "server.json").read_text())["url"] + "/api"
KEY = (DATA / "local.key").read_text().strip()


def prove() -> None:
    """Check that the program at the address knows the key, as docs/clients.md describes it; exit when it does not."""
    digest, nonce = hashlib.sha256(KEY.encode()).digest(), secrets.token_bytes(32)
    key_id = hashlib.sha256(b"id" + digest).hexdigest()[:16]
    address = API.removeprefix("http://").removesuffix("/api")
    expected = hmac.new(digest, b"flashflow-proof-1" + nonce + address.encode(), "sha256").hexdigest()
    if not hmac.compare_digest(post("/proof", {"key_id": key_id, "nonce": nonce.hex()}, {})["proof"], expected):
        sys.exit("Another program listens on FlashFlow's port.")


def post(path: str, body: dict[str, Any], key: dict[str, str]) -> dict[str, Any]:
    """One call of FlashFlow's API; raises urllib.error.HTTPError with a problem+json body when it is refused."""
    request = urllib.request.Request(  # noqa: S310 our own loopback address
        API + path, json.dumps(body).encode(), {"Content-Type": "application/json", **key}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
    return found


if __name__ == "__main__":
    me = getpass.getuser()
    prove()
    key = {"Authorization": f"Bearer {KEY}"}
    post("/activity/track", {"user_id": me, "activity_type": "task_done", "metadata": {"feature": "checklist"}}, key)
    sent = post(
        "/notifications/send",
        {"user_id": me, "title": "All done", "message": "Nothing is left for today.", "channels": ["in_app", "push"]},
        key,
    )
    print(sent["status"], [(d["channel"], d["status"]) for d in sent["deliveries"]])  # noqa: T201
