"""Most used pages and features of heavy users: users with at least HEAVY_AT activities have a rollup, ``user_names``.

Other users' pages and features are counted from their rows on demand; a heavy user may have a million rows. The rollup
counts the stored rows only: pruned and erased rows are subtracted.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence

from peewee import SQL, fn

from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.engine.statement import Statement, TextStatement, slot, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.aggregate import keyed_rows
from flashflow.backend.store.rollups.dimensions import FEATURE, PAGE_VIEW, user_key
from flashflow.backend.store.rollups.models import OTHER, Dimension, HeavyUser, UserDay, UserName
from flashflow.backend.store.rollups.partitions import rows_of_user

HEAVY_AT = 10_000
"""Activities above which a user has the rollup: about 15 ms of reading rows."""
KINDS = ("page", "feature")
Counts = tuple[Counter[str], Counter[str]]
"""Activities by page, and by feature."""


class _Named(NamedTuple):
    """Activities by name."""

    kind: int
    name: str
    activities: int


class _Used(NamedTuple):
    """Activities by page and feature."""

    page: str | None
    feature: str
    activities: int


def most_used(conn: sqlite3.Connection, user_id: str, app: str | None, most: int) -> Counts:
    """Count a user's pages and features in one app or in all; complete for the first ``most`` of each."""
    user = user_key(conn, user_id)
    if user is not None and is_heavy(conn, user):
        kept = _kept(conn, user, app)
        if all(_is_enough(one, most) for one in kept):
            for one in kept:
                del one[""]
            tail = _counted(conn, _USED_IN_TAIL, user_id, app)
            return kept[0] + tail[0], kept[1] + tail[1]
    return _counted(conn, _USED, user_id, app)


def _is_enough(counts: Counter[str], most: int) -> bool:
    """Whether no name counted as “all others” can be among the first ``most``."""
    named = sorted((n for name, n in counts.items() if name), reverse=True)[:most]
    return counts[""] == 0 or (len(named) == most and counts[""] < named[-1])


def _kept(conn: sqlite3.Connection, user: int, app: str | None) -> Counts:
    counts: dict[int, Counter[str]] = {OTHER[kind]: Counter() for kind in KINDS}
    for row in _KEPT.each(conn, user=user, app=app):
        counts[row.kind][row.name] += row.activities
    pages, features = (counts[OTHER[kind]] for kind in KINDS)
    return pages, features


def _counted(conn: sqlite3.Connection, used: TextStatement[_Used], user_id: str, app: str | None) -> Counts:
    pages: Counter[str] = Counter()
    features: Counter[str] = Counter()
    for row in used.each(conn, user=user_id, app=app):
        if row.page is not None:
            pages[row.page] += row.activities
        if row.feature != PAGE_VIEW:
            features[str(row.feature)] += row.activities
    return pages, features


def keys(conn: sqlite3.Connection) -> list[int]:
    """Return the keys of all heavy users."""
    return [user for (user,) in _ALL.each(conn)]


def is_heavy(conn: sqlite3.Connection, user: int) -> bool:
    return _IS_HEAVY.one(conn, user=user) is not None


_N = Dimension.alias()
_KEPT = Statement(
    lambda: (
        UserName.select(UserName.kind, Dimension.name, fn.SUM(UserName.activities).alias("activities"))
        .join(Dimension, on=(Dimension.key == UserName.name))
        .where(
            UserName.user == slot("user"),
            slot("app").is_null()
            | (UserName.app == _N.select(_N.key).where(_N.kind == OTHER["app"], _N.name == slot("app"))),
        )
        .group_by(UserName.kind, UserName.name)
    ),
    _Named,
)
_COUNTED = "user_id = :user AND (:app IS NULL OR app = :app) GROUP BY 1, 2"
_USED = TextStatement(
    f"SELECT page_url AS page, {FEATURE} AS feature, COUNT(*) AS activities FROM user_timeline WHERE {_COUNTED}",
    _Used,
    reason="SQL shared with the aggregation",
)
_USED_IN_TAIL = TextStatement(
    f"SELECT page_url AS page, {FEATURE} AS feature, COUNT(*) AS activities FROM {user_index.TAIL} AND {_COUNTED}",
    _Used,
    reason="SQL shared with the aggregation",
)
_IS_HEAVY = Statement(lambda: HeavyUser.select(SQL("1")).where(HeavyUser.user == slot("user")))


