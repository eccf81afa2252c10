"""Back-off: when a failed delivery is tried again, and when its retries end."""

from __future__ import annotations

import msgspec

from flashflow.backend.domain.delivery_messages import Claimed, Outcome, Retrial

JITTER_FROM_S = 60.0
"""Delays below this are exact; longer ones get full jitter."""
_RETRIED = frozenset({"transient", "throttled"})


class BackOff(msgspec.Struct, frozen=True, kw_only=True):
    """Exponential back-off with full jitter [AWS Architecture Blog, "Exponential Backoff And Jitter"], up to an age.

    The delay doubles from ``base_s`` to ``max_s``. Retries end with the first failure at least ``give_up_after_s``
    seconds after the first try, or after ``max_tries`` tries if set.
    """

    base_s: float = 1.0
    max_s: float = 900.0
    give_up_after_s: float = 86_400.0
    max_tries: int | None = None

    def delay_s(self, tries: int, chance: float) -> float:
        """Return the seconds to wait after ``tries`` failed tries; ``chance`` is a random number in [0, 1)."""
        longest: float = min(self.max_s, self.base_s * 2.0 ** min(tries - 1, 40))
        # Short delays bridge a server's restart; with jitter all of them could end before it is back.
        return longest if longest < JITTER_FROM_S else longest * chance

    def next_try(
        self, claimed: Claimed, outcome: Outcome, *, started_at: int, now_ms: int, chance: float
    ) -> Retrial | None:
        """Return the next try after ``outcome`` of a try that started at ``started_at``; None when the retries end."""
        if outcome.outcome not in _RETRIED or (self.max_tries is not None and claimed.tries >= self.max_tries):
            return None
        since = started_at
        if claimed.tried_since is not None:
            # Time in which the delivery was due but could not be tried (sleep, shutdown, queue) does not count:
            # otherwise a laptop closed for a day would give up before its network is back.
            since = min(started_at, claimed.tried_since + max(0, started_at - claimed.due_at))
        end = since + round(self.give_up_after_s * 1000)
        if now_ms >= end:
            return None
        at = min(now_ms + round(self.delay_s(claimed.tries, chance) * 1000), end)
        at = max(at, now_ms + round((outcome.retry_after_s or 0.0) * 1000))
        until = at if self.max_tries is not None and claimed.tries + 1 >= self.max_tries else max(at, end)
        expires_at = claimed.message.expires_at
        return Retrial(at=at, until=until if expires_at is None else min(until, expires_at), since=since)
