"""A launch link admits one browser within ten minutes of the same start; a closed one gives the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flashflow.backend import Backend, Config
from tests.support.fixed_clock import StillClock
from tests.support.server_process import serving

PAGE = {"Accept": "text/html"}


class NoScreens:
    """Replaces the screens: a link is followed before any of them is requested."""

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        raise AssertionError("no screen is opened here")

    async def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def backend(tmp_path: Path, clock: StillClock) -> Iterator[Backend]:
    with Backend(Config(data_dir=tmp_path, port=0), clock=clock) as opened:
        opened.start(screens=NoScreens())
        yield opened


def follow(link: str) -> httpx.Response:
    return httpx.get(link, headers=PAGE, trust_env=False, timeout=20)


def refused(answer: httpx.Response, words: str) -> None:
    """Check for the HTML page with the reason and the way to a new link."""
    assert (answer.status_code, answer.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert words in answer.text
    assert "flashflow link" in answer.text
    assert "set-cookie" not in answer.headers


def test_a_link_works_for_ten_minutes(backend: Backend, clock: StillClock) -> None:
    first, second = backend.new_launch_link(), backend.new_launch_link()
    clock.go(minutes=10)
    assert follow(first).status_code == 303
    clock.go(seconds=1)
    for _ in range(2):
        refused(follow(second), "has expired")
    assert follow(backend.new_launch_link()).status_code == 303


@pytest.mark.parametrize("sleeping", ["now_ms", "monotonic"])
def test_either_clock_ends_a_link(
    backend: Backend, clock: StillClock, sleeping: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = backend.new_launch_link()
    still = getattr(clock, sleeping)()
    monkeypatch.setattr(clock, sleeping, lambda: still)
    clock.go(minutes=11)
    refused(follow(link), "has expired")


def test_a_used_link_says_so(backend: Backend) -> None:
    link = backend.new_launch_link()
    assert follow(link).status_code == 303
    refused(follow(link), "was used before")


def test_a_link_that_was_made_up_is_not_called_old(backend: Backend) -> None:
    refused(follow(f"{backend.url}/launch/anything"), "is not one of FlashFlow's")


def test_a_link_of_an_earlier_start_is_dead_and_says_so(tmp_path: Path) -> None:
    with serving(tmp_path, ui=True) as server:
        token = server.launch_link.rpartition("/")[2]
    with serving(tmp_path, ui=True) as server:
        refused(follow(f"{server.url}/launch/{token}"), "is from an earlier start")
