"""At least once, whatever becomes of the process: nothing that was answered with 2xx is lost on its way out."""

from __future__ import annotations

import random
from pathlib import Path

from tests.support.kill_rounds import WORKERS, post_and_kill
from tests.support.smtp_server import smtp_server

POSTS = 600
KILLS = 4


def test_every_notice_arrives_however_often_the_server_is_killed_and_at_most_one_a_worker_twice(
    tmp_path: Path, seed: int
) -> None:
    with smtp_server() as mail:
        came = post_and_kill(tmp_path, mail, POSTS, KILLS, random.Random(seed))
    assert sorted(came.answers.values()) == sorted(f"notice-{number}" for number in range(POSTS))
    assert came.statuses == {"sent": POSTS}
    assert came.arrivals.keys() == set(came.answers.values()), "lost"
    assert came.message_ids == POSTS, "a mail that comes twice is known by its Message-ID"
    twice = {title for title, count in came.arrivals.items() if count > 1}
    assert came.arrivals.total() - POSTS <= KILLS * WORKERS
    assert {came.answers[id_] for id_ in came.again} == twice, "one that may have come twice says so"
