"""Activities and sessions of users.

    with UserActivityService() as service:                     # user_activities.db in the working folder
        service.track_activity("ada", "page_view", page_url="/pricing")
        print(service.get_user_analytics("ada").total_activities)

Methods that change data return after COMMIT. All methods are thread-safe.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from flashflow.backend.activity.batch import MOST_ROWS, Batch, result_of, without_rows, without_users
from flashflow.backend.activity.consent import NO_CONSENT, Admission
from flashflow.backend.activity.ingest import LOCAL_APP, ActivityParser, CheckMetadata, Origin
from flashflow.backend.analytics.rollups import RollupMaintenance, sql_functions
from flashflow.backend.analytics.service import Analytics
from flashflow.backend.core.clock import DAY_MS, Clock, IdMaker, SystemClock
from flashflow.backend.core.errors import Conflict, FlashFlowError, NotFound, Stopping, StorageError, ValidationError
from flashflow.backend.core.events import Bus
from flashflow.backend.core.timezones import LocalTime, workspace_zone
from flashflow.backend.schemas.records import (
    ActivityPage,
    BatchResult,
    Session,
    SessionPage,
    SessionStarted,
    Tracked,
    UserAnalytics,
)
from flashflow.backend.schemas.references import SessionRef, session_id_of, session_id_or_none
from flashflow.backend.schemas.requests import ActivityIn, SessionIn, build
from flashflow.backend.schemas.values import metadata_json, timestamp_ms
from flashflow.backend.store.activity import activities as table
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.activity.activities import NewActivity
from flashflow.backend.store.activity.session_cache import SessionCache
from flashflow.backend.store.activity.session_table import read_session
from flashflow.backend.store.activity.sessionizer import SessionBook, close_stale
from flashflow.backend.store.analytics.engagement_score import TRAILING_DAYS
from flashflow.backend.store.analytics.user_metrics import store_analytics, unsettled_users
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.open import open_store
from flashflow.backend.store.engine.writer import Bundle, Tx, Write
from flashflow.backend.store.files import ACTIVITY_SCHEMA

log = logging.getLogger(__name__)


class UserActivityService:
    """Activities, sessions and user metrics in one ``user_activities.db``.

    ``db_path`` may be relative to the working folder. With ``keep_record`` a file beside it records the last committed
    state, which detects a lost WAL. ``messages`` receives sentences for the owner about a damaged file; without it they
    are logged. Raises StorageError or a subclass when the file cannot be used.
    """

    def __init__(
        self,
        db_path: str | Path = "user_activities.db",
        *,
        bus: Bus | None = None,
        clock: Clock | None = None,
        messages: list[str] | None = None,
        zone: ZoneInfo | None = None,
        keep_record: bool = False,
    ) -> None:
        self.bus = bus or Bus()
        self.clock = clock or SystemClock()
        self._new_id = IdMaker(self.clock)
        self.local = LocalTime(zone or workspace_zone())
        self.cache = SessionCache(self.local)
        self._settled_on: date | None = None
        report = log.warning if messages is None else messages.append
        self.store: Store = open_store(
            Path(db_path).absolute(), ACTIVITY_SCHEMA, self.clock, self.bus.publish, report,
            sql_functions(self.local), keep_record=keep_record,
        )  # fmt: skip
        self.rollups = RollupMaintenance(self.store, self.local, self.cache)
        self.analytics = Analytics(self.store, self.clock, self.local, self.rollups.aggregate_pending)
        self.admission = Admission(self.store)
        self._incoming = ActivityParser(self.admission, self.clock, self._new_id)
        self._behind: int | None = None
        try:
            self.rollups.apply_zone()
        except StorageError as fault:  # a large file is checked in the background, and replaced at the next start
            log.warning("The rollups could not be brought up to date: %s", fault)

    # --- activities -----------------------------------------------------------------------------------------------

    def track_activity(
        self,
        user_id: str,
        activity_type: str,
        session_id: SessionRef | None = None,
        metadata: dict[str, Any] | None = None,
        page_url: str | None = None,
        referrer: str | None = None,
        user_agent: str | None = None,
        ip_address: str | None = None,
        timestamp: datetime | None = None,
        activity_id: str | None = None,
        app: str | None = None,
    ) -> Tracked:
        """Store one activity. Without ``session_id`` it joins the user's open session or opens one.

        A repeated ``activity_id`` changes nothing and returns ``duplicate``. Raises ValidationError, and Conflict when
        the id or the session belongs to another app.
        """
        activity = build(
            ActivityIn,
            user_id=user_id,
            activity_type=activity_type,
            session_id=session_id_or_none(session_id),
            metadata=metadata,
            page_url=page_url,
            referrer=referrer,
            user_agent=user_agent,
            timestamp=timestamp,
            activity_id=activity_id,
            app=app,
        )
        return self.store.run(self.track_write(activity, Origin(ip_address=ip_address)))

    def track_write(self, activity: ActivityIn, origin: Origin) -> Write[NewActivity, Tracked]:
        """Build the write of ``track_activity``. Raises ValidationError."""
        return Write(self._track_one, self._incoming.one(activity, origin))

    def check(self, activity: ActivityIn) -> None:
        """Raise ValidationError that names every invalid field."""
        self._incoming.check(activity, self.clock.now_ms())

    def check_models(self, models: Mapping[str, CheckMetadata]) -> None:
        """Check metadata that names one of these models, from now on."""
        self._incoming.models = models

    def track_batch(
        self, rows: Sequence[dict[str, Any]], sent_at: datetime | None = None, app: str | None = None
    ) -> BatchResult:
        """Store the valid ones of up to 1,000 ``rows`` (the keywords of track_activity) and return the rejected."""
        if len(rows) > MOST_ROWS:
            raise ValidationError.of("activities", f"must be {MOST_ROWS} at most")
        return self.store.run(self.batch_write(rows, sent_at, Origin(app=app or LOCAL_APP)))

    def batch_write(
        self,
        rows: Sequence[msgspec.Raw | dict[str, Any]],
        sent_at: datetime | None,
        origin: Origin,
        *,
        may_name_app: bool = True,
        key: str | None = None,
    ) -> Write[Batch, BatchResult]:
        """Build the write of ``track_batch``; rows may be JSON text. Under an Idempotency-Key (``key``) rows with a
        timestamp and without an id get one derived from it: repeated at any later time, they are duplicates."""
        batch = self._incoming.batch(rows, sent_at, origin, may_name_app=may_name_app, key=key)
        return Write(self.track_batches, batch, len(batch[1]))

    def _track_one(self, tx: Tx, items: Sequence[NewActivity]) -> list[Tracked | FlashFlowError]:
        old = self.admission.pruned_rows(tx, items)
        if not old:
            return self._admit(tx, items)
        admitted = iter(self._admit(tx, [a for at, a in enumerate(items) if at not in old]))
        return [old[at] if at in old else next(admitted) for at in range(len(items))]

    def _admit(self, tx: Tx, items: Sequence[NewActivity]) -> list[Tracked | FlashFlowError]:
        return self.admission.write_admitted(
            tx, items, lambda a: a.user_id, lambda good: self._store(tx, good), _NOT_STORED
        )

    def _store(self, tx: Tx, items: Sequence[NewActivity]) -> list[Tracked | FlashFlowError]:
        answers = table.track(tx, [items], self._new_id, self.cache)[0]
        assert isinstance(answers, list)
        self._count_in(tx, len(items))
        return answers

    def track_batches(self, tx: Tx, items: Sequence[Batch]) -> list[BatchResult | FlashFlowError]:
        items = [
            without_rows(item, old) if (old := self.admission.pruned_rows(tx, item.good)) else item for item in items
        ]
        refused_users = self.admission.refused_users(tx, (a.user_id for _, good, _ in items for a in good))
        if refused_users:
            items = [without_users(item, refused_users) for item in items]
        answers = table.track(tx, [good for _, good, _ in items], self._new_id, self.cache)
        self._count_in(tx, sum([len(good) for _, good, _ in items]))
        return [result_of(batch, answer) for batch, answer in zip(items, answers, strict=True)]

    def _count_in(self, tx: Tx, rows: int) -> None:
        """Aggregate pending activities once there are enough, in the writer's thread as the next transaction."""
        # An earlier process may have left some. Read here and not on opening, since a damaged file must still open.
        self._behind = user_index.tail_length(tx.conn) if self._behind is None else self._behind + rows
        if self._behind >= user_index.AGGREGATE_AT:
            self._behind = 0
            with suppress(Stopping):  # the next start does it
                self.store.writer.submit(Bundle([Write(lambda tx, _: [self.rollups.catch_up(tx)], None)], lambda: None))

    def list_activities(
        self,
        *,
        user_id: str | None = None,
        activity_type: str | None = None,
        session_id: SessionRef | None = None,
        app: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> ActivityPage:
        """List activities, newest first; ``since`` is included, ``until`` is not."""
        start = None if since is None else timestamp_ms("since", since)
        end = None if until is None else timestamp_ms("until", until)
        return self.store.read(
            lambda conn: table.list_activities(
                conn,
                user_id=user_id,
                activity_type=activity_type,
                session_id=None if session_id is None else session_id_of(session_id),
                app=app,
                since=start,
                until=end,
                limit=limit,
                cursor=cursor,
            )
        )

    # --- sessions -------------------------------------------------------------------------------------------------

    def start_session(
        self,
        user_id: str,
        device_info: dict[str, Any] | None = None,
        session_id: SessionRef | None = None,
        ip_address: str | None = None,
        user_agent: str | None = None,
        app: str | None = None,
    ) -> SessionStarted:
        """Open a session, or return the existing one of ``session_id`` with ``created`` false."""
        ref = session_id_or_none(session_id)
        start = build(SessionIn, user_id=user_id, device_info=device_info, session_id=ref, app=app)
        return self.store.run(self.start_session_write(start, Origin(LOCAL_APP, ip_address, user_agent)))

    def start_session_write(self, start: SessionIn, origin: Origin) -> Write[tuple[SessionIn, Origin], SessionStarted]:
        """Build the write of ``start_session``. Raises ValidationError."""
        metadata_json(start.device_info, "device_info")
        return Write(self._start, (start, origin))

    def _start(self, tx: Tx, items: Sequence[tuple[SessionIn, Origin]]) -> list[SessionStarted | FlashFlowError]:
        return self.admission.write_admitted(
            tx, items, lambda item: item[0].user_id, lambda good: self._open(tx, good), _NOT_OPENED
        )

    def _open(self, tx: Tx, items: Sequence[tuple[SessionIn, Origin]]) -> list[SessionStarted | FlashFlowError]:
        book = SessionBook(tx, self._new_id, self.cache)
        found: list[tuple[bytes, bool] | FlashFlowError] = []
        for start, origin in items:
            app = start.app or origin.app
            known = None if start.session_id is None else book.find(start.session_id)
            if known is None:
                made = book.open(
                    start.user_id, app, start.session_id, tx.now_ms, start.device_info,
                    self.admission.masked(origin.ip_address), origin.user_agent,
                )  # fmt: skip
                found.append((made.id, True))
            elif (known.app, known.user_id) != (app, start.user_id):
                found.append(Conflict(f"session_id: {start.session_id!r} belongs to another app or user."))
            else:
                found.append((known.id, False))
        book.save()
        if user_index.counted_to(tx.conn) is None:  # otherwise they are counted with the pending activities
            table.count_users(tx, {}, book)
        return [
            place
            if isinstance(place, FlashFlowError)
            else SessionStarted(session=read_session(tx.conn, place[0]), created=place[1])
            for place in found
        ]

    def end_session(self, session_id: SessionRef) -> Session:
        """End a session now; one that has ended does not change. Raises NotFound."""
        session = self.store.run(self.end_session_write(session_id_of(session_id), None))
        self.settle_metrics()
        return session

    def end_session_write(self, session_id: str, app: str | None) -> Write[tuple[str, str | None], Session]:
        """Build the write of ``end_session``; a session of another app is not found (``app`` None: any app)."""
        return Write(self._end, (session_id, app))

    def _end(self, tx: Tx, items: Sequence[tuple[str, str | None]]) -> list[Session | FlashFlowError]:
        book = SessionBook(tx, self._new_id, self.cache)
        found: list[bytes | FlashFlowError] = []
        for session_id, app in items:
            session = book.find(session_id)
            if session is None or (app is not None and session.app != app):
                found.append(NotFound(f"There is no session {session_id!r}."))
                continue
            if session.end_time is None:
                if session.is_stale(tx.now_ms):
                    session.close(session.last_seen, "timeout")
                else:
                    session.close(max(tx.now_ms, session.last_seen), "ended")
                book.mark(session)
            found.append(session.id)
        book.save()
        return [place if isinstance(place, FlashFlowError) else read_session(tx.conn, place) for place in found]

    def heartbeat(self, session_id: SessionRef) -> Session:
        """Keep a session alive. Raises NotFound, and Conflict when it has ended."""
        return self.store.run(self.heartbeat_write(session_id_of(session_id), None))

    def heartbeat_write(self, session_id: str, app: str | None) -> Write[tuple[str, str | None], Session]:
        """Build the write of ``heartbeat``."""
        return Write(self._beat, (session_id, app))

    def _beat(self, tx: Tx, items: Sequence[tuple[str, str | None]]) -> list[Session | FlashFlowError]:
        book = SessionBook(tx, self._new_id, self.cache)
        found: list[bytes | FlashFlowError] = []
        for session_id, app in items:
            session = book.find(session_id)
            if session is None or (app is not None and session.app != app):
                found.append(NotFound(f"There is no session {session_id!r}."))
            elif session.end_time is not None or session.is_stale(tx.now_ms):
                why = session.end_reason or "timeout"
                found.append(Conflict(f"The session {session_id!r} is over ({why}); start a new one."))
            else:
                if not self.admission.refused_users(tx, (session.user_id,)):
                    session.touch(tx.now_ms)
                    book.mark(session)
                found.append(session.id)
        book.save()
        return [place if isinstance(place, FlashFlowError) else read_session(tx.conn, place) for place in found]

    def get_user_sessions(
        self, user_id: str, *, app: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> SessionPage:
        """List a user's sessions, newest first."""
        return self.store.read(lambda conn: table.list_sessions(conn, user_id, app, limit, cursor))

    def close_idle_sessions(self) -> int:
        """End every session without activity for 30 minutes or a day long; return how many users had one."""
        users = self.store.write(lambda tx: close_stale(tx, self.cache))
        self.settle_metrics()
        return len(users)

    def settle_metrics(self, most: int = 200) -> int:
        """Store the metrics of up to ``most`` users whose sessions ended in ``user_analytics``; return how many.

        They are computed outside the writer's transaction, so that ending a session stays fast.
        """
        day, start, _ = self.analytics.today_bounds()
        if self._settled_on != day:
            # Users left by an earlier process, and on a new day all seen in the last 29 days: their scores change.
            self._settled_on = day
            since = start - (TRAILING_DAYS + 1) * DAY_MS
            self.cache.unsettled.update(self.store.read(lambda conn: unsettled_users(conn, start, since)))
        if self.store.read(user_index.counted_to) is not None:
            self.store.write(self.rollups.count)
        if not self.cache.unsettled:
            return 0
        # Taken in the writer's thread: the changes that made them unsettled are committed by then.
        users = self.store.write(lambda tx: self.cache.take_unsettled(most))
        if users:
            metrics = self.analytics.users(users)
            self.store.write(lambda tx: store_analytics(tx, metrics))
        return len(users)

    # --- metrics --------------------------------------------------------------------------------------------------

    def get_user_analytics(self, user_id: str, *, app: str | None = None) -> UserAnalytics:
        """Return a user's metrics (domain/metric_definitions); an unknown user has zeros and None."""
        return self.analytics.user(user_id, app)

    # --- closing --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Finish the pending writes and close the file. Safe to call twice."""
        self.store.close()

    def __enter__(self) -> UserActivityService:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


_NOT_STORED = Tracked(activity_id=None, session_id=None, stored=False, reason=NO_CONSENT)
_NOT_OPENED = SessionStarted(session=None, created=False)
