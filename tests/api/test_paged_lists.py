"""Every paged list uses a unique key: rows of one millisecond keep their order across pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from flashflow.backend import Backend
from flashflow.backend.analytics.query import Filters
from flashflow.backend.api.framework.pagination import Page, paged, paged_rows
from flashflow.backend.core.config import Config
from flashflow.backend.schemas.records import Record
from tests.support.fixed_clock import StillClock

ROWS = 7
Row = tuple[int, Record]
Pages = Callable[[int, str | None], tuple[list[str], str | None]]


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    """All rows are created in one millisecond: the clock is stopped."""
    with Backend(Config(data_dir=tmp_path, me="ada"), clock=StillClock()) as backend:
        yield backend


def name_of(number: int) -> str:
    """Names in an order that is neither the order of creation nor its reverse."""
    return f"row-{number * 3 % ROWS}"


def in_memory(rows: Callable[[], Sequence[Row]]) -> Pages:
    """Page a list that fits in memory as its route does."""

    def page(limit: int, cursor: str | None) -> tuple[list[str], str | None]:
        answer = paged("rows", rows(), Page(limit=limit, cursor=cursor))
        return [getattr(row, "name", None) or row.device_info["name"] for row in answer["rows"]], answer["next_cursor"]

    return page


def row_by_row(newest: Callable[[int, int], tuple[Sequence[Row], bool]]) -> Pages:
    """Page a list of large rows as its route does."""

    def page(limit: int, cursor: str | None) -> tuple[list[str], str | None]:
        answer = paged_rows("rows", newest, Page(limit=limit, cursor=cursor))
        return [getattr(row, "name", None) or row.device_info["name"] for row in answer["rows"]], answer["next_cursor"]

    return page


def types(backend: Backend) -> Pages:
    for number in range(ROWS):
        backend.notifications.declare_type(name_of(number))
    return in_memory(backend.notifications.preferences.numbered_types)


def used_types(backend: Backend) -> Pages:
    for number in range(ROWS):
        backend.notifications.send_notification("ada", "Hello", "It works.", name_of(number))
    return in_memory(backend.notifications.preferences.numbered_types)


def templates(backend: Backend) -> Pages:
    for number in range(ROWS):
        backend.notifications.create_notification_template(name_of(number), "Hello", "It works.")
    return row_by_row(lambda *below: backend.notifications.templates.newest(None, *below))


def keys(backend: Backend) -> Pages:
    for number in range(ROWS):
        backend.keys.add(name_of(number), ["send"])
    return in_memory(backend.keys.numbered)


def keys_made_again(backend: Backend) -> Pages:
    for number in reversed(range(ROWS)):
        backend.keys.add(name_of(number), ["send"])
        backend.keys.revoke(name_of(number))
    return keys(backend)


def devices(backend: Backend) -> Pages:
    for number in range(ROWS):
        backend.notifications.register_device_token("ada", name_of(number), "ios", {"name": name_of(number)})
    return row_by_row(lambda *below: backend.notifications.devices.newest("ada", None, *below))


def notifications(backend: Backend) -> Pages:
    for number in range(ROWS):
        backend.notifications.send_notification("ada", name_of(number), "It works.")

    def page(limit: int, cursor: str | None) -> tuple[list[str], str | None]:
        found = backend.notifications.get_user_notifications("ada", limit=limit, cursor=cursor)
        return [row.title for row in found.notifications], found.next_cursor

    return page


def activities(backend: Backend) -> Pages:
    for number in range(ROWS):
        backend.activity.track_activity("ada", name_of(number))

    def page(limit: int, cursor: str | None) -> tuple[list[str], str | None]:
        found = backend.activity.list_activities(user_id="ada", limit=limit, cursor=cursor)
        return [row.activity_type for row in found.activities], found.next_cursor

    return page


def sessions(backend: Backend) -> Pages:
    for number in range(ROWS):
        backend.activity.start_session("ada", session_id=name_of(number))

    def page(limit: int, cursor: str | None) -> tuple[list[str], str | None]:
        found = backend.activity.get_user_sessions("ada", limit=limit, cursor=cursor)
        return [row.id for row in found.sessions], found.next_cursor

    return page


def users(backend: Backend) -> Pages:
    for number in range(ROWS):
        backend.activity.track_activity(name_of(number), "click")
    backend.activity.settle_metrics()

    def page(limit: int, cursor: str | None) -> tuple[list[str], str | None]:
        found = backend.analytics.user_list(Filters(), limit, cursor)
        return [row.user_id for row in found.users], found.next_cursor

    return page


def rules(backend: Backend) -> Pages:
    for number in range(ROWS):
        backend.rules.create(name_of(number), on={"activity_type": "click"}, send={"title": "a", "message": "b"})

    def page(limit: int, cursor: str | None) -> tuple[list[str], str | None]:
        found = backend.rules.page(None, limit, cursor)
        return [row.name for row in found.rules], found.next_cursor

    return page


def schedules(backend: Backend) -> Pages:
    notification = {"user_id": "ada", "title": "Stand up", "message": "It is time."}
    for number in range(ROWS):
        backend.notifications.schedules.create(name_of(number), notification, {"every_minutes": 60}, "app")

    def page(limit: int, cursor: str | None) -> tuple[list[str], str | None]:
        found = backend.notifications.schedules.page(None, limit, cursor)
        return [row.name for row in found.schedules], found.next_cursor

    return page


LISTS = (
    types, used_types, templates, keys, keys_made_again, devices, notifications, activities, sessions, users, rules,
    schedules,
)  # fmt: skip


@pytest.mark.parametrize("make", LISTS)
def test_rows_of_one_millisecond_are_paged_newest_first(backend: Backend, make: Callable[[Backend], Pages]) -> None:
    page = make(backend)
    for limit in range(1, ROWS + 1):
        seen: list[str] = []
        cursor: str | None = None
        while True:
            names, cursor = page(limit, cursor)
            assert len(names) <= limit
            seen += names
            if cursor is None:
                break
        assert seen[:ROWS] == [name_of(number) for number in reversed(range(ROWS))]
        assert len(seen) == len(set(seen))


def test_a_row_that_goes_between_two_pages_moves_no_other(backend: Backend) -> None:
    page = devices(backend)
    names, cursor = page(3, None)
    for device in backend.notifications.list_devices("ada"):
        if device.device_info["name"] in names:
            backend.notifications.store.run(backend.notifications.devices.remove_write(device.id, None))
    assert page(ROWS, cursor) == ([name_of(number) for number in reversed(range(ROWS - 3))], None)
