"""A ``flashflow.toml`` with a mistake in it when FlashFlow starts: nothing that waits is given up for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server_process import ServerProcess, eventually, serving
from tests.support.smtp_server import SmtpServer, smtp_server

SEND = "/api/notifications/send"
BROKEN = "[channels.email\n"
ENV = {"FLASHFLOW_USER": "me", "FLASHFLOW_KEYRING": "off"}


@pytest.fixture
def mail() -> Iterator[SmtpServer]:
    with smtp_server() as server:
        yield server


def settings(mail: SmtpServer) -> str:
    return (
        f'[channels.email]\nhost = "{mail.host}"\nport = {mail.port}\nsecurity = "none"\nfrom = "hub@example.org"\n'
        "[delivery]\nbase_delay = 0.01\nmax_attempts = 100\n"
    )


def send(server: ServerProcess, channel: str = "email") -> dict[str, Any]:
    body = {"user_id": "ada", "title": "T", "message": "M", "channel": channel}
    answer: dict[str, Any] = server.api("POST", SEND, body).json()
    return answer


def stands(server: ServerProcess, id_: str) -> tuple[str, str | None]:
    (found,) = server.api("GET", f"/api/notifications/{id_}").json()["notification"]["deliveries"]
    return found["status"], found["code"]


def test_what_was_queued_before_goes_out_once_the_file_can_be_read_again(mail: SmtpServer, tmp_path: Path) -> None:
    path = tmp_path / "flashflow.toml"
    path.write_text(settings(mail), encoding="utf-8")
    mail.misbehave("RCPT", "451 4.3.0 later")
    with serving(tmp_path, env=ENV) as server:
        server.api("POST", "/api/users/ada/contacts", {"email": "ada@example.org"})
        id_ = send(server)["notification_id"]
        mail.wait_for("RCPT")
        server.kill()
    mail.behave()
    path.write_text(BROKEN, encoding="utf-8")
    with serving(tmp_path, env=ENV) as server:
        second = send(server)
        assert [(d["status"], d["code"]) for d in second["deliveries"]] == [("pending", "queued")]
        assert "flashflow.toml" in second["deliveries"][0]["reason"]
        (notice,) = server.api("GET", "/api/notifications/user/me").json()["notifications"]
        assert notice["title"] == "Your settings cannot be used"
        states = server.api("GET", "/api/channels").json()["channels"]
        assert {s["detail"] for s in states if s["name"] == "email"} == {"flashflow.toml cannot be read."}
        assert mail.mails == []
        assert stands(server, id_)[0] == "pending"
        path.write_text(settings(mail), encoding="utf-8")
        for waited in (id_, second["notification_id"]):
            eventually(lambda waited=waited: stands(server, waited) == ("sent", "accepted"))  # type: ignore[misc]


def test_a_file_that_turns_out_to_configure_nothing_ends_the_wait(tmp_path: Path) -> None:
    path = tmp_path / "flashflow.toml"
    path.write_text(BROKEN, encoding="utf-8")
    with serving(tmp_path, env=ENV) as server:
        server.api("POST", "/api/users/ada/contacts", {"email": "ada@example.org"})
        id_ = send(server)["notification_id"]
        path.write_text("allow_hosts = []\n", encoding="utf-8")
        eventually(lambda: stands(server, id_) == ("failed", "not_configured"))
        assert [d["code"] for d in send(server)["deliveries"]] == ["not_configured"]


def test_however_much_is_wrong_with_the_file_it_starts(tmp_path: Path) -> None:
    wrong = "\n".join(f"nothing_that_there_is_{number} = 1" for number in range(1_000))
    (tmp_path / "flashflow.toml").write_text(wrong, encoding="utf-8")
    with serving(tmp_path, env=ENV) as server:
        (notice,) = server.api("GET", "/api/notifications/user/me").json()["notifications"]
    assert "nothing_that_there_is_0" in notice["message"]


def test_addresses_are_masked_while_nobody_can_tell_whether_the_owner_wants_it(tmp_path: Path) -> None:
    path = tmp_path / "flashflow.toml"
    path.write_text(BROKEN, encoding="utf-8")

    def address(server: ServerProcess) -> str:
        server.api("POST", "/api/activity/track", {"user_id": "ada", "activity_type": "x"})
        return str(server.api("GET", "/api/activity?limit=1").json()["activities"][0]["ip_address"])

    with serving(tmp_path, env=ENV) as server:
        assert address(server) == "127.0.0.0"
        path.write_text("allow_hosts = []\n", encoding="utf-8")
        eventually(lambda: address(server) == "127.0.0.1", what="the settings to be taken up")
