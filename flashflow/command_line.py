"""The ``flashflow`` command: open the app, or run a subcommand."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Light ones only: each command imports its own parts, and a script may run one every second.
from flashflow.backend.cli.process import announce, complain, drop, prepare_streams, print_line, reason
from flashflow.backend.core.config import VERSION, Config, is_text, load_config
from flashflow.backend.core.errors import FlashFlowError, ValidationError

if TYPE_CHECKING:
    from flashflow.backend import Backend


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Return the exit code: 0 success, 1 refused or failed, 2 usage error."""
    prepare_streams()
    try:
        return _run(argv)
    except FlashFlowError as error:
        problem = str(error)
    except BrokenPipeError:
        problem = ""  # the reader has closed the pipe
    except KeyboardInterrupt:
        return 130
    except (OSError, UnicodeError) as error:
        problem = f"{reason(error)}."
    except Exception as error:  # one line for the user, and how to get the traceback
        if os.environ.get("FLASHFLOW_DEBUG"):
            raise
        problem = f"Unexpected {type(error).__name__}: {reason(error)}. Run it with FLASHFLOW_DEBUG=1 to see where."
    drop(sys.stdout)
    if problem:
        complain("flashflow: " + " ".join(problem.split()))
    return 1


def _run(argv: list[str] | None) -> int:
    try:
        options = vars(_parser().parse_args(_with_command(sys.argv[1:] if argv is None else argv)))
    except SystemExit as ended:  # the parser has printed help, version or usage
        print_line("", end="")
        return int(ended.code or 0)
    _check_text(options)
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    config = load_config(
        os.environ,
        data_dir=options.pop("data_dir", None),
        host=options.pop("host", None),
        port=options.pop("port", None),
        next_free_port=options.pop("next_free_port", False),
        allowed_hosts=tuple(options.pop("allow_host", ())),
    )
    run: Callable[..., int | None] = options.pop("run")
    return run(config, **options) or 0


OPEN = "open"
_WITH_VALUE = frozenset({"--data-dir", "--host", "--port", "--allow-host"})
"""Options before the command that the next argument is the value of."""


def _with_command(arguments: Sequence[str]) -> list[str]:
    """Insert the command that ``flashflow app.flow`` leaves out."""
    at = 0
    while at < len(arguments) and arguments[at].startswith("-"):
        at += 2 if arguments[at] in _WITH_VALUE else 1
    named = at < len(arguments) and arguments[at].endswith(".flow")
    return [*arguments[:at], OPEN, *arguments[at:]] if named else list(arguments)


def _late(name: str) -> Callable[..., int | None]:
    """Return the function ``name`` ("module:function") of ``backend.cli``; its module is imported by the call."""

    def run(config: Config, **options: Any) -> int | None:
        module, _, function = name.partition(":")
        command: Callable[..., int | None] = getattr(import_module(f"flashflow.backend.cli.{module}"), function)
        return command(config, **options)

    return run


def _check_text(options: Mapping[str, Any]) -> None:
    """Raises ValidationError for an argument that is not text; file names may be any bytes."""
    for name, value in options.items():
        for text in value if isinstance(value, list) else [value]:
            if name not in {"file", "flow", "folder"} and isinstance(text, str) and not is_text(text):
                raise ValidationError.of(name, "is not text in this locale's encoding")


def _open(config: Config, *, flow: Sequence[str] = ()) -> int:
    """Show the window, or without a display the same screens in the browser."""
    from flashflow.views.window import why_no_window

    problem = why_no_window(os.environ, fetch=True)
    if problem is not None:
        announce(f"{problem} FlashFlow opens in the browser instead.")
        return _serve(config, in_browser=True, flow=flow)
    _load("backend.app", "backend.api.server", "views.shell")
    from flashflow.backend import Backend
    from flashflow.views.window import show

    with Backend(config) as backend:
        if not _load_flow(backend, flow):
            return 1
        backend.start()
        announce(f"FlashFlow {VERSION} answers at {backend.url}")
        _settle_down()
        show(backend, _assets())
    return 0


