"""A notification's status, drawn from its deliveries."""

from __future__ import annotations

from collections.abc import Collection

from flashflow.backend.core.encoding import decode_id, to_json
from flashflow.backend.core.events import Event
from flashflow.backend.domain.delivery_messages import overall
from flashflow.backend.store.engine.sql import execute_rows
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications.notifications import last_revision

_STANDS = (
    "SELECT n.seq, n.id, n.user_id, n.app, group_concat(d.status) FROM notifications n "
    "JOIN deliveries d ON d.notification_seq = n.seq WHERE n.seq IN (SELECT value FROM json_each(?)) GROUP BY n.seq"
)
_SETTLE = (
    "WITH v (revision, status, now, seq) AS (VALUES {rows}) UPDATE notifications SET revision = v.revision, "
    "status = CASE WHEN notifications.status IN ('pending', 'sent', 'delivered', 'failed', 'suppressed') "
    "AND (expires_at IS NULL OR expires_at > v.now) THEN v.status ELSE notifications.status END, "
    "sent_at = CASE WHEN v.status IN ('sent', 'delivered') THEN COALESCE(sent_at, v.now) ELSE sent_at END, "
    "delivered_at = CASE WHEN v.status = 'delivered' THEN COALESCE(delivered_at, v.now) ELSE delivered_at END "
    "FROM v WHERE notifications.seq = v.seq"
)


def settle_all(tx: Tx, notification_seqs: Collection[int]) -> None:
    """Draw each one's status anew, unless its reader or sender has moved it on; tell the bus. One whose time is over
    is left as it is until it is marked so."""
    if not notification_seqs:
        return
    revision = last_revision(tx.conn)
    changes = []
    for seq, id_, user_id, app, statuses in tx.conn.execute(_STANDS, (to_json(list(notification_seqs)),)).fetchall():
        revision += 1
        changes.append((revision, overall(statuses.split(",")), tx.now_ms, seq))
        tx.events.append(Event("notification.updated", decode_id(id_), user_id, app))
    execute_rows(tx.conn, _SETTLE, changes)


def settle_notification(tx: Tx, notification_seq: int) -> None:
    """``settle_all`` for one."""
    settle_all(tx, [notification_seq])


def settle(tx: Tx, delivery_seq: int) -> None:
    """``settle_all`` for the one that a delivery belongs to."""
    row = tx.conn.execute("SELECT notification_seq FROM deliveries WHERE seq = ?", (delivery_seq,)).fetchone()
    settle_all(tx, [row[0]])
