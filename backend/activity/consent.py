"""Privacy checks on incoming rows: consent, erased users, pruned times, masked IP addresses.

Users are checked inside the transaction that stores their rows, so that no concurrent erasure is missed.
"""

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
from flashflow.backend.store.privacy.consents import Choice
from flashflow.backend.store.rollups import partitions

T = TypeVar("T")
R = TypeVar("R")
NO_CONSENT = "no_consent"


class WithoutConsent(FlashFlowError):
    """The user has not agreed to be tracked. Internal: clients get ``stored: false`` with a reason."""


class Consent(Record, frozen=True, kw_only=True):
    """``tracking`` is the user's choice (None: not made), ``setting`` the owner's rule, ``tracked`` the result."""

    user_id: str
    tracking: bool | None
    updated_at: datetime | None
    setting: str
    tracked: bool


class Admission:
    """Admission of rows to one ``user_activities.db``; ``settings`` may be replaced at any time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.settings = PrivacySettings()
        self.pruned_before: int | None = None
        """Activities before this time (milliseconds since 1970) were pruned; None: not read yet, since a damaged file
        must still open. Set inside transactions only, so that it is never older than the file's value."""

    # --- consent --------------------------------------------------------------------------------------------------

    def consent(self, user_id: str) -> Consent:
        """Return the user's choice and whether they are tracked."""
        return self._consent(user_id, self._store.read(lambda conn: consents.consent_of(conn, user_id)))

    def consent_write(self, user_id: str, tracking: bool) -> Write[tuple[str, bool], Consent]:
        """Build the write of the user's choice. Stored rows remain; erasure is a separate call."""
        return Write(self._consents, (user_id, tracking))

    def _consents(self, tx: Tx, items: Sequence[tuple[str, bool]]) -> list[Consent | FlashFlowError]:
        def save(user_id: str, tracking: bool) -> Consent:
            consents.save_consent(tx, user_id, tracking)
            return self._consent(user_id, Choice(tracking, tx.now_ms))

        return tombstones.unless_erased(tx, items, lambda item: (item[0],), lambda good: [save(*item) for item in good])

    def _consent(self, user_id: str, choice: Choice | None) -> Consent:
        rule = self.settings.tracking
        tracking = None if choice is None else choice.tracking
        return Consent(
            user_id=user_id,
            tracking=tracking,
            updated_at=None if choice is None else to_datetime(choice.updated_at),
            setting=rule,
            tracked=rule != "none" and (tracking is True or (tracking is None and rule == "all")),
        )

    # --- admission ------------------------------------------------------------------------------------------------

    def refused_users(self, tx: Tx, user_ids: Iterable[str]) -> dict[str, FlashFlowError]:
        """Return the users of whom nothing may be stored, each with the reason. ``user_ids`` is read only if any user
        is erased or has refused, or the settings restrict tracking."""
        rule = self.settings.tracking
        erased, refusals = consents.any_refusals(tx.conn)
        if rule == "all" and not erased and not refusals:
            return {}
        users = set(user_ids)
        refused: dict[str, FlashFlowError] = {}
        if rule == "none":
            refused.update({user: WithoutConsent(_TRACKING_OFF) for user in users})
        elif rule == "consented":
            agreed = consents.users_who_chose(tx.conn, True, users)
            refused.update({user: WithoutConsent(_NO_CHOICE) for user in users - agreed})
        elif refusals:
            refused.update(
                {user: WithoutConsent(_DECLINED) for user in consents.users_who_chose(tx.conn, False, users)}
            )
        if erased:
            refused.update({user: tombstones.refusal(user) for user in tombstones.erased_among(tx.conn, users)})
        return refused

    def write_admitted(
        self,
        tx: Tx,
        items: Sequence[T],
        user_of: Callable[[T], str],
        write: Callable[[Sequence[T]], Sequence[R | FlashFlowError]],
        not_stored: R,
    ) -> list[R | FlashFlowError]:
        """Apply ``write`` to the items of users that may be tracked; ``not_stored`` is the result without consent."""
        refused = self.refused_users(tx, map(user_of, items))
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
        """Raise ValidationError for a time (milliseconds since 1970) of which rows were pruned.

        A retried activity could not be recognised as a duplicate there. Runs before the transaction;
        ``pruned_rows`` checks again inside it.
        """
        if (before := self.pruned_before) is None:
            before = self._store.read(partitions.pruned_before)
        if timestamp < before:
            raise _pruned(before)

    def pruned_rows(self, tx: Tx, activities: Sequence[NewActivity]) -> dict[int, ValidationError]:
        """Return the errors, by index, of ``activities`` whose times were pruned since ``check_age``. Runs in the
        transaction that stores them."""
        if (before := self.pruned_before) is None:
            before = self.pruned_before = partitions.pruned_before(tx.conn)
        if not before:
            return {}
        return {at: _pruned(before) for at, a in enumerate(activities) if a.timestamp < before and a.timed}

    def update_pruned_before(self, tx: Tx) -> None:
        """Update ``pruned_before``; call it in the transaction that prunes."""
        earlier = self.pruned_before
        self.pruned_before = partitions.pruned_before(tx.conn)
        tx.undo.append(lambda: setattr(self, "pruned_before", earlier))

    def masked(self, ip_address: str | None) -> str | None:
        """Return the address to store, masked if the settings say so."""
        return mask_ip(ip_address) if self.settings.mask_ip and ip_address is not None else ip_address


def mask_ip(text: str) -> str | None:
    """Return the address with its first 24 (IPv4) or 48 (IPv6) bits, the rest 0; None for an invalid address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    hidden = 8 if address.version == 4 else 80
    return str(type(address)(int(address) >> hidden << hidden))


def _pruned(before: int) -> ValidationError:
    return ValidationError.of("timestamp", f"is too old: activities before {rfc3339(before)} were pruned")


_TRACKING_OFF = "no_consent: tracking is switched off; the activity was not stored"
_NO_CHOICE = "no_consent: the user has not agreed to be tracked; the activity was not stored"
_DECLINED = "no_consent: the user does not want to be tracked; the activity was not stored"
