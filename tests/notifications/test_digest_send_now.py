"""“Send the digest now” counts what goes out, and names what does not with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_client import SEND, fresh, ok, problem
from tests.support.outbox_driver import Hands
from tests.support.server_process import ServerProcess, serving

NEVER_ANSWERS = '[channels.email]\nhost = "127.0.0.1"\nport = 9\nsecurity = "none"\nfrom = "hub@example.org"\n'


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    hands = Hands(tmp_path)
    hands.digest("daily")
    yield hands
    hands.service.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("digest")
    (folder / "flashflow.toml").write_text(NEVER_ANSWERS, encoding="utf-8")
    with serving(folder) as running:
        yield running


@pytest.fixture
def user(server: ServerProcess) -> str:
    """A user with an e-mail address and a daily digest that holds two e-mails."""
    user = fresh()
    ok(server.api("POST", f"/api/users/{user}/contacts", {"email": "ada@example.org"}))
    choice = {"notification_type": "*", "frequency": "daily", "at": "08:00"}
    ok(server.api("PUT", f"/api/notifications/digest/{user}", choice))
    for title in ("1", "2"):
        sent = ok(server.api("POST", SEND, {"user_id": user, "title": title, "message": "m", "channel": "email"}), 201)
        assert [(d["status"], d["code"]) for d in sent["deliveries"]] == [("held", "digest")]
    return user


def send_now(server: ServerProcess, user: str, **body: Any) -> dict[str, Any]:
    return ok(server.api("POST", f"/api/notifications/digest/{user}/send-now", body or None))


def quiet(server: ServerProcess, user: str) -> None:
    hours = {"enabled": True, "start": "00:00", "end": "23:59", "timezone": "UTC"}
    ok(server.api("PUT", f"/api/notifications/quiet-hours/{user}", hours))


def do_not_disturb(server: ServerProcess, user: str) -> None:
    ok(server.api("POST", f"/api/notifications/do-not-disturb/{user}", {"minutes": 60}))


def no_email(server: ServerProcess, user: str) -> None:
    choice = {"user_id": user, "notification_type": "*", "channel": "email", "enabled": False}
    ok(server.api("POST", "/api/notifications/preferences", choice))


def no_address(server: ServerProcess, user: str) -> None:
    ok(server.api("POST", f"/api/users/{user}/contacts", {"email": None}))


def test_what_goes_out_is_counted(server: ServerProcess, user: str) -> None:
    assert send_now(server, user) == {
        "success": True, "released": 2, "held_count": 0, "held": [], "stopped": [],
    }  # fmt: skip
    assert send_now(server, user)["released"] == 0


@pytest.mark.parametrize(("change", "code"), [(quiet, "quiet_hours"), (do_not_disturb, "do_not_disturb")])
def test_what_is_held_again_is_not_counted_but_named(
    server: ServerProcess, user: str, change: Callable[[ServerProcess, str], None], code: str
) -> None:
    change(server, user)
    for _ in range(2):  # the second time the digest itself holds nothing any more
        answer = send_now(server, user)
        assert (answer["released"], answer["held_count"], len(answer["held"])) == (0, 2, 2)
        for held in answer["held"]:
            assert (held["channel"], held["status"], held["code"]) == ("email", "held", code)
            assert held["reason"]
            detail = ok(server.api("GET", f"/api/notifications/{held['notification_id']}"))["notification"]
            (delivery,) = detail["deliveries"]
            assert {name: delivery[name] for name in ("code", "reason", "release_at")} == {
                name: held[name] for name in ("code", "reason", "release_at")
            }
    assert send_now(server, user, notification_type="other")["held"] == []


@pytest.mark.parametrize(
    ("change", "stands"), [(no_email, ("suppressed", "channel_off")), (no_address, ("failed", "no_address"))]
)
def test_what_ends_instead_is_named(
    server: ServerProcess, user: str, change: Callable[[ServerProcess, str], None], stands: tuple[str, str]
) -> None:
    change(server, user)
    answer = send_now(server, user)
    assert (answer["released"], answer["held_count"]) == (0, 0)
    assert [(one["status"], one["code"]) for one in answer["stopped"]] == [stands] * 2


def test_a_user_without_a_digest_gets_zeros(server: ServerProcess) -> None:
    assert send_now(server, fresh())["released"] == 0
    problem(server.api("POST", f"/api/notifications/digest/{fresh()}/send-now", {"x": 1}), "validation_error", "x")


def test_other_users_due_deliveries_do_not_displace_this_users(hands: Hands) -> None:
    """Five hundred of another user's are due before: the answer counts this user's all the same."""
    hands.contact("bob")
    hands.disturb_not("bob", minutes=1)
    for number in range(501):
        hands.send(str(number), user="bob", channel="email")
    hands.clock.go(minutes=1)
    for title in ("1", "2"):
        hands.send(title, channel="email")
    assert hands.service.send_digest_now("ada").released == 2


def test_more_than_one_step_takes_stays_due(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashflow.backend.notifications.release_due.TOGETHER", 3)
    for number in range(5):
        hands.send(str(number), channel="email")
    done = hands.service.send_digest_now("ada")
    assert (done.released, done.held_count) == (3, 2)
    assert {held.release_at for held in done.held} == {hands.clock.now}
    hands.service.release_due()
    assert sum(len(n.message.splitlines()) for n in hands.work("email")) == 5
