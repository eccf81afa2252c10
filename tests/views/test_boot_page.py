"""The page before the screens: our colours, icons and name."""

from __future__ import annotations

import json
import re

from flashflow.views.shared.theme import COLORS
from tests.support.server_process import ROOT

ASSETS = ROOT / "assets"
PNG = b"\x89PNG\r\n\x1a\n"


def test_the_boot_page_has_the_surfaces_of_the_theme() -> None:
    html = (ASSETS / "index.html").read_text("utf-8")
    light, dark = COLORS["surface"]
    assert re.findall(r"--surface: (#\w+)", html) == [light, dark]
    assert re.findall(r'name="theme-color".*content="(#\w+)"', html) == [light, dark]
    cards = COLORS["surface_container_lowest"]
    assert tuple(re.findall(r"--card: (#\w+)", html)) == cards
    assert "<!-- fletAppConfig -->" in html, "Flet writes its settings there"


def test_every_icon_named_is_a_picture_of_its_size() -> None:
    manifest = json.loads((ASSETS / "manifest.json").read_text("utf-8"))
    assert manifest["name"] == "FlashFlow"
    pictures = [(icon["src"], icon["sizes"]) for icon in manifest["icons"] if icon["type"] == "image/png"]
    pictures += [("favicon.png", "32x32"), ("icon.png", "1024x1024"), ("icons/apple-touch-icon-192.png", "192x192")]
    for name, sizes in pictures:
        data = (ASSETS / name).read_bytes()
        assert data.startswith(PNG), name
        width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
        assert f"{width}x{height}" == sizes, name


def test_the_boot_page_draws_the_icon() -> None:
    drawing = re.search(r' d="([^"]+)"', (ASSETS / "icon.svg").read_text("utf-8"))
    assert drawing is not None
    assert drawing[1] in (ASSETS / "index.html").read_text("utf-8")
