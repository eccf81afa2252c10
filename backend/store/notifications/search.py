"""Search in titles and messages, in any script, whatever the case: an FTS5 index of trigrams, and a look at every row
that is not in it.

The index holds the rows up to ``search_state.indexed_to``. Newer ones (the tail) are looked at one by one and indexed
together later (``catch_up``): so a send costs nothing more, and a file of an earlier FlashFlow opens at once. Triggers
keep what is indexed true in the same transaction as every change. ``indexed_to`` is NULL where this SQLite has no FTS5
with trigrams: then every row is looked at.
"""

from __future__ import annotations

import itertools
import logging
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple

from flashflow.backend.core.encoding import decode_text, to_json
from flashflow.backend.core.errors import StorageError
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import Tx, Write

log = logging.getLogger(__name__)

LOWEST = -(1 << 63)
CANDIDATES = 5_000
"""A text that more rows than these may hold is found sooner by walking the list, newest first."""
WORTH_INDEXING = 500
"""A shorter tail is looked at sooner than it could be indexed."""
AT_ONCE = 200
"""Rows indexed in one transaction: 5 to 20 ms."""
MERGED_PAGES = 100
"""Pages of the index merged in one transaction: 5 to 20 ms."""
MOST_TRIGRAMS = 60

_INDEX = (
    "CREATE VIRTUAL TABLE notification_search USING fts5(title, message, content = 'notifications', "
    "content_rowid = 'seq', tokenize = 'trigram', detail = 'none', columnsize = 0)"
)
_INDEXED = "OLD.seq <= (SELECT indexed_to FROM search_state)"
_DROP = (
    "INSERT INTO notification_search (notification_search, rowid, title, message) "
    "VALUES ('delete', OLD.seq, OLD.title, OLD.message);"
)
_ADD = "INSERT INTO notification_search (rowid, title, message) VALUES (NEW.seq, NEW.title, NEW.message);"
_TRIGGERS = {
    "search_delete": f"AFTER DELETE ON notifications WHEN {_INDEXED} BEGIN {_DROP} END",
    "search_update": f"AFTER UPDATE OF title, message ON notifications WHEN {_INDEXED} "
    f"AND (OLD.title IS NOT NEW.title OR OLD.message IS NOT NEW.message) BEGIN {_DROP} {_ADD} END",
}


def has_trigrams() -> bool:
    """Whether this SQLite can make the index."""
    with closing(sqlite3.connect(":memory:")) as conn:
        try:
            conn.execute("CREATE VIRTUAL TABLE probe USING fts5(text, tokenize = 'trigram', detail = 'none')")
        except sqlite3.OperationalError:
            return False
    return True


def is_prepared(conn: sqlite3.Connection, *, possible: bool) -> bool:
    """Whether there is an index exactly where this SQLite can use one."""
    indexed_to = conn.execute("SELECT indexed_to FROM search_state").fetchone()[0]
    return (indexed_to is not None) == possible


def prepare(tx: Tx, items: Sequence[bool]) -> list[None]:
    """Make the index where there is none and it can be made (the item), empty at first.

    Where it cannot, the file may come from a SQLite that could: its triggers would refuse every change, and its content
    would outlive the rows.
    """
    for possible in items:
        if not possible:
            _disable(tx.conn)
        elif tx.conn.execute("SELECT indexed_to FROM search_state").fetchone()[0] is None:
            tx.conn.execute("DROP TABLE IF EXISTS notification_search")
            tx.conn.execute(_INDEX)
            for name, body in _TRIGGERS.items():
                tx.conn.execute(f"CREATE TRIGGER {name} {body}")
            tx.conn.execute("UPDATE search_state SET indexed_to = ?", (LOWEST,))
    return [None] * len(items)


def _disable(conn: sqlite3.Connection) -> None:
    for name in _TRIGGERS:
        conn.execute(f"DROP TRIGGER IF EXISTS {name}")
    tables = "SELECT name FROM sqlite_master WHERE name IN ('notification_search_data', 'notification_search_idx')"
    for (name,) in conn.execute(tables).fetchall():
        conn.execute(f"DELETE FROM {name}")
    conn.execute("UPDATE search_state SET indexed_to = NULL")


def tail_length(conn: sqlite3.Connection, most: int = WORTH_INDEXING) -> int:
    """How many rows wait to be indexed, counted up to ``most``; 0 where there is no index."""
    query = (
        "SELECT COUNT(*) FROM (SELECT 1 FROM notifications WHERE seq > (SELECT indexed_to FROM search_state) LIMIT ?)"
    )
    return int(conn.execute(query, (most,)).fetchone()[0])


def catch_up(tx: Tx, items: Sequence[None]) -> list[int]:
    """Index the oldest rows of the tail; how many."""
    seqs = tx.conn.execute(
        "SELECT seq FROM notifications WHERE seq > (SELECT indexed_to FROM search_state) ORDER BY seq LIMIT ?",
        (AT_ONCE,),
    ).fetchall()
    if seqs:
        ends = (seqs[0][0], seqs[-1][0])
        tx.conn.execute(
            "INSERT INTO notification_search (rowid, title, message) "
            "SELECT seq, title, message FROM notifications WHERE seq BETWEEN ? AND ?",
            ends,
        )
        tx.conn.execute("UPDATE search_state SET indexed_to = ?", ends[1:])
    return [len(seqs)] * len(items)


def add_older(conn: sqlite3.Connection, seqs: Sequence[int]) -> None:
    """Index rows that were numbered below those made here: an import's. A trigger would cost every send a twentieth."""
    (indexed_to,) = conn.execute("SELECT indexed_to FROM search_state").fetchone()
    if indexed_to is not None:
        conn.execute(
            "INSERT INTO notification_search (rowid, title, message) SELECT seq, title, message FROM notifications "
            "WHERE seq IN (SELECT value FROM json_each(?)) AND seq <= ?",
            (to_json(seqs), indexed_to),
        )


