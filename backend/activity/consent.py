"""Who is tracked, and what of them: erased users and those without consent are turned away inside the transaction that
would have stored them, and addresses are masked before they get there."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from flashflow.backend.core.clock import rfc3339, to_datetime
from flashflow.backend.core.errors import FlashFlowError, ValidationError
from flashflow.backend.schemas.records import Record
from flashflow.backend.settings.model import PrivacySettings
from flashflow.backend.store.activity.activities import NewActivity
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.privacy import consents, tombstones
from flashflow.backend.store.rollups import partitions

T = TypeVar("T")
R = TypeVar("R")
NO_CONSENT = "no_consent"


class WithoutConsent(FlashFlowError):
    """The user has not agreed to be tracked; never leaves this process as an error."""


class Consent(Record, frozen=True, kw_only=True):
    """``tracking`` is what the user said (None: nothing yet), ``setting`` the owner's rule, ``tracked`` the outcome."""

    user_id: str
    tracking: bool | None
    updated_at: datetime | None
    setting: str
    tracked: bool


class Admission:
    """The gate of one ``user_activities.db``; ``settings`` may be exchanged at any time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.settings = PrivacySettings()
        self.pruned_before: int | None = None
        """Activities older than this (milliseconds since 1970) were pruned; None: it was not asked yet, since a damaged
        file must still open. Set inside transactions only, so that it is never behind what they find."""

    # --- consent --------------------------------------------------------------------------------------------------

    def consent(self, user_id: str) -> Consent:
        """What the user said, and whether they are tracked."""
        return self._consent(user_id, self._store.read(lambda conn: consents.consent_of(conn, user_id)))

    def consenting(self, user_id: str, tracking: bool) -> Write[tuple[str, bool], Consent]:
        """The write that keeps what the user said. What was stored of them before stays: erasing is another thing."""
        return Write(self._consents, (user_id, tracking))

    def _consents(self, tx: Tx, items: Sequence[tuple[str, bool]]) -> list[Consent | FlashFlowError]:
        def write(good: Sequence[tuple[str, bool]]) -> list[Consent]:
            for user_id, tracking in good:
                consents.save_consent(tx, user_id, tracking)
            return [self._consent(user_id, (tracking, tx.now_ms)) for user_id, tracking in good]

        return tombstones.unless_erased(tx, items, lambda item: (item[0],), write)

    def _consent(self, user_id: str, word: tuple[bool, int] | None) -> Consent:
        rule = self.settings.tracking
        said = None if word is None else word[0]
        return Consent(
            user_id=user_id,
            tracking=said,
            updated_at=None if word is None else to_datetime(word[1]),
            setting=rule,
            tracked=rule != "none" and (said is True or (said is None and rule == "all")),
        )

    # --- the gate -------------------------------------------------------------------------------------------------

    def turned_away(self, tx: Tx, user_ids: Iterable[str]) -> dict[str, FlashFlowError]:
        """Those of ``user_ids`` of whom nothing may be stored, and why. ``user_ids`` is looked at only where there is
        anybody to turn away."""
        rule = self.settings.tracking
        stones, noes = consents.any_turned_away(tx.conn)
        if rule == "all" and not stones and not noes:
            return {}
        users = set(user_ids)
        refused: dict[str, FlashFlowError] = {}
        if rule == "none":
            refused.update({user: WithoutConsent(_NOBODY) for user in users})
        elif rule == "consented":
            refused.update({user: WithoutConsent(_NOT_ASKED) for user in users - _said(tx, True, users)})
        elif noes:
            refused.update({user: WithoutConsent(_SAID_NO) for user in _said(tx, False, users)})
        if stones:
            refused.update({user: tombstones.refusal(user) for user in tombstones.erased_among(tx.conn, users)})
        return refused

    def admitted(
        self,
        tx: Tx,
        items: Sequence[T],
        user_of: Callable[[T], str],
        write: Callable[[Sequence[T]], Sequence[R | FlashFlowError]],
        not_stored: R,
    ) -> list[R | FlashFlowError]:
        """``write`` the items of whom may be tracked; ``not_stored`` answers for those without consent."""
        refused = self.turned_away(tx, map(user_of, items))
        if not refused:
            return list(write(items))
        good = [item for item in items if user_of(item) not in refused]
        written = iter(write(good) if good else ())
        answers: list[R | FlashFlowError] = []
        for item in items:
            why = refused.get(user_of(item))
            if why is None:
                answers.append(next(written))
            else:
                answers.append(not_stored if isinstance(why, WithoutConsent) else why)
        return answers

    def check_age(self, timestamp: int) -> None:
        """Raises ValidationError for a time (milliseconds since 1970) of which rows were pruned: an activity that comes
        a second time could not be known again, and would be counted twice. A quick answer ahead of ``too_old``."""
        if (before := self.pruned_before) is None:
            before = self._store.read(partitions.pruned_before)
        if timestamp < before:
            raise _pruned(before)

    def too_old(self, tx: Tx, activities: Sequence[NewActivity]) -> dict[int, ValidationError]:
        """Those of ``activities``, by their place, whose times were pruned since they were checked, and why not them:
        asked in the transaction that stores them, so that no row slips in behind its pruned first copy."""
        if (before := self.pruned_before) is None:
            before = self.pruned_before = partitions.pruned_before(tx.conn)
        if not before:
            return {}
        return {at: _pruned(before) for at, a in enumerate(activities) if a.timestamp < before and a.timed}

    def has_pruned(self, tx: Tx) -> None:
        """Whoever prunes says so here, in the same transaction."""
        earlier = self.pruned_before
        self.pruned_before = partitions.pruned_before(tx.conn)
        tx.undo.append(lambda: setattr(self, "pruned_before", earlier))

    def masked(self, ip_address: str | None) -> str | None:
        """The address as it may be stored."""
        return mask_ip(ip_address) if self.settings.mask_ip and ip_address is not None else ip_address


def row_refusal(why: FlashFlowError) -> ValidationError:
    """``why`` as a batch names it for one of its rows."""
    return ValidationError.of("user_id", str(why))


def mask_ip(text: str) -> str | None:
    """The network an address is in, IPv4 by its first 24 bits and IPv6 by its first 48; None for what is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    hidden = 8 if address.version == 4 else 80
    return str(type(address)(int(address) >> hidden << hidden))


def _pruned(before: int) -> ValidationError:
    words = f"is older than what is kept: activities before {rfc3339(before)} were pruned"
    return ValidationError.of("timestamp", words)


def _said(tx: Tx, tracking: bool, users: Iterable[str]) -> frozenset[str]:
    return consents.who_said(tx.conn, tracking, users)


_NOBODY = "no_consent: FlashFlow is set to track nobody; the activity was not stored"
_NOT_ASKED = "no_consent: the user has not agreed to be tracked; the activity was not stored"
_SAID_NO = "no_consent: the user does not want to be tracked; the activity was not stored"
