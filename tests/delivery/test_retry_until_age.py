"""Retries of a transient failure end at an age, not after a count, and a network that is back is used at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashflow.backend.core.clock import DAY_MS
from flashflow.backend.delivery.back_off import JITTER_FROM_S, BackOff
from flashflow.backend.delivery.channel_registry import back_off_of
from flashflow.backend.delivery.network_return import NetworkReturn
from flashflow.backend.delivery.outbox import Outbox
from flashflow.backend.delivery.route_queue import RouteQueue
from flashflow.backend.domain.channel import BaseChannel, Transient
from flashflow.backend.domain.delivery_messages import AttemptResult, DeliveryMessage, Outcome
from flashflow.backend.settings.model import ChannelSettings, DeliverySettings
from tests.support.notices import notice
from tests.support.outbox_driver import BUSY, SENT, Hands, Stand
from tests.support.server_process import ServerProcess, eventually, free_port, serving
from tests.support.smtp_server import smtp_server

UNREACHABLE = Outcome(outcome="transient", code="unreachable", text="No route to host.")
GREYLISTED = "451 4.7.1 Greylisted, come back later"


class Claim(NamedTuple):
    tries: int = 1
    due_at: int = 0
    tried_since: int | None = None
    previous_code: str | None = None
    message: DeliveryMessage = notice()


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    hands = Hands(tmp_path)
    yield hands
    hands.service.close()


def fail_at(hands: Hands, back_off: BackOff, outcome: Outcome = BUSY) -> bool:
    """Try the e-mail that is due, which fails; return whether it is tried again."""
    claim = hands.claim("email")
    assert claim is not None
    now = hands.clock.now_ms()
    retry = back_off.next_try(claim, outcome, started_at=now, now_ms=now, chance=0.5)
    hands.record(claim, outcome, retry=retry)
    if retry is not None:
        hands.clock.go(milliseconds=retry.at - now)
    return retry is not None


# --- until an age -----------------------------------------------------------------------------------------------------


def test_a_provider_that_is_away_for_almost_a_day_gets_the_mail_and_one_that_stays_away_ends_it(hands: Hands) -> None:
    id_, start = hands.send(channel="email"), hands.clock.now_ms()
    while hands.clock.now_ms() < start + DAY_MS:
        assert fail_at(hands, BackOff())
    (delivery,) = hands.deliveries(id_)
    assert delivery.tries == len(delivery.attempts) > 150
    assert delivery.retry_until is not None
    assert delivery.retry_until.timestamp() * 1000 == start + DAY_MS
    assert hands.clock.now_ms() == start + DAY_MS, "the last try is made at the very end"
    assert not fail_at(hands, BackOff())
    (delivery,) = hands.deliveries(id_)
    assert (delivery.status, delivery.retry_until) == ("dead", None)

    hands.service.retry_notification(id_)
    assert fail_at(hands, BackOff()), "a retry that was asked for has its whole time again"
    assert len(hands.work("email")) == 1


@pytest.mark.parametrize("kind", ["asleep or off", "killed"])
def test_time_in_which_nothing_could_be_tried_does_not_count(hands: Hands, kind: str) -> None:
    id_ = hands.send(channel="email")
    assert fail_at(hands, BackOff())
    hands.clock.go(hours=30)
    if kind == "killed":
        assert hands.claim("email") is not None
        hands.open_again()
        hands.table.recover(all_leases=True)
    assert fail_at(hands, BackOff(), UNREACHABLE), "it gave up before the network was back"
    (delivery,) = hands.deliveries(id_)
    assert delivery.retry_until is not None
    assert delivery.retry_until > hands.clock.now + timedelta(hours=23)


def test_one_that_expires_says_that_it_goes_on_until_then(hands: Hands) -> None:
    end = hands.clock.at(hours=1)
    id_ = hands.send(channel="email", expires_at=end)
    fail_at(hands, BackOff())
    assert hands.deliveries(id_)[0].retry_until == end


@settings(deadline=None)
@given(
    tries=st.integers(1, 300),
    chance=st.floats(0, 1, exclude_max=True),
    asked=st.none() | st.floats(0, 200_000),
    age=st.integers(0, 2 * DAY_MS),
    late=st.integers(0, DAY_MS),
)
def test_the_delay_doubles_is_drawn_from_the_second_minute_on_and_gives_way_to_retry_after_and_to_the_age(
    tries: int, chance: float, asked: float | None, age: int, late: int
) -> None:
    back_off, now = BackOff(), 10 * DAY_MS
    longest = min(900.0, 2.0 ** min(tries - 1, 20))
    delay = back_off.delay_s(tries, chance)
    assert delay == longest if longest < JITTER_FROM_S else 0 <= delay < longest
    claim = Claim(tries, due_at=now - late, tried_since=now - age - late)
    busy = Outcome(outcome="throttled", code="x", text="x", retry_after_s=asked)
    retry = back_off.next_try(claim, busy, started_at=now, now_ms=now, chance=chance)
    if age >= DAY_MS:
        assert retry is None
    else:
        assert retry is not None
        assert retry.since == now - age
        wait = (retry.at - now) / 1000
        assert wait >= min(delay, asked or delay, (DAY_MS - age) / 1000) - 0.001
        assert wait >= (asked or 0) - 0.001
        assert wait <= max(asked or 0, delay) + 0.001
        assert retry.until == max(retry.at, now - age + DAY_MS)
    for final in ("delivered", "sent", "permanent", "token_dead"):
        outcome = Outcome(outcome=final, code="x", text="x")
        assert back_off.next_try(claim, outcome, started_at=now, now_ms=now, chance=chance) is None


def test_a_channel_has_its_own_back_off_and_where_it_sets_none_that_of_all() -> None:
    defaults = DeliverySettings(give_up_after=100, base_delay=2, max_delay=50, max_attempts=9)
    assert back_off_of(ChannelSettings(), defaults) == BackOff(base_s=2, max_s=50, give_up_after_s=100, max_tries=9)
    own = ChannelSettings(give_up_after=0, base_delay=0.5, max_delay=3)
    assert back_off_of(own, defaults) == BackOff(base_s=0.5, max_s=3, give_up_after_s=0, max_tries=9)
    assert back_off_of(ChannelSettings(base_delay=70), defaults).max_s == 70
    assert back_off_of(ChannelSettings(max_delay=1), defaults).base_s == 1


# --- the network is back ----------------------------------------------------------------------------------------------


def tried(outcome: Outcome, at_s: float, previous: str | None = None) -> AttemptResult:
    started = round(at_s * 1000)
    return AttemptResult(
        delivery_id="d", started_at=started, duration_ms=1, outcome=outcome, retry=None, previous_code=previous
    )


def retried_in_an_hour(network: NetworkReturn, *, waiting: int) -> int:
    """How often the mail is retried while another route has a success each second."""
    count = 0
    for second in range(3600):
        network.record("fcm", tried(SENT, second))
        while (route := network.take(second)) is not None:
            network.retried(route, waiting if route == "email" else 0)
            if route == "email":
                count += 1
                network.record(route, tried(UNREACHABLE, second + 0.5))
    return count


def test_one_server_that_is_down_is_not_asked_again_with_every_success_of_another() -> None:
    network = NetworkReturn()
    network.watch(["email", "fcm", "desktop"])
    assert 1 < retried_in_an_hour(network, waiting=5) < 15
    network.record("email", tried(SENT, 3600, previous="unreachable"))
    assert network.take(3600) == "email", "its own return ends the gap"


def test_a_toast_on_this_computer_says_nothing_of_the_network() -> None:
    network = NetworkReturn()
    network.watch(["email", "desktop"])
    assert not network.record("desktop", tried(Outcome(outcome="delivered", code="shown", text=""), 1))
    assert network.take(2) is None


def test_a_try_that_was_under_way_when_the_network_came_back_is_made_again_soon() -> None:
    network = NetworkReturn()
    network.watch(["fcm"])
    network.record("fcm", tried(SENT, 10))
    assert network.take(11) == "fcm"
    network.retried("fcm", 0)
    assert network.record("email", tried(UNREACHABLE, 9))
    assert network.take(12) == "email"


def test_what_was_refused_or_asked_to_wait_keeps_its_time(hands: Hands) -> None:
    for outcome in (BUSY, UNREACHABLE):
        hands.send(channel="email")
        fail = hands.claim("email")
        assert fail is not None
        hands.record(fail, outcome, retry_in_s=900)
    assert hands.table.hasten("email", ["unreachable"]) == 1
    assert hands.table.hasten("sms", ["unreachable"]) == 0
    assert len(hands.work("email")) == 1


class Returning(BaseChannel):
    """A channel that reaches its provider once ``is_back`` is set."""

    name = "returning"

    def __init__(self) -> None:
        self.is_back = False

    def _send(self, notice: DeliveryMessage) -> Outcome:
        if not self.is_back:
            raise Transient("unreachable", "No route to host.")
        return SENT

    def _probe(self) -> str:
        return "a fake"


@pytest.mark.parametrize("restarted", [False, True])
def test_the_first_that_arrives_brings_all_others_of_its_route_and_the_next_start_knows_of_them(
    hands: Hands, restarted: bool
) -> None:
    ids = [hands.send(channel="email") for _ in range(5)]
    channel = Returning()
    route_queues = {"email": RouteQueue(channel, back_off=BackOff(base_s=3600, max_s=86_400))}
    outbox = Outbox(hands.table, route_queues, hands.clock)
    outbox.start()
    try:
        eventually(lambda: all(len(hands.deliveries(id_)[0].attempts) == 1 for id_ in ids))
        if restarted:
            outbox.stop()
            route_queues = {"email": RouteQueue(channel, back_off=BackOff(base_s=3600, max_s=86_400))}
            outbox = Outbox(hands.table, route_queues, hands.clock)
            outbox.start()
        channel.is_back = True
        hands.service.retry_notification(ids[2])
        outbox.wake()
        eventually(lambda: all(hands.stands(id_)["email"].status == "sent" for id_ in ids))
    finally:
        outbox.stop()


# --- through the API --------------------------------------------------------------------------------------------------


def send(server: ServerProcess, *channels: str, **more: Any) -> str:
    body = {"user_id": "ada", "title": "T", "message": "M", "channels": channels, **more}
    answer = server.api("POST", "/api/notifications/send", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["notification_id"])


def delivery(server: ServerProcess, id_: str, channel: str = "email") -> dict[str, Any]:
    found = server.api("GET", f"/api/notifications/{id_}").json()["notification"]["deliveries"]
    return next(one for one in found if one["channel"] == channel)


@contextmanager
def server_with(folder: Path, toml: str) -> Iterator[ServerProcess]:
    (folder / "flashflow.toml").write_text(toml, encoding="utf-8")
    with serving(folder, env={"FLASHFLOW_USER": "me"}) as server:
        contacts = {"email": "ada@example.org", "phone": "+49301234567"}
        assert server.api("POST", "/api/users/ada/contacts", contacts).status_code == 200
        yield server


@pytest.mark.parametrize("give_up_after", [3600, 1])
def test_a_mail_server_that_greylists_is_asked_as_long_as_its_channel_says(tmp_path: Path, give_up_after: int) -> None:
    with smtp_server() as mail:
        mail.misbehave("RCPT", GREYLISTED)
        place = f'host = "{mail.host}"\nport = {mail.port}\nsecurity = "none"\nfrom = "a@example.org"\n'
        toml = f"[channels.email]\n{place}give_up_after = {give_up_after}\nbase_delay = 0.02\nmax_delay = 0.1\n"
        with server_with(tmp_path, toml) as server:
            id_ = send(server, "email")
            waits = eventually(lambda: (found := delivery(server, id_))["tries"] > 8 and found)
            assert waits["status"] in {"pending", "sending"}
            end = datetime.fromisoformat(waits["retry_until"]) - datetime.fromisoformat(waits["created_at"])
            assert give_up_after <= end.total_seconds() < give_up_after + 5
            if give_up_after == 1:
                over = eventually(lambda: (found := delivery(server, id_))["status"] == "dead" and found)
                assert over["retry_until"] is None
            else:
                mail.behave()
                over = eventually(lambda: (found := delivery(server, id_))["status"] == "sent" and found)
                assert len(mail.mails) == 1
            assert over["tries"] == len(over["attempts"])


@contextmanager
def webhook() -> Iterator[tuple[str, list[Any]]]:
    """A service that takes whatever Apprise's json:// plugin sends."""
    got: list[Any] = []

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Takes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"json://127.0.0.1:{server.server_port}", got
        server.shutdown()


