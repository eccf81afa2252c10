"""Sessions in the writer's memory: the working copy of one, and a cache from transaction to transaction."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Any

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.activity.session_rollup import Counted
from flashflow.backend.store.activity.session_timeout import IDLE_MS, LONGEST_MS
from flashflow.backend.store.engine.statement import Statement, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.dimensions import agent_key, key_types
from flashflow.backend.store.rollups.models import RollupState

MOST_PAGES_KEPT = 5_000
"""Distinct pages of an open session held in memory; a session with more has them counted from its rows on demand."""


class SessionRow(NamedTuple):
    """A row of a session; id, address and JSON as they are stored, times in milliseconds since 1970."""

    seq: int
    id: Any
    user_id: str
    app: str
    start_time: int
    last_seen: int
    end_time: int | None
    end_reason: str | None
    pages_visited: int
    activities: int
    device_info: str | None
    ip_address: bytes | None
    user_agent: str | None
    shared: bool
    revision: int
    key_activities: int
    implicit: bool


class OpenSession:
    """The working copy of a session; ``SessionBook`` saves it."""

    __slots__ = (
        "activities",
        "app",
        "counted",
        "device_info",
        "end_reason",
        "end_time",
        "id",
        "implicit",
        "ip_address",
        "is_new",
        "key_activities",
        "last_seen",
        "moved",
        "pages",
        "pages_visited",
        "publish",
        "seq",
        "shared",
        "start_time",
        "user_agent",
        "user_id",
    )  # fmt: skip

    def __init__(self, row: SessionRow, *, is_new: bool = False) -> None:
        self.seq = row.seq
        self.id: bytes = row.id
        self.user_id = row.user_id
        self.app = row.app
        self.start_time = row.start_time
        self.last_seen = row.last_seen
        self.end_time = row.end_time
        self.end_reason = row.end_reason
        self.pages_visited = row.pages_visited
        self.activities = row.activities
        self.device_info = row.device_info if is_new else None  # up to 1 MiB, and only the first write needs it
        self.ip_address = row.ip_address
        self.user_agent = row.user_agent
        self.shared = row.shared
        self.key_activities = row.key_activities
        self.implicit = row.implicit
        self.counted: Counted | None = None
        """Its share of ``session_days``; None while it is open."""
        self.pages: set[int] | None = set() if is_new else None
        """Hashes of its distinct pages; None where they have to be read from the rows."""
        self.is_new = is_new
        self.publish = is_new
        self.moved = False

    def saved(self) -> None:
        """Mark it as written."""
        self.device_info = None
        self.is_new = self.publish = self.moved = False

    def touch(self, timestamp: int) -> None:
        """Extend the session to include ``timestamp``; an ended session stays ended."""
        if timestamp > self.last_seen:
            self.last_seen = timestamp
        elif timestamp < self.start_time:
            self.start_time = timestamp
            self.moved = True
        if self.end_time is not None and self.last_seen > self.end_time:
            self.end_time = self.last_seen
            self.publish = True

    def note_page(self, page: str | None) -> None:
        """Add a page to the distinct pages."""
        if page is not None and self.pages is not None:
            self.pages.add(hash(page))  # 64 bits: a page may have 2,048 characters
            self.pages_visited = len(self.pages)
            if self.pages_visited > MOST_PAGES_KEPT:
                self.pages = None

    def close(self, end_time: int, reason: str) -> None:
        self.end_time = end_time
        self.end_reason = reason
        self.publish = True

    def reopen(self) -> None:
        """Open it again: a late activity extends it to within 30 minutes of now."""
        self.end_time = self.end_reason = None
        self.publish = True

    def is_stale(self, now: int) -> bool:
        """Whether it has to end at ``now`` by the 30-minute or the 24-hour rule."""
        return now - self.last_seen > IDLE_MS or now - self.start_time >= LONGEST_MS


class SessionCache:
    """Cache of sessions from one transaction to the next, valid while only this writer writes sessions.

    Each writer stores its own mark in the file: another mark, or a rollback, empties the cache. (``PRAGMA
    data_version`` would empty it on every commit of the writer's other connection.)
    """

    MOST = 10_000

    def __init__(self, local: LocalTime) -> None:
        self.local = local
        self.by_id: dict[bytes, OpenSession] = {}
        self.current: dict[tuple[str, str], OpenSession | None] = {}
        self.apps: dict[str, int] = {}
        self.agents: dict[str, int | None] = {}
        self.key_types: frozenset[str] = frozenset()
        self.unsettled: set[str] = set()
        """Users whose stored metrics lack an ended session; writers add them, ``settle_metrics`` takes them."""
        self._mark = uuid.uuid4().hex
        self._entered = False

    def enter(self, tx: Tx) -> None:
        """Validate the cache against the file at the start of ``tx``."""
        if len(self.by_id) > self.MOST:
            self._drop_ended()
        mark = _MARK.value(tx.conn)
        if mark != self._mark or not self._entered or len(self.by_id) > self.MOST:
            self.clear()
            self.key_types = key_types(tx.conn)
            self._entered = True
            if mark != self._mark:
                _SAVE_MARK.run(tx.conn, writer=self._mark)
        tx.undo.append(self.invalidate)

    def _drop_ended(self) -> None:
        """Evict ended sessions: they are needed rarely."""
        self.by_id = {id_: session for id_, session in self.by_id.items() if session.end_time is None}
        self.current = {
            place: session
            for place, session in self.current.items()
            if session is not None and session.end_time is None
        }

    def agent(self, tx: Tx, name: str) -> int | None:
        """Return the key of a user agent; None if there is no room for another."""
        if name not in self.agents:
            if len(self.agents) >= self.MOST:
                self.agents.clear()
            self.agents[name] = agent_key(tx, name)
        return self.agents[name]

    def take_unsettled(self, most: int) -> list[str]:
        """Remove and return up to ``most`` users to settle."""
        taken: list[str] = []
        with suppress(KeyError):
            while len(taken) < most:
                taken.append(self.unsettled.pop())
        return taken

    def invalidate(self) -> None:
        """Invalidate everything, including the key activity types."""
        self.clear()
        self._entered = False

    def clear(self) -> None:
        self.by_id.clear()
        self.current.clear()
        self.apps.clear()
        self.agents.clear()


_MARK = Statement(lambda: RollupState.select(RollupState.writer))
_SAVE_MARK = Statement(lambda: RollupState.update(slots(RollupState.writer)))
