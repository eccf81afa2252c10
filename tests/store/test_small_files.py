"""A damaged small file of the data folder is set aside, created again and named; nothing prevents the start."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flashflow.backend import Backend, Config
from flashflow.backend.core.errors import StorageError
from flashflow.backend.core.private_files import read_or_create, write_private
from tests.support.server_process import eventually, flashflow, serving

DAMAGE: dict[str, Callable[[Path], object]] = {
    "not text": lambda path: path.write_bytes(b"\xff\xfe" * 40),
    "zeros": lambda path: path.write_bytes(b"\0" * 64),
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: os.truncate(path, 7),
    "words": lambda path: path.write_text("hello there, this is no such thing at all, is it?"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}
NAMES = ("computer.id", "local.key", "browser.secret", "server.json")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_small_file_is_set_aside_created_again_and_named(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "data"
    with serving(folder, ui=True) as server:
        eventually((folder / "server.json").exists)
        server.kill()  # so that server.json stays
    for name in NAMES:
        DAMAGE[damage](folder / name)
    with serving(folder, ui=True) as server:
        assert server.api("GET", "/api/health").json()["status"] == "ok"
        eventually((folder / "server.json").is_file, what="server.json")
        for name in NAMES[:3]:
            assert name in server.err, server.err
            assert list(folder.glob(f"{name}.damaged-*")), name
            assert (folder / name).stat().st_mode & 0o777 == 0o600
        assert "Traceback" not in server.err
        assert flashflow("send", "ada", "still", "works", data_dir=folder).returncode == 0


def test_a_computer_whose_id_was_damaged_stays_one_device(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path, me="ada")
    with Backend(config) as backend:
        backend.start(api=False)
        before = backend.notifications.devices.of("ada")
    (tmp_path / "computer.id").write_bytes(b"\xff")
    with Backend(config) as backend:
        backend.start(api=False)
        (sentence,) = backend.notices
        assert sentence.startswith("computer.id was damaged.")
        assert [d.id for d in backend.notifications.devices.of("ada")] == [d.id for d in before]
        (notice,) = backend.notifications.get_user_notifications("ada").notifications
        assert notice.message == sentence


def test_a_small_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small"
    write_private(path, b"first")

    def fails(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StorageError, match="No space left"):
        write_private(path, b"second")
    with pytest.raises(StorageError, match="No space left"):
        read_or_create(path, lambda content: None if content == b"first" else content, lambda: b"third", print)
    assert path.read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["small"]
