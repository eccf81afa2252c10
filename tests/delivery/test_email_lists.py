"""Mail through the whole app: which list it belongs to, who reads answers, how its reader gets off the list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from flashflow.backend.core.errors import ValidationError
from flashflow.backend.delivery.email.channel import EmailChannel
from flashflow.backend.settings.file import SettingsFile
from flashflow.backend.settings.keyring import SecretStore
from tests.support.api_client import SEND, fresh, ok
from tests.support.email_sending import HOST, TO_ADA, channel, said, self_signed, settings
from tests.support.fixed_clock import StillClock
from tests.support.server_process import ServerProcess, eventually, serving
from tests.support.smtp_server import Mail, SmtpServer, smtp_server

REPLY_TO = "Ada's desk <desk@büro.example>"
DESK = "desk@xn--bro-hoa.example"
URL = "https://hub.example.org/off?Caf%C3%A9=1"


class World(NamedTuple):
    """FlashFlow, and the mail server whose certificate a private CA signed."""

    server: ServerProcess
    mail: SmtpServer

    def mailed(self, **fields: Any) -> Mail:
        """The mail that a send to a fresh user becomes."""
        user = fields.setdefault("user_id", fresh())
        address = f"{fresh('reader')}@example.org"
        ok(self.server.api("POST", f"/api/users/{quote(user, safe='')}/contacts", {"email": address}))
        ok(self.server.api("POST", SEND, {"title": "T", "message": "M", "channel": "email", **fields}), 201)
        eventually(lambda: any(mail.recipients == (address,) for mail in self.mail.mails))
        return next(mail for mail in self.mail.mails if mail.recipients == (address,))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("lists")
    trust = self_signed(folder)
    (folder / "data").mkdir()
    with smtp_server(starttls=trust.server) as mail:
        (folder / "data" / "flashflow.toml").write_text(
            f'[channels.email]\nhost = "{HOST}"\nport = {mail.port}\nfrom = "Hub <noreply@hub.example>"\n'
            f'reply_to = "{REPLY_TO}"\nunsubscribe_url = "{URL}"\nca_file = "{folder / "server.pem"}"\n',
            encoding="utf-8",
        )
        with serving(folder / "data", env={"FLASHFLOW_KEYRING": "off"}) as server:
            yield World(server, mail)


@pytest.mark.parametrize(
    ("user", "kind"),
    [
        ("ada", "build.done"),
        ("Ünal & söhne?=#/%", "Grüße & mehr"),
        ("漢" * 80, "漢" * 100),
        ("a@b.example, c", "a,b>c"),
    ],
)
def test_one_click_names_the_reader_and_the_list_in_plain_ascii(world: World, user: str, kind: str) -> None:
    mail = world.mailed(user_id=f"{user}{fresh()}", notification_type=kind)
    raw = mail.raw.partition(b"\r\n\r\n")[0]
    assert raw.isascii()
    assert not re.search(rb"%[0-9a-f]?[A-F]", raw), "escapes in capitals cost spam points"
    message = mail.message
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    https, mailto = re.findall(r"<([^>]*)>", re.sub(r"\s", "", str(message["List-Unsubscribe"])))
    one = urlsplit(https)
    assert (one.scheme, one.netloc, one.path) == ("https", "hub.example.org", "/off")
    shown = ok(world.server.api("GET", f"/api/notifications/{message['X-FlashFlow-Notification']}"))["notification"]
    assert parse_qsl(one.query) == [
        ("Café", "1"),
        ("user_id", shown["user_id"]),
        ("notification_type", kind),
        ("notification_id", shown["id"]),
    ]
    post = urlsplit(mailto)
    assert (post.scheme, post.path) == ("mailto", DESK)
    assert parse_qsl(post.query) == [("subject", f"unsubscribe {kind}")]


def test_answers_go_to_those_who_read_them(world: World) -> None:
    message = world.mailed().message
    assert message["Reply-To"].addresses[0].addr_spec == DESK
    assert message["Reply-To"].addresses[0].display_name == "Ada's desk"
    assert message["From"].addresses[0].addr_spec == "noreply@hub.example"


def test_each_type_is_a_list_of_its_own_with_a_name_that_filters_can_match(world: World) -> None:
    kinds = ["general", "CI.build_1", "ci build", "ci-build", "Grüße", "..", "x" * 100]
    names = [str(world.mailed(notification_type=kind).message["List-Id"]) for kind in kinds]
    assert len(set(names)) == len(kinds)
    assert names[:2] == ["<general.local.hub.example>", "<ci.build_1.local.hub.example>"]
    for name in names:
        assert re.fullmatch(r"<[a-z0-9_-]+(\.[a-z0-9_-]+)*>", name), name


def test_a_critical_mail_is_no_list_but_can_be_answered(world: World) -> None:
    kind = fresh("alarm")
    ok(world.server.api("POST", "/api/notification-types", {"name": kind, "critical": True}), 201)
    message = world.mailed(notification_type=kind).message
    assert [name for name in message if name.startswith("List-")] == []
    assert message["Reply-To"] is not None


def test_without_an_address_that_is_read_no_mailto_is_offered() -> None:
    with smtp_server() as server, channel(server.port) as sending:
        assert said(sending.send(TO_ADA)) == ("sent", "accepted")
        message = server.mails[0].message
    assert message["List-Id"] is not None
    assert [message[name] for name in ("Reply-To", "List-Unsubscribe", "List-Unsubscribe-Post")] == [None] * 3


# --- a private CA


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("fault", ["no file", "no certificate", "another CA", "no home", "system"])
def test_only_the_ca_of_the_file_is_trusted_and_a_bad_file_is_said_before_and_while_sending(
    tmp_path: Path, fault: str, security: str
) -> None:
    trust = self_signed(tmp_path)
    (tmp_path / "text").write_text("no PEM")
    (tmp_path / "other").mkdir()
    self_signed(tmp_path / "other")
    ca_file = {
        "no file": str(tmp_path / "none"),
        "no certificate": str(tmp_path / "text"),
        "another CA": str(tmp_path / "other" / "server.pem"),
        "no home": "~nosuchuser/ca.pem",
        "system": None,
    }[fault]
    options = {"tls": trust.server} if security == "tls" else {"starttls": trust.server}
    with smtp_server(**options) as server:  # type: ignore[arg-type]  # one of two contexts
        with channel(server.port, security=security, ca_file=ca_file) as sending:
            assert sending.health().works == (fault in {"another CA", "system"})
            assert said(sending.send(TO_ADA)) == ("transient", "tls_failed")
        assert server.mails == []
        with channel(server.port, security=security, ca_file=str(tmp_path / "server.pem")) as sending:
            assert said(sending.send(TO_ADA)) == ("sent", "accepted")


@pytest.mark.parametrize("reply_to", ["nobody", "a@b.example, c@d.example", "A <a@b"])
def test_a_reply_to_that_is_not_one_address_is_said(reply_to: str) -> None:
    sending = EmailChannel(settings(25, reply_to=reply_to), StillClock())
    assert not sending.health().works
    assert said(sending.send(TO_ADA)) == ("permanent", "bad_reply_to")


@pytest.mark.parametrize(
    "url",
    ["http://hub.example.org/off", "https://", "https://hub.example.org/a b", "https://hub.example.org/>x",
     "https://hub.example.org/#x", "https://user:word@hub.example.org/", "https://hub.example.org/ü",
     "mailto:a@b.example"],
)  # fmt: skip
def test_an_unsubscribe_url_that_mail_programs_would_not_post_to_is_refused(tmp_path: Path, url: str) -> None:
    (tmp_path / "flashflow.toml").write_text(
        f'[channels.email]\nhost = "h"\nfrom = "a@b.example"\nunsubscribe_url = "{url}"\n', encoding="utf-8"
    )
    with pytest.raises(ValidationError) as caught:
        SettingsFile(
            tmp_path / "flashflow.toml", environ={}, secrets=SecretStore("There is no keyring on this device.")
        ).load()
    assert [error.field for error in caught.value.errors] == ["channels.email.unsubscribe_url"]
