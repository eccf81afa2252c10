"""The README's commands are the ones that CI runs, and its tour works as pasted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.real_parts import require
from tests.support.server_process import ROOT, environment, serving

README = ROOT / "README.md"
CI = ROOT / ".ci" / "run"
DEFAULT_ADDRESS = "127.0.0.1:8750"


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


def test_the_tour_of_the_readme_works_as_pasted(tmp_path: Path) -> None:
    require("bash", "curl")
    lines = block("Five-line tour")
    assert len(lines) == 5
    pasted = "\n".join(lines)
    assert DEFAULT_ADDRESS in pasted
    calls = len(re.findall(r"\bcurl\b", pasted))
    assert calls, "the tour is made of curl"
    with serving(tmp_path, ui=True) as server:
        # As pasted but for the port, which may be taken on this machine by the FlashFlow one uses.
        script = pasted.replace(DEFAULT_ADDRESS, f"127.0.0.1:{server.port}")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", script],
            cwd=ROOT,
            env=environment(tmp_path, {"PATH": path}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r'"success":\s*true', done.stdout)) == calls, done.stdout + done.stderr