# --- maintenance ------------------------------------------------------------------------------------------------------


def expected(user: str) -> str:
    """Build the SELECT of a heavy user's rows of ``user_names`` from the raw rows; ``user``: SQL for the user's key."""
    return _names(keyed_rows("0", rows_of_user(user), "{other}"))


def _names(keyed: str, sign: str = "") -> str:
    names = "user, app, type, page, feature, referrer, hour, timestamp, seq"
    return f"WITH keyed ({names}) AS MATERIALIZED ({keyed}) " + " UNION ALL ".join(
        f"SELECT * FROM (SELECT user, app, {OTHER[kind]}, {kind}, {sign}COUNT(*) FROM keyed WHERE {kind} IS NOT NULL "
        "GROUP BY 1, 2, 4)"
        for kind in KINDS
    )


def promote(tx: Tx, user_ids: Collection[str]) -> None:
    """Make these users heavy users, if they are not yet."""
    for user_id in user_ids:
        user = user_key(tx.conn, user_id)
        if user is not None and not is_heavy(tx.conn, user):
            _PROMOTE.run(tx.conn, user=user)
            _ADD_NAMES.run(tx.conn, user=user)


def subtract(tx: Tx, seqs: Sequence[int]) -> None:
    """Subtract activities that are about to be deleted."""
    if keys(tx.conn):
        _SUBTRACT.run(tx.conn, seqs=to_json(seqs))
        _DELETE_EMPTY.run(tx.conn)


def rebuild(conn: sqlite3.Connection) -> None:
    """Recompute the heavy users and their names; call it after ``user_days`` and the index by user are rebuilt."""
    _DELETE_ALL_NAMES.run(conn)
    _DELETE_ALL.run(conn)
    _PROMOTE_ALL.run(conn, least=HEAVY_AT)
    for user in keys(conn):
        _ADD_NAMES.run(conn, user=user)


def erase(conn: sqlite3.Connection, user: int) -> None:
    """Delete a user's rows."""
    _DELETE_NAMES.run(conn, user=user)
    _DELETE.run(conn, user=user)


_ALL = Statement(lambda: HeavyUser.select(HeavyUser.user))
_PROMOTE = Statement(lambda: HeavyUser.insert(slots(HeavyUser.user)))
_PROMOTE_ALL = Statement(
    lambda: HeavyUser.insert_from(
        UserDay.select(UserDay.user).group_by(UserDay.user).having(fn.SUM(UserDay.activities) >= slot("least")),
        [HeavyUser.user],
    )
)
_ADD_NAMES = TextStatement(f"INSERT INTO user_names {expected(':user')}", reason="SQL shared with the aggregation")
_OF_HEAVY_USERS = (
    "user_activities a WHERE a.seq IN (SELECT value FROM json_each(:seqs)) AND a.user_id IN "
    "(SELECT user_id FROM user_keys WHERE key IN (SELECT user FROM heavy_users))"
)
_SUBTRACT = TextStatement(
    f"INSERT INTO user_names SELECT * FROM ({_names(keyed_rows('0', _OF_HEAVY_USERS, '{other}'), '-')}) WHERE true "
    "ON CONFLICT (user, app, kind, name) DO UPDATE SET activities = activities + excluded.activities",
    reason="SQL shared with the aggregation",
)
_DELETE_EMPTY = Statement(lambda: UserName.delete().where(UserName.activities <= 0))
_DELETE_ALL_NAMES = Statement(UserName.delete)
_DELETE_ALL = Statement(HeavyUser.delete)
_DELETE_NAMES = Statement(lambda: UserName.delete().where(UserName.user == slot("user")))
_DELETE = Statement(lambda: HeavyUser.delete().where(HeavyUser.user == slot("user")))
