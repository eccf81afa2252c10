"""A device is what its push provider would reach, however its address was written when it was registered."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flashflow.backend.notifications.service import NotificationService
from tests.support.api_client import DEVICES, SEND, fresh, ok, problem
from tests.support.fixed_clock import StillClock
from tests.support.old_files import write_old_file
from tests.support.push_service import Browser, PushService, push_service
from tests.support.server_process import ServerProcess, eventually, serving

APNS = "ab12" * 16


class World(NamedTuple):
    """FlashFlow with Web Push, and the push service."""

    server: ServerProcess
    pushes: PushService


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    data = tmp_path_factory.mktemp("devices")
    with push_service(None) as pushes:
        (data / "flashflow.toml").write_text(
            f'allow_hosts = ["127.0.0.1:{pushes.port}"]\n[channels.push.webpush]\nsubject = "mailto:me@example.org"\n'
        )
        with serving(data, env={"FLASHFLOW_KEYRING": "off"}) as server:
            yield World(server, pushes)


def device(user: str, token: str, platform: str = "web", info: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"user_id": user, "token": token, "platform": platform, "device_info": info or {}}


def spellings(endpoint: str, browser: Browser) -> dict[str, dict[str, Any]]:
    """Registrations of one browser, as apps write them."""
    plain = json.loads(browser.subscription(endpoint))
    keys = plain["keys"]
    padded = {name: base64.b64encode(raw).decode() for name, raw in (("p256dh", browser.point), ("auth", browser.auth))}
    upper = endpoint.replace("http://127.0.0.1", "HTTP://127.0.0.1")
    web = {
        "compact": (json.dumps(plain, separators=(",", ":")), {}),
        "spaced": (json.dumps(plain), {}),
        "over lines": ("\n" + json.dumps(plain, indent=2) + "\n", {}),
        "key order": (json.dumps({"keys": dict(reversed(keys.items())), "endpoint": endpoint}), {}),
        "expiration": (json.dumps({**plain, "expirationTime": None}), {}),
        "wrapped": (json.dumps({"subscription": plain}), {}),
        "scheme's case": (json.dumps({**plain, "endpoint": upper}), {}),
        "standard base64": (json.dumps({"endpoint": endpoint, "keys": padded}), {}),
        "base64 over lines": (json.dumps({"endpoint": endpoint, "keys": {n: f"{k}\n" for n, k in padded.items()}}), {}),
        "keys beside": (endpoint, {"keys": keys, "model": "X"}),
        "keys one by one": (endpoint, keys),
        "subscription beside": (fresh("browser"), {"subscription": plain}),
        "subscription as text": (fresh("browser"), {"subscription": json.dumps(plain)}),
    }
    return {name: {"token": token, "device_info": info} for name, (token, info) in web.items()}


def devices(server: ServerProcess, user: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ok(server.api("GET", f"/api/devices/user/{user}"))["devices"]
    return rows


def push(server: ServerProcess, user: str, **fields: Any) -> dict[str, Any]:
    return ok(
        server.api("POST", SEND, {"user_id": user, "title": "T", "message": "M", "channel": "push", **fields}), 201
    )


SPELLINGS = list(spellings("http://x", Browser()))


@pytest.mark.parametrize("again", SPELLINGS)
def test_one_browser_is_one_device_and_gets_one_push_however_it_is_registered(world: World, again: str) -> None:
    server, pushes = world
    path, browser, ada, bob = f"/push/{fresh()}", Browser(), fresh("ada"), fresh("bob")
    written = spellings(f"http://127.0.0.1:{pushes.port}{path}", browser)
    first = ok(server.api("POST", DEVICES, device(ada, "") | written["compact"]), 201)
    assert ok(server.api("POST", DEVICES, device(ada, "") | written[again]), 200) == first
    assert len(devices(server, ada)) == 1
    sent = push(server, ada, device_tokens=[written["spaced"]["token"]])
    eventually(lambda: [p.path for p in pushes.received if p.path == path] == [path])
    (arrived,) = [p for p in pushes.received if p.path == path]
    assert browser.message(arrived.body)["notification_id"] == sent["notification_id"]
    moved = ok(server.api("POST", DEVICES, device(bob, "") | written[again]), 200)
    assert moved == first
    assert [d["code"] for d in push(server, ada)["deliveries"]] == ["no_device"]


@pytest.mark.parametrize(
    "again",
    [APNS.upper(), APNS.title(), f"<{' '.join(APNS[at : at + 8] for at in range(0, 64, 8))}>", f" {APNS} "],
    ids=["upper case", "mixed case", "description", "spaces around"],
)
def test_one_iphone_is_one_device_in_every_spelling_of_its_tokens_bytes(world: World, again: str) -> None:
    user = fresh()
    first = world.server.api("POST", DEVICES, device(user, APNS, "ios")).json()["device_token_id"]
    other = fresh()
    assert ok(world.server.api("POST", DEVICES, device(other, again, "ios")))["device_token_id"] == first
    assert [d["code"] for d in push(world.server, user)["deliveries"]] == ["no_device"]
    assert len(push(world.server, other, device_tokens=[APNS, again])["deliveries"]) == 1


def test_firebase_tokens_keep_their_letter_case(world: World) -> None:
    user, token = fresh(), "cDe:APA91b" + fresh()
    for platform in ("android", "ios"):
        ok(world.server.api("POST", DEVICES, device(user, token + platform, platform)), 201)
        ok(world.server.api("POST", DEVICES, device(user, (token + platform).lower(), platform)), 201)
    assert len(devices(world.server, user)) == 4


def test_the_list_shows_neither_the_endpoint_nor_the_keys(world: World) -> None:
    user, browser = fresh(), Browser()
    endpoint = f"https://push.example.com/{fresh('secret')}"
    for written in spellings(endpoint, browser).values():
        world.server.api("POST", DEVICES, device(user, "") | written)
        answer = world.server.api("GET", f"/api/devices/user/{user}")
        assert endpoint not in answer.text
        assert "p256dh" not in answer.text


def test_an_erased_users_devices_go_from_what_others_were_sent_in_every_spelling(world: World) -> None:
    server, browser, ada, bob = world.server, Browser(), fresh("ada"), fresh("bob")
    token = ("cd34" * 16).upper()
    written = spellings(f"https://push.example.com/{fresh()}", browser)
    for registered in (device(ada, token.lower(), "ios"), device(ada, "") | written["keys beside"]):
        ok(server.api("POST", DEVICES, registered), 201)
    named = [token, written["spaced"]["token"], written["key order"]["token"], "bobs"]
    body = {"user_id": bob, "title": "T", "message": "M", "device_tokens": named}
    schedule = {"name": bob, "notification": body, "rule": {"every_minutes": 60}}
    ok(server.api("POST", "/api/schedules", schedule), 201)
    ok(server.api("DELETE", f"/api/users/{ada}"))
    kept = ok(server.api("GET", "/api/schedules"))["schedules"]
    assert [row["notification"]["device_tokens"] for row in kept if row["name"] == bob] == [["bobs"]]


# --- what could never be sent to

GOOD = json.loads(Browser().subscription("https://push.example.com/x"))["keys"]
OFF_CURVE = base64.urlsafe_b64encode(b"\4" + b"\1" * 64).decode()
SHORT = base64.urlsafe_b64encode(b"x" * 15).decode()
ENDPOINT = "https://push.example.com/x"


@pytest.mark.parametrize(
    ("token", "info", "fields"),
    [
        ({"endpoint": ENDPOINT, "keys": GOOD | {"p256dh": OFF_CURVE}}, {}, ["token.keys.p256dh"]),
        ({"endpoint": ENDPOINT, "keys": GOOD | {"p256dh": "???"}}, {}, ["token.keys.p256dh"]),
        ({"endpoint": ENDPOINT, "keys": GOOD | {"auth": SHORT}}, {}, ["token.keys.auth"]),
        ({"endpoint": ENDPOINT, "keys": GOOD | {"auth": 5}}, {}, ["token.keys.auth"]),
        ({"endpoint": ENDPOINT, "keys": {}}, {}, ["token.keys.p256dh", "token.keys.auth"]),
        ({"endpoint": ENDPOINT}, {}, ["token.keys.p256dh", "token.keys.auth"]),
        ({"endpoint": "push.example.com/x", "keys": GOOD}, {}, ["token.endpoint"]),
        ({"endpoint": "https://a:b@example.com/x", "keys": GOOD}, {}, ["token.endpoint"]),
        ({"keys": {"auth": "x"}}, {}, ["token.endpoint", "token.keys.p256dh", "token.keys.auth"]),
        ("{not JSON", {}, ["token"]),
        (ENDPOINT, {}, ["device_info.keys.p256dh", "device_info.keys.auth"]),
        (ENDPOINT, {"keys": GOOD | {"auth": "?"}}, ["device_info.keys.auth"]),
        (ENDPOINT, GOOD | {"p256dh": OFF_CURVE}, ["device_info.p256dh"]),
        ("mine", {"keys": GOOD}, ["token"]),
        ("mine", {"subscription": {"endpoint": ENDPOINT, "keys": {"p256dh": SHORT, "auth": SHORT}}},
         ["device_info.subscription.keys.p256dh", "device_info.subscription.keys.auth"]),
    ],
)  # fmt: skip
def test_a_subscription_that_no_push_can_be_encrypted_for_is_refused_with_its_fields(
    world: World, token: object, info: dict[str, Any], fields: list[str]
) -> None:
    user, text = fresh(), token if isinstance(token, str) else json.dumps(token)
    answer = world.server.api("POST", DEVICES, device(user, text, info=info))
    problem(answer, "validation_error", *fields)
    assert devices(world.server, user) == []


# --- files from before


def test_a_file_with_one_browser_several_times_keeps_the_latest_and_its_deliveries(tmp_path: Path) -> None:
    path, browser = tmp_path / "n.db", Browser()
    clock = StillClock()
    written = list({s["token"]: json.dumps(s["device_info"]) for s in spellings(ENDPOINT, browser).values()}.items())
    broken = json.dumps({"endpoint": ENDPOINT + "/other"})
    write_old_file("notifications", path, empty=True)
    with closing(sqlite3.connect(path)) as conn, conn:
        for seq, (token, info) in enumerate([*written, (broken, None), (APNS, None), (APNS.upper(), None)], 1):
            platform = "ios" if token.lower() == APNS else "web"
            conn.execute(
                "INSERT INTO device_tokens (seq, id, user_id, token, platform, device_info, is_active, app, created_at,"
                " updated_at) VALUES (?, ?, 'ada', ?, ?, ?, 1, 'a', 0, ?)",
                (seq, f"d{seq}", token, platform, info, seq),
            )
            conn.execute(
                "INSERT INTO deliveries (id, notification_seq, channel, device_seq, status, created_at, updated_at) "
                "VALUES (?, ?, 'push', ?, 'pending', 0, 0)",
                (f"v{seq}", 1 + seq % 2, seq),
            )
    with NotificationService(path, clock=clock) as service:
        kept = service.list_devices("ada")
        assert [device.id for device in kept] == [f"d{len(written) + 3}", f"d{len(written) + 1}", f"d{len(written)}"]
        rows = service.store.read(
            lambda conn: conn.execute("SELECT notification_seq, device_seq FROM deliveries").fetchall()
        )
        for notification in (1, 2):
            assert rows.count((notification, len(written))) == 1
        again = service.register_device_token("bob", browser.subscription(ENDPOINT), "web")
        assert (again.created, again.device.id) == (False, f"d{len(written)}")
        mended = service.register_device_token("ada", browser.subscription(ENDPOINT + "/other"), "web")
        assert (mended.created, mended.device.id) == (False, f"d{len(written) + 1}")
