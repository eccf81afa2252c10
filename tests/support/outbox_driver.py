"""A service and its outbox with nothing running by itself: a test claims, answers and lets time go by."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from flashflow.backend import NotificationService
from flashflow.backend.domain.channel import LEASE_MS
from flashflow.backend.domain.delivery_messages import (
    AttemptResult,
    Claimed,
    DeliveryMessage,
    NextStep,
    Outcome,
    Retrial,
)
from flashflow.backend.schemas.delivery_settings import ContactsIn, DigestIn, QuietHoursIn, given
from flashflow.backend.schemas.records import Delivery, Notification, Sent
from flashflow.backend.store.notifications.outbox import OutboxTable
from tests.support.fixed_clock import StillClock

ROUTES = ("desktop", "fcm", "apns", "webpush", "email", "sms", "slack")
SENT = Outcome(outcome="sent", code="accepted", text="Accepted.")
DELIVERED = Outcome(outcome="delivered", code="shown", text="Shown.")
REFUSED = Outcome(outcome="permanent", code="refused", text="No.")
BUSY = Outcome(outcome="transient", code="busy", text="Later.")


def retrial(at: int, since: int) -> Retrial:
    """The last of the retries of a delivery first tried at ``since``."""
    return Retrial(at=at, until=at, since=since)


def take(table: OutboxTable, route: str | None, tried: AttemptResult | None = None) -> Claimed | None:
    """One worker's turn by itself."""
    (claim,) = table.run_steps([NextStep(route=route, lease_ms=LEASE_MS, tried=tried)])
    if isinstance(claim, BaseException):
        raise claim
    return claim


class Stand(NamedTuple):
    """How one delivery stands."""

    status: str
    code: str | None


class Hands:
    """Ada has a phone, an address and a number; everything is configured, the owner's channel “slack” too."""

    def __init__(self, folder: Path, clock: StillClock | None = None, *users: str) -> None:
        self.path = folder / "n.db"
        self.clock = clock or StillClock()
        self.service = self._open()
        for user in users or ("ada",):
            self.contact(user)
            self.service.register_device_token(user, f"{user}'s phone", "android")

    def _open(self) -> NotificationService:
        service = NotificationService(self.path, clock=self.clock)
        service.zone = "UTC"
        service.policy_inputs.routes = frozenset(ROUTES)
        service.channels.named = ("slack",)
        self.table = OutboxTable(service.store)
        return service

    def open_again(self) -> None:
        self.service.close()
        self.service = self._open()

    # --- circumstances --------------------------------------------------------------------------------------------

    def contact(self, user: str, **changes: Any) -> None:
        fields = changes or {"email": f"{user}@example.org", "phone": "+49301234567"}
        self.service.store.run(self.service.delivery_settings.contact_write(user, given(ContactsIn, **fields)))

    def quiet(self, start: str = "22:00", end: str = "07:00", *, user: str = "ada", on: bool = True) -> None:
        setting = given(QuietHoursIn, enabled=on, start=start, end=end, timezone="UTC")
        self.service.store.run(self.service.delivery_settings.quiet_hours_write(user, setting))

    def disturb_not(self, user: str = "ada", **spans: float) -> None:
        until = self.clock.now_ms() + round(StillClock(self.clock.now).go(**spans).timestamp() * 1000)
        until -= self.clock.now_ms()
        self.service.store.run(self.service.delivery_settings.do_not_disturb_write(user, until))

    def digest(self, frequency: str | None, kind: str = "*", *, user: str = "ada", **at: str) -> None:
        choice = given(DigestIn, notification_type=kind, frequency=frequency, **at)
        self.service.store.run(self.service.delivery_settings.digest_write(user, choice))

    # --- sending and looking --------------------------------------------------------------------------------------

    def send(self, title: str = "T", message: str = "M", user: str = "ada", **more: Any) -> str:
        return self.sent(title, message, user, **more).notification_id

    def sent(self, title: str = "T", message: str = "M", user: str = "ada", **more: Any) -> Sent:
        return self.service.send_notification(user, title, message, **more)

    def notification(self, id_: str) -> Notification:
        return self.service.get_notification(id_).notification

    def deliveries(self, id_: str) -> tuple[Delivery, ...]:
        return self.service.get_notification(id_).deliveries

    def stands(self, id_: str) -> dict[str, Stand]:
        """Channel → how its delivery stands; the last of several devices."""
        return {d.channel: Stand(d.status, d.code) for d in self.deliveries(id_)}

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """What the file holds."""
        return self.service.store.read(lambda conn: conn.execute(sql, values).fetchall())

    # --- the outbox -----------------------------------------------------------------------------------------------

    def claim(self, route: str) -> Claimed | None:
        return take(self.table, route)

    def record(
        self,
        claim: Claimed,
        outcome: Outcome,
        *,
        retry_in_s: float | None = None,
        retry: Retrial | None = None,
        started_at: int | None = None,
    ) -> None:
        take(self.table, None, self.tried(claim, outcome, retry_in_s, started_at, retry))

    def record_together(self, *tries: tuple[Claimed, Outcome]) -> None:
        """In one transaction, as a busy writer does."""
        turns = [NextStep(route=None, tried=self.tried(claim, outcome)) for claim, outcome in tries]
        assert self.table.run_steps(turns) == [None] * len(turns)

    def tried(
        self,
        claim: Claimed,
        outcome: Outcome,
        retry_in_s: float | None = None,
        started_at: int | None = None,
        retry: Retrial | None = None,
    ) -> AttemptResult:
        now = self.clock.now_ms()
        return AttemptResult(
            delivery_id=claim.message.delivery_id,
            started_at=now if started_at is None else started_at,
            duration_ms=1,
            outcome=outcome,
            retry=retry if retry_in_s is None else retrial(now + round(retry_in_s * 1000), now),
        )

    def work(self, route: str, outcome: Outcome = SENT, *, retry_in_s: float | None = None) -> list[DeliveryMessage]:
        """Try all that is due on ``route``, each with this outcome; the notices that went out."""
        notices = []
        while (claim := self.claim(route)) is not None:
            self.record(claim, outcome, retry_in_s=retry_in_s)
            notices.append(claim.message)
        return notices

    def go(self, **spans: float) -> int:
        """Let time go by and do what it has come for; how many rows moved."""
        self.clock.go(**spans)
        return self.service.release_due()
