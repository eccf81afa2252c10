"""Every channel end to end: ``flashflow.toml``, one POST, each provider's request, the API's answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend.core.clock import SystemClock
from tests.support.provider_servers import (
    Apns,
    Google,
    Provider,
    Twilio,
    google,
    h2_server,
    http_server,
    key_file,
    twilio,
)
from tests.support.push_service import Browser, PushService, push_service
from tests.support.server_process import ServerProcess, eventually, serving
from tests.support.smtp_server import SmtpServer, smtp_server

SEND = "/api/notifications/send"
DEVICE = "ab" * 32
ANDROID = "android-token-0123456789"


class World:
    """Every provider on loopback, and a FlashFlow configured for them."""

    mail: SmtpServer
    sms: Twilio
    google: Google
    apple: Apns
    pushes: PushService
    browser: Browser
    server: ServerProcess
    settings: Path

    def send(self, **fields: Any) -> str:
        body = {"user_id": "ada", "title": "Build <b>finished</b>", "message": "All 312 tests passed.", **fields}
        answer = self.server.api("POST", SEND, body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["notification_id"])

    def deliveries(self, id_: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.server.api("GET", f"/api/notifications/{id_}").json()["notification"][
            "deliveries"
        ]
        return found

    def stands(self, id_: str) -> dict[str, tuple[str, str]]:
        """Channel (and platform) → status and code."""
        return {
            f"{d['channel']} {d['target']}" if d["channel"] == "push" else d["channel"]: (d["status"], d["code"])
            for d in self.deliveries(id_)
        }


def toml(world: World, folder: Path) -> str:
    credentials = folder / "service-account.json"
    credentials.write_text(world.google.credentials(), encoding="utf-8")
    return f"""
allow_hosts = ["127.0.0.1:{world.pushes.port}"]

[channels.email]
host = "127.0.0.1"
port = {world.mail.port}
security = "none"
from = "FlashFlow <hub@example.org>"

[channels.sms]
base_url = "{world.sms.base_url}"
account_sid = "{world.sms.sid}"
auth_token = "${{SMS_TOKEN}}"
from = "+15550100"

[channels.push.fcm]
credentials = "{credentials}"
base_url = "{world.google.base_url}"

[channels.push.apns]
key_file = "{key_file(folder)}"
key_id = "{world.apple.key_id}"
team_id = "{world.apple.team_id}"
topic = "{world.apple.topic}"
base_url = "{world.apple.base_url}"

[channels.push.webpush]
subject = "mailto:owner@example.org"

[delivery]
base_delay = 0.01
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    data = folder / "data"
    data.mkdir(mode=0o700)
    world = World()
    with ExitStack() as stack:
        world.mail = stack.enter_context(smtp_server())
        world.sms = stack.enter_context(twilio())
        world.google = stack.enter_context(google(SystemClock()))
        world.apple = Apns(SystemClock())
        stack.enter_context(h2_server(world.apple))
        world.pushes = stack.enter_context(push_service(None))
        world.browser = Browser()
        world.settings = data / "flashflow.toml"
        world.settings.write_text(toml(world, folder), encoding="utf-8")
        env = {"FLASHFLOW_USER": "me", "FLASHFLOW_KEYRING": "off", "SMS_TOKEN": world.sms.auth_token}
        world.server = stack.enter_context(serving(data, env=env))
        api = world.server.api
        contacts = api("POST", "/api/users/ada/contacts", {"email": "ada@example.org", "phone": "+49 151 12345678"})
        assert contacts.status_code == 200, contacts.text
        subscription = world.browser.subscription(f"http://127.0.0.1:{world.pushes.port}/push/1")
        for platform, token in (("android", ANDROID), ("ios", DEVICE), ("web", subscription)):
            made = api("POST", "/api/devices/register", {"user_id": "ada", "token": token, "platform": platform})
            assert made.status_code == 201, made.text
        yield world


