"""Case-insensitive search in titles and messages, in any script: an FTS5 trigram index plus a scan of unindexed rows.

The index holds the rows up to ``search_state.indexed_to``. Newer rows (the tail) are scanned one by one and indexed in
batches later (``catch_up``), so that a send costs nothing extra and an older file opens at once. Triggers update
indexed rows in the same transaction as every change. ``indexed_to`` is NULL where this SQLite has no FTS5 with
trigrams: then every row is scanned.
"""

from __future__ import annotations

import itertools
import logging
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import reduce
from operator import or_
from typing import Any

from peewee import OP, SQL, ColumnBase, Expression, NodeList, Select, Table, fn

from flashflow.backend.core.encoding import decode_text, to_json
from flashflow.backend.core.errors import StorageError
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.schema import read_entries
from flashflow.backend.store.engine.statement import Statement, TextStatement, among, slot, slots, variants
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.notifications import models

log = logging.getLogger(__name__)

LOWEST = -(1 << 63)
CANDIDATES = 5_000
"""Above this number of candidates, scanning the list newest first is faster."""
WORTH_INDEXING = 500
"""A shorter tail is faster to scan than to index."""
AT_ONCE = 200
"""Rows indexed in one transaction: 5 to 20 ms."""
MERGED_PAGES = 100
"""Pages of the index merged in one transaction: 5 to 20 ms."""
MOST_TRIGRAMS = 60
FTS5_FORMAT = 4
"""The version that FTS5 writes into the index's own table of settings."""

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


_N, _S = models.Notification, models.SearchState
_TAIL = _N.select(_N.seq).where(_N.seq > _S.select(_S.indexed_to)).limit(slot("most"))
_INDEXED_TO = Statement(lambda: _S.select(_S.indexed_to))
_SET_INDEXED_TO = Statement(lambda: _S.update(slots(_S.indexed_to)))
_TAIL_LENGTH = Statement(lambda: Select([_TAIL.alias("tail")], [fn.COUNT(SQL("*"))]))
_TAIL_SEQS = Statement(lambda: _TAIL.order_by(_N.seq))
_AFTER = Statement(lambda: _N.select(_N.seq).where(_N.seq > slot("indexed_to")).limit(slot("most")))
_VERSION = TextStatement("SELECT v FROM notification_search_config WHERE k = 'version' AND v = :version", reason="FTS5")
_FORGET_VERSION = TextStatement("DELETE FROM notification_search_config", reason="FTS5")
_SET_VERSION = TextStatement(
    "INSERT INTO notification_search_config (k, v) VALUES ('version', :version)", reason="FTS5"
)
_COPY = "INSERT INTO notification_search (rowid, title, message) SELECT seq, title, message FROM notifications "
_ADD_RANGE = TextStatement(f"{_COPY}WHERE seq BETWEEN :first AND :last", reason="FTS5")
_ADD_LISTED = TextStatement(
    f"{_COPY}WHERE seq IN (SELECT value FROM json_each(:seqs)) AND seq <= :indexed_to", reason="FTS5"
)
_MERGE = TextStatement(
    "INSERT INTO notification_search (notification_search, rank) VALUES ('merge', :pages)", reason="FTS5"
)
_CANDIDATES = TextStatement(
    "SELECT rowid FROM notification_search WHERE notification_search MATCH :query LIMIT :most", reason="FTS5"
)


def has_trigrams() -> bool:
    """Whether this SQLite can create the index."""
    with closing(sqlite3.connect(":memory:")) as conn:
        try:
            conn.execute("CREATE VIRTUAL TABLE probe USING fts5(text, tokenize = 'trigram', detail = 'none')")
        except sqlite3.OperationalError:
            return False
    return True


def is_prepared(conn: sqlite3.Connection, *, possible: bool) -> bool:
    """Whether an index exists exactly if this SQLite supports one."""
    indexed_to = _INDEXED_TO.value(conn)
    return (indexed_to is not None) == possible and (indexed_to is None or _has_version(conn))


def _has_version(conn: sqlite3.Connection) -> bool:
    """Whether FTS5 finds its format in the index: without it every change of a notification fails."""
    return _VERSION.one(conn, version=FTS5_FORMAT) is not None


