"""An export goes through pipes, devices, links and descriptors and leaves each what it was; a file is whole or not."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server_process import ROOT, environment, flashflow, serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="devices and FIFOs are Unix files")


@pytest.fixture(params=["alone", "beside a server"], scope="module")
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("data")
    assert flashflow("track", "ada", "click", data_dir=folder).returncode == 0
    if request.param == "alone":
        yield folder
        return
    with serving(folder):
        yield folder


def kind_of(path: Path) -> int:
    return stat.S_IFMT(path.lstat().st_mode)


def exporting_to(data: Path, place: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "main.py", "export", "--format", "jsonl", str(place)]
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        command, cwd=ROOT, env=environment(data), text=True, timeout=30, check=False, **options
    )


def test_an_export_is_written_through_a_pipe(data: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        assert exporting_to(data, pipe).returncode == 0
        assert '"ada"' in reader.communicate(timeout=20)[0]
    assert kind_of(pipe) == stat.S_IFIFO


@pytest.mark.parametrize("place", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("into", ["a pipe", "a file"])
def test_an_export_is_written_through_an_open_descriptor(data: Path, tmp_path: Path, place: str, into: str) -> None:
    if into == "a pipe":
        assert '"ada"' in exporting_to(data, place, stdout=subprocess.PIPE).stdout
        return
    file = tmp_path / "file"
    with file.open("w") as out:
        assert exporting_to(data, place, stdout=out).returncode == 0
        assert os.fstat(out.fileno()).st_ino == file.stat().st_ino
    assert '"ada"' in file.read_text()


@pytest.mark.parametrize("name", ["null", "full"])
def test_an_export_is_written_through_a_device(data: Path, name: str) -> None:
    device = Path("/dev", name)
    done = exporting_to(data, device, stderr=subprocess.PIPE)
    assert kind_of(device) == stat.S_IFCHR
    if name == "full":
        assert done.stderr == "flashflow: /dev/full cannot be written: No space left on device.\n"
    assert done.returncode == (1 if name == "full" else 0)


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to a file that is not there yet"])
def test_a_link_stays_a_link_and_its_file_is_written(data: Path, tmp_path: Path, there: bool) -> None:
    file, link = tmp_path / "elsewhere" / "file", tmp_path / "link"
    file.parent.mkdir()
    if there:
        file.write_text("before")
    link.symlink_to(file)
    assert exporting_to(data, link).returncode == 0
    assert kind_of(link) == stat.S_IFLNK
    assert '"ada"' in file.read_text()
    assert os.listdir(file.parent) == ["file"]


def test_a_link_to_a_device_stays_one(data: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    assert exporting_to(data, link).returncode == 0
    assert (kind_of(link), kind_of(Path("/dev/null"))) == (stat.S_IFLNK, stat.S_IFCHR)


def test_the_temporary_file_follows_no_planted_link(data: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "out.jsonl.part").symlink_to(victim)
    assert exporting_to(data, tmp_path / "out.jsonl").returncode == 0
    assert victim.read_text() == "kept"
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("place", ["", "no/such/folder/x.jsonl", ".", "loop", "x" * 300])
def test_what_cannot_be_written_is_named_in_one_line_and_nothing_is_left(
    data: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    done = exporting_to(data, tmp_path / place if place else "", stderr=subprocess.PIPE)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "cannot be written" in done.stderr
    assert os.listdir(tmp_path) == ["loop"]
