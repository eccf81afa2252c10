"""The JavaScript client: its own tests, and its calls with a real FlashFlow."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.real_parts import require
from tests.support.server_process import ROOT, environment, serving

FOLDER = ROOT / "clients" / "js"


def node(tests: str, data_dir: Path) -> str:
    """The report of a folder's tests, all of which have passed."""
    require("node")
    files = sorted(str(path.relative_to(FOLDER)) for path in (FOLDER / tests).glob("*.test.js"))
    assert files
    done = subprocess.run(
        ["node", "--test", *files], cwd=FOLDER, env=environment(data_dir), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_own_tests_pass(tmp_path: Path) -> None:
    assert "# fail 0" in node("test", tmp_path)


def test_it_works_with_a_real_flashflow(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert "# fail 0" in node("real", tmp_path)
        rows = list(server.everything("/api/activity", "activities", app="js"))
        assert [row["metadata"]["n"] for row in reversed(rows)] == list(range(2_500))
