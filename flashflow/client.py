"""Client of a local FlashFlow: track activities, send notifications, read the inbox, follow events.

One file, standard library only: import ``flashflow.client``, or copy the file into a project.

    client = Client(app="todo")
    client.track("task_done", {"feature": "checklist"})
    client.send("All done", "Nothing is left for today.")

``track`` returns when the row is in ``<data folder>/client/<app>.queue``; a thread delivers it. A row that the server
refuses moves to the table ``rejected`` with the server's message. docs/client.md describes every promise.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import getpass
import hashlib
import hmac
import http.client
import inspect
import json
import logging
import math
import os
import random
import re
import socket
import sqlite3
import ssl
import stat
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast
from urllib.parse import quote, urlencode, urlsplit

__all__ = [
    "Client", "ClientError", "Event", "Inbox", "NotProven", "NotificationHandler", "QueueError", "QueueFull", "Refused",
    "Rejected", "Sent", "Unreachable", "configure", "default_client", "flush", "inbox", "mark_read", "send", "session",
    "stream", "track", "tracked",
]  # fmt: skip

LOGGER = "flashflow.client"
log = logging.getLogger(LOGGER)

SCHEMA_VERSION = 1
MOST_ROWS = 100_000
"""Rows that wait at most; the oldest are dropped and counted."""
MOST_QUEUE_BYTES = 256 * 1024 * 1024
MOST_REJECTED = 10_000
BATCH_ROWS = 1_000
BATCH_BYTES = 1_000_000
"""Below the server's limit of 1 MiB for a body."""
ROW_BYTES = 900_000
ANSWER_BYTES = 32 * 1024 * 1024
PROOF_BYTES = 64 * 1024
EVENT_BYTES = 4 * 1024 * 1024
CONNECT_S = 5.0
ASK_S = 15.0
SEND_S = 2.0
LINGER_S = 0.05
"""Time to collect rows for one batch after the first one."""
IDLE_S = 30.0
"""The sender thread ends after this time without a row and an open session."""
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 60.0
HOLD_S = 30.0
"""Interval of looking for a valid key after 401, 403 or a failed proof."""
LOOK_S = 5.0
"""Longest wait while the data folder has no address: looking again costs no connection."""
LONGEST_RETRY_AFTER_S = 3_600.0
LEASE_MS = 60_000
LATE_MS = 60_000
"""Age from which the start or end of a session is not sent: the server would use the time of arrival. It takes the
session's times from its activities instead."""
MOST_CONFLICTS = 5
HEARTBEAT_S = 300.0
SILENCE_S = 45.0
"""A stream without a byte for this long is dead; the server pings every 15 s."""
EXIT_S = 1.0
LOCK_S = 10.0
LEASE_WAIT_S = 0.2
"""Interval of trying to become the sender while another process is."""
MOST_IDLE = 4
"""Connections kept open for the next request."""

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Json = dict[str, Any]


class ClientError(Exception):
    """Base class of this module's errors. A wrong argument is a ValueError."""


class Unreachable(ClientError):
    """No FlashFlow answered properly in time. ``retry_after`` seconds were asked for, or 0."""

    retry_after = 0.0


class NotProven(Unreachable):
    """The program at the address did not prove that it knows the key, or a file of the data folder may be another
    user's; the key was not sent."""


class Refused(ClientError):
    """The server refused the request. ``code`` and ``errors`` are those of its problem+json."""

    def __init__(self, status: int, problem: Json) -> None:
        super().__init__(_words_of(status, problem))
        self.status = status
        self.code = str(problem.get("code", ""))
        self.errors: list[Json] = [error for error in _list(problem.get("errors")) if isinstance(error, dict)]


class QueueError(ClientError):
    """The queue file could not store the row."""


class QueueFull(QueueError):
    """The queue has its maximum of rows; raised with ``strict=True`` only."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Outcome of ``send``. ``status`` is the server's, or ``queued``: it is delivered later; ``lost``: the queue file
    could not store it; ``disabled``."""

    status: str
    notification_id: str | None = None
    deliveries: tuple[Json, ...] = ()
    answer: Json | None = None


class Inbox(NamedTuple):
    """One page of the inbox, newest first; ``next_cursor`` is None on the last page."""

    notifications: list[Json]
    unread_count: int
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the stream: ``notification``, ``notification.updated``, ``activity`` or ``session``."""

    id: str
    event: str
    data: Json


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that the server refused for good, and why."""

    kind: str
    body: Json
    status: int
    message: str
    at: datetime


# --- values -----------------------------------------------------------------------------------------------------------

# The server's rules: no control characters, one visible character; a type has no asterisk.
_NAME = re.compile(r"(?=[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])[^\x00-\x1f\x7f]*")
_TYPE = re.compile(r"(?=[^\x00-\x1f\x7f*]*[^\x00-\x20\x7f*])[^\x00-\x1f\x7f*]*")
_TEXT = re.compile(r"(?=[^\x00]*[^\x00-\x20])[^\x00]*")
_APP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY = re.compile(r"[\x21-\x7e]{1,512}")
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _checked(field: str, value: str, most: int, pattern: re.Pattern[str] = _NAME) -> str:
    """Return ``value``. Raises ValueError if it is no text of 1 to ``most`` characters that ``pattern`` accepts."""
    if not isinstance(value, str) or len(value) > most or pattern.fullmatch(value) is None:
        raise ValueError(f"{field} must be a text of 1 to {most} characters without control characters")
    return value


def _json(value: Json) -> bytes:
    """Encode one row. Raises ValueError for values without a JSON form and rows that are too long."""
    try:
        text = _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not plain JSON: {error}") from None
    if len(text) > ROW_BYTES:
        raise ValueError(f"{len(text):,} bytes are too long; {ROW_BYTES:,} are allowed")
    return text


def _object(field: str, value: Mapping[str, Any]) -> Json:
    if not isinstance(value, Mapping):
        raise ValueError(f"{field} must be a mapping")
    return dict(value)


def _time_text(field: str, value: datetime) -> str:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(f"{field} must be a datetime with a time zone")
    return value.isoformat(timespec="milliseconds")


def _uuid7() -> str:
    """Return a UUIDv7 (RFC 9562): sortable by creation."""
    number = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10), "big")
    text = f"{number & ~(0xF << 76) & ~(3 << 62) | 7 << 76 | 2 << 62:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _words_of(status: int, problem: Json) -> str:
    """Return the server's message: its detail and each wrong field."""
    fields = [f"{e.get('field')}: {e.get('message')}" for e in _list(problem.get("errors")) if isinstance(e, dict)]
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
    return "; ".join([detail, *(field for field in fields if field not in detail)])[:2_000]


# --- data folder ------------------------------------------------------------------------------------------------------


def data_folder(environ: Mapping[str, str]) -> Path:
    """Return FlashFlow's data folder: ``FLASHFLOW_DATA_DIR``, Flet's folder in packaged apps, else the platform's.

    The rule of ``backend/core/config.py``, repeated because this file is copied into projects. Raises OSError.
    """
    try:
        if chosen := environ.get("FLASHFLOW_DATA_DIR"):
            return Path(chosen).expanduser().absolute()
        if packaged := environ.get("FLET_APP_STORAGE_DATA"):
            return Path(packaged)
        if sys.platform != "win32" and not os.path.isabs(environ.get("HOME", os.sep)):
            raise OSError(f"HOME is {environ['HOME']!r}, not an absolute path")
        home = Path("~").expanduser()
    except RuntimeError as error:
        raise OSError(str(error)) from None
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "FlashFlow"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "FlashFlow"
    xdg = environ.get("XDG_DATA_HOME", "")
    return (Path(xdg) if os.path.isabs(xdg) else home / ".local" / "share") / "flashflow"


