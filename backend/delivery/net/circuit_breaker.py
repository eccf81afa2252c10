"""Many servers behind one channel: one that does not answer must not take all of the channel's connections."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flashflow.backend.delivery.net.text import cut
from flashflow.backend.domain.channel import Transient

WAIT_S = 30.0
"""How long those wait that were not let through."""
MOST = 256
"""Servers that are remembered as slow; callers name them, so there has to be an end to it."""


class CircuitBreaker:
    """Whoever was late with an answer is asked by one try at a time until it gives one. Thread-safe.

    So a server that hangs costs the others its first tries at most (each no longer than the deadline) and from then on
    one connection.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._late: dict[str, bool] = {}
        """Server → whether it is being asked."""

    @contextmanager
    def asking(self, server: str) -> Iterator[None]:
        """Around one exchange. Raises Transient ``not_asked`` where another try is waiting for this server."""
        alone = self._enter(server)
        try:
            yield
        except Transient as error:
            self._leave(server, alone, late=error.code == "timeout")
            raise
        except BaseException:
            self._leave(server, alone, late=False)
            raise
        self._leave(server, alone, late=False)

    def _enter(self, server: str) -> bool:
        """Whether this is the one try at a server that was late."""
        with self._lock:
            if self._late.get(server):
                words = f"{cut(server, 80)} was late with its last answer; another try is waiting for the next."
                raise Transient("not_asked", words, WAIT_S)
            if server in self._late:
                self._late[server] = True
            return server in self._late

    def _leave(self, server: str, alone: bool, *, late: bool) -> None:
        with self._lock:
            if not late or alone:
                self._late.pop(server, None)
            if late:
                while len(self._late) >= MOST:
                    del self._late[next(iter(self._late))]
                self._late.setdefault(server, False)
