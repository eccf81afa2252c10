"""Termination signals of the command line's process."""

from __future__ import annotations

import signal
import socket
from types import TracebackType


class EndSignals:
    """Context manager for waiting on SIGINT, SIGTERM and SIGHUP.

    The interpreter writes each signal's number to a socket, in any thread. Waiting for a lock would end only in the
    main thread, and after SIGSTOP and SIGCONT the system often delivers a signal to another one.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._numbers = {signal.SIGINT, signal.SIGTERM}
        hang_up = getattr(signal, "SIGHUP", None)
        # nohup sets it to ignored.
        if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
            self._numbers.add(hang_up)

    def __enter__(self) -> EndSignals:
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            signal.signal(number, lambda *_: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def wait(self) -> None:
        """Block until one of the signals has arrived; one before this call counts."""
        while not self._numbers.intersection(self._reader.recv(64)):
            pass
