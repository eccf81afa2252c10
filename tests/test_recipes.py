"""Every recipe of docs/recipes.md does what its heading says, pasted into a shell beside a running FlashFlow."""

from __future__ import annotations

import csv
import getpass
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.real_parts import require
from tests.support.server_process import ROOT, ServerProcess, eventually, serving
from tests.support.smtp_server import SmtpServer, smtp_server
from tests.support.snippets import Reader, Snippet, snippets

PAGE = ROOT / "docs" / "recipes.md"
PREPARATION = ""
"""The heading of the snippet before the first recipe."""


@pytest.fixture(scope="module")
def mail() -> Iterator[SmtpServer]:
    with smtp_server() as server:
        yield server


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, mail: SmtpServer) -> Iterator[Reader]:
    require("bash", "curl", "awk")
    with serving(tmp_path_factory.mktemp("data")) as server:
        replaced = {
            '"smtp.example.org"': f'"{mail.host}"',
            "port = 587": f"port = {mail.port}",
            'security = "starttls"': 'security = "none"',
            "limit=90": "limit=0",  # a disk of any machine is fuller than that
        }
        made = Reader(server, tmp_path_factory.mktemp("reader"), replaced)
        yield made
        made.close()
        assert "Traceback" not in server.log


def inbox(server: ServerProcess, user: str, kind: str) -> list[dict[str, Any]]:
    query = {"notification_type": kind, "status": "all"}
    found: list[dict[str, Any]] = server.api("GET", f"/api/notifications/user/{user}", params=query).json()[
        "notifications"
    ]
    return found


def last_object(output: str) -> dict[str, Any]:
    """The last JSON object that curl printed; it ends without a line feed."""
    found, decoder = None, json.JSONDecoder()
    while output:
        start = output.find('{"success"')
        if start < 0:
            break
        found, end = decoder.raw_decode(output[start:])
        output = output[start + end :]
    assert isinstance(found, dict)
    return found


def cron(reader: Reader, _output: str, _mail: SmtpServer) -> None:
    found = inbox(reader.server, getpass.getuser(), "cron")
    assert [(one["title"], one["priority"]) for one in found] == [("Failed: false", "high"), ("Done: true", "normal")]
    assert found[0]["message"] == "It ended with 1."


def ci(reader: Reader, output: str, _mail: SmtpServer) -> None:
    sent = last_object(output)["notification_id"]
    recipe = next(one for one in snippets(PAGE) if one.heading == "A CI result")
    assert last_object(reader.run(recipe))["notification_id"] == sent
    (found,) = inbox(reader.server, "ada", "builds")
    assert (found["count"], found["actions"][0]["label"]) == (1, "Open the log")


def disk(reader: Reader, _output: str, _mail: SmtpServer) -> None:
    recipe = next(one for one in snippets(PAGE) if one.heading == "The disk is almost full")
    reader.run(recipe)
    (found,) = [one for one in inbox(reader.server, getpass.getuser(), "disk") if one["inbox"] == "unread"]
    assert (found["priority"], found["count"]) == ("urgent", 2)


def funnel(_reader: Reader, output: str, _mail: SmtpServer) -> None:
    answer = last_object(output)["funnel"]
    assert [step["users"] for step in answer["steps"]] == [2, 1, 1]
    assert answer["dropped_users"] == ["bob"]


def summary(reader: Reader, _output: str, mail: SmtpServer) -> None:
    eventually(lambda: mail.mails, what="the summary")
    message = mail.mails[0].message
    assert (message["To"], message["Subject"]) == ("ada@example.org", "Your week")
    text = message.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert "active users: 2 - the week before: 0" in text
    assert inbox(reader.server, "ada", "summary")[0]["channels"] == ["email"]


def phone(_reader: Reader, output: str, _mail: SmtpServer) -> None:
    (device,) = last_object(output)["devices"]
    assert (device["platform"], device["device_info"]) == ("android", {"model": "Pixel 9"})
    assert "the-token-from-fcm" not in output


def logged(reader: Reader, _output: str, _mail: SmtpServer) -> None:
    found = eventually(lambda: inbox(reader.server, getpass.getuser(), "log"), what="the logged error")
    assert "Payment 17 failed" in found[0]["message"]


def quiet(reader: Reader, output: str, _mail: SmtpServer) -> None:
    decided = {one["channel"]: one for one in last_object(output)["deliveries"]}
    assert (decided["in_app"]["status"], decided["email"]["status"]) == ("delivered", "held")
    assert decided["email"]["code"] in {"do_not_disturb", "quiet_hours"}
    stored = reader.server.api("GET", "/api/notifications/preferences/ada").json()["quiet_hours"]
    assert (stored["enabled"], stored["start"], stored["end"]) == (True, "22:00", "07:00")


def rule(reader: Reader, _output: str, _mail: SmtpServer) -> None:
    found = eventually(lambda: inbox(reader.server, "owner", "general"), what="the rule's notification")
    assert [one["message"] for one in found] == ["eve failed 3 times."]


def spreadsheet(reader: Reader, _output: str, _mail: SmtpServer) -> None:
    with (reader.folder / "activities.csv").open(newline="", encoding="utf-8") as file:
        assert {row["activity_type"] for row in csv.DictReader(file)} >= {"visit", "signup", "login_failed"}
    with (reader.folder / "notifications.csv").open(newline="", encoding="utf-8") as file:
        assert {row["user_id"] for row in csv.DictReader(file)} == {"ada"}


CHECKS: dict[str, Callable[[Reader, str, SmtpServer], None]] = {
    "A cron job finished": cron,
    "A CI result": ci,
    "The disk is almost full": disk,
    "A sign-up funnel": funnel,
    "A weekly summary by e-mail": summary,
    "A phone is registered": phone,
    "A logged error becomes a notification": logged,
    "Quiet hours for a user": quiet,
    "A rule for repeated failures": rule,
    "Export to a spreadsheet": spreadsheet,
}


def recipes() -> dict[str, list[Snippet]]:
    """The snippets of each recipe, in the order of the page."""
    found: dict[str, list[Snippet]] = {}
    for snippet in snippets(PAGE):
        found.setdefault(snippet.heading, []).append(snippet)
    return found


def test_every_recipe_has_its_check() -> None:
    assert list(recipes()) == [PREPARATION, *CHECKS]
    assert not any("not run" in one.comments for one in snippets(PAGE))


@pytest.mark.parametrize("heading", CHECKS)
def test_the_recipe_does_what_its_heading_says(heading: str, reader: Reader, mail: SmtpServer) -> None:
    output = "".join(reader.run(snippet) for snippet in recipes()[heading])
    CHECKS[heading](reader, output, mail)


def test_the_variables_of_the_page_work(reader: Reader) -> None:
    for snippet in recipes()[PREPARATION]:
        assert last_object(reader.run(snippet))["success"] is True
