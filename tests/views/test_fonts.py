"""The fonts that Flet's web client asks for are shipped, and others are answered."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from flashflow.views.web import shipped_font
from tests.support.server_process import ROOT

ASSETS = ROOT / "assets"
FONTS = ASSETS / "assets/fonts"
FAMILIES = (
    "notosans", "notosansarabic", "notosansarmenian", "notosansbengali", "notosansdevanagari", "notosansethiopic",
    "notosansgeorgian", "notosansgujarati", "notosansgurmukhi", "notosanshebrew", "notosansjp", "notosanskannada",
    "notosanskhmer", "notosanskr", "notosanslao", "notosansmalayalam", "notosansmath", "notosansmyanmar",
    "notosansoriya", "notosanssc", "notosanssinhala", "notosanssymbols", "notosanssymbols2", "notosanstamil",
    "notosanstc", "notosanstelugu", "notosansthaana", "notosansthai", "notocoloremoji",
)  # fmt: skip


def client() -> Path:
    spec = find_spec("flet_web")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "web"


def test_every_font_of_the_shipped_families_has_the_name_that_the_client_requests() -> None:
    wanted = defaultdict(set)
    for url in re.findall(r'"(noto[a-z0-9]+/v\d+/[^"]+\.woff2)"', (client() / "main.dart.js").read_text("utf-8")):
        wanted[url.split("/")[0]].add(url)
    shipped = {path.relative_to(FONTS).as_posix() for path in FONTS.glob("*/*/*")}
    assert shipped == set().union(*(wanted[family] for family in FAMILIES)), "run .ci/build_fonts.py"


def test_the_fonts_of_the_manifest_are_shipped_and_are_fonts() -> None:
    manifest = json.loads((ASSETS / "assets/FontManifest.json").read_text("utf-8"))
    named = [font["asset"] for family in manifest for font in family["fonts"]]
    missing = [name for name in named if not any((base / "assets" / name).is_file() for base in (ASSETS, client()))]
    assert missing == []
    assert {path.read_bytes()[:4] for path in FONTS.rglob("*.woff2")} == {b"wOF2"}
    assert "SIL OPEN FONT LICENSE Version 1.1" in (FONTS / "LICENSE").read_text("utf-8")


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("/assets/fonts/notosanshk/v1/abc.7.woff2", "/assets/fonts/blank.woff2"),
        ("/assets/fonts/blank.woff2", "/assets/fonts/blank.woff2"),
        ("/assets/fonts/other.woff2", "/assets/fonts/other.woff2"),
        ("/assets/fonts/noto/v1/../../../x.woff2", "/assets/fonts/noto/v1/../../../x.woff2"),
    ],
)
def test_a_fallback_font_that_is_not_shipped_is_answered_with_the_blank_font(asked: str, answered: str) -> None:
    assert shipped_font({"type": "http", "path": asked}, ASSETS)["path"] == answered


def test_a_shipped_fallback_font_is_answered_with_itself() -> None:
    path = f"/assets/fonts/{next(FONTS.glob('notosansthai/*/*')).relative_to(FONTS).as_posix()}"
    assert shipped_font({"type": "http", "path": path}, ASSETS)["path"] == path