@pytest.mark.parametrize(
    ("waiting", "toml"),
    [
        pytest.param("email", 'host = "127.0.0.1"\nport = {closed}', id="mail server refused"),
        pytest.param("email", 'host = "no-such-name.invalid"', id="mail server's name not found"),
        pytest.param("sms", 'base_url = "http://127.0.0.1:{closed}"', id="SMS provider refused"),
        pytest.param("team", 'url = "json://127.0.0.1:{closed}/"', id="service of Apprise refused"),
    ],
)
def test_what_could_not_be_reached_is_tried_at_once_after_a_success_on_another_route(
    tmp_path: Path, waiting: str, toml: str
) -> None:
    rest = {
        "email": 'security = "none"\nfrom = "a@example.org"',
        "sms": 'account_sid = "AC1"\nauth_token = "x"\nfrom = "+15550100"',
        "team": "",
    }[waiting]
    slow = "[delivery]\nbase_delay = 3600\nmax_delay = 86400\n"
    with webhook() as (url, got):
        channel = f"[channels.{waiting}]\n{toml.format(closed=free_port())}\n{rest}\n"
        with server_with(tmp_path, f'{slow}{channel}[channels.other]\nurl = "{url}"\n') as server:
            id_ = send(server, waiting)
            first = eventually(lambda: (found := delivery(server, id_, waiting))["attempts"] and found)
            assert [attempt["code"] for attempt in first["attempts"]] == ["unreachable"]
            send(server, "other")
            again = eventually(lambda: len((found := delivery(server, id_, waiting))["attempts"]) > 1 and found)
            assert len(got) == 1
            assert again["tries"] == 2


@pytest.mark.parametrize("answers_late", [False, True])
def test_many_failures_and_a_kill_end_nothing_but_eight_interruptions_do(hands: Hands, answers_late: bool) -> None:
    id_ = hands.send(channel="email")
    for _ in range(20):
        assert fail_at(hands, BackOff())
    for number in range(8):
        assert hands.deliveries(id_)[0].status == "pending", f"ended by interruption {number}"
        claim = hands.claim("email")
        assert claim is not None
        hands.clock.go(minutes=2)
        assert hands.table.recover(all_leases=False) == 1
        if answers_late:
            hands.record(claim, BUSY, retry_in_s=1)
    assert hands.stands(id_)["email"] == Stand("dead", "interrupted")