def _check_owner(path: Path, found: os.stat_result, forbidden: int) -> None:
    """Raise OSError where another user owns ``path`` or has a permission of ``forbidden``."""
    if sys.platform != "win32":
        if found.st_uid != os.geteuid():
            raise OSError(f"{path} belongs to another user")
        if found.st_mode & forbidden:
            raise OSError(f"{path} has mode {stat.S_IMODE(found.st_mode):03o}; other users may change or read it")


def _open_private(path: Path, flags: int) -> int:
    """Open a file that only this user can read and write; return its descriptor. Raises OSError, for links too."""
    if path.is_symlink():  # O_NOFOLLOW does the same without a race, where it exists
        raise OSError(f"{path} is a symbolic link")
    # Without O_NONBLOCK a named pipe would block.
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o600)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a regular file")
        _check_owner(path, found, 0o077)
    except OSError:
        os.close(handle)
        raise
    return handle


def _read_private(path: Path) -> str:
    with open(_open_private(path, os.O_RDONLY), "rb") as file:
        return file.read(4_096).decode("utf-8", "replace").strip()


class _Server(NamedTuple):
    """Address and key. ``names_app``: the key is the local one, so rows name their app."""

    url: str
    key: str
    names_app: bool


def _local(folder: Path, name: str) -> str:
    """Return the content of a file in the data folder. Raises Unreachable with the reason."""
    try:
        _check_owner(folder, folder.stat(), 0o022)
        return _read_private(folder / name)
    except FileNotFoundError:
        raise Unreachable(f"FlashFlow is not running: there is no {folder / name}") from None
    except OSError as error:
        raise NotProven(f"{folder / name} is not used: {error.strerror or error}.") from None


def _local_url(folder: Path) -> str:
    try:
        return str(json.loads(_local(folder, "server.json"))["url"])
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Unreachable(f"{folder / 'server.json'} has no address") from None


# --- connection -------------------------------------------------------------------------------------------------------


class _Socket(socket.socket):
    """Socket whose reads and writes end at ``deadline``, however slowly bytes arrive."""

    deadline = 0.0

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self.settimeout(_left(self.deadline))
        return super().recv_into(*arguments, **options)

    def sendall(self, *arguments: Any, **options: Any) -> None:
        self.settimeout(_left(self.deadline))
        super().sendall(*arguments, **options)


class _TlsSocket(_Socket, ssl.SSLSocket):
    """The same over TLS."""


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


class _Answer(NamedTuple):
    status: int
    body: Json
    retry_after: float

    @property
    def is_problem(self) -> bool:
        """Whether FlashFlow itself refused, not a program between."""
        return 400 <= self.status < 500 and self.body.get("success") is False and "code" in self.body

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300 and self.body.get("success") is True

    @property
    def is_final(self) -> bool:
        """Whether the same request would be refused again."""
        return self.is_problem and self.status not in {401, 403, 408, 409, 425, 429}


class _Connection:
    """Connection to a server that has proven that it knows the key. Raises Unreachable, NotProven."""

    def __init__(self, server: _Server, deadline: float) -> None:
        self.server = server
        self._socket: _Socket | None = None
        with self._answering():
            parts = urlsplit(server.url)
            host, tls = parts.hostname or "", parts.scheme == "https"
            if parts.scheme not in {"http", "https"} or not host:
                raise ValueError("not an http address")
            if host == "localhost":
                host = "127.0.0.1"  # ::1 may be another program, which relays the proof
            self._prefix = parts.path.rstrip("/")
            standard = 443 if tls else 80
            self._http = http.client.HTTPConnection(host, parts.port or standard)
            self._http.default_port = standard
            raw = socket.create_connection((host, self._http.port), min(CONNECT_S, _left(deadline)))
            self._socket = _Socket(fileno=raw.detach())
            self._socket.settimeout(_left(deadline))
            if tls:
                context = ssl.create_default_context()
                context.sslsocket_class = _TlsSocket
                self._socket = cast("_TlsSocket", context.wrap_socket(self._socket, server_hostname=host))
            self._http.sock = self._socket
            self._http.auto_open = 0  # the key must not be sent on a second, unproven connection
            self._prove(deadline)

    def _prove(self, deadline: float) -> None:
        digest, nonce = hashlib.sha256(self.server.key.encode()).digest(), os.urandom(32)
        challenge = {"key_id": hashlib.sha256(b"id" + digest).hexdigest()[:16], "nonce": nonce.hex()}
        response = self._request("POST", "/api/proof", _json(challenge), {}, deadline)
        proof = str(self._object(response, PROOF_BYTES).get("proof"))
        host = f"[{self._http.host}]" if ":" in self._http.host else self._http.host
        port = 80 if self._http.port == self._http.default_port else self._http.port
        address = f"{host}:{port}".lower().encode()
        expected = hmac.new(digest, b"flashflow-proof-1" + nonce + address, "sha256").hexdigest()
        if not hmac.compare_digest(proof.encode("utf-8", "replace"), expected.encode()):
            self.close()
            raise NotProven(
                f"The program at {self.server.url} did not prove that it is FlashFlow and knows the key "
                f"(HTTP {response.status}). The key was not sent."
            )

    def ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], deadline: float) -> _Answer:
        """Send one request and read the whole answer. Redirects are answers like any other."""
        with self._answering():
            response = self._request(method, path, body, self._with_key(headers), deadline)
            answer = self._object(response, ANSWER_BYTES)
            retry_after = _retry_after(response.headers.get("Retry-After", ""))
            if response.will_close:
                self.close()
            return _Answer(response.status, answer, retry_after)

    def follow(self, path: str, last_id: str) -> Iterator[tuple[str, str, str]]:
        """Yield (id, event, data) of an event stream; an id without an event has an empty name. Raises Refused."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        with self._answering():
            response = self._request("GET", path, None, self._with_key(headers), time.monotonic() + ASK_S)
            if response.status != 200 or response.headers.get_content_type() != "text/event-stream":
                answer = _Answer(response.status, self._object(response, PROOF_BYTES), 0.0)
                if answer.is_problem and answer.status not in {401, 408, 425, 429}:
                    raise Refused(answer.status, answer.body)
                error = Unreachable(f"no stream: {_words_of(answer.status, answer.body)}")
                error.retry_after = _retry_after(response.headers.get("Retry-After", ""))
                raise error
        name, size = "", 0
        data: list[str] = []
        while True:
            with self._answering():
                assert self._socket is not None
                self._socket.deadline = time.monotonic() + SILENCE_S
                line = response.readline(EVENT_BYTES + 1)
                size += len(line)
                if not line.endswith(b"\n") or size > EVENT_BYTES:
                    raise ValueError("the stream ended" if size <= EVENT_BYTES else "an event is too long")
            field, _, value = line.rstrip(b"\r\n").decode("utf-8", "replace").partition(":")
            value = value.removeprefix(" ")
            if field == "id" and "\0" not in value:
                last_id = value
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif not field and not value and line.strip() == b"":
                yield last_id, name if data else "", "\n".join(data)
                name, data, size = "", [], 0

    def close(self) -> None:
        """Close the socket, in the thread that reads from it."""
        if self._socket is not None:
            self.interrupt()
            self._socket.close()
            self._http.close()

    def interrupt(self) -> None:
        """End the connection from another thread. The thread that reads from it closes it."""
        # Closing here would take the file away that http.client reads from.
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Close the descriptor without shutting the connection down, which belongs to the parent process."""
        if self._socket is not None:
            self._socket.close()

    @property
    def is_open(self) -> bool:
        return self._socket is not None and self._socket.fileno() >= 0

    def _with_key(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.server.key}", **headers}

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], deadline: float
    ) -> http.client.HTTPResponse:
        assert self._socket is not None
        self._socket.deadline = deadline
        typed = {"Content-Type": "application/json"} if body is not None else {}
        self._http.request(method, self._prefix + path, body, {**typed, **headers})
        return self._http.getresponse()

    def _object(self, response: http.client.HTTPResponse, most: int) -> Json:
        """Read a JSON object; {} for anything else. Raises ValueError for more than ``most`` bytes."""
        content = response.read(most + 1)
        if len(content) > most:
            raise ValueError("the answer is too long")
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Convert errors of the connection and of the answer to Unreachable; close it after any error."""
        try:
            yield
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise Unreachable(f"{self.server.url}: {error or type(error).__name__}") from error
        except BaseException:
            self.close()
            raise


def _retry_after(text: str) -> float:
    """Return the seconds of a Retry-After header, a number or a date, LONGEST_RETRY_AFTER_S at most; 0 without one."""
    try:
        seconds = float(text) if text.isdigit() else (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return max(0.0, min(seconds, LONGEST_RETRY_AFTER_S))


# --- queue file -------------------------------------------------------------------------------------------------------

ACTIVITY, SEND, START, END = "activity", "send", "start", "end"
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS queue(
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, body BLOB NOT NULL, key TEXT,
  at INTEGER NOT NULL, due INTEGER NOT NULL, tries INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS rejected(
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, body BLOB NOT NULL, at INTEGER NOT NULL, status INTEGER NOT NULL,
  message TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS state(name TEXT PRIMARY KEY, value TEXT NOT NULL, until INTEGER NOT NULL);
"""
_PUT = "INSERT INTO queue(kind, body, key, at, due, tries) VALUES(?, ?, ?, ?, ?, 0)"
_NEXT = (
    "SELECT id, kind, body, key, at, tries FROM queue "
    "WHERE (due <= ? OR due > ?) AND (tries > 0) = ? ORDER BY id LIMIT ?"
)
_SET = "INSERT INTO state VALUES(?, ?, 0) ON CONFLICT(name) DO UPDATE SET value = excluded.value"
_LEASE = (
    "INSERT INTO state VALUES('sender', :owner, :until) ON CONFLICT(name) DO UPDATE SET value = :owner, until = :until "
    # A lease beyond the longest one: the clock was set back. Twice, because waiting for the lock makes "now" older.
    "WHERE value = :owner OR until < :now OR until > :longest"
)


