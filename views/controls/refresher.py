"""Run one refresh at a time, however many are requested."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)


class Refresher:
    """Run one refresh at a time; any number of requests during a refresh cause one more after it.

    If ``rest`` is set, wait after each refresh: ``rest`` seconds, or ``ease`` times the refresh's duration if longer.
    """

    def __init__(
        self,
        refresh: Callable[[], Awaitable[None]],
        rest: float = 0,
        ease: float = 0,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._refresh = refresh
        self._rest = rest
        self._ease = ease
        self._now = now
        self._sleep = sleep
        self._again = False
        self._task: asyncio.Task[None] | None = None

    def request_refresh(self) -> None:
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def cancel(self) -> None:
        """Drop pending requests and cancel a running refresh."""
        self._again = False
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while self._again:
            self._again = False
            began = self._now()
            try:
                await self._refresh()
            except Exception:
                log.warning("a refresh failed", exc_info=True)
            if self._rest:
                await self._sleep(max(self._rest, self._ease * (self._now() - began)))
