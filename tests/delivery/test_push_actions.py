"""The actions of a notification reach phones, as they reach every other channel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.domain.channel import BaseChannel
from flashflow.backend.domain.delivery_messages import Link, Outcome
from tests.delivery.test_apns import apns_channel
from tests.delivery.test_fcm import fcm_channel
from tests.support.fixed_clock import StillClock
from tests.support.notices import notice
from tests.support.provider_servers import apns, google, key_file

BUTTONS = [{"label": "Open", "url": "https://ci.example.com/7?a=b&c=ü"}, {"label": "Log 🚀", "url": "http://x/log"}]
ACTIONS = tuple(Link(**button) for button in BUTTONS)


class Phone:
    """A channel to a phone; what its provider took last, with the actions read from where an app finds them."""

    def __init__(self, channel: BaseChannel, platform: str, taken: Callable[[], dict[str, Any]], in_data: bool) -> None:
        self._channel = channel
        self._platform = platform
        self._taken = taken
        self._in_data = in_data

    def send(self, **fields: Any) -> Outcome:
        return self._channel.send(notice(target="ab" * 32, platform=self._platform, **fields))

    @property
    def message(self) -> dict[str, Any]:
        return self._taken()

    @property
    def actions(self) -> Any:
        found = self.message["data"].get("actions") if self._in_data else self.message.get("actions")
        return json.loads(found) if self._in_data and found is not None else found

    @property
    def aps(self) -> dict[str, Any]:
        whole: dict[str, Any] = self.message["apns"]["payload"] if self._in_data else self.message
        aps: dict[str, Any] = whole["aps"]
        return aps


@pytest.fixture(params=["fcm android", "fcm ios", "apns ios"])
def phone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Phone]:
    route, platform = request.param.split()
    clock = StillClock()
    if route == "fcm":
        with google(clock) as provider:
            channel: BaseChannel = fcm_channel(provider, clock)
            yield Phone(channel, platform, lambda: provider.messages[-1], in_data=True)
            channel.close()
    else:
        with apns(clock) as apple:
            channel = apns_channel(apple, clock, key_file(tmp_path))
            yield Phone(channel, platform, lambda: apple.pushes[-1], in_data=False)
            channel.close()


def test_a_phone_gets_the_actions_and_the_data(phone: Phone) -> None:
    assert phone.send(actions=ACTIONS, data={"run": "7"}).text.count(";") == 0
    assert phone.actions == BUTTONS
    data = phone.message["data"]
    assert data["run"] == "7"
    if "android" not in phone.message:
        assert (phone.aps["category"], phone.aps["mutable-content"]) == ("flashflow.actions", 1)


def test_a_notification_without_actions_has_none(phone: Phone) -> None:
    phone.send(data={"actions": "the app's own"})
    assert phone.message["data"]["actions"] == "the app's own"
    if "android" not in phone.message:
        assert not {"category", "mutable-content"} & phone.aps.keys()


def test_the_data_go_before_the_actions_and_the_actions_before_the_message(phone: Phone) -> None:
    outcome = phone.send(message="m" * 300, actions=ACTIONS, data={"k": "d" * 3_900})
    assert outcome.text.endswith("; the data was left out")
    assert phone.actions == BUTTONS
    long = tuple(Link("Open", "https://ci.example.com/" + "x" * 1_500) for _ in range(3))
    outcome = phone.send(message="m" * 300, actions=long, data={"k": "v"})
    assert outcome.text.endswith("; the data was left out and the actions were left out")
    assert phone.actions is None


def test_actions_win_over_data_of_that_name_and_it_is_said(phone: Phone) -> None:
    outcome = phone.send(actions=ACTIONS, data={"actions": "mine", "run": "7"})
    assert phone.actions == BUTTONS
    assert phone.message["data"]["run"] == "7"
    in_the_way = "actions" in phone.message["data"] and phone.message["data"]["actions"] != "mine"
    assert in_the_way == outcome.text.endswith("left out of the data, because the name is reserved: actions")
