"""`flashflow check`: errors with the way out, or the number of declarations; an object for editors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flashflow.command_line import main

GOOD = 'model Product { name: string required }\npage Home { text "Hello" }\n'


def test_a_sound_file_is_counted_and_the_exit_code_is_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.flow").write_text(GOOD)
    (tmp_path / "b.flow").write_text("page News { }\n")
    assert main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "2 files without errors: 1 model, 2 pages.\n"


def test_errors_are_printed_with_their_lines_and_the_exit_code_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.flow"
    path.write_text("page Home {\n\ttitle: Home\n}\nmodle Product { name: string }\n")
    assert main(["check", str(path)]) == 1
    said = capsys.readouterr()
    assert said.out == (
        f"{path}:2:9: “title” needs a text\n"
        "  2 |     title: Home\n"
        "    |            ^^^^\n"
        '  Write it in double quotes: `title: "Home"`.\n\n'
        f"{path}:4:1: “modle” is not a declaration\n"
        "  4 | modle Product { name: string }\n"
        "    | ^^^^^\n"
        "  Did you mean “model”?\n"
    )
    assert said.err == "flashflow: 2 errors.\n"


def test_editors_get_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.flow"
    path.write_text(GOOD + "page Home { }\n")
    assert main(["check", "--json", str(path)]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["valid"] is False
    assert answer["declarations"]["models"] == 1
    assert answer["errors"] == [
        {
            "file": str(path), "line": 3, "column": 6, "length": 4,
            "message": f"page “Home” is declared in {path}:2:6 already", "hint": "Rename or remove one of them.",
        }
    ]  # fmt: skip


def test_an_endpoint_is_compared_with_the_routes_of_the_api(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.flow"
    path.write_text('endpoint Predict { path: "/api/predict" }\n')
    assert main(["check", str(path)]) == 1
    assert "FlashFlow has no route GET /api/predict" in capsys.readouterr().out


def test_a_check_needs_a_file() -> None:
    assert main(["check"]) == 2
