"""docs/configuration.md has every setting, flag and environment variable, as the code has them."""

from __future__ import annotations

import re

import pytest

from flashflow.command_line import main
from tests.support.configuration_reference import START, render
from tests.support.server_process import ROOT

PAGE = (ROOT / "docs" / "configuration.md").read_text("utf-8")


def test_the_page_is_the_one_that_the_schema_makes() -> None:
    assert render() == PAGE, "run: python -m tests.support.configuration_reference > docs/configuration.md"


def test_every_environment_variable_of_the_product_is_documented() -> None:
    variables: set[str] = set()
    for folder in ("backend", "views", "flashflow"):
        for path in (ROOT / folder).rglob("*.py"):
            variables |= set(re.findall(r"FLASHFLOW_[A-Z_]+\b(?!\.)", path.read_text("utf-8")))
    documents = PAGE + "".join(path.read_text("utf-8") for path in (ROOT / "docs").glob("client*.md"))
    assert variables >= {variable for _, variable, _ in START.values() if variable}
    assert [name for name in sorted(variables) if name not in documents] == []


def test_every_flag_of_the_server_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    main(["serve", "--help"])
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help", "--no-ui"}
    assert {flag for flag, _, _ in START.values() if flag} == flags
