"""Whatever senders, readers, workers, crashes and the clock do, in whatever order: nothing is lost or pretended."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flashflow.backend import Conflict
from flashflow.backend.core.encoding import decode_id
from flashflow.backend.delivery.back_off import BackOff
from flashflow.backend.domain.channel import LEASE_MS
from flashflow.backend.domain.delivery_messages import Claimed, Outcome, overall
from flashflow.backend.schemas.requests import SendIn, build
from flashflow.backend.store.notifications.delivery_state import INTERRUPTED_MOST
from tests.support.examples import examples
from tests.support.outbox_driver import BUSY, DELIVERED, REFUSED, ROUTES, SENT, Hands

BACK_OFF = BackOff(max_tries=3)
MOST_TRIES = 3 - 1 + INTERRUPTED_MOST
"""A worker that is lost may not have begun yet: only many of these end a delivery."""
USERS = ("ada", "bob")
DEAD = Outcome(outcome="token_dead", code="unregistered", text="Gone.")
WAIT = Outcome(outcome="throttled", code="slow_down", text="Wait.", retry_after_s=120)
MOVED_ON = {"read", "cancelled", "expired", "scheduled"}
"""Where a reader, a sender or the clock has moved a notification on."""
FINAL = {"sent", "delivered", "suppressed", "failed", "dead"}
STEPS = (
    "mark_notification_as_read", "mark_notification_as_unread", "archive_notification", "unarchive_notification",
    "cancel_notification", "cancel_notification", "retry_notification", "retry_notification", "snooze",
)  # fmt: skip

users = st.sampled_from(["ada", "ada", "bob"])
receivers = st.sampled_from([["ada"], ["ada"], ["bob"], ["ada", "bob"]])
kinds = st.sampled_from(["general", "general", "alarm", "alarm", "slow", "chat", "news", "fire"])
by = [None, ["push"], ["email"], ["email", "sms"], ["in_app", "push", "email"], ["slack", "in_app"], ["in_app"]]
channels = st.sampled_from(by)
keys = st.sampled_from([None, None, "a", "b"])
hours = st.sampled_from([None, None, None, None, None, 1, 30])
outcomes = st.sampled_from([SENT, SENT, SENT, DELIVERED, REFUSED, BUSY, BUSY, WAIT, DEAD])
pick = st.integers(0, 9)
recent = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 5])
changes = st.one_of(
    st.tuples(st.just("choose"), st.tuples(st.sampled_from(["*", "alarm", "general", "category:offers"]),
                                           st.sampled_from(["email", "push", "in_app", "*"]))),
    st.tuples(st.just("quiet"), st.sampled_from([("22:00", "07:00"), ("11:00", "13:00"), ("00:00", "23:00")])),
    st.tuples(st.just("disturb not"), st.sampled_from([1, 60, 3000])),
    st.tuples(st.just("digest"), st.sampled_from(["hourly", "daily", "off", None])),
    st.tuples(st.just("addresses"), st.none()),
    st.tuples(st.just("phone"), users),
    st.tuples(st.just("routes"), st.sampled_from(["fcm", "email", "sms", "slack"])),
)  # fmt: skip
"""What of a user's circumstances changes, and how."""


class Worker(NamedTuple):
    """A claim in a worker's hands, and the deliveries that a success would tell of."""

    claim: Claimed
    delivery_seq: int


class Row(NamedTuple):
    """A delivery as it stands in the file, with its carrier and its notification."""

    status: str
    code: str | None
    route: str
    due: int | None
    release: int | None
    lease: int | None
    tries: int
    attempts: int
    carrier: int | None
    carriers_status: str | None
    carriers_carrier: int | None
    notification: str
    is_read_push: bool


