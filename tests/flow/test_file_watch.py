"""Changes of .flow files are seen whatever an editor does, and nothing else counts as one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flashflow.backend.flow.file_watch import FileWatch
from flashflow.backend.flow.language.loader import load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.flow").write_text("one")
    return tmp_path


@pytest.fixture
def watch(folder: Path) -> FileWatch:
    watch = FileWatch([folder])
    assert watch.changed()
    assert not watch.changed()
    return watch


def test_new_content_of_the_same_size_and_time_is_a_change(folder: Path, watch: FileWatch) -> None:
    file = folder / "a.flow"
    before = file.stat()
    file.write_text("two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert watch.changed()
    assert not watch.changed()


def test_a_new_time_alone_is_no_change(folder: Path, watch: FileWatch) -> None:
    os.utime(folder / "a.flow", (1_000_000_000, 1_000_000_000))
    assert not watch.changed()
    (folder / "a.flow").write_text("two")
    assert watch.changed()


def test_a_file_that_an_editor_replaces_is_one_change(folder: Path, watch: FileWatch) -> None:
    file = folder / "a.flow"
    file.unlink()
    assert not watch.changed()
    (folder / "new").write_text("two")
    (folder / "new").rename(file)
    assert watch.changed()
    assert watch.present() == [folder]


def test_files_come_and_go_in_a_folder(folder: Path, watch: FileWatch) -> None:
    (folder / "b.flow").write_text("b")
    assert watch.changed()
    (folder / "b.flow").unlink()
    assert [watch.changed() for _ in range(3)] == [False, True, False]
    (folder / "a.flow").unlink()
    assert [watch.changed() for _ in range(3)] == [False, True, False]
    assert watch.present() == []


@pytest.mark.parametrize("name", ["notes.txt", ".a.flow.swp", ".#a.flow", "a.flow~"])
def test_other_files_do_not_count(folder: Path, watch: FileWatch, name: str) -> None:
    (folder / name).write_text("x")
    assert not watch.changed()


def test_a_file_that_is_given_by_its_name_is_watched_alone(folder: Path) -> None:
    watch = FileWatch([folder / "a.flow", folder / "later.flow"])
    assert watch.changed()
    assert watch.present() == [folder / "a.flow"]
    (folder / "other.flow").write_text("x")
    assert not watch.changed()
    (folder / "later.flow").write_text("x")
    assert watch.changed()


def test_a_folder_in_place_of_a_file_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "x.flow").mkdir()
    watch = FileWatch([tmp_path])
    assert watch.changed()
    assert not watch.changed()


def test_a_pipe_and_a_loop_of_links_are_errors_of_the_project_and_stop_nothing(folder: Path, watch: FileWatch) -> None:
    (folder / "a.flow").write_text("model A { id: integer primary }")
    pipe = folder / "b.flow"
    os.mkfifo(pipe)
    assert watch.changed()
    _, errors = load([folder])
    assert [error.message for error in errors] == ["this is not a file"]
    pipe.unlink()
    pipe.symlink_to(pipe)
    watch.changed()
    _, errors = load([folder])
    assert [error.message.partition(":")[0] for error in errors] == ["the file cannot be read"]
