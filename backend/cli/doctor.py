"""``flashflow doctor``: check the parts of the system."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

from flashflow.backend.app import SETTINGS_FILE, Backend
from flashflow.backend.cli.process import complain, print_line
from flashflow.backend.cli.server_connection import NotProven, Server, running
from flashflow.backend.core.clock import SystemClock
from flashflow.backend.core.config import Config
from flashflow.backend.core.errors import AlreadyRunning, FlashFlowError, ValidationError
from flashflow.backend.delivery.channel_registry import ChannelRegistry
from flashflow.backend.delivery.desktop.channel import DesktopChannel
from flashflow.backend.settings.file import SettingsFile
from flashflow.backend.settings.keyring import secret_store
from flashflow.backend.settings.model import Settings


def doctor(config: Config, display: str | None, queues: Sequence[tuple[str, bool, str]]) -> int:
    """``flashflow doctor``: print one line per part of the system; ``display`` is the reason why no window can be
    shown, ``queues`` the client queues (file, works, state). Return 0 if the storage works, else 1."""
    _print_state("display", display is None, display or "a window can be shown")
    url = server = None
    try:
        if server := running(config):
            url = server.url
    except NotProven as error:
        _print_state("server", False, str(error))
    works, detail = _storage(config, url)
    _print_state("storage", works, detail)
    _print_state("port", *_port(config, url))
    for file, sound, state in queues:
        _print_state(f"client queue {file}", sound, state)
    if server is not None:
        _print_flow(server)
    _print_channels(config)
    _print_state("python", True, f"{sys.version.split()[0]} on {sys.platform}")
    if not works:
        complain("flashflow: The storage cannot be used.")
    return 0 if works else 1


def _print_flow(server: Server) -> None:
    """Print whether the .flow files of the running server are in force; nothing if it has none."""
    try:
        state = server.ask("GET", "/api/health").get("flow", "none")
    except FlashFlowError as error:
        _print_state(".flow files", False, str(error))
        return
    if state != "none":
        broken = "the files have errors, which the window shows; the last valid version is in force"
        _print_state(".flow files", state == "ok", "in force" if state == "ok" else broken)


def _print_channels(config: Config) -> None:
    """Print the state of desktop notifications and of every configured channel; send nothing."""
    file = SettingsFile(config.data_dir / SETTINGS_FILE, environ=os.environ, secrets=secret_store(os.environ))
    try:
        settings = file.load()
    except ValidationError as error:
        _print_state(SETTINGS_FILE, False, str(error))
        settings = Settings()
    channels = ChannelRegistry(config.data_dir, SystemClock(), DesktopChannel())
    queues = channels.build(settings)
    for state in channels.states():
        if state.name in queues:
            name = "native notifications" if state.name == "desktop" else state.label
            _print_state(name, state.works, state.detail)
    for queue in queues.values():
        queue.channel.close()


def _print_state(name: str, works: bool, detail: str) -> None:
    print_line(f"{'ok' if works else 'no':>3}  {name}: {detail}")


def _storage(config: Config, url: str | None) -> tuple[bool, str]:
    if url is not None:
        return True, f"{config.data_dir}, in use by the FlashFlow at {url}"
    try:
        with Backend(config) as backend:
            fault = backend.storage_fault()
            notices = " ".join(backend.notices)
    except AlreadyRunning:
        return True, f"{config.data_dir}, in use by another FlashFlow"
    except FlashFlowError as error:
        return False, str(error)
    if fault is not None:
        return False, f"{config.data_dir}: {fault}"
    return True, f"{config.data_dir}, both files sound and writable{f'. {notices}' if notices else ''}"


def _port(config: Config, url: str | None) -> tuple[bool, str]:
    if url is not None:
        return True, f"FlashFlow answers at {url}"
    with socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET) as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            return False, f"{config.host}:{config.port}: {error.strerror}"
    return True, f"{config.host}:{config.port} is free"
