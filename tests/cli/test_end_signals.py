"""Every signal that asks FlashFlow to end does so at once and in order, also after it was stopped and continued."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server_process import ROOT, environment, eventually, serving

if sys.platform == "win32":
    pytest.skip("these signals are Unix's", allow_module_level=True)

ORDERS = [
    (signal.SIGHUP,),
    (signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT),
    (signal.SIGSTOP, signal.SIGINT, signal.SIGCONT),
    (signal.SIGSTOP, signal.SIGHUP, signal.SIGCONT),
    (signal.SIGSTOP, signal.SIGCONT, signal.SIGTERM),
    (signal.SIGTERM, signal.SIGSTOP, signal.SIGCONT),
    (signal.SIGTERM, signal.SIGTERM),
]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: " ".join(number.name for number in order))
def test_it_ends_with_its_files_closed(tmp_path: Path, order: tuple[signal.Signals, ...]) -> None:
    with serving(tmp_path) as server:
        for number in order:
            server.process.send_signal(number)
        assert server.process.wait(10) == 0
        assert server.err == ""
    assert not (tmp_path / "server.json").exists()
    assert all(path.stat().st_size == 0 for path in tmp_path.glob("*-wal"))


def test_under_nohup_it_outlives_its_terminal(tmp_path: Path) -> None:
    command = ["nohup", sys.executable, "main.py", "serve", "--no-ui", "--port", "0"]
    out = tmp_path / "out"
    with out.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(tmp_path / "data"), stdout=file, stderr=file, stdin=subprocess.DEVNULL
        )
    try:
        eventually(lambda: "answers at" in out.read_text(), 20, "the address")
        ignored = next(
            line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "SigIgn" in line
        )
        assert int(ignored.split()[1], 16) & 1 << (signal.SIGHUP - 1)
        process.send_signal(signal.SIGHUP)
    finally:
        process.terminate()
        assert process.wait(10) == 0
