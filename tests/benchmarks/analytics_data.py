"""Activities of a made-up year, as the analytics benchmarks store them: the same for the same seed.

Users come in the order in which they first appear, in visits of some eight activities; pages, types and referrers are
few and unevenly liked, as real ones are. Rows are in order of time, as they would have arrived.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, NamedTuple

DAY_MS = 86_400_000
TYPES = ("page_view", "search", "add_to_cart", "checkout", "purchase", "share", "export", "login")
WEIGHTS = (60, 12, 9, 5, 4, 4, 3, 3)
PAGES = tuple(f"/section-{n // 20}/page-{n}" for n in range(200))
REFERRERS = ("https://search.example/", "https://news.example/story", "https://social.example/feed")
APPS = ("shop", "shop", "shop", "blog")
"""Each user's own."""
ANY_OF = ("shop", "shop", "blog", "desk", "mail")
"""Each visit's, of users who are ``roaming``."""


class Shape(NamedTuple):
    """How much of it there is: ``activities`` over ``users`` and ``days`` that end at ``until_ms``; ``roaming``
    users go from app to app."""

    activities: int
    users: int
    days: int
    until_ms: int
    roaming: bool = False
    seed: int = 7


def rows(shape: Shape) -> Iterator[dict[str, Any]]:
    """The activities, oldest first, as the keywords of ``track_activity`` with ``timestamp`` in milliseconds."""
    rng = random.Random(shape.seed)
    type_marks = list(accumulate(WEIGHTS))
    page_marks = list(accumulate(1000 // (n + 3) + 1 for n in range(len(PAGES))))
    start = shape.until_ms - shape.days * DAY_MS
    per_day = shape.activities / shape.days
    made = 0
    for day in range(shape.days):
        known = max(50, shape.users * (day + 1) // shape.days)
        due = round(per_day * (day + 1)) - made
        visits: list[tuple[int, int, str]] = []
        for _ in range(max(1, due // 8)):
            user = int(known * rng.random() ** 1.5)
            hour = min(23.99, max(0.0, rng.gauss(14, 4)))
            app = rng.choice(ANY_OF) if shape.roaming else APPS[user % len(APPS)]
            visits.append((start + day * DAY_MS + int(hour * 3_600_000), user, app))
        day_rows: list[tuple[int, int, str]] = []
        for n in range(due):
            at, user, app = visits[n % len(visits)]
            day_rows.append((at + (n // len(visits)) * rng.randrange(5_000, 90_000), user, app))
        day_rows.sort()
        made += due
        for at, user, app in day_rows:
            kind = TYPES[bisect(type_marks, rng.random() * type_marks[-1])]
            row: dict[str, Any] = {"user_id": f"user-{user}", "activity_type": kind, "timestamp": at, "app": app}
            if kind == "page_view":
                row["page_url"] = PAGES[bisect(page_marks, rng.random() * page_marks[-1])]
                if rng.random() < 0.05:
                    row["referrer"] = REFERRERS[int(rng.random() ** 2 * len(REFERRERS))]
            yield row
