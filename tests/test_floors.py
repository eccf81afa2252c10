"""The house of DESIGN.md: who may import whom, where each library lives, and that importing alone does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.server_process import ROOT

FLOORS = (
    # 0: words, errors, events, the clock: they need each other at most
    (
        "flashflow.backend.core.errors",
        "flashflow.backend.core.events",
        "flashflow.backend.core.clock",
        "flashflow.backend.schemas.records",
        "flashflow.backend.domain.delivery_messages",
        "flashflow.backend.core.counters",
        "flashflow.backend.core.supervised_thread",
    ),
    ("flashflow.backend.core.error_collector",),
    ("flashflow.backend.schemas.validation",),
    (
        "flashflow.backend.core.config",
        "flashflow.backend.schemas.requests",
        "flashflow.backend.schemas.references",
        "flashflow.backend.rendering.template_renderer",
        "flashflow.backend.core.timezones",
        "flashflow.backend.domain.metric_definitions",
        "flashflow.backend.schemas.analytics",
        "flashflow.backend.settings.model",
        "flashflow.backend.domain.channel_names",
        "flashflow.backend.core.private_files",
        "flashflow.backend.rendering.regex_syntax",
    ),
    (
        "flashflow.backend.settings.toml_editor",
        "flashflow.backend.settings.parser",
        "flashflow.backend.settings.keyring",
        "flashflow.backend.rendering.regex_matcher",
    ),
    (
        "flashflow.backend.rendering.json_schema_rules",
        "flashflow.backend.domain.recurrence",
        "flashflow.backend.schemas.delivery_settings",
    ),
    ("flashflow.backend.rendering.json_schema_keywords", "flashflow.backend.schemas.rules"),
    ("flashflow.backend.domain.rule_conditions",),
    # what the store keeps of a person's wishes and the resolver asks of them
    (
        "flashflow.backend.domain.quiet_hours",
        "flashflow.backend.domain.preferences",
        "flashflow.backend.domain.device_address",
    ),
    # 1: files and channels, side by side
    (
        "flashflow.backend.store",
        "flashflow.backend.delivery",
        "flashflow.backend.settings.file",
        "flashflow.backend.rendering.json_schema",
    ),
    # 2: below the services what each of them is made of
    (
        "flashflow.backend.schemas.values",
        "flashflow.backend.activity.batch",
        "flashflow.backend.analytics.date_ranges",
        "flashflow.backend.data.formats",
        "flashflow.backend.activity.consent",
    ),
    (
        "flashflow.backend.analytics.query",
        "flashflow.backend.activity.ingest",
        "flashflow.backend.data.import_activities",
        "flashflow.backend.data.parquet",
    ),
    (
        "flashflow.backend.analytics.periods",
        "flashflow.backend.analytics.users",
        "flashflow.backend.data.import_notifications",
    ),
    (
        "flashflow.backend.analytics.service",
        "flashflow.backend.analytics.rollups",
        "flashflow.backend.notifications.delivery_settings",
        "flashflow.backend.api_keys",
        "flashflow.backend.notifications.preferences",
        "flashflow.backend.notifications.templates",
    ),
    (
        "flashflow.backend.notifications.policy_inputs",
        "flashflow.backend.notifications.deliveries",
        "flashflow.backend.delivery.channel_registry",
        "flashflow.backend.notifications.channel_test",
    ),
    ("flashflow.backend.notifications.collapse",),
    ("flashflow.backend.notifications.release_due",),
    ("flashflow.backend.domain.metric_alerts", "flashflow.backend.rules.worker"),
    ("flashflow.backend.rules.messages", "flashflow.backend.rules.dry_run"),
    ("flashflow.backend.notifications.send", "flashflow.backend.notifications.inbox"),
    (
        "flashflow.backend.notifications.retry",
        "flashflow.backend.notifications.reschedule",
        "flashflow.backend.notifications.schedules",
    ),
    ("flashflow.backend.activity.service", "flashflow.backend.notifications.service"),
    ("flashflow.backend.rules.evaluator", "flashflow.backend.rules.metrics", "flashflow.backend.data.import_sessions"),
    # these ask both files
    (
        "flashflow.backend.dashboard",
        "flashflow.backend.rules.service",
        "flashflow.backend.data.export",
        "flashflow.backend.data.erasure",
        "flashflow.backend.data.retention",
    ),
    ("flashflow.backend.maintenance", "flashflow.backend.this_computer", "flashflow.backend.health"),
    # 3
    ("flashflow.backend.api", "flashflow.backend.jobs"),
    # 4: the composition root, and what the house hands out
    ("flashflow.backend.app",),
    ("backend",),
    # 5: both stand on the backend, neither on the other
    (
        "flashflow.backend.cli.server_connection",
        "flashflow.backend.cli.process",
        "flashflow.backend.cli.export_target",
        "flashflow.views.controls",
    ),
    ("flashflow.backend.cli.commands",),
    ("flashflow.backend.cli.data", "flashflow.backend.cli.erasure"),
    ("views",),
    # 6
    ("main",),
)
"""Lowest first. An import goes to a lower line, or stays inside its own package."""

HOMES = {
    "flet": ("views", "main"),
    "flet_web": ("views", "main"),
    "flet_desktop": ("views", "main"),
    "peewee": ("flashflow.backend.store",),
    "playhouse": ("flashflow.backend.store",),
    "plyer": ("flashflow.backend.delivery.desktop.channel",),
    "jeepney": ("flashflow.backend.delivery.desktop.channel",),
    "schedule": ("flashflow.backend.jobs",),
    "uvicorn": ("flashflow.backend.api.server", "flashflow.backend.api.http.limits"),
    "uvloop": ("flashflow.backend.api.server",),
    "httptools": ("flashflow.backend.api.http.limits",),
    "h11": ("flashflow.backend.api.http.limits",),
    "starlette": ("flashflow.backend.api",),
    "msgspec": ("backend",),
    "httpx": ("flashflow.backend.delivery.net.http_client",),
    "cryptography": ("flashflow.backend.delivery",),
    "jwt": ("flashflow.backend.delivery",),
    "apprise": ("flashflow.backend.delivery.apprise",),
    "tomlkit": ("flashflow.backend.settings.toml_editor",),
    "keyring": ("flashflow.backend.settings.keyring",),
    "pyarrow": ("flashflow.backend.data.parquet",),
    "jsonschema": ("flashflow.backend.rendering.json_schema", "flashflow.backend.rendering.json_schema_keywords"),
    "referencing": ("flashflow.backend.rendering.json_schema",),
}
"""Every library that is not Python's own, and the modules (or what their names begin with) that may import it."""