def test_one_post_is_delivered_by_every_channel(world: World) -> None:
    id_ = world.send(channels=["in_app", "email", "sms", "push"], data={"build": 312})
    accepted = dict.fromkeys(("email", "sms", "push android", "push ios", "push web"), ("sent", "accepted"))
    eventually(lambda: world.stands(id_) == {"in_app": ("delivered", None)} | accepted)

    (mail,) = world.mail.mails
    assert mail.message["Subject"] == "Build <b>finished</b>"
    assert mail.message["To"] == "ada@example.org"
    form = world.sms.asked[-1].form
    assert form["To"] == "+4915112345678"
    assert "All 312 tests passed." in form["Body"]
    assert world.google.messages[-1]["token"] == ANDROID
    assert world.google.messages[-1]["notification"]["body"] == "All 312 tests passed."
    assert world.apple.pushes[-1]["aps"]["alert"]["body"] == "All 312 tests passed."
    assert world.browser.message(world.pushes.received[-1].body)["message"] == "All 312 tests passed."


def test_a_provider_that_recovers_is_retried_and_every_attempt_is_recorded(world: World) -> None:
    world.sms.answers = [world.sms.error(500, 20500, "Internal Server Error")] * 2
    id_ = world.send(channel="sms")
    eventually(lambda: world.stands(id_) == {"sms": ("sent", "accepted")})
    (delivery,) = world.deliveries(id_)
    assert [attempt["outcome"] for attempt in delivery["attempts"]] == ["transient", "transient", "sent"]
    assert "Internal Server Error" in delivery["attempts"][0]["text"]


def test_a_refusal_has_the_providers_text_and_can_be_retried(world: World) -> None:
    world.mail.misbehave("RCPT", "550 5.1.1 No such user here", times=1)
    id_ = world.send(channel="email")
    eventually(lambda: world.stands(id_) == {"email": ("failed", "smtp_550")})
    assert "No such user here" in world.deliveries(id_)[0]["reason"]
    assert world.server.api("POST", f"/api/notifications/retry/{id_}").status_code == 200
    eventually(lambda: world.stands(id_) == {"email": ("sent", "accepted")})
    assert world.server.api("POST", f"/api/notifications/retry/{id_}").status_code == 409


def test_a_device_with_a_dead_token_is_not_used_again(world: World) -> None:
    api = world.server.api
    api("POST", "/api/devices/register", {"user_id": "bob", "token": "bobs-old-phone", "platform": "android"})
    world.google.answers = [world.google.error(404, "NOT_FOUND", "Requested entity was not found.", "UNREGISTERED")]
    id_ = world.send(user_id="bob", channel="push")
    eventually(lambda: world.stands(id_) == {"push android": ("failed", "unregistered")})
    (device,) = api("GET", "/api/devices/user/bob").json()["devices"]
    assert device["is_active"] is False
    again = world.server.api("POST", SEND, {"user_id": "bob", "title": "T", "message": "M", "channel": "push"}).json()
    assert [(d["status"], d["code"]) for d in again["deliveries"]] == [("failed", "no_device")]


@pytest.mark.parametrize("how", ["keys beside the endpoint", "keys one by one", "a subscription beside a name"])
def test_a_browser_may_be_registered_by_the_parts_of_its_subscription(world: World, how: str) -> None:
    browser, user = Browser(), f"eve-{how}"
    told = json.loads(browser.subscription(f"http://127.0.0.1:{world.pushes.port}/push/{how.replace(' ', '-')}"))
    token, info = {
        "keys beside the endpoint": (told["endpoint"], {"keys": told["keys"]}),
        "keys one by one": (told["endpoint"], told["keys"]),
        "a subscription beside a name": ("eves-browser", {"subscription": told}),
    }[how]
    device = {"user_id": user, "token": token, "platform": "web", "device_info": info}
    assert world.server.api("POST", "/api/devices/register", device).status_code == 201
    id_ = world.send(user_id=user, channel="push")
    eventually(lambda: world.stands(id_) == {"push web": ("sent", "accepted")})
    assert browser.message(world.pushes.received[-1].body)["notification_id"] == id_
    tested = world.server.api("POST", "/api/channels/webpush/test", {"user_id": user}).json()
    assert [(r["outcome"], r["code"]) for r in tested["results"]] == [("sent", "accepted")]


