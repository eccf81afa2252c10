"""Which of a template's texts a reader gets: the look-up of RFC 4647, 3.4, wherever a locale is named."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flashflow.backend.notifications.service import NotificationService
from tests.support.api_client import SEND, TEMPLATES, fresh, ok, problem
from tests.support.server_process import ServerProcess, serving

TEXTS = ("", "de", "de-CH", "zh", "zh-Hant", "sr-Latn-RS", "EN-gb", "es-419", "de-DE-u-co-phonebk", "ar-x-one")
FOUND = [
    ("", ""), ("fr", ""), ("de", "de"), ("de-AT", "de"), ("de-CH", "de-CH"), ("de-CH-1996", "de-CH"),
    ("zh-Hant-TW", "zh-Hant"), ("zh-Hans-CN", "zh"), ("zh-TW", "zh"), ("sr-Latn-RS", "sr-Latn-RS"), ("sr-Latn", ""),
    ("sr", ""), ("ZH-HANT-tw", "zh-Hant"), ("zh-hant", "zh-Hant"), ("DE-ch", "de-CH"), ("en-GB", "EN-gb"),
    ("en-gb-oxendict", "EN-gb"), ("en", ""), ("es-419-x-a", "es-419"), ("de-DE-u-co-phonebk", "de-DE-u-co-phonebk"),
    ("de-DE-u-co", "de"), ("ar-x-one-two", "ar-x-one"), ("ar-x-two", ""), ("d", ""),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("locales")) as running:
        yield running


@pytest.fixture(scope="module")
def name(server: ServerProcess) -> str:
    name = fresh("greeting")
    for locale in TEXTS:
        text = {"name": name, "title_template": f"[{locale}]", "message_template": "M", "locale": locale}
        ok(server.api("POST", TEMPLATES, text), 201)
    return name


def title(server: ServerProcess, id_: str) -> str:
    return str(ok(server.api("GET", f"/api/notifications/{id_}"))["notification"]["title"])


@pytest.mark.parametrize(("locale", "text"), [*FOUND, ("de_AT", "de"), ("zh_Hant_TW", "zh-Hant"), ("-", "")])
def test_a_send_a_read_and_a_preview_fall_back_to_the_next_wider_locale(
    server: ServerProcess, name: str, locale: str, text: str
) -> None:
    sent = ok(server.api("POST", SEND, {"user_id": "ada", "template": name, "locale": locale}), 201)
    assert title(server, sent["notification_id"]) == f"[{text}]"
    read = ok(server.api("GET", f"{TEMPLATES}/{name}", params={"locale": locale}))["template"]
    assert read["locale"] == text
    shown = ok(server.api("POST", f"{TEMPLATES}/{name}/preview", {"data": {}, "locale": locale}))
    assert f"[{text}]" in str(shown)


@pytest.mark.parametrize(("locale", "text"), [pair for pair in FOUND if len(pair[0]) > 1])
def test_the_readers_own_locale_is_looked_up_in_the_same_way(
    server: ServerProcess, name: str, locale: str, text: str
) -> None:
    user = fresh()
    ok(server.api("POST", f"/api/users/{user}/contacts", {"locale": locale}))
    sent = ok(server.api("POST", SEND, {"user_id": user, "template": name}), 201)
    assert title(server, sent["notification_id"]) == f"[{text}]"


def test_a_locale_in_another_letter_case_is_the_same_text(server: ServerProcess) -> None:
    text = {"name": fresh("text"), "title_template": "Grüezi", "message_template": "M", "locale": "de-CH"}
    made = ok(server.api("POST", TEMPLATES, text), 201)["template"]
    problem(server.api("POST", TEMPLATES, text | {"locale": "DE-ch"}), "conflict")
    path, put = f"{TEMPLATES}/{text.pop('name')}", {"locale": "de-ch", "title_template": "Hoi"}
    changed = ok(server.api("PUT", path, text | put))
    assert (changed["template"]["id"], changed["template"]["title_template"]) == (made["id"], "Hoi")
    assert len(ok(server.api("DELETE", path))["deleted"]) == 1


def test_two_letter_cases_of_an_older_file_keep_their_own_texts(tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    with NotificationService(path) as service:
        service.create_notification_template("t", "first", "M", locale="de-CH")
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute(
            "INSERT INTO notification_templates (id, name, locale, title_template, message_template, channels, app, "
            "created_at, updated_at) SELECT x'78', name, 'de-ch', 'second', 'M', channels, app, 0, 0 "
            "FROM notification_templates"
        )
    with NotificationService(path) as service:
        for locale, text in (("de-CH", "first"), ("de-ch", "second"), ("DE-CH", "first"), ("de-ch-1996", "second")):
            assert service.templates.preview("t", {}, locale).title == text
