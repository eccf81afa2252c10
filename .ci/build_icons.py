"""Render assets/icon.svg to the PNG files beside it. Needs cairosvg: ``python .ci/build_icons.py``."""

from __future__ import annotations

from pathlib import Path

import cairosvg

ASSETS = Path(__file__).resolve().parent.parent / "assets"
ROUND = {"favicon.png": 32, "icon.png": 1024, "icons/icon-192.png": 192, "icons/icon-512.png": 512}
FULL = {
    "icons/apple-touch-icon-192.png": 192,
    "icons/icon-maskable-192.png": 192,
    "icons/icon-maskable-512.png": 512,
}
"""Icons that the system cuts into its own shape: without round corners."""


def main() -> None:
    drawing = (ASSETS / "icon.svg").read_text("utf-8")
    square = drawing.replace(' rx="116"', "")
    assert square != drawing
    (ASSETS / "icons").mkdir(exist_ok=True)
    for names, svg in ((ROUND, drawing), (FULL, square)):
        for name, size in names.items():
            cairosvg.svg2png(svg.encode(), write_to=str(ASSETS / name), output_width=size, output_height=size)


if __name__ == "__main__":
    main()
