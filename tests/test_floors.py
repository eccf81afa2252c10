"""The house of DESIGN.md: who may import whom, where each library lives, and that importing alone does nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.server_process import ROOT

FLOORS = (
    ("client",),
    ("backend.core",),
    ("backend.schemas", "backend.settings"),
    ("backend.domain", "backend.rendering"),
    ("backend.flow.language",),
    ("backend.store", "backend.store.engine", "backend.delivery.net"),
    # tables, below every statement over them
    (
        "backend.store.activity.models",
        "backend.store.rollups.models",
        "backend.store.notifications.models",
        "backend.store.privacy.models",
        "backend.store.flow.models",
    ),
    # delivery adapters, side by side; rollup tables
    ("backend.delivery.email", "backend.delivery.sms", "backend.delivery.push", "backend.delivery.desktop"),
    ("backend.store.rollups",),
    ("backend.store.activity", "backend.store.notifications", "backend.store.flow", "backend.delivery"),
    ("backend.store.analytics", "backend.store.migrations", "backend.store.file_metrics"),
    ("backend.store.privacy",),
    ("backend.store.files",),
    ("backend.analytics", "backend.api_keys"),
    ("backend.activity",),
    ("backend.notifications",),
    ("backend.rules", "backend.data"),
    ("backend.api.http",),
    ("backend.api.framework",),
    ("backend.api.routes",),
    ("backend.api",),
    (
        "backend.dashboard",
        "backend.flow",
        "backend.maintenance",
        "backend.jobs",
        "backend.health",
        "backend.this_computer",
    ),
    ("backend.app",),
    ("backend.exports",),
    ("backend",),
    ("backend.cli", "views.controls"),
    ("views.shared",),
    ("views.dashboard", "views.flow", "views.notifications", "views.settings"),
    ("views",),
    ("",),
)
"""Packages below ``flashflow``, lowest first. An import goes to a lower line or stays in its package."""

HOMES = {
    "flet": ("views",),
    "flet_web": ("views",),
    "flet_desktop": ("views",),
    "peewee": ("backend.store",),
    "playhouse": ("backend.store",),
    "plyer": ("backend.delivery.desktop",),
    "jeepney": ("backend.delivery.desktop",),
    "schedule": ("backend.jobs",),
    "uvicorn": ("backend.api.server", "backend.api.http"),
    "uvloop": ("backend.api.server",),
    "httptools": ("backend.api.http",),
    "h11": ("backend.api.http",),
    "starlette": ("backend.api",),
    "msgspec": ("backend",),
    "httpx": ("backend.delivery.net.http_client",),
    "cryptography": ("backend.delivery",),
    "jwt": ("backend.delivery",),
    "apprise": ("backend.delivery.apprise",),
    "tomlkit": ("backend.settings.toml_editor",),
    "keyring": ("backend.settings.keyring",),
    "pyarrow": ("backend.data.parquet",),
    "jsonschema_rs": ("backend.rendering.json_schema",),
    "lark": ("backend.flow",),
}
"""Every third-party library, and the packages or modules that may import it."""


class Import(NamedTuple):
    """One import: which module imports what, and from where."""

    module: str
    target: str
    place: str


def modules() -> dict[str, Path]:
    """Every module by its name below ``flashflow``: ``backend.core.errors``; ``""`` is the package itself."""
    found = {}
    for folder, prefix in ((ROOT / "flashflow", ()), (ROOT / "backend", ("backend",)), (ROOT / "views", ("views",))):
        for path in folder.rglob("*.py"):
            parts = (*prefix, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(parts).removesuffix("__init__").removesuffix(".")] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Every import in the product, including those inside functions."""
    return tuple(_imports(modules()))


def _imports(known: dict[str, Path]) -> Iterator[Import]:
    for module, path in known.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(module, alias.name, place)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{place}: a relative import"
                assert node.module is not None
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield Import(module, whole if whole.removeprefix("flashflow.") in known else node.module, place)


def ours() -> Iterator[Import]:
    """Imports of FlashFlow's own modules, with their names below ``flashflow``."""
    for row in imports():
        if row.target == "flashflow" or row.target.startswith("flashflow."):
            yield row._replace(target=row.target.removeprefix("flashflow").removeprefix("."))


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def floor(module: str) -> tuple[int, str]:
    """The line of FLOORS that ``module`` stands on, and its entry there: the longest that matches."""
    found = [
        (number, entry)
        for number, line in enumerate(FLOORS)
        for entry in line
        if module == entry or (not entry and "." not in module) or (entry != "backend" and within(module, entry))
    ]
    assert found, f"{module} stands on no floor: give its package a place in FLOORS"
    return max(found, key=lambda line: len(line[1]))


def test_every_package_has_its_floor_and_imports_only_from_below() -> None:
    rows = list(ours())
    assert len(rows) > 200
    wrong = []
    for row in rows:
        (here, package), (there, target) = floor(row.module), floor(row.target)
        if there >= here and package != target and row.module:  # flashflow/__init__ re-exports for type checkers only
            wrong.append(f"{row.place} imports {row.target}")
    assert wrong == []