class Outbox(RuleBasedStateMachine):
    """The service and its outbox against what the providers saw."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="flashflow-outbox-"))
        self.hands = Hands(self.folder, None, *USERS)
        self.under_way: list[Worker] = []
        self.told: Counter[int] = Counter()
        """Delivery → how often a provider accepted it, alone or in a summary."""
        self.lost: Counter[int] = Counter()
        """Delivery → how often a worker was lost with it."""
        self.believed: set[int] = set()
        """Deliveries whose acceptance was recorded."""
        self.seen: dict[int, tuple[int, tuple[Any, ...]]] = {}
        self.latest = 0

    @initialize()
    def declare(self) -> None:
        declare = self.hands.service.declare_type
        stages = [("push", 0), ("email", 5), ("sms", 15)]
        chain = [{"channel": channel, "after_minutes": minutes} for channel, minutes in stages]
        declare("alarm", channels=["in_app"], failover=chain)
        declare("slow", channels=["in_app"], failover=[{"channel": "email", "after_minutes": 900}], digest="hourly")
        declare("chat", channels=["in_app", "push"], throttle={"limit": 2, "minutes": 60})
        declare("news", channels=["email", "slack"], digest="daily", category="offers")
        declare("fire", channels=["push", "sms"], critical=True)

    def teardown(self) -> None:
        try:
            self.everything_comes_to_an_end()
        finally:
            self.hands.service.close()
            shutil.rmtree(self.folder)

    # --- senders --------------------------------------------------------------------------------------------------

    @rule(to=receivers, kind=kinds, channels=channels, key=keys, later=hours, ends=hours)
    def send(
        self, to: list[str], kind: str, channels: list[str] | None, key: str | None, later: int | None, ends: int | None
    ) -> None:
        now = self.hands.clock.now
        fields: dict[str, Any] = {"user_ids": to, "notification_type": kind, "channels": channels, "collapse_key": key}
        fields["scheduled_at"] = None if later is None else now + timedelta(hours=later)
        fields["expires_at"] = None if ends is None else (fields["scheduled_at"] or now) + timedelta(hours=ends)
        request = build(SendIn, title="T", message="M", **fields)
        sent = self.hands.service.store.run(self.hands.service.send_write(request, "ci"))
        assert [one.user_id for one in sent] == to

    @rule(several=st.lists(st.tuples(channels, keys), min_size=2, max_size=4), ends=hours)
    def send_what_waits_to_be_one_summary(
        self, several: list[tuple[list[str] | None, str | None]], ends: int | None
    ) -> None:
        self.hands.disturb_not(minutes=60)
        for position, (by, key) in enumerate(several):
            self.send(["ada"], "general", by or ["in_app", "push", "email"], key, None, ends if position else None)
        self.go_on(61)

    @rule(kind=st.sampled_from(["alarm", "slow"]))
    def begin_a_chain(self, kind: str) -> None:
        self.send(["ada"], kind, None, None, None, None)
        self.claim(0)

    # --- readers --------------------------------------------------------------------------------------------------

    @rule(which=recent, step=st.sampled_from(STEPS))
    def move(self, which: int, step: str) -> None:
        """A reader's or a sender's click on one of the latest."""
        if (id_ := self._notification(which)) is None:
            return
        before = self.hands.service.get_notification(id_)
        try:
            if step == "snooze":
                self.hands.service.snooze_notification(id_, self.hands.clock.at(minutes=90))
            else:
                getattr(self.hands.service, step)(id_)
        except Conflict:
            assert self.hands.service.get_notification(id_) == before

    @rule(user=users, step=st.sampled_from(["read all", "send digest"]))
    def all_of(self, user: str, step: str) -> None:
        if step == "send digest":
            self.hands.service.send_digest_now(user)
        else:
            self.hands.service.mark_all_as_read(user)
            assert self.hands.service.unread_count(user) == 0

    # --- circumstances --------------------------------------------------------------------------------------------

    @rule(user=users, what=changes, on=st.booleans())
    def change(self, user: str, what: tuple[str, Any], on: bool) -> None:
        name, how = what
        hands, service = self.hands, self.hands.service
        if name == "choose":
            service.update_notification_preference(user, *how, on)
        elif name == "quiet":
            hands.quiet(*how, user=user, on=on)
        elif name == "disturb not":
            hands.disturb_not(user, minutes=how)
        elif name == "digest":
            hands.digest(how, user=user)
        elif name == "addresses":
            hands.contact(user, email=f"{user}@example.org" if on else None, phone="+49301234567" if on else None)
        elif name == "phone" and on:
            service.register_device_token(user, f"{how}'s phone", "android")
        elif name == "phone":
            for device in service.list_devices(user):
                service.store.run(service.devices.remove_write(device.id, None))
        else:
            there = frozenset(ROUTES) - ({how} if on else set())
            service.policy_inputs.routes = there
            hands.table.refuse_routes(sorted(there))

    # --- workers --------------------------------------------------------------------------------------------------

    @rule(which=pick)
    def claim(self, which: int) -> None:
        due = self.hands.table.next_due(ROUTES)
        waiting = sorted(route for route, at in due.items() if at <= self.hands.clock.now_ms())
        if not waiting or (claim := self.hands.claim(waiting[which % len(waiting)])) is None:
            return
        ((seq, status, user, read, channel, expires, owner, active, device),) = self.hands.rows(
            "SELECT d.seq, n.status, n.user_id, n.read_at, d.channel, n.expires_at, t.user_id, t.is_active, "
            "d.device_seq FROM deliveries d JOIN notifications n ON n.seq = d.notification_seq "
            "LEFT JOIN device_tokens t ON t.seq = d.device_seq WHERE d.id = ?",
            bytes.fromhex(claim.message.delivery_id.replace("-", "")),
        )
        assert seq not in {worker.delivery_seq for worker in self.under_way}, "claimed twice at once"
        assert status not in {"cancelled", "expired", "scheduled"}
        assert expires is None or expires > self.hands.clock.now_ms()
        assert channel != "push" or read is None
        assert device is None or (owner == user and active)
        assert claim.tries <= MOST_TRIES
        of = self._told_by(seq)
        if len(of) > 1:
            assert claim.message.title == f"{len(of)} notifications"
        else:
            assert not claim.message.title.endswith(" notifications")
        self.under_way.append(Worker(claim, seq))

    @rule(which=pick, outcome=outcomes)
    def answer(self, which: int, outcome: Outcome) -> None:
        if not self.under_way:
            return
        worker = self.under_way.pop(which % len(self.under_way))
        if outcome.outcome in {"sent", "delivered"}:
            of = self._told_by(worker.delivery_seq)
            self.told.update(of)
            self.believed |= of
        self._record(worker.claim, outcome)

    @rule(which=pick, accepted=st.booleans(), outcome=st.none() | st.sampled_from([SENT, BUSY, REFUSED]))
    def outlive_a_lease(self, which: int, accepted: bool, outcome: Outcome | None) -> None:
        """Workers hang or die, and their deliveries are put back when the leases have run out; one of them answers
        after all (``outcome``)."""
        if not self.under_way:
            return
        worker = self.under_way[which % len(self.under_way)]
        late = self._told_by(worker.delivery_seq)
        for other in self.under_way:
            self._lose(other, accepted and (other is not worker or outcome is None))
        self.under_way.clear()
        self.hands.clock.go(milliseconds=LEASE_MS)
        self.hands.table.recover(all_leases=False)
        if outcome is SENT:
            self.told.update(late)
            self.believed |= late
        if outcome is not None:
            self._record(worker.claim, outcome)

    @rule(accepted=st.booleans(), kill=st.booleans())
    def start_again(self, accepted: bool, kill: bool) -> None:
        """After ``kill -9`` at any time, or with every answer recorded."""
        for worker in list(self.under_way):
            if kill:
                self._lose(worker, accepted)
            else:
                self.answer(0, BUSY)
        self.under_way.clear()
        self.hands.open_again()
        while self.hands.table.recover(all_leases=True):
            pass

    def _record(self, claim: Claimed, outcome: Outcome) -> None:
        now = self.hands.clock.now_ms()
        retry = BACK_OFF.next_try(claim, outcome, started_at=now, now_ms=now, chance=0.5)
        self.hands.record(claim, outcome, retry=retry)

    def _lose(self, worker: Worker, accepted: bool) -> None:
        of = self._told_by(worker.delivery_seq)
        self.lost.update(of)
        if accepted:
            self.told.update(of)

    def _told_by(self, seq: int) -> set[int]:
        """The deliveries that a claimed one tells of: itself, and what it carries."""
        rows = self.hands.rows("SELECT seq FROM deliveries WHERE digest_seq = ? AND status = 'pending'", seq)
        return {seq, *(member for (member,) in rows)}

    # --- time -----------------------------------------------------------------------------------------------------

    @rule(minutes=st.sampled_from([0, 0, 1, 6, 16, 61, 600, 4000, -1, -61, -100_000]))
    def go_on(self, minutes: int) -> None:
        """Time goes by, or the clock is set back; leases run out meanwhile."""
        self.hands.go(minutes=minutes)
        self.hands.table.recover(all_leases=False)
        sending = {seq for (seq,) in self.hands.rows("SELECT seq FROM deliveries WHERE status = 'sending'")}
        for worker in [w for w in self.under_way if w.delivery_seq not in sending]:
            self.under_way.remove(worker)
            self._lose(worker, accepted=True)

    # --- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def a_notification_stands_as_its_deliveries_do(self) -> None:
        now = self.hands.clock.now_ms()
        statuses: dict[int, list[str]] = {}
        for seq, status in self.hands.rows("SELECT notification_seq, status FROM deliveries"):
            statuses.setdefault(seq, []).append(status)
        for seq, status, inbox, expires in self.hands.rows("SELECT seq, status, inbox, expires_at FROM notifications"):
            if status not in MOVED_ON and not (expires is not None and expires <= now):
                assert status == overall(statuses[seq]), (status, statuses[seq])
            assert inbox is None or status in {"delivered", "read"}, (inbox, status)

    @invariant()
    def every_delivery_can_be_reached(self) -> None:
        rows = self.hands.rows(
            "SELECT d.status, d.code, d.route, d.next_attempt_at, d.release_at, d.lease_until, d.tries, "
            "(SELECT COUNT(*) FROM delivery_attempts a WHERE a.delivery_seq = d.seq), d.digest_seq, c.status, "
            "c.digest_seq, n.status, d.channel = 'push' AND n.read_at IS NOT NULL "
            "FROM deliveries d JOIN notifications n ON n.seq = d.notification_seq "
            "LEFT JOIN deliveries c ON c.seq = d.digest_seq"
        )
        for row in map(Row._make, rows):
            if row.status == "pending" and row.notification == "scheduled":
                assert row.code == "scheduled", row
            elif row.status == "pending" and row.carrier is not None:
                assert row.due is None, row
                assert row.carriers_status in {"pending", "sending"}, row
                assert row.carriers_carrier is None, row
            elif row.status == "pending":
                assert row.due is not None, row
                assert row.route, row
            elif row.status == "held":
                assert row.release is not None, row
            elif row.status == "sending":
                assert row.lease is not None, row
            else:
                assert row.status in FINAL, row
            if row.status in {"pending", "held"}:
                assert row.notification not in {"cancelled", "expired"}, row
                assert not row.is_read_push, row
            assert row.tries <= MOST_TRIES, row
            assert row.attempts >= row.tries - (row.status == "sending"), row

    @invariant()
    def nothing_is_pretended(self) -> None:
        arrived = self.hands.rows(
            "SELECT seq FROM deliveries WHERE status IN ('sent', 'delivered') AND channel <> 'in_app'"
        )
        assert {seq for (seq,) in arrived} <= self.believed

    @invariant()
    def nothing_goes_out_twice_but_for_a_lost_worker(self) -> None:
        for seq, channel, count in self.hands.rows(
            "SELECT d.seq, d.channel, n.count FROM deliveries d JOIN notifications n ON n.seq = d.notification_seq"
        ):
            replaced = count - 1 if channel == "push" else 0
            assert self.told[seq] <= 1 + self.lost[seq] + replaced, (seq, channel)

    @invariant()
    def the_unread_counts_are_those_of_a_recount(self) -> None:
        for user in USERS:
            ((count,),) = self.hands.rows(
                "SELECT COUNT(*) FROM notifications WHERE user_id = ? AND inbox = 'unread'", user
            )
            assert self.hands.service.unread_count(user) == count

    @invariant()
    def what_changes_has_a_new_revision(self) -> None:
        rows = self.hands.rows(
            "SELECT seq, revision, status, inbox, title, count, read_at, archived_at, snoozed_until, sent_at, "
            "delivered_at, (SELECT group_concat(status || '/' || COALESCE(code, '')) FROM deliveries "
            "WHERE notification_seq = n.seq AND status NOT IN ('sending', 'held', 'pending')) FROM notifications n"
        )
        revisions = [row[1] for row in rows]
        assert len(set(revisions)) == len(revisions)
        for seq, revision, *content in rows:
            before = self.seen.get(seq)
            if before is not None and before[1] != tuple(content):
                assert revision > self.latest, (before, revision, content)
        self.seen = {row[0]: (row[1], tuple(row[2:])) for row in rows}
        self.latest = max([self.latest, *revisions])

    # --- at the end -----------------------------------------------------------------------------------------------

    def everything_comes_to_an_end(self) -> None:
        """Nothing else happens, the providers accept, time goes by: then all is final."""
        self.hands.service.policy_inputs.routes = frozenset(ROUTES)
        for worker in self.under_way:
            self._lose(worker, accepted=True)
        self.under_way.clear()
        self.hands.open_again()
        while self.hands.table.recover(all_leases=True):
            pass
        for _ in range(1000):
            self.hands.service.release_due()
            while self._work_to_do():
                self.claim(0)
                self.answer(0, SENT)
            following = self._next_moment()
            if following is None:
                break
            self.hands.clock.go(milliseconds=max(1, following - self.hands.clock.now_ms()))
        left = self.hands.rows("SELECT seq, status, code FROM deliveries WHERE status NOT IN (?, ?, ?, ?, ?)", *FINAL)
        assert left == []
        assert self.hands.rows("SELECT * FROM notifications WHERE status IN ('scheduled', 'pending')") == []
        assert self.hands.rows("SELECT * FROM notifications WHERE inbox = 'snoozed' OR snoozed_until IS NOT NULL") == []
        self.a_notification_stands_as_its_deliveries_do()
        self.nothing_is_pretended()
        self.nothing_goes_out_twice_but_for_a_lost_worker()

    def _work_to_do(self) -> bool:
        now = self.hands.clock.now_ms()
        return any(at <= now for at in self.hands.table.next_due(ROUTES).values())

    def _next_moment(self) -> int | None:
        """The first time that anything waits for."""
        ((due_at,),) = self.hands.rows(
            "SELECT MIN(at) FROM (SELECT MIN(next_attempt_at) AS at FROM deliveries WHERE status = 'pending' UNION ALL "
            "SELECT MIN(release_at) FROM deliveries WHERE status = 'held' UNION ALL "
            "SELECT MIN(scheduled_at) FROM notifications WHERE status = 'scheduled' UNION ALL "
            "SELECT MIN(snoozed_until) FROM notifications)"
        )
        return None if due_at is None else int(due_at)

    def _notification(self, which: int) -> str | None:
        """The latest but ``which``."""
        rows = self.hands.rows("SELECT id FROM notifications ORDER BY seq DESC LIMIT 1 OFFSET ?", which)
        return decode_id(rows[0][0]) if rows else None


Outbox.TestCase.settings = settings(max_examples=examples(40), stateful_step_count=50, deadline=None)
test_nothing_is_lost_and_nothing_pretended_whatever_happens = Outbox.TestCase