def merge(tx: Tx, items: Sequence[bool]) -> list[bool]:
    """One step of merging the index into one segment, which leaves no trace of deleted rows in it. The item: whether it
    is the first step; the answer: whether there is more to do."""
    answers = []
    for first in items:
        if tx.conn.execute("SELECT indexed_to FROM search_state").fetchone()[0] is None:
            answers.append(False)
            continue
        before = tx.conn.total_changes
        pages = -MERGED_PAGES if first else MERGED_PAGES
        tx.conn.execute("INSERT INTO notification_search (notification_search, rank) VALUES ('merge', ?)", (pages,))
        answers.append(tx.conn.total_changes - before >= 2)  # fts5: fewer changes mean that nothing was left
    return answers


def prepare_store(store: Store) -> None:
    """Make the index of a file that was just opened, where there is none yet."""
    possible = has_trigrams()
    if not store.read(lambda conn: is_prepared(conn, possible=possible)):
        try:
            store.run(Write(prepare, possible))
        except StorageError as error:  # a full disk: without an index every row is looked at
            log.warning("the search index waits for the next start: %s", error)


def index_tail(store: Store, seconds: float = 0.5) -> None:
    """Index what came since the last time, for about so long at most."""
    end = store.clock.monotonic() + seconds
    while store.read(tail_length) >= WORTH_INDEXING and store.clock.monotonic() < end:
        store.run(Write(catch_up, None))


def sweep(store: Store) -> None:
    """Leave no trace of deleted rows in the index."""
    more = store.run(Write(merge, True))
    while more:
        more = store.run(Write(merge, False))


# --- asking -----------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """Conditions on ``notifications`` that a search adds."""

    where: list[str]
    values: list[Any]
    narrow: bool
    """Whether the conditions name the few rows by ``seq``, so that no other index is needed."""


def conditions_of(conn: sqlite3.Connection, text: str) -> Found:
    """The conditions under which a row holds ``text``."""
    holds, values = _holds(text)
    query = _match(text)
    (indexed_to,) = conn.execute("SELECT indexed_to FROM search_state").fetchone()
    if query is None or indexed_to is None:
        return Found([holds], values, narrow=False)
    try:
        seqs = [seq for (seq,) in conn.execute(_CANDIDATES, (query, CANDIDATES + 1))]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
        log.exception("the search index is damaged; every row is looked at")
        return Found([holds], values, narrow=False)
    tail = [seq for (seq,) in conn.execute(_TAIL, (indexed_to, CANDIDATES + 1))]
    if len(seqs) + len(tail) > CANDIDATES:
        return Found([holds], values, narrow=False)
    return Found(["seq IN (SELECT value FROM json_each(?))", holds], [to_json([*seqs, *tail]), *values], narrow=True)


_CANDIDATES = "SELECT rowid FROM notification_search WHERE notification_search MATCH ? LIMIT ?"
_TAIL = "SELECT seq FROM notifications WHERE seq > ? LIMIT ?"

_OTHERWISE_FOLDED = re.compile(
    "[\0\u037f\u03f3\u0528-\u052f\u10a0-\u10ff\u13a0-\u13fd\u1c80-\u1cbf\u2c2f\u2c5f\ua698-\ua69b\ua796-\ua7ff\uab30-\uabbf"
    "\U000104b0-\U000104ff\U00010570-\U000105bf\U00010c80-\U00010cff\U000118a0-\U000118df\U00016e40-\U00016e7f"
    "\U0001e900-\U0001e943]"
)
"""Letters that came to Unicode after FTS5's tables were made, and NUL, which ends a query: not searched for by the
index."""


_ESCAPED = re.compile(r"[\\%_]")


def _match(text: str) -> str | None:
    """The index query for rows that may hold ``text``: all its trigrams, in whatever order. None: ask every row."""
    if len(text) < 3 or _OTHERWISE_FOLDED.search(text):
        return None
    trigrams = dict.fromkeys(text[at : at + 3] for at in range(len(text) - 2))
    quoted = ('"{}"'.format(trigram.replace('"', '""')) for trigram in itertools.islice(trigrams, MOST_TRIGRAMS))
    return " AND ".join(quoted)


def _holds(text: str) -> tuple[str, list[Any]]:
    """The condition that a row holds ``text``, by SQLite itself where it can tell."""
    if text.isascii() or len(text) <= 2:
        # LIKE knows no case but ASCII's
        forms = [[c] if c.isascii() else sorted({c, c.lower(), c.upper(), c.title()}) for c in text]
        patterns = ["%" + _ESCAPED.sub(r"\\\g<0>", "".join(form)) + "%" for form in itertools.product(*forms)]
        each = "title LIKE ? ESCAPE '\\' OR message LIKE ? ESCAPE '\\'"
        return f"({' OR '.join([each] * len(patterns))})", [pattern for pattern in patterns for _ in range(2)]
    # As bytes: text that is not UTF-8 cannot be given to a function.
    return "holds(CAST(title AS BLOB), CAST(message AS BLOB), ?)", [fold(text)]


def fold(text: str) -> str:
    """``text`` without its case, character by character (as FTS5 does it): ``ß`` stays one."""
    folded = text.casefold()
    if len(folded) == len(text):
        return folded
    return "".join(f if len(f := c.casefold()) == 1 else c for c in text)


def _row_holds(title: bytes, message: bytes, folded: str) -> bool:
    return folded in fold(decode_text(title)) or folded in fold(decode_text(message))


def functions(conn: sqlite3.Connection) -> None:
    """Give a connection the function that searches need."""
    conn.create_function("holds", 3, _row_holds, deterministic=True)
