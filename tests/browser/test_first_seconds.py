"""The first ten seconds in a real browser: fonts of every script."""

from __future__ import annotations

import re

from playwright.sync_api import Response

from tests.support.browser import DEADLINE, ME, TWO_FRAMES, Screen
from tests.support.server_process import ServerProcess, eventually

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
