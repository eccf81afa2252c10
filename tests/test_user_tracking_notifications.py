"""A tour of what FlashFlow keeps: its seven tables, the activity service and the notification service.

Every stop uses real files and the services as an app without the window would. It runs with all the other tests, and
alone from anywhere: ``python tests/test_user_tracking_notifications.py``.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# The lines above let this file run alone.
from flashflow.backend import Bus, Conflict, Event, NotFound, NotificationService, UserActivityService, ValidationError  # noqa: E402
from flashflow.backend.store.activity.models import UserActivity, UserAnalytics, UserSession  # noqa: E402
from flashflow.backend.store.files import ACTIVITY_SCHEMA, NOTIFICATION_SCHEMA  # noqa: E402
from flashflow.backend.store.notifications.models import Notification  # noqa: E402

NOON = datetime(2026, 6, 10, 12, tzinfo=UTC)


class Watch:
    """The time, as this test sets it."""

    def __init__(self) -> None:
        self.now = NOON

    def now_ms(self) -> int:
        return round(self.now.timestamp() * 1000)

    def monotonic(self) -> float:
        return self.now.timestamp()

    def pass_minutes(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def activities(tmp_path: Path, watch: Watch) -> Iterator[UserActivityService]:
    with UserActivityService(tmp_path / "user_activities.db", clock=watch) as service:
        yield service


@pytest.fixture
def notifications(tmp_path: Path, watch: Watch) -> Iterator[NotificationService]:
    with NotificationService(tmp_path / "notifications.db", clock=watch) as service:
        yield service


# --- the seven tables -------------------------------------------------------------------------------------------------


def test_the_seven_tables_keep_their_names_and_their_rows(tmp_path: Path) -> None:
    with UserActivityService(tmp_path / "a.db") as activities:
        activities.track_activity("ada", "page_view", page_url="/pricing")
    with NotificationService(tmp_path / "n.db") as notifications:
        notifications.send_notification("ada", "Build finished", "All tests passed.")
        notifications.update_notification_preference("ada", "builds", "email", False)
        notifications.create_notification_template("build", "{name}", "{name} is done.")
        notifications.register_device_token("ada", "a-token", "android")

    assert counted(tmp_path / "a.db", "user_activities", "user_sessions", "user_analytics") == [1, 1, 1]
    tables = ("notifications", "notification_preferences", "notification_templates", "device_tokens")
    assert counted(tmp_path / "n.db", *tables) == [1, 1, 1, 1]


def test_the_models_read_what_the_services_wrote(
    activities: UserActivityService, notifications: NotificationService
) -> None:
    tracked = activities.track_activity("ada", "export", metadata={"feature": "csv"})
    sent = notifications.send_notification("ada", "Build finished", "All tests passed.", data={"build": 7})

    with activities.store.database.bind_ctx(ACTIVITY_SCHEMA.models):
        activity = UserActivity.get(UserActivity.id == tracked.activity_id)
        assert (activity.user_id, activity.activity_type, activity.metadata) == ("ada", "export", {"feature": "csv"})
        assert UserSession.get().id == tracked.session_id
        assert UserAnalytics.get_by_id("ada").total_activities == 1
        for model in ACTIVITY_SCHEMA.models:
            model.select().count()
    with notifications.store.database.bind_ctx(NOTIFICATION_SCHEMA.models):
        notification = Notification.get(Notification.id == sent.notification_id)
        assert (notification.title, notification.data, notification.channels) == (
            "Build finished",
            {"build": 7},
            ("in_app",),
        )
        for model in NOTIFICATION_SCHEMA.models:
            model.select().count()


def counted(path: Path, *tables: str) -> list[int]:
    """The rows of each table, read without FlashFlow."""
    with closing(sqlite3.connect(path)) as conn:
        return [conn.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables]


# --- what users do ----------------------------------------------------------------------------------------------------


def test_an_activity_is_stored_with_all_it_was_told(activities: UserActivityService) -> None:
    tracked = activities.track_activity(
        "ada",
        "purchase",
        metadata={"price": 12.5, "items": ["pen"]},
        page_url="/shop",
        referrer="https://example.org/",
        user_agent="Firefox",
        ip_address="127.0.0.1",
        timestamp=NOON - timedelta(minutes=5),
    )
    (activity,) = activities.list_activities(user_id="ada").activities
    assert activity.id == tracked.activity_id
    assert activity.session_id == tracked.session_id
    assert activity.activity_type == "purchase"
    assert activity.metadata == {"price": 12.5, "items": ["pen"]}
    assert (activity.page_url, activity.referrer) == ("/shop", "https://example.org/")
    assert (activity.user_agent, activity.ip_address) == ("Firefox", "127.0.0.1")
    assert activity.timestamp == NOON - timedelta(minutes=5)
    assert activity.received_at == NOON


def test_activities_close_together_fall_into_one_session_and_a_pause_begins_another(
    activities: UserActivityService, watch: Watch
) -> None:
    first = activities.track_activity("ada", "page_view")
    watch.pass_minutes(29)
    second = activities.track_activity("ada", "page_view")
    watch.pass_minutes(31)
    third = activities.track_activity("ada", "page_view")
    assert first.session_id == second.session_id != third.session_id


def test_a_session_is_started_kept_alive_and_ended(activities: UserActivityService, watch: Watch) -> None:
    session = activities.start_session("ada", device_info={"os": "Debian"}).session
    for page in ("/a", "/b", "/a"):
        watch.pass_minutes(1)
        activities.track_activity("ada", "page_view", session_id=session.id, page_url=page)
    watch.pass_minutes(2)
    activities.heartbeat(session.id)
    watch.pass_minutes(1)

    ended = activities.end_session(session.id)
    assert (ended.duration, ended.pages_visited, ended.activities) == (360.0, 2, 3)
    assert (ended.end_reason, ended.device_info) == ("ended", {"os": "Debian"})
    watch.pass_minutes(10)
    assert activities.end_session(session.id) == ended
    with pytest.raises(Conflict):
        activities.heartbeat(session.id)
    with pytest.raises(NotFound):
        activities.end_session("nobody's")


def test_a_users_figures_follow_from_what_they_did(activities: UserActivityService, watch: Watch) -> None:
    for page in ("/pricing", "/docs", "/pricing"):
        activities.track_activity("ada", "page_view", page_url=page)
        watch.pass_minutes(1)
    last = activities.track_activity("ada", "export", metadata={"feature": "csv"})
    activities.end_session(last.session_id)

    figures = activities.get_user_analytics("ada")
    assert (figures.total_sessions, figures.total_activities) == (1, 4)
    assert figures.last_activity == NOON + timedelta(minutes=3)
    assert figures.avg_session_duration == 180.0
    assert [(page.name, page.count) for page in figures.most_visited_pages] == [("/pricing", 2), ("/docs", 1)]
    assert [(feature.name, feature.count) for feature in figures.favorite_features] == [("csv", 1)]


def test_a_user_never_seen_has_zeros_and_nothing(activities: UserActivityService) -> None:
    figures = activities.get_user_analytics("nobody")
    assert (figures.total_sessions, figures.total_activities, figures.engagement_score) == (0, 0, 0)
    assert (figures.last_activity, figures.avg_session_duration, figures.most_visited_pages) == (None, None, ())


def test_of_a_batch_the_good_rows_land_and_the_bad_are_named(activities: UserActivityService) -> None:
    rows = [
        {"user_id": "ada", "activity_type": "a", "activity_id": "1"},
        {"user_id": "", "activity_type": "b"},
        {"user_id": "ada", "activity_type": "a", "activity_id": "1"},
        {"user_id": "ada", "activity_tipe": "c"},
    ]
    result = activities.track_batch(rows)
    assert (result.accepted, result.duplicates) == (1, 1)
    assert [(row.index, row.errors[0][0]) for row in result.rejected] == [(1, "user_id"), (3, "activity_tipe")]


# --- what users are told ----------------------------------------------------------------------------------------------


def test_a_notification_is_in_the_inbox_when_the_call_returns(notifications: NotificationService) -> None:
    sent = notifications.send_notification("ada", "Build finished", "All tests passed.", priority="high")
    assert sent.status == "delivered"
    page = notifications.get_user_notifications("ada")
    (notification,) = page.notifications
    assert (notification.id, notification.priority, notification.inbox) == (sent.notification_id, "high", "unread")
    assert page.unread_count == 1


def test_reading_is_remembered_by_its_first_time(notifications: NotificationService, watch: Watch) -> None:
    sent = notifications.send_notification("ada", "Build finished", "All tests passed.")
    watch.pass_minutes(5)
    assert notifications.mark_notification_as_read(sent.notification_id).read_at == NOON + timedelta(minutes=5)
    watch.pass_minutes(5)
    assert notifications.mark_notification_as_read(sent.notification_id).read_at == NOON + timedelta(minutes=5)
    assert notifications.unread_count("ada") == 0
    with pytest.raises(NotFound):
        notifications.mark_notification_as_read("unheard-of")


def test_a_channel_that_was_switched_off_is_obeyed_and_the_answer_says_so(notifications: NotificationService) -> None:
    notifications.update_notification_preference("ada", "builds", "in_app", False)
    sent = notifications.send_notification("ada", "Build finished", "Green.", notification_type="builds")
    assert sent.status == "suppressed"
    assert [(d.channel, d.status, d.code) for d in sent.deliveries] == [("in_app", "suppressed", "type_channel_off")]
    assert notifications.get_user_notifications("ada", status="unread").notifications == ()
    other = notifications.send_notification("ada", "Lunch", "Now.")
    assert other.status == "delivered"


def test_a_channel_that_is_not_configured_is_never_called_sent(notifications: NotificationService) -> None:
    sent = notifications.send_notification("ada", "Hello", "You.", channels=["in_app", "email", "sms"])
    assert {d.channel: (d.status, d.code) for d in sent.deliveries} == {
        "in_app": ("delivered", None),
        "email": ("failed", "not_configured"),
        "sms": ("failed", "not_configured"),
    }


def test_a_template_is_filled_in_and_what_is_missing_is_named(notifications: NotificationService) -> None:
    notifications.create_notification_template("build", "{{project}} built", "{project}: {count} tests passed.")
    sent = notifications.send_notification("ada", template="build", data={"project": "FlashFlow", "count": 250})
    stored = notifications.get_notification(sent.notification_id).notification
    assert (stored.title, stored.message) == ("FlashFlow built", "FlashFlow: 250 tests passed.")
    with pytest.raises(ValidationError) as refusal:
        notifications.send_notification("ada", template="build", data={"project": "FlashFlow"})
    assert [error.field for error in refusal.value.errors] == ["data.count"]


def test_a_device_registered_again_keeps_its_id_and_moves_to_its_new_user(notifications: NotificationService) -> None:
    first = notifications.register_device_token("ada", "token-of-a-telephone", "ios", {"model": "13"})
    again = notifications.register_device_token("bob", "token-of-a-telephone", "ios")
    assert (first.created, again.created) == (True, False)
    assert first.device.id == again.device.id
    assert notifications.list_devices("ada") == ()
    (device,) = notifications.list_devices("bob")
    assert device.token == "toke…hone"


def test_a_notification_can_wait_for_its_time(notifications: NotificationService, watch: Watch) -> None:
    sent = notifications.send_notification("ada", "Stand-up", "In 5.", scheduled_at=NOON + timedelta(hours=1))
    assert (sent.status, notifications.unread_count("ada")) == ("scheduled", 0)
    watch.pass_minutes(60)
    assert notifications.release_due() == 1
    assert notifications.unread_count("ada") == 1


# --- both -------------------------------------------------------------------------------------------------------------


def test_what_was_committed_is_told_on_the_bus(tmp_path: Path) -> None:
    heard: list[Event] = []
    bus = Bus()
    bus.subscribe(heard.extend)
    with (
        UserActivityService(tmp_path / "a.db", bus=bus) as activities,
        NotificationService(tmp_path / "n.db", bus=bus) as notifications,
    ):
        activities.track_activity("ada", "page_view")
        sent = notifications.send_notification("ada", "Hello", "You.")
        notifications.mark_notification_as_read(sent.notification_id)
    assert [event.kind for event in heard] == ["activity", "session", "notification", "notification.updated"]
    assert {event.user_id for event in heard} == {"ada"}


def test_everything_is_there_again_when_the_files_are_opened_again(tmp_path: Path) -> None:
    with UserActivityService(tmp_path / "a.db") as activities:
        tracked = activities.track_activity("ada", "page_view", page_url="/pricing")
    with NotificationService(tmp_path / "n.db") as notifications:
        sent = notifications.send_notification("ada", "Hello", "You.")
        notifications.mark_notification_as_read(sent.notification_id)
        notifications.update_notification_preference("ada", "*", "sms", False)

    with UserActivityService(tmp_path / "a.db") as activities:
        assert [row.id for row in activities.list_activities().activities] == [tracked.activity_id]
        assert activities.track_activity("ada", "page_view").session_id == tracked.session_id
        assert activities.get_user_analytics("ada").total_activities == 2
    with NotificationService(tmp_path / "n.db") as notifications:
        assert notifications.get_notification(sent.notification_id).notification.read_at is not None
        assert notifications.send_notification("ada", "A", "b", channel="sms").status == "suppressed"


def test_without_a_path_the_files_stand_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    UserActivityService().close()
    NotificationService().close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notifications.db", "user_activities.db"]


if __name__ == "__main__":
    raise SystemExit(pytest.main(["-c", str(ROOT / "pyproject.toml"), "-v", str(Path(__file__).resolve())]))
