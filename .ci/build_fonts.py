"""Make assets/assets again from the @fontsource packages: fallback fonts, bold Roboto, a monospace.

Run with npm on the path and fonttools, brotli and flet-web installed: ``python .ci/build_fonts.py``.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from fontTools import subset
from fontTools.fontBuilder import FontBuilder
from fontTools.merge import Merger
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont

ASSETS = Path(__file__).resolve().parent.parent / "assets/assets"
CJK = ("sc", "tc", "jp", "kr")
SCRIPTS = (
    "arabic", "armenian", "bengali", "devanagari", "ethiopic", "georgian", "gujarati", "gurmukhi", "hebrew", "kannada",
    "khmer", "lao", "malayalam", "myanmar", "oriya", "sinhala", "tamil", "telugu", "thaana", "thai",
)  # fmt: skip
CJK_END = ("cyrillic", "vietnamese", "latin-ext", "latin")
"""The last subsets of a CJK family in the engine's table, which does not name them."""
SYMBOLS_2 = ("braille", "math", "mayan-numerals", "symbols", "latin-ext", "latin")
"""The subsets of Noto Sans Symbols 2 in that table."""
PACKAGES = (
    *(f"noto-sans-{name}" for name in (*CJK, *SCRIPTS, "math", "symbols", "symbols-2")),
    "noto-sans", "noto-color-emoji", "roboto", "roboto-mono",
)  # fmt: skip
MERGED = (("roboto", 500), ("roboto", 600), ("roboto-mono", 400))
FONT = re.compile(r'"(noto[a-z0-9]+/v\d+/[^"]+\.woff2)"')
SLICE = re.compile(r"/\* noto-color-emoji-\[?(\w+)\]?-400-normal \*/.*?unicode-range: ([^;]+);", re.DOTALL)


def main() -> None:
    spec = find_spec("flet_web")
    assert spec is not None
    assert spec.origin is not None
    web = Path(spec.origin).parent / "web"
    urls = list(dict.fromkeys(FONT.findall((web / "main.dart.js").read_text("utf-8", errors="replace"))))
    shutil.rmtree(ASSETS, ignore_errors=True)
    fonts = ASSETS / "fonts"
    fonts.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        names = [f"@fontsource/{package}" for package in PACKAGES]
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", folder, *names], check=True)  # noqa: S603, S607
        source = work / "node_modules/@fontsource"
        emoji = cut_emoji(source / "noto-color-emoji", work)
        families = {package.replace("-", ""): package for package in PACKAGES}
        of_family: dict[str, list[str]] = {}
        for url in urls:
            of_family.setdefault(url.split("/")[0], []).append(url)
        for family, package in families.items():
            urls_of = of_family.get(family, [])
            for position, url in enumerate(urls_of):
                number = re.search(r"\.(\d+)\.woff2$", url)
                target = fonts / url
                target.parent.mkdir(parents=True, exist_ok=True)
                if package == "noto-sans":
                    merge(source, package, 400, work).save(target)
                elif package == "noto-color-emoji":
                    shutil.copyfile(emoji.get(number[1] if number else "", emoji["10"]), target)
                else:
                    part = number[1] if number else unnumbered(package, position - len(urls_of))
                    shutil.copyfile(source / package / f"files/{package}-{part}-400-normal.woff2", target)
        for package, weight in MERGED:
            merge(source, package, weight, work).save(fonts / f"{package}-{weight}.woff2")
        blank().save(fonts / "blank.woff2")
        (fonts / "LICENSE").write_text(licence(source), "utf-8")
    (ASSETS / "FontManifest.json").write_text(json.dumps(manifest(web), indent=2) + "\n", "utf-8")
    files = [path for path in ASSETS.rglob("*") if path.is_file()]
    print(len(files), "files,", sum(path.stat().st_size for path in files), "bytes")  # noqa: T201


