"""A sibling app: the client finds FlashFlow and the local key by itself, and has the server prove that it is FlashFlow
before it sends the key.

python examples/todo_app.py          (with FlashFlow running on the same machine, for the same user)
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flashflow.client import Client, NotProven, Unreachable

if __name__ == "__main__":
    with Client(app="todo") as client:
        try:
            client.inbox()
        except NotProven:
            sys.exit("Another program listens on FlashFlow's port.")
        except Unreachable as error:
            sys.exit(f"{error}. What is tracked now would be delivered once it runs.")
        client.track("task_done", {"feature": "checklist"})
        sent = client.send("All done", "Nothing is left for today.", channels=["in_app", "push"])
        print(sent.status, [(each["channel"], each["status"]) for each in sent.deliveries])  # noqa: T201
