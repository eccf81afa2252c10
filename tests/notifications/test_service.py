"""Sending, waiting, expiring, and the inbox: what a notification goes through."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend import Conflict, NotFound, NotificationService, ValidationError
from flashflow.backend.schemas.requests import SendIn, build
from tests.support.fixed_clock import StillClock


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def service(tmp_path: Path, clock: StillClock) -> Iterator[NotificationService]:
    with NotificationService(tmp_path / "n.db", clock=clock) as service:
        yield service


def send(service: NotificationService, **more: Any) -> str:
    """A notification to ada; returns its id."""
    return service.send_notification(**{"user_id": "ada", "title": "T", "message": "M"} | more).notification_id


def standing(service: NotificationService, notification_id: str) -> tuple[str, str | None]:
    """Its status, and its place in the inbox."""
    found = service.get_notification(notification_id).notification
    return found.status, found.inbox


# --- sending ----------------------------------------------------------------------------------------------------------


def test_data_for_many_users_has_a_limit_that_one_user_never_meets(service: NotificationService) -> None:
    def send(users: int, length: int) -> int:
        request = build(
            SendIn, user_ids=[f"u{n}" for n in range(users)], title="T", message="M", data={"x": "y" * length}
        )
        return len(service.store.run(service.send_write(request, "ci")))

    assert send(1, 900_000) == 1
    assert send(1000, 1_000) == 1000
    with pytest.raises(ValidationError, match="data: is too long for 1000 users: 33554 characters at most"):
        send(1000, 33_600)


def test_what_was_sent_is_read_back_as_it_was(service: NotificationService, clock: StillClock) -> None:
    sent = service.send_notification(
        "ada",
        "Build 7 “failed”",
        "line one\nline two — ✗",
        notification_type="builds",
        channels=["in_app", "email", "in_app"],
        data={"build": 7, "steps": ["a", {"b": None}]},
        priority="urgent",
        expires_at=clock.at(days=1),
        collapse_key="build",
        actions=[{"label": "Open", "url": "https://example.org/7"}],
        app="ci",
    )
    detail = service.get_notification(sent.notification_id)
    n = detail.notification
    assert (n.title, n.message, n.notification_type) == ("Build 7 “failed”", "line one\nline two — ✗", "builds")
    assert (n.channels, n.priority, n.app) == (("in_app", "email"), "urgent", "ci")
    assert n.data == {"build": 7, "steps": ["a", {"b": None}]}
    assert [(action.label, action.url) for action in n.actions] == [("Open", "https://example.org/7")]
    assert (n.expires_at, n.collapse_key) == (clock.at(days=1), "build")
    assert (n.created_at, n.sent_at, n.delivered_at, n.read_at) == (clock.now, clock.now, clock.now, None)
    for deliveries in (sent.deliveries, detail.deliveries):
        assert [(d.channel, d.status, d.code) for d in deliveries] == [
            ("in_app", "delivered", None),
            ("email", "failed", "not_configured"),
        ]
    assert service.get_notification(sent.notification_id, app="ci") == detail
    with pytest.raises(NotFound):
        service.get_notification(sent.notification_id, app="other")


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"title": None}, "title"),
        ({"message": None}, "message"),
        ({"title": ""}, "title"),
        ({"title": "\u0007"}, "title"),
        ({"title": "x" * 301}, "title"),
        ({"title": "half \ud83d"}, "title"),
        ({"message": "x" * 10_001}, "message"),
        ({"message": " \n "}, "message"),
        ({"user_id": ""}, "user_id"),
        ({"channel": "pigeon"}, "channel"),
        ({"channel": "in_app", "channels": ["email"]}, "channel"),
        ({"priority": "asap"}, "priority"),
        ({"data": {"x": float("inf")}}, "data"),
        ({"actions": [{"label": "x", "url": "javascript:alert(1)"}]}, "actions.url"),
        ({"actions": [{"label": "x", "url": "https://x"}] * 4}, "actions"),
        ({"expires_at": datetime(2026, 6, 10, 12)}, "expires_at"),  # noqa: DTZ001 the point
        ({"template": "none such"}, "template"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_its_field_and_nothing_is_stored(
    service: NotificationService, bad: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as refusal:
        send(service, **bad)
    assert refusal.value.errors[0].field.replace(".0", "") == field
    assert service.get_user_notifications("ada", status="all").notifications == ()


def test_channels_come_from_the_request_then_the_template_then_the_type(service: NotificationService) -> None:
    service.declare_type("builds", channels=["email"])
    service.create_notification_template("t", "A", "B", channels=["sms"])

    def channels(**more: Any) -> list[str]:
        return [d.channel for d in service.send_notification("ada", "T", "M", **more).deliveries]

    assert channels() == ["in_app"]
    assert channels(notification_type="builds") == ["email"]
    assert channels(notification_type="builds", template="t") == ["sms"]
    assert channels(notification_type="builds", template="t", channel="in_app") == ["in_app"]


def test_a_type_is_listed_from_its_first_use(service: NotificationService) -> None:
    send(service, notification_type="build_finished")
    assert [(kind.name, kind.label) for kind in service.preferences.types()] == [("build_finished", "Build finished")]


# --- waiting for its time ---------------------------------------------------------------------------------------------


def test_a_scheduled_notification_waits_and_then_arrives_once(service: NotificationService, clock: StillClock) -> None:
    id_ = send(service, scheduled_at=clock.at(hours=1))
    assert standing(service, id_) == ("scheduled", None)
    clock.go(minutes=59)
    assert service.release_due() == 0
    clock.go(minutes=1)
    assert service.release_due() == 1
    assert standing(service, id_) == ("delivered", "unread")
    assert service.get_notification(id_).notification.delivered_at == clock.now
    assert service.release_due() == 0
    assert service.unread_count("ada") == 1


def test_who_gets_a_scheduled_notification_is_decided_when_it_goes_out(
    service: NotificationService, clock: StillClock
) -> None:
    id_ = send(service, scheduled_at=clock.at(hours=1), channels=["in_app", "email"])
    service.update_notification_preference("ada", "*", "in_app", False)
    clock.go(hours=2)
    service.release_due()
    detail = service.get_notification(id_)
    assert [(d.channel, d.status, d.code) for d in detail.deliveries] == [
        ("in_app", "suppressed", "channel_off"),
        ("email", "failed", "not_configured"),
    ]
    assert (detail.notification.status, detail.notification.inbox) == ("failed", None)


def test_what_was_scheduled_for_the_past_goes_out_at_once(service: NotificationService, clock: StillClock) -> None:
    assert standing(service, send(service, scheduled_at=clock.at(hours=-1))) == ("delivered", "unread")


def test_more_is_released_than_fits_one_round(service: NotificationService, clock: StillClock) -> None:
    users = [f"user {n}" for n in range(600)]
    service.store.run(
        service.send_write(SendIn(user_ids=users, title="T", message="M", scheduled_at=clock.at(minutes=1)), "local")
    )
    clock.go(minutes=1)
    assert [service.release_due() for _ in range(2)] == [600, 0]
    assert all(service.unread_count(user) == 1 for user in users[::97])


def test_cancelled_it_never_arrives(service: NotificationService, clock: StillClock) -> None:
    id_ = send(service, scheduled_at=clock.at(hours=1))
    assert service.cancel_notification(id_).status == "cancelled"
    assert service.cancel_notification(id_).status == "cancelled"
    clock.go(hours=2)
    assert service.release_due() == 0
    assert service.unread_count("ada") == 0
    assert {d.code for d in service.get_notification(id_).deliveries} == {"cancelled"}
    with pytest.raises(Conflict):
        service.cancel_notification(send(service))


# --- expiring ---------------------------------------------------------------------------------------------------------


def test_an_unread_notification_leaves_the_inbox_when_it_expires(
    service: NotificationService, clock: StillClock
) -> None:
    unread, read, archived = (send(service, expires_at=clock.at(hours=1)) for _ in range(3))
    service.mark_notification_as_read(read)
    service.archive_notification(archived)
    assert service.unread_count("ada") == 1
    clock.go(hours=1)
    assert service.release_due() == 1
    assert standing(service, unread) == ("expired", None)
    assert standing(service, read) == ("read", "read")
    assert standing(service, archived) == ("delivered", "archived")
    assert service.unread_count("ada") == 0
    assert service.release_due() == 0
    with pytest.raises(Conflict):
        service.mark_notification_as_read(unread)


def test_what_expires_before_its_time_never_arrives(service: NotificationService, clock: StillClock) -> None:
    id_ = send(service, scheduled_at=clock.at(hours=1), expires_at=clock.at(hours=2))
    clock.go(hours=3)
    service.release_due()
    assert standing(service, id_) == ("expired", None)
    for wrong in (clock.now, clock.at(hours=-1)):
        with pytest.raises(ValidationError, match="expires_at"):
            send(service, expires_at=wrong)
    with pytest.raises(ValidationError, match="after scheduled_at"):
        send(service, scheduled_at=clock.at(hours=2), expires_at=clock.at(hours=1))


# --- the inbox --------------------------------------------------------------------------------------------------------


def test_a_notification_goes_through_its_readers_hands(service: NotificationService, clock: StillClock) -> None:
    id_ = send(service)
    steps: list[tuple[Any, tuple[str, str | None]]] = [
        (service.mark_notification_as_read, ("read", "read")),
        (service.mark_notification_as_unread, ("delivered", "unread")),
        (service.archive_notification, ("delivered", "archived")),
        (service.unarchive_notification, ("delivered", "unread")),
        (service.mark_notification_as_read, ("read", "read")),
        (service.archive_notification, ("read", "archived")),
        (service.unarchive_notification, ("read", "read")),
    ]
    for step, after in steps:
        clock.go(minutes=1)
        first = step(id_)
        clock.go(minutes=1)
        assert step(id_) == first
        assert standing(service, id_) == after
        assert (service.get_notification(id_).notification.read_at is None) == (after[0] != "read")


def test_what_its_state_does_not_allow_is_a_conflict_and_changes_nothing(service: NotificationService) -> None:
    id_ = send(service, channel="email")
    before = service.get_notification(id_)
    for step in (
        service.mark_notification_as_unread,
        service.archive_notification,
        service.unarchive_notification,
        service.cancel_notification,
    ):
        with pytest.raises(Conflict):
            step(id_)
        with pytest.raises(NotFound):
            step("unheard-of")
    assert service.get_notification(id_) == before


def test_read_all_reads_what_is_unread_and_can_be_taken_back(service: NotificationService) -> None:
    first, second, third = (send(service) for _ in range(3))
    other = send(service, user_id="bob")
    service.mark_notification_as_read(second)
    done = service.mark_all_as_read("ada")
    assert set(done) == {first, third}
    assert (service.unread_count("ada"), service.unread_count("bob")) == (0, 1)
    assert service.mark_all_as_read("ada") == ()
    assert service.mark_many_as_unread([*done, *done, other, "unheard-of"]) == 2
    assert service.unread_count("ada") == 2
    assert standing(service, other) == ("delivered", "unread")


def test_lists_are_newest_first_filtered_and_stay_stable_while_rows_arrive(
    service: NotificationService, clock: StillClock
) -> None:
    ids = []
    for number in range(25):
        clock.go(minutes=1)
        ids.append(send(service, title=f"Number {number}", priority="high" if number % 5 == 0 else "normal"))
    page = service.get_user_notifications("ada", limit=10)
    seen = [n.id for n in page.notifications]
    while page.next_cursor:
        send(service, title="late")
        page = service.get_user_notifications("ada", limit=10, cursor=page.next_cursor)
        seen += [n.id for n in page.notifications]
    assert seen == ids[::-1]

    def titles(**asked: Any) -> list[str]:
        return [n.title for n in service.get_user_notifications("ada", **asked).notifications]

    service.mark_notification_as_read(ids[3])
    service.archive_notification(ids[4])
    assert titles(status="read") == ["Number 3"]
    assert titles(status="archived") == ["Number 4"]
    assert "Number 4" not in titles(limit=200)
    assert "Number 4" in titles(status="all", limit=200)
    assert titles(priority="high", limit=2) == ["Number 20", "Number 15"]
    assert titles(q="number 1_") == []
    assert titles(q="NUMBER 17") == ["Number 17"]
    assert titles(q="100%") == []
    assert titles(channel="email") == []


def test_a_device_is_masked_moved_and_removed(service: NotificationService) -> None:
    first = service.register_device_token("ada", "short", "web")
    assert first.device.token == "…"
    moved = service.register_device_token("bob", "short", "android", {"model": "x"})
    assert (moved.created, moved.device.id, moved.device.platform) == (False, first.device.id, "android")
    assert service.store.run(service.devices.remove_write(first.device.id, None)).user_id == "bob"
    assert service.list_devices("bob") == ()
    with pytest.raises(NotFound):
        service.store.run(service.devices.remove_write(first.device.id, None))
    with pytest.raises(ValidationError):
        service.register_device_token("ada", "t", "toaster")


def test_push_to_what_cannot_be_reached_says_why(service: NotificationService) -> None:
    def push() -> list[tuple[str | None, str | None]]:
        return [(d.status, d.code) for d in service.send_notification("ada", "T", "M", channel="push").deliveries]

    assert push() == [("failed", "no_device")]
    service.register_device_token("ada", "phone", "ios")
    service.register_device_token("ada", "elsewhere", "desktop")
    service.register_device_token("ada", "here", "desktop")
    service.policy_inputs.this_computer = "here"
    assert push() == [("failed", "not_configured"), ("failed", "other_computer"), ("pending", "queued")]


def test_what_is_scheduled_can_be_given_another_time_until_it_has_gone_out(
    service: NotificationService, clock: StillClock
) -> None:
    sent = service.send_notification("ada", "T", "M", scheduled_at=clock.at(hours=1), expires_at=clock.at(hours=9))
    moved = service.reschedule_notification(sent.notification_id, clock.at(hours=3))
    assert (moved.status, moved.scheduled_at) == ("scheduled", clock.at(hours=3))
    clock.go(hours=2)
    assert service.release_due() == 0
    for wrong in (clock.at(hours=-1), clock.at(hours=8)):
        with pytest.raises(ValidationError, match="scheduled_at"):
            service.reschedule_notification(sent.notification_id, wrong)
    clock.go(hours=1)
    assert service.release_due() == 1
    with pytest.raises(Conflict, match="delivered"):
        service.reschedule_notification(sent.notification_id, clock.at(hours=1))
    with pytest.raises(NotFound):
        service.reschedule_notification("nowhere", clock.at(hours=1))
