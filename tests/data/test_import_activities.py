"""Putting an export back in: every row once, as it was; what is bad is named by its line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flashflow.backend import UserActivityService
from tests.support.api_client import rows_in
from tests.support.server_process import flashflow, serving

COLUMNS = (
    "id, user_id, activity_type, session_id, app, timestamp, received_at, metadata, page_url, referrer, user_agent, "
    "ip_address"
)


def stored(data: Path) -> list[tuple[Any, ...]]:
    return sorted(rows_in(data / "user_activities.db", f"SELECT {COLUMNS} FROM user_activities"), key=repr)


def filled(data: Path, rows: int = 5) -> None:
    """A data folder with activities of two apps, hostile text among them."""
    data.mkdir()
    with closing(UserActivityService(data / "user_activities.db")) as service:
        for number in range(rows):
            service.track_activity(
                f"=user-{number}", "@type", session_id=f"'session-{number % 3}", metadata={"text": "=1\r\n,\"'é"},
                page_url=f"-/page/{number}", referrer="+r", user_agent="\u202eagent", ip_address="192.0.2.77",
                app=f"app{number % 3}",
            )  # fmt: skip


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_what_comes_back_is_what_left_and_a_second_import_changes_nothing(
    tmp_path: Path, kind: str, running: bool
) -> None:
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / f"rows.{kind}"
    filled(here, 1_203)
    assert flashflow("export", str(file), data_dir=here).returncode == 0

    def twice() -> None:
        first = flashflow("import", str(file), data_dir=there)
        assert (first.returncode, first.stderr) == (0, "")
        assert first.stdout == "1,203 imported, 0 were there already, 0 refused.\n"
        second = flashflow("import", str(file), data_dir=there)
        assert second.returncode == 0
        assert second.stdout == "0 imported, 1,203 were there already, 0 refused.\n"

    if running:
        with serving(there):
            twice()
    else:
        twice()
    assert stored(there) == stored(here)
    assert len(stored(there)) == 1_203


def write(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8", "surrogateescape")
    return path


GOOD = {"user_id": "ada", "activity_type": "a", "timestamp": "2026-06-10T12:00:00Z"}


def test_bad_rows_are_named_by_their_lines_and_the_good_ones_land(tmp_path: Path) -> None:
    lines = [
        json.dumps(GOOD | {"id": "1"}),
        "{not json",
        "",
        json.dumps(GOOD | {"user_id": ""}),
        json.dumps(GOOD | {"id": "2", "colour": "red"}),
        json.dumps({"user_id": "ada", "activity_type": "a"}),
        json.dumps(GOOD | {"id": "3", "timestamp": "2199-01-01T00:00:00Z"}),
        json.dumps(GOOD | {"id": "4"}),
        '{"user_id": "ada", "activity_type": "\udcff", "timestamp": "2026-06-10T12:00:00Z"}',
    ]
    file = write(tmp_path / "rows.jsonl", lines)
    done = flashflow("import", str(file), data_dir=tmp_path / "data")
    assert done.returncode == 1
    assert done.stdout == "2 imported, 0 were there already, 6 refused.\n"
    named = [line.partition(":")[0] for line in done.stderr.splitlines()]
    assert named == [f"line {number}" for number in (2, 4, 5, 6, 7, 9)]
    assert "colour" in done.stderr
    assert "timestamp: is required" in done.stderr


def test_a_row_of_csv_is_named_by_the_line_it_begins_on(tmp_path: Path) -> None:
    lines = ["user_id,activity_type,timestamp,metadata", 'ada,"two\n lines",2026-06-10T12:00:00Z,',
             "ada,a,2026-06-10T12:00:00Z,{", "ada,a", "ada,b,2026-06-10T12:00:00Z,[1]"]  # fmt: skip
    file = write(tmp_path / "rows.csv", lines)
    done = flashflow("import", str(file), data_dir=tmp_path / "data")
    assert done.returncode == 1
    named = [line.partition(":")[0] for line in done.stderr.splitlines()]
    assert named == ["line 2", "line 4", "line 5", "line 6"]


def test_a_row_without_an_id_gets_the_same_one_every_time(tmp_path: Path) -> None:
    data = tmp_path / "data"
    file = write(tmp_path / "rows.jsonl", [json.dumps(GOOD), json.dumps(GOOD | {"activity_type": "b"})])
    assert flashflow("import", str(file), data_dir=data).stdout.startswith("2 imported")
    assert flashflow("import", str(file), data_dir=data).stdout.startswith("0 imported, 2 were there already")


def test_an_imported_activity_does_not_get_the_importers_address(tmp_path: Path) -> None:
    data = tmp_path / "data"
    file = write(tmp_path / "rows.jsonl", [json.dumps(GOOD)])
    with serving(data):
        assert flashflow("import", str(file), data_dir=data).returncode == 0
    assert [(row[10], row[11]) for row in stored(data)] == [(None, None)]


def test_what_is_no_export_is_refused_in_one_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name, lines in (("a.csv", ["id,colour", "1,2"]), ("b.xls", ["x"])):
        done = flashflow("import", str(write(tmp_path / name, lines)), data_dir=data)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    done = flashflow("import", str(tmp_path / "none.csv"), data_dir=data)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
