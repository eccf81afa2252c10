"""“Send a test” reaches whom the channel would reach, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flashflow.backend import Conflict, NotFound
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.domain.channel import BaseChannel
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome
from flashflow.backend.notifications.channel_test import ChannelTester
from tests.support.outbox_driver import SENT, Hands


class Recording(BaseChannel):
    """Takes everything, and notes to whom."""

    def __init__(self) -> None:
        self.targets: list[str | None] = []

    def _send(self, notice: DeliveryMessage) -> Outcome:
        self.targets.append(notice.target)
        return SENT

    def _probe(self) -> str:
        return "a fake"


class Parts:
    """Every route of push, and a Trials over those that are configured."""

    def __init__(self, folder: Path) -> None:
        self.hands = Hands(folder)
        self.channels = {route: Recording() for route in ("desktop", "fcm", "apns", "webpush", "email")}
        self.configured = set(self.channels)
        service = self.hands.service
        for token, platform in (("here", "desktop"), ("elsewhere", "desktop"), ("ab" * 32, "ios"), ("browser", "web")):
            service.register_device_token("ada", token, platform)
        self.channel_tester = ChannelTester(
            service,
            lambda: {route: RouteQueue(self.channels[route]) for route in self.configured},
        )
        service.policy_inputs.this_computer = "here"

    def asked(self, channel: str) -> dict[str, list[str | None]]:
        """Test it; route → whom it was asked to reach."""
        self.channel_tester.send_test(channel, "ada")
        return {route: channel.targets for route, channel in self.channels.items() if channel.targets}


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = Parts(tmp_path)
    yield parts
    parts.hands.service.close()


def test_push_is_tested_on_every_device_by_its_own_route(parts: Parts) -> None:
    phones = {"fcm": ["ada's phone"], "apns": ["ab" * 32], "webpush": ["browser"]}
    assert parts.asked("push") == {"desktop": ["here"]} | phones


def test_another_computer_is_not_told_for(parts: Parts) -> None:
    assert parts.asked("desktop") == {"desktop": ["here"]}


def test_an_iphone_is_reached_by_firebase_where_there_is_no_apns(parts: Parts) -> None:
    parts.configured.discard("apns")
    assert parts.asked("fcm") == {"fcm": ["ada's phone", "ab" * 32]}


def test_the_inbox_is_tested_with_a_notification_that_is_there(parts: Parts) -> None:
    (trial,) = parts.channel_tester.send_test("in_app", "ada")
    assert (trial.channel, trial.outcome) == ("in_app", "delivered")
    (found,) = parts.hands.service.get_user_notifications("ada").notifications
    assert (found.title, found.status) == ("A test from FlashFlow", "delivered")


def test_an_inbox_that_its_reader_turned_off_says_so(parts: Parts) -> None:
    parts.hands.service.update_notification_preference("ada", "*", "in_app", False)
    (trial,) = parts.channel_tester.send_test("in_app", "ada")
    assert (trial.outcome, trial.code, trial.text) == ("permanent", "channel_off", "The user turned the app off.")


def test_what_is_not_configured_or_has_no_address_is_said(parts: Parts) -> None:
    with pytest.raises(NotFound):
        parts.channel_tester.send_test("sms", "ada")
    for channel in ("push", "fcm", "email"):
        with pytest.raises(Conflict):
            parts.channel_tester.send_test(channel, "nobody")
    parts.configured.clear()
    with pytest.raises(NotFound):
        parts.channel_tester.send_test("push", "ada")
