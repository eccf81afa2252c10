"""The README's commands are the ones that CI runs, and every snippet of README and docs/ works as pasted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flashflow.backend.api.framework.api_request import ANSWER_S
from flashflow.backend.api.http.connection_limits import Limits
from flashflow.backend.api.http.limits import BODY_BYTES
from flashflow.backend.api.http.unread_bytes import PER_KEY
from flashflow.backend.rules.service import MOST_RULES
from flashflow.backend.schemas.values import DEEPEST
from flashflow.command_line import main
from tests.support.described_answers import DOCUMENT, path_of
from tests.support.real_parts import require
from tests.support.server_process import ROOT, serving
from tests.support.snippets import DEFAULT_ADDRESS, Reader, documents, snippets

README = ROOT / "README.md"
CI = ROOT / ".ci" / "run"


def block(heading: str) -> list[str]:
    """The lines of the one fenced ``sh`` block under the README's ``heading``."""
    text = README.read_text("utf-8")
    sections = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert len(sections) == 1, f"README.md needs one heading “## {heading}”"
    fences = re.findall(r"^```sh\n(.*?)^```$", sections[0], re.DOTALL | re.MULTILINE)
    assert len(fences) == 1, f"“## {heading}” needs one ```sh block"
    return fences[0].splitlines()


def test_the_readme_runs_and_tests_it_with_one_command_each_and_ci_uses_both() -> None:
    run, test = block("Run it"), block("Test it")
    assert len(run) == 1
    assert len(test) == 1
    ci = CI.read_text("utf-8").splitlines()
    assert f'run_command="{run[0]}"' in ci
    assert f'test_command="{test[0]}"' in ci


def test_the_tour_of_the_readme_has_five_lines() -> None:
    lines = block("Five-line tour")
    assert len(lines) == 5
    assert DEFAULT_ADDRESS in lines[0]


RECIPES = "recipes.md"
"""tests/test_recipes.py runs it and looks at the effects."""
NOT_RUN = 3
"""Snippets that no test can run, each with its reason beside it."""


@pytest.mark.parametrize("path", [p for p in documents() if p.name != RECIPES], ids=lambda path: path.name)
def test_every_snippet_works_as_pasted(path: Path, tmp_path: Path) -> None:
    found = snippets(path)
    if not found:
        return
    require("bash", "curl", *({"node"} if any(one.language == "js" for one in found) else ()))
    folder = tmp_path / "reader"
    folder.mkdir()
    with serving(tmp_path / "data") as server:
        reader = Reader(server, folder)
        for snippet in found:
            reader.run(snippet)
        reader.close()
        assert "Traceback" not in server.log


def test_a_snippet_that_is_not_run_says_why() -> None:
    reasons = [one.comments["not run"] for path in documents() for one in snippets(path) if "not run" in one.comments]
    assert all(len(reason.split()) > 2 for reason in reasons)
    assert len(reasons) == NOT_RUN


def test_every_code_block_is_a_snippet_or_a_picture() -> None:
    for path in documents():
        fences = path.read_text("utf-8").count("\n```")
        pictures = path.read_text("utf-8").count("\n```\n") - fences // 2
        assert fences == 2 * (len(snippets(path)) + pictures), f"{path.name} has a block that is not read"


ROUTE = re.compile(r"`(GET|POST|PUT|DELETE)\s+(/api/[^`\s?]*)")
COMMAND = re.compile(r"`(flashflow [a-z][^`]*)`")


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_every_route_that_is_named_exists(path: Path) -> None:
    for method, target in ROUTE.findall(path.read_text("utf-8")):
        if "…" not in target:
            known = path_of(re.sub(r"\{\w+\}|\bNAME\b", "x", target))
            assert known is not None, target
            assert method.lower() in DOCUMENT["paths"][known], (method, target)


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_every_command_and_flag_that_is_named_exists(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMAND.findall(path.read_text("utf-8")):
        words = re.findall(r"[a-z][\w-]*", command.split("--")[0])[1:]
        depth = 2 if words[0] == "keys" and len(words) > 1 else 1
        main([*words[:depth], "--help"])
        help_text = capsys.readouterr().out
        assert "usage" in help_text, command
        for flag in re.findall(r"--[a-z][a-z-]+", command):
            assert flag in help_text, command


def test_the_limits_of_the_security_page_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]*\d[^|]*) \|$", page, re.MULTILINE))
    limits, mib = Limits(), 1024 * 1024
    connections = (limits.max_connections, limits.max_unknown, limits.max_streams, limits.streams_per_key)
    assert rows == {
        "headers, body, levels of JSON": f"{limits.header_bytes // 1024} KiB, {BODY_BYTES // mib} MiB, {DEEPEST}",
        "a request must arrive within": f"{limits.request_deadline_s:g} s",
        "connections; without a key; event streams; of one key": "; ".join(map(str, connections)),
        "answers of one key that it has not read": f"{PER_KEY // mib} MiB",
        "a read may take": f"{ANSWER_S:g} s",
        "rules of one app": str(MOST_RULES),
    }


LINK = re.compile(r"(?<!!)\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for file, anchor in LINK.findall(path.read_text("utf-8")):
        target = path.parent / file if file else path
        assert target.exists(), file
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
