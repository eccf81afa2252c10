"""Sockets below httpx with one deadline for the whole exchange; another thread can interrupt them."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from typing import Any

from flashflow.backend.core.deadline import run_in_thread
from flashflow.backend.delivery.net.ssrf_guard import SsrfGuard
from flashflow.backend.domain.channel import Transient

_SLICE_S = 0.1
"""Seconds between checks for ``stop`` in waits that a socket shutdown does not end."""
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)


class DeadlineSockets:
    """Network backend for httpcore, used by one thread at a time; ``Stream`` is its network stream.

    Calls raise TimeoutError past ``deadline`` (seconds of ``time.monotonic``), Transient ``stopping`` after ``stop``,
    and OSError. httpx and httpcore pass all three on.
    """

    def __init__(self, resolver: SsrfGuard | None) -> None:
        self.deadline = 0.0
        self.stopped = False
        self._resolver = resolver
        self._current: socket.socket | None = None

    def stop(self) -> None:
        """End the current wait and fail every later call. For other threads."""
        self.stopped = True
        current = self._current
        if current is not None:
            with contextlib.suppress(OSError):
                # SSLSocket.shutdown would drop the TLS state of the thread that reads.
                socket.socket.shutdown(current, socket.SHUT_RDWR)

    def use(self, sock: socket.socket) -> None:
        """Set the deadline on ``sock`` before the next call on it, and let ``stop`` shut it down."""
        self._current = sock
        if self.stopped:
            raise stopping()
        sock.settimeout(self.remaining())

    def release(self) -> None:
        """Detach the current socket from ``stop``."""
        self._current = None

    def remaining(self) -> float:
        """Return the seconds until the deadline. Raises TimeoutError past it."""
        return _seconds_until(self.deadline)

    def connect_tcp(self, host: str, port: int, **_: Any) -> Stream:
        """Connect to the first of the host's addresses that accepts; each gets an equal share of the remaining time."""
        addresses = self._addresses(host, port)
        for left in range(len(addresses), 0, -1):
            try:
                return Stream(self, self._connect(*addresses[-left], self.remaining() / left))
            except OSError:
                if left == 1:
                    raise
        raise OSError(errno.EADDRNOTAVAIL, "the host has no address")

    def _addresses(self, host: str, port: int) -> list[tuple[int, Any]]:
        """Look up a host in a thread; return (family, address) pairs."""
        future = run_in_thread("look-up", partial(self._look_up, host, port))
        while not wait([future], min(_SLICE_S, self.remaining())).done:
            if self.stopped:
                raise stopping()
        return future.result()

    def _look_up(self, host: str, port: int) -> list[tuple[int, Any]]:
        flags = 0
        if self._resolver is not None:
            host, flags = self._resolver.pin(host, port), socket.AI_NUMERICHOST
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        except UnicodeError as error:  # an empty or overlong label
            raise OSError(errno.EINVAL, "invalid host name") from error
        return [(family, address) for family, _, _, _, address in found]

    def _connect(self, family: int, address: Any, timeout_s: float) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        end = time.monotonic() + timeout_s
        try:
            connect(sock, address, lambda: _seconds_until(end), lambda: self.stopped)
        except BaseException:
            sock.close()
            raise
        return sock


def connect(sock: socket.socket, address: Any, left: Callable[[], float], stopped: Callable[[], bool]) -> None:
    """Connect a socket and leave it non-blocking. ``left`` returns the seconds left or raises.

    It waits briefly and again: not every system ends a connect when another thread shuts the socket down.
    """
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    failure = sock.connect_ex(address)
    if failure in _UNDER_WAY:
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_WRITE)
            while not selector.select(min(_SLICE_S, left())) and not stopped():
                pass
        failure = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if stopped():
        raise stopping()
    if failure:
        raise OSError(failure, os.strerror(failure))


def _seconds_until(end: float) -> float:
    """Return the seconds until a time of ``time.monotonic``. Raises TimeoutError past it."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class Stream:
    """A connection. The deadline of its sockets replaces the ``timeout`` arguments."""

    def __init__(self, sockets: DeadlineSockets, sock: socket.socket) -> None:
        self._sockets = sockets
        self._sock = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._sockets.use(self._sock)
        return self._sock.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        while buffer:
            self._sockets.use(self._sock)
            buffer = buffer[self._sock.send(buffer) :]

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Stream:
        sock = self._sock
        try:
            sock = ssl_context.wrap_socket(sock, server_hostname=server_hostname, do_handshake_on_connect=False)
            self._sockets.use(sock)
            sock.do_handshake()
        except BaseException:
            sock.close()
            raise
        return Stream(self._sockets, sock)

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._sock if isinstance(self._sock, ssl.SSLSocket) else None
        if info == "is_readable":  # on an idle connection: the server closed it or is about to
            return self._is_readable()
        return None

    def _is_readable(self) -> bool:
        try:
            self._sock.settimeout(0)
            socket.socket.recv(self._sock, 1, socket.MSG_PEEK)  # below TLS
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


def stopping() -> Transient:
    """Return the error of a send whose channel is closed."""
    return Transient("stopping", "FlashFlow is stopping.")