def test_no_two_files_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for row in ours():
        if row.module not in {"", row.target}:
            graph.setdefault(row.module, set()).add(row.target)
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_every_module_is_imported_by_its_one_name() -> None:
    wrong = [row.place for row in imports() if row.target.partition(".")[0] in {"backend", "views", "assets", "main"}]
    assert wrong == []


def test_the_backend_imports_neither_flet_nor_the_screens() -> None:
    wrong = [
        row.place
        for row in imports()
        if within(row.module, "backend")
        and (within(row.target, "flashflow.views") or row.target.partition(".")[0] in {"flet", "flet_web"})
    ]
    assert wrong == []


def test_the_screens_import_only_what_the_backend_exports() -> None:
    wrong = [
        f"{row.place} imports {row.target}"
        for row in ours()
        if within(row.module, "views") and row.target.startswith("backend.")
    ]
    assert wrong == []


def test_the_reusable_controls_need_only_flet_the_client_and_each_other() -> None:
    wrong = [
        f"{row.place} imports {row.target}"
        for row in imports()
        if within(row.module, "views.controls")
        and not within(row.target, "flashflow.views.controls")
        and row.target != "flashflow.client"
        and row.target.partition(".")[0] not in {"flet", *sys.stdlib_module_names}
    ]
    assert wrong == []


def test_every_library_has_its_one_home() -> None:
    seen: set[str] = set()
    wrong = []
    for row in imports():
        library = row.target.partition(".")[0]
        if library in sys.stdlib_module_names or library == "flashflow":
            continue
        seen.add(library)
        if not any(within(row.module, home) for home in HOMES.get(library, ())):
            wrong.append(f"{row.place} imports {library}")
    assert wrong == []
    assert seen <= HOMES.keys()


SQL = re.compile(
    r"\s*(?:SELECT|INSERT\s+(?:OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+(?:TABLE|INDEX|TRIGGER)|"
    r"ALTER\s+TABLE|DROP\s+TABLE|PRAGMA)\s"
)


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Every string of a module with its line."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_the_client_imports_only_the_standard_library() -> None:
    """It may be copied into a project as one file."""
    wrong = [
        f"{row.place} imports {row.target}"
        for row in imports()
        if row.module == "client" and row.target.partition(".")[0] not in sys.stdlib_module_names
    ]
    assert wrong == []


def test_all_sql_stands_in_the_store() -> None:
    # The client's own file is no part of the store.
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for module, path in modules().items()
        for line, text in strings(path)
        if SQL.match(text) and not within(module, "backend.store") and module != "client"
    ]
    assert found == []


# --- importing does nothing -------------------------------------------------------------------------------------------

WATCH_IMPORTS = """
import importlib, os, sys, threading

root = sys.argv[1] + os.sep
done = []

def of_ours():
    # Whether a module of ours asked for it; what the import system reads is its own affair.
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib"):
            return False
        if name.startswith(root) and ".venv" not in name:
            return True
        frame = frame.f_back
    return False

def hook(event, args):
    if event == "open":
        path, mode, flags = args
        if isinstance(path, int) or path == os.devnull:
            return
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if writes or (of_ours() and "site-packages" not in str(path)):  # Flet reads its own list of icons
            done.append(f"opened {path} ({mode})")
    elif event.startswith(("socket.", "sqlite3.connect", "subprocess.", "_thread.start", "os.mkdir", "os.system")):
        done.append(f"{event} {args!r}")

read = os._Environ.__getitem__
def watched(self, key):
    if of_ours():
        done.append(f"read ${key}")
    return read(self, key)
os._Environ.__getitem__ = watched

sys.addaudithook(hook)
for name in sys.argv[2:]:
    importlib.import_module(name)
hook = lambda event, args: None
threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
print(repr((done, threads, sorted({name.partition(".")[0] for name in sys.modules}))))
"""


def what_importing_does(*names: str) -> tuple[list[str], list[str], list[str]]:
    """What happens while these are imported in a process of their own: deeds, threads, libraries loaded."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCH_IMPORTS, str(ROOT), *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: tuple[list[str], list[str], list[str]] = ast.literal_eval(done.stdout)
    return answer


def test_importing_the_backend_does_nothing_and_loads_neither_screens_nor_server() -> None:
    deeds, threads, loaded = what_importing_does("flashflow.backend.exports")
    assert (deeds, threads) == ([], [])
    assert {"flet", "uvicorn", "starlette", "plyer", "httptools", "lark"}.isdisjoint(loaded)


def test_importing_the_entry_loads_neither_screens_nor_server() -> None:
    deeds, threads, loaded = what_importing_does("flashflow.command_line")
    assert (deeds, threads) == ([], [])
    assert {"flet", "uvicorn", "starlette", "plyer", "httptools", "lark"}.isdisjoint(loaded)


@pytest.mark.parametrize("package", ["backend", "client", "views"])
def test_importing_any_module_opens_starts_connects_and_reads_nothing(package: str) -> None:
    names = [f"flashflow.{name}" for name in modules() if within(name, package)]
    deeds, threads, _ = what_importing_does(*names)
    assert (deeds, threads) == ([], [])