def _serve(config: Config, *, no_ui: bool = False, in_browser: bool = False, flow: Sequence[str] = ()) -> int:
    """Serve the API and the web screens on one port until SIGINT, SIGTERM or SIGHUP."""
    _load("backend.app", "backend.api.server", *([] if no_ui else ["views.web"]))
    from flashflow.backend import Backend
    from flashflow.backend.cli.end_signals import EndSignals

    with EndSignals() as ended, Backend(config) as backend:
        if not _load_flow(backend, flow):
            return 1
        backend.start(screens=None if no_ui else _web(backend))
        announce(f"FlashFlow {VERSION} answers at {backend.url}")
        if not no_ui:
            announce(f"Open {backend.new_launch_link()}")
        if in_browser:
            _open_browser(backend.new_launch_link())
        for notice in backend.notices:
            complain(notice)
        _settle_down()
        ended.wait()
    return 0


def _load(*modules: str) -> None:
    """Import the modules of a server without garbage collections, which took a fifth of the time."""
    gc.disable()
    for module in modules:
        import_module(f"flashflow.{module}")
    gc.freeze()
    gc.enable()


def _load_flow(backend: Backend, paths: Sequence[str]) -> bool:
    """Put .flow files in force; print their errors and return False where there are any."""
    errors = backend.load_flow([Path(path) for path in paths]) if paths else ()
    if errors:
        from flashflow.backend.flow.language.errors import render_all

        complain(render_all(errors))
    return not errors


