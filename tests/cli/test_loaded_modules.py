"""A command, a service and a control each load no more than they use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server_process import ROOT, ServerProcess, environment, serving

LOADED_BY = """
import sys
before = set(sys.modules)
{code}
import json
print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)
"""
COMMAND = "from flashflow.command_line import main\nassert main(sys.argv[1:]) == 0"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("data"), ui=True) as running:
        yield running


def loaded_by(code: str, *arguments: str, data_dir: Path) -> set[str]:
    """The modules that a process of its own has after ``code``, beyond those of the interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED_BY.format(code=code), *arguments],
        cwd=ROOT,
        env=environment(data_dir),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def libraries(modules: set[str]) -> set[str]:
    """The third-party ones of the modules, without parts of the interpreter (``_sysconfigdata…``)."""
    packages = {name.partition(".")[0] for name in modules if not name.startswith("_")}
    return packages - {"flashflow", *sys.stdlib_module_names}


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_load_neither_libraries_nor_a_network_or_database_module(tmp_path: Path, option: str) -> None:
    modules = loaded_by(COMMAND, option, data_dir=tmp_path)
    assert "flashflow.command_line" in modules
    assert libraries(modules) == set()
    assert modules.isdisjoint(
        {"asyncio", "http.client", "logging", "socket", "sqlite3", "ssl", "subprocess", "tempfile"}
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("key",),
        ("link",),
        ("keys", "list"),
        ("send", "ada", "Build", "green"),
        ("track", "ada", "export", "save"),
    ],
    ids=" ".join,
)
def test_a_command_beside_a_running_server_uses_the_standard_library_alone(
    server: ServerProcess, arguments: tuple[str, ...]
) -> None:
    modules = loaded_by(COMMAND, *arguments, data_dir=server.data_dir)
    assert libraries(modules) == set()
    assert modules.isdisjoint({"asyncio", "flashflow.backend.app", "sqlite3", "subprocess", "tempfile"})


def test_a_service_loads_without_the_other_the_server_and_the_delivery_libraries(tmp_path: Path) -> None:
    modules = loaded_by("from flashflow import UserActivityService", data_dir=tmp_path)
    assert "flashflow.backend.activity.service" in modules
    assert libraries(modules) == {"msgspec", "peewee", "typing_extensions"}
    assert modules.isdisjoint({"flashflow.backend.app", "flashflow.backend.notifications.service"})


def test_the_controls_load_flet_and_nothing_of_the_backend(tmp_path: Path) -> None:
    code = "from flashflow.controls import NotificationBell, NotificationSettings, connect\nconnect().inbox('ada')"
    modules = loaded_by(code, data_dir=tmp_path)
    assert "flet" in modules
    assert {name for name in modules if name.startswith(("flashflow.backend", "flashflow.views.shared"))} == set()


def test_the_api_loads_without_building_the_response_types_of_its_document(tmp_path: Path) -> None:
    code = (
        "from flashflow.backend.api.app import ENDPOINTS\n"
        "answers = [answer for endpoint in ENDPOINTS for answer in endpoint.responses.values()]\n"
        "assert answers and not any('struct' in vars(answer) for answer in answers)"
    )
    assert "flashflow.backend.api.routes.notifications" in loaded_by(code, data_dir=tmp_path)


def test_a_server_loads_without_garbage_collections_and_collects_afterwards(tmp_path: Path) -> None:
    code = (
        "import gc\n"
        "from flashflow.command_line import _load, _settle_down\n"
        "counted = gc.get_stats()[2]['collections']\n"
        "_load('backend.app', 'backend.api.server')\n"
        "assert gc.get_stats()[2]['collections'] == counted\n"
        "assert gc.isenabled() and gc.get_freeze_count() > 10_000\n"
        "_settle_down()\n"
        "assert gc.isenabled()"
    )
    assert "flashflow.backend.api.server" in loaded_by(code, data_dir=tmp_path)
