"""The objects that the services answer with are taken wherever their ids are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flashflow.backend import NotificationService, PrivacySettings, UserActivityService, ValidationError


@pytest.fixture
def activities(tmp_path: Path) -> Iterator[UserActivityService]:
    with UserActivityService(tmp_path / "user_activities.db") as service:
        yield service


@pytest.fixture
def notifications(tmp_path: Path) -> Iterator[NotificationService]:
    with NotificationService(tmp_path / "notifications.db") as service:
        yield service


def test_a_started_session_has_its_id_and_stands_for_it(activities: UserActivityService) -> None:
    started = activities.start_session("ada")
    assert started.session is not None
    assert started.session_id == started.session.id == started.session.session_id
    tracked = activities.track_activity("ada", "click", session_id=started)
    assert tracked.session_id == started.session_id
    assert len(activities.list_activities(session_id=started).activities) == 1
    assert activities.start_session("ada", session_id=started).created is False
    assert activities.heartbeat(started).id == started.session_id
    assert activities.end_session(started.session).id == started.session_id
    assert activities.end_session(tracked).id == started.session_id
    assert activities.end_session(str(started.session_id)).id == started.session_id


def test_without_consent_a_session_has_no_id_and_what_is_tracked_into_it_is_not_stored(
    activities: UserActivityService,
) -> None:
    activities.admission.settings = PrivacySettings(tracking="none")
    started = activities.start_session("ada")
    assert started.session_id is None
    assert activities.track_activity("ada", "click", session_id=started).stored is False
    with pytest.raises(ValidationError, match="session_id"):
        activities.end_session(started)


VERBS: dict[str, Callable[[NotificationService, object], object]] = {
    "get": lambda service, it: service.get_notification(it),  # type: ignore[arg-type]
    "read": lambda service, it: service.mark_notification_as_read(it),  # type: ignore[arg-type]
    "unread": lambda service, it: service.mark_notification_as_unread(it),  # type: ignore[arg-type]
    "many unread": lambda service, it: service.mark_many_as_unread([it]),  # type: ignore[list-item]
    "archive": lambda service, it: service.archive_notification(it),  # type: ignore[arg-type]
    "snooze": lambda service, it: service.snooze_notification(it, datetime.now(UTC) + timedelta(hours=1)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_sent_notification_stands_for_its_id(notifications: NotificationService, verb: str) -> None:
    sent = notifications.send_notification("ada", "Build finished", "All tests passed.")
    detail = notifications.get_notification(sent)
    assert sent.notification_id == detail.notification_id == detail.notification.notification_id
    for reference in (sent, detail, detail.notification, sent.notification_id):
        VERBS[verb](notifications, reference)


def test_a_scheduled_notification_can_be_moved_and_cancelled_by_what_send_answered(
    notifications: NotificationService,
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    sent = notifications.send_notification("ada", "Later", "In an hour.", scheduled_at=later)
    notifications.reschedule_notification(sent, later + timedelta(hours=1))
    assert notifications.cancel_notification(sent).status == "cancelled"


@pytest.mark.parametrize("wrong", [7, None, object(), ["id"]], ids=lambda wrong: type(wrong).__name__)
def test_what_has_no_id_is_refused_with_the_name_of_the_argument(
    activities: UserActivityService, notifications: NotificationService, wrong: object
) -> None:
    with pytest.raises(ValidationError, match="session_id"):
        activities.end_session(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="notification_id"):
        notifications.mark_notification_as_read(wrong)  # type: ignore[arg-type]
