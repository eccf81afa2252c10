"""The code blocks of a Markdown file, run as a reader would run them: the Python blocks of a page in one session.

A comment above a block says how to treat it:

    <!-- not run: REASON -->       nothing here can run it
    <!-- first: COMMANDS -->       shell commands that make what the block needs
    <!-- until: TEXT -->           it runs for ever: until its output has TEXT
    <!-- settings: append -->      a TOML block is added to flashflow.toml, and its channels have to work
    <!-- schema: NAME -->          a JSON block is valid for this schema of the OpenAPI document
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flashflow.backend.settings.keyring import SecretStore
from flashflow.backend.settings.parser import CHANNELS, References, settings_of
from tests.support.described_answers import hold
from tests.support.server_process import ROOT, ServerProcess, environment, eventually

DEFAULT_ADDRESS = "127.0.0.1:8750"
PATIENCE = 60.0
_FENCE = re.compile(
    r"(?P<comments>(?:^<!--(?:(?!-->).)*-->\n+)*)^```(?P<language>\S*)\n(?P<text>.*?)^```$", re.M | re.S
)
_COMMENT = re.compile(r"<!--\s*(?P<name>[a-z ]+):\s*(?P<value>.*?)\s*-->", re.S)
_SECRETS = re.compile(r"\$\{([A-Z_]+)\}")


class Snippet(NamedTuple):
    """One fenced block; ``line`` is that of its fence."""

    path: Path
    line: int
    language: str
    text: str
    comments: Mapping[str, str]

    @property
    def place(self) -> str:
        return f"{self.path.name}:{self.line}"

    @property
    def heading(self) -> str:
        """The last heading of the second level before it, or an empty text."""
        above = self.path.read_text("utf-8").splitlines()[: self.line]
        return next((line[3:] for line in reversed(above) if line.startswith("## ")), "")


def documents() -> list[Path]:
    """The README, and every page in docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def snippets(path: Path) -> list[Snippet]:
    """The blocks of a file that name their language, in order; others are pictures."""
    text = path.read_text("utf-8")
    return [
        Snippet(
            path,
            text.count("\n", 0, match.start("language")) + 1,
            match["language"],
            match["text"],
            {one["name"]: one["value"] for one in _COMMENT.finditer(match["comments"])},
        )
        for match in _FENCE.finditer(text)
        if match["language"]
    ]


