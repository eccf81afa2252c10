"""The HTTP server put together from the backend's parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from starlette.types import ASGIApp

from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.api.framework.context import BackendDesk, ReadThreads, Services
from flashflow.backend.api.framework.guard import Browsers
from flashflow.backend.api.framework.host_names import HostNames, bracketed, is_everywhere
from flashflow.backend.api.server import HttpThread, bind, make_app
from flashflow.backend.api_keys import KeyRing
from flashflow.backend.core.clock import Clock
from flashflow.backend.core.config import Config
from flashflow.backend.core.events import Bus
from flashflow.backend.core.supervised_thread import SupervisedThread
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.rules.service import Rules


class ServerParts(BackendDesk, Protocol):
    """What the server needs of the backend."""

    config: Config
    data_dir: Path
    clock: Clock
    bus: Bus
    activity: UserActivityService
    notifications: NotificationService
    rules: Rules
    keys: KeyRing


class Closable(Protocol):
    """Screens that end with the server."""

    async def close(self) -> None: ...


class HttpServer:
    """A server: it is bound once it is made (PortTaken), and answers after ``start``."""

    def __init__(self, parts: ServerParts, readers: ReadThreads, screens: Closable | None, started_at: float) -> None:
        config = parts.config
        sock = bind(config.host, config.port, next_free=config.next_free_port)
        port = sock.getsockname()[1]
        name = "127.0.0.1" if is_everywhere(config.host) else config.host
        self.url = f"http://{bracketed(name)}:{port}"
        self._browsers = Browsers(parts.data_dir, port, parts.clock) if screens is not None else None

        async def make() -> tuple[ASGIApp, Services]:
            services = Services(
                parts.activity,
                parts.notifications,
                parts.rules,
                parts.keys,
                parts.bus,
                readers,
                parts,
                self._link_maker(),
                started_at,
            )
            return make_app(services, cast("ASGIApp | None", screens), self.url), services

        try:
            hosts = HostNames(config.host, port, config.allowed_hosts)
        except BaseException:
            sock.close()
            raise
        self._thread = HttpThread(sock, make, hosts, self._browsers, None if screens is None else screens.close)

    def start(self) -> None:
        """Return once requests are answered. Raises what kept the server from starting."""
        self._thread.start()

    def new_launch_link(self) -> str:
        """A full address that opens the screens in a browser, once. Raises NotFound where no screens are served."""
        return self._link_maker()()

    @property
    def thread(self) -> SupervisedThread:
        """The thread that answers."""
        return self._thread.thread

    def stop(self) -> None:
        """End connections and the thread."""
        self._thread.stop()

    def _link_maker(self) -> Callable[[], str]:
        browsers = self._browsers

        def make() -> str:
            if browsers is None:
                raise _no_screens()
            return self.url + browsers.new_link()

        return make


def _no_screens() -> Exception:
    from flashflow.backend.core.errors import NotFound

    return NotFound("This server was started with --no-ui.")
