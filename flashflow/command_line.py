"""The ``flashflow`` command: open the app, or run a subcommand."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import threading
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashflow.backend.cli.process import (
    EndSignals,
    announce,
    complain,
    drop,
    prepare_streams,
    print_line,
    read_input,
    reason,
)
from flashflow.backend.core.config import VERSION, Config, is_text, load_config

if TYPE_CHECKING:
    from flashflow.backend import Backend

ASSETS = Path(str(files("flashflow.assets")))


def main(argv: list[str] | None = None) -> int:
    """Run the command line. Return the exit code: 0 success, 1 refused or failed, 2 usage error."""
    from flashflow.backend.core.errors import FlashFlowError

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
        options = _parser().parse_args(argv)
    except SystemExit as ended:  # the parser has printed help, version or usage
        print_line("", end="")
        return int(ended.code or 0)
    _check_text(options)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    return int(_RUN[options.command](_config(options), options))


def _check_text(options: argparse.Namespace) -> None:
    """Raises ValidationError for an argument that is not text; file names may be any bytes."""
    from flashflow.backend.core.errors import ValidationError

    for name, value in vars(options).items():
        for text in value if isinstance(value, list) else [value]:
            if name not in {"file", "folder"} and isinstance(text, str) and not is_text(text):
                raise ValidationError.of(name, "is not text in this locale's encoding")


def _config(options: argparse.Namespace) -> Config:
    return load_config(
        os.environ,
        data_dir=getattr(options, "data_dir", None),
        host=getattr(options, "host", None),
        port=getattr(options, "port", None),
        next_free_port=getattr(options, "next_free_port", False),
        allowed_hosts=tuple(getattr(options, "allow_host", None) or ()),
    )


def _open(config: Config, options: argparse.Namespace) -> int:
    """Show the window, or without a display the same screens in the browser."""
    from flashflow.views.window import why_no_window

    problem = why_no_window(os.environ, fetch=True)
    if problem is not None:
        announce(f"{problem} FlashFlow opens in the browser instead.")
        return _serve(config, options, screens=True)
    from flashflow.backend import Backend
    from flashflow.views.window import show

    with Backend(config) as backend:
        backend.start()
        announce(f"FlashFlow {VERSION} answers at {backend.url}")
        show(backend, ASSETS)
    return 0


def _serve(config: Config, options: argparse.Namespace, *, screens: bool | None = None) -> int:
    """Serve the API and the web screens on one port until SIGINT, SIGTERM or SIGHUP."""
    from flashflow.backend import Backend

    with EndSignals() as ended, Backend(config) as backend:
        with_screens = not options.no_ui if screens is None else screens
        backend.start(screens=_web(backend) if with_screens else None)
        announce(f"FlashFlow {VERSION} answers at {backend.url}")
        if with_screens:
            announce(f"Open {backend.new_launch_link()}")
            if screens:
                _open_browser(backend.new_launch_link())
        for notice in backend.notices:
            complain(notice)
        _settle_down()
        ended.wait()
    return 0


def _settle_down() -> None:
    """Exclude objects of the start from later garbage collections, to keep these short.

    The thresholds stay at Python's defaults: with higher ones, closed UI pages were never freed.
    """
    gc.collect()
    gc.freeze()


def _open_browser(link: str) -> None:
    """Open the link in a browser where there is a display; the printed link works in any case."""
    import webbrowser

    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()


def _web(backend: Backend) -> Any:
    from flashflow.views.web import WebScreens

    return WebScreens(backend, ASSETS)


def _key(config: Config, options: argparse.Namespace) -> int:
    from flashflow.backend.api_keys import local_key

    print_line(local_key(config.data_dir))
    return 0


def _keys(config: Config, options: argparse.Namespace) -> int:
    from flashflow.backend.cli import commands

    if options.action == "add":
        scopes = [scope.strip() for scope in options.scope.split(",") if scope.strip()]
        commands.keys_add(config, print_line, options.name, scopes)
    elif options.action == "revoke":
        commands.keys_revoke(config, print_line, options.name)
    else:
        commands.keys_list(config, print_line)
    return 0


def _send(config: Config, options: argparse.Namespace) -> int:
    from flashflow.backend.cli import commands

    words = " ".join(options.message)
    extra: dict[str, Any] = {
        "notification_type": options.type,
        "priority": options.priority,
        "channels": options.channel,
        "data": commands.parse_object(options.data, "--data"),
    }
    message = read_input().strip() if words == "-" else words
    commands.send(config, print_line, options.user, options.title, message, _given(extra))
    return 0


def _track(config: Config, options: argparse.Namespace) -> int:
    from flashflow.backend.cli import commands

    extra = {
        "session_id": options.session,
        "page_url": options.page_url,
        "metadata": commands.parse_object(options.metadata, "--metadata"),
    }
    for activity_type in options.type:
        commands.track(config, print_line, options.user, activity_type, _given(extra))
    return 0


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _link(config: Config, options: argparse.Namespace) -> int:
    from flashflow.backend.cli import commands

    commands.link(config, print_line)
    return 0


def _verify(config: Config, options: argparse.Namespace) -> int:
    from flashflow.backend.cli import commands

    if commands.verify(config, print_line, rebuild=options.rebuild):
        return 0
    complain("Some rollups differ; `flashflow verify --rebuild` recalculates them.")
    return 1


def _doctor(config: Config, options: argparse.Namespace) -> int:
    from flashflow.backend.cli import commands
    from flashflow.views.window import why_no_window

    if commands.doctor(config, print_line, why_no_window(os.environ, fetch=False)):
        return 0
    complain("flashflow: The storage cannot be used.")
    return 1


def _export(config: Config, options: argparse.Namespace) -> int:
    from flashflow.backend.cli import data

    filters = {
        "user_id": options.user,
        "app": options.app,
        "since": data.time_argument(options.since, "--since"),
        "until": data.time_argument(options.until, "--until"),
    }
    data.export(config, options.what, options.file, options.format, filters)
    return 0


def _import(config: Config, options: argparse.Namespace) -> int:
    from flashflow.backend.cli import data

    done = data.import_file(config, print_line, complain, options.file, options.format, options.what)
    return 1 if done.refused else 0


def _prune(config: Config, options: argparse.Namespace) -> int:
    from flashflow.backend.cli import data

    before = data.days_ago(options.keep_days) if options.before is None else options.before
    before = data.time_argument(before, "--before") or before
    data.prune(config, print_line, before, options.what, dry_run=options.dry_run)
    return 0


def _erase(config: Config, options: argparse.Namespace) -> int:
    from flashflow.backend.cli import erasure

    erasure.erase(config, print_line, options.user, sure=options.yes, even_if_unknown=options.even_if_unknown)
    return 0


def _readmit(config: Config, options: argparse.Namespace) -> int:
    from flashflow.backend.cli import erasure

    erasure.readmit(config, print_line, options.user)
    return 0


def _backup(config: Config, options: argparse.Namespace) -> int:
    from flashflow.backend.cli import data

    data.backup(config, print_line, options.folder)
    return 0


_RUN = {
    None: _open,
    "serve": _serve,
    "key": _key,
    "keys": _keys,
    "send": _send,
    "track": _track,
    "link": _link,
    "verify": _verify,
    "doctor": _doctor,
    "export": _export,
    "import": _import,
    "prune": _prune,
    "erase": _erase,
    "readmit": _readmit,
    "backup": _backup,
}


def _parser() -> argparse.ArgumentParser:
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
    # Not data_dir: each command would inherit the default, which would override an option before the command.
    parser.set_defaults(no_ui=False)
    parser.add_argument("--version", action="version", version=f"flashflow {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = commands.add_parser("serve", parents=[common, server], help="run without a window: API and web screens")
    serve.add_argument("--no-ui", action="store_true", help="the API alone")
    commands.add_parser("key", parents=[common], help="print the local API key")
    commands.add_parser("link", parents=[common], help="print a link that opens the running FlashFlow in a browser")
    commands.add_parser("doctor", parents=[common], help="check the parts of the system on this machine")
    verify = commands.add_parser("verify", parents=[common], help="recalculate the rollups and compare")
    verify.add_argument("--rebuild", action="store_true", help="replace rollups that differ")
    keys = commands.add_parser("keys", parents=[common], help="create, list and revoke API keys")
    actions = keys.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", parents=[common], help="create a key; it is printed once, alone on the last line")
    add.add_argument("name")
    add.add_argument("--scope", required=True, help="scopes, comma-separated: track,send,read,manage,admin")
    actions.add_parser("list", parents=[common], help="list names, scopes and status")
    actions.add_parser("revoke", parents=[common], help="revoke a key permanently").add_argument("name")
    send = commands.add_parser("send", parents=[common], help="send a notification to a user")
    send.add_argument("user")
    send.add_argument("title")
    send.add_argument("message", nargs="+", help="the text; - reads it from standard input")
    send.add_argument("--type", help="notification type (general)")
    send.add_argument("--priority", choices=("low", "normal", "high", "urgent"))
    send.add_argument("--channel", action="append", metavar="NAME", help="in_app, push, email, sms or one of your own")
    send.add_argument("--data", help="a JSON object")
    track = commands.add_parser("track", parents=[common], help="record activities of a user")
    track.add_argument("user")
    track.add_argument("type", nargs="+")
    track.add_argument("--session", metavar="ID")
    track.add_argument("--page-url", metavar="URL")
    track.add_argument("--metadata", help="a JSON object")
    _data_commands(commands, common)
    return parser


def _data_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands for export, import, pruning, erasure and backup."""
    formats = ("jsonl", "csv", "parquet")
    export = commands.add_parser("export", parents=[common], help="write stored rows to a file")
    export.add_argument("file", nargs="?", default="-", metavar="FILE", help="- is standard output")
    export.add_argument("--what", choices=("activities", "sessions", "notifications"), default="activities")
    export.add_argument("--format", choices=formats, help="by the file's name, else jsonl")
    export.add_argument("--user", metavar="ID")
    export.add_argument("--app", metavar="NAME")
    export.add_argument("--since", metavar="TIME", help="a day or a time with an offset, inclusive")
    export.add_argument("--until", metavar="TIME", help="a day or a time with an offset, exclusive")
    read = commands.add_parser("import", parents=[common], help="import an export; a repeated import changes nothing")
    read.add_argument("file", metavar="FILE", help="- is standard input")
    read.add_argument("--what", choices=("activities", "sessions", "notifications"), default="activities")
    read.add_argument("--format", choices=formats, help="by the file's name, else jsonl")
    prune = commands.add_parser("prune", parents=[common], help="delete old rows; rollups stay")
    which = prune.add_mutually_exclusive_group(required=True)
    which.add_argument("--before", metavar="TIME", help="a day or a time with an offset")
    which.add_argument("--keep-days", type=_days, metavar="N")
    prune.add_argument("--what", choices=("all", "activities", "notifications"), default="all")
    prune.add_argument("--dry-run", action="store_true", help="only count the rows")
    erase = commands.add_parser("erase", parents=[common], help="erase a user permanently, from both files and backups")
    erase.add_argument("user", metavar="USER_ID")
    erase.add_argument("--yes", action="store_true", help="do not ask")
    erase.add_argument("--even-if-unknown", action="store_true", help="create a tombstone even if nothing is stored")
    readmit = commands.add_parser("readmit", parents=[common], help="allow data of an erased user to be stored again")
    readmit.add_argument("user", metavar="USER_ID")
    backup = commands.add_parser("backup", parents=[common], help="copy both files; works while FlashFlow runs")
    backup.add_argument("folder", nargs="?", metavar="DIR", help="target folder (default: the data folder's backups)")


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return int(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number")
    return int(text)