def prepare(tx: Tx, items: Sequence[bool]) -> list[None]:
    """Create an empty index if there is none and this SQLite supports one (the item); disable it otherwise."""
    # An index created by another SQLite: its triggers would fail every change, its content would outlive the rows.
    for possible in items:
        if not possible:
            _disable(tx.conn)
        elif _INDEXED_TO.value(tx.conn) is None:
            tx.conn.execute("DROP TABLE IF EXISTS notification_search")
            tx.conn.execute(_INDEX)
            for name, body in _TRIGGERS.items():
                tx.conn.execute(f"CREATE TRIGGER {name} {body}")
            _SET_INDEXED_TO.run(tx.conn, indexed_to=LOWEST)
        elif not _has_version(tx.conn):
            _FORGET_VERSION.run(tx.conn)
            _SET_VERSION.run(tx.conn, version=FTS5_FORMAT)
    return [None] * len(items)


_CONTENT = ("notification_search_data", "notification_search_idx")


@variants(_CONTENT)
def _delete_all(table: str) -> Statement[tuple[Any, ...]]:
    return Statement(Table(table).delete())


def _disable(conn: sqlite3.Connection) -> None:
    for name in _TRIGGERS:
        conn.execute(f"DROP TRIGGER IF EXISTS {name}")
    for entry in read_entries(conn):
        if entry.name in _CONTENT:
            _delete_all(entry.name).run(conn)
    _SET_INDEXED_TO.run(conn, indexed_to=None)


def tail_length(conn: sqlite3.Connection, most: int = WORTH_INDEXING) -> int:
    """Count unindexed rows, up to ``most``; 0 without an index."""
    return int(_TAIL_LENGTH.value(conn, most=most))


def catch_up(tx: Tx, items: Sequence[None]) -> list[int]:
    """Index the oldest rows of the tail; return how many."""
    seqs = [seq for (seq,) in _TAIL_SEQS.all(tx.conn, most=AT_ONCE)]
    if seqs:
        _ADD_RANGE.run(tx.conn, first=seqs[0], last=seqs[-1])
        _SET_INDEXED_TO.run(tx.conn, indexed_to=seqs[-1])
    return [len(seqs)] * len(items)


def add_older(conn: sqlite3.Connection, seqs: Sequence[int]) -> None:
    """Index imported rows, which are numbered below ``indexed_to``."""
    # Not by a trigger: it would slow every send by 5 %.
    indexed_to = _INDEXED_TO.value(conn)
    if indexed_to is not None:
        _ADD_LISTED.run(conn, seqs=to_json(seqs), indexed_to=indexed_to)


def merge(tx: Tx, items: Sequence[bool]) -> list[bool]:
    """Run one step of merging the index into a single segment, which removes deleted rows from it. The item: whether it
    is the first step; the answer: whether more steps follow."""
    answers = []
    for first in items:
        if _INDEXED_TO.value(tx.conn) is None:
            answers.append(False)
            continue
        before = tx.conn.total_changes
        _MERGE.run(tx.conn, pages=-MERGED_PAGES if first else MERGED_PAGES)
        answers.append(tx.conn.total_changes - before >= 2)  # fts5: fewer changes mean that the merge is complete
    return answers


def prepare_store(store: Store) -> None:
    """Create the index of a newly opened file, if there is none."""
    possible = has_trigrams()
    if not store.read(lambda conn: is_prepared(conn, possible=possible)):
        try:
            store.run(Write(prepare, possible))
        except StorageError as error:  # a full disk: without an index every row is scanned
            log.warning("the search index waits for the next start: %s", error)


def index_tail(store: Store, seconds: float = 0.5) -> None:
    """Index the tail, for at most about ``seconds``."""
    end = store.clock.monotonic() + seconds
    while store.read(tail_length) >= WORTH_INDEXING and store.clock.monotonic() < end:
        store.run(Write(catch_up, None))


def sweep(store: Store) -> None:
    """Remove every trace of deleted rows from the index."""
    more = store.run(Write(merge, True))
    while more:
        more = store.run(Write(merge, False))


# --- queries ----------------------------------------------------------------------------------------------------------


class Form(NamedTuple):
    """The form of a search's conditions: ``patterns`` of LIKE, 0 for the function ``holds``, None without a text;
    ``narrow``: rows are listed by ``seq``, so that no other index is needed."""

    patterns: int | None
    narrow: bool = False


NO_TEXT = Form(None)
_PATTERNS = (0, 1, 16)
FORMS = (NO_TEXT, *(Form(patterns, narrow) for patterns in _PATTERNS for narrow in (False, True)))


