"""Dependencies are bounded, locked by hash, and never another project's package; the wheel is complete."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import chain

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.server_process import ROOT

LOCK = (ROOT / "requirements.lock").read_text("utf-8")
PINNED = re.compile(
    r"^([\w.-]+)==(\S+)(?: ; [^\\\n]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def requirements() -> list[Requirement]:
    """Every requirement of pyproject.toml: of the build, of the product, of each extra."""
    extras = PROJECT["project"]["optional-dependencies"]
    texts = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"], *chain(*extras.values())]
    return [Requirement(text) for text in texts]


def test_the_wheel_has_every_package_of_the_checkout() -> None:
    tops = {"flashflow": "flashflow", "backend": "flashflow.backend", "views": "flashflow.views"}
    found = {"flashflow.assets"}
    for folder, name in tops.items():
        for path in (ROOT / folder).rglob("*.py"):
            found.add(".".join((name, *path.parent.relative_to(ROOT / folder).parts)))
    assert sorted(found) == PROJECT["tool"]["setuptools"]["packages"]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_dependency_has_a_lower_and_an_upper_bound(requirement: Requirement) -> None:
    operators = {specifier.operator for specifier in requirement.specifier}
    assert operators & {">=", "=="}
    assert operators & {"<", "<=", "=="}


def test_the_lock_pins_every_dependency_within_its_bounds() -> None:
    pinned = {canonicalize_name(name): version for name, version, _ in PINNED.findall(LOCK)}
    builds = {Requirement(text).name for text in PROJECT["build-system"]["requires"]}
    for requirement in requirements():
        if requirement.name not in builds:
            assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)


def test_everything_in_the_lock_has_its_hashes_and_nothing_else_stands_in_it() -> None:
    comments = re.sub(r"^#.*\n", "", LOCK, flags=re.MULTILINE)
    assert PINNED.sub("", comments) == ""
    assert len(PINNED.findall(LOCK)) > 50


def test_the_lock_names_the_command_that_made_it_as_the_documentation_does() -> None:
    command = re.search(r"^#    (uv pip compile .*)$", LOCK, re.MULTILINE)
    assert command is not None
    assert command[1] in (ROOT / "TESTING.md").read_text("utf-8")


def test_ci_installs_the_lock_by_its_hashes_before_anything_else() -> None:
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "pip install -q --require-hashes -r requirements.lock" in ci
    assert ci.index('bash -c "$lock_command"') < ci.index("\ntry_run_command\n")


def texts() -> Iterator[tuple[str, str]]:
    """Every text file that git keeps, by its name."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.split("\0"):
        if name.endswith((".py", ".md", ".toml", ".sh")) or name in {".ci/run"}:
            yield name, (ROOT / name).read_text("utf-8")


def test_the_distribution_has_its_own_name_and_no_text_proposes_another_projects() -> None:
    """“flashflow” on the public index is not ours, and installing it, or an extra of it, would replace ours."""
    assert PROJECT["project"]["name"] == "flashflow-hub"
    assert PROJECT["project"]["scripts"]["flashflow"]
    install = re.compile(r"pip3? install[^\n`]*?['\"\s=]" + r"flashflow(?!-hub)\b(?!/)")
    assert [name for name, text in texts() if install.search(text)] == []