def unnumbered(package: str, position: int) -> str:
    """Return the subset that the engine's table lists without a number, at a negative position in its family."""
    script = package.removeprefix("noto-sans-")
    if script in CJK:
        return CJK_END[position]
    if script == "symbols-2":
        return SYMBOLS_2[position]
    return "latin" if script == "math" else script  # the package calls all of Noto Sans Math "latin"


def merge(source: Path, package: str, weight: int, work: Path) -> TTFont:
    """Join a package's subsets into one font: the engine takes one file for each weight of a family."""
    parts = []
    for path in sorted((source / package / "files").glob(f"{package}-*-{weight}-normal.woff2")):
        font = TTFont(path)
        font.flavor = None
        parts.append(work / f"{path.stem}.ttf")
        font.save(parts[-1])
    font = Merger().merge([str(part) for part in parts])
    font.flavor = "woff2"
    return font


def cut_emoji(package: Path, work: Path) -> dict[str, Path]:
    """Cut the colour emoji into the slices of the style sheet, by their names."""
    # The numbered files of the package hold an SVG table only, which the engine draws as nothing. COLRv1 is drawn.
    whole = TTFont(package / "files/noto-color-emoji-emoji-400-normal.woff2")
    del whole["SVG "]
    whole.flavor = None
    whole.save(work / "emoji.ttf")
    slices = {}
    for name, ranges in SLICE.findall((package / "400.css").read_text("utf-8")):
        options = subset.Options(flavor="woff2", layout_features=["*"], notdef_outline=True)
        font = subset.load_font(str(work / "emoji.ttf"), options)
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=list(code_points(ranges)))
        subsetter.subset(font)
        slices[name] = work / f"emoji-{name}.woff2"
        subset.save_font(font, str(slices[name]), options)
    return slices


def code_points(ranges: str) -> Iterable[int]:
    for item in ranges.split(","):
        first, _, last = item.strip()[2:].partition("-")
        yield from range(int(first, 16), int(last or first, 16) + 1)


def blank() -> TTFont:
    """Return a font of one empty glyph, the answer to a fallback font that is not shipped."""
    builder = FontBuilder(1000, isTTF=True)
    empty = TTGlyphPen(None).glyph()
    builder.setupGlyphOrder([".notdef", "space"])
    builder.setupCharacterMap({0x20: "space"})
    builder.setupGlyf({".notdef": empty, "space": empty})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "space": (500, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Blank", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.font.flavor = "woff2"
    return builder.font


def licence(source: Path) -> str:
    """Return each package's copyright line and the text of the Open Font License."""
    lines = []
    for package in PACKAGES:
        text = (source / package / "LICENSE").read_text("utf-8")
        assert "SIL OPEN FONT LICENSE Version 1.1" in text, package
        version = json.loads((source / package / "package.json").read_text("utf-8"))["version"]
        lines.append(f"{package} {version}: {text.splitlines()[0].strip()}")
    text = (source / "noto-sans/LICENSE").read_text("utf-8")
    body = "This Font Software" + text.split("This Font Software", 1)[1]
    head = "Fonts of this folder, changed in their format, cut or joined by .ci/build_fonts.py:\n\n"
    return head + "\n".join(lines) + "\n\n" + body


def manifest(web: Path) -> list[dict[str, object]]:
    """Return the fonts that the client loads at its start. Flet adds Roboto 400."""
    # KaTeX and Cupertino icons are left out: 18 requests and 0.9 MB at each first load, for nothing that is drawn.
    shipped = json.loads((web / "assets/FontManifest.json").read_text("utf-8"))
    icons = [family for family in shipped if family["family"] == "MaterialIcons"]
    bold = [{"asset": f"fonts/roboto-{weight}.woff2", "weight": weight} for weight in (500, 600)]
    roboto = {"family": "Roboto", "fonts": [{"asset": "fonts/roboto.woff2", "weight": 400}, *bold]}
    return [*icons, roboto, {"family": "monospace", "fonts": [{"asset": "fonts/roboto-mono-400.woff2"}]}]


if __name__ == "__main__":
    main()
