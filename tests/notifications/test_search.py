"""Search (``q``) in any script, whatever the case: in the index, in what is not indexed yet, and without an index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashflow.backend import NotificationService
from flashflow.backend.data.import_notifications import import_notifications_write
from flashflow.backend.schemas.requests import SendIn, build
from flashflow.backend.store.engine.writer import Write
from flashflow.backend.store.notifications import search
from tests.support.api_client import fresh, ok, send
from tests.support.examples import examples
from tests.support.fixed_clock import StillClock
from tests.support.server_process import ServerProcess, serving

FOUND = {
    "ärger": "Viel Ärger heute",
    "ÄRGER": "viel ärger heute",
    "привет": "Привет, мир",
    "МИР": "Привет, мир",
    "ΣΟΦΌΣ": "ο σοφός λέει",
    "σοφός": "Ο ΣΟΦΌΣ ΛΈΕΙ",
    "իմաստուն": "ԻՄԱՍՏՈՒՆ մարդ",
    "თბილისი": "ᲗᲑᲘᲚᲘᲡᲘ დღეს",
    "ᏣᎳᎩ": "ꮳꮃꭹ ꭶꮼꮒꭿꮝꮧ",
    "𞤀𞤣𞤤𞤢𞤥": "𞤢𞤣𞤤𞤢𞤥",
    "会议": "明天的会议开始",
    "会": "明天的会议开始",
    "회의": "내일 회의 시작",
    "اجتماع": "بدء اجتماع الغد",
    "straße": "Die Straße ist frei",
    "STRA": "Die Straße ist frei",
    "ör": "HÖRT",
    "ö": "HÖRT",
    "a": "A",
    "100% BUILD_7 \\": "The 100% build_7 \\ done",
    'say "hi" and': 'They SAY "hi" AND leave',
    "title:x OR y*": "a title:x or y* b",
    "🎉 go": "It is 🎉 GO",
}
NOT_FOUND = ("b%d_7", "ärgert", "gerär", "会开", "zzz", "_", "xyz" * 60)


@pytest.fixture(scope="module", params=["tail", "indexed", "no FTS5"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotificationService]:
    """The texts, by how they are found."""
    with NotificationService(tmp_path_factory.mktemp("found") / "n.db", clock=StillClock()) as service:
        for text in dict.fromkeys(FOUND.values()):
            service.send_notification("ada", text, "nothing here")
            service.send_notification("bob", "nothing here", text)
        if request.param == "indexed":
            assert service.store.run(Write(search.catch_up, None)) == 2 * len(set(FOUND.values()))
        if request.param == "no FTS5":
            service.store.run(Write(search.prepare, False))
        yield service


def titles(service: NotificationService, text: str, user: str = "ada") -> list[str]:
    return [n.title if user == "ada" else n.message for n in service.get_user_notifications(user, q=text).notifications]


@pytest.mark.parametrize("text", FOUND)
def test_a_text_is_found_whatever_its_script_and_case(service: NotificationService, text: str) -> None:
    assert FOUND[text] in titles(service, text)
    assert titles(service, text, "bob") == titles(service, text)


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_no_row_holds_is_not_found(service: NotificationService, text: str) -> None:
    assert [title for title in titles(service, text) if text not in title] == []


WORDS = st.text(st.sampled_from("aAbBäÄßσςΣиИ会%_\"'\\İ"), min_size=1, max_size=7)


@settings(max_examples=examples(40), deadline=None)
@given(texts=st.lists(WORDS, min_size=1, max_size=6), wanted=WORDS, changed=WORDS)
def test_index_tail_and_plain_look_agree_after_every_change(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], wanted: str, changed: str
) -> None:
    with NotificationService(tmp_path_factory.mktemp("agree") / "n.db", clock=StillClock()) as service:
        for text in texts:
            service.send_notification("ada", text, "x", collapse_key=text[:1])
        expected = titles(service, wanted)
        service.store.run(Write(search.catch_up, None))
        assert titles(service, wanted) == expected
        service.send_notification("ada", changed, "y", collapse_key=texts[0][:1])  # an indexed row, in place
        expected = titles(service, wanted)
        assert (changed in expected) == (search.fold(wanted) in search.fold(changed))
        service.store.run(Write(search.prepare, False))
        assert titles(service, wanted) == expected
        service.store.run(Write(search.prepare, True))  # this SQLite has FTS5 again
        assert titles(service, wanted) == expected
        while service.store.run(Write(search.catch_up, None)):
            pass
        assert titles(service, wanted) == expected


def test_pages_go_by_the_time_in_the_inbox_whether_few_or_many_match(tmp_path: Path) -> None:
    clock = StillClock()
    with NotificationService(tmp_path / "n.db", clock=clock) as service:
        for number in range(30):
            at = clock.at(hours=30 - number) if number % 2 else None
            service.send_notification("ada", f"Größe {number}", "x", scheduled_at=at)
        clock.go(hours=40)
        service.release_due()
        for index in (True, False):
            seen: list[str] = []
            cursor: str | None = None
            while True:
                page = service.get_user_notifications("ada", q="GRÖSSE"[:2], limit=7, cursor=cursor)
                seen += [n.title for n in page.notifications]
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert seen == [n.title for n in service.get_user_notifications("ada", limit=200).notifications]
            assert len(seen) == 30
            if index:
                service.store.run(Write(search.catch_up, None))


def forget_one(service: NotificationService) -> None:
    service.store.run(
        Write(lambda tx, items: [tx.conn.execute("DELETE FROM notifications WHERE user_id = 'eve'")], None)
    )


@pytest.mark.parametrize("indexed", [True, False])
def test_a_deleted_row_leaves_no_trace_in_the_index(tmp_path: Path, indexed: bool) -> None:
    path = tmp_path / "n.db"
    with NotificationService(path, clock=StillClock()) as service:
        for number in range(300):
            service.send_notification("ada", f"Build {number}", "All tests passed.")
            if number == 150:
                service.send_notification("eve", "Qzjxvw", "secret")
            if indexed and number % 50 == 0:
                service.store.run(Write(search.catch_up, None))
        if indexed:
            service.store.run(Write(search.catch_up, None))
            assert b"qzj" in index_bytes(service)
        forget_one(service)
        search.sweep(service.store)
        assert b"qzj" not in index_bytes(service)
        assert b"jxv" not in index_bytes(service)
        assert len(titles(service, "build 299")) == 1
    content = path.read_bytes()
    assert b"Qzjxvw" not in content
    assert b"qzj" not in content


def test_a_damaged_index_finds_what_the_rows_hold(tmp_path: Path) -> None:
    with NotificationService(tmp_path / "n.db", clock=StillClock()) as service:
        service.send_notification("ada", "Viel Ärger", "x")
        service.store.run(Write(search.catch_up, None))
        break_it = "DELETE FROM notification_search_data WHERE id > 10"
        service.store.run(Write(lambda tx, items: [tx.conn.execute(break_it).rowcount], None))
        assert titles(service, "ärger") == ["Viel Ärger"]


def index_bytes(service: NotificationService) -> bytes:
    rows = service.store.read(lambda conn: conn.execute("SELECT block FROM notification_search_data").fetchall())
    return b"\n".join(block for (block,) in rows)


def test_the_job_indexes_what_is_worth_it_and_imported_rows_are_indexed_at_once(tmp_path: Path) -> None:
    with NotificationService(tmp_path / "n.db") as service:
        users = [f"user {number}" for number in range(search.WORTH_INDEXING - 1)]
        service.store.run(service.send_write(order(users), "app"))
        search.index_tail(service.store)
        assert service.store.read(search.tail_length) == search.WORTH_INDEXING - 1
        service.store.run(service.send_write(order(users), "app"))
        search.index_tail(service.store, seconds=30)
        assert service.store.read(search.tail_length) < search.WORTH_INDEXING
        (mark,) = service.store.read(lambda conn: conn.execute("SELECT indexed_to FROM search_state").fetchone())
        service.store.run(import_notifications_write(service.clock, [OLD]))
        assert titles(service, "ИМПОРТ") == ["Импорт"]
        assert service.store.read(lambda conn: conn.execute("SELECT MIN(seq) FROM notifications").fetchone())[0] < mark


OLD = msgspec.json.encode(
    {"id": "old", "user_id": "ada", "title": "Импорт", "message": "x", "status": "delivered", "inbox": "unread",
     "created_at": "2020-01-01T00:00:00Z"}
)  # fmt: skip


def order(users: list[str]) -> SendIn:
    return build(SendIn, user_ids=users, title="Hello", message="It works.")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("search")) as running:
        yield running


def test_the_api_finds_every_script(server: ServerProcess) -> None:
    user = fresh()
    sent = {text: send(server, user, text) for text in dict.fromkeys(FOUND.values())}
    for text, title in FOUND.items():
        page = ok(server.api("GET", f"/api/notifications/user/{user}", params={"q": text, "limit": 200}))
        assert sent[title] in [row["id"] for row in page["notifications"]], text