class Reader:
    """Runs snippets in one folder, beside one running FlashFlow. ``replaced``: texts of a page and their stand-ins."""

    def __init__(self, server: ServerProcess, folder: Path, replaced: Mapping[str, str] | None = None) -> None:
        self.server = server
        self.folder = folder
        self._session: PythonSession | None = None
        self._replaced = {DEFAULT_ADDRESS: f"127.0.0.1:{server.port}", **(replaced or {})}
        self._runs: dict[str, Callable[[Snippet, str], str]] = {
            "sh": self._shell,
            "python": self._python,
            "json": self._json,
            "toml": self._toml,
            "js": self._js,
            "flow": self._flow,
        }
        for name in ("examples", "clients"):
            if (ROOT / name).is_dir():
                (folder / name).symlink_to(ROOT / name)

    def run(self, snippet: Snippet) -> str:
        """Run one snippet and return its output. Raises AssertionError with the output if it fails."""
        if "not run" in snippet.comments:
            return ""
        assert snippet.language in self._runs, f"{snippet.place}: {snippet.language} needs <!-- not run: … -->"
        if first := snippet.comments.get("first"):
            self.command(["bash", "-eu", "-o", "pipefail", "-c", self.as_here(first)], snippet.place)
        return self._runs[snippet.language](snippet, self.as_here(snippet.text))

    def close(self) -> None:
        """End the Python session. Raises AssertionError if its exit fails."""
        if self._session is not None:
            self._session.close()

    def as_here(self, text: str) -> str:
        for given, stand_in in self._replaced.items():
            text = text.replace(given, stand_in)
        return text

    @property
    def environment(self) -> dict[str, str]:
        """A shell in which FlashFlow is installed, with the three variables of the README's tour."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        extra = {
            "PATH": path,
            "HOME": str(self.folder),
            "FLASHFLOW_KEYRING": "off",
            "AUTH": f"Authorization: Bearer {self.server.key}",
            "JSON": "Content-Type: application/json",
            "API": f"{self.server.url}/api",
        }
        return environment(self.server.data_dir, extra)

    def command(self, arguments: Sequence[str], place: str) -> str:
        done = subprocess.run(
            arguments, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
        output = done.stdout + done.stderr
        assert done.returncode == 0, f"{place} ended with {done.returncode}:\n{output}"
        assert '"success":false' not in output, f"{place}:\n{output}"
        assert "Traceback" not in output, f"{place}:\n{output}"
        return output

    def _shell(self, snippet: Snippet, text: str) -> str:
        return self._process(snippet, ["bash", "-eu", "-o", "pipefail", "-c", text])

    def _python(self, snippet: Snippet, text: str) -> str:
        if "until" in snippet.comments:
            return self._process(snippet, [sys.executable, "-W", "error", "-c", text])
        self._session = self._session or PythonSession(self.folder, self.environment)
        return self._session.run(text, snippet.place)

    def _process(self, snippet: Snippet, arguments: Sequence[str]) -> str:
        """Run it to its end, or ``until`` its output has the text."""
        if (until := snippet.comments.get("until")) is None:
            return self.command(arguments, snippet.place)
        log = self.folder / "endless.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                arguments, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
            try:
                eventually(lambda: until in log.read_text("utf-8", "replace"), what=f"{until!r} of {snippet.place}")
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(10)
        return log.read_text("utf-8", "replace")

    def _json(self, snippet: Snippet, text: str) -> str:
        assert "schema" in snippet.comments, f"{snippet.place} needs <!-- schema: NAME -->"
        json.loads(text)
        hold(f"#/components/schemas/{snippet.comments['schema']}", text.encode(), snippet.place)
        return ""

    def _toml(self, snippet: Snippet, text: str) -> str:
        secrets = dict.fromkeys(_SECRETS.findall(text), "587")
        settings = settings_of(tomllib.loads(text), References(secrets, SecretStore("none in a test")))
        if "settings" in snippet.comments:
            with (self.server.data_dir / "flashflow.toml").open("a", encoding="utf-8") as file:
                file.write(text)
            wanted = {name for name in CHANNELS if getattr(settings, name) is not None}
            eventually(lambda: wanted <= self._working(), what=f"the channels of {snippet.place}")
        return ""

    def _working(self) -> set[str]:
        return {one["name"] for one in self.server.api("GET", "/api/channels").json()["channels"] if one["works"]}

    def _js(self, snippet: Snippet, text: str) -> str:
        file = self.folder / f"snippet-{snippet.line}.mjs"
        file.write_text(text, "utf-8")
        return self.command(["node", str(file)], snippet.place)

    def _flow(self, snippet: Snippet, text: str) -> str:
        file = self.folder / f"snippet-{snippet.line}.flow"
        file.write_text(text, "utf-8")
        return self.command(["flashflow", "check", str(file)], snippet.place)


class PythonSession:
    """One interpreter that runs block after block with the same names."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._log = folder / "python.log"
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-W", "error", "-c", _LOOP], cwd=folder, env=env, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=out, text=True,
            )  # fmt: skip

    def run(self, text: str, place: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(text) + "\n")
        self._process.stdin.flush()
        # A block that hangs ends with the test's own deadline.
        answer = self._process.stdout.readline()
        output = self._log.read_text("utf-8", "replace")
        assert answer == "done\n", f"{place} failed:\n{output}"
        return output

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(PATIENCE) == 0, self._log.read_text("utf-8", "replace")


_LOOP = """
import json, os, sys

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
names = {"__name__": "__main__"}
for line in os.fdopen(os.dup(0)):
    exec(compile(json.loads(line), "snippet", "exec"), names)
    print("done", file=answers, flush=True)
"""