def _settle_down() -> None:
    """Exclude objects of the start from later garbage collections, to keep these short.

    The thresholds stay at Python's defaults: with higher ones, closed UI pages were never freed.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _open_browser(link: str) -> None:
    """Open the link in a browser where there is a display; the printed link works in any case."""
    import threading
    import webbrowser

    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()


def _web(backend: Backend) -> Any:
    from flashflow.views.web import WebScreens

    return WebScreens(backend, _assets())


def _assets() -> Path:
    from importlib.resources import files

    return Path(str(files("flashflow.assets")))


def _key(config: Config) -> None:
    from flashflow.backend.core.local_key import local_key

    print_line(local_key(config.data_dir))


def _doctor(config: Config) -> int:
    from flashflow.backend.cli.doctor import doctor
    from flashflow.client import queue_states
    from flashflow.views.window import why_no_window

    return doctor(config, why_no_window(os.environ, fetch=False), queue_states(config.data_dir / "client"))


def _parser() -> argparse.ArgumentParser:
    """Return the parser. ``run`` is the command's function; the other options are its arguments, under their names."""
    # SUPPRESS: a command's default would override an option before the command.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data-dir", default=argparse.SUPPRESS, help="where FlashFlow keeps its files")
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument("--host", default=argparse.SUPPRESS, help="address to listen on (127.0.0.1)")
    server.add_argument("--port", type=_port, default=argparse.SUPPRESS, help="port to listen on (8750)")
    server.add_argument(
        "--next-free-port", action="store_true", default=argparse.SUPPRESS, help="use the next free port if it is taken"
    )
    server.add_argument(
        "--allow-host", action="append", metavar="NAME[:PORT]", default=argparse.SUPPRESS,
        help="another host name of FlashFlow: through a proxy, a forwarded port or --host",
    )  # fmt: skip
    parser = argparse.ArgumentParser(
        prog="flashflow", description="The notification centre and activity log of this machine.",
        parents=[common, server],
    )  # fmt: skip
    parser.set_defaults(run=_open)
    parser.add_argument("--version", action="version", version=f"flashflow {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND")

    def command(
        name: str, help: str, run: Callable[..., int | None], to: Any = commands, *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = to.add_parser(name, parents=[common, *parents], help=help)
        made.set_defaults(run=run)
        return made

    serve = command("serve", "run without a window: API and web screens", _serve, commands, server)
    serve.add_argument("--no-ui", action="store_true", help="the API alone")
    _add_flow(serve, "*")
    _add_flow(command(OPEN, "open the window with .flow files", _open, commands, server), "+")
    command("key", "print the local API key", _key)
    command("link", "print a link that opens the running FlashFlow in a browser", _late("commands:link"))
    command("doctor", "check the parts of the system on this machine", _doctor)
    verify = command("verify", "recalculate the rollups and compare", _late("commands:verify"))
    verify.add_argument("--rebuild", action="store_true", help="replace rollups that differ")
    keys = commands.add_parser("keys", parents=[common], help="create, list and revoke API keys")
    actions = keys.add_subparsers(metavar="ACTION", required=True)
    text = "create a key; it is printed once, alone on the last line"
    add = command("add", text, _late("commands:keys_add"), actions)
    add.add_argument("name")
    add.add_argument("--scope", required=True, help="scopes, comma-separated: track,send,read,manage,admin")
    command("list", "list names, scopes and status", _late("commands:keys_list"), actions)
    command("revoke", "revoke a key permanently", _late("commands:keys_revoke"), actions).add_argument("name")
    send = command("send", "send a notification to a user", _late("commands:send"))
    send.add_argument("user")
    send.add_argument("title")
    send.add_argument("message", nargs="+", help="the text; - reads it from standard input")
    send.add_argument("--type", help="notification type (general)")
    send.add_argument("--priority", choices=("low", "normal", "high", "urgent"))
    send.add_argument("--channel", action="append", metavar="NAME", help="in_app, push, email, sms or one of your own")
    send.add_argument("--data", help="a JSON object")
    track = command("track", "record activities of a user", _late("commands:track"))
    track.add_argument("user")
    track.add_argument("type", nargs="+")
    track.add_argument("--session", metavar="ID")
    track.add_argument("--page-url", metavar="URL")
    track.add_argument("--metadata", help="a JSON object")
    _add_flow_check(command)
    _add_data_commands(command)
    return parser


def _add_flow(parser: argparse.ArgumentParser, number: str) -> None:
    parser.add_argument("flow", nargs=number, metavar="FILE", help="a .flow file, or a folder with some")


def _add_flow_check(command: Callable[..., argparse.ArgumentParser]) -> None:
    check = command("check", "validate .flow files without running them", _late("flow_check:check"))
    check.add_argument("file", nargs="+", metavar="FILE", help="a .flow file, or a folder with some")
    check.add_argument("--json", action="store_true", dest="json_output", help="one JSON object, for editors")


def _add_data_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands for export, import, pruning, erasure and backup."""
    kinds, formats = ("activities", "sessions", "notifications"), ("jsonl", "csv", "parquet")
    export = command("export", "write stored rows to a file", _late("data:export"))
    export.add_argument("file", nargs="?", default="-", metavar="FILE", help="- is standard output")
    export.add_argument("--what", choices=kinds, default="activities")
    export.add_argument("--format", choices=formats, help="by the file's name, else jsonl")
    export.add_argument("--user", metavar="ID")
    export.add_argument("--app", metavar="NAME")
    export.add_argument("--since", metavar="TIME", help="a day or a time with an offset, inclusive")
    export.add_argument("--until", metavar="TIME", help="a day or a time with an offset, exclusive")
    read = command("import", "import an export; a repeated import changes nothing", _late("data:import_file"))
    read.add_argument("file", metavar="FILE", help="- is standard input")
    read.add_argument("--what", choices=kinds, default="activities")
    read.add_argument("--format", choices=formats, help="by the file's name, else jsonl")
    prune = command("prune", "delete old rows; rollups stay", _late("data:prune"))
    which = prune.add_mutually_exclusive_group(required=True)
    which.add_argument("--before", metavar="TIME", help="a day or a time with an offset")
    which.add_argument("--keep-days", type=_days, metavar="N")
    prune.add_argument("--what", choices=("all", "activities", "notifications"), default="all")
    prune.add_argument("--dry-run", action="store_true", help="only count the rows")
    erase = command("erase", "erase a user permanently, from both files and backups", _late("erasure:erase"))
    erase.add_argument("user", metavar="USER_ID")
    erase.add_argument("--yes", action="store_true", help="do not ask")
    erase.add_argument("--even-if-unknown", action="store_true", help="create a tombstone even if nothing is stored")
    readmit = command("readmit", "allow data of an erased user to be stored again", _late("erasure:readmit"))
    readmit.add_argument("user", metavar="USER_ID")
    backup = command("backup", "copy both files; works while FlashFlow runs", _late("data:backup"))
    backup.add_argument("folder", nargs="?", metavar="DIR", help="target folder (default: the data folder's backups)")


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return int(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number")
    return int(text)
