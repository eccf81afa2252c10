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

from tests.server_process import ROOT

FLOORS = (
    # 0: words, errors, events, the clock: they need each other at most
    (
        "backend.errors",
        "backend.events",
        "backend.clock",
        "backend.records",
        "backend.handover",
        "backend.tally",
        "backend.supervision",
    ),
    ("backend.faults",),
    ("backend.validation",),
    (
        "backend.config",
        "backend.inputs",
        "backend.references",
        "backend.texts",
        "backend.zone",
        "backend.definitions",
        "backend.records_analytics",
        "backend.settings",
        "backend.channel_names",
        "backend.private_files",
        "backend.data_pattern_syntax",
    ),
    ("backend.settings_text", "backend.settings_reading", "backend.settings_secrets", "backend.data_pattern"),
    ("backend.data_rules", "backend.recurrence", "backend.inputs_circumstances"),
    ("backend.data_keywords", "backend.inputs_rules"),
    ("backend.rule_matching",),
    # what the store keeps of a person's wishes and the resolver asks of them
    ("backend.delivery.hours", "backend.delivery.choices", "backend.delivery.device_address"),
    # 1: files and channels, side by side
    ("backend.store", "backend.delivery", "backend.settings_file", "backend.data_schema"),
    # 2: below the services what each of them is made of
    ("backend.moments", "backend.batch_rows", "backend.periods", "backend.export_formats", "backend.admission"),
    ("backend.asking", "backend.incoming", "backend.import_rows", "backend.export_parquet"),
    ("backend.analytics_period", "backend.analytics_people", "backend.import_notifications"),
    (
        "backend.analytics",
        "backend.figures",
        "backend.circumstances",
        "backend.keys",
        "backend.people",
        "backend.templates",
    ),
    ("backend.facts", "backend.deliveries", "backend.channels", "backend.trials"),
    ("backend.collapsing",),
    ("backend.releasing",),
    ("backend.rule_alerts", "backend.rule_watch"),
    ("backend.rule_messages", "backend.rule_trials"),
    ("backend.sending", "backend.inbox"),
    ("backend.retrying", "backend.rescheduling", "backend.schedules"),
    ("backend.user_activity_service", "backend.notification_service"),
    ("backend.rule_judging", "backend.rule_metrics", "backend.import_sessions"),
    # these ask both files
    ("backend.overview", "backend.rules", "backend.exporting", "backend.erasing", "backend.retention"),
    ("backend.upkeep", "backend.this_computer", "backend.health"),
    # 3
    ("backend.api", "backend.jobs"),
    # 4: the composition root, and what the house hands out
    ("backend.app",),
    ("backend",),
    # 5: both stand on the backend, neither on the other
    ("backend.server_connection", "backend.process", "backend.export_target", "views.controls"),
    ("backend.commands",),
    ("backend.commands_data", "backend.commands_erasing"),
    ("views",),
    # 6
    ("main",),
)
"""Lowest first. An import goes to a lower line, or stays inside its own package."""

HOMES = {
    "flet": ("views", "main"),
    "flet_web": ("views", "main"),
    "flet_desktop": ("views", "main"),
    "peewee": ("backend.store",),
    "playhouse": ("backend.store",),
    "plyer": ("backend.delivery.desktop",),
    "jeepney": ("backend.delivery.desktop",),
    "schedule": ("backend.jobs",),
    "uvicorn": ("backend.api.server", "backend.api.limits"),
    "uvloop": ("backend.api.server",),
    "httptools": ("backend.api.limits",),
    "h11": ("backend.api.limits",),
    "starlette": ("backend.api",),
    "msgspec": ("backend",),
    "httpx": ("backend.delivery.http",),
    "cryptography": ("backend.delivery",),
    "jwt": ("backend.delivery",),
    "apprise": ("backend.delivery.apprise_url",),
    "tomlkit": ("backend.settings_text",),
    "keyring": ("backend.settings_secrets",),
    "pyarrow": ("backend.export_parquet",),
    "jsonschema": ("backend.data_schema", "backend.data_keywords"),
    "referencing": ("backend.data_schema",),
}
"""Every library that is not Python's own, and the modules (or what their names begin with) that may import it."""

SPLIT = ("backend.delivery.desktop", "backend.api.limits")
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
        if within(row.module, "views.controls")
        and not within(row.target, "views.controls")
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
