"""The first ten seconds in a real browser: fonts of every script, the title, a server that is gone."""

from __future__ import annotations

import re

from playwright.sync_api import Response, expect

from tests.support.browser import DEADLINE, ENVIRONMENT, LANDMARKS, ME, TWO_FRAMES, Screen
from tests.support.server_process import ServerProcess, eventually, serving

HUNDRED_FRAMES = (
    "() => new Promise(done => { let n = 0; const f = () => ++n < 100 ? requestAnimationFrame(f) : done(); f(); })"
)
# By the family that the engine chooses for them in an English browser.
GREETINGS = {
    "notosansarabic": "مرحبا",
    "notosanshebrew": "שלום",
    "notosans": "नमस्ते",
    "notosansbengali": "নমস্কার",
    "notosanstamil": "வணக்கம்",
    "notosansthai": "สวัสดี",
    "notosansgeorgian": "გამარჯობა",
    "notosansarmenian": "Բարեւ",
    "notosansethiopic": "ሰላም",
    "notosanskhmer": "សួស្តី",
    "notosanskr": "안녕하세요",
    "notosanssc": "你好 こんにちは ★✓",
    "notocoloremoji": "🎉🚀👩‍💻🇩🇪",
}
COLOURS = """() => { const c = document.querySelector('#cover canvas'); const seen = new Set();
    const data = new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer);
    for (let i = 0; i < data.length; i += 7) seen.add(data[i]); return seen.size; }"""
WITHOUT_FONT = "ᏣᎳᎩ ᚠᚢᚦ"
FONT = re.compile(r"/assets/fonts/(noto[a-z0-9]+)/")


def test_texts_of_every_script_load_their_fonts_once_and_an_idle_page_requests_nothing(
    server: ServerProcess, screen: Screen
) -> None:
    answers: list[tuple[str, int, int]] = []

    def note(response: Response) -> None:
        if found := FONT.search(response.url):
            answers.append((found[1], response.status, int(response.headers["content-length"])))

    requested: list[str] = []
    screen.page.on("request", lambda request: requested.append(request.url))
    screen.page.on("response", note)
    body = {"user_id": ME, "title": "Greetings →", "message": " ".join([*GREETINGS.values(), WITHOUT_FONT])}
    assert server.api("POST", "/api/notifications/send", body).status_code == 201
    screen.find("button", re.compile("^Greetings"))

    def loaded() -> bool:
        screen.page.evaluate(TWO_FRAMES)
        return set(GREETINGS) <= {family for family, _, _ in answers}

    eventually(loaded, DEADLINE / 1000, what="the fonts")
    assert {status for _, status, _ in answers} == {200}
    screen.page.evaluate(HUNDRED_FRAMES)
    before = len(requested)
    screen.page.evaluate(HUNDRED_FRAMES)
    assert requested[before:] == []
    assert len(requested) == len(set(requested))


def test_the_title_counts_unread_notifications(server: ServerProcess, screen: Screen) -> None:
    expect(screen.page).to_have_title("FlashFlow", timeout=DEADLINE)
    body = {"user_id": ME, "title": "One", "message": "All good"}
    assert server.api("POST", "/api/notifications/send", body).status_code == 201
    expect(screen.page).to_have_title("(1) FlashFlow", timeout=DEADLINE)


def test_a_page_whose_server_is_gone_says_so_keeps_its_picture_and_comes_back(
    server: ServerProcess, page: Screen
) -> None:
    """Last in this file: the file's server is gone afterwards."""
    cover = page.page.locator("#cover")
    card = page.page.get_by_role("alert").filter(has_text="FlashFlow is not running")
    page.open(server.url)  # a page of the same session again: its state comes in one message
    expect(cover).to_be_hidden(timeout=DEADLINE)
    page.find(*LANDMARKS["Dashboard"])  # drawn: the cover goes with the data, a frame or more before
    page.page.evaluate(HUNDRED_FRAMES)

    server.kill()

    expect(card).to_be_visible(timeout=2_000)
    assert page.page.evaluate(COLOURS) > 20, "the last picture is kept"
    with serving(server.data_dir, "--port", str(server.port), ui=True, env=ENVIRONMENT):
        expect(cover).to_be_hidden(timeout=DEADLINE)
        page.find(*LANDMARKS["Dashboard"])