class Search(NamedTuple):
    """A search: the form of its conditions, and the values of their slots."""

    form: Form
    values: dict[str, Any]


EVERY = Search(NO_TEXT, {})
"""No search: every row."""


def conditions(form: Form) -> list[ColumnBase]:
    """Build the conditions on a notification."""
    if form.patterns is None:
        return []
    # As bytes: invalid UTF-8 cannot be passed to a function as text.
    holds: ColumnBase = fn.holds(_N.title.cast("BLOB"), _N.message.cast("BLOB"), slot("folded"))
    if form.patterns:
        places = [NodeList((slot(f"pattern{n}"), SQL("ESCAPE '\\'"))) for n in range(form.patterns)]
        holds = reduce(or_, (Expression(text, OP.ILIKE, at) for at in places for text in (_N.title, _N.message)))
    return [among(_N.seq, "seqs"), holds] if form.narrow else [holds]


def search(conn: sqlite3.Connection, text: str) -> Search:
    """Prepare the search for rows that contain ``text``."""
    scan = _search_by_scan(text)
    query = _match(text)
    indexed_to = _INDEXED_TO.value(conn)
    if query is None or indexed_to is None:
        return scan
    try:
        seqs = [seq for (seq,) in _CANDIDATES.each(conn, query=query, most=CANDIDATES + 1)]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
        log.exception("the search index is damaged; every row is scanned")
        return scan
    tail = [seq for (seq,) in _AFTER.each(conn, indexed_to=indexed_to, most=CANDIDATES + 1)]
    if len(seqs) + len(tail) > CANDIDATES:
        return scan
    return Search(scan.form._replace(narrow=True), scan.values | {"seqs": [*seqs, *tail]})


_OTHERWISE_FOLDED = re.compile(
    "[\0\u037f\u03f3\u0528-\u052f\u10a0-\u10ff\u13a0-\u13fd\u1c80-\u1cbf\u2c2f\u2c5f\ua698-\ua69b\ua796-\ua7ff\uab30-\uabbf"
    "\U000104b0-\U000104ff\U00010570-\U000105bf\U00010c80-\U00010cff\U000118a0-\U000118df\U00016e40-\U00016e7f"
    "\U0001e900-\U0001e943]"
)
"""Characters the index cannot search: letters newer than FTS5's case tables, and NUL, which ends a query."""


_ESCAPED = re.compile(r"[\\%_]")


def _match(text: str) -> str | None:
    """The FTS5 query for candidates: all trigrams of ``text`` in any order. None: scan every row."""
    if len(text) < 3 or _OTHERWISE_FOLDED.search(text):
        return None
    trigrams = dict.fromkeys(text[at : at + 3] for at in range(len(text) - 2))
    quoted = ('"{}"'.format(trigram.replace('"', '""')) for trigram in itertools.islice(trigrams, MOST_TRIGRAMS))
    return " AND ".join(quoted)


def _search_by_scan(text: str) -> Search:
    """Prepare the search by plain SQL where LIKE can decide it, by a function otherwise."""
    if not text.isascii() and len(text) > 2:
        return Search(Form(0), {"folded": fold(text)})
    # LIKE ignores the case of ASCII letters only
    spellings = [[c] if c.isascii() else sorted({c, c.lower(), c.upper(), c.title()}) for c in text]
    patterns = ["%" + _ESCAPED.sub(r"\\\g<0>", "".join(spelling)) + "%" for spelling in itertools.product(*spellings)]
    size = next(size for size in _PATTERNS if size >= len(patterns))
    # Surplus patterns are NULL, which no text is like.
    padded = itertools.zip_longest(range(size), patterns)
    return Search(Form(size), {f"pattern{place}": pattern for place, pattern in padded})


def fold(text: str) -> str:
    """Casefold ``text`` character by character as FTS5 does: ``ß`` stays one character."""
    folded = text.casefold()
    if len(folded) == len(text):
        return folded
    return "".join(f if len(f := c.casefold()) == 1 else c for c in text)


def _row_holds(title: bytes, message: bytes, folded: str) -> bool:
    return folded in fold(decode_text(title)) or folded in fold(decode_text(message))


def functions(conn: sqlite3.Connection) -> None:
    """Register the SQL function ``holds`` on a connection."""
    conn.create_function("holds", 3, _row_holds, deterministic=True)