class _Row(NamedTuple):
    id: int
    kind: str
    body: bytes
    key: str | None
    at: int
    tries: int


class _Queue:
    """Rows to deliver, rejected rows and stream positions in one SQLite file, shared by threads and processes.

    Each method raises QueueError. ``path`` None: in memory.
    """

    def __init__(self, path: Path | None, most_rows: int) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._most_rows = most_rows
        self._connection: sqlite3.Connection | None = None
        self._added = 0
        self._owner = f"{os.getpid()} {os.urandom(8).hex()}"

    def add(self, kind: str, body: bytes, key: str | None, due: int, *, strict: bool) -> int:
        """Store a row; on return it survives the end of the process."""
        if strict and self.run(self._is_full):
            raise QueueFull(f"{self._most_rows:,} rows wait for FlashFlow")
        row = self.run(lambda found: found.execute(_PUT, (kind, body, key, _now_ms(), due)).lastrowid)
        self._added += 1
        if not strict and self._added % max(1, min(256, self._most_rows // 10)) == 0:
            self._drop_oldest()
        return row or 0

    def pending(self) -> int:
        return self.run(lambda found: int(found.execute("SELECT count(*) FROM queue").fetchone()[0]))

    def next_rows(self, most: int) -> list[_Row]:
        """Return the oldest due rows that one request carries: up to ``most`` activities, or one other row.

        Rows that have failed come after the others, which they must not hold up.
        """

        def read(found: sqlite3.Connection, failed: int) -> list[_Row]:
            rows: list[_Row] = []
            size, now = 0, _now_ms()
            due = (now, now + 2 * int(LONGEST_RETRY_AFTER_S * 1000), failed, most)
            with closing(found.execute(_NEXT, due)) as cursor:
                for row in map(_Row._make, cursor):
                    size += len(row.body) + 80  # the name of the app
                    if rows and (row.kind != ACTIVITY or rows[0].kind != ACTIVITY or size > BATCH_BYTES):
                        break
                    rows.append(row)
            return rows

        return self.run(lambda found: read(found, 0) or read(found, 1))

    def settle(self, rows: Sequence[_Row], rejected: Sequence[tuple[_Row, int, str]] = ()) -> None:
        """Delete ``rows``, and keep those of ``rejected`` (row, status, message) in their table."""

        def write(found: sqlite3.Connection) -> None:
            now = _now_ms()
            with _transaction(found):
                found.executemany(
                    "INSERT INTO rejected(kind, body, at, status, message) VALUES(?, ?, ?, ?, ?)",
                    [(row.kind, row.body, now, status, message) for row, status, message in rejected],
                )
                if rejected:
                    text = "DELETE FROM rejected WHERE id <= (SELECT max(id) FROM rejected) - ?"
                    found.execute(text, (MOST_REJECTED,))
                found.executemany("DELETE FROM queue WHERE id = ?", [(row.id,) for row in rows])

        self.run(write)

    def defer(self, rows: Sequence[_Row], due: int, tries: int = 1) -> None:
        """Make ``rows`` due at ``due`` and count the try."""
        text = "UPDATE queue SET due = ?, tries = tries + ? WHERE id = ?"
        self._write(text, [(due, tries, row.id) for row in rows])

    def defer_kind(self, kind: str, due: int) -> None:
        self._write("UPDATE queue SET due = ? WHERE kind = ?", [(due, kind)])

    def _write(self, text: str, rows: Sequence[tuple[Any, ...]]) -> None:
        def write(found: sqlite3.Connection) -> None:
            with _transaction(found):
                found.executemany(text, rows)

        self.run(write)

    def next_due(self) -> float:
        """Return the seconds until the next row is due, 0 without a row."""
        (due,) = self.run(lambda found: found.execute("SELECT min(due) FROM queue").fetchone())
        return 0.0 if due is None else min(max(due - _now_ms(), 20) / 1000, LAST_RETRY_S)

    def rejected(self) -> list[Rejected]:
        text = "SELECT kind, body, status, message, at FROM rejected ORDER BY id"
        rows = self.run(lambda found: found.execute(text).fetchall())
        return [Rejected(k, json.loads(b), s, m, datetime.fromtimestamp(at / 1000, UTC)) for k, b, s, m, at in rows]

    def clear_rejected(self) -> int:
        return self.run(lambda found: found.execute("DELETE FROM rejected").rowcount)

    def get(self, name: str) -> str:
        rows = self.run(lambda found: found.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchall())
        return str(rows[0][0]) if rows else ""

    def set(self, name: str, value: str) -> None:
        self.run(lambda found: found.execute(_SET, (name, value)))

    def lease(self) -> bool:
        """Become the only sender of this file, or stay it. False: another process is."""

        def take(found: sqlite3.Connection) -> bool:
            now = _now_ms()
            lease = {"owner": self._owner, "now": now, "until": now + LEASE_MS, "longest": now + 2 * LEASE_MS}
            if found.execute(_LEASE, lease).rowcount:
                return True
            (holder,) = found.execute("SELECT value FROM state WHERE name = 'sender'").fetchone() or ("0",)
            if not _is_alive(int(holder.split()[0])):
                found.execute("DELETE FROM state WHERE name = 'sender' AND value = ?", (holder,))
                return bool(found.execute(_LEASE, lease).rowcount)
            return False

        return self.run(take)

    def release(self) -> None:
        """Let another process send; return unused space."""

        def give(found: sqlite3.Connection) -> None:
            found.execute("DELETE FROM state WHERE name = 'sender' AND value = ?", (self._owner,))
            if found.execute("PRAGMA freelist_count").fetchone()[0] > 256:
                found.executescript("PRAGMA incremental_vacuum")  # execute() would free one page

        self.run(give)

    def close(self, *, checkpoint: bool = False) -> None:
        """Close the file; the next call opens it again. ``checkpoint``: every row survives a power cut from now on."""
        with self.lock:
            found, self._connection = self._connection, None
            if found is not None:
                with suppress(sqlite3.Error):  # the rows are committed already
                    if checkpoint:
                        found.execute("PRAGMA synchronous = FULL")
                        found.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                found.close()

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def close_for_fork(self) -> None:
        """Close the file: an SQLite connection must not cross a fork, nor its locks on an open file."""
        if self.path is not None:
            self.close()

    def after_fork(self) -> None:
        """Begin again in a forked child; rows in memory stay the parent's."""
        _inherited.append(self._connection)  # closing it would disturb the parent
        self._connection = None
        self.lock = threading.RLock()
        self._owner = f"{os.getpid()} {os.urandom(8).hex()}"

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` with the connection. A damaged file is set aside and ``work`` runs again with a new one."""
        if not self.lock.acquire(timeout=LOCK_S):  # its holder was frozen by the end of the interpreter
            raise QueueError(f"{self.path or 'the queue in memory'} is in use by another thread")
        try:
            try:
                return work(self._connection or self._open())
            except sqlite3.DatabaseError as error:
                if self.path is None or not _is_damage(error):
                    raise
                self._set_aside(error)
                return work(self._connection or self._open())
        except sqlite3.Error as error:
            raise QueueError(f"{self.path or 'the queue in memory'}: {error}") from error
        finally:
            self.lock.release()

    def _open(self) -> sqlite3.Connection:
        if self.path is not None:
            try:
                for folder in (self.path.parent.parent, self.path.parent):  # the mode is that of the last part only
                    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _check_owner(self.path.parent, self.path.parent.stat(), 0o022)
                os.close(_open_private(self.path, os.O_RDWR | os.O_CREAT))
                self._connection = _connect(str(self.path))
                if self._connection.execute("PRAGMA user_version").fetchone()[0] <= SCHEMA_VERSION:
                    return self._connection
                self.close()
                newer, self.path = self.path, self.path.with_name(f"{self.path.name}.v{SCHEMA_VERSION}")
                log.warning("%s is of a newer version and was not changed; %s is used.", newer, self.path)
                return self._open()
            except (OSError, sqlite3.OperationalError) as error:
                if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_CANTOPEN:
                    raise
                log.warning("%s cannot be used: %s. Rows are kept in memory only.", self.path, error)
                self.path = None
        self._connection = _connect(":memory:")
        return self._connection

    def _set_aside(self, error: sqlite3.Error) -> None:
        """Rename the damaged file, never delete it, and copy the rows that can be read to a new one."""
        assert self.path is not None
        self.close()
        aside = self.path.with_name(f"{self.path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
        try:
            for suffix in ("-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")
        except OSError as failed:
            raise QueueError(f"{self.path} is damaged and cannot be set aside: {failed}") from error
        found, rows = self._open(), 0
        with closing(sqlite3.connect(aside)) as damaged, _transaction(found), suppress(sqlite3.DatabaseError):
            for row in damaged.execute("SELECT kind, body, key, at, 0 FROM queue ORDER BY id"):
                if _is_json(row[1]):
                    found.execute(_PUT, row)
                    rows += 1
        log.error("%s was damaged (%s). It was set aside as %s; %d rows were kept.", self.path, error, aside.name, rows)

    def _is_full(self, found: sqlite3.Connection) -> bool:
        pages, unused, size = (
            found.execute(f"PRAGMA {n}").fetchone()[0] for n in ("page_count", "freelist_count", "page_size")
        )
        # Counting reads the whole table; the first and the last id are one step each.
        ends = "SELECT (SELECT max(id) FROM queue) - (SELECT min(id) FROM queue) + 1"
        counts = (found.execute(text).fetchone()[0] or 0 for text in (ends, "SELECT count(*) FROM queue"))
        return (pages - unused) * size > MOST_QUEUE_BYTES or all(count >= self._most_rows for count in counts)

    def _drop_oldest(self) -> None:
        """Keep the limits of rows and bytes: drop the oldest tenth."""

        def drop(found: sqlite3.Connection) -> int:
            if not self._is_full(found):
                return 0
            text = "DELETE FROM queue WHERE id IN (SELECT id FROM queue ORDER BY id LIMIT max(1, ? / 10))"
            return found.execute(text, found.execute("SELECT count(*) FROM queue").fetchone()).rowcount

        if dropped := self.run(drop):
            self.set("dropped", str(int(self.get("dropped") or 0) + dropped))
            log.warning("%s is full; the oldest %d rows were dropped.", self.path or "the queue in memory", dropped)


_inherited: list[sqlite3.Connection | None] = []
"""Connections of a parent process, never closed here."""


def _connect(path: str) -> sqlite3.Connection:
    """Open a queue file and create its tables; a file of a newer version is only opened."""
    found = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        version = found.execute("PRAGMA user_version").fetchone()[0]
        if path != ":memory:" and os.stat(path).st_size % found.execute("PRAGMA page_size").fetchone()[0]:
            # SQLite takes a part of a page for a whole one.
            cut = sqlite3.DatabaseError("the file was cut short")
            cut.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise cut
        if version < SCHEMA_VERSION:
            found.execute("PRAGMA auto_vacuum = INCREMENTAL")
        if version <= SCHEMA_VERSION:
            _use_wal(found)
            # NORMAL: a row survives the end of the process; a power cut can take the last ones.
            found.execute("PRAGMA synchronous = NORMAL")
        if version < SCHEMA_VERSION:
            with _transaction(found):
                for statement in _SCHEMA.split(";"):
                    found.execute(statement)
                found.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        found.close()
        raise
    return found


def _use_wal(found: sqlite3.Connection) -> None:
    """Switch to WAL; of two processes that do it at once, one gets "locked" without SQLite's own waiting."""
    for left in range(200, -1, -1):
        try:
            found.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not left or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(0.01)


@contextmanager
def _transaction(found: sqlite3.Connection) -> Iterator[None]:
    found.execute("BEGIN IMMEDIATE")
    try:
        yield
        found.execute("COMMIT")
    except BaseException:
        if found.in_transaction:
            found.execute("ROLLBACK")
        raise


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is damaged, or has tables of another program."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    return code in _DAMAGED or (code == sqlite3.SQLITE_ERROR and str(error).startswith(("no such", "table ")))


def _is_json(body: object) -> bool:
    try:
        return isinstance(body, bytes) and isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32" or pid <= 0:
        return pid > 0  # signal 0 is Ctrl-C there; the lease ends by itself
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def queue_states(folder: Path) -> list[tuple[str, bool, str]]:
    """Return (file, works, state) of each queue file of ``folder``, for ``flashflow doctor``. Changes no row."""
    found = []
    for path in sorted(folder.glob("*.queue*")):
        if path.name.endswith(("-wal", "-shm")):
            continue
        try:
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as queue:
                if queue.execute("PRAGMA user_version").fetchone()[0] > SCHEMA_VERSION:
                    found.append((path.name, True, "of a newer version"))
                    continue
                counts = "SELECT (SELECT count(*) FROM queue), (SELECT count(*) FROM rejected)"
                pending, rejected = queue.execute(counts).fetchone()
                found.append((path.name, not rejected, f"{pending} pending, {rejected} rejected"))
        except sqlite3.Error as error:
            found.append((path.name, False, f"cannot be read: {error}"))
    return found


# --- client -----------------------------------------------------------------------------------------------------------

_sessions: ContextVar[Mapping[Client, tuple[str, str]] | None] = ContextVar("flashflow_sessions", default=None)


class _Quiet(threading.local):
    """``on`` in threads whose log records must not become notifications: the client itself caused them."""

    on = False


_quiet = _Quiet()


class Client:
    """Client of one app. Any thread may call; a forked child continues with a connection of its own.

    ``url`` and ``key`` default to ``FLASHFLOW_URL`` and ``FLASHFLOW_KEY``, else to the FlashFlow that runs on the data
    folder and its local key. ``user_id`` is the default of every call. ``disabled`` (or ``FLASHFLOW_OFF=1``): no call
    stores or sends anything. ``strict``: raise QueueError and QueueFull instead of counting a lost or dropped row.
    ``on_reject`` receives rows that the server refused, in the thread that sent them. Raises ValueError.
    """

    def __init__(
        self,
        *,
        app: str | None = None,
        user_id: str | None = None,
        url: str | None = None,
        key: str | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        disabled: bool | None = None,
        strict: bool = False,
        on_reject: Callable[[list[Rejected]], None] | None = None,
        most_rows: int = MOST_ROWS,
    ) -> None:
        environ = os.environ
        self.app = _checked("app", app or environ.get("FLASHFLOW_APP") or _program(), 64, _APP)
        self.user_id = _checked("user_id", user_id or environ.get("FLASHFLOW_USER") or _login(), 255)
        self.disabled = environ.get("FLASHFLOW_OFF", "") not in {"", "0"} if disabled is None else disabled
        self.lost = 0
        """Rows that the queue file could not store."""
        self._url, self._key = url or environ.get("FLASHFLOW_URL"), key or environ.get("FLASHFLOW_KEY")
        if self._key is not None:
            _checked("key", self._key, 512, _KEY)
        self._strict, self._on_reject = strict, on_reject
        self._folder: Path | None = None
        try:
            self._folder = Path(data_dir).expanduser().absolute() if data_dir else data_folder(environ)
            str(self._folder).encode()  # SQLite needs UTF-8
        except (OSError, RuntimeError, UnicodeError) as error:
            self._folder = None
            log.warning("There is no data folder: %s. Rows are kept in memory only.", error)
        file = self._folder / "client" / f"{self.app}.queue" if self._folder else None
        self._queue = _Queue(file, max(1, most_rows))
        self._closed = False
        self._begin()
        _register(self)

    def _begin(self) -> None:
        """Set the state that a forked child does not share with its parent."""
        self._pid = os.getpid()
        self._idle: deque[_Connection] = deque()
        self._open: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._beats: dict[str, float] = {}
        self._said: set[str] = set()
        self._thread: threading.Thread | None = None
        self._starting, self._sending = threading.Lock(), threading.RLock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._most, self._failures = BATCH_ROWS, 0
        self._retry_at = self._retry_after = 0.0
        """Monotonic times before which nothing is sent: by back-off, and as the server or the key demands."""

    # --- write

    def track(
        self,
        activity_type: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        page_url: str | None = None,
        referrer: str | None = None,
        user_agent: str | None = None,
        timestamp: datetime | None = None,
        activity_id: str | None = None,
    ) -> str:
        """Store an activity of the user and return its id; a thread sends it. Raises ValueError."""
        session, user = self._session()
        row: Json = {
            "activity_id": _checked("activity_id", activity_id, 200) if activity_id else _uuid7(),
            "user_id": _checked("user_id", user_id or user, 255),
            "activity_type": _checked("activity_type", activity_type, 100, _TYPE),
            "timestamp": _time_text("timestamp", timestamp or datetime.now(UTC)),
        }
        if session_id or session:
            row["session_id"] = _checked("session_id", session_id or session or "", 200)
        if metadata:
            row["metadata"] = _object("metadata", metadata)
        if page_url:
            row["page_url"] = _checked("page_url", page_url, 2048)
        if referrer:
            row["referrer"] = _checked("referrer", referrer, 2048)
        if user_agent:
            row["user_agent"] = _checked("user_agent", user_agent, 512)
        self._put(ACTIVITY, _json(row))
        return str(row["activity_id"])

    def send(
        self,
        title: str | None = None,
        message: str | None = None,
        *,
        user_id: str | None = None,
        user_ids: Sequence[str] | None = None,
        notification_type: str | None = None,
        channels: Sequence[str] | None = None,
        data: Mapping[str, Any] | None = None,
        priority: str | None = None,
        scheduled_at: datetime | None = None,
        expires_at: datetime | None = None,
        collapse_key: str | None = None,
        actions: Sequence[Mapping[str, str]] | None = None,
        template: str | None = None,
        locale: str | None = None,
        wait: float = SEND_S,
    ) -> Sent:
        """Store a notification and send it; wait ``wait`` seconds at most for the answer. 0: a thread sends it.

        Without an answer it is delivered later, once (``queued``). Raises ValueError, and Refused for the server's
        refusal within ``wait``; a later one is in ``rejected``.
        """
        if template is None and (title is None or message is None):
            raise ValueError("a notification needs a title and a message, or a template")
        given: Json = {
            "user_id": None if user_ids else _checked("user_id", user_id or self._session()[1], 255),
            "user_ids": list(user_ids) if user_ids else None,
            "title": None if title is None else _checked("title", title, 300),
            "message": None if message is None else _checked("message", message, 10_000, _TEXT),
            "notification_type": notification_type,
            "channels": list(channels) if channels else None,
            "data": _object("data", data) if data else None,
            "priority": priority,
            "scheduled_at": _time_text("scheduled_at", scheduled_at) if scheduled_at else None,
            "expires_at": _time_text("expires_at", expires_at) if expires_at else None,
            "collapse_key": collapse_key,
            "actions": [dict(action) for action in actions] if actions else None,
            "template": template,
            "locale": locale,
        }
        body = _json({field: value for field, value in given.items() if value is not None})
        if self.disabled:
            return Sent("disabled")
        direct = wait > 0 and time.monotonic() >= max(self._retry_at, self._retry_after)
        # Until it is due, the sender thread leaves it to this call.
        row_key, due = _uuid7(), _now_ms() + int(wait * 1000) + 1_000 if direct else 0
        row = _Row(self._put(SEND, body, row_key, due, wake=not direct), SEND, body, row_key, _now_ms(), 0)
        if direct:
            try:
                answer = self._post([row], time.monotonic() + wait)
            except Unreachable as error:
                log.debug("%s", error)
            else:
                if answer.is_success or answer.is_final:
                    self._record(lambda: self._queue.settle([row]))
                    return _sent(answer)
            self._record(lambda: self._queue.defer([row], 0, tries=0))
            self._start()
        return Sent("queued" if row.id else "lost")

    @contextmanager
    def session(
        self, user_id: str | None = None, *, session_id: str | None = None, device_info: Mapping[str, Any] | None = None
    ) -> Iterator[str]:
        """Session of the user around a block; calls within it, in this context, belong to it. Yields the session's id.

        It is kept alive while the block runs. While FlashFlow cannot be reached, its times are those of its activities.
        """
        user = _checked("user_id", user_id or self._session()[1], 255)
        session = _checked("session_id", session_id, 200) if session_id else _uuid7()
        start: Json = {"session_id": session, "user_id": user}
        self._put(START, _json(start | ({"device_info": _object("device_info", device_info)} if device_info else {})))
        self._beats[session] = time.monotonic() + HEARTBEAT_S
        token = _sessions.set({**(_sessions.get() or {}), self: (session, user)})
        try:
            yield session
        finally:
            _sessions.reset(token)
            self._beats.pop(session, None)
            if not self._closed:
                self._put(END, _json({"session_id": session}))

    def tracked(
        self, activity_type: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorator: track each call of a function, with its ``duration_ms`` and the class of its exception.

        ``activity_type`` defaults to the function's name. Coroutine functions are awaited.
        """
        return _tracked(lambda: self, activity_type, metadata)

    # --- read

    def inbox(
        self,
        user_id: str | None = None,
        *,
        status: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        timeout: float = ASK_S,
    ) -> Inbox:
        """Return a page of the user's inbox. Raises Unreachable, Refused, ValueError."""
        user = _checked("user_id", user_id or self._session()[1], 255)
        if self.disabled:
            return Inbox([], 0, None)
        query = {"status": status, "limit": limit, "cursor": cursor}
        text = urlencode({name: value for name, value in query.items() if value is not None})
        found = self._api("GET", f"/api/notifications/user/{quote(user, safe='')}?{text}", timeout)
        return Inbox(_list(found.get("notifications")), found.get("unread_count", 0), found.get("next_cursor"))

    def mark_read(self, notification_id: str, *, timeout: float = ASK_S) -> Json:
        """Mark a notification as read and return it. Raises Unreachable, Refused, ValueError."""
        name = quote(_checked("notification_id", notification_id, 200), safe="")
        if self.disabled:
            return {}
        return cast("Json", self._api("POST", f"/api/notifications/read/{name}", timeout).get("notification"))

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout: float = ASK_S) -> Json:
        """Send a request that has no method here and return the answer's body; ``path`` begins with ``/api``.

        It may be sent twice where a connection ends in between. Raises Unreachable, Refused, ValueError.
        """
        if self.disabled:
            return {}
        return self._api(method, path, timeout, None if body is None else _json(dict(body)))

    def stream(
        self, user_id: str | None = None, *, durable: bool = False, last_event_id: str | None = None
    ) -> Iterator[Event]:
        """Yield events of one user, or of every user that the key sees, for ever; reconnect where it ended.

        ``durable`` keeps the position in the queue file, when the next event is requested: a restarted program
        continues there, and gets the event again during which it stopped. Ends with ``close``. Raises Refused.
        """
        path = "/api/stream" + (f"?{urlencode({'user_id': _checked('user_id', user_id, 255)})}" if user_id else "")
        return self._stream(path, f"stream {user_id or ''}" if durable else "", last_event_id or "")

    def _stream(self, path: str, name: str, position: str) -> Iterator[Event]:
        if self.disabled:
            return
        if name and not position:
            position = self._queue.get(name)
        failures = 0
        while not self._stop.is_set():
            delay = 0.0
            try:
                for event_id, event in self._events(path, position):
                    failures = 0
                    if event is not None:
                        yield event
                    if name and event_id != position:
                        self._record(functools.partial(self._queue.set, name, event_id))
                    position = event_id
            except NotProven as error:
                self._say_once("key", error)
                delay = HOLD_S
            except Unreachable as error:
                log.debug("%s", error)
                delay = error.retry_after
            failures += 1
            self._stop.wait(max(delay, _backoff(failures, self._longest_wait)))

    def _events(self, path: str, position: str) -> Iterator[tuple[str, Event | None]]:
        connection = self._connect(self._find(), time.monotonic() + ASK_S)
        try:
            for event_id, name, text in connection.follow(path, position):
                try:
                    data = json.loads(text) if name else None
                except (ValueError, RecursionError) as error:
                    raise Unreachable(f"an event is not JSON: {error}") from None
                yield event_id, Event(event_id, name, data) if isinstance(data, dict) else None
        finally:
            connection.close()

    async def inbox_async(self, user_id: str | None = None, **options: Any) -> Inbox:
        """Run ``inbox`` in a thread."""
        return await asyncio.to_thread(functools.partial(self.inbox, user_id, **options))

    async def stream_async(self, user_id: str | None = None, **options: Any) -> AsyncIterator[Event]:
        """Run ``stream`` in threads, one for each event."""
        events = self.stream(user_id, **options)
        while (event := await asyncio.to_thread(next, events, None)) is not None:
            yield event

    # --- state

    @property
    def pending(self) -> int:
        """Rows that wait for delivery."""
        return 0 if self.disabled else self._queue.pending()

    @property
    def dropped(self) -> int:
        """Rows that were dropped because the queue was full."""
        return 0 if self.disabled else int(self._queue.get("dropped") or 0)

    @property
    def rejected(self) -> list[Rejected]:
        """Rows that the server refused, oldest first; the last MOST_REJECTED are kept."""
        return [] if self.disabled else self._queue.rejected()

    def clear_rejected(self) -> int:
        """Delete the rejected rows; return their number."""
        return 0 if self.disabled else self._queue.clear_rejected()

    @property
    def is_durable(self) -> bool:
        """Whether rows survive the end of the process; False where no file can be used."""
        return self._queue.path is not None

    def flush(self, timeout: float = 5.0) -> int:
        """Deliver the rows that wait, for ``timeout`` seconds at most; return the number of rows left."""
        deadline = time.monotonic() + timeout
        self._failures, self._retry_at = 0, 0.0
        while left := self.pending:
            delay = max(self._pump(deadline), 0.02)
            if time.monotonic() + delay >= deadline:
                return self.pending
            self._stop.wait(delay if self.pending else 0)
        return left

    def close(self, timeout: float = 5.0) -> int:
        """Flush, end the thread and the streams, close the file. Return the number of rows left, which stay stored."""
        if self._closed:
            return 0
        left = self.flush(timeout)
        self._closed = True
        self._end(max(timeout, EXIT_S))
        return left

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- parts

    @property
    def _longest_wait(self) -> float:
        return LAST_RETRY_S if self._url else LOOK_S

    def _session(self) -> tuple[str | None, str]:
        """Return the session and the user of this context."""
        return (_sessions.get() or {}).get(self) or (None, self.user_id)

    def _put(self, kind: str, body: bytes, key: str | None = None, due: int = 0, *, wake: bool = True) -> int:
        """Store a row; return its number, 0 if it could not be stored."""
        if self._closed:
            raise ClientError("The client is closed.")
        if self.disabled:
            return 0
        if os.getpid() != self._pid:  # forked by a program that runs no hooks
            self._after_fork()
        try:
            row = self._queue.add(kind, body, key, due, strict=self._strict)
        except QueueError as error:
            if self._strict:
                raise
            self.lost += 1
            self._say_once("lost", error)
            return 0
        if wake:
            self._start()
        return row

    def _record(self, work: Callable[[], None]) -> None:
        """Change the queue file; on a full disk it stays as it is, and the server recognises what is repeated."""
        try:
            work()
        except QueueError as error:
            self._say_once("queue", error)

    def _say_once(self, about: str, error: Exception) -> None:
        if about not in self._said:
            self._said.add(about)
            log.warning("%s", error)

    def _find(self) -> _Server:
        """Return address and key as they are now. Raises Unreachable."""
        if self._folder is None and not (self._url and self._key):
            raise Unreachable("There is no data folder; set FLASHFLOW_URL and FLASHFLOW_KEY.")
        folder = self._folder or Path()
        url = self._url or _local_url(folder)
        key = self._key or _local(folder, "local.key")
        if _KEY.fullmatch(key) is None:
            raise Unreachable(f"{folder / 'local.key'} has no key")
        return _Server(url, key, self._key is None)

    def _connect(self, server: _Server, deadline: float) -> _Connection:
        connection = _Connection(server, deadline)
        self._open.add(connection)
        if self._stop.is_set():
            connection.close()
        return connection

    def _ask(self, method: str, path: str, body: bytes | None, deadline: float, key: str | None = None) -> _Answer:
        """Send one request on a proven connection. Raises Unreachable."""
        server = self._find()
        return self._ask_server(server, method, path, body, deadline, key)

    def _ask_server(
        self, server: _Server, method: str, path: str, body: bytes | None, deadline: float, key: str | None
    ) -> _Answer:
        headers = {"Idempotency-Key": key} if key else {}
        while True:
            try:
                connection, is_new = self._idle.pop(), False
            except IndexError:
                connection, is_new = self._connect(server, deadline), True
            if not is_new and (connection.server != server or not connection.is_open):
                connection.close()
                continue
            try:
                answer = connection.ask(method, path, body, headers, deadline)
            except Unreachable:
                # An idle connection may have ended meanwhile; every request here may be repeated.
                if is_new or time.monotonic() >= deadline:
                    raise
                continue
            if connection.is_open and len(self._idle) < MOST_IDLE:
                self._idle.append(connection)
            else:
                connection.close()
            return answer

    def _api(self, method: str, path: str, timeout: float, body: bytes | None = None) -> Json:
        """Return the answer's body. Raises Refused for an error, Unreachable for an answer that is not FlashFlow's."""
        answer = self._ask(method, path, body, time.monotonic() + timeout)
        if answer.is_success:
            return answer.body
        if answer.body.get("success") is False:
            raise Refused(answer.status, answer.body)
        raise Unreachable(f"The answer (HTTP {answer.status}) is not FlashFlow's.")

    def _post(self, rows: Sequence[_Row], deadline: float) -> _Answer:
        """Send rows of one kind. Raises Unreachable."""
        first, server = rows[0], self._find()
        # The local key may name the app; any other key has its own.
        start = b'{"app":"%s",' % self.app.encode() if server.names_app else b"{"
        path, body = "/api/session/start", start + first.body[1:]
        if first.kind == ACTIVITY:
            path, sent_at = "/api/activity/batch", _time_text("sent_at", datetime.now(UTC)).encode()
            activities = b",".join([start + row.body[1:] for row in rows])
            body = b'{"sent_at":"%s","activities":[%s]}' % (sent_at, activities)
        elif first.kind == SEND:
            path = "/api/notifications/send"
        elif first.kind == END:
            path, body = f"/api/session/end/{quote(str(json.loads(body)['session_id']), safe='')}", b""
        return self._ask_server(server, "POST", path, body or None, deadline, first.key)

    # --- sender

    def _start(self) -> None:
        """Wake the sender thread, or start it."""
        if self._stop.is_set():
            return
        if not self._wake.is_set():
            self._wake.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name=f"flashflow-{self.app}", daemon=True)
                    try:
                        self._thread.start()
                    except RuntimeError:  # the interpreter is ending; the row is stored
                        self._thread = None

    def _work(self) -> None:
        """Deliver rows and keep sessions alive; end after IDLE_S without any."""
        _quiet.on = True
        while not self._stop.is_set():
            self._stop.wait(LINGER_S)
            self._wake.clear()
            try:
                delay = self._pump(math.inf)
                self._beat()
            except Exception:  # rows wait: the thread must go on
                log.exception("Sending failed. It is tried again.")
                delay, self._retry_at = 0.0, time.monotonic() + LAST_RETRY_S
            if (held := max(self._retry_at, self._retry_after) - time.monotonic()) > 0:
                self._stop.wait(held)
            elif not self._wake.wait(delay or self._idle_s()) and not (delay or self._beats) and self._may_end():
                return

    def _idle_s(self) -> float:
        now = time.monotonic()
        return max(0.0, min([IDLE_S, *(due - now for due in list(self._beats.values()))]))

    def _may_end(self) -> bool:
        """Give the thread's place up; False if a row came meanwhile and no other thread has started."""
        self._thread = None
        if self._wake.is_set():
            with self._starting:
                if self._thread is None:
                    self._thread = threading.current_thread()
                    return False
        return True

    def _pump(self, deadline: float) -> float:
        """Deliver the rows that are due. Return the seconds until the next try, 0 if no row waits."""
        if not self._sending.acquire(timeout=min(max(deadline - time.monotonic(), 0), threading.TIMEOUT_MAX)):
            return LEASE_WAIT_S
        try:
            while self._queue.next_rows(1) and not self._stop.is_set():
                now = time.monotonic()
                if (wait := max(self._retry_at, self._retry_after) - now) > 0:
                    return wait
                if now >= deadline or not self._queue.lease():
                    return LEASE_WAIT_S
                rows = self._queue.next_rows(self._most)
                if rows and (wait := self._deliver(rows, min(deadline, now + ASK_S))):
                    self._queue.release()
                    return wait
            self._queue.release()
            return self._queue.next_due()
        except QueueError as error:  # a full disk: the outcome cannot be recorded, and the rows are sent again
            self._say_once("queue", error)
            return self._fail(0.0, LAST_RETRY_S)
        finally:
            self._sending.release()

    def _deliver(self, rows: Sequence[_Row], deadline: float) -> float:
        """Send ``rows`` and record the outcome. Return the seconds to wait if the server cannot take any row now."""
        first, now = rows[0], _now_ms()
        try:
            if first.kind in {START, END} and now - first.at > LATE_MS:
                answer = _Answer(200, {"success": True}, 0.0)
            else:
                answer = self._post(rows, deadline)
        except NotProven as error:
            return self._hold(error)
        except Unreachable as error:
            log.debug("%s", error)
            return self._fail(error.retry_after, self._longest_wait)
        if answer.is_success or (first.kind == END and answer.is_problem and answer.status == 404):
            self._failures, self._most = 0, min(BATCH_ROWS, 2 * self._most)
            self._said -= {"key", first.kind}
            self._settle(rows, _rejected(rows, answer))
            return 0.0
        refusal = Refused(answer.status, answer.body)
        if answer.is_problem and answer.status == 403:  # the key lacks this kind's scope; other kinds go on
            self._say_once(first.kind, refusal)
            self._queue.defer_kind(first.kind, now + int(HOLD_S * 1000))
        elif (answer.is_final or answer.status == 500) and len(rows) > 1:
            self._most = len(rows) // 2  # find the row that is the cause
        elif answer.is_final or (answer.status == 409 and first.tries >= MOST_CONFLICTS):
            self._settle(rows, [(first, answer.status, str(refusal))])
        elif answer.status in {409, 500}:
            self._queue.defer(rows, now + int(1000 * _backoff(first.tries + 1, LAST_RETRY_S)))
        elif answer.status == 401:
            return self._hold(refusal)
        else:
            log.debug("%s", refusal)
            return self._fail(answer.retry_after, LAST_RETRY_S)
        return 0.0

    def _settle(self, rows: Sequence[_Row], rejected: Sequence[tuple[_Row, int, str]]) -> None:
        self._queue.settle(rows, rejected)
        if rejected:
            log.warning("FlashFlow refused %d of %d rows: %s", len(rejected), len(rows), rejected[0][2])
            if self._on_reject is not None:
                now = datetime.now(UTC)
                try:
                    self._on_reject([Rejected(r.kind, json.loads(r.body), s, m, now) for r, s, m in rejected])
                except Exception:  # the app's own function
                    log.exception("on_reject failed.")

    def _fail(self, retry_after: float, longest: float) -> float:
        """Count a failure; return the seconds of back-off."""
        self._failures += 1
        delay = _backoff(self._failures, longest)
        self._retry_at = time.monotonic() + delay
        self._retry_after = time.monotonic() + retry_after
        return max(delay, retry_after)

    def _hold(self, error: ClientError) -> float:
        """Wait for a valid key, or for FlashFlow at its address."""
        self._say_once("key", error)
        self._retry_after = time.monotonic() + HOLD_S
        return HOLD_S

    def _beat(self) -> None:
        """Keep open sessions alive."""
        for session, due in list(self._beats.items()):
            now = time.monotonic()
            if due <= now and session in self._beats:
                self._beats[session] = now + HEARTBEAT_S
                try:
                    self._ask("POST", f"/api/session/heartbeat/{quote(session, safe='')}", None, now + ASK_S)
                except Unreachable as error:
                    log.debug("%s", error)

    # --- end and fork

    def _end(self, timeout: float) -> None:
        self._stop.set()
        self._wake.set()
        for connection in list(self._open):
            connection.interrupt()
        while self._idle:
            self._idle.pop().close()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)  # the interpreter would freeze it, perhaps with a lock
        self._queue.close(checkpoint=True)

    def _exit(self) -> None:
        """Deliver for EXIT_S seconds at most if the server is there; the rest waits in the file. Starts no thread."""
        if self._closed or self.disabled or not self._queue.is_open:
            return
        try:
            if time.monotonic() >= max(self._retry_at, self._retry_after):
                self.flush(EXIT_S)
            if left := self.pending:
                level = logging.DEBUG if self.is_durable else logging.WARNING
                log.log(level, "%d rows wait in %s.", left, self._queue.path or "memory and are lost")
        except ClientError as error:
            log.warning("%s", error)
        self._end(EXIT_S)

    def _after_fork(self) -> None:
        for connection in list(self._open):
            connection.forget()
        self._queue.after_fork()
        self._begin()


def _sent(answer: _Answer) -> Sent:
    """Return the outcome of a send. Raises Refused."""
    if not answer.is_success:
        raise Refused(answer.status, answer.body)
    found = answer.body
    deliveries = tuple(_list(found.get("deliveries")))
    return Sent(str(found.get("status", "sent")), found.get("notification_id"), deliveries, found)


def _rejected(rows: Sequence[_Row], answer: _Answer) -> list[tuple[_Row, int, str]]:
    """Return the rows of a batch that the server refused, with its messages."""
    found = []
    for one in _list(answer.body.get("rejected")):
        index = one.get("index") if isinstance(one, dict) else None
        if isinstance(index, int) and 0 <= index < len(rows):
            found.append((rows[index], 400, _words_of(400, {"detail": "The row is not valid", **one})))
    return found


def _backoff(failures: int, longest: float) -> float:
    """Return a random delay (full jitter) that doubles its range with each failure."""
    return random.uniform(FIRST_RETRY_S, max(FIRST_RETRY_S, min(longest, FIRST_RETRY_S * 2.0 ** min(failures, 16))))  # noqa: S311


def _program() -> str:
    """Return a name for the running program that is valid as an app."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", Path(sys.argv[0]).stem).lstrip("._-")[:64] if sys.argv else ""
    return name or "python"


def _login() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        return "me"
    return name if len(name) <= 255 and _NAME.fullmatch(name) else "me"


def _tracked(
    client: Callable[[], Client], activity_type: str | None, metadata: Mapping[str, Any] | None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = _checked("activity_type", activity_type or function.__name__, 100, _TYPE)

        @contextmanager
        def measured() -> Iterator[None]:
            began, found = time.perf_counter(), dict(metadata or {})
            try:
                yield
            except BaseException as error:
                found["error"] = type(error).__name__
                raise
            finally:
                found["duration_ms"] = round((time.perf_counter() - began) * 1000, 3)
                client().track(name, found)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*arguments: P.args, **options: P.kwargs) -> Any:
                with measured():
                    return await function(*arguments, **options)

            return cast("Callable[P, R]", run_async)

        @functools.wraps(function)
        def run(*arguments: P.args, **options: P.kwargs) -> R:
            with measured():
                return function(*arguments, **options)

        return run

    return decorate


# --- logging ----------------------------------------------------------------------------------------------------------


class NotificationHandler(logging.Handler):
    """Send log records of ``level`` and above as notifications; queue them, never wait.

    Records with the same logger and text template update one notification (``collapse_key``), at most once in
    ``every`` seconds; all together are ``per_minute`` at most. Suppressed records are counted in the next one. Records
    of the client itself are ignored.
    """

    def __init__(
        self,
        client: Client | None = None,
        *,
        user_id: str | None = None,
        level: int = logging.ERROR,
        notification_type: str = "log",
        priority: str = "high",
        every: float = 60.0,
        per_minute: int = 20,
    ) -> None:
        super().__init__(level)
        self._client, self._user_id = client, user_id
        self._type, self._priority = notification_type, priority
        self._every, self._per_minute = every, per_minute
        self._times: dict[str, float] = {}
        self._recent: deque[float] = deque()
        self._suppressed = 0

    def emit(self, record: logging.LogRecord) -> None:
        if _quiet.on or record.name == LOGGER:
            return
        _quiet.on = True
        try:
            template = f"{record.name}\n{record.levelname}\n{record.msg}"
            key = "log:" + hashlib.sha256(template.encode("utf-8", "replace")).hexdigest()[:32]
            if self._is_allowed(key):
                text = self.format(record).encode("utf-8", "replace").decode().replace("\0", " ")
                more = f"\n\n{self._suppressed} more were suppressed." if self._suppressed else ""
                self._suppressed = 0
                title = re.sub(r"[\x00-\x1f\x7f]+", " ", f"{record.levelname}: {record.name}")[:300]
                (self._client or default_client()).send(
                    title.encode("utf-8", "replace").decode(),
                    (text.strip() or "No message.")[: 9_900 - len(more)] + more,
                    user_id=self._user_id,
                    notification_type=self._type,
                    priority=self._priority,
                    collapse_key=key,
                    wait=0,
                )
        except Exception:  # noqa: BLE001 logging's own rule for handlers
            self.handleError(record)
        finally:
            _quiet.on = False

    def _is_allowed(self, key: str) -> bool:
        now = time.monotonic()
        while self._recent and self._recent[0] <= now - 60:
            self._recent.popleft()
        if now - self._times.get(key, -math.inf) < self._every or len(self._recent) >= self._per_minute:
            self._suppressed += 1
            return False
        self._times.pop(key, None)
        self._times[key] = now
        if len(self._times) > 1_000:
            del self._times[next(iter(self._times))]
        self._recent.append(now)
        return True


# --- default client ---------------------------------------------------------------------------------------------------

_default: Client | None = None
_registry = threading.Lock()
_clients: weakref.WeakSet[Client] = weakref.WeakSet()
_has_hooks = False
_forking: list[Client] = []


def default_client() -> Client:
    """Return the client of the module's functions; without ``configure`` it is made by the environment."""
    global _default  # noqa: PLW0603
    if _default is None:
        made = Client()
        with _registry:
            _default = _default or made
    return _default


def configure(client: Client) -> None:
    """Let the module's functions use ``client``."""
    global _default  # noqa: PLW0603
    _default = client


def track(activity_type: str, metadata: Mapping[str, Any] | None = None, **options: Any) -> str:
    """Call ``Client.track`` of the default client."""
    return default_client().track(activity_type, metadata, **options)


def send(title: str | None = None, message: str | None = None, **options: Any) -> Sent:
    """Call ``Client.send`` of the default client."""
    return default_client().send(title, message, **options)


def session(user_id: str | None = None, **options: Any) -> AbstractContextManager[str]:
    """Call ``Client.session`` of the default client."""
    return default_client().session(user_id, **options)


def inbox(user_id: str | None = None, **options: Any) -> Inbox:
    """Call ``Client.inbox`` of the default client."""
    return default_client().inbox(user_id, **options)


def mark_read(notification_id: str, **options: Any) -> Json:
    """Call ``Client.mark_read`` of the default client."""
    return default_client().mark_read(notification_id, **options)


def stream(user_id: str | None = None, **options: Any) -> Iterator[Event]:
    """Call ``Client.stream`` of the default client."""
    return default_client().stream(user_id, **options)


def tracked(
    activity_type: str | None = None, metadata: Mapping[str, Any] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator like ``Client.tracked``; the default client is looked up at each call."""
    return _tracked(default_client, activity_type, metadata)


def flush(timeout: float = 5.0) -> int:
    """Call ``Client.flush`` of the default client."""
    return default_client().flush(timeout)


def _register(client: Client) -> None:
    global _has_hooks  # noqa: PLW0603
    with _registry:
        _clients.add(client)
        if not _has_hooks:
            _has_hooks = True
            atexit.register(_at_exit)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(
                    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
                )


def _at_exit() -> None:
    for client in list(_clients):
        client._exit()


def _before_fork() -> None:
    """Close the files: SQLite's locks on a file that is open across a fork would be the parent's in the child's eyes,
    and the parent would then delete a log that the child still writes."""
    _registry.acquire()
    _forking[:] = _clients
    for client in _forking:
        client._queue.lock.acquire()
        client._queue.close_for_fork()


def _after_fork_in_parent() -> None:
    for client in _forking:
        client._queue.lock.release()
    _forking.clear()
    _registry.release()


def _after_fork_in_child() -> None:
    global _registry  # noqa: PLW0603
    _registry = threading.Lock()
    _quiet.on = False
    for client in _forking:
        client._after_fork()
    _forking.clear()
