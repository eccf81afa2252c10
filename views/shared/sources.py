"""Data sources of the reusable controls: the backend's services for one user, live through ``Live``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from flashflow.backend import (
    DigestChoice,
    DigestIn,
    EventKind,
    NotificationService,
    NotificationType,
    TypeIn,
    TypePreference,
    build,
    given,
)
from flashflow.views.controls.protocols import ALL, DigestSetting, Inbox, Matrix, TypeRow
from flashflow.views.shared.live import NOTIFICATION_KINDS, Live


class Host(Protocol):
    """The services of the app, and the user of its controls. ``Backend`` is one."""

    @property
    def notifications(self) -> NotificationService: ...
    @property
    def me(self) -> str: ...


class Listening(Protocol):
    """``Live``, or events of a service without the app."""

    def listen(
        self, kinds: Iterable[EventKind], refresh: Callable[[], None], *, mine: bool = False
    ) -> Callable[[], None]: ...


class UserInbox:
    """``InboxSource`` over the inbox of a user, by default the local one."""

    def __init__(self, backend: Host, live: Listening, user_id: str | None = None) -> None:
        self._backend = backend
        self._live = live
        self._user_id = user_id or backend.me

    def newest(self, limit: int) -> Inbox:
        services, user_id = self._backend.notifications, self._user_id
        page = services.get_user_notifications(user_id, limit=limit)
        until = services.delivery_settings.quiet_hours(user_id).do_not_disturb_until
        return Inbox(page.notifications, page.unread_count, until)

    def mark_read(self, notification_id: str) -> None:
        self._backend.notifications.mark_notification_as_read(notification_id)

    def mark_unread(self, notification_ids: Sequence[str]) -> None:
        self._backend.notifications.mark_many_as_unread(notification_ids)

    def mark_all_read(self) -> tuple[str, ...]:
        return self._backend.notifications.mark_all_as_read(self._user_id)

    def set_do_not_disturb(self, minutes: int | None) -> None:
        set_do_not_disturb(self._backend, minutes, self._user_id)

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        mine = self._user_id == self._backend.me
        unlisten_mine = self._live.listen((*NOTIFICATION_KINDS, "preference"), on_change, mine=mine)
        # Events of deleted notifications name no user.
        unlisten_deleted = self._live.listen(("pruning", "erasure"), on_change)

        def unsubscribe() -> None:
            unlisten_mine()
            unlisten_deleted()

        return unsubscribe


def set_do_not_disturb(backend: Host, minutes: int | None, user_id: str | None = None) -> None:
    """Turn do not disturb on for a user, by default the local one, for ``minutes``; None turns it off."""
    services = backend.notifications
    until = None
    if minutes is not None:
        until = services.clock.now_ms() + timedelta(minutes=minutes) // timedelta(milliseconds=1)
    services.store.run(services.delivery_settings.do_not_disturb_write(user_id or backend.me, until))


class UserPreferences:
    """``PreferenceSource`` over the preferences of a user, by default the local one."""

    def __init__(self, backend: Host, live: Listening, user_id: str | None = None) -> None:
        self._backend = backend
        self._live = live
        self._user_id = user_id or backend.me

    def matrix(self) -> Matrix:
        services, user_id = self._backend.notifications, self._user_id
        found = services.get_preferences(user_id)
        declared = {kind.name: kind for kind in services.preferences.types()}
        digests = services.delivery_settings.digests(user_id)
        return Matrix(
            preferences=found.preferences,
            types=tuple(_row(kind, declared.get(kind.name), digests) for kind in found.types),
            digest=_chosen(digests.get(ALL)),
            may_mark_critical=True,  # the local user owns the machine
        )

    def set_preference(self, notification_type: str, channel: str, enabled: bool) -> None:
        self._backend.notifications.update_notification_preference(self._user_id, notification_type, channel, enabled)

    def set_digest(self, notification_type: str, frequency: str | None, at: str | None) -> None:
        services = self._backend.notifications
        time_of_day = {} if at is None or frequency is None else {"at": at}
        choice = given(DigestIn, notification_type=notification_type, frequency=frequency, **time_of_day)
        services.store.run(services.delivery_settings.digest_write(self._user_id, choice))

    def set_critical(self, notification_type: str, critical: bool) -> None:
        preferences = self._backend.notifications.preferences
        kind = next((kind for kind in preferences.types() if kind.name == notification_type), None)
        if kind is not None:
            declaration, app = _with_critical(kind, critical), kind.app
        else:  # a type in the matrix that no app has declared
            row = next(row for row in self.matrix().types if row.name == notification_type)
            fields = {"label": row.label, "description": row.description, "critical": critical}
            declaration, app = build(TypeIn, name=row.name, **fields), row.app
        self._backend.notifications.store.run(preferences.declare_write(declaration, app, owner=None))

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        return self._live.listen(("preference", "settings", "erasure", "notification"), on_change)


@dataclass(frozen=True)
class _OneUser:
    notifications: NotificationService
    me: str


class InProcess:
    """Sources of the controls for any number of users over one service, without the app."""

    def __init__(self, notifications: NotificationService) -> None:
        self._notifications = notifications

    def inbox(self, user_id: str) -> UserInbox:
        """Return the source of a ``NotificationBell``."""
        return UserInbox(_OneUser(self._notifications, user_id), _ServiceEvents(self._notifications, user_id))

    def preferences(self, user_id: str) -> UserPreferences:
        """Return the source of a ``NotificationSettings``."""
        return UserPreferences(_OneUser(self._notifications, user_id), _ServiceEvents(self._notifications, user_id))


class _ServiceEvents:
    """One ``Live`` for each mounted control, in the event loop that mounts it."""

    def __init__(self, notifications: NotificationService, user_id: str) -> None:
        self._notifications = notifications
        self._user_id = user_id

    def listen(
        self, kinds: Iterable[EventKind], refresh: Callable[[], None], *, mine: bool = False
    ) -> Callable[[], None]:
        live = Live(self._notifications.bus, self._user_id, asyncio.get_running_loop())
        live.listen(kinds, refresh, mine=mine)
        live.start()
        return live.stop


def _chosen(choice: DigestChoice | None) -> DigestSetting | None:
    return None if choice is None else DigestSetting(choice.frequency, choice.at, True)


def _row(kind: TypePreference, declared: NotificationType | None, digests: Mapping[str, DigestChoice]) -> TypeRow:
    """Return a matrix row. The digest is the user's for the type, else for all types, else the declared one."""
    digest = _chosen(digests.get(kind.name))
    if digest is None and (for_all := digests.get(ALL)) is not None:
        digest = DigestSetting(for_all.frequency, for_all.at, False)
    if digest is None:
        own = (declared.digest, declared.digest_at) if declared is not None else (None, None)
        digest = DigestSetting(own[0] or "off", own[1], False)
    return TypeRow(
        name=kind.name,
        label=kind.label,
        description=kind.description,
        app=kind.app,
        critical=kind.critical,
        asks_critical=declared is not None and declared.asks_critical,
        digest=digest,
        channels=kind.channels,
    )


def _with_critical(kind: NotificationType, critical: bool) -> TypeIn:
    """Return the type's declaration with ``critical`` replaced."""
    fields = {name: getattr(kind, name) for name in TypeIn.__struct_fields__}
    fields["critical"] = critical
    if kind.throttle is not None:
        fields["throttle"] = {"limit": kind.throttle.limit, "minutes": kind.throttle.minutes}
    fields["failover"] = [{"channel": stage.channel, "after_minutes": stage.after_minutes} for stage in kind.failover]
    return build(TypeIn, **fields)