SPLIT = ("flashflow.backend.delivery.desktop.channel", "flashflow.backend.api.http.limits")
"""Modules that are several files: ``desktop_linux.py`` beside ``desktop.py``."""


class Import(NamedTuple):
    """One import: which module imports what, and from where."""

    module: str
    target: str
    place: str


def modules() -> dict[str, Path]:
    """Every module of the house by its dotted name."""
    files = [ROOT / "main.py", *(ROOT / "backend").rglob("*.py"), *(ROOT / "views").rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


@cache
def imports() -> tuple[Import, ...]:
    """Every import anywhere in the house, those inside functions included."""
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
                    yield Import(module, whole if whole in known else node.module, place)


def within(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.") or (place in SPLIT and module.startswith(f"{place}_"))


def floor(module: str) -> tuple[int, str]:
    """The line of FLOORS that ``module`` stands on, and the entry there that speaks for it."""
    found = [
        (number, entry)
        for number, line in enumerate(FLOORS)
        for entry in line
        if module == entry or (entry != "backend" and module.startswith(f"{entry}."))
    ]
    assert found, f"{module} stands on no floor: give it a place in FLOORS (and in DESIGN.md if it is a new kind)"
    return max(found, key=lambda line: len(line[1]))


def test_every_module_has_its_floor_and_imports_only_from_below() -> None:
    ours = [row for row in imports() if row.target.partition(".")[0] in {"backend", "views", "main"}]
    assert len(ours) > 200
    wrong = []
    for row in ours:
        (here, package), (there, target) = floor(row.module), floor(row.target)
        if there >= here and package != target:
            wrong.append(f"{row.place} imports {row.target}")
    assert wrong == []


def test_the_backend_knows_nothing_of_flet_or_the_screens() -> None:
    wrong = [
        row.place
        for row in imports()
        if within(row.module, "backend") and row.target.partition(".")[0] in {"flet", "flet_web", "views", "main"}
    ]
    assert wrong == []


def test_the_screens_take_only_what_the_backend_hands_out() -> None:
    wrong = [
        f"{row.place} imports {row.target}"
        for row in imports()
        if within(row.module, "views") and row.target.startswith("backend.")
    ]
    assert wrong == []


def test_the_reusable_controls_need_only_flet_and_each_other() -> None:
    wrong = [
        f"{row.place} imports {row.target}"
        for row in imports()
        if within(row.module, "flashflow.views.controls")
        and not within(row.target, "flashflow.views.controls")
        and row.target.partition(".")[0] not in {"flet", *sys.stdlib_module_names}
    ]
    assert wrong == []


def test_every_library_lives_in_its_one_home() -> None:
    seen: set[str] = set()
    wrong = []
    for row in imports():
        library = row.target.partition(".")[0]
        if library in sys.stdlib_module_names or library in {"backend", "views", "main"}:
            continue
        seen.add(library)
        if not any(within(row.module, home) for home in HOMES.get(library, ())):
            wrong.append(f"{row.place} imports {library}")
    assert wrong == []
    assert seen <= HOMES.keys()


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
    deeds, threads, loaded = what_importing_does("backend")
    assert (deeds, threads) == ([], [])
    assert {"flet", "uvicorn", "starlette", "plyer", "httptools"}.isdisjoint(loaded)


def test_importing_the_entry_loads_neither_screens_nor_server() -> None:
    deeds, threads, loaded = what_importing_does("main")
    assert (deeds, threads) == ([], [])
    assert {"flet", "uvicorn", "starlette", "plyer", "httptools"}.isdisjoint(loaded)


@pytest.mark.parametrize("package", ["backend", "views"])
def test_importing_any_module_opens_starts_connects_and_reads_nothing(package: str) -> None:
    names = [name for name in modules() if within(name, package)]
    deeds, threads, _ = what_importing_does(*names)
    assert (deeds, threads) == ([], [])
