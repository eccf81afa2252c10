"""The OpenAPI document passes the recommended rules of Redocly's linter, which has no version for Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from flashflow.backend.core.config import VERSION
from tests.support.described_answers import DOCUMENT
from tests.support.real_parts import give_up, require
from tests.support.server_process import ROOT

PINNED = ROOT / "tests" / "support" / "redocly"
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}


@pytest.fixture(scope="module")
def linter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the linter as it is locked, by its hash."""
    require("node", "npm")
    folder = tmp_path_factory.mktemp("redocly")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PINNED / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode:
        give_up(f"npm cannot install the linter: {done.stderr.strip()[-500:]}")
    return folder / "node_modules" / "@redocly" / "cli" / "bin" / "cli.js"


def lint(linter: Path, document: object, folder: Path) -> list[str]:
    """The rules that ``document`` breaks, warnings too."""
    (folder / "openapi.json").write_text(json.dumps(document), "utf-8")
    (folder / "redocly.yaml").write_text("extends: [recommended-strict]\n", "utf-8")
    done = subprocess.run(
        ["node", linter, "lint", "openapi.json", "--format=json"],
        cwd=folder, env=os.environ | QUIET, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["totals"]["errors"] == len(found["problems"]), done.stderr
    return [f"{problem['ruleId']}: {problem['message']}" for problem in found["problems"]]


def test_the_document_follows_the_recommended_rules(linter: Path, tmp_path: Path) -> None:
    assert DOCUMENT["info"]["version"] == VERSION
    assert lint(linter, DOCUMENT, tmp_path) == []


def test_the_linter_reports_a_document_that_breaks_a_rule(linter: Path, tmp_path: Path) -> None:
    info = {name: value for name, value in DOCUMENT["info"].items() if name != "license"}
    assert [rule.partition(":")[0] for rule in lint(linter, DOCUMENT | {"info": info}, tmp_path)] == ["info-license"]
