"""Desktop window: Flet's client in its own process, connected over a socket that only this user can open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flashflow.backend import Backend

FETCH_S = 20.0
OPEN_S = 10.0


def why_no_window(environ: Mapping[str, str], *, fetch: bool) -> str | None:
    """Return None when a window can be shown, else the reason in one sentence.

    ``fetch``: download Flet's desktop client if it is missing.
    """
    if sys.platform == "linux" and not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        return "There is no display."
    if folder := environ.get("FLET_VIEW_PATH"):
        found = Path(folder, "flet").is_file() if sys.platform == "linux" else Path(folder).is_dir()
        return None if found else f"FLET_VIEW_PATH ({folder}) has no Flet client."
    if not fetch:
        return None
    import flet_desktop

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(FETCH_S)
    try:
        flet_desktop.ensure_client_cached()
    except Exception as error:  # noqa: BLE001 without a client, for any reason, the browser shows the screens
        return f"Flet's desktop client could not be downloaded ({error})."
    finally:
        socket.setdefaulttimeout(before)
    return None


def show(backend: Backend, assets: Path) -> None:
    """Show the window until the user closes it or the process receives a stop signal."""
    asyncio.run(_show(backend, assets))


async def _show(backend: Backend, assets: Path) -> None:
    import flet as ft
    import flet_desktop

    from flashflow.views.shell import make_main

    with tempfile.TemporaryDirectory(prefix="flashflow-") as folder:  # mode 0700: no other user can open the socket
        port, address = _address(folder)
        serving = asyncio.ensure_future(ft.run_async(make_main(backend), view=None, port=port))
        await asyncio.wait_for(_listening(address, serving), OPEN_S)
        ended = asyncio.Event()
        _on_end_signals(ended.set)
        process, pid_file = await flet_desktop.open_flet_view_async(address, str(assets), False)
        closing = asyncio.ensure_future(process.wait())
        stopping = asyncio.ensure_future(ended.wait())
        try:
            await asyncio.wait({closing, stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if process.returncode is None:
                flet_desktop.close_flet_view(pid_file)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            stopping.cancel()
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving


def _on_end_signals(end: Callable[[], None]) -> None:
    """Call ``end`` in this loop on SIGINT, SIGTERM or SIGHUP, also after SIGSTOP and SIGCONT."""
    loop = asyncio.get_running_loop()
    if sys.platform == "win32":
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(end))
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # ignored under nohup
            # The loop's own handler wakes the loop, whichever thread the signal interrupts.
            loop.add_signal_handler(number, end)


def _address(folder: str) -> tuple[int, str]:
    """Return Flet's port (0 for a socket file) and the address for its client."""
    if sys.platform == "win32":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return port, f"tcp://localhost:{port}"
    path = os.path.join(folder, "window")
    os.environ["FLET_SERVER_UDS_PATH"] = path
    return 0, path


async def _listening(address: str, serving: asyncio.Future[None]) -> None:
    while not serving.done():
        if address.startswith("tcp://") or os.path.exists(address):
            return
        await asyncio.sleep(0.02)
    await serving
