"""Notices posted for e-mail while the server is killed again and again: what of them arrived, and how often.

A caller that got no answer posts again under the same Idempotency-Key, as README.md tells apps to; the server is killed
with SIGKILL in the middle of its deliveries and started again on the same folder.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.support.server_process import ServerProcess, eventually, serving
from tests.support.smtp_server import SmtpServer

CALLERS = 8
CONNECTIONS = 4
WORKERS = 2 * CONNECTIONS
"""Deliveries that a kill can catch in workers' hands: one to a connection, and as many that stand by."""
DEADLINE_S = 300.0
ENV = {"FLASHFLOW_USER": "me", "FLASHFLOW_KEYRING": "off"}


class Outcome(NamedTuple):
    """``answers`` is notification id → title for every 2xx, ``arrivals`` title → how many mails of it were taken,
    ``again`` the ids whose attempts say that one was interrupted, ``kills`` how often the server was killed."""

    answers: dict[str, str]
    arrivals: Counter[str]
    message_ids: int
    again: set[str]
    statuses: Counter[str]
    kills: int


class Callers:
    """Threads that post ``posts`` notices, each until it is answered."""

    def __init__(self, posts: int) -> None:
        self.answers: dict[str, str] = {}
        self._left = [f"notice-{number}" for number in range(posts)]
        self._server: ServerProcess | None = None
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CALLERS)]
        self.faults: list[str] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(DEADLINE_S)
        assert not any(thread.is_alive() for thread in self._threads), "callers still wait for their answers"

    def use(self, server: ServerProcess | None) -> None:
        """Post to this one; None: there is none at the moment."""
        with self._changed:
            self._server = server
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._left:
                    return
                title = self._left.pop()
            while not self._posted(title):
                pass

    def _posted(self, title: str) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._server is not None, DEADLINE_S)
            server = self._server
        if server is None:
            return False
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
            body = json.dumps({"user_id": "ada", "title": title, "message": "M", "channel": "email"})
            headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
            try:
                connection.request("POST", "/api/notifications/send", body, {**headers, "Idempotency-Key": title})
                answer = connection.getresponse()
                told = json.loads(answer.read())
            finally:
                connection.close()
            with self._changed:
                if answer.status == 201:
                    self.answers[told["notification_id"]] = title
                else:
                    self.faults.append(f"{answer.status} {told}")
            return True
        return False


def post_and_kill(folder: Path, mail: SmtpServer, posts: int, kills: int, chance: random.Random) -> Outcome:
    """Run it to the end: every notice answered, every delivery over."""
    (folder / "flashflow.toml").write_text(
        f'[channels.email]\nhost = "{mail.host}"\nport = {mail.port}\nsecurity = "none"\nfrom = "hub@example.org"\n'
        f"connections = {CONNECTIONS}\n[delivery]\nbase_delay = 0.01\nmax_attempts = 100\n",
        encoding="utf-8",
    )
    with serving(folder, env=ENV) as server:
        server.api("POST", "/api/users/ada/contacts", {"email": "ada@example.org"})
    callers = Callers(posts)
    callers.start()
    marks = sorted(chance.randrange(1, posts) for _ in range(kills))
    for mark in marks:
        with serving(folder, env=ENV) as server:
            callers.use(server)
            reached = max(mark, len(mail.mails) + 1)
            eventually(lambda reached=reached: len(mail.mails) >= reached, DEADLINE_S)  # type: ignore[misc]
            server.process.kill()
            callers.use(None)
            server.kill()
    with serving(folder, env=ENV) as server:
        callers.use(server)
        callers.join()
        assert callers.faults == []
        return _outcome(server, mail, callers.answers, kills)


def _outcome(server: ServerProcess, mail: SmtpServer, answers: dict[str, str], kills: int) -> Outcome:
    end = time.monotonic() + DEADLINE_S
    while True:
        found = list(server.everything("/api/notifications/user/ada", "notifications", status="all"))
        statuses = Counter(row["status"] for row in found)
        if "pending" not in statuses or time.monotonic() > end:
            break
    arrivals = Counter(str(one.message["Subject"]) for one in mail.mails)
    twice = {title for title, count in arrivals.items() if count > 1}
    details = (server.api("GET", f"/api/notifications/{row['id']}").json() for row in found if row["title"] in twice)
    again = {
        told["notification"]["id"]
        for told in details
        for delivery in told["notification"]["deliveries"]
        if any(attempt["code"] == "interrupted" for attempt in delivery["attempts"])
    }
    ids = len({str(one.message["Message-ID"]) for one in mail.mails})
    return Outcome(answers, arrivals, ids, again, statuses, kills)
