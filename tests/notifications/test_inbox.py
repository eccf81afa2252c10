"""Whatever readers and senders do, in whatever order, the unread counts are those of a recount."""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from flashflow.backend import Conflict, NotificationService
from flashflow.backend.schemas.records import Notification
from tests.support.examples import examples
from tests.support.fixed_clock import StillClock

USERS = ("ada", "bob")
APPS = ("ci", "shop")
users = st.sampled_from(USERS)


class Inbox(RuleBasedStateMachine):
    """A person's clicks, an app's sends and the clock, against a plain list of what should stand in the inbox."""

    notices = Bundle("notices")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="flashflow-inbox-"))
        self.clock = StillClock()
        self.sent: list[str] = []
        self.service = NotificationService(self.folder / "n.db", clock=self.clock)

    def teardown(self) -> None:
        self.service.close()
        shutil.rmtree(self.folder)

    @rule(
        target=notices,
        user=users,
        app=st.sampled_from(APPS),
        channel=st.sampled_from(["in_app", "email"]),
        later=st.sampled_from([None, None, 2]),
        ends=st.sampled_from([None, None, 3]),
        key=st.sampled_from([None, "build"]),
    )
    def send(
        self, user: str, app: str, channel: str, later: int | None, ends: int | None, key: str | None
    ) -> str:  # fmt: skip
        sent = self.service.send_notification(
            user,
            "T",
            "M",
            channel=channel,
            app=app,
            scheduled_at=None if later is None else self.clock.now + timedelta(hours=later),
            expires_at=None if ends is None else self.clock.now + timedelta(hours=ends),
            collapse_key=key,
        )
        if sent.notification_id not in self.sent:
            self.sent.append(sent.notification_id)
        return sent.notification_id

    @rule(
        notice=notices,
        step=st.sampled_from(
            [
                "mark_notification_as_read",
                "mark_notification_as_unread",
                "archive_notification",
                "unarchive_notification",
                "cancel_notification",
            ]
        ),
    )
    def move(self, notice: str, step: str) -> None:
        before = self.service.get_notification(notice)
        try:
            after = getattr(self.service, step)(notice)
        except Conflict:
            assert self.service.get_notification(notice) == before
        else:
            assert self.service.get_notification(notice).notification == after

    @rule(notice=notices, hours=st.integers(1, 3))
    def snooze(self, notice: str, hours: int) -> None:
        before = self.service.get_notification(notice)
        try:
            self.service.snooze_notification(notice, self.clock.at(hours=hours))
        except Conflict:
            assert self.service.get_notification(notice) == before

    @rule(user=users)
    def read_all(self, user: str) -> None:
        unread = self.service.unread_count(user)
        assert len(self.service.mark_all_as_read(user)) == unread
        assert self.service.unread_count(user) == 0

    @rule(notices=st.lists(notices, max_size=4))
    def take_back(self, notices: list[str]) -> None:
        self.service.mark_many_as_unread(notices)

    @rule(user=users, enabled=st.booleans())
    def switch(self, user: str, enabled: bool) -> None:
        self.service.update_notification_preference(user, "*", "in_app", enabled)

    @rule(hours=st.integers(1, 3))
    def time_goes_by(self, hours: int) -> None:
        self.clock.go(hours=hours)
        self.service.release_due()

    @rule()
    def open_again(self) -> None:
        self.service.close()
        self.service = NotificationService(self.folder / "n.db", clock=self.clock)

    @invariant()
    def the_counts_are_those_of_a_recount(self) -> None:
        for user in USERS:
            page = self.service.get_user_notifications(user, status="unread", limit=200)
            assert page.unread_count == self.service.unread_count(user) == len(page.notifications)
            for app in APPS:
                mine = self.service.get_user_notifications(user, status="unread", limit=200, app=app)
                assert mine.unread_count == len(mine.notifications)
            everything = self.service.get_user_notifications(user, status="all", limit=200).notifications
            for n in everything:
                assert (n.read_at is not None) == (n.status == "read"), n
                assert (n.inbox == "unread") <= (n.read_at is None), n
                assert (n.archived_at is not None) == (n.inbox == "archived"), n
                assert (n.snoozed_until is not None) == (n.inbox == "snoozed"), n

    @invariant()
    def every_list_is_paged_newest_first_whatever_place_its_rows_have(self) -> None:
        for user in USERS:
            every = [
                n
                for id_ in reversed(self.sent)
                if (n := self.service.get_notification(id_).notification).user_id == user
            ]
            every.sort(key=lambda n: n.listed_at, reverse=True)  # keeps the order in which equals were sent
            for status in (None, "all", "unread", "archived", "cancelled", "suppressed", "scheduled", "delivered"):
                wanted = [n for n in every if is_listed(n, status)]
                paged, cursor = [], None
                while True:
                    page = self.service.get_user_notifications(user, status=status, limit=2, cursor=cursor)
                    paged.extend(page.notifications)
                    cursor = page.next_cursor
                    if cursor is None:
                        break
                assert paged == wanted


def is_listed(n: Notification, status: str | None) -> bool:
    return {None: n.inbox in {"unread", "read"}, "all": True}.get(status, status in {n.inbox, n.status})


Inbox.TestCase.settings = settings(max_examples=examples(25), stateful_step_count=25, deadline=None)
test_the_unread_counts_equal_a_recount_whatever_happens = Inbox.TestCase