def test_a_test_through_a_channel_shows_the_true_outcome(world: World) -> None:
    api = world.server.api
    told = api("POST", "/api/channels/email/test", {"user_id": "ada"}).json()
    assert [(r["outcome"], r["code"]) for r in told["results"]] == [("sent", "accepted")]
    world.mail.misbehave("RCPT", "550 5.7.1 Go away", times=1)
    told = api("POST", "/api/channels/email/test", {"user_id": "ada"}).json()
    assert [(r["outcome"], r["code"]) for r in told["results"]] == [("permanent", "smtp_550")]
    assert "Go away" in told["results"][0]["text"]
    assert api("POST", "/api/channels/email/test", {"user_id": "nobody"}).status_code == 409
    assert api("POST", "/api/channels/carrier/test", {}).status_code == 404


def test_settings_are_taken_up_while_it_runs_and_a_broken_file_changes_nothing(world: World) -> None:
    api, before = world.server.api, world.settings.read_text(encoding="utf-8")

    def works(name: str) -> bool:
        states = api("GET", "/api/channels").json()["channels"]
        return next((state["works"] for state in states if state["name"] == name), False)

    try:
        world.settings.write_text(before.replace("[channels.sms]", "[channels.sms"), encoding="utf-8")
        answer = api("POST", SEND, {"user_id": "ada", "title": "T", "message": "M", "channel": "sms"})
        assert answer.json()["deliveries"][0]["status"] == "pending"
        without = before[: before.index("[channels.sms]")] + before[before.index("[channels.push.fcm]") :]
        world.settings.write_text(without, encoding="utf-8")
        eventually(lambda: not works("sms"))
        answer = api("POST", SEND, {"user_id": "ada", "title": "T", "message": "M", "channel": "sms"})
        assert [(d["status"], d["code"]) for d in answer.json()["deliveries"]] == [("failed", "not_configured")]
    finally:
        world.settings.write_text(before, encoding="utf-8")
    eventually(lambda: works("sms"))


def test_a_custom_channel_works_like_the_others(world: World) -> None:
    hook = Provider()
    before = world.settings.read_text(encoding="utf-8")
    with http_server(hook) as port:
        world.settings.write_text(before + f'\n[channels.team]\nurl = "json://127.0.0.1:{port}/"\n', encoding="utf-8")
        try:
            eventually(
                lambda: "team" in [c["name"] for c in world.server.api("GET", "/api/channels").json()["channels"]]
            )
            id_ = world.send(channels=["team"])
            eventually(lambda: world.stands(id_) == {"team": ("sent", "accepted")})
            told = json.loads(hook.asked[-1].body)
            assert "All 312 tests passed." in told["message"]
            matrix = world.server.api("GET", "/api/notifications/preferences/ada").json()
            assert "team" in matrix["types"][0]["channels"]
            off = {"user_id": "ada", "notification_type": "*", "channel": "team", "enabled": False}
            assert world.server.api("POST", "/api/notifications/preferences", off).status_code == 200
            again = world.send(channels=["team"])
            assert world.stands(again) == {"team": ("suppressed", "channel_off")}
        finally:
            world.settings.write_text(before, encoding="utf-8")


def test_no_secret_reaches_a_log_an_answer_or_the_files_of_another_user(world: World) -> None:
    secrets = [world.sms.auth_token, "BEGIN PRIVATE KEY"]
    told = world.server.log + world.server.out + world.server.err
    told += world.server.api("GET", "/api/health").text + world.server.api("GET", "/api/channels").text
    assert [secret for secret in secrets if secret in told] == []
    assert (world.settings.parent / "vapid.pem").stat().st_mode & 0o077 == 0
    assert world.settings.stat().st_mode & 0o077 == 0
